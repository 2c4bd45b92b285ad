"""LeGrad (Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity", ICCV 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from concept_cam.backbones.base import Backbone
from concept_cam.backbones.open_clip_resnet import OpenClipResNet
from concept_cam.backbones.tokens import Block, TokenBackbone
from concept_cam.methods.engine import Batch, TowerMethod, graph, plain
from concept_cam.methods.pooling import gathering
from concept_cam.types import UnsupportedModelError

__all__ = ["legrad"]

LAYERS = 2
"""Last blocks that are read, as in the released code."""


def _maps(batch: Batch) -> Tensor:
    """Mean over the last blocks ``l`` of ``mean_heads mean_queries relu(ds_l / dA_l)``, at each patch's key.

    ``A_l`` is the attention after the softmax and ``s_l`` the objective read from block ``l`` itself: the mean of its output tokens through
    the tower's last norm and projection. A CLIP ResNet has one attention, that of its pooling, and its own embedding as ``s``. Values are
    not negative; the paper's min-max scaling is left out.
    """
    backbone = batch.backbone
    if isinstance(backbone, OpenClipResNet):
        return _pooling(batch)
    assert isinstance(backbone, TokenBackbone)
    with plain():
        sequence = backbone._sequence(batch.pixels, batch.features.valid)
        x, entering = sequence.tokens, []
        for block in backbone.blocks:
            entering.append(x)
            x = block(x, sequence.keys, sequence.rope)
    maps = [
        _layer(batch, backbone, block, stream, sequence.keys, sequence.rope)
        for block, stream in list(zip(backbone.blocks, entering))[-LAYERS:]
    ]
    relevance = torch.stack(maps).mean(dim=0)[:, :, backbone.prefix :]
    return sequence.to_grid(relevance.transpose(1, 2)).permute(0, 3, 1, 2)


def _pooling(batch: Batch) -> Tensor:
    with plain():
        last = gathering(batch.backbone, batch.features)
        attention = _attention(last.query, last.key, last.scale, last.keys)
    with graph():
        leaf = attention.detach().clone().requires_grad_(True)
        scores = batch.objective(last.finish(leaf @ last.value)).sum(dim=0)
    maps = []
    for index in range(batch.concepts):
        with graph():
            (gradient,) = torch.autograd.grad(scores[index], leaf, retain_graph=index + 1 < batch.concepts)
        maps.append(gradient.float().clamp(min=0).mean(dim=1)[:, 0, last.prefix :])
    return torch.stack(maps, dim=1).unflatten(2, (batch.features.map.shape[2], batch.features.map.shape[3]))


def _attention(query: Tensor, key: Tensor, scale: float, keys: Tensor | None) -> Tensor:
    logits = (query @ key.transpose(-1, -2)) * scale
    if keys is not None:
        logits = logits.masked_fill(~keys[:, None, None, :], float("-inf"))
    return logits.softmax(dim=-1)


def _layer(
    batch: Batch,
    backbone: TokenBackbone,
    block: Block,
    stream: Tensor,
    keys: Tensor | None,
    rope: Tensor | None,
) -> Tensor:
    """Returns one block's relevance of each key, float32 [B, C, L]."""
    with plain():
        query, key, value = block.project(block.norm(stream), "qkv", rope)
        attention = _attention(query, key, block.scale, keys)
    weight = torch.ones_like(stream[:, :, :1]) if keys is None else keys[:, :, None].to(stream.dtype)
    with graph():
        leaf = attention.detach().clone().requires_grad_(True)
        out = stream + block.output(leaf @ value)
        out = out + block.feed_forward(out)
        mean = (out * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)
        scores = batch.objective(backbone.project_patches(mean)[:, 0]).sum(dim=0)
    relevance = []
    queries = weight[:, None, :, 0].float()
    for index in range(batch.concepts):
        with graph():
            (gradient,) = torch.autograd.grad(scores[index], leaf, retain_graph=index + 1 < batch.concepts)
        heads = gradient.float().clamp(min=0).mean(dim=1)
        relevance.append((queries @ heads)[:, 0] / queries.sum(dim=-1))
    return torch.stack(relevance, dim=1)


def _check(backbone: Backbone) -> None:
    if isinstance(backbone, OpenClipResNet):
        return
    pooled = not isinstance(backbone, TokenBackbone) or backbone.family.endswith(("pool", "siglip"))
    if pooled:
        raise UnsupportedModelError(
            f"LeGrad reads self-attention before a class token or a mean, or a CLIP ResNet's pooling, which {backbone.name!r} (family {backbone.family}) does not "
            "have. Use 'direct', 'grad-cam' or 'hires-cam' with this model."
        )


legrad = TowerMethod(_maps, _check)
"""LeGrad."""
