"""What the exports share: what the run holds, names of labels, masks, ontology addresses, and streaming writers."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np

import concept_cam
from concept_cam.collection.runs import Run
from concept_cam.collection.schema import FRAME, PASSTHROUGH_PREFIX
from concept_cam.core.errors import DataError
from concept_cam.core.placing import LEFT_OF
from concept_cam.core.plain import plain_json
from concept_cam.core.regions import decode_rle
from concept_cam.core.tables import escaped

__all__ = [
    "FRAME",
    "PLAIN",
    "Form",
    "Label",
    "Survey",
    "CARRIED",
    "agent",
    "address_and_words",
    "carried",
    "confidence_of",
    "crop",
    "decided",
    "has_region",
    "is_address",
    "iri",
    "made_of",
    "mask_of",
    "media_of",
    "passthrough_of",
    "probability_of",
    "readable",
    "review_of",
    "survey",
    "trust_of",
    "when",
    "write_csv",
    "write_json",
]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """How an export is written, where people differ.

    Attributes:
        base: What relative sources are put behind, such as ``https://museum.org/photos/``; ``None`` leaves them relative to the input.
        escape: Whether text cells of CSV files that a spreadsheet would take for a formula get an apostrophe in front; see
            :func:`concept_cam.core.tables.escaped`.
        mark: Whether CSV files begin with the UTF-8 mark, without which spreadsheets misread ``px²`` and ``°``; ``None`` leaves it to the
            format.
    """

    base: str | None = None
    escape: bool = True
    mark: bool | None = None


PLAIN = Form()
"""An export as it is written by default."""

PART_SEPARATOR = ": "
"""Between a character of kind ``part`` and the part in a label's name."""

PACK_SEPARATOR = "/"
"""Between a pack and a character in a label's name, where the run has several packs."""


@dataclass(frozen=True)
class Label:
    """One label that a person corrected in another tool, read back.

    Attributes:
        file_name: The picture, as the export named it: ``source`` of the run.
        character: Name of the character.
        state: The state that the person set; empty where it was looked at and nothing was said.
        pack: Name of the pack; empty where the run had only one.
        specimen: Number of the specimen.
        reviewed: Whether a person marked it as looked at; exports leave the mark empty, so that a file that comes back as it went out is
            told from one that was gone through. ``None`` where labels have no such mark.
        alone: Whether nothing follows for parts that no label names: from a region that is gone it does, somebody removed it, and from a
            list of labels too; from a row that is marked or stands beside a call, or from one thing that was corrected, it does not.
    """

    file_name: str
    character: str
    state: str
    pack: str = ""
    specimen: int = 0
    reviewed: bool | None = None
    alone: bool = False


REVIEWED = "reviewed"
"""Column or attribute in which a person, or the app, marks a label as looked at; exports leave it empty."""

_NO = ("", "no", "n", "false", "f", "0", "0.0", "none", "not")


def is_reviewed(text: str | None) -> bool:
    """Tells whether a mark says that a label was looked at: any text but an empty one and words for no."""
    return (text or "").strip().casefold() not in _NO


@dataclass(frozen=True)
class Survey:
    """What a run holds, found in one pass over a few columns.

    Attributes:
        states: Every character's states in order of appearance, by ``(pack, character)``; distances have none.
        kinds: Every character's kind, by ``(pack, character)``.
        packs: Names of the packs.
        specimens: Whether any picture has specimen boxes.
        pictures: Number of pictures.
    """

    states: Mapping[tuple[str, str], tuple[str, ...]]
    kinds: Mapping[tuple[str, str], str]
    packs: tuple[str, ...]
    specimens: bool
    pictures: int

    def name(self, pack: str, character: str) -> str:
        """Returns the character's name in label lists; the pack is part of it where there are several."""
        return f"{pack}{PACK_SEPARATOR}{character}" if len(self.packs) > 1 else character


def survey(run: Run) -> Survey:
    """Looks through a run for its characters, states, specimens and pictures."""
    states: dict[tuple[str, str], dict[str, None]] = {}
    kinds: dict[tuple[str, str], str] = {}
    packs: dict[str, None] = {}
    specimens, pictures, last = False, 0, None
    for record in run.records(["image_key", "pack", "character", "kind", "best_state", "probabilities", "specimen_x"]):
        key = (record["pack"], record["character"])
        packs[record["pack"]] = None
        kinds[key] = record["kind"]
        known = states.setdefault(key, {})
        if record["kind"] != "part":
            known.update(dict.fromkeys(record["probabilities"] or ()))
        if record["best_state"] is not None:
            known[record["best_state"]] = None
        specimens = specimens or record["specimen_x"] is not None
        pictures += record["image_key"] != last
        last = record["image_key"]
    return Survey({key: tuple(known) for key, known in states.items()}, kinds, tuple(packs), specimens, pictures)


# --------------------------------------------------------------------------------------------------------------- records


def has_region(record: Record) -> bool:
    """Whether a record has a mask with at least one pixel."""
    return record["rle_counts"] is not None and bool(record["box_width"]) and bool(record["box_height"])


def mask_of(record: Record) -> np.ndarray:
    """Returns the record's mask, bool [H, W], original frame.

    Raises:
        DataError: The stored run lengths do not fit the picture.
    """
    size = [record["image_height"], record["image_width"]]
    if record["rle_size"] is not None and list(record["rle_size"]) != size:
        raise DataError(f"record {record['record_key']}: the mask is {record['rle_size']}, the picture {size} (rows, columns).")
    try:
        return decode_rle({"size": size, "counts": record["rle_counts"]})
    except (ValueError, IndexError) as error:
        raise DataError(f"record {record['record_key']} of {record['source']!r} has a damaged mask: {error}") from error


def crop(mask: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Returns the part of a mask within its bounding box, with the box's left and upper edge."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1], left, top


def media_of(record: Record, base: str | None = None) -> str:
    """Returns the address of a record's picture: its public URI, else its source behind ``base``, else as a relative or absolute
    reference.
    """
    if record["media_uri"]:
        return str(record["media_uri"])
    source = str(record["source"])
    if is_address(source):
        return source
    return quote(source) if base is None else f"{base.rstrip('/')}/{quote(source.lstrip('/'))}"


def is_address(text: str) -> bool:
    """Tells whether a text is an absolute IRI (``https://...``, ``urn:...``) rather than words or a path."""
    return re.fullmatch(r"(?:[A-Za-z][A-Za-z0-9+.-]+://|(?:urn|doi|ark|orcid|mailto):)[^\s<>\"{}|\\^`]+", text) is not None


def passthrough_of(record: Record) -> dict[str, str]:
    """Returns the input's further columns of a record that have a value, under their own names."""
    return {
        name.removeprefix(PASSTHROUGH_PREFIX): value
        for name, value in record.items()
        if name.startswith(PASSTHROUGH_PREFIX) and value not in (None, "")
    }


CARRIED: dict[str, tuple[str, ...]] = {
    "occurrenceID": ("occurrenceID", "dwc:occurrenceID"),
    "materialEntityID": ("materialEntityID", "dwc:materialEntityID"),
    "catalogNumber": ("catalogNumber", "dwc:catalogNumber"),
    "scientificName": ("scientificName", "dwc:scientificName", "species"),
    "rights": ("rights", "dcterms:rights", "dc:rights", "license", "dcterms:license"),
    "creator": ("creator", "dcterms:creator", "dc:creator"),
}
"""Input columns that the standards have a term for, under the names that collections give them, the first that has a value."""


def carried(record: Record, term: str) -> str | None:
    """Returns what the input says of a picture or specimen by a term of :data:`CARRIED`, where it says it."""
    values = (record.get(PASSTHROUGH_PREFIX + name) for name in CARRIED[term])
    return next((str(value) for value in values if value), None)


def address_and_words(record: Record, term: str) -> tuple[str | None, str | None]:
    """Returns what the input says by a term as an address, and what it says in words: media tables have ``license`` beside ``rights``."""
    values = [str(value) for name in CARRIED[term] if (value := record.get(PASSTHROUGH_PREFIX + name))]
    return next(filter(is_address, values), None), next((value for value in values if not is_address(value)), None)


def trust_of(record: Record) -> str:
    """Returns what the certificate says of a record's map, for a remark; nothing where there is none.

    Such as ``; map doubtful (confidence 0.53): 60% of the peak's surroundings look like written words or a ruler``.
    """
    if not record.get("verdict"):
        return ""
    confidence, reason = record.get("confidence"), str(record.get("verdict_because") or "").rstrip(".")
    sure = "" if confidence is None else f" (confidence {confidence:.2f})"
    return f"; map {record['verdict']}{sure}" + (f": {reason}" if reason else "")


def decided(record: Record) -> bool:
    """Tells whether the call of a record is a person's: the model's odds say nothing of it."""
    return record.get("reviewed") in ("accept", "state")


def probability_of(record: Record) -> float | None:
    """Returns the probability of a call that is the model's; ``None`` where it stated none, or where a person decided."""
    return None if decided(record) else record["probability"]


def review_of(record: Record) -> str:
    """Returns who reviewed a record, and what was said of it: ``reviewed by Ada (state)``; empty where nobody looked."""
    if record.get("reviewed") is None:
        return ""
    return f"reviewed by {record.get('reviewed_by') or 'a person'} ({record['reviewed']})"


def made_of(record: Record) -> str:
    """Returns how a call came about, for a remark: by the model, with what its certificate says, or reviewed by a person."""
    review = review_of(record)
    return f"machine-made, then {review}" if review else f"machine-made{trust_of(record)}"


def confidence_of(record: Record) -> str:
    """Returns how sure a record is, for a term that asks for the error of a value; empty where nothing was fitted or a person looked."""
    confidence = record.get("confidence")
    if confidence is None or record.get("reviewed") is not None:
        return ""
    return f"peak on the target with a probability of {confidence:.2f}"


def entity_of(record: Record) -> str | None:
    """Returns the entity of a record in words, with the place where one of several is meant: ``left fore wing``."""
    entity, place = record["entity"], record.get("place")
    return f"{place} {entity}" if entity and place else cast("str | None", entity)


def place_of(record: Record) -> str:
    """Says whose left and right a record speaks of, for remarks; empty where it speaks of none."""
    whose = record.get("place_of")
    return f"; {record['place']} is {LEFT_OF[whose]}" if whose in LEFT_OF and whose else ""


def readable(name: str) -> str:
    """Returns a character's or state's name as people read it: underscores become spaces."""
    return name.replace("_", " ")


def iri(identifier: str | None) -> str | None:
    """Returns the address of an ontology id: ``PATO:0001784`` -> ``http://purl.obolibrary.org/obo/PATO_0001784``."""
    if not identifier or re.match(r"https?://", identifier):
        return identifier or None
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9]*):(\d+)", identifier)
    return f"http://purl.obolibrary.org/obo/{found[1]}_{found[2]}" if found else None


def agent(record: Record) -> str:
    """Returns who made a record, as the standards ask for it: the person who reviewed it first."""
    machine = f"concept-cam {record['package_version']} (machine), model {record['model']}"
    if record.get("reviewed") is None:
        return machine
    return f"{record.get('reviewed_by') or 'a person'} (reviewed), after {machine}"


def when(run: Run, record: Record | None = None) -> str:
    """Returns when the run was made, or when a record of it was reviewed (ISO 8601), or empty text."""
    return str((record or {}).get("reviewed_at") or run.info.get("finished") or run.info.get("started") or "")


def creator() -> dict[str, str]:
    """Returns name and version of this package, for the head of a file."""
    return {"name": "concept-cam", "version": concept_cam.__version__}


# --------------------------------------------------------------------------------------------------------------- writers


def write_json(path: Path, head: Mapping[str, Any], **lists: Iterable[Any]) -> None:
    """Writes a JSON object whose long lists are streamed, one element per line, so that memory stays flat.

    Args:
        path: File to write.
        head: Short members, first.
        lists: Long members by name.
    """
    # Half of a character, which a damaged run may hold, is written as JSON's own escape of it.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("{")
        separator = "\n"
        for name, value in head.items():
            file.write(f"{separator}{json.dumps(name)}: {json.dumps(plain_json(value), ensure_ascii=False, allow_nan=False)}")
            separator = ",\n"
        for name, values in lists.items():
            file.write(f"{separator}{json.dumps(name)}: [")
            write_elements(file, values)
            file.write("\n]")
            separator = ",\n"
        file.write("\n}\n")


def write_elements(file: Any, values: Iterable[Any]) -> None:
    """Writes the elements of a JSON list, one per line, without the brackets."""
    separator = "\n"
    for value in values:
        file.write(separator + json.dumps(plain_json(value), ensure_ascii=False, allow_nan=False))
        separator = ",\n"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], form: Form = PLAIN, *, mark: bool = False) -> None:
    """Writes a CSV file (UTF-8, RFC 4180); a missing value is an empty cell, a float its shortest exact form.

    Args:
        path: File to write.
        columns: Names of the columns.
        rows: Values by column name.
        form: How it is written.
        mark: Whether the file begins with the UTF-8 mark where the form leaves that open.
    """
    encoding = "utf-8-sig" if (mark if form.mark is None else form.mark) else "utf-8"
    finish = escaped if form.escape else _as_it_is
    with path.open("w", encoding=encoding, newline="", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, [finish(name) for name in columns], restval="", extrasaction="raise")
        writer.writeheader()
        writer.writerows({finish(name): finish(cell(value)) for name, value in row.items()} for row in rows)


def _as_it_is(value: Any) -> Any:
    return value


def cell(value: Any) -> str | int:
    """Returns a value as a CSV cell."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(plain_json(value), ensure_ascii=False, allow_nan=False)
    return cast("str | int", value)


def called(run: Run) -> Iterator[dict[str, Any]]:
    """Streams the records that make a call (or measure a distance), in order."""
    return (record for record in run.records() if not record["abstained"])
