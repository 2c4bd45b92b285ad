"""How a localizer works, as one frozen value; read from ``--config`` files. Torch-free."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from concept_cam.core.documents import read_yaml
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import did_you_mean

__all__ = [
    "DTYPES",
    "INPUT_SETTINGS",
    "MOST_GAMMA",
    "OWN_INPUT",
    "PREPROCESS_SETTINGS",
    "REFINER_NAMES",
    "RESIZE_POLICIES",
    "SETTING_NAMES",
    "VIEW_NAMES",
    "WEIGHTINGS",
    "Settings",
    "given_settings",
    "said_once",
    "written",
    "joined_refiners",
    "read_config",
    "refiner_steps",
]

WEIGHTINGS = ("uniform", "softmax", "hardest", "orthogonal")
"""Names of :data:`concept_cam.core.directions.WEIGHTING`, without loading torch."""

VIEW_NAMES = ("auto", "single", "mirrored")
"""``"auto"`` and the names of :data:`concept_cam.backbones.views.VIEWS`, without loading torch."""

REFINER_NAMES = ("none", "guided", "superpixel", "affinity", "masks")
"""Names of :data:`concept_cam.refine.REFINERS`, without importing it."""

_NEXT_REFINER = re.compile(rf"\+(?=(?:{'|'.join(REFINER_NAMES)})(?:[:+]|$))")


def refiner_steps(text: str) -> tuple[str, ...]:
    """Splits ``"affinity:early+guided"`` into the refiners that follow each other; a plus within an argument stays."""
    return tuple(_NEXT_REFINER.split(text))


def joined_refiners(value: str | Sequence[str]) -> str:
    """Joins refiners that follow each other into one text, ``("affinity:early", "guided")`` to ``"affinity:early+guided"``.

    Raises:
        ConfigurationError: One of them is no name of :data:`REFINER_NAMES`.
    """
    given = [str(step) for step in value] if isinstance(value, (list, tuple)) else [str(value)]
    for step in (step for text in given for step in refiner_steps(text)):
        _require_known("refine", step.partition(":")[0], REFINER_NAMES)
    return "+".join(given)


def _require_known(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise ConfigurationError(f"unknown {name.replace('_', ' ')} {value!r}.{hint} Known: {', '.join(known)}.")


RESIZE_POLICIES = ("pad", "aspect", "squash", "native", "tile")
"""Names of :data:`concept_cam.pictures.resizing.RESIZE`, without loading torch."""

FEATURE_NORMS = ("l2", "none")
"""Names of :data:`concept_cam.core.scoring.FEATURE_NORM`, without loading torch."""

DTYPES = ("float32", "bfloat16", "float16", "int8")
"""Number formats of the towers; results are always float32. ``int8`` is for vision transformers on a CPU."""

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
"""How pictures can be resized."""

RESIZE_MODES = ("shortest", "squash", "longest", "naflex")
"""How checkpoints themselves bring a picture to their size."""


MOST_GAMMA = 1000.0
"""Largest comparison strength: far above it contrasts leave nothing of the target, and numbers overflow."""

MOST: dict[str, int] = {"size": 4096, "batch_size": 4096}
"""Largest values of whole numbers that decide how much memory is taken; more is a slip."""


def setting(
    default: Any,
    text: str,
    *,
    shown: str = "",
    choices: tuple[str, ...] = (),
    kind: Callable[[str], Any] | None = None,
    short: str = "",
    chain: tuple[str, ...] = (),
    recorded: bool = True,
    command_line: bool = True,
) -> Any:
    """Declares a field of :class:`Settings`: all that options, configuration files, provenance and run descriptions need to know of it.

    Args:
        default: Its default.
        text: Help of its option.
        shown: How the help shows the default; empty: as it is.
        choices: Its values, where they are names.
        kind: Type of the option, where it is not text.
        short: Short form of the option.
        chain: Names of steps that may follow each other, each with an argument behind a colon; the option may be repeated.
        recorded: Whether it decides results, so that provenance and run descriptions hold it.
        command_line: Whether commands have an option for it; configuration files always may set it.
    """
    facts = {"text": text, "shown": shown, "choices": choices, "kind": kind, "short": short, "chain": chain}
    return field(default=default, metadata={**facts, "recorded": recorded, "command_line": command_line})


@dataclass(frozen=True)
class Settings:
    """How pictures are read and scored.

    Adding a setting is one line here: its option, its place in configuration files, provenance and run descriptions follow from the field.

    Attributes:
        attention: Dense attention strategy; ``"auto"`` for the model family's default.
        resize: Resize policy.
        size: Side in model pixels at which maps are read; ``None`` for the model's default.
        views: Views of a picture whose patch features are averaged: ``"single"``, ``"mirrored"`` (twice the time, steadier maps), or
            ``"auto"`` for the checkpoint's choice. Methods that differentiate or mask the tower look at the picture as it is; asked for
            mirrored views, another attention or a second look, they refuse.
        gamma: Comparison strength; 0 ignores the contrasts, 1 sets them fully against the target.
        weighting: Contrast weighting.
        feature_norm: Patch feature normalisation, ``"l2"`` or ``"none"``.
        templates: Prompt templates such as ``"a photo of {}"`` in place of every concept's own; empty keeps those.
        mean: Mean of each channel, of values in 0..1; ``None`` for the model's.
        std: Standard deviation of each channel; ``None`` for the model's.
        interpolation: How pictures are resized; ``None`` for the model's.
        resize_mode: What the policy ``"native"`` does; ``None`` for the model's.
        refine: How maps are refined beside their picture, a name of :data:`concept_cam.refine.REFINERS`, with ``:ARGUMENT`` behind it where
            it takes one; several that follow each other are a list, or joined by a plus, ``"affinity:early+guided"``. Heatmaps and
            outlines are then the refined map's, and peaks within about half a cell; scores of cells, thresholds and probabilities stay.
        look_again: Whether the best regions are read again at twice the resolution, where they are narrow; for the direct method and its
            kin. Probabilities of parts are then those of the finer cells, and are to be calibrated apart.
        batch_size: Pictures per forward pass.
        max_pixels: Largest picture that is decoded.

    Raises:
        ConfigurationError: A value that cannot be used.
    """

    attention: str = setting("auto", "Dense attention strategy, see 'concept-cam models --attention'.", short="-a")
    gamma: float = setting(1.0, "Comparison strength: 0 ignores contrasts, 1 sets them fully against.", shown="1", kind=float, short="-g")
    weighting: str = setting("uniform", "How contrasts share the weight.", choices=WEIGHTINGS)
    resize: str = setting("pad", "How the picture meets the model's input.", choices=RESIZE_POLICIES)
    size: int | None = setting(None, "Side in pixels at which maps are read.", shown="the model's", kind=int)
    views: str = setting(
        "auto",
        "Views of a picture whose features are averaged (direct, gem, clip-surgery); mirrored: steadier maps in twice the time.",
        shown="auto, the model's",
        choices=VIEW_NAMES,
    )
    feature_norm: str = setting("l2", "Patch feature normalisation.", choices=FEATURE_NORMS, command_line=False)
    templates: tuple[str, ...] = setting((), "Prompt templates.", command_line=False)
    mean: tuple[float, float, float] | None = setting(
        None, "Mean of each channel in 0..1, such as 0.5,0.5,0.5.", shown="the model's", kind=str
    )
    std: tuple[float, float, float] | None = setting(None, "Standard deviation of each channel.", shown="the model's", kind=str)
    interpolation: str | None = setting(None, "How pictures are resized.", shown="the model's", choices=INTERPOLATIONS)
    resize_mode: str | None = setting(None, "What --resize native does.", shown="the model's", choices=RESIZE_MODES)
    refine: str = setting(
        "none",
        "Refine maps at the picture's edges. Try guided first: twice the time with the bundled model. Affinity and masks take a model "
        "behind a colon. Repeat it to refine what the one before made; 'concept-cam models --refine' says what each does and costs.",
        chain=REFINER_NAMES,
    )
    look_again: bool = setting(
        False, "Read narrow parts again at twice the resolution, in about three times the time; calibrate probabilities apart.", kind=bool
    )
    batch_size: int = setting(8, "Pictures per forward pass.", shown="8; annotate on a GPU measures it", kind=int, recorded=False)
    max_pixels: int = setting(200_000_000, "Largest picture that is decoded.", kind=int)

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.metadata["choices"] and getattr(self, item.name) != item.default:
                _require_known(item.name, getattr(self, item.name), item.metadata["choices"])
        object.__setattr__(self, "refine", joined_refiners(self.refine))
        if isinstance(self.gamma, bool) or not isinstance(self.gamma, (int, float)) or not 0 <= self.gamma <= MOST_GAMMA:
            raise ConfigurationError(
                f"gamma must be a number from 0 (no contrast) over 1 (full contrast) to {MOST_GAMMA:g}, received {self.gamma!r}."
            )
        templates = (self.templates,) if isinstance(self.templates, str) else self.templates
        if not isinstance(templates, (list, tuple)) or any(not isinstance(text, str) or text.count("{}") != 1 for text in templates):
            raise ConfigurationError(
                f"templates must be texts that hold '{{}}' exactly once, such as 'a photo of {{}}', received {templates!r}."
            )
        object.__setattr__(self, "templates", tuple(templates))
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _channels(name, getattr(self, name)))
        if not isinstance(self.look_again, bool):
            raise ConfigurationError(f"look_again must be true or false, received {self.look_again!r}.")
        for name in ("batch_size", "max_pixels") + (("size",) if self.size is not None else ()):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number of at least 1, received {value!r}.")
            if value > MOST.get(name, value):
                raise ConfigurationError(f"{name} must be at most {MOST[name]}, received {value}: more would not fit in memory.")

    def views_of(self, own: str) -> str:
        """Returns the name of the views that are averaged, given a checkpoint's ``own`` choice."""
        return own if self.views == "auto" else self.views

    def with_values(self, **values: Any) -> Settings:
        """Returns a copy in which the values that are not ``None`` are replaced.

        Raises:
            ConfigurationError: A value that cannot be used, or a name that is no setting (with the nearest one).
        """
        for name in values:
            if name not in SETTING_NAMES:
                hint = did_you_mean(name, SETTING_NAMES)
                raise ConfigurationError(f"unknown setting {name!r}.{hint} Known: {', '.join(SETTING_NAMES)}.")
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def reading(self) -> dict[str, Any]:
        """Returns those of :data:`INPUT_SETTINGS`, as :meth:`recorded` returns them."""
        return {name: value for name, value in self.recorded().items() if name in INPUT_SETTINGS}

    def recorded(self) -> dict[str, Any]:
        """Returns the settings that decide results, as plain data for JSON; those that leave the choice to the model are left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.metadata["recorded"]}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None or name not in PREPROCESS_SETTINGS
        }


def given_settings(settings: Settings | None) -> Settings:
    """Returns the settings that a caller gave, or the defaults for ``None``.

    Raises:
        ConfigurationError: Something else was given, such as a dictionary.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise ConfigurationError(
            f"settings must be a Settings such as Settings(gamma=1), received {reprlib.repr(settings)} ({type(settings).__name__})."
            + (" Give Settings(**them)." if isinstance(settings, Mapping) else "")
        )
    return settings or Settings()


SETTING_NAMES: tuple[str, ...] = tuple(item.name for item in fields(Settings))
"""Every setting."""

PREPROCESS_SETTINGS: tuple[str, ...] = ("mean", "std", "interpolation", "resize_mode")
"""Settings that stand in place of what a checkpoint says of its input."""

OWN_INPUT = "own_input"
"""Where facts say what the model's input is like of itself: a mapping of :data:`PREPROCESS_SETTINGS` to plain values."""

INPUT_SETTINGS: tuple[str, ...] = ("size", *PREPROCESS_SETTINGS, "max_pixels")
"""Settings that decide features and that neither their frames nor their names say: how the picture was brought to the model's input."""


def said_once(facts: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns facts without those of :data:`PREPROCESS_SETTINGS` that change nothing, so that equal inputs are described alike.

    Nothing is changed by what the model does of itself, and by a resize mode where the policy is another than ``"native"``.

    Args:
        facts: Settings as :meth:`Settings.recorded` returns them; without ``resize``, the policy may be any.
        own: What the model does of itself, as under :data:`OWN_INPUT`; names that are missing are not known.
    """
    idle = {name for name in PREPROCESS_SETTINGS if facts.get(name) is None or written(facts[name]) == written(own.get(name))}
    if facts.get("resize", "native") != "native":
        idle.add("resize_mode")
    return {name: value for name, value in facts.items() if name not in idle}


def written(value: Any) -> Any:
    """Returns plain data as files of what was fitted hold it: tuples as lists, and numbers to nine digits, for more say nothing and differ
    from one machine to the next.
    """
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {name: written(item) for name, item in value.items()}
    return [written(item) for item in value] if isinstance(value, list | tuple) else value


def _channels(name: str, given: Any) -> tuple[float, float, float]:
    """Checks the mean or deviation of the channels: one number for all, or three."""
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, (list, tuple)) else [given]
    expected = f"{name} must be three numbers{' in 0..1' if name == 'mean' else ' above 0'} for red, green and blue, such as 0.5,0.5,0.5"
    try:
        numbers = [math.nan if isinstance(part, bool) else float(part) for part in parts]  # NaN is refused below
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{expected}; received {given!r}.") from error
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    if len(numbers) != 3 or not all(0 <= number <= 1 and (name == "mean" or number > 0) for number in numbers):
        hint = " Values of 0..255 are divided by 255." if any(number > 1 for number in numbers) else ""
        raise ConfigurationError(f"{expected}; received {given!r}.{hint}")
    return numbers[0], numbers[1], numbers[2]


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML configuration file: the fields of :class:`Settings`, and ``model``, ``method``, ``device``, ``dtype``, ``threshold``.

    The settings of the model's input may stand together under ``preprocess``.

    Raises:
        ConfigurationError: The file cannot be read, is no YAML mapping, or holds an unknown key (named with its nearest known one).
    """
    path = Path(path)
    content = read_yaml(path, ConfigurationError)
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{str(path)!r} must hold 'name: value' lines, found {type(content).__name__}.")
    known = {*SETTING_NAMES, "model", "method", "device", "dtype", "threshold"}
    content = dict(content)
    block = content.pop("preprocess", None) or {}
    if not isinstance(block, Mapping) or not {str(key).replace("-", "_") for key in block} <= set(PREPROCESS_SETTINGS):
        raise ConfigurationError(f"{str(path)!r}: 'preprocess' may hold {', '.join(PREPROCESS_SETTINGS)}, received {block!r}.")
    for key, value in block.items():
        name = str(key).replace("-", "_")
        if name in content:
            raise ConfigurationError(f"{str(path)!r}: {name!r} stands there twice, under 'preprocess' too. Keep one of the two.")
        content[name] = value
    for key in content:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigurationError(f"{str(path)!r}: unknown setting {key!r}.{hint} Known: {', '.join(sorted(known))}.")
    for key in ("model", "method", "device", "dtype"):
        if not isinstance(content.get(key, ""), str | None):
            raise ConfigurationError(
                f"{str(path)!r}: {key} must be a text, received {content[key]!r}. Put it into quotes if that is its name."
            )
    return dict(content)
