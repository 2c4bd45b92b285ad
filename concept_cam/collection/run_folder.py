"""Names of what an annotation run's folder holds; apart from what reads it, so that inputs can tell a run without pyarrow."""

from __future__ import annotations

RUN_FILE = "run.json"
DTYPE_FILE = "dtype.json"
"""The number format that all shards of a run or an index use, beside their folders."""
PARTS_FOLDER = "parts"
PART_PATTERN = "part-*.parquet"
ERRORS_FILE = "errors.csv"
