"""Styles of pictures: how photographs of fish differ from the plain world. Tables of parameters, no torch.

A style changes the ranges from which named parameters are drawn, never how they are used. The plain style changes nothing: its
pictures are the benchmark's. A parameter that both styles draw from the same range has the same value in both.
"""

from __future__ import annotations

from typing import Final

from concept_cam.demo.worlds.draws import Style

_PHOTOGRAPH = Style(
    ranges={
        # Slack bodies, tails pressed against the table or curled.
        "body.bend": (-1.35, 1.35),
        "body.bend_s": (-1.3, 1.3),
        "caudal.tilt": (-1.35, 1.35),
        "fin.flesh": (-0.3, 0.7),
        "fin.pale": (0.0, 0.8),
        "mouth.open": (0.03, 0.42),
        # Handheld cameras: cut off, out of focus, in bad light.
        "camera.overfull": (0.97, 1.7),
        "exposure.blur": (0.0, 1.2),
        "exposure.gain": (0.66, 1.32),
        "exposure.noise": (0.0, 1.25),
        "exposure.saturation": (0.55, 1.2),
        "balance.warm": (-1.25, 1.25),
        "shadow.strength": (0.1, 1.25),
        "shadow.x": (-0.08, 0.08),
        "light.vignette": (0.0, 1.15),
        "light.fall": (0.0, 1.6),
        "glare.strength": (0.1, 1.45),
        # Wet skin.
        "coat.gloss": (0.1, 1.35),
        "coat.gloss_place": (-0.1, 0.7),
        "coat.glint": (0.0, 1.0),
        "coat.sheen": (-0.35, 0.8),
        "coat.saturation": (0.3, 1.05),
        "coat.blush": (0.0, 1.1),
        "eye.radius": (0.013, 0.040),
        # Broad and narrow paired fins.
        "pectoral.spread": (0.022, 0.085),
        # Barbels of every length and direction, limp or curled, darker or lighter than what they lie on, or hardly so.
        "barbel.length": (0.10, 0.34),
        "barbel.curl0": (-0.7, 0.7),
        "barbel.curl1": (-0.7, 0.7),
        "barbel.curl2": (-0.7, 0.7),
        "barbel.apart": (0.08, 0.18),
    },
    chances={
        "camera.any": 0.25,
        "camera.upended": 0.2,
        "camera.tight": 0.18,
        "camera.cut": 0.3,
        "coat.wet": 0.35,
        "coat.scaly": 0.5,
        "coat.pale": 0.35,
        "jpeg": 0.5,
        "far.shown": 0.3,
        "caudal.folded": 0.4,
        "caudal.full": 0.7,
        "caudal.closed": 0.2,
        "motion": 0.12,
        "hand": 0.14,
        "barbel.back": 0.3,
    },
    weights={
        "barbel.tint": (0.7, 0.15, 0.15),
        "state.caudal_fin_shape": (2.5, 1.0, 1.0, 1.0, 1.0, 1.0),
        "several": (0.84, 0.08, 0.05, 0.03),
        "object0": (3.0, 0.8, 1.0, 0.4, 0.3, 0.3, 0.3, 0.4),
    },
    posed=True,
)

_CATFISH = Style(
    ranges={
        **_PHOTOGRAPH.ranges,
        "camera.share": (0.5, 1.0),
        "exposure.blur": (0.0, 0.7),
        "exposure.noise": (0.0, 0.9),
        # A scaleless, tapering body behind a broad head.
        "body.peak": (0.24, 0.36),
        "body.belly_peak": (0.28, 0.46),
        "body.peduncle": (0.075, 0.12),
        "body.blunt": (0.55, 0.85),
        "body.snout": (0.03, 0.12),
        "head.operculum": (0.20, 0.27),
        "pattern.strength": (0.3, 0.8),
        "pose.head_width": (0.85, 1.3),
        "pose.trunk_width": (0.55, 0.9),
        "mouth.length": (0.25, 0.5),
        "eye.radius": (0.010, 0.020),
        "eye.place": (0.28, 0.5),
        "barbel.length": (0.14, 0.42),
        "barbel.curl0": (-0.7, 0.7),
        "barbel.curl1": (-0.7, 0.7),
        "barbel.curl2": (-0.7, 0.7),
        "barbel.width": (0.0045, 0.0095),
        "barbel.dark": (0.3, 1.0),
        "dorsal.start": (0.28, 0.37),
        "dorsal.length": (0.075, 0.14),
        "dorsal.height": (0.09, 0.16),
        "anal.start": (0.595, 0.66),
        "anal.length": (0.2, 0.32),
        "pectoral.length": (0.10, 0.17),
        "pectoral.spread": (0.025, 0.085),
        "dorsal.taper": (0.35, 0.85),
        "adipose.height": (0.024, 0.058),
        "caudal.depth": (0.0, 1.0),
        # Dark back, white belly, an irregular border; blood in the fins.
        "coat.saturation": (0.25, 0.85),
        "coat.countershade": (0.7, 1.25),
        "coat.edge_wander": (0.06, 0.42),
        "coat.back_edge": (-0.25, 0.35),
        "coat.belly_edge": (-0.25, 0.35),
        "coat.blotch": (0.03, 0.16),
        "coat.gloss": (0.3, 1.35),
        "coat.glint": (0.0, 0.7),
        "coat.sheen": (-0.1, 0.9),
        # Strong rays, close together.
        "fin.ray_soft": (0.2, 0.8),
        "caudal.rays": (9.0, 18.0),
        "fin.tint_share": (0.35, 0.95),
        "fin.flesh": (0.0, 0.9),
        "fin.pale": (0.2, 1.0),
        "scene.stain": (0.2, 1.0),
        "light.vignette": (0.3, 1.3),
        "glare.strength": (0.4, 1.5),
        "exposure.saturation": (0.7, 1.15),
    },
    chances={
        **_PHOTOGRAPH.chances,
        "camera.any": 0.08,
        "camera.upended": 0.35,
        "caudal.full": 0.9,
        "caudal.closed": 0.35,
        "coat.wet": 0.3,
        "coat.scaly": 0.05,
        "coat.pale": 0.7,
        "barbel.up": 0.6,
        "hand": 0.08,
    },
    weights={
        "several": (0.92, 0.05, 0.02, 0.01),
        "object0": (4.0, 0.3, 0.5, 0.1, 0.0, 0.0, 0.1, 0.3),
        "object1": (6.0, 0.3, 0.3, 0.1, 0.0, 0.0, 0.1, 0.3),
        "object2": (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        "state.caudal_fin_shape": (5.0, 1.0, 1.0, 0.6, 1.2, 0.8),
        "state.dorsal_fin_number": (3.0, 1.0),
        "state.adipose_fin": (2.0, 1.0),
        "state.pelvic_fin": (3.0, 1.0),
        "state.barbels": (2.0, 1.0),
        "barbel.tint": (0.6, 0.25, 0.15),
        "state.eye_spot": (0.15, 0.85),
        "state.body_shape": (4.0, 2.0, 0.6),
        "state.pattern": (3.0, 0.5, 0.5, 1.5, 2.0),
        "state.body_colour": (2.5, 2.0, 0.6, 0.3, 0.4, 2.0, 2.0),
        "fin.tint": (0.2, 0.55, 0.05, 0.2),
        "fin.rim": (0.4, 0.3, 0.25, 0.05),
    },
    scenes={"steel": 12.0, "white_tray": 1.0, "grey_tray": 2.0, "concrete": 0.5, "black_cloth": 0.3},
    posed=True,
)

STYLES: Final[dict[str, Style]] = {"plain": Style(), "photograph": _PHOTOGRAPH, "catfish": _CATFISH}
"""Style -> what it draws otherwise."""

PROFILES: Final[dict[str, dict[str, float]]] = {
    "plain": {"plain": 1.0},
    "photographs": {"plain": 0.15, "photograph": 0.5, "catfish": 0.35},
}
"""Profile of `world.sample` -> shares of the styles."""
