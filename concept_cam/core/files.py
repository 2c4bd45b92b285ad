"""Writing files so that nothing half-written is ever seen and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_cam.core.errors import ConfigurationError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METADATA", "check_file", "make_directory", "write_file", "write_tensors"]

METADATA = "concept_cam"
"""Key of the header of ``.safetensors`` files under which the package keeps its JSON description."""


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
        OutputError: The file exists and ``overwrite`` is false, a folder stands there, its own folder is missing or not writable, or the
            disk is full. Whatever stood there before is untouched.
    """
    path = Path(path)
    _refuse_what_is_there(path, overwrite)
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as stream:
            stream.write(payload)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise _unwritten(path, error, "files already written are complete") from error
    return path


def check_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Finds out whether :func:`write_file` could write a file, before the minutes of work whose result it is to hold. Nothing stays behind.

    Raises:
        OutputError: The file exists and ``overwrite`` is false, a folder stands there, or its own folder is missing or not writable.
    """
    path = Path(path)
    _refuse_what_is_there(path, overwrite)
    temporary = _temporary(path)
    try:
        with open(temporary, "xb"):
            pass
        temporary.unlink()
    except OSError as error:
        raise _unwritten(path, error, "nothing was done yet") from error
    return path


def _refuse_what_is_there(path: Path, overwrite: bool) -> None:
    try:
        exists = path.exists()
    except OSError as error:  # A name that is too long, for example.
        raise _unwritten(path, error, "nothing was written") from error
    if exists and not overwrite:
        raise OutputError(f"{str(path)!r} exists. Use --overwrite (overwrite=True), or choose another output.")
    if exists and path.is_dir():  # The empty name too, which is that of the folder one is in.
        raise _unwritten(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), "nothing was written")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:12]}.partial")


def _unwritten(path: Path, error: OSError, state: str) -> OutputError:
    return OutputError(
        f"cannot write {str(path)!r}: {error.strerror or error}. Check that the folder exists, is writable and has room; {state}."
    )


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, overwrite: bool = False
) -> Path:
    """Writes ``.safetensors`` with a JSON description in its header, whole or not at all.

    Raises:
        OutputError: As for :func:`write_file`.
        ConfigurationError: Another ending.
    """
    from safetensors.torch import save

    if Path(path).suffix != ".safetensors":
        raise ConfigurationError(f"expected a name that ends in .safetensors, received {os.fspath(path)!r}.")
    return write_file(path, save(dict(tensors), {METADATA: json.dumps(facts)}), overwrite=overwrite)
