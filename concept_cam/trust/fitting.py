"""Fits the rules of trust to maps whose answers are known.

Every limit is chosen on maps that had no say in the model that judges them: pictures are dealt into folds, and each fold is judged by a
model of the others (Stone, "Cross-validatory choice and assessment of statistical predictions", 1974).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from concept_cam.core.errors import DataError
from concept_cam.trust.evidence import Evidence
from concept_cam.trust.logistic import FEATURES, Logistic, MapFacts, features_of
from concept_cam.trust.rules import Fit, KnownTarget, Rules, fit_key

__all__ = ["FOLDS", "Judged", "fit_rules", "held_out"]

FOLDS = 5

HARMLESS = 0.01
"""Share of right maps that a limit on evidence alone (p-value, rank correlation, softmax, written words) may hold back."""

LEAST_PER_KIND = 30
"""Right maps, and wrong ones, that a kind of question needs for a fit of its own; and maps of one target for a say of its own in limits."""

NOT_OF_PRESENCE = ("log variation",)
"""Features that presence is not told by: how much maps vary differs between collages and photographs, whatever is in them."""

LEAST_ANSWERS = 10
"""Of either answer that a model can be fitted to."""


@dataclass(frozen=True)
class Judged:
    """One map whose answer is known.

    Attributes:
        picture: Name of the picture; maps of one are never apart.
        found: Its evidence.
        facts: What else is known of it; ``target`` is the name that its target is to be known by.
        phrase: What the target is called.
        right: Whether the peak lies on the target.
        present: Whether the target is in the picture.
    """

    picture: str
    found: Evidence
    facts: MapFacts
    phrase: str
    right: bool
    present: bool


def fit_rules(
    judged: Sequence[Judged],
    *,
    precision: float = 0.975,
    false_absent: float = 0.015,
    base: Rules | None = None,
    hosts: tuple[str, ...] = (),
    weights_hash: str = "",
    facts: Mapping[str, Any] | None = None,
) -> Rules:
    """Fits confidence and presence for every kind of question and every group, and all limits.

    Args:
        judged: Maps with known answers.
        precision: Share of the clear maps that are to be right; half a hundredth less than what is wanted in use where the pictures are
            harder than those, as the bundled model's are (false colours, other styles).
        false_absent: Share of present targets that may be called absent, of any one target of which enough is known.
        base: Limits where too little is known to fit them.
        hosts: Whose parts and states the maps are of.
        weights_hash: The model.
        facts: What is recorded of the pictures.

    Raises:
        DataError: No kind of question has enough maps.
    """
    fits: dict[str, Fit] = {}
    for kind in dict.fromkeys(item.facts.kind for item in judged):
        of_kind = [item for item in judged if item.facts.kind == kind]
        groups = [[item for item in of_kind if item.facts.group == group] for group in dict.fromkeys(item.facts.group for item in of_kind)]
        # A group that has too few maps has no fit: those of others say nothing of it. Only where none has enough they share one.
        for own in [group for group in groups if _enough(group)] or [of_kind]:
            if _enough(own):
                group = own[0].facts.group if own is not of_kind else ""
                fits[fit_key(kind, group)] = _fit(own, precision, false_absent, (base or Rules()).text, bool(group))
    if not fits:
        right = sum(item.right for item in judged)
        raise DataError(
            f"received {right} right and {len(judged) - right} wrong maps; a fit needs at least {LEAST_PER_KIND} of each, of one kind of "
            "question. Label more pictures, and some in which the target is absent."
        )
    return replace(
        _limits(judged, base or Rules()),
        fits=fits,
        known=_known(judged),
        hosts=hosts,
        weights_hash=weights_hash,
        facts=dict(facts or {}),
    )


def _enough(own: Sequence[Judged]) -> bool:
    right = sum(item.right for item in own)
    return min(right, len(own) - right) >= LEAST_PER_KIND


def _fit(own: Sequence[Judged], precision: float, false_absent: float, text: float, grouped: bool) -> Fit:
    """Fits one kind of question; ``text`` is the laxest limit on writing. Only the maps of a group's own pictures vary alike."""
    right, present = np.array([item.right for item in own]), np.array([item.present for item in own])
    features, targets = _table(own)
    there = held_out(own, present, leave_out=NOT_OF_PRESENCE)
    sure = there * held_out(own, right, present)
    domains, nearer = (features[:, list(FEATURES).index(name)] for name in ("domain", "nearer"))
    variation = np.array([item.found.variation for item in own])
    lettered = np.array([item.found.text for item in own if item.right and not np.isnan(item.found.text)])
    domains, nearer = domains[present & np.isfinite(domains)], nearer[right & np.isfinite(nearer)]
    return Fit(
        _model(features[present], right[present], [name for name, used in zip(targets, present) if used]),
        _model(_table(own, NOT_OF_PRESENCE)[0], present, targets),
        _least_sure(sure, right, precision),
        _harmless(there, targets, present, false_absent),
        float(domains.max()) if len(domains) else float("inf"),
        float(np.quantile(nearer, 1 - HARMLESS)) if len(nearer) else float("inf"),
        _harmless(variation, targets, right & np.isfinite(variation), HARMLESS) if grouped else 0.0,
        min(text, float(np.quantile(lettered, 1 - HARMLESS))) if len(lettered) else text,
    )


def _harmless(values: np.ndarray, targets: Sequence[str], among: np.ndarray, share: float) -> float:
    """The highest limit under which no more than a share of some values lie: of all of them, and of every target that has enough of them.

    Over all targets together those that are always found hide what the limit does to one that is hard.

    Args:
        values: float [M].
        targets: Names of the targets, M of them.
        among: bool [M], the maps that are not to be held back; where there are none, the limit is 0.
        share: Of them.
    """
    own: dict[str, list[float]] = {}
    for value, target in zip(values[among].tolist(), np.array(targets)[among].tolist()):
        own.setdefault(target, []).append(value)
    apart = [values[among], *(some for some in own.values() if len(some) >= LEAST_PER_KIND)]
    return min((float(np.quantile(some, share)) for some in apart if len(some)), default=0.0)


def _table(own: Sequence[Judged], leave_out: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    features = np.stack([features_of(item.found, item.facts) for item in own])
    features[:, [list(FEATURES).index(name) for name in leave_out]] = np.nan
    return features, [item.facts.target for item in own]


def _model(features: np.ndarray, answers: np.ndarray, targets: Sequence[str]) -> Logistic:
    """A model of an answer; where one of the two was hardly given nothing can be learnt, and all maps have its share (of Laplace)."""
    yes, no = int(answers.sum()), int((~answers).sum())
    if min(yes, no) < LEAST_ANSWERS:
        return Logistic({}, {}, {}, 50.0 if no == 0 else float(np.log((yes + 1) / (no + 1))))
    return Logistic.fit(features, answers, targets)


def held_out(own: Sequence[Judged], answers: np.ndarray, among: np.ndarray | None = None, leave_out: Sequence[str] = ()) -> np.ndarray:
    """Returns for each map the probability that a model of the other folds' pictures gives it, float64 [M].

    Args:
        own: The maps.
        answers: bool [M], what the model is to tell.
        among: bool [M], the maps that models are fitted to; all by default.
        leave_out: Features that the models do not read.
    """
    features, targets = _table(own, leave_out)
    pictures = list(dict.fromkeys(item.picture for item in own))
    order = np.random.default_rng(0).permutation(len(pictures))
    fold_of = {pictures[number]: place % FOLDS for place, number in enumerate(order)}
    folds = np.array([fold_of[item.picture] for item in own])
    used = np.ones(len(own), dtype=bool) if among is None else among
    found = np.zeros(len(own))
    for fold in range(FOLDS):
        rest, held = (folds != fold) & used, folds == fold
        if held.any():
            model = _model(features[rest], answers[rest], [name for name, one in zip(targets, rest) if one])
            found[held] = model.of(features[held], [name for name, one in zip(targets, held) if one])
    return found


def _least_sure(sure: np.ndarray, right: np.ndarray, precision: float) -> float:
    """The lowest confidence at and above which the share of right maps is as asked; above 1 where none is."""
    order = np.argsort(-sure, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(shares >= precision)
    return float(sure[order[enough[-1]]]) if len(enough) else 1.01


def _limits(judged: Sequence[Judged], base: Rules) -> Rules:
    """Limits on evidence alone: each holds back at most a hundredth of the right maps, and is no laxer than that of the defaults."""
    right = [item.found for item in judged if item.right]
    if len(right) < LEAST_PER_KIND:
        return base

    def limit(values: list[float], default: float) -> float:
        known = [value for value in values if not np.isnan(value)]
        return min(default, float(np.quantile(known, 1 - HARMLESS))) if known else default

    least = 2.0 / 41  # A p-value among forty words is never lower than 1/41.
    return replace(
        base,
        p_value=max(least, limit([min(found.p_value, found.p_plain) for found in right], base.p_value)),
        dependence=limit([float(np.nanmin([found.dependence_host, found.dependence_siblings])) for found in right], base.dependence),
        mass=max(base.mass, float(np.quantile([found.mass for found in right], HARMLESS))),
        text=limit([found.text for found in right], base.text),
    )


def _known(judged: Sequence[Judged]) -> dict[str, KnownTarget]:
    found = {}
    for name in dict.fromkeys(item.facts.target for item in judged if item.facts.target):
        own = [item for item in judged if item.facts.target == name and item.present]
        if own:
            first = own[0]
            found[name] = KnownTarget(
                first.phrase, first.facts.kind, first.facts.host, len(own), round(float(np.mean([item.right for item in own])), 4)
            )
    return found
