"""Observations with planted values: the tables, the gains and every form in which a report is written."""

from __future__ import annotations

import csv
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from concept_cam.core.errors import ConfigurationError, OutputError
from concept_cam.evaluation.observations import METRICS, Observation, RowRecord, ShownExample
from concept_cam.evaluation.report import Report
from concept_cam.evaluation.summary import best_value

ODD = 'fish <b>&"quoted".png'


def record(name: str, gamma: float | None, values: list[float], method: str = "direct") -> RowRecord:
    observations = tuple(
        Observation(f"picture{i}" if i else ODD, f"concept{i}", "part" if i % 2 else "state", f"trait{i % 2}", True, {"ap": value})
        for i, value in enumerate(values)
    )
    return RowRecord(name, method, "value", gamma, 0.5, 0.25, 0.125, None, observations)


@pytest.fixture(scope="module")
def report() -> Report:
    example = ShownExample(
        ODD,
        "concept0",
        "a <fin>",
        "part",
        "trait0",
        np.full((20, 30, 3), 90, np.uint8),
        np.eye(20, 30, dtype=bool),
        {"with": np.eye(20, 30)},
    )
    records = [record("with", 1.0, [0.9, 0.7, 0.5]), record("without", 0.0, [0.5, 0.6, 0.4]), record("center", None, [0.1, 0.1, math.nan])]
    facts = {"dataset": {"name": "planted", "version": 1, "pictures": 3}, "model": {"name": "tiny"}}
    return Report.build(records, [example], [{"picture": ODD, "error": "torn & bent"}], facts, draws=200)


def test_rows_are_means_over_questions(report: Report) -> None:
    assert report.row("with").tables["all"]["ap"].value == pytest.approx(0.7)
    assert report.row("with").tables["state"]["ap"].value == pytest.approx(0.7)
    assert report.row("with").traits["trait1"]["ap"].value == pytest.approx(0.7)
    assert report.row("center").tables["all"]["ap"].value == pytest.approx(0.1)  # What is not a number does not count.
    with pytest.raises(ConfigurationError, match="no row 'nothing'; it has with, without, center"):
        report.row("nothing")


def test_gains_are_paired(report: Report) -> None:
    (gain,) = [gain for gain in report.gains if gain.kind == "all"]
    assert (gain.row, gain.against, gain.metric) == ("with", "without", "ap")
    assert gain.difference.value == pytest.approx(np.mean([0.4, 0.1, 0.1]))
    assert gain.difference.count == 3
    assert report.compare("without", "with", "ap").value == pytest.approx(-gain.difference.value)
    with pytest.raises(ConfigurationError, match="unknown metric"):
        report.compare("with", "without", "app")


def test_best_is_the_best_of_the_methods(report: Report) -> None:
    assert best_value(report.rows, "all", "ap") == pytest.approx(0.7)
    assert best_value(report.rows[:1], "all", "ap") is None  # Nobody to be better than.
    assert METRICS["deletion"].better == "low"


class Page(HTMLParser):
    """Collects the text of cells, and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in ("meta", "img") else [tag]
        self.sources += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.cells and self.open[-1] in ("td", "th", "small"):
            self.cells[-1] += data


def test_the_page_holds_the_tables_and_loads_nothing(report: Report) -> None:
    page = Page(report.to_html())
    assert page.open == []
    interval = report.row("with").tables["all"]["ap"]
    assert f"{interval.value:.3f}{interval.low:.3f} to {interval.high:.3f}" in page.cells
    assert f"{ODD}a <fin>" in page.cells  # Names are text, whatever they hold.
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert len(page.sources) == 2
    assert "torn &amp; bent" in report.to_html()


def test_the_table_of_questions_runs_in_no_spreadsheet() -> None:
    observation = Observation("=1+1.png", "@fin", "part", "tail", True, {"ap": 0.5})
    told = Report.build([RowRecord("with", "direct", "value", 1.0, 0.5, 0.25, 0.125, None, (observation,))], [], [], {}, draws=200)
    (row,) = csv.DictReader(io.StringIO(told.to_csv()))
    assert (row["picture"], row["concept"], row["ap"]) == ("'=1+1.png", "'@fin", "0.5")


def test_markdown_json_and_csv_hold_the_same_numbers(report: Report, tmp_path: Path) -> None:
    folder = report.save(tmp_path / "out")
    value = report.row("with").tables["all"]["ap"].value
    assert f"| with | {value:.3f} [" in (folder / "report.md").read_text(encoding="utf-8")
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert content["rows"][0]["tables"]["all"]["ap"]["value"] == pytest.approx(value)
    rows = list(csv.DictReader(io.StringIO((folder / "questions.csv").read_text(encoding="utf-8"))))
    assert np.mean([float(row["ap"]) for row in rows if row["row"] == "with"]) == pytest.approx(value)
    with pytest.raises(OutputError, match="exists"):
        report.save(folder)
