"""Maps of parts whose place was named: the cells that do not belong to it are left out. See :mod:`concept_cam.core.placing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from concept_cam.core.concept import Where
from concept_cam.core.geometry import Geometry
from concept_cam.core.placing import BodyPlan, Orientation, Place, orient, part_masks, resolve
from concept_cam.core.resampling import filled, grid_to_pixels

__all__ = ["PartMaps", "PlacedMaps", "place_maps"]

CELL_PIXELS = 4
"""Pixels that a patch is wide where a body is looked at: what is told by patches needs no more."""

MOST_PIXELS = 640
"""Longest side of a picture in which a body is looked at."""

THERE = 0.5
"""Least probability, against its contrasts at its best cell, of a part that says how a body lies."""


@dataclass(frozen=True)
class PartMaps:
    """What a model says of the parts of a body plan.

    Attributes:
        names: Their names in the plan, length P.
        scores: float32 [P, h, w]; NaN where nothing may be read.
        probabilities: float [P], of each against its contrasts at its best cell; 1 where it has none.
        geometry: Frames of the picture.
    """

    names: tuple[str, ...]
    scores: np.ndarray
    probabilities: np.ndarray
    geometry: Geometry


@dataclass(frozen=True)
class PlacedMaps:
    """Maps after their places were looked for.

    Attributes:
        scores: float32 [C, h, w]; NaN outside a place that could be told.
        places: What became of each place, by number of the concept.
        cells: bool [h, w], the cells of each place that could be told, by number of the concept.
    """

    scores: np.ndarray
    places: Mapping[int, Place]
    cells: Mapping[int, np.ndarray]


def place_maps(scores: np.ndarray, geometry: Geometry, wheres: Mapping[int, Where], bodies: Mapping[BodyPlan, PartMaps]) -> PlacedMaps:
    """Leaves out of the maps of parts whose place was named what does not belong to that place.

    Args:
        scores: float32 [C, h, w]; NaN where nothing may be read.
        geometry: Frames of the picture.
        wheres: Which of several is meant, by number of the concept.
        bodies: What the model says of the parts of each plan; a plan that is missing says nothing.

    Returns:
        The maps; those whose place could not be told are as they were, and say why.
    """
    size = small_size(geometry)
    masks = {plan: _masks(parts, plan, size) for plan, parts in bodies.items()}
    lies = {plan: orient(found, plan, size) for plan, found in masks.items()}
    nowhere = Orientation(None, np.array([size[1] / 2, size[0] / 2]))
    found, places, cells = scores.copy(), {}, {}
    small = geometry.resized(size)
    for number, where in wheres.items():
        if where.unread:
            places[number] = Place(where.place, False, "", where.unread, nowhere)
            continue
        own = scores[number]
        heat = grid_to_pixels(filled(own[None])[0], small) if np.isfinite(own).any() else np.full(size, np.nan, np.float32)
        others = None
        if where.part in where.plan.parts:
            others = {name: mask for name, mask in masks.get(where.plan, {}).items() if name != where.part}
        places[number], pixels = resolve(where.place, heat, lies.get(where.plan, nowhere), where.plan, where.part, others)
        meant = None if pixels is None else _cells(pixels, small) & np.isfinite(own)
        if meant is not None and not meant.any():
            places[number], meant = replace(places[number], resolved=False, reason="what is meant is smaller than a cell."), None
        if meant is not None:
            cells[number] = meant
            found[number] = np.where(cells[number], own, np.float32(np.nan))
    return PlacedMaps(found, places, cells)


def small_size(geometry: Geometry) -> tuple[int, int]:
    """Returns ``(H, W)`` of the picture as small as its patches allow."""
    full = geometry.original
    ratio = min(1.0, CELL_PIXELS / min(geometry.cell_original), MOST_PIXELS / max(full))
    return max(1, round(full[0] * ratio)), max(1, round(full[1] * ratio))


def _masks(parts: PartMaps, plan: BodyPlan, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The pixels of the parts that are there; each goes to the part that it is most like."""
    from scipy.ndimage import label

    small = parts.geometry.resized(size)
    there = [
        number
        for number, map_ in enumerate(parts.scores)
        if parts.probabilities[number] >= THERE and np.isfinite(map_).any() and float(np.nanmax(map_)) > 0
    ]
    if not there:
        return {}
    heats = {parts.names[number]: grid_to_pixels(map_, small) for number, map_ in zip(there, filled(parts.scores[there]))}
    masks = part_masks(heats)
    # Of an insect's small parts there is one each: where its map is highest. A trunk may be cut in two by a fin.
    for name in plan.along if plan.sides else ():
        if name in masks and masks[name].any():
            areas, _ = label(masks[name], np.ones((3, 3), dtype=bool))
            masks[name] = areas == areas.flat[np.where(masks[name], heats[name], -np.inf).argmax()]
    return masks


def _cells(pixels: np.ndarray, small: Geometry) -> np.ndarray:
    """The cells of the grid whose middle lies on one of the pixels, bool [h, w]."""
    rows, columns = small.grid
    middles = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1)
    x, y = np.moveaxis(small.grid_to_original(middles), -1, 0)
    column = np.clip(x.astype(int), 0, pixels.shape[1] - 1)
    row = np.clip(y.astype(int), 0, pixels.shape[0] - 1)
    return np.asarray(pixels[row, column])
