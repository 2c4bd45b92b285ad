"""LeGrad (Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity", ICCV 2025)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from concept_cam.backbones.protocol import BY_POOLING, Backbone, FeatureMap
from concept_cam.backbones.tokens import TokenBackbone
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.methods.engine import Batch, TowerMethod, slopes, without_graph

__all__ = ["legrad"]

LAYERS = 2
"""Last blocks that are read, as in the released code."""


def _maps(batch: Batch) -> Tensor:
    """Mean over the last blocks ``l`` of ``mean_heads mean_queries relu(ds_l / dA_l)``, at each patch's key.

    ``A_l`` is an attention after the softmax and ``s_l`` the objective read from block ``l``. In class-token and mean-pooled towers ``A_l``
    is the block's own attention and ``s_l`` the mean of its output tokens through the tower's last norm and projection. In towers that pool
    by attention, both belong to the pooling applied to the block's tokens; a CLIP ResNet has that pooling alone. Values are not negative;
    the paper's min-max scaling is left out.
    """
    backbone = batch.backbone.transformer
    if backbone is None:
        return _pooling(batch, batch.features)
    last = _TokenStream.of(batch, backbone)
    read = _pooled_layer if backbone.gathers == BY_POOLING else _layer
    return torch.stack([read(last, index) for index in last.blocks]).mean(dim=0)


@dataclass(frozen=True)
class _TokenStream:
    """The tokens that enter each of the last blocks and leave the last one: ``streams[i]`` enters ``blocks[i]``."""

    batch: Batch
    backbone: TokenBackbone
    blocks: range
    streams: Sequence[Tensor]
    keys: Tensor | None
    rope: Tensor | None
    to_grid: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, batch: Batch, backbone: TokenBackbone) -> _TokenStream:
        count = min(LAYERS, len(backbone.blocks))
        with without_graph():
            sequence = backbone._sequence(batch.pixels, batch.features.valid)
            streams = [sequence.tokens]
            for block in backbone.blocks:
                streams.append(block(streams[-1], sequence.keys, sequence.rope))
        return cls(
            batch,
            backbone,
            range(count),
            streams[-count - 1 :],
            sequence.keys,
            sequence.rope,
            sequence.to_grid,
        )


def _layer(last: _TokenStream, index: int) -> Tensor:
    """Returns the relevance of each patch as a key of one block's own attention, float32 [B, C, h, w]."""
    backbone, stream, keys = last.backbone, last.streams[index], last.keys
    block = backbone.blocks[len(backbone.blocks) - len(last.blocks) + index]
    with without_graph():
        query, key, value = block.project(block.norm(stream), "qkv", last.rope)
        attention = _attention(query, key, block.scale, keys)
    weight = torch.ones_like(stream[:, :, :1]) if keys is None else keys[:, :, None].to(stream.dtype)

    def embed(attention: Tensor) -> Tensor:
        out = stream + block.output(attention @ value)
        out = out + block.feed_forward(out)
        mean = (out * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)
        return backbone.project_patches(mean)[:, 0]

    queries = weight[:, None, :, 0].float()
    relevance = []
    for gradient in slopes(last.batch, attention, embed):
        heads = gradient.clamp(min=0).mean(dim=1)
        relevance.append((queries @ heads)[:, 0] / queries.sum(dim=-1))
    patches = torch.stack(relevance, dim=2)[:, backbone.prefix :]
    return last.to_grid(patches).permute(0, 3, 1, 2)


def _pooled_layer(last: _TokenStream, index: int) -> Tensor:
    """Returns the relevance of each patch to the pooling of one block's tokens, float32 [B, C, h, w]."""
    backbone = last.backbone
    with without_graph():
        settled = backbone.settle(last.streams[index + 1])
        features = FeatureMap(
            map=last.to_grid(settled[:, backbone.prefix :]).permute(0, 3, 1, 2),
            prefix=settled[:, : backbone.prefix] if backbone.prefix else None,
            valid=last.batch.features.valid,
        )
    return _pooling(last.batch, features)


def _pooling(batch: Batch, features: FeatureMap) -> Tensor:
    with without_graph():
        last = batch.backbone.gathering(features)
        attention = _attention(last.query, last.key, last.scale, last.keys)
    maps = [
        gradient.clamp(min=0).mean(dim=1)[:, 0, last.prefix :]
        for gradient in slopes(batch, attention, lambda attention: last.finish(attention @ last.value))
    ]
    return cast("Tensor", torch.stack(maps, dim=1).unflatten(2, (features.map.shape[2], features.map.shape[3])))


def _attention(query: Tensor, key: Tensor, scale: float, keys: Tensor | None) -> Tensor:
    logits = (query @ key.transpose(-1, -2)) * scale
    if keys is not None:
        logits = logits.masked_fill(~keys[:, None, None, :], float("-inf"))
    return logits.softmax(dim=-1)


def _check(backbone: Backbone) -> None:
    # The mean-pooled queries of a two-part pooler are neither a block's own attention nor one query that gathers the picture.
    own = backbone.transformer is not None and not backbone.family.endswith("attention-pool")
    if not own and backbone.gathers != BY_POOLING:
        raise UnsupportedModelError(
            f"LeGrad reads a transformer's self-attention or an attention pooling, which {backbone.name!r} (family "
            f"{backbone.family}) does not "
            "have. Use 'direct', 'grad-cam' or 'hires-cam' with this model."
        )


legrad = TowerMethod(_maps, _check, layered=False)
"""LeGrad."""
