"""Several specimens in one picture: each is asked, shown and corrected on its own, and corrections lie in the whole picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from concept_cam import prompts
from concept_cam.collection.annotation import annotate
from concept_cam.collection.corrected import corrected
from concept_cam.collection.corrections import Correction
from concept_cam.collection.indexing import build_index
from concept_cam.collection.runs import read_run
from concept_cam.core.errors import ImageError
from concept_cam.core.regions import decode_rle, encode_rle
from concept_cam.localizer import Localizer
from concept_cam.serve.app import build_app
from concept_cam.serve.desk import Desk
from concept_cam.serve.frames import as_drawn, as_kept
from concept_cam.serve.gallery import open_gallery
from tests.planted import PlantedBackbone

BOXES = ((4, 8, 64, 64), (90, 20, 64, 64))
"""Two specimens ``(x, y, width, height)`` of a picture of 100 x 160: one with a red spot, one with a blue one."""

SPOTS = ((20, 16, 16, 16), (122, 52, 16, 16))

PACK = {
    "pack": "hues",
    "host": "green thing",
    "characters": {
        "hue": {
            "kind": "colour", "entity": {"label": "spot"}, "templates": ["{}"],
            "states": {"red": {"phrases": ["red"]}, "blue": {"phrases": ["blue"]}},
        },
    },
}  # fmt: skip

HUE = {"character": "hues:hue"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[..., 1] = 120
    for (x, y, width, height), channel in zip(SPOTS, (0, 2)):
        pixels[y : y + height, x : x + width] = 0
        pixels[y : y + height, x : x + width, channel] = 255
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "two.png")
    Image.fromarray(pixels[:, ::-1]).save(tmp_path / "photos" / "whole.png")
    rows = [f"two.png,{','.join(map(str, box))}" for box in BOXES]
    (tmp_path / "boxes.csv").write_text("file_name,x,y,width,height\n" + "\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def desk(folder: Path) -> Any:
    localizer = Localizer(PlantedBackbone(64, 8))
    run = annotate(folder / "photos", folder / "run", PACK, localizer=localizer, boxes=str(folder / "boxes.csv"), workers=0)
    made = Desk(localizer, open_gallery(str(run.path)), packs=[prompts.load_pack(PACK)])
    yield made
    made.close()


@pytest.fixture
def client(desk: Any) -> Any:
    with TestClient(build_app(desk), base_url="http://localhost") as made:
        yield made


def listed(client: Any) -> dict[str, dict[str, Any]]:
    return {row["title"]: row for row in client.get("/api/pictures").json()["pictures"]}


def test_each_specimen_is_a_picture_of_its_own(client: Any, desk: Any) -> None:
    rows = listed(client)
    assert list(rows) == ["two.png #0", "two.png #1", "whole.png"]
    assert [row["specimen"] for row in rows.values()] == [*({"number": n, "box": list(box)} for n, box in enumerate(BOXES)), None]
    shown = Image.open(io.BytesIO(client.get(f"/api/pictures/{rows['two.png #1']['id']}/image").content))
    assert shown.size == (64, 64)
    records = {(record["source"], record["specimen"]): record for record in desk.gallery.run.records()}
    for number, hue in enumerate(("red", "blue")):
        answer = client.post("/api/ask", json={"picture": rows[f"two.png #{number}"]["id"], **HUE}).json()
        record = records["two.png", number]
        assert answer["subject"]["specimen"] == number
        assert answer["picture"]["specimen"] == {"number": number, "box": list(BOXES[number])}
        assert (answer["picture"]["width"], answer["picture"]["height"]) == (64, 64)
        assert answer["call"]["from"] == "run"
        assert answer["call"]["state"] == hue == record["best_state"]
        # The page's own answer is the run's, moved into the box.
        x, y = BOXES[number][:2]
        asked = client.post("/api/ask", json={"picture": rows[f"two.png #{number}"]["id"], **HUE, "state": hue}).json()
        assert (asked["peak"]["x"] + x, asked["peak"]["y"] + y) == pytest.approx((record["peak_x"], record["peak_y"]), abs=1e-3)
        spot = SPOTS[number]
        assert spot[0] <= asked["peak"]["x"] + x <= spot[0] + spot[2]


def test_corrections_lie_in_the_whole_picture(client: Any, desk: Any) -> None:
    id_ = listed(client)["two.png #1"]["id"]
    question = {**HUE, "clicks": [[30, 40, 1]]}
    runs = [64 * 32 + 32, 16, *([48, 16] * 15), 64 * 64 - 64 * 32 - 32 - 64 * 15 - 16]
    made = client.post(
        "/api/corrections",
        json={
            "picture": id_, "question": question, "verdict": "state", "state": "red", "boxes": [[1, 2, 9, 12]], "seen": 0,
            "mask": {"size": [64, 64], "runs": runs}, "called": {"state": "blue"},
        },
    )  # fmt: skip
    assert made.status_code == 201, made.text
    x, y = BOXES[1][:2]
    (kept,) = desk.corrections.standing()
    assert (kept.source, kept.specimen, kept.state) == ("two.png", 1, "red")
    assert kept.boxes == ((1 + x, 2 + y, 9 + x, 12 + y),)
    assert kept.clicks == ((30.0 + x, 40.0 + y, 1),)
    mask = decode_rle(kept.mask)
    assert mask.shape == (100, 160)
    assert mask.sum() == 16 * 16
    assert mask[32 + y : 48 + y, 32 + x : 48 + x].all()
    back = client.get(f"/api/corrections?picture={id_}").json()["corrections"]
    assert [(item["boxes"], item["clicks"], item["drawn"]) for item in back] == [
        ([[1, 2, 9, 12]], [[30.0, 40.0, 1]], {"size": [64, 64], "runs": runs})
    ]
    # The other specimen knows nothing of it.
    other = listed(client)["two.png #0"]
    assert client.get(f"/api/corrections?picture={other['id']}").json()["corrections"] == []
    assert [row["corrections"] for row in listed(client).values()] == [0, 1, 0]
    conflict = client.post(
        "/api/corrections", json={"picture": id_, "question": question, "verdict": "accept", "called": {"state": "red"}, "seen": 0}
    )
    assert conflict.status_code == 409
    assert conflict.json()["current"]["boxes"] == [[1, 2, 9, 12]]
    # The run's own row of that specimen is corrected, in the frame of the picture; labels say which specimen is meant.
    rows = {(row["source"], row["specimen"]): row for row in corrected(read_run(desk.gallery.run.path)).records()}
    assert rows["two.png", 1]["state"] == "red"
    assert (rows["two.png", 1]["box_x"], rows["two.png", 1]["box_y"]) == (32 + x, 32 + y)
    assert rows["two.png", 0]["state"] == "red"  # As the model called it.
    assert rows["two.png", 0]["reviewed"] is None
    (label,) = csv.DictReader(io.StringIO(client.get("/api/export/labels").text))
    assert (label["file_name"], label["specimen"], label["true_state"]) == ("two.png", "1", "red")
    assert client.post("/api/corrections/undo", json={"id": kept.id}).json()["current"] is None


def test_specimens_are_chosen_on_their_own(client: Any, desk: Any) -> None:
    rows = listed(client)
    unsure = desk.uncertainty(desk.read(HUE))
    assert set(unsure) == {row["id"] for row in rows.values()}
    client.post(
        "/api/corrections", json={"picture": rows["two.png #0"]["id"], "question": HUE, "verdict": "accept", "called": {"state": "red"}}
    )
    following = client.post("/api/next", json={**HUE, "wanted": 3}).json()["next"]
    assert {item["title"] for item in following} == {"two.png #1", "whole.png"}


def test_a_whole_picture_is_found_by_its_name(desk: Any) -> None:
    """Label Studio's tasks know no specimens."""
    whole = desk.gallery.by_source("two.png")
    assert whole.box is None
    assert desk.gallery.read(whole).size == (100, 160)
    assert desk.gallery.get(whole.id) is whole
    assert [entry.source for entry in desk.gallery.wholes] == ["whole.png", "two.png"]


def test_another_picture_in_its_place_is_noticed(desk: Any, folder: Path) -> None:
    Image.new("RGB", (50, 40)).save(folder / "photos" / "two.png")
    with pytest.raises(ImageError, match="it was replaced or changed since"):
        desk.gallery.read(desk.gallery.by_specimen("two.png", 0))


@pytest.mark.parametrize("kind", ["run", "index"])
def test_a_picture_that_was_replaced_by_one_of_its_size_is_noticed(desk: Any, folder: Path, kind: str) -> None:
    gallery = desk.gallery
    if kind == "index":
        localizer = Localizer(PlantedBackbone(64, 8))
        build_index(folder / "photos", folder / "i", localizer=localizer, boxes=str(folder / "boxes.csv"), workers=0)
        gallery = open_gallery(str(folder / "i"))
    entries = [*gallery.entries, *gallery.wholes]
    assert {entry.source for entry in entries} == {"whole.png", "two.png"}
    assert all(gallery.read(entry).pixels.size for entry in entries)
    for name in ("whole.png", "two.png"):
        with Image.open(folder / "photos" / name) as image:
            size = image.size
        Image.new("RGB", size, (1, 2, 3)).save(folder / "photos" / name)
    for entry in entries:
        with pytest.raises(ImageError, match=f"{entry.source}.*this {kind} is about: it was replaced or changed since"):
            gallery.read(entry)


def test_an_index_brings_its_specimens(folder: Path, desk: Any) -> None:
    localizer = Localizer(PlantedBackbone(64, 8))
    build_index(folder / "photos", folder / "i", localizer=localizer, boxes=str(folder / "boxes.csv"), workers=0)
    gallery = open_gallery(str(folder / "i"))
    stored = Desk(localizer, gallery, packs=[prompts.load_pack(PACK)])
    assert [entry.title for entry in gallery.entries] == [entry.title for entry in desk.gallery.entries]
    for entry in gallery.entries:
        assert gallery.features(entry) is not None
        found = stored.ask(entry, {"target": "red"}).found
        fresh = desk.ask(desk.gallery.by_specimen(entry.source, entry.specimen), {"target": "red"}).found
        assert np.allclose(found.scores, fresh.scores, atol=2e-3, equal_nan=True)
    stored.close()


def test_there_and_back_again(desk: Any) -> None:
    entry = desk.gallery.by_specimen("two.png", 1)
    rng = np.random.default_rng(0)
    drawn = Correction(
        id="x", source="two.png", character="hue", verdict="accept", specimen=1, mask=encode_rle(rng.random((64, 64)) > 0.5),
        boxes=((0, 0, 64, 64),), clicks=((0.5, 63.5, -1),),
    )  # fmt: skip
    assert as_drawn(as_kept(drawn, entry), entry) == drawn
    assert as_drawn(drawn, None) is drawn
    assert as_drawn(Correction(id="y", source="two.png", character="hue", mask=encode_rle(np.ones((3, 3), bool))), entry).mask is None
