"""Leaves in space, from their states and named random numbers: single ones, compound ones, and shoots that bear several.

A blade lies along x from its base at 0 to its tip at 1, y to its left, z upwards; a shoot along y. Lengths are in lengths of a blade
until the whole is brought to a length of about 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.solids import Facets, bristles, joined, ribbon, surface
from concept_cam.demo.worlds.stage import Draw, Frame, Shape

Points = npt.NDArray[np.floating]

PIECES = ("blade", "tip", "base", "petiole", "stem", "hair")
"""What is drawn, each with a number of its own: its place here."""

PIECE = {name: number for number, name in enumerate(PIECES)}

_HALF = {
    # half width of a blade in lengths
    "needle": (0.008, 0.013),
    "linear": (0.028, 0.05),
    "lanceolate": (0.10, 0.15),
    "ovate": (0.25, 0.33),
    "elliptic": (0.2, 0.28),
    "round": (0.45, 0.52),
    "heart_shaped": (0.38, 0.48),
    "arrow_shaped": (0.2, 0.27),
}

TIP, BASE = 0.86, 0.14
"""Places along the blade beyond which it counts as its tip or its base."""


def _outline(draw: Draw, shape: str, s: Points) -> Points:
    """One side of a blade from base to tip, [N, 2] with y >= 0, without teeth."""
    low, high = _HALF[shape]
    half = low + (high - low) * draw("blade.width")
    a = draw("blade.peak", -1.0, 1.0)
    drawn_out = draw("blade.tip")
    x = s.copy()
    if shape in ("needle", "linear"):
        y = half * np.minimum(1.0, (s / 0.05 + 0.25)) * np.clip((1 - s) / (0.12 + 0.2 * drawn_out), 0, 1) ** 0.7
    elif shape == "lanceolate":
        peak = 0.34 + 0.06 * a
        y = half * _hump(s, peak, 0.8, 1.15)
    elif shape == "ovate":
        peak = 0.28 + 0.04 * a
        y = half * _hump(s, peak, 0.55, 0.95 + 0.5 * drawn_out)
    elif shape == "elliptic":
        y = half * np.clip(np.sin(np.pi * s), 0, 1) ** (0.75 + 0.15 * a)
    elif shape == "round":
        angle = np.pi * (1 - s)
        x, y = 0.5 + 0.5 * np.cos(angle), half * np.sin(angle)
    else:
        # Lobes reach back beyond the base: a curve through a few points, rounded for hearts, straight for arrows.
        back = draw("blade.lobe", 0.12, 0.24)
        if shape == "heart_shaped":
            knots = np.array(
                [
                    [0.0, 0.0],
                    [-0.6 * back, 0.2 * half],
                    [-back, 0.48 * half],
                    [-0.55 * back, 0.86 * half],
                    [0.14, half],
                    [0.42, 0.82 * half],
                    [0.72, 0.42 * half],
                    [0.9, 0.12 * half],
                    [1.0, 0.0],
                ]
            )
            at = np.linspace(0, 1, len(knots))
            x, y = _smooth(at, knots, s)
        else:
            back = 1.7 * back
            spread = draw("blade.barb", 0.8, 1.5)
            knots = np.array(
                [
                    [0.0, 0.012],
                    [-0.5 * back, 0.42 * half * spread],
                    [-back, 0.92 * half * spread],
                    [-0.55 * back, 1.05 * half * spread],
                    [0.05, 0.98 * half],
                    [0.4, 0.8 * half],
                    [0.75, 0.4 * half],
                    [1.0, 0.0],
                ]
            )
            at = np.array([0.0, 0.12, 0.24, 0.3, 0.46, 0.64, 0.82, 1.0])
            x, y = np.interp(s, at, knots[:, 0]), np.interp(s, at, knots[:, 1])
    return np.stack([x, np.maximum(y, 0.0)], axis=1)


def _hump(s: Points, peak: float, before: float, behind: float) -> Points:
    """Rises from 0 at the base to 1 at `peak` and falls to 0 at the tip, with the given powers."""
    rise = np.sin(0.5 * np.pi * np.clip(s / peak, 0, 1)) ** before
    fall = np.clip(np.cos(0.5 * np.pi * np.clip((s - peak) / (1 - peak), 0, 1)), 0, 1) ** behind
    return np.asarray(np.where(s < peak, rise, fall))


def _smooth(at: Points, knots: Points, s: Points) -> tuple[Points, Points]:
    """A smooth curve through knots (Catmull and Rom 1974)."""
    slope = np.gradient(knots, at, axis=0)
    k = np.clip(np.searchsorted(at, s, side="right") - 1, 0, len(at) - 2)
    h = (at[k + 1] - at[k])[:, None]
    t = ((s - at[k]) / h[:, 0])[:, None]
    p = (
        (2 * t**3 - 3 * t**2 + 1) * knots[k]
        + (t**3 - 2 * t**2 + t) * h * slope[k]
        + (-2 * t**3 + 3 * t**2) * knots[k + 1]
        + (t**3 - t**2) * h * slope[k + 1]
    )
    return p[:, 0], p[:, 1]


def _margin(draw: Draw, margin: str, shape: str, edge: Points, side: float) -> tuple[Points, Points, float]:
    """The outline with its teeth, how far the edge is lifted [N], and the size of a tooth."""
    count = len(edge)
    step = np.gradient(edge, axis=0)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(edge, axis=0), axis=1))])
    along = length / max(length[-1], 1e-6)
    way = step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-6)
    out = np.stack([-way[:, 1], way[:, 0]], axis=1)
    lift = np.zeros(count)
    half = max(float(edge[:, 1].max()), 1e-3)
    # Teeth end before base and tip.
    calm = np.clip(along * 9, 0, 1) * np.clip((1 - along) * 14, 0, 1)
    offset = 0.0 if side > 0 else draw("margin.offset", 0.0, 0.6)
    fine = float(np.clip(half / 0.3, 0.22, 1.15))
    if margin == "serrate":
        teeth = 11 + 12 * draw("margin.count")
        size = (0.034 + 0.018 * draw("margin.size")) * fine * 16 / teeth * 1.2
        phase = (along * teeth + offset) % 1.0
        saw = phase**1.2
        return edge + out * (size * (saw - 0.5) * calm)[:, None] + way * (0.75 * size * saw * calm)[:, None], lift, size
    if margin == "crenate":
        teeth = 8 + 7 * draw("margin.count")
        size = (0.045 + 0.02 * draw("margin.size")) * fine * 11 / teeth
        bow = np.abs(np.sin(np.pi * (along * teeth + offset)))
        return edge + out * (size * (bow - 0.7) * calm)[:, None], lift, size
    if margin == "spiny":
        teeth = 4 + 3 * draw("margin.count")
        size = (0.09 + 0.05 * draw("margin.size")) * min(fine, 1.0)
        phase = np.abs((along * teeth + 0.5 * offset) % 1.0 - 0.5) * 2
        return edge + out * (size * (phase**3.2 - 0.22) * calm)[:, None], lift, size
    if margin == "wavy":
        waves = 3.5 + 3 * draw("margin.count")
        size = (0.03 + 0.02 * draw("margin.size")) * min(fine * 1.3, 1.0)
        swing = np.sin(2 * np.pi * (along * waves + offset + draw("margin.phase")))
        return edge + out * (0.75 * size * swing * calm)[:, None], 1.9 * size * np.cos(2 * np.pi * (along * waves + offset)) * calm, size
    if margin == "lobed":
        lobes = 2.6 + 2.2 * draw("margin.count")
        deep = 0.42 + 0.28 * draw("margin.size")
        phase = (along * lobes * 1.02 + 0.15 * offset + 0.12) % 1.0
        dip = (0.5 + 0.5 * np.cos(2 * np.pi * phase)) ** 1.3 * deep * np.clip(along * 12, 0, 1) * np.clip((1 - along) * 7, 0, 1)
        bent = edge.copy()
        bent[:, 1] = edge[:, 1] * (1 - dip)
        # Lobes point forwards.
        bent[:, 0] += (0.5 * half * np.clip(1 - phase, 0, 1) * 0.22) * np.clip(along * 6, 0, 1) * np.clip((1 - along) * 6, 0, 1)
        return bent, lift, deep * half
    return edge, lift, 0.0


def _palmate_lobes(draw: Draw, half: float, s: Points) -> Points:
    """One side of a blade that is lobed like a hand: from behind the base round to the tip."""
    lobes = 1 + int(1 + 1.99 * draw("margin.count"))  # on this side of the middle one
    deep = 0.4 + 0.25 * draw("margin.size")
    widest = draw("blade.span", 2.1, 2.6)
    angle = widest * (1 - s)
    phase = (angle / (widest / (lobes + 0.35))) % 1.0
    # Middles of lobes at whole numbers.
    near = np.abs(phase - np.round(phase)) * 2
    pointed = draw("blade.pointed", 0.8, 1.6)
    reach = 1.0 - 0.32 * angle / widest - 0.12 * (angle / widest) ** 3
    radius = reach * (1 - deep * near**pointed)
    squeeze = float(np.clip(half / 0.42, 0.75, 1.1))
    x = radius * np.cos(angle)
    y = radius * np.sin(angle) * squeeze
    # Runs back to the base.
    home = np.clip(s / 0.06, 0, 1)
    return np.stack([x * home, np.maximum(y * home, 0.0)], axis=1)


def blade(draw: Draw, state: Mapping[str, str], name: str, fine: int, dense: bool = False) -> tuple[Facets, float, float]:
    """One blade in its own plane, with the size of its teeth and its half width.

    Args:
        draw: named numbers.
        state: character -> state.
        name: of the blade: its curl is its own.
        fine: points along a side.
        dense: with many facets across, for holes.
    """
    shape, margin = state["leaf_shape"], state["leaf_margin"]
    if shape == "needle":
        margin = "entire"
    s = np.linspace(0.0, 1.0, fine)
    parts = []
    spine: Points
    lift: Points
    hand = margin == "lobed" and state["leaf_venation"] == "palmate" and shape in ("ovate", "elliptic", "round", "heart_shaped")
    fold, curl = draw(f"{name}.fold", -0.1, 0.35), draw(f"{name}.curl", -0.35, 0.5)
    sway = draw(f"{name}.sway", -0.14, 0.14)
    tooth, widest = 0.0, 0.0
    across = np.linspace(0.0, 1.0, 14) if dense else np.array([0.0, 0.55, 0.88, 1.0] if margin == "wavy" else [0.0, 0.6, 1.0])
    for side in (1.0, -1.0):
        if hand:
            low, high = _HALF[shape]
            edge, lift, tooth = _palmate_lobes(draw, low + (high - low) * draw("blade.width"), s), np.zeros(fine), 0.3
            spine = np.stack([0.06 + 0.94 * s**9, 0 * s], axis=1) * np.clip(s / 0.06, 0, 1)[:, None]
        else:
            edge, lift, tooth = _margin(draw, margin, shape, _outline(draw, shape, s), side)
            edge[:, 1] = np.maximum(edge[:, 1], 0.0)
            edge[0, 1] = edge[-1, 1] = 0.0
            # Side veins run forwards: their roots on the midrib lie behind their ends.
            spine = np.stack([np.clip(s**1.12, 0, 1), 0 * s], axis=1)
        edge[:, 1] *= 1.0 + 0.06 * side * draw(f"{name}.skew", -1, 1)
        widest = max(widest, float(edge[:, 1].max()))
        flat = spine[:, None] + (edge - spine)[:, None] * across[None, :, None]
        x, y = flat[..., 0], side * flat[..., 1]
        z = fold * np.abs(y) + lift[:, None] * across[None, :] ** 2 - 0.5 * curl * x**2 + 0.25 * curl * x
        points = np.stack([x, y + sway * (x - x**2) * 2 - 0.0 * x, z], axis=2)
        grid = surface(points, PIECE["blade"], u=x.astype(np.float32), v=y.astype(np.float32), closed=False)
        place = grid.places[:, :, 0].mean(axis=1)
        piece = np.where(place > TIP, PIECE["tip"], np.where(place < BASE, PIECE["base"], PIECE["blade"]))
        parts.append(replace(grid, piece=piece.astype(np.int64)))
    whole = joined(parts)
    return whole, tooth, widest


def _bitten(draw: Draw, leaf: Facets, name: str) -> Facets:
    """Holes and bites of caterpillars."""
    keep = np.ones(len(leaf), dtype=bool)
    middle = leaf.places.mean(axis=1)
    for k in range(1 + int(3 * draw(f"{name}.bites"))):
        at = np.array([draw(f"{name}.bite.x{k}", 0.15, 0.95), draw(f"{name}.bite.y{k}", -0.35, 0.35)])
        keep &= np.hypot(middle[:, 0] - at[0], middle[:, 1] - at[1]) > draw(f"{name}.bite{k}", 0.02, 0.07)
    rows = np.flatnonzero(keep)
    return Facets(*(getattr(leaf, key)[rows] for key in ("corners", "normals", "places", "piece", "closed", "width", "nearer")))


def _put(leaf: Facets, at: Points, turn: float, size: float, tilt: float = 0.0, roll: float = 0.0) -> Facets:
    """A blade moved to `at`, its axis turned in the plane, tilted up and rolled about its axis."""
    c, s = math.cos(roll), math.sin(roll)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = math.cos(tilt), math.sin(tilt)
    about_y = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = math.cos(turn), math.sin(turn)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    matrix = (about_z @ about_y @ about_x * size).astype(np.float32)
    return leaf.moved(matrix, np.asarray(at, dtype=np.float32))


def _raised(leaf: Facets, by: float) -> Facets:
    """Counts as nearer by `by`."""
    return replace(leaf, nearer=leaf.nearer + np.float32(by))


@dataclass(frozen=True)
class Lengths:
    """Sizes of a leaf, in lengths of the whole one but for `fused`.

    Attributes:
        tooth: Size of a tooth.
        half: Half width of its blade or of one of its leaflets.
        leaflet: Length of the blade or of a leaflet.
        fused: How far out, in lengths of a leaflet, leaflets that spread from one point overlap their neighbours; 0 for other leaves.
    """

    tooth: float
    half: float
    leaflet: float
    fused: float = 0.0


def fused(leaflet: Facets, gap: float) -> float:
    """How far out leaflets overlap that spread from one point.

    Args:
        leaflet: One of them, its foot at the origin, along x.
        gap: Radians from the axis of one to that of the next.
    """
    x, y = leaflet.corners[..., 0], np.abs(leaflet.corners[..., 1])
    return float(np.hypot(x, y)[np.arctan2(y, x) > 0.5 * gap].max(initial=0.0))


def _leaf(draw: Draw, state: Mapping[str, str], name: str, fine: int, dense: bool = False) -> tuple[Facets, Lengths]:
    """One leaf, simple or compound, its stalk's foot at the origin, along x, about 1 long with its stalk."""
    division, shape = state["leaf_division"], state["leaf_shape"]
    stalk = draw("petiole.length", 0.1, 0.4) * (0.35 if shape in ("needle", "linear") else 1.0)
    thick = draw("petiole.width", 0.008, 0.014)
    bend = draw(f"{name}.stalk", -0.2, 0.2)
    t = np.linspace(0.0, 1.0, 7)
    if division == "simple":
        one, tooth, half = blade(draw, state, f"{name}.0", fine, dense)
        size = 1.0 / (1.0 + stalk)
        line = np.stack([stalk * size * t, bend * stalk * size * (t - 1) * t, 0 * t], axis=1)
        base = line[-1]
        parts = [ribbon(line, thick * size * np.linspace(1.35, 0.9, 7), PIECE["petiole"]), _put(one, base, 0.0, size)]
        # The midrib stands out below and above: a thin stalk on the blade that belongs to it.
        return joined(parts), Lengths(tooth * size, half * size, size)
    parts = []
    low = max(fine // 3, 18) if state["leaf_margin"] in ("entire", "wavy", "lobed") else max(fine // 2, 26)
    one, tooth, half = blade(draw, state, f"{name}.0", low)
    if division == "pinnate":
        pairs = 3 + int(3.5 * draw("division.pairs"))
        broad = 2 * half + 0.1
        size = min(0.36 + 0.16 * draw("division.size"), 0.75 / pairs / max(broad, 0.16))
        rachis = 0.86
        gap = (rachis - 0.24) / (pairs - 0.5)
        line = np.stack([rachis * t, bend * 0.4 * (t - 1) * t, 0 * t], axis=1)
        parts.append(ribbon(line, thick * np.linspace(1.2, 0.5, 7), PIECE["petiole"]))
        odd = draw("division.odd") < 0.75
        angle = draw("division.angle", 0.75, 1.25)
        for k in range(pairs):
            for side in (1.0, -1.0):
                x = 0.24 + gap * (k + (0.0 if side > 0 else draw("division.shift", 0.0, 0.35)))
                at = np.array([x, np.interp(x, line[:, 0], line[:, 1]), 0.0])
                own = size * (0.8 + 0.25 * math.sin(math.pi * (k + 0.7) / pairs))
                jitter = draw(f"{name}.leaflet{k}{side}", -0.16, 0.16)
                parts.append(
                    _put(one, at, side * (angle - 0.25 * k / pairs) + jitter, own, draw(f"{name}.tilt{k}{side}", -0.2, 0.25), 0.3 * jitter)
                )
        if odd:
            parts.append(_put(one, line[-1], 0.05, size * 1.05, 0.0))
        return joined(parts), Lengths(tooth * size, half * size, size)
    number = 3 if division == "trifoliate" else 5 + 2 * int(1.99 * draw("division.fingers"))
    foot = 0.3 + 0.18 * draw("division.stalk")
    size = 1.0 - foot
    line = np.stack([foot * t, bend * foot * (t - 1) * t, 0 * t], axis=1)
    parts.append(ribbon(line, thick * np.linspace(1.2, 0.9, 7), PIECE["petiole"]))
    if division == "trifoliate":
        open_ = draw("division.open", 1.2, 1.75)
        turns = [-open_, open_, 0.0]
    else:
        open_ = draw("division.spread", 1.7, 2.3)
        turns = sorted(np.linspace(-open_, open_, number).tolist(), key=abs, reverse=True)
    narrow = min(1.0, 0.16 + 0.9 * open_ / number / max(half, 0.05)) if division == "palmate" else 1.0
    leaflet = replace(one, corners=one.corners * np.array([1.0, narrow, 1.0], dtype=np.float32))
    for k, turn in enumerate(turns):
        own = size * (1.0 - 0.28 * abs(turn) / 2.2 if division == "palmate" else 1.0 - 0.06 * abs(turn))
        raised, turned = _raised(leaflet, 0.006 * k), turn + draw(f"{name}.finger{k}", -0.08, 0.08)
        parts.append(_put(raised, line[-1], turned, own, draw(f"{name}.lift{k}", -0.15, 0.25)))
    return joined(parts), Lengths(tooth * size, half * size, size, fused(leaflet, 2 * open_ / (number - 1)))


@dataclass(frozen=True)
class Spot:
    """Where a leaf sits: its foot [3], its direction in the plane, its length, how far it is tilted up and rolled."""

    at: Points
    turn: float
    size: float
    tilt: float = 0.0
    roll: float = 0.0

    def point(self, along: float) -> Points:
        """The point that lies `along` the leaf, 0 at its foot and 1 at its tip, when it is not tilted."""
        return np.asarray(self.at + self.size * along * np.array([math.cos(self.turn), math.sin(self.turn), 0.0]))


def _alone(draw: Draw, state: Mapping[str, str]) -> bool:
    """A single leaf without its shoot; needles are always shown on their twig."""
    return draw("plant.shoot") >= draw("plant.shoots", 0.5, 0.5) and state["leaf_shape"] != "needle"


def _stem(draw: Draw, place: float) -> Points:
    """A point of the stem, from 0 at its foot to 1 at its end."""
    return np.array([place - 0.5, draw("stem.bend", -0.25, 0.25) * (place - place * place), 0.0])


def _spots(draw: Draw, state: Mapping[str, str]) -> list[Spot]:
    """Where the leaves sit."""
    if _alone(draw, state):
        return [Spot(np.array([-0.5, 0.0, 0.0]), 0.0, 1.0)]
    needle, arrangement = state["leaf_shape"] == "needle", state["leaf_arrangement"]
    if arrangement == "rosette" and not needle:
        number = 6 + int(5 * draw("rosette.number"))
        found = []
        for k in range(number):
            turn = 2.399963 * k + draw(f"leaf{k}.turn", -0.2, 0.2)
            foot = np.array([0.02 * math.cos(turn), 0.02 * math.sin(turn), 0.012 * k])
            found.append(Spot(foot, turn, 0.5 * (1.0 - 0.35 * k / number), draw(f"leaf{k}.tilt", 0.05, 0.3) + 0.4 * k / number))
        return found
    if needle:
        nodes, size = 16, draw("needle.length", 0.14, 0.34)
        whorl = 2 if arrangement in ("alternate", "rosette") else 3
    else:
        nodes = {"alternate": 5, "opposite": 4, "whorled": 3}[arrangement] + int(3 * draw("shoot.nodes"))
        size = draw("shoot.leaf", 0.3, 0.46)
        whorl = {"alternate": 1, "opposite": 2, "whorled": 4 + int(2 * draw("shoot.whorl"))}[arrangement]
    angle = draw("shoot.angle", 0.6, 1.2)
    found = []
    for k in range(nodes):
        place = 0.1 + 0.86 * (k + 0.5 * draw(f"node{k}", 0.0, 0.4)) / nodes
        for w in range(whorl):
            sway = draw(f"leaf{k}.{w}", -1, 1)
            if whorl == 1:
                turn = (1.0 if k % 2 else -1.0) * (angle + 0.22 * sway)
            elif whorl == 2:
                turn = (1.0 if w else -1.0) * (angle + 0.15 * sway)
            else:
                turn = -2.2 + 4.4 * (w + 0.5) / whorl + 0.15 * sway
            tilt, roll = 0.25 * draw(f"leaf{k}.{w}.tilt", -1, 1.4), 0.35 * draw(f"leaf{k}.{w}.roll", -1, 1)
            found.append(Spot(_stem(draw, place), turn, size * (1.05 - 0.4 * place), tilt, roll))
    if not needle:
        found.append(Spot(_stem(draw, 1.0), 0.1 * draw("leaf.top", -1, 1), 0.6 * size))
    return found


def frame(draw: Draw, state: Mapping[str, str]) -> Frame:
    """What a camera is aimed by: of several leaves, one is the one that close-ups show."""
    spots = _spots(draw, state)
    one = spots[int(draw("focus.leaf") * len(spots))]
    simple, alone = state["leaf_division"] == "simple", _alone(draw, state)
    if alone:
        low, high = _HALF[state["leaf_shape"]]
        half = max(0.5 * (low + high), 0.12) if simple else 0.38
    else:
        half = 0.46 if state["leaf_arrangement"] == "rosette" else 0.32
    core = np.array([[0.5, 0, 0], [-0.5, 0, 0], [0.1 if alone else 0.0, half, 0], [0.1 if alone else 0.0, -half, 0]])
    sites = {
        "leaf": one.point(0.55),
        "stem": _stem(draw, 0.45) if not alone else one.at,
        "leaf_blade": one.point(0.6),
        "petiole": one.point(0.08),
        "leaf_tip": one.point(0.95),
        "leaf_base": one.point(0.25),
    }
    reaches = {"leaf": 0.7, "stem": 0.3 / one.size, "leaf_blade": 0.6, "petiole": 0.15, "leaf_tip": 0.12, "leaf_base": 0.15}
    return Frame(core, sites, {name: reach * one.size for name, reach in reaches.items()})


def build(draw: Draw, state: Mapping[str, str]) -> Shape:
    """A single leaf, or a shoot with several."""
    spots, alone = _spots(draw, state), _alone(draw, state)
    toothed = state["leaf_margin"] in ("serrate", "crenate", "spiny")
    bitten = alone and draw("leaf.bitten") < draw("leaf.bitten_share", 0.15, 0.15)
    leaf, own = _leaf(draw, state, "leaf", (170 if toothed or bitten else 60) if alone else (70 if toothed else 30), bitten)
    if bitten:
        leaf = _bitten(draw, leaf, "leaf")
    # Each lies on the one before.
    parts = [_raised(_put(leaf, spot.at, spot.turn, spot.size, spot.tilt, spot.roll), 0.06 * k) for k, spot in enumerate(spots)]
    if not alone and (state["leaf_arrangement"] != "rosette" or state["leaf_shape"] == "needle"):
        line = np.stack([_stem(draw, float(place)) for place in np.linspace(0.0, 1.0, 14)])
        parts.insert(0, ribbon(line, draw("stem.width", 0.008, 0.018) * np.linspace(1.25, 0.55, 14), PIECE["stem"], nearer=-0.02))
    size = float(np.mean([spot.size for spot in spots]))
    lot = joined(parts)
    if state["leaf_surface"] == "hairy":
        lot = joined([lot, _hairs(draw, lot, size)])
    lengths = {"tooth": own.tooth * size, "half": own.half * size, "leaflet": own.leaflet * size, "fused": own.fused}
    return Shape(lot, frame(draw, state), {**lengths, "leaves": float(len(spots)), "size": size})


def _hairs(draw: Draw, lot: Facets, scale: float) -> Facets:
    """Fine hairs that stand out from the blades."""
    count = 420
    blades = np.flatnonzero(lot.piece <= PIECE["base"])
    k = np.arange(count)
    area = np.linalg.norm(
        np.cross(lot.corners[blades, 1] - lot.corners[blades, 0], lot.corners[blades, 3] - lot.corners[blades, 0]), axis=1
    )
    edges = np.cumsum(area) / max(float(area.sum()), 1e-9)
    chosen = blades[np.minimum(np.searchsorted(edges, (k * 0.754877666 + draw("hair.start")) % 1.0), len(blades) - 1)]
    a, b = ((k * 0.569840291) % 1.0)[:, None], ((k * 0.3819660) % 1.0)[:, None]
    quad = lot.corners[chosen]
    root = (quad[:, 0] * (1 - a) + quad[:, 1] * a) * (1 - b) + (quad[:, 3] * (1 - a) + quad[:, 2] * a) * b
    turn = 2 * np.pi * ((k * 0.2360679) % 1.0)[:, None]
    tip = root + np.concatenate([np.cos(turn), np.sin(turn), np.full_like(turn, 0.8)], axis=1) * 0.022 * scale * draw(
        "hair.length", 0.8, 1.5
    )
    return bristles(root, tip, (0.0022 * math.sqrt(scale), 0.001 * math.sqrt(scale)), PIECE["hair"], nearer=0.01)
