"""Tileable noise for everything that is not a fish outline: made once per process from a fixed seed, then only looked up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

TEXTURE_SIZE = 512
"""Side of the finest level of a scene texture in texels."""

SKIN_SIZE = 1024
"""Side of the finest level of the skin texture."""

TEXTURE_LEVELS = 5
"""Levels of detail, each half as large as the one before."""

TEXTURE_KINDS = ("brushed", "smooth", "cloth", "wood", "gravel", "sand", "grass", "water", "concrete", "skin")
"""What textures there are."""

Array = npt.NDArray[np.float64]


def _frequencies(size: int) -> tuple[Array, Array]:
    f = np.fft.fftfreq(size) * size
    return np.meshgrid(f, f, indexing="ij")


def _shaped(rng: np.random.Generator, size: int, gain: Array) -> Array:
    """White noise with its spectrum multiplied by `gain`, zero mean and unit variance; tileable."""
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * gain).real
    return np.asarray((field - field.mean()) / (field.std() + 1e-9))


def _fractal(rng: np.random.Generator, size: int, slope: float = 1.5, low: float = 2.0, high: float = 1e9) -> Array:
    fy, fx = _frequencies(size)
    f = np.hypot(fy, fx)
    gain = np.where((f >= low) & (f <= high), np.maximum(f, 1.0) ** -slope, 0.0)
    return _shaped(rng, size, gain)


def _streaks(rng: np.random.Generator, size: int, length: float, width: float) -> Array:
    fy, fx = _frequencies(size)
    return _shaped(rng, size, np.exp(-((fx * length / size) ** 2) - (fy * width / size) ** 2))


def _cells(rng: np.random.Generator, size: int, grid: int, jitter: float = 0.45) -> tuple[Array, Array, Array]:
    """Distances to the nearest and second nearest of jittered grid points (in cells), and a number per cell; tileable."""
    place = rng.uniform(-jitter, jitter, (grid, grid, 2)) + 0.5
    number = rng.uniform(0, 1, (grid, grid))
    axis = (np.arange(size) + 0.5) / size * grid
    y, x = np.meshgrid(axis, axis, indexing="ij")
    cy, cx = y.astype(int), x.astype(int)
    first, second, owner = np.full((size, size), 9.0), np.full((size, size), 9.0), np.zeros((size, size))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            gy, gx = cy + dy, cx + dx
            p = place[gy % grid, gx % grid]
            d = np.hypot(gy + p[..., 0] - y, gx + p[..., 1] - x)
            nearer = d < first
            second = np.where(nearer, first, np.minimum(second, d))
            owner = np.where(nearer, number[gy % grid, gx % grid], owner)
            first = np.where(nearer, d, first)
    return first, second, owner


def _scratches(rng: np.random.Generator, size: int, count: int) -> Array:
    """Fine bright and dark arcs, as hands and cloths leave on a steel table."""
    field = np.zeros((size, size))
    for _ in range(count):
        radius, a0 = rng.uniform(30, 260), rng.uniform(0, 2 * np.pi)
        cy, cx = rng.uniform(0, size, 2)
        angle = a0 + np.linspace(0, rng.uniform(15, 110) / radius, 220)
        y = (cy + radius * np.sin(angle)).astype(int) % size
        x = (cx + radius * np.cos(angle)).astype(int) % size
        field[y, x] += rng.normal(0.25, 1.0)
    return field


def _scene(kind: str, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Luminance, hue, stain and grain of a scene texture, each about zero mean and unit variance."""
    n = TEXTURE_SIZE
    coarse, grain = _fractal(rng, n, 1.6), _fractal(rng, n, 0.3, low=24)
    hue = _fractal(rng, n, 1.4)
    if kind == "brushed":
        lines = _streaks(rng, n, 70, 1.2)
        light = 0.45 * lines + 0.55 * _scratches(rng, n, 900) + 0.5 * coarse + 0.4 * grain
    elif kind == "smooth":
        light = 0.6 * coarse + 0.3 * grain
    elif kind == "cloth":
        axis = np.arange(n) * 2 * np.pi * 128 / n
        light = 0.5 * np.sin(axis)[:, None] * np.sin(axis)[None, :] + 0.6 * grain + 0.7 * coarse
    elif kind == "wood":
        y = np.arange(n)[:, None] / n
        warp = _streaks(rng, n, 400, 40)
        light = 0.7 * np.sin(2 * np.pi * 9 * y + 1.8 * warp) + 0.8 * _streaks(rng, n, 120, 1.5) + 0.2 * grain
        light = light - 2.5 * (np.abs((y * 4) % 1.0 - 0.5) > 0.485)
        hue = 0.6 * hue + 0.6 * _streaks(rng, n, 500, 30)
    elif kind == "gravel":
        first, second, owner = _cells(rng, n, 18)
        small, small2, owner_small = _cells(rng, n, 46)
        dome = np.sqrt(np.clip(1 - (first * 1.25) ** 2, 0, 1))
        gap = np.clip((second - first) * 5, 0, 1)
        light = 1.6 * (owner - 0.5) + 1.5 * gap * dome + 0.35 * np.clip((small2 - small) * 4, 0, 1) + 0.4 * grain
        light = light + 0.8 * np.gradient(dome, axis=0) * 12
        hue = 3.0 * (owner * 7.3 % 1.0 - 0.5) + 0.8 * (owner_small - 0.5)
    elif kind == "sand":
        light = 0.9 * grain + 0.6 * coarse + 0.5 * _fractal(rng, n, 0.0, low=100)
    elif kind == "grass":
        light = np.zeros((n, n))
        y0, x0 = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
        blades = _streaks(rng, n, 1.6, 46)
        for shear in (-0.7, -0.25, 0.2, 0.6):
            blades = np.maximum(blades, _streaks(rng, n, 1.6, 46)[y0, (x0 + (shear * y0).astype(int)) % n] - 0.2)
        light = 1.3 * blades + 0.5 * coarse
        hue = 0.6 * hue + 0.5 * blades
    elif kind == "water":
        warp = _fractal(rng, n, 1.8)
        y = np.arange(n)[:, None] / n * 2 * np.pi
        x = np.arange(n)[None, :] / n * 2 * np.pi
        ridge = 1 - np.abs(np.sin(7 * y + 2 * x + 1.4 * warp)) + 0.8 * (1 - np.abs(np.sin(5 * x - 3 * y + 1.7 * hue)))
        light = 1.4 * ridge**2 + 0.6 * coarse + 0.1 * grain
    elif kind == "concrete":
        first, _, _ = _cells(rng, n, 60)
        light = coarse + 0.7 * grain - 1.2 * (first < 0.16) * (_fractal(rng, n, 1.0) > 0.4)
    else:
        light = _fractal(rng, n, 1.3) + 0.3 * grain
    light = (light - light.mean()) / light.std()
    hue = (hue - hue.mean()) / hue.std()
    return light, hue, coarse, grain


def _skin(rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Blotches, medium noise, fine noise and spot distance of fish skin."""
    n = SKIN_SIZE
    blotch = _fractal(rng, n, 2.1, low=5, high=48)
    first, _, owner = _cells(rng, n, 22, jitter=0.33)
    spot = first * (0.8 + 0.5 * owner)
    return blotch, _fractal(rng, n, 1.0, low=20), _fractal(rng, n, 0.4, low=80), (spot - 0.45) * 2.5


def _levels(channels: tuple[Array, ...]) -> list[npt.NDArray[np.uint8]]:
    level = np.stack(channels, axis=-1)
    out = []
    for _ in range(TEXTURE_LEVELS):
        out.append(np.clip(np.rint(level * 36.0 + 128.0), 0, 255).astype(np.uint8))
        level = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2, 4).mean(axis=(1, 3))
    return out


@dataclass(frozen=True)
class Atlas:
    """All textures with all their levels as one list of texels.

    Attributes:
        texels: uint8 [N, 4]; value = (texel - 128) / 36, about zero mean and unit variance at the finest level.
        offsets: int64 [K, LEVELS], where each texture's level begins.
        sides: int64 [K, LEVELS], side of each level, a power of two.
        grain: float32 [3, 2 * SIZE, 2 * SIZE], white Gaussian noise for the sensor.
    """

    texels: torch.Tensor
    offsets: torch.Tensor
    sides: torch.Tensor
    grain: torch.Tensor


@lru_cache(maxsize=4)
def atlas(device: str) -> Atlas:
    """The textures on a device; equal on every machine up to rounding."""
    parts: list[npt.NDArray[np.uint8]] = []
    offsets, sides, total = [], [], 0
    for number, kind in enumerate(TEXTURE_KINDS):
        rng = np.random.default_rng(1000 + number)
        levels = _levels(_skin(rng) if kind == "skin" else _scene(kind, rng))
        row_offsets = []
        for level in levels:
            row_offsets.append(total)
            total += level.shape[0] ** 2
            parts.append(level.reshape(-1, 4))
        offsets.append(row_offsets)
        sides.append([level.shape[0] for level in levels])
    grain = np.random.default_rng(99).standard_normal((3, 2 * TEXTURE_SIZE, 2 * TEXTURE_SIZE), dtype=np.float32)
    return Atlas(
        torch.from_numpy(np.concatenate(parts)).to(device),
        torch.tensor(offsets, device=device),
        torch.tensor(sides, device=device),
        torch.from_numpy(grain).to(device),
    )
