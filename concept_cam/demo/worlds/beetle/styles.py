"""How photographs of beetles differ from the plain world, and what states go together in kinds of beetles. Tables only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from concept_cam.demo.worlds.draws import Style

STATE_WEIGHTS: Final[dict[str, tuple[float, ...]]] = {
    "horns": (0.35, 0.65),
    "snout": (0.35, 0.65),
    "mandible_size": (0.4, 0.6),
    "elytra_length": (0.72, 0.28),
    "elytra_colour": (1.6, 1.4, 1.2, 1, 1, 1.2, 1, 0.8, 0.8, 0.7),
}
"""Weights of the states where they are not alike, in the order of the characters' states."""

_RARE: Final = {"horns": {"absent": 1.0}, "snout": {"absent": 1.0}, "mandible_size": {"small": 1.0}, "elytra_length": {"covering": 1.0}}

KINDS: Final[Sequence[tuple[float, Mapping[str, Mapping[str, float]]]]] = (
    # Ladybirds.
    (
        2.0,
        {
            **_RARE,
            "body_shape": {"domed": 1},
            "elytra_texture": {"smooth": 1},
            "elytra_gloss": {"shiny": 1},
            "elytra_pattern": {"spotted": 6, "plain": 1, "banded": 0.5},
            "elytra_colour": {"red": 4, "orange": 3, "yellow": 2, "black": 2, "brown": 0.5},
            "antenna_shape": {"clubbed": 1},
            "antenna_length": {"short": 1},
            "pronotum_shape": {"rounded": 3, "rectangular": 1},
        },
    ),
    # Ground and tiger beetles.
    (
        2.0,
        {
            **_RARE,
            "body_shape": {"oval": 3, "elongated": 1.5, "flattened": 0.5},
            "elytra_texture": {"grooved": 4, "pitted": 2, "smooth": 1, "ridged": 1},
            "elytra_gloss": {"shiny": 2, "metallic": 2, "matt": 0.5},
            "elytra_pattern": {"plain": 6, "spotted": 1, "banded": 0.6, "marbled": 0.4},
            "elytra_colour": {"black": 4, "brown": 2, "green": 2, "blue": 1, "purple": 1},
            "antenna_shape": {"threadlike": 1},
            "pronotum_shape": {"heart_shaped": 3, "rounded": 1.5, "rectangular": 1},
            "mandible_size": {"small": 3, "enlarged": 1},
        },
    ),
    # Longhorns.
    (
        1.6,
        {
            **_RARE,
            "body_shape": {"elongated": 4, "oval": 0.7},
            "antenna_shape": {"threadlike": 4, "saw_toothed": 1},
            "antenna_length": {"long": 1},
            "elytra_pattern": {"plain": 2, "spotted": 2, "banded": 2, "marbled": 2, "striped": 0.5},
            "pronotum_shape": {"spined": 2, "cylindrical": 2, "rounded": 1},
            "elytra_texture": {"smooth": 1, "pitted": 1.5, "hairy": 1.5},
            "elytra_gloss": {"matt": 2, "shiny": 1, "metallic": 0.5},
            "elytra_colour": {"black": 2, "brown": 2, "grey": 2, "red": 1, "yellow": 0.6, "blue": 0.5},
        },
    ),
    # Leaf and jewel beetles.
    (
        1.6,
        {
            **_RARE,
            "body_shape": {"oval": 2, "domed": 1, "elongated": 1},
            "antenna_shape": {"threadlike": 2, "saw_toothed": 1, "clubbed": 0.5},
            "elytra_gloss": {"metallic": 3, "shiny": 2},
            "elytra_pattern": {"plain": 3, "striped": 2, "spotted": 1},
            "elytra_texture": {"smooth": 1.5, "pitted": 1.5, "grooved": 0.6},
            "elytra_colour": {"green": 3, "blue": 2, "yellow": 1, "red": 1.3, "orange": 1, "purple": 1},
            "pronotum_shape": {"rounded": 1, "rectangular": 2},
        },
    ),
    # Dung, rhinoceros and other scarabs.
    (
        1.8,
        {
            **_RARE,
            "body_shape": {"oval": 3, "domed": 1},
            "antenna_shape": {"fan_shaped": 1},
            "antenna_length": {"short": 1},
            "horns": {"present": 2, "absent": 1.3},
            "elytra_gloss": {"shiny": 3, "matt": 1, "metallic": 1},
            "elytra_pattern": {"plain": 1},
            "elytra_colour": {"black": 3, "brown": 4, "green": 1, "red": 0.3},
            "elytra_texture": {"smooth": 2, "grooved": 2, "pitted": 1, "hairy": 0.5},
            "pronotum_shape": {"rounded": 2, "rectangular": 1},
        },
    ),
    # Stag beetles.
    (
        0.8,
        {
            **_RARE,
            "body_shape": {"oval": 1, "elongated": 1},
            "mandible_size": {"enlarged": 1},
            "antenna_shape": {"elbowed": 2, "comb_like": 1},
            "antenna_length": {"short": 1},
            "elytra_gloss": {"shiny": 2, "matt": 1},
            "elytra_pattern": {"plain": 1},
            "elytra_colour": {"black": 2, "brown": 2},
            "elytra_texture": {"smooth": 1},
            "pronotum_shape": {"rectangular": 1},
        },
    ),
    # Weevils.
    (
        1.5,
        {
            **_RARE,
            "snout": {"present": 1},
            "antenna_shape": {"elbowed": 3, "clubbed": 1},
            "antenna_length": {"short": 1},
            "body_shape": {"oval": 2, "elongated": 1},
            "elytra_texture": {"grooved": 2, "pitted": 2, "warty": 1.5, "hairy": 1, "ridged": 1},
            "elytra_gloss": {"matt": 3, "shiny": 1, "metallic": 0.5},
            "elytra_pattern": {"plain": 2, "marbled": 2, "banded": 0.6, "striped": 0.6},
            "pronotum_shape": {"rounded": 2, "cylindrical": 1.4},
        },
    ),
    # Rove and carrion beetles.
    (
        0.7,
        {
            **_RARE,
            "elytra_length": {"shortened": 1},
            "body_shape": {"elongated": 3, "flattened": 1, "oval": 0.5},
            "antenna_shape": {"threadlike": 2, "clubbed": 2},
            "elytra_pattern": {"plain": 2, "banded": 2},
            "elytra_colour": {"black": 3, "brown": 1, "red": 1.5, "orange": 1},
        },
    ),
    # Click and soldier beetles.
    (
        0.8,
        {
            **_RARE,
            "body_shape": {"elongated": 3, "flattened": 1},
            "antenna_shape": {"saw_toothed": 2, "threadlike": 1, "comb_like": 0.7},
            "elytra_texture": {"grooved": 2, "smooth": 1, "hairy": 1},
            "pronotum_shape": {"rectangular": 2, "rounded": 1},
        },
    ),
)
"""Weight, and character -> state -> weight, of kinds of beetles that photographs show. A character left out is drawn as usual."""

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
        "sun.behind": (0.0, 1.2),
        "camera.share": (0.3, 0.95),
        "camera.near": (0.0, 0.4),
        "camera.tight_share": (0.14, 0.14),
        "camera.cut_share": (0.25, 0.25),
        "blade.share": (0.12, 0.12),
        "antenna.middling_share": (0.3, 0.3),
        "ground.soft": (0.0, 1.0),
        "view.above": (0.34, 0.34),
        "view.oblique": (0.38, 0.38),
        "view.side": (0.18, 0.18),
        "legs.length": (0.6, 1.5),
        "antenna.swing": (-1.3, 1.3),
    },
    chances={"kind.followed": 0.72, "jpeg": 0.5, "motion": 0.06},
    weights={"several": (0.9, 0.06, 0.03, 0.01), "object0": (5.0, 0.8, 0.6, 0.3, 0.6, 0.9, 0.7, 0.2)},
    scenes={"pinned": 1.2, "plain": 1, "ground": 2.5, "leaf": 3, "flower": 1.2, "bark": 1, "blurred": 1},
)

_PLAIN: Final = Style(ranges={"camera.share": (0.38, 0.86)})
"""Room for antennae beside the body."""

STYLES: Final[dict[str, Style]] = {"plain": _PLAIN, "photograph": _PHOTOGRAPH}
"""Style -> what it draws otherwise."""

PROFILES: Final[dict[str, dict[str, float]]] = {"plain": {"plain": 1.0}, "photographs": {"plain": 0.2, "photograph": 0.8}}
"""Profile -> shares of the styles."""
