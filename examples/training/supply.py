"""Rendering ahead of the training, and mixing what was rendered into batches."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from training.config import TrainConfig
from training.pictures import TENSORS, Job, Pictures, gather, render_job


def plan(config: TrainConfig) -> Iterator[tuple[Job, ...]]:
    """The endless, deterministic list of batches to render, a job for each group; batch `j` depends on the configuration and `j` alone."""
    start, number = config.first_picture, 0
    while True:
        rng = np.random.default_rng((config.seed, 17, number))
        size = config.sides[int(rng.integers(len(config.sides)))]
        yield tuple(
            Job(world, size, count, start, round(config.twins * count), round(config.whole * count), config.photographs)
            for world, count in config.worlds.items()
            if count
        )
        start += config.batch
        number += 1


def _render_loop(jobs: Any, results: Any, device: str) -> None:
    torch.set_num_threads(1)
    os.nice(3)  # Training goes first: the queue keeps the renderer ahead.
    parent = torch.multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        try:
            job = jobs.get(timeout=10)
        except queue.Empty:
            continue
        batch = render_jobs(job, device)
        for pictures in batch:
            for name in TENSORS:
                getattr(pictures, name).share_memory_()
        results.put(batch)


def render_jobs(jobs: tuple[Job, ...], device: str) -> tuple[Pictures, ...]:
    """Renders one batch, group by group."""
    return tuple(render_job(job, device) for job in jobs)


class Renderer:
    """Renders the plan ahead of the training, in other processes, in order.

    Args:
        config: The run.
        workers: Processes; 0 renders in this one.
        skip: Jobs of the plan that are already used up.
        ahead: Batches that each process may be ahead.
        device: Where pictures are rendered.
    """

    def __init__(self, config: TrainConfig, workers: int = 1, skip: int = 0, ahead: int = 3, device: str = "cpu") -> None:
        self._jobs = plan(config)
        self._device = device
        for _ in range(skip):
            next(self._jobs)
        self._workers: list[Any] = []
        self._queues: list[tuple[Any, Any]] = []
        self._turn = 0
        if workers:
            context = torch.multiprocessing.get_context("spawn")
            for _ in range(workers):
                jobs, results = context.Queue(), context.Queue()
                process = context.Process(target=_render_loop, args=(jobs, results, device), daemon=True)
                process.start()
                self._workers.append(process)
                self._queues.append((jobs, results))
            for _ in range(ahead):
                for jobs, _ in self._queues:
                    jobs.put(next(self._jobs))

    def __next__(self) -> tuple[Pictures, ...]:
        if not self._workers:
            return render_jobs(next(self._jobs), self._device)
        jobs, results = self._queues[self._turn]
        while True:
            try:
                shared: tuple[Pictures, ...] = results.get(timeout=20)
                # A copy of one's own: shared memory holds a file open for every tensor.
                batch = tuple(Pictures(each.world, *(getattr(each, name).clone() for name in TENSORS)) for each in shared)
                break
            except queue.Empty as error:
                if not self._workers[self._turn].is_alive():
                    raise RuntimeError("a rendering process ended early; its message is above.") from error
        jobs.put(next(self._jobs))
        self._turn = (self._turn + 1) % len(self._workers)
        return batch

    def close(self) -> None:
        """Ends the processes."""
        for process in self._workers:
            process.terminate()
            process.join()


class Mixer:
    """Turns rendered batches into training batches: each is used `reuse` times, later on in halves mixed with others of its size.

    Deterministic: which pictures step `k` sees depends on the seed and `k`.

    Args:
        config: The run.
        workers: Rendering processes.
        step: The step that comes next.
        device: Where pictures are rendered.
        kept_on: Where they are kept and mixed: beside what is trained on them, so that each crosses over once.
    """

    def __init__(self, config: TrainConfig, workers: int = 1, step: int = 0, device: str = "cpu", kept_on: str = "cpu") -> None:
        self.config, self.kept_on = config, kept_on
        used = -(-step // config.reuse)
        # After a restart the pool begins anew with the last few batches before this step.
        warm = min(used, config.pool // 2)
        self.renderer = Renderer(config, workers, skip=used - warm, device=device)
        self.pools: dict[tuple[int, ...], list[tuple[Pictures, ...]]] = {}
        self.kind: tuple[int, ...] = ()
        self.step = step
        for _ in range(warm):
            self._add()

    def _add(self) -> None:
        batch = tuple(pictures.to(self.kept_on) for pictures in next(self.renderer))
        self.kind = tuple(batch[0].images.shape[-2:])
        self.pools[self.kind] = [*self.pools.get(self.kind, []), batch][-self.config.pool :]

    def __next__(self) -> tuple[Pictures, ...]:
        rng = np.random.default_rng((self.config.seed, 29, self.step))
        if self.step % self.config.reuse == 0:
            self._add()
            batch = self.pools[self.kind][-1]
        else:
            pool = self.pools[self.kind]
            first, second = (pool[int(b)] for b in rng.integers(len(pool), size=2))
            batch = tuple(_mixed(one, other, rng) for one, other in zip(first, second, strict=True))
        self.step += 1
        return batch


def _mixed(one: Pictures, other: Pictures, rng: np.random.Generator) -> Pictures:
    """Half of each of two batches of a group; pairs of a picture and its twin stay together."""
    return gather([_some(one, len(one) // 2, rng), _some(other, len(one) - len(one) // 2, rng)])


def _some(batch: Pictures, count: int, rng: np.random.Generator) -> Pictures:
    """`count` pictures of a batch, each with its twin but for the last where that is one too many.

    Always as many, for a graphics card prepares its convolutions anew for every number of pictures.
    """
    twin = batch.twin.cpu().numpy()
    first = np.flatnonzero(twin >= np.arange(len(batch)))
    rows: list[int] = []
    for row in rng.permutation(first):
        rows += dict.fromkeys((int(row), int(twin[row])))
        if len(rows) >= count:
            break
    return batch[torch.tensor(rows[:count], dtype=torch.long, device=batch.twin.device)]
