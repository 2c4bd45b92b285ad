"""What a trained file keeps of where it comes from, beside the hash of the weights: how the embedding is made and pictures were read.

The same weights make several embeddings (the mean of DINOv2's patches, its class token), and a picture read at another size or with other
statistics is another input: a head or an explainer still answers, but no longer as it was trained to.
"""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from concept_cam.backbones.protocol import Backbone
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import Settings
from concept_cam.pictures.preprocessing import input_in_use

__all__ = ["UNKNOWN", "Origin", "as_option"]

BY_PATCHES = "patches"
"""Stands for embeddings that no token and no pooling's attention gathers."""


@dataclass(frozen=True)
class Origin:
    """Where a trained file comes from; all of it unknown by default, as in files that other programs wrote, or earlier versions.

    Attributes:
        pooling: What gathers the image embedding that it was trained on; empty when that is not known.
        reading: How its pictures were read: setting -> value in use, as plain data; empty when that is not known.
    """

    pooling: str = ""
    reading: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, backbone: Backbone, settings: Settings | None = None) -> Origin:
        """Returns that of what is trained on a tower, with pictures read as the settings say; ``None``: it is not known how."""
        return cls(_pooling(backbone), None if settings is None else input_in_use(backbone.preprocess, settings))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Origin:
        """Reads what :meth:`facts` returns out of a file's header.

        Raises:
            ConfigurationError: It holds something else in its place.
        """
        pooling, reading = facts.get("pooling", ""), facts.get("reading")
        if not isinstance(pooling, str) or not isinstance(reading, Mapping | type(None)):
            raise ConfigurationError(
                f"expected in the file's header how the embedding is pooled and pictures were read, found {reprlib.repr(pooling)} and "
                f"{reprlib.repr(reading)}."
            )
        return cls(pooling, reading)

    def facts(self) -> dict[str, Any]:
        """Returns what is known, for the header of a file."""
        known = {"pooling": self.pooling, "reading": None if self.reading is None else dict(self.reading)}
        return {name: value for name, value in known.items() if value}

    def require(self, what: str, backbone: Backbone, settings: Settings | None = None, *, native: bool = False) -> None:
        """Checks that a tower's embedding is the one that a file was trained on; warns where pictures are read in another way.

        Args:
            what: What was read from the file, for the message.
            backbone: The tower in use.
            settings: How pictures are read; ``None``: not looked at.
            native: Whether training at the tower's native size is as good as at the size that the settings leave to it: explainers are
                trained there, for maps are often read at a finer one.

        Raises:
            ConfigurationError: It is another one, such as that of the class token in place of the mean of the patches.
        """
        if self.pooling and self.pooling != _pooling(backbone):
            raise ConfigurationError(
                f"{what} was trained on the embedding that is made by {self.pooling!r}, that of {backbone.name} is made by "
                f"{_pooling(backbone)!r}, another space of the same weights: name the model that it was trained on (such as dinov2:ID or "
                "dinov2-cls:ID), or train it again."
            )
        if settings is None or not self.reading:
            return
        used, differing = self._differing(self.reading, backbone, settings)
        if native and settings.size is None and self.reading.get("size") == [min(backbone.preprocess.size)] * 2:
            differing = [name for name in differing if name != "size"]
        if differing:
            each = "; ".join(f"{name} {as_option(self.reading[name])} in training, {as_option(used[name])} now" for name in differing)
            options = ", ".join(f"--{name.replace('_', '-')}" for name in differing)
            warnings.warn(
                f"{what} was trained on pictures that were read in another way: {each}. Its answers may differ from those it was trained "
                f"to give: read them as in training ({options}), or train it again.",
                UserWarning,
                stacklevel=3,
            )

    def settings_for(self, backbone: Backbone, settings: Settings | None = None, said: Collection[str] = ()) -> Settings:
        """Returns settings under which pictures are read as in training, as far as that is known.

        Args:
            backbone: The tower.
            settings: All others; ``None``: the defaults.
            said: Names of settings that stay as they are.

        Raises:
            ConfigurationError: A file's header holds a value that cannot be used, or does not say what the tower leaves open.
        """
        settings = Settings() if settings is None else settings
        if not self.reading:
            return settings
        # What the tower leaves open has to be said before anything can be compared.
        settings = settings.with_values(**{name: self.reading.get(name) for name, _ in backbone.preprocess.unsure if name not in said})
        # The policy first: the size that a model reads of itself, and whether a resize mode counts, depend on it.
        for names in (("resize",), tuple(self.reading)):
            _, differing = self._differing(self.reading, backbone, settings)
            values = {name: self.reading[name] for name in differing if name in names and name not in said}
            if "size" in values:
                values["size"] = _side(values["size"])
            settings = settings.with_values(**values)
        return settings

    @staticmethod
    def _differing(reading: Mapping[str, Any], backbone: Backbone, settings: Settings) -> tuple[dict[str, Any], list[str]]:
        """Returns how pictures are read under the settings, and in what that differs from a reading."""
        used = input_in_use(backbone.preprocess, settings)
        differing = [name for name in used if name in reading and not _same(reading[name], used[name])]
        if not used["resize"] == reading.get("resize") == "native":
            differing = [name for name in differing if name != "resize_mode"]  # No other policy uses it.
        return used, differing


UNKNOWN = Origin()
"""Of files that do not say where they come from."""


def _pooling(backbone: Backbone) -> str:
    return backbone.gathers or BY_PATCHES


def _side(size: Any) -> Any:
    """The side of a square as the setting takes it; ``None`` for what is no square, which no setting says."""
    return size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    return bool(one == other)


def as_option(value: Any) -> str:
    """A value as an option takes it."""
    if isinstance(value, list | tuple) and value and all(isinstance(part, int | float) for part in value):
        parts = [f"{part:.4g}" for part in value]
        return parts[0] if len(set(parts)) == 1 else ",".join(parts)
    return value if isinstance(value, str) and len(value) < 40 else reprlib.repr(value)
