"""Lengths of insects and leaves, told from regions of their parts. Plain numpy.

A fore wing is measured from where it leaves the body to its tip, wing cases (elytra) along the line from the pronotum or the head through
their middle, a leaf from its base to its tip. What lies otherwise than the parts of such a body do is not measured: a wrong length is worse
than none. Lengths are those of the picture: what is turned away from the camera is shorter there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from concept_cam.core.frame import Length, Mask, Points

__all__ = ["LENGTHS", "measure_elytra", "measure_fore_wing", "measure_leaf", "measure_lengths"]

LENGTHS = frozenset(["fore_wing_length", "elytral_length", "elytral_width", "leaf_length", "leaf_width"])
"""What :func:`measure_lengths` can tell."""

_LEAST_PIXELS = 12
"""Pixels under which a part has no shape."""

_ONE = 0.75
"""Least share of a part that its largest connected area has to hold where there is one of it."""

_MOST_GAP = 0.3
"""Most of a wing's length that may lie between the body and the wing's root."""

_WITHIN = 0.6
"""Least share of a wing's chord that has to lie on the wing."""

_FILLED = 0.45
"""Least share of the box along and across that a leaf or wing cases fill: less is several, or not the whole."""

_SLENDER = 1.25
"""A shape so many times as long as wide has an axis of its own."""

_FAR = 0.4
"""Least share of a leaf's length that its tip and its base have to lie apart to say which way it points."""

_SECTIONS = 24
"""Sections across which a width is looked for."""


def measure_lengths(parts: Mapping[str, Mask], cell: tuple[float, float] = (1.0, 1.0)) -> dict[str, Length]:
    """Measures every length of this module that the parts allow.

    Args:
        parts: Part -> bool [H, W]; a part that was not found is missing or empty.
        cell: ``(y, x)`` size of what the parts were told by, in pixels (a patch; 1 for outlines drawn to the pixel).

    Returns:
        ``fore_wing_length``, ``elytral_length``, ``elytral_width``, ``leaf_length`` and ``leaf_width``, each only where it can be measured.
    """
    return {**measure_fore_wing(parts, cell), **measure_elytra(parts, cell), **measure_leaf(parts, cell)}


def measure_fore_wing(parts: Mapping[str, Mask], cell: tuple[float, float] = (1.0, 1.0)) -> dict[str, Length]:
    """Measures the longer of the fore wings, from where it leaves the body to its tip.

    Needs ``fore_wing`` and one of ``thorax``, ``body`` and ``head``; the arguments are those of :func:`measure_lengths`.

    Returns:
        ``fore_wing_length``, or nothing.
    """
    parts = _found(parts)
    trunk = next((parts[name] for name in ("thorax", "body", "head") if name in parts), None)
    if "fore_wing" not in parts or trunk is None:
        return {}
    from scipy.ndimage import distance_transform_edt, label

    away = distance_transform_edt(~trunk)
    labels, count = label(parts["fore_wing"], np.ones((3, 3), dtype=bool))
    found: dict[str, Length] = {}
    for number in range(1, count + 1):
        wing = labels == number
        if wing.sum() < _LEAST_PIXELS:
            continue
        points = _pixels(wing)
        distance = away[wing]
        gap = max(float(distance.min()) - 1.0, 0.0)
        # The root is where the wing comes nearest to the body; a wing that meets it along a line has its root in the line's middle.
        root = points[distance <= distance.min() + max(1.0, 0.5 * max(cell))].mean(axis=0)
        tip = points[int(np.linalg.norm(points - root, axis=1).argmax())]
        length = float(np.linalg.norm(tip - root))
        chord = root + np.linspace(0.05, 0.95, 40)[:, None] * (tip - root)
        if length <= 0 or gap > _MOST_GAP * length or _share_on(wing, chord) < _WITHIN:
            continue
        if not _within(points[np.linalg.norm(points - root, axis=1) > length - max(cell)], cell, wing.shape):
            continue
        if "fore_wing_length" not in found or length > found["fore_wing_length"].value:
            found["fore_wing_length"] = _length(length + 0.5, np.stack([root, tip]), cell, 0.5 * gap)
    return found


def measure_elytra(parts: Mapping[str, Mask], cell: tuple[float, float] = (1.0, 1.0)) -> dict[str, Length]:
    """Measures wing cases along the line from the pronotum (or the head) through their middle, and across it.

    Needs ``elytra`` and one of ``pronotum`` and ``head``; the arguments are those of :func:`measure_lengths`. Seen from the side, the width
    is what is seen of it.

    Returns:
        ``elytral_length`` and ``elytral_width``, or nothing.
    """
    parts = _found(parts)
    before = next((parts[name] for name in ("pronotum", "head") if name in parts), None)
    if "elytra" not in parts or before is None:
        return {}
    points = _largest(parts["elytra"])
    if points is None:
        return {}
    ahead = _pixels(before).mean(axis=0)
    middle = points.mean(axis=0)
    axis = _own_axis(points, middle - ahead)
    along = (points - middle) @ axis
    # What lies in front of them has to lie before their front end, give or take its own half.
    if float((ahead - middle) @ axis) > float(along.min()) + 0.1 * float(np.ptp(along)):
        return {}
    return _box(points, middle, axis, cell, "elytral", parts["elytra"].shape)


def measure_leaf(parts: Mapping[str, Mask], cell: tuple[float, float] = (1.0, 1.0)) -> dict[str, Length]:
    """Measures the blade of a leaf from its base to its tip, and across.

    Needs ``leaf_blade`` or ``leaf``; where ``leaf_base`` and ``leaf_tip`` or ``petiole`` were found they say which way the leaf points. The
    arguments are those of :func:`measure_lengths`.

    Returns:
        ``leaf_length`` and ``leaf_width``, or nothing: where several leaves, or the leaflets of one, lie apart on the map, nothing is
        measured. What touches or overlaps is measured as one. Of a leaf that does not say which way it points, only one that is clearly
        longer than wide is measured; and nothing is that runs out of the picture.
    """
    parts = _found(parts)
    name = next((name for name in ("leaf_blade", "leaf") if name in parts), None)
    if name is None:
        return {}
    mask = parts[name]
    if name == "leaf" and "petiole" in parts:
        mask = mask & ~parts["petiole"]
    points = _largest(mask)
    if points is None:
        return {}
    middle = points.mean(axis=0)
    way = _way(parts, points)
    if way is not None:
        axis = _unit(way)
    elif "petiole" in parts:
        stalk = _pixels(parts["petiole"])
        base = stalk[int(np.linalg.norm(stalk - middle, axis=1).argmin())]
        axis = _own_axis(points, middle - base)
    elif _slender(_spread(points)[0]):
        axis = _own_axis(points, None)
    else:
        return {}
    return _box(points, middle, axis, cell, "leaf", mask.shape)


def _way(parts: Mapping[str, Mask], points: Points) -> Points | None:
    """The way from a leaf's base to its tip, where both lie on the blade and on either side of its middle; else ``None``."""
    if "leaf_base" not in parts or "leaf_tip" not in parts:
        return None
    blade = np.zeros(parts["leaf_tip"].shape, dtype=bool)
    blade[points[:, 1].astype(int), points[:, 0].astype(int)] = True
    if any((parts[name] & blade).sum() < 0.5 * parts[name].sum() for name in ("leaf_base", "leaf_tip")):
        return None
    middle = points.mean(axis=0)
    ahead, behind = (_pixels(parts[name]).mean(axis=0) - middle for name in ("leaf_tip", "leaf_base"))
    way = np.asarray(ahead - behind)
    longest = float(np.ptp((points - middle) @ _own_axis(points, None)))
    if np.linalg.norm(way) < _FAR * longest or float(ahead @ way) <= 0 or float(behind @ way) >= 0:
        return None
    return way


# ---------------------------------------------------------------------------------------------------------------- pieces


def _found(parts: Mapping[str, Mask]) -> dict[str, Mask]:
    """The parts that have a shape."""
    return {name: mask for name, mask in parts.items() if mask.sum() >= _LEAST_PIXELS}


def _pixels(mask: Mask) -> Points:
    y, x = np.nonzero(mask)
    return np.stack([x + 0.5, y + 0.5], axis=1).astype(np.float64)


def _largest(mask: Mask) -> Points | None:
    """The pixels of the largest connected area, where it is nearly all there is."""
    from scipy.ndimage import label

    labels, count = label(mask, np.ones((3, 3), dtype=bool))
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    if sizes.max() < max(_ONE * sizes.sum(), _LEAST_PIXELS):
        return None
    return _pixels(labels == int(sizes.argmax()) + 1)


def _unit(way: Points) -> Points:
    length = float(np.linalg.norm(way))
    return np.asarray(way / length if length > 0 else np.full(2, np.nan))


def _spread(points: Points) -> tuple[Points, Points]:
    """How far a shape spreads across and along its own axes, squared, and the axes as columns."""
    spread, axes = np.linalg.eigh(np.cov((points - points.mean(axis=0)).T))
    return spread, axes


def _slender(spread: Points) -> bool:
    return bool(spread[1] >= _SLENDER**2 * spread[0])


def _within(points: Points, cell: tuple[float, float], shape: tuple[int, ...]) -> bool:
    """Whether points lie clear of the picture's border: what runs out of the picture is longer than what is seen of it."""
    margin = 0.5 * np.array([cell[1], cell[0]])
    return bool((points > margin).all() and (points < np.array([shape[1], shape[0]]) - margin).all())


def _own_axis(points: Points, way: Points | None) -> Points:
    """The long axis of a slender shape, pointing as `way` does; of another shape `way` itself."""
    spread, axes = _spread(points)
    axis = axes[:, 1]
    if way is None:
        return np.asarray(axis)
    towards = _unit(way)
    if not _slender(spread) or abs(float(axis @ towards)) < math.cos(math.radians(35)):
        return towards
    return np.asarray(axis * (1.0 if float(axis @ towards) >= 0 else -1.0))


def _box(points: Points, middle: Points, axis: Points, cell: tuple[float, float], name: str, shape: tuple[int, ...]) -> dict[str, Length]:
    """Length along an axis and greatest width across it; nothing where the axis points nowhere, as between things in one place.

    Neither is told where the border may have cut it: the length where a pixel at either end touches the border, the width where one does at
    the sides of the widest section or of those beside it, or where the shape ends at the border there.
    """
    if not np.isfinite(axis).all():
        return {}
    across_axis = np.array([-axis[1], axis[0]])
    along, across = (points - middle) @ axis, (points - middle) @ across_axis
    low, high = float(along.min()), float(along.max())
    length = high - low + 1.0
    section = np.clip(((along - low) / length * _SECTIONS).astype(int), 0, _SECTIONS - 1)
    left, right = np.full(_SECTIONS, np.inf), np.full(_SECTIONS, -np.inf)
    np.minimum.at(left, section, across)
    np.maximum.at(right, section, across)
    widest = int((right - left).argmax())
    width = float(right[widest] - left[widest]) + 1.0
    if len(points) < _FILLED * length * width:
        return {}
    at = low + (widest + 0.5) / _SECTIONS * length
    ends = middle + np.outer([low, high], axis)
    sides = middle + at * axis + np.outer([left[widest], right[widest]], across_axis)
    patch = max(cell)
    found: dict[str, Length] = {}
    if _within(points[(along < low + patch) | (along > high - patch)], cell, shape):
        found[f"{name}_length"] = _length(length, ends, cell)
    near = np.abs(section - widest) <= 1
    outer = near & ((across < left[section] + patch) | (across > right[section] - patch))
    if _within(points[outer], cell, shape):
        found[f"{name}_width"] = _length(width, sides, cell)
    return found


def _share_on(mask: Mask, points: Points) -> float:
    """Share of points that lie on a mask."""
    column, row = np.floor(points).astype(int).T
    inside = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    return float(mask[row[inside], column[inside]].sum()) / len(points)


def _length(value: float, line: Points, cell: tuple[float, float], more: float = 0.0) -> Length:
    """A length whose ends are known to a patch each."""
    way = _unit(line[-1] - line[0])
    patch = math.hypot(cell[1] * way[0], cell[0] * way[1]) if np.isfinite(way).all() else max(cell)
    return Length(float(value), math.hypot(patch, patch, more) if value >= 2 * patch else None, line)
