"""How much a reader may be given: the limits of pixels and of bytes, for every format and every source.

Pillow has a limit of its own, which is one number for the whole process; several of its readers ask for it in the middle of opening or
decoding a file. :func:`limited_to` puts the caller's limit in its place, for the calling thread alone and for so long as it reads: what
other code and other threads see of Pillow does not change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, BinaryIO

from PIL import Image

from concept_cam.core.errors import ImageError

__all__ = ["MAX_PIXELS", "byte_limit", "check_file", "limited_to", "read_within"]

MAX_PIXELS = 200_000_000
"""Most pixels of a picture that is decoded by default."""

_SPARE_BYTES = 64 << 20
_BYTES_PER_PIXEL = 8

_LIMIT: ContextVar[int | None] = ContextVar("concept_cam_max_pixels", default=None)


def byte_limit(max_pixels: int = MAX_PIXELS) -> int:
    """Returns the most bytes that an encoded picture may have: those of as many pixels of four 16-bit channels, and 64 MiB for what goes
    with them.
    """
    return _SPARE_BYTES + _BYTES_PER_PIXEL * max_pixels


@contextmanager
def limited_to(max_pixels: int) -> Iterator[None]:
    """Lets Pillow's readers, within this block and thread, refuse what has more than ``max_pixels`` pixels and nothing less."""
    token = _LIMIT.set(max_pixels)
    try:
        yield
    finally:
        _LIMIT.reset(token)


_PILLOWS_OWN = Image._decompression_bomb_check


def _check(size: tuple[int, int], *arguments: Any, **options: Any) -> None:
    limit = _LIMIT.get()
    if limit is None:
        _PILLOWS_OWN(size, *arguments, **options)
    elif max(1, size[0]) * max(1, size[1]) > limit:
        raise Image.DecompressionBombError(
            f"{size[0]} x {size[1]} = {size[0] * size[1]:,} pixels, more than the limit of {limit:,}. "
            "If the file is trusted, raise the limit (max_pixels, --max-pixels)"
        )


Image._decompression_bomb_check = _check


def check_file(found: os.stat_result, label: str, limit: int) -> None:
    """Refuses what is no file of a size that can be read, before anything of it is read.

    Raises:
        ImageError: A folder, a pipe, a device, an empty file, or one of more than ``limit`` bytes.
    """
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        raise ImageError(f"{label} is a folder, expected a picture file.")
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
        kind = next((name for test, name in kinds if test(mode)), "no regular file")
        raise ImageError(f"{label} is {kind}, expected a picture file.")
    if found.st_size == 0:
        raise ImageError(f"{label} is empty (zero bytes): expected a picture. Copy or download it again.")
    if found.st_size > limit:
        raise ImageError(too_long(label, found.st_size, limit))


def too_long(label: str, size: int | None, limit: int) -> str:
    """Returns the message for a picture of too many bytes."""
    count = "more bytes" if size is None else f"{size:,} bytes, more"
    return f"{label} has {count} than the limit of {limit:,}, which follows from that of pixels (max_pixels, --max-pixels)."


def read_within(stream: BinaryIO, limit: int, label: str) -> bytes:
    """Reads a stream to its end.

    Raises:
        ImageError: It has more than ``limit`` bytes; no more are read.
    """
    content = stream.read(limit + 1)
    parts = [content]
    total = len(content)
    while content and total <= limit:  # a stream may give less than it was asked for
        content = stream.read(limit + 1 - total)
        total += len(content or b"")
        parts.append(content or b"")
    if total > limit:
        raise ImageError(too_long(label, None, limit))
    return parts[0] if len(parts) == 1 else b"".join(parts)
