"""The frame of a body and its measures, on planted shapes turned, mirrored and bent, and on rendered fish."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import label

from concept_cam.core.frame import _areas, body_frame, body_frames, exclusive_masks, measure_bodies, measure_body

SIZE = (220, 300)
LENGTH, HEAD, DEPTH, TAIL = 150.0, 42.0, 36.0, 40.0
EYE = 5.0

Masks = dict[str, np.ndarray]


def planted(to_body: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Masks:
    """A fish of known lengths; `to_body` takes pixels (x, y) to places along and across its midline."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    u, v = to_body(x, y)
    half = 0.5 * DEPTH * np.clip(1 - ((u - 0.42 * LENGTH) / (0.62 * LENGTH)) ** 2, 0, None) ** 0.7
    body = (np.abs(v) <= half) & (u >= 0) & (u < LENGTH)
    # A forked tail: two lobes.
    w = u - LENGTH
    spread = 5 + 0.5 * np.clip(w, 0, TAIL)
    tail = (w >= 0) & (w < TAIL) & (np.abs(v) <= spread) & (np.abs(v) >= 0.5 * (w - 0.45 * TAIL))
    back = np.interp(u, [0.3 * LENGTH, 0.35 * LENGTH, 0.55 * LENGTH], [0.0, 14.0, 0.0], left=0, right=0)
    return {
        "head": body & (u < HEAD),
        "trunk": body & (u >= HEAD),
        "caudal_fin": tail,
        "dorsal_fin": (v > half) & (v <= half + back) & (back > 0),
        "eye": (u - 14) ** 2 + (v - 3) ** 2 <= EYE**2,
    }


def straight(angle: float, mirrored: bool = False) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    cos, sin = np.cos(angle), np.sin(angle)

    def to_body(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dx, dy = x - 150, y - 110
        u, v = dx * cos + dy * sin, dy * cos - dx * sin
        return u + 0.6 * LENGTH, -v if mirrored else v

    return to_body


def bent(radius: float, turn: float = 0.0) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The midline is an arc of a circle."""

    def to_body(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dx, dy = x - 150, y - 110
        dx, dy = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        away = np.hypot(dx, dy - radius)
        angle = np.arctan2(dx, radius - dy)
        return angle * radius + 0.6 * LENGTH, away - radius

    return to_body


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, np.pi / 2, 2.5, np.pi, 4.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_lengths_of_a_straight_fish_at_any_angle(angle: float, mirrored: bool) -> None:
    found = measure_body(planted(straight(angle, mirrored)))
    assert found["standard_length"].value == pytest.approx(LENGTH, rel=0.02)
    assert found["head_length"].value == pytest.approx(HEAD, rel=0.05)
    assert found["body_depth"].value == pytest.approx(DEPTH, rel=0.05)
    assert found["caudal_fin_length"].value == pytest.approx(TAIL, rel=0.06)
    assert found["eye_diameter"].value == pytest.approx(2 * EYE, rel=0.06)
    assert found["dorsal_fin_height"].value == pytest.approx(14, abs=2)
    assert found["head_depth"].value < found["body_depth"].value
    # A straight body has a straight line from the snout to the base of the tail.
    line = found["standard_length"].line
    assert len(line) == 2
    along = np.array([np.cos(angle), np.sin(angle)])
    assert (line[1] - line[0]) @ along == pytest.approx(LENGTH, rel=0.03)


@pytest.mark.parametrize("radius", [400.0, 200.0, 120.0])
@pytest.mark.parametrize("turn", [0.0, 1.0, 2.6])
def test_lengths_of_a_bent_fish_follow_its_midline(radius: float, turn: float) -> None:
    found = measure_body(planted(bent(radius, turn)))
    assert found["standard_length"].value == pytest.approx(LENGTH, rel=0.03)
    assert found["head_length"].value == pytest.approx(HEAD, rel=0.08)
    assert found["body_depth"].value == pytest.approx(DEPTH, rel=0.06)
    line = found["standard_length"].line
    if radius < 300:
        assert len(line) > 2
        chord = np.linalg.norm(line[-1] - line[0])
        assert found["standard_length"].value > chord * (1.01 if radius > 150 else 1.03)


def test_coordinates_and_points_are_inverse() -> None:
    masks = planted(bent(160.0))
    frame = body_frame(masks["head"], masks["trunk"], masks["caudal_fin"])
    assert frame is not None
    rng = np.random.default_rng(0)
    along, across = rng.uniform(5, 140, 50), rng.uniform(-15, 15, 50)
    again = frame.coordinates(frame.at(along, across))
    assert np.abs(again[0] - along).max() < 1.5
    assert np.abs(again[1] - across).max() < 0.5
    assert frame.front < frame.neck < frame.base < frame.end  # type: ignore[operator]


def test_specks_do_not_move_the_ends() -> None:
    masks = planted(straight(0.3))
    clean = measure_body(masks)
    rng = np.random.default_rng(1)
    for mask in masks.values():
        y, x = rng.integers(0, SIZE[0], 6), rng.integers(0, SIZE[1], 6)
        mask[y, x] = True
    specked = measure_body(masks)
    for name in ("standard_length", "head_length", "body_depth"):
        assert specked[name].value == pytest.approx(clean[name].value, rel=0.03)


def test_barbels_are_no_snout() -> None:
    masks = planted(straight(0.0))
    clean = measure_body(masks)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    barbel = (np.abs(y - 112) < 2) & (x > 30) & (x < 62)
    with_barbel = measure_body(masks | {"head": masks["head"] | barbel})
    for name in ("standard_length", "head_length"):
        assert with_barbel[name].value == pytest.approx(clean[name].value, abs=2.5)


def test_a_fin_over_the_body_is_no_dent_in_its_depth() -> None:
    masks = planted(straight(0.0))
    clean = measure_body(masks)["body_depth"].value
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    fin = (np.abs(x - 125) < 5) & (y > 105)
    assert (masks["trunk"] & fin).any()
    masks["trunk"] &= ~fin
    assert measure_body(masks)["body_depth"].value == pytest.approx(clean, rel=0.03)


def test_a_bump_no_longer_than_a_patch_is_no_depth() -> None:
    masks = planted(straight(0.0))
    clean = measure_body(masks, (12.0, 12.0))["body_depth"].value
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    bump = (np.abs(x - 125) <= 4) & (y > 110) & (y < 110 + 0.5 * DEPTH + 9)
    masks["trunk"] |= bump
    assert measure_body(masks)["body_depth"].value > 1.2 * clean, "drawn to the pixel, it is one"
    assert measure_body(masks, (12.0, 12.0))["body_depth"].value == pytest.approx(clean, abs=0.5)
    assert clean == pytest.approx(DEPTH, rel=0.03)


def test_no_standard_length_where_the_tail_is_not_behind_the_body() -> None:
    good = planted(straight(0.0))
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]

    def disc(column: int, row: int, radius: int) -> np.ndarray:
        return (x - column) ** 2 + (y - row) ** 2 <= radius**2

    for wrong in (
        disc(75, 110, 8),  # on the head
        disc(45, 110, 8),  # before the snout
        disc(82, 150, 9),  # beside the head
        disc(105, 110, 8),  # where the head meets the trunk
    ):
        assert "standard_length" not in measure_body(good | {"caudal_fin": wrong}), np.argwhere(wrong).mean(axis=0)
    far = {"head": disc(20, 30, 12), "trunk": disc(50, 30, 12), "caudal_fin": disc(280, 200, 10)}
    assert "standard_length" not in measure_body(far)


def test_nothing_is_measured_of_what_is_not_there() -> None:
    good = planted(straight(0.0))
    nothing = np.zeros(SIZE, dtype=bool)
    assert measure_body({}) == {}
    assert measure_body(good | {"head": nothing}) == {}
    assert measure_body({"head": good["head"]}) == {}
    tailless = measure_body(good | {"caudal_fin": nothing})
    assert "standard_length" not in tailless
    assert tailless["body_depth"].value == pytest.approx(DEPTH, rel=0.05)
    assert tailless["head_length"].value == pytest.approx(HEAD, rel=0.08)
    assert body_frame(nothing, nothing, None) is None
    elsewhere = good | {"eye": np.roll(good["eye"], 150, axis=1)}
    assert "eye_diameter" not in measure_body(elsewhere)


def test_an_eye_told_by_patches_may_be_as_small_as_one() -> None:
    """A smaller eye's map is fainter and wider: half of the true diameters lay outside what was stated."""
    masks = planted(straight(0.0))
    heats = {name: mask.astype(np.float32) for name, mask in masks.items()}
    patch = 0.8 * EYE
    drawn, told = measure_body(masks, (patch, patch)), measure_body(masks, (patch, patch), heats)
    value = told["eye_diameter"].value
    assert value == drawn["eye_diameter"].value
    assert drawn["eye_diameter"].error == pytest.approx(patch * 2**0.5)
    assert told["eye_diameter"].error == pytest.approx(np.sqrt(2 * patch**2 + (value - patch) ** 2))
    assert value - told["eye_diameter"].error < patch
    assert measure_body(masks, (2.0 * EYE, 2.0 * EYE), heats)["eye_diameter"].error is None


def test_uncertainty_is_a_patch_and_none_below_two() -> None:
    masks = planted(straight(0.0))
    coarse = measure_body(masks, (16.0, 8.0))
    assert coarse["standard_length"].error == pytest.approx(8.0 * 2**0.5, abs=1.0)
    assert coarse["body_depth"].error == pytest.approx(16.0 * 2**0.5, abs=0.7)
    assert coarse["eye_diameter"].error is None
    # The trunk ends a good way before the tail begins: that too is not known.
    x = np.arange(SIZE[1])[None]
    short = masks | {"trunk": masks["trunk"] & (x < 180)}
    found = measure_body(short)["standard_length"]
    assert found.error is not None
    assert found.error > 8 * 2**0.5


def test_exclusive_masks_meet_where_the_shares_are_equal() -> None:
    x = np.arange(100, dtype=np.float32)[None].repeat(20, axis=0)
    left, right = np.exp(-((x - 30) ** 2) / 600), 3 * np.exp(-((x - 70) ** 2) / 600)
    masks = exclusive_masks({"left": left, "right": right})
    assert not (masks["left"] & masks["right"]).any()
    assert np.flatnonzero(masks["left"][0]).max() in (49, 50)
    assert np.flatnonzero(masks["right"][0]).min() in (50, 51)
    assert not exclusive_masks({"low": -np.ones((4, 4))})["low"].any()
    # What a nested part wins belongs to its host as well.
    eye = np.where(np.abs(x - 22) < 4, 2.0, 0.0)
    with_eye = exclusive_masks({"left": left, "right": right, "eye": eye}, {"eye": "left"})
    assert np.array_equal(with_eye["left"], masks["left"])
    assert np.array_equal(with_eye["eye"], eye > 1)
    alone = exclusive_masks({"left": left, "right": right, "eye": eye})
    assert not (alone["left"] & alone["eye"]).any()
    assert exclusive_masks({}) == {}
    hole = left.copy()
    hole[:, 28:33] = np.nan
    assert not exclusive_masks({"left": hole})["left"][:, 28:33].any()


def test_a_nested_part_keeps_its_pixels_where_its_host_is_highest_too() -> None:
    """The map of a head peaks at its eye, where the eye's own map does."""
    y, x = np.mgrid[:60, :120]
    bump = np.exp(-((x - 30) ** 2 + (y - 30) ** 2) / (2 * 8.0**2))
    head = np.where(x < 60, 0.4 + 0.62 * bump, 0.0)
    trunk = np.where(x >= 60, 1.0, 0.0)
    heats = {"eye": 0.8 * bump, "head": head, "trunk": trunk}
    nested = {"eye": "head"}
    without = exclusive_masks({"head": head, "trunk": trunk})
    for order in (["eye", "head", "trunk"], ["head", "trunk", "eye"]):
        masks = exclusive_masks({name: heats[name] for name in order}, nested, spared=True)
        assert all(np.array_equal(masks[name], without[name]) for name in without), "the others are as they were"
        assert 2 * np.sqrt(masks["eye"].sum() / np.pi) == pytest.approx(16 * np.sqrt(2 * np.log(2)), rel=0.05)
    # What is not its host takes pixels from it.
    mouth = np.where(x < 30, 1.0, 0.0)
    beside = exclusive_masks({**heats, "mouth": mouth}, {"eye": "head", "mouth": "head"}, spared=True)
    assert not beside["eye"][:, :30].any()
    assert beside["eye"][:, 31:].any()
    # A map that is high all over the host ends halfway between its peak and what it shows there.
    high = exclusive_masks({**heats, "eye": np.where(x < 60, 0.45 + 0.55 * bump, 0.0)}, nested, spared=True)
    assert np.abs(bump[high["eye"]].min() - 0.5) < 0.05
    assert high["eye"][bump > 0.55].all()


def test_rendered_fish_are_measured_to_a_hundredth() -> None:
    """Against the renderer's own geometry: the camera says which pixels show the snout, the gill cover and the base of the tail."""
    from concept_cam.demo.worlds.fish import world
    from concept_cam.demo.worlds.fish.camera import pixels
    from concept_cam.demo.worlds.fish.traits import MASKS

    specimens = world.sample(26, 17, view="whole")
    size = (192, 288)
    rendering = world.render(specimens, size, masks=True)
    anatomy, camera = world.geometry(specimens, size)
    u = np.linspace(0, 1.012, 60, dtype=np.float32)
    midline = pixels(camera, anatomy, np.broadcast_to(np.stack([u, 0 * u], axis=1), (26, 60, 2)))
    length = np.linalg.norm(np.diff(midline, axis=1), axis=2).sum(axis=1)
    errors, depths = [], []
    for i in range(26):
        parts = {name: rendering.masks[i, m].numpy() for m, name in enumerate(MASKS)}  # type: ignore[index]
        whole = parts["head"] | parts["trunk"] | parts["caudal_fin"]
        if whole[[0, -1]].any() or whole[:, [0, -1]].any():
            continue
        found = measure_body(parts)
        errors.append(found["standard_length"].value / length[i] - 1)
        depth = (anatomy.tables["upper"] - anatomy.tables["lower"])[i].max() * camera.scale[i]
        depths.append(found["body_depth"].value / depth - 1)
    assert len(errors) >= 15
    assert np.median(np.abs(errors)) < 0.01
    assert np.abs(errors).max() < 0.04
    assert np.median(np.abs(depths)) < 0.03


def test_many_bodies_in_one_pass_equal_each_alone() -> None:
    good = planted(straight(0.3))
    nothing = np.zeros(SIZE, dtype=bool)
    bodies = [
        good,
        planted(bent(120.0, 0.9)),
        {},
        good | {"head": nothing},
        good | {"caudal_fin": nothing},
        {"head": good["head"]},
        planted(straight(2.0, True)),
        good | {"trunk": nothing},
    ]
    cells = [(1.0, 1.0), (3.0, 2.0), *[(1.0, 1.0)] * 6]
    together = measure_bodies(bodies, cells)
    assert [bool(found) for found in together] == [True, True, False, False, True, False, True, True]
    for parts, cell, found in zip(bodies, cells, together):
        assert repr(found) == repr(measure_body(parts, cell))
    assert measure_bodies([], []) == []
    assert body_frames([]) == []


def test_areas_are_kept_by_their_share_of_the_largest() -> None:
    generator = np.random.default_rng(6)
    masks = {str(number): generator.random((17, 23)) < share for number, share in enumerate((0.0, 0.2, 0.4, 0.6, 1.0))}
    for least in (0.15, 1.0):
        for name, kept in _areas(masks, least).items():
            labels, count = label(masks[name], np.ones((3, 3), dtype=bool))
            areas = [labels == number + 1 for number in range(count)]
            largest = max((area.sum() for area in areas), default=0)
            expected = np.zeros((17, 23), dtype=bool)
            for area in areas:
                expected |= area & (area.sum() >= least * largest)
            np.testing.assert_array_equal(kept, expected)
