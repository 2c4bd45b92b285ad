"""What stands in a file where weights should be: libraries say of a page, a pointer or half a download only that a header is too large."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

__all__ = ["WEIGHT_ENDINGS", "damage_among", "damage_of"]

WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")

_HEAD = 100
_LONGEST_HEADER = 100_000_000
"""Bytes that the format allows a header of ``.safetensors``."""


def damage_of(file: Path) -> str:
    """Says what is wrong with a file of weights that could not be read, and what to do; empty where it cannot be told."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
        size = file.stat().st_size
        if not head:
            return "the file is empty. Copy or download it again"
        if head.startswith(b"version https://git-lfs"):
            return "the file is a pointer of Git LFS in place of weights. Fetch them with 'git lfs pull'"
        if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            return "the file is a web page in place of weights. Download the file itself, for example by the button on that page"
        whole = _whole(file, head) if file.suffix == ".safetensors" else size
        cut = file.suffix != ".safetensors" and head.startswith(b"PK") and not zipfile.is_zipfile(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    if size < whole or cut:
        share = f"after {size:,} of {whole:,} bytes" if size < whole else "early"
        return f"the file ends {share}: it was not copied or downloaded to its end. Do that again"
    return ""


def damage_among(folder: Path) -> str:
    """Says the same of the first damaged file of weights in a folder, with its name; of those that are read, which are the
    ``.safetensors`` where there are any.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_ENDINGS) if folder.is_dir() else []
    files = [path for path in files if path.suffix == ".safetensors"] or files
    return next((f"{file.name}: {found}" for file in files if (found := damage_of(file))), "")


def _whole(file: Path, head: bytes) -> int:
    """Returns how many bytes a ``.safetensors`` file says that it has; 0 where its beginning is none of such a file."""
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or not 2 <= length <= _LONGEST_HEADER or head[8:9] != b"{":
        return 0
    with file.open("rb") as stream:
        stream.seek(8)
        header = stream.read(length)
    if len(header) < length:
        return 8 + length
    ends = [int(entry["data_offsets"][1]) for name, entry in json.loads(header).items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0)
