"""Rendering ahead of the training, and mixing what was rendered into batches."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from training.config import TrainConfig
from training.pictures import Job, Pictures, gather, render_job


def choose_size(config: TrainConfig, step: int, rng: np.random.Generator) -> int:
    """A picture size for a step, as the step's phase wants it."""
    sizes = next((sizes for end, sizes in config.phases if step < end * config.steps), config.phases[-1][1])
    shares = np.array([share for _, share in sizes])
    return sizes[int(rng.choice(len(sizes), p=shares / shares.sum()))][0]


def plan(config: TrainConfig) -> Iterator[Job]:
    """The endless, deterministic list of batches to render; the size of job `j` depends on the configuration and `j` alone."""
    start = config.first_picture
    number = 0
    while True:
        rng = np.random.default_rng((config.seed, 17, number))
        size = choose_size(config, number * config.reuse, rng)
        windows = config.windows if rng.random() < config.window_share else 0
        regions = 0
        if rng.random() < config.region_share:
            windows, regions = 0, config.regions
            size = int(rng.choice(config.region_sizes))
        count = max(8, round(config.batch * (128 / size) ** 2 / (1 + windows)))
        yield Job(size, count, start, round(config.twins * count), windows, regions)
        start += count
        number += 1


def _render_loop(jobs: Any, results: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    os.nice(3)  # Training goes first: the queue keeps the renderer ahead.
    parent = torch.multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        try:
            job = jobs.get(timeout=10)
        except queue.Empty:
            continue
        pictures = render_job(job)
        pictures.images.share_memory_()
        results.put(pictures)


class Renderer:
    """Renders the plan ahead of the training, in other processes, in order.

    Args:
        config: The run.
        workers: Processes; 0 renders in this one.
        skip: Jobs of the plan that are already used up.
        ahead: Batches that each process may be ahead.
    """

    def __init__(self, config: TrainConfig, workers: int = 1, skip: int = 0, ahead: int = 4) -> None:
        self._jobs = plan(config)
        for _ in range(skip):
            next(self._jobs)
        self._workers: list[Any] = []
        self._queues: list[tuple[Any, Any]] = []
        self._turn = 0
        if workers:
            context = torch.multiprocessing.get_context("spawn")
            for _ in range(workers):
                jobs, results = context.Queue(), context.Queue()
                process = context.Process(target=_render_loop, args=(jobs, results, 1), daemon=True)
                process.start()
                self._workers.append(process)
                self._queues.append((jobs, results))
            for _ in range(ahead):
                for jobs, _ in self._queues:
                    jobs.put(next(self._jobs))

    def __next__(self) -> Pictures:
        if not self._workers:
            return render_job(next(self._jobs))
        jobs, results = self._queues[self._turn]
        while True:
            try:
                batch = results.get(timeout=20)
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
    """Turns rendered batches into training batches: each is used `reuse` times, mixed with others of its size.

    Deterministic: which pictures step `k` sees depends on the seed and `k`.
    """

    def __init__(self, config: TrainConfig, workers: int = 1, step: int = 0) -> None:
        self.config = config
        used = -(-step // config.reuse)
        # After a restart the pool begins anew with the last few batches before this step.
        warm = min(used, 12)
        self.renderer = Renderer(config, workers, skip=used - warm)
        self.pools: dict[tuple[int, int], list[Pictures]] = {}
        self.kind = (0, 0)
        self.step = step
        for _ in range(warm):
            self._add()

    def _add(self) -> None:
        pictures = next(self.renderer)
        self.kind = (pictures.images.shape[-1], pictures.boxes.shape[1])
        self.pools[self.kind] = [*self.pools.get(self.kind, []), pictures][-self.config.pool :]

    def __next__(self) -> Pictures:
        rng = np.random.default_rng((self.config.seed, 29, self.step))
        if self.step % self.config.reuse == 0:
            self._add()
            pictures = self.pools[self.kind][-1]
        else:
            # Pictures of the same kind as the last batch, from all over the pool.
            pool = self.pools[self.kind]
            chosen = [pool[int(b)] for b in rng.integers(len(pool), size=len(pool[-1]))]
            pictures = gather([batch[int(rng.integers(len(batch)))] for batch in chosen])
        self.step += 1
        return pictures
