"""CLIP ResNets: a convolutional tower whose attention pooling is read patch by patch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from concept_cam.attention import ATTENTION, LastAttention, attend
from concept_cam.backbones.base import FeatureMap, ImageFeatures, Preprocess
from concept_cam.backbones.common import BaseBackbone, resize_positions
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import masked_mean, merge_heads, split_heads

ATTENTIONS: tuple[str, ...] = tuple(
    name
    for name, strategy in ATTENTION.items()
    # The pooling has neither residual connection nor feed-forward network, and there is no middle layer of tokens.
    if name == "vanilla"
    or not (strategy.residual or strategy.ffn or "middle" in strategy.needs or name == "qk")
)
"""Strategies that make sense in an attention pooling; ``vanilla`` lets every cell ask the pooling's attention."""


class OpenClipResNet(BaseBackbone):
    """Reads ``open_clip.modified_resnet.ModifiedResNet``; see :class:`concept_cam.backbones.base.Backbone`.

    Args:
        model: An open_clip model whose ``visual`` is such a tower.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        visual: Any = model.visual
        self._visual = visual
        super().__init__(
            model,
            name=name,
            family="open_clip-resnet",
            preprocess=preprocess,
            text=text,
            embed_dim=int(visual.attnpool.c_proj.out_features),
            attentions=ATTENTIONS,
        )

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """See :meth:`concept_cam.backbones.base.Backbone.encode_image`."""
        pixels = self._prepare(pixels)
        return self._visual(pixels) if self._is_native(pixels) else self.pool(FeatureMap(self._map(pixels)))

    @torch.no_grad()
    def encode_patches(
        self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None
    ) -> ImageFeatures:
        """See :meth:`concept_cam.backbones.base.Backbone.encode_patches`."""
        strategy = self._strategy(attention)
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        cells = self._map(pixels)
        height, width = cells.shape[2:]
        tokens, keys = self._tokens(cells, valid)
        pool, heads = self._visual.attnpool, self._visual.attnpool.num_heads
        key, value = split_heads(pool.k_proj(tokens), heads), split_heads(pool.v_proj(tokens), heads)
        every = "query" in strategy.needs
        query = split_heads(pool.q_proj(tokens if every else tokens[:, :1]), heads)
        scale = float(query.shape[-1]) ** -0.5
        rows = torch.arange(height, device=pixels.device).repeat_interleave(width)
        columns = torch.arange(width, device=pixels.device).repeat(height)
        context = strategy.read(
            LastAttention(
                query=query if every else None,
                key=key,
                value=value,
                prefix=1,
                scale=scale,
                positions=torch.stack([rows, columns], dim=-1)[None].float(),
                keys=keys,
                stream=tokens,
                normed=tokens,
            )
        )
        patches = pool.c_proj(merge_heads(context)).unflatten(1, (height, width))
        if valid is not None:
            patches = patches * valid[..., None]
        image = pool.c_proj(merge_heads(attend(query[:, :, :1], key, value, scale, keys)))[:, 0]
        return ImageFeatures(patches=patches, image=image)

    def feature_map(self, pixels: Tensor, valid: Tensor | None = None) -> FeatureMap:
        """See :meth:`concept_cam.backbones.base.Backbone.feature_map`."""
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        cells = self._map(pixels)
        return FeatureMap(cells if valid is None else cells * valid[:, None], valid=valid)

    def pool(self, features: FeatureMap) -> Tensor:
        """See :meth:`concept_cam.backbones.base.Backbone.pool`."""
        tokens, keys = self._tokens(features.map, features.valid)
        pool, heads = self._visual.attnpool, self._visual.attnpool.num_heads
        query = split_heads(pool.q_proj(tokens[:, :1]), heads)
        key, value = split_heads(pool.k_proj(tokens), heads), split_heads(pool.v_proj(tokens), heads)
        return pool.c_proj(merge_heads(attend(query, key, value, float(query.shape[-1]) ** -0.5, keys)))[:, 0]

    def _map(self, pixels: Tensor) -> Tensor:
        visual = self._visual
        x = visual.stem(pixels)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        return x

    def _tokens(self, cells: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns the pooling's tokens [B, 1 + N, K], mean first, and which of them are keys."""
        grid = (cells.shape[2], cells.shape[3])
        flat = cells.flatten(2).transpose(1, 2)
        flags = None if valid is None else valid.flatten(1)
        table = self._visual.attnpool.positional_embedding.to(flat.dtype)
        native = (
            self.preprocess.size[0] // self.preprocess.stride[0],
            self.preprocess.size[1] // self.preprocess.stride[1],
        )
        positions = torch.cat([table[:1], resize_positions(table[1:], native, grid)])
        tokens = torch.cat([masked_mean(flat, flags)[:, None], flat], dim=1) + positions
        return tokens, None if flags is None else torch.cat([flags.new_ones(len(flags), 1), flags], dim=1)
