"""Resize policies: the geometry is checked against the pixels themselves, by pictures whose colours say where they came from."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.settings import RESIZE_POLICIES
from concept_cam.pictures.preprocessing import Preprocess
from concept_cam.pictures.reading import Picture
from concept_cam.pictures.resizing import RESIZE, Prepared, aspect_grid, merge_windows, prepare, taper, tile

PLAIN = Preprocess(size=(64, 64), stride=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CLIP = Preprocess(
    size=(64, 64),
    stride=(8, 8),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
POLICIES = sorted(RESIZE)
SHAPES = [
    (64, 64),
    (1, 1),
    (1, 50),
    (50, 1),
    (37, 100),
    (100, 37),
    (13, 17),
    (20, 400),
    (400, 20),
    (333, 217),
    (3, 2),
]


def coordinates(height: int, width: int) -> Picture:
    """Red is x, green is y, both from 0 to 255 over the picture's extent; blue is 255 everywhere."""
    x = (np.arange(width) + 0.5) / width * 255
    y = (np.arange(height) + 0.5) / height * 255
    pixels = np.stack([*np.meshgrid(x, y), np.full((height, width), 255.0)], axis=-1)
    return Picture(np.rint(pixels).astype(np.uint8))


def model_frame(prepared: Prepared, preprocess: Preprocess = PLAIN) -> np.ndarray:
    """The whole model frame, float [H, W, 3] in 0..1, put together from windows where there are any."""
    geometry = prepared.geometry
    if not prepared.windows:
        return prepared.pixels.permute(1, 2, 0).numpy()[: geometry.model[0], : geometry.model[1]]
    canvas = np.full((*geometry.model, 3), np.nan, dtype=np.float32)
    for window, (row, column) in zip(prepared.pixels, prepared.windows, strict=True):
        top, left = row * preprocess.stride[0], column * preprocess.stride[1]
        part = window.permute(1, 2, 0).numpy()
        place = canvas[top : top + part.shape[0], left : left + part.shape[1]]
        assert place.shape == part.shape
        known = ~np.isnan(place)
        np.testing.assert_array_equal(place[known], part[known])
        place[:] = part
    assert not np.isnan(canvas).any()
    return canvas


def kernel_support(geometry: Geometry) -> tuple[float, float]:
    """Bicubic support in original pixels (y, x), within which the edge bends a gradient."""
    return tuple(2 * max(1.0, 1 / scale) for scale in geometry.scale)  # type: ignore[return-value]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_model_pixels_come_from_where_the_geometry_says(policy: str, shape: tuple[int, int]) -> None:
    """A colour read at a model pixel names its place in the original; the geometry has to name the same place."""
    height, width = shape
    prepared = prepare(coordinates(*shape), PLAIN, policy)
    geometry = prepared.geometry
    frame = model_frame(prepared)
    assert geometry.policy == policy
    assert geometry.original == shape
    assert frame.shape[:2] == geometry.model
    ys, xs = np.mgrid[0 : geometry.model[0], 0 : geometry.model[1]] + 0.5
    points = geometry.model_to_original(np.stack([xs, ys], axis=-1))
    x0, y0, x1, y1 = geometry.content
    inside = (xs > x0) & (xs < x1) & (ys > y0) & (ys < y1)
    # Padding is exactly zero, the picture is exactly not.
    assert (frame[~inside] == 0).all()
    assert (frame[inside][:, 2] > 0.99).all()
    for axis, (channel, length) in enumerate([(0, width), (1, height)]):
        margin = kernel_support(geometry)[1 - axis]
        far = inside & (points[..., axis] > margin) & (points[..., axis] < length - margin)
        if not far.any():
            continue
        found = frame[far][:, channel] * length
        rounding = length / 255  # both the planted and the resized colours are rounded to 8 bits
        assert np.abs(found - points[far][:, axis]).max() <= 1.05 * rounding + 1e-3 * length
    # Round trips.
    np.testing.assert_allclose(geometry.original_to_model(points), np.stack([xs, ys], axis=-1), atol=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(64, 64), (90, 200), (200, 90), (20, 400), (333, 217)])
def test_planted_squares_are_found_where_they_were(policy: str, shape: tuple[int, int]) -> None:
    """The centroid of a bright square, measured in the model's input, maps back to the square."""
    height, width = shape
    side = max(4, min(shape) // 5)
    checked = 0
    for share_y, share_x in itertools.product((0.1, 0.5, 0.83), repeat=2):
        top, left = int(share_y * (height - side)), int(share_x * (width - side))
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[top : top + side, left : left + side] = 255
        prepared = prepare(Picture(pixels), PLAIN, policy)
        geometry = prepared.geometry
        x0, y0, x1, y1 = geometry.seen
        if not (x0 <= left - 2 and left + side + 2 <= x1 and y0 <= top - 2 and top + side + 2 <= y1):
            continue  # in or beyond the edge of a native centre crop
        weights = model_frame(prepared)[:, :, 0].astype(np.float64)
        ys, xs = np.mgrid[0 : geometry.model[0], 0 : geometry.model[1]] + 0.5
        centroid = np.array([(weights * xs).sum(), (weights * ys).sum()]) / weights.sum()
        found = geometry.model_to_original(centroid)
        np.testing.assert_allclose(found, [left + side / 2, top + side / 2], atol=0.06 / min(geometry.scale) + 0.02)
        # Its area agrees, too: the scale is right, not only the centre. (Of a few pixels, the clipped overshoot is too large a part.)
        if side * min(geometry.scale) >= 4:
            area = weights.sum() / (geometry.scale[0] * geometry.scale[1])
            assert area == pytest.approx(side * side, rel=0.06)
        # And the grid cell that holds it is valid.
        column, row = geometry.model_to_grid(centroid)
        assert prepared.valid[int(row), int(column)]
        checked += 1
    assert checked >= 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_are_whole_cells_and_padding_is_invalid(policy: str, shape: tuple[int, int]) -> None:
    prepared = prepare(coordinates(*shape), CLIP, policy)
    geometry = prepared.geometry
    assert prepared.pixels.dtype == torch.float32
    assert geometry.model == (geometry.grid[0] * 8, geometry.grid[1] * 8)
    assert prepared.valid.dtype == bool
    assert prepared.valid.shape == geometry.grid
    assert prepared.batch.shape[0] == max(1, len(prepared.windows))
    assert prepared.batch_valid.shape == (
        prepared.batch.shape[0],
        prepared.batch.shape[2] // 8,
        prepared.batch.shape[3] // 8,
    )
    # Slow restatement of valid: a cell is valid when one of its pixels is not padding.
    frame = model_frame(prepared, CLIP)
    shown = (frame != 0).any(axis=2).reshape(geometry.grid[0], 8, geometry.grid[1], 8).any(axis=(1, 3))
    np.testing.assert_array_equal(prepared.valid, shown)
    for seen, window in zip(prepared.batch_valid, prepared.batch, strict=True):
        cells = (window != 0).any(dim=0).reshape(seen.shape[0], 8, seen.shape[1], 8).any(dim=3).any(dim=1)
        np.testing.assert_array_equal(seen, cells.numpy())


def test_pad_keeps_the_whole_subject_centred() -> None:
    geometry = prepare(coordinates(20, 60), CLIP, "pad").geometry
    assert geometry.content == (0.0, 21.0, 64.0, 42.0)
    assert geometry.seen == (0.0, 0.0, 60.0, 20.0)
    assert geometry.scale == (21 / 20, 64 / 60)
    tall = prepare(coordinates(60, 20), CLIP, "pad").geometry
    assert tall.content == (21.0, 0.0, 42.0, 64.0)


def test_pad_is_the_default_and_the_padding_is_the_mean_colour() -> None:
    picture = coordinates(20, 60)
    prepared = prepare(picture, CLIP)
    assert prepared.geometry.policy == "pad"
    assert (prepared.pixels[:, :21] == 0).all()
    colour = prepared.pixels[:, 0, 0] * torch.tensor(CLIP.std) + torch.tensor(CLIP.mean)
    np.testing.assert_allclose(colour.numpy(), CLIP.mean, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (37, 100), (20, 400), (400, 20), (1, 1), (1, 1000)])
@pytest.mark.parametrize("side", [64, 128])
def test_aspect_has_about_the_native_number_of_cells(shape: tuple[int, int], side: int) -> None:
    prepared = prepare(coordinates(*shape), PLAIN, "aspect", side)
    rows, columns = prepared.geometry.grid
    native = (side // 8) ** 2
    assert 0.75 * native <= rows * columns <= 1.1 * native
    assert prepared.valid.all()
    distortion = math.log((rows / columns) / (shape[0] / shape[1]))
    limit = math.log(1.35) if max(shape) / min(shape) <= native / 4 else math.inf
    assert abs(distortion) <= limit


def test_aspect_grid_is_the_best_of_all_grids() -> None:
    """Slow restatement: every grid with at most a tenth more cells."""
    for cells, ratio in itertools.product((4, 64, 196), (0.01, 0.05, 0.3, 0.77, 1.0, 1.5, 3.0, 40.0)):

        def cost(grid: tuple[int, int], cells: int = cells, ratio: float = ratio) -> float:
            return math.log(grid[0] * grid[1] / cells) ** 2 + math.log(grid[0] / grid[1] / ratio) ** 2

        grids = [(rows, columns) for rows in range(1, cells + 1) for columns in range(1, cells + 1) if rows * columns <= 1.1 * cells]
        chosen = aspect_grid(cells, ratio)
        assert chosen in grids
        # The neighbours of the ideal sides are looked at; only the bound on the product can hide a better one further off.
        assert cost(chosen) <= min(map(cost, grids)) + 0.02


def test_squash_shows_everything() -> None:
    geometry = prepare(coordinates(30, 90), PLAIN, "squash").geometry
    assert geometry.seen == (0.0, 0.0, 90.0, 30.0)
    assert geometry.content == (0.0, 0.0, 64.0, 64.0)


def test_native_crop_says_what_it_cut_off() -> None:
    prepared = prepare(coordinates(64, 192), PLAIN, "native")
    assert prepared.geometry.seen == (64.0, 0.0, 128.0, 64.0)
    assert prepared.valid.all()
    frame = model_frame(prepared)
    assert frame[:, 0, 0] == pytest.approx(64.5 / 192, abs=1 / 255)
    assert frame[:, -1, 0] == pytest.approx(127.5 / 192, abs=1 / 255)


# ------------------------------------------------------------------------------------------------------------ the checkpoint's own


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_native_equals_open_clips_own_transform(mode: str, interpolation: str, size: tuple[int, int]) -> None:
    from concept_cam.backbones.torchvision_compat import import_open_clip

    transform = import_open_clip().transform
    generator = np.random.default_rng(0)
    own = transform.image_transform(size, is_train=False, mean=CLIP.mean, std=CLIP.std, resize_mode=mode, interpolation=interpolation)
    preprocess = Preprocess(size, (8, 8), CLIP.mean, CLIP.std, interpolation=interpolation, native=mode)
    for shape in [(64, 64), (37, 101), (101, 37), (48, 80), (200, 333), (5, 3), (63, 65), (90, 91)]:
        pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = own(Image.fromarray(pixels))
        found = prepare(Picture(pixels), preprocess, "native").pixels
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_native_drops_what_the_tower_drops() -> None:
    """SigLIP SO400M reads 384 pixels in cells of 14: the last 6 reach no cell, and the geometry says so."""
    preprocess = Preprocess((20, 20), (8, 8), PLAIN.mean, PLAIN.std)
    prepared = prepare(coordinates(20, 20), preprocess, "native")
    assert prepared.pixels.shape == (3, 20, 20)
    assert prepared.geometry.grid == (2, 2)
    assert prepared.geometry.cell == (8.0, 8.0)
    assert prepared.geometry.seen == (0.0, 0.0, 16.0, 16.0)
    # The other policies fit the picture into what the cells cover.
    assert prepare(coordinates(20, 20), preprocess, "pad").pixels.shape == (3, 16, 16)
    fixed = Preprocess((20, 20), (8, 8), PLAIN.mean, PLAIN.std, flexible=False)
    for policy in ("pad", "squash", "tile"):
        prepared = prepare(coordinates(20, 20), fixed, policy)
        assert prepared.batch.shape == (1, 3, 20, 20)
        assert prepared.geometry.seen == (0.0, 0.0, 20.0, 20.0)
        assert prepared.geometry.grid == (2, 2)
        assert (prepared.batch[:, :, 16:] == 0).all()


# ------------------------------------------------------------------------------------------------------------ tile


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (200, 130), (130, 517), (20, 400), (10, 12), (1, 1), (1, 300)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_everything_and_stay_inside(shape: tuple[int, int], overlap: float) -> None:
    prepared = prepare(coordinates(*shape), PLAIN, functools.partial(tile, overlap=overlap, max_windows=500))
    covered = np.zeros(prepared.geometry.grid, dtype=int)
    for row, column in prepared.windows:
        assert row + 8 <= covered.shape[0]
        assert column + 8 <= covered.shape[1]
        covered[row : row + 8, column : column + 8] += 1
    assert (covered > 0).all()
    assert len(set(prepared.windows)) == len(prepared.windows)
    assert prepared.pixels.shape == (len(prepared.windows), 3, 64, 64)


def test_tile_keeps_the_native_resolution() -> None:
    geometry = prepare(coordinates(200, 300), PLAIN, "tile").geometry
    assert geometry.model == (200, 304)
    assert geometry.grid == (25, 38)
    assert geometry.scale == (1.0, 304 / 300)


def test_tile_of_a_small_picture_is_pad() -> None:
    for shape in [(10, 12), (64, 64), (64, 20), (1, 1)]:
        tiled, padded = prepare(coordinates(*shape), CLIP, "tile"), prepare(coordinates(*shape), CLIP, "pad")
        assert tiled.windows == ((0, 0),)
        torch.testing.assert_close(tiled.pixels[0], padded.pixels, rtol=0, atol=0)
        assert tiled.geometry.to_dict() | {"policy": "pad"} == padded.geometry.to_dict()


@pytest.mark.parametrize("limit", [1, 2, 7, 30])
def test_max_windows_scales_the_picture_down(limit: int) -> None:
    picture = coordinates(400, 900)
    prepared = prepare(picture, PLAIN, functools.partial(tile, max_windows=limit))
    assert 1 <= len(prepared.windows) <= limit
    scale = prepared.geometry.scale
    assert scale[0] == pytest.approx(scale[1], rel=0.1)
    assert min(scale) >= min(64 / 400, 64 / 900) * 0.98
    # Not smaller than it has to be: a twentieth larger would not fit.
    if limit > 1:
        height, width = round(400 * scale[0] * 1.15), round(900 * scale[1] * 1.15)
        assert len(prepare(coordinates(height, width), PLAIN, functools.partial(tile, max_windows=999)).windows) > limit


def test_tile_options_are_checked() -> None:
    for options in ({"overlap": 1.0}, {"overlap": -0.1}, {"max_windows": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            prepare(coordinates(8, 8), PLAIN, functools.partial(tile, **options))  # type: ignore[arg-type]


def test_tile_with_oblong_windows_and_cells() -> None:
    preprocess = Preprocess((32, 48), (4, 8), PLAIN.mean, PLAIN.std)
    prepared = prepare(coordinates(100, 100), preprocess, "tile")
    assert prepared.pixels.shape[1:] == (3, 32, 48)
    assert prepared.geometry.grid == (25, 12)
    assert model_frame(prepared, preprocess).shape == (100, 96, 3)


# ------------------------------------------------------------------------------------------------------------ merging windows


WINDOWS = [(0, 0), (0, 3), (2, 0), (2, 3)]


def test_constant_features_stay_constant() -> None:
    features = torch.full((4, 4, 5, 3), 1.7)
    merged = merge_windows(features, WINDOWS, (6, 8))
    assert merged.shape == (6, 8, 3)
    torch.testing.assert_close(merged, torch.full((6, 8, 3), 1.7), rtol=1e-6, atol=0)


def test_each_cell_is_the_weighted_mean_of_its_windows() -> None:
    features = torch.randn(4, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    merged = merge_windows(features, WINDOWS, (6, 8))
    for y, x in itertools.product(range(6), range(8)):
        total, weight = torch.zeros(3), 0.0
        for window, (row, column) in zip(features, WINDOWS, strict=True):
            if row <= y < row + 4 and column <= x < column + 5:
                near_y = min(y - row + 0.5, 4 - (y - row + 0.5)) / 2
                near_x = min(x - column + 0.5, 5 - (x - column + 0.5)) / 2.5
                total += window[y - row, x - column] * near_y * near_x
                weight += near_y * near_x
        torch.testing.assert_close(merged[y, x], total / weight, rtol=1e-5, atol=1e-6)


def test_features_of_the_place_merge_without_a_seam() -> None:
    """Windows that agree on every cell give back exactly what they agree on."""
    truth = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(1))
    features = torch.stack([truth[row : row + 4, column : column + 5] for row, column in WINDOWS])
    torch.testing.assert_close(merge_windows(features, WINDOWS, (6, 8)), truth, rtol=1e-5, atol=1e-6)
    # Two windows that disagree by 1 fade into each other: no step between cells is as large as without a taper.
    steps = merge_windows(torch.stack([torch.zeros(1, 8, 1), torch.ones(1, 8, 1)]), [(0, 0), (0, 4)], (1, 12))[0, :, 0].diff()
    assert (steps >= 0).all()
    assert float(steps.max()) < 0.5


def test_one_window_is_returned_as_it_is() -> None:
    features = torch.randn(1, 3, 4, 2)
    torch.testing.assert_close(merge_windows(features, [(0, 0)], (3, 4)), features[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_merging_is_float32_whatever_comes(dtype: torch.dtype) -> None:
    merged = merge_windows(torch.ones(4, 4, 5, 3, dtype=dtype), WINDOWS, (6, 8))
    assert merged.dtype == torch.float32


def test_merging_checks_its_input() -> None:
    with pytest.raises(ConfigurationError, match="3 windows and 4 offsets"):
        merge_windows(torch.zeros(3, 4, 5, 3), WINDOWS, (6, 8))
    with pytest.raises(ConfigurationError, match="leaves the grid"):
        merge_windows(torch.zeros(4, 4, 5, 3), WINDOWS, (6, 7))
    with pytest.raises(ConfigurationError, match="do not cover"):
        merge_windows(torch.zeros(4, 4, 5, 3), WINDOWS, (7, 8))


@pytest.mark.parametrize("count", [1, 2, 3, 14])
def test_taper(count: int) -> None:
    weights = taper(count)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights, weights[::-1])
    assert weights.argmax() == (count - 1) // 2
    assert weights.max() <= 1


# ------------------------------------------------------------------------------------------------------------ prepare


def test_the_torch_free_list_of_names_is_complete() -> None:
    assert tuple(RESIZE) == RESIZE_POLICIES


def test_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown resize policy 'padd'. Did you mean 'pad'"):
        prepare(coordinates(8, 8), PLAIN, "padd")


def test_size_is_checked() -> None:
    with pytest.raises(ConfigurationError, match=r"100 is not a multiple of the model's stride 8. Use 96 or 104"):
        prepare(coordinates(8, 8), PLAIN, "pad", 100)
    with pytest.raises(ConfigurationError, match=r"Use 8 or 16"):
        prepare(coordinates(8, 8), PLAIN, "pad", (64, 0))
    fixed = Preprocess((64, 64), (8, 8), PLAIN.mean, PLAIN.std, flexible=False)
    with pytest.raises(ConfigurationError, match="64 x 64 pixels only, received 96 x 96"):
        prepare(coordinates(8, 8), fixed, "pad", 96)
    with pytest.raises(ConfigurationError, match=r"'aspect' needs a model that reads inputs of any size"):
        prepare(coordinates(8, 8), fixed, "aspect")
    assert prepare(coordinates(8, 8), fixed, "pad", 64).geometry.grid == (8, 8)


def test_default_sizes() -> None:
    larger = Preprocess((64, 64), (8, 8), PLAIN.mean, PLAIN.std, read_size=(96, 96))
    assert prepare(coordinates(8, 8), larger, "pad").geometry.model == (96, 96)
    assert prepare(coordinates(8, 8), larger, "native").geometry.model == (64, 64)
    assert prepare(coordinates(8, 8), larger, "native", 96).geometry.model == (96, 96)
    assert prepare(coordinates(8, 8), larger, "squash", (32, 80)).geometry.grid == (4, 10)


def test_unknown_interpolation() -> None:
    with pytest.raises(ConfigurationError, match="unknown interpolation 'lanczos'"):
        prepare(coordinates(8, 8), Preprocess((64, 64), (8, 8), PLAIN.mean, PLAIN.std, interpolation="lanczos"))


def test_the_picture_is_not_changed() -> None:
    for policy in POLICIES:
        picture = coordinates(64, 64)
        before = picture.pixels.copy()
        prepare(picture, CLIP, policy).pixels.add_(1)
        np.testing.assert_array_equal(picture.pixels, before)
