"""The fish world against its own planted truth."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_cam.demo.worlds.family import SCENES, Specimens, concatenate_specimens
from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.camera import pixels
from concept_cam.demo.worlds.fish.room import WORLD
from concept_cam.demo.worlds.fish.traits import CHARACTER_PART, CHARACTERS, MASKS, PARTS, PRESENCE_CHARACTERS
from concept_cam.demo.worlds.fish.world import FishRendering

SIZE = 112
LOCAL = (
    "caudal_fin_shape",
    "adipose_fin",
    "pelvic_fin",
    "barbels",
    "eye_spot",
    "dorsal_fin_number",
    "dorsal_fin_texture",
)


def plane(masks: torch.Tensor, part: str) -> torch.Tensor:
    return masks[:, MASKS.index(part)]


def grow(mask: torch.Tensor, pixels_: int) -> torch.Tensor:
    """`mask` [B, H, W] dilated by a square."""
    side = 2 * pixels_ + 1
    return torch.nn.functional.max_pool2d(mask.float()[:, None], side, 1, pixels_)[:, 0] > 0


@pytest.fixture(scope="module")
def fishes() -> Specimens:
    return world.sample(24, 11, view="whole")


@pytest.fixture(scope="module")
def rendering(fishes: Specimens) -> FishRendering:
    return world.render(fishes, SIZE, masks=True)


def test_vocabulary_is_consistent() -> None:
    assert set(CHARACTER_PART) == set(CHARACTERS)
    assert set(CHARACTER_PART.values()) <= set(MASKS)
    assert MASKS[: len(PARTS)] == PARTS
    for name in PRESENCE_CHARACTERS:
        assert CHARACTERS[name] == ("present", "absent")


def test_shapes_and_types(rendering: FishRendering) -> None:
    assert rendering.images.shape == (24, 3, SIZE, SIZE)
    assert rendering.images.dtype == torch.uint8
    assert rendering.masks is not None
    assert rendering.masks.shape == (24, len(MASKS), SIZE, SIZE)
    assert rendering.masks.dtype == torch.bool
    assert rendering.visible.shape == rendering.in_frame.shape == (24, len(MASKS))
    assert rendering.judgeable.shape == (24, len(CHARACTERS))


def test_specimen_depends_on_seed_and_number_only() -> None:
    many = world.sample(40, 5)
    few = world.sample(6, 5, start=20)
    assert np.array_equal(many[20:26].states, few.states)
    assert np.array_equal(many[20:26].focus, few.focus)
    alone = world.render(many[23], 64)
    together = world.render(many, 64)
    assert (alone.images[0].int() - together.images[23].int()).abs().max() <= 3
    assert not np.array_equal(world.sample(40, 6).states, many.states)


def test_rendering_is_deterministic_across_thread_counts(fishes: Specimens) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = world.render(fishes[:6], (70, 90)).images.int()
        torch.set_num_threads(2)
        two = world.render(fishes[:6], (70, 90)).images.int()
    finally:
        torch.set_num_threads(threads)
    assert (one - two).abs().max() <= 3


def test_head_lies_at_the_snout_and_tail_at_the_other_end() -> None:
    """The camera maps snout (0, 0) and tail (1.1, 0) to pixels; masks must lie where it says."""
    specimens = world.sample(24, 17, view="whole")
    truth = world.render(specimens, SIZE, masks=True).masks
    assert truth is not None
    anatomy, camera = world.geometry(specimens, (SIZE, SIZE))
    ends = pixels(camera, anatomy, np.broadcast_to(np.float32([[0.1, 0.0], [1.1, 0.0]]), (24, 2, 2)))
    tested = 0
    for i in range(24):
        head, tail = plane(truth, "head")[i], plane(truth, "caudal_fin")[i]
        if head.sum() < 20 or tail.sum() < 20 or (ends[i] < 8).any() or (ends[i] > SIZE - 8).any():
            continue
        tested += 1
        for mask, near, far in ((head, ends[i, 0], ends[i, 1]), (tail, ends[i, 1], ends[i, 0])):
            y, x = torch.nonzero(mask).float().mean(dim=0).tolist()
            assert np.hypot(x - near[0], y - near[1]) < 0.35 * np.hypot(x - far[0], y - far[1])
    assert tested >= 12


def test_part_masks_fit_together(rendering: FishRendering) -> None:
    masks = rendering.masks
    assert masks is not None
    body = grow(plane(masks, "head") | plane(masks, "trunk") | plane(masks, "pectoral_fin"), 1)
    for part in ("eye", "mouth", "operculum", "lateral_line", "eye_spot"):
        assert not (plane(masks, part) & ~body).any(), part
    disjoint = ("head", "trunk", "caudal_fin", "dorsal_fin", "anal_fin", "pelvic_fin", "adipose_fin")
    stacked = torch.stack([plane(masks, part) for part in disjoint])
    # Two parts may share the seam between them, a pixel wide.
    assert (stacked.sum(dim=0) > 1).float().mean() < 0.002
    assert (plane(masks, "eye") & grow(plane(masks, "trunk"), 0)).sum() == 0


def test_fish_differs_from_its_ground_only_where_the_fish_and_its_shadow_are() -> None:
    fish = world.sample(8, 23, view="whole")
    bare = replace(fish, present=np.zeros(8, dtype=bool))
    with_fish = world.render(fish, SIZE, masks=True, noise=False)
    without = world.render(bare, SIZE, masks=True, noise=False)
    assert with_fish.masks is not None
    assert without.masks is not None
    assert not without.masks.any()
    assert not without.visible.any()
    assert not without.judgeable.any()
    change = (with_fish.images.int() - without.images.int()).abs().amax(dim=1)
    inside = plane(with_fish.masks, "trunk")
    outside = ~grow(with_fish.masks.any(dim=1), 30)
    assert change[inside].float().mean() > 25
    assert change[outside].float().mean() < 1


def test_absent_parts_have_no_mask(fishes: Specimens, rendering: FishRendering) -> None:
    assert rendering.masks is not None
    seen = {name: [0, 0] for name in PRESENCE_CHARACTERS}
    for i in range(len(fishes)):
        for name in PRESENCE_CHARACTERS:
            present = fishes.trait(i)[name] == "present"
            area = int(plane(rendering.masks, CHARACTER_PART[name])[i].sum())
            assert present or area == 0
            seen[name][present] += area > 0
    assert all(present > 0 for _, present in seen.values())


@pytest.mark.parametrize("character", LOCAL)
def test_twin_differs_only_at_its_part(character: str) -> None:
    first, second = CHARACTERS[character][:2]
    a = world.sample(12, 31, view="whole", scenes=["white_tray", "grey_tray"], traits={character: first})
    b = WORLD.twin(a, character, second)
    masks_a, masks_b = world.render(a, SIZE, masks=True).masks, world.render(b, SIZE, masks=True).masks
    assert masks_a is not None
    assert masks_b is not None
    part = CHARACTER_PART[character]
    place = plane(masks_a, part) | plane(masks_b, part)
    differing = WORLD.difference(a, b, SIZE)
    assert (differing & place).flatten(1).any(dim=1).float().mean() > 0.6
    # The shadow and the blur of what changed reach a little further than the part itself.
    assert not (differing & ~grow(place, 26)).any()
    assert (differing & ~grow(place, 4)).sum() < 0.35 * differing.sum() + 30
    # Seen parts must not move.
    for other in ("head", "trunk", "eye", "anal_fin"):
        if other != part:
            moved = plane(masks_a, other) ^ plane(masks_b, other)
            assert not (moved & ~grow(place, 3)).any(), other


def test_twin_has_the_same_noise() -> None:
    a = world.sample(6, 37, view="whole")
    a = a[np.flatnonzero(a.present)]
    b = WORLD.twin(
        a,
        "adipose_fin",
        ["absent" if a.trait(i)["adipose_fin"] == "present" else "present" for i in range(len(a))],
    )
    quiet = ~grow(WORLD.difference(a, b, SIZE, threshold=1), 9)
    noisy = (world.render(a, SIZE).images.int() - world.render(b, SIZE).images.int()).abs().amax(dim=1)
    assert noisy[quiet].max() <= 3


def test_twin_of_the_same_state_is_the_same_picture(fishes: Specimens) -> None:
    same = WORLD.twin(fishes, "pattern", [fishes.trait(i)["pattern"] for i in range(len(fishes))])
    assert not WORLD.difference(fishes[:4], same[:4], 64, threshold=1).any()


@pytest.mark.parametrize("character", list(CHARACTERS))
def test_every_state_gives_another_picture(character: str) -> None:
    base = world.sample(4, 41, view="whole", scenes=["grey_tray"])
    pictures = [world.render(WORLD.twin(base, character, state), SIZE, noise=False).images.int() for state in CHARACTERS[character]]
    for k, one in enumerate(pictures):
        for other in pictures[k + 1 :]:
            changed = (one - other).abs().amax(dim=1) > 8
            assert changed.flatten(1).sum(dim=1).float().median() >= 4


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_renders_and_none_is_flat(scene: str) -> None:
    images = world.render(world.sample(2, 43, scenes=[scene], empty=1.0), 64).images.float()
    assert images.flatten(1).std(dim=1).min() > 1.0


@pytest.mark.parametrize("size", [1, 7, (33, 128), (130, 40), (1, 50)])
def test_odd_sizes(size: int | tuple[int, int]) -> None:
    picture = world.render(world.sample(1, 2), size, masks=True)
    height, width = (size, size) if isinstance(size, int) else size
    assert picture.images.shape == (1, 3, height, width)
    assert picture.masks is not None
    assert picture.masks.shape[-2:] == (height, width)


def test_empty_batch() -> None:
    nothing = world.render(world.sample(0, 2), 32, masks=True)
    assert nothing.images.shape == (0, 3, 32, 32)
    assert nothing.masks is not None


def test_closeups_show_what_they_are_aimed_at() -> None:
    specimens = world.sample(60, 47, view="closeup")
    seen = world.render(specimens, SIZE)
    aimed = [(i, f) for i, f in enumerate(specimens.focus) if f >= 0 and seen.in_frame[i, f]]
    assert all(specimens.view(i) == "closeup" for i in range(60))
    hits = [bool(seen.visible[i, f]) for i, f in aimed]
    assert len(hits) > 30
    assert np.mean(hits) > 0.8


def test_a_larger_picture_shows_the_same_scene() -> None:
    specimens = world.sample(6, 53, view="whole")
    small = world.render(specimens, 64, noise=False).images.float()
    large = world.render(specimens, 192, noise=False).images.float()
    reduced = torch.nn.functional.avg_pool2d(large, 3)
    for one, other in zip(small, reduced, strict=True):
        assert np.corrcoef(one.flatten().numpy(), other.flatten().numpy())[0, 1] > 0.85


def test_visible_agrees_with_masks(rendering: FishRendering) -> None:
    assert rendering.masks is not None
    area = rendering.masks.flatten(2).sum(dim=2)
    assert not (rendering.visible & (area == 0)).any()
    assert (area[:, MASKS.index("trunk")][rendering.visible[:, MASKS.index("trunk")]] >= 30).all()


def test_mixture_has_the_stated_shares() -> None:
    mixed = world.sample(4000, 3)
    assert abs((~mixed.present).mean() - 0.05) < 0.02
    assert abs((mixed.focus < 0).mean() - 1 / 3) < 0.04
    fixed = world.sample(50, 3, traits={"pattern": "barred"}, scenes=["sand"])
    assert all(fixed.trait(i).get("pattern", "barred") == "barred" for i in range(50))
    assert set(fixed.scene) == {SCENES.index("sand")}


def test_indexing_and_concatenation() -> None:
    batch = world.sample(9, 1)
    again = concatenate_specimens([batch[:4], batch[4], batch[np.arange(5, 9)]])
    assert len(again) == 9
    assert np.array_equal(again.states, batch.states)
    assert len(batch[batch.present]) == batch.present.sum()


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown character 'tail'"):
        world.sample(1, 0, traits={"tail": "forked"})
    with pytest.raises(ValueError, match="unknown state 'square'"):
        world.sample(1, 0, traits={"caudal_fin_shape": "square"})
    with pytest.raises(ValueError, match="unknown view"):
        world.sample(1, 0, view="side")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown scenes"):
        world.sample(1, 0, scenes=["moon"])
    with pytest.raises(ValueError, match="at least one pixel"):
        world.render(world.sample(1, 0), 0)
    with pytest.raises(ValueError, match="unknown engine"):
        world.render(world.sample(1, 0), 8, engine="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 states for 1 specimens"):
        WORLD.twin(world.sample(1, 0), "pattern", ["plain", "barred"])


@pytest.mark.slow
def test_eager_speed() -> None:
    """Well below what one core reaches undisturbed, so that only a real loss of speed fails."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        specimens = world.sample(96, 7)
        world.render(specimens[:8], 96)
        start = time.process_time()
        world.render(specimens, 96)
        rate = 96 / (time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert rate > 40


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["plain", "photographs"])
def test_compiled_engine_gives_the_same_pictures(profile: str) -> None:
    import shutil

    if not (shutil.which("g++") or shutil.which("c++")):
        pytest.skip("torch.compile needs a C++ compiler")
    specimens = world.sample(10, 7, profile=profile)
    eager, compiled = (
        world.render(specimens, 48, masks=True),
        world.render(specimens, 48, masks=True, engine="compiled"),
    )
    assert eager.masks is not None
    assert compiled.masks is not None
    difference = (eager.images.int() - compiled.images.int()).abs()
    assert (difference > 3).float().mean() < 1e-3
    assert (eager.masks != compiled.masks).float().mean() < 1e-3
    assert torch.equal(eager.visible, compiled.visible)


def test_barbels_lie_back_over_the_cheek_in_photographs_alone() -> None:
    """Both long barbels point behind the vertical: never in the plain style, in about three of ten photographs."""
    behind = {}
    for profile in ("plain", "photographs"):
        specimens = world.sample(160, 5, view="whole", traits={"barbels": "present"}, profile=profile)
        anatomy, _ = world.geometry(specimens, (96, 144))
        angles = np.stack([anatomy.values[f"barbel{k}_angle"] for k in range(2)])
        # An angle of pi / 2 points straight down, pi straight back towards the tail.
        behind[profile] = float((angles.min(axis=0) > 2.0).mean())
    assert behind["plain"] == 0.0
    assert 0.1 < behind["photographs"] < 0.5
