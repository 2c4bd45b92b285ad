"""Maps that know nothing of the question, at the size of the picture; those of the model's grid are methods like others
(:mod:`concept_cam.methods.baselines`), by the same formulas.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from concept_cam.methods.baselines import LUMA, bell

__all__ = ["BASELINES", "center_map", "luminance_map", "random_map"]

Float32 = npt.NDArray[np.float32]

RANDOM_GRID = 14
"""Cells along the shorter side of the random map: blobs as large as a model's patches, not pixel noise that no method makes."""


def random_map(size: tuple[int, int], seed: int = 0, grid: int = RANDOM_GRID) -> Float32:
    """Smooth noise: standard normal on a coarse grid, bilinear between cell centres.

    Args:
        size: ``(H, W)``.
        seed: Equal seeds give equal maps.
        grid: Cells along the shorter side.

    Returns:
        float32 [H, W].
    """
    cell = max(1.0, min(size) / grid)
    cells = np.random.default_rng(seed).standard_normal((max(1, round(size[0] / cell)), max(1, round(size[1] / cell))))
    return np.asarray(_bilinear(size[0], cells.shape[0]) @ cells @ _bilinear(size[1], cells.shape[1]).T, dtype=np.float32)


def _bilinear(size: int, cells: int) -> npt.NDArray[np.float64]:
    """Weights [size, cells] of linear interpolation between cell centres, constant beyond the outer ones."""
    place = np.clip((np.arange(size) + 0.5) / size * cells - 0.5, 0, cells - 1)
    return cast("npt.NDArray[np.float64]", np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, None))


def center_map(size: tuple[int, int]) -> Float32:
    """A fixed Gaussian around the picture's centre, standard deviation a quarter of each side; float32 [H, W] in 0..1."""
    rows, columns = ((np.arange(n) + 0.5) / n - 0.5 for n in size)
    return bell(np.stack(np.meshgrid(columns, rows), axis=-1)).astype(np.float32)


def luminance_map(pixels: npt.NDArray[np.uint8]) -> Float32:
    """Luma of the picture (Rec. 709 weights on sRGB values): uint8 [H, W, 3] -> float32 [H, W] in 0..1."""
    return np.asarray(pixels @ (np.array(LUMA) / 255.0), dtype=np.float32)


def _random(pixels: npt.NDArray[np.uint8], host: npt.NDArray[np.bool_] | None, key: str) -> Float32:
    return random_map((pixels.shape[0], pixels.shape[1]), zlib.crc32(key.encode()))


def _center(pixels: npt.NDArray[np.uint8], host: npt.NDArray[np.bool_] | None, key: str) -> Float32:
    return center_map((pixels.shape[0], pixels.shape[1]))


def _luminance(pixels: npt.NDArray[np.uint8], host: npt.NDArray[np.bool_] | None, key: str) -> Float32:
    return luminance_map(pixels)


def _subject(pixels: npt.NDArray[np.uint8], host: npt.NDArray[np.bool_] | None, key: str) -> Float32:
    size = (pixels.shape[0], pixels.shape[1])
    return np.full(size, np.nan, dtype=np.float32) if host is None else host.astype(np.float32)


BASELINES: dict[str, Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_] | None, str], Any]] = {
    "random": _random,
    "center": _center,
    "luminance": _luminance,
    "subject": _subject,
}
"""Name -> ``(pixels, host mask, key) -> float32 [H, W]``. ``subject`` is the true outline of the whole subject: by exact counting of ties
its pointing game is the chance that a random point in the subject lies on the target."""
