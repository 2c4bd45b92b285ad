"""Flowers that photographs of small animals are full of: heads of many narrow petals, spikes of small blossoms, umbels, ears of grass.

Narrow petals, knobs and stalks are what antennae, legs and bodies are most often taken for, so they are here to be told from these.
All of a picture are drawn on one sheet, which lies behind the specimen and may be out of focus.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from concept_cam.demo.worlds.canvas import Array
from concept_cam.demo.worlds.surroundings import leaf_colour, petal_colour

_FINE: Final = 2
"""The sheet is drawn this many times finer than the picture."""

Blossom = Callable[[ImageDraw.ImageDraw, np.random.Generator, tuple[float, float], float, Array, Array], None]
"""Draws one at a pixel of the sheet, of a size in its pixels, with the colour of its petals and that of its green parts."""


def _ink(colour: Array, light: float) -> tuple[int, int, int, int]:
    r, g, b = np.clip(np.rint(255.0 * colour * light), 0, 255)
    return int(r), int(g), int(b), 255


def _spot(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, ink: tuple[int, int, int, int]) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _stalk(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, at: tuple[float, float], way: float, long: float, ink: tuple[int, ...]
) -> None:
    """A stalk that leaves a place, bending a little."""
    t, bend = np.linspace(0.0, 1.0, 12), rng.normal(0.0, 0.15)
    x = at[0] + long * (t * math.cos(way) - bend * t**2 * math.sin(way))
    y = at[1] + long * (t * math.sin(way) + bend * t**2 * math.cos(way))
    pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=ink, width=max(1, round(long * rng.uniform(0.008, 0.03))))


def head(pen: ImageDraw.ImageDraw, rng: np.random.Generator, at: tuple[float, float], size: float, petals: Array, green: Array) -> None:
    """Two or three rings of narrow petals with blunt ends, seen from above or aslant."""
    _stalk(pen, rng, at, rng.uniform(0.2, 0.8) * math.pi, size * rng.uniform(3.0, 9.0), _ink(green, 0.9))
    squeeze, turn = rng.uniform(0.3, 1.0), rng.uniform(0.0, math.pi)
    count, half = int(rng.integers(9, 30)), rng.uniform(0.025, 0.075) * size
    for ring in range(int(rng.integers(1, 4))):
        reach = size * (1.0 - 0.28 * ring)
        for k in range(count):
            angle = 2.0 * math.pi * (k + 0.5 * ring) / count + rng.normal(0.0, 0.06)
            far = reach * rng.uniform(0.82, 1.06)
            along = np.array([0.1 * size, 0.7 * far, far, 0.96 * far, far, 0.7 * far])
            across = half * np.array([0.3, 1.0, 0.8, 0.0, -0.8, -1.0])
            u, v = along * math.cos(angle) - across * math.sin(angle), squeeze * (along * math.sin(angle) + across * math.cos(angle))
            x, y = at[0] + u * math.cos(turn) - v * math.sin(turn), at[1] + u * math.sin(turn) + v * math.cos(turn)
            pen.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=_ink(petals, rng.uniform(0.75, 1.08)))
    core = np.clip(petals * rng.uniform(0.6, 1.0) + rng.normal(0.0, 0.08, 3), 0.0, 1.0)
    for _ in range(int(rng.integers(6, 24))):
        x, y = rng.normal(0.0, 0.12 * size, 2)
        _spot(pen, at[0] + x, at[1] + squeeze * y, size * rng.uniform(0.02, 0.05), _ink(core, rng.uniform(0.6, 1.1)))


def spike(pen: ImageDraw.ImageDraw, rng: np.random.Generator, at: tuple[float, float], size: float, petals: Array, green: Array) -> None:
    """Small blossoms of a few lobes along a stalk, with leaflets below."""
    way = -0.5 * math.pi + rng.normal(0.0, 0.6)
    _stalk(pen, rng, at, way + math.pi, size * rng.uniform(3.0, 8.0), _ink(green, 0.8))
    for _ in range(int(rng.integers(2, 8))):
        x, y = at + size * rng.normal(0.0, 0.8, 2)
        long, thin, lean = size * rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.6), rng.uniform(0.0, math.pi)
        s = np.linspace(0.0, 2.0 * math.pi, 14)
        a, b = long * np.cos(s), thin * long * np.sin(s)
        points = zip(
            (x + a * math.cos(lean) - b * math.sin(lean)).tolist(), (y + a * math.sin(lean) + b * math.cos(lean)).tolist(), strict=True
        )
        pen.polygon(list(points), fill=_ink(green, rng.uniform(0.6, 1.2)))
    long, lobe = size * rng.uniform(0.3, 1.6), size * rng.uniform(0.12, 0.3)
    for _ in range(int(rng.integers(4, 16))):
        along, across = rng.uniform(-0.5, 1.0) * long, rng.normal(0.0, 0.3) * size
        x = at[0] + along * math.cos(way) - across * math.sin(way)
        y = at[1] + along * math.sin(way) + across * math.cos(way)
        light = rng.uniform(0.75, 1.05)
        for _ in range(int(rng.integers(2, 5))):
            p, q = lobe * rng.normal(0.0, 0.7, 2)
            wide, high = lobe * rng.uniform(0.5, 1.1, 2)
            pen.ellipse((x + p - wide, y + q - high, x + p + wide, y + q + high), fill=_ink(petals, light * rng.uniform(0.88, 1.08)))


def umbel(pen: ImageDraw.ImageDraw, rng: np.random.Generator, at: tuple[float, float], size: float, petals: Array, green: Array) -> None:
    """Thin rays from one place with a knob, or a few, at each end: as clubbed antennae and legs look, only many."""
    way = -0.5 * math.pi + rng.normal(0.0, 0.7)
    _stalk(pen, rng, at, way + math.pi, size * rng.uniform(3.0, 8.0), _ink(green, 0.8))
    count, spread = int(rng.integers(2, 18)), rng.uniform(0.3, 1.6)
    knob, width = size * rng.uniform(0.03, 0.12), max(1, round(size * rng.uniform(0.01, 0.05)))
    for k in range(count):
        angle = way + spread * (k / max(1, count - 1) - 0.5) * 2.0 + rng.normal(0.0, 0.05)
        far = size * rng.uniform(0.7, 1.15)
        x, y = at[0] + far * math.cos(angle), at[1] + far * math.sin(angle)
        pen.line((*at, x, y), fill=_ink(green, rng.uniform(0.7, 1.1)), width=width)
        for _ in range(int(rng.integers(1, 4))):
            p, q = knob * rng.normal(0.0, 0.6, 2)
            _spot(pen, x + p, y + q, knob * rng.uniform(0.6, 1.2), _ink(petals, rng.uniform(0.8, 1.1)))


def ear(pen: ImageDraw.ImageDraw, rng: np.random.Generator, at: tuple[float, float], size: float, petals: Array, green: Array) -> None:
    """An ear of grass: a bent stalk with short awns on both sides."""
    way, bend = rng.uniform(0.0, 2.0 * math.pi), rng.normal(0.0, 0.3)
    _stalk(pen, rng, at, way + math.pi, size * rng.uniform(3.0, 8.0), _ink(green, 0.85))
    tint, width = (0.5 * (green + petals) if rng.random() < 0.5 else green), max(1, round(size * rng.uniform(0.01, 0.04)))
    awn = size * rng.uniform(0.1, 0.35)
    for t in np.linspace(0.0, 1.0, int(rng.integers(8, 26))).tolist():
        x = at[0] + size * (t * math.cos(way) - bend * t * t * math.sin(way))
        y = at[1] + size * (t * math.sin(way) + bend * t * t * math.cos(way))
        for side in (-1.0, 1.0):
            angle = way + side * rng.uniform(0.2, 0.9)
            pen.line((x, y, x + awn * math.cos(angle), y + awn * math.sin(angle)), fill=_ink(tint, rng.uniform(0.6, 1.2)), width=width)


BLOSSOMS: Final[dict[str, Blossom]] = {"head": head, "spike": spike, "umbel": umbel, "ear": ear}


def strewn(rgb: Array, rng: np.random.Generator, at: tuple[float, float], reach: float) -> Array:
    """A picture with blossoms of one kind or two about a place.

    Args:
        rgb: float32 [H, W, 3], sRGB.
        rng: Draws them.
        at: (x, y) in pixels, the middle of the specimen that will lie before them.
        reach: How large it is, in pixels.

    Returns:
        float32 [H, W, 3].
    """
    height, width = rgb.shape[:2]
    petals, green = petal_colour(rng), leaf_colour(rng)
    sheet = Image.new("RGBA", (_FINE * width, _FINE * height), (*_ink(0.5 * (petals + green), 0.9)[:3], 0))
    pen = ImageDraw.Draw(sheet)
    kinds = rng.choice(list(BLOSSOMS), 2, p=[0.35, 0.3, 0.2, 0.15]).tolist()
    # Most lie where the specimen sits: on its flower.
    for _ in range(int(rng.integers(1, 10))):
        near = rng.random() < 0.5
        spot = np.asarray(at) + rng.normal(0.0, 0.9, 2) * reach if near else rng.uniform(-0.05, 1.05, 2) * (width, height)
        size = _FINE * reach * float(rng.uniform(0.15, 1.0))
        place = (_FINE * float(spot[0]), _FINE * float(spot[1]))
        BLOSSOMS[kinds[int(rng.random() < 0.25)]](pen, rng, place, size, petals, green)
    soft = rng.uniform(0.0, 0.8) if rng.random() < 0.65 else rng.uniform(0.8, 5.0)
    sheet = sheet.filter(ImageFilter.GaussianBlur(_FINE * float(soft) * max(height, width) / 384.0)).resize(
        (width, height), Image.Resampling.BOX
    )
    layer = np.asarray(sheet, dtype=np.float32) / np.float32(255)
    alpha = layer[..., 3:]
    return np.asarray(rgb * (1.0 - alpha) + layer[..., :3] * alpha, dtype=np.float32)
