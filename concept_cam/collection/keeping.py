"""Last stage of an index being made: features become codes, and codes the rows of a part. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from concept_cam.collection.plan import Plan
    from concept_cam.collection.reading import Crop, Loaded
    from concept_cam.core.features import PatchFeatures
    from concept_cam.index.codec import Codec, Codes

__all__ = ["Kept", "keep", "kept_table"]


@dataclass(frozen=True)
class Kept:
    """What an index keeps of one crop.

    Attributes:
        row: What describes it, by :data:`concept_cam.index.storage.INDEX_COLUMNS`, as far as the crop tells.
        codes: Its patch features.
        image: float32 [D], its image embedding.
        specimen: Input columns of the specimen.
    """

    row: dict[str, Any]
    codes: Codes
    image: np.ndarray
    columns: dict[str, str]


def keep(crop: Crop, features: PatchFeatures, valid: np.ndarray, codec: Codec) -> Kept:
    """Makes codes of a crop's features; where the model did not look they are zero."""
    from concept_cam.core.shapes import encode_rle

    patches = features.patches.cpu().numpy()
    patches = np.where(valid[..., None], patches, np.float32(0)).reshape(-1, patches.shape[-1])
    row = {
        "specimen": crop.number,
        "specimen_box": None if crop.box is None else json.dumps(list(crop.box)),
        "crop_xy": json.dumps([crop.frame.left, crop.frame.top]),
        "image_size": json.dumps([int(side) for side in crop.frame.size]),
        "geometry": json.dumps(features.geometry.to_dict()),
        "hidden": None if crop.hidden is None else json.dumps(encode_rle(crop.hidden)),
        "attention": features.attention,
        "views": features.views,
    }
    return Kept(row, codec.encode(patches), features.image.cpu().numpy(), dict(crop.specimen.columns))


def kept_table(scored: Sequence[tuple[Loaded, list[Any]]], plan: Plan) -> pa.Table:
    """Makes the rows of some pictures, in order."""
    import pyarrow as pa

    from concept_cam.collection.schema import PASSTHROUGH_PREFIX, image_key
    from concept_cam.index.storage import features_table

    rows, codes, images = [], [], []
    for found, crops in scored:
        item = found.item
        for kept in crops:
            head = {
                "image_key": image_key(item.identity),
                "source": item.source,
                "occurrence": item.occurrence,
                "path": item.path,
                "media_uri": item.media_uri,
                "sha256": found.sha256,
                "px_per_mm": plan.scale(item),
            }
            columns = {PASSTHROUGH_PREFIX + name: text for name, text in {**item.columns, **kept.columns}.items()}
            rows.append(head | kept.row | columns)
            codes.append(kept.codes)
            images.append(kept.image)
    return features_table(rows, codes, np.stack(images)) if rows else pa.table({})
