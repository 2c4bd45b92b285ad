"""One kind of entry for every table of names: where a thing is defined, and what it is in one line. Torch-free."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Entry", "described"]


@dataclass(frozen=True)
class Entry:
    """One thing that can be named; what defines it is imported at the first use, so that listing names loads no library.

    Attributes:
        target: ``"module:function"``.
        description: One line for people.
    """

    target: str
    description: str

    def load(self) -> Any:
        """Imports what ``target`` names."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


def described(table: Mapping[str, Entry]) -> list[tuple[str, str]]:
    """Returns names and descriptions in the order of a table."""
    return [(name, entry.description) for name, entry in table.items()]
