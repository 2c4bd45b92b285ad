"""Reading pictures: planted pixels through every format and mode, and one clear error for every bad input."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin, features

from concept_cam.core.errors import ImageError
from concept_cam.pictures.pages import FirstPageWarning
from concept_cam.pictures.reading import Picture, read_image

ORIENTATIONS = range(1, 9)
AVIF = pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF"))


def quadrants(height: int = 32, width: int = 48) -> np.ndarray:
    """Red, green / blue, white quarters: any flip or turn shows."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return pixels


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def png(header: bytes, body: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written from its definition, for what Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(*pair) for pair in chunks)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


# ------------------------------------------------------------------------------------------------------------ sources


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fish.png"
    Image.fromarray(quadrants()).save(path)
    return path


def test_every_source_gives_the_same_pixels(file: Path) -> None:
    torch = pytest.importorskip("torch")
    truth = quadrants()
    with file.open("rb") as opened:
        opened.seek(7)  # read from the start all the same
        sources = [
            file,
            str(file),
            file.read_bytes(),
            bytearray(file.read_bytes()),
            memoryview(file.read_bytes()),
            opened,
            io.BytesIO(file.read_bytes()),
            Image.open(file),
            Image.fromarray(truth),
            truth,
            np.asfortranarray(truth),
            truth.astype(np.uint16) * 257,
            truth.astype(np.int64),
            truth / 255,
            (truth / 255).astype(np.float16),
            truth > 0,
            torch.from_numpy(truth),
            torch.from_numpy(truth).permute(2, 0, 1),
            torch.from_numpy(truth / 255).permute(2, 0, 1).to(torch.bfloat16).requires_grad_(),
        ]
        for source in sources:
            picture = read_image(source)
            assert picture.pixels.dtype == np.uint8
            assert picture.pixels.flags.c_contiguous
            np.testing.assert_array_equal(picture.pixels, truth, err_msg=str(type(source)))
        assert not opened.closed
    picture = read_image(file)
    assert picture.source == str(file)
    assert picture.size == (32, 48)
    assert picture.notes == ()
    assert read_image(picture) is picture
    assert read_image(file.read_bytes()).source is None
    assert read_image(Image.open(file)).source == str(file)


def test_a_pipe_that_cannot_seek_is_read(file: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.inner = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return False

        def read(self, size: int = -1) -> bytes:
            return self.inner.read(size)

    np.testing.assert_array_equal(read_image(Pipe(file.read_bytes())).pixels, quadrants())


def test_the_pixels_are_a_copy() -> None:
    truth = quadrants()
    picture = read_image(truth)
    truth[:] = 7
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]


def test_a_given_pillow_image_is_not_changed() -> None:
    image = Image.open(io.BytesIO(encoded(Image.fromarray(quadrants()), "JPEG", exif=orientation_exif(6))))
    assert read_image(image).size == (48, 32)
    assert image.size == (32, 48)[::-1]
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (1, 1, 1), (1, 1, 3), (5, 3, 3), (3, 5, 4)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    picture = read_image(np.full(shape, 200, dtype=np.uint8))
    assert picture.pixels.shape == (*shape[:2], 3)


def test_tensor_axes_rule() -> None:
    torch = pytest.importorskip("torch")
    assert read_image(torch.zeros(3, 5, 7)).size == (5, 7)
    assert read_image(torch.zeros(1, 5, 7)).size == (5, 7)
    assert read_image(torch.zeros(5, 7, 3)).size == (5, 7)
    assert read_image(torch.zeros(3, 5, 3)).size == (5, 3)  # ambiguous: CHW by the documented rule
    assert read_image(torch.zeros(5, 7)).size == (5, 7)


# ------------------------------------------------------------------------------------------------------------ formats and modes


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP", "TGA", "JPEG2000"])
def test_lossless_formats(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    image = Image.fromarray(quadrants())
    np.testing.assert_array_equal(read_image(encoded(image, format, **options)).pixels, quadrants())


def orientation_exif(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a camera stores so that ``orientation`` makes them ``upright``, from the EXIF table of corners."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(format: str, orientation: int) -> None:
    image = Image.fromarray(np.ascontiguousarray(stored(quadrants(), orientation)))
    options: dict[str, object] = {"lossless": True} if format == "WEBP" else {}
    if format == "JPEG":
        options = {"quality": 100, "subsampling": 0}
    picture = read_image(encoded(image, format, exif=orientation_exif(orientation), **options))
    assert picture.exif_orientation == orientation
    assert np.abs(picture.pixels.astype(int) - quadrants()).max() <= 12
    # A Pillow image that was opened, or opened and loaded, means the same.
    data = encoded(image, format, exif=orientation_exif(orientation), **options)
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))).pixels, picture.pixels)
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    np.testing.assert_array_equal(read_image(loaded).pixels, picture.pixels)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_unknown_orientation_is_upright(value: int) -> None:
    picture = read_image(encoded(Image.fromarray(quadrants()), "PNG", exif=orientation_exif(value)))
    assert picture.exif_orientation == 1
    np.testing.assert_array_equal(picture.pixels, quadrants())


def test_damaged_exif_does_not_cost_the_picture() -> None:
    data = encoded(Image.fromarray(quadrants()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\0\0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remark on it
        np.testing.assert_array_equal(read_image(data).pixels, quadrants())


def test_alpha_is_composited_over_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, :3] = (200, 100, 0)
    rgba[0, :, 3] = (0, 128, 255)
    expected = [[255, 255, 255], [227, 177, 127], [200, 100, 0]]
    for source in (rgba, encoded(Image.fromarray(rgba)), Image.fromarray(rgba)):
        picture = read_image(source)
        assert np.abs(picture.pixels[0].astype(int) - expected).max() <= 1
        assert "transparency composited over white" in picture.notes


def test_opaque_alpha_changes_nothing() -> None:
    assert read_image(encoded(Image.fromarray(quadrants()).convert("RGBA"))).notes == ()


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [Image.new("L", (2, 2), 100), Image.new("L", (2, 2), 0)])
    assert (read_image(encoded(image)).pixels == 255).all()
    image.putalpha(255)
    assert (read_image(encoded(image)).pixels == 100).all()


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha(mode: str) -> None:
    straight = Image.new({"La": "LA", "RGBa": "RGBA"}[mode], (1, 1))
    straight.putpixel((0, 0), (200, 128) if mode == "La" else (200, 100, 0, 128))
    value = read_image(straight.convert(mode)).pixels[0, 0]
    assert np.abs(value.astype(int) - read_image(straight).pixels[0, 0]).max() <= 1


def test_palette() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert read_image(encoded(image)).pixels.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert read_image(encoded(image)).mode == "P"


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    picture = read_image(encoded(image, transparency=transparency))
    assert picture.pixels.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_colour_key_transparency() -> None:
    image = Image.fromarray(quadrants())
    pixels = read_image(encoded(image, transparency=(255, 0, 0))).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, -1].tolist() == [0, 255, 0]
    grey = Image.fromarray(np.array([[10, 20]], dtype=np.uint8))
    assert read_image(encoded(grey, transparency=10)).pixels[0, :, 0].tolist() == [255, 20]


def test_grey_and_bilevel() -> None:
    assert read_image(encoded(Image.new("L", (2, 2), 77))).pixels.tolist() == [[[77] * 3] * 2] * 2
    assert (read_image(encoded(Image.new("1", (2, 2), 1))).pixels == 255).all()


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    expected = np.round(values[0] / 257).astype(int).tolist()
    for source in (
        values,
        encoded(Image.fromarray(values)),
        encoded(Image.fromarray(values), "TIFF"),
        Image.fromarray(values.astype(np.int32)),  # mode I, as older readers deliver 16-bit PNGs
        encoded(Image.fromarray(values.astype(np.int32)), "TIFF"),
        b"P5 5 1 65535\n" + values.astype(">u2").tobytes(),
    ):
        picture = read_image(source)
        assert picture.pixels[0, :, 0].tolist() == expected
        assert (picture.pixels == picture.pixels[:, :, :1]).all()
        assert any("scaled" in note for note in picture.notes)


def test_16_bit_colour_png() -> None:
    values = np.array([[[0, 32768, 65535], [257, 25700, 51400]]], dtype=">u2")
    data = png(struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), b"\0" + values.tobytes())
    assert np.abs(read_image(data).pixels.astype(int) - values.astype(int) / 257).max() <= 1


def test_16_bit_rgba_png_and_array() -> None:
    values = np.array([[[0, 0, 0, 0], [65535, 0, 0, 65535]]], dtype=">u2")
    data = png(struct.pack(">IIBBBBB", 2, 1, 16, 6, 0, 0, 0), b"\0" + values.tobytes())
    for source in (data, values, values.astype("<u2")):
        assert read_image(source).pixels.tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_float_tiff() -> None:
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert read_image(encoded(image, "TIFF")).pixels[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ImageError, match=r"floats from 0 to 255, expected 0\.\.1.*Divide by 255"):
        read_image(encoded(Image.fromarray(np.array([[0.0, 255.0]], dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk(format: str) -> None:
    """No ink is white, full cyan has no red; an Adobe JPEG stores the inks inverted and must not come out as a negative."""
    inks = np.zeros((16, 32, 4), dtype=np.uint8)
    inks[:, 16:, 0] = 255
    options = {"quality": 100} if format == "JPEG" else {}
    data = encoded(
        Image.fromarray(inks, "CMYK") if format == "TIFF" else Image.frombytes("CMYK", (32, 16), inks.tobytes()),
        format,
        **options,
    )
    if format == "JPEG":
        assert b"Adobe" in data
    picture = read_image(data)
    assert picture.mode == "CMYK"
    assert picture.pixels[8, 4].min() >= 250
    assert picture.pixels[8, 28, 0] <= 5
    assert picture.pixels[8, 28, 1:].min() >= 250


def test_lab() -> None:
    """A white, a black and a strongly red pixel in CIE L*a*b*, stored as TIFF does: a* and b* signed."""
    lab = Image.frombytes("LAB", (3, 1), bytes([255, 0, 0, 0, 0, 0, 136, 80, 67]))
    for source in (lab, encoded(lab, "TIFF")):
        white, black, red = read_image(source).pixels[0].astype(int)
        assert white.min() >= 250
        assert black.max() <= 5
        assert red[0] > 240
        assert red[1:].max() < 40


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_animated_files(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options: dict[str, object] = {"lossless": True} if format == "WEBP" else {}
    with pytest.warns(FirstPageWarning, match="the given bytes has several pages or frames; only the first one is read"):
        picture = read_image(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert picture.pixels[4, 4].tolist() == [255, 0, 0]
    assert "first frame of an animated or multi-page file" in picture.notes


def test_further_frames_that_are_the_same_picture_are_no_pages() -> None:
    frames = [Image.new("RGB", (side, side), "red") for side in (16, 8, 4)]
    # NewSubfileType 1: the same at another size, as in a pyramid; 2 is a page of a document.
    files = {}
    for kind in (1, 2):
        buffer = io.BytesIO()
        with TiffImagePlugin.AppendingTiffWriter(buffer) as writer:
            for number, frame in enumerate(frames):
                frame.save(writer, "TIFF", tiffinfo={254: kind if number else 0})
                writer.newFrame()
        files[kind] = buffer.getvalue()
    files[0] = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    for kind in (0, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(files[kind]).size == (16, 16)
    with pytest.warns(FirstPageWarning):
        assert read_image(files[2]).size == (16, 16)


def test_the_frame_that_an_open_image_is_at() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    image = Image.open(io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])))
    image.seek(2)
    assert read_image(image).pixels[4, 4].tolist() == [0, 0, 255]


# ------------------------------------------------------------------------------------------------------------ colour profiles


def matrix_profile(description: str, columns: list[tuple[float, float, float]]) -> bytes:
    """A minimal ICC v2 display profile: linear curves and the XYZ of the three primaries."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    text = description.encode() + b"\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78
    curve = b"curv\0\0\0\0" + struct.pack(">I", 1) + struct.pack(">H", 256)  # gamma 1.0
    tags = {b"desc": desc, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True):
        tags[name] = xyz(column)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = curve
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + b"\0" * 12 + b"acsp"
    header += b"\0" * 28 + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + body


SRGB_PRIMARIES = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)]


def test_icc_profile_is_applied() -> None:
    """Primaries in the order blue, green, red and linear curves: channels swap and mid grey brightens, both known."""
    profile = matrix_profile("swapped linear", SRGB_PRIMARIES[::-1])
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [55, 55, 55]]], dtype=np.uint8)
    for format in ("PNG", "TIFF"):
        picture = read_image(encoded(Image.fromarray(pixels), format, icc_profile=profile))
        linear = 55 / 255
        grey = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
        expected = [[0, 0, 255], [0, 255, 0], [255, 0, 0], [grey] * 3]
        assert np.abs(picture.pixels[0] - np.array(expected)).max() <= 3
        assert "ICC profile 'swapped linear' converted to sRGB" in picture.notes


def test_icc_profile_with_alpha_palette_and_grey() -> None:
    profile = matrix_profile("swapped linear", SRGB_PRIMARIES[::-1])
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], dtype=np.uint8)
    pixels = read_image(encoded(Image.fromarray(rgba), icc_profile=profile)).pixels
    assert np.abs(pixels[0].astype(int) - [[0, 0, 255], [255, 255, 255]]).max() <= 3
    palette = Image.fromarray(rgba[:, :, :3]).quantize(2)
    assert np.abs(read_image(encoded(palette, icc_profile=profile)).pixels[0, 0].astype(int) - [0, 0, 255]).max() <= 3
    grey = read_image(encoded(Image.new("L", (1, 1), 55), icc_profile=profile)).pixels[0, 0]
    assert grey.min() > 120  # the linear curve brightens a grey picture that carries an RGB profile


def test_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_image(encoded(Image.fromarray(quadrants()), icc_profile=profile))
    np.testing.assert_array_equal(picture.pixels, quadrants())
    assert picture.notes == ()


def test_broken_profile_is_a_warning() -> None:
    data = encoded(Image.fromarray(quadrants()), icc_profile=b"not a profile at all")
    with pytest.warns(UserWarning, match="ICC colour profile cannot be used"):
        picture = read_image(data)
    np.testing.assert_array_equal(picture.pixels, quadrants())
    assert "ICC profile ignored" in picture.notes


def test_profile_of_another_colour_space_is_a_warning() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with pytest.warns(UserWarning, match="colour space 'Lab'"):
        read_image(encoded(Image.fromarray(quadrants()), icc_profile=profile))
    rgb = matrix_profile("rgb", SRGB_PRIMARIES)
    with pytest.warns(UserWarning, match="mode CMYK"):
        read_image(encoded(Image.new("CMYK", (4, 4)), "TIFF", icc_profile=rgb))


# ------------------------------------------------------------------------------------------------------------ bad input


def bomb() -> bytes:
    """A valid header that promises 60000 x 60000 pixels, and nothing behind it: decoding would fail in another way."""
    return png(struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"")


def test_decompression_bomb_is_refused_before_decoding() -> None:
    with pytest.raises(
        ImageError,
        match=r"60000 x 60000 = 3,600,000,000 pixels, more than the limit of 200,000,000.*--max-pixels",
    ):
        read_image(bomb())


def test_max_pixels_is_exact() -> None:
    data = encoded(Image.new("RGB", (10, 10)))
    assert read_image(data, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="more than the limit of 99"):
        read_image(data, max_pixels=99)
    with pytest.raises(ImageError, match="more than the limit of 99"):
        read_image(Image.new("RGB", (10, 10)), max_pixels=99)


def test_the_limit_can_be_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's process-wide limit neither applies nor is it changed."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(encoded(Image.new("RGB", (10, 10)))).size == (10, 10)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_global_state_is_left_alone() -> None:
    limit, lenient = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    read_image(encoded(Image.new("RGB", (10, 10))))
    with pytest.raises(ImageError):
        read_image(bomb())
    assert limit == Image.MAX_IMAGE_PIXELS
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", AVIF])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated(format: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
        with pytest.raises(ImageError, match=r"damaged|is not a picture"):
            read_image(data[: int(len(data) * share)])


def outcome(data: bytes) -> str:
    """What becomes of possibly damaged data; anything but a picture or an ImageError is not caught."""
    try:
        read_image(data, max_pixels=10_000_000)
    except ImageError:
        return "error"
    return "picture"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "GIF", "WEBP"])
def test_flipped_bytes_give_a_picture_or_one_clear_error(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    generator = np.random.default_rng(1)
    outcomes: list[str] = []
    for _ in range(150):
        damaged = bytearray(data)
        for position in generator.integers(0, min(len(data), 200), 3):
            damaged[position] = int(generator.integers(0, 256))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcomes.append(outcome(bytes(damaged)))
    assert set(outcomes) <= {"picture", "error"}
    assert "error" in outcomes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is text\n" * 10, "no known image format"),
        (b"\0", "no known image format"),
        (b"%PDF-1.7\n...", "PDF document"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
    ],
)
def test_no_picture(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "thing.jpg"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ImageError, match=message) as caught:
            read_image(source)
        assert "expected a picture" in str(caught.value) or "Expected JPEG" in str(caught.value)
    with pytest.raises(ImageError, match=r"thing\.jpg"):
        read_image(path)


def test_missing_file_names_the_nearest(file: Path) -> None:
    with pytest.raises(ImageError, match=r"no such picture.*fihs\.png.*Did you mean .*fish\.png"):
        read_image(file.with_name("fihs.png"))
    with pytest.raises(ImageError, match="Check the path"):
        read_image(file.with_name("a completely different name"))
    with pytest.raises(ImageError, match=r"folder .* does not exist either"):
        read_image(file.parent / "nowhere" / "fish.png")


def test_folder_and_other_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="path of the picture is empty"):
        read_image("")
    with pytest.raises(ImageError, match="web address"):
        read_image("https://example.org/fish.jpg")
    with pytest.raises(ImageError, match="cannot read"):
        read_image("a\0b.png")
    with pytest.raises(ImageError, match="expected a path, file object"):
        read_image(17)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="expected a path, file object"):
        read_image(None)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX device files")
def test_device_is_refused() -> None:
    with pytest.raises(ImageError, match="is a device"):
        read_image("/dev/zero")


def test_wrong_file_objects(file: Path) -> None:
    with pytest.raises(ImageError, match="binary mode"):
        read_image(io.StringIO("text"))  # type: ignore[arg-type]
    with file.open("r", encoding="latin-1") as opened, pytest.raises(ImageError, match="binary mode"):
        read_image(opened)  # type: ignore[arg-type]
    closed = io.BytesIO(file.read_bytes())
    closed.close()
    with pytest.raises(ImageError, match="cannot read the given file object"):
        read_image(closed)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers(value: float) -> None:
    torch = pytest.importorskip("torch")
    array = np.zeros((4, 5, 3), dtype=np.float32)
    array[1, 2, 0] = value
    for source in (array, torch.from_numpy(array)):
        with pytest.raises(ImageError, match="1 NaN or infinite of 60 values"):
            read_image(source)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4, 3), dtype=np.uint8), "a batch"),
        (np.zeros((3, 40, 50), dtype=np.uint8), r"Channels come last in arrays: array\.transpose"),
        (np.zeros((40, 50, 2), dtype=np.uint8), r"expected \[H, W\] or"),
        (np.zeros(5, dtype=np.uint8), r"expected \[H, W\] or"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "no pixels"),
        (np.full((2, 2, 3), 200.0), "Divide by 255"),
        (np.full((2, 2, 3), -1.5), "Undo the normalisation"),
        (np.full((2, 2, 3), 256), "integers from 256 to 256, expected 0..255"),
        (np.full((2, 2, 3), -1, dtype=np.int8), "integers from -1 to -1"),
        (np.zeros((2, 2, 3), dtype=complex), "complex128 values"),
        (np.full((2, 2), "x"), "values, expected uint8"),
    ],
)
def test_wrong_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_32_bit_integers_beyond_16_bits() -> None:
    with pytest.raises(ImageError, match=r"expected 0\.\.65535"):
        read_image(Image.fromarray(np.array([[70000]], dtype=np.int32)))


def test_picture_checks_its_pixels() -> None:
    with pytest.raises(ImageError, match="received float64"):
        Picture(np.zeros((2, 2, 3)))
    with pytest.raises(ImageError, match="received uint8"):
        Picture(np.zeros((2, 2), dtype=np.uint8))
    assert Picture(quadrants()).to_pil().size == (48, 32)


# ------------------------------------------------------------------------------------------------------------ threads, imports


def test_threads_read_the_same() -> None:
    profile = matrix_profile("swapped linear", SRGB_PRIMARIES[::-1])
    data = [
        encoded(
            Image.fromarray(np.roll(quadrants(), shift, axis=1)),
            "PNG",
            icc_profile=profile,
            exif=orientation_exif(6),
        )
        for shift in range(8)
    ]
    alone = [read_image(item).pixels for item in data]
    found: dict[tuple[int, int], np.ndarray] = {}

    def work(thread: int) -> None:
        for index, item in enumerate(data):
            found[thread, index] = read_image(item).pixels

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 32
    for (_, index), pixels in found.items():
        np.testing.assert_array_equal(pixels, alone[index])


def test_reading_does_not_load_torch(file: Path) -> None:
    code = (
        "import sys; from concept_cam.pictures.reading import read_image; import concept_cam.pictures.resizing; "
        f"read_image({str(file)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def grey_tiff(values: np.ndarray, order: str, zero_is_white: bool) -> bytes:
    """A TIFF of 16-bit grey as cameras and scanners write it: either byte order, zero black or white."""
    kind = ">" if order == "MM" else "<"
    height, width = values.shape
    data = values.astype(f"{kind}u2").tobytes()
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 0 if zero_is_white else 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(data)),
    ]
    head = order.encode() + struct.pack(kind + "HI", 42, 8 + len(data))
    table = struct.pack(kind + "H", len(entries))
    for tag, form, value in entries:
        table += struct.pack(kind + "HHI", tag, form, 1) + (
            struct.pack(kind + "I", value) if form == 4 else struct.pack(kind + "HH", value, 0)
        )
    return head + data + table + struct.pack(kind + "I", 0)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("zero_is_white", [False, True])
def test_16_bit_tiffs_of_every_kind_are_the_same_picture(order: str, zero_is_white: bool) -> None:
    values = np.arange(0, 65536, 4369, dtype=np.uint16).reshape(4, 4)
    picture = read_image(grey_tiff(65535 - values if zero_is_white else values, order, zero_is_white))
    np.testing.assert_array_equal(picture.pixels[..., 0], np.rint(values / 257).astype(np.uint8))


def test_12_bits_in_16_are_said() -> None:
    values = np.linspace(16, 4000, 64).astype(np.uint16).reshape(8, 8)
    with pytest.warns(UserWarning, match=r"12 bits in 16, multiply by 16"):
        picture = read_image(grey_tiff(values, "II", False))
    assert "no value above 4000 of 65535" in picture.notes
    with pytest.warns(UserWarning, match="nearly black"):
        read_image(values)
    colours = values[..., None].repeat(3, 2)
    data = png(struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours))
    with pytest.warns(UserWarning, match="nearly black"):
        read_image(data)


@pytest.mark.parametrize("exif", [False, True])
def test_one_damaged_byte_of_a_png_is_an_error(exif: bool) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
        buffer, "PNG", **({"exif": tags} if exif else {})
    )
    good = buffer.getvalue()
    start = good.index(b"IDAT")
    for place in range(start + 4, len(good) - 12, 97):
        bad = bytearray(good)
        bad[place] ^= 255
        with pytest.raises(ImageError, match=r"damaged|not a picture"):
            read_image(bytes(bad))
        with pytest.raises(ImageError, match="damaged"), Image.open(io.BytesIO(bytes(bad))) as image:
            read_image(image)


def test_every_byte_of_a_png_is_checked() -> None:
    """Pillow stops at the last row and never reads the check sums behind it: bytes near the end used to pass with other pixels."""
    buffer = io.BytesIO()
    values = np.random.default_rng(1).integers(0, 256, (20, 15, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, "PNG")
    good = buffer.getvalue()
    np.testing.assert_array_equal(read_image(good + b"more").pixels, values)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 255
        with pytest.raises(ImageError):
            read_image(bytes(bad))
    for length in range(1, len(good)):
        with pytest.raises(ImageError):
            read_image(good[:length])


def test_damaged_metadata_behind_the_pixels_of_a_png_cost_nothing() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 6), (90, 80, 70)).save(buffer, "PNG")
    good = buffer.getvalue()
    text = struct.pack(">I4s", 12, b"tEXt") + b"Title\0a fish" + b"\0\0\0\0"  # whose check sum is wrong
    assert read_image(good[:-12] + text + good[-12:]).pixels.mean() == 80


def test_a_disk_that_fails_is_an_error_of_the_picture(file: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 8:
                raise OSError(5, "Input/output error")
            return super().read(size)

    for source in (Failing(file.read_bytes()), "x" * 5000, "a\0b"):
        with pytest.raises(ImageError, match=r"cannot read|damaged"):
            read_image(source)


# ----------------------------------------------------------------------------------------------- JPEGs decoded smaller


def _jpeg(pixels: np.ndarray, orientation: int = 1) -> bytes:
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("size", [(96, 160), (101, 163)])
def test_a_jpeg_that_is_decoded_smaller_keeps_its_places(orientation: int, factor: int, size: tuple[int, int]) -> None:
    """Brightness grows along one axis and blueness along the other: a pixel's colour says where it lies in the upright picture."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    drawn = np.stack([255 * x / size[1], 128 + 0 * x, 255 * y / size[0]], axis=-1).round().astype(np.uint8)
    asked = []

    def reduce(found: tuple[int, int]) -> int:
        asked.append(found)
        return factor

    content = _jpeg(drawn, orientation)
    plain, picture = read_image(content), read_image(content, reduce=reduce)
    assert asked == [plain.size]
    assert picture.whole == plain.size
    assert picture.reduction == factor
    assert picture.size == tuple(-(-side // factor) for side in plain.size)
    assert picture.exif_orientation == orientation
    assert plain.whole is None
    assert plain.reduction == 1
    rows, columns = picture.size
    for row in (1, rows // 2, rows - 2):
        for column in (1, columns // 2, columns - 2):
            top, left = ((place - start) * factor for place, start in zip((row, column), picture.start))
            # The mean colour of the pixels that it stands for, cut at the fractions of pixels at which it begins and ends.
            weights = [
                np.clip(np.minimum(np.arange(side) + 1, first + factor) - np.maximum(np.arange(side), first), 0, None)
                for side, first in zip(plain.size, (top, left))
            ]
            mean = np.einsum("hwc,h,w->c", plain.pixels.astype(float), *weights) / factor**2
            np.testing.assert_allclose(picture.pixels[row, column], mean, atol=2.5)


def test_only_jpegs_are_decoded_smaller_and_none_that_is_too_large() -> None:
    pixels = np.full((64, 64, 3), 90, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert read_image(buffer.getvalue(), reduce=lambda size: 8).whole is None
    assert read_image(_jpeg(pixels), reduce=lambda size: 1).whole is None
    with pytest.raises(ImageError, match=r"64 x 64 = 4,096 pixels, more than the limit"):
        read_image(_jpeg(pixels), max_pixels=100, reduce=lambda size: 8)
    with pytest.raises(ImageError, match="cut short"):
        read_image(_jpeg(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:1500], reduce=lambda size: 2)
