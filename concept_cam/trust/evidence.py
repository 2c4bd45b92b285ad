"""What speaks for and against a map: numbers from its own patch features, by matrix products alone.

Axis letters: ``N`` patches that show the picture, ``C`` concepts, ``R`` contrasts, ``K`` neutral words, ``D`` joint embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import cast

import numpy as np

__all__ = [
    "RANKED_CELLS",
    "Cells",
    "Correlations",
    "Evidence",
    "Probed",
    "Ranked",
    "correlated",
    "evidence",
    "evidence_of_all",
    "mass_around",
    "ranks",
]

LOUD = 0.5
"""Share of the target's cosine at its peak from which on a neutral word can be said to rise there as the target does."""
LEVELS = 100
"""Steps of a map's range that its ranks tell apart."""
RANKED_CELLS = 400
"""About so many cells are ranked, and looked at in the maps of neutral words."""


AROUND = 1.5
"""Radius of a peak's surroundings, in cells."""


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
            its fins, has a high ``p_value`` and a low ``p_plain``. Words that answer less than half as loudly as the target there do not
            count: a target that fills a fifth of the picture stands few deviations above its map's mean.
        p_anywhere: How often a neutral word rises as high anywhere in its own map.
        peak: Height of the peak over the map's mean, in standard deviations of the map.
        separability: The least distance between the unit embeddings of the target and a contrast, 0..2; NaN without contrasts.
        strength: The target's cosine at the peak, less the highest cosine of a neutral word there.
        text: Share of the cells around the peak that lie on written words, rulers or colour cards: at which words for those answer more
            strongly than every neutral word and than the host does beyond the target: the cosine with the host's embedding less the part
            of it that lies in the target's direction. Where "the flank of a fish" is written, "a fish" is answered as loudly, which does
            not speak against writing. NaN for a model that knows no words.
        spread: Share of the cells that reach half of the peak's height over the mean.
        mass: Share of the map's softmax, at the model's temperature, that lies within a twelfth of the grid's diagonal around the peak: 1
            where nothing else comes near it. NaN for scores that have no temperature.
        variation: Standard deviation of the map over its cells, times the model's temperature, thus in logits: near 0 where the model tells
            no cell from another. NaN for scores that have no temperature.
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
    variation: float
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

    def near(self, indices: np.ndarray, radius: float) -> np.ndarray:
        """Returns bool [C, N]: the cells within ``radius`` cells of each of the cells ``indices``, int [C]."""
        across, down = self.columns - self.columns[indices, None], self.rows - self.rows[indices, None]
        return np.asarray(across**2 + down**2 <= radius**2)


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

    @cached_property
    def some(self) -> np.ndarray:
        """float32 [K, n], the neutral words' maps at some of the cells, side by side in memory."""
        return np.ascontiguousarray(self.neutral[:, :: _step(self.neutral.shape[1])])

    @cached_property
    def highest(self) -> np.ndarray:
        """float32 [N], the highest neutral word's map at each cell."""
        return np.asarray(self.neutral.max(axis=0))

    @cached_property
    def middle(self) -> np.ndarray:
        """float64 [K], the means of these."""
        return np.asarray(self.some.mean(axis=1, dtype=np.float64))

    @cached_property
    def spread(self) -> np.ndarray:
        """float64 [K], their standard deviations."""
        return np.asarray(self.some.std(axis=1, dtype=np.float64))


def _step(cells: int) -> int:
    """Neighbouring cells of a fine grid say nearly the same: every so manieth of them is enough for means, spreads and heights of other
    words' maps.
    """
    return max(1, cells // RANKED_CELLS)


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

    Cells that differ by less than a hundredth of the map's range share a rank: most cells of a picture hold nothing of what is asked, and
    the order among those is rounding. A constant map has no ranks; its row is zero.
    """
    ordered = _average_ranks(_levels(maps))
    ordered -= ordered.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(ordered, axis=-1, keepdims=True)
    return cast("np.ndarray", np.divide(ordered, length, out=np.zeros_like(ordered), where=length > 0))


def _levels(maps: np.ndarray) -> np.ndarray:
    """Returns maps [M, N] in steps of their range / `LEVELS`, counted from the median, so that most of a flat ground is one level.

    A map whose range is no number, as that of a tower that overflows, stays as it is: its order is all that can be used.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        step = (maps.max(axis=-1, keepdims=True) - maps.min(axis=-1, keepdims=True)) / LEVELS
        away = maps - np.median(maps, axis=-1, keepdims=True)
        levels = np.rint(np.divide(away, step, out=np.zeros_like(away), where=step != 0))
    return np.where(np.isfinite(step), levels, maps)


def _average_ranks(maps: np.ndarray) -> np.ndarray:
    """Returns the average ranks float32 [M, N] of maps [M, N], as ``scipy.stats.rankdata`` gives them, which takes twice as long."""
    order = maps.argsort(axis=-1)
    ordered = np.take_along_axis(maps, order, axis=-1)
    ranks_in_order = np.broadcast_to(np.arange(1, maps.shape[1] + 1, dtype=np.float32), maps.shape)
    tied = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if tied.size:
        ranks_in_order = ranks_in_order.copy()
        ranks_in_order[tied] = _shared_ranks(ordered[tied])
    found = np.empty(maps.shape, dtype=np.float32)
    np.put_along_axis(found, order, ranks_in_order, axis=-1)
    found[np.isnan(ordered[:, -1])] = np.nan  # NaN comes last: a map that holds one has no ranks
    return found


def _shared_ranks(ordered: np.ndarray) -> np.ndarray:
    """Returns the ranks float32 [M, N] of ascending values [M, N]; equal ones share theirs."""
    fresh = np.ones(ordered.shape, dtype=bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(fresh)  # through all rows, each of which begins afresh
    counts = np.diff(starts, append=ordered.size)
    shared = starts % ordered.shape[1] + (counts + 1) / 2
    return np.repeat(shared, counts).reshape(ordered.shape).astype(np.float32)


def mass_around(scores: np.ndarray, cells: Cells, index: int, scale: float) -> float:
    """Returns the share of ``softmax(scale * scores)`` that lies within a twelfth of the grid's diagonal around a cell, 0..1.

    Args:
        scores: float [N].
        cells: Where they are.
        index: The cell in the middle.
        scale: The model's temperature; NaN where scores have none, so that no place can be said to stand out.
    """
    return float(_masses(scores[None], cells, np.array([index]), scale)[0])


def _masses(scores: np.ndarray, cells: Cells, peaks: np.ndarray, scale: float) -> np.ndarray:
    """The same for maps [C, N] and one cell of each, float64 [C]."""
    if np.isnan(scale):
        return np.full(len(scores), np.nan)
    shares = np.exp(np.clip(scale * (scores - scores.max(axis=1, keepdims=True)), -80.0, 0.0))
    near = cells.near(peaks, max(AROUND, cells.diagonal / 12))
    # Sums of different lengths, each as one map alone would add them up.
    inside = np.array([row[chosen].sum() for row, chosen in zip(shares, near)], dtype=shares.dtype)
    return np.asarray(inside / shares.sum(axis=1), dtype=np.float64)


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
    alike: float = 0.0,
) -> Evidence:
    """Reads the evidence of one map.

    Args:
        scores: float [N], the map as it is shown.
        plain: float [N], that of the target alone.
        probed: Maps of the neutral words and of labels.
        ranked: Ranks of the maps that are correlated.
        host: float [N], the host's plain map.
        cells: Where the patches are.
        scale: The model's temperature; NaN where scores have none.
        separability: Least distance between the embeddings of target and contrasts.
        image: The target's cosine with the image embedding, less a neutral word's highest.
        alike: Cosine of the embeddings of target and host.
    """
    nan = float("nan")
    siblings = correlated(ranked.contrasts, ranked.target)
    told = Correlations(
        correlated(ranked.host[None], ranked.target),
        np.array([siblings.max() if len(siblings) else nan]),
        np.median(correlated(ranked.neutral, ranked.target), keepdims=True),
    )
    words = probed.labels.max(axis=0)[None] if len(probed.labels) else None
    numbers = np.array([separability]), np.array([image]), np.array([alike])
    return evidence_of_all(scores[None], plain[None], probed, told, host[None], words, cells, *numbers, scale=scale)[0]


@dataclass(frozen=True)
class Correlations:
    """Rank correlations of the plain maps of ``C`` targets.

    Attributes:
        host: float [C], with the host's.
        siblings: float [C], the highest with a contrast's; NaN without contrasts.
        neutral: float [C], the median with those of neutral words.
    """

    host: np.ndarray
    siblings: np.ndarray
    neutral: np.ndarray


def evidence_of_all(
    scores: np.ndarray,
    plain: np.ndarray,
    probed: Probed,
    told: Correlations,
    hosts: np.ndarray,
    words: np.ndarray | None,
    cells: Cells,
    separability: np.ndarray,
    image: np.ndarray,
    alike: np.ndarray,
    *,
    scale: float,
    which: Sequence[int] | None = None,
) -> list[Evidence]:
    """Reads the evidence of ``C`` maps of one picture at once, which costs little more than that of one.

    Args:
        scores: float [C, N], the maps as they are shown.
        plain: float [C, N], those of the targets alone.
        probed: Maps of the neutral words.
        told: Rank correlations.
        hosts: float [C, N], the plain maps of the targets' hosts.
        words: float [C, N], the highest map of a word for labels; ``None`` for a model that knows no words.
        cells: Where the patches are.
        separability: float [C], least distance between the embeddings of target and contrasts.
        image: float [C], the targets' cosines with the image embedding, less a neutral word's highest.
        alike: float [C], cosines of the embeddings of targets and hosts.
        scale: The model's temperature; NaN where scores have none.
        which: The maps whose evidence is wanted; by default all. What one has does not depend on it.

    Returns:
        The evidence of each map that is wanted.
    """
    step = _step(scores.shape[1])
    rest = (scores - plain)[:, ::step]
    # A product may round otherwise for fewer rows: it is taken of all, and the rest of those that are wanted.
    together = None if probed.replaced is not None else (rest - rest.mean(axis=1, keepdims=True)) @ probed.some.T / rest.shape[1]
    if which is not None:
        rows = list(which)
        scores, plain, rest, hosts = scores[rows], plain[rows], rest[rows], hosts[rows]
        words, together = None if words is None else words[rows], None if together is None else together[rows]
        told = Correlations(told.host[rows], told.siblings[rows], told.neutral[rows])
        separability, image, alike = separability[rows], image[rows], alike[rows]
    count = len(scores)
    each, peaks = np.arange(count), scores.argmax(axis=1)
    mean, deviation = scores.mean(axis=1), scores.std(axis=1)
    # A constant map points nowhere: every word does as well.
    constant = ~np.isfinite(deviation) | (deviation <= 1e-6 * np.maximum(1e-3, np.abs(plain).max(axis=1)))
    top = scores[each, peaks]
    heights = _heights(top, mean, deviation)
    neutral_here, answered = probed.neutral[:, peaks].T, plain[each, peaks]
    if probed.replaced is None:
        at_peaks = neutral_here + (top - answered)[:, None]
    else:
        at_peaks = probed.replaced[:, peaks].T
    middle, spread, highest = _replaced(probed, rest, together, step)
    here, anywhere = _heights(at_peaks, middle, spread), _heights(np.maximum(highest, at_peaks), middle, spread)
    alone = _heights(neutral_here, probed.middle, probed.spread)
    own = _heights(answered, plain.mean(axis=1), plain.std(axis=1))
    # Where the target's own word dips, every word counts, however faint.
    loud = (neutral_here >= np.where(answered > 0, LOUD * answered, answered)[:, None]) | ~(own > 0)[:, None]
    half = (mean + top) / 2
    beyond = hosts - alike[:, None] * plain
    columns = {
        "p_value": _share_as_high(here, heights),
        "p_plain": _share_as_high(alone, own, loud),
        "p_anywhere": _share_as_high(anywhere, heights),
        "peak": heights,
        "strength": answered - neutral_here.max(axis=1),
        "text": np.full(count, np.nan) if words is None else _share_of_words(words, beyond, probed, cells, scores, peaks, half),
        "spread": (scores >= half[:, None]).mean(axis=1),
        "mass": _masses(scores, cells, peaks, scale),
        "variation": scale * deviation,
        "on_host": (hosts < hosts[each, peaks][:, None]).mean(axis=1),
    }
    for name, value in (
        ("p_value", 1.0),
        ("p_plain", 1.0),
        ("p_anywhere", 1.0),
        ("peak", 0.0),
        ("spread", 1.0),
        ("mass", 0.0),
        ("variation", 0.0),
    ):
        columns[name] = np.where(constant, value, columns[name])
    for name in ("strength", "text", "on_host"):
        columns[name] = np.where(constant, np.nan, columns[name])
    columns |= {"dependence_host": told.host, "dependence_siblings": told.siblings, "dependence_neutral": told.neutral}
    columns |= {"separability": separability, "image": image}
    numbers = zip(*(np.asarray(columns[item.name], dtype=np.float64).tolist() for item in fields(Evidence)))
    return [Evidence(*row) for row in numbers]


def _replaced(probed: Probed, rest: np.ndarray, together: np.ndarray | None, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, spread and highest value [C, K] of the maps with each neutral word in a target's place.

    Args:
        probed: Maps of the neutral words.
        rest: float [C, n], what the contrasts add to the maps, at some of the cells.
        together: float [C, K], its covariance with the maps of the neutral words; ``None`` where the replaced maps are given.
        step: Every so manieth cell is one of those.
    """
    if probed.replaced is not None or together is None:
        assert probed.replaced is not None
        given = probed.replaced[:, ::step]
        return given.mean(axis=1)[None], given.std(axis=1)[None], given.max(axis=1)[None]
    # Mean and spread of a sum follow from those of its parts.
    variance = probed.spread**2 + rest.var(axis=1)[:, None] + 2 * together
    highest = np.stack([(probed.some + row).max(axis=1) for row in rest])
    return probed.middle + rest.mean(axis=1)[:, None], np.sqrt(np.maximum(variance, 0.0)), highest


def _share_of_words(
    words: np.ndarray, beyond: np.ndarray, probed: Probed, cells: Cells, scores: np.ndarray, peaks: np.ndarray, half: np.ndarray
) -> np.ndarray:
    """Share of the cells around each peak at which a word for labels answers more strongly than all neutral words and than the host does
    beyond the target, float [C, N].
    """
    near = cells.near(peaks, AROUND) & (scores >= half[:, None])
    lettered = words > np.maximum(beyond, probed.highest)
    return np.asarray((near & lettered).sum(axis=1) / np.maximum(near.sum(axis=1), 1))


def _heights(values: np.ndarray, middle: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """How high values of some maps stand over the maps' means, in their deviations; those of a flat map stand at 0."""
    flat = ~(spread > 1e-9)
    return np.asarray(np.where(flat, 0.0, (values - middle) / np.where(flat, 1.0, spread)))


def _share_as_high(heights: np.ndarray, height: np.ndarray, among: np.ndarray | bool = True) -> np.ndarray:
    """The permutation p-values [C] of heights [C] among those of neutral words [C, K]; ``among`` bool [C, K]: which may count."""
    # Equal up to rounding counts as equal: a tower that gives every word the same map has p = 1.
    least = height - 1e-4 * np.maximum(1.0, height)
    return np.asarray((1 + ((heights >= least[:, None]) & among).sum(axis=1)) / (1 + heights.shape[1]))


def correlated(others: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlations of ranked maps [M, n] with one ranked map [n]; NaN with a constant map."""
    found = others @ own
    return np.asarray(np.where(others.any(axis=1) & own.any(), found, np.nan))
