"""The documented schema: one table of columns, from which all else follows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

from concept_cam.collection import schema  # noqa: E402
from concept_cam.collection.schema import (  # noqa: E402
    MEASURES,
    RUN_COLUMNS,
    arrow_schema,
    check_schema,
    image_key,
    markdown_table,
    passthrough_columns,
    record_key,
    table_from_records,
)
from concept_cam.core.errors import DataError  # noqa: E402
from concept_cam.core.regions import measure  # noqa: E402
from tests.exports.planted import make_record, ring  # noqa: E402


def minimal(**values: Any) -> dict[str, Any]:
    return make_record("a/b.jpg", (20, 30), "caudal_fin_shape", "shape", "forked", **values)


def test_names_are_unique_and_documented() -> None:
    names = [column.name for column in RUN_COLUMNS]
    assert len(set(names)) == len(names)
    assert not any(name.startswith(schema.PASSTHROUGH_PREFIX) for name in names)
    for column in RUN_COLUMNS:
        assert column.meaning.endswith("."), column.name
        assert column.frame in ("", "original", "grid")


def test_every_measure_of_regions_has_its_columns() -> None:
    names = {column.name: column for column in RUN_COLUMNS}
    measured = set(measure(ring((20, 30), (10, 10), 5)))
    assert {entry.name for entry in MEASURES} == measured - {"centroid_x", "centroid_y"}
    assert {"centroid_x", "centroid_y"} <= set(names)
    for entry in MEASURES:
        assert {entry.value, entry.uncertainty} <= set(names)
        assert (entry.metric is not None) == (entry.unit in ("px", "px2"))
        for metric in entry.metric or ():
            assert names[metric].unit in ("mm", "mm2")


def test_arrow_schema_carries_the_documentation() -> None:
    made = arrow_schema(["occurrenceID"])
    assert made.names == [*(column.name for column in RUN_COLUMNS), "input_occurrenceID"]
    field = made.field("box_x")
    assert (field.type, field.nullable) == (pa.int32(), True)
    assert field.metadata[b"unit"] == b"px"
    assert field.metadata[b"frame"] == b"original"
    assert not made.field("record_key").nullable
    assert passthrough_columns(made) == ("occurrenceID",)
    assert b"EXIF" in made.metadata[b"frame"]


def test_markdown_table_lists_every_column_once() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(RUN_COLUMNS) + 1
    for line, column in zip(lines[2:], RUN_COLUMNS, strict=False):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == f"`{column.name}`"
        assert cells[4] == ("yes" if column.nullable else "no")
        assert len(cells) == 6


def test_keys_are_stable_and_distinct() -> None:
    # Written down (made with sha256sum): a later release must find the same keys.
    assert image_key("fish/één.jpg") == "4576f42e48a804a39db5e355"
    assert record_key("a.jpg", 0, "fish", "parts", "head") == "2125923d8ef69ffa0c93265a"
    parts = [
        ("a", 1, "fish", "tail"),
        ("a", 11, "fish", "tail"),
        ("a1", 1, "fish", "tail"),
        ("a", 1, "fishtail", ""),
        ("a", 1, "fish", "tai"),
    ]
    keys = {record_key(*part) for part in parts} | {record_key("a", 1, "fish", "tail", "x"), image_key("a")}
    assert len(keys) == 7


def test_records_round_trip() -> None:
    values = {
        "probabilities": {"forked": 0.75, "rounded": 0.25},
        "contour": [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]],
        "input_site": "Ömsjö",
    }
    scores = {"scores": b"\x00\x3c" * 6, "scores_shape": [1, 2, 3], "scores_names": ["entity"]}
    table = table_from_records([minimal(**values, **scores), minimal()], ["site"])
    check_schema(table.schema, "a table")
    first, second = table.to_pylist(maps_as_pydicts="strict")
    assert {name: first[name] for name in values | scores} == values | scores
    assert second["probabilities"] is None
    assert second["input_site"] is None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({**minimal(), "colour": 1}, "unknown columns \\['colour'\\]"),
        ({**minimal(), "state": 3}, "column 'state' expects string"),
        ({**minimal(), "box_x": 2**40}, "column 'box_x' expects int32"),
        ({**minimal(), "state": "cut \ud83d"}, "column 'state' expects string.*surrogates"),
        ({**minimal(), "model": None}, "lacks a value for \\['model'\\]"),
    ],
)
def test_wrong_records_are_refused(record: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        table_from_records([record])


def test_wrong_tables_are_refused() -> None:
    good = arrow_schema()
    check_schema(good, "part-0")
    check_schema(good.remove(good.get_field_index("limit")), "part-0")  # A nullable column may come with a later release.
    with pytest.raises(DataError, match=r"'model'.*missing"):
        check_schema(good.remove(good.get_field_index("model")), "part-0")
    with pytest.raises(DataError, match="'score' is string, expected float"):
        check_schema(good.set(good.get_field_index("score"), pa.field("score", pa.string())), "part-0")
    with pytest.raises(DataError, match="unknown columns \\['site'\\]"):
        check_schema(good.append(pa.field("site", pa.string())), "part-0")
    with pytest.raises(DataError, match="schema version 99"):
        check_schema(good.with_metadata({"concept_cam_schema": "99"}), "part-0")


def test_no_torch() -> None:
    code = "import sys, concept_cam.collection.schema, concept_cam.collection.runs, concept_cam.exports; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
