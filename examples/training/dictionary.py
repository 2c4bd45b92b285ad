"""ImageNet's nouns: names and definitions of its 21,841 synsets, as timm ships them (WordNet's lemmas and glosses)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from concept_cam.backbones.torchvision_compat import prepare_torchvision

CLASSES = "imagenet-1k"
SYNSETS = "imagenet-22k"


@dataclass(frozen=True)
class Noun:
    """One synset.

    Attributes:
        synset: WordNet number, such as `n01440764`.
        names: Lemmas, the most common one first.
        definition: Gloss.
    """

    synset: str
    names: tuple[str, ...]
    definition: str


@lru_cache
def nouns(subset: str = SYNSETS) -> tuple[Noun, ...]:
    """Returns the nouns of a timm subset in the order of its classes."""
    prepare_torchvision()
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    found = []
    for number in range(info.num_classes()):
        names, _, definition = info.index_to_description(number, detailed=True).partition(": ")
        found.append(Noun(info.index_to_label_name(number), tuple(n.strip() for n in names.split(",")), definition))
    return tuple(found)


def with_article(name: str) -> str:
    """`oven` -> `an oven`."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
