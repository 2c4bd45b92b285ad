"""Where things are: the exact mapping between the grid, model and original frames of one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np

from concept_cam.core.errors import ConfigurationError

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """Exact mapping between the grid, model and original frames of one encoded picture.

    Every resize policy is an axis-aligned affine map, ``model = original * scale + offset``, and the grid divides the model frame evenly.

    Attributes:
        policy: Name of the resize policy.
        original: ``(H, W)`` of the upright picture.
        model: ``(H, W)`` of the model's input (for ``tile``: of the whole resized picture).
        grid: ``(h, w)`` of the patch grid over the model frame.
        scale: ``(y, x)`` model pixels per original pixel.
        offset: ``(y, x)`` model coordinate of the original's corner (0, 0); negative where a crop cuts it off.
    """

    policy: str
    original: tuple[int, int]
    model: tuple[int, int]
    grid: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("original", "model", "grid"):
            size = getattr(self, name)
            if len(size) != 2 or min(size) < 1:
                raise ConfigurationError(f"geometry: {name} size must be two positive numbers, received {size}.")
        if min(self.scale) <= 0 or not all(map(math.isfinite, (*self.scale, *self.offset))):
            raise ConfigurationError(f"geometry: scale {self.scale} and offset {self.offset} must be finite, scale positive.")

    @property
    def cell(self) -> tuple[float, float]:
        """``(y, x)`` size of one grid cell in model pixels."""
        return self.model[0] / self.grid[0], self.model[1] / self.grid[1]

    @property
    def cell_original(self) -> tuple[float, float]:
        """``(y, x)`` size of one grid cell in original pixels: the resolution, and so the uncertainty, of every measure."""
        return self.cell[0] / self.scale[0], self.cell[1] / self.scale[1]

    def _xy(self, pair: tuple[float, float]) -> np.ndarray:
        return np.array([pair[1], pair[0]], dtype=np.float64)

    def original_to_model(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the original to the model frame."""
        return cast("np.ndarray", np.asarray(points, dtype=np.float64) * self._xy(self.scale) + self._xy(self.offset))

    def model_to_original(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the model to the original frame."""
        return cast("np.ndarray", (np.asarray(points, dtype=np.float64) - self._xy(self.offset)) / self._xy(self.scale))

    def model_to_grid(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the model to the grid frame (cell i covers [i, i+1))."""
        return cast("np.ndarray", np.asarray(points, dtype=np.float64) / self._xy(self.cell))

    def grid_to_model(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the grid to the model frame."""
        return cast("np.ndarray", np.asarray(points, dtype=np.float64) * self._xy(self.cell))

    def original_to_grid(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the original to the grid frame."""
        return self.model_to_grid(self.original_to_model(points))

    def grid_to_original(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the grid to the original frame."""
        return self.model_to_original(self.grid_to_model(points))

    @property
    def content(self) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)``: the part of the model frame that shows the picture, not padding; model pixels, half-open."""
        y0, x0 = self.offset
        y1, x1 = y0 + self.original[0] * self.scale[0], x0 + self.original[1] * self.scale[1]
        return max(0.0, x0), max(0.0, y0), min(float(self.model[1]), x1), min(float(self.model[0]), y1)

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)``: the part of the original that the model sees; original pixels, half-open.

        The whole picture for every policy but a ``native`` centre crop.
        """
        x0, y0, x1, y1 = self.content
        (left, top), (right, bottom) = self.model_to_original(np.array([[x0, y0], [x1, y1]]))
        height, width = self.original
        # Rounding of the affine map must not shave a pixel off a fully visible picture.
        edge = 1e-6 * max(height, width)
        return (
            0.0 if left < edge else float(left),
            0.0 if top < edge else float(top),
            float(width) if right > width - edge else float(right),
            float(height) if bottom > height - edge else float(bottom),
        )

    def coverage(self) -> np.ndarray:
        """Returns float64 [h, w] in 0..1: the share of each grid cell that shows the picture rather than padding."""
        x0, y0, x1, y1 = self.content

        def overlap(count: int, cell: float, low: float, high: float) -> np.ndarray:
            edges = np.arange(count + 1) * cell
            return cast("np.ndarray", np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) / cell)

        rows = overlap(self.grid[0], self.cell[0], y0, y1)
        columns = overlap(self.grid[1], self.cell[1], x0, x1)
        return np.outer(rows, columns)

    def valid(self) -> np.ndarray:
        """Returns bool [h, w]: cells that show any of the picture; the others are padding and never score."""
        return _valid(self).copy()

    def with_grid(self, grid: tuple[int, int]) -> Geometry:
        """Returns the same mapping with another grid over the same model frame."""
        return replace(self, grid=grid)

    def resized(self, original: tuple[int, int]) -> Geometry:
        """Returns the same mapping for the picture at another size ``(H, W)``."""
        scale = self.scale[0] * self.original[0] / original[0], self.scale[1] * self.original[1] / original[1]
        return replace(self, original=original, scale=scale)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "policy": self.policy,
            "original_size": list(self.original),
            "model_size": list(self.model),
            "grid_size": list(self.grid),
            "scale_yx": list(self.scale),
            "offset_yx": list(self.offset),
        }


@lru_cache(maxsize=256)
def _valid(geometry: Geometry) -> np.ndarray:
    """What pictures of one size share and what every step asks for."""
    return geometry.coverage() > 1e-6
