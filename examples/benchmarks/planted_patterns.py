"""Pictures for ``lcam_causes.py``: a thing with one of ten patterns lies somewhere among plain things, and its mask is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]

SIDE = 112
"""Side of a picture in pixels."""


def _wave(x: Float, period: float) -> Float:
    return (np.floor(x / period) % 2).astype(np.float32)


PATTERNS: dict[str, Callable[[Float, Float], Float]] = {
    "fine stripes": lambda x, y: _wave(x, 3.0),
    "coarse stripes": lambda x, y: _wave(x, 7.0),
    "fine checks": lambda x, y: (_wave(x, 4.0) + _wave(y, 4.0)) % 2,
    "coarse checks": lambda x, y: (_wave(x, 8.0) + _wave(y, 8.0)) % 2,
    "dots": lambda x, y: (((x % 9 - 4.5) ** 2 + (y % 9 - 4.5) ** 2) < 8).astype(np.float32),
    "rings": lambda x, y: _wave(np.sqrt(x**2 + y**2), 4.0),
    "zigzag": lambda x, y: _wave(x + np.abs(y % 12 - 6), 5.0),
    "crosses": lambda x, y: ((np.abs(x % 12 - 6) < 1.5) | (np.abs(y % 12 - 6) < 1.5)).astype(np.float32),
    "spokes": lambda x, y: _wave(np.arctan2(y, x) * 10 / np.pi, 1.0),
    "bricks": lambda x, y: ((np.abs(y % 8 - 4) < 1) | (np.abs((x + 7 * (np.floor(y / 8) % 2)) % 14 - 7) < 1)).astype(np.float32),
}
"""Name of a class -> its pattern, 0 or 1, in the thing's own coordinates (pixels from its middle)."""


@dataclass(frozen=True, eq=False)
class Planted:
    """One picture.

    Attributes:
        pixels: uint8 [112, 112, 3].
        masks: bool [112, 112] of each class that is there.
    """

    pixels: npt.NDArray[np.uint8]
    masks: dict[int, npt.NDArray[np.bool_]]


def _noise(generator: np.random.Generator, octaves: tuple[int, ...]) -> Float:
    """Smooth noise, about 0..1: random values on coarse grids, enlarged."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for octave in octaves:
        grid = generator.random((octave + 1, octave + 1)).astype(np.float32)
        at = np.linspace(0, octave, SIDE, dtype=np.float32)
        low = np.minimum(at.astype(int), octave - 1)
        share = at - low
        rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
        total += (rows[:, low] * (1 - share) + rows[:, low + 1] * share) / len(octaves)
    return total


def _blob(generator: np.random.Generator, radius: float, middle: tuple[float, float]) -> tuple[npt.NDArray[np.bool_], Float, Float]:
    """A round or angular outline, turned: its mask, and the pixels' coordinates from its middle."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle = generator.uniform(0, 2 * np.pi)
    dx, dy = x - middle[0], y - middle[1]
    u, v = (np.cos(angle) * dx + np.sin(angle) * dy).astype(np.float32), (np.cos(angle) * dy - np.sin(angle) * dx).astype(np.float32)
    stretch, power = generator.uniform(0.65, 1.0), generator.choice([1.0, 2.0, 4.0])
    inside = (np.abs(u / radius) ** power + np.abs(v / (radius * stretch)) ** power) < 1
    return inside, u, v


def picture(generator: np.random.Generator, classes: tuple[int, ...]) -> Planted:
    """Draws one picture with a thing of each class, which do not overlap, and up to three plain things behind them."""
    while True:
        colours = generator.random((2, 3)).astype(np.float32)
        ground = _noise(generator, (3, 7, 28))[..., None]
        found = colours[0] * ground + colours[1] * (1 - ground)
        for _ in range(generator.integers(0, 4)):
            inside, _, _ = _blob(generator, generator.uniform(8, 26), (generator.uniform(0, SIDE), generator.uniform(0, SIDE)))
            shade = 0.85 + 0.3 * _noise(generator, (9,))[..., None]
            found = np.where(inside[..., None], generator.random(3).astype(np.float32) * shade, found)
        masks: dict[int, npt.NDArray[np.bool_]] = {}
        for label in classes:
            radius = generator.uniform(14, 30) if len(classes) == 1 else generator.uniform(14, 24)
            inside, u, v = _blob(generator, radius, (generator.uniform(18, SIDE - 18), generator.uniform(18, SIDE - 18)))
            pattern = PATTERNS[list(PATTERNS)[label]](u, v)[..., None]
            light, dark = generator.uniform(0.55, 1, 3), generator.uniform(0, 0.45, 3)
            colour = (light * pattern + dark * (1 - pattern)).astype(np.float32)
            found = np.where(inside[..., None], colour * (0.9 + 0.2 * _noise(generator, (5,))[..., None]), found)
            masks[label] = inside
        if len(masks) == len(classes) and not np.any(np.sum(list(masks.values()), axis=0) > 1):
            found = found + generator.normal(0, 0.02, found.shape)
            return Planted((found.clip(0, 1) * 255).round().astype(np.uint8), masks)
