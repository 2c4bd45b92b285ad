"""Teaching with clicks: the mathematics, what is stored, and that every answer says it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from concept_cam import prompts
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.serve.teaching import Taught, TaughtConcepts, click_vectors, prototype
from tests.serve.conftest import BOXES
from tests.serve.test_asking import RED, ask, ids

FACTS = {
    "target": "red",
    "contrasts": ("green",),
    "positive": 10,
    "negative": 2,
    "pictures": 3,
    "mix": 0.5,
    "model": "planted",
    "weights_hash": "w",
}


def examples(client: Any) -> list[dict[str, Any]]:
    found = []
    for name, id_ in ids(client).items():
        x0, y0, x1, y1 = BOXES[name]
        inside = [[x0 + 4 + 8 * k, y0 + 4, 1] for k in range(3)]
        outside = [[60 if x1 < 60 else 4, 60 if y1 < 60 else 4, -1]]
        found.append({"picture": id_, "clicks": inside + outside})
    return found


def test_the_prototype_is_a_difference_of_means() -> None:
    positive, negative = torch.rand(12, 5), torch.rand(4, 5)
    assert torch.allclose(prototype(positive, negative), positive.mean(0) - negative.mean(0))
    assert torch.allclose(prototype(positive, negative[:0]), positive.mean(0))
    with pytest.raises(ConfigurationError, match="at least 10 positive clicks, received 9"):
        prototype(positive[:9], negative)
    with pytest.raises(ConfigurationError, match="look the same"):
        prototype(positive, positive)


def test_clicks_read_the_patch_under_them(desk: Any) -> None:
    entry = desk.gallery.entries[0]
    features = desk.features(entry)[0]
    vectors = click_vectors(features, [(4, 4), (60, 60), (-3, 4), (64.5, 4)])
    assert len(vectors) == 2  # The others are outside.
    for vector, (row, column) in zip(vectors, [(0, 0), (7, 7)]):
        assert torch.allclose(vector, torch.nn.functional.normalize(features.patches[row, column], dim=-1))


def test_teaching_over_http(client: Any, desk: Any) -> None:
    made = client.post("/api/taught", json={"name": "red_box", **RED, "examples": examples(client), "person": "Ada"})
    assert made.status_code == 201, made.text
    assert made.json() == {**made.json(), "positive": 12, "negative": 4, "pictures": 4, "zero_shot": False, "person": "Ada"}
    id_ = ids(client)["b.png"]
    plain = ask(client, picture=id_, **RED, gamma=0.6, map=True)
    for mix in (0.0, 0.3, 1.0):
        answer = ask(client, picture=id_, **RED, gamma=0.6, taught="red_box", mix=mix, map=True)
        assert answer["zero_shot"] is False
        assert answer["taught"]["name"] == "red_box"
        assert answer["certificate"] is None  # It would be about the words alone.
        grid = answer["map"]["grid"]
        own = np.frombuffer(base64.b64decode(answer["map"]["prototype"]), "<f4").reshape(grid)
        cosines = np.frombuffer(base64.b64decode(plain["map"]["cosines"]), "<f4").reshape(2, *grid)
        words = cosines[0] - 0.6 * cosines[1]
        # The taught direction is as long as that of the words.
        vectors = desk.localizer.embed_texts([["red"], ["green"]])
        length = float((vectors[0] - 0.6 * vectors[1]).norm())
        expected = (1 - mix) * words + mix * length * own
        entry = desk.gallery.get(id_)
        found = desk.ask(entry, {**RED, "gamma": 0.6, "taught": "red_box", "mix": mix}).found.scores
        assert np.allclose(found, expected, atol=1e-5)
        # A direction of unit length gives cosines.
        assert np.nanmax(np.abs(own)) <= 1 + 1e-6
        assert sum(row["value"] for row in answer["ledger"]) == pytest.approx(answer["peak"]["score"], abs=1e-5)
    few = client.post("/api/taught", json={"name": "few", **RED, "examples": examples(client)[:2]})
    assert few.status_code == 400
    assert "received 6" in few.json()["error"]["message"]
    assert client.post("/api/taught", json={"name": "../x", **RED, "examples": examples(client)}).status_code == 400
    # A correction of an answer that was taught says so, in the labels too.
    client.post(
        "/api/corrections", json={"picture": id_, "question": {**RED, "taught": "red_box"}, "verdict": "accept", "called": {"state": "red"}}
    )
    assert ",red_box," in client.get("/api/export/labels").text
    assert client.delete("/api/taught/red_box").status_code == 200
    assert not (desk.taught.folder / "red_box.safetensors").exists()
    assert client.delete("/api/taught/red_box").status_code == 400


def test_a_taught_concept_is_kept_as_a_pack_and_marked(tmp_path: Path) -> None:
    store = TaughtConcepts(tmp_path / "taught", "w")
    vector = torch.rand(5)
    store.keep(Taught(name="red_box", vector=vector, **FACTS))
    store.keep(Taught(name="alone", vector=vector, **{**FACTS, "contrasts": ()}))
    again = TaughtConcepts(tmp_path / "taught", "w")
    assert torch.equal(again.get("red_box").vector, vector)
    assert again.get("red_box").contrasts == ("green",)
    assert list(TaughtConcepts(tmp_path / "taught", "other weights")) == []
    pack = prompts.load_pack(tmp_path / "taught" / "taught.yaml")
    assert "Taught, not zero-shot: 10 positive and 2 negative clicks on 3 pictures" in pack.character("red_box").notes
    assert [concept.target for concept in prompts.load(f"{tmp_path}/taught/taught.yaml:red_box=taught")] == [("red",)]
    with pytest.raises(ConfigurationError, match="Did you mean 'red_box'"):
        again.get("red_bux")
    with pytest.raises(ConfigurationError, match="a-z"):
        store.keep(Taught(name="Red Box", vector=vector, **FACTS))
    (tmp_path / "taught" / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken\.safetensors holds no taught concept"):
        TaughtConcepts(tmp_path / "taught", "w")
