"""Compares weights, and views, where the benchmark is not looked at: which model should be bundled?

    python examples/benchmarks/compare_weights.py demo runs/more/model
    python examples/benchmarks/compare_weights.py demo --views single --views mirrored --photographs DIR --mask head=head --mask
    caudal_fin=tail

Prints one row per model and view: the share of pictures in which the peak of a part's map lies on the part, on rendered pictures of a seed
that is neither the benchmark's nor the training's (mean over the parts), and on a folder of photographs with masks. Gamma 1, in brackets 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
from held_out import (
    VALIDATION_SEED,
    asking,
    interval,
    masks_option,
    photographs,
    photographs_option,
    print_table,
    record,
    values,
)

from concept_cam import Localizer
from concept_cam.commands.console import run_script
from concept_cam.core.settings import VIEW_NAMES
from concept_cam.demo.worlds.fish.traits import PARTS
from concept_cam.evaluation.datasets import synthetic
from concept_cam.evaluation.datasets.samples import Dataset
from concept_cam.evaluation.report import Report
from concept_cam.evaluation.runner import evaluate


def rendered(pictures: int) -> Dataset:
    """Pictures of the validation seed, with the questions about parts alone."""
    return asking(
        synthetic.load(pictures, VALIDATION_SEED),
        lambda questions: tuple(question for question in questions if question.kind == "part"),
    )


def pointing(report: Report, part: str, gamma: float) -> float:
    """Share of the pictures with the part in which the map's peak lies on it."""
    return interval(values(record(report, gamma), "pointing", part), "pointing").value


def measure(data: Dataset, localizer: Localizer) -> Report:
    """Where the maps of parts are highest, with and without contrasts."""
    return evaluate(data, localizer, gammas=(0.0, 1.0), baselines=(), groups=("localisation",), examples=0)


def both(report: Report, parts: Sequence[str]) -> str:
    """Mean over the parts that some picture shows, with contrasts and (in brackets) without."""
    with_contrasts, without = (float(np.nanmean([pointing(report, part, gamma) for part in parts])) for gamma in (1.0, 0.0))
    return f"{with_contrasts:.3f} ({without:.3f})"


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True)
@click.option("--pictures", type=click.IntRange(min=1), default=128, show_default=True, help="Rendered pictures.")
@click.option("--views", multiple=True, type=click.Choice(VIEW_NAMES), default=("auto",), show_default=True)
@photographs_option
@masks_option
def main(models: tuple[str, ...], pictures: int, views: tuple[str, ...], directory: Path | None, pairs: Mapping[str, str]) -> None:
    localizers = [(f"{name}, {view}", Localizer.from_pretrained(name, views=view)) for name in models for view in views]
    real = photographs(directory, pairs) if directory else None
    rows = []
    for name, localizer in localizers:
        report = measure(rendered(pictures), localizer)
        shown = [both(report, PARTS), both(report, ("caudal_fin",))]
        if real is not None:
            report = measure(real, localizer)
            shown += [both(report, (part,)) for part in pairs]
        rows.append([name, *shown])
    heading = ["model, views", f"rendered, {len(PARTS)} parts", "rendered, caudal_fin"]
    if real is not None:
        heading += [f"photographs, {part}" for part in pairs]
    print_table(f"Pointing, gamma 1 (gamma 0), {pictures} rendered pictures of seed {VALIDATION_SEED}", heading, rows)


if __name__ == "__main__":
    run_script(main)
