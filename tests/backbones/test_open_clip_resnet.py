from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from concept_cam.backbones.base import Preprocess
from concept_cam.backbones.loading import from_open_clip
from concept_cam.backbones.open_clip_resnet import OpenClipResNet
from concept_cam.types import ConfigurationError
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


def test_cells_tile_the_input_evenly() -> None:
    """A lone bright square raises most the cell that it lies in."""
    fine = backbone(16, (1, 1, 1, 1))
    base = fine.encode_patches(torch.zeros(1, 3, 128, 128)).patches
    for row, column in ((2, 3), (4, 4), (5, 2)):
        pixels = torch.zeros(1, 3, 128, 128)
        pixels[:, :, 16 * row + 4 : 16 * row + 12, 16 * column + 4 : 16 * column + 12] = 20.0
        change = (fine.encode_patches(pixels).patches - base).norm(dim=-1)[0]
        weights = change / change.sum()
        ys, xs = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        assert float((weights * ys).sum()) == pytest.approx(row, abs=0.6)
        assert float((weights * xs).sum()) == pytest.approx(column, abs=0.6)


@pytest.mark.parametrize("size", [(128, 128), (192, 128)])
def test_the_image_embedding_is_the_same_at_either_stride(size: tuple[int, int]) -> None:
    fine, coarse = backbone(16), backbone(32)
    pixels = torch.randn(2, 3, *size)
    expected = coarse.encode_patches(pixels).image
    assert torch.allclose(fine.encode_patches(pixels).image, expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(fine.encode_image(pixels), expected, rtol=1e-5, atol=1e-6)
    valid = torch.ones(2, size[0] // 16, size[1] // 16, dtype=torch.bool)
    valid[:, :4] = False
    masked = coarse.encode_patches(pixels, valid=valid[:, ::2, ::2]).image
    assert torch.allclose(fine.encode_patches(pixels, valid=valid).image, masked, rtol=1e-5, atol=1e-6)


def test_grids() -> None:
    assert backbone(16).grid_size((128, 96)) == (8, 6)
    assert backbone(32).grid_size((128, 96)) == (4, 3)


def test_other_strides_are_refused() -> None:
    made = backbone(32)
    preprocess = Preprocess((128, 128), (8, 8), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ConfigurationError, match="32 or 16"):
        OpenClipResNet(made.model, name="x", preprocess=preprocess, text=made._text)
