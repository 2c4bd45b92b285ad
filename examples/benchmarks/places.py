"""Are left and right wings, front and rear fins told apart? On renders, whose every wing and fin is known.

    python examples/benchmarks/places.py                       # all of it with the bundled model: 150 butterflies, 100 fish
    python examples/benchmarks/places.py --count 40 --only butterflies

Three things are counted apart: what geometry makes of exact masks, what it makes of the model's maps, and whether the model finds the part.
A place counts as right where the highest point of the placed map lies on the wing or fin that was meant, under the frame that the answer
names: the animal's own left, or that of a viewer who turns the head up. An answer that says that it cannot tell is no wrong one; the share
of answers that do tell stands beside.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from concept_cam import prompts
from concept_cam.commands.console import at_least_one, run_script
from concept_cam.core.placing import BodyPlan, orient, resolve

WINGS = tuple((side, wing) for wing in ("fore_wing", "hind_wing") for side in ("left", "right"))

LEAST = 60
"""Pixels under which a wing or fin is too small to be asked for."""

CELL = 10
"""Pixels within which a highest point counts as on the nearest wing: what is told by cells is not known more finely."""

SIZE = (384, 512)
"""``(H, W)`` of the pictures."""


# ----------------------------------------------------------------------------------------------------------- butterflies


def butterflies(
    count: int, posture: str, seed: int = 4242, size: tuple[int, int] = SIZE
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], str]]:
    """Yields pictures uint8 [H, W, 3], masks bool [H, W] by part (wings also by the animal's own side) and how each is seen."""
    from concept_cam.demo.worlds.lepidoptera.traits import MASKS
    from concept_cam.demo.worlds.lepidoptera.world import render, sample

    for start in range(0, count, 10):
        specimens = sample(min(10, count - start), seed, view="whole", traits={"resting_posture": posture}, empty=0.0, start=start)
        made = render(specimens, size, masks=True)
        assert made.masks is not None
        assert made.side is not None
        for number in range(len(specimens)):
            masks = {name: made.masks[number, k].numpy() for k, name in enumerate(MASKS)}
            side = made.side[number].numpy()
            for label, name in ((1, "left"), (2, "right")):
                for wing in ("fore_wing", "hind_wing"):
                    masks[f"{name}_{wing}"] = masks[wing] & (side == label)
            yield made.images[number].permute(1, 2, 0).contiguous().numpy(), masks, _seen_from(masks)


def _middle(mask: np.ndarray) -> np.ndarray:
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()])


def _seen_from(masks: dict[str, np.ndarray]) -> str:
    """Above, below or beside, by which side each wing lies on; by the exact masks. Empty where parts of it are not in the picture."""
    front, rear = (masks["head"] | masks["antennae"]), masks["abdomen"]
    if min(front.sum(), rear.sum()) < 8:
        return ""
    sides = {side: masks[f"{side}_fore_wing"] | masks[f"{side}_hind_wing"] for side in ("left", "right")}
    if min(mask.sum() for mask in sides.values()) < LEAST:
        return "beside"
    ahead = _middle(front) - _middle(rear)
    across = _middle(sides["left"]) - _middle(sides["right"])
    return "above" if across @ np.array([ahead[1], -ahead[0]]) > 0 else "below"


def meant(side: str, left_of: str, seen: str) -> str:
    """The animal's own side that an answer speaks of."""
    other = {"left": "right", "right": "left"}[side]
    return other if left_of == "viewer, head up" and seen == "below" else side


def wings(localizer: Any, count: int, posture: str) -> dict[str, Counter[str]]:
    """Counts answers about wings: by geometry on exact masks, by the model, and by the model with the view told."""
    pack = prompts.load_pack("lepidoptera")
    told = {view: replace(pack, frame=replace(pack.frame, view=view)) for view in ("above", "below", "beside")}
    counts = {"exact masks": Counter[str](), "model": Counter[str](), "model, view told": Counter[str]()}
    for picture, masks, seen in butterflies(count, posture):
        if not seen:
            continue
        seen = "beside" if posture == "closed" else seen
        plain = {name: mask for name, mask in masks.items() if name in pack.frame.parts}
        lies = orient({name: mask for name, mask in plain.items() if mask.sum() >= 8}, pack.frame)
        for side, wing in WINGS:
            if masks[wing].sum() >= LEAST:
                place, cells = resolve(side, masks[wing].astype(np.float32), lies, pack.frame, wing)
                _count(counts["exact masks"], side, wing, place, seen, masks, None if cells is None else _highest(cells & masks[wing]))
        runs = {"model": pack} | ({"model, view told": told[seen]} if seen in told else {})
        for name, asked in runs.items():
            for (side, wing), found in zip(WINGS, localizer.locate_all([picture], _wings_of(asked))[0], strict=True):
                if masks[wing].sum() >= LEAST:
                    _count(counts[name], side, wing, found.place, seen, masks, found.peak if found.place.resolved else None)
    return counts


def _wings_of(pack: prompts.Pack) -> list[Any]:
    return [prompts.concepts(pack, "wings", f"{side}_{wing}")[0] for side, wing in WINGS]


def _highest(mask: np.ndarray) -> tuple[float, float]:
    """A point well inside a mask."""
    from scipy.ndimage import distance_transform_edt

    y, x = np.unravel_index(int(distance_transform_edt(mask).argmax()), mask.shape)
    return float(x), float(y)


_NAMES = tuple(f"{side}_{wing}" for side, wing in WINGS)


def _distance(mask: np.ndarray, x: int, y: int) -> float:
    rows, columns = np.nonzero(mask)
    return float(np.hypot(columns - x, rows - y).min()) if len(rows) else float("inf")


def _count(counts: Counter[str], side: str, wing: str, place: Any, seen: str, masks: dict[str, np.ndarray], peak: Any) -> None:
    own = meant(side, place.left_of, seen)
    there = masks[f"{own}_{wing}"].sum() >= LEAST
    if not there and place.left_of != "":
        counts["hidden"] += 1
        counts["hidden, said to be told"] += peak is not None
        return
    counts["asked"] += 1
    if peak is None:
        return
    counts["told"] += 1
    counts[f"left is {place.left_of or 'not said'}"] += 1
    x, y = int(peak[0]), int(peak[1])
    near = masks["wing"][max(y - CELL, 0) : y + CELL + 1, max(x - CELL, 0) : x + CELL + 1].any()
    on = {name: bool(near and _distance(masks[name], x, y) <= _distance(masks["wing"], x, y)) for name in _NAMES}
    counts["on a wing"] += any(on.values())
    counts["right side"] += on[f"{own}_fore_wing"] or on[f"{own}_hind_wing"]
    counts["right pair"] += on[f"left_{wing}"] or on[f"right_{wing}"]
    counts["right wing"] += on[f"{own}_{wing}"]


# ------------------------------------------------------------------------------------------------------------------ fish


def double_finned(count: int, seed: int = 77, size: tuple[int, int] = SIZE) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yields pictures of fish with two dorsal fins and masks by part, the two fins also as ``front`` and ``rear``."""
    import torch

    from concept_cam.demo.worlds.fish.anatomy import U
    from concept_cam.demo.worlds.fish.camera import camera_numbers, fish_coordinates
    from concept_cam.demo.worlds.fish.traits import MASKS
    from concept_cam.demo.worlds.fish.world import geometry, render, sample

    for start in range(0, count, 10):
        number = min(10, count - start)
        specimens = sample(number, seed, view="whole", traits={"dorsal_fin_number": "double"}, empty=0.0, start=start)
        made = render(specimens, size, masks=True)
        assert made.masks is not None
        anatomy, camera = geometry(specimens, size)
        numbers = {name: torch.from_numpy(value).view(-1, 1, 1) for name, value in camera_numbers(camera, anatomy).items()}
        along, above = (values.numpy() for values in fish_coordinates(numbers, *size))
        for k in range(number):
            masks = {name: made.masks[k, p].numpy() for p, name in enumerate(MASKS)}
            # Fins lean back: what counts is where along the back a ray is rooted.
            rooted = along[k] - anatomy.values["dorsal_slant"][k] * (above[k] - np.interp(along[k], U, anatomy.tables["upper"][k]))
            front = rooted < anatomy.values["dorsal_second_start"][k] - 0.02
            masks |= {"front": masks["dorsal_fin"] & front, "rear": masks["dorsal_fin"] & ~front}
            if min(masks["front"].sum(), masks["rear"].sum()) >= LEAST:
                yield made.images[k].permute(1, 2, 0).contiguous().numpy(), masks


def told_by_masks(masks: dict[str, np.ndarray], plan: BodyPlan, where: str) -> bool:
    """Whether geometry on exact masks finds the front or the rear fin: four fifths of it, and no more than a fifth of the other."""
    lies = orient({name: masks[name] for name in plan.parts if masks[name].sum() >= 12}, plan)
    _, cells = resolve(where, masks["dorsal_fin"].astype(np.float32), lies, plan, "dorsal_fin")
    found = np.zeros_like(masks["front"]) if cells is None else cells & masks["dorsal_fin"]
    return float((found & masks[where]).sum() / (found | masks[where]).sum()) >= 0.8


def fins(localizer: Any, count: int) -> dict[str, Counter[str]]:
    """Counts answers about front and rear dorsal fins."""
    plan = prompts.load_pack("fish").frame
    asked = [prompts.concept_of_words(f"the {where} dorsal fin of a fish", ["a fish", "the background"]) for where in ("front", "rear")]
    counts = {"exact masks": Counter[str](), "model": Counter[str]()}
    for picture, masks in double_finned(count):
        for where, found in zip(("front", "rear"), localizer.locate_all([picture], asked)[0], strict=True):
            counts["exact masks"]["asked"] += 1
            counts["exact masks"]["right"] += told_by_masks(masks, plan, where)
            x, y = (int(value) if value == value else 0 for value in found.peak)
            counts["model"]["asked"] += 1
            counts["model"]["told"] += found.place.resolved
            counts["model"]["on a dorsal fin"] += bool(found.place.resolved and masks["dorsal_fin"][y, x])
            counts["model"]["right"] += bool(found.place.resolved and masks[where][y, x])
            own, other = (_distance(masks[name], x, y) for name in (where, "rear" if where == "front" else "front"))
            counts["model"]["nearest, within a cell"] += bool(found.place.resolved and own <= CELL and own < other)
    return counts


# ---------------------------------------------------------------------------------------------------------------- report


def report(title: str, counts: dict[str, Counter[str]], base: str) -> None:
    print(f"\n{title}")
    for name, found in counts.items():
        whole = max(found["asked"], 1)
        told = max(found.get(base, 0) or whole, 1)
        words = [
            f"{key} {value} ({value / (whole if key in ('told', 'asked') else told):.3f})" for key, value in found.items() if key != "asked"
        ]
        print(f"  {name}: {found['asked']} asked; {', '.join(words)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument(
        "--count", type=at_least_one, help="pictures of each kind  [default: 150 spread and 50 closed butterflies, 100 fish]"
    )
    parser.add_argument("--only", choices=["butterflies", "fish"])
    options = parser.parse_args()

    from concept_cam.localizer import Localizer

    localizer = Localizer.from_pretrained(options.model)
    print(f"model {localizer.backbone.name}, weights {localizer.backbone.weights_hash}, pictures {SIZE[1]} x {SIZE[0]}")
    if options.only != "fish":
        for posture, count in (("spread", options.count or 150), ("closed", options.count or 50)):
            report(f"butterflies, {posture}, {count} pictures; shares are of those told", wings(localizer, count, posture), "told")
    if options.only != "butterflies":
        report("fish with two dorsal fins; shares are of all asked", fins(localizer, options.count or 100), "asked")


if __name__ == "__main__":
    run_script(main)
