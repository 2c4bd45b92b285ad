"""How a mask, a host mask and a map become the scores and labels that the metrics count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam.core.errors import DataError

__all__ = ["TARGET", "IGNORE", "NOT_TARGET", "coverage", "labelled_scores", "prevalence", "split_mask"]

TARGET, IGNORE, NOT_TARGET = 255, 128, 0
"""Values of a uint8 mask."""

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]


def split_mask(mask: Array) -> tuple[Bool, Bool]:
    """Splits a mask into what is target and what counts.

    Args:
        mask: bool [H, W] (True: target), or integers [H, W] with 255 target, 0 not, 128 ignore.

    Returns:
        ``(target, counted)``, both bool [H, W]; ``target`` is a subset of ``counted``.

    Raises:
        DataError: Not two-dimensional, or another value than those three. A 0/1 mask must be made bool first: in uint8 it
            would silently be an almost black picture.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise DataError(f"a mask must have two axes [H, W], received shape {mask.shape}.")
    if mask.dtype == bool:
        return mask, np.ones(mask.shape, dtype=bool)
    target, ignored = mask == TARGET, mask == IGNORE
    if np.count_nonzero(target) + np.count_nonzero(ignored) + np.count_nonzero(mask == NOT_TARGET) != mask.size:
        odd = sorted(set(np.unique(mask).tolist()) - {TARGET, IGNORE, NOT_TARGET})[:5]
        raise DataError(
            f"a mask holds {odd}; expected bool, or 255 (target), 0 (not) and 128 (ignore). Convert it with  mask > 0  if it is 0/1."
        )
    return target, ~ignored


def labelled_scores(heatmap: Array, mask: Array, within: Array | None = None) -> tuple[Array, Array]:
    """Splits a map into the scores of target pixels and those of the other pixels.

    Args:
        heatmap: [H, W] floating point, any range; NaN where the map says nothing.
        mask: [H, W] as :func:`split_mask` takes it.
        within: Host mask of the same kind; only its target pixels count. ``None``: the whole picture.

    Returns:
        ``(positive, negative)``, two one-dimensional arrays of scores: float64 for float64 and integer maps, else float32.
        Ignored pixels, pixels outside the host and NaN pixels are in neither.

    Raises:
        DataError: The shapes differ.
    """
    heatmap = np.asarray(heatmap)
    target, counted = split_mask(mask)
    if heatmap.shape != target.shape:
        raise DataError(f"the map has shape {heatmap.shape}, its mask {target.shape}: both must be [H, W] of the original picture.")
    if within is not None:
        host = split_mask(within)[0]
        if host.shape != target.shape:
            raise DataError(f"the host mask has shape {host.shape}, the target mask {target.shape}: they must agree.")
        counted = counted & host
    # float32 holds float16 exactly; converting integers to it would merge large distinct values.
    wide = heatmap.astype(np.float64 if heatmap.dtype.kind in "iub" or heatmap.dtype.itemsize > 4 else np.float32, copy=False)
    missing = np.isnan(wide)
    if missing.any():
        counted = counted & ~missing
    return wide[counted & target], wide[counted & ~target]


def prevalence(mask: Array, within: Array | None = None) -> float:
    """Share of the counted pixels that are target: the average precision of a map that knows nothing.

    Returns:
        0..1, or NaN when there is no target pixel or nothing counts.
    """
    target, counted = split_mask(mask)
    if within is not None:
        counted = counted & split_mask(within)[0]
    total = int(np.count_nonzero(counted))
    hits = int(np.count_nonzero(target & counted))
    return hits / total if hits else float("nan")


def coverage(heatmap: Array, mask: Array) -> float:
    """Share of the target's pixels about which the map says anything (is not NaN).

    A map that sees only a crop leaves the rest NaN and every other metric ignores NaN: read this beside them.

    Returns:
        0..1, or NaN for an empty mask.
    """
    target, _ = split_mask(mask)
    total = int(np.count_nonzero(target))
    return float(np.count_nonzero(target & ~np.isnan(heatmap)) / total) if total else float("nan")
