"""Changes to rendered pictures that leave their truth as it is, or make known what can no longer be told; all on the device of the
pictures.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from training.pictures import Pictures


def target_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Rows and columns at which a batch rendered at `size` is read: multiples of 32 pixels."""
    return max(32, round(size[0] * factor / 32) * 32), max(32, round(size[1] * factor / 32) * 32)


def augment(pictures: Pictures, size: tuple[int, int], generator: torch.Generator, distorted: float) -> tuple[Pictures, Tensor, Tensor]:
    """Mirrors, sizes, light, colour, blur and noise.

    Args:
        pictures: Rendered pictures.
        size: `(H, W)` of the result.
        generator: Random numbers, of the device of the pictures.
        distorted: Share of the pictures whose colours are made false; see `distort_colours`.

    Returns:
        The pictures (cover and changes turned with them, images as they were), float32 [B, 3, H, W] of values 0..1, and bool [B], whose
        colours are false.
    """
    device, count = pictures.images.device, len(pictures)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(count, channels, 1, 1, generator=generator, device=device) * (high - low) + low

    # Twins are turned together, so that they still differ in their change alone.
    pair = torch.minimum(torch.arange(count, device=device), pictures.twin)
    turned = torch.rand(count, generator=generator, device=device)[pair, None, None, None] < 0.5
    upside = torch.rand(count, generator=generator, device=device)[pair, None, None, None] < 0.1
    x, cover, differs = pictures.images, pictures.cover, pictures.changed[:, None]
    for chosen, axis in ((turned, -1), (upside, -2)):
        x, cover, differs = (torch.where(chosen, each.flip(axis), each) for each in (x, cover, differs))
    x = x.float() / 255.0
    if tuple(size) != tuple(x.shape[-2:]):
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    x = (x - 0.5) * draw(0.75, 1.25) + 0.5 + draw(-0.12, 0.12)
    x = (x * draw(0.9, 1.1, 3)).clamp(0.0, 1.0)
    x, false_colour = distort_colours(x, distorted, generator)
    soft = F.interpolate(F.avg_pool2d(x, 2), size=size, mode="bilinear", align_corners=False)
    # From a third more contrast at edges to as soft as half the size.
    x = torch.lerp(x, soft, draw(-0.35, 0.9))
    x = x + torch.randn(x.shape, generator=generator, device=device) * draw(0.0, 0.04)
    return replace(pictures, cover=cover, changed=differs[:, 0]), x.clamp(0.0, 1.0), false_colour


def distort_colours(x: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Gives some pictures colours, light and texture that no camera would: what is left to learn from is shape.

    Colours are mixed by a random matrix, tones bent, a random small filter is mixed in (Xu et al., "Robust and Generalizable Visual
    Representation Learning via Random Convolutions", ICLR 2021), uneven light and patches of glare are laid over.

    Args:
        x: float32 [B, 3, H, W], values 0..1.
        share: How many of the pictures.
        generator: Random numbers, of the device of `x`.

    Returns:
        The pictures, and bool [B], whose colours are false.
    """
    count, device, size = len(x), x.device, x.shape[-2:]

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *(shape or (1, 1, 1)), generator=generator, device=device) * (high - low) + low

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator, device=device)

    # Everything is drawn for every picture, so that what one becomes does not depend on which others were chosen.
    chosen = draw(0, 1)[:, 0, 0, 0] < share
    one = torch.eye(3, device=device)
    mixing = one + torch.where(draw(0, 1, 1, 1) < 0.3, 1 / 3 - one, normal(3, 3) * draw(0.0, 0.6, 1, 1))
    mixing = mixing / mixing.sum(2, keepdim=True).clamp(min=0.4)
    kernels = normal(3, 3, 5, 5)
    small = F.pad(torch.ones(1, 1, 1, 3, 3, device=device), (1, 1, 1, 1))
    narrow = draw(0, 1, 1, 1, 1, 1) < 0.5
    kernels = torch.where(narrow, kernels * small / (3 * 3**0.5), kernels / (5 * 3**0.5))
    filtering, tone = draw(-0.3, 0.5), draw(0.6, 1.7)
    light = normal(3, 4, 4) * torch.tensor([0.25, 0.08, 0.08], device=device).view(1, 3, 1, 1)
    light = torch.cat([light[:, :1], light[:, 1:] + light[:, :1]], 1)
    glare = (normal(1, 24, 24) - draw(1.2, 3.5)).clamp(0, 1)
    if not chosen.any():
        return x, chosen
    mixing, kernels, filtering, tone, light, glare = (each[chosen] for each in (mixing, kernels, filtering, tone, light, glare))
    y = torch.einsum("bij,bjhw->bihw", mixing, x[chosen])
    filtered = F.conv2d((y - 0.5).reshape(1, -1, *size), kernels.reshape(-1, 3, 5, 5), padding=2, groups=len(y)).view_as(y) + 0.5
    y = torch.lerp(y, filtered, filtering).clamp(1e-4, 1.0) ** tone
    y = y * F.interpolate(light.exp(), size=size, mode="bicubic", align_corners=False)
    y = y + F.interpolate(glare, size=size, mode="bilinear", align_corners=False) * 0.8
    result = x.clone()
    result[chosen] = y.clamp(0.0, 1.0)
    return result, chosen
