"""What an image processor of the transformers library says, in open_clip's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from concept_cam.core.errors import UnsupportedModelError

__all__ = ["processor_settings"]

INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


def processor_settings(processor: Any, name: str) -> dict[str, Any]:
    """Returns an image processor's settings: ``mean``, ``std``, ``interpolation``, ``resize_mode``, ``size``, ``resize_side``.

    Whatever the processor multiplies, subtracts and divides becomes one mean and one deviation of values in 0..1.

    Args:
        processor: The image processor; ``None``: nothing is known.
        name: Name of the model, for messages.

    Raises:
        UnsupportedModelError: It does not bring pixels to their place by a factor, a mean and a deviation.
    """
    if processor is None:
        return {}
    mean, std = _statistics(processor, name)
    resized, mode = _size(getattr(processor, "size", None))
    cropped, _ = _size(getattr(processor, "crop_size", None)) if _says(processor, "do_center_crop", False) else (None, "")
    settings: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "interpolation": INTERPOLATIONS.get(int(getattr(processor, "resample", 3) or 0), "bicubic"),
        "resize_mode": mode,
        "size": cropped or resized,
    }
    if getattr(processor, "max_num_patches", None):
        settings |= {"resize_mode": "naflex", "max_num_patches": int(processor.max_num_patches), "size": None}
    elif cropped and resized and cropped != resized:
        settings["resize_side"] = resized
    return settings


def _says(processor: Any, name: str, default: bool) -> bool:
    value = getattr(processor, name, None)
    return default if value is None else bool(value)


def _statistics(processor: Any, name: str) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    scaled = _says(processor, "do_rescale", True)
    factor = float(getattr(processor, "rescale_factor", None) or 1 / 255)
    normal = _says(processor, "do_normalize", True)
    if not scaled:
        raise UnsupportedModelError(f"{name}: its image processor does not rescale pixels (do_rescale is false), which is not read here.")
    if normal and (mean is None or std is None):
        return None, None
    # v = 255 f (x / 255) - shift, then (v - mean) / std; EfficientNets that say ``include_top`` divide by the deviation once more.
    shift = 1.0 if _says(processor, "rescale_offset", False) else 0.0
    means = [float(part) for part in mean] if normal and mean is not None else [0.0] * 3
    stds = [float(part) for part in std] if normal and std is not None else [1.0] * 3
    top = [float(part) for part in std] if _says(processor, "include_top", False) and std is not None else [1.0] * 3
    whole = 255 * factor
    if abs(whole - 1) < 1e-9:
        whole = 1.0
    return tuple((shift + part) / whole for part in means), tuple(part * last / whole for part, last in zip(stds, top))


def _size(size: Any) -> tuple[tuple[int, int] | None, str]:
    """Returns ``(H, W)`` and how a picture is brought there."""
    values: Mapping[str, Any] = dict(size) if size is not None and not isinstance(size, int) else {}
    if values.get("shortest_edge"):
        side = int(values["shortest_edge"])
        return (side, side), "shortest"
    if values.get("height") and values.get("width"):
        return (int(values["height"]), int(values["width"])), "squash"
    return None, "squash"
