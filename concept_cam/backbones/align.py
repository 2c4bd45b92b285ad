"""ALIGN of the transformers library: an EfficientNet whose last map is averaged; each cell of it lies in the joint space as it is."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from concept_cam.backbones.made import Made, pair
from concept_cam.backbones.spatial import SpatialBackbone
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.transformers_clip import pooled
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["Align", "read"]

STRIDE = 32
PUBLISHED_SIZE = 289
"""Side of the pictures that the published weights were trained on; their configuration names that of the EfficientNet."""


class Align(SpatialBackbone):
    """Reads ``transformers.AlignModel``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model, in evaluation mode.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.

    Raises:
        UnsupportedModelError: The map is not averaged.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        any_model: Any = model
        self._vision = any_model.vision_model
        if any_model.config.vision_config.pooling_type != "mean":
            pooling = any_model.config.vision_config.pooling_type
            raise UnsupportedModelError(f"{name}: this ALIGN pools its map by {pooling!r}, so a cell alone has no embedding.")
        super().__init__(
            model,
            name=name,
            family="align",
            preprocess=preprocess,
            text=text,
            embed_dim=int(any_model.config.projection_dim),
            attentions=("vanilla",),
        )

    def cells(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self._vision(pixels).last_hidden_state)

    def head(self, pooled: Tensor) -> Tensor:
        return pooled

    def own_embedding(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        return pooled(model.get_image_features(pixel_values=pixels))


def read(made: Made) -> Align:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    usual = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    size = made.config.get("size") or PUBLISHED_SIZE
    return Align(made.model, name=made.name, preprocess=made.preprocess(pair(size), STRIDE, usual=usual), text=made.words)
