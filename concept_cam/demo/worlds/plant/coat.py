"""Colours of leaves: green and others, veins, spots, gloss, hairs and wrinkles."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.plant.anatomy import PIECE
from concept_cam.demo.worlds.shading import lit, noise
from concept_cam.demo.worlds.solids import Array, Samples
from concept_cam.demo.worlds.stage import Draw, Light, Shape

_HUES = (
    # weight, hue, saturation, value: fresh, dark, grey-green, yellow-green, autumn yellow, red, dry
    (3.0, (0.24, 0.33), (0.5, 0.85), (0.32, 0.6)),
    (2.0, (0.28, 0.38), (0.45, 0.75), (0.18, 0.34)),
    (0.8, (0.26, 0.4), (0.14, 0.32), (0.4, 0.62)),
    (1.2, (0.17, 0.24), (0.55, 0.85), (0.5, 0.75)),
    (0.5, (0.1, 0.15), (0.6, 0.9), (0.6, 0.88)),
    (0.5, (-0.02, 0.05), (0.6, 0.9), (0.35, 0.65)),
    (0.7, (0.07, 0.14), (0.3, 0.6), (0.3, 0.55)),
)


def leaf_tint(draw: Draw, name: str = "leaf") -> Array:
    """A colour of leaves, float32 [3]."""
    total = sum(row[0] for row in _HUES)
    at = draw(f"{name}.kind") * total
    row = 0
    while row < len(_HUES) - 1 and at >= _HUES[row][0]:
        at -= _HUES[row][0]
        row += 1
    _, hue, saturation, value = _HUES[row]
    parts = [
        low + (high - low) * draw(f"{name}.{key}") for key, (low, high) in zip(("hue", "sat", "val"), (hue, saturation, value), strict=True)
    ]
    return np.array(colorsys.hsv_to_rgb(parts[0] % 1.0, parts[1], parts[2]), dtype=np.float32)


def colour(draw: Draw, state: Mapping[str, str], kept: Mapping[str, str], seen: Samples, shape: Shape, light: Light) -> Array:
    """Colours of the samples, float32 [S, 3]."""
    rgb = np.zeros((len(seen.at), 3), dtype=np.float32)
    base = leaf_tint(draw)
    blades = np.flatnonzero(seen.piece <= PIECE["base"])
    if len(blades):
        rgb[blades] = _blade(draw, state, seen[blades], shape, light, base)
    stalk = base * np.array([1.0, 0.92, 0.8]) * 1.1 if draw("petiole.colour") < 0.6 else np.array([0.5, 0.26, 0.2])
    wood = np.array([0.36, 0.27, 0.18]) * draw("stem.shade", 0.6, 1.4) if draw("stem.woody") < 0.5 else base * 1.05
    for name, own in (("petiole", stalk), ("stem", wood)):
        rows = np.flatnonzero(seen.piece == PIECE[name])
        if len(rows):
            some = seen[rows]
            fleck = noise("skin", 2, some.u * 0.2, some.v * 0.05)
            rgb[rows] = lit(own[None] * (1 + 0.1 * fleck[:, 1:2]), some.normal, light, gloss=0.12, sharp=12)
    rows = np.flatnonzero(seen.piece == PIECE["hair"])
    if len(rows):
        rgb[rows] = (0.45 * base + 0.55 * np.array([0.93, 0.93, 0.86]))[None] * (0.75 + 0.3 * seen.u[rows][:, None])
    return np.clip(rgb, 0.0, 1.2)


def veins(
    draw: Draw, kind: str, x: Array, y: Array, half: float, thick: float
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """How much a vein is seen, 0 to 1 [S], and the height of the fields between them [S].

    Args:
        draw: named numbers.
        kind: state of `leaf_venation`.
        x: along the blade, its length being 1.
        y: across.
        half: half width of the blade.
        thick: half width of the midrib.
    """
    side = np.abs(y)

    def line(far: npt.NDArray[np.floating], wide: npt.NDArray[np.floating] | float) -> npt.NDArray[np.floating]:
        return np.asarray(np.clip((wide - far) / (0.4 * thick) + 0.5, 0, 1))

    midrib = line(side, thick * np.clip(1.25 - x, 0.25, 1.3))
    if kind == "parallel":
        count = 4 + int(4 * draw("vein.count"))
        width = half * np.clip(1.02 - np.abs(2 * x - 0.9) ** 2.2, 0.06, 1)
        phase = side / np.maximum(width, 1e-3) * count
        far = np.abs(phase - np.round(phase)) * width / count
        return np.maximum(line(far, 0.42 * thick), line(side, 0.75 * thick)), np.sin(np.pi * (phase % 1.0))
    if kind == "palmate":
        count = 2 + int(2 * draw("vein.count"))
        spread = draw("vein.spread", 1.9, 2.3) if half > 0.3 else draw("vein.spread", 1.9, 2.3) * half / 0.3
        angle = np.arctan2(side, x + 0.02)
        far_out = np.hypot(x, side)
        phase = angle / (spread / (count + 0.3))
        far = np.abs(phase - np.round(phase)) * (spread / (count + 0.3)) * far_out
        main = line(far, thick * np.clip(0.95 - 0.55 * far_out, 0.25, 1)) * (np.round(phase) <= count)
        # Side veins of the main ones.
        rate = 7.0
        off = (far_out - 1.2 * far) * rate
        fine = line(np.abs(off - np.round(off)) / rate, 0.18 * thick) * 0.45
        return np.maximum(np.maximum(main, line(side, thick * np.clip(1.2 - x, 0.3, 1))), fine), np.sin(np.pi * (off % 1.0))
    lean = draw("vein.lean", 0.5, 1.1)
    bow = draw("vein.bow", 0.0, 0.9)
    count = 6 + int(6 * draw("vein.count"))
    phase = (x - lean * side - bow * side**2 / max(half, 0.05) * 0.6) * count + 0.5 * draw("vein.offset") * (y > 0)
    far = np.abs(phase - np.round(phase)) / count
    ribs = line(far, 0.42 * thick * np.clip(1.2 - side / max(half, 0.02), 0.25, 1)) * (0.9 if kind == "pinnate" else 0.6)
    field = np.sin(np.pi * (phase % 1.0))
    if kind == "netted":
        rate = draw("vein.mesh", 0.55, 0.8)
        cell = noise("gravel", 1, x * rate + 0.2, y * rate + 0.6)
        # Dark gaps between the stones of the texture are the meshes.
        mesh = np.clip((-0.15 - cell[:, 0]) / 0.5, 0, 1)
        return np.maximum(np.maximum(midrib, ribs), 0.85 * mesh), cell[:, 0] * 0.5
    return np.maximum(midrib, ribs), field


def _blade(draw: Draw, state: Mapping[str, str], seen: Samples, shape: Shape, light: Light, base: Array) -> Array:
    x, y = seen.u, seen.v
    half = max(shape.details["half"] / max(shape.details["size"], 1e-3), 0.008)
    thick = draw("vein.width", 0.011, 0.019) * float(np.clip(half / 0.2, 0.3, 1.1))
    vein, field = veins(draw, state["leaf_venation"], x, y, half, thick)
    if state["leaf_shape"] == "needle":
        vein, field = np.zeros_like(x), np.zeros_like(x)
    fleck = noise("skin", 1, x * 0.33 + draw("leaf.x"), y * 0.33 + draw("leaf.y"))
    rgb = base[None] * (1.0 + draw("leaf.rough", 0.03, 0.1) * fleck[:, :1] + 0.04 * fleck[:, 1:2])
    # Yellow or red towards the edge or the tip, brown spots.
    turn = draw("leaf.turning") ** 4 * np.clip(np.abs(y) / half * 0.6 + 0.5 * x + 0.25 * fleck[:, 0], 0, 1)
    rgb = rgb + turn[:, None] * (np.array([0.7, 0.5, 0.14]) - rgb)
    sick = np.clip((fleck[:, 0] + 0.5 * fleck[:, 1] - draw("leaf.spots", 1.4, 3.4)) * 4, 0, 1) * draw("leaf.spotty")
    rgb = rgb + sick[:, None] * (np.array([0.32, 0.2, 0.1]) - rgb)
    pale = draw("vein.pale") < 0.78
    target = np.clip(base * 1.2 + np.array([0.22, 0.24, 0.12]), 0, 1) if pale else base * 0.5
    rgb = rgb + (vein * draw("vein.strength", 0.55, 0.95))[:, None] * (target - rgb)
    normal = seen.normal.copy()
    surface = state["leaf_surface"]
    bulge = 0.0
    if surface == "wrinkled":
        pucker = noise("skin", 1, x * 0.75 + 0.1, y * 0.75)
        e = 0.006
        dx = noise("skin", 1, x * 0.75 + 0.1 + e, y * 0.75)[:, 3] - pucker[:, 3]
        dy = noise("skin", 1, x * 0.75 + 0.1, y * 0.75 + e)[:, 3] - pucker[:, 3]
        normal[:, 0] += np.clip(1.3 * dx, -0.9, 0.9)
        normal[:, 1] += np.clip(1.3 * dy, -0.9, 0.9)
        rgb = rgb * np.clip(1.12 - 0.22 * (pucker[:, 3] + 0.3), 0.55, 1.35)[:, None]
        bulge = 0.1
    normal[:, 0] += (0.08 + bulge) * field
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    if surface == "glossy":
        # No leaf is so flat that half of it mirrors the sun at once.
        bumps = noise("skin", 0, x * 0.3 + draw("gloss.x"), y * 0.3)
        normal[:, :2] += 0.1 * bumps[:, :2]
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        shone = lit(
            rgb * 0.92, normal, light, gloss=draw("gloss.strength", 0.3, 0.6), sharp=draw("gloss.sharp", 14, 40), sky=0.25, wrap=0.3
        )
        sheen = np.clip(noise("skin", 0, x * 0.2 + draw("gloss.x"), y * 0.3)[:, 0] - 0.2, 0, 1.2) * draw("gloss.patch", 0.12, 0.34)
        return np.asarray(shone + sheen[:, None] * np.array([0.9, 0.97, 1.0]), dtype=np.float32)
    if surface == "hairy":
        fine = noise("skin", 0, x * 1.1, y * 1.1)
        rgb = rgb * 0.72 + 0.28 * np.array([0.86, 0.88, 0.8]) + 0.07 * fine[:, 2:3] + 0.04 * fine[:, 1:2]
        return lit(rgb, normal, light, wrap=0.5, sky=0.35)
    return lit(rgb, normal, light, gloss=0.03, sharp=5, wrap=0.4)
