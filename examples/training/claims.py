"""The claims that captions make about states and parts, and which of them are siblings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from concept_cam import prompts
from concept_cam.demo import captions as writing
from concept_cam.demo.captions import UNKNOWN, Caption, Facts, Statement
from concept_cam.demo.traits import CHARACTER_PART, CHARACTERS, MASKS, PARTS, PRESENCE_CHARACTERS

STATES: Final = tuple(Statement("state", name, state) for name, values in CHARACTERS.items() for state in values)

STATE_BLOCKS: Final[dict[str, slice]] = {
    name: slice(
        STATES.index(Statement("state", name, values[0])),
        STATES.index(Statement("state", name, values[-1])) + 1,
    )
    for name, values in CHARACTERS.items()
}
"""Character -> its states' places in `STATES`."""

PLACES: Final = tuple(Statement("part", part) for part in PARTS)

FAMILIES: Final[dict[str, tuple[int, ...]]] = {
    **{name: (MASKS.index(CHARACTER_PART[name]),) for name in CHARACTERS if name not in PRESENCE_CHARACTERS},
    "parts": tuple(range(len(PARTS))),
}
"""Sibling captions (the states of a character; the parts) -> the numbers in `MASKS` of what they are about."""


def hidden_families(in_frame: np.ndarray) -> Tensor:
    """Which families of siblings have nothing to describe in a picture: bool [M, P] of parts in the frame to bool [M, G]."""
    return torch.from_numpy(np.stack([~in_frame[:, list(parts)].any(axis=1) for parts in FAMILIES.values()], axis=1))


def claimed_states(facts: Facts) -> npt.NDArray[np.int8]:
    """Truth of each of `STATES`, int8 [M, S]; `UNKNOWN` for states of absence, which no caption names."""
    truth = writing.statement_truth(facts, STATES)
    nameless = [claim.key in PRESENCE_CHARACTERS and claim.state == "absent" for claim in STATES]
    return np.where(nameless, np.int8(UNKNOWN), truth)


def claim_average(chosen: Sequence[Caption], claims: Sequence[Statement]) -> Tensor:
    """Matrix [claims, N] that averages the captions which make one claim and no other; zero rows for claims without any."""
    order = {claim: i for i, claim in enumerate(claims)}
    matrix = torch.zeros(len(order), len(chosen))
    for n, caption in enumerate(chosen):
        if len(caption.statements) == 1 and caption.statements[0] in order:
            matrix[order[caption.statements[0]], n] = 1.0
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1.0)


@cache
def part_contrasts() -> Tensor:
    """Share of each part, and last of the host, in what the trait pack `fish` contrasts each part with: float32 [P, P + 1]."""
    concepts = {concept.name.split("=")[1]: concept for concept in prompts.load("fish:parts")}
    names = [*PARTS, "host"]
    table = torch.zeros(len(PARTS), len(names))
    for row, part in zip(table, PARTS, strict=True):
        contrasts = concepts[part].contrast_names
        for name in contrasts:
            row[names.index(name)] = 1.0 / len(contrasts)
    return table
