"""C-RADIO of the transformers library: an image tower without text that was distilled from several, for heads and for refinement.

Its summary joins class tokens that were taught by different towers, a space in which a patch has no place; the mean of the patch tokens is
read as the image embedding. The pixels are normalised within the model.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from concept_cam.backbones.dino_tower import DinoTower
from concept_cam.backbones.made import Made
from concept_cam.backbones.tokens import Embedded
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["Radio", "read"]


class Radio(DinoTower):
    """Reads ``transformers.RadioModel``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model, in evaluation mode.
        name: Name of the model.
        preprocess: What the input must look like.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess) -> None:
        any_model: Any = model
        config = any_model.config
        super().__init__(
            model,
            layers=list(any_model.encoder.layer),
            norm=nn.Identity(),
            heads=int(config.num_attention_heads),
            prefix=int(config.num_cls_tokens) + int(config.num_registers),
            width=int(config.hidden_size),
            name=name,
            family="radio",
            preprocess=preprocess,
            pooling="mean",
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        # The position table is a large one, of which a part is cut out for each size, by the model's own code.
        return Embedded(self._tower.embeddings(self._tower.input_conditioner(pixels)), self.grid_of(pixels))

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self._tower(pixels).features.mean(dim=1))


def read(made: Made) -> Radio:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`.

    Raises:
        UnsupportedModelError: Its class tokens are asked for.
    """
    if made.options.get("pooling", "mean") != "mean":
        raise UnsupportedModelError(
            f"{made.name}: the summary of C-RADIO joins class tokens of different teachers, a space without patches; read its mean patch "
            "(radio:ID)"
        )
    config: Any = made.model.config
    usual = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "resize_mode": "squash"}
    return Radio(made.model, name=made.name, preprocess=made.preprocess(int(config.image_size), int(config.patch_size), usual=usual))
