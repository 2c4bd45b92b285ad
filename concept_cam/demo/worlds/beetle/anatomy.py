"""The shape of a beetle in space, from its states and named random numbers.

Lengths are in body lengths (front of the head to tip of the body, without jaws, horns and antennae). The body lies along x, the head at
x = 0.5 and the tip at x = -0.5; y points to the beetle's own left, z upwards from the ground it stands on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.solids import Array, Facets, joined, ribbon, surface
from concept_cam.demo.worlds.stage import Draw, Shape

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


_ELYTRA = {
    # half width, height of the dome, front width share, place of the greatest width, bluntness behind, squareness of the section
    "oval": ((0.215, 0.265), (0.13, 0.19), (0.74, 0.92), (0.35, 0.55), (2.0, 2.8), 1.0),
    "domed": ((0.36, 0.43), (0.27, 0.35), (0.62, 0.8), (0.36, 0.48), (2.0, 2.3), 1.0),
    "elongated": ((0.115, 0.16), (0.09, 0.13), (0.86, 1.0), (0.3, 0.6), (3.2, 6.0), 1.0),
    "flattened": ((0.19, 0.24), (0.035, 0.055), (0.9, 1.0), (0.4, 0.7), (5.0, 8.0), 0.55),
}

_TURN = np.linspace(-1.0, 1.0, 15, dtype=np.float32)


def _profile(s: npt.NDArray[np.floating], front: float, peak: float, power: float) -> Array:
    """Share of the greatest width at s in [0, 1]: `front` at the base, 1 at `peak`, 0 at the tip."""
    rise = 1.0 - (1.0 - front) * np.clip((peak - s) / peak, 0, 1) ** 2
    fall = np.sqrt(np.clip(1.0 - np.clip((s - peak) / (1.0 - peak), 0, 1) ** power, 0, 1))
    return np.asarray(rise * fall, dtype=np.float32)


def _section(angle: npt.NDArray[np.floating], square: float) -> tuple[Array, Array]:
    """Sine and cosine of the section's angle, drawn to the corners of a square where `square` is below 1."""
    sin, cos = np.sin(angle), np.cos(angle)
    return (
        np.asarray(np.sign(sin) * np.abs(sin) ** square, dtype=np.float32),
        np.asarray(np.sign(cos) * np.abs(cos) ** square, dtype=np.float32),
    )


def _shell(
    x: npt.NDArray[np.floating],
    width: npt.NDArray[np.floating],
    top: npt.NDArray[np.floating],
    under: npt.NDArray[np.floating],
    floor: npt.NDArray[np.floating],
    piece: int,
    *,
    square: float = 1.0,
    turns: int = 15,
) -> Facets:
    """A closed body along x: sections of half `width`, `top` above and `under` below the height `floor`; v runs round from the right."""
    angle = np.linspace(-np.pi, np.pi, turns)
    sin, cos = _section(angle, square)
    z = np.where(cos > 0, top[:, None] * cos, under[:, None] * cos)
    points = np.stack([np.repeat(x[:, None], turns, 1), width[:, None] * sin, floor[:, None] + z], axis=2)
    u = (x - x[0]) / (x[-1] - x[0])
    return surface(points, piece, u=u.astype(np.float32), v=(angle / np.pi).astype(np.float32))


def build(draw: Draw, state: Mapping[str, str]) -> Shape:
    """A beetle with the given states."""
    parts: list[Facets] = []
    body = state["body_shape"]
    half, dome, front, peak, blunt, square = _ELYTRA[body]
    # The same number decides the size within whatever range the state has.
    share = draw("body.width")
    width = half[0] + (half[1] - half[0]) * share
    height = dome[0] + (dome[1] - dome[0]) * draw("body.height")
    front_share = front[0] + (front[1] - front[0]) * draw("body.front")
    widest = peak[0] + (peak[1] - peak[0]) * draw("body.peak")
    power = blunt[0] + (blunt[1] - blunt[0]) * draw("body.blunt")
    neck = draw("body.neck", 0.36, 0.44) * (0.74 if body == "domed" else 1.0)
    head_length = draw("head.length", 0.11, 0.155) * (0.7 if body == "domed" else 1.0)
    base = 0.5 - neck
    stand = draw("legs.stand", 0.03, 0.11)
    level = stand + draw("body.belly", 0.35, 0.6) * height

    # ------------------------------------------------------------ elytra, abdomen, thorax
    short = state["elytra_length"] == "shortened"
    reach = draw("elytra.short", 0.26, 0.42)
    s = np.linspace(0.0, 1.0, 26) ** 0.9
    # More sections where the outline bends.
    s = 1.0 - (1.0 - s) ** 1.35
    shape = _profile(s, front_share, widest, power)
    hump = _profile(s, draw("elytra.slope", 0.7, 0.95), draw("elytra.hump", 0.3, 0.55), max(power * 0.8, 2.0))
    gap = draw("elytra.gap", 0.0, 0.006)
    for name, side in (("left", 1.0), ("right", -1.0)):
        turn = np.linspace(0.0, 1.85, 11)
        sin, cos = _section(turn, square)
        places: npt.NDArray[np.floating]
        wide: npt.NDArray[np.floating]
        tall: npt.NDArray[np.floating]
        lag: npt.NDArray[np.floating]
        if short:
            places = np.linspace(0.0, reach, 14)
            wide = np.asarray(np.interp(places, s, shape) * width, dtype=np.float32)
            tall = np.asarray(np.interp(places, s, hump) * height * 1.04, dtype=np.float32)
            # Rounded off behind.
            lag = 0.06 * np.clip(np.sin(turn), 0, 1) ** 2
        else:
            places, wide, tall, lag = s, shape * width, hump * height, np.zeros_like(turn)
        x = base - (base + 0.5) * places[:, None] + lag[None, :] * (places[:, None] / reach if short else 0.0)
        y = side * (wide[:, None] * sin[None, :] + gap * (0.3 + places[:, None]))
        z = level + np.where(cos > 0, tall[:, None] * cos[None, :], 0.22 * tall[:, None] * cos[None, :])
        points = np.stack([np.broadcast_to(x, y.shape), y, z], axis=2)
        v = np.clip(turn / (np.pi / 2), 0, 1.2).astype(np.float32)
        if side < 0:
            points, v = points[:, ::-1], v[::-1]
        parts.append(surface(points, PIECE[f"elytron.{name}"], u=places.astype(np.float32), v=v, closed=not short, nearer=0.004))
    rear = np.linspace(0.0, 1.0, 22)
    trunk = _profile(rear, front_share, widest, power)
    fill = 0.9 if not short else 0.94
    parts.append(
        _shell(
            base - (base + 0.49) * rear,
            trunk * width * fill,
            np.interp(rear, s, hump) * height * (0.55 if not short else 0.82),
            trunk * np.minimum(level - 0.4 * stand, 0.55 * width + 0.02),
            np.full(22, level, dtype=np.float32),
            PIECE["abdomen"],
            square=0.5 + 0.5 * square,
        )
    )

    # ------------------------------------------------------------ pronotum
    length = neck - head_length
    across = front_share * width
    kind = state["pronotum_shape"]
    pronotum = np.linspace(0.0, 1.0, 13)  # 0 behind, 1 at the head
    broad = draw("pronotum.width", 0.84, 1.02) * across
    taper = draw("pronotum.taper", 0.5, 0.68)
    bend = draw("pronotum.bend", 0.0, 1.0)
    if kind == "rounded":
        centre = 0.34 + 0.16 * bend
        outline = np.where(
            pronotum < centre, 1 - 0.2 * ((centre - pronotum) / centre) ** 2, 1 - (1 - taper) * ((pronotum - centre) / (1 - centre)) ** 2.0
        )
    elif kind == "rectangular":
        outline = 1.0 + 0.05 - 0.07 * (2 * pronotum - 1) ** 2
    elif kind == "heart_shaped":
        centre = 0.68 + 0.08 * bend
        outline = np.where(
            pronotum < centre,
            1.08 - (0.44 + 0.08 * bend) * np.clip((centre - pronotum) / centre, 0, 1) ** 1.3,
            1.08 - 0.34 * ((pronotum - centre) / (1 - centre)) ** 2,
        )
    elif kind == "cylindrical":
        outline = (0.5 + 0.1 * bend) * (1.0 + 0.05 * np.sin(np.pi * pronotum))
    else:
        outline = 0.80 + 0.06 * np.sin(np.pi * pronotum) - 0.1 * pronotum**2
    side_shape = outline * broad
    # Rounded off at both ends, closed by the end sections.
    tall = (0.72 + 0.2 * draw("pronotum.height")) * height * np.where(kind == "cylindrical", 0.85, 1.0)
    arch = tall * (0.86 + 0.22 * np.sin(np.pi * np.clip(pronotum * 0.8 + 0.1, 0, 1)) - 0.22 * pronotum)
    ends = np.clip(np.minimum(pronotum, 1 - pronotum) * 40, 0, 1) ** 0.5
    x = base + 0.006 + (length - 0.006) * pronotum
    slope = draw("body.droop", 0.0, 0.05) + (0.12 * height if body == "domed" else 0.0)
    floor = level - slope * pronotum
    squareness = 0.8 if kind == "rectangular" else square
    under_half = np.minimum(level - 0.5 * stand, 0.5 * width)
    parts.append(
        _shell(
            x[::-1],
            (side_shape * (0.5 + 0.5 * ends))[::-1],
            (arch * (0.25 + 0.75 * ends))[::-1],
            (0.2 * arch * ends + 0.003)[::-1],
            floor[::-1],
            PIECE["pronotum"],
            square=squareness,
            turns=19,
        )
    )
    # The underside of the thorax.
    thorax = np.linspace(0.0, 1.0, 8)
    closing = np.sqrt(np.clip(np.minimum(thorax, 1 - thorax) * 6, 0, 1))
    parts.append(
        _shell(
            base + length * 0.96 - (length * 0.96 + 0.16) * thorax,
            np.interp(1 - thorax, pronotum, side_shape) * 0.86 * (0.3 + 0.7 * closing),
            np.full(8, 0.05 * height),
            under_half * (0.35 + 0.4 * closing),
            np.interp(1 - thorax, pronotum, floor),
            PIECE["thorax"],
            turns=13,
        )
    )
    spine = draw("pronotum.spine", 0.055, 0.10)
    if kind == "spined":
        at = round((0.4 + 0.14 * bend) * 12)
        for side in (1.0, -1.0):
            start = np.array([x[at], side * side_shape[at] * 0.82, floor[at] + 0.25 * arch[at]])
            tip = start + np.array([-0.35 * spine * bend + 0.1 * spine, side * (spine + 0.18 * side_shape[at]), 0.2 * spine])
            parts.append(
                ribbon(np.linspace(start, tip, 5), 0.5 * spine * np.array([1.0, 0.72, 0.45, 0.22, 0.03]), PIECE["pronotum"], nearer=0.01)
            )

    # ------------------------------------------------------------ scutellum
    size = draw("scutellum.size", 0.035, 0.06)
    # A shield of three corners, a little above the elytra.
    tri_u = np.linspace(0.0, 1.0, 5)
    tri_v = np.linspace(-1.0, 1.0, 5)
    flank = np.clip(1.0 - tri_u, 0.04, 1) ** 0.8 * 0.62 * size
    ty = tri_v[None, :] * flank[:, None]
    tx = base - size * 1.15 * np.repeat(tri_u[:, None], 5, 1)
    ts = (base - tx) / (base + 0.5)
    tz = (
        level
        + np.interp(ts, s, hump) * height * np.sqrt(np.clip(1 - (ty / np.maximum(np.interp(ts, s, shape) * width, 1e-3)) ** 2, 0.2, 1))
        + 0.008
    )
    if square < 1:
        tz = level + np.interp(ts, s, hump) * height + 0.006
    parts.append(
        surface(np.stack([tx, ty, tz], axis=2), PIECE["scutellum"], u=tri_u.astype(np.float32), v=tri_v.astype(np.float32), nearer=0.012)
    )

    # ------------------------------------------------------------ head
    front_width = side_shape[-1]
    head_width = (
        front_width * draw("head.width", 0.66, 0.92) if kind != "cylindrical" else front_width * draw("head.width", 0.66, 0.92) * 1.25
    )
    head_x = 0.5 - head_length * 1.25
    h = np.linspace(0.0, 1.0, 10)
    round_off = np.sqrt(np.clip(1 - np.clip((h - 0.35) / 0.65, 0, 1) ** 2.4, 0, 1))
    head_outline = (0.85 + 0.15 * np.sin(np.pi * np.clip(h * 1.3, 0, 1))) * round_off
    head_tall = min(0.62 * tall, 0.75 * head_width) + 0.012
    head_level = floor[-1] - draw("head.droop", 0.0, 0.3) * head_tall
    parts.append(
        _shell(
            (head_x + 1.25 * head_length * h)[::-1],
            (head_outline * head_width + 0.002)[::-1],
            (head_tall * (0.55 + 0.45 * round_off))[::-1] * np.clip(round_off[::-1] * 1.5, 0.05, 1),
            (0.75 * head_tall * round_off + 0.002)[::-1],
            np.full(10, head_level),
            PIECE["head"],
            turns=17,
        )
    )
    eye_size = draw("eye.size", 0.2, 0.36) * head_width * (1.0 if body != "domed" else 0.8)
    eye_size = float(max(eye_size, 0.016))
    eye_x = head_x + 1.25 * head_length * draw("eye.place", 0.4, 0.58)
    bulge = draw("eye.bulge", 0.72, 1.0)
    for name, side in (("left", 1.0), ("right", -1.0)):
        middle_of_eye = np.array([eye_x, side * head_width * bulge, head_level + 0.3 * head_tall])
        parts.append(_ball(middle_of_eye, np.array([eye_size * 1.15, eye_size * 0.9, eye_size]), PIECE[f"eye.{name}"], nearer=0.004))

    # ------------------------------------------------------------ jaws, snout, horns
    mouth = np.array([0.5 - 0.12 * head_length, 0.0, head_level])
    _mandibles(draw, state["mandible_size"], mouth, head_width, parts)
    snout_length = draw("snout.length", 0.16, 0.32)
    snout_width = draw("snout.width", 0.018, 0.03) + 0.05 * head_width
    snout_bend = draw("snout.bend", 0.2, 0.9)
    t = np.linspace(0.0, 1.0, 8)
    snout_line = mouth + np.stack([snout_length * (t - 0.12), 0 * t, -0.5 * snout_bend * snout_length * t**2], axis=1)
    if state["snout"] == "present":
        widths = snout_width * np.array([1.25, 1.05, 0.92, 0.85, 0.85, 0.9, 1.0, 0.85])
        parts.append(ribbon(snout_line, widths, PIECE["snout"], nearer=0.012))
    horn_line = _horns(draw, state["horns"] == "present", mouth, head_level + head_tall, head_length, base, length, floor, arch, parts)

    # ------------------------------------------------------------ antennae and legs
    root = np.array([head_x + 1.0 * head_length, 0.0, head_level + 0.12 * head_tall])
    feature, antenna_ends = _antennae(draw, state, root, head_width, parts)
    _legs(draw, base, length, np.interp(0.5, pronotum, side_shape), width, level, height, parts)
    if state["elytra_texture"] == "hairy":
        parts.append(_hairs(draw, s, shape * width, hump * height, base, level, square, reach if short else 1.0))

    top = float(level + height)
    middle = base - 0.45 * (base + 0.5)
    body_half = float(width)
    horn_size = float(np.linalg.norm(horn_line[-1] - horn_line[0]))
    sites = {
        "elytra": (middle if not short else base - 0.5 * reach * (base + 0.5), 0.0, top),
        "pronotum": (base + 0.5 * length, 0.0, level + 0.9 * tall),
        "scutellum": (base - 0.4 * size, 0.0, top),
        "head": (0.5 - 0.6 * head_length, 0.0, head_level + head_tall),
        "eye": (eye_x, head_width, head_level + 0.3 * head_tall),
        "antennae": tuple(antenna_ends.mean(axis=0)),
        "mandibles": tuple(mouth + np.array([0.03, 0, 0])),
        "abdomen": (-0.3, 0.0, level),
        "legs": (middle, 0.4, 0.05),
        "horns": tuple(horn_line[len(horn_line) // 2]),
        "snout": tuple(snout_line[4]),
    }
    extents = {
        "elytra": 0.6,
        "pronotum": 0.3,
        "scutellum": 0.06,
        "head": 1.4 * head_length,
        "eye": 2 * eye_size,
        "antennae": 0.3,
        "mandibles": 0.08,
        "abdomen": 0.5,
        "legs": 0.5,
        "horns": horn_size,
        "snout": snout_length,
    }
    core = np.array(
        [
            [0.5, 0.0, level],
            [-0.5, 0.0, level],
            [0.0, body_half + 0.12, level],
            [0.0, -body_half - 0.12, level],
            [0.0, 0.0, top],
            [0.0, 0.0, 0.0],
        ]
    )
    return Shape(
        joined(parts),
        {name: np.array(at, dtype=np.float32) for name, at in sites.items()},
        extents,
        {"antenna": feature, "groove": body_half / 9.0, "half": body_half, "reach": reach if short else 1.0, "top": top, "horn": horn_size},
        core,
    )


def _ball(centre: npt.NDArray[np.floating], radii: npt.NDArray[np.floating], piece: int, nearer: float = 0.0) -> Facets:
    """An ellipsoid."""
    angle = np.linspace(0.0, np.pi, 7)
    turn = np.linspace(-np.pi, np.pi, 10)
    x = np.repeat(np.cos(angle)[:, None], 10, 1)
    y = np.sin(angle)[:, None] * np.sin(turn)[None, :]
    z = np.sin(angle)[:, None] * np.cos(turn)[None, :]
    points = np.stack([x, y, z], axis=2) * radii + centre
    return surface(points, piece, u=np.linspace(0, 1, 7, dtype=np.float32), v=(turn / np.pi).astype(np.float32), nearer=nearer)


def _mandibles(draw: Draw, size: str, mouth: npt.NDArray[np.floating], head_width: float, parts: list[Facets]) -> None:
    share = draw("mandible.length")
    length = 0.16 + 0.24 * share if size == "enlarged" else 0.022 + 0.03 * share
    thick = (0.022 + 0.018 * draw("mandible.width")) if size == "enlarged" else 0.013 + 0.006 * draw("mandible.width")
    curve = draw("mandible.curve", 0.5, 1.0)
    spread = draw("mandible.spread", 0.35, 0.8)
    tooth = draw("mandible.tooth", 0.35, 0.65)
    t = np.linspace(0.0, 1.0, 9)
    for name, side in (("left", 1.0), ("right", -1.0)):
        out = spread * 0.34 * np.sin(np.pi * np.clip(t * 0.9, 0, 1)) * curve
        y = side * (np.minimum(0.5 * head_width, 0.05 + 0.12 * length) * (1 - 0.75 * t**2) + out * length)
        line = mouth + np.stack([length * (t - 0.12), y, 0.05 * length * np.sin(np.pi * t)], axis=1)
        widths = thick * (1.0 - 0.72 * t**1.5)
        parts.append(ribbon(line, widths, PIECE[f"mandible.{name}"], nearer=-0.004))
        if size == "enlarged":
            k = round(tooth * 8)
            inner = line[k] + np.array([0.3 * thick, -side * (widths[k] + 0.12 * length), 0.0])
            parts.append(
                ribbon(
                    np.stack([line[k], 0.5 * (line[k] + inner), inner]), np.array([1.0, 0.6, 0.08]) * widths[k], PIECE[f"mandible.{name}"]
                )
            )


def _horns(
    draw: Draw,
    present: bool,
    mouth: npt.NDArray[np.floating],
    crown: float,
    head_length: float,
    base: float,
    length: float,
    floor: npt.NDArray[np.floating],
    arch: npt.NDArray[np.floating],
    parts: list[Facets],
) -> npt.NDArray[np.floating]:
    """The horn of the head, often with one of the pronotum that meets it; returns the line of the first."""
    size = draw("horn.length", 0.15, 0.36)
    rise = draw("horn.rise", 0.35, 1.1)
    curl = draw("horn.curl", -0.2, 0.9)
    thick = draw("horn.width", 0.016, 0.03)
    forked = draw("horn.forked") < 0.35
    second = draw("horn.second") < 0.4
    size2 = draw("horn.length2", 0.12, 0.3)
    t = np.linspace(0.0, 1.0, 9)
    angle = rise + (curl * t)
    step = np.stack([np.cos(angle), 0 * t, np.sin(angle)], axis=1) * (size / 8)
    start = np.array([mouth[0] - 0.45 * head_length, 0.0, crown - 0.15 * (crown - mouth[2])])
    line = start + np.concatenate([np.zeros((1, 3)), np.cumsum(step[:-1], axis=0)])
    if present:
        parts.append(ribbon(line, thick * (1.15 - 0.85 * t), PIECE["horn.head"], nearer=0.02))
        if forked:
            for side in (1.0, -1.0):
                prong = line[-2] + np.array([0.25 * size, side * 0.22 * size, 0.05 * size])
                parts.append(
                    ribbon(
                        np.stack([line[-2], 0.5 * (line[-2] + prong) + [0, 0.02 * side * size, 0], prong]),
                        thick * np.array([0.5, 0.36, 0.08]),
                        PIECE["horn.head"],
                        nearer=0.02,
                    )
                )
        if second:
            front = np.array([base + 0.55 * length, 0.0, floor[7] + arch[7] * 0.97])
            way = np.stack([np.cos(0.5 - 0.7 * t), 0 * t, np.sin(0.5 - 0.7 * t)], axis=1) * (size2 / 8)
            line2 = front + np.concatenate([np.zeros((1, 3)), np.cumsum(way[:-1], axis=0)])
            parts.append(ribbon(line2, 1.25 * thick * (1.15 - 0.9 * t), PIECE["horn.pronotum"], nearer=0.03))
    return np.asarray(line)


def _antennae(
    draw: Draw, state: Mapping[str, str], root: npt.NDArray[np.floating], head_width: float, parts: list[Facets]
) -> tuple[float, npt.NDArray[np.floating]]:
    """Both antennae; returns the size of the detail that tells their shape, and their tips [2, 3]."""
    shape, long = state["antenna_shape"], state["antenna_length"] == "long"
    middling = draw("antenna.middling") < 0.0
    part = draw("antenna.length")
    length = 0.34 + 0.3 * part if middling else (0.85 + 0.65 * part if long else 0.13 + 0.11 * part)
    thick = draw("antenna.width", 0.0065, 0.0105) * (1.0 if long else 0.9)
    tips = []
    detail = 0.0
    swing = draw("antenna.swing", -1.0, 1.0)
    for name, side in (("left", 1.0), ("right", -1.0)):
        # Seldom quite alike.
        open_ = draw("antenna.open", 0.35, 1.15) + draw(f"antenna.open.{name}", -0.22, 0.22)
        curl = (1.3 * swing + draw(f"antenna.curl.{name}", -0.35, 0.35)) * (1.0 if long or middling else 0.7)
        lift = draw(f"antenna.lift.{name}", -0.05, 0.3)
        n = 34 if long or middling else 23
        t = np.linspace(0.0, 1.0, n)
        turn = open_ + curl * t**1.2
        if shape == "elbowed":
            bend = draw("antenna.elbow", 1.15, 1.75)
            # Out along the scape, then sharply forwards or backwards.
            turn = np.where(t < 0.4, open_ + 0.55, open_ + 0.55 - bend + 0.5 * curl * (t - 0.4))
        up = lift * (1 - t) - 0.12 * t
        step = np.stack([np.cos(turn) * np.cos(up), side * np.sin(turn) * np.cos(up), np.sin(up)], axis=1) * (length / (n - 1))
        start = root + np.array([0.0, side * 0.62 * head_width, 0.0])
        line = start + np.concatenate([np.zeros((1, 3)), np.cumsum(step[:-1], axis=0)])
        line[:, 2] = np.maximum(line[:, 2], 0.012)
        widths = np.full(n, thick)
        widths[0] *= 1.5
        segment = (t * 11) % 1.0
        detail = thick
        piece = PIECE[f"antenna.{name}"]
        ahead = np.stack([np.cos(turn), side * np.sin(turn), 0 * t], axis=1)
        outward = np.stack([-side * np.sin(turn), np.cos(turn), 0 * t], axis=1) * side
        if shape in ("threadlike", "comb_like"):
            widths = widths * (1.0 - 0.35 * t) * (0.85 + 0.3 * np.sin(np.pi * segment))
        elif shape == "clubbed":
            club = draw("antenna.club", 2.4, 3.6) * (1.0 if not long else 1.25)
            where = 0.16 if long else 0.3
            place = np.clip((t - (1 - where)) / where, 0, 1)
            widths = widths * 0.8 + thick * club * np.sin(np.pi * np.clip(place * 0.92 + 0.0, 0, 1)) ** 0.6
            detail = thick * club
        elif shape == "elbowed":
            widths = widths * np.where(t < 0.4, 0.9, 1.1) + thick * 1.5 * np.clip((t - 0.82) / 0.12, 0, 1) * np.clip((1.02 - t) / 0.1, 0, 1)
            detail = 0.25 * length
        elif shape == "saw_toothed":
            tooth = draw("antenna.tooth", 1.9, 2.7) * thick * (1.3 if long else 1.0)
            widths = widths * 0.8
            count = 9
            for k in range(count):
                at = int((k + 1.2) / (count + 1) * (n - 1))
                nxt = min(at + max((n - 1) // (count + 1), 1), n - 1)
                far = line[nxt] + outward[nxt] * tooth * 1.5
                parts.append(_plate(line[at], line[nxt], far, piece))
            detail = tooth
        if shape == "comb_like":
            tooth = draw("antenna.comb", 0.034, 0.055) * (1.35 if long else 1.0)
            both = draw("antenna.comb_both") < 0.4
            for k in range(9):
                at = int((k + 1.5) / 10.5 * (n - 1))
                for way in (1.0, -1.0) if both else (1.0,):
                    tip = line[at] + (way * outward[at] * 0.85 + ahead[at] * 0.5) * tooth * (1 - 0.25 * abs(k - 4) / 4)
                    parts.append(ribbon(np.stack([line[at], 0.5 * (line[at] + tip), tip]), 0.5 * thick * np.array([0.8, 0.7, 0.5]), piece))
            detail = tooth
        if shape == "fan_shaped":
            plates = 3 + int(draw("antenna.plates", 0, 4.99))
            size = draw("antenna.plate", 0.045, 0.075) * (1.3 if long else 1.0)
            widths = widths * 0.9
            end, n_end = line[-1], n - 1
            for k in range(plates):
                spread = (k - 0.5 * (plates - 1)) * draw("antenna.fan", 0.2, 0.36) + 0.55
                way = ahead[n_end] * math.cos(spread) + outward[n_end] * math.sin(spread)
                tip = end + way * size
                middle = 0.5 * (end + tip) + outward[n_end] * 0.02 * size
                parts.append(
                    ribbon(
                        np.stack([end, middle, tip]), np.array([0.35, 1.0, 0.55]) * max(0.16 * size, 0.7 * thick), piece, nearer=0.002 * k
                    )
                )
            detail = size
        parts.append(ribbon(line, widths, piece))
        tips.append(line[-1])
    return (0.0 if middling else detail), np.stack(tips)


def _plate(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], c: npt.NDArray[np.floating], piece: int) -> Facets:
    """A flat triangle."""
    grid = np.stack([np.stack([a, b]), np.stack([c, c])]).astype(np.float32)
    return surface(grid, piece, u=np.array([0.0, 1.0], dtype=np.float32), v=np.array([-1.0, 1.0], dtype=np.float32), closed=False)


def _legs(
    draw: Draw,
    base: float,
    length: float,
    pronotum_half: float,
    width: float,
    level: float,
    height: float,
    parts: list[Facets],
) -> None:
    reach = draw("legs.length", 0.75, 1.25)
    thick = draw("legs.width", 0.85, 1.35)
    thigh = draw("legs.thigh", 1.0, 1.8)
    tidy = draw("legs.tidy", 0.0, 1.0)
    tuck = draw("legs.tucked") < 0.05
    places = (
        # coxa x, coxa y, direction, length of femur
        (base + 0.35 * length, 0.55 * pronotum_half, 0.75, 0.19),
        (base - 0.05, 0.6 * width, 1.62, 0.21),
        (base - 0.24, 0.55 * width, 2.35, 0.26),
    )
    for name, side in (("left", 1.0), ("right", -1.0)):
        for k, (x, y, way, femur) in enumerate(places):
            jitter = 0.15 + 0.75 * tidy
            turn = way + draw(f"leg{k}.turn.{name}", -0.45, 0.45) * jitter
            up = draw(f"leg{k}.up.{name}", 0.1, 0.75)
            knee = draw(f"leg{k}.knee.{name}", -0.9, 0.9) * jitter + (0.35, -0.1, -0.35)[k] * draw("legs.swing", 0.0, 1.4)
            tarsus = draw(f"leg{k}.tarsus.{name}", -0.5, 0.5)
            long = femur * reach
            z = max(level - 0.3 * height, 0.03)
            coxa = np.array([x, side * y, z])

            def way_of(angle: float, slope: float, side: float = side) -> npt.NDArray[np.floating]:
                return np.array([math.cos(angle) * math.cos(slope), side * math.sin(angle) * math.cos(slope), math.sin(slope)])

            if tuck:
                turn, knee, up = turn + 0.4, 2.2, 0.0
            bend = coxa + way_of(turn, up) * (long + 0.35 * y)
            drop = float(np.clip((bend[2] - 0.012) / (0.95 * long), -0.9, 0.9))
            foot = bend + way_of(turn + knee, -math.asin(drop)) * 0.95 * long
            toe = foot + way_of(turn + knee + tarsus, 0.0) * 0.62 * long
            toe[2] = max(float(toe[2]), 0.01)
            piece = PIECE[f"leg.{name}"]
            t4 = np.linspace(0.0, 1.0, 5)[:, None]
            parts.append(ribbon(coxa + (bend - coxa) * t4, 0.0145 * thick * thigh * np.array([0.7, 0.95, 1.1, 0.95, 0.6]), piece))
            parts.append(ribbon(bend + (foot - bend) * t4, 0.0098 * thick * np.array([0.75, 0.9, 1.0, 1.15, 1.25]), piece))
            t6 = np.linspace(0.0, 1.0, 7)
            arc = foot + (toe - foot) * t6[:, None]
            arc[:, 2] += 0.01 * np.sin(np.pi * t6)
            parts.append(ribbon(arc, 0.0072 * thick * np.array([0.9, 1.1, 0.75, 1.1, 0.75, 1.0, 0.5]), piece))
            for claw in (0.5, -0.5):
                end = toe + way_of(turn + knee + tarsus + claw, -0.1) * 0.028
                parts.append(ribbon(np.stack([toe, end]), 0.0035 * thick * np.array([1.0, 0.4]), piece))


def _hairs(
    draw: Draw,
    s: npt.NDArray[np.floating],
    wide: npt.NDArray[np.floating],
    tall: npt.NDArray[np.floating],
    base: float,
    level: float,
    square: float,
    reach: float,
) -> Facets:
    """Short hairs all over the elytra, leaning backwards."""
    count = 240
    # One draw for all hairs: a shift of a fixed pattern of places.
    k = np.arange(count)
    place = (k * 0.754877666 + draw("hair.u")) % 1.0 * min(reach, 0.985)
    turn = ((k * 0.569840291 + draw("hair.v")) % 1.0 - 0.5) * 2 * 1.65
    lean = 0.5 + ((k * 0.3819660) % 1.0)
    sin, cos = _section(turn, square)
    w, t = np.interp(place, s, wide), np.interp(place, s, tall)
    root = np.stack([base - (base + 0.5) * place, w * sin, level + t * np.maximum(cos, -0.2)], axis=1)
    normal = np.stack([0 * w, sin / np.maximum(w, 0.03), cos / np.maximum(t, 0.03)], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    tip = root + (normal * 0.55 + np.array([-1.0, 0.0, 0.0]) * lean[:, None]) * draw("hair.length", 0.028, 0.045)
    corners = np.stack([root, tip, tip, root], axis=1).astype(np.float32)
    around = np.stack([root, tip, tip, root], axis=1).astype(np.float32)
    places = np.zeros((count, 4, 2), dtype=np.float32)
    places[:, :, 0] = np.array([0.0, 1.0, 1.0, 0.0])
    places[:, :, 1] = np.array([-1.0, -1.0, 1.0, 1.0])
    return Facets(
        corners,
        around - corners,
        places,
        np.full(count, PIECE["hair"], dtype=np.int64),
        np.zeros(count, dtype=bool),
        np.repeat(np.array([[0.0028, 0.0012]], dtype=np.float32), count, axis=0),
        np.full(count, 0.006, dtype=np.float32),
    )
