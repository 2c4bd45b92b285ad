"""Models of the transformers library: by hub id, from a folder, or a model that exists already. Code that comes with weights never runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from concept_cam.backbones.damage import damage_among
from concept_cam.backbones.loading import hub
from concept_cam.backbones.loading.families import finish, read, require, unsupported
from concept_cam.backbones.loading.transformers_pictures import processor_settings
from concept_cam.backbones.loading.transformers_text import text_encoder
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.torchvision_compat import import_transformers, without_bars
from concept_cam.backbones.transformers_clip import kind_of
from concept_cam.core.errors import ConceptCamError, ModelError, UnsupportedModelError
from concept_cam.core.names import some_of

__all__ = ["from_name", "from_transformers", "require_whole", "said_of"]

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")

SINCE: dict[str, str] = {
    "siglip2": "4.50",
    "metaclip_2": "4.56",
    "dinov3_vit": "4.56",
    "dinov3_convnext": "4.56",
    "radio": "5.13",
    "tipsv2": "5.14",
}
"""Model type -> the first release of transformers that has it."""

OWN_CODE: dict[str, str] = {
    "fgclip2": "FG-CLIP 2 comes with code of its own, and no release of transformers up to 5.24 has it; the first FG-CLIP can be read",
}
"""Model types that no release of transformers has -> what is known of them."""


def from_transformers(model: nn.Module, tokenizer: Any = None, image_processor: Any = None, name: str = "transformers model") -> Backbone:
    """Reads a model of the transformers library that exists already, with whatever weights it has; the model itself is not changed.

    Args:
        model: A model of one of the model types in :data:`concept_cam.backbones.FAMILIES`, such as ``CLIPModel``, ``Siglip2Model``,
            ``Tipsv2Model`` or ``DINOv3ViTModel``, in evaluation mode.
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
    return f"transformers:{kind_of(config) if hasattr(config, 'model_type') else type(model).__name__}"


def _made(model: nn.Module, tokenizer: Any, image_processor: Any, name: str, options: Mapping[str, Any] | None = None) -> Made:
    family = require(_tower(model), name)
    settings = processor_settings(image_processor, name)
    origin = "its image processor" if settings.get("mean") else "the values usual for its type, for want of an image processor"
    if not family.words:
        return Made(name, model, None, settings, origin, options=options or {})
    config: Any = model.config
    if not hasattr(model, "text_model") or not hasattr(model, "vision_model"):
        raise unsupported(name, f"model type {config.model_type!r} ({type(model).__name__}) of the transformers library")
    return Made(name, model, text_encoder(model, tokenizer, kind_of(config), name), settings, origin)


def from_name(
    source: str,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    options: Mapping[str, Any] | None = None,
    model_types: tuple[str, ...] = (),
) -> Backbone:
    """Loads a model by hub id or folder.

    Args:
        source: The id or the folder.
        name: Name for results.
        device: Where it goes.
        dtype: Floating-point type.
        options: For the family, such as the pooling of DINOv2.
        model_types: Those that the name's form is for; empty: all.
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
    _require_known(source, local, name)
    # Said outright: where it is left open, the library asks at the terminal whether to run a folder's own code.
    given = {"local_files_only": only_local, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **given)
        tower = f"transformers:{kind_of(config)}"
        if model_types and config.model_type not in model_types:
            raise ModelError(f"{name!r} is for the model types {', '.join(model_types)}; {source!r} holds a {config.model_type!r}.")
        family = require(tower, name)
        with without_bars() if only_local else nullcontext():
            model, info = transformers.AutoModel.from_pretrained(source, output_loading_info=True, **given)
        tokenizer = _tokenizer(source, given, name) if family.words else None
    except ConceptCamError:
        raise
    except Exception as error:
        raise ModelError(f"cannot load {name}: {said_of(error, Path(source))}") from error
    missing = sorted(key for key in info["missing_keys"] if not key.endswith("position_ids"))
    if missing or info.get("mismatched_keys"):
        raise ModelError(
            f"the weights of {name} do not fill the model (missing or of another shape: {some_of(missing) or 'some'}); "
            "the rest would be random, so it is not used."
        )
    require_whole(model, info.get("unexpected_keys") or (), name)
    return finish(tower, _made(model, tokenizer, _image_processor(source, given), name, options), device, dtype)


def said_of(error: Exception, folder: Path | None = None) -> str:
    """Returns what the library says of weights that it cannot load, in one line; of damaged files of the folder, what they are."""
    if folder is not None and (damage := damage_among(folder)):
        return f"{damage}."
    # The first line alone is often a heading: "Validation error for field 'hidden_size':".
    return _reason(str(error)) or " ".join(str(error).split())[:300] or type(error).__name__


def _reason(message: str) -> str:
    """Says in our words what the libraries answer with advice that does not hold here; empty: something else."""
    if "weights_only" in message or "WeightsUnpickler" in message:
        # torch advises to load such a file regardless, which runs whatever code it holds.
        return (
            "its weights hold pickled objects beside tensors, which are not loaded because they can run code. Convert the tensors to "
            "model.safetensors, or take that file from where the model comes from."
        )
    if "ignore_mismatched_sizes" in message:
        return (
            "weights in the file have other shapes than config.json says, so that the two do not belong together. Copy both again from "
            "where the model comes from."
        )
    return ""


def require_whole(model: nn.Module, unexpected: Iterable[object], name: str) -> None:
    """Sees that the file holds no layer that the model was built without: the rest would be read as a shorter network.

    Other tensors that the model has no place for are harmless: heads for other tasks, buffers of older releases, extra projections.

    Args:
        model: The model as its configuration builds it.
        unexpected: Names in the file that the model does not have.
        name: Name of the model.

    Raises:
        ModelError: The file holds more layers than the configuration says.
    """
    own_prefix = f"{getattr(model, 'base_model_prefix', '') or ''}."
    beyond: dict[str, list[str]] = {}
    for key in sorted(map(str, unexpected)):
        # A file of the whole task model names its tower first, which the bare tower does not.
        for path in dict.fromkeys((key, key.removeprefix(own_prefix))):
            if stack := _stack(model, path):
                beyond.setdefault(stack, []).append(key)
                break
    if beyond:
        stack, keys = next(iter(beyond.items()))
        have = len(model.get_submodule(stack)._modules)
        raise ModelError(
            f"the weights of {name} hold layers that config.json does not have: it says {have} in {stack!r}, and the file holds "
            f"{some_of(keys, 3)} as well. Without them it would be another network, so it is not used; "
            "copy config.json and the weights again from where the model comes from."
        )


def _stack(model: nn.Module, path: str) -> str:
    """Returns the list of layers of which ``path`` names one that the model does not have; empty: it names no such layer."""
    module, parts = model, path.split(".")
    for index, part in enumerate(parts):
        children = module._modules
        child = children.get(part)
        if child is not None:
            module = child
            continue
        layers = isinstance(module, nn.ModuleList | nn.Sequential) and part.isdecimal() and index + 1 < len(parts)
        return ".".join(parts[:index]) if layers else ""
    return ""


def _require_known(source: str, local: bool, name: str) -> None:
    """Says which release has a model type that the installed library does not know.

    Raises:
        ModelError: The folder's configuration is damaged, or is none.
        UnsupportedModelError: The library does not know the type, and code that comes with weights is never run.
    """
    transformers = import_transformers()
    file = Path(source) / "config.json" if local else hub.cached(source, "config.json")
    if file is None or not file.is_file():
        return  # The library says where it looked.
    what = ""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"it cannot be read as JSON: {' '.join(str(error).split())}"
    else:
        if not isinstance(stored, dict):
            what = f"expected a JSON object, received {_short(stored)}"
        elif "model_type" not in stored:
            what = "it has no 'model_type'"
        elif not isinstance(stored["model_type"], str):
            what = f"expected a text as 'model_type', received {_short(stored['model_type'])}"
    if what:
        raise ModelError(
            f"cannot load {name}: {file} is no configuration of the transformers library: {what}. "
            "Copy it again from where the model comes from."
        )
    kind = stored["model_type"]
    if kind in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
        return
    have = f"the installed transformers {transformers.__version__} does not know the model type {kind!r}"
    if kind in SINCE:
        raise UnsupportedModelError(f"{name}: {have}; it is there since {SINCE[kind]}: pip install 'transformers>={SINCE[kind]}'.")
    more = f" {OWN_CODE[kind]}." if kind in OWN_CODE else ""
    code = " Code that comes with a model is never run." if stored.get("auto_map") else ""
    raise unsupported(name, f"model type {kind!r}", f"{have}.{more}{code}")


def _short(value: object) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tokenizer(source: str, given: Mapping[str, Any], name: str) -> Any:
    folder = Path(source)
    if folder.is_dir() and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        # The library would make up a tokenizer that knows no word.
        raise ModelError(f"{name} needs the files of its tokenizer ({', '.join(_TOKENIZER_FILES[:3])} ...) in {source!r}.")
    return import_transformers().AutoTokenizer.from_pretrained(source, **given)


def _image_processor(source: str, given: Mapping[str, Any]) -> Any:
    transformers = import_transformers()
    try:
        return transformers.AutoImageProcessor.from_pretrained(source, **given)
    except (OSError, ValueError):
        return None  # Not stored with the model: the settings usual for its type.
