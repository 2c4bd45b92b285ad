"""What the text tower is distilled on: phrases made on the spot from packs, captions, a dictionary and a small grammar.

No text comes from elsewhere. Everything is drawn with one seed, so that the same call gives the same list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from concept_cam import prompts
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.captions import CaptionWriter
from examples.training.dictionary import nouns, with_article
from examples.training.families import families

TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "a close-up of {}",
    "an image of {}",
    "a blurry photo of {}",
    "{} in the background",
    "a photo of {} on a table",
    "there is {} here",
    "a drawing of {}",
)
ADJECTIVES = [
    "red",
    "blue",
    "green",
    "yellow",
    "black",
    "white",
    "brown",
    "grey",
    "orange",
    "pink",
    "purple",
    "silver",
    "golden",
    "dark",
    "pale",
    "bright",
    "spotted",
    "striped",
    "plain",
    "mottled",
    "barred",
    "banded",
    "speckled",
    "small",
    "large",
    "big",
    "tiny",
    "long",
    "short",
    "thin",
    "thick",
    "slender",
    "broad",
    "narrow",
    "round",
    "rounded",
    "square",
    "flat",
    "deep",
    "tall",
    "curved",
    "straight",
    "pointed",
    "blunt",
    "sharp",
    "forked",
    "notched",
    "concave",
    "convex",
    "hooked",
    "smooth",
    "rough",
    "hairy",
    "scaly",
    "shiny",
    "metallic",
    "dull",
    "fleshy",
    "bony",
    "spiny",
    "soft",
    "hard",
    "wooden",
    "plastic",
    "old",
    "young",
    "adult",
    "juvenile",
    "male",
    "female",
    "dead",
    "wet",
    "dry",
    "broken",
    "open",
    "closed",
    "folded",
    "spread",
    "torn",
    "upper",
    "lower",
    "front",
    "hind",
    "left",
    "right",
    "single",
    "double",
    "lobed",
    "serrated",
    "toothed",
    "iridescent",
    "translucent",
    "elongated",
    "swollen",
    "wrinkled",
]
PARTS = [
    "head",
    "eye",
    "mouth",
    "nose",
    "ear",
    "snout",
    "beak",
    "bill",
    "jaw",
    "lip",
    "tongue",
    "tooth",
    "cheek",
    "forehead",
    "crown",
    "neck",
    "throat",
    "chest",
    "breast",
    "belly",
    "back",
    "flank",
    "side",
    "body",
    "tail",
    "wing",
    "leg",
    "foot",
    "claw",
    "toe",
    "hoof",
    "horn",
    "antler",
    "tusk",
    "trunk",
    "mane",
    "fur",
    "coat",
    "skin",
    "scale",
    "feather",
    "plumage",
    "fin",
    "gill",
    "barbel",
    "whisker",
    "antenna",
    "thorax",
    "abdomen",
    "elytra",
    "shell",
    "carapace",
    "leaf",
    "stem",
    "flower",
    "petal",
    "root",
    "bark",
    "fruit",
    "seed",
    "branch",
    "thorn",
    "wheel",
    "door",
    "window",
    "handle",
    "lid",
    "roof",
    "seat",
    "arm",
    "button",
    "screen",
    "keyboard",
    "rim",
    "spout",
    "base",
    "edge",
    "tip",
    "margin",
    "stripe",
    "spot",
    "band",
    "patch",
    "texture",
    "pattern",
    "shape",
    "colour",
    "outline",
]
RELATIONS = ("with", "without", "beside", "on", "under", "in front of", "next to", "and")
GRAMMAR = 60_000
CAPTIONS = 40_000
PAIRS = 30_000


def phrases(seed: int = 0) -> list[str]:
    """Returns the whole corpus, shuffled, each phrase once."""
    rng = np.random.default_rng(seed)
    texts = dict.fromkeys(text for source in (_packs(), _captions(rng), _dictionary(rng), _grammar(rng), _pairs(rng)) for text in source)
    listed = list(texts)
    return [listed[i] for i in rng.permutation(len(listed))]


def held_out(text: str, share: float = 0.02) -> bool:
    """Is a phrase kept from training? Decided by its own hash, so that no list is needed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < share * 2**32


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _packs() -> Iterator[str]:
    """Every phrase of every trait pack, bare and in the pack's templates."""
    for name in prompts.available():
        pack = prompts.load_pack(name)
        for host in pack.host_phrases:
            yield host
            yield from (template.replace("{}", host) for template in pack.host_templates)
        for character in pack.characters:
            for state in character.states:
                for phrase in state.phrases:
                    yield phrase
                    yield from (t.replace("{}", phrase) for t in pack.templates_of(character))
                    yield f"{phrase} of {pack.host_phrases[0]}"


def _captions(rng: np.random.Generator) -> Iterator[str]:
    """Captions of the rendered world, single claims and joint ones."""
    writer = CaptionWriter(WORLDS["fish"])
    claims = tuple(writer.phrases)
    for number in range(CAPTIONS):
        if number % 4:
            yield writer.single(rng, claims[int(rng.integers(len(claims)))]).text
        else:
            yield writer.joint(rng, int(rng.integers(2, 4))).text


def _dictionary(rng: np.random.Generator) -> Iterator[str]:
    """Names of things, bare and in a sentence, and what they are."""
    for names, _ in families():
        for name in names:
            yield name
            yield with_article(name)
            yield from (t.format(with_article(name)) for t in TEMPLATES)
    for noun in nouns():
        yield noun.definition
        yield f"{noun.names[0]}: {noun.definition}"
        for name in noun.names:
            yield name
            yield _pick(rng, TEMPLATES).format(with_article(name))


def _grammar(rng: np.random.Generator) -> Iterator[str]:
    """Adjective, part, owner: `a forked tail of a red kite`."""
    names = [name for noun in nouns() for name in noun.names[:1]]
    common = [name for family, _ in families() for name in family]
    for _ in range(GRAMMAR):
        owner = with_article(_pick(rng, common) if rng.random() < 0.6 else _pick(rng, names))
        part = with_article(f"{_pick(rng, ADJECTIVES)} {_pick(rng, PARTS)}" if rng.random() < 0.7 else _pick(rng, PARTS))
        kind = rng.random()
        if kind < 0.45:
            yield f"{part} of {owner}"
        elif kind < 0.75:
            yield f"{owner} {_pick(rng, RELATIONS)} {part}"
        else:
            yield _pick(rng, TEMPLATES).format(f"{owner} with {part}")


def _pairs(rng: np.random.Generator) -> Iterator[str]:
    """Two things, or a thing with a quality: `a striped teapot`, `a teapot beside a heron`."""
    names = [name for noun in nouns() for name in noun.names[:2]]
    common = [name for family, _ in families() for name in family]
    for _ in range(PAIRS):
        first, second = _pick(rng, common if rng.random() < 0.5 else names), _pick(rng, names)
        relation, adjective = _pick(rng, RELATIONS), _pick(rng, ADJECTIVES)
        yield with_article(f"{adjective} {first}")
        yield f"{with_article(first)} {relation} {with_article(second)}"
