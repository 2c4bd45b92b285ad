"""Adds to how states are read from what the queries see, fitted to more pictures than a training shows; the maps stay to the bit.

    PYTHONPATH=examples python -m training.reading look --folder runs/reading                               # again: resumes
    PYTHONPATH=examples python -m training.reading fit --folder runs/reading --stays 16 --output runs/reading/model

What the queries of the bundled model see of a picture is a few numbers, and costs a rendering and one look of the frozen backbone and neck.
Looked at once, thousands of pictures are kept, and numbers beside those that are read (`concept_cam.backbones.lite_towers.Reading`) are
fitted to them in a quarter of an hour. What was read stays, or with `--stays` the first numbers of it: the bundled model reads 16 that were
trained with the maps, and 24 that a fit added. What the image says of parts, hosts and other groups is held to what it said before: a
reading that was fitted anew told renders a little better, and photographs of fishes worse. The hash of the weights changes: fit how sure a
call is (`training.sharpness`) and the rules of trust (`training.fit_trust`) after.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones import BUNDLED, lite
from concept_cam.backbones.hashing import hash_weights
from concept_cam.backbones.lite_towers import Reading, looked_at, seen_cells
from concept_cam.commands.console import at_least, at_least_one, existing, run_script
from concept_cam.core.errors import DataError
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.family import concatenate_specimens
from training.augmentation import augment
from training.backbone import shipped_model
from training.claims import claims_of
from training.config import TRAIN_SEED
from training.export import embedder, rebuilt
from training.networks import IMAGE_BIAS
from training.objectives import image_state_loss, mean_where
from training.pictures import Pictures
from training.sentences import Sentences, load_sentences
from training.tensors import read_tensors

MODEL: Final = "model.txt"
"""Name of the file that says whose views a folder holds."""
OWN: Final = "image.value.reading."
"""What the names of the reading's parameters begin with."""
BESIDE: Final = ("image.specialists.", lite.HOSTS)
"""Beginnings of the names of what specialists look and read with."""
SIZES: Final = ((256, 384), (256, 384), (320, 384))
"""At which pictures are rendered and read, in turn."""
AT_ONCE: Final = 48
"""Pictures of a group that are looked at together and kept in one file."""
FIRST: Final = 40_000_000
"""Number of the first picture: no training has shown it."""
DISTORTED: Final = 0.35
"""Share of the changed pictures whose colours are false."""
UNCHANGED: Final = 0.4
"""Share of the files whose pictures are read as they were rendered."""
WELL: Final = "fish"
"""The group that is told well already: what is said of it is held to what it was."""
FEWER: Final = 3
"""Of that group one picture in so many is looked at."""


@dataclass(frozen=True)
class Views:
    """What the queries see of pictures of a group, and what is true of those.

    Attributes:
        seen: float16 [B, queries, 2 * seen], see `concept_cam.backbones.lite_towers.looked_at`.
        nouns: float32 [B], squared length of the block of nouns.
        states: int64 [B, C], state number per character.
        judgeable: bool [B, C], it can be told.
        visible: bool [B, P], the part can be seen.
        in_frame: bool [B, P], any of the part lies in the frame.
        present: bool [B], there is a specimen.
        false_colour: bool [B], nothing can be said of its colours.
    """

    seen: Tensor
    nouns: Tensor
    states: Tensor
    judgeable: Tensor
    visible: Tensor
    in_frame: Tensor
    present: Tensor
    false_colour: Tensor

    def __len__(self) -> int:
        return len(self.seen)

    def __getitem__(self, rows: Tensor) -> Views:
        return Views(*(getattr(self, each.name)[rows] for each in fields(self)))

    def pictures(self, world: str) -> Pictures:
        """The same as pictures without pixels or masks."""
        nothing, own = self.present.new_empty(len(self), 0, dtype=torch.uint8), torch.arange(len(self))
        truth = (self.states, self.judgeable, self.visible, self.in_frame, self.present)
        return Pictures(world, nothing, nothing, *truth, nothing, own)


def joined(views: Sequence[Views]) -> Views:
    """All of them, in order."""
    return Views(*(torch.cat([getattr(each, item.name) for each in views]) for item in fields(Views)))


@torch.no_grad()
def look(model: lite.LiteModel, world: str, count: int, start: int) -> Views:
    """Renders pictures, half of them plain and half in the styles of photographs, changes most of them, and looks.

    Args:
        model: The model.
        world: The group.
        count: Pictures.
        start: Number of the first; what is seen depends on it, the group and the count alone.
    """
    rng = np.random.default_rng((start, 41))
    size = SIZES[int(rng.integers(len(SIZES)))]
    half, room = count // 2, WORLDS[world]
    kinds = (("plain", half, start), ("photographs", count - half, start + half))
    specimens = concatenate_specimens(
        [room.sample(number, TRAIN_SEED, view="whole", start=at, profile=profile) for profile, number, at in kinds if number]
    )
    rendering = room.render(specimens, size)
    nothing = torch.zeros(count, 1, 1, 1, dtype=torch.uint8)
    truth = (torch.from_numpy(specimens.states), rendering.judgeable, rendering.visible, rendering.in_frame)
    present = torch.from_numpy(specimens.present)
    pictures = Pictures(world, rendering.images, nothing, *truth, present, nothing[:, 0], torch.arange(count))
    x, false_colour = rendering.images.float() / 255.0, torch.zeros(count, dtype=torch.bool)
    if rng.random() >= UNCHANGED:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        _, x, false_colour = augment(pictures, size, generator, DISTORTED)
    image = model.image
    maps = image.trunk((x * 255.0 - 127.0) / 128.0)
    hidden = image.neck(maps)
    seen = looked_at(image.query(hidden).flatten(2), seen_cells(hidden, maps, image.sizes).flatten(2))
    nouns = image.nouns.cells(image.trunk.top(maps[32]).mean((2, 3))).square().sum(-1)
    return Views(seen.half(), nouns, *truth, present, false_colour)


def check_model(folder: Path, weights_hash: str) -> None:
    """Notes in a folder of views whose they are, by :func:`eyes_hash`; views and embeddings of another model are not mixed with them.

    Raises:
        DataError: They are another model's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / MODEL
    if not note.exists():
        note.write_text(weights_hash + "\n", encoding="utf-8")
    if (noted := note.read_text(encoding="utf-8").strip()) != weights_hash:
        raise DataError(f"{folder} holds what another model saw ({noted}, this one is {weights_hash}): name another folder.")


def look_on(model: lite.LiteModel, worlds: Sequence[str], folder: Path, pictures: int, first: int, report: Callable[[str], None]) -> None:
    """Looks at pictures of each group and keeps what is seen, a file for every `AT_ONCE`; files that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    count = math.ceil(pictures / AT_ONCE)
    for number in range(first, first + count):
        for world in worlds:
            file = folder / f"{world}_{number:05d}.pt"
            if file.exists() or (world == WELL and (number - first) % FEWER):
                continue
            views = look(model, world, AT_ONCE, FIRST + number * AT_ONCE)
            half = file.with_suffix(".half")
            torch.save({each.name: getattr(views, each.name) for each in fields(views)}, half)
            half.replace(file)
        report(f"{number - first + 1} of {count} files of each group, {AT_ONCE} pictures in each")


def kept(folder: Path, worlds: Sequence[str]) -> dict[str, Views]:
    """What :func:`look_on` kept, by group.

    Raises:
        DataError: There is nothing of a group, or a file is something else.
    """
    found = {}
    for world in worlds:
        files = sorted(folder.glob(f"{world}_*.pt"))
        if not files:
            command = f"PYTHONPATH=examples python -m training.reading look --folder {folder}"
            raise DataError(f"{folder} holds no views of {world}: make them with  {command}")
        try:
            found[world] = joined([Views(**read_tensors(file, "views of pictures")) for file in files])
        except TypeError as error:
            raise DataError(f"{folder} holds files of {world} that are no views of pictures: name another folder.") from error
    return found


@dataclass(frozen=True)
class FitConfig:
    """How the reading is fitted.

    Attributes:
        steps: Optimiser steps.
        batch: Pictures of each group in a step.
        rate: Peak of the learning rate.
        decay: Weight decay.
        left_out: Share of what the queries see that the reading does without in a step; of what it read half as much.
        states: Weight of the states.
        keep: Weight of what is held to what it was: all that is said of parts, hosts and other groups.
        keep_whole: The same for the group that is told well already, fish, of which the states are held as well.
        more: Numbers that each query reads beside those that it reads already; the queries of the group that is told well read none.
        wordings: Wordings of each claim in a step.
        foreign: Wordings about other groups in a step.
        seed: Of everything that is drawn.
    """

    steps: int = 3600
    batch: int = 48
    rate: float = 0.01
    decay: float = 0.01
    left_out: float = 0.2
    states: float = 6.0
    keep: float = 0.2
    keep_whole: float = 3.0
    more: int = 24
    wordings: int = 4
    foreign: int = 24
    seed: int = 0


class More(nn.Module):
    """Numbers that queries read beside those of a reading that stays; what they see is levelled: means of zero, spreads of one.

    Args:
        sample: float32 [N, queries, 2 * seen], what is levelled by.
        count: Numbers of each query.
        parts: Width of the block of parts.
        left_out: See `FitConfig`.
        silent: Queries that read nothing more.
    """

    def __init__(self, sample: Tensor, count: int, parts: int, left_out: float, silent: slice = slice(0)) -> None:
        super().__init__()
        self.middle, self.spread, self.left_out = sample.mean(0), sample.std(0) + 0.01, left_out
        queries, channels = self.middle.shape
        self.own = nn.Parameter(torch.randn(queries, channels, count) * channels**-0.5)
        self.own_bias = nn.Parameter(torch.zeros(queries, count))
        self.out = nn.Parameter(torch.randn(parts, queries, count) * 0.01)
        self.spoken = torch.ones(queries, 1)
        self.spoken[silent] = 0.0

    def forward(self, seen: Tensor) -> Tensor:
        x = F.dropout((seen - self.middle) / self.spread, self.left_out, self.training)
        read = F.gelu(torch.einsum("bqc,qcr->bqr", x, self.own) + self.own_bias) * self.spoken
        return torch.einsum("bqr,pqr->bp", F.dropout(read, self.left_out / 2, self.training), self.out)

    def beside(self, reading: Reading) -> dict[str, Tensor]:
        """The parameters of a `Reading` that reads what one read, and this beside it, of what is not levelled."""
        own = self.own.detach() / self.spread[..., None]
        bias = self.own_bias.detach() - torch.einsum("qc,qcr->qr", self.middle, own)
        old = reading.out.weight.detach().view(len(self.out), *reading.own_bias.shape)
        return {
            "own": torch.cat([reading.own.detach(), own], 2),
            "own_bias": torch.cat([reading.own_bias.detach(), bias], 1),
            "out.weight": torch.cat([old, self.out.detach() * self.spoken], 2).flatten(1),
        }


def unit(vectors: Tensor, nouns: Tensor, rest: float) -> Tensor:
    """The block of parts [B, parts] of image embeddings of unit length, as the towers join their blocks."""
    return vectors / ((vectors.square().sum(1) + rest**2) * (1.0 + nouns)).sqrt()[:, None]


def refit(
    model: lite.LiteModel, views: Mapping[str, Views], sentences: Sentences, config: FitConfig, report: Callable[[str], None] = print
) -> lite.LiteModel:
    """Adds to the reading of a model numbers that are fitted to many pictures.

    Args:
        model: The model; it has a reading.
        views: What its queries see, by group, in the order of the queries.
        sentences: Wordings and their embeddings by the model's own text tower.
        config: How.
        report: Takes a line now and then.

    Returns:
        The same model, with a wider reading.

    Raises:
        DataError: The model has no reading.
    """
    value, sizes = model.image.value, model.image.sizes
    if value.reading is None:
        raise DataError("the model has no reading of its own to fit: train one with --set reading=40.")
    generator, rng = torch.Generator().manual_seed(config.seed), np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    with torch.no_grad():
        chunks = {name: each.seen.split(256) for name, each in views.items()}
        before = {name: torch.cat([value(part.float()) for part in parts]) for name, parts in chunks.items()}
        scale = model.logit_scale.exp()
    sample = torch.cat([each.seen[torch.randperm(len(each), generator=generator)[:400]] for each in views.values()]).float()
    own_queries = sizes.queries // len(views)
    silent = slice(0)
    if WELL in views:
        first = list(views).index(WELL) * own_queries
        silent = slice(first, first + own_queries)
    reading = More(sample, config.more, sizes.parts, config.left_out, silent)
    optimizer = torch.optim.AdamW(reading.parameters(), lr=config.rate, weight_decay=config.decay)
    said: list[tuple[float, float]] = []

    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.rate * min(1.0, (step + 1) / 40) * min(1.0, 1.6 * (1.0 - step / config.steps) + 0.01)
        total = torch.zeros(())
        for name, every in views.items():
            rows = torch.from_numpy(rng.integers(0, len(every), config.batch))
            own, claims = every[rows], claims_of(name)
            with torch.no_grad():
                drawn = F.normalize(model.joint.parts(sentences.draw(name, config.wordings, generator)).mean(1), dim=-1)
                text = torch.cat([drawn, model.joint.parts(sentences.foreign(name, config.foreign, generator))])
                was = scale * unit(before[name][rows], own.nouns, sizes.rest) @ text.T
            now = scale * unit(before[name][rows] + reading(own.seen.float()), own.nouns, sizes.rest) @ text.T
            there = claims.host + 1
            visible, in_frame = own.visible[:, : claims.host], own.in_frame[:, : claims.host]
            shown = torch.cat([visible, (own.present & own.visible.any(1))[:, None]], 1).float()
            known = torch.cat([visible | ~in_frame, torch.ones_like(visible[:, :1])], 1)
            states = image_state_loss(now[:, : len(claims)], own.pictures(name), own.false_colour)
            parts = F.binary_cross_entropy_with_logits(now[:, :there] + IMAGE_BIAS, shown, reduction="none")
            foreign = F.softplus(now[:, len(claims) :] + IMAGE_BIAS).mean() if config.foreign else now.new_zeros(())
            whole = name == WELL
            held = list(range(len(claims) if whole else there)) + list(range(len(claims), now.shape[1]))
            keep = F.smooth_l1_loss(now[:, held], was[:, held])
            total = total + config.states * states + mean_where(parts, known) + foreign
            total = total + (config.keep_whole if whole else config.keep) * keep
            said.append((float(states.detach()), float(keep.detach())))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if (step + 1) % max(1, config.steps // 10) == 0:
            states_now, keep_now = np.mean(said[-50 * len(views) :], axis=0)
            report(f"step {step + 1}/{config.steps}: states {states_now:.3f}, keep {keep_now:.3f}")
    return with_reading(model, reading.beside(value.reading))


def with_reading(model: lite.LiteModel, reading: Mapping[str, Tensor]) -> lite.LiteModel:
    """The same model with another reading, of the parameters of a `Reading`."""
    sizes = replace(model.image.sizes, reading=reading["own"].shape[2])
    return rebuilt(model, {OWN + name: value for name, value in reading.items()}, sizes=sizes)


def narrowed(model: lite.LiteModel, count: int) -> lite.LiteModel:
    """The same model with the first numbers of its reading alone: what a fit added comes last, and is left out so.

    Raises:
        DataError: It has no reading, or fewer numbers.
    """
    reading = model.image.value.reading
    if reading is None or not 1 <= count <= model.image.sizes.reading:
        raise DataError(
            f"the model reads {model.image.sizes.reading} numbers a query: received {count} that stay, expected at least 1 of those."
        )
    out = reading.out.weight.view(-1, *reading.own_bias.shape)[..., :count].flatten(1)
    kept = {"own": reading.own[..., :count], "own_bias": reading.own_bias[:, :count], "out.weight": out}
    return with_reading(model, {name: value.detach().clone() for name, value in kept.items()})


def eyes_hash(model: lite.LiteModel) -> str:
    """Returns the hash of all of a model's weights but those that do not decide what the queries of all groups see: of its reading, and of
    its specialists.
    """
    return hash_weights({name: value for name, value in model.state_dict().items() if not name.startswith((OWN, *BESIDE))})


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    looking = tasks.add_parser("look", help="render pictures and keep what the queries see of them")
    fitting = tasks.add_parser("fit", help="fit the reading to what was kept, and write the model")
    for each in (looking, fitting):
        each.add_argument("--folder", type=Path, required=True, help="where views of pictures are kept")
        each.add_argument("--model", type=existing, default=BUNDLED, help="the model (default: the bundled one)")
    looking.add_argument("--pictures", type=at_least_one, default=14_000, help="of each group; of fishes a third of them")
    looking.add_argument(
        "--first", type=at_least(0), default=0, help="number of the first file, so that several processes can share a folder"
    )
    fitting.add_argument("--output", type=Path, required=True, help="where the model goes")
    fitting.add_argument("--steps", type=at_least_one, default=FitConfig.steps)
    fitting.add_argument("--more", type=at_least_one, default=FitConfig.more, help="numbers that each query reads beside those it reads")
    fitting.add_argument(
        "--stays", type=at_least_one, help="numbers of each query that stay, the first ones (default: all; what a fit added comes last)"
    )
    fitting.add_argument("--seed", type=at_least(0), default=FitConfig.seed)
    fitting.add_argument("--threads", type=at_least_one, default=1)
    arguments = parser.parse_args()
    _, worlds = shipped_model()
    model = lite.make(arguments.model, str(arguments.model)).model
    check_model(arguments.folder, eyes_hash(model))
    if arguments.task == "look":
        torch.set_num_threads(1)
        look_on(model, worlds, arguments.folder, arguments.pictures, arguments.first, lambda text: print(text, flush=True))
        return
    begun = model if arguments.stays is None else narrowed(model, arguments.stays)
    torch.set_num_threads(arguments.threads)
    tokenizer = (arguments.model / lite.TOKENIZER).read_text(encoding="utf-8")
    views = kept(arguments.folder, worlds)
    sentences = load_sentences(arguments.folder / "sentences.pt", list(worlds), embedder(model, tokenizer))
    config = FitConfig(steps=arguments.steps, more=arguments.more, seed=arguments.seed)
    found = refit(begun, views, sentences, config, lambda text: print(text, flush=True))
    lite.save(found, tokenizer, arguments.output, json.loads((arguments.model / lite.KNOWN).read_text(encoding="utf-8")))


if __name__ == "__main__":
    run_script(main)
