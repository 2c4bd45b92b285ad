"""Everything that a training run depends on, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

MEAN: Final = (0.5, 0.5, 0.5)

STD: Final = (0.25, 0.25, 0.25)

TRAIN_SEED: Final = 1_000
"""Seed of the training pictures; the benchmark and the checks below use others."""

CHECK_SEED: Final = 7_000

READ_STRIDE: Final = 8

READ_SIZE: Final = 384
"""How maps are read by default: pixels between grid cells, and side of the picture."""

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
    "peak": 1.5,
    "peak_contrast": 2.5,
    "neutral": 0.5,
}
"""Captions judged by the image embedding, by their best patches, and by the best patches of a window: true or not, better than
`a fish` or not, best of its siblings; highest, alone and against its contrasts, in windows where it is true; and not preferred to siblings
where none of them can be seen."""


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
        batch: Pictures per step and process at 128 pixels; other sizes get as many pixels, and at least eight pictures.
        reuse: How often a rendered batch is used, each time changed by flips, light and size.
        pool: Rendered batches of one size that a step's pictures are drawn from.
        twins: Share of a batch that are counterfactual twins of others in it.
        windows: Windows cut out of a picture, in the batches that have any.
        window_share: Share of the other batches that have windows.
        regions: Windows whose captions are applied at their place in the whole picture, in the batches that have any.
        region_share: Share of the batches that have regions.
        region_sizes: Picture sizes of those batches.
        distorted: Share of the pictures whose colours are made false; see `distort_colours`.
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
    regions: int = 96
    region_share: float = 0.7
    region_sizes: tuple[int, ...] = (256, 320, 384)
    distorted: float = 0.35
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 200
    decay: float = 0.3
    weights: Mapping[str, float] = field(default_factory=lambda: dict(LOSS_WEIGHTS))
    ema: float = 0.996
    seed: int = 0
    first_picture: int = 0


def class_token_config(config: TrainConfig) -> TrainConfig:
    """The same for a ViT with a class token: one picture size, close-ups, and no windows in place, since its patches are not trained."""
    return replace(config, arch="vit", phases=((1.0, ((96, 1.0),)),), region_share=0.0)


def further_config(config: TrainConfig) -> TrainConfig:
    """The same for a run that begins with trained weights: it stays at the sizes of the last phase."""
    return replace(config, phases=((1.0, config.phases[-1][1]),))


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
