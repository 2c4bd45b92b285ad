import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam.core.errors import DataError
from concept_cam.evaluation import datasets
from tests.evaluation.datasets.test_samples import save

SHAPE = (6, 9)


def mask(columns: slice) -> np.ndarray:
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[:, columns] = 255
    return values


def write(root: Path, images: str = "images", masks: str = "masks") -> Path:
    for stem in ("fish01", "fish__02"):
        save(
            root / images / f"{stem}.png" if "__" not in stem else root / images / "fish02.jpg",
            np.full((*SHAPE, 3), 90, dtype=np.uint8),
        )
    for stem in ("fish01", "fish02"):
        save(root / masks / f"{stem}__fish.png", mask(slice(1, 8)))
        save(root / masks / f"{stem}__caudal_fin.png", mask(slice(6, 8)))
    save(root / masks / "fish01__head.png", mask(slice(1, 3)))
    return root


@pytest.mark.parametrize("layout", [("images", "masks"), (".", "."), ("images", "images")])
def test_pictures_and_masks_by_name(tmp_path: Path, layout: tuple[str, str]) -> None:
    if layout == ("images", "images"):
        write(tmp_path / "images", ".", ".")
        data = datasets.load(f"folder:{tmp_path / 'images'}", host="fish")
    else:
        data = datasets.load(f"folder:{write(tmp_path, *layout)}", host="fish", traits="fish")
    samples = list(data)
    assert [sample.name for sample in samples] == ["fish01.png", "fish02.jpg"]
    first = {question.trait: question for question in samples[0].questions}
    assert set(first) == {"fish", "caudal_fin", "head"}
    assert first["fish"].kind == "object"
    tail = first["caudal_fin"]
    assert tail.kind == "part"
    assert tail.mask is not None
    assert tail.host is not None
    assert (tail.mask() == mask(slice(6, 8))).all()
    assert (tail.host() == mask(slice(1, 8))).all()
    assert len(samples[1].questions) == 2


def test_the_subject_is_that_of_the_pack_unless_it_is_named(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks")
    for given, noun in (({"traits": "fish"}, "fish"), ({"traits": "fish", "host": "catfish"}, "catfish"), ({}, "organism")):
        data = datasets.load(f"folder:{tmp_path}", **given)
        assert data.facts["host"] == noun
        assert data.host.target == (f"{'an' if noun == 'organism' else 'a'} {noun}",)
        # Its own mask is the subject's, and no part.
        assert ("fish" in data.facts["parts"]) == (noun != "fish")


def test_pictures_of_other_endings_have_their_masks(tmp_path: Path) -> None:
    for name, form in {"a.jfif": "JPEG", "b.JPG": "JPEG", "c.webp": "WEBP"}.items():
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", SHAPE[::-1], (90, 90, 90)).save(tmp_path / "images" / name, form)
        save(tmp_path / "masks" / f"{name[0]}__fish.png", mask(slice(1, 8)))
        save(tmp_path / "masks" / f"{name[0]}__tail.png", mask(slice(6, 8)))
    samples = list(datasets.load(f"folder:{tmp_path}", host="fish"))
    assert [sample.name for sample in samples] == ["a.jfif", "b.JPG", "c.webp"]
    for sample in samples:
        (tail,) = (question for question in sample.questions if question.trait == "tail")
        assert tail.mask is not None
        assert (tail.mask() == mask(slice(6, 8))).all()


def test_the_subject_is_known_in_any_case(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.full((*SHAPE, 3), 90, dtype=np.uint8))
    for part, columns in (("Fish", slice(1, 8)), ("Caudal_fin", slice(6, 8))):
        save(tmp_path / "masks" / f"a__{part}.png", mask(columns))
    data = datasets.load(f"folder:{tmp_path}", traits="fish")
    whole, tail = next(iter(data)).questions
    assert (whole.kind, whole.trait, whole.concept.target) == ("object", "fish", ("a fish",))
    assert tail.host is not None
    assert (tail.host() == mask(slice(1, 8))).all()
    assert data.facts["parts"] == ["Caudal_fin"]


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), (".", ".")])
def test_names_of_pictures_may_hold_two_strokes(tmp_path: Path, images: str, masks: str) -> None:
    for stem in ("INHS__001", "INHS__002", "b"):
        save(tmp_path / images / f"{stem}.png", np.full((*SHAPE, 3), 90, dtype=np.uint8))
        save(tmp_path / masks / f"{stem}__tail.png", mask(slice(6, 8)))
    data = datasets.load(f"folder:{tmp_path}")
    assert [(sample.name, [question.trait for question in sample.questions]) for sample in data] == [
        ("INHS__001.png", ["tail"]),
        ("INHS__002.png", ["tail"]),
        ("b.png", ["tail"]),
    ]
    assert data.facts["parts"] == ["tail"]
    # What macOS writes beside files on a foreign disk is neither.
    for folder, name in ((images, "._INHS__001.png"), (masks, "._b__tail.png")):
        (tmp_path / folder / name).write_bytes(b"no picture")
    assert datasets.load(f"folder:{tmp_path}").count == 3
    # A mask is not taken for a picture because another mask is named after it.
    save(tmp_path / masks / "b__tail__left.png", mask(slice(6, 7)))
    with pytest.raises(DataError, match="no picture to the masks of 'b__tail'"):
        datasets.load(f"folder:{tmp_path}")


def test_a_picture_without_masks_whose_name_holds_two_strokes_is_known_apart_from_masks(tmp_path: Path) -> None:
    for name in ("INHS__001.png", "INHS__001__tail.png", "INHS__002.png"):
        save(tmp_path / name, np.full(SHAPE, 255, dtype=np.uint8))
    with pytest.raises(DataError, match=r"no picture to the masks of 'INHS'.*'__'.* into a folder 'images'"):
        datasets.load(f"folder:{tmp_path}")
    for name in ("INHS__001.png", "INHS__002.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "images" / name)
    data = datasets.load(f"folder:{tmp_path}")
    assert (data.count, data.facts["pictures_without_masks"]) == (1, 1)


def test_strays_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        datasets.load(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="0 pictures"):
        datasets.load(f"folder:{tmp_path}")
    write(tmp_path)
    save(tmp_path / "masks" / "fish03__head.png", mask(slice(0, 2)))
    with pytest.raises(DataError, match=r"no picture to the masks of 'fish03'.* mean 'fish0"):
        datasets.load(f"folder:{tmp_path}")


def test_manifest(tmp_path: Path) -> None:
    write(tmp_path)
    rows = [
        {"image": "images/fish01.png", "key": "fish", "query": "catfish", "mask": "masks/fish01__fish.png", "level": "object",
        "nested_in": []},
        {
            "image": "images/fish01.png", "key": "tail", "query": "tail fin of a catfish", "mask": "masks/fish01__caudal_fin.png",
            "level": "part", "contrast": ["head of a catfish"], "nested_in": ["fish"],
            "trait_query": "forked tail fin", "trait_contrast": ["rounded tail fin"],
        },
    ]  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(rows), encoding="utf-8")
    data = datasets.load(f"folder:{tmp_path}")
    (sample,) = list(data)
    kinds = [(question.kind, question.trait, question.concept.target[0]) for question in sample.questions]
    assert kinds == [
        ("object", "fish", "catfish"),
        ("part", "tail", "tail fin of a catfish"),
        ("state", "tail: trait", "forked tail fin"),
    ]
    assert sample.questions[2].concept.contrasts == (("rounded tail fin",),)
    assert sample.questions[1].host is not None
    assert (sample.questions[1].host() == mask(slice(1, 8))).all()
    assert data.host.target == ("catfish",)


def test_rows_of_a_manifest_without_words_have_those_of_the_pack(tmp_path: Path) -> None:
    write(tmp_path)
    rows = [
        {"image": "images/fish01.png", "key": "caudal_fin", "mask": "masks/fish01__caudal_fin.png"},
        {"image": "images/fish01.png", "key": "head", "mask": "masks/fish01__head.png", "contrast": "a tail"},
        {"image": "images/fish02.jpg", "key": "caudal_fin", "mask": "masks/fish02__caudal_fin.png", "query": "a fin"},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(rows), encoding="utf-8")
    data = datasets.load(f"folder:{tmp_path}", traits="fish")
    tail, head, said = (question.concept for sample in data for question in sample.questions)
    assert "a fish's tail fin" in tail.target
    assert tail.contrasts[-1] == ("a fish",)
    assert "a fish's head" in head.target
    assert head.contrasts == (("a tail",),)
    assert (said.target, said.contrasts) == (("a fin",), ())
    assert data.host.target == ("a fish",)
    assert data.facts["pack"] == "fish"
    plain, *_ = (question.concept for sample in datasets.load(f"folder:{tmp_path}") for question in sample.questions)
    assert plain.target == ("caudal fin",)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("[]", "list of rows"), ('[{"image": "a"}]', "lacks key, mask")],
)
def test_wrong_manifests(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        datasets.load(f"folder:{tmp_path}")
