"""How the weights that open_clip publishes for an architecture are read, so that other weights of it can be read alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from concept_cam.backbones.torchvision_compat import import_open_clip
from concept_cam.core.errors import ConfigurationError, ModelError
from concept_cam.core.names import choose, did_you_mean
from concept_cam.core.settings import PREPROCESS_SETTINGS, Settings

__all__ = ["DEFAULT", "Like", "activation_warning", "checked", "of_tag", "read_like", "spoken"]

DEFAULT = "OpenAI's values, for nothing else is known of it"


@dataclass(frozen=True)
class Like:
    """How weights are read.

    Attributes:
        config: ``mean``, ``std``, ``interpolation`` and ``resize_mode``, as far as they are known.
        origin: Where they come from, for people.
        unsure: Key -> what the published weights say, where they disagree; ``config`` then holds what most of them say.
        quick_gelu: Whether the activation must be QuickGELU.
    """

    config: Mapping[str, Any]
    origin: str
    unsure: Mapping[str, str] = field(default_factory=dict)
    quick_gelu: bool = False


def of_tag(architecture: str, tag: str) -> dict[str, Any]:
    """Returns what open_clip says of published weights.

    Raises:
        ModelError: There are no such weights, or they were trained with another activation than the architecture's.
    """
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        hint = did_you_mean(tag, tags)
        raise ModelError(f"open_clip has no weights {tag!r} for {architecture}.{hint} Known: {', '.join(tags) or 'none'}.")
    found: dict[str, Any] = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    if architecture.endswith("-quickgelu") and not found.get("quick_gelu"):
        # The other activation function would give a plausible but wrong map.
        raise ModelError(f"the weights {tag!r} were not trained with QuickGELU: use {architecture.removesuffix('-quickgelu')}/{tag}.")
    return found


def read_like(architecture: str, tag: str = "") -> Like:
    """Tells how weights of an architecture are read: like a published tag, or like all of them.

    Args:
        architecture: Name of one of open_clip's architectures.
        tag: Published weights; empty: those that all published weights agree on, and what most of them say elsewhere.

    Raises:
        ModelError: No such weights.
    """
    if tag:
        found = of_tag(architecture, tag)
        return Like(_settings(found), f"published with {architecture}/{tag}", quick_gelu=bool(found.get("quick_gelu")))
    tags = import_open_clip().list_pretrained_tags_by_model(architecture)
    published = {name: _settings(import_open_clip().pretrained.get_pretrained_cfg(architecture, name)) for name in tags}
    if not published:
        return Like({}, DEFAULT)
    config, unsure = {}, {}
    for key in PREPROCESS_SETTINGS:
        named: dict[Any, list[str]] = {}
        for name, values in published.items():
            if values.get(key) is not None:
                named.setdefault(values[key], []).append(name)
        if named:
            config[key] = max(named, key=lambda value: len(named[value]))
        if len(named) > 1:
            unsure[key] = "; ".join(f"{value} ({', '.join(names)})" for value, names in named.items())
    origin = f"published with {architecture} ({', '.join(tags[:3])}{' ...' if len(tags) > 3 else ''})"
    return Like(config, origin, unsure)


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    values = {key: found[key] for key in PREPROCESS_SETTINGS if found.get(key)}
    return {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in values.items()}


def activation_warning(architecture: str, file: str) -> str:
    """Says that published weights of an architecture need QuickGELU where its own name means GELU; empty where none do."""
    open_clip = import_open_clip()
    if (open_clip.get_model_config(architecture) or {}).get("quick_gelu"):
        return ""
    quick = [
        tag
        for tag in open_clip.list_pretrained_tags_by_model(architecture)
        if open_clip.pretrained.get_pretrained_cfg(architecture, tag).get("quick_gelu")
    ]
    if not quick:
        return ""
    other = f"{architecture}-quickgelu"
    form = f"{other}:{file}" if other in open_clip.list_models() else f"{architecture}/{quick[0]}:{file}"
    return (
        f"'{architecture}:{file}' is read with GELU, but the weights {', '.join(quick)} of this architecture were trained with "
        "QuickGELU; the "
        f"wrong one gives plausible but wrong maps. If the file descends from one of those, name it '{form}'; else "
        f"'{architecture}:{file}' is right."
    )


def checked(block: Any, where: object) -> dict[str, Any]:
    """Returns a ``preprocess`` block of a configuration file: any of ``mean``, ``std``, ``interpolation`` and ``resize_mode``.

    Args:
        block: What stands in the file; ``None`` for none.
        where: The file, for messages.

    Raises:
        ModelError: Another name or an impossible value.
    """
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise ModelError(f"{where}: 'preprocess' must hold names and values such as 'mean' and 'std', found {type(block).__name__}.")
    values = {str(name).replace("-", "_"): value for name, value in block.items()}
    for name in values:
        choose(name, dict.fromkeys(PREPROCESS_SETTINGS), f"entry of 'preprocess' in {where}", ModelError)
    try:
        found = asdict(Settings(**values))
    except ConfigurationError as error:
        raise ModelError(f"{where}, 'preprocess': {error}") from error
    return {name: found[name] for name in values}


def spoken(values: Mapping[str, Any]) -> str:
    """Returns preprocessing values in one line for people."""
    return ", ".join(f"{key.replace('_', ' ')} {_short(values[key])}" for key in PREPROCESS_SETTINGS if values.get(key))


def _short(value: Any) -> str:
    return "/".join(f"{part:.3g}" for part in value) if isinstance(value, list | tuple) else str(value)
