"""What refiners see of one picture; what its maps share is computed once, whatever the number of maps."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.resampling import axis_matrix, denser
from concept_cam.pictures.resizing import magnified
from concept_cam.refine.windows import Windows

__all__ = ["FLAT", "MOST_PIXELS", "Scene", "zoom_of"]

MOST_PIXELS = 1 << 20
"""Pixels of a refined map at most: those of an ordinary screen. A larger picture is refined at a smaller size and enlarged from there."""

FLAT = 1e-4
"""Variance of the colours about a place, in squared units of their range 0..1, below which the place counts as flat: a deviation of 2.5 of
255, about what a camera's noise is."""


def zoom_of(geometry: Geometry) -> int:
    """Returns how many pixels of a refined map lie along a model pixel: as many as the picture has, up to :data:`MOST_PIXELS` in all."""
    wanted = int(np.ceil(1 / max(geometry.scale) - 1e-6))
    most = int((MOST_PIXELS / (geometry.model[0] * geometry.model[1])) ** 0.5)
    return max(1, min(wanted, most))


class Scene:
    """One picture as refiners see it: maps on the cells, and pixels as fine as the maps will be.

    Axis letters: ``C`` maps, ``h w`` cells, ``H W`` pixels of the refined map that show the picture. A refined map lies over the model
    frame, ``zoom`` pixels per model pixel.

    Args:
        geometry: Frames of the picture; its grid is that of the maps.
        valid: bool [h, w], the cells that may be read.
        pixels: uint8 [H', W', 3], the upright picture or a smaller copy of it; ``None`` where it is not at hand.
        features: float [h, w, D], patch features of the tower; ``None`` where they are not at hand.
        zoom: Pixels of the refined map per model pixel; by default :func:`zoom_of` says.
        seen: Cells of the maps along what the tower saw as one, where the maps are those of a second look.
        device: Where refiners compute.

    Raises:
        ConfigurationError: Nothing may be read, or the mask is no mask of the cells.
    """

    def __init__(
        self,
        geometry: Geometry,
        valid: np.ndarray | None = None,
        pixels: np.ndarray | None = None,
        features: Tensor | None = None,
        zoom: int | None = None,
        seen: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        shown = geometry.valid()
        self.geometry = geometry
        self.valid = shown if valid is None else valid & shown
        if self.valid.shape != geometry.grid or not self.valid.any():
            raise ConfigurationError(f"expected cells that may be read, bool {geometry.grid}; received {self.valid.sum()} of them.")
        self.pixels, self.features = pixels, features
        self.zoom, self.seen = zoom_of(geometry) if zoom is None else zoom, seen
        self.device = torch.device(device)

    @cached_property
    def inside(self) -> tuple[int, int, int, int]:
        """``(top, left, bottom, right)`` of the picture in the refined map's frame, whole pixels: what refiners work on."""
        x0, y0, x1, y1 = (round(edge * self.zoom) for edge in self.geometry.content)
        return y0, x0, y1, x1

    @cached_property
    def pitch(self) -> tuple[float, float]:
        """``(y, x)`` size of a cell of the maps in pixels of the refined map."""
        return self.geometry.cell[0] * self.zoom, self.geometry.cell[1] * self.zoom

    @cached_property
    def cell(self) -> tuple[float, float]:
        """``(y, x)`` size of what the tower saw as one: how exactly outlines are known before, and how far they may be moved."""
        return self.pitch[0] * self.seen, self.pitch[1] * self.seen

    @cached_property
    def windows(self) -> Windows:
        """Windows of a cell's size over the pixels."""
        top, left, bottom, right = self.inside
        return Windows((bottom - top, right - left), self.cell)

    @cached_property
    def guide(self) -> Tensor:
        """The picture in the pixels of the refined map, float32 [3, H, W] in 0..1.

        Raises:
            ConfigurationError: The picture is not at hand.
        """
        return torch.from_numpy(self.image).to(self.device).movedim(-1, 0).float() / 255

    @cached_property
    def image(self) -> np.ndarray:
        """The same, uint8 [H, W, 3]."""
        return magnified(self.picture, self.geometry, self.zoom, self.inside)

    @property
    def picture(self) -> np.ndarray:
        """The picture itself, uint8 [H', W', 3].

        Raises:
            ConfigurationError: It is not at hand.
        """
        if self.pixels is None:
            raise ConfigurationError("a map is refined beside its picture, and the picture is not at hand: give it, or refine='none'.")
        return self.pixels

    @cached_property
    def flatness(self) -> Tensor:
        """Where the picture shows nothing that a map could be refined by, float32 [1, H, W] in 0..1: 1 where it is flat, 0 at edges.

        The colours' variance within a cell's reach, against :data:`FLAT`.
        """
        low = self.windows.lowered(self.guide)
        variance = self.windows.mean(low.square().sum(0, keepdim=True)) - self.windows.mean(low).square().sum(0, keepdim=True)
        return self.windows.raised(FLAT / (variance.clamp(min=0) + FLAT))

    # ------------------------------------------------------------------------------------------------- cells and pixels

    def _matrices(self, kernel: str) -> tuple[Tensor, Tensor]:
        """Interpolation from cells to pixels, float32 [H, h] and [W, w]."""
        top, left, bottom, right = self.inside
        shown = self.geometry.valid()
        found = []
        for axis, (first, last) in enumerate(((top, bottom), (left, right))):
            cells = np.flatnonzero(shown.any(axis=1 - axis))
            at = (np.arange(first, last) + 0.5) / self.pitch[axis] - 0.5
            matrix = axis_matrix(kernel, at, int(cells[0]), int(cells[-1]), self.geometry.grid[axis])
            found.append(torch.from_numpy(matrix).to(self.device))
        return found[0], found[1]

    @cached_property
    def _cubic(self) -> tuple[Tensor, Tensor]:
        return self._matrices("cubic")

    @cached_property
    def _nearest_cell(self) -> tuple[Tensor, Tensor] | None:
        """For every cell the nearest one that may be read; ``None`` where all that show the picture may."""
        if self.valid.all():
            return None
        rows, columns = ndimage.distance_transform_edt(~self.valid, return_distances=False, return_indices=True)
        return torch.from_numpy(rows.astype(np.int64)).to(self.device), torch.from_numpy(columns.astype(np.int64)).to(self.device)

    def _known(self, cells: Tensor) -> Tensor:
        """Returns maps float32 [C, h, w] in which cells that may not be read have the score of the nearest that may."""
        cells = cells.float()
        return cells if self._nearest_cell is None else cells[:, self._nearest_cell[0], self._nearest_cell[1]]

    def enlarge(self, cells: Tensor) -> Tensor:
        """Interpolates maps [C, h, w] between cell centres (cubic): float32 [C, H, W]; cells that may not be read have no say."""
        down, across = self._cubic
        return down @ self._known(cells) @ across.T

    def wide(self, maps: Tensor) -> Tensor:
        """Returns maps on pixels, [C, H, W]: as they are, or those on cells [C, h, w] enlarged."""
        top, left, bottom, right = self.inside
        return maps if tuple(maps.shape[1:]) == (bottom - top, right - left) else self.enlarge(maps)

    def denser(self, times: int) -> Scene:
        """Returns the same picture with ``times`` cells along each cell; pixels are shared."""
        if times == 1:
            return self
        geometry = self.geometry.with_grid((self.geometry.grid[0] * times, self.geometry.grid[1] * times))
        valid = np.kron(self.valid, np.ones((times, times), dtype=bool))
        return Scene(geometry, valid, self.pixels, None, self.zoom, self.seen * times, self.device)

    def on_denser_cells(self, cells: Tensor, times: int) -> Tensor:
        """Interpolates maps [C, h, w] at the centres of the cells of :meth:`denser`, [C, times * h, times * w]."""
        if times == 1:
            return cells
        down, across = (torch.from_numpy(matrix).to(cells.device) for matrix in denser(self.geometry, times))
        return down @ self._known(cells) @ across.T

    def framed(self, maps: Tensor) -> np.ndarray:
        """Returns maps [C, H, W] in the whole model frame, float32 [C, H'', W'']; NaN where the picture is not, or may not be read."""
        top, left, bottom, right = self.inside
        frame = self.geometry.model[0] * self.zoom, self.geometry.model[1] * self.zoom
        found = np.full((len(maps), *frame), np.nan, dtype=np.float32)
        found[:, top:bottom, left:right] = maps.float().cpu().numpy()
        hidden = self.geometry.valid() & ~self.valid
        if hidden.any():
            found[:, self.pixels_of(hidden)] = np.nan
        return found

    def pixels_at(self, places: np.ndarray) -> list[tuple[int, int]]:
        """Returns the pixels ``(row, column)`` of the refined map at places in cells, float64 [C, 2] of ``(x, y)``, or the nearest."""
        top, left, bottom, right = self.inside
        places = np.nan_to_num(places)
        rows = np.floor(places[:, 1] * self.pitch[0]).astype(int) - top
        columns = np.floor(places[:, 0] * self.pitch[1]).astype(int) - left
        return list(zip(np.clip(rows, 0, bottom - top - 1).tolist(), np.clip(columns, 0, right - left - 1).tolist()))

    def pixels_of(self, cells: np.ndarray) -> np.ndarray:
        """Returns bool [H'', W'']: the pixels of the whole model frame that lie in the marked cells, bool [h, w]."""
        rows, columns = (
            np.minimum(((np.arange(side * self.zoom) + 0.5) / self.pitch[axis]).astype(int), self.geometry.grid[axis] - 1)
            for axis, side in enumerate(self.geometry.model)
        )
        return np.asarray(cells[rows][:, columns])
