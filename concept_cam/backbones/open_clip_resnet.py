"""CLIP ResNets: a convolutional tower whose attention pooling is read patch by patch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.attention import ATTENTION, LastAttention, attend
from concept_cam.backbones.base import FeatureMap, ImageFeatures, Preprocess
from concept_cam.backbones.common import BaseBackbone, resize_positions
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import masked_mean, merge_heads, split_heads
from concept_cam.types import ConfigurationError

ATTENTIONS: tuple[str, ...] = tuple(
    name
    for name, strategy in ATTENTION.items()
    # The pooling has neither residual connection nor feed-forward network, and there is no middle layer of tokens.
    if name == "vanilla"
    or not (strategy.residual or strategy.ffn or "middle" in strategy.needs or name == "qk")
)
"""Strategies that make sense in an attention pooling; ``vanilla`` lets every cell ask the pooling's attention."""


STRIDES = (32, 16)
"""Model pixels per cell at which the last map can be read: as trained, or twice as fine."""


class OpenClipResNet(BaseBackbone):
    """Reads ``open_clip.modified_resnet.ModifiedResNet``; see :class:`concept_cam.backbones.base.Backbone`.

    At stride 16 the last stage runs without its subsampling, its later 3 x 3 convolutions dilated (the "a trous" reading; Chen et al.,
    DeepLab, TPAMI 2018): every second row and column then holds exactly what stride 32 computes, the others hold what it would compute for
    the picture shifted by half a cell. The map before it is extended by half a cell on every side, so that cells tile the input evenly. The
    image embedding is made from the stock map at either stride.

    Args:
        model: An open_clip model whose ``visual`` is such a tower.
        name: Name of the model.
        preprocess: What the input must look like; its stride, 32 or 16, says how finely the map is read.
        text: The text tower.

    Raises:
        ConfigurationError: Another stride.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        visual: Any = model.visual
        self._visual = visual
        if preprocess.stride not in [(stride, stride) for stride in STRIDES]:
            raise ConfigurationError(
                f"{name}: a CLIP ResNet is read at stride 32 or 16, received {preprocess.stride}."
            )
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
        if self._is_native(pixels):
            return self._visual(pixels)
        return self._pool(self._visual.layer4(self._visual.layer3(self._early(pixels))), None)

    @torch.no_grad()
    def encode_patches(
        self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None
    ) -> ImageFeatures:
        """See :meth:`concept_cam.backbones.base.Backbone.encode_patches`."""
        strategy = self._strategy(attention)
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        early = self._early(pixels)
        cells = self._cells(early)
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
        if self._fine:
            image = self._pool(self._visual.layer4(self._visual.layer3(early)), _coarse(valid))
        else:
            image = pool.c_proj(merge_heads(attend(query[:, :, :1], key, value, scale, keys)))[:, 0]
        return ImageFeatures(patches=patches, image=image)

    def feature_map(self, pixels: Tensor, valid: Tensor | None = None) -> FeatureMap:
        """See :meth:`concept_cam.backbones.base.Backbone.feature_map`."""
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        cells = self._cells(self._early(pixels))
        return FeatureMap(cells if valid is None else cells * valid[:, None], valid=valid)

    def pool(self, features: FeatureMap) -> Tensor:
        """See :meth:`concept_cam.backbones.base.Backbone.pool`."""
        return self._pool(features.map, features.valid)

    @property
    def _fine(self) -> bool:
        return self.preprocess.stride == (16, 16)

    def _pool(self, cells: Tensor, valid: Tensor | None) -> Tensor:
        """The attention pooling on a map [B, K, h, w] of any size -> [B, D]."""
        tokens, keys = self._tokens(cells, valid)
        pool, heads = self._visual.attnpool, self._visual.attnpool.num_heads
        query = split_heads(pool.q_proj(tokens[:, :1]), heads)
        key, value = split_heads(pool.k_proj(tokens), heads), split_heads(pool.v_proj(tokens), heads)
        return pool.c_proj(merge_heads(attend(query, key, value, float(query.shape[-1]) ** -0.5, keys)))[:, 0]

    def _early(self, pixels: Tensor) -> Tensor:
        """The stages whose stride is never changed: [B, 3, H, W] -> [B, K', H / 8, W / 8]."""
        visual = self._visual
        return visual.layer2(visual.layer1(visual.stem(pixels)))

    def _cells(self, early: Tensor) -> Tensor:
        """The last two stages at the stride of ``preprocess``."""
        visual = self._visual
        if not self._fine:
            return visual.layer4(visual.layer3(early))
        # One cell of 8 pixels on every side is half a cell of the fine map: its cells then tile the input.
        cells = visual.layer3(F.pad(early, (1, 1, 1, 1), mode="replicate"))
        first, *others = visual.layer4
        cells = _without_subsampling(first, cells)
        for block in others:
            cells = _dilated(block, cells)
        return cells

    def _tokens(self, cells: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns the pooling's tokens [B, 1 + N, K], mean first, and which of them are keys."""
        grid = (cells.shape[2], cells.shape[3])
        flat = cells.flatten(2).transpose(1, 2)
        flags = None if valid is None else valid.flatten(1)
        table = self._visual.attnpool.positional_embedding.to(flat.dtype)
        native = (self.preprocess.size[0] // 32, self.preprocess.size[1] // 32)
        positions = torch.cat([table[:1], resize_positions(table[1:], native, grid)])
        tokens = torch.cat([masked_mean(flat, flags)[:, None], flat], dim=1) + positions
        return tokens, None if flags is None else torch.cat([flags.new_ones(len(flags), 1), flags], dim=1)


def _without_subsampling(block: Any, x: Tensor) -> Tensor:
    """The first block of a stage with its average pooling at stride 1: one row and column fewer than it receives."""
    out = block.act1(block.bn1(block.conv1(x)))
    out = block.act2(block.bn2(block.conv2(out)))
    out = block.bn3(block.conv3(F.avg_pool2d(out, 2, stride=1)))
    _, convolution, norm = block.downsample
    return block.act3(out + norm(convolution(F.avg_pool2d(x, 2, stride=1))))


def _dilated(block: Any, x: Tensor) -> Tensor:
    """A later block of that stage: its 3 x 3 convolution reaches as far as it did on the subsampled map."""
    out = block.act1(block.bn1(block.conv1(x)))
    out = F.conv2d(out, block.conv2.weight, padding=2, dilation=2)
    out = block.act2(block.bn2(out))
    return block.act3(block.bn3(block.conv3(out)) + x)


def _coarse(valid: Tensor | None) -> Tensor | None:
    """Which stock cells show any of the picture, from twice as fine ones; bool [B, h, w] -> [B, h // 2, w // 2]."""
    if valid is None:
        return None
    return F.max_pool2d(valid.float()[:, None], 2)[:, 0].bool()
