from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from concept_cam.backbones.common import resize_positions
from concept_cam.backbones.loading import from_open_clip
from concept_cam.backbones.open_clip_vit import OpenClipBlock, _runs
from concept_cam.backbones.tokens import Block
from concept_cam.backbones.torchvision_compat import import_open_clip
from concept_cam.core.errors import UnsupportedModelError
from tests.backbones.models import (
    VIT,
    backbone,
    open_clip_model,
    pictures,
    randomise,
    relative,
    simple_tokenizer,
)


def own_attention_block(**options: Any) -> torch.nn.Module:
    """A block with open_clip's own ``Attention`` in place of ``nn.MultiheadAttention``."""
    torch.manual_seed(0)
    return randomise(import_open_clip().transformer.CustomResidualAttentionBlock(32, 4, ls_init_value=0.5, **options))


@pytest.mark.parametrize(
    "options",
    [{}, {"scale_heads": True}, {"scale_attn": True}, {"scale_fc": True}],
    ids=["plain", "head scale", "norm after attention", "norm in network"],
)
def test_block_with_open_clips_own_attention(options: dict[str, bool]) -> None:
    module: Any = own_attention_block(**options)
    block = OpenClipBlock(module)
    x = torch.randn(2, 9, 32)
    keys = torch.ones(2, 9, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(block(x), module(x))
        torch.testing.assert_close(block(x, keys), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_one_query_looks_without_the_keys_of_all(padded: bool) -> None:
    model: Any = backbone("vit")
    block = model.blocks[-1]
    normed = torch.randn(
        2,
        9,
        block.project(torch.zeros(1, 1, model.model.visual.conv1.out_channels), "v")[0].flatten(1).shape[1],
    )
    keys = torch.arange(9) < torch.tensor([[9], [5]]) if padded else None
    with torch.no_grad():
        (query,), (value,) = block.project(normed[:, :1], "q"), block.project(normed, "v")
        slow = Block.look(block, query, normed, value, keys, None)
        torch.testing.assert_close(block.look(query, normed, value, keys, None), slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", ["qk_norm", "scale_attn_inner"])
def test_block_with_inner_norms(option: str) -> None:
    block = import_open_clip().transformer.CustomResidualAttentionBlock
    if option not in inspect.signature(block.__init__).parameters:
        pytest.skip("this release of open_clip has no such option")
    module: Any = own_attention_block(**{option: True})
    x = torch.randn(2, 9, 32)
    with torch.no_grad():
        torch.testing.assert_close(OpenClipBlock(module)(x, torch.ones(2, 9, dtype=torch.bool)), module(x), rtol=1e-4, atol=1e-5)


def test_attention_with_cosines_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be read"):
        OpenClipBlock(own_attention_block(scale_cosine_attn=True))


def test_block_projects_only_what_is_asked_in_that_order() -> None:
    model = backbone("vit")
    block = model.blocks[-1]
    normed = torch.randn(1, 5, 32)
    query, key, value = block.project(normed, "qkv")
    for letters, expected in (
        ("vq", (value, query)),
        ("kv", (key, value)),
        ("q", (query,)),
        ("qk", (query, key)),
    ):
        for got, want in zip(block.project(normed, letters), expected, strict=True):
            torch.testing.assert_close(got, want)
    assert _runs("qkv") == ["qkv"]
    assert _runs("qv") == ["q", "v"]
    assert _runs("vk") == ["v", "k"]


def test_positions_of_a_larger_picture_equal_open_clips_own_resizing() -> None:
    """open_clip resizes the table when a model is built for another size; the tower read at that size must agree with it."""
    open_clip = import_open_clip()
    small = open_clip_model(VIT)
    large = open_clip_model({**VIT, "image_size": 48})
    state = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    open_clip.model.resize_pos_embed(state, large)
    large.load_state_dict(state)
    model = from_open_clip(small, simple_tokenizer())
    pixels = pictures(model, size=(48, 48))
    with torch.no_grad():
        assert relative(model.encode_image(pixels), large.encode_image(pixels)) < 1e-5
        assert relative(model.encode_patches(pixels).image, large.encode_image(pixels)) < 1e-5


def test_resizing_a_table_keeps_rows_and_columns_apart() -> None:
    rows = torch.arange(4.0)[:, None].expand(4, 4)
    columns = rows.T
    table = torch.stack([rows.flatten(), columns.flatten()], dim=-1)
    wide = resize_positions(table, (4, 4), (4, 8)).reshape(4, 8, 2)
    assert (wide[:, 0, 0].diff() > 0).all()
    assert (wide[0, :, 1].diff() > 0).all()
    assert wide[..., 0].std(dim=1).max() < 1e-5
    assert resize_positions(table, (4, 4), (4, 4)) is table


def test_rectangular_native_size() -> None:
    model: Any = open_clip_model({**VIT, "image_size": [24, 48]})
    wrapped = from_open_clip(model, simple_tokenizer())
    assert wrapped.preprocess.size == (24, 48)
    pixels = pictures(wrapped)
    features = wrapped.encode_patches(pixels)
    assert features.patches.shape[1:3] == (3, 6)
    with torch.no_grad():
        assert relative(features.image, model.encode_image(pixels)) < 1e-5


def test_one_patch_picture() -> None:
    model = backbone("vit")
    for attention in model.attentions:
        features = model.encode_patches(pictures(model, batch=1, size=(8, 8)), attention)
        assert features.patches.shape == (1, 1, 1, model.embed_dim)
        assert torch.isfinite(features.patches).all()


def test_shallow_towers_can_be_read_with_every_strategy() -> None:
    model = from_open_clip(open_clip_model({**VIT, "layers": 1}), simple_tokenizer())
    for attention in ("kk", "affinity", "vanilla"):
        assert torch.isfinite(model.encode_patches(pictures(model), attention).patches).all()


def test_vanilla_patches_equal_open_clips_own_tokens() -> None:
    model = backbone("vit")
    inner = model.model
    pixels = pictures(model)
    with torch.no_grad():
        tokens = inner.visual.ln_post(inner.visual.forward_intermediates(pixels, output_fmt="NLC")["image_intermediates"][-1])
    features = model.encode_patches(pixels, "vanilla")
    torch.testing.assert_close(features.patches.flatten(1, 2), tokens @ inner.visual.proj, rtol=1e-4, atol=1e-5)


def test_value_with_its_tails_by_hand() -> None:
    model = backbone("vit-layer-scale")
    inner: Any = model.model.visual
    pixels = pictures(model)
    block = inner.transformer.resblocks[-1]
    with torch.no_grad():
        x = model.enter(model.embed(pixels).tokens)
        for other in inner.transformer.resblocks[:-1]:
            x = other(x)
        width = x.shape[-1]
        normed = block.ln_1(x)
        value = normed @ block.attn.in_proj_weight[2 * width :].T + block.attn.in_proj_bias[2 * width :]
        out = block.ls_1(block.attn.out_proj(value))[:, 1:]

        def network(tokens: torch.Tensor) -> torch.Tensor:
            return block.ls_2(block.mlp(block.ln_2(tokens)))

        both = x[:, 1:] + out
        expected = {
            "value": out,
            "value+residual": both,
            "value+ffn": out + network(out),
            "value+residual+ffn": both + network(both),
        }
        for name, tokens in expected.items():
            got = model.encode_patches(pixels, name).patches.flatten(1, 2)
            torch.testing.assert_close(got, inner.ln_post(tokens) @ inner.proj, rtol=1e-4, atol=1e-5)
