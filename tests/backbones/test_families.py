"""What every family promises: parity with the model itself, any size, padding, precision, and a model left as it was."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from concept_cam.backbones import FAMILIES
from concept_cam.backbones.protocol import Backbone
from concept_cam.core.attention import READING_FUNCTIONS
from concept_cam.core.errors import AttentionError, ConfigurationError, ImageError, ModelError, UnsupportedModelError
from tests.backbones.models import BUILDERS, TOKEN_KINDS, WORDLESS_KINDS, backbone, own_embedding, pictures, relative, wrap

KINDS = sorted(BUILDERS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def other_size(model: Any) -> tuple[int, int]:
    """A rectangle, one cell lower and two wider than the native size."""
    (height, width), (row, column) = model.preprocess.size, model.preprocess.stride
    return (height // row - 1) * row, (width // column + 2) * column


@every_kind
def test_protocol(kind: str) -> None:
    model = backbone(kind)
    assert isinstance(model, Backbone)
    assert model.default_attention == FAMILIES[model.family].auto
    assert model.default_attention in model.attentions
    assert model.logit_scale > 0
    assert (model.logit_bias is not None) == ("siglip" in kind)
    assert model.dtype == torch.float32
    assert len(model.weights_hash) == 16


@every_kind
@pytest.mark.parametrize("attention", ["auto", "vanilla", "value"])
def test_image_embedding_equals_the_models_own(kind: str, attention: str) -> None:
    model = backbone(kind)
    if attention not in ("auto", *model.attentions):
        pytest.skip("this family has no such strategy")
    pixels = pictures(model)
    own = own_embedding(kind, model.model, pixels)
    features = model.encode_patches(pixels, attention)
    assert features.patches.shape == (2, *model.grid_size(model.preprocess.size), model.embed_dim)
    assert features.image.shape == (2, model.embed_dim)
    assert relative(features.image, own) < 1e-5
    assert relative(model.encode_image(pixels), own) < 1e-5
    assert relative(model.pool(model.feature_map(pixels)), own) < 1e-5


@every_kind
def test_every_strategy_reads_a_rectangle(kind: str) -> None:
    model = backbone(kind)
    size = other_size(model)
    pixels = pictures(model, size=size)
    image = model.encode_image(pixels)
    read = {}
    for attention in model.attentions:
        features = model.encode_patches(pixels, attention)
        assert features.patches.shape == (2, *model.grid_size(size), model.embed_dim)
        assert torch.isfinite(features.patches).all()
        assert relative(features.image, image) < 1e-5
        read[attention] = features.patches
    for one, other in itertools.combinations(read, 2):
        assert not torch.equal(read[one], read[other]), (one, other)


@every_kind
def test_padding_is_never_seen(kind: str) -> None:
    """Convolutions see over the edge of their cell, so there the padding's pixels may matter; attention and pooling may not."""
    model = backbone(kind)
    rows, columns = model.grid_size(model.preprocess.size)
    valid = torch.ones(2, rows, columns, dtype=torch.bool)
    valid[0, :, -1] = False
    valid[1, -1:, :] = False
    valid[1, :, -1] = False
    pixels = pictures(model)
    if kind in TOKEN_KINDS:
        shown = valid.repeat_interleave(model.preprocess.stride[0], 1).repeat_interleave(model.preprocess.stride[1], 2)
        noisy = torch.where(shown[:, None], pixels, pictures(model, seed=7) * 3)
    for attention in (name for name in model.attentions if name in ("vanilla", *READING_FUNCTIONS, "kk+residual", "gem+ffn")):
        clean = model.encode_patches(pixels, attention, valid)
        assert (clean.patches[~valid] == 0).all()
        assert (clean.patches[valid].abs().sum(dim=-1) > 0).all()
        if kind in TOKEN_KINDS:
            other = model.encode_patches(noisy, attention, valid)
            torch.testing.assert_close(other.patches, clean.patches, rtol=1e-4, atol=1e-4)
            assert relative(other.image, clean.image) < 1e-5
        pooled = model.pool(model.feature_map(pixels, valid))
        assert relative(clean.image, pooled) < 1e-5


@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_dropping_padding_equals_masking_keys(kind: str) -> None:
    """The slow restatement: every block of the whole sequence, padded tokens masked as keys."""
    model = backbone(kind)
    rows, columns = model.grid_size(model.preprocess.size)
    valid = torch.ones(1, rows, columns, dtype=torch.bool)
    valid[:, -2:] = False
    pixels = pictures(model, batch=1)
    features = model.encode_patches(pixels, "vanilla", valid)
    with torch.no_grad():
        embedded = model.embed(pixels, valid)
        keys = torch.cat([torch.ones(1, model.prefix, dtype=torch.bool), valid.flatten(1)], dim=1)
        x = model.enter(embedded.tokens)
        for block in model.blocks:
            query, key, value = block.project(block.norm(x), "qkv", embedded.rope)
            weights = (query @ key.transpose(2, 3) * block.scale).masked_fill(~keys[:, None, None], float("-inf")).softmax(-1)
            x = x + block.output(weights @ value)
            x = x + block.feed_forward(x)
        expected = model.project_patches(x[:, model.prefix :]).unflatten(1, (rows, columns))
    torch.testing.assert_close(features.patches[valid], expected[valid], rtol=1e-4, atol=1e-4)


@every_kind
def test_batch_composition_changes_nothing(kind: str) -> None:
    model = backbone(kind)
    pixels = pictures(model, batch=3)
    valid = torch.ones(3, *model.grid_size(model.preprocess.size), dtype=torch.bool)
    valid[1, :, -1] = False
    valid[2, -1] = False
    together = model.encode_patches(pixels, "auto", valid)
    for i in range(3):
        alone = model.encode_patches(pixels[i : i + 1], "auto", valid[i : i + 1])
        torch.testing.assert_close(together.patches[i], alone.patches[0], rtol=1e-4, atol=1e-5)
        assert relative(together.image[i : i + 1], alone.image) < 1e-5


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kind: str, dtype: torch.dtype) -> None:
    exact = backbone(kind)
    low = wrap(kind, BUILDERS[kind]().to(dtype))
    pixels = pictures(exact)
    valid = torch.ones(2, *exact.grid_size(exact.preprocess.size), dtype=torch.bool)
    valid[0, -1] = False
    for attention in ("auto", *(name for name in ("kk", "affinity", "gem") if name in exact.attentions)):
        features = low.encode_patches(pixels, attention, valid)
        expected = exact.encode_patches(pixels, attention, valid)
        assert features.patches.dtype == features.image.dtype == dtype
        assert torch.isfinite(features.patches).all()
        cosine = torch.nn.functional.cosine_similarity(features.image.float(), expected.image, dim=-1)
        assert cosine.min() > 0.98
    other = low.encode_image(pictures(exact, size=other_size(exact)))
    assert torch.isfinite(other).all()
    if kind not in WORDLESS_KINDS:
        assert low.encode_text(["a fish"]).dtype == dtype


@every_kind
def test_the_model_is_left_as_it_was(kind: str) -> None:
    model = wrap(kind, BUILDERS[kind]())
    inner = model.model
    inner.requires_grad_(True)
    pixels = pictures(model)
    before = own_embedding(kind, inner, pixels)
    state = {name: tensor.clone() for name, tensor in inner.state_dict().items()}
    modules = {name: type(module) for name, module in inner.named_modules()}
    valid = torch.ones(2, *model.grid_size(model.preprocess.size), dtype=torch.bool)
    valid[:, -1] = False
    for attention in model.attentions[:12]:
        model.encode_patches(pixels, attention, valid)
    features = model.feature_map(pixels)
    leaf = features.map.detach().requires_grad_()
    torch.autograd.grad(model.pool(replace(features, map=leaf)).sum(), leaf)
    if kind not in WORDLESS_KINDS:
        model.encode_text(["a fish", "a bird with a beak"])
    assert model.encode_image(pictures(model, size=other_size(model))).requires_grad is False
    assert torch.equal(own_embedding(kind, inner, pixels), before)
    assert {name: type(module) for name, module in inner.named_modules()} == modules
    assert all(torch.equal(tensor, state[name]) for name, tensor in inner.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in inner.parameters())
    assert not inner.training
    for module in inner.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


@every_kind
def test_gradient_at_the_feature_map(kind: str) -> None:
    model = backbone(kind)
    pixels = pictures(model)
    features = model.feature_map(pixels)
    leaf = features.map.detach().requires_grad_()
    direction = torch.randn(model.embed_dim, generator=torch.Generator().manual_seed(3))
    image = model.pool(replace(features, map=leaf))
    (gradient,) = torch.autograd.grad((image @ direction).sum(), leaf)
    assert gradient.shape == leaf.shape
    assert leaf.shape[2:] == model.grid_size(model.preprocess.size)
    step = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(4)) * 1e-3 * float(leaf.detach().std())
    with torch.no_grad():
        moved = [model.pool(replace(features, map=leaf + sign * step)) @ direction for sign in (1, -1)]
    numeric = (moved[0] - moved[1]).sum() / 2
    assert float(numeric) == pytest.approx(float((gradient * step).sum()), rel=0.05, abs=1e-4)


@every_kind
def test_four_threads_sharing_one_backbone(kind: str) -> None:
    model = backbone(kind)
    batches = [pictures(model, batch=1, seed=seed) for seed in range(4)]
    alone = [model.encode_patches(batch).patches for batch in batches]
    words = None if kind in WORDLESS_KINDS else model.encode_text(["a fish"])
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        for _ in range(3):
            said = None if words is None else (model.encode_text(["a fish"]), model.count_tokens("a fish"))
            found[number] = (model.encode_patches(batches[number]).patches, said)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        torch.testing.assert_close(found[number][0], alone[number])
        if words is not None:
            torch.testing.assert_close(found[number][1][0], words)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WORDLESS_KINDS])
def test_text_equals_the_models_own(kind: str) -> None:
    model = backbone(kind)
    inner: Any = model.model
    words = ["a fish", "a bird with a forked tail"]
    with torch.no_grad():
        if kind.startswith("transformers"):
            from tests.backbones.models import word_tokenizer

            tokenizer = word_tokenizer(siglip="siglip" in kind)
            padding = {"padding": "max_length", "max_length": 16} if "siglip" in kind else {"padding": True}
            encoded = tokenizer(words, return_tensors="pt", **padding)
            inputs = {"input_ids": encoded["input_ids"]}
            if "siglip" not in kind:
                inputs["attention_mask"] = encoded["attention_mask"]
            if kind == "transformers-chinese_clip":
                # Old releases read a pooled output that this text tower has not: the first word's state is what they mean.
                own = inner.text_projection(inner.text_model(**inputs).last_hidden_state[:, 0])
            else:
                out = inner.get_text_features(**inputs)
                own = out if isinstance(out, torch.Tensor) else out.pooler_output
        else:
            from tests.backbones.models import simple_tokenizer

            own = inner.encode_text(simple_tokenizer()(words), normalize=False)
    assert relative(model.encode_text(words), own) < 1e-5
    assert model.encode_text(words).shape == (2, model.embed_dim)


@every_kind
def test_wrong_input_says_what_was_expected(kind: str) -> None:
    model = backbone(kind)
    height, width = model.preprocess.size
    with pytest.raises(ImageError, match=r"\[B, 3, H, W\]"):
        model.encode_patches(torch.zeros(3, height, width))
    with pytest.raises(ConfigurationError, match="multiples"):
        model.encode_patches(torch.zeros(1, 3, height + 1, width))
    with pytest.raises(AttentionError, match="Did you mean 'value'"):
        model.encode_patches(torch.zeros(1, 3, height, width), "valu")
    with pytest.raises(ConfigurationError, match="bool"):
        model.encode_patches(torch.zeros(1, 3, height, width), valid=torch.ones(1, 1, 1, dtype=torch.bool))
    rows, columns = model.grid_size((height, width))
    with pytest.raises(ConfigurationError, match="padding only"):
        model.encode_patches(torch.zeros(1, 3, height, width), valid=torch.zeros(1, rows, columns, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["resnet", "timm-convnext", "transformers-clip"])
def test_training_mode_is_refused(kind: str) -> None:
    model = BUILDERS[kind]()
    wrapped = wrap(kind, model)
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        wrap(kind, model.train())
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        wrapped.encode_patches(pictures(wrapped))


def test_spatial_towers_have_no_attention_to_replace() -> None:
    with pytest.raises(AttentionError, match="It has: vanilla"):
        backbone("timm-convnext").encode_patches(pictures(backbone("timm-convnext")), "kk")


@pytest.mark.parametrize(("kind", "exact"), [("vit-mean", True), ("timm-resnet", True), ("timm-convnext", False)])
def test_mean_of_patches_is_the_image_where_all_is_linear(kind: str, exact: bool) -> None:
    """ConvNeXt normalises after pooling, so its cells are an approximation; the others are exact."""
    model = backbone(kind)
    features = model.encode_patches(pictures(model), "vanilla")
    gap = relative(features.patches.mean(dim=(1, 2)), features.image)
    assert (gap < 1e-5) == exact


@pytest.mark.parametrize(
    ("kind", "pool"),
    [("timm-map", "map"), ("transformers-siglip", "map"), ("coca", "map"), ("resnet", "attention")],
)
def test_value_path_is_the_pooling_of_one_patch(kind: str, pool: str) -> None:
    """Pooling a sequence whose only valid key is one patch gives that patch's feature."""
    model = backbone(kind)
    pixels = pictures(model, batch=1)
    if pool == "attention":
        attention = model.model.visual.attnpool
        features = model.encode_patches(pixels, "value").patches
        cells = model.feature_map(pixels).map.flatten(2)[0].T
        expected = attention.c_proj(attention.v_proj(cells + attention.positional_embedding[1:]))
        torch.testing.assert_close(features.flatten(0, 2), expected, rtol=1e-4, atol=1e-5)
        return
    features = model.encode_patches(pixels, "vanilla").patches.flatten(1, 2)[0]
    settled = model.feature_map(pixels)
    tokens = settled.map.flatten(2).transpose(1, 2)
    prefix = model.prefix
    whole = tokens if settled.prefix is None else torch.cat([settled.prefix, tokens], dim=1)
    for patch in (0, 5):
        keys = torch.zeros(1, whole.shape[1], dtype=torch.bool)
        keys[0, prefix + patch] = True
        with torch.no_grad():
            torch.testing.assert_close(model.pool_tokens(whole, keys)[0], features[patch], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", WORDLESS_KINDS)
def test_towers_without_words_say_what_they_are_for(kind: str) -> None:
    model = backbone(kind)
    for ask in (lambda: model.encode_text(["a fish"]), lambda: model.count_tokens("a fish"), lambda: model.unknown_words("a fish")):
        with pytest.raises(UnsupportedModelError, match=r"no text tower.*fit-head"):
            ask()


ANY_SIZE_BY_ITSELF = ("tipsv2", "dinov", "radio", "align", "siglip2")
"""Parts of the kinds whose library code reads any size without being told to."""

LIBRARY_SIZES = [
    *itertools.product([kind for kind in TOKEN_KINDS if kind.startswith("transformers")], [(24, 48), (64, 32), (40, 40), (16, 72)]),
    *itertools.product(["transformers-align", "transformers-dinov3_convnext"], [(64, 128), (160, 96)]),
]


@pytest.mark.parametrize(("kind", "size"), LIBRARY_SIZES)
def test_odd_sizes_equal_the_librarys_own_interpolation(kind: str, size: tuple[int, int]) -> None:
    """At sizes that are not the trained one, as the library's own code has it, where need be with ``interpolate_pos_encoding=True``."""
    model = backbone(kind)
    pixels = pictures(model, 2, size)
    if any(part in kind for part in ANY_SIZE_BY_ITSELF):
        own = own_embedding(kind, model.model, pixels)
    else:
        with torch.no_grad():
            out = model.model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True)
        own = out if isinstance(out, torch.Tensor) else out.pooler_output
    assert relative(model.encode_image(pixels), own) < 1e-5
    assert relative(model.encode_patches(pixels).image, own) < 1e-5


def test_naflex_reads_padded_pictures_at_their_own_aspect() -> None:
    """Three aspects in one batch, padded into squares: as the library reads each from its processor's patches, mask and shape."""
    model = backbone("transformers-siglip2")
    stride = model.preprocess.stride[0]
    grids = [(4, 4), (2, 4), (3, 2)]
    places = [(0, 0), (1, 0), (1, 2)]
    pixels = torch.zeros(3, 3, 4 * stride, 4 * stride)
    valid = torch.zeros(3, 4, 4, dtype=torch.bool)
    alone = []
    for number, ((rows, columns), (top, left)) in enumerate(zip(grids, places)):
        picture = pictures(model, 1, (rows * stride, columns * stride), seed=number)
        alone.append(own_embedding("transformers-siglip2", model.model, picture))
        pixels[number, :, top * stride : (top + rows) * stride, left * stride : (left + columns) * stride] = picture[0]
        valid[number, top : top + rows, left : left + columns] = True
    features = model.encode_patches(pixels, valid=valid)
    assert relative(features.image, torch.cat(alone)) < 1e-5
    for number, ((rows, columns), (top, left)) in enumerate(zip(grids, places)):
        own = model.encode_patches(pictures(model, 1, (rows * stride, columns * stride), seed=number)).patches[0]
        torch.testing.assert_close(features.patches[number, top : top + rows, left : left + columns], own, rtol=1e-4, atol=1e-5)


def test_mean_pooled_maps_of_the_transformers_library_are_exact() -> None:
    features = backbone("transformers-align").encode_patches(pictures(backbone("transformers-align")))
    assert relative(features.patches.mean(dim=(1, 2)), features.image) < 1e-5


def test_tipsv2_reads_its_first_class_token_and_its_patches_as_they_are() -> None:
    model = backbone("transformers-tipsv2")
    pixels = pictures(model)
    with torch.no_grad():
        tokens = model.model.vision_model(pixels).last_hidden_state
    features = model.encode_patches(pixels)
    assert relative(features.image, tokens[:, 0]) < 1e-5
    torch.testing.assert_close(features.patches.flatten(1, 2), tokens[:, 2:], rtol=1e-4, atol=1e-5)
    assert model.logit_scale == pytest.approx(1 / 0.005065968260169029)


def test_radio_is_read_by_its_patches() -> None:
    model = backbone("transformers-radio")
    pixels = pictures(model)
    with torch.no_grad():
        own = model.model(pixels)
    torch.testing.assert_close(model.encode_patches(pixels).patches.flatten(1, 2), own.features, rtol=1e-4, atol=1e-5)
