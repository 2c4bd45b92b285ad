"""Writing files so that nothing half-written is ever seen and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_cam.core.errors import ConfigurationError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METADATA", "make_directory", "write_file", "write_tensors"]

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
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"cannot write {str(path)!r}: {error.strerror or error}. Check that the folder exists, is writable and has room; "
            "files already written are complete."
        ) from error
    return path


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
