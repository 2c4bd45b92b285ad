"""Does the map lie on the target? Pure functions of one map and its mask, and the pooled ones over a data set.

Throughout: ``heatmap`` is [H, W], raw and signed, higher means more target; NaN pixels are ignored. ``mask`` is bool, or uint8
with 255 target, 0 not, 128 ignore. A mask without target pixels gives NaN, never a hit. Ties are counted exactly: pixels of equal
score enter together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.names import choose
from concept_cam.evaluation.metrics.masks import labelled_scores, split_mask

__all__ = [
    "COMPONENTS",
    "NEGATIVES",
    "auroc",
    "auroc_from_scores",
    "average_precision",
    "average_precision_from_counts",
    "average_precision_from_scores",
    "best_iou",
    "box_iou_curve",
    "energy_pointing_game",
    "iou",
    "iou_curve",
    "max_box_acc",
    "max_box_acc_v2",
    "minmax",
    "pixel_counts",
    "point_counts",
    "point_miou",
    "pointing_game",
    "pxap",
]

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]
NAN = float("nan")


# ------------------------------------------------------------------------------------------------------------ rankings


def _at_or_above(values: Array, thresholds: Array) -> npt.NDArray[np.int64]:
    """Counts, for each threshold, the values that are at or above it; ``values`` sorted upwards."""
    return (len(values) - np.searchsorted(values, thresholds, side="left")).astype(np.int64)


def average_precision_from_scores(positive: Array, negative: Array) -> float:
    """Average precision of two lists of scores.

    ``AP = sum_n (R_n - R_{n-1}) P_n`` over the distinct scores from high to low: the area under the precision-recall step
    function without interpolation (scikit-learn's ``average_precision_score``). Recall moves only where a positive is, so only the
    positives' distinct scores are visited.

    Returns:
        0..1; NaN without positives; 1 without negatives.
    """
    if not len(positive):
        return NAN
    values, steps = np.unique(positive, return_counts=True)
    hits = np.cumsum(steps[::-1])[::-1]
    wrong = _at_or_above(np.sort(negative), values)
    return float(np.sum(steps * (hits / (hits + wrong))) / len(positive))


def auroc_from_scores(positive: Array, negative: Array) -> float:
    """Area under the ROC curve of two lists of scores.

    ``P(s+ > s-) + P(s+ = s-) / 2`` (Mann-Whitney), which is the trapezoidal area (scikit-learn's ``roc_auc_score``).

    Returns:
        0..1, 0.5 for a constant score; NaN when either list is empty.
    """
    if not len(positive) or not len(negative):
        return NAN
    values, steps = np.unique(positive, return_counts=True)
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, values, side="left").astype(np.int64)
    up_to = np.searchsorted(ordered, values, side="right").astype(np.int64)
    doubled = int(np.sum(steps * (below + up_to)))
    return doubled / (2 * len(positive) * len(negative))


def average_precision(heatmap: Array, mask: Array, within: Array | None = None) -> float:
    """Pixel average precision of one map.

    Each pixel is a retrieval candidate, target pixels are relevant; see :func:`average_precision_from_scores`. A map that knows
    nothing scores the target's share of the pixels (:func:`concept_cam.evaluation.metrics.prevalence`), not 0.5: compare with it. Source of
    the use on attribution maps: Choe et al. 2020 (PxAP), here per picture.

    Args:
        heatmap: [H, W].
        mask: [H, W].
        within: Host mask; only its pixels count, so that finding the subject earns nothing.

    Returns:
        0..1 or NaN.
    """
    return average_precision_from_scores(*labelled_scores(heatmap, mask, within))


def auroc(heatmap: Array, mask: Array, within: Array | None = None) -> float:
    """Area under the ROC curve over pixels: of the picture, or of the host (target part against the rest of the subject).

    Args:
        heatmap: [H, W].
        mask: [H, W].
        within: Host mask, or ``None`` for the whole picture.

    Returns:
        0..1, chance 0.5; NaN when the mask is empty or fills everything that counts.
    """
    return auroc_from_scores(*labelled_scores(heatmap, mask, within))


# -------------------------------------------------------------------------------------------------------------- energy


def _shifted(scores: Array) -> Array:
    return scores - scores.min() if len(scores) else scores


NEGATIVES: dict[str, Callable[[Array], Array]] = {
    "clip": lambda scores: np.maximum(scores, 0),
    "shift": _shifted,
}
"""What to do with negative scores where energy is summed: ``clip`` sets them to zero, ``shift`` moves the minimum to zero."""


def energy_pointing_game(heatmap: Array, mask: Array, negatives: str = "clip", within: Array | None = None) -> float:
    """Share of the map's energy that falls on the target.

    ``sum_{mask} s / sum s`` (Score-CAM, Wang et al. 2020, there with boxes). The definition needs ``s >= 0``, a signed map does not
    have that, and the two remedies differ: ``clip`` keeps the zero of the map, ``shift`` moves its minimum to zero and so rewards
    flat maps by their area.

    Args:
        heatmap: [H, W].
        mask: [H, W].
        negatives: Name in :data:`NEGATIVES`.
        within: Host mask, or ``None``.

    Returns:
        0..1; NaN for an empty mask and for a map without any energy.

    Raises:
        ConfigurationError: Unknown ``negatives``.
    """
    treat = choose(negatives, NEGATIVES, "treatment of negative scores")
    positive, negative = labelled_scores(heatmap, mask, within)
    if not len(positive):
        return NAN
    energy = treat(np.concatenate([positive, negative]).astype(np.float64))
    total = float(energy.sum())
    return float(energy[: len(positive)].sum()) / total if total > 0 and np.isfinite(total) else NAN


def pointing_game(heatmap: Array, mask: Array, tolerance: float = 0.0, within: Array | None = None) -> float:
    """Does the map's maximum lie on the target?

    Zhang et al. 2018 (excitation backprop): a hit when the maximum is within ``tolerance`` pixels of the target (there 15). Several
    equal maxima count by the share of them that hit, the expectation of drawing one at random: a constant map scores the target's
    area and not whatever lies in the first corner.

    Args:
        heatmap: [H, W].
        mask: [H, W]; ignored pixels cannot be the maximum.
        tolerance: Euclidean distance in pixels of the original picture.
        within: Host mask; the maximum is taken inside it. ``None``: the whole picture.

    Returns:
        0..1 (0 or 1 without ties); NaN for an empty mask or a map that is NaN throughout.
    """
    if tolerance < 0:
        raise ConfigurationError(f"the tolerance is a distance in pixels, received {tolerance}.")
    heatmap = np.asarray(heatmap)
    positive, negative = labelled_scores(heatmap, mask, within)
    target, counted = split_mask(mask)
    if not target.any() or not len(positive) + len(negative):
        return NAN
    if tolerance == 0:
        if not len(positive):
            return 0.0
        peak = max(positive.max(), negative.max()) if len(negative) else positive.max()
        hits, misses = np.count_nonzero(positive == peak), np.count_nonzero(negative == peak)
        return float(hits / (hits + misses))
    if within is not None:
        counted = counted & split_mask(within)[0]
    open_map = np.where(counted, heatmap, np.nan)
    peaks = open_map == np.nanmax(open_map)
    near = ndimage.distance_transform_edt(~target) <= tolerance
    return float(np.count_nonzero(peaks & near) / np.count_nonzero(peaks))


# ---------------------------------------------------------------------------------------------------------------- IoU


def iou_curve(heatmap: Array, mask: Array, thresholds: Sequence[float] | Array, within: Array | None = None) -> Float:
    """Intersection over union of ``heatmap >= threshold`` with the target, for each threshold.

    Args:
        heatmap: [H, W].
        mask: [H, W].
        thresholds: [T], in the map's own units.
        within: Host mask, or ``None``.

    Returns:
        float64 [T] in 0..1; NaN throughout for an empty mask.
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    positive, negative = labelled_scores(heatmap, mask, within)
    if not len(positive):
        return np.full(cuts.shape, NAN)
    hits = _at_or_above(np.sort(positive), cuts)
    wrong = _at_or_above(np.sort(negative), cuts)
    return np.asarray(hits / (len(positive) + wrong), dtype=np.float64)


def iou(heatmap: Array, mask: Array, threshold: float, within: Array | None = None) -> float:
    """Intersection over union at one fixed threshold, to be the same for every prompt and picture that is compared.

    Returns:
        0..1; NaN for an empty mask.
    """
    return float(iou_curve(heatmap, mask, [threshold], within)[0])


def best_iou(heatmap: Array, mask: Array, within: Array | None = None) -> tuple[float, float]:
    """Intersection over union at the best threshold for this map: an upper bound that no user can reach.

    The best threshold is always a target pixel's score, so exactly those are tried.

    Returns:
        ``(IoU, threshold)``; the highest such threshold on ties; NaNs for an empty mask.
    """
    positive, negative = labelled_scores(heatmap, mask, within)
    if not len(positive):
        return NAN, NAN
    values, steps = np.unique(positive, return_counts=True)
    hits = np.cumsum(steps[::-1])[::-1]
    ratio = hits / (len(positive) + _at_or_above(np.sort(negative), values))
    best = len(ratio) - 1 - int(np.argmax(ratio[::-1]))
    return float(ratio[best]), float(values[best])


# --------------------------------------------------------------------------------------------------------------- boxes


def minmax(heatmap: Array) -> Array:
    """Scales a map to 0..1, NaN kept; a constant map becomes zero. Part of the definition of MaxBoxAcc and PxAP alone."""
    heatmap = np.asarray(heatmap, dtype=np.float64)
    low, high = (np.nanmin(heatmap), np.nanmax(heatmap)) if not np.isnan(heatmap).all() else (0.0, 0.0)
    return np.where(np.isnan(heatmap), np.nan, 0.0) if high <= low else (heatmap - low) / (high - low)


def _largest(labels: npt.NDArray[np.int32], count: int) -> list[tuple[int, int, int, int]]:
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [_boxes(labels, count)[int(np.argmax(sizes))]]


def _boxes(labels: npt.NDArray[np.int32], count: int) -> list[tuple[int, int, int, int]]:
    return [(where[1].start, where[0].start, where[1].stop, where[0].stop) for where in ndimage.find_objects(labels)]


COMPONENTS: dict[str, Callable[[npt.NDArray[np.int32], int], list[tuple[int, int, int, int]]]] = {
    "largest": _largest,
    "all": _boxes,
}
"""Which connected components of the thresholded map offer a box: the largest (MaxBoxAcc), or all (MaxBoxAccV2)."""


def _box_iou(a: Float, b: Float) -> Float:
    """Intersection over union of boxes [N, 4] with boxes [M, 4] -> [N, M]; half-open."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (a, b)]
    return np.asarray(common / (areas[0][:, None] + areas[1][None, :] - common))


def box_iou_curve(
    heatmap: Array,
    boxes: Sequence[Sequence[float]],
    thresholds: Sequence[float] | Array,
    components: str = "largest",
) -> Float:
    """Best overlap of a box around the thresholded map with a true box, for each threshold.

    The map is scaled to 0..1 by its own extremes first, as the definition has it (Choe et al. 2020, *Evaluating Weakly Supervised
    Object Localization Methods Right*); a pixel is in when it is above the threshold; components are 8-connected. Boxes are
    half-open in pixels, where the authors' code counts both ends in: a difference below a pixel.

    Args:
        heatmap: [H, W]; NaN is never in.
        boxes: [(x0, y0, x1, y1)], half-open, original pixels.
        thresholds: [T] in 0..1.
        components: Name in :data:`COMPONENTS`.

    Returns:
        float64 [T] in 0..1; zero where nothing is above the threshold; NaN throughout without a true box.
    """
    pick = choose(components, COMPONENTS, "choice of components")
    truth = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not len(truth):
        return np.full(len(thresholds), NAN)
    scaled = minmax(heatmap)
    curve = np.zeros(len(thresholds))
    for i, threshold in enumerate(thresholds):
        labels, count = ndimage.label(scaled > threshold, structure=np.ones((3, 3)))
        if count:
            curve[i] = _box_iou(np.asarray(pick(labels, count), dtype=np.float64), truth).max()
    return curve


def max_box_acc(curves: Array, overlap: float = 0.5) -> float:
    """MaxBoxAcc (Choe et al. 2020): accuracy of the boxes at the one threshold that is best over the data set.

    ``max_t mean_i [IoU_i(t) >= overlap]``.

    Args:
        curves: [N, T], rows of :func:`box_iou_curve` with ``components="largest"``; NaN rows are left out.
        overlap: IoU that counts as found.

    Returns:
        0..1; NaN when no row counts.
    """
    rows = np.atleast_2d(np.asarray(curves, dtype=np.float64))
    rows = rows[~np.isnan(rows).any(axis=1)]
    return float((rows >= overlap).mean(axis=0).max()) if len(rows) else NAN


def max_box_acc_v2(curves: Array, overlaps: Sequence[float] = (0.3, 0.5, 0.7)) -> float:
    """MaxBoxAccV2 (Choe et al. 2020): the mean of :func:`max_box_acc` over three overlaps, each with its own best threshold.

    Args:
        curves: [N, T], rows of :func:`box_iou_curve` with ``components="all"``.
        overlaps: The IoU values.
    """
    return float(np.mean([max_box_acc(curves, overlap) for overlap in overlaps]))


# ------------------------------------------------------------------------------------------------------- pooled pixels


def pixel_counts(heatmap: Array, mask: Array, edges: Sequence[float] | Array, within: Array | None = None) -> npt.NDArray[np.int64]:
    """Counts target and other pixels between thresholds, so that pictures can be pooled without keeping their pixels.

    Args:
        heatmap: [H, W].
        mask: [H, W].
        edges: [T] thresholds, ascending.
        within: Host mask, or ``None``.

    Returns:
        int64 [2, T + 1]: target pixels, other pixels. Column ``k`` counts ``edges[k-1] <= s < edges[k]``, the first and last
        columns are open. Arrays of several maps over the same edges may be added.
    """
    cuts = np.asarray(edges, dtype=np.float64)
    if np.any(np.diff(cuts) <= 0):
        raise ConfigurationError("the edges of pixel counts must ascend.")
    groups = labelled_scores(heatmap, mask, within)
    return np.stack([np.bincount(np.searchsorted(cuts, scores, side="right"), minlength=len(cuts) + 1) for scores in groups]).astype(
        np.int64
    )


def average_precision_from_counts(counts: Array) -> float:
    """Average precision of pooled pixels, every bin one tie.

    Args:
        counts: int [2, K] as :func:`pixel_counts` returns them.

    Returns:
        0..1; NaN without target pixels.
    """
    positive, negative = (np.asarray(row, dtype=np.int64)[::-1] for row in counts)
    total = int(positive.sum())
    if not total:
        return NAN
    hits, wrong = np.cumsum(positive), np.cumsum(negative)
    seen = positive > 0
    return float(np.sum(positive[seen] * (hits[seen] / (hits[seen] + wrong[seen]))) / total)


def pxap(pairs: Iterable[tuple[Array, Array]], bins: int = 1000) -> float:
    """PxAP (Choe et al. 2020): average precision of all pixels of a data set, each map first scaled to 0..1 by its own extremes.

    ``sum_l PxPrec(t_l) (PxRec(t_l) - PxRec(t_{l-1}))`` with precision and recall over the pooled pixels. Pictures with more pixels
    weigh more, and the scaling per map hides whether an empty picture scores low: both belong to the definition.

    Args:
        pairs: ``(heatmap, mask)``, streamed.
        bins: Number of thresholds in 0..1.

    Returns:
        0..1; NaN when there is no target pixel at all.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    counts = np.zeros((2, bins), dtype=np.int64)
    for heatmap, mask in pairs:
        counts += pixel_counts(minmax(heatmap), mask, edges)
    return average_precision_from_counts(counts)


# -------------------------------------------------------------------------------------------------------------- points


def point_counts(heatmap: Array, points: Array, labels: Sequence[int] | Array, threshold: float) -> tuple[int, int, int]:
    """Counts point labels that the thresholded map gets right and wrong.

    Args:
        heatmap: [H, W].
        points: [N, 2] of ``(x, y)``, original pixels (pixel i covers [i, i+1)).
        labels: [N]: 1 the point is on the target, 0 it is not, any other value: ignore.
        threshold: A point is called target where the map is at or above it.

    Returns:
        ``(true positives, false positives, false negatives)``. Points where the map is NaN are ignored.

    Raises:
        DataError: A counted point outside the picture, or other numbers of points and labels.
    """
    heatmap = np.asarray(heatmap)
    at = np.floor(np.asarray(points, dtype=np.float64).reshape(-1, 2)).astype(np.int64)
    truth = np.asarray(labels)
    if len(at) != len(truth):
        raise DataError(f"received {len(at)} points and {len(truth)} labels.")
    keep = np.isin(truth, (0, 1))
    at, truth = at[keep], truth[keep].astype(bool)
    if len(at) and (at.min() < 0 or at[:, 0].max() >= heatmap.shape[1] or at[:, 1].max() >= heatmap.shape[0]):
        raise DataError(f"a point lies outside the picture of {heatmap.shape[1]} x {heatmap.shape[0]} pixels.")
    scores = heatmap[at[:, 1], at[:, 0]]
    seen = ~np.isnan(scores)
    called, truth = scores[seen] >= threshold, truth[seen]
    return int(np.sum(called & truth)), int(np.sum(called & ~truth)), int(np.sum(~called & truth))


def point_miou(counts: Iterable[tuple[int, int, int]]) -> float:
    """Point mIoU: mean over concepts of ``TP / (TP + FP + FN)`` over labelled points.

    Benenson and Ferrari 2022 (*From colouring-in to pointillism*, Open Images V7); GEM and LeGrad report it. Add the counts of
    one concept over all pictures before calling.

    Args:
        counts: One ``(TP, FP, FN)`` per concept, from :func:`point_counts`.

    Returns:
        0..1; concepts without any positive point (no TP and no FN) are left out; NaN when none is left.
    """
    ratios = [tp / (tp + fp + fn) for tp, fp, fn in counts if tp + fn]
    return float(np.mean(ratios)) if ratios else NAN
