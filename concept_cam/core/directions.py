"""Text embeddings to directions: how the target is set against its contrasts.

The direction of a concept is ``w = t+ - gamma * sum_j pi_j t_j`` with unit text embeddings ``t`` and the contrast weights ``pi`` of a named
weighting. It is not renormalised, so the scores of concepts of one model share one unit. The comparison strength ``gamma`` and the
weightings come from Finer-CAM (Zhang et al., CVPR 2025), which subtracts the logits of look-alike classes before it explains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.core.errors import ConfigurationError, PromptError
from concept_cam.core.names import choose

__all__ = ["WEIGHTING", "DirectionSet", "FixedDirections", "coefficients", "directions", "ensemble", "nearest_classes"]

_VANISHING = 1e-4
"""Directions shorter than this cannot be told from rounding (unit text embeddings, float32)."""


def ensemble(embeddings: Tensor, groups: Sequence[int]) -> Tensor:
    """Averages prompt embeddings into one unit embedding per phrase group, ``t = norm(mean_k norm(E_k))``.

    Args:
        embeddings: float32 [N, D], the text tower's output, in group order.
        groups: Number of prompts of each group; sums to N.

    Returns:
        float32 [G, D], unit length.

    Raises:
        PromptError: A group's embeddings cancel out or hold NaN.
    """
    units = F.normalize(embeddings.float(), dim=-1)
    counts = torch.tensor(groups, device=units.device)
    owner = torch.arange(len(counts), device=units.device).repeat_interleave(counts)
    means = units.new_zeros(len(counts), units.shape[1]).index_add_(0, owner, units) / counts[:, None]
    if not torch.isfinite(means).all():
        raise PromptError("the text tower returned NaN: the weights or the number format (dtype) are not usable for this text.")
    if (means.norm(dim=-1) < 1e-6).any():
        raise PromptError("the prompts of one phrase group cancel each other out: their mean embedding is zero.")
    return F.normalize(means, dim=-1)


# ------------------------------------------------------------------------------------------------------------ weightings


def uniform(target: Tensor, contrasts: Tensor, present: Tensor, similarity: Tensor, logit_scale: float) -> Tensor:
    """``pi_j = 1 / R``: every contrast counts the same (Finer-CAM, eq. 3: the mean over the references)."""
    shares = present.to(target.dtype)
    return (shares / shares.sum(dim=-1, keepdim=True).clamp(min=1)).unsqueeze(0)


def softmax(target: Tensor, contrasts: Tensor, present: Tensor, similarity: Tensor, logit_scale: float) -> Tensor:
    """``pi = softmax_j(logit_scale * <e, t_j>)``: contrasts count as far as the image resembles them (Finer-CAM's released code).

    The weights are constants: no gradient flows through them.
    """
    logits = (logit_scale * similarity.detach()).masked_fill(~present, float("-inf"))
    return torch.softmax(logits, dim=-1).nan_to_num(0.0)  # A concept without contrasts has only masked entries.


def hardest(target: Tensor, contrasts: Tensor, present: Tensor, similarity: Tensor, logit_scale: float) -> Tensor:
    """``pi = 1`` for the one contrast that the image resembles most (Finer-CAM's "compare" mode)."""
    masked = similarity.detach().masked_fill(~present, float("-inf"))
    return F.one_hot(masked.argmax(dim=-1), present.shape[-1]).to(target.dtype) * present


def orthogonal(target: Tensor, contrasts: Tensor, present: Tensor, similarity: Tensor, logit_scale: float) -> Tensor:
    """``pi = pinv(T) t+``: removes from the target all that the contrasts span (signed weights, least squares).

    With ``gamma = 1`` the direction is orthogonal to every contrast.
    """
    spanned = contrasts * present.unsqueeze(-1)
    weights = torch.linalg.pinv(spanned.transpose(-1, -2).double()) @ target.double().unsqueeze(-1)
    return cast("Tensor", (weights.squeeze(-1).to(target.dtype) * present).unsqueeze(0))


Weighting = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]

WEIGHTING: dict[str, Weighting] = {"uniform": uniform, "softmax": softmax, "hardest": hardest, "orthogonal": orthogonal}
"""Contrast weightings by name.

Each takes ``target`` [C, D], ``contrasts`` [C, R, D] (zero rows where there is none), ``present`` bool [C, R], ``similarity`` [B, C, R]
(cosine of each image with each contrast) and the logit scale, and returns ``pi`` [B or 1, C, R]. Those that look at the image weigh the
rivals among themselves; each of the surroundings counts as much as it does under ``uniform``.
"""

IMAGE_DEPENDENT = frozenset({"softmax", "hardest"})
"""Weightings whose weights differ from image to image."""


# ------------------------------------------------------------------------------------------------------------ directions


@dataclass(frozen=True)
class DirectionSet:
    """The unique texts of several concepts and who uses which; embeddings are multiplied with features once and combined afterwards.

    Attributes:
        texts: float32 [U, D] unit embeddings of the unique phrase groups.
        target: int64 [C] row of each concept's target in ``texts``.
        contrasts: int64 [C, R] rows of the contrasts, 0 where there is none.
        present: bool [C, R] where there is one.
        rivals: bool [C, R] which of these are answers to the same question; the others are surroundings.
        names: Names of the concepts, for messages.
    """

    texts: Tensor
    target: Tensor
    contrasts: Tensor
    present: Tensor
    rivals: Tensor
    names: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> Tensor:
        """int64 [C, 1 + R]: rows of ``texts`` in the order of the coefficients."""
        return torch.cat([self.target.unsqueeze(-1), self.contrasts], dim=-1)

    @cached_property
    def used(self) -> Tensor:
        """Bool [C, 1 + R]: which entries of :attr:`columns` are terms rather than filling."""
        return torch.cat([self.present.new_ones(len(self.present), 1), self.present], dim=-1)

    @cached_property
    def answers(self) -> Tensor:
        """Bool [C, 1 + R]: which entries of :attr:`columns` are answers to the question: the target and its rivals."""
        return torch.cat([self.rivals.new_ones(len(self.rivals), 1), self.rivals], dim=-1)

    def similarities(self, image: Tensor, concepts: Sequence[int] | None = None) -> Tensor:
        """Returns the cosine of images [B, D] with each concept's target and contrasts: float32 [B, C, 1 + R], 0 where there is none.

        With ``concepts``, one for each image, only those of that one: float32 [B, 1 + R].
        """
        cosines = F.normalize(image.float(), dim=-1) @ self.texts.T
        if concepts is None:
            return cosines[:, self.columns] * self.used
        own = list(concepts)
        return cosines.gather(1, self.columns[own]) * self.used[own]


def coefficients(texts: DirectionSet, image: Tensor, *, weighting: str, gamma: float, logit_scale: float) -> Tensor:
    """Returns what each text contributes to each direction: ``+1`` for the target, ``-gamma * pi_j`` for contrast j.

    Args:
        texts: The concepts' texts.
        image: float32 [B, D] image embeddings, any length; only image-dependent weightings use them.
        weighting: A name of :data:`WEIGHTING`.
        gamma: Comparison strength, >= 0.
        logit_scale: The model's temperature.

    Returns:
        float32 [B, C, 1 + R], or [1, C, 1 + R] where the weighting does not depend on the image.

    Raises:
        ConfigurationError: Unknown weighting, or a negative or non-finite gamma.
        PromptError: A direction vanishes.
    """
    weigh = choose(weighting, WEIGHTING, "weighting")
    if not 0.0 <= gamma < float("inf"):
        raise ConfigurationError(f"gamma must be a number >= 0 (0: no contrast, 1: full contrast), received {gamma}.")
    target = texts.texts[texts.target]
    ones = torch.ones_like(target[:, :1])
    if texts.present.shape[-1] == 0:
        return ones.unsqueeze(0)
    contrasts = texts.texts[texts.contrasts] * texts.present.unsqueeze(-1)
    similarity = texts.similarities(image)[..., 1:] if weighting in IMAGE_DEPENDENT else contrasts.new_zeros(())
    if weighting in IMAGE_DEPENDENT:
        # Which look-alike counts is a question among rivals: every picture of a host is like the host, which would be all that counts.
        count = texts.present.sum(dim=-1, keepdim=True).clamp(min=1)
        weights = weigh(target, contrasts, texts.rivals, similarity, logit_scale) * (texts.rivals.sum(dim=-1, keepdim=True) / count)
        weights = weights + (texts.present & ~texts.rivals) / count
    else:
        weights = weigh(target, contrasts, texts.present, similarity, logit_scale)
    terms = torch.cat([ones.expand(weights.shape[0], -1, -1), -gamma * weights], dim=-1)
    lengths = directions(texts, terms).norm(dim=-1)
    if (lengths < _VANISHING).any():
        index = int((lengths < _VANISHING).any(dim=0).nonzero()[0])
        raise PromptError(
            f"the direction of {repr(texts.names[index]) if texts.names else f'concept number {index + 1}'} vanishes (length "
            f"{float(lengths.min()):.1e}): the model gives its target and its contrasts the same embedding, as it does words that it never "
            "saw. Use other words, or a model that can tell them apart."
        )
    return terms


def directions(texts: DirectionSet, terms: Tensor) -> Tensor:
    """Returns the classifier directions ``w`` float32 [B or 1, C, D] for coefficients [B or 1, C, 1 + R]."""
    weights = terms[..., :1] * texts.texts[texts.target]
    for column in range(1, terms.shape[-1]):
        # Column by column: gathering all contrasts at once would copy [C, R, D].
        weights = torch.addcmul(weights, terms[..., column, None], texts.texts[texts.columns[:, column]])
    return weights


class FixedDirections:
    """Coefficients and directions of questions that are the same for every image; the latest few are kept.

    Safe in several threads: what is kept is replaced as a whole, never changed.
    """

    KEPT = 4

    def __init__(self) -> None:
        self._known: tuple[tuple[DirectionSet, tuple[str, float], Tensor, Tensor], ...] = ()

    def __call__(self, texts: DirectionSet, *, weighting: str, gamma: float, logit_scale: float) -> tuple[Tensor, Tensor] | None:
        """Returns the coefficients float32 [1, C, 1 + R] and directions float32 [1, C, D]; ``None`` where they depend on the image.

        Arguments and errors are those of :func:`coefficients`.
        """
        if weighting in IMAGE_DEPENDENT:
            return None
        key = weighting, gamma
        for known, own, terms, along in self._known:
            if known is texts and own == key:
                return terms, along
        nothing = texts.texts.new_zeros(1, texts.texts.shape[-1])
        terms = coefficients(texts, nothing, weighting=weighting, gamma=gamma, logit_scale=logit_scale)
        along = directions(texts, terms)
        self._known = ((texts, key, terms, along), *self._known[: self.KEPT - 1])
        return terms, along


def nearest_classes(logits: Tensor, target: int, count: int) -> list[int]:
    """Returns the ``count`` classes whose logits are nearest to the target's, nearest first (Finer-CAM's choice of references).

    Args:
        logits: float [K] class logits of one image.
        target: Index of the target class.
        count: Number of references wanted; fewer are returned when there are fewer other classes.

    Raises:
        ConfigurationError: Fewer than two classes, or a count below one.
    """
    if logits.numel() < 2:
        raise ConfigurationError(f"class lists need at least two classes, received {logits.numel()}.")
    if count < 1:
        raise ConfigurationError(f"the number of reference classes must be at least 1, received {count}.")
    gaps = (logits.float() - logits[target].float()).abs()
    gaps[target] = float("inf")
    return torch.argsort(gaps, stable=True)[: min(count, logits.numel() - 1)].tolist()
