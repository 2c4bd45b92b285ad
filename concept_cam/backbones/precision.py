"""In which number format a processor is fastest: by measurement, for its flags do not say it.

Processors of one instruction set differ: with AVX-512 and its bfloat16 instructions but without matrix units, one takes 1.6 times as long
in bfloat16 as in float32, another half as long.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from concept_cam.backbones.machine import least_seconds, remembered
from concept_cam.core.quiet import quiet

__all__ = ["WORTH", "bfloat16_gain", "computes_in_bfloat16"]

WORTH = 1.15
"""How many times as fast bfloat16 has to be to be worth its third digit."""

PRODUCT = (256, 768, 3072)
"""Rows, inner and outer width of the product that is timed: the perceptron of a ViT-B/16."""

CONVOLUTION = (1, 64, 64, 56)
"""Pictures, channels before and after, and side of the convolution that is timed: 3 x 3, as a ResNet has it."""


def computes_in_bfloat16(device: str = "cpu") -> bool:
    """Tells whether bfloat16 is faster than float32 on a device, and not merely possible.

    On a CPU that is measured, in a fifth of a second, and remembered for this machine and this version of torch.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return device.startswith("cpu") and bfloat16_gain() >= WORTH


def bfloat16_gain() -> float:
    """Returns how many times as fast the CPU is in bfloat16 as in float32: in products or in convolutions, whichever gains less."""
    found = remembered({"bfloat16": [*PRODUCT, *CONVOLUTION]}, torch.device("cpu"), lambda: {"gain": _measured()})
    return float(found["gain"])


@quiet(graph=False)
def _measured() -> float:
    rows, inner, outer = PRODUCT
    count, entering, leaving, side = CONVOLUTION
    left, right = torch.ones(rows, inner), torch.ones(outer, inner)
    pixels = torch.ones(count, entering, side, side).contiguous(memory_format=torch.channels_last)
    kernel = torch.ones(leaving, entering, 3, 3).contiguous(memory_format=torch.channels_last)
    pairs = (
        (partial(F.linear, left, right), partial(F.linear, left.bfloat16(), right.bfloat16())),
        (partial(F.conv2d, pixels, kernel, padding=1), partial(F.conv2d, pixels.bfloat16(), kernel.bfloat16(), padding=1)),
    )
    seconds = [least_seconds(pair, torch.device("cpu")) for pair in pairs]
    return min(plain / half for plain, half in seconds)
