"""What a call was given as pictures: one or several, and the picture that lies beside features.

Whatever can be iterated over yields something: an array its rows of pixels, a path its letters. So it is decided here, and in one place,
what is one picture and what are several.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
from PIL import Image

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.pictures.reading import Picture, is_tensor

__all__ = ["pictures_in", "pixels_of", "several_pictures", "spoken"]


def several_pictures(images: object) -> list[Any] | None:
    """Returns several pictures as a list: of a list or tuple its items, of a 4-D array or tensor its pictures; ``None`` for a single
    picture.
    """
    if isinstance(images, (list, tuple)):
        return list(images)
    batch = cast("np.ndarray | None", images if isinstance(images, np.ndarray) or is_tensor(images) else None)
    return list(batch) if batch is not None and batch.ndim == 4 else None


def pictures_in(images: object, call: str) -> list[Any]:
    """Returns the pictures that a call was given which takes several: those of :func:`several_pictures`, or of anything else that can be
    iterated over and is no picture, such as a generator of paths or a torch ``Dataset``.

    Args:
        images: What was given.
        call: The call, for the message.

    Raises:
        ConfigurationError: A single picture was given, or what holds none.
    """
    several = several_pictures(images)
    if several is not None:
        return several
    names = isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "OU"  # paths, as tables hold them
    if not names and _is_picture(images):
        raise ConfigurationError(f"{call} takes several pictures, received a single one, {spoken(images)}: give it in a list, [picture].")
    try:
        # Asked, and not looked up: what has items by number alone, as a torch Dataset, can be gone through without saying so.
        items = None if isinstance(images, Mapping) else iter(cast("Iterable[Any]", images))
    except TypeError:
        items = None
    if items is None:
        raise ConfigurationError(
            f"{call} takes several pictures, received {spoken(images)}: expected a list of pictures, or a batch [B, H, W, 3]."
        )
    return list(items)


def _is_picture(value: object) -> bool:
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Picture)
    return isinstance(value, kinds) or is_tensor(value) or hasattr(value, "read")


def pixels_of(picture: object, geometry: Geometry) -> np.ndarray:
    """Returns the pixels of the picture that lies beside features or maps of it, uint8 [H, W, 3].

    Args:
        picture: A picture that was read, or its pixels; or a smaller copy of it.
        geometry: Frames of the picture that the features or maps are of.

    Raises:
        ConfigurationError: It was not read, or has another shape than the picture that was encoded.
    """
    height, width = geometry.original
    expected = f"uint8 [{height}, {width}, 3], the pixels of the picture that was encoded, or a smaller copy of it"
    pixels = picture.pixels if isinstance(picture, Picture) else picture
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ConfigurationError(
            f"a map is read beside the picture itself, received {spoken(picture)}: expected {expected}. Give read_image(picture)."
        )
    if not _same_shape(pixels.shape[:2], (height, width)):
        raise ConfigurationError(
            f"received a picture of {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width) beside what was encoded of one of "
            f"{height} x {width}: expected {expected}. Give the pictures in the order of their features."
        )
    return pixels


def _same_shape(size: tuple[int, ...], original: tuple[int, int]) -> bool:
    """Whether a size is that of a copy, up to a pixel that was rounded away in either."""
    times = size[0] / original[0], size[1] / original[1]
    return any(abs(size[1 - axis] - original[1 - axis] * times[axis]) <= 1 + times[axis] for axis in (0, 1))


def spoken(value: object) -> str:
    """Names what was given in one short phrase: shape and type of an array, type and value of what is short."""
    if isinstance(value, np.ndarray) or is_tensor(value):
        array = cast("np.ndarray", value)
        return f"{type(value).__name__} {array.dtype} {list(array.shape)}"
    if isinstance(value, Picture):
        return f"a Picture of {value.size[0]} x {value.size[1]} pixels"
    if isinstance(value, Image.Image):
        return f"a Pillow image of {value.height} x {value.width} pixels"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{reprlib.repr(value)} ({type(value).__name__})"
