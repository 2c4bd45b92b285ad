"""Tables of text, read row by row: one reader for every table that people give.

Comma-separated tables are quoted as RFC 4180 says. **Tab-separated ones are not**: GBIF, Darwin Core archives and iNaturalist write a title
such as ``"type`` as it stands, and a reader that takes its quote for the start of a cell swallows the rows up to the next one. (Only where
the header itself is in quotes, as R writes it, are the cells taken to be.)

A quote that opens a cell and is not closed, or is closed rows further on, is an error of *its own line*: see :func:`entries_of`.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concept_cam.core.errors import DataError
from concept_cam.core.names import display

__all__ = [
    "FORMULA_STARTS",
    "BadRow",
    "allow_long_cells",
    "encoding_of",
    "entries_of",
    "escaped",
    "is_table",
    "read_header",
    "rows_of",
    "unescaped",
]

DELIMITERS = ",;\t|"
"""Between cells; the one that the header holds most of is taken."""

LONGEST_CELL = 10_000
"""Most lines that one quoted cell may span: what is longer is a quote that somebody forgot to close."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula; exports put an apostrophe before such text."""


def escaped(value: Any) -> Any:
    """Puts an apostrophe before a text that a spreadsheet would run as a formula.

    Those begin with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return (OWASP, "CSV Injection"). A plain number is none, whatever its
    sign. Text that looks escaped already gets one more, so that :func:`unescaped` gives back every text.
    """
    if not isinstance(value, str) or not value.lstrip("'").startswith(FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def unescaped(text: str) -> str:
    """Takes off the apostrophe that our own tables carry before text that begins like a formula."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA_STARTS) else text


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read as the header says.

    Attributes:
        reason: What is wrong with it, with its line.
    """

    reason: str


def allow_long_cells() -> None:
    """Lets the ``csv`` module read cells of any length: a mask in a cell is longer than the 128 KiB that it allows by default."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def encoding_of(path: str) -> str:
    """Returns the encoding of a text file: UTF-16 where its first two bytes say so, as spreadsheets write "Unicode text", else UTF-8 with
    or without a mark.
    """
    with open(path, "rb") as stream:
        return "utf-16" if stream.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def read_header(path: str) -> tuple[list[str], str]:
    """Returns a table's column names and its delimiter.

    Raises:
        DataError: The file cannot be read, is empty, or names a column twice.
    """
    header, delimiter, _quoted = _head(path)
    return header, delimiter


def is_table(path: str, known: Iterable[str]) -> bool:
    """Tells whether a text file is a table rather than a list: whether its first line is a header with one of the ``known`` names.

    A line without a delimiter is a header only where it is such a name and no file of that name stands beside.
    """
    try:
        header, _, _ = _head(path)
    except DataError:
        return False
    names = {plain_name(name) for name in known}
    if not any(plain_name(name) in names for name in header):
        return False
    return len(header) > 1 or not (Path(path).parent / header[0]).exists()


def plain_name(column: str) -> str:
    """Returns the form in which column names are compared: ``ac:accessURI``, ``accessURI`` and ``access_uri`` are one."""
    return re.sub(r"[\s_.-]", "", column.rpartition(":")[2]).casefold()


def rows_of(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields a table's rows with their line numbers; short rows are filled with empty cells.

    Raises:
        DataError: The file cannot be read, or a row of it; the message names the line.
    """
    for line, row in entries_of(path):
        if isinstance(row, BadRow):
            raise DataError(f"{path!r}, {row.reason}")
        yield line, row


def entries_of(path: str) -> Iterator[tuple[int, dict[str, str] | BadRow]]:
    """Yields a table's rows with their line numbers; a row that cannot be read is a :class:`BadRow`, and those after it are kept.

    Raises:
        DataError: The file cannot be read.
    """
    header, delimiter, quoted = _head(path)
    allow_long_cells()
    width = len(header)
    try:
        encoding = encoding_of(path)
        lenient = "surrogateescape" if encoding == "utf-8-sig" else "replace"
        with open(path, encoding=encoding, newline="", errors=lenient) as stream:
            records = _quoted(stream, delimiter, width) if quoted else _plain(stream, delimiter)
            first = True
            for line, cells in records:
                if first:
                    first = False
                elif isinstance(cells, BadRow):
                    yield line, cells
                elif any(cells):
                    # Empty cells at the end are what spreadsheets leave; cells with a value belong to no column.
                    if any(cells[width:]):
                        yield line, BadRow(f"line {line}: it has {len(cells)} cells, and the header names {width}.")
                        continue
                    cells = [display(cell) if not cell.isascii() else cell for cell in cells]
                    yield line, dict(zip(header, [*cells, *[""] * (width - len(cells))]))
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read the table {path!r}: {error}.") from error


def _head(path: str) -> tuple[list[str], str, bool]:
    """Returns the column names, the delimiter, and whether cells may be in quotes."""
    try:
        if not Path(path).is_file():
            raise DataError(f"cannot read the table {path!r}: it is {'no file' if Path(path).exists() else 'not there'}.")
        with open(path, encoding=encoding_of(path), newline="") as stream:
            line = stream.readline(1 << 20)
            bare = re.sub(r'"[^"]*"', "", line)
            delimiter = "\t" if Path(path).suffix.lower() in (".tsv", ".tab") else max(DELIMITERS, key=bare.count)
            quoted = delimiter != "\t" or _all_quoted(line, delimiter)
            stream.seek(0)
            allow_long_cells()
            records = csv.reader(stream, delimiter=delimiter) if quoted else (cells for _, cells in _plain(stream, delimiter))
            header: list[str] = next(iter(records), [])
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        if isinstance(error, OSError):
            raise DataError(f"cannot read the table {path!r}: {error.strerror or error}.") from error
        raise DataError(f"{path!r} is not a table in UTF-8: {error}. Save it as CSV UTF-8.") from error
    if not any(name.strip() for name in header):
        raise DataError(f"the table {path!r} is empty: its first line must name the columns.")
    while header and not header[-1].strip():
        header.pop()  # a delimiter at the end of the line
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise DataError(f"the table {path!r} has two columns {double[0]!r}: rename one.")
    return header, delimiter, quoted


def _all_quoted(line: str, delimiter: str) -> bool:
    cells = [cell.strip() for cell in line.rstrip("\r\n").split(delimiter)]
    return all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells if cell) and any(cells)


def _plain(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        yield number, line.rstrip("\r\n").split(delimiter)


# --------------------------------------------------------------------------------------------------------------- quotes


def _quoted(lines: Iterable[str], delimiter: str, width: int) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yields the records of a quoted table. A quote that would swallow further rows costs its own line alone."""
    source = enumerate(lines, 1)
    ahead: deque[tuple[int, str]] = deque()

    def following(index: int) -> tuple[int, str] | None:
        while len(ahead) <= index:
            found = next(source, None)
            if found is None:
                return None
            ahead.append(found)
        return ahead[index]

    while (entry := following(0)) is not None:
        number, line = ahead.popleft()
        if '"' not in line:
            yield number, line.rstrip("\r\n").split(delimiter)
            continue
        cells, state = _split(line, delimiter)
        if state == "whole":
            yield number, cells
            continue
        literal = line.rstrip("\r\n").split(delimiter)
        if state == "broken":
            # Text after a closing quote, such as  "Big" fish : the quotes are part of the text where the row then has its cells.
            yield number, literal if len(literal) == width else BadRow(_stray(number))
            continue
        texts, last = [line], 0
        while state == "open" and last < LONGEST_CELL and (entry := following(last)) is not None:
            texts.append(entry[1])
            last += 1
            if '"' in entry[1]:
                state = _closes(entry[1], delimiter)
        if state == "whole":
            cells, state = _split("".join(texts), delimiter)
        if state == "whole" and not any(cells[width:]) and not _swallowed(texts, delimiter, width):
            for _ in range(last):
                ahead.popleft()
            yield number, cells
        else:
            yield number, BadRow(_stray(number))


def _stray(line: int) -> str:
    return f'line {line}: a quote (") opens a cell and is not closed in it. Double it within a quoted cell, or leave it out.'


def _split(text: str, delimiter: str) -> tuple[list[str], str]:
    """Splits one record; the state is ``"whole"``, ``"open"`` (it ends within quotes) or ``"broken"`` (text follows a closing quote)."""
    text = text.rstrip("\r\n")
    cells: list[str] = []
    place = 0
    while True:
        if text.startswith('"', place):
            end = _closing(text, place + 1)
            if end < 0:
                return cells, "open"
            cells.append(text[place + 1 : end].replace('""', '"'))
            place = end + 1
            if place < len(text) and text[place] != delimiter:
                return cells, "broken"
        else:
            end = text.find(delimiter, place)
            end = len(text) if end < 0 else end
            cells.append(text[place:end])
            place = end
        if place >= len(text):
            return cells, "whole"
        place += 1
        if place == len(text):
            return [*cells, ""], "whole"


def _closing(text: str, place: int) -> int:
    """Returns where the quote that ends a cell stands, or -1; doubled ones are part of the cell."""
    while (end := text.find('"', place)) >= 0:
        if not text.startswith('"', end + 1):
            return end
        place = end + 2
    return -1


def _closes(line: str, delimiter: str) -> str:
    """The state after a further line of a cell that is open."""
    return _split('"' + line, delimiter)[1]


def _swallowed(texts: Sequence[str], delimiter: str, width: int) -> bool:
    """Tells whether the lines of one quoted cell are rows by themselves: each has as many cells as the header, and some that look like the
    first's.
    """
    rows = [text.rstrip("\r\n").split(delimiter) for text in texts]
    if any(len(row) != width for row in rows):
        return False
    return all(any(_alike(one, other) for one, other in zip(rows[0], row)) for row in rows[1:])


def _alike(one: str, other: str) -> bool:
    """Whether two cells look like entries of one column: both names of files or addresses, or of one pattern with digits in it."""
    if _FILE.search(one) and _FILE.search(other):
        return True
    shape = _shape(one)
    return "9" in shape and shape == _shape(other)


_FILE = re.compile(r"^[^\s\"].*\.[A-Za-z0-9]{2,4}$|^[a-z][a-z0-9+]*://\S+$")


def _shape(text: str) -> str:
    return re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "a", text))
