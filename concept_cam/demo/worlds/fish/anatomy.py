"""The shape of a fish from its trait states and named random numbers.

Lengths are in standard lengths (snout to tail base). The body axis runs from u = 0 (snout) to u = 1 (tail base), v points
to the back. Outlines are one-dimensional tables over u. A median fin is a table of heights over w = u - slant * height, so
that its rays lean backwards; a fan fin (caudal, pectoral) is a table of ray lengths over the ray number t in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.fish.traits import CHARACTERS, MASKS

TABLE = 768
"""Entries of every shape table."""

U = np.linspace(0.0, 1.0, TABLE, dtype=np.float32)
T = np.linspace(-1.0, 1.0, TABLE, dtype=np.float32)


PLATE = 0.42
"""The gill cover's share of the head's length: from behind the cheek to its rim."""


NOTCH = 0.28
"""Least depth of a notch, in fin lengths, that lobes which lie over each other leave."""


@dataclass(frozen=True)
class Anatomy:
    """Shapes of B fishes.

    Attributes:
        values: name -> float32 [B], lengths in standard lengths, angles in radians.
        tables: name -> float32 [B, TABLE]: `upper`, `lower` (outline over u, signed v), `dorsal`, `ventral` (heights of the
            median fins over w), `caudal`, `pectoral` (ray lengths over t, in fin lengths).
        present: name -> bool [B], for the parts that may be missing.
        sites: float32 [B, P, 2], where each part is or would be (u, v), in the order of `MASKS`.
        areas: float32 [B, P], rough area of each part in squared standard lengths.
        extents: float32 [B, P], rough diameter of each part.
    """

    values: dict[str, Float]
    tables: dict[str, Float]
    present: dict[str, npt.NDArray[np.bool_]]
    sites: Float
    areas: Float
    extents: Float


def build(draws: Draws, states: npt.NDArray[np.int64]) -> Anatomy:
    """Anatomy of every fish: a function of its states [B, C] and its random numbers."""
    state = {name: np.array(options)[states[:, c]] for c, (name, options) in enumerate(CHARACTERS.items())}
    values: dict[str, Float] = {}
    tables: dict[str, Float] = {}
    _body(draws, state, values, tables)
    _head(draws, state, values, tables)
    _dorsal_side(draws, state, values, tables)
    _ventral_side(draws, state, values, tables)
    _caudal(draws, state, values, tables)
    _pectoral(draws, values, tables)
    present = {name: state[name] == "present" for name in ("adipose_fin", "pelvic_fin", "barbels", "eye_spot")}
    sites, areas, extents = _places(values, tables, present)
    return Anatomy(values, tables, present, sites, areas, extents)


def _pick(state: npt.NDArray[np.str_], options: dict[str, tuple[float, float]]) -> tuple[Float, Float]:
    low = np.select([state == name for name in options], [v[0] for v in options.values()])
    high = np.select([state == name for name in options], [v[1] for v in options.values()])
    return low.astype(np.float32), high.astype(np.float32)


def at(table: Float, u: Float) -> Float:
    """Table value at u in [0, 1], one per row."""
    column = np.clip(np.rint(u * (TABLE - 1)), 0, TABLE - 1).astype(np.int64)
    return np.asarray(np.take_along_axis(table, column[:, None], axis=1)[:, 0], dtype=np.float32)


def _body(draws: Draws, state: dict[str, npt.NDArray[np.str_]], values: dict[str, Float], tables: dict[str, Float]) -> None:
    shape = state["body_shape"]
    low, high = _pick(shape, {"fusiform": (0.21, 0.29), "elongated": (0.10, 0.145), "deep": (0.42, 0.58)})
    depth = draws("body.depth", low, high)
    low, high = _pick(shape, {"fusiform": (0.075, 0.10), "elongated": (0.05, 0.07), "deep": (0.11, 0.15)})
    peduncle = np.minimum(draws("body.peduncle", low, high), 0.8 * depth)
    share = draws("body.upper_share", 0.46, 0.60)
    peak = draws("body.peak", 0.32, 0.46)[:, None]
    blunt = draws("body.blunt", 0.62, 0.95)[:, None]
    belly_peak = draws("body.belly_peak", 0.34, 0.48)[:, None]
    belly_blunt = draws("body.belly_blunt", 0.62, 0.95)[:, None]
    snout = np.sqrt(np.minimum(U[None, :] / draws("body.snout", 0.05, 0.14)[:, None], 1.0))

    def outline(place: Float, power: Float, height: Float) -> Float:
        hump = np.sin(np.pi * U ** (np.log(0.5) / np.log(place))) ** power
        # sin(pi) is a tiny negative number in float32; its power would be NaN
        hump = np.where(np.isfinite(hump), hump, 0.0)
        base = 0.5 * peduncle[:, None] * snout
        return np.asarray(base + np.maximum(height[:, None] - 0.5 * peduncle[:, None], 0.0) * hump, dtype=np.float32)

    tables["upper"] = outline(peak, blunt, depth * share)
    tables["lower"] = -outline(belly_peak, belly_blunt, depth * (1 - share))
    values["depth"], values["peduncle"] = depth, peduncle
    # The axis bends sideways in the picture plane: a parabola and a cubic through the middle of the body.
    values["bend2"] = draws("body.bend", -1, 1) ** 3 * 0.15
    values["bend3"] = draws("body.bend_s", -1, 1) ** 3 * 0.16


def _head(draws: Draws, state: dict[str, npt.NDArray[np.str_]], values: dict[str, Float], tables: dict[str, Float]) -> None:
    position = state["mouth_position"]
    operculum = draws("head.operculum", 0.20, 0.29)
    values["operculum"] = operculum
    values["operculum_bulge"] = draws("head.bulge", 0.02, 0.05)
    head_depth = at(tables["upper"], 0.5 * operculum) - at(tables["lower"], 0.5 * operculum)
    # Superior mouths sit on an upturned snout, inferior ones under an overhanging one.
    low, high = _pick(position, {"terminal": (-0.05, 0.05), "superior": (0.30, 0.42), "inferior": (-0.16, -0.06)})
    tip = draws("mouth.tip", low, high) * head_depth
    lift = tip[:, None] * np.clip(1 - U / (0.75 * operculum[:, None]), 0, 1) ** 2
    tables["upper"] = (tables["upper"] + lift).astype(np.float32)
    tables["lower"] = (tables["lower"] + lift).astype(np.float32)
    gape = draws("mouth.length", 0.26, 0.40) * operculum
    values["mouth_length"] = gape
    values["mouth_open"] = draws("mouth.open", 0.05, 0.16) * gape
    inferior = position == "inferior"
    mouth_u = np.where(inferior, draws("mouth.set_back", 0.16, 0.30) * operculum, 0.0)
    under = at(tables["lower"], mouth_u)
    values["mouth_u"] = mouth_u.astype(np.float32)
    values["mouth_v"] = np.where(inferior, under, tip).astype(np.float32)
    # Direction in which the gape runs from the lips into the head.
    low, high = _pick(position, {"terminal": (-0.30, 0.10), "superior": (-1.15, -0.80), "inferior": (0.10, 0.35)})
    values["mouth_angle"] = draws("mouth.angle", low, high)
    eye_u = draws("eye.place", 0.36, 0.55) * operculum
    top = at(tables["upper"], eye_u)
    bottom = at(tables["lower"], eye_u)
    values["eye_u"] = eye_u
    values["eye_v"] = bottom + (top - bottom) * draws("eye.height", 0.62, 0.74)
    values["eye_radius"] = np.minimum(draws("eye.radius", 0.020, 0.040), 0.17 * (top - bottom)).astype(np.float32)
    values["line_height"] = draws("line.height", 0.10, 0.34)
    values["line_arch"] = draws("line.arch", 0.0, 0.25)

    values["barbel_length"] = draws("barbel.length", 0.13, 0.30)
    values["barbel_width"] = draws("barbel.width", 0.0050, 0.0085)
    for k in range(3):
        values[f"barbel{k}_angle"] = draws(f"barbel.angle{k}", 0.35 + 0.5 * k, 0.95 + 0.5 * k)
        values[f"barbel{k}_curl"] = draws(f"barbel.curl{k}", -0.35, 0.35)
        values[f"barbel{k}_length"] = values["barbel_length"] * draws(f"barbel.share{k}", 0.55, 1.0)
    # In photographs barbels also lie back over the cheek: the plain style draws none.
    back = draws.chance("barbel.back", 0.0)
    for k in range(2):
        along = draws(f"barbel.angle_back{k}", 2.1, 3.2)
        values[f"barbel{k}_angle"] = np.where(back, along, values[f"barbel{k}_angle"]).astype(np.float32)
    # One barbel may point up beside the snout, as in a catfish seen obliquely.
    up = draws.chance("barbel.up", 0.45)
    values["barbel2_angle"] = np.where(up, draws("barbel.angle_up", -1.0, -0.2), values["barbel2_angle"]).astype(np.float32)
    values["barbel_u"] = (values["mouth_u"] + 0.16 * gape).astype(np.float32)
    values["barbel_v"] = (values["mouth_v"] + 0.0 * gape).astype(np.float32)
    spot_u = draws("eye_spot.place", 0.74, 0.90)
    half = np.minimum(at(tables["upper"], spot_u), -at(tables["lower"], spot_u))
    values["eye_spot_u"] = spot_u
    values["eye_spot_v"] = half * draws("eye_spot.height", -0.10, 0.35)
    values["eye_spot_radius"] = np.minimum(draws("eye_spot.radius", 0.026, 0.042), 0.62 * half).astype(np.float32)


def _fin(start: Float, length: Float) -> Float:
    """Place in the fin, 0 at its front and 1 at its rear, outside that range beyond it; [B, TABLE]."""
    return np.asarray((U - start[:, None]) / length[:, None], dtype=np.float32)


def _inside(s: Float) -> Float:
    return ((s > 0) & (s < 1)).astype(np.float32)


def _dorsal_side(draws: Draws, state: dict[str, npt.NDArray[np.str_]], values: dict[str, Float], tables: dict[str, Float]) -> None:
    spiny = (state["dorsal_fin_texture"] == "spiny")[:, None]
    double = state["dorsal_fin_number"] == "double"
    values["dorsal_slant"] = draws("dorsal.slant", 0.25, 0.95)
    height = draws("dorsal.height", 0.075, 0.145) * (1 + 0.6 * (values["depth"] - 0.25)) * draws("dorsal.fold", 0.75, 1.0)
    start = draws("dorsal.start", 0.26, 0.40)
    reach = draws("dorsal.length", 0.10, 0.36)
    gap = draws("dorsal.gap", 0.045, 0.085)
    first = np.where(double, draws("dorsal.first", 0.13, 0.18), reach).astype(np.float32)
    second_start = (start + first + gap).astype(np.float32)
    second = np.minimum(draws("dorsal.second", 0.13, 0.20), 0.775 - second_start).astype(np.float32)
    spines = np.rint(draws("dorsal.spines", 34, 48) * first)[:, None]
    taper = draws("dorsal.taper", 0.15, 0.55)[:, None]
    notch = draws("dorsal.notch", 0.38, 0.62)[:, None]

    def margin(s: Float, count: Float) -> Float:
        soft = np.clip(s * 4.5, 0, 1) ** 0.7 * (1 - taper * s) * np.clip((1 - s) * 6, 0, 1) ** 0.5
        # Each membrane hangs from the tip of one spine down to the flank of the next.
        scallop = 1 - notch * np.clip((s * count) % 1.0 * 1.15, 0, 1) ** 0.8
        spined = (0.62 + 0.38 * np.sin(np.pi * np.clip(s * 0.85 + 0.12, 0, 1))) * (1 - 0.6 * taper * s) * scallop
        return np.asarray(np.where(spiny, spined, soft) * _inside(s), dtype=np.float32)

    s1, s2 = _fin(start, first), _fin(second_start, second)
    count2 = np.maximum(np.rint(spines * second[:, None] / first[:, None]), 3.0)
    rear = draws("dorsal.second_height", 0.75, 1.05)[:, None] * double[:, None]
    dorsal = height[:, None] * (margin(s1, spines) + margin(s2, count2) * rear)
    # The adipose fin: a small lobe of flesh with a narrow base, in a place that the dorsal fin never reaches.
    lobe_start, lobe_length = draws("adipose.start", 0.805, 0.855), draws("adipose.length", 0.055, 0.085)
    lobe = np.clip(1 - (2 * _fin(lobe_start, lobe_length) - 1) ** 2, 0, 1) ** 0.5
    lobe_height = draws("adipose.height", 0.042, 0.068)
    adipose = lobe_height[:, None] * lobe * (state["adipose_fin"] == "present")[:, None]
    tables["dorsal"] = (dorsal + adipose).astype(np.float32)
    values["adipose_from"] = np.full_like(lobe_start, 0.79)
    values["adipose_u"] = lobe_start + 0.5 * lobe_length
    values["adipose_length"], values["adipose_height"] = lobe_length, lobe_height
    end = np.where(double, second_start + second, start + first).astype(np.float32)
    values["dorsal_start"], values["dorsal_end"], values["dorsal_height"] = start, end, height
    # Rays sit at whole numbers of this phase; spines coincide with the tips of the margin.
    values["dorsal_rate"] = np.where(spiny[:, 0], spines[:, 0] / first, draws("dorsal.rays", 70, 110)).astype(np.float32)
    values["dorsal_second_start"] = np.where(double, second_start, 9.0).astype(np.float32)
    values["dorsal_second_rate"] = np.where(spiny[:, 0], count2[:, 0] / second, values["dorsal_rate"]).astype(np.float32)
    values["spiny"] = spiny[:, 0].astype(np.float32)


def _ventral_side(draws: Draws, state: dict[str, npt.NDArray[np.str_]], values: dict[str, Float], tables: dict[str, Float]) -> None:
    values["ventral_slant"] = draws("ventral.slant", 0.35, 0.95)
    start = draws("anal.start", 0.60, 0.70)
    length = np.minimum(draws("anal.length", 0.12, 0.27), 0.92 - start).astype(np.float32)
    height = draws("anal.height", 0.055, 0.105)
    s = _fin(start, length)
    taper = draws("anal.taper", 0.2, 0.7)[:, None]
    anal = height[:, None] * np.clip(s * 4, 0, 1) ** 0.8 * (1 - taper * s) * np.clip((1 - s) * 6, 0, 1) ** 0.5 * _inside(s)
    pelvic_start = draws("pelvic.start", 0.38, 0.49)
    pelvic_length = draws("pelvic.length", 0.055, 0.085)
    pelvic_height = draws("pelvic.height", 0.075, 0.125)
    p = _fin(pelvic_start, pelvic_length)
    lobe = np.clip(p * 2.6, 0, 1) ** 0.9 * np.clip((1 - p) * 1.7, 0, 1) ** 0.6 * _inside(p)
    pelvic = pelvic_height[:, None] * lobe * (state["pelvic_fin"] == "present")[:, None]
    tables["ventral"] = (anal + pelvic).astype(np.float32)
    values["anal_from"] = np.full_like(start, 0.585)
    values["anal_start"], values["anal_length"], values["anal_height"] = start, length, height
    values["pelvic_u"] = pelvic_start + 0.5 * pelvic_length
    values["pelvic_length"], values["pelvic_height"] = pelvic_length, pelvic_height
    values["ventral_rate"] = draws("ventral.rays", 70, 110)


def _caudal(draws: Draws, state: dict[str, npt.NDArray[np.str_]], values: dict[str, Float], tables: dict[str, Float]) -> None:
    shape = state["caudal_fin_shape"]
    names = CHARACTERS["caudal_fin_shape"]
    a = np.abs(T)[None, :]
    depth = draws("caudal.depth", 0.0, 1.0)[:, None]
    # Forks of photographs may have full lobes, and lobes that lie over each other hide the rays between them.
    full = draws.chance("caudal.full", 0.0) & (shape == "forked")
    notched = (shape == "forked") | (shape == "lunate")
    hidden = np.where(draws.chance("caudal.closed", 0.0) & notched, draws("caudal.hidden", 0.1, 0.6), 0.0)
    middle = draws("caudal.middle", 0.36, 0.58)[:, None]
    margins = {
        "forked": 0.40 - 0.12 * depth + (0.60 + 0.12 * depth) * a**1.05,
        "rounded": 0.42 + 0.58 * np.sqrt(np.clip(1 - a**2, 0, 1)),
        "truncate": 0.93 + 0.0 * a + 0.02 * (depth - 0.5),
        "lunate": 0.30 - 0.06 * depth + (0.70 + 0.06 * depth) * a**2.6,
        "emarginate": 0.82 - 0.05 * depth + (0.17 + 0.05 * depth) * a**1.8,
        "pointed": 0.22 + 0.98 * (1 - a) ** 0.95,
    }
    margin = np.zeros((len(shape), TABLE))
    for name in names:
        margin = np.where((shape == name)[:, None], margins[name], margin)
    margin = np.where(full[:, None], middle + (1 - middle) * a ** draws("caudal.fullness", 0.45, 1.0)[:, None], margin)
    # The lobes of a fork end in a point or are rounded off.
    lobe = draws("caudal.lobe", 0.0, 0.30)[:, None] * np.clip((a - 0.72) / 0.28, 0, 1) ** 2
    margin = np.where((shape == "forked")[:, None], margin - lobe, margin)
    # Enough of the notch is left to tell the shape by.
    deep = margin[:, TABLE // 2 :] <= margin.max(axis=1, keepdims=True) - NOTCH
    hidden = np.minimum(hidden, np.logical_and.accumulate(deep, axis=1).mean(axis=1))[:, None]
    shown = np.rint((np.sign(T) * (hidden + (1 - hidden) * a) + 1) * 0.5 * (TABLE - 1)).astype(np.int64)
    margin = np.where(hidden > 0, np.take_along_axis(margin, shown, axis=1), margin)
    values["caudal_hidden"] = hidden[:, 0].astype(np.float32)
    # Lobes are rarely equal, margins rarely whole: membranes tear between the rays.
    torn = draws.chance("caudal.slit", 0.35)[:, None]
    for k in range(4):
        place, width = (
            draws(f"caudal.slit{k}", -0.9, 0.9)[:, None],
            draws(f"caudal.slit_width{k}", 0.015, 0.06),
        )
        depth_k = draws(f"caudal.slit_depth{k}", 0.0, 0.38)[:, None] * torn
        margin = margin * (1 - depth_k * np.clip(1 - np.abs(T[None, :] - place) / width[:, None], 0, 1))
    skew = 1 + draws("caudal.skew", -0.10, 0.10)[:, None] * T[None, :]
    phase = draws("caudal.fray_phase", 0, 6.28)[:, None]
    fray = draws("caudal.fray", 0.0, 0.016) + 0.03 * draws.chance("caudal.torn", 0.12)
    fray = fray[:, None]
    margin = margin * skew + fray * (np.sin(31 * T + phase) + np.sin(53 * T + 2 * phase))
    tables["caudal"] = np.maximum(margin, 0.05).astype(np.float32)
    low, high = _pick(
        shape,
        {
            "forked": (0.22, 0.30),
            "rounded": (0.17, 0.24),
            "truncate": (0.17, 0.24),
            "lunate": (0.16, 0.22),
            "emarginate": (0.19, 0.25),
            "pointed": (0.24, 0.33),
        },
    )
    values["caudal_length"] = draws("caudal.length", low, high)
    low, high = _pick(
        shape,
        {
            "forked": (0.12, 0.185),
            "rounded": (0.10, 0.145),
            "truncate": (0.10, 0.155),
            "lunate": (0.19, 0.25),
            "emarginate": (0.12, 0.17),
            "pointed": (0.09, 0.125),
        },
    )
    low, high = np.where(full, 0.08, low), np.where(full, 0.20, high)
    base = 0.48 * values["peduncle"]
    values["caudal_base"] = base
    # Out of the water a tail may lie folded.
    fold = np.where(draws.chance("caudal.folded", 0.25), draws("caudal.fold", 0.6, 1.0), 1.0)
    values["caudal_spread"] = np.maximum(draws("caudal.spread", low, high) * fold, 1.35 * base).astype(np.float32)
    low, high = _pick(
        shape,
        {
            "forked": (0.80, 1.15),
            "rounded": (0.55, 0.75),
            "truncate": (0.60, 0.95),
            "lunate": (0.52, 0.68),
            "emarginate": (0.65, 1.0),
            "pointed": (0.50, 0.70),
        },
    )
    low, high = np.where(full, 0.55, low), np.where(full, 0.95, high)
    values["caudal_power"] = draws("caudal.power", low, high)
    values["caudal_tilt"] = draws("caudal.tilt", -1, 1) ** 3 * 0.25
    values["caudal_rays"] = draws("caudal.rays", 8, 13)


def _pectoral(draws: Draws, values: dict[str, Float], tables: dict[str, Float]) -> None:
    values["pectoral_u"] = values["operculum"] + draws("pectoral.place", 0.005, 0.04)
    lower = at(tables["lower"], values["pectoral_u"])
    values["pectoral_v"] = lower * draws("pectoral.height", 0.20, 0.75)
    values["pectoral_angle"] = draws("pectoral.angle", 0.05, 0.95) + (draws("pectoral.erect") < 0.2) * 0.6
    values["pectoral_angle"] = values["pectoral_angle"].astype(np.float32)
    # Seen a little from above or below, the fin of the far side shows beyond the outline.
    upper = at(tables["upper"], values["pectoral_u"])
    values["far_v"] = upper * draws("far.height", 0.55, 0.95)
    values["far_angle"] = -draws("far.angle", 0.5, 1.5)
    values["has.far"] = draws.chance("far.shown", 0.18).astype(np.float32)
    values["pectoral_length"] = draws("pectoral.length", 0.11, 0.19)
    values["pectoral_spread"] = draws("pectoral.spread", 0.022, 0.055)
    margin = 1 - 0.35 * T[None, :] ** 2 - draws("pectoral.slope", -0.25, 0.25)[:, None] * T[None, :]
    tables["pectoral"] = np.broadcast_to(margin, (len(lower), TABLE)).astype(np.float32)


def _places(values: dict[str, Float], tables: dict[str, Float], present: dict[str, npt.NDArray[np.bool_]]) -> tuple[Float, Float, Float]:
    v, upper, lower = values, tables["upper"], tables["lower"]
    span = upper - lower
    half_head = 0.5 * v["operculum"]
    head_u = (U[None, :] < v["operculum"][:, None]).astype(np.float32)
    head_area = (span * head_u).mean(axis=1)
    body_area = span.mean(axis=1)
    middle = np.full_like(half_head, 0.58)
    mouth_u = v["mouth_u"] + 0.5 * v["mouth_length"] * np.cos(v["mouth_angle"])
    mouth_v = v["mouth_v"] + 0.5 * v["mouth_length"] * np.sin(v["mouth_angle"])
    # Half heights g(x) = base + (spread - base) x^p, integrated along every ray up to its end.
    ray, power = np.minimum(tables["caudal"], 1.6), v["caudal_power"][:, None]
    base, grow = v["caudal_base"][:, None], (v["caudal_spread"] - v["caudal_base"])[:, None]
    caudal_area = 2 * v["caudal_length"] * (base * (ray - 0.12) + grow * ray ** (power + 1) / (power + 1)).mean(axis=1)
    is_dorsal = (U[None, :] < v["adipose_from"][:, None]).astype(np.float32)
    is_pelvic = (U[None, :] < v["anal_from"][:, None]).astype(np.float32)
    dorsal_u = 0.5 * (v["dorsal_start"] + v["dorsal_end"]) + 0.4 * v["dorsal_slant"] * v["dorsal_height"]
    anal_u = v["anal_start"] + 0.5 * v["anal_length"] + 0.4 * v["ventral_slant"] * v["anal_height"]
    pelvic_u = v["pelvic_u"] + 0.4 * v["ventral_slant"] * v["pelvic_height"]
    adipose_u = v["adipose_u"] + 0.4 * v["dorsal_slant"] * v["adipose_height"]
    pectoral_u = v["pectoral_u"] + 0.55 * v["pectoral_length"] * np.cos(v["pectoral_angle"])
    pectoral_v = v["pectoral_v"] - 0.55 * v["pectoral_length"] * np.sin(v["pectoral_angle"])
    line_length = 1 - v["operculum"]
    zero = np.zeros_like(middle)
    table: dict[str, tuple[Float, Float, Float, Float]] = {
        "head": (half_head, 0.5 * (at(upper, half_head) + at(lower, half_head)), head_area, v["operculum"]),
        "eye": (v["eye_u"], v["eye_v"], np.pi * v["eye_radius"] ** 2, 2 * v["eye_radius"]),
        "mouth": (
            mouth_u,
            mouth_v,
            0.9 * (v["mouth_length"] + 0.02) * (0.5 * v["mouth_open"] + 0.02),
            v["mouth_length"],
        ),
        "operculum": (
            (1 - 0.5 * PLATE) * v["operculum"],
            zero,
            PLATE * v["operculum"] * 0.82 * at(span, 0.8 * v["operculum"]),
            at(span, v["operculum"]),
        ),
        "trunk": (
            middle,
            0.5 * (at(upper, middle) + at(lower, middle)),
            body_area - head_area,
            line_length,
        ),
        "lateral_line": (middle, v["line_height"] * at(upper, middle), 0.022 * line_length, line_length),
        "caudal_fin": (1 + 0.5 * v["caudal_length"], zero, caudal_area, 2 * v["caudal_spread"]),
        "dorsal_fin": (
            dorsal_u,
            at(upper, dorsal_u) + 0.4 * v["dorsal_height"],
            (tables["dorsal"] * is_dorsal).mean(axis=1),
            v["dorsal_end"] - v["dorsal_start"],
        ),
        "anal_fin": (
            anal_u,
            at(lower, anal_u) - 0.4 * v["anal_height"],
            (tables["ventral"] * (1 - is_pelvic)).mean(axis=1),
            v["anal_length"],
        ),
        "pelvic_fin": (
            pelvic_u,
            at(lower, pelvic_u) - 0.4 * v["pelvic_height"],
            (tables["ventral"] * is_pelvic).mean(axis=1),
            v["pelvic_height"],
        ),
        "pectoral_fin": (
            pectoral_u,
            pectoral_v,
            1.3 * v["pectoral_length"] * v["pectoral_spread"],
            v["pectoral_length"],
        ),
        "adipose_fin": (
            adipose_u,
            at(upper, adipose_u) + 0.4 * v["adipose_height"],
            (tables["dorsal"] * (1 - is_dorsal)).mean(axis=1),
            v["adipose_length"],
        ),
        "barbels": (
            v["barbel_u"] - 0.3 * v["barbel_length"] * np.cos(v["barbel0_angle"]),
            v["barbel_v"] - 0.3 * v["barbel_length"] * np.sin(v["barbel0_angle"]),
            2.6 * v["barbel_length"] * v["barbel_width"],
            0.45 * v["barbel_length"],
        ),
        "eye_spot": (
            v["eye_spot_u"],
            v["eye_spot_v"],
            np.pi * v["eye_spot_radius"] ** 2,
            2 * v["eye_spot_radius"],
        ),
    }
    sites = np.stack([np.stack(table[name][:2], axis=1) for name in MASKS], axis=1).astype(np.float32)
    areas = np.stack([table[name][2] * present.get(name, 1) for name in MASKS], axis=1).astype(np.float32)
    extents = np.stack([table[name][3] for name in MASKS], axis=1).astype(np.float32)
    return sites, areas, extents


def axis_bend(values: dict[str, Float], u: Float) -> Float:
    """Height of the bent body axis at u ([B] or [B, n])."""
    x = u - 0.45
    extra = (1,) * (np.ndim(u) - 1)
    bend2, bend3 = values["bend2"].reshape(-1, *extra), values["bend3"].reshape(-1, *extra)
    return np.asarray(bend2 * x * x + bend3 * x * x * x, dtype=np.float32)
