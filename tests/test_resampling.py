from __future__ import annotations

import numpy as np
import pytest

from concept_cam.resampling import UPSAMPLING, grid_to_pixels, heatmap
from concept_cam.types import ConfigurationError, Geometry


def slow(scores: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Bilinear interpolation between valid cell centres, one pixel at a time."""
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
            x0, y0 = int(gx), int(gy)
            x1, y1 = min(x0 + 1, columns[-1]), min(y0 + 1, rows[-1])
            fx, fy = gx - x0, gy - y0
            out[y, x] = (
                scores[y0, x0] * (1 - fx) * (1 - fy)
                + scores[y0, x1] * fx * (1 - fy)
                + scores[y1, x0] * (1 - fx) * fy
                + scores[y1, x1] * fx * fy
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


@pytest.mark.parametrize("name", GEOMETRIES)
def test_bilinear_equals_the_slow_definition(name: str) -> None:
    geometry = GEOMETRIES[name]
    scores = np.random.default_rng(0).normal(size=geometry.grid).astype(np.float32)
    scores[~geometry.valid()] = np.nan
    np.testing.assert_allclose(grid_to_pixels(scores, geometry), slow(np.nan_to_num(scores), geometry), atol=1e-5)


def test_crop_is_nan_outside_and_padding_never_bleeds() -> None:
    crop = grid_to_pixels(np.ones((4, 4), np.float32), GEOMETRIES["native crop"])
    assert np.isnan(crop[:, :20]).all()
    assert np.isnan(crop[:, 40:]).all()
    assert (crop[:, 20:40] == 1).all()
    geometry = GEOMETRIES["pad"]
    scores = np.where(geometry.valid(), 1.0, 1e9).astype(np.float32)
    assert (grid_to_pixels(scores, geometry) == 1).all()


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
    assert next(iter(UPSAMPLING)) == "bilinear"
