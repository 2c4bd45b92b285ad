"""The shape of a butterfly or moth in space, from its states and named random numbers.

The unit is the length of a fore wing. Axes of the animal: x forward, y to its left, z up; the origin lies between the roots of the wings.
A wing is flat: its outline is given in the plane of the wing, p outward from the root, q forward, and the plane is turned about z (sweep)
and raised about the long axis of the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from concept_cam.demo.worlds.canvas import Array, curve

Draw = Callable[..., float]
"""`draw(name, low, high)`, one uniform number by name."""

_FORE: dict[str, tuple[tuple[float, float], ...]] = {
    "triangular": (
        (0, 0.05),
        (0.34, 0.08),
        (0.70, 0.12),
        (1.04, 0.15),
        (0.95, -0.12),
        (0.86, -0.36),
        (0.76, -0.58),
        (0.40, -0.36),
        (0, -0.08),
    ),
    "rounded": (
        (0, 0.05),
        (0.32, 0.13),
        (0.64, 0.16),
        (0.85, 0.06),
        (0.94, -0.16),
        (0.87, -0.42),
        (0.66, -0.56),
        (0.34, -0.40),
        (0, -0.08),
    ),
    "hooked": (
        (0, 0.05),
        (0.38, 0.13),
        (0.78, 0.18),
        (1.08, -0.02),
        (0.87, -0.06),
        (0.76, -0.24),
        (0.82, -0.48),
        (0.64, -0.56),
        (0, -0.08),
    ),
    "elongated": (
        (0, 0.05),
        (0.40, 0.07),
        (0.82, 0.06),
        (1.08, -0.03),
        (0.98, -0.13),
        (0.74, -0.21),
        (0.50, -0.24),
        (0.25, -0.19),
        (0, -0.07),
    ),
}
"""Outlines of fore wings in (p, q): root, front edge, tip, outer edge, hind edge."""

_OUTER: dict[str, tuple[int, int]] = {"triangular": (3, 6), "rounded": (3, 6), "hooked": (3, 7), "elongated": (3, 6)}
"""First and last point of the outer edge in `_FORE`."""

_HIND = (
    (0, 0.08),
    (0.30, 0.17),
    (0.56, 0.10),
    (0.72, -0.10),
    (0.74, -0.32),
    (0.60, -0.56),
    (0.40, -0.66),
    (0.18, -0.55),
    (0.05, -0.28),
    (0, -0.06),
)
_HIND_OUTER = (2, 7)

_POINTS = 160
"""Points of an outline."""


@dataclass(frozen=True)
class Wing:
    """One wing in space.

    Attributes:
        name: `fore_wing` or `hind_wing`.
        left: it is the animal's left one.
        outline: float64 [N, 2], (p, q).
        tail: float64 [M, 2], the tail's outline, None where there is none.
        root: float64 [3].
        axes: float64 [2, 3], the directions of p and q in space.
        raised: how far it is raised, radians; negative where it slopes down.
    """

    name: str
    left: bool
    outline: Array
    tail: Array | None
    root: Array
    axes: Array
    raised: float

    @property
    def normal(self) -> Array:
        """Where the upper side looks to, float64 [3]."""
        normal = np.cross(self.axes[0], self.axes[1])
        return np.asarray(normal if not self.left else -normal)

    def place(self, points: Array) -> Array:
        """Points (p, q) [N, 2] of the wing in space, float64 [N, 3]."""
        return np.asarray(self.root + points @ self.axes)


@dataclass(frozen=True)
class Body:
    """Body in space: the axis of each segment from its front to its rear end, float64 [n, 3], and radii along it [n].

    Attributes:
        thorax: axis and radii.
        abdomen: axis and radii.
        head: middle, float64 [3], and radius.
        eyes: middles of left and right eye, float64 [2, 3], and their radius.
        antennae: lines of left and right antenna, float64 [2, n, 3].
        legs: lines of the six legs, float64 [6, n, 3].
        proboscis: its line, float64 [n, 3]; None where it is hidden.
    """

    thorax: tuple[Array, Array]
    abdomen: tuple[Array, Array]
    head: tuple[Array, float]
    eyes: tuple[Array, float]
    antennae: Array
    legs: Array
    proboscis: Array | None


def wings(draw: Draw, state: dict[str, str]) -> list[Wing]:
    """The four wings: fore left, fore right, hind left, hind right."""
    posture = state["resting_posture"]
    fore, hind = _fore_outline(draw, state), _hind_outline(draw, state)
    tail = _tail(draw, hind) if state["hindwing_tails"] == "present" else None
    size = draw("wing.hind", 0.85, 1.2)
    hind = hind * size
    tail = None if tail is None else tail * size
    gape = draw("wing.gape", 0, 1)
    found = []
    for name, outline in (("fore_wing", fore), ("hind_wing", hind)):
        front = name == "fore_wing"
        if posture == "tented":
            sweep = draw("tent.fore", -1.08, -0.76) if front else draw("tent.hind", -0.7, -0.45)
            raise_ = -draw("tent.slope", 0.02, 0.7) if front else -draw("tent.slope", 0.02, 0.7) * 0.8
        elif posture == "closed":
            sweep = draw("closed.fore", -0.15, 0.75) if front else draw("closed.hind", -0.3, 0.25)
            raise_ = 1.57 - draw("closed.slack", 0.0, 0.14)
        else:
            # Half of them lie flat, as set or basking; the rest hold their wings up.
            sweep = draw("open.fore", -0.2, 1.0) if front else draw("open.hind", -0.35, 0.3)
            raise_ = 0.35 * (gape - 0.3) if gape < 0.6 else 0.1 + (gape - 0.6) * 2.4
            raise_ = raise_ * (1.0 if front else draw("open.hind_raise", 0.75, 1.05))
        for left in (True, False):
            tag = "left" if left else "right"
            own_sweep = sweep + draw(f"wing.{name}.{tag}.sweep", -0.06, 0.06)
            own_raise = raise_ + draw(f"wing.{name}.{tag}.raise", -0.05, 0.05)
            found.append(_turned(name, left, outline, tail if not front else None, own_sweep, own_raise, draw))
    return found


def _turned(name: str, left: bool, outline: Array, tail: Array | None, sweep: float, raised: float, draw: Draw) -> Wing:
    sign = 1.0 if left else -1.0
    along, forward = (np.sin(sweep), np.cos(sweep)), (np.cos(sweep), -np.sin(sweep))
    axes = np.array([[x, sign * y * np.cos(raised), y * np.sin(raised)] for x, y in (along, forward)])
    front = name == "fore_wing"
    width = draw("body.width", 0.055, 0.105)
    height = 0.45 * width if front else 0.38 * width
    if raised > 1.3:
        # Held together over the back, wings hide more or less of the body, hind wings most of the abdomen.
        height -= draw("closed.low", -0.2, 0.6 if front else 1.5) * width
    root = np.array([0.07 if front else -0.06, sign * 0.6 * width, height])
    return Wing(name, left, outline, tail, root, axes, raised)


def _edge(draw: Draw, state: str, name: str, points: Array, first: int, last: int, knots: int) -> Array:
    """The outline `points` with its outer edge, between two of its knots, as the state of the margin says."""
    n = len(points)
    place = np.arange(n) / n * knots
    share = np.clip((place - first) / (last - first), 0, 1)
    on_edge = np.clip(np.minimum(place - first, last - place) * 2.5, 0, 1)
    middle = points.mean(axis=0)
    out = points - middle
    reach = np.hypot(out[:, 0], out[:, 1])[:, None]
    count = round(draw(f"margin.{name}.count", 6, 9.99))
    if state == "smooth":
        wave = np.zeros(n)
    elif state == "scalloped":
        wave = -draw("margin.depth", 0.035, 0.075) * (1 - np.abs(np.sin(np.pi * count * share))) ** 1.3
    else:
        # Angular lobes of unequal size.
        phase = (share * count * 0.75 + draw(f"margin.{name}.phase", 0, 1)) % 1.0
        wave = -draw("margin.cut", 0.09, 0.17) * np.abs(2 * phase - 1) * (0.65 + 0.35 * np.sin(7.3 * share + 6.28 * phase[0]))
    return np.asarray(points + out / np.maximum(reach, 1e-6) * (wave * on_edge)[:, None])


def _fore_outline(draw: Draw, state: dict[str, str]) -> Array:
    shape = state["forewing_shape"]
    knots = np.array(_FORE[shape], dtype=np.float64)
    knots[1:-1, 0] *= [1 + draw(f"fore.p{k}", -0.035, 0.035) for k in range(len(knots) - 2)]
    knots[1:-1, 1] += [draw(f"fore.q{k}", -0.022, 0.022) for k in range(len(knots) - 2)]
    broad = draw("fore.broad", 0.85, 1.2)
    knots[:, 1] = np.where(knots[:, 1] < 0, knots[:, 1] * (1 + (broad - 1) * (0.5 if shape == "elongated" else 1.0)), knots[:, 1])
    points = curve(knots, _POINTS, closed=True)
    return _worn(draw, "fore", _edge(draw, state["wing_margin"], "fore", points, *_OUTER[shape], len(knots)), 0.45)


def _hind_outline(draw: Draw, state: dict[str, str]) -> Array:
    knots = np.array(_HIND, dtype=np.float64)
    knots[1:-1, 0] *= [1 + draw(f"hind.p{k}", -0.06, 0.06) for k in range(len(knots) - 2)]
    knots[1:-1, 1] += [draw(f"hind.q{k}", -0.03, 0.03) for k in range(len(knots) - 2)]
    knots[:, 1] *= draw("hind.long", 0.8, 1.12)
    knots[:, 0] *= draw("hind.broad", 0.85, 1.12)
    points = curve(knots, _POINTS, closed=True)
    return _worn(draw, "hind", _edge(draw, state["wing_margin"], "hind", points, *_HIND_OUTER, len(knots)), 0.5)


def _worn(draw: Draw, name: str, points: Array, outer: float) -> Array:
    """The outline with a piece broken out of its outer edge, in some; `outer` is the middle of that edge as a share of it."""
    depth = draw(f"worn.{name}", -1.6, 0.2)
    if depth <= 0:
        return points
    place = np.arange(len(points)) / len(points)
    off = (place - outer - draw(f"worn.{name}.at", -0.14, 0.14)) / draw(f"worn.{name}.wide", 0.008, 0.035)
    bite = depth * np.clip(1 - np.abs(off) ** 1.5, 0, 1)
    return np.asarray(points + (points.mean(axis=0) - points) * bite[:, None])


def _tail(draw: Draw, outline: Array) -> Array:
    """A tail from the rear of the outer edge of a hind wing."""
    place = draw("tail.place", 5.1, 6.0) / len(_HIND)
    at = round(place * len(outline))
    base, inner = outline[at], outline.mean(axis=0)
    turn = draw("tail.turn", -0.35, 0.35)
    way = (base - inner) / np.hypot(*(base - inner)) * 0.6 + np.array([0.1, -0.8])
    way = way / np.hypot(*way)
    way = np.array([way[0] * np.cos(turn) - way[1] * np.sin(turn), way[0] * np.sin(turn) + way[1] * np.cos(turn)])
    length = draw("tail.length", 0.16, 0.5)
    bend = draw("tail.bend", -0.25, 0.25)
    s = np.linspace(0, 1, 16)
    across = np.array([-way[1], way[0]])
    middle = base - 0.06 * way + (way * s[:, None] + across * (bend * s**2)[:, None]) * (length + 0.06)
    spoon = draw("tail.spoon", 0.6, 1.8)
    width = draw("tail.width", 0.025, 0.05) * (1.5 * (1 - s) ** 3 + 0.55 + (spoon - 0.55) * np.exp(-(((s - 0.85) / 0.13) ** 2)))
    width[-1] *= 0.35
    return np.concatenate([middle + across * width[:, None], (middle - across * width[:, None])[::-1]])


def body(draw: Draw, state: dict[str, str]) -> Body:
    """Thorax, abdomen, head, eyes, antennae, legs and proboscis."""
    width = draw("body.width", 0.055, 0.105)
    hairy = state["body_hair"] == "hairy"
    plump = 1.15 if hairy else 0.95
    front = draw("body.front", 0.15, 0.2)
    waist = -draw("body.waist", 0.13, 0.18)
    s = np.linspace(0, 1, 12)
    axis = np.stack([front + (waist - front) * s, 0 * s, 0 * s], axis=1)
    thorax = (axis, width * plump * np.clip(1 - (2 * s - 1) ** 4, 0.25, 1) ** 0.5)
    length, droop = draw("abdomen.length", 0.3, 0.58), draw("abdomen.droop", -0.1, 0.25)
    aside = draw("abdomen.aside", -0.12, 0.12)
    axis = np.stack([waist + 0.03 - length * s, aside * s**2 * length, -droop * s * length], axis=1)
    stout = draw("abdomen.stout", 0.55, 1.0)
    abdomen = (axis, width * stout * plump * np.clip(np.sin(np.pi * (0.16 + 0.84 * s)) ** 0.6, 0.12, 1) * (1 - 0.25 * s))
    radius = width * draw("head.size", 0.55, 0.8)
    middle = np.array([front + 0.75 * radius, 0.0, draw("head.low", -0.3, 0.1) * radius])
    eye = radius * draw("eye.size", 0.5, 0.72)
    eyes = np.stack([middle + np.array([0.22, side * 0.78, 0.12]) * radius for side in (1, -1)])
    return Body(
        thorax,
        abdomen,
        (middle, radius),
        (eyes, eye),
        _antennae(draw, state["antenna_shape"], middle, radius),
        _legs(draw, width),
        _proboscis(draw, middle, radius),
    )


def _antennae(draw: Draw, shape: str, head: Array, radius: float) -> Array:
    """Lines of the antennae; their form is drawn where they are painted, but a hook bends the line."""
    found = []
    feathery = shape == "feathery"
    length = draw("antenna.length", 0.36, 0.62) * (0.72 if feathery else 1.0)
    out, lift, bow = draw("antenna.out", 0.25, 0.95), draw("antenna.lift", -0.15, 0.6), draw("antenna.bow", -0.5, 0.6)
    s = np.linspace(0, 1, 24)
    for side, tag in ((1, "left"), (-1, "right")):
        angle = out + draw(f"antenna.{tag}", -0.12, 0.12) + bow * s
        if shape == "hooked":
            angle = angle + 2.4 * np.clip((s - 0.8) / 0.2, 0, 1)
        step = length / (len(s) - 1)
        x = np.concatenate([[0], np.cumsum(np.cos(angle[:-1]))]) * step
        y = np.concatenate([[0], np.cumsum(np.sin(angle[:-1]))]) * step
        start = head + np.array([0.75, side * 0.3, 0.35]) * radius
        found.append(start + np.stack([x * np.cos(lift), side * y, x * np.sin(lift)], axis=1))
    return np.stack(found)


def _legs(draw: Draw, width: float) -> Array:
    found = []
    reach = draw("legs.reach", 0.16, 0.34)
    for k, x in enumerate((0.13, 0.04, -0.07)):
        for side in (1, -1):
            tag = f"legs.{k}.{'left' if side > 0 else 'right'}"
            way = (0.9, 0.1, -0.8)[k] + draw(f"{tag}.way", -0.35, 0.35)
            hip = np.array([x, side * 0.4 * width, -0.6 * width])
            out = np.array([0.55 * way, side * draw(f"{tag}.out", 0.3, 0.8), -draw(f"{tag}.down", 0.05, 0.5)])
            knee = hip + 0.45 * reach * out / np.hypot(np.hypot(out[0], out[1]), out[2])
            foot = knee + 0.75 * reach * np.array([0.7 * way, side * draw(f"{tag}.foot", 0.1, 0.7), -draw(f"{tag}.fall", 0.5, 1.0)])
            tip = foot + 0.3 * reach * np.array([0.8 * way, side * 0.35, -0.2])
            found.append(np.stack([hip, knee, foot, tip]))
    return np.stack(found)


def _proboscis(draw: Draw, head: Array, radius: float) -> Array | None:
    kind = draw("proboscis.kind", 0, 1)
    start = head + np.array([0.8, 0.0, -0.45]) * radius
    if kind < 0.3:
        return None
    s = np.linspace(0, 1, 40)
    if kind < 0.7:
        angle, spiral = 0.3 - 11.0 * s, draw("proboscis.coil", 0.3, 0.55) * radius * (1 - 0.75 * s)
        return np.asarray(start + np.stack([spiral * np.sin(-angle), 0 * s, spiral * (np.cos(angle) - 1.5)], axis=1))
    reach, lean = draw("proboscis.reach", 0.15, 0.4), draw("proboscis.lean", -0.2, 0.9)
    return np.asarray(start + np.stack([reach * np.sin(lean * s + 0.3) * s, 0 * s, -reach * np.cos(lean) * s], axis=1))
