"""Vision transformers of the transformers library that are laid out as DINOv2: class token, registers, patches; layer scales; a last norm.

DINOv2, DINOv3, C-RADIO and TIPSv2 share these parts. Without a text tower they have no joint space with words: ``D`` is the tower's width,
and every text method says what can be done instead. Such towers serve classifier heads, and affinities for refinement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from concept_cam.backbones.text import NoText, TextEncoder
from concept_cam.backbones.tokens import ALL_ATTENTIONS, Embedded, TokenBackbone, masked_mean
from concept_cam.backbones.transformers_block import DinoBlock
from concept_cam.core.errors import ConfigurationError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "POOLINGS", "DinoTower"]

POOLINGS = ("mean", "cls")
"""How patch and class tokens become the image embedding of a tower without words."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Pixel statistics of the training of DINOv2 and DINOv3."""


class DinoTower(TokenBackbone):
    """Reads such a tower; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The whole model, in evaluation mode.
        layers: Its encoder layers.
        norm: What follows the last layer.
        heads: Number of attention heads.
        prefix: Tokens before the patches.
        width: Width of the tokens, ``D``.
        name: Name of the model.
        family: Key of :data:`~concept_cam.backbones.FAMILIES`.
        preprocess: What the input must look like.
        pooling: ``"mean"`` of the normed patch tokens, or ``"cls"``, the first token.
        text: Its text tower; ``None`` for towers without words.

    Raises:
        ConfigurationError: Unknown pooling.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[nn.Module],
        norm: nn.Module,
        heads: int,
        prefix: int,
        width: int,
        name: str,
        family: str,
        preprocess: Preprocess,
        pooling: str,
        text: TextEncoder | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ConfigurationError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}.")
        self._tower: Any = model
        self._norm: Any = norm
        self.prefix = prefix
        self.class_token = pooling == "cls"
        self.blocks = [DinoBlock(layer, heads) for layer in layers]
        super().__init__(
            model,
            name=name,
            family=family,
            preprocess=preprocess,
            text=NoText(name) if text is None else text,
            embed_dim=width,
            attentions=ALL_ATTENTIONS,
        )
        if text is None:
            # The class token gathers; the mean reads the patches as they are.
            self.default_attention = "kk" if self.class_token else "vanilla"

    def grid_of(self, pixels: Tensor) -> tuple[int, int]:
        """Returns the ``(h, w)`` cells of a batch."""
        rows, columns = self.preprocess.stride
        return pixels.shape[2] // rows, pixels.shape[3] // columns

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        return Embedded(self._tower.embeddings(pixels), self.grid_of(pixels))

    def project_patches(self, patches: Tensor) -> Tensor:
        return cast("Tensor", self._norm(patches))

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._norm(tokens))

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        if self.class_token:
            return settled[:, 0]
        return masked_mean(settled[:, self.prefix :], None if keys is None else keys[:, self.prefix :])

    def own_embedding_at(self, pixels: Tensor) -> Tensor | None:
        return self.own_embedding(pixels)

    def own_embedding(self, pixels: Tensor) -> Tensor:
        tokens = self._tower(pixels).last_hidden_state
        return cast("Tensor", tokens[:, 0] if self.class_token else tokens[:, self.prefix :].mean(dim=1))
