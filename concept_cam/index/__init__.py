"""Features of a collection, kept on disk and queried: encode once, query for ever."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concept_cam.index.index import Hit, Hits, Index

__all__ = ["Hit", "Hits", "Index"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("concept_cam.index.index"), name)
