"""What lies around specimens: never a part of one, always the same from the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from concept_cam.demo.worlds.canvas import Canvas
from concept_cam.demo.worlds.draws import Draws
from concept_cam.demo.worlds.studio import Studio, generator
from concept_cam.demo.worlds.surroundings import lay_dust, lay_flower, lay_leaf, lay_twig, leaf_colour, petal_colour, vegetation

SIZE = (50, 70)

THINGS: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "leaf": lambda canvas, rng: lay_leaf(canvas, rng, (35.0, 25.0), 40.0, 0.4),
    "flower": lambda canvas, rng: lay_flower(canvas, rng, (35.0, 25.0), 18.0),
    "twig": lambda canvas, rng: lay_twig(canvas, rng, (5.0, 5.0), (60.0, 40.0), 3.0),
    "dust": lambda canvas, rng: lay_dust(canvas, rng, 20, 12.0),
}


@pytest.mark.parametrize("name", THINGS)
@pytest.mark.parametrize("seed", range(6))
def test_things_are_seen_and_belong_to_no_mask(name: str, seed: int) -> None:
    made = []
    for _ in range(2):
        canvas = Canvas(np.full((*SIZE, 3), 0.5, np.float32))
        THINGS[name](canvas, np.random.default_rng(seed))
        made.append(canvas)
    assert np.array_equal(made[0].rgb, made[1].rgb)
    assert np.isfinite(made[0].rgb).all()
    assert made[0].rgb.min() >= 0
    assert made[0].rgb.max() <= 1
    assert (made[0].rgb != 0.5).any()
    assert all(not layer.masks for layer in made[0].layers)
    assert not made[0].masks(("anything",)).any()


@pytest.mark.parametrize("name", ["leaf", "flower", "twig"])
def test_things_out_of_the_frame_leave_it_alone(name: str) -> None:
    far = {
        "leaf": lambda canvas, rng: lay_leaf(canvas, rng, (900.0, 900.0), 40.0, 0.4),
        "flower": lambda canvas, rng: lay_flower(canvas, rng, (900.0, 900.0), 18.0),
        "twig": lambda canvas, rng: lay_twig(canvas, rng, (900.0, 900.0), (960.0, 940.0), 3.0),
    }
    canvas = Canvas(np.full((*SIZE, 3), 0.5, np.float32))
    far[name](canvas, np.random.default_rng(1))
    assert (canvas.rgb == 0.5).all()


def test_vegetation_differs_in_light_and_blur() -> None:
    pictures = [vegetation(np.random.default_rng(seed), SIZE) for seed in range(24)]
    assert all(each.shape == (*SIZE, 3) and each.dtype == np.float32 and np.isfinite(each).all() for each in pictures)
    assert all(0 <= each.min() <= each.max() <= 1 for each in pictures)
    light = [float(each.mean()) for each in pictures]
    sharpness = [float(np.abs(np.diff(each, axis=1)).mean()) for each in pictures]
    assert max(light) > 2.5 * min(light)
    assert max(sharpness) > 4 * min(sharpness)
    # Most of it is green or brown: red and green above blue.
    assert np.mean([each[..., 1].mean() > each[..., 2].mean() for each in pictures]) > 0.7
    assert np.array_equal(pictures[3], vegetation(np.random.default_rng(3), SIZE))
    assert vegetation(np.random.default_rng(0), (1, 1)).shape == (1, 1, 3)


def test_colours_are_colours() -> None:
    rng = np.random.default_rng(0)
    for colour in (petal_colour, leaf_colour):
        many = np.array([colour(rng) for _ in range(50)])
        assert 0 <= many.min() <= many.max() <= 1
        assert len(np.unique(many, axis=0)) == 50
    leaves = np.array([leaf_colour(rng) for _ in range(50)])
    assert (leaves[:, 1] > leaves[:, 2]).mean() > 0.9


def test_streams_have_names_and_belong_to_pictures() -> None:
    draws = Draws(np.array([1, 1, 2]), np.array([5, 6, 5]))
    first = generator(draws, 0, "hair").random(4)
    assert np.array_equal(first, generator(draws, 0, "hair").random(4))
    assert np.array_equal(first, generator(Draws(np.array([1]), np.array([5])), 0, "hair").random(4))
    for row, name in ((0, "fur"), (1, "hair"), (2, "hair")):
        assert not np.array_equal(first, generator(draws, row, name).random(4))


def test_a_studio_photographs_each_picture_by_itself() -> None:
    draws = Draws(np.array([3, 3]), np.array([0, 1]))
    both = Studio.of(draws, np.array([2, 5]), SIZE)
    alone = Studio.of(Draws(np.array([3]), np.array([1])), np.array([5]), SIZE)
    ground = both.ground(1)
    assert ground.shape == (*SIZE, 3)
    assert np.allclose(ground, alone.ground(0), atol=1e-5)
    solid = np.zeros(SIZE, np.float32)
    assert np.allclose(both.shaded(1, ground, solid), ground)
    solid[20:30, 20:50] = 1
    shaded = both.shaded(1, ground, solid)
    assert (shaded <= ground + 1e-6).all()
    quiet, again = (studio.photograph(row, shaded, noise=False) for studio, row in ((both, 1), (alone, 0)))
    assert quiet.shape == (3, *SIZE)
    assert (quiet.int() - again.int()).abs().max() <= 1
    noisy = both.photograph(1, shaded, noise=True)
    assert 0 < (noisy.int() - quiet.int()).abs().float().mean() < 20
