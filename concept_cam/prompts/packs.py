"""Trait packs: plain YAML vocabularies of traits, each a target with its natural contrasts.

A pack has a host (``fish``) and *characters* (``caudal_fin_shape``); a character has an entity and *states* (``forked``, ``rounded`` ...);
a state has phrases and a quality. Entity + Quality is the Phenoscape convention (Mabee et al. 2007). :func:`load` turns packs into
:class:`~concept_cam.core.concept.Concept` objects: each state is a target, by default against its sibling states.

Torch-free, but for :func:`separability`, which asks a model.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from concept_cam.core.concept import Concept, Where
from concept_cam.core.errors import PromptError
from concept_cam.core.names import choose, did_you_mean, normalise_text
from concept_cam.core.placing import BodyPlan
from concept_cam.prompts import schema as prompt_schema
from concept_cam.prompts.schema import host_phrase, listed

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = [
    "Character",
    "Entity",
    "Pack",
    "Quality",
    "Separability",
    "State",
    "available",
    "concepts",
    "dump",
    "load",
    "load_pack",
    "merge",
    "parse",
    "separability",
    "unique_names",
]


SEPARABILITY_LIMIT = 0.2
"""Default least distance of two embeddings of unit length; 0.2 is a cosine of 0.98."""


# ---------------------------------------------------------------------------------------------------------------- model


@dataclass(frozen=True)
class Entity:
    """What is described: the E of Entity + Quality.

    Attributes:
        label: The ontology's label, or free text where there is no id.
        id: Ontology id such as ``UBERON:4000164``.
        nouns: Other nouns by which phrases name it (``tail``).
    """

    label: str
    id: str | None = None
    nouns: tuple[str, ...] = ()

    def is_like(self, other: Entity) -> bool:
        """Whether both name one thing: the same id, or the same label."""
        return (self.id is not None and self.id == other.id) or self.label == other.label


@dataclass(frozen=True)
class Quality:
    """How it is: the Q of Entity + Quality.

    Attributes:
        label: The ontology's label.
        id: Ontology id such as ``PATO:0002234``.
        match: ``exact``, ``synonym`` or ``close``: how well the term fits the state.
    """

    label: str
    id: str | None = None
    match: str | None = None


@dataclass(frozen=True)
class State:
    """One answer to a character's question.

    Attributes:
        name: Key in the file (``forked``).
        phrases: Synonyms that a caption would use, each with its own article; empty only for ``absent``.
        quality: Its quality term.
        entity: The part itself, where the character's kind is ``part``.
        contrasts: Named contrasts (``state``, ``character=state``, ``host``, ``background``); empty for the siblings and what lies around.
        aliases: Data set or vocabulary -> the name there.
        notes: Remarks for people.
        of: The part whose place is meant, ``state`` or ``character=state``; it is asked in that part's words.
        where: A key of :data:`concept_cam.core.placing.PLACES`; empty for wherever it is.
    """

    name: str
    phrases: tuple[str, ...] = ()
    quality: Quality | None = None
    entity: Entity | None = None
    contrasts: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: str | None = None
    of: str = ""
    where: str = ""

    def position(self, phrase: str) -> int | None:
        """Returns the position of a phrase among its own, ``None`` where it has no such phrase."""
        key = normalise_text(phrase)
        return next((index for index, own in enumerate(self.phrases) if normalise_text(own) == key), None)


@dataclass(frozen=True)
class Character:
    """One question about the host, with its answers.

    Attributes:
        name: Key in the file (``caudal_fin_shape``).
        kind: A key of :data:`concept_cam.prompts.schema.CHARACTER_KINDS`.
        states: The answers, in the order of the file.
        entity: What is described; ``None`` only for kind ``part``.
        templates: Prompts of this character; empty for the pack's.
        aliases: Data set or vocabulary -> the name there.
        notes: Remarks for people.
        around: What lies around what is described, a key of :data:`concept_cam.prompts.schema.AROUND`.
        elsewhere: Names of parts that lie elsewhere on the host, and are set against the maps of its states as well.
        needs: Name of a character of kind presence; where that is called absent, nothing is called of this one. Empty for none.
    """

    name: str
    kind: str
    states: tuple[State, ...]
    entity: Entity | None = None
    templates: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: str | None = None
    around: str = "both"
    elsewhere: tuple[str, ...] = ()
    needs: str = ""

    def state(self, name: str) -> State:
        """Returns the state of that name.

        Raises:
            PromptError: If there is none; names the nearest.
        """
        return choose(name, {state.name: state for state in self.states}, f"state of {self.name!r}:", PromptError)


@dataclass(frozen=True)
class Pack:
    """A trait pack.

    Attributes:
        name: Short name (``fish``).
        host: Common noun of the whole (``fish``).
        characters: The questions, in the order of the file.
        title: Name for people.
        version: Version of the content.
        templates: Prompts for what the host has.
        host_templates: Prompts for kinds ``presence`` and ``part``.
        notes: Remarks for people.
        frame: Which parts tell how the host lies; empty where the pack does not say.
    """

    name: str
    host: str
    characters: tuple[Character, ...]
    title: str | None = None
    version: str | None = None
    templates: tuple[str, ...] = ()
    host_templates: tuple[str, ...] = ()
    notes: str | None = None
    frame: BodyPlan = field(default_factory=BodyPlan)

    def __post_init__(self) -> None:
        default, host_default = _default_templates(self.host)
        object.__setattr__(self, "templates", tuple(self.templates) or default)
        object.__setattr__(self, "host_templates", tuple(self.host_templates) or host_default)

    def character(self, name: str) -> Character:
        """Returns the character of that name.

        Raises:
            PromptError: If there is none; names the nearest.
        """
        return choose(name, {item.name: item for item in self.characters}, f"character of {self.name!r}:", PromptError)

    @property
    def host_phrases(self) -> tuple[str, ...]:
        """The host alone: the phrase of ``absent`` and of the contrast ``host``."""
        return (host_phrase(self.host),)

    @property
    def background_phrases(self) -> tuple[str, ...]:
        """What is around the host: the phrase of the contrast ``background``."""
        return (prompt_schema.BACKGROUND,)

    @property
    def parts(self) -> dict[str, tuple[Character, State]]:
        """The parts of :attr:`own_parts` by name; the first of a name counts."""
        found: dict[str, tuple[Character, State]] = {}
        for owner, state in self.own_parts:
            found.setdefault(state.name, (owner, state))
        return found

    @property
    def own_parts(self) -> list[tuple[Character, State]]:
        """The parts that have phrases of their own, each with its character, in order; a name may be there twice."""
        return [(owner, state) for owner in self.characters if owner.kind == "part" for state in owner.states if not state.where]

    def part(self, name: str) -> tuple[Character, State]:
        """Returns the part of that name, as in :attr:`parts`.

        Raises:
            PromptError: If there is none; names the nearest.
        """
        return choose(name, self.parts, f"part of {self.name!r}:", PromptError)

    def part_told_of(self, character: Character) -> tuple[Character, State] | None:
        """Returns the part that the states of a character are told of, with the character that it is in: the first that has its entity.

        Returns:
            ``None`` where the pack has no such part, and where the character is itself one of parts.
        """
        entity = character.entity
        if entity is None:
            return None
        told_of = ((owner, state) for owner, state in self.own_parts if state.entity is not None and entity.is_like(state.entity))
        return next(told_of, None)

    def needed_by(self, character: Character) -> Character | None:
        """Returns the presence without which nothing is called of a character; ``None`` where it needs none.

        Raises:
            PromptError: There is no such character, it is no presence, or it needs another one; files are checked when they are read.
        """
        if not character.needs:
            return None
        if not isinstance(character.needs, str):
            raise PromptError(f"needs of {character.name!r} must be text, received {character.needs!r} ({type(character.needs).__name__}).")
        found = self.character(character.needs)
        if found.kind != "presence" or found.needs:
            what = f"is of kind {found.kind}" if found.kind != "presence" else f"needs {found.needs!r} itself"
            raise PromptError(f"{character.name!r} needs {found.name!r}, which {what}: expected a presence that needs none.")
        return found

    def phrases_around(self, reference: str) -> tuple[str, ...]:
        """The phrases of the host, of the background, or of a part that lies elsewhere.

        Raises:
            PromptError: If there is no such part; names the nearest.
        """
        if reference in prompt_schema.REFERENCES:
            return self.host_phrases if reference == "host" else self.background_phrases
        return self.phrases_of(self.part(reference)[1])

    def prompts_around(self, reference: str) -> tuple[str, ...]:
        """The same in the templates that it is asked in itself: what the map of a state is set against, see :func:`concepts`."""
        known = reference in prompt_schema.REFERENCES
        templates = self.host_templates if known else self.templates_of(self.part(reference)[0])
        return tuple(template.replace("{}", phrase) for template in templates for phrase in self.phrases_around(reference))

    def templates_of(self, character: Character) -> tuple[str, ...]:
        """Returns the templates that a character's phrases are put into."""
        return character.templates or (self.host_templates if character.kind in prompt_schema.HOST_KINDS else self.templates)

    def phrases_of(self, state: State, character: Character | None = None) -> tuple[str, ...]:
        """Returns a state's phrases; for ``absent``, which has none of its own, the host's, and for a place those of its part.

        Args:
            state: The state.
            character: Whose it is; by default the first that has it.
        """
        if state.where:
            owner, _, name = state.of.rpartition("=")
            own = self.character(owner) if owner else character or next(item for item in self.characters if state in item.states)
            return own.state(name).phrases
        return state.phrases or self.host_phrases


def _default_templates(host: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    whole = host_phrase(host)
    return (f"a photo of {whole} with {{}}", f"a close-up photo of {whole} with {{}}", "{}"), (
        "a photo of {}",
        "{}",
    )


# -------------------------------------------------------------------------------------------------------------- reading


def _packs_folder() -> Path:
    """Returns the folder of the shipped packs: inside the installed package, or the repository's for an editable install."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_packs"
    return installed if installed.is_dir() else package.parent / "prompts"


def available() -> dict[str, Path]:
    """Returns the packs that come with the package: name -> file, sorted."""
    return {path.stem: path for path in sorted(_packs_folder().glob("*.yaml"))}


def checked(document: prompt_schema.Document) -> tuple[Pack | None, list[prompt_schema.Problem]]:
    """Makes the pack of a document, or finds everything that keeps it from being one.

    Returns:
        The pack and no problem, or no pack and its errors in the order of the file.
    """
    found = prompt_schema.problems(document)
    if found:
        return None, found
    data = document.data
    pack = Pack(
        name=data["pack"],
        host=data["host"],
        characters=tuple(_character(name, value) for name, value in data["characters"].items()),
        title=data.get("title"),
        version=data.get("version"),
        templates=tuple(listed(data.get("templates"))),
        host_templates=tuple(listed(data.get("host_templates"))),
        notes=data.get("notes"),
        frame=_frame(data.get("frame") or {}),
    )
    clashes = {document.item(path, index): message for path, index, message in reversed(list(_clashes(pack)))}
    found = [document.problem("error", "contrast", message, path) for path, message in clashes.items()]
    return (None if found else pack), sorted(found, key=lambda problem: (problem.line, problem.column))


def from_document(document: prompt_schema.Document) -> Pack:
    """Makes the pack of a document.

    Raises:
        PromptError: The document is not a pack; all its problems are named.
    """
    pack, found = checked(document)
    if pack is None:
        shown = "\n".join(f"  {problem}" for problem in found[:20])
        more = f"\n  ... and {len(found) - 20} more" if len(found) > 20 else ""
        raise PromptError(f"{document.source} is not a trait pack:\n{shown}{more}")
    return pack


def _frame(value: Mapping[str, Any]) -> BodyPlan:
    groups = {key: tuple(listed(entry)) for key, entry in value.items() if key != "view"}
    return BodyPlan(view=value.get("view", ""), **groups)


def _entity(value: Mapping[str, Any] | None) -> Entity | None:
    return None if value is None else Entity(value["label"], value.get("id"), tuple(listed(value.get("nouns"))))


def _character(name: str, value: Mapping[str, Any]) -> Character:
    states = [_state(key, state or {}) for key, state in value["states"].items()]
    if value["kind"] == "presence" and len(states) == 1:
        states.append(State("absent"))
    return Character(
        name=name,
        kind=value["kind"],
        states=tuple(states),
        entity=_entity(value.get("entity")),
        templates=tuple(listed(value.get("templates"))),
        aliases=dict(value.get("aliases", {})),
        notes=value.get("notes"),
        around=value.get("around", "both"),
        elsewhere=tuple(listed(value.get("elsewhere"))),
        needs=value.get("needs", ""),
    )


def _state(name: str, value: Mapping[str, Any]) -> State:
    quality = value.get("quality")
    return State(
        name=name,
        phrases=tuple(listed(value.get("phrases"))),
        quality=None if quality is None else Quality(quality["label"], quality.get("id"), quality.get("match")),
        entity=_entity(value.get("entity")),
        contrasts=tuple(listed(value.get("contrasts"))),
        aliases=dict(value.get("aliases", {})),
        notes=value.get("notes"),
        of=value.get("of", ""),
        where=value.get("where", ""),
    )


def parse(text: str, source: str = "<text>") -> Pack:
    """Reads a trait pack from YAML text.

    Args:
        text: YAML.
        source: Name for messages.

    Returns:
        The pack.

    Raises:
        PromptError: Listing every error with line and column.
    """
    return from_document(prompt_schema.read(text, source))


def load_pack(source: str | Path | Mapping[str, Any] | Pack) -> Pack:
    """Loads one whole pack.

    Args:
        source: Name of a shipped pack, path of a YAML file, a mapping with the same keys, or a pack.

    Returns:
        The pack.

    Raises:
        PromptError: If there is no such pack (the nearest name is suggested), it has errors (all listed, with line and column), or the
            source is something else.
    """
    if isinstance(source, Pack):
        return source
    if not isinstance(source, str | Path | Mapping):
        raise _no_pack(source)
    if isinstance(source, Mapping):
        # Through YAML, so that a mapping is checked by the same rules; places in that text would mean nothing to the caller.
        document = prompt_schema.read(_to_yaml(source), "the given mapping")
        return from_document(replace(document, keys={}, values={}))
    packs = available()
    if isinstance(source, str) and source in packs:
        source = packs[source]
    path = Path(source)
    if not path.is_file():
        hint = did_you_mean(str(source), packs)
        raise PromptError(f"no trait pack {str(source)!r}: neither a shipped pack ({', '.join(packs)}) nor a YAML file.{hint}")
    try:
        document = prompt_schema.read_file(path)
    except OSError as error:
        raise PromptError(f"cannot read the trait pack {str(path)!r}: {error.strerror}.") from error
    return from_document(document)


def _no_pack(received: object) -> PromptError:
    return PromptError(
        f"expected a trait pack such as 'fish', a file or several of these, received {reprlib.repr(received)} ({type(received).__name__})."
    )


def split_pack_spec(spec: str) -> tuple[str, str | None, str | None]:
    """Splits ``PACK[:character[=state]]``, where PACK is a name or a path (drive letters and colons in paths are respected).

    Raises:
        PromptError: If the part after the colon is empty or has more than one ``=``.
    """
    if spec in available() or Path(spec).is_file():
        return spec, None, None
    head, colon, tail = spec.rpartition(":")
    if not colon or re.search(r"[\\/]|\.ya?ml$", tail):
        return spec, None, None
    character, equals, state = tail.partition("=")
    if not head or not character or (equals and not state) or "=" in state:
        raise PromptError(
            f"cannot read {spec!r}: expected PACK, PACK:character or PACK:character=state, as in fish:caudal_fin_shape=forked."
        )
    return head, character, state or None


# -------------------------------------------------------------------------------------------------------------- writing


def to_dict(pack: Pack) -> dict[str, Any]:
    """Returns a pack as plain data with the file's keys; what is empty or a default is left out."""

    def entity(value: Entity | None) -> dict[str, Any] | None:
        return None if value is None else _kept(label=value.label, id=value.id, nouns=list(value.nouns))

    def state(value: State) -> dict[str, Any]:
        quality = value.quality
        return _kept(
            phrases=list(value.phrases),
            quality=quality and _kept(label=quality.label, id=quality.id, match=quality.match),
            entity=entity(value.entity),
            contrasts=list(value.contrasts),
            aliases=dict(value.aliases),
            notes=value.notes,
            of=value.of or None,
            where=value.where or None,
        )

    def character(value: Character) -> dict[str, Any]:
        return _kept(
            kind=value.kind,
            entity=entity(value.entity),
            around=None if value.around == "both" else value.around,
            elsewhere=list(value.elsewhere),
            needs=value.needs or None,
            templates=list(value.templates),
            aliases=dict(value.aliases),
            notes=value.notes,
        ) | {"states": {item.name: state(item) for item in value.states}}

    default, host_default = _default_templates(pack.host)
    head = _kept(
        schema=prompt_schema.PACK_SCHEMA_VERSION,
        pack=pack.name,
        title=pack.title,
        host=pack.host,
        version=pack.version,
        templates=list(pack.templates) if pack.templates != default else [],
        host_templates=list(pack.host_templates) if pack.host_templates != host_default else [],
        frame=_kept(**{key: entry if key == "view" else list(entry) for key, entry in vars(pack.frame).items()}),
        notes=pack.notes,
    )
    return head | {"characters": {item.name: character(item) for item in pack.characters}}


def _kept(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", [], {}, ())}


def _to_yaml(data: Mapping[str, Any]) -> str:
    try:
        return yaml.safe_dump(_plain(data), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    except yaml.YAMLError as error:
        raise PromptError(f"the trait pack holds a value that is not plain data: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def dump(pack: Pack) -> str:
    """Returns a pack as YAML; ``parse(dump(pack)) == pack``. Comments of the file it came from are lost."""
    return _to_yaml(to_dict(pack))


# ------------------------------------------------------------------------------------------------------------- merging


def merge(packs: Iterable[Pack], name: str | None = None) -> Pack:
    """Merges packs about one host into one: characters side by side, states of characters of the same name together.

    Args:
        packs: At least one pack, all with the same host. The first gives title, version, templates and the order.
        name: Name of the result; by default the first pack's.

    Returns:
        The merged pack, with the frame of the packs that have one. What is asked stays as it was, word by word: a character from a pack
        with other templates carries its own, and states are set against what they were set against; characters of the same name have each
        other's states for siblings too, and states whose pack has no part of their entity are told of another pack's.

    Raises:
        PromptError: If the hosts differ (load such packs side by side with :func:`load` instead), the same character or state is defined in
            two ways, or a pack would no longer mean what it means: two have a part of one name that one of them names in ``elsewhere`` or
            in its frame, or parts of one entity that states of one are told of; other words for the host, or other frames.
    """
    if isinstance(packs, (str, bytes, Pack)) or not isinstance(packs, Iterable):
        raise PromptError(f"expected a list of packs, as load_pack returns them, received {reprlib.repr(packs)} ({type(packs).__name__}).")
    packs = list(packs)
    for pack in packs:
        if not isinstance(pack, Pack):
            raise PromptError(f"expected packs, as load_pack returns them, received {reprlib.repr(pack)} ({type(pack).__name__}).")
    if not packs:
        raise PromptError("nothing to merge: give at least one trait pack.")
    base = packs[0]
    merged: dict[str, Character] = {}
    for pack in packs:
        if pack.host != base.host:
            raise PromptError(f"cannot merge packs about {base.host!r} and {pack.host!r}: {_side_by_side((base, pack))}.")
        for character in pack.characters:
            if not character.templates and pack.templates_of(character) != base.templates_of(character):
                character = replace(character, templates=pack.templates_of(character))
            known = merged.get(character.name)
            merged[character.name] = character if known is None else _merge_character(known, character)
    frame = next((pack.frame for pack in packs if pack.frame != BodyPlan()), base.frame)
    for pack in packs:
        placed = any(state.where for character in pack.characters for state in character.states)
        if pack.frame != frame and (placed or pack.frame != BodyPlan()):
            raise _unmergeable(packs, f"the frame of {pack.name!r} is another one, and places are told by it; give them one frame")
    result = replace(base, name=name or base.name, characters=tuple(merged.values()), frame=frame)
    # The union of states may break a rule that each pack kept, such as a phrase shared by siblings.
    result = from_document(prompt_schema.read(dump(result), f"the merged pack {result.name!r}"))
    for pack in packs:
        if changed := _changed(pack, result):
            raise _unmergeable(packs, changed)
    return result


def _unmergeable(packs: Sequence[Pack], reason: str) -> PromptError:
    shown = " and ".join(repr(pack.name) for pack in packs)
    return PromptError(f"cannot merge the packs {shown}: {reason}, or {_side_by_side(packs)}.")


def _side_by_side(packs: Sequence[Pack]) -> str:
    return f"load them side by side, load([{', '.join(repr(pack.name) for pack in packs)}])"


def _changed(pack: Pack, merged: Pack) -> str:
    """What a pack would no longer mean in the merged one, and what to do about it; empty where it stays as it is.

    Targets and rivals cannot change: a state is what it is, in templates that its character carries. What is looked up by name in the whole
    pack can.
    """
    for part in pack.frame.parts:
        if pack.prompts_around(part) != merged.prompts_around(part):
            return _renamed(pack, part, "its frame")
    for character in pack.characters:
        told_of, now = (owner.part_told_of(character) for owner in (pack, merged))
        if told_of is not None and now is not None and (told_of[0].name, told_of[1]) != (now[0].name, now[1]):
            return (
                f"{character.name!r} of {pack.name!r} is told of its part {told_of[1].name!r}, and would be told of another pack's part "
                f"{now[1].name!r}, which has the same entity; leave one of the two parts out"
            )
        for state in character.states:
            before = _concept(pack, character, state)
            after = _concept(merged, merged.character(character.name), state)
            old, new = (concept.contrast_prompts[len(concept.rivals) :] for concept in (before, after))
            if len(old) != len(new):
                return f"another state would be called like what lies around {before.name!r}; say one of them in other words"
            for name, prompts, others in zip(before.surrounding_names, old, new, strict=True):
                if prompts != others and name in prompt_schema.REFERENCES:
                    return f"{before.name!r} would be set against the {name} in other words; give them the same host_templates"
                if prompts != others:
                    return _renamed(pack, name, f"'elsewhere' of {character.name!r}")
    return ""


def _renamed(pack: Pack, part: str, where: str) -> str:
    return f"more than one has a part {part!r}, which {pack.name!r} names in {where}; rename it in one of them"


def _merge_character(first: Character, second: Character) -> Character:
    if replace(first, states=()) != replace(second, states=()):
        raise PromptError(
            f"the character {first.name!r} is defined in two ways: kind, entity, around, elsewhere, needs, templates, aliases and "
            "notes must agree."
        )
    states = {state.name: state for state in first.states}
    for state in second.states:
        if states.setdefault(state.name, state) != state:
            raise PromptError(f"the state '{first.name}={state.name}' is defined in two ways; rename one.")
    return replace(first, states=tuple(states.values()))


# ------------------------------------------------------------------------------------------------------------- concepts


def concepts(pack: Pack, character: str | None = None, state: str | None = None) -> list[Concept]:
    """Turns a pack into concepts, one per state.

    Contrasts are the states that the state names, else its siblings; a ``part`` also contrasts with the host. The map of any other state
    is set against what lies around as well, the host and the background (:attr:`Concept.surroundings`): against its siblings alone it
    would keep off all that they share, the part itself. Parts that lie elsewhere, where the character names them, are among them. A state
    that names its contrasts has those, and of host and background what it names. The
    reserved state ``absent`` is a contrast only, since what is absent is nowhere; it becomes a concept when selected by name.

    Args:
        pack: The pack.
        character: Only this character.
        state: Only this state of it.

    Returns:
        Concepts named ``character=state`` with metadata ``pack``, ``version``, ``host``, ``character``, ``state``, ``kind``, ``entity``,
        ``quality``, ``aliases`` (the last three as plain mappings) and, for kind ``part``, ``part``.

    Raises:
        PromptError: If the character or state does not exist; names the nearest.
    """
    if character is None:
        chosen = list(pack.characters)
    else:
        chosen = [pack.character(character)]
    result = []
    for item in chosen:
        states = item.states if state is None else (item.state(state),)
        result += [_concept(pack, item, each) for each in states if state is not None or not _is_absent(item, each)]
    return result


def _is_absent(character: Character, state: State) -> bool:
    return character.kind == "presence" and state.name == "absent"


def _placed(pack: Pack, character: Character, state: State) -> Concept:
    """The concept of a part whose place is named: the part's own, with what tells the place."""
    owner, _, name = state.of.rpartition("=")
    own = pack.character(owner) if owner else character
    part = _concept(pack, own, own.state(name))
    metadata = {**part.metadata, "character": character.name, "state": state.name, "part": state.name, "where": state.where, "of": name}
    if state.aliases:
        metadata["aliases"] = dict(state.aliases)
    return replace(part, name=f"{character.name}={state.name}", metadata=metadata, where=where_of(pack, state.where, name))


def where_of(pack: Pack, place: str, part: str) -> Where:
    """Returns how a place of a pack's part is told.

    Args:
        pack: The pack, whose frame says which parts tell how the host lies.
        place: A key of :data:`concept_cam.core.placing.PLACES`.
        part: Name of the part.
    """
    parts = pack.parts
    return Where(place, part, pack.frame, tuple(_concept(pack, *parts[name]) for name in pack.frame.parts))


def _concept(pack: Pack, character: Character, state: State) -> Concept:
    if state.where:
        return _placed(pack, character, state)
    asked = _asked(pack, character, state)
    around = asked.around
    entity = state.entity or character.entity
    quality = state.quality
    metadata = _kept(
        pack=pack.name,
        version=pack.version,
        host=pack.host,
        character=character.name,
        state=state.name,
        kind=character.kind,
        entity=entity and _kept(label=entity.label, id=entity.id),
        quality=quality and _kept(label=quality.label, id=quality.id, match=quality.match),
        part=state.name if character.kind == "part" else None,
        aliases={**character.aliases, **state.aliases},
    )
    return Concept(
        target=asked.target,
        contrasts=(*asked.rivals.values(), *map(pack.prompts_around, around)),
        name=f"{character.name}={state.name}",
        # A part may have the name of a sibling: a spot on the head, set against the head.
        contrast_names=(*asked.rivals, *(f"{pack.part(name)[0].name}={name}" if name in asked.rivals else name for name in around)),
        templates=pack.templates_of(character),
        metadata=metadata,
        surroundings=len(around),
    )


@dataclass(frozen=True)
class LeftOut:
    """A surrounding that a state is not set against, for something nearer to it is called the same.

    Attributes:
        name: The surrounding: ``host``, ``background`` or a part.
        text: The words that it shares.
        owner: Whose words these are: the name of a state, as its rival is named, or of a surrounding.
    """

    name: str
    text: str
    owner: str


@dataclass(frozen=True)
class _Asked:
    """A state and what it is set against, in words.

    Attributes:
        target: Its phrases.
        rivals: The phrases of its rivals, by name.
        around: Its surroundings: ``host``, ``background``, parts.
        left_out: The surroundings that it is not set against.
    """

    target: tuple[str, ...]
    rivals: Mapping[str, tuple[str, ...]]
    around: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def _asked(pack: Pack, character: Character, state: State) -> _Asked:
    names, around = _contrasts(character, state)

    def phrases(reference: str) -> tuple[str, ...]:
        if reference in prompt_schema.REFERENCES:
            return pack.phrases_around(reference)
        owner, _, name = reference.rpartition("=")
        own = pack.character(owner) if owner else character
        return pack.phrases_of(own.state(name), own)

    target, rivals = pack.phrases_of(state, character), {name: phrases(name) for name in names}
    # A pack may call a state what another calls the host: surroundings are called otherwise than the states and each other.
    spoken: dict[str, str] = {}
    for name, texts in ((state.name, target), *rivals.items()):
        spoken = dict.fromkeys(map(normalise_text, texts), name) | spoken
    kept: list[str] = []
    left_out: list[LeftOut] = []
    for name in around:
        own = {normalise_text(text): text for text in (*pack.phrases_around(name), *pack.prompts_around(name))}
        shared = next((key for key in own if key in spoken), None)
        if shared is None:
            kept.append(name)
            spoken |= dict.fromkeys(own, name)
        else:
            left_out.append(LeftOut(name, own[shared], spoken[shared]))
    return _Asked(target, rivals, tuple(kept), tuple(left_out))


def left_out(pack: Pack, character: Character, state: State) -> tuple[LeftOut, ...]:
    """Returns the surroundings that a state names, or its character, and that it is not set against all the same."""
    return () if state.where else _asked(pack, character, state).left_out


def _clashes(pack: Pack) -> Iterator[tuple[prompt_schema.Path_, int, str]]:
    """What no :class:`Concept` can be made of: a contrast that is called like its state, or like another contrast of it.

    Yields:
        The path of the phrases or contrasts, the position among them, and what is wrong.
    """
    for character in pack.characters:
        for state in character.states:
            if state.where:
                continue
            asked = _asked(pack, character, state)
            own = set(map(normalise_text, asked.target))
            firsts: dict[str, str] = {}
            for name, phrases in asked.rivals.items():
                shared = next((phrase for phrase in phrases if normalise_text(phrase) in own), None)
                other = firsts.setdefault(normalise_text(phrases[0]), name)
                if shared is not None:
                    yield _clash(character, state, name, shared, "")
                elif other != name:
                    yield _clash(character, state, name, phrases[0], other)
            for left in asked.left_out if state.contrasts else ():
                if left.owner == state.name and left.text in pack.phrases_around(left.name):
                    yield _clash(character, state, left.name, left.text, "")


def _clash(character: Character, state: State, name: str, phrase: str, other: str) -> tuple[prompt_schema.Path_, int, str]:
    """A clash of a state with the rival of that name, or of this rival with the ``other`` one, and the place of what is to be changed."""
    states = ("characters", character.name, "states")
    if state.contrasts:
        against = f"the contrast {other!r}" if other else "this state"
        message = f"the contrast {name!r} shares the phrase {phrase!r} with {against}; name another, or say it in other words."
        return (*states, state.name, "contrasts"), state.contrasts.index(name), message
    # Siblings do not share phrases, so that one of the two is the host: as it is, or as the phrase of `absent`.
    pair = (item for item in (state, *character.states) if item.name in (state.name, name, other))
    told, index = next((item, index) for item in pair if (index := item.position(phrase)) is not None)
    message = f"{told.phrases[index]!r} is what the host is called, and {state.name!r} is set against it; say what tells them apart."
    return (*states, told.name, "phrases"), index, message


def _contrasts(character: Character, state: State) -> tuple[list[str], list[str]]:
    """The rivals of a state, and the surroundings."""
    siblings = [sibling.name for sibling in character.states if sibling.name != state.name and not sibling.where]
    if character.kind in prompt_schema.HOST_KINDS:
        return list(state.contrasts) or siblings + (["host"] if character.kind == "part" else []), []
    if not state.contrasts:
        return siblings, [*(name for name in prompt_schema.REFERENCES if character.around in (name, "both")), *character.elsewhere]
    rivals = [name for name in state.contrasts if name not in prompt_schema.REFERENCES]
    # Told from the host alone, or from the background, a state has these for rivals: without any there would be no probability.
    return (rivals, [name for name in state.contrasts if name not in rivals]) if rivals else (list(state.contrasts), [])


def load(
    spec: str | Path | Mapping[str, Any] | Pack | Iterable[str | Path | Mapping[str, Any] | Pack],
) -> list[Concept]:
    """Loads concepts from trait packs.

    Args:
        spec: ``"fish"``, ``"fish:caudal_fin_shape"``, ``"fish:caudal_fin_shape=forked"``, a YAML file (with the same selectors), a mapping
            with a file's keys, a :class:`Pack`, or several of these.

    Returns:
        Concepts in the order given, without repeats. Where two packs use one name (``parts=eye``), the pack is put before it
        (``bird:parts=eye``).

    Raises:
        PromptError: If a pack, character or state is unknown (the nearest is named) or a pack has errors (all listed with their place).

    Example:
        >>> [concept.name for concept in load("fish:dorsal_fin_number")]
        ['dorsal_fin_number=single', 'dorsal_fin_number=double']
    """
    single = isinstance(spec, str | Path | Mapping | Pack)
    if not single and (isinstance(spec, bytes) or not isinstance(spec, Iterable)):
        raise _no_pack(spec)
    specs: list[Any] = [spec] if single else list(spec)  # type: ignore[arg-type]
    result: list[Concept] = []
    packs: dict[str, Pack] = {}  # a file named by several specs is read once
    for item in specs:
        source, character, state = split_pack_spec(item) if isinstance(item, str) else (item, None, None)
        if isinstance(source, str):
            source = packs[source] if source in packs else packs.setdefault(source, load_pack(source))
        result += [concept for concept in concepts(load_pack(source), character, state) if concept not in result]
    return unique_names(result)


def unique_names(concepts: Sequence[Concept]) -> list[Concept]:
    """Returns the concepts with the pack put before every name that several of them share.

    Raises:
        PromptError: If two concepts of one pack still share a name.
    """
    counts: dict[str, int] = {}
    for concept in concepts:
        counts[concept.name] = counts.get(concept.name, 0) + 1
    result = [
        replace(concept, name=f"{concept.metadata['pack']}:{concept.name}")
        if counts[concept.name] > 1 and "pack" in concept.metadata
        else concept
        for concept in concepts
    ]
    names = [concept.name for concept in result]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PromptError(f"two different concepts are called {twice[0]!r}: rename the pack, character or state of one.")
    return result


# --------------------------------------------------------------------------------------------------------- separability


@dataclass(frozen=True)
class Separability:
    """Which targets and contrasts a model can tell apart, judged from its text tower alone.

    Attributes:
        names: Name of each distinct group of prompts (targets and contrasts), ``G`` of them.
        cosine: float64 [G, G], cosine of their mean embeddings, -1..1.
        direction_norm: Concept name -> length of its direction ``t+ - mean_j t_j`` between embeddings of unit length, 0..2
            (``nan`` where a concept has no contrast).
        limit: The least distance ``|t+ - t_j|`` under which a pair is warned of.
        warnings: One text per pair, and per whole direction, under the limit.
    """

    names: tuple[str, ...]
    cosine: np.ndarray
    direction_norm: Mapping[str, float]
    limit: float
    warnings: tuple[str, ...]


def separability(concepts: Concept | Iterable[Concept], localizer: Localizer, limit: float = SEPARABILITY_LIMIT) -> Separability:
    """Tells before any picture is scored which contrasts a model's text tower can tell apart at all.

    A map is a projection on ``t+ - t_j``: where two embeddings nearly coincide, the direction is made of rounding and chance, and so is the
    map.

    Args:
        concepts: One or more concepts.
        localizer: Anything with ``embed_texts(groups) -> [G, D]``, unit vectors.
        limit: Least distance of a target from each of its contrasts and from their mean; the distance of a pair is ``sqrt(2 - 2 cos)``.

    Returns:
        Cosines, norms and warnings.

    Raises:
        PromptError: No concept is given, or something else than concepts, such as the spec of a pack.
    """
    given = (concepts,) if isinstance(concepts, Concept | str) or not isinstance(concepts, Iterable) else tuple(concepts)
    odd = [item for item in given if not isinstance(item, Concept)]
    if odd:
        raise PromptError(
            f"expected concepts, received {reprlib.repr(odd[0])} ({type(odd[0]).__name__}): give what prompts.load() returns, such as "
            "prompts.load('fish:parts')."
        )
    concepts = given
    if not concepts:
        raise PromptError("nothing to compare: give at least one concept.")
    groups: dict[tuple[str, ...], str] = {}
    for concept in concepts:
        groups.setdefault(concept.target_prompts, concept.name)
    for concept in concepts:
        for prompts, name in zip(concept.contrast_prompts, concept.contrast_names, strict=True):
            groups.setdefault(prompts, name)
    vectors = localizer.embed_texts(list(groups))
    embeddings = np.asarray(vectors.detach().cpu() if hasattr(vectors, "detach") else vectors, dtype=np.float64)
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    place = {prompts: index for index, prompts in enumerate(groups)}
    warnings: list[str] = []
    norms: dict[str, float] = {}
    for concept in concepts:
        target = embeddings[place[concept.target_prompts]]
        others = embeddings[[place[prompts] for prompts in concept.contrast_prompts]]
        norms[concept.name] = float(np.linalg.norm(target - others.mean(axis=0))) if len(others) else float("nan")
        distances = np.linalg.norm(others - target, axis=1)
        for name, distance in zip(concept.contrast_names, distances, strict=True):
            if distance < limit:
                warnings.append(
                    f"{concept.name} and its contrast {name} are nearly the same to this model "
                    f"(distance {distance:.3f} < {limit:g}, cosine {1 - distance**2 / 2:.4f}): their map would be noise."
                )
        if norms[concept.name] < limit:
            warnings.append(
                f"{concept.name}: its direction away from all contrasts nearly vanishes (norm {norms[concept.name]:.3f} < {limit:g})."
            )
    return Separability(tuple(groups.values()), np.clip(embeddings @ embeddings.T, -1.0, 1.0), norms, limit, tuple(warnings))
