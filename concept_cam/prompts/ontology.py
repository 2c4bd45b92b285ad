"""The maintainers' check of trait packs against ontology label tables (PATO, UBERON, PO, AISM ...).

A table is a ``.tsv`` file with the columns ``id``, ``label`` and ``synonyms``; synonyms are separated by ``|``, and each may be followed by
its scope in brackets, as in ``conformation [broad]``. One without a scope is exact, like one marked ``[exact]``; those marked ``[broad]``,
``[narrow]`` or ``[related]`` are not. The tables are not part of the package; packs carry ids and labels together.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from concept_cam.core.errors import DataError
from concept_cam.core.names import nearest_names, normalise_text
from concept_cam.prompts import Entity, Pack, Quality

__all__ = ["Mismatch", "Term", "compare", "read_tables", "terms"]

_SCOPE = re.compile(r"\[\s*(exact|broad|narrow|related)\s*\]\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Term:
    """One term of an ontology.

    Attributes:
        id: Such as ``PATO:0002234``.
        label: Its preferred name.
        exact: Its exact synonyms.
    """

    id: str
    label: str
    exact: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mismatch:
    """A term of a pack that is not as the ontology has it.

    Attributes:
        path: Keys that lead to the value at fault, as in :class:`concept_cam.prompts.schema.Problem`.
        message: What differs and what to write.
    """

    path: tuple[str, ...]
    message: str


def read_tables(folder: Path) -> dict[str, Term]:
    """Reads every ``.tsv`` label table of a folder.

    Args:
        folder: Folder of tables.

    Returns:
        id -> term.

    Raises:
        DataError: If the folder has no table, or a table has no columns ``id`` and ``label``.
    """
    files = sorted(folder.glob("*.tsv"))
    if not files:
        raise DataError(f"no ontology table in {str(folder)!r}: expected .tsv files with the columns id, label and synonyms.")
    result: dict[str, Term] = {}
    for file in files:
        # Spreadsheets save a mark before the first column's name, which would then not be "id".
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not {"id", "label"} <= set(rows.fieldnames or ()):
                raise DataError(f"{str(file)!r} is not an ontology table: expected the columns id, label and synonyms in its first line.")
            for row in rows:
                result[row["id"]] = Term(row["id"], _label(row["label"] or ""), tuple(_exact(row.get("synonyms") or "")))
    return result


def _label(text: str) -> str:
    # OBO trailing modifiers ("antenna {creation_date=...}") come along in some extracts.
    return html.unescape(re.sub(r"\s*\{.*", "", text.strip().strip('"'))).strip()


def _exact(text: str) -> Iterator[str]:
    for synonym in map(str.strip, text.split("|")):
        scope = _SCOPE.search(synonym)
        if scope is None:
            if synonym:
                # Whoever writes no scopes means other names of the term; brackets at the end are then part of the name.
                yield html.unescape(synonym)
        elif scope[1].casefold() == "exact":
            yield html.unescape(re.sub(r"(\s*[\[(][^\[\]()]*[\])])+\s*$", "", synonym))


def terms(pack: Pack) -> Iterator[tuple[tuple[str, ...], str, Entity | Quality]]:
    """Yields every entity and quality that has an id: its path in the file, the name of its state or character, and the term."""
    for character in pack.characters:
        path: tuple[str, ...] = ("characters", character.name)
        if character.entity is not None and character.entity.id is not None:
            yield (*path, "entity"), character.name, character.entity
        for state in character.states:
            here = (*path, "states", state.name)
            if state.entity is not None and state.entity.id is not None:
                yield (*here, "entity"), state.name, state.entity
            if state.quality is not None and state.quality.id is not None:
                yield (*here, "quality"), state.name, state.quality


def compare(pack: Pack, tables: Mapping[str, Term]) -> list[Mismatch]:
    """Compares every id, label and match of a pack with the ontologies.

    ``match: exact`` must mean that the state's name is the term's label, ``synonym`` that it is one of the term's exact synonyms.

    Args:
        pack: The pack.
        tables: What :func:`read_tables` returned.

    Returns:
        What differs, in the order of the file; empty when every id is verified.
    """
    return [mismatch for path, name, term in terms(pack) for mismatch in _compare(path, name, term, tables)]


def _compare(path: tuple[str, ...], name: str, term: Entity | Quality, tables: Mapping[str, Term]) -> Iterator[Mismatch]:
    known = tables.get(term.id or "")
    if known is None:
        same = [other.id for other in tables.values() if other.label == term.label]
        hint = f"{term.label!r} is {same[0]}." if same else "leave it out, or find the right one."
        yield Mismatch((*path, "id"), f"the id {term.id} is in none of the tables; {hint}")
        return
    if known.label != term.label:
        yield Mismatch((*path, "label"), f"{term.id} is labelled {known.label!r}, received {term.label!r}.")
        return
    match = term.match if isinstance(term, Quality) else None
    if match == "exact" and not _named(name, [known.label]):
        hint = "synonym" if _named(name, known.exact) else "close"
        yield Mismatch((*path, "match"), f"{name!r} is not the label {known.label!r} of {term.id}: write match: {hint}.")
    if match == "synonym" and not _named(name, known.exact):
        near = nearest_names(name, known.exact)
        shown = f" (nearest: {near[0]!r})" if near else ""
        yield Mismatch(
            (*path, "match"),
            f"{name!r} is not an exact synonym of {term.id} {known.label!r}{shown}: write match: close.",
        )


def _named(name: str, labels: Iterable[str]) -> bool:
    return _folded(name) in {_folded(label) for label in labels}


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", normalise_text(text))
