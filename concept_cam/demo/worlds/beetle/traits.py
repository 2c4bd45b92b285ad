"""Vocabulary of the beetle world: characters and their states, parts, marks. Plain data, in the words of the trait pack."""

from __future__ import annotations

from typing import Final

from concept_cam.demo.worlds.family import Vocabulary

CHARACTERS: Final[dict[str, tuple[str, ...]]] = {
    "elytra_texture": ("smooth", "grooved", "pitted", "ridged", "warty", "hairy"),
    "elytra_gloss": ("shiny", "metallic", "matt"),
    "elytra_pattern": ("plain", "spotted", "striped", "banded", "marbled"),
    "elytra_colour": ("black", "brown", "red", "orange", "yellow", "green", "blue", "purple", "grey", "white"),
    "elytra_length": ("covering", "shortened"),
    "horns": ("present", "absent"),
    "mandible_size": ("enlarged", "small"),
    "snout": ("present", "absent"),
    "antenna_shape": ("threadlike", "clubbed", "fan_shaped", "comb_like", "saw_toothed", "elbowed"),
    "antenna_length": ("long", "short"),
    "pronotum_shape": ("rounded", "rectangular", "heart_shaped", "cylindrical", "spined"),
    "body_shape": ("oval", "domed", "elongated", "flattened"),
}

PARTS: Final[tuple[str, ...]] = ("elytra", "pronotum", "scutellum", "head", "eye", "antennae", "mandibles", "abdomen", "legs")
"""`head` contains eyes, mandibles, snout and the horn that it bears; `elytra` contains the scutellum between them."""

MARKS: Final[tuple[str, ...]] = ("horns", "snout")

CHARACTER_MASK: Final[dict[str, str]] = {
    "elytra_texture": "elytra",
    "elytra_gloss": "elytra",
    "elytra_pattern": "elytra",
    "elytra_colour": "elytra",
    "elytra_length": "elytra",
    "horns": "horns",
    "mandible_size": "mandibles",
    "snout": "snout",
    "antenna_shape": "antennae",
    "antenna_length": "antennae",
    "pronotum_shape": "pronotum",
    "body_shape": "elytra",
}

SCENES: Final = ("pinned", "plain", "ground", "leaf", "flower", "bark", "blurred")
"""What the beetle is before: a board with labels, a table or cloth, ground, a leaf, a flower, bark, vegetation out of focus."""

BEETLE: Final = Vocabulary(
    name="beetle",
    host="beetle",
    parts=PARTS,
    masks=(*PARTS, *MARKS),
    characters=CHARACTERS,
    character_mask=CHARACTER_MASK,
    presences=("horns", "snout"),
    # Metal differs from other polish by the colours that it throws back.
    colours=("elytra_colour", "elytra_gloss"),
    scenes=SCENES,
    paired=("elytra", "eye", "antennae", "mandibles", "legs"),
)
