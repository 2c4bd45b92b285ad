"""A second look: the best regions of a picture are read again, twice as finely, and their maps merged with those of the first look.

A part that is narrower than a few cells is told by the one or two cells that it covers in part. Read again at twice the resolution it
covers four times as many, at the price of one more pass of the tower for each window. The windows' cells lie exactly within those of the
first look, so that the merged maps have one exact grid.

What is merged are the cosines with each text, not the features: a mean of maps, weighted by map. So a narrow part's map may follow the
second look and a wide one's the first, which sees it better; scores stay linear in the texts, and the ledger splits them as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from concept_cam.core.directions import DirectionSet
from concept_cam.core.features import Look, PatchFeatures
from concept_cam.core.resampling import denser
from concept_cam.core.scoring import FEATURE_NORM
from concept_cam.pictures.preprocessing import Preprocess
from concept_cam.pictures.resizing import closer, taper

__all__ = ["MOST_WINDOWS", "ZOOM", "SecondLook", "best_region", "chosen_windows", "coarser", "depth", "look_again"]

ZOOM = 2
"""Cells of the second look along a cell of the first."""

MOST_WINDOWS = 6
"""Windows of one picture at most."""

WINDOW = 0.5
"""Size of a window along each axis, as a share of the tower's input, for towers that read inputs of any size: windows as large as the input
cost twice as much and find nothing more."""

NARROW = 2
"""Regions no cell of which lies deeper than this are read again; for wider ones the first look sees well enough."""

LEAST_GAIN = 0.2
"""A window must read this much of one region, or as much of several together, that no other window reads."""

WEIGHTS = {1: 1.0}
"""Weight of a second look in the map of a region by its depth in cells, against 1 of the first look."""

WIDE_WEIGHT = 1 / 3
"""The same for all deeper regions."""


def best_region(scores: np.ndarray, valid: np.ndarray) -> np.ndarray | None:
    """Finds the region about a map's peak: what is connected (8 neighbours) with the best cell, and higher than half way from the map's
    median to its best score.

    Args:
        scores: float32 [h, w].
        valid: bool [h, w], cells that may be read.

    Returns:
        bool [h, w]; ``None`` for a constant map, which has none.
    """
    seen = np.where(valid & np.isfinite(scores), scores, -np.inf)
    known = seen[np.isfinite(seen)]
    if not known.size or known.max() <= np.median(known):
        return None
    labels, _ = ndimage.label(seen > (np.median(known) + known.max()) / 2, structure=np.ones((3, 3)))
    return np.asarray(labels == labels.flat[int(seen.argmax())])


def coarser(cells: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Returns bool [h, w]: the cells of a grid that hold any of the marked cells of an equal or finer one."""
    times = cells.shape[0] // grid[0]
    return np.asarray(cells.reshape(grid[0], times, grid[1], times).any(axis=(1, 3)))


def depth(region: np.ndarray) -> int:
    """Returns how deep the deepest cell of a region bool [h, w] lies in it: 1 where every cell has a neighbour outside.

    What lies beyond the picture's edge counts as outside.
    """
    return int(ndimage.distance_transform_cdt(np.pad(region, 1), metric="chessboard").max())


# ---------------------------------------------------------------------------------------------------------------- reading


def look_again(
    features: Sequence[PatchFeatures],
    maps: Sequence[np.ndarray],
    pictures: Sequence[np.ndarray],
    valids: Sequence[np.ndarray],
    preprocess: Preprocess,
    window: tuple[int, int] | None,
    forward: Callable[[Tensor, np.ndarray], Tensor],
    step: int,
) -> list[PatchFeatures]:
    """Reads the best narrow regions of pictures again; windows of several pictures share forward passes.

    Args:
        features: What the first look saw.
        maps: Per picture its maps float32 [C, h, w].
        pictures: The upright pictures uint8 [H, W, 3], or smaller copies of them.
        valids: Per picture the cells that may be read, bool [h, w].
        preprocess: What the checkpoint expects.
        window: Cells ``(h', w')`` that the tower takes at once; ``None`` for those of each picture's own grid.
        forward: Inputs float32 [B, 3, H', W'] and their valid cells bool [B, h', w'] to patch features [B, h', w', D].
        step: Windows of a forward pass.

    Returns:
        The same features with ``looks``; none where nothing narrow stands out.
    """
    queues: dict[tuple[int, ...], list[tuple[int, tuple[int, int], Tensor, np.ndarray]]] = {}
    for number, (item, own, valid) in enumerate(zip(features, maps, valids)):
        regions = [region for scores in own if (region := best_region(scores, valid)) is not None and depth(region) <= NARROW]
        size = item.geometry.grid if window is None else window
        if preprocess.flexible:
            size = max(1, round(WINDOW * size[0])), max(1, round(WINDOW * size[1]))
        corners = chosen_windows(np.stack(regions), size) if regions else ()
        if not corners:
            continue
        pixels, shown = closer(pictures[number], item.geometry, preprocess, ZOOM, corners, size)
        fine = valid.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
        for place, (row, column) in enumerate(corners):
            seen = fine[row : row + size[0], column : column + size[1]]
            shown[place, : seen.shape[0], : seen.shape[1]] &= seen
            if shown[place].any():
                queues.setdefault(tuple(pixels.shape[1:]), []).append((number, (row, column), pixels[place], shown[place]))
    looks: list[list[Look]] = [[] for _ in features]
    for queue in queues.values():
        for start in range(0, len(queue), step):
            batch = queue[start : start + step]
            found = forward(torch.stack([pixels for _, _, pixels, _ in batch]), np.stack([shown for *_, shown in batch]))
            for (number, corner, _, cells), patches in zip(batch, found):
                looks[number].append(Look(corner, patches, torch.from_numpy(cells).to(patches.device)))
    return [replace(item, looks=tuple(own)) for item, own in zip(features, looks)]


def chosen_windows(regions: np.ndarray, cells: tuple[int, int], most: int = MOST_WINDOWS) -> tuple[tuple[int, int], ...]:
    """Chooses the windows that together read most of the regions, best first.

    A window reads its middle well, and its edges, where the tower knows least of the surroundings, less and less. A region's gain is the
    mean over its cells of how well they are read, beyond what windows chosen before do.

    Args:
        regions: bool [N, h, w] in cells of the first look.
        cells: ``(h', w')`` of a window, in cells of the second look.
        most: Windows at most.

    Returns:
        ``(row, column)`` of the windows' corners, in cells of the second look.
    """
    fine = regions.repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)
    frame = fine.shape[1], fine.shape[2]
    shares = (fine / fine.sum(axis=(1, 2), keepdims=True)).sum(axis=0)
    middles = [(float(rows.mean()) + 0.5, float(columns.mean()) + 0.5) for rows, columns in map(np.nonzero, fine)]
    middles += [place for region in fine for place in _along(region, cells)]
    candidates = sorted({_corner(middle, cells, frame) for middle in middles})
    weights = [_legible(corner, cells, frame) for corner in candidates]
    best = np.zeros(frame, dtype=np.float32)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < most:
        gains = [float(((np.maximum(best, weight) - best) * shares).sum()) for weight in weights]
        number = int(np.argmax(gains))
        if gains[number] < LEAST_GAIN:
            break
        chosen.append(candidates[number])
        best = np.maximum(best, weights[number])
    return tuple(chosen)


def _along(region: np.ndarray, cells: tuple[int, int]) -> list[tuple[float, float]]:
    """Middles of windows along a region that is longer than half a window, half a window apart."""
    places = np.nonzero(region)
    found = []
    for axis in (0, 1):
        if np.ptp(places[axis]) + 1 > cells[axis] / 2:
            order = np.argsort(places[axis], kind="stable")
            along = np.arange(places[axis].min() + cells[axis] / 4, places[axis].max() + cells[axis] / 4, cells[axis] / 2)
            nearest = order[np.minimum(np.searchsorted(places[axis][order], along), len(order) - 1)]
            found += [(float(places[0][place]) + 0.5, float(places[1][place]) + 0.5) for place in nearest]
    return found


def _corner(middle: tuple[float, float], cells: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """The corner of the window about a place that does not leave the frame."""
    row, column = (min(max(round(middle[axis] - cells[axis] / 2), 0), max(0, frame[axis] - cells[axis])) for axis in (0, 1))
    return row, column


def _legible(corner: tuple[int, int], cells: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """How well a window reads each cell of the second look, float32 [h'', w''] over the whole frame: 1 in its inner half."""
    weight = np.zeros(frame, dtype=np.float32)
    part = weight[corner[0] : corner[0] + cells[0], corner[1] : corner[1] + cells[1]]
    part[:] = np.outer(*(np.minimum(2 * taper(count), 1) for count in cells))[: part.shape[0], : part.shape[1]]
    return weight


# ---------------------------------------------------------------------------------------------------------------- merging


class SecondLook:
    """The merged maps of one picture that was looked at again; called with a concept's number, it splits that map by text.

    In each cell of the finer grid a concept's map is the weighted mean of the first look's, interpolated between cell centres (cubic), and
    of those of the windows that show the cell. The first look weighs 1. A window weighs 1 where the concept's best region is one cell deep
    and :data:`WIDE_WEIGHT` where it is deeper, and fades towards its own edges.

    Args:
        features: What both looks saw.
        texts: The concepts' texts.
        terms: float32 [C, 1 + R], the coefficients of the maps.
        maps: float32 [C, h, w], the maps of the first look.
        feature_norm: How patch features are normalised.

    Attributes:
        geometry: Frames of the merged maps.
    """

    def __init__(self, features: PatchFeatures, texts: DirectionSet, terms: Tensor, maps: np.ndarray, feature_norm: str) -> None:
        self._features, self._texts, self._terms, self._maps = features, texts, terms, maps
        self._norm = FEATURE_NORM[feature_norm]
        self.geometry = features.geometry.with_grid((features.geometry.grid[0] * ZOOM, features.geometry.grid[1] * ZOOM))

    @cached_property
    def _plain(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Products with the unique texts: of the first look, on the finer grid [U, h'', w''], and of each window [U, h', w']."""
        first = torch.einsum("hwd,ud->uhw", self._norm(self._features.patches), self._texts.texts).cpu().numpy()
        down, across = denser(self._features.geometry, ZOOM)
        looks = self._features.looks or ()
        windows = [torch.einsum("hwd,ud->uhw", self._norm(look.patches), self._texts.texts).cpu().numpy() for look in looks]
        return down @ first @ across.T, windows

    @cached_property
    def _depths(self) -> list[int]:
        valid = self._features.geometry.valid()
        regions = [best_region(scores, valid) for scores in self._maps]
        return [0 if region is None else depth(region) for region in regions]

    @cached_property
    def _fadings(self) -> list[np.ndarray]:
        looks = self._features.looks or ()
        return [np.outer(*map(taper, look.shown.shape)) * look.shown.cpu().numpy() for look in looks]

    def cosines(self, index: int) -> np.ndarray:
        """Returns the merged products with a concept's texts, target first: float32 [1 + R, h'', w'']."""
        rows = self._texts.columns[index][self._texts.used[index]].cpu().numpy()
        first, windows = self._plain
        total = first[rows]
        weights = np.ones(self.geometry.grid, dtype=np.float32)
        share = WEIGHTS.get(self._depths[index], WIDE_WEIGHT)
        for look, plain, fading in zip(self._features.looks or (), windows, self._fadings):
            place = self._place(look)
            own = share * fading[: weights[place].shape[0], : weights[place].shape[1]]
            total[:, *place] += own * plain[rows][:, : own.shape[0], : own.shape[1]]
            weights[place] += own
        return np.asarray(total / weights, dtype=np.float32)

    @staticmethod
    def _place(look: Look) -> tuple[slice, slice]:
        rows, columns = look.shown.shape
        return slice(look.corner[0], look.corner[0] + rows), slice(look.corner[1], look.corner[1] + columns)

    def __call__(self, index: int) -> np.ndarray:
        """Splits a concept's merged map by text: float32 [1 + R, h'', w'']; the terms sum to the map."""
        weights = self._terms[index][self._texts.used[index]].cpu().numpy()
        return np.asarray(weights[:, None, None] * self.cosines(index), dtype=np.float32)

    def scores(self) -> np.ndarray:
        """Returns the merged maps, float32 [C, h'', w'']; NaN in padding."""
        found = np.stack([self(index).sum(axis=0) for index in range(len(self._maps))])
        return np.where(self.geometry.valid(), found, np.float32(np.nan))

    def shares(self, index: int, scores: np.ndarray, logit_scale: float) -> np.ndarray:
        """Returns the softmax over a concept's target and contrasts where a map of it is highest, float32 [1 + R].

        Args:
            index: The concept.
            scores: float32 [h'', w''], its merged map; NaN where nothing may be read.
            logit_scale: The model's temperature.
        """
        best = int(np.where(np.isfinite(scores), scores, -np.inf).argmax())
        logits = logit_scale * self.cosines(index).reshape(-1, scores.size)[:, best].astype(np.float64)
        shares = np.exp(logits - logits.max())
        return np.asarray(shares / shares.sum(), dtype=np.float32)
