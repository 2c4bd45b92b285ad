"""Train the model that ships with concept_cam: a neck on a frozen backbone, from rendered pictures and phrases about them.

    python examples/training/train.py --folder runs/demo                  # everything, from step 0
    python examples/training/train.py --folder runs/demo                  # again: resumes
    python examples/training/train.py --folder runs/more --start-from bundled    # goes on from the weights that ship
    python examples/training/train.py --folder runs/own --start-from bundled --learn map    # a neck for the maps of one group
    python examples/training/train.py --folder runs/own --start-from bundled --learn states    # how states of one group are told
    python examples/training/train.py --folder runs/smoke --smoke         # under a minute, checks that learning happens

Needs the packages of the extra `training` (the backbone and the sentence encoder). Curves go to `losses.csv` in the folder.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # The script runs as a file; its modules are the package `training` beside it.

from concept_cam.backbones import BUNDLED
from concept_cam.backbones.lite import TOKENIZER
from concept_cam.backbones.lite_net import LiteNet
from concept_cam.backbones.machine import device_of
from concept_cam.commands.console import above_zero, at_least, at_least_one, existing, run_script
from concept_cam.demo.worlds import WORLDS
from training.backbone import from_bundled, load_nouns, load_trunk, shipped_model
from training.checks import check
from training.config import TrainConfig, smoke_config
from training.export import embedder
from training.run import LEARNERS, Run, append_row, train
from training.sentences import load_sentences

SHIPPED = "bundled"


def _start(text: str) -> Path | str:
    return text if text == SHIPPED else existing(text)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints, curves and the model go")
    parser.add_argument("--backbone", type=Path, help="weights of EfficientNet-Lite0 (default: those of the installed package)")
    parser.add_argument("--sentences", type=Path, help="embeddings of the wordings (default: FOLDER/sentences.pt, made at the first run)")
    parser.add_argument("--workers", type=at_least(0), default=1, help="rendering processes")
    parser.add_argument("--threads", type=at_least_one, default=1, help="threads of the training process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--render-device", default="cpu", help="where pictures are rendered")
    parser.add_argument("--seconds", type=above_zero, default=float("inf"), help="stop and save after this time")
    parser.add_argument("--check", type=at_least(0), default=48, metavar="N", help="held-out pictures that are looked at in the end")
    parser.add_argument(
        "--start-from",
        type=_start,
        metavar="RUN",
        help="begin with the weights of another run, which may know fewer groups, or with those of the model that is `bundled`",
    )
    parser.add_argument(
        "--learn",
        choices=list(LEARNERS),
        default="all",
        help="what learns; `map`: what makes the map, for words that stand still; `group`: that and what is said of whole pictures, of the "
        "group of which most pictures are drawn; `states`: the latter alone, by a last block of the neck beside the map's; `reading`: the "
        "same by a neck that stands still (default: all)",
    )
    parser.add_argument("--smoke", action="store_true", help="a short run on small pictures, with the bundled backbone and text tower")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other values of the configuration")
    arguments = parser.parse_args()
    if arguments.smoke and arguments.start_from == SHIPPED:
        parser.error("--smoke trains a narrower model than the bundled one: leave out --smoke or --start-from.")
    if arguments.smoke and arguments.backbone:
        parser.error("--smoke takes the bundled backbone: leave out --backbone or --smoke.")
    if arguments.learn != "all" and not arguments.start_from and not (arguments.folder / "checkpoint.pt").exists():
        parser.error(f"--learn {arguments.learn} is for words that stand still, and a new run has none yet: give --start-from bundled.")
    # Before the sentences are made, which takes minutes.
    device, render_device = str(device_of(arguments.device)), str(device_of(arguments.render_device))
    torch.set_num_threads(arguments.threads)
    config = smoke_config(TrainConfig()) if arguments.smoke else TrainConfig()
    try:
        config = changed(config, arguments.set)
    except ValueError as error:
        parser.error(str(error))
    trunk, file = LiteNet(), arguments.sentences or arguments.folder / "sentences.pt"
    if arguments.smoke:
        weights, nouns, model = from_bundled()
        sentences = load_sentences(file, list(config.worlds), embedder(model, (BUNDLED / TOKENIZER).read_text(encoding="utf-8")), draws=8)
    else:
        weights, nouns = load_trunk(arguments.backbone), load_nouns(arguments.backbone)
        sentences = load_sentences(file, list(config.worlds))
    trunk.load_state_dict(weights)
    run = Run(
        config,
        arguments.folder,
        trunk,
        sentences,
        nouns,
        workers=arguments.workers,
        device=device,
        render_device=render_device,
        learn=arguments.learn,
    )
    if arguments.start_from and not run.step:
        try:
            if arguments.start_from == SHIPPED:
                run.start_from_model(*shipped_model())
            else:
                run.start_from(arguments.start_from)
        except FileNotFoundError:
            parser.error(f"--start-from: {arguments.start_from} holds no checkpoint.pt. Name the folder of a run of this script.")
        except ValueError as error:
            parser.error(f"--start-from: {error}")
    elif arguments.start_from:
        print(f"{arguments.folder} has {run.step} steps already and goes on from there: --start-from is not used.")
    train(run, seconds=arguments.seconds, report=lambda text: print(text, flush=True))
    if arguments.check:
        # What is said of whole pictures of other groups is no matter to a run for one.
        for world in [run.own] if run.own else config.worlds:
            found = check(run, world, 4 if arguments.smoke else arguments.check)
            append_row(arguments.folder / f"checks_{world}.csv", {"step": run.step, **found})
            print(f"{world}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))


def _whole(text: str, value: float) -> int:
    if not value.is_integer():
        raise ValueError(f"--set received {text!r}: expected a whole number.")
    return int(value)


def changed(config: TrainConfig, values: list[str]) -> TrainConfig:
    """The configuration with other numbers; `weights.NAME=VALUE` changes a weight, `worlds.GROUP=N` the pictures of a group.

    Raises:
        ValueError: There is no such number, or it is none.
    """
    known = {item.name: getattr(config, item.name) for item in fields(config)}
    weights, worlds = dict(config.weights), dict(config.worlds)
    for text in values:
        name, _, given = text.partition("=")
        try:
            value = float(given)
        except ValueError as error:
            raise ValueError(f"--set received {text!r}: expected NAME=VALUE with a number.") from error
        if name.startswith("weights.") and name.removeprefix("weights.") in weights:
            weights[name.removeprefix("weights.")] = value
        elif name.startswith("worlds.") and name.removeprefix("worlds.") in WORLDS:
            worlds[name.removeprefix("worlds.")] = _whole(text, value)
        elif isinstance(known.get(name), int | float):
            known[name] = _whole(text, value) if isinstance(known[name], int) else value
        else:
            numbers = [each for each, current in known.items() if isinstance(current, int | float)]
            numbers += [*(f"weights.{each}" for each in weights), *(f"worlds.{each}" for each in WORLDS)]
            raise ValueError(f"--set received {name!r}, which is no number of the configuration. Known: {', '.join(numbers)}.")
    return TrainConfig(**{**known, "weights": weights, "worlds": {name: count for name, count in worlds.items() if count}})


if __name__ == "__main__":
    run_script(main)
