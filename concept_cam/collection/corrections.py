"""What people said about a model's calls: one SQLite file beside a run or a folder of pictures, in which nothing is ever overwritten.

Every correction is a row; taking one back is a row too. What counts for a picture and a character is the last row that was not taken back.
A row is on the disk before :meth:`Corrections.add` returns, so that a killed process loses nothing; a row that was written without
knowledge of another person's newer one is refused, so that two tabs cannot wipe each other out.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from concept_cam.collection.calls import BEFORE_LIMITS
from concept_cam.core.errors import DataError, OutputError
from concept_cam.core.tables import escaped

__all__ = ["CORRECTIONS_FILE", "LABEL_COLUMNS", "CORRECTION_VERDICTS", "Conflict", "Correction", "Corrections", "labels_csv"]

CORRECTIONS_FILE = "corrections.sqlite"
"""Name of the file beside the run or in the folder of pictures."""

CORRECTION_VERDICTS: dict[str, str] = {
    "accept": "the call is right",
    "reject": "the call is wrong; the person did not say what would be right",
    "state": "another state is right",
    "cannot_tell": "the picture does not show it",
    "": "only the region was drawn",
}
"""What a person can say about a call."""

_VERSION = 2
_ADDED = {2: "ALTER TABLE corrections ADD COLUMN abstained_because TEXT NOT NULL DEFAULT ''"}
"""What each version added; files of an earlier one are read as they are, and have it with the first correction that is written."""
_MAGIC = 0x63634361  # "ccCa": tells the file from any other SQLite database.
_TABLE = """
CREATE TABLE IF NOT EXISTS corrections (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    undoes TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL,
    pack TEXT NOT NULL DEFAULT '',
    character TEXT NOT NULL,
    specimen INTEGER NOT NULL DEFAULT 0,
    part TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL DEFAULT '',
    verdict TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT '',
    called TEXT NOT NULL DEFAULT '',
    probability REAL,
    score REAL,
    mask TEXT,
    boxes TEXT NOT NULL DEFAULT '[]',
    clicks TEXT NOT NULL DEFAULT '[]',
    question TEXT NOT NULL DEFAULT '{}',
    taught TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    weights_hash TEXT NOT NULL DEFAULT '',
    person TEXT NOT NULL DEFAULT '',
    at TEXT NOT NULL,
    abstained_because TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS corrections_by_key ON corrections (source, pack, character, specimen, part);
"""
_PATIENCE, _GLANCE = 20.0, 0.2
"""Seconds that whoever needs the file waits for others to end their writing, and whoever only looks whether it can be used."""
_LARGEST = 2**63
"""One more than the largest number that SQLite keeps."""
_JSON = ("mask", "boxes", "clicks", "question")

Key = tuple[str, str, str, int, str]


def _is_text(value: str) -> bool:
    """Whether a text is one, and not the name of a file whose bytes are none."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Correction:
    """One thing that a person said about one call.

    Attributes:
        id: Chosen by who writes it, so that the same row sent twice is one row.
        source: The picture, as the run or the folder names it.
        character: Name of the character; for a question in free words, its alternatives joined by `` | ``.
        verdict: A key of :data:`CORRECTION_VERDICTS`.
        state: The state that is right; empty where the person did not say.
        pack: Trait pack; empty for a question in free words.
        specimen: Number of the specimen.
        part: The part, where the character is of kind ``part``; else empty.
        kind: Kind of the character.
        called: What the model had called.
        probability: Its probability; ``None`` where there is none.
        score: Its score; ``None`` where there is none.
        abstained_because: Why the model did not call it, a key of :data:`concept_cam.collection.calls.ABSTENTION_REASONS`; empty where it
            did.
        mask: Region that the person drew, COCO's run lengths in the original frame; ``None`` where the model's stands.
        boxes: Boxes ``[x0, y0, x1, y1]``, original pixels.
        clicks: Clicks ``[x, y, sign]``, original pixels; +1 is "this", -1 is "not this".
        question: The question as it was asked.
        taught: Name of the taught concept that was mixed in; empty for zero-shot.
        model: Name of the model that made the call.
        weights_hash: Hash of its weights; empty where that is not known.
        person: Who said so.
        at: When, ISO 8601 in UTC.
        number: Place in the file, rising; 0 before it is written.
        undoes: Id of the correction that this row takes back; empty for all others.
    """

    id: str
    source: str
    character: str
    verdict: str = ""
    state: str = ""
    pack: str = ""
    specimen: int = 0
    part: str = ""
    kind: str = ""
    called: str = ""
    probability: float | None = None
    score: float | None = None
    abstained_because: str = ""
    mask: Mapping[str, Any] | None = None
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    clicks: tuple[tuple[float, float, int], ...] = ()
    question: Mapping[str, Any] = field(default_factory=dict)
    taught: str = ""
    model: str = ""
    weights_hash: str = ""
    person: str = ""
    at: str = ""
    number: int = 0
    undoes: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in CORRECTION_VERDICTS:
            raise DataError(f"unknown verdict {self.verdict!r}; known: {', '.join(name for name in CORRECTION_VERDICTS if name)}.")
        if self.verdict == "state" and not self.state:
            raise DataError("the verdict 'state' needs the state that is right.")
        if not 0 <= self.specimen < _LARGEST:
            raise DataError(f"the specimen is {self.specimen}: expected a number from 0 to {_LARGEST - 1}.")
        for name, value in vars(self).items():
            if isinstance(value, str) and not _is_text(value):
                raise DataError(f"{name} is {value!r}, which is no text that could be kept: rename the file, or give its name as text.")

    @property
    def key(self) -> Key:
        """What the correction is about: source, pack, character, specimen, part."""
        return self.source, self.pack, self.character, self.specimen, self.part

    @property
    def call(self) -> str:
        """The call that the verdict is about; empty where the row does not say it, so that nobody knows whether it was right."""
        return self.part if self.kind == "part" else self.called

    @property
    def says_something(self) -> bool:
        """Whether a person judged the call or drew its region; clicks alone order regions, and what was cleared says nothing any more."""
        return bool(self.verdict or self.mask is not None or self.boxes)

    @property
    def before_limits(self) -> bool:
        """Whether the call was not made for a reason that no limit decides about."""
        return self.abstained_because in BEFORE_LIMITS

    @property
    def true_state(self) -> str:
        """The state that holds by what the person said; empty where it is not known."""
        if self.verdict == "state":
            return self.state
        return (self.state or self.called or self.part) if self.verdict == "accept" else ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            **vars(self),
            "boxes": [list(box) for box in self.boxes],
            "clicks": [list(click) for click in self.clicks],
            "mask": None if self.mask is None else dict(self.mask),
            "question": dict(self.question),
        }


class Conflict(DataError):
    """Somebody corrected the same thing in the meantime.

    Attributes:
        current: What counts now.
        last: Number of the newest row about it.
    """

    def __init__(self, current: Correction | None, last: int = 0) -> None:
        who = f"by {current.person or 'somebody'} at {current.at}" if current else "and taken back"
        super().__init__(f"this was corrected in the meantime ({who}): look at it and correct it again if it is wrong.")
        self.current, self.last = current, last


class _Locked(OutputError):
    """Another process holds the file and did not let go of it."""


def _is_lock(error: sqlite3.Error) -> bool:
    """Whether an error says that somebody else has the file; the lower byte of a code is its kind."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """What happens inside happens whole or not at all."""
    connection.execute(begin)
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # A full disk ends it by itself.
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _nothing() -> Iterator[sqlite3.Connection]:
    """What is read where nobody corrected anything yet: looking makes no file."""
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(_TABLE)
        yield empty


class Corrections:
    """The file of corrections; safe to use from several threads and processes at once.

    Args:
        path: The file; made with the first correction.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @contextmanager
    def _open(self, write: bool, patience: float = _PATIENCE) -> Iterator[sqlite3.Connection]:
        if not write and not self.path.is_file():
            with _nothing() as empty:
                yield empty
            return
        try:
            # One connection per operation: it costs a fraction of a millisecond, and nothing is shared between threads.
            with closing(sqlite3.connect(self.path, timeout=patience, isolation_level=None)) as connection:
                if write:
                    connection.execute("PRAGMA synchronous = FULL")
                    self._prepare(connection)
                elif not self._known(connection):
                    with _nothing() as empty:
                        yield empty
                    return
                yield connection
        except sqlite3.OperationalError as error:
            if _is_lock(error):
                raise _Locked(
                    f"the corrections {str(self.path)!r} are locked: another program has held them for {patience:g} seconds. Nothing is "
                    "lost; try again once it has ended, or end it."
                ) from error
            raise OutputError(
                f"the corrections {str(self.path)!r} cannot be used: {error}. Check that the folder is writable and has room, or name "
                "another file with --corrections."
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"{str(self.path)!r} is not a file of corrections: {error}.") from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._known(connection) == _VERSION:
            return
        with _transaction(connection, "BEGIN IMMEDIATE"):
            version = self._made(connection)
            if version == 0:
                connection.execute(f"PRAGMA application_id = {_MAGIC}")
                statements = list(filter(str.strip, _TABLE.split(";")))
            else:
                statements = [_ADDED[later] for later in range(version + 1, _VERSION + 1)]
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _known(self, connection: sqlite3.Connection) -> int:
        """The same as `_made`, in a transaction of its own: between two statements another writer may make the table, and what was read
        before and after would belong to no state of the file.
        """
        with _transaction(connection, "BEGIN"):
            return self._made(connection)

    def _made(self, connection: sqlite3.Connection) -> int:
        """The version of the table, 0 where there is none yet; an error where the file is something else."""
        magic = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if tables and magic != _MAGIC:
            raise DataError(f"{str(self.path)!r} is another program's database, not a file of corrections. Name another file.")
        if tables and not 1 <= version <= _VERSION:
            raise DataError(f"{str(self.path)!r} has version {version}; this release reads versions up to {_VERSION}.")
        return int(version) if tables else 0

    def check(self) -> None:
        """Finds a file that cannot be used before anything is corrected; what is tried for that leaves nothing behind.

        Raises:
            DataError: It is no file of corrections.
            OutputError: The folder is missing or not writable, or the file is not writable, or no file.
        """
        try:
            self._check()
        except OutputError:
            raise
        except OSError as error:  # A name that is too long, a folder that may not be looked into.
            raise OutputError(
                f"corrections cannot be kept in {str(self.path)!r}: {error.strerror or error}; give --corrections FILE, a name in a "
                "folder where files can be made."
            ) from error

    def _check(self) -> None:
        if self.path.is_dir():
            raise OutputError(f"corrections cannot be kept in {str(self.path)!r}, which is a folder: give --corrections FILE.")
        if self.path.exists() and not self.path.is_file():
            raise OutputError(f"corrections cannot be kept in {str(self.path)!r}, which is no plain file: give --corrections FILE.")
        if self.path.is_file() and not os.access(self.path, os.W_OK):
            raise OutputError(f"the corrections {str(self.path)!r} may only be read: make the file writable, or give --corrections FILE.")
        if self.path.is_file():
            # Looking brings no file to a version that others cannot read. A file that another process writes at this moment can be written.
            with suppress(_Locked), self._open(write=False, patience=_GLANCE) as connection:
                connection.execute("SELECT count(*) FROM corrections").fetchone()
                connection.execute("DELETE FROM corrections WHERE 0")  # Fails where the system lets nobody write, whatever permissions say.
        folder = self.path.resolve().parent  # Of a link, where SQLite makes the file and its journal.
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise OutputError(f"corrections cannot be kept in {str(folder)!r}, which is not writable: give --corrections FILE.")
        # Permissions do not tell all: nobody can make a file in /proc. The file itself is not made: looking makes none, and another
        # process may be about to.
        with tempfile.NamedTemporaryFile(prefix=".concept-cam-", dir=folder):
            pass

    # ----------------------------------------------------------------------------------------------------------- write

    def add(self, correction: Correction, seen: int | None = None) -> Correction:
        """Writes a correction; it is on the disk when this returns.

        Args:
            correction: What was said; a missing time is set.
            seen: Number of the correction of the same thing that the person had before the eyes, 0 for none; ``None`` does not ask.

        Returns:
            The correction with its number; that of the first time where the id is already there.

        Raises:
            Conflict: There is a newer one than ``seen``.
            DataError: The id is that of a row which says something else.
        """
        return self.amend(correction, lambda _: correction, seen)

    def amend(self, told: Correction, complete: Callable[[Correction | None], Correction], seen: int | None = None) -> Correction:
        """Writes a correction that leaves some things as they stand; it is on the disk when this returns.

        Args:
            told: What was said; its id and what it is about count, the rest is for ``complete``.
            complete: Makes the row of the correction that counts now, or of ``None``; nobody writes between its call and the row. Where
                the id is already there it is given that row, so that the same thing sent twice is one row.
            seen: As for :meth:`add`.

        Returns:
            As :meth:`add`.

        Raises:
            Conflict: There is a newer one than ``seen``.
            DataError: The id is that of a row which says something else.
        """
        with self._open(write=True) as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            known = connection.execute("SELECT * FROM corrections WHERE id = ?", (told.id,)).fetchone()
            if known is not None:
                return _same(_read(known), complete(_read(known)))
            if seen is not None and (last := self._last(connection, told.key)) > seen:
                raise Conflict(self._current(connection, told.key), last)
            row = complete(self._current(connection, told.key))
            row = replace(row, at=row.at or datetime.now(UTC).isoformat(timespec="milliseconds"))
            names = [item.name for item in fields(Correction) if item.name != "number"]
            values = [_cell(name, getattr(row, name)) for name in names]
            cursor = connection.execute(f"INSERT INTO corrections ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", values)
            number = int(cursor.lastrowid or 0)
        return replace(row, number=number)

    def undo(self, id_: str, person: str = "", undo_id: str = "") -> Correction | None:
        """Takes a correction back, by adding a row that says so; what counted before counts again.

        Returns:
            What counts now for the same thing; ``None`` for nothing.

        Raises:
            DataError: There is no such correction, or the row that takes it back has the id of another one.
        """
        with self._open(write=True) as connection:
            found = connection.execute("SELECT * FROM corrections WHERE id = ? AND undoes = ''", (id_,)).fetchone()
        if found is None:
            raise DataError(f"there is no correction {id_!r} to take back.")
        row = _read(found)
        self.add(replace(row, id=undo_id or f"undo-{id_}", undoes=id_, person=person, at="", mask=None, boxes=(), clicks=(), number=0))
        return self.current(row.key)

    # ------------------------------------------------------------------------------------------------------------ read

    def all(self, after: int = 0) -> list[Correction]:
        """Returns every row in order, those taken back and the taking back too."""
        with self._open(write=False) as connection:
            return [_read(row) for row in connection.execute("SELECT * FROM corrections WHERE number > ? ORDER BY number", (after,))]

    def standing(self, source: str | None = None) -> list[Correction]:
        """Returns what counts: the last correction of each thing that was not taken back, in order; of one picture or of all."""
        where, values = ("AND source = ?", (source,)) if source is not None else ("", ())
        with self._open(write=False) as connection:
            rows = connection.execute(
                "SELECT * FROM corrections WHERE number IN (SELECT max(number) FROM corrections WHERE undoes = '' AND id NOT IN "
                "(SELECT undoes FROM corrections WHERE undoes != '') GROUP BY source, pack, character, specimen, part) "
                f"{where} ORDER BY number",
                values,
            )
            return [_read(row) for row in rows]

    def current(self, key: Key) -> Correction | None:
        """Returns what counts for one thing."""
        with self._open(write=False) as connection:
            return self._current(connection, key)

    def last(self) -> int:
        """Returns the number of the last row, 0 where there is none."""
        with self._open(write=False) as connection:
            return int(connection.execute("SELECT coalesce(max(number), 0) FROM corrections").fetchone()[0])

    @staticmethod
    def _last(connection: sqlite3.Connection, key: Key) -> int:
        found = connection.execute(
            "SELECT coalesce(max(number), 0) FROM corrections WHERE source = ? AND pack = ? AND character = ? AND specimen = ? "
            "AND part = ?",
            key,
        )
        return int(found.fetchone()[0])

    @staticmethod
    def _current(connection: sqlite3.Connection, key: Key) -> Correction | None:
        found = connection.execute(
            "SELECT * FROM corrections WHERE source = ? AND pack = ? AND character = ? AND specimen = ? AND part = ? AND undoes = '' "
            "AND id NOT IN (SELECT undoes FROM corrections WHERE undoes != '') ORDER BY number DESC LIMIT 1",
            key,
        ).fetchone()
        return None if found is None else _read(found)


def _cell(name: str, value: Any) -> Any:
    if name not in _JSON or value is None:
        return value
    return json.dumps(dict(value) if isinstance(value, Mapping) else value)


def _same(known: Correction, row: Correction) -> Correction:
    """The row that is there already, where it says what was sent again; an error where it says something else, which would be lost."""
    told = [(*item.key, item.undoes, item.verdict, item.state, _cell("mask", item.mask), item.boxes) for item in (known, row)]
    if told[0] != told[1]:
        raise DataError(f"the id {row.id!r} is that of another row: nothing was written; give another one.")
    return known


_ORDER = (
    "number", "id", "undoes", "source", "pack", "character", "specimen", "part", "kind", "verdict", "state", "called", "probability",
    "score",
    "mask", "boxes", "clicks", "question", "taught", "model", "weights_hash", "person", "at",
    "abstained_because",
)  # fmt: skip
"""The columns of the table, in order."""


def _read(row: tuple[Any, ...]) -> Correction:
    values = dict(zip(_ORDER, row))  # Files of an earlier version lack the last ones.
    for name in _JSON:
        if values[name] is not None:
            values[name] = json.loads(values[name])
    values["boxes"] = tuple(tuple(box) for box in values["boxes"])
    values["clicks"] = tuple(tuple(click) for click in values["clicks"])
    return Correction(**values)


# -------------------------------------------------------------------------------------------------------------- labels

LABEL_COLUMNS = (
    "file_name", "pack", "character", "specimen", "kind", "state", "probability", "score", "abstained_because", "true_state", "reviewed",
    "verdict", "taught", "person", "at",
)  # fmt: skip
"""Columns of the table for ``concept-cam calibrate``: the model's call, what is right, and that a person said so."""


def labels_csv(standing: list[Correction]) -> str:
    """Returns corrections as a table that ``concept-cam calibrate`` takes, as labels of a run or as calls and labels in one.

    A call that was rejected without saying what is right is labelled ``not STATE``; what cannot be told has no ``true_state``, so that it
    counts neither for nor against the model. Every row is ``reviewed``: a person looked at it.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, LABEL_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for item in standing:
        if not item.verdict:
            continue
        state = item.part if item.kind == "part" else item.called
        truth = item.true_state or (f"not {state}" if item.verdict == "reject" and state else "")
        row = {
            "file_name": item.source,
            "pack": item.pack,
            "character": item.character,
            "specimen": item.specimen,
            "kind": item.kind,
            "state": state,
            "probability": "" if item.probability is None else repr(float(item.probability)),
            "score": "" if item.score is None else repr(float(item.score)),
            "abstained_because": item.abstained_because,
            "true_state": truth,
            "reviewed": "yes",
            "verdict": item.verdict,
            "taught": item.taught,
            "person": item.person,
            "at": item.at,
        }
        writer.writerow({name: escaped(value) for name, value in row.items()})
    return buffer.getvalue()
