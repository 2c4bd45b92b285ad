"""COCO: loads in pycocotools, masks equal pixel by pixel."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.evaluation.datasets import load
from concept_cam.exports import export
from tests.exports.planted import ODD_NAMES, Planted


@pytest.fixture(scope="module")
def written(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(planted.path, "coco", tmp_path_factory.mktemp("coco") / "instances.json")


@pytest.fixture(scope="module")
def loaded(written: Path) -> Any:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is the consumer")
    with contextlib.redirect_stdout(io.StringIO()):
        return coco.COCO(str(written))


def test_masks_boxes_and_areas_are_the_planted_ones(planted: Planted, loaded: Any) -> None:
    from pycocotools import mask as coco_mask

    seen = set()
    for annotation in loaded.loadAnns(loaded.getAnnIds()):
        key = annotation["attributes"]["record_key"]
        mask = loaded.annToMask(annotation).astype(bool)
        assert np.array_equal(mask, planted.masks[key])
        assert annotation["area"] == mask.sum() == coco_mask.area(annotation["segmentation"])
        rows, columns = np.nonzero(mask)
        assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        seen.add(key)
    expected = {r["record_key"] for r in planted.records if not r["abstained"] and planted.masks.get(r["record_key"], np.zeros(1)).any()}
    assert seen == expected
    assert len(seen) == 9


def test_images_and_categories(planted: Planted, loaded: Any) -> None:
    images = loaded.loadImgs(loaded.getImgIds())
    assert [image["file_name"] for image in images] == list(ODD_NAMES)
    assert (images[0]["height"], images[0]["width"]) == (
        40,
        60,
    )  # Upright, although the file is stored on its side.
    assert images[4]["coco_url"] == "https://example.org/gone%20away.png"
    assert images[0]["input"] == {
        "occurrenceID": "urn:occ:0",
        "rights": 'CC BY 4.0, "quoted"',
        "creator": "Ada Løv",
        "species": "Danio rerio",
    }
    names = {category["name"]: category for category in loaded.loadCats(loaded.getCatIds())}
    assert {"caudal_fin_shape: forked", "parts: head", "adipose_fin: absent"} <= set(names)
    assert names["parts: head"]["supercategory"] == "parts"
    (annotation,) = loaded.loadAnns(loaded.getAnnIds(imgIds=[2], catIds=[names["caudal_fin_shape: rounded"]["id"]]))
    record = planted.record(ODD_NAMES[1], "caudal_fin_shape")
    assert annotation["attributes"]["record_key"] == record["record_key"]
    assert annotation["score"] == pytest.approx(record["probability"], abs=1e-6)


def test_frame_is_stated(written: Path) -> None:
    assert "after EXIF orientation" in json.loads(written.read_text(encoding="utf-8"))["info"]["frame"]


def test_packs_are_told_apart(tray: Planted, tmp_path: Path) -> None:
    data = json.loads(export(tray.path, "coco", tmp_path / "x.json").read_text(encoding="utf-8"))
    names = [category["name"] for category in data["categories"]]
    assert names == [
        "fish/body_colour: silver",
        "fish/body_colour: red",
        "beetle/body_colour: metallic",
        "beetle/body_colour: dull",
    ]
    assert [annotation["attributes"]["specimen"] for annotation in data["annotations"]] == [0, 0, 1, 1]
    assert len(data["images"]) == 1


def test_an_export_is_not_read_as_what_people_drew(written: Path) -> None:
    with pytest.raises(DataError, match="is an export of an annotation run"):
        load(f"coco:{written}", images=written.parent)
