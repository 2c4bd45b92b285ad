from __future__ import annotations

import numpy as np
import torch
from training.pictures import facts_of
from training.windows import areas_in_windows, choose_windows, cut, facts_in_windows

from concept_cam.demo import captions as writing
from concept_cam.demo import world
from concept_cam.demo.traits import CHARACTERS, MASKS


def test_windows_tell_what_they_hold() -> None:
    masks = torch.zeros(2, len(MASKS), 100, 100, dtype=torch.bool)
    eye, trunk, tail = (MASKS.index(part) for part in ("eye", "trunk", "caudal_fin"))
    masks[0, eye, 40:50, 40:50] = True
    masks[0, trunk, 30:70, 30:90] = True
    masks[0, tail, 30:70, 90:100] = True
    every = np.ones((2, len(MASKS)), bool)
    facts = writing.Facts(
        np.zeros((2, len(CHARACTERS)), np.int64), np.ones(2, bool), np.zeros(2, np.int64), np.ones(2, bool),
        masks.flatten(2).any(2).numpy(), masks.flatten(2).any(2).numpy(), np.ones((2, len(CHARACTERS)), bool) & every[:, :1],
    )  # fmt: skip
    found = facts_in_windows(facts, masks, np.array([[[35, 35, 30, 30]], [[0, 0, 50, 50]]]))
    assert found.visible[0, [eye, trunk, tail]].tolist() == [True, True, False]
    assert found.in_frame[0, [eye, trunk, tail]].tolist() == [True, True, False]
    assert found.fish.tolist() == [True, False]
    assert not found.whole.any()
    half = facts_in_windows(facts, masks, np.array([[[40, 45, 40, 40]], [[0, 0, 9, 9]]]))
    assert (half.visible[0, eye], half.in_frame[0, eye]) == (False, True)
    names = list(CHARACTERS)
    assert half.judgeable[0, names.index("body_colour")]
    assert not half.judgeable[0, names.index("caudal_fin_shape")]


def test_windows_of_a_picture_follow_each_other() -> None:
    masks = torch.zeros(2, len(MASKS), 20, 20, dtype=torch.bool)
    masks[1, 3, 5:10, 5:10] = True
    facts = facts_of(world.sample(2, 5), world.render(world.sample(2, 5), 32))
    boxes = np.array([[[0, 0, 20, 20], [1, 2, 3, 4]], [[5, 5, 5, 5], [8, 0, 12, 8]]])
    areas = areas_in_windows(masks, boxes)
    for b in range(2):
        for k, (top, left, height, width) in enumerate(boxes[b].tolist()):
            counted = masks[b, :, top : top + height, left : left + width].flatten(1).sum(1)
            assert areas[b, k].tolist() == counted.tolist()
    found = facts_in_windows(facts, masks, boxes)
    assert found.scene.tolist() == np.repeat(facts.scene, 2).tolist()
    assert found.in_frame[2, 3] == facts.in_frame[1, 3]


def test_chosen_windows_lie_within_their_pictures() -> None:
    masks = torch.zeros(40, len(MASKS), 60, 80, dtype=torch.bool)
    masks[:20, 3, 50:60, 70:80] = True
    boxes = choose_windows(masks, np.random.default_rng(0), 0.15, 0.6, 3)
    assert boxes.shape == (40, 3, 4)
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., 0] + boxes[..., 2] <= 60).all()
    assert (boxes[..., 1] + boxes[..., 3] <= 80).all()
    hit = [bool(m[:, t : t + h, x : x + w].any()) for m, rows in zip(masks[:20], boxes[:20].tolist(), strict=True) for t, x, h, w in rows]
    assert sum(hit) >= 30


def test_cuts_show_their_windows() -> None:
    images = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    found = cut(images, np.array([[8, 16, 32, 32]]), 32)
    assert torch.equal(found[0], images[0, :, 8:40, 16:48])
