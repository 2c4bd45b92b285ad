"""Features times directions: the score maps and the contrast ledger.

``s = f^ . w`` with unit patch features ``f^``: signed, float32, in the units of cosine similarity, never rescaled. Because the score is
linear it splits exactly into one term per text: the ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.core.concept import Concept
from concept_cam.core.directions import DirectionSet, directions
from concept_cam.core.names import choose

__all__ = ["FEATURE_NORM", "image_scores", "ledger", "probabilities", "score_patches"]


def l2(patches: Tensor) -> Tensor:
    """Unit length per patch: scores are cosines (the default)."""
    return F.normalize(patches.float(), dim=-1)


def none(patches: Tensor) -> Tensor:
    """Features as they are: scores are parts of the unnormalised image logit."""
    return patches.float()


FEATURE_NORM: dict[str, Callable[[Tensor], Tensor]] = {"l2": l2, "none": none}
"""Patch feature normalisations by name, float [..., D] -> float32 [..., D]."""


def score_patches(patches: Tensor, texts: DirectionSet, terms: Tensor, feature_norm: str = "l2", along: Tensor | None = None) -> Tensor:
    """Scores every patch along every direction.

    Args:
        patches: float [B, h, w, D].
        texts: The concepts' texts.
        terms: float32 [B or 1, C, 1 + R] coefficients from :func:`concept_cam.core.directions.coefficients`.
        feature_norm: A name of :data:`FEATURE_NORM`.
        along: float32 [1, C, D], the directions of ``terms``, where they are the same for all images and known already.

    Returns:
        float32 [B, C, h, w], signed; within [-(1 + gamma), 1 + gamma] for unit features and weights that sum to one.
    """
    features = choose(feature_norm, FEATURE_NORM, "feature normalisation")(patches)
    count, height, width, _ = features.shape
    if terms.shape[0] == 1:
        # One matrix product serves all images and concepts; [C, D] x [D, B h w] leaves each map contiguous.
        maps = (directions(texts, terms) if along is None else along)[0] @ features.reshape(count * height * width, -1).T
        return maps.reshape(-1, count, height, width).transpose(0, 1)
    # Weights that differ per image: multiply with the unique texts once, combine afterwards.
    unique = torch.einsum("bhwd,ud->buhw", features, texts.texts)
    scores = torch.zeros(count, terms.shape[1], height, width, dtype=unique.dtype, device=unique.device)
    for column in range(terms.shape[2]):
        scores += terms[:, :, column, None, None] * unique[:, texts.columns[:, column]]
    return scores


def ledger(patches: Tensor, embeddings: Tensor, terms: Tensor, feature_norm: str = "l2") -> Tensor:
    """Splits one concept's map into its additive terms.

    Args:
        patches: float [h, w, D] of one image.
        embeddings: float32 [1 + R, D] unit text embeddings, target first.
        terms: float32 [1 + R] coefficients.
        feature_norm: A name of :data:`FEATURE_NORM`.

    Returns:
        float32 [1 + R, h, w]: ``f^ . t+`` and each ``-gamma pi_j f^ . t_j``; their sum is the score map.
    """
    features = choose(feature_norm, FEATURE_NORM, "feature normalisation")(patches)
    return torch.einsum("hwd,rd,r->rhw", features, embeddings, terms)


def image_scores(image: Tensor, texts: DirectionSet, terms: Tensor, along: Tensor | None = None) -> Tensor:
    """Returns the cosine between image embeddings [B, D] and directions: float32 [B, C] in [-1, 1]; arguments as above."""
    weights = directions(texts, terms) if along is None else along
    units = F.normalize(image.float(), dim=-1)
    products = units @ weights[0].T if len(weights) == 1 else torch.einsum("bd,bcd->bc", units, weights)
    return cast("Tensor", products / weights.norm(dim=-1))


def scales_of(concepts: Sequence[Concept], logit_scale: float, sharpness: Mapping[str, float]) -> Tensor:
    """Returns the temperature of each concept's softmax: the model's own, times what was fitted for the character that it is about.

    One temperature for all makes a model too careful about what it tells well and too sure of what it tells badly (Guo et al., "On
    calibration of modern neural networks", ICML 2017).

    Args:
        concepts: The questions.
        logit_scale: The model's temperature.
        sharpness: Factors by :func:`character_key`; 1 for what is not named.

    Returns:
        float32 [C].
    """
    if not sharpness:
        return torch.full((len(concepts),), logit_scale)
    return torch.tensor([logit_scale * sharpness.get(character_key(concept), 1.0) for concept in concepts], dtype=torch.float32)


def character_key(concept: Concept) -> str:
    """Returns the name of the character that a question of a trait pack is about, such as ``fish:mouth_position/1f2e3d4c``.

    It ends in a digest of what the states are called: a pack of that name with other states or other words asks another question, of which
    nothing was fitted. Empty for questions in free words.
    """
    pack, character = concept.metadata.get("pack"), concept.metadata.get("character")
    if not pack or not character:
        return ""
    spoken = "\n".join(sorted("|".join(phrases) for phrases in (concept.target, *concept.rivals)))
    return f"{pack}:{character}/{hashlib.sha256(spoken.encode()).hexdigest()[:8]}"


def probabilities(image: Tensor, texts: DirectionSet, logit_scale: float | Tensor, concepts: Sequence[int] | None = None) -> Tensor:
    """Softmax over each concept's target and rivals: the contrasts that are answers.

    Args:
        image: float [B, D] image embeddings.
        texts: The concepts' texts.
        logit_scale: The model's temperature; or float [C], one for each concept, see :func:`scales_of`.
        concepts: One concept for each embedding, length B; by default all concepts for each.

    Returns:
        float32 [B, C, 1 + R], or [B, 1 + R] where the concepts are named, in 0..1, target first, 0 where there is no rival; rows sum to
        one.
    """
    used = texts.answers if concepts is None else texts.answers[list(concepts)]
    scale = logit_scale[:, None].to(image.device) if isinstance(logit_scale, Tensor) else logit_scale
    logits = (scale * texts.similarities(image, concepts)).masked_fill(~used, float("-inf"))
    return torch.softmax(logits, dim=-1)
