"""Folders that are named at the command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def existing(text: str) -> Path:
    """A folder that is there, as a type for `argparse`.

    Raises:
        ArgumentTypeError: It is not.
    """
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}. Check the path.")
    return path
