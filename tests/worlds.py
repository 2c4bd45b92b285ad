"""A tiny data set whose answers the planted backbone knows: a subject with a red, a green and a white part on black.

White is more red than red is: only the contrast tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from concept_cam.core.concept import Concept
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion

SIZE = (32, 32)
RED = Concept(("red",), (("green",), ("blue",)), name="parts=red")
GREEN = Concept(("green",), (("red",), ("blue",)), name="parts=green")
STATE = Concept(("red",), (("blue",),), name="colour=red")
THERE = Concept(("blue",), (("red",),), name="mark=present")


def picture(number: int, mark: bool, colour: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The left part is red (or ``colour``), the right one green; a blue mark above, if any."""
    shift = 8 * (number % 2)
    masks = {name: np.zeros(SIZE, dtype=bool) for name in ("red", "green", "mark", "white")}
    masks["red"][8 + shift : 16 + shift, 0:8] = True
    masks["green"][8 + shift : 16 + shift, 16:32] = True
    masks["mark"][0:8, 8:16] = True
    masks["white"][24:32, 8:16] = True
    pixels = np.zeros((*SIZE, 3), dtype=np.uint8)
    pixels[masks["white"]] = 255
    pixels[masks["red"], colour] = 200 + number
    pixels[masks["green"], 1] = 200
    if mark:
        pixels[masks["mark"], 2] = 120
    return pixels, masks


def samples(count: int) -> Iterator[Sample]:
    """``count`` pictures; every other one bears the mark."""
    for number in range(count):
        mark = number % 2 == 0
        pixels, masks = picture(number, mark)
        host = masks["red"] | masks["green"] | masks["white"] | (masks["mark"] & mark)
        twin, _ = picture(number, mark, colour=2)

        def load(mask: np.ndarray) -> object:
            return lambda: mask

        whole = load(host)
        yield Sample(
            f"p{number}",
            pixels,
            (
                SampleQuestion(RED, "part", "red", load(masks["red"]), whole),
                SampleQuestion(GREEN, "part", "green", load(masks["green"]), whole),
                SampleQuestion(
                    STATE,
                    "state",
                    "colour",
                    load(masks["red"]),
                    whole,
                    difference=load(masks["red"]),
                    twin=lambda twin=twin: twin,
                ),
                SampleQuestion(THERE, "presence", "mark", load(masks["mark"]) if mark else None, whole, present=mark),
            ),
        )


def dataset(count: int = 6) -> Dataset:
    return Dataset("planted", "1", lambda: samples(count), count, Concept(("a thing",), name="host"), {"path": "none"})
