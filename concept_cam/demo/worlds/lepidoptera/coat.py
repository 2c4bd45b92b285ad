"""Colours and marks of wings, as functions of the place in the wing; and of the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from concept_cam.demo.worlds.canvas import Array, texture
from concept_cam.demo.worlds.lepidoptera.anatomy import Draw

_PALETTE: dict[str, tuple[tuple[float, float, float], ...]] = {
    "white": ((0.94, 0.93, 0.89), (0.86, 0.87, 0.84), (0.95, 0.94, 0.82)),
    "yellow": ((0.95, 0.83, 0.25), (0.90, 0.78, 0.42), (0.93, 0.88, 0.45)),
    "orange": ((0.90, 0.50, 0.12), (0.85, 0.42, 0.10), (0.92, 0.58, 0.22)),
    "red": ((0.76, 0.13, 0.10), (0.62, 0.10, 0.12), (0.82, 0.20, 0.16)),
    "brown": ((0.42, 0.28, 0.16), (0.55, 0.40, 0.26), (0.30, 0.20, 0.13)),
    "black": ((0.07, 0.065, 0.065), (0.11, 0.10, 0.10), (0.05, 0.05, 0.07)),
    "blue": ((0.22, 0.40, 0.80), (0.38, 0.55, 0.85), (0.12, 0.25, 0.62)),
    "green": ((0.32, 0.52, 0.22), (0.60, 0.76, 0.52), (0.18, 0.42, 0.28)),
    "purple": ((0.45, 0.24, 0.56), (0.34, 0.16, 0.44), (0.58, 0.40, 0.68)),
    "grey": ((0.56, 0.56, 0.55), (0.42, 0.42, 0.43), (0.68, 0.67, 0.64)),
    "iridescent": ((0.10, 0.45, 0.70), (0.15, 0.60, 0.55), (0.30, 0.25, 0.70)),
}
"""Ground colours of wings, sRGB."""

_BODY = np.array([[0.10, 0.09, 0.08], [0.28, 0.20, 0.13], [0.45, 0.35, 0.24], [0.62, 0.55, 0.44], [0.78, 0.70, 0.52], [0.35, 0.33, 0.32]])

_DARK, _PALE = np.array([0.07, 0.05, 0.05]), np.array([0.93, 0.90, 0.80])


@dataclass(frozen=True)
class Coat:
    """Colours and marks of one animal: the numbers that `wing_colours` reads.

    Attributes:
        base: float64 [3], ground colour of the wings.
        mark: float64 [3], colour of their marks.
        border: float64 [3], colour of the margin.
        body: float64 [3].
        zone: float64 [3], what the ground colour turns into towards the margin.
        numbers: name -> number.
    """

    base: Array
    mark: Array
    border: Array
    body: Array
    zone: Array
    numbers: dict[str, float]


def coat(draw: Draw, state: dict[str, str]) -> Coat:
    """Colours of one animal."""
    tints = _PALETTE[state["wing_colour"]]
    base = np.array(tints[int(draw("coat.tint", 0, len(tints) - 1e-6))]) * [1 + draw(f"coat.{c}", -0.07, 0.07) for c in "rgb"]
    base = np.clip(base * draw("coat.value", 0.88, 1.1), 0.03, 0.97)
    light = float(base.mean())
    # Marks are dark on light wings, pale on dark ones; in between they are either.
    pale = light < 0.22 or (light < 0.5 and draw("mark.pale", 0, 1) < 0.45)
    tint = draw("mark.tint", 0, 1)
    mark = _PALE * ([1.0, 0.95, 0.85] if tint < 0.4 else [1, 1, 1]) if pale else _DARK + np.array([0.18, 0.08, 0.02]) * tint
    if pale and tint > 0.7:
        mark = np.array([0.95, 0.62, 0.2]) if tint < 0.85 else np.array([0.85, 0.3, 0.15])
        mark = mark if abs(float(mark.mean()) - light) > 0.2 else _PALE
    strength = draw("mark.strength", 0.7, 1.0)
    mark = base + (mark - base) * strength
    border = {"dark": _DARK, "spotted_border": _DARK, "pale": _PALE, "plain": base}[state["wing_border"]]
    border = base + (border - base) * draw("border.strength", 0.8, 1.0)
    body = _BODY[int(draw("body.tint", 0, len(_BODY) - 1e-6))] * draw("body.value", 0.75, 1.2)
    share = draw("body.as_wings", -0.6, 0.8)
    body = np.clip(body + (base - body) * max(share, 0.0), 0.02, 0.95)
    # Towards the margin the ground colour may turn into a related one; the hind wings may be lighter or darker.
    turned = np.clip(base[[1, 2, 0]] * 0.25 + base * 0.75 + draw("zone.warm", -0.05, 0.1) * np.array([1.0, 0.35, -0.5]), 0.02, 0.97)
    names = {
        "zone": (-0.6, 0.7),
        "zone_at": (0.3, 0.75),
        "zone_soft": (2.0, 14.0),
        "hind_tone": (0.85, 1.15),
        "shade": (-0.35, 0.35),
        "basal": (0.0, 0.5),
        "vein": (-0.1, 0.14),
        "veins": (7, 10.99),
        "grain": (0.015, 0.05),
        "blotch": (0.0, 0.07),
        "bands": (1, 2.99),
        "band_at": (0.42, 0.66),
        "band_width": (0.06, 0.13),
        "wobble": (0.01, 0.05),
        "stripes": (6, 11),
        "stripe_turn": (-0.9, 0.9),
        "stripe_duty": (0.3, 0.5),
        "spots": (7, 12),
        "spot_size": (0.28, 0.44),
        "border_width": (0.09, 0.19),
        "border_dots": (6, 10.99),
        "bold": (0.012, 0.026),
        "checks": (5, 8),
        "clear": (0.06, 0.3),
        "x": (0, 9),
        "y": (0, 9),
        "gloss": (0, 0.25),
        "under": (0.8, 1.1),
        "under_grey": (0.0, 0.3),
        "hue": (-0.25, 0.25),
        "fringe": (-0.3, 0.3),
    }
    return Coat(base, mark, border, body, turned, {name: draw(f"coat.{name}", low, high) for name, (low, high) in names.items()})


def polar(outline: Array) -> tuple[Array, float, float]:
    """How far the outline [N, 2] is from the root by the angle: radii [256] between the least and the greatest angle (radians)."""
    angle, reach = np.arctan2(outline[:, 1], outline[:, 0] + 0.04), np.hypot(outline[:, 0] + 0.04, outline[:, 1])
    far = reach > 0.12
    low, high = float(angle[far].min()), float(angle[far].max())
    place = np.rint(np.clip((angle - low) / (high - low), 0, 1) * 255).astype(int)
    table = np.zeros(256)
    np.maximum.at(table, place, reach)
    known = np.flatnonzero(table > 0.1)
    smooth = np.convolve(np.pad(np.interp(np.arange(256), known, table[known]), 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    return smooth, low, high


def wing_colours(
    coat: Coat, state: dict[str, str], p: Array, q: Array, outline: Array, scale: float, upper: bool, fore: bool
) -> tuple[Array, Array]:
    """Colours of a wing at its points.

    Args:
        coat: of the animal.
        state: its states.
        p: float32 [h, w], places in the wing.
        q: float32 [h, w].
        outline: float64 [N, 2] of the wing.
        scale: pixels per unit.
        upper: the upper side is seen.
        fore: it is a fore wing.

    Returns:
        Colours float32 [h, w, 3], and how much they cover what is behind them, [h, w].
    """
    n, f32 = coat.numbers, np.float32
    table, low, high = polar(outline)
    angle, reach = np.arctan2(q, p + f32(0.04)), np.hypot(p + f32(0.04), q)
    t = np.clip((angle - f32(low)) / f32(high - low), 0, 1)
    rho = reach / table.astype(f32)[(t * 255).astype(np.int32)]
    noise = texture("skin", p + n["x"] + (3.1 if fore else 0), q + n["y"], 420, scale)
    blotch, fine = noise[..., 0], noise[..., 2]

    base, mark = coat.base.astype(f32), coat.mark.astype(f32)
    light = 1 + f32(n["shade"]) * (rho - f32(0.5)) - f32(n["basal"]) * np.clip(f32(0.35) - rho, 0, 1) + f32(n["blotch"]) * blotch
    ground = base
    if n["zone"] > 0:
        share = np.clip((rho - f32(n["zone_at"])) * f32(n["zone_soft"]), 0, 1) * f32(n["zone"])
        ground = base + (coat.zone.astype(f32) - base) * share[..., None]
    rgb = ground * (light * f32(1.0 if fore else n["hind_tone"]))[..., None]
    if state["wing_colour"] == "iridescent":
        shift = f32(2.2) * p + f32(3.0) * q + f32(0.15) * blotch + f32(6 * n["hue"])
        sheen = np.stack([np.cos(shift), np.cos(shift - f32(2.1)), np.cos(shift - f32(4.2))], axis=-1)
        rgb = np.clip(rgb + f32(0.26) * sheen + f32(0.2) * np.clip(np.sin(shift * f32(1.7)), 0, 1)[..., None], 0, 1)

    soft = f32(max(scale, 1.0) * 0.6)
    opaque = np.ones_like(rho)
    # Veins run from the root to the margin.
    count = int(n["veins"]) - (0 if fore else 2)
    off = np.abs((t * f32(count) + f32(0.5)) % 1 - f32(0.5)) / f32(count) * f32(high - low) * reach
    vein = np.clip((f32(0.006) - off) * soft + f32(0.5), 0, 1) * (rho > f32(0.12))
    cell = np.abs(rho - f32(0.5) - f32(0.05) * np.sin(t * 9))
    vein = np.maximum(vein, np.clip((f32(0.005) - cell * reach) * soft + f32(0.5), 0, 1) * (t > 0.3) * (t < 0.75))
    rgb = rgb * (1 - f32(n["vein"]) * vein)[..., None]

    pattern = state["wing_pattern"]
    cover: Array | None = None
    if pattern == "banded":
        cover = np.zeros_like(rho)
        for k in range(int(n["bands"])):
            at = f32(n["band_at"] - 0.27 * k) + f32(n["wobble"]) * (np.sin(t * f32(11) + f32(k)) + f32(0.6) * blotch)
            cover = np.maximum(cover, np.clip((f32(n["band_width"] * (1 - 0.3 * k)) - np.abs(rho - at)) * soft * f32(0.7) + f32(0.5), 0, 1))
    elif pattern == "striped":
        turn = n["stripe_turn"]
        along = p * f32(np.cos(turn)) + q * f32(np.sin(turn)) + f32(0.25 * n["wobble"]) * blotch
        wave = np.abs((along * f32(n["stripes"])) % 1 - f32(0.5)) * 2
        cover = np.clip((f32(n["stripe_duty"]) - wave) * soft / f32(n["stripes"]) + f32(0.5), 0, 1) * np.clip((rho - 0.06) * 20, 0, 1)
    elif pattern == "spotted":
        rate = f32(n["spots"])
        u, v = p * rate + f32(n["x"]), q * rate + f32(n["y"])
        cell_u, cell_v = np.floor(u), np.floor(v)
        chance = np.sin(cell_u * f32(12.99) + cell_v * f32(78.23)) * f32(43758.5) % 1
        size = f32(n["spot_size"]) * (f32(0.6) + f32(0.4) * (chance * 7 % 1))
        far = np.hypot(u - cell_u - f32(0.5), v - cell_v - f32(0.5))
        cover = np.clip((size - far) * soft / rate + f32(0.5), 0, 1) * (chance < f32(0.62)) * (rho > 0.2) * (rho < 0.93)
    elif pattern == "veined":
        width = f32(n["bold"])
        bold = np.clip((width * (f32(0.6) + f32(0.8) * rho) - off) * soft + f32(0.5), 0, 1) * (rho > 0.1)
        cross = np.clip((width - cell * reach) * soft + f32(0.5), 0, 1)
        cover = np.maximum(bold, cross)
        # Dark veins need a ground that is not as dark.
        mark = (_DARK if coat.base.mean() > 0.2 else _PALE).astype(f32)
    elif pattern == "chequered":
        rows = int(n["checks"])
        cover = ((np.floor(rho * rows) + np.floor(t * (count - 1))) % 2 == 0).astype(f32) * (rho > 0.2)
        near = np.minimum(np.abs((rho * rows) % 1 - f32(0.5)), np.abs((t * (count - 1)) % 1 - f32(0.5)))
        cover = cover * np.clip((f32(0.47) - (f32(0.5) - near) * 0) * 40, 0, 1)
    elif pattern == "mottled":
        wave = blotch + f32(0.6) * noise[..., 1] + f32(0.9) * np.sin(rho * f32(17) + f32(1.2) * blotch)
        cover = np.clip(wave * f32(1.3) - f32(0.3), 0, 1) * f32(0.75)
        rgb = rgb * (1 - f32(0.3) * np.clip(-wave * f32(0.8), 0, 1))[..., None]
    elif pattern == "transparent":
        pane = (
            np.clip((off - f32(0.014)) * soft + f32(0.5), 0, 1)
            * np.clip((f32(0.9) - rho) * 30, 0, 1)
            * np.clip((rho - f32(0.22)) * 20, 0, 1)
        )
        opaque = 1 - pane * f32(1 - n["clear"])
    if cover is not None:
        rgb = rgb + (mark - rgb) * cover[..., None]

    border = state["wing_border"]
    if border != "plain":
        edge = f32(1 - n["border_width"]) + f32(0.5 * n["wobble"]) * (np.sin(t * f32(2 * np.pi * count)) + f32(0.5) * blotch)
        # The front edge and the edge along the body have none.
        outer = np.clip((t - f32(0.03)) * 20, 0, 1) * np.clip((f32(0.985) - t) * 30, 0, 1)
        on_edge = np.clip((rho - edge) * soft * f32(0.7) + f32(0.5), 0, 1) * outer
        rgb = rgb + (coat.border.astype(f32) - rgb) * on_edge[..., None]
        opaque = np.maximum(opaque, on_edge)
        if border == "spotted_border":
            dots = int(n["border_dots"])
            wide = f32(n["border_width"])
            across = (rho - f32(1) + f32(0.5) * wide) * reach / np.maximum(rho, f32(0.1))
            along = ((t * dots) % 1 - f32(0.5)) / f32(dots) * f32(high - low) * reach
            dot = np.clip((f32(0.3) * wide - np.hypot(across, along)) * soft + f32(0.5), 0, 1)
            rgb = rgb + (_PALE.astype(f32) - rgb) * dot[..., None]
    rgb = rgb * (1 + f32(n["fringe"]) * np.clip((rho - f32(0.965)) * 60, 0, 1))[..., None]
    rgb = rgb * (1 + f32(n["grain"]) * fine)[..., None]
    if not upper:
        # The underside is duller.
        grey = rgb.mean(axis=-1, keepdims=True)
        rgb = (rgb + (grey - rgb) * f32(n["under_grey"])) * f32(n["under"])
    return np.clip(rgb, 0, 1), opaque
