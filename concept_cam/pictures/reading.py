"""Reading pictures: whatever the source, upright 8-bit sRGB pixels come out, or one clear error.

Loads Pillow and numpy, never torch, so that worker processes read pictures cheaply. Pillow's settings (``MAX_IMAGE_PIXELS``,
``LOAD_TRUNCATED_IMAGES``) are neither changed nor obeyed: several threads may read at once, each with a limit of its own.

Pixels are decoded in one place, :func:`decoded`; metadata that are damaged cost nothing, pixels that are damaged cost the picture.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import numpy as np
from PIL import Image, ImageCms

from concept_cam.core.errors import ImageError, reason_of
from concept_cam.core.names import nearest_names
from concept_cam.pictures.limits import MAX_PIXELS, byte_limit, check_file, limited_to, read_within, too_long
from concept_cam.pictures.pages import FIRST_PAGE, FirstPageWarning

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_PIXELS", "ImageSource", "Picture", "Reduce", "decoded", "is_tensor", "open_path", "opened", "read_image"]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor | Picture"

Reduce: TypeAlias = "Callable[[tuple[int, int]], int]"
"""Says of an upright picture of ``(H, W)`` pixels by how much its sides may be made smaller while it is decoded: 1, 2, 4 or 8."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture with this EXIF orientation upright; 1 and unknown values need nothing."""

_SIDEWAYS, _UPSIDE_DOWN, _MIRRORED = frozenset({5, 6, 7, 8}), frozenset({3, 4, 7, 8}), frozenset({2, 3, 6, 7})
"""Orientations that exchange height and width; whose upright rows, and whose upright columns, run against the file's."""

_REFUSED_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow lists but that are no pixels: drawings (EPS would run Ghostscript), weather data, video."""

_SIGNATURES = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript drawing"),
    (b"<!DOCTYPE", "a web page, as a failed download leaves it"),
    (b"<!doctype", "a web page, as a failed download leaves it"),
    (b"<html", "a web page, as a failed download leaves it"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"version https://git-lfs", "a Git LFS pointer; run 'git lfs pull'"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


@dataclass(frozen=True)
class Picture:
    """One picture, ready to be resized.

    Attributes:
        pixels: uint8 [H, W, 3], sRGB, upright.
        source: Path or name that the picture came from; ``None`` for bytes and arrays.
        exif_orientation: EXIF orientation 1..8 that was found (and applied); 1 when there was none.
        mode: What the source held before conversion: Pillow's mode (``"RGB"``, ``"P"``, ``"CMYK"`` ...), or dtype and shape of an array.
        notes: What was done to the pixels, in words: compositing, colour profile, scaling, first frame.
        reduction: How many pixels of the file, along either side, one of these stands for; more than 1 where it was decoded smaller.
        whole: ``(H, W)`` of the upright picture in the file, where it was decoded smaller.
        start: ``(y, x)`` where among these pixels that picture begins, 0..1: an outermost row or column may reach past its edge.
    """

    pixels: np.ndarray
    source: str | None = None
    exif_orientation: int = 1
    mode: str = "RGB"
    notes: tuple[str, ...] = ()
    reduction: int = 1
    whole: tuple[int, int] | None = None
    start: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.pixels), getattr(self.pixels, "dtype", None)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(f"a Picture holds uint8 pixels [H, W, 3], received {dtype} {list(shape)}. Use read_image() to convert others.")

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def to_pil(self) -> Image.Image:
        """Returns the pixels as an RGB Pillow image."""
        return Image.fromarray(self.pixels)


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, reduce: Reduce | None = None) -> Picture:
    """Reads a picture from nearly anything.

    Files, bytes and Pillow images: the EXIF orientation is applied; transparency is composited over white; ICC profiles are converted
    to sRGB (a damaged or unsuitable profile is a warning, and the pixels are taken as sRGB); 16-bit values are scaled by 1/257;
    32-bit integers must lie in 0..65535 and are scaled like 16-bit ones; floats must lie in 0..1; of animated and multi-page files the
    first frame is read, which is a warning (of an open Pillow image: the frame it is at).

    Arrays: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (alpha, composited over white) of uint8, uint16 (scaled by 1/257), bool, floats in
    0..1, or other integers in 0..255. Tensors likewise, and also [C, H, W]: a tensor whose first axis has 1, 3 or 4 entries is ``CHW``,
    every other tensor is ``HWC``.

    Args:
        source: Path, binary file object (read from its start, left open), bytes, Pillow image, array, tensor, or a Picture (returned as
            is).
        max_pixels: Most pixels of a picture from a file; checked before anything is decoded.
        reduce: By how much a JPEG may be decoded smaller, which its decoder does at a fraction of the cost; see :attr:`Picture.reduction`.

    Returns:
        The picture; its pixels share no memory with an array or tensor given.

    Raises:
        ImageError: The source is missing, a folder, empty, no picture, truncated, too large, or holds values that are not pixels.
    """
    try:
        return _read(source, max_pixels, reduce)
    except (ImageError, Warning):
        raise
    except Exception as error:  # a disk or a file object may fail at any byte
        name = repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else "the picture"
        raise ImageError(f"cannot read {name}: {reason_of(error)}.") from error


def _read(source: ImageSource, max_pixels: int, reduce: Reduce | None) -> Picture:
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, "array")
    if is_tensor(source):
        return _from_tensor(cast("Tensor", source))
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or None
        name = None if name is None else os.fsdecode(name)
        return _picture(source, name, max_pixels, first_frame=False, label=repr(name) if name else "the given Pillow image")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(source), "the given bytes", None, max_pixels, reduce)
    if isinstance(source, (str, os.PathLike)):
        with open_path(source, byte_limit(max_pixels)) as file:
            name = os.fspath(source)
            return _from_file(file, repr(name), name, max_pixels, reduce)
    if hasattr(source, "read"):
        given = getattr(source, "name", None)
        name = given if isinstance(given, str) else None
        label = repr(name) if name else "the given file object"
        return _from_file(_binary(source, byte_limit(max_pixels)), label, name, max_pixels, reduce)
    raise ImageError(
        f"cannot read a picture from {type(source).__name__}: expected a path, file object, bytes, Pillow image, numpy array or tensor."
    )


# ------------------------------------------------------------------------------------------------------------ files


@contextmanager
def open_path(source: str | os.PathLike[str], limit: int) -> Iterator[io.BufferedReader]:
    """Opens a picture file's bytes for reading, or says why not; pipes, devices and files of more than ``limit`` bytes are not even opened.

    Raises:
        ImageError: There is no such file, or none that can be read.
    """
    text = os.fspath(source)
    if not isinstance(text, str):
        raise ImageError(f"a path must be text, received {text!r}.")
    if not text.strip():
        raise ImageError("the path of the picture is empty: expected a file such as 'fish.jpg'.")
    if text.startswith(("http://", "https://")):
        raise ImageError(f"{text!r} is a web address: download the picture first and give its path.")
    path = Path(text)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ImageError(_missing(path)) from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {text[:200]!r}: {getattr(error, 'strerror', None) or error}.") from error
    if path.is_dir():
        raise ImageError(f"{text!r} is a folder, expected a picture file. Give the files in it, for example {text.rstrip('/')}/*.jpg")
    check_file(found, repr(text), limit)
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"cannot read {text!r}: {error.strerror or error}.") from error
    with file:
        yield file


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"no such picture: {str(path)!r}; the folder {str(folder)!r} does not exist either."
    # A collection's folder can hold a million files; a hint is not worth comparing with them all.
    names = [entry.name for entry in itertools.islice(_entries(folder), 5000)]
    near = nearest_names(path.name, names, 1)
    hint = f" Did you mean {str(folder / near[0])!r}?" if near else " Check the path."
    return f"no such picture: {str(path)!r}.{hint}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def _binary(source: Any, limit: int) -> BinaryIO:
    """Returns a seekable binary file over a file object, positioned at its start; one that cannot seek is read, up to ``limit`` bytes."""
    try:
        if source.seekable():
            source.seek(0)
            if isinstance(source.read(0), bytes):
                return cast(BinaryIO, source)
            raise ImageError("the file object was opened as text: open it in binary mode, open(path, 'rb').")
        if not isinstance(source.read(0), bytes):
            raise ImageError("the file object was opened as text: open it in binary mode, open(path, 'rb').")
        data = read_within(source, limit, "the given file object")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot read the given file object: {error}.") from error
    return io.BytesIO(data)


def _from_file(file: BinaryIO, label: str, name: str | None, max_pixels: int, reduce: Reduce | None) -> Picture:
    with limited_to(max_pixels):
        image = _image_in(file, label, max_pixels)
        whole = image.size
        reduction = 1 if reduce is None else _drafted(image, max_pixels, reduce)
        picture = _picture(image, name, max_pixels, first_frame=True, label=label)
        if FIRST_PAGE in picture.notes and _has_pages(file, image.format, label):
            warnings.warn(FirstPageWarning(label), stacklevel=2)
    if reduction == 1:
        return picture
    upright = whole if picture.exif_orientation in _SIDEWAYS else whole[::-1]
    # What reaches past the edge does so at the right and below, as the file has it.
    mirrored = [picture.exif_orientation in turned for turned in (_UPSIDE_DOWN, _MIRRORED)]
    start = [(have - side / reduction) * turned for have, side, turned in zip(picture.size, upright, mirrored)]
    note = f"decoded at 1/{reduction} of its sides"
    return replace(picture, reduction=reduction, whole=upright, start=(start[0], start[1]), notes=(note, *picture.notes))


def _drafted(image: Image.Image, max_pixels: int, reduce: Reduce) -> int:
    """Has a JPEG that is not loaded yet decoded smaller; returns by how much."""
    width, height = image.size
    if image.format != "JPEG" or width * height > max_pixels:  # what is too large is refused as it is
        return 1
    factor = reduce((width, height) if _orientation(image) in _SIDEWAYS else (height, width))
    if factor > 1:
        image.draft(None, (width // factor, height // factor))
    return factor if image.size == (-(-width // factor), -(-height // factor)) else 1


@contextmanager
def opened(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Opens a picture file as Pillow has it, not decoded yet, for readers of other things than photographs; see :func:`decoded`.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    with open_path(path, byte_limit(max_pixels)) as file, limited_to(max_pixels):
        yield _image_in(file, repr(os.fspath(path)), max_pixels)


def _image_in(file: BinaryIO, label: str, max_pixels: int) -> Image.Image:
    size, limit = file.seek(0, os.SEEK_END), byte_limit(max_pixels)
    file.seek(0)
    head = file.read(64)
    if not head:
        raise ImageError(f"{label} is empty (zero bytes): expected a picture. Copy or download it again.")
    if size > limit:
        raise ImageError(too_long(label, size, limit))
    image = _identify(file, label)
    if image is None and (turned := _as_min_is_black(file)) is not None:
        image = _identify(turned, label)
        if image is not None:
            image.info[_INVERTED] = True
    if image is None:
        raise ImageError(f"{label} is not a picture: {_guess(head)}. Expected JPEG, PNG, TIFF, WebP, AVIF, GIF, BMP or the like.")
    return image


_INVERTED = "concept_cam_inverted"
"""Key of ``info`` of an image that was opened as the negative of what it is."""

_TIFF_HEADS = {b"II*\0": "<", b"MM\0*": ">"}
_PHOTOMETRIC, _BITS = 262, 258


def _as_min_is_black(file: BinaryIO) -> BinaryIO | None:
    """Returns a copy of a TIFF whose zero is white in which it is black: the kinds that Pillow does not know otherwise, such as big-endian
    16-bit ones.
    """
    file.seek(0)
    order = _TIFF_HEADS.get(file.read(4))
    if order is None:
        return None
    file.seek(0)
    content = bytearray(file.read())
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack_from(order + "HHIH", content, place)
            if (tag, number, value) == (_PHOTOMETRIC, 1, 0) and kind in (3, 4):
                struct.pack_into(order + ("H" if kind == 3 else "I"), content, place + 8, 1)
                return io.BytesIO(content)
    except struct.error:
        return None
    return None


def _guess(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        kind = "a HEIC photograph, which Pillow cannot read; convert it to JPEG" if head[8:12] in _HEIF_BRANDS else "a video"
        return f"it looks like {kind}"
    for signature, what in _SIGNATURES:
        if head.lstrip().startswith(signature):
            return f"it looks like {what}"
    return "its content is of no known image format"


def _identify(file: BinaryIO, label: str) -> Image.Image | None:
    """Opens a file lazily through Pillow's registry of formats; ``None`` when no format accepts it. Call it under :func:`limited_to`.

    The same search as ``Image.open``, without the formats that are no pixels and with an error that names the file.
    """
    file.seek(0)
    prefix = file.read(16)
    tried: set[str] = set()
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name in [name for name in Image.ID if name not in tried and name not in _REFUSED_FORMATS]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            try:
                if accept is not None and accept(prefix) is not True:
                    continue
                file.seek(0)
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # Pillow's own signal for "not this format after all".
            except Image.DecompressionBombError as error:
                raise ImageError(f"{label} has {error}; otherwise scale the picture down.") from error
            except Exception as error:  # a damaged header can raise nearly anything in a format plugin
                raise ImageError(f"{label} cannot be read as {name}: {error}. The file is damaged; copy it again.") from error
    return None


# ------------------------------------------------------------------------------------------------------------ decoding


def decoded(image: Image.Image, max_pixels: int, label: str) -> tuple[Image.Image, int, Image.Transpose | None]:
    """Decodes an image: the one place where pixels come into being, so that damage is always an error.

    Args:
        image: An image of any mode, loaded or not.
        max_pixels: Most pixels that are decoded.
        label: Whose image it is, for messages.

    Returns:
        The image, its EXIF orientation 1..8, and how it must still be turned to be upright.

    Raises:
        ImageError: It has too many pixels or none, is damaged, or does not fit in memory.
    """
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{label} has no pixels: its size is {width} x {height}.")
    if width * height > max_pixels:
        raise ImageError(
            f"{label} has {width} x {height} = {width * height:,} pixels, more than the limit of {max_pixels:,}. "
            "If the file is trusted, raise the limit (max_pixels, --max-pixels); otherwise scale the picture down."
        )
    # A TIFF is turned while it is loaded, and drops the tag. Of other formats the tag is read afterwards: looking for it makes the reader
    # of PNG decode the pixels, and an error of theirs must not be taken for one of the metadata.
    tags = getattr(image, "tag_v2", None)
    found = _known(tags.get(_ORIENTATION_TAG, 1)) if tags is not None else None
    try:
        if image.format == "PNG":
            _check_chunks(getattr(image, "fp", None))
        with limited_to(max_pixels):
            image.load()
    except MemoryError as error:
        raise ImageError(f"{label} ({width} x {height} pixels) does not fit in memory: scale it down.") from error
    except Exception as error:  # a damaged body can raise nearly anything in a decoder
        raise ImageError(f"{label} is damaged or cut short: {error}. Copy or download it again.") from error
    after = _orientation(image)
    return image, after if found is None else found, _TRANSPOSE.get(after)


_PNG_START = b"\x89PNG\r\n\x1a\n"


def _check_chunks(file: Any) -> None:
    """Compares the check sums of a PNG's chunks that make pixels, and asks for its last chunk; the file is left where it was.

    Pillow stops reading once it has all rows: it never comes to the sums at the end, so that a changed byte of the last rows passed for
    pixels. An image without its file (loaded already, or made in memory) has nothing to compare.

    Raises:
        ValueError: A chunk is damaged, or the last one is missing.
    """
    if file is None or getattr(file, "closed", False):
        return
    place = file.tell()
    try:
        file.seek(0)
        if file.read(8) != _PNG_START:  # a PNG within something else, such as an icon
            return
        while True:
            head = file.read(8)
            if len(head) < 8:
                raise ValueError("its last chunk is missing")
            left, kind = struct.unpack(">I4s", head)
            if not kind[0] & 0x20:  # a capital first letter: without this chunk the pixels are not what they were
                total = zlib.crc32(kind)
                while left and (data := file.read(min(left, 1 << 20))):
                    total = zlib.crc32(data, total)
                    left -= len(data)
                if left or len(sum_ := file.read(4)) < 4:
                    raise ValueError(f"it ends within its chunk {kind.decode('latin-1')!r}")
                if sum_ != struct.pack(">I", total):
                    raise ValueError(f"the check sum of its chunk {kind.decode('latin-1')!r} is wrong")
            else:
                file.seek(left + 4, io.SEEK_CUR)
            if kind == b"IEND":
                return
    finally:
        file.seek(place)


def _picture(image: Image.Image, name: str | None, max_pixels: int, *, first_frame: bool, label: str) -> Picture:
    notes: list[str] = []
    if first_frame and _has_frames(image):
        notes.append(FIRST_PAGE)
    mode, wide = image.mode, holds_16_bit_colours(image)
    image, found, turn = decoded(image, max_pixels, label)
    try:
        rgb = _to_rgb(image, notes, label)
        if wide and 0 < (high := max(top for _, top in cast("tuple[tuple[int, int], ...]", rgb.getextrema()))) < 64:
            _nearly_black(label, 257 * high + 256, notes)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{label} ({image.size[0]} x {image.size[1]} pixels) does not fit in memory: scale it down.") from error
    except Exception as error:  # values that a conversion cannot use
        raise ImageError(f"{label} is damaged or cut short: {error}. Copy or download it again.") from error
    if turn is not None:
        rgb = rgb.transpose(turn)
    return Picture(np.array(rgb), source=name, exif_orientation=found, mode=mode, notes=tuple(notes))


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage in later frames must not cost the first
        return False


_WHOLE_FIRST = ("MPO", "PSD")
"""Formats whose first frame is the picture: of cameras' files, where previews, depth and brightness follow, and of layers."""

_SUBFILE, _REDUCED = 254, 1


def _has_pages(file: BinaryIO, kind: str | None, label: str) -> bool:
    """Tells whether one of the further frames of a file is more than the first one at another size, as scanners and cameras add it.

    The file is opened once more for it: going through the pages changes what an open image says of its first one.
    """
    if kind != "TIFF":
        return kind not in _WHOLE_FIRST
    try:
        image: Any = _identify(file, label)
        for number in range(1, image.n_frames):
            image.seek(number)
            if not image.tag_v2.get(_SUBFILE, 0) & _REDUCED:
                return True
    except Exception:  # there is something that cannot be told: it is not read in any case
        return True
    return False


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation 1..8 of an image that is loaded already; damaged metadata must not cost the picture."""
    try:
        return _known(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1


def _known(orientation: Any) -> int:
    return orientation if isinstance(orientation, int) and orientation in _TRANSPOSE else 1


def _to_rgb(image: Image.Image, notes: list[str], label: str) -> Image.Image:
    """Converts a loaded image of any mode to 8-bit sRGB, before the orientation is applied."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_grey_levels(image, label, notes))
    alpha: Image.Image | None = None
    if image.has_transparency_data:
        base = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert(base)
    rgb = _to_srgb(image, profile, notes, label)
    if alpha is None:
        return rgb
    low, _ = cast("tuple[int, int]", alpha.getextrema())
    if low == 255:
        return rgb
    notes.append("transparency composited over white")
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def holds_16_bit_colours(image: Image.Image) -> bool:
    """Tells whether an image that is not loaded yet has 16 bits per colour, of which Pillow keeps the upper 8."""
    return not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", None) or ())


def _nearly_black(label: str, high: float, notes: list[str]) -> None:
    bits = max(8, int(high).bit_length())
    notes.append(f"no value above {high:.0f} of 65535")
    warnings.warn(
        f"{label}: its values end at {high:.0f} of 65535, so it is nearly black. If a camera stored {bits} bits in 16, multiply by "
        f"{65535 // ((1 << bits) - 1)}.",
        UserWarning,
        stacklevel=2,
    )


def _grey_levels(image: Image.Image, label: str, notes: list[str]) -> np.ndarray:
    """Brings an image of 16-bit, 32-bit or floating values to uint8 [H, W], zero being black."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))[0] if values.dtype.kind != "f" else 16
    if 8 < bits < 16 and values.max(initial=0) < 1 << bits:  # as TIFF stores it: 12 bits are 0..4095
        notes.append(f"{bits}-bit values scaled to 16 bits")
        values = (values.astype(np.uint32) * 65535 // ((1 << bits) - 1)).astype(np.uint16)
    grey = _scale_to_uint8(values, label, wide=True, notes=notes)
    if image.info.get(_INVERTED) or tags.get(_PHOTOMETRIC) == 0:  # Pillow turns the 8-bit ones itself
        notes.append("zero is white in this file: turned")
        grey = np.uint8(255) - grey
    return grey


_PROFILE_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str], label: str) -> Image.Image:
    if image.mode == "LAB":
        notes.append("converted from CIE L*a*b*")
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return cast(Image.Image, ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
    if profile:
        try:
            return _apply_profile(image, profile, notes)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            notes.append("ICC profile ignored")
            warnings.warn(
                f"{label}: the ICC colour profile cannot be used ({error}); its colours are taken as sRGB.",
                UserWarning,
                stacklevel=2,
            )
    if image.mode == "CMYK":
        notes.append("CMYK converted without a profile")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy every pixel


def _apply_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space
    mode = _PROFILE_MODES.get(space)
    if mode is None:
        raise ValueError(f"profile of the colour space {space.strip()!r}")
    if image.mode not in ("CMYK", "L", "1") or (image.mode == "L" and mode == "RGB"):
        image = image.convert("RGB")  # palettes, YCbCr ...; a grey picture may carry an RGB profile
    elif image.mode == "1":
        image = image.convert("L" if mode == "L" else "RGB")
    if image.mode != mode:
        raise ValueError(f"profile of the colour space {space.strip()!r} in a picture of mode {image.mode}")
    description = ImageCms.getProfileDescription(opened).strip()
    if description.lower().startswith("srgb") and "v4" not in description.lower():
        return image if image.mode == "RGB" else image.convert("RGB")  # Already there; a round trip costs time and rounding.
    notes.append(f"ICC profile {description!r} converted to sRGB")
    converted = ImageCms.profileToProfile(
        image,
        opened,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return cast(Image.Image, converted)


# ------------------------------------------------------------------------------------------------------------ arrays


def is_tensor(source: object) -> bool:
    """Whether this is a torch tensor, without importing torch."""
    return any(kind.__module__.partition(".")[0] == "torch" and kind.__name__ == "Tensor" for kind in type(source).__mro__)


def _from_tensor(tensor: Tensor) -> Picture:
    detached = tensor.detach().cpu()
    if detached.is_floating_point():
        detached = detached.float()  # numpy has no bfloat16
    array = detached.numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    return _from_array(array, "tensor")


def _from_array(array: np.ndarray, what: str) -> Picture:
    shape = list(array.shape)
    if array.ndim == 4:
        raise ImageError(f"received a batch, {what} of shape {shape}: pass one picture at a time.")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = " Channels come last in arrays: array.transpose(1, 2, 0)."
        raise ImageError(
            f"received an {what} of shape {shape}, expected [H, W] or [H, W, 1, 3 or 4].{hint}".replace("an tensor", "a tensor")
        )
    if array.size == 0:
        raise ImageError(f"the {what} of shape {shape} has no pixels.")
    notes: list[str] = []
    values = _scale_to_uint8(array, f"the {what}", wide=False, notes=notes)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.shape[2] == 4:
        values = _over_white(values)
        notes.append("transparency composited over white")
    pixels = np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
    if np.shares_memory(pixels, array):
        pixels = pixels.copy()
    return Picture(pixels, mode=f"{array.dtype} {shape}", notes=tuple(notes))


def _over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[:, :, 3:].astype(np.uint16)
    blended = rgba[:, :, :3] * alpha + 255 * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)


def _scale_to_uint8(values: np.ndarray, label: str, *, wide: bool, notes: list[str]) -> np.ndarray:
    """Brings pixel values to uint8 of the same shape.

    Args:
        values: Any real dtype.
        label: Whose values they are, for messages.
        wide: Integers other than uint8 and bool are 16-bit values in a wider type (Pillow's modes ``I``), not 0..255.
        notes: What was done is appended here.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            count = int(values.size - np.count_nonzero(finite))
            raise ImageError(f"{label} holds {count} NaN or infinite of {values.size} values: pixels must be finite numbers in 0..1.")
        top, name = 1.0, "floats"
    elif values.dtype.kind in "iu":
        top, name = (65535.0, "integers") if wide or values.dtype.kind + str(values.dtype.itemsize) == "u2" else (255.0, "integers")
    else:
        raise ImageError(f"{label} holds {values.dtype} values, expected uint8, uint16, bool, or floats in 0..1.")
    low, high = float(values.min()), float(values.max())
    slack = 1e-6 if values.dtype.kind == "f" else 0.0
    if low < -slack or high > top + slack:
        hint = ""
        if values.dtype.kind == "f":
            hint = " Divide by 255 if it holds 0..255." if low >= 0 else " Undo the normalisation, if it has been normalised."
        raise ImageError(f"{label} holds {name} from {low:.6g} to {high:.6g}, expected 0..{top:.0f}.{hint}")
    if top != 255.0:
        notes.append(f"{values.dtype} values 0..{top:.0f} scaled to 0..255")
    if top == 65535.0 and 0 < high < 16384:
        _nearly_black(label, high, notes)
    scaled = np.clip(values.astype(np.float32), 0.0, top) * np.float32(255.0 / top)
    return cast("np.ndarray", np.rint(scaled).astype(np.uint8))
