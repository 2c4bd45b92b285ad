"""The parts of an index on disk: Arrow files, mapped into memory. Whatever reads Arrow reads them.

An index is a folder::

    index.json               what it is: format, model, weights, settings, number format, inputs, counts, times, SHA-256 of each part
    parts/part-*.arrow       Arrow IPC files of one record batch each; a file under any other name is unfinished and is not read
    basis.safetensors        axes of the features, where they were brought to fewer dimensions
    errors.csv               pictures that could not be used

A row of a part is one *entry*: a picture, or one specimen of it. See :data:`INDEX_COLUMNS`; the input's other columns follow under
``input_``.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from concept_cam.core.errors import DataError
from concept_cam.core.geometry import Geometry
from concept_cam.index.codec import Codes

__all__ = [
    "INDEX_COLUMNS",
    "FEATURE_COLUMNS",
    "FORMAT",
    "HASHES",
    "INFO_FILE",
    "INDEX_PARTS",
    "INDEX_PART_PATTERN",
    "Part",
    "features_table",
    "geometry_of",
    "index_folders",
    "part_bytes",
]

FORMAT = "1"
"""Raised when a column changes its meaning."""

INFO_FILE = "index.json"
HASHES = "sha256"
"""Key of ``index.json``: name of each part -> SHA-256 of its bytes in hexadecimal digits. Earlier versions did not keep any."""

INDEX_PARTS = "parts"
INDEX_PART_PATTERN = "part-*.arrow"

FEATURE_COLUMNS = ("values", "scales", "norms", "image")
"""Columns that are mapped and never listed; all others describe the entries."""

INDEX_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "image_key": (pa.string(), "Stable id of the picture."),
    "source": (pa.string(), "The picture, as the input names it."),
    "occurrence": (
        pa.string(),
        "What tells it from another entry of the input with the same picture; empty for the only or the first one.",
    ),
    "path": (pa.string(), "Where it was read, if it is a file of its own."),
    "media_uri": (pa.string(), "Its public address, where the input has one."),
    "sha256": (pa.string(), "Of its encoded bytes."),
    "specimen": (pa.int32(), "Number of the specimen in the picture."),
    "specimen_box": (pa.string(), "Its box [x, y, width, height] as JSON, original pixels; null for a whole picture."),
    "crop_xy": (pa.string(), "Where the crop lies in the whole picture, [left, top] as JSON."),
    "image_size": (pa.string(), "[height, width] of the whole upright picture as JSON."),
    "px_per_mm": (pa.float64(), "Scale that the input states."),
    "geometry": (pa.string(), "Frames of the crop as JSON: policy, sizes, scale and offset."),
    "hidden": (pa.string(), "COCO run lengths of the pixels that may not be read, as JSON; null for none."),
    "attention": (pa.string(), "Dense attention strategy that made the features."),
    "views": (pa.string(), "Views of the picture that were averaged."),
}
"""Columns that describe an entry: name -> (type, meaning)."""


def index_folders(path: Path) -> list[Path]:
    """Returns the folder of an index, or those of its shards; none where there is no index."""
    return [path] if (path / INFO_FILE).is_file() else sorted(file.parent for file in path.glob(f"shard-*/{INFO_FILE}"))


def read_index_info(folder: Path) -> dict[str, Any]:
    """Reads ``index.json``.

    Raises:
        DataError: It is damaged, or of another format.
    """
    path = folder / INFO_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else None
        raise DataError(f"{path} describes an index of format {found!r}, this version reads {FORMAT!r}.")
    shape = {"configuration": dict, "counts": dict, "inputs": list, "sessions": list}
    wrong = next((name for name, kind in shape.items() if not isinstance(info.get(name), kind)), None)
    inner = info["configuration"] if wrong is None else {}
    if wrong is not None or not {"model", "weights_hash", "settings", "codec"} <= set(inner):
        raise DataError(f"{path}: {wrong or 'configuration'!r} is not what 'concept-cam index' writes.")
    hashes = info.get(HASHES, {})
    if not isinstance(hashes, dict) or not all(isinstance(one, str) for one in hashes.values()):
        raise DataError(f"{path}: {HASHES!r} is not what 'concept-cam index' writes: expected a hash for the name of each part.")
    return info


def geometry_of(text: str) -> Geometry:
    """Reads the frames of a crop."""
    found = json.loads(text)
    pair = {name: tuple(found[name]) for name in ("original_size", "model_size", "grid_size", "scale_yx", "offset_yx")}
    return Geometry(found["policy"], pair["original_size"], pair["model_size"], pair["grid_size"], pair["scale_yx"], pair["offset_yx"])


def features_table(rows: list[dict[str, Any]], codes: list[Codes], images: np.ndarray) -> pa.Table:
    """Makes the table of some entries.

    Args:
        rows: What describes each, by :data:`INDEX_COLUMNS`; other names must begin with ``input_``.
        codes: The codes of each entry's patches, row by row of its grid.
        images: float32 [N, D], their image embeddings.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in INDEX_COLUMNS)
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, (kind, _) in INDEX_COLUMNS.items()}
    columns |= {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    counts = [len(code.norms) for code in codes]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    values = np.concatenate([code.values for code in codes])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    columns["values"] = pa.LargeListArray.from_arrays(offsets, vectors)
    scales = [np.zeros(0, np.float32) if code.scales is None else code.scales for code in codes]
    starts = pa.array(np.concatenate([[0], np.cumsum([len(one) for one in scales])]).astype(np.int64))
    columns["scales"] = pa.LargeListArray.from_arrays(starts, pa.array(np.concatenate(scales)))
    columns["norms"] = pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate([code.norms for code in codes])))
    columns["image"] = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(images, np.float32).ravel()), images.shape[1])
    return pa.table(columns)


def part_bytes(table: pa.Table) -> bytes:
    """Returns a table as the content of a part: one record batch, so that every column is one piece of memory."""
    whole = table.combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, whole.schema) as writer:
        for batch in whole.to_batches():
            writer.write_batch(batch)
    return bytes(sink.getvalue())


class Part:
    """One part, mapped into memory: nothing is read before it is used, and threads and processes share the pages.

    Args:
        path: The file.

    Raises:
        DataError: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if reader.num_record_batches != 1:
                raise DataError(f"{path} holds {reader.num_record_batches} record batches, expected one.")
            self._batch = reader.get_batch(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}. Index again with --resume: what it held is done again.") from error

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def validate(self) -> None:
        """Reads all of it and checks that it is of one piece; what its numbers are cannot be told.

        Raises:
            DataError: It is not.
        """
        try:
            self._batch.validate(full=True)
        except pa.ArrowException as error:
            raise DataError(f"{self.path} is damaged: {error}.") from error

    @property
    def table(self) -> pa.Table:
        """The columns that describe the entries."""
        kept = [name for name in self._batch.schema.names if name not in FEATURE_COLUMNS]
        return pa.table({name: self._batch.column(name) for name in kept})

    def row(self, entry: int) -> dict[str, Any]:
        """Returns what describes one entry."""
        return {name: self._batch.column(name)[entry].as_py() for name in self._batch.schema.names if name not in FEATURE_COLUMNS}

    @cached_property
    def first(self) -> np.ndarray:
        """int64 [N + 1]: the first patch of each entry."""
        return np.asarray(self._batch.column("norms").offsets)

    @cached_property
    def values(self) -> np.ndarray:
        """float16 or int8 [P, K]: the codes of all patches."""
        vectors = self._batch.column("values").values
        return np.asarray(vectors.values.to_numpy(zero_copy_only=True)).reshape(len(vectors), -1)

    @cached_property
    def scales(self) -> np.ndarray | None:
        """float32 [P], or ``None`` where the codes have none."""
        found = self._batch.column("scales").values
        return np.asarray(found.to_numpy(zero_copy_only=True)) if len(found) else None

    @cached_property
    def norms(self) -> np.ndarray:
        """float32 [P]: lengths of the patch features; zero where the model did not look."""
        return np.asarray(self._batch.column("norms").values.to_numpy(zero_copy_only=True))

    @cached_property
    def blind(self) -> np.ndarray:
        """int64: the patches at which the model did not look."""
        return np.flatnonzero(self.norms == 0)

    @cached_property
    def images(self) -> np.ndarray:
        """float32 [N, D]: image embeddings."""
        found = self._batch.column("image")
        return np.asarray(found.values.to_numpy(zero_copy_only=True)).reshape(len(found), -1)

    def codes(self, entry: int) -> Codes:
        """Returns the codes of one entry."""
        which = slice(int(self.first[entry]), int(self.first[entry + 1]))
        return Codes(self.values[which], None if self.scales is None else self.scales[which], self.norms[which])
