"""Label Studio: brush masks in its own run lengths, tasks that fit the configuration, corrected labels read back."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concept_cam.exports import export
from concept_cam.exports.base import Label
from concept_cam.exports.labelstudio import CONFIG_FILE, TASKS_FILE, decode_brush, encode_brush, read_labels
from concept_cam.types import DataError
from tests.exports.planted import ODD_NAMES, Planted

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
            key = result["id"].rpartition("-")[0]
            if result["type"] == "brushlabels":
                masks[key] = decode_brush(result["value"]["rle"], (height, width))
            elif result["type"] == "rectanglelabels":
                value, record = result["value"], next(r for r in planted.records if r["record_key"] == key)
                assert round(value["x"] * width / 100, 6) == record["box_x"]
                assert round(value["y"] * height / 100, 6) == record["box_y"]
                assert round(value["width"] * width / 100, 6) == record["box_width"]
                assert round(value["height"] * height / 100, 6) == record["box_height"]
        choices = {
            r["from_name"]: r["value"]["choices"] for r in prediction["result"] if r["type"] == "choices"
        }
        called = planted.record(source, "caudal_fin_shape")["state"]
        assert choices == {"adipose_fin": ["absent"], **({"caudal_fin_shape": [called]} if called else {})}
    assert len(masks) == 10
    assert all(np.array_equal(mask, planted.masks[key]) for key, mask in masks.items())


def test_addresses(written: Path) -> None:
    images = [task["data"]["image"] for task in tasks_of(written)]
    assert images[2] == "/data/local-files/?d=fish/a%20b%20%281%29.png"
    assert images[4] == "https://example.org/gone%20away.png"


@pytest.mark.parametrize("which", ["planted", "tray"])
def test_label_studio_s_own_check_accepts_config_and_tasks(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
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
        task["annotations"] = [
            {"id": number, "result": result, "updated_at": "2026-02-01T00:00:00Z", "was_cancelled": False}
        ]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return tasks


def test_labels_are_read_back(planted: Planted, written: Path, tmp_path: Path) -> None:
    as_annotations(written, tmp_path / "export.json")
    expected = {
        Label(r["source"], r["character"], r["state"])
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
    tasks[0]["annotations"].append(
        {"id": 91, "result": [], "updated_at": "2026-04-01T00:00:00Z", "was_cancelled": True}
    )
    tasks[1]["annotations"] = []
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    labels = read_labels(tmp_path / "export.json")
    assert [label for label in labels if label.file_name == ODD_NAMES[0]] == [
        Label(ODD_NAMES[0], "caudal_fin_shape", "truncate")
    ]
    assert not [label for label in labels if label.file_name == ODD_NAMES[1]]


def test_predictions_alone_are_no_labels(written: Path) -> None:
    assert read_labels(written / TASKS_FILE) == []


def test_specimens_keep_their_choices(tray: Planted, tmp_path: Path) -> None:
    folder = export(tray.path, "label-studio", tmp_path / "x")
    as_annotations(folder, tmp_path / "export.json")
    assert set(read_labels(tmp_path / "export.json")) == {
        Label(r["source"], "body_colour", r["state"], r["pack"], r["specimen"]) for r in tray.records
    }
    boxes = [
        r
        for r in tasks_of(folder)[0]["predictions"][0]["result"]
        if r["value"].get("rectanglelabels") == ["specimen"]
    ]
    assert [box["value"]["x"] for box in boxes] == [0, 50]


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
