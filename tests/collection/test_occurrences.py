"""Two occurrences that share one photograph, as collections at GBIF often have them, are both records, in every order and through every
resume.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

import pyarrow as pa
import pyarrow.parquet as pq

from concept_cam.collection.annotation import annotate
from concept_cam.collection.runs import Run
from concept_cam.collection.schema import image_key
from concept_cam.exports import export
from concept_cam.localizer import Localizer
from tests.colour_world import PACK, write_pictures
from tests.planted import PlantedBackbone

ORDERS = {
    "adjacent": [("o1", "00000.png"), ("o2", "00000.png"), ("o3", "00001.png")],
    "apart": [("o1", "00000.png"), ("o3", "00001.png"), ("o2", "00000.png")],
    "the other way round": [("o2", "00000.png"), ("o3", "00001.png"), ("o1", "00000.png")],
    "with one listed twice": [("o1", "00000.png"), ("o2", "00000.png"), ("o1", "00000.png"), ("o3", "00001.png"), ("o2", "00000.png")],
}


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(64, 8))


@pytest.fixture
def names(tmp_path: Path) -> dict[str, str]:
    good, _ = write_pictures(tmp_path / "in", 2)
    return {"00000.png": good[0], "00001.png": good[1]}


def write(path: Path, rows: list[tuple[str, str]], kind: str, column: str = "occurrenceID") -> Path:
    if kind == "parquet":
        pq.write_table(pa.table({column: [row[0] for row in rows], "identifier": [row[1] for row in rows]}), path.with_suffix(".parquet"))
        return path.with_suffix(".parquet")
    between = "\t" if kind == "tsv" else ","
    path.with_suffix(f".{kind}").write_text("".join(f"{one}{between}{two}\n" for one, two in [(column, "identifier"), *rows]))
    return path.with_suffix(f".{kind}")


def occurrences(run: Run) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in run.records():
        found.setdefault(record["input_occurrenceID"], set()).add(record["record_key"])
    return found


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("order", ORDERS)
def test_both_are_records(tmp_path: Path, names: dict[str, str], localizer: Localizer, kind: str, order: str) -> None:
    rows = [(one, names[two]) for one, two in ORDERS[order]]
    table = write(tmp_path / "in" / "media", rows, kind)
    run = annotate(table, tmp_path / "run", PACK, localizer=localizer, workers=0)
    found = occurrences(run)
    assert found.keys() == {"o1", "o2", "o3"}
    assert len({len(keys) for keys in found.values()}) == 1
    assert len(set.union(*found.values())) == run.count, "a record key is there twice"
    assert run.info["counts"]["pictures"] == 3
    keys = {record["input_occurrenceID"]: record["image_key"] for record in run.records()}
    assert keys[rows[0][0]] == image_key(rows[0][1]), "the first one has the picture's own key"
    # Both say the same of the same picture.
    calls: dict[str, list[Any]] = {}
    for record in run.records():
        calls.setdefault(record["input_occurrenceID"], []).append((record["character"], record["state"], record["score"]))
    assert calls["o1"] == calls["o2"]
    written = tmp_path / "out.csv"
    export(run.path, "darwin-core", written)
    with written.open(encoding="utf-8-sig", newline="") as stream:
        assert {row["occurrenceID"] for row in csv.DictReader(stream)} == {"o1", "o2", "o3"}


def test_resuming_neither_doubles_nor_loses(tmp_path: Path, names: dict[str, str], localizer: Localizer) -> None:
    rows = [("o1", names["00000.png"]), ("o3", names["00001.png"]), ("o2", names["00000.png"]), ("o4", names["00000.png"])]
    table = write(tmp_path / "in" / "media", rows, "csv")
    whole = annotate(table, tmp_path / "whole", PACK, localizer=localizer, workers=0)
    for limit in (1, 2, 3, 4):
        part = annotate(table, tmp_path / "run", PACK, localizer=localizer, workers=0, limit=limit, resume=True)
        assert part.info["counts"]["pictures"] == limit
    again = annotate(table, tmp_path / "run", PACK, localizer=localizer, workers=0, resume=True)
    assert occurrences(again) == occurrences(whole)
    assert again.count == whole.count


def test_rows_that_say_nothing_of_an_occurrence_count_where_they_differ(
    tmp_path: Path, names: dict[str, str], localizer: Localizer
) -> None:
    rows = [("left", names["00000.png"]), ("right", names["00000.png"]), ("left", names["00000.png"])]
    run = annotate(write(tmp_path / "in" / "m", rows, "csv", "side"), tmp_path / "run", PACK, localizer=localizer, workers=0)
    assert {record["input_side"] for record in run.records()} == {"left", "right"}
    assert run.info["counts"]["pictures"] == 2


def test_a_picture_that_cannot_be_read_is_an_error_of_each(tmp_path: Path, names: dict[str, str], localizer: Localizer) -> None:
    rows = [("o1", "none.png"), ("o3", names["00001.png"]), ("o2", "none.png")]
    table = write(tmp_path / "in" / "media", rows, "csv")
    for resume in (False, True):
        run = annotate(table, tmp_path / "run", PACK, localizer=localizer, workers=0, resume=resume)
        assert [error["source"] for error in run.errors()] == ["none.png", "none.png#o2"]


def test_one_file_under_several_names_is_several_pictures(tmp_path: Path, names: dict[str, str], localizer: Localizer) -> None:
    # Keys follow from the text, so that every shard and every earlier run has the same ones; the guide to inputs says so.
    path = names["00000.png"]
    lines = [path, path, f"./{path}", str(tmp_path / "in" / path)]
    run = annotate("-", tmp_path / "run", PACK, localizer=localizer, workers=0, lines=lines, root=str(tmp_path / "in"))
    groups = [group[0] for group in run.pictures()]
    assert [row["source"] for row in groups] == lines[1:]
    assert len({row["path"] for row in groups}) == 1
    assert run.info["counts"]["duplicates"] == 1


def test_several_pictures_of_one_cell(tmp_path: Path, names: dict[str, str], localizer: Localizer) -> None:
    both = f"{names['00000.png']} | {names['00001.png']}"
    table = tmp_path / "in" / "occurrence.txt"
    table.write_text(f'occurrenceID\tassociatedMedia\tremarks\no1\t{both}\t"odd\no2\t{names["00001.png"]}\t\n')
    run = annotate(table, tmp_path / "run", PACK, localizer=localizer, workers=0)
    found = {(record["input_occurrenceID"], record["source"], record["input_remarks"]) for record in run.records()}
    assert found == {("o1", names["00000.png"], '"odd'), ("o1", names["00001.png"], '"odd'), ("o2", names["00001.png"], "")}


def test_an_index_keeps_both(tmp_path: Path, names: dict[str, str], localizer: Localizer) -> None:
    from concept_cam.collection.indexing import build_index

    rows = [("o1", names["00000.png"]), ("o3", names["00001.png"]), ("o2", names["00000.png"])]
    table = write(tmp_path / "in" / "media", rows, "csv")
    build_index(table, tmp_path / "index", localizer=localizer, workers=0)
    run = annotate(tmp_path / "index", tmp_path / "run", PACK, localizer=localizer, workers=0)
    assert occurrences(run).keys() == {"o1", "o2", "o3"}
    assert run.info["counts"]["pictures"] == 3
