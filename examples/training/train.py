"""Train the small CLIP that ships with concept_cam, on rendered fish and their captions.

    python examples/training/train.py --folder runs/demo --steps 14000
    python examples/training/train.py --folder runs/demo --steps 14000          # again: resumes
    python examples/training/train.py --folder runs/more --steps 1000 --start-from concept_cam/backbones/bundled --keep 0.5
    python examples/training/train.py --folder runs/vit --arch vit --steps 3000 # small ViT with a class token, for benchmarks
    python examples/training/train.py --folder runs/smoke --smoke               # two minutes, checks that learning happens

Curves go to `losses.csv` and `checks.csv` in the folder, the model to `model/` (an open_clip `local-dir:` model).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # The script runs as a file; its modules are the package `training` beside it.

from training.checks import make_checks
from training.config import READ_SIZE, READ_STRIDE, TrainConfig, class_token_config, further_config, smoke_config
from training.model import ENCODERS
from training.run import Run, export, train

# What a step has freed is kept for the next one: fresh pages cost as much as the arithmetic on them (glibc; inherited by started processes).
MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
}


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = TrainConfig()
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints, curves and the model go")
    parser.add_argument("--arch", choices=sorted(ENCODERS), default=base.arch)
    parser.add_argument("--steps", type=int, default=base.steps)
    parser.add_argument("--width", type=int, default=base.width)
    parser.add_argument("--layers", type=int, nargs=4, default=list(base.layers), help="blocks per stage of the ResNet")
    parser.add_argument("--batch", type=int, default=base.batch, help="pictures per step at 128 pixels")
    parser.add_argument("--reuse", type=int, default=base.reuse, help="how often each rendered picture is used")
    parser.add_argument("--learning-rate", type=float, default=base.learning_rate)
    parser.add_argument("--warmup", type=int, default=base.warmup, help="steps of warm-up")
    parser.add_argument("--decay", type=float, default=base.decay, help="share of the steps over which the rate falls")
    parser.add_argument("--first-picture", type=int, default=0, help="number of the first training picture")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="folder of an exported model that a new run begins with; it stays at the last sizes",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        help="share of the weights of --start-from in the model that is written",
    )
    parser.add_argument("--seed", type=int, default=base.seed)
    parser.add_argument("--workers", type=int, default=1, help="rendering processes")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training process")
    parser.add_argument("--processes", type=int, default=1, help="training processes that average their gradients (CPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--check-every", type=int, default=500)
    parser.add_argument("--export-to", type=Path, help="also write the model here (default: FOLDER/model)")
    parser.add_argument("--export-only", action="store_true", help="write the model of the last checkpoint, train nothing")
    parser.add_argument("--smoke", action="store_true", help="a short run on small pictures")
    arguments = parser.parse_args()
    if arguments.keep and arguments.start_from is None:
        parser.error("--keep is a share of the weights of --start-from, which is missing.")
    if arguments.start_from is not None and not (arguments.start_from / "open_clip_model.safetensors").is_file():
        parser.error(
            f"--start-from names a folder with an exported model; {str(arguments.start_from)!r} has no open_clip_model.safetensors."
        )
    if not 0.0 <= arguments.keep <= 1.0:
        parser.error(f"--keep is a share between 0 and 1, received {arguments.keep:g}.")
    if arguments.processes > 1 and not arguments.export_only:
        together(arguments)
    else:
        work(0, arguments, None)


def together(arguments: argparse.Namespace) -> None:
    """Trains in several processes, none of which outlives this one."""
    os.environ.update({**MEMORY, **os.environ})
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as meeting:
        started = torch.multiprocessing.spawn(work, (arguments, f"file://{meeting}/store"), nprocs=arguments.processes, join=False)
        try:
            while not started.join():
                pass
        finally:
            for process in started.processes:
                process.terminate()


def work(rank: int, arguments: argparse.Namespace, meeting: str | None) -> None:
    """Trains in one process, number `rank` of those that meet at the file `meeting`."""
    torch.set_num_threads(arguments.threads)
    processes = arguments.processes if meeting else 1
    if meeting:
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    config = TrainConfig(
        arch=arguments.arch,
        steps=arguments.steps,
        width=arguments.width,
        layers=tuple(arguments.layers),
        batch=arguments.batch,
        reuse=arguments.reuse,
        learning_rate=arguments.learning_rate,
        warmup=arguments.warmup,
        decay=arguments.decay,
        first_picture=arguments.first_picture,
        seed=arguments.seed,
    )
    if arguments.start_from is not None:
        config = further_config(config)
    if config.arch == "vit":
        config = class_token_config(config)
    if arguments.smoke:
        config = smoke_config(config)
    run = Run(
        config,
        arguments.folder,
        workers=arguments.workers,
        device=arguments.device,
        rank=rank,
        world_size=processes,
        start_from=arguments.start_from,
    )
    if not arguments.export_only:
        sizes = (64, 8, 256) if arguments.smoke else (320, 48, 384)
        checks = None if rank else make_checks(*sizes)
        readings = ((256, READ_STRIDE),) if arguments.smoke else ((READ_SIZE, READ_STRIDE),)
        train(
            run,
            check_every=arguments.check_every,
            checks=checks,
            readings=readings,
            report=lambda text: print(text, flush=True),
        )
    if rank:
        return
    target = arguments.export_to or arguments.folder / "model"
    export(run, target, arguments.keep)
    print(f"model written to {target}")


if __name__ == "__main__":
    main()
