"""Pictures that a run or an index has done already: are they still the ones that it has done?

A run that is continued passes over what it holds, by name. A picture that was replaced under its old name since, or another folder's
picture of the same name, would be passed over too, and the records be taken for its own.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Iterable

from concept_cam.collection.inputs.items import File, Item
from concept_cam.core.names import display

__all__ = ["COMPARED", "Passed"]

COMPARED = 1000
"""Most pictures that are read again, so that a collection that was moved costs no more than seconds; of more, as many are taken evenly."""

_NAMED = 5


class Passed:
    """The pictures that were passed over since they are done; keeps those that may be others now.

    Those are files that were written, moved or copied after the run was begun, and all where the input stands in another folder.

    Args:
        began: When the run was begun, ISO 8601; empty where nobody noted it.
        moved: Whether the input stands in another folder than before.
    """

    def __init__(self, began: str, moved: bool) -> None:
        self._began = _seconds(began)
        self._moved = moved
        self._doubted: dict[str, str] = {}

    def add(self, key: str, item: Item) -> None:
        """Notes a picture.

        Args:
            key: Its ``image_key``.
            item: The entry of the input.
        """
        if isinstance(item.payload, File) and (self._moved or self._touched(item.payload.path)):
            self._doubted[key] = item.payload.path

    def _touched(self, path: str) -> bool:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return False
        # A copy that keeps the old one's date still has a date of its own on most systems.
        return max(found.st_mtime, found.st_ctime) >= self._began

    def finding(self, held: Iterable[tuple[str, str, str]], done: str, noun: str) -> str:
        """Compares them with what is held; returns a sentence on those that are others, empty for none.

        Args:
            held: ``image_key``, ``source`` and SHA-256 of every picture that is held.
            done: What was done with them, such as ``"annotated"``.
            noun: What holds them, such as ``"an annotation run"``.
        """
        if not self._doubted:
            return ""
        known = {key: (source, digest) for key, source, digest in held if key in self._doubted and digest}
        step = max(1, -(-len(known) // COMPARED))
        looked = list(known)[::step]
        others = [known[key][0] for key in looked if _differs(self._doubted[key], known[key][1])]
        if not others:
            return ""
        names = ", ".join(display(name) for name in sorted(others)[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        least = "at least " if step > 1 else ""
        return (
            f"pictures that were passed over, since pictures of their names were {done} before, and that are others: {least}{len(others)} "
            f"({names}{more}). They were replaced or changed since (new metadata count as a change), or lie in another folder under the "
            f"same name. {noun[0].upper()}{noun[1:]} keeps what it holds of the earlier ones: have these {done} into another --output, or "
            "put the old files back."
        )


def _differs(path: str, digest: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() != digest.lower()
    except (OSError, ValueError):
        return False


def _seconds(moment: str) -> float:
    try:
        return datetime.datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return float("inf")
