"""Parquet tables that hold the pictures themselves, encoded or as raw pixels, or their paths.

Read in small batches, so that memory does not grow with the table. Layouts, told apart by the columns:

* encoded bytes: a binary column, or a struct with ``bytes`` as the Hugging Face ``Image`` feature writes it;
* raw pixels: a binary column beside ``resized_size`` = ``[rows, columns]``: uint8, row by row, blue-green-red, as TreeOfLife's downloader
  writes it; ``original_size`` is the size of the upright picture before it was scaled down, and the frame of all coordinates;
* paths or URLs: a text column, of whatever type of text; rows of one picture are entries or specimens, as in a CSV table.

A row that cannot be read is one entry, and so is what a damaged page leaves of its row group.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from concept_cam.collection.inputs.columns import check_columns, media_uri, missing_column, picture_column
from concept_cam.collection.inputs.files import Unreadable, filesystem, unreadable_item, walk
from concept_cam.collection.inputs.items import (
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
    scale_in,
)
from concept_cam.collection.inputs.specimens import mask_in, parse_boxes
from concept_cam.collection.inputs.table import path_items
from concept_cam.core.errors import DataError, ImageError, MissingExtraError, reason_of
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
    root, files, unreadable = container_files(inputs, ".parquet", skip)
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
        yield from (unreadable_item(folder, root) for folder in unreadable)

    def count() -> int | None:
        return sum(_count(pq, file, columns) for file in files) + len(unreadable)

    return Collection("parquet", root, items, count)


def container_files(
    inputs: Sequence[str], suffix: str | tuple[str, ...], skip: Sequence[str] = ()
) -> tuple[str | None, list[str], list[Unreadable]]:
    """Returns the folder that container files are named after, the files (those given, or all under a folder, sorted), and folders that
    cannot be read.
    """
    endings = (suffix,) if isinstance(suffix, str) else suffix
    unreadable: list[Unreadable] = []
    if is_url(inputs[0]):
        found: list[str] = []
        for url in inputs:
            fs, base = filesystem(url)
            try:
                paths = fs.glob(base) if any(sign in base for sign in "*?[") else fs.find(base) if fs.isdir(base) else [base]
            except Exception as error:  # every file system has its own errors
                raise DataError(f"cannot look into {url!r}: {reason_of(error)}") from error
            found += sorted(fs.unstrip_protocol(path) for path in paths if path.lower().endswith(endings))
        return None, found, unreadable
    if len(inputs) == 1 and os.path.isdir(inputs[0]):
        root = os.path.abspath(inputs[0])
        last = {"." + ending.rpartition(".")[2] for ending in endings}
        return root, [path for path in walk(root, last, skip, unreadable.append) if path.lower().endswith(endings)], unreadable
    files = [os.path.abspath(path) for path in inputs]
    return os.path.commonpath([os.path.dirname(path) for path in files]), files, unreadable


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "annotate", "reading Parquet") from error
    return pq


def _open(pq: Any, file: str) -> Any:
    try:
        if not is_url(file) and not os.path.isfile(file):
            raise ImageError("it is no file" if os.path.exists(file) else "it is not there")
        if is_url(file):
            fs, path = filesystem(file)
            return pq.ParquetFile(fs.open(path, "rb"), pre_buffer=False)
        return pq.ParquetFile(file, memory_map=True, pre_buffer=False)
    except Exception as error:  # pyarrow and the file systems raise many kinds
        raise ImageError(f"{file!r} cannot be read as Parquet: {error}. It is damaged or cut short.") from error


_TEXT_TYPES = ("is_string", "is_large_string", "is_string_view")
_BINARY_TYPES = ("is_binary", "is_large_binary", "is_binary_view")
"""Arrow's predicates of the types of text and of bytes: polars and pandas 3 write the large ones and views. Not every pyarrow has them
all."""


def _is_any(kind: Any, predicates: Iterable[str]) -> bool:
    import pyarrow as pa

    while pa.types.is_dictionary(kind):  # pandas writes categories so
        kind = kind.value_type
    return any(getattr(pa.types, name)(kind) for name in predicates if hasattr(pa.types, name))


def _is_picture(kind: Any) -> bool:
    """Tells whether values of an Arrow type can be encoded pictures: bytes, or a struct that holds some."""
    import pyarrow as pa

    return _is_any(kind, _BINARY_TYPES) or (
        pa.types.is_struct(kind) and any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    )


def _picture_column(schema: Any, columns: Columns, file: str) -> str:
    names = list(schema.names)
    check_columns(columns.named, repr(file), names)
    if columns.picture is not None:
        return columns.picture
    binary = [name for name in names if _is_picture(schema.field(name).type)]
    known = next((name for name in BYTES_COLUMNS if name in binary), None)
    if known is not None or len(binary) == 1:
        return known or binary[0]
    text = picture_column([name for name in names if _is_any(schema.field(name).type, _TEXT_TYPES)])
    if text is not None:
        return text
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
            _items,
            picture=picture,
            columns=columns,
            raw=STORED_SIZE in table.schema_arrow.names,
            folder=os.path.dirname(file),
        )
        row = 0
        for group in _grouped(_values(table, picture, file), picture):
            source = f"{name}#{row}"
            if isinstance(group, _Damage):
                which = f"row {row}" if group.rows == 1 else f"row {row} on, {group.rows} rows"
                yield Item(f"{source}...", Broken(f"{file!r} cannot be read from {which}: {group.reason}. It is damaged."), path=file)
                row += group.rows
                continue
            # Whatever a row holds, it is one entry: those after it are read.
            try:
                yield from make(group, source)
            except Exception as error:
                yield Item(source, Broken(f"the row cannot be read: {reason_of(error)}"))
            row += len(group)


@dataclass(frozen=True)
class _Damage:
    """Rows that cannot be read."""

    rows: int
    reason: str


def _values(table: Any, picture: str | None, file: str, columns: list[str] | None = None) -> Iterator[Mapping[str, Any] | _Damage]:
    """Yields a file's rows; a damaged page costs the rest of its row group, a value that cannot be read its row."""
    size = _batch_rows(table.metadata, picture)
    for group in range(table.metadata.num_row_groups):
        rows, read = table.metadata.row_group(group).num_rows, 0
        try:
            for batch in table.iter_batches(batch_size=size, row_groups=[group], columns=columns):
                for values in _plain(batch):
                    read += 1
                    yield values
        except Exception as error:  # a damaged page shows only when it is reached
            if read < rows:
                yield _Damage(rows - read, reason_of(error))


def _plain(batch: Any) -> Iterator[Mapping[str, Any] | _Damage]:
    try:
        yield from batch.to_pylist()
        return
    except Exception as error:  # one value that Python has no form for must not cost the others
        if batch.num_rows == 1:
            yield _Damage(1, reason_of(error))
            return
    for index in range(batch.num_rows):
        yield from _plain(batch.slice(index, 1))


def _grouped(rows: Iterable[Mapping[str, Any] | _Damage], picture: str) -> Iterator[list[Mapping[str, Any]] | _Damage]:
    """Yields the rows that stand together and name one path, across the batches' ends; every other row, and damage, by itself."""
    group: list[Mapping[str, Any]] = []
    current: str | None = None
    for values in rows:
        path = None if isinstance(values, _Damage) else _path(values[picture])
        if group and path != current:
            yield group
            group = []
        if isinstance(values, _Damage):
            yield values
        elif path is None:
            yield [values]
        else:
            group.append(values)
        current = path
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
        if len(schema.names) > 1 and not (columns.box or columns.mask):  # rows of one path are several entries
            return int(table.metadata.num_rows)
        return sum(1 for _ in _grouped(_values(table, None, file, [picture]), picture))


def _batch_rows(metadata: Any, picture: str | None) -> int:
    rows = max(1, metadata.num_rows)
    size = 0
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if picture is not None and chunk.path_in_schema.split(".")[0] == picture:
                size += chunk.total_uncompressed_size
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(1, size / rows))))


def _items(
    rows: Sequence[Mapping[str, Any]],
    source: str,
    *,
    picture: str,
    columns: Columns,
    raw: bool,
    folder: str,
) -> Iterator[Item]:
    """Makes the entries of the rows that name one path, or of the one row that holds a picture."""
    path = _path(rows[0][picture])
    if path is None:
        yield _stored_item(rows[0], source, picture, columns, raw, folder)
        return
    texts = [{**_texts(values, picture), picture: path} for values in rows]
    yield from path_items(path, texts, picture, columns, folder)


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
            px_per_mm = scale_in(texts[columns.px_per_mm], columns.px_per_mm)
        if columns.box or columns.mask:
            boxes = parse_boxes(texts[columns.box]) if columns.box else [None]
            mask = mask_in(texts.get(columns.mask or "", ""), folder)
            specimens = tuple(Specimen(box, mask) for box in boxes)
    except Exception as error:
        payload = Broken(reason_of(error))
    own = {columns.box, columns.mask, STORED_SIZE if raw else None, ORIGINAL_SIZE if raw else None}
    carried = {name: text for name, text in texts.items() if name not in own}
    return Item(
        source,
        payload,
        None,
        media_uri(texts),
        carried,
        specimens,
        px_per_mm,
        _occurrence(value, carried),
    )


def _occurrence(content: Any, columns: Mapping[str, str]) -> str:
    """Tells rows of one uuid apart, by what they hold and say."""
    digest = hashlib.sha256(content if isinstance(content, bytes) else b"")
    digest.update(repr(sorted(columns.items())).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


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
    try:
        rows, columns = (int(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        raise ImageError(f"{name!r} is {str(value)[:80]}: expected two numbers, rows and columns.") from None
    return rows, columns


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
