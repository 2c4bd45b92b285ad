"""Worlds: groups of organisms that can be drawn, with their parts and traits known exactly.

What they have in common lies beside this file; each group has a room of its own. Nothing but plain data is imported here: a room, and
torch with it, is imported when its world is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from concept_cam.demo.worlds.family import World

__all__ = ["ROOMS", "WORLDS"]

ROOMS: Final[dict[str, str]] = {
    "fish": "concept_cam.demo.worlds.fish.room",
    "lepidoptera": "concept_cam.demo.worlds.lepidoptera.room",
    "beetle": "concept_cam.demo.worlds.beetle.room",
    "plant": "concept_cam.demo.worlds.plant.room",
}
"""Group, which is also the name of its trait pack -> the module that holds its `WORLD`."""


class _Worlds(Mapping[str, "World"]):
    """The worlds by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> World:
        world: World = import_module(ROOMS[name]).WORLD
        return world

    def __iter__(self) -> Iterator[str]:
        return iter(ROOMS)

    def __len__(self) -> int:
        return len(ROOMS)


WORLDS: Final[Mapping[str, World]] = _Worlds()
"""The worlds by the names of their groups."""
