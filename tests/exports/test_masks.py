"""Masks as PNG: equal to the planted ones, under names that every file system can hold."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam.collection.schema import image_key, record_key
from concept_cam.exports import export
from concept_cam.exports.masks import INDEX_FILE
from tests.exports.planted import Planted, write_run


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / INDEX_FILE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check(planted: Planted, folder: Path) -> list[dict[str, str]]:
    rows = read(folder)
    for row in rows:
        with Image.open(folder / row["mask"]) as image:
            assert image.mode == "L"
            pixels = np.asarray(image)
        assert set(np.unique(pixels)) <= {0, 255}
        assert np.array_equal(pixels == 255, planted.masks[row["record_key"]])
    assert len({row["mask"].casefold() for row in rows}) == len(rows)
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.png") if path.is_file()}
    assert written == {row["mask"] for row in rows}
    return rows


def test_masks_are_the_planted_ones(planted: Planted, tmp_path: Path) -> None:
    rows = check(planted, export(planted.path, "masks", tmp_path / "out"))
    assert len(rows) == 9
    assert rows[0]["input_occurrenceID"] == "urn:occ:0"
    assert rows[0]["mask"] == "masks/fish/één vis 鱼.jpg/fish.caudal_fin_shape.forked.png"
    assert all(not re.search(r'[<>:"\\|?*]', row["mask"]) for row in rows)


def test_specimens_have_masks_of_their_own(tray: Planted, tmp_path: Path) -> None:
    rows = check(tray, export(tray.path, "masks", tmp_path / "out"))
    assert rows[0]["mask"] == "masks/tray 1.png/specimen0.fish.body_colour.silver.png"


@pytest.mark.parametrize(
    "sources",
    [
        ["/etc/x.png", "../../etc/x.png"],
        ["a:b.png", "a_b.png"],
        ["A.png", "a.png"],
        ["x" * 200 + ".png", "é" * 300],
    ],
)
def test_hostile_and_colliding_sources_stay_inside(sources: list[str], planted: Planted, tmp_path: Path) -> None:
    copies = Planted(tmp_path / "run")
    for source in sources:
        key = record_key(source, 0, "fish", "caudal_fin_shape")
        copies.records.append({**planted.records[0], "source": source, "image_key": image_key(source), "record_key": key})
        copies.masks[key] = planted.masks[planted.records[0]["record_key"]]
    write_run(copies.path, copies.records, ("occurrenceID", "rights", "creator", "species"), parts=1)
    folder = export(copies.path, "masks", tmp_path / "out")
    assert len(check(copies, folder)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
