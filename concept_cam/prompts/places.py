"""Places in words: "the *left* fore wing of a butterfly" is asked as "the fore wing of a butterfly", and left is told by geometry.

A model of pictures and words pays no heed to left and right. The word is taken out of the question, the part is looked for, and its place
is told from how the animal lies (:mod:`concept_cam.core.placing`), by the frame of a trait pack whose host the words name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from concept_cam.core.concept import Concept, Where
from concept_cam.core.names import normalise_text
from concept_cam.prompts.packs import Pack, available, load_pack, where_of

__all__ = ["PLACE_WORDS", "concept_of_words", "read_place"]

PLACE_WORDS: dict[str, str] = {
    "left": "left", "left-hand": "left", "right": "right", "right-hand": "right",
    "front": "front", "foremost": "front", "rear": "rear", "hindmost": "rear", "rearmost": "rear",
    "first": "first", "second": "second", "last": "last",
}  # fmt: skip
"""Words that name a place, and the place."""

_KINDS: dict[str, frozenset[str]] = {
    "fish": frozenset({"fishes", "catfish", "shark", "trout", "perch", "cod", "carp", "pike", "goby", "bass", "salmon"}),
    "butterfly": frozenset({"butterflies", "moth", "moths", "lepidopteran", "lepidoptera"}),
}
"""Other words that mean a host."""

_SAID_OF_ONE = re.compile(r"^(the|its|his|her)\s+(left|right)(-hand)?\s(?!whale)", re.I)
"""Without a frame only "the left ..." is a place: "a right turn" and "the front door" are things."""


def read_place(text: str) -> tuple[str, str]:
    """Takes the place out of words: ``("left", "the fore wing of a butterfly")`` for "the left fore wing of a butterfly".

    Args:
        text: What is to be found.

    Returns:
        A key of :data:`concept_cam.core.placing.PLACES` and the words without it; an empty place where the words name none, or more than
        one.
    """
    # Only before a noun: "the left fin", not "the fin on the left" or "what is left".
    match = _PLACE.search(text)
    if match is None:
        return "", text
    rest = text[: match.start("word")] + text[match.end() :]
    return ("", text) if _PLACE.search(rest) else (PLACE_WORDS[match["word"].lower()], rest)


_PLACE = re.compile(
    rf"(?<![\w-])(?:(?:the|its|his|her|a|an|one)\s+|^)(?P<word>{'|'.join(sorted(PLACE_WORDS, key=len, reverse=True))})\s+(?=\w)", re.I
)


def concept_of_words(target: str, contrasts: Sequence[str] = (), packs: Iterable[Pack] | None = None, **values: Any) -> Concept:
    """Makes the concept of a question in free words, its place taken out.

    Args:
        target: What is to be found.
        contrasts: What it is to be told apart from; their places are taken out too, and what then equals the target is left out: "the right
            fin" against "the left fin" is a question of geometry alone.
        packs: Packs whose host the words may name; those that ship by default.
        **values: Further fields of the concept.
    """
    place, plain = read_place(target)
    if not place:
        return Concept((target,), tuple((text,) for text in contrasts), **values)
    known = list(packs) if packs is not None else [_shipped(name) for name in available()]
    pack = next((item for item in known if item.frame.parts and _names_host(plain, item)), None)
    own_name = any(normalise_text(target) in _phrases(item) for item in known)
    if own_name or (pack is None and not _SAID_OF_ONE.match(target)):
        # The words are a part's own name, such as "the front wing of a butterfly".
        return Concept((target,), tuple((text,) for text in contrasts), **values)
    where = Where(place) if pack is None else where_of(pack, place, _part(plain, pack))
    others = (read_place(text)[1] for text in contrasts)
    kept = dict.fromkeys(text for text in others if normalise_text(text) != normalise_text(plain))
    metadata = {**values.pop("metadata", {}), "kind": "part", "where": place, **({} if pack is None else {"host": pack.host})}
    return Concept((plain,), tuple((text,) for text in kept), name=values.pop("name", target), metadata=metadata, where=where, **values)


@cache
def _shipped(name: str) -> Pack:
    return load_pack(name)


def _names_host(text: str, pack: Pack) -> bool:
    words = set(re.findall(r"\w+", normalise_text(text)))
    host = normalise_text(pack.host)
    return set(host.split()) <= words or f"{host}s" in words or bool(words & _KINDS.get(host, frozenset()))


def _phrases(pack: Pack) -> frozenset[str]:
    return frozenset(
        normalise_text(phrase)
        for character in pack.characters
        if character.kind == "part"
        for state in character.states
        for phrase in state.phrases
    )


def _part(text: str, pack: Pack) -> str:
    """The part of the pack that the words name: the one with such a phrase, else the one whose noun they hold; empty for none."""
    plain = normalise_text(text)
    states = [state for character in pack.characters if character.kind == "part" for state in character.states if not state.where]
    for state in states:
        if plain in {normalise_text(phrase) for phrase in state.phrases}:
            return state.name
    named = [
        (len(noun), state.name)
        for state in states
        if state.entity is not None
        for noun in (state.name.replace("_", " "), state.entity.label, *state.entity.nouns)
        if re.search(rf"\b{re.escape(normalise_text(noun))}\b", plain)
    ]
    return max(named)[1] if named else ""
