"""Polygons, ribbons and layers against slow restatements."""

from __future__ import annotations

import numpy as np
import pytest

from concept_cam.demo.worlds.canvas import Canvas, curve, polygon, ribbon, texture
from concept_cam.demo.worlds.textures import TEXTURE_KINDS

SIZE = (40, 60)
STAR = np.array([[30, 4], [34, 16], [50, 16], [38, 24], [42, 37], [30, 29], [17, 36], [22, 24], [9, 15], [26, 16]], dtype=float)


def inside(points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The even-odd rule."""
    crossings = np.zeros(x.shape, dtype=int)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 != y1:
            crossings += ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return crossings % 2 == 1


def whole(patch_alpha: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    plane = np.zeros(SIZE)
    plane[window] = patch_alpha
    return plane


@pytest.mark.parametrize("move", [(0.0, 0.0), (-18.3, 7.9), (21.6, -9.4), (0.4, 20.7)])
def test_a_polygon_covers_what_lies_in_it(move: tuple[float, float]) -> None:
    points = STAR + move
    patch = polygon(points, SIZE)
    plane = whole(patch.alpha, patch.window)
    y, x = (np.mgrid[0 : 8 * SIZE[0], 0 : 8 * SIZE[1]] + 0.5) / 8
    slow = inside(points, x, y).reshape(SIZE[0], 8, SIZE[1], 8).mean(axis=(1, 3))
    assert np.abs(plane - slow).max() < 0.45
    assert np.abs(plane - slow).mean() < 0.01
    assert ((plane > 0.5) == (slow > 0.5)).mean() > 0.985


def test_area_is_that_of_a_picture_without_end() -> None:
    square = np.array([[0, 0], [30, 0], [30, 20], [0, 20]], dtype=float)
    for move, seen in (((5, 5), 600), ((-15, 0), 300), ((500, 500), 0), ((45, 30), 150)):
        patch = polygon(square + move, SIZE)
        assert patch.area == pytest.approx(600)
        assert patch.alpha.sum() == pytest.approx(seen, abs=12)
        assert patch.empty == (seen == 0)
    assert polygon(square[::-1], SIZE).area == pytest.approx(600)


def test_pixels_are_the_middles_of_the_windows_pixels() -> None:
    patch = polygon(STAR, SIZE)
    x, y = patch.pixels()
    assert x.shape == y.shape == patch.alpha.shape
    assert (x[0, 0], y[0, 0]) == (patch.window[1].start + 0.5, patch.window[0].start + 0.5)
    assert (x[-1, -1], y[-1, -1]) == (patch.window[1].stop - 0.5, patch.window[0].stop - 0.5)


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
def test_a_ribbon_is_as_wide_and_long_as_it_is_said(angle: float) -> None:
    way = np.array([np.cos(angle), np.sin(angle)])
    line = np.array([30.0, 20.0]) + np.linspace(-12, 12, 9)[:, None] * way
    outline = ribbon(line, 5.0)
    across = (outline - [30, 20]) @ np.array([-way[1], way[0]])
    along = (outline - [30, 20]) @ way
    assert np.abs(np.abs(across) - 2.5).max() < 1e-9
    assert np.ptp(along) == pytest.approx(24)
    assert polygon(outline, SIZE).area == pytest.approx(120)
    assert polygon(ribbon(line, np.linspace(0, 10, 9)), SIZE).area == pytest.approx(120)


def test_a_curve_goes_through_its_points() -> None:
    knots = np.array([[0, 0], [3, 5], [8, 4], [9, -2]], dtype=float)
    open_ = curve(knots, 31)
    assert np.allclose(open_[[0, 10, 20, 30]], knots)
    closed = curve(knots, 40, closed=True)
    assert np.allclose(closed[[0, 10, 20, 30]], knots)
    steps = np.hypot(*np.diff(np.concatenate([closed, closed[:1]]), axis=0).T)
    assert steps.max() < 5 * np.median(steps)


def test_masks_and_sides_are_of_what_is_on_top() -> None:
    """Random squares, pixel by pixel: the last one laid is seen."""
    rng = np.random.default_rng(0)
    canvas = Canvas(np.zeros((*SIZE, 3), np.float32))
    names = ("a", "b", "ab")
    belongs = [("a", "ab"), ("b", "ab"), (), ("a", "ab")]
    top = np.full(SIZE, -1)
    for number in range(12):
        low = rng.integers(-10, 50, 2)
        side = rng.integers(5, 25)
        square = np.array([[0, 0], [side, 0], [side, side], [0, side]], dtype=float) + low
        canvas.lay(polygon(square, SIZE), rng.random(3), *belongs[number % 4], side=number % 3)
        x0, y0 = max(low[0], 0), max(low[1], 0)
        top[y0 : max(low[1] + side, 0), x0 : max(low[0] + side, 0)] = number
    masks, sides = canvas.masks(names), canvas.side()
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            number = top[row, column]
            expected = set() if number < 0 else set(belongs[number % 4])
            assert {name for k, name in enumerate(names) if masks[k, row, column]} == expected
            assert sides[row, column] == (0 if number < 0 else number % 3)
    assert np.array_equal(canvas.seen(names), masks.sum(axis=(1, 2)))


def test_what_is_cut_off_and_what_is_hidden_are_told_apart() -> None:
    canvas = Canvas(np.zeros((*SIZE, 3), np.float32))
    square = np.array([[0, 0], [20, 0], [20, 20], [0, 20]], dtype=float)
    canvas.lay(polygon(square + (-10, 10), SIZE), np.ones(3), "part")
    canvas.lay(polygon(square * 0.5 + (0, 15), SIZE), np.ones(3), "part", "mark", adds=("mark",))
    canvas.lay(polygon(square + (5, 0), SIZE), np.zeros(3))
    names = ("part", "mark")
    assert canvas.areas(names).tolist() == pytest.approx([400, 100])
    assert canvas.inside(names).tolist() == pytest.approx([200, 100], rel=0.05)
    assert canvas.seen(names).tolist() == pytest.approx([150, 75], rel=0.1)


def test_colours_mix_by_coverage_and_opacity_and_what_is_clear_is_seen() -> None:
    canvas = Canvas(np.full((*SIZE, 3), 0.2, np.float32))
    square = np.array([[10, 10], [30, 10], [30, 30], [10, 30]], dtype=float)
    canvas.lay(polygon(square, SIZE), [1.0, 0.0, 0.0], "pane", opacity=0.25)
    assert canvas.rgb[20, 20] == pytest.approx([0.4, 0.15, 0.15])
    assert canvas.rgb[5, 5] == pytest.approx([0.2] * 3)
    assert canvas.masks(("pane",))[0, 20, 20]
    canvas.darken(polygon(square, SIZE), 0.5)
    assert canvas.rgb[20, 20] == pytest.approx([0.2, 0.075, 0.075])
    assert len(canvas.layers) == 1
    canvas.lay(polygon(square + 900, SIZE), [1.0, 1.0, 1.0], "pane")
    assert canvas.areas(("pane",))[0] == pytest.approx(800)


@pytest.mark.parametrize("kind", TEXTURE_KINDS)
def test_textures_have_no_mean_and_repeat(kind: str) -> None:
    x, y = np.meshgrid(np.arange(256, dtype=np.float32), np.arange(256, dtype=np.float32))
    found = texture(kind, x, y, 2.0, 2.0)
    assert found.shape == (256, 256, 4)
    assert np.isfinite(found).all()
    assert np.abs(found.mean(axis=(0, 1))).max() < 0.75
    assert 0.3 < found.std(axis=(0, 1)).min() <= found.std(axis=(0, 1)).max() < 2.5
    assert np.array_equal(texture(kind, x + 1024, y - 512, 2.0, 2.0), found)
    # Seen from afar it is smoother.
    assert texture(kind, x, y, 2.0, 0.2)[..., 3].std() <= found[..., 3].std() + 0.05
