"""Reads an annotation run back: ``run.json`` and the Parquet parts, as an Arrow table, a pandas frame or picture by picture.

A run is a folder::

    run.json                  what was run: version, model, packs, configuration, input, counts, times
    parts/part-*.parquet      the records (see concept_cam.collection.schema); a file under any other name is unfinished and is not read
    errors.csv                pictures that could not be used: source, reason

``run.json`` holds at least ``schema_version``. The readers and exports also use ``package_version``, ``model``, ``weights_hash``,
``packs`` (name -> facts), ``configuration``, ``input`` (its ``root`` is the folder that relative sources stand in), ``started``,
``finished`` (ISO 8601; null while it runs), ``expected`` (pictures of the input, while it runs) and ``counts`` where they are there.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from concept_cam.collection.run_folder import ERRORS_FILE, PART_PATTERN, PARTS_FOLDER, RUN_FILE
from concept_cam.collection.schema import PASSTHROUGH_PREFIX, arrow_schema, check_schema, passthrough_columns
from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import DataError, MissingExtraError
from concept_cam.core.names import display, file_of
from concept_cam.core.tables import allow_long_cells, unescaped

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError("pyarrow", "annotate", "reading an annotation run") from error

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ERRORS_FILE",
    "ERROR_COLUMNS",
    "PARTS_FOLDER",
    "PART_PATTERN",
    "RUN_FILE",
    "Run",
    "missing_from",
    "read_errors",
    "read_run_info",
    "read_run",
]

T = TypeVar("T")

ERROR_COLUMNS = ("source", "path", "reason")


@dataclass(frozen=True)
class Run:
    """An annotation run on disk; opening it reads only ``run.json`` and the parts' schemas and lengths.

    Attributes:
        path: The run's folder.
        info: Contents of ``run.json``.
        parts: The finished parts, in order.
        schema: Arrow schema of the whole run: every column of :data:`concept_cam.collection.schema.RUN_COLUMNS`, then the passthrough
            columns of all parts.
    """

    path: Path
    info: dict[str, Any]
    parts: tuple[Path, ...]
    schema: pa.Schema

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens a run.

        A run that is not finished, or whose parts do not hold what ``run.json`` notes, is opened with a warning that says what is there:
        whoever joins, exports or counts it would take a share for all of it.

        Args:
            path: The run's folder, or its ``run.json``.

        Raises:
            DataError: The folder is not a run, or a part of it cannot be read.
        """
        folder = Path(path)
        folder = folder.parent if folder.name == RUN_FILE else folder
        info = read_run_info(folder)
        parts = tuple(sorted((folder / PARTS_FOLDER).glob(PART_PATTERN)))
        passthrough: dict[str, None] = {}
        records = 0
        for part in parts:
            schema, length = _part_head(part)
            check_schema(schema, str(part))
            passthrough.update(dict.fromkeys(passthrough_columns(schema)))
            records += length
        if lack := _lack(folder, info, parts, records):
            warnings.warn(lack, UserWarning, stacklevel=2)
        return cls(folder, info, parts, arrow_schema(passthrough))

    def __repr__(self) -> str:
        """Where it is, what it holds and which model made it."""
        counts = self.info.get("counts") or {}
        held = ", ".join(f"{counts[name]} {name}" for name in ("pictures", "records", "errors") if counts.get(name))
        return f"<Run {str(self.path)!r}: {held or 'nothing yet'}; model {self.info.get('model')!r}>"

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.path.resolve().name

    @property
    def passthrough(self) -> tuple[str, ...]:
        """Names of the input's further columns, without prefix."""
        return passthrough_columns(self.schema)

    @property
    def model(self) -> str:
        """Name of the model that made the calls; empty where the run does not say."""
        return self._made_by("model")

    @property
    def weights_hash(self) -> str:
        """Hash of the weights that made the calls; empty where the run does not say."""
        return self._made_by("weights_hash")

    def _made_by(self, name: str) -> str:
        """Returns what ``run.json`` says of the model, else what the first record says."""
        return str(self.info.get(name) or self._first_made_by.get(name) or "")

    @cached_property
    def _first_made_by(self) -> dict[str, Any]:
        return next(self.records(["model", "weights_hash"]), {})

    @cached_property
    def count(self) -> int:
        """Number of records."""
        return sum(pq.read_metadata(part).num_rows for part in self.parts)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Streams the records in order.

        Args:
            columns: Names of the columns to read; all by default.

        Raises:
            DataError: An unknown column, or a part that cannot be read.
        """
        schema = self._select(columns)
        for part in self.parts:
            try:
                with pq.ParquetFile(part) as file:
                    present = [name for name in schema.names if name in file.schema_arrow.names]
                    for batch in file.iter_batches(batch_size=4096, columns=present):
                        yield _conform(batch, schema)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{part} cannot be read: {error}. Delete it and continue the run with --resume.") from error

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns the records as an Arrow table; ``columns`` as for :meth:`batches`."""
        return pa.Table.from_batches(self.batches(columns), self._select(columns))

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Returns the records as a pandas frame; ``columns`` as for :meth:`batches`; ``probabilities`` become dicts.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("pandas", "annotate", "reading a run as a pandas frame") from error
        return self.table(columns).to_pandas(maps_as_pydicts="strict")

    def records(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Streams the records as plain dicts; ``columns`` as for :meth:`batches`; a missing value is None, ``probabilities`` a dict."""
        for batch in self.batches(columns):
            with understood(f"a part of {self.path}"):
                rows = batch.to_pylist(maps_as_pydicts="strict")
            yield from rows

    def pictures(self, columns: Sequence[str] | None = None) -> Iterator[list[dict[str, Any]]]:
        """Streams the records picture by picture; ``columns`` as for :meth:`batches`, ``image_key`` is always read."""
        wanted = None if columns is None else list(dict.fromkeys(["image_key", *columns]))
        for _, group in groupby(self.records(wanted), key=lambda record: record["image_key"]):
            yield list(group)

    def errors(self) -> list[dict[str, str]]:
        """Returns the rows of ``errors.csv``, each error once; none when it is not there."""
        return read_errors(self.path)

    @property
    def in_containers(self) -> bool:
        """Whether the pictures, where they are no files of their own, lie in archives or tables."""
        from concept_cam.collection.inputs.specimens import CONTAINERS

        given = self.info.get("input")
        return isinstance(given, dict) and given.get("layout") in CONTAINERS

    def picture_path(self, record: dict[str, Any]) -> Path | None:
        """Returns where a record's picture can be read on this machine, or None.

        The path of the run is tried first, then the source under the input's folder and under the run's own folder.
        """
        if record.get("path") and (known := file_of(record["path"])):
            return known
        given = self.info.get("input")
        root = given.get("root") if isinstance(given, dict) else None
        for folder in (root, self.path):
            if isinstance(folder, str | Path) and str(folder) and (candidate := file_of(Path(folder) / record["source"])):
                return candidate
        return None

    def _select(self, columns: Sequence[str] | None) -> pa.Schema:
        if columns is None:
            return self.schema
        if unknown := [name for name in columns if name not in self.schema.names]:
            raise DataError(
                f"the run {self.path} has no columns {unknown}. It has {', '.join(self.schema.names)}; "
                f"columns of the input carry the prefix {PASSTHROUGH_PREFIX!r}."
            )
        return pa.schema([self.schema.field(name) for name in columns], self.schema.metadata)


def read_run_info(folder: Path) -> dict[str, Any]:
    path = folder / RUN_FILE
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: expected the output folder of an annotation run.")
    if not path.is_file():
        if shards := len(list(folder.glob(f"shard-*/{RUN_FILE}"))):
            raise DataError(
                f"{folder} holds shards of a run ({shards}) that are not joined yet, and no {RUN_FILE} of its own. Join them first:  "
                f"concept-cam annotate --merge {folder}"
            )
        raise DataError(f"{folder} is not an annotation run: it has no {RUN_FILE}. Name the folder given to `annotate --output`.")
    info = read_json(path)
    if not isinstance(info, dict) or "schema_version" not in info:
        raise DataError(f"{path} does not describe an annotation run: it has no 'schema_version'.")
    for name, kind in (("configuration", dict), ("counts", dict), ("sessions", list), ("packs", dict), ("input", dict)):
        if not isinstance(info.get(name, kind()), kind):
            raise DataError(f"{path}: {name!r} is {str(info[name])[:80]!r}, which is not what a run writes.")
    return info


def missing_from(folder: Path, info: dict[str, Any]) -> str:
    """Says how much of what ``run.json`` notes the parts do not hold, ``"8 of 40 pictures and 64 of 320 records"``; empty for nothing.

    Args:
        folder: The run's folder.
        info: Contents of its ``run.json``.

    Raises:
        DataError: A part cannot be read.
    """
    parts = sorted((folder / PARTS_FOLDER).glob(PART_PATTERN))
    return _missing(info, parts, sum(_part_head(part)[1] for part in parts))


def _missing(info: dict[str, Any], parts: Sequence[Path], records: int) -> str:
    # Records tell whether anything is missing, for nothing: their number stands at the end of every part. Pictures must be read.
    noted = _noted(info, "records")
    if noted is None or records >= noted:
        return ""
    pictures = _noted(info, "pictures")
    lost = 0 if pictures is None else pictures - _pictures_in(parts)
    return (f"{lost} of {pictures} pictures and " if lost > 0 else "") + f"{noted - records} of {noted} records"


def _lack(folder: Path, info: dict[str, Any], parts: Sequence[Path], records: int) -> str:
    """Says in what the parts are less, or more, than the whole run; nothing where they are all of it, or where nothing was noted."""
    name = display(str(folder))
    if not info.get("finished", True):
        there, expected = _pictures_in(parts), info.get("expected")
        about = "about " if (info.get("configuration") or {}).get("shard") else ""  # a shard's share of the input is estimated
        total = f" of {about}{expected}" if isinstance(expected, int) else ""
        failed = len(read_errors(folder))
        errors = f", {failed} errors" if failed else ""
        return (
            f"the run {name!r} is not finished: it holds {there}{total} pictures ({records} records{errors}). What is made of it holds no "
            "more; repeat the command that made it with --resume to do the rest."
        )
    if missing := _missing(info, parts, records):
        return (
            f"the run {name!r} is not whole: {missing} that {RUN_FILE} notes are missing, and so they are from what is made of it. Copy "
            f"its folder {PARTS_FOLDER} again, or repeat the command that made it with --resume: what is missing is done again."
        )
    noted = _noted(info, "records")
    if noted is not None and records > noted:
        return (
            f"the run {name!r} holds {records} records, more than the {noted} that {RUN_FILE} notes: a file of its folder {PARTS_FOLDER} "
            "is there twice, or is of another run. Take it away."
        )
    return ""


def _noted(info: dict[str, Any], name: str) -> int | None:
    found = (info.get("counts") or {}).get(name)
    return found if isinstance(found, int) else None


def _pictures_in(parts: Sequence[Path]) -> int:
    """Counts the pictures of some parts, a part at a time; records of one picture are in one part."""
    return sum(len(_read(part, lambda path: pq.read_table(path, columns=["image_key"])).column(0).unique()) for part in parts)


def _part_head(part: Path) -> tuple[pa.Schema, int]:
    """Returns a part's schema and the number of its records; both stand at its end."""

    def read(path: Path) -> tuple[pa.Schema, int]:
        found = pq.read_metadata(path)
        return found.schema.to_arrow_schema(), int(found.num_rows)

    return _read(part, read)


def _read(part: Path, how: Callable[[Path], T]) -> T:
    try:
        return how(part)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{part} cannot be read: {error}. Delete it and continue the run with --resume.") from error


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    # A part of an older release lacks newer nullable columns; a part of a merged run may lack a passthrough column.
    arrays = [batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def read_errors(folder: Path) -> list[dict[str, str]]:
    """Reads ``errors.csv``; a last line that was cut by a kill is left out, and so is what an error of an earlier session repeats."""
    path = folder / ERRORS_FILE
    if not path.exists():
        return []
    # A full disk can cut a line within a character: what is left of it goes with the line.
    text = path.read_text(encoding="utf-8", errors="replace")
    allow_long_cells()
    rows = csv.reader(io.StringIO(text, newline=""))
    found: dict[tuple[str, str], dict[str, str]] = {}
    complete = text.endswith("\n")
    lines = list(rows)
    for index, cells in enumerate(lines[1:], 1):
        cut = index == len(lines) - 1 and not complete
        if len(cells) == len(ERROR_COLUMNS) and not cut:
            error = dict(zip(ERROR_COLUMNS, map(unescaped, cells)))
            found.setdefault((error["source"], error["reason"]), error)
    return list(found.values())


def read_run(path: str | Path) -> Run:
    """Opens a run: ``read_run("run/").frame()``; see :meth:`Run.open`, also for what it warns of."""
    return Run.open(path)
