"""Lengths of insects and leaves, on planted shapes turned and mirrored, and on rendered specimens of known size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import zoom

from concept_cam.core.lengths import measure_elytra, measure_fore_wing, measure_leaf, measure_lengths

SIZE = (240, 260)
Masks = dict[str, np.ndarray]
ANGLES = [0.0, 0.5, 1.57, 2.6, -2.0]


def turned(angle: float, mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Pixels as (along, across) of a body at the middle of the picture that points to `angle`."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    dx, dy = x - 130, y - 120
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return u, -v if mirrored else v


def butterfly(angle: float, wing: float = 80.0, mirrored: bool = False) -> Masks:
    u, v = turned(angle, mirrored)
    thorax = (u / 16) ** 2 + (v / 8) ** 2 <= 1
    masks: Masks = {
        "thorax": thorax,
        "head": ((u - 20) / 6) ** 2 + (v / 6) ** 2 <= 1,
        "abdomen": ((u + 35) / 22) ** 2 + (v / 6) ** 2 <= 1,
    }
    fore = np.zeros(SIZE, dtype=bool)
    for side, reach in ((1, wing), (-1, 0.8 * wing)):
        # A wing from the edge of the thorax outwards, a little forward.
        p = (side * v - 8) * np.cos(0.4) + u * np.sin(0.4)
        q = u * np.cos(0.4) - (side * v - 8) * np.sin(0.4)
        fore |= (p >= 0) & (p <= reach) & (np.abs(q) <= 3 + 0.22 * p) & (side * v > 0) & ~thorax
    return masks | {"fore_wing": fore}


def beetle(angle: float, mirrored: bool = False) -> Masks:
    u, v = turned(angle, mirrored)
    elytra = ((u / 50) ** 2 + (v / 28) ** 2 <= 1) & (u < 40)
    return {"elytra": elytra, "pronotum": (np.abs(u - 48) < 8) & (np.abs(v) < 18), "head": (np.abs(u - 62) < 6) & (np.abs(v) < 9)}


def leaf(angle: float) -> Masks:
    u, v = turned(angle)
    blade = (np.abs(v) <= 26 * np.sin(np.pi * np.clip((u + 60) / 120, 0, 1))) & (np.abs(u) <= 60)
    petiole = (u < -59) & (u > -95) & (np.abs(v) < 2)
    return {"leaf": blade | petiole, "petiole": petiole}


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_longer_fore_wing_from_the_body_to_its_tip(angle: float, mirrored: bool) -> None:
    found = measure_fore_wing(butterfly(angle, mirrored=mirrored))["fore_wing_length"]
    # The tip is a corner of the cut-off wing.
    assert found.value == pytest.approx(np.hypot(80, 3 + 0.22 * 80), rel=0.04)
    assert found.error is not None
    assert found.error < 2
    assert np.hypot(*(found.line[1] - found.line[0])) == pytest.approx(found.value, abs=1)


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_elytra_along_and_across(angle: float, mirrored: bool) -> None:
    found = measure_elytra(beetle(angle, mirrored))
    assert found["elytral_length"].value == pytest.approx(90, rel=0.03)
    assert found["elytral_width"].value == pytest.approx(56, rel=0.04)
    only_head = measure_elytra({name: mask for name, mask in beetle(angle).items() if name != "pronotum"})
    assert only_head["elytral_length"].value == pytest.approx(90, rel=0.03)


@pytest.mark.parametrize("angle", ANGLES)
def test_a_leaf_without_its_stalk(angle: float) -> None:
    parts = leaf(angle)
    for given in (parts, {"leaf_blade": parts["leaf"] & ~parts["petiole"]}):
        found = measure_leaf(given)
        assert found["leaf_length"].value == pytest.approx(120, rel=0.03)
        assert found["leaf_width"].value == pytest.approx(52, rel=0.05)


def test_base_and_tip_say_which_way_a_round_leaf_points() -> None:
    u, v = turned(0.7)
    blade = (u / 40) ** 2 + (v / 50) ** 2 <= 1
    parts = {"leaf": blade, "leaf_base": blade & (u < -34), "leaf_tip": blade & (u > 34)}
    found = measure_leaf(parts)
    assert found["leaf_length"].value == pytest.approx(80, rel=0.05)
    assert found["leaf_width"].value == pytest.approx(100, rel=0.05)


def test_a_round_leaf_that_points_nowhere_is_not_measured() -> None:
    u, v = turned(0.7)
    assert measure_leaf({"leaf": (u / 45) ** 2 + (v / 50) ** 2 <= 1}) == {}
    slender = measure_leaf({"leaf": (u / 60) ** 2 + (v / 25) ** 2 <= 1})
    assert slender["leaf_length"].value == pytest.approx(120, rel=0.04)


def test_what_runs_out_of_the_picture_is_not_measured() -> None:
    parts = leaf(0.0)
    whole = measure_leaf(parts)
    tip = int(np.nonzero(parts["leaf"] & ~parts["petiole"])[1].max())
    cut = {name: mask[:, : tip - 20] for name, mask in parts.items()}
    found = measure_leaf(cut)
    assert "leaf_length" in whole
    assert "leaf_length" not in found
    assert found["leaf_width"].value == pytest.approx(whole["leaf_width"].value, rel=0.05), "its width is all there"
    wings = butterfly(0.0)
    ends = measure_fore_wing(wings)["fore_wing_length"].line
    column = int(max(ends[:, 0]))
    row = int(max(ends[:, 1]))
    assert measure_fore_wing({name: mask[: row - 8, : column - 8] for name, mask in wings.items()}).get("fore_wing_length") is None


@pytest.mark.parametrize("cell", [(1.0, 1.0), (8.0, 8.0)])
@pytest.mark.parametrize("kind", ["ellipse", "egg", "box"])
def test_a_border_that_cuts_aslant_or_at_a_side_never_shortens_what_is_told(kind: str, cell: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    told = 0
    for _ in range(120):
        angle, long = rng.uniform(0, 2 * np.pi), rng.uniform(30, 60)
        wide = long * rng.uniform(0.3, 0.9)
        u, v = turned(angle)
        at = np.clip((u + long) / (2 * long), 0, 1)
        half = {"ellipse": np.sqrt(4 * at * (1 - at)), "egg": np.sin(np.pi * at**0.6), "box": (1 - (2 * at - 1) ** 4) ** 0.5}[kind]
        parts = {"leaf_blade": (np.abs(u) < long) & (np.abs(v) < wide * half), "petiole": (np.abs(v) < 3) & (u <= -long) & (u > -long - 20)}
        top, left = rng.integers(40, 125), rng.integers(40, 135)
        window = np.s_[top : top + rng.integers(60, 140), left : left + rng.integers(60, 140)]
        if parts["leaf_blade"][window].sum() < 0.25 * parts["leaf_blade"].sum():
            continue
        whole, seen = measure_leaf(parts, cell), measure_leaf({name: mask[window] for name, mask in parts.items()}, cell)
        for name, length in seen.items():
            told += 1
            assert length.value == pytest.approx(whole[name].value, rel=0.1)
    assert told > 20


def test_parts_without_a_pixel_say_nothing() -> None:
    nothing = np.zeros(SIZE, dtype=bool)
    parts = leaf(0.3)
    assert "leaf_length" in measure_leaf({"leaf": parts["leaf"] & ~parts["petiole"], "petiole": nothing})
    assert measure_leaf({"leaf": nothing}) == {}
    assert measure_elytra({**beetle(0.3), "pronotum": nothing}).keys() == {"elytral_length", "elytral_width"}
    assert measure_fore_wing({**butterfly(0.3), "thorax": nothing}).keys() == {"fore_wing_length"}


def test_a_base_or_a_tip_of_another_leaf_says_nothing() -> None:
    u, v = turned(0.7)
    blade = (u / 60) ** 2 + (v / 25) ** 2 <= 1
    elsewhere = np.hypot(u, v - 55) < 8
    beside = blade & (np.hypot(u - 5, v - 10) < 8)
    for parts in (
        {"leaf_blade": blade, "leaf_base": blade & (u < -50), "leaf_tip": elsewhere},
        {"leaf_blade": blade, "leaf_base": elsewhere, "leaf_tip": blade & (u > 50)},
        {"leaf_blade": blade, "leaf_base": blade & (np.hypot(u, v) < 6), "leaf_tip": beside},
        # Side by side across the blade; and both near one of its ends.
        {"leaf_blade": blade, "leaf_base": blade & (np.hypot(u, v - 15) < 6), "leaf_tip": blade & (np.hypot(u, v + 15) < 6)},
        {"leaf_blade": blade, "leaf_base": blade & (np.hypot(u - 40, v - 8) < 6), "leaf_tip": blade & (np.hypot(u - 5, v + 8) < 6)},
    ):
        found = measure_leaf(parts)
        assert found["leaf_length"].value == pytest.approx(120, rel=0.04)
        assert found["leaf_width"].value == pytest.approx(50, rel=0.06)


def test_uncertainty_follows_the_patches() -> None:
    parts = beetle(0.3)
    coarse = {
        name: zoom(zoom(mask.astype(float), 0.125, order=1, grid_mode=True, mode="nearest"), 8, order=1, grid_mode=True, mode="nearest")
        > 0.5
        for name, mask in parts.items()
    }
    found = measure_elytra(coarse, (8.0, 8.0))["elytral_length"]
    assert found.error == pytest.approx(8 * 2**0.5, rel=0.01)
    assert abs(found.value - 90) < found.error
    assert measure_elytra(parts, (60.0, 60.0))["elytral_width"].error is None


def test_nothing_is_measured_where_parts_are_missing_or_lie_wrongly() -> None:
    wings, cases = butterfly(0.2), beetle(0.2)
    assert measure_lengths({}) == {}
    assert "fore_wing_length" not in measure_lengths({"fore_wing": wings["fore_wing"]})
    assert measure_elytra({"elytra": cases["elytra"]}) == {}
    # The wing lies far from what is said to be the body.
    away = np.zeros(SIZE, dtype=bool)
    away[:12, :12] = True
    assert measure_fore_wing({"fore_wing": np.roll(wings["fore_wing"], 30, axis=0) & (turned(0.2)[1] > 40), "thorax": away}) == {}
    # The pronotum lies in the middle of the wing cases.
    assert measure_elytra({"elytra": cases["elytra"], "pronotum": np.roll(cases["pronotum"], -45, axis=1)}) == {}
    # Two leaves, and a star.
    u, v = turned(0.0)
    two = ((u - 50) ** 2 + v**2 < 400) | ((u + 50) ** 2 + v**2 < 400)
    assert measure_leaf({"leaf": two}) == {}
    star = np.hypot(u, v) < 14 + 60 * np.clip(np.cos(5 * np.arctan2(v, u)), 0, 1) ** 8
    assert measure_leaf({"leaf": star}) == {}
    tiny = np.zeros(SIZE, dtype=bool)
    tiny[3:6, 3:6] = True
    assert measure_lengths({"leaf": tiny, "fore_wing": tiny, "elytra": tiny, "head": tiny}) == {}


@pytest.mark.filterwarnings("error")
def test_nothing_is_measured_where_what_lies_before_lies_in_the_middle() -> None:
    """Rings about a disc, and twice the same mask: there is no way from one to the other."""
    rows, columns = np.mgrid[:48, :64]
    away = np.hypot(rows - 24, columns - 32)
    disc, ring = away <= 6, (away <= 14) & (away > 6)
    for head, elytra in ((disc, ring), (disc | ring, disc | ring)):
        assert measure_elytra({"head": head, "elytra": elytra}) == {}


def test_rendered_fore_wings() -> None:
    """Seen from above with flat wings, a fore wing is as long as its outline, less what the thorax hides of its root."""
    from concept_cam.demo.worlds.lepidoptera import world
    from concept_cam.demo.worlds.lepidoptera.room import WORLD
    from concept_cam.demo.worlds.lepidoptera.traits import CHARACTERS, MASKS

    fixed = {"resting_posture": "spread", "wing_margin": "smooth", "forewing_shape": "triangular", "eyespots": "absent"}
    some = WORLD.sample(36, 51, view="whole", traits=fixed)
    made = WORLD.render(some, 256, masks=True)
    assert made.masks is not None
    ratios = []
    for i in range(len(some)):
        draw = world._one(some[i])
        state = {name: options[-1] for name, options in CHARACTERS.items()} | {"resting_posture": "spread"}
        camera = world._camera(draw, world.wings(draw, state), world.body(draw, state), -1, "spread", (256, 256))
        own = world.wings(draw, some.trait(i))
        flat = min(abs(float(wing.normal @ camera.toward)) for wing in own if wing.name == "fore_wing")
        if flat < 0.97 or not made.visible[i, MASKS.index("fore_wing")] or camera.toward[2] < 0:
            continue
        parts = {name: made.masks[i, MASKS.index(name)].numpy() for name in ("fore_wing", "thorax", "head")}
        found = measure_fore_wing(parts)
        if found:
            longest = max(float(np.linalg.norm(wing.outline, axis=1).max()) for wing in own if wing.name == "fore_wing")
            ratios.append(found["fore_wing_length"].value / (camera.scale * longest))
    assert len(ratios) >= 6
    assert np.median(ratios) == pytest.approx(0.95, abs=0.04)
    assert max(ratios) < 1.05
