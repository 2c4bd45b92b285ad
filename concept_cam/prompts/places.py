"""Places in words: "the *left* fore wing of a butterfly" is asked as "the fore wing of a butterfly", and left is told by geometry.

A model of pictures and words pays no heed to left and right. The word is taken out of the question, the part is looked for, and its place
is told from how the animal lies (:mod:`concept_cam.core.placing`), by the frame of a trait pack whose host the words name.

The word is taken out only where it stands before the part that it belongs to and what is left is still a phrase. Elsewhere ("the front edge
of the tail fin", "a fish seen from the left side") the words are asked as they stand, and the answer says that their place was not read:
its region is that of the words, and its map is never clear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from concept_cam.core.concept import Concept, Where
from concept_cam.core.errors import PromptError
from concept_cam.core.names import normalise_text
from concept_cam.core.placing import SIDES
from concept_cam.prompts.packs import Entity, Pack, available, load_pack, where_of
from concept_cam.prompts.schema import host_phrase

__all__ = ["PLACE_WORDS", "concept_of_words", "read_place"]

PLACE_WORDS: dict[str, str] = {
    "left": "left", "left-hand": "left", "right": "right", "right-hand": "right",
    "front": "front", "foremost": "front", "rear": "rear", "hindmost": "rear", "rearmost": "rear",
    "first": "first", "second": "second", "last": "last",
}  # fmt: skip
"""Words that name a place, and the place."""

_LIKE_A_PLACE = re.compile(r"(left|right)(-?(most|wards?|facing|sides?|sided|hand|handed)|-(?!angled?$)[\w-]+)", re.I)
"""Words that speak of left and right, of which no place is read: the leftmost of several is that of the picture, not of the animal."""

_KINDS: dict[str, frozenset[str]] = {
    "fish": frozenset({"fishes", "catfish", "shark", "trout", "perch", "cod", "carp", "pike", "goby", "bass", "salmon"}),
    "butterfly": frozenset({"butterflies", "moth", "moths", "lepidopteran", "lepidoptera"}),
}
"""Other words that mean a host."""

_WORD = re.compile(r"\w+(?:['’-]\w+)*['’]?|[^\w\s]")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ATTACHED = _set("of on at in along")
"""What lies on a part of one side lies on that side: "the tip of the left wing"."""

_JOINED = _set("and or but nor than as")

_BETWEEN = (
    _ATTACHED
    | _JOINED
    | _set(
        "about above across after against around before behind below beneath beside between beyond by during facing for from inside into"
    )
    | _set("is are was were be been like looking near off onto out outside over pointing seen shown taken that through to toward towards")
    | _set("turned turning under underneath until up upon viewed what when where which while who whose with within without")
)
"""Words between one thing and the next: no phrase of a single thing goes on over them."""

_DETERMINERS = _set("the a an one its his her their")

_OWNERS = _set("its his her their")

_LYING = _set("side sides")

_EXAMPLES = "'the left fore wing of a butterfly' or 'the rear dorsal fin of a fish'"

_NO_THINGS = _set(
    "view views profile lateral facing half halves edge edges margin margins border borders end ends part parts portion region"
) | _set("area corner picture image photo photograph hand turn one ones thing")
"""Nouns of which an animal has not one on the left and one on the right: "the left view", "the left half"."""


def read_place(text: str, pack: Pack | None = None) -> tuple[str, str]:
    """Takes the place out of words: ``("left", "the fore wing of a butterfly")`` for "the left fore wing of a butterfly".

    Args:
        text: What is to be found.
        pack: The pack whose host the words name, where they name one: then the place has to stand before one of its parts, or before what
            the host itself has on either side.

    Returns:
        A key of :data:`concept_cam.core.placing.PLACES` and the words without it; an empty place where the words name none, more than one,
        or one that stands where the words without it would be no phrase ("the front of a fish").
    """
    place, plain, _ = _read(text, pack)
    return place, plain


def concept_of_words(target: str, contrasts: Sequence[str] = (), packs: Iterable[Pack] | None = None, **values: Any) -> Concept:
    """Makes the concept of a question in free words, its place taken out.

    Where words beside a host whose pack has a frame speak of a place that is not read, or others of two places of one thing, the words
    stay as they are and the concept's ``where`` says why (:attr:`concept_cam.core.concept.Where.unread`).

    Args:
        target: What is to be found.
        contrasts: What it is to be told apart from; their places are taken out too, and what then equals the target is left out: "the right
            fin" against "the left fin" is a question of geometry alone.
        packs: Packs whose host the words may name; those that ship by default.
        **values: Further fields of the concept.

    Raises:
        PromptError: A text is empty, equals another one, or is the spec of a trait pack, such as ``fish:parts=head``.
    """
    known = list(packs) if packs is not None else [_shipped(name) for name in available()]
    for text in (target, *contrasts):
        _require_words(text, known)
    pack = _pack_of(target, known)
    plain_concept = Concept((target,), tuple((text,) for text in contrasts), **values)
    if any(normalise_text(target) in _phrases(item) for item in known):
        # The words are a part's own name, such as "the front wing of a butterfly".
        return plain_concept
    place, plain, within = _read(target, pack)
    if not place and (pack is not None or _says_two(target)):
        return _unread(plain_concept, target, pack)
    if pack is None and not (place in SIDES and _said_of_one(target)):
        return plain_concept
    where = Where(place) if pack is None else where_of(pack, place, _part(plain, within, pack))
    others = (_without_place(text, known) for text in contrasts)
    kept = dict.fromkeys(text for text in others if normalise_text(text) != normalise_text(plain))
    metadata = {**values.pop("metadata", {}), "kind": "part", "where": place, **({} if pack is None else {"host": pack.host})}
    return Concept((plain,), tuple((text,) for text in kept), name=values.pop("name", target), metadata=metadata, where=where, **values)


def _require_words(text: object, known: Sequence[Pack]) -> None:
    """Refuses a spec where words are asked for: a text tower would read its letters, and leave out what the pack sets against it."""
    spec = re.fullmatch(r"\s*([a-z0-9_-]+):[a-z][a-z0-9_]*(=[a-z][a-z0-9_]*)?\s*", text) if isinstance(text, str) else None
    if spec is not None and spec[1] in {pack.name for pack in known}:
        raise PromptError(
            f"expected words, such as 'a forked tail fin', received the spec {spec[0].strip()!r} of a trait pack: give it as --traits, in "
            f"Python as a concept, prompts.load({spec[0].strip()!r})."
        )


# ----------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class _Word:
    """A word or a mark of a text: what it is in small letters, and where it begins in the text."""

    text: str
    start: int

    @property
    def ends_a_phrase(self) -> bool:
        return self.text in _BETWEEN or not self.text[0].isalnum()

    @property
    def of_whom(self) -> str:
        """Whose something is: "butterfly" of "butterfly's"; empty where it says so of nobody."""
        if self.text in _OWNERS:
            return self.text
        match = re.fullmatch(r"(.+?)(?:['’]s|(?<=s)['’])", self.text)
        return match[1] if match else ""


def _read(text: str, pack: Pack | None) -> tuple[str, str, slice]:
    """As :func:`read_place`, and where in the words without it the phrase is in which the place stood: "the fore wing" of a butterfly."""
    words = _words(text)
    places = _places(words, pack)
    # "The front left wing" of a butterfly is the left one of its front wings: what remains may be a name, and then holds no place.
    alone = [place for place in places if not _places([word for word in words if word is not words[place]], pack)]
    if len(alone) != 1 or not _stands_before_a_thing(words, alone[0], pack):
        return "", text, slice(0)
    start, end = _phrase(words, alone[0])
    word, after = words[alone[0]], words[alone[0] + 1]
    last = words[end].start if end < len(words) else len(text)
    within = slice(words[start].start, last - (after.start - word.start))
    return PLACE_WORDS[word.text], text[: word.start] + text[after.start :], within


def _words(text: str) -> list[_Word]:
    words = [_Word(match[0].casefold(), match.start()) for match in _WORD.finditer(text)]
    for number in range(len(words) - 2):
        word, hand, after = words[number : number + 3]
        if word.text in SIDES and hand.text == "hand" and not after.ends_a_phrase:  # "The left hand wing", and not "the left hand".
            words[number : number + 2] = [_Word(f"{word.text}-hand", word.start)]
            break
    return words


def _places(words: Sequence[_Word], pack: Pack | None) -> list[int]:
    """Which of the words name a place; not those that are part of a part's own name, such as the front wing of a butterfly."""
    own = _own_names(pack) if pack is not None else frozenset()
    pairs = zip(words, [*(word.text for word in words[1:]), ""])
    return [number for number, (word, after) in enumerate(pairs) if word.text in PLACE_WORDS and (word.text, after) not in own]


def _phrase(words: Sequence[_Word], at: int) -> tuple[int, int]:
    """Where the phrase around a position begins, and where it has ended."""
    start = next((number + 1 for number in range(at - 1, -1, -1) if words[number].ends_a_phrase), 0)
    return start, next((number for number in range(at + 1, len(words)) if words[number].ends_a_phrase), len(words))


def _stands_before_a_thing(words: Sequence[_Word], at: int, pack: Pack | None) -> bool:
    """Whether the place at a position belongs to the thing that is named right behind it, and to one of which there can be several."""
    start, end = _phrase(words, at)
    before, thing = words[start:at], words[at + 1 : end]
    if not thing or any(word.of_whom or word.text in _DETERMINERS for word in thing):
        return False  # "The front of a fish", "the left fish's eye".
    owners = [word.of_whom for word in before if word.of_whom]
    # A mark that ends the whole text joins nothing to it.
    link = words[end].text if end < len(words) and any(word.text[0].isalnum() for word in words[end:]) else ""
    if link in _JOINED or (link and not link.isalpha()):
        return False  # "The left wing and the tail of a butterfly".
    if pack is None:
        return (
            thing[-1].text not in _NO_THINGS and start == 0 and (not before or before[-1].text in _DETERMINERS or bool(before[-1].of_whom))
        )
    if owners and owners[-1] not in _OWNERS and not _is_host(owners[-1], pack):
        return False
    if _is_host(thing[-1].text, pack):
        return False  # "The left butterfly" is one of two.
    owned = words[end + 1 : _phrase(words, end)[1]] if link == "of" else []
    # Of the host itself: the front edge of a *fin* is no fin. A swallowtail butterfly is named after its tails, and a host all the same.
    direct = bool(owned) and _is_host(owned[-1].text, pack)
    if link == "of" and not direct:
        return False
    names, side = _names(pack), PLACE_WORDS[words[at].text] in SIDES
    part = _holds_any(thing, names) if side else _ends_with_any(thing, names)
    if start > 0:  # "The tip of the left wing of a butterfly", not "a fish seen from the left side".
        lying = owners[-1:] and owners[-1] in _OWNERS and thing[-1].text in _LYING  # "A fish on its left side" lies so.
        return side and part and words[start - 1].text in _ATTACHED and (direct or bool(owners)) and not lying
    others = direct or bool(owners) or any(_is_host(word.text, pack) for word in (*before, *thing))
    return part or (side and others and thing[-1].text not in _NO_THINGS)


def _said_of_one(text: str) -> bool:
    """Whether words without a known host say left or right of a thing of somebody: "a right turn" and "the right whale" are things."""
    words = _words(text)
    at = next((number for number, word in enumerate(words) if word.text in PLACE_WORDS), 0)
    if not at or words[at + 1].text == "whale":
        return False
    return words[at - 1].text in _OWNERS | {"the"} or bool(words[at - 1].of_whom)


def _says_two(text: str) -> bool:
    """Whether words without a known host say left or right beside another place of somebody's thing: "the left front paw of a cat"."""
    words = _words(text)
    places = _places(words, None)
    beside = any(after == place + 1 and SIDES.keys() & {words[place].text, words[after].text} for place, after in pairwise(places))
    return beside and words[-1].text not in PLACE_WORDS and _said_of_one(text)


def _unread(concept: Concept, target: str, pack: Pack | None) -> Concept:
    """The concept with a place that could not be read, where its words speak of one; as it is where they do not."""
    words = _words(target)
    found = [words[number].text for number in _places(words, pack)]
    found += [word.text for word in words if _LIKE_A_PLACE.fullmatch(word.text)]
    if not found:
        return concept
    place = PLACE_WORDS.get(found[0]) or found[0][: 5 if found[0].startswith("right") else 4]
    spoken = " and ".join(map(repr, dict.fromkeys(found)))
    reason = f"{spoken} had no say: a place is read only right before the part that it belongs to, and one alone, as in {_EXAMPLES}."
    return replace(concept, where=Where(place, unread=reason))


def _without_place(text: str, known: Sequence[Pack]) -> str:
    """A contrast without its place; a part's own name stays."""
    if any(normalise_text(text) in _phrases(item) for item in known):
        return text
    return read_place(text, _pack_of(text, known))[1]


# ------------------------------------------------------------------------------------------------------------------- packs


def _pack_of(text: str, known: Sequence[Pack]) -> Pack | None:
    """The pack with a frame whose host the words name; of several ("a butterfly on a fish") the one by which their place is read."""
    named = [item for item in known if item.frame.parts and _names_host(text, item)]
    return next((item for item in named if read_place(text, item)[0]), named[0] if named else None)


@cache
def _shipped(name: str) -> Pack:
    return load_pack(name)


def _names_host(text: str, pack: Pack) -> bool:
    words = set(re.findall(r"\w+", normalise_text(text)))
    host = normalise_text(pack.host)
    return set(host.split()) <= words or f"{host}s" in words or bool(words & _KINDS.get(host, frozenset()))


def _is_host(word: str, pack: Pack) -> bool:
    host = normalise_text(pack.host)
    last = host.split()[-1]
    return word in (last, f"{last}s", f"{last}es") or word in _KINDS.get(host, frozenset())


def _phrases(pack: Pack) -> frozenset[str]:
    return frozenset(
        normalise_text(phrase)
        for character in pack.characters
        if character.kind == "part"
        for state in character.states
        for phrase in state.phrases
    )


@lru_cache(maxsize=32)
def _own_names(pack: Pack) -> frozenset[tuple[str, str]]:
    """A place word and the word behind it, where a part's own phrases hold them: ``("front", "wing")``."""
    found = ([word.text for word in _words(phrase)] for phrase in _phrases(pack))
    return frozenset(pair for words in found for pair in pairwise(words) if pair[0] in PLACE_WORDS)


@lru_cache(maxsize=32)
def _names(pack: Pack) -> frozenset[str]:
    """The nouns by which a pack names its parts, and what its characters are about; of one and of several."""
    nouns: set[str] = set()
    for character in pack.characters:
        nouns |= _nouns(character.entity)
        for state in character.states if character.kind == "part" else ():
            nouns |= _nouns(state.entity)
            if not state.where:
                nouns.add(state.name.replace("_", " "))
    plain = {normalise_text(noun) for noun in nouns} - {normalise_text(pack.host)}
    return frozenset(form for noun in plain for form in (noun, f"{noun}s", f"{noun}es", noun.removesuffix("s")) if form)


def _nouns(entity: Entity | None) -> set[str]:
    return set() if entity is None else {entity.label, entity.label.split()[-1], *entity.nouns}


def _holds_any(words: Sequence[_Word], names: frozenset[str]) -> bool:
    return any(_ends_with_any(words[: number + 1], names) for number in range(len(words)))


def _ends_with_any(words: Sequence[_Word], names: frozenset[str]) -> bool:
    texts = [word.text for word in words]
    return any(" ".join(texts[number:]) in names for number in range(len(texts)))


def _part(text: str, within: slice, pack: Pack) -> str:
    """The part of the pack that the words name: the one with such a phrase, else the one whose noun ends the thing that they are about;
    empty for none, and where several have it: "the wing of a butterfly".

    Args:
        text: The words.
        within: Where in them that thing is; of "the eye of a fish with barbels" it is "the eye".
        pack: The pack.
    """
    plain = normalise_text(text)
    states = [state for character in pack.characters if character.kind == "part" for state in character.states if not state.where]
    for state in states:
        if plain in {normalise_text(phrase) for phrase in state.phrases}:
            return state.name
    rest, length = normalise_text(text[within.start :]), len(normalise_text(text[within]))
    named = [
        (match.end(), len(match[0]), state.name)
        for state in states
        if state.entity is not None
        for noun in (state.name.replace("_", " "), state.entity.label, *state.entity.nouns, *_cores(state.phrases, pack))
        for match in re.finditer(rf"\b{re.escape(normalise_text(noun))}\b", rest)
        if match.start() < length
    ]
    last = max((place[:2] for place in named), default=(0, 0))
    found = {name for *place, name in named if tuple(place) == last}
    return found.pop() if len(found) == 1 else ""


def _cores(phrases: Sequence[str], pack: Pack) -> list[str]:
    """Phrases without their host: "upper wing" of "a butterfly's upper wing"."""
    host = re.escape(host_phrase(pack.host))
    matches = (re.fullmatch(rf"(?:the |an? )?(.+) of {host}|{host}['’]s (.+)", normalise_text(phrase)) for phrase in phrases)
    return [match[1] or match[2] for match in matches if match is not None]
