"""timm towers that end in a map: convolutional (ConvNeXt), window (Swin) and hybrid (MobileCLIP-S) ones, through open_clip.

Each cell of the last map goes alone through the head. Where everything after the map is linear the mean of the cells is the image
embedding exactly. ConvNeXt's head normalises after pooling, so there the mean of the cells is an approximation: the norm of a mean is not
the mean of norms.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from concept_cam.backbones.common import BaseBackbone
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import FeatureMap, ImageFeatures
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import masked_mean
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.core.quiet import quiet
from concept_cam.pictures.preprocessing import Preprocess

ANY_SIZE: tuple[str, ...] = (
    "ConvNeXt",
    "FastVit",
    "ResNet",
    "RegNet",
    "EfficientNet",
    "ByobNet",
    "NormFreeNet",
)
"""timm classes that read pictures of any size."""


class TimmSpatial(BaseBackbone):
    """Reads a timm tower with a spatial map behind open_clip's ``TimmModel``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: An open_clip model whose ``visual.trunk`` is such a tower.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.
        embed_dim: Width of the joint embedding.

    Raises:
        UnsupportedModelError: The tower pools otherwise than by a mean over the map.
    """

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder, embed_dim: int) -> None:
        visual: Any = model.visual
        self._visual, self._trunk = visual, visual.trunk
        head = getattr(self._trunk, "head", None)
        pooling = getattr(head, "global_pool", None) or getattr(self._trunk, "global_pool", None)
        pool_type = getattr(head, "pool_type", None) or getattr(pooling, "pool_type", None)
        if pool_type not in ("avg", "fast", "fastavg") or hasattr(visual.head, "pool"):
            raise UnsupportedModelError(
                f"{name}: the timm tower {type(self._trunk).__name__} does not take the mean of a spatial map "
                f"(pooling {pool_type!r}), so no map can be read from it."
            )
        self._channels_last = getattr(self._trunk, "output_fmt", "NCHW") == "NHWC"
        super().__init__(
            model,
            name=name,
            family="timm-spatial",
            preprocess=preprocess,
            text=text,
            embed_dim=embed_dim,
            attentions=("vanilla",),
        )

    @quiet(graph=False)
    def encode_image(self, pixels: Tensor) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_image`."""
        return cast("Tensor", self._visual(self._prepare(pixels)))

    @quiet(graph=False)
    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_patches`."""
        self._strategy(attention)
        features = self.feature_map(pixels, valid)
        cells = features.map.permute(0, 2, 3, 1)
        patches = self._head(cells.flatten(0, 2)).unflatten(0, cells.shape[:3])
        if features.valid is not None:
            patches = patches * features.valid[..., None]
        return ImageFeatures(patches=patches, image=self.pool(features))

    @quiet()
    def feature_map(self, pixels: Tensor, valid: Tensor | None = None, layer: str | None = None) -> FeatureMap:
        """See :meth:`concept_cam.backbones.protocol.Backbone.feature_map`."""
        self._layer(layer)
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        cells = self._trunk.forward_features(pixels)
        if cells.ndim != 4:
            raise UnsupportedModelError(f"{self.name}: the timm tower {type(self._trunk).__name__} has no spatial map.")
        if self._channels_last:
            cells = cells.permute(0, 3, 1, 2)
        return FeatureMap(cells if valid is None else cells * valid[:, None], valid=valid)

    @quiet()
    def pool(self, features: FeatureMap) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.pool`."""
        if features.valid is None:
            cells = features.map.permute(0, 2, 3, 1) if self._channels_last else features.map
            return cast("Tensor", self._visual.head(self._trunk.forward_head(cells)))
        return self._head(masked_mean(features.map.flatten(2).transpose(1, 2), features.valid.flatten(1)))

    def _head(self, pooled: Tensor) -> Tensor:
        """Takes pooled vectors [N, K], or cells as if each were a whole picture, through the head: [N, D]."""
        cells = pooled[:, None, None, :] if self._channels_last else pooled[:, :, None, None]
        return cast("Tensor", self._visual.head(self._trunk.forward_head(cells)))


def read(made: Made) -> TimmSpatial:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    trunk = made.visual.trunk
    kind, info = type(trunk).__name__, getattr(trunk, "feature_info", None)
    if not info or hasattr(trunk, "num_prefix_tokens"):
        raise UnsupportedModelError(f"{made.name}: the timm tower {kind} has no spatial map.")
    preprocess = made.preprocess(made.visual.image_size, info[-1]["reduction"], flexible=kind in ANY_SIZE)
    return TimmSpatial(made.model, name=made.name, preprocess=preprocess, text=made.words, embed_dim=made.embed_dim())
