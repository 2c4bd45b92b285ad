from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training import tokenizer
from training.config import READ_STRIDE
from training.model import attention_pool, build_model, encode_resnet, encode_text, fine_features, load_weights, model_config

from concept_cam.backbones.loading import from_open_clip
from tests.backbones.models import simple_tokenizer
from tests.training.tiny import TINY


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (1, 2, 2, 1), (1, 1, 2, 2)])
@torch.no_grad()
def test_fine_features_come_with_the_stock_ones(layers: tuple[int, int, int, int], stride: int) -> None:
    visual = build_model(dataclasses.replace(TINY, layers=layers), 60).visual.eval()
    x = torch.randn(2, 3, 128, 128)
    stock = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))
    coarse, fine = fine_features(visual, x, stride)
    assert fine.shape[-2:] == ((7, 7) if stride == 16 else (12, 12))
    torch.testing.assert_close(coarse, stock)


@torch.no_grad()
def test_fine_features_between_are_those_of_the_shifted_picture(clip: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 256, 256)
    _, fine = fine_features(clip.visual, x, 16)
    _, shifted = fine_features(clip.visual, x[..., 16:, 16:], 16)
    # Away from the borders, whose zero padding differs.
    torch.testing.assert_close(fine[..., 6:9, 6:9], shifted[..., 5:8, 5:8], atol=1e-5, rtol=1e-4)
    _, finer = fine_features(clip.visual, x, 8)
    corners = [fine_features(clip.visual, x[..., dy : 240 + dy, dx : 240 + dx], 16)[1] for dy in (0, 8) for dx in (0, 8)]
    # The cell centred at 8 j + 20 is the mean of the readings at 8 j + 16 and 8 j + 24.
    mean = sum(corner[..., 6:8, 6:8] for corner in corners) / 4
    torch.testing.assert_close(finer[..., 12:15:2, 12:15:2], mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stride", [16, 8])
@torch.no_grad()
def test_training_reads_what_the_package_reads(clip: torch.nn.Module, stride: int) -> None:
    made = from_open_clip(clip, simple_tokenizer(), {"read_stride": stride})
    x = torch.randn(1, 3, 256, 256)
    _, patches = encode_resnet(clip.visual, x, stride)
    read = made.encode_patches(x, "value").patches
    # The package extends the picture by half a cell, or two and a half: compare what lies away from the borders.
    if stride == 16:
        extended = torch.nn.functional.pad(x, (8,) * 4, mode="replicate")
        _, patches = encode_resnet(clip.visual, extended[..., :256, :256], stride)
        mine, theirs = patches[:, 6:9, 6:9], read[:, 6:9, 6:9]
    else:
        mine, theirs = patches[:, 12:16, 12:16], read[:, 14:18, 14:18]
    torch.testing.assert_close(
        torch.nn.functional.normalize(mine, dim=-1),
        torch.nn.functional.normalize(theirs, dim=-1),
        atol=1e-4,
        rtol=1e-3,
    )


@torch.no_grad()
def test_embeddings_are_those_of_stock_open_clip(clip: torch.nn.Module) -> None:
    x = torch.randn(3, 3, 128, 128)
    pooled, patches = encode_resnet(clip.visual, x)
    torch.testing.assert_close(pooled, clip.encode_image(x), atol=1e-5, rtol=1e-4)
    assert patches.shape == (3, 12, 12, 32)
    tokens = torch.zeros(2, tokenizer.CONTEXT_LENGTH, dtype=torch.long)
    tokens[0, :4] = torch.tensor([58, 5, 6, 59])
    tokens[1, :3] = torch.tensor([58, 9, 59])
    torch.testing.assert_close(encode_text(clip, tokens), clip.encode_text(tokens), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_patches_are_the_value_path_of_each_patch_alone(clip: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    _, patches = encode_resnet(clip.visual, x)
    alone = fine_features(clip.visual, x, READ_STRIDE)[1][..., 1:2, 2:3]
    # Attention over one patch, whose mean is itself, gives its value.
    torch.testing.assert_close(patches[:, 1, 2], attention_pool(clip.visual.attnpool, alone), atol=1e-5, rtol=1e-4)


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown architecture"):
        model_config(dataclasses.replace(TINY, arch="mlp"), 10)


@pytest.fixture(scope="module")
def clip() -> torch.nn.Module:
    model = build_model(TINY, 60).eval()
    # Fresh batch-norm scales of zero would hide the residual branch.
    for module in model.visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def test_weights_of_an_export_are_taken_up(clip: torch.nn.Module, tmp_path: Path) -> None:
    words = ("fin", "tail")
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "vocabulary.txt").write_text("fin\ntail\n")
    fresh = build_model(dataclasses.replace(TINY, seed=5), 60)
    load_weights(fresh, tmp_path, words)
    for one, other in zip(fresh.state_dict().values(), clip.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="other words"):
        load_weights(fresh, tmp_path, ("head",))
    with pytest.raises(ValueError, match="another shape"):
        load_weights(build_model(dataclasses.replace(TINY, width=16), 60), tmp_path, words)
