"""Towers that fail in known ways: does the certificate notice?

Each wraps a healthy image-text model and spoils one thing, so that all else is as it is in use. A tower whose weights are in disorder is
made by :func:`concept_cam.evaluation.randomisation.randomised`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.protocol import Backbone, ImageFeatures
from concept_cam.core.quiet import quiet

__all__ = ["FAILURES", "ConstantTower", "ReadingTower", "SubjectTower", "spoilt"]

LABEL_CORNER = (0.25, 0.4)
"""Share of the picture's height and width, from the upper left corner, that holds the label which :class:`ReadingTower` reads."""


class _Spoilt:
    """A model like another, but for what a subclass spoils."""

    def __init__(self, inner: Backbone, subject: str = "a fish") -> None:
        self._inner, self._subject = inner, subject

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def weights_hash(self) -> str:
        """Its own: texts that are kept by hash must not be taken for the healthy model's."""
        return f"{self._inner.weights_hash}-{type(self).__name__}"

    @quiet(graph=False)
    def _embedded(self, prompts: Sequence[str]) -> Tensor:
        return F.normalize(self._inner.encode_text(list(prompts)).float(), dim=-1)


class SubjectTower(_Spoilt):
    """Finds the subject, whatever is asked: its texts are the subject's, up to a hundredth."""

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """As the healthy model's, spoilt."""
        return F.normalize(self._embedded([self._subject]) + 0.01 * self._embedded(prompts), dim=-1)


class ConstantTower(_Spoilt):
    """Sees the same everywhere: each patch is the mean patch."""

    @quiet(graph=False)
    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """As the healthy model's, spoilt."""
        found = self._inner.encode_patches(pixels, attention, valid)
        mean = found.patches.mean(dim=(1, 2), keepdim=True).expand_as(found.patches).contiguous()
        return replace(found, patches=mean)


class ReadingTower(_Spoilt):
    """Reads: a label in the upper left corner looks like written words, and like what it says.

    Args:
        inner: The healthy model.
        subject: What the label says.
    """

    @quiet(graph=False)
    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """As the healthy model's, spoilt."""
        found = self._inner.encode_patches(pixels, attention, valid)
        words, said = self._embedded(["written words", self._subject])
        patches = found.patches.clone()
        rows, columns = (max(1, round(share * side)) for share, side in zip(LABEL_CORNER, patches.shape[1:3]))
        length = patches.norm(dim=-1).mean()
        patches[:, :rows, :columns] = (length * F.normalize(0.6 * words + said, dim=0)).to(patches)
        return replace(found, patches=patches)


FAILURES: dict[str, type[_Spoilt]] = {"subject": SubjectTower, "words": ReadingTower, "constant": ConstantTower}
"""Towers that fail, by what they answer with."""


def spoilt(inner: Backbone, failure: str, subject: str) -> Backbone:
    """Returns a model that fails in a way of :data:`FAILURES`."""
    tower: Any = FAILURES[failure](inner, subject)
    assert isinstance(tower, Backbone)
    return tower
