"""open_clip models: from a folder, a weights file, a published tag, or a model that exists already."""

from __future__ import annotations

import copy
import json
import os
import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from concept_cam.backbones.damage import damage_of
from concept_cam.backbones.loading import hub, published
from concept_cam.backbones.loading.families import finish, read
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.text import ModelTower, OpenClipTokens, TextEncoder
from concept_cam.backbones.torchvision_compat import import_open_clip, import_transformers
from concept_cam.core.errors import ConceptCamError, ModelError

__all__ = ["CONFIG", "WEIGHTS", "from_file", "from_folder", "from_open_clip", "from_tag", "outline", "weights_in"]

CONFIG = "open_clip_config.json"
WEIGHTS: tuple[str, ...] = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""File names of open_clip weights, in open_clip's order of preference."""


def from_open_clip(
    model: nn.Module,
    tokenizer: Callable[..., Tensor],
    preprocess_cfg: Mapping[str, Any] | None = None,
    name: str = "open_clip model",
) -> Backbone:
    """Reads an open_clip model that exists already, with whatever weights it has; the model itself is not changed.

    Args:
        model: ``open_clip.CLIP``, ``CustomTextCLIP`` or ``CoCa``, in evaluation mode.
        tokenizer: Its tokenizer (``open_clip.get_tokenizer(...)``).
        preprocess_cfg: open_clip's preprocessing configuration (``size``, ``mean``, ``std``, ``interpolation``, ``resize_mode``); the one
            that open_clip attached to the model by default.
        name: Name for results.

    Raises:
        UnsupportedModelError: No spatial map can be read from its image tower.
        ModelError: The model is in training mode, or not of open_clip.
    """
    return read(_tower(model, name), _made(model, tokenizer, preprocess_cfg or {}, name, "open_clip's configuration of the model"))


def _tower(model: nn.Module, name: str) -> str:
    """Names the image tower as the families' patterns do."""
    visual = getattr(model, "visual", None)
    if visual is None or not hasattr(model, "encode_text"):
        raise ModelError(f"{name}: expected an open_clip model with an image and a text tower, received {type(model).__name__}.")
    kind = type(visual).__name__
    return f"timm:{type(visual.trunk).__name__}" if kind == "TimmModel" else f"open_clip:{kind}"


def _made(
    model: nn.Module,
    tokenizer: Callable[..., Tensor],
    config: Mapping[str, Any],
    name: str,
    origin: str,
    unsure: Mapping[str, str] | None = None,
) -> Made:
    own = getattr(getattr(model, "visual", None), "preprocess_cfg", None) or {}
    return Made(name, model, _text(model, tokenizer), {**own, **config}, origin, unsure or {})


def _ready(
    model: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Callable[..., Tensor],
    config: Mapping[str, Any],
    name: str,
    origin: str,
    unsure: Mapping[str, str] | None = None,
) -> Backbone:
    tower = _tower(model, name)
    return finish(tower, _made(model, tokenizer, config, name, origin, unsure), device, dtype)


def _no_configuration(folder: Path, what: str) -> ModelError:
    return ModelError(f"{folder / CONFIG} is not an open_clip configuration: {what}. Copy it again from where the model comes from.")


def from_folder(folder: Path, name: str, device: torch.device, dtype: torch.dtype, repository: str | None = None) -> Backbone:
    """Loads a folder in open_clip's layout; ``repository`` is where it comes from on the hub."""
    open_clip = import_open_clip()
    weights = weights_in(folder)
    if weights is None:
        raise ModelError(
            f"no weights in {str(folder)!r}: expected one of {', '.join(WEIGHTS)} beside {CONFIG}. Random weights are never used."
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_configuration(folder, f"it cannot be read as JSON: {' '.join(str(error).split())}") from error
    model_cfg = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model_cfg, dict):
        raise _no_configuration(folder, "expected an object with an object 'model_cfg' in it")
    for key, kind in (("embed_dim", int), ("vision_cfg", dict), ("text_cfg", dict)):
        if not isinstance(model_cfg.get(key), kind):
            wanted = "a whole number" if kind is int else "an object"
            raise _no_configuration(folder, f"expected {wanted} as {key!r} of 'model_cfg', received {json.dumps(model_cfg.get(key))[:60]}")
    with _explained(name, weights):
        if _has_caption_projector(weights):
            model = _two_projectors(model_cfg, weights)
            preprocess_cfg = config.get("preprocess_cfg", {})
        else:
            model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True, weights_only=True)
            preprocess_cfg = {}
    # Our own settings stand apart from open_clip's, which refuses names that it does not know.
    own = {**preprocess_cfg, **published.checked(config.get("preprocess"), folder / CONFIG), **config.get("concept_cam", {})}
    tokenizer = _folder_tokenizer(folder, model_cfg, name, repository)
    stored = f"stored in {CONFIG}" if config.get("preprocess_cfg") or config.get("preprocess") else published.DEFAULT
    return _ready(model, device, dtype, tokenizer, own, name, stored)


def from_file(architecture: str, tag: str, weights: Path, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Loads a weights file of one of open_clip's architectures, read as its published weights are.

    Args:
        architecture: Name of the architecture.
        tag: Published weights that this file is to be read like; empty: what all of the architecture's weights have in common.
        weights: The file.
        name: Name for results.
        device: Where it goes.
        dtype: Floating-point type.
    """
    open_clip = import_open_clip()
    if not weights.is_file():
        raise ModelError(f"the weights file {str(weights)!r} does not exist (model {name!r}).")
    like = published.read_like(architecture, tag)
    if not tag and (warning := published.activation_warning(architecture, str(weights))):
        warnings.warn(warning, UserWarning, stacklevel=2)
    with _explained(name, weights):
        if _has_caption_projector(weights):
            model = _two_projectors(open_clip.get_model_config(architecture), weights)
        else:
            model = open_clip.create_model(
                architecture, pretrained=str(weights), require_pretrained=True, weights_only=True, force_quick_gelu=like.quick_gelu
            )
    return _ready(model, device, dtype, _architecture_tokenizer(architecture, name), like.config, name, like.origin, like.unsure)


def from_tag(architecture: str, tag: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Loads one of open_clip's published tags."""
    open_clip = import_open_clip()
    found = published.of_tag(architecture, tag)
    quick = bool(found.get("quick_gelu", False))
    weights = _published_weights(found, name)
    like = published.read_like(architecture, tag)
    with _explained(name, weights):
        model = open_clip.create_model(
            architecture,
            pretrained=str(weights),
            require_pretrained=True,
            weights_only=True,
            force_quick_gelu=quick,
            force_preprocess_cfg=dict(like.config),
        )
    return _ready(model, device, dtype, _architecture_tokenizer(architecture, name), like.config, name, like.origin)


def outline(architecture: str, config: Mapping[str, Any], origin: str) -> Backbone:
    """Reads an architecture as a model of it would be read, to tell how: its parameters have shapes and no values, so it encodes nothing.

    The text tower, which decides nothing of that and whose configuration may have to be downloaded, is a stand-in.

    Args:
        architecture: Name of one of open_clip's architectures.
        config: How pictures are prepared.
        origin: Where that comes from, for people.

    Raises:
        UnsupportedModelError: No spatial map can be read from its image tower.
    """
    open_clip = import_open_clip()
    known = open_clip.get_model_config(architecture)
    text = known.get("text_cfg") or {}
    stand_in = {"context_length": int(text.get("context_length") or 77), "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
    with torch.device("meta"):
        model = open_clip.CLIP(known["embed_dim"], {**known["vision_cfg"], "timm_model_pretrained": False}, stand_in).eval()
    model.logit_scale = nn.Parameter(torch.zeros((), device="cpu"))  # Looked at when a model is read.
    reader = cast(TextEncoder, SimpleNamespace(context_length=0 if text.get("hf_model_name") else stand_in["context_length"]))
    return read(_tower(model, architecture), Made(architecture, model, reader, config, origin))


def weights_in(folder: Path) -> Path | None:
    """Returns the weights of a folder, in open_clip's order of preference."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def hub_folder(repository: str) -> Path:
    """Returns the local folder of an open_clip model of the hub, downloading what is missing."""
    name = f"hf-hub:{repository}"
    if repository.count("/") != 1:
        raise ModelError(f"expected 'hf-hub:ORGANISATION/NAME', received {name!r}.")
    config = hub.cached(repository, CONFIG)
    if config is not None and weights_in(config.parent) is not None:
        return config.parent
    files = f"{CONFIG} and {WEIGHTS[0]} (or {WEIGHTS[2]})"
    config = hub.download_file(repository, CONFIG, name, files)
    if config is None:
        raise ModelError(
            f"{name} holds no {CONFIG}, so it is not an open_clip model. For a transformers model say 'transformers:{repository}'."
        )
    for file in WEIGHTS:
        if hub.download_file(repository, file, name, files) is not None:
            return config.parent
    raise ModelError(f"{name} holds no open_clip weights: expected one of {', '.join(WEIGHTS)}.")


def _published_weights(published: Mapping[str, Any], name: str) -> Path:
    """Returns the weights file of one of open_clip's pretrained tags, downloading it when it is not cached."""
    repository, file = os.path.split(published.get("hf_hub") or "")
    if not repository:
        open_clip = import_open_clip()
        try:
            return Path(open_clip.download_pretrained(dict(published)))
        except Exception as error:
            raise ModelError(f"cannot download {name} from {published.get('url')}: {error}.") from error
    names = (file,) if file else WEIGHTS[:3]
    for candidate in names:
        found = hub.cached(repository, candidate)
        if found is not None:
            return found
    for candidate in names:
        found = hub.download_file(repository, candidate, name, " or ".join(names))
        if found is not None:
            return found
    raise ModelError(f"{name}: the hub's {repository} holds none of {', '.join(names)}.")


def _text(model: nn.Module, tokenizer: Callable[..., Tensor]) -> TextEncoder:
    limit = int(getattr(model, "context_length", 0) or 0)
    wanted = int(getattr(tokenizer, "context_length", 0) or 0)
    tower_kind = type(getattr(model, "text", None)).__name__
    # open_clip's own text towers have a position for each token and read exactly that many; those of transformers read up to their maximum.
    context = min(filter(None, (limit, wanted))) if tower_kind == "HFTextEncoder" else limit or wanted

    tower = ModelTower(model, _embed)
    return TextEncoder(OpenClipTokens(tokenizer, context), tower, tower.device)


def _embed(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    embedding: Tensor = model.encode_text(inputs["text"], normalize=False)
    return embedding


class _explained:
    """Turns the many errors of reading weights into one :class:`ModelError` that names the file."""

    def __init__(self, name: str, weights: Path) -> None:
        self._name, self._weights = name, weights

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, ConceptCamError) or not isinstance(error, Exception):
            return
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else ""
        if "weights_only" in str(error) or "WeightsUnpickler" in str(error):
            first = "it holds more than tensors, and only tensors are read; save its state_dict as .safetensors"
        if "loading state_dict" in first:
            reason = _unfit(str(error))
        elif any(frame.name.startswith("resize_") for frame in traceback.extract_tb(error.__traceback__)):
            # open_clip resizes tables of positions before it compares anything, and trips over those of another network.
            reason = f"the weights do not fit this network: their table of positions has other dimensions; {_OTHER}"
        else:
            reason = damage_of(self._weights) or f"{type(error).__name__}: {first}"
        raise ModelError(f"cannot load {self._name} from {self._weights}: {reason}.") from error


def _unfit(message: str) -> str:
    """Says how weights differ from the network, from torch's list of all that differs, which can have hundreds of lines."""
    found = []
    for line in message.splitlines():
        kind = next((said for torch_says, said in _TORCH_SAYS if torch_says in line), "")
        if kind:
            names = re.findall(r'"([^"]+)"', line)
            found.append(f"{len(names)} tensors {kind} (such as {names[0]!r})" if names else kind)
    shapes = re.findall(r"size mismatch for ([^:\s]+):", message)
    if shapes:
        found.append(f"{len(shapes)} tensors have another shape (such as {shapes[0]!r})")
    return f"the weights do not fit this network: {', '.join(found) or 'they differ'}; {_OTHER}"


_OTHER = "name the one that they belong to"
_TORCH_SAYS = (("Missing key(s)", "are missing"), ("Unexpected key(s)", "are foreign"))


# --------------------------------------------------------------------------------------- BioCAP: two visual projectors

CAPTION_PROJECTOR = "visual.caption_proj"


def _state_dict(weights: Path) -> dict[str, Tensor]:
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(weights)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _has_caption_projector(weights: Path) -> bool:
    """Tells whether a checkpoint holds BioCAP's second visual projector, without reading the tensors where the format allows."""
    if weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(weights, framework="pt") as file:
            return CAPTION_PROJECTOR in file.keys()  # noqa: SIM118
    state = torch.load(weights, map_location="meta", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return any(key.removeprefix("module.") == CAPTION_PROJECTOR for key in state)


def _two_projectors(model_cfg: Mapping[str, Any], weights: Path) -> nn.Module:
    """Builds a BioCAP model whose image projection is the caption projector.

    BioCAP trains a taxonomic projector (``visual.proj``) for species names and a caption projector (``visual.caption_proj``) for
    descriptions, with a temperature each. Trait texts are descriptions, so patches and image are projected by the latter. Stock open_clip
    knows neither its configuration key ``dual_projector`` nor its second projector; the rest of the model is a plain CLIP.
    """
    open_clip = import_open_clip()
    config = copy.deepcopy(dict(model_cfg))
    config["vision_cfg"] = {key: value for key, value in config["vision_cfg"].items() if key != "dual_projector"}
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    model: Any = kind(**config)
    state = _state_dict(weights)
    state["visual.proj"] = state.pop(CAPTION_PROJECTOR)
    for name in ("logit_scale", "logit_bias"):
        caption = state.pop(f"{name}_caption", None)
        if caption is not None and getattr(model, name) is not None:
            state[name] = caption
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    model.load_state_dict(state, strict=True)
    built: nn.Module = model
    return built


# ------------------------------------------------------------------------------------------------------------ tokenizers


def _folder_tokenizer(folder: Path, model_cfg: Mapping[str, Any], name: str, hub: str | None) -> Callable[..., Tensor]:
    open_clip = import_open_clip()
    wanted = (model_cfg.get("text_cfg") or {}).get("hf_tokenizer_name")
    inside = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "tokenizer.model"))
    if not wanted:
        return cast("Callable[..., Tensor]", open_clip.get_tokenizer(f"local-dir:{folder}"))
    import_transformers()
    if inside:
        try:
            return cast("Callable[..., Tensor]", open_clip.get_tokenizer(f"local-dir:{folder}"))
        except Exception as error:
            raise ModelError(f"the tokenizer in {str(folder)!r} cannot be read: {error}.") from error
    source = f"hf-hub:{hub}" if hub else None
    if source is None:
        raise ModelError(f"{name} needs the files of the tokenizer {wanted!r} (tokenizer.json, tokenizer_config.json) in {str(folder)!r}.")
    return _hub_tokenizer(source, wanted, name)


def _architecture_tokenizer(architecture: str, name: str) -> Callable[..., Tensor]:
    open_clip = import_open_clip()
    config = open_clip.get_model_config(architecture) or {}
    wanted = config.get("text_cfg", {}).get("hf_tokenizer_name")
    if not wanted:
        return cast("Callable[..., Tensor]", open_clip.get_tokenizer(architecture))
    return _hub_tokenizer(architecture, wanted, name)


def _hub_tokenizer(source: str, wanted: str, name: str) -> Callable[..., Tensor]:
    """Makes open_clip's wrapper of a tokenizer of the hub, from the cache if it is there."""
    open_clip = import_open_clip()
    import_transformers()
    try:
        return cast("Callable[..., Tensor]", open_clip.get_tokenizer(source, local_files_only=True))
    except Exception as error:
        if not hub.reachable():
            raise hub.no_network(f"the tokenizer of {name}", wanted, "tokenizer.json and tokenizer_config.json") from error
    try:
        return cast("Callable[..., Tensor]", open_clip.get_tokenizer(source))
    except Exception as error:
        raise ModelError(f"the tokenizer {wanted!r} of {name} cannot be loaded: {error}.") from error
