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
from concept_cam.collection.run_folder import ERRORS_FILE
from concept_cam.core.names import counted, file_of

__all__ = ["COMPARED", "Passed", "none_stands"]

COMPARED = 1000
"""Most pictures that are read again, so that a collection that was moved costs no more than seconds; of more, as many are taken evenly."""


class Passed:
    """The pictures that were passed over since they are done; keeps those that may be others now.

    Those are files that were written, moved or copied after the run was begun, and all where the input stands in another folder.

    Args:
        began: When the run was begun, ISO 8601; empty where nobody noted it.
        moved: Whether the input stands in another folder than before.
        failed: When the latest of the pictures failed that could not be used, in seconds; infinite where none failed.
    """

    def __init__(self, began: str, moved: bool, failed: float) -> None:
        self._began = _seconds(began)
        self._moved = moved
        self._failed = failed
        self._doubted: dict[str, str] = {}

    def add(self, key: str, item: Item) -> None:
        """Notes a picture.

        Args:
            key: Its ``image_key``.
            item: The entry of the input.
        """
        if isinstance(item.payload, File) and (self._moved or _touched(item.payload.path, self._began)):
            self._doubted[key] = item.payload.path

    def __bool__(self) -> bool:
        return bool(self._doubted)

    def findings(self, held: Iterable[tuple[str, str, str]], done: str, noun: str) -> list[str]:
        """Compares them with what is held; returns a sentence on those that are others, and one on those that failed and were changed.

        Args:
            held: ``image_key``, ``source`` and SHA-256 of every picture that is held.
            done: What was done with them, such as ``"annotated"``.
            noun: What holds them, such as ``"an annotation run"``.
        """
        known = {key: (source, digest) for key, source, digest in held if key in self._doubted and digest}
        step = max(1, -(-len(known) // COMPARED))
        looked = list(known)[::step]
        others = [known[key][0] for key in looked if _differs(self._doubted[key], known[key][1])]
        # Done and not held: it failed. What was written in the second of the latest failure may be what failed.
        mended = [path for key, path in self._doubted.items() if key not in known and _touched(path, self._failed + 1.0)]
        said = []
        if mended:
            said.append(
                f"pictures that could not be used and were changed since: {counted(mended)}. They are not tried again as long "
                f"as {ERRORS_FILE} lists them: delete it and resume."
            )
        if not others:
            return said
        least = "at least " if step > 1 else ""
        said.append(
            f"pictures that were passed over, since pictures of their names were {done} before, and that are others: "
            f"{least}{counted(others)}. They were replaced or changed since (new metadata count as a change), or lie in another "
            f"folder under the same name. {noun[0].upper()}{noun[1:]} keeps what it holds of the earlier ones: have these {done} into "
            "another --output, or put the old files back."
        )
        return said


def none_stands(root: str, held: Iterable[tuple[str, str, str]]) -> list[str]:
    """Returns the sources of what is held, where not one of them stands in a folder as it was; of many, as many as are compared.

    Args:
        root: The folder that sources are relative to.
        held: ``image_key``, ``source`` and SHA-256 of every picture that is held.
    """
    known = {source: digest for _, source, digest in held}
    looked = list(known)[:: max(1, -(-len(known) // COMPARED))]
    return [] if any(_stands(os.path.join(root, source), known[source]) for source in looked) else looked


def _stands(shown: str, digest: str | None) -> bool:
    path = file_of(shown)
    return path is not None and not (digest and _differs(str(path), digest))


def _touched(path: str, since: float) -> bool:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    # A copy that keeps the old one's date still has a date of its own on most systems.
    return max(found.st_mtime, found.st_ctime) >= since


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
