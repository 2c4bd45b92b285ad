"""Files of tensors, as the training writes them."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from concept_cam.core.errors import DataError, reason_of

__all__ = ["UNREADABLE", "read_tensors", "why"]

UNREADABLE = (RuntimeError, LookupError, ValueError, TypeError, EOFError, OSError, UnpicklingError)
"""What reading a file of tensors can end in that holds something else, or is damaged."""


def why(error: BaseException) -> str:
    """Says why a file of tensors cannot be read; what torch says of a file that is none is about its own options."""
    return "it is no file of tensors." if isinstance(error, UnpicklingError) else reason_of(error)


def read_tensors(file: Path, what: str) -> Any:
    """Reads a file of tensors.

    Args:
        file: The file.
        what: What it should hold, for the message.

    Raises:
        FileNotFoundError: It is not there.
        DataError: It is something else, or damaged.
    """
    try:
        return torch.load(file, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise DataError(f"{file} holds no {what}, or is damaged: {why(error)} Name another file.") from error
