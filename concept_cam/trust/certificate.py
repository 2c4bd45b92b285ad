"""The certificate of a map: does it obey its prompt, is the thing there at all, and may the peak be taken for its place?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.core.concept import Concept
from concept_cam.core.directions import DirectionSet
from concept_cam.core.features import PatchFeatures
from concept_cam.core.quiet import quiet
from concept_cam.core.scoring import FEATURE_NORM
from concept_cam.trust import probes
from concept_cam.trust.evidence import RANKED_CELLS, Cells, Evidence, Probed, Ranked, evidence, ranks
from concept_cam.trust.logistic import MapFacts
from concept_cam.trust.readings import Reader, agreement_of
from concept_cam.trust.rules import Judgement, Rules, judge, key_of, kind_of

__all__ = ["Asked", "Certificate", "Certifier", "PictureProbes", "certificate_of", "host_of"]


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


def host_of(concept: Concept) -> tuple[str, ...]:
    """Returns the texts of what a concept's part or trait belongs to: its pack's host, else "the main subject" and the like."""
    host = concept.metadata.get("host")
    if not host:
        return probes.SUBJECTS
    article = "an" if str(host)[0].lower() in "aeiou" else "a"
    return tuple(template.format(f"{article} {host}") for template in ("a photo of {}", "{}"))


class Asked:
    """What was asked of pictures: the questions, their texts, and the model's words to compare them with; shared by all pictures.

    Args:
        concepts: What was asked.
        texts: Their unit embeddings.
        feature_norm: How patch features are normalised.
        embed: Embeds phrase groups: float32 [G, D], unit length.
        logit_scale: The model's temperature.
        rules: The model's rules.
    """

    def __init__(
        self,
        concepts: tuple[Concept, ...],
        texts: DirectionSet,
        feature_norm: str,
        embed: Callable[[Sequence[Sequence[str]]], Tensor],
        logit_scale: float,
        rules: Rules,
    ) -> None:
        self.concepts, self.texts, self.norm, self.embed, self.scale, self.rules = (
            concepts,
            texts,
            feature_norm,
            embed,
            logit_scale,
            rules,
        )
        self._facts: tuple[MapFacts, ...] | None = None

    @property
    def facts(self) -> tuple[MapFacts, ...]:
        """What is known of each question before any picture is looked at: its kind, its host, the measured target that it is most like."""
        if self._facts is None:
            self._facts = tuple(self._facts_of(concept) for concept in self.concepts)
        return self._facts

    def group_of(self, index: int) -> str:
        """Returns the trait pack that a question is of, by its name or by what it means; empty for none."""
        pack = self.concepts[index].metadata.get("pack")
        return str(pack) if pack else self.facts[index].target.rpartition(":")[0]

    def _facts_of(self, concept: Concept) -> MapFacts:
        kind, host, known = kind_of(concept), str(concept.metadata.get("host") or ""), self.rules.known
        if key_of(concept) in known:
            return MapFacts(kind=kind, host=host, target=key_of(concept), likeness=1.0)
        if not known or self.rules.strange(MapFacts(host=host)):
            return MapFacts(kind=kind, host=host)
        names = [name for name, target in known.items() if not host or target.host == host]
        vectors = self.embed([concept.target_prompts, *((known[name].phrase,) for name in names)])
        cosines = (vectors[1:] @ vectors[0]).tolist()
        best = max(range(len(names)), key=cosines.__getitem__, default=0)
        likeness = min(max((cosines[best] - UNLIKE) / (ALIKE - UNLIKE), 0.0), 1.0) if names else 0.0
        if likeness == 0.0:
            return MapFacts(kind=kind, host=host)
        # Free words name no kind and no host: those of what they mean are theirs.
        target = known[names[best]]
        own = kind if host else target.kind
        return MapFacts(kind=own, host=host or target.host, target=names[best], likeness=likeness)


MEANS_THE_SAME = 0.5
"""Cosine of two words' embeddings from which on one cannot be told from the other in a picture."""

UNLIKE, ALIKE = 0.8, 0.95
"""Cosines of two targets' embeddings below which they have nothing to do with each other, and from which on they are one."""


class Certifier:
    """Issues the certificates of one picture; what all its maps share is computed once, when the first is asked for.

    Args:
        features: The picture's patch features.
        asked: What was asked.
        terms: float32 [C, 1 + R], the coefficients of the maps.
        domain: Says of a group (a trait pack's name; empty for all) how far the picture is from what the model knows of it, NaN where
            unknown, and the group that the picture is nearest to.
        memory: What earlier certifiers of the same picture, model and normalisation found that depends on no question.
    """

    def __init__(
        self,
        features: PatchFeatures,
        asked: Asked,
        terms: Tensor,
        domain: Callable[[str], tuple[float, str]],
        memory: MutableMapping[PatchFeatures, PictureProbes] | None = None,
    ) -> None:
        self._features, self._asked, self._terms, self._domain = features, asked, terms, domain
        self._memory: MutableMapping[PatchFeatures, PictureProbes] = {} if memory is None else memory
        self._valid = features.geometry.valid()
        self._cells: Mapping[int, np.ndarray] = {}
        self._shared: _Shared | None = None
        self._reader: Reader | None = None

    def within(self, valid: np.ndarray) -> Certifier:
        """Returns the same for the cells that may be read, bool [h, w]: what is hidden has no say."""
        if valid.all() or np.array_equal(valid, self._valid):
            return self
        other = copy.copy(self)
        other._valid, other._shared, other._memory = valid & self._valid, None, {}
        return other

    def placed(self, cells: Mapping[int, np.ndarray]) -> Certifier:
        """Returns the same with cells bool [h, w] outside of which the maps of some concepts say nothing, by number."""
        other = copy.copy(self)
        other._cells = dict(cells)
        return other

    def careful(self, reader: Reader) -> Certifier:
        """Returns the same with agreement: the picture is read again, mirrored and shifted, when a certificate is asked for."""
        other = copy.copy(self)
        other._reader = reader
        return other

    @quiet(graph=False)
    def __call__(self, index: int) -> Certificate:
        """Returns the certificate of the map of concept ``index``."""
        if index in self._cells:
            return self.placed({}).within(self._cells[index])(index)
        shared = self._shared or self._share()
        self._shared = shared
        asked, texts = self._asked, self._asked.texts
        rows = texts.columns[index][texts.used[index]].cpu().numpy()
        plain, ranked = shared.maps[rows], shared.ranked[rows]
        weights = self._terms[index].cpu().numpy()[texts.used[index].cpu().numpy()]
        scores = weights @ plain
        host = host_of(asked.concepts[index])
        found = evidence(
            scores,
            plain[0],
            self._probed(rows, host),
            Ranked(ranked[0], ranked[1:], shared.ranked_hosts[host], shared.picture.neutral),
            shared.hosts[host],
            shared.cells,
            scale=asked.scale,
            separability=self._separability(rows),
            image=float(shared.image[rows[0]]) - shared.picture.image,
        )
        agreement = float("nan") if self._reader is None else self._agreement(index, rows, weights, scores)
        distance, nearest = self._distance(shared.picture, asked.group_of(index))
        probability = self._probability(index, scores, plain)
        facts = replace(asked.facts[index], probability=probability, domain=distance, agreement=agreement, nearest=nearest)
        peak = int(scores.argmax())
        concept = asked.concepts[index]
        ledger = tuple(zip((concept.target[0], *concept.contrast_names), (weights * plain[:, peak]).tolist()))
        return certificate_of(found, facts, judge(found, facts, asked.rules), asked.rules.fit_of(facts) is not None, ledger)

    def _agreement(self, index: int, rows: np.ndarray, weights: np.ndarray, scores: np.ndarray) -> float:
        """How far other readings of the picture agree with this one."""
        assert self._reader is not None
        direction = torch.from_numpy(weights).to(self._asked.texts.texts.device) @ self._asked.texts.texts[rows].float()
        whole = np.full(self._valid.shape, np.nan, dtype=np.float32)
        whole[self._valid] = scores

        def map_of(features: PatchFeatures) -> np.ndarray:
            patches = FEATURE_NORM[self._asked.norm](features.patches)
            return np.asarray(np.where(features.geometry.valid(), (patches @ direction.to(patches.device)).cpu().numpy(), np.nan))

        return agreement_of(whole, self._features.geometry, self._reader(), map_of)

    def _probed(self, rows: np.ndarray, host: tuple[str, ...]) -> Probed:
        """The probes of a question: without the words for labels that mean what is asked for, or its host."""
        shared = self._shared
        assert shared is not None
        probed = shared.picture.probed
        others = np.maximum(shared.labels[:, rows[0]], shared.labels_hosts[host]) < MEANS_THE_SAME
        return probed if others.all() else replace(probed, labels=probed.labels[others])

    def _distance(self, picture: PictureProbes, group: str) -> tuple[float, str]:
        """How far the picture is from what the model knows of a group; found once for each."""
        if group not in picture.domains:
            picture.domains[group] = self._domain(group)
        return picture.domains[group]

    def _separability(self, rows: np.ndarray) -> float:
        """The least distance of the target's embedding from a contrast's."""
        texts = self._asked.texts.texts
        vectors = texts[torch.from_numpy(rows).to(texts.device)]
        return float((vectors[0] - vectors[1:]).norm(dim=-1).min()) if len(rows) > 1 else float("nan")

    def _probability(self, index: int, scores: np.ndarray, plain: np.ndarray) -> float:
        """Of the target: at the peak for a part or a thing, which is somewhere; of the whole picture for a state."""
        if len(plain) < 2:
            return float("nan")
        asked = self._asked
        if kind_of(asked.concepts[index]) != "state":
            logits = asked.scale * plain[:, int(scores.argmax())]
        else:
            image = F.normalize(self._features.image.float(), dim=-1)
            rows = asked.texts.columns[index][asked.texts.used[index]]
            logits = (asked.scale * (asked.texts.texts[rows] @ image)).cpu().numpy().astype(np.float64)
        shares = np.exp(logits - logits.max())
        return float(shares[0] / shares.sum())

    def _share(self) -> _Shared:
        asked, valid = self._asked, self._valid
        patches = FEATURE_NORM[asked.norm](self._features.patches)
        seen = patches[torch.from_numpy(valid).to(patches.device)]
        image = F.normalize(self._features.image.float(), dim=-1).to(seen.device)
        known = self._memory.get(self._features)
        if known is None:
            known = self._memory[self._features] = self._probe(seen, image)
        hosts = list(dict.fromkeys(host_of(concept) for concept in asked.concepts))
        vectors = torch.cat([asked.texts.texts.float(), asked.embed(hosts).to(seen.device).float()])
        products = (vectors @ seen.T).cpu().numpy()
        ranked = ranks(_some(products))
        labels = (known.labels @ vectors.T).cpu().numpy()
        rows, columns = np.nonzero(valid)
        count = len(asked.texts.texts)
        places = {host: count + place for place, host in enumerate(hosts)}
        return _Shared(
            products[:count],
            ranked[:count],
            {host: products[place] for host, place in places.items()},
            {host: ranked[place] for host, place in places.items()},
            Cells(columns, rows, float(np.hypot(*valid.shape))),
            (vectors[:count] @ image).cpu().numpy(),
            labels[:, :count],
            {host: labels[:, place] for host, place in places.items()},
            known,
        )

    def _probe(self, seen: Tensor, image: Tensor) -> PictureProbes:
        vectors = self._asked.embed([(word,) for word in (*probes.NEUTRAL, *probes.LABELS)]).to(seen.device).float()
        products = (vectors @ seen.T).cpu().numpy()
        count = len(probes.NEUTRAL)
        highest = float((vectors[:count] @ image).max())
        probed = Probed(products[:count], products[count:])
        return PictureProbes(probed, ranks(_some(products[:count])), {}, highest, vectors[count:])


def _some(products: np.ndarray) -> np.ndarray:
    """The cells that are ranked."""
    return products[:, :: max(1, products.shape[1] // RANKED_CELLS)]


@dataclass(frozen=True, eq=False)
class PictureProbes:
    """What a picture says to words that no question is about.

    Attributes:
        probed: The maps of the probes.
        neutral: Ranks of the neutral words' maps.
        domains: Group -> how far the picture is from what the model knows of it, and the group that it is nearest to, as far as asked for.
        image: Highest cosine of the image embedding with a neutral word.
        labels: float32 [L, D], unit embeddings of the words for labels.
    """

    probed: Probed
    neutral: np.ndarray
    domains: dict[str, tuple[float, str]]
    image: float
    labels: Tensor


@dataclass(frozen=True)
class _Shared:
    """What the maps of one set of questions share: plain maps of its texts and their ranks, the hosts' maps and their ranks, the cells, the
    cosines of the image embedding with the texts, those of the words for labels with the texts and with the hosts, the probes.
    """

    maps: np.ndarray
    ranked: np.ndarray
    hosts: dict[tuple[str, ...], np.ndarray]
    ranked_hosts: dict[tuple[str, ...], np.ndarray]
    cells: Cells
    image: np.ndarray
    labels: np.ndarray
    labels_hosts: dict[tuple[str, ...], np.ndarray]
    picture: PictureProbes


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def certificate_of(
    found: Evidence, facts: MapFacts, judgement: Judgement, calibrated: bool, ledger: tuple[tuple[str, float], ...]
) -> Certificate:
    """Puts a certificate together."""
    return Certificate(
        judgement.verdict,
        judgement.reason,
        _known(judgement.confidence),
        _known(judgement.presence),
        found,
        _known(facts.probability),
        _known(facts.domain),
        _known(facts.agreement),
        calibrated,
        facts,
        ledger,
    )
