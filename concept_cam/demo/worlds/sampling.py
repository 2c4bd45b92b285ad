"""Look-ups of the renderer: shape tables and textures, per picture and pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from concept_cam.demo.worlds.draws import Float
from concept_cam.demo.worlds.textures import TEXTURE_KINDS, TEXTURE_LEVELS, Atlas

_WRAP = 1 << 14


def column(values: Float, device: torch.device) -> torch.Tensor:
    """Per-picture numbers [b] as a tensor [b, 1, 1] that broadcasts over pixels."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device).view(-1, 1, 1)


def columns(arrays: dict[str, Float], rows: slice, device: torch.device) -> dict[str, torch.Tensor]:
    """`column` of the chosen rows of many per-picture numbers at once."""
    stacked = np.stack([values[rows] for values in arrays.values()]).astype(np.float32, copy=False)
    return dict(zip(arrays, torch.from_numpy(stacked).to(device)[:, :, None, None].unbind(0), strict=True))


def colours(arrays: dict[str, Float], rows: slice, device: torch.device) -> dict[str, torch.Tensor]:
    """`colour` of the chosen rows of many per-picture colours at once."""
    stacked = np.stack([values[rows] for values in arrays.values()]).astype(np.float32, copy=False)
    return dict(zip(arrays, torch.from_numpy(stacked).to(device)[..., None, None].unbind(0), strict=True))


def colour(values: Float, device: torch.device) -> torch.Tensor:
    """Per-picture colours [b, 3] as a tensor [b, 3, 1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)[:, :, None, None]


def lookup(table: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Entries of `table` [b, N] nearest to `place` [b, H, W] in [0, 1]; places outside take the end entries."""
    entries = table.shape[1]
    number = (place * (entries - 1) + 0.5).clamp_(0, entries - 1).to(torch.int64)
    return table.gather(1, number.flatten(1)).view_as(place)


@dataclass(frozen=True)
class Reading:
    """How pictures read a texture: rate [b, 1, 1] texels per unit, side and offset int32 [b, 1, 1] of the level read."""

    rate: torch.Tensor
    side: torch.Tensor
    offset: torch.Tensor


def reading(
    atlas: Atlas,
    kinds: npt.NDArray[np.int64],
    texels_per_unit: Float,
    pixels_per_unit: Float,
    device: torch.device,
) -> Reading:
    """Choose for every picture the level of detail whose texels are nearest to a pixel in size.

    Args:
        kinds: int64 [b], numbers in `TEXTURE_KINDS`.
        texels_per_unit: float32 [b], at the finest level.
        pixels_per_unit: float32 [b].
    """
    step = np.log2(np.maximum(texels_per_unit / pixels_per_unit, 1e-6))
    # Rather too smooth than too coarse: a texel smaller than a pixel flickers.
    level = np.clip(np.rint(step + 0.3), 0, TEXTURE_LEVELS - 1).astype(np.int64)
    where, kind = torch.from_numpy(level).to(device), torch.from_numpy(kinds).to(device)
    return Reading(
        column(texels_per_unit / 2.0**level, device),
        atlas.sides[kind, where].to(torch.int32).view(-1, 1, 1),
        atlas.offsets[kind, where].to(torch.int32).view(-1, 1, 1),
    )


def texture(texels: torch.Tensor, read: Reading, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Texture values at (x, y), float32 [b, H, W] each: float32 [4, b, H, W], about zero mean and unit variance."""
    # Adding a multiple of every side keeps the numbers positive, so that truncation is rounding down.
    ix = (x * read.rate + _WRAP).to(torch.int32) & (read.side - 1)
    iy = (y * read.rate + _WRAP).to(torch.int32) & (read.side - 1)
    texel = texels[(iy * read.side + ix + read.offset).flatten()]
    return texel.t().to(torch.float32).sub_(128.0).mul_(1 / 36.0).view(4, *x.shape)


def kind_numbers(names: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Numbers in `TEXTURE_KINDS` of texture names."""
    return np.array([TEXTURE_KINDS.index(str(name)) for name in names], dtype=np.int64)
