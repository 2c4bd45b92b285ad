"""Means over windows of pixel maps, at a lower resolution where that suffices."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SAMPLES", "Windows"]

SAMPLES = 4
"""Samples along a window at least, where values are averaged at a lower resolution."""


class Windows:
    """Means over windows that move over a picture of ``H`` x ``W`` pixels.

    Args:
        size: ``(H, W)``.
        window: ``(y, x)`` size of a window in pixels.
    """

    def __init__(self, size: tuple[int, int], window: tuple[float, float]) -> None:
        self._height, self._width = size
        self.step = max(1, int(min(window) // SAMPLES))
        self.window = _odd(window[0] / self.step), _odd(window[1] / self.step)

    def lowered(self, values: Tensor, *, highest: bool = False) -> Tensor:
        """Brings pixel maps [N, H, W] to the lower resolution: the mean of each block of pixels, or its highest value."""
        step = self.step
        padded = F.pad(values[None], (0, -self._width % step, 0, -self._height % step), mode="replicate")
        if not highest:
            return F.avg_pool2d(padded, step)[0]
        # Slices of one phase each: many times as fast as pooling on a processor.
        found = padded[0, :, ::step, ::step].clone()
        for phase in range(1, step * step):
            torch.maximum(found, padded[0, :, phase // step :: step, phase % step :: step], out=found)
        return found

    def mean(self, low: Tensor) -> Tensor:
        """Means over windows of what lies in the picture, [N, h, w], at the lower resolution."""
        ones = low.new_ones(1, *low.shape[1:])
        return self._moved(low, torch.add) / self._moved(ones, torch.add)

    def highest(self, low: Tensor) -> Tensor:
        """Highest values in windows, [N, h, w], at the lower resolution."""
        return self._moved(low, torch.maximum)

    def _moved(self, low: Tensor, joined: Callable[..., Tensor]) -> Tensor:
        """Joins every value with those in the window about it, axis by axis, by moving the maps as a whole; windows are small."""
        for dim, count in zip((1, 2), self.window):
            source, low = low, low.clone()
            for step in range(1, min(count // 2, low.shape[dim] - 1) + 1):
                length = low.shape[dim] - step
                for to, start in ((0, step), (step, 0)):
                    inner = low.narrow(dim, to, length)
                    joined(inner, source.narrow(dim, start, length), out=inner)
        return low

    def raised(self, low: Tensor, *, mode: str = "bilinear") -> Tensor:
        """Brings maps of the lower resolution back to pixels, [N, H, W]."""
        if self.step == 1:
            return low
        options = {"align_corners": False} if mode == "bilinear" else {}
        wide = F.interpolate(low[None], scale_factor=self.step, mode=mode, **options)[0]
        return wide[:, : self._height, : self._width]


def _odd(length: float) -> int:
    return max(1, 2 * int(length / 2) + 1)
