"""Pictures that were read before, for a run or an index: are they still there, and are they still the same ones?

A picture that was replaced under its old name would be shown with what was found in the old one. Records hold the SHA-256 of the bytes that
they are about; whoever opens a picture once more reads it through here.
"""

from __future__ import annotations

import hashlib
import os

from concept_cam.core.errors import ImageError, OtherPictureError, reason_of
from concept_cam.core.names import counted, display
from concept_cam.pictures.limits import MAX_PIXELS, byte_limit
from concept_cam.pictures.reading import Picture, open_path, read_image

__all__ = ["NOT_SHOWN", "Revisit", "read_again"]

NOT_SHOWN = {
    "changed": "The file is no longer the one that was read: it was replaced or changed, be it in its metadata alone.",
    "gone": "The file could not be read where it was.",
    "archived": "The picture lies in an archive, which is not opened again.",
}
"""Why a picture is not shown again, by short name."""


def read_again(path: str | os.PathLike[str], sha256: str | None, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads a picture that was read before, if it is still the same one.

    Args:
        path: The file.
        sha256: Of the bytes that were read before, hexadecimal; ``None`` or empty where nobody kept it: then nothing is compared.
        max_pixels: Most pixels of the picture.

    Raises:
        OtherPictureError: Its bytes are others now.
        ImageError: It cannot be read, as for :func:`concept_cam.pictures.reading.read_image`.
    """
    if not sha256:
        return read_image(path, max_pixels=max_pixels)
    with open_path(path, byte_limit(max_pixels)) as file:
        try:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ImageError(f"cannot read {os.fspath(path)!r}: {reason_of(error)}.") from error
        if found != sha256.lower():
            raise OtherPictureError(
                f"{os.fspath(path)!r} is not the picture that was read before: its SHA-256 is {found[:12]}..., expected {sha256[:12]}... "
                "Put the old file back, or do again what was done with it."
            )
        return read_image(file, max_pixels=max_pixels)


class Revisit:
    """The pictures of one run or index as they are read again; keeps which are gone and which are others now. Threads may share it.

    Args:
        done: What was done with the pictures, such as ``"annotated"``.
        instead: What is there without them, such as ``"the sheet has empty frames there"``.
        advice: What else to do where they are others than putting the old ones back, such as ``"annotate the collection anew"``.
    """

    def __init__(self, done: str, instead: str, advice: str) -> None:
        self._done, self._instead, self._advice = done, instead, advice
        # Dictionaries, since they keep an order and one step of theirs is whole in every thread.
        self._gone: dict[str, None] = {}
        self._others: dict[str, None] = {}
        self._archived: dict[str, None] = {}

    def leave(self, name: str) -> None:
        """Notes a picture that lies in an archive, which is not read again.

        Args:
            name: Its name for people.
        """
        self._archived[display(name)] = None

    def read(self, name: str, path: str | os.PathLike[str] | None, sha256: str | None, size: tuple[int, int]) -> Picture | None:
        """Reads a picture again; ``None``, and a note of it, where it is gone or another one.

        Args:
            name: Its name for people.
            path: The file; ``None`` where there is none.
            sha256: Of its bytes, where it was kept.
            size: ``(H, W)`` of the upright picture then.
        """
        try:
            picture = None if path is None else read_again(path, sha256)
        except OtherPictureError:
            self._others[display(name)] = None
            return None
        except ImageError:
            picture = None
        if picture is None:
            self._gone[display(name)] = None
        elif picture.size != size:
            self._others[display(name)] = None
            return None
        return picture

    def why(self, name: str) -> str | None:
        """Returns why a picture is not shown, a key of :data:`NOT_SHOWN`; ``None`` where nothing was noted of it.

        Args:
            name: Its name for people.
        """
        noted = {"changed": self._others, "gone": self._gone, "archived": self._archived}
        return next((reason for reason, names in noted.items() if display(name) in names), None)

    def findings(self) -> list[str]:
        """What is to be said of pictures that are gone, are others or lie in archives: a sentence for each, where there are any."""
        said = []
        if self._others:
            said.append(
                f"pictures that were replaced or changed since they were {self._done}: {counted(self._others)}; {self._instead}. New "
                f"metadata count as a change. Put the old files back, or {self._advice}."
            )
        if self._gone:
            said.append(
                f"pictures that cannot be read where they were when they were {self._done}: {counted(self._gone)}; {self._instead}."
            )
        if self._archived:  # Without names: it is so of all that an archive holds, and nothing is wrong with them.
            said.append(f"pictures that lie in archives (tar, Parquet) are not shown: {len(self._archived)}; {self._instead}.")
        return said
