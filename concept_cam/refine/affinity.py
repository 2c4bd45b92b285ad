"""Patch affinity: places that look alike to a tower share their scores, so that a map fills the thing it lies on and stops at its border.

A joint bilateral filter (Petschnigg et al., "Digital Photography with Flash and No-Flash Image Pairs", SIGGRAPH 2004; Kopf et al., "Joint
Bilateral Upsampling", SIGGRAPH 2007) whose guide are patch features, as ProxyCLIP (Lan et al., ECCV 2024) and CorrCLIP (Zhang et al., ICCV
2025) take DINO's for the maps of CLIP. Here it comes after the subtraction, on the signed map.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.lite import LiteBackbone
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.quiet import quiet
from concept_cam.core.resampling import axis_matrix
from concept_cam.pictures.reading import Picture
from concept_cam.pictures.resizing import prepare
from concept_cam.refine.scene import Scene

__all__ = ["EARLY", "REACH", "TEMPERATURE", "SecondTower", "joint_bilateral", "within_tower"]

REACH = 2.0
"""How far scores spread, in cells of the map."""

TEMPERATURE = 0.1
"""By how much cosines must differ for a neighbour's weight to fall by a factor of e."""


NEIGHBOURS = 9
"""Places along an axis that a place looks at."""

DENSEST = 4
"""Places along a cell of the map at most, where another tower sees more finely."""

EARLY = "early"
"""Stands for the early maps of the bundled model's backbone, four pixels a place, in place of another tower's name."""


def within_tower(maps: Tensor, scene: Scene) -> Tensor:
    """Spreads scores [C, h, w] among like cells of the tower itself: [C, H, W]; see :data:`concept_cam.refine.REFINERS`.

    Raises:
        ConfigurationError: The features are not at hand.
    """
    if scene.features is None:
        raise ConfigurationError(
            "the affinity of the tower itself needs its patch features, which this method does not give: name another tower, such as "
            f"affinity:{EARLY}."
        )
    valid = torch.from_numpy(scene.valid).to(scene.device)
    found = joint_bilateral(maps, scene.features.to(scene.device).movedim(-1, 0), valid, round(REACH * scene.seen))
    return scene.enlarge(found)


class SecondTower:
    """Spreads scores among places that look alike to another image tower.

    Args:
        name: A model that :func:`concept_cam.backbones.load` loads, text tower or not, or :data:`EARLY`.
        device: Where it runs.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        from concept_cam import backbones

        self._early = name == EARLY
        self._tower = backbones.load("demo" if self._early else name, device=device)

    def __call__(self, maps: Tensor, scene: Scene) -> Tensor:
        """Maps [C, h, w] to [C, H, W]."""
        features, geometry = self._look(scene)
        density = min(DENSEST, max(1, round(min(a / b for a, b in zip(scene.geometry.cell_original, geometry.cell_original)))))
        fine = scene.denser(density)
        guide = _carried(features, geometry, fine.geometry).to(maps.device)
        valid = torch.from_numpy(fine.valid).to(maps.device)
        return fine.enlarge(joint_bilateral(scene.on_denser_cells(maps, density), guide, valid, round(REACH * fine.seen)))

    @quiet(graph=False)
    def _look(self, scene: Scene) -> tuple[Tensor, Geometry]:
        """Returns the tower's patch features float [D, h, w] of the picture, and their frames."""
        tower = self._tower
        prepared = prepare(Picture(scene.picture), tower.preprocess, "aspect" if tower.preprocess.flexible else "squash")
        pixels = prepared.pixels[None].to(tower.device, tower.dtype)
        if isinstance(tower, LiteBackbone) and self._early:
            found = tower.early(pixels)[0]
            return found, prepared.geometry.with_grid((found.shape[1], found.shape[2]))
        return tower.encode_patches(pixels).patches[0].float().movedim(-1, 0), prepared.geometry


def _carried(features: Tensor, source: Geometry, target: Geometry) -> Tensor:
    """Interpolates features [D, h, w] of one grid over a picture at the cells of another, [D, h', w']."""
    matrices = []
    for axis in (0, 1):
        model = (np.arange(target.grid[axis]) + 0.5) * target.cell[axis]
        original = (model - target.offset[axis]) / target.scale[axis]
        place = (original * source.scale[axis] + source.offset[axis]) / source.cell[axis] - 0.5
        matrix = axis_matrix("bilinear", place, 0, source.grid[axis] - 1, source.grid[axis])
        matrices.append(torch.from_numpy(matrix).to(features.device))
    return matrices[0] @ features.float() @ matrices[1].T


def joint_bilateral(maps: Tensor, features: Tensor, valid: Tensor, reach: int, temperature: float = TEMPERATURE) -> Tensor:
    """Takes at each place the mean of the maps around it, weighted by how much the features there resemble its own.

    ``s'_i = sum_j w_ij s_j / sum_j w_ij`` over the places within ``reach`` along both axes, ``w_ij = exp((cos(f_i, f_j) - 1) / T)``. Where
    there are more than :data:`NEIGHBOURS` along an axis, so many that are evenly spread are looked at.

    Args:
        maps: float [C, h, w].
        features: float [D, h, w], not normalised.
        valid: bool [h, w]; other places have no say.
        reach: In places.
        temperature: ``T``.

    Returns:
        float32 [C, h, w]; zero where nothing near is valid.
    """
    steps = sorted({round(step) for step in np.linspace(-reach, reach, min(2 * reach + 1, NEIGHBOURS))})
    unit = F.normalize(features.float(), dim=0)
    height, width = valid.shape
    weight = valid.float()
    padding = (reach, reach, reach, reach)
    around = F.pad(unit, padding), F.pad(weight[None], padding)[0], F.pad(torch.nan_to_num(maps.float()), padding)
    total = torch.zeros_like(weight)
    spread = torch.zeros(maps.shape, dtype=torch.float32, device=maps.device)
    for down in steps:
        for across in steps:
            place = slice(reach + down, reach + down + height), slice(reach + across, reach + across + width)
            alike = torch.einsum("dhw,dhw->hw", around[0][:, *place], unit)
            share = torch.exp((alike - 1) / temperature) * around[1][place]
            total += share
            spread += share * around[2][:, *place]
    return spread / total.clamp(min=torch.finfo(torch.float32).tiny)
