"""The world of leaves as one of the family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds import stage
from concept_cam.demo.worlds.draws import Style
from concept_cam.demo.worlds.family import World
from concept_cam.demo.worlds.plant.anatomy import PIECES, build
from concept_cam.demo.worlds.plant.coat import colour
from concept_cam.demo.worlds.plant.phrases import PARTS, PLANT_PHRASES, STATES
from concept_cam.demo.worlds.plant.places import GROUNDS, props, surround
from concept_cam.demo.worlds.plant.traits import PLANT
from concept_cam.demo.worlds.stage import Draw, Sight, Troupe

_MASKS: Final = {
    "leaf": ("blade", "tip", "base", "petiole", "hair"),
    "stem": ("stem",),
    "blade": ("blade", "tip", "base", "hair"),
    "petiole": ("petiole",),
    "leaf_tip": ("tip",),
    "leaf_base": ("base",),
}

_PHOTOGRAPH: Final = Style(
    ranges={
        "exposure.blur": (0.0, 1.15),
        "exposure.gain": (0.68, 1.3),
        "exposure.noise": (0.0, 1.2),
        "exposure.saturation": (0.6, 1.2),
        "balance.warm": (-1.25, 1.25),
        "shadow.strength": (0.0, 0.85),
        "light.vignette": (0.0, 1.15),
        "light.fall": (0.0, 1.5),
        "sun.ambient": (0.25, 0.75),
        "camera.share": (0.35, 1.0),
        "camera.tight_share": (0.14, 0.14),
        "camera.cut_share": (0.25, 0.25),
        "leaf.bitten_share": (0.3, 0.3),
        "leaf.spots": (0.9, 3.0),
        "view.tilt": (0.0, 1.0),
        "plant.shoots": (0.55, 0.55),
    },
    chances={"jpeg": 0.5, "motion": 0.06},
    weights={"several": (0.86, 0.07, 0.04, 0.03), "object0": (5.0, 0.8, 0.6, 0.3, 0.6, 0.9, 0.7, 0.3)},
    scenes={"herbarium": 1.5, "plain": 1.5, "ground": 1.3, "growing": 3.0},
)

STYLES: Final = {"plain": Style(), "photograph": _PHOTOGRAPH}
PROFILES: Final = {"plain": {"plain": 1.0}, "photographs": {"plain": 0.2, "photograph": 0.8}}


def view(draw: Draw) -> npt.NDArray[np.floating]:
    """From above the plane of the leaves, tilted a little, turned in any way."""
    tilt, way, turn = draw("view.tilt", 0.0, 0.75) ** 1.5, draw("view.way", -math.pi, math.pi), draw("view.turn", -math.pi, math.pi)
    c, s = math.cos(way), math.sin(way)
    about = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    ct, st = math.cos(tilt), math.sin(tilt)
    lean = np.array([[1, 0, 0], [0, ct, -st], [0, st, ct]])
    c, s = math.cos(turn), math.sin(turn)
    spin = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.asarray(spin @ np.diag([1.0, -1.0, 1.0]) @ about.T @ lean @ about)


def judge(sight: Sight) -> Mapping[str, bool]:
    """What can be told from the picture."""
    details, scale, state = sight.shape.details, sight.scale, sight.state
    fine = 2.2 + 1.6 * sight.blur
    leaf = "leaf" in sight.visible and sight.seen["leaf"] >= 80
    flat = sight.overhead > 0.6
    needle = state["leaf_shape"] == "needle"
    slim = needle or state["leaf_shape"] == "linear"
    half = details["half"] * scale
    share = sight.share["leaf"]
    single = details["single"] > 0
    tooth = details["tooth"] * scale
    margin = state["leaf_margin"]
    # A smooth edge is told where a tooth could be: a tenth of the half width.
    told = tooth if margin != "entire" else 0.12 * half
    spread = 2 * half >= 6 and flat
    simple = state["leaf_division"] == "simple"
    return {
        "leaf_margin": leaf and not slim and spread and share >= 0.6 and told >= 0.55 * fine,
        "leaf_shape": leaf and simple and flat and share >= 0.7 and (slim or half >= 4) and not (margin == "lobed" and not slim),
        "leaf_division": leaf and not needle and flat and share >= 0.7 and details["scale"] * scale >= 50,
        "leaf_arrangement": leaf and not single and not needle and share >= 0.65 and details["scale"] * scale >= 24,
        "leaf_venation": leaf and not slim and simple and half >= 9 + 6 * sight.blur and share >= 0.4 and details["scale"] * scale >= 60,
        "leaf_surface": leaf and not slim and half >= 9 + 5 * sight.blur and share >= 0.3,
    }


TROUPE: Final = Troupe(
    vocabulary=PLANT,
    pieces=PIECES,
    masks=_MASKS,
    sides={},
    framing=("leaf_shape", "leaf_arrangement", "leaf_division"),
    canonical={"leaf_margin": "entire", "leaf_venation": "pinnate", "leaf_surface": "matt"},
    build=build,
    view=view,
    colour=colour,
    judge=judge,
    least_share={"leaf": 0.3, "blade": 0.3, "stem": 0.3, "petiole": 0.35, "leaf_tip": 0.35, "leaf_base": 0.35},
    least_pixels={"leaf": 60, "blade": 50, "stem": 16, "petiole": 10, "leaf_tip": 6, "leaf_base": 8},
    focus={"leaf": 3, "stem": 0.6, "blade": 2, "petiole": 1, "leaf_tip": 1, "leaf_base": 1},
    close={"leaf": 0.5, "stem": 0.5, "blade": 0.5, "petiole": 0.35, "leaf_tip": 0.35, "leaf_base": 0.35},
    styles=STYLES,
    profiles=PROFILES,
    state_weights={"leaf_shape": (0.5, 0.7, 1, 1.2, 1.2, 0.9, 1, 0.8), "leaf_division": (2.2, 1, 1, 1)},
    grounds=GROUNDS,
    surround=surround,
    props=props,
)

WORLD: Final = World.of(
    PLANT,
    sample=partial(stage.sample, TROUPE),
    render=partial(stage.render, TROUPE),
    part_phrases=PARTS,
    state_phrases=STATES,
    host_phrases=PLANT_PHRASES,
)
