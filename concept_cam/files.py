"""Writing files so that nothing half-written is ever seen and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from concept_cam.types import OutputError

__all__ = ["make_directory", "write_file"]


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Creates a folder and its parents.

    Raises:
        OutputError: It cannot be created, or a file stands there.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {str(path)!r}: {error.strerror or error}. Choose another --output.") from error
    return path


def write_file(path: str | os.PathLike[str], payload: bytes, *, overwrite: bool = False) -> Path:
    """Writes a file whole or not at all: temporary name in the same folder, then rename.

    Raises:
        OutputError: The file exists and ``overwrite`` is false, the folder is missing or not writable, or the disk is full. Whatever
            stood there before is untouched.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{str(path)!r} exists. Use --overwrite (overwrite=True), or choose another output.")
    temporary = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:12]}.partial")
    try:
        with open(temporary, "xb") as stream:
            stream.write(payload)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(
            f"cannot write {str(path)!r}: {error.strerror or error}. Check that the folder exists, is writable and has room; "
            "files already written are complete."
        ) from error
    return path
