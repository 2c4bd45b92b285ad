"""Small models of the true architectures with random weights, every kind of parameter and running statistic random too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from concept_cam.backbones.loading import from_open_clip, from_transformers
from concept_cam.backbones.torchvision_compat import import_open_clip, import_transformers

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"layers": 4, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 96}


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Moves every parameter and every running statistic away from its initial value, so that parity is not trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = 0.3 if parameter.ndim < 2 else 0.5 * float(parameter.float().std())
            if "logit" not in name and name != "temperature":
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model.eval()


def open_clip_model(vision: dict[str, Any], custom_text: bool = False, **config: Any) -> nn.Module:
    """Builds an open_clip model with a small text tower."""
    open_clip = import_open_clip()
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    torch.manual_seed(0)
    return randomise(kind(embed_dim=24, vision_cfg=vision, text_cfg=TEXT, **config))


def coca_model() -> nn.Module:
    open_clip = import_open_clip()
    torch.manual_seed(0)
    text = {**TEXT, "context_length": 16, "embed_cls": True, "output_tokens": True}
    vision = {
        **VIT,
        "attentional_pool": True,
        "attn_pooler_heads": 4,
        "attn_pooler_queries": 6,
        "output_tokens": True,
    }
    multimodal = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CoCa(embed_dim=24, multimodal_cfg=multimodal, text_cfg=text, vision_cfg=vision)
    for parameter in model.parameters():
        if not torch.isfinite(parameter).all() or parameter.abs().max() > 1e3:
            nn.init.normal_(parameter, std=0.1)  # CoCa leaves some memory uninitialised.
    return randomise(model)


def simple_tokenizer(context_length: int = 16) -> Callable[..., Tensor]:
    return import_open_clip().SimpleTokenizer(context_length=context_length)


def timm_vision(trunk: str, pool: str, size: int, proj: str | None = "linear") -> dict[str, Any]:
    return {"timm_model_name": trunk, "timm_pool": pool, "timm_proj": proj, "image_size": size}


def architecture(name: str) -> nn.Module:
    """Builds the true image tower of one of open_clip's architectures, with a small text tower."""
    open_clip = import_open_clip()
    config = open_clip.get_model_config(name)
    if config is None:
        pytest.skip(f"this release of open_clip does not know {name}")
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    torch.manual_seed(0)
    model = kind(embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=TEXT,
                 quick_gelu=config.get("quick_gelu", False))  # fmt: skip
    return randomise(model)


WORDS = [
    "a",
    "an",
    "of",
    "the",
    "fin",
    "tail",
    "fish",
    "bird",
    "forked",
    "rounded",
    "square",
    "beak",
    "leaf",
    "picture",
    "with",
    "and",
]


def word_tokenizer(length: int = 16, siglip: bool = False) -> Any:
    """Makes a tokenizer with a closed vocabulary, without any download."""
    transformers = import_transformers()
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    specials = ["<pad>", "<unk>", "<bos>", "<eos>"]
    vocabulary = {word: number for number, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "$A <eos>" if siglip else "<bos> $A <eos>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, vocabulary[name]) for name in ("<bos>", "<eos>")]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        model_max_length=length,
    )  # fmt: skip


COMMON = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXTS = {
    **COMMON,
    "vocab_size": 4 + len(WORDS),
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
CLIP_VISION = {**COMMON, "image_size": 32, "patch_size": 8}
DINO = {"initializer_range": 0.25, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}


def transformers_model(kind: str) -> nn.Module:
    """Builds a small model of one of the model types of the transformers library that are read."""
    transformers = import_transformers()
    torch.manual_seed(0)
    prefixes = {"clip": "CLIP", "metaclip_2": "MetaClip2", "altclip": "AltCLIP", "chinese_clip": "ChineseCLIP"}
    if kind in prefixes:
        prefix = prefixes[kind]
        text = dict(TEXTS)
        if kind == "altclip":  # RoBERTa's places begin behind the padding's.
            text |= {"project_dim": 24, "max_position_embeddings": 17}
        config = needed(f"{prefix}Config")(text_config=text, vision_config=CLIP_VISION, projection_dim=24)
        return randomise(getattr(transformers, f"{prefix}Model")(config))
    if kind == "siglip":
        return randomise(transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXTS, vision_config=CLIP_VISION)))
    if kind == "siglip2":
        vision = {**COMMON, "num_patches": 16, "patch_size": 8}
        return randomise(transformers.Siglip2Model(transformers.Siglip2Config(text_config=TEXTS, vision_config=vision)))
    if kind == "align":
        vision = {"width_coefficient": 0.1, "depth_coefficient": 0.1}
        config = transformers.AlignConfig(text_config={**TEXTS, "type_vocab_size": 1}, vision_config=vision, projection_dim=32)
        return randomise(transformers.AlignModel(config))
    if kind == "tipsv2":
        config = needed("Tipsv2Config")(text_config=TEXTS, vision_config={**DINO, "num_register_tokens": 1})
        return randomise(transformers.Tipsv2Model(config))
    return randomise(feature_model(kind))


def feature_model(kind: str) -> nn.Module:
    """Builds a small image tower without text of the transformers library."""
    transformers = import_transformers()
    if kind == "dinov2_with_registers":
        return transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**DINO, num_register_tokens=2))
    if kind == "dinov3_vit":
        config = needed("DINOv3ViTConfig")(**DINO, intermediate_size=48, num_register_tokens=2)
        return transformers.DINOv3ViTModel(config)
    if kind == "dinov3_convnext":
        config = needed("DINOv3ConvNextConfig")(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], image_size=96)
        return transformers.DINOv3ConvNextModel(config)
    assert kind == "radio"
    config = needed("RadioConfig")(**DINO, max_img_size=96, num_cls_tokens=3, num_registers=2)
    return transformers.RadioModel(config)


def needed(name: str) -> Any:
    """Returns a class of the transformers library, or skips the test where this release does not have it."""
    found = getattr(import_transformers(), name, None)
    if found is None:
        pytest.skip(f"this release of transformers has no {name}")
    return found


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: open_clip_model(VIT),
    "vit-layer-scale": lambda: open_clip_model({**VIT, "ls_init_value": 0.1}, quick_gelu=True),
    "vit-mean": lambda: open_clip_model({**VIT, "pool_type": "avg", "no_ln_pre": True, "pos_embed_type": "sin_cos_2d"}),
    "vit-mean-late-norm": lambda: open_clip_model({**VIT, "pool_type": "avg", "final_ln_after_pool": True}, custom_text=True),
    "coca": coca_model,
    "resnet": lambda: open_clip_model(RESNET),
    "timm-token": lambda: open_clip_model(timm_vision("test_vit", "token", 224), custom_text=True),
    "timm-mean-registers": lambda: open_clip_model(timm_vision("test_vit2", "avg", 224), custom_text=True),
    "timm-map": lambda: open_clip_model(timm_vision("test_vit3", "map", 224, "none") | {"timm_proj": "linear"}, custom_text=True),
    "timm-convnext": lambda: open_clip_model(timm_vision("test_convnext", "", 160), custom_text=True),
    "timm-resnet": lambda: open_clip_model(timm_vision("test_resnet", "avg", 160), custom_text=True),
    "transformers-clip": lambda: transformers_model("clip"),
    "transformers-siglip": lambda: transformers_model("siglip"),
    "transformers-siglip2": lambda: transformers_model("siglip2"),
    "transformers-metaclip_2": lambda: transformers_model("metaclip_2"),
    "transformers-altclip": lambda: transformers_model("altclip"),
    "transformers-chinese_clip": lambda: transformers_model("chinese_clip"),
    "transformers-align": lambda: transformers_model("align"),
    "transformers-tipsv2": lambda: transformers_model("tipsv2"),
    "transformers-dinov2_with_registers": lambda: transformers_model("dinov2_with_registers"),
    "transformers-dinov3_vit": lambda: transformers_model("dinov3_vit"),
    "transformers-dinov3_convnext": lambda: transformers_model("dinov3_convnext"),
    "transformers-radio": lambda: transformers_model("radio"),
}
"""One small model of each kind of image tower."""

SPATIAL_KINDS = ("resnet", "timm-convnext", "timm-resnet", "transformers-align", "transformers-dinov3_convnext")
"""Those that end in a map."""

TOKEN_KINDS = tuple(kind for kind in BUILDERS if kind not in SPATIAL_KINDS)
"""Those that are vision transformers."""

WORDLESS_KINDS = tuple(kind for kind in BUILDERS if "dinov" in kind or "radio" in kind)
"""Those without a text tower."""


def wrap(kind: str, model: nn.Module) -> Any:
    if kind.startswith("transformers"):
        tokenizer = None if kind in WORDLESS_KINDS else word_tokenizer(siglip="siglip" in kind)
        return from_transformers(model, tokenizer, name=kind)
    return from_open_clip(model, simple_tokenizer(), name=kind)


@functools.cache
def backbone(kind: str) -> Any:
    """One backbone per kind and test session; backbones have no state."""
    return wrap(kind, BUILDERS[kind]())


def own_embedding(kind: str, model: Any, pixels: Tensor) -> Tensor:
    """What the model itself says about a picture, through its public interface."""
    with torch.no_grad():
        if kind == "transformers-siglip2":
            size = model.config.vision_config.patch_size
            rows, columns = pixels.shape[2] // size, pixels.shape[3] // size
            patches = torch.stack([
                pixels[:, :, y * size : (y + 1) * size, x * size : (x + 1) * size].permute(0, 2, 3, 1).flatten(1)
                for y in range(rows) for x in range(columns)
            ], dim=1)  # fmt: skip
            out = model.get_image_features(
                pixel_values=patches,
                pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
                spatial_shapes=torch.tensor([[rows, columns]] * len(pixels)),
            )
            return out if isinstance(out, Tensor) else out.pooler_output
        if kind == "transformers-radio":
            return model(pixels).features.mean(dim=1)
        if kind == "transformers-dinov3_convnext":
            return model(pixels).pooler_output
        if kind in WORDLESS_KINDS:
            return model(pixels).last_hidden_state[:, 1 + model.config.num_register_tokens :].mean(dim=1)
        if kind.startswith("transformers"):
            out = model.get_image_features(pixel_values=pixels)
            return out if isinstance(out, Tensor) else out.pooler_output
        return model.encode_image(pixels, normalize=False)


def relative(a: Tensor, b: Tensor) -> float:
    """Largest relative difference of two batches of embeddings, each against its own length."""
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).detach().max())


def pictures(backbone: Any, batch: int = 2, size: tuple[int, int] | None = None, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *(size or backbone.preprocess.size), generator=generator)
