"""Masks that people drew in CVAT and Label Studio: what comes back from a tool is what was drawn there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from concept_cam.core.errors import DataError
from concept_cam.evaluation import datasets
from concept_cam.exports.cvat import encode_mask
from concept_cam.exports.labelstudio import encode_brush

HEIGHT, WIDTH = 30, 40


def mask(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[top:bottom, left:right] = True
    return drawn


HEAD, TAIL = mask(10, 2, 20, 12), mask(8, 30, 22, 38)
SQUARE = "30,8;38,8;38,22;30,22"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("a.png", "deep/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(folder / name)
    return folder


def attributes(**values: str) -> str:
    return "".join(f'<attribute name="{name}">{text}</attribute>' for name, text in values.items())


def shape(label: str, drawn: np.ndarray, **values: str) -> str:
    geometry = " ".join(f'{name}="{text}"' for name, text in encode_mask(drawn).items())
    return f'<mask label="{label}" {geometry} z_order="0">{attributes(**values)}</mask>'


def cvat(path: Path, *images: tuple[str, str]) -> Path:
    body = "".join(
        f'<image id="{i}" name="{name}" width="{WIDTH}" height="{HEIGHT}">{inner}</image>' for i, (name, inner) in enumerate(images)
    )
    path.write_text(f"<annotations><version>1.1</version>{body}</annotations>", encoding="utf-8")
    return path


def asked(spec: str, **options: Any) -> dict[str, dict[str, tuple[str, Any, bool]]]:
    """Picture -> name of the concept -> kind, mask, whether it is there."""
    data = datasets.load(spec, **options)
    samples = list(data)
    assert len(data) == len(samples)
    return {
        sample.name: {
            item.concept.name: (item.kind, None if item.mask is None else np.asarray(item.mask()), item.present)
            for item in sample.questions
        }
        for sample in samples
    }


def test_cvat_masks_and_polygons(tmp_path: Path, photos: Path) -> None:
    body = shape("head", HEAD) + f'<polygon label="tail" points="{SQUARE}"/>' + '<box label="eye" xtl="1" ytl="1" xbr="3" ybr="3"/>'
    path = cvat(tmp_path / "a.xml", ("a.png", body), ("deep/b.png", shape("head", HEAD) + shape("head", TAIL)))
    found = asked(f"cvat:{path}", images=photos, host="fish")
    assert set(found["a.png"]) == {"parts=head", "parts=tail"}
    assert datasets.load(f"cvat:{path}", images=photos).host.target == ("an organism",)
    np.testing.assert_array_equal(found["a.png"]["parts=head"][1], HEAD)
    np.testing.assert_array_equal(found["a.png"]["parts=tail"][1], TAIL)
    np.testing.assert_array_equal(found["deep/b.png"]["parts=head"][1], HEAD | TAIL)  # Two regions of one label are one part.


def test_the_subject_is_known_in_any_case(tmp_path: Path, photos: Path) -> None:
    path = cvat(tmp_path / "a.xml", ("a.png", shape("Fish", HEAD | TAIL) + shape("Head", HEAD)))
    found = asked(f"cvat:{path}", images=photos, traits="fish")["a.png"]
    assert {name: item[0] for name, item in found.items()} == {"host": "object", "parts=head": "part"}


def test_cvat_labels_of_a_pack(tmp_path: Path, photos: Path) -> None:
    yes, no = {"reviewed": "true"}, {"reviewed": "false"}
    body = (
        shape("parts: head", HEAD, state="head", **yes)
        + shape("parts: caudal_fin", TAIL, state="caudal_fin", **no)
        + shape("caudal_fin_shape", TAIL, state="forked", **yes)
        + f'<tag label="adipose_fin">{attributes(state="absent", **yes)}</tag>'
        + f'<tag label="pelvic_fin">{attributes(state="not called", **yes)}</tag>'
    )
    path = cvat(tmp_path / "a.xml", ("a.png", body))
    found = asked(f"cvat:{path}", images=photos, traits="fish")["a.png"]
    assert {name: item[::2] for name, item in found.items()} == {
        "parts=head": ("part", True),
        "caudal_fin_shape=forked": ("state", True),
        "adipose_fin=present": ("presence", False),
    }
    np.testing.assert_array_equal(found["caudal_fin_shape=forked"][1], TAIL)
    sample = next(iter(datasets.load(f"cvat:{path}", images=photos, traits="fish")))
    assert sample.questions[0].concept.metadata["kind"] == "part"


def test_nothing_that_nobody_looked_at_counts(tmp_path: Path, photos: Path) -> None:
    path = cvat(tmp_path / "a.xml", ("a.png", shape("parts: head", HEAD, state="head", reviewed="false")))
    with pytest.raises(DataError, match=r"no region is marked as 'reviewed', so that all may be the model's own"):
        datasets.load(f"cvat:{path}", images=photos, traits="fish")


def brush(label: str, drawn: np.ndarray) -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush(drawn), "brushlabels": [label]}
    return {"type": "brushlabels", "value": value, "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}


def studio(path: Path, *tasks: dict[str, Any]) -> Path:
    path.write_text(json.dumps(list(tasks)), encoding="utf-8")
    return path


def test_label_studio_brushes_polygons_and_choices(tmp_path: Path, photos: Path) -> None:
    corners = [[30 / WIDTH * 100, 8 / HEIGHT * 100], [38 / WIDTH * 100, 8 / HEIGHT * 100]]
    corners += [[38 / WIDTH * 100, 22 / HEIGHT * 100], [30 / WIDTH * 100, 22 / HEIGHT * 100]]
    polygon = {**brush("x", HEAD), "type": "polygonlabels", "value": {"points": corners, "polygonlabels": ["parts: caudal_fin"]}}
    choice = {"type": "choices", "from_name": "caudal_fin_shape", "value": {"choices": ["rounded"]}}
    old = {"result": [brush("parts: head", TAIL)], "updated_at": "2025"}
    new = {"result": [brush("parts: head", HEAD), polygon, choice], "updated_at": "2026"}
    skipped = {"result": [brush("parts: eye", HEAD)], "updated_at": "2027", "was_cancelled": True}
    guess = [{"result": [brush("parts: eye", HEAD)]}]
    first = {"data": {"image": "/data/local-files/?d=photos/a.png"}, "annotations": [old, new, skipped], "predictions": guess}
    second = {"data": {"source": "deep/b.png", "image": "x"}, "annotations": [old]}
    path = studio(tmp_path / "export.json", first, second, {"data": {"image": "c.png"}, "annotations": []})
    found = asked(f"labelstudio:{path}", images=photos, traits="fish")
    assert set(found) == {"photos/a.png", "deep/b.png"}
    own = found["photos/a.png"]
    assert set(own) == {"parts=head", "parts=caudal_fin", "caudal_fin_shape=rounded"}
    np.testing.assert_array_equal(own["parts=head"][1], HEAD)
    np.testing.assert_array_equal(own["parts=caudal_fin"][1], TAIL)
    assert own["caudal_fin_shape=rounded"][:2] == ("state", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"original_width": 7}, "holds 1200 pixels, expected 30 x 7"),
        ({"image_rotation": 90}, "turn it back"),
        ({"original_height": 10**9}, "cannot be"),
    ],
)
def test_damaged_label_studio_regions(tmp_path: Path, photos: Path, change: dict[str, Any], message: str) -> None:
    task = {"data": {"source": "a.png"}, "annotations": [{"result": [{**brush("head", HEAD), **change}]}]}
    path = studio(tmp_path / "export.json", task)
    with pytest.raises(DataError, match=message):
        asked(f"labelstudio:{path}", images=photos, host="fish")


def test_pictures_are_found_or_named(tmp_path: Path, photos: Path) -> None:
    elsewhere = cvat(tmp_path / "a.xml", ("b.png", shape("head", HEAD)))
    assert set(asked(f"cvat:{elsewhere}", images=photos, host="fish")) == {"b.png"}  # By its name, in a folder below.
    for name, message in (("c.png", "lies nowhere in"), ("../a.xml", "lies nowhere in")):
        path = cvat(tmp_path / "a.xml", (name, shape("head", HEAD)))
        with pytest.raises(DataError, match=message):
            asked(f"cvat:{path}", images=photos, host="fish")
    (photos / "deep" / "a.png").write_bytes((photos / "a.png").read_bytes())
    (photos / "a.png").rename(photos / "x.png")
    (photos / "other").mkdir()
    (photos / "other" / "a.png").write_bytes((photos / "x.png").read_bytes())
    path = cvat(tmp_path / "a.xml", ("a.png", shape("head", HEAD)))
    with pytest.raises(DataError, match="may be any of 2 pictures"):
        asked(f"cvat:{path}", images=photos, host="fish")
    with pytest.raises(DataError, match=r"the folder .* does not exist"):
        asked(f"cvat:{path}", images=photos / "nowhere", host="fish")


def test_nothing_to_ask_for(tmp_path: Path, photos: Path) -> None:
    path = cvat(tmp_path / "a.xml", ("a.png", '<box label="eye" xtl="1" ytl="1" xbr="3" ybr="3"/>'))
    with pytest.raises(DataError, match="no region and no state"):
        datasets.load(f"cvat:{path}", images=photos, host="fish")
    path = studio(tmp_path / "e.json", {"data": {"source": "a.png"}, "predictions": [{"result": [brush("head", HEAD)]}]})
    with pytest.raises(DataError, match="no region and no state"):
        datasets.load(f"labelstudio:{path}", images=photos, host="fish")
    (tmp_path / "e.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(DataError, match="not a JSON export of Label Studio"):
        datasets.load(f"labelstudio:{path}", images=photos, host="fish")
    (tmp_path / "a.xml").write_text("<coco/>", encoding="utf-8")
    with pytest.raises(DataError, match="not an annotation file of CVAT"):
        datasets.load(f"cvat:{tmp_path / 'a.xml'}", images=photos, host="fish")
