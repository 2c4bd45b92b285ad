"""What every refiner keeps of a map: its scale, its sign, its highest point, and all of it where the picture is flat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from concept_cam.refine.scene import Scene

__all__ = ["TOP", "kept"]

TOP = 0.1
"""The upper share of a map's range in which scores fade back to the map's own."""


def kept(refined: Tensor, wide: Tensor, scene: Scene) -> Tensor:
    """Takes back what a refiner must not change.

    * **Flat places.** Where the picture shows no edge within a cell's reach, the map stays as it is.
    * **Range, and so sign.** No pixel leaves the range that the map has within about a cell of it: scores keep their units, a map that is
      positive all around stays positive, and nothing is found where nothing was.
    * **The highest point.** In the upper :data:`TOP` of the map's range scores fade back to the map's own, which they are at the top. So
      the highest score and its place are those of the map.

    Args:
        refined: float32 [C, H, W].
        wide: float32 [C, H, W], the maps as they were, interpolated.
        scene: The picture.

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
    return refined.lerp_(wide, share)
