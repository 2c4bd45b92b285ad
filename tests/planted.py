"""A backbone with planted truth: patch features are mean colours, texts are colour words. Weight-free and exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.protocol import FeatureMap, Gathering, ImageFeatures
from concept_cam.core.errors import PromptError, UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

COLOURS = {"red": 0, "green": 1, "blue": 2}


class PlantedBackbone:
    """``D = 4``: mean red, green and blue of a cell in 0..1, and a constant 0.1; a text is the sum of its colour words."""

    name = "planted"
    family = "planted"
    weights_hash = "0123456789abcdef"
    embed_dim = 4
    logit_scale = 10.0
    sharpness: Mapping[str, float] = MappingProxyType({})
    logit_bias = None
    context_length = 16
    attentions = ("value",)
    default_attention = "value"
    gathers = ""
    transformer = None
    layers = ("last",)
    own_head = None

    def __init__(self, size: int = 32, stride: int = 8) -> None:
        self.preprocess = Preprocess((size, size), (stride, stride), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")
        self.text_calls = 0

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def number_format(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def grid_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.preprocess.stride[0], size[1] // self.preprocess.stride[1]

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.encode_patches(pixels).image

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        cells = F.avg_pool2d(pixels, self.preprocess.stride).permute(0, 2, 3, 1)
        patches = torch.cat([cells, torch.full_like(cells[..., :1], 0.1)], dim=-1)
        weight = torch.ones(patches.shape[:3]) if valid is None else valid.float()
        image = (patches * weight[..., None]).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))[:, None]
        return ImageFeatures(patches, image)

    def gathering(self, features: FeatureMap) -> Gathering:
        raise UnsupportedModelError("the planted tower has no attention.")

    def stock_embedding(self, pixels: Tensor, features: FeatureMap, pooled: Tensor) -> Tensor:
        return pooled

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        self.text_calls += len(prompts)
        rows = []
        for prompt in prompts:
            if self.count_tokens(prompt) > self.context_length:
                raise PromptError(f"the prompt has {self.count_tokens(prompt)} tokens, the limit is {self.context_length}.")
            row = torch.zeros(4)
            for word in prompt.split():
                if word in COLOURS:
                    row[COLOURS[word]] += 1
                else:
                    row[3] += 0.2
            rows.append(row * 3.0)  # any length: ensembling must not depend on it
        return torch.stack(rows)

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split()) + 2

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        return tuple(word for word in prompt.split() if word.startswith("zz"))
