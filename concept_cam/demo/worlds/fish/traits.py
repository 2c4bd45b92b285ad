"""Vocabulary of the fish world: characters and their states, parts. Plain data, no torch."""

from __future__ import annotations

from typing import Final

from concept_cam.demo.worlds.family import SCENES, Vocabulary

CHARACTERS: Final[dict[str, tuple[str, ...]]] = {
    "caudal_fin_shape": ("forked", "rounded", "truncate", "lunate", "emarginate", "pointed"),
    "dorsal_fin_number": ("single", "double"),
    "dorsal_fin_texture": ("spiny", "soft"),
    "adipose_fin": ("present", "absent"),
    "pelvic_fin": ("present", "absent"),
    "barbels": ("present", "absent"),
    "eye_spot": ("present", "absent"),
    "body_shape": ("fusiform", "elongated", "deep"),
    "mouth_position": ("terminal", "superior", "inferior"),
    "pattern": ("plain", "striped", "barred", "spotted", "mottled"),
    "body_colour": ("silver", "brown", "yellow", "red", "blue", "green", "black"),
}
"""Character -> its states. `striped` runs along the body, `barred` across it."""

PARTS: Final[tuple[str, ...]] = (
    "head",
    "eye",
    "mouth",
    "operculum",
    "trunk",
    "lateral_line",
    "caudal_fin",
    "dorsal_fin",
    "anal_fin",
    "pelvic_fin",
    "pectoral_fin",
    "adipose_fin",
    "barbels",
)
"""Anatomical parts. `head` contains eye, mouth and operculum; `trunk` contains the lateral line."""

MASKS: Final[tuple[str, ...]] = (*PARTS, "eye_spot")
"""The axis `P` of every mask tensor: the parts, then the eye spot (a mark on the trunk, not a part)."""

CHARACTER_PART: Final[dict[str, str]] = {
    "caudal_fin_shape": "caudal_fin",
    "dorsal_fin_number": "dorsal_fin",
    "dorsal_fin_texture": "dorsal_fin",
    "adipose_fin": "adipose_fin",
    "pelvic_fin": "pelvic_fin",
    "barbels": "barbels",
    "eye_spot": "eye_spot",
    "body_shape": "trunk",
    "mouth_position": "mouth",
    "pattern": "trunk",
    "body_colour": "trunk",
}
"""Character -> the mask (one of `MASKS`) that shows it."""

PRESENCE_CHARACTERS: Final[tuple[str, ...]] = ("adipose_fin", "pelvic_fin", "barbels", "eye_spot")
"""Characters whose states are `present` and `absent`."""

FISH: Final = Vocabulary(
    name="fish",
    host="fish",
    parts=PARTS,
    masks=MASKS,
    characters=CHARACTERS,
    character_mask=CHARACTER_PART,
    presences=PRESENCE_CHARACTERS,
    colours=("body_colour",),
    scenes=SCENES,
)
"""The words of this world."""
