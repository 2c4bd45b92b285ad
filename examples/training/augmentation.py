"""Changes to rendered pictures that leave their captions true, or make known what can no longer be told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.demo.captions import Facts
from concept_cam.demo.traits import CHARACTERS
from training.config import MEAN, STD
from training.pictures import Pictures


def training_size(size: int, rng: np.random.Generator) -> int:
    """Side at which a batch rendered at `size` is trained: another one now and then."""
    factor = float(rng.choice([0.75, 1.0, 1.0, 1.25]))
    return min(max(64, round(size * factor / 32) * 32), max(size, 256))


def augment(images: Tensor, target: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors, light, colour cast and noise that change no caption.

    Args:
        images: uint8 [B, 3, H, W].
        target: Side of the result.

    Returns:
        float32 [B, 3, target, target], preprocessed, and bool [B], which are mirrored.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    count, size = len(images), images.shape[-1]
    x = images.float().div_(255.0)
    mirrored = torch.rand(count, generator=generator) < 0.5
    x[mirrored] = x[mirrored].flip(-1)
    if target != size:
        x = F.interpolate(x, size=(target, target), mode="bilinear", antialias=True, align_corners=False)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.rand(count, channels, 1, 1, generator=generator) * (high - low) + low

    x = (x - 0.5) * draw(0.8, 1.2) + 0.5 + draw(-0.1, 0.1)
    x = x * draw(0.93, 1.07, 3)
    x = x + torch.randn(x.shape, generator=generator) * draw(0.0, 0.03)
    return normalise(x.clamp_(0.0, 1.0)), mirrored


def distort_colours(x: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Gives some pictures colours, light and texture that no camera would: what is left to learn from is shape.

    Colours are mixed by a random matrix, tones bent, a random small filter is mixed in (Xu et al., "Robust and Generalizable Visual
    Representation Learning via Random Convolutions", ICLR 2021), uneven light and patches of glare are laid over.

    Args:
        x: float32 [B, 3, H, W], preprocessed.
        share: How many of the pictures.

    Returns:
        The pictures, and bool [B], whose colours are false.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    chosen = torch.rand(len(x), generator=generator) < share
    for row in chosen.nonzero()[:, 0].tolist():
        picture = x[row : row + 1] * 0.25 + 0.5

        def draw(low: float, high: float) -> float:
            return float(torch.rand((), generator=generator)) * (high - low) + low

        mixing = torch.randn(3, 3, generator=generator) * draw(0.0, 0.6)
        if draw(0, 1) < 0.3:
            mixing = torch.full((3, 3), 1 / 3) - torch.eye(3)
        mixing = torch.eye(3) + mixing
        picture = F.conv2d(picture, (mixing / mixing.sum(1, keepdim=True).clamp(min=0.4))[..., None, None])
        side = 2 * int(torch.randint(1, 3, (), generator=generator)) + 1
        kernel = torch.randn(3, 3, side, side, generator=generator) / (side * math.sqrt(3.0))
        filtered = F.conv2d(picture - 0.5, kernel, padding=side // 2) + 0.5
        picture = torch.lerp(picture, filtered, draw(-0.3, 0.5)).clamp(0.0, 1.0) ** draw(0.6, 1.7)
        light = torch.randn(1, 3, 4, 4, generator=generator) * torch.tensor([0.25, 0.08, 0.08]).view(1, 3, 1, 1)
        light[:, 1:] += light[:, :1]
        glare = torch.randn(1, 1, 24, 24, generator=generator) - draw(1.2, 3.5)
        size = picture.shape[-2:]
        picture = picture * F.interpolate(light.exp(), size=size, mode="bicubic", align_corners=False)
        picture = picture + F.interpolate(glare.clamp(0, 1), size=size, mode="bilinear", align_corners=False) * 0.8
        x[row] = normalise(picture.clamp(0.0, 1.0))[0]
    return x, chosen


def without_colours(pictures: Pictures, false_colour: npt.NDArray[np.bool_]) -> Pictures:
    """The same, but nothing is known of the colour of the fish or of its background where colours are false."""
    colour = list(CHARACTERS).index("body_colour")

    def told(facts: Facts, rows: npt.NDArray[np.bool_]) -> Facts:
        judgeable = facts.judgeable.copy()
        judgeable[rows, colour] = False
        return replace(facts, judgeable=judgeable, scene=np.where(rows, -1, facts.scene))

    windows = np.repeat(false_colour, pictures.boxes.shape[1])
    return replace(pictures, facts=told(pictures.facts, false_colour), regions=told(pictures.regions, windows))


def mirror_boxes(boxes: Tensor, mirrored: Tensor) -> Tensor:
    """Windows [B, K, 4] of pictures of which some are mirrored left to right."""
    top, left, bottom, right = boxes.unbind(-1)
    turned = torch.stack([top, 1 - right, bottom, 1 - left], dim=-1)
    return torch.where(mirrored[:, None, None], turned, boxes)


def normalise(x: Tensor) -> Tensor:
    """Values 0..1 [B, 3, H, W] to what the tower reads."""
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
