"""Fits the rules of trust and conformal limits to pictures whose answers people have drawn: masks from COCO, from folders, or of the fish
world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.core.errors import DataError, ImageError
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.trust.conformal import (
    Conformal,
    inner_limit,
    least_labels,
    outer_distance,
    outer_limit,
    relative,
    state_limit,
    wrong_shares,
)
from concept_cam.trust.rules import Rules, features_of, fit_rules

if TYPE_CHECKING:
    from concept_cam.core.results import Localization
    from concept_cam.localizer import Localizer

__all__ = ["Observed", "guarantee_facts", "fit_conformal", "fit_trust", "observe"]

_SIDE = 256
"""Longer side, in pixels, at which masks and maps are compared."""


@dataclass(frozen=True)
class Observed:
    """What one map was, beside what a person drew.

    Attributes:
        picture: Name of the picture.
        trait: Part or character.
        kind: Kind of question.
        features: float64 [F], what the rules read.
        right: Whether the peak lies on the target.
        present: Whether the target is in the picture.
        shares: Wrong shares of the inner masks; ``None`` without a mask.
        distance: By how much the mask at half height must grow to cover the part; ``None`` without a mask.
        probability: Of the true state among its siblings; ``None`` where no state was asked for.
    """

    picture: str
    trait: str
    kind: str
    features: np.ndarray
    right: bool
    present: bool
    shares: np.ndarray | None = None
    distance: float | None = None
    probability: float | None = None


def observe(
    dataset: Dataset, localizer: Localizer, progress: Callable[[Iterable[Sample]], Iterable[Sample]] | None = None
) -> tuple[list[Observed], list[str]]:
    """Asks the questions of a data set and compares the answers with the truth.

    Args:
        dataset: Pictures with masks; ``presence`` questions may have an absent target.
        localizer: Model and settings.
        progress: Wraps the stream of samples.

    Returns:
        What was observed, and the pictures that could not be used, with the reason.
    """
    found: list[Observed] = []
    errors: list[str] = []
    for sample in progress(dataset) if progress else dataset:
        asked = [question for question in sample.questions if question.mask is not None or not question.present]
        if not asked:
            continue
        try:
            (answers,) = localizer.locate_all([sample.image], [question.concept for question in asked])
        except ImageError as error:
            errors.append(f"{sample.name}: {error}")
            continue
        found += [_observed(sample.name, question, answer) for question, answer in zip(asked, answers)]
    return found, errors


def _observed(picture: str, question: SampleQuestion, found: Localization) -> Observed:
    certificate = found.certificate
    features = features_of(certificate.evidence, certificate.facts)
    probability = found.probability if question.kind in ("state", "presence") else None
    if question.mask is None:
        return Observed(picture, question.trait, question.kind, features, False, question.present)
    drawn = np.asarray(question.mask())
    x, y = found.peak
    right = bool(drawn[min(int(y), drawn.shape[0] - 1), min(int(x), drawn.shape[1] - 1)] == 255)
    step = max(1, -(-max(drawn.shape) // _SIDE))
    truth = drawn[::step, ::step] == 255
    if not truth.any():
        return Observed(picture, question.trait, question.kind, features, right, question.present, probability=probability)
    heights = relative(np.where(drawn == 128, np.nan, found.heatmap)[::step, ::step])
    distance = outer_distance(np.nan_to_num(heights, nan=-1.0) >= 0.5, truth)
    return Observed(
        picture, question.trait, question.kind, features, right, question.present, wrong_shares(heights, truth), distance, probability
    )


def guarantee_facts(localizer: Localizer) -> dict[str, Any]:
    """Returns under what maps are made: what a guarantee holds for."""
    settings = localizer.settings
    names = ("attention", "resize", "size", "gamma", "weighting", "feature_norm")
    return {
        "model": localizer.backbone.name,
        "weights_hash": localizer.backbone.weights_hash,
        "views": localizer.views,
        **{name: getattr(settings, name) for name in names},
    }


def fit_conformal(observed: Sequence[Observed], alpha: float, facts: dict[str, Any]) -> Conformal:
    """Fits conformal limits, per part or character.

    Raises:
        DataError: No part or character has enough labelled pictures.
    """
    least = least_labels(alpha)
    inner, outer, states, labelled = {}, {}, {}, {}
    for trait in dict.fromkeys(item.trait for item in observed):
        own = [item for item in observed if item.trait == trait]
        shares = [item.shares for item in own if item.shares is not None]
        distances = [item.distance for item in own if item.distance is not None]
        probabilities = [item.probability for item in own if item.probability is not None and item.present]
        labelled[trait] = max(len(shares), len(probabilities))
        if len(shares) >= least:
            inner[trait], outer[trait] = inner_limit(shares, alpha), outer_limit(distances, alpha)
        if len(probabilities) >= least:
            states[trait] = state_limit(probabilities, alpha)
    if not (inner or states):
        most = max(labelled.values(), default=0)
        raise DataError(
            f"a guarantee at alpha {alpha:g} needs at least {least} labelled pictures of a part or character; there are {most}."
        )
    return Conformal(alpha, inner, outer, 0.5, states, labelled, facts)


def fit_trust(
    observed: Sequence[Observed], facts: dict[str, Any], *, precision: float = 0.98, false_absent: float = 0.03, hosts: tuple[str, ...] = ()
) -> Rules:
    """Fits the rules of trust.

    Raises:
        DataError: Too few right or wrong, present or absent targets.
    """
    features = np.stack([item.features for item in observed]) if observed else np.zeros((0, 0))
    right, present = np.array([item.right for item in observed]), np.array([item.present for item in observed])
    return fit_rules(
        features,
        right,
        present,
        precision=precision,
        false_absent=false_absent,
        hosts=hosts,
        weights_hash=str(facts.get("weights_hash", "")),
        facts={**facts, "maps": len(observed), "pictures": len({item.picture for item in observed})},
    )
