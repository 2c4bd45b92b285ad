"""Networks of timm without a last layer: parity with timm itself at the native size and at an odd one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from concept_cam.backbones import load
from concept_cam.backbones.loading import from_classifier
from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.core.errors import UnsupportedModelError
from tests.backbones.models import pictures, randomise, relative

SMALL = {
    "vit_pe_spatial_tiny_patch16_512": {"depth": 2, "img_size": 64},
    "vit_small_patch16_dinov3": {"depth": 2, "img_size": 64},
    "vit_base_patch16_radio_v3": {"depth": 1, "img_size": 64},
    "vit_base_patch14_reg1_tipsv2": {"depth": 1, "img_size": 56},
    "test_convnext": {"num_classes": 0},
}
"""The true networks with fewer blocks."""


def network(name: str, **more: Any) -> Any:
    prepare_torchvision()
    import timm

    if not timm.is_model(name):
        pytest.skip(f"this release of timm has no {name}")
    torch.manual_seed(0)
    return randomise(timm.create_model(name, pretrained=False, **{**SMALL[name], **more}))


@pytest.mark.parametrize("name", SMALL)
def test_equals_timm(name: str) -> None:
    model = network(name)
    tower = from_classifier(model)
    assert tower.family == "timm-features"
    assert tower.own_head is None
    pixels = pictures(tower)
    with torch.no_grad():
        own = model(pixels)
        tokens = model.forward_features(pixels)
    features = tower.encode_patches(pixels, "vanilla")
    assert relative(features.image, own) < 1e-5
    assert relative(tower.encode_image(pixels), own) < 1e-5
    if tokens.ndim == 3:
        patches = tokens[:, model.num_prefix_tokens :]
        torch.testing.assert_close(features.patches.flatten(1, 2), patches, rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedModelError, match="no text tower"):
        tower.encode_text(["a fin"])


@pytest.mark.parametrize("name", [name for name in SMALL if name != "test_convnext"])
def test_odd_sizes_equal_timms_own_interpolation(name: str) -> None:
    """Timm resizes its tables by itself where it is told so when the network is built."""
    fixed, flexible = network(name), network(name, dynamic_img_size=True)
    flexible.load_state_dict(fixed.state_dict())
    tower = from_classifier(fixed)
    row, column = tower.preprocess.stride
    pixels = pictures(tower, size=(3 * row, 6 * column))
    with torch.no_grad():
        own = flexible(pixels)
    assert relative(tower.encode_image(pixels), own) < 1e-5
    assert relative(tower.encode_patches(pixels).image, own) < 1e-5


def test_a_file_of_weights_by_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    prepare_torchvision()
    import timm

    if not timm.is_model("vit_pe_spatial_tiny_patch16_512"):
        pytest.skip("this release of timm has no PE-Spatial")
    model = randomise(timm.create_model("vit_pe_spatial_tiny_patch16_512", pretrained=False))
    save_file(model.state_dict(), tmp_path / "pe.safetensors")
    tower = load(f"timm:vit_pe_spatial_tiny_patch16_512,{tmp_path / 'pe.safetensors'}")
    assert (tower.family, tower.preprocess.size, tower.preprocess.mean) == ("timm-features", (512, 512), (0.5, 0.5, 0.5))
    pixels = pictures(tower, batch=1, size=(64, 96))
    assert tower.encode_patches(pixels).patches.shape == (1, 4, 6, 192)


def test_the_naflex_form_points_to_the_other() -> None:
    prepare_torchvision()
    import timm

    if not timm.is_model("naflexvit_base_patch16_radio_v3"):
        pytest.skip("this release of timm has no such network")
    model = timm.create_model("naflexvit_base_patch16_radio_v3", pretrained=False, depth=1).eval()
    with pytest.raises(UnsupportedModelError, match="Use the 'vit_' form"):
        from_classifier(model)
