"""What towers share that end in a map and take its mean: each cell alone goes through the head as if it were a whole picture.

Where everything after the map is linear the mean of the cells is the image embedding exactly. Where a norm follows the pooling (ConvNeXt)
the mean of the cells is an approximation: the norm of a mean is not the mean of norms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from concept_cam.backbones.common import BaseBackbone
from concept_cam.backbones.protocol import FeatureMap, ImageFeatures
from concept_cam.backbones.tokens import masked_mean
from concept_cam.core.quiet import quiet

__all__ = ["SpatialBackbone"]


class SpatialBackbone(BaseBackbone, ABC):
    """Base of the towers that end in a map; a family gives the pieces. ``K`` channels of the map."""

    averages = True
    """Whether the head begins with the mean over the map, so that padding can be left out of it."""

    @abstractmethod
    def cells(self, pixels: Tensor) -> Tensor:
        """Makes the last map of pixels: [B, 3, H, W] -> [B, K, h, w]."""

    @abstractmethod
    def head(self, pooled: Tensor) -> Tensor:
        """Takes means over a map, or single cells, to the embedding: [N, K] -> [N, D]."""

    @abstractmethod
    def own_embedding(self, pixels: Tensor) -> Tensor:
        """Runs the model's own image embedding."""

    def rest(self, cells: Tensor) -> Tensor:
        """Takes a whole map to the embedding, with the model's own pooling where it has one: [B, K, h, w] -> [B, D]."""
        return self.head(cells.mean(dim=(2, 3)))

    @quiet(graph=False)
    def encode_image(self, pixels: Tensor) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_image`."""
        return self.own_embedding(self._prepare(pixels))

    @quiet(graph=False)
    def library_embedding(self, pixels: Tensor) -> Tensor | None:
        """See :meth:`concept_cam.backbones.common.BaseBackbone.library_embedding`."""
        return self.own_embedding(self._prepare(pixels))

    @quiet(graph=False)
    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_patches`."""
        self._strategy(attention)
        features = self.feature_map(pixels, valid)
        self._check_cells()
        cells = features.map.permute(0, 2, 3, 1)
        patches = self.head(cells.flatten(0, 2)).unflatten(0, cells.shape[:3])
        if features.valid is not None:
            patches = patches * features.valid[..., None]
        return ImageFeatures(patches=patches, image=self.pool(features))

    def _check_cells(self) -> None:
        """Raises where a single cell has no embedding."""

    @quiet()
    def feature_map(self, pixels: Tensor, valid: Tensor | None = None, layer: str | None = None) -> FeatureMap:
        """See :meth:`concept_cam.backbones.protocol.Backbone.feature_map`."""
        self._layer(layer)
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels) if self.averages else None
        cells = self.cells(pixels)
        return FeatureMap(cells if valid is None else cells * valid[:, None], valid=valid)

    @quiet()
    def pool(self, features: FeatureMap) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.pool`."""
        if features.valid is None:
            return self.rest(features.map)
        return self.head(masked_mean(features.map.flatten(2).transpose(1, 2), features.valid.flatten(1)))
