"""Writes an annotation run so that it can be killed at any moment: finished parts are whole, and what is in no part is done again.

A part is written under a temporary name and renamed; only parts count as done. A picture that could not be read is a line of
``errors.csv``, which counts as done too. The order of the two is the only bookkeeping there is: nothing else has to be kept in step.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import math
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from concept_cam.collection.engines.annotator import Answers
from concept_cam.collection.others import none_stands
from concept_cam.collection.reading import SPECIMEN_PREFIX
from concept_cam.collection.run_folder import DTYPE_FILE
from concept_cam.collection.runs import ERROR_COLUMNS, ERRORS_FILE, PART_PATTERN, PARTS_FOLDER, RUN_FILE, read_errors, read_run_info
from concept_cam.collection.schema import RUN_SCHEMA_VERSION, image_key
from concept_cam.core.errors import DataError, OutputError, one_line
from concept_cam.core.files import make_directory, write_file
from concept_cam.core.names import counted, some_of
from concept_cam.core.tables import escaped

__all__ = [
    "ERROR_COLUMNS",
    "DoneKeys",
    "RunWriter",
    "differences",
    "errors_text",
    "named_as_before",
    "now",
    "read_run_info",
    "roots_of",
    "write_info",
]

RUN_LOCK = ".lock"

LATER_KEYS = frozenset({"input.root"})
"""Parts of the configuration that earlier versions did not write: a run without them can be continued and merged all the same."""

ONCE_FIXED = {"refine": "none", "look_again": False}
"""Parts of the configuration that earlier versions did not write either, since there was no choice."""

RUN_PART_BYTES = 32 << 20
"""A part is also written when so much is waiting, so that memory stays flat whatever a picture's records hold."""

PART_SECONDS = 60.0
"""A part is written after so much time at the latest: what a kill can cost."""


def now() -> str:
    """Returns the time, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class DoneKeys:
    """The pictures that are dealt with: 8 bytes each, and a set of the latest ones."""

    LATEST = 1 << 16
    """Least size at which the set is sorted in; it may grow to an eighth of the rest, so that sorting stays cheap."""

    def __init__(self) -> None:
        self._old = np.zeros(0, dtype=np.uint64)
        self._new: set[int] = set()

    def load(self, keys: Iterator[str]) -> None:
        """Adds many keys at once."""
        found = np.fromiter((int(key[:16], 16) for key in keys), dtype=np.uint64)
        self._old = np.union1d(self._old, found)

    def add(self, key: str) -> bool:
        """Adds a key; False when it was there."""
        number = int(key[:16], 16)
        position = int(np.searchsorted(self._old, np.uint64(number)))
        if (position < len(self._old) and int(self._old[position]) == number) or number in self._new:
            return False
        self._new.add(number)
        if len(self._new) >= max(self.LATEST, len(self._old) // 8):
            latest = np.fromiter(self._new, dtype=np.uint64, count=len(self._new))
            self._old, self._new = np.union1d(self._old, latest), set()
        return True

    def __len__(self) -> int:
        return len(self._old) + len(self._new)


class RunWriter:
    """One run folder that is being written.

    Args:
        folder: The run's folder; made when it does not exist.
        configuration: What decides the results; must equal that of a run that is continued.
        facts: Further contents of ``run.json``.
        resume: Whether a run that is there is continued.
        part_pictures: Pictures of a part.

    Raises:
        OutputError: The folder holds something else, another run is being written in it, or it cannot be written.
        DataError: The run that is there has another configuration; the message names what differs.
    """

    info_file, pattern, noun, verb = RUN_FILE, PART_PATTERN, "an annotation run", "annotated"
    versions: Mapping[str, Any] = MappingProxyType({"schema_version": RUN_SCHEMA_VERSION})

    def __init__(
        self,
        folder: Path,
        configuration: Mapping[str, Any],
        facts: Mapping[str, Any],
        *,
        resume: bool,
        part_pictures: int = 500,
    ) -> None:
        self.folder = folder
        self.done = DoneKeys()
        self.counts = {"pictures": 0, "records": 0, "errors": 0, "duplicates": 0}
        self._part_pictures = part_pictures
        self._tables: list[pa.Table] = []
        self._waiting = self._bytes = 0
        self._last = time.monotonic()
        check_folder(folder, resume, self.info_file, self.pattern, self.noun)
        make_directory(folder / PARTS_FOLDER)
        self._lock: FileLock | None = _lock(folder)
        self._number = 0
        self._known_errors: set[tuple[str, str]] = set()
        self.set_aside: list[Path] = []
        self.failed = math.inf
        """When the latest of the failures was noted that earlier sessions had, in seconds; infinite where none had any."""
        info = self.read_info(folder) if (folder / self.info_file).is_file() else None
        if info is not None:
            try:
                self._continue(info, configuration)
                self._refuse_another_folder(info, facts)
            except BaseException:
                self.release()
                raise
        earlier = self._earlier = info or {}
        self.info: dict[str, Any] = {
            **facts,
            **self.versions,
            "configuration": json.loads(json.dumps(dict(configuration))),
            "started": earlier.get("started") or now(),
            "finished": None,
            "counts": dict(self.counts),
            "sessions": [*earlier.get("sessions", []), _session()],
        }
        write_info(folder, self.info, self.info_file)

    def _continue(self, info: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
        found = differences(info.get("configuration", {}), json.loads(json.dumps(dict(configuration))))
        if found:
            # The folder can differ without an option: by default it is the current one, or the list's own.
            moved = any(line.startswith("input.root:") for line in found)
            raise DataError(
                f"{str(self.folder)!r} holds {self.noun} with another configuration; all of it must be made in one way. Different:\n"
                + "\n".join(f"  {line}" for line in found)
                + f"\nUse the same options{' (--root names the folder)' if moved else ''}, or another --output."
            )
        parts = self.folder / PARTS_FOLDER
        for stale in parts.glob(".*.partial"):
            stale.unlink(missing_ok=True)
        for part in sorted(parts.glob(self.pattern)):
            with contextlib.suppress(ValueError):
                self._number = max(self._number, int(part.stem.removeprefix("part-")))
            try:
                keys, rows = self.read_part(part)
            except (pa.ArrowException, OSError):
                # A power cut can leave a renamed file without its content: what it held is done again.
                self.set_aside.append(part.replace(part.with_name(f"damaged-{part.name}")))
                continue
            self.done.load(iter(keys))
            self.counts["pictures"] += len(keys)
            self.counts["records"] += rows
        errors = read_errors(self.folder)
        noted, text = self.folder / ERRORS_FILE, errors_text(errors).encode("utf-8")
        if errors:
            self.failed = noted.stat().st_mtime
        if not noted.is_file() or noted.read_bytes() != text:  # its date says when the latest of them failed
            write_file(noted, text, overwrite=True)
        self.counts["errors"] = len(errors)
        # A picture of which one specimen failed is done when its other records are in a part, not before.
        self._known_errors = {(error["source"], error["reason"]) for error in errors}
        self.done.load(image_key(source) for source, reason in self._known_errors if not reason.startswith(SPECIMEN_PREFIX))

    def _refuse_another_folder(self, info: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Refuses a folder that goes by the relative name of the one before and is another: both would be mixed in one run.

        A collection that was moved holds what was done of it, and may have lost some.

        Raises:
            DataError: Nothing that the run holds stands in the folder.
        """
        given = facts.get("input")
        if not isinstance(given, Mapping) or given.get("layout") not in ("folder", "glob"):  # where sources are files beneath the root
            return
        root, before = given.get("root"), roots_of([info.get("input")]) - {None}
        if root is None or not before or root in before or not (gone := none_stands(str(root), self.held())):
            return
        raise DataError(
            f"{str(self.folder)!r} holds {self.noun} of pictures in {some_of(sorted(before))}, and {str(root)!r} holds none of them as "
            f"they were: {counted(gone)}. Pictures of both would be mixed. Go on in the folder of before, or choose another --output."
        )

    # ------------------------------------------------------------------------------------------------------ writing

    def add(self, answers: Answers) -> None:
        """Takes answers; a part is written when it is time.

        Raises:
            OutputError: A file cannot be written; finished parts are valid.
        """
        errors = [
            {"source": picture.source, "path": picture.path or "", "reason": reason}
            for picture in answers.pictures
            for reason in picture.errors
            if (picture.source, reason) not in self._known_errors
        ]
        if errors:
            self._append_errors(errors)
        good = sum(1 for picture in answers.pictures if picture.rows)
        if good:
            self._tables.append(answers.table)
            self._waiting += good
            self._bytes += answers.table.nbytes
        if (
            self._waiting >= self._part_pictures
            or self._bytes >= self.part_bytes
            or (self._waiting and time.monotonic() - self._last > PART_SECONDS)
        ):
            self.flush()

    def _append_errors(self, errors: list[dict[str, str]]) -> None:
        path = self.folder / ERRORS_FILE
        try:
            fresh = not path.exists()
            with open(path, "a", encoding="utf-8", newline="") as stream:
                stream.write(errors_text(errors, header=fresh))
        except OSError as error:
            raise OutputError(
                f"cannot write {str(path)!r}: {error.strerror or error}. Finished parts are complete; continue with --resume."
            ) from error
        self.counts["errors"] += len(errors)

    def flush(self) -> None:
        """Writes what is waiting as a part.

        Raises:
            OutputError: It cannot be written; finished parts are valid.
        """
        if not self._tables:
            return
        table = pa.concat_tables(self._tables, promote_options="default")
        path = self.folder / PARTS_FOLDER / self.pattern.replace("*", f"{self._number + 1:06d}")
        try:
            self.write_part(path, self.encode_part(table))
        except OutputError as error:
            raise OutputError(f"{error} Make room and continue the run with --resume.") from error
        self._number += 1
        self.counts["pictures"] += self._waiting
        self.counts["records"] += table.num_rows
        self._tables, self._waiting, self._bytes, self._last = [], 0, 0, time.monotonic()

    @property
    def part_bytes(self) -> int:
        """A part is also written when so much is waiting."""
        return RUN_PART_BYTES

    def read_info(self, folder: Path) -> dict[str, Any]:
        """Reads what was noted of the run that is continued."""
        return read_run_info(folder)

    def encode_part(self, table: pa.Table) -> bytes:
        """Returns a table as the content of a part."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()

    def write_part(self, path: Path, payload: bytes) -> None:
        """Writes the content of a part, whole or not at all."""
        write_file(path, payload)

    def read_part(self, part: Path) -> tuple[list[str], int]:
        """Returns the keys of a part's pictures and the number of its rows."""
        return list(pq.read_table(part, columns=["image_key"]).column(0).unique().to_pylist()), int(pq.read_metadata(part).num_rows)

    @property
    def begun(self) -> str:
        """When the run was begun, ISO 8601; empty where nothing was there before."""
        return str(self._earlier.get("started") or "")

    def stood_in(self) -> set[Any]:
        """Returns the folders in which earlier inputs of the run stood, where that was noted."""
        return roots_of([self._earlier.get("input")])

    def held(self) -> Iterator[tuple[str, str, str]]:
        """Yields ``image_key``, ``source`` and SHA-256 of the pictures of all parts, a picture once for each of its records."""
        for part in sorted((self.folder / PARTS_FOLDER).glob(self.pattern)):
            yield from zip(*self.read_columns(part, ["image_key", "source", "sha256"]))

    def read_columns(self, part: Path, names: list[str]) -> list[list[Any]]:
        """Returns some columns of a part."""
        table = pq.read_table(part, columns=names)
        return [table.column(name).to_pylist() for name in names]

    def expect(self, pictures: int) -> None:
        """Notes how many pictures there are to do, so that whoever opens the run before its end, or after a kill, knows what is lacking.

        Raises:
            OutputError: It cannot be written.
        """
        self.info["expected"] = pictures
        write_info(self.folder, self.info, self.info_file)

    def close(self, *, finished: bool, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Writes what is left and the run's final ``run.json``; returns its contents.

        Args:
            finished: Whether all pictures are done.
            facts: Facts that are known only now.
        """
        self.flush()
        self.info |= dict(facts or {})
        self.info["counts"] = dict(self.counts)
        self.info["sessions"][-1]["ended"] = now()
        self.info["finished"] = now() if finished else None
        if finished:
            self.info.pop("expected", None)  # now it is known what there was
        write_info(self.folder, self.info, self.info_file)
        self.release()
        return self.info

    def release(self) -> None:
        """Lets another process write the run."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def check_folder(
    folder: Path, resume: bool, info_file: str = RUN_FILE, pattern: str = PART_PATTERN, noun: str = "an annotation run"
) -> None:
    """Refuses a folder that is no place for this run, before any work is done.

    Raises:
        OutputError: It holds another run, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{str(folder)!r} is a file, expected the run's folder. Choose another --output.")
    if (folder / info_file).is_file():
        if not resume:
            raise OutputError(f"{str(folder)!r} holds {noun}. Continue it with --resume (resume=True), or choose another --output.")
        return
    strange = (
        [entry for entry in sorted(os.listdir(folder)) if not entry.startswith((".", "shard-")) and entry not in (PARTS_FOLDER, DTYPE_FILE)]
        if folder.is_dir()
        else []
    )
    if strange or any((folder / PARTS_FOLDER).glob(pattern)):
        raise OutputError(
            f"{str(folder)!r} is not empty and is not {noun} ({info_file} is missing): it has {some_of(strange, 3) or 'parts'}. "
            "Choose another --output."
        )


def _lock(folder: Path) -> FileLock | None:
    """Keeps two processes from writing one run, on every system; ends with the process, however that ends."""
    lock = FileLock(folder / RUN_LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(f"another process is writing the run in {str(folder)!r}. Wait for it, or choose another --output.") from None
    except (OSError, NotImplementedError):  # file systems without locks
        return None
    return lock


def roots_of(inputs: Iterable[Any]) -> set[Any]:
    """Returns the folders in which inputs stood, of those that note it."""
    return {given["root"] for given in inputs if isinstance(given, Mapping) and "root" in given}


def _session() -> dict[str, Any]:
    return {
        "started": now(),
        "ended": None,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "command": sys.argv,
        "python": sys.version.split()[0],
    }


# ------------------------------------------------------------------------------------------------------------ small files


def write_info(folder: Path, info: Mapping[str, Any], info_file: str = RUN_FILE) -> None:
    """Writes ``run.json``, whole or not at all."""
    text = json.dumps(info, ensure_ascii=False, indent=1, default=str)
    write_file(folder / info_file, text.encode("utf-8", "backslashreplace"), overwrite=True)


def errors_text(errors: list[dict[str, str]], *, header: bool = True) -> str:
    """Returns errors as CSV; text that a spreadsheet would run as a formula has an apostrophe in front, as in exports."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ERROR_COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    finished = ({**error, "reason": one_line(error["reason"])} for error in errors)
    writer.writerows({name: escaped(value) for name, value in error.items()} for error in finished)
    return stream.getvalue()


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Names what differs between two configurations, ``name: old value -> new value``.

    What runs of earlier versions did not note (:data:`LATER_KEYS`) counts only where both have it; where they had no choice
    (:data:`ONCE_FIXED`) they count as what they did.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        paths = {key: f"{name}.{key}" if name else str(key) for key in [*old, *new]}
        return [
            line
            for key, path in paths.items()
            if path not in LATER_KEYS or (key in old and key in new)
            for line in differences(old.get(key, ONCE_FIXED.get(path)), new.get(key, ONCE_FIXED.get(path)), path)
        ]
    return [] if old == new else [f"{name}: {_short(old)} -> {_short(new)}"]


def named_as_before(earlier: Mapping[str, Any], configuration: Mapping[str, Any], root: str | None, folder: str = "") -> dict[str, Any]:
    """Returns a configuration whose input is written as that of an earlier run of the same pictures: ``photos`` may be ``/data/photos``.

    Args:
        earlier: Contents of its ``run.json``; empty for none.
        configuration: What is named now.
        root: The folder in which its pictures stand; sources are relative to it.
        folder: The folder that relative paths of ``configuration`` are seen from; empty where nobody knows.
    """
    before, now_ = ((facts.get("configuration") or {}).get("input") for facts in (earlier, {"configuration": configuration}))
    if root is None or roots_of([earlier.get("input")]) != {root} or not isinstance(before, Mapping) or not isinstance(now_, Mapping):
        return dict(configuration)
    names, others = before.get("given"), now_.get("given")
    if not isinstance(names, list) or not isinstance(others, list) or len(names) != len(others):
        return dict(configuration)
    seen = [os.path.join(folder, name) if folder else name for name in others]
    # A folder of pictures is its own root: that is the same, however it was named.
    own_root = before.get("layout") == now_.get("layout") == "folder"
    alike = own_root or all(_one_path(str(name), os.path.normpath(other)) for name, other in zip(names, seen))
    return {**configuration, "input": {**now_, "given": names}} if alike else dict(configuration)


def _one_path(one: str, other: str) -> bool:
    """Tells whether two paths to the same folder, of which one may be relative to a folder that is not known, can be the same."""
    if os.path.isabs(one) == os.path.isabs(other):
        return one == other
    long, short = (Path(path).parts for path in sorted((one, other), key=os.path.isabs, reverse=True))
    return ".." not in short and (not short or long[-len(short) :] == short)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
