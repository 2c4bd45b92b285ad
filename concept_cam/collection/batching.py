"""A batch size that suits the processor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["choose_batch_size"]

CPU_BATCH = 8
"""On a CPU a larger batch gains nothing and a smaller one keeps fewer pictures in memory."""

LARGEST_BATCH = 512


def choose_batch_size(localizer: Localizer) -> int:
    """Finds a batch size: on a CPU a fixed one; on a GPU the smallest that is within a twentieth of the fastest and fits in half the
    memory.
    """
    device = localizer.backbone.device
    if device.type != "cuda":
        return CPU_BATCH
    height, width = localizer.backbone.preprocess.default_size
    best, best_rate, size = CPU_BATCH, 0.0, CPU_BATCH
    free, _total = torch.cuda.mem_get_info(device)
    while size <= LARGEST_BATCH:
        try:
            rate = _rate(localizer, size, (height, width))
        except torch.cuda.OutOfMemoryError:
            break
        if rate < 1.05 * best_rate or torch.cuda.max_memory_allocated(device) > free / 2:
            break
        best, best_rate, size = size, rate, size * 2
    torch.cuda.empty_cache()
    return best


def _rate(localizer: Localizer, size: int, shape: tuple[int, int]) -> float:
    backbone = localizer.backbone
    pixels = torch.zeros(size, 3, *shape, device=backbone.device, dtype=backbone.dtype)
    with torch.inference_mode():
        backbone.encode_patches(pixels, localizer.settings.attention)
        torch.cuda.synchronize(backbone.device)
        start = time.perf_counter()
        for _ in range(3):
            backbone.encode_patches(pixels, localizer.settings.attention)
        torch.cuda.synchronize(backbone.device)
    return 3 * size / (time.perf_counter() - start)
