"""Things that are no fish: hands that hold it, rulers, labels and what else lies about, with masks of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.fish.anatomy import Anatomy, at
from concept_cam.demo.worlds.fish.camera import Camera, pixels

THINGS = ("hand", "ruler", "label", "card", "stone", "leaf", "stick")
"""The axis `T` of masks of things."""

_SKINS = np.array(
    [
        [0.90, 0.70, 0.58],
        [0.78, 0.56, 0.43],
        [0.58, 0.38, 0.27],
        [0.36, 0.23, 0.17],
        [0.30, 0.50, 0.82],
        [0.16, 0.17, 0.19],
        [0.90, 0.90, 0.88],
        [0.86, 0.52, 0.22],
    ],
    dtype=np.float32,
)
"""Colours of bare skin, then of gloves, sRGB."""

_FINGERS = 4


@dataclass(frozen=True)
class Hands:
    """Hands before the fish, at most one a picture.

    Attributes:
        held: bool [B], there is a hand.
        bones: float32 [B, K, 4], capsules (x, y) to (x, y) in pixels: wrist and palm, thumb, fingers.
        radii: float32 [B, K], their radii in pixels.
        colour: float32 [B, 3], sRGB.
        shade: float32 [B], how much darker the side away from the light is.
    """

    held: npt.NDArray[np.bool_]
    bones: Float
    radii: Float
    colour: Float
    shade: Float


def hands(draws: Draws, anatomy: Anatomy, camera: Camera, fish: npt.NDArray[np.bool_]) -> Hands:
    """Hands that reach over the edge of the fish; where they grip depends on `anatomy`, the one that the camera is aimed by."""
    held = draws.chance("hand", 0.0) & fish
    u = np.select(
        [draws.chance("hand.tail", 0.35), draws.chance("hand.head", 0.4)],
        [draws("hand.at_tail", 0.82, 1.12), draws("hand.at_head", 0.02, 0.3)],
        draws("hand.at_trunk", 0.3, 0.8),
    ).astype(np.float32)
    side = np.where(draws.chance("hand.below", 0.6), -1.0, 1.0).astype(np.float32)
    inside = np.clip(u, 0, 1)
    edge = np.where(side > 0, at(anatomy.tables["upper"], inside), at(anatomy.tables["lower"], inside))
    deep = draws("hand.deep", -0.25, 0.9)
    points = np.stack([np.stack([u, edge * (1 - deep)], axis=1), np.stack([u, 4 * edge + 0.4 * side], axis=1)], axis=1)
    found = pixels(camera, anatomy, points.astype(np.float32))
    tip, away = found[:, 0], found[:, 1] - found[:, 0]
    away = away / np.maximum(np.hypot(away[:, 0], away[:, 1]), 1e-3)[:, None]
    turn = draws("hand.turn", -1, 1) * 0.9
    away = _turned(away, turn)
    size = draws("hand.size", 0.22, 0.5) * camera.scale
    size = np.clip(size, 0.12 * camera.width, 0.5 * camera.width).astype(np.float32)
    across = np.stack([-away[:, 1], away[:, 0]], axis=1)
    mirror = np.where(draws.chance("hand.left", 0.5), 1.0, -1.0).astype(np.float32)
    bones, radii = [], []

    def bone(start: Float, end: Float, radius: Float) -> None:
        bones.append(np.concatenate([start, end], axis=1))
        radii.append(radius)

    palm = tip + away * (0.75 * size)[:, None]
    bone(palm, palm + away * (6.0 * size)[:, None], 0.21 * size)
    bone(palm - away * (0.12 * size)[:, None], palm + away * (0.25 * size)[:, None], 0.30 * size)
    spread = draws("hand.spread", 0.0, 0.5)
    for k in range(_FINGERS):
        place = (k - 1.5) / 1.5
        root = palm - away * (0.2 * size)[:, None] + across * (mirror * place * 0.22 * size)[:, None]
        length = (0.62 - 0.16 * np.abs(place - 0.2)) * size * draws(f"hand.finger{k}", 0.75, 1.05)
        bone(root, root - _turned(away, mirror * place * spread * 0.6) * length[:, None], 0.082 * size)
    thumb = palm + across * (-mirror * 0.26 * size)[:, None]
    bone(thumb, thumb - _turned(away, -mirror * draws("hand.thumb", 0.3, 1.1)) * (0.42 * size)[:, None], 0.095 * size)
    skin = draws.choice("hand.skin", (1.0, 1.0, 0.7, 0.5, 0.6, 0.25, 0.4, 0.12))
    jitter = np.stack([draws(f"hand.{c}", 0.9, 1.08) for c in "rgb"], axis=1)
    colour = np.clip(_SKINS[skin] * jitter * draws("hand.light", 0.75, 1.05)[:, None], 0, 1)
    f32 = np.float32
    return Hands(
        held,
        np.stack(bones, axis=1).astype(f32),
        np.stack(radii, axis=1).astype(f32),
        colour.astype(f32),
        draws("hand.shade", 0.3, 0.8),
    )


def _turned(vectors: Float, angle: Float) -> Float:
    """Vectors [B, 2] turned by angles [B]."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=1).astype(np.float32)


def draw_hands(hands: Hands, rows: slice, height: int, width: int, grain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hands of the pictures in `rows`.

    Args:
        grain: float32 [b, H, W], fine noise for the skin.

    Returns:
        Colours float32 [b, 3, H, W], coverage [b, H, W] and the darkness [b, H, W] that a hand casts beside itself.
    """
    count, device = len(hands.held[rows]), grain.device
    rgb = torch.zeros(count, 3, height, width, device=device)
    alpha, dark = torch.zeros_like(grain), torch.zeros_like(grain)
    x = (torch.arange(width, device=device) + 0.5).view(1, -1)
    y = (torch.arange(height, device=device) + 0.5).view(-1, 1)
    for i in np.flatnonzero(hands.held[rows]):
        row = rows.start + int(i)
        inside = torch.full((height, width), -1e4, device=device)
        dome = torch.zeros(height, width, device=device)
        for (x0, y0, x1, y1), radius in zip(hands.bones[row].tolist(), hands.radii[row].tolist(), strict=True):
            dx, dy, long_x, long_y = x - x0, y - y0, x1 - x0, y1 - y0
            along = ((dx * long_x + dy * long_y) / max(long_x * long_x + long_y * long_y, 1e-6)).clamp(0, 1)
            off_x, off_y = dx - along * long_x, dy - along * long_y
            off = torch.sqrt(off_x * off_x + off_y * off_y)
            # Rounded, lit from above the picture; the nearer surface is seen.
            bulge = (1.0 - off / radius).clamp(min=0)
            lit = 0.35 + bulge.sqrt() - 0.25 * (off_y / radius).clamp(-1, 1)
            dome = torch.where(bulge > 0, torch.where(inside > 0, torch.maximum(dome, lit), lit), dome)
            inside = torch.maximum(inside, radius - off)
        size = float(hands.radii[row, 0])
        alpha[i] = (inside + 0.5).clamp(0, 1)
        dark[i] = (1.0 + inside / (0.5 * size)).clamp(0, 1) * 0.45
        colour = torch.from_numpy(hands.colour[row]).to(device).view(3, 1, 1)
        shade = 1.0 - float(hands.shade[row]) * (1.0 - 0.75 * dome).clamp(0, 1)
        rgb[i] = colour * (shade + 0.03 * grain[i])
    return rgb, alpha, dark
