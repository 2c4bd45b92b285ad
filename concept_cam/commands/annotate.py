"""``concept-cam annotate``: whole collections at the command line."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any, TextIO

import click

from concept_cam.collection.engines import ENGINES, check_engine
from concept_cam.collection.inputs import LAYOUTS
from concept_cam.collection.plan import DECODING
from concept_cam.commands.console import PathName, ProgressDisplay, note, warn
from concept_cam.commands.options import RISK, SHARE, Number, Within, number_or_column, resolve, setting_options, warn_unknown_words
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import DEFAULT_MODEL
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.core.settings import DTYPES, SETTING_NAMES, Settings

_RESOLUTIONS = ("model", "original")


@click.command(short_help="Annotate a whole collection with trait packs.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--output", "-o", type=PathName(file_okay=False), metavar="RUN", help="Folder of the run.")
@click.option(
    "--traits",
    multiple=True,
    metavar="PACK",
    help="Trait pack or file, optionally :character. Repeat.  [default: fish]",
)
@click.option(
    "--model",
    "-m",
    help="Model name, see 'concept-cam models'.  [default: demo, the model that ships with the package]",
)
@click.option("--device", help="auto, cpu, cuda, cuda:1, mps.  [default: auto]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", *DTYPES]),
    help="Number format of the towers; auto: the fastest one here whose maps are nearly those of float32.  [default: auto]",
)
@click.option(
    "--config",
    type=PathName(dir_okay=False),
    help="YAML file with settings; options on the command line win.",
)
@setting_options
@click.option("--layout", type=click.Choice(tuple(LAYOUTS)), help="Input layout.  [default: from the input]")
@click.option("--column", help="Column of the pictures' paths, URLs or bytes.  [default: the first known name]")
@click.option("--root", type=PathName(file_okay=False), help="Folder to which relative paths in a list or table refer.")
@click.option(
    "--boxes",
    metavar="FILE|COLUMN",
    help="One row per specimen: CSV of boxes (file, x, y, width, height), or a column.",
)
@click.option(
    "--masks",
    metavar="COLUMN",
    help="One row per specimen: column of masks (COCO RLE as JSON, or paths of mask pictures).",
)
@click.option(
    "--ignore",
    metavar="DIR|FILE",
    help="What to leave out (labels, rulers): folder of masks, or CSV of boxes.",
)
@click.option("--px-per-mm", metavar="NUMBER|COLUMN", help="Scale in original pixels per millimetre.")
@click.option(
    "--threshold",
    help="Region threshold: half-max, otsu, li, yen, zero ... or a number in score units.  [default: half-max]",
)
@click.option(
    "--region-resolution",
    type=click.Choice(_RESOLUTIONS),
    default="model",
    show_default=True,
    help="original is exact and slower.",
)
@click.option(
    "--areas",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Connected areas that make up a region: that of the peak, then the largest; 0: all.",
)
@click.option(
    "--min-area",
    type=Within(min=0),
    default=0.0,
    help="Drop areas of fewer pixels (below 1: share of the picture).",
)
@click.option(
    "--min-probability",
    type=SHARE,
    default=0.5,
    show_default=True,
    help="Abstain below this probability of a state, or of a part at its best patch.",
)
@click.option(
    "--min-score",
    type=Number(infinite=True),
    default=0.0,
    show_default=True,
    help="Abstain below this score of a part's best patch.",
)
@click.option(
    "--host-limit",
    type=SHARE,
    default=0.5,
    show_default=True,
    help="Abstain below this probability that the host is there; 0: no check.",
)
@click.option(
    "--calibration",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Limits that 'concept-cam calibrate' fitted.",
)
@click.option(
    "--decoding",
    type=click.Choice(tuple(DECODING)),
    default="fast",
    show_default=True,
    help="fast: JPEGs with four times the model's pixels along each side are decoded smaller; exact: every pixel is.",
)
@click.option(
    "--trust",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Rules of trust and guarantees that 'concept-cam calibrate' fitted to masks.",
)
@click.option(
    "--alpha",
    type=RISK,
    help="Risk of the guarantees: column state_set.  [default: 0.1]",
)
@click.option("--keep-scores", is_flag=True, help="Keep grid scores (float16) in the table.")
@click.option("--shard", metavar="I/N", help="Do only part I of N (from 1/N to N/N); slurm: the task of a job array.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N pictures of the input.")
@click.option("--resume", is_flag=True, help="Continue the run that is in RUN, or start it.")
@click.option("--merge", is_flag=True, help="INPUT are the shards of one run, or the folder that holds them: join them.")
@click.option("--dry-run", is_flag=True, help="Count, try a few pictures, estimate time and disk; write nothing.")
@click.option(
    "--engine",
    type=click.Choice(tuple(ENGINES)),
    default="local",
    show_default=True,
    help="Where the work is done.",
)
@click.option("--ray-address", metavar="ADDRESS", help="Ray cluster that runs, for --engine ray.  [default: one is started here]")
@click.option("--workers", type=click.IntRange(min=0), help="Worker processes; 0: none.  [default: one per processor]")
@click.option(
    "--part-size",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Pictures of one part of the table.",
)
def annotate(
    inputs: tuple[str, ...],
    output: str | None,
    traits: tuple[str, ...],
    merge: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Annotates a collection: trait calls, regions and measures, as a Parquet data set.

    INPUT is a folder (searched with its subfolders), a pattern in quotes, a .csv/.tsv with a column of paths, .parquet with pictures, .tar
    shards (WebDataset), a URL, or - for a list of paths on standard input. RUN gets parts/*.parquet and run.json, and errors.csv where a
    picture could not be used. A run that was interrupted, however that happened, is continued with --resume.

    \b
    Examples:
      concept-cam annotate photos/ --traits fish -o run/
      concept-cam annotate "photos/**/*.jpg" --traits fish:caudal_fin_shape -o run/ --px-per-mm 11.8
      concept-cam annotate media.csv --column accessURI --traits fish -o run/ --model hf-hub:imageomics/bioclip-2
      concept-cam annotate photos/ --traits fish -o run/ --dry-run
      concept-cam annotate photos/ --traits fish -o run/ --resume
      concept-cam annotate photos/ --traits fish -o run/ --shard 2/8
      concept-cam annotate --merge run/
    """
    let_workers_work()
    if merge:
        _merge(inputs, output)
        return
    if output is None:
        raise ConfigurationError("--output is missing: name the folder of the run, for example -o run/.")
    values = resolve(
        {name: options[name] for name in ("config", "model", "device", "dtype", "threshold", *filter(options.__contains__, SETTING_NAMES))}
    )
    request = _request(inputs, output, traits or ("fish",), values, options)
    model = {
        "model": values.get("model") or DEFAULT_MODEL,
        "device": values.get("device") or "auto",
        "dtype": values.get("dtype") or "auto",
        "settings": Settings().with_values(**{name: values[name] for name in SETTING_NAMES if name in values}),
        # How large pictures may be is no matter of the features.
        "named": frozenset(values) - {"max_pixels"},
        "batch_size": values.get("batch_size"),
    }
    if dry_run:
        check_engine(options["engine"], options["ray_address"])
        _dry_run(request, model)
    else:
        _run(request, model, options)


def _request(
    inputs: tuple[str, ...],
    output: str,
    traits: tuple[str, ...],
    values: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, Any]:
    from concept_cam.collection.annotation import require_arrow
    from concept_cam.collection.calls import Limits
    from concept_cam.collection.plan import Regions

    require_arrow()
    boxes = options["boxes"]
    box_file = boxes if boxes is not None and (Path(boxes).is_file() or boxes.lower().endswith((".csv", ".tsv"))) else None
    return {
        "inputs": list(inputs),
        "output": output,
        "traits": list(traits),
        "lines": standard_input() if inputs == ("-",) else None,
        "boxes": box_file,
        "box_column": boxes if box_file is None else None,
        "mask_column": options["masks"],
        "px_per_mm": number_or_column("--px-per-mm", options["px_per_mm"]),
        "limits": Limits(
            host=options["host_limit"],
            probability=options["min_probability"],
            score=options["min_score"],
            part_probability=options["min_probability"],
        ),
        "regions": Regions(
            values.get("threshold", DEFAULT_THRESHOLD),
            options["region_resolution"],
            options["areas"],
            options["min_area"],
        ),
        **{
            name: options[name]
            for name in ("layout", "column", "root", "ignore", "calibration", "trust", "alpha", "decoding", "keep_scores", "shard", "limit")
        },
    }


def let_workers_work() -> None:
    # OpenMP reads this when torch is first imported. By default torch's threads wait spinning, on the processors that the workers need.
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def standard_input() -> TextIO:
    # File names are bytes: those that are no UTF-8 must come through too.
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return sys.stdin


def _run(request: dict[str, Any], model: dict[str, Any], options: dict[str, Any]) -> None:
    from concept_cam.collection.annotation import Interrupted
    from concept_cam.collection.annotation import annotate as annotate_collection

    line = ProgressDisplay()
    execution = {name: options[name] for name in ("resume", "engine", "workers", "ray_address")}
    try:
        run = annotate_collection(
            **request,
            **model,
            **execution,
            part_pictures=options["part_size"],
            progress=line,
            ready=lambda ready, concepts: warn_unknown_words(ready, concepts),
            say=note,
        )
    except Interrupted as error:
        line.close()
        warn(f"{error}")
        sys.exit(130)
    finally:
        line.close()
    counts = run.info["counts"]
    again = f", {counts['duplicates']} listed twice" if counts["duplicates"] else ""
    errors = f"; {counts['errors']} errors, see {run.path / 'errors.csv'}" if counts["errors"] else ""
    click.echo(f"{run.path}: {counts['pictures']} pictures, {counts['records']} records{again}{errors}")
    # A task of a job array may have no picture to do: fewer pictures than tasks is no error.
    if counts["pictures"] == 0 and counts["errors"]:
        warn(f"no picture could be annotated: see {run.path / 'errors.csv'}, and check the input.")
        sys.exit(1)


def _merge(inputs: tuple[str, ...], output: str | None) -> None:
    from concept_cam.collection.annotation import require_arrow

    require_arrow()
    from concept_cam.collection.merging import merge_runs

    run = merge_runs(inputs, output)
    counts = run.info["counts"]
    click.echo(f"{run.path}: {counts['pictures']} pictures, {counts['records']} records of {len(run.info['merged'])} shards")


def _free_bytes(folder: Path) -> int:
    """Returns the room where a folder is, or will be."""
    folder = folder.absolute()
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _dry_run(request: dict[str, Any], model: dict[str, Any]) -> None:
    from concept_cam.collection.annotation import estimate
    from concept_cam.core.progress import clock

    found = estimate(**request, **model)
    total = "an unknown number of" if found.pictures is None else f"{found.pictures}"
    click.echo(f"input: {total} pictures; {found.records:.0f} records each")
    click.echo(f"tried: {found.sampled} pictures, {found.errors} of them cannot be used, {found.rate:.2f}/s")
    if found.seconds is not None and found.bytes is not None:
        free = _free_bytes(Path(request["output"]))
        click.echo(f"estimate: {clock(found.seconds)} and {found.bytes / 1e6:.1f} MB for all of them ({free / 1e6:,.0f} MB are free there)")
    else:
        click.echo(
            f"estimate: {1000 / found.rate:.0f} s and {found.bytes_per_picture / 1e3:.1f} MB per 1000 pictures"
            if found.rate
            else "estimate: none"
        )
