from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from concept_cam.core.geometry import Geometry
from concept_cam.core.regions import Frame, above, as_seen, decode_rle, encode_rle, find_shapes, measure, regions_of_map, threshold_value
from concept_cam.core.resampling import Enlargement, grid_to_pixels, highest_point, highest_points
from concept_cam.core.shapes import Runs, components, outlines, runs_of, shapes

GEOMETRIES = (
    Geometry("pad", (480, 640), (224, 224), (14, 14), (0.35, 0.35), (28.0, 0.0)),
    Geometry("squash", (300, 900), (224, 224), (14, 14), (224 / 300, 224 / 900)),
    Geometry("native", (480, 640), (224, 224), (14, 14), (224 / 480, 224 / 480), (0.0, -37.0)),
)


def masks(count: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    found = [generator.random((11, 17)) < generator.choice([0.05, 0.3, 0.6]) for _ in range(count)]
    for mask in found:
        mask[generator.integers(11), generator.integers(17)] = True
    return found


def all_runs(given: list[np.ndarray]) -> Runs:
    parts = [runs_of(mask) for mask in given]
    owner = np.repeat(np.arange(len(given)), [part[0].size for part in parts])
    return Runs(owner, *(np.concatenate(arrays) for arrays in zip(*parts)), len(given))


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_scipy_in_reading_order(seed: int) -> None:
    given = masks(7, seed)
    runs = all_runs(given)
    found = components(runs)
    before = 0
    for number, mask in enumerate(given):
        labels, count = label(mask, np.ones((3, 3), bool))
        own = runs.owner == number
        np.testing.assert_array_equal(found[own] - before + 1, labels[runs.row[own], runs.first[own]])
        before += count


@pytest.mark.parametrize("seed", range(5))
def test_many_masks_in_one_pass_equal_each_alone(seed: int) -> None:
    given = masks(7, seed)
    together = shapes(all_runs(given))
    drawn = outlines(all_runs(given))
    for number, mask in enumerate(given):
        for name, value in measure(mask).items():
            assert together[name][number] == pytest.approx(value, rel=1e-12), name
        alone = outlines(all_runs([mask]))[0]
        assert len(alone) == len(drawn[number])
        for one, other in zip(alone, drawn[number]):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_moments_are_those_of_the_pixels(seed: int) -> None:
    for mask in masks(4, seed):
        y, x = np.nonzero(mask)
        found = measure(mask)
        assert (found["centroid_x"], found["centroid_y"]) == pytest.approx((x.mean() + 0.5, y.mean() + 0.5))
        roots = np.sort(np.linalg.eigvalsh(np.cov(np.stack([x, y]), bias=True)))
        if len(x) > 1 and roots[1] > roots[0] + 1e-6:
            assert found["eccentricity"] == pytest.approx(np.sqrt(1 - max(0.0, roots[0]) / roots[1]), abs=1e-6)


def maps(geometry: Geometry, count: int) -> np.ndarray:
    generator = np.random.default_rng(4)
    found = np.stack([gaussian_filter(generator.normal(size=geometry.grid), 1.2) for _ in range(count)]).astype(np.float32)
    return np.where(geometry.valid(), found, np.float32(np.nan))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.policy)
@pytest.mark.parametrize("kernel", ["cubic", "bilinear"])
def test_nothing_outside_the_window_exceeds_the_limit(geometry: Geometry, kernel: str) -> None:
    scores = maps(geometry, 20)
    enlargement = Enlargement(scores, geometry, kernel)
    smaller = 0
    for number, map_ in enumerate(scores):
        limit = threshold_value(map_, "half-max")
        whole = grid_to_pixels(map_, geometry, kernel)
        window = enlargement.window(number, limit)
        assert window is not None
        top, bottom, left, right = window
        np.testing.assert_array_equal(enlargement.pixels(number, *window), whole[top:bottom, left:right])
        outside = above(whole, limit)
        outside[top:bottom, left:right] = False
        assert not outside.any()
        smaller += (bottom - top) * (right - left) < whole.size
    assert smaller > 5
    assert enlargement.window(0, 99.0) is None


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.policy)
def test_all_maps_in_one_pass_equal_each_alone(geometry: Geometry) -> None:
    scores = maps(geometry, 6)
    scores[2] = -1.0  # nothing above half its maximum
    scores[3] = np.nan
    frame = Frame(3, 9, (geometry.original[0] + 20, geometry.original[1] + 5))
    together = find_shapes(scores, geometry, frame, areas=2)
    for map_, (shape, count, limit) in zip(scores, together):
        alone, own_count, own_limit = find_shapes(map_[None], geometry, frame, areas=2)[0]
        assert (count, limit) == (own_count, own_limit)
        assert (shape is None) == (alone is None)
        if shape is None or alone is None:
            continue
        assert (shape.box, shape.area, shape.rle) == (alone.box, alone.area, alone.rle)
        assert shape.measures == pytest.approx(alone.measures, rel=1e-12)
        for one, other in zip(shape.contours, alone.contours):
            np.testing.assert_array_equal(one, other)
    assert together[2][0] is None
    assert together[3][0] is None


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.policy)
@pytest.mark.parametrize("resolution", ["model", "original"])
def test_one_way_from_scores_to_regions(geometry: Geometry, resolution: str) -> None:
    """What `locate` shows as single regions is what `annotate` writes as one, that of the peak: same pixels, same measures, same
    outlines.
    """
    for map_ in maps(geometry, 4):
        left, top = (int(value) for value in highest_point(map_, geometry))
        regions = regions_of_map(map_, geometry, threshold="otsu", resolution=resolution)
        (region,) = (one for one in regions if decode_rle(one.rle)[top, left])
        shape = find_shapes(map_[None], geometry, threshold="otsu", resolution=resolution, areas=1)[0][0]
        assert shape is not None
        assert (region.box, region.area, dict(region.rle), region.measures) == (shape.box, shape.area, dict(shape.rle), shape.measures)
        for one, other in zip(region.contours, shape.contours):
            np.testing.assert_array_equal(one, other)
        seen = geometry if resolution == "original" else as_seen(geometry)
        inside = above(grid_to_pixels(map_, seen), threshold_value(map_, "otsu"))
        rows, columns = (
            np.minimum(((np.arange(full) + 0.5) * small / full).astype(int), small - 1)
            for full, small in zip(geometry.original, seen.original)
        )
        labels, _ = label(inside, np.ones((3, 3), bool))
        x, y = (int(value) for value in highest_point(map_, seen))
        own = labels == labels[y, x]
        assert encode_rle(own[rows][:, columns]) == dict(shape.rle)
        assert decode_rle(region.rle).sum() == region.area


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.policy)
def test_peaks_of_many_maps_equal_each_alone_and_the_fine_map(geometry: Geometry) -> None:
    scores = maps(geometry, 8)
    scores[5] = np.nan
    scores[6, 4:6] = np.nan
    together = highest_points(scores, geometry)
    for map_, point in zip(scores, together):
        np.testing.assert_array_equal(highest_point(map_, geometry), point)
    assert np.isnan(together[5]).all()
    heat = grid_to_pixels(scores[0], geometry)
    x, y = together[0]
    near = heat[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]
    assert np.nanmax(near) == pytest.approx(np.nanmax(heat), abs=2e-3)
