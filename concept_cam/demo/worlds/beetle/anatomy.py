"""A whole beetle in space, and what its camera is aimed by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from concept_cam.demo.worlds.beetle.body import SIDES, Plan, elytra, head, plan, pronotum, scutellum, trunk
from concept_cam.demo.worlds.beetle.limbs import (
    antenna_line,
    antennae,
    hairs,
    horn_line,
    horns,
    legs,
    mandibles,
    middling,
    snout,
    snout_line,
)
from concept_cam.demo.worlds.solids import joined
from concept_cam.demo.worlds.stage import Draw, Frame, Shape


def frame(draw: Draw, state: Mapping[str, str]) -> Frame:
    """What a camera is aimed by."""
    return _frame(draw, plan(draw, state), state)


def _frame(draw: Draw, p: Plan, state: Mapping[str, str]) -> Frame:
    horn, beak = horn_line(draw, p), snout_line(draw, p)
    behind = p.base + 0.5
    tips = np.stack([antenna_line(draw, state, p, side)[-1] for side in SIDES])
    sites = {
        "elytra": (p.base - (0.5 * p.reach if p.short else 0.45) * behind, 0.0, p.top),
        "pronotum": (p.base + 0.5 * p.neck, 0.0, p.floor[6] + p.arch[6]),
        "scutellum": (p.base - 0.02, 0.0, p.top),
        "head": (0.5 - 0.6 * p.head, 0.0, p.head_level + p.head_height),
        "eye": (p.head_x + 0.6 * p.head, p.head_width, p.head_level + 0.3 * p.head_height),
        "antennae": 0.5 * (tips.mean(axis=0) + p.feelers),
        "mandibles": p.mouth + np.array([0.03, 0.0, 0.0]),
        "abdomen": (-0.3, 0.0, p.level),
        "legs": (p.base - 0.45 * behind, 0.4, 0.05),
        "horns": horn[len(horn) // 2],
        "snout": beak[len(beak) // 2],
    }
    reaches = {
        "elytra": 0.6,
        "pronotum": 0.3,
        "scutellum": 0.06,
        "head": 1.4 * p.head,
        "eye": 0.06,
        "antennae": 0.3,
        "mandibles": 0.08,
        "abdomen": 0.5,
        "legs": 0.5,
        "horns": float(np.linalg.norm(horn[-1] - horn[0])),
        "snout": float(np.linalg.norm(beak[-1] - beak[0])),
    }
    side = p.width + 0.12
    core = np.array([[0.5, 0, p.level], [-0.5, 0, p.level], [0, side, p.level], [0, -side, p.level], [0, 0, p.top], [0, 0, 0]])
    return Frame(core, {name: np.asarray(at, dtype=np.float64) for name, at in sites.items()}, reaches)


def build(draw: Draw, state: Mapping[str, str]) -> Shape:
    """A beetle with the given states."""
    p = plan(draw, state)
    parts = [
        *elytra(draw, p),
        *trunk(p),
        *pronotum(draw, p),
        scutellum(draw, p),
        *head(draw, p),
        *mandibles(draw, state["mandible_size"], p),
        *(snout(draw, p) if state["snout"] == "present" else []),
        *(horns(draw, p) if state["horns"] == "present" else []),
        *antennae(draw, state, p),
        *legs(draw, p),
        *([hairs(draw, p)] if state["elytra_texture"] == "hairy" else []),
    ]
    where = _frame(draw, p, state)
    details = {
        "groove": p.width / 9.0,
        "half": p.width,
        "reach": p.reach,
        "top": p.top,
        "middling": float(middling(draw)),
    }
    return Shape(joined(parts), where, details)
