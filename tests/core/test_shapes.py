from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from concept_cam.core import regions
from concept_cam.core.geometry import Geometry
from concept_cam.core.regions import (
    Frame,
    PictureMaps,
    above,
    as_seen,
    decode_rle,
    encode_rle,
    find_shapes,
    find_shapes_of_all,
    measure,
    regions_of_map,
    threshold_value,
    threshold_values,
)
from concept_cam.core.resampling import (
    KERNELS,
    Enlargement,
    filled,
    grid_to_pixels,
    highest_places,
    highest_places_of_all,
    highest_point,
    highest_points,
    points_of,
    settled_places,
)
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


def drawn_outlines(given: list[np.ndarray]) -> list[list[np.ndarray]]:
    found = outlines(all_runs(given))
    return found.split(found.points)


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
    drawn = drawn_outlines(given)
    for number, mask in enumerate(given):
        for name, value in measure(mask).items():
            assert together[name][number] == pytest.approx(value, rel=1e-12), name
        alone = drawn_outlines([mask])[0]
        assert len(alone) == len(drawn[number])
        for one, other in zip(alone, drawn[number]):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_are_walked_edge_by_edge(seed: int) -> None:
    """Walks around the pixels one edge at a time, the pixel on the right, and turns left where two areas touch at a corner."""
    for mask in masks(4, seed):
        framed = np.pad(mask, 1)
        edges = set()
        for y, x in np.argwhere(framed):
            sides = {
                (0, -1): ((x, y), (1, 0)),
                (1, 0): ((x + 1, y), (0, 1)),
                (0, 1): ((x + 1, y + 1), (-1, 0)),
                (-1, 0): ((x, y + 1), (0, -1)),
            }
            edges |= {edge for (across, down), edge in sides.items() if not framed[y + down, x + across]}
        expected = set()
        while edges:
            at, way = first = next(iter(edges))
            walked = []
            while (at, way) in edges:
                edges.remove((at, way))
                walked.append((int(at[0]) - 1, int(at[1]) - 1))
                at = (at[0] + way[0], at[1] + way[1])
                left, right = (way[1], -way[0]), (-way[1], way[0])
                way = next(turn for turn in (left, way, right) if (at, turn) in edges or (at, turn) == first)
            corners = [
                here
                for here, before, after in zip(walked, walked[-1:] + walked, walked[1:] + walked[:1])
                if not straight(before, here, after)
            ]
            expected.add(turned(corners))
        found = drawn_outlines([mask])[0]
        assert all(outline[0].tolist() == outline[-1].tolist() for outline in found)
        assert [len(outline) for outline in found] == sorted(map(len, found), reverse=True)
        drawn = [turned([(int(x), int(y)) for x, y in outline[:-1]]) for outline in found]
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) == expected


def straight(before: tuple[int, int], here: tuple[int, int], after: tuple[int, int]) -> bool:
    return (here[0] - before[0], here[1] - before[1]) == (after[0] - here[0], after[1] - here[1])


def turned(corners: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """A closed line is the same wherever it begins."""
    return min(tuple(corners[start:] + corners[:start]) for start in range(len(corners)))


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
        several = regions_of_map(map_, geometry, threshold="otsu", resolution=resolution)
        region = several[0]
        assert decode_rle(region.rle)[top, left]
        assert [one.area for one in several[1:]] == sorted((one.area for one in several[1:]), reverse=True)
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


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.policy)
@pytest.mark.parametrize("kernel", ["cubic", "bilinear"])
def test_maps_enlarged_together_equal_the_sum_over_cells(geometry: Geometry, kernel: str) -> None:
    scores = filled(maps(geometry, 5))
    enlargement = Enlargement(scores, geometry, kernel)
    top, bottom, left, right = 100, 180, 60, 250
    together = enlargement.stack([3, 0, 4], top, bottom, left, right)
    assert together.shape == (bottom - top, 3, right - left)
    for place, number in enumerate([3, 0, 4]):
        np.testing.assert_array_equal(together[:, place], enlargement.pixels(number, top, bottom, left, right))
    weights = KERNELS[kernel]
    valid = geometry.valid()
    bounds = [np.flatnonzero(valid.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    for y, x in ((0, 0), (41, 130), (79, 189)):
        at = geometry.original_to_grid(np.array([x + left + 0.5, y + top + 0.5])) - 0.5
        places = [float(np.clip(at[1], *bounds[0])), float(np.clip(at[0], *bounds[1]))]
        value = 0.0
        lower = [int(np.floor(place)) for place in places]
        for step_y, by_y in weights(np.array(places[0] - lower[0])).items():
            for step_x, by_x in weights(np.array(places[1] - lower[1])).items():
                row, column = (int(np.clip(low + step, *bound)) for low, step, bound in zip(lower, (step_y, step_x), bounds))
                value += float(by_y) * float(by_x) * float(scores[0, row, column])
        x0, y0, x1, y1 = geometry.seen
        seen = x0 <= x + left + 0.5 < x1 and y0 <= y + top + 0.5 < y1
        assert together[y, 1, x] == pytest.approx(value, abs=1e-5) if seen else np.isnan(together[y, 1, x])


@pytest.mark.parametrize("threshold", ["half-max", "otsu", "zero", 0.2])
def test_thresholds_of_several_maps_are_those_of_each(threshold: str | float) -> None:
    scores = maps(GEOMETRIES[0], 5)
    scores[1], scores[2] = -1.0, np.nan
    assert threshold_values(scores, threshold).tolist() == [threshold_value(map_, threshold) for map_ in scores]
    assert threshold_values(scores[:0], threshold).shape == (0,)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.policy)
@pytest.mark.parametrize("stacked", [1, 10_000, 10_000_000])
def test_small_hills_alone_and_wide_ones_together_give_the_pixels_above(
    geometry: Geometry, stacked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "STACKED_PIXELS", stacked)
    scores = maps(geometry, 6)
    rows, columns = np.nonzero(geometry.valid())
    for number in (1, 4):  # one hill: a small window
        scores[number] = np.where(geometry.valid(), 0.0, np.nan)
        scores[number, rows[40 * number], columns[40 * number]] = 1.0
    hidden = np.zeros((30, 40), bool)
    hidden[10:20, 5:12] = True
    found = find_shapes(scores, geometry, threshold="otsu", resolution="original", areas=0, hidden=hidden)
    readable = np.repeat(np.repeat(~hidden, geometry.original[0] // 30, axis=0), geometry.original[1] // 40, axis=1)
    for map_, (shape, _, limit) in zip(scores, found):
        wanted = above(grid_to_pixels(map_, geometry), limit)
        if wanted.shape == readable.shape:
            wanted &= readable
            assert shape is not None
            np.testing.assert_array_equal(decode_rle(shape.rle), wanted)


def test_peaks_that_are_known_are_not_looked_for_again() -> None:
    geometry = GEOMETRIES[0]
    scores = maps(geometry, 6)
    places = highest_places(scores, geometry)
    np.testing.assert_array_equal(points_of(places, geometry), highest_points(scores, geometry))
    for one, other in zip(find_shapes(scores, geometry, threshold="otsu"), find_shapes(scores, geometry, threshold="otsu", peaks=places)):
        assert one[0] is not None
        assert other[0] is not None
        assert one[0].rle == other[0].rle


def test_settled_places_are_the_highest_ones_within_half_a_cell() -> None:
    """Against a slow search of the pixels; what lies farther off, is not shown or was not seen has no say."""
    generator = np.random.default_rng(8)
    maps = generator.normal(size=(4, 24, 40)).astype(np.float32)
    maps[1, :, :9] = np.nan
    maps[2] = np.nan
    places = np.array([[2.5, 1.25], [2.25, 3.0], [1.0, 1.0], [np.nan, np.nan]])
    found = settled_places(maps, places, (6.0, 4.0))
    for map_, place, own in zip(maps[:2], places, found):
        near = [
            (float(map_[row, column]), (column + 0.5) / 4, (row + 0.5) / 6)
            for row in range(24)
            for column in range(40)
            if int((place[1] - 0.5) * 6) <= row <= int((place[1] + 0.5) * 6)
            and int((place[0] - 0.5) * 4) <= column <= int((place[0] + 0.5) * 4)
            and np.isfinite(map_[row, column])
        ]
        assert tuple(own) == pytest.approx(max(near)[1:])
    np.testing.assert_array_equal(found[2:], places[2:])


@pytest.mark.parametrize("resolution", ["model", "original"])
@pytest.mark.parametrize("most", [regions.CHUNK_PIXELS, 200_000])
def test_many_pictures_in_one_pass_equal_each_alone(monkeypatch: pytest.MonkeyPatch, resolution: str, most: int) -> None:
    """Pictures of several sizes and policies, one of them a crop, one partly hidden, one without maps, one with peaks known already."""
    monkeypatch.setattr(regions, "CHUNK_PIXELS", most)
    frame = Frame(3, 9, (GEOMETRIES[0].original[0] + 20, GEOMETRIES[0].original[1] + 5))
    hidden = np.zeros((30, 40), bool)
    hidden[:, :15] = True
    given = [
        PictureMaps(maps(GEOMETRIES[0], 5), GEOMETRIES[0], frame),
        PictureMaps(maps(GEOMETRIES[1], 6)[1:], GEOMETRIES[1], hidden=hidden),
        PictureMaps(np.zeros((0, 14, 14), np.float32), GEOMETRIES[1]),
        PictureMaps(np.full((2, 14, 14), np.nan, np.float32), GEOMETRIES[0]),
        PictureMaps(maps(GEOMETRIES[2], 7)[2:], GEOMETRIES[2], kernel="bilinear"),
    ]
    given.append(
        PictureMaps(given[0].scores, GEOMETRIES[0], peaks=highest_places(given[0].scores, GEOMETRIES[0]), levels=given[0].scores * 1.2)
    )
    together = find_shapes_of_all(given, areas=2, min_area=3.0, resolution=resolution)
    assert [len(own) for own in together] == [5, 5, 0, 2, 5, 5]
    assert sum(shape is not None for own in together for shape, _, _ in own) > 15
    for picture, own in zip(given, together):
        for number, found in enumerate(own):
            alone = find_shapes_of_all([picture.some(slice(number, number + 1))], areas=2, min_area=3.0, resolution=resolution)[0][0]
            assert repr(found) == repr(alone)
            if found[0] is not None and alone[0] is not None:
                assert all(np.array_equal(one, other) for one, other in zip(found[0].contours, alone[0].contours, strict=True))
    assert find_shapes_of_all([]) == []


def test_highest_places_of_many_pictures_are_those_of_each() -> None:
    given = [(maps(geometry, 4)[:count], geometry) for count, geometry in zip((3, 0, 4, 2, 1), (*GEOMETRIES, GEOMETRIES[0], GEOMETRIES[1]))]
    given[3][0][1] = np.nan
    found = highest_places_of_all(given)
    assert [len(own) for own in found] == [3, 0, 4, 2, 1]
    for (scores, geometry), own in zip(given, found):
        np.testing.assert_array_equal(own, highest_places(scores, geometry))


def test_comparing_in_float32_is_comparing_exactly() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(50, 40)).astype(np.float32)
    near = scores.ravel()[:200].astype(np.float64)
    for limit in (*near, *(near * (1 + 1e-9)), *(near * (1 - 1e-9)), 0.0, np.inf, -np.inf):
        np.testing.assert_array_equal(above(scores, limit), scores.astype(np.float64) > limit)
    assert not above(np.full((1, 1), np.nan, np.float32), -np.inf).any()
