"""From a loaded model to its family: the registry decides, by the name of the tower."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch

from concept_cam.backbones import FAMILIES, Family
from concept_cam.backbones.hashing import hash_model
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import Backbone
from concept_cam.core.errors import UnsupportedModelError

__all__ = ["finish", "read", "require", "tower_families", "unsupported"]


def tower_families(tower: str) -> list[Family]:
    """Returns the families that may read a tower, such as ``"open_clip:VisionTransformer"`` or ``"transformers:clip"``."""
    return [family for family in FAMILIES.values() if any(fnmatchcase(tower, pattern) for pattern in family.towers)]


def require(tower: str, name: str) -> Family:
    """Returns the first family that reads a tower.

    Raises:
        UnsupportedModelError: None does.
    """
    found = tower_families(tower)
    if not found:
        raise unsupported(name, _spoken(tower))
    return found[0]


def _spoken(tower: str) -> str:
    library, _, kind = tower.partition(":")
    forms = {"transformers": f"model type {kind!r} of the transformers library", "timm": f"timm tower {kind}"}
    return forms.get(library, f"image tower {kind}")


def read(tower: str, made: Made) -> Backbone:
    """Reads a loaded model with its family.

    Raises:
        UnsupportedModelError: No spatial map can be read from it.
    """
    family = require(tower, made.name)
    try:
        backbone: Backbone = family.load()(made)
    except UnsupportedModelError as error:
        raise unsupported(made.name, _spoken(tower), str(error)) from error
    return backbone


def finish(tower: str, made: Made, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Brings a loaded model to its place and number format, and reads it; its identity is that of the weights before."""
    identity = None if dtype == torch.float32 else hash_model(made.model)
    kept = [(part, {name: value.clone() for name, value in part.state_dict().items()}) for part in made.exact]
    made.model.to(device=device, dtype=dtype).eval()
    for part, values in kept:
        part.to(dtype=torch.float32).load_state_dict(values)
    backbone = read(tower, made)
    if identity is not None:
        backbone.weights_hash = identity  # type: ignore[misc]  # a cached property of every family
    return backbone


def unsupported(name: str, what: str, why: str = "") -> UnsupportedModelError:
    """Makes the error that names the families that can be localised; what each is would fill a screen."""
    reason = f" ({why.removeprefix(f'{name}: ').rstrip('.')})" if why else ""
    return UnsupportedModelError(
        f"{name}: no spatial map can be read from the {what}{reason}. Families that can be localised: {', '.join(FAMILIES)}; "
        "'concept-cam models' says what each is."
    )
