"""Masks that a segmenter proposes, and the map votes on: each mask takes the mean of the map over it.

The segmenter is one of the SAM family in the transformers library (SAM, SAM-HQ, SAM 2, EdgeTAM, SAM 3's tracker), loaded from a local
folder. It is asked at a grid of points, as in Kirillov et al., "Segment Anything", ICCV 2023 (appendix B): without words, it knows no
classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from concept_cam.backbones.torchvision_compat import import_transformers
from concept_cam.core.errors import ModelError, reason_of
from concept_cam.core.quiet import quiet
from concept_cam.refine.scene import Scene

__all__ = ["LEAST_IOU", "LEAST_STABILITY", "POINTS", "Proposal", "ProposedMasks", "vote"]

POINTS = 16
"""Points along each side of the picture at which masks are asked for."""

LEAST_IOU = 0.8
"""Masks of which the segmenter itself expects less overlap with a true one are not asked to vote."""

LEAST_STABILITY = 0.9
"""Nor are those that change by more than this leaves when their threshold moves by one logit up and down."""

SAME = 0.9
"""Masks that overlap by more are one."""

AT_ONCE = 64
"""Points in one pass of the segmenter's decoder."""


@dataclass(frozen=True)
class Proposal:
    """Masks of one picture.

    Attributes:
        masks: bool [M, H, W].
        quality: float32 [M], the overlap with a true mask that the segmenter expects, 0..1.
    """

    masks: Tensor
    quality: Tensor


class ProposedMasks:
    """Proposes masks for a picture and lets its maps vote.

    Args:
        folder: A segmenter's folder, as the transformers library saves it: configuration, safetensors, processor.
        device: Where it runs.
        points: See :data:`POINTS`.
        least_iou: See :data:`LEAST_IOU`.
        least_stability: See :data:`LEAST_STABILITY`.

    Raises:
        ModelError: There is no such folder, or it holds no segmenter that can be asked by points.
    """

    def __init__(
        self,
        folder: str,
        device: torch.device | str = "cpu",
        *,
        points: int = POINTS,
        least_iou: float = LEAST_IOU,
        least_stability: float = LEAST_STABILITY,
    ) -> None:
        self._points, self._iou, self._stability = points, least_iou, least_stability
        self._model, self._processor = _segmenter(folder, device)

    def __call__(self, maps: Tensor, scene: Scene) -> Tensor:
        """Maps [C, h, w] to [C, H, W]."""
        wide = scene.wide(maps)
        return vote(wide, self.propose(scene.image))

    @quiet(graph=False)
    def propose(self, image: np.ndarray) -> Proposal:
        """Proposes masks for a picture uint8 [H, W, 3]; the better of two that are nearly the same is kept."""
        masks, quality = zip(*self._asked(image))
        found, worth = torch.cat(masks), torch.cat(quality)
        order = worth.argsort(descending=True, stable=True)
        found, worth = found[order], worth[order]
        keep: list[int] = []
        flat = found.flatten(1).float()
        sizes = flat.sum(1)
        for number in range(len(flat)):
            if keep:
                common = flat[keep] @ flat[number]
                if bool((common / (sizes[keep] + sizes[number] - common) > SAME).any()):
                    continue
            keep.append(number)
        return Proposal(found[keep], worth[keep])

    def _asked(self, image: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        height, width = image.shape[:2]
        at = (np.arange(self._points) + 0.5) / self._points
        grid = [[[float(x * width), float(y * height)]] for y in at for x in at]
        inputs = self._processor(images=[image], input_points=[grid], return_tensors="pt").to(self._model.device)
        pixels = inputs["pixel_values"].to(self._model.dtype)
        seen = self._model.get_image_embeddings(pixels)
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        for start in range(0, len(grid), AT_ONCE):
            points = inputs["input_points"][:, start : start + AT_ONCE].to(self._model.dtype)
            found = self._model(image_embeddings=seen, input_points=points, multimask_output=True)
            logits = self._processor.post_process_masks(found.pred_masks.float(), *sizes, binarize=False)[0].flatten(0, 1)
            worth = found.iou_scores.float().flatten()
            stability = (logits > 1).flatten(1).sum(1) / (logits > -1).flatten(1).sum(1).clamp(min=1)
            masks = logits > 0
            good = (worth >= self._iou) & (stability >= self._stability) & masks.flatten(1).any(1)
            yield masks[good], worth[good].clamp(0, 1)


def vote(wide: Tensor, proposal: Proposal) -> Tensor:
    """Lets masks vote: a pixel takes the mean of the map over each mask that it lies in, the smaller and better mask counting for more.

    ``s'(x) = sum_m q_m / |m| mean_m(s) / sum_m q_m / |m|`` over the masks that hold ``x``; a pixel in no mask keeps its score.

    Args:
        wide: float32 [C, H, W].
        proposal: Masks of the same picture.
    """
    masks = proposal.masks.flatten(1).to(wide.dtype)
    if not len(masks):
        return wide
    flat = wide.flatten(1)
    sizes = masks.sum(1)
    weight = (proposal.quality / sizes).to(wide.dtype)
    means = (flat @ masks.T) / sizes
    total = weight @ masks
    voted = (means * weight) @ masks
    return torch.where(total > 0, voted / total.clamp(min=torch.finfo(wide.dtype).tiny), flat).reshape(wide.shape)


def _segmenter(folder: str, device: torch.device | str) -> tuple[Any, Any]:
    if not Path(folder).is_dir():
        raise ModelError(
            f"there is no folder {folder!r}: give the local folder of a SAM, SAM 2 or EdgeTAM model of the transformers library, with its "
            "config.json, model.safetensors and processor configuration. It is never downloaded."
        )
    transformers = import_transformers()
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForMaskGeneration.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except AttributeError as error:
        raise ModelError("this version of the transformers library has no segmenters: pip install 'transformers>=4.57'.") from error
    except Exception as error:  # whatever a folder holds
        raise ModelError(
            f"cannot load a segmenter from {folder!r}: {reason_of(error)} Expected a SAM, SAM-HQ, SAM 2 or EdgeTAM model of the "
            "transformers library (4.57 or newer for SAM 2 and EdgeTAM)."
        ) from error
    if not hasattr(model, "get_image_embeddings") or not hasattr(processor, "post_process_masks"):
        raise ModelError(f"the model in {folder!r} ({type(model).__name__}) cannot be asked for masks by points.")
    return model.eval().to(device), processor
