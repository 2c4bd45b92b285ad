"""The long table: every value of the run is in the CSV file."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from concept_cam.collection.schema import RUN_COLUMNS
from concept_cam.exports import export
from tests.exports.planted import Planted


def test_every_value_comes_back(planted: Planted, tmp_path: Path) -> None:
    path = export(planted.path, "csv", tmp_path / "table.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(planted.records)
    expected = [column.name for column in RUN_COLUMNS if not column.name.startswith("scores")] + [
        "input_occurrenceID",
        "input_rights",
        "input_creator",
        "input_species",
    ]
    assert list(rows[0]) == expected
    for row, record in zip(rows, planted.run.records(), strict=True):
        for name, text in row.items():
            value = record.get(name)
            if value is None or (isinstance(value, float) and math.isnan(value)):
                assert text == ""
            elif isinstance(value, bool):
                assert text == str(value).lower()
            elif isinstance(value, int | float):
                assert float(text) == value
            elif isinstance(value, str):
                assert text == value
            else:
                assert json.loads(text) == value
