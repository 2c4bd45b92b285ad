"""What the writer of runs reads back: the list of errors wherever it was cut, and what differs between two configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

from concept_cam.collection.run_writer import differences, errors_text
from concept_cam.collection.runs import ERRORS_FILE, read_errors

ERRORS = [
    {"source": "日本/één.jpg", "path": "/фото/日本/één.jpg", "reason": "cut short"},
    {"source": 'a, "b".jpg', "path": "/a", "reason": "empty"},
    {"source": "🐟.png", "path": "", "reason": "no picture: 魚"},
]


def test_errors_cut_after_any_byte_give_the_whole_lines(tmp_path: Path) -> None:
    content = errors_text(ERRORS).encode("utf-8")
    ends = [len(errors_text(ERRORS[:count]).encode("utf-8")) for count in range(1, len(ERRORS) + 1)]
    for length in range(len(content) + 1):
        (tmp_path / ERRORS_FILE).write_bytes(content[:length])
        assert read_errors(tmp_path) == ERRORS[: sum(end <= length for end in ends)], length


def test_errors_with_line_endings_of_another_system_are_read(tmp_path: Path) -> None:
    (tmp_path / ERRORS_FILE).write_bytes(errors_text(ERRORS).replace("\n", "\r\n").encode("utf-8"))
    assert read_errors(tmp_path) == ERRORS


def test_errors_run_in_no_spreadsheet_and_are_read_as_they_were(tmp_path: Path) -> None:
    names = ("=1+1.jpg", "'=2.jpg", "-5", "@a.jpg")
    errors = [{"source": name, "path": f"/a/{name}", "reason": "cut short"} for name in names]
    text = errors_text(errors)
    assert [line.split(",")[0] for line in text.splitlines()[1:]] == ["'=1+1.jpg", "''=2.jpg", "-5", "'@a.jpg"]
    (tmp_path / ERRORS_FILE).write_text(text, encoding="utf-8")
    assert read_errors(tmp_path) == errors


def test_differences_are_named() -> None:
    old = {"gamma": 1.0, "input": {"given": ["a"], "layout": "list"}, "boxes": None}
    assert differences(old, old) == []
    assert differences(old, {**old, "gamma": 0.5}) == ["gamma: 1.0 -> 0.5"]
    assert differences(old, {**old, "boxes": "x", "new": 1}) == ['boxes: null -> "x"', "new: null -> 1"]


def test_a_root_counts_where_both_runs_note_it() -> None:
    old = {"input": {"layout": "list"}}
    noted = {"input": {"layout": "list", "root": "/A"}}
    assert differences(old, noted) == differences(noted, old) == []
    assert differences(noted, {"input": {"layout": "list", "root": None}}) == ['input.root: "/A" -> null']
