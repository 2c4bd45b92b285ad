"""How well are lengths of the body measured, on photographs and on rendered fish?

    python examples/benchmarks/body_lengths.py DIR --mask head=head --mask trunk=body --mask caudal_fin=tail
    python examples/benchmarks/body_lengths.py --rendered photographs --pictures 150

DIR is a folder data set with masks that people drew (as of `evaluate --dataset folder:DIR`); lengths along the midline of those masks are
the truth, those along the midline of the model's maps (default settings, the trait pack's parts) what is measured. Rendered fish are held
out, whole and alone in the picture, of the plain world or like photographs; the renderer's masks are the truth. Prints a Markdown table:
the share of the pictures that are measured, the median and the 90th percentile of the relative error, and how often the truth lies within
the stated uncertainty; 95 % bootstrap intervals over pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from held_out import parse_masks, require_masks

from concept_cam import Localizer, prompts
from concept_cam.collection.measures import measure_distances
from concept_cam.collection.questions import MEASURED_DISTANCES
from concept_cam.commands.console import run_script
from concept_cam.core.frame import measure_body
from concept_cam.core.regions import Frame
from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.styles import PROFILES
from concept_cam.demo.worlds.fish.traits import MASKS, PARTS
from concept_cam.evaluation.datasets import folder
from concept_cam.pictures.reading import Picture, read_image

RESAMPLES = 2000
SEED = 914_210_000
"""Of the rendered fish; neither the training's nor the benchmark's."""
SIZE = (320, 480)
NEEDED = ("head", "trunk", "caudal_fin")


def interval(values: np.ndarray) -> str:
    """The median with its bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return f"{np.median(values):.3f} [{low:.3f}, {high:.3f}]"


def _bool(mask: np.ndarray) -> np.ndarray:
    """A mask as people drew it: what is to be ignored is not the part."""
    return mask if mask.dtype == bool else mask == 255


def photographs(directory: Path, pairs: dict[str, str]) -> Iterator[tuple[Picture | np.ndarray, dict[str, np.ndarray]]]:
    """Pictures of a folder data set and the masks of their parts."""
    for sample in folder.load(directory):
        masks = {question.trait: question.mask for question in sample.questions}
        yield read_image(sample.image), {part: _bool(mask()) for part, key in pairs.items() if (mask := masks.get(key)) is not None}


def rendered(profile: str, count: int) -> Iterator[tuple[Picture | np.ndarray, dict[str, np.ndarray]]]:
    """Rendered fish of one profile of the world that are whole and alone, and the masks of the parts that can be seen."""
    start, found = 0, 0
    while found < count:
        batch = world.sample(8, SEED, view="whole", start=start, profile=profile)
        start += len(batch)
        rendering = world.render(batch, SIZE, masks=True)
        assert rendering.masks is not None
        for i in range(len(batch)):
            seen = {part: bool(rendering.visible[i, MASKS.index(part)]) for part in PARTS}
            if int(rendering.number[i]) == 1 and all(seen[part] for part in NEEDED) and found < count:
                found += 1
                masks = {part: rendering.masks[i, MASKS.index(part)].numpy() for part in PARTS if seen[part]}
                yield np.ascontiguousarray(rendering.images[i].permute(1, 2, 0).numpy()), masks


@click.command()
@click.argument("directory", required=False, is_eager=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--mask", "pairs", multiple=True, callback=parse_masks, metavar="PART=KEY", help="Part of the pack and key of its masks.")
@click.option("--rendered", "profile", type=click.Choice(list(PROFILES)), help="Rendered fish in place of a folder.")
@click.option("--pictures", default=150, show_default=True, type=click.IntRange(1), help="Rendered fish.")
@click.option("--model", default="demo", show_default=True, help="Any model that `locate --model` takes.")
def main(directory: Path | None, pairs: dict[str, str], profile: str | None, pictures: int, model: str) -> None:
    """Prints the table."""
    if (directory is None) == (profile is None):
        raise click.UsageError("give either a folder with --mask PART=KEY for each of its masks, or --rendered PROFILE.")
    if directory is not None:
        require_masks(directory, pairs)
    localizer = Localizer.from_pretrained(model)
    concepts = prompts.load("fish:parts")
    errors: dict[str, list[tuple[float, bool]]] = {}
    known: dict[str, int] = {}
    for picture, outlined in photographs(directory, pairs) if directory is not None else rendered(str(profile), pictures):
        truth = measure_body(outlined)
        maps = localizer.score(localizer.encode(picture), concepts)
        scores = {found.concept.name.split("=")[1]: found.scores for found in maps}
        geometry = maps[0].geometry
        found = measure_distances(MEASURED_DISTANCES, scores, geometry, Frame(0, 0, geometry.original))
        for name, length in truth.items():
            if name not in MEASURED_DISTANCES:
                continue
            known[name] = known.get(name, 0) + 1
            if name in found:
                off = found[name].length - length.value
                within = found[name].error is not None and abs(off) <= found[name].error
                errors.setdefault(name, []).append((off / length.value, within))
    click.echo(
        "| length | pictures | measured | relative error, median | 90 % below | bias | within the uncertainty "
        "|\n|---|---|---|---|---|---|---|"
    )
    for name, count in known.items():
        rows = errors.get(name, [])
        if not rows:
            click.echo(f"| {name} | {count} | 0.00 | | | | |")
            continue
        off = np.array([row[0] for row in rows])
        within = np.mean([row[1] for row in rows])
        worst = np.quantile(np.abs(off), 0.9)
        click.echo(
            f"| {name} | {count} | {len(rows) / count:.2f} | {interval(np.abs(off))} | {worst:.3f} | {np.median(off):+.3f} | {within:.2f} |"
        )


if __name__ == "__main__":
    run_script(main)
