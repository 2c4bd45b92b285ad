"""The machine-learning backend for Label Studio: words from the configuration, regions in Label Studio's own terms, nothing fetched."""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.exports.labelstudio import decode_brush
from concept_cam.serve.labelstudio import _concept, find_picture, read_controls
from concept_cam.serve.labelstudio import predict as ask_backend
from tests.serve.conftest import BOXES, painted

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="spot" prompt="red" contrast="green|blue"/></RectangleLabels>
<BrushLabels name="mask" toName="image"><Label value="red"/><Label value="green"/></BrushLabels>
<KeyPointLabels name="point" toName="image"><Label value="red"/></KeyPointLabels>
<PolygonLabels name="outline" toName="image"><Label value="red" contrast="green"/></PolygonLabels>
<Choices name="colour" toName="image"><Choice value="it_is_red" prompt="red"/><Choice value="it_is_blue" prompt="blue"/></Choices>
<Choices name="inside" toName="image" perRegion="true"><Choice value="red"/><Choice value="blue"/></Choices>
</View>"""


def predict(client: Any, *data: dict[str, Any], config: str = CONFIG, **more: Any) -> list[dict[str, Any]]:
    tasks = [{"id": number, "data": item} for number, item in enumerate(data)]
    answer = client.post("/predict", json={"tasks": tasks, "label_config": config, "project": "1.1", **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def test_health_setup_and_versions(client: Any, desk: Any) -> None:
    assert client.get("/health").json()["status"] == "UP"
    version = client.post("/setup", json={"project": "1.1", "schema": CONFIG, "hostname": "http://x", "access_token": "t"}).json()[
        "model_version"
    ]
    assert version.startswith("planted-01234567")
    assert client.get("/versions").json() == {"versions": [version]}
    assert client.post("/setup", json={"schema": "<View><Text name='t' value='$t'/></View>"}).status_code == 400
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 200


def test_predictions(client: Any, desk: Any) -> None:
    for name, (x0, y0, x1, y1) in BOXES.items():
        (prediction,) = predict(client, {"image": f"/data/local-files/?d={name}"})
        by_control = {result["from_name"]: result for result in prediction["result"]}
        assert {"box", "mask", "point", "outline"} <= set(by_control)
        assert "inside" not in by_control
        value = by_control["box"]["value"]
        assert value["rectanglelabels"] == ["spot"]
        region = desk.localizer.locate(desk.gallery.by_source(name).path, "red", ["green", "blue"]).regions(resolution="model")[0]
        expected = [100 * side / 64 for side in (region.box[0], region.box[1], region.width, region.height)]
        assert [value[side] for side in ("x", "y", "width", "height")] == pytest.approx(expected)
        point = by_control["point"]["value"]
        assert x0 <= point["x"] * 0.64 <= x1
        assert y0 <= point["y"] * 0.64 <= y1
        mask = next(
            result for result in prediction["result"] if result["from_name"] == "mask" and result["value"]["brushlabels"] == ["red"]
        )
        inside = decode_brush(mask["value"]["rle"], (64, 64))
        truth = np.zeros((64, 64), bool)
        truth[y0:y1, x0:x1] = True
        assert (inside & truth).sum() / (inside | truth).sum() > 0.6
        outline = np.array(by_control["outline"]["value"]["points"]) * 0.64
        assert len(outline) > 3
        assert outline.min() >= -1
        assert by_control["colour"]["value"] == {"choices": ["it_is_red"]}
        assert 0 <= prediction["score"] <= 1
        for result in prediction["result"]:
            assert (result["original_width"], result["original_height"], result["to_name"]) == (64, 64, "image")


def test_words_that_a_person_typed(client: Any) -> None:
    context = {"result": [{"type": "textarea", "from_name": "prompt", "value": {"text": ["green; red | blue"]}}]}
    (prediction,) = predict(client, {"image": "a.png"}, params={"context": context})
    box = next(result for result in prediction["result"] if result["from_name"] == "box")
    assert box["value"]["width"] > 60  # What is green is not the red box.


def test_names_of_a_pack_bring_its_phrases(desk: Any) -> None:
    config = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"><Label value="parts: head"/>
    <Label value="nonsense"/>
    </BrushLabels><Choices name="caudal_fin_shape" toName="image"><Choice value="forked"/><Choice value="rounded"/></Choices></View>"""
    brush, choices = read_controls(config)
    head = _concept(brush, brush.choices[0], desk.packs, ("fish",))
    assert "the head of a fish" in head.target
    assert head.contrast_names
    assert _concept(brush, brush.choices[0], desk.packs).target == ("parts: head",)  # Several packs have it.
    named = replace(brush.choices[0], value="bird/parts: head", words="bird/parts: head")
    assert "the head of a bird" in _concept(brush, named, desk.packs).target
    assert _concept(brush, brush.choices[1], desk.packs).target == ("nonsense",)
    assert _concept(choices, choices.choices[0], desk.packs).name == "caudal_fin_shape=forked"


def test_a_pack_says_nothing_about_pictures_of_other_things(fish_desk: Any) -> None:
    """The traits of a butterfly are not marked on a fish, those of a fish are; words are asked of everything."""
    config = """<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">
    <Label value="lepidoptera/parts: fore_wing"/><Label value="fish/parts: head"/>
    <Label value="fin" prompt="the tail fin of a fish" contrast="the head of a fish"/></RectangleLabels>
    <Choices name="lepidoptera/antenna_shape" toName="image"><Choice value="clubbed"/><Choice value="feathery"/></Choices></View>"""
    (prediction,) = ask_backend(fish_desk, {"tasks": [{"data": {"image": "forked.png"}}], "label_config": config})["results"]
    assert {result["value"]["rectanglelabels"][0] for result in prediction["result"]} == {"fish/parts: head", "fin"}


def test_nothing_is_fetched_and_no_path_is_read(client: Any, photos: Path) -> None:
    outside = photos.parent / "outside.png"
    for address in (
        "http://169.254.169.254/latest/meta-data", "http://localhost:8080/x.png", "file:///etc/passwd", str(outside),
        "/data/local-files/?d=../outside.png", "/data/local-files/?d=notes.txt", "data:image/png;base64,!!!",
        "data:image/png;base64,aGVsbG8=", "",
    ):  # fmt: skip
        (prediction,) = predict(client, {"image": address})
        assert prediction["result"] == []
        assert prediction["error"]


def test_how_pictures_are_found(client: Any) -> None:
    buffer = io.BytesIO()
    painted((64, 64), (0, 0, 32, 32)).save(buffer, "PNG")
    inline = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    good = [
        {"image": inline},
        {"image": "http://ls/data/upload/3/0a1b2c3d-d.png"},
        {"image": "x", "source": "sub/d.png"},
        {"image": "/data/local-files/?d=sub%2Fd.png"},
    ]
    for prediction in predict(client, *good):
        assert prediction["result"], prediction
    assert [bool(p["result"]) for p in predict(client, {"image": "nowhere.png"}, {"image": "a.png"})] == [False, True]


def test_names_with_a_hash_or_a_percent_sign_are_found_quoted_or_not(tmp_path: Path) -> None:
    from concept_cam.localizer import Localizer
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery
    from tests.planted import PlantedBackbone

    for name in ("x #1.png", "a%20b.png"):
        painted((64, 64), (0, 0, 32, 32)).save(tmp_path / name)
    desk = Desk(Localizer(PlantedBackbone(64, 8)), open_gallery(str(tmp_path)))
    for address, source in (
        ("/data/upload/1/x #1.png", "x #1.png"),
        ("/data/upload/1/x%20%231.png", "x #1.png"),
        ("/data/upload/1/0a1b2c3d-a%20b.png", "a%20b.png"),
        ("/data/upload/1/a%2520b.png", "a%20b.png"),
    ):
        assert find_picture(desk, address).source == source
    desk.close()


@pytest.mark.parametrize(
    "inside",
    [
        "",
        '<Labels name="l" toName="image"><Label value="red"/></Labels><Rectangle name="r" toName="image"/>',
        '<BrushLabels name="mask" toName="picture"><Label value="red"/></BrushLabels>',
        '<Choices name="c" toName="image"><Choice value="red"/></Choices>',
        '<Choices name="c" toName="image" perRegion="true"><Choice value="red"/><Choice value="blue"/></Choices>',
    ],
)
def test_a_configuration_that_cannot_be_filled_says_so(inside: str, client: Any) -> None:
    (prediction,) = predict(client, {"image": "a.png"}, config=f'<View><Image name="image" value="$image"/>{inside}</View>')
    assert prediction["result"] == []
    assert "nothing that can be filled: expected RectangleLabels, BrushLabels, " in prediction["error"]


def test_wrong_configurations(client: Any) -> None:
    for config, words in (
        ("<View>", "no XML"),
        ("<View/>", "no Image"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><View/>", "entities"),
        ("x" * 300_000, "characters"),
    ):
        with pytest.raises(DataError, match=words):
            read_controls(config)
    assert client.post("/predict", json={"tasks": [{}], "label_config": 5}).status_code == 400
    assert client.post("/predict", json={"tasks": [{"data": {}}] * 100, "label_config": CONFIG}).status_code == 400


def test_nested_choices_are_refused(client: Any) -> None:
    """Read as flat ones the parent, which is true wherever its own are, won with certainty."""
    nested = (
        '<View><Image name="image" value="$image"/><Choices name="c" toName="image"{}><Choice value="fin"><Choice value="red"/>'
        '<View><Choice value="blue"/></View></Choice></Choices></View>'
    )
    message = "the Choices 'c' are nested: 'fin' holds 'red', and only choices of one level can be told apart."
    with pytest.raises(DataError, match=message):
        read_controls(nested.format(""))
    answer = client.post("/predict", json={"tasks": [{"data": {"image": "a.png"}}], "label_config": nested.format("")})
    assert answer.status_code == 400
    assert message in answer.text
    assert client.post("/setup", json={"schema": nested.format("")}).status_code == 400
    (inside,) = read_controls(nested.format(' perRegion="true"'))  # Those of regions are not answered anyway.
    assert not inside.fillable


@pytest.mark.slow
@pytest.mark.skipif("LABEL_STUDIO_PYTHON" not in os.environ, reason="LABEL_STUDIO_PYTHON names no Python with label-studio")
def test_a_round_trip_with_a_real_server(tmp_path: Path) -> None:
    """Import, predict by words, correct, export, calibrate; in an environment of Label Studio's own, since it pins our dependencies."""
    from tests.serve.label_studio_round_trip import round_trip

    found = round_trip(os.environ["LABEL_STUDIO_PYTHON"], tmp_path)
    assert found["predicted"] == found["tasks"] > 0
    assert found["limits"]["caudal_fin_shape"]["labelled"] == found["tasks"]
    assert json.dumps(found)
