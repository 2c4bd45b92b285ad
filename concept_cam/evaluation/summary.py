"""From observations to tables: means with bootstrap intervals over pictures, pooled metrics, and paired gains of the contrast."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam.evaluation import metrics
from concept_cam.evaluation.metrics.intervals import Interval
from concept_cam.evaluation.observations import GAIN_METRICS, METRICS, Observation, RowRecord

__all__ = ["POOLED_METRICS", "Gain", "Row", "best_value", "gains_of", "paired", "row_of"]

Array = npt.NDArray[Any]


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


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def best_value(rows: Iterable[Row], kind: str, name: str) -> float | None:
    """Returns the best of the methods by a metric; ``None`` where fewer than two have it, or neither end is better."""
    values = [row.tables.get(kind, {})[name].value for row in rows if row.gamma is not None and name in row.tables.get(kind, {})]
    values = [value for value in values if not math.isnan(value)]
    if len(values) < 2 or not METRICS[name].better:
        return None
    return max(values) if METRICS[name].better == "high" else min(values)


# --------------------------------------------------------------------------------------------------------------- tables


def row_of(record: RowRecord, options: Mapping[str, Any]) -> Row:
    """Summarises one configuration.

    Args:
        record: What was observed.
        options: ``draws``, ``level`` and ``seed`` of the bootstrap.
    """
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
    for pool in POOLED_METRICS:
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


POOLED_METRICS: tuple[Callable[[Sequence[Observation], Mapping[str, Any]], dict[str, Interval]], ...] = (
    _absence,
    _point_miou,
    _box_accuracies,
    _pixels,
)
"""Metrics that are no mean over questions: each turns what was pooled into estimates by name, none where nothing of the kind was asked."""


def paired(
    first: RowRecord,
    second: RowRecord,
    metric: str,
    wanted: Callable[[Observation], bool],
    options: Mapping[str, Any],
) -> Interval:
    """Returns the mean difference of a metric between two configurations, paired over the questions that both answered.

    Args:
        first: One configuration.
        second: The other, which is taken off.
        metric: Name of the metric.
        wanted: Which questions count.
        options: ``draws``, ``level`` and ``seed`` of the bootstrap.
    """
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


def gains_of(records: Sequence[RowRecord], options: Mapping[str, Any]) -> tuple[Gain, ...]:
    """Pairs every configuration with its own at gamma 0."""
    plain = {(record.method, record.attention): record for record in records if record.gamma == 0}
    found: list[Gain] = []
    for record in records:
        base = plain.get((record.method, record.attention))
        if not record.gamma or base is None:
            continue
        kinds = list(dict.fromkeys(item.kind for item in record.observations))
        for metric in GAIN_METRICS:
            for kind in [*kinds, *(["all"] if len(kinds) > 1 else [])]:
                interval = paired(record, base, metric, _contrasted(kind), options)
                if interval.count:
                    found.append(Gain(record.name, base.name, kind, metric, interval))
    return tuple(found)
