"""The direct method under other names: with another attention, or with other directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from concept_cam.core.concept import Concept
from concept_cam.core.results import Localizations
from concept_cam.core.scoring import FEATURE_NORM
from concept_cam.methods.method import Method

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer
    from concept_cam.pictures.reading import Picture

__all__ = ["clip_surgery", "direct", "gem"]

EMPTY_PROMPTS = ("a photo of a .", "a photo of the .", "a picture of a .", "a drawing of a .", "there is a .")
"""Prompts that name nothing: CLIP Surgery's templates around an empty text."""


def direct(localizer: Localizer, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
    """Scores patch features along directions; see :meth:`concept_cam.localizer.Localizer.score`."""
    return [
        replace(answer, provenance=replace(answer.provenance, method=method.name))
        for answer in localizer.score(localizer.encode(list(pictures)), list(concepts))
    ]


def gem(localizer: Localizer, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
    """The direct method with the attention strategy ``gem`` (Bousselham et al., CVPR 2024), in the last block only.

    Raises:
        AttentionError: The family has no such attention.
    """
    return direct(localizer.with_settings(attention="gem"), pictures, concepts, method)


def clip_surgery(localizer: Localizer, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
    """Value-value attention and feature surgery for single texts (Li et al., "CLIP Surgery", 2023): ``f^ . (t - t_empty)``.

    What every text shares with the empty text is redundant and is taken out of every term of the direction: ``f^ . (w - s t_empty)`` with
    ``s`` the sum of the direction's coefficients. A full contrast (``gamma = 1``, weights that sum to one) has ``s = 0``: there the
    surgery changes nothing, for the difference has cancelled already what the texts share.

    Raises:
        AttentionError: The family has no value-value attention.
    """
    other = localizer.with_settings(attention="vv")
    features = other.encode(list(pictures))
    answers = other.score(features, list(concepts))
    empty = other.embed_texts([EMPTY_PROMPTS])[0]
    changed = []
    for item, answer in zip(features, answers):
        patches = FEATURE_NORM[other.settings.feature_norm](item.patches)
        redundant = (patches @ empty.to(patches.device)).cpu().numpy()
        scores = answer.scores - answer.terms.sum(axis=1)[:, None, None] * redundant[None]
        provenance = replace(answer.provenance, method=method.name)
        changed.append(replace(answer, scores=scores.astype(np.float32), split=None, certify=None, provenance=provenance))
    return changed
