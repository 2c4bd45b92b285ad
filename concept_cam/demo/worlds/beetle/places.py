"""Where beetles are found: on boards with pins and labels, on leaves, flowers, bark and bare ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from concept_cam.demo.worlds.canvas import Canvas
from concept_cam.demo.worlds.shading import lit
from concept_cam.demo.worlds.solids import Array, Samples, ribbon
from concept_cam.demo.worlds.stage import Draw, Light, Place, Prop, Shape
from concept_cam.demo.worlds.surroundings import lay_dust, lay_flower, lay_leaf, lay_twig

GROUNDS: Final[dict[str, dict[str, float]]] = {
    "pinned": {"white_tray": 5.0, "grey_tray": 1.0, "black_cloth": 0.3, "blue_tray": 0.2},
    "plain": {"white_tray": 2.0, "grey_tray": 1.0, "black_cloth": 0.8, "steel": 0.5, "blue_tray": 0.6, "concrete": 0.4},
    "ground": {"sand": 2.0, "gravel": 1.0, "concrete": 1.0, "grass": 1.0, "wood": 0.6},
    "bark": {"wood": 1.0},
}
"""Scene -> weights of the common grounds. The other scenes are gardens out of focus."""


def surround(canvas: Canvas, rng: np.random.Generator, scene: str, place: Place) -> None:
    """Paints what lies under and beside the beetle."""
    height, width = canvas.size
    long = max(height, width)
    x, y = place.at
    if scene == "leaf":
        turn = place.way + rng.normal(0, 0.5) if rng.random() < 0.5 else rng.uniform(-math.pi, math.pi)
        length = max(place.span * rng.uniform(1.8, 4.0), 0.9 * long)
        for _ in range(int(rng.integers(0, 3))):
            lay_leaf(canvas, rng, tuple(rng.uniform(0, 1, 2) * (width, height)), rng.uniform(0.4, 1.2) * long, rng.uniform(-3.2, 3.2))
        off = rng.normal(0, 0.12, 2) * length
        lay_leaf(canvas, rng, (x + off[0], y + 0.5 * off[1]), length, turn)
    elif scene == "flower":
        for _ in range(int(rng.integers(0, 3))):
            lay_leaf(canvas, rng, tuple(rng.uniform(0, 1, 2) * (width, height)), rng.uniform(0.3, 0.9) * long, rng.uniform(-3.2, 3.2))
        for _ in range(int(rng.integers(1, 4))):
            lay_flower(
                canvas,
                rng,
                (x + rng.normal(0, 0.3) * place.span, y + rng.normal(0.1, 0.3) * place.span),
                rng.uniform(0.5, 1.4) * place.span,
            )
    elif scene in ("blurred", "bark") or (scene == "ground" and rng.random() < 0.4):
        for _ in range(int(rng.integers(0, 4))):
            a = rng.uniform(0, 1, 2) * (width, height)
            turn = rng.uniform(0, 2 * math.pi)
            b = a + np.array([math.cos(turn), math.sin(turn)]) * rng.uniform(0.15, 1.2) * long
            lay_twig(canvas, rng, (float(a[0]), float(a[1])), (float(b[0]), float(b[1])), rng.uniform(0.004, 0.03) * long)
    if scene == "blurred":
        # A stem to sit on.
        turn = place.way + rng.normal(0, 0.3)
        step = np.array([math.cos(turn), math.sin(turn)]) * long
        lay_twig(canvas, rng, (x - step[0], y - step[1]), (x + step[0], y + step[1]), place.span * rng.uniform(0.06, 0.3))
    if rng.random() < (0.35 if scene in ("pinned", "plain") else 0.5):
        lay_dust(canvas, rng, int(rng.integers(3, 26)), rng.uniform(0.02, 0.12) * long)


def props(draw: Draw, scene: str, shape: Shape | None) -> Sequence[Prop]:
    """A pin through the right wing cover of a pinned beetle, or a blade of grass before one out of doors."""
    found = []
    if scene == "pinned" and shape is not None and draw("pin") < 0.55:
        tint = np.array([0.75, 0.75, 0.78]) if draw("pin.bright") < 0.5 else np.array([0.1, 0.1, 0.12])
        x, y = 0.02 + draw("pin.x", -0.04, 0.04), -0.35 * shape.details["half"] + draw("pin.y", -0.02, 0.02)
        length = draw("pin.length", 0.25, 0.7)
        top = shape.details["top"]
        z = np.linspace(top - 0.02, top + length, 6)
        line = np.stack([np.full(6, x), np.full(6, y), z], axis=1)
        widths = np.array([0.004, 0.004, 0.004, 0.004, 0.004, 0.004])

        def metal(seen: Samples, light: Light) -> Array:
            return lit(tint[None], seen.normal, light, gloss=0.6, sharp=12)

        found.append(Prop(ribbon(line, widths, 0, nearer=0.05), metal))
        head = np.stack([line[-1] - [0, 0, 0.008], line[-1], line[-1] + [0, 0, 0.008]])
        found.append(Prop(ribbon(head, np.array([0.009, 0.011, 0.008]), 0, nearer=0.06), metal))
    if scene in ("leaf", "flower", "blurred", "ground") and draw("blade") < draw("blade.share", 0.0, 0.0):
        green = np.array([draw("blade.r", 0.2, 0.6), draw("blade.g", 0.4, 0.7), draw("blade.b", 0.1, 0.3)])
        turn, off = draw("blade.turn", -1.57, 1.57), draw("blade.off", -0.4, 0.4)
        way = np.array([math.cos(turn), math.sin(turn), 0.0])
        side = np.array([-way[1], way[0], 0.0])
        t = np.linspace(-0.9, 0.9, 8)[:, None]
        line = way * t + side * (off + 0.1 * draw("blade.bend", -1, 1) * t**2) + np.array([0, 0, 0.6])

        def grass(seen: Samples, light: Light) -> Array:
            return lit(green[None], seen.normal, light, gloss=0.15, sharp=8)

        found.append(Prop(ribbon(line, np.full(8, draw("blade.width", 0.008, 0.03)), 0, nearer=2.0), grass, flat=True))
    return found
