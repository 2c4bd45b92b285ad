from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.resampling import KERNELS, UPSAMPLING, grid_to_pixels, heatmap, highest_point


def kernel(name: str, distance: float) -> float:
    """Weight of a cell by its distance from the place, in cells: a tent, or Keys' cubic with a = -1/2."""
    t = abs(distance)
    if name == "bilinear":
        return max(0.0, 1 - t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def slow(scores: np.ndarray, geometry: Geometry, name: str) -> np.ndarray:
    """Interpolation between valid cell centres, one pixel at a time; cells beyond the edge repeat it."""
    valid = geometry.valid()
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    height, width = geometry.original
    out = np.full((height, width), np.nan)
    for y in range(height):
        for x in range(width):
            gx, gy = geometry.original_to_grid(np.array([x + 0.5, y + 0.5]))
            if not (geometry.seen[0] <= x + 0.5 < geometry.seen[2] and geometry.seen[1] <= y + 0.5 < geometry.seen[3]):
                continue
            gx = min(max(gx - 0.5, columns[0]), columns[-1])
            gy = min(max(gy - 0.5, rows[0]), rows[-1])
            out[y, x] = sum(
                kernel(name, gy - j) * kernel(name, gx - i) * scores[min(max(j, rows[0]), rows[-1]), min(max(i, columns[0]), columns[-1])]
                for j in range(int(gy) - 1, int(gy) + 3)
                for i in range(int(gx) - 1, int(gx) + 3)
            )
    return out


GEOMETRIES = {
    "squash": Geometry("squash", (17, 31), (32, 48), (4, 6), (32 / 17, 48 / 31)),
    "pad": Geometry("pad", (10, 40), (32, 32), (4, 4), (0.8, 0.8), (12.0, 0.0)),
    "native crop": Geometry("native", (20, 60), (32, 32), (4, 4), (1.6, 1.6), (0.0, -32.0)),
    "one pixel": Geometry("pad", (1, 1), (32, 32), (4, 4), (32.0, 32.0)),
    "one row": Geometry("pad", (1, 64), (32, 32), (4, 4), (1.0, 0.5), (15.0, 0.0)),
    "one cell": Geometry("squash", (9, 7), (32, 32), (1, 1), (32 / 9, 32 / 7)),
}


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_interpolation_equals_the_slow_definition(name: str, interpolation: str) -> None:
    geometry = GEOMETRIES[name]
    scores = np.random.default_rng(0).normal(size=geometry.grid).astype(np.float32)
    scores[~geometry.valid()] = np.nan
    np.testing.assert_allclose(
        grid_to_pixels(scores, geometry, interpolation),
        slow(np.nan_to_num(scores), geometry, interpolation),
        atol=1e-5,
    )


@pytest.mark.parametrize("place", [(13.3, 18.8), (16.0, 14.1), (10.0, 21.9)])
def test_cubic_finds_a_peak_between_the_cells(place: tuple[float, float]) -> None:
    geometry = Geometry("squash", (32, 32), (32, 32), (8, 8), (1.0, 1.0))
    centres = (np.arange(8) + 0.5) * 4
    bump = np.exp(-((centres[:, None] - place[0]) ** 2 + (centres[None, :] - place[1]) ** 2) / 40).astype(np.float32)

    def miss(name: str) -> float:
        y, x = np.unravel_index(int(grid_to_pixels(bump, geometry, name).argmax()), (32, 32))
        return float(np.hypot(y + 0.5 - place[0], x + 0.5 - place[1]))

    assert miss("cubic") <= 1.0
    assert miss("cubic") <= miss("bilinear")


@pytest.mark.parametrize("name", list(GEOMETRIES))
def test_the_highest_point_is_that_of_the_heatmap(name: str) -> None:
    geometry = GEOMETRIES[name]
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=geometry.grid)
        scores = gaussian_filter(noise, 1.0).astype(np.float32)
        scores[~geometry.valid()] = np.nan
        pixels = grid_to_pixels(scores, geometry)
        x, y = highest_point(scores, geometry)
        assert x == pytest.approx(np.clip(x, geometry.seen[0], geometry.seen[2]))
        # As high, not as near: along the border of the picture the heatmap is level.
        assert pixels[int(y), int(x)] >= np.nanmax(pixels) - 0.1 * np.nanstd(scores)


def test_the_highest_point_avoids_what_may_not_be_read() -> None:
    geometry = Geometry("squash", (32, 32), (32, 32), (8, 8), (1.0, 1.0))
    scores = np.zeros((8, 8), np.float32)
    scores[3, 4] = 1.0
    scores[3, 5] = np.nan
    x, y = highest_point(scores, geometry)
    assert x == pytest.approx(18.0, abs=1.5)
    assert y == pytest.approx(14.0, abs=0.5)
    assert all(np.isnan(highest_point(np.full((8, 8), np.nan, np.float32), geometry)))


def test_unknown_interpolation_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="interpolation"):
        grid_to_pixels(np.zeros((4, 6), np.float32), GEOMETRIES["squash"], "sinc")


def test_crop_is_nan_outside_and_padding_never_bleeds() -> None:
    crop = grid_to_pixels(np.ones((4, 4), np.float32), GEOMETRIES["native crop"])
    assert np.isnan(crop[:, :20]).all()
    assert np.isnan(crop[:, 40:]).all()
    np.testing.assert_allclose(crop[:, 20:40], 1, atol=1e-6)
    geometry = GEOMETRIES["pad"]
    scores = np.where(geometry.valid(), 1.0, 1e9).astype(np.float32)
    np.testing.assert_allclose(grid_to_pixels(scores, geometry), 1, atol=1e-6)


def test_wrong_grid_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="grid"):
        grid_to_pixels(np.zeros((3, 3), np.float32), GEOMETRIES["squash"])


def test_edge_aware_snaps_to_the_edge_of_the_picture() -> None:
    geometry = Geometry("squash", (64, 64), (32, 32), (4, 4), (0.5, 0.5))
    scores = np.array([[0, 0, 1, 1]] * 4, np.float32)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 38:] = 255  # the true edge is not at the cell border, 32
    sharp, smooth = heatmap(scores, geometry, "edge-aware", picture), heatmap(scores, geometry)
    assert abs(sharp[32, 39] - sharp[32, 36]) > 2 * abs(smooth[32, 39] - smooth[32, 36])
    with pytest.raises(ConfigurationError, match="picture"):
        heatmap(scores, geometry, "edge-aware")
    with pytest.raises(ConfigurationError, match="rows, columns"):
        heatmap(scores, geometry, "edge-aware", picture[:10])


def test_unknown_upsampling() -> None:
    with pytest.raises(ConfigurationError, match="bilinear"):
        heatmap(np.zeros((4, 4), np.float32), GEOMETRIES["pad"], "bilinar")
    assert next(iter(UPSAMPLING)) == "cubic"
