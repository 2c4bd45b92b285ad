"""Where leaves are seen: on herbarium sheets, on tables and cloths, on the ground, and on the plant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.canvas import Canvas, polygon
from concept_cam.demo.worlds.stage import Draw, Place, Prop, Shape
from concept_cam.demo.worlds.surroundings import lay_dust, lay_flower, lay_twig

GROUNDS: Final[dict[str, dict[str, float]]] = {
    "herbarium": {"white_tray": 1.0},
    "plain": {"white_tray": 2.0, "grey_tray": 0.8, "black_cloth": 0.8, "blue_tray": 0.4, "wood": 1.0, "concrete": 0.5, "steel": 0.3},
    "ground": {"gravel": 1.0, "sand": 1.0, "grass": 1.0, "concrete": 1.0, "wood": 0.6},
}
"""Scene -> weights of the common grounds. `growing` is a garden out of focus."""


def _box(x: float, y: float, w: float, h: float, turn: float) -> npt.NDArray[np.floating]:
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) * 0.5
    c, s = math.cos(turn), math.sin(turn)
    return np.asarray(corners @ np.array([[c, s], [-s, c]]) + (x, y))


def surround(canvas: Canvas, rng: np.random.Generator, scene: str, place: Place) -> None:
    """Paints what lies under and beside the leaves."""
    height, width = canvas.size
    long = max(height, width)
    x, y = place.at
    if scene == "herbarium":
        canvas.rgb *= np.array([1.0, rng.uniform(0.94, 0.99), rng.uniform(0.82, 0.96)], dtype=np.float32)
        if rng.random() < 0.8:
            _label(canvas, rng, rng.uniform(0.6, 0.9) * width, rng.uniform(0.78, 0.95) * height, rng.uniform(0.2, 0.4) * width)
        if rng.random() < 0.3:
            _label(canvas, rng, rng.uniform(0.1, 0.4) * width, rng.uniform(0.05, 0.95) * height, rng.uniform(0.12, 0.25) * width)
        if rng.random() < 0.5:
            _bar(canvas, rng)
    elif scene == "growing":
        for _ in range(int(rng.integers(1, 7))):
            at = rng.uniform(-0.1, 1.1, 2) * (width, height)
            if np.hypot(at[0] - x, at[1] - y) < 0.35 * place.span:
                continue
            lay_twig(canvas, rng, (float(at[0]), float(at[1])), tuple(at + rng.normal(0, 0.4, 2) * long), rng.uniform(0.003, 0.012) * long)
            if rng.random() < 0.25:
                lay_flower(canvas, rng, (float(at[0]), float(at[1])), rng.uniform(0.04, 0.16) * long)
    elif scene == "ground":
        for _ in range(int(rng.integers(0, 4))):
            a = rng.uniform(0, 1, 2) * (width, height)
            lay_twig(canvas, rng, (float(a[0]), float(a[1])), tuple(a + rng.normal(0, 0.3, 2) * long), rng.uniform(0.004, 0.02) * long)
    if rng.random() < 0.3:
        lay_dust(canvas, rng, int(rng.integers(3, 16)), rng.uniform(0.02, 0.1) * long)


def _label(canvas: Canvas, rng: np.random.Generator, x: float, y: float, w: float) -> None:
    """A label with lines of writing."""
    h, turn = w * rng.uniform(0.35, 0.7), rng.normal(0, 0.03)
    canvas.darken(polygon(_box(x + 2, y + 2, w, h, turn), canvas.size), 0.15)
    canvas.lay(polygon(_box(x, y, w, h, turn), canvas.size), np.array([0.95, 0.94, 0.9]) * rng.uniform(0.85, 1.03))
    lines = int(rng.integers(3, 8))
    for k in range(lines):
        reach = rng.uniform(0.4, 0.85) * w
        yy = y + h * ((k + 0.5) / lines - 0.5) * 0.9
        left = x - 0.45 * w
        while left < x - 0.45 * w + reach:
            word = rng.uniform(0.03, 0.12) * w
            canvas.lay(polygon(_box(left + 0.5 * word, yy, word, 0.32 * h / lines, turn), canvas.size), np.full(3, rng.uniform(0.1, 0.4)))
            left += word + 0.025 * w


def _bar(canvas: Canvas, rng: np.random.Generator) -> None:
    """A colour bar or scale along an edge."""
    height, width = canvas.size
    count = int(rng.integers(6, 14))
    upright = rng.random() < 0.5
    along, thick = (height if upright else width) * rng.uniform(0.4, 0.8), min(height, width) * rng.uniform(0.03, 0.06)
    start = rng.uniform(0.05, 0.2) * (height if upright else width)
    edge = rng.choice([0.04, 0.96]) * (width if upright else height)
    ruler = rng.random() < 0.4
    for k in range(count * (4 if ruler else 1)):
        step = along / count / (4 if ruler else 1)
        middle = start + step * (k + 0.5)
        at, w, h = ((edge, middle), thick, step) if upright else ((middle, edge), step, thick)
        colour = np.full(3, 0.08 if k % 2 else 0.95) if ruler else rng.uniform(0.05, 0.95, 3)
        canvas.lay(polygon(_box(float(at[0]), float(at[1]), w, h, 0.0), canvas.size), colour)


def props(draw: Draw, scene: str, shape: Shape | None) -> Sequence[Prop]:
    """Nothing solid."""
    return ()
