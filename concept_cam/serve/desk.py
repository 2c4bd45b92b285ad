"""One Python API for the page, the labelling backends and scripts: pictures and questions in, answers out.

    >>> from concept_cam.serve.desk import Desk
    >>> desk = Desk.open("photos/")
    >>> entry = desk.gallery.entries[0]
    >>> answer = desk.ask(entry, {"target": "a forked tail fin", "contrasts": ["a rounded tail fin"]})
    >>> answer.found.peak, answer.to_dict()["regions"]

A picture is encoded once and its features are kept, newest first, within a limit of memory; a question costs a matrix product. One thread
encodes, a few score; when more wait than the limits allow, :class:`Busy` says so at once instead of letting everybody wait.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from concept_cam import prompts
from concept_cam.collection.calls import Limits, call_state, host_is_missing, is_absent, lacks
from concept_cam.collection.corrections import CORRECTIONS_FILE, Correction, Corrections
from concept_cam.collection.questions import call_concept, entity_concept, host_concept
from concept_cam.core.concept import Concept
from concept_cam.core.directions import coefficients
from concept_cam.core.errors import ConceptCamError, ConfigurationError
from concept_cam.core.features import PatchFeatures
from concept_cam.core.placing import LEFT_OF
from concept_cam.core.plain import plain_json
from concept_cam.core.regions import Region, decode_rle
from concept_cam.core.results import Localization, Localizations
from concept_cam.core.scoring import ledger, probabilities, scales_of
from concept_cam.refine.look import SecondLook
from concept_cam.serve.calling import call_now, call_of_run, host_probability
from concept_cam.serve.gallery import Gallery, GalleryPicture, encode_picture, open_gallery
from concept_cam.serve.questions import AskedQuestion, read_question
from concept_cam.serve.teaching import Taught, TaughtConcepts, click_vectors

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["DeskAnswer", "Busy", "Desk"]

T = TypeVar("T")

MEMORY = 2**30
"""Bytes of patch features that are kept."""

ENCODING_QUEUE = 32
"""Pictures that may wait for the image tower."""

SCORING_QUEUE = 256
"""Questions that may wait for a thread."""

SHOWN_KEPT = 64 * 2**20
"""Bytes of small pictures that are kept for showing."""

REGIONS = 24
"""Regions of an answer, the first by rank."""

CLICK_RADIUS = 1.0
"""Distance in cells within which a click belongs to a region: a finger is no finer than the model's grid."""


@cache
def _shipped() -> Mapping[str, prompts.Pack]:
    """The packs that come with the package; read once."""
    return {name: prompts.load_pack(name) for name in prompts.available()}


class Busy(ConceptCamError):
    """More work waits than can be taken on; ask again in a moment."""


@dataclass(frozen=True)
class DeskAnswer:
    """The answer to one question.

    Attributes:
        entry: The picture.
        question: What was asked, with the state that was chosen.
        found: The localisation.
        regions: Its regions by rank: by the clicks where there are any, else that of the peak first and the others by size.
        cosines: float32 [1 + R, h, w]: similarity of each patch with the target and each contrast.
        weights: ``pi`` of each contrast.
        gram: float32 [1 + R, 1 + R]: products of the texts' embeddings, by which the length of the direction is known at any gamma.
        prototype: float32 [h, w]: the taught direction's map; ``None`` without one.
        taught: The taught concept that was mixed in.
        call: State, probability, score and where they come from.
        unknown_words: Words that the model never saw.
        encoded: Whether the picture was encoded for this answer.
        seconds: What the answer took, waiting left out.
        notes: What was done to the picture's pixels when it was read, in words, see :class:`concept_cam.pictures.reading.Picture`.
        version: Another text whenever the picture's file was written since; empty for what is held in memory.
    """

    entry: GalleryPicture
    question: AskedQuestion
    found: Localization
    regions: tuple[Region, ...]
    cosines: np.ndarray
    weights: tuple[float, ...]
    gram: np.ndarray
    prototype: np.ndarray | None
    taught: Taught | None
    call: Mapping[str, Any]
    unknown_words: tuple[str, ...]
    encoded: bool
    seconds: float
    notes: tuple[str, ...] = ()
    version: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data for JSON; the maps only where they were asked for."""
        found, question = self.found, self.question
        pack, character, part = question.subject
        limit = found.threshold(question.threshold)
        height, width = found.geometry.original
        peak = None if np.isnan(found.peak[0]) else {"x": found.peak[0], "y": found.peak[1], "score": _number(found.peak_score)}
        return {
            "picture": {
                "id": self.entry.id,
                "source": self.entry.source,
                "title": self.entry.title,
                "width": width,
                "height": height,
                "specimen": None if self.entry.box is None else {"number": self.entry.specimen, "box": list(self.entry.box)},
                "notes": list(self.notes),
                "version": self.version,
            },
            "question": {
                "target": found.concept.name if found.concept.where and not question.character else found.concept.target[0],
                "phrases": list(found.concept.target),
                "contrasts": list(found.concept.contrast_names),
                "name": found.concept.name,
                "words": found.question,
                "gamma": question.gamma,
                "weighting": question.weighting,
                "threshold": question.threshold,
            },
            "subject": {"pack": pack, "character": character, "part": part, "specimen": self.entry.specimen, "kind": question.kind},
            "score": _number(found.score),
            "probability": found.probability,
            "probabilities": dict(zip(self._names(), found.probabilities)),
            "peak": peak,
            "threshold": {"strategy": question.threshold, "value": _number(limit)},
            "regions": [_region(region) for region in self.regions],
            "ledger": self._ledger(),
            "call": dict(self.call),
            "certificate": certificate_of(found) if question.with_certificate else None,
            "place": None if found.place is None else found.place.to_dict() | {"whose": LEFT_OF[found.place.left_of]},
            "taught": None if self.taught is None else {**self.taught.facts(), "mix": question.mix},
            "zero_shot": self.taught is None,
            "unknown_words": list(self.unknown_words),
            "provenance": found.provenance.to_dict(),
            "timing": {"encoded": self.encoded, "milliseconds": round(1000 * self.seconds, 2)},
            "map": self._map() if question.with_map else None,
        }

    def _names(self) -> list[str]:
        concept = self.found.concept
        state = concept.metadata.get("state")
        return [str(state) if state else concept.target[0] if concept.where is None else concept.name, *concept.contrast_names]

    def _ledger(self) -> list[dict[str, Any]]:
        """What each text adds at the peak; together they are the peak cell's score."""
        scores = self.found.scores
        if not np.isfinite(scores).any():
            return []
        cell = np.unravel_index(int(np.nanargmax(scores)), scores.shape)
        share = 1.0 - (self.question.mix if self.taught is not None else 0.0)
        signs = (1.0, *(-self.question.gamma * weight for weight in self.weights))
        rivals = len(self.found.concept.rivals)
        rows = [
            {
                "name": name,
                "role": "target" if not number else "contrast" if number <= rivals else "around",
                "weight": self.weights[number - 1] if number else 1.0,
                "cosine": _number(float(cosine[cell])),
                "value": _number(float(share * sign * cosine[cell])),
            }
            for number, (name, sign, cosine) in enumerate(zip(self._names(), signs, self.cosines))
        ]
        if self.taught is not None and self.prototype is not None:
            value = float(self.question.mix * self.prototype[cell])
            rows.append({"name": self.taught.name, "role": "taught", "weight": self.question.mix, "cosine": None, "value": _number(value)})
        return rows

    def _length(self) -> float:
        """Length of the words' direction, to which the prototype was set."""
        signs = np.array([1.0, *(-self.question.gamma * weight for weight in self.weights)])
        return float(np.sqrt(max(signs @ self.gram @ signs, 1e-12)))

    def _map(self) -> dict[str, Any]:
        """The maps as the page draws them: little-endian float32 in base64, row by row, NaN where nothing was seen."""
        geometry = self.found.geometry
        valid = np.isfinite(self.found.scores)  # Padding has no scores, nor has what is not the place that was asked for.
        return {
            "grid": list(geometry.grid),
            "original": list(geometry.original),
            "cell": list(geometry.cell),
            "scale": list(geometry.scale),
            "offset": list(geometry.offset),
            "names": self._names(),
            "weights": list(self.weights),
            "cosines": _base64(np.where(valid, self.cosines, np.nan)),
            "gram": self.gram.round(7).tolist(),
            "prototype": None if self.prototype is None else _base64(np.where(valid, self.prototype / self._length(), np.nan)),
            "mix": self.question.mix if self.taught is not None else 0.0,
        }


class Desk:
    """Answers questions about a gallery with one model; its methods may be called from many threads.

    Args:
        localizer: The model.
        gallery: The pictures.
        corrections: File of corrections; ``None`` for ``corrections.sqlite`` in the gallery's home.
        packs: Packs that are meant first, besides those of the run; all that ship may be asked.
        memory: Bytes of patch features that are kept.
        threads: Threads that score; ``None`` for the number of processors, 2..8.
        limits: Below which evidence a pack's character is not called, where no run says it; ``None`` for those of ``annotate``.
    """

    def __init__(
        self,
        localizer: Localizer,
        gallery: Gallery,
        *,
        corrections: str | os.PathLike[str] | None = None,
        packs: Sequence[prompts.Pack] = (),
        memory: int = MEMORY,
        threads: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        settings = localizer.settings
        self._closer = settings.refine != "none" or settings.look_again
        if self._closer and gallery.index is not None:
            raise ConfigurationError(
                "an index keeps features and no pictures, and refining a map or looking again takes the pictures: serve the folder of the "
                "pictures, or leave --refine and --look-again out."
            )
        self.localizer, self.gallery, self.memory = localizer, gallery, memory
        self.limits = limits or Limits()
        self.corrections = Corrections(corrections if corrections is not None else gallery.home / CORRECTIONS_FILE)
        self.taught = TaughtConcepts(self.corrections.path.parent / "taught", localizer.backbone.weights_hash)
        shipped = dict(_shipped())
        given = {pack.name: pack for pack in packs}
        named = gallery.run.info.get("packs") if gallery.run is not None else None
        self.preferred = tuple(dict.fromkeys([*given, *(name for name in named or () if name in shipped)]))
        known = shipped | given
        self.packs = {name: known[name] for name in (*self.preferred, *(name for name in known if name not in self.preferred))}
        self._features: OrderedDict[str, PatchFeatures] = OrderedDict()
        self._coming: dict[str, Future[PatchFeatures]] = {}
        self._images: dict[str, torch.Tensor] = {}
        self._notes: dict[str, tuple[str, ...]] = {}
        self._encoded_of: dict[str, tuple[int, int] | None] = {}
        self._lock = threading.Lock()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._scorers = ThreadPoolExecutor(threads or min(8, max(2, os.cpu_count() or 2)), thread_name_prefix="score")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="read")
        self._shown: OrderedDict[tuple[str, int], tuple[tuple[int, int] | None, bytes]] = OrderedDict()
        self._localizers: OrderedDict[tuple[float, str], Localizer] = OrderedDict()
        self._words: OrderedDict[Concept, tuple[str, ...]] = OrderedDict()
        self._concepts: dict[tuple[str, str, str | None], tuple[Concept, ...]] = {}
        self._hosts: dict[str, Concept] = {}
        self._entities: dict[tuple[str, str], Concept | None] = {}
        self._scoring = 0
        self._closed = False
        self.counts = {"encoded": 0, "answered": 0, "busy": 0}

    @classmethod
    def open(cls, source: str | None = None, *, model: str = "demo", **values: Any) -> Desk:
        """Opens a folder or run with a model by name, or an index with its own; ``values`` as for the class."""
        from concept_cam.localizer import Localizer

        gallery = open_gallery(source)
        if gallery.index is not None:
            return cls(gallery.index.localizer(), gallery, **values)
        return cls(Localizer.from_pretrained(model), gallery, **values)

    @property
    def other_weights(self) -> str | None:
        """Says that the run's calls were made with other weights than those in use; ``None`` where they were not, or there is no run."""
        run, backbone = self.gallery.run, self.localizer.backbone
        if run is None or run.weights_hash in ("", backbone.weights_hash):
            return None
        return (
            f"the run {run.name!r} holds calls of {run.model!r} (weights {run.weights_hash}), this model is {backbone.name!r} "
            f"({backbone.weights_hash}): calls are the run's, maps and certificates this model's. Serve the run with the model that made "
            "it, or annotate again."
        )

    def made_by(self, entry: GalleryPicture, subject: tuple[str, str, str]) -> tuple[str, str]:
        """Returns the name of the model that made a call, and the hash of its weights: the run's where the call is from the run."""
        pack, character, part = subject
        run, backbone = self.gallery.run, self.localizer.backbone
        if run is not None and (pack, character, entry.specimen, part) in self.gallery.calls(entry):
            return run.model, run.weights_hash
        return backbone.name, backbone.weights_hash

    def close(self) -> None:
        """Ends the threads; what waits is dropped."""
        self._closed = True
        self._encoder.shutdown(wait=False, cancel_futures=True)
        self._scorers.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------------------------------------------- encoding

    def features(self, entry: GalleryPicture) -> tuple[PatchFeatures, bool]:
        """Returns a picture's features, and whether they had to be made; pictures that several ask for at once are encoded once.

        Raises:
            Busy: Too many pictures wait.
            ImageError: The picture cannot be read.
        """
        coming, encoded = self.coming(entry)
        return coming.result(), encoded

    def coming(self, entry: GalleryPicture) -> tuple[Future[PatchFeatures], bool]:
        """Returns the promise of a picture's features, kept already or on their way, and whether they had to be made.

        Raises:
            Busy: Too many pictures wait.
        """
        version = self.gallery.version(entry)
        with self._lock:
            if entry.id in self._features and _is_of(self._encoded_of[entry.id], version):
                self._features.move_to_end(entry.id)
                ready: Future[PatchFeatures] = Future()
                ready.set_result(self._features[entry.id])
                return ready, False
            coming = self._coming.get(entry.id)
            if coming is None:
                if len(self._coming) >= ENCODING_QUEUE:
                    self.counts["busy"] += 1
                    raise Busy(f"{len(self._coming)} pictures wait for the model: try again in a few seconds.")
                coming = self._coming[entry.id] = self._encoder.submit(self._encode, entry)
            return coming, True

    def _encode(self, entry: GalleryPicture) -> PatchFeatures:
        try:
            version = self.gallery.version(entry)  # Before it is read: what is written meanwhile is another version.
            features = self.gallery.features(entry)
            if features is None:
                picture = self.gallery.read(entry)
                features = self.localizer.encode(replace(picture, source=entry.source))
                self._notes[entry.id] = picture.notes
            with self._lock:
                self._keep(entry.id, features, version)
            return features
        finally:
            with self._lock:
                self._coming.pop(entry.id, None)

    def _keep(self, id_: str, features: PatchFeatures, version: tuple[int, int] | None) -> None:
        self._features[id_], self._encoded_of[id_] = features, version
        self._features.move_to_end(id_)
        self._images[id_] = features.image.cpu()  # A few hundred numbers: kept of every picture, to choose the next one.
        self.counts["encoded"] += 1
        size = features.patches.numel() * features.patches.element_size()
        while len(self._features) > 1 and len(self._features) * size > self.memory:
            self._features.popitem(last=False)

    def encode_ahead(self, ids: Sequence[str] | None = None) -> None:
        """Starts a thread that encodes pictures while nobody waits, until their image embeddings are all known."""
        wanted = [entry for entry in self.gallery.entries if ids is None or entry.id in ids]

        def work() -> None:
            for entry in wanted:
                while not self._closed and (self._coming or self._scoring):
                    time.sleep(0.2)
                if self._closed:
                    return
                with self._lock:
                    known = entry.id in self._images
                if not known:
                    try:
                        self.features(entry)
                    except (ConceptCamError, RuntimeError, OSError):
                        continue  # A damaged picture is reported when somebody looks at it.

        threading.Thread(target=work, name="ahead", daemon=True).start()

    def image_embeddings(self) -> dict[str, torch.Tensor]:
        """Returns the image embedding float32 [D] of every picture that was encoded, by id."""
        with self._lock:
            return dict(self._images)

    def picture(self, entry: GalleryPicture, side: int) -> bytes:
        """Returns a picture as JPEG of at most ``side`` pixels on its longer side; the last ones are kept, until their files change.

        Raises:
            ImageError: It cannot be read.
        """
        key = (entry.id, side)
        version = self.gallery.version(entry)
        with self._lock:
            if key in self._shown and _is_of(self._shown[key][0], version):
                self._shown.move_to_end(key)
                return self._shown[key][1]
        content = encode_picture(self.gallery.read(entry), side)
        with self._lock:
            self._shown[key] = version, content
            self._shown.move_to_end(key)
            while sum(len(kept) for _, kept in self._shown.values()) > SHOWN_KEPT and len(self._shown) > 1:
                self._shown.popitem(last=False)
        return content

    # ------------------------------------------------------------------------------------------------------- answering

    def submit(self, work: Callable[[], T], *, reading: bool = False) -> Future[T]:
        """Runs work in one of the scoring threads, or in one of those that read pictures for people to see.

        Raises:
            Busy: Too much waits.
        """
        with self._lock:
            if self._scoring >= SCORING_QUEUE:
                self.counts["busy"] += 1
                raise Busy(f"{self._scoring} questions wait: try again in a moment.")
            self._scoring += 1

        def run() -> T:
            try:
                return work()
            finally:
                with self._lock:
                    self._scoring -= 1

        try:
            future = (self._readers if reading else self._scorers).submit(run)
        except RuntimeError:
            with self._lock:
                self._scoring -= 1
            raise
        return future

    def read(self, data: Mapping[str, Any]) -> AskedQuestion:
        """Reads a question from plain data; see :func:`concept_cam.serve.questions.read_question`."""
        settings = self.localizer.settings
        return read_question(data, self.packs, {"gamma": settings.gamma, "weighting": settings.weighting}, self._concepts_of)

    def _concepts_of(self, pack: prompts.Pack, character: str, state: str | None = None) -> Sequence[Concept]:
        """Makes a character's concepts once: reading dozens of phrases costs as much as scoring them."""
        key = (pack.name, character, state)
        if key not in self._concepts:
            self._concepts[key] = tuple(prompts.concepts(pack, character, state))
        return self._concepts[key]

    def ask(self, entry: GalleryPicture, question: AskedQuestion | Mapping[str, Any]) -> DeskAnswer:
        """Answers one question about one picture.

        Raises:
            ConceptCamError: The picture or the question cannot be used, or too much waits.
        """
        asked = question if isinstance(question, AskedQuestion) else self.read(question)
        features, encoded = self.features(entry)
        return self.answer(entry, features, asked, encoded)

    def answer(self, entry: GalleryPicture, features: PatchFeatures, question: AskedQuestion, encoded: bool = False) -> DeskAnswer:
        """Answers one question from features."""
        started = time.perf_counter()
        localizer = self._localizer(question.gamma, question.weighting)
        if question.choose:
            question = replace(question, concept=self._most_likely(features, question.concept), choose=False)
        picture = self.gallery.read(entry).pixels if self._closer else None
        if picture is not None and not question.taught:  # what was taught is known on the cells of the first look
            features = self.localizer.look_again([features], [question.concept], [picture])[0]
        answers = localizer.score(features, question.concept)
        found = answers[0]
        cosines, weights, gram = _cosines(localizer, features, answers)
        taught, own = None, None
        if question.taught:
            taught = self.taught.get(question.taught)
            own = _prototype_map(localizer, features, found, taught, question.gamma, weights)
            found = replace(
                found, scores=((1 - question.mix) * found.scores + question.mix * own).astype(np.float32), split=None, certify=None
            )
        if picture is not None:
            found = self.localizer.refine(found, picture, features)
        regions = found.regions(question.threshold, min_area=question.min_area, resolution="model") if found.told else ()
        with self._lock:
            self.counts["answered"] += 1
        return DeskAnswer(
            entry=entry,
            question=question,
            found=found,
            regions=rank_regions(regions, features, question.clicks)[:REGIONS],
            cosines=cosines,
            weights=weights,
            gram=gram,
            prototype=own,
            taught=taught,
            call=self._call(entry, question, features, found, cosines),
            unknown_words=self._unknown(found.concept),
            encoded=encoded,
            seconds=time.perf_counter() - started,
            notes=self._notes.get(entry.id, ()),
            version=_name_of(self._encoded_of.get(entry.id)),
        )

    def _localizer(self, gamma: float, weighting: str) -> Localizer:
        """Returns the localizer that scores cells with these settings; the last ones are kept with the directions that they remember."""
        key = (gamma, weighting)
        with self._lock:
            if key not in self._localizers:
                own = {"gamma": gamma, "weighting": weighting, "refine": "none", "look_again": False}
                self._localizers[key] = self.localizer.with_settings(**own)
                while len(self._localizers) > 16:
                    self._localizers.popitem(last=False)
            self._localizers.move_to_end(key)
            return self._localizers[key]

    def _plain(self) -> Localizer:
        """The same with the settings that nobody changed."""
        return self._localizer(self.localizer.settings.gamma, self.localizer.settings.weighting)

    def _unknown(self, concept: Concept) -> tuple[str, ...]:
        """Returns the words that the model never saw; taking phrases apart costs more than scoring, so the last answers are kept."""
        with self._lock:
            known = self._words.get(concept)
        if known is None:
            known = self.localizer.unknown_words([concept])
            with self._lock:
                self._words[concept] = known
                while len(self._words) > 256:
                    self._words.popitem(last=False)
        return known

    def _most_likely(self, features: PatchFeatures, concept: Any) -> Any:
        """Returns the concept of the state with the highest probability; its siblings are its contrasts."""
        metadata = concept.metadata
        siblings = self._concepts_of(self.packs[metadata["pack"]], metadata["character"])
        # What is absent is nowhere: there the question stays that of the state that can be seen.
        if metadata["kind"] == "presence" or len(siblings) < 2:
            return siblings[0]
        answers = self._plain().score(features, siblings)
        return max(answers, key=lambda answer: answer.probability or 0.0).concept

    def _call(
        self, entry: GalleryPicture, question: AskedQuestion, features: PatchFeatures, found: Localization, cosines: np.ndarray
    ) -> dict[str, Any]:
        """What is called: what the run says where there is one, else what annotate would say."""
        pack, character, part = question.subject
        record = self.gallery.calls(entry).get((pack, character, entry.specimen, part))
        if record is not None:
            return call_of_run(record)
        host, absent = None, False
        if pack:
            host, absent = self.host_probability(features, pack), self._is_absent(question, features, found)
        return call_now(question, found, cosines, self.localizer.backbone.logit_scale, self.limits, host, absent)

    def _is_absent(self, question: AskedQuestion, features: PatchFeatures, found: Localization) -> bool:
        """Whether the part that is asked about, or that a character's states are told of, is not in the picture, as `annotate` tells it."""
        pack, character, part = question.subject
        # A part that was taught is no longer the words' alone: what was measured of those says nothing of it.
        if not part:
            return self._is_nowhere(pack, self.packs[pack].character(character), features)
        return found.certify is not None and self._certified_absent(found.concept, features)

    def _is_nowhere(self, pack: str, character: prompts.Character, features: PatchFeatures) -> bool:
        """Whether what a character's states are told of is not in the picture: by its certificate, or by the call of what it needs."""
        told_of = self._entity_of(pack, character.name)
        if told_of is not None and self._certified_absent(told_of, features):
            return True
        needed = self.packs[pack].needed_by(character)
        if needed is None:
            return False
        (answer,) = self._plain().score(features, [call_concept(self.packs[pack], needed)])
        names, nowhere = [state.name for state in needed.states], self._is_nowhere(pack, needed, features)
        limit = self.limits.of(pack, needed.name)
        return lacks(call_state(names, answer.probabilities, [answer.score] * len(names), limit, absent=nowhere))

    def _certified_absent(self, concept: Concept, features: PatchFeatures) -> bool:
        """Whether the certificate of a concept, asked with the settings that nobody changed, says that it is not in the picture."""
        (plain,) = self._plain().score(features, [concept])
        return plain.certify is not None and is_absent(plain.certificate)

    def _entity_of(self, pack: str, character: str) -> Concept | None:
        """The concept of the pack's part that a character's states are told of; ``None`` where the pack has no such part."""
        if (pack, character) not in self._entities:
            concept = entity_concept(self.packs[pack], self.packs[pack].character(character))
            self._entities[pack, character] = concept if concept is not None and concept.metadata.get("kind") == "part" else None
        return self._entities[pack, character]

    def standing(self) -> list[Correction]:
        """Returns the corrections that count; where an earlier release kept one, the run says why its call was not made."""
        found, calls = [], self.gallery.all_calls()
        for item in self.corrections.standing():
            record = calls.get(item.source, {}).get((item.pack, item.character, item.specimen, item.part), {})
            found.append(replace(item, abstained_because=item.abstained_because or record.get("abstained_because") or ""))
        return found

    def states_of(self, entry: GalleryPicture, question: AskedQuestion) -> tuple[str, ...]:
        """Returns what a correction may say of a character: its states, in the pack and in the run; a part alone; nothing for words."""
        pack, character, part = question.subject
        if not question.character or part:
            return (part,) if part else ()
        record = self.gallery.calls(entry).get((pack, character, entry.specimen, ""), {})
        return tuple(
            dict.fromkeys([*(state.name for state in self.packs[pack].character(character).states), *(record.get("probabilities") or ())])
        )

    def host_is_missing(self, features: PatchFeatures, concept: Concept) -> bool:
        """Tells whether a concept is a pack's, and the picture shows something else than what that pack is about."""
        pack = concept.metadata.get("pack")
        return pack in self.packs and host_is_missing(self.host_probability(features, str(pack)), self.limits)

    def host_probability(self, features: PatchFeatures, pack: str) -> float:
        """Returns the probability that a picture shows what a pack is about."""
        if pack not in self._hosts:
            self._hosts[pack] = host_concept(self.packs[pack], self.localizer.backbone.unknown_words)
        return host_probability(self._plain(), features, self._hosts[pack])

    def warm_up(self) -> None:
        """Loads what the first answer would load: libraries and the text tower."""
        from concept_cam.pictures.reading import Picture

        rows, columns = np.mgrid[:64, :64]
        speckled = np.stack([rows * 4, columns * 4, (rows * columns) % 256], axis=-1).astype(np.uint8)
        features = self.localizer.encode(Picture(speckled))
        self.answer(
            GalleryPicture("", "", None), features, read_question({"target": "a fish", "contrasts": ["a leaf"], "threshold": "mean"}, {})
        ).to_dict()

    # ----------------------------------------------------------------------------------------------------- embeddings

    def uncertainty(self, question: AskedQuestion) -> dict[str, float]:
        """Returns how unsure the model is of each picture it saw, 0..1: one less the margin between the two likeliest states; by id.

        In a run the run's own margins count.
        """
        pack, character, part = question.subject
        found: dict[str, float] = {}
        for source, calls in self.gallery.all_calls().items():
            for (own_pack, own_character, specimen, own_part), record in calls.items():
                entry = self.gallery.by_specimen(source, specimen)
                if entry is not None and (own_pack, own_character, own_part) == (pack, character, part):
                    found[entry.id] = 1.0 - float(np.clip(record["margin"] if record["margin"] is not None else 0.0, 0.0, 1.0))
        if found or not question.concept.rivals:
            return found
        images = self.image_embeddings()
        if not images:
            return {}
        texts = self.localizer.directions([question.concept])
        stacked = torch.stack(list(images.values())).to(texts.texts.device)
        backbone = self.localizer.backbone
        shares = probabilities(stacked, texts, scales_of([question.concept], backbone.logit_scale, backbone.sharpness))[:, 0]
        best = shares.topk(2, dim=-1).values
        return dict(zip(images, (1 - (best[:, 0] - best[:, 1])).tolist()))


def _name_of(version: tuple[int, int] | None) -> str:
    """A version's name for clients, who need not know when a file was written."""
    return "" if version is None else hashlib.sha256(repr(version).encode()).hexdigest()[:12]


def _is_of(kept: tuple[int, int] | None, version: tuple[int, int] | None) -> bool:
    """Whether what is kept is of this version of a file; of a file that cannot be reached just now what is kept is all there is."""
    return version is None or kept == version


def _cosines(localizer: Localizer, features: PatchFeatures, answers: Localizations) -> tuple[np.ndarray, tuple[float, ...], np.ndarray]:
    """Returns the similarity of each patch with each text, float32 [1 + R, h, w], ``pi`` and the texts' Gram matrix: none depends on
    gamma.
    """
    with torch.inference_mode():
        texts = localizer.directions(answers.concepts)
        rows = texts.columns[0][texts.used[0]]
        vectors = texts.texts[rows]
        if isinstance(answers.split, SecondLook):
            maps = answers.split.cosines(0)
        else:
            maps = ledger(features.patches, vectors, vectors.new_ones(len(vectors)), localizer.settings.feature_norm).cpu().numpy()
        terms = coefficients(
            texts, features.image[None], weighting=localizer.settings.weighting, gamma=1.0, logit_scale=localizer.backbone.logit_scale
        )
        gram = vectors @ vectors.T
    return maps, tuple(-float(value) for value in terms[0, 0, 1:]), gram.cpu().numpy()


def _prototype_map(
    localizer: Localizer, features: PatchFeatures, found: Localization, taught: Taught, gamma: float, weights: Sequence[float]
) -> np.ndarray:
    """Returns the map of a prototype as long as the words' direction, float32 [h, w]; NaN in padding."""
    if taught.weights_hash != localizer.backbone.weights_hash:
        raise ConfigurationError(f"{taught.name!r} was taught on other weights ({taught.weights_hash}): teach it again.")
    with torch.inference_mode():
        texts = localizer.directions([found.concept])
        vectors = texts.texts[texts.columns[0][texts.used[0]]]
        words = vectors[0] - gamma * (torch.tensor(weights, device=vectors.device)[:, None] * vectors[1:]).sum(dim=0)
        direction = F.normalize(taught.vector.to(vectors.device), dim=-1) * words.norm()
        scores = ledger(features.patches, direction[None], direction.new_ones(1), localizer.settings.feature_norm)[0].cpu().numpy()
    return np.where(np.isfinite(found.scores), scores, np.float32(np.nan))


def rank_regions(regions: Sequence[Region], features: PatchFeatures, clicks: Sequence[tuple[float, float, int]]) -> tuple[Region, ...]:
    """Orders regions by clicks: those with a "this" first, those with a "not this" last, the others by how far they resemble the clicked
    patches.

    Resemblance is the mean cosine of a region's best patch with the "this" patches, less that with the "not this" patches. Without clicks,
    and where these tell regions not apart, the order of :meth:`concept_cam.core.results.Localization.regions` stays: that of the peak
    first, then the largest.
    """
    if not clicks or not regions:
        return tuple(regions)
    groups = {sign: click_vectors(features, [(x, y) for x, y, own in clicks if own == sign]) for sign in (1, -1)}
    cell_y, cell_x = features.geometry.cell_original

    def holds(mask: np.ndarray, x: float, y: float) -> bool:
        reach_x, reach_y = max(1, int(CLICK_RADIUS * cell_x)), max(1, int(CLICK_RADIUS * cell_y))
        left, top = max(0, int(x) - reach_x), max(0, int(y) - reach_y)
        return bool(mask[top : max(0, int(y) + reach_y + 1), left : max(0, int(x) + reach_x + 1)].any())

    def rank(region: Region) -> tuple[float, float]:
        mask = decode_rle(region.rle)
        exact = sum(sign for x, y, sign in clicks if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[int(y), int(x)])
        near = exact or sum(sign for x, y, sign in clicks if holds(mask, x, y))
        own = click_vectors(features, [region.peak])
        like = sum(sign * float((own @ group.T).mean()) for sign, group in groups.items() if len(group) and len(own))
        return -float(np.sign(near)), -like

    return tuple(sorted(regions, key=rank))


def _region(region: Region) -> dict[str, Any]:
    return {
        "box": list(region.box),
        "area": region.area,
        "peak": list(region.peak),
        "peak_score": _number(region.peak_score),
        "mean_score": _number(region.mean_score),
        "measures": {name: _number(value) for name, value in region.measures.items()},
        "contours": [np.round(contour, 1).tolist() for contour in region.contours],
    }


def certificate_of(found: Localization) -> dict[str, Any] | None:
    """Returns a localisation's certificate as plain data; ``None`` where it has none, as for what was taught."""
    return None if found.certify is None else plain_json(found.certificate.to_dict())


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")
