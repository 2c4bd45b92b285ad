"""Writes an index as annotation runs are written: finished parts are whole, and what is in no part is done again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from concept_cam.collection.run_writer import RunWriter, check_folder
from concept_cam.core.errors import DataError
from concept_cam.index.storage import FORMAT, INDEX_PART_PATTERN, INFO_FILE, Part, part_bytes, read_index_info

__all__ = ["IndexWriter", "check_index_folder"]

INDEX_PART_BYTES = 256 << 20
"""Features are large: a part is also written when so much is waiting."""


class IndexWriter(RunWriter):
    """One index that is being written; see :class:`concept_cam.collection.run_writer.RunWriter`.

    A folder that holds an index is continued with the same pictures or with others: what was asked of each session stands in ``inputs``.
    """

    info_file, pattern, noun = INFO_FILE, INDEX_PART_PATTERN, "an index"
    versions: Mapping[str, Any] = MappingProxyType({"format": FORMAT})

    def __init__(self, folder: Path, configuration: Mapping[str, Any], facts: Mapping[str, Any], **options: Any) -> None:
        earlier: list[Any] = []
        if (folder / INFO_FILE).is_file():
            earlier = list(read_index_info(folder)["inputs"])
        kept = {name: value for name, value in facts.items() if name not in ("input", "packs")}
        inputs = [*earlier, facts["input"]] if not earlier or earlier[-1] != facts["input"] else earlier
        super().__init__(folder, configuration, {**kept, "inputs": inputs}, **options)

    def read_info(self, folder: Path) -> dict[str, Any]:
        """Reads what was noted of the index that is continued."""
        return read_index_info(folder)

    @property
    def part_bytes(self) -> int:
        """A part is also written when so much is waiting."""
        return INDEX_PART_BYTES

    def encode_part(self, table: pa.Table) -> bytes:
        """Returns a table as the content of a part."""
        return part_bytes(table)

    def read_part(self, part: Path) -> tuple[list[str], int]:
        """Returns the keys of a part's pictures and the number of its entries."""
        try:
            table = Part(part).table
        except DataError as error:  # what annotation runs raise here, so that the part is set aside and done again
            raise OSError(str(error)) from error
        return list(table.column("image_key").unique().to_pylist()), int(table.num_rows)


def check_index_folder(folder: Path, resume: bool) -> None:
    """Refuses a folder that is no place for this index, before any work is done.

    Raises:
        OutputError: It holds another index, or something else.
    """
    check_folder(folder, resume, INFO_FILE, INDEX_PART_PATTERN, "an index")
