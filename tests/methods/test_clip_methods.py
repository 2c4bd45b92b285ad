"""Grad-ECLIP, LeGrad, GEM and CLIP Surgery against slow restatements of their papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from concept_cam.core.concept import Concept
from concept_cam.core.errors import AttentionError
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.methods.direct import EMPTY_PROMPTS
from tests.backbones.models import backbone
from tests.methods.models import LinearBackbone, photograph

PICTURE = photograph(11, (32, 32))
CONCEPT = Concept(("a forked tail fin",), (("a rounded tail fin",),))


def direction(localizer: Localizer) -> torch.Tensor:
    texts = localizer.directions([CONCEPT])
    return texts.texts[texts.target[0]] - localizer.settings.gamma * texts.texts[texts.contrasts[0, 0]]


def run_blocks(model, pixels, upto):
    """Every block written out in matrix products; returns the tokens that enter block ``upto``."""
    with torch.no_grad():
        x = model.enter(model.embed(pixels).tokens)
        for block in model.blocks[:upto]:
            query, key, value = block.project(block.norm(x), "qkv", None)
            weights = (query @ key.transpose(2, 3) * block.scale).softmax(-1)
            x = x + block.output(weights @ value)
            x = x + block.feed_forward(x)
    return x


@pytest.mark.parametrize("kind", ["vit", "vit-layer-scale", "transformers-clip"])
def test_grad_eclip(kind: str) -> None:
    localizer = Localizer(backbone(kind), Settings(gamma=0.6))
    model = localizer.backbone
    found = localizer.locate_all([PICTURE], [CONCEPT], method="grad-eclip")[0].scores[0]
    x = run_blocks(model, localizer.prepare(PICTURE).batch, len(model.blocks) - 1)
    block = model.blocks[-1]
    with torch.no_grad():
        query, key, value = block.project(block.norm(x), "qkv", None)
        weights = (query @ key.transpose(2, 3) * block.scale).softmax(-1)
        output = (weights @ value)[:, :, :1]
    output = output.detach().requires_grad_(True)
    token = x[:, :1] + block.output(output)
    token = token + block.feed_forward(token)
    score = F.normalize(model.pool_tokens(model.settle(token), None), dim=-1)[0] @ direction(localizer)
    (gradient,) = torch.autograd.grad(score, output)

    def heads(tensor):
        return tensor[0].transpose(0, 1).flatten(1)  # [M, W], heads side by side

    cosine = F.cosine_similarity(heads(query)[:1], heads(key)[1:], dim=-1)
    loose = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    expected = [float((heads(gradient)[0] * loose[i] * heads(value)[1 + i]).sum()) for i in range(16)]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "vit-mean", "transformers-clip"])
def test_legrad(kind: str) -> None:
    localizer = Localizer(backbone(kind))
    model = localizer.backbone
    found = localizer.locate_all([PICTURE], [CONCEPT], method="legrad")[0].scores[0]
    total = torch.zeros(model.prefix + 16)
    for index in (len(model.blocks) - 2, len(model.blocks) - 1):
        x = run_blocks(model, localizer.prepare(PICTURE).batch, index)
        block = model.blocks[index]
        query, key, value = block.project(block.norm(x), "qkv", None)
        attention = (query @ key.transpose(2, 3) * block.scale).softmax(-1).detach().requires_grad_(True)
        out = x + block.output(attention @ value)
        out = out + block.feed_forward(out)
        pooled = model.project_patches(out.mean(dim=1, keepdim=True))[0, 0]
        (gradient,) = torch.autograd.grad(F.normalize(pooled, dim=-1) @ direction(localizer), attention)
        total += gradient[0].clamp(min=0).mean(dim=0).mean(dim=0) / 2
    np.testing.assert_allclose(found.ravel(), total[model.prefix :].detach().numpy(), atol=1e-8, rtol=1e-3)
    assert (found >= 0).all()


def test_attention_pooling_of_resnets() -> None:
    """Both methods at the pooling of a CLIP ResNet, whose query is the mean token, written out."""
    localizer = Localizer(backbone("resnet"))
    model, pool = localizer.backbone, localizer.backbone._visual.attnpool
    prepared = localizer.prepare(PICTURE)
    with torch.no_grad():
        cells = model.feature_map(prepared.batch).map[0].flatten(1).T
        tokens = torch.cat([cells.mean(dim=0, keepdim=True), cells]) + pool.positional_embedding
        query, key, value = pool.q_proj(tokens[:1]), pool.k_proj(tokens), pool.v_proj(tokens)
        size = query.shape[1] // pool.num_heads
        weights = torch.stack(
            [(query[0, h * size :][:size] @ key[:, h * size :][:, :size].T / size**0.5).softmax(0) for h in range(pool.num_heads)]
        )
    weights.requires_grad_(True)
    output = torch.cat([weights[h] @ value[:, h * size :][:, :size] for h in range(pool.num_heads)])
    output.retain_grad()
    score = F.normalize(pool.c_proj(output), dim=-1) @ direction(localizer)
    by_output, by_weights = torch.autograd.grad(score, [output, weights])
    cosine = F.cosine_similarity(query, key[1:], dim=-1)
    loose = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    eclip = localizer.locate_all([PICTURE], [CONCEPT], method="grad-eclip")[0].scores[0]
    np.testing.assert_allclose(eclip.ravel(), ((value[1:] * by_output).sum(dim=1) * loose).detach().numpy(), atol=1e-6, rtol=1e-3)
    legrad = localizer.locate_all([PICTURE], [CONCEPT], method="legrad")[0].scores[0]
    np.testing.assert_allclose(legrad.ravel(), by_weights.clamp(min=0).mean(dim=0)[1:].numpy(), atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("kind", ["vit", "resnet", "timm-map", "transformers-siglip", "transformers-siglip2", "coca"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_gathering_attention_makes_the_image_embedding(kind: str, padded: bool) -> None:
    from concept_cam.core.attention import attend

    model = backbone(kind)
    pixels = torch.randn(2, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, *model.grid_size(model.preprocess.size), dtype=torch.bool)
    valid[0, -1] = not padded
    with torch.no_grad():
        features = model.feature_map(pixels, valid if padded else None)
        last = model.gathering(features)
        found = last.finish(attend(last.query, last.key, last.value, last.scale, last.keys))
        torch.testing.assert_close(found, model.pool(features), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["timm-map", "transformers-siglip", "coca"])
def test_attention_pooling_of_transformers(kind: str) -> None:
    """LeGrad reads the pooling of each of the last blocks' tokens, Grad-ECLIP that of the last one; written out."""
    from concept_cam.backbones.protocol import FeatureMap

    localizer = Localizer(backbone(kind))
    model, pixels = localizer.backbone, localizer.prepare(PICTURE).batch
    rows, columns = model.grid_size(tuple(pixels.shape[2:]))
    total = torch.zeros(rows * columns)
    for upto in (len(model.blocks) - 1, len(model.blocks)):
        with torch.no_grad():
            embedded = model.embed(pixels)
            x = model.enter(embedded.tokens)
            for block in model.blocks[:upto]:
                x = block(x, None, embedded.rope)
            x = model.settle(x)
            grid = x[:, model.prefix :].transpose(1, 2).unflatten(2, (rows, columns))
            last = model.gathering(FeatureMap(grid, x[:, : model.prefix] if model.prefix else None))
            attention = (last.query @ last.key.transpose(2, 3) * last.scale).softmax(-1)
        attention.requires_grad_(True)
        score = F.normalize(last.finish(attention @ last.value), dim=-1)[0] @ direction(localizer)
        (gradient,) = torch.autograd.grad(score, attention)
        total += gradient[0].clamp(min=0).mean(dim=0)[0, last.prefix :] / 2
    found = localizer.locate_all([PICTURE], [CONCEPT], method="legrad")[0].scores[0]
    np.testing.assert_allclose(found.ravel(), total.numpy(), atol=1e-8, rtol=1e-3)

    output = (attention.detach() @ last.value).requires_grad_(True)
    score = F.normalize(last.finish(output), dim=-1)[0] @ direction(localizer)
    (gradient,) = torch.autograd.grad(score, output)

    def heads(tensor):
        return tensor[0].transpose(0, 1).flatten(1)

    cosine = F.cosine_similarity(heads(last.query), heads(last.key)[last.prefix :], dim=-1)
    loose = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    expected = loose * (heads(last.value)[last.prefix :] @ heads(gradient)[0])
    eclip = localizer.locate_all([PICTURE], [CONCEPT], method="grad-eclip")[0].scores[0]
    np.testing.assert_allclose(eclip.ravel(), expected.detach().numpy(), atol=1e-6, rtol=1e-3)


def test_padding_changes_no_attention_map() -> None:
    """What stands in the padding cannot matter; the mean colour is there now."""
    model = backbone("vit")
    localizer = Localizer(model)
    wide = photograph(12, (16, 32))
    for name in ("grad-eclip", "legrad", "grad-cam"):
        found = localizer.locate_all([wide], [CONCEPT], method=name)[0].scores[0]
        prepared = localizer.prepare(wide)
        noisy = prepared.pixels.clone()
        rows = np.isnan(found).all(axis=1).repeat(8)
        noisy[:, rows] = 3.0
        from concept_cam.methods import find_method
        from concept_cam.methods.engine import Batch, encode

        pixels, features, image = encode(model, noisy[None], prepared.valid[None])
        batch = Batch(model, pixels, features, image, direction(localizer)[None, None])
        other = find_method(name).load().maps(batch)[0, 0].numpy()
        valid = np.isfinite(found)
        np.testing.assert_allclose(other[valid], found[valid], atol=1e-5 * np.abs(found[valid]).max() + 1e-8, rtol=1e-3)


def test_gem_is_the_direct_method_with_its_attention() -> None:
    localizer = Localizer(backbone("vit"))
    found = localizer.locate(PICTURE, "a fin", ["a tail"], method="gem")
    direct = localizer.locate(PICTURE, "a fin", ["a tail"], attention="gem-6")
    np.testing.assert_array_equal(found.scores, direct.scores)
    assert (found.provenance.method, found.provenance.attention) == ("gem", "gem-6")
    np.testing.assert_allclose(sum(found.ledger().values()), found.scores, atol=1e-6)
    resnet = Localizer(backbone("resnet")).locate(PICTURE, "a fin", method="gem")
    assert resnet.provenance.attention == "gem"
    with pytest.raises(AttentionError):
        Localizer(backbone("timm-convnext")).locate(PICTURE, "a fin", method="gem")


def test_clip_surgery_takes_out_the_empty_text() -> None:
    localizer = Localizer(backbone("vit"))
    found = localizer.locate(PICTURE, "a fin", method="clip-surgery")
    features = localizer.with_settings(attention="vv-6").encode(PICTURE)
    text, empty = localizer.embed_texts([("a fin",), EMPTY_PROMPTS])
    expected = F.normalize(features.patches, dim=-1) @ (text - empty)
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-6)
    # A full contrast has nothing redundant left.
    full = localizer.locate(PICTURE, "a fin", ["a tail"], method="clip-surgery")
    np.testing.assert_allclose(full.scores, localizer.locate(PICTURE, "a fin", ["a tail"], attention="vv-6").scores, atol=1e-6)
    half = localizer.locate(PICTURE, "a fin", ["a tail"], method="clip-surgery", gamma=0.5)
    assert np.abs(half.scores - localizer.locate(PICTURE, "a fin", ["a tail"], attention="vv-6", gamma=0.5).scores).max() > 1e-4


def test_baselines() -> None:
    localizer = Localizer(LinearBackbone())
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, 16:] = 255
    concepts = [CONCEPT, Concept(("red",))]
    concepts[0] = Concept(("green",), (("red",),))
    bright = localizer.locate_all([picture], concepts, method="luminance")[0]
    inside = bright.scores[0][1:3]
    np.testing.assert_allclose(inside, [[0, 0, 1, 1]] * 2, atol=0.15)
    assert np.isnan(bright.scores[:, 0]).all()
    np.testing.assert_array_equal(bright.scores[0], bright.scores[1])
    middle = localizer.locate_all([picture], concepts, method="center")[0].scores[0][1:3]
    np.testing.assert_allclose(middle, middle[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(middle, middle[::-1], atol=1e-6)
    assert middle[0, 1] > middle[0, 0] > 0
    noise = localizer.locate_all([picture], concepts, method="random")[0].scores
    again = localizer.locate_all([picture.copy()], concepts, method="random")[0].scores
    np.testing.assert_array_equal(noise, again)
    assert not np.array_equal(noise[0], noise[1])
    picture[0, 0] = 9
    assert not np.array_equal(localizer.locate_all([picture], concepts, method="random")[0].scores, noise)
