"""DINOv3 of the transformers library, vision transformers and ConvNeXts: image towers without text, for heads and for refinement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from concept_cam.backbones.common import BaseBackbone
from concept_cam.backbones.dino_tower import IMAGENET_MEAN, IMAGENET_STD, DinoTower
from concept_cam.backbones.made import Made, pair
from concept_cam.backbones.spatial import SpatialBackbone
from concept_cam.backbones.text import NoText
from concept_cam.backbones.tokens import Embedded
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["Dinov3", "Dinov3ConvNext", "read"]

CONVNEXT_STRIDE = 32
USUAL = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bilinear", "resize_mode": "squash"}


class Dinov3(DinoTower):
    """Reads ``transformers.DINOv3ViTModel``, whose places are rotary embeddings; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model, in evaluation mode.
        name: Name of the model.
        preprocess: What the input must look like.
        pooling: ``"mean"`` of the normed patch tokens, or ``"cls"``.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, pooling: str = "mean") -> None:
        any_model: Any = model
        config = any_model.config
        # The layers stood in the model itself before transformers 5.
        layers = any_model.model.layer if hasattr(any_model, "model") else any_model.layer
        super().__init__(
            model,
            layers=list(layers),
            norm=any_model.norm,
            heads=int(config.num_attention_heads),
            prefix=1 + int(config.num_register_tokens),
            width=int(config.hidden_size),
            name=name,
            family="dinov3",
            preprocess=preprocess,
            pooling=pooling,
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        grid = self.grid_of(pixels)
        return Embedded(self._tower.embeddings(pixels), grid, self.rope(grid))

    def rope(self, grid: tuple[int, int]) -> Tensor:
        """The model's own rotary embedding of a grid, sine and cosine side by side."""
        rows, columns = self.preprocess.stride
        # It looks at the shape and type of the pixels alone; these take no memory.
        pixels = torch.empty((), device=self.device, dtype=self.dtype).expand(1, 1, grid[0] * rows, grid[1] * columns)
        cosine, sine = self._tower.rope_embeddings(pixels)
        return torch.cat([sine, cosine], dim=-1)


class Dinov3ConvNext(SpatialBackbone):
    """Reads ``transformers.DINOv3ConvNextModel``: its embedding is the norm of the mean over the last map.

    Args:
        model: The model, in evaluation mode.
        name: Name of the model.
        preprocess: What the input must look like.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess) -> None:
        any_model: Any = model
        self._tower = any_model
        super().__init__(
            model,
            name=name,
            family="dinov3",
            preprocess=preprocess,
            text=NoText(name),
            embed_dim=int(any_model.config.hidden_sizes[-1]),
            attentions=("vanilla",),
        )

    def cells(self, pixels: Tensor) -> Tensor:
        body = self._tower.model if hasattr(self._tower, "model") else self._tower
        x = pixels
        for stage in body.stages:
            x = stage(x)
        return x

    def head(self, pooled: Tensor) -> Tensor:
        return cast("Tensor", self._tower.layer_norm(pooled))

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self._tower(pixels).pooler_output)


def _vit(made: Made) -> BaseBackbone:
    config: Any = made.model.config
    preprocess = made.preprocess(pair(config.image_size), pair(config.patch_size), usual=USUAL)
    return Dinov3(made.model, name=made.name, preprocess=preprocess, pooling=made.options.get("pooling", "mean"))


def _convnext(made: Made) -> BaseBackbone:
    if made.options.get("pooling", "mean") != "mean":
        raise UnsupportedModelError(f"{made.name}: a ConvNeXt has no class token; its embedding is the mean (dinov3:ID).")
    config: Any = made.model.config
    preprocess = made.preprocess(pair(config.image_size), CONVNEXT_STRIDE, usual=USUAL)
    return Dinov3ConvNext(made.model, name=made.name, preprocess=preprocess)


READERS: dict[str, Callable[[Made], BaseBackbone]] = {"dinov3_vit": _vit, "dinov3_convnext": _convnext}
"""Model type -> what reads it."""


def read(made: Made) -> BaseBackbone:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    model: Any = made.model
    return READERS[model.config.model_type](made)
