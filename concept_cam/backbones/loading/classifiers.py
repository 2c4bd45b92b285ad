"""Image classifiers as towers: by name (``timm:NAME[,CHECKPOINT]``) or already built; their own last layer is the head. Networks of timm
without a last layer are towers of features, for a head of one's own.

They have no text tower. Class names come from a file, from the network's configuration, or, for networks of the thousand classes of
ImageNet, from timm's list.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from concept_cam.backbones import cnn_classifier, timm_features, vit_classifier
from concept_cam.backbones.damage import damage_of
from concept_cam.backbones.hashing import hash_weights
from concept_cam.backbones.loading import hub
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.core.errors import ConceptCamError, ConfigurationError, ModelError
from concept_cam.core.names import nearest_names
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["class_list", "from_classifier", "imagenet_names", "load_timm", "read_class_names", "read_state"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_CLASSES = 1000
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_state_dict")
"""Keys under which training programs keep a network's tensors."""


# ------------------------------------------------------------------------------------------------------------ class names


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's thousand classes from timm: the first word of each, or all words where two classes share the
    first.
    """
    prepare_torchvision()
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return class_list([info.index_to_description(index) for index in range(IMAGENET_CLASSES)], info.label_names())


@functools.cache
def imagenet_synsets() -> tuple[str, ...]:
    """Returns the WordNet numbers of ImageNet's thousand classes, such as ``"n01440764"``, in the order of :func:`imagenet_names`."""
    prepare_torchvision()
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo().label_names())


def class_list(descriptions: Sequence[str], labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Makes different names of descriptions such as ``"tench, Tinca tinca"``: the first part; all of it, then its label, where it is not
    alone.
    """
    first = [description.split(",")[0].strip() for description in descriptions]
    names = [short if first.count(short) == 1 else description for short, description in zip(first, descriptions)]
    labels = labels or [str(index) for index in range(len(names))]
    return tuple(name if names.count(name) == 1 else f"{name} ({label})" for name, label in zip(names, labels))


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Reads class names, one per line; empty lines and those that begin with ``#`` do not count.

    Raises:
        ConfigurationError: The file cannot be read, or holds fewer than two names.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the class list {str(path)!r}: {error}.") from error
    names = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if len(names) < 2:
        raise ConfigurationError(f"the class list {str(path)!r} holds {len(names)} names; expected at least two, one per line.")
    return names


def _names(model: Any, count: int, given: Sequence[str] | None, name: str) -> tuple[str, ...]:
    if given is not None:
        names = (given,) if isinstance(given, str) else tuple(given)  # not its letters
        if len(names) != count or len(set(names)) != count:
            raise ConfigurationError(f"{name} has {count} classes; received {len(names)} class names, {len(set(names))} of them different.")
        return names
    labels = getattr(getattr(model, "config", None), "id2label", None)
    if isinstance(labels, Mapping) and len(labels) == count and not all(str(value).startswith("LABEL_") for value in labels.values()):
        return class_list([str(labels[index]) for index in range(count)])
    config = getattr(model, "pretrained_cfg", None) or {}
    own = config.get("label_descriptions") or config.get("label_names")
    if own and len(own) == count:
        label_names = config.get("label_names") or ()
        texts = [str(own[label]) for label in label_names] if isinstance(own, Mapping) else [str(text) for text in own]
        if len(texts) == count:
            return class_list(texts)
    return imagenet_names() if count == IMAGENET_CLASSES else tuple(f"class {index}" for index in range(count))


# --------------------------------------------------------------------------------------------------------- a built network


def from_classifier(
    model: nn.Module,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
) -> Backbone:
    """Reads an image classifier that exists already, with whatever weights it has; the network itself is not changed.

    Args:
        model: A network of timm, torchvision or transformers, in evaluation mode.
        name: Name for results.
        classes: Class names; by default the configuration's, or ImageNet's for a thousand classes.
        preprocess: What its input must look like; by default timm's configuration, or 224 pixels with ImageNet's mean and deviation.

    Returns:
        A tower whose ``own_head`` is the network's last layer; ``None`` for a network of timm that has none.

    Raises:
        UnsupportedModelError: No spatial map can be read from it, or its last layer is not linear.
        ModelError: It is in training mode.
        ConfigurationError: Class names that do not fit, or no network.
    """
    if not isinstance(model, nn.Module):
        raise ConfigurationError(
            f"a classifier is read from a network that is built, received {reprlib.repr(model)} ({type(model).__name__}): give "
            "timm.create_model(...).eval(), or load one by name, backbones.load('timm:NAME')."
        )
    any_model: Any = model
    title = name or f"{type(model).__module__.partition('.')[0]} {type(model).__name__}"
    if model.training:
        raise ModelError(f"the model {title} is in training mode: call model.eval() first; it is never switched for you.")
    expected = preprocess or _expected(any_model)
    count = _class_count(any_model)

    def names(found: int | None) -> tuple[str, ...]:
        return _names(any_model, count if found is None else found, classes, title)

    if timm_features.is_feature_tower(model):
        return timm_features.read(Made(title, model, options={"patches": _patches(any_model, expected), "preprocess": expected}))
    if vit_classifier.reader_of(model) is not None:
        return vit_classifier.read(Made(title, model, options={"classes": names, "preprocess": _patches(any_model, expected)}))
    return cnn_classifier.read(Made(title, model, options={"classes": names, "preprocess": expected}))


def _class_count(model: Any) -> int:
    config = getattr(model, "config", None)
    count = getattr(model, "num_classes", None) or getattr(config, "num_labels", None)
    if isinstance(count, int):
        return count
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linears[-1].out_features if linears else 0


def _expected(model: Any) -> Preprocess:
    if getattr(model, "pretrained_cfg", None):
        prepare_torchvision()
        from timm.data.config import resolve_data_config

        config = resolve_data_config({}, model=model)
        _, height, width = config["input_size"]
        # A transformer that was built for another size than its published weights' reads that size.
        height, width = getattr(getattr(model, "patch_embed", None), "img_size", None) or (height, width)
        fixed = bool((getattr(model, "pretrained_cfg", None) or {}).get("fixed_input_size"))
        return Preprocess(
            (height, width), (32, 32), tuple(config["mean"]), tuple(config["std"]), config["interpolation"], flexible=not fixed
        )
    config = getattr(model, "config", None)
    side: Any = getattr(model, "image_size", None) or getattr(config, "image_size", None) or 224
    side = side if isinstance(side, int) else side[0]
    if config is not None and getattr(config, "model_type", None) == "dinov2" and side > 224 and 224 % config.patch_size == 0:
        side = 224
    return Preprocess((side, side), (32, 32), IMAGENET_MEAN, IMAGENET_STD, "bilinear")


def _patches(model: Any, expected: Preprocess) -> Preprocess:
    """The stride of a transformer is its patch; its position table can be resized, whatever its configuration says."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None) or getattr(model, "patch_size", None)
    config: Any = getattr(model, "config", None)
    patch = patch or getattr(config, "patch_size", None)
    if patch is None:
        return expected
    sides = (patch, patch) if isinstance(patch, int) else (int(patch[0]), int(patch[1]))
    return replace(expected, stride=sides, flexible=True)


# -------------------------------------------------------------------------------------------------------------- timm names


def load_timm(name: str, device: torch.device, dtype: torch.dtype, classes: Sequence[str] | None = None) -> Backbone:
    """Loads ``NAME`` or ``NAME,CHECKPOINT``: a network of timm with its published weights, or with those of a file.

    A checkpoint is a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, or ``package:NAME`` for the only such file inside an installed
    Python package. Names of tensors may differ from timm's where all tensors agree one for one in order and shape; a notice says so.

    Raises:
        ModelError: Unknown network, unreadable or unfitting checkpoint, or weights that cannot be fetched.
        UnsupportedModelError: No spatial map can be read from it.
    """
    prepare_torchvision()
    import timm

    architecture, comma, checkpoint = name.partition(",")
    architecture = architecture.strip()
    if not architecture.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(architecture.partition(".")[0]):
        near = nearest_names(architecture, timm.list_models())
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ModelError(f"timm has no network {architecture!r}.{hint} Expected 'timm:NAME' or 'timm:NAME,CHECKPOINT'.")
    if comma and not checkpoint.strip():
        raise ModelError(f"expected a checkpoint behind the comma of 'timm:{name}', or no comma.")
    title = f"timm:{name}"
    model = _from_checkpoint(architecture, checkpoint.strip(), title) if comma else _published(architecture, title)
    identity = None if dtype == torch.float32 else hash_weights(model.state_dict())
    tower = from_classifier(model.to(device=device, dtype=dtype).eval(), name=title, classes=classes)
    if identity is not None:
        tower.weights_hash = identity  # type: ignore[misc]  # a cached property of every family
    return tower


def _published(architecture: str, title: str) -> nn.Module:
    """Builds a network with timm's published weights, from the cache if they are there."""
    import timm

    repository = "" if ":" in architecture else getattr(timm.get_pretrained_cfg(architecture), "hf_hub_id", None) or ""
    files = [hub.cached(repository, file) for file in ("model.safetensors", "pytorch_model.bin")] if repository else []
    cached = next((file for file in files if file is not None), None)
    if cached is not None:
        return _from_checkpoint(architecture, str(cached), title)
    give = f"Give a file: 'timm:{architecture},FILE.safetensors'. Random weights are never used."
    if repository and not hub.reachable():
        raise ModelError(f"the weights of {title} are not on this machine and the hub cannot be reached. {give}")
    try:
        model: nn.Module = timm.create_model(architecture, pretrained=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"the weights of {title} cannot be fetched ({first}). {give}") from error
    return model


def _from_checkpoint(architecture: str, checkpoint: str, title: str) -> nn.Module:
    import timm

    state = read_state(_checkpoint_file(checkpoint, title), title)
    try:
        model: Any = timm.create_model(architecture, pretrained=False)
    except Exception as error:
        raise ModelError(f"timm cannot build {architecture!r}: {error}.") from error
    own = model.state_dict()
    if [tuple(value.shape) for value in own.values()] == [tuple(value.shape) for value in state.values()] and list(own) != list(state):
        if set(own) != set(state):
            warnings.warn(
                f"{title}: the checkpoint names its tensors otherwise than timm ({next(iter(state))!r} for {next(iter(own))!r} ...); all "
                f"{len(own)} agree "
                "one for one in order and shape and were taken in that order.",
                stacklevel=2,
            )
            state = dict(zip(own, state.values()))
    elif set(own) == set(state):
        last = model.get_classifier()
        names = [key for key, module in model.named_modules() if module is last]
        weight = state.get(f"{names[0]}.weight") if names else None
        differ = [key for key in own if own[key].shape != state[key].shape]
        if weight is not None and differ and all(key.startswith(f"{names[0]}.") for key in differ):
            model = timm.create_model(architecture, pretrained=False, num_classes=len(weight))
            own = model.state_dict()
    missing, foreign = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or foreign or shapes:
        raise ModelError(
            f"the checkpoint does not fit {architecture}: {len(missing)} tensors are missing{_such(missing)}, {len(foreign)} are "
            f"foreign{_such(foreign)}, "
            f"{len(shapes)} have another shape{_such(shapes)}, and they do not agree one for one in order and shape either. Name the "
            "network that "
            "these weights belong to."
        )
    model.load_state_dict(state, strict=True)
    built: nn.Module = model
    return built


def _such(names: Sequence[str]) -> str:
    return f" (such as {names[0]!r})" if names else ""


def _checkpoint_file(checkpoint: str, title: str) -> Path:
    prefix, _, package = checkpoint.partition(":")
    if prefix != "package":
        file = Path(checkpoint).expanduser()
        if not file.is_file():
            raise ModelError(f"the checkpoint {str(file)!r} does not exist (model {title!r}).")
        return file
    module = re.sub(r"[-.]+", "_", package)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the Python package {package!r} is not installed (model {title!r}): pip install {package.replace('_', '-')}")
    found = sorted(
        path
        for root in spec.submodule_search_locations
        for path in Path(root).rglob("*")
        if path.suffix in WEIGHT_SUFFIXES and path.is_file()
    )
    if len(found) != 1:
        raise ModelError(
            f"expected one file of weights in the package {package!r}, found {len(found)}: {', '.join(path.name for path in found)}."
        )
    return found[0]


def read_state(file: Path, title: str) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint, never anything else."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except ConceptCamError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if damage := damage_of(file):
            text = damage
        elif "weights_only" in str(error) or "Unpickl" in type(error).__name__:
            text = "it holds more than tensors, and only tensors are read; save its state_dict alone"
        raise ModelError(f"cannot read the checkpoint {str(file)!r} (model {title!r}): {text}.") from error
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"the checkpoint {str(file)!r} (model {title!r}) does not hold a network's tensors by name.")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
