"""From a score map to a region and its measures, fast and with uncertainties. Plain numpy, scipy and scikit-image.

A region is found and measured at the resolution at which the model saw the picture and mapped to the original frame; on a photograph of 20
megapixels that is a hundred times less work, and no evidence is lost, since the map holds one number per patch anyway.

Uncertainty: nothing finer than one patch was seen, so each edge of a region is known to one patch. Of a length that is one patch along it
(in original pixels); areas, angles and ratios follow by first-order propagation. Of something under two patches nothing can be said: null.
Lengths of the body (:func:`measure_distances`) run from one border to another, each known to one patch, and state the two together; where
the maps let the border be read in several ways, that of the head's length holds how far these lie apart. An eye's diameter reaches down to
one patch: smaller eyes have fainter and wider maps, so that one of a patch can come out four patches wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np

from concept_cam.core.frame import Length, exclusive_masks, measure_bodies
from concept_cam.core.geometry import Geometry
from concept_cam.core.lengths import LENGTHS, measure_lengths
from concept_cam.core.placed_maps import small_size
from concept_cam.core.regions import DEFAULT_THRESHOLD, RESOLUTIONS, Frame, PictureMaps, Shape, find_shapes_of_all
from concept_cam.core.resampling import Enlargement, filled

__all__ = [
    "RESOLUTIONS",
    "Area",
    "Body",
    "Distance",
    "Frame",
    "cell_coverage",
    "find_area",
    "find_areas",
    "measure_all_distances",
    "measure_distances",
    "uncertainties",
]


@dataclass(frozen=True)
class Area:
    """The region of one entity, original frame of the whole picture.

    Attributes:
        box: ``(x, y, width, height)``, integers.
        count: Number of connected areas.
        pixels: Pixels in the region.
        rle: COCO run-length encoding of the whole picture.
        contours: Outlines, each flat ``x0, y0, x1, y1 ...``, float32.
        centroid: ``(x, y)``.
        values: Measures by the names of :data:`concept_cam.collection.schema.MEASURES`, pixels and degrees.
        errors: Their uncertainties and ``centroid``'s; a name is missing where none can be stated.
    """

    box: tuple[int, int, int, int]
    count: int
    pixels: int
    rle: Mapping[str, object]
    contours: tuple[np.ndarray, ...]
    centroid: tuple[float, float]
    values: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True)
class Distance:
    """A length along or across a body.

    Attributes:
        length: Pixels.
        error: Its uncertainty; ``None`` below two patches.
        line: ``x0, y0, x1, y1 ...`` of what was measured, original frame of the whole picture; bent where the body is.
    """

    length: float
    error: float | None
    line: tuple[float, ...]


# --------------------------------------------------------------------------------------------------------------- regions


def find_areas(
    pictures: Sequence[PictureMaps],
    cells: Sequence[tuple[float, float] | None] = (),
    *,
    threshold: str | float = DEFAULT_THRESHOLD,
    resolution: str = "model",
    areas: int = 1,
    min_area: float = 0.0,
) -> list[list[tuple[Area | None, float]]]:
    """Finds and measures what stands out in score maps, all maps of all pictures in one pass.

    The options are those of :func:`concept_cam.core.regions.find_shapes_of_all`.

    Args:
        pictures: The maps of each picture.
        cells: Per picture the size ``(y, x)`` in original pixels of what the model saw as one, or ``None`` where that is a cell of the
            geometry's grid: an outline that was refined, or read again in part, is not taken to be known more exactly. None at all: the
            cells of the grids.

    Returns:
        Per picture and map the region, or ``None`` where nothing is above the threshold, and the threshold in score units.
    """
    found = find_shapes_of_all(pictures, threshold=threshold, resolution=resolution, areas=areas, min_area=min_area)
    seen = [cell or picture.geometry.cell_original for picture, cell in zip(pictures, cells or [None] * len(pictures))]
    shapes = [(shape, count, cell) for own, cell in zip(found, seen) for shape, count, _ in own if shape is not None]
    made = (
        _area(shape, count, cell, contours) for (shape, count, cell), contours in zip(shapes, _contours([shape for shape, _, _ in shapes]))
    )
    return [[(None if shape is None else next(made), limit) for shape, _, limit in own] for own in found]


def find_area(
    scores: np.ndarray, geometry: Geometry, frame: Frame, hidden: np.ndarray | None = None, **options: Any
) -> tuple[Area | None, float]:
    """Finds and measures what stands out in one map float32 [h, w]; see :func:`find_areas`."""
    return find_areas([PictureMaps(scores[None], geometry, frame, hidden)], **options)[0][0]


def _contours(shapes: Sequence[Shape]) -> list[list[np.ndarray]]:
    """The outlines of each shape as a table keeps them: flat, float32, to a hundredth of a pixel."""
    if not shapes:
        return []
    outlines = [outline for shape in shapes for outline in shape.contours]
    points = np.round(np.concatenate(outlines), 2).astype(np.float32).ravel()
    pieces = iter([points[2 * low : 2 * high] for low, high in pairwise(np.cumsum([0, *map(len, outlines)]).tolist())])
    return [[next(pieces) for _ in shape.contours] for shape in shapes]


def _area(shape: Shape, count: int, cell: tuple[float, float], contours: Sequence[np.ndarray]) -> Area:
    values = dict(shape.measures)
    centroid = values.pop("centroid_x"), values.pop("centroid_y")
    size = shape.width, shape.height
    return Area(
        box=(shape.box[0], shape.box[1], *size),
        count=count,
        pixels=shape.area,
        rle=shape.rle,
        contours=tuple(contours),
        centroid=centroid,
        values=values,
        errors=uncertainties(values, size, cell),
    )


# --------------------------------------------------------------------------------------------------------- uncertainties


def uncertainties(values: Mapping[str, float], box: tuple[float, float], cell: tuple[float, float]) -> dict[str, float]:
    """States what one patch means for each measure of a region.

    Args:
        values: ``area``, ``length``, ``width``, ``orientation``, ``extent``, ``eccentricity``, ``solidity``; pixels and degrees.
        box: ``(width, height)`` of the region's box, pixels.
        cell: ``(y, x)`` size of one patch in original pixels.

    Returns:
        Name -> uncertainty in the measure's own unit, and ``centroid``; names are left out where the region is under two patches.
    """
    length, width = values["length"], values["width"]
    angle = math.radians(values["orientation"])
    along = math.hypot(cell[1] * math.cos(angle), cell[0] * math.sin(angle))
    across = math.hypot(cell[1] * math.sin(angle), cell[0] * math.cos(angle))
    known: dict[str, float] = {}
    if length >= 2 * along:
        known["length"] = along
        known["orientation"] = math.degrees(math.atan2(across, length))
        known["centroid"] = max(along, across)
    if width >= 2 * across:
        known["width"] = across
    if "length" in known and "width" in known:
        known["area"] = along * width + across * length
        known["extent"] = min(1.0, values["extent"] * (cell[1] / box[0] + cell[0] / box[1]))
        relative = along / length + across / width
        known["solidity"] = min(1.0, values["solidity"] * relative)
        ratio = math.sqrt(max(0.0, 1 - values["eccentricity"] ** 2))
        spread = ratio**2 * relative  # d e = r dr / e with r = width / length
        known["eccentricity"] = min(1.0, spread / values["eccentricity"] if values["eccentricity"] > 0 else 1.0)
    return known


# -------------------------------------------------------------------------------------------------------------- distances

NESTED = {
    "eye": "head",
    "mouth": "head",
    "operculum": "head",
    "lateral_line": "trunk",
    "thorax": "body",
    "abdomen": "body",
    "leaf_blade": "leaf",
    "petiole": "leaf",
    "leaf_tip": "leaf",
    "leaf_base": "leaf",
}
"""Parts that lie within another part of the body."""

INSTEAD = {"leaf": "leaf_blade"}
"""A whole that is little else than one part of it: where both are found their maps are alike, and sharing pixels out leaves shreds."""

_APART = {**{part: host for part, host in NESTED.items() if host not in INSTEAD}, "leaf_tip": "leaf_blade", "leaf_base": "leaf_blade"}

_SEVERAL = 0.1
"""Areas at least such a share of the largest are seen where lengths are told: one of several is no length of all."""


@dataclass(frozen=True, eq=False)
class Body:
    """A body that is to be measured.

    Attributes:
        names: Distances wanted, of :func:`concept_cam.core.frame.measure_body` and :func:`concept_cam.core.lengths.measure_lengths`.
        scores: Part -> float32 [h, w], grid frame, of the parts that were found; NaN where nothing may be read.
        geometry: Frames of the measured picture (the crop, for a specimen).
        frame: Where it lies in the whole picture.
        hidden: bool, any size: the measured picture's pixels that may not belong to a part.
        cell: Size ``(y, x)`` in original pixels of what the model saw as one; ``None`` for a cell of the geometry's grid.
    """

    names: Sequence[str]
    scores: Mapping[str, np.ndarray]
    geometry: Geometry
    frame: Frame
    hidden: np.ndarray | None = None
    cell: tuple[float, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` at which the parts are looked at."""
        return small_size(self.geometry)

    @property
    def stretch(self) -> np.ndarray:
        """``(x, y)``: original pixels that one of these is wide and high."""
        full, size = self.geometry.original, self.size
        return np.array([full[1] / size[1], full[0] / size[0]])

    @property
    def patch(self) -> tuple[float, float]:
        """``(y, x)`` size of what the model saw as one, in these pixels."""
        cell, stretch = self.cell or self.geometry.cell_original, self.stretch
        return cell[0] / stretch[1], cell[1] / stretch[0]

    def heats(self) -> dict[str, np.ndarray]:
        """Returns the map of each part in these pixels, float32 [H, W]; none where nothing is to be measured."""
        if not self.names or not self.scores:
            return {}
        size = self.size
        enlargement = Enlargement(filled(np.stack(list(self.scores.values()))), self.geometry.resized(size))
        pixels = enlargement.stack(range(len(self.scores)), 0, size[0], 0, size[1])
        return {part: pixels[:, number] for number, part in enumerate(self.scores)}

    def parts(self, heats: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the pixels of each part, bool [H, W]: its largest area; what lies within another keeps what that one's map wins of it."""
        return self._seen(exclusive_masks(heats, NESTED, spared=True))

    def several(self, heats: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the pixels of each part, bool [H, W]: all areas that are not small beside the largest; a blade in place of its leaf."""
        there = {part for part, heat in heats.items() if float(np.max(heat, initial=-np.inf, where=np.isfinite(heat))) > 0}
        own = {part: heat for part, heat in heats.items() if INSTEAD.get(part) not in there}
        # A host does take pixels from what lies within it: a thorax that keeps them, or a leaf's base, ends no better (tried on renders).
        return self._seen(exclusive_masks(own, _APART if len(own) < len(heats) else NESTED, least=_SEVERAL))

    def _seen(self, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.hidden is None:
            return parts
        size = self.size
        rows, columns = (
            np.minimum(((np.arange(side) + 0.5) * have / side).astype(int), have - 1) for side, have in zip(size, self.hidden.shape)
        )
        hidden = self.hidden[rows][:, columns]
        return {part: mask & ~hidden for part, mask in parts.items()}


def measure_distances(
    names: Sequence[str],
    scores: Mapping[str, np.ndarray],
    geometry: Geometry,
    frame: Frame,
    hidden: np.ndarray | None = None,
    cell: tuple[float, float] | None = None,
) -> dict[str, Distance]:
    """Measures one body along and across; see :class:`Body` and :func:`measure_all_distances`."""
    return measure_all_distances([Body(names, scores, geometry, frame, hidden, cell)])[0]


def measure_all_distances(bodies: Sequence[Body]) -> list[dict[str, Distance]]:
    """Measures bodies along and across, in one pass where it can be; what is found of one does not depend on the others.

    :mod:`concept_cam.core.frame` and :mod:`concept_cam.core.lengths` say how, and when nothing is.

    Returns:
        Per body: name -> distance, for those that can be measured.
    """
    heats = [body.heats() for body in bodies]
    parts = [body.parts(own) for body, own in zip(bodies, heats)]
    found = measure_bodies(parts, [body.patch for body in bodies], heats)
    return [
        _distances(body, along if LENGTHS.isdisjoint(body.names) else along | measure_lengths(body.several(own), body.patch)) if own else {}
        for body, own, along in zip(bodies, heats, found)
    ]


def _distances(body: Body, lengths: Mapping[str, Length]) -> dict[str, Distance]:
    """The lengths that are wanted, in the original frame of the whole picture."""
    stretch, corner = body.stretch, (body.frame.left, body.frame.top)
    scale = float(stretch.prod() ** 0.5)
    found = {}
    for name, measured in lengths.items():
        if name in body.names:
            line = np.round(measured.line * stretch + corner, 2)
            error = None if measured.error is None else measured.error * scale
            found[name] = Distance(measured.value * scale, error, tuple(line.ravel().tolist()))
    return found


# --------------------------------------------------------------------------------------------------------------- coverage


def cell_coverage(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Returns float64 [h, w] in 0..1: the share of what each grid cell shows of the picture that a mask covers.

    Args:
        mask: bool [H', W'], the whole original picture at any resolution.
        geometry: Frames of the picture.
    """
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    total[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)

    def edges(axis: int) -> np.ndarray:
        count, cell = geometry.grid[axis], geometry.cell[axis]
        model = np.arange(count + 1) * cell
        original = (model - geometry.offset[axis]) / geometry.scale[axis]
        return cast("np.ndarray", np.clip(original, 0, geometry.original[axis]) * mask.shape[axis] / geometry.original[axis])

    def sample(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        low = np.minimum(at.astype(int), len(values) - 2)
        share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(values[low] * (1 - share) + values[low + 1] * share)

    rows, columns = edges(0), edges(1)
    integral = sample(sample(total, rows).T, columns).T
    covered = np.diff(np.diff(integral, axis=0), axis=1)
    shown = np.outer(np.diff(rows), np.diff(columns))
    return np.where(shown > 1e-9, covered / np.maximum(shown, 1e-9), 0.0)
