"""Steps of ``photographs.py`` about L-CAM: training on the training half, average drop and increase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from photograph_bench import FORMS, Bench, Photograph, group_of, progress, top_mask
from photograph_steps import Known, windows
from torch import Tensor

from concept_cam.methods.heads import ClassifierHead, fit_head
from concept_cam.methods.lcam_training import LcamTraining, train_on_classes
from concept_cam.methods.perturbation import rise_map
from concept_cam.pictures.reading import read_image
from concept_cam.pictures.resizing import Prepared, prepare

KEEPS = (1.0, 0.5, 0.15)
"""Shares of pixels that are shown, as in the paper's table."""


@dataclass(frozen=True)
class Recipe:
    """How an explainer is trained: what the paper leaves open, or what is tried beside it.

    Attributes:
        training: Kind, steps, start and factors.
        each: Windows cut of each training photograph.
        rows: Whether weights are made from the head's rows.
    """

    training: LcamTraining
    each: int
    rows: bool = True


def prepared(bench: Bench, pictures: Sequence[Photograph]) -> list[Prepared]:
    """Model inputs as training takes them."""
    return [prepare(read_image(bench.image(one.pixels)), bench.backbone.preprocess, "squash") for one in pictures]


def fit(bench: Bench, photographs: Sequence[Photograph], folder: Path, name: str, recipe: Recipe) -> Path:
    """Trains an explainer on the network's own head unless it is there."""
    path = folder / f"lcam_{name}.safetensors"
    if not path.exists():
        pictures = windows(bench, photographs, recipe.each, seed=1)
        labels = [bench.head.classes[one.label] for one in pictures]
        report = reporter(name, recipe.training.steps)
        explainer = train_on_classes(
            bench.backbone, bench.head, prepared(bench, pictures), labels, recipe.training, report, rows=recipe.rows
        )
        explainer.save(path)
    return path


def reporter(what: str, steps: int) -> Callable[[int, float], None]:
    """Prints the loss ten times."""

    def report(number: int, loss: float) -> None:
        if (number + 1) % max(1, steps // 10) == 0:
            click.echo(f"L-CAM {what}: step {number + 1}/{steps}, loss {loss:.3f}", err=True)

    return report


def shown(bench: Bench, pixels: Tensor, heatmap: Tensor, keep: float) -> Tensor:
    """The picture times its map, min-max scaled, of which only the highest ``keep`` of pixels are left; the rest is black."""
    low, high = heatmap.min(), heatmap.max()
    share = (heatmap - low) / (high - low) if high > low else torch.zeros_like(heatmap)
    if keep < 1:
        share = share * top_mask(heatmap, keep)
    return bench.cooked(bench.raw(pixels) * share)


def drop_rows(
    bench: Bench, photograph: Photograph, heatmaps: Mapping[str, Tensor], target: int, head: ClassifierHead
) -> list[dict[str, Any]]:
    """Average drop and increase of one picture: a row for each map [H, W] and share of pixels that is shown."""
    pictures = [photograph.pixels] + [shown(bench, photograph.pixels, heatmap, keep) for heatmap in heatmaps.values() for keep in KEEPS]
    whole, *found = bench.logits(torch.stack(pictures), head).softmax(dim=1)[:, target].tolist()
    keys = [(title, keep) for title in heatmaps for keep in KEEPS]
    return [
        {
            "picture": photograph.name, "method": title, "keep": keep, "drop": max(0.0, whole - part) / whole,
            "increase": float(part > whole),
        }
        for (title, keep), part in zip(keys, found)
    ]  # fmt: skip


def drops(
    bench: Bench,
    photographs: Sequence[Photograph],
    methods: Mapping[str, str],
    *,
    masks: Tensor | None = None,
    known: Known | None = None,
) -> list[dict[str, Any]]:
    """The predicted class's probability on the whole picture and on what each map shows."""
    rows: list[dict[str, Any]] = []
    counter = progress(photographs, "drops " + " ".join([*methods, *(known or {})]))
    for number, (photograph, batch, logits) in enumerate(bench.encode(photographs)):
        next(counter)
        target = int(logits.argmax())
        direction = bench.head.weight[target][None]
        heatmaps: dict[str, Tensor] = {}
        for title, method in methods.items():
            if method == "rise":
                assert masks is not None
                heatmaps[title] = rise_map(
                    lambda pixels, target=target: bench.probabilities(pixels)[:, target : target + 1], photograph.pixels, masks
                )[0]
            elif method == "center":
                heatmaps[title] = bench.gaussian()
            elif method == "random":
                generator = torch.Generator().manual_seed(number)
                heatmaps[title] = bench.enlarge(torch.rand(1, *batch.features.map.shape[2:], generator=generator))[0]
            else:
                heatmaps[title] = bench.enlarge(bench.maps(batch, direction, method))[0]
        for title, maps in (known or {}).items():
            heatmaps[title] = bench.enlarge(torch.tensor(maps[photograph.name][len(FORMS)])[None])[0]
        rows += drop_rows(bench, photograph, heatmaps, target, bench.head)
    return rows


def groups(bench: Bench, train: Sequence[Photograph], test: Sequence[Photograph], recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """The paper's own form, weights for each class, on a head for a few groups of which there are several pictures each."""

    def features(photographs: Sequence[Photograph]) -> Tensor:
        return torch.cat([batch.image for _, batch, _ in bench.encode(photographs)])

    names = [name for name, count in Counter(group_of(item.label) for item in train).items() if count >= 5 and name != "other"]
    train = [item for item in train if group_of(item.label) in names]
    test = [item for item in test if group_of(item.label) in names]
    head = fit_head(features(train), [group_of(item.label) for item in train], weights_hash=bench.backbone.weights_hash)
    guessed = head.logits(features(test)).argmax(dim=1).tolist()
    accuracy = float(np.mean([head.classes[guess] == group_of(item.label) for guess, item in zip(guessed, test)]))
    explainers = {}
    for title, recipe in recipes.items():
        pictures = windows(bench, train, recipe.each, seed=2)
        labels = [group_of(item.label) for item in pictures]
        report = reporter(f"groups {title}", recipe.training.steps)
        explainers[title] = train_on_classes(
            bench.backbone, head, prepared(bench, pictures), labels, recipe.training, report, rows=recipe.rows
        )
    rows: list[dict[str, Any]] = []
    for photograph, batch, _ in bench.encode(test):
        target = int(head.logits(batch.image)[0].argmax())
        asked = replace(batch, directions=head.weight[target][None, None])
        heatmaps = {title: bench.enlarge(explainer.head_maps(asked, [[target]])[0])[0] for title, explainer in explainers.items()}
        heatmaps["Grad-CAM"] = bench.enlarge(bench.maps(batch, head.weight[target][None], "grad-cam+relu"))[0]
        heatmaps["Gaussian in the middle"] = bench.gaussian()
        rows += drop_rows(bench, photograph, heatmaps, target, head)
    return {"accuracy": accuracy, "classes": len(head), "train": len(train), "test": len(test), "rows": rows}
