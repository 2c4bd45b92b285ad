"""Features times directions over a whole index, at the speed at which memory can be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from concept_cam.index.codec import Codec
from concept_cam.index.storage import Part

__all__ = ["best_patches", "products", "ranking"]

DIRECT = 4
"""Up to so many directions float16 codes are multiplied as they are; the product then waits for memory. Beyond, it waits for the processor, which
multiplies float32 many times as fast, and blocks are converted."""

BLOCK_BYTES = 32 << 20
"""Size of a block of converted codes and its scores: it must be small beside the memory, and large beside the cost of starting a product."""


def products(values: np.ndarray, scales: np.ndarray | None, queries: np.ndarray, multiple: int = 1) -> Iterable[tuple[int, Tensor]]:
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
    asked = torch.from_numpy(np.ascontiguousarray(queries))
    direct = values.dtype == np.float16 and len(queries) <= DIRECT
    width = 4 * len(queries) if direct else 4 * (len(queries) + values.shape[1])
    step = max(1, BLOCK_BYTES // width // multiple) * multiple
    half = asked.half() if direct else asked
    for start in range(0, len(values), step):
        block = codes[start : start + step]
        scores = (half @ block.T).float() if direct else asked @ block.float().T
        if scales is not None:
            scores *= torch.from_numpy(np.array(scales[start : start + step]))
        yield start, scores


def best_patches(part: Part, codec: Codec, directions: np.ndarray, feature_norm: str = "l2") -> np.ndarray:
    """Returns the score of each entry's best patch along each direction, float32 [C, N]; minus infinity where the model saw nothing.

    Args:
        part: A part of an index.
        codec: How it keeps features.
        directions: float32 [C, D].
        feature_norm: A name of :data:`concept_cam.core.scoring.FEATURE_NORM`.
    """
    queries = codec.queries(directions)
    first, count = part.first, len(part)
    best = np.full((len(queries), count), -np.inf, dtype=np.float32)
    blind = part.blind
    # Blocks end where entries end, as long as these are of one size.
    for start, block in products(part.values, part.scales, queries, max(1, int(first[1] - first[0])) if count else 1):
        scores = block.numpy()
        stop = start + scores.shape[1]
        if feature_norm == "none":
            scores *= part.norms[start:stop]
        hidden = blind[np.searchsorted(blind, start) : np.searchsorted(blind, stop)] - start
        scores[:, hidden] = -np.inf
        low = int(np.searchsorted(first, start, "right")) - 1
        high = int(np.searchsorted(first, stop, "left"))  # entries low ... high - 1 lie in the block, wholly or in part
        edges = np.clip(first[low:high] - start, 0, None)
        cells = np.diff(np.append(edges, scores.shape[1]))
        if len(cells) > 2 and (cells[0] == cells).all():
            peaks = block.reshape(len(queries), len(cells), -1).amax(dim=2).numpy()
        else:
            peaks = np.maximum.reduceat(scores, edges, axis=1)
        best[:, low:high] = np.maximum(best[:, low:high], peaks)
    return best


def ranking(values: np.ndarray, top: int) -> np.ndarray:
    """Returns the positions of the highest values float32 [N], highest first, of equal ones the first; minus infinity and NaN never rank."""
    known = np.flatnonzero(np.isfinite(values))
    values = values[known]
    if top < len(values):
        least = np.partition(values, len(values) - top)[len(values) - top]
        kept = np.flatnonzero(values >= least)
        known, values = known[kept], values[kept]
    return known[np.lexsort((known, -values))][:top]
