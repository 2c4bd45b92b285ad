"""Interleaved timing: two things measured in turn, so that their ratio holds when the machine's speed drifts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Paired:
    """Seconds of two things measured in turn.

    Attributes:
        first: Seconds of each run of the first.
        second: Seconds of each run of the second.
    """

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def ratios(self) -> np.ndarray:
        """How many times faster the second is than the first, pair by pair."""
        return np.array(self.first) / np.array(self.second)

    def summary(self, resamples: int = 2000) -> tuple[float, float, float]:
        """Median ratio and its 95 % bootstrap interval over the pairs."""
        generator = np.random.default_rng(0)
        medians = np.median(generator.choice(self.ratios, (resamples, len(self.ratios))), axis=1)
        low, high = np.percentile(medians, [2.5, 97.5])
        return float(np.median(self.ratios)), float(low), float(high)


def interleave(first: Callable[[], object], second: Callable[[], object], pairs: int, warmup: int = 2) -> Paired:
    """Runs both in turn, ``pairs`` times after a warm-up; the order alternates so that neither always goes first."""
    for _ in range(warmup):
        first()
        second()
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            start = time.perf_counter()
            (first, second)[which]()
            seconds[which].append(time.perf_counter() - start)
    return Paired(tuple(seconds[0]), tuple(seconds[1]))
