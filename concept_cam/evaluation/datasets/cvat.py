"""Masks and polygons that people drew in CVAT, from an export "CVAT for images 1.1"."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from concept_cam.core.documents import understood
from concept_cam.core.errors import DataError
from concept_cam.core.shapes import MOST_MASK_PIXELS
from concept_cam.evaluation.datasets.coco import decode_segmentation
from concept_cam.evaluation.datasets.drawn import Drawn, PictureFinder, dataset_of, read_mask, reviewed_only
from concept_cam.evaluation.datasets.samples import Dataset, MaskLoader
from concept_cam.exports.cvat import NOT_CALLED, decode_mask
from concept_cam.exports.survey import PART_SEPARATOR, REVIEWED, is_reviewed

__all__ = ["load"]

_MASKS = ("mask", "polygon")
_OTHERS = ("box", "points", "polyline", "ellipse", "cuboid", "skeleton")


@dataclass(frozen=True)
class _Shape:
    label: str
    state: str
    mask: MaskLoader | None
    reviewed: bool | None


def load(path: str | Path, images: str | Path | None = None, host: str | None = None, traits: str | None = None) -> Dataset:
    """Opens an export of CVAT.

    Masks and polygons of one label are one region; an attribute ``state`` says the state of a character. Boxes and points are no masks and
    are left out. Where regions have an attribute ``reviewed``, as those of this package's exports do, only what is ticked counts.

    Args:
        path: ``annotations.xml``.
        images: Folder of the pictures; by default ``images`` beside the file, else the file's own folder.
        host: Noun of the subject.
        traits: Trait pack whose parts and states the labels name.

    Raises:
        DataError: The file cannot be used, or holds no masks.
    """
    source = Path(path)
    folder = Path(images) if images is not None else source.parent / "images"
    if images is None and not folder.is_dir():
        folder = source.parent
    with understood(source):
        pictures = list(_read(source))
    counts = reviewed_only((shape.reviewed for _, shapes in pictures for shape in shapes), source, REVIEWED)
    drawn = []
    for name, shapes in pictures:
        regions: dict[str, tuple[MaskLoader, ...]] = {}
        states: dict[str, str] = {}
        for shape in shapes:
            if not counts(shape.reviewed):
                continue
            if shape.mask is not None and (shape.state != NOT_CALLED or PART_SEPARATOR not in shape.label):
                regions[shape.label] = (*regions.get(shape.label, ()), shape.mask)
            if shape.state and shape.state != NOT_CALLED and PART_SEPARATOR not in shape.label:
                states[shape.label] = shape.state
        if regions or states:
            drawn.append(Drawn(name, regions, states))
    return dataset_of("cvat", source, drawn, PictureFinder(folder, source), host, traits, {"images": str(folder)})


def _read(path: Path) -> Iterator[tuple[str, list[_Shape]]]:
    try:
        root: ET.Element | None = None
        for event, element in ET.iterparse(path, events=("start", "end")):
            if event == "start":
                root = element if root is None else root
                if root.tag != "annotations":
                    raise DataError(f"{path} is not an annotation file of CVAT: its root is <{root.tag}>, not <annotations>.")
                if element.tag == "track":
                    raise DataError(f"{path} holds video tracks. Export the task from CVAT as 'CVAT for images 1.1'.")
            elif element.tag == "image":
                yield element.get("name", ""), list(_shapes(path, element))
                element.clear()
    except ET.ParseError as error:
        raise DataError(f"{path} is not an XML file of CVAT: {error}.") from error


def _shapes(path: Path, image: ET.Element) -> Iterator[_Shape]:
    name = image.get("name", "")
    with understood(f"{path}: the picture {name!r}"):
        size = int(image.get("height", "0")), int(image.get("width", "0"))
        if min(size) < 1 or size[0] * size[1] > MOST_MASK_PIXELS:
            raise DataError(f"{path}: the picture {name!r} is {size[1]} x {size[0]} pixels, which cannot be.")
        for element in image:
            if element.tag not in (*_MASKS, *_OTHERS, "tag"):
                continue
            values = {attribute.get("name", ""): attribute.text or "" for attribute in element.iter("attribute")}
            mask = partial(read_mask, f"{path}: a mask of {name!r}", _mask(element, size)) if element.tag in _MASKS else None
            mark = is_reviewed(values[REVIEWED]) if REVIEWED in values else None
            yield _Shape(element.get("label", ""), values.get("state", ""), mask, mark)


def _mask(element: ET.Element, size: tuple[int, int]) -> MaskLoader:
    if element.tag == "mask":
        return partial(decode_mask, dict(element.attrib), size)
    corners = [float(value) for point in element.get("points", "").split(";") for value in point.split(",") if value]
    return partial(_filled, corners, size)


def _filled(corners: list[float], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return decode_segmentation([corners], size)
