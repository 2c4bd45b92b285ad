"""The engine for many machines: Ray Data with one stateful worker, model included, per actor.

Pictures are handed to Ray in chunks that this process can hold: a chunk of paths is tiny, a chunk of a Parquet table or tar shard carries
the pictures themselves. Actors are started afresh for each chunk, so chunks are large. Order, and so the output, is that of the input.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from concept_cam.backbones.portable import Named, Packed, portable
from concept_cam.collection.engines.annotator import Annotator, Answers, Options
from concept_cam.collection.engines.local import processors
from concept_cam.collection.inputs.items import Blob, Buffer, Item
from concept_cam.collection.plan import Plan
from concept_cam.core.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["RayWorker", "chunks", "run"]

CHUNK_PICTURES, CHUNK_BYTES = 20_000, 1 << 30
"""A chunk ends after so many pictures, or so many bytes of pictures that came out of tables and archives."""


class RayWorker:
    """A stateful actor of ``map_batches``: the same :class:`~concept_cam.collection.engines.annotator.Annotator` as everywhere.

    Args:
        model: The model, as :func:`concept_cam.backbones.portable.portable` gives it.
        settings: How pictures are read and scored.
        plan: What is asked.
        threads: Threads of the model in this actor; 0 leaves them alone.
    """

    def __init__(self, model: Packed | Named, settings: Any, plan: Plan, threads: int = 0) -> None:
        import torch

        from concept_cam.localizer import Localizer

        if threads:
            torch.set_num_threads(threads)
        self._annotator = Annotator(Localizer(model.load(), settings), plan)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Annotates a batch; items and answers travel as bytes within one trusted cluster, as all of Ray's own objects do."""
        items = [pickle.loads(bytes(item)) for item in batch["item"]]
        return {"answers": [pickle.dumps(self._annotator(items))]}


def chunks(items: Iterable[Item], stop: Callable[[], bool] = lambda: False) -> Iterator[list[Item]]:
    """Splits a stream of pictures into lists that fit in memory."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        if stop():
            return
        chunk.append(item)
        if isinstance(item.payload, (Blob, Buffer)):
            size += len(item.payload.content)
        if len(chunk) >= CHUNK_PICTURES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def run(
    items: Iterable[Item],
    plan: Plan,
    localizer: Localizer,
    options: Options,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Answers]:
    """See :class:`concept_cam.collection.engines.annotator.Engine`.

    ``workers`` is the number of actors: one per GPU of the cluster, or on CPUs one for every eight processors.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigurationError: The cluster cannot be reached.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "the engine 'ray'") from error
    started = not ray.is_initialized()
    if started:
        _connect(ray, options.ray_address)
    try:
        context = ray.data.DataContext.get_current()
        order, context.execution_options.preserve_order = context.execution_options.preserve_order, True
        bars, context.enable_progress_bars = context.enable_progress_bars, False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # the run has a progress display of its own
        try:
            model = portable(localizer.backbone, localizer.dtype_name, ray.cloudpickle.dumps)
            for chunk in chunks(items, stop):
                yield from _chunk(ray, chunk, plan, localizer, model, options, stop)
        finally:
            context.execution_options.preserve_order, context.enable_progress_bars = order, bars
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    try:
        with _own_signals():
            if address is None:
                _start(ray)
            else:
                _reach(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises many kinds
        where = "start Ray on this machine" if address is None else f"reach the Ray cluster {address!r}"
        raise ConfigurationError(f"cannot {where}: {error}") from error


def _start(ray: Any) -> None:
    """Starts Ray here; tries again once, since its processes wait for each other for a fixed time, too short for a busy machine."""
    # Workers of this machine import what this process imports, wherever it found it.
    paths = os.pathsep.join(path for path in sys.path if path)
    for last in (False, True):
        try:
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                num_cpus=processors(),
                runtime_env={"env_vars": {"PYTHONPATH": paths}},
            )
            return
        except Exception:
            ray.shutdown()
            if last:
                raise


def _reach(address: str) -> None:
    """Checks that something listens at ``host:port``: Ray itself tries for a quarter of an hour before it gives up.

    Raises:
        OSError: Nothing does.
    """
    host, separator, port = address.rpartition("//")[2].rpartition(":")
    if separator and port.isdigit():  # else a word of Ray's own, such as "auto"
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps Ray from taking over SIGTERM, which ends a run cleanly after the batch in flight."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _chunk(
    ray: Any, chunk: list[Item], plan: Plan, localizer: Localizer, model: Any, options: Options, stop: Callable[[], bool]
) -> Iterator[Answers]:
    resources = ray.cluster_resources()
    on_gpu = localizer.backbone.device.type == "cuda"
    processors_of_cluster = int(resources.get("CPU", 1))
    actors = options.workers or (int(resources.get("GPU", 1)) if on_gpu else max(1, processors_of_cluster // 8))
    threads = 0 if on_gpu else max(1, processors_of_cluster // actors)
    batch = localizer.settings.batch_size
    # Enough blocks that every actor has work; whole batches, so that none is computed in small change.
    blocks = max(1, min(len(chunk) // batch, 50 * actors))
    data = ray.data.from_items([{"item": pickle.dumps(item)} for item in chunk], override_num_blocks=blocks)
    answers = data.map_batches(
        RayWorker,
        fn_constructor_args=(model, localizer.settings, plan, threads),
        compute=ray.data.ActorPoolStrategy(size=actors),
        batch_size=batch,
        num_gpus=1 if on_gpu else None,
        num_cpus=None if on_gpu else 1,
    )
    for row in answers.iter_rows():
        yield pickle.loads(row["answers"])
        if stop():
            return
