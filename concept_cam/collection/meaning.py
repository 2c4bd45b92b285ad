"""What settings mean, however they are said: what a model does of itself may be named, or left to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from concept_cam.core.errors import ConfigurationError

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["said_as"]


def said_as(localizer: Localizer, values: Mapping[str, Any]) -> Localizer:
    """Returns a localizer whose settings are said as they were before, where pictures are read alike; else the localizer itself.

    Args:
        localizer: The model, with its settings as they are said now.
        values: Settings of how pictures are read, as they were noted before; those that are not there stay as they are.
    """
    try:
        made = localizer.under(replace(localizer.settings, **values))
        return made if made.reading == localizer.reading else localizer
    except (ConfigurationError, TypeError):  # a file may hold anything
        return localizer
