"""Shards become one run or stay as they are: a merge that fails leaves nothing behind that keeps it from being started again."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

import pyarrow.parquet as pq

from concept_cam.collection.corrections import CORRECTIONS_FILE
from concept_cam.collection.merging import STAGING_FOLDER, merge_runs
from concept_cam.collection.run_writer import errors_text
from concept_cam.collection.runs import ERRORS_FILE, PARTS_FOLDER, RUN_FILE, Run
from concept_cam.collection.schema import table_from_records
from concept_cam.core.errors import DataError, OutputError
from tests.exports.planted import make_record

COUNT = 2
"""Shards of the planted split; each has one picture and one error."""


def plant_shards(folder: Path, *, errors: int = 1, host: str = "here", roots: tuple[Any, ...] = ()) -> Path:
    """Writes finished shards; ``roots`` are the folders that their configurations note, where they do."""
    for index in range(1, COUNT + 1):
        shard = folder / f"shard-{index:05d}-of-{COUNT:05d}"
        (shard / PARTS_FOLDER).mkdir(parents=True)
        record = make_record(f"{index}.png", (4, 6), "colour", "colour", "red")
        pq.write_table(table_from_records([record]), shard / PARTS_FOLDER / "part-000001.parquet")
        rows = [{"source": f"bad {index}-{row}.png", "path": "", "reason": "empty"} for row in range(errors)]
        (shard / ERRORS_FILE).write_text(errors_text(rows), encoding="utf-8")
        noted = {} if not roots or roots[index - 1] is None else {"root": roots[index - 1]}
        info = {
            "schema_version": "1",
            "configuration": {"shard": f"{index}/{COUNT}", "input": {"layout": "list", **noted}},
            "started": f"2026-01-0{index}T00:00:00+00:00",
            "finished": f"2026-01-0{index}T01:00:00+00:00",
            "counts": {"pictures": 1, "records": 1, "errors": errors, "duplicates": 0},
            "sessions": [{"host": host}],
            "input": {"layout": "list", "pictures": 2, "fingerprint": f"f{index}"},
        }
        (shard / RUN_FILE).write_text(json.dumps(info), encoding="utf-8")
    return folder


def assert_joined(run: Run, errors: int = 1) -> None:
    assert [record["source"] for record in run.records()] == ["1.png", "2.png"]
    expected = [f"bad {index}-{row}.png" for index in (1, 2) for row in range(errors)]
    assert [error["source"] for error in run.errors()] == expected
    assert run.info["counts"] == {"pictures": 2, "records": 2, "errors": COUNT * errors, "duplicates": 0}
    assert run.info["configuration"]["shard"] is None
    assert run.info["input"]["pictures"] == 4
    assert run.info["merged"] == [{"shard": "1", "fingerprint": "f1"}, {"shard": "2", "fingerprint": "f2"}]
    assert not (run.path / STAGING_FOLDER).exists()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_shards_become_one_run(tmp_path: Path) -> None:
    assert_joined(merge_runs([plant_shards(tmp_path / "run")]))


@pytest.mark.parametrize("where", [ERRORS_FILE, RUN_FILE])
def test_no_room_for_the_small_files_leaves_nothing_and_can_be_started_again(where: str, tmp_path: Path) -> None:
    errors = 8000 if where == ERRORS_FILE else 1
    folder = plant_shards(tmp_path / "run", errors=errors, host="x" * (100_000 if where == RUN_FILE else 1))
    parts = [part.stat().st_size for part in folder.glob(f"*/{PARTS_FOLDER}/*")]
    before = sorted(folder.rglob("*"))
    assert max(parts) < 100_000
    with room_for(100_000), pytest.raises(OutputError, match=f"{where}.*merge again"):
        merge_runs([folder])
    assert sorted(folder.rglob("*")) == before
    assert_joined(merge_runs([folder]), errors)


def failing(name: str, error: BaseException, rename: Callable[..., Path]) -> Callable[..., Path]:
    def move(path: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise error
        return rename(path, target)

    return move


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", [PARTS_FOLDER, ERRORS_FILE, RUN_FILE])
def test_what_was_moved_is_taken_back_when_a_later_move_fails(
    name: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plant_shards(tmp_path / "run")
    before = sorted(folder.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing(name, error, Path.rename))
        expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected, match="merge again" if isinstance(error, OSError) else None):
            merge_runs([folder])
    assert sorted(folder.rglob("*")) == before
    assert_joined(merge_runs([folder]))


def test_an_empty_folder_of_parts_is_no_obstacle_and_a_full_one_is_kept(tmp_path: Path) -> None:
    folder = plant_shards(tmp_path / "run")
    (folder / PARTS_FOLDER).mkdir()
    (folder / PARTS_FOLDER / "part-1.parquet").write_bytes(b"someone else's")
    with pytest.raises(OutputError, match="it has parts"):
        merge_runs([folder])
    assert (folder / PARTS_FOLDER / "part-1.parquet").read_bytes() == b"someone else's"
    (folder / PARTS_FOLDER / "part-1.parquet").unlink()
    assert_joined(merge_runs([folder]))


def test_corrections_of_shards_are_told(tmp_path: Path) -> None:
    plant_shards(tmp_path)
    (tmp_path / "shard-00002-of-00002" / CORRECTIONS_FILE).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"not joined: .*shard-00002-of-00002/corrections\.sqlite\. Give"):
        assert_joined(merge_runs([tmp_path]))


def test_one_folder_under_two_names_is_one(tmp_path: Path) -> None:
    """A shard noted the folder as it was named from one place, another as from everywhere: the work was done and could not be joined."""
    named = (
        ("one", "/data/photos", "/data/photos", True),
        ("beside", "../photos", "/data/photos", True),
        ("within", ".", "/data/photos", True),
    )
    for name, again, root, joined in (*named, ("other", "/mnt/photos", "/mnt/photos", False)):
        plant_shards(tmp_path / name)
        for index, (given, stood) in enumerate((("photos", "/data/photos"), (again, root)), 1):
            path = tmp_path / name / f"shard-{index:05d}-of-{COUNT:05d}" / RUN_FILE
            info = json.loads(path.read_text(encoding="utf-8"))
            info["configuration"]["input"] = {"layout": "folder", "given": [given]}
            info["input"] |= {"layout": "folder", "root": stood}
            path.write_text(json.dumps(info), encoding="utf-8")
        if joined:
            assert_joined(merge_runs([tmp_path / name]))
        else:
            with pytest.raises(DataError, match=r"input\.given"):
                merge_runs([tmp_path / name])


def test_shards_under_different_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'input\.root: "/A" -> "/B"'):
        merge_runs([plant_shards(tmp_path / "differ", roots=("/A", "/B"))])
    # Versions before did not note it.
    assert_joined(merge_runs([plant_shards(tmp_path / "older", roots=(None, "/B"))]))


@pytest.mark.parametrize(
    ("lost", "said"),
    [(f"{PARTS_FOLDER}/part-000001.parquet", "1 of 1 pictures and 1 of 1 records"), (ERRORS_FILE, "all 1 errors")],
)
def test_a_shard_that_lost_something_is_refused_and_nothing_is_written(tmp_path: Path, lost: str, said: str) -> None:
    folder = plant_shards(tmp_path / "run")
    path = folder / "shard-00002-of-00002" / lost
    content = path.read_bytes()
    path.unlink()
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match=rf"shard-00002-of-00002 \(shard 2/2\) is not whole: {said} .*--resume"):
        merge_runs([folder])
    assert sorted(folder.rglob("*")) == before
    path.write_bytes(content)
    assert_joined(merge_runs([folder]))


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_a_merge_that_is_killed_between_its_renames_can_be_repeated(tmp_path: Path, renames: int) -> None:
    folder = plant_shards(tmp_path / "run")
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom concept_cam.collection.merging import merge_runs\n"
        "left, rename = int(sys.argv[2]), Path.rename\n"
        "def killed(self, target):\n"
        "    global left\n"
        "    if '.merging' in str(self) and left == 0: os._exit(9)\n"
        "    left -= '.merging' in str(self)\n"
        "    return rename(self, target)\n"
        "Path.rename = killed\nmerge_runs([sys.argv[1]])\nos._exit(9 if left == 0 else 0)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", script, str(folder), str(renames)], env={**os.environ, "PYTHONPATH": root}, check=False)
    assert done.returncode == 9
    if renames == 3:  # killed after the last rename, before it could tidy up
        (folder / STAGING_FOLDER).mkdir()
        (folder / STAGING_FOLDER / "moving").touch()
    assert_joined(merge_runs([folder]))
    with pytest.raises(OutputError, match="holds an annotation run"):
        merge_runs([folder])
