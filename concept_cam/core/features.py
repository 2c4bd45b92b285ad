"""What the image tower says about one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from concept_cam.core.geometry import Geometry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Look", "PatchFeatures"]


@dataclass(frozen=True, repr=False)
class Look:
    """What the image tower says about one window of a picture that was read again, more finely.

    Attributes:
        corner: ``(row, column)`` of its corner, in cells of the finer grid.
        patches: float32 [h', w', D] patch features, not normalised.
        shown: bool [h', w'], which of its cells show the picture.
    """

    corner: tuple[int, int]
    patches: Tensor
    shown: Tensor


@dataclass(frozen=True, repr=False)
class PatchFeatures:
    """What the image tower says about one picture; costly to compute, cheap to query.

    Attributes:
        patches: float32 [h, w, D] patch features in the joint space, not normalised.
        image: float32 [D] image embedding, not normalised (the tower's own ``encode_image`` output for the model's input).
        geometry: Frames of the picture.
        model: Name of the model that made them.
        weights_hash: Hash of that model's weights.
        attention: Name of the dense attention strategy that made them.
        source: Where the picture came from, when it came from a file.
        views: Which views of the picture were averaged.
        looks: The windows that were read again, none or several; ``None`` where nobody looked again.
        reading: The settings that brought the picture to the model's input (:data:`concept_cam.core.settings.INPUT_SETTINGS`), as
            they were given, and under :data:`concept_cam.core.settings.OWN_INPUT` what the model does of itself, where that is known;
            ``None`` where they are not known, and are taken to be those of whoever asks.
    """

    patches: Tensor
    image: Tensor
    geometry: Geometry
    model: str
    weights_hash: str
    attention: str
    source: str | None = None
    views: str = "single"
    looks: tuple[Look, ...] | None = None
    reading: Mapping[str, Any] | None = field(default=None, hash=False)

    def __repr__(self) -> str:
        """Sizes and origin; thousands of numbers tell nobody anything."""
        rows, columns, width = self.patches.shape
        where = f" of {self.source!r}" if self.source else ""
        return f"<PatchFeatures{where}: {rows} x {columns} patches of {width} numbers by {self.model!r}, attention {self.attention!r}>"
