"""Masks as PNG: 8-bit grey, 255 inside and 0 outside, as large as the upright picture; ``masks.csv`` lists them.

A picture has a folder named like its source; a mask is named after specimen, character and state. Characters that a file name cannot
hold everywhere are replaced, and where two names would meet the record's key is added: rely on ``masks.csv``, not on names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from concept_cam.collection.runs import Run
from concept_cam.collection.schema import PASSTHROUGH_PREFIX
from concept_cam.exports.survey import PLAIN, Form, called, has_region, mask_of, write_csv

__all__ = ["INDEX_FILE", "write"]

INDEX_FILE = "masks.csv"

_COLUMNS = (
    "mask",
    "source",
    "specimen",
    "pack",
    "character",
    "state",
    "entity",
    "entity_id",
    "area_px2",
    "record_key",
)


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run's masks into the folder ``path``."""
    columns = (*_COLUMNS, *(PASSTHROUGH_PREFIX + name for name in run.passthrough))
    write_csv(path / INDEX_FILE, columns, _masks(run, path, columns), form)


def _masks(run: Run, path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    taken: dict[str, str] = {}
    for record in called(run):
        if record["kind"] == "distance" or not has_region(record):
            continue
        folder = _folder(record, taken)
        name = f"{folder}/{_safe('.'.join(_name(record)))}.png"
        if taken.setdefault(name.casefold(), record["record_key"]) != record["record_key"]:
            name = f"{name.removesuffix('.png')}.{record['record_key']}.png"
        file = path / "masks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask_of(record)).convert("L").save(file)
        yield {column: record.get(column) for column in columns} | {"mask": f"masks/{name}"}


def _name(record: dict[str, Any]) -> Iterator[str]:
    if record["specimen_x"] is not None:
        yield f"specimen{record['specimen']}"
    yield from (record["pack"], record["character"], record["state"] or "")


def _folder(record: dict[str, Any], taken: dict[str, str]) -> str:
    # A source may be absolute, climb out of its folder or be an address: only its safe names are kept.
    parts = [_safe(part) for part in PurePosixPath(record["source"].replace("\\", "/")).parts if part not in ("/", "..", ".")]
    name = "/".join(parts) or record["image_key"]
    owner = taken.setdefault(f"{name.casefold()}/", record["image_key"])
    return name if owner == record["image_key"] else f"{name}.{record['image_key']}"


def _safe(name: str) -> str:
    # 80 characters stay under the 255 bytes of a file name in any script.
    clean = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", name).strip(" .") or "_"
    return clean if len(clean) <= 60 else f"{clean[:40]}~{clean[-19:]}"
