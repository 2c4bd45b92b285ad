"""A second look on pictures with planted parts: windows lie where they should, cells nest exactly, small parts are seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.pictures.preprocessing import Preprocess
from concept_cam.pictures.reading import Picture
from concept_cam.pictures.resizing import RESIZE, closer, magnified, prepare, taper
from concept_cam.refine import refine
from concept_cam.refine.look import MOST_WINDOWS, WEIGHTS, WIDE_WEIGHT, ZOOM, SecondLook, best_region, chosen_windows, depth
from tests.butterflies import PACK, PartsBackbone, butterfly
from tests.planted import PlantedBackbone

RED = Concept(("red",), (("blue",),), name="red")
PART = Concept(("red",), (("blue",),), name="part", metadata={"kind": "part"})


def planted(**values: object) -> Localizer:
    return Localizer(PlantedBackbone(size=64), Settings(**values))  # type: ignore[arg-type]


def dot(at: tuple[int, int], side: int, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """A red square on blue."""
    picture = np.zeros((*size, 3), dtype=np.uint8)
    picture[..., 2] = 250
    picture[at[0] : at[0] + side, at[1] : at[1] + side] = (250, 0, 0)
    return picture


# ------------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("policy", sorted(RESIZE))
@pytest.mark.parametrize("size", [(97, 251), (300, 120), (40, 40)])
@pytest.mark.parametrize("zoom", [1, 2, 3])
def test_the_magnified_frame_is_that_of_the_geometry(policy: str, size: tuple[int, int], zoom: int) -> None:
    """A picture whose colours are its coordinates: each magnified pixel shows the place that the geometry says."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    picture = np.stack([columns * 250 / size[1], rows * 250 / size[0], np.zeros(size)], axis=-1).round().astype(np.uint8)
    preprocess = Preprocess((64, 64), (8, 8), (0.0,) * 3, (1.0,) * 3, "bilinear")
    geometry = prepare(Picture(picture), preprocess, policy).geometry
    found = magnified(picture, geometry, zoom, interpolation="bilinear")
    assert found.shape == (geometry.model[0] * zoom, geometry.model[1] * zoom, 3)
    rows, columns = np.mgrid[0 : found.shape[0], 0 : found.shape[1]]
    places = geometry.model_to_original(np.stack([columns + 0.5, rows + 0.5], axis=-1) / zoom)
    expected = (places - 0.5) * 250 / (size[1], size[0])
    # Away from the picture's edges, where a filter has the picture on one side only.
    reach = 2 + 2 / min(geometry.scale)
    inner = ((places > reach) & (places < np.array([size[1], size[0]]) - reach)).all(axis=-1)
    off = np.abs(found[..., :2] - expected)[inner]
    assert not inner.any() or off.max() <= 1.5
    x0, y0, x1, y1 = geometry.content
    outside = (columns + 0.5 < x0 * zoom) | (columns + 0.5 > x1 * zoom) | (rows + 0.5 < y0 * zoom) | (rows + 0.5 > y1 * zoom)
    assert (found[outside] == 128).all()


@pytest.mark.parametrize("policy", ["pad", "squash", "aspect"])
def test_magnified_once_is_the_models_input(policy: str) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (73, 150, 3), dtype=np.uint8)
    preprocess = Preprocess((64, 64), (8, 8), (0.5,) * 3, (0.25,) * 3, "bicubic")
    item = prepare(Picture(picture), preprocess, policy)
    pixels, shown = closer(picture, item.geometry, preprocess, 1, [(0, 0)], item.geometry.grid)
    torch.testing.assert_close(pixels[0], item.pixels)
    np.testing.assert_array_equal(shown[0], item.valid)


@pytest.mark.parametrize("corner", [(0, 0), (3, 5), (8, 8), (10, 12)])
def test_a_window_is_that_part_of_the_whole_magnified_frame(corner: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    small = generator.integers(0, 256, (20, 26, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((260, 200), Image.Resampling.BICUBIC))
    preprocess = Preprocess((64, 64), (8, 8), (0.4, 0.5, 0.6), (0.25,) * 3, "bicubic")
    geometry = prepare(Picture(picture), preprocess, "pad").geometry
    whole, _ = closer(picture, geometry, preprocess, 2, [(0, 0)], (16, 16))
    window, shown = closer(picture, geometry, preprocess, 2, [corner], (8, 8))
    top, left = corner[0] * 8, corner[1] * 8
    part = F.pad(whole[0], (0, 64, 0, 64))[:, top : top + 64, left : left + 64]
    assert float((window[0] - part).abs().max()) < 0.04  # two levels of 255, over a deviation of 0.25
    fine = geometry.with_grid((16, 16)).valid()
    expected = np.pad(fine, ((0, 8), (0, 8)))[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8]
    np.testing.assert_array_equal(shown[0], expected)


def test_a_fixed_input_size_is_filled_up() -> None:
    preprocess = Preprocess((67, 67), (8, 8), (0.5,) * 3, (0.25,) * 3, "bicubic", flexible=False)
    picture = np.full((100, 100, 3), 200, dtype=np.uint8)
    geometry = prepare(Picture(picture), preprocess, "pad").geometry
    pixels, shown = closer(picture, geometry, preprocess, 2, [(0, 0)], geometry.grid)
    assert pixels.shape == (1, 3, 67, 67)
    assert shown.shape == (1, 8, 8)


# -------------------------------------------------------------------------------------------------------------- regions


def test_the_best_region_holds_the_peak() -> None:
    scores = np.zeros((6, 8), np.float32)
    scores[1:3, 1:3] = 0.9
    scores[4, 5:8] = 1.0
    valid = np.ones((6, 8), dtype=bool)
    region = best_region(scores, valid)
    assert region is not None
    np.testing.assert_array_equal(region, scores == 1)
    assert depth(region) == 1
    valid[4] = False
    other = best_region(scores, valid)
    assert other is not None
    np.testing.assert_array_equal(other, scores == np.float32(0.9))
    assert best_region(np.ones((3, 3), np.float32), np.ones((3, 3), dtype=bool)) is None
    assert depth(np.ones((5, 7), dtype=bool)) == 3


def test_windows_cover_regions_and_stay_in_the_frame() -> None:
    generator = np.random.default_rng(2)
    for _ in range(30):
        regions = np.zeros((5, 16, 24), dtype=bool)
        for region in regions:
            row, column = generator.integers(0, 15), generator.integers(0, 22)
            region[row : row + 1 + generator.integers(0, 3), column : column + 1 + generator.integers(0, 4)] = True
        windows = chosen_windows(regions, (16, 16))
        assert 0 < len(windows) <= MOST_WINDOWS
        assert len(set(windows)) == len(windows)
        assert all(0 <= row <= 32 - 16 and 0 <= column <= 48 - 16 for row, column in windows)


def test_a_long_region_is_read_from_end_to_end() -> None:
    region = np.zeros((1, 12, 40), dtype=bool)
    region[0, 6, 2:38] = True
    windows = chosen_windows(region, (24, 24))
    read = np.zeros(80, dtype=bool)
    for _, column in windows:
        read[column : column + 24] = True
    assert read[4:76].mean() > 0.9


def test_a_frame_smaller_than_a_window_has_one() -> None:
    region = np.zeros((1, 3, 4), dtype=bool)
    region[0, 1, 1] = True
    assert chosen_windows(region, (16, 16)) == ((0, 0),)


# --------------------------------------------------------------------------------------------------------- planted parts


def test_a_part_smaller_than_a_cell_is_seen_and_bounded() -> None:
    """Cells are 32 pixels wide, the part is 16: the first look sees a quarter of a red cell, the second a whole one."""
    picture = dot((112, 176), 16)
    plain = planted().locate(picture, "red", "blue")
    found = planted(look_again=True).locate(picture, "red", "blue")
    assert found.scores.shape == (16, 16)
    best = np.unravel_index(np.nanargmax(found.scores), found.scores.shape)
    assert best == (7, 11)
    assert found.scores[best] > plain.peak_score + 0.3
    x, y = found.peak
    assert 176 <= x < 192
    assert 112 <= y < 128
    truth = np.zeros((256, 256), dtype=bool)
    truth[112:128, 176:192] = True

    def overlap(mask: np.ndarray) -> float:
        return float((mask & truth).sum() / (mask | truth).sum())

    # Outlined half way between the map's levels.
    overlaps = [overlap(answer.heatmap > sum(answer.limits) / 2) for answer in (plain, found)]
    assert overlaps[1] > 1.5 * overlaps[0]


@pytest.mark.parametrize("policy", ["pad", "squash", "aspect", "tile"])
@pytest.mark.parametrize("size", [(256, 256), (190, 260), (256, 120)])
def test_the_merged_map_is_that_of_the_definition(policy: str, size: tuple[int, int]) -> None:
    """Restated cell by cell from what both looks saw."""
    picture = dot((100, 60), 10, size)
    localizer = planted(look_again=True, resize=policy)
    features = localizer.encode(picture)
    (seen,) = localizer.look_again([features], [RED], [picture])
    assert seen.looks
    found = localizer.score(seen, [RED], picture)[0]
    texts = localizer.embed_texts([("red",), ("blue",)])
    direction = texts[0] - texts[1]
    plain = localizer.with_settings(look_again=False).score(features, [RED])[0]
    rows, columns = plain.scores.shape
    valid = features.geometry.with_grid((rows * ZOOM, columns * ZOOM)).valid()
    region = best_region(plain.scores, features.geometry.valid())
    assert region is not None
    share = WEIGHTS.get(depth(region), WIDE_WEIGHT)
    shown = features.geometry.valid()
    first = np.ix_(np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0)))
    inner = plain.scores[first]
    height, width = inner.shape

    def weights(place: int, count: int) -> dict[int, float]:
        """Keys' cubic interpolation at the centre of a finer cell; beyond the outermost centres their value holds."""
        at = min(max((place + 0.5) / ZOOM - 0.5, 0), count - 1)
        found: dict[int, float] = {}
        for cell in range(int(at) - 1, int(at) + 3):
            away = abs(at - cell)
            weight = 1.5 * away**3 - 2.5 * away**2 + 1 if away <= 1 else max(0, 2 - away) and -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
            found[min(max(cell, 0), count - 1)] = found.get(min(max(cell, 0), count - 1), 0.0) + weight
        return found

    def base(row: int, column: int) -> float:
        down, across = weights(row, height), weights(column, width)
        return sum(a * b * float(inner[y, x]) for y, a in down.items() for x, b in across.items())

    offset = first[0][0, 0] * ZOOM, first[1][0, 0] * ZOOM
    for row in range(height * ZOOM):
        for column in range(width * ZOOM):
            place = row + offset[0], column + offset[1]
            if not valid[place]:
                continue
            total, weight = base(row, column), 1.0
            for look in seen.looks:
                at = place[0] - look.corner[0], place[1] - look.corner[1]
                if 0 <= at[0] < look.shown.shape[0] and 0 <= at[1] < look.shown.shape[1] and look.shown[at]:
                    fading = taper(look.shown.shape[0])[at[0]] * taper(look.shown.shape[1])[at[1]]
                    total += share * fading * float(F.normalize(look.patches[at], dim=-1) @ direction)
                    weight += share * fading
            assert found.scores[place] == pytest.approx(total / weight, abs=1e-4)
    assert np.isnan(found.scores[~valid]).all()


def test_windows_show_what_lies_under_their_cells() -> None:
    """The planted tower's features are mean colours: those of a window are the means over the very pixels of its cells."""
    generator = np.random.default_rng(3)
    blocks = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    picture[100:110, 60:70] = (255, 0, 0)
    localizer = planted(look_again=True)
    (seen,) = localizer.look_again([localizer.encode(picture)], [RED], [picture])
    assert seen.looks
    means = picture.reshape(16, 16, 16, 16, 3).mean(axis=(1, 3)) / 255
    for look in seen.looks:
        rows, columns = look.shown.shape
        part = means[look.corner[0] : look.corner[0] + rows, look.corner[1] : look.corner[1] + columns]
        np.testing.assert_allclose(look.patches[..., :3], part, atol=0.03)


def test_the_ledger_splits_the_merged_map() -> None:
    found = planted(look_again=True).locate(dot((112, 176), 16), "red", ["blue", "green"])
    np.testing.assert_allclose(sum(found.ledger().values()), found.scores, atol=1e-5)
    assert sum(found.ledger_at_peak().values()) == pytest.approx(found.peak_score, abs=1e-5)


def test_a_parts_probability_is_that_of_the_finer_cells() -> None:
    picture = dot((112, 176), 16)
    plain, found = (planted(look_again=again).locate_all([picture], [PART])[0] for again in (False, True))
    assert found.probabilities[0, 0] > plain.probabilities[0, 0] + 0.15
    assert found.probabilities[0].sum() == pytest.approx(1, abs=1e-5)
    # A question about the whole picture is answered as before.
    whole = [planted(look_again=again).locate_all([picture], [RED])[0].probabilities for again in (False, True)]
    np.testing.assert_array_equal(*whole)


def test_nothing_narrow_is_not_read_again() -> None:
    picture = np.zeros((256, 256, 3), dtype=np.uint8)
    picture[..., 2] = 250
    localizer = planted(look_again=True)
    (seen,) = localizer.look_again([localizer.encode(picture)], [RED], [picture])
    assert seen.looks == ()
    found = localizer.score(seen, [RED], picture)
    assert found.scores.shape == (1, 16, 16)
    np.testing.assert_allclose(found.scores, found.scores[0, 0, 0], atol=1e-5)


def test_who_looked_again_does_not_look_twice() -> None:
    picture = dot((112, 176), 16)
    localizer = planted(look_again=True)
    seen = localizer.look_again([localizer.encode(picture)], [RED], [picture])
    assert localizer.look_again(seen, [RED], [picture])[0] is seen[0]
    assert localizer.score(seen[0], [RED]).scores.shape == (1, 16, 16)  # and needs no picture
    plain = localizer.encode(picture)
    assert planted().look_again([plain], [RED], [picture])[0] is plain


def test_several_pictures_share_passes_and_get_the_same() -> None:
    pictures = [dot((112, 176), 16), dot((20, 30), 12), dot((200, 40), 9, (256, 180))]
    localizer = planted(look_again=True, batch_size=2)
    together = localizer.locate_all(pictures, [RED])
    for picture, found in zip(pictures, together):
        np.testing.assert_allclose(found.scores, localizer.locate_all([picture], [RED])[0].scores, atol=1e-6)


def test_looking_again_needs_the_picture() -> None:
    localizer = planted(look_again=True)
    with pytest.raises(ConfigurationError, match="look_again works on the picture itself"):
        localizer.score(localizer.encode(dot((112, 176), 16)), [RED])


@pytest.mark.parametrize("other", [{"std": (0.5, 0.5, 0.5)}, {"resize": "tile"}, {"size": 128}])
def test_a_second_look_is_of_a_kind_with_the_first(other: dict[str, object]) -> None:
    picture = dot((112, 176), 16)
    localizer = planted(look_again=True)
    changed = localizer.with_settings(**other)
    features = [localizer.encode(picture), changed.encode(picture)]
    answers = localizer.score(features, [RED], [picture, picture])
    for answer, asked in zip(answers, (localizer, changed), strict=True):
        at_once = asked.locate_all([picture], [RED])[0]
        assert answer.seen == at_once.seen == ZOOM
        np.testing.assert_array_equal(answer.scores, at_once.scores)


def test_other_methods_do_not_look_again() -> None:
    with pytest.raises(ConfigurationError, match=r"'grad-cam' cannot look again.*direct, gem"):
        planted(look_again=True).locate(dot((112, 176), 16), "red", "blue", method="grad-cam")


def test_the_result_says_so() -> None:
    found = planted(look_again=True).locate(dot((112, 176), 16), "red", "blue")
    assert found.provenance.look_again is True
    assert planted().locate(dot((112, 176), 16), "red", "blue").provenance.look_again is False
    with pytest.raises(ConfigurationError, match="look_again must be true or false"):
        Settings(look_again="yes")  # type: ignore[arg-type]


def test_the_certificate_is_that_of_the_first_look() -> None:
    """Its rules were fitted to maps of the first look."""
    localizer = Localizer.from_pretrained("demo", size=96)
    picture = dot((112, 176), 16)
    concept = Concept(("the eye of a fish",), (("the head of a fish",),))
    plain, found = (localizer.locate_all([picture], concept, look_again=again)[0][0] for again in (False, True))
    assert found.certificate.to_dict() == plain.certificate.to_dict()


def test_refined_after_a_second_look() -> None:
    found = planted(look_again=True, refine="guided").locate(dot((112, 176), 16), "red", "blue")
    assert found.refined is not None
    assert found.scores.shape == (16, 16)
    mask = found.heatmap > sum(found.limits) / 2
    assert mask[112:128, 176:192].mean() > 0.9
    assert mask.sum() < 26 * 26
    by_hand = refine(planted(look_again=True).locate(dot((112, 176), 16), "red", "blue"), "guided", dot((112, 176), 16))
    np.testing.assert_allclose(by_hand.refined, found.refined, atol=1e-6)
    own = planted(look_again=True, refine="affinity").locate(dot((112, 176), 16), "red", "blue")
    assert own.refined is not None


def test_second_look_splits_by_concept() -> None:
    localizer = planted(look_again=True)
    picture = dot((112, 176), 16)
    concepts = [RED, Concept(("green",), (), name="green")]
    found = localizer.locate_all([picture], concepts)[0]
    assert isinstance(found.split, SecondLook)
    assert found.split(0).shape == (2, 16, 16)
    assert found.split(1).shape == (1, 16, 16)


# --------------------------------------------------------------------------------------------------------------- places


def test_a_place_keeps_its_bounds_refined_and_read_again() -> None:
    """The *left* fore wing of a planted butterfly: the other wing is no part of its map, its outline or its peak."""
    localizer = Localizer(PartsBackbone(noise=0.05))
    concepts = prompts.concepts(prompts.load_pack(PACK), "wings")
    made = butterfly(0.4, "above", mirrored=False, scale=0.8)
    for values in ({"refine": "guided"}, {"look_again": True}, {"refine": "guided", "look_again": True}):
        found = localizer.with_settings(**values).locate_all([made.pixels], concepts)[0]
        for answer in found:
            assert answer.place is not None
            assert answer.place.resolved
            side, _, wing = answer.concept.metadata["state"].partition("_")
            other = made.masks[f"{'right' if side == 'left' else 'left'}_{wing}"]
            x, y = (int(value) for value in answer.peak)
            assert made.masks[f"{side}_{wing}"][y, x]
            mask = answer.mask()
            assert (mask & other).sum() < 0.05 * mask.sum()
            assert np.isnan(answer.heatmap).any()
            assert answer.certificate is not None
