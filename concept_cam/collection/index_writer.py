"""Writes an index as annotation runs are written: finished parts are whole, and what is in no part is done again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from concept_cam.collection.run_writer import RunWriter, check_folder, roots_of, write_info
from concept_cam.core.errors import DataError
from concept_cam.core.files import write_file
from concept_cam.index.checking import hash_of
from concept_cam.index.storage import FORMAT, HASHES, INDEX_PART_PATTERN, INDEX_PARTS, INFO_FILE, Part, part_bytes, read_index_info

__all__ = ["IndexWriter", "check_index_folder"]

INDEX_PART_BYTES = 256 << 20
"""Features are large: a part is also written when so much is waiting."""


class IndexWriter(RunWriter):
    """One index that is being written; see :class:`concept_cam.collection.run_writer.RunWriter`.

    A folder that holds an index is continued with the same pictures or with others: what was asked of each session stands in ``inputs``.

    Args:
        folder: Folder of the index.
        configuration: What an index must be of one piece in.
        facts: Further contents of ``index.json``.
        check: Whether the parts of an index that is continued are read and compared with their hashes; one that differs is set aside, so
            that its pictures are encoded again.
        **options: As for the writer of runs.
    """

    info_file, pattern, noun, verb = INFO_FILE, INDEX_PART_PATTERN, "an index", "indexed"
    versions: Mapping[str, Any] = MappingProxyType({"format": FORMAT})

    def __init__(
        self, folder: Path, configuration: Mapping[str, Any], facts: Mapping[str, Any], *, check: bool = False, **options: Any
    ) -> None:
        self._check = check
        self._hashes: dict[str, str] = {}
        self._noted: Mapping[str, str] = {}
        earlier: list[Any] = []
        if (folder / INFO_FILE).is_file():
            earlier = list(read_index_info(folder)["inputs"])
        kept = {name: value for name, value in facts.items() if name not in ("input", "packs")}
        inputs = [*earlier, facts["input"]] if not earlier or earlier[-1] != facts["input"] else earlier
        super().__init__(folder, configuration, {**kept, "inputs": inputs, HASHES: self._hashes}, **options)

    def read_info(self, folder: Path) -> dict[str, Any]:
        """Reads what was noted of the index that is continued."""
        return read_index_info(folder)

    def _continue(self, info: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
        self._noted = info.get(HASHES, {})
        super()._continue(info, configuration)
        kept = {part.name for part in (self.folder / INDEX_PARTS).glob(self.pattern)}
        self._hashes.update({name: known for name, known in self._noted.items() if name in kept})

    @property
    def part_bytes(self) -> int:
        """A part is also written when so much is waiting."""
        return INDEX_PART_BYTES

    def encode_part(self, table: pa.Table) -> bytes:
        """Returns a table as the content of a part."""
        return part_bytes(table)

    def write_part(self, path: Path, payload: bytes) -> None:
        """Writes the content of a part and its hash."""
        # The hash first: a kill between the two leaves a note of what is not there, never a part that nothing is known of.
        self._hashes[path.name] = hashlib.sha256(payload).hexdigest()
        self.info[HASHES] = self._hashes
        write_info(self.folder, self.info, self.info_file)
        write_file(path, payload)

    def read_part(self, part: Path) -> tuple[list[str], int]:
        """Returns the keys of a part's pictures and the number of its entries."""
        if self._check and part.name in self._noted and hash_of(part) != self._noted[part.name]:
            raise OSError(f"{part} does not hold what was written")
        try:
            table = Part(part).table
        except DataError as error:  # what annotation runs raise here, so that the part is set aside and done again
            raise OSError(str(error)) from error
        return list(table.column("image_key").unique().to_pylist()), int(table.num_rows)

    def stood_in(self) -> set[Any]:
        """Returns the folders in which the inputs of earlier sessions stood."""
        return roots_of(self._earlier.get("inputs") or ())

    def read_columns(self, part: Path, names: list[str]) -> list[list[Any]]:
        """Returns some columns of a part."""
        table = Part(part).table
        return [table.column(name).to_pylist() for name in names]


def check_index_folder(folder: Path, resume: bool) -> None:
    """Refuses a folder that is no place for this index, before any work is done.

    Raises:
        OutputError: It holds another index, or something else.
    """
    check_folder(folder, resume, INFO_FILE, INDEX_PART_PATTERN, "an index")
