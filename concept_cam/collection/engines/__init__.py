"""Engines: where the work of an annotation run is done.

:data:`ENGINES` names them; each is a function that takes pictures, a plan, a localizer and options and yields answers in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from concept_cam.core.names import choose
from concept_cam.core.registry import Entry

if TYPE_CHECKING:
    from concept_cam.collection.engines.annotator import Engine

__all__ = ["ENGINES", "find_engine"]

ENGINES: dict[str, Entry] = {
    "local": Entry(
        "concept_cam.collection.engines.local:run",
        "this machine: reading and measuring in worker processes beside the model",
    ),
    "ray": Entry(
        "concept_cam.collection.engines.ray:run",
        "Ray Data: many machines or processors, each with a model of its own",
    ),
}
"""Engines by name."""


def find_engine(name: str) -> Engine:
    """Imports an engine.

    Raises:
        ConfigurationError: Unknown name.
    """
    engine: Engine = choose(name, ENGINES, "engine").load()
    return engine
