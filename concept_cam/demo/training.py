"""Train the small CLIP that ships with the package, from rendered fish and their captions alone.

No mask and no part position enters the loss. What teaches *where* are close-ups (a caption about a part outside the frame is false) and
a second reading of every caption: beside the pooled image embedding, the tower's value path gives each patch its own embedding, and a
caption is also judged by its best-matching patches (multiple-instance learning). That reading is the very map the package makes later.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from concept_cam import prompts
from concept_cam.demo import captions as writing
from concept_cam.demo import tokenizer as words
from concept_cam.demo import world
from concept_cam.demo.captions import FALSE, TRUE, Caption, CaptionWriter, Facts, Statement
from concept_cam.demo.traits import CHARACTER_PART, CHARACTERS, MASKS, PARTS, PRESENCE_CHARACTERS

MEAN: Final = (0.5, 0.5, 0.5)
STD: Final = (0.25, 0.25, 0.25)

TRAIN_SEED: Final = 1_000
"""Seed of the training pictures; the benchmark and the checks below use others."""
CHECK_SEED: Final = 7_000
READ_STRIDE: Final = 16
READ_SIZE: Final = 384
"""How maps are read by default: pixels between grid cells, and side of the picture."""


# ------------------------------------------------------------------------------------------------------------ configuration

LOSS_WEIGHTS: Final[dict[str, float]] = {
    "image": 1.0,
    "image_rank": 0.5,
    "image_siblings": 0.7,
    "image_parts": 0.5,
    "patch": 1.0,
    "patch_rank": 0.5,
    "patch_siblings": 0.7,
    "patch_parts": 0.5,
    "region": 1.5,
    "region_rank": 0.5,
    "region_parts": 1.5,
    "region_places": 1.5,
    "neutral": 0.5,
}
"""Captions judged by the image embedding, by their best patches, and by the best patches of a window: true or not, better than
`a fish` or not, best of its siblings; and not preferred to siblings where none of them can be seen."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run depends on.

    Attributes:
        arch: `resnet` (CLIP ResNet with attention pooling) or `vit` (small ViT with class token, for benchmarks).
        width: Width of the tower.
        layers: Blocks per stage of the ResNet.
        embed_dim: `D`, the joint embedding.
        steps: Optimiser steps.
        phases: `(end as a share of the steps, ((picture size in pixels, share of the phase), ...))`: small pictures first, since many
            more of them are seen in the same time.
        batch: Pictures per step and process at 128 pixels; other sizes get as many pixels.
        reuse: How often a rendered batch is used, each time changed by flips, light and size.
        pool: Rendered batches of one size that a step's pictures are drawn from.
        twins: Share of a batch that are counterfactual twins of others in it.
        windows: Windows cut out of a picture, in the batches that have any.
        window_share: Share of the other batches that have windows.
        regions: Windows whose captions are applied at their place in the whole picture, in the batches that have any.
        region_share: Share of the batches that have regions.
        region_sizes: Picture sizes of those batches.
        learning_rate: Peak of the schedule: linear warm-up, constant, then linear decay.
        weight_decay: For matrices only.
        warmup: Steps of warm-up.
        decay: Share of the steps, at the end, over which the learning rate falls to zero.
        weights: Weight of each term of the loss; see `losses`.
        ema: Decay of the averaged weights that are exported.
        seed: Seed of the weights, captions and augmentation.
        first_picture: Number of the first training picture under `TRAIN_SEED`.
    """

    arch: str = "resnet"
    width: int = 24
    layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    embed_dim: int = 256
    steps: int = 8000
    phases: tuple[tuple[float, tuple[tuple[int, float], ...]], ...] = (
        (0.25, ((64, 0.5), (96, 0.5))),
        (0.65, ((96, 0.5), (128, 0.5))),
        (1.00, ((96, 0.1), (128, 0.4), (160, 0.5))),
    )
    batch: int = 48
    reuse: int = 6
    pool: int = 64
    twins: float = 0.25
    windows: int = 3
    window_share: float = 0.7
    regions: int = 16
    region_share: float = 0.7
    region_sizes: tuple[int, ...] = (192, 256, 320)
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 200
    decay: float = 0.3
    weights: Mapping[str, float] = field(default_factory=lambda: dict(LOSS_WEIGHTS))
    ema: float = 0.996
    seed: int = 0
    first_picture: int = 0


def smoke_config(config: TrainConfig) -> TrainConfig:
    """The same, short: small pictures, few steps. Enough for colours and parts to rise above chance."""
    return replace(
        config,
        steps=120,
        phases=((1.0, ((64, 1.0),)),),
        region_sizes=(96,),
        batch=12,
        warmup=20,
        reuse=2,
        ema=0.95,
    )


def model_config(config: TrainConfig, vocabulary_size: int, image_size: int = 128) -> dict[str, Any]:
    """`model_cfg` of `open_clip_config.json`."""
    vision: dict[str, Any]
    if config.arch == "resnet":
        vision = {
            "image_size": image_size,
            "layers": list(config.layers),
            "width": config.width,
            "head_width": 64,
            "patch_size": None,
        }
    elif config.arch == "vit":
        vision = {"image_size": image_size, "layers": 5, "width": 192, "head_width": 64, "patch_size": 16}
    else:
        raise ValueError(f"unknown architecture {config.arch!r}: expected 'resnet' or 'vit'.")
    return {
        "embed_dim": config.embed_dim,
        "init_logit_bias": -2.0,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": words.CONTEXT_LENGTH,
            "vocab_size": vocabulary_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "bundled",
        },
    }


def build_model(config: TrainConfig, vocabulary_size: int) -> Any:
    """A stock `open_clip` model with fresh weights."""
    from concept_cam.backbones.torchvision_compat import import_open_clip

    torch.manual_seed(config.seed)
    settings = model_config(config, vocabulary_size)
    model = import_open_clip().model.CLIP(**settings, init_logit_scale=math.log(10.0))
    if config.arch == "resnet":
        # A bag of patches: pooling without positions can be read at any size, and each patch alone means the same as in the pool.
        with torch.no_grad():
            model.visual.attnpool.positional_embedding.zero_()
        model.visual.attnpool.positional_embedding.requires_grad_(False)
    return model


# ------------------------------------------------------------------------------------------------------------------- towers


def fine_features(visual: Any, x: Tensor) -> Tensor:
    """Last feature map of a CLIP ResNet at half its stride (16 pixels instead of 32).

    The last stage has one block, whose average pooling is followed by 1x1 convolutions only. Pooling with stride 1 therefore gives the
    stock features at every offset; `[..., ::2, ::2]` of it is the stock feature map.

    Args:
        x: [B, 3, H, W] preprocessed.

    Returns:
        [B, E, H/16 - 1, W/16 - 1].
    """
    x = visual.layer3(visual.layer2(visual.layer1(visual.stem(x))))
    block = visual.layer4[0]
    out = block.act2(block.bn2(block.conv2(block.act1(block.bn1(block.conv1(x))))))
    out = block.bn3(block.conv3(F.avg_pool2d(out, 2, stride=1)))
    skip = block.downsample[2](block.downsample[1](F.avg_pool2d(x, 2, stride=1)))
    return block.act3(out + skip)


def attention_pool(pool: Any, x: Tensor) -> Tensor:
    """`open_clip`'s attention pooling for a map of any size and positions that are all zero.

    Args:
        x: [B, E, h, w].

    Returns:
        [B, D].
    """
    tokens = x.flatten(2).transpose(1, 2)
    mean = tokens.mean(1, keepdim=True)
    tokens = torch.cat([mean, tokens], 1)
    heads = pool.num_heads

    def split(y: Tensor) -> Tensor:
        return y.unflatten(-1, (heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(
        split(pool.q_proj(mean)), split(pool.k_proj(tokens)), split(pool.v_proj(tokens))
    )
    return pool.c_proj(out.transpose(1, 2).flatten(2))[:, 0]


def encode_resnet(visual: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Image embedding [B, D] and patch embeddings [B, h, w, D] at stride 16 by the value path, both not normalised."""
    fine = fine_features(visual, x)
    pooled = attention_pool(visual.attnpool, fine[..., ::2, ::2])
    patches = visual.attnpool.c_proj(visual.attnpool.v_proj(fine.permute(0, 2, 3, 1)))
    return pooled, patches


def encode_vit(visual: Any, x: Tensor) -> tuple[Tensor, None]:
    """Image embedding [B, D] of a ViT, which reads one size only; its patches are not trained."""
    if x.shape[-2:] != tuple(visual.image_size):
        x = F.interpolate(
            x, size=tuple(visual.image_size), mode="bilinear", antialias=True, align_corners=False
        )
    return visual(x), None


def encode_text(clip: Any, tokens: Tensor) -> Tensor:
    """`clip.encode_text` without the padding that all texts share: the text tower is causal, so what follows the end has no effect.

    Args:
        tokens: int64 [N, L].

    Returns:
        [N, D].
    """
    longest = int((tokens != 0).sum(1).max())
    x = clip.token_embedding(tokens[:, :longest]) + clip.positional_embedding[:longest]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:longest, :longest]))
    return x[torch.arange(len(x)), tokens.argmax(1)] @ clip.text_projection


ENCODERS: Final[dict[str, Callable[..., tuple[Tensor, Tensor | None]]]] = {
    "resnet": encode_resnet,
    "vit": encode_vit,
}


class Trainee(nn.Module):
    """The model and the one parameter that training needs beside it.

    Attributes:
        clip: The `open_clip` model.
        patch_bias: Bias of the sigmoid for captions judged by their best patches.
    """

    def __init__(self, clip: Any, arch: str) -> None:
        super().__init__()
        self.clip: Any = clip
        self.arch = arch
        self.patch_bias = nn.Parameter(torch.tensor(-4.0))

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Returns normalised image [B, D], patch [B, n, D] (or None) and text [N, D] embeddings, float32."""
        pooled, patches = ENCODERS[self.arch](self.clip.visual, x)
        text = encode_text(self.clip, tokens)
        flat = None if patches is None else F.normalize(patches.flatten(1, 2).float(), dim=-1)
        return F.normalize(pooled.float(), dim=-1), flat, F.normalize(text.float(), dim=-1)


# -------------------------------------------------------------------------------------------------------------------- losses


def soft_maximum(logits: Tensor, dim: int) -> Tensor:
    """Mean of the logits weighted by their own softmax: near the maximum, with a gradient for the runners-up."""
    return (logits.softmax(dim) * logits).sum(dim)


def soft_maximum_within(logits: Tensor, inside: Tensor) -> Tensor:
    """`soft_maximum` over the cells of each window, all windows in two matrix products.

    Args:
        logits: [B, n, N].
        inside: bool [B, K, n].

    Returns:
        float32 [B, K, N]; 0 for a window without cells.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, windows = logits.float(), inside.float()
        # Logits are cosines times a scale below 60: none is so far under the picture's best that it vanishes.
        weights = (logits - logits.amax(1, keepdim=True).detach()).exp()
        return (windows @ (weights * logits)) / (windows @ weights).clamp(min=1e-37)


def truth_loss(logits: Tensor, truth: Tensor, most: float = 4.0) -> Tensor:
    """Sigmoid loss over all picture x caption pairs whose truth is known.

    Args:
        logits: float32 [B, N].
        truth: int8 [B, N] of `FALSE`, `UNKNOWN`, `TRUE`.
        most: Positives, which are rarer, weigh up to this much.
    """
    positive, negative = truth == TRUE, truth == FALSE
    ratio = negative.sum() / positive.sum().clamp(min=1)
    weights = positive.float() * ratio.clamp(1.0, most) + negative.float()
    loss = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
    return (loss * weights).sum() / weights.sum().clamp(min=1)


def rank_loss(margins: Tensor, truth: Tensor) -> Tensor:
    """Logistic loss on how much better a caption fits than `a fish`: a true specific caption should win, a false one lose.

    Args:
        margins: float32 [B, N], logit of the caption less that of the host.
        truth: int8 [B, N].
    """
    positive, negative = truth == TRUE, truth == FALSE
    loss = F.softplus(torch.where(positive, -margins, margins))

    def mean(chosen: Tensor) -> Tensor:
        return (loss * chosen).sum() / chosen.sum().clamp(min=1)

    return 0.5 * (mean(positive) + mean(negative))


def sibling_loss(logits: Tensor, margins: Tensor, states: Tensor, judgeable: Tensor) -> Tensor:
    """Cross-entropy of a character's states where they can be told: which of the sibling captions describes the picture?

    A presence character has no caption for `absent`; its caption competes with `a fish` instead.

    Args:
        logits: float32 [B, S], mean logit of each state's captions; all states of `CHARACTERS` in order.
        margins: float32 [B, S], the same less the host's logit.
        states: int64 [B, C], the true states.
        judgeable: bool [B, C].

    Returns:
        Mean over the characters that can be told in some picture.
    """
    terms = []
    for c, (name, values) in enumerate(CHARACTERS.items()):
        rows, block = judgeable[:, c], STATE_BLOCKS[name]
        if rows.any():
            truth = states[rows, c]
            if name in PRESENCE_CHARACTERS:
                present = values.index("present")
                terms.append(
                    F.binary_cross_entropy_with_logits(
                        margins[rows, block.start + present], (truth == present).float()
                    )
                )
            else:
                terms.append(F.cross_entropy(logits[rows, block], truth))
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0


def part_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Logistic loss over pairs of parts of which one is in view and the other is not: the one in view should fit better.

    Args:
        logits: float32 [M, P], mean logit of each part's captions.
        truth: int8 [M, P].
    """
    pairs = (truth[:, :, None] == TRUE) & (truth[:, None, :] == FALSE)
    loss = F.softplus(logits[:, None, :] - logits[:, :, None])
    return (loss * pairs).sum() / pairs.sum().clamp(min=1)


def place_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Logistic loss over pairs of windows of one picture: a part's captions should fit a window that shows it better than one that does not.

    Args:
        logits: float32 [B, K, P].
        truth: int8 [B, K, P].
    """
    return part_loss(logits.transpose(1, 2).flatten(0, 1), truth.transpose(1, 2).flatten(0, 1))


STATES: Final = tuple(
    Statement("state", name, state) for name, values in CHARACTERS.items() for state in values
)
STATE_BLOCKS: Final[dict[str, slice]] = {
    name: slice(
        STATES.index(Statement("state", name, values[0])),
        STATES.index(Statement("state", name, values[-1])) + 1,
    )
    for name, values in CHARACTERS.items()
}
"""Character -> its states' places in `STATES`."""
PLACES: Final = tuple(Statement("part", part) for part in PARTS)


FAMILIES: Final[dict[str, tuple[int, ...]]] = {
    **{name: (MASKS.index(CHARACTER_PART[name]),) for name in CHARACTERS if name not in PRESENCE_CHARACTERS},
    "parts": tuple(range(len(PARTS))),
}
"""Sibling captions (the states of a character; the parts) -> the numbers in `MASKS` of what they are about."""


def hidden_families(in_frame: np.ndarray) -> Tensor:
    """Which families of siblings have nothing to describe in a picture: bool [M, P] of parts in the frame to bool [M, G]."""
    return torch.from_numpy(
        np.stack([~in_frame[:, list(parts)].any(axis=1) for parts in FAMILIES.values()], axis=1)
    )


def neutral_loss(logits: Sequence[Tensor], hidden: Tensor) -> Tensor:
    """Where no caption of a family is true, none of them may be preferred: divergence of their softmax from the uniform.

    Without it the difference of two siblings, which is the direction that a contrast makes, is free to be anything off the part.

    Args:
        logits: Per family, float32 [B, n, S_g]: mean logit of each sibling's captions at each patch.
        hidden: bool [B, n, G].

    Returns:
        Mean over the hidden patches and families.
    """
    terms = []
    for g, z in enumerate(logits):
        away = hidden[..., g]
        divergence = z.logsumexp(-1) - z.mean(-1) - math.log(z.shape[-1])
        terms.append((divergence * away).sum() / away.sum().clamp(min=1))
    return torch.stack(terms).mean()


def family_logits(scores: Tensor, lesson: Lesson) -> list[Tensor]:
    """Mean logit of each sibling's captions at each patch: [B, n, N] to, per family of `FAMILIES`, [B, n, S_g]."""
    states = scores @ lesson.average.T
    return [
        states[..., STATE_BLOCKS[name]] if name in STATE_BLOCKS else scores @ lesson.parts.T
        for name in FAMILIES
    ]


def claim_average(chosen: Sequence[Caption], claims: Sequence[Statement]) -> Tensor:
    """Matrix [claims, N] that averages the captions which make one claim and no other; zero rows for claims without any."""
    order = {claim: i for i, claim in enumerate(claims)}
    matrix = torch.zeros(len(order), len(chosen))
    for n, caption in enumerate(chosen):
        if len(caption.statements) == 1 and caption.statements[0] in order:
            matrix[order[caption.statements[0]], n] = 1.0
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1.0)


@dataclass(frozen=True)
class Lesson:
    """The captions of one step and what is true of its pictures.

    Attributes:
        tokens: int64 [N, L].
        truth: int8 [B, N].
        hosts: int64, numbers of the captions that say only `a fish`.
        ranked: int64 [R], numbers of the captions that are compared with them.
        average: float32 [S, N], averages the captions of each of `STATES`.
        parts: float32 [P, N], averages the captions of each of `PLACES`.
        part_truth: int8 [B, P].
        states: int64 [B, C], the true states.
        judgeable: bool [B, C], they can be told.
        boxes: float32 [B, K, 4], windows in shares of the picture's sides.
        region_truth: int8 [B, K, N].
        region_parts: int8 [B, K, P].
        hidden: bool [B, G], nothing of what a family of siblings is about is in the picture; see `FAMILIES`.
        region_hidden: bool [B, K, G], the same of the windows.
    """

    tokens: Tensor
    truth: Tensor
    hosts: Tensor
    ranked: Tensor
    average: Tensor
    parts: Tensor
    part_truth: Tensor
    states: Tensor
    judgeable: Tensor
    boxes: Tensor
    region_truth: Tensor
    region_parts: Tensor
    hidden: Tensor
    region_hidden: Tensor


def cells_in(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which cells of a stride-16 map have their centre in each window: bool [B, K, h * w]."""

    def within(count: int, low: Tensor, high: Tensor) -> Tensor:
        centres = (torch.arange(count, device=boxes.device) + 1.0) / (count + 1.0)
        return (centres >= low[..., None]) & (centres < high[..., None])

    top, left, bottom, right = boxes.unbind(-1)
    rows, columns = within(height, top, bottom), within(width, left, right)
    return (rows[..., :, None] & columns[..., None, :]).flatten(2)


def losses(trainee: Trainee, x: Tensor, lesson: Lesson, config: TrainConfig) -> dict[str, Tensor]:
    """All terms of the loss and their weighted sum `total`, for pictures [B, 3, H, W], preprocessed."""
    image, patches, text = trainee(x, lesson.tokens)
    scale = trainee.clip.logit_scale.exp().clamp(max=60.0)
    ranked, truth = lesson.ranked, lesson.truth
    host = F.normalize(text[lesson.hosts].mean(0), dim=0)
    known = truth[:, ranked].clone()
    known[(truth[:, lesson.hosts[0]] != TRUE)] = 1
    average, average_ranked = lesson.average, lesson.average[:, ranked]
    logits = scale * (image @ text.T)
    margins = logits[:, ranked] - scale * (image @ host)[:, None]
    terms = {
        "image": truth_loss(logits + trainee.clip.logit_bias, truth),
        "image_rank": rank_loss(margins, known),
        "image_siblings": sibling_loss(
            logits @ average.T, margins @ average_ranked.T, lesson.states, lesson.judgeable
        ),
        "image_parts": part_loss(logits @ lesson.parts.T, lesson.part_truth),
    }
    if patches is not None:
        scores = scale * (patches @ text.T)
        best = soft_maximum(scores, 1)
        gaps = soft_maximum(scores[:, :, ranked] - scale * (patches @ host)[..., None], 1)
        terms["patch"] = truth_loss(best + trainee.patch_bias, truth)
        terms["patch_rank"] = rank_loss(gaps, known)
        terms["patch_siblings"] = sibling_loss(
            best @ average.T, gaps @ average_ranked.T, lesson.states, lesson.judgeable
        )
        terms["patch_parts"] = part_loss(best @ lesson.parts.T, lesson.part_truth)
        away = lesson.hidden[:, None].expand(-1, patches.shape[1], -1)
        if lesson.boxes.shape[1]:
            side = math.isqrt(patches.shape[1])
            inside = cells_in(lesson.boxes, side, side)
            seen = torch.where(inside.any(2)[..., None], lesson.region_truth, 1).flatten(0, 1)
            pooled = soft_maximum_within(scores, inside).flatten(0, 1)
            terms["region"] = truth_loss(pooled + trainee.patch_bias, seen)
            gap = scores[:, :, ranked] - scale * (patches @ host)[..., None]
            contested = torch.where(seen[:, lesson.hosts[:1]] == TRUE, seen[:, ranked], 1)
            terms["region_rank"] = rank_loss(soft_maximum_within(gap, inside).flatten(0, 1), contested)
            shown = torch.where(inside.any(2)[..., None], lesson.region_parts, 1)
            fits = (pooled @ lesson.parts.T).view(shown.shape)
            terms["region_parts"] = part_loss(fits.flatten(0, 1), shown.flatten(0, 1))
            terms["region_places"] = place_loss(fits, shown)
            away = away | (inside[..., None] & lesson.region_hidden[:, :, None]).any(1)
        terms["neutral"] = neutral_loss(family_logits(scores, lesson), away)
    total = torch.stack([config.weights[name] * value for name, value in terms.items()]).sum()
    return terms | {"total": total}


# ------------------------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Job:
    """One batch to render: numbers `start` to `start + count - 1`, the last of them replaced by twins of the first.

    Attributes:
        size: Side of the pictures in pixels.
        count: Pictures rendered.
        start: Number of the first one.
        twins: How many are counterfactual twins of others.
        windows: Windows that are cut out of each picture, besides the whole. The picture is then rendered at twice the size.
        regions: Windows of each picture whose captions are applied at their place in the whole picture; half of the fish are then
            shown whole.
        seed: Seed of the specimens.
    """

    size: int
    count: int
    start: int
    twins: int
    windows: int = 0
    regions: int = 0
    seed: int = TRAIN_SEED


@dataclass(frozen=True)
class Pictures:
    """Pictures and what is true of them.

    Attributes:
        images: uint8 [B, 3, H, W].
        facts: Facts of the pictures.
        boxes: float32 [B, K, 4], windows as `(top, left, bottom, right)` in shares of the picture's sides; `K` may be 0.
        regions: Facts of the windows, picture by picture: `B * K` rows.
    """

    images: Tensor
    facts: Facts
    boxes: Tensor
    regions: Facts

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Pictures:
        """A batch of one."""
        count = self.boxes.shape[1]
        return Pictures(
            self.images[row : row + 1],
            self.facts[slice(row, row + 1)],
            self.boxes[row : row + 1],
            self.regions[slice(row * count, (row + 1) * count)],
        )


def gather(rows: Sequence[Pictures]) -> Pictures:
    """One batch of all the pictures, in order."""
    return Pictures(
        torch.cat([each.images for each in rows]),
        writing.concatenate([each.facts for each in rows]),
        torch.cat([each.boxes for each in rows]),
        writing.concatenate([each.regions for each in rows]),
    )


def facts_of(specimens: world.Specimens, rendering: world.Rendering) -> Facts:
    """What is true of rendered pictures, in the form that captions are judged by."""
    return Facts(
        states=specimens.states,
        fish=specimens.fish,
        scene=specimens.scene,
        whole=specimens.focus < 0,
        visible=rendering.visible.numpy(),
        in_frame=rendering.in_frame.numpy(),
        judgeable=rendering.judgeable.numpy(),
    )


def make_twins(specimens: world.Specimens, rng: np.random.Generator) -> world.Specimens:
    """Counterfactual twins of the specimens, one random character changed to another state."""
    names = list(CHARACTERS)
    changed = rng.integers(len(names), size=len(specimens))
    states = specimens.states.copy()
    for row, c in enumerate(changed):
        count = len(CHARACTERS[names[c]])
        states[row, c] = (states[row, c] + rng.integers(1, count)) % count
    # Only the states differ, as in `world.twin`, which changes one character for all.
    return replace(specimens, states=states)


def _specimens(job: Job, rng: np.random.Generator) -> world.Specimens:
    count = job.count - job.twins
    whole = count // 2 if job.regions else 0
    specimens = world.sample(count - whole, job.seed, view="mixed", start=job.start)
    if whole:
        start = job.start + count - whole
        specimens = world.concatenate([specimens, world.sample(whole, job.seed, view="whole", start=start)])
    if job.twins:
        specimens = world.concatenate([specimens, make_twins(specimens[: job.twins], rng)])
    return specimens


def render_job(job: Job) -> Pictures:
    """Renders one batch of `count * (1 + windows)` pictures."""
    rng = np.random.default_rng((job.seed, job.start, job.size))
    specimens = _specimens(job, rng)
    double = job.size * (2 if job.windows else 1)
    rendering = world.render(specimens, double, masks=bool(job.windows or job.regions))
    facts = facts_of(specimens, rendering)
    none = torch.zeros(len(specimens) * (1 + job.windows), 0, 4)
    if rendering.masks is None:
        return Pictures(rendering.images, facts, none, facts[slice(0, 0)])
    if job.regions:
        boxes = [choose_windows(rendering.masks, rng, 0.08, 0.6) for _ in range(job.regions)]
        found = [facts_in_windows(facts, rendering.masks, each) for each in boxes]
        # From window by window to picture by picture.
        order = np.arange(len(facts) * job.regions).reshape(job.regions, -1).T.ravel()
        corners = np.stack(boxes, axis=1).astype(np.float32)
        corners[..., 2:] += corners[..., :2]
        return Pictures(
            rendering.images, facts, torch.from_numpy(corners / double), writing.concatenate(found)[order]
        )
    images = [F.interpolate(rendering.images.float(), size=job.size, mode="area").round().byte()]
    all_facts = [facts]
    for _ in range(job.windows):
        windows = choose_windows(rendering.masks, rng, 0.22, 0.6)
        images.append(cut(rendering.images, windows, job.size))
        all_facts.append(facts_in_windows(facts, rendering.masks, windows))
    return Pictures(torch.cat(images), writing.concatenate(all_facts), none, facts[slice(0, 0)])


def choose_windows(masks: Tensor, rng: np.random.Generator, least: float, most: float) -> np.ndarray:
    """Square windows, one per picture: mostly near some part of the fish, so that small parts are seen without their neighbours.

    Args:
        masks: bool [B, P, H, W].
        least: Smallest side, as a share of the picture's.
        most: Largest side.

    Returns:
        int64 [B, 4]: row, column, height, width; within the picture.
    """
    boxes = []
    for planes in masks:
        height, width = planes.shape[-2:]
        side = int(min(height, width) * least * (most / least) ** rng.random())
        centre = rng.uniform(0, 1, 2) * (height, width)
        there = planes.flatten(1).any(1).nonzero()[:, 0]
        if len(there) and rng.random() < 0.75:
            spots = planes[there[int(rng.integers(len(there)))]].nonzero()
            centre = spots[int(rng.integers(len(spots)))].numpy() + rng.normal(0, 0.3 * side, 2)
        top, left = np.clip(centre - side / 2, 0, (height - side, width - side)).astype(int)
        boxes.append((top, left, side, side))
    return np.array(boxes, dtype=np.int64)


def cut(images: Tensor, boxes: np.ndarray, size: int) -> Tensor:
    """The windows of uint8 pictures [B, 3, H, W], resized to [B, 3, size, size]."""
    return (
        torch.cat(
            [
                F.interpolate(
                    image[None, :, top : top + height, left : left + width].float(),
                    size=(size, size),
                    mode="bilinear",
                    antialias=True,
                    align_corners=False,
                )
                for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True)
            ]
        )
        .round()
        .byte()
    )


SEEN_SHARE: Final[dict[str, float]] = {"trunk": 0.25, "lateral_line": 0.3, "barbels": 0.35}
"""How much of a part a window must hold for the part to count as visible, where it is not 0.6."""
JUDGED_SHARE: Final[dict[str, float]] = {"pattern": 0.15, "body_colour": 0.15}
"""How much of its part a window must hold for a character to be told, where it is not 0.85."""


def facts_in_windows(facts: Facts, masks: Tensor, boxes: np.ndarray) -> Facts:
    """What is true of the windows of pictures, told from what each window holds of every part."""
    areas = masks.flatten(2).sum(2).numpy()
    inside = np.stack(
        [
            planes[:, top : top + height, left : left + width].flatten(1).sum(1).numpy()
            for planes, (top, left, height, width) in zip(masks, boxes.tolist(), strict=True)
        ]
    )
    share = inside / np.maximum(areas, 1)
    filled = inside >= 0.5 * (boxes[:, 2] * boxes[:, 3])[:, None]
    # A close-up of scales is a picture of the flank, even if most of the flank is elsewhere.
    visible = (facts.visible & (share >= [SEEN_SHARE.get(part, 0.6) for part in MASKS])) | filled
    held = share[:, [MASKS.index(CHARACTER_PART[name]) for name in CHARACTERS]]
    judgeable = facts.judgeable & (held >= [JUDGED_SHARE.get(name, 0.85) for name in CHARACTERS])
    return replace(
        facts,
        # A window of the background, or with a trace of fish in its corner, shows no fish.
        fish=facts.fish & ((inside.max(1) >= 0.03 * boxes[:, 2] * boxes[:, 3]) | visible.any(1)),
        whole=np.zeros_like(facts.whole),
        visible=visible,
        in_frame=facts.in_frame & (inside > 0),
        judgeable=judgeable,
    )


def choose_size(config: TrainConfig, step: int, rng: np.random.Generator) -> int:
    """A picture size for a step, as the step's phase wants it."""
    sizes = next((sizes for end, sizes in config.phases if step < end * config.steps), config.phases[-1][1])
    shares = np.array([share for _, share in sizes])
    return sizes[int(rng.choice(len(sizes), p=shares / shares.sum()))][0]


def plan(config: TrainConfig) -> Iterator[Job]:
    """The endless, deterministic list of batches to render; the size of job `j` depends on the configuration and `j` alone."""
    start = config.first_picture
    number = 0
    while True:
        rng = np.random.default_rng((config.seed, 17, number))
        size = choose_size(config, number * config.reuse, rng)
        windows = config.windows if rng.random() < config.window_share else 0
        regions = 0
        if rng.random() < config.region_share:
            windows, regions = 0, config.regions
            size = int(rng.choice(config.region_sizes))
        count = max(8, round(config.batch * (128 / size) ** 2 / (1 + windows)))
        yield Job(size, count, start, round(config.twins * count), windows, regions)
        start += count
        number += 1


def _render_loop(jobs: Any, results: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    os.nice(3)  # Training goes first: the queue keeps the renderer ahead.
    parent = torch.multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        try:
            job = jobs.get(timeout=10)
        except queue.Empty:
            continue
        pictures = render_job(job)
        pictures.images.share_memory_()
        results.put(pictures)


class Renderer:
    """Renders the plan ahead of the training, in other processes, in order.

    Args:
        config: The run.
        workers: Processes; 0 renders in this one.
        skip: Jobs of the plan that are already used up.
        ahead: Batches that each process may be ahead.
    """

    def __init__(self, config: TrainConfig, workers: int = 1, skip: int = 0, ahead: int = 4) -> None:
        self._jobs = plan(config)
        for _ in range(skip):
            next(self._jobs)
        self._workers: list[Any] = []
        self._queues: list[tuple[Any, Any]] = []
        self._turn = 0
        if workers:
            context = torch.multiprocessing.get_context("spawn")
            for _ in range(workers):
                jobs, results = context.Queue(), context.Queue()
                process = context.Process(target=_render_loop, args=(jobs, results, 1), daemon=True)
                process.start()
                self._workers.append(process)
                self._queues.append((jobs, results))
            for _ in range(ahead):
                for jobs, _ in self._queues:
                    jobs.put(next(self._jobs))

    def __next__(self) -> Pictures:
        if not self._workers:
            return render_job(next(self._jobs))
        jobs, results = self._queues[self._turn]
        while True:
            try:
                batch = results.get(timeout=20)
                break
            except queue.Empty as error:
                if not self._workers[self._turn].is_alive():
                    raise RuntimeError("a rendering process ended early; its message is above.") from error
        jobs.put(next(self._jobs))
        self._turn = (self._turn + 1) % len(self._workers)
        return batch

    def close(self) -> None:
        """Ends the processes."""
        for process in self._workers:
            process.terminate()
            process.join()


class Mixer:
    """Turns rendered batches into training batches: each is used `reuse` times, mixed with others of its size.

    Deterministic: which pictures step `k` sees depends on the seed and `k`.
    """

    def __init__(self, config: TrainConfig, workers: int = 1, step: int = 0) -> None:
        self.config = config
        used = -(-step // config.reuse)
        # After a restart the pool begins anew with the last few batches before this step.
        warm = min(used, 12)
        self.renderer = Renderer(config, workers, skip=used - warm)
        self.pools: dict[tuple[int, int], list[Pictures]] = {}
        self.kind = (0, 0)
        self.step = step
        for _ in range(warm):
            self._add()

    def _add(self) -> None:
        pictures = next(self.renderer)
        self.kind = (pictures.images.shape[-1], pictures.boxes.shape[1])
        self.pools[self.kind] = [*self.pools.get(self.kind, []), pictures][-self.config.pool :]

    def __next__(self) -> Pictures:
        rng = np.random.default_rng((self.config.seed, 29, self.step))
        if self.step % self.config.reuse == 0:
            self._add()
            pictures = self.pools[self.kind][-1]
        else:
            # Pictures of the same kind as the last batch, from all over the pool.
            pool = self.pools[self.kind]
            chosen = [pool[int(b)] for b in rng.integers(len(pool), size=len(pool[-1]))]
            pictures = gather([batch[int(rng.integers(len(batch)))] for batch in chosen])
        self.step += 1
        return pictures


def training_size(size: int, rng: np.random.Generator) -> int:
    """Side at which a batch rendered at `size` is trained: another one now and then."""
    factor = float(rng.choice([0.75, 1.0, 1.0, 1.25]))
    return min(max(64, round(size * factor / 32) * 32), max(size, 256))


def augment(images: Tensor, target: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors, light, colour cast and noise that change no caption.

    Args:
        images: uint8 [B, 3, H, W].
        target: Side of the result.

    Returns:
        float32 [B, 3, target, target], preprocessed, and bool [B], which are mirrored.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    count, size = len(images), images.shape[-1]
    x = images.float().div_(255.0)
    mirrored = torch.rand(count, generator=generator) < 0.5
    x[mirrored] = x[mirrored].flip(-1)
    if target != size:
        x = F.interpolate(x, size=(target, target), mode="bilinear", antialias=True, align_corners=False)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(count, channels, 1, 1, generator=generator) * (high - low) + low

    x = (x - 0.5) * draw(0.8, 1.2) + 0.5 + draw(-0.1, 0.1)
    x = x * draw(0.93, 1.07, 3)
    x = x + torch.randn(x.shape, generator=generator) * draw(0.0, 0.03)
    return normalise(x.clamp_(0.0, 1.0)), mirrored


def mirror_boxes(boxes: Tensor, mirrored: Tensor) -> Tensor:
    """Windows [B, K, 4] of pictures of which some are mirrored left to right."""
    top, left, bottom, right = boxes.unbind(-1)
    turned = torch.stack([top, 1 - right, bottom, 1 - left], dim=-1)
    return torch.where(mirrored[:, None, None], turned, boxes)


def normalise(x: Tensor) -> Tensor:
    """Values 0..1 [B, 3, H, W] to what the tower reads."""
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


# -------------------------------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True)
class Checks:
    """Held-out pictures for the checks during training.

    Attributes:
        close: Pictures and facts for state accuracy, uint8 [B, 3, 128, 128].
        whole: Pictures of whole fish, uint8 [B, 3, size, size].
        masks: bool [B, P, size, size] of `whole`.
        facts: Facts of `whole`.
    """

    close: tuple[Tensor, Facts]
    whole: Tensor
    masks: Tensor
    facts: Facts


def make_checks(accuracy_count: int = 320, whole_count: int = 48, size: int = 384) -> Checks:
    """Renders the held-out pictures."""
    specimens = world.sample(accuracy_count, CHECK_SEED, view="mixed", empty=0.0)
    rendering = world.render(specimens, 128)
    fish = world.sample(whole_count, CHECK_SEED + 1, view="whole")
    big = world.render(fish, size, masks=True)
    assert big.masks is not None
    return Checks(
        (rendering.images, facts_of(specimens, rendering)), big.images, big.masks, facts_of(fish, big)
    )


def embed_prompts(clip: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Mean of the normalised embeddings of the texts, normalised: [D]."""
    tokens = torch.tensor(words.encode(tokenizer, texts))
    return F.normalize(F.normalize(clip.encode_text(tokens).float(), dim=-1).mean(0), dim=0)


@torch.no_grad()
def state_accuracy(
    trainee: Trainee, tokenizer: Any, writer: CaptionWriter, pictures: Tensor, facts: Facts
) -> dict[str, float]:
    """Zero-shot accuracy per character over the pictures in which it can be told."""
    image = torch.cat(
        [
            F.normalize(
                ENCODERS[trainee.arch](trainee.clip.visual, normalise(b.float() / 255))[0].float(), dim=-1
            )
            for b in pictures.split(64)
        ]
    )
    result = {}
    for c, (name, states) in enumerate(writing.prompts_by_state(writer).items()):
        text = torch.stack([embed_prompts(trainee.clip, tokenizer, list(texts)) for texts in states.values()])
        rows = torch.from_numpy(facts.judgeable[:, c] & facts.fish)
        truth = torch.from_numpy(facts.states[:, c])[rows]
        guess = (image[rows] @ text.T).argmax(1)
        # Mean over the states, so that a common state does not hide a rare one.
        hits = [(guess[truth == s] == s).float().mean() for s in range(len(states)) if (truth == s).any()]
        result[name] = float(torch.stack(hits).mean()) if hits else float("nan")
    return result


@torch.no_grad()
def localisation(
    trainee: Trainee, tokenizer: Any, writer: CaptionWriter, checks: Checks, size: int, stride: int
) -> tuple[dict[str, float], float]:
    """Pointing per part, and own-part rate, on whole fish, each part against the pack's contrasts.

    Args:
        size: Side at which the pictures are read.
        stride: 32 for the stock feature map, 16 for the finer one.
    """
    concepts = {c.metadata["part"]: c for c in prompts.concepts(writer.pack, "parts")}
    directions = []
    for part in PARTS:
        concept = concepts[part]
        target = embed_prompts(trainee.clip, tokenizer, concept.target_prompts)
        others = torch.stack([embed_prompts(trainee.clip, tokenizer, p) for p in concept.contrast_prompts])
        directions.append(target - others.mean(0))
    direction = torch.stack(directions)
    x = F.interpolate(
        checks.whole.float() / 255, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    full = checks.masks.shape[-1]
    hits: dict[str, list[float]] = {part: [] for part in PARTS}
    own: list[float] = []
    for start in range(0, len(x), 16):
        _, patches = ENCODERS[trainee.arch](trainee.clip.visual, normalise(x[start : start + 16]))
        assert patches is not None
        scores = torch.einsum("bhwd,cd->bchw", F.normalize(patches.float(), dim=-1), direction)
        maps = _to_pixels(scores, size, stride, full)
        for i in range(len(maps)):
            seen = [p for p in range(len(PARTS)) if checks.facts.visible[start + i, p]]
            masks = checks.masks[start + i, : len(PARTS)]
            for p in seen:
                peak = int(maps[i, p].argmax())
                hits[PARTS[p]].append(float(masks[p].flatten()[peak]))
                means = [float(maps[i, p][masks[q]].mean()) for q in seen]
                own.append(float(seen[int(np.argmax(means))] == p))
    return {part: float(np.mean(h)) if h else float("nan") for part, h in hits.items()}, float(np.mean(own))


def _to_pixels(scores: Tensor, size: int, stride: int, full: int) -> Tensor:
    """Grid scores [B, C, h, w] at stride 16 to [B, C, full, full]; `stride` 32 first keeps every second row and column."""
    if stride == 32:
        return F.interpolate(scores[..., ::2, ::2], size=(full, full), mode="bilinear", align_corners=False)
    # Cell (i, j) of the fine map is centred at pixel 16 (i + 1): put half a cell around it.
    padded = F.pad(scores, (1, 1, 1, 1), mode="replicate")
    wide = F.interpolate(padded, scale_factor=full / size * 16, mode="bilinear", align_corners=False)
    edge = round(full / size * 8)
    return wide[..., edge : edge + full, edge : edge + full]


# ---------------------------------------------------------------------------------------------------------------------- run


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, linear decay to zero."""
    falling = max(1, round(config.decay * config.steps))
    return config.learning_rate * min(
        1.0, (step + 1) / config.warmup, max(0.0, (config.steps - step) / falling)
    )


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim >= 2 and "embedding" not in name]
    rest = [p for name, p in trained if not (p.ndim >= 2 and "embedding" not in name)]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]


def average_gradients(model: nn.Module, world_size: int) -> None:
    """Replaces the gradients by their mean over the processes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world_size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1.0 - decay)
            else:
                mean.copy_(value)


@dataclass
class Run:
    """A training run: its state, and one step at a time.

    Attributes:
        config: What is trained.
        folder: Where checkpoints and curves go.
        workers: Rendering processes.
        device: Where the model is.
        rank: Number of this process among those that train together (`torch.distributed` is set up by the caller).
        world_size: How many there are. Each sees other pictures; their gradients are averaged.
    """

    config: TrainConfig
    folder: Path
    workers: int = 1
    device: str = "cpu"
    rank: int = 0
    world_size: int = 1
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = CaptionWriter()
        self.vocabulary = self.writer.words()
        self.tokenizer = words.build(self.vocabulary)
        clip = build_model(self.config, len(self.vocabulary) + 4)
        self.trainee = Trainee(clip, self.config.arch).to(self.device)
        self.trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(_groups(self.trainee, self.config), betas=(0.9, 0.98), eps=1e-6)
        self.average = copy.deepcopy(self.trainee).eval()
        if (self.folder / "checkpoint.pt").exists():
            self._load()
        self._mixer: Mixer | None = None

    def _load(self) -> None:
        saved = torch.load(self.folder / "checkpoint.pt", weights_only=True, map_location=self.device)
        if saved["vocabulary"] != list(self.vocabulary):
            raise ValueError(
                f"the checkpoint in {self.folder} was trained with another vocabulary: train from the start, in another folder."
            )
        self.trainee.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]

    def save(self) -> None:
        """Writes `checkpoint.pt` (tensors and plain data only), replacing the last one whole."""
        state = {
            "model": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "vocabulary": list(self.vocabulary),
        }
        torch.save(state, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.pt")
        (self.folder / "config.json").write_text(
            json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8"
        )

    def advance(self) -> dict[str, float]:
        """Runs one step and returns its losses."""
        if self._mixer is None:
            self._mixer = Mixer(self._part(), self.workers, self.step)
        pictures = next(self._mixer)
        rng = np.random.default_rng((self.config.seed, 43, self.step, self.rank))
        chosen = self.writer.batch(rng, pictures.facts)
        # All processes train at the same size, so that none waits for the others.
        target = training_size(
            pictures.images.shape[-1], np.random.default_rng((self.config.seed, 31, self.step))
        )
        x, mirrored = augment(pictures.images, target, rng)
        x = x.to(self.device, memory_format=torch.channels_last)
        lesson = self._lesson(chosen, pictures, mirror_boxes(pictures.boxes, mirrored), rng)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, self.step)
        self.trainee.train()
        # The sequences are short: plain attention beats the fused kernel's backward pass on a processor.
        kernels = [SDPBackend.MATH] if self.device == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16), sdpa_kernel(kernels):
            terms = losses(self.trainee, x, lesson, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        if self.world_size > 1:
            average_gradients(self.trainee, self.world_size)
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        if self.rank == 0:
            _update_average(self.average, self.trainee, min(self.config.ema, self.step / (self.step + 10)))
        return {name: float(value.detach()) for name, value in terms.items()}

    def _part(self) -> TrainConfig:
        """This process's share of the pictures: its own numbers, but the same sizes in the same order, so that no process waits."""
        return replace(self.config, first_picture=self.config.first_picture + self.rank * 1_000_000_000)

    def _lesson(
        self, chosen: Sequence[Caption], pictures: Pictures, boxes: Tensor, rng: np.random.Generator
    ) -> Lesson:
        facts = pictures.facts
        rows = words.encode(self.tokenizer, [caption.text for caption in chosen])
        for row in rows:
            # A word the model has not seen must do little harm: now and then one is put in.
            if rng.random() < 0.05 and row[-1] == 0:
                row.insert(int(rng.integers(1, row.index(0) - 1)), 1)
                row.pop()
        hosts = [i for i, c in enumerate(chosen) if c.statements == (Statement("fish"),)]
        ranked = [
            i
            for i, c in enumerate(chosen)
            if len(c.statements) == 1 and c.statements[0].kind in ("state", "part")
        ]
        lesson = Lesson(
            tokens=torch.tensor(rows),
            truth=torch.from_numpy(writing.truth_table(facts, chosen)),
            hosts=torch.tensor(hosts),
            ranked=torch.tensor(ranked),
            average=claim_average(chosen, STATES),
            parts=claim_average(chosen, PLACES),
            part_truth=torch.from_numpy(writing.statement_truth(facts, PLACES)),
            states=torch.from_numpy(facts.states),
            judgeable=torch.from_numpy(facts.judgeable & facts.fish[:, None]),
            boxes=boxes,
            region_truth=torch.from_numpy(writing.truth_table(pictures.regions, chosen)).view(
                len(facts), boxes.shape[1], len(chosen)
            ),
            region_parts=torch.from_numpy(writing.statement_truth(pictures.regions, PLACES)).view(
                len(facts), boxes.shape[1], len(PLACES)
            ),
            hidden=hidden_families(facts.in_frame),
            region_hidden=hidden_families(pictures.regions.in_frame).view(
                len(facts), boxes.shape[1], len(FAMILIES)
            ),
        )
        return Lesson(*(getattr(lesson, name).to(self.device) for name in Lesson.__dataclass_fields__))

    def check(self, checks: Checks, readings: Sequence[tuple[int, int]] = ((384, 16),)) -> dict[str, float]:
        """Held-out accuracy and localisation of the averaged weights."""
        self.average.eval()
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16):
            found = {
                f"accuracy/{name}": value
                for name, value in state_accuracy(
                    self.average, self.tokenizer, self.writer, *checks.close
                ).items()
            }
            found["accuracy"] = float(np.nanmean(list(found.values())))
            if self.config.arch == "resnet":
                for size, stride in readings:
                    hits, own = localisation(self.average, self.tokenizer, self.writer, checks, size, stride)
                    found |= {f"pointing_{size}_{stride}/{part}": value for part, value in hits.items()}
                    found[f"pointing_{size}_{stride}"] = float(np.nanmean(list(hits.values())))
                    found[f"own_{size}_{stride}"] = own
        return found

    def close(self) -> None:
        """Ends the rendering processes."""
        if self._mixer is not None:
            self._mixer.renderer.close()


def append_row(path: Path, row: Mapping[str, float | int]) -> None:
    """Appends a row to a CSV file, writing the header when the file is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(row))
        if new:
            table.writeheader()
        table.writerow({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})


def train(
    run: Run,
    *,
    check_every: int = 500,
    log_every: int = 50,
    save_every: int = 250,
    checks: Checks | None = None,
    readings: Sequence[tuple[int, int]] = ((384, 16),),
    report: Callable[[str], None] = print,
) -> dict[str, float]:
    """Runs to the end of the schedule, writing `losses.csv`, `checks.csv` and checkpoints as it goes.

    Returns:
        The last check.
    """
    began, first, result, sums = time.monotonic(), run.step, {}, []
    try:
        while run.step < run.config.steps:
            sums.append(run.advance())
            if run.rank:
                continue
            if run.step % log_every == 0:
                # Not every batch has windows: their terms are averaged over those that do.
                found = {
                    name: [row[name] for row in sums if name in row]
                    for name in (*run.config.weights, "total")
                }
                mean = {
                    name: float(np.mean(values)) if values else float("nan") for name, values in found.items()
                }
                sums = []
                seconds = time.monotonic() - began
                row = {"step": run.step, "seconds": round(seconds, 1), **mean}
                append_row(run.folder / "losses.csv", row)
                pace = (run.step - first) / seconds
                report(
                    f"step {run.step}/{run.config.steps} {seconds:.0f} s, {pace:.2f} steps/s, "
                    + ", ".join(f"{k} {v:.4f}" for k, v in mean.items())
                    + f", scale {run.trainee.clip.logit_scale.exp().item():.1f}"
                )
            if run.step % save_every == 0:
                run.save()
            if checks is not None and (run.step % check_every == 0 or run.step == run.config.steps):
                result = run.check(checks, readings)
                append_row(run.folder / "checks.csv", {"step": run.step, **result})
                report("  " + ", ".join(f"{k} {v:.3f}" for k, v in result.items()))
        if not run.rank:
            run.save()
    finally:
        run.close()
    return result


# ------------------------------------------------------------------------------------------------------------------- export


def export(run: Run, folder: Path) -> None:
    """Writes the averaged weights as a stock `open_clip` `local-dir:` model: config, half-precision weights, tokenizer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "model_cfg": model_config(run.config, len(run.vocabulary) + 4),
        "preprocess_cfg": {
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "longest",
            "fill_color": 127,
        },
        # Read by this package alone: the finest map that the tower gives, of pictures larger than those it was trained on.
        "concept_cam": {"read_stride": READ_STRIDE, "read_size": READ_SIZE},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in run.average.clip.state_dict().items()
    }
    save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_model.safetensors").chmod(0o644)
    words.save(run.vocabulary, folder)
