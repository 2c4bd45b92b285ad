"""The claims about fish that the joint space has a direction for, and where in a picture each of them is true."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam import prompts
from concept_cam.demo.worlds.fish.captions import Statement
from concept_cam.demo.worlds.fish.traits import CHARACTER_PART, CHARACTERS, MASKS, PARTS, PRESENCE_CHARACTERS
from training.pictures import Pictures

STATES: Final = tuple((name, state) for name, values in CHARACTERS.items() for state in values)
"""Characters and states; an absence has a place among them, and no direction."""

CLAIMS: Final[tuple[Statement, ...]] = (
    *(Statement("part", part) for part in PARTS),
    Statement("fish"),
    *(Statement("state", name, state) for name, state in STATES),
)
"""The axis `K` of the losses: parts, the host, states."""

HOST: Final = len(PARTS)
FIRST_STATE: Final = HOST + 1
BLOCKS: Final[dict[str, slice]] = {
    name: slice(FIRST_STATE + STATES.index((name, values[0])), FIRST_STATE + STATES.index((name, values[-1])) + 1)
    for name, values in CHARACTERS.items()
}
"""Character -> its states' places in `CLAIMS`."""


def spoken(claim: Statement) -> bool:
    """Whether there are words for a claim: nobody says where a fin is not."""
    return not (claim.key in PRESENCE_CHARACTERS and claim.state == "absent")


class Truth(NamedTuple):
    """What is true of the cells of a batch.

    Attributes:
        cover: float32 [B, K, n], share of each cell that a claim is about.
        shown: bool [B, K], it can be seen.
        known: bool [B, K], where it is, or that it is nowhere, is known.
    """

    cover: Tensor
    shown: Tensor
    known: Tensor


def truth_of(pictures: Pictures, false_colour: Tensor, size: tuple[int, int]) -> Truth:
    """What is true of the cells of pictures.

    Args:
        pictures: The pictures, on the device.
        false_colour: bool [B], nothing can be said of their colours.
        size: Rows and columns of cells.
    """
    areas = F.adaptive_avg_pool2d(pictures.cover.float() / 255.0, size).flatten(2)
    count, cells = len(areas), areas.shape[2]
    cover = areas.new_zeros(count, len(CLAIMS), cells)
    shown = torch.zeros(count, len(CLAIMS), dtype=torch.bool, device=areas.device)
    known = torch.ones_like(shown)
    visible, in_frame = pictures.visible, pictures.in_frame
    parts = len(PARTS)
    cover[:, :parts], shown[:, :parts] = areas[:, :parts], visible[:, :parts]
    known[:, :parts] = visible[:, :parts] | ~in_frame[:, :parts]
    cover[:, HOST], shown[:, HOST] = areas.amax(1), pictures.fish & visible.any(1)
    for name, values in CHARACTERS.items():
        c, part = list(CHARACTERS).index(name), MASKS.index(CHARACTER_PART[name])
        told = pictures.judgeable[:, c] & pictures.fish
        for k, state in enumerate(values, BLOCKS[name].start):
            if not spoken(CLAIMS[k]):
                known[:, k] = False
                continue
            same = pictures.states[:, c] == values.index(state)
            cover[:, k] = areas[:, part] * same[:, None]
            shown[:, k] = told & same & visible[:, part]
            known[:, k] = told | ~in_frame[:, part]
            if name == "body_colour":
                shown[:, k] &= ~false_colour
                known[:, k] &= ~false_colour
    return Truth(cover, shown, known)


def part_contrasts() -> Tensor:
    """Share of each part, and last of the host, in what the trait pack `fish` contrasts each part with: float32 [P, P + 1]."""
    concepts = {concept.name.split("=")[1]: concept for concept in prompts.load("fish:parts")}
    names = [*PARTS, "host"]
    table = torch.zeros(len(PARTS), len(names))
    for row, part in zip(table, PARTS, strict=True):
        contrasts = concepts[part].contrast_names
        for name in contrasts:
            if name in names:
                row[names.index(name)] = 1.0 / len(contrasts)
    return table
