"""Fits the rules of trust and conformal limits to pictures whose answers people have drawn: masks from COCO, from folders, or of the fish
world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.core.concept import Concept
from concept_cam.core.errors import DataError, ImageError
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.trust.conformal import (
    MARGIN_LEVEL,
    Conformal,
    inner_limit,
    inner_sizes,
    least_labels,
    outer_distance,
    outer_limit,
    relative,
    state_limit,
    stratum_of,
    wrong_shares,
)
from concept_cam.trust.fitting import Judged, fit_rules
from concept_cam.trust.rules import Rules, key_of, kind_of

if TYPE_CHECKING:
    from concept_cam.core.results import Localization
    from concept_cam.localizer import Localizer

__all__ = ["Observed", "fit_conformal", "fit_guarantees", "fit_trust", "observe", "without"]

_STATES = ("state", "presence")

_SIDE = 256
"""Longer side, in pixels, at which masks and maps are compared."""


@dataclass(frozen=True)
class Observed:
    """What one map was, beside what a person drew.

    Attributes:
        trait: Part or character, as :func:`concept_cam.trust.conformal.stratum_of` names it.
        kind: Kind of question of the data set.
        judged: The map's evidence and facts, whether its peak lies on the target, and whether the target is there; ``None`` where a state
            was set and nothing drawn, so that nobody knows where the peak should be.
        shares: Wrong shares of the inner masks; ``None`` without a mask.
        distance: By how much the mask at half height must grow to cover the part; ``None`` without a mask.
        probability: Of the true state among its siblings; ``None`` where no state was asked for.
        size: Shares of the picture that the inner masks hold, float64 [levels]; ``None`` without a mask.
    """

    trait: str
    kind: str
    judged: Judged | None
    shares: np.ndarray | None = None
    distance: float | None = None
    probability: float | None = None
    size: np.ndarray | None = None


def observe(
    dataset: Dataset,
    localizer: Localizer,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] | None = None,
    *,
    careful: bool = False,
    masks: bool = True,
) -> tuple[list[Observed], list[str]]:
    """Asks the questions of a data set and compares the answers with the truth.

    Args:
        dataset: Pictures with masks; ``presence`` questions may have an absent target.
        localizer: Model and settings.
        progress: Wraps the stream of samples.
        careful: Whether agreement of other readings is measured too.
        masks: Whether masks are compared as well as peaks: guarantees need it, the rules do not, and it takes a third of the time.

    Returns:
        What was observed, and the pictures that could not be used, with the reason.
    """
    found: list[Observed] = []
    errors: list[str] = []
    in_use = _InUse(dataset)
    for sample in progress(dataset) if progress else dataset:
        asked = [question for question in sample.questions if question.mask is not None or not question.present or question.kind in _STATES]
        if not asked:
            continue
        try:
            (answers,) = localizer.locate_all([sample.image], [in_use(question) for question in asked], careful=careful)
        except ImageError as error:
            errors.append(f"{sample.name}: {error}")
            continue
        found += [_observed(sample.name, question, answer, masks) for question, answer in zip(asked, answers)]
    return found, errors


def _observed(picture: str, question: SampleQuestion, found: Localization, masks: bool) -> Observed:
    certificate, concept = found.certificate, found.concept
    trait = stratum_of(concept)
    facts = replace(certificate.facts, target=key_of(concept), likeness=1.0)
    phrase = concept.target[0]
    probability = _of_the_truth(question, found)
    if question.mask is None:
        known = None if question.present else Judged(picture, certificate.evidence, facts, phrase, False, False)
        return Observed(trait, question.kind, known, probability=probability)
    drawn = np.asarray(question.mask())
    drawn = np.where(drawn, np.uint8(255), np.uint8(0)) if drawn.dtype == bool else drawn
    x, y = found.peak
    right = bool(drawn[min(int(y), drawn.shape[0] - 1), min(int(x), drawn.shape[1] - 1)] == 255)
    judged = Judged(picture, certificate.evidence, facts, phrase, right, question.present)
    if not masks:
        return Observed(trait, question.kind, judged, probability=probability)
    step = max(1, -(-max(drawn.shape) // _SIDE))
    truth = drawn[::step, ::step] == 255
    if not truth.any():
        return Observed(trait, question.kind, judged, probability=probability)
    heights = relative(np.where(drawn == 128, np.nan, found.heatmap)[::step, ::step])
    distance = outer_distance(np.nan_to_num(heights, nan=-1.0) >= MARGIN_LEVEL, truth)
    return Observed(trait, question.kind, judged, wrong_shares(heights, truth), distance, probability, inner_sizes(heights))


def _of_the_truth(question: SampleQuestion, found: Localization) -> float | None:
    """The probability of the true state among its siblings; ``None`` where the question is about no state."""
    share = found.probability
    if question.kind not in _STATES or share is None or kind_of(found.concept) == "part":
        return None
    if question.present:
        return share
    # What is absent is the other of two; of a sibling that is not there, the data set does not say which is.
    return 1 - share if len(found.probabilities) == 2 and found.concept.metadata.get("kind") == "presence" else None


class _InUse:
    """Turns a data set's questions into those that are asked in use, for a limit that was fitted to other maps says nothing of these.

    A part that has a pack's phrases is asked as that pack asks for it; other parts are marked as parts of the data set's host.
    """

    def __init__(self, dataset: Dataset) -> None:
        from concept_cam import prompts

        self._host = str(dataset.facts.get("host") or "")
        pack = dataset.facts.get("pack")
        self._parts = [] if not pack else [concept for concept in prompts.load(str(pack)) if concept.metadata.get("kind") == "part"]

    def __call__(self, question: SampleQuestion) -> Concept:
        concept = question.concept
        if question.kind != "part" or concept.metadata.get("kind"):
            return concept
        own = next((part for part in self._parts if part.target == concept.target), None)
        return own or replace(concept, metadata={**concept.metadata, "kind": "part", "host": self._host})


def without(dataset: Dataset, pictures: Sequence[Path]) -> Dataset:
    """Returns a data set with pictures added that show nothing of what it asks for: every part that it has a mask of is absent there.

    Args:
        dataset: Labelled pictures.
        pictures: Pictures of other things.
    """

    def stream() -> Iterator[Sample]:
        asked: dict[str, Concept] = {}
        in_use = _InUse(dataset)
        for sample in dataset:
            for question in sample.questions:
                if question.kind in ("object", "part"):
                    concept = in_use(question)
                    asked.setdefault(key_of(concept), concept)
            yield sample
        questions = tuple(SampleQuestion(concept, "presence", name, present=False) for name, concept in asked.items())
        for picture in pictures if questions else ():
            yield Sample(str(picture), picture, questions)

    return replace(dataset, stream=stream, count=dataset.count + len(pictures))


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
        probabilities = [item.probability for item in own if item.probability is not None]
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
    return Conformal(alpha, inner, outer, MARGIN_LEVEL, states, labelled, facts)


def fit_trust(
    observed: Sequence[Observed],
    facts: dict[str, Any],
    *,
    precision: float = 0.975,
    false_absent: float = 0.015,
    hosts: tuple[str, ...] = (),
) -> Rules:
    """Fits the rules of trust; arguments as for :func:`concept_cam.trust.fitting.fit_rules`.

    Raises:
        DataError: Too few right or wrong, present or absent targets.
    """
    judged = [item.judged for item in observed if item.judged is not None]
    return fit_rules(
        judged,
        precision=precision,
        false_absent=false_absent,
        hosts=hosts,
        weights_hash=str(facts.get("weights_hash", "")),
        facts={**facts, "maps": len(judged), "pictures": len({item.picture for item in judged})},
    )


def fit_guarantees(observed: Sequence[Observed], alphas: Sequence[float], facts: dict[str, Any]) -> tuple[Conformal, ...]:
    """Fits conformal limits at several risks; those for which there are too few labels are left out.

    Raises:
        DataError: There are too few labels for any of them.
    """
    found, problem = [], None
    for alpha in sorted(set(alphas)):
        try:
            found.append(fit_conformal(observed, alpha, facts))
        except DataError as error:
            problem = error
    if not found and problem is not None:
        raise problem
    return tuple(found)
