"""W3C Web Annotation: one annotation page (JSON-LD) with an annotation per call.

The target is the picture with two selectors: the region's box as a media fragment and its outline as SVG, both in pixels of the upright
picture. The bodies are the call as text and, where the pack gives them, the ontology addresses of the quality and the entity.
A record that has no region targets the whole picture; a distance is a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from concept_cam.collection.runs import Run
from concept_cam.exports.survey import (
    FRAME,
    PLAIN,
    Form,
    address_and_words,
    called,
    carried,
    entity_of,
    has_region,
    iri,
    media_of,
    place_of,
    probability_of,
    readable,
    review_of,
    trust_of,
    when,
    write_json,
)

__all__ = ["svg", "write"]

CONTEXT = "http://www.w3.org/ns/anno.jsonld"


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run as one annotation page."""
    head = {
        "@context": CONTEXT,
        "id": f"urn:concept-cam:run:{quote(run.name)}",
        "type": "AnnotationPage",
        "label": f"concept-cam annotation run {run.name}; frame: {FRAME}",
    }
    write_json(path, head, items=_annotations(run, form))


def svg(record: dict[str, Any]) -> str:
    """Returns a record's outline as an SVG document in pixels of the upright picture; empty when it has none."""
    size = f'width="{record["image_width"]}" height="{record["image_height"]}"'
    line = record["kind"] == "distance"
    paths = []
    for flat in record["contour"] or ():
        points = [f"{x:.6g},{y:.6g}" for x, y in zip(flat[0::2], flat[1::2], strict=True)]
        if points:
            paths.append(f"M{' L'.join(points)}" + ("" if line else " Z"))
    if not paths:
        return ""
    # Holes are outlines too: the even-odd rule leaves them out.
    style = 'fill="none" stroke="black"' if line else 'fill-rule="evenodd"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><path {style} d="{" ".join(paths)}"/></svg>'


def _annotations(run: Run, form: Form) -> Iterator[dict[str, Any]]:
    for record in called(run):
        date = when(run, record)
        if record["kind"] == "distance" and record["length_px"] is None:
            continue
        annotation: dict[str, Any] = {
            "id": f"urn:concept-cam:{record['record_key']}",
            "type": "Annotation",
            "motivation": "describing" if record["kind"] == "distance" else "classifying",
            "creator": {"type": "Software", "name": f"concept-cam {record['package_version']}"},
            "body": _bodies(record),
            "target": _target(record, form),
        }
        if record["reviewed"] is not None:
            person = {"type": "Person", "name": record["reviewed_by"]} if record["reviewed_by"] else {"type": "Person"}
            annotation["creator"] = [person, annotation["creator"]]
        if date:
            annotation["created"] = date
        # The term "rights" of the vocabulary asks for an IRI; words have a term of their own.
        licence, words = address_and_words(record, "rights")
        annotation["target"] |= {key: value for key, value in (("rights", licence), ("dc:rights", words)) if value}
        address, name = address_and_words(record, "creator")
        if address or name:
            annotation["target"]["creator"] = {"id": address, "name": name} if address and name else address or {"name": name}
        yield annotation


def _bodies(record: dict[str, Any]) -> list[dict[str, Any]]:
    terms = ("occurrenceID", "materialEntityID", "catalogNumber", "scientificName")
    about = [_text(f"{term}: {text}", "identifying") for term in terms if (text := carried(record, term))]
    return _call_bodies(record) + about


def _call_bodies(record: dict[str, Any]) -> list[dict[str, Any]]:
    character = readable(record["character"])
    if record["kind"] == "distance":
        metric = record["length_mm"] is not None
        value = record["length_mm"] if metric else record["length_px"]
        return [_text(f"{record['character']}: {value:.6g} {'mm' if metric else 'px'}", "describing")]
    chance, review = probability_of(record), review_of(record)
    sure = "" if chance is None else f" (probability {chance:.3f})"
    said = f", then {review}" if review else trust_of(record)
    bodies = [
        _text(f"{character}: {readable(record['state'] or '')}", "tagging"),
        _text(f"{entity_of(record) or character}{sure}, model {record['model']}{said}{place_of(record)}", "describing"),
    ]
    for address in (iri(record["quality_id"]), iri(record["entity_id"])):
        if address:
            bodies.append({"type": "SpecificResource", "source": address, "purpose": "classifying"})
    return bodies


def _text(value: str, purpose: str) -> dict[str, Any]:
    return {
        "type": "TextualBody",
        "value": value,
        "format": "text/plain",
        "language": "en",
        "purpose": purpose,
    }


def _target(record: dict[str, Any], form: Form) -> dict[str, Any]:
    target: dict[str, Any] = {"type": "SpecificResource", "source": media_of(record, form.base)}
    selectors = []
    if has_region(record):
        box = ",".join(str(record[f"box_{side}"]) for side in ("x", "y", "width", "height"))
        standard = "http://www.w3.org/TR/media-frags/"
        selectors.append({"type": "FragmentSelector", "conformsTo": standard, "value": f"xywh=pixel:{box}"})
    if outline := svg(record):
        selectors.append({"type": "SvgSelector", "value": outline})
    if selectors:
        target["selector"] = selectors if len(selectors) > 1 else selectors[0]
    return target
