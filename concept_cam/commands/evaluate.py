"""``concept-cam evaluate`` and ``sweep``: measure, and tune."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from concept_cam.commands.console import PathName, note, track, warn
from concept_cam.commands.options import (
    Within,
    build_localizer,
    input_options,
    look_again_option,
    model_options,
    refine_option,
    resize_option,
    resolve,
    size_option,
    views_option,
)
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.files import check_file
from concept_cam.core.settings import MOST_GAMMA, WEIGHTINGS
from concept_cam.demo.worlds import ROOMS
from concept_cam.pictures.endings import is_picture


def _list(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Options that may be repeated or hold several names between commas; what holds none is refused."""
    found = tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))
    if values and not found:
        raise click.BadParameter(f"received {','.join(values)!r}: expected one or more between commas; leave it out for the default.")
    return found


def _numbers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[float, ...]:
    kind = Within(0, MOST_GAMMA)
    try:
        return tuple(kind.convert(value, parameter, context) for value in _list(context, parameter, values))
    except click.BadParameter as error:
        raise click.BadParameter(f"expected numbers such as 0,0.6,1: {error.message}") from error


def _dataset_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option(
                "--images",
                type=PathName(file_okay=False),
                metavar="DIR",
                help="coco, cvat, labelstudio: folder of the pictures.",
            ),
            click.option("--host", metavar="NOUN", help="coco, folder: noun of the subject and name of its mask."),
            click.option(
                "--traits",
                metavar="PACK",
                help="coco, folder, fishvista: trait pack whose part phrases are used.",
            ),
            click.option(
                "--split",
                metavar="NAME",
                help="fishvista: train, val, test, data; cub: train, test, all.  [default: test]",
            ),
            click.option(
                "--world",
                metavar="GROUP",
                help=f"synthetic: what is rendered: {', '.join(ROOMS)}.  [default: fish]",
            ),
            click.option("--limit", type=click.IntRange(min=1), help="Use at most this many pictures."),
        )
    ):
        function = option(function)
    return function


def _open(dataset: str, limit: int | None, options: dict[str, Any]) -> Any:
    from concept_cam.evaluation import datasets

    return datasets.load(
        dataset,
        limit=limit,
        **{name: options.pop(name, None) for name in ("images", "host", "traits", "split", "world")},
    )


def _bar(count: int) -> Callable[[Iterable[Any]], Iterable[Any]]:
    return lambda items: track(items, count)


@click.command(short_help="Measure methods on a data set with part masks.")
@click.option(
    "--dataset",
    "-d",
    default="synthetic",
    show_default=True,
    metavar="NAME[:PATH]",
    help="synthetic, folder:DIR, coco:FILE, cvat:FILE, labelstudio:FILE, fishvista:DIR, cub:DIR.",
)
@_dataset_options
@click.option(
    "--methods",
    multiple=True,
    callback=_list,
    metavar="NAMES",
    help="Methods, separated by commas; see 'concept-cam models --methods'.  [default: direct]",
)
@click.option(
    "--attention",
    "-a",
    "attentions",
    multiple=True,
    callback=_list,
    metavar="NAMES",
    help="Dense attention strategies.  [default: auto]",
)
@click.option(
    "--gamma",
    "-g",
    "gammas",
    multiple=True,
    callback=_numbers,
    metavar="NUMBERS",
    help="Comparison strengths; 0 is always added.  [default: 1]",
)
@click.option("--weighting", type=click.Choice(WEIGHTINGS), help="How contrasts share the weight.  [default: uniform]")
@resize_option
@size_option
@views_option
@refine_option
@look_again_option
@input_options
@click.option(
    "--metrics",
    "groups",
    multiple=True,
    callback=_list,
    metavar="GROUPS",
    help="Groups: localisation, counterfactual, calls, points, control, boxes (slow), faithfulness (slow), randomisation (doubles the "
    "time).  [default: the first five]",
)
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Example questions with pictures.",
)
@click.option(
    "--max-side",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Measure larger pictures at every n-th pixel.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Bootstrap samples of the intervals.",
)
@model_options
@click.option(
    "--output",
    "-o",
    required=True,
    type=PathName(file_okay=False),
    metavar="DIR",
    help="report.html, report.json, report.md, questions.csv.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing report.")
def evaluate(
    dataset: str,
    limit: int | None,
    methods: tuple[str, ...],
    attentions: tuple[str, ...],
    gammas: tuple[float, ...],
    groups: tuple[str, ...],
    examples: int,
    max_side: int,
    draws: int,
    output: str,
    overwrite: bool,
    **options: Any,
) -> None:
    """Measures localisation methods on pictures whose answers are known.

    Every table carries the baselines random, center, luminance and subject (a random point in the subject), 95 % bootstrap intervals over
    pictures, and what the contrast adds as a paired difference.

    \b
    Examples:
      concept-cam evaluate -o report/
      concept-cam evaluate --attention value,qq,kk --gamma 0.6,1 --methods direct,grad-cam --limit 100 -o report/
      concept-cam evaluate --world lepidoptera -o butterflies/
      concept-cam evaluate -d folder:photos/ --host fish --model hf-hub:imageomics/bioclip-2 -o report/
    """
    from concept_cam.evaluation.report import check_folder
    from concept_cam.evaluation.runner import DEFAULT_GROUPS
    from concept_cam.evaluation.runner import evaluate as measure
    from concept_cam.methods import find_method

    data = _open(dataset, limit, options)
    for method in methods:
        find_method(method)
    values = resolve(options)
    check_folder(output, overwrite=overwrite)
    start = time.perf_counter()
    localizer = build_localizer(values)
    setup = time.perf_counter() - start
    report = measure(
        data,
        localizer,
        methods=methods or (values.get("method", "direct"),),
        attentions=attentions or (localizer.settings.attention,),
        gammas=gammas or (localizer.settings.gamma,),
        groups=groups or DEFAULT_GROUPS,
        examples=examples,
        max_side=max_side,
        draws=draws,
        setup_seconds=setup,
        progress=_bar(len(data)),
    )
    if not report.errors and not any(any(row.tables.values()) for row in report.rows):
        asked = f" by --metrics {','.join(groups)}" if groups else ""
        raise DataError(
            f"nothing could be measured{asked}: no question about the {len(data)} pictures of {dataset!r} has an answer of that kind. "
            f"Leave --metrics out to see what the data set has; at --max-side {max_side} masks must have pixels inside and outside."
        )
    folder = report.save(output, overwrite=overwrite)
    click.echo(report.to_markdown(), nl=False)
    note(f"concept-cam: wrote {folder / 'report.html'}")
    if report.errors:
        warn(f"{len(report.errors)} pictures could not be used; they are listed in the report.")
        sys.exit(1)


@click.command(short_help="Search the best settings.")
@click.option("--dataset", "-d", metavar="NAME[:PATH]", help="Labelled pictures, as for evaluate.")
@click.option(
    "--unlabelled",
    type=PathName(exists=True, file_okay=False),
    metavar="DIR",
    help="Pictures without labels: search by agreement under flips and crops.",
)
@click.option(
    "--concepts",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="Trait packs asked of unlabelled pictures.  [default: fish:parts]",
)
@_dataset_options
@click.option(
    "--attention",
    "-a",
    "attentions",
    multiple=True,
    callback=_list,
    metavar="NAMES",
    help="Strategies to try.  [default: all that the model has, residual and FFN dropped]",
)
@click.option(
    "--gamma",
    "-g",
    "gammas",
    multiple=True,
    callback=_numbers,
    metavar="NUMBERS",
    help="[default: 0,0.3,0.6,1]",
)
@click.option("--weighting", "-w", "weightings", multiple=True, callback=_list, metavar="NAMES", help="[default: all]")
@click.option(
    "--templates",
    multiple=True,
    callback=_list,
    metavar="SETS",
    help="Template sets to try: own, bare, photo, several.  [default: the first three]",
)
@click.option(
    "--objective",
    default="ap_host",
    show_default=True,
    help="ap, ap_host, auroc, auroc_host, pointing, energy, ap_difference, state_accuracy.",
)
@resize_option
@size_option
@views_option
@refine_option
@look_again_option
@input_options
@model_options
@click.option(
    "--output",
    "-o",
    required=True,
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Configuration for --config.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def sweep(
    dataset: str | None,
    unlabelled: str | None,
    specs: tuple[str, ...],
    limit: int | None,
    attentions: tuple[str, ...],
    gammas: tuple[float, ...],
    weightings: tuple[str, ...],
    templates: tuple[str, ...],
    objective: str,
    output: str,
    overwrite: bool,
    **options: Any,
) -> None:
    """Searches attention, gamma, weighting and templates, and writes the best as a file that --config takes.

    With labels the objective is measured; half of the pictures choose for the other half, so that the search does not praise itself.
    Without labels, maps must agree with themselves under flips and crops, more than maps of different concepts do.

    \b
    Examples:
      concept-cam sweep -d synthetic --limit 60 -o best.yaml
      concept-cam sweep -d folder:photos/ --host fish --gamma 0,0.5,1 --weighting uniform,hardest -o best.yaml
      concept-cam sweep --unlabelled photos/ --concepts fish:parts -o best.yaml
    """
    from concept_cam.evaluation import tuning

    if (dataset is None) == (unlabelled is None):
        raise ConfigurationError("give either --dataset NAME[:PATH] (labelled) or --unlabelled DIR.")
    check_file(output, overwrite=overwrite)
    labels = {name: options[name] for name in ("images", "host", "traits", "split", "world")}
    given = [name for name, value in ({"concepts": specs} if unlabelled is None else labels).items() if value]
    if given:
        form, other = ("--dataset", "--unlabelled") if unlabelled is None else ("--unlabelled", "--dataset")
        raise ConfigurationError(f"--{given[0]} belongs to {other} and says nothing about {form}. Leave it out.")
    data = None if dataset is None else _open(dataset, limit, options)
    for name in ("images", "host", "traits", "split", "world"):
        options.pop(name, None)
    localizer = build_localizer(resolve(options))
    grid: dict[str, Any] = {
        "attentions": attentions or _plain_attentions(localizer.backbone.attentions),
        "gammas": gammas or (0.0, 0.3, 0.6, 1.0),
        "weightings": weightings or WEIGHTINGS,
        "templates": templates or ("own", "bare", "photo"),
    }
    if data is not None:
        found = tuning.sweep(data, localizer, objective=objective, progress=_bar(len(data)), **grid)
    else:
        from concept_cam import prompts

        pictures = [item for item in sorted(Path(str(unlabelled)).iterdir()) if is_picture(item) and not item.name.startswith(".")][:limit]
        if not pictures:
            raise DataError(f"the folder {str(unlabelled)!r} holds no pictures; those in folders within it are not taken.")
        concepts = prompts.load(list(specs) or ["fish:parts"])
        found = tuning.sweep_unlabelled(
            [(item.name, item) for item in pictures],
            concepts,
            localizer,
            progress=_bar(len(pictures)),
            **grid,
        )
    click.echo(f"{found.objective},low,high,attention,gamma,weighting,templates")
    for trial in found.trials:
        one = trial.candidate
        click.echo(
            f"{trial.value.value:.4f},{trial.value.low:.4f},{trial.value.high:.4f},{one.attention},{one.gamma:g},{one.weighting},{one.templates}"
        )
    found.save(output, overwrite=overwrite)
    note(f"concept-cam: best: {found.best.name}; on pictures that had no say: {found.held_out.value:.4f}. Use it with --config {output}")
    if found.errors:
        warn(f"{len(found.errors)} pictures could not be used. The first error: {found.errors[0]['error']}")
        sys.exit(1)


def _plain_attentions(names: Iterable[str]) -> tuple[str, ...]:
    """Strategies without the variants that keep the residual or the feed-forward network; those rarely help and triple the search."""
    found = tuple(name for name in names if not name.endswith(("+residual", "+ffn")))
    return found or tuple(names) or ("auto",)
