"""Files with several pages or frames, of which the first one is read: what is said of them, once for many."""

from __future__ import annotations

__all__ = ["FIRST_PAGE", "FirstPageWarning", "FirstPages"]

FIRST_PAGE = "first frame of an animated or multi-page file"
"""What :attr:`concept_cam.pictures.reading.Picture.notes` holds of such a file."""

SHOWN = 3
"""Most pictures that are named."""


class FirstPageWarning(UserWarning):
    """Of a file with several pages or frames the first one was read.

    Attributes:
        name: The picture, as messages show it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has several pages or frames; only the first one is read. Save the others as pictures of their own.")
        self.name = name


class FirstPages:
    """Counts such pictures, so that a run over many says it once."""

    def __init__(self) -> None:
        self.count = 0
        self._names: list[str] = []

    def add(self, name: str) -> None:
        """Counts a picture; ``name`` is as a message is to show it."""
        self.count += 1
        if len(self._names) < SHOWN:
            self._names.append(name)

    def text(self) -> str:
        """Returns what is to be said; empty where there is nothing."""
        if self.count < 2:
            return str(FirstPageWarning(self._names[0])) if self.count else ""
        return (
            f"{self.count} pictures, such as {', '.join(self._names)}, have several pages or frames; only the first one of each is read. "
            "Save the others as pictures of their own."
        )
