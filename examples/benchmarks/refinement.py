"""What do refined maps gain, and what do they cost?

    python examples/benchmarks/refinement.py
    python examples/benchmarks/refinement.py --photographs DIR --mask head=head --mask trunk=body --mask caudal_fin=tail

Asks the parts of the built-in benchmark's pictures (exact masks), and of a folder of photographs with masks, with each refiner, with the
second look and with both. Prints one Markdown table for each set: IoU at the best threshold of each map, F-score of the outline there,
pointing, and the processor time beside that of the map as it is (one thread); 95 % bootstrap intervals over pictures, and the gain over the
map as it is, paired over pictures. What several ways have in common is computed once; the time of a way is that of all its stages.

Two rows stand for no model: the exact masks, averaged over each cell and enlarged as maps are, alone and refined. They say what the grid
alone takes away, and what a refiner could give back if the model saw each cell rightly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import torch
from held_out import masks_option, photographs, photographs_option

from concept_cam import Localizer
from concept_cam.commands.console import run_script
from concept_cam.core.concept import Concept
from concept_cam.core.results import Localizations
from concept_cam.evaluation import metrics
from concept_cam.evaluation.datasets import synthetic
from concept_cam.evaluation.datasets.samples import Dataset
from concept_cam.evaluation.observations import Scene
from concept_cam.pictures.reading import Picture, read_image


@dataclass(frozen=True)
class Way:
    """How maps are made: a refiner's name, and from which look; exact masks stand in the model's place where ``exact`` says so."""

    refine: str = "none"
    look_again: bool = False
    exact: bool = False


WAYS: dict[str, Way] = {
    "none": Way(),
    "guided": Way("guided"),
    "superpixel": Way("superpixel"),
    "affinity": Way("affinity"),
    "affinity:early": Way("affinity:early"),
    "affinity:early+guided": Way("affinity:early+guided"),
    "look again": Way(look_again=True),
    "look again, guided": Way("guided", look_again=True),
    "look again, affinity:early+guided": Way("affinity:early+guided", look_again=True),
    "*exact masks by cells*": Way(exact=True),
    "*exact masks by cells, guided*": Way("guided", exact=True),
}
THIN = ("barbels", "lateral_line")
MEASURES = {"iou": "IoU at best threshold", "boundary": "outline F", "pointing": "pointing"}


Row = tuple[str, str, str, dict[str, float]]
"""Way, picture, part, and what was measured."""

T = TypeVar("T")


@dataclass
class Stages:
    """What the ways make of one picture; each stage is computed and timed once."""

    localizer: Localizer
    picture: Picture
    concepts: list[Concept]
    masks: np.ndarray
    """float32 [C, H, W], the exact masks."""
    seconds: dict[object, float] = field(default_factory=dict)
    made: dict[object, object] = field(default_factory=dict)

    def _stage(self, key: object, make: Callable[[], T]) -> T:
        if key not in self.made:
            start = time.process_time()
            self.made[key] = make()
            self.seconds[key] = time.process_time() - start
        return self.made[key]  # type: ignore[return-value]

    def heatmaps(self, way: Way) -> tuple[list[np.ndarray], float]:
        """Returns the maps float32 [H, W] of each part, and the processor time that they take, all stages together."""
        plain = self.localizer.with_settings(refine="none", look_again=False)
        features = self._stage("encode", lambda: plain.encode(self.picture))
        used: list[object] = ["encode"]
        if way.look_again:
            again = self.localizer.with_settings(refine="none", look_again=True)
            features = self._stage("look", lambda: again.look_again([features], self.concepts, [self.picture.pixels])[0])
            used.append("look")
        used.append(("score", way.look_again))
        answers = self._stage(used[-1], lambda: plain.score(features, self.concepts))
        if way.exact:
            answers = self._stage("cells", lambda: by_cells(answers, self.masks))
        used.append((way, "refine"))
        refiner = self.localizer.with_settings(refine=way.refine)
        answers = self._stage(used[-1], lambda: refiner.refine(answers, self.picture.pixels, features))
        used.append((way, "draw"))
        maps = self._stage(used[-1], lambda: [answer.heatmap for answer in answers])
        return maps, sum(self.seconds[key] for key in used)


def by_cells(answers: Localizations, masks: np.ndarray) -> Localizations:
    """Puts the share of each cell that a mask float32 [C, H, W] covers in the place of its score: what a model could say at best."""
    geometry = answers.geometry
    rows, columns = (
        np.clip(np.floor(((np.arange(side) + 0.5) * geometry.scale[axis] + geometry.offset[axis]) / geometry.cell[axis]).astype(int), 0,
                geometry.grid[axis] - 1)
        for axis, side in enumerate(geometry.original)
    )  # fmt: skip
    cells = (rows[:, None] * geometry.grid[1] + columns).ravel()
    count = np.maximum(np.bincount(cells, minlength=int(np.prod(geometry.grid))), 1)
    shares = [np.bincount(cells, mask.ravel(), minlength=len(count)) / count for mask in masks]
    scores = np.stack(shares).reshape(len(masks), *geometry.grid).astype(np.float32)
    return replace(answers, scores=np.where(np.isfinite(answers.scores), scores, np.float32(np.nan)))


def measure(data: Dataset, localizer: Localizer, ways: Mapping[str, Way]) -> Iterator[Row]:
    """Yields ``(way, picture, part, numbers)``; processor time is that of one picture, shared by its parts."""
    for number, sample in enumerate(data):
        questions = [question for question in sample.questions if question.kind == "part" and question.mask is not None]
        if not questions:
            continue
        picture = read_image(sample.image)
        masks = [np.asarray(question.mask()) for question in questions if question.mask is not None]
        concepts = [question.concept for question in questions]
        exact = np.stack([metrics.split_mask(mask)[0] for mask in masks]).astype(np.float32)
        for way in ways.values() if number == 0 else ():  # what is loaded at the first use is no cost of a picture
            Stages(localizer, picture, concepts, exact).heatmaps(way)
        stages = Stages(localizer, picture, concepts, exact)
        for name, way in ways.items():
            heatmaps, seconds = stages.heatmaps(way)
            for question, mask, heatmap in zip(questions, masks, heatmaps):
                scene = Scene(heatmap, mask)
                found = np.nan_to_num(heatmap, nan=-np.inf) >= scene.best[1]
                yield (
                    name,
                    sample.name,
                    question.trait,
                    {
                        "iou": scene.best[0],
                        "boundary": metrics.boundary_f(found, mask),
                        "pointing": metrics.pointing_game(heatmap, mask),
                        "seconds": seconds,
                    },
                )


def shown(interval: metrics.Interval, sign: str = "") -> str:
    """An estimate with its interval."""
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def table(title: str, rows: list[Row]) -> None:
    """Prints one Markdown table."""
    click.echo(f"\n{title}\n")
    click.echo(
        "| refined by | " + " | ".join(f"{name} | gain" if key != "pointing" else name for key, name in MEASURES.items()) + " | time |"
    )
    click.echo("|---|" + "---|" * (2 * len(MEASURES)))
    by_way: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
    for way, picture, part, numbers in rows:
        by_way.setdefault(way, {})[picture, part] = numbers
    plain = by_way["none"]
    asked = list(plain)
    pictures = [picture for picture, _ in asked]
    base = {picture: numbers["seconds"] for (picture, _), numbers in plain.items()}
    for way, found in by_way.items():
        cells = []
        for key in MEASURES:
            values = [found[question][key] for question in asked]
            cells.append(shown(metrics.mean_interval(values, pictures)))
            if key != "pointing":
                gain = metrics.paired_difference(values, [plain[question][key] for question in asked], pictures)
                cells.append("" if way == "none" else shown(gain, "+"))
        seconds = {picture: numbers["seconds"] for (picture, _), numbers in found.items()}
        ratio = np.median([seconds[picture] / base[picture] for picture in base])
        click.echo(f"| {way} | " + " | ".join(cells) + (" |  |" if WAYS[way].exact else f" | {ratio:.1f} |"))


@click.command(help=__doc__)
@click.option("--model", default="demo", show_default=True, help="Any model that `locate --model` takes.")
@click.option("--pictures", type=click.IntRange(min=0), default=100, show_default=True, help="Pictures of the benchmark.")
@click.option("--most", type=click.IntRange(min=1), help="Photographs at most.  [default: all]")
@click.option("--ways", help="Rows of the tables, separated by semicolons.  [default: all]")
@photographs_option
@masks_option
def main(model: str, pictures: int, most: int | None, ways: str | None, directory: Path | None, pairs: Mapping[str, str]) -> None:
    torch.set_num_threads(1)
    localizer = Localizer.from_pretrained(model)
    wanted = ["none", *(name.strip() for name in (ways.split(";") if ways else WAYS))]
    if unknown := [name for name in wanted if name not in WAYS]:
        raise click.BadParameter(f"unknown row {unknown[0]!r}; known: {', '.join(WAYS)}.")
    chosen = {name: values for name, values in WAYS.items() if name in wanted}
    if pictures:
        found = list(measure(synthetic.load(pictures), localizer, chosen))
        parts = sorted({part for _, _, part, _ in found})
        table(f"{len(parts)} parts of {pictures} pictures of the benchmark", found)
        table(f"Thin parts alone ({', '.join(THIN)})", [row for row in found if row[2] in THIN])
    if directory is not None:
        data = photographs(directory, pairs).limited(most)
        table(f"{', '.join(pairs)} of {len(data)} photographs", list(measure(data, localizer, chosen)))


if __name__ == "__main__":
    run_script(main)
