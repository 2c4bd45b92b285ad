"""Windows of pictures: where they lie, and what is true of what they show."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.demo.captions import Facts
from concept_cam.demo.traits import CHARACTER_PART, CHARACTERS, MASKS


def choose_windows(masks: Tensor, rng: np.random.Generator, least: float, most: float, count: int) -> npt.NDArray[np.int64]:
    """Square windows of each picture: mostly near some part of the fish, so that small parts are seen without their neighbours.

    Args:
        masks: bool [B, P, H, W].
        least: Smallest side, as a share of the picture's.
        most: Largest side.
        count: Windows of a picture.

    Returns:
        int64 [B, K, 4]: row, column, height, width; within the picture.
    """
    height, width = masks.shape[-2:]
    boxes = np.empty((len(masks), count, 4), dtype=np.int64)
    for planes, rows in zip(masks.numpy(), boxes, strict=True):
        spots = [found for plane in planes if len(found := np.argwhere(plane))]
        for row in rows:
            side = max(1, int(min(height, width) * least * (most / least) ** rng.random()))
            centre = rng.uniform(0, 1, 2) * (height, width)
            if spots and rng.random() < 0.75:
                part = spots[int(rng.integers(len(spots)))]
                # The smallest windows still fall beside a part as often as on it.
                centre = part[int(rng.integers(len(part)))] + rng.normal(0, 0.3 * side + 0.015 * height, 2)
            top, left = np.clip(centre - side / 2, 0, (height - side, width - side)).astype(int)
            row[:] = top, left, side, side
    return boxes


def cut(images: Tensor, boxes: np.ndarray, size: int) -> Tensor:
    """The windows of uint8 pictures [B, 3, H, W], resized to [B, 3, size, size]."""
    return (
        torch.cat(
            [
                F.interpolate(
                    image[None, :, top : top + height, left : left + width].float(),
                    size=(size, size),
                    mode="bilinear",
                    antialias=True,
                    align_corners=False,
                )
                for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True)
            ]
        )
        .round()
        .byte()
    )


SEEN_SHARE: Final[dict[str, float]] = {"trunk": 0.25, "lateral_line": 0.3, "barbels": 0.35}
"""How much of a part a window must hold for the part to count as visible, where it is not 0.6."""

JUDGED_SHARE: Final[dict[str, float]] = {"pattern": 0.15, "body_colour": 0.15}
"""How much of its part a window must hold for a character to be told, where it is not 0.85."""


def areas_in_windows(masks: Tensor, boxes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pixels of each mask [B, P, H, W] in each window [B, K, 4], by sums over all that lies above and to the left: [B, K, P]."""
    sums = F.pad(masks.to(torch.int32).cumsum(-1).cumsum(-2), (1, 0, 1, 0)).numpy()
    top, left, height, width = (boxes[..., i, None] for i in range(4))
    picture, part = np.arange(len(boxes))[:, None, None], np.arange(sums.shape[1])
    bottom, right = top + height, left + width

    def upto(row: npt.NDArray[np.int64], column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.asarray(sums[picture, part, row, column])

    return upto(bottom, right) - upto(top, right) - upto(bottom, left) + upto(top, left)


def facts_in_windows(facts: Facts, masks: Tensor, boxes: npt.NDArray[np.int64]) -> Facts:
    """What is true of windows of pictures, told from what each holds of every part.

    Args:
        facts: Facts of the pictures, `B` rows.
        masks: bool [B, P, H, W].
        boxes: int64 [B, K, 4]: row, column, height, width.

    Returns:
        Facts of the windows, picture by picture: `B * K` rows.
    """
    count = boxes.shape[1]
    areas = np.repeat(masks.flatten(2).sum(2).numpy(), count, axis=0)
    inside = areas_in_windows(masks, boxes).reshape(len(areas), -1)
    facts = facts[np.repeat(np.arange(len(boxes)), count)]
    size = (boxes[..., 2] * boxes[..., 3]).reshape(-1)
    share = inside / np.maximum(areas, 1)
    filled = inside >= 0.5 * size[:, None]
    # A close-up of scales is a picture of the flank, even if most of the flank is elsewhere.
    visible = (facts.visible & (share >= [SEEN_SHARE.get(part, 0.6) for part in MASKS])) | filled
    held = share[:, [MASKS.index(CHARACTER_PART[name]) for name in CHARACTERS]]
    judgeable = facts.judgeable & (held >= [JUDGED_SHARE.get(name, 0.85) for name in CHARACTERS])
    return replace(
        facts,
        # A window of the background, or with a trace of fish in its corner, shows no fish.
        fish=facts.fish & ((inside.max(1) >= 0.03 * size) | visible.any(1)),
        whole=np.zeros_like(facts.whole),
        visible=visible,
        in_frame=facts.in_frame & (inside > 0),
        judgeable=judgeable,
    )
