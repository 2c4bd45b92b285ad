"""Grad-ECLIP (Zhao et al., "Gradient-based Visual Explanation for Transformer-based CLIP", ICML 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.attention import attend
from concept_cam.backbones.tokens import TokenBackbone, merge_heads
from concept_cam.methods.engine import Batch, TowerMethod, graph, plain, require_class_token

__all__ = ["grad_eclip"]


def _maps(batch: Batch) -> Tensor:
    """``sum_d (dy / do)_d lambda_i v_id`` for each patch ``i`` (before the ReLU).

    ``o`` is the class token's attention output in the last block before its output projection, heads side by side, ``v`` the values, and
    ``lambda_i`` the loosened attention: the cosine of the class token's query with the patch's key, min-max scaled over the picture's
    patches. The forward pass is the model's own, with all its heads; the released code runs the last block with a single head, which is
    another model. Its scaling of ``lambda`` is part of the method; the map itself is not scaled.
    """
    backbone = batch.backbone
    assert isinstance(backbone, TokenBackbone)
    features = batch.features
    block = backbone.blocks[-1]
    grid = (features.map.shape[2], features.map.shape[3])
    assert features.prefix is not None
    prefix = features.prefix.shape[1]
    with plain():
        normed = torch.cat([block.norm(features.prefix), features.map.flatten(2).transpose(1, 2)], dim=1)
        key, value = block.project(normed, "kv", backbone.rope(grid))
        (query,) = block.project(normed[:, :1], "q")
        valid = batch.valid.flatten(1)
        keys = None
        if features.valid is not None:
            keys = torch.cat([valid.new_ones(len(valid), prefix), valid], dim=1)
        context = attend(query, key, value, block.scale, keys)
        loose = _loosened(merge_heads(query)[:, 0].float(), merge_heads(key)[:, prefix:].float(), valid)
        weighted = merge_heads(value)[:, prefix:].float() * loose[..., None]
    with graph():
        leaf = context.detach().clone().requires_grad_(True)
        token = features.prefix[:, :1] + block.output(leaf)
        token = token + block.feed_forward(token)
        scores = batch.objective(backbone.pool_tokens(backbone.settle(token), None)).sum(dim=0)
    maps = []
    for index in range(batch.concepts):
        with graph():
            (gradient,) = torch.autograd.grad(scores[index], leaf, retain_graph=index + 1 < batch.concepts)
        maps.append(torch.einsum("bd,bnd->bn", merge_heads(gradient)[:, 0].float(), weighted))
    return torch.stack(maps, dim=1).unflatten(2, grid)


def _loosened(query: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
    """Returns ``lambda`` float32 [B, N] in 0..1 for queries [B, W], keys [B, N, W] and valid patches bool [B, N]."""
    cosine = torch.einsum("bd,bnd->bn", F.normalize(query, dim=-1), F.normalize(keys, dim=-1))
    low = cosine.masked_fill(~valid, float("inf")).amin(dim=1, keepdim=True)
    high = cosine.masked_fill(~valid, float("-inf")).amax(dim=1, keepdim=True)
    return (cosine - low) / (high - low).clamp(min=1e-12)


grad_eclip = TowerMethod(_maps, require_class_token("Grad-ECLIP"))
"""Grad-ECLIP (before the ReLU)."""
