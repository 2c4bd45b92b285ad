"""From a name, a file or an already made model object to a backbone; nothing is ever loaded with random weights."""

from __future__ import annotations

import copy
import json
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from concept_cam.backbones import ALIASES, BUNDLED, FAMILIES
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.text import OpenClipTokens, TextEncoder, TransformersTokens
from concept_cam.backbones.torchvision_compat import import_open_clip, import_transformers
from concept_cam.backbones.views import VIEWS
from concept_cam.core.errors import ConceptCamError, ConfigurationError, ModelError, UnsupportedModelError
from concept_cam.core.names import choose, nearest_names
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["CatalogueEntry", "catalogue", "from_open_clip", "from_transformers", "load"]

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Names of the floating-point types that towers can run in."""

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
TRANSFORMERS_MODELS: dict[str, str] = {
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
}
"""Model types of the transformers library that can be read, and their classes."""
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def load(name: str = "demo", device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32") -> Backbone:
    """Loads a model by name; see :func:`concept_cam.backbones.load`."""
    where, kind = _device(device), _dtype(dtype)
    name = ALIASES.get(name.strip(), name.strip())
    prefix, _, rest = name.partition(":")
    if name == "demo":
        return _bundled(where, kind)
    if prefix == "hf-hub":
        return _open_clip_folder(_hub_folder(rest), name, where, kind, hub=rest)
    if prefix == "transformers":
        return _transformers(rest, name, where, kind)
    if prefix == "local-dir" or (name and Path(name).is_dir()):
        return _folder(Path(rest if prefix == "local-dir" else name), name, where, kind)
    if rest and prefix in _architectures():
        return _open_clip_file(prefix, Path(rest), name, where, kind)
    architecture, slash, tag = name.partition("/")
    if slash and architecture in _architectures():
        return _open_clip_tag(architecture, tag, name, where, kind)
    raise _unknown(name)


# ------------------------------------------------------------------------------------------------ from a model already made


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
    import_open_clip()
    visual = getattr(model, "visual", None)
    if visual is None or not hasattr(model, "encode_text"):
        raise ModelError(f"{name}: expected an open_clip model with an image and a text tower, received {type(model).__name__}.")
    config = {**(getattr(visual, "preprocess_cfg", None) or {}), **(preprocess_cfg or {})}
    text = _open_clip_text(model, tokenizer)
    kind = type(visual).__name__
    if kind == "VisionTransformer":
        from concept_cam.backbones.open_clip_vit import OpenClipViT

        return OpenClipViT(model, name=name, preprocess=_preprocess(config, visual.image_size, visual.patch_size), text=text)
    if kind == "ModifiedResNet":
        from concept_cam.backbones.open_clip_resnet import OpenClipResNet

        return OpenClipResNet(
            model,
            name=name,
            preprocess=_preprocess(config, visual.image_size, config.get("read_stride") or 32),
            text=text,
        )
    if kind == "TimmModel":
        return _timm(model, visual, config, name, text)
    raise _unsupported(name, f"image tower {kind}")


def _timm(model: nn.Module, visual: Any, config: Mapping[str, Any], name: str, text: TextEncoder) -> Backbone:
    from concept_cam.backbones.timm_spatial import ANY_SIZE, TimmSpatial
    from concept_cam.backbones.timm_vit import TRUNKS, TimmViT

    trunk = visual.trunk
    kind = type(trunk).__name__
    size = _pair(visual.image_size)
    embed_dim = _embed_dim(model, text)
    try:
        if kind in TRUNKS:
            grid, size = trunk.patch_embed.grid_size, _pair(trunk.patch_embed.img_size or size)
            stride = (size[0] // grid[0], size[1] // grid[1])
            return TimmViT(model, name=name, preprocess=_preprocess(config, size, stride), text=text, embed_dim=embed_dim)
        info = getattr(trunk, "feature_info", None)
        if not info or hasattr(trunk, "num_prefix_tokens"):
            raise UnsupportedModelError(f"{name}: the timm tower {kind} has no spatial map.")
        stride = _pair(info[-1]["reduction"])
        preprocess = _preprocess(config, size, stride, flexible=kind in ANY_SIZE)
        return TimmSpatial(model, name=name, preprocess=preprocess, text=text, embed_dim=embed_dim)
    except UnsupportedModelError as error:
        raise _unsupported(name, f"timm tower {kind}", str(error)) from error


def from_transformers(model: nn.Module, tokenizer: Any, image_processor: Any = None, name: str = "transformers model") -> Backbone:
    """Reads a model of the transformers library that exists already, with whatever weights it has; the model itself is not changed.

    Args:
        model: ``CLIPModel``, ``SiglipModel`` or ``Siglip2Model``, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Its image processor, of which only the settings are read; ``None``: those usual for the model type.
        name: Name for results.

    Raises:
        UnsupportedModelError: Another model type.
        ModelError: The model is in training mode.
    """
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    if kind not in TRANSFORMERS_MODELS or not hasattr(model, "text_model") or not hasattr(model, "vision_model"):
        raise _unsupported(name, f"model type {kind!r} ({type(model).__name__}) of the transformers library")
    vision = config.vision_config
    siglip = kind != "clip"
    if kind == "siglip2":
        side = round(vision.num_patches**0.5) * vision.patch_size
        size = (side, side)
    else:
        size = _pair(vision.image_size)
    settings = _processor_settings(image_processor, siglip)
    tokens = TransformersTokens(tokenizer, int(config.text_config.max_position_embeddings), "max_length" if siglip else "longest")
    any_model: Any = model

    def tower(inputs: dict[str, Tensor]) -> Tensor:
        from concept_cam.backbones.transformers_clip import pooled

        return pooled(any_model.get_text_features(**inputs))

    text = TextEncoder(tokens, tower, lambda: next(model.parameters()).device)
    preprocess = _preprocess(settings, size, int(vision.patch_size))
    if siglip:
        from concept_cam.backbones.transformers_siglip import TransformersSiglip

        return TransformersSiglip(model, name=name, preprocess=preprocess, text=text)
    from concept_cam.backbones.transformers_clip import TransformersClip

    return TransformersClip(model, name=name, preprocess=preprocess, text=text)


def _open_clip_text(model: nn.Module, tokenizer: Callable[..., Tensor]) -> TextEncoder:
    any_model: Any = model
    limit = int(getattr(model, "context_length", 0) or 0)
    wanted = int(getattr(tokenizer, "context_length", 0) or 0)
    tower_kind = type(getattr(model, "text", None)).__name__
    # open_clip's own text towers have a position for each token and read exactly that many; those of transformers read up to their maximum.
    context = min(filter(None, (limit, wanted))) if tower_kind == "HFTextEncoder" else limit or wanted

    def tower(inputs: dict[str, Tensor]) -> Tensor:
        return any_model.encode_text(inputs["text"], normalize=False)

    return TextEncoder(OpenClipTokens(tokenizer, context), tower, lambda: next(model.parameters()).device)


def _embed_dim(model: nn.Module, text: TextEncoder) -> int:
    for name, parameter in model.named_parameters():
        if name.endswith("text_projection"):
            return int(parameter.shape[1])
        if name.endswith("text_projection.weight"):
            return int(parameter.shape[0])
    return int(text(["a picture"]).shape[1])


def _preprocess(
    config: Mapping[str, Any],
    size: int | tuple[int, int],
    stride: int | tuple[int, int],
    flexible: bool = True,
) -> Preprocess:
    mean, std = (tuple(float(part) for part in config.get(key) or default) for key, default in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)))
    interpolation = config.get("interpolation") or "bicubic"
    views = config.get("read_views") or "single"
    choose(views, VIEWS, "read_views in the checkpoint's configuration", ModelError)
    return Preprocess(
        size=_pair(size),
        stride=_pair(stride),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        interpolation="bicubic" if interpolation == "random" else interpolation,
        native=config.get("resize_mode") or "shortest",
        flexible=flexible,
        read_size=_pair(config["read_size"]) if config.get("read_size") else None,
        views=views,
    )


def _processor_settings(processor: Any, siglip: bool) -> dict[str, Any]:
    """Returns an image processor's settings in open_clip's terms."""
    if processor is None:
        plain = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}
        return plain if siglip else {}
    size = dict(getattr(processor, "size", None) or {})
    names = {0: "nearest", 2: "bilinear", 3: "bicubic"}
    return {
        "mean": getattr(processor, "image_mean", None),
        "std": getattr(processor, "image_std", None),
        "interpolation": names.get(int(getattr(processor, "resample", 3) or 0), "bicubic"),
        "resize_mode": "shortest" if size.get("shortest_edge") else "squash",
    }


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, tuple | list) else (int(value), int(value))


# ------------------------------------------------------------------------------------------------------------ from names


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(f"unknown device {device!r}: expected 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'.") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("no CUDA device is available to this torch; use device 'cpu', or install torch for CUDA.")
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("no MPS device is available to this torch; use device 'cpu'.")
    return where


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    return choose(name, DTYPES, "dtype")


def _architectures() -> set[str]:
    return set(import_open_clip().list_models())


def _unknown(name: str) -> ModelError:
    open_clip = import_open_clip()
    tags = [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
    if name in _architectures():
        own = [tag for tag in tags if tag.startswith(f"{name}/")]
        return ModelError(
            f"{name!r} is an architecture without weights, and random weights are never used. "
            + (f"Choose one of: {', '.join(own)}; or" if own else "No weights are published for it;")
            + f" give a file: {name}:FILE.safetensors"
        )
    near = nearest_names(name, ["demo", *ALIASES, *ALIASES.values(), *tags])
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return ModelError(
        f"unknown model {name!r}.{hint} Known forms: 'demo', {', '.join(map(repr, ALIASES))}, 'ARCHITECTURE/TAG' such as "
        "'ViT-B-16/openai', 'hf-hub:ORGANISATION/NAME', 'local-dir:FOLDER', 'ARCHITECTURE:FILE.safetensors', 'transformers:ID'."
    )


def _unsupported(name: str, what: str, why: str = "") -> UnsupportedModelError:
    lines = "; ".join(f"{key}: {family.description}" for key, family in FAMILIES.items())
    reason = f" ({why.removeprefix(f'{name}: ').rstrip('.')})" if why else ""
    return UnsupportedModelError(f"{name}: no spatial map can be read from the {what}{reason}. Families that can be localised: {lines}.")


def _bundled(device: torch.device, dtype: torch.dtype) -> Backbone:
    if not (BUNDLED / CONFIG).is_file() or _weights_in(BUNDLED) is None:
        raise ModelError(
            f"the bundled model is missing: expected {CONFIG} and {WEIGHTS[0]} in {BUNDLED}. Reinstall concept-cam, or name another model."
        )
    return _open_clip_folder(BUNDLED, "demo", device, dtype)


def _folder(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    if not folder.is_dir():
        raise ModelError(f"the folder {str(folder)!r} does not exist (model {name!r}).")
    if (folder / CONFIG).is_file():
        return _open_clip_folder(folder, name, device, dtype)
    if (folder / "config.json").is_file():
        return _transformers(str(folder), name, device, dtype)
    raise ModelError(
        f"no model in {str(folder)!r}: expected {CONFIG} with weights beside it ({WEIGHTS[0]}), or a transformers model (config.json)."
    )


def _weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def _finish(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return model.to(device=device, dtype=dtype).eval()


def _open_clip_folder(folder: Path, name: str, device: torch.device, dtype: torch.dtype, hub: str | None = None) -> Backbone:
    open_clip = import_open_clip()
    weights = _weights_in(folder)
    if weights is None:
        raise ModelError(
            f"no weights in {str(folder)!r}: expected one of {', '.join(WEIGHTS)} beside {CONFIG}. Random weights are never used."
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model_cfg = config["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG} is not an open_clip configuration: {type(error).__name__} {error}.") from error
    with _explained(name, weights):
        if _has_caption_projector(weights):
            model = _two_projectors(model_cfg, weights)
            preprocess_cfg = config.get("preprocess_cfg", {})
        else:
            model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True, weights_only=True)
            preprocess_cfg = {}
    # Our own settings stand apart from open_clip's, which refuses names that it does not know.
    preprocess_cfg = {**preprocess_cfg, **config.get("concept_cam", {})}
    tokenizer = _folder_tokenizer(folder, model_cfg, name, hub)
    return from_open_clip(_finish(model, device, dtype), tokenizer, preprocess_cfg, name)


def _open_clip_file(architecture: str, weights: Path, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    open_clip = import_open_clip()
    if not weights.is_file():
        raise ModelError(f"the weights file {str(weights)!r} does not exist (model {name!r}).")
    with _explained(name, weights):
        if _has_caption_projector(weights):
            model = _two_projectors(open_clip.get_model_config(architecture), weights)
        else:
            model = open_clip.create_model(architecture, pretrained=str(weights), require_pretrained=True, weights_only=True)
    return from_open_clip(_finish(model, device, dtype), _architecture_tokenizer(architecture, name), name=name)


def _open_clip_tag(architecture: str, tag: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        near = nearest_names(tag, tags)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ModelError(f"open_clip has no weights {tag!r} for {architecture}.{hint} Known: {', '.join(tags) or 'none'}.")
    published = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    quick = bool(published.get("quick_gelu", False))
    if not quick and (open_clip.get_model_config(architecture) or {}).get("quick_gelu", False):
        # The other activation function would give a plausible but wrong map.
        raise ModelError(f"the weights {tag!r} were not trained with QuickGELU: use {architecture.removesuffix('-quickgelu')}/{tag}.")
    weights = _published_weights(published, name)
    settings = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode") if published.get(key)}
    with _explained(name, weights):
        model = open_clip.create_model(
            architecture,
            pretrained=str(weights),
            require_pretrained=True,
            weights_only=True,
            force_quick_gelu=quick,
            force_preprocess_cfg=settings,
        )
    return from_open_clip(_finish(model, device, dtype), _architecture_tokenizer(architecture, name), name=name)


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
        raise ModelError(f"cannot load {self._name} from {self._weights}: {type(error).__name__}: {first}.") from error


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


# --------------------------------------------------------------------------------------------------------------- the hub


def _reachable() -> bool:
    """Tells whether the hub can be reached at all, at once: its client would retry for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    host = urllib.parse.urlparse(constants.ENDPOINT).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _cached(repository: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def _no_network(name: str, repository: str, files: str) -> ModelError:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    return ModelError(
        f"{name} is not on this machine and the hub cannot be reached. On a machine with network, download {files} from "
        f"https://huggingface.co/{repository}, put them into a folder, and name the model 'local-dir:FOLDER'; or copy that machine's "
        f"cache folder to {folder}."
    )


def _download(repository: str, file: str, name: str, files: str) -> Path | None:
    """Returns a file of the hub, from the cache if it is there; ``None`` when the repository does not have it."""
    found = _cached(repository, file)
    if found is not None:
        return found
    if not _reachable():
        raise _no_network(name, repository, files)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(hf_hub_download(repository, file))
    except RepositoryNotFoundError as error:
        raise ModelError(f"there is no model {repository!r} on the hub, or it needs a login (model {name!r}).") from error
    except LocalEntryNotFoundError as error:
        raise _no_network(name, repository, files) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise _no_network(name, repository, files) from error


def _hub_folder(repository: str) -> Path:
    """Returns the local folder of an open_clip model of the hub, downloading what is missing."""
    name = f"hf-hub:{repository}"
    if repository.count("/") != 1:
        raise ModelError(f"expected 'hf-hub:ORGANISATION/NAME', received {name!r}.")
    config = _cached(repository, CONFIG)
    if config is not None and _weights_in(config.parent) is not None:
        return config.parent
    files = f"{CONFIG} and {WEIGHTS[0]} (or {WEIGHTS[2]})"
    config = _download(repository, CONFIG, name, files)
    if config is None:
        raise ModelError(
            f"{name} holds no {CONFIG}, so it is not an open_clip model. For a transformers model say 'transformers:{repository}'."
        )
    for file in WEIGHTS:
        if _download(repository, file, name, files) is not None:
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
        found = _cached(repository, candidate)
        if found is not None:
            return found
    for candidate in names:
        found = _download(repository, candidate, name, " or ".join(names))
        if found is not None:
            return found
    raise ModelError(f"{name}: the hub's {repository} holds none of {', '.join(names)}.")


# ------------------------------------------------------------------------------------------------------------ tokenizers


def _folder_tokenizer(folder: Path, model_cfg: Mapping[str, Any], name: str, hub: str | None) -> Callable[..., Tensor]:
    open_clip = import_open_clip()
    wanted = (model_cfg.get("text_cfg") or {}).get("hf_tokenizer_name")
    inside = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "tokenizer.model"))
    if not wanted:
        return open_clip.get_tokenizer(f"local-dir:{folder}")
    import_transformers()
    if inside:
        try:
            return open_clip.get_tokenizer(f"local-dir:{folder}")
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
        return open_clip.get_tokenizer(architecture)
    return _hub_tokenizer(architecture, wanted, name)


def _hub_tokenizer(source: str, wanted: str, name: str) -> Callable[..., Tensor]:
    """Makes open_clip's wrapper of a tokenizer of the hub, from the cache if it is there."""
    open_clip = import_open_clip()
    import_transformers()
    try:
        return open_clip.get_tokenizer(source, local_files_only=True)
    except Exception as error:
        if not _reachable():
            raise _no_network(f"the tokenizer of {name}", wanted, "tokenizer.json and tokenizer_config.json") from error
    try:
        return open_clip.get_tokenizer(source)
    except Exception as error:
        raise ModelError(f"the tokenizer {wanted!r} of {name} cannot be loaded: {error}.") from error


# ---------------------------------------------------------------------------------------------------------- transformers


def _transformers(source: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    transformers = import_transformers()
    if not source:
        raise ModelError("expected 'transformers:ID' with the id of a model on the hub or a folder.")
    local = Path(source).is_dir()
    if not local and _cached(source, "config.json") is None and not _reachable():
        raise _no_network(name, source, "config.json, model.safetensors, preprocessor_config.json and the tokenizer's files")
    only_local = local or (_cached(source, "config.json") is not None and not _reachable())
    try:
        config = transformers.AutoConfig.from_pretrained(source, local_files_only=only_local)
        kind = config.model_type
        if kind not in TRANSFORMERS_MODELS:
            raise _unsupported(name, f"model type {kind!r} of the transformers library")
        cls = getattr(transformers, TRANSFORMERS_MODELS[kind])
        model, info = cls.from_pretrained(source, output_loading_info=True, local_files_only=only_local)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=only_local)
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
    return from_transformers(_finish(model, device, dtype), tokenizer, _image_processor(source, only_local), name)


def _image_processor(source: str, only_local: bool) -> Any:
    transformers = import_transformers()
    try:
        return transformers.AutoImageProcessor.from_pretrained(source, local_files_only=only_local)
    except (OSError, ValueError):
        return None  # Not stored with the model: the settings usual for its type.


# ------------------------------------------------------------------------------------------------------------- catalogue


@dataclass(frozen=True)
class CatalogueEntry:
    """One model that can be named.

    Attributes:
        name: As given to :func:`load`.
        source: Where it comes from, for people.
        cached: Whether its weights are on this machine.
    """

    name: str
    source: str
    cached: bool


def catalogue() -> list[CatalogueEntry]:
    """Lists the bundled model, the public names and every pretrained tag of open_clip, with what is on this machine already."""
    open_clip = import_open_clip()
    entries = [CatalogueEntry("demo", "comes with concept-cam", _weights_in(BUNDLED) is not None)]
    for alias, target in ALIASES.items():
        config = _cached(target.removeprefix("hf-hub:"), CONFIG)
        entries.append(CatalogueEntry(alias, target, config is not None and _weights_in(config.parent) is not None))
    for architecture, tag in open_clip.list_pretrained():
        published = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
        repository, file = os.path.split(published.get("hf_hub") or "")
        cached = bool(repository) and any(_cached(repository, name) is not None for name in ((file,) if file else WEIGHTS[:3]))
        entries.append(CatalogueEntry(f"{architecture}/{tag}", f"open_clip, {repository or published.get('url')}", cached))
    return entries
