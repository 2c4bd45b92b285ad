from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from concept_cam.backbones.loading import from_open_clip
from concept_cam.backbones.open_clip_resnet import OpenClipResNet, corner_map, fine_map
from concept_cam.core.errors import ConfigurationError, ModelError
from concept_cam.pictures.preprocessing import Preprocess
from tests.backbones.models import open_clip_model, simple_tokenizer


def backbone(stride: int, layers: tuple[int, int, int, int] = (1, 1, 1, 2)) -> OpenClipResNet:
    model = open_clip_model({"layers": list(layers), "width": 16, "head_width": 64, "image_size": 128, "patch_size": None})
    made = from_open_clip(model, simple_tokenizer(), {"read_stride": stride})
    assert isinstance(made, OpenClipResNet)
    return made


def test_every_second_fine_cell_is_the_stock_cell() -> None:
    """The padded map is shifted by half a cell, so the stock cells of the picture extended by 8 pixels are its even ones."""
    fine = backbone(16)
    early = fine._early(torch.randn(2, 3, 128, 160))
    visual = fine._visual
    stock = visual.layer4(visual.layer3(F.pad(early, (1, 1, 1, 1), mode="replicate")))
    cells = fine._cells(early)
    assert cells.shape[2:] == (8, 10)
    assert torch.allclose(cells[..., ::2, ::2], stock, atol=1e-5)


@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (1, 1, 3, 3)])
@torch.no_grad()
def test_every_fourth_corner_is_a_stock_cell(layers: tuple[int, int, int, int]) -> None:
    visual = backbone(8, layers)._visual
    early = visual.layer2(visual.layer1(visual.stem(torch.randn(2, 3, 128, 192))))
    corners = corner_map(visual, early)
    assert corners.shape[2:] == (13, 21)
    assert torch.allclose(corners[..., ::4, ::4], visual.layer4(visual.layer3(early)), atol=1e-5)
    cells = fine_map(visual, early, 8)
    assert cells.shape[2:] == (12, 20)
    around = [corners[..., 4 + y, 7 + x] for y in (0, 1) for x in (0, 1)]
    assert torch.allclose(cells[..., 4, 7], sum(around) / 4, atol=1e-5)


@pytest.mark.parametrize("stride", [16, 8])
def test_cells_tile_the_input_evenly(stride: int) -> None:
    """A lone bright square raises most the cell that it lies in."""
    fine = backbone(stride, (1, 1, 1, 1))
    base = fine.encode_patches(torch.zeros(1, 3, 128, 128)).patches
    side, edge = 128 // stride, stride // 4
    ys, xs = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    for row, column in ((2, 3), (4, 4), (5, 2)):
        row, column = row * 16 // stride, column * 16 // stride
        pixels = torch.zeros(1, 3, 128, 128)
        top, left = stride * row + edge, stride * column + edge
        pixels[:, :, top : top + stride // 2, left : left + stride // 2] = 20.0
        change = (fine.encode_patches(pixels).patches - base).norm(dim=-1)[0]
        weights = change / change.sum()
        assert float((weights * ys).sum()) == pytest.approx(row, abs=0.6 * 16 / stride)
        assert float((weights * xs).sum()) == pytest.approx(column, abs=0.6 * 16 / stride)


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("size", [(128, 128), (192, 128)])
def test_the_image_embedding_is_the_same_at_every_stride(size: tuple[int, int], stride: int) -> None:
    fine, coarse = backbone(stride), backbone(32)
    pixels = torch.randn(2, 3, *size)
    expected = coarse.encode_patches(pixels).image
    assert torch.allclose(fine.encode_patches(pixels).image, expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(fine.encode_image(pixels), expected, rtol=1e-5, atol=1e-6)
    valid = torch.ones(2, size[0] // stride, size[1] // stride, dtype=torch.bool)
    valid[:, : 64 // stride] = False
    factor = 32 // stride
    masked = coarse.encode_patches(pixels, valid=valid[:, ::factor, ::factor]).image
    assert torch.allclose(fine.encode_patches(pixels, valid=valid).image, masked, rtol=1e-5, atol=1e-6)
    assert torch.allclose(fine.encode_image(pixels, valid), masked, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(104, 72), (8, 136), (8, 8), (24, 40)])
@torch.no_grad()
def test_the_image_embedding_sees_sides_that_are_no_multiple_of_the_stock_stride(height: int, width: int) -> None:
    fine = backbone(8)
    pixels = torch.randn(1, 3, height, width)
    found = fine.encode_patches(pixels)
    assert found.patches.shape[1:3] == (height // 8, width // 8)
    early = fine._early(pixels)
    whole = F.pad(early, (0, -width // 8 % 4, 0, -height // 8 % 4), mode="replicate")
    expected = fine._pool(fine._visual.layer4(fine._visual.layer3(whole)), None)
    torch.testing.assert_close(found.image, expected)
    torch.testing.assert_close(fine.encode_image(pixels), expected)
    changed = pixels.clone()
    changed[..., -8:] += 3.0
    assert (fine.encode_patches(changed).image - found.image).norm() > 1e-3 * found.image.norm()
    valid = torch.ones(1, height // 8, width // 8, dtype=torch.bool)
    torch.testing.assert_close(fine.encode_patches(pixels, valid=valid).image, expected)


def test_grids() -> None:
    assert backbone(8).grid_size((128, 96)) == (16, 12)
    assert backbone(16).grid_size((128, 96)) == (8, 6)
    assert backbone(32).grid_size((128, 96)) == (4, 3)


def test_a_checkpoint_says_how_it_is_read() -> None:
    model, tokenizer = backbone(32).model, simple_tokenizer()
    made = from_open_clip(model, tokenizer, {"read_stride": 16, "read_size": 192, "read_views": "mirrored"})
    assert made.preprocess.stride == (16, 16)
    assert made.preprocess.default_size == (192, 192)
    assert made.preprocess.views == "mirrored"
    assert backbone(16).preprocess.views == "single"
    with pytest.raises(ModelError, match=r"read_views.*'mirror'.*'mirrored'"):
        from_open_clip(model, tokenizer, {"read_views": "mirror"})


def test_other_strides_are_refused() -> None:
    made = backbone(32)
    preprocess = Preprocess((128, 128), (4, 4), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ConfigurationError, match="32, 16 or 8"):
        OpenClipResNet(made.model, name="x", preprocess=preprocess, text=made._text)
