"""What is told of pictures of fishes beside their parts and states: from where they are seen, how their tails lie, how many there are, and
what lies beside them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.claims import FALSE, TRUE, UNKNOWN, Statement
from concept_cam.demo.worlds.family import Rendering, Specimens
from concept_cam.demo.worlds.fish.phrases import NUMBER_PHRASES, TAIL_PHRASES, THING_PHRASES, VIEWPOINT_PHRASES
from concept_cam.demo.worlds.fish.poses import VIEWPOINTS
from concept_cam.demo.worlds.fish.things import THINGS
from concept_cam.demo.worlds.fish.traits import MASKS
from concept_cam.demo.worlds.fish.world import FishRendering

_TABLES = {"viewpoint": VIEWPOINT_PHRASES, "tail": TAIL_PHRASES, "number": NUMBER_PHRASES, "thing": THING_PHRASES}

PHOTOGRAPH_PHRASES: Final = {Statement(kind, key): phrases for kind, table in _TABLES.items() for key, phrases in table.items()}
"""Claim about how a fish lies and what lies beside it -> phrases, in a fixed order."""

_THING_SHARE = 0.004
"""Least share of the picture at which a thing counts as seen."""

_FOLDED, _SPREAD = 0.3, 0.45
"""Spread up to which a tail fin is called folded, and from which it is called spread; between them it is called neither."""

Truth = npt.NDArray[np.int8]


def photograph_truth(specimens: Specimens, rendering: Rendering) -> dict[Statement, Truth]:
    """Truth of the claims of `PHOTOGRAPH_PHRASES`, int8 [B] each. Things are told where the pictures were rendered with masks."""
    if not isinstance(rendering, FishRendering):
        raise TypeError(f"received a {type(rendering).__name__}: expected the rendering of fishes.")
    things = _things(rendering)
    return {
        claim: np.where(specimens.present, truth, FALSE).astype(np.int8) if claim.kind != "thing" else truth.astype(np.int8)
        for claim in PHOTOGRAPH_PHRASES
        if (truth := things[claim.key] if claim.kind == "thing" else _lying(claim, rendering)) is not None
    }


def _things(rendering: FishRendering) -> dict[str, npt.NDArray[np.int64]]:
    if rendering.things is None:
        return dict.fromkeys(THINGS, np.full(len(rendering.number), UNKNOWN))
    area = rendering.things.flatten(2).sum(dim=2).cpu().numpy()
    least = _THING_SHARE * rendering.things.shape[-1] * rendering.things.shape[-2]
    truth = np.where(area >= least, TRUE, np.where(area > 0, UNKNOWN, FALSE))
    return {name: truth[:, t] for t, name in enumerate(THINGS)}


def _lying(claim: Statement, rendering: FishRendering) -> npt.NDArray[np.int64]:
    number = rendering.number.cpu().numpy()
    if claim.kind == "number":
        return np.where((number > 1) == (claim.key == "several"), TRUE, FALSE)
    if claim.kind == "viewpoint":
        viewpoint = rendering.viewpoint.cpu().numpy()
        same = viewpoint == VIEWPOINTS.index(claim.key)
        return np.where(viewpoint == VIEWPOINTS.index("between"), UNKNOWN, np.where(same, TRUE, FALSE))
    at = MASKS.index("caudal_fin")
    seen, in_frame = rendering.visible[:, at].cpu().numpy(), rendering.in_frame[:, at].cpu().numpy()
    tail = rendering.tail.cpu().numpy()
    spread, folded = tail >= _SPREAD, tail <= _FOLDED
    same, other = (spread, folded) if claim.key == "spread" else (folded, spread)
    truth = np.where(in_frame, np.where(same & seen, TRUE, np.where(other & seen, FALSE, UNKNOWN)), FALSE)
    # Several tails may lie differently.
    return np.where((number != 1) & in_frame, UNKNOWN, truth)
