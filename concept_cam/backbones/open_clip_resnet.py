"""CLIP ResNets: a convolutional tower whose attention pooling is read patch by patch."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.common import BaseBackbone, resize_positions
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import BY_POOLING, FeatureMap, Gathering, ImageFeatures
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import masked_mean, merge_heads, split_heads
from concept_cam.core.attention import ATTENTION_STRATEGIES, LastAttention, attend
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.quiet import quiet
from concept_cam.pictures.preprocessing import Preprocess

ATTENTIONS: tuple[str, ...] = tuple(
    name
    for name, strategy in ATTENTION_STRATEGIES.items()
    # The pooling has neither residual connection nor feed-forward network, and there is no middle layer of tokens.
    if name == "vanilla" or not (strategy.residual or strategy.ffn or "middle" in strategy.needs or name == "qk")
)
"""Strategies that make sense in an attention pooling; ``vanilla`` lets every cell ask the pooling's attention."""


STRIDES = (32, 16, 8)
"""Model pixels per cell at which the last map can be read: as trained, or two or four times as fine."""


class OpenClipResNet(BaseBackbone):
    """Reads ``open_clip.modified_resnet.ModifiedResNet``; see :class:`concept_cam.backbones.protocol.Backbone`.

    At a finer stride the last stage (16) or the last two (8) run without their subsampling, what follows it dilated (the "a trous" reading;
    Chen et al., DeepLab, TPAMI 2018): what is read is what stride 32 would compute for the picture shifted by parts of a cell. The map
    before these stages is extended on every side, so that cells tile the input evenly, which shifts them by half a cell from the stock
    ones; at stride 8 a cell is the mean of the four readings at its corners. The image embedding is made from the stock map at every
    stride.

    Args:
        model: An open_clip model whose ``visual`` is such a tower.
        name: Name of the model.
        preprocess: What the input must look like; its stride, one of `STRIDES`, says how finely the map is read.
        text: The text tower.

    Raises:
        ConfigurationError: Another stride.
    """

    gathers = BY_POOLING

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        visual: Any = model.visual
        self._visual = visual
        if preprocess.stride not in [(stride, stride) for stride in STRIDES]:
            raise ConfigurationError(f"{name}: a CLIP ResNet is read at stride 32, 16 or 8, received {preprocess.stride}.")
        super().__init__(
            model,
            name=name,
            family="open_clip-resnet",
            preprocess=preprocess,
            text=text,
            embed_dim=int(visual.attnpool.c_proj.out_features),
            attentions=ATTENTIONS,
        )

    @quiet(graph=False)
    def encode_image(self, pixels: Tensor, valid: Tensor | None = None) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_image`; with ``valid`` as for :meth:`encode_patches`, without its
        patches.
        """
        pixels = self._prepare(pixels)
        if valid is None and self._is_native(pixels):
            return cast("Tensor", self._visual(pixels))
        return self._embed(self._early(pixels), self._prepare_valid(valid, pixels))

    @quiet(graph=False)
    def library_embedding(self, pixels: Tensor) -> Tensor | None:
        """See :meth:`concept_cam.backbones.common.BaseBackbone.library_embedding`."""
        pixels = self._prepare(pixels)
        return cast("Tensor", self._visual(pixels)) if self._is_native(pixels) else None

    @quiet(graph=False)
    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_patches`."""
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
        if self._stride < STRIDES[0]:
            image = self._embed(early, valid)
        else:
            image = pool.c_proj(merge_heads(attend(query[:, :, :1], key, value, scale, keys)))[:, 0]
        return ImageFeatures(patches=patches, image=image)

    @quiet()
    def feature_map(self, pixels: Tensor, valid: Tensor | None = None, layer: str | None = None) -> FeatureMap:
        """See :meth:`concept_cam.backbones.protocol.Backbone.feature_map`."""
        self._layer(layer)
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        cells = self._cells(self._early(pixels))
        return FeatureMap(cells if valid is None else cells * valid[:, None], valid=valid)

    @quiet()
    def pool(self, features: FeatureMap) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.pool`."""
        return self._pool(features.map, features.valid)

    def gathering(self, features: FeatureMap) -> Gathering:
        """See :meth:`concept_cam.backbones.protocol.Backbone.gathering`."""
        return self._gathering(*self._tokens(features.map, features.valid))

    def stock_embedding(self, pixels: Tensor, features: FeatureMap, pooled: Tensor) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.stock_embedding`."""
        return pooled if self._stride == STRIDES[0] else self.encode_image(pixels, features.valid)

    @property
    def _stride(self) -> int:
        return self.preprocess.stride[0]

    def _embed(self, early: Tensor, valid: Tensor | None) -> Tensor:
        """The image embedding [B, D], from the stock map at every stride."""
        return self._pool(self._stock_cells(early), _coarse(valid, STRIDES[0] // self._stride))

    def _pool(self, cells: Tensor, valid: Tensor | None) -> Tensor:
        """The attention pooling on a map [B, K, h, w] of any size -> [B, D]."""
        last = self._gathering(*self._tokens(cells, valid))
        return last.finish(attend(last.query, last.key, last.value, last.scale, last.keys))

    def _gathering(self, tokens: Tensor, keys: Tensor | None) -> Gathering:
        """The pooling's attention: the mean of the tokens asks all of them."""
        pool, heads = self._visual.attnpool, self._visual.attnpool.num_heads
        query = split_heads(pool.q_proj(tokens[:, :1]), heads)
        key, value = split_heads(pool.k_proj(tokens), heads), split_heads(pool.v_proj(tokens), heads)
        return Gathering(
            query, key, value, float(query.shape[-1]) ** -0.5, 1, keys, lambda context: pool.c_proj(merge_heads(context))[:, 0]
        )

    def _early(self, pixels: Tensor) -> Tensor:
        """The stages whose stride is never changed: [B, 3, H, W] -> [B, K', H / 8, W / 8]."""
        visual = self._visual
        return cast("Tensor", visual.layer2(visual.layer1(visual.stem(pixels))))

    def _cells(self, early: Tensor) -> Tensor:
        """The last two stages at the stride of ``preprocess``."""
        visual, stride = self._visual, self._stride
        if stride == STRIDES[0]:
            return self._stock_cells(early)
        # Extended by 8 pixels at stride 16, 16 pixels at stride 8, so that the cells tile the input.
        margin = 16 // stride
        return fine_map(visual, F.pad(early, (margin,) * 4, mode="replicate"), stride)

    def _stock_cells(self, early: Tensor) -> Tensor:
        """The last two stages as trained; sides that are no multiple of 32 pixels are extended to one, so that no edge goes unseen."""
        bottom, right = (-side % 4 for side in early.shape[-2:])
        early = F.pad(early, (0, right, 0, bottom), mode="replicate") if bottom or right else early
        return cast("Tensor", self._visual.layer4(self._visual.layer3(early)))

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


def fine_map(visual: Any, early: Tensor, stride: int) -> Tensor:
    """The last two stages of a CLIP ResNet at stride 16 or 8.

    Args:
        visual: The tower.
        early: [B, K', H / 8, W / 8], what the first two stages give.
        stride: 16 or 8.

    Returns:
        [B, K, H / 16 - 1, W / 16 - 1], the first cell centred at (16, 16) pixels; or [B, K, H / 8 - 4, W / 8 - 4], the first at (20, 20).
    """
    if stride == 16:
        return without_subsampling(visual.layer4, visual.layer3(early))
    return _spread_mean(corner_map(visual, early), 1)


def corner_map(visual: Any, early: Tensor) -> Tensor:
    """The readings 8 pixels apart whose means are the cells at stride 8: [B, K, H / 8 - 3, W / 8 - 3], the first at (16, 16) pixels.

    Every fourth row and column holds what stride 32 computes.
    """
    return without_subsampling(visual.layer4, without_subsampling(visual.layer3, early), spacing=2)


def without_subsampling(stage: Any, x: Tensor, spacing: int = 1) -> Tensor:
    """A stage that halves its map, read at every cell instead.

    Args:
        stage: Blocks of a CLIP ResNet; the first one halves.
        x: [B, K', h, w].
        spacing: How many cells of `x` lie between neighbours of the stock map; above 1 if the stage before was read like this too.

    Returns:
        [B, K, h - spacing, w - spacing].
    """
    first, *others = stage
    _, convolution, norm = first.downsample
    skip = norm(convolution(_spread_mean(x, spacing)))
    x = first.act1(first.bn1(first.conv1(x)))
    x = first.act2(first.bn2(_spread_convolution(first.conv2, x, spacing)))
    x = first.act3(first.bn3(first.conv3(_spread_mean(x, spacing))) + skip)
    for block in others:
        out = block.act1(block.bn1(block.conv1(x)))
        out = block.act2(block.bn2(_spread_convolution(block.conv2, out, 2 * spacing)))
        x = block.act3(block.bn3(block.conv3(out)) + x)
    return x


def _spread_mean(x: Tensor, spacing: int) -> Tensor:
    """Mean of 2 x 2 cells that lie `spacing` apart, at every cell."""
    if spacing == 1:
        return F.avg_pool2d(x, 2, stride=1)
    rows = x[..., :-spacing, :] + x[..., spacing:, :]
    return 0.25 * (rows[..., :-spacing] + rows[..., spacing:])


def _spread_convolution(convolution: Any, x: Tensor, spacing: int) -> Tensor:
    """A 3 x 3 convolution that reaches as far as it does on the subsampled map."""
    return F.conv2d(x, convolution.weight, padding=spacing, dilation=spacing)


def _coarse(valid: Tensor | None, factor: int) -> Tensor | None:
    """Which stock cells show any of the picture, from `factor` times as fine ones: bool [B, h, w] -> [B, ceil(h / factor), ceil(w /
    factor)].
    """
    if valid is None:
        return None
    return F.max_pool2d(valid.float()[:, None], factor, ceil_mode=True)[:, 0].bool()


def read(made: Made) -> OpenClipResNet:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    preprocess = made.preprocess(made.visual.image_size, made.config.get("read_stride") or STRIDES[0])
    return OpenClipResNet(made.model, name=made.name, preprocess=preprocess, text=made.words)
