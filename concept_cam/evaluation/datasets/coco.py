"""Parts in COCO's instance format: one JSON file and a folder of pictures. Read without pycocotools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.draw import polygon

from concept_cam.core.concept import Concept
from concept_cam.core.errors import DataError
from concept_cam.core.regions import decode_rle
from concept_cam.evaluation.datasets.samples import Dataset, Question, Sample, part_concepts

__all__ = ["decode_segmentation", "load"]

VERSION = "1"


def load(path: str | Path, images: str | Path | None = None, host: str | None = None, traits: str | None = None) -> Dataset:
    """Opens a COCO file whose categories are parts.

    Several annotations of one category in one picture are one mask together; ``iscrowd`` areas are ignored (128). The category named
    ``host`` is the subject; without one, the subject is all annotated parts together. A missing part is not a claim of absence.

    Args:
        path: JSON file with ``images``, ``annotations`` and ``categories``.
        images: Folder of the pictures; by default ``images`` beside the file, else the file's own folder.
        host: Name of the host category, also used as the noun in prompts; by default the categories' common ``supercategory``.
        traits: Trait pack whose part phrases are used where names agree.

    Raises:
        DataError: The file or folder cannot be used, or no annotation has a mask.
    """
    source = Path(path)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        rows, annotations, categories = content["images"], content["annotations"], content["categories"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source} is no COCO file ({error!r}): expected JSON with images, annotations and categories.") from error
    folder = Path(images) if images is not None else source.parent / "images"
    if images is None and not folder.is_dir():
        folder = source.parent
    if not folder.is_dir():
        raise DataError(f"the picture folder {folder} does not exist: name it (--images).")
    names = {item["id"]: item["name"] for item in categories}
    shared = {item.get("supercategory") for item in categories}
    noun = host or (str(shared.pop()) if len(shared) == 1 and None not in shared else "organism")
    by_picture: dict[Any, list[dict[str, Any]]] = {}
    for item in annotations:
        if item.get("segmentation"):
            by_picture.setdefault(item["image_id"], []).append(item)
    asked = [row for row in rows if row["id"] in by_picture]
    if not asked:
        raise DataError(f"{source}: no annotation has a segmentation; boxes alone say too little about parts.")
    used = {names[item["category_id"]] for items in by_picture.values() for item in items}
    parts = sorted(used - {noun})
    concepts = part_concepts(parts, noun, traits)
    whole = Concept((f"a {noun}",), name="host")

    def stream() -> Iterator[Sample]:
        for row in asked:
            size = (int(row["height"]), int(row["width"]))
            groups: dict[str, list[dict[str, Any]]] = {}
            for item in by_picture[row["id"]]:
                groups.setdefault(names[item["category_id"]], []).append(item)
            subject = partial(_mask, groups[noun] if noun in groups else by_picture[row["id"]], size)
            questions = [Question(whole, "object", noun, subject)] if noun in groups else []
            questions += [
                Question(concepts[name], "part", name, partial(_mask, items, size), subject)
                for name, items in groups.items()
                if name != noun
            ]
            yield Sample(str(row["file_name"]), folder / row["file_name"], tuple(questions))

    facts = {
        "path": str(source),
        "images": str(folder),
        "host": noun,
        "parts": parts,
        "pictures_without_masks": len(rows) - len(asked),
    }
    return Dataset("coco", VERSION, stream, len(asked), whole, facts)


def _mask(annotations: list[dict[str, Any]], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    mask = np.zeros(size, dtype=np.uint8)
    for item in sorted(annotations, key=lambda item: not item.get("iscrowd", 0)):
        mask[decode_segmentation(item["segmentation"], size)] = 128 if item.get("iscrowd", 0) else 255
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
        if tuple(segmentation.get("size", ())) != size:
            raise DataError(f"a run-length mask has the size {segmentation.get('size')}, its picture {list(size)} (rows, columns).")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if sum(counts) != size[0] * size[1]:
                raise DataError(f"run lengths add up to {sum(counts)} pixels, the picture has {size[0] * size[1]}.")
            flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            return np.asarray(flat.reshape(size, order="F"))
        return np.asarray(decode_rle({"size": list(size), "counts": counts}), dtype=bool)
    mask = np.zeros(size, dtype=bool)
    for outline in segmentation:
        points = np.asarray(outline, dtype=np.float64).reshape(-1, 2)
        # scikit-image puts pixel centres on whole numbers, COCO puts pixel corners there.
        mask[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, size)] = True
    return mask
