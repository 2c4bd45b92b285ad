"""Collections of pictures, streamed from wherever they are.

:data:`LAYOUTS` names the layouts; :func:`open_collection` finds the one that an input has. Nothing is read before it is asked for, the
order is always the same, and no layout keeps more than one folder's names or one small batch of rows in memory; only the names that a
pattern or a URL of a folder matches are held, to sort them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

from concept_cam.collection.inputs.columns import PICTURE_COLUMNS
from concept_cam.collection.inputs.entries import is_index
from concept_cam.collection.inputs.files import is_run, subfolders
from concept_cam.collection.inputs.items import Collection, Columns, Item, Specimen, is_url
from concept_cam.collection.inputs.selection import Shard, parse_shard
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.names import choose
from concept_cam.core.registry import Entry
from concept_cam.core.tables import is_table
from concept_cam.pictures.endings import PICTURE_SUFFIXES, is_picture

__all__ = [
    "LAYOUTS",
    "Collection",
    "Columns",
    "Item",
    "Shard",
    "Specimen",
    "find_layout",
    "open_collection",
    "parse_shard",
]

LAYOUTS: dict[str, Entry] = {
    "folder": Entry("concept_cam.collection.inputs.files:open_folder", "all pictures under a folder"),
    "glob": Entry(
        "concept_cam.collection.inputs.files:open_glob",
        "files that a pattern matches; ** is recursive",
    ),
    "list": Entry(
        "concept_cam.collection.inputs.files:open_list",
        "paths or URLs, one per line: - for standard input, a .txt file, or several arguments",
    ),
    "table": Entry(
        "concept_cam.collection.inputs.table:open_table",
        "CSV or TSV with a column of paths or URLs; other columns are carried through",
    ),
    "parquet": Entry(
        "concept_cam.collection.inputs.parquet:open_parquet",
        "Parquet with encoded bytes, raw BGR pixels (TreeOfLife) or paths",
    ),
    "index": Entry("concept_cam.collection.inputs.entries:open_index", "an index of concept-cam: features instead of pictures"),
    "webdataset": Entry("concept_cam.collection.inputs.webdataset:open_webdataset", "tar shards of samples"),
}
"""Input layouts by name."""

_TABLES = ("table", "parquet")
"""Layouts in which every column can be named."""

_SAMPLES = ("webdataset",)
"""Layouts that hold the pictures themselves beside columns."""

_ENDINGS = {".csv": "table", ".tsv": "table", ".tab": "table", ".txt": "list", ".lst": "list", ".parquet": "parquet", ".tar": "webdataset",
            ".tgz": "webdataset", ".gz": "webdataset"}  # fmt: skip


def open_collection(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    layout: str | None = None,
    columns: Columns | None = None,
    root: str | None = None,
    lines: Iterable[str] | None = None,
    skip: Sequence[str] = (),
) -> Collection:
    """Opens a collection.

    Args:
        inputs: A folder, pattern, table, archive or URL; ``"-"`` for a list in ``lines``; or several files of one kind.
        layout: A name of :data:`LAYOUTS`; ``None`` to find out.
        columns: Which columns of a table mean what.
        root: Folder to which relative paths in a list or table refer.
        lines: The lines of standard input.
        skip: Absolute paths of folders to leave out, such as the output.

    Raises:
        DataError: There is nothing there, or a table lacks a column.
        ConfigurationError: Unknown layout, or a column is named and the layout has none.
    """
    given = [os.fspath(inputs)] if isinstance(inputs, (str, os.PathLike)) else [os.fspath(item) for item in inputs]
    if not given:
        raise DataError("no input was given: expected a folder, a pattern, a table, or - for a list on standard input.")
    name = layout or find_layout(given, skip)
    open_ = choose(name, LAYOUTS, "input layout").load()
    columns = columns or Columns()
    _check_named(columns, name, given)
    source: Collection = open_(given, columns, root=root, lines=lines if given == ["-"] else None, skip=tuple(skip))
    return source


def _check_named(columns: Columns, layout: str, given: Sequence[str]) -> None:
    """Refuses columns that nothing would read.

    Raises:
        ConfigurationError: A column is named, and the layout has no such columns.
    """
    for option, column in columns.named.items():
        if layout in _TABLES or (layout in _SAMPLES and option != "--column"):
            continue
        advice = {"--boxes": "give a CSV file of boxes", "--px-per-mm": "give a number"}.get(option, f"leave {option} out")
        raise ConfigurationError(
            f"{option} {column!r} names a column, and the input {given[0]!r} is read as {layout!r}, which has "
            f"{'no column of pictures' if layout in _SAMPLES else 'no columns'}: {advice}, or give a table (.csv, .tsv, .parquet)."
        )


def find_layout(inputs: Sequence[str], skip: Sequence[str] = ()) -> str:
    """Tells which layout an input has, from its name, or from the first file that a folder holds.

    Args:
        inputs: As for :func:`open_collection`, as texts.
        skip: Absolute paths of folders to leave out.

    Raises:
        DataError: There is nothing there, or files of several kinds.
    """
    if len(inputs) > 1:
        kinds = {_by_ending(path) for path in inputs}
        if any(os.path.isdir(path) for path in inputs) or len(kinds) > 1 or "table" in kinds:
            raise DataError(
                f"received {len(inputs)} inputs of several kinds: give one folder, one pattern or one table, or several pictures, "
                "Parquet files or tar shards."
            )
        return kinds.pop() or "list"
    given = inputs[0]
    if is_index(inputs):
        return "index"
    if given == "-":
        return "list"
    if is_url(given):
        return _by_ending(given) or ("glob" if glob.has_magic(given) else "folder")
    if os.path.isdir(given):
        if is_run(given):
            raise DataError(
                f"{given!r} is an annotation run, which holds records and no pictures: give the pictures, or an index of them. To ask more "
                "of them, annotate them with further packs into another --output; 'concept-cam export' and 'concept-cam serve' take runs."
            )
        return _by_content(given, skip)
    if os.path.isfile(given):
        kind = _by_ending(given) or "list"
        # Darwin Core archives call their tables .txt: a first line that names columns tells them from lists of paths.
        return "table" if kind == "list" and not is_picture(given) and is_table(given, PICTURE_COLUMNS) else kind
    if glob.has_magic(given):
        kinds = {_by_ending(path) for path in glob.iglob(given, recursive=True)}
        if not kinds:
            raise DataError(f"the pattern {given!r} matches nothing. Put it in quotes, so that the shell leaves it alone, and check it.")
        return "glob" if kinds & {None, "list"} else kinds.pop() or "glob"
    raise DataError(f"no such input: {given!r}. Expected a folder, a pattern, a .csv, .parquet or .tar file, a URL, or - for a list.")


def _by_ending(path: str) -> str | None:
    return _ENDINGS.get(os.path.splitext(path)[1].lower())


def _by_content(root: str, skip: Sequence[str]) -> str:
    containers = {".parquet": "parquet", ".tar": "webdataset", ".tgz": "webdataset", ".gz": "webdataset"}
    for folder, folders, names in os.walk(root):
        folders[:] = subfolders(folder, folders, skip)
        endings = {os.path.splitext(name)[1].lower() for name in names if not name.startswith(".")}
        if endings & PICTURE_SUFFIXES:
            return "folder"
        for ending, layout in containers.items():
            if ending in endings:
                return layout
    return "folder"
