"""A picture painted layer by layer: polygons with smooth edges, and which layer every pixel shows in the end.

Rooms that draw one picture after the other paint on this. Points are (x, y) in pixels, x to the right and y down, (0, 0) the corner of the
picture; colours are sRGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from concept_cam.demo.worlds.textures import TEXTURE_KINDS, TEXTURE_LEVELS, atlas

Array = npt.NDArray[np.floating[Any]]
"""Real numbers."""

_FINE = 4
"""Polygons are filled this many times finer than the picture."""


@dataclass(frozen=True)
class Patch:
    """Where a shape lies in a picture.

    Attributes:
        window: rows and columns that hold all of it that is in the frame.
        alpha: float32 [h, w] in [0, 1], coverage within the window.
        area: pixels that it would cover in a picture without end.
    """

    window: tuple[slice, slice]
    alpha: Array
    area: float

    @property
    def empty(self) -> bool:
        """Nothing of it is in the frame."""
        return self.alpha.size == 0

    def pixels(self) -> tuple[Array, Array]:
        """Places (x, y) of the window's pixels, float32 [h, w] each."""
        rows, columns = self.window
        y, x = np.mgrid[rows.start : rows.stop, columns.start : columns.stop].astype(np.float32)
        return x + np.float32(0.5), y + np.float32(0.5)

    def times(self, factor: float | Array) -> Patch:
        """The patch with its coverage multiplied, as by a thin wing or a soft edge; `factor` broadcasts to [h, w]."""
        return replace(self, alpha=np.asarray(self.alpha * factor, dtype=np.float32))


def polygon(points: npt.ArrayLike, size: tuple[int, int]) -> Patch:
    """A filled polygon [N, 2] in a picture of `size` (H, W)."""
    outline = np.asarray(points, dtype=np.float64)
    height, width = size
    x, y = outline[:, 0], outline[:, 1]
    twice = np.dot(x[1:], y[:-1]) - np.dot(y[1:], x[:-1]) + x[0] * y[-1] - y[0] * x[-1]
    area = 0.5 * abs(float(twice))
    left, right = int(np.clip(np.floor(x.min()), 0, width)), int(np.clip(np.ceil(x.max()), 0, width))
    top, bottom = int(np.clip(np.floor(y.min()), 0, height)), int(np.clip(np.ceil(y.max()), 0, height))
    window = (slice(top, bottom), slice(left, right))
    if right <= left or bottom <= top:
        return Patch((slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32), area)
    fine = Image.new("L", ((right - left) * _FINE, (bottom - top) * _FINE))
    moved = (outline - (left, top)) * _FINE - 0.5
    ImageDraw.Draw(fine).polygon([(float(a), float(b)) for a, b in np.rint(moved)], fill=255)
    return Patch(window, np.asarray(fine.reduce(_FINE), dtype=np.float32) / np.float32(255), area)


def ribbon(line: npt.ArrayLike, widths: npt.ArrayLike) -> Array:
    """The outline of a line [N, 2] of the given full widths [N] or one width, float64 [2 N, 2]: legs, antennae, stems."""
    points = np.asarray(line, dtype=np.float64)
    half = 0.5 * np.broadcast_to(np.asarray(widths, dtype=np.float64), (len(points),))[:, None]
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * half
    return np.concatenate([points + across, (points - across)[::-1]])


def curve(points: npt.ArrayLike, count: int, *, closed: bool = False) -> Array:
    """A smooth line through `points` [N, 2] (Catmull-Rom), float64 [count, 2]."""
    knots = np.asarray(points, dtype=np.float64)
    n = len(knots)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
        place = np.arange(count) / count * n
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
        place = np.linspace(0, n - 1, count)
    i = np.minimum(place.astype(int), n - (1 if closed else 2))
    t = (place - i)[:, None]
    p0, p1, p2, p3 = padded[i], padded[i + 1], padded[i + 2], padded[i + 3]
    return np.asarray(0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3))


@dataclass(frozen=True)
class Layer:
    """What was painted in one go.

    Attributes:
        masks: names of the masks that it belongs to; none for what is no part of the specimen.
        side: 1 for the left one of a paired part, 2 for the right one, 0 for neither.
        area: pixels that it would cover in a picture without end and without anything before it.
        inside: pixels of that which lie in the frame.
        adds: the masks that grow by it.
    """

    masks: tuple[str, ...]
    side: int
    area: float
    inside: float
    adds: tuple[str, ...]


@dataclass
class Canvas:
    """A picture in the making.

    Attributes:
        rgb: float32 [H, W, 3].
        owner: int16 [H, W], the layer that the pixel shows, -1 for the ground.
        layers: what was painted, in order.
    """

    rgb: Array
    owner: npt.NDArray[np.int16] = field(init=False)
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owner = np.full(self.rgb.shape[:2], -1, dtype=np.int16)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rgb.shape[0], self.rgb.shape[1]

    def lay(
        self,
        patch: Patch,
        colour: npt.ArrayLike,
        *masks: str,
        side: int = 0,
        least: float = 0.5,
        opacity: npt.ArrayLike = 1.0,
        adds: Sequence[str] | None = None,
    ) -> None:
        """Paints a patch over what is there.

        Args:
            patch: where.
            colour: [3], or [h, w, 3] over the patch's window.
            masks: names of the masks that it belongs to.
            side: as in `Layer`.
            least: coverage from which a pixel counts as showing this layer; less for lines thinner than a pixel.
            opacity: how much it hides of what is behind, a number or [h, w]; what is transparent is seen nevertheless.
            adds: which of the masks grow by it, all by default: a mark on a wing adds nothing to the area of the wing.
        """
        self.layers.append(Layer(masks, side, patch.area, float(patch.alpha.sum()), masks if adds is None else tuple(adds)))
        if patch.empty:
            return
        alpha = (patch.alpha * np.asarray(opacity, dtype=np.float32))[..., None]
        view = self.rgb[patch.window]
        view += (np.asarray(colour, dtype=np.float32) - view) * alpha
        self.owner[patch.window][patch.alpha > least] = len(self.layers) - 1

    def darken(self, patch: Patch, amount: float | Array) -> None:
        """Takes light from what is there: the shadow of what will be laid next. No layer of its own."""
        if not patch.empty:
            self.rgb[patch.window] *= np.float32(1) - (patch.alpha * np.float32(1) * amount)[..., None]

    def masks(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Where what is in each of the masks is seen, bool [P, H, W]."""
        return np.stack([row[self.owner] for row in self._table(names)])

    def seen(self, names: Sequence[str]) -> Array:
        """Pixels of each of the masks that are seen, float64 [P]."""
        counted = np.bincount(self.owner.ravel() + 1, minlength=len(self.layers) + 1)
        return np.asarray(self._table(names)[:, :-1] @ counted[1:], dtype=np.float64)

    def _table(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which layers belong to each of the masks, bool [P, layers + 1]; the last is the ground, whose number is -1."""
        table = np.zeros((len(names), len(self.layers) + 1), dtype=bool)
        for number, layer in enumerate(self.layers):
            for name in layer.masks:
                table[names.index(name), number] = True
        return table

    def side(self) -> npt.NDArray[np.uint8]:
        """1 where a left part is seen, 2 where a right one is, uint8 [H, W]."""
        return np.array([layer.side for layer in self.layers] + [0], dtype=np.uint8)[self.owner]

    def areas(self, names: Sequence[str]) -> Array:
        """Pixels that each of the masks would cover if nothing were cut off or hidden, float32 [P]."""
        return self._sums(names, [layer.area for layer in self.layers])

    def inside(self, names: Sequence[str]) -> Array:
        """Pixels that each of the masks would cover in this picture if nothing were hidden, float32 [P]."""
        return self._sums(names, [layer.inside for layer in self.layers])

    def _sums(self, names: Sequence[str], amounts: Sequence[float]) -> Array:
        found = np.zeros(len(names), dtype=np.float32)
        for layer, amount in zip(self.layers, amounts, strict=True):
            for name in layer.adds:
                found[names.index(name)] += amount
        return found


@lru_cache(maxsize=1)
def _texels() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    textures = atlas("cpu")
    return textures.texels.numpy(), textures.offsets.numpy(), textures.sides.numpy()


def texture(kind: str, x: Array, y: Array, texels_per_unit: float, pixels_per_unit: float) -> Array:
    """Four channels of noise at the places (x, y), float32 [h, w, 4], each of about zero mean and unit variance.

    Args:
        kind: name in `TEXTURE_KINDS`.
        x: float32 [h, w], in any unit.
        y: float32 [h, w].
        texels_per_unit: how fine the texture is; it repeats after 512 texels (`skin` after 1024).
        pixels_per_unit: how large the unit is in the picture; the level of detail follows it.
    """
    texels, offsets, sides = _texels()
    row = TEXTURE_KINDS.index(kind)
    level = int(np.clip(np.rint(np.log2(max(texels_per_unit / max(pixels_per_unit, 1e-6), 1e-6)) + 0.3), 0, TEXTURE_LEVELS - 1))
    side, rate = int(sides[row, level]), texels_per_unit / 2.0**level
    column, line = ((np.floor(np.asarray(each) * rate)).astype(np.int64) & (side - 1) for each in (x, y))
    found = texels[line * side + column + offsets[row, level]]
    return np.asarray((found.astype(np.float32) - np.float32(128)) / np.float32(36))
