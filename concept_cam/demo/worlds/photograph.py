"""From light to a photograph: white balance, exposure, blur, sensor noise, compression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.sampling import column
from concept_cam.demo.worlds.textures import TEXTURE_SIZE, Atlas


@dataclass(frozen=True)
class Exposure:
    """Camera settings of B pictures: name -> float32 [B] or [B, 3]; which pictures are compressed, where their grain starts, and how far
    the camera moved, as (x, y) in picture widths [B, 2].
    """

    numbers: dict[str, Float]
    balance: Float
    compressed: npt.NDArray[np.bool_]
    grain_at: npt.NDArray[np.int64]
    motion: Float


def exposure(draws: Draws) -> Exposure:
    """Settings of every picture."""
    warm, tint = draws("balance.warm", -1, 1) ** 3 * 0.14, draws("balance.tint", -1, 1) ** 3 * 0.06
    gain = draws("exposure.gain", 0.80, 1.18)
    balance = np.stack([gain * (1 + warm), gain * (1 + tint), gain * (1 - warm)], axis=1)
    numbers = {
        "curve": draws("exposure.contrast", -0.35, 0.5),
        "saturation": draws("exposure.saturation", 0.75, 1.15),
        "haze": draws("exposure.haze") ** 3 * 0.16,
        "blur": draws("exposure.blur") ** 1.5 * 0.85 + 0.28,
        "noise": draws("exposure.noise") ** 2 * 0.028 + 0.003,
        "quality": draws("jpeg.quality", 0.012, 0.07),
    }
    at = np.stack([draws("grain.y", 0, TEXTURE_SIZE), draws("grain.x", 0, TEXTURE_SIZE)], axis=1).astype(np.int64)
    shake, way = draws("motion.length", 0.008, 0.03), draws("motion.way", -np.pi, np.pi)
    shake = shake * draws.chance("motion", 0.0)
    motion = np.stack([shake * np.cos(way), shake * np.sin(way)], axis=1).astype(np.float32)
    return Exposure(numbers, balance.astype(np.float32), draws.chance("jpeg", 0.35), at, motion)


def tone(rgb: torch.Tensor, n: dict[str, torch.Tensor], balance: torch.Tensor) -> torch.Tensor:
    """White balance, exposure, saturation and contrast of scene colours, float32 [b, 3, H, W]."""
    rgb = (rgb * balance).clamp_(0, 1.25)
    grey = rgb.mean(dim=1, keepdim=True)
    rgb = torch.lerp(grey, rgb, n["saturation"][:, None])
    # An S-shaped tone curve, then veiling light.
    rgb = rgb + n["curve"][:, None] * rgb * (rgb - 0.5) * (1.1 - rgb)
    return rgb + n["haze"][:, None] * (0.6 - rgb)


def develop(rgb: torch.Tensor, exposure: Exposure, rows: slice, atlas: Atlas, *, noise: bool) -> torch.Tensor:
    """Blur, sensor noise and compression: float32 [b, 3, H, W] to a photograph, uint8 [b, 3, H, W]."""
    rgb = _blur(_shaken(rgb, exposure.motion[rows]), exposure.numbers["blur"][rows])
    if noise:
        amount = column(exposure.numbers["noise"][rows], rgb.device)[:, None]
        rgb = rgb.addcmul_(_grain(exposure, rows, rgb, atlas), amount)
        some = np.flatnonzero(exposure.compressed[rows])
        if len(some):
            pick = torch.from_numpy(some).to(rgb.device)
            rgb[pick] = _compress(rgb[pick], column(exposure.numbers["quality"][rows][some], rgb.device))
    return rgb.mul_(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8)


_STEPS = 9


def _shaken(rgb: torch.Tensor, motion: Float) -> torch.Tensor:
    """Pictures of a camera that moved while the shutter was open: the mean of moved copies, [b, 3, H, W]."""
    width = rgb.shape[-1]
    for i in np.flatnonzero(motion.any(axis=1)):
        shifts = np.rint(np.linspace(-0.5, 0.5, _STEPS)[:, None] * motion[i] * width).astype(int)
        reach = int(np.abs(shifts).max())
        if reach == 0:
            continue
        padded = F.pad(rgb[i][None], (reach, reach, reach, reach), mode="replicate")[0]
        height = rgb.shape[-2]
        copies = [padded[:, reach + y : reach + y + height, reach + x : reach + x + width] for x, y in shifts.tolist()]
        rgb[i] = torch.stack(copies).mean(dim=0)
    return rgb


def _blur(rgb: torch.Tensor, sigma_128: Float) -> torch.Tensor:
    """Gaussian blur, `sigma_128` [b] in pixels at 128 pixels of width; it grows more slowly than the picture."""
    width = rgb.shape[-1]
    growth = (width / 128) ** 0.45
    sigma = np.maximum(sigma_128 * growth, 0.25)
    radius = max(1, math.ceil(2.0 * growth))
    offset = np.arange(-radius, radius + 1, dtype=np.float32)
    kernel = np.exp(-0.5 * (offset[None] / sigma[:, None]) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    b, c, h, w = rgb.shape
    weight = torch.from_numpy(np.repeat(kernel, c, axis=0)).to(rgb.device)
    flat = F.pad(rgb.reshape(1, b * c, h, w), (radius, radius, radius, radius), mode="replicate")
    flat = F.conv2d(flat, weight[:, None, None, :], groups=b * c)
    flat = F.conv2d(flat, weight[:, None, :, None], groups=b * c)
    return flat.view(b, c, h, w)


def _grain(exposure: Exposure, rows: slice, rgb: torch.Tensor, atlas: Atlas) -> torch.Tensor:
    """Sensor noise: a window of the noise tile per picture and channel, [b, 3, H, W]."""
    height, width = rgb.shape[-2:]
    tile = atlas.grain
    copies = [-(-(TEXTURE_SIZE + n) // tile.shape[1]) for n in (height, width)]
    if max(copies) > 1:
        tile = tile.repeat(1, *copies)
    return torch.stack([tile[:, y : y + height, x : x + width] for y, x in exposure.grain_at[rows]])


def _dct() -> npt.NDArray[np.float32]:
    k, i = np.mgrid[0:8, 0:8]
    matrix = np.cos(np.pi * (2 * i + 1) * k / 16) * 0.5
    matrix[0] /= math.sqrt(2)
    return cast("npt.NDArray[np.float32]", matrix.astype(np.float32))


_DCT = _dct()
_YCC = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], dtype=np.float32)


def _compress(rgb: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """JPEG's loss: the cosine transform of 8 x 8 blocks, quantised more coarsely at high frequencies and in colour."""
    b, c, h, w = rgb.shape
    device = rgb.device
    down, across = -h % 8, -w % 8
    x = F.pad(rgb, (0, across, 0, down), mode="replicate") if down or across else rgb
    ycc = torch.from_numpy(_YCC).to(device)
    x = torch.einsum("ij,bjhw->bihw", ycc, x)
    rows, cols = x.shape[-2] // 8, x.shape[-1] // 8
    dct = torch.from_numpy(_DCT).to(device)
    blocks = x.view(b, c, rows, 8, cols, 8).transpose(3, 4)
    freq = (dct @ blocks) @ dct.t()
    f = torch.arange(8, device=device, dtype=torch.float32)
    table = (1.0 + 0.45 * (f[:, None] + f[None, :])).view(1, 1, 1, 1, 8, 8)
    chroma = torch.tensor([1.0, 1.8, 1.8], device=device).view(1, 3, 1, 1, 1, 1)
    q = table * chroma * step.view(-1, 1, 1, 1, 1, 1)
    freq = torch.round(freq / q) * q
    blocks = (dct.t() @ freq) @ dct
    x = blocks.transpose(3, 4).reshape(b, c, rows * 8, cols * 8)[..., :h, :w]
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(ycc), x)
