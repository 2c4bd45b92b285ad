"""Names of what an annotation run's folder holds; apart from what reads it, so that inputs can tell a run without pyarrow."""

from __future__ import annotations

RUN_FILE = "run.json"
PARTS_FOLDER = "parts"
PART_PATTERN = "part-*.parquet"
ERRORS_FILE = "errors.csv"
