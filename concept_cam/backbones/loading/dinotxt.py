"""dino.txt from local files: DINOv3 as the transformers library keeps it, and the published file of vision head and text tower.

Only tensors are read; every one of them must find its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from concept_cam.backbones.dinotxt import DinoTextModel
from concept_cam.backbones.loading.classifiers import WEIGHT_SUFFIXES, read_state
from concept_cam.backbones.loading.transformers import require_whole, said_of
from concept_cam.backbones.loading.transformers_pictures import processor_settings
from concept_cam.backbones.made import Made
from concept_cam.backbones.text import ModelTower, OpenClipTokens, TextEncoder
from concept_cam.backbones.torchvision_compat import import_open_clip, import_transformers, without_bars
from concept_cam.core.errors import ModelError

__all__ = ["make"]

HEAD_WIDTH = 64
"""Width of an attention head of the text tower."""

VISION: dict[str, str] = {
    "attn.qkv.": "attn.qkv.", "attn.proj.": "attn.proj.", "mlp.w1.": "mlp.fc1_g.", "mlp.w2.": "mlp.fc1_x.", "mlp.w3.": "mlp.fc2.",
}  # fmt: skip
"""Names of tensors in a block of the vision head -> names in timm's block; others are alike."""

TEXT: dict[str, str] = {
    "attention_norm.": "ln_1.", "attention.qkv.": "attn.in_proj_", "attention.proj.": "attn.out_proj.", "ffn_norm.": "ln_2.",
    "feed_forward.fc1.": "mlp.c_fc.", "feed_forward.fc2.": "mlp.c_proj.", "ls1.": "ls_1.", "ls2.": "ls_2.",
}  # fmt: skip
"""The same for a block of the text tower and open_clip's block."""


def make(folder: Path, name: str) -> Made:
    """Makes a model of a folder; see :class:`concept_cam.backbones.Family`.

    Raises:
        ModelError: A file is missing, or holds something else.
    """
    transformers = import_transformers()
    if not folder.is_dir():
        raise ModelError(f"the folder {str(folder)!r} does not exist (model {name!r}).")
    files = sorted(file for file in folder.iterdir() if "dinotxt" in file.name and file.suffix in WEIGHT_SUFFIXES)
    if not (folder / "config.json").is_file() or len(files) != 1:
        raise ModelError(
            f"dino.txt in {str(folder)!r} needs DINOv3 as the transformers library keeps it (config.json, model.safetensors) and one file "
            f"of its vision head and text tower ('...dinotxt...pth'); found {len(files)} such files."
        )
    state = read_state(files[0], name)
    given = {"local_files_only": True, "trust_remote_code": False}
    try:
        with without_bars():
            backbone, info = transformers.AutoModel.from_pretrained(folder, output_loading_info=True, **given)
    except Exception as error:
        raise ModelError(f"cannot load the backbone of {name}: {said_of(error, folder)}") from error
    if backbone.config.model_type != "dinov3_vit" or info["missing_keys"] or info.get("mismatched_keys"):
        raise ModelError(
            f"{name}: {str(folder)!r} holds no whole DINOv3 vision transformer (found model type {backbone.config.model_type!r})."
        )
    require_whole(backbone, info.get("unexpected_keys") or (), name)
    try:
        model = _assemble(backbone, state)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:300]
        raise ModelError(
            f"{files[0].name} is no vision head and text tower of dino.txt for this backbone: {type(error).__name__} {first}."
        ) from error
    length = int(model.text.positional_embedding.shape[0])  # type: ignore[index]
    tokenizer = import_open_clip().SimpleTokenizer(context_length=length)
    tower = ModelTower(model, _embed)
    text = TextEncoder(OpenClipTokens(tokenizer, length), tower, tower.device)
    return Made(name, model.eval(), text, _pictures(folder, name), "the folder's image processor, else DINOv3's values")


def _embed(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    embedding: Tensor = model.encode_text(inputs["text"])
    return embedding


def _pictures(folder: Path, name: str) -> dict[str, Any]:
    try:
        processor = import_transformers().AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return {}
    return processor_settings(processor, name)


def _assemble(backbone: Any, state: Mapping[str, Tensor]) -> DinoTextModel:
    """Puts the tensors of the file into timm's and open_clip's modules."""
    from timm.layers.mlp import SwiGLU
    from timm.models.vision_transformer import Block

    # What a whole checkpoint says of the backbone is in its own folder.
    left = {key: value for key, value in state.items() if not key.startswith("visual_model.backbone.")}
    head, text = _part(left, "visual_model.head."), _part(left, "text_model.")
    width = int(backbone.config.hidden_size)
    count = _blocks(head)
    hidden = head["blocks.0.mlp.w1.weight"].shape[0]
    blocks = nn.ModuleList(
        Block(
            width, int(backbone.config.num_attention_heads), mlp_ratio=(hidden + 0.5) / width, qkv_bias="blocks.0.attn.qkv.bias" in head,
            init_values=1e-5, mlp_layer=SwiGLU,
            norm_layer=nn.LayerNorm, act_layer=nn.SiLU,
        )
        for _ in range(count)
    )  # fmt: skip
    blocks.load_state_dict(
        {_renamed(key.removeprefix("blocks."), VISION): value for key, value in head.items() if key.startswith("blocks.")}
    )
    norm = nn.LayerNorm(width)
    norm.load_state_dict(_part(head, "ln_final."))
    tower = _text(text)
    scale = left.get("logit_scale")
    if scale is None:
        raise KeyError("logit_scale")
    foreign = [
        key
        for key in left
        if not key.startswith(("visual_model.head.blocks.", "visual_model.head.ln_final.", "text_model.", "logit_scale"))
    ]
    if foreign:
        raise KeyError(f"a tensor without a place, {foreign[0]!r}")
    if tower.text_projection.shape[1] != 2 * width:
        raise ValueError(f"texts have {tower.text_projection.shape[1]} numbers, pictures {2 * width}")
    return DinoTextModel(backbone, blocks, norm, tower, scale.reshape(()).float())


def _text(state: Mapping[str, Tensor]) -> Any:
    from open_clip.transformer import TextTransformer

    inner = _part(state, "backbone.")
    length, width = inner["positional_embedding"].shape
    projection = state["head.linear_projection.weight"]
    tower = TextTransformer(
        context_length=length,
        vocab_size=len(inner["token_embedding.weight"]),
        width=width,
        heads=width // HEAD_WIDTH,
        layers=_blocks(inner),
        mlp_ratio=inner["blocks.0.feed_forward.fc1.weight"].shape[0] / width,
        ls_init_value=1.0 if "blocks.0.ls1.gamma" in inner else None,
        output_dim=len(projection),
    )
    named = {"text_projection": projection.T.contiguous()}
    for key, value in inner.items():
        named["transformer.resblocks." + _renamed(key.removeprefix("blocks."), TEXT) if key.startswith("blocks.") else key] = value
    for key, value in tower.state_dict().items():  # open_clip's attention has a bias where dino.txt's has none.
        if key.endswith("in_proj_bias") and key not in named:
            named[key] = torch.zeros_like(value)
    foreign = sorted(set(state) - {f"backbone.{key}" for key in inner} - {"head.linear_projection.weight"})
    if foreign:
        raise KeyError(f"a tensor without a place, {foreign[0]!r}")
    tower.load_state_dict(named, strict=True)
    return tower


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _blocks(state: Mapping[str, Tensor]) -> int:
    return 1 + max(int(match[1]) for key in state if (match := re.match(r"blocks\.(\d+)\.", key)))


def _renamed(key: str, names: Mapping[str, str]) -> str:
    for one, other in names.items():
        key = key.replace(f".{one}", f".{other}")
    return key
