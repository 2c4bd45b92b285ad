"""Models in a form that can be sent to another process, or kept: pickled where their parts can be, else by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from concept_cam.backbones.protocol import Backbone
from concept_cam.core.errors import ModelError

__all__ = ["Named", "Packed", "portable"]


@dataclass(frozen=True)
class Packed:
    """A model as bytes: it is made of them where it arrives, once that has prepared the libraries that the model's classes come from."""

    content: bytes

    def load(self) -> Any:
        """Makes the model."""
        from concept_cam.backbones.torchvision_compat import prepare_torchvision

        prepare_torchvision()
        return pickle.loads(self.content)


@dataclass(frozen=True)
class Named:
    """A model that cannot be sent to another process, named so that it is loaded there.

    Attributes:
        name: Its canonical name.
        device: Kind of device.
        dtype: Number format of its towers.
        weights_hash: What the loaded one must have.
    """

    name: str
    device: str
    dtype: str
    weights_hash: str

    def load(self) -> Any:
        """Loads it.

        Raises:
            ModelError: There are other weights under that name here, or none.
        """
        from concept_cam.backbones.loading import load

        found = load(self.name, device=self.device, dtype=self.dtype)
        if found.weights_hash != self.weights_hash:
            raise ModelError(
                f"{self.name!r} has other weights here ({found.weights_hash}) than where the model was sent from ({self.weights_hash})."
            )
        return found


def portable(backbone: Backbone, dtype: str, dumps: Callable[[Any], bytes] = pickle.dumps) -> Packed | Named:
    """Returns the model in a form that can be sent: itself where its parts can be pickled, whatever its family, else its name.

    Args:
        backbone: The model.
        dtype: Number format of its towers, by which it would be loaded again.
        dumps: What pickles it.
    """
    try:
        return Packed(dumps(backbone))
    except Exception:  # whatever part of it refuses
        return Named(backbone.name, backbone.device.type, dtype, backbone.weights_hash)
