"""What speaks for and against a map: numbers from its own patch features, by matrix products alone.

Axis letters: ``N`` patches that show the picture, ``C`` concepts, ``R`` contrasts, ``K`` neutral words, ``D`` joint embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import cast

import numpy as np
from scipy import stats

__all__ = ["RANKED_CELLS", "Evidence", "Probed", "Ranked", "evidence", "neighbourhood", "ranks"]

RANKED_CELLS = 500
"""About so many cells are ranked, and looked at in the maps of neutral words."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against one map. A number is NaN where it cannot be told.

    Attributes:
        dependence_host: Spearman's rank correlation of the target's plain map (``gamma`` 0) with that of the host noun, or of "the main
            subject" where the concept names none: 1 says that the subject is found, whatever is asked (the control of Adebayo et al.,
            "Sanity checks for saliency maps", NeurIPS 2018, with words in place of weights).
        dependence_siblings: The highest such correlation with the plain map of a contrast; NaN without contrasts.
        dependence_neutral: Median such correlation with the maps of neutral words.
        p_value: How often a neutral word in the target's place, against the same contrasts, rises at the peak at least as high in its own
            map, in its own standard deviations: ``(1 + #{k: z_k >= z}) / (1 + K)``, the permutation p-value of Phipson and Smyth (2010).
                Near 1 the peak is
            there for any word.
        p_anywhere: How often a neutral word rises as high anywhere in its own map.
        peak: Height of the peak over the map's mean, in standard deviations of the map.
        separability: The least distance between the unit embeddings of the target and a contrast, 0..2; NaN without contrasts.
        strength: The target's cosine at the peak, less the highest cosine of a neutral word there.
        text: Share of the cells around the peak at which written words, rulers or colour cards answer more strongly than the target.
        spread: Share of the cells that reach half of the peak's height over the mean.
    """

    dependence_host: float
    dependence_siblings: float
    dependence_neutral: float
    p_value: float
    p_anywhere: float
    peak: float
    separability: float
    strength: float
    text: float
    spread: float

    def to_dict(self) -> dict[str, float | None]:
        """Returns plain data for JSON; NaN is null."""
        return {item.name: None if np.isnan(value := getattr(self, item.name)) else float(value) for item in fields(self)}


@dataclass(frozen=True)
class Probed:
    """The maps of one picture that evidence is read from, over its ``N`` patches.

    Attributes:
        neutral: float32 [K, N] cosines of the neutral words.
        labels: float32 [L, N] cosines of written words, rulers and the like.
    """

    neutral: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Ranked:
    """Ranks of maps, as :func:`ranks` returns them.

    Attributes:
        target: float [N], of the plain map of the target.
        contrasts: float [R, N], of the plain maps of the contrasts.
        host: float [N], of the plain map of the host.
        neutral: float [K, N], of the maps of the neutral words.
    """

    target: np.ndarray
    contrasts: np.ndarray
    host: np.ndarray
    neutral: np.ndarray


def ranks(maps: np.ndarray) -> np.ndarray:
    """Returns the average ranks float32 [M, N] of maps [M, N], centred and of unit length: their products are Spearman's correlations.

    A constant map has no ranks; its row is zero.
    """
    ordered = stats.rankdata(maps, axis=-1).astype(np.float32)
    ordered -= ordered.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(ordered, axis=-1, keepdims=True)
    return cast("np.ndarray", np.divide(ordered, length, out=np.zeros_like(ordered), where=length > 0))


def neighbourhood(scores: np.ndarray, columns: np.ndarray, rows: np.ndarray, index: int, radius: float = 1.5) -> np.ndarray:
    """Returns bool [N]: the cells within ``radius`` cells of cell ``index`` that reach half of its height over the map's mean.

    Args:
        scores: float [N].
        columns: Column of each cell in the grid.
        rows: Row of each cell in the grid.
        index: The cell in the middle.
        radius: In cells.
    """
    near = (columns - columns[index]) ** 2 + (rows - rows[index]) ** 2 <= radius**2
    mean = scores.mean()
    return np.asarray(near & (scores >= mean + (scores[index] - mean) / 2))


def evidence(
    scores: np.ndarray,
    plain: np.ndarray,
    weights: np.ndarray,
    probed: Probed,
    ranked: Ranked,
    grid: tuple[np.ndarray, np.ndarray],
    separability: float,
) -> Evidence:
    """Reads the evidence of one map.

    Args:
        scores: float [N], the map as it is shown: ``weights @ plain``.
        plain: float [1 + R, N], the plain maps of target and contrasts, target first.
        weights: float [1 + R], what each is multiplied with (``1``, ``-gamma pi``).
        probed: Maps of the neutral words and of labels.
        ranked: Ranks of the maps that are correlated.
        grid: Column and row of each cell.
        separability: Least distance between the embeddings of target and contrasts.
    """
    nan = float("nan")
    deviation = float(scores.std())
    host, siblings, neutral = (_correlations(others, ranked.target) for others in (ranked.host[None], ranked.contrasts, ranked.neutral))
    rank = (float(host[0]), float(siblings.max()) if len(siblings) else nan, float(np.median(neutral)))
    if not np.isfinite(deviation) or deviation <= 1e-6 * max(1e-3, float(np.abs(plain).max())):
        # A constant map points nowhere: every word does as well.
        return Evidence(*rank, 1.0, 1.0, 0.0, separability, nan, nan, 1.0)
    # Neighbouring cells of a fine grid say nearly the same: some hundreds of them are enough for means, spreads and heights of other words'
    # maps.
    step = max(1, len(scores) // RANKED_CELLS)
    peak = int(scores.argmax())
    height = float((scores[peak] - scores.mean()) / deviation)
    against = scores - weights[0] * plain[0]
    shifted = probed.neutral[:, ::step] + against[::step]
    middle, spreads = shifted.mean(axis=1), shifted.std(axis=1)
    flat = spreads <= 1e-9
    spreads = np.where(flat, 1.0, spreads)
    here = np.where(flat, 0.0, (probed.neutral[:, peak] + against[peak] - middle) / spreads)
    anywhere = np.where(flat, 0.0, (shifted.max(axis=1) - middle) / spreads)
    around = neighbourhood(scores, *grid, peak)
    half = scores.mean() + (scores[peak] - scores.mean()) / 2
    # Equal up to rounding counts as equal: a tower that gives every word the same map has p = 1.
    least = height - 1e-4 * max(1.0, height)
    count = 1 + len(here)
    return Evidence(
        *rank,
        float((1 + (here >= least).sum()) / count),
        float((1 + (anywhere >= least).sum()) / count),
        height,
        separability,
        float(plain[0, peak] - probed.neutral[:, peak].max()),
        float((probed.labels[:, around].max(axis=0) > plain[0, around]).mean()),
        float((scores >= half).mean()),
    )


def _correlations(others: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Spearman's correlations of ranked maps [M, N] with one ranked map [N]; NaN with a constant map."""
    found = others @ own
    return np.where(others.any(axis=1) & own.any(), found, np.nan)
