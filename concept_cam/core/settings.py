"""How a localizer works, as one frozen value; read from ``--config`` files. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import nearest_names

__all__ = ["DTYPES", "RESIZE_POLICIES", "VIEW_NAMES", "WEIGHTINGS", "Settings", "read_config"]

WEIGHTINGS = ("uniform", "softmax", "hardest", "orthogonal")
"""Names of :data:`concept_cam.core.directions.WEIGHTING`, without loading torch."""

VIEW_NAMES = ("auto", "single", "mirrored")
"""``"auto"`` and the names of :data:`concept_cam.backbones.views.VIEWS`, without loading torch."""

RESIZE_POLICIES = ("pad", "aspect", "squash", "native", "tile")
"""Names of :data:`concept_cam.pictures.resizing.RESIZE`, without loading torch."""

FEATURE_NORMS = ("l2", "none")
"""Names of :data:`concept_cam.core.scoring.FEATURE_NORM`, without loading torch."""

DTYPES = ("float32", "bfloat16", "float16")
"""Floating-point types of the towers; results are always float32."""


@dataclass(frozen=True)
class Settings:
    """How pictures are read and scored.

    Attributes:
        attention: Dense attention strategy; ``"auto"`` for the model family's default.
        resize: Resize policy.
        size: Side in model pixels at which maps are read; ``None`` for the model's default.
        views: Views of a picture whose patch features are averaged: ``"single"``, ``"mirrored"`` (twice the time, steadier maps), or
            ``"auto"`` for the checkpoint's choice. Methods that differentiate or mask the tower look at the picture as it is.
        gamma: Comparison strength; 0 ignores the contrasts, 1 sets them fully against the target.
        weighting: Contrast weighting.
        feature_norm: Patch feature normalisation, ``"l2"`` or ``"none"``.
        templates: Prompt templates such as ``"a photo of {}"`` in place of every concept's own; empty keeps those.
        batch_size: Pictures per forward pass.
        max_pixels: Largest picture that is decoded.

    Raises:
        ConfigurationError: A value that cannot be used.
    """

    attention: str = "auto"
    resize: str = "pad"
    size: int | None = None
    views: str = "auto"
    gamma: float = 1.0
    weighting: str = "uniform"
    feature_norm: str = "l2"
    templates: tuple[str, ...] = ()
    batch_size: int = 8
    max_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        for name, known in (("resize", RESIZE_POLICIES), ("views", VIEW_NAMES), ("weighting", WEIGHTINGS), ("feature_norm", FEATURE_NORMS)):
            value = getattr(self, name)
            if value not in known:
                near = nearest_names(str(value), known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigurationError(f"unknown {name.replace('_', ' ')} {value!r}.{hint} Known: {', '.join(known)}.")
        if not isinstance(self.gamma, (int, float)) or not 0 <= self.gamma < float("inf"):
            raise ConfigurationError(f"gamma must be a number >= 0 (0: no contrast, 1: full contrast), received {self.gamma!r}.")
        templates = (self.templates,) if isinstance(self.templates, str) else self.templates
        if not isinstance(templates, (list, tuple)) or any(not isinstance(text, str) or text.count("{}") != 1 for text in templates):
            raise ConfigurationError(
                f"templates must be texts that hold '{{}}' exactly once, such as 'a photo of {{}}', received {templates!r}."
            )
        object.__setattr__(self, "templates", tuple(templates))
        for name in ("batch_size", "max_pixels") + (("size",) if self.size is not None else ()):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number of at least 1, received {value!r}.")

    def views_of(self, own: str) -> str:
        """Returns the name of the views that are averaged, given a checkpoint's ``own`` choice."""
        return own if self.views == "auto" else self.views

    def with_values(self, **values: Any) -> Settings:
        """Returns a copy in which the values that are not ``None`` are replaced.

        Raises:
            ConfigurationError: A value that cannot be used, or a name that is no setting (with the nearest one).
        """
        known = [item.name for item in fields(self)]
        for name in values:
            if name not in known:
                near = nearest_names(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigurationError(f"unknown setting {name!r}.{hint} Known: {', '.join(known)}.")
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML configuration file: the fields of :class:`Settings`, and ``model``, ``method``, ``device``, ``dtype``, ``threshold``.

    Raises:
        ConfigurationError: The file cannot be read, is no YAML mapping, or holds an unknown key (named with its nearest known one).
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration {str(path)!r}: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{str(path)!r} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{str(path)!r} must hold 'name: value' lines, found {type(content).__name__}.")
    known = {item.name for item in fields(Settings)} | {"model", "method", "device", "dtype", "threshold"}
    for key in content:
        if key not in known:
            near = nearest_names(str(key), known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"{str(path)!r}: unknown setting {key!r}.{hint} Known: {', '.join(sorted(known))}.")
    return dict(content)
