"""Which files of a folder are its pictures: one way to go through folders, for collections and for classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

__all__ = ["Unreadable", "visible", "walk"]

Unreadable = OSError
"""Why a folder could not be looked into; its ``filename`` is the folder."""


def visible(folder: str, names: Iterable[str]) -> list[str]:
    """Returns which of a folder's folders are not hidden, sorted."""
    return sorted(name for name in names if not name.startswith("."))


def walk(
    root: str,
    suffixes: Iterable[str],
    folders_of: Callable[[str, Iterable[str]], list[str]] = visible,
    unreadable: Callable[[Unreadable], None] | None = None,
) -> Iterator[str]:
    """Yields the files under a folder whose names end like this, folder by folder in sorted order.

    Hidden files are passed over. A link to a folder elsewhere is followed, once; one that leads into the collection itself, or around it,
    is not: what is there is found at its own place. Only one folder's names are held at a time.

    Args:
        root: The folder.
        suffixes: Endings in small letters.
        folders_of: Chooses which of a folder's folders are entered, and in which order: called with the folder and their names.
        unreadable: Called for each folder that cannot be looked into, or is gone.
    """
    wanted = frozenset(suffixes)
    entered = [os.path.realpath(root)]
    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        folders[:] = [name for name in folders_of(folder, folders) if _is_to_be_entered(os.path.join(folder, name), entered)]
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in wanted:
                yield os.path.join(folder, name)


def _is_to_be_entered(folder: str, entered: list[str]) -> bool:
    """Tells whether a folder is one, or a link to one that is neither within those that were entered nor around the first; notes it."""
    if not os.path.islink(folder):
        return True
    place = os.path.realpath(folder)
    if any(_within(place, known) for known in entered) or _within(entered[0], place):
        return False
    entered.append(place)
    return True


def _within(place: str, folder: str) -> bool:
    return place == folder or place.startswith(folder.rstrip(os.sep) + os.sep)
