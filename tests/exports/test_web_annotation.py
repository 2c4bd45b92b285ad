"""W3C Web Annotation: the model's members, and an SVG outline that gives the planted mask back."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.draw import polygon2mask

from concept_cam.exports import export
from tests.exports.planted import ODD_NAMES, Planted, write_run

MOTIVATIONS = {
    "assessing", "bookmarking", "classifying", "commenting", "describing", "editing", "highlighting", "identifying", "linking",
    "moderating", "questioning", "replying", "tagging",
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def page(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return json.loads(export(planted.path, "web-annotation", tmp_path_factory.mktemp("wa") / "page.json").read_text(encoding="utf-8"))


def selectors(annotation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    given = annotation["target"].get("selector", [])
    return {selector["type"]: selector for selector in (given if isinstance(given, list) else [given])}


def rasterise(svg: str) -> np.ndarray:
    """The even-odd rule, one outline after the other."""
    root = ET.fromstring(svg)
    size = (int(root.attrib["height"]), int(root.attrib["width"]))
    path = root.find(f"{SVG}path")
    assert path is not None
    assert path.get("fill-rule") == "evenodd"
    mask = np.zeros(size, bool)
    for outline in path.attrib["d"].removeprefix("M").removesuffix(" Z").split(" Z M"):
        points = np.array([[float(number) for number in pair.split(",")] for pair in outline.split(" L")])
        mask ^= polygon2mask(size, points[:, ::-1] - 0.5)  # skimage puts a pixel's centre on the integer.
    return mask


def test_members_of_the_model(planted: Planted, page: dict[str, Any]) -> None:
    assert page["@context"] == "http://www.w3.org/ns/anno.jsonld"
    assert page["type"] == "AnnotationPage"
    assert re.match(r"urn:", page["id"])
    assert "after EXIF orientation" in page["label"]
    ids = [annotation["id"] for annotation in page["items"]]
    assert ids == [f"urn:concept-cam:{record['record_key']}" for record in planted.records if not record["abstained"]]
    for annotation in page["items"]:
        assert annotation["type"] == "Annotation"
        assert annotation["motivation"] in MOTIVATIONS
        assert annotation["created"] == "2026-01-02T03:05:06+00:00"
        assert {body["purpose"] for body in annotation["body"]} <= MOTIVATIONS
        assert not re.search(r"[\s<>\"{}]", annotation["target"]["source"])  # An IRI reference has none of these.


def test_box_and_outline_are_the_planted_region(planted: Planted, page: dict[str, Any]) -> None:
    checked = 0
    for annotation in page["items"]:
        mask = planted.masks.get(annotation["id"].rpartition(":")[2])
        if mask is None:
            continue
        found = selectors(annotation)
        assert found["FragmentSelector"]["conformsTo"] == "http://www.w3.org/TR/media-frags/"
        kind, _, numbers = found["FragmentSelector"]["value"].partition(":")
        rows, columns = np.nonzero(mask)
        assert kind == "xywh=pixel"
        assert [int(number) for number in numbers.split(",")] == [
            columns.min(),
            rows.min(),
            np.ptp(columns) + 1,
            np.ptp(rows) + 1,
        ]
        assert np.array_equal(rasterise(found["SvgSelector"]["value"]), mask)
        checked += 1
    assert checked == 9


def test_bodies_and_whole_pictures(planted: Planted, page: dict[str, Any]) -> None:
    by_id = {annotation["id"].rpartition(":")[2]: annotation for annotation in page["items"]}
    fin = by_id[planted.record(ODD_NAMES[1], "caudal_fin_shape")["record_key"]]
    assert fin["body"][0]["value"] == "caudal fin shape: rounded"
    assert {"http://purl.obolibrary.org/obo/UBERON_4000164"} == {body["source"] for body in fin["body"] if "source" in body}
    assert fin["target"]["dc:rights"] == 'CC BY 4.0, "quoted"'
    assert "rights" not in fin["target"]  # The term asks for an IRI.
    assert fin["target"]["creator"] == {"name": "Ada Løv"}
    named = {body["value"] for body in fin["body"] if body["purpose"] == "identifying"}
    assert named == {"occurrenceID: urn:occ:1", "scientificName: Danio rerio"}
    absent = by_id[planted.record(ODD_NAMES[4], "adipose_fin")["record_key"]]
    assert absent["target"] == {
        "type": "SpecificResource",
        "source": "https://example.org/gone%20away.png",
        "dc:rights": 'CC BY 4.0, "quoted"',
        "creator": {"name": "Ada Løv"},
    }
    line = by_id[planted.record(ODD_NAMES[1], "standard_length")["record_key"]]
    assert line["body"][0]["value"] == "standard_length: 40 px"
    assert 'd="M2,10 L42,10"' in selectors(line)["SvgSelector"]["value"]


def test_one_annotation_per_call(tray: Planted, tmp_path: Path) -> None:
    written = json.loads(export(tray.path, "web-annotation", tmp_path / "x.json").read_text(encoding="utf-8"))
    assert len(written["items"]) == 4


def test_iris_are_rights_and_creators(planted: Planted, tmp_path: Path) -> None:
    licence, person = "https://creativecommons.org/licenses/by/4.0/", "https://orcid.org/0000-0002-1825-0097"
    record = {**planted.record(ODD_NAMES[0], "caudal_fin_shape"), "input_rights": licence, "input_creator": person, "media_uri": None}
    write_run(tmp_path / "run", [record], ("occurrenceID", "rights", "creator", "species"), parts=1)
    path = export(tmp_path / "run", "web-annotation", tmp_path / "x.json", base="https://museum.org/photos")
    (item,) = json.loads(path.read_text(encoding="utf-8"))["items"]
    assert (item["target"]["rights"], item["target"]["creator"]) == (licence, person)
    assert item["target"]["source"] == "https://museum.org/photos/fish/%C3%A9%C3%A9n%20vis%20%E9%B1%BC.jpg"
