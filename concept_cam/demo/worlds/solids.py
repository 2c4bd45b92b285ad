"""Curved surfaces and ribbons in space, painted nearest last: who is seen at every pixel, and where on its surface.

Everything is cut into four-cornered facets. Facets that face away are left out, the rest is painted in the order of depth into a map of
facet numbers (Newell, Newell and Sancha 1972, the painter's algorithm). For the samples of the picture the place within the facet gives
surface coordinates and normals, so that colours are smooth however coarse the facets are, and masks are the very samples that were painted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Array = npt.NDArray[np.float32]

FINE = 2
"""Samples per pixel, each way."""

_FARTHEST = 1 << 14
"""Coordinates are kept within this many samples, which is what the drawing library is sure to hold."""


@dataclass(frozen=True)
class Facets:
    """Four-cornered facets.

    Attributes:
        corners: float32 [Q, 4, 3], in space.
        normals: float32 [Q, 4, 3], outwards; zero for ribbons, whose normals come from the view.
        places: float32 [Q, 4, 2], surface coordinates (u, v).
        piece: int64 [Q], number of the piece they belong to.
        closed: bool [Q], of a closed surface: not seen from behind.
        width: float32 [Q, 2], half widths of a ribbon at its two ends; 0 for surfaces.
        nearer: float32 [Q], how much nearer they count when depths are compared.
    """

    corners: Array
    normals: Array
    places: Array
    piece: npt.NDArray[np.int64]
    closed: npt.NDArray[np.bool_]
    width: Array
    nearer: Array

    def __len__(self) -> int:
        return len(self.piece)

    def moved(self, matrix: Array, shift: Array) -> Facets:
        """All corners turned by `matrix` [3, 3] and then moved by `shift` [3]; lengths of the axes of `matrix` are the scale."""
        scale = np.float32(np.linalg.norm(matrix[:, 0]))
        turned = (self.normals @ matrix.T) / max(float(scale), 1e-9)
        return Facets(
            (self.corners @ matrix.T + shift).astype(np.float32),
            turned.astype(np.float32),
            self.places,
            self.piece,
            self.closed,
            self.width * scale,
            self.nearer * scale,
        )

    def renumbered(self, piece: int) -> Facets:
        """The same, all of one piece."""
        return Facets(self.corners, self.normals, self.places, np.full_like(self.piece, piece), self.closed, self.width, self.nearer)


def joined(many: Sequence[Facets]) -> Facets:
    """All the facets, in order."""
    return Facets(
        *(
            np.concatenate([getattr(each, name) for each in many])
            for name in ("corners", "normals", "places", "piece", "closed", "width", "nearer")
        )
    )


def surface(points: npt.NDArray[np.floating], piece: int, *, u: Array, v: Array, closed: bool = True, nearer: float = 0.0) -> Facets:
    """A grid of points as a surface.

    Args:
        points: [M, N, 3]; the outside is where the cross product of the steps along N and along M points to.
        u: [M] or [M, N], first surface coordinate.
        v: [N] or [M, N], second surface coordinate.
        closed: seen from outside only.
    """
    grid = np.asarray(points, dtype=np.float32)
    along = np.gradient(grid, axis=0)
    across = np.gradient(grid, axis=1)
    normal = np.cross(across, along)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    # Where a row of points runs together, the neighbour's normals serve.
    weak = length[..., 0] < 1e-9
    normal = normal / np.maximum(length, 1e-9)
    for i in np.flatnonzero(weak.any(axis=1)):
        other = i + 1 if i == 0 else i - 1
        normal[i] = np.where(weak[i][:, None], normal[min(other, len(grid) - 1)], normal[i])
    uv = np.empty((*grid.shape[:2], 2), dtype=np.float32)
    uv[..., 0] = u if u.ndim == 2 else u[:, None]
    uv[..., 1] = v if v.ndim == 2 else v[None, :]

    def four(values: Array) -> Array:
        k = values.shape[-1]
        return np.stack([values[:-1, :-1], values[1:, :-1], values[1:, 1:], values[:-1, 1:]], axis=2).reshape(-1, 4, k)

    count = (grid.shape[0] - 1) * (grid.shape[1] - 1)
    return Facets(
        four(grid),
        four(normal.astype(np.float32)),
        four(uv),
        np.full(count, piece, dtype=np.int64),
        np.full(count, closed),
        np.zeros((count, 2), dtype=np.float32),
        np.full(count, nearer, dtype=np.float32),
    )


def ribbon(points: npt.NDArray[np.floating], widths: npt.NDArray[np.floating], piece: int, *, nearer: float = 0.0) -> Facets:
    """A round stalk along `points` [M, 3] with half widths [M]: u runs from 0 to 1 along it, v from -1 to 1 across."""
    p = np.asarray(points, dtype=np.float32)
    w = np.asarray(widths, dtype=np.float32)
    step = np.linalg.norm(np.diff(p, axis=0), axis=1)
    u = np.concatenate([[0.0], np.cumsum(step)]) / max(float(step.sum()), 1e-9)
    count = len(p) - 1
    # Corners 0 and 3 are the beginning, 1 and 2 the end; neighbours are kept in `normals` until the view is known.
    before = p[np.maximum(np.arange(count) - 1, 0)]
    after = p[np.minimum(np.arange(count) + 2, count)]
    corners = np.stack([p[:-1], p[1:], p[1:], p[:-1]], axis=1)
    around = np.stack([before, after, after, before], axis=1)
    places = np.zeros((count, 4, 2), dtype=np.float32)
    places[:, :, 0] = np.stack([u[:-1], u[1:], u[1:], u[:-1]], axis=1)
    places[:, :, 1] = np.array([-1.0, -1.0, 1.0, 1.0])
    return Facets(
        corners,
        (around - corners).astype(np.float32),
        places,
        np.full(count, piece, dtype=np.int64),
        np.zeros(count, dtype=bool),
        np.stack([w[:-1], w[1:]], axis=1),
        np.full(count, nearer, dtype=np.float32),
    )


def bristles(
    roots: npt.NDArray[np.floating], tips: npt.NDArray[np.floating], width: tuple[float, float], piece: int, *, nearer: float
) -> Facets:
    """Many short straight hairs from `roots` [N, 3] to `tips` [N, 3], of the given half widths at root and tip."""
    count = len(roots)
    corners = np.stack([roots, tips, tips, roots], axis=1).astype(np.float32)
    places = np.zeros((count, 4, 2), dtype=np.float32)
    places[:, :, 0] = np.array([0.0, 1.0, 1.0, 0.0])
    places[:, :, 1] = np.array([-1.0, -1.0, 1.0, 1.0])
    return Facets(
        corners,
        np.zeros_like(corners),
        places,
        np.full(count, piece, dtype=np.int64),
        np.zeros(count, dtype=bool),
        np.repeat(np.array([width], dtype=np.float32), count, axis=0),
        np.full(count, nearer, dtype=np.float32),
    )


@dataclass(frozen=True)
class Lens:
    """From space as the camera sees it (x right, y down, z towards the camera) to pixels.

    Attributes:
        scale: pixels per unit at depth 0.
        x: pixel that shows the origin.
        y: pixel that shows the origin.
        near: relative growth of things per unit that they are nearer.
    """

    scale: float
    x: float
    y: float
    near: float = 0.0

    def __call__(self, points: Array) -> Array:
        """Pixels of points [..., 3], float32 [..., 2]."""
        growth = self.scale / np.maximum(1.0 - self.near * points[..., 2:3], 0.2)
        return np.asarray(points[..., :2] * growth + np.array([self.x, self.y], dtype=np.float32), dtype=np.float32)


@dataclass(frozen=True)
class Painted:
    """What is seen of facets in one picture.

    Attributes:
        owner: int32 [H * FINE, W * FINE], number of the facet seen at every sample, -1 where there is none.
        outlines: float32 [Q, 4, 2], the facets in pixels.
        facets: the facets.
        normals: float32 [Q, 4, 3], of length 1, as the camera sees them.
        shown: bool [Q], facets that face the camera.
    """

    owner: npt.NDArray[np.int32]
    outlines: Array
    facets: Facets
    normals: Array
    shown: npt.NDArray[np.bool_]

    def pieces(self) -> npt.NDArray[np.int32]:
        """Number of the piece seen at every sample, -1 where there is none, int32 [H * FINE, W * FINE]."""
        table = np.append(self.facets.piece, -1).astype(np.int32)
        return table[self.owner]

    def areas(self, count: int, within: tuple[int, int] | None = None) -> npt.NDArray[np.float64]:
        """Area that each of `count` pieces would have if nothing hid it and the picture had no edge, in pixels.

        Args:
            count: how many.
            within: (H, W) of the picture where only facets whose middle lies in it are to count.

        Facets of a piece that overlap (a bent stalk) are counted twice.
        """
        area = np.abs(_signed_area(self.outlines)) * self.shown
        if within is not None:
            x, y = self.outlines.mean(axis=1).T
            area = area * ((x >= 0) & (x <= within[1]) & (y >= 0) & (y <= within[0]))
        return np.asarray(np.bincount(self.facets.piece, weights=area, minlength=count)[:count], dtype=np.float64)


def _signed_area(quads: Array) -> Array:
    x, y = quads[..., 0], quads[..., 1]
    following = np.roll(np.arange(4), -1)
    return np.asarray(0.5 * (x * y[:, following] - x[:, following] * y).sum(axis=1), dtype=np.float32)


def paint(facets: Facets, lens: Lens, size: tuple[int, int]) -> Painted:
    """Paint facets, given as the camera sees them, into a picture of `size` (H, W)."""
    height, width = size
    corners, normals = facets.corners, facets.normals.copy()
    outlines = lens(corners)
    round_ = facets.width.any(axis=1)
    if round_.any():
        beside = lens(corners[round_] + facets.normals[round_])
        centre = outlines[round_]
        # The direction at an end is the mean of the directions of the parts that meet there.
        there = centre[:, 1] - centre[:, 0]
        start = _unit(there) + _unit(centre[:, 0] - beside[:, 0])
        end = _unit(there) + _unit(beside[:, 1] - centre[:, 1])
        start, end = _unit(start), _unit(end)
        side_start = np.stack([-start[:, 1], start[:, 0]], axis=1)
        side_end = np.stack([-end[:, 1], end[:, 0]], axis=1)
        growth = lens.scale / np.maximum(1.0 - lens.near * corners[round_][:, :2, 2], 0.2)
        half = facets.width[round_] * growth
        sides = np.stack([-side_start, -side_end, side_end, side_start], axis=1)
        outlines[round_] = centre + sides * np.stack([half[:, 0], half[:, 1], half[:, 1], half[:, 0]], axis=1)[:, :, None]
        normals[round_] = np.concatenate([sides * 0.93, np.full((*sides.shape[:2], 1), 0.37, dtype=np.float32)], axis=2)
    # The picture's y points down: what runs clockwise as one sees it has an area above zero.
    area = _signed_area(outlines)
    shown = ~facets.closed | (area > 0)
    depth = corners[:, :, 2].mean(axis=1) + facets.nearer
    low, high = outlines.min(axis=1), outlines.max(axis=1)
    inside = (high[:, 0] >= 0) & (low[:, 0] <= width) & (high[:, 1] >= 0) & (low[:, 1] <= height)
    order = np.flatnonzero(shown & inside)
    order = order[np.argsort(depth[order], kind="stable")]
    image = Image.new("I", (width * FINE, height * FINE), -1)
    draw = ImageDraw.Draw(image)
    flat = np.clip(np.rint(outlines[order] * FINE - 0.5), -_FARTHEST, _FARTHEST).astype(np.int64).reshape(-1, 8).tolist()
    for number, points in zip(order.tolist(), flat, strict=True):
        draw.polygon(points, fill=number)
    return Painted(np.asarray(image, dtype=np.int32), outlines, facets, normals, shown)


def _unit(vectors: npt.NDArray[np.floating]) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6), dtype=np.float32)


@dataclass(frozen=True)
class Samples:
    """Seen points of surfaces.

    Attributes:
        at: int64 [S], number of the pixel, row by row.
        weight: float32 [S], share of the pixel that the sample stands for.
        piece: int64 [S].
        u: float32 [S], surface coordinate.
        v: float32 [S], surface coordinate.
        normal: float32 [S, 3], of length 1, towards the camera.
        x: float32 [S], pixel.
        y: float32 [S], pixel.
    """

    at: npt.NDArray[np.int64]
    weight: Array
    piece: npt.NDArray[np.int64]
    u: Array
    v: Array
    normal: Array
    x: Array
    y: Array

    def __getitem__(self, rows: npt.NDArray[np.generic]) -> Samples:
        return Samples(*(getattr(self, name)[rows] for name in ("at", "weight", "piece", "u", "v", "normal", "x", "y")))


def samples(painted: Painted) -> Samples:
    """The seen points of a picture: one for a pixel that shows one piece alone, one for every fine sample where pieces meet."""
    owner = painted.owner
    rows, columns = owner.shape[0] // FINE, owner.shape[1] // FINE
    pieces = painted.pieces().reshape(rows, FINE, columns, FINE).transpose(0, 2, 1, 3).reshape(-1, FINE * FINE)
    four = owner.reshape(rows, FINE, columns, FINE).transpose(0, 2, 1, 3).reshape(-1, FINE * FINE)
    alike = (pieces == pieces[:, :1]).all(axis=1)
    whole = np.flatnonzero(alike & (four[:, 0] >= 0))
    mixed = np.flatnonzero(~alike)
    many = four[mixed]
    row, sub = np.nonzero(many >= 0)
    quad = np.concatenate([four[whole, 0], many[row, sub]])
    at = np.concatenate([whole, mixed[row]])
    y, x = np.divmod(at, columns)
    # Single samples stand in the middle of their pixel.
    dx = np.concatenate([np.full(len(whole), 0.5), (sub % FINE + 0.5) / FINE])
    dy = np.concatenate([np.full(len(whole), 0.5), (sub // FINE + 0.5) / FINE])
    weight = np.concatenate([np.ones(len(whole)), np.full(len(row), 1.0 / (FINE * FINE))]).astype(np.float32)
    px, py = (x + dx).astype(np.float32), (y + dy).astype(np.float32)
    s, t = _within(painted.outlines[quad], px, py)
    share = np.stack([(1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t], axis=1)
    values = np.concatenate([painted.facets.places, painted.normals], axis=2)[quad]
    mixed_values = np.einsum("sc,sck->sk", share, values)
    normal = _unit(mixed_values[:, 2:])
    normal = np.where(normal[:, 2:] < 0, -normal, normal)
    return Samples(
        at.astype(np.int64), weight, painted.facets.piece[quad], mixed_values[:, 0], mixed_values[:, 1], normal.astype(np.float32), px, py
    )


def _within(quads: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Place (s, t) of points within their four-cornered outlines, by three steps of Newton's method from the middle."""
    a = quads[:, 0]
    e, f = quads[:, 1] - a, quads[:, 3] - a
    g = quads[:, 2] - quads[:, 1] - f
    px, py = x - a[:, 0], y - a[:, 1]
    s = np.full(len(x), 0.5, dtype=np.float32)
    t = s.copy()
    for _ in range(3):
        st = s * t
        rx = px - (e[:, 0] * s + f[:, 0] * t + g[:, 0] * st)
        ry = py - (e[:, 1] * s + f[:, 1] * t + g[:, 1] * st)
        ax, ay = e[:, 0] + g[:, 0] * t, e[:, 1] + g[:, 1] * t
        bx, by = f[:, 0] + g[:, 0] * s, f[:, 1] + g[:, 1] * s
        det = ax * by - ay * bx
        det = np.where(np.abs(det) < 1e-6, 1e-6, det)
        s = np.clip(s + (rx * by - ry * bx) / det, 0.0, 1.0)
        t = np.clip(t + (ry * ax - rx * ay) / det, 0.0, 1.0)
    return s.astype(np.float32), t.astype(np.float32)


def blend(seen: Samples, colours: Array, ground: Array) -> Array:
    """Put sample colours [S, 3] on a ground [H, W, 3]."""
    height, width, _ = ground.shape
    flat = ground.reshape(-1, 3).copy()
    total = np.bincount(seen.at, weights=seen.weight, minlength=height * width).astype(np.float32)
    covered = np.flatnonzero(total)
    flat[covered] *= (1.0 - total[covered])[:, None]
    for c in range(3):
        flat[:, c] += np.bincount(seen.at, weights=seen.weight * colours[:, c], minlength=height * width).astype(np.float32)
    return flat.reshape(height, width, 3)


def quarters(fine: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    """The samples of every pixel, apart: FINE * FINE arrays [H, W] from one [H * FINE, W * FINE]."""
    return [fine[i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)]


def half_of(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Which bits are set in at least half of a pixel's samples: uint32 [H * FINE, W * FINE] to [H, W]."""
    a, b, c, d = (np.asarray(each, dtype=np.uint32) for each in quarters(bits))
    return np.asarray((a & b) | (c & d) | ((a | b) & (c | d)), dtype=np.uint32)


_SHADOW_STEP = 4
"""Pixels of the picture per pixel of the map that shadows are drawn in."""


def cast(
    facets: Facets,
    lens: Lens,
    size: tuple[int, int],
    view: Callable[[Array], Array],
    light: Array,
    floor: float,
    softness: float,
) -> Array:
    """Shadow on a plane, float32 [H, W], 0 to 1.

    Args:
        facets: before they are turned to the camera.
        view: turns points [..., 3] as the camera sees them.
        light: [3], towards the light, its third number above 0.
        floor: third coordinate of the plane.
        softness: blur in pixels.
    """
    height, width = size
    small = (-(-width // _SHADOW_STEP), -(-height // _SHADOW_STEP))
    points = facets.corners
    fall = (points[..., 2:3] - floor) / max(float(light[2]), 0.1)
    flat = points - fall * np.asarray(light, dtype=np.float32)
    at = lens(view(flat)) / _SHADOW_STEP
    round_ = facets.width.any(axis=1)
    if round_.any():
        way = _unit(at[round_, 1] - at[round_, 0])
        side = np.stack([-way[:, 1], way[:, 0]], axis=1)[:, None] * np.array([-1, -1, 1, 1])[None, :, None]
        half = np.maximum(facets.width[round_][:, [0, 1, 1, 0]] * lens.scale / _SHADOW_STEP, 0.5)
        at[round_] = at[round_] + side * half[:, :, None]
    image = Image.new("L", small, 0)
    draw = ImageDraw.Draw(image)
    for quad in np.clip(np.rint(at - 0.5), -_FARTHEST, _FARTHEST).astype(np.int64).reshape(-1, 8).tolist():
        draw.polygon(quad, fill=255)
    image = image.filter(ImageFilter.GaussianBlur(max(softness / _SHADOW_STEP, 0.4))).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32) / np.float32(255.0)


def moved_outline(solid: npt.NDArray[np.bool_], by: Array, softness: float) -> Array:
    """Shadow of what lies close to the ground: its outline [H * FINE, W * FINE], moved `by` pixels (x, y) and blurred, float32 [H, W]."""
    step = FINE * _SHADOW_STEP
    height, width = solid.shape[0] // FINE, solid.shape[1] // FINE
    coarse = Image.fromarray(np.ascontiguousarray(solid[step // 2 :: step, step // 2 :: step]).astype(np.uint8) * 255)
    shift = (by / _SHADOW_STEP).astype(float)
    coarse = coarse.transform(coarse.size, Image.Transform.AFFINE, (1, 0, -float(shift[0]), 0, 1, -float(shift[1])))
    blurred = coarse.filter(ImageFilter.GaussianBlur(max(softness / _SHADOW_STEP, 0.4)))
    return np.asarray(blurred.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32) / np.float32(255.0)
