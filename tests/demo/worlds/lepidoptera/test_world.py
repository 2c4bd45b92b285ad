"""The world of butterflies and moths against its own planted truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from concept_cam.demo.worlds.family import Rendering, Specimens
from concept_cam.demo.worlds.lepidoptera.room import WORLD
from concept_cam.demo.worlds.lepidoptera.traits import CHARACTERS, MASKS, PARTS

SIZE = 144


def plane(rendering: Rendering, name: str) -> torch.Tensor:
    assert rendering.masks is not None
    return rendering.masks[:, MASKS.index(name)]


def told(rendering: Rendering, character: str) -> torch.Tensor:
    return rendering.judgeable[:, list(CHARACTERS).index(character)]


def middle(mask: torch.Tensor) -> np.ndarray:
    """Mean place of a mask, (x, y)."""
    y, x = torch.nonzero(mask).float().mean(dim=0).tolist()
    return np.array([x, y])


@pytest.fixture(scope="module")
def spread() -> Specimens:
    return WORLD.sample(24, 31, view="whole", traits={"resting_posture": "spread"})


@pytest.fixture(scope="module")
def rendering(spread: Specimens) -> Rendering:
    return WORLD.render(spread, SIZE, masks=True)


def test_left_is_the_animals_own_left(spread: Specimens, rendering: Rendering) -> None:
    """Seen from above, what lies to the left of the way from abdomen to head is the animal's left; from below it is its right."""
    assert rendering.side is not None
    tested = {"above": 0, "below": 0}
    for i in range(len(spread)):
        if not bool(rendering.visible[i, [MASKS.index(name) for name in ("head", "abdomen", "fore_wing")]].all()):
            continue
        ahead = middle(plane(rendering, "head")[i]) - middle(plane(rendering, "abdomen")[i])
        left, right = (plane(rendering, "fore_wing")[i] & (rendering.side[i] == k) for k in (1, 2))
        if min(left.sum(), right.sum()) < 80:
            continue
        across = middle(right) - middle(left)
        # Pictures have y downwards: right of the way ahead is a positive cross product.
        sign = ahead[0] * across[1] - ahead[1] * across[0]
        # The same animal, turned over by the camera alone, has its legs before its body.
        below = float(plane(rendering, "legs")[i].sum()) > 0 and float((plane(rendering, "body")[i]).sum()) > 0 and _from_below(spread, i)
        tested["below" if below else "above"] += 1
        assert (sign < 0) == below, i
    assert tested["above"] >= 8


def _from_below(spread: Specimens, i: int) -> bool:
    from concept_cam.demo.worlds.lepidoptera import world

    one = spread[i]
    draw = world._one(one)
    state = {name: options[-1] for name, options in CHARACTERS.items()} | {"resting_posture": "spread"}
    camera = world._camera(draw, world.wings(draw, state), world.body(draw, state), -1, "spread", (SIZE, SIZE))
    return bool(camera.toward[2] < 0)


def test_masks_fit_together(rendering: Rendering) -> None:
    assert rendering.masks is not None
    assert rendering.side is not None
    wings = plane(rendering, "fore_wing") | plane(rendering, "hind_wing")
    assert torch.equal(plane(rendering, "wing"), wings)
    assert not (plane(rendering, "fore_wing") & plane(rendering, "hind_wing")).any()
    assert torch.equal(plane(rendering, "body"), plane(rendering, "thorax") | plane(rendering, "abdomen"))
    for inner, outer in (("eye", "head"), ("eyespot", "wing"), ("tail", "hind_wing")):
        assert not (plane(rendering, inner) & ~plane(rendering, outer)).any(), inner
    sided = plane(rendering, "wing") | plane(rendering, "antennae") | plane(rendering, "eye")
    assert torch.equal(rendering.side > 0, sided)


def test_order_along_the_body(spread: Specimens, rendering: Rendering) -> None:
    """The thorax lies between head and abdomen, and the fore wings lie further ahead than the hind wings."""
    tested = 0
    for i in range(len(spread)):
        need = ("head", "thorax", "abdomen", "fore_wing", "hind_wing")
        if not bool(rendering.visible[i, [MASKS.index(name) for name in need]].all()):
            continue
        head, thorax, abdomen, fore, hind = (middle(plane(rendering, name)[i]) for name in need)
        ahead = head - abdomen
        length = float(ahead @ ahead)
        if length < 100:
            continue
        tested += 1
        assert 0 < (thorax - abdomen) @ ahead < length
        assert (fore - hind) @ ahead > 0
    assert tested >= 8


def test_closed_wings_show_undersides_of_one_side_and_hide_the_other() -> None:
    closed = WORLD.sample(16, 33, view="whole", traits={"resting_posture": "closed"})
    made = WORLD.render(closed, SIZE, masks=True)
    assert made.side is not None
    wing = plane(made, "wing")
    left, right = ((wing & (made.side == k)).sum(dim=(1, 2)).float() for k in (1, 2))
    whole = made.visible[:, MASKS.index("wing")]
    nearer = torch.maximum(left, right)[whole] / (left + right)[whole]
    assert len(nearer) >= 10
    assert (nearer > 0.6).float().mean() > 0.8
    # A hind wing lies over the fore wing here: less of the fore wing is seen than of a spread one.
    spread = WORLD.render(WORLD.sample(16, 33, view="whole", traits={"resting_posture": "spread"}), SIZE, masks=True)
    share = [
        float(plane(each, "fore_wing").sum() / (plane(each, "fore_wing").sum() + plane(each, "hind_wing").sum())) for each in (made, spread)
    ]
    assert share[0] < share[1]


def test_tented_wings_hide_the_abdomen() -> None:
    traits = {"hindwing_tails": "absent"}
    seen = {}
    for posture in ("tented", "spread"):
        made = WORLD.render(WORLD.sample(16, 35, view="whole", traits=traits | {"resting_posture": posture}), SIZE, masks=True)
        seen[posture] = plane(made, "abdomen").sum(dim=(1, 2)).float() / plane(made, "thorax").sum(dim=(1, 2)).clamp(min=1)
    assert seen["tented"].median() < 0.3 * seen["spread"].median()


def test_absent_marks_have_no_mask_and_present_ones_do(rendering: Rendering, spread: Specimens) -> None:
    for character, mask in (("eyespots", "eyespot"), ("hindwing_tails", "tail")):
        area = plane(rendering, mask).sum(dim=(1, 2))
        present = np.array([spread.trait(i)[character] == "present" for i in range(len(spread))])
        assert (area[~torch.from_numpy(present)] == 0).all()
        assert (area[torch.from_numpy(present)] > 0).float().mean() > 0.6


def test_one_eyespot_and_several() -> None:
    """Each wing has at most one, or there are more spots than wings that have any."""
    traits = {"eyespots": "present", "resting_posture": "spread", "wing_margin": "smooth"}
    for state in ("one", "several"):
        some = WORLD.sample(12, 37, view="whole", traits=traits | {"eyespot_number": state})
        made = WORLD.render(some, 256, masks=True)
        assert made.side is not None
        rows = torch.nonzero(told(made, "eyespot_number")).flatten().tolist()
        assert len(rows) >= 8
        for i in rows:
            numbers = [
                ndimage.label((plane(made, "eyespot")[i] & plane(made, wing)[i] & (made.side[i] == side)).numpy(), np.ones((3, 3)))[1]
                for wing in ("fore_wing", "hind_wing")
                for side in (1, 2)
            ]
            assert max(numbers) >= 1
            assert (max(numbers) == 1) if state == "one" else (max(numbers) >= 2), i


def test_what_is_outside_or_too_small_cannot_be_told() -> None:
    close = WORLD.sample(30, 39, view="closeup", profile="photographs")
    made = WORLD.render(close, 96, masks=True)
    area = plane(made, "wing").sum(dim=(1, 2))
    for name in ("wing_pattern", "wing_colour", "wing_border", "wing_margin", "resting_posture"):
        assert not told(made, name)[area < 60].any(), name
    assert not told(made, "forewing_shape")[plane(made, "fore_wing").sum(dim=(1, 2)) < 40].any()
    assert not told(made, "antenna_shape")[plane(made, "antennae").sum(dim=(1, 2)) < 12].any()
    tiny = WORLD.render(WORLD.sample(8, 41, view="whole"), 24)
    assert not told(tiny, "antenna_shape").any()
    assert not told(tiny, "wing_margin").any()


def test_every_part_is_drawn_somewhere() -> None:
    made = WORLD.render(WORLD.sample(40, 43, profile="photographs"), 96, masks=True)
    assert made.masks is not None
    for name in (*PARTS, "eyespot", "tail"):
        assert plane(made, name).flatten(1).any(dim=1).sum() >= 4, name


@pytest.mark.parametrize("character", [name for name in CHARACTERS if name not in ("eyespot_number",)])
def test_states_look_different(character: str) -> None:
    traits = {"eyespots": "present", "resting_posture": "spread", "wing_pattern": "plain", "wing_border": "plain", "wing_colour": "white"}
    traits.pop(character, None)
    first = CHARACTERS[character][0]
    base = WORLD.sample(3, 45, view="whole", traits=traits | {character: first})
    pictures = [WORLD.render(WORLD.twin(base, character, state), 112, noise=False).images.int() for state in CHARACTERS[character]]
    for a in range(len(pictures)):
        for b in range(a):
            changed = (pictures[a] - pictures[b]).abs().amax(dim=1) > 12
            assert changed.flatten(1).any(dim=1).sum() >= 2, (CHARACTERS[character][a], CHARACTERS[character][b])
