"""A model on its way to its family: loaded, with the settings and the text tower that came with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.views import VIEWS
from concept_cam.core.errors import ModelError
from concept_cam.core.names import choose
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["OPENAI_MEAN", "OPENAI_STD", "Made", "pair"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Made:
    """What a family's ``read`` gets.

    Attributes:
        name: Name of the model, for results.
        model: The model, in evaluation mode.
        text: Its text tower; ``None`` for towers without words.
        config: How pictures are prepared, in open_clip's terms: ``mean``, ``std``, ``interpolation``, ``resize_mode``; where a folder
            says it ``size``, ``resize_side`` (before a centre crop) and ``max_num_patches``; and our own ``read_size``, ``read_stride``,
            ``read_views``.
        origin: Where ``config`` comes from, for people.
        unsure: Keys of ``config`` on which the published weights of the architecture disagree, with what they say.
        options: What a name says beside the model, such as the pooling of a tower without text.
        exact: Parts of the model that stay in float32 whatever the number format: rounding them would change maps more than it saves.
    """

    name: str
    model: nn.Module
    text: TextEncoder | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    unsure: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    exact: tuple[nn.Module, ...] = ()

    @property
    def words(self) -> TextEncoder:
        """The text tower.

        Raises:
            ModelError: There is none.
        """
        if self.text is None:
            raise ModelError(f"{self.name} has no text tower, which its family needs.")
        return self.text

    @property
    def visual(self) -> Any:
        """The image tower of an open_clip model."""
        return self.model.visual

    def embed_dim(self) -> int:
        """Returns the width of the joint space, as the text tower's projection has it."""
        for name, parameter in self.model.named_parameters():
            if name.endswith("text_projection"):
                return int(parameter.shape[1])
            if name.endswith("text_projection.weight"):
                return int(parameter.shape[0])
        return int(self.words(["a picture"]).shape[1])

    def preprocess(
        self, size: int | tuple[int, int], stride: int | tuple[int, int], flexible: bool = True, usual: Mapping[str, Any] | None = None
    ) -> Preprocess:
        """Returns what the input must look like.

        Args:
            size: Native ``(H, W)``, or the side of a square.
            stride: Model pixels per cell.
            flexible: Whether other sizes can be read.
            usual: What stands where ``config`` says nothing; by default OpenAI's values.
        """
        config = {**(usual or {}), **{key: value for key, value in self.config.items() if value is not None}}
        mean, std = (
            tuple(float(part) for part in config.get(key) or default) for key, default in (("mean", OPENAI_MEAN), ("std", OPENAI_STD))
        )
        interpolation = config.get("interpolation") or "bicubic"
        views = config.get("read_views") or "single"
        choose(views, VIEWS, "read_views in the checkpoint's configuration", ModelError)
        return Preprocess(
            size=pair(size),
            stride=pair(stride),
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            interpolation="bicubic" if interpolation == "random" else interpolation,
            native=config.get("resize_mode") or "shortest",
            flexible=flexible,
            read_size=pair(config["read_size"]) if config.get("read_size") else None,
            views=views,
            resize_side=pair(config["resize_side"]) if config.get("resize_side") else None,
            origin=self.origin,
            unsure=tuple(self.unsure.items()),
        )


def pair(value: Any) -> tuple[int, int]:
    """Returns ``(rows, columns)`` of one number or two."""
    return (int(value[0]), int(value[1])) if isinstance(value, tuple | list) else (int(value), int(value))
