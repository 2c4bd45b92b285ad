"""The frame of a body: its midline from the front to the rear, told from regions of parts, and lengths along and across it. Plain numpy.

A body has a *front* part (the head of a fish), a *rear* part (its tail fin) and a *trunk* between them. The midline runs from the front end
through the middles of the body's cross-sections; it bends where the body does. Every pixel has two coordinates: how far along the midline
it lies, and how far to its side. Lengths are read off these, never off boxes, so that they hold for a body at any angle.

Nothing is measured where the parts do not lie as those of a body do: the front before the trunk, the rear behind it, and a midline that
stays within them. A wrong length is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from concept_cam.core.borders import border_readings
from concept_cam.core.midlines import BodyPixels, along_and_across, midlines, on_line

__all__ = ["FISH", "BodyFrame", "BodyParts", "Length", "body_frame", "body_frames", "exclusive_masks", "measure_bodies", "measure_body"]

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

_SPIKE = 0.06
"""Half width, in shares of the square root of the front part's area, under which something that stands out of it is a spike."""

_DENT = 0.1
"""Share of the body's length up to which a dent in its outline is closed."""

_SPECK = 0.15
"""Share of a part's largest connected area under which another area of it is a speck: a fin may cut a trunk in two."""

_LEAST_PIXELS = 12
"""Pixels under which a part has no shape."""

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
            other ways to read a border off the maps find it elsewhere, to how far they lie apart. An eye may be as small as a patch,
            however wide its map. ``None`` where the length is under two patches, and nothing can be said.
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
        return along_and_across(self.nodes, points)

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
    heats: Mapping[str, np.ndarray],
    nested: Mapping[str, str] | None = None,
    share: float = PART_SHARE,
    least: float = 1.0,
    spared: bool = False,
) -> dict[str, Mask]:
    """Shares the pixels out among parts: each goes to the part whose map is highest there, in shares of the map's own peak.

    A map's region alone is cut off at half of its peak; where two parts meet, the border between them is where their shares are equal, and
    the outline of a body lies where even its own share is small.

    Args:
        heats: Part -> float32 [H, W], scores; NaN where nothing may be read.
        nested: Part -> the part that it is a part of, its host: pixels that it wins belong to both.
        share: Least share of its peak.
        least: Areas of a part that are at least such a share of its largest one are kept; 1 for the largest alone.
        spared: Whether hosts take no pixels from what is nested in them: a host's map is high where it holds the part, often as high as
            there (a head's at the eye). The part is then cut out halfway between its peak and what its map shows of the host around it.

    Returns:
        Part -> bool [H, W]: its connected areas, empty where its peak is not positive.
    """
    order = list(heats)
    if not order:
        return {}
    stacked = np.stack(list(heats.values()))
    known = np.where(np.isnan(stacked), -np.inf, stacked).astype(stacked.dtype, copy=False)
    peaks = np.where(np.isfinite(known), known, -np.inf).max(axis=(1, 2), keepdims=True).astype(stacked.dtype, copy=False)
    there = peaks > 0
    stacked = np.where(there, known / np.where(there, peaks, 1), -np.inf).astype(stacked.dtype, copy=False)
    winner, best = stacked.argmax(axis=0), stacked.max(axis=0)
    inside = {name: host for name, host in (nested or {}).items() if host in heats}
    hosts = np.array([order.index(inside.get(name, name)) for name in order])
    enough = best >= share
    owner = hosts[winner]
    # A nested part is cut out of its host, where nothing else holds its outline: at half of its peak.
    masks = {name: (winner == k) & (best >= 0.5) if hosts[k] != k else (owner == k) & enough for k, name in enumerate(order)}
    for k, host in enumerate(hosts):
        if spared and host != k:
            mask = stacked[k] >= _nested_limit(stacked[k][masks[order[host]]])
            others = stacked[:, mask]
            others[host] = -np.inf
            mask[mask] = others.argmax(axis=0) == k
            masks[order[k]] = mask
    return _areas(masks, least)


def _nested_limit(within: np.ndarray) -> float:
    """The share of its peak down to which a nested part reaches, given its shares on its host, float [M]."""
    around = within[within < 0.5]
    return 0.5 * (1.0 + max(float(np.median(around)), 0.0)) if around.size else 0.5


def body_frame(front: Mask, trunk: Mask | None, rear: Mask | None) -> BodyFrame | None:
    """Finds the frame of a body.

    Args:
        front: bool [H, W], the part at the front end.
        trunk: bool [H, W], what lies behind it, without fins; or ``None``.
        rear: bool [H, W], the part at the rear end; or ``None``. One of the two is needed.

    Returns:
        The frame, or ``None`` where the parts do not lie as those of a body do.
    """
    return body_frames([(front, trunk, rear)])[0]


def body_frames(bodies: Sequence[tuple[Mask, Mask | None, Mask | None]]) -> list[BodyFrame | None]:
    """Finds the frames of bodies, each given by its front, trunk and rear, in one pass; see :func:`body_frame`."""
    found: list[BodyFrame | None] = [None] * len(bodies)
    parts = {number: pieces for number, body in enumerate(bodies) if (pieces := _pieces(*body)) is not None}
    lines = midlines([pieces.pixels for pieces in parts.values()])
    for (number, pieces), nodes in zip(parts.items(), lines):
        found[number] = _frame_along(nodes, pieces)
    return found


@dataclass(frozen=True, eq=False)
class _Pieces:
    """The pixels ``(x, y)`` of a body's parts, float64 [M, 2] each; one of the last two is there."""

    head: Points
    middle: Points | None
    tail: Points | None

    @property
    def pixels(self) -> BodyPixels:
        goal = self.tail if self.tail is not None else self.middle
        assert goal is not None
        return BodyPixels(self.body, self.tail, goal.mean(axis=0) - self.head.mean(axis=0))

    @property
    def body(self) -> Points:
        """Those of the head and the trunk."""
        return self.head if self.middle is None else np.concatenate([self.head, self.middle])


def _pieces(front: Mask, trunk: Mask | None, rear: Mask | None) -> _Pieces | None:
    """The parts that have a shape, without specks; ``None`` where they are too few, or lie on each other."""
    given = {"front": _without_spikes(front), "trunk": trunk, "rear": rear}
    masks = _areas({name: mask for name, mask in given.items() if mask is not None}, _SPECK)
    points = {name: found for name, mask in masks.items() if len(found := _pixels(mask)) >= _LEAST_PIXELS}
    if "front" not in points or len(points) == 1:
        return None
    pieces = _Pieces(points["front"], points.get("trunk"), points.get("rear"))
    return pieces if np.linalg.norm(pieces.pixels.axis) >= 1.0 else None


def _frame_along(nodes: Points, pieces: _Pieces) -> BodyFrame | None:
    """The frame of a body whose midline is known, or ``None`` where its parts do not lie as those of a body do."""
    head, middle, tail, body = pieces.head, pieces.middle, pieces.tail, pieces.body
    everything = body if tail is None else np.concatenate([body, tail])
    along, across = along_and_across(nodes, everything)
    bounds = np.cumsum([len(head), 0 if middle is None else len(middle)])
    (along_head, along_middle, along_tail), (across_head, across_middle, across_tail) = (np.split(part, bounds) for part in (along, across))
    length = float(np.linalg.norm(nodes[1] - nodes[0])) * (len(nodes) - 1)
    low, high = _outline(along[: len(body)], across[: len(body)], length)
    front_end = float(along_head.min())
    spread = _spread(across_head)
    neck, neck_gap = _border(along_head, across_head, 0.5 * spread, last=True), 0.0
    if middle is not None:
        # Not at the very edges: a gill cover reaches farthest back near the midline.
        band = max(0.8 * spread, 1.5)
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


@dataclass(frozen=True)
class BodyParts:
    """What the parts of a body are called.

    Attributes:
        front: The part at the front end.
        trunk: What lies behind it.
        rear: The part at the rear end.
        fins: Parts that stand out of the outline: their heights are measured.
        eye: The eye.
        cover: What the front part ends with.
    """

    front: str = "head"
    trunk: str = "trunk"
    rear: str = "caudal_fin"
    fins: tuple[str, ...] = ("dorsal_fin", "anal_fin", "pelvic_fin", "adipose_fin")
    eye: str = "eye"
    cover: str = "operculum"


FISH = BodyParts()


def measure_body(
    parts: Mapping[str, Mask],
    cell: tuple[float, float] = (1.0, 1.0),
    heats: Mapping[str, np.ndarray] | None = None,
    called: BodyParts = FISH,
) -> dict[str, Length]:
    """Measures a body along and across its midline; see :func:`measure_bodies`.

    Args:
        parts: Part -> bool [H, W]; a part that was not found is missing or empty.
        cell: ``(y, x)`` size of what the parts were told by, in pixels (a patch; 1 for outlines drawn to the pixel).
        heats: Part -> float [H, W], the scores that the parts were told by, where they were: how far apart several ways to read the end of
            the front part off them lie is then part of the uncertainty of ``head_length`` (see
            :func:`concept_cam.core.borders.border_readings`), and that of ``eye_diameter`` reaches down to a patch.
        called: What the parts are called.

    Returns:
        ``standard_length`` (front end to where the rear part begins), ``head_length``, ``head_depth``, ``body_depth``, ``eye_diameter``,
        ``caudal_fin_length`` and ``<fin>_height``, each only where it can be measured.
    """
    return measure_bodies([parts], [cell], [heats or {}], called)[0]


def measure_bodies(
    bodies: Sequence[Mapping[str, Mask]],
    cells: Sequence[tuple[float, float]],
    heats: Sequence[Mapping[str, np.ndarray]] = (),
    called: BodyParts = FISH,
) -> list[dict[str, Length]]:
    """Measures bodies, given by their parts, along and across their midlines, which are found in one pass; see :func:`measure_body`."""
    given = [_areas({name: mask for name, mask in parts.items() if mask.sum() >= _LEAST_PIXELS}, _SPECK) for parts in bodies]
    there = [number for number, parts in enumerate(given) if called.front in parts]
    found: list[dict[str, Length]] = [{} for _ in bodies]
    frames = body_frames(
        [(given[number][called.front], given[number].get(called.trunk), given[number].get(called.rear)) for number in there]
    )
    for number, frame in zip(there, frames):
        if frame is not None:
            told = heats[number] if heats else {}
            necks = border_readings(frame, told, called.front, called.trunk, called.cover) if told else ()
            found[number] = _measured(frame, given[number], cells[number], necks, called, bool(told))
    return found


def _measured(
    frame: BodyFrame,
    given: Mapping[str, Mask],
    cell: tuple[float, float],
    necks: tuple[float, ...],
    called: BodyParts,
    told: bool,
) -> dict[str, Length]:
    """Measures a body in its frame; ``necks`` are other readings of where its front part ends, and ``told`` whether its parts were told by
    scores of patches, rather than drawn.
    """
    found: dict[str, Length] = {}
    # A bump no longer than a patch cannot be told from noise, and greatest depths would be those of bumps.
    flat_low, flat_high = (_without_bumps(side, 2 * round(max(cell)) + 1) for side in (frame.low, frame.high))

    def add(name: str, value: float, line: Points, more: float = 0.0) -> None:
        way = line[-1] - line[0]
        way = way / max(float(np.linalg.norm(way)), 1e-9)
        patch = math.hypot(cell[1] * way[0], cell[0] * way[1])
        if value > 0:
            # Either end is known to a patch.
            found[name] = Length(float(value), math.hypot(patch, patch, more) if value >= 2 * patch else None, line)

    def across(name: str, start: float, stop: float) -> None:
        """The greatest depth between two places along the body."""
        rows = np.arange(max(int(start), 0), min(int(stop) + 1, len(flat_low)))
        depth = flat_high[rows] - flat_low[rows]
        if np.isfinite(depth).any():
            row = int(rows[int(np.nanargmax(depth))])
            ends = np.array([flat_low[row], flat_high[row]])
            add(name, float(np.nanmax(depth)), frame.at(np.array([row, row], dtype=float), ends))

    if frame.base is not None:
        add("standard_length", frame.base - frame.front, frame.line(frame.front, frame.base), 0.5 * frame.base_gap)
        add("caudal_fin_length", frame.end - frame.base, frame.line(frame.base, frame.end), 0.5 * frame.base_gap)
    if frame.base is not None or called.trunk in given:
        apart = math.hypot(0.5 * frame.neck_gap, max(frame.neck, *necks) - min(frame.neck, *necks) if necks else 0.0)
        add("head_length", frame.neck - frame.front, frame.line(frame.front, frame.neck), apart)
    across("head_depth", frame.front, frame.neck)
    if called.trunk in given:
        stop = frame.end if frame.base is None else frame.base
        across("body_depth", frame.front + 0.5 * (frame.neck - frame.front), stop)
    points = {name: _pixels(given[name]) for name in (called.eye, *called.fins) if name in given}
    bounds = np.cumsum([len(own) for own in points.values()])[:-1]
    places = {}
    if points:
        coordinates = frame.coordinates(np.concatenate(list(points.values())))
        places = dict(zip(points, zip(*(np.split(part, bounds) for part in coordinates))))
    if called.eye in places:
        along, aside = places[called.eye]
        middle = float(along.mean())
        if frame.front - cell[1] <= middle <= frame.neck + cell[1]:
            # The diameter of a disc as large as the eye.
            radius = math.sqrt(len(along) / math.pi)
            line = frame.at(np.array([middle - radius, middle + radius]), np.full(2, float(aside.mean())))
            # Scores of patches are no finer than these, and fainter the smaller the eye: one of a patch can come out several wide.
            add("eye_diameter", 2 * radius, line, max(2 * radius - max(cell), 0.0) if told else 0.0)
    for fin in called.fins:
        if fin in places:
            along, aside = places[fin]
            row = np.clip(np.rint(along).astype(int), 0, len(frame.low) - 1)
            side = 1.0 if np.median(aside) > 0 else -1.0
            edge = np.where(side > 0, frame.high[row], -frame.low[row])
            over = np.where(np.isfinite(edge), side * aside - edge, -np.inf)
            top = int(over.argmax())
            if np.isfinite(over[top]) and over[top] > 0:
                ends = np.array([side * edge[top], aside[top]])
                add(f"{fin}_height", float(over[top]) + 0.5, frame.at(np.full(2, along[top]), ends))
    return found


def _without_bumps(side: Points, width: int) -> Points:
    """The running median over `width` pixels of one side of an outline, float64 [S]; NaN stays where it is."""
    there = np.isfinite(side)
    if not there.any():
        return side
    closed = np.interp(np.arange(len(side)), np.flatnonzero(there), side[there])
    return np.where(there, _median(closed, width), np.nan)


# ---------------------------------------------------------------------------------------------------------------- pieces


def _pixels(mask: Mask) -> Points:
    """Centres of a mask's pixels, float64 [M, 2] of ``(x, y)``."""
    y, x = np.nonzero(mask)
    return np.stack([x + 0.5, y + 0.5], axis=1).astype(np.float64)


def _areas(masks: Mapping[str, Mask], least: float) -> dict[str, Mask]:
    """The connected areas of masks of one size (8-connected) that are at least such a share of the largest one of their mask: no specks."""
    from scipy.ndimage import label

    if not masks:
        return {}
    # One below the other with a free row between them, all are labelled at once, in their order.
    sheet = np.pad(np.stack(list(masks.values())), ((0, 0), (0, 1), (0, 0)))
    labels, count = label(sheet.reshape(-1, sheet.shape[2]), np.ones((3, 3), dtype=bool))
    labels = labels.reshape(sheet.shape)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    last = np.maximum.accumulate(labels.max(axis=(1, 2)))
    number = np.diff(last, prepend=0)
    some = np.flatnonzero(number)
    kept = np.zeros(count + 1, dtype=bool)
    if some.size:
        largest = np.maximum.reduceat(sizes[1:], (last - number)[some])
        kept[1:] = sizes[1:] >= least * np.repeat(largest, number[some])
    return dict(zip(masks, kept[labels][:, :-1]))


def _without_spikes(mask: Mask) -> Mask:
    """The mask without what is thin: barbels and whiskers that were taken for the front end of a head."""
    from scipy.ndimage import distance_transform_edt

    radius = _SPIKE * math.sqrt(float(mask.sum()))
    if radius < 1.0:
        return mask
    # An opening by a disc: what a disc inside the mask can reach.
    deep = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > radius
    return mask & (distance_transform_edt(~deep) <= radius) if deep.any() else mask


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
    at = np.floor(on_line(nodes, np.linspace(front + 0.5, base - 0.5, 60))).astype(int) - low
    inside = (at >= 0).all(axis=1) & (at < grid.shape).all(axis=1)
    at = np.clip(at, 0, np.array(grid.shape) - 1)
    return float((grid[at[:, 0], at[:, 1]] & inside).mean()) >= _WITHIN


def _median(values: Points, width: int = 5) -> Points:
    """Running median, of five so that a stray pixel is no depth; `width` is odd."""
    return np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, width // 2, mode="edge"), width), axis=1)
