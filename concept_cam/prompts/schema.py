"""What a trait pack file may hold: one table of keys, read by the checker and written out as a JSON Schema for editors.

:func:`read` turns a file's text into a :class:`Document` (plain data that remembers line and column), :func:`problems` finds everything
that keeps a document from being a trait pack. Torch-free.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from concept_cam.core.names import nearest_names, normalise_text, visible
from concept_cam.core.placing import BODY_VIEWS, PLACES, SIDES

__all__ = [
    "CHARACTER_KINDS",
    "PACK_LEVELS",
    "MATCHES",
    "Document",
    "Field",
    "Problem",
    "host_phrase",
    "json_schema",
    "problems",
    "read",
    "read_file",
]

PACK_SCHEMA_VERSION = 1
CHARACTER_KINDS = {
    "shape": "one of several forms of a part",
    "pattern": "how marks, textures or parts are arranged on it",
    "colour": "one of several colours of a part",
    "presence": "present, or absent: a state whose phrase is the host alone",
    "count": "how many there are",
    "part": "where a part is; all states are there at once, each against its siblings and the host",
}
HOST_KINDS = ("presence", "part")
"""Kinds that contrast with the host itself, so that their phrases name it and their templates fit both."""
MATCHES = {
    "exact": "the state's name is the term's label",
    "synonym": "the state's name is an exact synonym of the term",
    "close": "the nearest term there is",
}
NAME = r"^[a-z][a-z0-9_]*$"
PACK_NAME = r"^[a-z0-9][a-z0-9_-]*$"
TERM_ID = r"^[A-Z][A-Za-z]*:[A-Za-z0-9_]+$"
REFERENCES = ("host", "background")
"""Contrasts that are no states: the whole organism or object, and what is around it."""
BACKGROUND = "the background"
"""What is around the host, in words."""
AROUND = {
    "both": "the host and the background",
    "host": "the host alone: of what stands out from it, such as fins and antennae",
    "background": "the background alone: of what is the whole host",
    "nothing": "neither: the siblings alone",
}
"""What lies around what a character describes, and is set against the maps of its states beside their siblings."""
RESERVED_STATES = ("present", "absent", *REFERENCES)
MAX_NODES = 100_000
PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
MERGE_TAG = "tag:yaml.org,2002:merge"

FieldType = Literal["text", "integer", "choice", "texts", "references", "object", "table", "labels"]
Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Field:
    """One key of a trait pack.

    Attributes:
        type: ``text``; ``integer``; ``choice`` (one of ``choices``); ``texts`` (a list of texts, or one text); ``references`` (likewise, to
            states); ``object`` (of level ``of``); ``table`` (name -> object of level ``of``); ``labels`` (text -> text).
        doc: What it is, in one line.
        required: Whether the key must be there.
        pattern: Regular expression for a text, or for the names of a table.
        choices: The allowed values of a choice, with their meaning.
        of: Level of the objects.
    """

    type: FieldType
    doc: str
    required: bool = False
    pattern: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    of: str = ""


PACK_LEVELS: dict[str, dict[str, Field]] = {
    "pack": {
        "schema": Field("integer", f"Version of this format: {PACK_SCHEMA_VERSION}."),
        "pack": Field("text", "Short name of the pack, as in `--traits NAME`.", True, PACK_NAME),
        "title": Field("text", "Name of the pack for people."),
        "host": Field("text", "Common noun of the whole organism or object, such as `fish`.", True),
        "version": Field("text", "Version of the pack's content, recorded with results."),
        "templates": Field("texts", "Prompts with one {} where the phrase goes, for what the host has."),
        "host_templates": Field("texts", "The same for presence and part, whose phrases name the host themselves."),
        "frame": Field("object", "Which parts tell how the host lies: left, right, front and rear are told by it.", of="frame"),
        "notes": Field("text", "Remarks for people."),
        "characters": Field("table", "The questions, each with its states.", True, NAME, of="character"),
    },
    "character": {
        "kind": Field("choice", "What sort of question it is.", True, choices=CHARACTER_KINDS),
        "entity": Field("object", "The part that is described (Entity of Entity + Quality).", of="entity"),
        "around": Field(
            "choice",
            "What lies around what is described, and is set against the maps of its states beside their siblings (both, if not given).",
            choices=AROUND,
        ),
        "elsewhere": Field(
            "texts",
            "Parts that lie elsewhere on the host, by name: set against the maps of its states as well, except those that name their "
            "contrasts.",
        ),
        "needs": Field(
            "text",
            "A character of kind presence, such as `eyespots` for their number: where that is called absent, nothing is called here.",
        ),
        "templates": Field("texts", "Prompts for this character, in place of the pack's."),
        "aliases": Field("labels", "Data set or vocabulary -> the character's name there."),
        "notes": Field("text", "Remarks for people."),
        "states": Field("table", "The answers: contrasts of each other.", True, NAME, of="state"),
    },
    "state": {
        "phrases": Field("texts", "Synonyms that a photographer's caption would use; no negations."),
        "of": Field("text", "With `where`, in place of phrases: the part meant, a state of this character or `character=state`."),
        "where": Field(
            "choice", "Which of several is meant; told by geometry, see `frame`. Only in characters of kind part.", choices=PLACES
        ),
        "quality": Field("object", "The quality (Quality of Entity + Quality).", of="quality"),
        "entity": Field("object", "The part itself; only in characters of kind part.", of="entity"),
        "contrasts": Field(
            "references", "In place of the siblings and of what lies around and elsewhere: state, character=state, host or background."
        ),
        "aliases": Field("labels", "Data set or vocabulary -> the state's name there."),
        "notes": Field("text", "Remarks for people."),
    },
    "frame": {
        "along": Field("texts", "Parts on the midline of the body, in order from the front to the rear."),
        "sides": Field("texts", "Parts of which there is one on either side, such as wings, in order from the front to the rear."),
        "upper": Field("texts", "Parts on the upper side, as seen from beside."),
        "lower": Field("texts", "Parts on the under side, as seen from beside."),
        "from_above": Field("texts", "Parts that are only seen from above."),
        "from_below": Field("texts", "Parts that are only seen from below."),
        "view": Field("choice", "How every picture shows the host, where that is known.", choices=BODY_VIEWS),
    },
    "entity": {
        "label": Field("text", "The ontology's label, or free text where there is no id.", True),
        "id": Field("text", "Ontology id such as UBERON:4000164.", pattern=TERM_ID),
        "nouns": Field("texts", "Other nouns by which phrases name the part."),
    },
    "quality": {
        "label": Field("text", "The ontology's label.", True),
        "id": Field("text", "Ontology id such as PATO:0002234.", pattern=TERM_ID),
        "match": Field("choice", "How well the term fits the state; needed with an id.", choices=MATCHES),
    },
}


# ------------------------------------------------------------------------------------------------------------- problems


@dataclass(frozen=True)
class Problem:
    """One finding about a trait pack.

    Attributes:
        severity: ``error`` (wrong) or ``warning`` (works, but should be looked at).
        code: Short stable name of the check.
        message: What was found, what was expected, what to do.
        path: Keys that lead to the place.
        source: Name of the file, or of the data where there is no file.
        line: Line from 1; 0 where the data came from no file.
        column: Column from 1, in characters; 0 where the data came from no file.
    """

    severity: Literal["error", "warning"]
    code: str
    message: str
    path: Path_ = ()
    source: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        where = ".".join(map(str, self.path))
        return f"{place}: {self.severity}: {where + ': ' if where else ''}{self.message} [{self.code}]"


@dataclass(frozen=True)
class Document:
    """Plain data with the place of every key and value.

    Attributes:
        data: Mappings, lists, texts and numbers.
        source: Name of the file or data.
        keys: Path -> (line, column) of the key that leads there.
        values: Path -> (line, column) of the value there.
        found: Problems met while reading; with an error among them ``data`` is empty.
    """

    data: Any
    source: str
    keys: Mapping[Path_, tuple[int, int]] = field(default_factory=dict)
    values: Mapping[Path_, tuple[int, int]] = field(default_factory=dict)
    found: tuple[Problem, ...] = ()

    def problem(
        self,
        severity: Literal["error", "warning"],
        code: str,
        message: str,
        path: Path_ = (),
        at_key: bool = False,
    ) -> Problem:
        """Returns a problem at the place of ``path``, or of its nearest parent that has one."""
        line, column = 0, 0
        for length in range(len(path), -1, -1):
            places = (self.keys, self.values) if at_key else (self.values, self.keys)
            mark = places[0].get(path[:length]) or places[1].get(path[:length])
            if mark:
                line, column = mark
                break
        return Problem(severity, code, message, path, self.source, line, column)

    def item(self, path: Path_, index: int) -> Path_:
        """Returns the path of one of several texts, which may be given as a list or as a single text."""
        value = self.data
        for key in path:
            value = value[key]
        return path if isinstance(value, str) else (*path, index)


# -------------------------------------------------------------------------------------------------------------- reading


class _Reader:
    """Walks composed YAML nodes into plain data, remembering places; never builds Python objects beyond YAML's safe ones."""

    def __init__(self, loader: yaml.SafeLoader, source: str) -> None:
        self.loader = loader
        self.source = source
        self.keys: dict[Path_, tuple[int, int]] = {}
        self.values: dict[Path_, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.open: list[int] = []
        self.nodes = 0

    def error(self, code: str, message: str, node: yaml.Node, path: Path_) -> None:
        mark = node.start_mark
        self.problems.append(Problem("error", code, message, path, self.source, mark.line + 1, mark.column + 1))

    def walk(self, node: yaml.Node, path: Path_) -> Any:
        self.values[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        self.nodes += 1
        if id(node) in self.open:
            self.error(
                "yaml",
                "an alias (*) refers to the part of the file that holds it; write the value out.",
                node,
                path,
            )
            return None
        if self.nodes > MAX_NODES:
            if self.nodes == MAX_NODES + 1:
                self.error(
                    "yaml",
                    f"the file unfolds to more than {MAX_NODES} values; this is not a trait pack.",
                    node,
                    path,
                )
            return None
        self.open.append(id(node))
        try:
            if isinstance(node, yaml.CollectionNode) and node.tag not in PLAIN_TAGS:
                self.error("yaml", f"the tag {node.tag!r} is not allowed: write plain data.", node, path)
                return None
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.walk(child, (*path, index)) for index, child in enumerate(node.value)]
            return self.scalar(node, path)
        finally:
            self.open.pop()

    def scalar(self, node: yaml.Node, path: Path_) -> Any:
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            reason = getattr(error, "problem", None) or str(error)
            self.error("yaml", f"{reason}; write plain text, in quotes if need be.", node, path)
            return None

    def mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        known: dict[str, str] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE_TAG:
                message = "merge keys (<<) are not read: write the keys of the other mapping out here."
                self.error("yaml", message, key_node, path)
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or not isinstance(self.scalar(key_node, path), str):
                shown = "a list or mapping" if key is None else repr(key)
                self.error("wrong-type", f"a key must be text, received {shown}; put it in quotes.", key_node, path)
                continue
            here = (*path, key)
            same = known.setdefault(normalise_text(key), key)
            if same in result:
                first = self.keys[(*path, same)][0]
                self.error(
                    "duplicate-key",
                    f"{key!r} is there twice (first in line {first}); one would be lost.",
                    key_node,
                    here,
                )
                continue
            self.keys[here] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.walk(value_node, here)
        return result


def read(text: str, source: str = "<text>") -> Document:
    """Reads YAML text safely, keeping places.

    Args:
        text: The file's content.
        source: Name for messages.

    Returns:
        The document. Broken YAML, keys given twice and unreadable values are in its ``found``; nothing is raised.
    """
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        return Document({}, source, found=(_yaml_problem(error, text, source),))
    try:
        node = loader.get_single_node()
        if node is None:
            return Document({}, source, found=(Problem("error", "empty", "the file is empty.", (), source, 1, 1),))
        reader = _Reader(loader, source)
        data = reader.walk(node, ())
        return Document(data, source, reader.keys, reader.values, tuple(reader.problems))
    except yaml.YAMLError as error:
        return Document({}, source, found=(_yaml_problem(error, text, source),))
    except RecursionError:
        return Document({}, source, found=(Problem("error", "yaml", "the file is nested too deeply.", (), source, 1, 1),))
    finally:
        loader.dispose()


def _yaml_problem(error: yaml.YAMLError, text: str, source: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        parts = [getattr(error, "context", None), getattr(error, "problem", None)]
        message = ", ".join(part for part in parts if part)
        return Problem("error", "yaml", f"not valid YAML: {message}.", (), source, mark.line + 1, mark.column + 1)
    position = getattr(error, "position", 0)
    character = getattr(error, "character", "")
    shown = f"U+{character:04X}" if isinstance(character, int) else repr(character)
    line, column = text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1
    return Problem(
        "error",
        "encoding",
        f"the character {shown} is not allowed in YAML; delete it.",
        (),
        source,
        line,
        column,
    )


def read_file(path: Path) -> Document:
    """Reads a UTF-8 YAML file; bytes that are not UTF-8 become a problem with their line and column.

    Raises:
        OSError: If the file cannot be opened.
    """
    raw = path.read_bytes()
    start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    try:
        text = raw[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[start : start + error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        byte = raw[start + error.start]
        message = f"byte 0x{byte:02x} is not UTF-8; save the file with the encoding UTF-8."
        return Document({}, str(path), found=(Problem("error", "encoding", message, (), str(path), line, column),))
    document = read(text, str(path))
    if not start:
        return document
    mark = Problem(
        "warning",
        "encoding",
        "the file begins with a byte-order mark; save it as UTF-8 without one.",
        (),
        str(path),
        1,
        1,
    )
    return replace(document, found=(*document.found, mark))


# ------------------------------------------------------------------------------------------------------------- checking


def host_phrase(host: str) -> str:
    """Returns the host as a noun phrase of its own: ``fish`` -> ``a fish``, ``insect`` -> ``an insect``, ``the moon`` as it is."""
    if re.match(r"(a|an|the|some)\s", host, re.IGNORECASE):
        return host
    return f"an {host}" if host[:1].lower() in "aeiou" else f"a {host}"


def problems(document: Document) -> list[Problem]:
    """Finds everything that keeps a document from being a trait pack.

    Args:
        document: What :func:`read` returned.

    Returns:
        Errors in the order of the file, empty if it is a trait pack.
    """
    found = [problem for problem in document.found if problem.severity == "error"]
    if not document.data and found:
        return found
    found += _check_object(document, document.data, "pack", ())
    if not found:
        found += list(_check_meaning(document))
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _shown(value: Any) -> str:
    if isinstance(value, list | dict) and not value:
        return "an empty list" if isinstance(value, list) else "an empty mapping"
    names = {dict: "a mapping", list: "a list", type(None): "nothing"}
    return names.get(type(value)) or f"{value!r} ({type(value).__name__})"


def _check_object(document: Document, value: Any, level: str, path: Path_) -> list[Problem]:
    fields = PACK_LEVELS[level]
    if not isinstance(value, Mapping):
        hint = f"expected {_article(level)} with the keys {', '.join(fields)}; received {_shown(value)}."
        return [document.problem("error", "wrong-type", hint, path)]
    found: list[Problem] = []
    for key in value:
        if key not in fields:
            near = nearest_names(key, fields)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(fields)}."
            found.append(
                document.problem(
                    "error",
                    "unknown-key",
                    f"unknown key {key!r} in {_article(level)}; {hint}",
                    (*path, key),
                    True,
                )
            )
    for key, spec in fields.items():
        if key not in value:
            if spec.required:
                message = f"{_article(level)} needs the key {key!r}: {spec.doc}"
                found.append(document.problem("error", "missing-key", message, path, True))
            continue
        found += _check_value(document, value[key], spec, (*path, key))
    return found


def _check_value(document: Document, value: Any, spec: Field, path: Path_) -> list[Problem]:
    def wrong(expected: str) -> list[Problem]:
        quote = isinstance(value, bool | int | float | datetime.date) and spec.type not in (
            "integer",
            "object",
            "table",
            "labels",
        )
        hint = " Put it in quotes." if quote else ""
        return [document.problem("error", "wrong-type", f"expected {expected}, received {_shown(value)}.{hint}", path)]

    match spec.type:
        case "integer":
            if isinstance(value, bool) or not isinstance(value, int):
                return wrong("a whole number")
            if path == ("schema",) and value != PACK_SCHEMA_VERSION:
                return [
                    document.problem(
                        "error",
                        "bad-value",
                        f"format {value} is unknown; this version reads {PACK_SCHEMA_VERSION}.",
                        path,
                    )
                ]
            return []
        case "text":
            if not isinstance(value, str) or not visible(value).strip():
                return wrong("text")
            if spec.pattern and not re.match(spec.pattern, value):
                return [
                    document.problem(
                        "error",
                        "bad-value",
                        f"{value!r} must look like {_pattern_example(spec.pattern)}.",
                        path,
                    )
                ]
            return []
        case "choice":
            if not isinstance(value, str):
                return wrong("one of " + ", ".join(spec.choices))
            if value not in spec.choices:
                near = nearest_names(value, spec.choices)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                message = f"unknown {path[-1]} {value!r}{hint} Known: {', '.join(spec.choices)}."
                return [document.problem("error", "bad-value", message, path)]
            return []
        case "texts" | "references":
            if isinstance(value, str) and value.strip():
                return []
            if not isinstance(value, list) or not value:
                return wrong("a list of texts")
            return [
                problem for index, text in enumerate(value) for problem in _check_value(document, text, Field("text", ""), (*path, index))
            ]
        case "labels":
            if not isinstance(value, Mapping):
                return wrong("a mapping such as {fishvista: Eye}")
            return [problem for key, text in value.items() for problem in _check_value(document, text, Field("text", ""), (*path, key))]
        case "object":
            return _check_object(document, value, spec.of, path)
        case "table":
            if not isinstance(value, Mapping) or not value:
                # Where none of its keys could be read, that is said of each, and the file's mapping is not empty.
                refused = value == {} and any(problem.path == path for problem in document.found)
                return [] if refused else wrong(f"a mapping from name to {spec.of}")
            found: list[Problem] = []
            for name, entry in value.items():
                here = (*path, name)
                if not re.match(spec.pattern, name):
                    message = f"the name {name!r} must look like {_pattern_example(spec.pattern)}."
                    found.append(document.problem("error", "bad-value", message, here, True))
                # `absent:` alone is a whole state: its phrase is the host.
                found += _check_object(document, {} if entry is None and spec.of == "state" else entry, spec.of, here)
            return found


def _pattern_example(pattern: str) -> str:
    return {
        NAME: "caudal_fin_shape (small letters, digits and _, a letter first)",
        PACK_NAME: "my-pack (small letters, digits, - and _)",
        TERM_ID: "PATO:0002234 (prefix, colon, number)",
    }[pattern]


def listed(value: Any) -> list[Any]:
    """Returns a list for a list, a list of one for a single value, and an empty one for ``None``."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _check_meaning(document: Document) -> Iterator[Problem]:
    data = document.data
    for key in ("templates", "host_templates"):
        yield from _check_templates(document, data.get(key), (key,))
    yield from _check_frame(document)
    for name, character in data["characters"].items():
        path: Path_ = ("characters", name)
        yield from _check_templates(document, character.get("templates"), (*path, "templates"))
        yield from _check_states(document, character, path)
        yield from _check_shared(document, character, path)
        for state_name, state in character["states"].items():
            yield from _check_contrasts(document, name, state_name, listed((state or {}).get("contrasts")))


def _check_templates(document: Document, templates: Any, path: Path_) -> Iterator[Problem]:
    single = isinstance(templates, str)
    for index, template in enumerate(listed(templates)):
        if template.count("{}") != 1:
            message = f"the template {template!r} must hold {{}} exactly once, where the phrase goes."
            yield document.problem("error", "template", message, path if single else (*path, index))


def _check_states(document: Document, character: Mapping[str, Any], path: Path_) -> Iterator[Problem]:
    kind, states = character["kind"], character["states"]

    def error(code: str, message: str, where: Path_, at_key: bool = True) -> Problem:
        return document.problem("error", code, message, where, at_key)

    if kind == "presence":
        if "present" not in states or set(states) - {"present", "absent"}:
            received = ", ".join(states)
            yield error(
                "presence",
                f"a presence character has the states present and absent, received {received}.",
                (*path, "states"),
            )
            return
        yield from _check_absent(document, (states.get("absent") or {}).get("phrases"), (*path, "states", "absent", "phrases"))
    else:
        for state in states:
            if state in RESERVED_STATES:
                yield error(
                    "reserved",
                    f"the state name {state!r} is reserved; choose another.",
                    (*path, "states", state),
                )
        if len(states) < 2 and kind != "part":
            message = "a character needs two or more states: the others are a state's contrasts. Add one, or use kind: presence."
            yield error("single-state", message, (*path, "states"))
    if "around" in character and kind in HOST_KINDS:
        message = f"a character of kind {kind} has no 'around': its states are asked against the host already."
        yield error("around", message, (*path, "around"))
    yield from _check_elsewhere(document, character, path)
    yield from _check_needs(document, character, path)
    if kind != "part" and "entity" not in character:
        yield error(
            "missing-key",
            "a character needs the key 'entity': the part it describes (kind part: on its states).",
            path,
        )
    for name, state in states.items():
        where, state = (*path, "states", name), state or {}
        if "where" in state or "of" in state:
            yield from _check_where(document, kind, name, state, where)
        elif "phrases" not in state and not (kind == "presence" and name == "absent"):
            yield error("missing-key", "a state needs the key 'phrases': how a caption would say it.", where)
        if kind != "part" and "entity" in state:
            yield error(
                "entity",
                "a state has an entity of its own only in a character of kind part.",
                (*where, "entity"),
            )
        quality = state.get("quality") or {}
        if ("id" in quality) != ("match" in quality):
            message = f"a quality needs 'id' and 'match' together; match is one of {', '.join(MATCHES)}."
            yield error("missing-key", message, (*where, "quality"))


def parts_of(data: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Returns the parts of a pack's data that have phrases of their own: name -> character and state; the first of a name counts."""
    found: dict[str, tuple[str, str]] = {}
    for name, character in data["characters"].items():
        for state, value in character["states"].items() if character["kind"] == "part" else ():
            if "where" not in (value or {}):
                found.setdefault(state, (name, state))
    return found


def _check_elsewhere(document: Document, character: Mapping[str, Any], path: Path_) -> Iterator[Problem]:
    parts, names = parts_of(document.data), listed(character.get("elsewhere"))
    if names and character["kind"] in HOST_KINDS:
        message = f"a character of kind {character['kind']} has no 'elsewhere': name the parts among its states' contrasts."
        yield document.problem("error", "elsewhere", message, (*path, "elsewhere"), True)
        return
    own = {normalise_text(phrase) for state in character["states"].values() for phrase in listed((state or {}).get("phrases"))}
    yield from _unknown_parts(document, character, "elsewhere", path, "elsewhere")
    for index, name in enumerate(names):
        here = document.item((*path, "elsewhere"), index)
        owner, state = parts.get(name, ("", ""))
        spoken = listed((document.data["characters"][owner]["states"][state] or {}).get("phrases")) if owner else []
        shared = [phrase for phrase in spoken if normalise_text(phrase) in own]
        if name in names[:index]:
            yield document.problem("error", "elsewhere", f"the part {name!r} is given twice.", here)
        elif shared:
            message = f"the part {name!r} shares the phrase {shared[0]!r} with a state: what is asked about lies nowhere else."
            yield document.problem("error", "elsewhere", message, here)


def _check_needs(document: Document, character: Mapping[str, Any], path: Path_) -> Iterator[Problem]:
    if "needs" not in character:
        return
    own, name = path[-1], character["needs"]
    others = document.data["characters"]
    presences = [key for key, value in others.items() if value["kind"] == "presence" and key != own]
    here = (*path, "needs")
    if character["kind"] == "part":
        message = "a character of kind part has no 'needs': whether a part is there, its own map tells."
        yield document.problem("error", "needs", message, here, True)
    elif name not in presences:
        near = nearest_names(name, presences)
        hint = f"did you mean {near[0]!r}?" if near else f"those of this pack: {', '.join(presences) or 'none'}."
        yield document.problem("error", "needs", f"{name!r} is no other character of kind presence; {hint}", here)
    elif "needs" in others[name]:
        message = f"{name!r} needs another one itself ({others[name]['needs']}), and needs do not go on: leave one of the two out."
        yield document.problem("error", "needs", message, here)


def _unknown_parts(document: Document, given: Mapping[str, Any], key: str, path: Path_, code: str) -> Iterator[Problem]:
    """Names that a key gives and that are no parts of the pack."""
    parts = parts_of(document.data)
    for index, name in enumerate(listed(given.get(key))):
        if name not in parts:
            near = nearest_names(name, parts)
            hint = f"did you mean {near[0]!r}?" if near else f"parts of this pack: {', '.join(parts) or 'none'}."
            yield document.problem("error", code, f"{name!r} is no part of this pack; {hint}", document.item((*path, key), index))


def _check_frame(document: Document) -> Iterator[Problem]:
    frame = document.data.get("frame") or {}
    for key in PACK_LEVELS["frame"]:
        if key != "view":
            yield from _unknown_parts(document, frame, key, ("frame",), "frame")
    if "frame" in document.data and not listed(frame.get("along")) and not listed(frame.get("sides")):
        yield document.problem("error", "frame", "a frame needs 'along' or 'sides': by these it is known where the front is.", ("frame",))


def _check_where(document: Document, kind: str, name: str, state: Mapping[str, Any], path: Path_) -> Iterator[Problem]:
    characters, character = document.data["characters"], path[1]

    def error(message: str, key: str) -> Problem:
        return document.problem("error", "where", message, (*path, key))

    if kind != "part":
        yield error(
            "a place belongs to a part: 'where' and 'of' stand in characters of kind part only.", "where" if "where" in state else "of"
        )
        return
    if "where" not in state or "of" not in state:
        yield error("'where' and 'of' need each other: of which part, and which one of them.", "where" if "where" in state else "of")
        return
    for key in ("phrases", "contrasts"):
        if key in state:
            yield error(f"a state with a place is asked in the words of {state['of']!r}: it has no {key} of its own.", key)
    owner, _, part = state["of"].rpartition("=")
    given = (characters.get(owner or character) or {}).get("states", {})
    if (owner and characters.get(owner, {}).get("kind") != "part") or part not in given or "where" in (given[part] or {}):
        near = nearest_names(part, parts_of(document.data))
        yield error(
            f"{state['of']!r} is no part of this pack with phrases of its own." + (f" Did you mean {near[0]!r}?" if near else ""), "of"
        )
    if state["where"] not in SIDES and not listed((document.data.get("frame") or {}).get("along")):
        yield error(f"'{state['where']}' needs to know where the front is: give the pack a 'frame' with 'along'.", "where")


def _check_absent(document: Document, phrases: Any, path: Path_) -> Iterator[Problem]:
    host = document.data["host"]
    allowed = {normalise_text(host), normalise_text(host_phrase(host)), normalise_text(f"the {host}")}
    for phrase in listed(phrases):
        if normalise_text(phrase) not in allowed:
            message = f"the phrase of 'absent' is the host alone ({host_phrase(host)!r}), received {phrase!r}: leave it out."
            yield document.problem("error", "absent-phrase", message, path)


def _check_shared(document: Document, character: Mapping[str, Any], path: Path_) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name, state in character["states"].items():
        given = state or {}
        for index, phrase in enumerate(listed(given.get("phrases"))):
            where = document.item((*path, "states", name, "phrases"), index)
            if not normalise_text(phrase):
                yield document.problem("error", "no-words", f"{phrase!r} says nothing: write what is seen, in words.", where)
                continue
            owner = first.setdefault(normalise_text(phrase), name)
            if owner != name:
                message = f"{phrase!r} is also a phrase of the sibling state {owner!r}: they cannot be told apart by it."
                yield document.problem("error", "shared-phrase", message, where)


def _check_contrasts(document: Document, character: str, state: str, references: Sequence[str]) -> Iterator[Problem]:
    characters = document.data["characters"]
    seen: set[tuple[str, str]] = set()
    for index, reference in enumerate(references):
        path = document.item(("characters", character, "states", state, "contrasts"), index)
        owner, _, name = reference.rpartition("=")
        target = (owner or character, name)
        message = ""
        if target in seen:
            message = f"the contrast {reference!r} is given twice."
        elif target == (character, state):
            message = "a state cannot be its own contrast."
        elif reference not in REFERENCES and target[0] not in characters:
            near = nearest_names(target[0], characters)
            message = f"unknown character {target[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
        elif reference not in REFERENCES and name not in characters[target[0]]["states"]:
            near = nearest_names(name, [*characters[target[0]]["states"], *REFERENCES])
            message = f"unknown state {name!r} of {target[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
        seen.add(target)
        if message:
            yield document.problem("error", "contrast", message, path)


# ---------------------------------------------------------------------------------------------------------- JSON Schema


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a trait pack, for completion and checks in editors."""

    def of_field(spec: Field) -> dict[str, Any]:
        match spec.type:
            case "integer":
                result: dict[str, Any] = {"type": "integer", "const": PACK_SCHEMA_VERSION}
            case "text":
                result = {"type": "string", "minLength": 1} | ({"pattern": spec.pattern} if spec.pattern else {})
            case "choice":
                # A const per value lets an editor show what each means.
                result = {"oneOf": [{"const": value, "description": meaning} for value, meaning in spec.choices.items()]}
            case "texts" | "references":
                text = {"type": "string", "minLength": 1}
                result = {"oneOf": [text, {"type": "array", "items": text, "minItems": 1}]}
            case "labels":
                result = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}
            case "object":
                result = {"$ref": f"#/$defs/{spec.of}"}
            case "table":
                entry: dict[str, Any] = {"$ref": f"#/$defs/{spec.of}"}
                if spec.of == "state":
                    entry = {"oneOf": [entry, {"type": "null"}]}
                result = {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": spec.pattern},
                    "additionalProperties": entry,
                }
        return {"description": spec.doc} | result

    def of_level(level: str) -> dict[str, Any]:
        fields = PACK_LEVELS[level]
        required = [key for key, spec in fields.items() if spec.required]
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: of_field(spec) for key, spec in fields.items()},
        } | ({"required": required} if required else {})

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "concept-cam trait pack",
        **of_level("pack"),
        "$defs": {level: of_level(level) for level in PACK_LEVELS if level != "pack"},
    }
