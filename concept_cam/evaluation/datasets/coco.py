"""Parts in COCO's instance format: one JSON file and a folder of pictures. Read without pycocotools."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.draw import polygon

from concept_cam.core.concept import Concept
from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import ConceptCamError, ConfigurationError, DataError
from concept_cam.core.shapes import MOST_MASK_PIXELS, decode_rle
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion, is_subject, noun_of, part_concepts
from concept_cam.exports.survey import creator
from concept_cam.prompts.schema import host_phrase

__all__ = ["decode_segmentation", "load"]

VERSION = "1"


def load(path: str | Path, images: str | Path | None = None, host: str | None = None, traits: str | None = None) -> Dataset:
    """Opens a COCO file whose categories are parts.

    Several annotations of one category in one picture are one mask together; ``iscrowd`` areas are ignored (128). The category named
    ``host`` is the subject; without one, the subject is all annotated parts together. A missing part is not a claim of absence.

    Args:
        path: JSON file with ``images``, ``annotations`` and ``categories``.
        images: Folder of the pictures; by default ``images`` beside the file, else the file's own folder.
        host: Name of the host category, also used as the noun in prompts; by default the categories' common ``supercategory``,
            else the trait pack's.
        traits: Trait pack whose part phrases are used where names agree.

    Raises:
        DataError: The file or folder cannot be used, no annotation has a mask, or it is an export of this package: what the model found
            says nothing of whether it is right.
    """
    source = Path(path)
    try:
        content = read_json(source)
    except DataError as error:
        raise DataError(f"{source} is no COCO file: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in ("images", "annotations", "categories")):
        raise DataError(f"{source} is no COCO file: expected JSON with the lists images, annotations and categories.")
    info = content.get("info")
    if isinstance(info, dict) and str(info.get("contributor")).startswith(f"{creator()['name']} "):
        raise DataError(
            f"{source} is an export of an annotation run: its regions are the model's own, also those of calls that people accepted, and "
            "measured against them the model is always right. Give masks that people drew: export the run with  --to cvat  or  "
            "--to label-studio, let people go through it there, and read what comes back."
        )
    rows, annotations, categories = content["images"], content["annotations"], content["categories"]
    folder = Path(images) if images is not None else source.parent / "images"
    if images is None and not folder.is_dir():
        folder = source.parent
    if not folder.is_dir():
        raise DataError(f"the picture folder {folder} does not exist: name it (--images).")
    with understood(f"{source}: the categories"):
        names = {item["id"]: str(item["name"]) for item in categories}
    sizes = {}
    for number, row in enumerate(rows):
        with understood(f"{source}: the entry {number} of images"):
            sizes[row["id"]] = _size(row, source)
    shared = {item.get("supercategory") for item in categories}
    noun = noun_of(host, traits, str(shared.pop()) if len(shared) == 1 and None not in shared else None)
    by_picture: dict[Any, list[dict[str, Any]]] = {}
    for number, item in enumerate(annotations):
        _check(item, number, names, sizes, source)
        if item.get("segmentation"):
            by_picture.setdefault(item["image_id"], []).append(item)
    asked = [row for row in rows if row["id"] in by_picture]
    if not asked:
        raise DataError(f"{source}: no annotation has a segmentation; boxes alone say too little about parts.")
    used = {names[item["category_id"]] for items in by_picture.values() for item in items}
    parts = sorted(name for name in used if not is_subject(name, noun))
    concepts = part_concepts(parts, noun, traits)
    whole = Concept((host_phrase(noun),), name="host")

    def stream() -> Iterator[Sample]:
        for row in asked:
            size = sizes[row["id"]]
            if size is None:
                raise DataError(f"{source}: the picture {row['id']!r} has no 'height' and 'width'.")
            groups: dict[str, list[dict[str, Any]]] = {}
            for item in by_picture[row["id"]]:
                name = names[item["category_id"]]
                groups.setdefault(noun if is_subject(name, noun) else name, []).append(item)
            subject = partial(_mask, groups[noun] if noun in groups else by_picture[row["id"]], size)
            questions = [SampleQuestion(whole, "object", noun, subject)] if noun in groups else []
            questions += [
                SampleQuestion(concepts[name], "part", name, partial(_mask, items, size), subject)
                for name, items in groups.items()
                if name != noun
            ]
            yield Sample(str(row["file_name"]), folder / row["file_name"], tuple(questions))

    facts = {
        "path": str(source),
        "images": str(folder),
        "host": noun,
        "pack": traits,
        "parts": parts,
        "pictures_without_masks": len(rows) - len(asked),
    }
    return Dataset("coco", VERSION, stream, len(asked), whole, facts)


def _size(row: Any, source: Path) -> tuple[int, int] | None:
    """Returns ``(H, W)`` of a picture's entry; ``None`` where it does not say."""
    if not isinstance(row.get("file_name"), str):
        raise DataError(f"{source}: the picture {row['id']!r} has no 'file_name'.")
    if "height" not in row or "width" not in row:
        return None
    size = (operator.index(row["height"]), operator.index(row["width"]))
    if min(size) < 1 or size[0] * size[1] > MOST_MASK_PIXELS:
        raise DataError(f"{source}: the picture {row['id']!r} is {size[1]} x {size[0]} pixels, which cannot be.")
    return size


def _check(item: Any, number: int, names: dict[Any, str], sizes: dict[Any, tuple[int, int] | None], source: Path) -> None:
    """Refuses an annotation that cannot be used, by its id.

    Raises:
        DataError: The message names the annotation.
    """
    label = (
        f"{source}: the annotation {item.get('id', f'number {number}')!r}"
        if isinstance(item, dict)
        else f"{source}: the annotation number {number}"
    )
    with understood(label):
        if not isinstance(item, dict):
            raise DataError(f"{label} is {type(item).__name__}, expected a mapping.")
        if not item.get("segmentation"):
            return
        for name, known in (("category_id", names), ("image_id", sizes)):
            if item.get(name) not in known:
                kinds = "; it is of another type than those of the file" if str(item.get(name)) in map(str, known) else ""
                raise DataError(f"{label}: its {name} {item.get(name)!r} is not among the file's{kinds}.")
        size = sizes[item["image_id"]]
        if size is None:
            raise DataError(f"{label}: its picture {item['image_id']!r} has no 'height' and 'width'.")
        if not isinstance(item["segmentation"], dict):
            try:
                _outlines(item["segmentation"])
            except DataError as error:
                raise DataError(f"{label}: {error}") from error


def _outlines(segmentation: Any) -> list[npt.NDArray[np.float64]]:
    """Returns the polygons of a segmentation, each [N, 2] of ``(x, y)``.

    Raises:
        DataError: They are no polygons.
    """
    if not isinstance(segmentation, list) or not all(isinstance(outline, list) for outline in segmentation):
        raise DataError("its segmentation is no list of polygons [[x, y, x, y, ...], ...], nor run lengths.")
    found = []
    for outline in segmentation:
        if len(outline) < 6 or len(outline) % 2:
            raise DataError(f"a polygon has {len(outline)} numbers; expected x and y of three points at least.")
        points = np.array([float(value) for value in outline]).reshape(-1, 2)
        if not np.isfinite(points).all() or np.abs(points).max() > 1e7:
            raise DataError("a polygon has a corner that is no point of a picture.")
        found.append(points)
    return found


def _mask(annotations: list[dict[str, Any]], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    mask = np.zeros(size, dtype=np.uint8)
    for item in sorted(annotations, key=lambda item: not item.get("iscrowd", 0)):
        try:
            inside = decode_segmentation(item["segmentation"], size)
        except ConceptCamError as error:
            raise DataError(f"the annotation {item.get('id')!r}: {error}") from error
        mask[inside] = 128 if item.get("iscrowd", 0) else 255
    return mask


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decodes one COCO segmentation.

    Args:
        segmentation: Polygons ``[[x, y, x, y, ...], ...]`` (their union; a pixel is in when its centre is), or run lengths
            ``{"size": [H, W], "counts": text or list}``, column by column.
        size: ``(H, W)`` of the picture.

    Returns:
        bool [H, W].

    Raises:
        DataError: The segmentation does not fit the picture.
    """
    if isinstance(segmentation, dict):
        given = segmentation.get("size", ())
        if not isinstance(given, list | tuple) or tuple(given) != tuple(size):
            raise DataError(f"a run-length mask has the size {given}, its picture {list(size)} (rows, columns).")
        try:
            return np.asarray(decode_rle({"size": list(size), "counts": segmentation.get("counts")}), dtype=bool)
        except ConfigurationError as error:
            raise DataError(f"its run lengths cannot be used: {error}") from error
    mask = np.zeros(size, dtype=bool)
    for points in _outlines(segmentation):
        # scikit-image puts pixel centres on whole numbers, COCO puts pixel corners there.
        mask[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, size)] = True
    return mask
