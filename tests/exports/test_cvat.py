"""CVAT: masks in its own run lengths, attributes as its loader wants them, corrected labels read back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.exports import export
from concept_cam.exports.cvat import NOT_CALLED, decode_mask, encode_mask, read_labels
from concept_cam.exports.survey import Label
from tests.exports.planted import ODD_NAMES, Planted, write_run


@pytest.fixture(scope="module")
def written(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(planted.path, "cvat", tmp_path_factory.mktemp("cvat") / "annotations.xml")


def slow_decode(element: ET.Element, height: int, width: int) -> np.ndarray:
    """CVAT's definition, pixel by pixel: runs of zeros and ones in turn, row by row within the box."""
    mask = np.zeros((height, width), bool)
    left, top, columns = (int(element.attrib[name]) for name in ("left", "top", "width"))
    position, value = 0, False
    for run in element.attrib["rle"].split(", "):
        for _ in range(int(run)):
            mask[top + position // columns, left + position % columns] = value
            position += 1
        value = not value
    assert position == columns * int(element.attrib["height"])
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1), bool),
        np.ones((3, 5), bool),
        np.eye(4, 7, dtype=bool),
        np.pad(np.ones((2, 3), bool), ((4, 0), (0, 6))),
        np.random.default_rng(0).random((9, 13)) > 0.5,
    ],
)
def test_mask_round_trip(mask: np.ndarray) -> None:
    attributes = encode_mask(mask)
    assert np.array_equal(decode_mask(attributes, mask.shape), mask)
    assert np.array_equal(slow_decode(ET.Element("mask", attributes), *mask.shape), mask)


def test_wrong_masks_are_refused() -> None:
    good = encode_mask(np.ones((2, 2), bool))
    with pytest.raises(DataError, match="sum to 3"):
        decode_mask({**good, "rle": "0, 3"}, (2, 2))
    with pytest.raises(DataError, match="leaves the picture"):
        decode_mask({**good, "left": "1"}, (2, 2))


def test_every_record_stands_as_mask_or_tag(planted: Planted, written: Path) -> None:
    root = ET.parse(written).getroot()
    assert root.findtext("version") == "1.1"
    assert "after EXIF orientation" in (root.findtext("meta/task/frame") or "")
    images = root.findall("image")
    assert [image.get("name") for image in images] == list(ODD_NAMES)
    assert [image.get("id") for image in images] == ["0", "1", "2", "3", "4"]
    seen = {}
    for image in images:
        height, width = int(image.attrib["height"]), int(image.attrib["width"])
        for element in image:
            values = {attribute.get("name"): attribute.text for attribute in element}
            key = str(values["record_key"])
            seen[key] = values["state"]
            if element.tag == "mask":
                assert np.array_equal(slow_decode(element, height, width), planted.masks[key])
            else:
                assert element.tag == "tag"
                assert not planted.masks.get(key, np.zeros(1)).any()
    expected = {r["record_key"]: r["state"] or NOT_CALLED for r in planted.records if r["kind"] != "distance"}
    assert seen == expected


def test_labels_offer_the_states(written: Path) -> None:
    labels = {label.findtext("name"): label for label in ET.parse(written).getroot().iterfind("meta/task/labels/label")}
    assert set(labels) == {"caudal_fin_shape", "adipose_fin", "parts: head", "parts: pelvic_fin"}
    for name, states, default in (
        ("caudal_fin_shape", ["forked", "rounded", "truncate", NOT_CALLED], NOT_CALLED),
        ("parts: head", ["head", NOT_CALLED], "head"),
    ):
        attribute = labels[name].find("attributes/attribute")
        assert attribute is not None
        assert attribute.findtext("name") == "state"
        assert (attribute.findtext("values") or "").split("\n") == states
        assert attribute.findtext("default_value") == default


def test_the_labels_of_the_task_constructor_are_those_of_the_annotations(written: Path) -> None:
    labels = json.loads(written.with_suffix(".labels.json").read_text(encoding="utf-8"))
    tree = ET.parse(written).getroot()
    used = {(element.get("label"), attribute.get("name")) for element in tree.iter() if element.get("label") for attribute in element}
    assert used == {(label["name"], attribute["name"]) for label in labels for attribute in label["attributes"]}
    offered = {label["name"]: next(a["values"] for a in label["attributes"] if a["name"] == "state") for label in labels}
    states = {
        (element.get("label"), attribute.text)
        for element in tree.iter()
        if element.get("label")
        for attribute in element
        if attribute.get("name") == "state"
    }
    assert all(state in offered[str(name)] for name, state in states)
    assert {label["type"] for label in labels} == {"any"}


def test_labels_are_read_back(planted: Planted, written: Path) -> None:
    expected = {
        Label(r["source"], r["character"], r["state"], reviewed=False)
        for r in planted.records
        if r["kind"] != "distance" and not r["abstained"]
    }
    labels = read_labels(written)
    assert set(labels) == expected
    assert len(labels) == len(expected) == 14


def test_a_tick_says_that_a_person_looked(written: Path, tmp_path: Path) -> None:
    """``reviewed`` is a check box of every label; exports leave it open."""
    tree = ET.parse(written)
    for label in tree.getroot().iter("label"):
        box = next(item for item in label.iter("attribute") if item.findtext("name") == "reviewed")
        assert (box.findtext("input_type"), box.findtext("default_value")) == ("checkbox", "false")
    marks = [item for item in tree.getroot().iter("attribute") if item.get("name") == "reviewed"]
    assert marks
    assert {item.text for item in marks} == {"false"}
    marks[0].text = "true"
    tree.write(tmp_path / "ticked.xml", encoding="utf-8")
    labels = read_labels(tmp_path / "ticked.xml")
    assert sum(label.reviewed is True for label in labels) == 1
    assert sum(label.reviewed is False for label in labels) == len(labels) - 1


def test_a_tick_at_what_was_not_called_is_read_without_a_state(written: Path, tmp_path: Path) -> None:
    """So a file in which only such a one is ticked was gone through, and the rest of it was not looked at."""
    tree = ET.parse(written)
    marks = [
        attribute
        for element in tree.getroot().iter()
        if any(each.get("name") == "state" and each.text == NOT_CALLED for each in element)
        for attribute in element
        if attribute.get("name") == "reviewed"
    ]
    marks[0].text = "true"
    tree.write(tmp_path / "ticked.xml", encoding="utf-8")
    labels = read_labels(tmp_path / "ticked.xml")
    assert [label.state for label in labels if label.reviewed] == [""]
    assert len(labels) == 15


def test_corrections_are_read_back(written: Path, tmp_path: Path) -> None:
    tree = ET.parse(written)
    image = next(image for image in tree.getroot().iter("image") if image.get("name") == ODD_NAMES[2])
    mask = next(mask for mask in image.iter("mask") if mask.get("label") == "caudal_fin_shape")
    next(iter(mask)).text = "rounded"  # The record had abstained.
    image.append(ET.Element("mask", {**mask.attrib, "label": "parts: pelvic_fin"}))  # Drawn by hand, attributes left alone.
    tree.write(tmp_path / "corrected.xml", encoding="utf-8")
    labels = [(label.character, label.state) for label in read_labels(tmp_path / "corrected.xml") if label.file_name == ODD_NAMES[2]]
    assert sorted(labels) == [
        ("adipose_fin", "absent"),
        ("caudal_fin_shape", "rounded"),
        ("parts", "head"),
        ("parts", "pelvic_fin"),
    ]


def test_specimens_and_packs_are_read_back(tray: Planted, tmp_path: Path) -> None:
    labels = read_labels(export(tray.path, "cvat", tmp_path / "x.xml"))
    assert {(label.pack, label.specimen, label.character, label.state) for label in labels} == {
        ("fish", 0, "body_colour", "silver"),
        ("fish", 1, "body_colour", "red"),
        ("beetle", 0, "body_colour", "metallic"),
        ("beetle", 1, "body_colour", "dull"),
    }


def test_contradiction_is_refused(written: Path, tmp_path: Path) -> None:
    text = written.read_text(encoding="utf-8").replace(
        "</image>", '<tag label="adipose_fin"><attribute name="state">present</attribute></tag></image>', 1
    )
    (tmp_path / "x.xml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="two states of 'adipose_fin': 'absent' and 'present'"):
        read_labels(tmp_path / "x.xml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not an XML file"),
        ("<annotations><image", "not an XML file"),
        ("<html></html>", "its root is <html>"),
        ("<annotations><track id='0'/></annotations>", "video tracks"),
    ],
)
def test_other_files_are_refused(content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        read_labels(tmp_path / "x.xml")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "none.xml")


def test_control_characters_do_not_break_the_file(planted: Planted, tmp_path: Path) -> None:
    write_run(
        tmp_path / "run",
        [{**planted.records[1], "source": "a\x01b\n.jpg"}],
        ("occurrenceID", "rights", "creator", "species"),
        parts=1,
    )
    (label,) = read_labels(export(tmp_path / "run", "cvat", tmp_path / "x.xml"))
    assert label.file_name == "a\ufffdb\n.jpg"


def test_datumaro_reads_the_same_masks(planted: Planted, written: Path) -> None:
    cvat = pytest.importorskip("datumaro.plugins.data_formats.cvat.base", reason="datumaro is another reader of CVAT's format")

    class Reader(cvat.CvatBase):
        """Parses only; pictures need not lie beside the file."""

        def _load_items(self, parsed: dict) -> dict:
            return parsed

    frames = Reader(str(written))._items
    masks = [annotation for frame in frames for annotation in frame["annotations"] if annotation.type.name == "mask"]
    assert len(masks) == 10
    for annotation in masks:
        assert np.array_equal(annotation.image.astype(bool), planted.masks[annotation.attributes["record_key"]])
