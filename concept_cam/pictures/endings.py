"""Which files are pictures: the one list of endings, for folders, archives and data sets. Lists and tables may name any file."""

from __future__ import annotations

import os

__all__ = ["PICTURE_SUFFIXES", "is_picture"]

PICTURE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".tif",
        ".tiff",
        ".webp",
        ".bmp",
        ".dib",
        ".gif",
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".j2k",
        ".jpx",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
    ]
)
"""Endings of pictures, in small letters."""


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Tells whether a file's ending is that of a picture."""
    return os.path.splitext(os.fspath(path))[1].lower() in PICTURE_SUFFIXES
