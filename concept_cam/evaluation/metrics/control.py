"""Would the map look the same anyway? Controls without which a map proves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam.core.errors import DataError

__all__ = [
    "PromptDependence",
    "linear_correlation",
    "prompt_dependence",
    "randomisation_similarity",
    "rank_correlation",
]

Array = npt.NDArray[Any]


def _common(a: Array, b: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise DataError(f"two maps of shapes {a.shape} and {b.shape} cannot be compared: they must be of one picture.")
    both = ~(np.isnan(a) | np.isnan(b))
    return a[both], b[both]


def _pearson(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.clip(np.sum(a * b) / scale, -1.0, 1.0)) if scale > 0 else float("nan")


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean ranks: equal values share the mean of the ranks they cover."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def linear_correlation(a: Array, b: Array) -> float:
    """Pearson correlation of two maps over the pixels where neither is NaN.

    Returns:
        -1..1; NaN with fewer than two pixels or when a map is constant.
    """
    first, second = _common(a, b)
    return _pearson(first, second) if len(first) > 1 else float("nan")


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman correlation of two maps, ties at their mean rank, over the pixels where neither is NaN.

    Returns:
        -1..1; NaN with fewer than two pixels or when a map is constant.
    """
    first, second = _common(a, b)
    return _pearson(_ranks(first), _ranks(second)) if len(first) > 1 else float("nan")


@dataclass(frozen=True)
class PromptDependence:
    """How much of a map depends on what was asked.

    Attributes:
        rank: Control name -> Spearman correlation of the prompt's map with the control's, -1..1.
        linear: Control name -> Pearson correlation.
    """

    rank: Mapping[str, float]
    linear: Mapping[str, float]

    @property
    def dependence(self) -> float:
        """``1 - max |rank correlation|`` over the controls, 0..1: 0 when some control gives the same ranking of the pixels."""
        known = [abs(value) for value in self.rank.values() if not np.isnan(value)]
        return 1.0 - max(known) if known else float("nan")


def prompt_dependence(heatmap: Array, controls: Mapping[str, Array]) -> PromptDependence:
    """Compares the map of a prompt with the maps of prompts that ask for something else.

    Useful controls are the host noun ("a fish"), "the main subject" and a shuffled sibling (another trait's prompt). High
    correlation with the first two means that the map finds the subject whatever is asked.

    Args:
        heatmap: [H, W] (or the grid [h, w]) map of the prompt.
        controls: Control name -> map of the same picture and size.
    """
    return PromptDependence(
        rank={name: rank_correlation(heatmap, other) for name, other in controls.items()},
        linear={name: linear_correlation(heatmap, other) for name, other in controls.items()},
    )


def randomisation_similarity(heatmap: Array, randomised: Array) -> float:
    """Parameter-randomisation sanity check (Adebayo et al. 2018, *Sanity Checks for Saliency Maps*).

    Absolute Spearman correlation between the map of the trained model and that of the same model with re-drawn parameters. A map
    that stays alike shows the picture's edges, not the model.

    Args:
        heatmap: [H, W] of the trained model.
        randomised: [H, W] of the randomised model.

    Returns:
        0..1, low is good; NaN when a map is constant.
    """
    return abs(rank_correlation(heatmap, randomised))
