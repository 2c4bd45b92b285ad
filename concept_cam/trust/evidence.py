"""What speaks for and against a map: numbers from its own patch features, by matrix products alone.

Axis letters: ``N`` patches that show the picture, ``C`` concepts, ``R`` contrasts, ``K`` neutral words, ``D`` joint embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import cast

import numpy as np
from scipy import stats

__all__ = ["RANKED_CELLS", "Cells", "Evidence", "Probed", "Ranked", "evidence", "mass_around", "neighbourhood", "ranks"]

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
            Near 1 the peak is there for any word.
        p_plain: The same for the target's plain map and the plain maps of neutral words: whether the target's own word rises there, where
            the contrasts alone would put the peak. What lies between all that is held against it, such as the trunk of a fish between
            its fins, has a high ``p_value`` and a low ``p_plain``.
        p_anywhere: How often a neutral word rises as high anywhere in its own map.
        peak: Height of the peak over the map's mean, in standard deviations of the map.
        separability: The least distance between the unit embeddings of the target and a contrast, 0..2; NaN without contrasts.
        strength: The target's cosine at the peak, less the highest cosine of a neutral word there.
        text: Share of the cells around the peak that lie on written words, rulers or colour cards: at which words for those answer more
            strongly than the host and than every neutral word. NaN for a model that knows no words.
        spread: Share of the cells that reach half of the peak's height over the mean.
        mass: Share of the map's softmax, at the model's temperature, that lies within a twelfth of the grid's diagonal around the peak: 1
            where nothing else comes near it. NaN for scores that have no temperature.
        on_host: Share of the cells over which the host's map at the peak rises: near 1 on the host, low beside it.
        image: Cosine of the image embedding to the target, less the highest to a neutral word.
    """

    dependence_host: float
    dependence_siblings: float
    dependence_neutral: float
    p_value: float
    p_plain: float
    p_anywhere: float
    peak: float
    separability: float
    strength: float
    text: float
    spread: float
    mass: float
    on_host: float
    image: float

    def to_dict(self) -> dict[str, float | None]:
        """Returns plain data for JSON; NaN is null."""
        return {item.name: None if np.isnan(value := getattr(self, item.name)) else float(value) for item in fields(self)}


@dataclass(frozen=True)
class Cells:
    """The ``N`` patches of one picture that may be read.

    Attributes:
        columns: int [N], in the grid.
        rows: int [N], in the grid.
        diagonal: Of the grid, in cells.
    """

    columns: np.ndarray
    rows: np.ndarray
    diagonal: float

    def near(self, index: int, radius: float) -> np.ndarray:
        """Returns bool [N]: the cells within ``radius`` cells of cell ``index``."""
        return np.asarray((self.columns - self.columns[index]) ** 2 + (self.rows - self.rows[index]) ** 2 <= radius**2)


@dataclass(frozen=True)
class Probed:
    """The maps of one picture that evidence is read from, over its ``N`` patches.

    Attributes:
        neutral: float32 [K, N], plain maps of the neutral words.
        labels: float32 [L, N], plain maps of written words, rulers and the like; ``L`` is 0 for a model that knows no words.
        replaced: float32 [K, N], the map asked for with each neutral word in the target's place; ``None`` for maps that are linear in
            their texts, where it follows from the others.
    """

    neutral: np.ndarray
    labels: np.ndarray
    replaced: np.ndarray | None = None


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


def neighbourhood(scores: np.ndarray, cells: Cells, index: int, radius: float = 1.5) -> np.ndarray:
    """Returns bool [N]: the cells within ``radius`` cells of cell ``index`` that reach half of its height over the map's mean.

    Args:
        scores: float [N].
        cells: Where they are.
        index: The cell in the middle.
        radius: In cells.
    """
    mean = scores.mean()
    return np.asarray(cells.near(index, radius) & (scores >= mean + (scores[index] - mean) / 2))


def mass_around(scores: np.ndarray, cells: Cells, index: int, scale: float) -> float:
    """Returns the share of ``softmax(scale * scores)`` that lies within a twelfth of the grid's diagonal around a cell, 0..1.

    Args:
        scores: float [N].
        cells: Where they are.
        index: The cell in the middle.
        scale: The model's temperature; NaN where scores have none, so that no place can be said to stand out.
    """
    if np.isnan(scale):
        return float("nan")
    shares = np.exp(np.clip(scale * (scores - scores.max()), -80.0, 0.0))
    return float(shares[cells.near(index, max(1.5, cells.diagonal / 12))].sum() / shares.sum())


def evidence(
    scores: np.ndarray,
    plain: np.ndarray,
    probed: Probed,
    ranked: Ranked,
    host: np.ndarray,
    cells: Cells,
    *,
    scale: float,
    separability: float = float("nan"),
    image: float = float("nan"),
) -> Evidence:
    """Reads the evidence of one map.

    Args:
        scores: float [N], the map as it is shown.
        plain: float [N], that of the target alone.
        probed: Maps of the neutral words and of labels.
        ranked: Ranks of the maps that are correlated.
        host: float [N], the host's plain map.
        cells: Where the patches are.
        scale: The model's temperature.
        separability: Least distance between the embeddings of target and contrasts.
        image: The target's cosine with the image embedding, less a neutral word's highest.
    """
    nan = float("nan")
    deviation = float(scores.std())
    with_host, siblings, neutral = (
        _correlations(others, ranked.target) for others in (ranked.host[None], ranked.contrasts, ranked.neutral)
    )
    rank = (float(with_host[0]), float(siblings.max()) if len(siblings) else nan, float(np.median(neutral)))
    if not np.isfinite(deviation) or deviation <= 1e-6 * max(1e-3, float(np.abs(plain).max())):
        # A constant map points nowhere: every word does as well.
        return Evidence(*rank, 1.0, 1.0, 1.0, 0.0, separability, nan, nan, 1.0, 0.0, nan, image)
    # Neighbouring cells of a fine grid say nearly the same: some hundreds of them are enough for means, spreads and heights of other words'
    # maps.
    step = max(1, len(scores) // RANKED_CELLS)
    peak = int(scores.argmax())
    height = float((scores[peak] - scores.mean()) / deviation)
    against = scores - plain
    if probed.replaced is None:
        shifted, at_peak = probed.neutral[:, ::step] + against[::step], probed.neutral[:, peak] + against[peak]
    else:
        shifted, at_peak = probed.replaced[:, ::step], probed.replaced[:, peak]
    here, anywhere = _heights(shifted, at_peak)
    alone, _ = _heights(probed.neutral[:, ::step], probed.neutral[:, peak])
    own, _ = _heights(plain[None], plain[peak : peak + 1])
    around = neighbourhood(scores, cells, peak)
    half = scores.mean() + (scores[peak] - scores.mean()) / 2
    return Evidence(
        *rank,
        _share_as_high(here, height),
        _share_as_high(alone, float(own[0])),
        _share_as_high(anywhere, height),
        height,
        separability,
        float(plain[peak] - probed.neutral[:, peak].max()),
        _share_of_words(probed, host, around),
        float((scores >= half).mean()),
        mass_around(scores, cells, peak, scale),
        float((host < host[peak]).mean()),
        image,
    )


def _share_of_words(probed: Probed, host: np.ndarray, around: np.ndarray) -> float:
    if not len(probed.labels):
        return float("nan")
    others = np.maximum(host[around], probed.neutral[:, around].max(axis=0))
    return float((probed.labels[:, around].max(axis=0) > others).mean())


def _heights(maps: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How high each of some maps [K, M] stands at a value of its own [K], and at its highest, over its mean, in its deviations; a flat
    map stands at 0.
    """
    middle, spread = maps.mean(axis=1), maps.std(axis=1)
    flat = spread <= 1e-9
    spread = np.where(flat, 1.0, spread)
    highest = np.maximum(maps.max(axis=1), at)
    return np.where(flat, 0.0, (at - middle) / spread), np.where(flat, 0.0, (highest - middle) / spread)


def _share_as_high(heights: np.ndarray, height: float) -> float:
    """The permutation p-value of a height among those of neutral words."""
    # Equal up to rounding counts as equal: a tower that gives every word the same map has p = 1.
    least = height - 1e-4 * max(1.0, height)
    return float((1 + (heights >= least).sum()) / (1 + len(heights)))


def _correlations(others: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Spearman's correlations of ranked maps [M, N] with one ranked map [N]; NaN with a constant map."""
    found = others @ own
    return np.where(others.any(axis=1) & own.any(), found, np.nan)
