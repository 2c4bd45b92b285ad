"""How sure is a mean? Bootstrap intervals over pictures, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam.core.errors import ConfigurationError, DataError

__all__ = ["Interval", "bootstrap", "mean_interval", "paired_difference"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval.

    Attributes:
        value: The estimate; NaN when nothing counts.
        low: Lower end; NaN with fewer than two pictures.
        high: Upper end.
        count: Pictures (or other resampled units) that the estimate rests on.
    """

    value: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Returns plain data for JSON; NaN becomes ``None``."""

        def plain(x: float) -> float | None:
            return None if np.isnan(x) else float(x)

        return {
            "value": plain(self.value),
            "low": plain(self.low),
            "high": plain(self.high),
            "count": self.count,
        }


def _check(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise ConfigurationError(f"a bootstrap needs draws >= 1 and a level in 0..1, received {draws} and {level}.")


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    count: int,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap (Efron 1979) of any statistic of a sample.

    Args:
        statistic: Takes the numbers of the drawn units (int64 [count], with repeats) and returns the estimate.
        count: Number of units.
        draws: Bootstrap samples.
        level: Probability that the interval is to hold.
        seed: Of the generator; equal arguments give equal intervals.

    Returns:
        The estimate on the sample itself with its interval; NaN draws are left out of the percentiles.
    """
    _check(draws, level)
    value = float(statistic(np.arange(count))) if count else float("nan")
    if count < 2:
        return Interval(value, float("nan"), float("nan"), count)
    generator = np.random.default_rng(seed)
    values = np.array([statistic(generator.integers(0, count, count)) for _ in range(draws)])
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(value, float("nan"), float("nan"), count)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), count)


def _clusters(values: Array, units: Sequence[Any] | None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums and sizes per unit, NaN values left out."""
    values = np.asarray(values, dtype=np.float64)
    names = np.arange(len(values)) if units is None else np.unique(np.asarray(units, dtype=object).astype(str), return_inverse=True)[1]
    if len(names) != len(values):
        raise DataError(f"received {len(values)} values and {len(names)} units.")
    keep = ~np.isnan(values)
    size = int(names.max()) + 1 if len(names) else 0
    sums: npt.NDArray[np.float64] = np.bincount(names[keep], weights=values[keep], minlength=size).astype(np.float64)
    sizes = np.bincount(names[keep], minlength=size).astype(np.float64)
    return sums[sizes > 0], sizes[sizes > 0]


def mean_interval(
    values: Sequence[float] | Array,
    units: Sequence[Any] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean with a percentile bootstrap interval over pictures.

    Several values of one picture are not independent: they are drawn together (cluster bootstrap), each draw's mean being the mean
    of all its values.

    Args:
        values: [N]; NaN values are left out.
        units: [N] picture of each value; ``None``: every value its own.
        draws: Bootstrap samples.
        level: Probability that the interval is to hold.
        seed: Of the generator.

    Returns:
        The mean, its interval, and the number of pictures.
    """
    _check(draws, level)
    sums, sizes = _clusters(np.asarray(values, dtype=np.float64), units)
    count = len(sums)
    if not count:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    value = float(sums.sum() / sizes.sum())
    if count < 2:
        return Interval(value, float("nan"), float("nan"), count)
    # Drawing with replacement is a multinomial draw of how often each picture comes up; chunks bound the memory.
    generator = np.random.default_rng(seed)
    means: list[Array] = []
    for first in range(0, draws, 200):
        often = generator.multinomial(count, np.full(count, 1.0 / count), size=min(200, draws - first))
        means.append((often @ sums) / (often @ sizes))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), count)


def paired_difference(
    first: Sequence[float] | Array,
    second: Sequence[float] | Array,
    units: Sequence[Any] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of ``first - second`` on the same questions, with an interval over pictures; a pair with a NaN is left out.

    The interval of a paired difference is narrower than the two intervals suggest, for the pictures' own difficulty cancels.

    Raises:
        DataError: Other numbers of values.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise DataError(f"paired values must be as many: received {a.shape} and {b.shape}.")
    return mean_interval(a - b, units, draws, level, seed)
