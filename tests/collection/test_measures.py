from __future__ import annotations

import math

import numpy as np
import pytest

from concept_cam.collection.measures import Frame, cell_coverage, find_area, measure_distances, uncertainties
from concept_cam.collection.questions import MEASURED_DISTANCES
from concept_cam.core.geometry import Geometry
from concept_cam.core.regions import decode_rle, encode_rle, find_regions, measure
from concept_cam.core.resampling import grid_to_pixels
from concept_cam.core.shapes import Runs, runs_of
from concept_cam.core.shapes import outlines as outlines_of

GEOMETRIES = (
    Geometry("pad", (480, 640), (224, 224), (14, 14), (0.35, 0.35), (28.0, 0.0)),
    Geometry("pad", (640, 481), (224, 224), (28, 28), (0.35, 168 / 481), (0.0, 28.0)),
    Geometry("squash", (300, 900), (224, 224), (14, 14), (224 / 300, 224 / 900)),
    Geometry("pad", (40, 60), (224, 224), (14, 14), (224 / 60, 224 / 60), (37.0, 0.0)),
    Geometry("native", (480, 640), (224, 224), (14, 14), (224 / 480, 224 / 480), (0.0, -37.0)),
)


def blobs(geometry: Geometry, seed: int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    scores = gaussian_filter(np.random.default_rng(seed).normal(size=geometry.grid), 1.5).astype(np.float32)
    return np.where(geometry.valid(), scores, np.float32(np.nan))


@pytest.mark.parametrize(
    "geometry",
    GEOMETRIES,
    ids=lambda geometry: f"{geometry.policy}-{geometry.original[0]}x{geometry.original[1]}",
)
@pytest.mark.parametrize("resolution", ["model", "original"])
@pytest.mark.parametrize("areas", [1, 0])
def test_areas_agree_with_the_slow_definition(geometry: Geometry, resolution: str, areas: int) -> None:
    scores = blobs(geometry, 3)
    frame = Frame(7, 5, (geometry.original[0] + 20, geometry.original[1] + 30))
    area, threshold = find_area(scores, geometry, frame, threshold="otsu", resolution=resolution, areas=areas)
    assert area is not None
    heat = grid_to_pixels(scores, geometry)
    with np.errstate(invalid="ignore"):
        regions = find_regions(heat, heat > threshold, largest=areas or None)
    slow = np.logical_or.reduce([decode_rle(region.rle) for region in regions])
    full = np.zeros(frame.size, dtype=bool)
    full[5 : 5 + slow.shape[0], 7 : 7 + slow.shape[1]] = slow
    found = decode_rle(area.rle)
    overlap = (found & full).sum() / (found | full).sum()
    ys, xs = np.nonzero(found)
    assert area.box == (xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min())
    assert area.pixels == found.sum() == area.values["area"]
    if resolution == "original":
        np.testing.assert_array_equal(found, full)
        assert area.count == len(regions)
        expected = measure(full)
        for name in ("area", "length", "width", "orientation", "extent", "eccentricity", "solidity"):
            assert area.values[name] == pytest.approx(expected[name], rel=1e-6), name
        assert area.centroid == pytest.approx((expected["centroid_x"], expected["centroid_y"]))
    else:
        assert overlap > 0.93
    for contour in area.contours:
        assert contour[:2].tolist() == contour[-2:].tolist()
        assert min(contour[0::2]) >= area.box[0] - 1
        assert max(contour[1::2]) <= area.box[1] + area.box[3] + 1


@pytest.mark.parametrize("seed", range(6))
def test_outlines_enclose_exactly_the_pixels(seed: int) -> None:
    """Rebuilds random masks, with holes and areas that touch at corners, from their outlines by the even-odd rule."""
    from skimage.measure import label, points_in_poly

    mask = np.random.default_rng(seed).random((9, 12)) < 0.3 + 0.1 * seed
    row, first, last = runs_of(mask)
    drawn = outlines_of(Runs(np.zeros(row.size, dtype=np.int64), row, first, last, 1))
    (outlines,) = drawn.split(drawn.points)
    centres = np.stack(np.meshgrid(np.arange(12) + 0.5, np.arange(9) + 0.5), axis=-1).reshape(-1, 2)
    inside = np.zeros(len(centres), dtype=bool)
    area = 0.0
    outer = 0
    for outline in outlines:
        np.testing.assert_array_equal(outline[0], outline[-1])
        steps = np.diff(outline, axis=0)
        assert ((steps != 0).sum(axis=1) == 1).all(), "an edge is not straight along an axis"
        x, y = outline.T
        signed = float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
        area += signed
        outer += signed > 0
        inside ^= points_in_poly(centres, outline)
    np.testing.assert_array_equal(inside.reshape(9, 12), mask)
    assert area == mask.sum()
    assert outer == label(mask, connectivity=2).max()


def test_flat_and_empty_maps_have_no_area() -> None:
    geometry = GEOMETRIES[0]
    frame = Frame(0, 0, geometry.original)
    assert find_area(np.zeros((14, 14), np.float32), geometry, frame)[0] is None
    assert find_area(np.full((14, 14), np.nan, np.float32), geometry, frame)[0] is None
    assert find_area(blobs(geometry, 0), geometry, frame, threshold=99.0) == (None, 99.0)
    assert find_area(blobs(geometry, 0), geometry, frame, min_area=0.99)[0] is None


def test_hidden_pixels_belong_to_no_area() -> None:
    geometry = GEOMETRIES[0]
    hidden = np.zeros((48, 64), dtype=bool)
    hidden[:, :32] = True
    area, _ = find_area(blobs(geometry, 2), geometry, Frame(0, 0, geometry.original), areas=0, hidden=hidden)
    assert area is not None
    assert not decode_rle(area.rle)[:, :318].any()


def test_a_picture_of_one_pixel() -> None:
    geometry = Geometry("pad", (1, 1), (32, 32), (4, 4), (32.0, 32.0))
    scores = np.zeros((4, 4), np.float32)
    scores[1:3, 1:3] = 1
    area, _ = find_area(scores, geometry, Frame(0, 0, (1, 1)), threshold=0.5)
    assert area is not None
    assert area.box == (0, 0, 1, 1)
    assert area.errors["length"] == 0.25  # the model saw it in four patches


def test_uncertainties_are_one_patch_and_missing_below_two() -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[40:70, 20:180] = True  # 160 x 30
    known = uncertainties(measure(mask), (160, 30), (10.0, 10.0))
    assert known["length"] == pytest.approx(10)
    assert known["width"] == pytest.approx(10)
    assert known["centroid"] == pytest.approx(10)
    assert known["area"] == pytest.approx(10 * 30 + 10 * 160)
    assert known["orientation"] == pytest.approx(math.degrees(math.atan2(10, 160)))
    thin = uncertainties(measure(mask), (160, 30), (16.0, 10.0))  # the width is under two patches of 16
    assert "width" not in thin
    assert "area" not in thin
    assert thin["length"] == pytest.approx(10)
    assert uncertainties(measure(mask), (160, 30), (100.0, 100.0)) == {}
    upright = uncertainties(measure(mask.T), (30, 160), (8.0, 4.0))
    assert upright["length"] == pytest.approx(8)
    assert upright["width"] == pytest.approx(4)


def test_the_uncertainty_of_the_eccentricity_is_its_derivative() -> None:
    def eccentricity(length: float, width: float) -> float:
        return math.sqrt(1 - (width / length) ** 2)

    values = {
        "length": 200.0,
        "width": 100.0,
        "orientation": 0.0,
        "extent": 0.7,
        "eccentricity": eccentricity(200, 100),
        "solidity": 0.9,
    }
    step = 1e-4
    slope = (
        abs(eccentricity(200 + step, 100) - values["eccentricity"]) / step
        + abs(eccentricity(200, 100 + step) - values["eccentricity"]) / step
    )
    assert uncertainties(values, (200, 100), (5.0, 5.0))["eccentricity"] == pytest.approx(5 * slope, rel=1e-3)


def block(grid: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    scores = np.full(grid, -0.2, dtype=np.float32)
    scores[rows, columns] = 1.0
    return scores


FISH = {
    "head": block((12, 40), slice(4, 8), slice(4, 10)),
    "trunk": block((12, 40), slice(3, 9), slice(10, 30)),
    "caudal_fin": block((12, 40), slice(2, 10), slice(30, 36)),
    "eye": block((12, 40), slice(4, 6), slice(6, 8)),
}
"""Maps of a fish of blocks that looks to the left."""


def test_distances_of_a_fish_that_looks_left_right_up_and_down() -> None:
    geometry = Geometry("squash", (96, 320), (96, 320), (12, 40), (1.0, 1.0))
    found = measure_distances(MEASURED_DISTANCES, FISH, geometry, Frame(1000, 500, (5000, 5000)))
    truth = {"standard_length": 26 * 8, "head_length": 6 * 8, "body_depth": 6 * 8, "head_depth": 4 * 8, "caudal_fin_length": 6 * 8}
    for name, length in truth.items():
        assert found[name].length == pytest.approx(length, abs=8), name
        assert found[name].error is not None
    start, end = np.reshape(found["standard_length"].line, (-1, 2))[[0, -1]]
    assert start == pytest.approx((1000 + 4 * 8, 500 + 48), abs=8)
    assert end == pytest.approx((1000 + 30 * 8, 500 + 48), abs=8)
    upright = Geometry("squash", (320, 96), (320, 96), (40, 12), (1.0, 1.0))
    for turned, where in (
        ({name: map_[:, ::-1] for name, map_ in FISH.items()}, geometry),
        ({name: map_.T for name, map_ in FISH.items()}, upright),
        ({name: map_.T[::-1] for name, map_ in FISH.items()}, upright),
    ):
        again = measure_distances(MEASURED_DISTANCES, turned, where, Frame(0, 0, where.original))
        assert {name: again[name].length for name in truth} == pytest.approx({name: found[name].length for name in truth}, abs=1.5)


def test_distances_are_in_pixels_of_the_original() -> None:
    """A picture four times as large that the model saw at the same size, also where it was squashed."""
    small = Geometry("squash", (96, 320), (96, 320), (12, 40), (1.0, 1.0))
    large = Geometry("squash", (384, 1280), (96, 320), (12, 40), (0.25, 0.25))
    squashed = Geometry("squash", (192, 320), (96, 320), (12, 40), (0.5, 1.0))
    one, four, high = (measure_distances(MEASURED_DISTANCES, FISH, each, Frame(0, 0, each.original)) for each in (small, large, squashed))
    for name in ("standard_length", "body_depth"):
        assert four[name].length == pytest.approx(4 * one[name].length, rel=0.03)
        assert four[name].error == pytest.approx(4 * one[name].error, rel=0.1)
    assert high["standard_length"].length == pytest.approx(one["standard_length"].length, rel=0.03)
    assert high["body_depth"].length == pytest.approx(2 * one["body_depth"].length, rel=0.06)


def test_a_leaf_is_measured_though_its_blade_is_little_else() -> None:
    """The two maps are alike, and which of them is the higher changes from cell to cell."""
    generator = np.random.default_rng(0)
    size = (16, 40)
    geometry = Geometry("squash", (128, 320), (128, 320), size, (1.0, 1.0))
    frame = Frame(0, 0, geometry.original)
    blade = block(size, slice(5, 11), slice(10, 30))

    def noisy(scores: np.ndarray) -> np.ndarray:
        return np.where(scores > 0, scores * generator.uniform(0.8, 1.0, size), scores).astype(np.float32)

    maps = {
        "leaf": noisy(blade),
        "leaf_blade": noisy(blade),
        "petiole": block(size, slice(7, 9), slice(4, 10)),
        "leaf_base": block(size, slice(7, 9), slice(10, 12)),
        "leaf_tip": block(size, slice(7, 9), slice(28, 30)),
    }
    names = ("leaf_length", "leaf_width")
    found = measure_distances(names, maps, geometry, frame)
    assert found["leaf_length"].length == pytest.approx(20 * 8, abs=10)
    assert found["leaf_width"].length == pytest.approx(6 * 8, abs=10)
    # Of several nothing is measured: a second one, half as large, and the tip on it.
    second = block(size, slice(5, 11), slice(33, 40))
    several = {**maps, "leaf": np.maximum(maps["leaf"], second), "leaf_blade": np.maximum(maps["leaf_blade"], second)}
    assert measure_distances(names, several, geometry, frame) == {}


def test_distances_of_insects_and_leaves() -> None:
    geometry = Geometry("squash", (96, 320), (96, 320), (12, 40), (1.0, 1.0))
    maps = {
        "pronotum": block((12, 40), slice(4, 8), slice(4, 8)),
        "elytra": block((12, 40), slice(3, 9), slice(8, 24)),
    }
    frame = Frame(0, 0, geometry.original)
    found = measure_distances(MEASURED_DISTANCES, maps, geometry, frame)
    assert found["elytral_length"].length == pytest.approx(16 * 8, abs=8)
    assert found["elytral_width"].length == pytest.approx(6 * 8, abs=8)
    assert found["elytral_width"].error == pytest.approx(8 * 2**0.5, rel=0.05)
    leaf = {"leaf": maps["elytra"]}
    assert measure_distances(("leaf_length",), leaf, geometry, frame)["leaf_length"].length == pytest.approx(16 * 8, abs=8)
    wing = {"thorax": block((12, 40), slice(2, 10), slice(2, 6)), "fore_wing": block((12, 40), slice(4, 8), slice(6, 30))}
    assert measure_distances(MEASURED_DISTANCES, wing, geometry, frame)["fore_wing_length"].length == pytest.approx(24 * 8, abs=12)


def test_distances_that_cannot_be_measured_are_left_out() -> None:
    geometry = Geometry("squash", (96, 320), (96, 320), (12, 40), (1.0, 1.0))
    frame = Frame(0, 0, geometry.original)
    assert measure_distances(MEASURED_DISTANCES, {}, geometry, frame) == {}
    assert measure_distances(MEASURED_DISTANCES, {"eye": FISH["eye"]}, geometry, frame) == {}
    headless = {name: map_ for name, map_ in FISH.items() if name != "head"}
    assert measure_distances(MEASURED_DISTANCES, headless, geometry, frame) == {}
    on_the_head = FISH | {"caudal_fin": block((12, 40), slice(5, 7), slice(5, 9))}
    assert "standard_length" not in measure_distances(MEASURED_DISTANCES, on_the_head, geometry, frame)
    before = FISH | {"caudal_fin": block((12, 40), slice(4, 8), slice(0, 4))}
    assert "standard_length" not in measure_distances(MEASURED_DISTANCES, before, geometry, frame)
    hidden = np.zeros((12, 40), dtype=bool)
    hidden[:, 30:] = True
    assert "standard_length" not in measure_distances(MEASURED_DISTANCES, FISH, geometry, frame, hidden)
    assert set(measure_distances(("head_length",), FISH, geometry, frame)) == {"head_length"}


@pytest.mark.parametrize(
    "geometry",
    GEOMETRIES,
    ids=lambda geometry: f"{geometry.policy}-{geometry.original[0]}x{geometry.original[1]}",
)
def test_cell_coverage_counts_pixels(geometry: Geometry) -> None:
    mask = np.zeros(geometry.original, dtype=bool)
    height, width = mask.shape
    mask[height // 4 : height // 2, width // 3 :] = True
    covered = cell_coverage(mask, geometry)
    cells = geometry.coverage() * geometry.cell_original[0] * geometry.cell_original[1]
    seen = geometry.seen
    inside = np.zeros_like(mask)
    inside[round(seen[1]) : round(seen[3]), round(seen[0]) : round(seen[2])] = True
    assert (covered * cells).sum() == pytest.approx((mask & inside).sum(), rel=0.02)
    assert covered.min() >= -1e-9
    assert covered.max() <= 1 + 1e-9
    np.testing.assert_allclose(cell_coverage(np.ones_like(mask), geometry)[geometry.valid()], 1, atol=1e-6)


def test_runs_are_those_of_the_painted_mask() -> None:
    geometry = GEOMETRIES[0]
    area, _ = find_area(blobs(geometry, 8), geometry, Frame(0, 0, geometry.original), areas=0)
    assert area is not None
    assert encode_rle(decode_rle(area.rle)) == area.rle
