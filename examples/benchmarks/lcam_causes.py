"""Why do learned explainers (L-CAM) come out poor: is it the code, the data or the method? An experiment that separates them.

    python examples/benchmarks/lcam_causes.py --output causes/

A ResNet-50 (its blocks, a quarter of its width, 7 x 7 cells) is trained on planted pictures: ten classes, many pictures of each, one thing
in a picture, masks known (``planted_patterns.py``). There, everything that the paper asks for is given. Then explainers are trained on the
frozen network and measured beside Grad-CAM, Grad-CAM++, Score-CAM and RISE on pictures that nothing was trained on:

* ``authors``: the authors' published training restated here in twenty lines (features as they are, times the map, SGD), not using this
  package's training: if it is no better than the package's, **the code** is not the cause.
* ``per class`` and ``rows`` on all training pictures: if they are good, neither the code nor **the method** is the cause.
* the same on one picture of each class (windows cut of it), and ``rows`` on half of the classes, measured on the other half: what **the
  data** do to it. This is how the 500 photographs of ``photographs.py`` are: one of each class, half of the classes for training.

Maps are read behind the sigmoid (0..1) and before it, which is what the authors' evaluation reads. Everything is drawn from seeds; steps
write files under the output folder and are not run again.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from photograph_bench import Bench, Photograph, progress, step
from photograph_lcam import KEEPS, Recipe, drop_rows, prepared, reporter
from photograph_steps import pointing_and_auroc, windows
from photograph_tables import cell, print_drops
from planted_patterns import PATTERNS, SIDE, Planted, picture
from torch import Tensor, nn

from concept_cam.backbones.loading import from_classifier
from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.commands.console import run_script
from concept_cam.evaluation.metrics.intervals import mean_interval
from concept_cam.methods.engine import Batch
from concept_cam.methods.lcam import Explainer
from concept_cam.methods.lcam_training import LcamTraining, train_on_classes
from concept_cam.methods.perturbation import rise_map, rise_masks
from concept_cam.pictures.preprocessing import Preprocess

EXPECTED = Preprocess((SIDE, SIDE), (16, 16), (0.5,) * 3, (0.25,) * 3, "bilinear")
CLASSES = tuple(PATTERNS)


def draw(count: int, things: int, seed: int) -> list[tuple[Photograph, Planted]]:
    """Draws pictures with one or two things of different classes, the classes in turn; the label is the first thing's."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        others = [label for label in range(len(CLASSES)) if label != number % len(CLASSES)]
        labels = (number % len(CLASSES), *(int(one) for one in generator.choice(others, things - 1, replace=False)))
        planted = picture(generator, labels)
        pixels = (torch.from_numpy(planted.pixels).permute(2, 0, 1).float() / 255 - 0.5) / 0.25
        found.append((Photograph(f"{seed}-{number}", labels[0], pixels), planted))
    return found


def network() -> nn.Module:
    """ResNet-50's blocks at a quarter of its width, the last stage at stride 16, so that 112 pixels give the paper's 7 x 7 cells."""
    prepare_torchvision()
    from timm.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    made = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=len(CLASSES), output_stride=16, channels=(16, 32, 64, 128))
    return made.to(memory_format=torch.channels_last)


def train_network(pictures: Sequence[Photograph], epochs: int, path: Path) -> nn.Module:
    """Trains the network unless its weights are there."""
    from safetensors.torch import load_file, save_file

    net = network()
    if path.exists():
        net.load_state_dict(load_file(path))
        return net.eval()
    pixels, labels = torch.stack([one.pixels for one in pictures]), torch.tensor([one.label for one in pictures])
    generator = torch.Generator().manual_seed(0)
    size = 50
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * (len(labels) // size))
    net.train()
    start = time.process_time()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(labels), generator=generator)[: len(labels) // size * size].split(size):
            shown = pixels[rows].flip(3) if torch.rand((), generator=generator) < 0.5 else pixels[rows]
            loss = F.cross_entropy(net(shown.contiguous(memory_format=torch.channels_last)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        click.echo(
            f"network: epoch {epoch + 1}/{epochs}, loss {total / (len(labels) // size):.3f}, {time.process_time() - start:.0f} s", err=True
        )
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return net.eval()


# -------------------------------------------------------------------------------------------------------------- explainers


def authors(bench: Bench, pictures: Sequence[Photograph], epochs: int, rate: float) -> Explainer:
    """L-CAM-Fm as its authors' repository trains it: a 1 x 1 convolution over the features as they are, SGD with momentum 0.9 and weight
    decay 5e-4, batches of 64, labels that the network gives, features times the map.

    The rate is larger than theirs (1e-4 for 26 passes over 50,000 pictures), for there are fewer steps here.
    """
    with torch.no_grad():
        maps = torch.cat([batch.features.map for _, batch, _ in bench.encode(pictures)])
        labels = (maps.mean(dim=(2, 3)) @ bench.head.weight.T + bench.head.bias).argmax(dim=1)
    torch.manual_seed(0)
    attention = nn.Conv2d(maps.shape[1], len(bench.head), 1)
    optimizer = torch.optim.SGD(
        [{"params": [attention.weight], "lr": rate}, {"params": [attention.bias], "lr": 2 * rate}], rate, momentum=0.9, weight_decay=5e-4,
        nesterov=True,
    )  # fmt: skip
    for _ in range(epochs):
        for rows in torch.randperm(len(maps)).split(64):
            found = torch.sigmoid(attention(maps[rows]))[torch.arange(len(rows)), labels[rows]]
            logits = (found[:, None] * maps[rows]).mean(dim=(2, 3)) @ bench.head.weight.T + bench.head.bias
            border = sum(edge.square().sum() for edge in (found[:, 0], found[:, -1], found[:, :, 0], found[:, :, -1]))
            steps = (found[:, 1:] - found[:, :-1]).square().sum() + (found[:, :, 1:] - found[:, :, :-1]).square().sum()
            loss = (
                1.5 * F.cross_entropy(logits, labels[rows])
                + 2 * ((found + 5e-4) ** 0.3).mean()
                + 0.01 * (steps + 0.3 * border) / (2 * len(rows))
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    weight = attention.weight.detach()[:, :, 0, 0].T
    channels = len(weight)
    return Explainer(
        "fm", weight, torch.zeros(channels), attention.bias.detach(), torch.zeros(1), torch.zeros(channels), torch.ones(channels),
        bench.head.classes, bench.backbone.weights_hash, {"training": "the authors'"},
    )  # fmt: skip


@dataclass(frozen=True)
class Try:
    """One explainer of the table.

    Attributes:
        recipe: How it is trained.
        pictures: Of the training set, a multiple of the number of classes.
        classes: Which of the classes it is trained on.
    """

    recipe: Recipe
    pictures: int
    classes: Sequence[int] = range(len(CLASSES))


def tries(fm_steps: int, img_steps: int, pictures: int) -> dict[str, Try]:
    """The explainers, by name."""
    fm, img = LcamTraining("fm", steps=fm_steps, batch_size=32), LcamTraining("img", steps=img_steps)
    few = len(CLASSES)
    own = replace(fm, start="gradient", learning_rate=3e-4)
    return {
        "L-CAM-Fm per class": Try(Recipe(fm, 0, rows=False), pictures),
        "L-CAM-Img per class": Try(Recipe(img, 0, rows=False), pictures),
        "L-CAM-Fm rows": Try(Recipe(fm, 0), pictures),
        "L-CAM-Fm per class, one picture of each": Try(Recipe(fm, 20, rows=False), few),
        "L-CAM-Img per class, one picture of each": Try(Recipe(img, 20, rows=False), few),
        "L-CAM-Fm rows, on the other five classes": Try(Recipe(fm, 0), pictures, range(0, few, 2)),
        "L-CAM-Fm from Grad-CAM, per class": Try(Recipe(own, 0, rows=False), pictures),
        "L-CAM-Fm from Grad-CAM, per class, one picture of each": Try(Recipe(own, 20, rows=False), few),
        "L-CAM-Fm from Grad-CAM, rows, on the other five classes": Try(Recipe(own, 0), pictures, range(0, few, 2)),
    }


def train_explainer(bench: Bench, pictures: Sequence[Photograph], name: str, chosen: Try) -> Explainer:
    """Trains one of :func:`tries`."""
    used = [one for one in pictures[: chosen.pictures] if one.label in chosen.classes]
    used = windows(bench, used, chosen.recipe.each, seed=3) if chosen.recipe.each else used
    labels = [bench.head.classes[one.label] for one in used]
    training = chosen.recipe.training
    return train_on_classes(
        bench.backbone, bench.head, prepared(bench, used), labels, training, reporter(name, training.steps), rows=chosen.recipe.rows
    )


# --------------------------------------------------------------------------------------------------------------- measuring

Maps = Callable[[Batch, Photograph, int], Tensor]
"""A picture, encoded and as pixels, and a class -> its map [H, W]."""


def learned(bench: Bench, explainer: Explainer, *, before: bool) -> Maps:
    """Reads an explainer behind the sigmoid, or before it."""

    def maps(batch: Batch, one: Photograph, label: int) -> Tensor:
        found = explainer.head_maps(replace(batch, directions=bench.head.weight[label][None, None]), [[label]])[0]
        return bench.enlarge(torch.logit(found.double(), eps=1e-12).float() if before else found)[0]

    return maps


def others(bench: Bench, masks: Tensor, channel_groups: int | None) -> dict[str, Maps]:
    """The methods that stand beside L-CAM in the paper's table, and two that look at nothing."""

    def method(name: str) -> Maps:
        return lambda batch, one, label: bench.enlarge(bench.maps(batch, bench.head.weight[label][None], name))[0]

    score_cam = "score-cam" if channel_groups is None else f"score-cam:{channel_groups}"

    def rise(batch: Batch, one: Photograph, label: int) -> Tensor:
        return rise_map(lambda pixels: bench.probabilities(pixels)[:, label : label + 1], one.pixels, masks)[0]

    def noise(batch: Batch, one: Photograph, label: int) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(one.name.encode()))
        return bench.enlarge(torch.rand(1, *batch.features.map.shape[2:], generator=generator))[0]

    return {
        "Grad-CAM": method("grad-cam+relu"), "Grad-CAM++": method("grad-cam+++relu"), "Score-CAM": method(score_cam), "RISE": rise,
        "Gaussian in the middle": lambda batch, one, label: bench.gaussian(), "random": noise,
    }  # fmt: skip


def measure(
    bench: Bench, singles: Sequence[tuple[Photograph, Planted]], pairs: Sequence[tuple[Photograph, Planted]], methods: Mapping[str, Maps]
) -> dict[str, Any]:
    """Drop and increase, pointing and AUROC on pictures of one thing; on pictures of two things each is asked, and which one is pointed at.

    ``own``: 1 where the peak lies on the thing that was asked, 0 on the other, NaN on neither.
    """
    rows: dict[str, list[dict[str, Any]]] = {"drops": [], "things": [], "pairs": []}
    counter = progress([*singles, *pairs], "measuring")
    for planted_pairs, listed in ((False, singles), (True, pairs)):
        truths = {one.name: planted for one, planted in listed}
        for one, batch, logits in bench.encode([photograph for photograph, _ in listed]):
            next(counter)
            masks = truths[one.name].masks
            for label in masks:
                heatmaps = {title: maps(batch, one, label) for title, maps in methods.items()}
                if not planted_pairs:
                    target = int(logits.argmax())
                    asked = heatmaps if target == label else {title: maps(batch, one, target) for title, maps in methods.items()}
                    rows["drops"] += drop_rows(bench, one, asked, target, bench.head)
                for title, heatmap in heatmaps.items():
                    mask = torch.from_numpy(np.where(masks[label], 255, 0).astype(np.uint8))
                    found = {"picture": one.name, "label": label, "method": title, **pointing_and_auroc(heatmap, mask)}
                    if planted_pairs:
                        place = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
                        hit = [other for other, where in masks.items() if where[place]]
                        found["own"] = float(hit[0] == label) if hit else float("nan")
                    rows["pairs" if planted_pairs else "things"].append(found)
    return rows


def print_found(found: Mapping[str, Mapping[str, Any]], right: float) -> None:
    """The tables, of all classes, and of the half that some explainers were not trained on."""
    half = set(range(1, len(CLASSES), 2))
    for title, kept in (("all classes", None), ("the five classes that 'the other five' were not trained on", half)):
        merged = {part: [row for rows in found.values() for row in rows[part]] for part in ("drops", "things", "pairs")}
        pictures = {row["picture"] for row in merged["things"] if kept is None or row["label"] in kept}
        print_drops([row for row in merged["drops"] if row["picture"] in pictures], f"{title} (network right on {right:.3f})")
        click.echo(f"\n{title}: finding the thing, and of two things the one that is asked\n")
        click.echo("| map | pointing | AUROC | two things: pointing | on the asked one, of those on either |\n|---|---|---|---|---|")
        for method in dict.fromkeys(row["method"] for row in merged["things"]):
            cells = []
            for part, value in (("things", "pointing"), ("things", "auroc"), ("pairs", "pointing"), ("pairs", "own")):
                chosen = [row for row in merged[part] if row["method"] == method and (kept is None or row["label"] in kept)]
                cells.append(cell(mean_interval([row[value] for row in chosen], [row["picture"] for row in chosen])))
            click.echo(f"| {method} | {' | '.join(cells)} |")


@click.command()
@click.option("--output", "-o", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of results.")
@click.option("--pictures", default=2000, show_default=True, help="Training pictures, of all classes together.")
@click.option("--epochs", default=10, show_default=True, help="Of the network.")
@click.option("--fm-steps", default=600, show_default=True)
@click.option("--img-steps", default=200, show_default=True)
@click.option("--test", "count", default=100, show_default=True, help="Pictures to measure on.")
@click.option("--pairs", "pair_count", default=50, show_default=True, help="Pictures of two things.")
@click.option("--channel-groups", type=click.IntRange(min=1), help="Channel groups of Score-CAM.  [default: every channel by itself]")
@click.option("--masks", default=200, show_default=True, help="Masks of RISE.")
def main(
    output: Path,
    pictures: int,
    epochs: int,
    fm_steps: int,
    img_steps: int,
    count: int,
    pair_count: int,
    channel_groups: int | None,
    masks: int,
) -> None:
    """Prints the tables."""
    output.mkdir(parents=True, exist_ok=True)
    train = [one for one, _ in draw(pictures, 1, seed=1)]
    net = train_network(train, epochs, output / "network.safetensors")
    bench = Bench(from_classifier(net, name="planted ResNet-50", classes=CLASSES, preprocess=EXPECTED))
    singles, pairs = draw(count, 1, seed=2), draw(pair_count, 2, seed=3)
    guesses = bench.logits(torch.stack([one.pixels for one, _ in singles])).argmax(dim=1).tolist()
    right = float(np.mean([guess == one.label for guess, (one, _) in zip(guesses, singles)]))
    click.echo(f"network right on {right:.3f} of {count} other pictures", err=True)
    found = {
        "others": step(
            output, "others", lambda: measure(bench, singles, pairs, others(bench, rise_masks(masks, bench.size), channel_groups))
        )
    }

    def explain(name: str, make: Callable[[], Explainer]) -> None:
        path = output / f"{name.replace(' ', '_').replace(',', '')}.safetensors"
        if not path.exists():
            make().save(path)
        explainer = Explainer.load(path)
        both = {name: learned(bench, explainer, before=False), f"{name}; before the sigmoid": learned(bench, explainer, before=True)}
        found[name] = step(output, path.stem, lambda: measure(bench, singles, pairs, both))

    explain("L-CAM-Fm, the authors' training", lambda: authors(bench, train, max(1, fm_steps * 32 // len(train)), 0.05))
    for name, chosen in tries(fm_steps, img_steps, pictures).items():
        explain(name, lambda name=name, chosen=chosen: train_explainer(bench, train, name, chosen))
    click.echo(f"shares of pixels shown: {', '.join(f'{keep:.0%}' for keep in KEEPS)}")
    print_found(found, right)


if __name__ == "__main__":
    run_script(main)
