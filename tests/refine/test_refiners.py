"""Refined maps on pictures with planted edges: they snap, and what must not change does not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from concept_cam.backbones.lite import LiteBackbone
from concept_cam.backbones.torchvision_compat import import_transformers
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, ModelError
from concept_cam.core.geometry import Geometry
from concept_cam.core.resampling import grid_to_pixels
from concept_cam.core.results import Localizations, Provenance
from concept_cam.core.settings import REFINER_NAMES, Settings
from concept_cam.localizer import Localizer
from concept_cam.pictures.preprocessing import Preprocess
from concept_cam.pictures.reading import Picture
from concept_cam.pictures.resizing import RESIZE, prepare
from concept_cam.refine import REFINERS, find_refiners, load_refiner, refine, refined_maps
from concept_cam.refine.affinity import joint_bilateral
from concept_cam.refine.guided import EPSILON, GuidedFilter
from concept_cam.refine.keeping import SETTLING, TOP, Hill
from concept_cam.refine.scene import MOST_PIXELS, Scene, zoom_of
from concept_cam.refine.superpixel import superpixels
from tests.planted import PlantedBackbone

CELL = 8
PLAIN = ("guided", "superpixel")
"""Refiners that need nothing but the picture."""


def square(size: tuple[int, int] = (96, 128), cell: int = CELL) -> Geometry:
    """Geometry of a picture that the model sees as it is."""
    return Geometry("squash", size, size, (size[0] // cell, size[1] // cell), (1.0, 1.0))


def edge_picture(size: tuple[int, int], column: int) -> np.ndarray:
    """Dark left of a column, light from it on."""
    picture = np.full((*size, 3), 40, dtype=np.uint8)
    picture[:, column:] = (200, 180, 60)
    return picture


def blurred_edge(geometry: Geometry, column: float) -> np.ndarray:
    """The cells' map of what lies right of a column: +0.5 there, -0.3 left of it, and three cells between; float32 [1, h, w]."""
    middle = (np.arange(geometry.grid[1]) + 0.5) * geometry.cell[1]
    share = np.clip((middle - column) / (3 * geometry.cell[1]) + 0.5, 0, 1)
    return np.broadcast_to((0.8 * share - 0.3).astype(np.float32), (1, *geometry.grid)).copy()


def refined(name: str, maps: np.ndarray, geometry: Geometry, picture: np.ndarray | None, **options: object) -> np.ndarray:
    """Refined maps in the picture's own pixels."""
    function = load_refiner(name)
    assert function is not None
    found = refined_maps(maps, Scene(geometry, pixels=picture, **options), function)  # type: ignore[arg-type]
    frame = geometry.with_grid((found.shape[1], found.shape[2]))
    return np.stack([grid_to_pixels(map_, frame) for map_ in found])


# ------------------------------------------------------------------------------------------------------------- registry


def test_the_names_that_load_no_torch_are_those_of_the_registry() -> None:
    assert tuple(REFINERS) == REFINER_NAMES


@pytest.mark.parametrize("text", ["guidd", "guided:3", "masks", "masks:", "none:x", "", "guided+none", "guided+affinity", "none+guided"])
def test_a_wrong_refiner_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Did you mean|expected the refiner|Known|cannot follow"):
        find_refiners(text)


def test_an_argument_is_kept() -> None:
    (found,) = find_refiners("affinity:dinov2:some/folder+more")
    assert found.argument == "dinov2:some/folder+more"
    first, second = find_refiners("affinity:dinov2:some/folder+guided")
    assert (first.argument, second.name) == ("dinov2:some/folder", "guided")
    assert Settings(refine="affinity:dinov2:some/folder").refine == "affinity:dinov2:some/folder"
    with pytest.raises(ConfigurationError, match=r"unknown refine 'guide'\. Did you mean 'guided'"):
        Settings(refine="guide")


def test_none_is_no_refiner() -> None:
    assert load_refiner("none") is None
    assert find_refiners("none") == ()


def test_refiners_follow_each_other() -> None:
    geometry = square()
    picture = np.random.default_rng(8).integers(0, 256, (*geometry.original, 3), dtype=np.uint8)
    scene = Scene(geometry, pixels=picture)
    maps = torch.from_numpy(blurred_edge(geometry, 60))
    both, first, second = (load_refiner(name) for name in ("superpixel+guided", "superpixel", "guided"))
    assert both is not None
    assert first is not None
    assert second is not None
    torch.testing.assert_close(both(maps, scene), second(first(maps, scene), scene))
    assert Settings(refine="superpixel+guided").refine == "superpixel+guided"
    with pytest.raises(ConfigurationError, match=r"unknown refine .*guidd'\. Did you mean 'guided'"):
        Settings(refine="superpixel+guided+guidd")


# --------------------------------------------------------------------------------------------------------- planted edges


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("column", [61, 64, 70])
def test_a_blurred_map_snaps_to_the_edge(name: str, column: int) -> None:
    """The map's border lies two pixels from the picture's edge, and three cells wide; refined it lies on it, and is far steeper."""
    geometry = square()
    picture = edge_picture(geometry.original, column)
    maps = blurred_edge(geometry, column + 2)
    before = grid_to_pixels(maps[0], geometry)
    after = refined(name, maps, geometry, picture)[0]
    # The border is where the map passes half way between its two levels.
    assert ((before > 0.1).argmax(axis=1) == column + 2).all()
    assert ((after > 0.1).argmax(axis=1) == column).all()
    across = [(map_[:, column] - map_[:, column - 1]) for map_ in (before, after)]
    assert across[1].min() > 3 * across[0].max()


def test_the_edge_of_one_map_leaves_another_alone() -> None:
    """Maps of one picture share its statistics, not their values: together or alone they get the same."""
    geometry = square()
    picture = edge_picture(geometry.original, 61)
    maps = np.concatenate([blurred_edge(geometry, 64), -blurred_edge(geometry, 40), np.full((1, *geometry.grid), 0.2, np.float32)])
    together = refined("guided", maps, geometry, picture)
    for number in range(len(maps)):
        alone = refined("guided", maps[number : number + 1], geometry, picture)[0]
        np.testing.assert_allclose(together[number], alone, atol=1e-5)
    np.testing.assert_allclose(together[2], 0.2, atol=1e-5)


@pytest.mark.parametrize("name", [*PLAIN, "affinity"])
def test_a_flat_picture_changes_nothing(name: str) -> None:
    geometry = square()
    generator = np.random.default_rng(0)
    maps = generator.normal(size=(3, *geometry.grid)).astype(np.float32)
    picture = np.full((*geometry.original, 3), 77, dtype=np.uint8)
    features = torch.ones(*geometry.grid, 5)
    found = refined(name, maps, geometry, picture, features=features)
    np.testing.assert_allclose(found, [grid_to_pixels(map_, geometry) for map_ in maps], atol=1e-4)


@pytest.mark.parametrize("name", [*PLAIN, "affinity"])
def test_sign_range_and_highest_score_are_kept(name: str) -> None:
    geometry = square()
    generator = np.random.default_rng(1)
    picture = generator.integers(0, 256, (*geometry.original, 3), dtype=np.uint8)
    picture[:, 64:] //= 2
    smooth = np.cumsum(np.cumsum(generator.normal(size=(4, *geometry.grid)), axis=1), axis=2).astype(np.float32)
    smooth[1] = np.abs(smooth[1]) + 0.1
    smooth[2] = -np.abs(smooth[2]) - 0.1
    features = torch.from_numpy(generator.normal(size=(*geometry.grid, 6)))
    found = refined(name, smooth, geometry, picture, features=features)
    before = np.stack([grid_to_pixels(map_, geometry) for map_ in smooth])
    assert (found.min(axis=(1, 2)) >= before.min(axis=(1, 2)) - 1e-5).all()
    assert (found[1] > 0).all() or before[1].min() <= 0
    assert (found[2] < 0).all() or before[2].max() >= 0
    np.testing.assert_allclose(found.max(axis=(1, 2)), before.max(axis=(1, 2)), atol=1e-5)
    for own, plain in zip(found, before):
        places = [np.array(np.unravel_index(int(map_.argmax()), map_.shape)) for map_ in (own, plain)]
        assert np.hypot(*(places[0] - places[1])) <= SETTLING * CELL
        assert (own == own.max()).sum() == 1
    assert not np.allclose(found, before, atol=1e-2)


def test_no_pixel_leaves_the_range_that_the_map_has_about_it() -> None:
    """Restated slowly: the highest and lowest value within a cell and a block of samples of each pixel."""
    geometry = square((48, 64))
    generator = np.random.default_rng(2)
    maps = generator.normal(size=(1, *geometry.grid)).astype(np.float32)
    picture = generator.integers(0, 256, (*geometry.original, 3), dtype=np.uint8)
    found, before = refined("guided", maps, geometry, picture)[0], grid_to_pixels(maps[0], geometry)
    reach = CELL
    for row in range(0, 48, 5):
        for column in range(0, 64, 5):
            near = before[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            assert near.min() - 1e-5 <= found[row, column] <= near.max() + 1e-5


def hill(geometry: Geometry, at: tuple[float, float], width: float = CELL) -> np.ndarray:
    """A map [1, h, w] that is highest at ``(row, column)`` in pixels."""
    rows, columns = ((np.arange(count) + 0.5) * CELL for count in geometry.grid)
    away = (rows[:, None] - at[0]) ** 2 + (columns - at[1]) ** 2
    return np.exp(-away / (2 * width**2)).astype(np.float32)[None]


def feeler(size: tuple[int, int], columns: slice) -> np.ndarray:
    """A dark line, from the top down, on light ground."""
    picture = np.full((*size, 3), 210, dtype=np.uint8)
    picture[:, columns] = (60, 40, 30)
    return picture


@pytest.mark.parametrize("beside", [-3.0, 3.0])
def test_the_top_settles_on_a_line_that_is_thinner_than_a_cell(beside: float) -> None:
    """The map is highest beside a line two pixels wide: its top is brought onto the line."""
    geometry = square()
    picture = feeler(geometry.original, slice(59, 61))
    maps = hill(geometry, (60.0, 60.0 + beside))
    before = grid_to_pixels(maps[0], geometry)
    after = refined("guided", maps, geometry, picture)[0]
    assert int(before.max(axis=0).argmax()) not in (59, 60)
    row, column = np.unravel_index(int(after.argmax()), after.shape)
    assert column in (59, 60)
    assert abs(row - int(before.max(axis=1).argmax())) <= SETTLING * CELL
    assert after.max() == pytest.approx(float(before.max()), abs=1e-6)


def test_the_top_goes_no_farther_than_it_may() -> None:
    """A line half a cell beside the top is not reached; what lies there is as it would be without."""
    geometry = square()
    maps = hill(geometry, (60.0, 60.0), 2 * CELL)
    before = grid_to_pixels(maps[0], geometry)
    after = refined("guided", maps, geometry, feeler(geometry.original, slice(65, 67)))[0]
    places = [np.array(np.unravel_index(int(map_.argmax()), map_.shape)) for map_ in (before, after)]
    assert np.hypot(*(places[0] - places[1])) <= SETTLING * CELL


def test_the_peak_stays_on_its_hill_where_another_is_as_high() -> None:
    """Two hills of one height, each beside a line: the answer's peak settles on the line of its own, and does not jump."""
    geometry = square()
    picture = feeler(geometry.original, slice(29, 31)) // 2 + feeler(geometry.original, slice(93, 95)) // 2
    for first, second, own in ((1.0, 0.999, 29), (0.999, 1.0, 93)):
        maps = first * hill(geometry, (44.0, 28.0)) + second * hill(geometry, (52.0, 92.0))
        concept = Concept(("a line",))
        provenance = Provenance("m", "h", "direct", "float32", {"gamma": 1.0})
        plain = Localizations(
            (concept,), maps, np.zeros(1, np.float32), np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), geometry, provenance
        )
        found = refine(replace(plain, picture=picture), "guided")[0]
        before, after = plain[0].peak, found.peak
        assert abs(before[0] - own) < CELL
        assert own <= after[0] <= own + 2
        assert math.dist(before, after) <= SETTLING * CELL + 1.5
        x, y = (int(value) for value in after)
        near = found.heatmap[y - 4 : y + 5, x - 4 : x + 5]
        assert found.heatmap[y, x] == near.max()


def test_a_hill_is_settled_as_told_slowly() -> None:
    """Every pixel against the definition: where the refined map is highest near the top, that place takes the top's height, and the refined
    map about it is lifted as much, fading out at twice the reach.
    """
    generator = np.random.default_rng(11)
    refined_, wide = (torch.from_numpy(generator.normal(size=(20, 24)).astype(np.float32)) for _ in range(2))
    wide[9, 4] = 5.0
    refined_ = refined_.clamp(max=4.0)
    found = wide.clone()
    Hill(refined_, wide, (10, 4), (8.0, 12.0)).settle(found)
    reach = 8.0 * SETTLING, 12.0 * SETTLING
    away = {(row, column): math.hypot((row - 9) / reach[0], (column - 4) / reach[1]) for row in range(20) for column in range(24)}
    best = max((place for place in away if away[place] <= 1), key=lambda place: float(refined_[place]))
    lift = 5.0 - float(refined_[best])
    for place, far in away.items():
        near = min(1.0, max(0.0, 2 - far))
        told = min(5.0, near * (float(refined_[place]) + lift) + (1 - near) * float(wide[place]))
        assert float(found[place]) == pytest.approx(5.0 if place == best else told, abs=1e-5)
    assert tuple(np.unravel_index(int(found.argmax()), found.shape)) == best


def test_of_equal_places_the_one_nearest_to_the_top_is_taken() -> None:
    """Segments have one score throughout: the top of the map stays where it is."""
    wide = torch.from_numpy(grid_to_pixels(hill(square(), (60.0, 60.0))[0], square()))
    found = wide.clone()
    Hill(torch.full_like(wide, 0.3), wide, (60, 60), (8.0, 8.0)).settle(found)
    assert int(found.argmax()) == int(wide.argmax())


def test_a_map_and_its_negative_are_refined_alike() -> None:
    """Nothing but the top of the range is treated apart."""
    geometry = square()
    maps = blurred_edge(geometry, 60)
    picture = edge_picture(geometry.original, 61)
    up, down = refined("guided", maps, geometry, picture)[0], refined("guided", -maps, geometry, picture)[0]
    middle = (maps.max() - maps.min()) * TOP
    inner = (up > maps.min() + middle) & (up < maps.max() - middle)
    np.testing.assert_allclose(up[inner], -down[inner], atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- odd inputs


@pytest.mark.parametrize("policy", sorted(RESIZE))
@pytest.mark.parametrize("size", [(37, 91), (120, 33), (5, 7), (64, 64)])
@pytest.mark.parametrize("name", PLAIN)
def test_every_policy_and_size_has_refined_maps_where_the_picture_is(policy: str, size: tuple[int, int], name: str) -> None:
    generator = np.random.default_rng(3)
    picture = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    preprocess = Preprocess((32, 32), (8, 8), (0.5,) * 3, (0.5,) * 3, "bilinear")
    geometry = prepare(Picture(picture), preprocess, policy).geometry
    maps = generator.normal(size=(2, *geometry.grid)).astype(np.float32)
    maps[:, ~geometry.valid()] = np.nan
    found = refined(name, maps, geometry, picture)
    seen = ~np.isnan(grid_to_pixels(np.zeros(geometry.grid, np.float32), geometry))
    assert np.isfinite(found[:, seen]).all()
    assert np.isnan(found[:, ~seen]).all()


def test_cells_that_may_not_be_read_are_nan_and_have_no_say() -> None:
    geometry = square()
    picture = edge_picture(geometry.original, 61)
    maps = blurred_edge(geometry, 64)
    hidden = np.zeros(geometry.grid, dtype=bool)
    hidden[4:7, 2:5] = True
    spoilt = np.where(hidden, np.float32(1e6), maps)
    function = load_refiner("guided")
    assert function is not None
    found = refined_maps(spoilt, Scene(geometry, ~hidden, picture), function)[0]
    covered = hidden.repeat(CELL, axis=0).repeat(CELL, axis=1)
    assert np.isnan(found[covered]).all()
    assert np.isfinite(found[~covered]).all()
    assert np.nanmax(found) < 0.6  # cubic interpolation passes the range a little


def test_nothing_to_be_read_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cells that may be read"):
        Scene(square(), np.zeros(square().grid, dtype=bool))


def test_without_its_picture_a_map_is_not_refined() -> None:
    with pytest.raises(ConfigurationError, match="the picture is not at hand"):
        refined("guided", blurred_edge(square(), 64), square(), None)


def test_a_map_says_by_what_it_was_refined_whoever_asked() -> None:
    """What is promised of the map as it was, such as its masks, holds for no refined one."""

    def doubled(maps: torch.Tensor, scene: Scene) -> torch.Tensor:
        return scene.enlarge(maps) * 2

    localizer, picture = Localizer(PlantedBackbone()), edge_picture((64, 64), 30)
    answers = localizer.locate_all([picture], [Concept("red", ("green",))])[0]
    asked = localizer.with_settings(refine="guided").locate_all([picture], [Concept("red", ("green",))])[0]
    for plain, by_settings in ((answers, asked), (answers[0], asked[0])):
        found = refine(plain, "guided")
        np.testing.assert_array_equal(found.refined, by_settings.refined)
        assert found.provenance == by_settings.provenance
        assert found.provenance.refine == "guided"
        assert refine(plain, load_refiner("guided")).provenance == found.provenance
        assert refine(plain, doubled).provenance.refine == "doubled"
        assert refine(plain, "none").provenance == refine(found, "none").provenance == plain.provenance


def test_a_map_is_as_fine_as_the_picture_up_to_a_limit() -> None:
    small = Geometry("squash", (96, 96), (48, 48), (6, 6), (0.5, 0.5))
    assert zoom_of(small) == 2
    assert zoom_of(square()) == 1
    large = Geometry("squash", (9000, 9000), (384, 384), (48, 48), (384 / 9000, 384 / 9000))
    assert (384 * zoom_of(large)) ** 2 <= MOST_PIXELS < (384 * (zoom_of(large) + 1)) ** 2
    # A tower that reads very large inputs is refined at what it reads.
    assert zoom_of(Geometry("tile", (4000, 4000), (4000, 4000), (250, 250), (1.0, 1.0))) == 1


def test_a_smaller_copy_of_the_picture_serves_as_well() -> None:
    geometry = Geometry("squash", (384, 512), (96, 128), (12, 16), (0.25, 0.25))
    picture = edge_picture((384, 512), 244)
    small = np.ascontiguousarray(picture[::2, ::2])
    maps = blurred_edge(geometry, 64)
    whole, copy = (refined("guided", maps, geometry, pixels)[0] for pixels in (picture, small))
    assert np.abs(whole - copy).mean() < 0.01


# ------------------------------------------------------------------------------------------------------- the guided filter


def test_the_guided_filter_is_that_of_the_paper() -> None:
    """Restated window by window at the full resolution: He et al., equations 19 to 21 (colour guide)."""
    generator = np.random.default_rng(4)
    guide = torch.from_numpy(generator.random((3, 11, 13))).float()
    maps = torch.from_numpy(generator.normal(size=(2, 11, 13))).float()
    found = GuidedFilter(guide, (3.0, 3.0))(maps)
    height, width = guide.shape[1:]

    def window(row: int, column: int) -> tuple[slice, slice]:
        return slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)

    slopes, levels = np.zeros((2, 3, height, width)), np.zeros((2, height, width))
    for row in range(height):
        for column in range(width):
            near = guide[:, *window(row, column)].reshape(3, -1).double().numpy()
            middle = near.mean(axis=1)
            covariance = (near - middle[:, None]) @ (near - middle[:, None]).T / near.shape[1]
            for number in range(2):
                own = maps[number][window(row, column)].reshape(-1).double().numpy()
                cross = ((near - middle[:, None]) * (own - own.mean())).mean(axis=1)
                slopes[number, :, row, column] = np.linalg.solve(covariance + EPSILON * np.eye(3), cross)
                levels[number, row, column] = own.mean() - slopes[number, :, row, column] @ middle
    for row in range(height):
        for column in range(width):
            near = window(row, column)
            for number in range(2):
                slope = slopes[number][:, *near].reshape(3, -1).mean(axis=1)
                expected = slope @ guide[:, row, column].double().numpy() + levels[number][near].mean()
                assert float(found[number, row, column]) == pytest.approx(expected, abs=2e-4)


# -------------------------------------------------------------------------------------------------------------- the others


def test_superpixels_vote_by_their_mean() -> None:
    geometry = square()
    picture = edge_picture(geometry.original, 61)
    labels = superpixels(picture, 40)
    assert labels.min() == 0
    left, right = set(np.unique(labels[:, :61])), set(np.unique(labels[:, 61:]))
    assert not left & right  # none lies across the edge


def test_joint_bilateral_is_its_definition() -> None:
    generator = np.random.default_rng(5)
    maps = torch.from_numpy(generator.normal(size=(2, 5, 6))).float()
    features = torch.from_numpy(generator.normal(size=(4, 5, 6))).float()
    valid = torch.ones(5, 6, dtype=torch.bool)
    valid[2, 3] = False
    found = joint_bilateral(maps, features, valid, 2, 0.3)
    unit = (features / features.norm(dim=0)).double()
    for row in range(5):
        for column in range(6):
            total, sums = 0.0, np.zeros(2)
            for y in range(max(0, row - 2), min(5, row + 3)):
                for x in range(max(0, column - 2), min(6, column + 3)):
                    if valid[y, x]:
                        weight = np.exp((float(unit[:, row, column] @ unit[:, y, x]) - 1) / 0.3)
                        total, sums = total + weight, sums + weight * maps[:, y, x].double().numpy()
            np.testing.assert_allclose(found[:, row, column], sums / total, rtol=1e-4)


def test_affinity_of_the_tower_stops_where_its_features_change() -> None:
    """A map with one high cell spreads over the like half alone."""
    geometry = square()
    features = torch.zeros(*geometry.grid, 2)
    features[:, :8, 0] = 1
    features[:, 8:, 1] = 1
    maps = torch.zeros(1, *geometry.grid)
    maps[0, 5, 7] = 1.0
    valid = torch.ones(geometry.grid, dtype=torch.bool)
    found = joint_bilateral(maps, features.movedim(-1, 0), valid, 2)[0]
    assert (found[3:8, 5:8] > 0.03).all()
    assert (found[:, 8:] < 1e-4).all()
    picture = np.random.default_rng(7).integers(0, 256, (*geometry.original, 3), dtype=np.uint8)
    whole = refined("affinity", maps.numpy(), geometry, picture, features=features)[0]
    assert whole[44, 50] > grid_to_pixels(maps[0].numpy(), geometry)[44, 50] + 0.02


def test_affinity_without_features_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="affinity:early"):
        refined("affinity", blurred_edge(square(), 64), square(), edge_picture((96, 128), 61))


def test_early_maps_of_the_bundled_backbone_sharpen_an_edge() -> None:
    geometry = square((192, 256))
    generator = np.random.default_rng(6)
    picture = edge_picture(geometry.original, 125) + generator.integers(0, 20, (192, 256, 3), dtype=np.uint8)
    maps = blurred_edge(geometry, 128)
    before, after = grid_to_pixels(maps[0], geometry), refined("affinity:early", maps, geometry, picture)[0]
    # Means of a band on either side of the edge part.
    part = [map_[20:-20, 127:137].mean() - map_[20:-20, 113:123].mean() for map_ in (before, after)]
    assert part[1] > part[0] + 0.05


def test_early_maps_have_the_backbones_numbers() -> None:
    backbone = Localizer.from_pretrained("demo").backbone
    assert isinstance(backbone, LiteBackbone)
    pixels = torch.randn(1, 3, 40, 72)
    whole = backbone.model.image.trunk(torch.nn.functional.pad(pixels, (0, 24, 0, 24), mode="replicate"))[4]  # type: ignore[union-attr, operator]
    early = backbone.early(pixels)
    assert early.shape == (1, 24, 10, 18)
    torch.testing.assert_close(early, whole[..., :10, :18])


def test_another_towers_patches_bound_a_map(tmp_path: Path) -> None:
    """DINOv2 on its true architecture with random weights: features of a random tower still follow the picture's colours."""
    library = import_transformers()
    torch.manual_seed(0)
    config = library.Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=56, patch_size=7, layerscale_value=0.1
    )
    library.Dinov2Model(config).eval().save_pretrained(tmp_path)
    geometry = square((192, 256), 32)
    picture = edge_picture(geometry.original, 120)
    noise = np.random.default_rng(9).integers(0, 12, picture.shape, dtype=np.uint8)
    refiner = load_refiner(f"affinity:dinov2:{tmp_path}")
    assert refiner is not None
    maps = blurred_edge(geometry, 128)
    found = refined_maps(maps, Scene(geometry, pixels=picture + noise), refiner)[0]
    before = grid_to_pixels(maps[0], geometry)
    assert found.shape == (192, 256)
    assert np.isfinite(found).all()
    assert np.abs(found - before).max() > 0.01


def test_an_unknown_tower_is_named() -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        load_refiner("affinity:no-such-model")


# -------------------------------------------------------------------------------------------------------------- answers


def planted(**values: object) -> Localizer:
    return Localizer(PlantedBackbone(), Settings(**values))  # type: ignore[arg-type]


QUESTION = [Concept(("red",), (("blue",),), name="red")]


def half_red(size: tuple[int, int] = (64, 64), column: int = 29) -> np.ndarray:
    picture = np.zeros((*size, 3), dtype=np.uint8)
    picture[:, :column] = (250, 0, 0)
    picture[:, column:] = (0, 0, 250)
    return picture


def test_answers_keep_their_scores_beside_the_refined_map() -> None:
    picture = half_red()
    plain = planted(size=32).locate_all([picture], QUESTION)[0]
    found = planted(size=32, refine="guided").locate_all([picture], QUESTION)[0]
    np.testing.assert_array_equal(found.scores, plain.scores)
    np.testing.assert_array_equal(found.probabilities, plain.probabilities)
    assert plain.refined is None
    assert found.refined is not None
    assert found.refined.shape == (1, 64, 64)
    answer, before = found[0], plain[0]
    assert answer.threshold() == before.threshold()
    x, y = (int(value) for value in answer.peak)
    assert answer.heatmap[y, x] == pytest.approx(float(answer.heatmap.max()), abs=1e-4)
    np.testing.assert_allclose(sum(answer.ledger().values()), answer.scores, atol=1e-6)
    assert answer.heatmap.shape == (64, 64)
    assert answer.provenance.refine == "guided"
    assert before.provenance.refine == "none"
    # The outline lies on the edge to the pixel, at either resolution.
    assert before.regions("zero")[0].box[2] != 29
    assert answer.regions("zero")[0].box == (0, 0, 29, 64)
    assert answer.mask("zero")[:, :29].all()
    assert not answer.mask("zero")[:, 29:].any()


def test_saved_numbers_hold_the_refined_map() -> None:
    import io

    found = planted(size=32, refine="guided").locate(half_red(), "red", "blue")
    with np.load(io.BytesIO(found.to_npz())) as content:
        np.testing.assert_array_equal(content["refined"], found.refined)
    with np.load(io.BytesIO(planted(size=32).locate(half_red(), "red", "blue").to_npz())) as content:
        assert "refined" not in content


def test_overlays_are_drawn_from_the_refined_map() -> None:
    found = planted(size=32, refine="guided").locate(half_red((64, 96), 44), "red", "blue")
    plain = planted(size=32).locate(half_red((64, 96), 44), "red", "blue")
    assert found.overlay().tobytes() != plain.overlay().tobytes()


def test_scores_alone_cannot_be_refined() -> None:
    localizer = planted(refine="guided")
    features = localizer.encode(half_red())
    with pytest.raises(ConfigurationError, match="give the picture too"):
        localizer.score(features, QUESTION)
    found = localizer.score(features, QUESTION, half_red())
    assert found.refined is not None
    several = localizer.score([features, features], QUESTION, [half_red(), half_red()])
    np.testing.assert_array_equal(several[1].refined, found.refined)


@pytest.mark.parametrize("method", ["grad-cam", "direct", "center"])
def test_every_method_is_refined_after_its_subtraction(method: str) -> None:
    localizer = Localizer.from_pretrained("demo", size=96)
    picture = half_red((64, 96), 44)
    plain = localizer.locate_all([picture], QUESTION, method=method)[0]
    found = localizer.locate_all([picture], QUESTION, method=method, refine="guided")[0]
    np.testing.assert_array_equal(found.scores, plain.scores)
    assert found.refined is not None
    np.testing.assert_allclose(found.refined, refine(plain, "guided", picture).refined, atol=1e-6)
    assert found.provenance.refine == "guided"


def test_a_map_of_nothing_is_left_alone() -> None:
    answers = planted().locate_all([half_red()], QUESTION)[0]
    nothing = replace(answers, scores=np.full_like(answers.scores, np.nan))
    assert refine(nothing, "guided", half_red()).refined is None


def test_settings_of_one_call_refine_that_call() -> None:
    localizer = planted(size=32)
    assert localizer.locate(half_red(), "red", "blue", refine="superpixel").refined is not None
    assert localizer.locate(half_red(), "red", "blue").refined is None
    assert isinstance(localizer.locate_all([half_red()], QUESTION, refine="guided")[0], Localizations)
