import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from concept_cam.core.errors import DataError
from concept_cam.core.regions import encode_rle
from concept_cam.evaluation import datasets
from concept_cam.evaluation.datasets.coco import decode_segmentation
from tests.evaluation.datasets.test_samples import save

SIZE = (10, 14)


def tail() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[2:5, 8:13] = True
    return mask


def content() -> dict[str, Any]:
    rle = encode_rle(tail())
    crowd = np.zeros(SIZE, dtype=bool)
    crowd[4:8, 8:13] = True
    flat = crowd.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]},
            {"id": 8, "file_name": "b.png", "height": 3, "width": 3},
        ],
        "categories": [{"id": i, "name": name, "supercategory": "fish"} for i, name in enumerate(["fish", "caudal fin", "head"])],
        "annotations": [
            {"image_id": 7, "category_id": 0, "segmentation": [[1, 1, 13, 1, 13, 9, 1, 9]]},
            {"image_id": 7, "category_id": 1, "segmentation": dict(rle)},
            {
                "image_id": 7,
                "category_id": 1,
                "segmentation": {"size": list(SIZE), "counts": counts},
                "iscrowd": 1,
            },
            {
                "image_id": 7,
                "category_id": 2,
                "segmentation": [[1, 1, 3, 1, 3, 4, 1, 4], [5, 5, 6, 5, 6, 6, 5, 6]],
            },
        ],
    }


def test_what_the_model_itself_found_is_no_truth(tmp_path: Path) -> None:
    path = write(tmp_path)
    for contributor in ("concept-cam 0.1.0", "Concept people"):
        path.write_text(json.dumps({**content(), "info": {"contributor": contributor}}), encoding="utf-8")
        if contributor == "Concept people":
            assert datasets.load(f"coco:{path}").count == 1
        else:
            with pytest.raises(DataError, match=r"its regions are the model's own.*--to cvat"):
                datasets.load(f"coco:{path}")


def write(root: Path) -> Path:
    save(root / "images" / "a.png", np.zeros((*SIZE, 3), dtype=np.uint8))
    path = root / "parts.json"
    path.write_text(json.dumps(content()), encoding="utf-8")
    return path


def test_parts_of_a_coco_file(tmp_path: Path) -> None:
    data = datasets.load(f"coco:{write(tmp_path)}", traits="fish")
    assert len(data) == 1
    assert data.facts["pictures_without_masks"] == 1
    (sample,) = list(data)
    found = {question.trait: question for question in sample.questions}
    assert set(found) == {"fish", "caudal fin", "head"}
    assert "a fish's tail fin" in found["caudal fin"].concept.target
    mask = found["caudal fin"].mask()
    assert (mask[tail()] == 255).all()
    assert mask[6, 9] == 128
    assert mask[0, 0] == 0
    host = found["head"].host()
    assert host.shape == SIZE
    assert host.sum() == 255 * 12 * 8
    assert (found["head"].mask() == 255).sum() == 2 * 3 + 1


def test_the_host_category_is_known_in_any_case(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"name": "fish"', '"name": "Fish"'), encoding="utf-8")
    data = datasets.load(f"coco:{path}")
    (sample,) = list(data)
    found = {question.trait: question for question in sample.questions}
    assert found["fish"].kind == "object"
    assert found["head"].host().sum() == 255 * 12 * 8
    assert data.facts["parts"] == ["caudal fin", "head"]


def test_without_a_host_category_all_parts_are_the_host(tmp_path: Path) -> None:
    path = write(tmp_path)
    everything = content()
    everything["annotations"] = everything["annotations"][1:]
    path.write_text(json.dumps(everything), encoding="utf-8")
    (sample,) = list(datasets.load(f"coco:{path}", host="trout", images=tmp_path / "images"))
    host = sample.questions[0].host()
    assert (host[tail()] == 255).all()
    assert host[2, 2] == 255
    assert sample.questions[0].concept.target == ("the caudal fin of a trout",)
    assert datasets.load(f"coco:{path}", host="eel", images=tmp_path / "images").host.target == ("an eel",)


def test_segmentations_equal_pycocotools() -> None:
    masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is only in the test environment")
    g = np.random.default_rng(0)
    for _ in range(5):
        angles = np.sort(g.uniform(0, 2 * np.pi, 9))
        outline = (np.stack([60 + 40 * np.cos(angles), 50 + 35 * np.sin(angles)], axis=1)).ravel().tolist()
        own = decode_segmentation([outline], (100, 120))
        theirs = masks.decode(masks.merge(masks.frPyObjects([outline], 100, 120))).astype(bool)
        assert (own & theirs).sum() / (own | theirs).sum() > 0.95
        rle = masks.encode(np.asfortranarray(theirs.astype(np.uint8)))
        text = {"size": rle["size"], "counts": rle["counts"].decode()}
        assert (decode_segmentation(text, (100, 120)) == theirs).all()
        loose = masks.frPyObjects([outline], 100, 120)[0]
        assert loose["size"] == [100, 120]


def test_wrong_masks_and_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sum to 5"):
        decode_segmentation({"size": [2, 2], "counts": [2, 3]}, (2, 2))
    with pytest.raises(DataError, match="rows, columns"):
        decode_segmentation({"size": [3, 2], "counts": [6]}, (2, 3))
    path = tmp_path / "x.json"
    path.write_text('{"images": [], "annotations": []}', encoding="utf-8")
    with pytest.raises(DataError, match="no COCO file"):
        datasets.load(f"coco:{path}")
    path.write_text('{"images": [], "annotations": [], "categories": []}', encoding="utf-8")
    with pytest.raises(DataError, match="no annotation has a segmentation"):
        datasets.load(f"coco:{path}")
    with pytest.raises(DataError, match="picture folder"):
        datasets.load(f"coco:{path}", images=tmp_path / "none")


GOOD = [[20, 20, 80, 20, 80, 90, 20, 90]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": GOOD[0]}, "no list of polygons"),
        ({"segmentation": [[*GOOD[0], 5]]}, "9 numbers"),
        ({"segmentation": [[20, 20, 80, 90]]}, "4 numbers"),
        ({"segmentation": [[]]}, "0 numbers"),
        ({"segmentation": [[1, 1, 2, 2, 3, "x"]]}, "could not convert"),
        ({"segmentation": [[1, 1, 2, 2, 3, float("nan")]]}, "no point of a picture"),
        ({"segmentation": [[1, 1, 2, 2, 3, 1e300]]}, "no point of a picture"),
        ({"segmentation": [{"size": [1, 1]}]}, "no list of polygons"),
        ({"category_id": 7}, "category_id 7 is not among"),
        ({"category_id": "1"}, "category_id '1' is not among.*another type"),
        ({"category_id": [1]}, "unhashable"),
        ({"image_id": 9}, "image_id 9 is not among"),
        ({"image_id": "1"}, "image_id '1' is not among.*another type"),
        ({"image_id": 2}, "no 'height' and 'width'"),
    ],
)  # fmt: skip
def test_a_wrong_annotation_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    Image.new("RGB", (240, 180)).save(tmp_path / "a.jpg")
    good = {"image_id": 1, "category_id": 1, "segmentation": GOOD, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 240, "height": 180}, {"id": 2, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "head"}, {"id": 2, "name": "tail"}],
        "annotations": [{"id": 40, **good}, {"id": 41, **good, **change}],
    }
    (tmp_path / "k.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"annotation 41.*{message}"):
        datasets.load(f"coco:{tmp_path / 'k.json'}")


@pytest.mark.parametrize("counts", [[10**30], [-5, 43205], [43199], "T3d0", "o" * 1000, None, [1.5, 43198.5]])
def test_run_lengths_that_cannot_be_are_named(tmp_path: Path, counts: Any) -> None:
    Image.new("RGB", (240, 180)).save(tmp_path / "a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 240, "height": 180}],
        "categories": [{"id": 1, "name": "head"}],
        "annotations": [{"id": 41, "image_id": 1, "category_id": 1, "segmentation": {"size": [180, 240], "counts": counts}}],
    }
    (tmp_path / "k.json").write_text(json.dumps(content))
    (sample,) = datasets.load(f"coco:{tmp_path / 'k.json'}")
    mask = sample.questions[0].mask
    assert mask is not None
    with pytest.raises(DataError, match="annotation 41"):
        mask()
