"""The attention that gathers the picture: the class token's in a transformer's last block, or a CLIP ResNet's attention pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_cam.backbones.base import Backbone, FeatureMap
from concept_cam.backbones.open_clip_resnet import OpenClipResNet
from concept_cam.backbones.tokens import TokenBackbone, split_heads
from concept_cam.types import UnsupportedModelError

__all__ = ["Gathering", "gathering", "require_gathering"]


@dataclass(frozen=True)
class Gathering:
    """One query that attends to all tokens and becomes the image embedding; ``L = prefix + N`` tokens.

    Attributes:
        query: [B, heads, 1, d].
        key: [B, heads, L, d].
        value: [B, heads, L, d].
        scale: Factor of the dot products.
        prefix: Tokens before the patches.
        keys: bool [B, L], False for padding; ``None``: all valid.
        finish: Context [B, heads, 1, d] -> image embedding [B, D], not normalised; differentiable.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    prefix: int
    keys: Tensor | None
    finish: Callable[[Tensor], Tensor]


def gathering(backbone: Backbone, features: FeatureMap) -> Gathering:
    """Reads the gathering attention of a feature map.

    Raises:
        UnsupportedModelError: The tower has none, or one that is not read here.
    """
    if isinstance(backbone, OpenClipResNet):
        return _resnet(backbone, features)
    if isinstance(backbone, TokenBackbone) and backbone.class_token:
        return _class_token(backbone, features)
    raise UnsupportedModelError(
        f"this method reads the attention of a class token or of a CLIP ResNet's pooling, which {backbone.name!r} (family "
        f"{backbone.family}) does not have. Use 'direct', 'grad-cam' or 'hires-cam' with this model."
    )


def require_gathering(backbone: Backbone) -> None:
    """Raises UnsupportedModelError where :func:`gathering` would."""
    if not isinstance(backbone, OpenClipResNet):
        if isinstance(backbone, TokenBackbone) and backbone.class_token:
            return
        gathering(backbone, FeatureMap(torch.zeros(1, 1, 1, 1)))


def _class_token(backbone: TokenBackbone, features: FeatureMap) -> Gathering:
    block = backbone.blocks[-1]
    assert features.prefix is not None
    token = features.prefix[:, :1]
    normed = torch.cat([block.norm(features.prefix), features.map.flatten(2).transpose(1, 2)], dim=1)
    key, value = block.project(normed, "kv", backbone.rope((features.map.shape[2], features.map.shape[3])))
    (query,) = block.project(normed[:, :1], "q")

    def finish(context: Tensor) -> Tensor:
        x = token + block.output(context)
        x = x + block.feed_forward(x)
        return backbone.pool_tokens(backbone.settle(x), None)

    prefix = features.prefix.shape[1]
    return Gathering(query, key, value, block.scale, prefix, _keys(features, prefix), finish)


def _resnet(backbone: OpenClipResNet, features: FeatureMap) -> Gathering:
    pool = backbone._visual.attnpool
    tokens, keys = backbone._tokens(features.map, features.valid)
    query = split_heads(pool.q_proj(tokens[:, :1]), pool.num_heads)
    key, value = (
        split_heads(pool.k_proj(tokens), pool.num_heads),
        split_heads(pool.v_proj(tokens), pool.num_heads),
    )

    def finish(context: Tensor) -> Tensor:
        return pool.c_proj(context.transpose(1, 2).flatten(2))[:, 0]

    return Gathering(query, key, value, float(query.shape[-1]) ** -0.5, 1, keys, finish)


def _keys(features: FeatureMap, prefix: int) -> Tensor | None:
    if features.valid is None:
        return None
    valid = features.valid.flatten(1)
    return torch.cat([valid.new_ones(len(valid), prefix), valid], dim=1)
