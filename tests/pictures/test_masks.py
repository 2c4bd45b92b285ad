"""One reader of masks: numbers count, not how bright they look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam.collection.inputs.specimens import Ignored, read_specimen_mask
from concept_cam.core.errors import DataError, ImageError
from concept_cam.evaluation.datasets.samples import read_number_picture as evaluation_labels
from concept_cam.evaluation.datasets.samples import read_target_mask as evaluation_mask
from concept_cam.pictures.masks import read_mask_labels, read_mask_picture, read_raw_labels

TRUTH = np.zeros((30, 40), dtype=bool)
TRUTH[5:20, 10:31] = True


def palette(colours: list[int], numbers: np.ndarray) -> Image.Image:
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


ONES = TRUTH.astype(np.uint8)
KINDS = {
    "bilevel.png": Image.fromarray(TRUTH),
    "bilevel.tif": Image.fromarray(TRUTH),
    "grey.png": Image.fromarray(ONES * np.uint8(255)),
    "labels8.png": Image.fromarray(ONES),
    "labels16.png": Image.fromarray(ONES.astype(np.uint16)),
    "labels16.tif": Image.fromarray(ONES.astype(np.uint16)),
    "labels32.tif": Image.fromarray(ONES.astype(np.int32)),
    "large32.tif": Image.fromarray(ONES.astype(np.int32) * 70_000),
    "float.tif": Image.fromarray(ONES.astype(np.float32)),
    "half.tif": Image.fromarray(ONES.astype(np.float32) * np.float32(0.5)),
    "shown_black.png": palette([0, 0, 0, 0, 0, 0], ONES),
    "voc.png": palette([0, 0, 0, 128, 0, 0], ONES),
    "white_zero.png": palette([255, 255, 255, 255, 0, 0], ONES),
    "inverted_palette.png": palette([255, 255, 255, 0, 0, 0], 1 - ONES),
    "green.png": Image.fromarray(ONES[..., None] * np.array([0, 200, 0], dtype=np.uint8)),
    "dark.png": Image.fromarray(ONES[..., None] * np.array([0, 0, 1], dtype=np.uint8)),
    "alpha.png": Image.fromarray(np.dstack([np.full((30, 40, 3), 255, np.uint8), ONES * np.uint8(255)])),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_mask_is_the_same_mask_everywhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    KINDS[name].save(path)
    np.testing.assert_array_equal(read_mask_picture(path), TRUTH)
    np.testing.assert_array_equal(read_specimen_mask(str(path), (30, 40)), TRUTH)
    np.testing.assert_array_equal(evaluation_mask(path) == 255, TRUTH)


def test_masks_are_upright_for_every_reader(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        for name in (f"{orientation}.png", f"{orientation}.tif"):
            Image.fromarray(ONES.astype(np.uint16)).save(tmp_path / name, exif=exif)
            Image.fromarray(ONES[..., None].repeat(3, 2) * np.uint8(255)).save(tmp_path / f"rgb-{name}", exif=exif)
            from concept_cam.pictures.reading import read_image

            upright = read_image(tmp_path / f"rgb-{name}").pixels[..., 0] > 0
            np.testing.assert_array_equal(read_mask_picture(tmp_path / name), upright, err_msg=name)
            np.testing.assert_array_equal(evaluation_labels(tmp_path / name) > 0, upright, err_msg=name)


def test_numbers_of_labels(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2, 300]], dtype=np.uint16)
    Image.fromarray(numbers).save(tmp_path / "n.png")
    np.testing.assert_array_equal(read_mask_labels(tmp_path / "n.png"), numbers)
    with pytest.raises(DataError, match=r"holds the values \[0, 1, 2, 300\]"):
        evaluation_mask(tmp_path / "n.png")
    clear = palette([0, 0, 0, 255, 255, 255, 9, 9, 9], np.array([[0, 1, 2]]))
    clear.save(tmp_path / "p.png", transparency=1)
    assert read_mask_labels(tmp_path / "p.png").tolist() == [[0, 0, 2]]
    assert read_raw_labels(tmp_path / "p.png").tolist() == [[0, 1, 2]]
    ignore = np.array([[0, 128, 255]], dtype=np.uint8)
    Image.fromarray(ignore).save(tmp_path / "i.png")
    np.testing.assert_array_equal(evaluation_mask(tmp_path / "i.png"), ignore)


def test_masks_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    Image.fromarray(np.full((3, 3), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    for name in ("cut.png", "nan.tif", "none.png", "."):
        with pytest.raises(ImageError):
            read_mask_picture(tmp_path / name)
        with pytest.raises(DataError):
            evaluation_mask(tmp_path / name)
    for value in (
        '{"size": [1000000, 1000000], "counts": [1000000000000]}',
        '{"size": [-3, 4], "counts": "0"}',
        '{"size": [3, 4], "counts": [13, -1]}',
        '{"size": [3, 4], "counts": "' + "o" * 100_000 + '"}',
        '{"size": [3, 4], "counts": null}',
        '{"size": [1e400, 4], "counts": "1"}',
        '{"a":' * 100_000,
    ):
        with pytest.raises(ImageError, match=r"run-length|is 1000000 x"):
            read_specimen_mask(value, (3, 4))


def test_a_mask_of_two_pictures_is_refused(tmp_path: Path) -> None:
    from concept_cam.collection.inputs import open_collection

    pictures, masks = tmp_path / "in", tmp_path / "masks"
    for folder in (pictures, masks):
        folder.mkdir()
    for name in ("a.jpg", "a.png", "b.jpg", "c.jpg", "c.png"):
        Image.fromarray(ONES).save(pictures / name)
    for name in ("a.png", "b.png", "c.jpg.png"):
        Image.fromarray(ONES.astype(np.uint16)).save(masks / name)
    ignored = Ignored(folder=str(masks))
    found = {item.source: item for item in open_collection(pictures).items()}
    np.testing.assert_array_equal(ignored.mask(found["b.jpg"], (30, 40)), TRUTH)
    np.testing.assert_array_equal(ignored.mask(found["c.jpg"], (30, 40)), TRUTH)
    assert ignored.mask(found["c.png"], (30, 40)) is None
    for name, other in (("a.jpg", "a.png"), ("a.png", "a.jpg")):
        with pytest.raises(ImageError, match=other):
            ignored.mask(found[name], (30, 40))


@pytest.mark.parametrize("name", ["a.png", "a.jpg.png", "a.tif", "a.jpg.TIF", "a.bmp", "a.webp", "a.jpg"])
def test_what_is_to_be_ignored_may_be_in_any_format(name: str, tmp_path: Path) -> None:
    from concept_cam.collection.inputs import open_collection

    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(ONES).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(TRUTH).convert("L").save(
        tmp_path / "masks" / name, **({"quality": 100} if name == "a.jpg" else {"lossless": True} if "webp" in name else {})
    )
    collection = open_collection(tmp_path / "in")
    ignored = Ignored(folder=str(tmp_path / "masks"))
    ignored.check(collection)
    (item,) = collection.items()
    found = ignored.mask(item, (30, 40))
    assert found is not None
    assert found[TRUTH].all()
    if name != "a.jpg":  # whose edges are not sharp
        np.testing.assert_array_equal(found, TRUTH)


def test_masks_that_nothing_or_two_things_can_be_of_are_refused(tmp_path: Path) -> None:
    from concept_cam.collection.inputs import open_collection

    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a.jpg", "b.jpg", "b.tif"):
        Image.fromarray(ONES).save(tmp_path / "in" / name)
    collection = open_collection(tmp_path / "in")
    items = {item.source: item for item in collection.items()}
    ignored = Ignored(folder=str(tmp_path / "masks"))
    mask = Image.fromarray(TRUTH).convert("L")
    mask.save(tmp_path / "masks" / "a_mask.png")
    with pytest.raises(DataError, match="nothing would be ignored"):
        ignored.check(collection)
    mask.save(tmp_path / "masks" / "a.png")
    ignored.check(collection)
    mask.save(tmp_path / "masks" / "a.tif")
    with pytest.raises(ImageError, match=r"a\.png.*a\.tif.*keep one"):
        ignored.mask(items["a.jpg"], (30, 40))
    mask.save(tmp_path / "masks" / "b.jpg")
    for name in ("b.jpg", "b.tif"):
        with pytest.raises(ImageError, match="name it after the whole file"):
            ignored.mask(items[name], (30, 40))
    mask.save(tmp_path / "masks" / "b.tif")
    assert all(ignored.mask(items[name], (30, 40)) is not None for name in ("b.jpg", "b.tif"))
