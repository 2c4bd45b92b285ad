"""Joins the runs of several shards into one."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from concept_cam.collection.corrections import CORRECTIONS_FILE
from concept_cam.collection.run_writer import DoneKeys, check_folder, differences, errors_text, named_as_before, write_info
from concept_cam.collection.runs import (
    ERRORS_FILE,
    PART_PATTERN,
    PARTS_FOLDER,
    RUN_FILE,
    Run,
    missing_from,
    read_errors,
    read_run,
    read_run_info,
)
from concept_cam.core.documents import understood
from concept_cam.core.errors import DataError, OutputError
from concept_cam.core.files import make_directory, write_file
from concept_cam.core.names import some_of

__all__ = ["merge_runs"]

STAGING_FOLDER = ".merging"
MOVING_FILE = "moving"


def merge_runs(runs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str] | None = None) -> Run:
    """Joins the shards of one run.

    Args:
        runs: The shards' folders, or the one folder that holds them.
        output: Folder of the joined run; by default the folder that holds the shards. Shards are left as they are.

    Returns:
        The joined run.

    Raises:
        DataError: Shards differ in their configuration, are missing, are there twice, are not finished or have lost some of what they
            held; the message names them.
        OutputError: The output holds something else, or cannot be written.
    """
    folders = [Path(run) for run in runs]
    if len(folders) == 1 and (not (folders[0] / RUN_FILE).is_file() or any(folders[0].glob("shard-*"))):
        output = output or folders[0]
        folders = sorted(folders[0].glob("shard-*"))
    if not folders:
        raise DataError(
            f"{str(runs[0])!r} holds no shards: expected folders such as shard-00001-of-00008." if runs else "no shard was given."
        )
    if output is None:
        raise OutputError("--output is needed: name the folder of the joined run.")
    target = Path(output)
    infos = [read_run_info(folder) for folder in folders]
    with understood(folders[0]):
        _check(folders, infos)
        _joined(infos, ["" for _ in infos])  # finds what a run.json lacks before anything is written
    staging = target / STAGING_FOLDER
    if _finished_merge(target, staging):
        shutil.rmtree(staging, ignore_errors=True)
        return read_run(target)
    check_folder(target, resume=False)
    shutil.rmtree(staging, ignore_errors=True)
    make_directory(staging)
    try:
        _write(folders, infos, staging)
        _move_into_place(staging, target)
    except OSError as error:
        # An error of this package is a sentence already.
        known = isinstance(error, OutputError)
        reason = str(error) if known else f"cannot write {str(target)!r}: {error.strerror or error}."
        raise OutputError(f"{reason} The shards are as they were; make room and merge again.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if kept := [str(folder / CORRECTIONS_FILE) for folder in folders if (folder / CORRECTIONS_FILE).is_file()]:
        warnings.warn(
            f"corrections of single shards are not joined: {', '.join(kept)}. Give one to 'concept-cam export --corrections', or to "
            f"'concept-cam serve {target} --corrections' to go on with it.",
            UserWarning,
            stacklevel=2,
        )
    return read_run(target)


def _write(folders: Sequence[Path], infos: Sequence[dict[str, Any]], staging: Path) -> None:
    """Writes the whole joined run under a hidden name, so that a merge that fails leaves nothing where the run will stand."""
    shards = [info["configuration"]["shard"].partition("/")[0] for info in infos]
    _copy_parts(folders, shards, make_directory(staging / PARTS_FOLDER))
    errors = [error for folder in folders for error in read_errors(folder)]
    write_file(staging / ERRORS_FILE, errors_text(errors).encode("utf-8"))
    write_info(staging, _joined(infos, shards))


def _joined(infos: Sequence[dict[str, Any]], shards: Sequence[str]) -> dict[str, Any]:
    """Returns the ``run.json`` of the joined run."""
    counts = {"pictures": 0, "records": 0, "errors": 0, "duplicates": 0}
    for info in infos:
        for name, count in info.get("counts", {}).items():
            counts[name] = counts.get(name, 0) + count
    first = infos[0]
    return {
        **first,
        "configuration": {**first["configuration"], "shard": None},
        "started": min(info["started"] for info in infos),
        "finished": max(info["finished"] for info in infos),
        "counts": counts,
        "sessions": [session for info in infos for session in info.get("sessions", [])],
        "input": {
            **first["input"],
            "pictures": sum(info["input"].get("pictures", 0) for info in infos),
            "fingerprint": None,
        },
        "merged": [{"shard": shard, "fingerprint": info["input"].get("fingerprint")} for shard, info in zip(shards, infos)],
    }


def _copy_parts(folders: Sequence[Path], shards: Sequence[str], parts: Path) -> None:
    """Copies all shards' parts into the folder ``parts``, under names that differ."""
    keys = DoneKeys()
    for folder, shard in zip(folders, shards):
        for part in sorted((folder / PARTS_FOLDER).glob(PART_PATTERN)):
            found = pq.read_table(part, columns=["image_key"]).column(0).unique().to_pylist()
            if sum(keys.add(key) for key in found) < len(found):
                raise DataError(f"{part} holds pictures that another shard holds too: the shards do not belong together.")
            name = f"part-{int(shard):05d}-{part.stem.removeprefix('part-')}.parquet"
            shutil.copyfile(part, parts / name)


def _move_into_place(staging: Path, target: Path) -> None:
    """Moves the joined run to where it will stand, or nothing of it; ``run.json`` is last, since it makes the folder a run."""
    with contextlib.suppress(FileNotFoundError):
        (target / PARTS_FOLDER).rmdir()  # empty: the folder was checked
    # A kill between two renames leaves this note beside what was moved: the next merge knows that it is its own.
    write_file(staging / MOVING_FILE, b"")
    moved: list[Path] = []
    try:
        for name in (PARTS_FOLDER, ERRORS_FILE, RUN_FILE):
            moved.append((staging / name).rename(target / name))
    except BaseException:
        # What is left without run.json would keep the merge from being started again.
        for path in moved:
            _remove(path)
        raise


def _finished_merge(target: Path, staging: Path) -> bool:
    """Puts what a merge that was killed while it moved its files has left out of the way; tells whether the last file had been moved
    already.
    """
    if not (staging / MOVING_FILE).is_file():
        return False
    if (target / RUN_FILE).is_file():
        return True
    for name in (PARTS_FOLDER, ERRORS_FILE):
        _remove(target / name)
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _missing_errors(folder: Path, info: dict[str, Any]) -> str:
    """Says how many errors went with the file that listed them; one error may be counted more than once and is listed once."""
    noted = info.get("counts", {}).get("errors", 0)
    return f"all {noted} errors" if noted and not (folder / ERRORS_FILE).exists() else ""


def _check(folders: Sequence[Path], infos: Sequence[dict[str, Any]]) -> None:
    named: dict[str, Path] = {}
    for folder, info in zip(folders, infos):
        shard = info.get("configuration", {}).get("shard")
        if not shard:
            raise DataError(f"{folder} is not a shard: it was made without --shard.")
        if shard in named:
            raise DataError(f"{folder} and {named[shard]} are both shard {shard}.")
        named[shard] = folder
        if not info.get("finished"):
            raise DataError(f"{folder} (shard {shard}) is not finished: continue it with --resume.")
        # What the shards note is what the joined run will note: a loss that passed here would never be seen again.
        if lost := missing_from(folder, info) or _missing_errors(folder, info):
            raise DataError(
                f"{folder} (shard {shard}) is not whole: {lost} that its {RUN_FILE} notes are missing. Copy the shard again, or "
                "repeat the command that made it with --resume: what is missing is done again."
            )
    first = infos[0]["configuration"]
    for folder, info in zip(folders[1:], infos[1:]):
        own = named_as_before(infos[0], info["configuration"], (info.get("input") or {}).get("root"))
        found = [line for line in differences(first, own) if not line.startswith("shard:")]
        if found:
            raise DataError(f"{folder} has another configuration than {folders[0]}:\n" + "\n".join(f"  {line}" for line in found))
    counts = {int(shard.partition("/")[2]) for shard in named}
    if len(counts) > 1:
        raise DataError(f"the shards are of {len(counts)} different splits: {', '.join(sorted(named))}.")
    count = counts.pop()
    missing = [f"{index}/{count}" for index in range(1, count + 1) if f"{index}/{count}" not in named]
    if missing:
        raise DataError(f"{len(missing)} of {count} shards are missing: {some_of(missing, 10)}.")
