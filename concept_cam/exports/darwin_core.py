"""Darwin Core MeasurementOrFact, and the extended form of it, as CSV.

Every call is a row: ``measurementType`` is the character with its entity, ``measurementValue`` the state. Every measure of the region
is a row of its own below it (``parentMeasurementID``), in millimetres where the scale is known, else in pixels of the upright picture,
with its uncertainty as ``measurementAccuracy``. Ontology ids stand in the ``dwciri:`` terms of the plain form and in the ``...ID``
terms of the extended form (``http://rs.iobis.org/obis/terms/``): entity for the type, quality for the value, unit for the unit.
``occurrenceID``, ``materialEntityID``, ``catalogNumber`` and ``scientificName`` are taken from the input's columns of these names; the
picture's rights and creator, for which there is no term, stand in the remarks of its calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from concept_cam.collection.runs import Run
from concept_cam.collection.schema import DISTANCE_MEANINGS, MEASURES
from concept_cam.exports.survey import (
    FRAME,
    PLAIN,
    Form,
    address_and_words,
    agent,
    called,
    carried,
    confidence_of,
    entity_of,
    iri,
    made_of,
    media_of,
    place_of,
    probability_of,
    readable,
    when,
    write_csv,
)

__all__ = ["DARWIN_CORE_COLUMNS", "EXTENDED_COLUMNS", "UNITS", "write", "write_extended"]

_IDENTIFIERS = ("occurrenceID", "materialEntityID", "catalogNumber", "scientificName")

DARWIN_CORE_COLUMNS: tuple[str, ...] = (
    *_IDENTIFIERS,
    "measurementID",
    "parentMeasurementID",
    "measurementType",
    "dwciri:measurementType",
    "measurementValue",
    "dwciri:measurementValue",
    "measurementAccuracy",
    "measurementUnit",
    "dwciri:measurementUnit",
    "measurementDeterminedBy",
    "measurementDeterminedDate",
    "measurementMethod",
    "measurementRemarks",
)
"""Terms of MeasurementOrFact in the order of the columns; ``dwciri:`` is ``http://rs.tdwg.org/dwc/iri/``."""

_EXTENDED = {
    "dwciri:measurementType": "measurementTypeID",
    "dwciri:measurementValue": "measurementValueID",
    "dwciri:measurementUnit": "measurementUnitID",
}

EXTENDED_COLUMNS: tuple[str, ...] = tuple(_EXTENDED.get(name, name) for name in DARWIN_CORE_COLUMNS)
"""Terms of the extended MeasurementOrFact in the order of the columns."""

UNITS: dict[str, tuple[str, str | None]] = {
    "mm": ("mm", "UO:0000016"),
    "mm2": ("mm²", "UO:0000082"),
    "px": ("px", None),
    "px2": ("px²", None),
    "deg": ("°", "UO:0000185"),
    "1": ("", None),
}
"""How a unit is written, and its id in the Units of Measurement Ontology where it has one."""


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run as MeasurementOrFact CSV."""
    write_csv(path, DARWIN_CORE_COLUMNS, _rows(run, form), form)


def write_extended(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run as extended MeasurementOrFact CSV."""
    rows = ({_EXTENDED.get(name, name): value for name, value in row.items()} for row in _rows(run, form))
    write_csv(path, EXTENDED_COLUMNS, rows, form)


def _rows(run: Run, form: Form) -> Iterator[dict[str, Any]]:
    for record in called(run):
        shared = {name: carried(record, name) for name in _IDENTIFIERS} | {
            "measurementDeterminedBy": agent(record),
            "measurementDeterminedDate": when(run, record),
            "measurementMethod": _method(record),
            "dwciri:measurementType": iri(record["entity_id"]),
        }
        parent = None
        if record["kind"] != "distance":
            parent = record["record_key"]
            yield shared | _call(record, form)
        for measure in MEASURES:
            yield from (shared | row for row in _measure(record, measure, parent))


def _method(record: dict[str, Any]) -> str:
    return f"zero-shot localisation of trait pack '{record['pack']}', weights {record['weights_hash']}, frame: {FRAME}"


def _type(record: dict[str, Any]) -> str:
    """The character with its entity: ``caudal fin shape``, ``presence of adipose fin`` reads ``adipose fin``."""
    character, entity = readable(record["character"]), entity_of(record) or ""
    if record["kind"] == "part":
        return entity or readable(record["best_state"])
    return character if not entity or entity.casefold() in character.casefold() else f"{entity}: {character}"


def _call(record: dict[str, Any], form: Form) -> dict[str, Any]:
    chance = probability_of(record)
    probability = "" if chance is None else f"probability {chance:.3f}; "
    # A part is a fact of presence.
    value = "present" if record["kind"] == "part" else readable(record["state"] or "")
    quality = f"quality {record['quality']} ({record['quality_match']} match); " if record["quality"] else ""
    specimen = f"; specimen {record['specimen']}" if record["specimen_x"] is not None else ""
    media = "".join(f"; {term}: {text}" for term in ("rights", "creator") for text in address_and_words(record, term) if text)
    return {
        "measurementID": record["record_key"],
        "measurementType": _type(record),
        "measurementValue": value,
        "dwciri:measurementValue": iri(record["quality_id"]),
        "measurementAccuracy": confidence_of(record) or None,
        "measurementRemarks": f"{probability}{quality}{made_of(record)}{place_of(record)}; picture "
        f"{media_of(record, form.base)}{media}{specimen}",
    }


def _measure(record: dict[str, Any], measure: Any, parent: str | None) -> Iterator[dict[str, Any]]:
    value, uncertainty, unit = record[measure.value], record[measure.uncertainty], measure.unit
    if measure.metric and record[measure.metric[0]] is not None:
        value, uncertainty, unit = *(record[name] for name in measure.metric), unit.replace("px", "mm")
    if value is None or value != value:
        return
    distance = record["kind"] == "distance"
    text, identifier = UNITS[unit]
    yield {
        "measurementID": record["record_key"] + ("" if distance else f":{measure.name}"),
        "parentMeasurementID": parent,
        "measurementType": record["character"] if distance else f"{entity_of(record) or _type(record)} region {measure.name}",
        "measurementValue": value,
        "measurementAccuracy": uncertainty,
        "measurementUnit": text,
        "dwciri:measurementUnit": iri(identifier),
        "measurementRemarks": DISTANCE_MEANINGS.get(record["character"], "distance between parts") if distance else measure.meaning,
    }
