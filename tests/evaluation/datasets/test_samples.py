from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam.core.concept import Concept
from concept_cam.core.errors import DataError
from concept_cam.evaluation import datasets
from concept_cam.evaluation.datasets.samples import (
    Dataset,
    Points,
    Sample,
    SampleQuestion,
    part_concepts,
    read_number_picture,
    read_target_mask,
)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_masks_are_three_valued_or_two_valued(tmp_path: Path) -> None:
    three = save(tmp_path / "a.png", np.array([[0, 128, 255]], dtype=np.uint8))
    assert read_target_mask(three).tolist() == [[0, 128, 255]]
    two = save(tmp_path / "b.png", np.array([[0, 1, 1]], dtype=np.uint8))
    assert read_target_mask(two).tolist() == [[0, 255, 255]]
    colour = save(tmp_path / "c.png", np.array([[[255, 0, 0], [0, 0, 0]]], dtype=np.uint8))
    assert read_target_mask(colour).tolist() == [[255, 0]]
    bad = save(tmp_path / "d.png", np.array([[0, 7, 9]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"holds the values \[0, 7, 9\]"):
        read_target_mask(bad)
    with pytest.raises(DataError, match="does not exist"):
        read_target_mask(tmp_path / "none.png")
    (tmp_path / "e.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read"):
        read_number_picture(tmp_path / "e.png")


def test_palette_pictures_give_their_numbers(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 3, 7]], dtype=np.uint8), mode="P")
    image.putpalette([255, 0, 0] * 256)
    image.save(tmp_path / "p.png")
    assert read_number_picture(tmp_path / "p.png").tolist() == [[0, 3, 7]]


def test_part_concepts_contrast_with_the_other_parts_and_the_host() -> None:
    concepts = part_concepts(["Caudal_fin", "head"], "fish")
    assert concepts["Caudal_fin"].target == ("the caudal fin of a fish",)
    assert concepts["Caudal_fin"].contrasts == (("the head of a fish",), ("a fish",))


def test_a_subject_has_the_article_that_it_takes() -> None:
    concept = part_concepts(["leg", "wing"], "insect")["leg"]
    assert concept.target == ("the leg of an insect",)
    assert concept.contrasts == (("the wing of an insect",), ("an insect",))
    assert part_concepts(["host"], "insect")["host"].contrast_names == ("an insect",)


def test_a_part_of_a_data_set_may_be_called_host() -> None:
    concept = part_concepts(["host", "gall", "leaf"], "plant")["gall"]
    assert concept.contrast_names == ("host", "leaf", "a plant")
    assert concept.contrasts == (("the host of a plant",), ("the leaf of a plant",), ("a plant",))


def test_part_concepts_use_the_pack_where_names_agree() -> None:
    concepts = part_concepts(["Caudal fin", "Barbel", "snorkel"], "fish", "fish", alias="fishvista")
    assert "a fish's tail fin" in concepts["Caudal fin"].target
    assert "a fish's barbels" in concepts["Barbel"].target
    assert concepts["snorkel"].target == ("the snorkel of a fish",)
    assert len({concept.name for concept in concepts.values()}) == 3


def test_questions_and_points_are_checked() -> None:
    concept = Concept(("a fin",))
    with pytest.raises(DataError, match="unknown kind"):
        SampleQuestion(concept, "colour", "fin")
    with pytest.raises(DataError, match="absent"):
        SampleQuestion(concept, "part", "fin", present=False)
    with pytest.raises(DataError, match="absent"):
        SampleQuestion(concept, "presence", "fin", mask=lambda: np.ones((1, 1), dtype=bool), present=False)
    with pytest.raises(DataError, match="labels"):
        Points(np.zeros((2, 2)), (1,), 3.0)


def test_a_data_set_can_be_read_again_and_cut() -> None:
    samples = [Sample(str(i), np.zeros((2, 2, 3), dtype=np.uint8), ()) for i in range(5)]
    data = Dataset("folder", "1", lambda: iter(samples), 5, Concept(("a fish",)))
    assert [s.name for s in data.limited(2)] == [s.name for s in data.limited(2)] == ["0", "1"]
    assert len(data.limited(2)) == 2
    assert data.limited(None) is data.limited(9) is data


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kocho:x", "unknown data set"),
        ("folder", "needs a path"),
        ("synthetic:x", "no path"),
        ("coco:/none.json", "no COCO file"),
    ],
)
def test_wrong_names_and_paths(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        datasets.load(spec)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="option 'split'"):
        datasets.load(f"folder:{tmp_path}", split="train")
