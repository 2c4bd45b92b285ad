"""A vote of superpixels: each patch of like colour takes the mean of the map over it, so that no outline cuts through it.

Superpixels are those of Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", TPAMI 2012, as in scikit-image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from concept_cam.refine.scene import Scene

__all__ = ["COMPACTNESS", "PER_CELL", "superpixels", "voted"]

PER_CELL = 4.0
"""Superpixels per cell: larger ones cut off parts as small as a cell."""

COMPACTNESS = 10.0
"""How much nearness counts beside colour, as scikit-image has it."""


def voted(maps: Tensor, scene: Scene) -> Tensor:
    """Lets superpixels vote on maps: [C, H, W]; see :data:`concept_cam.refine.REFINERS`."""
    wide = scene.wide(maps)
    count = wide[0].numel() / (scene.cell[0] * scene.cell[1]) * PER_CELL
    labels = torch.from_numpy(superpixels(scene.image, count)).to(wide.device)
    flat = labels.flatten()
    sizes = torch.bincount(flat).clamp(min=1)
    sums = wide.new_zeros(len(wide), len(sizes)).index_add_(1, flat, wide.flatten(1))
    return (sums / sizes)[:, flat].reshape(wide.shape)


def superpixels(image: np.ndarray, count: float) -> np.ndarray:
    """Returns the number of each pixel's superpixel, int64 [H, W] from 0.

    Args:
        image: uint8 [H, W, 3].
        count: About how many.
    """
    from skimage.segmentation import slic

    found = slic(image, n_segments=max(1, round(count)), compactness=COMPACTNESS, start_label=0, channel_axis=-1)
    return np.asarray(found, dtype=np.int64)
