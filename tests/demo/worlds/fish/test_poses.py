"""Fishes that lie in any way: what is seen of them, and what can no longer be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_cam.demo.worlds.draws import Draws, Style, StyledDraws
from concept_cam.demo.worlds.family import Specimens, concatenate_specimens
from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.anatomy import NOTCH, build
from concept_cam.demo.worlds.fish.poses import TAIL_TOLD, VIEWPOINTS, Pose, pose
from concept_cam.demo.worlds.fish.room import WORLD
from concept_cam.demo.worlds.fish.styles import PROFILES, STYLES
from concept_cam.demo.worlds.fish.traits import CHARACTER_PART, CHARACTERS, MASKS, PRESENCE_CHARACTERS
from concept_cam.demo.worlds.fish.world import FishRendering

SIZE = 112


def lay(count: int = 400, seed: int = 3, **states: str) -> Pose:
    """Poses of many fishes with the given states."""
    draws = Draws(np.full(count, seed), np.arange(count))
    table = np.zeros((count, len(CHARACTERS)), dtype=np.int64)
    for name, state in states.items():
        table[:, list(CHARACTERS).index(name)] = CHARACTERS[name].index(state)
    return pose(draws, build(draws, table), np.ones(count, dtype=bool))


def told(lying: Pose, character: str) -> np.ndarray:
    return lying.judged[:, list(CHARACTERS).index(character)]


def plane(masks: torch.Tensor, part: str) -> torch.Tensor:
    return masks[:, MASKS.index(part)]


def grow(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(mask.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0


@pytest.fixture(scope="module")
def wild() -> Specimens:
    return world.sample(60, 21, view="whole", profile="photographs")


@pytest.fixture(scope="module")
def rendering(wild: Specimens) -> FishRendering:
    return world.render(wild, SIZE, masks=True)


def test_every_viewpoint_and_every_tail_occurs() -> None:
    lying = lay()
    shares = np.bincount(lying.viewpoint, minlength=len(VIEWPOINTS)) / 400
    assert (shares > 0.05).all()
    assert (lying.tail < 0.3).mean() > 0.1
    assert (lying.tail > 0.8).mean() > 0.2


def test_a_fish_that_is_not_posed_is_unchanged_and_everything_can_be_told() -> None:
    draws = Draws(np.full(20, 3), np.arange(20))
    anatomy = build(draws, np.zeros((20, len(CHARACTERS)), dtype=np.int64))
    lying = pose(draws, anatomy, np.zeros(20, dtype=bool))
    assert lying.judged.all()
    assert (lying.viewpoint == VIEWPOINTS.index("side")).all()
    assert np.array_equal(lying.anatomy.areas, anatomy.areas)
    assert np.array_equal(lying.anatomy.sites, anatomy.sites)
    for name, values in anatomy.values.items():
        assert np.array_equal(lying.anatomy.values[name], values), name


def test_an_edge_on_or_folded_tail_has_no_shape() -> None:
    lying = lay()
    shape = told(lying, "caudal_fin_shape")
    assert np.array_equal(shape, lying.tail >= TAIL_TOLD)
    assert 0.2 < shape.mean() < 0.8


def test_from_above_neither_body_shape_nor_mouth_nor_hidden_fins_can_be_told() -> None:
    lying = lay(pelvic_fin="present", adipose_fin="present")
    above = lying.viewpoint == VIEWPOINTS.index("above")
    below = lying.viewpoint == VIEWPOINTS.index("below")
    for character in ("body_shape", "mouth_position"):
        assert not told(lying, character)[above | below].any()
    # Spread sideways, a pelvic fin may still stand out beyond a narrow body.
    assert told(lying, "pelvic_fin")[above].mean() < 0.25
    assert told(lying, "pelvic_fin")[lying.viewpoint == VIEWPOINTS.index("side")].mean() > 0.7
    assert not told(lying, "adipose_fin")[lying.anatomy.values["pose.sin"] < -0.9].any()
    assert told(lying, "adipose_fin")[below].mean() < 0.4
    assert not told(lying, "body_colour")[lying.anatomy.values["pose.sin"] < -0.8].any()
    assert told(lying, "body_colour")[lying.viewpoint == VIEWPOINTS.index("side")].all()


def test_the_pose_does_not_betray_a_state() -> None:
    """Whether a fin can be told must be as likely without it as with it, and for the same fishes."""
    for character in PRESENCE_CHARACTERS:
        present, absent = lay(**{character: "present"}), lay(**{character: "absent"})
        assert np.array_equal(told(present, character), told(absent, character))
    forked, rounded = lay(caudal_fin_shape="forked"), lay(caudal_fin_shape="rounded")
    assert np.array_equal(forked.tail, rounded.tail)


def test_the_outline_is_that_of_the_turned_body() -> None:
    """The area of head and trunk is that of ellipses seen at the roll of the fish, neither wider nor narrower."""
    many = world.sample(80, 77, view="whole", profile="photographs", scenes=["grey_tray"])
    anatomy, camera = world.geometry(many, (SIZE, SIZE))
    sin, cos = (anatomy.values[f"pose.{name}"][:, None] for name in ("sin", "cos"))
    half = 0.5 * (anatomy.tables["upper"] - anatomy.tables["lower"])
    expected = 2 * np.hypot(half * cos, anatomy.tables["width"] * sin).mean(axis=1) * camera.scale**2
    found = world.render(many, SIZE, masks=True)
    assert found.masks is not None
    body = plane(found.masks, "head") | plane(found.masks, "trunk") | plane(found.masks, "pectoral_fin")
    framed = ~(body[:, [0, -1]].any(dim=(1, 2)) | body[:, :, [0, -1]].any(dim=(1, 2))).numpy()
    covered = (plane(found.masks, "head") | plane(found.masks, "trunk")).sum(dim=(1, 2)).numpy()
    ratio = covered / expected
    assert found.things is not None
    framed &= ((found.number == 1) & ~found.things[:, 0].flatten(1).any(dim=1)).numpy()
    for rows in (framed & (np.abs(sin[:, 0]) < 0.3), framed & (np.abs(sin[:, 0]) > 0.85)):
        assert rows.sum() >= 5
        assert 0.9 < np.median(ratio[rows]) < 1.08
        # Fins that lie over the body, and perspective.
        assert (ratio[rows] > 0.6).all()
        assert (ratio[rows] < 1.3).all()


def test_masks_of_a_posed_fish_fit_together(wild: Specimens, rendering: FishRendering) -> None:
    masks = rendering.masks
    assert masks is not None
    body = grow(
        plane(masks, "head") | plane(masks, "trunk") | plane(masks, "pectoral_fin") | plane(masks, "dorsal_fin"),
        1,
    )
    for part in ("eye", "mouth", "operculum", "lateral_line", "eye_spot"):
        assert not (plane(masks, part) & ~body).any(), part
    disjoint = (
        "head",
        "trunk",
        "caudal_fin",
        "dorsal_fin",
        "adipose_fin",
        "anal_fin",
        "pelvic_fin",
    )
    stacked = torch.stack([plane(masks, part) for part in disjoint])
    assert (stacked.sum(dim=0) > 1).float().mean() < 0.002


def test_posed_masks_lie_where_the_picture_changes(wild: Specimens) -> None:
    """A fish without noise differs from its empty ground exactly where its masks and its shadow are."""
    some = wild[np.flatnonzero(wild.style > 0)[:16]]
    bare = replace(some, present=np.zeros(len(some), dtype=bool))
    with_fish = world.render(some, SIZE, masks=True, noise=False)
    without = world.render(bare, SIZE, noise=False)
    assert with_fish.masks is not None
    change = (with_fish.images.int() - without.images.int()).abs().amax(dim=1)
    fish = with_fish.masks.any(dim=1)
    assert change[plane(with_fish.masks, "trunk")].float().mean() > 25
    assert change[~grow(fish, 40)].float().mean() < 1.5


@pytest.mark.parametrize("character", ["caudal_fin_shape", "adipose_fin", "pelvic_fin", "barbels", "eye_spot"])
def test_posed_twins_differ_only_at_their_part(character: str) -> None:
    first, second = CHARACTERS[character][:2]
    a = world.sample(
        24,
        31,
        view="whole",
        scenes=["white_tray", "grey_tray"],
        traits={character: first},
        profile="photographs",
    )
    b = WORLD.twin(a, character, second)
    one, two = world.render(a, SIZE, masks=True), world.render(b, SIZE, masks=True)
    assert one.masks is not None
    assert two.masks is not None
    part = CHARACTER_PART[character]
    place = plane(one.masks, part) | plane(two.masks, part)
    differing = WORLD.difference(a, b, SIZE)
    hidden = ~place.flatten(1).any(dim=1)
    # Of a fin that the body hides, the shadow and a sliver may be left.
    assert (differing[hidden].flatten(1).sum(dim=1) < 60).all()
    assert not (differing & ~grow(place, 45))[~hidden].any()
    assert (differing & ~grow(place, 6)).sum() < 0.4 * differing.sum() + 60
    for other in ("head", "trunk", "eye", "anal_fin"):
        moved = plane(one.masks, other) ^ plane(two.masks, other)
        assert not (moved & ~grow(place, 3)).any(), other
    # Where the state can be told, the two pictures differ.
    both = (one.judgeable & two.judgeable)[:, list(CHARACTERS).index(character)]
    assert both.any()
    assert (differing & grow(place, 2)).flatten(1).any(dim=1)[both].float().mean() > 0.9


def test_plain_and_posed_fishes_in_one_batch_are_those_rendered_alone() -> None:
    plain = world.sample(6, 5, view="whole")
    wild = world.sample(6, 6, view="whole", profile="photographs")
    together = world.render(concatenate_specimens([plain, wild]), 48, masks=True)
    for batch, rows in ((plain, slice(0, 6)), (wild, slice(6, 12))):
        alone = world.render(batch, 48, masks=True)
        assert alone.masks is not None
        assert together.masks is not None
        difference = (alone.images.int() - together.images[rows].int()).abs()
        assert (difference > 3).float().mean() < 2e-3
        assert (alone.masks != together.masks[rows]).float().mean() < 1e-3


def test_profiles_share_out_their_styles() -> None:
    assert all(set(shares) <= set(STYLES) for shares in PROFILES.values())
    assert not world.sample(50, 1).style.any()
    styles = world.sample(3000, 1, profile="photographs").style
    wanted = [PROFILES["photographs"].get(name, 0.0) for name in STYLES]
    assert np.abs(np.bincount(styles, minlength=len(STYLES)) / 3000 - wanted).max() < 0.04
    with pytest.raises(ValueError, match="unknown profile 'seaside'"):
        world.sample(1, 0, profile="seaside")


def test_the_plain_rows_of_a_profile_are_the_plain_world() -> None:
    mixed, plain = world.sample(200, 9, profile="photographs"), world.sample(200, 9)
    rows = mixed.style == 0
    assert rows.any()
    assert np.array_equal(mixed.states[rows], plain.states[rows])
    assert np.array_equal(mixed.scene[rows], plain.scene[rows])
    first = np.flatnonzero(rows)[:4]
    assert torch.equal(world.render(mixed[first], 64).images, world.render(plain[first], 64).images)


def test_styled_draws_change_only_what_the_style_names() -> None:
    seed, index = np.full(500, 1), np.arange(500)
    style = np.arange(500) % 2
    own = Style(ranges={"a": (10.0, 11.0)}, chances={"c": 1.0}, weights={"w": (0.0, 1.0)})
    plain, styled = Draws(seed, index), StyledDraws(seed, index, style, (Style(), own))
    rows = style == 1
    assert np.array_equal(styled("b", 2, 3), plain("b", 2, 3))
    assert np.array_equal(styled("a", 0, 1)[~rows], plain("a", 0, 1)[~rows])
    assert np.allclose(styled("a", 0, 1)[rows], 10 + plain("a")[rows], atol=1e-5)
    assert styled.chance("c", 0.0)[rows].all()
    assert not styled.chance("c", 0.0)[~rows].any()
    assert (styled.choice("w", (1.0, 0.0)) == rows).all()


@pytest.mark.parametrize("style", list(STYLES))
def test_forks_of_photographs_may_have_full_lobes_that_lie_over_each_other(style: str) -> None:
    """The rays in the middle of a plain fork are four tenths of a fin long at most."""
    row = np.full(400, list(STYLES).index(style))
    draws = StyledDraws(np.full(400, 5), np.arange(400), row, tuple(STYLES.values()))
    at, table = list(CHARACTERS).index("caudal_fin_shape"), np.zeros((400, len(CHARACTERS)), dtype=np.int64)
    found = {}
    for state in ("forked", "rounded"):
        table[:, at] = CHARACTERS["caudal_fin_shape"].index(state)
        fishes = build(draws, table)
        found[state] = fishes, pose(draws, fishes, np.ones(400, dtype=bool))
    fishes, lying = found["forked"]
    rays, chances = fishes.tables["caudal"], STYLES[style].chances
    middle, closed = np.median(rays[:, 372:396], axis=1), fishes.values["caudal_hidden"] > 0
    assert closed.mean() == pytest.approx(chances.get("caudal.closed", 0.0), abs=0.1)
    # Those of a full fork: between 0.36 and 0.62.
    assert (middle[~closed] > 0.44).mean() == pytest.approx(0.69 * chances.get("caudal.full", 0.0), abs=0.1)
    # Whatever a fork looks like, its shape is told of as many fishes as that of a round tail.
    assert np.array_equal(told(lying, "caudal_fin_shape"), told(found["rounded"][1], "caudal_fin_shape"))
    if style == "plain":
        return
    assert middle[closed].mean() > middle[~closed].mean() + 0.05
    assert np.median(rays.max(axis=1)[closed] - middle[closed]) > NOTCH
    # Neither spread nor folded.
    assert closed.any()
    assert (lying.tail[closed] < 0.45).all()
    assert (lying.tail[~closed] >= 0.45).mean() > 0.3


def test_the_skin_of_the_stalk_reaches_onto_tails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, fleshy = (
        {"catfish": replace(STYLES["catfish"], ranges={**STYLES["catfish"].ranges, "fin.flesh": (reach, reach), "fin.pale": (1.0, 1.0)})}
        for reach in (0.0, 0.9)
    )
    found = []
    for styles in (bare, fleshy):
        monkeypatch.setattr(world, "STYLES", {**STYLES, **styles})
        monkeypatch.setattr(world, "PROFILES", {**PROFILES, "photographs": {"catfish": 1.0}})
        many = world.sample(8, 6, view="whole", profile="photographs", scenes=["grey_tray"])
        found.append(world.render(many, SIZE, masks=True, noise=False))
    tails = grow(plane(found[0].masks, "caudal_fin"), 3)
    differs = (found[0].images.int() - found[1].images.int()).abs().amax(dim=1) > 8
    assert differs[tails].float().mean() > 0.05
    assert differs[~tails].float().mean() < 0.002
