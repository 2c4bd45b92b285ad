from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from concept_cam.collection.engines.pool import WorkerDied, WorkerPool

ROOT = Path(__file__).parents[3]


def nothing() -> None:
    return None


def double(value: int) -> int:
    return 2 * value


def die_once(marker: str, value: int) -> int:
    if not Path(marker).exists():
        Path(marker).write_text("x")
        os._exit(1)
    return 2 * value


def die(_value: int) -> int:
    os._exit(1)


def fail(value: int) -> int:
    raise ValueError(f"bad {value}")


def niceness() -> int:
    return os.nice(0)


def test_a_worker_that_dies_costs_nothing_and_a_deadly_task_is_given_up(tmp_path: Path) -> None:
    with WorkerPool(2, nothing, (), niceness=1) as pool:
        tasks = [pool.submit(double, number) for number in range(4)]
        tasks.insert(2, pool.submit(die_once, str(tmp_path / "marker"), 50))
        deadly = pool.submit(die, 1)
        late = [pool.submit(double, number) for number in range(4, 8)]
        assert [pool.result(task) for task in tasks] == [0, 2, 100, 4, 6]
        with pytest.raises(WorkerDied):
            pool.result(deadly)
        assert [pool.result(task) for task in late] == [8, 10, 12, 14]
        with pytest.raises(ValueError, match="bad 3"):
            pool.result(pool.submit(fail, 3))
        assert pool.result(pool.submit(niceness)) == os.nice(0) + 1


@pytest.mark.parametrize("given", ["file", "standard input"])
def test_workers_that_never_begin_are_no_fault_of_their_tasks(given: str, tmp_path: Path) -> None:
    """A script without a guard is run again by each worker: every picture was listed as one that ends its worker, and the run was done."""
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom concept_cam.collection.engines.pool import WorkerPool\n"
        "with WorkerPool(2, print, ()) as pool:\n    print('answer', pool.result(pool.submit(os.getpid)))\n",
        encoding="utf-8",
    )
    arguments = [str(script)] if given == "file" else ["-"]
    text = script.read_text(encoding="utf-8") if given == "standard input" else ""
    done = subprocess.run(
        [sys.executable, *arguments], input=text, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert "answer" not in done.stdout
    said = done.stderr.strip().splitlines()[-1]
    assert "worker processes cannot start" in said
    assert "if __name__ == '__main__':" in said
    assert "WorkerDied" not in done.stderr


def test_a_worker_that_dies_at_once_is_told_from_workers_that_cannot_begin() -> None:
    with WorkerPool(1, nothing, ()) as pool, pytest.raises(WorkerDied):
        pool.result(pool.submit(die, 1))


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = tmp_path / "parent.py"
    script.write_text(
        "import time, os\nfrom concept_cam.collection.engines.pool import WorkerPool\nfrom tests.collection.engines.test_pool "
        "import nothing\n"
        "if __name__ == '__main__':\n    pool = WorkerPool(1, nothing, ())\n    print(pool.result(pool.submit(os.getpid)), flush=True)\n  "
        "  time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[3])
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            break  # ended; nobody has collected it yet
        time.sleep(0.1)
    else:
        pytest.fail("the worker outlived its parent")


def die_of_a_neighbour(folder: str, value: int) -> int:
    """Is ended the first time it runs, as by the kernel when another process took the memory."""
    marker = Path(folder) / str(value)
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return 2 * value


def test_two_workers_killed_cost_no_good_task(tmp_path: Path) -> None:
    with WorkerPool(2, nothing, (), niceness=1) as pool:
        killed = pool.submit(die_of_a_neighbour, str(tmp_path), 7)
        good = [pool.submit(double, number) for number in range(6)]
        for _ in range(2):
            process = next(iter(pool._executor._processes.values()), None)
            if process is not None:
                process.kill()
        assert [pool.result(task) for task in good] == [0, 2, 4, 6, 8, 10]
        assert pool.result(killed) == 14
