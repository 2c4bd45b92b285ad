"""Networks of timm without a last layer, image towers for heads and for refinement: PE-Spatial, DINOv3, C-RADIO, DINOv2, TIPSv2 ...

They have no text tower; the image embedding is what timm's own pooling makes of the last tokens, or of the last map.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from concept_cam.backbones.cnn_classifier import CnnFeatures, cut_network
from concept_cam.backbones.made import Made
from concept_cam.backbones.text import NoText
from concept_cam.backbones.timm_vit import TRUNKS, TimmViT
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["TimmFeatures", "is_feature_tower", "read"]


class TimmFeatures(TimmViT):
    """Reads timm's ``VisionTransformer`` or ``Eva`` without a last layer; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The network, in evaluation mode.
        name: Name of the model.
        preprocess: What the input must look like.
    """

    own_family = "timm-features"

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess) -> None:
        any_model: Any = model
        super().__init__(model, name=name, preprocess=preprocess, text=NoText(name), embed_dim=int(any_model.num_features))
        if self.class_token:
            self.default_attention = "kk"

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self._trunk(pixels))


def is_feature_tower(model: Any) -> bool:
    """Tells whether a network is one of timm without a last layer."""
    return callable(getattr(model, "get_classifier", None)) and isinstance(model.get_classifier(), nn.Identity)


def read(made: Made) -> TimmFeatures | CnnFeatures:
    """Reads a loaded network; see :class:`concept_cam.backbones.Family`. Its options hold how its input must look, ``preprocess``.

    Raises:
        UnsupportedModelError: No spatial map can be read from it.
    """
    model: Any = made.model
    kind = type(model).__name__
    if kind in TRUNKS:
        return TimmFeatures(model, name=made.name, preprocess=made.options["patches"])
    if hasattr(model, "num_prefix_tokens"):
        hint = " Use the 'vit_' form of the same weights." if kind == "NaFlexVit" else ""
        raise UnsupportedModelError(f"{made.name}: no spatial map can be read from the timm tower {kind}.{hint}")
    expected: Preprocess = made.options["preprocess"]
    cut, stride = cut_network(model, expected.size, made.name)
    return CnnFeatures(model, cut, name=made.name, family="timm-features", preprocess=expected, stride=stride)
