"""DINOv2 of the transformers library: an image tower without text, for linear classifier heads.

It has no joint space with words: ``D`` is the tower's width, and every text method raises. Finer-CAM's classifiers read the mean of the
normed patch tokens (``pooling="mean"``); many others read the class token (``pooling="cls"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, cast

from torch import Tensor, nn

from concept_cam.backbones.made import Made
from concept_cam.backbones.tokens import ALL_ATTENTIONS, Embedded, TokenBackbone, masked_mean
from concept_cam.backbones.transformers_block import TransformersBlock
from concept_cam.core.errors import ConfigurationError, UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["POOLINGS", "Dinov2", "read"]

POOLINGS = ("mean", "cls")
"""How patch and class tokens become the image embedding."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Pixel statistics of DINOv2's training."""

DINOV2_READ_SIZE = 224
"""Side at which the published classifiers read pictures."""


class Dinov2Block(TransformersBlock):
    """An encoder layer of ``Dinov2Model``: layer scale after each half."""

    family = "DINOv2 model"

    def norm(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._layer.norm1(x))

    def output(self, context: Tensor) -> Tensor:
        return cast("Tensor", self._layer.layer_scale1(super().output(context)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._layer.layer_scale2(self._layer.mlp(self._layer.norm2(x))))


class Dinov2(TokenBackbone):
    """Reads ``transformers.Dinov2Model``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model, in evaluation mode.
        name: Name of the model.
        pooling: ``"mean"`` of the normed patch tokens, or ``"cls"``.

    Raises:
        ConfigurationError: Unknown pooling.
        UnsupportedModelError: Not a ``Dinov2Model``.
    """

    prefix = 1

    def __init__(self, model: nn.Module, *, name: str = "dinov2", pooling: str = "mean") -> None:
        if pooling not in POOLINGS:
            raise ConfigurationError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}.")
        any_model: Any = model
        config = getattr(any_model, "config", None)
        if getattr(config, "model_type", None) != "dinov2" or not hasattr(any_model, "layernorm"):
            raise UnsupportedModelError(
                f"expected a transformers Dinov2Model, received {type(model).__name__} (take the `.dinov2` of a classifier)."
            )
        assert config is not None
        patch = int(config.patch_size)
        side = DINOV2_READ_SIZE if int(config.image_size) > DINOV2_READ_SIZE and DINOV2_READ_SIZE % patch == 0 else int(config.image_size)
        self.model = model
        self.name = name
        self.family = "dinov2"
        self.class_token = pooling == "cls"
        self.blocks = [Dinov2Block(layer, int(config.num_attention_heads)) for layer in any_model.encoder.layer]
        self.preprocess = Preprocess((side, side), (patch, patch), MEAN, STD)
        self.embed_dim = int(config.hidden_size)
        self.attentions = ALL_ATTENTIONS
        self.default_attention = "kk" if self.class_token else "vanilla"
        self.context_length = 0
        self.logit_scale, self.logit_bias = 1.0, None
        self._tower: Any = any_model
        self._require_eval()

    def _no_text(self) -> NoReturn:
        raise UnsupportedModelError(
            f"{self.name} has no text tower: DINOv2 cannot be asked in words. Use it with a classifier head "
            "(concept_cam.methods.heads.FinerCam), or choose an image-text model."
        )

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Raises UnsupportedModelError: there is no text tower."""
        self._no_text()

    def count_tokens(self, prompt: str) -> int:
        """Raises UnsupportedModelError: there is no text tower."""
        self._no_text()

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Raises UnsupportedModelError: there is no text tower."""
        self._no_text()

    def embed(self, pixels: Tensor) -> Embedded:
        rows, columns = self.preprocess.stride
        grid = (pixels.shape[2] // rows, pixels.shape[3] // columns)
        return Embedded(self._tower.embeddings(pixels), grid)

    def project_patches(self, patches: Tensor) -> Tensor:
        return cast("Tensor", self._tower.layernorm(patches))

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._tower.layernorm(tokens))

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        if self.class_token:
            return settled[:, 0]
        return masked_mean(settled[:, 1:], None if keys is None else keys[:, 1:])

    def own_embedding(self, pixels: Tensor) -> Tensor:
        tokens = self._tower(pixels).last_hidden_state
        return cast("Tensor", tokens[:, 0] if self.class_token else tokens[:, 1:].mean(dim=1))


def read(made: Made) -> Dinov2:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    backbone = Dinov2(made.model, name=made.name, pooling=made.options.get("pooling", "mean"))
    size, stride = backbone.preprocess.size, backbone.preprocess.stride
    backbone.preprocess = made.preprocess(size, stride, usual={"mean": MEAN, "std": STD})
    return backbone
