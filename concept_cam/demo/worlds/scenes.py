"""What lies behind a specimen: surfaces, objects that lie about, and the light over the whole picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.family import SCENES
from concept_cam.demo.worlds.sampling import Reading, kind_numbers, reading, texture
from concept_cam.demo.worlds.textures import Atlas


@dataclass(frozen=True)
class Surface:
    """A kind of ground: texture, range of its colour (sRGB), contrast of the texture, and what lies about."""

    kind: str
    darkest: tuple[float, float, float]
    lightest: tuple[float, float, float]
    contrast: tuple[float, float]
    hue: tuple[float, float, float]
    glare: float
    stain: float
    objects: tuple[float, ...]


OBJECTS = ("none", "label", "ruler", "card", "stone", "leaf", "stick", "finger")

_TRAY = (4.5, 1.2, 1.0, 0.8, 0.0, 0.0, 0.1, 0.3)
_WILD = (4.5, 0.1, 0.3, 0.1, 1.5, 1.5, 1.2, 0.3)

SURFACES: dict[str, Surface] = {
    "steel": Surface(
        "brushed",
        (0.34, 0.33, 0.31),
        (0.72, 0.72, 0.71),
        (0.025, 0.075),
        (0.01, 0, -0.01),
        0.32,
        0.5,
        (4, 0.4, 0.4, 0.2, 0, 0, 0.1, 0.3),
    ),
    "white_tray": Surface("smooth", (0.74, 0.74, 0.72), (0.97, 0.97, 0.96), (0.005, 0.03), (0.01, 0, -0.01), 0.15, 0.12, _TRAY),
    "grey_tray": Surface("smooth", (0.30, 0.30, 0.30), (0.66, 0.66, 0.67), (0.008, 0.04), (0.01, 0, -0.01), 0.25, 0.15, _TRAY),
    "blue_tray": Surface("smooth", (0.10, 0.24, 0.46), (0.50, 0.68, 0.86), (0.008, 0.04), (0.01, 0, 0.01), 0.25, 0.15, _TRAY),
    "black_cloth": Surface("cloth", (0.03, 0.03, 0.03), (0.17, 0.17, 0.18), (0.008, 0.03), (0.005, 0, 0.005), 0.0, 0.05, _TRAY),
    "wood": Surface("wood", (0.34, 0.22, 0.13), (0.74, 0.60, 0.42), (0.04, 0.11), (0.04, 0.01, -0.02), 0.15, 0.3, _TRAY),
    "gravel": Surface("gravel", (0.28, 0.26, 0.23), (0.60, 0.57, 0.52), (0.07, 0.16), (0.05, 0.01, -0.05), 0.0, 0.2, _WILD),
    "sand": Surface("sand", (0.50, 0.43, 0.32), (0.82, 0.76, 0.64), (0.02, 0.07), (0.03, 0.01, -0.02), 0.0, 0.2, _WILD),
    "grass": Surface("grass", (0.12, 0.22, 0.06), (0.38, 0.50, 0.20), (0.07, 0.16), (0.07, 0.03, -0.02), 0.0, 0.1, _WILD),
    "water": Surface(
        "water",
        (0.05, 0.18, 0.22),
        (0.30, 0.52, 0.58),
        (0.02, 0.09),
        (-0.03, 0.02, 0.03),
        0.2,
        0.1,
        (4, 0, 0, 0, 1, 1, 1, 0),
    ),
    "concrete": Surface("concrete", (0.36, 0.35, 0.33), (0.70, 0.69, 0.66), (0.03, 0.09), (0.02, 0, -0.02), 0.0, 0.4, _WILD),
}

_SLOTS = 3

_OBJECT_COLOURS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "none": ((0, 0, 0), (0, 0, 0)),
    "label": ((0.82, 0.80, 0.72), (0.97, 0.97, 0.95)),
    "ruler": ((0.62, 0.58, 0.42), (0.95, 0.95, 0.94)),
    "card": ((0.15, 0.15, 0.15), (0.35, 0.35, 0.35)),
    "stone": ((0.25, 0.24, 0.22), (0.62, 0.60, 0.56)),
    "leaf": ((0.20, 0.26, 0.06), (0.62, 0.48, 0.16)),
    "stick": ((0.24, 0.17, 0.10), (0.52, 0.42, 0.30)),
    "finger": ((0.42, 0.26, 0.18), (0.90, 0.70, 0.58)),
}


@dataclass(frozen=True)
class Scenery:
    """Parameters of B backgrounds: name -> float32 [B], [B, 3]; texture kind and objects as numbers."""

    kind: npt.NDArray[np.int64]
    numbers: dict[str, Float]
    colours: dict[str, Float]
    objects: npt.NDArray[np.int64]


def scenery(draws: Draws, scene: npt.NDArray[np.int64]) -> Scenery:
    """Background of every picture."""
    surfaces = [SURFACES[name] for name in SCENES]
    kind = kind_numbers(np.array([s.kind for s in surfaces]))[scene]

    def row(values: list[object]) -> Float:
        return np.array(values, dtype=np.float32)[scene]

    shade = draws("scene.shade")[:, None]
    jitter = np.stack([draws(f"scene.{c}", 0.93, 1.07) for c in "rgb"], axis=1)
    base = row([s.darkest for s in surfaces]) * (1 - shade) + row([s.lightest for s in surfaces]) * shade
    contrast = draws("scene.contrast", row([s.contrast[0] for s in surfaces]), row([s.contrast[1] for s in surfaces]))
    bloody = draws.chance("scene.stain_red", 0.6)[:, None]
    glare_angle, glare_far = draws("glare.angle", 0, 6.28), draws("glare.far", 0, 0.6)
    numbers: dict[str, Float] = {
        "contrast": contrast,
        "rate": draws("scene.rate", 240, 760),
        "turn": draws("scene.turn", -3.14, 3.14),
        "x": draws("scene.x", 2, 4),
        "y": draws("scene.y", 2, 4),
        "stain": row([s.stain for s in surfaces]) * draws("scene.stain") ** 1.5,
        "stain_level": draws("scene.stain_level", 0.8, 2.0),
        "glare": row([s.glare for s in surfaces]) * draws("glare.strength") ** 1.5,
        "glare_x": 0.5 + glare_far * np.cos(glare_angle),
        "glare_y": 0.4 + glare_far * np.sin(glare_angle),
        "glare_size": draws("glare.size", 3, 22),
        "fall_x": draws("light.fall_x", -0.5, 0.5) * draws("light.fall"),
        "fall_y": draws("light.fall_y", -0.5, 0.5) * draws("light.fall"),
        "vignette": draws("light.vignette") ** 2 * 0.9,
        "shadow": draws("shadow.strength") * 0.62 * (scene != SCENES.index("water")),
        "shadow_x": draws("shadow.x", -0.05, 0.05),
        "shadow_y": draws("shadow.y", -0.02, 0.06),
    }
    weights = np.array([s.objects for s in surfaces], dtype=np.float64)[scene]
    chosen = np.stack([draws.choice(f"object{k}", weights) for k in range(_SLOTS)], axis=1)
    low = np.array([_OBJECT_COLOURS[name][0] for name in OBJECTS], dtype=np.float32)
    high = np.array([_OBJECT_COLOURS[name][1] for name in OBJECTS], dtype=np.float32)
    colours = {
        "base": np.clip(base * jitter, 0, 1),
        "hue": row([s.hue for s in surfaces]) * draws("scene.hue", 0.3, 1.3)[:, None],
        "stain": np.where(bloody, np.array([[0.42, 0.12, 0.09]]), np.array([[0.22, 0.20, 0.17]])),
    }
    long_side = {
        "label": 0.14,
        "ruler": 0.42,
        "card": 0.16,
        "stone": 0.09,
        "leaf": 0.10,
        "stick": 0.34,
        "finger": 0.20,
    }
    aspect = {
        "label": 0.55,
        "ruler": 0.12,
        "card": 0.6,
        "stone": 0.75,
        "leaf": 0.36,
        "stick": 0.05,
        "finger": 0.22,
    }
    for k in range(_SLOTS):
        which = chosen[:, k]
        mix = draws(f"object{k}.shade")[:, None]
        colours[f"object{k}"] = low[which] * (1 - mix) + high[which] * mix
        side = np.array([long_side.get(name, 0.1) for name in OBJECTS], dtype=np.float32)[which]
        ratio = np.array([aspect.get(name, 0.5) for name in OBJECTS], dtype=np.float32)[which]
        half = side * draws(f"object{k}.size", 0.6, 1.5)
        numbers[f"object{k}.a"] = half
        numbers[f"object{k}.b"] = half * ratio * draws(f"object{k}.aspect", 0.75, 1.3)
        numbers[f"object{k}.x"] = draws(f"object{k}.x", 0, 1)
        # Things that people lay beside a fish lie near the edges of the picture.
        side_y = draws(f"object{k}.y", -1, 1)
        from_edge = np.float32(0.34) * np.abs(side_y) ** np.float32(1.3)
        numbers[f"object{k}.y"] = np.float32(0.5) + np.sign(side_y) * (np.float32(0.5) - from_edge)
        neat = which <= OBJECTS.index("card")
        turn = draws(f"object{k}.turn", -1, 1)
        numbers[f"object{k}.turn"] = np.where(neat, 0.25 * turn**3 + (np.abs(turn) < 0.15) * 1.571, 3.14 * turn)
        numbers[f"object{k}.seed"] = draws(f"object{k}.seed", 0, 50)
    f32 = np.float32
    return Scenery(
        kind,
        {k: v.astype(f32) for k, v in numbers.items()},
        {k: v.astype(f32) for k, v in colours.items()},
        chosen,
    )


def frame_coordinates(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture coordinates, x in [0, 1] over the width and y in the same unit, float32 [1, H, W] each."""
    x = ((torch.arange(width, device=device) + 0.5) / width).view(1, 1, -1).expand(1, height, width)
    y = ((torch.arange(height, device=device) + 0.5) / width).view(1, -1, 1).expand(1, height, width)
    return x.contiguous(), y.contiguous()


def ground_reading(scenery: Scenery, rows: slice, width: int, atlas: Atlas, device: torch.device) -> Reading:
    """How the pictures in `rows` read the texture of their ground."""
    rate = scenery.numbers["rate"][rows]
    return reading(atlas, scenery.kind[rows], rate, np.full_like(rate, width), device)


def ground(
    n: dict[str, torch.Tensor],
    colours: dict[str, torch.Tensor],
    read: Reading,
    texels: torch.Tensor,
    height: int,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The bare ground before light and shadow, float32 [b, 3, H, W], with its relief and its grain [b, H, W]."""
    x, y = frame_coordinates(height, width, texels.device)
    cos, sin = torch.cos(n["turn"]), torch.sin(n["turn"])
    light, hue, stain, grain = texture(texels, read, x * cos + y * sin + n["x"], y * cos - x * sin + n["y"])
    rgb = colours["base"] + (light * n["contrast"])[:, None] + hue[:, None] * colours["hue"]
    wet = ((stain + 0.35 * grain - n["stain_level"]) * 3.0).clamp_(0, 1) * n["stain"]
    return rgb + wet[:, None] * (colours["stain"] - rgb), light, grain


def lay_objects(
    scenery: Scenery,
    rows: slice,
    rgb: torch.Tensor,
    light: torch.Tensor,
    grain: torch.Tensor,
    covers: dict[str, torch.Tensor] | None = None,
) -> None:
    """Lay the objects of the pictures in `rows` on their ground `rgb` [b, 3, H, W], in place.

    Args:
        covers: object -> its coverage [b, H, W], updated in place; None where nobody asks. What lies on top hides what is under it.
    """
    x, y = frame_coordinates(rgb.shape[-2], rgb.shape[-1], rgb.device)
    for i, k in zip(*np.nonzero(scenery.objects[rows]), strict=True):
        laid = _lay(scenery, rows.start + int(i), int(k), rgb[i], x[0], y[0], light[i], grain[i])
        if laid is not None and covers is not None:
            kind = OBJECTS[int(scenery.objects[rows.start + int(i), int(k)])]
            window, alpha = laid
            for name, plane in covers.items():
                view = plane[i][window]
                view.mul_(1.0 - alpha)
                if name == kind:
                    view.add_(alpha)


def _lay(
    scenery: Scenery,
    row: int,
    slot: int,
    rgb: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    light: torch.Tensor,
    grain: torch.Tensor,
) -> tuple[tuple[slice, slice], torch.Tensor] | None:
    """Lay one object on the ground of one picture, `rgb` [3, H, W], in place, within the window that holds it.

    Returns:
        The window and the object's coverage in it; None where the object lies outside the picture.
    """
    height, width = rgb.shape[-2:]
    get = {k: float(scenery.numbers[f"object{slot}.{k}"][row]) for k in ("x", "y", "a", "b", "turn", "seed")}
    kind = OBJECTS[int(scenery.objects[row, slot])]
    cos, sin = math.cos(get["turn"]), math.sin(get["turn"])
    half_a, half_b, seed = get["a"], get["b"], get["seed"]
    centre_x, centre_y = get["x"], get["y"] * height / width
    reach_x = abs(half_a * cos) + abs(half_b * sin) + 0.05
    reach_y = abs(half_a * sin) + abs(half_b * cos) + 0.05
    left, right = (min(max(int((centre_x + side * reach_x) * width), 0), width) for side in (-1, 1))
    top, bottom = (min(max(int((centre_y + side * reach_y) * width), 0), height) for side in (-1, 1))
    if right <= left or bottom <= top:
        return None
    window = (slice(top, bottom), slice(left, right))
    view, light, grain = rgb[:, window[0], window[1]], light[window], grain[window]
    dx, dy = x[window] - centre_x, y[window] - centre_y
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    p, q = along / half_a, across / half_b
    flat = kind in ("label", "ruler", "card")
    if flat:
        distance = torch.minimum(half_a - along.abs(), half_b - across.abs())
    else:
        round_off = p * p + q * q
        # The ellipse's level divided by its gradient: about the distance in picture units.
        slope = torch.sqrt((p / half_a) ** 2 + (q / half_b) ** 2 + 1e-6)
        distance = (1.0 - round_off + 0.08 * light) / (2 * slope)
    alpha = (distance * width + 0.5).clamp_(0, 1)
    colour3 = torch.from_numpy(scenery.colours[f"object{slot}"][row]).to(rgb.device).view(3, 1, 1)
    if kind == "label":
        # Lines of writing.
        line = torch.floor(q * 3.5)
        words = torch.sin(along * 620 + seed) + torch.sin(along * 247 + line * 9.7 + seed) > -0.1
        ink = words & (q * 3.5 - line < 0.45) & (q.abs() < 0.85) & (p.abs() < 0.86)
        picture = colour3 * (1.0 - 0.8 * ink.float() + 0.04 * grain)
    elif kind == "ruler":
        stroke = torch.floor(along * 110)
        long_stroke = torch.where(stroke % 5 == 0, -0.1, 0.4)
        ink = (along * 110 - stroke < 0.22) & (q > long_stroke)
        picture = colour3 * (1.0 - 0.8 * ink.float() + 0.04 * grain)
    elif kind == "card":
        field = torch.floor(p * 2.999 + 3) + 6 * torch.floor(q * 1.999 + 2)
        patches = torch.stack([0.5 + 0.45 * torch.sin(field * f + seed) for f in (2.1, 3.3, 4.7)])
        picture = torch.where((p.abs() < 0.94) & (q.abs() < 0.9), patches, colour3)
    else:
        dome = (1.0 - round_off).clamp(0, 1)
        picture = colour3 * (0.62 + 0.5 * dome - 0.18 * q + 0.10 * light)
    # A soft dark rim where the object keeps light from the ground.
    dark = (distance * 24 + 1.0).clamp_(0, 1) * 0.28 * (1 - alpha)
    view.copy_(torch.lerp(view * (1.0 - dark), picture, alpha.expand_as(view)))
    return window, alpha


def light_field(n: dict[str, torch.Tensor], height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Light over the picture (a factor) and glare of the ground (added), float32 [b, H, W] each."""
    x, y = frame_coordinates(height, width, n["glare"].device)
    y = y * (width / height)
    cx, cy = x - 0.5, y - 0.5
    factor = 1.0 + cx * n["fall_x"] + cy * n["fall_y"] - (cx * cx + cy * cy) * n["vignette"]
    gx, gy = x - n["glare_x"], y - n["glare_y"]
    return factor.clamp_(min=0.15), n["glare"] / (1.0 + n["glare_size"] * (gx * gx + gy * gy))


def shadow(n: dict[str, torch.Tensor], solid: torch.Tensor) -> torch.Tensor:
    """Soft shadow cast by what is solid, float32 [b, H, W]: coarse, blurred, moved; 0 where no shadow falls."""
    height, width = solid.shape[-2:]
    coarse = F.adaptive_avg_pool2d(solid[:, None], (max(1, min(height, 20)), max(1, min(width, 20))))
    coarse = F.avg_pool2d(coarse, 3, stride=1, padding=1, count_include_pad=False)
    x, y = frame_coordinates(height, width, solid.device)
    grid = torch.stack([2 * (x - n["shadow_x"]) - 1, 2 * (y - n["shadow_y"]) * (width / height) - 1], dim=-1)
    moved = F.grid_sample(coarse, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]
    return moved * n["shadow"]
