"""Random numbers that depend on (seed, index, name) alone, so that any picture can be made again on its own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Float = npt.NDArray[np.float32]


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection with full avalanche."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """Named random numbers of a batch; a number depends on its own row and name only.

    Attributes:
        seed: int64 [B].
        index: int64 [B].
    """

    seed: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]

    def __call__(self, name: str, low: float | Float = 0.0, high: float | Float = 1.0) -> Float:
        """Uniform in [low, high), float32 [B]."""
        key = np.uint64(zlib.crc32(name.encode()))
        with np.errstate(over="ignore"):
            row = _mix(_mix(self.seed.astype(np.uint64) + _GOLDEN) + self.index.astype(np.uint64) * _GOLDEN)
            bits = _mix(row + key * _GOLDEN)
        unit = (bits >> np.uint64(40)).astype(np.float64) / float(1 << 24)
        return np.asarray(low + (np.asarray(high) - low) * unit, dtype=np.float32)

    def choice(
        self, name: str, weights: Sequence[float] | npt.NDArray[np.floating[Any]]
    ) -> npt.NDArray[np.int64]:
        """Numbers of the columns of `weights` ([K], or one row per element [B, K]), int64 [B]."""
        edges = np.cumsum(np.atleast_2d(np.asarray(weights, dtype=np.float64)), axis=1)
        return np.asarray((self(name)[:, None] * edges[:, -1:] >= edges).sum(axis=1), dtype=np.int64)

    def chance(self, name: str, probability: float | Float) -> npt.NDArray[np.bool_]:
        """True with the given probability, bool [B]."""
        return np.asarray(self(name) < probability)
