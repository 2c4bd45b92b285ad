"""The direct method under other names: with another attention, or with other directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from concept_cam.core.concept import Concept
from concept_cam.core.results import Localizations
from concept_cam.core.scoring import FEATURE_NORM
from concept_cam.methods.engine import Batch, TowerMethod, without_graph
from concept_cam.methods.method import Method

if TYPE_CHECKING:
    from concept_cam.methods.asker import Asker
    from concept_cam.pictures.reading import Picture

__all__ = ["clip_surgery", "direct", "gem", "patch_maps"]


def _patch_maps(batch: Batch) -> Tensor:
    """``f^ . w`` of a batch's patch features, with directions that are given: float32 [B, C, h, w]."""
    with without_graph():
        features = batch.backbone.encode_patches(batch.pixels, "auto", batch.features.valid)
        return torch.einsum("bhwd,bcd->bchw", FEATURE_NORM[batch.patch_norm](features.patches), batch.directions)


patch_maps = TowerMethod(_patch_maps)
"""The direct method where directions come from a classifier's rows."""

EMPTY_PROMPTS = ("a photo of a .", "a photo of the .", "a picture of a .", "a drawing of a .", "there is a .")
"""Prompts that name nothing: CLIP Surgery's templates around an empty text."""


def direct(localizer: Asker, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
    """Scores patch features along directions; see :meth:`concept_cam.localizer.Localizer.score`."""
    return [
        replace(answer, provenance=replace(answer.provenance, method=method.name))
        for answer in localizer.score(localizer.encode(list(pictures)), list(concepts), list(pictures))
    ]


def gem(localizer: Asker, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
    """GEM as published (Bousselham et al., CVPR 2024): self-self attention in the last six blocks, added up on a second path.

    The strategy ``gem-6``; a tower that pools by one attention alone (CLIP ResNets) has it there (``gem``).

    Raises:
        AttentionError: The family has no such attention.
    """
    return direct(localizer.with_settings(attention=_deepest(localizer, "gem-6", "gem")), pictures, concepts, method)


def _deepest(localizer: Asker, path: str, single: str) -> str:
    """The published depth where the tower has blocks to read, else the one attention that it has."""
    return path if path in localizer.backbone.attentions else single


def clip_surgery(localizer: Asker, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
    """CLIP Surgery as published (Li et al., 2023): value-value attention in the last six blocks, and feature surgery for single texts, ``f^
    . (t - t_empty)``.

    The strategy ``vv-6``; CLIP ResNets have one attention, their pooling's (``vv``; the official code also sharpens it there, which is not
    done).

    What every text shares with the empty text is redundant and is taken out of every term of the direction: ``f^ . (w - s t_empty)`` with
    ``s`` the sum of the direction's coefficients. A full contrast (``gamma = 1``, weights that sum to one) has ``s = 0``: there the
    surgery changes nothing, for the difference has cancelled already what the texts share.

    Raises:
        AttentionError: The family has no value-value attention.
    """
    other = localizer.with_settings(attention=_deepest(localizer, "vv-6", "vv"), refine="none")  # what is refined is the map at the end
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
