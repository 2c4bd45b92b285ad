"""From evidence to a verdict: few visible rules, whose limits come from a fit.

Two logistic models read the same features of a map (:data:`FEATURES`): one says how likely the peak lies on the target (*confidence*), one
how likely the target is in the picture at all (*presence*). Both are fitted, with their limits, to pictures with known answers by
:func:`fit_rules`; the bundled model's come with it. Other models have no fit until ``concept-cam calibrate`` makes one: then confidence and
presence are not stated, and the rules that need none of them still hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from concept_cam.core.errors import DataError
from concept_cam.trust import probes
from concept_cam.trust.evidence import Evidence
from concept_cam.trust.verdicts import ABSENT, CLEAR, DOUBTFUL, OFF_PROMPT

__all__ = [
    "FEATURES",
    "MapFacts",
    "Judgement",
    "Logistic",
    "Rules",
    "features_of",
    "fit_rules",
    "judge",
    "shipped",
]

RULES_VERSION = 1
"""Raised when a rule or a feature changes."""


@dataclass(frozen=True)
class MapFacts:
    """What else is known of a map, beside its evidence.

    Attributes:
        probability: Of the target among its contrasts, 0..1, at the peak for a part and in the whole picture for a state; NaN without
            contrasts.
        domain: How far the picture is from what the model knows (0: as near as its own training pictures; see the backbone); NaN where
            unknown.
    """

    probability: float = float("nan")
    domain: float = float("nan")


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
    "logit probability": lambda found, facts: _logit(facts.probability),
    "domain": lambda found, facts: facts.domain,
}
"""What the logistic models read of a map, by name."""


def features_of(found: Evidence, facts: MapFacts) -> np.ndarray:
    """Returns the features of a map, float64 [F], in the order of :data:`FEATURES`; NaN where one is unknown."""
    return np.array([read(found, facts) for read in FEATURES.values()])


@dataclass(frozen=True)
class Logistic:
    """A logistic model over features; an unknown feature counts as the mean of the pictures it was fitted to.

    Attributes:
        weights: By feature, per standard deviation.
        mean: By feature.
        deviation: By feature.
        intercept: Log-odds of a map whose features are all at their mean.
    """

    weights: Mapping[str, float]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    intercept: float

    def __call__(self, found: Evidence, facts: MapFacts) -> float:
        """Returns the probability, 0..1."""
        odds = self.intercept
        for name, weight in self.weights.items():
            value = FEATURES[name](found, facts)
            if not math.isnan(value):
                odds += weight * min(max((value - self.mean[name]) / self.deviation[name], -6.0), 6.0)
        return 1 / (1 + math.exp(-min(max(odds, -50.0), 50.0)))

    def of(self, features: np.ndarray) -> np.ndarray:
        """Returns the probabilities of many maps, float64 [M].

        Args:
            features: float64 [M, F] in the order of :data:`FEATURES`; NaN where unknown.
        """
        columns = [list(FEATURES).index(name) for name in self.weights]
        mean, deviation, weights = (np.array(list(table.values())) for table in (self.mean, self.deviation, self.weights))
        chosen = features[:, columns]
        standard = np.where(np.isnan(chosen), 0.0, (chosen - mean) / deviation).clip(-6.0, 6.0)
        return np.asarray(1 / (1 + np.exp(-np.clip(standard @ weights + self.intercept, -50, 50))))

    @classmethod
    def fit(cls, features: np.ndarray, right: np.ndarray, strength: float = 1.0) -> Logistic:
        """Fits by penalised maximum likelihood.

        Args:
            features: float64 [M, F] in the order of :data:`FEATURES`; NaN where unknown.
            right: bool [M].
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
        sign = np.where(right, 1.0, -1.0)

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            odds = sign * (standard @ parameters[1:] + parameters[0])
            slope = -sign / (1 + np.exp(np.clip(odds, -50, 50)))
            value = np.logaddexp(0.0, -odds).sum() + strength / 2 * (parameters[1:] ** 2).sum()
            return float(value), np.concatenate([[slope.sum()], standard.T @ slope + strength * parameters[1:]])

        found = optimize.minimize(loss, np.zeros(1 + int(used.sum())), jac=True, method="L-BFGS-B").x
        names = [name for name, kept in zip(FEATURES, used) if kept]
        return cls(
            dict(zip(names, found[1:].tolist())),
            dict(zip(names, mean[used].tolist())),
            dict(zip(names, deviation[used].tolist())),
            float(found[0]),
        )


@dataclass(frozen=True)
class Rules:
    """The rules of one model.

    Attributes:
        confidence: How likely the peak lies on the target; ``None`` where nothing was fitted.
        presence: How likely the target is in the picture; ``None`` where nothing was fitted.
        clear: Least confidence of a clear map.
        absent: Presence under which the target counts as absent.
        p_value: Highest p-value of a map that obeys its prompt.
        dependence: Rank correlation with the host's and with every sibling's map above which a map is about neither.
        text: Share of the peak's region that may lie on written words and rulers.
        domain: Distance from what the model knows above which no map is clear.
        hosts: Whose parts and traits they were fitted to, such as ``("fish",)``: questions about other hosts are not clear, and what names
            no host is judged by the rules that need no fit. Empty: any host.
        weights_hash: The model they were fitted for; empty for the defaults.
        facts: On what they were fitted.
    """

    confidence: Logistic | None = None
    presence: Logistic | None = None
    clear: float = 0.5
    absent: float = 0.0
    p_value: float = 0.2
    dependence: float = 0.98
    text: float = 0.5
    domain: float = float("inf")
    hosts: tuple[str, ...] = ()
    weights_hash: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def of(self, host: str | None) -> Rules:
        """Returns the rules for a question about a host; ``None`` for one that names none."""
        known = not self.hosts or host in self.hosts
        return self if known else replace(self, confidence=None, presence=None, domain=math.inf)

    def to_json(self) -> str:
        """Returns the rules as JSON; :meth:`read` reads them back."""
        content = {**asdict(self), "version": RULES_VERSION, "words": probes.PROBES_VERSION}
        content["domain"] = None if math.isinf(self.domain) else self.domain
        return json.dumps(content, indent=1)

    @classmethod
    def read(cls, path: Path) -> Rules:
        """Reads rules.

        Raises:
            DataError: The file cannot be read, or is of another version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.pop("version"), content.pop("words")
            if version != (RULES_VERSION, probes.PROBES_VERSION):
                raise DataError(
                    f"{path} holds rules of version {version}, expected {(RULES_VERSION, probes.PROBES_VERSION)}: fit them again."
                )
            for name in ("confidence", "presence"):
                content[name] = None if content[name] is None else Logistic(**content[name])
            content["hosts"] = tuple(content.get("hosts", ()))
            content["domain"] = math.inf if content["domain"] is None else float(content["domain"])
            return cls(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} holds no rules of trust: {error}.") from error


def shipped(weights_hash: str) -> Rules | None:
    """Returns the rules that come with the package for a model's weights; ``None`` for other models."""
    path = Path(__file__).parent / "fitted" / f"{weights_hash}.json"
    return Rules.read(path) if path.is_file() else None


@dataclass(frozen=True)
class Judgement:
    """What the rules make of the evidence.

    Attributes:
        verdict: A name of :data:`TRUST_VERDICTS`.
        reason: Why, in one plain sentence.
        confidence: How likely the peak lies on the target, 0..1; NaN where nothing was fitted.
        presence: How likely the target is in the picture, 0..1; NaN where nothing was fitted.
    """

    verdict: str
    reason: str
    confidence: float
    presence: float


def judge(found: Evidence, facts: MapFacts, rules: Rules, host: str | None = None) -> Judgement:
    """Applies the rules, the gravest first.

    Args:
        found: What speaks for and against the map.
        facts: What else is known of it.
        rules: The model's rules.
        host: The host that the question names, such as ``"fish"``; ``None`` where it names none.
    """
    strange = host is not None and bool(rules.hosts) and host not in rules.hosts
    rules = rules.of(host)
    nan = float("nan")
    confidence = nan if rules.confidence is None else rules.confidence(found, facts)
    presence = nan if rules.presence is None else rules.presence(found, facts)

    def answer(verdict: str, reason: str) -> Judgement:
        return Judgement(verdict, reason, confidence, presence)

    if found.p_value > rules.p_value:
        share = f"{found.p_value:.0%}"
        return answer(OFF_PROMPT, f"{share} of unrelated words rise at this place as high as the target does.")
    same = found.dependence_host > rules.dependence and not found.dependence_siblings <= rules.dependence
    if same:
        return answer(OFF_PROMPT, f"the map is that of the whole subject (rank correlation {found.dependence_host:.2f}).")
    if presence < rules.absent:
        return answer(ABSENT, f"the target is in the picture with a probability of {presence:.2f}.")
    if found.text > rules.text:
        return answer(DOUBTFUL, f"{found.text:.0%} of the peak's surroundings look like written words or a ruler.")
    if facts.domain > rules.domain:
        return answer(
            DOUBTFUL, f"the picture is unlike those that the model knows (distance {facts.domain:.2f}, limit {rules.domain:.2f})."
        )
    if strange:
        return answer(DOUBTFUL, f"the model's limits were fitted for {', '.join(rules.hosts)}; what it knows of {host} was not measured.")
    if rules.confidence is None:
        if found.p_anywhere > rules.p_value:
            return answer(DOUBTFUL, f"{found.p_anywhere:.0%} of unrelated words rise as high somewhere in their own maps.")
        return answer(CLEAR, "the map obeys its prompt; how often such a peak is right was not calibrated for this model.")
    if confidence < rules.clear:
        return answer(DOUBTFUL, f"peaks like this one are right with a probability of {confidence:.2f}.")
    return answer(CLEAR, f"peaks like this one are right with a probability of {confidence:.2f}.")


def fit_rules(
    features: np.ndarray,
    right: np.ndarray,
    present: np.ndarray,
    *,
    precision: float = 0.98,
    false_absent: float = 0.03,
    base: Rules | None = None,
    hosts: tuple[str, ...] = (),
    weights_hash: str = "",
    facts: Mapping[str, Any] | None = None,
) -> Rules:
    """Fits confidence and presence, and the limits of *clear* and *absent*, to maps with known answers.

    Args:
        features: float64 [M, F] in the order of :data:`FEATURES`.
        right: bool [M], the peak lies on the target; False where the target is absent.
        present: bool [M], the target is in the picture.
        precision: Share of the clear maps that are to be right.
        false_absent: Share of present targets that may be called absent.
        base: Where the other limits come from.
        hosts: Whose parts and traits the maps are of.
        weights_hash: The model.
        facts: What is recorded of the pictures.

    Raises:
        DataError: Too few maps of a kind.
    """
    right, present = np.asarray(right, dtype=bool), np.asarray(present, dtype=bool)
    confidence, presence = Logistic.fit(features, right), Logistic.fit(features, present)
    sure, there = confidence.of(features), presence.of(features)
    order = np.argsort(-sure, kind="stable")
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(shares >= precision)
    clear = float(sure[order[enough[-1]]]) if len(enough) else 1.0
    return replace(
        base or Rules(),
        confidence=confidence,
        presence=presence,
        clear=clear,
        absent=float(np.quantile(there[present], false_absent)),
        hosts=hosts,
        weights_hash=weights_hash,
        facts=dict(facts or {}),
    )
