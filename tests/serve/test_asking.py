"""Asking: the page's answers are the package's own, and wrong questions get one message."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ImageError
from concept_cam.localizer import Localizer
from concept_cam.serve.app import build_app, build_routes
from concept_cam.serve.desk import Desk
from concept_cam.serve.gallery import open_gallery
from concept_cam.serve.openapi import document
from tests.planted import PlantedBackbone
from tests.serve.conftest import BOXES, painted

RED = {"target": "red", "contrasts": ["green"]}


def ids(client: Any) -> dict[str, str]:
    return {row["source"]: row["id"] for row in client.get("/api/pictures").json()["pictures"]}


def ask(client: Any, **question: Any) -> dict[str, Any]:
    answer = client.post("/api/ask", json=question)
    assert answer.status_code == 200, answer.text
    return answer.json()


def decoded(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)


def test_a_picture_that_is_written_anew_is_read_anew(desk: Any, client: Any, photos: Path) -> None:
    """Features and pictures of the sizes that were shown stayed those of the old file, and those of other sizes were of the new one."""
    id_ = ids(client)["a.png"]

    def shown(side: int) -> tuple[int, int]:
        return Image.open(io.BytesIO(client.get(f"/api/pictures/{id_}/image?side={side}").content)).size

    before = ask(client, picture=id_, **RED)
    assert shown(160) == (64, 64)
    Image.new("RGB", (96, 48), (0, 200, 0)).save(photos / "a.png")
    after = ask(client, picture=id_, **RED)
    assert (after["picture"]["width"], after["picture"]["height"]) == (96, 48)
    assert after["picture"]["version"] != before["picture"]["version"]
    assert after["score"] < before["score"]
    assert shown(160) == (96, 48)
    assert shown(1600) == (96, 48)
    encoded = desk.counts["encoded"]
    assert ask(client, picture=id_, **RED)["picture"]["version"] == after["picture"]["version"]
    (photos / "a.png").unlink()  # What is known of a file that cannot be reached just now is still there.
    assert ask(client, picture=id_, **RED)["score"] == after["score"]
    assert shown(160) == (96, 48)
    assert desk.counts["encoded"] == encoded


def test_the_pictures_are_those_of_the_folder(client: Any) -> None:
    found = client.get("/api/pictures").json()
    assert [row["source"] for row in found["pictures"]] == sorted(BOXES)
    assert client.get("/api/pictures?search=SUB").json()["total"] == 1
    assert [row["source"] for row in client.get("/api/pictures?offset=1&limit=2").json()["pictures"]] == ["b.png", "c.png"]
    image = client.get(f"/api/pictures/{ids(client)['b.png']}/image?side=160")
    assert image.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(image.content)).size == (64, 64)


def test_an_answer_is_the_packages_own(client: Any, desk: Any) -> None:
    for name, id_ in ids(client).items():
        answer = ask(client, picture=id_, **RED, map=True)
        found = desk.localizer.locate(desk.gallery.get(id_).path, "red", ["green"])
        assert answer["peak"] == pytest.approx({"x": found.peak[0], "y": found.peak[1], "score": found.peak_score}, abs=1e-5)
        assert answer["probability"] == pytest.approx(found.probability, abs=1e-6)
        x0, y0, x1, y1 = BOXES[name]
        assert x0 <= answer["peak"]["x"] <= x1
        assert y0 <= answer["peak"]["y"] <= y1
        assert [region["box"] for region in answer["regions"]] == [list(region.box) for region in found.regions(resolution="model")]
        # What the page draws: target less gamma times the weighted contrasts.
        grid = answer["map"]["grid"]
        cosines = decoded(answer["map"]["cosines"], (2, *grid))
        for gamma in (0.0, 0.4, 1.0):
            expected = desk.localizer.locate(desk.gallery.get(id_).path, "red", ["green"], gamma=gamma).scores
            assert np.allclose(cosines[0] - gamma * answer["map"]["weights"][0] * cosines[1], expected, atol=1e-5)
        assert sum(row["value"] for row in answer["ledger"]) == pytest.approx(answer["peak"]["score"], abs=1e-5)
        assert answer["zero_shot"] is True
        assert answer["certificate"]["verdict"] == found.certificate.verdict
        assert answer["certificate"]["reason"] == found.certificate.reason


def test_the_certificate_can_be_left_out(client: Any) -> None:
    assert ask(client, picture=ids(client)["a.png"], **RED, certificate=False)["certificate"] is None


def test_a_picture_is_encoded_once(client: Any, desk: Any) -> None:
    id_ = ids(client)["a.png"]
    assert ask(client, picture=id_, **RED)["timing"]["encoded"] is True
    assert ask(client, picture=id_, target="blue", contrasts=["red"])["timing"]["encoded"] is False
    assert desk.counts["encoded"] == 1


def test_features_are_kept_within_the_memory(photos: Any) -> None:
    from concept_cam.localizer import Localizer
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery
    from tests.planted import PlantedBackbone

    one = 8 * 8 * 4 * 4
    desk = Desk(Localizer(PlantedBackbone(64, 8)), open_gallery(str(photos)), memory=2 * one)
    for entry in desk.gallery.entries:
        desk.ask(entry, RED)
    assert len(desk._features) == 2
    assert len(desk.image_embeddings()) == 4  # Small, and kept to choose the next picture.
    assert desk.ask(desk.gallery.entries[-1], RED).encoded is False
    assert desk.ask(desk.gallery.entries[0], RED).encoded is True
    desk.close()


def test_a_picture_in_the_request(client: Any) -> None:
    buffer = io.BytesIO()
    painted((40, 80), (40, 0, 80, 40)).save(buffer, "PNG")
    answer = ask(client, image=base64.b64encode(buffer.getvalue()).decode(), **RED)
    assert answer["picture"]["width"] == 80
    assert answer["peak"]["x"] > 40


def test_dropped_pictures_join_the_strip(client: Any) -> None:
    buffer = io.BytesIO()
    painted((40, 80), (40, 0, 80, 40)).save(buffer, "PNG")
    made = client.post("/api/pictures?name=../../x.png", content=buffer.getvalue(), headers={"Content-Type": "image/png"})
    assert made.status_code == 201
    assert made.json()["source"].endswith("/x.png")
    first = client.get("/api/pictures").json()["pictures"][0]
    assert first["id"] == made.json()["id"]
    assert ask(client, picture=first["id"], **RED)["peak"]["x"] > 40
    refused = client.post("/api/pictures", content=b"<svg onload=alert(1)>", headers={"Content-Type": "image/svg+xml"})
    assert refused.status_code == 400
    assert "not a picture" in refused.json()["error"]["message"]


def test_what_was_done_to_a_picture_is_told(client: Any) -> None:
    """An animation of which the first frame is looked at, and a picture too dark to see, were answered without a word."""
    frames, dark = io.BytesIO(), io.BytesIO()
    painted((64, 64), (0, 0, 32, 32)).save(frames, "GIF", save_all=True, append_images=[painted((64, 64), (32, 32, 64, 64))])
    Image.fromarray(np.full((64, 64), 155, np.uint16)).save(dark, "TIFF")
    told = []
    for content, kind in ((frames, "gif"), (dark, "tiff")):
        made = client.post(f"/api/pictures?name=a.{kind}", content=content.getvalue(), headers={"Content-Type": f"image/{kind}"}).json()
        told.append(ask(client, picture=made["id"], **RED)["picture"]["notes"])
    assert told[0] == ["first frame of an animated or multi-page file"]
    assert "no value above 155 of 65535" in told[1]
    assert ask(client, picture=ids(client)["a.png"], **RED)["picture"]["notes"] == []


def test_a_dropped_file_is_called_by_its_name_or_a_file(client: Any) -> None:
    refused = client.post("/api/pictures?name=empty.png", content=b"", headers={"Content-Type": "image/png"})
    assert refused.json()["error"]["message"].startswith("the file is empty")
    dark = io.BytesIO()
    Image.fromarray(np.full((64, 64), 155, np.uint16)).save(dark, "TIFF")
    with pytest.warns(UserWarning, match=r"^'dark\.tif': its values end at 155"):
        client.post("/api/pictures?name=dark.tif", content=dark.getvalue(), headers={"Content-Type": "image/tiff"})


def test_a_picture_is_found_by_its_whole_title(client: Any, photos: Any) -> None:
    found = client.get("/api/pictures", params={"title": "b.png"}).json()
    assert [item["title"] for item in found["pictures"]] == ["b.png"]
    assert client.get("/api/pictures", params={"title": "b.pn"}).json()["total"] == 0


def test_another_folder_at_the_same_address_shows_its_own_pictures(client: Any, photos: Path, tmp_path: Path) -> None:
    """Ids are made of names: a browser may keep a picture, but must ask whether it is still the same."""
    first = client.get(f"/api/pictures/{ids(client)['a.png']}/image?side=160")
    assert "no-cache" in first.headers["cache-control"]
    known = {"If-None-Match": first.headers["etag"]}
    assert client.get(f"/api/pictures/{ids(client)['a.png']}/image?side=160", headers=known).status_code == 304
    folder = tmp_path / "other"
    folder.mkdir()
    painted((64, 64), (8, 8, 60, 60), (0, 0, 255)).save(folder / "a.png")
    other = Desk(Localizer(PlantedBackbone(64, 8)), open_gallery(str(folder)))
    with TestClient(build_app(other), base_url="http://localhost:8765") as second:
        assert ids(second)["a.png"] == ids(client)["a.png"]
        answer = second.get(f"/api/pictures/{ids(second)['a.png']}/image?side=160", headers=known)
        assert answer.status_code == 200
        assert answer.content != first.content
        assert second.get("/api/state").json()["identity"] != client.get("/api/state").json()["identity"]


def paint_two(file: Any, *, large: tuple[int, int, int], small: tuple[int, int, int]) -> None:
    """A green picture with a large and a small patch."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[..., 1] = 200
    pixels[0:32, 0:24] = large
    pixels[40:56, 40:56] = small
    Image.fromarray(pixels).save(file)


def test_the_region_of_the_peak_comes_first(client: Any, photos: Any) -> None:
    """It is smaller than another one; Label Studio is given it too."""
    paint_two(photos / "a.png", large=(255, 0, 90), small=(255, 0, 0))
    answer = ask(client, picture=ids(client)["a.png"], **RED)
    first, second = answer["regions"]
    assert first["area"] < second["area"]
    assert first["box"][0] <= answer["peak"]["x"] < first["box"][2]
    assert first["box"][1] <= answer["peak"]["y"] < first["box"][3]
    config = (
        '<View><Image name="i" value="$image"/><RectangleLabels name="b" toName="i"><Label value="red" contrast="green"/>'
        "</RectangleLabels></View>"
    )
    asked = client.post("/predict", json={"tasks": [{"id": 1, "data": {"image": "a.png"}}], "label_config": config}).json()
    (found,) = asked["results"][0]["result"]
    sides = [found["value"][name] * 0.64 for name in ("x", "y", "width", "height")]
    x0, y0, x1, y1 = first["box"]
    assert sides == pytest.approx([x0, y0, x1 - x0, y1 - y0])


def test_clicks_re_rank_the_regions(client: Any, photos: Any) -> None:
    paint_two(photos / "a.png", large=(255, 0, 0), small=(255, 0, 40))
    id_ = ids(client)["a.png"]
    plain = ask(client, picture=id_, **RED, threshold=0.3)["regions"]
    assert len(plain) == 2
    assert plain[0]["area"] > plain[1]["area"]
    second = plain[1]["peak"]
    assert ask(client, picture=id_, **RED, threshold=0.3, clicks=[[*second, 1]])["regions"][0] == plain[1]
    assert ask(client, picture=id_, **RED, threshold=0.3, clicks=[[*plain[0]["peak"], -1]])["regions"][0] == plain[1]
    # Neither region is clicked: the one that looks like the clicked patches comes first.
    assert ask(client, picture=id_, **RED, threshold=0.3, clicks=[[60, 2, -1]])["regions"][0]["area"] in {
        region["area"] for region in plain
    }


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({}, "the target is empty"),
        ({"target": " "}, "the target is empty"),
        ({"target": "red", "contrasts": ["RED"]}, "equals the target"),
        ({"target": "red", "gama": 1}, "no 'gama'"),
        ({"target": "red", "gamma": -1}, "gamma is a number in 0..10"),
        ({"target": "red", "gamma": True}, "gamma is a number"),
        ({"target": "red", "weighting": "soft"}, "unknown weighting 'soft'"),
        ({"target": "red", "threshold": "otsoo"}, "Did you mean 'otsu'"),
        ({"target": "red", "clicks": [[1, 2, 5]]}, "a click is"),
        ({"target": 5}, "target is a text"),
        ({"target": "x" * 400}, "400 characters"),
        ({"target": "red", "contrasts": "green"}, "list of texts"),
        ({"character": "fisch:tail"}, "Did you mean 'fish'"),
        ({"character": "fish:caudal_fin_shap"}, "caudal_fin_shape"),
        ({"character": "/etc/passwd:x"}, "unknown trait pack"),
        ({"character": "fish:parts"}, "name one as state"),
        ({"target": "red", "taught": "nothing"}, "was taught"),
    ],
)
def test_wrong_questions(client: Any, question: dict[str, Any], words: str) -> None:
    answer = client.post("/api/ask", json={"picture": ids(client)["a.png"], **question})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    jsonschema.validate(answer.json(), {"$ref": "#/components/schemas/Error", "components": document()["components"]})


def test_the_bundled_model_answers(fish_desk: Any) -> None:
    """The example fish: the fork is found at the tail, and the state is called."""
    entries = {entry.source: entry for entry in fish_desk.gallery.entries}
    for name in ("forked", "rounded"):
        answer = fish_desk.ask(entries[f"{name}.png"], {"character": "fish:caudal_fin_shape"}).to_dict()
        assert answer["call"]["state"] == name
        assert answer["subject"]["pack"] == "fish"
        assert answer["peak"]["x"] < 160  # The tail points to the left.
    part = fish_desk.ask(entries["forked.png"], {"character": "fish:parts", "state": "head"})
    assert part.to_dict()["call"]["score"] > 0
    assert part.found.peak[0] > 300
    direct = fish_desk.localizer.locate(entries["forked.png"].path, "a forked tail fin", ["a rounded tail fin"])
    asked = fish_desk.ask(entries["forked.png"], {"target": "a forked tail fin", "contrasts": ["a rounded tail fin"]})
    assert np.allclose(direct.scores, asked.found.scores, atol=1e-5, equal_nan=True)
    assert asked.found.concept == Concept(("a forked tail fin",), (("a rounded tail fin",),))


def test_the_openapi_document_describes_the_routes(desk: Any, client: Any) -> None:
    described = client.get("/openapi.json").json()
    assert described == document()
    paths = {(path, method.upper()) for path, item in described["paths"].items() for method in item}
    assert paths == {(route.path, method) for route in build_routes(desk) for method in route.methods - {"HEAD"}}
    answer = ask(client, picture=ids(client)["a.png"], **RED, map=True)
    schema = {"$ref": "#/components/schemas/Answer", "components": described["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)
    for name, item in described["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(item)
        assert isinstance(name, str)


@pytest.mark.skipif(shutil.which("bash") is None, reason="the question of the guide is written for bash")
def test_the_documented_question_carries_a_photograph(client: Any, tmp_path: Path) -> None:
    """Linux passes no argument of more than 128 KiB to a program, so that the body of a photograph never left the shell."""
    guide = (Path(__file__).parents[2] / "examples" / "serve.md").read_text(encoding="utf-8")
    (command,) = (block for block in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL) if "/api/ask" in block)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "fish.png")
    (tmp_path / "curl").write_text("#!/bin/sh\ncat\n")
    (tmp_path / "curl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    sent = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=60).stdout
    question = json.loads(sent)
    assert question.keys() == {"image", "target", "contrasts"}
    assert ask(client, **question | RED)["picture"]["width"] == 300  # the model of these tests knows colours alone


def test_errors_of_the_documented_question(client: Any) -> None:
    described = document()["components"]
    schema = {"$ref": "#/components/schemas/Ask", "components": described}
    for good in ({"picture": "x", **RED}, {"character": "fish:parts", "state": "head", "clicks": [[1, 2, -1]]}):
        jsonschema.Draft202012Validator(schema).validate(good)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({"gama": 1})


def test_an_index_is_asked_without_its_image_tower(photos: Path, tmp_path: Path) -> None:
    """Stored features give the answers of fresh ones, also where the pictures are gone; another model is refused."""
    from concept_cam.collection.indexing import build_index
    from concept_cam.core.errors import ConfigurationError
    from concept_cam.localizer import Localizer
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery
    from tests.planted import PlantedBackbone

    localizer = Localizer(PlantedBackbone(64, 8))
    build_index(photos, tmp_path / "photos.index", localizer=localizer, workers=0)
    made = open_gallery(str(tmp_path / "photos.index"))
    assert made.kind == "index"
    assert [entry.source for entry in made.entries] == sorted(BOXES)
    fresh = Desk(localizer, open_gallery(str(photos)))
    (photos / "a.png").unlink()
    desk = Desk(made.index.localizer(localizer), open_gallery(str(tmp_path / "photos.index")))
    for entry in desk.gallery.entries:
        stored = desk.ask(entry, RED)
        if entry.source != "a.png":
            assert np.allclose(stored.found.scores, fresh.ask(fresh.gallery.by_source(entry.source), RED).found.scores, atol=2e-3)
        x0, y0, x1, y1 = BOXES[entry.source]
        assert x0 <= stored.found.peak[0] <= x1
        assert y0 <= stored.found.peak[1] <= y1
    with pytest.raises(ImageError, match="not on this machine"):
        desk.picture(desk.gallery.entries[0], 160)

    class Other(PlantedBackbone):
        weights_hash = "another"

    with pytest.raises(ConfigurationError, match="ask with the model of the index"):
        made.index.localizer(Localizer(Other(64, 8)))
    desk.close()
    fresh.close()
