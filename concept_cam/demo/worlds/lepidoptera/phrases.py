"""What parts and states of butterflies and moths are called, beside what the trait pack says. Plain data."""

from __future__ import annotations

from typing import Final

from concept_cam.demo.worlds.lepidoptera.traits import CHARACTERS

PART_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "fore_wing": (
        "fore wing",
        "forewing",
        "forewings",
        "the forewing",
        "a front wing",
        "the front wings",
        "an upper wing",
        "the anterior wing",
        "the forewing of a moth",
        "the fore wings of an insect",
        "the first pair of wings",
    ),
    "hind_wing": (
        "hind wing",
        "hindwing",
        "hindwings",
        "the hindwing",
        "a rear wing",
        "the back wings",
        "a lower wing",
        "the posterior wing",
        "the hindwing of a moth",
        "the hind wings of an insect",
        "the second pair of wings",
    ),
    "antennae": (
        "antenna",
        "antennae",
        "the antennae",
        "an antenna",
        "feelers",
        "the antennae of a moth",
        "the antennae of an insect",
        "horns of an insect",
    ),
    "head": ("head", "the head", "a head", "the head of a moth", "the head of an insect", "a moth's face", "the front end of the body"),
    "eye": ("eye", "the eyes", "an eye", "compound eye", "the compound eyes of an insect", "a moth's eye", "the eye of an insect"),
    "proboscis": (
        "proboscis",
        "the proboscis",
        "tongue",
        "the tongue of a butterfly",
        "a coiled tongue",
        "a drinking tube",
        "the sucking mouthparts",
    ),
    "thorax": (
        "thorax",
        "the thorax",
        "the chest of an insect",
        "the thorax of a moth",
        "a furry thorax",
        "the middle section of the body",
    ),
    "abdomen": (
        "abdomen",
        "the abdomen",
        "the belly of an insect",
        "the abdomen of a moth",
        "the tail end of the body",
        "a segmented abdomen",
    ),
    "legs": ("legs", "leg", "the legs", "a leg", "insect legs", "the legs of a moth", "the feet of a butterfly"),
    "body": (
        "body",
        "the body",
        "the body of an insect",
        "the body of a moth",
        "the trunk of a butterfly",
        "the slender body between the wings",
    ),
    "wing": ("wings", "wing", "the wings", "a wing", "the wings of a butterfly", "the wings of a moth", "insect wings"),
    "eyespot": ("eyespot", "an eyespot", "eyespots", "the eyespots", "an ocellus", "a false eye on the wing", "an eye-like spot"),
    "tail": ("hindwing tail", "a tail on the hind wing", "the tails of the hindwings", "a swallowtail's tail", "a long wing tail"),
}
"""Part or mark -> more ways to say it."""

STATE_PHRASES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "eyespots": {
        "present": (
            "eyespots",
            "wings with eyespots",
            "ocelli on the wings",
            "false eyes on the wings",
            "ringed spots like eyes",
            "a moth with eyespots",
        ),
        "absent": ("wings without eyespots", "no eyespots on the wings"),
    },
    "eyespot_number": {
        "one": ("one eyespot", "a single eyespot on each wing", "a lone large ocellus"),
        "several": ("several eyespots", "many eyespots", "a row of eyespots", "a chain of small ocelli"),
    },
    "wing_pattern": {
        "plain": ("plain wings", "wings without markings", "unpatterned wings", "wings of a single colour"),
        "banded": ("banded wings", "wings with broad bands", "a band across the wings", "transverse bands on the wings"),
        "striped": ("striped wings", "wings with narrow stripes", "zebra-like stripes", "many thin lines on the wings"),
        "spotted": ("spotted wings", "wings with spots", "dotted wings", "round spots on the wings"),
        "veined": ("veined wings", "wings with dark veins", "bold veins", "a network of veins"),
        "chequered": ("chequered wings", "checkered wings", "a chessboard pattern", "wings with small squares"),
        "mottled": ("mottled wings", "camouflaged wings", "bark-like wings", "irregular blotches on the wings", "marbled wings"),
        "transparent": ("transparent wings", "clear wings", "see-through wings", "glassy wings", "windows in the wings"),
    },
    "wing_border": {
        "dark": ("a dark wing border", "black wing edges", "a dark margin", "wings edged in black"),
        "spotted_border": ("a spotted wing border", "white dots along the margin", "a border with spots", "dots along the wing edge"),
        "pale": ("a pale wing border", "white wing edges", "a light margin", "wings edged in cream"),
        "plain": ("no wing border", "a plain wing margin", "wings without a border"),
    },
    "hindwing_tails": {
        "present": ("tails on the hindwings", "tailed hindwings", "swallowtails", "a moth with tails", "long tails"),
        "absent": ("hindwings without tails", "tailless hindwings"),
    },
    "wing_margin": {
        "smooth": ("smooth wing edges", "an even wing margin", "smoothly curved wings"),
        "scalloped": ("scalloped wing edges", "a wavy wing margin", "scalloped wings"),
        "ragged": ("ragged wing edges", "a jagged wing margin", "torn-looking wings", "angular notched wings"),
    },
    "forewing_shape": {
        "rounded": ("rounded forewings", "a rounded wing tip", "round wings"),
        "hooked": ("hooked forewings", "a hooked wing tip", "a sickle-shaped wing tip"),
        "elongated": ("elongated forewings", "long narrow wings", "slender forewings"),
        "triangular": ("triangular forewings", "a pointed triangular wing", "delta-shaped wings"),
    },
    "antenna_shape": {
        "clubbed": ("clubbed antennae", "antennae with knobs", "club-tipped antennae", "antennae with a thick tip"),
        "hooked": ("hooked antennae", "antennae with hooks", "antennae with a bent tip"),
        "feathery": ("feathery antennae", "feathered antennae", "plume-like antennae", "comb-like antennae", "bipectinate antennae"),
        "threadlike": ("threadlike antennae", "thin simple antennae", "hair-like antennae", "filiform antennae"),
    },
    "resting_posture": {
        "spread": ("wings spread", "open wings", "a butterfly with open wings", "a set specimen with spread wings", "wings laid out flat"),
        "closed": ("closed wings", "a butterfly with closed wings", "wings held together above the back", "wings shut"),
        "tented": ("tented wings", "a moth at rest with roof-like wings", "wings folded over the back", "wings laid along the body"),
    },
    "body_hair": {
        "hairy": ("a hairy body", "a furry body", "a fuzzy thorax", "a woolly moth"),
        "bare": ("a smooth body", "a bare body", "a shiny hairless body", "a slim body without fur"),
    },
    "wing_colour": {
        colour: (f"{colour} wings", f"a {colour} butterfly", f"a {colour} moth", f"wings of {colour} colour")
        for colour in CHARACTERS["wing_colour"]
    },
}
"""Character -> state -> more ways to say it."""

HOST_PHRASES: Final = (
    "a butterfly",
    "butterfly",
    "the butterfly",
    "a moth",
    "moth",
    "the moth",
    "a butterfly or a moth",
    "a winged insect",
    "an insect with large wings",
    "a pinned butterfly",
    "a moth at rest",
    "a lepidopteran",
    "the main subject",
)
"""Ways to say that there is one."""

SCENE_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "pinned": ("a collection board", "a museum drawer", "a board with labels", "a drawer of specimens"),
    "plain": ("a plain sheet", "a plain background", "paper"),
    "ground": ("the ground", "bare ground", "soil and stones"),
    "leaf": ("a leaf", "a green leaf", "a large leaf"),
    "flower": ("a flower", "a blossom", "petals", "flowers"),
    "stem": ("a stem", "a twig", "a blade of grass"),
    "bark": ("bark", "a tree trunk", "wood"),
    "blurred": ("blurred vegetation", "an out-of-focus background", "a green blur"),
}
"""Scene -> phrases."""
