"""The long table as CSV: one row per record, every column of the run under its own name.

Lists and maps are JSON; a missing value is an empty cell. The file begins with the UTF-8 mark, so that spreadsheets read ``px²`` and ``°``
right. Grid scores are binary and stay in the Parquet data set. The last column, ``reviewed``, is empty: whoever corrects ``state`` by hand
writes ``yes`` into the rows that were looked at, and ``concept-cam calibrate`` counts those.
"""

from __future__ import annotations

from pathlib import Path

from concept_cam.collection.runs import Run
from concept_cam.exports.survey import PLAIN, REVIEWED, Form, write_csv

__all__ = ["write"]

_BINARY = ("scores", "scores_shape", "scores_names")


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run as one CSV file."""
    columns = [name for name in run.schema.names if name not in _BINARY]
    # A corrected run says itself what was looked at.
    written = columns if REVIEWED in columns else [*columns, REVIEWED]
    write_csv(path, written, run.records(columns), form, mark=True)
