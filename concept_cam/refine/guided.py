"""A guided filter: near an edge of the picture a map becomes a linear function of the picture's colours, and so takes over the edge.

He, Sun and Tang, "Guided Image Filtering", TPAMI 2013, with a colour guide; the linear functions are found at a lower resolution and
applied at the full one, as in He and Sun, "Fast Guided Filter", 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from concept_cam.refine.scene import Scene
from concept_cam.refine.windows import Windows

__all__ = ["EPSILON", "WINDOW", "GuidedFilter", "guided"]

WINDOW = 1.5
"""Size of the window in cells of the map, and so how far an outline may be moved: by three quarters of a cell. Chosen on rendered pictures
that are not the benchmark's."""

EPSILON = 1e-3
"""Variance of a colour, in squared units of its range 0..1, that an edge must exceed to count as one."""

CHUNK = 1 << 25
"""Numbers of an intermediate result at most; maps are filtered in groups."""


def guided(maps: Tensor, scene: Scene) -> Tensor:
    """Filters maps beside their picture: [C, H, W]; see :data:`concept_cam.refine.REFINERS`."""
    wide = scene.wide(maps)
    filter_ = GuidedFilter(scene.guide, (WINDOW * scene.cell[0], WINDOW * scene.cell[1]))
    step = max(1, CHUNK // (wide[0].numel() * (len(scene.guide) + 1)))
    return torch.cat([filter_(wide[start : start + step]) for start in range(0, len(wide), step)])


class GuidedFilter:
    """The statistics of a guide, shared by all maps that are filtered beside it.

    Args:
        guide: float32 [K, H, W], values in 0..1.
        window: ``(y, x)`` size of the window in pixels: how far an edge of the map may lie from that of the picture.
        epsilon: See :data:`EPSILON`.
    """

    def __init__(self, guide: Tensor, window: tuple[float, float], epsilon: float = EPSILON) -> None:
        self._guide = guide
        self._windows = Windows((guide.shape[1], guide.shape[2]), window)
        self._low = self._windows.lowered(guide)
        self._mean = self._windows.mean(self._low)
        products = (self._low[:, None] * self._low[None]).flatten(0, 1)
        covariance = self._windows.mean(products).unflatten(0, (len(guide), len(guide))) - self._mean[:, None] * self._mean[None]
        regular = covariance.permute(2, 3, 0, 1) + epsilon * torch.eye(len(guide), device=guide.device)
        self._inverse = torch.linalg.inv(regular).permute(2, 3, 0, 1).contiguous()

    def __call__(self, maps: Tensor) -> Tensor:
        """Filters maps float32 [C, H, W]."""
        windows = self._windows
        low = windows.lowered(maps)
        mean = windows.mean(low)
        products = (low[:, None] * self._low[None]).flatten(0, 1)
        covariance = windows.mean(products).unflatten(0, (len(maps), len(self._mean))) - mean[:, None] * self._mean[None]
        slope = torch.einsum("ijhw,cjhw->cihw", self._inverse, covariance)
        level = mean - torch.einsum("cihw,ihw->chw", slope, self._mean)
        refined = windows.raised(windows.mean(level)).clone()
        for channel, guide in enumerate(self._guide):  # one by one: the slopes of all maps at the full size are large
            refined.addcmul_(windows.raised(windows.mean(slope[:, channel])), guide)
        return refined
