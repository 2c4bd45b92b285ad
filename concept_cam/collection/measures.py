"""From a score map to a region and its measures, fast and with uncertainties. Plain numpy, scipy and scikit-image.

A region is found and measured at the resolution at which the model saw the picture and mapped to the original frame; on a photograph of 20
megapixels that is a hundred times less work, and no evidence is lost, since the map holds one number per patch anyway.

Uncertainty: nothing finer than one patch was seen, so each edge of a region is known to one patch. Of a length that is one patch along it
(in original pixels); areas, angles and ratios follow by first-order propagation. Of something under two patches nothing can be said: null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from concept_cam.core.geometry import Geometry
from concept_cam.core.regions import DEFAULT_THRESHOLD, RESOLUTIONS, Frame, Shape, find_shapes

__all__ = [
    "RESOLUTIONS",
    "Area",
    "Distance",
    "Frame",
    "cell_coverage",
    "find_area",
    "find_areas",
    "measure_distances",
    "uncertainties",
]


@dataclass(frozen=True)
class Area:
    """The region of one entity, original frame of the whole picture.

    Attributes:
        box: ``(x, y, width, height)``, integers.
        count: Number of connected areas.
        pixels: Pixels in the region.
        rle: COCO run-length encoding of the whole picture.
        contours: Outlines, each flat ``x0, y0, x1, y1 ...``.
        centroid: ``(x, y)``.
        values: Measures by the names of :data:`concept_cam.collection.schema.MEASURES`, pixels and degrees.
        errors: Their uncertainties and ``centroid``'s; a name is missing where none can be stated.
    """

    box: tuple[int, int, int, int]
    count: int
    pixels: int
    rle: Mapping[str, object]
    contours: tuple[list[float], ...]
    centroid: tuple[float, float]
    values: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True)
class Distance:
    """A length between boxes of parts.

    Attributes:
        length: Pixels.
        error: Its uncertainty; ``None`` below two patches.
        line: ``x0, y0, x1, y1``.
        box: ``(x, y, width, height)`` around the line.
    """

    length: float
    error: float | None
    line: tuple[float, float, float, float]


# --------------------------------------------------------------------------------------------------------------- regions


def find_areas(
    scores: np.ndarray,
    geometry: Geometry,
    frame: Frame,
    *,
    threshold: str | float = DEFAULT_THRESHOLD,
    resolution: str = "model",
    areas: int = 1,
    min_area: float = 0.0,
    hidden: np.ndarray | None = None,
) -> list[tuple[Area | None, float]]:
    """Finds and measures what stands out in score maps; the arguments are those of :func:`concept_cam.core.regions.find_shapes`.

    Returns:
        Per map the region, or ``None`` where nothing is above the threshold, and the threshold in score units.
    """
    found = find_shapes(scores, geometry, frame, threshold=threshold, resolution=resolution, areas=areas, min_area=min_area, hidden=hidden)
    return [(None if shape is None else _area(shape, count, geometry), limit) for shape, count, limit in found]


def find_area(scores: np.ndarray, geometry: Geometry, frame: Frame, **options: Any) -> tuple[Area | None, float]:
    """Finds and measures what stands out in one map float32 [h, w]; see :func:`find_areas`."""
    return find_areas(scores[None], geometry, frame, **options)[0]


def _area(shape: Shape, count: int, geometry: Geometry) -> Area:
    values = dict(shape.measures)
    centroid = values.pop("centroid_x"), values.pop("centroid_y")
    size = shape.width, shape.height
    return Area(
        box=(shape.box[0], shape.box[1], *size),
        count=count,
        pixels=shape.area,
        rle=shape.rle,
        contours=tuple(np.round(outline, 2).astype(np.float32).ravel().tolist() for outline in shape.contours),
        centroid=centroid,
        values=values,
        errors=uncertainties(values, size, geometry.cell_original),
    )


# --------------------------------------------------------------------------------------------------------- uncertainties


def uncertainties(values: Mapping[str, float], box: tuple[float, float], cell: tuple[float, float]) -> dict[str, float]:
    """States what one patch means for each measure of a region.

    Args:
        values: ``area``, ``length``, ``width``, ``orientation``, ``extent``, ``eccentricity``, ``solidity``; pixels and degrees.
        box: ``(width, height)`` of the region's box, pixels.
        cell: ``(y, x)`` size of one patch in original pixels.

    Returns:
        Name -> uncertainty in the measure's own unit, and ``centroid``; names are left out where the region is under two patches.
    """
    length, width = values["length"], values["width"]
    angle = math.radians(values["orientation"])
    along = math.hypot(cell[1] * math.cos(angle), cell[0] * math.sin(angle))
    across = math.hypot(cell[1] * math.sin(angle), cell[0] * math.cos(angle))
    known: dict[str, float] = {}
    if length >= 2 * along:
        known["length"] = along
        known["orientation"] = math.degrees(math.atan2(across, length))
        known["centroid"] = max(along, across)
    if width >= 2 * across:
        known["width"] = across
    if "length" in known and "width" in known:
        known["area"] = along * width + across * length
        known["extent"] = min(1.0, values["extent"] * (cell[1] / box[0] + cell[0] / box[1]))
        relative = along / length + across / width
        known["solidity"] = min(1.0, values["solidity"] * relative)
        ratio = math.sqrt(max(0.0, 1 - values["eccentricity"] ** 2))
        spread = ratio**2 * relative  # d e = r dr / e with r = width / length
        known["eccentricity"] = min(1.0, spread / values["eccentricity"] if values["eccentricity"] > 0 else 1.0)
    return known


# -------------------------------------------------------------------------------------------------------------- distances

Box = tuple[int, int, int, int]


def _axis(head: Box, tail: Box) -> tuple[int, float]:
    """Returns the axis that the body lies along (0: x, 1: y) and the direction from head to tail, +1 or -1."""
    apart = [(tail[axis] + tail[axis + 2] / 2) - (head[axis] + head[axis + 2] / 2) for axis in (0, 1)]
    axis = 0 if abs(apart[0]) >= abs(apart[1]) else 1
    return axis, 1.0 if apart[axis] >= 0 else -1.0


def _standard_length(boxes: Mapping[str, Box]) -> tuple[int, float, float, float]:
    """From the head box's far edge (the snout) to the tail-fin box's near edge (its base), along the body."""
    head, tail = boxes["head"], boxes["caudal_fin"]
    axis, sign = _axis(head, tail)
    snout = head[axis] if sign > 0 else head[axis] + head[axis + 2]
    base = tail[axis] if sign > 0 else tail[axis] + tail[axis + 2]
    return axis, snout, base, head[1 - axis] + head[3 - axis] / 2


def _head_length(boxes: Mapping[str, Box]) -> tuple[int, float, float, float]:
    """The head box's side along the body."""
    head = boxes["head"]
    axis, _ = _axis(head, boxes["caudal_fin"])
    return axis, head[axis], head[axis] + head[axis + 2], head[1 - axis] + head[3 - axis] / 2


def _head_depth(boxes: Mapping[str, Box]) -> tuple[int, float, float, float]:
    """The head box's side across the body."""
    head = boxes["head"]
    axis = 1 - _axis(head, boxes["caudal_fin"])[0]
    return axis, head[axis], head[axis] + head[axis + 2], head[1 - axis] + head[3 - axis] / 2


def _eye_diameter(boxes: Mapping[str, Box]) -> tuple[int, float, float, float]:
    """The eye box's larger side."""
    eye = boxes["eye"]
    axis = 0 if eye[2] >= eye[3] else 1
    return axis, eye[axis], eye[axis] + eye[axis + 2], eye[1 - axis] + eye[3 - axis] / 2


_DISTANCES: dict[str, Callable[[Mapping[str, Box]], tuple[int, float, float, float]]] = {
    "SL_bbox": _standard_length,
    "HL_bbox": _head_length,
    "HH_bbox": _head_depth,
    "ED_bbox": _eye_diameter,
}
"""Each takes boxes by part and returns the axis, where the line starts and ends on it, and its place on the other axis."""


def measure_distances(
    names: tuple[str, ...],
    parts: Mapping[str, tuple[str, ...]],
    boxes: Mapping[str, Box],
    cell: tuple[float, float],
) -> dict[str, Distance]:
    """Measures the distances whose parts were found.

    Args:
        names: Distances wanted.
        parts: The parts that each needs.
        boxes: Box of each part that was found.
        cell: ``(y, x)`` size of one patch in original pixels.

    Returns:
        Name -> distance, for those that can be measured; one that runs backwards (tail before snout) cannot.
    """
    found: dict[str, Distance] = {}
    for name in names:
        if not all(part in boxes for part in parts[name]):
            continue
        axis, start, end, across = _DISTANCES[name](boxes)
        length = abs(end - start)
        patch = cell[1 - axis]
        line = (start, across, end, across) if axis == 0 else (across, start, across, end)
        if name == "SL_bbox" and (end - start) * _axis(boxes["head"], boxes["caudal_fin"])[1] <= 0:
            continue
        found[name] = Distance(float(length), patch if length >= 2 * patch else None, line)
    return found


# --------------------------------------------------------------------------------------------------------------- coverage


def cell_coverage(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Returns float64 [h, w] in 0..1: the share of what each grid cell shows of the picture that a mask covers.

    Args:
        mask: bool [H', W'], the whole original picture at any resolution.
        geometry: Frames of the picture.
    """
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    total[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)

    def edges(axis: int) -> np.ndarray:
        count, cell = geometry.grid[axis], geometry.cell[axis]
        model = np.arange(count + 1) * cell
        original = (model - geometry.offset[axis]) / geometry.scale[axis]
        return np.clip(original, 0, geometry.original[axis]) * mask.shape[axis] / geometry.original[axis]

    def sample(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        low = np.minimum(at.astype(int), len(values) - 2)
        share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(values[low] * (1 - share) + values[low + 1] * share)

    rows, columns = edges(0), edges(1)
    integral = sample(sample(total, rows).T, columns).T
    covered = np.diff(np.diff(integral, axis=0), axis=1)
    shown = np.outer(np.diff(rows), np.diff(columns))
    return np.where(shown > 1e-9, covered / np.maximum(shown, 1e-9), 0.0)
