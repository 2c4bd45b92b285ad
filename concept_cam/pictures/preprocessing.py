"""What a checkpoint expects of its input."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """What a checkpoint expects of its input; plain data, used by :mod:`concept_cam.pictures.reading`.

    Attributes:
        size: Native ``(H, W)`` of the model's input, pixels.
        stride: ``(y, x)`` model pixels per grid cell; every input side is a multiple of it.
        mean: Per-channel mean, RGB, of values in 0..1.
        std: Per-channel standard deviation, RGB.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"nearest"``.
        native: How the checkpoint itself resizes: ``"shortest"`` (resize the short side, centre crop), ``"squash"`` or ``"longest"``.
        flexible: Whether inputs of other sizes than ``size`` can be read.
        read_size: ``(H, W)`` at which maps are read by default; ``size`` for most checkpoints, larger where that localises better.
        views: Views of a picture that are averaged by default, a name of :data:`concept_cam.backbones.views.VIEWS`.
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

    @property
    def default_size(self) -> tuple[int, int]:
        """``(H, W)`` at which maps are read by default."""
        return self.read_size or self.size
