"""Reads an annotation run back: ``run.json`` and the Parquet parts, as an Arrow table, a pandas frame or picture by picture.

A run is a folder::

    run.json                  what was run: version, model, packs, configuration, input, counts, times
    parts/part-*.parquet      the records (see concept_cam.collection.schema); a file under any other name is unfinished and is not read
    errors.csv                pictures that could not be used: source, reason

``run.json`` holds at least ``schema_version``. The readers and exports also use ``package_version``, ``model``, ``weights_hash``,
``packs`` (name -> facts), ``configuration``, ``input`` (its ``root`` is the folder that relative sources stand in), ``started``,
``finished`` (ISO 8601; null while it runs) and ``counts`` where they are there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from concept_cam.collection.run_folder import ERRORS_FILE, PART_PATTERN, PARTS_FOLDER, RUN_FILE
from concept_cam.collection.schema import PASSTHROUGH_PREFIX, arrow_schema, check_schema, passthrough_columns
from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import DataError, MissingExtraError
from concept_cam.core.names import path_of
from concept_cam.core.tables import allow_long_cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ERRORS_FILE",
    "ERROR_COLUMNS",
    "PARTS_FOLDER",
    "PART_PATTERN",
    "RUN_FILE",
    "Run",
    "read_errors",
    "read_run_info",
    "read_run",
]

ERROR_COLUMNS = ("source", "path", "reason")


@dataclass(frozen=True)
class Run:
    """An annotation run on disk; opening it reads only ``run.json`` and the parts' schemas.

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
        for part in parts:
            schema = _part_schema(part)
            check_schema(schema, str(part))
            passthrough.update(dict.fromkeys(passthrough_columns(schema)))
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

    def picture_path(self, record: dict[str, Any]) -> Path | None:
        """Returns where a record's picture can be read on this machine, or None.

        The path of the run is tried first, then the source under the input's folder and under the run's own folder.
        """
        if record.get("path") and (known := path_of(record["path"])).is_file():
            return known
        given = self.info.get("input")
        root = given.get("root") if isinstance(given, dict) else None
        for folder in (root, self.path):
            if isinstance(folder, str | Path) and str(folder) and (candidate := path_of(Path(folder) / record["source"])).is_file():
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
        raise DataError(f"{folder} is not an annotation run: it has no {RUN_FILE}. Name the folder given to `annotate --output`.")
    info = read_json(path)
    if not isinstance(info, dict) or "schema_version" not in info:
        raise DataError(f"{path} does not describe an annotation run: it has no 'schema_version'.")
    for name, kind in (("configuration", dict), ("counts", dict), ("sessions", list), ("packs", dict), ("input", dict)):
        if not isinstance(info.get(name, kind()), kind):
            raise DataError(f"{path}: {name!r} is {str(info[name])[:80]!r}, which is not what a run writes.")
    return info


def _part_schema(part: Path) -> pa.Schema:
    try:
        return pq.read_schema(part)
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
            found.setdefault((cells[0], cells[2]), dict(zip(ERROR_COLUMNS, cells)))
    return list(found.values())


def read_run(path: str | Path) -> Run:
    """Opens a run: ``read_run("run/").frame()``; see :meth:`Run.open`."""
    return Run.open(path)
