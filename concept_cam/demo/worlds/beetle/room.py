"""The beetle world as one of the family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds import stage
from concept_cam.demo.worlds.beetle.anatomy import build, frame
from concept_cam.demo.worlds.beetle.body import PIECES
from concept_cam.demo.worlds.beetle.coat import colour
from concept_cam.demo.worlds.beetle.phrases import BEETLE_PHRASES, PARTS, SCENE_PHRASES, STATES
from concept_cam.demo.worlds.beetle.places import GROUNDS, props, surround
from concept_cam.demo.worlds.beetle.styles import KINDS, PROFILES, STATE_WEIGHTS, STYLES
from concept_cam.demo.worlds.beetle.traits import BEETLE
from concept_cam.demo.worlds.family import World
from concept_cam.demo.worlds.stage import Draw, Sight, Troupe

_MASKS: Final = {
    "elytra": ("elytron.left", "elytron.right", "scutellum", "hair"),
    "pronotum": ("pronotum", "horn.pronotum"),
    "scutellum": ("scutellum",),
    "head": ("head", "eye.left", "eye.right", "mandible.left", "mandible.right", "horn.head", "snout"),
    "eye": ("eye.left", "eye.right"),
    "antennae": ("antenna.left", "antenna.right"),
    "mandibles": ("mandible.left", "mandible.right"),
    "abdomen": ("abdomen",),
    "legs": ("leg.left", "leg.right"),
    "horns": ("horn.head", "horn.pronotum"),
    "snout": ("snout",),
}

_SIDES: Final = {
    f"{name}.{side}": number for name in ("elytron", "eye", "antenna", "mandible", "leg") for side, number in (("left", 1), ("right", 2))
}


def view(draw: Draw) -> npt.NDArray[np.floating]:
    """From above, obliquely, from the side, or from in front; rows as `Troupe.view` has them."""
    kind = draw("view.kind")
    above, oblique, side = draw("view.above", 0.5, 0.5), draw("view.oblique", 0.27, 0.27), draw("view.side", 0.15, 0.15)
    left = draw("view.left") < 0.5
    free = draw("view.free")
    if kind < above:
        roll, pitch = draw("view.roll", -0.22, 0.22), draw("view.pitch", -0.2, 0.2)
        upright = free < 0.25
    elif kind < above + oblique:
        roll = draw("view.roll_oblique", 0.25, 1.0) * (1 if left else -1)
        pitch = draw("view.pitch_oblique", -0.6, 0.35)
        upright = free < 0.7
    elif kind < above + oblique + side:
        roll = draw("view.roll_side", 1.05, 1.5) * (1 if left else -1)
        pitch = draw("view.pitch_side", -0.3, 0.2)
        upright = free < 0.85
    else:
        roll, pitch = draw("view.roll_front", -0.6, 0.6), draw("view.pitch_front", -1.05, -0.6)
        upright = False
    turn = draw("view.turn", -math.pi, math.pi)
    if upright:
        # The ground below.
        turn = (math.pi if roll > 0 else 0.0) + 0.3 * turn / math.pi
    elif free > 0.6:
        # Set straight, as in a collection.
        turn = round(turn / (math.pi / 2)) * (math.pi / 2) + 0.08 * (turn % 1.0 - 0.5)
    c, s = math.cos(roll), math.sin(roll)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = math.cos(pitch), math.sin(pitch)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = math.cos(turn), math.sin(turn)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.asarray(about_z @ np.diag([1.0, -1.0, 1.0]) @ about_y @ about_x)


def judge(sight: Sight) -> Mapping[str, bool]:
    """What can be told from the picture."""
    seen, share, state, visible = sight.seen, sight.share, sight.state, sight.visible
    up, scale, blur = sight.overhead, sight.scale, sight.blur
    elytra = "elytra" in visible
    # Details have to stand out from the blur.
    fine = 2.4 + 1.8 * blur
    head = "head" in visible and share["head"] >= 0.6
    antennae = "antennae" in visible
    long = state["antenna_length"] == "long"
    reach = (0.85 if long else 0.17) * scale

    def length(way: tuple[float, float, float], long: float) -> float:
        """Pixels that something of length `long` in the direction `way` would have in the picture."""
        x, y, _ = np.asarray(sight.view) @ np.array(way)
        return float(np.hypot(x, y)) * long * scale

    horn = length((0.8, 0.0, 0.6), sight.shape.frame.reaches["horns"])
    snout = length((0.97, 0.0, -0.25), sight.shape.frame.reaches["snout"])
    return {
        "elytra_texture": elytra and share["elytra"] >= 0.45 and seen["elytra"] >= 300 and sight.shape.details["groove"] * scale >= fine,
        # Hairs hide it.
        "elytra_gloss": elytra and seen["elytra"] >= 150 and state["elytra_texture"] != "hairy",
        "elytra_pattern": elytra and share["elytra"] >= 0.55 and seen["elytra"] >= 200 and up > -0.2,
        # Of two colours in equal shares, nobody can say which one the elytra have, nor of metal, which has others from each side.
        "elytra_colour": seen["elytra"] >= 60
        and share["elytra"] >= 0.2
        and state["elytra_pattern"] in ("plain", "spotted")
        and state["elytra_gloss"] != "metallic",
        "elytra_length": elytra and share["elytra"] >= 0.75 and seen["elytra"] >= 60 and sight.free["abdomen"],
        "horns": ("horns" in visible) if state["horns"] == "present" else (head and sight.free["horns"] and horn >= 9.0),
        "mandible_size": ("mandibles" in visible)
        if state["mandible_size"] == "enlarged"
        else (head and sight.free["mandibles"] and up > 0.25 and scale * 0.16 >= 9),
        "snout": ("snout" in visible) if state["snout"] == "present" else (head and sight.free["snout"] and snout >= 9.0),
        "antenna_shape": antennae and share["antennae"] >= 0.65 and 0.02 * scale >= 0.8 * fine and reach >= 24,
        "antenna_length": antennae and share["antennae"] >= 0.65 and not sight.shape.details["middling"] and reach >= 8,
        "pronotum_shape": "pronotum" in visible and share["pronotum"] >= 0.7 and up > 0.75 and seen["pronotum"] >= 100,
        "body_shape": elytra and share["elytra"] >= 0.8 and up > 0.55 and seen["elytra"] >= 100,
    }


TROUPE: Final = Troupe(
    vocabulary=BEETLE,
    pieces=PIECES,
    masks=_MASKS,
    sides=_SIDES,
    framing=("body_shape", "elytra_colour", "elytra_gloss"),
    canonical={
        "elytra_texture": "smooth",
        "elytra_pattern": "plain",
        "elytra_length": "covering",
        "horns": "absent",
        "mandible_size": "small",
        "snout": "absent",
        "antenna_shape": "threadlike",
        "antenna_length": "short",
        "pronotum_shape": "rounded",
    },
    frame=frame,
    build=build,
    view=view,
    colour=colour,
    judge=judge,
    least_share={
        "elytra": 0.3,
        "pronotum": 0.35,
        "head": 0.35,
        "legs": 0.35,
        "abdomen": 0.25,
        "antennae": 0.4,
        "eye": 0.3,
        "scutellum": 0.5,
    },
    least_pixels={
        "elytra": 60,
        "pronotum": 30,
        "head": 20,
        "legs": 24,
        "abdomen": 40,
        "antennae": 12,
        "eye": 5,
        "scutellum": 6,
        "mandibles": 7,
        "horns": 12,
        "snout": 12,
    },
    focus={
        "elytra": 2,
        "pronotum": 1.5,
        "scutellum": 0.5,
        "head": 2.5,
        "eye": 0.6,
        "antennae": 2,
        "mandibles": 1,
        "abdomen": 0.7,
        "legs": 0.8,
        "horns": 1,
        "snout": 1,
    },
    close={
        "elytra": 0.75,
        "pronotum": 0.5,
        "scutellum": 0.25,
        "head": 0.4,
        "eye": 0.25,
        "antennae": 0.5,
        "mandibles": 0.42,
        "abdomen": 0.7,
        "legs": 0.6,
        "horns": 0.5,
        "snout": 0.5,
    },
    styles=STYLES,
    profiles=PROFILES,
    state_weights=STATE_WEIGHTS,
    grounds=GROUNDS,
    surround=surround,
    kinds=KINDS,
    props=props,
)

WORLD: Final = World.of(
    BEETLE,
    sample=partial(stage.sample, TROUPE),
    render=partial(stage.render, TROUPE),
    part_phrases=PARTS,
    state_phrases=STATES,
    host_phrases=BEETLE_PHRASES,
    scene_phrases=SCENE_PHRASES,
)
