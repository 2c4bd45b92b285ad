"""From the grid to pixels: how a score map becomes a heatmap. Plain numpy and scipy.

A grid value belongs to the centre of its cell. Between centres the heatmap is interpolated; beyond the outermost centres the edge value
holds, so that nothing is extrapolated and padding never bleeds in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.names import choose

__all__ = [
    "KERNELS",
    "UPSAMPLING",
    "Enlargement",
    "at_pixels",
    "axis_matrix",
    "denser",
    "filled",
    "grid_to_pixels",
    "heatmap",
    "highest_places",
    "highest_places_of_all",
    "highest_point",
    "highest_points",
    "points_of",
    "readable",
    "settled_places",
]

PEAK_STEPS = 16
"""Into how many steps a cell is divided where the highest point of a map is looked for."""


def _linear(share: np.ndarray) -> dict[int, np.ndarray]:
    return {0: 1 - share, 1: share}


def _catmull_rom(share: np.ndarray) -> dict[int, np.ndarray]:
    """Cubic convolution with a = -1/2 (Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981)."""
    square, cube = share**2, share**3
    return {
        -1: 0.5 * (-cube + 2 * square - share),
        0: 0.5 * (3 * cube - 5 * square + 2),
        1: 0.5 * (-3 * cube + 4 * square + share),
        2: 0.5 * (cube - square),
    }


KERNELS: dict[str, Callable[[np.ndarray], dict[int, np.ndarray]]] = {"cubic": _catmull_rom, "bilinear": _linear}
"""Weights of the neighbouring cells by their number from the lower one, given the place between the two in [0, 1)."""


def _axis(kernel: str, size: int, scale: float, offset: float, low: int, high: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns cells int64 [size] and their weights float32 [size], tap by tap, for each of ``size`` output pixel centres."""
    return _taps(kernel, (np.arange(size, dtype=np.float64) + 0.5) * scale + offset - 0.5, low, high)


def _taps(kernel: str, position: np.ndarray, low: int, high: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns cells and their weights, tap by tap, for places given in cells; ``low`` and ``high`` are the outermost cells."""
    position = np.clip(position, low, high)
    lower = np.floor(position).astype(np.int64)
    taps = choose(kernel, KERNELS, "interpolation")(position - lower)
    return [(np.clip(lower + step, low, high), weight.astype(np.float32)) for step, weight in taps.items()]


def axis_matrix(kernel: str, position: np.ndarray, low: int, high: int, count: int) -> np.ndarray:
    """Returns interpolation along one axis as a matrix float32 [N, count]: row ``n`` holds the weights of the cells at place ``n``.

    Args:
        kernel: A name of :data:`KERNELS`.
        position: float64 [N], places in cells; cell ``i`` has its centre at ``i``.
        low: The outermost cell before; beyond its centre its value holds.
        high: The outermost cell behind.
        count: Cells along the axis.
    """
    matrix = np.zeros((len(position), count), dtype=np.float32)
    for cells, weights in _taps(kernel, position, low, high):
        np.add.at(matrix, (np.arange(len(position)), cells), weights)
    return matrix


def denser(geometry: Geometry, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns interpolation (cubic) of maps at ``times`` cells along each cell, as matrices float32 [times h, h] and [times w, w]."""
    valid = geometry.valid()
    found = []
    for axis in (0, 1):
        shown, count = np.flatnonzero(valid.any(axis=1 - axis)), geometry.grid[axis]
        found.append(axis_matrix("cubic", (np.arange(count * times) + 0.5) / times - 0.5, int(shown[0]), int(shown[-1]), count))
    return found[0], found[1]


def grid_to_pixels(scores: np.ndarray, geometry: Geometry, kernel: str = "cubic") -> np.ndarray:
    """Interpolates a grid map at the centres of the original's pixels.

    Both kernels pass through the scores at the cells' centres. The cubic one has its peaks between the centres where the cells beside a
    maximum say so, so that a small part is found more exactly than to a cell; between cells it may pass the range of the scores a little.

    Args:
        scores: float32 [h, w]; padded cells are ignored.
        geometry: Frames of the picture.
        kernel: A name of :data:`KERNELS`.

    Returns:
        float32 [H, W]; NaN where the model did not see the picture (outside a ``native`` centre crop).
    """
    return Enlargement(scores[None], geometry, kernel).pixels(0, 0, geometry.original[0], 0, geometry.original[1])


_Taps = list[tuple[np.ndarray, np.ndarray]]


@lru_cache(maxsize=32)
def _axes(kernel: str, geometry: Geometry) -> tuple[tuple[int, int, int, int], _Taps, _Taps, tuple[np.ndarray, np.ndarray]]:
    """How a picture's grid is enlarged, which pictures of one size share: the outermost cells (rows, then columns), the taps down and
    across, and which rows and columns of pixels the model did not see.
    """
    valid = geometry.valid()
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    cell_y, cell_x = geometry.cell
    height, width = geometry.original
    bounds = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    down = _axis(kernel, height, geometry.scale[0] / cell_y, geometry.offset[0] / cell_y, *bounds[:2])
    across = _axis(kernel, width, geometry.scale[1] / cell_x, geometry.offset[1] / cell_x, *bounds[2:])
    x0, y0, x1, y1 = geometry.seen
    centres_y, centres_x = np.arange(height) + 0.5, np.arange(width) + 0.5
    return bounds, down, across, ((centres_y < y0) | (centres_y >= y1), (centres_x < x0) | (centres_x >= x1))


class Enlargement:
    """Several maps of one picture, interpolated at the centres of the original's pixels where it is asked for.

    Args:
        scores: float32 [C, h, w]; padded cells are ignored. Other cells that are NaN spoil their neighbours: see :func:`filled`.
        geometry: Frames of the picture.
        kernel: A name of :data:`KERNELS`.
    """

    def __init__(self, scores: np.ndarray, geometry: Geometry, kernel: str = "cubic") -> None:
        if scores.shape[1:] != geometry.grid:
            raise ConfigurationError(f"the score map is {scores.shape[1:]}, but its geometry has a grid of {geometry.grid}.")
        self._steps = choose(kernel, KERNELS, "interpolation")(np.zeros(1))
        self._scores = np.asarray(scores, dtype=np.float32)
        self._bounds, self._down, self._across, self._unseen = _axes(kernel, geometry)

    def pixels(self, number: int, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns a part of one enlarged map, float32 [bottom - top, right - left]; NaN where the model did not see the picture."""
        return self.stack([number], top, bottom, left, right)[:, 0]

    def stack(self, numbers: Sequence[int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Returns a part of several enlarged maps, float32 [bottom - top, C, right - left], rows of pixels first; see :meth:`pixels`.

        Every pixel is the same, to the last bit, whatever else is asked for beside it.
        """
        scores = self._scores[list(numbers)]
        wide: np.ndarray = np.zeros((), np.float32)
        for cells, weights in self._across:
            wide = wide + scores[:, :, cells[left:right]] * weights[left:right]
        # Four cells make a row of pixels: a sparse product, whose additions come in one order.
        down = self._rows(top, bottom) @ wide.transpose(1, 0, 2).reshape(scores.shape[1], -1)
        pixels: np.ndarray = down.reshape(bottom - top, len(scores), right - left)
        rows, columns = self._unseen[0][top:bottom], self._unseen[1][left:right]
        if rows.any():
            pixels[rows] = np.nan
        if columns.any():
            pixels[:, :, columns] = np.nan
        return pixels

    def _rows(self, top: int, bottom: int) -> Any:
        from scipy.sparse import csr_array

        cells, weights = (np.stack(parts, axis=1)[top:bottom] for parts in zip(*self._down))
        ends = np.arange(0, cells.size + 1, cells.shape[1])
        return csr_array((weights.ravel(), cells.ravel(), ends), shape=(bottom - top, self._scores.shape[1]))

    def window(self, number: int, limit: float) -> tuple[int, int, int, int] | None:
        """Returns ``(top, bottom, left, right)``, outside of which no pixel of an enlarged map exceeds a limit; ``None`` where none can."""
        return self.windows(np.array([limit]), slice(number, number + 1))[0]

    def windows(self, limits: np.ndarray, numbers: slice = slice(None)) -> list[tuple[int, int, int, int] | None]:
        """Returns the windows of several maps in one pass; see :meth:`window`.

        Args:
            limits: float [C], one of each map.
            numbers: The maps.
        """
        high, low = (reach[numbers] for reach in self._reach)
        may = high + OVERSHOOT * (high - low) > limits[:, None, None]
        rows, columns = may.any(axis=2), may.any(axis=1)
        some = rows.any(axis=1)
        # Cell i stands for what lies between its centre and the next one's.
        sides = []
        for axis, marks in enumerate((rows, columns)):
            lower, offset, count = self._lower[axis], self._bounds[2 * axis], marks.shape[1]
            first, last = marks.argmax(axis=1), count - 1 - marks[:, ::-1].argmax(axis=1)
            sides += [np.searchsorted(lower, first + offset, "left"), np.searchsorted(lower, last + offset, "right")]
        found = np.stack(sides, axis=1).tolist()
        return [(top, bottom, left, right) if any_ else None for any_, (top, bottom, left, right) in zip(some.tolist(), found)]

    @cached_property
    def _lower(self) -> tuple[np.ndarray, np.ndarray]:
        """For every row and column of pixels the cell whose centre lies before it."""
        step = list(self._steps).index(0)
        return self._down[step][0], self._across[step][0]

    @cached_property
    def _reach(self) -> tuple[np.ndarray, np.ndarray]:
        """Highest and lowest score that any pixel between a cell's centre and the next one's is made of: float32 [C, h', w'] each."""
        top, bottom, left, right = self._bounds
        inner = self._scores[:, top : bottom + 1, left : right + 1]
        padded = np.pad(inner, ((0, 0), (1, 2), (1, 2)), mode="edge")
        high, low = padded, padded
        for axis in (1, 2):
            count = padded.shape[axis] - 3
            parts = [(np.take(high, range(step, step + count), axis), np.take(low, range(step, step + count), axis)) for step in range(4)]
            high, low = np.max([part[0] for part in parts], axis=0), np.min([part[1] for part in parts], axis=0)
        return high, low


OVERSHOOT = 0.2825
"""How far an interpolated value can pass the cells that it is made of, as a share of their range: the weights of an axis sum to one and
their sizes to at most 1.25, so that the negative ones of both axes sum to at most (1.25 ** 2 - 1) / 2, and a little for rounding."""


def filled(scores: np.ndarray) -> np.ndarray:
    """Returns maps float32 [C, h, w] in which cells that may not be read count as the lowest score of their map."""
    finite = np.isfinite(scores)
    if finite.all():
        return scores
    lowest = np.where(finite, scores, np.inf).min(axis=(1, 2), keepdims=True)
    return np.where(finite, scores, np.where(np.isfinite(lowest), lowest, np.float32(np.nan)))


def highest_point(scores: np.ndarray, geometry: Geometry, kernel: str = "cubic") -> tuple[float, float]:
    """Finds where one interpolated map float32 [h, w] is highest; see :func:`highest_points`."""
    x, y = highest_points(scores[None], geometry, kernel)[0].tolist()
    return x, y


def highest_points(scores: np.ndarray, geometry: Geometry, kernel: str = "cubic") -> np.ndarray:
    """Finds where interpolated maps are highest, near their best cells, without making the heatmaps.

    Args:
        scores: float32 [C, h, w]; padded cells are ignored.
        geometry: Frames of the picture.
        kernel: A name of :data:`KERNELS`.

    Returns:
        float64 [C, 2] of ``(x, y)`` in original pixels, to 1/16 of a cell and inside what the model saw; NaN twice where no score is
        finite.
    """
    return points_of(highest_places(scores, geometry, kernel), geometry)


def points_of(places: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Maps what :func:`highest_places` found, float64 [C, 2], to the original pixels of a geometry with the same grid."""
    x0, y0, x1, y1 = geometry.seen
    return np.asarray(np.clip(geometry.grid_to_original(places), (x0, y0), (x1 - 1e-6, y1 - 1e-6)))


def highest_places(scores: np.ndarray, geometry: Geometry, kernel: str = "cubic") -> np.ndarray:
    """Finds where interpolated maps are highest as :func:`highest_points` does, in cells of the grid: float64 [C, 2] of ``(x, y)``."""
    return _highest(scores, geometry.valid(), kernel)


def highest_places_of_all(pictures: Sequence[tuple[np.ndarray, Geometry]], kernel: str = "cubic") -> list[np.ndarray]:
    """Finds where the maps of pictures are highest, those with the same padding in one pass; see :func:`highest_places`.

    Args:
        pictures: Maps float32 [C, h, w] and frames of each picture.
        kernel: A name of :data:`KERNELS`.
    """
    found: list[np.ndarray] = [np.zeros((0, 2))] * len(pictures)
    alike: dict[tuple[tuple[int, int], bytes], list[int]] = {}
    for number, (_, geometry) in enumerate(pictures):
        alike.setdefault((geometry.grid, geometry.valid().tobytes()), []).append(number)
    for numbers in alike.values():
        maps = [pictures[number][0] for number in numbers]
        places = _highest(np.concatenate(maps), pictures[numbers[0]][1].valid(), kernel)
        for number, own in zip(numbers, np.split(places, np.cumsum([len(own) for own in maps])[:-1])):
            found[number] = own
    return found


def _highest(scores: np.ndarray, valid: np.ndarray, kernel: str) -> np.ndarray:
    places = np.full((len(scores), 2), np.nan)
    known = np.flatnonzero((np.isfinite(scores) & valid).any(axis=(1, 2)))
    if not known.size:
        return places
    scores = np.where(valid, scores[known], np.float32(np.nan))
    best = np.unravel_index(np.where(np.isfinite(scores), scores, -np.inf).reshape(len(scores), -1).argmax(axis=1), valid.shape)
    scores = filled(scores)  # What may not be read attracts no peak.
    around = np.arange(-PEAK_STEPS, PEAK_STEPS + 1) / PEAK_STEPS
    # The cells about the best one that a place within one cell of it is made of.
    reach = np.arange(-2, 4)
    steps, taps, cells = [], [], []
    for axis in (0, 1):
        inside = np.flatnonzero(valid.any(axis=1 - axis))
        low, high = int(inside[0]), int(inside[-1])
        steps.append(np.clip(best[axis][:, None] + around, low, high))
        cells.append(np.clip(best[axis][:, None] + reach, low, high))
        taps.append([(at - (best[axis][:, None] - 2), weights) for at, weights in _taps(kernel, steps[axis], low, high)])
    number, nothing = np.arange(len(scores)), np.zeros((), np.float32)
    # Whole lines are gathered: first those of the columns, then those of the rows.
    near = scores[number[:, None, None], cells[0][:, None, :], cells[1][:, :, None]]
    wide = sum((near[number[:, None], at] * weights[:, :, None] for at, weights in taps[1]), nothing)
    wide = np.ascontiguousarray(wide.transpose(0, 2, 1))
    fine = sum((wide[number[:, None], at] * weights[:, :, None] for at, weights in taps[0]), nothing)
    row, column = np.unravel_index(fine.reshape(len(fine), -1).argmax(axis=1), (around.size, around.size))
    places[known] = np.stack([steps[1][number, column] + 0.5, steps[0][number, row] + 0.5], axis=1)
    return places


def settled_places(refined: np.ndarray, places: np.ndarray, times: tuple[float, float]) -> np.ndarray:
    """Finds where refined maps are highest near the peaks of the maps that they were made from.

    Args:
        refined: float32 [C, H, W], on a finer grid over the same model frame; NaN where the picture is not, or may not be read.
        places: float64 [C, 2] of ``(x, y)`` in cells, as :func:`highest_places` gives them; NaN where nothing was seen.
        times: ``(y, x)`` places of the finer grid along a cell.

    Returns:
        The same, each moved by at most half a cell and half a place of the finer grid, each way.
    """
    found = places.copy()
    for number, (x, y) in enumerate(places):
        if np.isnan(x):
            continue
        low = [max(0, int((at - 0.5) * step)) for at, step in ((y, times[0]), (x, times[1]))]
        high = [max(start, int((at + 0.5) * step)) + 1 for start, at, step in zip(low, (y, x), times)]
        near = refined[number, low[0] : high[0], low[1] : high[1]]
        if np.isfinite(near).any():
            row, column = np.unravel_index(int(np.where(np.isfinite(near), near, -np.inf).argmax()), near.shape)
            found[number] = (low[1] + column + 0.5) / times[1], (low[0] + row + 0.5) / times[0]
    return found


def _cubic(scores: np.ndarray, geometry: Geometry, picture: np.ndarray | None) -> np.ndarray:
    """Cubic between cell centres (the default)."""
    return grid_to_pixels(scores, geometry, "cubic")


def _bilinear(scores: np.ndarray, geometry: Geometry, picture: np.ndarray | None) -> np.ndarray:
    """Bilinear between cell centres: peaks lie at the centres, no value leaves the range of the scores."""
    return grid_to_pixels(scores, geometry, "bilinear")


def _guided(scores: np.ndarray, geometry: Geometry, picture: np.ndarray | None) -> np.ndarray:
    """Edge-aware: the interpolated map is smoothed by a guided filter whose guide is the picture's luminance.

    He, Sun & Tang, "Guided Image Filtering", TPAMI 2013: within each window the output is a linear function of the guide, so that edges
    of the map snap to edges of the picture. The window is half a grid cell, epsilon is 1e-3 of the luminance range squared.
    """
    from scipy.ndimage import uniform_filter

    if picture is None:
        raise ConfigurationError("edge-aware upsampling needs the picture itself: pass picture=, uint8 [H, W, 3].")
    if picture.shape[:2] != geometry.original:
        raise ConfigurationError(f"the picture is {picture.shape[:2]}, but the map belongs to one of {geometry.original} (rows, columns).")
    smooth = grid_to_pixels(scores, geometry)
    known = np.isfinite(smooth)
    target = np.where(known, smooth, 0.0)
    guide = (picture[..., :3] @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32) / 255).astype(np.float32)
    size = [max(1, 2 * int(side / 2) + 1) for side in geometry.cell_original]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(uniform_filter(values, size=size, mode="nearest"))

    mean_guide, mean_target = mean(guide), mean(target)
    slope = (mean(guide * target) - mean_guide * mean_target) / (mean(guide * guide) - mean_guide**2 + 1e-3)
    level = mean_target - slope * mean_guide
    filtered = mean(slope) * guide + mean(level)
    return np.where(known, filtered, np.nan).astype(np.float32)


UPSAMPLING: dict[str, Callable[[np.ndarray, Geometry, np.ndarray | None], np.ndarray]] = {
    "cubic": _cubic,
    "bilinear": _bilinear,
    "edge-aware": _guided,
}
"""Upsampling strategies by name: (scores [h, w], geometry, picture uint8 [H, W, 3] or None) -> float32 [H, W]."""


def heatmap(scores: np.ndarray, geometry: Geometry, upsampling: str = "cubic", picture: np.ndarray | None = None) -> np.ndarray:
    """Turns a grid map into a heatmap float32 [H, W] in original pixels with a named strategy of :data:`UPSAMPLING`.

    Pixels of cells that are NaN, such as those outside a place that was asked for, are NaN; the others are not touched by them.
    """
    enlarge = choose(upsampling, UPSAMPLING, "upsampling")
    whole, unread = readable(scores, geometry)
    pixels = enlarge(whole, geometry, picture)
    return pixels if unread is None else np.where(at_pixels(unread, geometry), np.float32(np.nan), pixels)


def readable(scores: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns a map to interpolate, in which cells that are NaN do not touch the others, and those cells: float32 [h, w] and bool [h, w].

    Their own pixels are to be NaN then. The map is as it is, and there are no such cells (``None``), where all are known or none is.
    """
    valid = geometry.valid()
    unread = np.isnan(scores) & valid
    return (scores, None) if not unread.any() or unread[valid].all() else (continued(scores), unread)


def continued(scores: np.ndarray) -> np.ndarray:
    """Returns a map float32 [h, w] in which cells that are NaN have the score of the nearest one that is not."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~np.isfinite(scores), return_distances=False, return_indices=True)
    return np.asarray(scores[tuple(nearest)])


def at_pixels(cells: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Returns what holds for the cell that each pixel of the original lies in: [h, w] to [H, W]."""
    height, width = geometry.original
    rows = ((np.arange(height) + 0.5) * geometry.scale[0] + geometry.offset[0]) / geometry.cell[0]
    columns = ((np.arange(width) + 0.5) * geometry.scale[1] + geometry.offset[1]) / geometry.cell[1]
    row = np.clip(rows.astype(int), 0, geometry.grid[0] - 1)
    column = np.clip(columns.astype(int), 0, geometry.grid[1] - 1)
    return np.asarray(cells[row][:, column])
