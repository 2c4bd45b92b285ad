"""Audiovisual Core regions of interest as CSV: one row per region, in fractions of the upright picture.

The standard knows rectangles (and circles), no masks: the region's box is written. Fractions carry ten decimals, enough to round back
to the same pixel in any picture; position plus size never exceeds one. ``ac:subjectPart`` is given where the entity, or the head noun
of its label, is one of the standard's values. The picture's specimen, species, rights and creator are those of the input's columns.
Distances and records without a region or a call are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from concept_cam.collection.runs import Run
from concept_cam.exports.survey import (
    FRAME,
    PLAIN,
    Form,
    address_and_words,
    agent,
    called,
    carried,
    entity_of,
    has_region,
    iri,
    made_of,
    media_of,
    place_of,
    readable,
    trust_of,
    write_csv,
)

__all__ = ["MEDIA_COLUMNS", "SUBJECT_PARTS", "fractions", "subject_part", "write"]

MEDIA_COLUMNS: tuple[str, ...] = (
    "dcterms:identifier",
    "ac:isROIOf",
    "ac:xFrac",
    "ac:yFrac",
    "ac:widthFrac",
    "ac:heightFrac",
    "ac:associatedSpecimenReference",
    "dwc:scientificName",
    "dcterms:rights",
    "dc:rights",
    "dcterms:creator",
    "dc:creator",
    "ac:subjectPart",
    "ac:subjectPartLiteral",
    "dcterms:description",
    "Iptc4xmpExt:CVterm",
    "ac:CVtermLiteral",
    "ac:tag",
    "ac:comments",
    "ac:metadataCreatorLiteral",
    "ac:hashFunction",
    "ac:hashValue",
)
"""Terms of Audiovisual Core, in the order of the columns; ``ac:hashValue`` is the picture's."""

SUBJECT_PARTS: dict[str, str] = {
    "entire organism": "p0001",
    "bark": "p0002",
    "twig": "p0003",
    "stem": "p0004",
    "leaf": "p0005",
    "strobilis (cone)": "p0006",
    "inflorescence": "p0007",
    "fruit": "p0008",
    "seed": "p0009",
    "male cone": "p0010",
    "female cone": "p0011",
    "flower": "p0012",
    "head": "p0013",
    "thorax": "p0014",
    "abdomen": "p0015",
    "leg": "p0016",
    "wing": "p0017",
    "antenna": "p0018",
    "forewing": "p0019",
    "hindwing": "p0020",
    "foreleg": "p0021",
    "midleg": "p0022",
    "hindleg": "p0023",
    "eye": "p0024",
    "shell": "p0025",
    "genitalia": "p0026",
    "skull": "p0027",
    "cranium": "p0028",
    "mandible": "p0029",
    "fin": "p0030",
    "egg": "p0031",
    "bud": "p0032",
}
"""The standard's controlled values of ``ac:subjectPart``: label -> local name under ``SUBJECT_PART_ADDRESS``."""

SUBJECT_PART_ADDRESS = "http://rs.tdwg.org/acpart/values/"

_ONE = Decimal(1)
_STEP = Decimal("1e-10")


def subject_part(entity: str | None) -> str | None:
    """Returns the address of the controlled value for an entity: by its label, else by the label's last word (``caudal fin``: fin)."""
    label = (entity or "").casefold().strip()
    local = SUBJECT_PARTS.get(label) or SUBJECT_PARTS.get(label.rpartition(" ")[2])
    return SUBJECT_PART_ADDRESS + local if local else None


def fractions(start: int, size: int, whole: int) -> tuple[str, str]:
    """Returns position and size of a box's side as fractions of the picture's side.

    Args:
        start: First pixel.
        size: Number of pixels, at least 1.
        whole: Pixels of the picture's side.

    Returns:
        Decimal texts with ten digits; both ends round back to the same pixel, and their sum is at most one.
    """
    position = (Decimal(start) / whole).quantize(_STEP)
    extent = min((Decimal(size) / whole).quantize(_STEP), _ONE - position)
    return f"{position:f}", f"{extent:f}"


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run's regions of interest as one CSV file."""
    write_csv(path, MEDIA_COLUMNS, _rows(run, form), form)


def _rows(run: Run, form: Form) -> Iterator[dict[str, Any]]:
    for record in called(run):
        if record["kind"] == "distance" or not has_region(record):
            continue
        x, width = fractions(record["box_x"], record["box_width"], record["image_width"])
        y, height = fractions(record["box_y"], record["box_height"], record["image_height"])
        state = readable(record["state"] or "")
        yield {
            "dcterms:identifier": f"urn:concept-cam:{record['record_key']}",
            "ac:isROIOf": media_of(record, form.base),
            "ac:xFrac": x,
            "ac:yFrac": y,
            "ac:widthFrac": width,
            "ac:heightFrac": height,
            "ac:associatedSpecimenReference": carried(record, "occurrenceID") or carried(record, "materialEntityID"),
            "dwc:scientificName": carried(record, "scientificName"),
            **_owners(record),
            "ac:subjectPart": subject_part(record["entity"]),
            "ac:subjectPartLiteral": entity_of(record),
            "dcterms:description": f"{readable(record['character'])}: {state}{place_of(record)}",
            "Iptc4xmpExt:CVterm": iri(record["quality_id"]) or iri(record["entity_id"]),
            "ac:CVtermLiteral": record["quality"] or state,
            "ac:tag": state,
            "ac:comments": f"Fractions of the {FRAME.split(';')[0]}; {_made(record)}.",
            "ac:metadataCreatorLiteral": agent(record),
            "ac:hashFunction": "SHA-256",
            "ac:hashValue": record["sha256"],
        }


def _owners(record: dict[str, Any]) -> dict[str, str]:
    """Rights and creator: an IRI under the ``dcterms:`` term, which asks for one, free text under that of ``dc:``."""
    said = {}
    for term in ("rights", "creator"):
        said[f"dcterms:{term}"], said[f"dc:{term}"] = address_and_words(record, term)
    return {key: value for key, value in said.items() if value}


def _made(record: dict[str, Any]) -> str:
    """How the call came about: a person's word needs no probability."""
    if record["reviewed"] is not None:
        return made_of(record)
    return f"machine-made, probability {_probability(record)}{trust_of(record)}"


def _probability(record: dict[str, Any]) -> str:
    return "unknown" if record["probability"] is None else f"{record['probability']:.3f}"
