"""What an evaluation found: tables with intervals, breakdown per trait, gains of the contrast, example pictures; as JSON, Markdown, CSV and
HTML.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.tables import escaped
from concept_cam.evaluation.metrics.intervals import Interval
from concept_cam.evaluation.observations import METRICS, TABLE_TITLES, TRAIT_METRICS, RowRecord, ShownExample
from concept_cam.evaluation.summary import Gain, Row, gains_of, paired, row_of

__all__ = ["REPORT_FILES", "Report", "check_folder"]

REPORT_FILES = ("report.json", "report.md", "questions.csv", "report.html")
"""What a saved report consists of."""


def check_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Makes sure, before anything is measured, that a report can be saved in a folder; the folder is made.

    Raises:
        OutputError: A file of a report is there and ``overwrite`` is false, or the folder cannot be made or written to.
    """
    from concept_cam.core.files import check_file, make_directory

    where = make_directory(folder)
    for name in REPORT_FILES:
        check_file(where / name, overwrite=overwrite)


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
    examples: tuple[ShownExample, ...]
    errors: tuple[Mapping[str, str], ...]
    level: float
    records: tuple[RowRecord, ...] = field(repr=False)

    @classmethod
    def build(
        cls,
        records: Sequence[RowRecord],
        examples: Sequence[ShownExample] = (),
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
        rows = tuple(row_of(record, options) for record in records)
        return cls(
            dict(facts or {}),
            rows,
            gains_of(records, options),
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
        return paired(
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

    @property
    def title(self) -> str:
        """Which model was measured on which data."""
        data, model = self.facts.get("dataset", {}), self.facts.get("model", {})
        return f"{model.get('name', 'baselines')} on {data.get('name', 'data')} {data.get('version', '')}".strip()

    def breakdown(self) -> Iterator[tuple[str, list[str], list[Row]]]:
        """Yields metric, traits and rows of each table per trait."""
        for name in TRAIT_METRICS:
            known = {trait for row in self.rows for trait, table in row.traits.items() if name in table}
            traits = [trait for trait in dict.fromkeys(t for row in self.rows for t in row.traits) if trait in known]
            rows = [row for row in self.rows if any(name in table for table in row.traits.values())]
            if len(traits) > 1:
                yield name, traits, rows

    def metric_names(self, kind: str = "all") -> list[str]:
        """Returns the metrics that any row has for a kind of question, in the order of :data:`METRICS`."""
        return [name for name in METRICS if any(name in row.tables.get(kind, {}) for row in self.rows)]

    def kinds(self) -> list[str]:
        """Returns the kinds of questions that were asked."""
        return [kind for kind in TABLE_TITLES if kind != "all" and any(kind in row.tables for row in self.rows)]

    def to_markdown(self) -> str:
        """Returns the tables, the gains and the meaning of every metric as Markdown."""
        lines = [f"# {self.title}", ""]
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
                f"| {gain.row} | {gain.against} | {TABLE_TITLES[gain.kind]} | {METRICS[gain.metric].title} | "
                f"{_text(gain.difference, sign=True)} |"
                for gain in self.gains
            ]
            lines += [""]
        for name, traits, rows in self.breakdown():
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
                writer.writerow([*map(escaped, (record.name, item.picture, item.concept, item.kind, item.trait)), *cells])
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
        from concept_cam.core import drawing
        from concept_cam.evaluation.page import example_cells

        cells, names = example_cells(
            self.examples, [row.name for row in self.rows] if rows is None else [self.row(name).name for name in rows]
        )
        if not cells:
            raise ConfigurationError("the report has no examples: evaluate with examples=8 or so.")
        images = [image for line in cells for image in line]
        titles = [title for example in self.examples for title in (f"{example.target}", *names)]
        return drawing.sheet(images, columns=len(names) + 1, titles=titles)

    def to_html(self) -> str:
        """Returns one self-contained page: tables, gains, breakdown per trait, examples, definitions."""
        from concept_cam.evaluation.page import page

        return page(self)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes ``report.html``, ``report.json``, ``report.md`` and ``questions.csv``, each whole or not at all.

        Returns:
            The folder.

        Raises:
            OutputError: A file exists and ``overwrite`` is false, or cannot be written.
        """
        from concept_cam.core.files import make_directory, write_file

        where = make_directory(folder)
        facts = json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)
        for name, text in zip(REPORT_FILES, (facts, self.to_markdown(), self.to_csv(), self.to_html()), strict=True):
            write_file(where / name, text.encode("utf-8"), overwrite=overwrite)
        return where


def _text(interval: Interval | None, sign: bool = False) -> str:
    if interval is None or math.isnan(interval.value):
        return ""
    form = "{:+.3f}" if sign else "{:.3f}"
    if math.isnan(interval.low):
        return form.format(interval.value)
    return f"{form.format(interval.value)} [{form.format(interval.low)}, {form.format(interval.high)}]"
