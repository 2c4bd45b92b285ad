"""timm towers that end in a map: convolutional (ConvNeXt), window (Swin) and hybrid (MobileCLIP-S) ones, through open_clip.

Each cell of the last map goes alone through the head. ConvNeXt's head normalises after pooling, so there the mean of the cells is an
approximation of the image embedding.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from concept_cam.backbones.made import Made
from concept_cam.backbones.spatial import SpatialBackbone
from concept_cam.backbones.text import TextEncoder
from concept_cam.core.errors import UnsupportedModelError
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


class TimmSpatial(SpatialBackbone):
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

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self._visual(pixels))

    def cells(self, pixels: Tensor) -> Tensor:
        cells = self._trunk.forward_features(pixels)
        if cells.ndim != 4:
            raise UnsupportedModelError(f"{self.name}: the timm tower {type(self._trunk).__name__} has no spatial map.")
        return cast("Tensor", cells.permute(0, 3, 1, 2) if self._channels_last else cells)

    def rest(self, cells: Tensor) -> Tensor:
        cells = cells.permute(0, 2, 3, 1) if self._channels_last else cells
        return cast("Tensor", self._visual.head(self._trunk.forward_head(cells)))

    def head(self, pooled: Tensor) -> Tensor:
        return self.rest(pooled[:, :, None, None])


def read(made: Made) -> TimmSpatial:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    trunk = made.visual.trunk
    kind, info = type(trunk).__name__, getattr(trunk, "feature_info", None)
    if not info or hasattr(trunk, "num_prefix_tokens"):
        raise UnsupportedModelError(f"{made.name}: the timm tower {kind} has no spatial map.")
    preprocess = made.preprocess(made.visual.image_size, info[-1]["reduction"], flexible=kind in ANY_SIZE)
    return TimmSpatial(made.model, name=made.name, preprocess=preprocess, text=made.words, embed_dim=made.embed_dim())
