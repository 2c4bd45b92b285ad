"""Masks as runs of pixels, and everything that is measured on them: components, shapes, outlines, run-length texts.

All regions of many pictures are dealt with in one pass of numpy; nothing here ever paints a mask. A *run* is a stretch
``[first, last)`` of one row.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from concept_cam.core.errors import ConfigurationError, reason_of

__all__ = [
    "Canvas",
    "Outlines",
    "Runs",
    "column_runs",
    "components",
    "decode_rle",
    "encode_rle",
    "encode_runs",
    "joined",
    "outlines",
    "runs_of",
    "shapes",
]


@dataclass(frozen=True)
class Runs:
    """Masks as runs; int64 [N] each, ascending by owner, row and first pixel. Runs of one row do not touch.

    Attributes:
        owner: Which mask a run belongs to, 0 ... ``count`` - 1; every mask has at least one.
        row: Its row.
        first: Its first pixel.
        last: One past its last pixel.
        count: Number of masks.
    """

    owner: np.ndarray
    row: np.ndarray
    first: np.ndarray
    last: np.ndarray
    count: int

    def take(self, which: np.ndarray, owner: np.ndarray, count: int) -> Runs:
        """Returns some of the runs under new owners, put in order.

        Args:
            which: int [M], the runs.
            owner: int [M], the new owner of each.
            count: Number of new owners.
        """
        order = np.lexsort((self.first[which], self.row[which], owner))
        which, owner = which[order], owner[order]
        return Runs(owner, self.row[which], self.first[which], self.last[which], count)

    @property
    def starts(self) -> np.ndarray:
        """int64 [count]: the first run of each mask."""
        return np.searchsorted(self.owner, np.arange(self.count))

    @cached_property
    def borders(self) -> _Edges:
        """Where the masks differ between the rows on either side of a lattice line."""
        return _horizontal(self)


def joined(parts: Sequence[Runs]) -> Runs:
    """Returns the masks of several sets as one set, in their order."""
    before = np.cumsum([0, *(part.count for part in parts)])
    owner = np.concatenate([part.owner + shift for part, shift in zip(parts, before)])
    row, first, last = (np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "first", "last"))
    return Runs(owner, row, first, last, int(before[-1]))


def runs_of(mask: np.ndarray, top: int = 0, left: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns row, first and one past the last pixel of every run of a mask bool [H, W], in reading order."""
    framed = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=bool)
    framed[:, 1:-1] = mask
    # A row has as many beginnings as ends, so that changes come in pairs.
    changes = np.flatnonzero(framed[:, 1:] != framed[:, :-1])
    rows, columns = np.divmod(changes, framed.shape[1] - 1)
    return rows[0::2] + top, columns[0::2] + left, columns[1::2] + left


def components(runs: Runs) -> np.ndarray:
    """Returns the connected component of each run, int [N]: 8-connected, within one owner, numbered in reading order."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not runs.owner.size:
        return np.zeros(0, dtype=np.int64)
    # One number per pixel of all masks side by side; a free line between the masks and a free pixel at the end of each line.
    line = runs.owner * (int(runs.row.max()) + 2) + runs.row
    wide = int(runs.last.max()) + 2
    first, last = line * wide + runs.first, line * wide + runs.last
    low = np.searchsorted(last, first + wide, "left")  # the first run of the next line that reaches this one, corners included
    high = np.searchsorted(first, last + wide, "right")
    count = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(first)), count)
    below = np.arange(int(count.sum())) + np.repeat(low - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    graph = coo_matrix((np.ones(len(above), dtype=bool), (above, below)), shape=(len(first), len(first)))
    return np.asarray(connected_components(graph, directed=False)[1])


# ---------------------------------------------------------------------------------------------------------------- shapes


def shapes(runs: Runs) -> dict[str, np.ndarray]:
    """Measures masks in pixels and degrees.

    Returns:
        float64 [count] each: ``area`` (pixels), ``length`` and ``width`` (extent of the pixel squares along and across the major axis),
        ``orientation`` (degrees of the major axis against the x axis, counter-clockwise on the upright picture, in (-90, 90]),
        ``centroid_x``, ``centroid_y``, ``extent`` (share of the box), ``eccentricity`` (of the ellipse of equal moments, 0..1) and
        ``solidity`` (share of the convex hull, 0..1).
    """
    # Moments by hand, from the runs: scikit-image's regionprops gives the same numbers (tested) at many times the cost. Whole numbers about
    # the corner of the box, so that sums are exact.
    owner, starts = runs.owner, runs.starts
    top = runs.row[starts]
    left, right = np.minimum.reduceat(runs.first, starts), np.maximum.reduceat(runs.last, starts)
    bottom = np.maximum.reduceat(runs.row, starts) + 1
    row, first, last = runs.row - top[owner], runs.first - left[owner], runs.last - left[owner]
    count = last - first
    twice = count * (first + last - 1)  # two times the sum of the columns
    squares = ((last - 1) * last * (2 * last - 1) - (first - 1) * first * (2 * first - 1)) // 6

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts).astype(np.float64)

    area = total(count)
    centre_y, centre_x = total(count * row) / area, total(twice) / (2 * area)
    var_y = total(count * row * row) / area - centre_y**2
    var_x = total(squares) / area - centre_x**2
    cov = total(row * twice) / (2 * area) - centre_y * centre_x
    spread = np.hypot(var_x - var_y, 2 * cov)
    major, minor = (var_x + var_y + spread) / 2, np.maximum(0.0, (var_x + var_y - spread) / 2)
    # Angle between the row axis and the major axis, counter-clockwise; a round region has none: take x.
    rounded = spread <= 1e-9 * major
    angle = np.where(rounded, np.pi / 2, 0.5 * np.arctan2(2 * cov, var_y - var_x))
    along_y, along_x = np.cos(angle), np.sin(angle)
    half = (np.abs(along_y) + np.abs(along_x)) / 2  # half the projection of one pixel square on either axis
    y, x_first, x_last = row - centre_y[owner], first - centre_x[owner], last - 1 - centre_x[owner]  # a run's ends reach farthest
    reach = []
    for down, side in ((along_y, along_x), (-along_x, along_y)):
        one, other = y * down[owner] + x_first * side[owner], y * down[owner] + x_last * side[owner]
        highest, lowest = np.maximum.reduceat(np.maximum(one, other), starts), np.minimum.reduceat(np.minimum(one, other), starts)
        reach.append(highest - lowest + 2 * half)
    degrees = np.degrees(np.arctan2(-along_y, along_x))
    degrees = np.where(degrees > 90, degrees - 180, np.where(degrees <= -90, degrees + 180, degrees))
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.where(rounded, 0.0, np.sqrt(1 - minor / major))
    return {
        "area": area,
        "length": reach[0],
        "width": reach[1],
        "orientation": degrees,
        "centroid_x": centre_x + left + 0.5,
        "centroid_y": centre_y + top + 0.5,
        "extent": area / ((bottom - top) * (right - left)),
        "eccentricity": eccentricity,
        "solidity": area / _hull_areas(owner, row, first, last, runs.count),
    }


def _hull_areas(owner: np.ndarray, row: np.ndarray, first: np.ndarray, last: np.ndarray, count: int) -> np.ndarray:
    """Returns the areas of the convex hulls of the pixel squares, float64 [count], between their left and their right sides."""
    begins = np.flatnonzero(np.append(True, (row[1:] != row[:-1]) | (owner[1:] != owner[:-1])))
    owner, row = owner[begins], row[begins]
    first, last = first[begins], last[np.append(begins[1:], last.size) - 1]
    # Corners lie on the lattice lines above and below each row; two rows share the line between them.
    owners, lines = np.concatenate([owner, owner]), np.concatenate([row, row + 1])
    order = np.lexsort((lines, owners))
    owners, lines = owners[order], lines[order]
    begins = np.flatnonzero(np.append(True, (lines[1:] != lines[:-1]) | (owners[1:] != owners[:-1])))
    areas = np.zeros(count)
    for values in (first, -last):
        side = np.minimum.reduceat(np.concatenate([values, values])[order], begins)
        areas -= _below(owners[begins], lines[begins], side, count)
    return areas


def _below(owner: np.ndarray, position: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """Returns the areas under the lower convex hulls of points with ascending positions, float64 [count]."""
    while True:
        # What lies on or above the line between its neighbours is no corner of the hull, and neighbours need not be corners themselves: all
        # such points may go at once.
        y0, y1, y2 = position[:-2], position[1:-1], position[2:]
        x0, x1, x2 = value[:-2], value[1:-1], value[2:]
        inner = owner[:-2] == owner[2:]
        kept = np.append(np.append(True, ~inner | ((x1 - x0) * (y2 - y0) < (x2 - x0) * (y1 - y0))), True)
        if kept.all():
            break
        owner, position, value = owner[kept], position[kept], value[kept]
    same = owner[1:] == owner[:-1]
    areas = np.where(same, (position[1:] - position[:-1]) * (value[1:] + value[:-1]), 0) / 2
    return np.bincount(owner[1:], areas, count)


# -------------------------------------------------------------------------------------------------------------- outlines


@dataclass(frozen=True)
class _Edges:
    """Straight runs of horizontal pixel edges, in the order of their lattice lines: int64 [N] each.

    Attributes:
        owner: Whose.
        line: Lattice line; line ``i`` lies above row ``i``.
        first: Corner at the left.
        last: Corner at the right.
        opens: bool; the mask begins below the edge (else it ends there).
    """

    owner: np.ndarray
    line: np.ndarray
    first: np.ndarray
    last: np.ndarray
    opens: np.ndarray


def _horizontal(runs: Runs) -> _Edges:
    """Finds where a mask differs between the rows on either side of a lattice line, without painting it."""
    tall, wide = int(runs.row.max()) + 2, int(runs.last.max()) + 1
    line = runs.owner * tall + runs.row
    # Each run toggles what is below its upper line and above its lower line.
    upper, lower = line * wide, (line + 1) * wide
    keys = np.concatenate([upper + runs.first, upper + runs.last, lower + runs.first, lower + runs.last])
    one = np.ones(line.size, dtype=np.int8)
    none = np.zeros(line.size, dtype=np.int8)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    below = np.cumsum(np.concatenate([one, -one, none, none])[order], dtype=np.int8)
    above = np.cumsum(np.concatenate([none, none, one, -one])[order], dtype=np.int8)
    final = np.flatnonzero(np.append(keys[1:] != keys[:-1], True))
    keys, step = keys[final], (below - above)[final]
    which = np.flatnonzero(step)
    lines, first = np.divmod(keys[which], wide)
    owner, line = np.divmod(lines, tall)
    return _Edges(owner, line, first, keys[which + 1] - lines * wide, step[which] > 0)


@dataclass(frozen=True)
class Outlines:
    """Closed outlines of masks' pixels; those of one mask stand together, longest first.

    Attributes:
        points: int64 [P, 2] of ``(x, y)``, one outline after the other; the last point of each is its first.
        bounds: int64 [K + 1], where each outline begins, and the end of the last.
        owner: int64 [K], whose each is; ascending.
        count: Number of masks.
    """

    points: np.ndarray
    bounds: np.ndarray
    owner: np.ndarray
    count: int

    @property
    def owners(self) -> np.ndarray:
        """int64 [P]: whose each point is."""
        return np.repeat(self.owner, np.diff(self.bounds))

    def split(self, points: np.ndarray) -> list[list[np.ndarray]]:
        """Cuts points [P, ...], one for each of :attr:`points`, into the outlines of each mask."""
        pieces = [points[low:high] for low, high in itertools.pairwise(self.bounds.tolist())]
        ends = np.searchsorted(self.owner, np.arange(self.count + 1)).tolist()
        return [pieces[low:high] for low, high in itertools.pairwise(ends)]


def outlines(runs: Runs) -> Outlines:
    """Returns the outlines of masks; outer ones clockwise, holes counter-clockwise.

    The corners of the pixels' own edges, so that an outline encloses exactly the pixels; areas that touch at a corner are one, as in the
    labelling.
    """
    if not runs.owner.size:
        return Outlines(np.zeros((0, 2), dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), runs.count)
    # Walking with the pixel on the right: above a pixel to the right, below it to the left, right of it down, left of it up.
    edges = runs.borders
    tall, wide = int(runs.row.max()) + 2, int(runs.last.max()) + 1
    base = (edges.owner * tall + edges.line) * wide
    start = base + np.where(edges.opens, edges.first, edges.last)
    end = base + np.where(edges.opens, edges.last, edges.first)
    line = runs.owner * tall + runs.row
    down_start, down_end, down_forward = [], [], []
    for column, right in ((runs.last, True), (runs.first, False)):
        keys = np.sort(column * (runs.count * tall + 1) + line)
        begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1] + 1))
        column, top = np.divmod(keys[begins], runs.count * tall + 1)
        bottom = keys[np.append(begins[1:], keys.size) - 1] % (runs.count * tall + 1) + 1
        top, bottom = top * wide + column, bottom * wide + column
        down_start.append(top if right else bottom)
        down_end.append(bottom if right else top)
        down_forward.append(np.full(top.size, right))
    corner, arrive, forward = np.concatenate(down_start), np.concatenate(down_end), np.concatenate(down_forward)
    # Where two areas touch at a corner there are two ways on; turning left joins them.
    onward = _follow(end, ~edges.opens, corner, forward)
    leader, place = _cycles(_follow(arrive[onward], forward[onward], start, edges.opens))
    firsts, length = np.unique(leader, return_counts=True)
    order = np.lexsort((-firsts, -length, edges.owner[firsts]))
    firsts, length = firsts[order], length[order]
    # Each link gives the corners at its ends; the first corner comes once more.
    bounds = np.concatenate([[0], np.cumsum(2 * length + 1)])
    begin = np.zeros(start.size, dtype=np.int64)
    begin[firsts] = bounds[:-1]
    at = begin[leader] + 2 * place
    corners = np.empty(int(bounds[-1]), dtype=np.int64)
    corners[at], corners[at + 1], corners[bounds[1:] - 1] = start, end, start[firsts]
    rows, columns = np.divmod(corners, wide)
    return Outlines(np.stack([columns, rows % tall], axis=1), bounds, edges.owner[firsts], runs.count)


def _cycles(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Says of each link of closed chains the last link of its chain, which leads it, and how many steps it comes behind that one.

    Args:
        following: int64 [N], the link that comes after each.
    """
    # Each link looks twice as far ahead in every turn (pointer jumping).
    leader, jump = np.arange(following.size), following
    while True:
        farther = np.maximum(leader, leader[jump])
        if np.array_equal(farther, leader):
            break
        leader, jump = farther, jump[jump]
    leads = leader == np.arange(following.size)
    jump = np.where(leads, leader, following)
    left = (~leads).astype(np.int64)  # steps to the leader, as far as counted
    while not np.array_equal(jump, leader):
        left, jump = left + left[jump], jump[jump]
    length = np.bincount(leader, minlength=following.size)[leader]
    return leader, np.where(leads, 0, length - left)


def _follow(at: np.ndarray, preferred: np.ndarray, corner: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Returns the link that goes on from each corner ``at``: in the preferred direction if there is one, else in the other."""
    keys = 2 * corner + forward
    order = np.argsort(keys)
    keys = keys[order]
    wanted = 2 * at + preferred
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    place = np.where(keys[place] == wanted, place, np.minimum(np.searchsorted(keys, wanted ^ 1), keys.size - 1))
    return cast("np.ndarray", order[place])


# ----------------------------------------------------------------------------------------------------------- run lengths


@dataclass(frozen=True)
class Canvas:
    """Where masks lie in the pictures that they are of: each pixel of a mask is a rectangle of its picture.

    Attributes:
        rows: int64, where the edges of the masks' rows lie: of all pictures, one after the other.
        columns: int64, where those of their columns lie.
        row: int64 [count], where the edges of each mask's picture begin in ``rows``.
        column: int64 [count], where they begin in ``columns``.
        left: int64 [count], what is added to columns.
        top: int64 [count], what is added to rows.
        size: int64 [count, 2], ``(H, W)`` of each mask's picture.
    """

    rows: np.ndarray
    columns: np.ndarray
    row: np.ndarray
    column: np.ndarray
    left: np.ndarray
    top: np.ndarray
    size: np.ndarray


def column_runs(runs: Runs, canvas: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the runs down the columns of the pictures that masks lie in.

    Returns:
        Owner, first pixel and one past the last pixel of every run, counted down the columns; ascending.
    """
    edges = runs.borders
    reach = edges.last - edges.first
    shift = np.concatenate([[0], np.cumsum(reach)[:-1]])
    column = np.repeat(edges.first - shift, reach) + np.arange(int(reach.sum()))
    wide, tall = int(runs.last.max()) + 1, int(runs.row.max()) + 2
    keys = np.sort((np.repeat(edges.owner, reach) * wide + column) * tall + np.repeat(edges.line, reach))
    # Down a column the mask begins and ends in turn.
    upper, first = np.divmod(keys[0::2], tall)
    last = keys[1::2] - upper * tall
    begins = np.flatnonzero(np.append(True, upper[1:] != upper[:-1]))
    counts = np.diff(np.append(begins, upper.size))
    owner, column = np.divmod(upper[begins], wide)
    column += canvas.column[owner]
    times = canvas.columns[column + 1] - canvas.columns[column]  # picture columns of each mask column
    number = np.repeat(counts, times)
    whose = np.repeat(owner, times)
    before = np.concatenate([[0], np.cumsum(times)[:-1]])
    across = np.repeat(canvas.columns[column] - before, times) + np.arange(int(times.sum())) + canvas.left[whose]
    shift = np.concatenate([[0], np.cumsum(number)[:-1]]) if number.size else number
    index = np.repeat(np.repeat(begins, times) - shift, number) + np.arange(int(number.sum()))
    base = np.repeat(across * canvas.size[whose, 0] + canvas.top[whose], number)
    rows = canvas.row[upper // wide]
    starts, ends = base + canvas.rows[rows + first][index], base + canvas.rows[rows + last][index]
    whose = np.repeat(whose, number)
    kept = ends > starts
    return (whose, starts, ends) if kept.all() else (whose[kept], starts[kept], ends[kept])


def encode_runs(owner: np.ndarray, starts: np.ndarray, ends: np.ndarray, count: int, pixels: np.ndarray | int) -> list[str]:
    """Encodes runs down the columns of pictures as COCO's compressed run-length texts, one per owner.

    Args:
        owner: int [N], ascending.
        starts: int [N], first pixel of each run; ascending within an owner.
        ends: int [N], one past its last pixel; a run may start where the one before it ends.
        count: Number of owners.
        pixels: Pixels of the picture, or int [count], of each owner's.
    """
    if starts.size:  # A run that reaches the bottom continues at the top of the next column.
        apart = np.append(True, (starts[1:] != ends[:-1]) | (owner[1:] != owner[:-1]))
        owner, starts, ends = owner[apart], starts[apart], ends[np.append(apart[1:], True)]
    number = np.bincount(owner, minlength=count)
    begins = np.concatenate([[0], np.cumsum(2 * number + 2)])  # each owner's bounds: 0, first, last, first ... last, H * W
    bounds = np.zeros(int(begins[-1]), dtype=np.int64)
    place = begins[owner] + 1 + 2 * (np.arange(owner.size) - np.repeat(np.cumsum(number) - number, number))
    bounds[place], bounds[place + 1] = starts, ends
    bounds[begins[1:] - 1] = pixels
    lengths = np.append(np.diff(bounds), 0)
    kept = np.ones(lengths.size, dtype=bool)
    kept[begins[1:] - 1] = False  # from one owner's end to the next one's beginning
    kept[begins[1:] - 2] &= (lengths[begins[1:] - 2] != 0) | (number == 0)
    owners = np.repeat(np.arange(count), 2 * number + 2)
    return _compress(lengths[kept], np.bincount(owners[kept], minlength=count))


def _compress(lengths: np.ndarray, number: np.ndarray) -> list[str]:
    # Five bits per character from '0' on, sixth bit = "more follows", deltas to the run before the last (COCO maskApi.c).
    local = np.arange(lengths.size) - np.repeat(np.cumsum(number) - number, number)
    values = lengths.copy()
    values[2:] -= np.where(local[2:] > 2, lengths[:-2], 0)
    text = np.zeros((values.size, 14), dtype=np.uint8)
    more = np.ones(values.size, dtype=bool)
    for position in range(text.shape[1]):
        bits = values & 0x1F
        values = values >> 5
        following = more & np.where(bits & 0x10, values != -1, values != 0)
        text[:, position] = np.where(more, np.where(following, bits | 0x20, bits) + 48, 0)
        more = following
        if not more.any():
            break
    used = text > 0
    whole = text[used].tobytes().decode("ascii")
    ends = np.cumsum(np.append(0, used.sum(axis=1)))[np.cumsum(np.append(0, number))].tolist()
    return [whole[low:high] for low, high in itertools.pairwise(ends)]


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encodes a mask as COCO's compressed run-length encoding (column-major runs, zeros first).

    Args:
        mask: bool or 0/1 [H, W].

    Returns:
        ``{"size": [H, W], "counts": text}``, equal to what pycocotools writes.
    """
    mask = np.asarray(mask, dtype=bool)
    height, width = int(mask.shape[0]), int(mask.shape[1])
    column, first, last = runs_of(mask.T)
    owner = np.zeros(column.size, dtype=np.int64)
    return {
        "size": [height, width],
        "counts": encode_runs(owner, column * height + first, column * height + last, 1, height * width)[0],
    }


def _decompress(text: str) -> list[int]:
    counts: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more:
            code = ord(text[position]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            position += 1
            shift += 5
            if shift > 70:
                raise ConfigurationError("a run length has more than 64 bits: the mask is damaged.")
            if not more and code & 0x10:
                value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts


MOST_MASK_PIXELS = 1 << 33
"""Run lengths are a few bytes for any number of pixels: more than these are an error, not a picture."""


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decodes a COCO run-length encoding (compressed text or a list of counts) to bool [H, W].

    Raises:
        ConfigurationError: It is no such encoding, or its counts do not add up to the size.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts: str | bytes | Sequence[int] = rle["counts"]
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        if not 0 <= height * width <= MOST_MASK_PIXELS or min(height, width) < 0:
            raise ConfigurationError(f"a mask of {height} x {width} pixels is none: expected rows and columns of a picture.")
        runs = _decompress(counts) if isinstance(counts, str) else [operator.index(run) for run in counts]
    except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"expected a size of rows and columns, and counts of pixels: {reason_of(error)}") from error
    if any(run < 0 for run in runs):
        raise ConfigurationError("run lengths must not be negative.")
    if sum(runs) != height * width:
        raise ConfigurationError(f"run lengths sum to {sum(runs)}, expected {height} x {width} = {height * width}.")
    values = np.zeros(len(runs), dtype=bool)
    values[1::2] = True
    return np.repeat(values, runs).reshape((height, width), order="F")
