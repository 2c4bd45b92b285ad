"""Measures the bundled model on held-out pictures and prints the tables of the README and the model card.

    python examples/benchmarks/held_out.py --output held_out/
    python examples/benchmarks/held_out.py --output held_out/ --photographs DIR --mask head=head --mask caudal_fin=tail

Four tables: every part by itself with the share of the picture that it covers; the calls by character; what contrast adds to the map of a
state, the best setting with it against the best without, both chosen on other pictures; and, on a folder of photographs with masks, the
parts that it has masks of. Each run's full report stays under the output folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from concept_cam import Localizer, prompts
from concept_cam.commands.console import run_script
from concept_cam.core.errors import DataError
from concept_cam.core.settings import VIEW_NAMES
from concept_cam.demo.worlds.fish.traits import CHARACTERS, MASKS, PARTS
from concept_cam.evaluation import datasets, metrics
from concept_cam.evaluation.datasets import folder, synthetic
from concept_cam.evaluation.datasets.samples import Dataset, SampleQuestion
from concept_cam.evaluation.metrics.intervals import Interval
from concept_cam.evaluation.observations import Observation, RowRecord
from concept_cam.evaluation.report import Report
from concept_cam.evaluation.runner import evaluate

VALIDATION_SEED = synthetic.SEED + 1
SIZES = (256, 384, 512)
GAMMAS = (0.5, 1.0)
"""Reading sizes and comparison strengths among which the best settings without and with contrast are chosen."""
BASELINES = ("random", "center", "luminance", "subject")


def record(report: Report, gamma: float) -> RowRecord:
    """The row of the direct method at `gamma`."""
    return next(row for row in report.records if row.gamma == gamma)


def baseline(report: Report, name: str) -> RowRecord:
    """The row of a baseline."""
    return next(row for row in report.records if row.name == name)


def values(row: RowRecord, metric: str, trait: str | None = None, kind: str | None = None) -> list[Observation]:
    """Observations that have the metric."""
    return [item for item in row.observations if metric in item.values and trait in (None, item.trait) and kind in (None, item.kind)]


def interval(items: Sequence[Observation], metric: str) -> Interval:
    """Mean with a 95 % bootstrap interval over pictures."""
    return metrics.mean_interval([item.values[metric] for item in items], [item.picture for item in items])


def shown(found: Interval, sign: str = "") -> str:
    """`0.123 [0.100, 0.150]`, or the value alone where a single picture gives no interval."""
    if np.isnan(found.low):
        return f"{found.value:{sign}.3f}"
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def print_table(title: str, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a Markdown table."""
    click.echo(f"\n{title}\n\n| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for row in rows:
        click.echo(f"| {' | '.join(row)} |")


def part_areas(pictures: int) -> dict[str, float]:
    """Median share of the benchmark's pictures that each part covers where it can be seen, percent."""
    from concept_cam.demo.worlds.fish import world

    shares: dict[str, list[float]] = {part: [] for part in PARTS}
    for start in range(0, pictures, 8):
        batch = world.sample(min(8, pictures - start), synthetic.SEED, view="whole", start=start)
        rendering = world.render(batch, synthetic.BENCHMARKS["fish"].size, masks=True)
        assert rendering.masks is not None
        covered = rendering.masks.float().mean((2, 3))
        for part in PARTS:
            place = MASKS.index(part)
            shares[part] += covered[rendering.visible[:, place], place].tolist()
    return {part: 100 * float(np.median(share)) for part, share in shares.items()}


def parts_table(report: Report, areas: Mapping[str, float]) -> None:
    """Pointing and own part, part by part."""
    direct, plain = record(report, 1.0), record(report, 0.0)
    center, subject = baseline(report, "center"), baseline(report, "subject")
    rows, means = [], []
    for part in PARTS:
        items = values(direct, "pointing", part, "part")
        cells = [interval(items, "pointing"), interval(values(plain, "pointing", part, "part"), "pointing")]
        chance = [interval(values(row, "pointing", part, "part"), "pointing").value for row in (center, subject)]
        own = interval(values(direct, "own_part", part, "part"), "own_part")
        means.append([cells[0].value, cells[1].value, *chance, own.value])
        rows.append(
            [
                part,
                str(len(items)),
                f"{areas[part]:.2f}",
                *map(shown, cells),
                *(f"{c:.3f}" for c in chance),
                shown(own),
            ]
        )
    average = np.mean(means, axis=0)
    rows.append(["**mean over the parts**", "", "", *(f"**{value:.3f}**" for value in average)])
    heading = [
        "part",
        "pictures",
        "median area, %",
        "pointing, gamma 1",
        "gamma 0",
        "center",
        "subject",
        "own part",
    ]
    print_table("Parts", heading, rows)


def calls_table(report: Report) -> None:
    """State accuracy by character."""
    direct = record(report, 1.0)
    rows, means = [], []
    for character, states in CHARACTERS.items():
        items = values(direct, "state_accuracy", character)
        if items:
            found = interval(items, "state_accuracy")
            means.append(found.value)
            rows.append([character, str(len(states)), str(len(items)), shown(found)])
    rows.append(["**mean over the characters**", "", "", f"**{np.mean(means):.3f}**"])
    print_table("Calls", ["character", "states", "pictures", "accuracy"], rows)


def clear_tails(localizer: Localizer, pictures: int) -> None:
    """How often the four clearest shapes of a tail fin are told from each other."""
    from concept_cam.demo.worlds.fish import world

    names = ("forked", "rounded", "truncate", "pointed")
    concept = prompts.load("fish:caudal_fin_shape=forked")[0]
    place = list(CHARACTERS).index("caudal_fin_shape")
    told = []
    for start in range(0, pictures, 8):
        batch = world.sample(min(8, pictures - start), synthetic.SEED, view="whole", start=start)
        rendering = world.render(batch, synthetic.BENCHMARKS["fish"].size)
        for i in range(len(batch)):
            state = batch.trait(i)["caudal_fin_shape"]
            if state in names and rendering.judgeable[i, place]:
                picture = np.ascontiguousarray(rendering.images[i].permute(1, 2, 0).numpy())
                found = localizer.locate_all([picture], [concept])[0][0].probabilities
                likely = dict(zip(("forked", *concept.rival_names), found, strict=True))
                told.append(max(names, key=likely.__getitem__) == state)
    click.echo(f"\nTails, told among {', '.join(names)}: {np.mean(told):.3f} of {len(told)}")


def best_settings(validation: Mapping[int, Report]) -> tuple[tuple[float, int], tuple[float, int]]:
    """Gamma and reading size whose maps of states (not of presence, which has no look-alike) find most of what changes, without and with
    contrast, on validation pictures.
    """
    found = {
        (gamma, size): interval(values(record(report, gamma), "ap_difference", kind="state"), "ap_difference")
        for size, report in validation.items()
        for gamma in (0.0, *GAMMAS)
    }
    print_table(
        "Maps of states on validation pictures",
        ["gamma", "read at", "AP twin"],
        [[f"{gamma:g}", f"{size} px", shown(item)] for (gamma, size), item in found.items()],
    )

    def best(contrasted: bool) -> tuple[float, int]:
        gamma, size = max((key for key in found if (key[0] > 0) is contrasted), key=lambda key: found[key].value)
        click.echo(f"Best {'with' if contrasted else 'without'} contrast: gamma {gamma:g}, {size} px")
        return gamma, size

    return best(False), best(True)


def gains_table(without: RowRecord, contrasted: RowRecord, standard: RowRecord) -> None:
    """AP on the counterfactual difference: contrasted less plain, paired over pictures, character by character."""

    def by_question(row: RowRecord) -> dict[tuple[str, str], float]:
        return {(item.picture, item.concept): item.values["ap_difference"] for item in values(row, "ap_difference")}

    before, usual = by_question(without), by_question(standard)
    rows = []
    for name in [*CHARACTERS, None]:
        items = values(contrasted, "ap_difference", name)
        if not items:
            continue
        keys = [(item.picture, item.concept) for item in items]
        own, others = [item.values["ap_difference"] for item in items], [before[key] for key in keys]
        gain = metrics.paired_difference(own, others, [item.picture for item in items])
        plain, best, default = (f"{np.mean(column):.3f}" for column in (others, own, [usual[key] for key in keys]))
        rows.append([name or "**all characters**", str(len(items)), plain, best, shown(gain, "+"), default])
    print_table(
        "What contrast adds: AP on what changes between a picture and its twin",
        ["character", "pairs", "best without", "best with", "gain", "default settings"],
        rows,
    )


def photographs(directory: Path, pairs: Mapping[str, str]) -> Dataset:
    """The photographs, asked for the trait pack's parts where they have masks.

    Args:
        directory: A folder data set.
        pairs: Part of the pack -> key of the masks.
    """
    require_masks(directory, pairs)
    known = {concept.name.split("=")[1]: concept for concept in prompts.load("fish:parts")}
    data = folder.load(directory)

    def asked(questions: Sequence[SampleQuestion]) -> tuple[SampleQuestion, ...]:
        return tuple(
            replace(question, concept=known[part], trait=part)
            for part, key in pairs.items()
            for question in questions
            if question.trait == key
        )

    return asking(data, asked)


def asking(data: Dataset, asked: Callable[[Sequence[SampleQuestion]], tuple[SampleQuestion, ...]]) -> Dataset:
    """The data set with other questions about each picture; pictures without any are left out."""
    return replace(
        data,
        stream=lambda: (replace(sample, questions=found) for sample in data if (found := asked(sample.questions))),
    )


def photographs_table(report: Report, pairs: Mapping[str, str]) -> None:
    """Pointing on photographs."""
    rows = []
    for part in pairs:
        cells = [interval(values(record(report, row), "pointing", part), "pointing") for row in (1.0, 0.0)]
        chance = interval(values(baseline(report, "subject"), "pointing", part), "pointing")
        rows.append(
            [
                part,
                str(len(values(record(report, 1.0), "pointing", part))),
                *map(shown, cells),
                f"{chance.value:.3f}",
            ]
        )
    print_table("Photographs", ["part", "pictures", "pointing, gamma 1", "gamma 0", "subject"], rows)


def parse_masks(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """`PART=KEY` texts to a table, parts being those of the trait pack."""
    parts = [concept.name.split("=")[1] for concept in prompts.load("fish:parts")]
    pairs = dict(text.partition("=")[::2] for text in given)
    for part, key in pairs.items():
        if part not in parts or not key:
            raise click.BadParameter(f"expected PART=KEY with a part of {', '.join(parts)}; received '{part}={key}'.")
    if pairs and not context.params.get("directory"):
        raise click.BadParameter("masks belong to --photographs DIR, which is missing.")
    return pairs or {"head": "head"}


def require_masks(directory: Path, pairs: Mapping[str, str]) -> None:
    """Refuses a key of masks that no picture of a folder data set has.

    Raises:
        DataError: There is such a key.
    """
    known = {question.trait for sample in folder.load(directory) for question in sample.questions}
    for part, key in pairs.items():
        if key not in known:
            raise DataError(
                f"no picture of {str(directory)!r} has masks {key!r}, received '{part}={key}'. Expected one of {', '.join(sorted(known))}."
            )


photographs_option = click.option(
    "--photographs",
    "directory",
    is_eager=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder data set, as of `evaluate --dataset folder:DIR`.",
)
masks_option = click.option(
    "--mask",
    "pairs",
    multiple=True,
    callback=parse_masks,
    metavar="PART=KEY",
    help="Part of the pack and key of its masks.  [default: head=head]",
)


def reading_sizes(localizer: Localizer) -> list[int]:
    """`SIZES`, each to the nearest that the model can read."""
    stride = localizer.backbone.preprocess.stride[0]
    return [max(1, round(size / stride)) * stride for size in SIZES]


@click.command(help=__doc__)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--pictures", type=click.IntRange(min=1), default=synthetic.BENCHMARKS["fish"].count, show_default=True)
@click.option(
    "--validation",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Pictures of another seed.",
)
@click.option("--model", help="Another model than the bundled one.")
@click.option("--views", type=click.Choice(VIEW_NAMES), default="auto", show_default=True)
@photographs_option
@masks_option
def main(
    output: Path,
    pictures: int,
    validation: int,
    model: str | None,
    views: str,
    directory: Path | None,
    pairs: dict[str, str],
) -> None:
    standard = Localizer.from_pretrained(*filter(None, [model]), views=views)
    localizers = {size: standard.with_settings(size=size) for size in reading_sizes(standard)}
    real = photographs(directory, pairs) if directory else None
    data = datasets.load("synthetic", limit=pictures)
    report = evaluate(data, standard, gammas=(0.0, 0.5, 1.0), baselines=BASELINES)
    report.save(output / "benchmark")
    click.echo(report.to_markdown())
    parts_table(report, part_areas(pictures))
    calls_table(report)
    clear_tails(standard, pictures)
    groups = ("counterfactual",)
    tried = {
        size: evaluate(
            synthetic.load(validation, VALIDATION_SEED),
            each,
            gammas=GAMMAS,
            baselines=(),
            groups=groups,
            examples=0,
        )
        for size, each in localizers.items()
    }
    rows = []
    for gamma, size in best_settings(tried):
        again = evaluate(data, localizers[size], gammas=(gamma,), baselines=(), groups=groups, examples=0)
        rows.append(record(again, gamma))
    gains_table(*rows, record(report, 1.0))
    if real is not None:
        found = evaluate(real, standard, baselines=BASELINES, groups=("localisation",))
        found.save(output / "photographs")
        photographs_table(found, pairs)


if __name__ == "__main__":
    run_script(main)
