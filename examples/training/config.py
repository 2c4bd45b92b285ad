"""Everything that a training run depends on, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

TRAIN_SEED: Final = 1_000
"""Seed of the training pictures; the benchmark and the checks below use others."""

CHECK_SEED: Final = 7_000

WORLD_COUNTS: Final[dict[str, int]] = {"fish": 12, "lepidoptera": 8, "beetle": 6, "plant": 6}

CELL: Final = 8
"""Pixels of a picture that is read between the cells of its map."""

LOSS_WEIGHTS: Final[dict[str, float]] = {
    "cells": 1.0,
    "floor": 1.0,
    "place": 0.5,
    "fine": 1.0,
    "contrast": 0.5,
    "states": 2.5,
    "changes": 0.3,
    "image_states": 3.0,
    "image_parts": 1.0,
    "attention": 0.3,
    "foreign": 1.0,
    "apart": 2.0,
}
"""Terms of the loss; see `training.objectives`."""


_LEAST: Final[dict[tuple[str, ...], int]] = {
    ("steps", "reuse", "pool", "hidden", "depth", "queries", "parts_dim", "text_hidden", "phrases", "warmup"): 1,
    ("foreign", "value_hidden", "reading", "seed", "first_picture"): 0,
}
_WITHIN: Final[dict[str, tuple[float, float]]] = {
    **dict.fromkeys(("whole", "photographs", "distorted", "decay"), (0.0, 1.0)),
    "twins": (0.0, 0.5),
    "left_out": (0.0, 0.95),
    "ema": (0.0, 0.99999),
    "weight_decay": (0.0, 10.0),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run depends on.

    Attributes:
        steps: Optimiser steps.
        worlds: Group -> pictures of it per step.
        reuse: How often a rendered picture is used, each time changed by mirrors, light, colour and size.
        pool: Rendered batches that a step's pictures are drawn from.
        sides: `(H, W)` at which pictures are rendered.
        factors: By how much they are then resized (to multiples of 32 pixels).
        whole: Share of the pictures that show whole specimens.
        photographs: Share of the pictures that look like photographs rather than like the plain world of the benchmark.
        twins: Share of a batch that are counterfactual twins of others in it.
        hidden: Channels of the neck.
        depth: Residual blocks of the neck at stride 8.
        queries: Queries of the pooling that makes the image embedding, for each group.
        parts_dim: Width of the block of the joint space that holds parts and their states.
        text_hidden: Width of the map from sentence embeddings to that block.
        phrases: Wordings of each claim that a step sees.
        foreign: Wordings about other groups that a step sees.
        value_hidden: Width of the network beside the linear map that makes the image embedding.
        reading: Numbers that each query reads by itself for it, from means and spreads.
        left_out: Share of what the queries see that this reading does without in a step.
        rest: Length of the constant that is put beside each feature; see `concept_cam.backbones.lite`.
        distorted: Share of the pictures whose colours are made false.
        learning_rate: Peak of the schedule: linear warm-up, constant, then linear decay.
        words_rate: By how much faster the map of wordings learns.
        scale_rate: By how much faster the logit scale and the biases learn.
        logit_scale: Where the scale of the logits starts.
        weight_decay: For matrices only.
        warmup: Steps of warm-up.
        decay: Share of the steps, at the end, over which the learning rate falls to zero.
        weights: Weight of each term of the loss.
        ema: Decay of the averaged weights that are exported.
        seed: Seed of the weights, wordings and augmentation.
        first_picture: Number of the first training picture under `TRAIN_SEED`.
    """

    steps: int = 3000
    worlds: dict[str, int] = field(default_factory=lambda: dict(WORLD_COUNTS))
    reuse: int = 4
    pool: int = 12
    sides: tuple[tuple[int, int], ...] = ((384, 384), (256, 384), (320, 384))
    factors: tuple[float, ...] = (0.67, 0.84, 1.0, 1.0, 1.17)
    whole: float = 0.6
    photographs: float = 0.6
    twins: float = 0.25
    hidden: int = 192
    depth: int = 2
    queries: int = 16
    parts_dim: int = 127
    text_hidden: int = 256
    phrases: int = 2
    foreign: int = 24
    value_hidden: int = 128
    reading: int = 40
    left_out: float = 0.3
    rest: float = 1.0
    distorted: float = 0.4
    learning_rate: float = 2e-3
    words_rate: float = 1.0
    scale_rate: float = 3.0
    logit_scale: float = 20.0
    weight_decay: float = 0.02
    warmup: int = 60
    decay: float = 0.5
    weights: dict[str, float] = field(default_factory=lambda: dict(LOSS_WEIGHTS))
    ema: float = 0.998
    seed: int = 0
    first_picture: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers with which nothing can be trained.

        Raises:
            ValueError: The message names the number and what is expected.
        """
        for names, least in _LEAST.items():
            for name in names:
                if getattr(self, name) < least:
                    raise ValueError(f"received {name}={getattr(self, name)}: expected at least {least}.")
        for name, (low, high) in _WITHIN.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"received {name}={getattr(self, name)}: expected {low:g} to {high:g}.")
        for name in ("learning_rate", "words_rate", "scale_rate", "logit_scale", "rest"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"received {name}={getattr(self, name)}: expected a number above 0.")
        for name, value in self.weights.items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"received weights.{name}={value}: expected a number, 0 or more.")
        for name, value in self.worlds.items():
            if value < 1:
                raise ValueError(f"received worlds.{name}={value}: expected at least 1 picture a step, or 0 to leave the group out.")
        if not self.worlds:
            raise ValueError("received no pictures of any group: expected at least one group, such as worlds.fish=12.")

    @property
    def batch(self) -> int:
        """Pictures per step."""
        return sum(self.worlds.values())


def most_drawn(worlds: Mapping[str, int]) -> str:
    """The group of which most pictures are drawn, the first of several."""
    return max(worlds, key=lambda name: worlds[name])


def smoke_config(config: TrainConfig) -> TrainConfig:
    """The same, short: small pictures, few steps. Enough for parts to rise above chance."""
    return replace(
        config,
        steps=24,
        worlds={"fish": 6, "lepidoptera": 2},
        reuse=4,
        pool=6,
        sides=((128, 128),),
        factors=(1.0,),
        hidden=32,
        depth=1,
        warmup=4,
        ema=0.8,
    )
