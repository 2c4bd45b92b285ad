"""Image-text models by name. Importing this package loads neither torch nor any model library; :func:`load` does.

``load(name)`` understands:

* ``demo``: the small model that comes with the package;
* the public names of :data:`ALIASES` (``bioclip``, ``bioclip-2``, ``biotrove-clip``, ``biocap``);
* ``ARCHITECTURE/TAG`` of open_clip (``ViT-B-16/openai``);
* ``hf-hub:ORGANISATION/NAME``: an open_clip model of the Hugging Face hub;
* ``local-dir:FOLDER``, or simply a folder, with ``open_clip_config.json`` and weights, or with a transformers model;
* ``ARCHITECTURE:FILE``: weights of an open_clip architecture in a ``.safetensors``, ``.pt`` or ``.bin`` file;
* ``transformers:ID``: CLIP, SigLIP or SigLIP2 of the transformers library, by hub id or folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from concept_cam.backbones.protocol import Backbone

__all__ = ["ALIASES", "BUNDLED", "FAMILIES", "Family", "load"]


@dataclass(frozen=True)
class Family:
    """One family of image towers that patch features can be read from.

    Attributes:
        description: What belongs to it.
        module: The module that reads it.
        auto: The dense attention strategy that ``"auto"`` stands for.
        reason: Why that one.
    """

    description: str
    module: str
    auto: str
    reason: str


_CLASS_TOKEN = (
    "the class token gathers the picture in the last attention, so patches keep their place only if that attention is replaced; keys with "
    "a Gaussian neighbourhood did best of the simple replacements in the literature, and keys and values are needed for the class token anyway"
)
_MEAN = "the embedding is the mean of the patch tokens as trained: those tokens already live in the joint space"
_POOLED = "the pooling was trained to read the patch tokens as they are; each patch alone through its value path lands in the joint space"

FAMILIES: dict[str, Family] = {
    "open_clip-vit": Family(
        "open_clip vision transformers with a class token (CLIP, OpenCLIP, BioCLIP, BioCLIP 2, BioTrove-CLIP, BioCAP)",
        "concept_cam.backbones.open_clip_vit",
        "kk",
        _CLASS_TOKEN,
    ),
    "open_clip-vit-mean": Family(
        "open_clip vision transformers with mean pooling",
        "concept_cam.backbones.open_clip_vit",
        "vanilla",
        _MEAN,
    ),
    "open_clip-vit-attention-pool": Family(
        "open_clip vision transformers with an attentional pooler (CoCa)",
        "concept_cam.backbones.open_clip_vit",
        "vanilla",
        _POOLED,
    ),
    "open_clip-resnet": Family(
        "CLIP ResNets with attention pooling (RN50 ... RN50x64)",
        "concept_cam.backbones.open_clip_resnet",
        "value",
        "each cell alone through the value path of the pooling is what the pooled embedding is a weighted mean of",
    ),
    "timm-vit": Family(
        "timm vision transformers with a class token through open_clip (EVA02, MobileCLIP-B)",
        "concept_cam.backbones.timm_vit",
        "kk",
        _CLASS_TOKEN,
    ),
    "timm-vit-mean": Family(
        "timm vision transformers with mean pooling (ViTamin)",
        "concept_cam.backbones.timm_vit",
        "vanilla",
        _MEAN,
    ),
    "timm-vit-attention-pool": Family(
        "timm vision transformers with an attention-pooling head through open_clip (SigLIP, SigLIP2, PE-Core)",
        "concept_cam.backbones.timm_vit",
        "vanilla",
        _POOLED,
    ),
    "timm-spatial": Family(
        "timm convolutional, window and hybrid towers through open_clip (ConvNeXt, MobileCLIP-S, Swin)",
        "concept_cam.backbones.timm_spatial",
        "vanilla",
        "there is no last attention to replace: each cell of the last map goes alone through the head",
    ),
    "transformers-clip": Family("CLIP of the transformers library", "concept_cam.backbones.transformers_clip", "kk", _CLASS_TOKEN),
    "transformers-siglip": Family(
        "SigLIP and SigLIP2 of the transformers library, fixed size and NaFlex",
        "concept_cam.backbones.transformers_siglip",
        "vanilla",
        _POOLED,
    ),
}
"""Families of image towers that can be localised, and the strategy that ``"auto"`` picks for each, with the reason."""

ALIASES: dict[str, str] = {
    "bioclip": "hf-hub:imageomics/bioclip",
    "bioclip-2": "hf-hub:imageomics/bioclip-2",
    "biotrove-clip": "hf-hub:BGLab/BioTrove-CLIP",
    "biocap": "hf-hub:imageomics/biocap",
}
"""Public names of biological models and where open_clip finds them."""

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the model ``demo`` that comes with the package, in open_clip's ``local-dir`` layout."""


def load(name: str = "demo", device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32") -> Backbone:
    """Loads an image-text model by name.

    Args:
        name: See the module's description.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, ``"auto"`` (the best there is) ...
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Returns:
        The model behind the :class:`~concept_cam.backbones.protocol.Backbone` protocol, in evaluation mode, pretrained weights loaded.

    Raises:
        ModelError: Unknown name (with the nearest ones), missing or damaged files, or no network.
        UnsupportedModelError: No spatial map can be read from this model.
        ConfigurationError: Unknown device or dtype.
    """
    from concept_cam.backbones.loading import load as load_model

    return load_model(name, device=device, dtype=dtype)
