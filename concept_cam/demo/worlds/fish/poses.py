"""How a fish lies before the camera: rolled about its long axis, fins folded, tail twisted; and what can then still be told.

A cross-section of the body is an ellipse with half axes h (depth) and w (width). Rolled by an angle r (0: seen from its side; positive:
its back turns to the camera, negative: its belly), a point at the angle p of the ellipse (0: middle of the flank, pi / 2: back) is seen
at the height R sin(p - d), with R^2 = (h cos r)^2 + (w sin r)^2 and tan d = (w sin r) / (h cos r): to roll is to add an angle.
Median fins stand in the plane of symmetry and are foreshortened by a factor of their own, since they lean and fold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.fish.anatomy import TABLE, Anatomy, U, at
from concept_cam.demo.worlds.fish.traits import CHARACTERS, MASKS

VIEWPOINTS = ("side", "above", "below", "between")
"""From where a fish is seen; `between` is neither clearly from its side nor clearly from above or below."""

TAIL_TOLD = 0.36
"""Least foreshortening of either lobe at which the shape of a tail fin can be told."""

_LAPPED = 0.4
"""Most that a tail counts as spread whose lobes lie over each other: it is called neither spread nor folded."""

_SHOWN = 0.3
"""A part foreshortened to less than this share of its area is not counted as seen."""


@dataclass(frozen=True)
class Pose:
    """Fishes as they lie.

    Attributes:
        anatomy: what is seen of the fishes: sites, areas and numbers of the unposed ones, foreshortened.
        judged: bool [B, C], the pose lets the character (order of `CHARACTERS`) be told.
        viewpoint: int64 [B], number in `VIEWPOINTS`.
        tail: float32 [B], how far the tail fin is spread before the camera: 1 flat, near 0 edge-on or folded.
    """

    anatomy: Anatomy
    judged: npt.NDArray[np.bool_]
    viewpoint: npt.NDArray[np.int64]
    tail: Float


def pose(draws: Draws, anatomy: Anatomy, posed: npt.NDArray[np.bool_]) -> Pose:
    """Lays fishes down. Where `posed` [B] is False, a fish is seen flat from its side.

    The pose depends on random numbers alone, never on a state: twins lie alike.
    """
    values, tables = dict(anatomy.values), dict(anatomy.tables)
    roll = np.where(posed, _roll(draws), 0.0).astype(np.float32)
    cos, sin = np.cos(roll), np.sin(roll)
    tables["width"] = _width(draws, anatomy)

    def leaning(name: str, most: float) -> Float:
        lean = np.where(posed, draws(f"pose.{name}", -1, 1) ** 3 * most, 0.0)
        return np.cos(roll + lean).astype(np.float32)

    back, belly = roll > 0.05, roll < -0.05
    dorsal, anal, pelvic = leaning("dorsal", 1.9), leaning("anal", 1.4), leaning("pelvic", 1.4)
    # A fin on the hidden side hangs behind the body; one on the near side may also lie on the flank.
    dorsal = np.where(back & (dorsal < 0), np.minimum(dorsal, -0.12), np.maximum(dorsal, 0.12))
    anal, pelvic = np.maximum(anal, 0.12), np.maximum(pelvic, 0.12)
    adipose = np.maximum(cos, 0.12)
    values |= {"pose.cos": cos, "pose.sin": sin, "pose.dorsal": dorsal, "pose.adipose": adipose}
    values |= {"pose.anal": anal, "pose.pelvic": pelvic}
    values |= {"pose.back": back.astype(np.float32), "pose.belly": belly.astype(np.float32)}

    def section(u: Float) -> tuple[Float, Float, Float, Float]:
        """Middle (as seen), half depth (as seen), radius and turn of the cross-section at u."""
        upper, lower = at(tables["upper"], u), at(tables["lower"], u)
        half = np.maximum(0.5 * (upper - lower), 1e-4)
        rise, side = half * cos, at(tables["width"], u) * sin
        radius = np.maximum(np.hypot(rise, side), 1e-4)
        return 0.5 * (upper + lower) * cos, rise, radius, np.arctan2(side, rise)

    def angle_of(u: Float, v: Float) -> Float:
        upper, lower = at(tables["upper"], u), at(tables["lower"], u)
        return cast("Float", np.arcsin(np.clip((2 * v - upper - lower) / np.maximum(upper - lower, 1e-4), -0.97, 0.97)).astype(np.float32))

    # Tail: twisted or folded on its own, one lobe over the other.
    up, low = _tail(draws, roll, posed)
    values["pose.tail_up"], values["pose.tail_low"] = up, low
    values["pose.curl"] = np.where(posed, draws("pose.curl", -1, 1) ** 3 * 1.6, 0.0).astype(np.float32)
    tail_radius = section(np.ones_like(roll))[2]
    values["caudal_base"] = np.where(posed, 0.96 * tail_radius, values["caudal_base"]).astype(np.float32)

    # Paired fins: both stand out when the fish is seen from above or below.
    u = values["pectoral_u"]
    middle, _, radius, turn = section(u)
    near = angle_of(u, values["pectoral_v"])
    turned = np.abs(roll) > 0.35
    downwards = np.where(roll < -0.45, -1.0, 1.0)
    spread = draws("pose.pectoral", 0.35, 1.35)
    # The far fin is the mirror of the near one, at the angle pi - near.
    values["pectoral_v"] = np.where(posed, middle + radius * np.sin(near - turn), values["pectoral_v"]).astype(np.float32)
    values["far_v"] = np.where(turned, middle + radius * np.sin(near + turn), values["far_v"]).astype(np.float32)
    values["pectoral_angle"] = np.where(turned, spread * downwards, values["pectoral_angle"]).astype(np.float32)
    values["far_angle"] = np.where(turned, -downwards * draws("pose.far_pectoral", 0.35, 1.35), values["far_angle"]).astype(np.float32)
    values["has.far"] = np.where(turned, 1.0, values["has.far"]).astype(np.float32)
    values["pose.near_front"] = (np.cos(near - turn) > 0).astype(np.float32)
    values["pose.far_front"] = (turned & (np.cos(np.pi - near - turn) > 0)).astype(np.float32)

    u = values["barbel_u"]
    middle, _, radius, turn = section(u)
    root = angle_of(u, values["barbel_v"])
    values["barbel_v"] = np.where(posed, middle + radius * np.sin(root - turn), values["barbel_v"]).astype(np.float32)
    values["pose.mirror_v"] = 2 * middle
    values["pose.both_barbels"] = (np.abs(roll) > 0.3).astype(np.float32)

    # What is seen of the parts: their shares of the unposed area, and where they lie.
    shares = {name: np.ones_like(roll) for name in MASKS}
    sites = anatomy.sites.copy()

    def put(name: str, share: Float, v: Float | None = None) -> None:
        shares[name] = np.where(posed, share, 1.0).astype(np.float32)
        if v is not None:
            sites[:, MASKS.index(name), 1] = np.where(posed, v, sites[:, MASKS.index(name), 1])

    def hem(name: str, factor: Float, front: npt.NDArray[np.bool_], height: Float, side: float) -> None:
        """A median fin: what stands out beyond the body, or all of it where it is on the near side."""
        middle, rise, radius, _ = section(np.clip(anatomy.sites[:, MASKS.index(name), 0], 0, 1))
        beyond = np.clip((rise + height * factor - radius) / np.maximum(height * np.abs(factor), 1e-4), 0, 1)
        share = np.abs(factor) * np.where(front, 1.0, beyond)
        put(name, share, np.asarray(middle + side * (rise + 0.45 * height * factor), dtype=np.float32))

    hem("dorsal_fin", dorsal, back, values["dorsal_height"], 1.0)
    hem("adipose_fin", adipose, back, values["adipose_height"], 1.0)
    hem("anal_fin", anal, belly, values["anal_height"], -1.0)
    hem("pelvic_fin", pelvic, belly, values["pelvic_height"], -1.0)
    for name in ("head", "trunk", "operculum", "mouth"):
        u = np.clip(anatomy.sites[:, MASKS.index(name), 0], 0, 1)
        middle, _, radius, turn = section(u)
        half = np.maximum(radius, 1e-4) / np.maximum(0.5 * (at(tables["upper"], u) - at(tables["lower"], u)), 1e-4)
        put(name, half if name != "mouth" else np.cos(np.clip(0.9 * roll, -1.5, 1.5)), middle)
    for name in ("eye", "eye_spot", "lateral_line"):
        u = np.clip(anatomy.sites[:, MASKS.index(name), 0], 0, 1)
        middle, _, radius, turn = section(u)
        angle = angle_of(u, anatomy.sites[:, MASKS.index(name), 1])
        near_share, far_share = np.cos(angle - turn), np.cos(np.pi - angle - turn)
        nearer = near_share >= far_share
        v = middle + radius * np.where(nearer, np.sin(angle - turn), np.sin(angle + turn))
        put(name, np.clip(np.maximum(near_share, far_share), 0, 1) / np.maximum(np.cos(angle), 0.3), v)
    put("caudal_fin", 0.5 * (up + low))
    reach = 0.55 * values["pectoral_length"]
    sites[:, MASKS.index("pectoral_fin"), 1] = np.where(
        posed,
        values["pectoral_v"] - reach * np.sin(values["pectoral_angle"]),
        sites[:, MASKS.index("pectoral_fin"), 1],
    )
    put("barbels", np.ones_like(roll), values["barbel_v"] - 0.3 * values["barbel_length"] * 0.6)
    share = np.stack([shares[name] for name in MASKS], axis=1)
    # What is hardly shown has no area that a picture could hold enough of.
    areas = np.where(share >= np.float32(_SHOWN), anatomy.areas * np.minimum(share, 1.5), np.float32(1e6))
    areas = np.where(posed[:, None], areas, anatomy.areas).astype(np.float32)

    judged = np.ones((len(roll), len(CHARACTERS)), dtype=bool)
    names = list(CHARACTERS)
    flank = (roll > -0.85) & (roll < 1.35)
    told = {
        "caudal_fin_shape": np.minimum(up, low) >= TAIL_TOLD,
        "dorsal_fin_number": shares["dorsal_fin"] >= 0.4,
        "dorsal_fin_texture": shares["dorsal_fin"] >= 0.5,
        "adipose_fin": shares["adipose_fin"] >= 0.45,
        "pelvic_fin": shares["pelvic_fin"] >= 0.4,
        "eye_spot": shares["eye_spot"] >= 0.5,
        "body_shape": np.abs(roll) <= 0.6,
        "mouth_position": np.abs(roll) <= 0.6,
        "pattern": flank,
        "body_colour": flank,
    }
    for name, column in told.items():
        judged[:, names.index(name)] = column | ~posed
    viewpoint = np.select([np.abs(roll) <= 0.4, roll >= 0.9, roll <= -0.9], [0, 1, 2], 3).astype(np.int64)
    seen = replace(anatomy, values=values, tables=tables, sites=sites, areas=areas)
    tail = np.minimum(up, low)
    return Pose(seen, judged, viewpoint, np.where(values["caudal_hidden"] > 0, np.minimum(tail, _LAPPED), tail).astype(np.float32))


def _roll(draws: Draws) -> Float:
    """Roll about the long axis: mostly from the side, often more or less from above, now and then from below."""
    kind = draws.choice("pose.view", (0.42, 0.25, 0.13, 0.11, 0.09))
    part, sign = draws("pose.roll"), np.sign(draws("pose.roll_sign", -1, 1))
    ranges = np.array([(0.0, 0.3), (0.25, 1.0), (0.95, 1.571), (-0.95, -0.25), (-1.571, -0.9)])[kind]
    angle = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * part
    return cast("Float", np.where(kind == 0, angle * sign, angle).astype(np.float32))


def _tail(draws: Draws, roll: Float, posed: npt.NDArray[np.bool_]) -> tuple[Float, Float]:
    """How far the upper and the lower half of the tail fin are spread before the camera: flat, as the body, edge-on, folded."""
    kind = draws.choice("pose.tail", (0.48, 0.24, 0.14, 0.14))
    part = draws("pose.tail_turn")
    spread = np.select(
        [kind == 0, kind == 1, kind == 2],
        [np.cos(0.6 * part), np.abs(np.cos(roll)), np.cos(1.15 + 0.4 * part)],
        0.2 + 0.35 * part,
    )
    over = draws.chance("pose.lobe", 0.35) * draws("pose.lobe_fold", 0.1, 0.75)
    first = draws.chance("pose.lobe_upper", 0.5)
    up = np.where(posed, np.maximum(spread * (1 - over * first), 0.06), 1.0)
    low = np.where(posed, np.maximum(spread * (1 - over * ~first), 0.06), 1.0)
    return up.astype(np.float32), low.astype(np.float32)


def _width(draws: Draws, anatomy: Anatomy) -> Float:
    """Half width of the body over u, [B, TABLE]: a broad or narrow head, a trunk, a tail that is pressed flat."""
    half = 0.5 * (anatomy.tables["upper"] - anatomy.tables["lower"])
    # Deep bodies are pressed flat.
    flat = np.clip(0.26 / anatomy.values["depth"], 0.4, 1.5)[:, None] ** np.float32(0.8)
    head = draws("pose.head_width", 0.6, 1.0)[:, None] * flat
    trunk = draws("pose.trunk_width", 0.45, 0.8)[:, None] * flat
    rear = draws("pose.rear_width", 0.28, 0.5)[:, None]
    operculum = anatomy.values["operculum"]
    gill = operculum[:, None]
    to_trunk = np.clip((U - 0.8 * gill) / 0.2, 0, 1)
    to_rear = np.clip((U - 0.42) / 0.56, 0, 1)
    ratio = (head * (1 - to_trunk) + trunk * to_trunk) * (1 - to_rear) + rear * to_rear
    # Seen from above, a snout is blunter than from the side.
    blunt = np.sqrt(np.clip(U / (0.5 * gill), 0, 1)) * at(half, operculum)[:, None] * head
    share = np.clip(1 - U / gill, 0, 1)
    width = half * ratio * (1 - share) + blunt * share
    return np.asarray(width, dtype=np.float32).reshape(-1, TABLE)
