"""CLIP, SigLIP, SigLIP2 and DINOv2 of the transformers library: by hub id, from a folder, or a model that exists already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from concept_cam.backbones.loading import hub
from concept_cam.backbones.loading.families import finish, read, require, unsupported
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.text import ModelTower, TextEncoder, TransformersTokens
from concept_cam.backbones.torchvision_compat import import_transformers
from concept_cam.core.errors import ConceptCamError, ModelError

__all__ = ["from_name", "from_transformers"]

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


def from_transformers(model: nn.Module, tokenizer: Any = None, image_processor: Any = None, name: str = "transformers model") -> Backbone:
    """Reads a model of the transformers library that exists already, with whatever weights it has; the model itself is not changed.

    Args:
        model: ``CLIPModel``, ``SiglipModel``, ``Siglip2Model`` or ``Dinov2Model``, in evaluation mode.
        tokenizer: Its tokenizer; ``None`` for an image tower without text.
        image_processor: Its image processor, of which only the settings are read; ``None``: those usual for the model type.
        name: Name for results.

    Raises:
        UnsupportedModelError: Another model type.
        ModelError: The model is in training mode, or its tokenizer is missing.
    """
    return read(_tower(model), _made(model, tokenizer, image_processor, name))


def _tower(model: nn.Module) -> str:
    config: Any = getattr(model, "config", None)
    return f"transformers:{getattr(config, 'model_type', type(model).__name__)}"


def _made(model: nn.Module, tokenizer: Any, image_processor: Any, name: str, options: Mapping[str, Any] | None = None) -> Made:
    family = require(_tower(model), name)
    if not family.words:
        return Made(name, model, None, _processor_settings(image_processor), "its image processor", options=options or {})
    config: Any = model.config
    if not hasattr(model, "text_model") or not hasattr(model, "vision_model"):
        raise unsupported(name, f"model type {config.model_type!r} ({type(model).__name__}) of the transformers library")
    if tokenizer is None:
        raise ModelError(f"{name} needs its tokenizer.")
    padded = config.model_type != "clip"  # SigLIP was trained on padded texts.
    tokens = TransformersTokens(tokenizer, int(config.text_config.max_position_embeddings), "max_length" if padded else "longest")
    tower = ModelTower(model, _embed)
    text = TextEncoder(tokens, tower, tower.device)
    origin = "its image processor" if image_processor is not None else "the values usual for its type, for want of an image processor"
    return Made(name, model, text, _processor_settings(image_processor), origin)


def _embed(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    output = model.get_text_features(**inputs)
    # A tensor before transformers 5, an output object since.
    embedding: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return embedding


def _processor_settings(processor: Any) -> dict[str, Any]:
    """Returns an image processor's settings in open_clip's terms; empty without one."""
    if processor is None:
        return {}
    size = dict(getattr(processor, "size", None) or {})
    names = {0: "nearest", 2: "bilinear", 3: "bicubic"}
    return {
        "mean": getattr(processor, "image_mean", None),
        "std": getattr(processor, "image_std", None),
        "interpolation": names.get(int(getattr(processor, "resample", 3) or 0), "bicubic"),
        "resize_mode": "shortest" if size.get("shortest_edge") else "squash",
    }


def from_name(source: str, name: str, device: torch.device, dtype: torch.dtype, options: Mapping[str, Any] | None = None) -> Backbone:
    """Loads a model by hub id or folder.

    Args:
        source: The id or the folder.
        name: Name for results.
        device: Where it goes.
        dtype: Floating-point type.
        options: For the family, such as the pooling of DINOv2.
    """
    transformers = import_transformers()
    if not source:
        raise ModelError("expected 'transformers:ID' with the id of a model on the hub or a folder.")
    local = Path(source).is_dir()
    if not local and not _REPOSITORY.fullmatch(source):
        raise ModelError(
            f"the folder {source!r} does not exist, and it is no id of the hub such as 'openai/clip-vit-base-patch16' (model {name!r})."
        )
    if not local and hub.cached(source, "config.json") is None and not hub.reachable():
        raise hub.no_network(name, source, "config.json, model.safetensors, preprocessor_config.json and the tokenizer's files")
    only_local = local or (hub.cached(source, "config.json") is not None and not hub.reachable())
    try:
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=only_local)
        tower = f"transformers:{config.model_type}"
        family = require(tower, name)
        model, info = transformers.AutoModel.from_pretrained(source, output_loading_info=True, local_files_only=only_local)
        tokenizer = _tokenizer(source, only_local, name) if family.words else None
    except ConceptCamError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot load {name}: {first}") from error
    missing = sorted(key for key in info["missing_keys"] if not key.endswith("position_ids"))
    if missing or info.get("mismatched_keys"):
        raise ModelError(
            f"the weights of {name} do not fill the model (missing or of another shape: {', '.join(map(str, missing[:5])) or 'some'}); "
            "the rest would be random, so it is not used."
        )
    return finish(tower, _made(model, tokenizer, _image_processor(source, only_local), name, options), device, dtype)


def _tokenizer(source: str, only_local: bool, name: str) -> Any:
    folder = Path(source)
    if folder.is_dir() and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        # The library would make up a tokenizer that knows no word.
        raise ModelError(f"{name} needs the files of its tokenizer ({', '.join(_TOKENIZER_FILES[:3])} ...) in {source!r}.")
    return import_transformers().AutoTokenizer.from_pretrained(source, local_files_only=only_local)


def _image_processor(source: str, only_local: bool) -> Any:
    transformers = import_transformers()
    try:
        return transformers.AutoImageProcessor.from_pretrained(source, local_files_only=only_local)
    except (OSError, ValueError):
        return None  # Not stored with the model: the settings usual for its type.
