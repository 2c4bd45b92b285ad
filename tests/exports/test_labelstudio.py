"""Label Studio: brush masks in its own run lengths, tasks that fit the configuration, corrected labels read back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.exports import export
from concept_cam.exports.labelstudio import CONFIG_FILE, README_FILE, TASKS_FILE, decode_brush, encode_brush, read_labels
from concept_cam.exports.survey import Label
from tests.exports.planted import ODD_NAMES, Planted, make_record, region_columns, ring, write_run

MASKS = {
    "one pixel": np.ones((1, 1), bool),
    "empty": np.zeros((3, 5), bool),
    "full": np.ones((7, 4), bool),
    "odd": np.random.default_rng(0).random((9, 13)) > 0.5,
    "two pixels": np.array([[True, True, False]]),
    # One run longer than the 2^16 values that a single word of the format can hold, and one of exactly that length.
    "long": np.repeat([[False, True]], 20_000, axis=1),
    "exact": np.repeat([[True, False]], 1 << 14, axis=1),
}


@pytest.fixture(scope="module")
def written(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(planted.path, "label-studio", tmp_path_factory.mktemp("ls") / "tasks")


def tasks_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / TASKS_FILE).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MASKS)
def test_brush_round_trip(name: str) -> None:
    mask = MASKS[name]
    rle = encode_brush(mask)
    assert all(0 <= byte <= 255 for byte in rle)
    assert np.array_equal(decode_brush(rle, mask.shape), mask)


@pytest.mark.parametrize("name", MASKS)
def test_brush_equals_the_library_s(name: str) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="Label Studio's own converter")
    mask = MASKS[name]
    assert encode_brush(mask) == brush.mask2rle(mask.astype(np.uint8) * 255)
    decoded = brush.decode_rle(encode_brush(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(decoded[:, :, 3] > 0, mask)


def test_wrong_brushes_are_refused() -> None:
    rle = encode_brush(MASKS["odd"])
    with pytest.raises(DataError, match="expected 9 x 12"):
        decode_brush(rle, (9, 12))
    with pytest.raises(DataError, match="end too early"):
        decode_brush(rle[:-4], (9, 13))


def test_masks_boxes_and_choices(planted: Planted, written: Path) -> None:
    tasks = tasks_of(written)
    assert [task["data"]["source"] for task in tasks] == list(ODD_NAMES)
    masks = {}
    for task, source in zip(tasks, ODD_NAMES, strict=True):
        assert "after EXIF orientation" in task["data"]["frame"]
        (prediction,) = task["predictions"]
        for result in prediction["result"]:
            height, width = result["original_height"], result["original_width"]
            key = result["id"].partition("-")[0]
            if result["type"] == "brushlabels":
                masks[key] = decode_brush(result["value"]["rle"], (height, width))
            elif result["type"] == "rectanglelabels":
                value, record = result["value"], next(r for r in planted.records if r["record_key"] == key)
                assert round(value["x"] * width / 100, 6) == record["box_x"]
                assert round(value["y"] * height / 100, 6) == record["box_y"]
                assert round(value["width"] * width / 100, 6) == record["box_width"]
                assert round(value["height"] * height / 100, 6) == record["box_height"]
        choices = {r["from_name"]: r["value"]["choices"] for r in prediction["result"] if r["type"] == "choices"}
        called = planted.record(source, "caudal_fin_shape")["state"]
        assert choices == {"adipose_fin": ["absent"], **({"caudal_fin_shape": [called]} if called else {})}
    assert len(masks) == 10
    assert all(np.array_equal(mask, planted.masks[key]) for key, mask in masks.items())


def test_addresses(written: Path) -> None:
    images = [task["data"]["image"] for task in tasks_of(written)]
    assert images[2] == "/data/local-files/?d=photos/fish/a%20b%20%281%29.png"  # The folder too: the root itself is not served.
    assert images[4] == "https://example.org/gone%20away.png"


@pytest.mark.parametrize("which", ["planted", "tray"])
def test_label_studio_s_own_check_accepts_config_and_tasks(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="Label Studio's own check")
    folder = export(request.getfixturevalue(which).path, "label-studio", tmp_path / "x")
    checked = interface.LabelInterface((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    checked.validate()
    for task in tasks_of(folder):
        assert checked.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert checked.validate_prediction(prediction, return_errors=True) == []
            spoilt = {**prediction, "result": [{**prediction["result"][0], "from_name": "nothing"}]}
            assert checked.validate_prediction(spoilt, return_errors=True)


def test_the_four_steps_stand_beside_the_tasks(planted: Planted, written: Path) -> None:
    steps = (written / README_FILE).read_text(encoding="utf-8")
    above = planted.path.parent
    assert f"DOCUMENT_ROOT={above} " in steps
    assert f"absolute path {above}/photos," in steps
    assert [line[:2] for line in steps.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3.", "4."]


def test_addresses_behind_a_base(planted: Planted, tmp_path: Path) -> None:
    folder = export(planted.path, "label-studio", tmp_path / "x", base="https://museum.org/photos/")
    images = [task["data"]["image"] for task in tasks_of(folder)]
    assert images[2] == "https://museum.org/photos/fish/a%20b%20%281%29.png"
    assert images[4] == "https://example.org/gone%20away.png"


@pytest.mark.parametrize("character", ["mask", "box", "image"])
def test_characters_called_as_a_control_keep_a_name_of_their_own(character: str, planted: Planted, tmp_path: Path) -> None:
    records = [{**planted.record(ODD_NAMES[0], "caudal_fin_shape"), "character": character}]
    write_run(tmp_path / "run", records, ("occurrenceID", "rights", "creator", "species"), parts=1)
    folder = export(tmp_path / "run", "label-studio", tmp_path / "x")
    root = ET.parse(folder / CONFIG_FILE).getroot()
    names = [tag.get("name") for tag in root.iter() if tag.get("name")]
    assert len(set(names)) == len(names)
    (task,) = tasks_of(folder)
    assert {result["from_name"] for result in task["predictions"][0]["result"]} <= set(names)
    corrected = [{**task, "annotations": task["predictions"], "predictions": []}]
    (tmp_path / "export.json").write_text(json.dumps(corrected), encoding="utf-8")
    assert [(label.character, label.state) for label in read_labels(tmp_path / "export.json")] == [(character, records[0]["state"])]


def test_config_offers_states_and_parts(written: Path) -> None:
    root = ET.parse(written / CONFIG_FILE).getroot()
    choices = {tag.get("name"): [choice.get("value") for choice in tag] for tag in root.iter("Choices")}
    assert choices == {
        "caudal_fin_shape": ["forked", "rounded", "truncate"],
        "adipose_fin": ["present", "absent"],
    }
    labels = [label.get("value") for label in next(root.iter("BrushLabels"))]
    assert labels == ["caudal_fin_shape", "adipose_fin", "parts: head", "parts: pelvic_fin"]


def as_annotations(folder: Path, path: Path) -> list[dict[str, Any]]:
    """What Label Studio exports after every prediction was accepted."""
    tasks = tasks_of(folder)
    for number, task in enumerate(tasks):
        (prediction,) = task["predictions"]
        result = [{**entry, "id": f"{entry['id']}#{number}"} for entry in prediction["result"]]
        task["annotations"] = [{"id": number, "result": result, "updated_at": "2026-02-01T00:00:00Z", "was_cancelled": False}]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return tasks


def test_labels_are_read_back(planted: Planted, written: Path, tmp_path: Path) -> None:
    as_annotations(written, tmp_path / "export.json")
    expected = {
        Label(r["source"], r["character"], r["state"], reviewed=True)
        for r in planted.records
        if r["kind"] != "distance" and not r["abstained"]
    }
    labels = read_labels(tmp_path / "export.json")
    assert set(labels) == expected
    assert len(labels) == len(expected)


def test_latest_annotation_counts_and_skipped_ones_do_not(written: Path, tmp_path: Path) -> None:
    tasks = as_annotations(written, tmp_path / "export.json")
    choice = {
        "type": "choices",
        "from_name": "caudal_fin_shape",
        "to_name": "image",
        "value": {"choices": ["truncate"]},
    }
    tasks[0]["annotations"].append({"id": 90, "result": [choice], "updated_at": "2026-03-01T00:00:00Z"})
    tasks[0]["annotations"].append({"id": 91, "result": [], "updated_at": "2026-04-01T00:00:00Z", "was_cancelled": True})
    tasks[1]["annotations"] = []
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    labels = read_labels(tmp_path / "export.json")
    assert [label for label in labels if label.file_name == ODD_NAMES[0]] == [
        Label(ODD_NAMES[0], "caudal_fin_shape", "truncate", reviewed=True)
    ]
    assert not [label for label in labels if label.file_name == ODD_NAMES[1]]


def test_predictions_alone_are_no_labels(written: Path) -> None:
    assert read_labels(written / TASKS_FILE) == []


def test_specimens_keep_their_choices(tray: Planted, tmp_path: Path) -> None:
    folder = export(tray.path, "label-studio", tmp_path / "x")
    as_annotations(folder, tmp_path / "export.json")
    assert set(read_labels(tmp_path / "export.json")) == {
        Label(r["source"], "body_colour", r["state"], r["pack"], r["specimen"], True) for r in tray.records
    }
    boxes = [r for r in tasks_of(folder)[0]["predictions"][0]["result"] if r["value"].get("rectanglelabels") == ["specimen"]]
    assert [box["value"]["x"] for box in boxes] == [0, 50]


# ------------------------------------------------------------------------------------------------- parts of specimens


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks of one picture of three specimens, the last within the second; each has a head, the second a wing too."""
    source, size = "drawer.png", (60, 100)
    boxes = {0: (0, 0, 40, 60), 1: (40, 0, 60, 60), 2: (80, 40, 20, 20)}
    records = []
    for specimen, part, centre in ((0, "head", (30, 20)), (1, "head", (20, 60)), (1, "wing", (20, 80)), (2, "head", (50, 90))):  # fmt: skip
        edges = zip(("x", "y", "width", "height"), boxes[specimen], strict=True)
        place = {f"specimen_{side}": edge for side, edge in edges}
        record = make_record(source, size, "parts", "part", part, specimen=specimen, probability=0.9, **place)
        records.append(record | region_columns(ring(size, centre, 6)))
    folder = tmp_path_factory.mktemp("drawer")
    write_run(folder / "run", records, parts=1)
    return export(folder / "run", "label-studio", folder / "tasks")


def part_labels(path: Path) -> set[tuple[str, int]]:
    labels = read_labels(path)
    assert {(label.file_name, label.character) for label in labels} <= {("drawer.png", "parts")}
    found = {(label.state, label.specimen) for label in labels}
    assert len(found) == len(labels)
    return found


def draw(folder: Path, path: Path, *regions: dict[str, Any], specimens: bool = True) -> Path:
    """An export of Label Studio in which a person left nothing but the boxes of the specimens, and drew these regions."""
    (task,) = as_annotations(folder, path)
    kept = [r for r in task["annotations"][0]["result"] if specimens and r["id"].startswith("specimen-")]
    size = {"original_width": 100, "original_height": 60, "image_rotation": 0, "to_name": "image"}
    drawn = [{"id": f"n_-{number}xYz", **size, **region} for number, region in enumerate(regions)]
    # Label Studio lists regions in any order.
    task["annotations"][0]["result"] = [*drawn, *kept]
    path.write_text(json.dumps([task]), encoding="utf-8")
    return path


def drawn_box(part: str, x: float, y: float, width: float, height: float) -> dict[str, Any]:
    """A box as a person draws it; edges in pixels of the picture of 100 x 60."""
    edges = {"x": x, "y": y / 0.6, "width": width, "height": height / 0.6, "rotation": 0}
    value = {**edges, "rectanglelabels": [f"parts: {part}"]}
    return {"type": "rectanglelabels", "from_name": "box", "value": value}


def drawn_brush(part: str, mask: np.ndarray) -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [f"parts: {part}"]}
    return {"type": "brushlabels", "from_name": "mask", "value": value}


def test_parts_keep_their_specimens(drawer: Path, tmp_path: Path) -> None:
    as_annotations(drawer, tmp_path / "export.json")
    assert part_labels(tmp_path / "export.json") == {("head", 0), ("head", 1), ("wing", 1), ("head", 2)}


def test_parts_keep_their_specimens_wherever_a_person_moves_them(drawer: Path, tmp_path: Path) -> None:
    (task,) = as_annotations(drawer, tmp_path / "export.json")
    results = task["annotations"][0]["result"]
    moved = [r for r in results if r["type"] == "rectanglelabels" and "-s1-" in r["id"]]
    for result in moved:
        result["value"]["x"] = 0
    task["annotations"][0]["result"] = [*moved, *(r for r in results if r["id"].startswith("specimen-"))]
    (tmp_path / "export.json").write_text(json.dumps([task]), encoding="utf-8")
    assert part_labels(tmp_path / "export.json") == {("head", 1), ("wing", 1)}


def test_parts_of_an_older_export_are_of_specimen_0(drawer: Path, tmp_path: Path) -> None:
    (task,) = as_annotations(drawer, tmp_path / "export.json")
    for result in task["annotations"][0]["result"]:
        key, _, kind = result["id"].rpartition("-")
        if key != "specimen":
            result["id"] = f"{key.partition('-')[0]}-{kind}"
    (tmp_path / "export.json").write_text(json.dumps([task]), encoding="utf-8")
    assert part_labels(tmp_path / "export.json") == {("head", 0), ("wing", 0)}


@pytest.mark.parametrize(
    ("box", "specimen"),
    [
        ((5, 5, 10, 10), 0),
        ((60, 5, 10, 10), 1),
        ((35, 5, 20, 10), 1),  # beyond the edge, three quarters of it in the second
        ((30, 5, 14, 10), 0),
        ((85, 45, 10, 10), 2),  # the smallest of those that it lies in
        ((70, 30, 15, 15), 1),
        ((0, 0, 0, 0), 0),
    ],
)
def test_a_part_that_a_person_drew_belongs_to_the_specimen_it_lies_in(
    box: tuple[float, float, float, float], specimen: int, drawer: Path, tmp_path: Path
) -> None:
    path = draw(drawer, tmp_path / "export.json", drawn_box("wing", *box))
    assert part_labels(path) == {("wing", specimen)}
    mask = np.zeros((60, 100), bool)
    x, y, width, height = map(int, box)
    mask[y : y + height, x : x + width] = True
    path = draw(drawer, tmp_path / "brush.json", drawn_brush("wing", mask))
    assert part_labels(path) == {("wing", specimen)}


def test_a_part_that_a_person_drew_outside_of_all_specimens_is_of_specimen_0(drawer: Path, tmp_path: Path) -> None:
    box = drawn_box("wing", 60, 5, 10, 10)
    assert part_labels(draw(drawer, tmp_path / "x.json", box, specimens=False)) == {("wing", 0)}
    (task,) = json.loads(draw(drawer, tmp_path / "x.json", box).read_text(encoding="utf-8"))
    result = task["annotations"][0]["result"]
    task["annotations"][0]["result"] = [r for r in result if not r["id"].startswith(("specimen-1", "specimen-2"))]
    (tmp_path / "x.json").write_text(json.dumps([task]), encoding="utf-8")
    assert part_labels(tmp_path / "x.json") == {("wing", 0)}


def test_a_damaged_brush_that_a_person_drew_says_which(drawer: Path, tmp_path: Path) -> None:
    brush = drawn_brush("wing", np.ones((5, 5), bool))
    with pytest.raises(DataError, match=r"'drawer.png'.*'n_-0xYz'.*expected 60 x 100\. Delete the region"):
        read_labels(draw(drawer, tmp_path / "x.json", brush))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not a JSON file"),
        ('{"a": 1}', "expected a list of tasks"),
        ('[{"data": {"image": "x"}, "annotations": []}]', "no 'source'"),
        ('[{"data": {"source": "x"}}]', "JSON-MIN"),
        ('[{"image": "x", "choice": "forked"}]', "expected a list of tasks"),
    ],
)
def test_other_files_are_refused(content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        read_labels(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "none.json")
