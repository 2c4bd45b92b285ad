"""Worker processes that may be killed: what a dead worker had in hand is done again, alone; what kills a worker of its own twice is given
up.

A worker that dies takes the whole pool with it, and with it what the others had in hand. So a task's death there says little about it: only
deaths in a worker of its own count, where nothing but the task, or a machine without memory, can be the cause.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from concept_cam.core.errors import ConfigurationError

__all__ = ["Task", "WorkerDied", "WorkerPool"]


ALONE = 2
"""Tries in a worker of its own."""


class WorkerDied(Exception):
    """A task ended a worker process of its own twice."""


@dataclass(eq=False)
class Task:
    """A call in a worker process."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any] | None = None
    deaths: int = field(default=0)


class WorkerPool:
    """A pool of worker processes.

    Workers are started afresh (``spawn``): nothing of this process, such as a loaded model or its threads, is copied into them. They yield
    to the model's process (lower priority), leave Ctrl-C to it, and end with it, however it ends.

    Args:
        workers: Number of processes, at least 1.
        initializer: Called in every new process.
        arguments: Its arguments.
        niceness: How far the workers' priority is lowered.
    """

    def __init__(self, workers: int, initializer: Callable[..., None], arguments: tuple[Any, ...], niceness: int = 5) -> None:
        self._workers, self._initializer, self._arguments, self._niceness = (
            workers,
            initializer,
            arguments,
            niceness,
        )
        self._pending: dict[int, Task] = {}
        self._begun = False
        self._executor = self._start(workers)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        arguments = (self._niceness, self._initializer, self._arguments)
        return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=arguments)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pending.clear()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Task:
        """Starts a call."""
        task = Task(function, arguments)
        self._pending[id(task)] = task
        self._send(task)
        return task

    def _send(self, task: Task) -> None:
        while task.future is None:
            try:
                task.future = self._executor.submit(task.function, *task.arguments)
            except BrokenProcessPool:
                self._revive()

    def result(self, task: Task) -> Any:
        """Waits for a call and returns its result.

        Raises:
            WorkerDied: The call ends its worker process again and again.
            ConfigurationError: No worker process can start.
        """
        while True:
            future = task.future
            assert future is not None
            try:
                outcome = future.result()
            except BrokenProcessPool:
                if task.future is future:
                    self._revive()
                continue
            self._pending.pop(id(task), None)
            return outcome

    def _revive(self) -> None:
        """Starts new workers and repeats what was lost; tasks that were lost before run alone, so that the deadly one shows."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._require_start()
        lost = [task for task in self._pending.values() if task.future is None or not _finished(task.future)]
        for task in lost:
            # What had not begun when the pool died has not died.
            task.deaths += task.future is not None and not task.future.cancelled()
            task.future = self._alone(task) if task.deaths > 1 else None
        self._executor = self._start(self._workers)
        for task in lost:
            if task.future is None:
                try:
                    task.future = self._executor.submit(task.function, *task.arguments)
                except BrokenProcessPool:  # killed again at once
                    task.future = self._alone(task)

    def _require_start(self) -> None:
        """Tells, where workers died before any of them answered, a task that kills its worker from workers that never begin."""
        if self._begun or any(task.future is not None and _finished(task.future) for task in self._pending.values()):
            self._begun = True
            return
        for _ in range(ALONE):
            executor = self._start(1)
            try:
                executor.submit(os.getpid).result()
                self._begun = True
                return
            except BrokenProcessPool:
                continue
            finally:
                executor.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        raise ConfigurationError(
            "worker processes cannot start: each imports the script that started it, and so runs it again from its top. Put the call under "
            "if __name__ == '__main__': in a script that is a file, or give workers=0 (--workers 0)."
        )

    def _alone(self, task: Task) -> Future[Any]:
        """Runs a task in a worker of its own, and once more if that dies too: what killed it may have been a want of memory that has
        passed.
        """
        outcome: Future[Any] = Future()
        for _ in range(ALONE):
            executor = self._start(1)
            try:
                outcome.set_result(executor.submit(task.function, *task.arguments).result())
                return outcome
            except BrokenProcessPool:
                continue
            except Exception as error:  # the task's own
                outcome.set_exception(error)
                return outcome
            finally:
                executor.shutdown(wait=True, cancel_futures=True)
        outcome.set_exception(WorkerDied())
        return outcome


def _finished(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)


def _begin(niceness: int, initializer: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """First call in every worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(niceness)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A parent that is killed closes no queue: without this its workers would wait for ever.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    initializer(*arguments)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
