"""Reading masks: the one reader, for annotation, evaluation, what is to be ignored and everything that people draw elsewhere.

A mask is no photograph: its numbers count, not how bright they look. What is 0, black or wholly transparent is outside, everything else
inside:

* bilevel, 8-bit, 16-bit, 32-bit and floating pictures: their numbers, so that labels of 1 in 16 bits are labels, not nearly black;
* palettes: their indices, whatever colours are shown, where the index 0 is shown black or nothing is; else black is outside;
* colours: the brightest channel.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from concept_cam.core.errors import ImageError
from concept_cam.pictures.limits import MAX_PIXELS
from concept_cam.pictures.reading import decoded, holds_16_bit_colours, opened

__all__ = ["read_mask_labels", "read_mask_picture", "read_raw_labels"]


def read_mask_picture(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a mask picture: bool [H, W], upright, True inside.

    Raises:
        ImageError: It cannot be read.
    """
    return np.asarray(read_mask_labels(path, max_pixels) != 0)


def read_mask_labels(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a mask picture's numbers: int64 [H, W], upright, 0 outside.

    Raises:
        ImageError: It cannot be read.
    """
    return _read(path, max_pixels, raw=False)


def read_raw_labels(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads the numbers as they are stored, palette indices included, transparent or not; of colours the first channel: int64 [H, W],
    upright.

    For data sets whose numbers have published meanings.

    Raises:
        ImageError: It cannot be read.
    """
    return _read(path, max_pixels, raw=True)


def _read(path: str | os.PathLike[str], max_pixels: int, *, raw: bool) -> np.ndarray:
    label = f"the mask {os.fspath(path)!r}"
    with opened(path, max_pixels) as image:
        if holds_16_bit_colours(image):
            raise ImageError(f"{label} holds colours of 16 bits, whose small numbers would be lost: save it in grey, or in 8 bits.")
        image, _, turn = decoded(image, max_pixels, label)
        try:
            values = _raw(image) if raw else _numbers(image, label)
        except ImageError:
            raise
        except Exception as error:  # values that a conversion cannot use
            raise ImageError(f"{label} cannot be read: {error}.") from error
    if turn is not None:
        values = _turned(values, turn)
    return values


def _raw(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    return np.asarray((values[..., 0] if values.ndim == 3 else values).astype(np.int64))


def _numbers(image: Image.Image, label: str) -> np.ndarray:
    if image.mode.startswith("F"):
        floats = np.asarray(image)
        if not np.isfinite(floats).all():
            raise ImageError(f"{label} holds NaN or infinity: expected numbers that are 0 outside.")
        whole = np.rint(floats)
        return (
            np.where(floats == whole, whole, 1).astype(np.int64)
            if np.abs(floats).max(initial=0) < 2**62
            else (floats != 0).astype(np.int64)
        )
    if image.mode == "P":
        numbers = _indices(image)
    elif image.mode in ("1", "L") or image.mode.startswith("I"):
        numbers = np.asarray(image).astype(np.int64)
    else:
        colours = image if image.mode == "RGB" else image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
        numbers = np.asarray(colours)[..., :3].max(axis=2).astype(np.int64)
    alpha = _alpha(image)
    return numbers if alpha is None else np.where(alpha > 0, numbers, 0)


def _indices(image: Image.Image) -> np.ndarray:
    indices = np.asarray(image).astype(np.int64)
    colours = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    used = np.unique(indices)
    black = {int(index) for index in used if index >= len(colours) or not colours[index].any()}
    if not black or not colours[0].any():
        return indices
    return np.where(np.isin(indices, list(black)), 0, np.maximum(indices, 1))


def _alpha(image: Image.Image) -> np.ndarray | None:
    if not image.has_transparency_data:
        return None
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode.startswith("I"):  # a PNG of 16-bit grey may name one value transparent
        clear = image.info.get("transparency")
        return None if clear is None else (np.asarray(image) != clear).astype(np.uint8)
    return np.asarray(image.convert("RGBA").getchannel("A"))


_TURNS: dict[Image.Transpose, Any] = {
    Image.Transpose.FLIP_LEFT_RIGHT: lambda values: values[:, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda values: values[::-1],
    Image.Transpose.ROTATE_90: lambda values: np.rot90(values, 1),
    Image.Transpose.ROTATE_180: lambda values: np.rot90(values, 2),
    Image.Transpose.ROTATE_270: lambda values: np.rot90(values, 3),
    Image.Transpose.TRANSPOSE: lambda values: values.T,
    Image.Transpose.TRANSVERSE: lambda values: values[::-1, ::-1].T,
}


def _turned(values: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    return np.ascontiguousarray(_TURNS[turn](values))
