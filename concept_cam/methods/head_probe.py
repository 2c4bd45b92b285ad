"""What the certificate of a classifier's map is made from: the map, and the means to make other maps of the same picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from concept_cam.core.registry import Entry

__all__ = ["CERTIFIED", "CERTIFIER", "LINEAR", "HeadProbe"]

CERTIFIED = ("direct", "grad-cam", "hires-cam", "layer-cam", "xgrad-cam", "grad-cam++")
"""Bases whose maps of other directions cost a backward pass each at most; those that run the tower again for every map have none."""

LINEAR = ("direct", "grad-cam", "hires-cam")
"""Those whose signed maps are linear in the direction."""

CERTIFIER = Entry("concept_cam.trust.heads:certify", "issues the certificate of a probe")
"""Stands above the methods, and is imported when the first certificate is asked for."""


@dataclass(frozen=True, eq=False)
class HeadProbe:
    """One answer of a classifier.

    Attributes:
        scores: float32 [h, w], the map.
        valid: bool [h, w], where the model looked.
        rows: float32 [N, D], the classifier's rows.
        target: Number of the class that was asked for.
        references: Numbers of the classes set against it.
        direction: float32 [D], what the map is of: the target's row less the references'.
        probability: Of the target among its references.
        linear: Whether maps are linear in the direction.
        maps: Makes the maps float32 [M, h, w] of directions [M, D], as the map was made.
        terms: What the rows of the target and of the references are multiplied with in ``direction``, by name.
    """

    scores: np.ndarray
    valid: np.ndarray
    rows: Tensor
    target: int
    references: Sequence[int]
    direction: Tensor
    probability: float
    linear: bool
    maps: Callable[[Tensor], np.ndarray]
    terms: Mapping[str, float]
