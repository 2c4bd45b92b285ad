"""Brush masks and polygons that people drew in Label Studio, from a project's export as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import DataError
from concept_cam.core.shapes import MOST_MASK_PIXELS
from concept_cam.evaluation.datasets.coco import decode_segmentation
from concept_cam.evaluation.datasets.drawn import Drawn, PictureFinder, dataset_of, read_mask
from concept_cam.evaluation.datasets.samples import Dataset, MaskLoader
from concept_cam.exports.labelstudio import CHARACTER_TAIL, decode_brush

__all__ = ["load"]


def load(path: str | Path, images: str | Path | None = None, host: str | None = None, traits: str | None = None) -> Dataset:
    """Opens an export of Label Studio.

    Brush regions and polygons of one label are one region; a choice says the state of the character that its control is named after.
    Rectangles are no masks and are left out. Of several annotations of a task the one changed last counts; predictions do not.

    Args:
        path: A project's export in the format JSON (not JSON-MIN).
        images: Folder of the pictures; by default ``images`` beside the file, else the file's own folder.
        host: Noun of the subject.
        traits: Trait pack whose parts and states the labels name.

    Raises:
        DataError: The file cannot be used, or holds no masks that a person drew.
    """
    source = Path(path)
    folder = Path(images) if images is not None else source.parent / "images"
    if images is None and not folder.is_dir():
        folder = source.parent
    tasks = read_json(source)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks):
        raise DataError(f"{source} is not a JSON export of Label Studio: expected a list of tasks, each with 'data'.")
    drawn = []
    for number, task in enumerate(tasks):
        with understood(f"{source}: task {number}"):
            kept = [annotation for annotation in task.get("annotations") or () if not annotation.get("was_cancelled")]
            if kept:
                latest = max(kept, key=lambda annotation: str(annotation.get("updated_at") or ""))
                item = _drawn(_name(task["data"]), latest.get("result") or ())
                if item.regions or item.states:
                    drawn.append(item)
    return dataset_of("labelstudio", source, drawn, PictureFinder(folder, source), host, traits, {"images": str(folder)})


def _name(data: Mapping[str, Any]) -> str:
    """The picture of a task: its ``source`` in exports of this package, else the last part of its address."""
    if isinstance(data.get("source"), str):
        return str(data["source"])
    address = next((value for name, value in data.items() if name in ("image", "img", "picture") and isinstance(value, str)), None)
    if address is None:
        raise DataError("it names no picture: expected 'source' or 'image' in its data.")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else Path(unquote(parts.path)).name


def _drawn(name: str, results: Sequence[Mapping[str, Any]]) -> Drawn:
    regions: dict[str, tuple[MaskLoader, ...]] = {}
    states: dict[str, str] = {}
    for result in results:
        value = result.get("value") or {}
        kind = str(result.get("type"))
        if kind == "choices":
            chosen = [str(choice) for choice in value.get("choices") or ()]
            if len(chosen) == 1:
                states[str(result.get("from_name", "")).removesuffix(CHARACTER_TAIL)] = chosen[0]
            continue
        for label in value.get(kind) or () if kind in ("brushlabels", "polygonlabels") else ():
            mask = partial(read_mask, f"{name}: a region of {str(label)[:80]!r}", _mask(kind, value, _size(result)))
            regions[str(label)] = (*regions.get(str(label), ()), mask)
    return Drawn(name, regions, states)


def _size(result: Mapping[str, Any]) -> tuple[int, int]:
    size = int(result["original_height"]), int(result["original_width"])
    if min(size) < 1 or size[0] * size[1] > MOST_MASK_PIXELS:
        raise DataError(f"a picture of {size[1]} x {size[0]} pixels cannot be.")
    if result.get("image_rotation"):
        raise DataError("a picture was turned in Label Studio: turn it back, for masks are read upright.")
    return size


def _mask(kind: str, value: Mapping[str, Any], size: tuple[int, int]) -> MaskLoader:
    if kind == "brushlabels":
        return partial(decode_brush, [int(number) for number in value["rle"]], size)
    corners = list(_corners(value["points"], size))
    return partial(_filled, corners, size)


def _corners(points: Sequence[Sequence[float]], size: tuple[int, int]) -> Iterator[float]:
    for x, y in points:  # In percent of the picture.
        yield float(x) / 100 * size[1]
        yield float(y) / 100 * size[0]


def _filled(corners: list[float], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return decode_segmentation([corners], size)
