"""Label Studio: tasks with predictions, and the labelling configuration that they fit.

The folder holds ``tasks.json`` (import it into a project) and ``label_config.xml`` (paste it under Settings, Labeling Interface,
first). A record's region is a brush mask in Label Studio's own run lengths and a box in percent of the picture; a called state is a
choice named after its character. Where the run has specimen boxes, every box is a region ``specimen`` and the choices belong to it; the
other regions carry the specimen's number in their ids.
Pictures are referred to by their public URI, else behind the form's ``base``, else as ``/data/local-files/?d=FOLDER/SOURCE`` of Label
Studio's local storage, where FOLDER is the input's folder: the storage's document root must be the folder *above* it, since Label Studio
refuses to serve files that lie directly in its root. ``README.txt`` in the export says how, in four steps. Label Studio shows pictures
upright, as the coordinates expect.

Whether a map can be trusted stands in the note of its regions; ``least_confidence`` and the counts of verdicts (``maps_clear``,
``maps_doubtful`` ...) are columns of the Data Manager, to filter and sort by.

Read back with :func:`read_labels`, from an export of the project as JSON.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np

from concept_cam.collection.runs import Run
from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import DataError
from concept_cam.core.plain import plain_json
from concept_cam.exports.survey import (
    FRAME,
    PACK_SEPARATOR,
    PART_SEPARATOR,
    PLAIN,
    Form,
    Label,
    Survey,
    crop,
    decided,
    has_region,
    mask_of,
    media_of,
    passthrough_of,
    probability_of,
    review_of,
    survey,
    trust_of,
    write_elements,
)
from concept_cam.trust.verdicts import TRUST_VERDICTS

__all__ = [
    "CONFIG_FILE",
    "README_FILE",
    "TASKS_FILE",
    "decode_brush",
    "encode_brush",
    "label_config",
    "read_labels",
    "write",
]

TASKS_FILE = "tasks.json"
CONFIG_FILE = "label_config.xml"
README_FILE = "README.txt"

_HOW_TO_OPEN = """How to open this in Label Studio

1. Start Label Studio so that it may read the pictures. The document root is the folder above them:
     LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true \\
     LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={above} label-studio start
2. Make a project. Under Settings, Labeling Interface, Code: paste label_config.xml, and save.
3. Under Settings, Cloud Storage, Add Source Storage, Local files: give the absolute path {above}/{folder}, and add the storage.
   Do not sync it: the tasks below name the pictures already.
4. Import tasks.json. Every task shows its picture with the predictions; correct them and submit.

Then export the project as JSON (not JSON-MIN) and read the labels back:  concept-cam calibrate RUN --labels export.json -o limits.yaml
"""

_CONTROLS = ("image", "mask", "box")
"""Names that the configuration gives to the picture, the brush and the rectangles."""

CHARACTER_TAIL = " (character)"
"""Put behind the name of a character whose control would have that of another control."""

_SPECIMEN = "specimen"
_EXPORTED_ID = re.compile(r".+?(?:-s(?P<specimen>[0-9]+))?-(?:mask|box)")
"""Id of a region that :func:`write` wrote; exports of earlier versions have no number in it."""

_WORD_SIZE = 8
_RUN_SIZES = (3, 4, 8, 16)
"""Bits in which a run's length less one is stored; the shortest that holds it is taken."""

Box = tuple[float, float, float, float]
"""``(x, y, width, height)`` in percent of the picture, as Label Studio states boxes."""

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#B59F00")
"""Okabe and Ito's colours, which people with any colour vision tell apart."""


# ------------------------------------------------------------------------------------------------------ brush run lengths


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encodes a mask as Label Studio's brush does: bit-packed runs over RGBA values, row by row (the format ``rle-pack``).

    Args:
        mask: bool [H, W] of fewer than 2^30 pixels.

    Returns:
        Bytes as integers 0..255.
    """
    values = np.asarray(mask, dtype=bool).ravel()
    edges = np.flatnonzero(np.diff(values)) + 1
    bounds = np.concatenate([[0], edges, [values.size]])
    lengths = np.diff(bounds) * 4  # Four channels, all equal.
    bits = [f"{values.size * 4:032b}", f"{_WORD_SIZE - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_SIZES)]
    inside = bool(values[0]) if values.size else False
    for length in lengths.tolist():
        word = "11111111" if inside else "00000000"
        while length > 0:
            step = min(length, 1 << _RUN_SIZES[-1])
            index = next(index for index, size in enumerate(_RUN_SIZES) if step <= 1 << size)
            bits.append(f"1{index:02b}{step - 1:0{_RUN_SIZES[index]}b}{word}")
            length -= step
        inside = not inside
    text = "".join(bits)
    text += "0" * (8 - len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(rle: list[int], size: tuple[int, int]) -> np.ndarray:
    """Decodes Label Studio's brush run lengths to bool [H, W]; a pixel belongs to the mask where its alpha is not zero.

    Raises:
        DataError: The run lengths do not fill the picture.
    """
    text = "".join(f"{byte:08b}" for byte in rle)
    position = 0

    def read(count: int) -> int:
        nonlocal position
        if position + count > len(text):
            raise DataError("Label Studio brush: the run lengths end too early.")
        position += count
        return int(text[position - count : position], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if total != size[0] * size[1] * 4:
        raise DataError(f"Label Studio brush: holds {total // 4} pixels, expected {size[0]} x {size[1]}.")
    values = np.zeros(total, dtype=np.uint8)
    start = 0
    while start < total:
        repeated = read(1)
        end = start + 1 + read(sizes[read(2)])
        if repeated:
            values[start:end] = read(word)
        else:
            values[start:end] = [read(word) for _ in range(start, end)]
        start = end
    return values.reshape(*size, 4)[:, :, 3] > 0


# ------------------------------------------------------------------------------------------------------------------ write


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes ``tasks.json``, ``label_config.xml`` and ``README.txt`` into the folder ``path``."""
    found = survey(run)
    root = str((run.info.get("input") or {}).get("root") or "")
    above, folder = os.path.split(root.rstrip("/\\")) if root and "://" not in root else ("", "")
    (path / README_FILE).write_text(
        _HOW_TO_OPEN.format(above=above or "/folder/above/the/pictures", folder=folder or "photos"), encoding="utf-8"
    )
    (path / CONFIG_FILE).write_text(label_config(found), encoding="utf-8")
    with (path / TASKS_FILE).open("w", encoding="utf-8") as file:
        file.write("[")
        write_elements(file, (_task(records, found, form.base, folder) for records in run.pictures()))
        file.write("\n]\n")


def label_config(found: Survey) -> str:
    """Returns the labelling configuration for what a run holds."""
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true", rotateControl="false")
    names = [name for key in found.states for name in _label_names(found, key)]
    for tag, control in (("BrushLabels", "mask"), ("RectangleLabels", "box")):
        labels = ET.SubElement(view, tag, name=control, toName="image")
        for index, name in enumerate(names):
            ET.SubElement(labels, "Label", value=name, background=_COLOURS[index % len(_COLOURS)])
        if control == "box" and found.specimens:
            ET.SubElement(labels, "Label", value=_SPECIMEN, background="#888888")
    for (pack, character), states in found.states.items():
        if found.kinds[pack, character] in ("part", "distance"):
            continue
        name = found.name(pack, character)
        ET.SubElement(view, "Header", value=name.replace("_", " "), size="5")
        choices = ET.SubElement(view, "Choices", name=_control(name), toName="image", choice="single-radio", showInline="true")
        if found.specimens:
            choices.attrib.update(perRegion="true", whenTagName="box", whenLabelValue=_SPECIMEN)
        for state in states:
            ET.SubElement(choices, "Choice", value=state)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def _label_names(found: Survey, key: tuple[str, str]) -> list[str]:
    kind, name = found.kinds[key], found.name(*key)
    if kind == "part":
        return [f"{name}{PART_SEPARATOR}{part}" for part in found.states[key]]
    return [] if kind == "distance" else [name]


def _task(records: list[dict[str, Any]], found: Survey, base: str | None = None, folder: str = "") -> dict[str, Any]:
    first = records[0]
    data = {
        **passthrough_of(first),
        "image": _address(first, base, folder),
        "source": first["source"],
        "image_key": first["image_key"],
        "frame": FRAME,
        **_trust(records),
    }
    size = {
        "original_width": first["image_width"],
        "original_height": first["image_height"],
        "image_rotation": 0,
    }
    results = list(_specimens(records)) if found.specimens else []
    for record in records:
        if record["kind"] != "distance":
            results += _results(record, found)
    for result in results:
        result.update(size, to_name="image")
    sure = [chance for record in records if not record["abstained"] and (chance := probability_of(record)) is not None]
    prediction: dict[str, Any] = {
        "model_version": f"{first['model']} (concept-cam {first['package_version']})",
        "result": results,
    }
    if sure or not any(map(decided, records)):
        prediction["score"] = float(np.mean(sure)) if sure else 0.0
    return cast("dict[str, Any]", plain_json({"data": data, "predictions": [prediction]}))


def _trust(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the task's data says of trust: columns by which the Data Manager filters and sorts, so that doubtful pictures come first."""
    verdicts = [record["verdict"] for record in records if record.get("verdict")]
    sure = [record["confidence"] for record in records if record.get("confidence") is not None and not record["abstained"]]
    if not verdicts:
        return {}
    counts = {f"maps_{verdict.replace(' ', '_')}": verdicts.count(verdict) for verdict in TRUST_VERDICTS}
    return {**counts, "least_confidence": min(sure) if sure else None}


def _note(record: dict[str, Any]) -> dict[str, Any]:
    """What a person or the certificate says of a record, as the note of its regions."""
    said = review_of(record) or trust_of(record).removeprefix("; ")
    return {"meta": {"text": [said]}} if said else {}


def _address(record: dict[str, Any], base: str | None, folder: str) -> str:
    source = str(record["source"])
    if record["media_uri"] or "://" in source or base is not None:
        return media_of(record, base)
    return f"/data/local-files/?d={quote(f'{folder}/{source}' if folder else source)}"


def _control(name: str) -> str:
    """Name of a character's choices: that of another control of the configuration gets a tail, for every name may stand once."""
    return f"{name}{CHARACTER_TAIL}" if name in _CONTROLS else name


def _specimens(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number in dict.fromkeys(record["specimen"] for record in records):
        record = next(record for record in records if record["specimen"] == number)
        if record["specimen_x"] is not None:
            edges = [record[f"specimen_{side}"] for side in ("x", "y", "width", "height")]
            yield {
                "id": f"{_SPECIMEN}-{number}",
                "type": "rectanglelabels",
                "from_name": "box",
                "value": {**_percent(edges, record), "rotation": 0, "rectanglelabels": [_SPECIMEN]},
            }


def _percent(box: list[int], record: dict[str, Any]) -> dict[str, float]:
    x, y, width, height = box
    across, down = 100 / record["image_width"], 100 / record["image_height"]
    return {
        "x": x * across,
        "y": y * down,
        "width": min(width * across, 100 - x * across),
        "height": min(height * down, 100 - y * down),
    }


def _results(record: dict[str, Any], found: Survey) -> Iterator[dict[str, Any]]:
    name = found.name(record["pack"], record["character"])
    part = record["kind"] == "part"
    key, specimen = record["record_key"], record["specimen"]
    if has_region(record) and not (part and record["abstained"]):
        label = f"{name}{PART_SEPARATOR}{record['best_state']}" if part else name
        chance = probability_of(record)
        sure = _note(record) | ({} if chance is None else {"score": chance})
        brush = {"format": "rle", "rle": encode_brush(mask_of(record)), "brushlabels": [label]}
        region = f"{key}-s{specimen}"
        yield {"id": f"{region}-mask", "type": "brushlabels", "from_name": "mask", "value": brush, **sure}
        edges = [record[f"box_{side}"] for side in ("x", "y", "width", "height")]
        box = {**_percent(edges, record), "rotation": 0, "rectanglelabels": [label]}
        yield {"id": f"{region}-box", "type": "rectanglelabels", "from_name": "box", "value": box, **sure}
    if record["state"] is not None and not part:
        choice: dict[str, Any] = {
            "type": "choices",
            "from_name": _control(name),
            "value": {"choices": [record["state"]]},
        }
        if not found.specimens:
            yield {"id": f"{key}-state", **choice}
        elif record["specimen_x"] is not None:
            # A choice of a region carries the region's id and geometry.
            edges = [record[f"specimen_{side}"] for side in ("x", "y", "width", "height")]
            choice["value"] |= {**_percent(edges, record), "rotation": 0}
            yield {"id": f"{_SPECIMEN}-{specimen}", **choice}


# ------------------------------------------------------------------------------------------------------------------- read


def read_labels(path: str | Path) -> list[Label]:
    """Reads the states that people set in Label Studio back, one per picture, specimen and character (and part).

    Of several annotations of a task the one changed last counts; skipped ones do not. Predictions that nobody looked at are not read; an
    annotation that a person submitted is reviewed. A part that a person drew belongs to the exported specimen box that covers most of it,
    and to specimen 0 where none does; boxes are taken as upright.

    Args:
        path: A project's export in Label Studio's format JSON (not JSON-MIN).

    Raises:
        DataError: The file cannot be read or is not of that format, or a brush region that a person drew is damaged.
    """
    path = Path(path)
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise DataError(f"{path} is not a JSON export of Label Studio: expected a list of tasks, each with 'data'.")
    labels: dict[Label, None] = {}
    for number, task in enumerate(tasks):
        if "annotations" not in task and "predictions" not in task:
            raise DataError(f"{path}: task {number} has no 'annotations'. Export the project as JSON, not as JSON-MIN.")
        source = task["data"].get("source") if isinstance(task["data"], dict) else None
        if not isinstance(source, str):
            raise DataError(f"{path}: task {number} has no 'source' in its data; only tasks that this package exported can be read back.")
        with understood(f"{path}: task {number}"):
            kept = [annotation for annotation in task.get("annotations") or () if not annotation.get("was_cancelled")]
            if kept:
                latest = max(kept, key=lambda annotation: str(annotation.get("updated_at") or ""))
                labels.update(dict.fromkeys(_texts_only(_read_results(source, latest.get("result") or ()))))
    return list(labels)


def _texts_only(labels: Iterable[Label]) -> Iterator[Label]:
    for label in labels:
        if not all(isinstance(text, str) for text in (label.character, label.state, label.pack)):
            raise DataError(f"the state {str(label.state)[:80]!r} of {str(label.character)[:80]!r} is no text.")
        yield label


def _read_results(source: str, results: Sequence[Mapping[str, Any]]) -> Iterator[Label]:
    specimens = dict(_specimen_boxes(results))
    for result in results:
        value = result.get("value") or {}
        if result.get("type") == "choices":
            pack, character = _split(str(result.get("from_name", "")).removesuffix(CHARACTER_TAIL))
            specimen = _specimen_number(_region_id(result)) or 0
            yield from (Label(source, character, state, pack, specimen, True) for state in value.get("choices") or ())
        elif result.get("type") in ("brushlabels", "rectanglelabels"):
            for name in value.get(result["type"]) or ():
                head, separator, part = name.partition(PART_SEPARATOR)
                if separator:
                    pack, character = _split(head)
                    yield Label(source, character, part, pack, _specimen_of_region(source, result, specimens), True)


def _split(name: str) -> tuple[str, str]:
    pack, separator, character = name.partition(PACK_SEPARATOR)
    return (pack, character) if separator else ("", name)


def _region_id(result: Mapping[str, Any]) -> str:
    # Label Studio may append "#" and the annotation's id.
    return str(result.get("id", "")).partition("#")[0]


def _specimen_number(region: str) -> int | None:
    head, _, number = region.rpartition("-")
    return int(number) if head == _SPECIMEN and number.isdigit() else None


def _specimen_boxes(results: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Box]]:
    for result in results:
        number, box = _specimen_number(_region_id(result)), _rectangle(result)
        if number is not None and box is not None and result.get("type") == "rectanglelabels":
            yield number, box


def _specimen_of_region(source: str, result: Mapping[str, Any], specimens: Mapping[int, Box]) -> int:
    """Returns the number in the id of a region that was exported; else finds the specimen by where the region was drawn."""
    exported = _EXPORTED_ID.fullmatch(_region_id(result))
    if exported:
        return int(exported["specimen"] or 0)
    box = _extent(source, result) if specimens else None
    if box is None:
        return 0
    # Of boxes within one another, which cover it equally, the smallest is meant.
    cover = {number: (_overlap(box, found), -found[2] * found[3]) for number, found in specimens.items()}
    best = max(cover, key=cover.__getitem__)
    return best if cover[best][0] > 0 else 0


def _extent(source: str, result: Mapping[str, Any]) -> Box | None:
    """Returns the box around a region, in percent of the picture; None where it has none."""
    return _brush_box(source, result) if result.get("type") == "brushlabels" else _rectangle(result)


def _rectangle(result: Mapping[str, Any]) -> Box | None:
    value = result.get("value") or {}
    edges = [value[name] for name in ("x", "y", "width", "height") if isinstance(value.get(name), int | float)]
    return (edges[0], edges[1], edges[2], edges[3]) if len(edges) == 4 else None


def _brush_box(source: str, result: Mapping[str, Any]) -> Box | None:
    rle = (result.get("value") or {}).get("rle")
    width, height = result.get("original_width"), result.get("original_height")
    if not rle or not width or not height:
        return None
    try:
        mask = decode_brush(rle, (height, width))
    except DataError as error:
        raise DataError(
            f"{source!r}: the specimen of the brush region {result.get('id')!r} cannot be found. {error} "
            "Delete the region in Label Studio, or draw it again."
        ) from error
    if not mask.any():
        return None
    inside, left, top = crop(mask)
    rows, columns = inside.shape
    return left / width * 100, top / height * 100, columns / width * 100, rows / height * 100


def _overlap(one: Box, two: Box) -> float:
    across, down = (min(one[axis] + one[axis + 2], two[axis] + two[axis + 2]) - max(one[axis], two[axis]) for axis in (0, 1))
    return max(0.0, across) * max(0.0, down)
