"""From a score map to masks, boxes, outlines and measures; plain numpy and scikit-image, original frame unless said otherwise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import choose

__all__ = [
    "DEFAULT_THRESHOLD",
    "THRESHOLDS",
    "Region",
    "above",
    "decode_rle",
    "encode_rle",
    "find_regions",
    "measure",
    "parse_threshold",
    "rle_from_runs",
    "threshold_value",
]

# --------------------------------------------------------------------------------------------------------------- regions


@dataclass(frozen=True, repr=False)
class Region:
    """One connected area of a mask; original frame throughout, pixels, half-open.

    Attributes:
        box: ``(x0, y0, x1, y1)``, integers.
        area: Pixels in the region.
        rle: COCO run-length encoding ``{"size": [H, W], "counts": text}`` of the region in the whole picture.
        contours: Closed outlines, outer ones first, each float64 [N, 2] of ``(x, y)``.
        peak: ``(x, y)`` of the highest score in the region.
        peak_score: That score.
        mean_score: Mean score over the region.
        measures: Shape measures in pixels and degrees (see :func:`concept_cam.core.regions.measure`).
    """

    box: tuple[int, int, int, int]
    area: int
    rle: Mapping[str, Any]
    contours: tuple[np.ndarray, ...]
    peak: tuple[float, float]
    peak_score: float
    mean_score: float
    measures: Mapping[str, float]

    def __repr__(self) -> str:
        """Box, area and peak; the mask and outlines are too long to read."""
        return f"<Region {self.width} x {self.height} at {self.box[:2]}, {self.area} pixels, peak {self.peak_score:+.3f}>"

    @property
    def width(self) -> int:
        """Columns of the box."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        """Rows of the box."""
        return self.box[3] - self.box[1]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "box": list(self.box),
            "area": self.area,
            "peak": list(self.peak),
            "peak_score": self.peak_score,
            "mean_score": self.mean_score,
            "rle": dict(self.rle),
            "contours": [np.round(contour, 2).tolist() for contour in self.contours],
            "measures": dict(self.measures),
        }


# ------------------------------------------------------------------------------------------------------------ thresholds


def _from_skimage(name: str) -> Callable[[np.ndarray], float]:
    def threshold(values: np.ndarray) -> float:
        from skimage import filters

        return float(getattr(filters, name)(values))

    threshold.__doc__ = f"scikit-image's ``{name}`` over the valid scores."
    return threshold


def _zero(values: np.ndarray) -> float:
    """Zero: where the target is nearer than the contrasts (neutral only when the contrast weights sum to one)."""
    return 0.0


def _half_max(values: np.ndarray) -> float:
    """Half of the highest score; nothing is selected when the highest score is not positive."""
    highest = float(values.max())
    return highest / 2 if highest > 0 else math.inf


def _mean_std(values: np.ndarray) -> float:
    """Mean plus one standard deviation of the valid scores."""
    return float(values.mean() + values.std())


THRESHOLDS: dict[str, Callable[[np.ndarray], float]] = {
    "otsu": _from_skimage("threshold_otsu"),
    "li": _from_skimage("threshold_li"),
    "yen": _from_skimage("threshold_yen"),
    "triangle": _from_skimage("threshold_triangle"),
    "isodata": _from_skimage("threshold_isodata"),
    "mean": _from_skimage("threshold_mean"),
    "mean+std": _mean_std,
    "half-max": _half_max,
    "zero": _zero,
}
"""Threshold strategies by name; each maps valid scores float32 [N] to a threshold in score units."""

DEFAULT_THRESHOLD = "half-max"
"""Strategy used where none is named. A part is small and its map has one hill: half its height outlines it, whereas histogram methods such
as Otsu's split the picture into subject and ground."""


def parse_threshold(threshold: str | float) -> str | float:
    """Checks a threshold: a strategy's name, or a number (or its text) in score units.

    Raises:
        ConfigurationError: Neither a known strategy nor a finite number.
    """
    if isinstance(threshold, str):
        try:
            threshold = float(threshold)
        except ValueError:
            choose(str(threshold), THRESHOLDS, "threshold (a strategy or a number)")
            return threshold
    if not math.isfinite(threshold):
        raise ConfigurationError(f"the threshold must be a finite number in score units, received {threshold}.")
    return float(threshold)


ROUNDING = 1e-6
"""A map that varies by less than this share of its largest score is flat: that much is the rounding of float32."""


def threshold_value(scores: np.ndarray, threshold: str | float) -> float:
    """Returns the threshold in score units for a map.

    Args:
        scores: float32, any shape; NaN where nothing is known.
        threshold: A name of :data:`THRESHOLDS`, or a fixed value in score units.
    """
    checked = parse_threshold(threshold)
    if isinstance(checked, float):
        return checked
    valid = scores[np.isfinite(scores)].astype(np.float64)
    if valid.size == 0:
        return math.inf
    if np.ptp(valid) <= ROUNDING * np.abs(valid).max() and checked not in ("zero", "half-max"):
        return math.inf  # A flat map has no foreground.
    return THRESHOLDS[checked](valid)


def above(heatmap: np.ndarray, limit: float) -> np.ndarray:
    """Returns bool [H, W]: scores above a limit that a strategy found, infinite where it found nothing; False where the score is NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(heatmap > limit)


# ----------------------------------------------------------------------------------------------------------- run lengths


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encodes a mask as COCO's compressed run-length encoding (column-major runs, zeros first).

    Args:
        mask: bool or 0/1 [H, W].

    Returns:
        ``{"size": [H, W], "counts": text}``, equal to what pycocotools writes.
    """
    return _encode_crop(np.asarray(mask, dtype=bool), 0, 0, (int(mask.shape[0]), int(mask.shape[1])))


def _encode_crop(inside: np.ndarray, top: int, left: int, size: tuple[int, int]) -> dict[str, Any]:
    # Works on the crop alone, so that a small region of a very large picture costs little.
    height = size[0]
    edges = np.diff(np.pad(inside.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    columns, rows = np.nonzero(edges == 1)
    starts = (columns + left) * height + rows + top
    columns, rows = np.nonzero(edges == -1)
    ends = (columns + left) * height + rows + top
    return rle_from_runs(starts, ends, size)


def rle_from_runs(starts: np.ndarray, ends: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Encodes runs of a mask that was never spread out, as COCO's compressed run-length encoding.

    Args:
        starts: int [N], first pixel of each run of ones, counted down the columns; ascending.
        ends: int [N], one past its last pixel; a run may start where the one before it ends.
        size: ``(H, W)`` of the mask.

    Returns:
        ``{"size": [H, W], "counts": text}``.
    """
    height, width = size
    if starts.size:  # A run that reaches the bottom continues at the top of the next column.
        apart = np.append(True, starts[1:] != ends[:-1])
        starts, ends = starts[apart], ends[np.append(apart[1:], True)]
    bounds = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
    counts = np.diff(bounds).astype(np.int64)
    if counts[-1] == 0 and len(counts) > 1:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _compress(counts)}


def _compress(counts: np.ndarray) -> str:
    # Five bits per character from '0' on, sixth bit = "more follows", deltas to the run before the last (COCO maskApi.c).
    values = counts.copy()
    values[3:] -= counts[1:-2]
    text = np.zeros((len(values), 14), dtype=np.uint8)
    more = np.ones(len(values), dtype=bool)
    for position in range(text.shape[1]):
        bits = values & 0x1F
        values = values >> 5
        following = more & np.where(bits & 0x10, values != -1, values != 0)
        text[:, position] = np.where(more, np.where(following, bits | 0x20, bits) + 48, 0)
        more = following
        if not more.any():
            break
    return bytes(text[text > 0]).decode("ascii")


def _decompress(text: str) -> list[int]:
    counts: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more:
            code = ord(text[position]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            position += 1
            shift += 5
            if not more and code & 0x10:
                value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decodes a COCO run-length encoding (compressed text or a list of counts) to bool [H, W].

    Raises:
        ConfigurationError: The counts do not add up to the size.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    runs = _decompress(counts) if isinstance(counts, str) else list(counts)
    if sum(runs) != height * width:
        raise ConfigurationError(f"run lengths sum to {sum(runs)}, expected {height} x {width} = {height * width}.")
    values = np.zeros(len(runs), dtype=bool)
    values[1::2] = True
    return np.repeat(values, runs).reshape((height, width), order="F")


# --------------------------------------------------------------------------------------------------------------- regions


def measure(mask: np.ndarray) -> dict[str, float]:
    """Measures one region's shape in pixels and degrees.

    Args:
        mask: bool [H, W] with at least one True pixel.

    Returns:
        ``area`` (pixels), ``length`` and ``width`` (extent of the pixel squares along and across the major axis, pixels),
        ``orientation`` (degrees of the major axis against the x axis, counter-clockwise on the upright picture, in (-90, 90]),
        ``centroid_x``, ``centroid_y``, ``extent`` (share of the box), ``eccentricity`` (of the ellipse of equal moments, 0..1) and
        ``solidity`` (share of the convex hull, 0..1).
    """
    # Moments by hand, from the runs of each row: scikit-image's regionprops gives the same numbers (tested) at many times the cost.
    framed = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=np.int8)
    framed[:, 1:-1] = mask
    steps = framed[:, 1:] - framed[:, :-1]
    rows, first = np.nonzero(steps == 1)
    last = np.nonzero(steps == -1)[1]
    count = last - first
    size = int(count.sum())
    middle = (first + last - 1) / 2
    centre_y, centre_x = float(count @ rows) / size, float(count @ middle) / size
    y, x = rows - centre_y, middle - centre_x
    var_y, cov = float(count @ (y * y)) / size, float(count @ (y * x)) / size
    var_x = float(count @ (x * x + (count * count - 1) / 12)) / size
    spread = math.hypot(var_x - var_y, 2 * cov)
    major, minor = (var_x + var_y + spread) / 2, max(0.0, (var_x + var_y - spread) / 2)
    # Angle between the row axis and the major axis, counter-clockwise; a round region has none: take x.
    round_ = spread <= 1e-9 * major
    angle = math.pi / 2 if round_ else 0.5 * math.atan2(2 * cov, var_y - var_x)
    along_y, along_x = math.cos(angle), math.sin(angle)
    half = (abs(along_y) + abs(along_x)) / 2  # half the projection of one pixel square on either axis
    y, x = np.concatenate([y, y]), np.concatenate([first, last - 1]) - centre_x  # a row's ends reach farthest
    along, across = y * along_y + x * along_x, x * along_y - y * along_x
    degrees = math.degrees(math.atan2(-along_y, along_x))
    degrees = degrees - 180 if degrees > 90 else degrees + 180 if degrees <= -90 else degrees
    box = (int(rows[-1] - rows[0]) + 1) * int(last.max() - first.min())
    return {
        "area": float(size),
        "length": float(np.ptp(along) + 2 * half),
        "width": float(np.ptp(across) + 2 * half),
        "orientation": float(degrees),
        "centroid_x": centre_x + 0.5,
        "centroid_y": centre_y + 0.5,
        "extent": float(size / box),
        "eccentricity": 0.0 if round_ else math.sqrt(1 - minor / major),
        "solidity": size / _hull_area(rows, first, last),
    }


def _hull_area(rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> float:
    """Returns the area of the convex hull of pixel squares, given as runs (row, first pixel, one past the last) in reading order."""
    # Between its left and its right side; a general hull costs ten times as much, and scikit-image's fails on thin regions.
    starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    rows, first, last = rows[starts], first[starts], last[np.append(starts[1:], rows.size) - 1]
    # Corners lie on the lattice lines above and below each row; two rows share the line between them.
    lines = np.concatenate([rows, rows + 1])
    order = np.argsort(lines, kind="stable")
    positions = lines[order].tolist()
    left = _below(positions, np.concatenate([first, first])[order].tolist())
    right = _below(positions, (-np.concatenate([last, last])[order]).tolist())
    return -(left + right)


def _below(positions: list[int], values: list[int]) -> float:
    """Returns the area under the lower convex hull of points with ascending positions (Andrew's monotone chain)."""
    hull: list[tuple[int, int]] = []
    for position, value in zip(positions, values):
        if hull and hull[-1][0] == position:
            if value >= hull[-1][1]:
                continue
            hull.pop()
        while len(hull) > 1:
            (y0, x0), (y1, x1) = hull[-2], hull[-1]
            if (x1 - x0) * (position - y0) < (value - x0) * (y1 - y0):
                break
            hull.pop()
        hull.append((position, value))
    return sum((y1 - y0) * (x0 + x1) for (y0, x0), (y1, x1) in itertools.pairwise(hull)) / 2


def _contours(mask: np.ndarray, top: int, left: int) -> tuple[np.ndarray, ...]:
    from skimage.measure import find_contours

    padded = np.pad(mask.astype(np.float32), 1)
    # find_contours puts pixel i at coordinate i; its centre is at i + 0.5 here, and the padding shifts by one.
    outlines = [np.stack([contour[:, 1] - 0.5 + left, contour[:, 0] - 0.5 + top], axis=1) for contour in find_contours(padded, 0.5)]
    return tuple(sorted(outlines, key=len, reverse=True))


def find_regions(
    heatmap: np.ndarray,
    mask: np.ndarray,
    *,
    min_area: float = 0.0,
    largest: int | None = None,
) -> tuple[Region, ...]:
    """Splits a mask into its connected regions (8-connected), largest first.

    Args:
        heatmap: float32 [H, W] scores, original frame.
        mask: bool [H, W].
        min_area: Regions of fewer pixels are dropped; a value below 1 is a share of the picture.
        largest: Keep only so many regions.

    Raises:
        ConfigurationError: Sizes differ, or a negative minimum area.
    """
    from skimage.measure import label, regionprops

    if heatmap.shape != mask.shape:
        raise ConfigurationError(f"the heatmap is {heatmap.shape} and the mask {mask.shape}: both must be the same [H, W].")
    if min_area < 0:
        raise ConfigurationError(f"the minimum area must not be negative, received {min_area}.")
    least = min_area * mask.size if min_area < 1 else min_area
    labels = label(mask, connectivity=2)
    parts = [part for part in regionprops(labels) if part.area >= least]
    parts.sort(key=lambda part: (-part.area, part.bbox))
    return tuple(_region(heatmap, labels, part) for part in parts[:largest])


def _region(heatmap: np.ndarray, labels: np.ndarray, part: Any) -> Region:
    top, left, bottom, right = part.bbox
    inside = np.asarray(part.image, dtype=bool)
    scores = np.where(inside, heatmap[top:bottom, left:right], -np.inf)
    row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
    measures = measure(inside)
    measures["centroid_x"] += left
    measures["centroid_y"] += top
    return Region(
        box=(int(left), int(top), int(right), int(bottom)),
        area=int(part.area),
        rle=_encode_crop(inside, top, left, (int(labels.shape[0]), int(labels.shape[1]))),
        contours=_contours(inside, top, left),
        peak=(float(left + column + 0.5), float(top + row + 0.5)),
        peak_score=float(scores[row, column]),
        mean_score=float(heatmap[top:bottom, left:right][inside].mean()),
        measures=measures,
    )
