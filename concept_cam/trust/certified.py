"""The certificate of a map: does it obey its prompt, is the thing there at all, and may the peak be taken for its place?

Loads no torch: worker processes, which write certificates into tables, start without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from concept_cam.trust.evidence import Evidence
from concept_cam.trust.logistic import MapFacts
from concept_cam.trust.rules import Judgement
from concept_cam.trust.verdicts import DOUBTFUL, UNFOUND

__all__ = ["Certificate", "Domain", "certificate_of", "without_place"]


@dataclass(frozen=True)
class Domain:
    """How far a picture is from what the model knows.

    Attributes:
        distance: From what it knows of the group that was asked about, or of all where none was; NaN where it does not know that group.
        nearest: The group that the picture is nearest to; empty for a model that knows no groups.
        nearer: By how much less far that one is than the one that was asked about; NaN where the model does not know it.
    """

    distance: float = float("nan")
    nearest: str = ""
    nearer: float = float("nan")


@dataclass(frozen=True)
class Certificate:
    """Whether a map can be trusted.

    Attributes:
        verdict: ``"clear"``, ``"doubtful"``, ``"not about the prompt"`` or ``"absent"``; see
            :data:`concept_cam.trust.verdicts.TRUST_VERDICTS`.
        reason: Why, in one plain sentence.
        confidence: How likely the peak lies on the target, 0..1; ``None`` where nothing was fitted for this model.
        presence: How likely the target is in the picture at all, 0..1; ``None`` where nothing was fitted for this model.
        evidence: The numbers behind it.
        probability: Of the target among its contrasts, at the peak for a part or a thing, in the whole picture for a state; ``None``
            without contrasts.
        domain: How far the picture is from what the model knows of the group that was asked about; ``None`` where unknown.
        agreement: How far other readings of the picture, mirrored and shifted, put the peak at the same place, 0..1; ``None`` where it was
            not asked for. See :mod:`concept_cam.trust.readings`.
        calibrated: Whether confidence and presence were fitted for this model and this kind of question.
        facts: What the rules read besides the evidence.
        ledger: What the target and each contrast contribute to the score at the best cell, target first; their sum is that score.
    """

    verdict: str
    reason: str
    confidence: float | None
    presence: float | None
    evidence: Evidence
    probability: float | None = None
    domain: float | None = None
    agreement: float | None = None
    calibrated: bool = False
    facts: MapFacts = field(default_factory=MapFacts)
    ledger: tuple[tuple[str, float], ...] = ()

    @property
    def text(self) -> float | None:
        """Share of the peak's surroundings that lies on written words, rulers or colour cards, 0..1; ``None`` where it cannot be told."""
        return _known(self.evidence.text)

    @property
    def nearest_group(self) -> str:
        """The group that the picture is nearest to, by the name of its trait pack; empty for models that know no groups."""
        return self.facts.nearest

    @property
    def dependence(self) -> float | None:
        """Rank correlation of the target's map with that of the whole subject, -1..1; ``None`` where one of them is constant."""
        return _known(self.evidence.dependence_host)

    @property
    def clear(self) -> bool:
        """Whether the verdict is ``"clear"``."""
        return self.verdict == "clear"

    @property
    def unfound(self) -> bool:
        """Whether the map shows nothing of the target: the verdict is ``"absent"`` or ``"not about the prompt"``."""
        return self.verdict in UNFOUND

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "confidence": self.confidence,
            "presence": self.presence,
            "probability": self.probability,
            "domain": self.domain,
            "nearest_group": self.nearest_group,
            "agreement": self.agreement,
            "calibrated": self.calibrated,
            "ledger": dict(self.ledger),
            "evidence": self.evidence.to_dict(),
        }

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def certificate_of(
    found: Evidence,
    facts: MapFacts,
    judgement: Judgement,
    calibrated: bool,
    ledger: tuple[tuple[str, float], ...],
    probability: float | None = None,
) -> Certificate:
    """Puts a certificate together; its probability is that of the facts where no other is given, and NaN is what is not known."""
    return Certificate(
        judgement.verdict,
        judgement.reason,
        _known(judgement.confidence),
        _known(judgement.presence),
        found,
        _known(facts.probability if probability is None else probability),
        _known(facts.domain),
        _known(facts.agreement),
        calibrated,
        facts,
        ledger,
    )


def without_place(certificate: Certificate, reason: str) -> Certificate:
    """Returns the certificate of a map of which one place was asked for that could not be told: the map is of the thing wherever it is.

    A peak that is right for the thing may lie on the other one of two, so that it is not clear and nothing is stated of how likely it is
    right or the one that is meant is there. What is not found at all is not found at any place either: such verdicts stay.

    Args:
        certificate: Of the map as it is.
        reason: Why the place could not be told, in one sentence.
    """
    if certificate.unfound:
        return certificate
    told = f"the place that was asked for is not told: {reason}"
    return replace(certificate, verdict=DOUBTFUL, reason=told, confidence=None, presence=None, calibrated=False)
