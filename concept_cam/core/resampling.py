"""From the grid to pixels: how a score map becomes a heatmap. Pure numpy.

A grid value belongs to the centre of its cell. Between centres the heatmap is interpolated; beyond the outermost centres the edge value
holds, so that nothing is extrapolated and padding never bleeds in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.names import choose

__all__ = ["KERNELS", "UPSAMPLING", "grid_to_pixels", "heatmap", "highest_point"]

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
    if scores.shape != geometry.grid:
        raise ConfigurationError(f"the score map is {scores.shape}, but its geometry has a grid of {geometry.grid}.")
    valid = geometry.valid()
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    cell_y, cell_x = geometry.cell
    height, width = geometry.original
    scores = np.asarray(scores, dtype=np.float32)
    across = _axis(kernel, width, geometry.scale[1] / cell_x, geometry.offset[1] / cell_x, int(columns[0]), int(columns[-1]))
    down = _axis(kernel, height, geometry.scale[0] / cell_y, geometry.offset[0] / cell_y, int(rows[0]), int(rows[-1]))
    wide = sum((scores[:, cells] * weights for cells, weights in across), np.zeros((), np.float32))
    pixels = np.zeros((height, width), np.float32)
    for cells, weights in down:
        pixels += wide[cells] * weights[:, None]
    x0, y0, x1, y1 = geometry.seen
    centres_y, centres_x = np.arange(height) + 0.5, np.arange(width) + 0.5
    pixels[(centres_y < y0) | (centres_y >= y1)] = np.nan
    pixels[:, (centres_x < x0) | (centres_x >= x1)] = np.nan
    return np.asarray(pixels, dtype=np.float32)


def highest_point(scores: np.ndarray, geometry: Geometry, kernel: str = "cubic") -> tuple[float, float]:
    """Finds where the interpolated map is highest, near its best cell, without making the heatmap.

    Args:
        scores: float32 [h, w]; padded cells are ignored.
        geometry: Frames of the picture.
        kernel: A name of :data:`KERNELS`.

    Returns:
        ``(x, y)`` in original pixels, to 1/16 of a cell and inside what the model saw; NaN twice where no score is finite.
    """
    valid = geometry.valid()
    if not np.isfinite(scores[valid]).any():
        return float("nan"), float("nan")
    scores = np.where(valid, scores, np.nan)
    best = np.unravel_index(int(np.nanargmax(scores)), scores.shape)
    # What may not be read attracts no peak.
    scores = np.where(np.isfinite(scores), scores, np.nanmin(scores))
    around = np.arange(-PEAK_STEPS, PEAK_STEPS + 1) / PEAK_STEPS
    places, taps = [], []
    for axis in (0, 1):
        cells = np.flatnonzero(valid.any(axis=1 - axis))
        low, high = int(cells[0]), int(cells[-1])
        places.append(np.clip(best[axis] + around, low, high))
        taps.append(_taps(kernel, places[axis], low, high))
    wide = sum((scores[:, cells] * weights for cells, weights in taps[1]), np.zeros((), np.float32))
    fine = sum((wide[cells] * weights[:, None] for cells, weights in taps[0]), np.zeros((), np.float32))
    row, column = np.unravel_index(int(fine.argmax()), fine.shape)
    x, y = geometry.grid_to_original(np.array([places[1][column] + 0.5, places[0][row] + 0.5]))
    x0, y0, x1, y1 = geometry.seen
    return float(np.clip(x, x0, x1 - 1e-6)), float(np.clip(y, y0, y1 - 1e-6))


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
    """Turns a grid map into a heatmap float32 [H, W] in original pixels with a named strategy of :data:`UPSAMPLING`."""
    return choose(upsampling, UPSAMPLING, "upsampling")(scores, geometry, picture)
