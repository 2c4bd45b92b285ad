"""Where the camera stands: from pixels to coordinates in the fish, and from points of the fish to pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.fish.anatomy import Anatomy, axis_bend
from concept_cam.demo.worlds.fish.traits import MASKS

_FOCUS_EXTENT = {
    "head": 0.34,
    "eye": 0.16,
    "mouth": 0.22,
    "operculum": 0.30,
    "trunk": 0.62,
    "lateral_line": 0.55,
    "caudal_fin": 0.38,
    "dorsal_fin": 0.42,
    "anal_fin": 0.30,
    "pelvic_fin": 0.22,
    "pectoral_fin": 0.26,
    "adipose_fin": 0.20,
    "barbels": 0.36,
    "eye_spot": 0.22,
}
"""How much of the fish a close-up of each part has to show, in standard lengths."""

_LENGTH = 1.24
"""Usual total length in standard lengths."""


@dataclass(frozen=True)
class Camera:
    """A similarity with mild perspective and a bent body axis, per picture.

    Attributes:
        scale: float32 [B], pixels per standard length.
        angle: float32 [B], rotation of the fish in the picture, radians.
        facing: float32 [B], 1 when the snout points to the left, -1 to the right.
        origin: float32 [B, 2], the pixel (x, y) that shows the fish point `aim`.
        aim: float32 [B, 2], fish point (u, v).
        tilt: float32 [B, 2], perspective: relative change of scale across the picture in x and y.
        height: picture height in pixels.
        width: picture width in pixels.
    """

    scale: Float
    angle: Float
    facing: Float
    origin: Float
    aim: Float
    tilt: Float
    height: int
    width: int

    def __getitem__(self, rows: np.ndarray) -> Camera:
        """The cameras of the chosen pictures."""
        return replace(
            self,
            scale=self.scale[rows],
            angle=self.angle[rows],
            facing=self.facing[rows],
            origin=self.origin[rows],
            aim=self.aim[rows],
            tilt=self.tilt[rows],
        )


def place(draws: Draws, framing: Anatomy, focus: np.ndarray, size: tuple[int, int]) -> Camera:
    """Camera of every picture. `framing` is the anatomy it is aimed by, which twins share."""
    height, width = size
    angle = draws("camera.angle", -1, 1)
    # Mostly within 25 degrees and seldom far off level; one in twelve at any angle.
    angle = np.where(draws.chance("camera.any", 1 / 12), np.pi * angle, 0.44 * np.sign(angle) * np.abs(angle) ** 1.6)
    angle = np.where(draws.chance("camera.upended", 0.0), angle + np.float32(np.pi), angle)
    facing = np.where(draws.chance("camera.facing", 0.5), 1.0, -1.0)
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    tall = framing.values["depth"] + 0.25 if height < 0.75 * width else np.full_like(angle, 0.45)
    whole_x, whole_y = _LENGTH * cos + tall * sin, _LENGTH * sin + tall * cos
    share = 0.42 + 0.54 * np.sqrt(draws("camera.share"))
    if height < 0.75 * width:
        # A wide picture has usually been cut to the fish.
        share = 0.66 + 0.57 * (share - 0.42)
    share = np.where(draws.chance("camera.tight", 0.10), draws("camera.overfull", 0.97, 1.2), share).astype(np.float32)
    scale_whole = share * np.minimum(width / whole_x, height / whole_y)
    slack_x = 0.5 * np.abs(width - whole_x * scale_whole)
    slack_y = 0.5 * np.abs(height - whole_y * scale_whole)
    spill = np.where(draws.chance("camera.cut", 0.12), 0.14 * width, 0.0)
    jitter_x, jitter_y = draws("camera.x", -1, 1), draws("camera.y", -1, 1)
    # Photographers put the fish near the middle.
    jitter_y = jitter_y * np.sqrt(np.abs(jitter_y))
    whole_aim = np.stack([np.full_like(angle, 0.6), np.zeros_like(angle)], axis=1)

    close = focus >= 0
    part = np.where(close, focus, 0)
    rows = np.arange(len(part))
    short = min(width, height)
    fit = np.array([_FOCUS_EXTENT[name] for name in MASKS])[part]
    zoom = draws("camera.zoom", 2.0, 4.0) * 0.62 / _LENGTH * width
    scale_close = np.minimum(zoom, short * draws("camera.fill", 0.55, 1.0) / fit)
    close_aim = framing.sites[rows, part].astype(np.float64)

    scale = np.where(close, scale_close, scale_whole)
    aim = np.where(close[:, None], close_aim, whole_aim)
    reach_x = np.where(close, 0.16 * short, slack_x + spill)
    reach_y = np.where(close, 0.16 * short, slack_y + 0.5 * spill)
    origin = np.stack([0.5 * width + jitter_x * reach_x, 0.5 * height + jitter_y * reach_y], axis=1)
    tilt = np.stack([draws("camera.tilt_x", -0.14, 0.14), draws("camera.tilt_y", -0.14, 0.14)], axis=1)
    f32 = np.float32
    return Camera(
        scale.astype(f32),
        angle.astype(f32),
        facing.astype(f32),
        origin.astype(f32),
        aim.astype(f32),
        tilt.astype(f32),
        height,
        width,
    )


def camera_beside(draws: Draws, camera: Camera, depth: Float, side: Float) -> Camera:
    """Cameras that see another fish beside the one that `camera` sees, on the given side of it (1 or -1).

    Args:
        depth: float32 [B], body depth of the fish that `camera` sees.
    """
    angle = camera.angle + draws("beside.turn", -0.3, 0.3)
    angle = np.where(draws.chance("beside.any", 0.25), draws("beside.angle", -np.pi, np.pi), angle)
    facing = camera.facing * np.where(draws.chance("beside.same", 0.75), 1.0, -1.0)
    along = draws("beside.along", -0.45, 0.45) * camera.scale
    across = side * (0.5 * depth + draws("beside.across", 0.06, 0.4)) * camera.scale
    cos, sin = np.cos(camera.angle), np.sin(camera.angle)
    move = np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)
    f32 = np.float32
    return replace(
        camera,
        scale=(camera.scale * draws("beside.size", 0.75, 1.2)).astype(f32),
        angle=angle.astype(f32),
        facing=facing.astype(f32),
        origin=(camera.origin + move).astype(f32),
    )


def camera_numbers(camera: Camera, anatomy: Anatomy) -> dict[str, Float]:
    """What `fish_coordinates` needs, per picture: name -> float32 [B]."""
    cos, sin = np.cos(camera.angle) / camera.scale, np.sin(camera.angle) / camera.scale
    values = {
        "camera.x": camera.origin[:, 0],
        "camera.y": camera.origin[:, 1],
        "camera.tilt_x": camera.tilt[:, 0] / camera.width,
        "camera.tilt_y": camera.tilt[:, 1] / camera.width,
        "camera.u_x": cos * camera.facing,
        "camera.u_y": sin * camera.facing,
        "camera.v_x": -sin,
        "camera.v_y": cos,
        "camera.u": camera.aim[:, 0],
        "camera.v": camera.aim[:, 1] + axis_bend(anatomy.values, camera.aim[:, 0]),
        "camera.bend2": anatomy.values["bend2"],
        "camera.bend3": anatomy.values["bend3"],
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in values.items()}


def fish_coordinates(n: dict[str, torch.Tensor], height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Body coordinates (u, v) of every pixel, float32 [b, H, W] each, from the `numbers` as tensors [b, 1, 1]."""
    device = n["camera.x"].device
    x = (torch.arange(width, device=device) + 0.5).view(1, 1, -1) - n["camera.x"]
    y = (torch.arange(height, device=device) + 0.5).view(1, -1, 1) - n["camera.y"]
    depth = 1.0 + x * n["camera.tilt_x"] + y * n["camera.tilt_y"]
    u = (x * n["camera.u_x"] + y * n["camera.u_y"]) / depth + n["camera.u"]
    v = n["camera.v"] - (x * n["camera.v_x"] + y * n["camera.v_y"]) / depth
    bent = u - 0.45
    return u, v - bent * bent * (n["camera.bend2"] + n["camera.bend3"] * bent)


def pixels(camera: Camera, anatomy: Anatomy, points: Float) -> Float:
    """Pixels (x, y) that show the fish points (u, v): float32 [B, n, 2] to float32 [B, n, 2]."""
    u, v = points[..., 0], points[..., 1]
    aim_v = camera.aim[:, 1] + axis_bend(anatomy.values, camera.aim[:, 0])
    along = (u - camera.aim[:, :1]) * camera.scale[:, None] * camera.facing[:, None]
    across = (aim_v[:, None] - v - axis_bend(anatomy.values, u)) * camera.scale[:, None]
    cos, sin = np.cos(camera.angle)[:, None], np.sin(camera.angle)[:, None]
    x, y = along * cos - across * sin, along * sin + across * cos
    # Undo the perspective: the coordinates above are x / (1 + a x + b y).
    depth = 1.0 - (x * camera.tilt[:, :1] + y * camera.tilt[:, 1:]) / camera.width
    x, y = x / depth, y / depth
    return np.stack([x + camera.origin[:, :1], y + camera.origin[:, 1:]], axis=-1).astype(np.float32)
