"""From the grid to pixels: how a score map becomes a heatmap. Pure numpy.

A grid value belongs to the centre of its cell. Between centres the heatmap is interpolated; beyond the outermost centres the edge value
holds, so that nothing is extrapolated and padding never bleeds in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from concept_cam.types import ConfigurationError, Geometry, choose

__all__ = ["UPSAMPLING", "grid_to_pixels", "heatmap"]


def _axis(count: int, size: int, scale: float, offset: float, low: int, high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the lower cell, the upper cell and the share of the upper one for each of ``size`` output pixel centres."""
    position = (np.arange(size, dtype=np.float64) + 0.5) * scale + offset - 0.5
    position = np.clip(position, low, high)
    lower = np.minimum(np.floor(position).astype(np.int64), count - 1)
    upper = np.minimum(lower + 1, high)
    return lower, upper, (position - lower).astype(np.float32)


def grid_to_pixels(scores: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Interpolates a grid map bilinearly at the centres of the original's pixels.

    Args:
        scores: float32 [h, w]; padded cells are ignored.
        geometry: Frames of the picture.

    Returns:
        float32 [H, W]; NaN where the model did not see the picture (outside a ``native`` centre crop).
    """
    if scores.shape != geometry.grid:
        raise ConfigurationError(f"the score map is {scores.shape}, but its geometry has a grid of {geometry.grid}.")
    valid = geometry.valid()
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    cell_y, cell_x = geometry.cell
    height, width = geometry.original
    lower, upper, share = _axis(
        geometry.grid[1], width, geometry.scale[1] / cell_x, geometry.offset[1] / cell_x, int(columns[0]), int(columns[-1])
    )
    scores = np.asarray(scores, dtype=np.float32)
    wide = scores[:, lower] * (1 - share) + scores[:, upper] * share
    lower, upper, share = _axis(
        geometry.grid[0], height, geometry.scale[0] / cell_y, geometry.offset[0] / cell_y, int(rows[0]), int(rows[-1])
    )
    pixels = wide[lower]
    pixels += (wide[upper] - pixels) * share[:, None]
    x0, y0, x1, y1 = geometry.seen
    centres_y, centres_x = np.arange(height) + 0.5, np.arange(width) + 0.5
    pixels[(centres_y < y0) | (centres_y >= y1)] = np.nan
    pixels[:, (centres_x < x0) | (centres_x >= x1)] = np.nan
    return np.asarray(pixels, dtype=np.float32)


def _bilinear(scores: np.ndarray, geometry: Geometry, picture: np.ndarray | None) -> np.ndarray:
    """Bilinear between cell centres (the default)."""
    return grid_to_pixels(scores, geometry)


def _guided(scores: np.ndarray, geometry: Geometry, picture: np.ndarray | None) -> np.ndarray:
    """Edge-aware: the bilinear map is smoothed by a guided filter whose guide is the picture's luminance.

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
    "bilinear": _bilinear,
    "edge-aware": _guided,
}
"""Upsampling strategies by name: (scores [h, w], geometry, picture uint8 [H, W, 3] or None) -> float32 [H, W]."""


def heatmap(scores: np.ndarray, geometry: Geometry, upsampling: str = "bilinear", picture: np.ndarray | None = None) -> np.ndarray:
    """Turns a grid map into a heatmap float32 [H, W] in original pixels with a named strategy of :data:`UPSAMPLING`."""
    return choose(upsampling, UPSAMPLING, "upsampling")(scores, geometry, picture)
