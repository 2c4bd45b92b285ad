"""What an annotation run asks of every picture: the concepts of the trait packs, and which of them answers what.

A character of siblings (shape, pattern, colour, count, presence) is one question with several answers. Its *call* concept sets the states
side by side, so that the softmax over its texts is the probability of each state; the states' own concepts give the evidence maps; the
*entity* concept ("the tail fin of a fish", against the other parts) gives the region. A character of kind ``part`` is one question per
part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, PromptError
from concept_cam.core.names import normalise_text
from concept_cam.prompts.schema import HOST_KINDS, host_phrase

__all__ = [
    "MEASURED_DISTANCES",
    "NOT_THE_HOST",
    "WHOLE_ORGANISM",
    "ABSENT",
    "AskedCharacter",
    "PackQuestions",
    "Questions",
    "AskedState",
    "build_questions",
    "call_concept",
    "entity_concept",
    "host_concept",
]

ABSENT = "absent"
"""State of a presence character that has no place in the picture."""

NOT_THE_HOST = (
    "an empty scene", "background", "a landscape", "a plant", "a flower", "a person", "a hand", "a building", "a vehicle",
    "a piece of furniture",
    "a printed label", "a document", "a drawing", "a fish", "a bird", "a butterfly", "a beetle", "a dog",
)  # fmt: skip
"""What a picture may show instead of the host; those that name the host itself are left out."""

WHOLE_ORGANISM = frozenset({"UBERON:0000468", "PO:0000003"})
"""Entities that are the host itself: their region is the host's, since nobody writes "the multicellular organism of a fish"."""

DISTANCE_PARTS: Mapping[str, tuple[str, ...]] = {
    "standard_length": ("head", "caudal_fin"),
    "head_length": ("head", "caudal_fin"),
    "head_depth": ("head", "caudal_fin"),
    "body_depth": ("head", "trunk"),
    "eye_diameter": ("head", "caudal_fin", "eye"),
    "caudal_fin_length": ("head", "caudal_fin"),
    "dorsal_fin_height": ("head", "trunk", "dorsal_fin"),
    "anal_fin_height": ("head", "trunk", "anal_fin"),
    "fore_wing_length": ("fore_wing", "thorax"),
    "elytral_length": ("elytra", "pronotum"),
    "elytral_width": ("elytra", "pronotum"),
    "leaf_length": ("leaf",),
    "leaf_width": ("leaf",),
}
"""The parts that a pack needs for each distance to be measured; :mod:`concept_cam.core.frame` and
:mod:`concept_cam.core.lengths` say how they are measured."""

MEASURED_DISTANCES = tuple(DISTANCE_PARTS)
"""Distances that are measured where a pack has the parts."""


@dataclass(frozen=True)
class AskedState:
    """One state of a character.

    Attributes:
        name: Name in the pack.
        concept: Index of its concept.
        region: For a part, the same; else the character's.
        entity: Label and ontology id of what is described.
        quality: Label, ontology id and match of the quality term.
    """

    name: str
    concept: int
    entity: tuple[str | None, str | None]
    quality: tuple[str | None, str | None, str | None] = (None, None, None)


@dataclass(frozen=True)
class AskedCharacter:
    """One character.

    Attributes:
        name: Name in the pack.
        kind: Kind in the pack.
        states: Its states.
        call: Index of the call concept, whose target and contrasts are the states in order; for parts -1.
        region: Index of the entity's concept; for parts -1.
        needs: The presence without which nothing is called of it.
    """

    name: str
    kind: str
    states: tuple[AskedState, ...]
    call: int = -1
    region: int = -1
    needs: AskedCharacter | None = None


@dataclass(frozen=True)
class PackQuestions:
    """The questions of one trait pack.

    Attributes:
        name: Name of the pack.
        host: Index of the concept that tells whether there is a host at all.
        characters: Its characters.
        distances: Names of the distances that can be measured.
    """

    name: str
    host: int
    characters: tuple[AskedCharacter, ...]
    distances: tuple[str, ...] = ()


@dataclass(frozen=True)
class Questions:
    """Everything that is asked of a picture, in one list of concepts.

    Attributes:
        concepts: Scored together.
        packs: Who asks for which.
        facts: Pack name -> title, version and hash of its content.
    """

    concepts: tuple[Concept, ...]
    packs: tuple[PackQuestions, ...]
    facts: Mapping[str, Mapping[str, Any]]

    @property
    def parts(self) -> tuple[int, ...]:
        """Indices of the parts' concepts."""
        return tuple(
            dict.fromkeys(
                state.concept for pack in self.packs for character in pack.characters if character.call < 0 for state in character.states
            )
        )

    def certified(self, shares: np.ndarray) -> tuple[int, ...]:
        """Returns the concepts whose maps decide records: every part, the best state of each character and its part, and the hosts.

        Args:
            shares: float32 [C, 1 + R], probabilities.
        """
        found = list(self.parts)
        for pack in self.packs:
            called = [character for character in pack.characters if character.call >= 0]
            found.append(pack.host)
            found += [each.states[int(shares[each.call][: len(each.states)].argmax())].concept for each in called]
            # By its certificate it is known whether a part is there; also that of a presence that is asked only for what needs it.
            regions = [each.region for each in (*called, *(each.needs for each in called if each.needs is not None))]
            found += [region for region in regions if self.concepts[region].metadata.get("kind") == "part"]
        return tuple(dict.fromkeys(found))

    @property
    def outlined(self) -> tuple[int, ...]:
        """The concepts whose maps regions are drawn from: every part, and the entity of each character."""
        regions = [character.region for pack in self.packs for character in pack.characters if character.call >= 0]
        return tuple(dict.fromkeys([*self.parts, *regions]))

    @property
    def placed(self) -> tuple[Concept, ...]:
        """The concepts that are asked where they are: all but those that only tell whether there is a host at all."""
        hosts = {pack.host for pack in self.packs}.difference(self.outlined)
        return tuple(concept for number, concept in enumerate(self.concepts) if number not in hosts)

    @property
    def rows(self) -> int:
        """Records per specimen."""
        return sum(
            len(pack.distances) + sum(len(character.states) if character.call < 0 else 1 for character in pack.characters)
            for pack in self.packs
        )


class _Concepts:
    """Collects concepts, each question once."""

    def __init__(self) -> None:
        self.all: list[Concept] = []
        self._index: dict[tuple[Any, ...], int] = {}

    def add(self, concept: Concept) -> int:
        key = (concept.target_prompts, concept.contrast_prompts, concept.where, concept.surroundings)
        if key not in self._index:
            self._index[key] = len(self.all)
            self.all.append(concept)
        return self._index[key]


def build_questions(specs: Sequence[Any], unknown_words: Callable[[str], Sequence[str]] = lambda text: ()) -> Questions:
    """Turns trait packs into questions.

    Args:
        specs: What :func:`concept_cam.prompts.load_pack` takes, or ``"pack:character"``.
        unknown_words: Words of a phrase that the model has never seen; alternatives to the host that hold one are left out.

    Raises:
        PromptError: A pack or character does not exist or has errors.
        ConfigurationError: No pack, one pack asked for twice, or a single state is asked for.
    """
    chosen: dict[str, tuple[prompts.Pack, dict[str, None]]] = {}
    for spec in specs:
        source, character, state = prompts.split_pack_spec(spec) if isinstance(spec, str) else (spec, None, None)
        if state is not None:
            raise ConfigurationError(
                f"{spec!r} names one state: a call is made among all states of a character, give {source}:{character}."
            )
        pack = prompts.load_pack(source)
        known, names = chosen.setdefault(pack.name, (pack, {}))
        if known != pack:
            raise ConfigurationError(f"two different trait packs are called {pack.name!r}: rename one.")
        wanted = pack.characters if character is None else (pack.character(character),)
        names.update(dict.fromkeys(item.name for item in wanted))
    if not chosen:
        raise ConfigurationError("no trait pack was given: expected for example --traits fish; see  concept-cam prompts.")
    concepts = _Concepts()
    packs = tuple(_pack(pack, tuple(names), concepts, unknown_words) for pack, names in chosen.values())
    facts = {
        pack.name: {
            "title": pack.title,
            "version": pack.version,
            "characters": list(names),
            "sha256": _hash(pack),
        }
        for pack, names in chosen.values()
    }
    return Questions(tuple(concepts.all), packs, facts)


def _hash(pack: prompts.Pack) -> str:
    # What lies around is part of what is asked even where the pack leaves it to the default.
    around = {item.name: item.around for item in pack.characters if item.kind not in HOST_KINDS}
    text = json.dumps([prompts.to_dict(pack), around], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _pack(
    pack: prompts.Pack,
    names: Sequence[str],
    concepts: _Concepts,
    unknown_words: Callable[[str], Sequence[str]],
) -> PackQuestions:
    host = concepts.add(host_concept(pack, unknown_words))
    characters = []
    for name in names:
        character = pack.character(name)
        make = _part_character if character.kind == "part" else _state_character
        characters.append(make(pack, character, concepts, host))
    parts = {state.name for character in characters if character.call < 0 for state in character.states}
    distances = tuple(name for name in MEASURED_DISTANCES if parts.issuperset(DISTANCE_PARTS[name]))
    shared = sorted({character.name for character in characters}.intersection(distances))
    if shared:
        raise PromptError(
            f"the pack {pack.name!r} has a character {shared[0]!r}, and a length of that name is measured between its parts: two records "
            "would have one key. Give the character another name."
        )
    return PackQuestions(pack.name, host, tuple(characters), distances)


def host_concept(pack: prompts.Pack, unknown_words: Callable[[str], Sequence[str]]) -> Concept:
    """Returns the concept that tells whether a picture shows what a pack is about, against :data:`NOT_THE_HOST`.

    Args:
        pack: The pack.
        unknown_words: Words of a phrase that the model has never seen; alternatives that hold one are left out.
    """
    own = set(normalise_text(pack.host).split())
    others = [text for text in NOT_THE_HOST if not own & set(text.split()) and not unknown_words(text)]
    return Concept(
        pack.host_phrases,
        tuple((text,) for text in others or ("background",)),
        name=f"{pack.name}: host",
        templates=("a photo of {}", "{}"),
        metadata={"pack": pack.name},
    )


def _entity_of(concept: Concept) -> tuple[str | None, str | None]:
    entity = concept.metadata.get("entity", {})
    return entity.get("label"), entity.get("id")


def _part_character(pack: prompts.Pack, character: prompts.Character, concepts: _Concepts, _host: int) -> AskedCharacter:
    found = prompts.concepts(pack, character.name)
    states = tuple(AskedState(concept.metadata["state"], concepts.add(concept), _entity_of(concept)) for concept in found)
    return AskedCharacter(character.name, character.kind, states)


def _state_character(pack: prompts.Pack, character: prompts.Character, concepts: _Concepts, host: int) -> AskedCharacter:
    if len(character.states) < 2:
        raise PromptError(f"the character {pack.name}:{character.name} has one state: a call needs at least two to choose from.")
    states = []
    for state in character.states:
        concept = prompts.concepts(pack, character.name, state.name)[0]
        quality = state.quality
        terms = (quality.label, quality.id, quality.match) if quality else (None, None, None)
        states.append(AskedState(state.name, concepts.add(concept), _entity_of(concept), terms))
    told_of = entity_concept(pack, character)
    region = host if told_of is None else concepts.add(told_of)
    call = concepts.add(call_concept(pack, character))
    needed = pack.needed_by(character)
    needs = None if needed is None else _state_character(pack, needed, concepts, host)
    return AskedCharacter(character.name, character.kind, tuple(states), call, region, needs)


def call_concept(pack: prompts.Pack, character: prompts.Character) -> Concept:
    """Returns the concept that sets the states of a character side by side: the first is the target, the others are the contrasts."""
    first, *rest = character.states
    return Concept(
        pack.phrases_of(first),
        tuple(pack.phrases_of(state) for state in rest),
        name=f"{pack.name}:{character.name}",
        contrast_names=tuple(state.name for state in rest),
        templates=pack.templates_of(character),
        metadata={"pack": pack.name, "character": character.name},
    )


def entity_concept(pack: prompts.Pack, character: prompts.Character) -> Concept | None:
    """Returns the concept of what a character's states are told of.

    Returns:
        The part's own concept (its metadata say ``kind: part``) where the pack has that part, else the entity's nouns against the pack's
        parts and the host; ``None`` where the entity is the host itself.
    """
    entity = character.entity
    assert entity is not None  # the schema demands it of all kinds but part
    if entity.id in WHOLE_ORGANISM:
        return None
    if told_of := pack.part_told_of(character):
        return prompts.concepts(pack, told_of[0].name, told_of[1].name)[0]
    whole = host_phrase(pack.host)
    own = tuple(dict.fromkeys(f"the {noun} of {whole}" for noun in (entity.label, *entity.nouns)))
    taken = {normalise_text(phrase) for phrase in own}
    # The host comes last, but a part that is called like it is the host.
    first_said = {normalise_text(phrase) for phrase in pack.host_phrases}
    others: dict[str, tuple[str, ...]] = {}
    for owner, state in pack.own_parts:
        phrases = pack.phrases_of(state, owner)
        said = normalise_text(phrases[0])
        if said not in first_said and not taken & {normalise_text(phrase) for phrase in phrases}:
            first_said.add(said)
            others[f"{owner.name}={state.name}" if state.name in others else state.name] = phrases
    if not others:
        labels = {item.entity.label for item in pack.characters if item.entity is not None and item.entity.label != entity.label}
        named = {label: (f"the {label} of {whole}",) for label in sorted(labels)}
        others = {label: phrases for label, phrases in named.items() if normalise_text(phrases[0]) not in taken}
    others["host"] = pack.host_phrases
    return Concept(
        own,
        tuple(others.values()),
        name=f"{pack.name}: {entity.label}",
        contrast_names=tuple(others),
        templates=pack.host_templates,
        metadata={"pack": pack.name, "entity": {"label": entity.label, "id": entity.id}},
    )
