"""Does contrast find what changes between a picture and its counterfactual twin? As many pairs of every character as are asked for.

    python examples/benchmarks/contrast_pairs.py
    python examples/benchmarks/contrast_pairs.py --pairs 20 --character caudal_fin_shape --character dorsal_fin_number --model local-dir:DIR

The benchmark gives a picture one twin, so a character has few pairs in many pictures. Here pictures of the same seed are drawn on until
every character has its pairs, two of a picture at most; each is read once and asked for its state at every gamma. Figures are average
precision (AP), area under the ROC curve and share of the energy on the area that changes; gains are paired, with 95 % bootstrap intervals
over pairs. The last column is the AP of the exact area, averaged over each cell of the grid and enlarged as maps are: what no map of such
cells can pass by much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from held_out import print_table, record, shown, values

from concept_cam import Localizer, prompts
from concept_cam.commands.console import run_script
from concept_cam.core.concept import Concept
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.family import World, concatenate_specimens
from concept_cam.evaluation import metrics
from concept_cam.evaluation.datasets import synthetic
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.evaluation.runner import evaluate

DRAWN_AT_ONCE = 8
PAIRS_OF_A_PICTURE = 2
GAMMAS = (0.0, 0.5, 1.0)
METRICS = {"ap_difference": "AP", "auroc_difference": "AUROC", "energy_difference": "energy"}


@dataclass(frozen=True)
class Pair:
    """A picture and its twin.

    Attributes:
        picture: uint8 [H, W, 3].
        twin: The same with one state changed.
        number: Of the picture.
        character: What is changed.
        state: The picture's state.
        changed: bool [H, W], where the two differ but for noise.
    """

    picture: npt.NDArray[np.uint8]
    twin: npt.NDArray[np.uint8]
    number: int
    character: str
    state: str
    changed: npt.NDArray[np.bool_]


def draw(world: World, characters: Sequence[str], count: int, seed: int, size: tuple[int, int], most: int = 2000) -> Iterator[Pair]:
    """Draws pairs until each character has `count`; the new states take turns.

    Args:
        world: The group.
        characters: Its characters that are asked for.
        count: Pairs of each.
        seed: Of the pictures.
        size: `(H, W)`.
        most: Pictures after which a character may have to do with fewer.
    """
    found = dict.fromkeys(characters, 0)
    places = {name: place for place, name in enumerate(world.characters)}
    for start in range(0, most, DRAWN_AT_ONCE):
        if min(found.values()) >= count:
            return
        batch = world.sample(DRAWN_AT_ONCE, seed, view="whole", start=start)
        rendering = world.render(batch, size, masks=True)
        chosen: list[tuple[int, str, str, str]] = []
        for i in range(len(batch)):
            traits = batch.trait(i)
            able = [
                name
                for name in characters
                if rendering.judgeable[i, places[name]] and traits.get(name) not in (None, "absent") and found[name] < count
            ]
            for character in sorted(able, key=found.__getitem__)[:PAIRS_OF_A_PICTURE]:
                others = [state for state in world.characters[character] if state != traits[character]]
                chosen.append((i, character, traits[character], others[found[character] % len(others)]))
                found[character] += 1
        if chosen:
            own = concatenate_specimens([batch[i] for i, *_ in chosen])
            other = concatenate_specimens([world.twin(batch[i], character, state) for i, character, _, state in chosen])
            twins, changed = _pixels(world.render(other, size).images), world.difference(own, other, size).cpu().numpy()
            pictures = _pixels(rendering.images)
            for k, (i, character, state, _) in enumerate(chosen):
                yield Pair(pictures[i], twins[k], start + i, character, state, changed[k])


def _pixels(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())


def dataset(world: World, pairs: Sequence[Pair], concepts: Mapping[str, Concept]) -> Dataset:
    """The pairs as a data set of one question each: where is the state that the picture has?"""

    def sample(pair: Pair) -> Sample:
        presence = pair.character in world.presences
        question = SampleQuestion(
            concepts[f"{pair.character}={pair.state}"],
            "presence" if presence else "state",
            pair.character,
            difference=lambda: pair.changed,
            twin=lambda: pair.twin,
        )
        return Sample(f"{world.name}-{pair.number:06d}-{pair.character}", pair.picture, (question,))

    pack = prompts.load_pack(world.name)
    host = Concept(pack.host_phrases, name="host", templates=pack.host_templates or ("{}",))
    return Dataset(f"pairs of {world.name}", "1", lambda: map(sample, pairs), len(pairs), host)


def ceiling(changed: npt.NDArray[np.bool_], stride: int) -> float:
    """AP of the area itself, averaged over cells of `stride` pixels and enlarged as maps are; `nan` where nothing changes."""
    exact = torch.from_numpy(changed).float()[None, None]
    cells = F.adaptive_avg_pool2d(exact, (changed.shape[0] // stride, changed.shape[1] // stride))
    smooth = F.interpolate(cells, size=changed.shape, mode="bicubic", align_corners=False)[0, 0].numpy()
    return metrics.average_precision(smooth, changed)


@click.command(help=__doc__)
@click.option("--pairs", type=click.IntRange(min=2), default=40, show_default=True, help="Of each character.")
@click.option("--world", "group", type=click.Choice(list(WORLDS)), default="fish", show_default=True)
@click.option("--character", "asked", multiple=True, help="Only these characters.  [default: all]")
@click.option("--seed", type=int, default=synthetic.SEED, show_default=True, help="Another one to choose settings on.")
@click.option("--model", help="Another model than the bundled one.")
def main(pairs: int, group: str, asked: tuple[str, ...], seed: int, model: str | None) -> None:
    world = WORLDS[group]
    unknown = [name for name in asked if name not in world.characters]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is no character of {group}: expected some of {', '.join(world.characters)}.")
    localizer = Localizer.from_pretrained(*filter(None, [model]))
    found = [
        pair for pair in draw(world, asked or tuple(world.characters), pairs, seed, synthetic.BENCHMARKS[group].size) if pair.changed.any()
    ]
    concepts = {concept.name: concept for concept in prompts.load(group)}
    report = evaluate(dataset(world, found, concepts), localizer, gammas=GAMMAS, baselines=(), groups=("counterfactual",), examples=0)
    best: dict[str, list[float]] = {}
    for pair in found:
        best.setdefault(pair.character, []).append(ceiling(pair.changed, localizer.backbone.preprocess.stride[0]))
    for metric, name in METRICS.items():
        rows = []
        for character in [each for each in world.characters if each in best]:
            plain, *contrasted = ([item.values[metric] for item in values(record(report, g), metric, character)] for g in GAMMAS)
            pictures = [str(number) for number in range(len(plain))]
            gains = [shown(metrics.paired_difference(each, plain, pictures), "+") for each in contrasted]
            exact = [f"{np.mean(best[character]):.3f}"] if name == "AP" else []
            rows.append([character, str(len(plain)), f"{np.mean(plain):.3f}", *gains, *exact])
        heading = ["character", "pairs", "gamma 0", *(f"gain at gamma {g:g}" for g in GAMMAS[1:])]
        if name == "AP":
            heading.append("exact area by cells")
        print_table(f"{name} on what changes", heading, rows)


if __name__ == "__main__":
    run_script(main)
