"""Parquet tables that hold the pictures themselves, encoded or as raw pixels, or their paths.

Read in small batches, so that memory does not grow with the table. Layouts, told apart by the columns:

* encoded bytes: a binary column, or a struct with ``bytes`` as the Hugging Face ``Image`` feature writes it;
* raw pixels: a binary column beside ``resized_size`` = ``[rows, columns]``: uint8, row by row, blue-green-red, as TreeOfLife's downloader
  writes it; ``original_size`` is the size of the upright picture before it was scaled down, and the frame of all coordinates;
* paths or URLs: a text column; rows of one picture that stand together are one picture with several specimens, as in a CSV table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from concept_cam.collection.inputs.files import filesystem, walk
from concept_cam.collection.inputs.items import (
    MEDIA_COLUMNS,
    PATH_COLUMNS,
    UUID_COLUMN,
    Blob,
    Broken,
    Buffer,
    Collection,
    Columns,
    Item,
    Payload,
    Specimen,
    is_url,
    media_uri,
    missing_column,
    to_number,
)
from concept_cam.collection.inputs.specimens import mask_in, parse_boxes
from concept_cam.collection.inputs.table import path_item
from concept_cam.core.errors import DataError, ImageError, MissingExtraError
from concept_cam.core.names import display

__all__ = ["open_parquet"]

BYTES_COLUMNS = ("image", "bytes", "image_bytes", "img", "jpg", "jpeg", "png", "content", "data")
"""Binary columns that are taken for the picture, the first that is there."""

STORED_SIZE, ORIGINAL_SIZE = "resized_size", "original_size"

_BATCH_BYTES, _BATCH_ROWS = 32 << 20, 64
"""Rows are read in batches of about so many bytes, at most so many rows."""


def open_parquet(inputs: Sequence[str], columns: Columns, skip: Sequence[str] = (), **_: Any) -> Collection:
    """One or several Parquet files, or all under a folder; sources are ``file.parquet#row``, or the row's ``uuid`` where there is one.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: A file lacks the column; the message names those it has.
    """
    pq = _pyarrow()
    root, files = container_files(inputs, ".parquet", skip)
    if files:
        # A wrong column name must stop the run before a model is loaded; a damaged file must not stop it at all.
        try:
            schema = _open(pq, files[0]).schema_arrow
        except ImageError:
            schema = None
        if schema is not None:
            _picture_column(schema, columns, files[0])

    def items() -> Iterator[Item]:
        for file in files:
            name = display(os.path.relpath(file, root).replace(os.sep, "/")) if root else file
            yield from _rows(pq, file, name, columns)

    def count() -> int | None:
        return sum(_count(pq, file, columns) for file in files)

    return Collection("parquet", root, items, count)


def container_files(inputs: Sequence[str], suffix: str | tuple[str, ...], skip: Sequence[str] = ()) -> tuple[str | None, list[str]]:
    """Returns the folder that container files are named after, and the files: those given, or all under a folder, sorted."""
    endings = (suffix,) if isinstance(suffix, str) else suffix
    if is_url(inputs[0]):
        found: list[str] = []
        for url in inputs:
            fs, base = filesystem(url)
            paths = fs.glob(base) if any(sign in base for sign in "*?[") else fs.find(base) if fs.isdir(base) else [base]
            found += sorted(fs.unstrip_protocol(path) for path in paths if path.lower().endswith(endings))
        return None, found
    if len(inputs) == 1 and os.path.isdir(inputs[0]):
        root = os.path.abspath(inputs[0])
        last = {"." + ending.rpartition(".")[2] for ending in endings}
        return root, [path for path in walk(root, last, skip) if path.lower().endswith(endings)]
    files = [os.path.abspath(path) for path in inputs]
    return os.path.commonpath([os.path.dirname(path) for path in files]), files


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "annotate", "reading Parquet") from error
    return pq


def _open(pq: Any, file: str) -> Any:
    try:
        if is_url(file):
            fs, path = filesystem(file)
            return pq.ParquetFile(fs.open(path, "rb"), pre_buffer=False)
        return pq.ParquetFile(file, memory_map=True, pre_buffer=False)
    except Exception as error:  # pyarrow and the file systems raise many kinds
        raise ImageError(f"{file!r} cannot be read as Parquet: {error}. It is damaged or cut short.") from error


_TEXT_TYPES = ("is_string", "is_large_string", "is_string_view")
_BINARY_TYPES = ("is_binary", "is_large_binary", "is_binary_view")
"""Arrow's predicates of the types of text and of bytes: polars and pandas 3 write the large ones and views. Not every pyarrow has them all."""


def _is_any(kind: Any, predicates: Iterable[str]) -> bool:
    import pyarrow as pa

    return any(getattr(pa.types, name)(kind) for name in predicates if hasattr(pa.types, name))


def _is_picture(kind: Any) -> bool:
    """Tells whether values of an Arrow type can be encoded pictures: bytes, or a struct that holds some."""
    import pyarrow as pa

    return _is_any(kind, _BINARY_TYPES) or (
        pa.types.is_struct(kind) and any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    )


def _picture_column(schema: Any, columns: Columns, file: str) -> str:
    names = list(schema.names)
    for wanted in (columns.picture, columns.box, columns.mask, columns.px_per_mm):
        if wanted is not None and wanted not in names:
            raise missing_column(f"column {wanted!r}", repr(file), names)
    if columns.picture is not None:
        return columns.picture
    binary = [name for name in names if _is_picture(schema.field(name).type)]
    known = next((name for name in BYTES_COLUMNS if name in binary), None)
    if known is not None or len(binary) == 1:
        return known or binary[0]
    text = [name for name in PATH_COLUMNS if name in names and _is_any(schema.field(name).type, _TEXT_TYPES)]
    if text:
        return text[0]
    raise missing_column("column with pictures (bytes or paths)", repr(file), names)


def _rows(pq: Any, file: str, name: str, columns: Columns) -> Iterator[Item]:
    try:
        table = _open(pq, file)
    except ImageError as error:
        yield Item(name, Broken(str(error)), path=file)
        return
    with table:
        # Another file of the data set that lacks the column is one broken entry, not the end of the run.
        try:
            picture = _picture_column(table.schema_arrow, columns, file)
        except DataError as error:
            yield Item(name, Broken(str(error)), path=file)
            return
        make = partial(
            _item,
            picture=picture,
            columns=columns,
            raw=STORED_SIZE in table.schema_arrow.names,
            folder=os.path.dirname(file),
        )
        row = 0
        try:
            batches = table.iter_batches(batch_size=_batch_rows(table.metadata, picture))
            for group in _grouped(batches, picture):
                yield make(group, f"{name}#{row}")
                row += len(group)
        except Exception as error:  # a damaged page shows only when it is reached
            yield Item(
                f"{name}#{row}...",
                Broken(f"{file!r} cannot be read from row {row} on: {error}. It is damaged."),
                path=file,
            )


def _grouped(batches: Iterable[Any], picture: str) -> Iterator[list[Mapping[str, Any]]]:
    """Yields the rows that stand together and name one path, across the batches' ends; every other row by itself."""
    group: list[Mapping[str, Any]] = []
    current: str | None = None
    try:
        for values in (row for batch in batches for row in batch.to_pylist()):
            path = _path(values[picture])
            if group and path != current:
                yield group
                group = []
            if path is None:
                yield [values]
            else:
                group.append(values)
            current = path
    except Exception:
        # The rows before the damage are good; the picture in hand may lack specimens.
        if group:
            yield group
        raise
    if group:
        yield group


def _path(value: Any) -> str | None:
    """Returns the path or URL that stands in a row's picture column; ``None`` for a picture, and for nothing at all."""
    if isinstance(value, Mapping):  # Hugging Face: bytes, or a path instead
        value = value.get("bytes") or value.get("path")
    return value if isinstance(value, str) and value.strip() else None


def _count(pq: Any, file: str, columns: Columns) -> int:
    """Counts what :func:`_rows` yields, without reading pictures: of a table of paths that column is read, to group its rows."""
    try:
        table = _open(pq, file)
    except ImageError:
        return 1
    with table:
        schema = table.schema_arrow
        try:
            picture = _picture_column(schema, columns, file)
        except DataError:
            return 1
        if not _is_any(schema.field(picture).type, _TEXT_TYPES):
            return int(table.metadata.num_rows)
        try:
            return sum(1 for _ in _grouped(table.iter_batches(columns=[picture]), picture))
        except Exception:  # a damaged page; _rows says so
            return int(table.metadata.num_rows)


def _batch_rows(metadata: Any, picture: str) -> int:
    rows = max(1, metadata.num_rows)
    size = 0
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if chunk.path_in_schema.split(".")[0] == picture:
                size += chunk.total_uncompressed_size
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1, size / rows))))


def _item(
    rows: Sequence[Mapping[str, Any]],
    source: str,
    *,
    picture: str,
    columns: Columns,
    raw: bool,
    folder: str,
) -> Item:
    """Makes one picture of the rows that name its path, or of the one row that holds it."""
    path = _path(rows[0][picture])
    if path is None:
        return _stored_item(rows[0], source, picture, columns, raw, folder)
    texts = [{**_texts(values, picture), picture: path} for values in rows]
    return path_item(path, texts, picture, columns, folder)


def _stored_item(values: Mapping[str, Any], source: str, picture: str, columns: Columns, raw: bool, folder: str) -> Item:
    texts = _texts(values, picture)
    value = values[picture]
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if values.get(UUID_COLUMN):
        source = str(values[UUID_COLUMN])
    payload: Payload
    specimens: tuple[Specimen, ...] = ()
    px_per_mm = None
    try:
        payload = _payload(value, values, picture, raw)
        if columns.px_per_mm:
            px_per_mm = to_number(texts[columns.px_per_mm], f"column {columns.px_per_mm!r}")
        if columns.box or columns.mask:
            boxes = parse_boxes(texts[columns.box]) if columns.box else [None]
            mask = mask_in(texts.get(columns.mask or "", ""), folder)
            specimens = tuple(Specimen(box, mask) for box in boxes)
    except ImageError as error:
        payload = Broken(str(error))
    own = {columns.box, columns.mask, STORED_SIZE if raw else None, ORIGINAL_SIZE if raw else None}
    carried = {name: text for name, text in texts.items() if name not in own}
    return Item(
        source,
        payload,
        None,
        media_uri({key: texts[key] for key in MEDIA_COLUMNS if key in texts}),
        carried,
        specimens,
        px_per_mm,
    )


def _payload(value: Any, values: Mapping[str, Any], picture: str, raw: bool) -> Payload:
    if not isinstance(value, bytes) or not value:
        raise ImageError(f"the column {picture!r} is empty in this row.")
    if not raw:
        return Blob(value)
    return Buffer(
        value,
        _size(values[STORED_SIZE], STORED_SIZE),
        _size(values[ORIGINAL_SIZE], ORIGINAL_SIZE) if values.get(ORIGINAL_SIZE) else None,
    )


def _size(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, Sequence) or len(value) != 2 or None in value:
        raise ImageError(f"{name!r} is {value!r}: expected two numbers, rows and columns.")
    return int(value[0]), int(value[1])


def _texts(values: Mapping[str, Any], picture: str) -> dict[str, str]:
    """Returns a row's other columns as text."""
    return {name: _text(value) for name, value in values.items() if name != picture}


def _text(value: Any) -> str:
    if value is None or isinstance(value, bytes):
        return ""
    if isinstance(value, str):
        return display(value)
    if isinstance(value, (list, dict)):
        import json

        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)
