"""Collections of files: a folder, a glob, a list of paths, and the same behind fsspec URLs."""

from __future__ import annotations

import atexit
import contextlib
import glob as globbing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from concept_cam.collection.inputs.columns import media_uri
from concept_cam.collection.inputs.items import (
    Broken,
    Collection,
    Columns,
    File,
    Item,
    Url,
    import_fsspec,
    is_url,
    payload_of,
)
from concept_cam.collection.run_folder import PARTS_FOLDER, RUN_FILE
from concept_cam.core.errors import DataError, reason_of
from concept_cam.core.names import display
from concept_cam.core.tables import encoding_of
from concept_cam.pictures.endings import PICTURE_SUFFIXES
from concept_cam.pictures.folders import Unreadable, visible
from concept_cam.pictures.folders import walk as walk_folders

__all__ = ["Unreadable", "glob_files", "is_run", "open_folder", "open_glob", "open_list", "subfolders", "unreadable_item", "walk"]


def walk(
    root: str, suffixes: Iterable[str], skip: Sequence[str] = (), unreadable: Callable[[Unreadable], None] | None = None
) -> Iterator[str]:
    """Yields the files under a folder whose names end like this, as :func:`concept_cam.pictures.folders.walk` does, but for the folders
    that :func:`subfolders` leaves out.

    Args:
        root: The folder.
        suffixes: Endings in small letters.
        skip: Absolute paths of folders to leave out.
        unreadable: Called for each folder that cannot be looked into, or is gone.
    """
    return walk_folders(root, suffixes, lambda folder, names: subfolders(folder, names, skip), unreadable)


def unreadable_item(error: Unreadable, root: str | None) -> Item:
    """Returns the entry that stands for a folder that cannot be read: what is in it is missing, and the run says so."""
    folder = str(error.filename or root or "")
    name = os.path.relpath(folder, root) if root else folder
    source = f"{display(name.replace(os.sep, '/'))}/#unreadable"
    return Item(source, Broken(f"the folder cannot be read: {error.strerror or error}; what is in it is missing."), path=display(folder))


def subfolders(folder: str, names: Iterable[str], skip: Sequence[str] = ()) -> list[str]:
    """Returns which of a folder's folders belong to a collection, sorted: none that is hidden, in ``skip`` (absolute paths) or a run of
    ours.

    A run that stands beside the pictures holds Parquet parts and perhaps pictures that were made of them, which are no input.
    """
    return [name for name in visible(folder, names) if os.path.abspath(path := os.path.join(folder, name)) not in skip and not is_run(path)]


def is_run(folder: str) -> bool:
    """Tells whether a folder is an annotation run; ``run.json`` alone may be another program's, beside pictures that are wanted."""
    return os.path.isfile(os.path.join(folder, RUN_FILE)) and os.path.isdir(os.path.join(folder, PARTS_FOLDER))


def open_folder(inputs: Sequence[str], columns: Columns, skip: Sequence[str] = (), **_: Any) -> Collection:
    """All pictures under one folder, or under a URL that is one; sources are relative to it."""
    root = inputs[0]
    if is_url(root):
        return _open_url_folder(root)
    absolute = os.path.abspath(root)

    def items() -> Iterator[Item]:
        unreadable: list[Unreadable] = []
        for path in walk(absolute, PICTURE_SUFFIXES, skip, unreadable.append):
            source = display(os.path.relpath(path, absolute).replace(os.sep, "/"))
            yield Item(source, File(path), path=display(path))
        yield from (unreadable_item(error, absolute) for error in unreadable)

    return Collection("folder", display(absolute), items, lambda: sum(1 for _ in walk(absolute, PICTURE_SUFFIXES, skip)))


def _open_url_folder(url: str) -> Collection:
    fs, base = filesystem(url)
    base = base.rstrip("/")

    def paths() -> list[str]:
        try:
            found = fs.find(base)
        except Exception as error:  # every file system has its own errors
            raise DataError(f"cannot look into {url!r}: {reason_of(error)}") from error
        return sorted(path for path in found if os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES)

    def items() -> Iterator[Item]:
        for path in paths():
            address = fs.unstrip_protocol(path)
            yield Item(
                path.removeprefix(base).lstrip("/"),
                Url(address),
                path=address,
                media_uri=media_uri({}, address),
            )

    return Collection("folder", url, items, lambda: len(paths()))


def glob_files(pattern: str) -> list[str]:
    """Returns what a glob (``**`` is recursive) or URL glob matches: sorted absolute paths or URLs of files."""
    if is_url(pattern):
        fs, base = filesystem(pattern)
        return sorted(fs.unstrip_protocol(path) for path in fs.glob(base) if fs.isfile(path))
    return sorted(os.path.abspath(path) for path in globbing.iglob(pattern, recursive=True) if os.path.isfile(path))


def open_glob(inputs: Sequence[str], columns: Columns, skip: Sequence[str] = (), **_: Any) -> Collection:
    """All files that a pattern matches; sources are relative to the folder before the first wildcard."""
    pattern = inputs[0]
    if is_url(pattern):
        return _open_files(glob_files(pattern), None, "glob")
    root = os.path.join(*_before_wildcard(Path(os.path.abspath(pattern)).parts))
    excluded = tuple(folder + os.sep for folder in skip)

    def paths() -> list[str]:
        return [path for path in glob_files(pattern) if not path.startswith(excluded)] if excluded else glob_files(pattern)

    def items() -> Iterator[Item]:
        for path in paths():
            yield Item(display(os.path.relpath(path, root).replace(os.sep, "/")), File(path), path=display(path))
        yield from (unreadable_item(error, root) for error in _unreadable_folders(root, os.path.abspath(pattern), skip))

    return Collection("glob", display(root), items, lambda: len(paths()))


def _unreadable_folders(root: str, pattern: str, skip: Sequence[str]) -> list[Unreadable]:
    """Returns the folders that a pattern looks into and that cannot be read, which ``glob`` itself keeps quiet about."""
    found: list[Unreadable] = []
    depth = None if "**" in pattern else pattern.count(os.sep) - root.count(os.sep) - 1
    for folder, folders, _ in os.walk(root, onerror=found.append):
        level = 0 if folder == root else os.path.relpath(folder, root).count(os.sep) + 1
        folders[:] = [] if depth is not None and level >= depth else subfolders(folder, folders, skip)
    return found


def _before_wildcard(parts: Sequence[str]) -> Iterator[str]:
    for part in parts[:-1]:
        if globbing.has_magic(part):
            return
        yield part


def _open_files(paths: Sequence[str], root: str | None, layout: str) -> Collection:
    def items() -> Iterator[Item]:
        for text in paths:
            payload, path = payload_of(text, root)
            yield Item(display(text), payload, path=path, media_uri=media_uri({}, path))

    return Collection(layout, root, items, lambda: len(paths))


def open_list(
    inputs: Sequence[str],
    columns: Columns,
    root: str | None = None,
    lines: Iterable[str] | None = None,
    **_: Any,
) -> Collection:
    """Paths and URLs, one per line: of a text file, of standard input (``-``), or given one by one; sources are the texts as they stand.

    What comes from standard input is written to a temporary file first: it is read more than once, and may be longer than memory.
    """
    if lines is not None:
        return _open_list_file(_spooled(lines), root or os.getcwd())
    if len(inputs) == 1 and Path(inputs[0]).suffix.lower() in (".txt", ".lst"):
        return _open_list_file(inputs[0], root)
    return _open_files([text for text in inputs if text.strip()], root, "list")


def _spooled(lines: Iterable[str]) -> str:
    """Writes lines to a temporary file that ends with this process; returns its path."""
    descriptor, path = tempfile.mkstemp(suffix=".txt")
    atexit.register(_remove, path)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.writelines(line.rstrip("\r\n") + "\n" for line in lines)
    return path


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _open_list_file(path: str, root: str | None) -> Collection:
    folder = root or os.path.dirname(os.path.abspath(path))

    def texts() -> Iterator[str]:
        try:
            encoding = encoding_of(path)
            with open(path, encoding=encoding, errors="surrogateescape" if encoding == "utf-8-sig" else "replace") as stream:
                for line in stream:
                    if line.strip():
                        yield line.rstrip("\r\n")
        except OSError as error:
            raise DataError(f"cannot read the list {path!r}: {error.strerror or error}.") from error

    def items() -> Iterator[Item]:
        for text in texts():
            payload, absolute = payload_of(text, folder)
            yield Item(display(text), payload, path=absolute, media_uri=media_uri({}, absolute))

    return Collection("list", display(folder), items, lambda: sum(1 for _ in texts()))


def filesystem(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system of a URL and the path in it.

    Raises:
        MissingExtraError: fsspec is not installed.
        DataError: No file system for this kind of URL, or it cannot be reached.
    """
    fsspec = import_fsspec()
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"cannot open {url!r}: {error}") from error
    return fs, path
