"""The model that is trained: a stock `open_clip` CLIP, and how its towers are read during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.open_clip_resnet import corner_map, fine_map
from training import tokenizer as words
from training.config import READ_STRIDE, TrainConfig


def model_config(config: TrainConfig, vocabulary_size: int) -> dict[str, Any]:
    """`model_cfg` of `open_clip_config.json`."""
    vision: dict[str, Any]
    if config.arch == "resnet":
        vision = {
            "image_size": 128,
            "layers": list(config.layers),
            "width": config.width,
            "head_width": 64,
            "patch_size": None,
        }
    elif config.arch == "vit":
        vision = {"image_size": 96, "layers": 5, "width": 128, "head_width": 32, "patch_size": 8}
    else:
        raise ValueError(f"unknown architecture {config.arch!r}: expected 'resnet' or 'vit'.")
    return {
        "embed_dim": config.embed_dim,
        "init_logit_bias": -2.0,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": words.CONTEXT_LENGTH,
            "vocab_size": vocabulary_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "bundled",
        },
    }


def build_model(config: TrainConfig, vocabulary_size: int) -> Any:
    """A stock `open_clip` model with fresh weights."""
    from concept_cam.backbones.torchvision_compat import import_open_clip

    torch.manual_seed(config.seed)
    settings = model_config(config, vocabulary_size)
    model = import_open_clip().model.CLIP(**settings, init_logit_scale=math.log(10.0))
    if config.arch == "resnet":
        # A bag of patches: pooling without positions can be read at any size, and each patch alone means the same as in the pool.
        with torch.no_grad():
            model.visual.attnpool.positional_embedding.zero_()
        model.visual.attnpool.positional_embedding.requires_grad_(False)
    return model


def load_weights(clip: Any, folder: Path, vocabulary: Sequence[str]) -> None:
    """Gives a fresh model the weights of an exported one.

    Raises:
        ValueError: The model in `folder` has another vocabulary or another shape.
    """
    from safetensors.torch import load_file

    known = tuple((folder / "vocabulary.txt").read_text(encoding="utf-8").split())
    if known != tuple(vocabulary):
        raise ValueError(f"the model in {folder} knows other words than the captions use: train without it.")
    try:
        clip.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"the model in {folder} has another shape: give the same width, layers and embedding.") from error


MARGINS: Final[dict[int, float]] = {16: 0.5, 8: 2.0}
"""Stride -> cells between the picture's edge and the map's; see `fine_features`."""


def fine_features(visual: Any, x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Last feature map of a CLIP ResNet as trained and at a finer stride; see `OpenClipResNet`.

    Args:
        x: [B, 3, H, W] preprocessed.
        stride: 16 or 8 pixels.

    Returns:
        [B, E, H / 32, W / 32], and [B, E, H / 16 - 1, W / 16 - 1] or [B, E, H / 8 - 4, W / 8 - 4].
    """
    early = visual.layer2(visual.layer1(visual.stem(x)))
    if stride == 16:
        fine = fine_map(visual, early, 16)
        return fine[..., ::2, ::2], fine
    corners = corner_map(visual, early)
    return corners[..., ::4, ::4], F.avg_pool2d(corners, 2, stride=1)


def attention_pool(pool: Any, x: Tensor) -> Tensor:
    """`open_clip`'s attention pooling for a map of any size and positions that are all zero.

    Keys and values are never made: with one query, its product with the key matrix and the mean of the cells' features say the same.

    Args:
        x: [B, E, h, w].

    Returns:
        [B, D].
    """
    tokens = x.flatten(2).transpose(1, 2)
    mean = tokens.mean(1, keepdim=True)
    tokens = torch.cat([mean, tokens], 1)
    heads = pool.num_heads
    query = pool.q_proj(mean[:, 0]).unflatten(-1, (heads, -1))
    asked = torch.einsum("bkd,kde->bke", query, pool.k_proj.weight.unflatten(0, (heads, -1)))
    weights = (asked @ tokens.transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(-1)
    value = torch.einsum("bke,kde->bkd", weights @ tokens, pool.v_proj.weight.unflatten(0, (heads, -1)))
    return pool.c_proj(value.flatten(1) + pool.v_proj.bias)


def encode_resnet(visual: Any, x: Tensor, stride: int = READ_STRIDE) -> tuple[Tensor, Tensor]:
    """Image embedding [B, D] and patch embeddings [B, h, w, D] by the value path, both not normalised."""
    coarse, fine = fine_features(visual, x, stride)
    value, out = visual.attnpool.v_proj, visual.attnpool.c_proj
    # One matrix instead of two: a cell alone in the pool passes through both.
    patches = F.linear(fine.permute(0, 2, 3, 1), out.weight @ value.weight, out.weight @ value.bias + out.bias)
    return attention_pool(visual.attnpool, coarse), patches


def encode_vit(visual: Any, x: Tensor, stride: int = READ_STRIDE) -> tuple[Tensor, None]:
    """Image embedding [B, D] of a ViT, which reads one size only; its patches are not trained."""
    if x.shape[-2:] != tuple(visual.image_size):
        x = F.interpolate(x, size=tuple(visual.image_size), mode="bilinear", antialias=True, align_corners=False)
    return visual(x), None


def encode_text(clip: Any, tokens: Tensor) -> Tensor:
    """`clip.encode_text` without the padding that all texts share: the text tower is causal, so what follows the end has no effect.

    Args:
        tokens: int64 [N, L].

    Returns:
        [N, D].
    """
    longest = int((tokens != 0).sum(1).max())
    x = clip.token_embedding(tokens[:, :longest]) + clip.positional_embedding[:longest]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:longest, :longest]))
    return x[torch.arange(len(x)), tokens.argmax(1)] @ clip.text_projection


ENCODERS: Final[dict[str, Callable[..., tuple[Tensor, Tensor | None]]]] = {
    "resnet": encode_resnet,
    "vit": encode_vit,
}


class Trainee(nn.Module):
    """The model and the one parameter that training needs beside it.

    Attributes:
        clip: The `open_clip` model.
        patch_bias: Bias of the sigmoid for captions judged by their best patches.
    """

    def __init__(self, clip: Any, arch: str) -> None:
        super().__init__()
        self.clip: Any = clip
        self.arch = arch
        self.patch_bias = nn.Parameter(torch.tensor(-4.0))

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Returns normalised image [B, D], patch [B, n, D] (or None) and text [N, D] embeddings, float32."""
        pooled, patches = ENCODERS[self.arch](self.clip.visual, x)
        text = encode_text(self.clip, tokens)
        flat = None if patches is None else F.normalize(patches.flatten(1, 2).float(), dim=-1)
        return F.normalize(pooled.float(), dim=-1), flat, F.normalize(text.float(), dim=-1)
