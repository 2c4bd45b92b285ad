"""Score-CAM and Ablation-CAM: channels weighted by what the model says with and without them; RISE: random masks weighted likewise.

Both are restated here rather than taken from a library, because one set of forward passes serves all concepts, and because the libraries'
forms do not carry over to transformers: grad-cam ablates a channel that has negative values by writing -10^7 into it, which the next
normalisation turns into noise, and divides by the score, which turns the map around where a contrast is negative. The tests compare both
with the libraries where they are meant to agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.protocol import Backbone
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import Settings
from concept_cam.methods.engine import Batch, TowerMethod, without_graph

__all__ = ["ablation_cam", "expected_passes", "rise", "rise_map", "rise_masks", "score_cam"]

PASS_SIZE = 16
"""Perturbed pictures per forward pass."""


def _score_cam(batch: Batch, groups: int | None = None) -> Tensor:
    """``sum_k softmax_k(y(x * M_k)) A_k`` with ``M_k`` the channel, min-max scaled to 0..1 and enlarged to the picture.

    The softmax is over the model's own logits (``y`` times the logit scale): over cosines its weights would all be equal. With ``groups``,
    channels that light up alike share one mask, their mean, and its score; as many groups as channels is the method itself. One set of
    forward passes serves all concepts.
    """
    return torch.stack([_score_cam_single(batch.single(row), groups) for row in range(len(batch.pixels))])


def _grouped(argument: str) -> Callable[[Batch], Tensor]:
    if not argument.isdigit() or int(argument) < 1:
        raise ConfigurationError(f"score-cam:GROUPS takes a whole number of at least 1, received {argument!r}.")
    return lambda batch: _score_cam(batch, int(argument))


def group_channels(masks: Tensor, count: int) -> Tensor:
    """Groups channels whose masks [K, n] look alike: int64 [K], numbers from 0.

    Seeds are picked one after the other, each the mask that is least like any seed before it, from the strongest on; every channel joins
    its most similar seed. Nothing is drawn at random.
    """
    unit = F.normalize(masks - masks.mean(dim=1, keepdim=True), dim=1)
    if count >= len(masks):
        return torch.arange(len(masks), device=masks.device)
    seed = int(masks.sum(dim=1).argmax())
    nearest = unit @ unit[seed]
    owner = torch.zeros(len(masks), dtype=torch.long, device=masks.device)
    for number in range(1, count):
        likeness = unit @ unit[int(nearest.argmin())]
        closer = likeness > nearest
        owner[closer] = number
        nearest = torch.where(closer, likeness, nearest)
    return owner


@torch.no_grad()
def _score_cam_single(batch: Batch, groups: int | None) -> Tensor:
    features = batch.features.map[0].float()
    valid = batch.valid[0]
    inside = features[:, valid]
    low, high = inside.amin(dim=1), inside.amax(dim=1)
    masks = (features - low[:, None, None]) / (high - low + 1e-8)[:, None, None] * valid
    scores = []
    owner = None if groups is None else group_channels(masks[:, valid], groups)
    if owner is not None:
        members = F.one_hot(owner).to(masks.dtype)
        members = members[:, members.sum(dim=0) > 0]
        owner = members.argmax(dim=1)
        masks = torch.einsum("kg,khw->ghw", members / members.sum(dim=0), masks)
        masks = masks / masks.flatten(1).amax(dim=1).clamp(min=1e-8)[:, None, None]
    # Channels that are nowhere active, half of them behind a ReLU, all make the same mask: equal masks are asked once.
    distinct, place = torch.unique(masks.flatten(1), dim=0, return_inverse=True)
    for chunk in distinct.unflatten(1, masks.shape[1:]).split(PASS_SIZE):
        large = F.interpolate(chunk[:, None], batch.pixels.shape[2:], mode="bilinear", align_corners=False)
        pixels = batch.pixels * large.to(batch.pixels.dtype)
        known = batch.features.valid
        mask = None if known is None else known.expand(len(chunk), -1, -1)
        backbone = batch.backbone
        image = backbone.pool(backbone.feature_map(pixels, mask))
        scores.append(batch.normalise(image) @ batch.directions[0].T)
    found = torch.cat(scores)[place if owner is None else place[owner]]
    weights = torch.softmax(batch.temperature * found, dim=0)
    return torch.einsum("kc,khw->chw", weights, features)


def _ablation_cam(batch: Batch) -> Tensor:
    """``sum_k (y - y_k) A_k`` with ``y_k`` the objective when channel ``k`` is zero; without the paper's factor ``1 / y``."""
    return torch.stack([_ablation_cam_single(batch.single(row)) for row in range(len(batch.pixels))])


@torch.no_grad()
def _ablation_cam_single(batch: Batch) -> Tensor:
    features = batch.features
    whole = batch.objective(batch.image)[0]
    drops = []
    for channels in torch.arange(features.map.shape[1], device=features.map.device).split(PASS_SIZE):
        count = len(channels)
        ablated = features.map.repeat(count, 1, 1, 1)
        ablated[torch.arange(count), channels] = 0
        repeated = replace(
            features,
            map=ablated,
            prefix=None if features.prefix is None else features.prefix.expand(count, -1, -1),
            stream=None if features.stream is None else features.stream.expand(count, -1, -1),
            valid=None if features.valid is None else features.valid.expand(count, -1, -1),
        )
        drops.append(whole - batch.normalise(batch.backbone.pool(repeated)) @ batch.directions[0].T)
    return torch.einsum("kc,khw->chw", torch.cat(drops), features.map[0].float())


score_cam = TowerMethod(_score_cam, adapt=_grouped)
"""Score-CAM (before the ReLU)."""

ablation_cam = TowerMethod(_ablation_cam)
"""Ablation-CAM (before the ReLU)."""


# ------------------------------------------------------------------------------------------------------------------- RISE

RISE_CELLS = 7
"""Cells per side of RISE's random masks (the paper's value)."""
RISE_SHARE = 0.5
"""Share of cells that are shown (the paper's value)."""
RISE_MASKS = 1000
"""Masks by default; the paper takes 4,000 for VGG-16 and 8,000 for ResNet-50."""


def rise_masks(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Draws RISE's masks, float32 [count, H, W] in 0..1: a random grid of shown cells, enlarged by a cell's size and cut at a random place.

    Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.
    """
    generator = torch.Generator().manual_seed(seed)
    cell = tuple(-(-side // RISE_CELLS) for side in size)
    small = (torch.rand(count, 1, RISE_CELLS, RISE_CELLS, generator=generator) < RISE_SHARE).float()
    masks = torch.empty(count, *size)
    for index in range(count):
        large = F.interpolate(
            small[index : index + 1], ((RISE_CELLS + 1) * cell[0], (RISE_CELLS + 1) * cell[1]), mode="bilinear", align_corners=False
        )[0, 0]
        top, left = (int(torch.randint(0, step, (1,), generator=generator)) for step in cell)
        masks[index] = large[top : top + size[0], left : left + size[1]]
    return masks


def rise_map(score: Callable[[Tensor], Tensor], pixels: Tensor, masks: Tensor) -> Tensor:
    """Averages masks by the score of what they show: float32 [C, H, W].

    ``S = sum_i s(x * M_i) M_i / (N p)``: ``score`` [B, 3, H, W] -> [B, C] is asked of the pixels [3, H, W] under each mask [N, H, W]; what
    is hidden becomes zero, the mean colour of preprocessed pixels.
    """
    total = torch.zeros(())
    for chunk in masks.split(PASS_SIZE):
        chunk = chunk.to(pixels.device)
        found = score(pixels[None] * chunk[:, None].to(pixels.dtype)).float()
        total = total.to(found.device) + torch.einsum("nc,nhw->chw", found, chunk)
    return total / (len(masks) * RISE_SHARE)


def _rise(batch: Batch, count: int = RISE_MASKS) -> Tensor:
    """RISE with the objective as the score, its pixels averaged in each cell of the tower's map."""
    grid = (batch.features.map.shape[2], batch.features.map.shape[3])
    masks = rise_masks(count, (batch.pixels.shape[2], batch.pixels.shape[3]))
    maps = []
    with torch.no_grad():
        for row in range(len(batch.pixels)):
            single = batch.single(row)
            known = single.features.valid

            def score(pixels: Tensor, single: Batch = single, known: Tensor | None = known) -> Tensor:
                mask = None if known is None else known.expand(len(pixels), -1, -1)
                backbone = single.backbone
                return single.normalise(backbone.pool(backbone.feature_map(pixels, mask))) @ single.directions[0].T

            maps.append(F.adaptive_avg_pool2d(rise_map(score, single.pixels[0], masks)[None], grid)[0])
    return torch.stack(maps)


def _rise_count(argument: str) -> Callable[[Batch], Tensor]:
    if not argument.isdigit() or int(argument) < 1:
        raise ConfigurationError(f"rise:MASKS takes a whole number of at least 1, received {argument!r}.")
    return lambda batch: _rise(batch, int(argument))


rise = TowerMethod(_rise, adapt=_rise_count)
"""RISE, one forward pass per mask; the same masks for every picture of one size."""


def expected_passes(method: str, backbone: Backbone, settings: Settings) -> tuple[int, float] | None:
    """Returns how many forward passes a method of this module takes for one picture at most, and the seconds of one, measured; ``None`` for
    others.
    """
    name, _, argument = method.partition(":")
    if name.removesuffix("+relu") not in ("score-cam", "rise"):
        return None
    side = settings.size or max(backbone.preprocess.default_size)
    stride = backbone.preprocess.stride
    pixels = torch.zeros(PASS_SIZE, 3, *(max(step, side - side % step) for step in stride), device=backbone.device, dtype=backbone.dtype)
    with without_graph():
        channels = backbone.feature_map(pixels).map.shape[1]
        start = time.perf_counter()
        backbone.feature_map(pixels)
        seconds = (time.perf_counter() - start) / PASS_SIZE
    default = RISE_MASKS if name == "rise" else channels
    return (int(argument) if argument.isdigit() else default), seconds
