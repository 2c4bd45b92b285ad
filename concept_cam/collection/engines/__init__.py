"""Engines: where the work of an annotation run is done.

:data:`ENGINES` names them; each is a function that takes pictures, a plan, a localizer and options and yields answers in order.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from concept_cam.core.names import choose

if TYPE_CHECKING:
    from concept_cam.collection.engines.annotator import Engine

__all__ = ["ENGINES", "find_engine"]

ENGINES: dict[str, tuple[str, str]] = {
    "local": (
        "concept_cam.collection.engines.local:run",
        "this machine: reading and measuring in worker processes beside the model",
    ),
    "ray": (
        "concept_cam.collection.engines.ray:run",
        "Ray Data: many machines or processors, each with a model of its own",
    ),
}
"""Engines: name -> (function, one line for people)."""


def find_engine(name: str) -> Engine:
    """Imports an engine.

    Raises:
        ConfigurationError: Unknown name.
    """
    module, _, function = choose(name, ENGINES, "engine")[0].partition(":")
    return cast("Engine", getattr(importlib.import_module(module), function))
