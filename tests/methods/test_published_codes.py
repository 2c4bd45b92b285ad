"""Parity with published codes: each peer where it is installed, and a restatement in float64 that needs none of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.core.settings import Settings
from concept_cam.methods import find_method
from concept_cam.methods.engine import Batch, encode
from concept_cam.methods.heads import FinerCam
from concept_cam.pictures.reading import read_image
from concept_cam.pictures.resizing import prepare
from tests.backbones.models import backbone
from tests.methods.models import photograph
from tests.methods.test_heads import Published, dino, make_head  # noqa: F401  # dino is a fixture

# -------------------------------------------------------------------------------------------------- Finer-CAM at its layer


def published_finer_cam(network: Any, layer: Any, pixels: torch.Tensor, grid: tuple[int, int], form: str, alpha: float) -> np.ndarray:
    """The authors' script in float64, without their library: the layer's output is caught, Grad-CAM of the contrasted logits, no ReLU."""
    caught = []
    handle = layer.register_forward_hook(lambda module, given, output: caught.append(output))
    logits = network(pixels.double())
    handle.remove()
    objective = torch.zeros((), dtype=torch.float64)
    for row in logits:
        target = int(row.argmax())
        order = (row - row[target]).abs().argsort().tolist()
        nearest = [index for index in order if index != target][:3]
        if form == "uniform":
            objective = objective + row[target] - alpha * row[nearest].mean()
        else:
            shares = torch.softmax(row, dim=0)[nearest]
            objective = objective + (shares * (row[target] - alpha * row[nearest])).sum() / (shares.sum() + 1e-9)
    (gradient,) = torch.autograd.grad(objective, caught[0])
    cells, slopes = (tokens[:, 1:].transpose(1, 2).unflatten(2, grid) for tokens in (caught[0], gradient))
    return (slopes.mean(dim=(2, 3), keepdim=True) * cells).sum(dim=1).detach().numpy()


@pytest.mark.parametrize("form", ["uniform", "released"])
@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_finer_cam_where_its_authors_hook(kind: str, form: str, dino: Any) -> None:  # noqa: F811
    """The first norm of the last block, on DINOv2 (mean of the patch tokens) and CLIP (class token) with a linear head."""
    pytest.importorskip("ttach", reason="the extra 'cams' is not installed")
    from concept_cam.backbones.dinov2 import Dinov2

    if kind == "dinov2":
        tower: Any = Dinov2(dino)
        double = copy.deepcopy(dino).double()
        layer, run = double.encoder.layer[-1].norm1, lambda pixels: double(pixels).last_hidden_state[:, 1:].mean(dim=1)
    else:
        tower = backbone("vit")
        double = copy.deepcopy(tower.model).double()
        layer, run = double.visual.transformer.resblocks[-1].ln_1, double.visual
    head = make_head(tower.embed_dim, 8)
    pictures = [photograph(seed, tower.preprocess.size) for seed in range(3)]
    pixels = torch.cat([prepare(read_image(picture), tower.preprocess, "squash").batch for picture in pictures])
    expected = published_finer_cam(Published(run, head).double(), layer, pixels, tower.grid_size(tower.preprocess.size), form, 0.7)
    found = FinerCam(tower, head, Settings(resize="squash")).explain(pictures, aggregation=form, alpha=0.7)
    for answer, one in zip(found, expected):
        np.testing.assert_allclose(answer.scores, one, atol=2e-4 * np.abs(one).max())


# --------------------------------------------------------------------------------------------------------------- Grad-CAM++


def equation_19(activations: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Grad-CAM++ written out in float64, term by term: activations and gradients of the logit [K, h, w] -> the map before the ReLU."""
    activations, gradient = activations.astype(np.float64), gradient.astype(np.float64)
    result = np.zeros(activations.shape[1:])
    for a, g in zip(activations, gradient):
        weight = 0.0
        for place in np.ndindex(*g.shape):
            if g[place] != 0:
                alpha = g[place] ** 2 / (2 * g[place] ** 2 + a.sum() * g[place] ** 3)
                weight += alpha * max(g[place], 0.0)
        result += weight * a
    return result


@pytest.mark.parametrize("temperature", [1.0, 100.0])
@pytest.mark.parametrize("kind", ["vit", "vit-mean", "resnet", "transformers-siglip", "timm-convnext"])
def test_grad_cam_plusplus_is_equation_19(kind: str, temperature: float) -> None:
    model = backbone(kind)
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(2, 3, *model.preprocess.size, generator=generator)
    directions = torch.randn(2, model.embed_dim, generator=generator)
    pixels, features, image = encode(model, pixels, None)
    batch = Batch(model, pixels, features, image, directions.expand(2, -1, -1), temperature=temperature)
    found = find_method("grad-cam++").load().maps(batch).numpy()
    leaf = batch.features.map.detach().double().requires_grad_(True)
    image = model.pool(replace(batch.features, map=leaf.float())).double()
    logits = temperature * F.normalize(image, dim=-1) @ directions.double().T
    for index in range(2):
        (gradient,) = torch.autograd.grad(logits[:, index].sum(), leaf, retain_graph=True)
        for row in range(len(found)):
            expected = equation_19(leaf[row].detach().numpy(), gradient[row].numpy())
            assert np.corrcoef(found[row, index].ravel(), expected.ravel())[0, 1] > 0.999
            np.testing.assert_allclose(found[row, index], expected, atol=2e-2 * np.abs(expected).max())


# ----------------------------------------------------------------------------------------------------- GEM and CLIP Surgery


def second_path(model: Any, pixels: torch.Tensor, read: Any) -> torch.Tensor:
    """The official codes' second path in float64, written out: what each of the last six blocks reads, added to the tokens that enter the
    first.
    """
    model = copy.deepcopy(model)
    model.model.double()
    with torch.no_grad():
        x = model.enter(model.embed(pixels.double()).tokens)
        path = None
        for number, block in enumerate(model.blocks):
            path = x if number == max(0, len(model.blocks) - 6) else path
            normed = block.norm(x)
            query, key, value = block.project(normed, "qkv", None)
            if path is not None:
                path = path + block.output(read(query, key, value, block.scale, normed))
            weights = (query @ key.transpose(2, 3) * block.scale).softmax(-1)
            x = x + block.output(weights @ value)
            x = x + block.feed_forward(x)
        assert path is not None
        found = model.project_patches(path[:, model.prefix :])
    assert found.dtype == torch.float64
    return found


def read_gem(query: Any, key: Any, value: Any, scale: float, normed: Any) -> Any:
    """``SelfSelfAttention`` of GEM's code: one iteration, temperature from the norm of the block's normed input."""
    temperature = normed.norm(dim=-1).mean(dim=-1)[:, None, None, None] * scale
    total = 0
    for x in (value, key, query):
        x = F.normalize(x, dim=-1)
        x = (x @ x.transpose(2, 3) * temperature).softmax(-1) @ x
        x = F.normalize(x, dim=-1)
        total = total + (x @ x.transpose(2, 3) * temperature).softmax(-1) @ value
    return total / 3


def read_surgery(query: Any, key: Any, value: Any, scale: float, normed: Any) -> Any:
    """``Attention`` of CLIP Surgery's code: value-value."""
    return (value @ value.transpose(2, 3) * scale).softmax(-1) @ value


@pytest.mark.parametrize("kind", ["vit", "vit-layer-scale", "transformers-clip", "vit-mean"])
@pytest.mark.parametrize(("attention", "read"), [("gem-6", read_gem), ("vv-6", read_surgery)])
def test_second_paths_are_those_of_the_official_codes(kind: str, attention: str, read: Any) -> None:
    model = backbone(kind)
    pixels = torch.randn(2, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(5))
    features = model.encode_patches(pixels, attention)
    expected = second_path(model, pixels, read)
    found = features.patches.flatten(1, 2).double()
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    torch.testing.assert_close(features.image, model.encode_image(pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "vit-layer-scale"])
def test_gem_of_its_authors_package(kind: str) -> None:
    """The blocks of ``gem-torch`` take the place of the last six in a copy of the tower, as its wrapper does it."""
    prepare_torchvision()
    gem = pytest.importorskip("gem.gem_utils", reason="GEM's package is not installed: pip install --no-deps gem-torch einops")
    model = backbone(kind)
    pixels = torch.randn(2, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(5))
    visual = copy.deepcopy(model.model.visual)
    blocks = list(visual.transformer.resblocks)
    with torch.no_grad():
        state: Any = visual.ln_pre(model.embed(pixels).tokens)
        for block in blocks[:-6]:
            state = block(state)
        state = state.transpose(0, 1)  # The package's blocks are made for open_clip's older order, tokens first.
        for block in blocks[-6:]:
            own = block.attn
            attention = gem.SelfSelfAttention(dim=own.embed_dim, num_heads=own.num_heads, qkv_bias=True)
            attention.qkv.weight.data, attention.qkv.bias.data = own.in_proj_weight.clone(), own.in_proj_bias.clone()
            attention.proj.weight.data, attention.proj.bias.data = own.out_proj.weight.clone(), own.out_proj.bias.clone()
            block.attn = attention
            state = gem.GEMResidualBlock(block)(state)
        expected = (visual.ln_post(state[0].transpose(0, 1)) @ visual.proj)[:, 1:]
    found = model.encode_patches(pixels, "gem-6").patches.flatten(1, 2)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
