"""Measures methods on a data set whose answers are known: :func:`evaluate` -> :class:`concept_cam.evaluation.report.Report`."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError, ImageError
from concept_cam.core.names import choose
from concept_cam.evaluation import metrics
from concept_cam.evaluation.baselines import BASELINES
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.evaluation.observations import METRICS, Observation, RowRecord, Scene, ShownExample
from concept_cam.evaluation.randomisation import randomised
from concept_cam.evaluation.report import Report

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer
    from concept_cam.pictures.reading import ImageSource, Picture

__all__ = [
    "DEFAULT_GROUPS",
    "GROUPS",
    "SUBJECT",
    "Configuration",
    "Truth",
    "configurations",
    "evaluate",
    "question_metrics",
]

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float64]

SUBJECT = Concept(("the main subject",), name="main subject")
"""Control prompt: a map that equals this one's has found the subject and not what was asked for."""

BOX_THRESHOLDS = np.linspace(0.0, 0.95, 20)
IOU_STEPS = np.sinh(np.linspace(-4.0, 4.0, 161))
"""Thresholds of the common-threshold IoU, in standard deviations of the first picture's maps about their mean."""


@dataclass(frozen=True)
class Configuration:
    """One row of the table: a method and how it is used.

    Attributes:
        method: Localisation method, or name of a baseline.
        attention: Dense attention strategy; empty for baselines.
        gamma: Comparison strength; ``None`` for baselines.
        label: Short name of a method that names a file; empty for the others.
    """

    method: str
    attention: str = ""
    gamma: float | None = None
    label: str = ""

    @property
    def baseline(self) -> bool:
        """Whether no model is asked."""
        return self.gamma is None

    @property
    def name(self) -> str:
        """Name in tables, such as ``direct · value · gamma 1``."""
        if self.gamma is None:
            return self.method
        return " · ".join(
            [
                self.label or self.method,
                *([self.attention] if self.attention not in ("", "auto") else []),
                f"gamma {self.gamma:g}",
            ]
        )


def configurations(
    methods: Sequence[str], attentions: Sequence[str], gammas: Sequence[float], baselines: Sequence[str]
) -> tuple[Configuration, ...]:
    """Lists the rows of a table.

    Attention strategies belong to the direct method; other methods have one row per gamma. Every method that uses contrasts also gets a row
    at gamma 0, without them, for the gain of the contrast is measured against it.

    Raises:
        ConfigurationError: An unknown method or baseline, or nothing at all.
    """
    from concept_cam.methods import find_method

    strengths = tuple(dict.fromkeys((*map(float, gammas), 0.0)))
    labels = _labels(methods)
    rows: list[Configuration] = []
    for method in methods:
        read = attentions if method == "direct" else ("auto",)
        asked = strengths if find_method(method).contrast else strengths[:1]
        rows += [Configuration(method, attention, gamma, labels.get(method, "")) for attention, gamma in product(read, asked)]
    rows += [Configuration(choose(name, {key: key for key in BASELINES}, "baseline")) for name in baselines]
    if not rows:
        raise ConfigurationError("nothing to evaluate: give at least one method or baseline.")
    return tuple(dict.fromkeys(rows))


def _labels(methods: Sequence[str]) -> dict[str, str]:
    """Names methods that read a file after the file's stem, where that tells them apart."""
    short = {method: f"{name}:{Path(argument).stem}" for method in methods for name, colon, argument in [method.partition(":")] if colon}
    return {method: label for method, label in short.items() if list(short.values()).count(label) == 1}


# --------------------------------------------------------------------------------------------------------------- answers


class MeasuredAnswer(Protocol):
    """What is measured of a localisation; :class:`concept_cam.core.results.Localization` has it all."""

    @property
    def heatmap(self) -> Array: ...
    @property
    def scores(self) -> Array: ...
    @property
    def score(self) -> float: ...
    @property
    def probabilities(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class _Blind:
    """A baseline's answer: a map and nothing else."""

    heatmap: Array
    score: float = float("nan")
    probabilities: tuple[float, ...] = ()

    @property
    def scores(self) -> Array:
        """Every eighth pixel: what a model's grid would keep."""
        return self.heatmap[::8, ::8]


class _RowAsker:
    """Answers questions with one configuration; the direct method encodes each picture once for all gammas of an attention."""

    def __init__(self, configuration: Configuration, localizer: Localizer | None, cache: dict[tuple[str, int], Any]) -> None:
        self.configuration = configuration
        self._cache = cache
        self._localizer = None
        if localizer is not None and not configuration.baseline:
            self._localizer = localizer.with_settings(attention=configuration.attention, gamma=configuration.gamma)

    def __call__(
        self, picture: Picture, concepts: Sequence[Concept], host: Array | None, key: str
    ) -> tuple[Sequence[MeasuredAnswer], float]:
        """Returns the answers and the seconds that they took; a shared encoding counts in full for every row."""
        if self._localizer is None:
            start = time.perf_counter()
            make = BASELINES[self.configuration.method]
            shared = None if self.configuration.method == "random" else make(picture.pixels, host, key)
            maps = [make(picture.pixels, host, f"{key} {concept.name}") if shared is None else shared for concept in concepts]
            return [_Blind(values) for values in maps], time.perf_counter() - start
        start = time.perf_counter()
        if self.configuration.method != "direct":
            answers = list(self._localizer.locate_all([picture], concepts, method=self.configuration.method)[0])
            return answers, time.perf_counter() - start
        place = (self.configuration.attention, id(picture))
        if place not in self._cache:
            self._cache[place] = (self._localizer.encode(picture), time.perf_counter() - start)
        features, encoding = self._cache[place]
        start = time.perf_counter()
        answers = list(self._localizer.score(features, list(concepts), picture))
        return answers, encoding + time.perf_counter() - start


# ----------------------------------------------------------------------------------------------------------------- truth


@dataclass(frozen=True)
class Truth:
    """A question's masks, read once for all rows, thinned to at most ``max_side``.

    Attributes:
        question: The question.
        mask: [H', W'] or ``None``.
        host: bool [H', W'] or ``None``.
        difference: [H', W'] or ``None``.
        step: One pixel in so many was kept, along each axis.
    """

    question: SampleQuestion
    mask: Array | None
    host: Array | None
    difference: Array | None
    step: int

    @classmethod
    def read(cls, question: SampleQuestion, size: tuple[int, int], max_side: int, hosts: dict[Any, Array | None]) -> Truth:
        """Reads the masks of one question; hosts shared by several questions are read once."""
        step = -(-max(size) // max_side)

        def take(load: Callable[[], Array] | None, what: str) -> Array | None:
            if load is None:
                return None
            values = np.asarray(load())
            if values.shape != size:
                raise DataError(
                    f"the {what} of {question.concept.name!r} is {values.shape}, its picture {size} (rows, columns of the upright picture)."
                )
            return values[::step, ::step]

        key = question.host
        if key not in hosts:
            host = take(key, "host mask")
            hosts[key] = None if host is None else metrics.split_mask(host)[0]
        return cls(
            question,
            take(question.mask, "mask"),
            hosts[key],
            take(question.difference, "difference mask"),
            step,
        )

    def thin(self, heatmap: Array) -> Array:
        """Returns the map at the masks' pixels."""
        return heatmap[:: self.step, :: self.step]


# --------------------------------------------------------------------------------------------------- metrics per question


def question_metrics(
    answer: MeasuredAnswer, truth: Truth, thresholds: Float | None, groups: Sequence[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures one answer against its truth.

    Args:
        answer: Map and image-level numbers.
        truth: Masks.
        thresholds: Common thresholds of this row, for the IoU at a fixed one.
        groups: Keys of :data:`GROUPS`.

    Returns:
        Metric -> value, and what is pooled over the data set later (curves and counts).
    """
    values: dict[str, float] = {}
    pooled: dict[str, Any] = {}
    for group in groups:
        GROUPS[group](answer, truth, thresholds, values, pooled)
    return values, pooled


def _localisation(answer: MeasuredAnswer, truth: Truth, thresholds: Float | None, values: dict[str, float], pooled: dict[str, Any]) -> None:
    if truth.mask is None:
        return
    heatmap, mask = truth.thin(answer.heatmap), truth.mask
    scene = Scene(heatmap, mask, None if truth.question.kind == "object" else truth.host)
    for name, metric in METRICS.items():
        if metric.measure is not None and not (metric.needs_host and scene.host is None):
            values[name] = metric.measure(scene)
    if thresholds is not None:
        pooled["iou_curve"] = metrics.iou_curve(heatmap, mask, thresholds)


def _counterfactual(
    answer: MeasuredAnswer, truth: Truth, thresholds: Float | None, values: dict[str, float], pooled: dict[str, Any]
) -> None:
    if truth.difference is None:
        return
    heatmap = truth.thin(answer.heatmap)
    values["ap_difference"] = metrics.average_precision(heatmap, truth.difference)
    values["auroc_difference"] = metrics.auroc(heatmap, truth.difference)
    values["energy_difference"] = metrics.energy_pointing_game(heatmap, truth.difference)


def _calls(answer: MeasuredAnswer, truth: Truth, thresholds: Float | None, values: dict[str, float], pooled: dict[str, Any]) -> None:
    question = truth.question
    peak = float(np.nanmax(answer.scores)) if np.isfinite(answer.scores).any() else float("nan")
    if question.kind == "state" and len(answer.probabilities) > 1:
        shares = np.asarray(answer.probabilities)
        best = shares == shares.max()
        values["state_accuracy"] = float(best[0] / best.sum())
    if question.kind == "presence":
        pooled["presence"] = [(question.present, answer.score, peak)]


def _points(answer: MeasuredAnswer, truth: Truth, thresholds: Float | None, values: dict[str, float], pooled: dict[str, Any]) -> None:
    points = truth.question.points
    if points is None:
        return
    heatmap = answer.heatmap
    labels = np.asarray(points.labels, dtype=bool)
    at = np.floor(points.xy).astype(int)
    inside = (at >= 0).all(axis=1) & (at[:, 0] < heatmap.shape[1]) & (at[:, 1] < heatmap.shape[0])
    at, labels = at[inside], labels[inside]
    scores = heatmap[at[:, 1], at[:, 0]]
    seen = ~np.isnan(scores)
    values["point_auroc"] = metrics.auroc_from_scores(scores[seen & labels], scores[seen & ~labels])
    if labels.any() and not np.isnan(heatmap).all():
        y, x = np.unravel_index(int(np.nanargmax(heatmap)), heatmap.shape)
        distance = np.hypot(at[labels, 0] - x, at[labels, 1] - y).min()
        values["point_hit"] = float(distance <= points.tolerance)
    if thresholds is not None:
        counts = [metrics.point_counts(heatmap, at + 0.5, labels.astype(int), threshold) for threshold in thresholds]
        pooled["point_counts"] = np.asarray(counts)


def _boxes(answer: MeasuredAnswer, truth: Truth, thresholds: Float | None, values: dict[str, float], pooled: dict[str, Any]) -> None:
    if truth.mask is None:
        return
    heatmap, (target, _) = truth.thin(answer.heatmap), metrics.split_mask(truth.mask)
    rows, columns = np.flatnonzero(target.any(axis=1)), np.flatnonzero(target.any(axis=0))
    box = [(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)] if len(rows) else []
    pooled["box_curve"] = metrics.box_iou_curve(heatmap, box, BOX_THRESHOLDS)
    pooled["box_curve_all"] = metrics.box_iou_curve(heatmap, box, BOX_THRESHOLDS, components="all")
    if len(rows):
        pooled["pixel_counts"] = metrics.pixel_counts(metrics.minmax(heatmap), truth.mask, np.linspace(0, 1, 257)[1:-1])


def _elsewhere(answer: MeasuredAnswer, truth: Truth, thresholds: Float | None, values: dict[str, float], pooled: dict[str, Any]) -> None:
    """Groups that need more than one answer are measured per picture."""


GROUPS: dict[str, Callable[[MeasuredAnswer, Truth, Float | None, dict[str, float], dict[str, Any]], None]] = {
    "localisation": _localisation,
    "counterfactual": _counterfactual,
    "calls": _calls,
    "points": _points,
    "control": _elsewhere,
    "boxes": _boxes,
    "faithfulness": _elsewhere,
    "randomisation": _elsewhere,
}
"""Groups of metrics; :data:`concept_cam.evaluation.report.METRICS` says what each metric is."""

DEFAULT_GROUPS = ("localisation", "counterfactual", "calls", "points", "control")
"""What is measured unless something else is asked for; ``boxes`` is slow, ``faithfulness`` asks the model many more times and
``randomisation`` every question twice."""


# ---------------------------------------------------------------------------------------------------- metrics per picture


@dataclass(frozen=True)
class _Parts:
    """The parts of one picture, prepared once for all rows.

    Attributes:
        rows: Numbers of the questions, length P.
        flat: float32 [P, H' * W'] masks.
        rivals: For each part the parts that compete with it: those that do not lie within it.
    """

    rows: tuple[int, ...]
    flat: npt.NDArray[np.float32]
    rivals: tuple[npt.NDArray[np.int64], ...]

    @classmethod
    def of(cls, truths: Sequence[Truth]) -> _Parts:
        masks = {
            i: metrics.split_mask(truth.mask)[0]
            for i, truth in enumerate(truths)
            if truth.question.kind == "part" and truth.mask is not None
        }
        masks = {i: mask for i, mask in masks.items() if mask.any()}
        if len(masks) < 2:
            return cls((), np.zeros((0, 0), dtype=np.float32), ())
        flat = np.stack([mask.ravel() for mask in masks.values()]).astype(np.float32)
        within = flat @ flat.T >= 0.5 * flat.sum(axis=1)
        rivals = tuple(np.flatnonzero(~within[place]) for place in range(len(masks)))
        return cls(tuple(masks), flat, rivals)

    def own(self, answers: Sequence[MeasuredAnswer], truths: Sequence[Truth]) -> dict[int, float]:
        """Is each part's map on average higher on its own part than on any rival?

        Returns:
            Number of the question -> 1, 0, or the share among ties; parts without a rival are left out.
        """
        if not self.rows:
            return {}
        maps = np.stack([np.asarray(truths[i].thin(answers[i].heatmap), dtype=np.float32).ravel() for i in self.rows])
        known = np.isfinite(maps)
        # Rows are maps, columns masks; NaN pixels weigh nothing.
        sums = np.where(known, maps, 0) @ self.flat.T
        weights = known.astype(np.float32) @ self.flat.T
        means = np.divide(sums, weights, out=np.full(sums.shape, -np.inf, dtype=np.float32), where=weights > 0)
        result: dict[int, float] = {}
        for place, i in enumerate(self.rows):
            rivals, own = self.rivals[place], means[place, place]
            if weights[place, place] == 0 or not len(rivals):
                continue
            best = means[place, rivals].max()
            tied = int(np.sum(means[place, rivals] == best))
            result[i] = 1.0 if own > best else (1 / (1 + tied) if own == best else 0.0)
        return result


def _dependence(
    answers: Sequence[MeasuredAnswer], controls: Sequence[MeasuredAnswer], truths: Sequence[Truth], key: str
) -> dict[int, dict[str, float]]:
    """Rank correlation of every map with that of the host noun, of "the main subject", and of another trait in the same picture."""
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    result: dict[int, dict[str, float]] = {}
    for i, truth in enumerate(truths):
        if truth.question.kind == "object":
            continue
        maps = {"host": controls[0].scores, "subject": controls[1].scores}
        siblings = [j for j, other in enumerate(truths) if other.question.trait != truth.question.trait and other.question.kind != "object"]
        if siblings:
            maps["sibling"] = answers[int(generator.choice(siblings))].scores
        found = metrics.prompt_dependence(answers[i].scores, maps)
        result[i] = {f"rank_{name}": value for name, value in found.rank.items()} | {"dependence": found.dependence}
    return result


def _twin_values(answer: MeasuredAnswer, other: MeasuredAnswer, truth: Truth, pooled: dict[str, Any]) -> dict[str, float]:
    """Does the picture that has the state score higher than its twin that has not?"""

    def wins(a: float, b: float) -> float:
        return float("nan") if np.isnan(a) or np.isnan(b) else float(a > b) + 0.5 * float(a == b)

    values = {"twin_accuracy": wins(answer.score, other.score)}
    if truth.difference is not None:
        where = metrics.split_mask(truth.difference)[0]
        here, there = truth.thin(answer.heatmap)[where], truth.thin(other.heatmap)[where]
        values["twin_map_accuracy"] = wins(float(np.nanmean(here)), float(np.nanmean(there))) if not np.isnan(here).all() else float("nan")
    if truth.question.kind == "presence" and "presence" in pooled:
        peak = float(np.nanmax(other.scores)) if np.isfinite(other.scores).any() else float("nan")
        pooled["presence"] = [*pooled["presence"], (False, other.score, peak)]
    return values


def _faithfulness(answer: MeasuredAnswer, question: SampleQuestion, picture: Picture, localizer: Localizer) -> dict[str, float]:
    """Asks the model again about perturbed pictures; confidence is the softmax over target and contrasts."""
    if len(answer.probabilities) < 2 or np.isnan(answer.heatmap).all():
        return {}
    rival = 1 + int(np.argmax(answer.probabilities[1:]))
    plain = localizer.with_settings(refine="none", look_again=False)  # only the probabilities of the whole picture are wanted

    def shares(images: Array) -> Float:
        found = plain.score(plain.encode([*images]), [question.concept])
        return np.asarray([item[0].probabilities for item in found], dtype=np.float64)

    def confidence(images: Array) -> Float:
        return np.asarray(shares(images)[:, 0])

    image, heatmap = picture.pixels, answer.heatmap
    shown = metrics.drop_and_increase(image, heatmap, confidence)
    return {
        "drop_5": metrics.relative_confidence_drop(image, heatmap, shares, 0, rival, 0.05),
        "drop_10": metrics.relative_confidence_drop(image, heatmap, shares, 0, rival, 0.10),
        "deletion": metrics.deletion_auc(image, heatmap, confidence, steps=10),
        "insertion": metrics.insertion_auc(image, heatmap, confidence, steps=10),
        "average_drop": shown.drop,
        "average_increase": shown.increase,
    }


# ------------------------------------------------------------------------------------------------------------- the whole


@dataclass
class _Row:
    """What is gathered for one configuration while the data set is gone through."""

    asker: _RowAsker
    randomised: _RowAsker | None = None
    setup_seconds: float = 0.0
    thresholds: Float | None = None
    seconds: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)


def evaluate(
    dataset: Dataset,
    localizer: Localizer | None,
    *,
    methods: Sequence[str] = ("direct",),
    attentions: Sequence[str] = ("auto",),
    gammas: Sequence[float] = (1.0,),
    baselines: Sequence[str] = tuple(BASELINES),
    groups: Sequence[str] = DEFAULT_GROUPS,
    examples: int = 8,
    max_side: int = 1024,
    draws: int = 1000,
    seed: int = 0,
    setup_seconds: float = 0.0,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] | None = None,
) -> Report:
    """Measures methods on the same pictures, questions and weights.

    Pictures are gone through once, so memory does not grow with their number. A picture that cannot be read is left out of all rows and
    listed in the report; one of which nothing is asked is left out and counted; masks that do not fit their picture are an error.

    Args:
        dataset: Pictures and questions with known answers.
        localizer: The model; may be ``None`` for baselines alone.
        methods: Names in :data:`concept_cam.methods.METHODS`; ``"direct"`` is the product's own.
        attentions: Dense attention strategies of the direct method.
        gammas: Comparison strengths; 0 is always added.
        baselines: Names in :data:`concept_cam.evaluation.baselines.BASELINES`.
        groups: Keys of :data:`GROUPS`.
        examples: Number of example questions kept with their maps, one per trait while there are enough.
        max_side: Larger maps and masks are measured at every n-th pixel, so that no side exceeds this.
        draws: Bootstrap samples of the intervals.
        seed: Of the bootstrap.
        setup_seconds: Seconds that loading the model took, added to every model row's set-up, as is the training of learned explainers.
        progress: Wraps the stream of samples, for a progress bar.

    Returns:
        The report.

    Raises:
        ConfigurationError: Unknown names, or methods without a localizer.
        DataError: No picture could be used, nothing is asked of any, or a mask does not fit.
    """
    for group in groups:
        choose(group, GROUPS, "group of metrics")
    if localizer is None and methods:
        raise ConfigurationError("methods need a model: give a localizer, or methods=() for baselines alone.")
    cache: dict[tuple[str, int], Any] = {}
    disordered: dict[tuple[str, int], Any] = {}
    twin = randomised(localizer, seed) if localizer is not None and "randomisation" in groups else None
    rows = [
        _Row(
            _RowAsker(item, localizer, cache),
            None if twin is None or item.baseline else _RowAsker(item, twin, disordered),
        )
        for item in configurations(methods, attentions, gammas, baselines)
    ]
    errors: list[dict[str, str]] = []
    shown: list[ShownExample] = []
    pictures = unasked = 0
    started = time.time()
    for sample in progress(dataset) if progress else dataset:
        if not sample.questions:
            # Not the first picture either, from whose maps the common thresholds come.
            unasked += 1
            continue
        try:
            picture = _read(sample.image, localizer)
            _measure(
                sample,
                picture,
                rows,
                dataset,
                groups,
                shown,
                examples,
                max_side,
                localizer,
                setup_seconds,
                first=pictures == 0,
            )
            pictures += 1
        except ImageError as error:
            errors.append({"picture": sample.name, "error": str(error)})
        finally:
            cache.clear()
            disordered.clear()
    if not pictures:
        idle = f" Nothing is asked of {unasked} pictures: they have neither parts nor states." if unasked else " The data set is empty."
        reason = f" The first error: {errors[0]['error']}" if errors else idle
        raise DataError(f"no picture of {dataset.name!r} could be used.{reason}")
    return Report.build(
        records=[
            RowRecord(
                name=row.asker.configuration.name,
                method=row.asker.configuration.method,
                attention=row.asker.configuration.attention,
                gamma=row.asker.configuration.gamma,
                setup_seconds=row.setup_seconds,
                seconds_per_image=float(np.median(row.seconds)),
                seconds_per_concept=float(np.median(np.asarray(row.seconds) / np.asarray(row.counts))),
                thresholds=row.thresholds,
                observations=tuple(row.observations),
            )
            for row in rows
        ],
        examples=shown,
        errors=errors,
        draws=draws,
        seed=seed,
        facts=_facts(dataset, localizer, groups, pictures, unasked, max_side, time.time() - started),
    )


def _read(image: ImageSource, localizer: Localizer | None) -> Picture:
    from concept_cam.pictures.reading import read_image

    return read_image(image) if localizer is None else localizer.read(image)


def _measure(
    sample: Sample,
    picture: Picture,
    rows: Sequence[_Row],
    dataset: Dataset,
    groups: Sequence[str],
    shown: list[ShownExample],
    examples: int,
    max_side: int,
    localizer: Localizer | None,
    setup_seconds: float,
    *,
    first: bool,
) -> None:
    """Asks every row every question of one picture."""
    hosts: dict[Any, Array | None] = {}
    truths = [Truth.read(question, picture.size, max_side, hosts) for question in sample.questions]
    concepts = [question.concept for question in sample.questions]
    control = [dataset.host, SUBJECT] if "control" in groups else []
    parts = _Parts.of(truths)
    host = _full_host(sample)
    # Kept for the whole picture: the rows of one attention share the encoding of the twin as well.
    twins = {i: _read(question.twin(), localizer) for i, question in enumerate(sample.questions) if question.twin is not None}
    gathered: list[tuple[_Row, list[Observation], float]] = []
    kept: dict[str, list[Array]] = {}
    for row in rows:
        if first:
            start = time.perf_counter()
            warm, _ = row.asker(picture, [*concepts, *control], host, sample.name)
            row.setup_seconds = time.perf_counter() - start
            if not row.asker.configuration.baseline:
                row.setup_seconds += setup_seconds + _training_seconds(row.asker.configuration.method)
            row.thresholds = _thresholds(warm[: len(concepts)])
            row.asker._cache.clear()
        answers, seconds = row.asker(picture, [*concepts, *control], host, sample.name)
        found = _observe(sample, picture, row, answers, truths, parts, twins, groups, localizer)
        gathered.append((row, found, seconds))
        kept[row.asker.configuration.name] = [answer.heatmap for answer in answers[: len(concepts)]]
    # Only now: a picture on which one row fails must be in none.
    for row, found, seconds in gathered:
        row.observations += found
        row.seconds.append(seconds)
        row.counts.append(len(concepts) + len(control))
    _keep_examples(sample, picture, truths, kept, shown, examples)


def _training_seconds(method: str) -> float:
    """Seconds that training a learned explainer took, which belong to its set-up; 0 for other methods."""
    name, _, argument = method.partition(":")
    if not name.startswith("lcam"):
        return 0.0
    from concept_cam.methods.lcam import Explainer

    return float((Explainer.load(argument).facts or {}).get("seconds", 0.0))


def _full_host(sample: Sample) -> Array | None:
    load = next((question.host for question in sample.questions if question.host is not None), None)
    return None if load is None else metrics.split_mask(np.asarray(load()))[0]


def _thresholds(answers: Sequence[MeasuredAnswer]) -> Float | None:
    values = np.concatenate([np.asarray(answer.scores, dtype=np.float64).ravel() for answer in answers])
    values = values[np.isfinite(values)]
    spread = float(values.std()) if len(values) else 0.0
    return values.mean() + (spread or 1.0) * IOU_STEPS if len(values) else None


def _observe(
    sample: Sample,
    picture: Picture,
    row: _Row,
    answers: Sequence[MeasuredAnswer],
    truths: Sequence[Truth],
    parts: _Parts,
    twins: Mapping[int, Picture],
    groups: Sequence[str],
    localizer: Localizer | None,
) -> list[Observation]:
    configuration = row.asker.configuration
    owned: dict[int, float] = {}
    dependence: dict[int, dict[str, float]] = {}
    if "control" in groups:
        owned = parts.own(answers, truths)
        if configuration.method in BASELINES and configuration.method != "random":
            dependence = {}
        else:
            dependence = _dependence(answers[: len(truths)], answers[len(truths) :], truths, sample.name)
    disordered: Sequence[MeasuredAnswer] = ()
    if row.randomised is not None:
        disordered, _ = row.randomised(picture, [truth.question.concept for truth in truths], None, sample.name)
    found = []
    for i, (answer, truth) in enumerate(zip(answers, truths)):
        values, pooled = question_metrics(answer, truth, row.thresholds, groups)
        if i in owned:
            values["own_part"] = owned[i]
        values.update(dependence.get(i, {}))
        question = truth.question
        if configuration.baseline and configuration.method == "random" and "calls" in groups:
            values.update(_chance(question))
        if not configuration.baseline and "calls" in groups and i in twins:
            twin, _ = row.asker(twins[i], [question.concept], None, sample.name)
            values.update(_twin_values(answer, twin[0], truth, pooled))
        if disordered:
            values["randomised"] = metrics.randomisation_similarity(answer.scores, disordered[i].scores)
        if not configuration.baseline and "faithfulness" in groups and localizer is not None:
            values.update(_faithfulness(answer, question, picture, localizer))
        found.append(
            Observation(
                sample.name,
                question.concept.name,
                question.kind,
                question.trait,
                bool(question.concept.contrasts),
                values,
                pooled,
            )
        )
    return found


def _chance(question: SampleQuestion) -> dict[str, float]:
    values: dict[str, float] = {}
    if question.kind == "state" and question.concept.rivals:
        values["state_accuracy"] = 1 / (1 + len(question.concept.rivals))
    if question.twin is not None:
        values["twin_accuracy"] = values["twin_map_accuracy"] = 0.5
    return values


def _keep_examples(
    sample: Sample,
    picture: Picture,
    truths: Sequence[Truth],
    kept: Mapping[str, list[Array]],
    shown: list[ShownExample],
    most: int,
) -> None:
    if len(shown) >= most:
        return
    seen = {example.trait for example in shown}
    kinds = [example.kind for example in shown]
    fresh = [
        i
        for i, truth in enumerate(truths)
        if truth.question.trait not in seen and (truth.mask is not None or truth.question.points is not None)
    ]
    if not fresh:
        return
    # One question per picture, of the kind that was shown least: a page of eight shows parts, states and presence.
    i = min(fresh, key=lambda i: kinds.count(truths[i].question.kind))
    question = truths[i].question
    step = max(1, -(-max(picture.size) // 384))
    shown.append(
        ShownExample(
            picture_name=sample.name,
            concept=question.concept.name,
            target=question.concept.target[0],
            kind=question.kind,
            trait=question.trait,
            picture=picture.pixels[::step, ::step].copy(),
            mask=None if question.mask is None else metrics.split_mask(np.asarray(question.mask()))[0][::step, ::step],
            heatmaps={name: maps[i][::step, ::step].astype(np.float32) for name, maps in kept.items()},
        )
    )


def _facts(
    dataset: Dataset,
    localizer: Localizer | None,
    groups: Sequence[str],
    pictures: int,
    unasked: int,
    max_side: int,
    seconds: float,
) -> dict[str, Any]:
    import concept_cam

    facts: dict[str, Any] = {
        "package_version": concept_cam.__version__,
        "dataset": {
            "name": dataset.name,
            "version": dataset.version,
            "pictures": pictures,
            "pictures_without_questions": unasked,
            **dict(dataset.facts),
        },
        "groups": list(groups),
        "max_side": max_side,
        "seconds": round(seconds, 3),
    }
    if localizer is not None:
        settings = localizer.settings
        facts["model"] = {
            "name": localizer.backbone.name,
            "weights_hash": localizer.backbone.weights_hash,
            "device": str(localizer.backbone.device),
            "dtype": localizer.dtype_name,
            # Attention and gamma are those of each row.
            **{name: value for name, value in settings.recorded().items() if name not in ("attention", "gamma")},
            "views": localizer.views,
        }
    return facts
