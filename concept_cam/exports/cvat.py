"""CVAT for images 1.1: an XML file to upload as annotations of a task that holds the same pictures.

A record with a region is a ``mask`` in CVAT's own run lengths (row by row within the mask's box, zeros first); one without is a
``tag``, so that its state can be set too. A label is a character, its ``state`` an attribute to choose; each part has a label of its
own (``parts: head``). Records that abstain stand as ``not called``. Pictures are named by the run's ``source``.
``verdict``, ``confidence`` and ``verdict_because`` say whether the map can be trusted: CVAT filters by them. Of what a person
decided in the run the last says who did (``reviewed by Ada (state)``), and the others are empty.
The format has no place for the input's columns: they are found again by ``record_key``.

Beside it stands ``NAME.labels.json``: the labels with all their attributes as CVAT's task constructor takes them ("Raw"). Make the task
with these labels *before* the annotations are uploaded: CVAT drops attributes that the task does not know, ``state`` and ``record_key``
among them.

Whoever goes through the pictures ticks ``reviewed`` at what was looked at, changed or not: ``concept-cam calibrate`` counts what is ticked,
and refuses a file in which nothing is ticked and every state is still the model's.

Read back with :func:`read_labels`, from an export of the task in the same format.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from concept_cam.collection.runs import Run
from concept_cam.core.documents import understood
from concept_cam.core.errors import DataError
from concept_cam.exports.survey import (
    FRAME,
    PACK_SEPARATOR,
    PART_SEPARATOR,
    PLAIN,
    REVIEWED,
    Form,
    Label,
    Survey,
    crop,
    has_region,
    is_reviewed,
    mask_of,
    probability_of,
    review_of,
    survey,
    when,
)

__all__ = ["LABELS_SUFFIX", "NOT_CALLED", "decode_mask", "encode_mask", "read_labels", "write"]

NOT_CALLED = "not called"
"""State of a record that abstains, and of one that a person leaves open."""

LABELS_SUFFIX = ".labels.json"
"""Of the file beside the annotations that lists the labels."""

_ATTRIBUTES = ("state", "specimen", "probability", "verdict", "confidence", "verdict_because", "record_key", REVIEWED)


def encode_mask(mask: np.ndarray) -> dict[str, str]:
    """Returns CVAT's attributes of a mask: ``rle``, ``left``, ``top``, ``width``, ``height``.

    Args:
        mask: bool [H, W] with at least one True pixel.
    """
    inside, left, top = crop(mask)
    values = inside.ravel()
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [values.size]])
    runs = np.diff(bounds).tolist()
    if values[0]:
        runs.insert(0, 0)
    return {
        "rle": ", ".join(map(str, runs)),
        "left": str(left),
        "top": str(top),
        "width": str(inside.shape[1]),
        "height": str(inside.shape[0]),
    }


def decode_mask(attributes: dict[str, str], size: tuple[int, int]) -> np.ndarray:
    """Returns the mask, bool [H, W], that CVAT's attributes describe.

    Args:
        attributes: As :func:`encode_mask` returns them.
        size: ``(H, W)`` of the picture.

    Raises:
        DataError: The run lengths do not fill the mask's box, or the box leaves the picture.
    """
    runs = [int(text) for text in attributes["rle"].split(",")]
    left, top, width, height = (int(attributes[name]) for name in ("left", "top", "width", "height"))
    if sum(runs) != width * height:
        raise DataError(f"CVAT mask: run lengths sum to {sum(runs)}, expected {width} x {height}.")
    if min(left, top) < 0 or top + height > size[0] or left + width > size[1]:
        raise DataError(f"CVAT mask: box {left, top, width, height} leaves the picture of {size[1]} x {size[0]} pixels.")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = values
    return mask


def _text(value: Any) -> str:
    # XML 1.0 has no form for most control characters, which file names may hold.
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(value))


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run as one CVAT for images 1.1 file, and the labels for the task constructor beside it."""
    found = survey(run)
    labels = [_constructor_label(*label) for label in _labels(found)]
    path.with_name(path.name + LABELS_SUFFIX).write_text(json.dumps(labels, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        file.write(_serialise(_meta(run, found)))
        for number, records in enumerate(run.pictures()):
            file.write(_serialise(_image(number, records, found)))
        file.write("</annotations>\n")


def _serialise(element: ET.Element) -> str:
    ET.indent(element, level=1)
    return f"  {ET.tostring(element, encoding='unicode').strip()}\n"


def _leaf(parent: ET.Element, tag: str, text: Any) -> ET.Element:
    element = ET.SubElement(parent, tag)
    element.text = _text(text)
    return element


def _meta(run: Run, found: Survey) -> ET.Element:
    meta = ET.Element("meta")
    task = ET.SubElement(meta, "task")
    _leaf(task, "name", run.name)
    _leaf(task, "size", found.pictures)
    _leaf(task, "mode", "annotation")
    _leaf(task, "created", when(run))
    _leaf(task, "frame", FRAME)
    labels = ET.SubElement(task, "labels")
    for label in _labels(found):
        _label(labels, *label)
    return meta


def _labels(found: Survey) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Name, states and default state of every label."""
    for (pack, character), states in found.states.items():
        kind, name = found.kinds[pack, character], found.name(pack, character)
        if kind == "part":
            for part in states:
                yield f"{name}{PART_SEPARATOR}{part}", (part, NOT_CALLED), part
        elif kind != "distance":
            yield name, (*states, NOT_CALLED), NOT_CALLED


def _attributes(states: tuple[str, ...], default: str) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Name, input type, default value and values of every attribute of a label."""
    for name in _ATTRIBUTES:
        if name == "state":
            yield name, "select", default, states
        elif name == REVIEWED:
            yield name, "checkbox", "false", ("false",)
        else:
            yield name, "text", "", ()


def _constructor_label(name: str, states: tuple[str, ...], default: str) -> dict[str, Any]:
    """A label as CVAT's task constructor takes it."""
    attributes = [
        {"name": attribute, "mutable": False, "input_type": kind, "default_value": value, "values": list(values) or [""]}
        for attribute, kind, value, values in _attributes(states, default)
    ]
    return {"name": _text(name), "type": "any", "attributes": attributes}


def _label(labels: ET.Element, name: str, states: tuple[str, ...], default: str) -> None:
    label = ET.SubElement(labels, "label")
    _leaf(label, "name", name)
    attributes = ET.SubElement(label, "attributes")
    for attribute, kind, value, values in _attributes(states, default):
        element = ET.SubElement(attributes, "attribute")
        _leaf(element, "name", attribute)
        _leaf(element, "mutable", "False")
        _leaf(element, "input_type", kind)
        _leaf(element, "default_value", value)
        _leaf(element, "values", "\n".join(values))


def _image(number: int, records: list[dict[str, Any]], found: Survey) -> ET.Element:
    first = records[0]
    image = ET.Element(
        "image",
        id=str(number),
        name=_text(first["source"]),
        width=str(first["image_width"]),
        height=str(first["image_height"]),
    )
    shapes = [record for record in records if record["kind"] != "distance"]
    # CVAT's own order: shapes first, then tags.
    for record in (record for record in shapes if has_region(record)):
        mask = encode_mask(mask_of(record))
        attributes = {
            "label": _name(record, found),
            "source": "auto",
            "occluded": "0",
            **mask,
            "z_order": "0",
        }
        element = ET.SubElement(image, "mask", attributes)
        _values(element, record)
    for record in (record for record in shapes if not has_region(record)):
        _values(ET.SubElement(image, "tag", label=_name(record, found), source="auto"), record)
    return image


def _name(record: dict[str, Any], found: Survey) -> str:
    name = found.name(record["pack"], record["character"])
    return _text(f"{name}{PART_SEPARATOR}{record['best_state']}" if record["kind"] == "part" else name)


def _values(element: ET.Element, record: dict[str, Any]) -> None:
    probability = probability_of(record)
    values = {
        "state": record["state"] or NOT_CALLED,
        "specimen": record["specimen"],
        "probability": "" if probability is None else f"{probability:.4f}",
        "verdict": record.get("verdict") or "",
        "confidence": "" if record.get("confidence") is None else f"{record['confidence']:.4f}",
        "verdict_because": review_of(record) or record.get("verdict_because") or "",
        "record_key": record["record_key"],
        # A call that was accepted says nothing of its mask: whoever looks at that ticks it.
        REVIEWED: "false",
    }
    for name in _ATTRIBUTES:
        _leaf(element, "attribute", values[name]).set("name", name)


def read_labels(path: str | Path) -> list[Label]:
    """Reads the states that people set in CVAT back, one per picture, specimen and character (and part).

    Labels whose state is ``not called`` are left out, unless they are ticked: then their state is empty. Where a character was labelled
    twice the same way, it is listed once.

    Args:
        path: An ``annotations.xml`` in the format CVAT for images 1.1.

    Raises:
        DataError: The file cannot be read, is not of that format, or gives one character two different states.
    """
    labels: dict[tuple[str, str, str, int], Label] = {}
    with understood(path):
        found = list(_read(Path(path)))
    for label in found:
        key = (label.file_name, label.pack, label.character, label.specimen)
        known = labels.setdefault(key, label)
        if not (known.state and label.state):
            labels[key] = replace(known, state=known.state or label.state, reviewed=known.reviewed or label.reviewed)
            continue
        if label.reviewed:
            labels[key] = label
        if known.state != label.state:
            raise DataError(
                f"{path}: {label.file_name!r} has two states of {label.character!r}: {known.state!r} and {label.state!r}. "
                "Keep one, or give the specimens their numbers."
            )
    return [_split_part(label) for label in labels.values()]


def _split_part(label: Label) -> Label:
    character, separator, _ = label.character.partition(PART_SEPARATOR)
    return replace(label, character=character) if separator else label


def _read(path: Path) -> Iterator[Label]:
    try:
        events = ET.iterparse(path, events=("start", "end"))
        image, root = "", None
        for event, element in events:
            if event == "start":
                root = element if root is None else root
                if root.tag != "annotations":
                    raise DataError(f"{path} is not an annotation file of CVAT: its root is <{root.tag}>, not <annotations>.")
                if element.tag == "track":
                    raise DataError(f"{path} holds video tracks. Export the task from CVAT as 'CVAT for images 1.1'.")
                image = element.get("name", "") if element.tag == "image" else image
            elif element.tag in ("mask", "tag", "box", "polygon", "points", "polyline", "ellipse"):
                label = _read_label(image, element)
                if label.state != NOT_CALLED:
                    yield label
                elif label.reviewed:
                    yield replace(label, state="")
            elif element.tag == "image":
                element.clear()
    except ET.ParseError as error:
        raise DataError(f"{path} is not an XML file of CVAT: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_label(image: str, element: ET.Element) -> Label:
    values = {attribute.get("name", ""): attribute.text or "" for attribute in element.iter("attribute")}
    name = element.get("label", "")
    head, _, part = name.partition(PART_SEPARATOR)
    pack, separator, _ = head.partition(PACK_SEPARATOR)
    character = name.removeprefix(pack + separator) if separator else name
    state = values.get("state") or (part or NOT_CALLED)
    specimen = values.get("specimen", "")
    number = int(specimen) if specimen.isdigit() else 0
    return Label(image, character, state, pack if separator else "", number, is_reviewed(values.get(REVIEWED)))
