"""Flowers behind small animals: each kind draws what its name says, and pictures of the plain world have none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.blossoms import BLOSSOMS, strewn

RED, GREEN = np.array([0.8, 0.0, 0.0]), np.array([0.0, 0.8, 0.0])
PLACE, SIZE = (100.0, 80.0), 40.0


def drawn(kind: str, seed: int = 0) -> np.ndarray:
    """A blossom with red petals and green stalks on a clear sheet, [160, 200, 4] in 0..1."""
    sheet = Image.new("RGBA", (200, 160), (0, 0, 0, 0))
    BLOSSOMS[kind](ImageDraw.Draw(sheet), np.random.default_rng(seed), PLACE, SIZE, RED, GREEN)
    return np.asarray(sheet, dtype=np.float32) / 255.0


def far(shape: np.ndarray) -> np.ndarray:
    """How far each pixel of a sheet lies from the blossom's place."""
    rows, columns = np.nonzero(shape)
    return np.hypot(columns - PLACE[0], rows - PLACE[1])


@pytest.mark.parametrize("kind", ["head", "spike", "umbel"])
@pytest.mark.parametrize("seed", range(4))
def test_petals_have_the_colour_of_petals_and_lie_about_the_place(kind: str, seed: int) -> None:
    found = drawn(kind, seed)
    petals = (found[..., 3] > 0) & (found[..., 0] > 0.3) & (found[..., 1] < 0.3)
    assert petals.sum() >= 10
    # A spike is longer than it is wide; nothing lies further off than its stalk is long.
    assert np.median(far(petals)) < 2.0 * SIZE


@pytest.mark.parametrize("kind", sorted(BLOSSOMS))
@pytest.mark.parametrize("seed", range(4))
def test_stalks_and_rays_are_green(kind: str, seed: int) -> None:
    found = drawn(kind, seed)
    assert ((found[..., 3] > 0) & (found[..., 1] > 0.3) & (found[..., 0] < 0.5)).sum() >= 10


def test_a_head_is_made_of_many_petals_that_leave_gaps() -> None:
    """Around a circle near the tips of the petals, colour and ground take turns."""
    turns = []
    for seed in range(12):
        found = drawn("head", seed)
        angles = np.linspace(0.0, 2.0 * np.pi, 720, endpoint=False)
        x, y = (PLACE[0] + 0.9 * SIZE * np.cos(angles)).astype(int), (PLACE[1] + 0.9 * SIZE * np.sin(angles)).astype(int)
        there = found[y, x, 3] > 0
        turns.append(int((there != np.roll(there, 1)).sum()))
    assert np.median(turns) >= 10


def test_the_same_draws_strew_the_same_blossoms() -> None:
    ground = np.full((64, 96, 3), 0.5, np.float32)
    one, same, other = (strewn(ground, np.random.default_rng(seed), (48.0, 32.0), 30.0) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.dtype == np.float32
    assert one.shape == ground.shape
    assert one.min() >= 0.0
    assert one.max() <= 1.0
    assert np.array_equal(ground, np.full((64, 96, 3), 0.5, np.float32)), "the ground that was given stays as it was"


@pytest.mark.parametrize("seed", range(6))
def test_what_no_blossom_covers_stays_as_it_was(seed: int) -> None:
    """Small blossoms cover a small part of a large ground."""
    ground = np.full((128, 192, 3), 0.25, np.float32)
    found = strewn(ground, np.random.default_rng(seed), (96.0, 64.0), 3.0)
    changed = (np.abs(found - ground) > 1e-3).any(-1)
    assert 0 < changed.mean() < 0.6


def test_only_photographs_of_butterflies_have_blossoms(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the pictures of the benchmark, which are of the plain world, stay as they are."""
    from concept_cam.demo.worlds.lepidoptera import world

    seen: list[int] = []

    def counted(rgb: np.ndarray, *given: object) -> np.ndarray:
        seen.append(1)
        return rgb

    monkeypatch.setattr(world, "strewn", counted)
    scenes = ["flower", "leaf", "stem", "blurred"]
    butterflies = WORLDS["lepidoptera"]
    for profile, any_there in (("plain", False), ("photographs", True)):
        butterflies.render(butterflies.sample(16, 5, scenes=scenes, profile=profile), (32, 32))
        assert bool(seen) is any_there
    seen.clear()
    butterflies.render(butterflies.sample(16, 5, scenes=["pinned", "plain"], profile="photographs"), (32, 32))
    assert not seen, "boards and sheets have none"
