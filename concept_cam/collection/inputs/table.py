"""CSV and TSV tables: one column names the picture, the others are carried through to every output."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from concept_cam.collection.inputs.columns import check_columns, media_uri, missing_column, occurrence_of, picture_column, pictures_in
from concept_cam.collection.inputs.items import Broken, Collection, Columns, Item, Payload, Specimen, is_url, payload_of, scale_in
from concept_cam.collection.inputs.specimens import mask_in, parse_boxes
from concept_cam.core.errors import reason_of
from concept_cam.core.names import display
from concept_cam.core.tables import BadRow, entries_of, read_header, unescaped

__all__ = ["open_table", "path_items"]

Row = Mapping[str, str]


def open_table(inputs: Sequence[str], columns: Columns, root: str | None = None, **_: Any) -> Collection:
    """The pictures that a column of a CSV or TSV file names; relative paths, of masks too, are looked up beside the table, or under
    ``root``.

    Rows of one picture that stand together, each with a box or a mask, are one picture with several specimens. Other rows of one picture
    are entries of their own where they differ: two occurrences may share a photograph. A cell may name several pictures (``u1 | u2``).

    Raises:
        DataError: A column is missing; the message names those that are there.
    """
    path = inputs[0]
    header, _delimiter = read_header(path)
    name = columns.picture or picture_column(header)
    check_columns(columns.named, f"the table {path!r}", header)
    if name is None:
        raise missing_column("column that names the pictures", f"the table {path!r}", header)
    folder = root or os.path.dirname(os.path.abspath(path))
    base = os.path.basename(path)

    def broken(line: int, reason: str) -> Item:
        return Item(f"{base}#line{line}", Broken(reason))

    def items() -> Iterator[Item]:
        for text, group in groupby(entries_of(path), key=lambda entry: _picture(entry[1], name, folder)):
            if text.strip():
                yield from path_items(text, [row for _, row in group if not isinstance(row, BadRow)], name, columns, folder)
                continue
            for line, row in group:
                yield broken(line, row.reason if isinstance(row, BadRow) else f"line {line}: the column {name!r} is empty.")

    def count() -> int:
        names = (_picture(row, name, folder) for _, row in entries_of(path))
        return sum(1 for _ in (groupby(names) if columns.box or columns.mask else names))

    return Collection("table", display(folder), items, count)


def _picture(row: Row | BadRow, name: str, folder: str) -> str:
    """The cell that names the picture, without the apostrophe that our own tables carry, unless there is a file of that very name."""
    if isinstance(row, BadRow):
        return ""
    plain = unescaped(row[name])
    return row[name] if plain != row[name] and os.path.isfile(os.path.join(folder, row[name])) else plain


def path_items(text: str, rows: Sequence[Row], name: str, columns: Columns, root: str | None) -> Iterator[Item]:
    """Makes the entries of table rows that stand together and name the same pictures; a row that cannot be used makes an entry say why."""
    boxed = bool(columns.box or columns.mask)
    for picture in pictures_in(text, name, lambda whole: os.path.isfile(os.path.join(root or "", whole))):
        for group in [list(rows)] if boxed else [[row] for row in _different(rows)]:
            try:
                yield _path_item(picture, group, name, columns, root)
            except Exception as error:
                yield Item(picture.replace(os.sep, "/"), Broken(reason_of(error)), occurrence=_digest(group))


def _different(rows: Iterable[Row]) -> Iterator[Row]:
    seen: set[tuple[tuple[str, str], ...]] = set()
    for row in rows:
        key = tuple(row.items())
        if key not in seen:
            seen.add(key)
            yield row


def _digest(rows: Iterable[Row]) -> str:
    """Returns what tells rows of one picture apart: what they say of the occurrence, else all that they say."""
    found = list(rows)
    if len(found) == 1 and (named := occurrence_of(found[0])):
        return named
    text = "\0".join(f"{key}\1{value}" for row in found for key, value in sorted(row.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _path_item(text: str, rows: Sequence[Row], name: str, columns: Columns, root: str | None) -> Item:
    payload: Payload
    payload, path = payload_of(text, root)
    # Columns with a meaning of their own stand in the result already.
    own = {name, columns.box, columns.mask}
    carried = [{key: value for key, value in row.items() if key not in own} for row in rows]
    specimens: tuple[Specimen, ...] = ()
    px_per_mm = None
    try:
        if columns.px_per_mm:
            px_per_mm = scale_in(rows[0][columns.px_per_mm], columns.px_per_mm)
        if columns.box or columns.mask:
            specimens = tuple(
                Specimen(box, mask_in(row.get(columns.mask or "", ""), root), values)
                for row, values in zip(rows, carried)
                for box in (parse_boxes(row[columns.box]) if columns.box else [None])
            )
    except Exception as error:
        payload = Broken(reason_of(error))
    address = media_uri(rows[0], path)
    source = text if is_url(text) else text.replace(os.sep, "/")
    return Item(source, payload, path, address, carried[0], specimens, px_per_mm, _digest(rows))
