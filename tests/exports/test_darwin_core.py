"""Darwin Core: terms of the standard, calls with their ontology ids, measures with unit and accuracy."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from concept_cam.exports import export
from concept_cam.exports.darwin_core import DARWIN_CORE_COLUMNS, EXTENDED_COLUMNS
from tests.exports.planted import ODD_NAMES, Planted

OBO = "http://purl.obolibrary.org/obo/"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return read(export(planted.path, "darwin-core", tmp_path_factory.mktemp("dwc") / "mof.csv"))


def test_every_column_is_a_term_of_the_standard() -> None:
    with (Path(__file__).parent / "standards" / "darwin_core_measurement_terms.tsv").open(encoding="utf-8", newline="") as file:
        known = {row["iri"] for row in csv.DictReader(file, delimiter="\t")}
    for name in DARWIN_CORE_COLUMNS:
        space = "http://rs.tdwg.org/dwc/iri/" if name.startswith("dwciri:") else "http://rs.tdwg.org/dwc/terms/"
        assert space + name.removeprefix("dwciri:") in known, name


def test_calls(planted: Planted, rows: list[dict[str, str]]) -> None:
    by_id = {row["measurementID"]: row for row in rows}
    assert len(by_id) == len(rows)
    for record in planted.records:
        assert (record["record_key"] in by_id) == (not record["abstained"])
    row = by_id[planted.record(ODD_NAMES[1], "caudal_fin_shape")["record_key"]]
    assert row["occurrenceID"] == "urn:occ:1"
    assert row["scientificName"] == "Danio rerio"
    assert row["measurementRemarks"].endswith('; rights: CC BY 4.0, "quoted"; creator: Ada Løv')
    assert row["measurementType"] == "caudal fin shape"
    assert row["measurementValue"] == "rounded"
    assert row["dwciri:measurementType"] == f"{OBO}UBERON_4000164"
    assert row["dwciri:measurementValue"] == ""
    assert row["measurementUnit"] == ""
    assert row["measurementDeterminedBy"] == "concept-cam 0.1.0 (machine), model tiny/planted"
    assert row["measurementDeterminedDate"] == "2026-01-02T03:05:06+00:00"
    assert "after EXIF orientation" in row["measurementMethod"]
    assert row["measurementRemarks"].startswith("probability 0.590; machine-made; picture other/")
    head = by_id[planted.record(ODD_NAMES[1], "parts", "head")["record_key"]]
    assert (head["measurementType"], head["measurementValue"]) == ("head", "present")


def test_measures_stand_below_their_call(planted: Planted, rows: list[dict[str, str]]) -> None:
    by_id = {row["measurementID"]: row for row in rows}
    fin = planted.record(ODD_NAMES[0], "caudal_fin_shape")
    length = by_id[f"{fin['record_key']}:length"]
    assert length["parentMeasurementID"] == fin["record_key"]
    assert (length["measurementType"], length["measurementUnit"], length["dwciri:measurementUnit"]) == (
        "caudal fin region length",
        "px",
        "",
    )
    assert float(length["measurementValue"]) == fin["length_px"]
    assert length["measurementAccuracy"] == "8.0"
    assert by_id[f"{fin['record_key']}:width"]["measurementAccuracy"] == ""
    assert f"{fin['record_key']}:eccentricity" not in by_id  # Not a number: no measurement.
    assert by_id[f"{fin['record_key']}:orientation"]["dwciri:measurementUnit"] == f"{OBO}UO_0000185"
    head = planted.record(ODD_NAMES[0], "parts", "head")
    scaled = by_id[f"{head['record_key']}:length"]
    assert float(scaled["measurementValue"]) == head["length_px"] / 2
    assert (scaled["measurementUnit"], scaled["measurementAccuracy"]) == ("mm", "4.0")
    assert scaled["dwciri:measurementUnit"] == f"{OBO}UO_0000016"
    area = by_id[f"{head['record_key']}:area"]
    assert (float(area["measurementValue"]), area["measurementUnit"]) == (head["area_px2"] / 4, "mm²")
    assert area["dwciri:measurementUnit"] == f"{OBO}UO_0000082"


def test_distances(planted: Planted, rows: list[dict[str, str]]) -> None:
    lengths = [row for row in rows if row["measurementType"] == "standard_length"]
    assert len(lengths) == 4  # One is not known.
    assert {(row["measurementValue"], row["measurementUnit"], row["parentMeasurementID"]) for row in lengths} == {("40.0", "px", "")}
    assert {row["measurementID"] for row in lengths} <= {record["record_key"] for record in planted.records}


def test_extended_form_has_the_same_rows_under_its_own_names(planted: Planted, rows: list[dict[str, str]], tmp_path: Path) -> None:
    extended = read(export(planted.path, "darwin-core-extended", tmp_path / "emof.csv"))
    assert tuple(extended[0]) == EXTENDED_COLUMNS
    assert [list(row.values()) for row in extended] == [list(row.values()) for row in rows]
    assert {"measurementTypeID", "measurementValueID", "measurementUnitID"} == set(EXTENDED_COLUMNS) - set(DARWIN_CORE_COLUMNS)


def test_quality_is_the_value_s_address(tmp_path: Path, planted: Planted) -> None:
    from tests.exports.planted import write_run

    record = {
        **planted.records[0],
        "quality": "truncated",
        "quality_id": "PATO:0000936",
        "quality_match": "synonym",
    }
    write_run(tmp_path / "run", [record], ("occurrenceID", "rights", "creator", "species"), parts=1)
    row = read(export(tmp_path / "run", "darwin-core-extended", tmp_path / "x.csv"))[0]
    assert row["measurementValueID"] == f"{OBO}PATO_0000936"
    assert "quality truncated (synonym match)" in row["measurementRemarks"]


def test_specimens_are_named(tray: Planted, tmp_path: Path) -> None:
    calls = [row for row in read(export(tray.path, "darwin-core", tmp_path / "x.csv")) if not row["parentMeasurementID"]]
    assert [row["measurementRemarks"].rpartition("; ")[2] for row in calls] == [
        "specimen 0",
        "specimen 0",
        "specimen 1",
        "specimen 1",
    ]
    assert {row["measurementType"] for row in calls} == {"body proper: body colour"}
