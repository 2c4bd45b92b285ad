"""Hands, rulers and other fishes in the picture: their masks, what they hide, and what is claimed of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_cam.demo.worlds import captions
from concept_cam.demo.worlds.captions import CaptionWriter, statement_truth
from concept_cam.demo.worlds.claims import FALSE, TRUE, UNKNOWN, Statement
from concept_cam.demo.worlds.family import Specimens, concatenate_specimens
from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.facts import PHOTOGRAPH_PHRASES
from concept_cam.demo.worlds.fish.poses import VIEWPOINTS
from concept_cam.demo.worlds.fish.room import WORLD
from concept_cam.demo.worlds.fish.things import THINGS
from concept_cam.demo.worlds.fish.traits import CHARACTERS, FISH, MASKS
from concept_cam.demo.worlds.fish.world import FishRendering

SIZE = (96, 144)
COUNT = 400


@pytest.fixture(scope="module")
def many() -> Specimens:
    return world.sample(COUNT, 4, view="whole", profile="photographs")


@pytest.fixture(scope="module")
def held(many: Specimens) -> Specimens:
    """Fishes in a hand."""
    draws = world._draws(many.seed, many.index, many.style)
    return many[np.flatnonzero(draws.chance("hand", 0.0))[:16]]


@pytest.fixture(scope="module")
def several(many: Specimens) -> Specimens:
    """Fishes beside others."""
    draws = world._draws(many.seed, many.index, many.style)
    return many[np.flatnonzero(world._companion_count(draws, many))[:16]]


def alone(specimens: Specimens, monkeypatch: pytest.MonkeyPatch, what: str) -> FishRendering:
    """The same pictures without hands, or without companions."""
    with monkeypatch.context() as patch:
        if what == "hand":
            real = world.hands

            def none(*arguments: object) -> object:
                found = real(*arguments)  # type: ignore[arg-type]
                return replace(found, held=np.zeros_like(found.held))

            patch.setattr(world, "hands", none)
        else:
            patch.setattr(world, "_companions", lambda *_: [])
        return world.render(specimens, SIZE, masks=True, noise=False)


def plane(masks: torch.Tensor, part: str) -> torch.Tensor:
    return masks[:, MASKS.index(part)]


def test_a_hand_hides_what_is_under_it_and_nothing_else(held: Specimens, monkeypatch: pytest.MonkeyPatch) -> None:
    with_hand = world.render(held, SIZE, masks=True, noise=False)
    without = alone(held, monkeypatch, "hand")
    assert with_hand.masks is not None
    assert with_hand.things is not None
    assert without.masks is not None
    hand = with_hand.things[:, THINGS.index("hand")]
    assert (hand.flatten(1).sum(dim=1) > 0).float().mean() > 0.8
    assert not (hand & with_hand.masks.any(dim=1)).any()
    near = torch.nn.functional.max_pool2d(hand.float(), 3, 1, 1) > 0
    assert torch.equal(
        with_hand.masks & ~near[:, None],
        without.masks & ~near[:, None],
    )
    change = (with_hand.images.int() - without.images.int()).abs().amax(dim=1)
    assert change[hand].float().mean() > 15


def test_what_a_hand_hides_cannot_be_told(held: Specimens, monkeypatch: pytest.MonkeyPatch) -> None:
    with_hand, without = world.render(held, SIZE, masks=True), alone(held, monkeypatch, "hand")
    assert not (with_hand.judgeable & ~without.judgeable).any()
    assert (without.judgeable & ~with_hand.judgeable).any()
    # An absent fin whose place the hand covers is as unknown as one that is there.
    for character in ("adipose_fin", "pelvic_fin", "eye_spot"):
        lacking = WORLD.twin(held, character, "absent")
        covered = ~world.render(lacking, SIZE).judgeable & alone(lacking, monkeypatch, "hand").judgeable
        if covered[:, list(CHARACTERS).index(character)].any():
            break
    else:
        pytest.fail("no hand covers the place of an absent part")


def test_masks_of_several_fishes_are_those_of_all(several: Specimens, monkeypatch: pytest.MonkeyPatch) -> None:
    together, one = world.render(several, SIZE, masks=True, noise=False), alone(several, monkeypatch, "companions")
    assert together.masks is not None
    assert one.masks is not None
    assert (together.number > 1).float().mean() > 0.8
    assert (one.number == 1).all()
    # The first fish lies on top of the others.
    assert not (one.masks & ~together.masks).any()
    added = together.masks & ~one.masks
    assert (added.any(dim=1) & one.masks.any(dim=1)).float().sum() <= 0.02 * added.any(dim=1).float().sum()
    more = together.number > 1
    assert (plane(added, "trunk")[more].flatten(1).sum(dim=1) > 10).float().mean() > 0.8
    # And the pictures change where the others are.
    change = (together.images.int() - one.images.int()).abs().amax(dim=1)
    assert change[plane(added, "trunk")].float().mean() > 20


def test_states_of_several_fishes_are_claimed_only_if_all_agree(several: Specimens, monkeypatch: pytest.MonkeyPatch) -> None:
    together, one = world.render(several, SIZE), alone(several, monkeypatch, "companions")
    assert not (together.judgeable & ~one.judgeable).any()
    assert (one.judgeable & ~together.judgeable).any()
    assert together.judgeable[together.number > 1].any()


def test_companions_of_twins_lie_where_they_lay(several: Specimens) -> None:
    """A twin's companions keep their place, light and skin; those of the same kind take the new state too."""
    twins = WORLD.twin(
        several, "eye_spot", ["absent" if several.trait(i)["eye_spot"] == "present" else "present" for i in range(len(several))]
    )
    a, b = world.render(several, SIZE, masks=True, noise=False), world.render(twins, SIZE, masks=True, noise=False)
    assert a.masks is not None
    assert b.masks is not None
    assert torch.equal(plane(a.masks, "caudal_fin"), plane(b.masks, "caudal_fin"))
    spots = plane(a.masks, "eye_spot") | plane(b.masks, "eye_spot")
    near = torch.nn.functional.max_pool2d(spots.float(), 9, 1, 4) > 0
    changed = (a.images.int() - b.images.int()).abs().amax(dim=1) >= 6
    assert (changed & ~near).sum() < 0.1 * changed.sum() + 20


def test_things_on_the_ground_have_masks() -> None:
    plain = world.sample(40, 8, view="whole", scenes=["white_tray"])
    found = world.render(plain, SIZE, masks=True)
    assert found.things is not None
    assert found.masks is not None
    seen = found.things.flatten(2).any(dim=2)
    assert seen[:, THINGS.index("ruler")].any()
    assert seen[:, THINGS.index("label")].any()
    assert not (found.things.any(dim=1) & found.masks.any(dim=1)).any()
    assert world.render(plain[:2], SIZE).things is None


def test_facts_of_photographs(held: Specimens, several: Specimens, many: Specimens) -> None:
    rows = np.concatenate([held.index, several.index, np.arange(24)]) % COUNT
    specimens = many[rows]
    rendering = world.render(specimens, SIZE, masks=True)
    facts = captions.picture_facts(WORLD, specimens, rendering)
    claims = tuple(PHOTOGRAPH_PHRASES)
    truth = dict(zip(claims, statement_truth(facts, claims).T, strict=True))
    assert {TRUE, FALSE} <= set(truth[Statement("thing", "hand")].tolist())
    several_truth, one = truth[Statement("number", "several")], truth[Statement("number", "one")]
    assert ((several_truth == TRUE) == (rendering.number.numpy() > 1)).all()
    assert ((several_truth == TRUE) != (one == TRUE)).all()
    above = truth[Statement("viewpoint", "above")]
    assert ((above == TRUE) == (rendering.viewpoint.numpy() == VIEWPOINTS.index("above"))).all()
    between = rendering.viewpoint.numpy() == VIEWPOINTS.index("between")
    assert (above[between] == UNKNOWN).all()
    folded, spread = truth[Statement("tail", "folded")], truth[Statement("tail", "spread")]
    assert not ((folded == TRUE) & (spread == TRUE)).any()
    assert {TRUE, FALSE, UNKNOWN} <= set(folded.tolist())
    shape = list(CHARACTERS).index("caudal_fin_shape")
    assert not facts.judgeable[folded == TRUE, shape].any()


def test_facts_without_photograph_fields_say_that_nothing_is_known(many: Specimens) -> None:
    facts = captions.picture_facts(WORLD, many[:3], world.render(many[:3], 48))
    bare = replace(facts, more={})
    claims = tuple(PHOTOGRAPH_PHRASES)
    assert (statement_truth(bare, claims) == UNKNOWN).all()
    assert not captions.concatenate_facts([facts, bare]).more
    both = captions.concatenate_facts([facts, facts])
    assert set(both.more) == set(claims)
    assert (statement_truth(both, claims)[3:] == statement_truth(facts, claims)).all()
    assert len(facts[slice(0, 2)]) == 2


def test_captions_of_photographs(many: Specimens) -> None:
    writer, plain = CaptionWriter(WORLD, more=True), CaptionWriter(WORLD)
    assert set(plain.phrases) == set(captions.statements(FISH))
    assert set(writer.phrases) == {*captions.statements(FISH), *PHOTOGRAPH_PHRASES}
    facts = captions.picture_facts(WORLD, many[:6], world.render(many[:6], SIZE, masks=True))
    rng = np.random.default_rng(0)
    written = writer.batch(rng, facts)
    assert {claim for caption in written for claim in caption.statements} >= set(PHOTOGRAPH_PHRASES)
    table = captions.truth_table(facts, written)
    assert table.shape == (6, len(written))
    for i in range(6):
        row = facts[slice(i, i + 1)]
        for caption in writer.describe(rng, row, 12):
            assert captions.truth_table(row, [caption])[0, 0] == TRUE, caption
    texts = {claim: " ".join(phrases) for claim, phrases in writer.phrases.items()}
    assert "belly up" in texts[Statement("viewpoint", "below")]


def test_every_tensor_is_made_on_the_device_asked_for(held: Specimens, several: Specimens) -> None:
    """With another default device, a tensor that is made without saying where cannot meet the others."""
    both = concatenate_specimens([held[:2], several[:2]])
    usual = world.render(both, 48, masks=True)
    torch.set_default_device("meta")
    try:
        same = world.render(both, 48, masks=True, device="cpu")
    finally:
        torch.set_default_device(None)
    assert torch.equal(usual.images, same.images)
