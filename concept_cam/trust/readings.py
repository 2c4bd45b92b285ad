"""Other readings of a picture, mirrored and shifted by a part of a cell: does the map put its peak at the same place?

A model that finds a thing finds it whichever way the picture is turned and wherever the grid of patches begins; a peak that comes from the
border of a patch, or from noise, moves. (Equivariance as a test of explanations: Crabbé and van der Schaar, "Evaluating the robustness of
interpretability methods through explanation invariance and equivariance", NeurIPS 2023.) Each reading costs an encoding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from concept_cam.core.features import PatchFeatures
from concept_cam.core.geometry import Geometry
from concept_cam.core.resampling import highest_point

__all__ = ["READINGS", "Reader", "Reading", "agreement_of", "readings_of"]


@dataclass(frozen=True)
class Reading:
    """One way to read a picture again.

    Attributes:
        mirrored: Whether left and right are exchanged.
        shift: By how many cells the picture is moved right and down, before it is mirrored; what leaves the frame is lost, and its edge is
            repeated on the other side.
    """

    mirrored: bool = False
    shift: float = 0.0

    def pixels(self, picture: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Returns the picture to be encoded, of the same size: uint8 [H, W, 3].

        Args:
            picture: uint8 [H, W, 3], upright.
            geometry: Of the first reading: how large a cell is.
        """
        dy, dx = self._pixels(geometry)
        height, width = picture.shape[:2]
        rows = np.clip(np.arange(height) - dy, 0, height - 1)
        columns = np.clip(np.arange(width) - dx, 0, width - 1)
        moved = picture[rows][:, columns]
        return np.ascontiguousarray(moved[:, ::-1] if self.mirrored else moved)

    def there(self, x: float, y: float, geometry: Geometry) -> tuple[float, float]:
        """Returns where a point of the picture lies in the reading, original pixels."""
        dy, dx = self._pixels(geometry)
        x, y = x + dx, y + dy
        return (geometry.original[1] - x if self.mirrored else x), y

    def _pixels(self, geometry: Geometry) -> tuple[int, int]:
        """The shift in whole original pixels, ``(y, x)``; at least one where there is any."""
        cells = geometry.cell_original
        down, across = (math.copysign(max(1, round(abs(self.shift) * size)), self.shift) if self.shift else 0 for size in cells)
        return int(down), int(across)


READINGS: dict[str, Reading] = {
    "mirrored": Reading(mirrored=True),
    "shifted": Reading(shift=0.5),
    "mirrored and shifted back": Reading(mirrored=True, shift=-0.5),
}
"""Readings that agreement is measured over."""

Reader = Callable[[], Sequence[tuple[Reading, PatchFeatures]]]
"""Gives the other readings of a picture, encoded; called once per map, so that it should remember them."""


def readings_of(
    picture: np.ndarray, geometry: Geometry, encode: Callable[[Sequence[np.ndarray]], Sequence[PatchFeatures]]
) -> list[tuple[Reading, PatchFeatures]]:
    """Reads a picture in all the ways of :data:`READINGS`.

    Args:
        picture: uint8 [H, W, 3], upright.
        geometry: Of the first reading.
        encode: Runs the image tower on pictures.
    """
    ways = tuple(READINGS.values())
    return list(zip(ways, encode([way.pixels(picture, geometry) for way in ways]), strict=True))


def agreement_of(
    scores: np.ndarray,
    geometry: Geometry,
    readings: Sequence[tuple[Reading, PatchFeatures]],
    map_of: Callable[[PatchFeatures], np.ndarray],
) -> float:
    """Returns how high other readings' maps stand at this map's peak, 0..1.

    Each map is looked at within one and a half cells around the place where the peak should lie in it, and counts as 0 at its median or
    below, and as 1 at its peak; the mean over the readings is returned.

    Args:
        scores: float32 [h, w], the map; NaN where nothing was read.
        geometry: Its frames.
        readings: Other readings.
        map_of: The same question's map [h, w] of other features.

    Returns:
        NaN where there is no peak, or no other reading.
    """
    if not np.isfinite(scores).any() or not readings:
        return float("nan")
    x, y = highest_point(scores, geometry)
    found = []
    for reading, features in readings:
        values = map_of(features)
        if not np.isfinite(values).any():
            continue
        column, row = features.geometry.original_to_grid(np.array(reading.there(x, y, geometry)))
        rows, columns = np.mgrid[: values.shape[0], : values.shape[1]]
        near = ((columns + 0.5 - column) ** 2 + (rows + 0.5 - row) ** 2 <= 1.5**2) & np.isfinite(values)
        middle, highest = float(np.nanmedian(values)), float(np.nanmax(values))
        if not near.any() or not highest > middle:
            found.append(0.0)
            continue
        found.append(min(max((float(values[near].max()) - middle) / (highest - middle), 0.0), 1.0))
    return float(np.mean(found)) if found else float("nan")
