"""The built-in benchmark: held-out pictures of the procedural worlds, with masks and counterfactual twins. Frozen, versioned by group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.errors import DataError
from concept_cam.core.names import choose
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.family import Specimens, View, World, concatenate_specimens
from concept_cam.evaluation.datasets.samples import Dataset, MaskLoader, Sample, SampleQuestion

__all__ = ["BENCHMARKS", "SEED", "Benchmark", "load"]

SEED = 914_200_001
"""Seed of the benchmark's pictures; never used in training."""


@dataclass(frozen=True)
class Benchmark:
    """The benchmark's part for one group.

    Attributes:
        version: Raised whenever the pictures, the questions or their answers change: numbers of different versions cannot be compared.
        count: Pictures.
        size: ``(H, W)`` of them.
    """

    version: str
    count: int
    size: tuple[int, int]


BENCHMARKS: dict[str, Benchmark] = {
    "fish": Benchmark("3", 300, (256, 384)),
    "lepidoptera": Benchmark("1", 100, (384, 384)),
    "beetle": Benchmark("2", 100, (384, 384)),
    "plant": Benchmark("3", 100, (384, 384)),
}
"""Group -> its part of the benchmark."""

DRAWN_AT_ONCE = 8


def load(
    count: int | None = None,
    seed: int = SEED,
    size: tuple[int, int] | None = None,
    view: View = "whole",
    world: str = "fish",
) -> Dataset:
    """Makes the benchmark of one group.

    Each picture is asked for every visible part, every character that can be judged (for presence characters also where it is absent), and
    for one character, taking turns, it has a counterfactual twin: the same animal, light, background and noise with that one trait changed.
    The difference mask is where the noise-free pictures of the two differ.

    Args:
        count: Number of pictures, by default that of :data:`BENCHMARKS`; the first ``n`` of more are those of ``n``.
        seed: Other seeds make other pictures; the benchmark's numbers belong to :data:`SEED`.
        size: ``(H, W)``, by default that of :data:`BENCHMARKS`.
        view: ``"whole"`` (the benchmark), ``"closeup"`` or ``"mixed"``.
        world: The group, a key of :data:`BENCHMARKS`.

    Returns:
        The data set, in the version of :data:`BENCHMARKS` when all but ``count`` is as there.

    Raises:
        DataError: No picture is asked for, or there is no such group.
    """
    own = choose(world, BENCHMARKS, "world", DataError)
    count = own.count if count is None else count
    if count < 1:
        raise DataError(f"the synthetic benchmark needs at least one picture, received count={count}.")
    height, width = own.size if size is None else size
    standard = (seed, (height, width), view) == (SEED, own.size, "whole")
    group = WORLDS[world]
    return Dataset(
        name=_name(world),
        version=own.version if standard else f"{own.version}-changed",
        stream=lambda: _stream(group, count, seed, (height, width), view),
        count=count,
        host=_host(world),
        facts={"seed": seed, "size": [height, width], "view": view, "host": group.host, "world": world},
    )


def _name(world: str) -> str:
    return "synthetic" if world == "fish" else f"synthetic-{world}"


def _host(world: str) -> Concept:
    pack = prompts.load_pack(world)
    return Concept(pack.host_phrases, name="host", templates=pack.host_templates or ("{}",))


def _constant(mask: npt.NDArray[np.bool_]) -> MaskLoader:
    return lambda: mask


def _stream(world: World, count: int, seed: int, size: tuple[int, int], view: View) -> Iterator[Sample]:
    concepts = {concept.name: concept for concept in prompts.load(world.name)}
    for start in range(0, count, DRAWN_AT_ONCE):
        batch = world.sample(min(DRAWN_AT_ONCE, count - start), seed, view=view, start=start)
        truth = _Truth.of(world.render(batch, size, masks=True))
        twins = [_choose_twin(world, batch.trait(i), truth.judgeable[i], start + i) for i in range(len(batch))]
        changed = _changed(world, batch, twins, size)
        for i in range(len(batch)):
            name = f"{_name(world.name)}-{seed}-{start + i:06d}"
            yield _sample(world, name, batch.trait(i), truth, i, concepts, twins[i], changed.get(i))


@dataclass(frozen=True)
class _Truth:
    """A rendered batch as numpy: images uint8 [B, H, W, 3], masks bool [B, P, H, W], visible [B, P], judgeable [B, C]."""

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    visible: npt.NDArray[np.bool_]
    judgeable: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rendering: Any) -> _Truth:
        return cls(
            np.ascontiguousarray(rendering.images.permute(0, 2, 3, 1).cpu().numpy()),
            rendering.masks.cpu().numpy(),
            rendering.visible.cpu().numpy(),
            rendering.judgeable.cpu().numpy(),
        )


def _choose_twin(world: World, traits: dict[str, str], judgeable: npt.NDArray[np.bool_], number: int) -> tuple[str, str] | None:
    """The character to change and its new state: characters and states take turns by the picture's number."""
    names = list(world.characters)
    for step in range(len(names)):
        place = (number + step) % len(names)
        name = names[place]
        state = traits.get(name)
        if state is None or state == "absent" or not judgeable[place]:
            continue
        others = [other for other in world.characters[name] if other != state]
        return name, others[(number // len(names)) % len(others)]
    return None


def _changed(
    world: World, batch: Specimens, twins: list[tuple[str, str] | None], size: tuple[int, int]
) -> dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
    """Pictures of the twins and where they differ, by place in the batch."""
    rows = [i for i, chosen in enumerate(twins) if chosen is not None]
    if not rows:
        return {}
    originals = concatenate_specimens([batch[i] for i in rows])
    others = concatenate_specimens([world.twin(batch[i], *chosen) for i in rows if (chosen := twins[i]) is not None])
    pictures = np.ascontiguousarray(world.render(others, size).images.permute(0, 2, 3, 1).cpu().numpy())
    masks = world.difference(originals, others, size).cpu().numpy()
    return {row: (pictures[k], masks[k]) for k, row in enumerate(rows)}


def _sample(
    world: World,
    name: str,
    traits: dict[str, str],
    truth: _Truth,
    i: int,
    concepts: dict[str, Concept],
    twin: tuple[str, str] | None,
    changed: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] | None,
) -> Sample:
    masks, host = truth.masks[i], _constant(truth.masks[i].any(axis=0))
    questions = [
        SampleQuestion(concepts[f"parts={part}"], "part", part, _constant(masks[world.masks.index(part)]), host)
        for part in world.parts
        if truth.visible[i, world.masks.index(part)]
    ]
    for place, (character, state) in enumerate(traits.items()):
        if not truth.judgeable[i, place]:
            continue
        presence = character in world.presences
        absent = presence and state == "absent"
        concept = concepts[f"{character}=present"] if presence else concepts[f"{character}={state}"]
        has_twin = twin is not None and twin[0] == character and changed is not None
        questions.append(
            SampleQuestion(
                concept,
                "presence" if presence else "state",
                character,
                mask=None if absent else _constant(masks[world.masks.index(world.character_mask[character])]),
                host=host,
                present=not absent,
                difference=_constant(changed[1]) if has_twin and changed is not None else None,
                twin=_picture(changed[0]) if has_twin and changed is not None else None,
            )
        )
    return Sample(name, truth.images[i], tuple(questions))


def _picture(image: npt.NDArray[np.uint8]) -> Any:
    return lambda: image
