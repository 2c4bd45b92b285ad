"""Parity on the true image towers, the smallest of each family, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from concept_cam.backbones.loading import from_open_clip, from_transformers
from concept_cam.backbones.torchvision_compat import import_open_clip, import_transformers
from tests.backbones.models import (
    TEXT,
    WORDS,
    architecture,
    needed,
    own_embedding,
    pictures,
    randomise,
    relative,
    simple_tokenizer,
    word_tokenizer,
)

SMALLEST = {
    "ViT-S-32-alt": "open_clip-vit",
    "RN50": "open_clip-resnet",
    "convnext_tiny": "timm-spatial",
    "MobileCLIP2-S0": "timm-spatial",
    "MobileCLIP2-S3": "timm-spatial",
    "MobileCLIP2-B": "timm-vit",
    "swin_base_patch4_window7_224": "timm-spatial",
    "PE-Core-T-16-384": "timm-vit-attention-pool",
    "ViT-B-16-SigLIP": "timm-vit-attention-pool",
    "ViT-B-32-SigLIP2-256": "timm-vit-attention-pool",
    "ViTamin-S": "timm-vit-mean",
    "vit_medium_patch16_gap_256": "timm-vit-mean",
    "EVA02-B-16": "timm-vit",
    "MobileCLIP-B": "timm-vit",
}


def check(name: str) -> Any:
    model = architecture(name)
    backbone = from_open_clip(model, simple_tokenizer(), name=name)
    assert backbone.family == SMALLEST[name]
    pixels = pictures(backbone, batch=1)
    own = own_embedding("", model, pixels)
    for attention in {"vanilla", backbone.default_attention}:
        features = backbone.encode_patches(pixels, attention)
        assert features.patches.shape[1:3] == backbone.grid_size(backbone.preprocess.size)
        assert relative(features.image, own) < 1e-5
    assert relative(backbone.pool(backbone.feature_map(pixels)), own) < 1e-5
    return backbone, features


def test_vit() -> None:
    check("ViT-S-32-alt")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALLEST if name != "ViT-S-32-alt"])
def test_true_architecture(name: str) -> None:
    check(name)


def test_metaclip_2_of_open_clip(tmp_path: Path) -> None:
    """The smallest of the ``ViT-*-worldwide``: its image tower with two of 24 blocks, and its way with texts on a vocabulary made here."""
    open_clip = import_open_clip()
    config = open_clip.get_model_config("ViT-L-14-worldwide-quickgelu")
    if config is None:
        pytest.skip("this release of open_clip has no small worldwide model")
    said = config["text_cfg"]
    assert (said["pool_type"], said["tokenizer_kwargs"]) == ("eos", {"clean": "canonicalize"})
    torch.manual_seed(0)
    vision = {**config["vision_cfg"], "layers": 2}
    text = {**TEXT, "vocab_size": 4 + len(WORDS), "pool_type": "eos", "eos_id": 3}
    model: Any = randomise(open_clip.CLIP(embed_dim=config["embed_dim"], vision_cfg=vision, text_cfg=text, quick_gelu=True))
    word_tokenizer().save_pretrained(tmp_path)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=16, **said["tokenizer_kwargs"])
    backbone = from_open_clip(model, tokenizer, name="worldwide")
    assert (backbone.family, backbone.default_attention) == ("open_clip-vit", "kk")
    for size in ((224, 224), (70, 168)):
        pixels = pictures(backbone, batch=1, size=size)
        assert relative(backbone.encode_patches(pixels).image, backbone.library_embedding(pixels)) < 1e-5
    texts = ["A fish, with a forked tail!", "the beak of a bird"]
    with torch.no_grad():
        assert relative(backbone.encode_text(texts), model.encode_text(tokenizer(texts))) < 1e-5
    assert backbone.unknown_words("a forked tail") == ()


VIT_S = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 16}
VIT_B = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16}
VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 16, "patch_size": 14}

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "Tipsv2": {},  # B/14, 448
    "MetaClip2": {**VIT_S, "image_size": 224},
    "AltCLIP": {**VIT_L, "image_size": 224},  # six of its 24 blocks
    "ChineseCLIP": {**VIT_B, "image_size": 224},
    "Siglip2": {},  # B/16, NaFlex
    "Align": {},  # EfficientNet-B7
    "DINOv3ViT": {},  # S/16
    "DINOv3ConvNext": {},  # tiny
    "Radio": {**{key: value for key, value in VIT_B.items() if key != "intermediate_size"}, "image_size": 224},
    "Dinov2WithRegisters": {"hidden_size": 384, "num_attention_heads": 6, "patch_size": 14, "image_size": 518},
}
"""Families of the transformers library: their smallest published image towers; the settings that are not the configuration's own."""


def published_tower(prefix: str) -> Any:
    """Builds the image tower at its published size, with a small text tower where there is one, and reads it."""
    transformers = import_transformers()
    config_class, settings = needed(f"{prefix}Config"), TRANSFORMERS[prefix]
    torch.manual_seed(0)
    words = prefix in ("Tipsv2", "MetaClip2", "AltCLIP", "ChineseCLIP", "Siglip2", "Align")
    if not words:
        model = getattr(transformers, f"{prefix}Model")(config_class(**settings))
        return from_transformers(randomise(model))
    text = {"vocab_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 20}
    text["hidden_size"] = 768 if prefix in ("Tipsv2", "Siglip2") else 32
    more = {"projection_dim": 640} if prefix == "Align" else {}
    config = config_class(text_config={**text, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}, vision_config=settings, **more)
    return from_transformers(randomise(getattr(transformers, f"{prefix}Model")(config)), word_tokenizer())


@pytest.mark.slow
@pytest.mark.parametrize("prefix", TRANSFORMERS)
def test_published_sizes_of_the_transformers_library(prefix: str) -> None:
    """At the native size and at an odd one, against the library's own forward. Last run: 2026-11-27, all passed."""
    backbone = published_tower(prefix)
    (height, width), (row, column) = backbone.preprocess.size, backbone.preprocess.stride
    for size in ((height, width), (5 * row, 9 * column)):
        pixels = pictures(backbone, batch=1, size=size)
        own = backbone.library_embedding(pixels)
        for attention in {"vanilla", backbone.default_attention}:
            features = backbone.encode_patches(pixels, attention)
            assert features.patches.shape == (1, size[0] // row, size[1] // column, backbone.embed_dim)
            assert relative(features.image, own) < 1e-5
        assert relative(backbone.pool(backbone.feature_map(pixels)), own) < 1e-5


@pytest.mark.slow
def test_gap_of_a_norm_after_the_pooling() -> None:
    """ConvNeXt's head normalises the mean: the mean of its cells points nearly the same way, but is not it."""
    _, features = check("convnext_tiny")
    assert 1e-3 < relative(features.patches.mean(dim=(1, 2)), features.image) < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PE-Core-T-16-384", "EVA02-B-16", "MobileCLIP-B", "RN50"])
def test_true_architecture_reads_a_rectangle_with_padding(name: str) -> None:
    backbone = from_open_clip(architecture(name), simple_tokenizer(), name=name)
    stride = backbone.preprocess.stride
    pixels = pictures(backbone, batch=1, size=(stride[0] * 5, stride[1] * 8))
    valid = torch.ones(1, 5, 8, dtype=torch.bool)
    valid[:, :, -2:] = False
    features = backbone.encode_patches(pixels, "auto", valid)
    assert features.patches.shape == (1, 5, 8, backbone.embed_dim)
    assert torch.isfinite(features.patches).all()
    assert relative(features.image, backbone.pool(backbone.feature_map(pixels, valid))) < 1e-5
