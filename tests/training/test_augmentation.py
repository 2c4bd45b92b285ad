from __future__ import annotations

import numpy as np
import torch
from training.augmentation import augment, distort_colours, without_colours
from training.pictures import Job, render_job

from concept_cam.demo import captions as writing


def test_augmentation_mirrors_some_and_keeps_range() -> None:
    images = torch.zeros(16, 3, 64, 64, dtype=torch.uint8)
    images[..., :32] = 200
    found, mirrored = augment(images, 96, np.random.default_rng(0))
    assert found.shape == (16, 3, 96, 96)
    left_bright = found[..., :48].mean((1, 2, 3)) > found[..., 48:].mean((1, 2, 3))
    assert torch.equal(left_bright, ~mirrored)
    assert 0 < int(left_bright.sum()) < 16
    assert found.min() >= -2.0 - 1e-5
    assert found.max() <= 2.0 + 1e-5


def test_false_colours_keep_shapes_and_leave_the_others_alone() -> None:
    torch.manual_seed(0)
    x = torch.full((24, 3, 64, 64), -0.8)
    x[:, :, 20:44, 20:44] = torch.tensor([1.2, -0.4, 0.3]).view(3, 1, 1)
    before = x.clone()
    found, changed = distort_colours(x, 0.5, np.random.default_rng(3))
    assert 4 < int(changed.sum()) < 20
    assert torch.equal(found[~changed], before[~changed])
    assert (found[changed] - before[changed]).abs().amax((1, 2, 3)).min() > 0.1
    assert found.abs().max() <= 2.0 + 1e-5
    again, _ = distort_colours(before.clone(), 0.5, np.random.default_rng(3))
    assert torch.equal(again, found)
    # The square stays where it was: its edge is still the strongest one in most pictures.
    rows = (found[changed][..., :-1, 24:40] - found[changed][..., 1:, 24:40]).abs().mean((1, 3))
    strongest = rows.argmax(1)
    assert ((strongest - 19).abs() <= 2).logical_or((strongest - 43).abs() <= 2).float().mean() > 0.7


def test_nothing_is_known_of_false_colours() -> None:
    job = Job(64, 6, 100, 2, 0, 4)
    pictures = render_job(job)
    false_colour = np.array([True, False, False, True, False, False])
    told = without_colours(pictures, false_colour)
    assert told.images is pictures.images
    texts = [
        writing.Caption("a red fish", (writing.Statement("state", "body_colour", "red"),)),
        writing.Caption("on sand", (writing.Statement("scene", "sand"),)),
        writing.Caption("a head", (writing.Statement("part", "head"),)),
    ]
    for facts, known, rows in (
        (told.facts, pictures.facts, false_colour),
        (told.regions, pictures.regions, np.repeat(false_colour, 4)),
    ):
        truth, before = writing.truth_table(facts, texts), writing.truth_table(known, texts)
        assert (truth[rows, 0] != writing.TRUE).all()
        assert (truth[rows, 1] == writing.UNKNOWN).all()
        assert (truth[~rows] == before[~rows]).all()
        assert (truth[:, 2] == before[:, 2]).all()
