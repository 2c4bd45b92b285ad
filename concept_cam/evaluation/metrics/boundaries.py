"""Does an outline lie on the outline of the target? A pure function of two masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.evaluation.metrics.masks import split_mask

__all__ = ["BOUNDARY_TOLERANCE", "boundary_f"]

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.0075
"""How far an outline may lie from the true one, as a share of the picture's diagonal."""


def boundary_f(found: Array, mask: Array, tolerance: float | None = None) -> float:
    """F-score of an outline: harmonic mean of the shares of either outline's pixels that lie near the other outline.

    Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013; Perazzi et al., "A benchmark dataset and
    evaluation methodology for video object segmentation", CVPR 2016. The outline of a mask are its pixels of which one of the four
    neighbours is outside; the picture's edge is no outline.

    Args:
        found: bool [H, W].
        mask: [H, W], the truth, as :func:`~concept_cam.evaluation.metrics.masks.split_mask` takes it; ignored pixels are in neither mask.
        tolerance: Euclidean distance in pixels; by default :data:`BOUNDARY_TOLERANCE` of the diagonal, at least one pixel.

    Returns:
        0..1; 0 where nothing is found; NaN for a mask without an outline (empty, or the whole picture).

    Raises:
        DataError: The shapes differ.
        ConfigurationError: A negative tolerance.
    """
    target, counted = split_mask(mask)
    if found.shape != target.shape or found.dtype != bool:
        raise DataError(f"expected a mask bool {target.shape}, received {found.dtype} {found.shape}.")
    reach = max(1.0, BOUNDARY_TOLERANCE * math.hypot(*target.shape)) if tolerance is None else tolerance
    if reach < 0:
        raise ConfigurationError(f"the tolerance is a distance in pixels, received {tolerance}.")
    own, true = _outline(found & counted), _outline(target)
    if not true.any():
        return float("nan")
    if not own.any():
        return 0.0
    part = _around(own | true)
    own, true = own[part], true[part]
    precision = float(np.mean(ndimage.distance_transform_edt(~true)[own] <= reach))
    recall = float(np.mean(ndimage.distance_transform_edt(~own)[true] <= reach))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(mask: Bool) -> Bool:
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=1))


def _around(mask: Bool) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
