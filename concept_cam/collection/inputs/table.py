"""CSV and TSV tables: one column names the picture, the others are carried through to every output."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from concept_cam.collection.inputs.base import (
    PATH_COLUMNS,
    Broken,
    Collection,
    Columns,
    Item,
    Payload,
    Specimen,
    display,
    is_url,
    media_uri,
    missing_column,
    payload_of,
    to_number,
)
from concept_cam.collection.inputs.specimens import mask_in, parse_boxes
from concept_cam.types import DataError, ImageError

__all__ = ["open_table", "path_item", "read_header", "rows_of"]


def read_header(path: str) -> tuple[list[str], str]:
    """Returns a table's column names and its delimiter.

    Raises:
        DataError: The file cannot be read, is empty, or names a column twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            line = stream.readline()
            delimiter = "\t" if Path(path).suffix.lower() in (".tsv", ".tab") else max(",;\t", key=line.count)
            stream.seek(0)
            header = next(csv.reader(stream, delimiter=delimiter), [])
    except OSError as error:
        raise DataError(f"cannot read the table {path!r}: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path!r} is not a table in UTF-8: {error}. Save it as CSV UTF-8.") from error
    if not any(name.strip() for name in header):
        raise DataError(f"the table {path!r} is empty: its first line must name the columns.")
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise DataError(f"the table {path!r} has two columns {double[0]!r}: rename one.")
    return header, delimiter


def rows_of(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields a table's rows with their line numbers; short rows are filled with empty cells, further cells dropped.

    Raises:
        DataError: The file cannot be read.
    """
    header, delimiter = read_header(path)
    csv.field_size_limit(
        min(sys.maxsize, 2**31 - 1)
    )  # a mask in a cell is longer than the 128 KiB that csv allows by default
    try:
        with open(path, encoding="utf-8-sig", newline="", errors="surrogateescape") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            next(reader)
            for cells in reader:
                if any(cells):
                    cells = [display(cell) if not cell.isascii() else cell for cell in cells]
                    yield reader.line_num, dict(zip(header, [*cells, *[""] * (len(header) - len(cells))]))
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read the table {path!r}: {error}.") from error


def open_table(inputs: Sequence[str], columns: Columns, root: str | None = None, **_: Any) -> Collection:
    """The pictures that a column of a CSV or TSV file names; relative paths, of masks too, are looked up beside the table, or under ``root``.

    Rows of one picture that stand together, each with a box or a mask, are one picture with several specimens.

    Raises:
        DataError: A column is missing; the message names those that are there.
    """
    path = inputs[0]
    header, _delimiter = read_header(path)
    name = columns.picture or next((known for known in PATH_COLUMNS if known in header), None)
    if name is None or name not in header:
        raise missing_column(
            f"column {name!r}" if name else "column that names the pictures", f"the table {path!r}", header
        )
    for wanted in (columns.box, columns.mask, columns.px_per_mm):
        if wanted is not None and wanted not in header:
            raise missing_column(f"column {wanted!r}", f"the table {path!r}", header)
    folder = root or os.path.dirname(os.path.abspath(path))

    def items() -> Iterator[Item]:
        for text, group in groupby(rows_of(path), key=lambda entry: entry[1][name]):
            rows = list(group)
            if not text.strip():
                for line, _row in rows:
                    yield Item(
                        f"{os.path.basename(path)}#line{line}",
                        Broken(f"line {line}: the column {name!r} is empty."),
                    )
                continue
            yield path_item(text, [row for _, row in rows], name, columns, folder)

    def count() -> int:
        return sum(1 for _ in groupby(row[name] for _, row in rows_of(path)))

    return Collection("table", display(folder), items, count)


def path_item(
    text: str, rows: Sequence[Mapping[str, str]], name: str, columns: Columns, root: str | None
) -> Item:
    """Makes one picture of the table rows that name it; a row that cannot be used makes the picture's payload say why."""
    payload: Payload
    payload, path = payload_of(text, root)
    # Columns with a meaning of their own stand in the result already.
    own = {name, columns.box, columns.mask}
    carried = [{key: value for key, value in row.items() if key not in own} for row in rows]
    specimens: tuple[Specimen, ...] = ()
    px_per_mm = None
    try:
        if columns.px_per_mm:
            px_per_mm = to_number(rows[0][columns.px_per_mm], f"column {columns.px_per_mm!r}")
        if columns.box or columns.mask:
            specimens = tuple(
                Specimen(box, mask_in(row.get(columns.mask or "", ""), root), values)
                for row, values in zip(rows, carried)
                for box in (parse_boxes(row[columns.box]) if columns.box else [None])
            )
    except ImageError as error:
        payload = Broken(str(error))
    address = media_uri(rows[0], path)
    source = text if is_url(text) else text.replace(os.sep, "/")
    return Item(source, payload, path, address, carried[0], specimens, px_per_mm)
