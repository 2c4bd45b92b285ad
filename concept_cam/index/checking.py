"""Whether an index holds, byte for byte, what was written.

Parts are mapped and read where they are asked for, so that a byte that changed on the disk or on the way would go unnoticed. ``index.json``
keeps the SHA-256 of every part; it is noted before the part is put in its place, so that no part is ever without one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from concept_cam.core.errors import DataError
from concept_cam.index.codec import BASIS_FILE
from concept_cam.index.storage import HASHES, INDEX_PARTS, Part, index_folders

if TYPE_CHECKING:
    from concept_cam.index.index import Index

__all__ = ["Check", "Fault", "check_index", "hash_of", "missing_shards"]

_SHARD = re.compile(r"shard-(\d{5,7})-of-(\d{5,7})")

_OTHER_AXES = "Continue with --pca INDEX where another index has the same axes; otherwise index anew"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with an index.

    Attributes:
        path: The file, or a shard's folder.
        reason: What is wrong with it.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}."


@dataclass(frozen=True)
class Check:
    """What a check of an index found.

    Attributes:
        parts: Number of parts that were read.
        size: Their bytes.
        faults: What is wrong; nothing where all is well.
        unhashed: Parts of which no hash was kept, since an earlier version wrote them: that they can be read is all that is known.
    """

    parts: int
    size: int
    faults: tuple[Fault, ...]
    unhashed: tuple[Path, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, as far as hashes were kept."""
        return not self.faults


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits; a block at a time, whatever its size.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_index(index: Index, progress: Callable[[int], None] | None = None) -> Check:
    """Reads every byte of an index that was just opened; see :meth:`concept_cam.index.Index.check`."""
    faults: list[Fault] = []
    unhashed: list[Path] = []
    size = 0
    folders = index_folders(index.path)
    for number, (folder, info) in enumerate(zip(folders, index.infos)):
        noted: dict[str, str] = info.get(HASHES, {})
        files = [file for own, file in index.files if own == number]
        for file in files:
            try:
                length = file.stat().st_size
                reason = _damage(file, noted)
            except OSError as error:
                length, reason = 0, f"cannot be read: {error.strerror or error}"
            if reason:
                faults.append(Fault(file, reason))
            elif file.name not in noted:
                unhashed.append(file)
                if twin := _copied(file, noted):
                    faults.append(Fault(file, f"is a copy of {twin}: its pictures are listed twice. Take it away"))
            size += length
            if progress is not None:
                progress(length)
        for name in sorted(set(noted) - {file.name for file in files}):
            faults.append(Fault(folder / INDEX_PARTS / name, "is missing, or was being written when the process was stopped"))
        if reason := _damaged_axes(folder, info["configuration"]["codec"].get("basis")):
            faults.append(Fault(folder / BASIS_FILE, reason))
    faults += [Fault(index.path / name, "this shard is missing") for name in missing_shards(index.path, folders)]
    return Check(len(index.files), size, tuple(faults), tuple(unhashed))


def _damage(file: Path, noted: dict[str, str]) -> str:
    """Says what is wrong with a part; nothing where it is as it was written, or as far as that can be told."""
    if file.name not in noted:
        try:
            Part(file).validate()
        except DataError:
            return "is damaged: it cannot be read"
        return ""
    found = hash_of(file)
    if found == noted[file.name]:
        return ""
    other = next((name for name, known in noted.items() if known == found), None)
    return f"holds what {other} should hold" if other else "is damaged: its bytes are not those that were written"


def _copied(file: Path, noted: dict[str, str]) -> str | None:
    """Names the part that a part without a hash is a copy of."""
    own = hash_of(file) if noted else None
    return next((name for name, known in noted.items() if known == own and (file.parent / name).is_file()), None)


def _damaged_axes(folder: Path, noted: str | None) -> str:
    """Says what is wrong with the axes of an index that has some: without them the features mean nothing."""
    if noted is None:
        return ""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        basis = load_file(folder / BASIS_FILE)["basis"]
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        return f"cannot be read: {error}. {_OTHER_AXES}"
    whole = hashlib.sha256(basis.tobytes()).hexdigest().startswith(noted)
    return "" if whole else f"is damaged: these are not the axes that the features were brought to. {_OTHER_AXES}"


def missing_shards(path: Path, folders: list[Path]) -> list[str]:
    """Names the shards that should lie beside those that are there."""
    found = [match for match in (_SHARD.fullmatch(folder.name) for folder in folders) if match]
    counts = {match[2] for match in found}
    if folders == [path] or len(counts) != 1:
        return []
    (count,) = counts
    there = {int(match[1]) for match in found}
    return [f"shard-{number:0{len(count)}d}-of-{count}" for number in range(1, int(count) + 1) if number not in there]
