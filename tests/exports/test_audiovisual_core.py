"""Audiovisual Core: terms of the standard, and fractions that lead back to the same pixels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from concept_cam.exports import export
from concept_cam.exports.audiovisual_core import MEDIA_COLUMNS, SUBJECT_PART_ADDRESS, SUBJECT_PARTS, fractions, subject_part
from tests.exports.planted import ODD_NAMES, Planted, write_run

STANDARDS = Path(__file__).parent / "standards"


def terms(name: str, column: str) -> list[str]:
    with (STANDARDS / name).open(encoding="utf-8", newline="") as file:
        return [row[column] for row in csv.DictReader(file, delimiter="\t")]


@pytest.fixture(scope="module")
def rows(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    path = export(planted.path, "audiovisual-core", tmp_path_factory.mktemp("ac") / "roi.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_column_is_a_term_of_the_standard() -> None:
    known = set(terms("audiovisual_core_terms.tsv", "term"))
    # Where a term of dcterms asks for an IRI, the element of the same name in dc: takes words.
    assert {name.replace("dc:", "dcterms:") for name in MEDIA_COLUMNS} <= known


def test_subject_parts_are_those_of_the_standard() -> None:
    known = dict(zip(terms("ac_subject_part.tsv", "label"), terms("ac_subject_part.tsv", "localName"), strict=True))
    assert {label: local for label, local in known.items() if local not in ("p", "p0000")} == SUBJECT_PARTS


@pytest.mark.parametrize(
    ("entity", "local"),
    [
        ("head", "p0013"),
        ("Caudal fin", "p0030"),
        ("compound eye", "p0024"),
        ("skin of body", None),
        ("opercular flap", None),
        (None, None),
    ],
)
def test_subject_part(entity: str | None, local: str | None) -> None:
    assert subject_part(entity) == (local and SUBJECT_PART_ADDRESS + local)


def test_fractions_round_back_for_any_box() -> None:
    rng = np.random.default_rng(0)
    cases = [(0, 1, 1), (0, 7, 7), (6, 1, 7), (2, 1, 3), (99_999, 1, 100_000)]
    for whole in rng.integers(2, 60_000, 2000).tolist():
        start = int(rng.integers(0, whole))
        cases.append((start, int(rng.integers(1, whole - start + 1)), whole))
    for start, size, whole in cases:
        position, extent = map(float, fractions(start, size, whole))
        assert round(position * whole) == start
        assert round((position + extent) * whole) == start + size
        assert round(extent * whole) == size
        assert extent > 0
        # In exact decimals: the standard's limit knows no rounding.
        ends = [int(text.replace(".", "")) for text in fractions(start, size, whole)]
        assert sum(ends) <= 10**10


def test_regions_are_the_planted_boxes(planted: Planted, rows: list[dict[str, str]]) -> None:
    by_key = {record["record_key"]: record for record in planted.records}
    expected = {key for key, mask in planted.masks.items() if mask.any() and not by_key[key]["abstained"]}
    assert {row["dcterms:identifier"].removeprefix("urn:concept-cam:") for row in rows} == expected
    for row in rows:
        record = by_key[row["dcterms:identifier"].removeprefix("urn:concept-cam:")]
        for axis, side, whole in (("x", "width", "image_width"), ("y", "height", "image_height")):
            assert round(float(row[f"ac:{axis}Frac"]) * record[whole]) == record[f"box_{axis}"]
            assert round(float(row[f"ac:{side}Frac"]) * record[whole]) == record[f"box_{side}"]
        assert "after EXIF orientation" in row["ac:comments"]


def test_terms_of_one_region(planted: Planted, rows: list[dict[str, str]]) -> None:
    key = planted.record(ODD_NAMES[4], "caudal_fin_shape")["record_key"]
    (row,) = [row for row in rows if row["dcterms:identifier"].endswith(key)]
    assert row["ac:isROIOf"] == "https://example.org/gone%20away.png"
    assert row["ac:associatedSpecimenReference"] == "urn:occ:4"
    assert row["dwc:scientificName"] == "Danio rerio"
    assert row["dc:rights"] == 'CC BY 4.0, "quoted"'
    assert row["dc:creator"] == "Ada Løv"
    assert row["dcterms:rights"] == row["dcterms:creator"] == ""
    assert row["ac:subjectPart"] == "http://rs.tdwg.org/acpart/values/p0030"
    assert row["ac:subjectPartLiteral"] == "caudal fin"
    assert row["dcterms:description"] == "caudal fin shape: rounded"
    assert row["Iptc4xmpExt:CVterm"] == "http://purl.obolibrary.org/obo/UBERON_4000164"
    assert row["ac:metadataCreatorLiteral"] == "concept-cam 0.1.0 (machine), model tiny/planted"
    assert row["ac:hashValue"] == "ab" * 32  # of a picture that is not on this disk


def test_a_licence_beside_words_is_kept(planted: Planted, tmp_path: Path) -> None:
    licence = "https://creativecommons.org/licenses/by/4.0/"
    said = {"input_rights": "© Museum Zürich", "input_license": licence, "input_creator": "José Núñez"}
    columns = ("rights", "license", "creator", "occurrenceID", "species")
    write_run(tmp_path / "run", [{**planted.record(ODD_NAMES[0], "caudal_fin_shape"), **said}], columns, parts=1)
    with export(tmp_path / "run", "audiovisual-core", tmp_path / "roi.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["dcterms:rights"], row["dc:rights"]) == (licence, "© Museum Zürich")
    assert (row["dcterms:creator"], row["dc:creator"]) == ("", "José Núñez")
    (item,) = json.loads(export(tmp_path / "run", "web-annotation", tmp_path / "x.json").read_text(encoding="utf-8"))["items"]
    assert (item["target"]["rights"], item["target"]["dc:rights"]) == (licence, "© Museum Zürich")
    assert item["target"]["creator"] == {"name": "José Núñez"}


def test_iris_and_words_stand_under_their_own_terms(planted: Planted, tmp_path: Path) -> None:
    key = planted.record(ODD_NAMES[0], "caudal_fin_shape")["record_key"]
    records = [
        {
            **planted.record(ODD_NAMES[0], "caudal_fin_shape"),
            "input_rights": "https://creativecommons.org/licenses/by/4.0/",
            "input_creator": "https://orcid.org/0000-0002-1825-0097",
            "media_uri": None,
        }
    ]
    write_run(tmp_path / "run", records, ("occurrenceID", "rights", "creator", "species"), parts=1)
    path = export(tmp_path / "run", "audiovisual-core", tmp_path / "roi.csv", base="https://museum.org/photos/")
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["dcterms:identifier"].endswith(key)
    assert row["dcterms:rights"] == "https://creativecommons.org/licenses/by/4.0/"
    assert row["dcterms:creator"] == "https://orcid.org/0000-0002-1825-0097"
    assert row["dc:rights"] == row["dc:creator"] == ""
    assert row["ac:isROIOf"] == "https://museum.org/photos/fish/%C3%A9%C3%A9n%20vis%20%E9%B1%BC.jpg"
