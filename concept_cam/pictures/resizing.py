"""Resize policies: a picture becomes the model's input, and a :class:`Geometry` that maps every frame exactly.

Each policy is a pure function; :data:`RESIZE` names them. Pixels are resized by Pillow on 8-bit values (antialiased), as the
checkpoints' own preprocessing does. torch is imported only where a tensor is made, so that the names can be listed without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from PIL import Image

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.names import choose
from concept_cam.pictures.reading import Picture

if TYPE_CHECKING:
    from torch import Tensor

    from concept_cam.pictures.preprocessing import Preprocess

__all__ = [
    "RESIZE",
    "Policy",
    "Prepared",
    "aspect",
    "closer",
    "magnified",
    "merge_windows",
    "native",
    "pad",
    "prepare",
    "shrink",
    "shrunk_size",
    "squash",
    "tile",
]

Size = tuple[int, int]

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class Prepared:
    """The model's input for one picture.

    Attributes:
        pixels: float32 [3, H, W], normalised; for ``tile`` [K, 3, H, W], one entry per window.
        geometry: Frames of the whole picture (for ``tile``: of the resized picture, not of one window).
        valid: bool [h, w] over ``geometry.grid``; False where a cell shows padding only.
        windows: For ``tile`` the ``(row, column)`` grid offset of each window; empty for the other policies.
    """

    pixels: Tensor
    geometry: Geometry
    valid: np.ndarray
    windows: tuple[tuple[int, int], ...] = ()

    @property
    def batch(self) -> Tensor:
        """Inputs float32 [K, 3, H, W]: everything that the tower has to see, K = 1 for all policies but ``tile``."""
        return self.pixels if self.windows else self.pixels[None]

    @property
    def batch_valid(self) -> np.ndarray:
        """Mask of valid cells, bool [K, h, w]: ``valid`` as each entry of ``batch`` sees it."""
        if not self.windows:
            return self.valid[None]
        rows, columns = _window_cells(self.windows, self.geometry.grid)
        return np.stack([self.valid[row : row + rows, column : column + columns] for row, column in self.windows])


class Policy(Protocol):
    """A resize policy: pixels uint8 [H, W, 3], what the checkpoint expects, and the model size ``(H, W)`` to read at."""

    def __call__(self, pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared: ...


def prepare(picture: Picture, preprocess: Preprocess, policy: str | Policy = "pad", size: int | Size | None = None) -> Prepared:
    """Makes the model's input from a picture.

    Args:
        picture: The picture.
        preprocess: What the checkpoint expects.
        policy: A name in :data:`RESIZE`, or a function like those (for example ``functools.partial(tile, max_windows=16)``).
        size: Model size ``(H, W)``, or one number for a square; a multiple of the stride. ``None``: the checkpoint's default
            reading size (``native``: its native size).

    Raises:
        ConfigurationError: Unknown policy, or a size that the model cannot read.
    """
    function = choose(policy, RESIZE, "resize policy") if isinstance(policy, str) else policy
    default = preprocess.size if function is native else preprocess.default_size
    if size is None:
        wanted = default
    else:
        wanted = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        _check_size(wanted, preprocess)
    return function(picture.pixels, preprocess, wanted)


def shrink(
    pixels: np.ndarray,
    preprocess: Preprocess,
    policy: str = "pad",
    size: int | Size | None = None,
    original: Size | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Does the resizing of a policy alone, without torch, so that it can happen where a picture is decoded.

    Preparing the result with the same policy (for ``aspect``: with ``squash`` at the result's size) gives the same values as preparing
    the whole picture. Pictures for ``native`` and ``tile``, which do more than one resize, are returned as they are.

    Args:
        pixels: uint8 [H, W, 3].
        preprocess: What the checkpoint expects.
        policy: A name in :data:`RESIZE`.
        size: As for :func:`prepare`.
        original: ``(H, W)`` of the picture, where ``pixels`` are a smaller version of it.
        box: ``(x0, y0, x1, y1)``, which part of ``pixels`` is the picture, in their own units; ``None`` for all.

    Returns:
        uint8 [H', W', 3].
    """
    target = shrunk_size(original or (pixels.shape[0], pixels.shape[1]), preprocess, policy, size)
    return pixels if target is None else _resize(pixels, target, preprocess, box=box)


def shrunk_size(original: Size, preprocess: Preprocess, policy: str, size: int | Size | None = None) -> Size | None:
    """Returns the size to which :func:`shrink` brings a picture of ``(H, W)``; ``None`` where it leaves it as it is."""
    if size is None:
        wanted = preprocess.default_size
    else:
        wanted = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    visible = _frames(preprocess, wanted)[0]
    if policy == "pad":
        return _scaled(original, min(visible[0] / original[0], visible[1] / original[1]), visible)
    if policy == "squash":
        return visible
    return _aspect_size(original, preprocess, wanted) if policy == "aspect" and preprocess.flexible else None


def _check_size(size: Size, preprocess: Preprocess) -> None:
    if size in (preprocess.size, preprocess.default_size):
        return
    if not preprocess.flexible:
        raise ConfigurationError(
            f"this model reads inputs of {preprocess.size[0]} x {preprocess.size[1]} pixels only, received {size[0]} x {size[1]}."
        )
    for side, stride in zip(size, preprocess.stride, strict=True):
        if side < stride or side % stride:
            below = max(side // stride, 1) * stride
            raise ConfigurationError(
                f"input size {size[0]} x {size[1]}: {side} is not a multiple of the model's stride {stride}. "
                f"Use {below} or {below + stride}."
            )


# ------------------------------------------------------------------------------------------------------------ policies


def pad(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    """Fits the whole picture into the model's size, centred; the rest is the mean colour, zero after normalisation.

    Nothing is cropped and the aspect is kept (to a rounded model pixel). Padded cells are not valid.
    """
    visible, full = _frames(preprocess, size)
    height, width = pixels.shape[:2]
    scale = min(visible[0] / height, visible[1] / width)
    inner = _scaled((height, width), scale, visible)
    offset = ((visible[0] - inner[0]) // 2, (visible[1] - inner[1]) // 2)
    tensor = _place(_normalised(_resize(pixels, inner, preprocess), preprocess), full, offset)
    return _prepared("pad", tensor, preprocess, pixels, visible, inner, offset)


def squash(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    """Stretches the whole picture to the model's size, whatever its aspect."""
    visible, full = _frames(preprocess, size)
    tensor = _place(_normalised(_resize(pixels, visible, preprocess), preprocess), full, (0, 0))
    return _prepared("squash", tensor, preprocess, pixels, visible, visible, (0, 0))


def aspect(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    """Resizes to a rectangle of the picture's aspect with about as many cells as ``size`` has; no padding, no crop.

    Both sides are multiples of the stride; the aspect changes by what that rounding needs (see :func:`aspect_grid`).

    Raises:
        ConfigurationError: The model reads one size only.
    """
    _check_flexible("resize policy 'aspect'", preprocess)
    target = _aspect_size((pixels.shape[0], pixels.shape[1]), preprocess, size)
    tensor = _normalised(_resize(pixels, target, preprocess), preprocess)
    return _prepared("aspect", tensor, preprocess, pixels, target, target, (0, 0))


def _check_flexible(what: str, preprocess: Preprocess) -> None:
    if not preprocess.flexible:
        raise ConfigurationError(
            f"the {what} needs a model that reads inputs of any size; this one reads {preprocess.size[0]} x "
            f"{preprocess.size[1]} only. Use 'pad', 'squash' or 'tile'."
        )


def _aspect_size(original: Size, preprocess: Preprocess, size: Size) -> Size:
    stride = preprocess.stride
    cells = (size[0] // stride[0]) * (size[1] // stride[1])
    rows, columns = aspect_grid(cells, (original[0] / stride[0]) / (original[1] / stride[1]))
    return rows * stride[0], columns * stride[1]


def aspect_grid(cells: int, ratio: float) -> Size:
    """Returns the ``(rows, columns)`` whose ratio is nearest ``ratio`` and whose product is nearest ``cells``.

    Nearest means the least sum of squared logarithms of both deviations, so that neither is bought with the other. Their product
    never exceeds ``cells`` by more than a tenth, which bounds the cost of a batch.
    """
    # The sum separates into one term per side, least at these two: only their neighbours need a look.
    ideal = math.sqrt(cells * ratio), math.sqrt(cells / ratio)
    near = [{min(max(bound(side), 1), cells) for bound in (math.floor, math.ceil)} for side in ideal]
    candidates = [(rows, columns) for rows in near[0] for columns in near[1] if rows * columns <= max(1.1 * cells, 1)]
    return min(
        candidates,
        key=lambda grid: (
            math.log(grid[0] * grid[1] / cells) ** 2 + math.log(grid[0] / grid[1] / ratio) ** 2,
            grid,
        ),
    )


def native(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    """Resizes as the checkpoint's own preprocessing does: ``shortest`` (centre crop), ``squash``, ``longest`` or ``naflex``.

    Equal to open_clip's ``image_transform(..., is_train=False)`` on the RGB picture, value for value. What a centre crop cuts off is
    outside ``geometry.seen``. Where the size is no multiple of the stride, the tower itself drops the last columns and rows, and so
    does the model frame.
    """
    return choose(preprocess.native, _NATIVE, "native resize mode")(pixels, preprocess, size)


def _native_squash(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    inner = _before_crop(preprocess, size)
    top, left = (round((inner[axis] - size[axis]) / 2.0) for axis in (0, 1))
    resized = _resize(pixels, inner, preprocess)[top : top + size[0], left : left + size[1]]
    tensor = _normalised(resized, preprocess)
    return _prepared("native", tensor, preprocess, pixels, _visible(preprocess, size), inner, (-top, -left))


def _native_shortest(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    height, width = pixels.shape[:2]
    if size[0] == size[1]:  # torchvision's Resize(int): the long side is cut to an integer, not rounded
        short, side = min(height, width), _before_crop(preprocess, size)[0]
        inner = tuple(side if length == short else int(side * length / short) for length in (height, width))
        resized = _resize(pixels, (inner[0], inner[1]), preprocess)
    else:  # open_clip's ResizeKeepRatio: rounded, and bicubic whatever the checkpoint says
        ratio = min(height / size[0], width / size[1])
        inner = (round(height / ratio), round(width / ratio))
        resized = _resize(pixels, (inner[0], inner[1]), preprocess, "bicubic")
    top, left = (round((inner[axis] - size[axis]) / 2.0) for axis in (0, 1))
    tensor = _normalised(resized[top : top + size[0], left : left + size[1]], preprocess)
    return _prepared("native", tensor, preprocess, pixels, _visible(preprocess, size), (inner[0], inner[1]), (-top, -left))


def _before_crop(preprocess: Preprocess, size: Size) -> Size:
    """Returns the size from whose centre ``size`` is cut, in the proportion in which the checkpoint does it."""
    side = preprocess.resize_side or preprocess.size
    height, width = (max(round(wanted * whole / own), wanted) for wanted, whole, own in zip(size, side, preprocess.size, strict=True))
    return height, width


def _native_longest(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    height, width = pixels.shape[:2]
    ratio = max(height / size[0], width / size[1])
    inner = (max(1, round(height / ratio)), max(1, round(width / ratio)))
    offset = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
    canvas = np.zeros((*size, 3), dtype=np.uint8)  # the checkpoints' fill colour is black
    canvas[offset[0] : offset[0] + inner[0], offset[1] : offset[1] + inner[1]] = _resize(pixels, inner, preprocess)
    tensor = _normalised(canvas, preprocess)
    return _prepared("native", tensor, preprocess, pixels, _visible(preprocess, size), inner, offset)


def _native_naflex(pixels: np.ndarray, preprocess: Preprocess, size: Size) -> Prepared:
    """The aspect is kept to a cell, and the cells are at most as many as those of ``size``: a NaFlex processor's own size."""
    _check_flexible("resize mode 'naflex'", preprocess)
    rows, columns = (side // stride for side, stride in zip(size, preprocess.stride, strict=True))
    inner = naflex_size((pixels.shape[0], pixels.shape[1]), preprocess.stride, rows * columns)
    tensor = _normalised(_resize(pixels, inner, preprocess), preprocess)
    return _prepared("native", tensor, preprocess, pixels, inner, inner, (0, 0))


def naflex_size(original: Size, stride: Size, cells: int) -> Size:
    """Returns the largest size of a picture's aspect whose sides, rounded up to whole cells, hold at most ``cells`` of them.

    As the processors of NaFlex towers have it (SigLIP 2, arXiv 2502.14786), by bisection of the scale to 1e-5.
    """

    def sides(scale: float) -> Size:
        height, width = (max(step, math.ceil(side * scale / step) * step) for side, step in zip(original, stride, strict=True))
        return height, width

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        height, width = sides(middle)
        low, high = (middle, high) if (height // stride[0]) * (width // stride[1]) <= cells else (low, middle)
    return sides(low)


_NATIVE: dict[str, Policy] = {
    "shortest": _native_shortest,
    "squash": _native_squash,
    "longest": _native_longest,
    "naflex": _native_naflex,
}


def tile(pixels: np.ndarray, preprocess: Preprocess, size: Size, *, overlap: float = 0.5, max_windows: int = 64) -> Prepared:
    """Cuts the picture, at or near its native resolution, into overlapping windows of the model's size.

    The tower sees each window alone; :func:`merge_windows` averages their features on one large grid, so that small parts of large
    photographs get cells of their own.

    The picture keeps its own resolution (each side changed by less than half a stride, to a whole number of cells) unless that takes more
    than ``max_windows`` windows: then it is scaled down until they suffice. It is scaled up only when both sides are smaller than a
    window, until it fills one. A side that is still shorter than the window is padded with the mean colour, as ``pad`` does. So ``tile`` is
    never coarser than ``pad``, and equals it where one window suffices.

    Args:
        pixels: uint8 [H, W, 3].
        preprocess: What the checkpoint expects.
        size: Window size ``(H, W)``.
        overlap: Share of a window that the next one covers again, 0 <= overlap < 1; the last window of a row or column is shifted
            inwards to end at the edge.
        max_windows: Most windows of one picture: bounds time and memory.

    Raises:
        ConfigurationError: ``overlap`` or ``max_windows`` out of range.
    """
    if not 0 <= overlap < 1:
        raise ConfigurationError(f"overlap must lie in 0 <= overlap < 1, received {overlap}.")
    if max_windows < 1:
        raise ConfigurationError(f"max_windows must be at least 1, received {max_windows}.")
    visible, full = _frames(preprocess, size)
    stride = preprocess.stride
    cells = (visible[0] // stride[0], visible[1] // stride[1])
    height, width = pixels.shape[:2]

    def layout(scale: float) -> tuple[Size, Size, tuple[tuple[int, int], ...]]:
        """Returns the picture's size, the frame's size and the windows' offsets at one scale."""
        inner = [max(1, round(height * scale)), max(1, round(width * scale))]
        frame = [0, 0]
        for axis in (0, 1):
            if inner[axis] > visible[axis]:
                inner[axis] = max(round(inner[axis] / stride[axis]) * stride[axis], visible[axis])
            frame[axis] = max(inner[axis], visible[axis])
        steps = [max(1, round(count * (1 - overlap))) for count in cells]
        starts = [_starts(frame[axis] // stride[axis], cells[axis], steps[axis]) for axis in (0, 1)]
        return (
            (inner[0], inner[1]),
            (frame[0], frame[1]),
            tuple((row, column) for row in starts[0] for column in starts[1]),
        )

    one_window = min(visible[0] / height, visible[1] / width)
    scale = max(1.0, one_window)
    if len(layout(scale)[2]) > max_windows:
        low, high = (
            one_window,
            scale,
        )  # at one_window one window suffices, and their number never falls with the scale
        for _ in range(40):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if len(layout(middle)[2]) <= max_windows else (low, middle)
        scale = low
    inner, frame, windows = layout(scale)
    offset = ((frame[0] - inner[0]) // 2, (frame[1] - inner[1]) // 2)
    whole = _place(_normalised(_resize(pixels, inner, preprocess), preprocess), frame, offset)
    crops = [
        whole[
            :,
            row * stride[0] : row * stride[0] + visible[0],
            column * stride[1] : column * stride[1] + visible[1],
        ]
        for row, column in windows
    ]
    tensor = _stack([_place(crop, full, (0, 0)) for crop in crops])
    return _prepared("tile", tensor, preprocess, pixels, frame, inner, offset, windows)


def _starts(length: int, window: int, step: int) -> list[int]:
    """Offsets of windows that cover ``length`` cells; the last ends at the edge."""
    last = length - window
    return [*range(0, last, step), last]


RESIZE: dict[str, Policy] = {"pad": pad, "aspect": aspect, "squash": squash, "native": native, "tile": tile}
"""Every resize policy by name; the first is the default."""


# ------------------------------------------------------------------------------------------------------------ a closer look


def magnified(
    pixels: np.ndarray,
    geometry: Geometry,
    zoom: int = 1,
    part: tuple[int, int, int, int] | None = None,
    interpolation: str = "bicubic",
    fill: Sequence[float] = (0.5, 0.5, 0.5),
) -> np.ndarray:
    """Reads a part of the model frame again from the picture itself, ``zoom`` times as finely as the model saw it.

    The geometry is exact: pixel ``i`` of the magnified frame covers model pixels ``[i / zoom, (i + 1) / zoom)``, whatever the resize
    policy, and a part equals the same part of the whole magnified frame but for rounding (Pillow looks beyond the part's edge as far as its
    filter reaches).

    Args:
        pixels: uint8 [H', W', 3], the upright picture, or a smaller copy of it.
        geometry: Frames of the picture.
        zoom: Magnified pixels per model pixel along each axis.
        part: ``(top, left, bottom, right)`` in magnified pixels; ``None`` for the whole frame. It may reach beyond the frame.
        interpolation: How pixels are resized.
        fill: Colour of what is not the picture, in 0..1.

    Returns:
        uint8 [bottom - top, right - left, 3].
    """
    top, left, bottom, right = part or (0, 0, geometry.model[0] * zoom, geometry.model[1] * zoom)
    found = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
    found[:] = np.round(np.asarray(fill) * 255).clip(0, 255)
    inside = _inside(geometry, zoom, (top, left, bottom, right))
    if inside is None:
        return found
    y0, x0, y1, x1 = inside
    size, original = pixels.shape[:2], geometry.original
    corners = geometry.model_to_original(np.array([[x0, y0], [x1, y1]]) / zoom) * (size[1] / original[1], size[0] / original[0])
    box = tuple(np.clip(corners, 0, (size[1], size[0])).ravel().tolist())
    method = choose(interpolation, _RESAMPLING, "interpolation")
    inner = Image.fromarray(pixels).resize((x1 - x0, y1 - y0), method, box=cast("tuple[float, float, float, float]", box))
    found[y0 - top : y1 - top, x0 - left : x1 - left] = np.asarray(inner)
    return found


def _inside(geometry: Geometry, zoom: int, part: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """Returns ``(top, left, bottom, right)`` of what a part of the magnified frame shows of the picture; ``None`` for nothing."""
    # The picture's own edges lie on whole model pixels for every policy.
    x0, y0, x1, y1 = (round(edge * zoom) for edge in geometry.content)
    top, left, bottom, right = max(part[0], y0), max(part[1], x0), min(part[2], y1), min(part[3], x1)
    return None if bottom <= top or right <= left else (top, left, bottom, right)


def closer(
    pixels: np.ndarray, geometry: Geometry, preprocess: Preprocess, zoom: int, windows: Sequence[tuple[int, int]], cells: Size
) -> tuple[Tensor, np.ndarray]:
    """Makes model inputs of windows of the magnified frame.

    Args:
        pixels: As for :func:`magnified`.
        geometry: Frames of the picture at the first look.
        preprocess: What the checkpoint expects.
        zoom: Magnification.
        windows: ``(row, column)`` of each window's corner in cells of the magnified grid, ``zoom`` cells per cell of the first look along
            each axis.
        cells: ``(h, w)`` of a window, what the tower takes.

    Returns:
        Inputs float32 [K, 3, H, W], and which of their cells show the picture, bool [K, h, w].
    """
    stride = preprocess.stride
    size = cells[0] * stride[0], cells[1] * stride[1]
    full = size if preprocess.flexible else preprocess.size
    grid = geometry.grid[0] * zoom, geometry.grid[1] * zoom
    shown = np.zeros((len(windows), *cells), dtype=bool)
    valid = geometry.with_grid(grid).valid()
    inputs = []
    for number, (row, column) in enumerate(windows):
        top, left = row * stride[0], column * stride[1]
        part = top, left, top + size[0], left + size[1]
        tensor = _normalised(magnified(pixels, geometry, zoom, part, preprocess.interpolation, preprocess.mean), preprocess)
        inside = _inside(geometry, zoom, part)
        canvas = tensor.new_zeros((3, *full))  # exactly the mean colour where the picture is not, as in every other input
        if inside is not None:
            y0, x0, y1, x1 = inside[0] - top, inside[1] - left, inside[2] - top, inside[3] - left
            canvas[:, y0:y1, x0:x1] = tensor[:, y0:y1, x0:x1]
        inputs.append(canvas)
        seen = valid[row : row + cells[0], column : column + cells[1]]
        shown[number, : seen.shape[0], : seen.shape[1]] = seen
    return _stack(inputs), shown


# ------------------------------------------------------------------------------------------------------------ merging


def taper(count: int) -> np.ndarray:
    """Returns float32 [count] weights of a window's cells along one axis: a triangle, least but positive at the edges."""
    centre = np.arange(count) + 0.5
    return cast("np.ndarray", (np.minimum(centre, count - centre) / (count / 2)).astype(np.float32))


def merge_windows(features: Tensor, windows: Sequence[tuple[int, int]], grid: Size) -> Tensor:
    """Averages the features of overlapping windows on the grid of the whole picture.

    Each cell is the weighted mean of the windows that cover it. The weight falls linearly towards a window's edge, where the tower
    knows least of the surroundings, so that a window fades out and leaves no seam.

    Args:
        features: [K, h, w, D] patch features of the windows, any floating-point dtype.
        windows: ``(row, column)`` offset of each window in the grid.
        grid: ``(H', W')`` cells of the whole picture.

    Returns:
        float32 [H', W', D], on the device of ``features``.

    Raises:
        ConfigurationError: A window lies outside the grid, their number differs from K, or a cell is covered by none.
    """
    count, rows, columns, depth = features.shape
    if count != len(windows):
        raise ConfigurationError(f"received features of {count} windows and {len(windows)} offsets.")
    for row, column in windows:
        if not (0 <= row <= grid[0] - rows and 0 <= column <= grid[1] - columns):
            raise ConfigurationError(f"a window of {rows} x {columns} cells at {(row, column)} leaves the grid {tuple(grid)}.")
    features = features.float()
    weight = features.new_tensor(np.outer(taper(rows), taper(columns)).tolist())[:, :, None]
    total = features.new_zeros((*grid, depth))
    weights = features.new_zeros((*grid, 1))
    for window, (row, column) in zip(features, windows, strict=True):
        place = (slice(row, row + rows), slice(column, column + columns))
        total[place] += window * weight
        weights[place] += weight
    if not bool((weights > 0).all()):
        raise ConfigurationError(f"the windows do not cover the whole grid {tuple(grid)}.")
    return total / weights


def _window_cells(windows: Sequence[tuple[int, int]], grid: Size) -> Size:
    """Returns a window's ``(rows, columns)``: the last window ends at the grid's far corner."""
    return grid[0] - max(row for row, _ in windows), grid[1] - max(column for _, column in windows)


# ------------------------------------------------------------------------------------------------------------ shared steps


def _visible(preprocess: Preprocess, size: Size) -> Size:
    """Returns the part of an input that whole cells cover; a patch embedding drops the rest at the right and the bottom."""
    visible = tuple(side // stride * stride for side, stride in zip(size, preprocess.stride, strict=True))
    if min(visible) < 1:
        raise ConfigurationError(f"input size {size} is smaller than one cell of the model, {preprocess.stride}.")
    return visible[0], visible[1]


def _frames(preprocess: Preprocess, size: Size) -> tuple[Size, Size]:
    """Returns the size that the picture may fill and the size of the tensor, larger where the model insists on an odd size."""
    visible = _visible(preprocess, size)
    return visible, visible if preprocess.flexible else size


def _scaled(original: Size, scale: float, limit: Size) -> Size:
    height, width = (min(max(1, round(side * scale)), most) for side, most in zip(original, limit, strict=True))
    return height, width


def _resize(
    pixels: np.ndarray,
    size: Size,
    preprocess: Preprocess,
    interpolation: str | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resizes uint8 [H, W, 3], or a box ``(x0, y0, x1, y1)`` of it, to ``size`` with antialiasing."""
    if pixels.shape[:2] == size and box is None:
        return pixels
    method = choose(interpolation or preprocess.interpolation, _RESAMPLING, "interpolation")
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), method, box))


def _normalised(pixels: np.ndarray, preprocess: Preprocess) -> Tensor:
    """uint8 [H, W, 3] -> normalised float32 [3, H, W], in the same operations as torchvision's ToTensor and Normalize."""
    import torch

    tensor = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")).float().div_(255)
    mean = torch.tensor(preprocess.mean, dtype=torch.float32, device="cpu").view(3, 1, 1)
    std = torch.tensor(preprocess.std, dtype=torch.float32, device="cpu").view(3, 1, 1)
    return tensor.sub_(mean).div_(std)


def _place(tensor: Tensor, size: Size, offset: Size) -> Tensor:
    """Places [3, H, W] on a canvas of zeros, the mean colour."""
    if tuple(tensor.shape[1:]) == size:
        return tensor
    canvas = tensor.new_zeros((tensor.shape[0], *size))
    canvas[:, offset[0] : offset[0] + tensor.shape[1], offset[1] : offset[1] + tensor.shape[2]] = tensor
    return canvas


def _stack(tensors: list[Tensor]) -> Tensor:
    import torch

    return torch.stack(tensors)


def _prepared(
    policy: str,
    tensor: Tensor,
    preprocess: Preprocess,
    pixels: np.ndarray,
    model: Size,
    inner: Size,
    offset: Size,
    windows: tuple[tuple[int, int], ...] = (),
) -> Prepared:
    """Puts the result together; ``inner`` is the size to which the whole picture was resized, ``offset`` where its corner lies."""
    original = (pixels.shape[0], pixels.shape[1])
    geometry = Geometry(
        policy=policy,
        original=original,
        model=model,
        grid=(model[0] // preprocess.stride[0], model[1] // preprocess.stride[1]),
        scale=(inner[0] / original[0], inner[1] / original[1]),
        offset=(float(offset[0]), float(offset[1])),
    )
    return Prepared(tensor, geometry, geometry.valid(), windows)
