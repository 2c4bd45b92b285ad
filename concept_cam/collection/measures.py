"""From a score map to a region and its measures, fast and with uncertainties. Plain numpy, scipy and scikit-image.

A region is found and measured at the resolution at which the model saw the picture and mapped to the original frame; on a photograph of 20
megapixels that is a hundred times less work, and no evidence is lost, since the map holds one number per patch anyway.

Uncertainty: nothing finer than one patch was seen, so each edge of a region is known to one patch. Of a length that is one patch along it
(in original pixels); areas, angles and ratios follow by first-order propagation. Of something under two patches nothing can be said: null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from concept_cam.core.geometry import Geometry
from concept_cam.core.names import choose
from concept_cam.core.regions import DEFAULT_THRESHOLD, above, measure, rle_from_runs, threshold_value
from concept_cam.core.resampling import grid_to_pixels

__all__ = [
    "RESOLUTIONS",
    "Area",
    "Distance",
    "Frame",
    "cell_coverage",
    "find_area",
    "measure_distances",
    "uncertainties",
]

RESOLUTIONS: dict[str, str] = {
    "model": "at the size at which the model saw the picture, mapped to the original: fast",
    "original": "at the picture's own size: exact and slower",
}
"""At which resolution regions are measured."""


@dataclass(frozen=True)
class Frame:
    """Where a measured picture lies in the whole one: a specimen's crop is a part of it.

    Attributes:
        left: Column of the crop's left edge in the whole picture.
        top: Row of its upper edge.
        size: ``(H, W)`` of the whole picture, original pixels.
    """

    left: int
    top: int
    size: tuple[int, int]


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


def find_area(
    scores: np.ndarray,
    geometry: Geometry,
    frame: Frame,
    *,
    threshold: str | float = DEFAULT_THRESHOLD,
    resolution: str = "model",
    areas: int = 1,
    min_area: float = 0.0,
    hidden: np.ndarray | None = None,
) -> tuple[Area | None, float]:
    """Finds and measures what stands out in a score map.

    Args:
        scores: float32 [h, w], grid frame; NaN in padding and where nothing may be read.
        geometry: Frames of the measured picture (the crop, for a specimen).
        frame: Where it lies in the whole picture.
        threshold: Strategy or number, see :func:`concept_cam.core.regions.threshold_value`.
        resolution: A name of :data:`RESOLUTIONS`.
        areas: Keep so many connected areas (8-connected), largest first; 0 for all.
        min_area: Smallest area in original pixels, or below 1 as a share of the measured picture.
        hidden: bool, any size: the measured picture's pixels that may not belong to a region.

    Returns:
        The region, or ``None`` where nothing is above the threshold, and the threshold in score units.
    """
    from scipy.ndimage import label

    choose(resolution, RESOLUTIONS, "region resolution")
    limit = threshold_value(scores, threshold)
    finite = np.isfinite(scores)
    if not math.isfinite(limit) or not finite.any():
        return None, limit
    seen = geometry if resolution == "original" else _as_seen(geometry)
    height, width = seen.original
    # Cells that may not be read are filled with the lowest score, so that they do not spoil their neighbours' interpolation.
    heat = grid_to_pixels(np.where(finite, scores, scores[finite].min()), seen)
    mask = above(heat, limit)
    if hidden is not None:
        rows, columns = (
            np.minimum(((np.arange(side) + 0.5) * have / side).astype(int), have - 1) for side, have in zip((height, width), hidden.shape)
        )
        mask &= ~hidden[rows][:, columns]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None, limit
    top, left = int(rows[0]), int(columns[0])
    inside = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    labels, count = label(inside, np.ones((3, 3), dtype=bool))
    least = (min_area if min_area < 1 else min_area / (geometry.original[0] * geometry.original[1])) * mask.size
    if count == 1 and inside.sum() >= least:
        return _area(inside, top, left, 1, seen, geometry, frame), limit
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    kept = [int(index) for index in np.argsort(-sizes, kind="stable") if sizes[index] >= least][: areas or None]
    if not kept:
        return None, limit
    chosen = labels == kept[0] + 1 if len(kept) == 1 else np.isin(labels, [index + 1 for index in kept])
    return _area(chosen, top, left, len(kept), seen, geometry, frame), limit


def _as_seen(geometry: Geometry) -> Geometry:
    """The same picture at the size at which the model saw it; never larger than it is."""
    height = min(geometry.original[0], max(1, round(geometry.original[0] * geometry.scale[0])))
    width = min(geometry.original[1], max(1, round(geometry.original[1] * geometry.scale[1])))
    scale = (
        geometry.scale[0] * geometry.original[0] / height,
        geometry.scale[1] * geometry.original[1] / width,
    )
    return replace(geometry, original=(height, width), scale=scale)


def _area(mask: np.ndarray, top: int, left: int, count: int, seen: Geometry, geometry: Geometry, frame: Frame) -> Area:
    """Measures a mask whose upper left corner lies at ``top``, ``left`` of the picture as seen."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inside = mask[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    top, left = top + int(rows[0]), left + int(columns[0])
    bottom, right = top + inside.shape[0], left + inside.shape[1]
    edges = tuple(_edges(full, small) for full, small in zip(geometry.original, seen.original))
    starts, ends = _runs(inside, top, left, edges, frame)
    scale_y, scale_x = geometry.original[0] / seen.original[0], geometry.original[1] / seen.original[1]
    found = measure(inside)
    found["centroid_x"] += left
    found["centroid_y"] += top
    if abs(scale_x / scale_y - 1) < 0.02:  # one scale on both axes: angles and ratios hold, lengths grow with it
        found = {name: value * (scale_x * scale_y) ** 0.5 if name in ("length", "width") else value for name, value in found.items()}
        centroid = found.pop("centroid_x") * scale_x, found.pop("centroid_y") * scale_y
    else:
        row, column = edges[0], edges[1]
        full = np.repeat(
            np.repeat(inside, np.diff(row[top : bottom + 1]), axis=0),
            np.diff(column[left : right + 1]),
            axis=1,
        )
        found = measure(full)
        centroid = found.pop("centroid_x") + column[left], found.pop("centroid_y") + row[top]
    found["area"] = float((ends - starts).sum())
    x0, x1, y0, y1 = (int(value) for value in (edges[1][left], edges[1][right], edges[0][top], edges[0][bottom]))
    shift, stretch, place = (left, top), (scale_x, scale_y), (frame.left, frame.top)
    outlines = tuple(np.round((outline + shift) * stretch + place, 2).astype(np.float32).ravel().tolist() for outline in _outlines(inside))
    return Area(
        box=(x0 + frame.left, y0 + frame.top, x1 - x0, y1 - y0),
        count=count,
        pixels=int(found["area"]),
        rle=rle_from_runs(starts, ends, frame.size),
        contours=outlines,
        centroid=(float(centroid[0]) + frame.left, float(centroid[1]) + frame.top),
        values=found,
        errors=uncertainties(found, (x1 - x0, y1 - y0), geometry.cell_original),
    )


def _edges(full: int, small: int) -> np.ndarray:
    """Returns int [small + 1]: where the edges of the small picture's pixels lie among the full one's (nearest neighbour)."""
    nearest = np.minimum(((np.arange(full) + 0.5) * small / full).astype(np.int64), small - 1)
    return np.searchsorted(nearest, np.arange(small + 1))


def _runs(inside: np.ndarray, top: int, left: int, edges: tuple[np.ndarray, ...], frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Returns first and one past last pixel of each run down the columns of the whole picture, without painting the full-size mask."""
    framed = _padded(inside).T[1:-1]
    jumps = framed[:, 1:] - framed[:, :-1]
    column, first = np.nonzero(jumps == 1)
    _, last = np.nonzero(jumps == -1)
    per_column = np.bincount(column, minlength=inside.shape[1])
    offsets = np.concatenate([[0], np.cumsum(per_column)[:-1]])
    wide = edges[1][left : left + inside.shape[1] + 1]
    repeated = np.repeat(np.arange(inside.shape[1]), np.diff(wide))  # the small column of each full column
    counts = per_column[repeated]
    shift = np.concatenate([[0], np.cumsum(counts)[:-1]]) if counts.size else counts
    index = np.repeat(offsets[repeated] - shift, counts) + np.arange(int(counts.sum()))
    base = (np.repeat(np.arange(int(wide[0]), int(wide[-1])), counts) + frame.left) * frame.size[0] + frame.top
    starts, ends = base + edges[0][first[index] + top], base + edges[0][last[index] + top]
    kept = ends > starts
    return starts[kept], ends[kept]


def _padded(inside: np.ndarray) -> np.ndarray:
    """The mask as int8 with a frame of zeros; np.pad costs more than all that is done with it."""
    padded = np.zeros((inside.shape[0] + 2, inside.shape[1] + 2), dtype=np.int8)
    padded[1:-1, 1:-1] = inside
    return padded


def _outlines(inside: np.ndarray) -> list[np.ndarray]:
    """Returns closed outlines of a mask's pixels, float64 [N, 2] of ``(x, y)``, longest first; outer ones clockwise, holes counter-clockwise.

    The corners of the pixels' own edges, so that an outline encloses exactly the pixels; areas that touch at a corner are one, as in the
    labelling. Straight runs of edges are found with numpy, only the corners are linked one by one.
    """
    padded = _padded(inside)
    stride = padded.shape[1]
    # Walking with the pixel on the right: above a pixel to the right, below it to the left, right of it down, left of it up.
    across = _links(padded[1:] - padded[:-1], 1, stride)
    down = _links((padded[:, :-1] - padded[:, 1:]).T, stride, 1)
    outlines = []
    while across:
        (corner, forward), end = across.popitem()
        path, start = [corner], (corner, forward)
        while True:
            path.append(end)
            # Where two areas touch at a corner there are two ways on; turning left joins them.
            turn = (end, not forward) if (end, not forward) in down else (end, forward)
            end, forward = down.pop(turn), turn[1]
            turn = (end, forward) if (end, forward) in across or (end, forward) == start else (end, not forward)
            path.append(end)
            if turn == start:
                break
            end, forward = across.pop(turn), turn[1]
        rows, columns = np.divmod(np.array(path), stride)
        outlines.append(np.stack([columns, rows], axis=1).astype(np.float64))
    return sorted(outlines, key=len, reverse=True)


def _links(steps: np.ndarray, along: int, between: int) -> dict[tuple[int, bool], int]:
    """Finds the straight runs of pixel edges on each lattice line.

    Args:
        steps: int8 [lines, edges]; +1 and -1 for edges to be walked forwards and backwards, 0 where there is none.
        along: What one edge adds to a corner's number.
        between: What one line adds.

    Returns:
        ``(first corner, forwards)`` -> last corner. Corner 0 is the upper left corner of the mask.
    """
    framed = np.zeros((steps.shape[0], steps.shape[1] + 2), dtype=np.int8)
    framed[:, 1:-1] = steps
    changes = framed[:, 1:] != framed[:, :-1]
    # A run ends where the next begins, also when the sign flips at a corner where areas touch.
    line, edge = np.nonzero(changes)
    first, last = edge[:-1], edge[1:]
    sign = steps[line[:-1], np.minimum(first, steps.shape[1] - 1)]
    kept = (line[:-1] == line[1:]) & (sign != 0)
    # The mask was padded by one: its first lattice line is 0 across lines, its first edge stands one further.
    base = line[:-1][kept] * between
    low, high = base + (first[kept] - 1) * along, base + (last[kept] - 1) * along
    forward = sign[kept] > 0
    starts, ends = np.where(forward, low, high), np.where(forward, high, low)
    return dict(zip(zip(starts.tolist(), forward.tolist()), ends.tolist()))


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
