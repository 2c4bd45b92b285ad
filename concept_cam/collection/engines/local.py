"""The engine of one machine: worker processes read pictures and measure regions while the model works in this process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from concept_cam.collection.engines.annotator import Annotator, Answers, Options, answers_of
from concept_cam.collection.engines.pool import Task, WorkerDied, WorkerPool
from concept_cam.collection.inputs.items import Item
from concept_cam.collection.plan import Plan
from concept_cam.collection.reading import Loaded, load_item
from concept_cam.collection.records import Scored

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["processors", "run"]

DIED = "its worker process was ended twice while reading it (out of memory, or a file that crashes the decoder)."


def processors() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_PLAN: list[Plan] = []
"""The plan of a worker process, set once when it starts."""


def _set_plan(plan: Plan) -> None:
    _PLAN[:] = [plan]


def _load(item: Item) -> Loaded:
    return load_item(item, _PLAN[0])


def _measure(scored: list[tuple[Loaded, list[Scored]]]) -> Answers:
    return answers_of(scored, _PLAN[0])


def run(
    items: Iterable[Item],
    plan: Plan,
    localizer: Localizer,
    options: Options,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Answers]:
    """See :class:`concept_cam.collection.engines.annotator.Engine`.

    Reading runs about two batches ahead of the model and measuring one behind it, so that memory stays flat and the model never waits as
    long as the workers keep up.
    """
    workers = processors() if options.workers is None else options.workers
    annotator = Annotator(localizer, plan)
    batch = localizer.settings.batch_size
    if workers == 0:
        yield from _in_process(items, annotator, batch, stop)
        return
    with WorkerPool(workers, _set_plan, (plan,)) as pool:
        source = iter(items)
        reading: deque[tuple[Item, Task]] = deque()
        measuring: deque[tuple[list[Any], Task]] = deque()

        def refill() -> None:
            while len(reading) < 2 * batch + workers and (item := next(source, None)) is not None:
                reading.append((item, pool.submit(_load, item)))

        refill()
        while reading and not stop():
            loaded: list[Loaded] = []
            while reading and len(loaded) < batch and sum(len(found.crops) for found in loaded) < batch:
                item, task = reading.popleft()
                loaded.append(_read(pool, item, task))
                refill()
            scored = annotator.score(loaded)
            if plan.codec is not None:  # nothing to measure, and features are too large to be sent about
                yield answers_of(scored, plan)
                continue
            measuring.append((scored, pool.submit(_measure, scored)))
            while len(measuring) > 1:
                yield _measured(pool, *measuring.popleft(), plan)
        while measuring:
            yield _measured(pool, *measuring.popleft(), plan)


def _read(pool: WorkerPool, item: Item, task: Task) -> Loaded:
    try:
        found: Loaded = pool.result(task)
    except WorkerDied:
        return Loaded(item, errors=(DIED,))
    return found


def _measured(pool: WorkerPool, scored: list[tuple[Loaded, list[Scored]]], task: Task, plan: Plan) -> Answers:
    try:
        found: Answers = pool.result(task)
    except WorkerDied:
        return answers_of(scored, plan)  # plain arithmetic; it was not this that killed the worker
    return found


def _in_process(items: Iterable[Item], annotator: Annotator, batch: int, stop: Callable[[], bool]) -> Iterator[Answers]:
    chunk: list[Item] = []
    for item in items:
        if stop():
            return
        chunk.append(item)
        if len(chunk) == batch:
            yield annotator(chunk)
            chunk = []
    if chunk and not stop():
        yield annotator(chunk)
