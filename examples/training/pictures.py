"""Batches of rendered pictures and what is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.family import Specimens, concatenate_specimens
from training.claims import claims_of
from training.config import TRAIN_SEED

COVER = 2
"""Pixels of a side that are taken together in `Pictures.cover`."""
STEP = 6
"""Steps of 255 by which a pixel must change to count: less is what rounding leaves."""
OF_SHAPE = 0.75
"""Share of the twins whose changed character is one of shape or number: where those lie is learnt from twins alone."""


@dataclass(frozen=True)
class Job:
    """One batch to render: numbers `start` to `start + count - 1`, the last of them replaced by twins of the first.

    Attributes:
        world: What they show, a name in `WORLDS`.
        size: `(H, W)` of the pictures.
        count: Pictures rendered.
        start: Number of the first one.
        twins: How many are counterfactual twins of others.
        whole: How many show whole specimens.
        photographs: Share that looks like photographs rather than like the plain world.
        seed: Seed of the specimens.
    """

    world: str
    size: tuple[int, int]
    count: int
    start: int
    twins: int
    whole: int
    photographs: float = 0.0
    seed: int = TRAIN_SEED


@dataclass(frozen=True)
class Pictures:
    """Pictures of one group and size, and what is true of them.

    Attributes:
        world: The group, a name in `WORLDS`.
        images: uint8 [B, 3, H, W].
        cover: uint8 [B, P, H / 2, W / 2], how much of two by two pixels each mask of the group covers, in 255ths.
        states: int64 [B, C], state number per character.
        judgeable: bool [B, C], it can be told.
        visible: bool [B, P], the part can be seen.
        in_frame: bool [B, P], any of the part lies in the frame.
        present: bool [B], there is a specimen.
        changed: uint8 [B, H / 2, W / 2], how much of two by two pixels differs from the picture's twin, in 255ths.
        twin: int64 [B], number in the batch of the picture's counterfactual twin; its own where it has none.
    """

    world: str
    images: Tensor
    cover: Tensor
    states: Tensor
    judgeable: Tensor
    visible: Tensor
    in_frame: Tensor
    present: Tensor
    changed: Tensor
    twin: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Pictures:
        """The chosen pictures; a twin that is not chosen is forgotten."""
        place = torch.full((len(self),), -1, dtype=torch.long, device=rows.device)
        own = torch.arange(len(rows), device=rows.device)
        place[rows] = own
        twin = place[self.twin[rows]]
        chosen = [getattr(self, name)[rows] for name in TENSORS[:-1]]
        return Pictures(self.world, *chosen, torch.where(twin < 0, own, twin))

    def to(self, device: str | torch.device) -> Pictures:
        """The same on a device."""
        return Pictures(self.world, *(getattr(self, name).to(device, non_blocking=True) for name in TENSORS))


TENSORS: Final = ("images", "cover", "states", "judgeable", "visible", "in_frame", "present", "changed", "twin")
"""The fields of `Pictures` that are tensors, in order; the twins come last."""


def gather(rows: Sequence[Pictures]) -> Pictures:
    """One batch of all the pictures, in order; they are of one group."""
    starts = np.cumsum([0, *(len(each) for each in rows)])
    joined = [torch.cat([getattr(each, name) for each in rows]) for name in TENSORS[:-1]]
    return Pictures(rows[0].world, *joined, torch.cat([each.twin + int(start) for each, start in zip(rows, starts)]))


def make_twins(specimens: Specimens, rng: np.random.Generator) -> Specimens:
    """Counterfactual twins of the specimens, one random character changed to another state: of shape or number in most of them."""
    counts = [len(states) for states in specimens.group.characters.values()]
    shapes = [name in claims_of(specimens.group.name).shapes for name in specimens.group.characters]
    likely = (1 - OF_SHAPE) / len(counts) + OF_SHAPE * np.array(shapes) / max(1, sum(shapes)) if any(shapes) else None
    changed = rng.choice(len(counts), size=len(specimens), p=likely)
    states = specimens.states.copy()
    for row, c in enumerate(changed):
        states[row, c] = (states[row, c] + rng.integers(1, counts[c])) % counts[c]
    # Only the states differ, as in `World.twin`, which changes one character for all.
    return replace(specimens, states=states)


def differing(images: Tensor, others: Tensor) -> Tensor:
    """Where pictures differ that share light and noise: uint8 [B, 3, H, W] twice to bool [B, H, W]."""
    return (images.int() - others.int()).abs().amax(1) >= STEP


def render_job(job: Job, device: str = "cpu") -> Pictures:
    """Renders one batch of `count` pictures on a device; what comes back is on the CPU."""
    rng = np.random.default_rng((job.seed, job.start, *job.size))
    count = job.count - job.twins
    whole = min(job.whole, count)
    world = WORLDS[job.world]
    # Whole specimens come first: they are the ones that get twins.
    parts, start = [], job.start
    for number, view in ((whole, "whole"), (count - whole, "mixed")):
        lifelike = round(number * job.photographs)
        for some, profile in ((lifelike, "photographs"), (number - lifelike, "plain")):
            if some:
                parts.append(world.sample(some, job.seed, view=view, start=start, profile=profile))
                start += some
    specimens = concatenate_specimens(parts)
    twin = torch.arange(job.count)
    if job.twins:
        specimens = concatenate_specimens([specimens, make_twins(specimens[: job.twins], rng)])
        twin[: job.twins], twin[count:] = torch.arange(count, job.count), torch.arange(job.twins)
    rendering = world.render(specimens, job.size, masks=True, device=device)
    assert rendering.masks is not None
    return Pictures(
        job.world,
        rendering.images.cpu(),
        (F.avg_pool2d(rendering.masks.float(), COVER) * 255).round().byte().cpu(),
        torch.from_numpy(specimens.states),
        rendering.judgeable.cpu(),
        rendering.visible.cpu(),
        rendering.in_frame.cpu(),
        torch.from_numpy(specimens.present),
        (F.avg_pool2d(differing(rendering.images, rendering.images[twin]).float(), COVER) * 255).round().byte().cpu(),
        twin,
    )
