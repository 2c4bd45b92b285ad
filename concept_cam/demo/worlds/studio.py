"""From a painted specimen to a photograph, for rooms that draw one picture after the other: ground, objects, shadow, light and camera."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.photograph import Exposure, develop, exposure, tone
from concept_cam.demo.worlds.sampling import colours, columns
from concept_cam.demo.worlds.scenes import Scenery, ground, ground_reading, lay_objects, light_field, scenery, shadow
from concept_cam.demo.worlds.textures import atlas

_CPU = torch.device("cpu")


def generator(draws: Draws, row: int, name: str) -> np.random.Generator:
    """A stream of random numbers of its own for one picture, by name: for what needs a number of them that differs from picture to picture.

    Give each thing that is drawn a stream, so that twins keep the rest.
    """
    return np.random.default_rng([int(draws.seed[row]), int(draws.index[row]), zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Studio:
    """Grounds, light and camera of B pictures.

    Attributes:
        scenery: the common grounds.
        exposure: camera settings.
        size: (H, W).
    """

    scenery: Scenery
    exposure: Exposure
    size: tuple[int, int]

    @classmethod
    def of(cls, draws: Draws, scene: npt.NDArray[np.int64], size: tuple[int, int]) -> Studio:
        """Settings of every picture; `scene` int64 [B], numbers in `family.SCENES`."""
        return cls(scenery(draws, scene), exposure(draws), size)

    def base(self, i: int) -> Float:
        """The ground's colour in picture `i`, float32 [3]."""
        return np.asarray(self.scenery.colours["base"][i])

    def ground(self, i: int, *, objects: bool = True) -> Float:
        """The ground of picture `i` with the objects that lie on it, float32 [H, W, 3]."""
        rows, textures = slice(i, i + 1), atlas("cpu")
        n, tints = self._numbers(i), colours(self.scenery.colours, rows, _CPU)
        rgb, light, grain = ground(n, tints, ground_reading(self.scenery, rows, self.size[1], textures, _CPU), textures.texels, *self.size)
        if objects:
            lay_objects(self.scenery, rows, rgb, light, grain)
        return np.ascontiguousarray(rgb[0].permute(1, 2, 0).numpy())

    def shaded(self, i: int, rgb: Float, solid: Float) -> Float:
        """The ground `rgb` [H, W, 3] of picture `i` with the soft shadow of what will lie on it, whose coverage is `solid` [H, W]."""
        dark = shadow(self._numbers(i), torch.from_numpy(np.ascontiguousarray(solid, dtype=np.float32))[None])[0].numpy()
        return np.asarray(rgb * (1 - dark)[..., None], dtype=np.float32)

    def photograph(self, i: int, rgb: Float, *, noise: bool, glare: bool = False) -> torch.Tensor:
        """Picture `i` as the camera takes it, uint8 [3, H, W], from the scene's colours [H, W, 3].

        Args:
            i: number of the picture.
            rgb: its colours.
            noise: False leaves out sensor noise and compression.
            glare: the ground mirrors the lamp.
        """
        n, rows = self._numbers(i), slice(i, i + 1)
        picture = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32))[None]
        factor, mirrored = light_field(n, *self.size)
        if glare:
            picture = picture + mirrored[:, None]
        balance = colours({"balance": self.exposure.balance}, rows, _CPU)["balance"]
        picture = tone(picture * factor[:, None], n, balance)
        return develop(picture, self.exposure, rows, atlas("cpu"), noise=noise)[0]

    def _numbers(self, i: int) -> dict[str, torch.Tensor]:
        return columns({**self.scenery.numbers, **self.exposure.numbers}, slice(i, i + 1), _CPU)
