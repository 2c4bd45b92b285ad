"""From evidence to a call: which state, how sure, and when to say nothing. Pure functions on plain numbers.

The probability of a state is a softmax over sibling states at the model's temperature for that character, or at its one temperature where
nothing was fitted. A model that was never calibrated is often sure and wrong: fit limits on labelled pictures with
``concept-cam calibrate`` before trusting the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from concept_cam.collection.questions import ABSENT
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.likely import likely_states
from concept_cam.trust import verdicts
from concept_cam.trust.rules import HOST_TARGET

if TYPE_CHECKING:
    from concept_cam.collection.limits import Calibration
    from concept_cam.trust.certified import Certificate

__all__ = [
    "ABSTENTION_REASONS",
    "BEFORE_LIMITS",
    "Call",
    "Limits",
    "call_part",
    "call_state",
    "host_is_missing",
    "host_share",
    "is_absent",
    "lacks",
    "likely_states",
]

ABSTENTION_REASONS: dict[str, str] = {
    "no_host": "the picture does not show what the trait pack is about",
    "absent": "the part is not in the picture, as the verdict of its certificate says; of states: the part that they are told of, by a "
    "certificate of its own, or what the character `needs` in its pack is called absent",
    "low_probability": "the best state's probability is under the limit",
    "low_score": "the evidence for the best state or part is under the limit",
    "no_place": "where the one that is meant lies (left, right, front, rear ...) cannot be told",
    "no_region": "nothing is left of the region (below the smallest size, or under an ignore mask); of a length: a part that it needs has "
    "no region, or its certificate does not find it, or the parts do not lie as they should",
    "rejected": "a person found the call wrong and did not say what is right",
    "cannot_be_told": "a person found that the picture does not show it",
}
"""Values of ``abstained_because``."""

BEFORE_LIMITS = frozenset({"no_host", "absent"})
"""Reasons that hold whatever the character's own limit is: rows that have one say nothing about where that belongs."""

SAME_HOST = 0.9
"""Likeness from which a host's word is one whose maps were measured."""


@dataclass(frozen=True)
class Limits:
    """Below which evidence no call is made.

    Attributes:
        host: Least probability that the picture shows the host at all, see :func:`host_share`; 0 switches the check off.
        probability: Least probability of a state among its siblings; ``inf`` makes no calls.
        score: Least score of a part's best patch; 0 is where the part is as near as its contrasts.
        part_probability: Least probability of a part at its best patch, among the other parts and the host; not for parts with a
            calibrated score.
        characters: Limits of single characters, ``pack/character`` or ``character``, for parts ``character=part``; ``inf`` makes no calls.

    Raises:
        ConfigurationError: A probability outside 0..1, or a limit that is no number.
    """

    host: float = 0.5
    probability: float = 0.5
    score: float = 0.0
    part_probability: float = 0.5
    characters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("host", "probability", "part_probability"):
            value = getattr(self, name)
            if not (0 <= value <= 1 or value == math.inf):
                raise ConfigurationError(f"the limit of the {name} must lie in 0..1, received {value}.")
        for name, value in {"score": self.score, **self.characters}.items():
            if math.isnan(value):
                raise ConfigurationError(f"the limit of the {name} is {value}: expected a number.")

    def of(self, pack: str, character: str, part: str = "") -> float:
        """Returns the limit of a character: a probability, or a score for a part."""
        own = self._own(pack, character, part)
        return own if own is not None else self.score if part else self.probability

    def of_part_probability(self, pack: str, character: str, part: str) -> float:
        """Returns the least probability of a part at its best patch; a part with a limit of its own is judged by its score alone."""
        return self.part_probability if self._own(pack, character, part) is None else 0.0

    def _own(self, pack: str, character: str, part: str) -> float | None:
        name = f"{character}={part}" if part else character
        return self.characters.get(f"{pack}/{name}", self.characters.get(name))

    def with_calibration(self, calibration: Calibration) -> Limits:
        """Returns these limits with those of a calibration file in their place; characters it does not name take its pooled limit."""
        values = {name: math.inf if limit.value is None else float(limit.value) for name, limit in calibration.limits.items()}
        return Limits(
            host=self.host,
            probability=values.pop("*", self.probability),
            # What a calibrated score lets through was found right on labelled pictures.
            part_probability=0.0 if "* parts" in values else self.part_probability,
            score=values.pop("* parts", self.score),
            characters=values,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON; ``None`` stands for infinity."""

        def plain(value: float) -> float | None:
            return None if math.isinf(value) else value

        characters = {name: plain(value) for name, value in sorted(self.characters.items())}
        return {
            "host": plain(self.host),
            "probability": plain(self.probability),
            "score": plain(self.score),
            "part_probability": plain(self.part_probability),
            "characters": characters,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Limits:
        """Reads what :meth:`to_dict` returned."""

        def number(value: float | None) -> float:
            return math.inf if value is None else float(value)

        characters = {name: number(value) for name, value in values["characters"].items()}
        return cls(
            host=number(values["host"]),
            probability=number(values["probability"]),
            score=number(values["score"]),
            part_probability=number(values.get("part_probability", 0.0)),
            characters=characters,
        )


@dataclass(frozen=True)
class Call:
    """What is said about one character, or one part.

    Attributes:
        state: The state that is called; ``None`` when abstained.
        best_state: The state with the most evidence.
        probability: Its probability, ``None`` where the model gave none.
        probabilities: Probability of every state.
        score: Raw evidence for ``best_state``.
        margin: ``probability`` minus the runner-up's; ``None`` without a runner-up.
        reason: Why nothing is called; a key of :data:`ABSTENTION_REASONS`, or ``None``.
        limit: The limit that decided; ``None`` where none did.
        likely: States that the character is narrowed down to, see :func:`concept_cam.core.likely.likely_states`; none of parts, and where
            nothing can be called.
    """

    state: str | None
    best_state: str
    probability: float | None
    probabilities: Mapping[str, float]
    score: float | None
    margin: float | None
    reason: str | None
    limit: float | None
    likely: tuple[str, ...] = ()

    @property
    def likely_probability(self) -> float | None:
        """Probability that one of `likely` is right; ``None`` where there are none."""
        return math.fsum(self.probabilities[name] for name in self.likely) if self.likely else None

    @property
    def abstained(self) -> bool:
        """Whether nothing is called."""
        return self.reason is not None


def host_share(probability: float, certificate: Certificate | None) -> float:
    """How likely a picture shows a pack's host, 0..1: the lower of two answers.

    Among a list of other things by name a beetle may be the best of all that fits badly. Where rules of trust were fitted to maps of the
    very host, its certificate says as well whether it is there.

    Args:
        probability: Of the host among other things.
        certificate: Of the host's map; ``None`` where nothing is known.
    """
    if certificate is None or certificate.presence is None:
        return probability
    facts = certificate.facts
    measured = facts.kind == "thing" and facts.target == f"{facts.group}:{HOST_TARGET}" and facts.likeness >= SAME_HOST
    return min(probability, certificate.presence) if measured else probability


def host_is_missing(probability: float, limits: Limits) -> bool:
    """Tells whether the picture shows something else: the host's probability is under its limit (NaN counts as missing)."""
    return limits.host > 0 and not probability >= limits.host


def call_state(
    states: Sequence[str],
    probabilities: Sequence[float],
    scores: Sequence[float],
    limit: float,
    *,
    missing_host: bool = False,
    host_limit: float = 0.0,
    absent: bool = False,
) -> Call:
    """Calls one state among siblings.

    Args:
        states: Their names.
        probabilities: Softmax over them.
        scores: Image score of each along its own direction.
        limit: Least probability.
        missing_host: Whether the picture shows something else; then nothing is called.
        host_limit: The limit that said so.
        absent: Whether what the states are told of is not there, see :func:`is_absent` and :func:`lacks`; then nothing is called but that
            it is absent.

    Returns:
        The call; of equal probabilities the first state wins.
    """
    best = max(range(len(states)), key=lambda index: probabilities[index])
    second = max((value for index, value in enumerate(probabilities) if index != best), default=None)
    probability = float(probabilities[best])
    reason: str | None
    decided: float = limit
    if missing_host:
        reason, decided = "no_host", host_limit
    elif absent and states[best] != ABSENT:
        reason, decided = "absent", math.inf
    else:
        reason = None if probability >= limit else "low_probability"
    shares = {name: float(value) for name, value in zip(states, probabilities)}
    return Call(
        state=None if reason else states[best],
        best_state=states[best],
        probability=_number(probability),
        probabilities=shares,
        score=_number(scores[best]),
        margin=None if second is None else probability - float(second),
        reason=reason,
        limit=_number(decided),
        likely=() if reason in BEFORE_LIMITS else likely_states(shares),
    )


def is_absent(certificate: Certificate | None) -> bool:
    """Tells whether a certificate says that its target is not in the picture; ``None`` says nothing.

    Among other parts a thing of another kind is still nearest to one of them: a mug's handle to the horn of a beetle. Only the part's own
    map says that it is not there.
    """
    return certificate is not None and certificate.verdict == verdicts.ABSENT


def lacks(needed: Call) -> bool:
    """Tells whether the call of a presence says that what it is about is not there: then nothing can be said of its number or its form."""
    return needed.state == ABSENT or needed.reason == "absent"


def call_part(
    part: str,
    names: Sequence[str],
    probabilities: Sequence[float],
    peak_score: float,
    limit: float,
    *,
    least_probability: float = 0.0,
    missing_host: bool = False,
    host_limit: float = 0.0,
    placed: bool = True,
    absent: bool = False,
) -> Call:
    """Says whether a part is found: its best patch must score at least ``limit``, and be rather this part than another.

    All parts are there at once, so that the probability over the picture says nothing; the evidence is the patch with the highest score.

    Args:
        part: Name of the part.
        names: Names of the part and its contrasts.
        probabilities: Softmax over them at the part's best patch; empty without contrasts.
        peak_score: Highest patch score; NaN where nothing was seen.
        limit: Least score.
        least_probability: Least probability, where there are contrasts.
        missing_host: Whether the picture shows something else.
        host_limit: The limit that said so.
        placed: Whether the place that is asked for, such as the left one of two, could be told.
        absent: Whether it is not there, see :func:`is_absent`; then it is not found.
    """
    others = [float(value) for value in probabilities[1:]]
    probability = float(probabilities[0]) if len(probabilities) else None
    reason, decided = None, limit
    if missing_host:
        reason, decided = "no_host", host_limit
    elif absent:
        reason, decided = "absent", math.inf
    elif not peak_score >= limit:
        reason = "low_score"
    elif probability is not None and not probability >= least_probability:
        reason, decided = "low_probability", least_probability
    elif not placed:
        reason = "no_place"
    return Call(
        state=None if reason else part,
        best_state=part,
        probability=probability,
        probabilities={name: float(value) for name, value in zip(names, probabilities)},
        score=_number(peak_score),
        margin=probability - max(others) if others and probability is not None else None,
        reason=reason,
        limit=_number(decided),
    )


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
