"""The linear layer that an image classifier ends in, with the names of its classes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["OwnHead"]


@dataclass(frozen=True, eq=False)
class OwnHead:
    """A classifier's own last layer: ``logits = weight @ embedding + bias``.

    Attributes:
        weight: float [N, D].
        bias: float [N].
        classes: Names of the classes, all different.
    """

    weight: Tensor
    bias: Tensor
    classes: tuple[str, ...]
