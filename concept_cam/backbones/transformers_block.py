"""Blocks of the transformers library's plain image towers: ViT and DeiT, and those laid out as DINOv2's."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from concept_cam.backbones.tokens import Block, merge_heads, rotate, split_heads
from concept_cam.core.errors import UnsupportedModelError

__all__ = ["DinoBlock", "TransformersBlock"]


class TransformersBlock(Block):
    """The attention of an encoder layer, with the module names of transformers 4 and 5; norms and feed-forward are the families' own.

    Args:
        layer: The encoder layer.
        heads: Number of attention heads.

    Raises:
        UnsupportedModelError: The attention is not made of the parts known here.
    """

    family = "transformers model"

    def __init__(self, layer: nn.Module, heads: int) -> None:
        self._layer: Any = layer
        self._heads = heads
        inner: Any = self._layer.attention
        if hasattr(inner, "q_proj"):
            self._projections = {letter: getattr(inner, f"{letter}_proj") for letter in "qkv"}
            self._out: Any = inner.o_proj
        elif hasattr(inner, "attention"):
            names = {"q": "query", "k": "key", "v": "value"}
            self._projections = {letter: getattr(inner.attention, name) for letter, name in names.items()}
            self._out = inner.output.dense
        else:
            raise UnsupportedModelError(
                f"the attention of this {self.family} is not made of the parts known here; report the version of transformers."
            )
        self.scale = (self._projections["q"].out_features // heads) ** -0.5

    def project(self, normed: Tensor, which: str, rope: Tensor | None = None) -> tuple[Tensor, ...]:
        parts = (split_heads(self._projections[letter](normed), self._heads) for letter in which)
        if rope is None:
            return tuple(parts)
        return tuple(part if letter == "v" else rotate(part, rope, half=True) for letter, part in zip(which, parts))

    def output(self, context: Tensor) -> Tensor:
        projected: Tensor = self._out(merge_heads(context))
        return projected


class DinoBlock(TransformersBlock):
    """An encoder layer of ``Dinov2Model`` and of the towers built like it: layer scale after each half."""

    family = "transformers model with DINOv2's layers"

    def norm(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._layer.norm1(x))

    def output(self, context: Tensor) -> Tensor:
        return cast("Tensor", self._layer.layer_scale1(super().output(context)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._layer.layer_scale2(self._layer.mlp(self._layer.norm2(x))))
