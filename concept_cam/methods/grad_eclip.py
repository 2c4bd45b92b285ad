"""Grad-ECLIP (Zhao et al., "Gradient-based Visual Explanation for Transformer-based CLIP", ICML 2024)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.tokens import merge_heads
from concept_cam.core.attention import attend
from concept_cam.methods.engine import Batch, TowerMethod, slopes, without_graph
from concept_cam.methods.pooling import require_gathering

__all__ = ["grad_eclip"]


def _maps(batch: Batch) -> Tensor:
    """``sum_d (dy / do)_d lambda_i v_id`` for each patch ``i`` (before the ReLU).

    ``o`` is the output of the attention that gathers the picture (the class token's in the last block, or a CLIP ResNet's pooling) before
    its output projection, heads side by side, ``v`` the values, and ``lambda_i`` the loosened attention: the cosine of the gathering query
    with the patch's key, min-max scaled over the picture's patches. The forward pass is the model's own, with all its heads; the released
    code runs the last block with a single head, which is another model, and passes query and key through the output projection before
    comparing them. The scaling of ``lambda`` is part of the method; the map itself is not scaled.
    """
    grid = (batch.features.map.shape[2], batch.features.map.shape[3])
    with without_graph():
        last = batch.backbone.gathering(batch.features)
        context = attend(last.query, last.key, last.value, last.scale, last.keys)
        valid = batch.valid.flatten(1)
        keys = merge_heads(last.key)[:, last.prefix :].float()
        loose = _loosened(merge_heads(last.query)[:, 0].float(), keys, valid)
        weighted = merge_heads(last.value)[:, last.prefix :].float() * loose[..., None]
    maps = [torch.einsum("bd,bnd->bn", merge_heads(gradient)[:, 0], weighted) for gradient in slopes(batch, context, last.finish)]
    return cast("Tensor", torch.stack(maps, dim=1).unflatten(2, grid))


def _loosened(query: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
    """Returns ``lambda`` float32 [B, N] in 0..1 for queries [B, W], keys [B, N, W] and valid patches bool [B, N]."""
    cosine = torch.einsum("bd,bnd->bn", F.normalize(query, dim=-1), F.normalize(keys, dim=-1))
    low = cosine.masked_fill(~valid, float("inf")).amin(dim=1, keepdim=True)
    high = cosine.masked_fill(~valid, float("-inf")).amax(dim=1, keepdim=True)
    return (cosine - low) / (high - low).clamp(min=1e-12)


grad_eclip = TowerMethod(_maps, require_gathering, layered=False)
"""Grad-ECLIP (before the ReLU)."""
