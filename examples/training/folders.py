"""Folders that are named at the command line, and what is read from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from pickle import UnpicklingError

UNREADABLE = (RuntimeError, LookupError, ValueError, TypeError, EOFError, OSError, UnpicklingError)
"""What reading a file of tensors can end in that holds something else, or is damaged."""


def existing(text: str) -> Path:
    """A folder that is there, as a type for `argparse`.

    Raises:
        ArgumentTypeError: It is not.
    """
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}. Check the path.")
    return path
