"""Random numbers that depend on (seed, index, name) alone, so that any picture can be made again on its own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

    def choice(self, name: str, weights: Sequence[float] | npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
        """Numbers of the columns of `weights` ([K], or one row per element [B, K]), int64 [B]."""
        edges = np.cumsum(np.atleast_2d(np.asarray(weights, dtype=np.float64)), axis=1)
        return np.asarray((self(name)[:, None] * edges[:, -1:] >= edges).sum(axis=1), dtype=np.int64)

    def chance(self, name: str, probability: float | Float) -> npt.NDArray[np.bool_]:
        """True with the given probability, bool [B]."""
        return np.asarray(self(name) < probability)


@dataclass(frozen=True)
class Style:
    """What pictures of a style draw otherwise than the plain world does, by the names of the parameters.

    Attributes:
        ranges: parameter -> (low, high) of a uniform number.
        chances: parameter -> probability of a chance.
        weights: parameter -> weights of a choice.
        scenes: scene -> weight, among those that were asked for; empty for the usual weights.
        posed: the fish may lie, be turned and fold its fins in any way.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    chances: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scenes: Mapping[str, float] = field(default_factory=dict)
    posed: bool = False


@dataclass(frozen=True)
class StyledDraws(Draws):
    """Named random numbers whose ranges, chances and weights depend on the style of the row.

    Attributes:
        style: int64 [B], numbers in `styles`.
        styles: the styles.
    """

    style: npt.NDArray[np.int64]
    styles: Sequence[Style]

    def __call__(self, name: str, low: float | Float = 0.0, high: float | Float = 1.0) -> Float:
        """Uniform in [low, high), or in the range that the row's style has for `name`; float32 [B]."""
        for number, style in enumerate(self.styles):
            if name in style.ranges:
                rows = self.style == number
                low, high = (np.where(rows, own, usual) for own, usual in zip(style.ranges[name], (low, high), strict=True))
        return super().__call__(name, low, high)

    def choice(self, name: str, weights: Sequence[float] | npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
        """As `Draws.choice`, with the weights of the row's style where it has some."""
        table = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        for number, style in enumerate(self.styles):
            if name in style.weights:
                table = np.where((self.style == number)[:, None], np.asarray(style.weights[name]), table)
        return super().choice(name, table)

    def chance(self, name: str, probability: float | Float) -> npt.NDArray[np.bool_]:
        """As `Draws.chance`, with the probability of the row's style where it has one."""
        for number, style in enumerate(self.styles):
            if name in style.chances:
                probability = np.where(self.style == number, style.chances[name], probability).astype(np.float32)
        return super().chance(name, probability)


_LOW_64 = (1 << 64) - 1


def _mix_one(x: int) -> int:
    """`_mix` of one number."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _LOW_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _LOW_64
    return x ^ (x >> 31)


class OneDraw:
    """Named random numbers of one row as plain numbers: those of `Draws` and `StyledDraws`, without arrays.

    Args:
        seed: its seed.
        index: its number under the seed.
        style: what its style draws otherwise.
    """

    def __init__(self, seed: int, index: int, style: Style | None = None) -> None:
        golden = int(_GOLDEN)
        self._row = _mix_one((_mix_one((seed + golden) & _LOW_64) + index * golden) & _LOW_64)
        self._style = style or Style()

    def __call__(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """Uniform in [low, high), or in the range that the style has for `name`."""
        low, high = self._style.ranges.get(name, (low, high))
        unit = (_mix_one((self._row + zlib.crc32(name.encode()) * int(_GOLDEN)) & _LOW_64) >> 40) / float(1 << 24)
        return low + (high - low) * unit

    def chance(self, name: str, probability: float) -> bool:
        """True with the given probability, or the one that the style has for `name`."""
        return self(name) < self._style.chances.get(name, probability)
