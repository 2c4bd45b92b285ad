"""Models with planted truth for the method tests, and a check that a method leaves a model as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.protocol import FeatureMap, ImageFeatures
from tests.planted import PlantedBackbone


class LinearBackbone(PlantedBackbone):
    """Mean pooling and a projection, nothing else after the feature map: the tower on which direct and gradient maps are equal.

    The feature map has six channels: red, green and blue of a cell, a constant, and two mixtures of them.
    """

    name = "linear"

    def __init__(self, size: int = 32, stride: int = 8) -> None:
        super().__init__(size, stride)
        generator = torch.Generator().manual_seed(3)
        self.model = nn.Linear(6, 4, bias=False)
        with torch.no_grad():
            self.model.weight.copy_(torch.randn(4, 6, generator=generator) * 0.2)
            self.model.weight[:4, :4] += torch.eye(4)

    def feature_map(self, pixels: Tensor, valid: Tensor | None = None, layer: str | None = None) -> FeatureMap:
        cells = F.avg_pool2d(pixels, self.preprocess.stride)
        constant = torch.full_like(cells[:, :1], 0.1)
        mixed = torch.cat([cells[:, :1] * cells[:, 1:2], cells[:, 2:] - cells[:, :1]], dim=1)
        map_ = torch.cat([cells, constant, mixed], dim=1)
        return FeatureMap(map_ if valid is None else map_ * valid[:, None], valid=valid)

    def pool(self, features: FeatureMap) -> Tensor:
        cells = features.map.flatten(2)
        if features.valid is None:
            return self.model(cells.mean(dim=2))
        weight = features.valid.flatten(1).float()
        return self.model((cells * weight[:, None]).sum(dim=2) / weight.sum(dim=1, keepdim=True))

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        with torch.no_grad():
            features = self.feature_map(pixels, valid)
            return ImageFeatures(self.model(features.map.permute(0, 2, 3, 1)), self.pool(features))


def photograph(seed: int = 0, size: tuple[int, int] = (24, 40)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def _state(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "gradients": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "required": {name: p.requires_grad for name, p in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {(name, kind): len(getattr(module, kind)) for name, module in model.named_modules() for kind in hooks},
        "classes": {name: type(module) for name, module in model.named_modules()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "attributes": {name: sorted(module.__dict__) for name, module in model.named_modules()},
    }


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Checks that what runs within leaves the model bit-identical, also when it raises."""
    before = copy.copy(_state(model))
    try:
        yield
    finally:
        after = _state(model)
        for key in ("required", "modes", "hooks", "classes", "modules", "attributes"):
            assert after[key] == before[key], key
        for key in ("values", "gradients"):
            assert after[key].keys() == before[key].keys()
            for name, value in before[key].items():
                other = after[key][name]
                assert (value is None and other is None) or torch.equal(value, other), (key, name)
