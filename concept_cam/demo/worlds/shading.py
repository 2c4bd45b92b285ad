"""Colours of surfaces under a light: palettes, noise on a surface, matt and glossy coats. Per sample, numpy."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.solids import Array
from concept_cam.demo.worlds.stage import Draw, Light
from concept_cam.demo.worlds.textures import TEXTURE_KINDS, TEXTURE_LEVELS, atlas

PALETTE: Final[dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]]] = {
    # hue in turns, saturation, value
    "black": ((0.0, 1.0), (0.0, 0.35), (0.03, 0.11)),
    "brown": ((0.04, 0.085), (0.5, 0.78), (0.25, 0.46)),
    "red": ((-0.025, 0.02), (0.78, 0.98), (0.48, 0.85)),
    "orange": ((0.06, 0.088), (0.85, 0.98), (0.86, 0.98)),
    "yellow": ((0.125, 0.158), (0.72, 0.95), (0.82, 0.98)),
    "green": ((0.24, 0.42), (0.45, 0.95), (0.26, 0.66)),
    "blue": ((0.57, 0.65), (0.55, 0.95), (0.26, 0.72)),
    "purple": ((0.76, 0.86), (0.5, 0.85), (0.22, 0.55)),
    "grey": ((0.0, 1.0), (0.0, 0.07), (0.34, 0.54)),
    "white": ((0.08, 0.16), (0.0, 0.1), (0.9, 1.0)),
}
"""Colour -> ranges of hue, saturation and value."""


def tint(draw: Draw, name: str, colour: str) -> Array:
    """A colour of the palette, float32 [3], by the numbers of `name`."""
    hue, saturation, value = PALETTE[colour]
    parts = [
        low + (high - low) * draw(f"{name}.{part}")
        for part, (low, high) in zip(("hue", "sat", "val"), (hue, saturation, value), strict=True)
    ]
    return np.array(colorsys.hsv_to_rgb(parts[0] % 1.0, parts[1], parts[2]), dtype=np.float32)


def luminance(rgb: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """How light colours [..., 3] are."""
    return np.asarray(rgb @ np.array([0.3, 0.59, 0.11]))


@lru_cache(maxsize=64)
def _table(kind: str, level: int) -> tuple[int, Array]:
    """Side of a level of a texture, and its values [side * side, 4]."""
    textures = atlas("cpu")
    row = TEXTURE_KINDS.index(kind)
    side, offset = int(textures.sides[row, level]), int(textures.offsets[row, level])
    texels = textures.texels[offset : offset + side * side].numpy().astype(np.float32)
    return side, np.asarray((texels - 128.0) / 36.0, dtype=np.float32)


def noise(kind: str, level: int, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> Array:
    """The four channels of a texture at texture coordinates (1 is one tile), float32 [S, 4]: about zero mean and unit variance."""
    side, table = _table(kind, min(max(level, 0), TEXTURE_LEVELS - 1))
    ix = np.floor(x * side).astype(np.int64) & (side - 1)
    iy = np.floor(y * side).astype(np.int64) & (side - 1)
    return np.asarray(table[iy * side + ix], dtype=np.float32)


def lit(
    rgb: npt.NDArray[np.floating],
    normal: npt.NDArray[np.floating],
    light: Light,
    *,
    gloss: float = 0.0,
    sharp: float = 20.0,
    metal: float = 0.0,
    sky: float = 0.0,
    wrap: float = 0.15,
) -> Array:
    """Colours of surface samples under a light.

    Args:
        rgb: [S, 3] or [3], reflectance.
        normal: [S, 3], towards the camera.
        gloss: strength of the mirror image of the sun.
        sharp: how small it is (exponent of Blinn 1977).
        metal: 0 to 1, mirrored light takes the surface's colour and dark sides are darker.
        sky: strength of the light mirrored at grazing angles.
        wrap: how far light reaches round to the dark side.
    """
    toward = light.towards
    facing = normal @ toward
    diffuse = np.clip((facing + wrap) / (1 + wrap), 0, 1)
    dim = light.ambient * (0.62 + 0.38 * np.clip(normal[:, 2], 0, 1)) * (1 - 0.35 * metal)
    bright = dim + (1.15 - light.ambient) * diffuse * (1 + 0.35 * metal * (diffuse - 0.5))
    out = rgb * bright[:, None] * light.colour
    half = toward + np.array([0.0, 0.0, 1.0])
    half = half / np.linalg.norm(half)
    if gloss > 0:
        mirror = np.clip(normal @ half, 0, 1) ** sharp * gloss
        tone = (1 - metal) + metal * np.clip(rgb * 1.7 + 0.06, 0, 1)
        out = out + mirror[:, None] * tone * light.colour
    if sky > 0:
        edge = (1.0 - np.clip(normal[:, 2], 0, 1)) ** 3 * sky
        out = out + edge[:, None] * np.array([0.75, 0.82, 0.9])
    return np.asarray(out, dtype=np.float32)
