"""What a query of an index costs, against what the machine's memory can deliver; prints a Markdown table.

    python examples/benchmarks/index_queries.py                                  # 1,000 pictures
    python examples/benchmarks/index_queries.py --pictures 1000 10000 --folder /big/disk
    python examples/benchmarks/index_queries.py --pictures 20000 --distinct 5000 # where memory cannot hold 11.8 GB

Synthetic features of the true size: per picture 576 patches of 512 numbers at unit length (a ViT-L/14 at 336 pixels), random, with one
patch in each picture drawn towards one of 32 topics so that rankings have something to find. Parts are written as ``concept-cam index``
writes them and read once to warm the cache. ``--distinct N`` writes so many pictures and gives their files further names until there are
``--pictures`` of them: the same bytes come from memory, and far more of them than any processor's cache holds, but the page cache needs
room for ``N`` only. Memory bandwidth is what summing the same mapped bytes as 8-byte integers reaches, in turn with the queries. Shares are
medians of the pairs, by the clock and by the processor time of the process (waiting for memory counts in both). The ranking of the distinct
pictures is compared with that of the float32 features that they were made from.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from timing import Paired

from concept_cam.commands.console import at_least_one, run_script

CELLS, WIDTH, GRID = 576, 512, (24, 24)
PART = 200
"""Pictures of a part."""


def features(start: int, count: int) -> np.ndarray:
    """Makes float32 [count, CELLS, WIDTH] unit features, the same for the same pictures."""
    generator = torch.Generator().manual_seed(start)
    topics = torch.nn.functional.normalize(torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(7)), dim=-1)
    found = torch.nn.functional.normalize(torch.randn(count, CELLS, WIDTH, generator=generator), dim=-1)
    which = torch.randint(32, (count,), generator=generator)
    strength = torch.rand(count, 1, generator=generator)
    found[:, 0] = torch.nn.functional.normalize(found[:, 0] + strength * topics[which], dim=-1)
    return found.numpy()


def write(folder: Path, pictures: int, distinct: int, dtype: str) -> Any:
    """Writes an index in parts, as it would be made; the parts of the distinct pictures get further names until there are enough."""
    import json

    from concept_cam.core.geometry import Geometry
    from concept_cam.index.codec import Codec
    from concept_cam.index.index import READING_SETTINGS, Index
    from concept_cam.index.storage import FORMAT, INDEX_PARTS, INFO_FILE, features_table
    from concept_cam.index.writing import write_part

    (folder / INDEX_PARTS).mkdir(parents=True, exist_ok=True)
    codec = Codec(dtype)
    geometry = json.dumps(Geometry("pad", (336, 336), (336, 336), GRID, (1.0, 1.0)).to_dict())
    for number, start in enumerate(range(0, pictures, PART)):
        if start >= distinct:
            same = number % (distinct // PART)
            os.link(folder / INDEX_PARTS / f"part-{same + 1:06d}.arrow", folder / INDEX_PARTS / f"part-{number + 1:06d}.arrow")
            continue
        count = min(PART, distinct - start)
        given = features(start, count)
        rows = [
            {"source": f"{start + row}.jpg", "image_key": str(start + row), "specimen": 0, "geometry": geometry, "attention": "kk",
            "views": "single"}
            for row in range(count)
        ]  # fmt: skip
        codes = [codec.encode(own) for own in given]
        write_part(folder, number + 1, features_table(rows, codes, given.mean(axis=1)))
    configuration = {
        "model": "synthetic", "weights_hash": "0", "settings": dict.fromkeys(READING_SETTINGS),
        "codec": {**codec.description, "basis": None}
    }  # fmt: skip
    info = {"format": FORMAT, "configuration": configuration, "counts": {}, "inputs": [], "sessions": []}
    (folder / INFO_FILE).write_text(json.dumps(info))
    return Index.open(folder)


def best(index: Any, directions: np.ndarray) -> np.ndarray:
    """The whole of a query that depends on the size of the index."""
    from concept_cam.index.search import best_patches, threads

    with threads() as spread:
        return np.concatenate([best_patches(part, index.codec, directions, spread=spread) for part in index.parts()], axis=1)


def read(index: Any) -> int:
    """Reads every byte of the features once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # mapped files are read-only
        return sum(int(torch.from_numpy(part.values.view(np.int64)).sum()) for part in index.parts())


class Some:
    """The first parts of an index, with as many pictures as asked for."""

    def __init__(self, index: Any, parts: int) -> None:
        self.codec, self._parts = index.codec, list(index.parts())[:parts]

    def parts(self) -> Any:
        """The parts."""
        return self._parts


def few_of(index: Any, pictures: int) -> Some:
    """Returns the first pictures of an index."""
    return Some(index, -(-pictures // PART))


def in_turn(first: Any, second: Any, pairs: int) -> tuple[Any, Any]:
    """Runs both in turn after one warm-up and returns, for each, its seconds and its processor seconds, pair by pair."""
    found: tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]] = (([], []), ([], []))
    for pair in range(pairs + 1):
        for own, work in zip(found, (first, second)):
            start, spent = time.perf_counter(), time.process_time()
            work()
            if pair:
                own[0].append(time.perf_counter() - start)
                own[1].append(time.process_time() - spent)
    return found


def reference(pictures: int, directions: np.ndarray) -> np.ndarray:
    """Best patches of the float32 features, in blocks."""
    asked = torch.from_numpy(directions)
    blocks = []
    for start in range(0, pictures, PART):
        given = torch.from_numpy(features(start, min(PART, pictures - start)))
        blocks.append((asked @ given.reshape(-1, WIDTH).T).reshape(len(directions), -1, CELLS).amax(dim=2).numpy())
    return np.concatenate(blocks, axis=1)


def main() -> None:
    """Writes the indexes, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=at_least_one, nargs="+", default=[1000])
    parser.add_argument("--distinct", type=int, help=f"write so many, a multiple of {PART}, and repeat them")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "int8"], choices=["float16", "int8"])
    parser.add_argument("--folder", type=Path, help="write the indexes here; they are removed at the end")
    parser.add_argument("--pairs", type=at_least_one, default=5)
    parser.add_argument("--many", type=at_least_one, default=1000, help="concepts of the second query")
    parser.add_argument("--many-pictures", type=at_least_one, help="ask the second query of so many pictures only")
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if arguments.distinct and (arguments.distinct % PART or any(count % arguments.distinct for count in arguments.pictures)):
        parser.error(f"--distinct must be a multiple of {PART}, and --pictures multiples of it.")
    torch.set_num_threads(arguments.threads)
    generator = np.random.default_rng(0)
    topics = torch.nn.functional.normalize(torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(7)), dim=-1).numpy()
    # A direction is a target less a contrast.
    directions = topics[generator.integers(0, 32, arguments.many)] - topics[generator.integers(0, 32, arguments.many)]
    directions += 0.05 * generator.normal(size=directions.shape)
    directions = directions.astype(np.float32)
    print(f"{arguments.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start\n")
    print(
        "| pictures (distinct) | kept as | bytes per picture | memory read, GB/s | 1 concept, GB/s "
        "| share by the clock (median, 95 % interval) | share by processor time | 1 concept, us per picture "
        f"| {arguments.many} concepts, us of a processor per picture | Spearman with float32, lowest of 32 "
        "| first 50 the same, mean, lowest | memory of its own of both queries, MiB |"
    )
    print("|" + "---|" * 12)
    for pictures in arguments.pictures:
        distinct = arguments.distinct or pictures
        truth = reference(distinct, directions[:32])
        for dtype in arguments.dtypes:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                index = write(Path(folder), pictures, distinct, dtype)
                size = sum(file.stat().st_size for _, file in index.files)
                values = sum(part.values.nbytes for part in index.parts())
                read(index)
                own = resident()
                reading, asking = in_turn(lambda: read(index), lambda: best(index, directions[:1]), arguments.pairs)
                share, low, high = Paired(reading[0], asking[0]).summary()
                share_spent, low_spent, high_spent = Paired(reading[1], asking[1]).summary()
                few = few_of(index, arguments.many_pictures or pictures)
                start = time.process_time()
                best(few, directions)
                many = (time.process_time() - start) / (arguments.many_pictures or pictures)
                grown = resident() - own
                found = best(few_of(index, distinct), directions[:32])
                ranks = min(spearmanr(one, other).statistic for one, other in zip(found, truth))
                same = [len(set(np.argsort(-one)[:50]) & set(np.argsort(-other)[:50])) / 50 for one, other in zip(found, truth)]
                one = float(np.median(asking[0]))
                print(
                    f"| {pictures:,} ({distinct:,}) | {dtype} | {size / pictures:,.0f} | {values / np.median(reading[0]) / 1e9:.1f} "
                    f"| {values / one / 1e9:.1f} | {share:.2f} ({low:.2f} to {high:.2f}) "
                    f"| {share_spent:.2f} ({low_spent:.2f} to {high_spent:.2f}) | {1e6 * one / pictures:.1f} | {1e6 * many:,.0f} "
                    f"| {ranks:.5f} | {np.mean(same):.4f}, {min(same):.2f} | {grown / 2**20:.0f} |",
                    flush=True,
                )
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def resident() -> float:
    """Peak of the memory that is this process's own, without mapped files where the system tells them apart."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


if __name__ == "__main__":
    run_script(main)
