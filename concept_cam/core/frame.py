"""The frame of a body: its midline from the front to the rear, told from regions of parts, and lengths along and across it. Plain numpy.

A body has a *front* part (the head of a fish), a *rear* part (its tail fin) and a *trunk* between them. The midline runs from the front end
through the middles of the body's cross-sections; it bends where the body does. Every pixel has two coordinates: how far along the midline
it lies, and how far to its side. Lengths are read off these, never off boxes, so that they hold for a body at any angle.

Nothing is measured where the parts do not lie as those of a body do: the front before the trunk, the rear behind it, and a midline that
stays within them. A wrong length is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt

from concept_cam.core.borders import border_readings

__all__ = ["BodyFrame", "Length", "body_frame", "exclusive_masks", "measure_body"]

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

_NODES = 48
"""Points of a midline."""

_SAMPLE = 4000
"""Pixels of a part, about, that the midline is fitted to: more would not move it."""

_SPIKE = 0.06
"""Half width, in shares of the square root of the front part's area, under which something that stands out of it is a spike."""

_DENT = 0.1
"""Share of the body's length up to which a dent in its outline is closed."""

_SPECK = 0.15
"""Share of a part's largest connected area under which another area of it is a speck: a fin may cut a trunk in two."""

_LEAST_PIXELS = 12
"""Pixels under which a part has no shape."""

_END = 4
"""Nodes at either end of a midline that continue it straight on."""

_LEAST_STRETCH = 1.4
"""A body is at least so many times as long as its front part; a shorter line would stand on the front part itself."""

_MOST_STRETCH = 12.0
"""And at most so many times as long: beyond that, the front part is not the whole of it."""

_WITHIN = 0.6
"""Least share of the line from end to end that has to lie on the body."""

_MOST_GAP = 0.3
"""Most of the body's length that may lie between where the trunk ends and where the rear part begins."""


@dataclass(frozen=True)
class Length:
    """A length along or across a body.

    Attributes:
        value: Pixels.
        error: Its uncertainty, pixels: either end is known to one patch; where two parts leave a gap between them, to half of it, and where
            other ways to read a border off the maps find it elsewhere, to how far they lie apart. ``None`` where the length is under two
            patches, and nothing can be said.
        line: What was measured, float64 [K, 2] of ``(x, y)``.
    """

    value: float
    error: float | None
    line: Points


@dataclass(frozen=True)
class BodyFrame:
    """The midline of a body and its outline along it, in the pixels of the masks.

    Attributes:
        nodes: float64 [N, 2], ``(x, y)`` of the midline from beyond the front end to beyond the rear end, evenly spaced.
        front: How far along the midline the front end lies.
        neck: Where the front part ends.
        base: Where the rear part begins, or the trunk ends; ``None`` where there is no rear part.
        end: Where the last of all parts ends.
        neck_gap: Pixels between the end of the front part and the beginning of the trunk.
        base_gap: Pixels by which the end of the trunk and the beginning of the rear part differ.
        low: float64 [S], the outline's offset to one side of the midline, per pixel along it; NaN outside the body.
        high: float64 [S], to the other side.
    """

    nodes: Points
    front: float
    neck: float
    base: float | None
    end: float
    neck_gap: float
    base_gap: float
    low: Points
    high: Points

    def coordinates(self, points: Points) -> tuple[Points, Points]:
        """Returns how far along the midline points ``(x, y)`` [M, 2] lie and how far to its side, float64 [M] each."""
        return _along_and_across(self.nodes, points)

    def at(self, along: float | Points, across: float | Points = 0.0) -> Points:
        """Returns the points ``(x, y)`` at such coordinates, float64 [..., 2]."""
        step = np.linalg.norm(self.nodes[1] - self.nodes[0])
        place = np.clip(np.asarray(along, dtype=np.float64) / step, 0, len(self.nodes) - 1.000001)
        first = np.minimum(place.astype(int), len(self.nodes) - 2)
        tangent = self.nodes[first + 1] - self.nodes[first]
        unit = tangent / np.linalg.norm(tangent, axis=-1, keepdims=True)
        normal = np.stack([-unit[..., 1], unit[..., 0]], axis=-1)
        return np.asarray(self.nodes[first] + (place - first)[..., None] * tangent + np.asarray(across)[..., None] * normal)

    def line(self, start: float, stop: float) -> Points:
        """Returns the midline between two places, float64 [K, 2]; two points where it is straight to a hundredth of its length."""
        points = self.at(np.linspace(start, stop, 13))
        chord = points[-1] - points[0]
        ways = points - points[0]
        off = np.abs(chord[0] * ways[:, 1] - chord[1] * ways[:, 0]) / max(float(np.linalg.norm(chord)), 1e-9)
        return points[[0, -1]] if off.max() <= 0.01 * abs(stop - start) else points


PART_SHARE = 0.35
"""Share of a map's peak down to which a pixel may belong to its part, where no other part's share is larger."""


def exclusive_masks(
    heats: Mapping[str, np.ndarray], nested: Mapping[str, str] | None = None, share: float = PART_SHARE, least: float = 1.0
) -> dict[str, Mask]:
    """Shares the pixels out among parts: each goes to the part whose map is highest there, in shares of the map's own peak.

    A map's region alone is cut off at half of its peak; where two parts meet, the border between them is where their shares are equal, and
    the outline of a body lies where even its own share is small.

    Args:
        heats: Part -> float32 [H, W], scores; NaN where nothing may be read.
        nested: Part -> the part that it is a part of: pixels that it wins belong to both.
        share: Least share of its peak.
        least: Areas of a part that are at least such a share of its largest one are kept; 1 for the largest alone.

    Returns:
        Part -> bool [H, W]: its connected areas, empty where its peak is not positive.
    """
    order = list(heats)
    shares = []
    for heat in heats.values():
        peak = float(np.nanmax(heat)) if np.isfinite(heat).any() else 0.0
        shares.append(np.nan_to_num(heat, nan=-np.inf) / peak if peak > 0 else np.full(heat.shape, -np.inf))
    if not shares:
        return {}
    stacked = np.stack(shares)
    winner, best = stacked.argmax(axis=0), stacked.max(axis=0)
    inside = {name: host for name, host in (nested or {}).items() if host in heats}
    hosts = np.array([order.index(inside.get(name, name)) for name in order])
    enough = best >= share
    owner = hosts[winner]
    return {
        # A nested part is cut out of its host, where nothing else holds its outline: at half of its peak.
        name: _areas((winner == k) & (best >= 0.5) if hosts[k] != k else (owner == k) & enough, least)
        for k, name in enumerate(order)
    }


def body_frame(front: Mask, trunk: Mask | None, rear: Mask | None) -> BodyFrame | None:
    """Finds the frame of a body.

    Args:
        front: bool [H, W], the part at the front end.
        trunk: bool [H, W], what lies behind it, without fins; or ``None``.
        rear: bool [H, W], the part at the rear end; or ``None``. One of the two is needed.

    Returns:
        The frame, or ``None`` where the parts do not lie as those of a body do.
    """
    parts = [None if mask is None else _pixels(_areas(mask, _SPECK)) for mask in (_without_spikes(front), trunk, rear)]
    head, middle, tail = (None if points is None or len(points) < _LEAST_PIXELS else points for points in parts)
    if head is None or (middle is None and tail is None):
        return None
    goal = tail if tail is not None else middle
    assert goal is not None
    axis = goal.mean(axis=0) - head.mean(axis=0)
    if np.linalg.norm(axis) < 1.0:
        return None
    body = head if middle is None else np.concatenate([head, middle])
    everything = body if tail is None else np.concatenate([body, tail])
    nodes = _midline(body, tail, axis)
    along, across = _along_and_across(nodes, everything)
    bounds = np.cumsum([len(head), 0 if middle is None else len(middle)])
    (along_head, along_middle, along_tail), (across_head, across_middle, across_tail) = (np.split(part, bounds) for part in (along, across))
    length = float(np.linalg.norm(nodes[1] - nodes[0])) * (len(nodes) - 1)
    low, high = _outline(along[: len(body)], across[: len(body)], length)
    front_end = float(along_head.min())
    neck, neck_gap = _border(along_head, across_head, 0.5 * _spread(across_head), last=True), 0.0
    if middle is not None:
        # Not at the very edges: a gill cover reaches farthest back near the midline.
        band = max(0.8 * _spread(across_head), 1.5)
        heads, trunks = along_head[np.abs(across_head) <= band], along_middle[np.abs(across_middle) <= band]
        if len(heads) and len(trunks):
            neck, neck_gap = _divide(heads, trunks)
    base, gap = None, 0.0
    if tail is not None:
        band = _base_band(along_tail, across_tail, low, high)
        base = _border(along_tail, across_tail, band, last=False)
        if middle is not None:
            trunk_end = _border(along_middle, across_middle, band, last=True)
            gap = abs(base - trunk_end)
            if not along_head.mean() < along_middle.mean() < along_tail.mean() or gap > _MOST_GAP * (base - front_end):
                return None
            base = 0.5 * (base + trunk_end)
        if not _like_a_body(nodes, front_end, neck, base, None if middle is None else everything):
            return None
    elif middle is not None and along_middle.mean() <= along_head.mean():
        return None
    end = float(along.max())
    return BodyFrame(nodes, front_end, neck, base, end, neck_gap, gap, low, high)


def measure_body(
    parts: Mapping[str, Mask],
    cell: tuple[float, float] = (1.0, 1.0),
    *,
    front: str = "head",
    trunk: str = "trunk",
    rear: str = "caudal_fin",
    fins: tuple[str, ...] = ("dorsal_fin", "anal_fin", "pelvic_fin", "adipose_fin"),
    eye: str = "eye",
    cover: str = "operculum",
    heats: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Length]:
    """Measures a body along and across its midline.

    Args:
        parts: Part -> bool [H, W]; a part that was not found is missing or empty.
        cell: ``(y, x)`` size of what the parts were told by, in pixels (a patch; 1 for outlines drawn to the pixel).
        front: Name of the part at the front end.
        trunk: Name of what lies behind it.
        rear: Name of the part at the rear end.
        fins: Parts that stand out of the outline: their heights are measured.
        eye: Name of the eye.
        cover: Name of what the front part ends with.
        heats: Part -> float [H, W], the scores that the parts were told by, where they were: how far apart several ways to read the end of
            the front part off them lie is then part of the uncertainty of ``head_length``; see
            :func:`concept_cam.core.borders.border_readings`.

    Returns:
        ``standard_length`` (front end to where the rear part begins), ``head_length``, ``head_depth``, ``body_depth``, ``eye_diameter``,
        ``caudal_fin_length`` and ``<fin>_height``, each only where it can be measured.
    """
    found: dict[str, Length] = {}
    given = {name: _areas(mask, _SPECK) for name, mask in parts.items() if mask.sum() >= _LEAST_PIXELS}
    if front not in given:
        return found
    frame = body_frame(given[front], given.get(trunk), given.get(rear))
    if frame is None:
        return found

    def add(name: str, value: float, line: Points, more: float = 0.0) -> None:
        way = line[-1] - line[0]
        way = way / max(float(np.linalg.norm(way)), 1e-9)
        patch = math.hypot(cell[1] * way[0], cell[0] * way[1])
        if value > 0:
            # Either end is known to a patch.
            found[name] = Length(float(value), math.hypot(patch, patch, more) if value >= 2 * patch else None, line)

    def across(name: str, low: Points, high: Points, start: float, stop: float) -> None:
        """The greatest depth between two places along the body."""
        rows = np.arange(max(int(start), 0), min(int(stop) + 1, len(low)))
        depth = high[rows] - low[rows]
        if np.isfinite(depth).any():
            row = int(rows[int(np.nanargmax(depth))])
            add(name, float(np.nanmax(depth)), frame.at(np.array([row, row], dtype=float), np.array([low[row], high[row]])))

    if frame.base is not None:
        add("standard_length", frame.base - frame.front, frame.line(frame.front, frame.base), 0.5 * frame.base_gap)
        add("caudal_fin_length", frame.end - frame.base, frame.line(frame.base, frame.end), 0.5 * frame.base_gap)
    if frame.base is not None or trunk in given:
        necks = (frame.neck, *(border_readings(frame, heats, front, trunk, cover) if heats else ()))
        apart = math.hypot(0.5 * frame.neck_gap, max(necks) - min(necks))
        add("head_length", frame.neck - frame.front, frame.line(frame.front, frame.neck), apart)
    across("head_depth", frame.low, frame.high, frame.front, frame.neck)
    if trunk in given:
        stop = frame.end if frame.base is None else frame.base
        across("body_depth", frame.low, frame.high, frame.front + 0.5 * (frame.neck - frame.front), stop)
    if eye in given:
        points = _pixels(given[eye])
        along, aside = frame.coordinates(points)
        middle = float(along.mean())
        if frame.front - cell[1] <= middle <= frame.neck + cell[1]:
            # The diameter of a disc as large as the eye.
            radius = math.sqrt(len(points) / math.pi)
            line = frame.at(np.array([middle - radius, middle + radius]), np.full(2, float(aside.mean())))
            add("eye_diameter", 2 * radius, line)
    for fin in fins:
        if fin in given:
            along, aside = frame.coordinates(_pixels(given[fin]))
            row = np.clip(np.rint(along).astype(int), 0, len(frame.low) - 1)
            side = 1.0 if np.median(aside) > 0 else -1.0
            edge = np.where(side > 0, frame.high[row], -frame.low[row])
            over = np.where(np.isfinite(edge), side * aside - edge, -np.inf)
            top = int(over.argmax())
            if np.isfinite(over[top]) and over[top] > 0:
                ends = np.array([side * edge[top], aside[top]])
                add(f"{fin}_height", float(over[top]) + 0.5, frame.at(np.full(2, along[top]), ends))
    return found


# ---------------------------------------------------------------------------------------------------------------- pieces


def _pixels(mask: Mask) -> Points:
    """Centres of a mask's pixels, float64 [M, 2] of ``(x, y)``."""
    y, x = np.nonzero(mask)
    return np.stack([x + 0.5, y + 0.5], axis=1).astype(np.float64)


def _areas(mask: Mask, least: float) -> Mask:
    """The connected areas of a mask (8-connected) that are at least such a share of the largest one: no specks."""
    from scipy.ndimage import label

    labels, count = label(mask, np.ones((3, 3), dtype=bool))
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= least * sizes.max())[labels])


def _without_spikes(mask: Mask) -> Mask:
    """The mask without what is thin: barbels and whiskers that were taken for the front end of a head."""
    from scipy.ndimage import distance_transform_edt

    radius = _SPIKE * math.sqrt(float(mask.sum()))
    if radius < 1.0:
        return mask
    # An opening by a disc: what a disc inside the mask can reach.
    deep = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > radius
    return mask & (distance_transform_edt(~deep) <= radius) if deep.any() else mask


def _along_and_across(nodes: Points, points: Points) -> tuple[Points, Points]:
    """Coordinates of points [M, 2] by the nearer of the segments beside the nearest of `nodes` [N, 2]; straight on beyond the ends."""
    from scipy.spatial import cKDTree

    tangents = np.diff(nodes, axis=0)
    lengths = np.linalg.norm(tangents, axis=1)
    units_x, units_y = (tangents / lengths[:, None]).T.copy()
    nodes_x, nodes_y = nodes.T.copy()
    x, y = points.T.copy()
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    lowest, highest = np.zeros(len(lengths)), lengths.copy()
    lowest[0], highest[-1] = -np.inf, np.inf
    nearest = cKDTree(nodes).query(points)[1]
    found = []
    # Axis by axis: columns of numbers side by side in memory are dealt with several times as fast.
    for segment in (np.maximum(nearest - 1, 0), np.minimum(nearest, len(lengths) - 1)):
        off_x, off_y, unit_x, unit_y = x - nodes_x[segment], y - nodes_y[segment], units_x[segment], units_y[segment]
        t = off_x * unit_x + off_y * unit_y
        n = off_y * unit_x - off_x * unit_y
        beyond = np.maximum(np.maximum(lowest[segment] - t, t - highest[segment]), 0.0)
        found.append((beyond * beyond + n * n, starts[segment] + t, n))
    first = found[0][0] <= found[1][0]
    return np.where(first, found[0][1], found[1][1]), np.where(first, found[0][2], found[1][2])


def _midline(body: Points, tail: Points | None, axis: Points) -> Points:
    """The midline through the middles of the cross-sections, evenly spaced nodes [N, 2] from the front to the rear.

    It begins as the straight line along `axis` and is moved to the middles of the sections across it, smoothed by a cubic, until it rests.
    """
    body = body[:: len(body) // _SAMPLE + 1]
    tail = None if tail is None else tail[:: len(tail) // _SAMPLE + 1]
    everything = body if tail is None else np.concatenate([body, tail])
    unit = axis / np.linalg.norm(axis)
    centre = everything.mean(axis=0)
    reach = (everything - centre) @ unit
    nodes = centre + np.linspace(reach.min(), reach.max(), _NODES)[:, None] * unit
    weight = np.ones(len(everything))
    # The lobes of a tail fin are rarely spread evenly: it tells where the midline goes to, not much more.
    weight[len(body) :] = 0.25
    for turn in range(4):
        along, across = _along_and_across(nodes, everything)
        first, last = float(along.min()), float(along.max())
        scale = max(last - first, 1e-9)
        places, centres, weights = _sections(along, across, weight, np.clip(((along - first) / scale * 32).astype(int), 0, 31))
        ends = np.linspace(first, last, _NODES)
        degree = min(1 if turn == 0 else 3, len(places) - 1)
        at = np.clip(ends, places.min(), places.max())
        shift = _smoothed(places, centres, weights, degree, at) if degree > 0 else np.full(_NODES, centres[0])
        tangents = np.gradient(nodes, axis=0)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        on_line = _on_line(nodes, ends)
        normal = np.stack([-tangents[:, 1], tangents[:, 0]], axis=1)
        nodes = _straight_ends(on_line + np.clip(shift, -scale, scale)[:, None] * normal)
        if turn > 1 and float(np.abs(shift).max()) < 0.25:
            break
    return cast("Points", nodes)


def _sections(along: Points, across: Points, weight: Points, bins: npt.NDArray[np.int64]) -> tuple[Points, Points, Points]:
    """Of every section that has pixels: how far along it lies, its middle across, and how much it counts; float64 [K] each."""
    order = np.argsort(bins.astype(np.uint8), kind="stable")  # small numbers are put in order by counting
    bins, along, across = bins[order], along[order], across[order]
    starts = np.flatnonzero(np.append(True, bins[1:] != bins[:-1]))
    count = np.diff(np.append(starts, len(bins)))
    middles = 0.5 * (np.minimum.reduceat(across, starts) + np.maximum.reduceat(across, starts))
    # The very ends are cut obliquely.
    oblique = np.where(np.isin(bins[starts], (0, 31)), 0.3, 1.0)
    # Summed section by section: `reduceat` adds in another order, and the last digit decides where a pixel halfway between two belongs.
    sums = np.array([np.add.reduce(along[low:high]) for low, high in pairwise([*starts.tolist(), len(bins)])])
    return sums / count, middles, np.sqrt(np.add.reduceat(weight[order], starts)) * oblique


def _smoothed(places: Points, values: Points, weights: Points, degree: int, at: Points) -> Points:
    """A polynomial through weighted values by least squares, read at other places.

    Step by step what ``np.polynomial.Polynomial.fit`` does, to the last bit and without its checks, which cost three times as much.
    """
    low, high = places.min(), places.max()
    offset, slope = (-high - low) / (high - low), 2.0 / (high - low)  # to -1..1
    left = np.polynomial.polynomial.polyvander(offset + slope * places, degree).T * weights
    lengths = np.sqrt(np.square(left).sum(axis=1))
    factors = np.linalg.lstsq(left.T / lengths, values * weights, rcond=len(places) * np.finfo(np.float64).eps)[0] / lengths
    return np.asarray(np.polynomial.polynomial.polyval(offset + slope * at, factors))


def _on_line(nodes: Points, along: Points) -> Points:
    """Points of the polyline at places along it, straight on beyond its ends."""
    steps = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    first = np.clip(np.searchsorted(starts, along, side="right") - 1, 0, len(steps) - 1)
    unit = (nodes[first + 1] - nodes[first]) / steps[first][:, None]
    return np.asarray(nodes[first] + (along - starts[first])[:, None] * unit)


def _straight_ends(nodes: Points) -> Points:
    """The same polyline with evenly spaced nodes, and with straight ends: of the last few sections, the middles tell little."""
    inner = nodes[_END:-_END]
    reach = [float(np.linalg.norm(nodes[a] - nodes[b])) for a, b in ((0, _END), (-1, -1 - _END))]
    # By the tangent over some nodes, not over one.
    first, last = inner[0] - inner[_END], inner[-1] - inner[-1 - _END]
    before = inner[0] + reach[0] * first / np.linalg.norm(first)
    after = inner[-1] + reach[1] * last / np.linalg.norm(last)
    whole = np.concatenate([before[None], inner, after[None]])
    steps = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(whole, axis=0), axis=1))])
    return _on_line(whole, np.linspace(0.0, steps[-1], len(nodes)))


def _outline(along: Points, across: Points, length: float) -> tuple[Points, Points]:
    """Lowest and highest offset of the body, given by its pixels' coordinates, at every pixel along its midline: float64 [S] each; NaN
    where there is no body.
    """
    from scipy.ndimage import grey_closing

    count = max(math.ceil(length) + 1, 1)
    row = np.rint(along).astype(int)
    inside = (row >= 0) & (row < count)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, row[inside], across[inside])
    np.maximum.at(high, row[inside], across[inside])
    known = np.flatnonzero(np.isfinite(low))
    if not len(known):
        return np.full(count, np.nan), np.full(count, np.nan)
    rows = np.arange(known[0], known[-1] + 1)
    # Fins that lie over the body and rows that no pixel's centre falls on are dents in the outline: close them.
    width = max(5, int(_DENT * len(rows)))
    # From the centres of the outermost pixels to their edges.
    high[rows] = grey_closing(_median(np.interp(rows, known, high[known] + 0.5)), width, mode="nearest")
    low[rows] = -grey_closing(_median(np.interp(rows, known, 0.5 - low[known])), width, mode="nearest")
    outside = np.ones(count, dtype=bool)
    outside[rows] = False
    low[outside], high[outside] = np.nan, np.nan
    return low, high


def _spread(across: Points) -> float:
    return float(np.quantile(np.abs(across - np.median(across)), 0.9))


def _base_band(along: Points, across: Points, low: Points, high: Points) -> float:
    """Half the depth of the body where the rear part begins, pixels: within it, the two meet."""
    start = int(np.clip(np.quantile(along, 0.05), 0, len(low) - 1))
    depth = (high - low)[max(start - 12, 0) : start + 4]
    half = 0.5 * float(np.nanmedian(depth)) if np.isfinite(depth).any() else 0.5 * _spread(across)
    return max(0.8 * half, 1.5)


def _border(along: Points, across: Points, band: float, *, last: bool) -> float:
    """Where a part begins or ends along the midline: the middle of the outermost pixels of the rows beside it."""
    near = np.abs(across) <= max(band, 1.0)
    if near.sum() < 3:
        near = np.abs(across) <= np.quantile(np.abs(across), 0.3)
    rows = np.rint(across[near]).astype(int)
    along = along[near] if last else -along[near]
    ends = np.full(np.ptp(rows) + 1, -np.inf)
    np.maximum.at(ends, rows - rows.min(), along)
    edge = float(np.median(ends[np.isfinite(ends)])) + 0.5
    return edge if last else -edge


def _divide(before: Points, behind: Points) -> tuple[float, float]:
    """Where one part ends and the next begins along the midline, and the gap between them: the cut with the fewest pixels on the wrong
    side.
    """
    places = np.concatenate([before, behind])
    wrong = np.concatenate([-np.ones(len(before)), np.ones(len(behind))])
    order = np.argsort(places, kind="stable")
    # A cut after the k-th pixel leaves those of the first part beyond it, and those of the second before it, on the wrong side.
    cost = len(before) + np.concatenate([[0.0], np.cumsum(wrong[order])])
    places = places[order]
    cuts = np.flatnonzero(cost == cost.min())
    first, last = int(cuts[0]), int(cuts[-1])
    low = places[max(first - 1, 0)] + 0.5
    high = places[min(last, len(places) - 1)] - 0.5
    return float(0.5 * (low + high)), float(max(high - low, 0.0))


def _like_a_body(nodes: Points, front: float, neck: float, base: float, everything: Points | None) -> bool:
    """Whether the front part is a plausible share of the length, and the midline lies on the parts; not asked where no trunk is known."""
    length, head = base - front, neck - front
    if head <= 0 or not _LEAST_STRETCH * head <= length <= _MOST_STRETCH * head:
        return False
    if everything is None:
        return True
    low = np.floor(everything.min(axis=0)).astype(int)
    grid = np.zeros(np.ceil(np.ptp(everything, axis=0)).astype(int) + 3, dtype=bool)
    place = np.floor(everything).astype(int) - low
    grid[place[:, 0], place[:, 1]] = True
    at = np.floor(_on_line(nodes, np.linspace(front + 0.5, base - 0.5, 60))).astype(int) - low
    inside = (at >= 0).all(axis=1) & (at < grid.shape).all(axis=1)
    at = np.clip(at, 0, np.array(grid.shape) - 1)
    return float((grid[at[:, 0], at[:, 1]] & inside).mean()) >= _WITHIN


def _median(values: Points) -> Points:
    """Running median of five, so that a stray pixel is no depth."""
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="edge"), 5), axis=1)
