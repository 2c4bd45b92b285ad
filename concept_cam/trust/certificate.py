"""Issues certificates of maps from a picture's features; :mod:`concept_cam.trust.certified` says what a certificate is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.core.concept import Concept
from concept_cam.core.directions import DirectionSet
from concept_cam.core.features import PatchFeatures
from concept_cam.core.names import normalise_text
from concept_cam.core.quiet import quiet
from concept_cam.core.scoring import FEATURE_NORM, scales_of
from concept_cam.prompts.schema import host_phrase
from concept_cam.trust import probes
from concept_cam.trust.certified import Certificate, Domain, certificate_of, without_place
from concept_cam.trust.evidence import RANKED_CELLS, Cells, Correlations, Evidence, Probed, evidence_of_all, ranks
from concept_cam.trust.logistic import MapFacts
from concept_cam.trust.readings import Reader, agreement_of
from concept_cam.trust.rules import KINDS, Judgement, Rules, judge, key_of, kind_of

__all__ = ["Asked", "Certifier", "PictureProbes", "host_of"]


def host_of(concept: Concept) -> tuple[str, ...]:
    """Returns the texts of what a concept's part or trait belongs to: its pack's host, else "the main subject" and the like.

    Who asks for the host itself asks for no part of it: its map is to be like its own.
    """
    named = str(concept.metadata.get("host") or "")
    host = host_phrase(named)
    if not named or normalise_text(host) in map(normalise_text, concept.target):
        return probes.SUBJECTS
    return tuple(template.format(host) for template in ("a photo of {}", "{}"))


class Asked:
    """What was asked of pictures: the questions, their texts, and the model's words to compare them with; shared by all pictures.

    Args:
        concepts: What was asked.
        texts: Their unit embeddings.
        feature_norm: How patch features are normalised.
        embed: Embeds phrase groups: float32 [G, D], unit length.
        logit_scale: The model's temperature.
        rules: What certificates are judged by.
        own: The model's own rules, for the kinds of questions of which nothing was fitted in ``rules``; ``None`` where they have no say.
        sharpness: By what the temperature is multiplied for some characters; see :func:`concept_cam.core.scoring.scales_of`. Rules are
            fitted to what the one temperature says, so that they stay when factors are fitted.
    """

    def __init__(
        self,
        concepts: tuple[Concept, ...],
        texts: DirectionSet,
        feature_norm: str,
        embed: Callable[[Sequence[Sequence[str]]], Tensor],
        logit_scale: float,
        rules: Rules,
        own: Rules | None = None,
        sharpness: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.scales = scales_of(concepts, logit_scale, sharpness)
        self.concepts, self.texts, self.norm, self.embed, self.scale, self.rules, self._own = (
            concepts,
            texts,
            feature_norm,
            embed,
            logit_scale,
            rules,
            own,
        )

    @cached_property
    def table(self) -> np.ndarray:
        """The rows of the texts in the order of the coefficients, int [C, 1 + R]; see :attr:`used`."""
        return np.asarray(self.texts.columns.cpu().numpy())

    @cached_property
    def rows(self) -> tuple[np.ndarray, ...]:
        """The rows of the texts of each question, target first."""
        return tuple(own[used] for own, used in zip(self.table, self.used))

    @cached_property
    def answers(self) -> tuple[np.ndarray, ...]:
        """The same without the surroundings: the target and its rivals."""
        return tuple(own[used] for own, used in zip(self.table, self.answering))

    @cached_property
    def alike_long(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """The questions with equally many texts, int [G], and which of their columns they use, int [G, n]: for products of many at once."""
        return _alike_long(self.used)

    @cached_property
    def alike_many(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """The same of the questions with equally many answers."""
        return _alike_long(self.answering)

    @cached_property
    def answering(self) -> np.ndarray:
        """Which of the columns are answers to each question, bool [C, 1 + R]."""
        return np.asarray(self.texts.answers.cpu().numpy())

    @cached_property
    def used(self) -> np.ndarray:
        """Which of the columns each question uses, bool [C, 1 + R]."""
        return np.asarray(self.texts.used.cpu().numpy())

    @cached_property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """What the terms of each question are called, target first."""
        return tuple(concept.term_names for concept in self.concepts)

    @cached_property
    def states(self) -> np.ndarray:
        """Which questions are about states, bool [C]."""
        return np.array([facts.kind == "state" for facts in self.facts], dtype=bool)

    @cached_property
    def targets(self) -> np.ndarray:
        """The rows of the targets' texts, int [C]."""
        return np.array([rows[0] for rows in self.rows])

    @cached_property
    def hosts(self) -> tuple[tuple[str, ...], ...]:
        """The texts of each question's host."""
        return tuple(host_of(concept) for concept in self.concepts)

    @cached_property
    def own_hosts(self) -> np.ndarray:
        """The row of each question's host among :attr:`with_hosts`, int [C]."""
        hosts = list(dict.fromkeys(self.hosts))
        return np.array([len(self.texts.texts) + hosts.index(host) for host in self.hosts])

    @cached_property
    def with_hosts(self) -> Tensor:
        """The embeddings of all texts and after them those of the hosts, float32 [U + H, D]."""
        texts = self.texts.texts
        return torch.cat([texts.float(), self.embed(list(dict.fromkeys(self.hosts))).to(texts.device).float()])

    @cached_property
    def like_hosts(self) -> np.ndarray:
        """Cosine of each target's embedding with that of its host, float32 [C]."""
        vectors = self.with_hosts
        return np.asarray((vectors[self.targets] * vectors[self.own_hosts]).sum(dim=1).cpu().numpy())

    @cached_property
    def probe_words(self) -> Tensor:
        """The embeddings of the neutral words and after them those of the words for labels, float32 [K + L, D]."""
        return self.embed([(word,) for word in (*probes.NEUTRAL, *probes.LABELS)]).to(self.texts.texts.device).float()

    @cached_property
    def judged_by(self) -> tuple[np.ndarray, np.ndarray]:
        """The choices of words for labels that questions may be judged by, bool [P, L], and the choice of each question, int [C].

        A word that means what is asked for, or its host, is no evidence against it.
        """
        alike = (self.probe_words[len(probes.NEUTRAL) :] @ self.with_hosts.T).cpu().numpy()
        used = np.maximum(alike[:, self.targets], alike[:, self.own_hosts]) < MEANS_THE_SAME
        choices, which = np.unique(used.T, axis=0, return_inverse=True)
        return choices, which.reshape(-1)

    @cached_property
    def separability(self) -> tuple[float, ...]:
        """The least distance of each target's embedding from a rival's; NaN without rivals."""
        vectors = self.texts.texts.float().cpu().numpy()
        return tuple(
            float(np.linalg.norm(vectors[rows[0]] - vectors[rows[1:]], axis=-1).min()) if len(rows) > 1 else float("nan")
            for rows in self.answers
        )

    @property
    def facts(self) -> tuple[MapFacts, ...]:
        """What is known of each question before any picture is looked at: its kind, its host, the measured target that it is most like."""
        return tuple(facts for _, facts in self._judges)

    def judged(self, index: int, found: Evidence, facts: MapFacts) -> tuple[Judgement, bool]:
        """Judges a map of question ``index``, and says whether anything was fitted for it."""
        rules, _ = self._judges[index]
        judgement = judge(found, facts, rules)
        if rules is not self.rules:
            borrowed = f"by the model's own limits: the trust file has none for {KINDS[facts.kind]}"
            judgement = replace(judgement, reason=f"{judgement.reason.removesuffix('.')}; {borrowed}.")
        return judgement, rules.fit_of(facts) is not None

    @cached_property
    def _judges(self) -> tuple[tuple[Rules, MapFacts], ...]:
        return tuple(map(self._judge_of, self.concepts))

    def _judge_of(self, concept: Concept) -> tuple[Rules, MapFacts]:
        """The rules that a question is judged by, and what they know of it."""
        facts = self._facts_of(concept, self.rules)
        if self._own is not None and facts.kind not in self.rules.kinds:
            others = self._facts_of(concept, self._own)
            # Free words may mean a part to the model's own rules, where the others, that know parts, know it for none of theirs.
            if others.kind not in self.rules.kinds and self._own.fit_of(others) is not None:
                return self._own, others
        return self.rules, facts

    def _facts_of(self, concept: Concept, rules: Rules) -> MapFacts:
        found = self._meaning(concept, rules)
        return replace(found, group=rules.group_of(concept, found.target))

    def _meaning(self, concept: Concept, rules: Rules) -> MapFacts:
        kind, host, known = kind_of(concept), str(concept.metadata.get("host") or ""), rules.known
        if key_of(concept) in known:
            return MapFacts(kind=kind, host=host, target=key_of(concept), likeness=1.0)
        if not known or rules.strange(MapFacts(host=host)):
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
        domain: Says of a group (a trait pack's name; empty for all) how far the picture is from what the model knows of it.
        memory: What earlier certifiers of the same picture, model and normalisation found that depends on no question.
    """

    def __init__(
        self,
        features: PatchFeatures,
        asked: Asked,
        terms: Tensor,
        domain: Callable[[str], Domain],
        memory: MutableMapping[PatchFeatures, PictureProbes] | None = None,
    ) -> None:
        self._features, self._asked, self._terms, self._domain = features, asked, terms, domain
        self._memory: MutableMapping[PatchFeatures, PictureProbes] = {} if memory is None else memory
        self._valid = features.geometry.valid()
        self._cells: Mapping[int, np.ndarray] = {}
        self._untold: Mapping[int, str] = {}
        self._shared: _Shared | None = None
        self._reader: Reader | None = None

    def within(self, valid: np.ndarray) -> Certifier:
        """Returns the same for the cells that may be read, bool [h, w]: what is hidden has no say."""
        if valid.all() or np.array_equal(valid, self._valid):
            return self
        other = copy.copy(self)
        other._valid, other._shared, other._memory = valid & self._valid, None, {}
        return other

    def placed(self, cells: Mapping[int, np.ndarray], untold: Mapping[int, str] = MappingProxyType({})) -> Certifier:
        """Returns the same for concepts of which one place was asked for, by number.

        Args:
            cells: bool [h, w], where the place could be told: outside of them the map says nothing.
            untold: Why it could not be told: such a map is not clear.
        """
        other = copy.copy(self)
        other._cells, other._untold = dict(cells), dict(untold)
        return other

    def careful(self, reader: Reader) -> Certifier:
        """Returns the same with agreement: the picture is read again, mirrored and shifted, when a certificate is asked for."""
        other = copy.copy(self)
        other._reader = reader
        return other

    def __call__(self, index: int) -> Certificate:
        """Returns the certificate of the map of concept ``index``."""
        if index in self._cells:
            return self.placed({}).within(self._cells[index]).of([index])[index]
        shared = self._shared or self._share()
        self._shared = shared
        return self._certificate(index, shared)

    def of(self, indices: Sequence[int]) -> dict[int, Certificate]:
        """Returns the certificates of some concepts by number; what the others' maps would need is not computed."""
        own = [index for index in indices if index not in self._cells]
        shared = (self._shared or self._share(own)) if own else None
        return {index: self(index) if shared is None or index in self._cells else self._certificate(index, shared) for index in indices}

    def _certificate(self, index: int, shared: _Shared) -> Certificate:
        asked = self._asked
        rows, scores, found = asked.rows[index], shared.scores[index], shared.evidence[index]
        weights = shared.terms[index][asked.used[index]]
        plain_at_peak = shared.maps[rows, shared.peaks[index]]
        agreement = float("nan") if self._reader is None else self._agreement(rows, weights, scores)
        known = asked.facts[index]
        domain = self._domain_of(shared.picture, known.group)
        facts = MapFacts(
            shared.probabilities[index][0],
            domain.distance,
            agreement,
            known.kind,
            known.host,
            known.target,
            known.likeness,
            domain.nearest,
            known.group,
            domain.nearer,
            shared.likelier[index],
        )
        ledger = tuple(zip(asked.names[index], (weights * plain_at_peak).tolist()))
        judgement, fitted = asked.judged(index, found, facts)
        whole = certificate_of(found, facts, judgement, fitted, ledger, shared.probabilities[index][1])
        return without_place(whole, self._untold[index]) if index in self._untold else whole

    @quiet(graph=False)
    def _agreement(self, rows: np.ndarray, weights: np.ndarray, scores: np.ndarray) -> float:
        """How far other readings of the picture agree with this one."""
        assert self._reader is not None
        direction = torch.from_numpy(weights).to(self._asked.texts.texts.device) @ self._asked.texts.texts[rows].float()
        whole = np.full(self._valid.shape, np.nan, dtype=np.float32)
        whole[self._valid] = scores

        def map_of(features: PatchFeatures) -> np.ndarray:
            patches = FEATURE_NORM[self._asked.norm](features.patches)
            return np.asarray(np.where(features.geometry.valid(), (patches @ direction.to(patches.device)).cpu().numpy(), np.nan))

        return agreement_of(whole, self._features.geometry, self._reader(), map_of)

    def _domain_of(self, picture: PictureProbes, group: str) -> Domain:
        """How far the picture is from what the model knows of a group; found once for each."""
        if group not in picture.domains:
            with quiet(graph=False):
                picture.domains[group] = self._domain(group)
        return picture.domains[group]

    @quiet(graph=False)
    def _share(self, which: Sequence[int] | None = None) -> _Shared:
        """Computes what the certificates of some concepts rest on, by default of all."""
        asked, valid = self._asked, self._valid
        patches = FEATURE_NORM[asked.norm](self._features.patches)
        seen = patches[torch.from_numpy(valid).to(patches.device)]
        image = F.normalize(self._features.image.float(), dim=-1).to(seen.device)
        known = self._memory.get(self._features)
        if known is None:
            known = self._memory[self._features] = self._probe(seen, image)
        vectors = asked.with_hosts
        products = (vectors @ seen.T).cpu().numpy()
        count = len(asked.texts.texts)
        own = asked.own_hosts
        with_image = (vectors[:count] @ image).cpu().numpy()
        terms, targets = self._terms.cpu().numpy(), asked.targets
        scores = np.empty((len(terms), products.shape[1]), dtype=products.dtype)
        for numbers, columns in asked.alike_long:
            own_terms = np.take_along_axis(terms[numbers], columns, axis=1)
            scores[numbers] = (own_terms[:, None] @ products[asked.table[numbers[:, None], columns]])[:, 0]
        rows, columns = np.nonzero(valid)
        found = evidence_of_all(
            scores,
            products[targets],
            known.probed,
            self._correlations(ranks(_some(products)), own, known.neutral, range(len(scores)) if which is None else which),
            products[own],
            _words(known.probed.labels, *asked.judged_by),
            Cells(columns, rows, float(np.hypot(*valid.shape))),
            np.array(asked.separability),
            with_image[targets] - known.image,
            asked.like_hosts,
            scale=asked.scale,
            which=which,
        )
        wanted = list(range(len(scores)) if which is None else which)
        peaks = scores.argmax(axis=1)
        probabilities, likelier = self._probabilities(wanted, products, peaks, with_image)
        return _Shared(products[:count], scores, terms, dict(zip(wanted, found)), known, peaks.tolist(), probabilities, likelier)

    def _probabilities(
        self, which: Sequence[int], products: np.ndarray, peaks: np.ndarray, with_image: np.ndarray
    ) -> tuple[dict[int, tuple[float, float]], dict[int, str]]:
        """Of some targets among their rivals: at the peak for a part or a thing, which is somewhere; of all the picture for a state.

        At the model's one temperature, which the rules are fitted to, and at that of the character, which is said; and which rival is
        the likeliest of all, empty where the target is.
        """
        asked = self._asked
        wanted = np.zeros(len(peaks), dtype=bool)
        wanted[list(which)] = True
        found, likelier = dict.fromkeys(which, (math.nan, math.nan)), dict.fromkeys(which, "")
        for numbers, columns in asked.alike_many:
            own = wanted[numbers]
            if columns.shape[1] < 2 or not own.any():
                continue
            numbers, columns = numbers[own], columns[own]
            rows = np.take_along_axis(asked.table[numbers], columns, axis=1)
            cosines = np.where(asked.states[numbers, None], with_image[rows], products[rows, peaks[numbers, None]])
            plain, own_scales = _first_share(asked.scale * cosines.astype(np.float64)), asked.scales.numpy()[numbers].astype(np.float64)
            said = plain if (own_scales == np.float32(asked.scale)).all() else _first_share(own_scales[:, None] * cosines)
            found |= zip(numbers.tolist(), zip(plain.tolist(), said.tolist()))
            for number, first in zip(numbers.tolist(), columns[np.arange(len(numbers)), cosines.argmax(axis=1)].tolist()):
                likelier[number] = asked.names[number][int(asked.used[number, :first].sum())] if first else ""
        return found, likelier

    def _correlations(self, ranked: np.ndarray, hosts: np.ndarray, neutral: np.ndarray, which: Sequence[int]) -> Correlations:
        """Rank correlations of the targets' plain maps; with their siblings only of some, NaN for others."""
        asked = self._asked
        own = ranked[asked.targets]
        together = own @ ranked.T
        varied = np.asarray(own.any(axis=1))[:, None]
        told = np.where(varied & np.asarray(ranked.any(axis=1))[None], together, np.nan)
        siblings = np.full(len(own), np.nan, dtype=told.dtype)
        for index in which:
            if len(rows := asked.answers[index]) > 1:
                siblings[index] = told[index, rows[1:]].max()
        others = np.where(varied & np.asarray(neutral.any(axis=1))[None], own @ neutral.T, np.nan)
        return Correlations(told[np.arange(len(own)), hosts], siblings, np.median(others, axis=1))

    def _probe(self, seen: Tensor, image: Tensor) -> PictureProbes:
        vectors = self._asked.probe_words
        products = (vectors @ seen.T).cpu().numpy()
        count = len(probes.NEUTRAL)
        highest = float((vectors[:count] @ image).max())
        probed = Probed(products[:count], products[count:])
        return PictureProbes(probed, ranks(_some(products[:count])), {}, highest)


def _alike_long(used: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    counts = used.sum(axis=1)
    groups = (np.flatnonzero(counts == count) for count in np.unique(counts))
    return tuple((group, np.stack([np.flatnonzero(used[index]) for index in group])) for group in groups)


def _some(products: np.ndarray) -> np.ndarray:
    """The cells that are ranked."""
    return products[:, :: max(1, products.shape[1] // RANKED_CELLS)]


@dataclass(frozen=True, eq=False)
class PictureProbes:
    """What a picture says to words that no question is about.

    Attributes:
        probed: The maps of the probes.
        neutral: Ranks of the neutral words' maps.
        domains: Group -> how far the picture is from what the model knows of it, as far as asked for.
        image: Highest cosine of the image embedding with a neutral word.
    """

    probed: Probed
    neutral: np.ndarray
    domains: dict[str, Domain]
    image: float


def _words(labels: np.ndarray, choices: np.ndarray, which: np.ndarray) -> np.ndarray:
    """The highest map of a word for labels, float [C, N], of the words that each question may be judged by; see :attr:`Asked.judged_by`."""
    highest = np.stack([np.where(chosen[:, None], labels, -np.inf).max(axis=0) for chosen in choices])
    return np.asarray(highest[which])


def _first_share(logits: np.ndarray) -> np.ndarray:
    """The first of the softmax of each row: [N, K] to [N]."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares[:, 0] / shares.sum(axis=1))


@dataclass(frozen=True)
class _Shared:
    """What is known of the maps of one set of questions: plain maps of its texts, the maps, the coefficients of their texts, what the maps'
    certificates rest on, the probes, the cell in which each map is highest, the probabilities of the targets, and what is likelier.
    """

    maps: np.ndarray
    scores: np.ndarray
    terms: np.ndarray
    evidence: Mapping[int, Evidence]
    picture: PictureProbes
    peaks: Sequence[int]
    probabilities: Mapping[int, tuple[float, float]]
    likelier: Mapping[int, str]
