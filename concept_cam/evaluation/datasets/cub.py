"""CUB-200-2011 (Wah et al. 2011) in its published layout: part points, attributes, bounding boxes; masks where its segmentations lie
beside.

::

    images.txt, bounding_boxes.txt, train_test_split.txt, images/<class>/<name>.jpg
    parts/parts.txt, parts/part_locs.txt                 <image> <part> <x> <y> <visible>
    attributes/image_attribute_labels.txt                <image> <attribute> <present> <certainty> <seconds>
    attributes/attributes.txt, or attributes.txt beside the folder as in the archive
    segmentations/<class>/<name>.png                     optional, a separate archive; beside the folder or in it
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from concept_cam.core.concept import Concept
from concept_cam.core.errors import DataError
from concept_cam.evaluation.datasets.samples import Dataset, Points, Sample, SampleQuestion, read_number_picture

__all__ = ["ATTRIBUTE_PARTS", "load"]

VERSION = "1"

ATTRIBUTE_PARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "has_bill_shape": ("a bird with a {} bill", "shape", ("beak",)),
    "has_bill_color": ("a bird with a {} bill", "colour", ("beak",)),
    "has_wing_color": ("a bird with {} wings", "colour", ("wing",)),
    "has_wing_shape": ("a bird with {}", "shape", ("wing",)),
    "has_wing_pattern": ("a bird with {} wings", "pattern", ("wing",)),
    "has_breast_pattern": ("a bird with a {} breast", "pattern", ("breast",)),
    "has_breast_color": ("a bird with a {} breast", "colour", ("breast",)),
    "has_back_color": ("a bird with a {} back", "colour", ("back",)),
    "has_back_pattern": ("a bird with a {} back", "pattern", ("back",)),
    "has_tail_shape": ("a bird with a {}", "shape", ("tail",)),
    "has_tail_pattern": ("a bird with a {} tail", "pattern", ("tail",)),
    "has_upper_tail_color": ("a bird with a {} tail", "colour", ("tail",)),
    "has_throat_color": ("a bird with a {} throat", "colour", ("throat",)),
    "has_eye_color": ("a bird with {} eyes", "colour", ("eye",)),
    "has_forehead_color": ("a bird with a {} forehead", "colour", ("forehead",)),
    "has_nape_color": ("a bird with a {} nape", "colour", ("nape",)),
    "has_belly_color": ("a bird with a {} belly", "colour", ("belly",)),
    "has_belly_pattern": ("a bird with a {} belly", "pattern", ("belly",)),
    "has_leg_color": ("a bird with {} legs", "colour", ("leg",)),
    "has_crown_color": ("a bird with a {} crown", "colour", ("crown",)),
}
"""Attribute group -> (phrase, kind, parts that show it). Sizes, lengths and whole-body groups have no place to point at and are left
out."""

CERTAIN = 3
"""Least certainty of an attribute: 3 probably, 4 definitely (1 not visible, 2 guessing)."""

TOLERANCE = 0.1
"""Of the longer side of the bounding box: the usual tolerance of part points (PCK 0.1)."""


def load(path: str | Path, split: str = "test") -> Dataset:
    """Opens CUB-200-2011.

    Left and right eyes, legs and wings are one part each. A part's points are positive, the other visible parts' points negative. An
    attribute group is a ``state`` question where exactly one of its states is marked present with certainty 3 or more, its siblings being
    the contrasts. The host is the segmentation where there is one, else the bounding box.

    Args:
        path: The folder ``CUB_200_2011``.
        split: ``"train"``, ``"test"`` or ``"all"``.

    Raises:
        DataError: The layout is not as published.
    """
    root = Path(path)
    if split not in ("train", "test", "all"):
        raise DataError(f"unknown split {split!r} of CUB; expected train, test or all.")
    images = {int(row[0]): row[1] for row in _table(root / "images.txt", 2)}
    boxes = {int(row[0]): tuple(map(float, row[1:5])) for row in _table(root / "bounding_boxes.txt", 5)}
    if split != "all":
        wanted = {int(row[0]) for row in _table(root / "train_test_split.txt", 2) if (row[1] == "1") == (split == "train")}
        images = {number: name for number, name in images.items() if number in wanted}
    parts = {int(row[0]): _merge(" ".join(row[1:])) for row in _table(root / "parts" / "parts.txt", 2)}
    points: dict[int, list[tuple[str, float, float]]] = {}
    for row in _table(root / "parts" / "part_locs.txt", 5):
        if row[4] == "1" and int(row[0]) in images:
            points.setdefault(int(row[0]), []).append((parts[int(row[1])], float(row[2]), float(row[3])))
    attributes = _attributes(root)
    present = _present(root, attributes, set(images))
    names = sorted(set(parts.values()))
    concepts = {name: _part_concept(name, names) for name in names}
    states = {group: _state_concepts(group, [state for other, state in attributes.values() if other == group]) for group in ATTRIBUTE_PARTS}
    segmentations = next(
        (folder for folder in (root / "segmentations", root.parent / "segmentations") if folder.is_dir()),
        None,
    )
    whole = Concept(("a bird",), name="host")

    def stream() -> Iterator[Sample]:
        for number, name in images.items():
            box, visible = boxes[number], points.get(number, [])
            mask = segmentations / Path(name).with_suffix(".png") if segmentations else None
            host = partial(_segmentation, mask) if mask is not None and mask.is_file() else partial(_box_mask, root / "images" / name, box)
            questions = [SampleQuestion(whole, "object", "bird", host)] if mask is not None and mask.is_file() else []
            questions += [
                SampleQuestion(concepts[part], "part", part, host=host, points=_points(visible, (part,), box))
                for part in sorted({point[0] for point in visible})
            ]
            for group, state in present.get(number, {}).items():
                places = ATTRIBUTE_PARTS[group][2]
                if any(point[0] in places for point in visible) and state in states[group]:
                    questions.append(
                        SampleQuestion(
                            states[group][state],
                            "state",
                            group,
                            host=host,
                            points=_points(visible, places, box),
                        )
                    )
            yield Sample(name, root / "images" / name, tuple(questions))

    facts = {
        "path": str(root),
        "split": split,
        "parts": names,
        "host": "segmentation" if segmentations else "bounding box",
        "tolerance": TOLERANCE,
    }
    return Dataset("cub", VERSION, stream, len(images), whole, facts)


def _table(path: Path, columns: int) -> list[list[str]]:
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): expected the folder CUB_200_2011.") from error
    short = next((row for row in rows if len(row) < columns), None)
    if short is not None:
        raise DataError(f"{path}: the line {' '.join(short)!r} has {len(short)} columns, expected {columns}.")
    return rows


def _merge(name: str) -> str:
    return re.sub(r"^(left|right) ", "", name)


def _attributes(root: Path) -> dict[int, tuple[str, str]]:
    """Number -> (group, state)."""
    path = root / "attributes" / "attributes.txt"
    for other in (root / "attributes.txt", root.parent / "attributes.txt"):
        path = path if path.is_file() else other
    found: dict[int, tuple[str, str]] = {}
    for row in _table(path, 2):
        group, _, state = row[1].partition("::")
        found[int(row[0])] = (group, state)
    return found


def _present(root: Path, attributes: dict[int, tuple[str, str]], wanted: set[int]) -> dict[int, dict[str, str]]:
    """Picture -> group -> its one certain state. Some lines of the published file have extra columns at their end."""
    found: dict[int, dict[str, list[str]]] = {}
    with (root / "attributes" / "image_attribute_labels.txt").open(encoding="utf-8") as file:
        for line in file:
            row = line.split()
            if len(row) < 4 or row[2] != "1" or int(row[3]) < CERTAIN or int(row[0]) not in wanted:
                continue
            group, state = attributes[int(row[1])]
            if group in ATTRIBUTE_PARTS:
                found.setdefault(int(row[0]), {}).setdefault(group, []).append(state)
    return {number: {group: states[0] for group, states in groups.items() if len(states) == 1} for number, groups in found.items()}


def _part_concept(name: str, names: list[str]) -> Concept:
    others = [other for other in names if other != name]
    texts = tuple((f"the {other} of a bird",) for other in others)
    return Concept(
        (f"the {name} of a bird",),
        (*texts, ("a bird",)),
        name=f"parts={name}",
        contrast_names=(*others, "host"),
    )


def _state_concepts(group: str, states: list[str]) -> dict[str, Concept]:
    """One concept per state of an attribute group; a group with a single state cannot be asked."""
    phrase = ATTRIBUTE_PARTS[group][0]
    said = {state: phrase.format(re.sub(r"\s*\(.*?\)", "", state.replace("_", " ")).strip()) for state in states}
    words = {state: re.sub(r"\ba (?=[aeiou])", "an ", text) for state, text in said.items()}
    if len(set(words.values())) < 2:
        return {}
    return {
        state: Concept(
            (text,),
            tuple((other,) for other in dict.fromkeys(words.values()) if other != text),
            name=f"{group}={state}",
        )
        for state, text in words.items()
    }


def _points(visible: list[tuple[str, float, float]], own: tuple[str, ...], box: tuple[float, ...]) -> Points:
    return Points(
        np.array([point[1:] for point in visible], dtype=np.float64),
        tuple(int(point[0] in own) for point in visible),
        TOLERANCE * max(box[2], box[3]),
    )


def _segmentation(path: Path) -> npt.NDArray[np.uint8]:
    """The published masks are means over five annotators: at least half target, none not, between: ignored."""
    values = read_number_picture(path)
    return np.where(values >= 128, 255, np.where(values == 0, 0, 128)).astype(np.uint8)


def _box_mask(picture: Path, box: tuple[float, ...]) -> npt.NDArray[np.bool_]:
    from concept_cam.pictures.reading import read_image

    height, width = read_image(picture).size
    mask = np.zeros((height, width), dtype=bool)
    x, y, w, h = box
    mask[max(0, round(y)) : round(y + h), max(0, round(x)) : round(x + w)] = True
    return mask
