"""Each adapted method equals its library, run by hand with its own hooks, backward pass, ReLU and scaling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from concept_cam.core.concept import Concept
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.methods import find_method
from concept_cam.methods.engine import Batch, encode
from concept_cam.methods.gradient import fix_sign, load_library
from tests.backbones.models import backbone
from tests.methods.models import photograph

pytest.importorskip("ttach", reason="the extra 'cams' is not installed")

PAIRS = {
    "grad-cam": "GradCAM",
    "xgrad-cam": "XGradCAM",
    "hires-cam": "HiResCAM",
    "layer-cam": "LayerCAM",
    "eigen-cam": "EigenCAM",
    "kpca-cam": "KPCA_CAM",
}
TORCHCAM = {
    "grad-cam": "GradCAM",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
}


class Whole(nn.Module):
    """A model of our making, from pixels to the objectives of ``C`` directions, with a layer that a library can hook."""

    def __init__(self, model: Any, directions: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.anchor = nn.Parameter(torch.zeros(()))
        self._parts = (model, directions, scale)

    def forward(self, pixels: Tensor) -> Tensor:
        model, directions, scale = self._parts
        with torch.no_grad():
            features = model.feature_map(pixels)
        map_ = self.layer(features.map + self.anchor)
        image = model.pool(replace(features, map=map_)).float()
        return scale * torch.nn.functional.normalize(image, dim=-1) @ directions.T


def make_batch(kind: str, count: int = 2) -> tuple[Any, Tensor, Batch]:
    model = backbone(kind)
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(count, 3, *model.preprocess.size, generator=generator)
    directions = torch.randn(2, model.embed_dim, generator=generator)
    pixels, features, image = encode(model, pixels, None)
    return model, directions, Batch(model, pixels, features, image, directions.expand(count, -1, -1))


def scaled(values: np.ndarray) -> np.ndarray:
    values = np.maximum(values, 0)
    values = values - values.min()
    return values / (1e-7 + values.max())


@pytest.mark.parametrize("kind", ["vit", "resnet", "transformers-siglip"])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_grad_cam_run_by_hand(name: str, kind: str) -> None:
    model, directions, batch = make_batch(kind)
    cams = load_library()
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    found = find_method(name).load().maps(batch).numpy()
    whole = Whole(model, directions)
    for index in range(2):
        targets = [ClassifierOutputTarget(index)] * len(batch.pixels)
        # An input as large as the grid, so that the library's enlargement leaves the map as it is.
        small = torch.zeros(len(batch.pixels), 3, *found.shape[2:])
        cam = getattr(cams, PAIRS[name])(whole, [whole.layer])
        cam.get_target_width_height = lambda _, small=small: (small.shape[3], small.shape[2])
        theirs = cam(batch.pixels, targets)
        for row in range(len(theirs)):
            mine = scaled(found[row, index])
            other = scaled(-found[row, index])  # Principal components have no sign of their own.
            error = min(
                abs(mine - theirs[row]).max(),
                abs(other - theirs[row]).max() if "pca" in name or "eigen" in name else 9,
            )
            assert error < 2e-4, error
    assert np.abs(found).max() > 0


# Not grad-cam++: torchcam multiplies activations and third powers place by place where the paper sums the activations first.
@pytest.mark.parametrize("name", TORCHCAM)
def test_equals_torchcam_run_by_hand(name: str) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="the extra 'cams' is not installed")
    model, directions, batch = make_batch("resnet")
    found = find_method(name).load().maps(batch).numpy()
    whole = Whole(model, directions)
    with getattr(methods, TORCHCAM[name])(whole, "layer") as cam:
        scores = whole(batch.pixels)
        theirs = cam(class_idx=1, scores=scores, normalized=False)[0].numpy()
    mine = np.maximum(found[:, 1], 0)
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4 * np.abs(found).max())


def test_grad_cam_plusplus_equals_the_library_where_its_constant_is_small() -> None:
    cams = load_library()
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, directions, batch = make_batch("resnet")
    scale = 1e4  # Gradients so large that their squares are far above the 1e-6 in the library's denominator.
    found = find_method("grad-cam++").load().maps(replace(batch, temperature=scale)).numpy()
    whole = Whole(model, directions, scale)
    cam = cams.GradCAMPlusPlus(whole, [whole.layer])
    cam.get_target_width_height = lambda _: (found.shape[3], found.shape[2])
    theirs = cam(batch.pixels, [ClassifierOutputTarget(0)] * len(batch.pixels))
    for row in range(len(theirs)):
        assert np.corrcoef(scaled(found[row, 0]).ravel(), theirs[row].ravel())[0, 1] > 0.999


def test_decompositions_ignore_the_question_and_the_padding() -> None:
    localizer = Localizer(backbone("vit"))
    concepts = [Concept(("a fin",), (("a tail",),)), Concept(("a bird",))]
    for name in ("eigen-cam", "kpca-cam"):
        wide = localizer.locate_all([photograph(1, (16, 32))], concepts, method=name)[0]
        np.testing.assert_array_equal(wide.scores[0], wide.scores[1])
        known = wide.scores[0][np.isfinite(wide.scores[0])]
        assert known.size == 8
        assert known.max() >= -known.min()
        assert abs(known.mean()) < 1e-4 * np.abs(known).max()  # Centred over the picture's cells alone.


def test_fix_sign() -> None:
    values = np.array([-3.0, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(fix_sign(values), -values)
    np.testing.assert_array_equal(fix_sign(-values), -values)


def test_one_cell_has_no_component() -> None:
    localizer = Localizer(backbone("vit"), Settings(size=8))
    found = localizer.locate(photograph(0, (8, 8)), "a fin", method="eigen-cam")
    assert found.scores.shape == (1, 1)
    assert found.scores[0, 0] == 0


def test_maps_change_with_the_sign_of_the_question() -> None:
    """Signed maps of a linear method turn around with target and contrast exchanged: no ReLU, no scaling is in them."""
    localizer = Localizer(backbone("vit"))
    for name in ("grad-cam", "hires-cam", "xgrad-cam", "grad-eclip", "ablation-cam"):
        one = localizer.locate(photograph(2), "a forked tail", ["a rounded tail"], method=name).scores
        other = localizer.locate(photograph(2), "a rounded tail", ["a forked tail"], method=name).scores
        np.testing.assert_allclose(one, -other, atol=1e-3 * np.nanmax(np.abs(one)))
