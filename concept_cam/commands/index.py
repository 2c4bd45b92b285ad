"""``concept-cam index`` and ``concept-cam query``: encode a collection once, ask it as often as one likes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from concept_cam.commands.annotate import annotate as annotate_command
from concept_cam.commands.annotate import let_workers_work, standard_input
from concept_cam.commands.console import PathName, ProgressDisplay, interactive, note, warn
from concept_cam.commands.options import Names, Within, number_or_column, resolve, warn_unknown_words, warn_unread_places
from concept_cam.core.names import DEFAULT_MODEL, display, path_of
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.core.settings import FEATURE_NORMS, MOST_GAMMA, SETTING_NAMES, WEIGHTINGS, Settings

if TYPE_CHECKING:
    from concept_cam.index.index import Hit, Hits
    from concept_cam.pictures.again import Revisit

SHARED = (
    "model", "device", "dtype", "config", "attention", "resize", "size", "views", "mean", "std", "interpolation", "resize_mode",
    "batch_size", "max_pixels", "decoding", "layout", "column", "root", "boxes", "masks", "ignore", "px_per_mm", "shard", "limit",
    "engine", "ray_address", "workers", "part_size",
)  # fmt: skip
"""Options of ``annotate`` that ``index`` takes as they are."""

KEPT = ("float16", "int8")
"""Names of :data:`concept_cam.index.codec.INDEX_DTYPES`, without loading numpy's friends."""

RANKED = ("patch", "image")
"""Names of :data:`concept_cam.index.index.RANKINGS`."""


def _options_of_annotate(command: click.Command) -> click.Command:
    own = {parameter.name: parameter for parameter in annotate_command.params}
    command.params.extend(own[name] for name in SHARED if name in own)
    return command


@_options_of_annotate
@click.command(short_help="Encode a collection once, to be queried for ever.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--output", "-o", type=PathName(file_okay=False), metavar="INDEX", help="Folder of the index.  [required]")
@click.option(
    "--keep",
    type=Names(KEPT),
    default="float16",
    show_default=True,
    help="Number format of the kept features; int8 halves the size; scores are then exact to about 1e-3.",
)
@click.option(
    "--pca", metavar="N|INDEX", help="Keep N dimensions, found from the first pictures; or take the axes of another index.  [default: all]"
)
@click.option(
    "--resume", is_flag=True, help="Continue the index that is in INDEX, with the same pictures or with further ones, or start it."
)
@click.option(
    "--check",
    is_flag=True,
    help="Given an index alone: read every byte of it and say what is not as it was written. With --resume: do so first, and encode again "
    "what is damaged.",
)
@click.pass_context
def index(
    context: click.Context,
    /,
    inputs: tuple[str, ...],
    output: str | None,
    keep: str,
    pca: str | None,
    resume: bool,
    check: bool,
    **options: Any,
) -> None:
    """Encodes a collection and keeps its patch features, so that later questions need no pass through the model.

    INPUT is what 'annotate' takes: a folder, a pattern in quotes, a table, Parquet, tar shards, a URL, or - for a list on standard input.
    INDEX gets parts/*.arrow and index.json, and errors.csv where a picture could not be used. With --resume an index also grows: pictures
    that it holds are not encoded again.
    'index --check INDEX' encodes nothing: it ends with 0 where the index is as it was written, with 1 where not.

    \b
    Examples:
      concept-cam index photos/ -o fish.index
      concept-cam index media.csv --column accessURI -o fish.index --model hf-hub:imageomics/bioclip-2 --keep int8
      concept-cam index more_photos/ -o fish.index --resume
      concept-cam index --check fish.index
      concept-cam index photos/ -o fish.index --resume --check
      concept-cam query fish.index -t "a forked tail fin" -c "a rounded tail fin" --top 50 -o out/
      concept-cam annotate fish.index --traits fish -o run/
    """
    if check and not resume:
        _check_alone(context)
        found = [_check(path) for path in inputs]  # all of them, whatever the first one is like
        sys.exit(0 if all(found) else 1)
    if output is None:
        raise click.UsageError(
            "Missing option '--output' / '-o': the folder of the index. To check an index: concept-cam index --check INDEX."
        )
    let_workers_work()
    values = resolve({name: options[name] for name in ("config", "model", "device", "dtype", *SETTING_NAMES) if name in options})
    from concept_cam.collection.annotation import Interrupted
    from concept_cam.collection.indexing import build_index

    boxes = options["boxes"]
    box_file = boxes if boxes is not None and (Path(boxes).is_file() or boxes.lower().endswith((".csv", ".tsv"))) else None
    display = ProgressDisplay()
    try:
        made = build_index(
            list(inputs),
            output,
            model=values.get("model") or DEFAULT_MODEL,
            device=values.get("device") or "auto",
            dtype=values.get("dtype") or "auto",
            settings=Settings().with_values(**{name: values[name] for name in SETTING_NAMES if name in values}),
            batch_size=values.get("batch_size"),
            keep=keep,
            pca=int(pca) if pca is not None and pca.isdigit() else pca,
            resume=resume,
            check=check,
            part_pictures=options["part_size"],
            progress=display,
            say=note,
            lines=standard_input() if inputs == ("-",) else None,
            boxes=box_file,
            box_column=boxes if box_file is None else None,
            mask_column=options["masks"],
            px_per_mm=number_or_column("--px-per-mm", options["px_per_mm"]),
            **{
                name: options[name]
                for name in ("engine", "workers", "ray_address", "layout", "column", "root", "ignore", "shard", "limit", "decoding")
            },
        )
    except Interrupted as error:
        display.close()
        warn(str(error))
        sys.exit(130)
    finally:
        display.close()
    size = sum(file.stat().st_size for _, file in made.files)
    errors = made.infos[0]["counts"]["errors"]
    said = f"; {errors} errors, see {made.path / 'errors.csv'}" if errors else ""
    loss = f", {made.codec.loss:.2%} of the features' energy left out" if made.codec.basis is not None else ""
    click.echo(f"{made.path}: {len(made)} entries, {size / 1e6:,.1f} MB{loss}{said}")
    if not len(made):
        warn("not one picture could be encoded; check the input.")
        sys.exit(1)


def _check_alone(context: click.Context) -> None:
    """Refuses what a check does not look at."""
    given = [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name not in ("inputs", "check")
        and context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"--check takes an index alone and encodes nothing, received {', '.join(given)} too. Check one with  concept-cam index --check "
            "INDEX ; to mend one, give the options that made it, with --resume --check."
        )


def _parts(count: int) -> str:
    return "1 part" if count == 1 else f"{count} parts"


def _check(path: str) -> bool:
    """Checks one index and says what was found; tells whether it is whole."""
    from concept_cam.index.index import Index

    found = Index.open(path)
    size = sum(file.stat().st_size for _, file in found.files)
    with click.progressbar(length=size, label="checking", file=sys.stderr, hidden=not interactive()) as bar:
        result = found.check(bar.update)
    for fault in result.faults:
        click.echo(str(fault))
    name, parts = display(path), f"{_parts(result.parts)}, {result.size / 1e6:,.1f} MB"
    if result.sound and not result.unhashed:
        click.echo(f"{name}: {parts}: every byte is as it was written")
    elif result.sound:
        click.echo(f"{name}: {parts}: nothing wrong was found, but {_parts(len(result.unhashed))} can only be read, not compared")
    if result.unhashed:
        note(
            f"no hash was kept of {len(result.unhashed)} of {_parts(result.parts)}, such as {display(str(result.unhashed[0]))}: an earlier "
            "version wrote them. That they can be read is all that is known. An index that is made anew keeps hashes."
        )
    if not result.sound:
        warn(
            f"{name}: not all of it is as it was written. Copy those files again from where they are whole; or index the same pictures "
            "again, with the options that made it and --resume --check: what is damaged or missing is encoded anew. What Index.append "
            "added must be added again."
        )
    return result.sound


# ----------------------------------------------------------------------------------------------------------------- query


@click.command(short_help="Rank the pictures of an index by concepts.")
@click.argument("path", metavar="INDEX", type=PathName(file_okay=False))
@click.option("--target", "-t", multiple=True, help="What to find, in words. Repeat for several concepts.")
@click.option("--contrast", "-c", multiple=True, help="What to tell it apart from. Repeat; shared by all targets.")
@click.option("--traits", multiple=True, metavar="SPEC", help="Trait pack or file, optionally :character and =state. Repeat.")
@click.option("--top", type=click.IntRange(min=1), default=50, show_default=True, help="Best pictures of each concept.")
@click.option(
    "--by",
    type=Names(RANKED),
    default="patch",
    show_default=True,
    help="Rank by the best patch (the target is somewhere in it) or by the whole image (it is about the target).",
)
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Only entries whose column meets it: 'sex=male', 'year>=1990', 'genus!=Ictalurus', 'locality~River' (holds). Repeat: "
    "all must hold.",
)
@click.option("--device", help="auto, cpu, cuda, cuda:1, mps: for the text tower.  [default: auto]")
@click.option("--config", type=PathName(dir_okay=False), help="YAML file with settings; options on the command line win.")
@click.option("--gamma", "-g", type=Within(0, MOST_GAMMA), help="Comparison strength.  [default: 1]")
@click.option("--weighting", type=Names(WEIGHTINGS), help="How contrasts share the weight.  [default: uniform]")
@click.option("--feature-norm", type=Names(FEATURE_NORMS), help="Patch feature normalisation.  [default: l2]")
@click.option("--threshold", help="Region threshold: half-max, otsu, li, yen, zero ... or a number in score units.  [default: half-max]")
@click.option("--min-area", type=Within(min=0), default=0.0, help="Drop regions of fewer pixels (below 1: share of the picture).")
@click.option(
    "--output", "-o", type=PathName(file_okay=False), metavar="DIR", help="Write hits.csv, hits.parquet and a sheet of pictures here."
)
@click.option("--format", "format_", type=Names(("csv", "json", "table")), default="csv", show_default=True, help="Format on stdout.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist under --output.")
def query(
    path: str,
    target: tuple[str, ...],
    contrast: tuple[str, ...],
    traits: tuple[str, ...],
    top: int,
    by: str,
    where: tuple[str, ...],
    threshold: str | None,
    min_area: float,
    output: str | None,
    format_: str,
    overwrite: bool,
    **options: Any,
) -> None:
    """Ranks the pictures of an index by concepts, in seconds: no picture is encoded again.

    Prints one row per hit, best first, with the columns of 'locate'. With --output also hits.csv, hits.parquet and, for each concept, a
    sheet of its hits with their maps; pictures that are no longer where they were, or are others now, are drawn as maps alone.

    \b
    Examples:
      concept-cam query fish.index -t "a forked tail fin" -c "a rounded tail fin" --top 50 -o out/
      concept-cam query fish.index --traits fish:caudal_fin_shape --top 10 --format table
      concept-cam query fish.index -t "a spotted fish" --by image --where sex=female --where "year>=1990"
    """
    from concept_cam.commands.locate import Printer, check_early, question_of, result_row

    values = resolve(
        {name: options[name] for name in ("config", "device", "gamma", "weighting", "feature_norm")} | {"threshold": threshold}
    )
    concepts = list(question_of(target, contrast, traits).concepts)
    check_early(values, output)
    from concept_cam.index.filtering import matching
    from concept_cam.index.index import READING_SETTINGS, Index
    from concept_cam.localizer import Localizer

    found = Index.open(path)
    among = matching(found.pictures, where) if where else None
    # A configuration may name how pictures are read: the index refuses what it was not made with.
    fixed = [name for name in READING_SETTINGS if name != "max_pixels"]
    localizer = found.localizer(
        Localizer.from_pretrained(found.model, device=values.get("device") or "auto", settings=found.settings),
        **{name: values[name] for name in (*fixed, "gamma", "weighting", "feature_norm", "templates") if name in values},
    )
    warn_unread_places(concepts)
    warn_unknown_words(localizer, concepts)
    answers = found.query(concepts, top=top, by=by, among=among, localizer=localizer)
    limit = values.get("threshold", DEFAULT_THRESHOLD)
    printer = Printer(format_)
    rows = []
    for hits in answers:
        for hit in hits:
            row = result_row(hit.source, hit.found, limit, min_area)
            printer.row(row)
            rows.append({"rank": hit.rank, "value": hit.value, **row, "entry": hit.entry, "image_key": hit.row["image_key"]})
    printer.close()
    if output is not None:
        _write(Path(output), rows, answers, limit, overwrite)
    if not rows:
        note("no entry ranks: the index is empty, or --where leaves nothing.")


def _write(folder: Path, rows: list[dict[str, Any]], answers: Sequence[Hits], threshold: str | float, overwrite: bool) -> None:
    import csv
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from concept_cam.commands.locate import slug
    from concept_cam.core.files import write_file
    from concept_cam.core.results import png_bytes
    from concept_cam.core.tables import escaped
    from concept_cam.pictures.again import Revisit

    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: escaped(value) for name, value in row.items()} for row in rows)
        write_file(folder / "hits.csv", text.getvalue().encode("utf-8", "backslashreplace"), overwrite=overwrite)
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        write_file(folder / "hits.parquet", buffer.getvalue(), overwrite=overwrite)
    revisit = Revisit("indexed", "maps are drawn on grey there", "index them anew, into another folder")
    for hits in answers:
        if len(hits):
            drawn = _sheet(hits, threshold, revisit)
            write_file(folder / f"{slug(hits.concept.name)}.png", png_bytes(drawn), overwrite=overwrite)
    for said in revisit.findings():
        warn(said)


SHEET_HITS, SHEET_SIDE = 60, 320
"""Most hits of a sheet, and the longer side of each in pixels."""


def _sheet(hits: Hits, threshold: str | float, revisit: Revisit) -> Any:
    """Draws the hits."""
    from concept_cam.core.drawing import sheet

    shown = hits[:SHEET_HITS]
    highest = max(abs(hit.found.limits[0]) for hit in shown), max(abs(hit.found.limits[1]) for hit in shown)
    limits = (-max(highest), max(highest)) if hits.concept.contrasts else None
    images = [_drawn(hit, threshold, limits, revisit) for hit in shown]
    titles = [f"{hit.rank}. {Path(hit.source).name}  {hit.value:+.3f}" for hit in shown]
    return sheet(images, titles=titles)


def _drawn(hit: Hit, threshold: str | float, limits: tuple[float, float] | None, revisit: Revisit) -> Any:
    """The hit's picture under its map; grey where the picture cannot be read, or is another one now."""
    import json

    import numpy as np

    row = hit.row
    height, width = hit.found.geometry.original
    left, top = json.loads(row["crop_xy"]) if row["crop_xy"] else (0, 0)
    whole = json.loads(row["image_size"]) if row["image_size"] else (height, width)
    picture = revisit.read(hit.source, path_of(hit.source), row["sha256"], (whole[0], whole[1]))
    if picture is None:
        pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    else:
        pixels = picture.pixels[top : top + height, left : left + width]
    image = hit.found.overlay(picture=pixels, threshold=threshold if hit.found.told else None, limits=limits, title="")
    image.thumbnail((SHEET_SIDE, SHEET_SIDE))
    return image
