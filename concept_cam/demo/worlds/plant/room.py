"""The world of leaves as one of the family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds import stage
from concept_cam.demo.worlds.family import World
from concept_cam.demo.worlds.plant.anatomy import PIECES, build, frame
from concept_cam.demo.worlds.plant.coat import colour
from concept_cam.demo.worlds.plant.phrases import PARTS, PLANT_PHRASES, SCENE_PHRASES, STATES
from concept_cam.demo.worlds.plant.places import GROUNDS, props, surround
from concept_cam.demo.worlds.plant.styles import KINDS, PROFILES, STATE_WEIGHTS, STYLES
from concept_cam.demo.worlds.plant.traits import PLANT
from concept_cam.demo.worlds.stage import Draw, Sight, Troupe

_MASKS: Final = {
    "leaf": ("blade", "tip", "base", "petiole", "hair"),
    "stem": ("stem",),
    "leaf_blade": ("blade", "tip", "base", "hair"),
    "petiole": ("petiole",),
    "leaf_tip": ("tip",),
    "leaf_base": ("base",),
}


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
    details, state = sight.shape.details, sight.state
    fine = 2.2 + 1.6 * sight.blur
    leaf = "leaf" in sight.visible and sight.seen["leaf"] >= 80
    flat = sight.overhead > 0.6
    slim = state["leaf_shape"] in ("needle", "linear")
    needle, simple = state["leaf_shape"] == "needle", state["leaf_division"] == "simple"
    inside, share = sight.inside["leaf"], sight.share["leaf"]
    long, half, tooth, leaflet = (details[name] * sight.scale for name in ("size", "half", "tooth", "leaflet"))
    # Where leaves hide each other so much, their outlines run into one.
    clear = share >= 0.6
    # Leaflets that part in their outer halves only are told from lobes of one blade by nobody.
    parted = simple or (share >= 0.7 and details["fused"] <= 0.5 and leaflet >= 16)
    # A smooth edge is told where a tooth could be seen: an eighth of the half width.
    told = 0.12 * half if state["leaf_margin"] == "entire" else tooth
    broad = leaf and not slim
    return {
        "leaf_margin": broad and flat and clear and half >= 3 and inside >= 0.55 and told >= fine,
        "leaf_shape": leaf
        and simple
        and flat
        and inside >= 0.75
        and share >= 0.4
        and (slim or (half >= 4 and state["leaf_margin"] != "lobed")),
        "leaf_division": leaf and not needle and flat and inside >= 0.8 and clear and parted and long >= 45,
        "leaf_arrangement": leaf and not needle and details["leaves"] > 1 and inside >= 0.7 and share >= 0.3 and long >= 22,
        "leaf_venation": broad and simple and half >= 14 + 8 * sight.blur and share >= 0.25 and long >= 50,
        "leaf_surface": broad and half >= 8 + 5 * sight.blur and share >= 0.2,
    }


TROUPE: Final = Troupe(
    vocabulary=PLANT,
    pieces=PIECES,
    masks=_MASKS,
    sides={},
    framing=("leaf_shape", "leaf_arrangement", "leaf_division"),
    canonical={"leaf_margin": "entire", "leaf_venation": "pinnate", "leaf_surface": "matt"},
    frame=frame,
    build=build,
    view=view,
    colour=colour,
    judge=judge,
    least_share={"leaf": 0.3, "leaf_blade": 0.3, "stem": 0.3, "petiole": 0.35, "leaf_tip": 0.35, "leaf_base": 0.35},
    least_pixels={"leaf": 60, "leaf_blade": 50, "stem": 16, "petiole": 10, "leaf_tip": 6, "leaf_base": 8},
    focus={"leaf": 3, "stem": 0.6, "leaf_blade": 2, "petiole": 1, "leaf_tip": 1, "leaf_base": 1},
    close={"leaf": 0.5, "stem": 0.5, "leaf_blade": 0.5, "petiole": 0.35, "leaf_tip": 0.35, "leaf_base": 0.35},
    styles=STYLES,
    profiles=PROFILES,
    state_weights=STATE_WEIGHTS,
    kinds=KINDS,
    flat=True,
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
    scene_phrases=SCENE_PHRASES,
)
