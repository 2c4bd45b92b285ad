"""A run so small that it takes seconds."""

from __future__ import annotations

from training.config import TrainConfig

TINY = TrainConfig(
    width=8,
    embed_dim=32,
    steps=4,
    phases=((1.0, ((64, 1.0),)),),
    region_sizes=(64,),
    regions=3,
    batch=2,
    warmup=1,
    reuse=2,
    ema=0.9,
)
