"""Corrections between two frames: people draw on what they see, a specimen's box; corrections are kept in pixels of the whole picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from concept_cam.collection.corrections import Correction
from concept_cam.core.regions import decode_rle, encode_rle
from concept_cam.serve.gallery import GalleryPicture

__all__ = ["as_drawn", "as_kept"]


def as_kept(correction: Correction, entry: GalleryPicture) -> Correction:
    """Returns a correction that was drawn on a specimen in the frame of its picture; that of a whole picture as it is."""
    if entry.box is None:
        return correction
    left, top, width, height = entry.box
    mask = None
    if correction.mask is not None:
        whole = np.zeros(entry.whole, dtype=bool)
        whole[top : top + height, left : left + width] = decode_rle(correction.mask)
        mask = encode_rle(whole)
    return _moved(correction, left, top, mask)


def as_drawn(correction: Correction, entry: GalleryPicture | None) -> Correction:
    """Returns a kept correction in the frame of the specimen that it is about; the inverse of :func:`as_kept`.

    A region that was drawn on a picture of another size is left out.
    """
    if entry is None or entry.box is None:
        return correction
    left, top, width, height = entry.box
    mask = None
    if correction.mask is not None and tuple(correction.mask["size"]) == entry.whole:
        mask = encode_rle(decode_rle(correction.mask)[top : top + height, left : left + width])
    return _moved(correction, -left, -top, mask)


def _moved(correction: Correction, across: int, down: int, mask: dict[str, object] | None) -> Correction:
    boxes = tuple((x0 + across, y0 + down, x1 + across, y1 + down) for x0, y0, x1, y1 in correction.boxes)
    clicks = tuple((x + across, y + down, sign) for x, y, sign in correction.clicks)
    return replace(correction, mask=mask, boxes=boxes, clicks=clicks)
