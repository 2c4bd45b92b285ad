"""Names of models: which form a name has, what loads it, and what can be named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from concept_cam.backbones import ALIASES, BUNDLED, FAMILIES
from concept_cam.backbones.int8 import INT8, in_int8
from concept_cam.backbones.loading import classifiers, hub, open_clip, published, transformers
from concept_cam.backbones.loading.families import finish
from concept_cam.backbones.machine import device_of
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.torchvision_compat import import_open_clip
from concept_cam.core.documents import understood
from concept_cam.core.errors import ModelError, UnsupportedModelError
from concept_cam.core.names import choose, did_you_mean
from concept_cam.core.quiet import quiet

__all__ = ["PREFIXES", "CatalogueEntry", "about", "catalogue", "load"]

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Names of the floating-point types that towers can run in."""


def load(name: str = "demo", device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32") -> Backbone:
    """Loads a model by name; see :func:`concept_cam.backbones.load`."""
    with quiet(), understood(f"the model {name!r}", ModelError):
        if dtype == INT8:
            return in_int8(_load(name, device, torch.float32))
        return _load(name, device, dtype)


def _load(name: str, device: str | torch.device, dtype: str | torch.dtype) -> Backbone:
    where, kind = device_of(device), _dtype(dtype)
    name = ALIASES.get(name.strip(), name.strip())
    if name == "demo":
        return _bundled(where, kind)
    prefix, colon, rest = name.partition(":")
    if colon and prefix in PREFIXES:
        return PREFIXES[prefix](rest, name, where, kind)
    if name and Path(name).is_dir():
        return _folder(name, name, where, kind)
    architecture, _, tag = (prefix if rest else name).partition("/")
    if architecture in _architectures():
        if rest:
            return open_clip.from_file(architecture, tag, Path(rest), name, where, kind)
        if tag:
            return open_clip.from_tag(architecture, tag, name, where, kind)
    raise _unknown(name)


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    return choose(name, TORCH_DTYPES, "dtype")


def _architectures() -> set[str]:
    return set(import_open_clip().list_models())


def _unknown(name: str) -> ModelError:
    tags = [f"{architecture}/{tag}" for architecture, tag in import_open_clip().list_pretrained()]
    if name in _architectures():
        own = [tag for tag in tags if tag.startswith(f"{name}/")]
        return ModelError(
            f"{name!r} is an architecture without weights, and random weights are never used. "
            + (f"Choose one of: {', '.join(own)}; or" if own else "No weights are published for it;")
            + f" give a file: {name}:FILE.safetensors"
        )
    if Path(name).is_absolute() or name.startswith(("./", "../", "~")):
        if Path(name).is_file():
            return ModelError(f"{name!r} is a file: name the network that its weights belong to as well, as in ViT-B-16:{name}.")
        return ModelError(f"the folder {name!r} does not exist.")
    hint = did_you_mean(name, ["demo", *ALIASES, *ALIASES.values(), *tags], 3)
    return ModelError(
        f"unknown model {name!r}.{hint} Known forms: 'demo', {', '.join(map(repr, ALIASES))}, 'ARCHITECTURE/TAG' such as "
        "'ViT-B-16/openai', 'hf-hub:ORGANISATION/NAME', 'local-dir:FOLDER', 'ARCHITECTURE:FILE.safetensors', 'transformers:ID', "
        "'dinov2:ID', 'dinov3:ID', 'radio:ID', 'dinotxt:FOLDER', 'timm:NAME[,CHECKPOINT]'."
    )


# ------------------------------------------------------------------------------------------------------------- prefixes


def _from_hub(rest: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    return open_clip.from_folder(open_clip.hub_folder(rest), name, device, dtype, rest)


def _folder(rest: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    folder = Path(rest)
    if not folder.is_dir():
        raise ModelError(f"the folder {rest!r} does not exist (model {name!r}).")
    if (folder / open_clip.CONFIG).is_file():
        return open_clip.from_folder(folder, name, device, dtype)
    if (folder / "config.json").is_file():
        own = _own_family(folder / "config.json")
        return _of_own_family(folder, own, name, device, dtype) if own else transformers.from_name(rest, name, device, dtype)
    raise ModelError(
        f"no model in {rest!r}: expected {open_clip.CONFIG} with weights beside it ({open_clip.WEIGHTS[0]}), or a transformers model "
        "(config.json)."
    )


def _own_family(config: Path) -> str:
    """Returns the family that a folder's configuration names: one of this package's own; empty for the libraries' folders."""
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
        return str(found.get("family") or "")
    except (OSError, ValueError, AttributeError):
        return ""  # What reads the folder says what is wrong with it.


def _of_own_family(folder: Path, name_of_family: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    own = {key: family for key, family in FAMILIES.items() if family.maker}
    made = choose(name_of_family, own, f"family in {folder / 'config.json'}", ModelError).make()(folder, name)
    return finish(f"folder:{name_of_family}", made, device, dtype)


def _transformers(rest: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    return transformers.from_name(rest, name, device, dtype)


def _feature_tower(model_types: tuple[str, ...], pooling: str) -> Callable[[str, str, torch.device, torch.dtype], Backbone]:
    def load_tower(rest: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
        return transformers.from_name(rest, name, device, dtype, {"pooling": pooling}, model_types)

    return load_tower


def _dinotxt(rest: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    return _of_own_family(Path(rest), "dinotxt", name, device, dtype)


def _timm(rest: str, name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    return classifiers.load_timm(rest, device, dtype)


DINOV2, DINOV3 = ("dinov2", "dinov2_with_registers"), ("dinov3_vit", "dinov3_convnext")

PREFIXES: dict[str, Callable[[str, str, torch.device, torch.dtype], Backbone]] = {
    "hf-hub": _from_hub,
    "local-dir": _folder,
    "transformers": _transformers,
    "dinov2": _feature_tower(DINOV2, "mean"),
    "dinov2-cls": _feature_tower(DINOV2, "cls"),
    "dinov3": _feature_tower(DINOV3, "mean"),
    "dinov3-cls": _feature_tower(DINOV3, "cls"),
    "radio": _feature_tower(("radio",), "mean"),
    "dinotxt": _dinotxt,
    "timm": _timm,
}
"""What stands before a name's colon -> what loads the rest; :data:`concept_cam.backbones.NAME_FORMS` describes them."""


def _bundled(device: torch.device, dtype: torch.dtype) -> Backbone:
    known = [name for name in (open_clip.CONFIG, "config.json") if (BUNDLED / name).is_file()]
    if not known or open_clip.weights_in(BUNDLED) is None:
        raise ModelError(f"the bundled model is missing from {BUNDLED}. Reinstall concept-cam, or name another model.")
    return _folder(str(BUNDLED), "demo", device, dtype)


# ------------------------------------------------------------------------------------------------------------- catalogue


@dataclass(frozen=True)
class CatalogueEntry:
    """One model that can be named.

    Attributes:
        name: As given to :func:`load`.
        source: Where it comes from, for people.
        cached: Whether its weights are on this machine.
        preprocess: How its pictures are prepared, for people; empty where only the files say it.
    """

    name: str
    source: str
    cached: bool
    preprocess: str = ""


def catalogue() -> list[CatalogueEntry]:
    """Lists the bundled model, the public names and every pretrained tag of open_clip, with what is on this machine already."""
    library = import_open_clip()
    entries = [CatalogueEntry("demo", "comes with concept-cam", open_clip.weights_in(BUNDLED) is not None)]
    for alias, target in ALIASES.items():
        config = hub.cached(target.removeprefix("hf-hub:"), open_clip.CONFIG)
        entries.append(CatalogueEntry(alias, target, config is not None and open_clip.weights_in(config.parent) is not None))
    for architecture, tag in library.list_pretrained():
        found = library.pretrained.get_pretrained_cfg(architecture, tag)
        repository, file = os.path.split(found.get("hf_hub") or "")
        cached = bool(repository) and any(hub.cached(repository, name) is not None for name in ((file,) if file else open_clip.WEIGHTS[:3]))
        source = f"open_clip, {repository or found.get('url')}"
        entries.append(CatalogueEntry(f"{architecture}/{tag}", source, cached, published.spoken(found)))
    return entries


def about(name: str) -> list[tuple[str, str]]:
    """Says how a model is read, in names and texts for people; an architecture, alone or with a tag, needs no weights.

    Raises:
        ModelError: An unknown name, or a model that cannot be loaded.
    """
    architecture, _, tag = name.partition("/")
    if architecture in _architectures():
        return _about_architecture(architecture, tag)
    backbone = load(name)
    weights = [("weights", backbone.weights_hash)]
    return _read(backbone, weights, [("preprocessing", str(backbone.preprocess))], _space(backbone)) + _unsure(backbone.preprocess.unsure)


def _about_architecture(architecture: str, tag: str) -> list[tuple[str, str]]:
    like = published.read_like(architecture, tag)
    prepared = [
        ("preprocessing", published.spoken(like.config) or "mean and deviation of OpenAI, bicubic, shortest"),
        ("from", like.origin),
    ]
    named = f"{architecture}/{tag}" if tag else f"{architecture}/TAG or {architecture}:FILE"
    weights = [("weights", f"not looked at; {named} loads them")]
    try:
        backbone = open_clip.outline(architecture, like.config, like.origin)
    except UnsupportedModelError as error:
        rows = [("family", f"none: {error}"), *prepared]
    else:
        rows = _read(backbone, weights, prepared, _space(backbone) if backbone.context_length else f"{backbone.embed_dim} dimensions")
    rows += _unsure(tuple(like.unsure.items()))
    quick = "" if tag else published.activation_warning(architecture, "FILE")
    return rows + ([("activation", quick)] if quick else [])


def _read(backbone: Backbone, weights: list[tuple[str, str]], prepared: list[tuple[str, str]], space: str) -> list[tuple[str, str]]:
    """How a backbone is read, with or without values in it."""
    family = FAMILIES[backbone.family]
    height, width = backbone.preprocess.size
    read_height, read_width = backbone.preprocess.default_size
    return [
        ("family", f"{backbone.family}: {family.description}"),
        *weights,
        ("input", f"{height} x {width} pixels, {backbone.preprocess.stride[0]} per cell; maps are read at {read_height} x {read_width}"),
        *prepared,
        ("joint space", space),
        ("pooling", family.pooling),
        ("attention", f"auto: {backbone.default_attention}; known: {', '.join(backbone.attentions)}"),
        ("why", family.reason),
        ("verified", family.verified),
    ]


def _unsure(said: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), f"published weights differ: {text}") for key, text in said]


def _space(backbone: Backbone) -> str:
    if not backbone.context_length:
        return f"{backbone.embed_dim} dimensions, without a text tower"
    return f"{backbone.embed_dim} dimensions, texts of at most {backbone.context_length} tokens"
