"""Does the model use what the map shows? Metrics that change the picture and ask the model again.

The model comes in as a plain function ``score``: uint8 [N, H, W, 3] pictures -> [N] confidences of the concept (probabilities where
the definition says confidence). All maps are [H, W] over the same pixels; NaN pixels rank last and are never removed first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.names import choose

__all__ = [
    "FILLS",
    "DropIncrease",
    "average_drop",
    "average_increase",
    "deletion_auc",
    "drop_and_increase",
    "fill_image",
    "insertion_auc",
    "masked_top",
    "perturbation_curve",
    "relative_confidence_drop",
    "top_fraction",
]

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float64]
Score = Callable[[Image], Array]


def _blurred(image: Image) -> Image:
    sigma = max(image.shape[:2]) / 20
    return np.stack([ndimage.gaussian_filter(image[..., c].astype(np.float32), sigma) for c in range(3)], axis=-1).round().astype(np.uint8)


def _mean(image: Image) -> Image:
    return np.broadcast_to(image.reshape(-1, 3).mean(axis=0).round().astype(np.uint8), image.shape).copy()


FILLS: dict[str, Callable[[Image], Image]] = {
    "mean": _mean,
    "blur": _blurred,
    "black": np.zeros_like,
    "grey": lambda image: np.full_like(image, 128),
}
"""What takes the place of removed pixels: the picture's mean colour, the picture blurred (sigma = longer side / 20), black, or grey."""


def fill_image(image: Image, fill: str = "mean") -> Image:
    """Returns the picture that removed pixels are taken from, uint8 [H, W, 3].

    Raises:
        ConfigurationError: Unknown fill.
        DataError: Not uint8 [H, W, 3].
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"expected a uint8 picture [H, W, 3], received {image.dtype} {image.shape}.")
    return choose(fill, FILLS, "fill")(image)


def top_fraction(heatmap: Array, fraction: float) -> npt.NDArray[np.bool_]:
    """Returns bool [H, W]: the ``round(fraction * H * W)`` pixels of highest score (at least one for a fraction above 0).

    Ties are broken by the pixel's place in reading order, so that exactly that many are chosen and runs agree.
    """
    if not 0 <= fraction <= 1:
        raise ConfigurationError(f"the fraction of pixels must lie in 0..1, received {fraction}.")
    chosen = np.zeros(heatmap.size, dtype=bool)
    count = max(1, round(fraction * heatmap.size)) if fraction else 0
    chosen[_order(heatmap)[:count]] = True
    return chosen.reshape(heatmap.shape)


def _order(heatmap: Array) -> npt.NDArray[np.int64]:
    """Pixel numbers from the highest score to the lowest; ties in reading order, NaN last."""
    flat = np.asarray(heatmap, dtype=np.float64).ravel()
    return np.argsort(np.where(np.isnan(flat), np.inf, -flat), kind="stable")


def masked_top(image: Image, heatmap: Array, fraction: float, fill: str = "mean") -> Image:
    """Returns the picture with its top ``fraction`` of pixels replaced by ``fill``, uint8 [H, W, 3]."""
    _same_size(image, heatmap)
    return np.where(top_fraction(heatmap, fraction)[..., None], fill_image(image, fill), image)


def _same_size(image: Image, heatmap: Array) -> None:
    if image.shape[:2] != heatmap.shape:
        raise DataError(f"the picture has {image.shape[:2]} pixels, the map {heatmap.shape}: both must be [H, W] alike.")


def relative_confidence_drop(
    image: Image,
    heatmap: Array,
    probabilities: Callable[[Image], Array],
    target: int,
    competing: int,
    fraction: float = 0.05,
    fill: str = "mean",
) -> float:
    """Finer-CAM's relative confidence drop (Zhang et al., CVPR 2025, eq. 10): ``RD = (p_c - p*_c) - (p_d - p*_d)``.

    ``p`` are probabilities before and ``p*`` after the top ``fraction`` of pixels is replaced; ``c`` is the target and ``d`` the
    competing class. Masking what both classes share lowers both and earns nothing. The paper does not say what the pixels are
    replaced with, nor whether ``d`` is the second most probable class or the reference: both are arguments here.

    Args:
        image: uint8 [H, W, 3].
        heatmap: [H, W].
        probabilities: uint8 [N, H, W, 3] -> [N, K] probabilities over the classes or concepts.
        target: Column ``c``.
        competing: Column ``d``.
        fraction: Share of pixels that is masked (the paper: 0.05 and 0.1).
        fill: Name in :data:`FILLS`.

    Returns:
        -2..2; higher means that the map found what tells the target from the competing class.
    """
    if target == competing:
        raise ConfigurationError(f"the target and the competing class are both column {target}.")
    rows = np.asarray(probabilities(np.stack([image, masked_top(image, heatmap, fraction, fill)])), dtype=np.float64)
    before, after = rows
    return float((before[target] - after[target]) - (before[competing] - after[competing]))


def perturbation_curve(
    image: Image,
    heatmap: Array,
    score: Score,
    mode: str = "deletion",
    steps: int = 20,
    fill: str = "mean",
    batch: int = 16,
) -> tuple[Float, Float]:
    """Confidence while pixels are removed from the highest score down, or put back in that order.

    RISE (Petsiuk et al. 2018). Deletion starts from the picture, insertion from its fill (the paper: black or grey for deletion,
    blur for insertion).

    Args:
        image: uint8 [H, W, 3].
        heatmap: [H, W].
        score: uint8 [N, H, W, 3] -> [N].
        mode: ``"deletion"`` or ``"insertion"``.
        steps: Number of steps; the curve has ``steps + 1`` points.
        fill: Name in :data:`FILLS`.
        batch: Pictures per call of ``score``.

    Returns:
        ``(fractions, confidences)``, float64 [steps + 1] each.
    """
    if steps < 1:
        raise ConfigurationError(f"a perturbation curve needs at least one step, received {steps}.")
    _same_size(image, heatmap)
    filled = fill_image(image, fill)
    start, end = choose(mode, {"deletion": (image, filled), "insertion": (filled, image)}, "perturbation")
    order = _order(heatmap)
    cuts = np.round(np.linspace(0, heatmap.size, steps + 1)).astype(np.int64)
    values: list[Float] = []
    for first in range(0, len(cuts), batch):
        stack = []
        for cut in cuts[first : first + batch]:
            flat = start.reshape(-1, 3).copy()
            flat[order[:cut]] = end.reshape(-1, 3)[order[:cut]]
            stack.append(flat.reshape(image.shape))
        values.append(np.asarray(score(np.stack(stack)), dtype=np.float64))
    return cuts / heatmap.size, np.concatenate(values)


def _area(x: Float, y: Float) -> float:
    """Trapezoidal area; numpy renamed its own function between the supported versions."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def deletion_auc(image: Image, heatmap: Array, score: Score, steps: int = 20, fill: str = "grey") -> float:
    """Deletion: trapezoidal area under :func:`perturbation_curve` (RISE). Lower is better; range of ``score``."""
    fractions, values = perturbation_curve(image, heatmap, score, "deletion", steps, fill)
    return _area(fractions, values)


def insertion_auc(image: Image, heatmap: Array, score: Score, steps: int = 20, fill: str = "blur") -> float:
    """Insertion: trapezoidal area under :func:`perturbation_curve` (RISE). Higher is better; range of ``score``."""
    fractions, values = perturbation_curve(image, heatmap, score, "insertion", steps, fill)
    return _area(fractions, values)


@dataclass(frozen=True)
class DropIncrease:
    """Confidence on a picture and on the part of it that a map shows.

    Attributes:
        full: Confidence on the whole picture.
        shown: Confidence on the picture multiplied by the map.
    """

    full: float
    shown: float

    @property
    def drop(self) -> float:
        """``max(0, full - shown) / full``, 0..1; NaN when ``full`` is not above zero."""
        return max(0.0, self.full - self.shown) / self.full if self.full > 0 else float("nan")

    @property
    def increase(self) -> float:
        """1 when the shown part is more certain than the whole, else 0."""
        return float(self.shown > self.full)


def drop_and_increase(image: Image, heatmap: Array, score: Score, fill: str = "black") -> DropIncrease:
    """Shows the model only what the map shows (Grad-CAM++, Chattopadhay et al. 2018).

    The picture is blended with its fill by the map scaled to 0..1 by its own extremes, as the definition has it (NaN: nothing is
    shown; a constant map shows nothing). With ``fill="black"`` that is the element-wise product with the picture.

    Returns:
        The two confidences; average them with :func:`average_drop` and :func:`average_increase`.
    """
    _same_size(image, heatmap)
    values = np.asarray(heatmap, dtype=np.float64)
    low, high = (np.nanmin(values), np.nanmax(values)) if not np.isnan(values).all() else (0.0, 0.0)
    share = np.nan_to_num((values - low) / (high - low))[..., None] if high > low else np.zeros((*values.shape, 1))
    shown = (share * image + (1 - share) * fill_image(image, fill)).round().astype(np.uint8)
    full, part = np.asarray(score(np.stack([image, shown])), dtype=np.float64)
    return DropIncrease(float(full), float(part))


def average_drop(pairs: list[DropIncrease]) -> float:
    """Average drop over pictures, 0..1 (the paper: per cent), lower is better; NaN rows left out, NaN when none is left."""
    drops = np.array([pair.drop for pair in pairs])
    return float(np.nanmean(drops)) if len(drops) and not np.isnan(drops).all() else float("nan")


def average_increase(pairs: list[DropIncrease]) -> float:
    """Share of pictures whose confidence rises when only the map's part is shown, 0..1, higher is better; NaN without pictures."""
    return float(np.mean([pair.increase for pair in pairs])) if pairs else float("nan")
