"""Vision transformers: patch features and image embedding from the pieces of a loaded tower.

Everything up to the last block runs as in the model's own code. The last block is recomputed from its own weights: the image embedding of a
class-token tower needs the attention and feed-forward network of the class token only, and the patch path of most strategies needs no
feed-forward network at all, so locating costs less than classifying. Padded tokens are taken out of the sequence before the first block:
masked as keys they could influence nothing, and attention over fewer tokens is cheaper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.common import BaseBackbone
from concept_cam.backbones.protocol import BY_CLASS_TOKEN, FeatureMap, Gathering, ImageFeatures
from concept_cam.core.attention import ATTENTION_STRATEGIES, LastAttention, Strategy, attend
from concept_cam.core.quiet import quiet

if TYPE_CHECKING:
    from concept_cam.backbones.int8 import FastBlocks


class Block(ABC):
    """One transformer block of a loaded model, read through its own weights; ``W`` width, ``d`` width of a head.

    Attributes:
        scale: Factor of the dot products of queries and keys.
    """

    scale: float

    @abstractmethod
    def norm(self, x: Tensor) -> Tensor:
        """Returns the tokens as the attention sees them: [B, L, W] -> [B, L, W]."""

    @abstractmethod
    def project(self, normed: Tensor, which: str, rope: Tensor | None = None) -> tuple[Tensor, ...]:
        """Projects normed tokens [B, M, W] to the asked ones of ``"q"``, ``"k"``, ``"v"``, each [B, heads, M, d].

        Args:
            normed: Tokens after :meth:`norm`; with ``rope`` all of the sequence, or its first tokens that are not patches.
            which: Letters in the order wanted, such as ``"kv"``.
            rope: Rotary embedding of the patches, for towers that have one.
        """

    @abstractmethod
    def output(self, context: Tensor) -> Tensor:
        """Maps contexts [B, heads, M, d] to what the attention adds to the stream, [B, M, W] (output projection, layer scale)."""

    @abstractmethod
    def feed_forward(self, x: Tensor) -> Tensor:
        """Returns what the feed-forward network adds to the stream: [B, M, W] -> [B, M, W] (norm, network, layer scale)."""

    def look(self, query: Tensor, normed: Tensor, value: Tensor, keys: Tensor | None, rope: Tensor | None) -> Tensor:
        """Returns the context [B, heads, 1, d] of one query [B, heads, 1, d] over all tokens, where no other query needs their keys."""
        (key,) = self.project(normed, "k", rope)
        return attend(query, key, value, self.scale, keys)

    def own(self, x: Tensor, rope: Tensor | None) -> Tensor | None:
        """Runs the model's own code for the block without a mask, where there is an interface for it; else ``None``."""
        return None

    def __call__(self, x: Tensor, keys: Tensor | None = None, rope: Tensor | None = None) -> Tensor:
        """Runs the whole block: [B, L, W] -> [B, L, W]; ``keys`` bool [B, L] are the tokens that may be attended to."""
        if keys is None:
            own = self.own(x, rope)
            if own is not None:
                return own
        return self.in_pieces(x, keys, rope)

    def in_pieces(self, x: Tensor, keys: Tensor | None = None, rope: Tensor | None = None) -> Tensor:
        """Runs the whole block from the pieces above."""
        query, key, value = self.project(self.norm(x), "qkv", rope)
        x = x + self.output(attend(query, key, value, self.scale, keys))
        return x + self.feed_forward(x)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, M, heads * d] -> [B, heads, M, d]."""
    return cast("Tensor", x.unflatten(-1, (heads, -1)).transpose(1, 2))


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, M, d] -> [B, M, heads * d]."""
    return x.transpose(1, 2).flatten(2)


def rotate(x: Tensor, rope: Tensor, half: bool) -> Tensor:
    """Applies a rotary embedding [N, e] to the last N tokens of [B, heads, L, d]; with fewer than N tokens there are only prefix ones."""
    count = rope.shape[-2]
    if x.shape[2] < count:
        return x
    sine, cosine = rope.chunk(2, dim=-1)
    split = x.shape[2] - count
    patches = x[:, :, split:]
    if half:
        left, right = patches.chunk(2, dim=-1)
        turned = torch.cat([-right, left], dim=-1)
    else:
        turned = torch.stack([-patches[..., 1::2], patches[..., ::2]], dim=-1).flatten(-2)
    rotated = (patches * cosine + turned * sine).type_as(x)
    return torch.cat([x[:, :, :split], rotated], dim=2)


@dataclass(frozen=True)
class Embedded:
    """Tokens that enter the first block.

    Attributes:
        tokens: [B, L, W], position embeddings added, before any norm of the tower's entrance.
        grid: ``(h, w)``.
        rope: [N, e] rotary embedding of the patches, or ``None``.
    """

    tokens: Tensor
    grid: tuple[int, int]
    rope: Tensor | None = None


@dataclass(frozen=True)
class _Sequence:
    """A batch of token sequences without padded patches, and how to put the patches back."""

    tokens: Tensor
    grid: tuple[int, int]
    positions: Tensor
    rope: Tensor | None
    keys: Tensor | None = None
    index: Tensor | None = None

    def to_grid(self, patches: Tensor) -> Tensor:
        """[B, N', K] -> [B, h, w, K], zero where there is padding."""
        if self.index is not None:
            full = patches.new_zeros(patches.shape[0], self.grid[0] * self.grid[1], patches.shape[2])
            if self.keys is not None:
                patches = patches * self.keys[:, -patches.shape[1] :, None]
            patches = full.scatter(1, self.index[:, :, None].expand_as(patches), patches)
        return cast("Tensor", patches.unflatten(1, self.grid))


class TokenBackbone(BaseBackbone, ABC):
    """Base of the vision transformers; a family gives the pieces.

    Attributes:
        blocks: The transformer blocks.
        prefix: Tokens before the patches.
        class_token: Whether the image embedding reads the first token alone.
        fast_blocks: The blocks before the last in another number format; see :mod:`concept_cam.backbones.int8`.
    """

    blocks: Sequence[Block]
    fast_blocks: FastBlocks | None = None
    prefix: int
    class_token: bool

    @abstractmethod
    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        """Makes tokens of pixels [B, 3, H, W] of any size the tower can read.

        ``valid``, bool [B, h, w], says which cells are no padding, to towers whose places depend on it; the others ignore it.
        """

    def enter(self, tokens: Tensor) -> Tensor:
        """Applies the norm before the first block, where there is one: [B, L, W] -> [B, L, W]."""
        return tokens

    @abstractmethod
    def project_patches(self, patches: Tensor) -> Tensor:
        """Takes tokens as the last block leaves them to the joint space, each alone: [B, N, W] -> [B, N, D]."""

    @abstractmethod
    def settle(self, tokens: Tensor) -> Tensor:
        """Applies what stands between the last block and the pooling (a norm): [B, L, W] -> [B, L, W]."""

    @abstractmethod
    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        """Pools settled tokens to the image embedding: [B, L, W] -> [B, D]; class-token towers receive the class token only."""

    @abstractmethod
    def own_embedding(self, pixels: Tensor) -> Tensor:
        """Runs the model's own image embedding at its native size."""

    @quiet(graph=False)
    def library_embedding(self, pixels: Tensor) -> Tensor | None:
        """See :meth:`concept_cam.backbones.common.BaseBackbone.library_embedding`."""
        pixels = self._prepare(pixels)
        return self.own_embedding(pixels) if self._is_native(pixels) else self.own_embedding_at(pixels)

    def own_embedding_at(self, pixels: Tensor) -> Tensor | None:
        """Runs the library's own image embedding at another size, with its own interpolation; ``None`` where it has none."""
        return None

    @property
    def number_format(self) -> str:
        """What the tower computes in."""
        return super().number_format if self.fast_blocks is None else "int8"

    @property
    def gathers(self) -> str:
        """Whose attention gathers the picture; families with an attention pooling say so themselves."""
        return BY_CLASS_TOKEN if self.class_token else ""

    @property
    def transformer(self) -> TokenBackbone:
        """Itself."""
        return self

    @property
    def middle(self) -> int:
        """Number of blocks after which the tokens of the ``affinity`` strategies are taken: two thirds of the depth."""
        return max(1, min(len(self.blocks) - 1, round(2 * len(self.blocks) / 3)))

    @quiet(graph=False)
    def encode_image(self, pixels: Tensor) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_image`."""
        pixels = self._prepare(pixels)
        return self.own_embedding(pixels) if self._is_native(pixels) else self.pool(self._feature_map(pixels, None))

    @quiet(graph=False)
    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_patches`."""
        strategy = self._strategy(attention)
        pixels = self._prepare(pixels)
        sequence = self._sequence(pixels, valid)
        if strategy.depth > 1:
            patches, image = self._second_path(sequence, strategy)
            return ImageFeatures(patches=sequence.to_grid(patches), image=image)
        x, middle = self._run(sequence, "middle" in strategy.needs)
        patches, image = self._last(x, middle, sequence, strategy)
        return ImageFeatures(patches=sequence.to_grid(patches), image=image)

    @property
    def layers(self) -> tuple[str, ...]:  # type: ignore[override]
        """Later tokens than those after the last block's first norm do not reach a class token; other poolings read the last ones."""
        return ("norm1",) if self.class_token else ("last", "norm1")

    @quiet()
    def feature_map(self, pixels: Tensor, valid: Tensor | None = None, layer: str | None = None) -> FeatureMap:
        """See :meth:`concept_cam.backbones.protocol.Backbone.feature_map`."""
        return self._feature_map(self._prepare(pixels), valid, self._layer(layer))

    @quiet()
    def pool(self, features: FeatureMap) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.pool`."""
        if features.stream is not None:
            return self._pool_normed(features, valid_tokens(features, self.prefix))
        if not self.class_token:
            return self.pool_tokens(map_tokens(features, self.prefix), valid_tokens(features, self.prefix))
        last = TokenBackbone.gathering(self, features)
        return last.finish(attend(last.query, last.key, last.value, last.scale, last.keys))

    def gathering(self, features: FeatureMap) -> Gathering:
        """See :meth:`concept_cam.backbones.protocol.Backbone.gathering`: the class token's query in the last block."""
        if not self.class_token or features.prefix is None:
            return super().gathering(features)
        block, tokens = self.blocks[-1], features.prefix
        normed = torch.cat([block.norm(tokens), features.map.flatten(2).transpose(1, 2)], dim=1)
        key, value = block.project(normed, "kv", self.rope((features.map.shape[2], features.map.shape[3])))
        (query,) = block.project(normed[:, :1], "q")
        prefix = tokens.shape[1]
        keys = valid_tokens(features, prefix)
        return Gathering(query, key, value, block.scale, prefix, keys, lambda context: self._class_embedding(tokens, context))

    def rope(self, grid: tuple[int, int]) -> Tensor | None:
        """Returns the rotary embedding [h * w, e] of a grid, for towers that have one."""
        return None

    # ------------------------------------------------------------------------------------------------------------ pieces

    def _sequence(self, pixels: Tensor, valid: Tensor | None) -> _Sequence:
        valid = self._prepare_valid(valid, pixels)
        embedded = self.embed(pixels, valid)
        height, width = embedded.grid
        rows = torch.arange(height, device=pixels.device).repeat_interleave(width)
        columns = torch.arange(width, device=pixels.device).repeat(height)
        positions = torch.stack([rows, columns], dim=-1)[None].float()
        if valid is None:
            return _Sequence(self.enter(embedded.tokens), embedded.grid, positions, embedded.rope)
        flat = valid.flatten(1)
        counts = flat.sum(dim=1)
        longest = int(counts.max())
        index = torch.sort((~flat).to(torch.uint8), dim=1, stable=True).indices[:, :longest]
        keys = None
        if bool((counts != longest).any()):
            patch_keys = torch.arange(longest, device=flat.device) < counts[:, None]
            keys = torch.cat([patch_keys.new_ones(len(flat), self.prefix), patch_keys], dim=1)
        patches = embedded.tokens[:, self.prefix :]
        kept = patches.gather(1, index[:, :, None].expand(-1, -1, patches.shape[2]))
        tokens = torch.cat([embedded.tokens[:, : self.prefix], kept], dim=1)
        rope = None if embedded.rope is None else embedded.rope[index][:, None]
        return _Sequence(self.enter(tokens), embedded.grid, positions[0][index], rope, keys, index)

    def _run(self, sequence: _Sequence, keep_middle: bool) -> tuple[Tensor, Tensor | None]:
        """Runs all blocks but the last; returns the stream and, when asked for, the middle block's tokens."""
        x, middle = sequence.tokens, None
        if self.fast_blocks is not None:
            x, middle = self.fast_blocks(x, sequence.keys)
            return x, middle if keep_middle else None
        for done, block in enumerate(self.blocks[:-1], start=1):
            x = block(x, sequence.keys, sequence.rope)
            if keep_middle and done == self.middle:
                middle = x
        return x, x if keep_middle and middle is None else middle

    def _last(self, x: Tensor, middle: Tensor | None, sequence: _Sequence, strategy: Strategy) -> tuple[Tensor, Tensor]:
        """Reads patch features [B, N', D] and image embedding [B, D] from the stream that enters the last block."""
        block, keys, rope = self.blocks[-1], sequence.keys, sequence.rope
        own = strategy is ATTENTION_STRATEGIES["vanilla"]
        full = block(x, keys, rope) if own or not self.class_token else None
        image = None if full is None else self._pool_full(full, keys)
        if own and full is not None and image is not None:
            return self.project_patches(full[:, self.prefix :]), image

        normed = block.norm(x)
        wanted = "".join(name[0] for name in ("query", "key") if name in strategy.needs) + "v"
        parts = dict(zip(wanted, block.project(normed, wanted, rope), strict=True))
        if image is None:
            query = parts["q"][:, :, :1] if "q" in parts else block.project(normed[:, :1], "q")[0]
            if "k" in parts:
                seen = attend(query, parts["k"], parts["v"], block.scale, keys)
            else:
                seen = block.look(query, normed, parts["v"], keys, rope)
            image = self._class_embedding(x, seen)
        context = strategy.read(
            LastAttention(
                query=parts.get("q"),
                key=parts.get("k"),
                value=parts["v"],
                prefix=self.prefix,
                scale=block.scale,
                positions=sequence.positions,
                keys=keys,
                stream=x,
                normed=normed,
                middle=middle,
            )
        )
        patches = block.output(context)
        if strategy.residual:
            patches = x[:, self.prefix :] + patches
        if strategy.ffn:
            patches = patches + block.feed_forward(patches)
        return self.project_patches(patches), image

    def _second_path(self, sequence: _Sequence, strategy: Strategy) -> tuple[Tensor, Tensor]:
        """Adds up what each of the last blocks reads from the model's own stream: patch features [B, N', D] and image embedding [B, D]."""
        x, keys, rope = sequence.tokens, sequence.keys, sequence.rope
        first = max(0, len(self.blocks) - strategy.depth)
        for block in self.blocks[:first]:
            x = block(x, keys, rope)
        path = x[:, self.prefix :]
        for block in self.blocks[first:]:
            normed = block.norm(x)
            query, key, value = block.project(normed, "qkv", rope)
            path = path + block.output(
                strategy.read(
                    LastAttention(
                        query=query,
                        key=key,
                        value=value,
                        prefix=self.prefix,
                        scale=block.scale,
                        positions=sequence.positions,
                        keys=keys,
                        stream=x,
                        normed=normed,
                    )
                )
            )
            x = block(x, keys, rope)
        return self.project_patches(path), self._pool_full(x, keys)

    def _pool_full(self, full: Tensor, keys: Tensor | None) -> Tensor:
        tokens = full[:, :1] if self.class_token else full
        return self.pool_tokens(self.settle(tokens), keys)

    def _class_embedding(self, x: Tensor, context: Tensor) -> Tensor:
        block = self.blocks[-1]
        token = x[:, :1] + block.output(context)
        token = token + block.feed_forward(token)
        return self.pool_tokens(self.settle(token), None)

    def _pool_normed(self, features: FeatureMap, keys: Tensor | None) -> Tensor:
        """Runs the last block from its normed tokens on: what it adds depends on the map, what it adds to does not."""
        block, stream = self.blocks[-1], features.stream
        assert stream is not None
        normed = torch.cat([block.norm(stream[:, : self.prefix]), features.map.flatten(2).transpose(1, 2)], dim=1)
        query, key, value = block.project(normed, "qkv", self.rope((features.map.shape[2], features.map.shape[3])))
        x = stream + block.output(attend(query, key, value, block.scale, keys))
        return self.pool_tokens(self.settle(x + block.feed_forward(x)), keys)

    def _feature_map(self, pixels: Tensor, valid: Tensor | None, layer: str | None = None) -> FeatureMap:
        layer = layer or self.layers[0]
        sequence = self._sequence(pixels, valid)
        x, _ = self._run(sequence, keep_middle=False)
        stream = None
        if layer == "norm1":
            # A norm ignores a token's length, so gradient times activation would sum to zero before it.
            patches = self.blocks[-1].norm(x[:, self.prefix :])
            if not self.class_token:
                spread = sequence.to_grid(x[:, self.prefix :]).flatten(1, 2)
                stream = torch.cat([x[:, : self.prefix], spread], dim=1)
        else:
            x = self.settle(self.blocks[-1](x, sequence.keys, sequence.rope))
            patches = x[:, self.prefix :]
        return FeatureMap(
            stream=stream,
            map=sequence.to_grid(patches).permute(0, 3, 1, 2),
            prefix=x[:, : self.prefix] if self.prefix else None,
            valid=None if sequence.index is None else self._prepare_valid(valid, pixels),
        )


def map_tokens(features: FeatureMap, prefix: int) -> Tensor:
    """Returns a feature map as tokens [B, prefix + N, K]."""
    patches = features.map.flatten(2).transpose(1, 2)
    return patches if not prefix or features.prefix is None else torch.cat([features.prefix, patches], dim=1)


def valid_tokens(features: FeatureMap, prefix: int) -> Tensor | None:
    """Returns which tokens of a feature map are no padding, bool [B, prefix + N]; ``None``: all."""
    if features.valid is None:
        return None
    valid = features.valid.flatten(1)
    return torch.cat([valid.new_ones(len(valid), prefix), valid], dim=1)


def project_attention(attention: Any, query: Tensor, tokens: Tensor) -> list[Tensor]:
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


def masked_mean(tokens: Tensor, keys: Tensor | None) -> Tensor:
    """Returns the mean over valid tokens: [B, N, W] -> [B, W]; ``keys`` bool [B, N], ``None``: all."""
    if keys is None:
        return tokens.mean(dim=1)
    weights = keys[:, :, None].to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)


ALL_ATTENTIONS: tuple[str, ...] = tuple(ATTENTION_STRATEGIES)
"""Strategies of every vision transformer."""
