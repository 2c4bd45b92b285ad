"""Features times directions over a whole index, at the speed at which memory can be read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from concept_cam.index.codec import Codec
from concept_cam.index.storage import Part

__all__ = ["best_patches", "products", "ranking", "threads"]

DIRECT = 4
"""Up to so many directions float16 codes are multiplied as they are; the product then waits for memory. Beyond, it waits for the processor,
which multiplies float32 many times as fast, and blocks are converted."""

BLOCK_BYTES = 2 << 20
"""Size of a block of converted codes: it must stay in a core's own cache between its conversion and its product."""

SCORES_BYTES = 32 << 20
"""Most bytes of a block's scores."""

ENTRIES_AT_ONCE = 64
"""Entries that a thread takes at once."""

Spread = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]


@contextmanager
def threads() -> Iterator[Spread]:
    """Yields a ``map`` over as many threads as torch may use, each of which computes alone: many small products, none of which waits for
    another.
    """
    count = torch.get_num_threads()
    if count == 1:
        yield map
        return
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(count)


def products(values: np.ndarray, scales: np.ndarray | None, queries: Tensor, multiple: int = 1) -> Iterator[tuple[int, Tensor]]:
    """Multiplies codes with directions, block by block.

    Args:
        values: float16 or int8 [P, K].
        scales: float32 [P] for int8.
        queries: float32 [C, K].
        multiple: Blocks hold a multiple of so many patches.

    Yields:
        The first patch of a block and its scores float32 [C, N]; float16 directions cost up to 1e-4 of precision.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the mapped file is read-only, and so is what is done with it
        codes = torch.from_numpy(values)
    direct = values.dtype == np.float16 and len(queries) <= DIRECT
    rows = SCORES_BYTES // (4 * len(queries))
    if not direct:
        rows = min(rows, BLOCK_BYTES // (4 * values.shape[1]))
    step = max(1, rows // multiple) * multiple
    asked = queries.half() if direct else queries
    for start in range(0, len(values), step):
        block = codes[start : start + step]
        scores = (asked @ block.T).float() if direct else asked @ block.float().T
        if scales is not None:
            scores *= torch.from_numpy(np.array(scales[start : start + step]))
        yield start, scores


def best_patches(part: Part, codec: Codec, directions: np.ndarray, feature_norm: str = "l2", spread: Spread = map) -> np.ndarray:
    """Returns the score of each entry's best patch along each direction, float32 [C, N]; minus infinity where the model saw nothing.

    Args:
        part: A part of an index.
        codec: How it keeps features.
        directions: float32 [C, D].
        feature_norm: A name of :data:`concept_cam.core.scoring.FEATURE_NORM`.
        spread: What :func:`threads` yields.
    """
    queries = torch.from_numpy(np.ascontiguousarray(codec.queries(directions), dtype=np.float32))
    best = np.full((len(queries), len(part)), -np.inf, dtype=np.float32)
    first, values, scales, norms, blind = part.first, part.values, part.scales, part.norms, part.blind

    def look(low: int) -> None:
        high = min(low + ENTRIES_AT_ONCE, len(part))
        whole = slice(int(first[low]), int(first[high]))
        own = first[low : high + 1] - first[low]
        own_scales = None if scales is None else scales[whole]
        # Blocks end where entries end, as long as these are of one size.
        for start, block in products(values[whole], own_scales, queries, max(1, int(own[1]))):
            scores = block.numpy()
            stop = start + scores.shape[1]
            if feature_norm == "none":
                scores *= norms[whole][start:stop]
            hidden = blind[np.searchsorted(blind, whole.start + start) : np.searchsorted(blind, whole.start + stop)] - whole.start - start
            scores[:, hidden] = -np.inf
            begin = int(np.searchsorted(own, start, "right")) - 1
            end = int(np.searchsorted(own, stop, "left"))  # entries begin ... end - 1 lie in the block, wholly or in part
            edges = np.clip(own[begin:end] - start, 0, None)
            cells = np.diff(np.append(edges, scores.shape[1]))
            if (cells[0] == cells).all():
                peaks = block.reshape(len(queries), len(cells), -1).amax(dim=2).numpy()
            else:
                peaks = np.maximum.reduceat(scores, edges, axis=1)
            best[:, low + begin : low + end] = np.maximum(best[:, low + begin : low + end], peaks)

    for _ in spread(look, range(0, len(part), ENTRIES_AT_ONCE)):
        pass
    return best


def ranking(values: np.ndarray, top: int) -> np.ndarray:
    """Returns the positions of the highest values float32 [N], highest first, of equal ones the first; minus infinity and NaN never
    rank.
    """
    known = np.flatnonzero(np.isfinite(values))
    values = values[known]
    if top < len(values):
        least = np.partition(values, len(values) - top)[len(values) - top]
        kept = np.flatnonzero(values >= least)
        known, values = known[kept], values[kept]
    return known[np.lexsort((known, -values))][:top]
