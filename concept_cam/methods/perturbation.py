"""Score-CAM and Ablation-CAM: channels weighted by what the model says with and without them.

Both are restated here rather than taken from a library, because one set of forward passes serves all concepts, and because the libraries'
forms do not carry over to transformers: grad-cam ablates a channel that has negative values by writing -10^7 into it, which the next
normalisation turns into noise, and divides by the score, which turns the map around where a contrast is negative. The tests compare both
with the libraries where they are meant to agree.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.methods.engine import Batch, TowerMethod

__all__ = ["ablation_cam", "score_cam"]

CHUNK = 32
"""Perturbed pictures per forward pass."""


def _score_cam(batch: Batch) -> Tensor:
    """``sum_k softmax_k(y(x * M_k)) A_k`` with ``M_k`` the channel, min-max scaled to 0..1 and enlarged to the picture.

    The softmax is over the model's own logits (``y`` times the logit scale): over cosines its weights would all be equal.
    """
    return torch.stack([_score_cam_single(batch.single(row)) for row in range(len(batch.pixels))])


@torch.no_grad()
def _score_cam_single(batch: Batch) -> Tensor:
    features = batch.features.map[0].float()
    valid = batch.valid[0]
    inside = features[:, valid]
    low, high = inside.amin(dim=1), inside.amax(dim=1)
    masks = (features - low[:, None, None]) / (high - low + 1e-8)[:, None, None] * valid
    scores = []
    for chunk in masks.split(CHUNK):
        large = F.interpolate(chunk[:, None], batch.pixels.shape[2:], mode="bilinear", align_corners=False)
        pixels = batch.pixels * large.to(batch.pixels.dtype)
        known = batch.features.valid
        mask = None if known is None else known.expand(len(chunk), -1, -1)
        backbone = batch.backbone
        image = backbone.pool(backbone.feature_map(pixels, mask))
        scores.append(batch.normalise(image) @ batch.directions[0].T)
    weights = torch.softmax(batch.temperature * torch.cat(scores), dim=0)
    return torch.einsum("kc,khw->chw", weights, features)


def _ablation_cam(batch: Batch) -> Tensor:
    """``sum_k (y - y_k) A_k`` with ``y_k`` the objective when channel ``k`` is zero; without the paper's factor ``1 / y``."""
    return torch.stack([_ablation_cam_single(batch.single(row)) for row in range(len(batch.pixels))])


@torch.no_grad()
def _ablation_cam_single(batch: Batch) -> Tensor:
    features = batch.features
    whole = batch.objective(batch.image)[0]
    drops = []
    for channels in torch.arange(features.map.shape[1], device=features.map.device).split(CHUNK):
        count = len(channels)
        ablated = features.map.repeat(count, 1, 1, 1)
        ablated[torch.arange(count), channels] = 0
        repeated = replace(
            features,
            map=ablated,
            prefix=None if features.prefix is None else features.prefix.expand(count, -1, -1),
            valid=None if features.valid is None else features.valid.expand(count, -1, -1),
        )
        drops.append(whole - batch.normalise(batch.backbone.pool(repeated)) @ batch.directions[0].T)
    return torch.einsum("kc,khw->chw", torch.cat(drops), features.map[0].float())


score_cam = TowerMethod(_score_cam)
"""Score-CAM (before the ReLU)."""

ablation_cam = TowerMethod(_ablation_cam)
"""Ablation-CAM (before the ReLU)."""
