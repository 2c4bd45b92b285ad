"""A training run: its steps, checkpoints and curves."""

from __future__ import annotations

import copy
import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from concept_cam.backbones.lite import LiteModel
from concept_cam.backbones.lite_net import LiteNet
from concept_cam.backbones.lite_towers import Sizes
from concept_cam.backbones.precision import computes_in_bfloat16
from concept_cam.core.errors import DataError
from training.augmentation import augment, target_size
from training.backbone import Nouns
from training.claims import claims_of, part_contrasts, truth_of
from training.config import CELL, TrainConfig, most_drawn
from training.networks import BY_QUERY, Trainee
from training.objectives import losses, random_contrasts
from training.sentences import Sentences
from training.supply import Mixer, plan, render_jobs
from training.tensors import UNREADABLE, why

MEAN, STD = 127.0 / 255.0, 128.0 / 255.0
"""What the backbone was trained with."""


@dataclass(frozen=True)
class Learner:
    """What a run learns.

    Attributes:
        standing: Beginnings of the names of parameters that stand still.
        silent: Terms of the loss that weigh nothing.
        one: The queries are those of one group, that of which most pictures are drawn, and so is what is said of whole pictures.
        last: The last block of the neck learns, though the neck stands still.
    """

    standing: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    one: bool = False
    last: bool = False

    @property
    def of_states(self) -> bool:
        """Whether it learns what is said of pictures alone, and no map."""
        return set(_OF_PLACES) <= set(self.silent)

    @property
    def of_one(self) -> tuple[str, ...]:
        """Terms that weigh nothing for pictures of other groups than the one that it learns."""
        if not self.one:
            return ()
        return (*OF_IMAGES, "states") if self.of_states else OF_IMAGES


OF_IMAGES: Final = ("image_states", "image_parts", "attention")
"""Terms of the loss about whole pictures."""
_OF_PLACES: Final = ("cells", "floor", "place", "fine", "contrast", "changes")
"""Terms of the loss about where something is, which is no matter to whoever only says what it is like."""
LEARNERS: Final[Mapping[str, Learner]] = {
    "all": Learner(),
    "map": Learner(("words.", "query.", "value.", "log_scale"), (*OF_IMAGES, "apart")),
    "group": Learner(("words.", "log_scale"), ("apart",), one=True),
    "states": Learner(("words.", "log_scale", "neck.", "cell_bias"), (*_OF_PLACES, "apart"), one=True, last=True),
    "reading": Learner(("words.", "log_scale", "neck.", "parts.", "cell_bias"), (*_OF_PLACES, "states", "apart"), one=True),
}
"""Names of what learns: everything; what makes the map alone, for words, queries and image embeddings that stand still; one group's map
together with what is said of its whole pictures, for words that stand still, from the group's own neck where the model has one; a last
block of the neck by which states of the group are told, and how they are read (a map of states helps, and is not written); or how they are
read alone, for a neck that stands still.
"""


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, linear decay to zero."""
    falling = max(1, round(config.decay * config.steps))
    return config.learning_rate * min(1.0, (step + 1) / config.warmup, max(0.0, (config.steps - step) / falling))


def _groups(trainee: Trainee, config: TrainConfig) -> list[dict[str, Any]]:
    scalars = [trainee.log_scale, trainee.cell_bias]
    words = list(trainee.words.parameters())
    others = [p for name, p in trainee.named_parameters() if p.ndim and not name.startswith("words.")]
    return [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": [p for p in others if p.ndim == 1], "weight_decay": 0.0, "rate": 1.0},
        {"params": [p for p in words if p.ndim > 1], "weight_decay": config.weight_decay, "rate": config.words_rate},
        {"params": [p for p in words if p.ndim == 1], "weight_decay": 0.0, "rate": config.words_rate},
        {"params": scalars, "weight_decay": 0.0, "rate": config.scale_rate},
    ]


@dataclass
class Run:
    """A training run: its state, and one step at a time.

    Attributes:
        config: What is trained.
        folder: Where checkpoints and curves go.
        trunk: The backbone, which stands still.
        sentences: Embeddings of the wordings.
        nouns: The block of nouns, which stands still too.
        workers: Rendering processes.
        device: Where the model is.
        render_device: Where pictures are rendered.
        learn: What learns: one of :data:`LEARNERS`.
    """

    config: TrainConfig
    folder: Path
    trunk: LiteNet
    sentences: Sentences
    nouns: Nouns
    workers: int = 1
    device: str = "cpu"
    render_device: str = "cpu"
    learn: str = "all"
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.config.seed)
        config = self.config
        learner = LEARNERS[self.learn]
        self.own = most_drawn(config.worlds) if learner.one else ""
        self.sizes = Sizes(
            config.hidden,
            config.depth,
            config.queries * (1 if self.own else len(config.worlds)),
            parts=config.parts_dim,
            text_hidden=config.text_hidden,
            rest=config.rest,
            value_hidden=config.value_hidden,
            reading=config.reading,
        )
        self.trainee = Trainee(self.sizes, config.logit_scale, config.left_out).to(self.device)
        for name, parameter in self.trainee.named_parameters():
            parameter.requires_grad_(not name.startswith(learner.standing))
        if learner.last:
            self.trainee.neck.last.requires_grad_(True)
        self.weights = {name: 0.0 if name in learner.silent else weight for name, weight in config.weights.items()}
        self.trunk = self.trunk.to(self.device).eval().requires_grad_(False)
        self.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trainee.neck.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.nouns = self.nouns.to(self.device)
        self.optimizer = torch.optim.AdamW(_groups(self.trainee, config), betas=(0.9, 0.98))
        self.average = copy.deepcopy(self.trainee).eval()
        self.tables = {name: part_contrasts(claims_of(name).world).to(self.device) for name in config.worlds}
        if (self.folder / "checkpoint.pt").exists():
            self._load()
        self._mixer: Mixer | None = None

    def _load(self) -> None:
        """Takes over the checkpoint of the folder.

        Raises:
            DataError: It belongs to another configuration or version, or is damaged.
        """
        file = self.folder / "checkpoint.pt"
        try:
            saved = torch.load(file, weights_only=True, map_location=self.device)
            learned = str(saved.get("learn", "all"))
            self.trainee.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]
        except UNREADABLE as error:
            raise DataError(
                f"{file} cannot be resumed: it was written with another configuration or version, or is damaged. Resume it with the "
                "version and the --set values that it was written with, or choose another --folder to begin anew. "
                f"What does not fit: {why(error)}"
            ) from error
        if learned != self.learn:
            raise DataError(
                f"{self.folder} was begun with --learn {learned}, received --learn {self.learn}: what stood still so far would learn, or "
                f"what learned would stand still. Go on with --learn {learned}, or choose another --folder."
            )
        # How fast each learns is the configuration's to say, also when it was changed between two sittings.
        for group, own in zip(self.optimizer.param_groups, _groups(self.trainee, self.config), strict=True):
            group.update(rate=own["rate"], weight_decay=own["weight_decay"])

    def start_from(self, folder: Path) -> None:
        """Takes over the weights of a finished run, which may know fewer groups: its queries come first, the others begin anew.

        Raises:
            FileNotFoundError: The folder holds no checkpoint.
            DataError: It is damaged, or something else.
            ValueError: The run has other widths or parts, or more queries.
        """
        file = folder / "checkpoint.pt"
        try:
            saved = torch.load(file, weights_only=True, map_location=self.device)
            saved = {name: dict(saved[name]) for name in ("model", "average")}
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            raise DataError(f"{file} is no checkpoint of a run of this script, or is damaged: {why(error)}") from error
        for network, name in ((self.trainee, "model"), (self.average, "average")):
            state = network.state_dict()
            for key, value in saved[name].items():
                wider = key in [f"value.{name}" for name in BY_QUERY]
                if key not in state or (state[key].shape[1:] != value.shape[1:] and not wider) or state[key].numel() < value.numel():
                    here = tuple(state[key].shape) if key in state else "not there"
                    raise ValueError(f"{key} of {folder} is {tuple(value.shape)}, here up to {here}: another layout.")
                if state[key].shape == value.shape:
                    state[key].copy_(value)
                elif wider:
                    state[key].zero_()
                    state[key][:, : value.shape[1]] = value
                else:
                    state[key][: len(value)] = value

    def start_from_model(self, model: LiteModel, groups: Sequence[str]) -> None:
        """Takes over a model that was written, such as the bundled one.

        Args:
            model: The model.
            groups: Those that it was trained for, in the order of its queries.

        Raises:
            ValueError: It has other widths, or knows other groups.
        """
        if list(self.config.worlds) != list(groups):
            raise ValueError(
                f"this run draws {', '.join(self.config.worlds)}, the model was trained for {', '.join(groups)}, each with queries of its "
                "own: draw pictures of all of these, in this order."
            )
        # Twice the pictures of a step, for norms that begin with what they will see.
        more = replace(self.config, worlds={name: 2 * count for name, count in self.config.worlds.items()})
        there = torch.Generator(device=self.device).manual_seed(self.config.seed)
        batch = [pictures.to(self.device) for pictures in render_jobs(next(plan(more)), self.render_device)]
        size = target_size((batch[0].images.shape[-2], batch[0].images.shape[-1]), 1.0)
        pictures = torch.cat([augment(each, size, there, self.config.distorted)[1] for each in batch])
        maps, _ = self.maps(pictures)
        first = groups.index(self.own) * self.config.queries if self.own else 0
        queries = slice(first, first + self.sizes.queries)
        floats = {stride: values.float() for stride, values in maps.items()}
        self.trainee.take_over(model, floats, queries, self.own, states=LEARNERS[self.learn].of_states)
        self.average.load_state_dict(self.trainee.state_dict())

    def save(self) -> None:
        """Writes `checkpoint.pt` (tensors and plain data only), replacing the last one whole."""
        state = {
            "model": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "learn": self.learn,
        }
        torch.save(state, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.pt")
        # What exporting needs, small enough to be carried about.
        kept = {"average": self.average.state_dict(), "step": self.step, "sizes": asdict(self.sizes), "learn": self.learn}
        torch.save(kept, self.folder / "trained.pt")
        (self.folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    def maps(self, x: Tensor) -> tuple[dict[int, Tensor], tuple[Tensor, Tensor]]:
        """The backbone's maps of pictures [B, 3, H, W] (values 0..1), and the squared lengths of the block of nouns."""
        x = ((x - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), self._precision():
            maps = self.trunk(x)
            logits = torch.einsum("bchw,kc->bkhw", self.trunk.top(maps[32]).float(), self.nouns.weight) + self.nouns.bias[:, None, None]
        cells = self.nouns(logits)
        fine = nn.functional.interpolate(cells, scale_factor=4, mode="bilinear", align_corners=False)
        whole = self.nouns(logits.mean((2, 3), keepdim=True), image=True)
        return maps, (fine.square().sum(1).flatten(1)[..., None], whole.square().sum(1).flatten(1))

    def advance(self) -> dict[str, Tensor]:
        """Runs one step and returns its losses."""
        config = self.config
        if self._mixer is None:
            self._mixer = Mixer(config, self.workers, self.step, self.render_device, self.device)
        batch = next(self._mixer)
        rng = np.random.default_rng((config.seed, 31, self.step))
        own = torch.Generator().manual_seed(int(rng.integers(2**31)))
        there = torch.Generator(device=self.device).manual_seed(int(rng.integers(2**31)))
        size = target_size((batch[0].images.shape[-2], batch[0].images.shape[-1]), float(rng.choice(config.factors)))
        grid = (size[0] // CELL, size[1] // CELL)
        changed = [augment(pictures, size, there, config.distorted) for pictures in batch]
        maps, nouns = self.maps(torch.cat([x for _, x, _ in changed]))
        usual = rng.random() < 0.5
        strength = float(rng.choice((0.5, 1.0, 1.0)))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(config, self.step) * group["rate"]
        self.trainee.train()
        if "neck." in LEARNERS[self.learn].standing:
            # Its norms stand still as well: what is read is what the model's neck sees.
            self.trainee.neck.eval()
            self.trainee.neck.last.train(LEARNERS[self.learn].last)
        with self._precision():
            seen = self.trainee(maps, there)
        terms: dict[str, Any] = {}
        totals: dict[str, Tensor] = {}
        first, count = 0, sum(map(len, batch))
        for number, (pictures, x, false_colour) in enumerate(changed):
            rows, name = slice(first, first + len(x)), pictures.world
            first += len(x)
            queries = slice(None) if self.own else slice(number * config.queries, (number + 1) * config.queries)
            silent = LEARNERS[self.learn].of_one if name != self.own else ()
            own_table = random_contrasts(len(claims_of(name).world.parts), own).to(self.device)
            found = losses(
                self.trainee,
                (seen[0][rows], seen[1][rows], seen[2][rows, queries]),
                grid,
                (nouns[0][rows], nouns[1][rows]),
                self.sentences.draw(name, config.phrases, own).to(self.device),
                self.sentences.foreign(name, config.foreign, own).to(self.device),
                pictures,
                truth_of(pictures, false_colour, grid),
                false_colour,
                self.tables[name] if usual else own_table,
                strength,
                {term: 0.0 if term in silent else weight for term, weight in self.weights.items()},
            )
            # A group counts as much as it has pictures.
            for term, value in found.items():
                terms[term] = terms.get(term, 0.0) + value * (len(x) / count)
            if len(batch) > 1:
                totals[f"total of {name}"] = found["total"]
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.state_dict().values(), self.trainee.state_dict().values()):
                if mean.is_floating_point():
                    mean.lerp_(value, 1.0 - decay)
                else:
                    mean.copy_(value)
        return {name: value.detach() for name, value in {**terms, **totals}.items()}

    def _precision(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=computes_in_bfloat16(self.device))

    def close(self) -> None:
        """Ends the rendering processes."""
        if self._mixer is not None:
            self._mixer.renderer.close()
            self._mixer = None


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Adds a row to a CSV file, with a header when the file is new."""
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def train(
    run: Run,
    *,
    log_every: int = 50,
    save_every: int = 100,
    seconds: float = float("inf"),
    report: Callable[[str], None] = print,
) -> None:
    """Runs to the end of the schedule, or until the time is over, writing `losses.csv` and checkpoints as it goes.

    Args:
        run: The run.
        log_every: Steps between rows of the curves.
        save_every: Steps between checkpoints.
        seconds: After which training stops and saves; the same command goes on from there.
        report: Where lines for people go.
    """
    began, first = time.monotonic(), run.step
    sums: list[dict[str, Tensor]] = []
    try:
        while run.step < run.config.steps and time.monotonic() - began < seconds:
            sums.append(run.advance())
            if run.step % log_every == 0 or run.step == run.config.steps:
                mean = {name: float(torch.stack([row[name] for row in sums]).mean()) for name in sums[0]}
                sums = []
                passed = time.monotonic() - began
                row = {"step": run.step, "seconds": round(passed, 1), **mean, "scale": float(run.trainee.log_scale.detach().exp())}
                append_row(run.folder / "losses.csv", row)
                pace = (run.step - first) / passed
                report(
                    f"step {run.step}/{run.config.steps} {passed:.0f} s, {pace:.2f} steps/s, "
                    + ", ".join(f"{k} {v:.3f}" for k, v in row.items() if k not in ("step", "seconds"))
                )
            if run.step % save_every == 0:
                run.save()
        run.save()
    finally:
        run.close()
