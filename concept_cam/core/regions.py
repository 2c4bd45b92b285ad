"""From score maps to masks, boxes, outlines and measures: the one way there is, for one map or for all maps of many pictures at once.

Plain numpy and scipy. Thresholds are found on the grid, and a map is enlarged only where it may exceed its threshold; all that follows
works on runs of pixels (:mod:`concept_cam.core.shapes`), for all regions in one pass.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from numbers import Real
from typing import Any

import numpy as np

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.names import choose, plain_number, whole_number
from concept_cam.core.resampling import Enlargement, at_pixels, filled, highest_places, points_of, readable
from concept_cam.core.shapes import (
    Canvas,
    Runs,
    column_runs,
    components,
    decode_rle,
    encode_rle,
    encode_runs,
    joined,
    outlines,
    runs_of,
    shapes,
)

__all__ = [
    "DEFAULT_THRESHOLD",
    "RESOLUTIONS",
    "THRESHOLDS",
    "Frame",
    "PictureMaps",
    "Region",
    "Shape",
    "above",
    "check_area",
    "decode_rle",
    "encode_rle",
    "find_regions",
    "find_shapes",
    "find_shapes_of_all",
    "measure",
    "parse_threshold",
    "regions_of_map",
    "threshold_value",
    "threshold_values",
]

# --------------------------------------------------------------------------------------------------------------- regions


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
class Shape:
    """One area of a picture, connected or not; original frame throughout, pixels, half-open.

    Attributes:
        box: ``(x0, y0, x1, y1)``, integers.
        area: Pixels in the region.
        rle: COCO run-length encoding ``{"size": [H, W], "counts": text}`` of the region in the whole picture.
        contours: Closed outlines along the pixels' edges, longest first, each float64 [N, 2] of the corners ``(x, y)``; outer ones
            clockwise as seen, holes counter-clockwise. They enclose exactly the pixels at which the region was found.
        measures: Shape measures in pixels and degrees (see :func:`concept_cam.core.shapes.shapes`).
    """

    box: tuple[int, int, int, int]
    area: int
    rle: Mapping[str, Any]
    contours: tuple[np.ndarray, ...]
    measures: Mapping[str, float]

    @property
    def width(self) -> int:
        """Columns of the box."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        """Rows of the box."""
        return self.box[3] - self.box[1]

    def polygon(self, tolerance: float = 1.5) -> np.ndarray:
        """Returns the longest outline with fewer corners, for tools that draw by hand.

        Args:
            tolerance: How far it may leave the outline, pixels; a region thinner than that becomes its box.

        Returns:
            float64 [N, 2], at least three corners ``(x, y)``, open.
        """
        from skimage.measure import approximate_polygon

        outline = np.asarray(approximate_polygon(self.contours[0], tolerance)[:-1], dtype=np.float64)
        x0, y0, x1, y1 = self.box
        return outline if len(outline) > 2 else np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


@dataclass(frozen=True, repr=False)
class Region(Shape):
    """One connected area of a map above its threshold.

    Attributes:
        peak: ``(x, y)`` of the highest score in the region.
        peak_score: That score.
        mean_score: Mean score over the region.
    """

    peak: tuple[float, float]
    peak_score: float
    mean_score: float

    def __repr__(self) -> str:
        """Box, area and peak; the mask and outlines are too long to read."""
        return f"<Region {self.width} x {self.height} at {self.box[:2]}, {self.area} pixels, peak {self.peak_score:+.3f}>"

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
    number = _number(threshold)
    if number is None:
        raise ConfigurationError(
            f"the threshold must be a strategy ({', '.join(sorted(THRESHOLDS))}) or a number in score units, received "
            f"{reprlib.repr(threshold)} ({type(threshold).__name__})."
        )
    if not math.isfinite(number):
        raise ConfigurationError(f"the threshold must be a finite number in score units, received {number}.")
    return number


def _number(value: Any) -> float | None:
    """A number of any type as a float; ``None`` for what is none, such as a truth value."""
    plain = plain_number(value)
    return float(plain) if isinstance(plain, Real) and not isinstance(plain, bool) else None


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


def threshold_values(maps: np.ndarray, threshold: str | float) -> np.ndarray:
    """Returns the thresholds of several maps float32 [C, h, w], float64 [C]; see :func:`threshold_value`."""
    if parse_threshold(threshold) != "half-max":
        return np.array([threshold_value(map_, threshold) for map_ in maps], dtype=np.float64)
    highest = np.where(np.isfinite(maps), maps, -np.inf).max(axis=(1, 2), initial=-np.inf).astype(np.float64)
    return np.where(highest > 0, highest / 2, math.inf)


def above(heatmap: np.ndarray, limit: float | np.ndarray) -> np.ndarray:
    """Returns bool [H, W]: scores above a limit that a strategy found, infinite where it found nothing; False where the score is NaN."""
    if heatmap.dtype == np.float32:
        limit = _rounded_down(np.asarray(limit, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        return np.asarray(heatmap > limit)


def _rounded_down(limit: np.ndarray) -> np.ndarray:
    """The largest float32 that is no larger than a limit: the same scores lie above it, and comparing is much faster in one type."""
    nearest = limit.astype(np.float32)
    return np.where(nearest > limit, np.nextafter(nearest, np.float32(-np.inf)), nearest)


# --------------------------------------------------------------------------------------------------------------- regions

RESOLUTIONS: dict[str, str] = {
    "model": "at the size at which the model saw the picture, mapped to the original: fast",
    "original": "at the picture's own size: exact and slower",
}
"""At which resolution regions are found and measured."""

CHUNK_PIXELS = 16_000_000
"""Maps are dealt with together up to so many pixels in all."""


def measure(mask: np.ndarray) -> dict[str, float]:
    """Measures the shape of a mask bool [H, W] with at least one True pixel; see :func:`concept_cam.core.shapes.shapes`."""
    row, first, last = runs_of(mask)
    found = shapes(Runs(np.zeros(row.size, dtype=np.int64), row, first, last, 1))
    return {name: float(values[0]) for name, values in found.items()}


def as_seen(geometry: Geometry) -> Geometry:
    """The same picture at the size at which the model saw it; never larger than it is."""
    height = min(geometry.original[0], max(1, round(geometry.original[0] * geometry.scale[0])))
    width = min(geometry.original[1], max(1, round(geometry.original[1] * geometry.scale[1])))
    scale = geometry.scale[0] * geometry.original[0] / height, geometry.scale[1] * geometry.original[1] / width
    return replace(geometry, original=(height, width), scale=scale)


@dataclass(frozen=True, eq=False)
class PictureMaps:
    """Score maps of one picture in which regions are looked for.

    Attributes:
        scores: float32 [C, h, w], grid frame; NaN in padding and where nothing may be read.
        geometry: Frames of the measured picture (the crop, for a specimen).
        frame: Where it lies in the whole picture; ``None`` where it is the whole one.
        hidden: bool, any size: the measured picture's pixels that may not belong to a region.
        peaks: float64 [C, 2], the maps' highest places where they are known already; see
            :func:`concept_cam.core.resampling.highest_places`.
        levels: float32 [C, h', w'], the maps on which thresholds are found; ``scores`` by default. Refined maps take those of the cells.
        kernel: A name of :data:`concept_cam.core.resampling.KERNELS`; refined maps, which have edges, are enlarged bilinearly.
    """

    scores: np.ndarray
    geometry: Geometry
    frame: Frame | None = None
    hidden: np.ndarray | None = None
    peaks: np.ndarray | None = None
    levels: np.ndarray | None = None
    kernel: str = "cubic"

    def some(self, which: slice) -> PictureMaps:
        """Returns some of the maps."""
        peaks, levels = (None if values is None else values[which] for values in (self.peaks, self.levels))
        return replace(self, scores=self.scores[which], peaks=peaks, levels=levels)


def find_shapes(
    scores: np.ndarray,
    geometry: Geometry,
    frame: Frame | None = None,
    *,
    threshold: str | float = DEFAULT_THRESHOLD,
    resolution: str = "model",
    areas: int = 1,
    min_area: float = 0.0,
    hidden: np.ndarray | None = None,
    peaks: np.ndarray | None = None,
    levels: np.ndarray | None = None,
    kernel: str = "cubic",
) -> list[tuple[Shape | None, int, float]]:
    """Finds and measures what stands out in the score maps of one picture; see :class:`PictureMaps` and :func:`find_shapes_of_all`."""
    maps = PictureMaps(scores, geometry, frame, hidden, peaks, levels, kernel)
    return find_shapes_of_all([maps], threshold=threshold, resolution=resolution, areas=areas, min_area=min_area)[0]


def find_shapes_of_all(
    pictures: Sequence[PictureMaps],
    *,
    threshold: str | float = DEFAULT_THRESHOLD,
    resolution: str = "model",
    areas: int = 1,
    min_area: float = 0.0,
) -> list[list[tuple[Shape | None, int, float]]]:
    """Finds and measures what stands out in score maps, all maps of all pictures in one pass.

    What is found in a map does not depend on the maps and pictures beside it.

    Args:
        pictures: The maps of each picture.
        threshold: Strategy or number, see :func:`threshold_value`.
        resolution: A name of :data:`RESOLUTIONS`.
        areas: Keep so many connected areas (8-connected) of each map, the one that holds the map's highest point first, then the largest; 0
            for all. So the peak and the region of a record are of one place.
        min_area: Smallest area in original pixels, or below 1 as a share of the measured picture.

    Returns:
        Per picture and map: the kept areas as one shape, or ``None`` where nothing is above the threshold; their number; the threshold in
        score units.
    """
    check_area(min_area)
    choose(resolution, RESOLUTIONS, "region resolution")
    found: list[list[tuple[Shape | None, int, float]]] = [[] for _ in pictures]
    for chunks in _chunks(pictures, resolution):
        for chunk, own in zip(chunks, _found_in(chunks, threshold, areas or None, min_area)):
            found[chunk.number] += own
    return found


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Maps of one picture, its number, and its frames at the resolution at which regions are found."""

    maps: PictureMaps
    number: int
    seen: Geometry

    def least(self, min_area: float) -> float:
        """Fewest pixels of an area, as seen."""
        whole, seen = self.maps.geometry.original, self.seen.original
        return (min_area if min_area < 1 else min_area / (whole[0] * whole[1])) * seen[0] * seen[1]


def _chunks(pictures: Sequence[PictureMaps], resolution: str) -> Iterator[list[_Chunk]]:
    """The maps that are dealt with together, in the order of the pictures."""
    chunks: list[_Chunk] = []
    pixels = 0
    for number, picture in enumerate(pictures):
        seen = picture.geometry if resolution == "original" else as_seen(picture.geometry)
        each = seen.original[0] * seen.original[1]
        step = max(1, CHUNK_PIXELS // each)
        for start in range(0, len(picture.scores), step):
            maps = picture.some(slice(start, start + step))
            if chunks and pixels + len(maps.scores) * each > CHUNK_PIXELS:
                yield chunks
                chunks, pixels = [], 0
            chunks.append(_Chunk(maps, number, seen))
            pixels += len(maps.scores) * each
    if chunks:
        yield chunks


def _found_in(
    chunks: Sequence[_Chunk], threshold: str | float, areas: int | None, min_area: float
) -> list[list[tuple[Shape | None, int, float]]]:
    limits = [threshold_values(chunk.maps.scores if chunk.maps.levels is None else chunk.maps.levels, threshold) for chunk in chunks]
    runs = joined(
        [_runs_above(chunk.maps.scores, own, chunk.seen, chunk.maps.hidden, chunk.maps.kernel) for chunk, own in zip(chunks, limits)]
    )
    sizes = [len(chunk.maps.scores) for chunk in chunks]
    least = np.repeat([chunk.least(min_area) for chunk in chunks], sizes)
    labels, kept = _kept(runs, least, areas, partial(_peaks_of, chunks))
    counts = np.bincount(kept[1], minlength=runs.count)
    owners = np.flatnonzero(counts)
    # All kept areas of a map are one shape.
    shape_of_map = np.full(runs.count, -1)
    shape_of_map[owners] = np.arange(owners.size)
    owner = np.full(int(labels.max(initial=-1)) + 1, -1)
    owner[kept[0]] = shape_of_map[kept[1]]
    which = np.flatnonzero(owner[labels] >= 0)
    spaces = [_Space(chunk.seen, chunk.maps.geometry, chunk.maps.frame or Frame(0, 0, chunk.maps.geometry.original)) for chunk in chunks]
    made = _shapes(runs.take(which, owner[labels[which]], owners.size), spaces, np.repeat(np.arange(len(chunks)), sizes)[owners])
    places = iter(zip(shape_of_map.tolist(), counts.tolist()))
    return [[(made[shape] if shape >= 0 else None, count, limit) for limit, (shape, count) in zip(own.tolist(), places)] for own in limits]


def regions_of_map(
    scores: np.ndarray,
    geometry: Geometry,
    *,
    threshold: str | float = DEFAULT_THRESHOLD,
    resolution: str = "original",
    min_area: float = 0.0,
    largest: int | None = None,
    peak: np.ndarray | None = None,
    levels: np.ndarray | None = None,
    kernel: str = "cubic",
) -> tuple[Region, ...]:
    """Finds the connected regions of one map above its threshold, each on its own: that of the map's highest point first, which need not
    be the largest, then the others, largest first.

    It is the order in which :func:`find_shapes_of_all` keeps areas, so that the first region is what a record of `annotate` is about.

    Args:
        scores: float32 [h, w], grid frame; NaN in padding, and in cells that may not be read: no region reaches into these, and up to
            them regions are as those of the heatmap.
        geometry: Frames of the picture.
        threshold: Strategy or number, see :func:`threshold_value`.
        resolution: A name of :data:`RESOLUTIONS`.
        min_area: Smallest area in original pixels, or below 1 as a share of the picture.
        largest: Keep only so many, the first ones.
        peak: float64 [2], the map's highest place where it is known already; see :func:`concept_cam.core.resampling.highest_places`.
        levels: float32 [h', w'], the map on which the threshold is found; ``scores`` by default.
        kernel: As for :func:`find_shapes`.
    """
    check_area(min_area)
    _check_count(largest)
    choose(resolution, RESOLUTIONS, "region resolution")
    seen = geometry if resolution == "original" else as_seen(geometry)
    limit = threshold_value(scores if levels is None else levels, threshold)
    whole, unread = readable(scores, geometry)
    enlargement = Enlargement(whole[None], seen, kernel)
    window = enlargement.window(0, limit)
    if window is None:
        return ()
    heatmap = enlargement.pixels(0, *window)
    if unread is not None:
        top, bottom, left, right = window
        heatmap[at_pixels(unread, seen)[top:bottom, left:right]] = np.nan
    least = (min_area if min_area < 1 else min_area / (geometry.original[0] * geometry.original[1])) * seen.original[0] * seen.original[1]
    place = highest_places(scores[None], geometry, kernel)[0] if peak is None else peak
    point = points_of(place[None], seen)[0]  # in the frame in which regions are found, as for the areas of `find_shapes_of_all`
    return _regions(heatmap, above(heatmap, limit), (window[0], window[2]), seen, geometry, least, largest, point)


def find_regions(
    heatmap: np.ndarray,
    mask: np.ndarray,
    *,
    min_area: float = 0.0,
    largest: int | None = None,
) -> tuple[Region, ...]:
    """Splits a mask into its connected regions (8-connected), largest first: a mask, which anybody may have drawn, has no peak.

    Args:
        heatmap: float32 [H, W] scores, original frame.
        mask: bool [H, W].
        min_area: Regions of fewer pixels are dropped; a value below 1 is a share of the picture.
        largest: Keep only so many regions.

    Raises:
        ConfigurationError: Sizes differ, a negative minimum area, or a number of regions under 1.
    """
    if heatmap.shape != mask.shape:
        raise ConfigurationError(f"the heatmap is {heatmap.shape} and the mask {mask.shape}: both must be the same [H, W].")
    check_area(min_area)
    _check_count(largest)
    size = int(mask.shape[0]), int(mask.shape[1])
    whole = Geometry("squash", size, size, (1, 1), (1.0, 1.0))
    return _regions(heatmap, mask, (0, 0), whole, whole, min_area * mask.size if min_area < 1 else min_area, largest)


def check_area(min_area: float) -> None:
    """Checks the smallest area of regions.

    Raises:
        ConfigurationError: It is negative, infinite or no number: NaN would drop every region.
    """
    number = _number(min_area)
    if number is None or not 0 <= number < math.inf:
        raise ConfigurationError(
            f"the minimum area (min_area) must be a finite number that is not negative, received {reprlib.repr(min_area)}."
        )


def _check_count(largest: int | None) -> None:
    """Checks how many regions are kept: a negative number would drop some from the end.

    Raises:
        ConfigurationError: Neither ``None`` nor a whole number of at least 1.
    """
    count = whole_number(largest)
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ConfigurationError(
            "the number of regions (largest) must be a whole number of at least 1, or None for all of them, received "
            f"{reprlib.repr(largest)}."
        )


WIDE = 1 / 8
"""A map whose window is at least such a share of the picture is enlarged together with others like it; a smaller one on its own."""

STACKED_PIXELS = 4_000_000
"""Of maps that are enlarged together, most pixels at once."""


def _runs_above(scores: np.ndarray, limits: np.ndarray, seen: Geometry, hidden: np.ndarray | None, kernel: str = "cubic") -> Runs:
    """Returns the runs of each map's pixels above its limit; a map is enlarged only where it may exceed it."""
    unread: dict[int, np.ndarray] = {}
    for number in np.flatnonzero((np.isnan(scores) & seen.valid()).any(axis=(1, 2))).tolist():
        whole, cells = readable(scores[number], seen)
        if cells is not None:
            scores = scores.copy() if not unread else scores
            scores[number], unread[number] = whole, cells
    enlargement = Enlargement(filled(scores), seen, kernel)
    shown = None if hidden is None else ~_resampled(hidden, seen.original)
    parts = []
    for numbers, (top, bottom, left, right) in _together(enlargement.windows(limits), seen.original):
        pixels = enlargement.stack(numbers, top, bottom, left, right)
        masks = above(pixels, limits[numbers][None, :, None])
        if shown is not None:
            masks &= shown[top:bottom, None, left:right]
        for column, number in enumerate(numbers):
            if number in unread:
                masks[:, column] &= ~at_pixels(unread[number], seen)[top:bottom, left:right]
        which, row, first, last = _runs_of_rows(masks)
        parts.append((np.asarray(numbers)[which], row + top, first + left, last + left))
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return Runs(nothing, nothing, nothing, nothing, len(limits))
    owner, row, first, last = (np.concatenate(arrays) for arrays in zip(*parts))
    order = np.argsort(owner, kind="stable")  # the runs of one map come from one part, in reading order
    return Runs(owner[order], row[order], first[order], last[order], len(limits))


def _together(
    windows: Sequence[tuple[int, int, int, int] | None], size: tuple[int, int]
) -> list[tuple[list[int], tuple[int, int, int, int]]]:
    """Says which maps are enlarged at once, and where: those with large windows in what holds all of these, others alone."""
    areas = [0 if window is None else (window[1] - window[0]) * (window[3] - window[2]) for window in windows]
    wide = [number for number, area in enumerate(areas) if area >= WIDE * size[0] * size[1]]
    found = [([number], window) for number, window in enumerate(windows) if window is not None and number not in wide]
    if wide:
        tops, bottoms, lefts, rights = zip(*(window for number in wide if (window := windows[number]) is not None))
        common = min(tops), max(bottoms), min(lefts), max(rights)
        step = max(1, STACKED_PIXELS // ((common[1] - common[0]) * (common[3] - common[2])))
        found += [(wide[start : start + step], common) for start in range(0, len(wide), step)]
    return found


def _resampled(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask bool [H, W] at another size, by the nearest pixel."""
    rows, columns = (np.minimum(((np.arange(side) + 0.5) * have / side).astype(int), have - 1) for side, have in zip(size, mask.shape))
    return np.asarray(mask[rows][:, columns])


def _runs_of_rows(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns whose, the row, the first and one past the last pixel of every run of masks bool [H, C, W], row by row."""
    height, count, width = masks.shape
    lines, first, last = runs_of(masks.reshape(height * count, width))
    row, which = np.divmod(lines, count)
    return which, row, first, last


def _peaks_of(chunks: Sequence[_Chunk], which: np.ndarray) -> np.ndarray:
    """Highest points ``(x, y)``, float64 [M, 2], of some of the maps, which are numbered through all chunks and ascend."""
    found, begin = [], 0
    for chunk in chunks:
        maps, geometry = chunk.maps, chunk.seen
        own = which[(which >= begin) & (which < begin + len(maps.scores))] - begin
        begin += len(maps.scores)
        found.append(points_of(highest_places(maps.scores[own], geometry) if maps.peaks is None else maps.peaks[own], geometry))
    return np.concatenate(found)


def _kept(
    runs: Runs, least: np.ndarray, largest: int | None, peaks: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Chooses the connected areas of each mask that are large enough, the largest few.

    Args:
        runs: The masks.
        least: float [count], fewest pixels of an area of each mask.
        largest: Most areas of a mask.
        peaks: Finds the highest points ``(x, y)`` of masks: the area that holds one comes before larger ones.

    Returns:
        The area that each run belongs to; and of the kept areas, largest first, their numbers and whose they are.
    """
    labels = components(runs)
    sizes = np.bincount(labels, runs.last - runs.first).astype(np.int64) if labels.size else np.zeros(0, dtype=np.int64)
    owner = np.zeros(sizes.size, dtype=np.int64)
    owner[labels] = runs.owner
    later = np.ones(sizes.size, dtype=bool)
    if peaks is not None and largest is not None:
        masks = np.flatnonzero(np.bincount(owner) > largest)
        place = np.full((runs.count, 2), -1)
        if masks.size:
            place[masks] = _pixels(peaks(masks))
        later[labels[_holding(runs, place[runs.owner])]] = False
    order = np.lexsort((np.arange(sizes.size), -sizes, later, owner))
    order = order[sizes[order] >= least[owner[order]]]
    if largest is not None and order.size:
        whose = owner[order]
        begins = np.flatnonzero(np.append(True, whose[1:] != whose[:-1]))
        rank = np.arange(order.size) - np.repeat(begins, np.diff(np.append(begins, order.size)))
        order = order[rank < largest]
    return labels, (order, owner[order])


def _pixels(points: np.ndarray) -> np.ndarray:
    """The pixels ``(x, y)`` in which points lie, int [..., 2]; -1, which is in no run, where nothing was seen."""
    return np.where(np.isnan(points), -1, points).astype(int)


def _holding(runs: Runs, pixels: np.ndarray) -> np.ndarray:
    """Which runs hold the pixel ``(x, y)``, int [N, 2] or [2], that is set against each: bool [N]."""
    x, y = pixels[..., 0], pixels[..., 1]
    return np.asarray((runs.row == y) & (runs.first <= x) & (runs.last > x))


@dataclass(frozen=True)
class _Space:
    """Frames of a picture as seen, its frames, and where it lies in the whole picture."""

    seen: Geometry
    geometry: Geometry
    frame: Frame

    @property
    def stretch(self) -> tuple[float, float]:
        """``(x, y)``: original pixels that one as seen is wide and high."""
        return self.geometry.original[1] / self.seen.original[1], self.geometry.original[0] / self.seen.original[0]

    @property
    def scale(self) -> float:
        """Original pixels that one as seen is long, where both axes have one scale."""
        return math.pow(self.stretch[0] * self.stretch[1], 0.5)

    @property
    def even(self) -> bool:
        """Whether both axes have one scale: then angles and ratios hold, and lengths grow with it."""
        return abs(self.stretch[0] / self.stretch[1] - 1) < 0.02


def _shapes(runs: Runs, spaces: Sequence[_Space], of: np.ndarray) -> list[Shape]:
    """Measures masks found in pictures as seen and maps them to the original frames of the whole pictures.

    Args:
        runs: The masks.
        spaces: The pictures.
        of: int [count], the picture of each mask.
    """
    if not runs.count:
        return []
    canvas = _canvas(spaces, of)
    stretch = np.array([space.stretch for space in spaces])[of]
    place = np.stack([canvas.left, canvas.top], axis=1)
    scale, even = (np.array([getattr(space, name) for space in spaces])[of] for name in ("scale", "even"))
    found = _measures(runs, canvas, np.column_stack([stretch, scale]), even)
    found["centroid_x"], found["centroid_y"] = found["centroid_x"] + canvas.left, found["centroid_y"] + canvas.top
    owner, first, last = column_runs(runs, canvas)
    area = np.bincount(owner, last - first, runs.count)
    found["area"] = area
    texts = encode_runs(owner, first, last, runs.count, canvas.size[:, 0] * canvas.size[:, 1])
    drawn = outlines(runs)
    contours = drawn.split(drawn.points * stretch[drawn.owners] + place[drawn.owners])
    names, table = list(found), np.stack(list(found.values()), axis=1).tolist()
    return [
        Shape(
            box=(corner[0], corner[1], corner[2], corner[3]),
            area=int(pixels),
            rle={"size": size, "counts": text},
            contours=tuple(own),
            measures=dict(zip(names, values)),
        )
        for corner, pixels, size, text, own, values in zip(
            _boxes(runs, canvas).tolist(), area.tolist(), canvas.size.tolist(), texts, contours, table
        )
    ]


def _canvas(spaces: Sequence[_Space], of: np.ndarray) -> Canvas:
    rows, columns = ([_edges(space.geometry.original[axis], space.seen.original[axis]) for space in spaces] for axis in (0, 1))
    row, column = (np.cumsum([0, *(len(own) for own in edges[:-1])])[of] for edges in (rows, columns))
    corner = np.array([(space.frame.left, space.frame.top) for space in spaces])[of]
    size = np.array([space.frame.size for space in spaces])[of]
    return Canvas(np.concatenate(rows), np.concatenate(columns), row, column, corner[:, 0], corner[:, 1], size)


def _boxes(runs: Runs, canvas: Canvas) -> np.ndarray:
    """Returns the box ``(x0, y0, x1, y1)`` of each mask, int64 [count, 4]."""
    starts = runs.starts
    top, bottom = runs.row[starts], np.maximum.reduceat(runs.row, starts) + 1
    left, right = np.minimum.reduceat(runs.first, starts), np.maximum.reduceat(runs.last, starts)
    x = [canvas.columns[canvas.column + side] + canvas.left for side in (left, right)]
    y = [canvas.rows[canvas.row + side] + canvas.top for side in (top, bottom)]
    return np.stack([x[0], y[0], x[1], y[1]], axis=1)


def _measures(runs: Runs, canvas: Canvas, scales: np.ndarray, even: np.ndarray) -> dict[str, np.ndarray]:
    """Shape measures in original pixels: those as seen, made larger, where both axes have one scale, else those of the stretched masks.

    Args:
        runs: The masks.
        canvas: Where they lie.
        scales: float64 [count, 3], original pixels that one as seen is wide, high and long.
        even: bool [count], whether both axes have one scale.
    """
    if even.all():
        found = shapes(runs)
        sizes = {"length": scales[:, 2], "width": scales[:, 2], "centroid_x": scales[:, 0], "centroid_y": scales[:, 1]}
        return {name: values * sizes[name] if name in sizes else values for name, values in found.items()}
    if not even.any():
        return shapes(_stretched(runs, canvas))
    parts = []
    for chosen in (even, ~even):
        masks = np.flatnonzero(chosen)
        number = np.zeros(runs.count, dtype=np.int64)
        number[masks] = np.arange(masks.size)
        which = np.flatnonzero(chosen[runs.owner])
        own = replace(canvas, **{name: getattr(canvas, name)[masks] for name in ("row", "column", "left", "top", "size")})
        parts.append((masks, _measures(runs.take(which, number[runs.owner[which]], masks.size), own, scales[masks], even[masks])))
    found = {name: np.empty(runs.count) for name in parts[0][1]}
    for masks, own_measures in parts:
        for name, values in own_measures.items():
            found[name][masks] = values
    return found


@lru_cache(maxsize=256)
def _edges(full: int, small: int) -> np.ndarray:
    """Returns int [small + 1]: where the edges of the small picture's pixels lie among the full one's (nearest neighbour)."""
    if full == small:
        return np.arange(small + 1)
    nearest = np.minimum(((np.arange(full) + 0.5) * small / full).astype(np.int64), small - 1)
    return np.searchsorted(nearest, np.arange(small + 1))


def _stretched(runs: Runs, canvas: Canvas) -> Runs:
    """Returns the runs at the original's size, whose pixels need not be of one shape."""
    row, column = canvas.row[runs.owner], canvas.column[runs.owner]
    upper, lower = canvas.rows[row + runs.row], canvas.rows[row + runs.row + 1]
    times = lower - upper
    which = np.repeat(np.arange(times.size), times)
    lines = np.repeat(upper - (np.cumsum(times) - times), times) + np.arange(int(times.sum()))
    owner, first, last = runs.owner[which], canvas.columns[column + runs.first][which], canvas.columns[column + runs.last][which]
    return Runs(owner, lines, first, last, runs.count).take(np.arange(which.size), owner, runs.count)


def _regions(
    heatmap: np.ndarray,
    mask: np.ndarray,
    corner: tuple[int, int],
    seen: Geometry,
    geometry: Geometry,
    least: float,
    largest: int | None,
    peak: np.ndarray | None = None,
) -> tuple[Region, ...]:
    """Measures each connected area of a mask, the one that holds the peak first, then the largest.

    Args:
        heatmap: float32 [H', W'], the scores of a window of the picture as seen.
        mask: bool [H', W'], what belongs to a region.
        corner: ``(y, x)`` of the window's upper left corner in the picture as seen.
        seen: The picture as seen.
        geometry: The picture.
        least: Fewest pixels of a region, as seen.
        largest: Most regions; ``None`` for all.
        peak: float64 [2], ``(x, y)`` of the highest point in the picture as seen, NaN where there is none; ``None`` for largest first.
    """
    row, first, last = runs_of(mask, *corner)
    labels, (kept, _) = _kept(Runs(np.zeros(row.size, dtype=np.int64), row, first, last, 1), np.array([least]), None)
    if not kept.size:
        return ()
    owner = np.full(int(labels.max()) + 1, -1)
    owner[kept] = np.arange(kept.size)
    which = np.flatnonzero(owner[labels] >= 0)
    runs = Runs(owner[labels], row, first, last, kept.size).take(which, owner[labels[which]], kept.size)
    space = _Space(seen, geometry, Frame(0, 0, geometry.original))
    found = _shapes(runs, [space], np.zeros(runs.count, dtype=np.int64))
    scale_y, scale_x = geometry.original[0] / seen.original[0], geometry.original[1] / seen.original[1]
    bounds = np.append(runs.starts, runs.row.size)
    regions = []
    for shape, low, high in zip(found, bounds, bounds[1:]):
        counts = runs.last[low:high] - runs.first[low:high]
        rows = np.repeat(runs.row[low:high], counts)
        columns = np.repeat(runs.first[low:high] - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
        scores = heatmap[rows - corner[0], columns - corner[1]]
        best = int(np.argmax(scores))
        regions.append(
            Region(
                **vars(shape),
                peak=(float(columns[best] + 0.5) * scale_x, float(rows[best] + 0.5) * scale_y),
                peak_score=float(scores[best]),
                mean_score=float(scores.mean()),
            )
        )
    held = [] if peak is None else runs.owner[_holding(runs, _pixels(peak))].tolist()  # one region at most
    order = sorted(enumerate(regions), key=lambda each: (each[0] not in held, -each[1].area, each[1].box[1], each[1].box[0]))
    return tuple(region for _, region in order[:largest])
