"""open_clip vision transformers: class token, mean pooling, attentional pooler (CoCa)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.common import resize_positions
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import BY_POOLING, FeatureMap, Gathering
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import (
    ALL_ATTENTIONS,
    Block,
    Embedded,
    TokenBackbone,
    map_tokens,
    masked_mean,
    merge_heads,
    project_attention,
    split_heads,
    valid_tokens,
)
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess


class OpenClipBlock(Block):
    """A residual attention block of open_clip, with ``nn.MultiheadAttention`` or open_clip's own ``Attention``.

    Args:
        block: The module.

    Raises:
        UnsupportedModelError: The attention is not made of the parts known here.
    """

    def __init__(self, block: nn.Module) -> None:
        module: Any = block
        attention = module.attn
        if getattr(attention, "in_proj_weight", None) is None or getattr(attention, "logit_scale", None) is not None:
            raise UnsupportedModelError(
                f"the attention {type(attention).__name__} of this open_clip model cannot be read: expected joint projection weights "
                "(in_proj_weight) and plain dot products. Report the model's name to this project."
            )
        if not getattr(attention, "batch_first", True):
            raise UnsupportedModelError("the model was built with batch_first=False; build it with open_clip >= 3.0 defaults.")
        self._block = module
        self._attention = attention
        self._heads = int(attention.num_heads)
        width = attention.in_proj_weight.shape[1]
        self.scale = (width // self._heads) ** -0.5

    def norm(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._block.ln_1(x))

    def project(self, normed: Tensor, which: str, rope: Tensor | None = None) -> tuple[Tensor, ...]:
        attention = self._attention
        width = attention.in_proj_weight.shape[1]
        out = []
        for letters in _runs(which):
            rows = slice("qkv".index(letters[0]) * width, ("qkv".index(letters[-1]) + 1) * width)
            bias = None if attention.in_proj_bias is None else attention.in_proj_bias[rows]
            projected = F.linear(normed, attention.in_proj_weight[rows], bias)
            for letter, part in zip(letters, projected.split(width, dim=-1), strict=True):
                part = split_heads(part, self._heads)
                if letter == "q" and hasattr(attention, "ln_q"):
                    part = attention.ln_q(part)
                if letter == "k" and hasattr(attention, "ln_k"):
                    part = attention.ln_k(part)
                out.append(part)
        return tuple(out)

    def output(self, context: Tensor) -> Tensor:
        attention = self._attention
        if getattr(attention, "head_scale", None) is not None:
            context = context * attention.head_scale
        merged = merge_heads(context)
        if hasattr(attention, "ln_inner"):
            merged = attention.ln_inner(merged)
        out = attention.out_proj(merged)
        if hasattr(self._block, "ln_attn"):
            out = self._block.ln_attn(out)
        return cast("Tensor", self._block.ls_1(out))

    def feed_forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._block.ls_2(self._block.mlp(self._block.ln_2(x))))

    def look(self, query: Tensor, normed: Tensor, value: Tensor, keys: Tensor | None, rope: Tensor | None) -> Tensor:
        attention = self._attention
        if hasattr(attention, "ln_k"):
            return super().look(query, normed, value, keys, rope)
        # q (W_k n + b_k)' = (q W_k) n' + const, and softmax ignores the constant: the key projection of all tokens is not needed.
        width = normed.shape[-1]
        weight = attention.in_proj_weight[width : 2 * width].unflatten(0, (self._heads, -1))
        folded = torch.einsum("bhqd,hdw->bhqw", query, weight).squeeze(2)
        logits = (folded @ normed.transpose(1, 2)) * self.scale
        if keys is not None:
            logits = logits.masked_fill(~keys[:, None], float("-inf"))
        return logits.softmax(dim=-1).unsqueeze(2) @ value

    def own(self, x: Tensor, rope: Tensor | None) -> Tensor | None:
        return cast("Tensor | None", self._block(x))


def _runs(which: str) -> list[str]:
    """Splits letters into runs that stand together in the joint projection: ``"qv"`` -> ``["q", "v"]``, ``"kv"`` -> ``["kv"]``."""
    runs: list[str] = []
    for letter in which:
        if runs and "qkv".index(letter) == "qkv".index(runs[-1][-1]) + 1:
            runs[-1] += letter
        else:
            runs.append(letter)
    return runs


class OpenClipViT(TokenBackbone):
    """Reads ``open_clip.transformer.VisionTransformer``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: An open_clip model whose ``visual`` is such a transformer.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.
    """

    prefix = 1

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        visual: Any = model.visual
        self._visual = visual
        self.blocks = [OpenClipBlock(block) for block in visual.transformer.resblocks]
        pool = visual.pool_type
        if visual.attn_pool is not None:
            if visual.attn_pool_contrastive is not None or pool not in ("tok", "avg"):
                raise UnsupportedModelError(
                    f"{name}: the two-stage attentional pooler of open_clip has no image embedding that can be localised."
                )
            family = "open_clip-vit-attention-pool"
        elif pool == "tok":
            family = "open_clip-vit"
        elif pool == "avg":
            family = "open_clip-vit-mean"
        else:
            raise UnsupportedModelError(f"{name}: the pooling {pool!r} of this vision transformer gives no image embedding.")
        self.class_token = family == "open_clip-vit"
        super().__init__(
            model,
            name=name,
            family=family,
            preprocess=preprocess,
            text=text,
            embed_dim=int(visual.output_dim if visual.proj is None else visual.proj.shape[1]),
            attentions=ALL_ATTENTIONS,
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        visual = self._visual
        patches = visual.conv1(pixels)
        grid = (patches.shape[2], patches.shape[3])
        patches = patches.flatten(2).transpose(1, 2)
        table = visual.positional_embedding.to(patches.dtype)
        if grid != tuple(visual.grid_size):
            table = torch.cat([table[:1], resize_positions(table[1:], visual.grid_size, grid)])
        token = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return Embedded(torch.cat([token, patches], dim=1) + table, grid)

    def enter(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._visual.ln_pre(tokens))

    def project_patches(self, patches: Tensor) -> Tensor:
        visual = self._visual
        if visual.attn_pool is not None:
            patches = _value_path(visual.attn_pool, patches)
        patches = visual.ln_post(patches)
        return patches if visual.proj is None else patches @ visual.proj

    def settle(self, tokens: Tensor) -> Tensor:
        late = self._visual.attn_pool is not None or self._visual.final_ln_after_pool
        return tokens if late and not self.class_token else self._visual.ln_post(tokens)

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        visual = self._visual
        if self.class_token:
            pooled = settled[:, 0]
        elif visual.attn_pool is not None:
            queries = visual.ln_post(_attentional_pool(visual.attn_pool, settled, keys))
            pooled = queries[:, 0] if visual.pool_type == "tok" else queries[:, 1:].mean(dim=1)
        else:
            pooled = masked_mean(settled[:, 1:], None if keys is None else keys[:, 1:])
            if visual.final_ln_after_pool:
                pooled = visual.ln_post(pooled)
        return pooled if visual.proj is None else pooled @ visual.proj

    @property
    def gathers(self) -> str:
        pooled = self._visual.attn_pool is not None and self._visual.pool_type == "tok"
        return BY_POOLING if pooled else super().gathers

    def gathering(self, features: FeatureMap) -> Gathering:
        """See :meth:`concept_cam.backbones.protocol.Backbone.gathering`.

        CoCa: the first query of the attentional pooler is the image embedding, the others feed the captioner.
        """
        if self.gathers != BY_POOLING:
            return super().gathering(features)
        visual, prefix = self._visual, self.prefix
        pool = visual.attn_pool
        tokens = pool.ln_k(map_tokens(features, prefix))
        asked = pool.ln_q(pool.query)[None, :1].expand(len(tokens), -1, -1)
        query, key, value = project_attention(pool.attn, asked, tokens)

        def finish(context: Tensor) -> Tensor:
            x = visual.ln_post(pool.attn.out_proj(merge_heads(context)))[:, 0]
            return cast("Tensor", x if visual.proj is None else x @ visual.proj)

        return Gathering(query, key, value, float(query.shape[-1]) ** -0.5, prefix, valid_tokens(features, prefix), finish)

    def own_embedding(self, pixels: Tensor) -> Tensor:
        out = self._visual(pixels)
        return cast("Tensor", out[0] if isinstance(out, tuple) else out)

    def own_embedding_at(self, pixels: Tensor) -> Tensor | None:
        # What open_clip does when a model is built for another size: its own function resizes the table.
        from open_clip.model import resize_pos_embed

        rows, columns = self.preprocess.stride
        state = {"visual.positional_embedding": self._visual.positional_embedding.detach().clone()}
        grid = (pixels.shape[2] // rows, pixels.shape[3] // columns)
        resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
        table = {"positional_embedding": state["visual.positional_embedding"].to(pixels)}
        out = torch.func.functional_call(self._visual, table, (pixels,))
        return cast("Tensor", out[0] if isinstance(out, tuple) else out)


def _attentional_pool(pooler: Any, tokens: Tensor, keys: Tensor | None) -> Tensor:
    """Runs open_clip's ``AttentionalPooler`` with padded tokens left out: [B, L, W] -> [B, queries, D]."""
    normed = pooler.ln_k(tokens)
    query = pooler.ln_q(pooler.query)[None].expand(len(tokens), -1, -1)
    return cast("Tensor", pooler.attn(query, normed, normed, key_padding_mask=None if keys is None else ~keys, need_weights=False)[0])


def _value_path(pooler: Any, patches: Tensor) -> Tensor:
    """Passes each patch alone through an ``AttentionalPooler``, whose attention is then its value: [B, N, W] -> [B, N, D]."""
    attention = pooler.attn
    width = attention.embed_dim
    weight = attention.v_proj_weight if attention.in_proj_weight is None else attention.in_proj_weight[2 * width :]
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[2 * width :]
    return cast("Tensor", attention.out_proj(F.linear(pooler.ln_k(patches), weight, bias)))


def read(made: Made) -> OpenClipViT:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    visual = made.visual
    return OpenClipViT(made.model, name=made.name, preprocess=made.preprocess(visual.image_size, visual.patch_size), text=made.words)
