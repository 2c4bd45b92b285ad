"""Where what was computed once is kept on disk, between runs."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_folder"]

CACHE_VARIABLE = "CONCEPT_CAM_CACHE"
"""Environment variable that names the cache folder; ``off`` keeps nothing on disk."""


def cache_folder() -> Path | None:
    """Returns the folder of the disk cache, ``None`` when it is switched off."""
    named = os.environ.get(CACHE_VARIABLE, "")
    if named.lower() in ("off", "0", "none"):
        return None
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "concept_cam"
