from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from concept_cam.collection.inputs.items import Blob, Buffer, Item, Specimen
from concept_cam.collection.inputs.specimens import BoxFile, Ignored
from concept_cam.collection.plan import Identity, Plan
from concept_cam.collection.questions import build_questions
from concept_cam.collection.reading import _reduction, load_item, prepare_crop
from concept_cam.core.regions import encode_rle
from concept_cam.core.settings import RESIZE_POLICIES, Settings
from concept_cam.pictures.preprocessing import Preprocess
from concept_cam.pictures.reading import Picture
from concept_cam.pictures.resizing import prepare, shrink
from tests.colour_world import PACK

PREPROCESS = Preprocess((64, 64), (8, 8), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


def plan(**values: object) -> Plan:
    settings = Settings(**{name: values.pop(name) for name in ("resize", "size") if name in values})  # type: ignore[arg-type]
    return Plan(build_questions([PACK]), settings, PREPROCESS, Identity("m", "h", "1"), **values)  # type: ignore[arg-type]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def item(pixels: np.ndarray, **values: object) -> Item:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Item("a.png", Blob(buffer.getvalue()), **values)  # type: ignore[arg-type]


SHAPES = ((300, 200), (97, 331), (64, 64), (20, 31), (1, 1), (400, 3))


@pytest.mark.parametrize("policy", RESIZE_POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_two_steps_equal_one(policy: str, shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    whole = prepare(Picture(pixels), PREPROCESS, policy)
    loaded = load_item(item(pixels), plan(resize=policy))
    assert loaded.errors == ()
    (crop,) = loaded.crops
    found = prepare_crop(crop, plan(resize=policy))
    assert torch.equal(found.pixels, whole.pixels)
    assert found.windows == whole.windows
    np.testing.assert_array_equal(found.valid, whole.valid)
    for name in ("policy", "original", "model", "grid"):
        assert getattr(found.geometry, name) == getattr(whole.geometry, name)
    np.testing.assert_allclose(found.geometry.scale, whole.geometry.scale, rtol=1e-12)
    np.testing.assert_allclose(found.geometry.offset, whole.geometry.offset, atol=1e-12)


def test_what_leaves_the_worker_is_no_larger_than_what_the_model_sees() -> None:
    for policy in ("pad", "squash", "aspect"):
        assert shrink(noise(600, 900), PREPROCESS, policy).size <= 1.1 * 64 * 64 * 3
    assert shrink(noise(60, 90), PREPROCESS, "pad", 128).shape == (85, 128, 3)


def test_the_digest_is_that_of_the_file() -> None:
    import hashlib

    given = item(noise(9, 9))
    assert load_item(given, plan()).sha256 == hashlib.sha256(given.payload.read().digest_of).hexdigest()
    assert not hasattr(load_item(given, plan()).item.payload, "content")


def test_buffers_keep_the_original_frame() -> None:
    small = noise(48, 60)
    payload = Buffer(np.ascontiguousarray(small[:, :, ::-1]).tobytes(), (48, 60), (96, 120))
    (crop,) = load_item(Item("u", payload), plan()).crops
    geometry = prepare_crop(crop, plan()).geometry
    direct = prepare(Picture(small), PREPROCESS).geometry
    assert geometry.original == (96, 120)
    np.testing.assert_allclose(geometry.scale, np.array(direct.scale) / 2)
    (part,) = load_item(Item("u", payload, specimens=(Specimen((60, 0, 60, 96)),)), plan()).crops
    assert part.size == (96, 60)
    assert part.frame.size == (96, 120)


def test_specimens_are_cut_out_and_boxes_clipped() -> None:
    pixels = noise(40, 60)
    given = item(pixels, specimens=(Specimen((-5, -5, 30, 20)), Specimen((50, 30, 99, 99)), Specimen((200, 0, 5, 5))))
    loaded = load_item(given, plan(resize="native"))
    assert [crop.box for crop in loaded.crops] == [(0, 0, 25, 15), (50, 30, 10, 10)]
    np.testing.assert_array_equal(loaded.crops[0].pixels, pixels[0:15, 0:25])
    np.testing.assert_array_equal(loaded.crops[1].pixels, pixels[30:40, 50:60])
    assert [error[:10] for error in loaded.errors] == ["specimen 0", "specimen 1", "specimen 2"]
    assert "past the edge" in loaded.errors[0]
    assert "past the edge" in loaded.errors[1]
    assert "outside" in loaded.errors[2]
    file = BoxFile({"a.png": (Specimen((1, 2, 3, 4)),)}, "boxes.csv")
    assert load_item(given, plan(boxes=file)).crops[0].box == (1, 2, 3, 4)


def test_masks_of_specimens_and_ignored_areas_are_painted_over_before_anything_is_resized() -> None:
    pixels = np.full((40, 60, 3), 200, dtype=np.uint8)
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:50] = True
    mask[10, 20] = False
    given = item(pixels, specimens=(Specimen(mask=encode_rle(mask)),))
    (crop,) = load_item(given, plan(resize="native")).crops
    fill = np.round(np.array(PREPROCESS.mean) * 255)
    assert crop.box == (20, 10, 30, 20)
    np.testing.assert_array_equal(crop.pixels[0, 0], fill)
    assert (crop.pixels[1:, 1:] == 200).all()
    label = Ignored(boxes=BoxFile({"a.png": (Specimen((0, 0, 30, 40)),)}, "labels.csv"))
    (crop,) = load_item(item(pixels), plan(ignored=label)).crops
    assert crop.hidden is not None
    prepared = prepare_crop(crop, plan(ignored=label))
    valid = prepared.valid
    assert not valid[:, :4].any()
    assert valid[1:7, 4:].all()
    assert abs(float(prepared.pixels[:, 32, 5].abs().max())) < 0.02
    everything = Ignored(boxes=BoxFile({"a.png": (Specimen((0, 0, 60, 40)),)}, "labels.csv"))
    assert "everything" in load_item(item(pixels), plan(ignored=everything)).errors[0]


def test_whatever_is_wrong_is_in_the_answer() -> None:
    for payload, message in (
        (Blob(b""), "empty"),
        (Blob(b"text"), "not a picture"),
        (Buffer(b"12", (3, 3)), "3 x 3 x 3"),
    ):
        loaded = load_item(Item("x", payload), plan())
        assert loaded.crops == ()
        assert message in loaded.errors[0]
    large = item(noise(40, 60))
    small_limit = replace(plan(), settings=Settings(max_pixels=100))
    assert "2,400" in load_item(large, small_limit).errors[0]
    assert "empty" in load_item(item(noise(4, 6), specimens=(Specimen(mask=encode_rle(np.zeros((4, 6), bool))),)), plan()).errors[0]
    assert (
        "rows x columns" in load_item(item(noise(4, 6), specimens=(Specimen(mask=encode_rle(np.zeros((4, 5), bool))),)), plan()).errors[0]
    )


# ----------------------------------------------------------------------------------------------- JPEGs decoded smaller


def blobs(height: int, width: int) -> np.ndarray:
    """A smooth picture: what is left after shrinking hardly depends on how it was shrunk."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([np.sin(9 * x) * np.cos(7 * y), np.cos(11 * x + 5 * y), np.sin(13 * y - 3 * x)], axis=-1).clip(-1, 1) * 100 + 128


def jpeg(pixels: np.ndarray, orientation: int = 1, **values: object) -> Item:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels.round().astype(np.uint8)).save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    return Item("a.jpg", Blob(buffer.getvalue()), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", RESIZE_POLICIES)
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("shape", [(1030, 1301), (515, 700)])
def test_a_large_jpeg_is_decoded_smaller_in_the_same_frame(policy: str, orientation: int, shape: tuple[int, int]) -> None:
    given = jpeg(blobs(*shape), orientation)
    fast, exact = (load_item(given, plan(resize=policy, decoding=name)) for name in ("fast", "exact"))
    assert fast.sha256 == exact.sha256
    (one,), (other,) = fast.crops, exact.crops
    assert (one.size, one.frame, one.box) == (other.size, other.frame, other.box)
    assert one.pixels.shape == other.pixels.shape
    difference = np.abs(one.pixels.astype(int) - other.pixels).max()
    assert difference <= 3
    assert (difference > 0) == (policy in ("pad", "squash", "aspect"))  # others need all pixels
    for name in ("original", "model", "grid", "scale", "offset"):
        assert getattr(prepare_crop(one, plan(resize=policy)).geometry, name) == getattr(
            prepare_crop(other, plan(resize=policy)).geometry, name
        )


def test_specimens_are_cut_out_of_a_smaller_jpeg_at_fractions_of_its_pixels() -> None:
    specimens = (Specimen((501, 203, 402, 517)), Specimen((0, 0, 1301, 1030)))
    given = jpeg(blobs(1030, 1301), specimens=specimens)
    fast, exact = (load_item(given, plan(decoding=name)) for name in ("fast", "exact"))
    for one, other in zip(fast.crops, exact.crops):
        assert (one.size, one.frame, one.box) == (other.size, other.frame, other.box)
        assert one.pixels.shape == other.pixels.shape
        assert 0 < np.abs(one.pixels.astype(int) - other.pixels).max() <= 4


@pytest.mark.parametrize(
    ("shape", "boxes", "wanted"),
    [
        ((200, 255), [], 1),  # not twice what the model sees
        ((200, 256), [], 2),
        ((640, 1024), [], 8),
        ((640, 1023), [], 4),
        ((4000, 6000), [], 8),
        ((4000, 6000), [(0, 0, 600, 600)], 4),  # the smallest specimen decides
        ((4000, 6000), [(0, 0, 6000, 4000), (10, 10, 200, 100)], 1),
        ((4000, 6000), [(9000, 10, 200, 100)], 1),
    ],
)
def test_twice_what_the_model_sees_is_always_left(shape: tuple[int, int], boxes: list[tuple[int, int, int, int]], wanted: int) -> None:
    specimens = tuple(Specimen(box) for box in boxes)
    assert _reduction(Item("a", Blob(b""), specimens=specimens), plan(resize="pad"), shape) == wanted
    assert _reduction(Item("a", Blob(b""), specimens=specimens), plan(resize="pad", decoding="exact"), shape) == 1
    assert _reduction(Item("a", Blob(b""), specimens=specimens), plan(resize="tile"), shape) == 1


def test_masks_are_painted_on_the_pixels_that_they_were_drawn_on() -> None:
    mask = np.zeros((1030, 1301), bool)
    mask[100:900, 200:1000] = True
    masked = Specimen(mask=encode_rle(mask))
    given = jpeg(blobs(1030, 1301), specimens=(masked,))
    fast, exact = (load_item(given, plan(decoding=name)) for name in ("fast", "exact"))
    np.testing.assert_array_equal(fast.crops[0].pixels, exact.crops[0].pixels)
