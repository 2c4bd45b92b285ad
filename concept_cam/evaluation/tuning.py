"""Searches the settings that suit a model and a kind of picture: on labelled pictures, or without labels by agreement under flips and
crops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError, ImageError
from concept_cam.core.names import choose
from concept_cam.core.settings import Settings
from concept_cam.evaluation import metrics
from concept_cam.evaluation.datasets.samples import Dataset, Sample
from concept_cam.evaluation.metrics.intervals import Interval
from concept_cam.evaluation.runner import MeasuredAnswer, Truth

if TYPE_CHECKING:
    from concept_cam.core.features import PatchFeatures
    from concept_cam.localizer import Localizer
    from concept_cam.pictures.reading import ImageSource, Picture

__all__ = [
    "OBJECTIVES",
    "TEMPLATES",
    "Candidate",
    "Sweep",
    "Trial",
    "candidates",
    "sweep",
    "sweep_unlabelled",
]

Array = npt.NDArray[Any]

TEMPLATES: dict[str, tuple[str, ...]] = {
    "own": (),
    "bare": ("{}",),
    "photo": ("a photo of {}",),
    "several": ("{}", "a photo of {}", "a close-up photo of {}", "a photo showing {}"),
}
"""Template sets to try: name -> templates; ``own`` keeps each concept's own."""


def _state(answer: MeasuredAnswer, truth: Truth) -> float:
    if truth.question.kind != "state" or len(answer.probabilities) < 2:
        return float("nan")
    shares = np.asarray(answer.probabilities)
    return float((shares[0] == shares.max()) / np.sum(shares == shares.max()))


def _on_mask(measure: Callable[[Array, Array], float]) -> Callable[[MeasuredAnswer, Truth], float]:
    return lambda answer, truth: float("nan") if truth.mask is None else measure(truth.thin(answer.heatmap), truth.mask)


def _in_host(measure: Callable[[Array, Array, Array], float]) -> Callable[[MeasuredAnswer, Truth], float]:
    def objective(answer: MeasuredAnswer, truth: Truth) -> float:
        if truth.mask is None or truth.host is None or truth.question.kind == "object":
            return float("nan")
        return measure(truth.thin(answer.heatmap), truth.mask, truth.host)

    return objective


def _twin(answer: MeasuredAnswer, truth: Truth) -> float:
    return float("nan") if truth.difference is None else metrics.average_precision(truth.thin(answer.heatmap), truth.difference)


OBJECTIVES: dict[str, Callable[[MeasuredAnswer, Truth], float]] = {
    "ap": _on_mask(metrics.average_precision),
    "ap_host": _in_host(metrics.average_precision),
    "auroc": _on_mask(metrics.auroc),
    "auroc_host": _in_host(metrics.auroc),
    "pointing": _on_mask(metrics.pointing_game),
    "energy": _on_mask(metrics.energy_pointing_game),
    "ap_difference": _twin,
    "state_accuracy": _state,
}
"""What a labelled sweep can maximise; meanings as in :data:`concept_cam.evaluation.report.METRICS`."""


@dataclass(frozen=True)
class Candidate:
    """One combination of settings.

    Attributes:
        attention: Dense attention strategy.
        gamma: Comparison strength.
        weighting: Contrast weighting.
        templates: Name in :data:`TEMPLATES`, or of an own set.
    """

    attention: str = "auto"
    gamma: float = 1.0
    weighting: str = "uniform"
    templates: str = "own"

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.attention} · gamma {self.gamma:g} · {self.weighting} · {self.templates} templates"


def candidates(
    attentions: Sequence[str],
    gammas: Sequence[float],
    weightings: Sequence[str] = ("uniform",),
    templates: Sequence[str] = ("own",),
) -> tuple[Candidate, ...]:
    """Lists every combination; at gamma 0 the weighting makes no difference and is tried once."""
    found = []
    for attention, gamma, weighting, name in product(attentions, gammas, weightings, templates):
        found.append(Candidate(attention, float(gamma), weighting if gamma else weightings[0], name))
    if not found:
        raise ConfigurationError("nothing to search: give at least one attention, gamma, weighting and template set.")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Trial:
    """One candidate and how it did.

    Attributes:
        candidate: The settings.
        value: Mean objective with its interval over pictures.
        values: Picture -> mean objective.
    """

    candidate: Candidate
    value: Interval
    values: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True)
class Sweep:
    """The result of a search.

    Attributes:
        objective: What was maximised.
        trials: All candidates, the best first.
        held_out: What choosing achieves on pictures that had no say: each half of the pictures chooses for the other.
        model: Name of the model.
        facts: Data set, number of pictures.
        templates: Template sets that were tried.
        kept: Settings that were not searched and differ from the defaults; the result holds for them, so they are written too.
        errors: Pictures that could not be read, and why.
    """

    objective: str
    trials: tuple[Trial, ...]
    held_out: Interval
    model: str
    facts: Mapping[str, Any]
    templates: Mapping[str, tuple[str, ...]]
    kept: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[dict[str, str], ...] = ()

    @property
    def best(self) -> Candidate:
        """The candidate of the highest mean."""
        return self.trials[0].candidate

    def gain(self, over: Candidate, draws: int = 1000, seed: int = 0) -> Interval:
        """Returns the paired difference of the best candidate from another one that was tried.

        Raises:
            ConfigurationError: The other one was not tried.
        """
        other = next((trial for trial in self.trials if trial.candidate == over), None)
        if other is None:
            raise ConfigurationError(f"{over.name!r} was not tried.")
        names = [name for name in self.trials[0].values if name in other.values]
        first, second = ([trial.values[name] for name in names] for trial in (self.trials[0], other))
        return metrics.paired_difference(first, second, draws=draws, seed=seed)

    def to_yaml(self) -> str:
        """Returns a configuration that ``--config`` takes, with the result as comments.

        ``templates`` are written when another set than ``own`` is best; they take the place of those of every trait pack.
        """
        import yaml

        best = self.best
        value, held = self.trials[0].value, self.held_out
        lines = [
            f"# {self.objective} {value.value:.4f} [{value.low:.4f}, {value.high:.4f}] on {value.count} pictures, best of "
            f"{len(self.trials)}",
            f"# {self.objective} {held.value:.4f} [{held.low:.4f}, {held.high:.4f}] on pictures that had no say in the choice",
        ]
        settings: dict[str, Any] = {
            "model": self.model,
            "attention": best.attention,
            "gamma": best.gamma,
            "weighting": best.weighting,
        }
        if self.templates[best.templates]:
            settings["templates"] = list(self.templates[best.templates])
        settings |= self.kept
        return "\n".join(lines) + "\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the configuration.

        Raises:
            OutputError: The file exists and ``overwrite`` is false, or cannot be written.
        """
        from concept_cam.core.files import write_file

        return write_file(path, self.to_yaml().encode("utf-8"), overwrite=overwrite)


SEARCHED = ("attention", "gamma", "weighting", "templates")
"""Settings that a candidate has of its own."""


# ------------------------------------------------------------------------------------------------------------ labelled


def sweep(
    dataset: Dataset,
    localizer: Localizer,
    *,
    attentions: Sequence[str] = ("auto",),
    gammas: Sequence[float] = (0.0, 0.3, 0.6, 1.0),
    weightings: Sequence[str] = ("uniform", "softmax", "hardest", "orthogonal"),
    templates: Sequence[str] | Mapping[str, tuple[str, ...]] = ("own",),
    objective: str = "ap_host",
    max_side: int = 256,
    draws: int = 1000,
    seed: int = 0,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] | None = None,
) -> Sweep:
    """Tries every combination on labelled pictures; each picture is encoded once per attention strategy.

    Args:
        dataset: Pictures and questions with known answers.
        localizer: The model; its other settings stay.
        attentions: Dense attention strategies.
        gammas: Comparison strengths.
        weightings: Contrast weightings.
        templates: Names in :data:`TEMPLATES`, or own sets by name.
        objective: Name in :data:`OBJECTIVES`.
        max_side: Larger maps and masks are measured at every n-th pixel.
        draws: Bootstrap samples.
        seed: Of the bootstrap.
        progress: Wraps the stream of samples.

    Returns:
        The trials, the best first, and what the choice achieves on pictures that had no say.

    Raises:
        ConfigurationError: An unknown name.
        DataError: No picture has a question that the objective can be measured on.
    """
    measure = choose(objective, OBJECTIVES, "objective")
    sets = _template_sets(templates)
    tried = candidates(attentions, gammas, weightings, tuple(sets))
    totals: dict[Candidate, dict[str, float]] = {candidate: {} for candidate in tried}
    errors: list[dict[str, str]] = []
    for sample in progress(dataset) if progress else dataset:
        try:
            picture = localizer.read(sample.image)
            hosts: dict[Any, Array | None] = {}
            truths = [Truth.read(question, picture.size, max_side, hosts) for question in sample.questions]
            for candidate, answers in _answers(localizer, picture, [question.concept for question in sample.questions], tried, sets):
                values = [measure(answer, truth) for answer, truth in zip(answers, truths)]
                known = [value for value in values if not np.isnan(value)]
                if known:
                    totals[candidate][sample.name] = float(np.mean(known))
        except ImageError as error:
            errors.append({"picture": sample.name, "error": str(error)})
    return _finish(
        objective,
        totals,
        localizer,
        {"dataset": dataset.name, "version": dataset.version, "labelled": True},
        errors,
        sets,
        draws,
        seed,
    )


def _template_sets(templates: Sequence[str] | Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if isinstance(templates, Mapping):
        return {name: tuple(values) for name, values in templates.items()}
    return {name: choose(name, TEMPLATES, "template set") for name in templates}


def _answers(
    localizer: Localizer,
    picture: Picture,
    concepts: Sequence[Concept],
    tried: Sequence[Candidate],
    sets: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[Candidate, Sequence[MeasuredAnswer]]]:
    """Answers of every candidate to one picture."""
    encoded: dict[str, PatchFeatures] = {}
    for candidate in tried:
        chosen = localizer.with_settings(
            attention=candidate.attention,
            gamma=candidate.gamma,
            weighting=candidate.weighting,
            templates=sets[candidate.templates],
        )
        if candidate.attention not in encoded:
            encoded[candidate.attention] = chosen.encode(picture)
        yield candidate, list(chosen.score(encoded[candidate.attention], concepts, picture))


def _finish(
    objective: str,
    totals: Mapping[Candidate, Mapping[str, float]],
    localizer: Localizer,
    facts: dict[str, Any],
    errors: Sequence[dict[str, str]],
    sets: Mapping[str, tuple[str, ...]],
    draws: int,
    seed: int,
) -> Sweep:
    pictures = list(dict.fromkeys(name for values in totals.values() for name in values))
    if not pictures:
        if errors:
            raise DataError(f"no picture could be used: {len(errors)} cannot be read. The first error: {errors[0]['error']}")
        raise DataError(f"no picture has a question on which {objective!r} can be measured.")
    trials = [
        Trial(candidate, metrics.mean_interval(list(values.values()), draws=draws, seed=seed), values)
        for candidate, values in totals.items()
    ]
    # Ties keep the order in which the candidates were given.
    trials.sort(key=lambda trial: -np.inf if np.isnan(trial.value.value) else trial.value.value, reverse=True)
    held: dict[str, float] = {}
    for half in (0, 1):
        teachers, others = pictures[1 - half :: 2], pictures[half::2]

        def on_teachers(trial: Trial, teachers: Sequence[str] = teachers) -> float:
            known = [trial.values[name] for name in teachers if name in trial.values]
            return float(np.mean(known)) if known else -np.inf

        chosen = max(trials, key=on_teachers)
        held.update({name: chosen.values[name] for name in others if name in chosen.values and teachers})
    return Sweep(
        objective,
        tuple(trials),
        metrics.mean_interval(list(held.values()), draws=draws, seed=seed),
        localizer.backbone.name,
        {**facts, "pictures": len(pictures)},
        dict(sets),
        {
            name: value
            for name, value in localizer.settings.recorded().items()
            if name not in SEARCHED and value != Settings().recorded().get(name)
        },
        tuple(errors),
    )


# ---------------------------------------------------------------------------------------------------------- unlabelled


LATTICE = 48
"""Maps are compared at so many points along each side of what two views share."""


def sweep_unlabelled(
    images: Iterable[tuple[str, ImageSource]],
    concepts: Sequence[Concept],
    localizer: Localizer,
    *,
    attentions: Sequence[str] = ("auto",),
    gammas: Sequence[float] = (0.0, 0.3, 0.6, 1.0),
    weightings: Sequence[str] = ("uniform", "softmax", "hardest", "orthogonal"),
    templates: Sequence[str] | Mapping[str, tuple[str, ...]] = ("own",),
    draws: int = 1000,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Sweep:
    """Tries every combination on pictures without labels, by agreement under flips and crops.

    A good map moves with the picture: the map of a mirrored or cropped view, brought back, should rank the shared pixels as the map of the
    whole view does. Smooth maps that ignore the prompt do that too, so the agreement between maps of *different* concepts is taken off:
    ``mean_c rho(m_c, m_c') - mean_{c != d} rho(m_c, m_d')``, ``rho`` the rank correlation and ``'`` the other view. It ranges over -2..2,
    and 0 is what maps score that do not depend on the prompt. It knows nothing of right and wrong: prefer a labelled sweep wherever fifty
    labelled pictures can be had.

    Args:
        images: Name and picture.
        concepts: At least two concepts.
        localizer: The model; its other settings stay.
        attentions: Dense attention strategies.
        gammas: Comparison strengths.
        weightings: Contrast weightings.
        templates: Names in :data:`TEMPLATES`, or own sets by name.
        draws: Bootstrap samples.
        seed: Of the bootstrap.
        progress: Wraps the stream of pictures.

    Raises:
        ConfigurationError: An unknown name, or a single concept.
        DataError: No picture could be used.
    """
    if len(concepts) < 2:
        raise ConfigurationError(
            f"an unlabelled sweep compares the maps of different concepts: expected at least two, received {len(concepts)}."
        )
    sets = _template_sets(templates)
    tried = candidates(attentions, gammas, weightings, tuple(sets))
    totals: dict[Candidate, dict[str, float]] = {candidate: {} for candidate in tried}
    errors: list[dict[str, str]] = []
    for name, image in progress(images) if progress else images:
        try:
            picture = localizer.read(image)
            views = _views(picture)
            maps: dict[Candidate, list[list[Array]]] = {}
            for view in views:
                for candidate, answers in _answers(localizer, view.picture, concepts, tried, sets):
                    maps.setdefault(candidate, []).append([view.back(answer.heatmap) for answer in answers])
        except ImageError as error:
            errors.append({"picture": name, "error": str(error)})
            continue
        for candidate, found in maps.items():
            value = _agreement(found, views)
            if not np.isnan(value):
                totals[candidate][name] = value
    return _finish("agreement", totals, localizer, {"labelled": False}, errors, sets, draws, seed)


@dataclass(frozen=True)
class _View:
    """A changed copy of a picture: the box ``(y0, x0, y1, x1)`` of the whole that it shows, and whether it is mirrored."""

    picture: Picture
    box: tuple[int, int, int, int]
    mirrored: bool = False

    def back(self, heatmap: Array) -> Array:
        """Returns the map in the whole picture's orientation, over the box."""
        return heatmap[:, ::-1] if self.mirrored else heatmap


def _views(picture: Picture) -> list[_View]:
    height, width = picture.size
    views = [
        _View(picture, (0, 0, height, width)),
        _View(_crop(picture, (0, 0, height, width), mirrored=True), (0, 0, height, width), True),
    ]
    inner = (max(1, round(0.8 * height)), max(1, round(0.8 * width)))
    for y0, x0 in ((0, 0), (height - inner[0], width - inner[1])):
        box = (y0, x0, y0 + inner[0], x0 + inner[1])
        views.append(_View(_crop(picture, box), box))
    return views


def _crop(picture: Picture, box: tuple[int, int, int, int], mirrored: bool = False) -> Picture:
    y0, x0, y1, x1 = box
    pixels = picture.pixels[y0:y1, x0:x1]
    return replace(picture, pixels=np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels))


def _agreement(maps: Sequence[Sequence[Array]], views: Sequence[_View]) -> float:
    """Self-agreement less cross-agreement, mean over views and concepts; ``maps[v][c]`` over the box of view ``v``."""
    same: list[float] = []
    cross: list[float] = []
    for view, own in zip(views[1:], maps[1:]):
        y0, x0, y1, x1 = view.box
        rows = np.unique(np.linspace(0, y1 - y0 - 1, LATTICE).round().astype(int))
        columns = np.unique(np.linspace(0, x1 - x0 - 1, LATTICE).round().astype(int))
        whole = [whole_map[y0:y1, x0:x1][np.ix_(rows, columns)] for whole_map in maps[0]]
        there = [view_map[np.ix_(rows, columns)] for view_map in own]
        for c, first in enumerate(whole):
            for d, second in enumerate(there):
                (same if c == d else cross).append(metrics.rank_correlation(first, second))
    if np.isnan(same).all() or np.isnan(cross).all():
        return float("nan")
    return float(np.nanmean(same) - np.nanmean(cross))
