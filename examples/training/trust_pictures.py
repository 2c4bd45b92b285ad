"""Pictures with known answers that the rules of trust are fitted to, made of what may be shipped: renders, and scikit-image's photographs.

Rendered specimens of seeds that belong to neither the training nor the benchmark, half of them plain and half in the styles of photographs,
with false colours on a third; scenes without a specimen; photographs of other things, in which every part is absent; specimens asked for
parts of another group, and by their own and others' names; and collages of photographs, in which things are asked for by name. Nothing is
fitted to the benchmark or to anybody's photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.family import Rendering, World
from concept_cam.demo.worlds.fish.things import THINGS as LYING
from concept_cam.demo.worlds.fish.world import FishRendering
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.trust.rules import HOST_TARGET

__all__ = ["FIT_SEED", "THINGS", "pictures_of"]

FIT_SEED = 81_000_001
"""Seed of the pictures that the rules are fitted to; those that they are measured on have the next."""

SIZE = (288, 384)
DRAWN_AT_ONCE = 8
EMPTY = 0.15
"""Share of the pictures without a specimen."""
FALSE_COLOURS = 0.33
"""Share of the pictures with false colours."""
FOREIGN = 4
"""Parts of another group that a picture is asked for."""
GROWING = "plant"
"""Leaves lie and grow around other specimens: its parts are asked for only where nothing does, in scenes of these names."""
BARE = ("plain", "bark", "steel", "white_tray", "grey_tray", "blue_tray", "black_cloth", "wood", "sand", "concrete")

Pixels = npt.NDArray[np.uint8]

THINGS: dict[str, str] = {
    "astronaut": "an astronaut",
    "brick": "a brick wall",
    "camera": "a man with a camera",
    "chelsea": "a cat",
    "clock": "a clock",
    "coffee": "a cup of coffee",
    "coins": "coins",
    "grass": "grass",
    "gravel": "gravel",
    "hubble_deep_field": "galaxies in the night sky",
    "moon": "the moon",
    "page": "a page of a book",
    "retina": "the retina of an eye",
    "rocket": "a rocket",
    "immunohistochemistry": "cells under a microscope",
    "stereo_motorcycle": "a motorcycle",
}
"""Photographs of scikit-image, by their names there, and what each shows."""

OTHER_THINGS = (
    "a dog",
    "a bicycle",
    "a bus",
    "a chair",
    "a bird",
    "an apple",
    "a boat",
    "a tree",
    "a telephone",
    "a violin",
    "a pair of shoes",
)
"""Things that none of them shows."""

TILE = (144, 192)


def pictures_of(count: int, seed: int, hosts: Sequence[str], collages: int) -> Dataset:
    """Makes the data set.

    Args:
        count: Rendered pictures of each group.
        seed: Of the renderers and of all else that is drawn.
        hosts: Groups, keys of :data:`concept_cam.demo.worlds.WORLDS`, whose parts and states are asked for; the others are drawn too, to be
            asked for parts that they do not have.
        collages: Collages of photographs.
    """
    packs = {group: {concept.name: concept for concept in prompts.load(group)} for group in hosts}

    def stream() -> Iterator[Sample]:
        for number, group in enumerate(WORLDS):
            amount = count if group in hosts else count // 8
            yield from _rendered(WORLDS[group], amount, seed, packs, np.random.default_rng((seed, number)))
        yield from _photographs(packs)
        yield from _collages(collages, np.random.default_rng((seed, 99)), seed)

    return Dataset("organisms and other things", "2", stream, count * len(WORLDS), Concept(("an organism",)))


# --------------------------------------------------------------------------------------------------------------- renders


def _rendered(
    world: World, count: int, seed: int, packs: dict[str, dict[str, Concept]], generator: np.random.Generator
) -> Iterator[Sample]:
    own, hosts = packs.get(world.name), {group: host_concept(group) for group in packs}
    foreign = [concept for group, concepts in packs.items() if group != world.name for concept in _parts(concepts)]
    for start in range(0, count, DRAWN_AT_ONCE):
        profile = "photographs" if (start // DRAWN_AT_ONCE) % 2 else "plain"
        batch = world.sample(min(DRAWN_AT_ONCE, count - start), seed, view="whole", start=start, profile=profile, empty=EMPTY)
        rendering = world.render(batch, SIZE, masks=True)
        assert rendering.masks is not None
        images = np.ascontiguousarray(rendering.images.permute(0, 2, 3, 1).numpy())
        masks, visible, judgeable = rendering.masks.numpy(), rendering.visible.numpy(), rendering.judgeable.numpy()
        for i in range(len(batch)):
            picture = false_colours(images[i], generator) if generator.random() < FALSE_COLOURS else images[i]
            questions: list[SampleQuestion] = []
            if own is not None and not batch.present[i]:
                questions += [_absent(concept) for concept in _parts(own)]
            elif own is not None:
                questions += _asked(world, batch.trait(i), masks[i], visible[i], judgeable[i], own, generator)
            bare = world.scenes[int(batch.scene[i])] in BARE and not _leaf_lies(rendering, i)
            if own is not None:
                whole = masks[i].any(axis=0).astype(np.uint8) * 255
                for group, host in hosts.items():
                    if group == world.name and batch.present[i]:
                        questions.append(SampleQuestion(host, "object", HOST_TARGET, _constant(whole)))
                    elif group == world.name or bare or group != GROWING:
                        questions.append(_absent(host))
            others = [concept for concept in foreign if bare or concept.metadata.get("pack") != GROWING]
            chosen = generator.permutation(len(others))[: FOREIGN if own is not None else 3 * FOREIGN]
            questions += [_absent(others[number]) for number in chosen]
            if questions:
                yield Sample(f"{world.name}-{seed}-{start + i}", picture, tuple(questions))


def _leaf_lies(rendering: Rendering, row: int) -> bool:
    """Whether a leaf lies beside a fish."""
    if not isinstance(rendering, FishRendering) or rendering.things is None:
        return False
    return bool(rendering.things[row, LYING.index("leaf")].any())


def _asked(
    world: World,
    traits: dict[str, str],
    masks: npt.NDArray[np.bool_],
    visible: npt.NDArray[np.bool_],
    judgeable: npt.NDArray[np.bool_],
    concepts: dict[str, Concept],
    generator: np.random.Generator,
) -> list[SampleQuestion]:
    """Every visible part, every state that can be told, and one of its siblings, which is not there."""

    def mask_of(part: str) -> Callable[[], Pixels]:
        mask = masks[world.masks.index(part)].astype(np.uint8) * 255
        return lambda: mask

    names = [part for part in world.parts if visible[world.masks.index(part)] and f"parts={part}" in concepts]
    found = [SampleQuestion(concepts[f"parts={part}"], "part", part, mask_of(part)) for part in names]
    for place, (character, states) in enumerate(world.characters.items()):
        if character not in traits or not judgeable[place]:
            continue
        state, part = traits[character], world.character_mask[character]
        if character in world.presences:
            there = state != "absent"
            if f"{character}=present" in concepts:
                found.append(
                    SampleQuestion(concepts[f"{character}=present"], "presence", character, mask_of(part) if there else None, present=there)
                )
            if not there and f"parts={part}" in concepts:
                found.append(_absent(concepts[f"parts={part}"]))
            continue
        if f"{character}={state}" in concepts:
            found.append(SampleQuestion(concepts[f"{character}={state}"], "state", character, mask_of(part)))
        others = [other for other in states if other != state and f"{character}={other}" in concepts]
        if others:
            found.append(_absent(concepts[f"{character}={others[generator.integers(len(others))]}"]))
    return found


def host_concept(group: str) -> Concept:
    """The whole organism by its name, as people ask for it to see whether a map is of the trait or of the animal."""
    pack = prompts.load_pack(group)
    return Concept(pack.host_phrases, name=HOST_TARGET, metadata={"pack": pack.name, "host": pack.host})


def _parts(concepts: dict[str, Concept]) -> list[Concept]:
    return [concept for concept in concepts.values() if concept.metadata.get("kind") == "part"]


def _absent(concept: Concept) -> SampleQuestion:
    return SampleQuestion(concept, "presence", str(concept.metadata.get("state", concept.name)), present=False)


def false_colours(picture: Pixels, generator: np.random.Generator) -> Pixels:
    """Mixes the colours of a picture and bends its tones: a shift that neither the training nor a camera makes in this way."""
    mixing = np.eye(3) + generator.normal(0, 0.25, (3, 3))
    mixed = (picture.astype(np.float64) / 255 @ mixing).clip(0, 1) ** generator.uniform(0.6, 1.6)
    return np.rint(mixed * 255).astype(np.uint8)


# ----------------------------------------------------------------------------------------------------------- photographs


def _photograph(name: str) -> Pixels | None:
    """A photograph of scikit-image; ``None`` where it would have to be downloaded."""
    from skimage import data

    try:
        picture = getattr(data, name)()
    except Exception as error:  # Some of them are downloads: those at hand are enough.
        print(f"left out: skimage.data.{name} ({type(error).__name__})")
        return None
    pixels = np.asarray(picture[0] if isinstance(picture, tuple) else picture)
    return np.ascontiguousarray(np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3])


def _photographs(packs: dict[str, dict[str, Concept]]) -> Iterator[Sample]:
    """Photographs of other things, and their mirror images: every part is absent."""
    for name in THINGS:
        picture = _photograph(name)
        if picture is None:
            continue
        for flipped in (False, True):
            pixels = np.ascontiguousarray(picture[:, ::-1]) if flipped else picture
            questions = tuple(
                _absent(concept)
                for group, own in packs.items()
                if (group, name) != (GROWING, "grass")
                for concept in (host_concept(group), *_parts(own))
            )
            yield Sample(f"{name}{'-mirrored' if flipped else ''}", pixels, questions)


# -------------------------------------------------------------------------------------------------------------- collages


def _collages(count: int, generator: np.random.Generator, seed: int) -> Iterator[Sample]:
    """Two to six photographs side by side, cut out anew each time: each thing is asked for against the others, and absent ones too."""
    at_hand = {name: picture for name in THINGS if count and (picture := _photograph(name)) is not None}
    names = list(at_hand)
    for number in range(count):
        rows, columns = ((1, 2), (2, 2), (2, 3))[number % 3]
        chosen = [names[place] for place in generator.permutation(len(names))[: rows * columns]]
        tiles = [_cut(at_hand[name], generator) for name in chosen]
        picture = np.concatenate([np.concatenate(tiles[row * columns : (row + 1) * columns], axis=1) for row in range(rows)])
        questions = []
        for place, name in enumerate(chosen):
            mask = np.zeros(picture.shape[:2], np.uint8)
            top, left = place // columns * TILE[0], place % columns * TILE[1]
            mask[top : top + TILE[0], left : left + TILE[1]] = 255
            others = tuple((THINGS[other],) for other in chosen if other != name)
            questions.append(SampleQuestion(Concept((THINGS[name],), others), "object", THINGS[name], _constant(mask)))
        shown = tuple((THINGS[name],) for name in chosen)
        missing = [*(THINGS[name] for name in names if name not in chosen), *OTHER_THINGS]
        for place in generator.permutation(len(missing))[: len(chosen)]:
            questions.append(SampleQuestion(Concept((missing[place],), shown), "presence", missing[place], present=False))
        yield Sample(f"collage-{seed}-{number}", picture, tuple(questions))


def _constant(mask: Pixels) -> Callable[[], Pixels]:
    return lambda: mask


def _cut(picture: Pixels, generator: np.random.Generator) -> Pixels:
    """A part of a photograph as a tile: of six tenths of its sides or more, perhaps mirrored, in another light."""
    height, width = picture.shape[:2]
    share = generator.uniform(0.6, 1.0)
    tall = min(height, round(share * height), round(share * width * TILE[0] / TILE[1]))
    wide = min(width, round(tall * TILE[1] / TILE[0]))
    top, left = generator.integers(height - tall + 1), generator.integers(width - wide + 1)
    part = picture[top : top + tall, left : left + wide]
    part = part[:, ::-1] if generator.random() < 0.5 else part
    lit = (part / 255.0) ** generator.uniform(0.7, 1.4) * 255
    return np.asarray(Image.fromarray(np.rint(lit).astype(np.uint8)).resize((TILE[1], TILE[0]), Image.Resampling.LANCZOS))
