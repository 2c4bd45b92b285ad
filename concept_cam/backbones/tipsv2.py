"""TIPSv2 of the transformers library: trained so that its patch tokens, as they are, lie where the texts that name them lie.

The first class token was taught by captions of the web and is the image embedding, as in the library; the second, among the registers, by
written descriptions. Texts are the mean over their tokens, padding left out. Paper: arXiv 2604.12012.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from concept_cam.backbones.dino_tower import DinoTower
from concept_cam.backbones.made import Made, pair
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import Embedded
from concept_cam.backbones.transformers_clip import pooled
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["Tipsv2", "read"]


class Tipsv2(DinoTower):
    """Reads ``transformers.Tipsv2Model``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model, in evaluation mode.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        any_model: Any = model
        self._vision = any_model.vision_model
        config = self._vision.config
        super().__init__(
            model,
            layers=list(self._vision.encoder.layer),
            norm=self._vision.layernorm,
            heads=int(config.num_attention_heads),
            prefix=1 + int(config.num_register_tokens),
            width=int(config.hidden_size),
            name=name,
            family="tipsv2",
            preprocess=preprocess,
            pooling="cls",
            text=text,
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        return Embedded(self._vision.embeddings(pixels), self.grid_of(pixels))

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return pooled(self._tower.get_image_features(pixel_values=pixels))


def read(made: Made) -> Tipsv2:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    vision: Any = made.model.config.vision_config  # type: ignore[union-attr]
    usual = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    preprocess = made.preprocess(pair(vision.image_size), pair(vision.patch_size), usual=usual)
    return Tipsv2(made.model, name=made.name, preprocess=preprocess, text=made.words)
