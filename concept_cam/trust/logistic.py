"""How likely, given what is known of a map: logistic models over features that can be looked at one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from concept_cam.core.errors import DataError
from concept_cam.trust.evidence import Evidence

__all__ = ["FEATURES", "Logistic", "MapFacts", "feature_list", "features_of"]

_NAN = float("nan")


@dataclass(frozen=True)
class MapFacts:
    """What else is known of a map, beside its evidence.

    Attributes:
        probability: Of the target among its contrasts, 0..1, at the peak for a part or a thing and in the whole picture for a state; NaN
            without contrasts.
        domain: How far the picture is from what the model knows of the group that was asked about (0: as near as its own training pictures;
            see the backbone); NaN where unknown.
        agreement: How far other readings of the picture put the peak at the same place, 0..1; NaN where they were not asked for.
        kind: ``"part"``, ``"state"`` or ``"thing"``: which fit is for it.
        host: What the target belongs to, such as ``"fish"``; empty where the question names none.
        target: The target that was measured when the rules were fitted and that this one is most like; empty where none is.
        likeness: How like it is, 0..1.
        nearest: The group that the picture is nearest to; empty where unknown.
        group: The group that was asked about, by the name of its trait pack; empty for things by name.
        nearer: By how much less far the picture is from another group than from that one, 0 where that one is the nearest; NaN where the
            model does not know it.
        likelier: The contrast that is the likeliest of all, where ``probability`` is asked; empty where the target is, or has no contrasts.
    """

    probability: float = _NAN
    domain: float = _NAN
    agreement: float = _NAN
    kind: str = "thing"
    host: str = ""
    target: str = ""
    likeness: float = 0.0
    nearest: str = ""
    group: str = ""
    nearer: float = _NAN
    likelier: str = ""


def _log(value: float) -> float:
    return math.log(max(value, 1e-6)) if not math.isnan(value) else value


def _logit(value: float) -> float:
    return math.log(min(max(value, 1e-6), 1 - 1e-6) / (1 - min(max(value, 1e-6), 1 - 1e-6))) if not math.isnan(value) else value


FEATURES: dict[str, Callable[[Evidence, MapFacts], float]] = {
    "dependence_host": lambda found, facts: found.dependence_host,
    "dependence_siblings": lambda found, facts: found.dependence_siblings,
    "dependence_neutral": lambda found, facts: found.dependence_neutral,
    "log p_value": lambda found, facts: _log(found.p_value),
    "log p_anywhere": lambda found, facts: _log(found.p_anywhere),
    "log peak": lambda found, facts: _log(found.peak),
    "separability": lambda found, facts: found.separability,
    "strength": lambda found, facts: found.strength,
    "text": lambda found, facts: found.text,
    "log spread": lambda found, facts: _log(found.spread),
    "mass": lambda found, facts: found.mass,
    "log variation": lambda found, facts: _log(found.variation),
    "on_host": lambda found, facts: found.on_host,
    "image": lambda found, facts: found.image,
    "logit probability": lambda found, facts: _logit(facts.probability),
    "domain": lambda found, facts: facts.domain,
    "nearer": lambda found, facts: facts.nearer,
    "agreement": lambda found, facts: facts.agreement,
}
"""What the logistic models read of a map, by name."""

FOR = frozenset({"image", "logit probability", "strength"})
"""Features that may speak for a map and never against it."""
AGAINST = frozenset({"domain", "nearer"})
"""Features that may speak against a map and never for it.

Fitted freely to few pictures, a model took it for a sign against "a fish" that the picture as a whole is like a fish: things that fill a
tenth of a collage are like it to a tenth.
"""


def features_of(found: Evidence, facts: MapFacts) -> np.ndarray:
    """Returns the features of a map, float64 [F], in the order of :data:`FEATURES`; NaN where one is unknown."""
    return np.array(feature_list(found, facts))


def feature_list(found: Evidence, facts: MapFacts) -> list[float]:
    """As :func:`features_of`, as a list."""
    return [read(found, facts) for read in FEATURES.values()]


@dataclass(frozen=True)
class Logistic:
    """A logistic model over features; an unknown feature counts as the mean of the pictures it was fitted to.

    Attributes:
        weights: By feature, per standard deviation.
        mean: By feature.
        deviation: By feature.
        intercept: Log-odds of a map whose features are all at their mean.
        targets: By target: what its maps have more or less than others of the same features, in log-odds. A lateral line is found less
            often than a head, and no number read from the map says so.
    """

    weights: Mapping[str, float]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    intercept: float
    targets: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, features: Sequence[float], facts: MapFacts) -> float:
        """Returns the probability, 0..1, of one map.

        Args:
            features: ``F`` numbers in the order of :data:`FEATURES`; NaN where unknown.
            facts: What else is known of it: its target.
        """
        odds = self.intercept + facts.likeness * self.targets.get(facts.target, 0.0)
        # One map has few numbers: plain arithmetic is faster than arrays.
        for column, mean, deviation, weight in self._rows:
            value = features[column]
            if value == value:
                standard = (value - mean) / deviation
                odds += weight * (-6.0 if standard < -6.0 else 6.0 if standard > 6.0 else standard)
        return 1 / (1 + math.exp(-min(max(odds, -50.0), 50.0)))

    @cached_property
    def _rows(self) -> tuple[tuple[int, float, float, float], ...]:
        """Column of each feature that is used, its mean, deviation and weight."""
        names = list(FEATURES)
        return tuple((names.index(name), self.mean[name], self.deviation[name], weight) for name, weight in self.weights.items())

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Columns of the features that are used, their means, deviations and weights."""
        columns = np.array([list(FEATURES).index(name) for name in self.weights], dtype=np.int64)
        mean, deviation, weights = (np.array(list(table.values()), dtype=np.float64) for table in (self.mean, self.deviation, self.weights))
        return columns, mean, deviation, weights

    def of(self, features: np.ndarray, targets: Sequence[str] = (), likeness: Sequence[float] = ()) -> np.ndarray:
        """Returns the probabilities of many maps, float64 [M].

        Args:
            features: float64 [M, F] in the order of :data:`FEATURES`; NaN where unknown.
            targets: Names of the targets, M of them or none.
            likeness: How like each is to that, 0..1; by default 1.
        """
        columns, mean, deviation, weights = self._tables
        chosen = features[:, columns]
        standard = np.where(np.isnan(chosen), 0.0, (chosen - mean) / deviation).clip(-6.0, 6.0)
        odds = standard @ weights + self.intercept
        if len(targets):
            shares = np.asarray(likeness) if len(likeness) else np.ones(len(targets))
            odds = odds + shares * np.array([self.targets.get(name, 0.0) for name in targets])
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -50, 50))))

    @classmethod
    def of_dict(cls, content: Mapping[str, Any]) -> Logistic:
        """Makes a model of its attributes as plain data.

        Raises:
            ValueError: A feature is unknown, or a number is none.
        """
        tables = {
            name: {str(key): float(value) for key, value in content[name].items()} for name in ("weights", "mean", "deviation", "targets")
        }
        strange = set(tables["weights"]) - set(FEATURES)
        numbers = [value for table in tables.values() for value in table.values()]
        if strange or not tables["weights"].keys() == tables["mean"].keys() == tables["deviation"].keys():
            raise ValueError(f"a logistic model reads {sorted(strange) or 'other features than it has means for'}")
        if not all(map(math.isfinite, numbers)) or not all(value > 0 for value in tables["deviation"].values()):
            raise ValueError("a logistic model holds numbers that cannot be")
        return cls(intercept=float(content["intercept"]), **tables)

    @classmethod
    def fit(cls, features: np.ndarray, right: np.ndarray, targets: Sequence[str] = (), strength: float = 1.0) -> Logistic:
        """Fits by penalised maximum likelihood: features and targets share one penalty, the intercept has none; weights of :data:`FOR` and
        :data:`AGAINST` have no other sign.

        Args:
            features: float64 [M, F] in the order of :data:`FEATURES`; NaN where unknown.
            right: bool [M].
            targets: Names of the targets, M of them or none.
            strength: Of the penalty on the squared weights.

        Raises:
            DataError: There are fewer than ten maps of either kind.
        """
        from scipy import optimize

        right = np.asarray(right, dtype=bool)
        if min(int(right.sum()), int((~right).sum())) < 10:
            raise DataError(f"received {int(right.sum())} right and {int((~right).sum())} wrong maps; a fit needs at least ten of each.")
        known = ~np.isnan(features)
        counts = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, features, 0.0).sum(axis=0) / counts
        deviation = np.sqrt(np.where(known, (features - mean) ** 2, 0.0).sum(axis=0) / counts)
        used = deviation > 1e-9
        standard = np.where(known, (features - mean) / np.where(used, deviation, 1.0), 0.0).clip(-6.0, 6.0)[:, used]
        own = sorted(set(targets))
        inputs = np.concatenate([standard, np.array(targets)[:, None] == np.array(own)[None]], axis=1) if own else standard
        sign = np.where(right, 1.0, -1.0)

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            odds = sign * (inputs @ parameters[1:] + parameters[0])
            slope = -sign / (1 + np.exp(np.clip(odds, -50, 50)))
            value = np.logaddexp(0.0, -odds).sum() + strength / 2 * (parameters[1:] ** 2).sum()
            return float(value), np.concatenate([[slope.sum()], inputs.T @ slope + strength * parameters[1:]])

        names = [name for name, kept in zip(FEATURES, used) if kept]
        free = (None, None)
        bounds = [free, *((0.0, None) if name in FOR else (None, 0.0) if name in AGAINST else free for name in names), *[free] * len(own)]
        found = optimize.minimize(
            loss, np.zeros(1 + inputs.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000}
        ).x
        return cls(
            dict(zip(names, found[1:].tolist())),
            dict(zip(names, mean[used].tolist())),
            dict(zip(names, deviation[used].tolist())),
            float(found[0]),
            dict(zip(own, found[1 + len(names) :].tolist())),
        )
