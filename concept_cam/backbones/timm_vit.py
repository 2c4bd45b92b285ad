"""timm vision transformers through open_clip: class token, mean pooling, attention-pooling heads (SigLIP, SigLIP2, PE-Core)."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.common import resize_positions
from concept_cam.backbones.made import Made, pair
from concept_cam.backbones.protocol import BY_POOLING, FeatureMap, Gathering
from concept_cam.backbones.text import NoText, TextEncoder
from concept_cam.backbones.tokens import (
    ALL_ATTENTIONS,
    Block,
    Embedded,
    TokenBackbone,
    map_tokens,
    masked_mean,
    merge_heads,
    rotate,
    split_heads,
    valid_tokens,
)
from concept_cam.core.attention import attend
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

TRUNKS: tuple[str, ...] = ("VisionTransformer", "Eva")
"""timm classes whose pieces are known here."""


class TimmBlock(Block):
    """A block of timm's ``VisionTransformer`` or ``Eva``, norm before or after the attention.

    Args:
        block: The module.

    Raises:
        UnsupportedModelError: The block is not made of the parts known here.
    """

    def __init__(self, block: nn.Module) -> None:
        module: Any = block
        attention: Any = getattr(module, "attn", None)
        kind = type(block).__name__
        known = ("Attention", "EvaAttention", "AttentionRope")
        if (
            kind not in ("Block", "EvaBlock", "EvaBlockPostNorm", "ResPostBlock")
            or type(attention).__name__ not in known
            or getattr(attention, "gate", None) is not None
            or getattr(attention, "num_kv_groups", 1) != 1
        ):
            raise UnsupportedModelError(f"the timm block {kind} with {type(attention).__name__} cannot be read here.")
        self._block = module
        self._attention = attention
        self._post_norm = kind in ("EvaBlockPostNorm", "ResPostBlock")
        self._heads = int(attention.num_heads)
        self.scale = float(attention.scale)

    def norm(self, x: Tensor) -> Tensor:
        return x if self._post_norm else self._block.norm1(x)

    def project(self, normed: Tensor, which: str, rope: Tensor | None = None) -> tuple[Tensor, ...]:
        attention = self._attention
        out = []
        for letter in which:
            part = split_heads(F.linear(normed, *self._weights(letter)), self._heads)
            if letter != "v":
                part = (attention.q_norm if letter == "q" else attention.k_norm)(part)
                if rope is not None:
                    part = rotate(part, rope, getattr(attention, "rotate_half", False))
            out.append(part)
        return tuple(out)

    def _weights(self, letter: str) -> tuple[Tensor, Tensor | None]:
        attention = self._attention
        if getattr(attention, "qkv", None) is None:
            layer = getattr(attention, f"{letter}_proj")
            return layer.weight, layer.bias
        width = attention.qkv.weight.shape[0] // 3
        rows = slice("qkv".index(letter) * width, ("qkv".index(letter) + 1) * width)
        if getattr(attention, "q_bias", None) is not None:
            return attention.qkv.weight[rows], getattr(attention, f"{letter}_bias")
        bias = attention.qkv.bias
        return attention.qkv.weight[rows], None if bias is None else bias[rows]

    def output(self, context: Tensor) -> Tensor:
        block, attention = self._block, self._attention
        merged = merge_heads(context)
        if hasattr(attention, "norm"):
            merged = attention.norm(merged)
        out = attention.proj(merged)
        if self._post_norm:
            out = block.norm1(out)
        return _layer_scale(block, 1, out)

    def feed_forward(self, x: Tensor) -> Tensor:
        block = self._block
        out = block.norm2(block.mlp(x)) if self._post_norm else block.mlp(block.norm2(x))
        return _layer_scale(block, 2, out)

    def own(self, x: Tensor, rope: Tensor | None) -> Tensor | None:
        return cast("Tensor | None", self._block(x) if rope is None else self._block(x, rope=rope))


def _layer_scale(block: Any, number: int, x: Tensor) -> Tensor:
    if hasattr(block, f"ls{number}"):
        return cast("Tensor", getattr(block, f"ls{number}")(x))
    gamma = getattr(block, f"gamma_{number}", None)
    return x if gamma is None else x * gamma


class TimmViT(TokenBackbone):
    """Reads a timm ``VisionTransformer`` or ``Eva`` behind open_clip's ``TimmModel``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: An open_clip model whose ``visual.trunk`` is such a transformer.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.
        embed_dim: Width of the joint embedding.
    """

    own_family = ""
    """Family of those that are not told apart by their pooling."""

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder | NoText, embed_dim: int) -> None:
        # A timm network that stands alone is its own trunk.
        visual: Any = getattr(model, "visual", None) or SimpleNamespace(trunk=model, head=nn.Identity())
        trunk = visual.trunk
        self._visual, self._trunk = visual, trunk
        self.prefix = int(trunk.num_prefix_tokens)
        self.blocks = [TimmBlock(block) for block in trunk.blocks]
        if getattr(trunk, "rope_mixed", False):
            raise UnsupportedModelError(f"{name}: rotary embeddings that differ between blocks cannot be read here.")
        if trunk.attn_pool is not None:
            if (
                type(trunk.attn_pool).__name__ != "AttentionPoolLatent"
                or trunk.attn_pool.latent_len != 1
                or trunk.attn_pool.pos_embed is not None
            ):
                raise UnsupportedModelError(f"{name}: the pooling {type(trunk.attn_pool).__name__} of this timm tower cannot be read here.")
            family = "timm-vit-attention-pool"
        elif trunk.global_pool == "token":
            family = "timm-vit"
        elif trunk.global_pool == "avg":
            family = "timm-vit-mean"
        else:
            raise UnsupportedModelError(f"{name}: the pooling {trunk.global_pool!r} of this timm tower cannot be read here.")
        self.class_token = family == "timm-vit"
        # PE-Core's head attends to the class token too, SigLIP's to patches only.
        self._pool_prefix = bool(getattr(trunk, "pool_include_prefix", type(trunk).__name__ == "Eva" and trunk.attn_pool is not None))
        super().__init__(
            model,
            name=name,
            family=self.own_family or family,
            preprocess=preprocess,
            text=text,
            embed_dim=embed_dim,
            attentions=ALL_ATTENTIONS,
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        trunk = self._trunk
        patches, grid = _patch_tokens(trunk.patch_embed, pixels)
        native = trunk.patch_embed.grid_size
        extra = [token.expand(len(patches), -1, -1) for token in (trunk.cls_token, trunk.reg_token) if token is not None]
        table = trunk.pos_embed
        if table is None:
            return Embedded(torch.cat([*extra, patches], dim=1), grid, self.rope(grid))
        table = table[0].to(patches.dtype)
        lead = 0 if trunk.no_embed_class else self.prefix
        positions = resize_positions(table[lead:], native, grid)
        if lead:
            tokens = torch.cat([*extra, patches], dim=1) + torch.cat([table[:lead], positions])
        else:
            tokens = torch.cat([*extra, patches + positions], dim=1)
        return Embedded(tokens, grid, self.rope(grid))

    def rope(self, grid: tuple[int, int]) -> Tensor | None:
        rope = getattr(self._trunk, "rope", None)
        if rope is None:
            return None
        table = rope.get_embed(shape=list(grid))
        if len(table) == grid[0] * grid[1] and (rope.feat_shape is None or tuple(rope.feat_shape) == tuple(grid)):
            return cast("Tensor | None", table)
        # The module keeps the table of one grid; another grid is asked of a copy, so that the model stays as it is.
        other = copy.deepcopy(rope)
        other.update_feat_shape(list(grid))
        return cast("Tensor | None", other.get_embed(shape=list(grid)))

    def enter(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._trunk.norm_pre(tokens))

    def project_patches(self, patches: Tensor) -> Tensor:
        trunk = self._trunk
        patches = trunk.norm(patches)
        if trunk.attn_pool is not None:
            patches = _finish_latent(trunk.attn_pool, _latent_value(trunk.attn_pool, patches))
        return self._head(patches)

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._trunk.norm(tokens))

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        trunk = self._trunk
        if self.class_token:
            return self._head(settled[:, 0])
        if not self._pool_prefix:
            settled = settled[:, self.prefix :]
            keys = None if keys is None else keys[:, self.prefix :]
        pooled = masked_mean(settled, keys) if trunk.attn_pool is None else _latent_pool(trunk.attn_pool, settled, keys)
        return self._head(pooled)

    @property
    def gathers(self) -> str:
        return super().gathers if self._trunk.attn_pool is None else BY_POOLING

    def gathering(self, features: FeatureMap) -> Gathering:
        """See :meth:`concept_cam.backbones.protocol.Backbone.gathering`."""
        if self.gathers != BY_POOLING:
            return super().gathering(features)
        pool = self._trunk.attn_pool
        prefix = self.prefix if self._pool_prefix else 0
        tokens = map_tokens(features, prefix)
        query = pool.q_norm(split_heads(pool.q(pool.latent.expand(len(tokens), -1, -1)), pool.num_heads))
        key, value = (split_heads(part, pool.num_heads) for part in pool.kv(tokens).chunk(2, dim=-1))

        def finish(context: Tensor) -> Tensor:
            return self._head(_finish_latent(pool, merge_heads(context))[:, 0])

        return Gathering(query, pool.k_norm(key), value, float(pool.scale), prefix, valid_tokens(features, prefix), finish)

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self._visual(pixels))

    def _head(self, pooled: Tensor) -> Tensor:
        trunk = self._trunk
        return cast("Tensor", self._visual.head(trunk.head(trunk.fc_norm(pooled))))


def _patch_tokens(embed: Any, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Runs timm's ``PatchEmbed`` or ``HybridEmbed`` without its check of the input size: [B, N, W] and the grid."""
    x = pixels
    if hasattr(embed, "backbone"):
        x = embed.backbone(x)
        x = x[-1] if isinstance(x, list | tuple) else x
    x = embed.proj(x)
    grid = (x.shape[2], x.shape[3])
    tokens = x.flatten(2).transpose(1, 2)
    return (embed.norm(tokens) if hasattr(embed, "norm") else tokens), grid


def _latent_value(pool: Any, tokens: Tensor) -> Tensor:
    """Value path of ``AttentionPoolLatent`` for each token alone: [B, N, W] -> [B, N, W]."""
    width = pool.kv.weight.shape[0] // 2
    return F.linear(tokens, pool.kv.weight[width:], None if pool.kv.bias is None else pool.kv.bias[width:])


def _finish_latent(pool: Any, context: Tensor) -> Tensor:
    """What ``AttentionPoolLatent`` does after its attention, token by token."""
    x = pool.proj(context)
    return cast("Tensor", x if pool.mlp is None else x + pool.mlp(pool.norm(x)))


def _latent_pool(pool: Any, tokens: Tensor, keys: Tensor | None) -> Tensor:
    """Runs ``AttentionPoolLatent`` with padded tokens left out: [B, L, W] -> [B, W]."""
    if keys is None:
        return cast("Tensor", pool(tokens))
    query = pool.q_norm(split_heads(pool.q(pool.latent.expand(len(tokens), -1, -1)), pool.num_heads))
    width = pool.kv.weight.shape[0] // 2
    key = F.linear(tokens, pool.kv.weight[:width], None if pool.kv.bias is None else pool.kv.bias[:width])
    key = pool.k_norm(split_heads(key, pool.num_heads))
    value = split_heads(_latent_value(pool, tokens), pool.num_heads)
    return _finish_latent(pool, merge_heads(attend(query, key, value, float(pool.scale), keys)))[:, 0]


def read(made: Made) -> TimmViT:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    embed = made.visual.trunk.patch_embed
    size = pair(embed.img_size or made.visual.image_size)
    stride = (size[0] // embed.grid_size[0], size[1] // embed.grid_size[1])
    return TimmViT(made.model, name=made.name, preprocess=made.preprocess(size, stride), text=made.words, embed_dim=made.embed_dim())
