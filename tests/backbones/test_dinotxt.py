"""dino.txt from local files: the published tensors find their places, and the reading is the published definition, restated here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones import load
from concept_cam.core.errors import ModelError
from tests.backbones.models import feature_model, pictures, randomise, relative, simple_tokenizer

WIDTH, TEXT_WIDTH, VOCABULARY, LENGTH = 32, 128, 49408, 16


def published_file(path: Path, **more: Tensor) -> dict[str, Tensor]:
    """Writes random tensors with the names and shapes of the published file, but for the sizes."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * (0.2 if len(shape) == 1 else shape[-1] ** -0.5)

    state: dict[str, Tensor] = {"logit_scale": torch.tensor([3.5])}
    for number in range(2):
        block = f"visual_model.head.blocks.{number}."
        state |= {f"{block}{norm}.weight": 1 + draw(WIDTH) for norm in ("norm1", "norm2")}
        state |= {
            f"{block}{name}": draw(WIDTH)
            for name in ("norm1.bias", "norm2.bias", "attn.proj.bias", "ls1.gamma", "ls2.gamma", "mlp.w3.bias")
        }
        state |= {f"{block}attn.qkv.weight": draw(3 * WIDTH, WIDTH), f"{block}attn.proj.weight": draw(WIDTH, WIDTH)}
        state |= {f"{block}mlp.{name}.weight": draw(64, WIDTH) for name in ("w1", "w2")} | {f"{block}mlp.w3.weight": draw(WIDTH, 64)}
        state |= {f"{block}mlp.{name}.bias": draw(64) for name in ("w1", "w2")}
    state |= {"visual_model.head.ln_final.weight": 1 + draw(WIDTH), "visual_model.head.ln_final.bias": draw(WIDTH)}
    for number in range(2):
        block = f"text_model.backbone.blocks.{number}."
        state |= {f"{block}{norm}.weight": 1 + draw(TEXT_WIDTH) for norm in ("attention_norm", "ffn_norm")}
        state |= {f"{block}{name}.bias": draw(TEXT_WIDTH) for name in ("attention_norm", "ffn_norm", "attention.proj", "feed_forward.fc2")}
        state |= {
            f"{block}attention.qkv.weight": draw(3 * TEXT_WIDTH, TEXT_WIDTH),
            f"{block}attention.proj.weight": draw(TEXT_WIDTH, TEXT_WIDTH),
        }
        state |= {f"{block}feed_forward.fc1.weight": draw(256, TEXT_WIDTH), f"{block}feed_forward.fc1.bias": draw(256)}
        state |= {f"{block}feed_forward.fc2.weight": draw(TEXT_WIDTH, 256)}
    state |= {
        "text_model.backbone.token_embedding.weight": draw(VOCABULARY, TEXT_WIDTH),
        "text_model.backbone.positional_embedding": draw(LENGTH, TEXT_WIDTH),
        "text_model.backbone.ln_final.weight": 1 + draw(TEXT_WIDTH),
        "text_model.backbone.ln_final.bias": draw(TEXT_WIDTH),
        "text_model.head.linear_projection.weight": draw(2 * WIDTH, TEXT_WIDTH),
    }
    torch.save({**state, **more}, path)
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("dinotxt")
    backbone: Any = randomise(feature_model("dinov3_vit"))
    backbone.save_pretrained(path)
    return path, backbone, published_file(path / "dinov3_dinotxt_vision_head_and_text_encoder.pth")


def _attention(x: Tensor, qkv: Tensor, heads: int, causal: bool) -> Tensor:
    """Attention in a loop over heads, with an explicit mask."""
    query, key, value = (x @ qkv.T).chunk(3, dim=-1)
    width, out = x.shape[-1] // heads, []
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1) if causal else 0
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / width**0.5 + mask).softmax(dim=-1)
        out.append(weights @ value[..., part])
    return torch.cat(out, dim=-1)


def _norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def _linear(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def picture_embedding(backbone: Any, state: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The published definition: backbone, two blocks without places, a norm; class token and mean of the patches side by side."""
    x = backbone(pixels).last_hidden_state
    for number in range(2):
        block = f"visual_model.head.blocks.{number}."
        inner = _attention(_norm(x, state, f"{block}norm1"), state[f"{block}attn.qkv.weight"], 4, causal=False)
        x = x + _linear(inner, state, f"{block}attn.proj") * state[f"{block}ls1.gamma"]
        normed = _norm(x, state, f"{block}norm2")
        gated = F.silu(_linear(normed, state, f"{block}mlp.w1")) * _linear(normed, state, f"{block}mlp.w2")
        x = x + _linear(gated, state, f"{block}mlp.w3") * state[f"{block}ls2.gamma"]
    x = _norm(x, state, "visual_model.head.ln_final")
    patches = x[:, 3:]
    return torch.cat([x[:, 0], patches.mean(dim=1)], dim=-1), patches


def text_embedding(state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Causal blocks, a norm, a projection; the token of largest number, the end mark, is the text."""
    x = state["text_model.backbone.token_embedding.weight"][ids] + state["text_model.backbone.positional_embedding"]
    for number in range(2):
        block = f"text_model.backbone.blocks.{number}."
        inner = _attention(_norm(x, state, f"{block}attention_norm"), state[f"{block}attention.qkv.weight"], 2, causal=True)
        x = x + _linear(inner, state, f"{block}attention.proj")
        hidden = F.gelu(_linear(_norm(x, state, f"{block}ffn_norm"), state, f"{block}feed_forward.fc1"))
        x = x + _linear(hidden, state, f"{block}feed_forward.fc2")
    x = _linear(_norm(x, state, "text_model.backbone.ln_final"), state, "text_model.head.linear_projection")
    return x[torch.arange(len(ids)), ids.argmax(dim=-1)]


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_equals_the_published_definition(folder: Any, size: tuple[int, int]) -> None:
    path, backbone, state = folder
    model = load(f"dinotxt:{path}")
    assert (model.family, model.default_attention, model.embed_dim) == ("dinotxt", "vanilla", 2 * WIDTH)
    assert model.logit_scale == pytest.approx(float(torch.tensor(3.5).exp()))
    pixels = pictures(model, size=size)
    with torch.no_grad():
        own, patches = picture_embedding(backbone, state, pixels)
    features = model.encode_patches(pixels)
    for found in (features.image, model.encode_image(pixels), model.library_embedding(pixels), model.pool(model.feature_map(pixels))):
        assert relative(found, own) < 1e-5
    assert relative(model.pool(model.feature_map(pixels, layer="norm1")), own) < 1e-5
    assert (features.patches[..., :WIDTH] == 0).all()
    torch.testing.assert_close(features.patches[..., WIDTH:].flatten(1, 2), patches, rtol=1e-4, atol=1e-4)
    for attention in model.attentions:
        assert relative(model.encode_patches(pixels, attention).image, own) < 1e-5
    texts = ["a forked tail fin", "the beak of a bird"]
    with torch.no_grad():
        assert relative(model.encode_text(texts), text_embedding(state, simple_tokenizer(LENGTH)(texts))) < 1e-5


def test_padding_is_never_seen(folder: Any) -> None:
    model = load(f"dinotxt:{folder[0]}")
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[:, :, 4:] = False
    pixels = pictures(model, 1, (32, 48))
    noisy = pixels.clone()
    noisy[..., 32:] = 7.0
    one, other = (model.encode_patches(batch, valid=valid) for batch in (pixels, noisy))
    assert relative(one.image, other.image) < 1e-5
    torch.testing.assert_close(one.patches, other.patches)
    assert (one.patches[~valid] == 0).all()


def test_files_that_do_not_fit_are_explained(folder: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load(f"dinotxt:{tmp_path / 'nothing'}")
    folder[1].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"dinotxt\.\.\.pth'\); found 0"):
        load(f"dinotxt:{tmp_path}")
    published_file(tmp_path / "a_dinotxt.pth", **{"visual_model.head.more": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"without a place, 'visual_model.head.more'"):
        load(f"dinotxt:{tmp_path}")
    published_file(tmp_path / "a_dinotxt.pth", **{"text_model.head.linear_projection.weight": torch.zeros(5, TEXT_WIDTH)})
    with pytest.raises(ModelError, match="texts have 5 numbers, pictures 64"):
        load(f"dinotxt:{tmp_path}")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a_dinotxt.pth")
    with pytest.raises(ModelError, match="no vision head and text tower"):
        load(f"dinotxt:{tmp_path}")


def test_a_backbone_with_more_layers_than_its_configuration_is_refused(folder: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder[1].save_pretrained(tmp_path)
    published_file(tmp_path / "a_dinotxt.pth")
    state = load_file(tmp_path / "model.safetensors")
    last = max(int(key.split(".")[1]) for key in state if key.startswith("layer."))
    further = {key.replace(f"layer.{last}.", f"layer.{last + 1}."): value.clone() for key, value in state.items()}
    save_file({**state, **further}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=rf"config\.json does not have: it says {last + 1} in .*layer\.{last + 1}\."):
        load(f"dinotxt:{tmp_path}")


def test_a_backbone_that_cannot_be_loaded_says_why(folder: Any, tmp_path: Path) -> None:
    import json

    folder[1].save_pretrained(tmp_path)
    published_file(tmp_path / "a_dinotxt.pth")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    with pytest.raises(ModelError, match=r"cannot load the backbone .*'wide'"):
        load(f"dinotxt:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 2 * config["hidden_size"]}))
    with pytest.raises(ModelError, match=r"other shapes than config\.json says"):
        load(f"dinotxt:{tmp_path}")
