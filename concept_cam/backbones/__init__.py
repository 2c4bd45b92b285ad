"""Image-text models by name. Importing this package loads neither torch nor any model library; :func:`load` does.

``load(name)`` understands:

* ``demo``: the small model that comes with the package;
* the public names of :data:`ALIASES` (``bioclip``, ``bioclip-2``, ``biotrove-clip``, ``biocap``);
* ``ARCHITECTURE/TAG`` of open_clip (``ViT-B-16/openai``);
* ``hf-hub:ORGANISATION/NAME``: an open_clip model of the Hugging Face hub;
* ``local-dir:FOLDER``, or simply a folder, with ``open_clip_config.json`` and weights, or with a transformers model;
* ``ARCHITECTURE:FILE``: weights of an open_clip architecture in a ``.safetensors``, ``.pt`` or ``.bin`` file, its pictures prepared as for
  the published weights of the architecture; ``ARCHITECTURE/TAG:FILE`` where these differ: as for that tag;
* ``transformers:ID``: a model of the transformers library (CLIP, SigLIP, SigLIP2, MetaCLIP 2, TIPSv2 ...), by hub id or folder;
* ``dinov2:ID``, ``dinov2-cls:ID``: DINOv2 of the transformers library, for classifier heads on the mean of its patches or its class token;
  ``dinov3:ID``, ``dinov3-cls:ID`` and ``radio:ID`` likewise;
* ``dinotxt:FOLDER``: dino.txt, DINOv3 with aligned texts, from local files;
* ``timm:NAME`` or ``timm:NAME,CHECKPOINT``: a network of timm, with its own last layer or without one, without a text tower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from concept_cam.core.registry import Entry

if TYPE_CHECKING:
    import torch

    from concept_cam.backbones.made import Made
    from concept_cam.backbones.protocol import Backbone

__all__ = ["ALIASES", "BUNDLED", "FAMILIES", "NAME_FORMS", "STATISTICS", "Family", "load"]


@dataclass(frozen=True)
class Family(Entry):
    """One family of image towers that patch features can be read from: one file, one entry.

    Attributes:
        target: ``"module:read"``, which takes a :class:`~concept_cam.backbones.made.Made` model and returns the backbone.
        description: What belongs to it.
        auto: The dense attention strategy that ``"auto"`` stands for.
        reason: Why that one.
        towers: Which image towers it reads, as patterns: ``open_clip:CLASS``, ``timm:CLASS``, ``transformers:MODEL_TYPE``, or
            ``folder:NAME`` for a family of this package's own, whose folders say ``"family": "NAME"`` in their ``config.json``. The first
            family that matches reads a tower.
        words: Whether its models have a text tower.
        maker: ``"module:make"`` for a family of our own: takes the folder and a name and returns the
            :class:`~concept_cam.backbones.made.Made` model; empty where a library makes it.
        pooling: What the image embedding is made of.
        preprocessing: Where it is said how pictures are prepared, and what its published weights say.
        verified: How its reading was compared with the library's own.
        statistics: Names in :data:`STATISTICS` of the pixel statistics that weights of the family were published with; empty: any.
        language: Language that its texts were in, ``"en"`` or ``"zh"``; ``"en"`` where there were many.
    """

    auto: str = "vanilla"
    reason: str = ""
    towers: tuple[str, ...] = ()
    words: bool = True
    maker: str = ""
    pooling: str = ""
    preprocessing: str = ""
    verified: str = ""
    statistics: tuple[str, ...] = ()
    language: str = "en"

    def make(self) -> Callable[[Path, str], Made]:
        """Imports what makes a model of a folder."""
        found: Callable[[Path, str], Made] = Entry(self.maker, "").load()
        return found


STATISTICS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "OpenAI": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0 to 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "satellite": ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),
}
"""Means and deviations that weights are published with."""

_OPEN_CLIP_SAYS = "as the folder, or the published weights of the architecture, say"
_PROCESSOR = "as the folder's image processor says"
_TIMM_SAYS = "as timm's configuration says"
_NATIVE = "parity 1e-5 with {} on the architecture, random weights, at its native size"
_SIZES = "parity 1e-5 with {} on the architectures, random weights, at the native size and at odd sizes"
_LIBRARY = _SIZES.format("transformers")
_TEXTS = "; texts alike"
_FIRST_TOKEN = "the class token of the last block, projected"
_TOKEN_MEAN = "the mean of the patch tokens"
_LATENT = "a learned query that attends to the patch tokens"
_MAP_MEAN = "the mean of the last map, through the head"

_CLASS_TOKEN = (
    "the class token gathers the picture in the last attention, so patches keep their place only if that attention is replaced; keys with "
    "a Gaussian neighbourhood did best of the simple replacements in the literature, and keys and values are needed for the class "
    "token anyway"
)
_MEAN = "the embedding is the mean of the patch tokens as trained: those tokens already live in the joint space"
_MEAN_WITHOUT_WORDS = "the classifiers read the mean of the normed patch tokens: those tokens already live in their space"
_POOLED = "the pooling was trained to read the patch tokens as they are; each patch alone through its value path lands in the joint space"

FAMILIES: dict[str, Family] = {
    "open_clip-vit": Family(
        "concept_cam.backbones.open_clip_vit:read",
        "open_clip vision transformers with a class token (CLIP, OpenCLIP, BioCLIP, BioCLIP 2, BioTrove-CLIP, BioCAP)",
        "kk",
        _CLASS_TOKEN,
        ("open_clip:VisionTransformer",),
        pooling=_FIRST_TOKEN,
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_SIZES.format("open_clip") + _TEXTS,
        statistics=("OpenAI",),
    ),
    "open_clip-vit-mean": Family(
        "concept_cam.backbones.open_clip_vit:read",
        "open_clip vision transformers with mean pooling",
        "vanilla",
        _MEAN,
        ("open_clip:VisionTransformer",),
        pooling=_TOKEN_MEAN,
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_SIZES.format("open_clip") + _TEXTS,
        statistics=("ImageNet", "OpenAI"),
    ),
    "open_clip-vit-attention-pool": Family(
        "concept_cam.backbones.open_clip_vit:read",
        "open_clip vision transformers with an attentional pooler (CoCa)",
        "vanilla",
        _POOLED,
        ("open_clip:VisionTransformer",),
        pooling="the first query of the pooler",
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_SIZES.format("open_clip") + _TEXTS,
        statistics=("OpenAI",),
    ),
    "open_clip-resnet": Family(
        "concept_cam.backbones.open_clip_resnet:read",
        "CLIP ResNets with attention pooling (RN50 ... RN50x64)",
        "value",
        "each cell alone through the value path of the pooling is what the pooled embedding is a weighted mean of",
        ("open_clip:ModifiedResNet",),
        pooling="attention of the mean over the last map",
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_NATIVE.format("open_clip") + _TEXTS,
        statistics=("OpenAI",),
    ),
    "timm-vit": Family(
        "concept_cam.backbones.timm_vit:read",
        "timm vision transformers with a class token through open_clip (EVA02, MobileCLIP-B)",
        "kk",
        _CLASS_TOKEN,
        ("timm:VisionTransformer", "timm:Eva"),
        pooling=_FIRST_TOKEN,
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_NATIVE.format("open_clip") + _TEXTS,
        statistics=("OpenAI", "0 to 1"),
    ),
    "timm-vit-mean": Family(
        "concept_cam.backbones.timm_vit:read",
        "timm vision transformers with mean pooling (ViTamin)",
        "vanilla",
        _MEAN,
        ("timm:VisionTransformer", "timm:Eva"),
        pooling=_TOKEN_MEAN,
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_NATIVE.format("open_clip") + _TEXTS,
        statistics=("OpenAI",),
    ),
    "timm-vit-attention-pool": Family(
        "concept_cam.backbones.timm_vit:read",
        "timm vision transformers with an attention-pooling head through open_clip (SigLIP, SigLIP2, PE-Core)",
        "vanilla",
        _POOLED,
        ("timm:VisionTransformer", "timm:Eva"),
        pooling=_LATENT,
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_NATIVE.format("open_clip") + _TEXTS,
        statistics=("0.5",),
    ),
    "timm-spatial": Family(
        "concept_cam.backbones.timm_spatial:read",
        "timm convolutional, window and hybrid towers through open_clip (ConvNeXt, MobileCLIP-S, Swin)",
        "vanilla",
        "there is no last attention to replace: each cell of the last map goes alone through the head",
        ("timm:*",),
        pooling=_MAP_MEAN,
        preprocessing=_OPEN_CLIP_SAYS,
        verified=_NATIVE.format("open_clip") + _TEXTS,
        statistics=("OpenAI", "0 to 1"),
    ),
    "transformers-clip": Family(
        "concept_cam.backbones.transformers_clip:read",
        "CLIP of the transformers library",
        "kk",
        _CLASS_TOKEN,
        ("transformers:clip",),
        pooling=_FIRST_TOKEN,
        preprocessing=_PROCESSOR,
        verified=_LIBRARY + _TEXTS,
        statistics=("OpenAI",),
    ),
    "metaclip-2": Family(
        "concept_cam.backbones.transformers_clip:read",
        "MetaCLIP 2 of the transformers library (the ViT-*-worldwide of open_clip are read by open_clip-vit)",
        "kk",
        _CLASS_TOKEN,
        ("transformers:metaclip_2",),
        pooling=_FIRST_TOKEN,
        preprocessing=_PROCESSOR,
        verified=_LIBRARY + _TEXTS,
        statistics=("OpenAI",),
    ),
    "altclip": Family(
        "concept_cam.backbones.transformers_clip:read",
        "AltCLIP of the transformers library",
        "kk",
        _CLASS_TOKEN,
        ("transformers:altclip",),
        pooling=_FIRST_TOKEN,
        preprocessing=_PROCESSOR,
        verified=_LIBRARY + _TEXTS,
        statistics=("OpenAI",),
    ),
    "chinese-clip": Family(
        "concept_cam.backbones.transformers_clip:read",
        "ChineseCLIP of the transformers library, asked in Chinese",
        "kk",
        _CLASS_TOKEN,
        ("transformers:chinese_clip",),
        pooling=_FIRST_TOKEN,
        preprocessing=_PROCESSOR,
        verified=_LIBRARY + _TEXTS,
        statistics=("OpenAI",),
        language="zh",
    ),
    "fg-clip": Family(
        "concept_cam.backbones.transformers_clip:read",
        "FG-CLIP (the first), read by the transformers library's CLIP, its own code left alone",
        "value+residual+ffn",
        "its regions were trained on patches read this way: each with its own value, residual and feed-forward network kept",
        ("transformers:fgclip",),
        pooling=_FIRST_TOKEN,
        preprocessing=_PROCESSOR,
        verified=_LIBRARY + "; its published dense features restated",
        statistics=("OpenAI",),
    ),
    "tipsv2": Family(
        "concept_cam.backbones.tipsv2:read",
        "TIPSv2 of the transformers library",
        "vanilla",
        "its patch tokens were trained against texts as the last block leaves them: no attention needs to be replaced",
        ("transformers:tipsv2",),
        pooling="the first of two class tokens (captions of the web); texts: the mean of their tokens",
        preprocessing=_PROCESSOR + " (no normalisation)",
        verified=_LIBRARY + _TEXTS,
        statistics=("0 to 1",),
    ),
    "align": Family(
        "concept_cam.backbones.align:read",
        "ALIGN of the transformers library (EfficientNet)",
        "vanilla",
        "the embedding is the mean of the last map: its cells already live in the joint space",
        ("transformers:align",),
        pooling="the mean of the last map",
        preprocessing=_PROCESSOR,
        verified=_LIBRARY + _TEXTS,
        statistics=("0.5",),
    ),
    "transformers-siglip": Family(
        "concept_cam.backbones.transformers_siglip:read",
        "SigLIP and SigLIP2 of the transformers library, fixed size and NaFlex",
        "vanilla",
        _POOLED,
        ("transformers:siglip", "transformers:siglip2"),
        pooling=_LATENT,
        preprocessing=_PROCESSOR + "; NaFlex towers read a picture at its own aspect",
        verified=_LIBRARY + _TEXTS,
        statistics=("0.5",),
    ),
    "lite": Family(
        "concept_cam.backbones.lite:read",
        "EfficientNet-Lite0 with a neck at stride 8 and word pieces: the bundled model",
        "vanilla",
        "there is no last attention to replace: the cells of the neck live in the joint space as trained",
        ("folder:lite",),
        maker="concept_cam.backbones.lite:make",
        pooling="learned queries over the cells for parts, the mean of the last map for names",
        preprocessing="as the folder says",
        verified="tests of its own parts; no library to compare with",
        statistics=("0.5",),
    ),
    "dinov2": Family(
        "concept_cam.backbones.dinov2:read",
        "DINOv2 of the transformers library, an image tower without text, for classifier heads (kk with its class token)",
        "vanilla",
        _MEAN_WITHOUT_WORDS,
        ("transformers:dinov2", "transformers:dinov2_with_registers"),
        words=False,
        pooling="the mean of the normed patch tokens, or the class token",
        preprocessing=_PROCESSOR,
        verified=_LIBRARY,
        statistics=("ImageNet",),
    ),
    "dinotxt": Family(
        "concept_cam.backbones.dinotxt:read",
        "dino.txt: DINOv3 with its vision head and text tower, from local files",
        "vanilla",
        "the embedding's second half is the mean of the patch tokens as trained: those tokens already live there",
        ("folder:dinotxt",),
        maker="concept_cam.backbones.loading.dinotxt:make",
        pooling="the class token and the mean of the patch tokens, side by side",
        preprocessing=_PROCESSOR,
        verified="parity 1e-5 with the modules' own forwards and with the published definition restated, random weights",
        statistics=("ImageNet",),
    ),
    "dinov3": Family(
        "concept_cam.backbones.dinov3:read",
        "DINOv3 of the transformers library, ViTs and ConvNeXts, image towers without text, for heads (kk with its class token)",
        "vanilla",
        _MEAN_WITHOUT_WORDS,
        ("transformers:dinov3_vit", "transformers:dinov3_convnext"),
        words=False,
        pooling="the mean of the normed patch tokens, or the class token; ConvNeXts: the norm of the mean over the last map",
        preprocessing=_PROCESSOR,
        verified=_LIBRARY,
        statistics=("ImageNet", "satellite"),
    ),
    "radio": Family(
        "concept_cam.backbones.radio:read",
        "C-RADIO of the transformers library, an image tower without text, for heads",
        "vanilla",
        _MEAN_WITHOUT_WORDS,
        ("transformers:radio",),
        words=False,
        pooling="the mean of the patch tokens (its summary joins class tokens of different teachers)",
        preprocessing=_PROCESSOR + "; the model normalises within",
        verified=_LIBRARY,
        statistics=("0 to 1",),
    ),
    "timm-features": Family(
        "concept_cam.backbones.timm_features:read",
        "networks of timm without a last layer (PE-Spatial, DINOv3, C-RADIO), image towers without text, for heads",
        "vanilla",
        _MEAN_WITHOUT_WORDS,
        words=False,
        pooling="timm's own pooling",
        preprocessing=_TIMM_SAYS,
        verified=_SIZES.format("timm"),
    ),
    "cnn-classifier": Family(
        "concept_cam.backbones.cnn_classifier:read",
        "image classifiers that end in a map, of timm, torchvision and transformers, with their own last layer (no text tower)",
        "vanilla",
        "there is no last attention to replace: each cell of the last map goes alone through the head",
        words=False,
        pooling="what the last layer reads: the mean of the last map, through the head",
        preprocessing=_TIMM_SAYS + ", else ImageNet's",
        verified="the cut network's logits equal its own whenever one is loaded",
    ),
    "vit-classifier": Family(
        "concept_cam.backbones.vit_classifier:read",
        "vision transformers that classify, with their own last layer (no text tower)",
        "kk",
        _CLASS_TOKEN,
        words=False,
        pooling="what the last layer reads",
        preprocessing=_TIMM_SAYS + ", else ImageNet's",
        verified=_NATIVE.format("its library"),
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

NAME_FORMS: dict[str, str] = {
    "ARCH/TAG": "open_clip architecture and pretrained tag, for example ViT-B-16/openai",
    "hf-hub:ORG/NAME": "open_clip model on the Hugging Face hub",
    "local-dir:FOLDER": "open_clip_config.json with weights and tokenizer; also a transformers folder",
    "ARCH:FILE": "open_clip architecture with a weights file (.safetensors, or .pt read as tensors only)",
    "ARCH/TAG:FILE": "the same, with the preprocessing and activation of that published tag",
    "transformers:ID": "model of the transformers library that a family below names, hub id or folder",
    "dinotxt:FOLDER": "dino.txt: a DINOv3 folder of the transformers library with the published '...dinotxt...pth' in it",
    "timm:NAME,FILE": "network of timm with its own last layer, or without one; FILE: a checkpoint, or package:NAME; else timm's weights",
    "dinov2:ID": "DINOv2 for heads on its mean patch, hub id or folder; dinov2-cls:ID on its class token",
    "dinov3:ID, radio:ID": "DINOv3 and C-RADIO likewise; dinov3-cls:ID on the class token",
}
"""Forms of names, for people."""

BUNDLED = Path(__file__).parent / "bundled"
"""Folder of the model ``demo`` that comes with the package, in the layout of its family, ``lite``."""


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
