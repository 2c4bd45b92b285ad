"""What a localisation method is: plain data, torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from concept_cam.core.registry import Entry

__all__ = ["READING", "Method"]

READING: dict[str, tuple[tuple[Any, ...], str]] = {
    "attention": (("auto",), "takes no other attention"),
    "views": (("auto", "single"), "looks at the picture as it is"),
    "look_again": ((False,), "cannot look again"),
}
"""Settings that say how patch features are read: the values that ask for nothing, and what is said where it is not so."""


@dataclass(frozen=True)
class Method:
    """One way to answer "where is it?".

    Attributes:
        name: Its name, recorded with every result.
        function: ``"module:function"``, imported at the first use; called with a localizer, pictures, concepts and the method, it returns
            one :class:`~concept_cam.core.results.Localizations` per picture.
        description: One line for people.
        source: The paper that defines it.
        extra: Name of the extra that brings the library it needs, or ``None``.
        contrast: Whether contrasts change its maps.
        relu: Whether negative values are dropped at the end.
        takes: What follows the name and a colon, such as ``"PATH"``; empty for most.
        optional: Whether that may be left out.
        argument: The text that followed.
        follows: Which of the settings that say how patch features are read it follows: names in :data:`READING`.
    """

    name: str
    function: str
    description: str
    source: str = ""
    extra: str | None = None
    contrast: bool = True
    relu: bool = False
    takes: str = ""
    optional: bool = False
    argument: str = ""
    follows: tuple[str, ...] = ()

    def load(self) -> Callable[..., Any]:
        """Imports the function."""
        function: Callable[..., Any] = Entry(self.function, self.description).load()
        return function
