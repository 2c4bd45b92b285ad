"""The midlines of bodies, and coordinates along and across them. Plain numpy.

A midline runs through the middles of a body's cross-sections. Those of many bodies are found in one pass; what is found of one does not
depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["BodyPixels", "along_and_across", "midlines", "on_line"]

Points = npt.NDArray[np.float64]

_NODES = 48
"""Points of a midline."""

_SAMPLE = 4000
"""Pixels of a part, about, that the midline is fitted to: more would not move it."""

_END = 4
"""Nodes at either end of a midline that continue it straight on."""

_SECTIONS = 32
"""Cross-sections whose middles the midline runs through."""

_AT_REST = 0.25
"""Pixels under which a midline no longer moves."""

_AT_ONCE = 4096
"""Most points whose distances to all nodes are held at once."""


@dataclass(frozen=True, eq=False)
class BodyPixels:
    """Where a body lies.

    Attributes:
        body: float64 [M, 2], ``(x, y)`` of its pixels without fins.
        tail: float64 [T, 2], those of its rear part; or ``None``.
        axis: float64 [2], from the front to the rear.
    """

    body: Points
    tail: Points | None
    axis: Points

    @property
    def sampled(self) -> tuple[Points, Points]:
        """Some of the pixels, float64 [K, 2], and how much each counts, float64 [K]."""
        body = self.body[:: len(self.body) // _SAMPLE + 1]
        if self.tail is None:
            return body, np.ones(len(body))
        tail = self.tail[:: len(self.tail) // _SAMPLE + 1]
        # The lobes of a tail fin are rarely spread evenly: it tells where the midline goes to, not much more.
        return np.concatenate([body, tail]), np.repeat([1.0, 0.25], [len(body), len(tail)])


def midlines(bodies: Sequence[BodyPixels]) -> list[Points]:
    """Finds the midlines through the middles of the cross-sections: evenly spaced nodes [N, 2] from the front to the rear of each body.

    A midline begins as the straight line along the axis and is moved to the middles of the sections across it, smoothed by a cubic, until
    it rests.
    """
    if not bodies:
        return []
    given = [body.sampled for body in bodies]
    nodes = np.stack([_straight(points, body.axis) for (points, _), body in zip(given, bodies)])
    moving = np.arange(len(bodies))
    for turn in range(4):
        points, weight = (np.concatenate([given[number][part] for number in moving]) for part in (0, 1))
        bounds = np.cumsum([0, *(len(given[number][0]) for number in moving)])
        nodes[moving], shift = _moved(nodes[moving], points, weight, bounds, 1 if turn == 0 else 3)
        if turn > 1:
            moving = moving[np.abs(shift).max(axis=1) >= _AT_REST]
        if not len(moving):
            break
    return list(nodes)


def along_and_across(nodes: Points, points: Points) -> tuple[Points, Points]:
    """Coordinates of points [M, 2] by the nearer of the segments beside the nearest of `nodes` [N, 2]; straight on beyond the ends."""
    return _coordinates(nodes[None], points, np.array([0, len(points)]))


def on_line(nodes: Points, along: Points) -> Points:
    """Points [K, 2] of the polyline `nodes` [N, 2] at places [K] along it, straight on beyond its ends."""
    return np.asarray(_on_lines(nodes[None], along[None])[0])


# ---------------------------------------------------------------------------------------------------------------- pieces


def _straight(points: Points, axis: Points) -> Points:
    unit = axis / np.linalg.norm(axis)
    centre = points.mean(axis=0)
    reach = (points - centre) @ unit
    return np.asarray(centre + np.linspace(reach.min(), reach.max(), _NODES)[:, None] * unit)


def _moved(nodes: Points, points: Points, weight: Points, bounds: npt.NDArray[np.int64], most: int) -> tuple[Points, Points]:
    """Moves midlines [P, N, 2] to the middles of the sections.

    Args:
        nodes: The midlines.
        points: float64 [M, 2], the pixels of all bodies, one body after the other.
        weight: float64 [M], how much each counts.
        bounds: int64 [P + 1], where those of each body begin.
        most: Highest degree of the polynomial that smooths the middles.

    Returns:
        The midlines, and how far each node was moved, float64 [P, N].
    """
    along, across = _coordinates(nodes, points, bounds)
    first, last = np.minimum.reduceat(along, bounds[:-1]), np.maximum.reduceat(along, bounds[:-1])
    scale = np.maximum(last - first, 1e-9)
    owner = np.repeat(np.arange(len(nodes)), np.diff(bounds))
    bins = np.clip(((along - first[owner]) / scale[owner] * _SECTIONS).astype(int), 0, _SECTIONS - 1)
    found = _sections(along, across, weight, bins, owner)
    ends = np.linspace(first, last, _NODES, axis=1)
    shift = np.stack([_smoothed(*own, most, at) for own, at in zip(found, ends)])
    tangents = np.gradient(nodes, axis=1)
    tangents /= np.linalg.norm(tangents, axis=2, keepdims=True)
    normal = np.stack([-tangents[..., 1], tangents[..., 0]], axis=2)
    offset = np.clip(shift, -scale[:, None], scale[:, None])[..., None]
    return _straight_ends(_on_lines(nodes, ends) + offset * normal), shift


def _coordinates(nodes: Points, points: Points, bounds: npt.NDArray[np.int64]) -> tuple[Points, Points]:
    """See :func:`along_and_across`: for several polylines [P, N, 2] and the points of each, one after the other, parted at ``bounds``."""
    tangents = np.diff(nodes, axis=1)
    lengths = np.linalg.norm(tangents, axis=2)
    units = tangents / lengths[..., None]
    starts = np.concatenate([np.zeros((len(nodes), 1)), np.cumsum(lengths, axis=1)[:, :-1]], axis=1).ravel()
    lowest, highest = np.zeros(lengths.shape), lengths.copy()
    lowest[:, 0], highest[:, -1] = -np.inf, np.inf
    lowest, highest = lowest.ravel(), highest.ravel()
    # Axis by axis: columns of numbers side by side in memory are dealt with several times as fast.
    units_x, units_y, nodes_x, nodes_y = units[..., 0].ravel(), units[..., 1].ravel(), nodes[:, :-1, 0].ravel(), nodes[:, :-1, 1].ravel()
    x, y = points.T.copy()
    nearest = np.concatenate([_nearest(own, x[low:high], y[low:high]) for own, (low, high) in zip(nodes, pairwise(bounds.tolist()))])
    before = np.repeat(np.arange(len(nodes)) * lengths.shape[1], np.diff(bounds))
    found = []
    for segment in (np.maximum(nearest - 1, 0) + before, np.minimum(nearest, lengths.shape[1] - 1) + before):
        off_x, off_y, unit_x, unit_y = x - nodes_x[segment], y - nodes_y[segment], units_x[segment], units_y[segment]
        t = off_x * unit_x + off_y * unit_y
        n = off_y * unit_x - off_x * unit_y
        beyond = np.maximum(np.maximum(lowest[segment] - t, t - highest[segment]), 0.0)
        found.append((beyond * beyond + n * n, starts[segment] + t, n))
    first = found[0][0] <= found[1][0]
    return np.where(first, found[0][1], found[1][1]), np.where(first, found[0][2], found[1][2])


def _nearest(nodes: Points, x: Points, y: Points) -> npt.NDArray[np.int64]:
    """The nearest of a few nodes [N, 2] to each point, int64 [M]. A tree of so few is slower than all distances."""
    found = np.empty(len(x), dtype=np.int64)
    for start in range(0, len(x), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        distance = (x[part, None] - nodes[:, 0]) ** 2
        distance += (y[part, None] - nodes[:, 1]) ** 2
        distance.argmin(axis=1, out=found[part])
    return found


def _sections(
    along: Points, across: Points, weight: Points, bins: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]
) -> list[tuple[Points, Points, Points]]:
    """Of every section of each body that has pixels: how far along it lies, its middle across, and how much it counts; float64 [K] each.

    Args:
        along: float64 [M], coordinates of the pixels of all bodies.
        across: float64 [M].
        weight: float64 [M], how much each counts.
        bins: int64 [M], the section of each, 0 ... 31.
        owner: int64 [M], the body of each; ascending.
    """
    numbers = owner * _SECTIONS + bins
    # Small numbers are put in order by counting.
    order = np.argsort(numbers.astype(np.uint16) if numbers[-1] < 2**16 - _SECTIONS else numbers, kind="stable")
    numbers, along, across = numbers[order], along[order], across[order]
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
    count = np.diff(np.append(starts, len(numbers)))
    middles = 0.5 * (np.minimum.reduceat(across, starts) + np.maximum.reduceat(across, starts))
    whose, section = np.divmod(numbers[starts], _SECTIONS)
    # The very ends are cut obliquely.
    oblique = np.where((section == 0) | (section == _SECTIONS - 1), 0.3, 1.0)
    # Summed section by section: `reduceat` adds in another order, and the last digit decides where a pixel halfway between two belongs.
    sums = np.array([np.add.reduce(along[low:high]) for low, high in pairwise([*starts.tolist(), len(numbers)])])
    places, weights = sums / count, np.sqrt(np.add.reduceat(weight[order], starts)) * oblique
    bounds = np.searchsorted(whose, np.arange(int(owner[-1]) + 2)).tolist()
    return [(places[low:high], middles[low:high], weights[low:high]) for low, high in pairwise(bounds)]


def _smoothed(places: Points, values: Points, weights: Points, most: int, at: Points) -> Points:
    """A polynomial through weighted values by least squares, of a degree up to ``most``, read at other places; level beyond the outermost.

    Step by step what ``np.polynomial.Polynomial.fit`` does, to the last bit and without its checks, which cost three times as much.
    """
    degree = min(most, len(places) - 1)
    if degree == 0:
        return np.full(len(at), values[0])
    low, high = places.min(), places.max()
    offset, slope = (-high - low) / (high - low), 2.0 / (high - low)  # to -1..1
    left = np.polynomial.polynomial.polyvander(offset + slope * places, degree).T * weights
    lengths = np.sqrt(np.square(left).sum(axis=1))
    factors = np.linalg.lstsq(left.T / lengths, values * weights, rcond=len(places) * np.finfo(np.float64).eps)[0] / lengths
    return np.asarray(np.polynomial.polynomial.polyval(offset + slope * np.clip(at, low, high), factors))


def _on_lines(nodes: Points, along: Points) -> Points:
    """See :func:`on_line`: points [P, K, 2] of several polylines [P, N, 2] at places [P, K]."""
    tangents = np.diff(nodes, axis=1)
    steps = np.linalg.norm(tangents, axis=2)
    starts = np.concatenate([np.zeros((len(nodes), 1)), np.cumsum(steps, axis=1)], axis=1)
    first = np.clip((starts[:, None, :] <= along[..., None]).sum(axis=2) - 1, 0, steps.shape[1] - 1)
    each = np.arange(len(nodes))[:, None]
    unit = tangents[each, first] / steps[each, first][..., None]
    return np.asarray(nodes[each, first] + (along - starts[each, first])[..., None] * unit)


def _straight_ends(nodes: Points) -> Points:
    """The same polylines [P, N, 2] with evenly spaced nodes, and with straight ends: of the last few sections, the middles tell little."""
    inner = nodes[:, _END:-_END]
    outer = []
    for end, on, own, before in ((0, _END, 0, _END), (-1, -1 - _END, -1, -1 - _END)):
        # By the tangent over some nodes, not over one.
        way = inner[:, own] - inner[:, before]
        reach = np.array([np.linalg.norm(line[end] - line[on]) for line in nodes])
        length = np.array([np.linalg.norm(one) for one in way])
        outer.append((inner[:, own] + reach[:, None] * way / length[:, None])[:, None])
    whole = np.concatenate([outer[0], inner, outer[1]], axis=1)
    total = np.cumsum(np.linalg.norm(np.diff(whole, axis=1), axis=2), axis=1)[:, -1]
    return _on_lines(whole, np.linspace(np.zeros(len(nodes)), total, nodes.shape[1], axis=1))
