"""Views of a picture whose patch features are averaged: what a feature says of its place should not depend on which way the fish faces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from concept_cam.backbones.base import ImageFeatures

__all__ = ["VIEWS", "mirrored", "single"]

Encode: TypeAlias = Callable[[Tensor, "Tensor | None"], ImageFeatures]
"""Pixels [B, 3, H, W] and valid cells bool [B, h, w] (``None``: all) to features."""


def single(encode: Encode, pixels: Tensor, valid: Tensor | None) -> ImageFeatures:
    """The picture as it is: one pass."""
    return encode(pixels, valid)


def mirrored(encode: Encode, pixels: Tensor, valid: Tensor | None) -> ImageFeatures:
    """Patch features averaged with those of the mirror image, turned back: two passes, and steadier maps.

    Left and right are not told apart in the result. The image embedding stays the model's own of the picture as it is.

    Args:
        encode: The image tower.
        pixels: [B, 3, H, W], preprocessed.
        valid: bool [B, h, w], False for padding; ``None``: all valid.
    """
    upright = encode(pixels, valid)
    turned = encode(pixels.flip(-1), None if valid is None else valid.flip(-1))
    return ImageFeatures(patches=(upright.patches + turned.patches.flip(2)) / 2, image=upright.image)


VIEWS: dict[str, Callable[[Encode, Tensor, Tensor | None], ImageFeatures]] = {
    "single": single,
    "mirrored": mirrored,
}
"""Ways to look at a picture, by name. ``"auto"`` stands for the checkpoint's choice, :attr:`.Preprocess.views`."""
