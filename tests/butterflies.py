"""Planted butterflies: a small renderer that knows every wing, and a tower that sees parts by their colour. No weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage.draw import polygon
from torch import Tensor

from concept_cam.backbones.protocol import ImageFeatures
from tests.planted import PlantedBackbone

SIZE = 192
"""Pixels along either side of a picture."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "background": (0, 0, 0),
    "fore_wing": (255, 0, 0),
    "hind_wing": (0, 255, 0),
    "head": (0, 0, 255),
    "thorax": (255, 255, 0),
    "abdomen": (255, 0, 255),
    "collar": (0, 255, 255),
    "legs": (255, 255, 255),
}
"""The colour of every part. The collar is seen from above alone, the legs from below alone."""

NOUNS = {"fore wing": "fore_wing", "hind wing": "hind_wing"} | {name: name for name in ("head", "thorax", "abdomen", "collar", "legs")}

PACK: dict[str, Any] = {
    "pack": "planted_butterflies",
    "host": "butterfly",
    "templates": ["{}"],
    "host_templates": ["{}"],
    "frame": {
        "along": ["head", "thorax", "abdomen"],
        "sides": ["fore_wing", "hind_wing"],
        "from_above": ["collar"],
        "from_below": ["legs"],
    },
    "characters": {
        "parts": {
            "kind": "part",
            "states": {
                part: {"phrases": [f"the {noun} of a butterfly"], "entity": {"label": noun}, "contrasts": ["host", "background"]}
                for noun, part in NOUNS.items()
            },
        },
        "wings": {
            "kind": "part",
            "states": {
                f"{side}_{wing}": {"of": f"parts={wing}", "where": side}
                for wing in ("fore_wing", "hind_wing")
                for side in ("left", "right")
            },
        },
    },
}

_FORE = ((0.05, 0.10), (0.45, 0.62), (0.80, 0.66), (0.72, 0.20), (0.30, -0.02), (0.05, -0.02))
_HIND = ((0.05, -0.02), (0.30, -0.02), (0.62, -0.10), (0.60, -0.52), (0.22, -0.62), (0.05, -0.16))
"""Outlines of a wing on one side: outward, forward; in units of half the picture."""


@dataclass(frozen=True)
class Butterfly:
    """A picture and what is where in it.

    Attributes:
        pixels: uint8 [SIZE, SIZE, 3].
        masks: bool [SIZE, SIZE] by part; wings also as ``left_fore_wing`` and so on, by the animal's own sides.
        ahead: Unit vector (x, y) to the head.
        view: ``"above"``, ``"below"`` or ``"beside"``.
    """

    pixels: np.ndarray
    masks: dict[str, np.ndarray]
    ahead: np.ndarray
    view: str


def butterfly(
    angle: float,
    view: str = "above",
    *,
    mirrored: bool = False,
    scale: float = 0.8,
    middle: tuple[float, float] = (0.0, 0.0),
    squeeze: float = 1.0,
    evidence: bool = True,
) -> Butterfly:
    """Draws a butterfly.

    Args:
        angle: Where the head points, radians counter-clockwise from the right.
        view: From where it is seen. From beside the wings are closed over the back, and its left side is seen.
        mirrored: Whether the picture is mirrored afterwards; what was its left wing is then its right one.
        scale: Size, 1 fills the picture.
        middle: Shift ``(x, y)`` in units of half the picture.
        squeeze: Width of the sides on the right of the head, for a view at a slant.
        evidence: Whether collar and legs are drawn, which tell above from below.
    """
    ahead = np.array([np.cos(angle), -np.sin(angle)])
    own_left = np.array([ahead[1], -ahead[0]])  # Seen from above, with y down.
    outward = {"above": own_left, "below": -own_left, "beside": own_left}[view]
    labels = np.zeros((SIZE, SIZE), dtype=int)
    names = list(COLOURS)
    sides = np.zeros((SIZE, SIZE), dtype=int)

    def paint(name: str, points: Sequence[tuple[float, float]], side: int = 1, label: int = 0) -> None:
        wide = squeeze if side < 0 else 1.0
        flat = np.array([[p * side * wide, q] for p, q in points])
        at = 0.5 * SIZE * (1 + np.array(middle) + scale * (flat[:, :1] * outward + flat[:, 1:] * ahead))
        rows, columns = polygon(at[:, 1], at[:, 0], labels.shape)
        labels[rows, columns] = names.index(name)
        sides[rows, columns] = label

    both = (1,) if view == "beside" else (1, -1)
    order = [("hind_wing", _HIND), ("fore_wing", _FORE)]
    for name, outline in order if view == "above" else order[::-1]:
        for side in both:
            paint(name, outline, side, 1 if side > 0 else 2)
    band = [(-0.07, 0.0), (0.07, 0.0)]
    for name, low, high in (("abdomen", -0.5, -0.06), ("thorax", -0.06, 0.16), ("head", 0.16, 0.36)):
        paint(name, [(band[0][0], low), (band[1][0], low), (band[1][0], high), (band[0][0], high)])
    if evidence and view == "above":
        paint("collar", [(-0.13, 0.02), (0.13, 0.02), (0.13, 0.14), (-0.13, 0.14)])
    if evidence and view == "below":
        paint("legs", [(-0.2, -0.04), (0.2, -0.04), (0.2, 0.1), (-0.2, 0.1)])
    pixels = np.array(list(COLOURS.values()), dtype=np.uint8)[labels]
    masks = {name: labels == number for number, name in enumerate(names) if number}
    if view == "beside":
        facing = {1: "left", 2: "right"}
    else:
        # Painted side 1 is the animal's own left in either view, for outward points to it.
        facing = {1: "left", 2: "right"}
    for wing in ("fore_wing", "hind_wing"):
        for number, side in facing.items():
            masks[f"{side}_{wing}"] = masks[wing] & (sides == number)
    if mirrored:
        pixels, ahead = pixels[:, ::-1], ahead * (-1, 1)
        swapped = {"left": "right", "right": "left"}
        masks = {
            f"{swapped[name.split('_')[0]]}_{name.split('_', 1)[1]}" if name.split("_")[0] in swapped else name: mask[:, ::-1]
            for name, mask in masks.items()
        }
    return Butterfly(np.ascontiguousarray(pixels), masks, ahead, view)


class PartsBackbone(PlantedBackbone):
    """Sees the share of each colour in a cell, in noise; a text is the part whose noun it holds."""

    name = "parts"
    weights_hash = "butterfly0123456"
    embed_dim = len(COLOURS) + 1
    logit_scale = 20.0
    context_length = 32

    def __init__(self, stride: int = 8, noise: float = 0.0) -> None:
        super().__init__(SIZE, stride)
        self.noise = noise

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        palette = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 255
        nearest = torch.cdist(pixels.flatten(2).transpose(1, 2), palette).argmin(dim=-1)
        seen = F.one_hot(nearest, len(COLOURS)).float().transpose(1, 2).unflatten(2, pixels.shape[-2:])
        patches = F.avg_pool2d(seen, self.preprocess.stride).permute(0, 2, 3, 1)
        patches = torch.cat([patches, torch.full_like(patches[..., :1], 0.02)], dim=-1)
        generator = torch.Generator().manual_seed(int(nearest.sum()))
        patches = patches + self.noise * torch.randn(patches.shape, generator=generator)
        # The picture as a whole is what is in it, not what is around it.
        image = patches.mean(dim=(1, 2))
        image[:, 0] = 0.0
        return ImageFeatures(patches, image)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        self.text_calls += len(prompts)
        rows = []
        for prompt in prompts:
            row = torch.zeros(self.embed_dim)
            row[-1] = 0.02
            words = prompt.replace("forewing", "fore wing").replace("hindwing", "hind wing")
            parts = [part for noun, part in NOUNS.items() if noun in words]
            if parts:
                row[list(COLOURS).index(parts[0])] = 1.0
            elif "background" in prompt:
                row[0] = 1.0
            elif "butterfly" in prompt:
                row[1:-1] = 0.15
            rows.append(row)
        return torch.stack(rows)
