"""Batches of rendered pictures and what is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.demo import captions as writing
from concept_cam.demo import world
from concept_cam.demo.captions import Facts
from concept_cam.demo.traits import CHARACTERS
from training.config import TRAIN_SEED
from training.windows import choose_windows, cut, facts_in_windows


@dataclass(frozen=True)
class Job:
    """One batch to render: numbers `start` to `start + count - 1`, the last of them replaced by twins of the first.

    Attributes:
        size: Side of the pictures in pixels.
        count: Pictures rendered.
        start: Number of the first one.
        twins: How many are counterfactual twins of others.
        windows: Windows that are cut out of each picture, besides the whole. The picture is then rendered at twice the size.
        regions: Windows of each picture whose captions are applied at their place in the whole picture; half of the fish are then
            shown whole.
        seed: Seed of the specimens.
    """

    size: int
    count: int
    start: int
    twins: int
    windows: int = 0
    regions: int = 0
    seed: int = TRAIN_SEED


@dataclass(frozen=True)
class Pictures:
    """Pictures and what is true of them.

    Attributes:
        images: uint8 [B, 3, H, W].
        facts: Facts of the pictures.
        boxes: float32 [B, K, 4], windows as `(top, left, bottom, right)` in shares of the picture's sides; `K` may be 0.
        regions: Facts of the windows, picture by picture: `B * K` rows.
    """

    images: Tensor
    facts: Facts
    boxes: Tensor
    regions: Facts

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Pictures:
        """A batch of one."""
        count = self.boxes.shape[1]
        return Pictures(
            self.images[row : row + 1],
            self.facts[slice(row, row + 1)],
            self.boxes[row : row + 1],
            self.regions[slice(row * count, (row + 1) * count)],
        )


def gather(rows: Sequence[Pictures]) -> Pictures:
    """One batch of all the pictures, in order."""
    return Pictures(
        torch.cat([each.images for each in rows]),
        writing.concatenate([each.facts for each in rows]),
        torch.cat([each.boxes for each in rows]),
        writing.concatenate([each.regions for each in rows]),
    )


def facts_of(specimens: world.Specimens, rendering: world.Rendering) -> Facts:
    """What is true of rendered pictures, in the form that captions are judged by."""
    return Facts(
        states=specimens.states,
        fish=specimens.fish,
        scene=specimens.scene,
        whole=specimens.focus < 0,
        visible=rendering.visible.numpy(),
        in_frame=rendering.in_frame.numpy(),
        judgeable=rendering.judgeable.numpy(),
    )


def make_twins(specimens: world.Specimens, rng: np.random.Generator) -> world.Specimens:
    """Counterfactual twins of the specimens, one random character changed to another state."""
    names = list(CHARACTERS)
    changed = rng.integers(len(names), size=len(specimens))
    states = specimens.states.copy()
    for row, c in enumerate(changed):
        count = len(CHARACTERS[names[c]])
        states[row, c] = (states[row, c] + rng.integers(1, count)) % count
    # Only the states differ, as in `world.twin`, which changes one character for all.
    return replace(specimens, states=states)


def _specimens(job: Job, rng: np.random.Generator) -> world.Specimens:
    count = job.count - job.twins
    whole = count // 2 if job.regions else 0
    specimens = world.sample(count - whole, job.seed, view="mixed", start=job.start)
    if whole:
        start = job.start + count - whole
        specimens = world.concatenate([specimens, world.sample(whole, job.seed, view="whole", start=start)])
    if job.twins:
        specimens = world.concatenate([specimens, make_twins(specimens[: job.twins], rng)])
    return specimens


def render_job(job: Job) -> Pictures:
    """Renders one batch of `count * (1 + windows)` pictures."""
    rng = np.random.default_rng((job.seed, job.start, job.size))
    specimens = _specimens(job, rng)
    double = job.size * (2 if job.windows else 1)
    rendering = world.render(specimens, double, masks=bool(job.windows or job.regions))
    facts = facts_of(specimens, rendering)
    none = torch.zeros(len(specimens) * (1 + job.windows), 0, 4)
    if rendering.masks is None:
        return Pictures(rendering.images, facts, none, facts[slice(0, 0)])
    if job.regions:
        boxes = choose_windows(rendering.masks, rng, 0.02, 0.6, job.regions)
        corners = boxes.astype(np.float32)
        corners[..., 2:] += corners[..., :2]
        return Pictures(
            rendering.images,
            facts,
            torch.from_numpy(corners / double),
            facts_in_windows(facts, rendering.masks, boxes),
        )
    images = [F.interpolate(rendering.images.float(), size=job.size, mode="area").round().byte()]
    all_facts = [facts]
    for _ in range(job.windows):
        windows = choose_windows(rendering.masks, rng, 0.22, 0.6, 1)
        images.append(cut(rendering.images, windows[:, 0], job.size))
        all_facts.append(facts_in_windows(facts, rendering.masks, windows))
    return Pictures(torch.cat(images), writing.concatenate(all_facts), none, facts[slice(0, 0)])
