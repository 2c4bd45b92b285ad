"""Tables in CSV and TSV, read row by row: one reader for every table that people give."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from concept_cam.core.errors import DataError
from concept_cam.core.names import display

__all__ = ["FORMULA_STARTS", "read_header", "rows_of", "unescaped"]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula; exports put an apostrophe before such text."""


def unescaped(text: str) -> str:
    """Takes off the apostrophe that our own tables carry before text that begins like a formula."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text


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
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a mask in a cell is longer than the 128 KiB that csv allows by default
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
