"""What every refiner keeps of a map: its scale, sign and highest score, nearly its peak, and all of it where the picture is flat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from concept_cam.refine.scene import Scene

__all__ = ["SETTLING", "TOP", "Hill", "kept"]

TOP = 0.1
"""The upper share of a map's range in which scores fade back to the map's own."""

SETTLING = 0.25
"""How far the highest point may move, in cells of the map along each axis: misses of parts that are thinner than a cell are mostly smaller.
Chosen on rendered pictures that are not the benchmark's."""


def kept(refined: Tensor, wide: Tensor, scene: Scene, tops: Sequence[tuple[int, int]]) -> Tensor:
    """Takes back what a refiner must not change.

    * **Flat places.** Where the picture shows no edge within a cell's reach, the map stays as it is.
    * **Range, and so sign.** No pixel leaves the range that the map has within about a cell of it: scores keep their units, a map that is
      positive all around stays positive, and nothing is found where nothing was.
    * **The top.** In the upper :data:`TOP` of the map's range scores fade back to the map's own, so the highest score is that of the map.
    * **Nearly its place.** A cell is wider than an antenna, and the top of a map between cells may lie beside what it is about. It settles
      where the refined map is highest within :data:`SETTLING` of a cell, with the hill about it; nothing farther off can become the top.

    Args:
        refined: float32 [C, H, W].
        wide: float32 [C, H, W], the maps as they were, interpolated.
        scene: The picture.
        tops: The pixel ``(row, column)`` of each map's peak.

    Returns:
        float32 [C, H, W].
    """
    refined = torch.lerp(refined, wide, scene.flatness) if scene.pixels is not None else refined.clone()
    windows = scene.windows
    reach = windows.highest(windows.lowered(torch.cat([wide, -wide]), highest=True))
    high, low = reach.split(len(wide))
    torch.minimum(refined, windows.raised(high, mode="nearest"), out=refined)
    torch.maximum(refined, windows.raised(-low, mode="nearest"), out=refined)
    bottom, top = wide.amin((1, 2), keepdim=True), wide.amax((1, 2), keepdim=True)
    # The share of the upper part of the range that a score lies in; a constant map is at its top everywhere.
    height = (TOP * (top - bottom)).clamp(min=torch.finfo(wide.dtype).tiny)
    share = wide.sub(top).div_(height).add_(1).clamp_(0, 1)
    hills = [Hill(own, plain, at, scene.pitch) for own, plain, at in zip(refined, wide, tops)]
    refined.lerp_(wide, share)
    for hill, map_ in zip(hills, refined):
        hill.settle(map_)
    return refined


class Hill:
    """The top of a map and what lies about it.

    Args:
        refined: float32 [H, W], the refined map before anything fades.
        wide: float32 [H, W], the map as it was.
        top: The pixel ``(row, column)`` of its peak, give or take one.
        pitch: ``(y, x)`` size of its cells in pixels.
    """

    def __init__(self, refined: Tensor, wide: Tensor, top: tuple[int, int], pitch: tuple[float, float]) -> None:
        first = max(0, top[0] - 1), max(0, top[1] - 1)
        about = wide[first[0] : top[0] + 2, first[1] : top[1] + 2]
        down, across = divmod(int(about.argmax()), about.shape[1])
        top = first[0] + down, first[1] + across
        reach = [SETTLING * side for side in pitch]
        self._window = tuple(slice(max(0, at - math.ceil(2 * far)), at + math.ceil(2 * far) + 1) for at, far in zip(top, reach))
        rows, columns = (
            (torch.arange(part.start, min(part.stop, side), device=wide.device) - at) / far
            for part, side, at, far in zip(self._window, wide.shape, top, reach)
        )
        distance = torch.hypot(rows[:, None], columns)
        self._own, plain = refined[self._window].clone(), wide[self._window]
        self._near = (2 - distance).clamp(0, 1)
        self._height = wide[top]
        inside = distance <= 1
        best = self._own[inside].max()
        self._lift = self._height - best
        # Where several places are as high, such as those of a segment: the nearest to the map's own top in height.
        equal = inside & (self._own == best)
        self._place = divmod(int(torch.where(equal, plain, -math.inf).argmax()), plain.shape[1])

    def settle(self, map_: Tensor) -> None:
        """Moves the top of a map [H, W] in place."""
        part = map_[self._window]
        below = torch.nextafter(self._height, self._height.new_tensor(-math.inf))
        part.lerp_(self._own + self._lift, self._near).clamp_(max=below)
        part[self._place] = self._height
