"""What columns of a table mean: the one list of names under which people keep their pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from concept_cam.core.errors import DataError
from concept_cam.core.tables import plain_name

__all__ = [
    "OCCURRENCE_COLUMNS",
    "PICTURE_COLUMNS",
    "check_columns",
    "media_uri",
    "missing_column",
    "occurrence_of",
    "picture_column",
    "pictures_in",
]

PICTURE_COLUMNS = (
    "path", "file", "file_name", "file_path", "image_path", "img_path", "image", "img", "image_url", "photo_url", "accessURI",
    "bestQualityAccessURI", "goodQualityAccessURI", "media_uri", "media_url", "associatedMedia", "identifier", "url", "uri",
)  # fmt: skip
"""Columns that are taken for the picture's path or address where none is named, the first that is there.

Prefixes, underscores and capitals do not count (``ac:accessURI``, ``FileName``). ``image_url`` stands before ``url``, which in an export of
iNaturalist is the page about the observation.
"""

OCCURRENCE_COLUMNS = ("occurrenceID", "materialEntityID", "gbifID", "catalogNumber", "coreid", "uuid", "id")
"""Columns that tell two occurrences in one picture apart, the first that has a value."""

_ADDRESS_COLUMNS = ("media_uri", "accessURI")
"""Columns that are an address of the picture even where the picture is read from another."""

_SEPARATORS = re.compile(r"\s*\|\s*|\s*[;,]\s*(?=[a-z]+://)", re.IGNORECASE)

_BAR = re.compile(r"\s+\|\s+")
"""Between paths: a name may hold a bar, and hardly one with a space on either side."""


def picture_column(header: Sequence[str], also: Sequence[str] = ()) -> str | None:
    """Returns the column of a header that names the pictures: the first of :data:`PICTURE_COLUMNS` (and then of ``also``) that is there."""
    found: dict[str, str] = {}
    for name in header:
        found.setdefault(plain_name(name), name)
    known = (*PICTURE_COLUMNS, *also)
    exact = next((name for name in known if name in header), None)
    plain = next((found[key] for name in known if (key := plain_name(name)) in found), None)
    if exact is None or plain is None:
        return exact or plain
    order = [plain_name(name) for name in known]
    return exact if order.index(plain_name(exact)) <= order.index(plain_name(plain)) else plain


def pictures_in(text: str, column: str, is_file: Callable[[str], bool] = lambda _: False) -> list[str]:
    """Returns the pictures that one cell names: one, or several between bars (``a.jpg | b.jpg``).

    Among addresses, and in ``associatedMedia``, a bar needs no spaces, and a semicolon or comma before an address parts too.

    Args:
        text: The cell.
        column: The name of its column.
        is_file: Tells whether there is a file of a name; asked only of a cell that would be parted otherwise.
    """
    for separators in (_SEPARATORS, _BAR):
        parts = [part for part in separators.split(text.strip()) if part]
        addresses = all("://" in part for part in parts)
        if len(parts) > 1 and (addresses or separators is _BAR or plain_name(column) == "associatedmedia"):
            return list(dict.fromkeys(parts)) if addresses or not is_file(text) else [text]
    return [text]


def occurrence_of(columns: Mapping[str, str]) -> str:
    """Returns what a row says of which occurrence it is; empty where it says nothing."""
    known = {plain_name(name): value for name, value in columns.items() if value}
    return next((known[key] for name in OCCURRENCE_COLUMNS if (key := plain_name(name)) in known), "")


def media_uri(columns: Mapping[str, str], path: str | None = None) -> str | None:
    """Returns the public address of a picture: what the input says it is, else where it is read, else the first column with an address."""
    known: dict[str, str] = {}
    for name, value in columns.items():
        if isinstance(value, str) and value.startswith(("http://", "https://")) and len(pictures_in(value, name)) == 1:
            known.setdefault(plain_name(name), value)
    found = next((known[key] for name in _ADDRESS_COLUMNS if (key := plain_name(name)) in known), None)
    if found is None and path is not None and path.startswith(("http://", "https://")):
        found = path
    return found or next((known[key] for name in PICTURE_COLUMNS if (key := plain_name(name)) in known), None)


def missing_column(wanted: str, where: str, present: Iterable[str], advice: str = "Name one of these with --column.") -> DataError:
    """Returns the error for a table that lacks a column; ``advice`` says what to do."""
    return DataError(f"{where} has no {wanted}. Its columns: {', '.join(present) or 'none'}. {advice}")


def check_columns(named: Mapping[str, str], where: str, present: Iterable[str]) -> None:
    """Refuses columns that a table does not have.

    Args:
        named: Columns by the option that names them.
        where: The table, for the message.
        present: The columns that it has.

    Raises:
        DataError: A column is missing; the message says which option named it.
    """
    names = list(present)
    for option, name in named.items():
        if name not in names:
            raise missing_column(f"column {name!r}", where, names, f"Name one of these with {option}.")
