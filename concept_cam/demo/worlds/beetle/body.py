"""The body of a beetle in space, from its states and named random numbers.

Lengths are in body lengths (front of the head to tip of the body, without jaws, horns and antennae). The body lies along x, the head at
x = 0.5 and the tip at x = -0.5; y points to the beetle's own left, z upwards from the ground it stands on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.solids import Array, Facets, ribbon, surface
from concept_cam.demo.worlds.stage import Draw

Line = npt.NDArray[np.floating]

PIECES = (
    "elytron.left",
    "elytron.right",
    "pronotum",
    "scutellum",
    "head",
    "eye.left",
    "eye.right",
    "antenna.left",
    "antenna.right",
    "mandible.left",
    "mandible.right",
    "abdomen",
    "thorax",
    "leg.left",
    "leg.right",
    "horn.head",
    "horn.pronotum",
    "snout",
    "hair",
)
"""What is drawn, each with a number of its own: its place here."""

PIECE = {name: number for number, name in enumerate(PIECES)}

SIDES = (1.0, -1.0)
"""The beetle's left and right: the sign of y."""


_ELYTRA = {
    # half width, height of the dome, front width share, place of the greatest width, bluntness behind, squareness of the section
    "oval": ((0.205, 0.25), (0.13, 0.19), (0.74, 0.92), (0.35, 0.55), (2.0, 2.8), 1.0),
    "domed": ((0.37, 0.44), (0.27, 0.35), (0.62, 0.8), (0.36, 0.48), (2.0, 2.3), 1.0),
    "elongated": ((0.11, 0.15), (0.09, 0.13), (0.86, 1.0), (0.3, 0.6), (3.2, 6.0), 1.0),
    "flattened": ((0.19, 0.24), (0.035, 0.055), (0.9, 1.0), (0.4, 0.7), (5.0, 8.0), 0.55),
}


def _profile(s: Line, front: float, peak: float, power: float) -> Array:
    """Share of the greatest width at s in [0, 1]: `front` at the base, 1 at `peak`, 0 at the tip."""
    rise = 1.0 - (1.0 - front) * np.clip((peak - s) / peak, 0, 1) ** 2
    fall = np.sqrt(np.clip(1.0 - np.clip((s - peak) / (1.0 - peak), 0, 1) ** power, 0, 1))
    return np.asarray(rise * fall, dtype=np.float32)


def section(angle: Line, square: float) -> tuple[Array, Array]:
    """Sine and cosine of the section's angle, drawn to the corners of a square where `square` is below 1."""
    sin, cos = np.sin(angle), np.cos(angle)
    return (
        np.asarray(np.sign(sin) * np.abs(sin) ** square, dtype=np.float32),
        np.asarray(np.sign(cos) * np.abs(cos) ** square, dtype=np.float32),
    )


def _shell(
    x: Line,
    width: Line,
    top: Line,
    under: Line,
    floor: Line,
    piece: int,
    *,
    square: float = 1.0,
    turns: int = 15,
) -> Facets:
    """A closed body along x: sections of half `width`, `top` above and `under` below the height `floor`; v runs round from the right."""
    angle = np.linspace(-np.pi, np.pi, turns)
    sin, cos = section(angle, square)
    z = np.where(cos > 0, top[:, None] * cos, under[:, None] * cos)
    points = np.stack([np.repeat(x[:, None], turns, 1), width[:, None] * sin, floor[:, None] + z], axis=2)
    u = (x - x[0]) / (x[-1] - x[0])
    return surface(points, piece, u=u.astype(np.float32), v=(angle / np.pi).astype(np.float32))


@dataclass(frozen=True)
class Plan:
    """The measures of a beetle's body.

    Attributes:
        body: state of `body_shape`.
        square: how square sections are: 1 round, less to the corners of a box.
        width: half of the greatest width.
        height: of the dome of the elytra above `level`.
        base: x of the base of the elytra.
        level: height of the sides above the ground.
        stand: height of the belly above the ground.
        places: [26], from 0 at the base of the elytra to 1 at the tip.
        outline: [26], half width of the body there.
        dome: [26], height of the elytra there, above `level`.
        reach: share of the body behind `base` that the elytra cover.
        short: the elytra leave the abdomen bare.
        neck: length of the pronotum.
        across: [13], half width of the pronotum from its hind to its front edge.
        arch: [13], height of the pronotum above `floor`.
        floor: [13], height of its sides.
        head: length of the head.
        head_x: x of its hind edge.
        head_width: half of its width.
        head_height: above `head_level`.
        head_level: height of its middle.
        kind: state of `pronotum_shape`.
        bend: a number that varies the pronotum.
        shoulder: half width of the base of the elytra.
    """

    body: str
    square: float
    width: float
    height: float
    base: float
    level: float
    stand: float
    places: Line
    outline: Line
    dome: Line
    reach: float
    short: bool
    neck: float
    across: Line
    arch: Line
    floor: Line
    head: float
    head_x: float
    head_width: float
    head_height: float
    head_level: float
    kind: str
    bend: float
    shoulder: float

    @property
    def top(self) -> float:
        """Height of the highest point."""
        return self.level + self.height

    @property
    def mouth(self) -> Line:
        """Middle of the front of the head, [3]."""
        return np.array([0.5 - 0.12 * self.head, 0.0, self.head_level])

    @property
    def feelers(self) -> Line:
        """Between the roots of the antennae, [3]."""
        return np.array([self.head_x + self.head, 0.0, self.head_level + 0.12 * self.head_height])

    @property
    def front(self) -> Line:
        """Top of the pronotum before its middle, [3]."""
        return np.array([self.base + 0.55 * self.neck, 0.0, self.floor[7] + 0.94 * self.arch[7]])


def plan(draw: Draw, state: Mapping[str, str]) -> Plan:
    """The body of a beetle with the given states."""
    body, kind = state["body_shape"], state["pronotum_shape"]
    half, dome, front, peak, blunt, square = _ELYTRA[body]

    def between(name: str, limits: tuple[float, float]) -> float:
        # The same number decides within whatever range the state has.
        return limits[0] + (limits[1] - limits[0]) * draw(name)

    width, height, front_share = between("body.width", half), between("body.height", dome), between("body.front", front)
    widest, power = between("body.peak", peak), between("body.blunt", blunt)
    low = body == "domed"
    head = draw("head.length", 0.11, 0.155) * (0.7 if low else 1.0)
    neck = draw("body.neck", 0.36, 0.44) * (0.74 if low else 1.0)
    stand = draw("legs.stand", 0.03, 0.11)
    level = stand + draw("body.belly", 0.35, 0.6) * height
    # More sections where the outline bends.
    s = 1.0 - (1.0 - np.linspace(0.0, 1.0, 26) ** 0.9) ** 1.35
    hump = _profile(s, draw("elytra.slope", 0.7, 0.95), draw("elytra.hump", 0.3, 0.55), max(power * 0.8, 2.0))
    short = state["elytra_length"] == "shortened"
    place = np.linspace(0.0, 1.0, 13)
    bend = draw("pronotum.bend", 0.0, 1.0)
    across = _collar(kind, place, bend, draw("pronotum.taper", 0.5, 0.68)) * draw("pronotum.width", 0.84, 1.02) * front_share * width
    # What is not the pronotum's own does not follow its state.
    usual = (0.72 + 0.2 * draw("pronotum.height")) * height
    tall = usual * (0.85 if kind == "cylindrical" else 1.0)
    arch = tall * (0.86 + 0.22 * np.sin(np.pi * np.clip(place * 0.8 + 0.1, 0, 1)) - 0.22 * place)
    floor = level - (draw("body.droop", 0.0, 0.05) + (0.12 * height if low else 0.0)) * place
    head_width = 0.62 * front_share * width * draw("head.width", 0.66, 0.98)
    head_height = min(0.62 * usual, 0.75 * head_width) + 0.012
    return Plan(
        body=body,
        square=square,
        width=width,
        height=height,
        base=0.5 - neck,
        level=level,
        stand=stand,
        places=s,
        outline=_profile(s, front_share, widest, power) * width,
        dome=hump * height,
        reach=draw("elytra.short", 0.26, 0.42) if short else 1.0,
        short=short,
        neck=neck - head,
        across=across,
        arch=arch,
        floor=floor,
        head=head,
        head_x=0.5 - 1.25 * head,
        head_width=head_width,
        head_height=head_height,
        head_level=float(floor[-1]) - draw("head.droop", 0.0, 0.3) * head_height,
        kind=kind,
        bend=bend,
        shoulder=front_share * width,
    )


def _collar(kind: str, place: Line, bend: float, taper: float) -> Line:
    """Outline of the pronotum from its hind edge at 0 to its front edge at 1, in shares of the width of the elytra's base."""
    if kind == "rounded":
        centre = 0.4 + 0.12 * bend
        behind = 1.06 - 0.34 * np.clip((centre - place) / centre, 0, 1) ** 2
        return np.asarray(np.where(place < centre, behind, 1.06 - (1.06 - taper) * np.clip((place - centre) / (1 - centre), 0, 1) ** 2))
    if kind == "rectangular":
        return np.asarray(1.08 - 0.03 * (2 * place - 1) ** 2)
    if kind == "heart_shaped":
        centre = 0.68 + 0.08 * bend
        behind = 1.12 - (0.56 + 0.08 * bend) * np.clip((centre - place) / centre, 0, 1) ** 1.3
        return np.asarray(np.where(place < centre, behind, 1.12 - 0.3 * np.clip((place - centre) / (1 - centre), 0, 1) ** 2))
    if kind == "cylindrical":
        return np.asarray((0.42 + 0.08 * bend) * (1.0 + 0.05 * np.sin(np.pi * place)))
    return np.asarray(0.80 + 0.06 * np.sin(np.pi * place) - 0.1 * place**2)


def elytra(draw: Draw, p: Plan) -> list[Facets]:
    """Both elytra, left first."""
    gap = draw("elytra.gap", 0.0, 0.006)
    turn = np.linspace(0.0, 1.85, 11)
    sin, cos = section(turn, p.square)
    places, wide, tall = p.places, p.outline, p.dome
    lag = np.zeros((1, len(turn)))
    if p.short:
        places = np.linspace(0.0, p.reach, 14)
        wide, tall = np.interp(places, p.places, p.outline), 1.04 * np.interp(places, p.places, p.dome)
        # Rounded off behind.
        lag = 0.06 * np.clip(sin, 0, 1)[None] ** 2 * (places / p.reach)[:, None]
    x = p.base - (p.base + 0.5) * places[:, None] + lag
    z = p.level + tall[:, None] * np.where(cos > 0, cos, 0.22 * cos)[None, :]
    v = np.clip(turn / (np.pi / 2), 0, 1.2).astype(np.float32)
    found = []
    for name, side in (("left", 1.0), ("right", -1.0)):
        y = side * (wide[:, None] * sin[None, :] + gap * (0.3 + places[:, None]))
        points = np.stack([np.broadcast_to(x, y.shape), y, z], axis=2)
        order = slice(None, None, 1 if side > 0 else -1)
        found.append(
            surface(points[:, order], PIECE[f"elytron.{name}"], u=places.astype(np.float32), v=v[order], closed=not p.short, nearer=0.004)
        )
    return found


def trunk(p: Plan) -> list[Facets]:
    """The abdomen under the elytra, and the underside of the thorax."""
    rear = np.linspace(0.0, 1.0, 22)
    wide, tall = np.interp(rear, p.places, p.outline), np.interp(rear, p.places, p.dome)
    abdomen = _shell(
        p.base - (p.base + 0.49) * rear,
        0.92 * wide,
        0.8 * tall,
        wide / p.width * min(p.level - 0.4 * p.stand, 0.55 * p.width + 0.02),
        np.full(22, p.level),
        PIECE["abdomen"],
        square=0.5 + 0.5 * p.square,
    )
    at = np.linspace(0.0, 1.0, 8)
    closing = np.sqrt(np.clip(np.minimum(at, 1 - at) * 6, 0, 1))
    place = np.linspace(0.0, 1.0, 13)
    thorax = _shell(
        p.base + p.neck * 0.96 - (p.neck * 0.96 + 0.16) * at,
        np.interp(1 - at, place, p.across) * 0.86 * (0.3 + 0.7 * closing),
        np.full(8, 0.05 * p.height),
        min(p.level - 0.5 * p.stand, 0.5 * p.width) * (0.35 + 0.4 * closing),
        np.interp(1 - at, place, p.floor),
        PIECE["thorax"],
        turns=13,
    )
    return [abdomen, thorax]


def pronotum(draw: Draw, p: Plan) -> list[Facets]:
    """The pronotum, with spines where it has some."""
    place = np.linspace(0.0, 1.0, 13)
    # Rounded off at both ends, closed by the end sections.
    ends = np.clip(np.minimum(place, 1 - place) * 40, 0, 1) ** 0.5
    x = p.base + 0.006 + (p.neck - 0.006) * place
    found = [
        _shell(
            x[::-1],
            (p.across * (0.5 + 0.5 * ends))[::-1],
            (p.arch * (0.25 + 0.75 * ends))[::-1],
            (0.2 * p.arch * ends + 0.003)[::-1],
            p.floor[::-1],
            PIECE["pronotum"],
            square=0.62 if p.kind == "rectangular" else p.square,
            turns=19,
        )
    ]
    if p.kind == "spined":
        long = draw("pronotum.spine", 0.08, 0.13)
        at = round((0.4 + 0.14 * p.bend) * 12)
        for side in SIDES:
            start = np.array([x[at], side * p.across[at] * 0.82, p.floor[at] + 0.25 * p.arch[at]])
            tip = start + np.array([(0.1 - 0.35 * p.bend) * long, side * (long + 0.18 * p.across[at]), 0.2 * long])
            widths = 0.5 * long * np.array([1.0, 0.72, 0.45, 0.22, 0.03])
            found.append(ribbon(np.linspace(start, tip, 5), widths, PIECE["pronotum"], nearer=0.01))
    return found


def scutellum(draw: Draw, p: Plan) -> Facets:
    """A shield of three corners, a little above the elytra."""
    size = draw("scutellum.size", 0.035, 0.06)
    u, v = np.linspace(0.0, 1.0, 5), np.linspace(-1.0, 1.0, 5)
    y = v[None, :] * (np.clip(1.0 - u, 0.04, 1) ** 0.8 * 0.62 * size)[:, None]
    x = p.base - size * 1.15 * np.repeat(u[:, None], 5, 1)
    place = (p.base - x) / (p.base + 0.5)
    dome, outline = np.interp(place, p.places, p.dome), np.interp(place, p.places, p.outline)
    bow = np.sqrt(np.clip(1 - (y / np.maximum(outline, 1e-3)) ** 2, 0.2, 1)) if p.square >= 1 else 1.0
    points = np.stack([x, y, p.level + dome * bow + 0.007], axis=2)
    return surface(points, PIECE["scutellum"], u=u.astype(np.float32), v=v.astype(np.float32), nearer=0.012)


def head(draw: Draw, p: Plan) -> list[Facets]:
    """The head and its eyes."""
    h = np.linspace(0.0, 1.0, 10)
    round_off = np.sqrt(np.clip(1 - np.clip((h - 0.35) / 0.65, 0, 1) ** 2.4, 0, 1))
    outline = (0.85 + 0.15 * np.sin(np.pi * np.clip(h * 1.3, 0, 1))) * round_off
    found = [
        _shell(
            (p.head_x + 1.25 * p.head * h)[::-1],
            (outline * p.head_width + 0.002)[::-1],
            (p.head_height * (0.55 + 0.45 * round_off) * np.clip(round_off * 1.5, 0.05, 1))[::-1],
            (0.75 * p.head_height * round_off + 0.002)[::-1],
            np.full(10, p.head_level),
            PIECE["head"],
            turns=17,
        )
    ]
    size = max(draw("eye.size", 0.2, 0.36) * p.head_width * (0.8 if p.body == "domed" else 1.0), 0.016)
    x = p.head_x + 1.25 * p.head * draw("eye.place", 0.4, 0.58)
    out = draw("eye.bulge", 0.72, 1.0) * p.head_width
    for name, side in (("left", 1.0), ("right", -1.0)):
        centre = np.array([x, side * out, p.head_level + 0.3 * p.head_height])
        found.append(_ball(centre, size * np.array([1.15, 0.9, 1.0]), PIECE[f"eye.{name}"], nearer=0.004))
    return found


def _ball(centre: Line, radii: Line, piece: int, nearer: float = 0.0) -> Facets:
    """An ellipsoid."""
    angle = np.linspace(0.0, np.pi, 7)
    turn = np.linspace(-np.pi, np.pi, 10)
    x = np.repeat(np.cos(angle)[:, None], 10, 1)
    y = np.sin(angle)[:, None] * np.sin(turn)[None, :]
    z = np.sin(angle)[:, None] * np.cos(turn)[None, :]
    points = np.stack([x, y, z], axis=2) * radii + centre
    return surface(points, piece, u=np.linspace(0, 1, 7, dtype=np.float32), v=(turn / np.pi).astype(np.float32), nearer=nearer)
