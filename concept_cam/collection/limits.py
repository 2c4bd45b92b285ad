"""Abstention limits: under which probability or score no call is made; fitted by :mod:`concept_cam.evaluation.calibration`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.collection.meaning import said_as
from concept_cam.core.documents import read_yaml, understood
from concept_cam.core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["POOLED_LIMIT", "LIMITS_VERSION", "Calibration", "Limit", "read_limits"]

LIMITS_VERSION = 1

PROBABILITY_SETTINGS = ("attention", "resize", "size", "views", "gamma", "weighting", "feature_norm", "look_again")
"""Settings that decide probabilities and scores of cells; refining a map leaves both as they are."""

POOLED_LIMIT = "*"
"""Name of the limit that is fitted to all characters together, for those with too few labels of their own."""


@dataclass(frozen=True)
class Limit:
    """The limit of one character.

    Attributes:
        measure: What it is on: ``"probability"``, or ``"score"`` for parts.
        value: Calls below it are not made; ``None`` where no limit reaches the target, so none should be made.
        labelled: Labelled calls that it was fitted to.
        kept: Those at or above it.
        accuracy: Share of the kept calls that are right.
        low: Lower confidence bound of that share.
        expected_accuracy: The same share when each picture is held out of the fit: the honest estimate.
        expected_kept: Share of calls that are then made.
        pooled: Whether it was fitted to all characters together for want of labels.
        plain_accuracy: Share of all labelled calls that are right, without a limit; NaN where a file does not say it.
    """

    measure: str
    value: float | None
    labelled: int
    kept: int
    accuracy: float
    low: float
    expected_accuracy: float
    expected_kept: float
    pooled: bool = False
    plain_accuracy: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for YAML; NaN becomes ``None``."""
        return {name: (None if isinstance(value, float) and np.isnan(value) else value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Calibration:
    """Limits of every character.

    Attributes:
        target: Share of calls that are to be right.
        confidence: With this probability the true share is above the lower bound.
        limits: ``pack/character`` (or the character alone) -> limit.
        facts: Model, weights, run.
    """

    target: float
    confidence: float
    limits: Mapping[str, Limit]
    facts: Mapping[str, Any]

    def to_yaml(self) -> str:
        """Returns the limits as YAML; :func:`read_limits` reads them back."""
        import yaml

        head = (
            "# Abstention limits: calls below them are not made. null: no limit reaches the target, make no calls.\n"
            "# They hold for this model, these prompts and pictures like the labelled ones.\n"
        )
        content = {
            "schema": LIMITS_VERSION,
            "target": self.target,
            "confidence": self.confidence,
            **dict(self.facts),
            "limits": {name: limit.to_dict() for name, limit in self.limits.items()},
        }
        return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def check(self, model: str, weights_hash: str, settings: Mapping[str, Any] | None = None) -> None:
        """Refuses to be used with another model or other settings than those of the calls it was fitted to, where it says which.

        Args:
            model: Name of the model.
            weights_hash: Hash of its weights.
            settings: How it reads and scores pictures.

        Raises:
            ConfigurationError: Other weights, or another setting that decides probabilities.
        """
        fitted = self.facts.get("weights_hash")
        if fitted and str(fitted) != weights_hash:
            raise ConfigurationError(
                f"the calibration was fitted to calls of {self.facts.get('model')!r} (weights {fitted}), and this run uses "
                f"{model!r} (weights "
                f"{weights_hash}): another model's probabilities mean something else. Fit limits to calls of this model with  concept-cam "
                "calibrate."
            )
        noted: Any = self.facts.get("settings")
        known = {"look_again": False, **(noted if isinstance(noted, dict) else {})} if self.facts else {}  # once there was no choice
        for name, value in known.items():
            if settings is not None and name in settings and settings[name] != value:
                raise ConfigurationError(
                    f"the calibration was fitted to calls with {name} {value!r}, and this run uses {settings[name]!r}: its probabilities "
                    "mean something else. Fit limits to calls made like these with  concept-cam calibrate."
                )

    def check_model(self, localizer: Localizer) -> None:
        """Refuses to be used with this model, or with these settings, as :meth:`check` does; settings that mean the same may be
        said otherwise.

        Raises:
            ConfigurationError: Other weights, or another setting that decides probabilities.
        """
        noted: Any = self.facts.get("settings")
        known = noted if isinstance(noted, dict) else {}
        read = said_as(localizer, {name: known[name] for name in ("attention", "resize", "size") if name in known})
        self.check(localizer.backbone.name, localizer.backbone.weights_hash, {**read.settings.recorded(), "views": localizer.views})

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the limits.

        Raises:
            OutputError: The file exists and ``overwrite`` is false, or cannot be written.
        """
        from concept_cam.core.files import write_file

        return write_file(path, self.to_yaml().encode("utf-8"), overwrite=overwrite)


def _number(key: str, value: Any) -> Any:
    """YAML has no NaN of its own: a missing share is null. A null limit stays ``None``.

    Raises:
        DataError: What should be a number is none.
    """
    if key in ("measure", "pooled"):
        return value
    if value is None:
        return None if key == "value" else float("nan")
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value in (float("inf"), float("-inf"))
        or (key == "value" and value != value)
    ):
        raise DataError(f"its {key!r} is {str(value)[:80]!r}, expected a number.")
    return value


def read_limits(path: str | os.PathLike[str]) -> Calibration:
    """Reads limits that :meth:`Calibration.save` wrote.

    Raises:
        DataError: The file cannot be read or is of another schema.
    """
    source = Path(path)
    content = read_yaml(source)
    if not isinstance(content, dict) or content.get("schema") != LIMITS_VERSION or not isinstance(content.get("limits"), dict):
        raise DataError(f"{source} holds no abstention limits of schema {LIMITS_VERSION}: write them with  concept-cam calibrate.")
    limits: dict[str, Limit] = {}
    for name, entry in content["limits"].items():
        with understood(f"{source}: the limit of {str(name)[:80]!r}"):
            limits[str(name)] = Limit(**{key: _number(key, value) for key, value in entry.items()})
    facts = {key: value for key, value in content.items() if key not in ("schema", "target", "confidence", "limits")}
    with understood(source):
        return Calibration(float(content["target"]), float(content["confidence"]), limits, facts)
