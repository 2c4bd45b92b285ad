"""A training run: its steps, checkpoints, curves, and the model that it writes."""

from __future__ import annotations

import copy
import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from concept_cam.backbones.precision import computes_in_bfloat16
from concept_cam.demo import captions as writing
from concept_cam.demo.captions import Caption, CaptionWriter, Statement
from training import tokenizer as words
from training.augmentation import augment, distort_colours, mirror_boxes, training_size, without_colours
from training.checks import Checks, localisation, state_accuracy
from training.claims import FAMILIES, PLACES, STATES, claim_average, claimed_states, hidden_families
from training.config import MEAN, READ_SIZE, READ_STRIDE, STD, TrainConfig
from training.model import Trainee, build_model, load_weights, model_config
from training.objectives import Lesson, losses
from training.pictures import Pictures
from training.supply import Mixer


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, linear decay to zero."""
    falling = max(1, round(config.decay * config.steps))
    return config.learning_rate * min(1.0, (step + 1) / config.warmup, max(0.0, (config.steps - step) / falling))


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim >= 2 and "embedding" not in name]
    rest = [p for name, p in trained if not (p.ndim >= 2 and "embedding" not in name)]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]


def average_gradients(model: nn.Module, world_size: int) -> None:
    """Replaces the gradients by their mean over the processes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world_size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1.0 - decay)
            else:
                mean.copy_(value)


@dataclass
class Run:
    """A training run: its state, and one step at a time.

    Attributes:
        config: What is trained.
        folder: Where checkpoints and curves go.
        workers: Rendering processes.
        device: Where the model is.
        rank: Number of this process among those that train together (`torch.distributed` is set up by the caller).
        world_size: How many there are. Each sees other pictures; their gradients are averaged.
        start_from: Folder of a model of the same shape and vocabulary whose weights a new run begins with, as `export` writes it.
    """

    config: TrainConfig
    folder: Path
    workers: int = 1
    device: str = "cpu"
    rank: int = 0
    world_size: int = 1
    start_from: Path | None = None
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = CaptionWriter()
        self.vocabulary = self.writer.words()
        self.tokenizer = words.build(self.vocabulary)
        clip = build_model(self.config, len(self.vocabulary) + 4)
        if self.start_from is not None:
            load_weights(clip, self.start_from, self.vocabulary)
        self.trainee = Trainee(clip, self.config.arch).to(self.device)
        self.trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(_groups(self.trainee, self.config), betas=(0.9, 0.98), eps=1e-6)
        self.average = copy.deepcopy(self.trainee).eval()
        if (self.folder / "checkpoint.pt").exists():
            self._load()
        self._mixer: Mixer | None = None

    def _load(self) -> None:
        saved = torch.load(self.folder / "checkpoint.pt", weights_only=True, map_location=self.device)
        if saved["vocabulary"] != list(self.vocabulary):
            raise ValueError(
                f"the checkpoint in {self.folder} was trained with another vocabulary: train from the start, in another folder."
            )
        self.trainee.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]

    def save(self) -> None:
        """Writes `checkpoint.pt` (tensors and plain data only), replacing the last one whole."""
        state = {
            "model": self.trainee.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "vocabulary": list(self.vocabulary),
        }
        torch.save(state, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.pt")
        (self.folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    def advance(self) -> dict[str, float]:
        """Runs one step and returns its losses."""
        if self._mixer is None:
            self._mixer = Mixer(self._part(), self.workers, self.step)
        pictures = next(self._mixer)
        rng = np.random.default_rng((self.config.seed, 43, self.step, self.rank))
        chosen = self.writer.batch(rng, pictures.facts)
        # All processes train at the same size, so that none waits for the others.
        target = training_size(pictures.images.shape[-1], np.random.default_rng((self.config.seed, 31, self.step)))
        x, mirrored = augment(pictures.images, target, rng)
        x, false_colour = distort_colours(x, self.config.distorted, rng)
        pictures = without_colours(pictures, false_colour.numpy())
        x = x.to(self.device, memory_format=torch.channels_last)
        lesson = self._lesson(chosen, pictures, mirror_boxes(pictures.boxes, mirrored), rng)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, self.step)
        self.trainee.train()
        # The sequences are short: plain attention beats the fused kernel's backward pass on a processor.
        kernels = [SDPBackend.MATH] if self.device == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with self._precision(), sdpa_kernel(kernels):
            terms = losses(self.trainee, x, lesson, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        if self.world_size > 1:
            average_gradients(self.trainee, self.world_size)
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        if self.rank == 0:
            _update_average(self.average, self.trainee, min(self.config.ema, self.step / (self.step + 10)))
        return {name: float(value.detach()) for name, value in terms.items()}

    def _part(self) -> TrainConfig:
        """This process's share of the pictures: its own numbers, but the same sizes in the same order, so that no process waits."""
        return replace(self.config, first_picture=self.config.first_picture + self.rank * 1_000_000_000)

    def _lesson(self, chosen: Sequence[Caption], pictures: Pictures, boxes: Tensor, rng: np.random.Generator) -> Lesson:
        facts = pictures.facts
        rows = words.encode(self.tokenizer, [caption.text for caption in chosen])
        for row in rows:
            # A word the model has not seen must do little harm: now and then one is put in.
            if rng.random() < 0.05 and row[-1] == 0:
                row.insert(int(rng.integers(1, row.index(0) - 1)), 1)
                row.pop()
        hosts = [i for i, c in enumerate(chosen) if c.statements == (Statement("fish"),)]
        ranked = [i for i, c in enumerate(chosen) if len(c.statements) == 1 and c.statements[0].kind in ("state", "part")]
        lesson = Lesson(
            tokens=torch.tensor(rows),
            truth=torch.from_numpy(writing.truth_table(facts, chosen)),
            hosts=torch.tensor(hosts),
            ranked=torch.tensor(ranked),
            average=claim_average(chosen, STATES),
            parts=claim_average(chosen, PLACES),
            part_truth=torch.from_numpy(writing.statement_truth(facts, PLACES)),
            states=torch.from_numpy(facts.states),
            judgeable=torch.from_numpy(facts.judgeable & facts.fish[:, None]),
            boxes=boxes,
            region_truth=torch.from_numpy(writing.truth_table(pictures.regions, chosen)).view(len(facts), boxes.shape[1], len(chosen)),
            region_parts=torch.from_numpy(writing.statement_truth(pictures.regions, PLACES)).view(len(facts), boxes.shape[1], len(PLACES)),
            region_states=torch.from_numpy(claimed_states(pictures.regions)).view(len(facts), boxes.shape[1], len(STATES)),
            hidden=hidden_families(facts.in_frame),
            region_hidden=hidden_families(pictures.regions.in_frame).view(len(facts), boxes.shape[1], len(FAMILIES)),
        )
        return Lesson(*(getattr(lesson, name).to(self.device) for name in Lesson.__dataclass_fields__))

    def _precision(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=computes_in_bfloat16(self.device))

    def check(self, checks: Checks, readings: Sequence[tuple[int, int]] = ((READ_SIZE, READ_STRIDE),)) -> dict[str, float]:
        """Held-out accuracy and localisation of the averaged weights."""
        self.average.eval()
        with self._precision():
            found = {
                f"accuracy/{name}": value
                for name, value in state_accuracy(self.average, self.tokenizer, self.writer, *checks.close).items()
            }
            found["accuracy"] = float(np.nanmean(list(found.values())))
            if self.config.arch == "resnet":
                for size, stride in readings:
                    hits, own = localisation(self.average, self.tokenizer, self.writer, checks, size, stride)
                    found |= {f"pointing_{size}_{stride}/{part}": value for part, value in hits.items()}
                    found[f"pointing_{size}_{stride}"] = float(np.nanmean(list(hits.values())))
                    found[f"own_{size}_{stride}"] = own
        return found

    def close(self) -> None:
        """Ends the rendering processes."""
        if self._mixer is not None:
            self._mixer.renderer.close()


def append_row(path: Path, row: Mapping[str, float | int]) -> None:
    """Appends a row to a CSV file, writing the header when the file is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(row))
        if new:
            table.writeheader()
        table.writerow({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})


def train(
    run: Run,
    *,
    check_every: int = 500,
    log_every: int = 50,
    save_every: int = 100,
    checks: Checks | None = None,
    readings: Sequence[tuple[int, int]] = ((READ_SIZE, READ_STRIDE),),
    report: Callable[[str], None] = print,
) -> dict[str, float]:
    """Runs to the end of the schedule, writing `losses.csv`, `checks.csv` and checkpoints as it goes.

    Returns:
        The last check.
    """
    began, first, result, sums = time.monotonic(), run.step, {}, []
    try:
        while run.step < run.config.steps:
            sums.append(run.advance())
            if run.rank:
                continue
            if run.step % log_every == 0:
                # Not every batch has windows: their terms are averaged over those that do.
                found = {name: [row[name] for row in sums if name in row] for name in (*run.config.weights, "total")}
                mean = {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}
                sums = []
                seconds = time.monotonic() - began
                row = {"step": run.step, "seconds": round(seconds, 1), **mean}
                append_row(run.folder / "losses.csv", row)
                pace = (run.step - first) / seconds
                report(
                    f"step {run.step}/{run.config.steps} {seconds:.0f} s, {pace:.2f} steps/s, "
                    + ", ".join(f"{k} {v:.4f}" for k, v in mean.items())
                    + f", scale {run.trainee.clip.logit_scale.exp().item():.1f}"
                )
            if run.step % save_every == 0:
                run.save()
            if checks is not None and (run.step % check_every == 0 or run.step == run.config.steps):
                result = run.check(checks, readings)
                append_row(run.folder / "checks.csv", {"step": run.step, **result})
                report("  " + ", ".join(f"{k} {v:.3f}" for k, v in result.items()))
        if not run.rank:
            run.save()
    finally:
        run.close()
    return result


def blend(start: Mapping[str, Tensor], end: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    """Weights between those that a run began with and those that it ended with.

    What training on one world gains there it loses elsewhere; in between, most of both is kept (Wortsman et al., "Robust fine-tuning of
    zero-shot models", CVPR 2022).

    Args:
        start: Tensors by name.
        end: The same names.
        keep: Share of `start`, 0..1.
    """
    return {
        name: torch.lerp(value.float().cpu(), start[name].float(), keep) if value.is_floating_point() else value
        for name, value in end.items()
    }


def export(run: Run, folder: Path, keep: float = 0.0) -> None:
    """Writes the averaged weights as a stock `open_clip` `local-dir:` model: config, half-precision weights, tokenizer.

    Args:
        run: A run.
        folder: Where to.
        keep: Share of the weights of `run.start_from` that are kept; see `blend`.
    """
    from safetensors.torch import load_file, save_file

    weights = run.average.clip.state_dict()
    if keep:
        if run.start_from is None:
            raise ValueError("there are no weights to keep a share of: give the model that the run started from.")
        weights = blend(load_file(run.start_from / "open_clip_model.safetensors"), weights, keep)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "model_cfg": model_config(run.config, len(run.vocabulary) + 4),
        "preprocess_cfg": {
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "longest",
            "fill_color": 127,
        },
    }
    if run.config.arch == "resnet":
        # Read by this package alone: the finest map that the tower gives, of pictures larger than those it was trained on.
        settings["concept_cam"] = {"read_stride": READ_STRIDE, "read_size": READ_SIZE}
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tensors = {name: (value.half() if value.is_floating_point() else value).contiguous().cpu() for name, value in weights.items()}
    save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_model.safetensors").chmod(0o644)
    words.save(run.vocabulary, folder)
