"""DINOv2 of the transformers library, with or without registers: an image tower without text, for linear classifier heads.

Finer-CAM's classifiers read the mean of the normed patch tokens (``pooling="mean"``); many others read the class token (``"cls"``).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from concept_cam.backbones.dino_tower import IMAGENET_MEAN, IMAGENET_STD, POOLINGS, DinoTower
from concept_cam.backbones.made import Made
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["POOLINGS", "Dinov2", "read"]

DINOV2_READ_SIZE = 224
"""Side at which the published classifiers read pictures."""

MODEL_TYPES = ("dinov2", "dinov2_with_registers")


class Dinov2(DinoTower):
    """Reads ``transformers.Dinov2Model`` and ``Dinov2WithRegistersModel``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model, in evaluation mode.
        name: Name of the model.
        pooling: ``"mean"`` of the normed patch tokens, or ``"cls"``.

    Raises:
        ConfigurationError: Unknown pooling.
        UnsupportedModelError: Not a ``Dinov2Model``.
    """

    def __init__(self, model: nn.Module, *, name: str = "dinov2", pooling: str = "mean") -> None:
        any_model: Any = model
        config: Any = getattr(any_model, "config", None)
        if getattr(config, "model_type", None) not in MODEL_TYPES or not hasattr(any_model, "layernorm"):
            raise UnsupportedModelError(
                f"expected a transformers Dinov2Model, received {type(model).__name__} (take the `.dinov2` of a classifier)."
            )
        patch = int(config.patch_size)
        side = DINOV2_READ_SIZE if int(config.image_size) > DINOV2_READ_SIZE and DINOV2_READ_SIZE % patch == 0 else int(config.image_size)
        super().__init__(
            model,
            layers=list(any_model.encoder.layer),
            norm=any_model.layernorm,
            heads=int(config.num_attention_heads),
            prefix=1 + int(getattr(config, "num_register_tokens", 0)),
            width=int(config.hidden_size),
            name=name,
            family="dinov2",
            preprocess=Preprocess((side, side), (patch, patch), IMAGENET_MEAN, IMAGENET_STD),
            pooling=pooling,
        )


def read(made: Made) -> Dinov2:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    backbone = Dinov2(made.model, name=made.name, pooling=made.options.get("pooling", "mean"))
    size, stride = backbone.preprocess.size, backbone.preprocess.stride
    backbone.preprocess = made.preprocess(size, stride, usual={"mean": IMAGENET_MEAN, "std": IMAGENET_STD})
    return backbone
