"""Every world of the family against what all of them promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_cam import prompts
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.draws import Draws, OneDraw, Style, StyledDraws
from concept_cam.demo.worlds.family import World, concatenate_specimens, twin

SIZE = 96


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


def test_words_are_those_of_the_pack(world: World) -> None:
    pack = prompts.load_pack(world.name)
    known = {character.name: character for character in pack.characters}
    assert pack.host == world.host
    for name, states in world.characters.items():
        assert set(states) <= {state.name for state in known[name].states}, name
        assert (name in world.presences) == (known[name].kind == "presence")
        assert (name in world.colours) == (known[name].kind == "colour" or name == "elytra_gloss")
    assert set(world.parts) <= {state.name for state in known["parts"].states}
    assert world.masks[: len(world.parts)] == world.parts
    assert set(world.character_mask) == set(world.characters)
    assert set(world.character_mask.values()) <= set(world.masks)
    assert set(world.paired) <= set(world.masks)


def test_phrases_are_of_known_parts_and_states_and_name_no_two_states_alike(world: World) -> None:
    assert set(world.part_phrases) <= set(world.masks)
    assert set(world.part_phrases) >= set(world.parts)
    assert world.host_phrases
    for name, states in world.state_phrases.items():
        assert set(states) <= set(world.characters[name])
        said = [phrase for phrases in states.values() for phrase in phrases]
        assert len(said) == len(set(said)), name


def test_pictures_depend_on_seed_and_number_alone(world: World) -> None:
    many = world.sample(6, 5)
    alone = world.sample(1, 5, start=4)
    assert np.array_equal(alone.states[0], many.states[4])
    a, b = world.render(alone, SIZE, masks=True), world.render(many, SIZE, masks=True)
    assert a.masks is not None
    assert b.masks is not None
    assert (a.images[0].int() - b.images[4].int()).abs().max() <= 3
    assert torch.equal(a.masks[0], b.masks[4])
    assert not np.array_equal(world.sample(30, 6).states, world.sample(30, 5).states)


def test_shapes_and_types(world: World) -> None:
    some = world.sample(3, 8)
    made = world.render(some, (48, 80), masks=True)
    assert made.images.shape == (3, 3, 48, 80)
    assert made.images.dtype == torch.uint8
    assert made.masks is not None
    assert made.masks.shape == (3, len(world.masks), 48, 80)
    assert made.visible.shape == made.in_frame.shape == (3, len(world.masks))
    assert made.judgeable.shape == (3, len(world.characters))
    assert (made.side is not None) == bool(world.paired)
    without = world.render(some, (48, 80))
    assert without.masks is None
    assert torch.equal(without.visible, made.visible)
    assert torch.equal(without.judgeable, made.judgeable)


def test_what_is_visible_is_in_the_frame_and_has_a_mask(world: World) -> None:
    made = world.render(world.sample(12, 11, profile="photographs"), SIZE, masks=True)
    assert made.masks is not None
    area = made.masks.sum(dim=(2, 3))
    assert ((area > 0) | ~made.visible).all()
    assert (made.in_frame | ~made.visible).all()
    assert made.visible.any()
    assert made.judgeable.any()
    assert not made.judgeable.all()


def test_an_empty_scene_shows_and_tells_nothing(world: World) -> None:
    some = world.sample(3, 13, view="whole")
    bare = replace(some, present=np.zeros(3, dtype=bool))
    made = world.render(bare, SIZE, masks=True)
    assert made.masks is not None
    assert not made.masks.any()
    assert not made.visible.any()
    assert not made.judgeable.any()
    assert bare.trait(0) == {}
    assert some.trait(0)


def test_twins_of_the_same_state_are_the_same_picture(world: World) -> None:
    some = world.sample(3, 17, view="whole")
    for name in world.characters:
        same = world.twin(some, name, [some.trait(i)[name] for i in range(3)])
        assert np.array_equal(same.states, some.states)
    assert not world.difference(some, same, 48, threshold=1).any()


def test_a_twin_differs_where_its_character_is_shown(world: World) -> None:
    """Of all pixels that change much, most lie in or near what shows the character, in one of the two pictures."""
    for name in world.characters:
        mask = world.masks.index(world.character_mask[name])
        first, second = world.characters[name][:2]
        a = world.sample(5, 23, view="whole", traits={name: first})
        b = twin(a, name, second)
        changed = world.difference(a, b, SIZE, threshold=24)
        shown = [world.render(each, SIZE, masks=True) for each in (a, b)]
        told = shown[0].judgeable[:, list(world.characters).index(name)]
        planes = [each.masks for each in shown if each.masks is not None]
        part = torch.nn.functional.max_pool2d((planes[0][:, mask] | planes[1][:, mask]).float()[:, None], 13, 1, 6)[:, 0] > 0
        # The shape of its body moves everything that a fish has.
        if name == "body_shape" or not told.any():
            continue
        assert changed[told].any(), name
        assert (changed & part)[told].sum() >= 0.6 * changed[told].sum(), name


def test_wrong_input_gets_one_clear_message(world: World) -> None:
    some = world.sample(2, 1)
    with pytest.raises(ValueError, match="unknown character 'wings_of_wax'"):
        world.twin(some, "wings_of_wax", "melted")
    with pytest.raises(ValueError, match="unknown state 'melted'"):
        world.sample(1, 1, traits={next(iter(world.characters)): "melted"})
    with pytest.raises(ValueError, match="3 states for 2 specimens"):
        world.twin(some, next(iter(world.characters)), ["a", "b", "c"])
    with pytest.raises(ValueError, match="unknown view"):
        world.sample(1, 1, view="sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown scenes"):
        world.sample(1, 1, scenes=("the moon",))
    with pytest.raises(ValueError, match="unknown profile"):
        world.sample(1, 1, profile="etchings")
    with pytest.raises(ValueError, match="at least one pixel"):
        world.render(some, 0)


def test_specimens_of_several_groups_are_not_one_batch() -> None:
    fish, other = WORLDS["fish"].sample(1, 1), WORLDS["lepidoptera"].sample(1, 1)
    with pytest.raises(ValueError, match="expected one group"):
        concatenate_specimens([fish, other])
    assert len(concatenate_specimens([fish, fish])) == 2


def test_one_draw_is_a_row_of_draws() -> None:
    style = Style(ranges={"a": (2.0, 3.0)}, chances={"b": 0.9})
    rows = StyledDraws(np.array([7, 7]), np.array([3, 2**40]), np.array([0, 1]), (Style(), style))
    for i, own in enumerate((None, style)):
        one = OneDraw(7, int(rows.index[i]), own)
        assert one("a") == pytest.approx(float(rows("a")[i]), abs=1e-6)
        assert one("c", -4, 9) == pytest.approx(float(rows("c", -4, 9)[i]), abs=1e-6)
        assert one.chance("b", 0.1) == bool(rows.chance("b", 0.1)[i])
    assert Draws(np.array([1]), np.array([2]))("x")[0] == pytest.approx(OneDraw(1, 2)("x"))
