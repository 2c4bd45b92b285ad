from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training.checks import Checks, _to_pixels, localisation
from training.model import ENCODERS

from concept_cam.demo import captions as writing
from concept_cam.demo import world
from concept_cam.demo.traits import MASKS, PARTS


@pytest.mark.parametrize(("size", "stride"), [(128, 16), (256, 16), (128, 8), (256, 8)])
def test_grid_scores_land_on_their_pixels(size: int, stride: int) -> None:
    """A planted cell must light up where its pixels are, at every reading size."""
    full = 128
    cells, first = (size // 16 - 1, 16) if stride == 16 else (size // 8 - 4, 20)
    y, x = (2, 4)
    scores = torch.zeros(1, 1, cells, cells)
    scores[0, 0, y, x] = 1.0
    peak = int(_to_pixels(scores, size, stride, full)[0, 0].argmax())
    centre = np.array([stride * y + first, stride * x + first]) * full / size
    assert np.abs(np.array([peak // full, peak % full]) + 0.5 - centre).max() <= 1.0


def test_localisation_finds_planted_parts() -> None:
    """Pointing and own-part rate are 1 when the patches hold the very parts that the masks show, and low when they are mixed up."""
    writer = writing.CaptionWriter()
    side = len(PARTS)
    masks = torch.zeros(1, len(MASKS), 16 * (side + 3), 16 * (side + 3), dtype=torch.bool)
    for p in range(side):
        masks[0, p, 16 * (p + 2) - 6 : 16 * (p + 2) + 6, 16 * (p + 2) - 6 : 16 * (p + 2) + 6] = True
    seen = np.ones((1, len(MASKS)), bool)
    specimens = world.sample(1, 0)
    facts = writing.Facts(
        specimens.states,
        np.array([True]),
        specimens.scene,
        np.array([True]),
        seen,
        seen,
        np.ones((1, specimens.states.shape[1]), bool),
    )
    checks = Checks((torch.zeros(0), facts), torch.zeros(1, 3, *masks.shape[-2:], dtype=torch.uint8), masks, facts)
    order = {writer.prompts[writing.Statement("part", part)][0]: p for p, part in enumerate(PARTS)}

    class Planted(torch.nn.Module):
        arch = "planted"

    def embed(clip: object, tokens: object, texts: object) -> torch.Tensor:
        number = order.get(next(iter(texts)))  # type: ignore[call-overload]
        return torch.zeros(side + 1) if number is None else F.one_hot(torch.tensor(number), side + 1).float()

    def encode(shift: int):  # type: ignore[no-untyped-def]
        def patches(visual: object, x: torch.Tensor, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
            grid = torch.zeros(1, side + 2, side + 2, side + 1)
            grid[..., side] = 1.0
            for p in range(side):
                grid[0, p + 1, p + 1] = F.one_hot(torch.tensor((p + shift) % side), side + 1).float()
            return torch.zeros(1, side + 1), grid

        return patches

    planted = Planted()
    planted.clip = torch.nn.Module()
    planted.clip.visual = torch.nn.Identity()
    results = []
    for shift in (0, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ENCODERS, "planted", encode(shift))
            patch.setattr("training.checks.embed_prompts", embed)
            results.append(localisation(planted, None, writer, checks, masks.shape[-1], 16))
    (hits, own), (wrong, wrong_own) = results
    assert set(hits.values()) == {1.0}
    assert own == 1.0
    assert set(wrong.values()) == {0.0}
    assert wrong_own == 0.0
