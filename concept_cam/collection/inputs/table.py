"""CSV and TSV tables: one column names the picture, the others are carried through to every output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from concept_cam.collection.inputs.items import (
    PATH_COLUMNS,
    Broken,
    Collection,
    Columns,
    Item,
    Payload,
    Specimen,
    is_url,
    media_uri,
    missing_column,
    payload_of,
    to_number,
)
from concept_cam.collection.inputs.specimens import mask_in, parse_boxes
from concept_cam.core.errors import ImageError
from concept_cam.core.names import display
from concept_cam.core.tables import read_header, rows_of

__all__ = ["open_table", "path_item"]


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
        raise missing_column(f"column {name!r}" if name else "column that names the pictures", f"the table {path!r}", header)
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


def path_item(text: str, rows: Sequence[Mapping[str, str]], name: str, columns: Columns, root: str | None) -> Item:
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
