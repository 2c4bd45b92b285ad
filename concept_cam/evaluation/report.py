"""What an evaluation found: tables with intervals, breakdown per trait, gains of the contrast, example pictures; as JSON, Markdown, CSV and HTML."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam.core.errors import ConfigurationError
from concept_cam.evaluation import metrics
from concept_cam.evaluation.metrics.intervals import Interval

__all__ = ["METRICS", "Example", "Gain", "Metric", "Observation", "Report", "Row", "RowRecord"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """What a number in the tables is.

    Attributes:
        title: Short heading.
        meaning: One sentence.
        better: ``"high"``, ``"low"`` or empty where neither is better.
    """

    title: str
    meaning: str
    better: str = "high"


METRICS: dict[str, Metric] = {
    "ap": Metric(
        "AP",
        "Pixel average precision in the picture; knowing nothing scores the target's share of the pixels.",
    ),
    "ap_host": Metric("AP in subject", "Pixel average precision within the subject: finding the subject earns nothing."),
    "auroc": Metric("AUROC", "Chance that a target pixel scores above another pixel of the picture; 0.5 knows nothing."),
    "auroc_host": Metric("AUROC in subject", "The same against the rest of the subject; 0.5 knows nothing."),
    "energy": Metric("energy", "Share of the positive scores that lies on the target; negative scores count as zero."),
    "pointing": Metric(
        "pointing",
        "The highest score lies on the target; the row 'subject' is a random point in the subject.",
    ),
    "iou": Metric(
        "IoU fixed",
        "IoU at one threshold for all prompts and pictures, chosen on the other half of the pictures.",
    ),
    "iou_best": Metric("IoU best", "IoU at the best threshold of each map: an upper bound."),
    "coverage": Metric("seen", "Share of the target that the method looked at.", ""),
    "own_part": Metric("own part", "The part's map is on average higher on its own part than on any other part."),
    "ap_difference": Metric("AP twin", "Pixel average precision on what changes between the picture and its counterfactual twin."),
    "auroc_difference": Metric("AUROC twin", "AUROC on what changes between the picture and its twin."),
    "energy_difference": Metric("energy twin", "Share of the positive scores on what changes between the picture and its twin."),
    "state_accuracy": Metric(
        "state",
        "The true state is the most probable among its siblings, from the image embedding; 'random' is one in K.",
    ),
    "twin_accuracy": Metric("twin", "The picture that has the state scores above its twin that has not (image level)."),
    "twin_map_accuracy": Metric("twin map", "The map is higher where the trait is than at the same place of the twin."),
    "absence_auroc": Metric(
        "absence",
        "AUROC of present against absent by the image score, mean over traits; absent twins count too.",
    ),
    "absence_auroc_peak": Metric("absence peak", "The same by the highest score of the map."),
    "rank_host": Metric(
        "ρ host",
        "Rank correlation with the map of the host noun: 1 finds the subject whatever is asked.",
        "",
    ),
    "rank_subject": Metric("ρ subject", 'Rank correlation with the map of "the main subject".', ""),
    "rank_sibling": Metric("ρ sibling", "Rank correlation with the map of another trait in the same picture.", ""),
    "dependence": Metric("dependence", "1 minus the largest absolute of these correlations: 0 does not depend on the prompt."),
    "randomised": Metric(
        "ρ random weights",
        "Absolute rank correlation with the map of the same tower with its weights shuffled: what is high shows the picture, not the model.",
        "low",
    ),
    "point_hit": Metric("point hit", "The highest score lies within the tolerance of a point of the part."),
    "point_auroc": Metric("point AUROC", "Chance that a point of the part scores above a point of another part."),
    "point_miou": Metric("point mIoU", "TP / (TP + FP + FN) over labelled points at a fixed threshold, mean over concepts."),
    "max_box_acc": Metric("MaxBoxAcc", "Boxes with IoU of at least 0.5 at the best common threshold."),
    "max_box_acc_v2": Metric("MaxBoxAccV2", "Mean over IoU 0.3, 0.5 and 0.7, best component."),
    "pxap": Metric("PxAP", "Average precision of all pixels pooled, each map scaled to its own range."),
    "drop_5": Metric("RD 5 %", "Relative confidence drop when the top 5 % of pixels take the mean colour (Finer-CAM)."),
    "drop_10": Metric("RD 10 %", "The same for the top 10 %."),
    "deletion": Metric("deletion", "Area under the confidence while pixels turn grey from the highest score down.", "low"),
    "insertion": Metric("insertion", "Area under the confidence while a blurred picture gets its pixels back."),
    "average_drop": Metric("average drop", "Loss of confidence when only the map's part is shown.", "low"),
    "average_increase": Metric("average increase", "Share of pictures whose confidence rises then."),
}
"""Every metric of the tables, in their order."""

GAIN_METRICS = ("ap_difference", "auroc_difference", "ap_host", "ap", "pointing")
"""Metrics by which the gain of the contrast is stated."""

TABLE_TITLES = {
    "all": "All questions",
    "object": "The whole subject",
    "part": "Parts",
    "state": "States of characters",
    "presence": "Presence",
}


@dataclass(frozen=True)
class Observation:
    """What one configuration scored on one question.

    Attributes:
        picture: Name of the picture.
        concept: Name of the concept.
        kind: Kind of question.
        trait: Part or character.
        contrasted: Whether the concept has contrasts.
        values: Metric -> value.
        pooled: Curves and counts that are only summed over the data set.
    """

    picture: str
    concept: str
    kind: str
    trait: str
    contrasted: bool
    values: dict[str, float]
    pooled: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RowRecord:
    """Everything that was observed of one configuration.

    Attributes:
        name: Name of the row.
        method: Method or baseline.
        attention: Attention strategy.
        gamma: Comparison strength; ``None`` for baselines.
        setup_seconds: Seconds before the second answer: loading the model, training where the method is learned, the first answer.
        seconds_per_image: Median seconds per picture with all its questions.
        seconds_per_concept: Median seconds per picture and concept.
        thresholds: Common thresholds of the IoU at a fixed one.
        observations: One per question.
    """

    name: str
    method: str
    attention: str
    gamma: float | None
    setup_seconds: float
    seconds_per_image: float
    seconds_per_concept: float
    thresholds: Array | None
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class Example:
    """One question with the maps of every row.

    Attributes:
        picture_name: Name of the picture.
        concept: Name of the concept.
        target: Its first target phrase.
        kind: Kind of question.
        trait: Part or character.
        picture: uint8 [H', W', 3].
        mask: bool [H', W'] or ``None``.
        heatmaps: Row -> float32 [H', W'].
    """

    picture_name: str
    concept: str
    target: str
    kind: str
    trait: str
    picture: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    heatmaps: Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        name: Name of the row.
        method: Method or baseline.
        attention: Attention strategy.
        gamma: Comparison strength; ``None`` for baselines.
        setup_seconds: Seconds before the first answer.
        seconds_per_image: Median seconds per picture with all its questions.
        seconds_per_concept: Median seconds per picture and concept.
        tables: Kind of question (or ``"all"``) -> metric -> estimate with interval.
        traits: Trait -> metric -> estimate with interval.
        threshold: Threshold of the best mean IoU over all pictures, score units.
    """

    name: str
    method: str
    attention: str
    gamma: float | None
    setup_seconds: float
    seconds_per_image: float
    seconds_per_concept: float
    tables: Mapping[str, Mapping[str, Interval]]
    traits: Mapping[str, Mapping[str, Interval]]
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "name": self.name,
            "method": self.method,
            "attention": self.attention or None,
            "gamma": self.gamma,
            "setup_seconds": self.setup_seconds,
            "seconds_per_image": self.seconds_per_image,
            "seconds_per_concept": self.seconds_per_concept,
            "threshold": _plain(self.threshold),
            "tables": {kind: {name: item.to_dict() for name, item in table.items()} for kind, table in self.tables.items()},
            "traits": {trait: {name: item.to_dict() for name, item in table.items()} for trait, table in self.traits.items()},
        }


@dataclass(frozen=True)
class Gain:
    """What the contrast adds: the paired difference of a row from the same method at gamma 0.

    Attributes:
        row: The row with contrast.
        against: The row without.
        kind: Kind of question, or ``"all"``.
        metric: Name in :data:`METRICS`.
        difference: Mean difference with its interval; an interval that holds 0 shows no gain.
    """

    row: str
    against: str
    kind: str
    metric: str
    difference: Interval

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "row": self.row,
            "against": self.against,
            "kind": self.kind,
            "metric": self.metric,
            "difference": self.difference.to_dict(),
        }


@dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    Attributes:
        facts: Data set, model, versions.
        rows: The tables' lines.
        gains: What the contrast adds.
        examples: Example questions with maps.
        errors: Pictures that could not be used.
        level: Probability that each interval is to hold.
        records: All observations.
    """

    facts: Mapping[str, Any]
    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    examples: tuple[Example, ...]
    errors: tuple[Mapping[str, str], ...]
    level: float
    records: tuple[RowRecord, ...] = field(repr=False)

    @classmethod
    def build(
        cls,
        records: Sequence[RowRecord],
        examples: Sequence[Example] = (),
        errors: Sequence[Mapping[str, str]] = (),
        facts: Mapping[str, Any] | None = None,
        draws: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Report:
        """Summarises observations.

        Args:
            records: One per row.
            examples: Example questions.
            errors: Pictures that could not be used.
            facts: What is recorded.
            draws: Bootstrap samples.
            level: Probability that an interval is to hold.
            seed: Of the bootstrap.
        """
        options = {"draws": draws, "level": level, "seed": seed}
        rows = tuple(_row(record, options) for record in records)
        return cls(
            dict(facts or {}),
            rows,
            _gains(records, options),
            tuple(examples),
            tuple(errors),
            level,
            tuple(records),
        )

    def row(self, name: str) -> Row:
        """Returns a row by its name.

        Raises:
            ConfigurationError: There is no such row.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise ConfigurationError(f"the report has no row {name!r}; it has {', '.join(row.name for row in self.rows)}.")

    def compare(self, first: str, second: str, metric: str, kind: str = "all", draws: int = 1000, seed: int = 0) -> Interval:
        """Returns the paired difference of two rows on the questions that both answered.

        Raises:
            ConfigurationError: There is no such row or metric.
        """
        if metric not in METRICS:
            raise ConfigurationError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}.")
        found = {record.name: record for record in self.records}
        a, b = found[self.row(first).name], found[self.row(second).name]
        return _paired(
            a,
            b,
            metric,
            lambda item: kind in ("all", item.kind),
            {"draws": draws, "level": self.level, "seed": seed},
        )

    # ------------------------------------------------------------------------------------------------------- output

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the example pictures and single observations as plain data for JSON."""
        return {
            "facts": dict(self.facts),
            "level": self.level,
            "metrics": {name: {"title": item.title, "meaning": item.meaning, "better": item.better} for name, item in METRICS.items()},
            "rows": [row.to_dict() for row in self.rows],
            "contrast_gains": [gain.to_dict() for gain in self.gains],
            "errors": [dict(item) for item in self.errors],
        }

    def metric_names(self, kind: str = "all") -> list[str]:
        """Returns the metrics that any row has for a kind of question, in the order of :data:`METRICS`."""
        return [name for name in METRICS if any(name in row.tables.get(kind, {}) for row in self.rows)]

    def kinds(self) -> list[str]:
        """Returns the kinds of questions that were asked."""
        return [kind for kind in TABLE_TITLES if kind != "all" and any(kind in row.tables for row in self.rows)]

    def to_markdown(self) -> str:
        """Returns the tables, the gains and the meaning of every metric as Markdown."""
        lines = [f"# {_title(self)}", ""]
        for kind in ("all", *self.kinds()):
            names = self.metric_names(kind)
            if not names:
                continue
            lines += [f"## {TABLE_TITLES[kind]}", ""]
            lines += [f"| | {' | '.join(METRICS[name].title for name in names)} | s / image | ms / concept | set-up s |"]
            lines += ["|---" * (len(names) + 4) + "|"]
            for row in self.rows:
                cells = [_text(row.tables.get(kind, {}).get(name)) for name in names]
                cells += [
                    f"{row.seconds_per_image:.3f}",
                    f"{1000 * row.seconds_per_concept:.1f}",
                    f"{row.setup_seconds:.2f}",
                ]
                lines += [f"| {row.name} | {' | '.join(cells)} |"]
            lines += [""]
        if self.gains:
            lines += [
                "## What the contrast adds",
                "",
                "| | against | questions | metric | paired difference |",
                "|---|---|---|---|---|",
            ]
            lines += [
                f"| {gain.row} | {gain.against} | {TABLE_TITLES[gain.kind]} | {METRICS[gain.metric].title} | {_text(gain.difference, sign=True)} |"
                for gain in self.gains
            ]
            lines += [""]
        for name, traits, rows in _breakdown(self):
            lines += [
                f"## Per trait: {METRICS[name].title}",
                "",
                f"| | {' | '.join(trait.replace('_', ' ') for trait in traits)} |",
            ]
            lines += ["|---" * (len(traits) + 1) + "|"]
            for row in rows:
                cells = [_text(row.traits.get(trait, {}).get(name)) for trait in traits]
                lines += [f"| {row.name} | {' | '.join(cells)} |"]
            lines += [""]
        used = [name for name in METRICS if any(name in self.metric_names(kind) for kind in ("all", *self.kinds()))]
        lines += ["## What is measured", ""] + [f"- **{METRICS[name].title}**: {METRICS[name].meaning}" for name in used]
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Returns one line per row, picture and question with all its values."""
        names = [name for name in METRICS if any(name in item.values for record in self.records for item in record.observations)]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["row", "picture", "concept", "kind", "trait", *names])
        for record in self.records:
            for item in record.observations:
                values = [item.values.get(name, float("nan")) for name in names]
                cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
                writer.writerow([record.name, item.picture, item.concept, item.kind, item.trait, *cells])
        return buffer.getvalue()

    def example_sheet(self, rows: Sequence[str] | None = None) -> Any:
        """Draws the examples: a row per question, a column per configuration; one colour scale per column, shared by all its pictures.

        Args:
            rows: Names of the configurations to show; all by default.

        Returns:
            A Pillow image.

        Raises:
            ConfigurationError: The report has no examples, or no such row.
        """
        from concept_cam.core import drawing as overlay

        cells, names = _example_cells(self, None if rows is None else [self.row(name).name for name in rows])
        if not cells:
            raise ConfigurationError("the report has no examples: evaluate with examples=8 or so.")
        images = [image for line in cells for image in line]
        titles = [title for example in self.examples for title in (f"{example.target}", *names)]
        return overlay.sheet(images, columns=len(names) + 1, titles=titles)

    def to_html(self) -> str:
        """Returns one self-contained page: tables, gains, breakdown per trait, examples, definitions."""
        return _page(self)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes ``report.html``, ``report.json``, ``report.md`` and ``questions.csv``, each whole or not at all.

        Returns:
            The folder.

        Raises:
            OutputError: A file exists and ``overwrite`` is false, or cannot be written.
        """
        from concept_cam.core.files import make_directory, write_file

        where = make_directory(folder)
        payloads = {
            "report.json": json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False),
            "report.md": self.to_markdown(),
            "questions.csv": self.to_csv(),
            "report.html": self.to_html(),
        }
        for name, text in payloads.items():
            write_file(where / name, text.encode("utf-8"), overwrite=overwrite)
        return where


# --------------------------------------------------------------------------------------------------------------- summary


def _row(record: RowRecord, options: Mapping[str, Any]) -> Row:
    threshold = _fit_iou(record)
    kinds = dict.fromkeys(item.kind for item in record.observations)
    tables = {"all": _table(record.observations, options)}
    if len(kinds) > 1:
        tables |= {kind: _table([item for item in record.observations if item.kind == kind], options) for kind in kinds}
    traits = dict.fromkeys(item.trait for item in record.observations)
    return Row(
        record.name,
        record.method,
        record.attention,
        record.gamma,
        record.setup_seconds,
        record.seconds_per_image,
        record.seconds_per_concept,
        {kind: table for kind, table in tables.items() if table},
        {trait: _means([item for item in record.observations if item.trait == trait], options) for trait in traits},
        threshold,
    )


def _fit_iou(record: RowRecord) -> float:
    """Adds the IoU at a fixed threshold to every observation: half of the pictures choose it for the other half.

    Returns:
        The threshold of the best mean over all.
    """
    marked = [item for item in record.observations if "iou_curve" in item.pooled]
    marked = [item for item in marked if not np.isnan(item.pooled["iou_curve"]).any()]
    if not marked or record.thresholds is None:
        return float("nan")
    curves = np.stack([item.pooled["iou_curve"] for item in marked])
    order = {name: place for place, name in enumerate(dict.fromkeys(item.picture for item in marked))}
    fold = np.array([order[item.picture] % 2 for item in marked])
    for half in (0, 1):
        teachers = curves[fold != half] if (fold != half).any() else curves
        column = int(np.argmax(teachers.mean(axis=0)))
        for place in np.flatnonzero(fold == half):
            marked[place].values["iou"] = float(curves[place, column])
    return float(record.thresholds[int(np.argmax(curves.mean(axis=0)))])


def _means(items: Sequence[Observation], options: Mapping[str, Any]) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for name in METRICS:
        rows = [(item.values[name], item.picture) for item in items if name in item.values and not math.isnan(item.values[name])]
        if rows:
            values, pictures = zip(*rows)
            found[name] = metrics.mean_interval(values, pictures, **options)
    return found


def _table(items: Sequence[Observation], options: Mapping[str, Any]) -> dict[str, Interval]:
    found = _means(items, options)
    for pool in (_absence, _point_miou, _box_accuracies, _pixels):
        found.update(pool(items, options))
    return {name: found[name] for name in METRICS if name in found}


def _units(items: Sequence[Observation]) -> tuple[npt.NDArray[np.int64], int]:
    names = {name: place for place, name in enumerate(dict.fromkeys(item.picture for item in items))}
    return np.array([names[item.picture] for item in items], dtype=np.int64), len(names)


def _repeated(units: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Numbers of the observations of the drawn pictures, with repeats."""
    return np.repeat(np.arange(len(units)), np.bincount(drawn, minlength=count)[units])


def _absence(items: Sequence[Observation], options: Mapping[str, Any]) -> dict[str, Interval]:
    asked = [item for item in items if "presence" in item.pooled]
    if not asked:
        return {}
    entries = [(item, *entry) for item in asked for entry in item.pooled["presence"]]
    units, count = _units([entry[0] for entry in entries])
    present = np.array([entry[1] for entry in entries], dtype=bool)
    traits = np.array([entry[0].trait for entry in entries])
    found: dict[str, Interval] = {}
    for name, column in (("absence_auroc", 2), ("absence_auroc_peak", 3)):
        scores = np.array([entry[column] for entry in entries], dtype=np.float64)
        if np.isnan(scores).all():
            continue

        def statistic(drawn: npt.NDArray[np.int64], scores: Array = scores) -> float:
            chosen = _repeated(units, drawn, count)
            chosen = chosen[~np.isnan(scores[chosen])]
            values = [
                metrics.auroc_from_scores(scores[rows[present[rows]]], scores[rows[~present[rows]]])
                for trait in np.unique(traits)
                for rows in [chosen[traits[chosen] == trait]]
            ]
            known = [value for value in values if not math.isnan(value)]
            return float(np.mean(known)) if known else float("nan")

        interval = metrics.bootstrap(statistic, count, **options)
        if not math.isnan(interval.value):
            found[name] = interval
    return found


def _point_miou(items: Sequence[Observation], options: Mapping[str, Any]) -> dict[str, Interval]:
    asked = [item for item in items if "point_counts" in item.pooled]
    if not asked:
        return {}
    counts = np.stack([item.pooled["point_counts"] for item in asked])
    units, count = _units(asked)
    concepts = np.array([item.concept for item in asked])

    def at(rows: npt.NDArray[np.int64], column: int) -> float:
        sums = [tuple(counts[rows[concepts[rows] == name], column].sum(axis=0).tolist()) for name in np.unique(concepts[rows])]
        return metrics.point_miou(sums)

    # As with the IoU of masks, each half of the pictures chooses the threshold of the other.
    halves = [np.flatnonzero(units % 2 == half) for half in (0, 1)]
    best = [int(np.nanargmax([at(rows, k) for k in range(counts.shape[1])])) if len(rows) else 0 for rows in halves]
    fitted = np.stack([counts[i, best[1 - units[i] % 2 if len(halves[1]) else 0]] for i in range(len(asked))])

    def statistic(drawn: npt.NDArray[np.int64]) -> float:
        rows = _repeated(units, drawn, count)
        return metrics.point_miou([tuple(fitted[rows[concepts[rows] == name]].sum(axis=0).tolist()) for name in np.unique(concepts[rows])])

    return {"point_miou": metrics.bootstrap(statistic, count, **options)}


def _box_accuracies(items: Sequence[Observation], options: Mapping[str, Any]) -> dict[str, Interval]:
    asked = [item for item in items if "box_curve" in item.pooled and not np.isnan(item.pooled["box_curve"]).any()]
    if not asked:
        return {}
    units, count = _units(asked)
    first, every = (np.stack([item.pooled[name] for item in asked]) for name in ("box_curve", "box_curve_all"))
    return {
        "max_box_acc": metrics.bootstrap(lambda drawn: metrics.max_box_acc(first[_repeated(units, drawn, count)]), count, **options),
        "max_box_acc_v2": metrics.bootstrap(lambda drawn: metrics.max_box_acc_v2(every[_repeated(units, drawn, count)]), count, **options),
    }


def _pixels(items: Sequence[Observation], options: Mapping[str, Any]) -> dict[str, Interval]:
    asked = [item for item in items if "pixel_counts" in item.pooled]
    if not asked:
        return {}
    units, count = _units(asked)
    counts = np.stack([item.pooled["pixel_counts"] for item in asked])
    return {
        "pxap": metrics.bootstrap(
            lambda drawn: metrics.average_precision_from_counts(counts[_repeated(units, drawn, count)].sum(axis=0)),
            count,
            **options,
        )
    }


def _paired(
    first: RowRecord,
    second: RowRecord,
    metric: str,
    wanted: Callable[[Observation], bool],
    options: Mapping[str, Any],
) -> Interval:
    other = {(item.picture, item.concept): item.values.get(metric, float("nan")) for item in second.observations}
    pairs = [
        (item.values[metric], other[item.picture, item.concept], item.picture)
        for item in first.observations
        if metric in item.values and (item.picture, item.concept) in other and wanted(item)
    ]
    if not pairs:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    a, b, pictures = zip(*pairs)
    return metrics.paired_difference(a, b, pictures, **options)


def _contrasted(kind: str) -> Callable[[Observation], bool]:
    return lambda item: item.contrasted and kind in ("all", item.kind)


def _gains(records: Sequence[RowRecord], options: Mapping[str, Any]) -> tuple[Gain, ...]:
    plain = {(record.method, record.attention): record for record in records if record.gamma == 0}
    found: list[Gain] = []
    for record in records:
        base = plain.get((record.method, record.attention))
        if not record.gamma or base is None:
            continue
        kinds = list(dict.fromkeys(item.kind for item in record.observations))
        for metric in GAIN_METRICS:
            for kind in [*kinds, *(["all"] if len(kinds) > 1 else [])]:
                interval = _paired(record, base, metric, _contrasted(kind), options)
                if interval.count:
                    found.append(Gain(record.name, base.name, kind, metric, interval))
    return tuple(found)


# ------------------------------------------------------------------------------------------------------------------ text


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _text(interval: Interval | None, sign: bool = False) -> str:
    if interval is None or math.isnan(interval.value):
        return ""
    form = "{:+.3f}" if sign else "{:.3f}"
    if math.isnan(interval.low):
        return form.format(interval.value)
    return f"{form.format(interval.value)} [{form.format(interval.low)}, {form.format(interval.high)}]"


def _title(report: Report) -> str:
    data, model = report.facts.get("dataset", {}), report.facts.get("model", {})
    return f"{model.get('name', 'baselines')} on {data.get('name', 'data')} {data.get('version', '')}".strip()


# ------------------------------------------------------------------------------------------------------------------ HTML


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--paper:#fff;--soft:#667;--line:#d9dde3;--best:#e3f3e6;--base:#f5f6f8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#16181b;--soft:#9aa3ad;--line:#33383f;--best:#1d3a26;--base:#1e2125}}
body{margin:2rem auto;max-width:1500px;padding:0 1.2rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.4rem}p.note{color:var(--soft);max-width:60rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
thead th{border-bottom:2px solid var(--line);vertical-align:bottom}
tr.baseline td{background:var(--base);color:var(--soft)}td.best{background:var(--best);font-weight:600}
small{display:block;color:var(--soft);font-size:.75em}dt{font-weight:600;margin-top:.4rem}dd{margin:0 0 0 1.2rem}
table.examples td{border:0;padding:.2rem;vertical-align:top;text-align:left;white-space:normal}table.examples img{display:block;max-width:240px}
"""


def _page(report: Report) -> str:
    data, model = report.facts.get("dataset", {}), report.facts.get("model", {})
    about = [f"{data.get('pictures', '?')} pictures"]
    about += [f"{key} {model[key]}" for key in ("weights_hash", "device", "dtype", "resize", "weighting") if model.get(key)]
    body = [
        f"<h1>{_esc(_title(report))}</h1>",
        f'<p class="note">{_esc("; ".join(about))}. Each cell: mean over questions, below it the {report.level:.0%} bootstrap interval over pictures. '
        "Green: best of the methods. Grey rows look at no question.</p>",
    ]
    for kind in ("all", *report.kinds()):
        names = report.metric_names(kind)
        if names:
            body += [f"<h2>{_esc(TABLE_TITLES[kind])}</h2>", _html_table(report, kind, names)]
    body += [
        _html_gains(report),
        _html_traits(report),
        _html_examples(report),
        _html_errors(report),
        _html_definitions(report),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_esc(_title(report))}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _esc(text: Any) -> str:
    return html.escape(str(text))


def _cell(interval: Interval | None, best: bool, sign: bool = False) -> str:
    if interval is None or math.isnan(interval.value):
        return "<td></td>"
    form = "{:+.3f}" if sign else "{:.3f}"
    span = "" if math.isnan(interval.low) else f"<small>{form.format(interval.low)} to {form.format(interval.high)}</small>"
    mark = ' class="best"' if best else ""
    return f"<td{mark}>{form.format(interval.value)}{span}</td>"


def _best(rows: Iterable[Row], kind: str, name: str) -> float | None:
    values = [row.tables.get(kind, {})[name].value for row in rows if row.gamma is not None and name in row.tables.get(kind, {})]
    values = [value for value in values if not math.isnan(value)]
    if len(values) < 2 or not METRICS[name].better:
        return None
    return max(values) if METRICS[name].better == "high" else min(values)


def _html_table(report: Report, kind: str, names: Sequence[str]) -> str:
    head = "".join(f'<th title="{_esc(METRICS[name].meaning)}">{_esc(METRICS[name].title)}</th>' for name in names)
    lines = []
    best = {name: _best(report.rows, kind, name) for name in names}
    for row in report.rows:
        table = row.tables.get(kind, {})
        cells = "".join(
            _cell(table.get(name), row.gamma is not None and name in table and table[name].value == best[name]) for name in names
        )
        times = f"<td>{row.seconds_per_image:.3f}</td><td>{1000 * row.seconds_per_concept:.1f}</td><td>{row.setup_seconds:.2f}</td>"
        mark = ' class="baseline"' if row.gamma is None else ""
        lines.append(f"<tr{mark}><td>{_esc(row.name)}</td>{cells}{times}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}<th>s / image</th><th>ms / concept</th><th>set-up s</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _html_gains(report: Report) -> str:
    if not report.gains:
        return ""
    lines = "".join(
        f"<tr><td>{_esc(gain.row)}</td><td>{_esc(gain.against)}</td><td>{_esc(TABLE_TITLES[gain.kind])}</td>"
        f"<td>{_esc(METRICS[gain.metric].title)}</td>{_cell(gain.difference, gain.difference.low > 0, sign=True)}<td>{gain.difference.count}</td></tr>"
        for gain in report.gains
    )
    return (
        '<h2>What the contrast adds</h2><p class="note">Paired difference from the same method without contrasts, on the same questions. '
        "An interval that holds 0 shows no gain.</p>"
        '<div class="scroll"><table><thead><tr><th></th><th>against</th><th>questions</th><th>metric</th><th>difference</th><th>pictures</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


TRAIT_METRICS = ("ap_host", "ap", "point_auroc", "own_part", "ap_difference", "state_accuracy")
"""Metrics that are broken down per trait on the pages; the JSON file has all."""


def _breakdown(report: Report) -> Iterator[tuple[str, list[str], list[Row]]]:
    """Yields metric, traits and rows of each table per trait."""
    for name in TRAIT_METRICS:
        known = {trait for row in report.rows for trait, table in row.traits.items() if name in table}
        traits = [trait for trait in dict.fromkeys(t for row in report.rows for t in row.traits) if trait in known]
        rows = [row for row in report.rows if any(name in table for table in row.traits.values())]
        if len(traits) > 1:
            yield name, traits, rows


def _html_traits(report: Report) -> str:
    sections = []
    for name, traits, rows in _breakdown(report):
        head = "".join(f"<th>{_esc(trait.replace('_', ' '))}</th>" for trait in traits)
        lines = "".join(
            f"<tr{_baseline(row)}><td>{_esc(row.name)}</td>"
            + "".join(_cell(row.traits.get(trait, {}).get(name), False) for trait in traits)
            + "</tr>"
            for row in rows
        )
        sections.append(
            f'<h3>{_esc(METRICS[name].title)}</h3><div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        )
    return "<h2>Per trait</h2>" + "".join(sections) if sections else ""


def _baseline(row: Row) -> str:
    return ' class="baseline"' if row.gamma is None else ""


def _html_examples(report: Report) -> str:
    cells, names = _example_cells(report)
    if not cells:
        return ""
    head = "<th>picture and truth</th>" + "".join(f"<th>{_esc(name)}</th>" for name in names)
    lines = []
    for example, images in zip(report.examples, cells):
        caption = f"<small>{_esc(example.picture_name)}</small>{_esc(example.target)}"
        own = "".join(f'<td><img alt="{_esc(name)}" src="{_data_uri(image)}"></td>' for name, image in zip(("truth", *names), images))
        lines.append(f'<tr><td colspan="{len(names) + 1}">{caption}</td></tr><tr>{own}</tr>')
    return (
        '<h2>Examples</h2><p class="note">One colour scale per column, the same for all its pictures: blue below zero, red above; '
        "white outlines are the truth. Methods have other units, so columns are not comparable in strength.</p>"
        f'<div class="scroll"><table class="examples"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _example_cells(report: Report, chosen: Sequence[str] | None = None) -> tuple[list[list[Any]], list[str]]:
    """Pictures of the examples: per question the truth, then one overlay per row."""
    from PIL import Image
    from skimage.measure import find_contours

    from concept_cam.core import drawing as overlay

    wanted = [row.name for row in report.rows] if chosen is None else chosen
    names = [name for name in wanted if any(name in example.heatmaps for example in report.examples)]
    scales: dict[str, overlay.Scale] = {}
    for name in names:
        values = np.concatenate([example.heatmaps[name].ravel() for example in report.examples if name in example.heatmaps])
        values = values[np.isfinite(values)]
        low, high = (float(x) for x in np.quantile(values, [0.005, 0.995])) if len(values) else (0.0, 0.0)
        # A diverging scale needs a zero that means something; maps without negative scores run from low to high.
        scales[name] = overlay.Scale((low, high), "blue-red" if low < 0 < high else "viridis")
    cells = []
    for example in report.examples:
        contours = []
        if example.mask is not None:
            padded = np.pad(example.mask.astype(np.float64), 1)
            contours = [contour[:, ::-1] - 0.5 for contour in find_contours(padded, 0.5)]
        line = [Image.fromarray(overlay.outline(example.picture, contours))]
        for name in names:
            shown = overlay.blend(example.picture, example.heatmaps[name], scales[name], 0.6)
            line.append(Image.fromarray(overlay.outline(shown, contours, 1)))
        cells.append(line)
    return cells, names


def _data_uri(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _html_errors(report: Report) -> str:
    if not report.errors:
        return ""
    items = "".join(f"<li>{_esc(item['picture'])}: {_esc(item['error'])}</li>" for item in report.errors)
    return f"<h2>Pictures left out</h2><ul>{items}</ul>"


def _html_definitions(report: Report) -> str:
    used = [name for name in METRICS if any(name in report.metric_names(kind) for kind in ("all", *report.kinds()))]
    items = "".join(f"<dt>{_esc(METRICS[name].title)}</dt><dd>{_esc(METRICS[name].meaning)}</dd>" for name in used)
    facts = _esc(json.dumps(report.facts, ensure_ascii=False, indent=1, default=str))
    return f"<h2>What is measured</h2><dl>{items}</dl><details><summary>Facts of this run</summary><pre>{facts}</pre></details>"
