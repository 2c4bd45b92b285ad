"""The attention that gathers the picture: the class token's in a transformer's last block, or that of an attention pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.open_clip_resnet import OpenClipResNet
from concept_cam.backbones.open_clip_vit import OpenClipViT
from concept_cam.backbones.protocol import Backbone, FeatureMap
from concept_cam.backbones.timm_vit import TimmViT, _finish_latent
from concept_cam.backbones.tokens import TokenBackbone, merge_heads, split_heads
from concept_cam.backbones.transformers_siglip import TransformersSiglip
from concept_cam.core.errors import UnsupportedModelError

__all__ = ["Gathering", "gathering", "pools_by_attention", "require_gathering"]


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


Reader = Callable[[Any, FeatureMap], Gathering]


def _reader(backbone: Backbone) -> Reader | None:
    if isinstance(backbone, TokenBackbone) and backbone.class_token:
        return _class_token
    if isinstance(backbone, OpenClipResNet):
        return _resnet
    if isinstance(backbone, TransformersSiglip):
        return _siglip
    if isinstance(backbone, TimmViT) and backbone._trunk.attn_pool is not None:
        return _latent
    if isinstance(backbone, OpenClipViT) and backbone._visual.attn_pool is not None and backbone._visual.pool_type == "tok":
        return _pooler
    return None


def gathering(backbone: Backbone, features: FeatureMap) -> Gathering:
    """Reads the gathering attention of a feature map.

    Raises:
        UnsupportedModelError: The tower has none, or one that is not read here.
    """
    require_gathering(backbone)
    reader = _reader(backbone)
    assert reader is not None
    return reader(backbone, features)


def require_gathering(backbone: Backbone) -> None:
    """Raises UnsupportedModelError where :func:`gathering` would."""
    if _reader(backbone) is None:
        raise UnsupportedModelError(
            f"this method reads the attention of a class token or of an attention pooling, which {backbone.name!r} (family "
            f"{backbone.family}) does not have. Use 'direct', 'grad-cam' or 'hires-cam' with this model."
        )


def pools_by_attention(backbone: Backbone) -> bool:
    """Tells whether an attention of its own pools what the last block leaves, and :func:`gathering` can read it."""
    return _reader(backbone) not in (None, _class_token)


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


def _tokens(features: FeatureMap, prefix: int) -> Tensor:
    """Tokens [B, prefix + N, K] that a pooling attends to."""
    patches = features.map.flatten(2).transpose(1, 2)
    if not prefix or features.prefix is None:
        return patches
    return torch.cat([features.prefix, patches], dim=1)


def _latent(backbone: TimmViT, features: FeatureMap) -> Gathering:
    pool = backbone._trunk.attn_pool
    prefix = backbone.prefix if backbone._pool_prefix else 0
    tokens = _tokens(features, prefix)
    query = pool.q_norm(split_heads(pool.q(pool.latent.expand(len(tokens), -1, -1)), pool.num_heads))
    key, value = (split_heads(part, pool.num_heads) for part in pool.kv(tokens).chunk(2, dim=-1))

    def finish(context: Tensor) -> Tensor:
        return backbone._head(_finish_latent(pool, merge_heads(context))[:, 0])

    return Gathering(query, pool.k_norm(key), value, float(pool.scale), prefix, _keys(features, prefix), finish)


def _siglip(backbone: TransformersSiglip, features: FeatureMap) -> Gathering:
    head = backbone._vision.head
    tokens = _tokens(features, 0)
    query, key, value = _project(head.attention, head.probe.expand(len(tokens), -1, -1), tokens)

    def finish(context: Tensor) -> Tensor:
        x = head.attention.out_proj(merge_heads(context))
        return (x + head.mlp(head.layernorm(x)))[:, 0]

    return Gathering(query, key, value, float(query.shape[-1]) ** -0.5, 0, _keys(features, 0), finish)


def _pooler(backbone: OpenClipViT, features: FeatureMap) -> Gathering:
    """CoCa: the first query of the attentional pooler is the image embedding, the others feed the captioner."""
    visual = backbone._visual
    pool = visual.attn_pool
    tokens = pool.ln_k(_tokens(features, backbone.prefix))
    asked = pool.ln_q(pool.query)[None, :1].expand(len(tokens), -1, -1)
    query, key, value = _project(pool.attn, asked, tokens)

    def finish(context: Tensor) -> Tensor:
        x = visual.ln_post(pool.attn.out_proj(merge_heads(context)))[:, 0]
        return x if visual.proj is None else x @ visual.proj

    prefix = backbone.prefix
    return Gathering(query, key, value, float(query.shape[-1]) ** -0.5, prefix, _keys(features, prefix), finish)


def _project(attention: Any, query: Tensor, tokens: Tensor) -> list[Tensor]:
    """Projects with the weights of an ``nn.MultiheadAttention``, joint or apart: query, key and value, each [B, heads, M, d]."""
    joint, bias = attention.in_proj_weight, attention.in_proj_bias
    if joint is None:
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
    else:
        weights = list(joint.chunk(3))
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    return [
        split_heads(F.linear(x, weight, offset), attention.num_heads) for x, weight, offset in zip((query, tokens, tokens), weights, biases)
    ]


def _keys(features: FeatureMap, prefix: int) -> Tensor | None:
    if features.valid is None:
        return None
    valid = features.valid.flatten(1)
    return torch.cat([valid.new_ones(len(valid), prefix), valid], dim=1)
