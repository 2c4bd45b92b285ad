"""What the parts and states of the fish world are called, beside what the trait pack says. Plain data."""

from __future__ import annotations

from typing import Final

EXTRA_PHRASES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "caudal_fin_shape": {
        "forked": (
            "a forked tail",
            "a notched V-like tail fin",
            "a tail fin with two lobes",
            "a fork-shaped tail",
        ),
        "rounded": ("a rounded tail", "a fan-shaped tail fin", "a tail fin with a convex edge"),
        "truncate": (
            "a truncate tail",
            "a squared-off tail fin",
            "a tail fin with a straight edge",
            "a square tail",
        ),
        "lunate": ("a lunate tail", "a crescent tail fin", "a half-moon-shaped tail"),
        "emarginate": ("an emarginate tail", "a tail fin with a shallow notch", "a slightly indented tail"),
        "pointed": ("a pointed tail", "a tapering tail fin", "a lance-shaped tail fin"),
    },
    "dorsal_fin_number": {"single": ("one dorsal fin",), "double": ("two back fins", "a double dorsal fin")},
    "dorsal_fin_texture": {
        "spiny": ("a spiny back fin", "a dorsal fin with spines"),
        "soft": ("a smooth dorsal fin", "a soft-rayed back fin"),
    },
    "adipose_fin": {"present": ("an adipose fin", "a fish with a fleshy fin")},
    "pelvic_fin": {"present": ("pelvic fins", "ventral fins")},
    "barbels": {"present": ("barbels", "whiskers", "a fish with barbels around its mouth")},
    "eye_spot": {"present": ("an eye spot", "an eyespot", "an ocellus", "a false eye", "the eye spot of a fish")},
    "body_shape": {
        "fusiform": ("a fusiform fish", "a streamlined fish"),
        "elongated": ("an elongated fish", "a slender fish", "a long body"),
        "deep": ("a deep-bodied fish", "a tall body"),
    },
    "mouth_position": {
        "terminal": ("a mouth in front",),
        "superior": ("an upturned mouth",),
        "inferior": ("a mouth below",),
    },
    "pattern": {
        "plain": ("a plain fish", "a body without markings"),
        "striped": ("a striped fish", "horizontal stripes", "lengthwise stripes"),
        "barred": ("a barred fish", "vertical bars"),
        "spotted": ("a spotted fish", "dark spots"),
        "mottled": ("a mottled fish", "irregular blotches"),
    },
    "body_colour": {
        colour: (f"a {colour} fish", f"{colour} flanks") for colour in ("silver", "brown", "yellow", "red", "blue", "green", "black")
    },
}
"""Character -> state -> more phrases than the trait pack has, so that common wordings are in the model's vocabulary."""

EXTRA_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "head": ("head", "a head", "the head"),
    "eye": ("eye", "an eye", "the eye"),
    "mouth": ("mouth", "a mouth", "the mouth", "the lips of a fish", "the jaws of a fish"),
    "operculum": ("operculum", "gill cover", "an operculum", "the gills of a fish", "the cheek of a fish"),
    "trunk": ("flank", "trunk", "the flank", "the side of a fish", "scales", "the body of a fish"),
    "lateral_line": ("lateral line", "a lateral line"),
    "caudal_fin": (
        "tail fin",
        "caudal fin",
        "tail",
        "a tail fin",
        "a caudal fin",
        "a tail",
        "the tail fin",
        "the tail",
    ),
    "dorsal_fin": ("dorsal fin", "back fin", "a dorsal fin", "the dorsal fin", "the back fin of a fish"),
    "anal_fin": ("anal fin", "an anal fin", "the anal fin"),
    "pelvic_fin": ("pelvic fin", "a pelvic fin", "the pelvic fins of a fish", "the ventral fin of a fish"),
    "pectoral_fin": ("pectoral fin", "a pectoral fin", "the pectoral fin"),
    "adipose_fin": ("adipose fin", "an adipose fin", "the adipose fin"),
    "barbels": ("barbels", "barbel", "a barbel", "whiskers", "the barbels"),
}

FISH_PHRASES: Final = (
    "a fish",
    "fish",
    "the fish",
    "a specimen of a fish",
    "a whole fish",
    "a dead fish",
    "one fish",
    "the main subject",
)
SCENE_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "steel": ("a steel table", "a metal table", "steel"),
    "white_tray": ("a white tray", "a white background"),
    "grey_tray": ("a grey tray", "a gray tray", "a grey background"),
    "blue_tray": ("a blue tray", "a blue background"),
    "black_cloth": ("black cloth", "a black background"),
    "wood": ("a wooden board", "wood"),
    "gravel": ("gravel", "pebbles", "river stones"),
    "sand": ("sand", "a sandy bottom"),
    "grass": ("grass", "a green lawn"),
    "water": ("water", "open water"),
    "concrete": ("concrete", "a concrete floor"),
}

VIEWPOINT_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "side": ("a fish seen from the side", "a side view of a fish", "a fish lying on its side", "a fish in lateral view"),
    "above": ("a fish seen from above", "a dorsal view of a fish", "the back of a fish seen from above", "a fish in dorsal view"),
    "below": ("a fish seen from below", "a ventral view of a fish", "a fish lying belly up", "the belly of a fish seen from below"),
}
"""Viewpoint -> phrases. What lies between is called none of them."""

TAIL_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "spread": ("a spread tail fin", "a tail fin spread flat", "an open tail fin", "a tail fin seen flat"),
    "folded": ("a folded tail fin", "a closed tail fin", "a tail fin seen edge-on", "a twisted tail fin", "a collapsed tail"),
}
"""How a tail fin lies -> phrases."""

NUMBER_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "one": ("a single fish", "one fish alone"),
    "several": ("several fish", "two or more fish", "many fish", "a group of fish", "fishes side by side"),
}
"""How many fishes -> phrases."""

THING_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "hand": ("a hand", "a human hand", "fingers", "a person's hand", "a gloved hand", "a hand holding a fish"),
    "ruler": ("a ruler", "a scale bar", "a measuring tape", "a measuring stick"),
    "label": ("a label", "a paper label", "a tag with writing", "a piece of paper with text"),
    "card": ("a colour chart", "a color card", "a colour calibration card"),
    "stone": ("a stone", "a pebble", "a rock"),
    "leaf": ("a leaf", "a fallen leaf"),
    "stick": ("a stick", "a twig", "a piece of wood"),
}
"""Thing -> phrases."""
