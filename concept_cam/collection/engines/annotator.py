"""What all engines share: the worker that takes pictures through the model, and the protocol between an engine and the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from concept_cam.collection.inputs.items import Item
from concept_cam.collection.keeping import Kept, keep, kept_table
from concept_cam.collection.plan import Plan
from concept_cam.collection.reading import Crop, Loaded, load_item, prepare_crop
from concept_cam.collection.records import Scored, records_of_all
from concept_cam.core.errors import ImageError, reason_of

if TYPE_CHECKING:
    import pyarrow as pa

    from concept_cam.core.features import PatchFeatures
    from concept_cam.core.results import Localizations
    from concept_cam.index.index import Index
    from concept_cam.localizer import Localizer
    from concept_cam.trust.certified import Certificate

__all__ = ["Annotator", "Answers", "Done", "Engine", "Options", "answers_of"]


@dataclass(frozen=True)
class Done:
    """One picture that was dealt with.

    Attributes:
        source: The picture.
        path: Where it was read, if it is a file of its own.
        image_key: Its stable id.
        rows: Number of its records.
        errors: Why it, or a specimen of it, could not be used.
        first_page: Whether its file has further pages or frames, which are not read.
    """

    source: str
    path: str | None
    image_key: str
    rows: int
    errors: tuple[str, ...] = ()
    first_page: bool = False


@dataclass(frozen=True)
class Answers:
    """What came out of some pictures.

    Attributes:
        pictures: The pictures, in order.
        table: Their records, in the same order (:mod:`concept_cam.collection.schema`).
    """

    pictures: tuple[Done, ...]
    table: pa.Table


@dataclass(frozen=True)
class Options:
    """How an engine works; none of it changes results.

    Attributes:
        workers: Worker processes; ``None`` for as many as there are processors, 0 for none (everything in this process).
        ray_address: A Ray cluster that runs; ``None`` to start one here.
    """

    workers: int | None = None
    ray_address: str | None = None


class Engine(Protocol):
    """Takes pictures through reading, the model and measuring; yields answers in the order of the pictures.

    ``items`` is drawn from as needed, never all at once. After ``stop()`` is true, the batch in flight is finished and no other begun.
    Closing the iterator ends the engine at once.
    """

    def __call__(
        self,
        items: Iterable[Item],
        plan: Plan,
        localizer: Localizer,
        options: Options,
        stop: Callable[[], bool],
    ) -> Iterator[Answers]: ...


class Annotator:
    """The worker: one model, many pictures. Every engine runs this class.

    Args:
        localizer: Model and settings.
        plan: What is asked.
    """

    def __init__(self, localizer: Localizer, plan: Plan) -> None:
        self.localizer = localizer if plan.rules is None else localizer.with_rules(plan.rules)
        self.plan = plan
        self._cells = self.localizer.with_settings(refine="none", look_again=False)
        self._index: Index | None = None

    def __call__(self, items: Sequence[Item]) -> Answers:
        """Does everything for some pictures in this process."""
        return answers_of(self.score([load_item(item, self.plan) for item in items]), self.plan)

    def score(self, loaded: Sequence[Loaded]) -> list[tuple[Loaded, list[Any]]]:
        """Runs the model on pictures that were read: all crops share forward passes, all concepts are scored together.

        A crop on which the model fails (NaN) becomes an error of its picture.
        """
        for found in loaded:
            found.say()
        flat = [(position, crop) for position, found in enumerate(loaded) for crop in found.crops]
        results: list[tuple[Loaded, list[Any]]] = [(found, []) for found in loaded]
        for (position, crop), outcome in zip(flat, self._maps([crop for _, crop in flat])):
            found, scored = results[position]
            if isinstance(outcome, ImageError):
                results[position] = (replace(found, errors=(*found.errors, str(outcome))), scored)
            else:
                if isinstance(outcome, Kept):
                    scored.append(outcome)
                    continue
                own = (found.item, found.sha256, crop.number, crop.box, crop.specimen, crop.frame)
                scored.append(Scored(*own, hidden=crop.hidden, **outcome))
        return results

    def _maps(self, crops: Sequence[Crop]) -> list[Any]:
        if not crops:
            return []
        try:
            features, valids = self._features(crops)
            if self.plan.closer:
                asked = self.localizer.phrased(self.plan.questions.placed)
                features = self.localizer.look_again(features, asked, [crop.closest for crop in crops], valids, steady=True)
        except (ImageError, ArithmeticError, IndexError, MemoryError) as error:
            # One crop broke the model's output: find out which.
            return [ImageError(reason_of(error))] if len(crops) == 1 else [outcome for crop in crops for outcome in self._maps([crop])]
        if self.plan.codec is not None:
            return [keep(crop, encoded, valid, self.plan.codec) for crop, encoded, valid in zip(crops, features, valids)]
        concepts = self.localizer.phrased(self.plan.questions.concepts)
        # One by one: what a picture gets must not depend on which others are in the batch, or a run that was resumed would differ.
        answers = [self._cells.score(item, concepts) for item in features]
        texts = self.localizer.directions(concepts)
        outcomes = []
        for crop, valid, encoded, answer in zip(crops, valids, features, answers):
            cells = valid.repeat(answer.seen, axis=0).repeat(answer.seen, axis=1)
            # Padding is not read as it is.
            unread = answer.geometry.valid() & ~cells
            scores = np.where(unread, np.float32(np.nan), answer.scores) if unread.any() else answer.scores
            shares = answer.probabilities  # of parts at their best cells already
            if scores is not answer.scores or answer.places:
                shares = self.localizer.local_shares(encoded.patches, texts, scores, shares, self.plan.questions.parts, answer.split)
            certificates = self._certificates(answer, shares, valid) if np.isfinite(scores).any() else {}
            outcomes.append(
                {
                    "geometry": answer.geometry,
                    "scores": scores,
                    "image_scores": answer.image_scores,
                    "probabilities": shares,
                    "certificates": certificates,
                    "places": answer.places,
                    "cell": encoded.geometry.cell_original,
                    "refined": self._refined(crop, replace(answer, scores=scores), encoded),
                }
            )
        return outcomes

    def _refined(self, crop: Crop, answer: Localizations, features: PatchFeatures) -> dict[int, np.ndarray]:
        """Refines the maps that regions are drawn from, by concept; none where none is asked for."""
        if self.plan.settings.refine == "none":
            return {}
        outlined = self.plan.questions.outlined
        found = self.localizer.refine(replace(answer, scores=answer.scores[list(outlined)]), crop.closest, features).refined
        return {} if found is None else dict(zip(outlined, found))

    def _features(self, crops: Sequence[Crop]) -> tuple[list[PatchFeatures], list[np.ndarray]]:
        """Returns the features of crops and where the model looked: from the model, or from the index that holds them."""
        if self.plan.index is None:
            prepared = [prepare_crop(crop, self.plan) for crop in crops]
            return self.localizer.encode_prepared(prepared, steady=True), [item.valid for item in prepared]
        if self._index is None:
            from concept_cam.index.index import Index

            self._index = Index.open(self.plan.index)
        entries = [crop.entry for crop in crops if crop.entry is not None]
        return [self._index.features(entry) for entry in entries], [self._index.valid(entry) for entry in entries]

    def _certificates(self, answer: Localizations, shares: np.ndarray, valid: np.ndarray) -> dict[int, Certificate]:
        """Certifies the maps that a record is made of: every part's, and of each character its part's and the best state's."""
        from concept_cam.trust.certificate import Certifier

        if not isinstance(answer.certify, Certifier):
            return {}
        return answer.certify.within(valid).of(self.plan.questions.certified(shares))


def answers_of(scored: Sequence[tuple[Loaded, list[Any]]], plan: Plan) -> Answers:
    """Makes calls and measures for pictures that the model has seen; needs no model."""
    from concept_cam.collection.schema import PASSTHROUGH_PREFIX, image_key, table_from_records

    def table_of(rows: list[dict[str, Any]]) -> pa.Table:
        names = dict.fromkeys(name for row in rows for name in row if name.startswith(PASSTHROUGH_PREFIX))
        return table_from_records(rows, [name.removeprefix(PASSTHROUGH_PREFIX) for name in names])

    def done(found: Loaded, rows: int, errors: tuple[str, ...]) -> Done:
        name = found.item.identity
        return Done(name, found.item.path, image_key(name), rows, errors, found.first_page)

    if plan.codec is not None:
        return Answers(tuple(done(found, len(crops), found.errors) for found, crops in scored), kept_table(scored, plan))
    pictures, rows, own_rows = [], [], []
    for (found, _), outcome in zip(scored, _rows(scored, plan)):
        own = [] if isinstance(outcome, Exception) else outcome
        if isinstance(outcome, Exception):
            found = replace(found, errors=(*found.errors, reason_of(outcome)))
        rows += own
        own_rows.append(own)
        pictures.append(done(found, len(own), found.errors))
    try:
        return Answers(tuple(pictures), table_of(rows))
    except Exception:  # a value that no table can hold: find out whose
        kept: list[dict[str, Any]] = []
        for position, ((found, _), own) in enumerate(zip(scored, own_rows)):
            try:
                table_of(own)
                kept += own
            except Exception as error:
                pictures[position] = done(found, 0, (*pictures[position].errors, reason_of(error)))
        return Answers(tuple(pictures), table_of(kept))


def _rows(scored: Sequence[tuple[Loaded, list[Scored]]], plan: Plan) -> list[list[dict[str, Any]] | Exception]:
    """The rows of each picture, or what went wrong: in one pass, and where that fails one by one, to find out whose fault it is."""
    crops = [crop for _, own in scored for crop in own]
    try:
        rows = iter(records_of_all(crops, plan))
        return [[row for _ in own for row in next(rows)] for _, own in scored]
    except Exception as error:  # whatever it is, it is one picture's
        return [error] if len(scored) == 1 else [found for one in scored for found in _rows([one], plan)]
