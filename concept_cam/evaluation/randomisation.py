"""The parameter-randomisation sanity check: the same questions to the same tower with its weights in disorder."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from concept_cam.core.errors import ConfigurationError

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["randomised"]


def randomised(localizer: Localizer, seed: int = 0) -> Localizer:
    """Returns a localizer whose image tower knows nothing: a private copy with the values of every parameter in random order.

    Adebayo et al. 2018, *Sanity Checks for Saliency Maps*. Shuffling within each parameter keeps its distribution, so no rule of
    initialisation has to be known. Texts stay those of the trained model, hence the directions too, and the copy answers under the trained
    model's name and hash, so that learned explainers accept it. The original is not touched.

    Args:
        localizer: The trained model and its settings.
        seed: Equal seeds give equal copies.

    Raises:
        ConfigurationError: The backbone holds no torch module.
    """
    import torch

    backbone = localizer.backbone
    if not isinstance(getattr(backbone, "model", None), torch.nn.Module):
        raise ConfigurationError(
            f"the backbone {backbone.name!r} has no weights that could be randomised: leave the group 'randomisation' out."
        )
    _ = backbone.weights_hash  # Computed once, on the weights that the copy is named after.
    text = getattr(backbone, "_text", None)  # Shared: words keep their meaning.
    twin: Any = copy.deepcopy(backbone, {id(text): text})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.model.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    other = copy.copy(localizer)
    other.backbone = twin
    return other
