"""Speed and memory of ``concept_cam.annotate`` against the model's own ``encode_image``; prints a Markdown table.

    python examples/benchmarks/annotate_throughput.py                      # ViT-B/16, random weights, 200 pictures
    python examples/benchmarks/annotate_throughput.py --pictures 200 2000  # and whether memory stays flat

Every number of pictures is a run of its own in a fresh process: JPEG files of 640 x 480 pixels are read from disk, annotated with 20
characters and written as a Parquet data set. In turn with it, in the same process, the model's own ``encode_image`` runs on tensors that
are in memory already, at the same batch size: the most that any annotator could reach. Random weights cost the same time as trained ones.

Two shares are printed: by the clock, and by processor time (of all processes), which other work on the machine disturbs less and which is
what counts where all processors are busy. With ``--workers 0 --threads 1`` both count the same work in one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from concept_cam.commands.console import above_zero, at_least_one, run_script

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # As the command sets it, before torch is imported.

DISTINCT = 50
"""Different pictures; larger collections repeat them under other names."""


def write_pictures(folder: Path, count: int) -> None:
    """Writes JPEG files of 640 x 480 pixels with structure at all scales, about 100 kB each."""
    contents = []
    for seed in range(min(count, DISTINCT)):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(coarse)
        for _ in range(40):
            x, y = rng.integers(0, 600), rng.integers(0, 440)
            colour = tuple(int(value) for value in rng.integers(0, 256, 3))
            draw.ellipse((x, y, x + int(rng.integers(10, 160)), y + int(rng.integers(10, 90))), fill=colour)
        noise = Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1))
        path = folder / f"{seed:05d}.jpg"
        Image.blend(coarse, noise, 0.15).save(path, quality=90)
        contents.append(path.read_bytes())
    for number in range(len(contents), count):
        (folder / f"{number:05d}.jpg").write_bytes(contents[number % len(contents)])


def load(architecture: str, dtype: str, folder: Path) -> Any:
    """Loads an open_clip architecture with random weights."""
    from concept_cam.backbones.torchvision_compat import import_open_clip
    from concept_cam.core.names import choose
    from concept_cam.localizer import Localizer

    open_clip = import_open_clip()
    choose(architecture, dict.fromkeys(open_clip.list_models()), "architecture")
    path = folder / f"{architecture}.safetensors"
    if not path.exists():
        import torch
        from safetensors.torch import save_model

        torch.manual_seed(0)
        save_model(open_clip.create_model(architecture), str(path))
    return Localizer.from_pretrained(f"{architecture}:{path}", device="cpu", dtype=dtype)


def traits(count: int) -> list[str]:
    """Returns specifications of the first ``count`` characters of the shipped packs."""
    from concept_cam import prompts

    names = [f"{pack}:{character.name}" for pack in ("fish", "bird") for character in prompts.load_pack(pack).characters]
    return names[:count]


def rate(work: Any, pictures: int, seconds: float) -> tuple[float, float]:
    """Returns pictures per second, and processor seconds per picture, of repeated calls that take ``pictures`` each."""
    work()
    start, spent, done = time.perf_counter(), processor_seconds(), 0
    while time.perf_counter() - start < seconds:
        work()
        done += pictures
    return done / (time.perf_counter() - start), (processor_seconds() - spent) / done


def processor_seconds() -> float:
    """Returns the processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


class Memory(threading.Thread):
    """Samples the memory of this process and its children: proportional set size, so that shared pages count once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stop_sampling = threading.Event()

    def run(self) -> None:
        """Samples until it is stopped."""
        while not self._stop_sampling.wait(0.25):
            self.peak = max(self.peak, sum(self._pss(pid) for pid in self._family()))

    def stop(self) -> float:
        """Stops and returns the peak in MiB."""
        self._stop_sampling.set()
        self.join()
        return self.peak / 1024

    @staticmethod
    def _family() -> list[int]:
        own = os.getpid()
        family = [own]
        for task in Path(f"/proc/{own}/task").iterdir():
            try:
                family += [int(pid) for pid in (task / "children").read_text().split()]
            except OSError:
                continue
        return family

    @staticmethod
    def _pss(pid: int) -> int:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1])
        except OSError:
            pass
        return 0


def measure(arguments: argparse.Namespace, count: int, folder: Path) -> dict[str, Any]:
    """One run in this process: ``encode_image`` and annotating in turn."""
    import torch

    from concept_cam.collection.annotation import annotate
    from concept_cam.collection.calls import Limits

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    localizer = load(arguments.architecture, arguments.dtype, folder)
    backbone = localizer.backbone
    batch = arguments.batch_size
    height, width = backbone.preprocess.default_size
    pixels = torch.randn(batch, 3, height, width).to(backbone.dtype)
    encode, tower = backbone.encode_patches, [0.0]

    def timed(*given: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return encode(*given, **named)
        finally:
            tower[0] += time.process_time() - start

    backbone.encode_patches = timed

    def own() -> None:
        with torch.inference_mode():
            backbone.model.encode_image(pixels)

    inputs = folder / f"in-{count}"
    if not inputs.exists():
        inputs.mkdir()
        write_pictures(inputs, count)

    def annotated() -> dict[str, float]:
        marks: list[tuple[float, int]] = []
        spent: list[float] = []
        tower[0] = 0.0

        def ready(*_: Any) -> None:
            # The model is loaded and the packs' texts are embedded, once for all runs; the clock starts here.
            spent.append(processor_seconds())
            marks.append((time.perf_counter(), 0))

        with tempfile.TemporaryDirectory(dir=folder) as output:
            run = annotate(
                inputs,
                Path(output) / "run",
                traits(arguments.characters),
                localizer=localizer,
                limits=Limits(
                    host=0.0, probability=0.0, score=-10.0, part_probability=0.0
                ),  # random weights find nothing; nobody may abstain from measuring
                batch_size=batch,
                workers=arguments.workers,
                ready=ready,
                progress=lambda progress: marks.append((time.perf_counter(), progress.done)),
            )
            end = time.perf_counter()
            spent.append(processor_seconds())
            size = sum(part.stat().st_size for part in run.parts)
            records = run.count
        begin, first, last = marks[0][0], marks[1], marks[-1]
        return {
            "rate": count / (end - begin),
            "steady": (last[1] - first[1]) / (last[0] - first[0]) if last[1] > first[1] else float("nan"),
            "spent": (spent[1] - spent[0]) / count,
            "tower": tower[0] / count,
            "records": records / count,
            "kilobytes": size / count / 1000,
        }

    memory = Memory()
    memory.start()
    rates, spents, rounds = [], [], []
    for _ in range(arguments.rounds):
        found = rate(own, batch, arguments.seconds)
        rates.append(found[0])
        spents.append(found[1])
        rounds.append(annotated())
    found = rate(own, batch, arguments.seconds)
    rates.append(found[0])
    spents.append(found[1])
    # What stood before and after a round is what it is compared with.
    around = [(before + after) / 2 for before, after in pairwise(rates)]
    around_spent = [(before + after) / 2 for before, after in pairwise(spents)]

    def middle(values: list[float]) -> float:
        return float(np.median(values))

    return {
        "pictures": count,
        "encode_image": middle(rates),
        "annotate": middle([one["rate"] for one in rounds]),
        "shares": [one["rate"] / own_rate for one, own_rate in zip(rounds, around)],
        "steady": middle([one["steady"] / own_rate for one, own_rate in zip(rounds, around)]),
        "own_spent": middle(spents),
        "spent": middle([one["spent"] for one in rounds]),
        "tower": middle([one["tower"] for one in rounds]),
        "spent_shares": [own_time / one["spent"] for one, own_time in zip(rounds, around_spent)],
        "memory": memory.stop(),
        "records": rounds[-1]["records"],
        "kilobytes": rounds[-1]["kilobytes"],
    }


def processor() -> str:
    """Names this machine's processor."""
    try:
        names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    return f"{len(os.sched_getaffinity(0))} x {names[0] if names else 'unknown processor'}"


def main() -> None:
    """Runs every number of pictures in a process of its own and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=at_least_one, nargs="+", default=[200])
    parser.add_argument("--characters", type=at_least_one, default=20)
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=at_least_one, default=8)
    parser.add_argument("--workers", type=int, help="0: everything in one process, so that the tower's own time is known exactly")
    parser.add_argument("--threads", type=at_least_one, help="of the model")
    parser.add_argument("--rounds", type=at_least_one, default=1, help="encode_image and annotating in turn, so often")
    parser.add_argument("--seconds", type=above_zero, default=20.0, help="how long encode_image is timed")
    parser.add_argument("--folder", type=Path, help="keep pictures and weights here")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments, arguments.one, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for count in arguments.pictures:
            options = [
                f"--{name.replace('_', '-')}={value}"
                for name, value in vars(arguments).items()
                if name not in ("pictures", "folder", "one") and value is not None
            ]
            command = [sys.executable, __file__, *options, f"--folder={folder}", f"--one={count}"]
            rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]))
    print(
        f"{arguments.architecture}, {arguments.dtype}, random weights; JPEG 640 x 480; {arguments.characters} characters; batch "
        f"{arguments.batch_size}; {processor()}\n"
    )
    print(
        "| pictures | `encode_image` on tensors, images/s | annotate, files to Parquet, images/s | share by the clock (median, range) "
        "| after the first batch | processor time: `encode_image`, ms/image | annotate | of it the tower | outside the tower "
        "| share by processor time (median, range) | peak memory, MiB | records per picture | kB per picture |"
    )
    print("|" + "---|" * 13)
    for row in rows:
        outside = 1000 * (row["spent"] - row["tower"])
        print(
            f"| {row['pictures']} | {row['encode_image']:.2f} | {row['annotate']:.2f} | {spread(row['shares'])} | {row['steady']:.2f} "
            f"| {1000 * row['own_spent']:.0f} | {1000 * row['spent']:.0f} | {1000 * row['tower']:.0f} | {outside:.1f} "
            f"| {spread(row['spent_shares'])} | {row['memory']:.0f} | {row['records']:.0f} | {row['kilobytes']:.1f} |"
        )
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    run_script(main)
