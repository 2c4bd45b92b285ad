"""Colours of a beetle: ground colour, pattern, texture and gloss of the elytra, and the rest of the body."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.beetle.body import PIECE
from concept_cam.demo.worlds.shading import lit, luminance, noise, tint
from concept_cam.demo.worlds.solids import Array, Samples
from concept_cam.demo.worlds.stage import Draw, Light, Shape

_CONTRAST = 0.32
"""Least difference of lightness between a pattern and its ground."""


def colour(draw: Draw, state: Mapping[str, str], kept: Mapping[str, str], seen: Samples, shape: Shape, light: Light) -> Array:
    """Colours of the samples, float32 [S, 3]."""
    rgb = np.zeros((len(seen.at), 3), dtype=np.float32)
    elytra = np.flatnonzero(seen.piece <= PIECE["elytron.right"])
    base = tint(draw, "elytra", state["elytra_colour"])
    if len(elytra):
        rgb[elytra] = _elytra(draw, state, seen[elytra], shape, light, base)
    dark = tint(draw, "body", ("black", "black", "brown")[int(draw("body.colour") * 3)])
    # What goes with the elytra goes with the colour that the specimen was sampled with, so that twins keep it.
    alike = tint(draw, "elytra", kept["elytra_colour"])
    gloss = {"shiny": 0.55, "metallic": 0.5, "matt": 0.06}[kept["elytra_gloss"]] * draw("body.gloss", 0.5, 1.1)
    metal = 0.8 if kept["elytra_gloss"] == "metallic" and draw("body.metal") < 0.6 else 0.0
    which = draw("pronotum.colour")
    other = tint(draw, "pronotum.other", ("red", "orange", "brown", "yellow", "black", "green")[int(draw("pronotum.pick") * 6)])
    pronotum = alike if which < 0.45 else (dark if which < 0.78 else other)
    head = pronotum if draw("head.colour") < 0.5 else dark
    legs = dark if draw("legs.colour") < 0.6 else tint(draw, "legs", ("brown", "orange", "brown")[int(draw("legs.pick") * 3)])
    feelers = legs if draw("antenna.colour") < 0.6 else dark
    plain = {
        "pronotum": pronotum,
        "scutellum": dark if draw("scutellum.colour") < 0.6 else pronotum,
        "head": head,
        "antenna.left": feelers,
        "antenna.right": feelers,
        "mandible.left": 0.7 * head + 0.3 * dark,
        "mandible.right": 0.7 * head + 0.3 * dark,
        "abdomen": dark * 1.15,
        "thorax": dark,
        "leg.left": legs,
        "leg.right": legs,
        "horn.head": head,
        "horn.pronotum": pronotum,
        "snout": head,
    }
    rough = draw("body.rough", 0.02, 0.12)
    spot = draw("pronotum.mark")
    for name, own in plain.items():
        rows = np.flatnonzero(seen.piece == PIECE[name])
        if not len(rows):
            continue
        some = seen[rows]
        fleck = noise("skin", 1, some.u * 0.11 + 0.3, some.v * 0.08 + 0.1)
        skin = own[None] * (1.0 + rough * fleck[:, 1:2] + 0.5 * rough * fleck[:, 2:3])
        if name == "pronotum":
            skin = _pronotum(draw, skin, some, spot, pronotum, dark)
        if name == "abdomen":
            # Segments, darker at their seams, with a paler hem in some.
            phase = (some.u * 7.2) % 1.0
            skin = skin * (1.0 - 0.55 * (phase > 0.88) + draw("abdomen.hem", 0.0, 0.8) * (phase < 0.12))[:, None]
        slim = name.startswith(("leg", "antenna"))
        if slim:
            phase = (some.u * (11 if name.startswith("antenna") else 5)) % 1.0
            ring = draw("antenna.ringed", 0.0, 0.5) if name.startswith("antenna") else 0.0
            skin = skin * (1.0 - (0.25 + ring) * (phase > 0.82))[:, None] + 0.0
        shine = gloss * (0.45 if slim else 1.0)
        rgb[rows] = lit(skin, some.normal, light, gloss=shine, sharp=28, metal=0.0 if slim else metal, sky=0.3 * gloss)
    for name in ("eye.left", "eye.right"):
        rows = np.flatnonzero(seen.piece == PIECE[name])
        if len(rows):
            eye = tint(draw, "eye", ("black", "black", "brown", "grey")[int(draw("eye.colour") * 4)]) * 0.9
            rgb[rows] = lit(eye[None], seen.normal[rows], light, gloss=0.75, sharp=36, sky=0.25)
    rows = np.flatnonzero(seen.piece == PIECE["hair"])
    if len(rows):
        hair = 0.45 * base + 0.55 * np.array([0.92, 0.86, 0.72]) * draw("hair.pale", 0.55, 1.0)
        rgb[rows] = hair[None] * (0.6 + 0.5 * seen.u[rows][:, None])
    return np.clip(rgb, 0.0, 1.2)


def _pronotum(draw: Draw, skin: Array, some: Samples, spot: float, own: Array, dark: Array) -> Array:
    """Some pronota have a middle line, pale sides or dark spots."""
    v = np.abs(some.v) * 2.0
    if spot < 0.16:
        pale = np.array([0.92, 0.86, 0.7]) if luminance(own) < 0.5 else dark
        side = np.clip((v - 0.55) / 0.06, 0, 1)[:, None]
        return np.asarray(skin * (1 - side) + pale * side, dtype=np.float32)
    if spot < 0.3:
        pale = dark if luminance(own) > 0.3 else np.array([0.85, 0.72, 0.45])
        patch = np.clip((0.16 - np.hypot(some.u - 0.45, (v - 0.4) * 0.8)) / 0.03, 0, 1)[:, None]
        return np.asarray(skin * (1 - patch) + pale * patch, dtype=np.float32)
    if spot < 0.5:
        return np.asarray(skin * (1 - 0.5 * np.clip((0.05 - v) / 0.03, 0, 1))[:, None], dtype=np.float32)
    return skin


def _elytra(draw: Draw, state: Mapping[str, str], seen: Samples, shape: Shape, light: Light, base: Array) -> Array:
    half = shape.details["half"]
    long = 0.6
    girth = half * 1.57
    u, v = seen.u, seen.v
    wander = noise("skin", 0, u * long * 0.5 + draw("coat.x"), v * girth * 0.5 + draw("coat.y") + 0.37 * (seen.piece == 1))
    rgb = base[None] * (1.0 + 0.05 * wander[:, :1] + draw("coat.rough", 0.01, 0.05) * wander[:, 2:3])
    mark = _pattern(draw, state["elytra_pattern"], u, v, wander, long, girth)
    if mark is not None:
        rgb = rgb + (mark * draw("pattern.strength", 0.85, 1.0))[:, None] * (_other(draw, base)[None] - rgb)
    # A hem along the suture and the side.
    seam = np.clip((0.028 - v) / 0.02, 0, 1) * draw("suture.dark", 0.3, 0.85)
    rgb = rgb * (1 - seam)[:, None]
    texture = state["elytra_texture"]
    relief, tilt = _texture(draw, texture, u, v, long, girth)
    normal = seen.normal
    if relief is not None:
        rgb = rgb * np.clip(relief, 0.15, 1.8)[:, None]
    if tilt is not None:
        normal = normal + tilt
        normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    finish = state["elytra_gloss"]
    if finish == "matt":
        return lit(rgb * 0.96, normal, light, wrap=0.35)
    if finish == "metallic":
        return _metal(draw, rgb, normal, u, light)
    sharp = draw("gloss.sharp", 22, 90)
    out = lit(rgb, normal, light, gloss=draw("gloss.strength", 0.85, 1.2), sharp=sharp, sky=draw("gloss.sky", 0.2, 0.5))
    # The bright window or sky that polished things mirror, drawn out along the body.
    window = np.array([draw("gloss.x", -0.5, 0.5), draw("gloss.y", -0.6, 0.1), 1.0])
    window /= np.linalg.norm(window)
    mirror = np.clip((normal @ window - draw("gloss.window_size", 0.955, 0.975)) / 0.014, 0, 1) * draw("gloss.window", 0.25, 0.6)
    return np.asarray(out + mirror[:, None], dtype=np.float32)


def _metal(draw: Draw, rgb: Array, normal: Array, u: Array, light: Light) -> Array:
    """A metallic coat: colours that turn with the angle of view, mirrored light of the coat's own colour, and dark sides."""
    side = np.sqrt(np.clip(1.0 - normal[:, 2] ** 2, 0, 1))
    # Towards the neighbouring hues at the sides, and in a slow wave along the body.
    turn = draw("metal.turn", 0.4, 0.65) * (1 if draw("metal.way") < 0.5 else -1)
    angle = turn * (1.2 * side + 0.35 * np.sin(2 * math.pi * (u * draw("metal.waves", 0.5, 1.5) + draw("metal.phase"))))
    rich = np.clip(rgb + 0.5 * (rgb - rgb.mean(axis=1, keepdims=True)), 0, 1)
    # Metal throws light back where it mirrors and is dark beside it.
    out = lit(
        _hue_turned(rich, angle) * (0.8 - 0.5 * side)[:, None],
        normal,
        light,
        gloss=draw("metal.gloss", 0.7, 1.0),
        sharp=draw("metal.sharp", 7, 14),
        metal=1.0,
    )
    # What even a black coat throws back is coloured: one hue on top, its neighbours towards the sides.
    sheen = _hue_turned(np.repeat(np.array([[0.1, 0.75, 0.5]]), len(u), axis=0), 3.0 * angle + 6.28 * draw("metal.hue"))
    bright = np.clip(normal @ light.towards, 0, 1) ** 2 * np.clip(1.1 * side + 0.3, 0, 1)
    out = out + draw("metal.sheen", 0.28, 0.45) * bright[:, None] * sheen
    # A small white mirror image on top.
    return np.asarray(out + lit(np.zeros(3), normal, light, gloss=0.45, sharp=140), dtype=np.float32)


def _hue_turned(rgb: npt.NDArray[np.floating], angle: npt.NDArray[np.floating]) -> Array:
    """Colours [S, 3] turned about the axis of greys by angles [S] in radians."""
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    axis = np.full(3, 1 / math.sqrt(3))
    along = (rgb @ axis)[:, None] * axis
    return np.asarray(np.clip(rgb * c + np.cross(axis, rgb) * s + along * (1 - c), 0, 1), dtype=np.float32)


def _other(draw: Draw, base: Array) -> Array:
    """The colour of a pattern: the first of a row of usual ones that is light or dark enough against the ground."""
    names = ("black", "black", "yellow", "red", "white", "orange", "brown", "black", "white")
    first = int(draw("pattern.pick") * len(names))
    for k in range(len(names)):
        found = tint(draw, "pattern", names[(first + k) % len(names)])
        if abs(float(luminance(found) - luminance(base))) >= _CONTRAST:
            return found
    return np.full(3, 0.02 if float(luminance(base)) > 0.4 else 0.95, dtype=np.float32)


def _pattern(draw: Draw, kind: str, u: Array, v: Array, wander: Array, long: float, girth: float) -> npt.NDArray[np.floating] | None:
    """Where a pattern has its own colour, 0 to 1 [S]."""
    if kind == "plain":
        return None
    soft = draw("pattern.soft", 0.004, 0.016)
    if kind == "spotted":
        columns = 1 + int(draw("pattern.columns") * 2.4)
        rows = 2 + int(draw("pattern.rows") * 3.2)
        size = draw("pattern.size", 0.26, 0.4) * min(0.8 * long / rows, girth * 0.95 / columns, 0.3)
        found = np.zeros_like(u)
        for r in range(rows):
            for c in range(columns):
                cu = (r + 0.5 + draw(f"spot.u{r}{c}", -0.22, 0.22)) / rows * 0.86 + 0.06
                cv = (c + 0.5 + (0.2 if r % 2 else -0.1) + draw(f"spot.v{r}{c}", -0.16, 0.16)) / columns * 0.9
                far = np.hypot((u - cu) * long, (v - cv) * girth)
                own = size * draw(f"spot.size{r}{c}", 0.8, 1.2)
                found = np.maximum(found, np.clip((own - far) / soft + 0.5, 0, 1))
        return found
    if kind == "striped":
        count = 1 + int(draw("pattern.stripes") * 3)
        width = draw("pattern.stripe_width", 0.34, 0.52)
        phase = ((v - 0.04) / 0.96 * count + 0.0 + 0.06 * wander[:, 0]) % 1.0
        far = np.abs(phase - 0.5) / count * girth
        return np.asarray(np.clip((0.5 * width / count * girth - far) / soft + 0.5, 0, 1) * np.clip((0.98 - u) * 30, 0, 1))
    if kind == "banded":
        count = 1 + int(draw("pattern.bands") * 3)
        width = draw("pattern.band_width", 0.34, 0.55)
        zigzag = draw("pattern.zigzag", 0.0, 0.35) * np.abs((v * 2.5) % 1.0 - 0.5)
        phase = (u * count / 0.96 + 0.05 * wander[:, 0] * draw("pattern.ragged", 0.2, 1.2) + zigzag) % 1.0
        far = np.abs(phase - 0.5) / count * long
        return np.asarray(np.clip((0.5 * width / count * long - far) / soft + 0.5, 0, 1))
    blot = noise("skin", 0, u * long * draw("pattern.grain", 0.35, 0.7) + 0.2, v * girth * 0.55 + 0.6)
    level = draw("pattern.level", -0.15, 0.5)
    return np.asarray(np.clip((blot[:, 0] + 0.45 * blot[:, 1] - level) / 0.35 + 0.5, 0, 1))


def _texture(
    draw: Draw, kind: str, u: Array, v: Array, long: float, girth: float
) -> tuple[npt.NDArray[np.floating] | None, npt.NDArray[np.floating] | None]:
    """Light and shade of the relief (a factor [S]) and how it tilts the surface [S, 3]."""
    if kind == "smooth":
        return None, None
    count = 7 + int(draw("texture.count") * 3)
    deep = draw("texture.depth", 0.75, 1.0)
    tilt = np.zeros((len(u), 3), dtype=np.float32)
    if kind == "grooved":
        phase = (v * count) % 1.0
        tilt[:, 1] = 0.5 * deep * np.sin(2 * math.pi * phase)
        line = np.clip((0.17 - np.abs(phase - 0.5)) / 0.07, 0, 1)
        return 1.0 - 0.6 * deep * line, tilt
    if kind == "ridged":
        phase = (v * (3 + int(draw("texture.ribs") * 1.9))) % 1.0
        crest = np.clip((0.16 - np.abs(phase - 0.5)) / 0.08, 0, 1)
        tilt[:, 1] = 1.1 * deep * np.sign(phase - 0.5) * np.clip((0.26 - np.abs(phase - 0.5)) / 0.1, 0, 1)
        valley = np.clip((np.abs(phase - 0.5) - 0.2) / 0.14, 0, 1)
        return 1.0 + 0.5 * deep * crest - 0.45 * deep * valley, tilt
    if kind == "pitted":
        row = v * (count - 1)
        along = u * long / girth * (count - 1) * 1.05 + 0.37 * np.floor(row)
        a, b = along % 1.0 - 0.5, row % 1.0 - 0.5
        far = np.hypot(a, b)
        pit = np.clip((0.31 - far) / 0.1, 0, 1)
        tilt[:, 0] = -1.0 * deep * a * (far < 0.42)
        tilt[:, 1] = 1.0 * deep * b * (far < 0.42)
        return 1.0 - 0.66 * deep * pit, tilt
    if kind == "warty":
        rate = draw("texture.warts", 0.18, 0.3)
        x, y = u * long * rate * 2.0, v * girth * rate * 2.0
        e = 0.006
        here = noise("skin", 1, x, y)[:, 3]
        dx = noise("skin", 1, x + e, y)[:, 3] - here
        dy = noise("skin", 1, x, y + e)[:, 3] - here
        tilt[:, 0], tilt[:, 1] = np.clip(1.6 * deep * dx, -1, 1), np.clip(-1.6 * deep * dy, -1, 1)
        return np.clip(1.25 - 0.38 * deep * (here + 0.4), 0.5, 1.6), tilt
    fine = noise("skin", 1, u * long * 0.5, v * girth * 2.2)
    return 0.95 + 0.2 * deep * fine[:, 2] + 0.1 * fine[:, 1], None
