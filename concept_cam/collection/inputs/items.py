"""What every input layout yields: pictures to read later, with a stable name and the input's other columns.

Everything here is plain data that can be sent to another process; nothing is read until :meth:`Payload.read` is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat

import numpy as np

from concept_cam.core.errors import ConfigurationError, ImageError, MissingExtraError, reason_of
from concept_cam.core.names import display
from concept_cam.pictures.limits import byte_limit, check_file, read_within, too_long

__all__ = [
    "Blob",
    "Broken",
    "Buffer",
    "Collection",
    "Columns",
    "File",
    "Item",
    "Payload",
    "Raw",
    "Specimen",
    "Url",
    "is_url",
]

MAX_BYTES = byte_limit()
"""Most bytes of an encoded picture by default."""

LEAST_SCALE, MOST_SCALE = 1e-6, 1e9
"""Pixels per millimetre beyond which a scale is a slip: a pixel of a kilometre, and one smaller than an atom."""

SCALE = f"pixels per millimetre, from {LEAST_SCALE:g} to {MOST_SCALE:g}"
"""What a scale is, for messages."""

UUID_COLUMN = "uuid"
"""Column that names a table's row for good, where there is one."""


# ------------------------------------------------------------------------------------------------------------- payloads


@dataclass(frozen=True)
class Raw:
    """What a payload holds: an encoded file, or pixels.

    Attributes:
        content: Encoded bytes, or uint8 [H, W, 3] RGB.
        digest_of: Bytes whose SHA-256 identifies the picture.
        original: ``(H, W)`` of the upright picture that the pixels were made from, where they were scaled before; else ``None``.
    """

    content: bytes | np.ndarray
    digest_of: bytes
    original: tuple[int, int] | None = None


class Payload(Protocol):
    """Something that a picture can be read from, later and elsewhere."""

    def read(self, max_bytes: int = MAX_BYTES) -> Raw:
        """Reads it.

        Args:
            max_bytes: Most bytes that are read; see :func:`concept_cam.pictures.limits.byte_limit`.

        Raises:
            ImageError: It cannot be read, or is longer.
        """
        ...


@dataclass(frozen=True)
class File:
    """A file on disk."""

    path: str

    def read(self, max_bytes: int = MAX_BYTES) -> Raw:
        """Reads the file's bytes; what is no regular file, or too long, is not even opened."""
        name = repr(display(self.path))
        try:
            check_file(os.stat(self.path), name, max_bytes)
            with open(self.path, "rb") as stream:
                content = read_within(stream, max_bytes, name)
        except FileNotFoundError:
            raise ImageError(f"no such picture: {name}; it was moved or deleted, or the list is wrong.") from None
        except ImageError:
            raise
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}.") from error
        return Raw(content, content)


@dataclass(frozen=True)
class Url:
    """A file behind an address: ``https://`` (see :mod:`concept_cam.collection.inputs.web`), or ``s3://``, ``gs://``, ``zip://`` ... by
    fsspec.
    """

    url: str

    def read(self, max_bytes: int = MAX_BYTES) -> Raw:
        """Downloads the file's bytes."""
        if self.url.startswith(("http://", "https://")):
            from concept_cam.collection.inputs.web import download_picture

            content = download_picture(self.url, max_bytes)
            return Raw(content, content)
        fsspec = import_fsspec()
        try:
            with fsspec.open(self.url, "rb") as stream:
                content = read_within(stream, max_bytes, repr(self.url))
        except ImportError as error:
            raise ConfigurationError(f"{self.url!r} needs another library: {error}") from error
        except ImageError:
            raise
        except Exception as error:  # every file system has its own errors
            raise ImageError(f"cannot read {self.url!r}: {reason_of(error)}") from error
        return Raw(content, content)


@dataclass(frozen=True)
class Blob:
    """Encoded bytes that stood in a table or archive."""

    content: bytes

    def read(self, max_bytes: int = MAX_BYTES) -> Raw:
        """Returns the bytes."""
        if len(self.content) > max_bytes:
            raise ImageError(too_long("the entry", len(self.content), max_bytes))
        return Raw(self.content, self.content)


@dataclass(frozen=True)
class Buffer:
    """Raw pixels: uint8, row by row, blue-green-red (the TreeOfLife layout).

    Attributes:
        content: ``H * W * 3`` bytes.
        stored: ``(H, W)`` of the buffer.
        original: ``(H, W)`` of the upright picture before it was scaled down to the buffer.
    """

    content: bytes
    stored: tuple[int, int]
    original: tuple[int, int] | None = None

    def read(self, max_bytes: int = MAX_BYTES) -> Raw:
        """Returns the pixels as RGB."""
        height, width = self.stored
        if len(self.content) > max_bytes:
            raise ImageError(too_long("the buffer", len(self.content), max_bytes))
        if height < 1 or width < 1 or len(self.content) != height * width * 3:
            raise ImageError(
                f"the buffer holds {len(self.content)} bytes, but {height} x {width} x 3 = {max(0, height * width * 3)} were expected "
                "(rows x columns of 'resized_size' x blue, green, red). The row is damaged."
            )
        pixels = np.frombuffer(self.content, np.uint8).reshape(height, width, 3)[:, :, ::-1]
        original = self.original
        if original is not None and min(original) < 1:
            raise ImageError(f"'original_size' is {original[0]} x {original[1]}: expected two positive numbers (rows, columns).")
        return Raw(np.ascontiguousarray(pixels), self.content, None if original == self.stored else original)


@dataclass(frozen=True)
class Broken:
    """An entry of the input that is no picture at all; reading it says why."""

    reason: str

    def read(self, max_bytes: int = MAX_BYTES) -> Raw:
        """Raises the error."""
        raise ImageError(self.reason)


# ---------------------------------------------------------------------------------------------------------------- items


@dataclass(frozen=True)
class Specimen:
    """One specimen of a picture: trays and drawers hold many.

    Attributes:
        box: ``(x, y, width, height)``, original pixels; ``None`` for the whole picture or for where the mask is.
        mask: COCO run-length encoding (JSON text or mapping), or the path of a mask picture; ``None`` for none.
        columns: Input columns of this specimen; they win over the picture's.
    """

    box: tuple[float, float, float, float] | None = None
    mask: str | Mapping[str, Any] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One picture of a collection.

    Attributes:
        source: Unique, stable name: path relative to the input, URL, or table row; always valid Unicode.
        payload: Reads the picture.
        path: Absolute path or URL, where the picture is a file of its own.
        media_uri: Public address, where the input names one.
        columns: The input's other columns, as text.
        specimens: Boxes or masks that stand in the input itself.
        px_per_mm: Scale, original pixels per millimetre.
        occurrence: What tells this entry from another of the same picture; empty for the only or the first one. Two occurrences
            that share a photograph, as in collections at GBIF, are two entries, each with its own records.
    """

    source: str
    payload: Payload
    path: str | None = None
    media_uri: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    specimens: tuple[Specimen, ...] = ()
    px_per_mm: float | None = None
    occurrence: str = ""

    @property
    def identity(self) -> str:
        """What keys are made of: the source, and the occurrence where there are several of one picture."""
        return f"{self.source}#{self.occurrence}" if self.occurrence else self.source


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what.

    Attributes:
        picture: Path, URL or bytes of the picture; ``None`` to find it by name and type.
        box: Box or boxes of specimens.
        mask: Mask of a specimen.
        px_per_mm: Scale.
    """

    picture: str | None = None
    box: str | None = None
    mask: str | None = None
    px_per_mm: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The columns that were named, by the option of the command line that names them."""
        options = {"--column": self.picture, "--boxes": self.box, "--masks": self.mask, "--px-per-mm": self.px_per_mm}
        return {option: name for option, name in options.items() if name is not None}


@dataclass(frozen=True)
class Collection:
    """A collection of pictures, not read yet.

    Attributes:
        layout: Name of the layout in :data:`concept_cam.collection.inputs.LAYOUTS`.
        root: Folder that relative sources stand in, where there is one.
        items: Starts a new pass over the pictures, always in the same order.
        count: Counts them without reading them; ``None`` where that would mean reading everything.
    """

    layout: str
    root: str | None
    items: Callable[[], Iterator[Item]]
    count: Callable[[], int | None]


# -------------------------------------------------------------------------------------------------------------- helpers


def is_url(text: str) -> bool:
    """Tells whether a text is a URL rather than a path (``C://`` is a path)."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and len(scheme) > 1 and scheme.replace("+", "").replace("-", "").replace("::", "").isalnum()


def payload_of(text: str, root: str | None) -> tuple[Payload, str]:
    """Returns what reads a path or URL of a list, and the absolute path or URL."""
    if is_url(text):
        return Url(text), text
    path = text if root is None or os.path.isabs(text) else os.path.join(root, text)
    return File(path), display(os.path.abspath(path))


def read_scale(value: object) -> float | None:
    """Returns a scale in pixels per millimetre, ``None`` for what is none: no number, or one beyond the limits.

    Args:
        value: Any kind of number: of Python, of `decimal`, or a single one of numpy or torch.
    """
    shape, kind = getattr(value, "shape", ()), str(getattr(value, "dtype", "float")).removeprefix("torch.").rstrip("0123456789")
    if tuple(shape) or kind not in ("float", "bfloat", "int", "uint") or not isinstance(value, SupportsFloat) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        return None
    return number if LEAST_SCALE <= number <= MOST_SCALE else None


def scale_in(text: str, column: str) -> float | None:
    """Reads the scale of a table's cell; empty is ``None``.

    Raises:
        ImageError: The text is no scale; it concerns this row alone.
    """
    if not text.strip():
        return None
    try:
        value = read_scale(float(text))
    except ValueError:
        value = None
    if value is None:
        raise ImageError(f"column {column!r} is {text!r}: expected {SCALE}.")
    return value


def import_fsspec() -> Any:
    """Imports fsspec.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError("fsspec", "annotate", "reading from URLs") from error
    return fsspec
