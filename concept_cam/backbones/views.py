"""Views of a picture whose patch features are averaged: what a feature says of its place should not depend on which way the fish faces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from concept_cam.backbones.protocol import ImageFeatures

__all__ = ["VIEWS", "View", "mirrored", "single"]

Encode: TypeAlias = Callable[[Tensor, "Tensor | None"], ImageFeatures]
"""Pixels [B, 3, H, W] and valid cells bool [B, h, w] (``None``: all) to features."""

View: TypeAlias = Callable[[Encode, Tensor, "Tensor | None", int], ImageFeatures]
"""The image tower, its two arguments, and how many columns of pixels its cells cover, to features."""


def single(encode: Encode, pixels: Tensor, valid: Tensor | None, width: int) -> ImageFeatures:
    """The picture as it is: one pass."""
    return encode(pixels, valid)


def mirrored(encode: Encode, pixels: Tensor, valid: Tensor | None, width: int) -> ImageFeatures:
    """Patch features averaged with those of the mirror image, turned back: two passes, and steadier maps.

    Left and right are not told apart in the result. The image embedding stays the model's own of the picture as it is.

    Args:
        encode: The image tower.
        pixels: [B, 3, H, W], preprocessed.
        valid: bool [B, h, w], False for padding; ``None``: all valid.
        width: Columns of pixels that the grid covers; those to the right of them, which the tower drops, are not turned.
    """
    upright = encode(pixels, valid)
    turned = torch.cat([pixels[..., :width].flip(-1), pixels[..., width:]], dim=-1)
    other = encode(turned, None if valid is None else valid.flip(-1))
    return ImageFeatures(patches=(upright.patches + other.patches.flip(2)) / 2, image=upright.image)


VIEWS: dict[str, View] = {"single": single, "mirrored": mirrored}
"""Ways to look at a picture, by name. ``"auto"`` stands for the checkpoint's choice, ``Preprocess.views``."""
