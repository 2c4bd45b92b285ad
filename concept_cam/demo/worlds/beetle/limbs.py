"""What a beetle's body bears: jaws, snout, horns, antennae, legs and hairs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from concept_cam.demo.worlds.beetle.body import PIECE, SIDES, Line, Plan, section
from concept_cam.demo.worlds.solids import Facets, bristles, ribbon, surface
from concept_cam.demo.worlds.stage import Draw

_NAMES = {1.0: "left", -1.0: "right"}


def _walk(start: Line, steps: Line) -> Line:
    """A line from `start` along `steps` [N, 3], of as many points."""
    return np.asarray(start + np.concatenate([np.zeros((1, 3)), np.cumsum(steps[:-1], axis=0)]))


def mandibles(draw: Draw, size: str, p: Plan) -> list[Facets]:
    """Both jaws; large ones have a tooth on their inside."""
    large = size == "enlarged"
    share, thickness = draw("mandible.length"), draw("mandible.width")
    length = 0.16 + 0.24 * share if large else 0.022 + 0.03 * share
    thick = 0.022 + 0.018 * thickness if large else 0.013 + 0.006 * thickness
    curve, spread = draw("mandible.curve", 0.5, 1.0), draw("mandible.spread", 0.35, 0.8)
    at = round(8 * draw("mandible.tooth", 0.35, 0.65))
    t = np.linspace(0.0, 1.0, 9)
    found = []
    for side in SIDES:
        out = 0.34 * spread * np.sin(np.pi * np.clip(t * 0.9, 0, 1)) * curve * length
        y = side * (min(0.5 * p.head_width, 0.05 + 0.12 * length) * (1 - 0.75 * t**2) + out)
        line = p.mouth + np.stack([length * (t - 0.12), y, 0.05 * length * np.sin(np.pi * t)], axis=1)
        widths = thick * (1.0 - 0.72 * t**1.5)
        piece = PIECE[f"mandible.{_NAMES[side]}"]
        found.append(ribbon(line, widths, piece, nearer=-0.004))
        if large:
            inner = line[at] + np.array([0.3 * thick, -side * (widths[at] + 0.12 * length), 0.0])
            found.append(ribbon(np.linspace(line[at], inner, 3), np.array([1.0, 0.6, 0.08]) * widths[at], piece))
    return found


def snout_line(draw: Draw, p: Plan) -> Line:
    """Middle line of the snout that there is or would be, [8, 3]."""
    long, bend = draw("snout.length", 0.18, 0.34), draw("snout.bend", 0.2, 0.9)
    t = np.linspace(0.0, 1.0, 8)
    return np.asarray(p.mouth + np.stack([long * (t - 0.12), 0 * t, -0.5 * bend * long * t**2], axis=1))


def snout(draw: Draw, p: Plan) -> list[Facets]:
    """The snout."""
    thick = draw("snout.width", 0.024, 0.036) + 0.05 * p.head_width
    widths = thick * np.array([1.25, 1.05, 0.92, 0.85, 0.85, 0.9, 1.0, 0.85])
    return [ribbon(snout_line(draw, p), widths, PIECE["snout"], nearer=0.012)]


def horn_line(draw: Draw, p: Plan) -> Line:
    """Middle line of the horn that the head bears or would bear, [9, 3]."""
    size, rise, curl = draw("horn.length", 0.2, 0.4), draw("horn.rise", 0.35, 1.1), draw("horn.curl", -0.2, 0.9)
    angle = rise + curl * np.linspace(0.0, 1.0, 9)
    steps = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=1) * (size / 8)
    start = np.array([p.mouth[0] - 0.45 * p.head, 0.0, p.head_level + 0.85 * p.head_height])
    return _walk(start, steps)


def horns(draw: Draw, p: Plan) -> list[Facets]:
    """The horn of the head, sometimes forked, often with one of the pronotum above it."""
    line, thick = horn_line(draw, p), draw("horn.width", 0.022, 0.038)
    t = np.linspace(0.0, 1.0, 9)
    found = [ribbon(line, thick * (1.15 - 0.85 * t), PIECE["horn.head"], nearer=0.02)]
    if draw("horn.forked") < 0.35:
        size = float(np.linalg.norm(line[-1] - line[0]))
        for side in SIDES:
            prong = line[-2] + np.array([0.25, 0.22 * side, 0.05]) * size
            middle = 0.5 * (line[-2] + prong) + np.array([0.0, 0.02 * side * size, 0.0])
            found.append(ribbon(np.stack([line[-2], middle, prong]), thick * np.array([0.5, 0.36, 0.08]), PIECE["horn.head"], nearer=0.02))
    if draw("horn.second") < 0.4:
        angle = 0.5 - 0.7 * t
        steps = np.stack([np.cos(angle), 0 * t, np.sin(angle)], axis=1) * (draw("horn.length2", 0.12, 0.3) / 8)
        found.append(ribbon(_walk(p.front, steps), 1.25 * thick * (1.15 - 0.9 * t), PIECE["horn.pronotum"], nearer=0.03))
    return found


_MIDDLING = -1.0
"""Share of antennae that are neither long nor short in the plain world."""


def middling(draw: Draw) -> bool:
    """The antennae are neither long nor short, whatever the state says."""
    return draw("antenna.middling") < draw("antenna.middling_share", _MIDDLING, _MIDDLING)


def _turns(draw: Draw, state: Mapping[str, str], side: float) -> tuple[Line, float, float]:
    """Directions along an antenna in the plane of the body [N], its length and the half width of its stalk."""
    name, long, half = _NAMES[side], state["antenna_length"] == "long", middling(draw)
    part = draw("antenna.length")
    length = 0.34 + 0.3 * part if half else (0.85 + 0.65 * part if long else 0.17 + 0.12 * part)
    thick = draw("antenna.width", 0.0065, 0.0105) * (1.0 if long else 0.9)
    # Seldom quite alike.
    start = draw("antenna.open", 0.35, 1.15) + draw(f"antenna.open.{name}", -0.22, 0.22)
    curl = (1.3 * draw("antenna.swing", -1.0, 1.0) + draw(f"antenna.curl.{name}", -0.35, 0.35)) * (1.0 if long or half else 0.7)
    t = np.linspace(0.0, 1.0, 34 if long or half else 23)
    turn = start + curl * t**1.2
    if state["antenna_shape"] == "elbowed":
        # Out along the first segment, then sharply forwards.
        turn = np.where(t < 0.4, start + 0.55, start + 0.55 - draw("antenna.elbow", 1.15, 1.75) + 0.5 * curl * (t - 0.4))
    return turn, length, thick


def antenna_line(draw: Draw, state: Mapping[str, str], p: Plan, side: float) -> Line:
    """Middle line of an antenna, [N, 3]."""
    turn, length, _ = _turns(draw, state, side)
    t = np.linspace(0.0, 1.0, len(turn))
    up = draw(f"antenna.lift.{_NAMES[side]}", -0.05, 0.3) * (1 - t) - 0.12 * t
    steps = np.stack([np.cos(turn) * np.cos(up), side * np.sin(turn) * np.cos(up), np.sin(up)], axis=1) * (length / (len(t) - 1))
    line = _walk(p.feelers + np.array([0.0, side * 0.62 * p.head_width, 0.0]), steps)
    line[:, 2] = np.maximum(line[:, 2], 0.012)
    return line


def antennae(draw: Draw, state: Mapping[str, str], p: Plan) -> list[Facets]:
    """Both antennae."""
    found = []
    for side in SIDES:
        line = antenna_line(draw, state, p, side)
        turn, length, thick = _turns(draw, state, side)
        found += _DRAWN[state["antenna_shape"]](draw, line, turn, length, thick, side)
    return found


def _outward(turn: Line, side: float) -> Line:
    """Across an antenna, away from the other one, [N, 3]."""
    return np.stack([-np.sin(turn), side * np.cos(turn), 0 * turn], axis=1)


def _forward(turn: Line, side: float) -> Line:
    """Along an antenna, [N, 3]."""
    return np.stack([np.cos(turn), side * np.sin(turn), 0 * turn], axis=1)


def _stalk(line: Line, widths: Line, side: float) -> Facets:
    widths = widths.copy()
    widths[0] *= 1.5
    return ribbon(line, widths, PIECE[f"antenna.{_NAMES[side]}"])


def _even(t: Line, thick: float) -> Line:
    """Half widths of a plain stalk of eleven segments."""
    return np.asarray(thick * (1.0 - 0.35 * t) * (0.85 + 0.3 * np.sin(np.pi * ((t * 11) % 1.0))))


def _threadlike(draw: Draw, line: Line, turn: Line, length: float, thick: float, side: float) -> list[Facets]:
    return [_stalk(line, _even(np.linspace(0, 1, len(line)), thick), side)]


def _clubbed(draw: Draw, line: Line, turn: Line, length: float, thick: float, side: float) -> list[Facets]:
    long = length > 0.3
    club = draw("antenna.club", 3.0, 4.4) * (1.25 if long else 1.0)
    where = 0.16 if long else 0.3
    place = np.clip((np.linspace(0, 1, len(line)) - (1 - where)) / where, 0, 1)
    return [_stalk(line, thick * (0.8 + club * np.sin(0.92 * np.pi * place) ** 0.6), side)]


def _elbowed(draw: Draw, line: Line, turn: Line, length: float, thick: float, side: float) -> list[Facets]:
    t = np.linspace(0, 1, len(line))
    club = 1.5 * np.clip((t - 0.82) / 0.12, 0, 1) * np.clip((1.02 - t) / 0.1, 0, 1)
    return [_stalk(line, thick * (np.where(t < 0.4, 0.9, 1.1) + club), side)]


def _saw_toothed(draw: Draw, line: Line, turn: Line, length: float, thick: float, side: float) -> list[Facets]:
    tooth = draw("antenna.tooth", 2.8, 3.8) * thick * (1.3 if length > 0.3 else 1.0)
    out, last, count = _outward(turn, side), len(line) - 1, 9
    found = []
    for k in range(count):
        at = int((k + 1.2) / (count + 1) * last)
        end = min(at + max(last // (count + 1), 1), last)
        found.append(_plate(line[at], line[end], line[end] + 1.5 * tooth * out[end], PIECE[f"antenna.{_NAMES[side]}"]))
    return [*found, _stalk(line, np.full(len(line), 0.8 * thick), side)]


def _comb_like(draw: Draw, line: Line, turn: Line, length: float, thick: float, side: float) -> list[Facets]:
    tooth = draw("antenna.comb", 0.055, 0.085) * (1.35 if length > 0.3 else 1.0)
    ways = (1.0, -1.0) if draw("antenna.comb_both") < 0.4 else (1.0,)
    out, ahead, last = _outward(turn, side), _forward(turn, side), len(line) - 1
    found = []
    for k in range(9):
        at = int((k + 1.5) / 10.5 * last)
        for way in ways:
            tip = line[at] + (0.85 * way * out[at] + 0.5 * ahead[at]) * tooth * (1 - abs(k - 4) / 16)
            found.append(ribbon(np.linspace(line[at], tip, 3), 0.5 * thick * np.array([0.8, 0.7, 0.5]), PIECE[f"antenna.{_NAMES[side]}"]))
    return [*found, _stalk(line, _even(np.linspace(0, 1, len(line)), thick), side)]


def _fan_shaped(draw: Draw, line: Line, turn: Line, length: float, thick: float, side: float) -> list[Facets]:
    plates = 3 + int(4.99 * draw("antenna.plates"))
    size = draw("antenna.plate", 0.065, 0.1) * (1.3 if length > 0.3 else 1.0)
    out, ahead, end = _outward(turn, side)[-1], _forward(turn, side)[-1], line[-1]
    found = [_stalk(line, np.full(len(line), 0.9 * thick), side)]
    for k in range(plates):
        spread = (k - 0.5 * (plates - 1)) * draw("antenna.fan", 0.26, 0.4) + 0.55
        tip = end + (ahead * math.cos(spread) + out * math.sin(spread)) * size
        middle = 0.5 * (end + tip) + 0.02 * size * out
        widths = np.array([0.35, 1.0, 0.55]) * max(0.16 * size, 0.7 * thick)
        found.append(ribbon(np.stack([end, middle, tip]), widths, PIECE[f"antenna.{_NAMES[side]}"], nearer=0.002 * k))
    return found


_DRAWN = {
    "threadlike": _threadlike,
    "clubbed": _clubbed,
    "fan_shaped": _fan_shaped,
    "comb_like": _comb_like,
    "saw_toothed": _saw_toothed,
    "elbowed": _elbowed,
}
"""State of `antenna_shape` -> how it is drawn."""


def _plate(a: Line, b: Line, c: Line, piece: int) -> Facets:
    """A flat triangle."""
    grid = np.stack([np.stack([a, b]), np.stack([c, c])])
    return surface(grid, piece, u=np.array([0.0, 1.0], dtype=np.float32), v=np.array([-1.0, 1.0], dtype=np.float32), closed=False)


def _way(angle: float, slope: float, side: float) -> Line:
    """A direction: `angle` from the front outwards, `slope` upwards, [3]."""
    return np.array([math.cos(angle) * math.cos(slope), side * math.sin(angle) * math.cos(slope), math.sin(slope)])


def legs(draw: Draw, p: Plan) -> list[Facets]:
    """Six legs that stand on the ground."""
    reach, thick, thigh = draw("legs.length", 0.75, 1.25), draw("legs.width", 0.85, 1.35), draw("legs.thigh", 1.0, 1.8)
    loose, tuck = 0.15 + 0.75 * draw("legs.tidy"), draw("legs.tucked") < 0.05
    swing = draw("legs.swing", 0.0, 1.4)
    # Where the legs are joined, in which direction their thighs point, and how long they are.
    places = (
        (p.base + 0.35 * p.neck, 0.5 * p.shoulder, 0.75, 0.19, 0.35),
        (p.base - 0.05, 0.6 * p.width, 1.62, 0.21, -0.1),
        (p.base - 0.24, 0.55 * p.width, 2.35, 0.26, -0.35),
    )
    t5, t7 = np.linspace(0.0, 1.0, 5)[:, None], np.linspace(0.0, 1.0, 7)
    found = []
    for side in SIDES:
        name = _NAMES[side]
        piece = PIECE[f"leg.{name}"]
        for k, (x, y, way, femur, lean) in enumerate(places):
            turn = way + draw(f"leg{k}.turn.{name}", -0.45, 0.45) * loose
            up = draw(f"leg{k}.up.{name}", 0.1, 0.75)
            knee = draw(f"leg{k}.knee.{name}", -0.9, 0.9) * loose + lean * swing
            if tuck:
                turn, knee, up = turn + 0.4, 2.2, 0.0
            long = femur * reach
            coxa = np.array([x, side * y, max(p.level - 0.3 * p.height, 0.03)])
            bend = coxa + _way(turn, up, side) * (long + 0.35 * y)
            drop = float(np.clip((bend[2] - 0.012) / (0.95 * long), -0.9, 0.9))
            foot = bend + _way(turn + knee, -math.asin(drop), side) * 0.95 * long
            toes = turn + knee + draw(f"leg{k}.tarsus.{name}", -0.5, 0.5)
            toe = foot + _way(toes, 0.0, side) * 0.62 * long
            toe[2] = max(float(toe[2]), 0.01)
            found.append(ribbon(coxa + (bend - coxa) * t5, 0.0145 * thick * thigh * np.array([0.7, 0.95, 1.1, 0.95, 0.6]), piece))
            found.append(ribbon(bend + (foot - bend) * t5, 0.0098 * thick * np.array([0.75, 0.9, 1.0, 1.15, 1.25]), piece))
            arc = foot + (toe - foot) * t7[:, None]
            arc[:, 2] += 0.01 * np.sin(np.pi * t7)
            found.append(ribbon(arc, 0.0072 * thick * np.array([0.9, 1.1, 0.75, 1.1, 0.75, 1.0, 0.5]), piece))
            for claw in (0.5, -0.5):
                end = toe + _way(toes + claw, -0.1, side) * 0.028
                found.append(ribbon(np.stack([toe, end]), 0.0035 * thick * np.array([1.0, 0.4]), piece))
    return found


_HAIRS = 240


def hairs(draw: Draw, p: Plan) -> Facets:
    """Short hairs all over the elytra, leaning backwards."""
    # A fixed pattern of places (fractions of irrational numbers spread evenly), shifted by two draws.
    k = np.arange(_HAIRS)
    place = (k * 0.754877666 + draw("hair.u")) % 1.0 * min(p.reach, 0.985)
    turn = ((k * 0.569840291 + draw("hair.v")) % 1.0 - 0.5) * 2 * 1.65
    lean = 0.5 + ((k * 0.3819660) % 1.0)
    sin, cos = section(turn, p.square)
    wide, tall = np.interp(place, p.places, p.outline), np.interp(place, p.places, p.dome)
    root = np.stack([p.base - (p.base + 0.5) * place, wide * sin, p.level + tall * np.maximum(cos, -0.2)], axis=1)
    normal = np.stack([0 * wide, sin / np.maximum(wide, 0.03), cos / np.maximum(tall, 0.03)], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    tip = root + (0.55 * normal + np.array([-1.0, 0.0, 0.0]) * lean[:, None]) * draw("hair.length", 0.028, 0.045)
    return bristles(root, tip, (0.0028, 0.0012), PIECE["hair"], nearer=0.006)
