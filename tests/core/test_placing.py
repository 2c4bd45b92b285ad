"""Left and right, front and rear, told from the parts of a body: planted butterflies and the rendered fish, exact masks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from concept_cam.core.placing import (
    _CLEAR,
    _FAINT,
    _FAINT_SPECK,
    _SPECK,
    _VALLEY,
    LEFT_OF,
    ORDER,
    PLACES,
    SIDES,
    BodyPlan,
    Orientation,
    _pieces,
    orient,
    resolve,
)
from tests.butterflies import PACK, butterfly

PLAN = BodyPlan(**{key: tuple(value) for key, value in PACK["frame"].items()})
WINGS = [(side, wing) for side in ("left", "right") for wing in ("fore_wing", "hind_wing")]
ANGLES = [math.radians(angle) for angle in (0, 37, 90, 135, 180, 222, 270, 318)]


def parts_of(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: mask for name, mask in masks.items() if not name.startswith(("left", "right"))}


def share(cells: np.ndarray | None, wanted: np.ndarray, of: np.ndarray) -> float:
    """Intersection over union of what a place leaves of a part with the wing that is meant."""
    found = np.zeros_like(wanted) if cells is None else cells & of
    return float((found & wanted).sum() / (found | wanted).sum())


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("view", ["above", "below"])
@pytest.mark.parametrize("angle", ANGLES)
def test_the_animals_own_left_and_right(angle: float, view: str, mirrored: bool) -> None:
    made = butterfly(angle, view, mirrored=mirrored)
    lies = orient(parts_of(made.masks), PLAN)
    assert lies.ahead @ made.ahead > 0.99
    assert (lies.view, lies.across, lies.facing) == (view, True, "")
    for side, wing in WINGS:
        place, cells = resolve(side, made.masks[wing].astype(np.float32), lies, PLAN, wing)
        assert (place.resolved, place.left_of) == (True, "animal")
        assert share(cells, made.masks[f"{side}_{wing}"], made.masks[wing]) > 0.97


@pytest.mark.parametrize("view", ["above", "below"])
@pytest.mark.parametrize("angle", ANGLES)
def test_the_viewers_left_where_the_upper_side_is_not_known(angle: float, view: str) -> None:
    made = butterfly(angle, view, evidence=False)
    lies = orient(parts_of(made.masks), PLAN)
    assert (lies.view, lies.across) == ("", True)
    assert lies.left is None
    for side, wing in WINGS:
        place, cells = resolve(side, made.masks[wing].astype(np.float32), lies, PLAN, wing)
        assert (place.resolved, place.left_of) == (True, "viewer, head up")
        # With the head turned up, seen from above the viewer's left is the animal's own, seen from below its right.
        own = side if view == "above" else {"left": "right", "right": "left"}[side]
        assert share(cells, made.masks[f"{own}_{wing}"], made.masks[wing]) > 0.97


def test_a_pack_may_say_how_all_pictures_are_taken() -> None:
    made = butterfly(1.0, "above", evidence=False)
    plan = BodyPlan(PLAN.along, PLAN.sides, view="above")
    place, cells = resolve("left", made.masks["fore_wing"].astype(np.float32), orient(parts_of(made.masks), plan), plan, "fore_wing")
    assert place.left_of == "animal"
    assert share(cells, made.masks["left_fore_wing"], made.masks["fore_wing"]) > 0.97


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", ANGLES)
def test_from_beside_one_side_is_seen(angle: float, mirrored: bool) -> None:
    made = butterfly(angle, "beside", mirrored=mirrored)
    # Half raised wings show the far one, closed wings the near one: which it is must be known.
    unknown = orient(parts_of(made.masks), PLAN)
    assert unknown.view == "beside"
    assert resolve("right", made.masks["fore_wing"].astype(np.float32), unknown, PLAN, "fore_wing")[1] is None
    closed = replace(PLAN, view="beside")
    lies = orient(parts_of(made.masks), closed)
    # Wings that stand up over the back on the head's left: the animal is seen from its right, mirrored from its left.
    assert lies.facing == ("left" if mirrored else "right")
    seen, cells = resolve(lies.facing, made.masks["fore_wing"].astype(np.float32), lies, closed, "fore_wing")
    assert seen.resolved
    assert cells[made.masks["fore_wing"]].all()
    hidden, none = resolve("right" if mirrored else "left", made.masks["fore_wing"].astype(np.float32), lies, closed, "fore_wing")
    assert none is None
    assert "not seen" in hidden.reason


def test_a_fish_seen_from_beside_shows_the_side_that_the_head_tells() -> None:
    """A fish that looks to the left, its back up, shows its left side: upside down or turned round it shows its right one."""
    plan = BodyPlan(("head", "trunk", "tail"), upper=("dorsal",), lower=("anal",))
    masks = {name: np.zeros((60, 100), bool) for name in ("head", "trunk", "tail", "dorsal", "anal")}
    masks["head"][25:35, 5:20], masks["trunk"][20:40, 20:70], masks["tail"][22:38, 70:90] = True, True, True
    masks["dorsal"][12:20, 30:50], masks["anal"][40:46, 50:62] = True, True
    assert orient(masks, plan).facing == "left"
    assert orient({name: mask[::-1] for name, mask in masks.items()}, plan).facing == "right"
    assert orient({name: mask[:, ::-1] for name, mask in masks.items()}, plan).facing == "right"
    assert orient({name: mask[::-1, ::-1] for name, mask in masks.items()}, plan).facing == "left"
    assert orient({name: mask.T for name, mask in masks.items()}, plan).facing == "right"  # Head up, back to the left.
    sideless = {name: mask for name, mask in masks.items() if name not in ("dorsal", "anal")}
    place, _ = resolve("left", masks["head"].astype(float), orient(sideless, plan), plan, "fin")
    assert place.left_of == "viewer, head up"


def test_pieces_in_order_from_the_front() -> None:
    plan = BodyPlan(("head", "trunk", "tail"))
    masks = {name: np.zeros((60, 100), bool) for name in ("head", "trunk", "tail")}
    masks["head"][25:35, 80:95], masks["trunk"][20:40, 30:80], masks["tail"][22:38, 10:30] = True, True, True
    fins = np.zeros((60, 100))
    fins[12:20, 40:46], fins[10:20, 52:60], fins[13:20, 66:75] = 1, 1, 1
    lies = orient(masks, plan)
    assert lies.heading == pytest.approx(0, abs=3)
    expected = {"front": 66, "first": 66, "second": 52, "last": 40, "rear": 40}
    for where, left in expected.items():
        place, cells = resolve(where, fins, lies, plan)
        assert place.resolved
        assert np.flatnonzero((cells & (fins > 0)).any(axis=0))[0] == left, where
    alone = np.where(np.arange(100) < 50, fins, 0)
    for where in ORDER:
        place, cells = resolve(where, alone, lies, plan)
        assert place.resolved == (where in ("first", "last"))
    # Where the front is not known there is no order.
    assert resolve("front", fins, Orientation(None, np.zeros(2)), plan)[1] is None


def test_hills_that_run_together_are_two_and_ripples_are_one() -> None:
    x = np.arange(100)[None] + np.zeros((40, 1))
    y = np.arange(40)[:, None]

    def hill(at: float, height: float) -> np.ndarray:
        return height * np.exp(-((x - at) ** 2 + (y - 20) ** 2) / 160)

    plan = BodyPlan(("head", "tail"))
    lies = Orientation(np.array([-1.0, 0.0]), np.array([50.0, 20.0]))
    apart = np.maximum(hill(40, 1.0), hill(60, 0.8))
    assert apart[20].min() < 0.5 < apart[20, 50]  # They run together at half of the peak.
    place, cells = resolve("rear", apart, lies, plan)
    assert place.resolved
    assert cells[20, 60]
    assert not cells[20, 40]
    rippled = hill(45, 1.0) + 0.03 * np.sin(x)
    assert not resolve("rear", rippled, lies, plan)[0].resolved


@pytest.mark.parametrize("seed", range(12))
def test_hills_are_parted_where_they_lie_as_over_all_of_the_map(seed: int) -> None:
    """Restated without a frame and without a floor: every pixel of the map is looked at."""
    generator = np.random.default_rng(seed)
    heat = gaussian_filter(generator.standard_normal((40, 60)), generator.uniform(1, 4))
    heat = np.where(generator.random() < 0.5, np.roll(heat, 7, axis=1), heat) + generator.uniform(-0.1, 0.1)
    heat[: int(generator.integers(10))] = -np.inf
    for share, speck in ((_CLEAR, _SPECK), (_FAINT, _FAINT_SPECK)):
        values = np.maximum(heat, 0.0)
        peak = values.max()
        above, depth = values > share * peak, _VALLEY * peak
        tops = values - reconstruction(np.maximum(values - depth, 0.0), values) > 0.999 * depth
        marks, count = label(tops & above, np.ones((3, 3)))
        labels = watershed(-values, marks, mask=above)
        sizes = [(labels == number + 1).sum() for number in range(count)]
        wanted = [labels == number + 1 for number in range(count) if sizes[number] >= speck * max(sizes)]
        found = _pieces(heat, share, speck)
        assert len(found) == len(wanted) > 0
        for one, other in zip(found, wanted):
            np.testing.assert_array_equal(one, other)


def test_a_fainter_second_fin_counts_where_two_are_asked_for() -> None:
    x, y = np.arange(100)[None], np.arange(60)[:, None]

    def hill(at: float, height: float, width: float = 40) -> np.ndarray:
        return height * np.exp(-((x - at) ** 2 + (y - 15) ** 2) / width)

    plan = BodyPlan(("head", "trunk", "tail"), upper=("dorsal_fin",), lower=("anal_fin",))
    lies = Orientation(np.array([-1.0, 0.0]), np.array([50.0, 30.0]), "beside", up=np.array([0.0, -1.0]))
    faint = hill(30, 1.0) + hill(70, 0.45)
    # A rival beside it, which is another part's and louder than the faint fin, takes nothing from it.
    rival = faint + hill(90, 0.6, 10)
    for heat, others in ((faint, None), (rival, {"adipose_fin": np.broadcast_to(x > 82, (60, 100))})):
        for where, at in (("front", 30), ("rear", 70), ("second", 70)):
            place, cells = resolve(where, heat, lies, plan, "dorsal_fin", others)
            assert place.resolved
            assert cells[15, at]
            assert not cells[15, 100 - at]
    for small in (hill(70, 0.25), hill(70, 0.45, 6)):  # Too faint; too small.
        assert not resolve("rear", hill(30, 1.0) + small, lies, plan, "dorsal_fin")[0].resolved
    # Who asks for the only or the last one gets the clear one.
    place, cells = resolve("last", faint, lies, plan, "dorsal_fin")
    assert place.resolved
    assert cells[15, 30]


def test_a_part_of_the_under_side_takes_nothing_on_the_upper_side() -> None:
    x, y = np.arange(100)[None], np.arange(60)[:, None]
    fins = np.exp(-((x - 30) ** 2 + (y - 15) ** 2) / 40) + np.exp(-((x - 70) ** 2 + (y - 15) ** 2) / 40)
    plan = BodyPlan(("head", "trunk", "tail"), upper=("dorsal_fin", "adipose_fin"), lower=("anal_fin",))
    lies = Orientation(np.array([-1.0, 0.0]), np.array([50.0, 30.0]), "beside", up=np.array([0.0, -1.0]))
    taken = np.broadcast_to(x > 50, (60, 100))
    place, cells = resolve("rear", fins, lies, plan, "dorsal_fin", {"anal_fin": taken})
    assert place.resolved
    assert cells[15, 70]
    assert not cells[15, 30]
    # Another part of the upper side does take it, and so does any part where up is not known.
    assert not resolve("rear", fins, lies, plan, "dorsal_fin", {"adipose_fin": taken})[0].resolved
    assert not resolve("rear", fins, replace(lies, up=None), plan, "dorsal_fin", {"anal_fin": taken})[0].resolved


def test_where_nothing_is_known_left_is_left_in_the_picture() -> None:
    heat = np.zeros((50, 80))
    heat[20:30, 10:20], heat[22:32, 60:70] = 1.0, 0.8
    nowhere = orient({}, BodyPlan())
    for side, column in (("left", 15), ("right", 65)):
        place, cells = resolve(side, heat, nowhere, BodyPlan())
        assert (place.resolved, place.left_of) == (True, "viewer")
        assert cells[25, column]
        assert not cells[25, 80 - column]
    for wrong, words in (
        (np.where(np.arange(80) < 40, heat, 0), "only one of it"),
        (heat.T, "above each other"),
        (0 * heat, "nothing of it"),
    ):
        place, cells = resolve("left", wrong, nowhere, BodyPlan())
        assert cells is None
        assert words in place.reason


def test_what_contradicts_itself_says_nothing() -> None:
    made = butterfly(0.4)
    parts = parts_of(made.masks)
    swapped = parts | {"head": parts["thorax"], "thorax": parts["head"]}
    assert (
        orient(
            swapped | {"abdomen": parts["abdomen"] & False, "fore_wing": parts["hind_wing"], "hind_wing": parts["fore_wing"]}, PLAN
        ).ahead
        @ made.ahead
        < 0
    )
    both = orient(parts | {"legs": parts["collar"]}, PLAN)
    assert both.view == ""  # Collar and legs at once: one of them is not what it seems.
    triangle = {name: np.zeros((90, 90), bool) for name in ("head", "thorax", "abdomen")}
    triangle["head"][10:20, 40:50], triangle["thorax"][70:80, 10:20], triangle["abdomen"][10:20, 42:52] = True, True, True
    assert orient(triangle, PLAN).ahead is None


def test_one_wing_at_the_edge_of_the_picture_is_not_a_side_view() -> None:
    made = butterfly(math.pi / 2, evidence=False)
    middle = made.pixels.shape[1] // 2
    cut = {name: mask[:, : middle + 10] for name, mask in parts_of(made.masks).items()}
    lies = orient(cut, PLAN)
    assert lies.view == ""
    place, cells = resolve("left", cut["fore_wing"].astype(float), lies, PLAN, "fore_wing")
    assert cells is None
    assert "only one side" in place.reason


def test_a_side_that_is_empty_is_said_to_be() -> None:
    made = butterfly(0.9)
    lies = orient(parts_of(made.masks), PLAN)
    place, cells = resolve("right", made.masks["left_fore_wing"].astype(float), lies, PLAN, "fore_wing")
    assert cells is None
    assert place.reason.startswith("there is none on the right")


def test_every_place_has_a_meaning_and_plain_data() -> None:
    assert set(SIDES) | set(ORDER) == set(PLACES)
    made = butterfly(0.0)
    lies = orient(parts_of(made.masks), PLAN)
    place, _ = resolve("left", made.masks["fore_wing"].astype(float), lies, PLAN, "fore_wing")
    data = place.to_dict()
    assert data["left_of"] in LEFT_OF
    assert data["heading_deg"] == pytest.approx(0, abs=2)
    assert data["view"] == "above"
    assert "collar" in data["told_by"]
