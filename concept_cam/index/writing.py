"""Parts of an index, written whole or not at all; what is in no part does not exist."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.core.errors import ConfigurationError, OutputError
from concept_cam.core.features import PatchFeatures
from concept_cam.core.files import write_file
from concept_cam.core.names import picture_key
from concept_cam.core.settings import OWN_INPUT, PREPROCESS_SETTINGS, said_once
from concept_cam.index.storage import HASHES, INDEX_PART_PATTERN, INDEX_PARTS, INFO_FILE, features_table, part_bytes, read_index_info

if TYPE_CHECKING:
    from pathlib import Path

    from concept_cam.index.index import Index

__all__ = ["INDEX_LOCK", "append_features", "last_number"]

INDEX_LOCK = ".lock"
"""Whoever writes an index holds this lock."""


def last_number(folder: Path) -> int:
    """Returns the highest number of a part in an index's folder; 0 where there is none."""
    names = [file.stem.removeprefix("part-") for file in (folder / INDEX_PARTS).glob(INDEX_PART_PATTERN)]
    return max((int(name) for name in names if name.isdigit()), default=0)


def _part_path(folder: Path, number: int) -> Path:
    return folder / INDEX_PARTS / INDEX_PART_PATTERN.replace("*", f"{number:06d}")


def append_features(index: Index, features: Sequence[PatchFeatures], names: Sequence[str] | None) -> None:
    """Adds a part; see :meth:`concept_cam.index.Index.append`."""
    from filelock import FileLock, Timeout

    given = list(names) if names is not None else [item.source or "" for item in features]
    if len(given) != len(features) or not all(given):
        raise ConfigurationError(f"every picture of an index needs a name: received {len(given)} names for {len(features)} pictures.")
    if not features:
        return
    for item in features:
        if item.weights_hash != index.weights_hash:
            raise ConfigurationError(
                f"the features come from {item.model!r}, the index {str(index.path)!r} holds those of {index.model!r}."
            )
        # An entry keeps its own attention, views and frames; how pictures were brought to the model's input is the index's.
        if item.reading is None:
            continue
        own, policy = item.reading.get(OWN_INPUT) or {}, item.geometry.policy
        encoded, kept = (said_once({**reading, "resize": policy}, own) for reading in (item.reading, index.reading))
        for name in ("size", *PREPROCESS_SETTINGS):
            if encoded.get(name) != kept.get(name):
                raise ConfigurationError(
                    f"the features were encoded with {name} {encoded.get(name)!r}, those of the index {str(index.path)!r} with "
                    f"{kept.get(name)!r}: encode the pictures with  index.localizer()."
                )
    patches = [np.asarray(item.patches.float().cpu().numpy(), dtype=np.float32) for item in features]
    codes = [index.codec.encode(array.reshape(-1, array.shape[-1])) for array in patches]
    rows: list[dict[str, Any]] = [
        {
            "image_key": picture_key(name),
            "source": name,
            "specimen": 0,
            "geometry": json.dumps(item.geometry.to_dict()),
            "attention": item.attention,
            "views": item.views,
        }
        for name, item in zip(given, features)
    ]
    images = np.stack([item.image.float().cpu().numpy() for item in features])
    folder = index.files[-1][1].parents[1] if index.files else index.path
    lock = FileLock(folder / INDEX_LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(f"another process is writing the index {str(folder)!r}. Wait for it.") from None
    try:
        payload = part_bytes(features_table(rows, codes, images))
        part = _part_path(folder, last_number(folder) + 1)
        info = read_index_info(folder)
        # The hash first: a kill between the two leaves a note of what is not there, never a part that nothing is known of.
        info[HASHES] = {**info.get(HASHES, {}), part.name: hashlib.sha256(payload).hexdigest()}
        write_file(folder / INFO_FILE, json.dumps(info, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"), overwrite=True)
        write_file(part, payload)
    finally:
        lock.release()
