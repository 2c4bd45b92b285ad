"""Engines: where the work of an annotation run is done.

:data:`ENGINES` names them; each is a function that takes pictures, a plan, a localizer and options and yields answers in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import choose
from concept_cam.core.registry import Entry

if TYPE_CHECKING:
    from concept_cam.collection.engines.annotator import Engine

__all__ = ["ENGINES", "check_engine", "find_engine"]

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


def check_engine(name: str, ray_address: str | None) -> None:
    """Refuses, before anything is loaded, what the engine cannot do.

    Args:
        name: Of the engine.
        ray_address: A Ray cluster that runs; ``None`` for none.

    Raises:
        ConfigurationError: Unknown name; an address that is blank, as a variable of the shell that is not set leaves it; or one for an
            engine without clusters.
    """
    choose(name, ENGINES, "engine")
    if ray_address is None:
        return
    if not ray_address.strip():
        raise ConfigurationError(
            f"ray_address is {ray_address!r}: expected the address of a Ray cluster, such as 10.0.0.7:6379 or auto; leave it out, and the "
            "engine 'ray' starts one here. Is a variable of the shell not set?"
        )
    if name != "ray":
        raise ConfigurationError(
            f"ray_address is {ray_address!r} and the engine {name!r}, which asks no cluster: choose the engine 'ray', or leave out the "
            "address."
        )
