"""Steps of ``photographs.py`` about Finer-CAM: faithfulness, deletion and insertion, alike classes, things with masks, errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from photograph_bench import BASES, GROUPS, Bench, Photograph, group_of, progress, questions, top_mask
from PIL import Image
from torch import Tensor

from concept_cam.core.names import normalise_text
from concept_cam.methods.heads import ClassifierHead, FinerCam, fit_head
from concept_cam.methods.lcam_training import random_windows
from concept_cam.methods.perturbation import rise_map
from concept_cam.pictures.reading import read_image
from concept_cam.pictures.resizing import prepare

TOP = 0.05
"""Share of pixels that is masked, as in the paper's table."""
STEPS = 10
AREA_FORMS = ("plain", "mean of 3, gamma .6", "nearest, gamma 1", "softmax of 3, gamma 1")

Known = Mapping[str, Mapping[str, Sequence[Any]]]
"""Maps that were computed before: name of the base -> picture -> maps of all forms, then one for the predicted class."""


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


def windows(bench: Bench, photographs: Sequence[Photograph], each: int, seed: int) -> list[Photograph]:
    """Cuts windows of 25 to 100 % of each photograph, half of them mirrored, as model inputs."""
    made = []
    for number, photograph in enumerate(photographs):
        for window in random_windows(bench.image(photograph.pixels), each, seed + number):
            pixels = prepare(read_image(window), bench.backbone.preprocess, "squash").pixels
            made.append(Photograph(photograph.name, photograph.label, pixels))
    return made


# ---------------------------------------------------------------------------------------------------------- faithfulness


def score_cam_maps(bench: Bench, photographs: Sequence[Photograph], method: str) -> dict[str, Any]:
    """Score-CAM's maps of all forms for the label, then that of the predicted class: the slow passes are made once."""
    found = {}
    counter = progress(photographs, method)
    for photograph, batch, logits in bench.encode(photographs):
        next(counter)
        directions, _ = questions(bench.cam, logits, photograph.label)
        asked = torch.stack([*directions.values(), bench.head.weight[int(logits.argmax())]])
        found[photograph.name] = bench.maps(batch, asked, method).tolist()
    return found


def faithfulness(
    bench: Bench,
    photographs: Sequence[Photograph],
    bases: Sequence[str],
    fills: Sequence[str],
    *,
    known: Known | None = None,
    cam: FinerCam | None = None,
) -> list[dict[str, Any]]:
    """Drops when the top pixels of each map are masked; one row per photograph, base, form and fill.

    ``relative`` is the paper's ``(p_c - p*_c) - (p_d - p*_d)`` with the label as ``c`` and the class of nearest logit as ``d``; ``target``
    the first half of it; ``margin`` the drop of the logit of ``c`` less the mean of those of the three nearest. ``cam`` asks another head
    than the network's own; labels count its classes then.
    """
    rows = []
    cam, known = cam or bench.cam, known or {}
    counter = progress(photographs, "faithfulness " + " ".join([*bases, *known]))
    for photograph, batch, _ in bench.encode(photographs):
        next(counter)
        directions, nearest = questions(cam, cam.head.logits(batch.image)[0], photograph.label)
        pictures, keys = [photograph.pixels], []
        filled = {fill: bench.fill(photograph.pixels, fill) for fill in fills}
        for base in (*bases, *known):
            small = (
                torch.tensor(known[base][photograph.name][: len(directions)])
                if base in known
                else bench.maps(batch, torch.stack(list(directions.values())), base)
            )
            for form, heatmap in zip(directions, bench.enlarge(small)):
                mask = top_mask(heatmap, TOP)
                for fill in fills:
                    pictures.append(torch.where(mask, filled[fill], photograph.pixels))
                    keys.append((base, form, fill))
        found = bench.logits(torch.stack(pictures), cam.head)
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


def areas(bench: Bench, photographs: Sequence[Photograph], bases: Sequence[str], *, known: Known | None = None) -> list[dict[str, Any]]:
    """Deletion (towards grey) and insertion (from the blurred picture) of the label's probability, ten steps."""
    rows = []
    known = known or {}
    counter = progress(photographs, "areas " + " ".join([*bases, *known]))
    for photograph, batch, logits in bench.encode(photographs):
        next(counter)
        directions, _ = questions(bench.cam, logits, photograph.label)
        grey, blur = (
            torch.zeros_like(photograph.pixels) if bool((bench.mean == 0.5).all()) else bench.fill(photograph.pixels, "grey"),
            bench.fill(photograph.pixels, "blur"),
        )
        ends = bench.probabilities(torch.stack([photograph.pixels, grey, blur]))[:, photograph.label].tolist()
        for base in (*bases, *known):
            small = (
                torch.tensor(known[base][photograph.name])[[list(directions).index(form) for form in AREA_FORMS]]
                if base in known
                else bench.maps(batch, torch.stack([directions[form] for form in AREA_FORMS]), base)
            )
            for form, heatmap in zip(AREA_FORMS, bench.enlarge(small)):
                masks = [top_mask(heatmap, number / STEPS) for number in range(1, STEPS)]
                pictures = [torch.where(mask, grey, photograph.pixels) for mask in masks] + [
                    torch.where(mask, photograph.pixels, blur) for mask in masks
                ]
                found = bench.probabilities(torch.stack(pictures))[:, photograph.label].tolist()
                deletion = [ends[0], *found[: STEPS - 1], ends[1]]
                insertion = [ends[2], *found[STEPS - 1 :], ends[0]]
                rows.append(
                    {
                        "picture": photograph.name, "label": photograph.label, "base": base, "form": form, "deletion": area(deletion),
                        "insertion": area(insertion),
                    }
                )  # fmt: skip
    return rows


def area(values: Sequence[float]) -> float:
    """Trapezoidal area over 0..1."""
    return float((sum(values) - (values[0] + values[-1]) / 2) / (len(values) - 1))


# --------------------------------------------------------------------------------------------------------- alike classes

ALIKE: dict[str, tuple[int, ...]] = {
    "dogs": tuple(GROUPS["dogs"]),
    "birds": tuple(GROUPS["birds"]),
    "beetles and other insects": tuple(GROUPS["insects and spiders"]),
}
"""Groups of which heads are made, each with at most :data:`MOST` classes."""
MOST = 20


def most_alike(rows: Tensor, count: int) -> list[int]:
    """Picks ``count`` of the rows [N, D] that are most alike: the nearest pair, then one by one what is nearest to the chosen."""
    unit = F.normalize(rows, dim=1)
    if count >= len(unit):
        return list(range(len(unit)))
    likeness = unit @ unit.T
    chosen = list(max(combinations(range(len(unit)), 2), key=lambda pair: float(likeness[pair])))
    while len(chosen) < count:
        near = likeness[chosen].mean(dim=0)
        near[chosen] = -2
        chosen.append(int(near.argmax()))
    return sorted(chosen)


def alike(bench: Bench, photographs: Sequence[Photograph], train_windows: int, test_windows: int) -> dict[str, Any]:
    """Finer-CAM on heads of 10 to 20 alike classes, where it was published for 196 and 200 of them.

    Two heads for each group: the network's own rows of these classes, and one fitted (``fit_head``) to windows of each class's one
    photograph. Measured on the photograph itself and on windows cut with another seed; intervals are over photographs. The fitted head
    has seen other windows of the same photographs, the network's own rows have not.
    """
    result: dict[str, Any] = {"groups": {}, "rows": []}
    for group, members in ALIKE.items():
        own = [photograph for photograph in photographs if photograph.label in members]
        if len(own) < 5:
            continue
        own = [own[index] for index in most_alike(bench.head.weight[[photograph.label for photograph in own]], MOST)]
        labels = [photograph.label for photograph in own]
        names = tuple(bench.head.classes[label] for label in labels)
        seen = windows(bench, own, train_windows, seed=11)
        with torch.inference_mode():
            embeddings = torch.cat(
                [
                    bench.backbone.encode_image(torch.stack([one.pixels for one in seen[start : start + 16]]))
                    for start in range(0, len(seen), 16)
                ]
            )
        heads = {
            "own rows": ClassifierHead(bench.head.weight[labels], bench.head.bias[labels], names, "none", bench.backbone.weights_hash),
            "fitted": fit_head(
                embeddings.clone(), [bench.head.classes[one.label] for one in seen], weights_hash=bench.backbone.weights_hash
            ),
        }
        unseen = windows(bench, own, test_windows, seed=977)
        facts: dict[str, Any] = {"classes": len(own), "names": names}
        for title, head in heads.items():
            cam = FinerCam(bench.backbone, head, bench.settings)
            for what, pictures in (("photographs", own), ("windows", unseen)):
                found = bench.logits(torch.stack([one.pixels for one in pictures]), head).argmax(dim=1).tolist()
                right = [head.classes[guess] == bench.head.classes[one.label] for guess, one in zip(found, pictures)]
                facts[f"{title}, right on {what}"] = float(np.mean(right))
            asked = [Photograph(one.name, head.index(bench.head.classes[one.label]), one.pixels) for one in (*own, *unseen)]
            for row in faithfulness(bench, asked, BASES, ("mean",), cam=cam):
                result["rows"].append({**row, "group": group, "head": title})
        result["groups"][group] = facts
    return result


# ----------------------------------------------------------------------------------------------------------------- things


def listed_things(bench: Bench, manifest: Path) -> Iterator[tuple[dict[str, Any], Photograph, Tensor]]:
    """Yields each thing's row of the manifest, its picture with the likeliest of the classes that mean the thing, and its mask [H, W].

    The mask is uint8: 255 the thing, 128 what does not count.
    """
    names, (height, width) = bench.head.classes, bench.size
    for row in json.loads(manifest.read_text(encoding="utf-8")):
        if not row.get("easy", True) or row["key"] not in THINGS:
            continue
        wanted = [
            index
            for word in THINGS[row["key"]]
            for index in (GROUPS[word[1:]] if word[0] == "@" else [i for i, name in enumerate(names) if name == word])
        ]
        pixels = prepare(read_image(manifest.parent / row["image"]), bench.backbone.preprocess, "squash").pixels
        mask = np.asarray(Image.open(manifest.parent / row["mask"]).convert("L").resize((width, height), Image.Resampling.NEAREST))
        if wanted and (mask == 255).any():
            logits = next(bench.encode([Photograph(row["image"], 0, pixels)]))[2]
            yield row, Photograph(row["image"], max(wanted, key=lambda index: float(logits[index])), pixels), torch.from_numpy(mask.copy())


def pointing_and_auroc(heatmap: Tensor, mask: Tensor) -> dict[str, float]:
    """Whether the highest pixel lies on the thing, and the AUROC of the thing's pixels among those that count."""
    from scipy.stats import rankdata

    values, truth, counted = heatmap.numpy(), (mask == 255).numpy(), (mask != 128).numpy()
    peak = np.unravel_index(int(values.argmax()), values.shape)
    ranks, inside = rankdata(values[counted]), truth[counted]
    positive, negative = int(inside.sum()), int((~inside).sum())
    auroc = (float(ranks[inside].sum()) - positive * (positive + 1) / 2) / (positive * negative) if negative else float("nan")
    return {"pointing": float(truth[peak]), "auroc": auroc}


def things(bench: Bench, manifest: Path, methods: Mapping[str, str], masks: Tensor | None = None) -> list[dict[str, Any]]:
    """How well maps of a thing's class find the thing: pointing, and AUROC of its pixels."""
    rows = []
    start = time.perf_counter()
    for number, (row, photograph, mask) in enumerate(listed_things(bench, manifest)):
        _, batch, logits = next(bench.encode([photograph]))
        directions, _ = questions(bench.cam, logits, photograph.label)
        heatmaps: dict[str, Tensor] = {}
        for title, method in methods.items():
            if method == "rise":
                assert masks is not None
                label = photograph.label
                heatmaps[title] = rise_map(
                    lambda seen, label=label: bench.probabilities(seen)[:, label : label + 1], photograph.pixels, masks
                )[0]
            elif method == "center":
                heatmaps[title] = bench.gaussian()
            elif method.startswith(("lcam", "grad-cam++", "score-cam")):
                heatmaps[title] = bench.enlarge(bench.maps(batch, directions["plain"][None], method))[0]
            else:
                for form, heatmap in zip(directions, bench.enlarge(bench.maps(batch, torch.stack(list(directions.values())), method))):
                    heatmaps[f"{title}, {form}"] = heatmap
        for title, heatmap in heatmaps.items():
            rows.append({"picture": row["image"], "thing": row["key"], "method": title, **pointing_and_auroc(heatmap, mask)})
        if number and number % 20 == 0:
            click.echo(f"things: {number}, {time.perf_counter() - start:.0f} s", err=True)
    return rows


# ----------------------------------------------------------------------------------------------------------------- errors


def errors(bench: Bench, photographs: Sequence[Photograph], folder: Path, each: int) -> list[dict[str, Any]]:
    """For wrong predictions: what speaks for the predicted class and against the true one, by pairs of classes.

    Besides the photographs, ``each`` windows of every one are asked, so that pairs of classes come up more than once. Maps of the wrong
    photographs are filed by pairs. ``likeness`` is the correlation of the two classes' plain Grad-CAMs: high where both are seen in the
    same place (look-alikes), negative where they are seen in different places (two things, or a background).
    """
    rows = []
    names = bench.head.classes
    parts = windows(bench, photographs, each, seed=31)
    doubtful = [one for one, guess in zip(parts, _guesses(bench, parts)) if guess != one.label]
    for whole, pictures in ((True, photographs), (False, doubtful)):
        for photograph, batch, logits in bench.encode(pictures):
            guess = int(logits.argmax())
            if guess == photograph.label:
                continue
            if whole:
                found = bench.cam.explain(bench.image(photograph.pixels), guess, references=[photograph.label], alpha=1.0)
                pair = f"{normalise_text(names[guess])}__{normalise_text(names[photograph.label])}".replace(" ", "_").replace("/", "_")
                target = folder / "errors" / pair
                target.mkdir(parents=True, exist_ok=True)
                found.save(target / f"{Path(photograph.name).stem}.png", overwrite=True)
            both = bench.maps(batch, bench.head.weight[[guess, photograph.label]], "grad-cam").flatten(1)
            shares = logits.softmax(dim=0)
            rows.append(
                {
                    "picture": photograph.name, "whole": whole, "predicted": names[guess], "true": names[photograph.label],
                    "groups": [group_of(guess), group_of(photograph.label)], "p_predicted": float(shares[guess]),
                    "p_true": float(shares[photograph.label]), "likeness": float(torch.corrcoef(both)[0, 1]),
                    "second": bool(int(logits.topk(2).indices[1]) == photograph.label),
                }
            )  # fmt: skip
    return rows


def _guesses(bench: Bench, pictures: Sequence[Photograph]) -> Iterable[int]:
    for start in range(0, len(pictures), 16):
        yield from bench.logits(torch.stack([one.pixels for one in pictures[start : start + 16]])).argmax(dim=1).tolist()
