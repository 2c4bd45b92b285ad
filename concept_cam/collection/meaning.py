"""What settings mean, however they are said: what a model does of itself may be named, or left to it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from concept_cam.core.errors import ConfigurationError

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["said_as"]


def said_as(localizer: Localizer, values: Mapping[str, Any]) -> Localizer:
    """Returns a localizer whose settings are said as they were before, each of them by which pictures are read alike.

    Args:
        localizer: The model, with its settings as they are said now.
        values: Settings of how pictures are read, as they were noted before; those that are not there stay as they are.
    """
    found = localizer
    for name, value in values.items():
        with suppress(ConfigurationError, TypeError):  # a file may hold anything
            made = localizer.under(replace(found.settings, **{name: value}))
            found = made if made.reading == localizer.reading else found
    return found
