"""An index as an input: its entries, picture by picture. The pictures themselves are not opened."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from concept_cam.collection.inputs.items import Collection, Columns, Item, Raw
from concept_cam.core.errors import ConfigurationError, ImageError
from concept_cam.core.geometry import Geometry

if TYPE_CHECKING:
    from concept_cam.index.index import Index

__all__ = ["Entries", "IndexEntry", "is_index", "open_index"]

PREFIX = "input_"


@dataclass(frozen=True)
class IndexEntry:
    """One entry of an index.

    Attributes:
        position: Its position in the index.
        geometry: Frames of the crop.
        number: Number of the specimen.
        box: Its box; ``None`` for a whole picture.
        left: Column of the crop in the whole picture.
        top: Row of the crop.
        size: ``(H, W)`` of the whole picture.
        hidden: Run lengths of what may not be read, as JSON.
    """

    position: int
    geometry: Geometry
    number: int
    box: tuple[int, int, int, int] | None
    left: int
    top: int
    size: tuple[int, int]
    hidden: str | None


@dataclass(frozen=True)
class Entries:
    """The entries of one picture, in place of its bytes."""

    sha256: str
    found: tuple[IndexEntry, ...]

    def read(self, *_: Any) -> Raw:
        """Raises an error: the picture is not there, only its features."""
        raise ImageError("an index holds features, not pictures.")


def is_index(given: Sequence[str]) -> bool:
    """Tells whether an input is the folder of an index, or of its shards."""
    if len(given) != 1 or not os.path.isdir(given[0]):
        return False
    try:
        names = os.listdir(given[0])
    except OSError:
        return False
    if "index.json" in names:
        return True
    return any(name.startswith("shard-") and os.path.isfile(os.path.join(given[0], name, "index.json")) for name in names)


def _items(index: Index) -> Iterator[Item]:
    """Yields the pictures in the order of the index; entries of one picture stand together."""
    from concept_cam.index.storage import geometry_of

    position = 0
    for part in index.parts():
        rows = part.table.to_pylist()
        for _, group in groupby(rows, key=lambda row: row["image_key"]):
            own = list(group)
            entries = []
            for row in own:
                geometry = geometry_of(row["geometry"])
                left, top = json.loads(row["crop_xy"]) if row["crop_xy"] else (0, 0)
                box = json.loads(row["specimen_box"]) if row["specimen_box"] else None
                size = json.loads(row["image_size"]) if row["image_size"] else geometry.original
                entries.append(
                    IndexEntry(
                        position,
                        geometry,
                        row["specimen"],
                        None if box is None else (box[0], box[1], box[2], box[3]),
                        left,
                        top,
                        (size[0], size[1]),
                        row["hidden"],
                    )
                )
                position += 1
            first = own[0]
            columns = {name.removeprefix(PREFIX): text for name, text in first.items() if name.startswith(PREFIX) and text is not None}
            yield Item(
                source=first["source"],
                payload=Entries(first["sha256"] or "", tuple(entries)),
                path=first["path"],
                media_uri=first["media_uri"],
                columns=columns,
                px_per_mm=first["px_per_mm"],
                occurrence=first["occurrence"] or "",
            )


def open_index(
    inputs: Sequence[str],
    columns: Columns,
    *,
    root: str | None = None,
    lines: Any = None,
    skip: Sequence[str] = (),
) -> Collection:
    """Opens an index as a collection.

    Raises:
        ConfigurationError: More than one, or a column is asked for.
    """
    if len(inputs) != 1:
        raise ConfigurationError(f"received {len(inputs)} inputs: give one index.")
    from concept_cam.index.index import Index

    index = Index.open(inputs[0])
    return Collection("index", None, lambda: _items(index), lambda: len(index))
