"""Where are thin parts missed, and what finds more of them?

    python examples/benchmarks/thin_parts.py --world lepidoptera --pictures 48
    python examples/benchmarks/thin_parts.py --world fish --settings look_again=true --settings look_again=true,refine=guided

Two tables on the benchmark's pictures of a group. The first says of every part how thick it is, and how far from it the peak of its map
lies: within two pixels the place inside a cell is wrong, beyond a cell the model is. The second is the share of peaks on their part under
other settings, with the processor's time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import click
import numpy as np
import yaml
from held_out import print_table
from scipy import ndimage

from concept_cam import Localizer, prompts
from concept_cam.commands.console import run_script
from concept_cam.core.errors import ConceptCamError
from concept_cam.demo.worlds import WORLDS
from concept_cam.evaluation.datasets import synthetic

REACHES = (0.0, 2.0, 4.0, 8.0, 16.0)
"""Distances of the first table, in pixels of pictures whose cells are 8 pixels wide."""

Array = np.ndarray[Any, Any]


def miss(heatmap: Array, mask: Array) -> float:
    """Distance in pixels from a map's highest point to a part, bool [H, W] with some of it; 0 on the part."""
    place = np.unravel_index(int(np.nanargmax(heatmap)), heatmap.shape)
    return float(ndimage.distance_transform_edt(~mask)[place])


def thickness(mask: Array) -> float:
    """Width in pixels of the widest place of a part, bool [H, W]."""
    return 2 * float(ndimage.distance_transform_edt(mask).max()) - 1


def measured(localizer: Localizer, asked: Iterable[tuple[Array, Mapping[str, Array]]], world: str) -> tuple[dict[str, list[float]], float]:
    """Distances of the peaks by part, and seconds of the processor a picture."""
    concepts = {str(concept.metadata["part"]): concept for concept in prompts.load(f"{world}:parts")}
    found: dict[str, list[float]] = defaultdict(list)
    seconds = []
    for picture, masks in asked:
        start = time.process_time()
        answers = localizer.locate_all([picture], [concepts[part] for part in masks])[0]
        maps = [answer.heatmap for answer in answers]
        seconds.append(time.process_time() - start)
        for (part, mask), heatmap in zip(masks.items(), maps):
            found[part].append(miss(heatmap, mask))
    return dict(found), float(np.mean(seconds))


def rendered(world: str, pictures: int, seed: int | None = None) -> list[tuple[Array, dict[str, Array]]]:
    """Pictures of the benchmark, or of another seed, that show a specimen, uint8 [H, W, 3], and the masks of the parts that are asked
    about, bool [H, W].
    """
    found = []
    data = synthetic.load(pictures, world=world) if seed is None else synthetic.load(pictures, world=world, seed=seed)
    for sample in data.stream():
        masks = {question.trait: np.asarray(question.mask()) for question in sample.questions if question.kind == "part" and question.mask}
        if masks:
            found.append((np.asarray(sample.image), masks))
    return found


def hits(found: Mapping[str, list[float]]) -> float:
    """Share of all peaks that lie on their part."""
    return float(np.mean([distance == 0 for distances in found.values() for distance in distances]))


def changed_by(text: str, localizer: Localizer) -> Localizer:
    """The localizer with settings ``NAME=VALUE,...``."""
    pairs = [each.partition("=") for each in text.split(",")]
    if bad := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise click.BadParameter(f"received {bad[0]!r} in {text!r}: expected NAME=VALUE, such as refine=guided.", param_hint="--settings")
    try:
        return localizer.with_settings(**{name: yaml.safe_load(value) for name, _, value in pairs})
    except ConceptCamError as error:
        raise click.BadParameter(str(error), param_hint="--settings") from error


@click.command(help=__doc__)
@click.argument("model", default="demo")
@click.option("--world", type=click.Choice(list(WORLDS)), default="lepidoptera", show_default=True)
@click.option("--pictures", type=click.IntRange(min=1), default=48, show_default=True)
@click.option(
    "--settings",
    "others",
    multiple=True,
    default=("refine=guided", "look_again=true", "look_again=true,refine=guided"),
    show_default=True,
    metavar="NAME=VALUE,...",
    help="Settings of a column of the second table; repeat it.",
)
def main(model: str, world: str, pictures: int, others: tuple[str, ...]) -> None:
    plain = Localizer.from_pretrained(model)
    changed = {text: changed_by(text, plain) for text in others}
    asked = rendered(world, pictures)
    found = {text: measured(localizer, asked, world) for text, localizer in {"as it is": plain, **changed}.items()}
    first, thick = found["as it is"][0], defaultdict(list)
    for _, masks in asked:
        for part, mask in masks.items():
            thick[part].append(thickness(mask))
    print_table(
        f"{world}: share of peaks within so many pixels of their part, {len(asked)} pictures",
        ["part", "asked", "thickness, median", *(f"{reach:g}" for reach in REACHES)],
        [
            [part, str(len(far)), f"{np.median(thick[part]):.0f}", *(f"{np.mean([d <= reach for d in far]):.2f}" for reach in REACHES)]
            for part, far in first.items()
        ],
    )
    rows = [[part, *(f"{np.mean([d == 0 for d in distances[part]]):.2f}" for distances, _ in found.values())] for part in first]
    rows.append(["**all questions**", *(f"{hits(distances):.3f}" for distances, _ in found.values())])
    rows.append(["seconds a picture", *(f"{seconds:.2f}" for _, seconds in found.values())])
    print_table(f"{world}: peaks on their part", ["part", *found], rows)


if __name__ == "__main__":
    run_script(main)
