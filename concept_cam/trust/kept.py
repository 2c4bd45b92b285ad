"""What ``concept-cam calibrate`` fits to labelled pictures, in one file: the rules of trust, and the conformal guarantees."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concept_cam.core.documents import read_json
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.trust.conformal import Conformal
from concept_cam.trust.rules import Rules

__all__ = ["DEFAULT_ALPHA", "TRUST_VERSION", "Trust", "opened"]

TRUST_VERSION = 1

DEFAULT_ALPHA = 0.1
"""Risk of the guarantee where none is asked for."""


@dataclass(frozen=True)
class Trust:
    """What was fitted for one model and its settings.

    Attributes:
        rules: When a map counts as clear; ``None`` where the labels did not suffice: then the model's own hold.
        guarantees: Limits that keep a stated risk, one set for each risk, the smallest first.
    """

    rules: Rules | None = None
    guarantees: tuple[Conformal, ...] = ()

    def check(self, facts: Mapping[str, Any]) -> None:
        """Refuses maps that are made with another model, or under other settings, than those that were fitted.

        Raises:
            ConfigurationError: The message names what differs.
        """
        for part in (self.rules, *self.guarantees):
            if part is not None:
                part.check(facts)

    def at(self, alpha: float) -> Conformal:
        """Returns the guarantee at a risk.

        Raises:
            ConfigurationError: There is none; the message lists those that there are.
        """
        for guarantee in self.guarantees:
            if abs(guarantee.alpha - alpha) < 1e-9:
                return guarantee
        known = ", ".join(f"{guarantee.alpha:g}" for guarantee in self.guarantees) or "none"
        raise ConfigurationError(f"there is no guarantee at alpha {alpha:g}; fitted: {known}.")

    def to_json(self) -> str:
        """Returns it as JSON; :meth:`read` reads it back."""
        content = {
            "trust": TRUST_VERSION,
            "rules": None if self.rules is None else json.loads(self.rules.to_json()),
            "guarantees": [json.loads(guarantee.to_json()) for guarantee in self.guarantees],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes it.

        Raises:
            OutputError: The file exists and ``overwrite`` is false, or cannot be written.
        """
        from concept_cam.core.files import write_file

        return write_file(path, self.to_json().encode("utf-8"), overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Trust:
        """Reads what :meth:`save` wrote.

        Raises:
            DataError: The file cannot be read, or is of another version.
        """
        content = read_json(path)
        if not isinstance(content, dict) or content.get("trust") != TRUST_VERSION:
            raise DataError(f"{path} holds nothing of trust, version {TRUST_VERSION}: write it with  concept-cam calibrate.")
        rules, guarantees = content.get("rules"), content.get("guarantees")
        if not isinstance(guarantees, Sequence) or isinstance(guarantees, str):
            raise DataError(f"{path}: its guarantees are no list.")
        return cls(
            None if rules is None else Rules.of(rules, os.fspath(path)),
            tuple(Conformal.of(item, os.fspath(path)) for item in guarantees),
        )


def opened(path: str | os.PathLike[str] | None, alpha: float | None) -> tuple[Trust | None, Conformal | None]:
    """Reads a trust file and chooses a guarantee of it: at the risk that is asked for, else at the default one, else the smallest.

    Args:
        path: The file; ``None`` for none.
        alpha: The risk; ``None`` where none is asked for.

    Raises:
        ConfigurationError: A risk without a file, or one for which nothing was fitted.
        DataError: The file cannot be read.
    """
    if path is None:
        if alpha is not None:
            raise ConfigurationError("--alpha belongs to --trust FILE, which 'concept-cam calibrate' writes.")
        return None, None
    found = Trust.read(path)
    if alpha is not None:
        return found, found.at(alpha)
    fitted = {guarantee.alpha: guarantee for guarantee in reversed(found.guarantees)}
    return found, fitted.get(DEFAULT_ALPHA) or next(iter(found.guarantees), None)
