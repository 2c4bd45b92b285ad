"""Vocabulary of the world of leaves: characters and their states, parts, marks. Plain data, in the words of the trait pack."""

from __future__ import annotations

from typing import Final

from concept_cam.demo.worlds.family import Vocabulary

CHARACTERS: Final[dict[str, tuple[str, ...]]] = {
    "leaf_margin": ("entire", "serrate", "crenate", "lobed", "wavy", "spiny"),
    "leaf_shape": ("needle", "linear", "lanceolate", "ovate", "elliptic", "round", "heart_shaped", "arrow_shaped"),
    "leaf_division": ("simple", "pinnate", "palmate", "trifoliate"),
    "leaf_arrangement": ("alternate", "opposite", "whorled", "rosette"),
    "leaf_venation": ("pinnate", "palmate", "parallel", "netted"),
    "leaf_surface": ("glossy", "matt", "hairy", "wrinkled"),
}
"""Character -> its states. Flowers, fruits and thorns are not drawn."""

PARTS: Final = ("leaf", "stem", "leaf_blade", "petiole", "leaf_tip", "leaf_base")
"""`leaf` contains its blade and its petiole, the blade its tip and its base."""

CHARACTER_MASK: Final[dict[str, str]] = dict.fromkeys(CHARACTERS, "leaf")
"""Character -> the mask that shows it."""

SCENES: Final = ("herbarium", "plain", "ground", "growing")
"""What the leaves are before: a sheet with labels, a table or cloth, ground out of doors, a garden out of focus."""

PLANT: Final = Vocabulary(
    name="plant",
    host="plant",
    parts=PARTS,
    masks=PARTS,
    characters=CHARACTERS,
    character_mask=CHARACTER_MASK,
    presences=(),
    colours=(),
    scenes=SCENES,
)
"""The words of this world."""
