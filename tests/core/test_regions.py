from __future__ import annotations

import math

import numpy as np
import pytest

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.regions import THRESHOLDS, above, decode_rle, encode_rle, find_regions, measure, threshold_value


def threshold_mask(heatmap: np.ndarray, threshold: str | float) -> np.ndarray:
    return above(heatmap, threshold_value(heatmap, threshold))


def slow_counts(mask: np.ndarray) -> list[int]:
    counts, current = [0], False
    for value in mask.T.ravel():
        if bool(value) != current:
            counts.append(0)
            current = bool(value)
        counts[-1] += 1
    return counts


def test_rle_equals_its_definition_and_comes_back() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        mask = generator.random((generator.integers(1, 25), generator.integers(1, 25))) > generator.random()
        rle = encode_rle(mask)
        assert np.array_equal(decode_rle(rle), mask)
        assert np.array_equal(decode_rle({"size": rle["size"], "counts": slow_counts(mask)}), mask)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (300, 200)])
def test_rle_of_uniform_masks(value: bool, shape: tuple[int, int]) -> None:
    mask = np.full(shape, value)
    assert np.array_equal(decode_rle(encode_rle(mask)), mask)


def test_rle_equals_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="cross-check against COCO's own library")
    generator = np.random.default_rng(1)
    for _ in range(50):
        mask = generator.random((generator.integers(1, 40), generator.integers(1, 40))) > generator.random()
        assert coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() == encode_rle(mask)["counts"]


def test_rle_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="run lengths"):
        decode_rle({"size": [2, 2], "counts": [1, 1]})


def test_planted_rectangles_are_found_largest_first() -> None:
    heatmap = np.zeros((50, 80), np.float32)
    heatmap[5:15, 10:40] = 1.0
    heatmap[30:34, 60:66] = 2.0
    heatmap[8, 20] = 3.0
    regions = find_regions(heatmap, heatmap > 0.5)
    assert [region.box for region in regions] == [(10, 5, 40, 15), (60, 30, 66, 34)]
    assert [region.area for region in regions] == [300, 24]
    assert regions[0].peak == (20.5, 8.5)
    assert regions[0].peak_score == 3.0
    assert np.array_equal(decode_rle(regions[1].rle), (heatmap == 2.0))
    x, y = regions[0].contours[0].T
    assert (x.min(), x.max(), y.min(), y.max()) == (10, 40, 5, 15)
    assert regions[0].measures["centroid_x"] == pytest.approx(25)
    assert regions[0].measures["centroid_y"] == pytest.approx(10)
    assert len(find_regions(heatmap, heatmap > 0.5, min_area=25)) == 1
    assert len(find_regions(heatmap, heatmap > 0.5, min_area=0.01)) == 1
    assert len(find_regions(heatmap, heatmap > 0.5, largest=1)) == 1
    assert find_regions(heatmap, heatmap > 9) == ()


def test_measures_of_a_turned_rectangle() -> None:
    y, x = np.mgrid[:200, :200] + 0.5
    angle = math.radians(30)
    along, across = (x - 100) * math.cos(angle) - (y - 100) * math.sin(angle), (x - 100) * math.sin(angle) + (y - 100) * math.cos(angle)
    measures = measure((abs(along) < 60) & (abs(across) < 15))
    assert measures["orientation"] == pytest.approx(30, abs=0.5)
    assert measures["length"] == pytest.approx(120, abs=2)
    assert measures["width"] == pytest.approx(30, abs=2)
    assert measures["solidity"] == pytest.approx(1, abs=0.06)
    assert measures["eccentricity"] == pytest.approx(math.sqrt(1 - (30 / 120) ** 2), abs=0.01)


@pytest.mark.parametrize(
    ("mask", "length", "width"), [(np.ones((1, 1), bool), 1, 1), (np.ones((1, 7), bool), 7, 1), (np.ones((5, 1), bool), 5, 1)]
)
def test_measures_of_thin_regions(mask: np.ndarray, length: float, width: float) -> None:
    measures = measure(mask)
    assert (measures["length"], measures["width"], measures["solidity"]) == pytest.approx((length, width, 1))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_every_strategy_separates_a_clear_foreground(name: str) -> None:
    generator = np.random.default_rng(0)
    heatmap = generator.normal(-1, 0.1, (40, 40)).astype(np.float32)
    heatmap[10:20, 10:20] = generator.normal(3, 0.1, (10, 10))
    mask = threshold_mask(heatmap, name)
    assert mask[10:20, 10:20].all()
    # The mean, Yen's and the triangle method cut near the background's own spread; the others between the two peaks.
    assert mask.sum() == 100 or name in ("mean", "yen", "triangle")
    assert mask.sum() < 0.5 * mask.size


@pytest.mark.parametrize("name", THRESHOLDS)
def test_flat_and_unknown_maps_have_no_foreground(name: str) -> None:
    rounding = (np.arange(16, dtype=np.float32).reshape(4, 4) - 8) * 1e-8
    assert not threshold_mask(-0.5 + rounding, name).any()
    assert not threshold_mask(np.full((4, 4), -0.5, np.float32), name).any()
    assert not threshold_mask(np.full((4, 4), np.nan, np.float32), name).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (30, 40)])
def test_a_polygon_has_three_corners_and_more_however_thin_the_region_is(shape: tuple[int, int]) -> None:
    """With fewer it is nothing that Label Studio or CVAT could draw."""
    rows, columns = shape
    mask = np.zeros((60, 60), dtype=bool)
    mask[5 : 5 + rows, 7 : 7 + columns] = True
    (region,) = find_regions(mask.astype(np.float32), mask)
    corners = region.polygon()
    assert {tuple(corner) for corner in corners} == {(x, y) for x in (7, 7 + columns) for y in (5, 5 + rows)}


def test_numbers_are_thresholds_too() -> None:
    heatmap = np.array([[0.1, 0.2], [np.nan, 0.3]], np.float32)
    assert threshold_mask(heatmap, 0.15).tolist() == [[False, True], [False, True]]
    assert threshold_value(heatmap, "0.15") == 0.15


@pytest.mark.parametrize("threshold", ["ostu", "nan", float("inf")])
def test_impossible_thresholds(threshold: str | float) -> None:
    with pytest.raises(ConfigurationError):
        threshold_value(np.zeros((2, 2), np.float32), threshold)


def test_mismatched_sizes_and_negative_area() -> None:
    with pytest.raises(ConfigurationError, match="same"):
        find_regions(np.zeros((2, 3), np.float32), np.zeros((3, 2), bool))
    with pytest.raises(ConfigurationError, match="negative"):
        find_regions(np.zeros((2, 3), np.float32), np.zeros((2, 3), bool), min_area=-1)


@pytest.mark.parametrize("seed", range(20))
def test_solidity_is_the_share_of_the_convex_hull_of_all_corners(seed: int) -> None:
    from scipy.spatial import ConvexHull

    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 30, 2)) < rng.choice([0.02, 0.2, 0.9])
    mask[rng.integers(mask.shape[0]), rng.integers(mask.shape[1])] = True
    rows, columns = np.nonzero(mask)
    corners = np.concatenate([np.stack([rows + down, columns + right], axis=1) for down in (0, 1) for right in (0, 1)])
    assert measure(mask)["solidity"] == pytest.approx(mask.sum() / ConvexHull(corners).volume)
