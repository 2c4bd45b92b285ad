"""Styles of pictures of butterflies and moths, and which profile mixes which."""

from __future__ import annotations

from typing import Final

from concept_cam.demo.worlds.draws import Style

_PHOTOGRAPH = Style(
    ranges={
        "camera.share": (0.0, 1.0),
        "exposure.blur": (0.0, 1.4),
        "exposure.gain": (0.75, 1.5),
        "exposure.saturation": (0.6, 1.3),
        "exposure.noise": (0.0, 1.2),
        "light.vignette": (0.0, 0.8),
        "open.fore": (-0.4, 1.1),
        "open.hind": (-0.5, 0.4),
        "worn.fore": (-0.8, 0.3),
        "worn.hind": (-0.8, 0.35),
        "coat.hind_tone": (0.65, 1.3),
        "antenna.out": (0.1, 1.3),
        # Bodies that have the colour of the wings that they lie between.
        "body.as_wings": (-0.5, 1.0),
        "fore.broad": (0.78, 1.3),
    },
    chances={
        "camera.any": 0.75,
        "camera.tight": 0.14,
        "camera.cut": 0.3,
        "view.oblique": 0.5,
        "view.ventral": 0.16,
        "jpeg": 0.5,
        "motion": 0.06,
        "petal.before": 0.2,
        "litter": 0.7,
        "blossoms": 0.4,
    },
    scenes={"pinned": 1.0, "plain": 0.6, "ground": 1.0, "leaf": 1.8, "flower": 2.4, "stem": 1.2, "bark": 0.7, "blurred": 1.6},
)

STYLES: Final[dict[str, Style]] = {"plain": Style(), "photograph": _PHOTOGRAPH}
"""Style -> what it draws otherwise."""

PROFILES: Final[dict[str, dict[str, float]]] = {"plain": {"plain": 1.0}, "photographs": {"plain": 0.2, "photograph": 0.8}}
"""Profile of `sample` -> shares of the styles."""
