"""Train the small CLIP that ships with concept_cam, on rendered fish and their captions.

    python examples/train_demo_model.py --folder runs/demo --steps 14000
    python examples/train_demo_model.py --folder runs/demo --steps 14000          # again: resumes
    python examples/train_demo_model.py --folder runs/smoke --smoke               # two minutes, checks that learning happens

Curves go to `losses.csv` and `checks.csv` in the folder, the model to `model/` (an open_clip `local-dir:` model).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from concept_cam.demo import training


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    base = training.TrainConfig()
    parser.add_argument(
        "--folder", type=Path, required=True, help="where checkpoints, curves and the model go"
    )
    parser.add_argument("--arch", choices=sorted(training.ENCODERS), default=base.arch)
    parser.add_argument("--steps", type=int, default=base.steps)
    parser.add_argument("--width", type=int, default=base.width)
    parser.add_argument(
        "--layers", type=int, nargs=4, default=list(base.layers), help="blocks per stage of the ResNet"
    )
    parser.add_argument("--batch", type=int, default=base.batch, help="pictures per step at 128 pixels")
    parser.add_argument(
        "--reuse", type=int, default=base.reuse, help="how often each rendered picture is used"
    )
    parser.add_argument("--learning-rate", type=float, default=base.learning_rate)
    parser.add_argument("--seed", type=int, default=base.seed)
    parser.add_argument("--workers", type=int, default=1, help="rendering processes")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training process")
    parser.add_argument(
        "--processes", type=int, default=1, help="training processes that average their gradients (CPU)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--check-every", type=int, default=500)
    parser.add_argument("--export-to", type=Path, help="also write the model here (default: FOLDER/model)")
    parser.add_argument(
        "--export-only", action="store_true", help="write the model of the last checkpoint, train nothing"
    )
    parser.add_argument("--smoke", action="store_true", help="a short run on small pictures")
    arguments = parser.parse_args()
    if arguments.processes > 1 and not arguments.export_only:
        with tempfile.TemporaryDirectory() as meeting:
            torch.multiprocessing.spawn(
                work, (arguments, f"file://{meeting}/store"), nprocs=arguments.processes
            )
    else:
        work(0, arguments, None)


def work(rank: int, arguments: argparse.Namespace, meeting: str | None) -> None:
    """Trains in one process, number `rank` of those that meet at the file `meeting`."""
    torch.set_num_threads(arguments.threads)
    together = arguments.processes if meeting else 1
    if meeting:
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=together)
    config = training.TrainConfig(
        arch=arguments.arch,
        steps=arguments.steps,
        width=arguments.width,
        layers=tuple(arguments.layers),
        batch=arguments.batch,
        reuse=arguments.reuse,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    if arguments.smoke:
        config = training.smoke_config(config)
    run = training.Run(
        config,
        arguments.folder,
        workers=arguments.workers,
        device=arguments.device,
        rank=rank,
        world_size=together,
    )
    if not arguments.export_only:
        sizes = (64, 8, 256) if arguments.smoke else (320, 48, 384)
        checks = None if rank else training.make_checks(*sizes)
        readings = ((256, 16),) if arguments.smoke else ((384, 16),)
        training.train(
            run,
            check_every=arguments.check_every,
            checks=checks,
            readings=readings,
            report=lambda text: print(text, flush=True),
        )
    if rank:
        return
    target = arguments.export_to or arguments.folder / "model"
    training.export(run, target)
    print(f"model written to {target}")


if __name__ == "__main__":
    main()
