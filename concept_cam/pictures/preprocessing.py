"""What a checkpoint expects of its input."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import PREPROCESS_SETTINGS, Settings

__all__ = ["Preprocess", "adapted", "input_in_use", "own_input"]


@dataclass(frozen=True)
class Preprocess:
    """What a checkpoint expects of its input; plain data, used by :mod:`concept_cam.pictures.reading`.

    Attributes:
        size: Native ``(H, W)`` of the model's input, pixels.
        stride: ``(y, x)`` model pixels per grid cell; every input side is a multiple of it.
        mean: Per-channel mean, RGB, of values in 0..1.
        std: Per-channel standard deviation, RGB.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"nearest"``.
        native: How the checkpoint itself resizes: ``"shortest"`` (resize the short side, centre crop), ``"squash"``, ``"longest"``, or
            ``"naflex"`` (the picture's own aspect, at most as many cells as ``size`` has).
        resize_side: ``(H, W)`` to which the checkpoint itself resizes before it cuts ``size`` out of the centre; ``None``: to ``size``.
        flexible: Whether inputs of other sizes than ``size`` can be read.
        read_size: ``(H, W)`` at which maps are read by default; ``size`` for most checkpoints, larger where that localises better.
        views: Views of a picture that are averaged by default, a name of :data:`concept_cam.backbones.views.VIEWS`.
        origin: Where mean, deviation, interpolation and resizing come from, for people.
        unsure: Names of those on which the published weights of the architecture disagree, each with what they say.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    native: str = "shortest"
    flexible: bool = True
    read_size: tuple[int, int] | None = None
    views: str = "single"
    resize_side: tuple[int, int] | None = None
    origin: str = field(default="", compare=False)
    unsure: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def default_size(self) -> tuple[int, int]:
        """``(H, W)`` at which maps are read by default."""
        return self.read_size or self.size

    def __str__(self) -> str:
        """One line for people: what is used, and where it comes from."""
        mean, std = ("/".join(f"{part:.4g}" for part in values) for values in (self.mean, self.std))
        came = f" ({self.origin})" if self.origin else ""
        return f"mean {mean}, std {std}, {self.interpolation}, resize {self.native}{came}"


_FIELDS = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "native"}
"""Setting -> field of :class:`Preprocess`."""


def own_input(preprocess: Preprocess) -> dict[str, Any]:
    """Returns what a checkpoint does of itself, by the names of the settings that stand in its place, as plain data for JSON; without what
    it leaves open.
    """
    values = {name: getattr(preprocess, own) for name, own in _FIELDS.items() if name not in dict(preprocess.unsure)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def adapted(preprocess: Preprocess, settings: Settings) -> Preprocess:
    """Returns what the input must look like with what the settings say in place of the checkpoint's own.

    Raises:
        ConfigurationError: Published weights of the architecture disagree, and the settings do not say which of them to follow.
    """
    given = {name: value for name in PREPROCESS_SETTINGS if (value := getattr(settings, name)) is not None}
    open_questions = [f"{name.replace('_', ' ')} {said}" for name, said in preprocess.unsure if name not in given]
    if open_questions:
        raise ConfigurationError(
            f"the published weights of this architecture are read differently: {'. '.join(open_questions)}. Say which of them this file is "
            "to be read like, with the model as ARCHITECTURE/TAG:FILE; or give the values, "
            + ", ".join(f"--{name.replace('_', '-')}" for name, _ in preprocess.unsure)
            + "."
        )
    if not given:
        return preprocess
    changed = ", ".join(name.replace("_", " ") for name in given)
    origin = f"{changed} as asked{'; else ' + preprocess.origin if preprocess.origin and len(given) < len(PREPROCESS_SETTINGS) else ''}"
    return replace(preprocess, **{_FIELDS[name]: value for name, value in given.items()}, origin=origin, unsure=())


def input_in_use(preprocess: Preprocess, settings: Settings) -> dict[str, Any]:
    """Returns how pictures are brought to the model's input, as plain data: what is used and not what was asked for, so that naming the
    model's own value makes no difference.

    Args:
        preprocess: What the checkpoint says of its input.
        settings: How pictures are read.

    Returns:
        ``size`` ``[H, W]`` in model pixels, ``resize``, ``mean``, ``std``, ``interpolation`` and ``resize_mode``.

    Raises:
        ConfigurationError: As for :func:`adapted`.
    """
    expected = adapted(preprocess, settings)
    own = expected.size if settings.resize == "native" else expected.default_size
    return {
        "size": list(own) if settings.size is None else [settings.size] * 2,
        "resize": settings.resize,
        "mean": list(expected.mean),
        "std": list(expected.std),
        "interpolation": expected.interpolation,
        "resize_mode": expected.native,
    }
