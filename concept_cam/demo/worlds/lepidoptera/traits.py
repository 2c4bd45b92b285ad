"""Vocabulary of the world of butterflies and moths. Plain data, no torch."""

from __future__ import annotations

from typing import Final

from concept_cam.demo.worlds.family import Vocabulary

PARTS: Final = ("fore_wing", "hind_wing", "antennae", "head", "eye", "proboscis", "thorax", "abdomen", "legs", "body")
"""Anatomical parts. `head` contains the eyes; `body` is thorax and abdomen."""

MASKS: Final = (*PARTS, "wing", "eyespot", "tail")
"""The axis `P` of every mask tensor: the parts, then all wings together, eyespots, and the tails of hind wings."""

CHARACTERS: Final[dict[str, tuple[str, ...]]] = {
    "eyespots": ("present", "absent"),
    "eyespot_number": ("one", "several"),
    "wing_pattern": ("plain", "banded", "striped", "spotted", "veined", "chequered", "mottled", "transparent"),
    "wing_border": ("dark", "spotted_border", "pale", "plain"),
    "hindwing_tails": ("present", "absent"),
    "wing_margin": ("smooth", "scalloped", "ragged"),
    "forewing_shape": ("rounded", "hooked", "elongated", "triangular"),
    "antenna_shape": ("clubbed", "hooked", "feathery", "threadlike"),
    "resting_posture": ("spread", "closed", "tented"),
    "body_hair": ("hairy", "bare"),
    "wing_colour": ("white", "yellow", "orange", "red", "brown", "black", "blue", "green", "purple", "grey", "iridescent"),
}
"""Character -> its states."""

CHARACTER_MASK: Final[dict[str, str]] = {
    "eyespots": "eyespot",
    "eyespot_number": "eyespot",
    "wing_pattern": "wing",
    "wing_border": "wing",
    "hindwing_tails": "tail",
    "wing_margin": "wing",
    "forewing_shape": "fore_wing",
    "antenna_shape": "antennae",
    "resting_posture": "wing",
    "body_hair": "body",
    "wing_colour": "wing",
}
"""Character -> the mask that shows it."""

SCENES: Final = ("pinned", "plain", "ground", "leaf", "flower", "stem", "bark", "blurred")
"""What the animal is before: a board with labels, a bare sheet, ground, a leaf, a flower, a stem, bark, vegetation out of focus."""

LEPIDOPTERA: Final = Vocabulary(
    name="lepidoptera",
    host="butterfly",
    parts=PARTS,
    masks=MASKS,
    characters=CHARACTERS,
    character_mask=CHARACTER_MASK,
    presences=("eyespots", "hindwing_tails"),
    colours=("wing_colour",),
    scenes=SCENES,
    paired=("fore_wing", "hind_wing", "antennae", "eye", "wing", "eyespot", "tail"),
)
"""The words of this world."""
