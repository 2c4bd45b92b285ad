"""The certificate of a map: does it obey its prompt, is the thing there at all, and may the peak be taken for its place?"""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.core.concept import Concept
from concept_cam.core.directions import DirectionSet
from concept_cam.core.features import PatchFeatures
from concept_cam.core.scoring import FEATURE_NORM
from concept_cam.trust import probes
from concept_cam.trust.evidence import RANKED_CELLS, Evidence, Probed, Ranked, evidence, ranks
from concept_cam.trust.rules import Judgement, MapFacts, Rules, judge

__all__ = ["Certificate", "Certifier", "PictureProbes", "host_of"]


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
        probability: Of the target among its contrasts; ``None`` without.
        domain: How far the picture is from what the model knows; ``None`` where unknown.
        agreement: Share of the peak's place that the mirror image agrees on, 0..1; ``None`` where it was not asked for.
        calibrated: Whether confidence and presence were fitted for this model.
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

    @property
    def clear(self) -> bool:
        """Whether the verdict is ``"clear"``."""
        return self.verdict == "clear"

    @property
    def facts(self) -> MapFacts:
        """What the rules read besides the evidence."""
        return MapFacts(*(float("nan") if value is None else value for value in (self.probability, self.domain)))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "confidence": self.confidence,
            "presence": self.presence,
            "probability": self.probability,
            "domain": self.domain,
            "agreement": self.agreement,
            "calibrated": self.calibrated,
            "evidence": self.evidence.to_dict(),
        }

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def host_of(concept: Concept) -> tuple[str, ...]:
    """Returns the texts of what a concept's part or trait belongs to: its pack's host, else "the main subject" and the like."""
    host = concept.metadata.get("host")
    if not host:
        return probes.SUBJECTS
    article = "an" if str(host)[0].lower() in "aeiou" else "a"
    return tuple(template.format(f"{article} {host}") for template in ("a photo of {}", "{}"))


class Certifier:
    """Issues the certificates of one picture; what all its maps share is computed once, when the first is asked for.

    Args:
        features: The picture's patch features.
        concepts: What was asked.
        texts: Their unit embeddings.
        terms: float32 [C, 1 + R], the coefficients of the maps.
        feature_norm: How patch features were normalised.
        embed: Embeds phrase groups: float32 [G, D], unit length.
        logit_scale: The model's temperature.
        rules: The model's rules.
        domain: Says how far the picture is from what the model knows; NaN where unknown.
        memory: What earlier certifiers of the same picture, model and normalisation found that depends on no question.
    """

    def __init__(
        self,
        features: PatchFeatures,
        concepts: tuple[Concept, ...],
        texts: DirectionSet,
        terms: Tensor,
        feature_norm: str,
        embed: Callable[[Sequence[Sequence[str]]], Tensor],
        logit_scale: float,
        rules: Rules,
        domain: Callable[[], float],
        memory: MutableMapping[PatchFeatures, PictureProbes] | None = None,
    ) -> None:
        self._features, self._concepts, self._texts, self._terms = features, concepts, texts, terms
        self._norm, self._embed, self._scale, self._rules, self._domain = feature_norm, embed, logit_scale, rules, domain
        self._memory: MutableMapping[PatchFeatures, PictureProbes] = {} if memory is None else memory
        self._valid = features.geometry.valid()
        self._shared: _Shared | None = None

    def within(self, valid: np.ndarray) -> Certifier:
        """Returns the same for the cells that may be read, bool [h, w]: what is hidden has no say."""
        if valid.all() or np.array_equal(valid, self._valid):
            return self
        other = copy.copy(self)
        other._valid, other._shared, other._memory = valid & self._valid, None, {}
        return other

    def __call__(self, index: int) -> Certificate:
        """Returns the certificate of the map of concept ``index``."""
        shared = self._shared or self._share()
        self._shared = shared
        rows = self._texts.columns[index][self._texts.used[index]].cpu().numpy()
        plain, ranked = shared.maps[rows], shared.ranked[rows]
        weights = self._terms[index].cpu().numpy()[self._texts.used[index].cpu().numpy()]
        scores = weights @ plain
        host = host_of(self._concepts[index])
        found = evidence(
            scores,
            plain,
            weights,
            shared.picture.probed,
            Ranked(ranked[0], ranked[1:], shared.hosts[host], shared.picture.neutral),
            shared.grid,
            self._separability(rows),
        )
        facts = MapFacts(self._probability(index, scores, plain), shared.picture.domain)
        named = self._concepts[index].metadata.get("host")
        fitted = self._rules.of(None if named is None else str(named)).confidence is not None
        return _certificate(found, facts, judge(found, facts, self._rules, named), fitted)

    def _separability(self, rows: np.ndarray) -> float:
        """The least distance of the target's embedding from a contrast's."""
        vectors = self._texts.texts[torch.from_numpy(rows).to(self._texts.texts.device)]
        return float((vectors[0] - vectors[1:]).norm(dim=-1).min()) if len(rows) > 1 else float("nan")

    def _probability(self, index: int, scores: np.ndarray, plain: np.ndarray) -> float:
        """Of the target: at the peak for a part, which is somewhere; of the whole picture for a state."""
        if len(plain) < 2:
            return float("nan")
        if self._concepts[index].metadata.get("kind") == "part":
            logits = self._scale * plain[:, int(scores.argmax())]
        else:
            image = F.normalize(self._features.image.float(), dim=-1)
            rows = self._texts.columns[index][self._texts.used[index]]
            logits = (self._scale * (self._texts.texts[rows] @ image)).cpu().numpy().astype(np.float64)
        shares = np.exp(logits - logits.max())
        return float(shares[0] / shares.sum())

    def _share(self) -> _Shared:
        with torch.inference_mode():
            valid = self._valid
            patches = FEATURE_NORM[self._norm](self._features.patches)
            seen = patches[torch.from_numpy(valid).to(patches.device)]
            hosts = list(dict.fromkeys(host_of(concept) for concept in self._concepts))
            known = self._memory.get(self._features)
            if known is None:
                known = self._memory[self._features] = self._probe(seen)
            vectors = self._embed(hosts).to(seen.device)
            products = (torch.cat([self._texts.texts.float(), vectors.float()]) @ seen.T).cpu().numpy()
        rows, columns = np.nonzero(valid)
        count = len(self._texts.texts)
        ranked = ranks(_some(products))
        return _Shared(
            products[:count], ranked[:count], {host: ranked[count + place] for place, host in enumerate(hosts)}, (columns, rows), known
        )

    def _probe(self, seen: Tensor) -> PictureProbes:
        words = (*probes.NEUTRAL, *probes.LABELS)
        vectors = self._embed([(word,) for word in words]).to(seen.device)
        products = (vectors.float() @ seen.T).cpu().numpy()
        count = len(probes.NEUTRAL)
        return PictureProbes(Probed(products[:count], products[count:]), ranks(_some(products[:count])), self._domain())


def _some(products: np.ndarray) -> np.ndarray:
    """The cells that are ranked."""
    return products[:, :: max(1, products.shape[1] // RANKED_CELLS)]


@dataclass(frozen=True, eq=False)
class PictureProbes:
    """What a picture says to words that no question is about.

    Attributes:
        probed: The maps of the probes.
        neutral: Ranks of the neutral words' maps.
        domain: How far the picture is from what the model knows.
    """

    probed: Probed
    neutral: np.ndarray
    domain: float


@dataclass(frozen=True)
class _Shared:
    """What the maps of one question share: plain maps of its texts, their ranks, ranks of the hosts' maps, the cells, the probes."""

    maps: np.ndarray
    ranked: np.ndarray
    hosts: dict[tuple[str, ...], np.ndarray]
    grid: tuple[np.ndarray, np.ndarray]
    picture: PictureProbes


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _certificate(found: Evidence, facts: MapFacts, judgement: Judgement, calibrated: bool) -> Certificate:
    return Certificate(
        judgement.verdict,
        judgement.reason,
        _known(judgement.confidence),
        _known(judgement.presence),
        found,
        _known(facts.probability),
        _known(facts.domain),
        calibrated=calibrated,
    )
