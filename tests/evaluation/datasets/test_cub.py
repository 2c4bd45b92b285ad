from pathlib import Path

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.evaluation import datasets
from tests.evaluation.datasets.test_samples import save

PARTS = ("back", "beak", "belly", "left eye", "right eye", "tail")
ATTRIBUTES = (
    "has_bill_shape::curved_(up_or_down)",
    "has_bill_shape::cone",
    "has_tail_pattern::solid",
    "has_tail_pattern::striped",
    "has_size::small_(5_-_9_in)",
)


def write(root: Path) -> Path:
    """The published layout in small: two pictures, the first one for testing."""
    for name in ("001.Albatross/a.jpg", "002.Auk/b.jpg"):
        save(root / "images" / name, np.zeros((40, 60, 3), dtype=np.uint8))
    (root / "parts").mkdir()
    (root / "attributes").mkdir()
    text = {
        "images.txt": "1 001.Albatross/a.jpg\n2 002.Auk/b.jpg\n",
        "train_test_split.txt": "1 0\n2 1\n",
        "bounding_boxes.txt": "1 5.0 10.0 40.0 20.0\n2 0.0 0.0 60.0 40.0\n",
        "parts/parts.txt": "".join(f"{i} {name}\n" for i, name in enumerate(PARTS, 1)),
        "parts/part_locs.txt": "1 1 20.0 12.0 1\n1 2 6.5 15.0 1\n1 3 0.0 0.0 0\n1 4 8.0 13.0 1\n1 5 9.0 13.0 1\n1 6 44.0 20.0 1\n2 6 "
        "3.0 3.0 1\n",
        "attributes/image_attribute_labels.txt": "1 1 1 4 7.5\n1 2 0 4 7.5\n1 3 1 2 3.1\n1 4 1 3 2.0 0 extra\n1 5 1 4 1.0\n2 1 1 4 1.0\n2 "
        "2 1 4 1.0\n",
    }
    for name, lines in text.items():
        (root / name).write_text(lines, encoding="utf-8")
    (root.parent / "attributes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(ATTRIBUTES, 1)), encoding="utf-8")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "CUB_200_2011").mkdir()
    return write(tmp_path / "CUB_200_2011")


def test_parts_are_points(root: Path) -> None:
    data = datasets.load(f"cub:{root}")
    assert data.facts["host"] == "bounding box"
    (sample,) = list(data)
    assert sample.name == "001.Albatross/a.jpg"
    parts = {question.trait: question for question in sample.questions if question.kind == "part"}
    assert set(parts) == {"back", "beak", "eye", "tail"}
    points = parts["eye"].points
    assert points is not None
    assert points.xy[list(np.flatnonzero(points.labels))].tolist() == [[8.0, 13.0], [9.0, 13.0]]
    assert len(points.labels) == 5
    assert points.tolerance == pytest.approx(4.0)
    host = parts["eye"].host()
    assert host.sum() == 40 * 20
    assert host[10, 5]
    assert not host[9, 5]


def test_attributes_are_states_where_one_is_certain(root: Path) -> None:
    (sample,) = list(datasets.load(f"cub:{root}"))
    states = {question.trait: question for question in sample.questions if question.kind == "state"}
    assert set(states) == {"has_bill_shape", "has_tail_pattern"}
    assert states["has_bill_shape"].concept.target == ("a bird with a curved bill",)
    assert states["has_bill_shape"].concept.contrasts == (("a bird with a cone bill",),)
    assert states["has_tail_pattern"].concept.target == ("a bird with a striped tail",)
    (train,) = list(datasets.load(f"cub:{root}", split="train"))
    assert [question.kind for question in train.questions] == ["part"]
    assert len(datasets.load(f"cub:{root}", split="all")) == 2


def test_states_have_the_article_that_they_take(root: Path) -> None:
    path = root.parent / "attributes.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("::cone", "::all-purpose"), encoding="utf-8")
    (sample,) = list(datasets.load(f"cub:{root}"))
    bill = next(question for question in sample.questions if question.trait == "has_bill_shape")
    assert bill.concept.contrasts == (("a bird with an all-purpose bill",),)


def test_segmentations_are_the_host_where_they_are_there(root: Path) -> None:
    values = np.zeros((40, 60), dtype=np.uint8)
    values[10:20, 5:45], values[20, 5:45] = 255, 51
    save(root / "segmentations" / "001.Albatross" / "a.png", values)
    (sample,) = list(datasets.load(f"cub:{root}"))
    host = sample.questions[1].host()
    assert (host == 255).sum() == 400
    assert (host == 128).sum() == 40
    assert sample.questions[0].kind == "object"


def test_what_is_not_the_layout(root: Path) -> None:
    with pytest.raises(DataError, match="unknown split"):
        datasets.load(f"cub:{root}", split="val")
    (root / "bounding_boxes.txt").write_text("1 5.0\n", encoding="utf-8")
    with pytest.raises(DataError, match="has 2 columns, expected 5"):
        datasets.load(f"cub:{root}")
    (root / "images.txt").unlink()
    with pytest.raises(DataError, match="expected the folder CUB_200_2011"):
        datasets.load(f"cub:{root}")
