from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_cam.core.errors import ConfigurationError
from concept_cam.methods.engine import Batch, encode
from concept_cam.methods.perturbation import ablation_cam, score_cam
from tests.methods.models import LinearBackbone
from tests.methods.test_gradient import Whole, make_batch


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_ablation_is_the_drop_without_each_channel(kind: str) -> None:
    """Restated slowly: zero one channel, pool again, subtract."""
    model, directions, batch = make_batch(kind)
    found = ablation_cam.maps(batch)
    with torch.no_grad():
        whole = torch.nn.functional.normalize(model.pool(batch.features), dim=-1) @ directions.T
        expected = torch.zeros_like(found)
        for channel in range(batch.features.map.shape[1]):
            without = batch.features.map.clone()
            without[:, channel] = 0
            image = model.pool(replace(batch.features, map=without))
            drop = whole - torch.nn.functional.normalize(image, dim=-1) @ directions.T
            expected += drop[:, :, None, None] * batch.features.map[:, None, channel]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert found.abs().max() > 1e-3


def test_ablation_equals_grad_cam_with_an_ablation_to_zero() -> None:
    pytest.importorskip("ttach", reason="the extra 'cams' is not installed")
    from concept_cam.methods.gradient import load_library

    cams = load_library()
    from pytorch_grad_cam.ablation_layer import AblationLayer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Zero(AblationLayer):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            output = self.activations
            for row in range(output.size(0)):
                output[row, self.indices[row]] = 0
            return output

    model, directions, batch = make_batch("resnet", count=1)
    whole = Whole(model, directions)
    with torch.no_grad():
        scores = whole(batch.pixels)[0]
    found = ablation_cam.maps(batch)[0].numpy()
    for index in range(2):
        cam = cams.AblationCAM(whole, [whole.layer], ablation_layer=Zero())
        activations = batch.features.map.numpy()
        weights = cam.get_cam_weights(batch.pixels, whole.layer, [ClassifierOutputTarget(index)], torch.from_numpy(activations), None)
        theirs = (weights[0, :, None, None] * activations[0]).sum(axis=0)
        # Theirs is divided by the score, whose sign would turn the map around.
        np.testing.assert_allclose(found[index] / float(scores[index]), theirs, rtol=1e-2, atol=1e-3 * np.abs(theirs).max())


def test_score_cam_equals_torchcam_run_by_hand() -> None:
    methods = pytest.importorskip("torchcam.methods", reason="the extra 'cams' is not installed")
    model, directions, batch = make_batch("resnet")
    batch = replace(batch, temperature=10.0)
    whole = Whole(model, directions, scale=10.0)
    found = score_cam.maps(batch).numpy()
    for index in range(2):
        with methods.ScoreCAM(whole, "layer", batch_size=16) as cam:
            with torch.no_grad():
                whole(batch.pixels)
            theirs = cam(class_idx=index, normalized=False)[0].numpy()
        np.testing.assert_allclose(np.maximum(found[:, index], 0), theirs, rtol=1e-3, atol=1e-4)
    assert np.abs(found[:, 0] - found[:, 1]).max() > 0


def test_score_cam_weighs_by_the_masked_pictures_score() -> None:
    """The channel of red shows a red target: the picture masked with it keeps red and little else."""
    model = LinearBackbone()
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, 0, :16], pixels[:, 1, 16:] = 1.0, 1.0
    pixels, features, image = encode(model, pixels, None)
    with torch.no_grad():
        red = model.model(torch.tensor([[1.0, 0, 0, 0, 0, -1]]))
        green = model.model(torch.tensor([[0, 1.0, 0, 0, 0, 0]]))
    batch = Batch(model, pixels, features, image, (red - green)[None], temperature=50.0)
    found = score_cam.maps(batch)[0, 0]
    assert found[:2].mean() > found[2:].mean()


def test_equal_masks_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red alone is active: of six channels three make one blank mask, and the map is that of asking all six."""
    model = LinearBackbone()
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, 0, :16] = torch.rand(16, 32, generator=torch.Generator().manual_seed(0))
    pixels, features, image = encode(model, pixels, None)
    direction = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(1))
    batch = Batch(model, pixels, features, image, direction, temperature=5.0)
    asked = []
    own = model.feature_map
    monkeypatch.setattr(model, "feature_map", lambda pixels, *rest: asked.append(len(pixels)) or own(pixels, *rest))
    found = score_cam.maps(batch)[0, 0]
    cells = features.map[0]
    low, high = cells.amin(dim=(1, 2), keepdim=True), cells.amax(dim=(1, 2), keepdim=True)
    masks = (cells - low) / (high - low + 1e-8)
    with torch.no_grad():
        large = torch.nn.functional.interpolate(masks[:, None], (32, 32), mode="bilinear", align_corners=False)
        scores = batch.normalise(model.pool(own(pixels * large))) @ direction[0, 0]
    expected = torch.einsum("k,khw->hw", torch.softmax(5.0 * scores, dim=0), cells)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert sum(asked) == len(torch.unique(masks.flatten(1), dim=0)) < 6


# ------------------------------------------------------------------------------------------------------- groups and RISE


def test_as_many_groups_as_channels_is_score_cam_itself() -> None:
    from concept_cam.methods import find_method
    from tests.methods.test_gradient import make_batch

    _, _, batch = make_batch("resnet")
    channels = batch.features.map.shape[1]
    exact = find_method("score-cam").load().maps(batch)
    grouped = find_method(f"score-cam:{channels}").load().maps_for(str(channels))(batch)
    torch.testing.assert_close(grouped, exact, atol=1e-5 * float(exact.abs().max()), rtol=1e-3)
    few = find_method("score-cam:4").load().maps_for("4")(batch)
    assert few.shape == exact.shape
    with pytest.raises(ConfigurationError, match="whole number"):
        find_method("score-cam:many").load().maps_for("many")


def test_alike_channels_share_a_group() -> None:
    from concept_cam.methods.perturbation import group_channels

    shapes = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.9, 0.1, 0, 0], [0, 0, 0, 1], [0, 0, 0.1, 2], [0, 1.1, 0, 0.1]])
    owner = group_channels(shapes, 3).tolist()
    assert owner[0] == owner[2]
    assert owner[1] == owner[5]
    assert owner[3] == owner[4]
    assert len(set(owner)) == 3
    assert group_channels(shapes, 9).tolist() == list(range(6))


def test_rise_is_its_definition() -> None:
    """Masks and map written out: the grid, its enlargement and shift, and the mean of masks weighted by scores."""
    from concept_cam.methods.perturbation import RISE_CELLS, rise_map, rise_masks

    masks = rise_masks(6, (28, 35), seed=3)
    assert masks.shape == (6, 28, 35)
    assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
    torch.testing.assert_close(masks, rise_masks(6, (28, 35), seed=3))
    many = rise_masks(400, (28, 35), seed=0)
    assert abs(float(many.mean()) - 0.5) < 0.02
    assert float(many.mean(dim=0).std()) < 0.05  # No place is favoured.
    assert RISE_CELLS == 7
    pixels = torch.randn(3, 28, 35)

    def score(pictures: torch.Tensor) -> torch.Tensor:
        return torch.stack([pictures[:, 0].mean(dim=(1, 2)), pictures.abs().amax(dim=(1, 2, 3))], dim=1)

    found = rise_map(score, pixels, masks)
    for index in range(2):
        expected = torch.zeros(28, 35)
        for mask in masks:
            expected += float(score((pixels * mask)[None])[0, index]) * mask
        torch.testing.assert_close(found[index], expected / (6 * 0.5), atol=1e-5, rtol=1e-4)


def test_rise_finds_what_the_score_reads() -> None:
    """A model that reads one corner alone is explained by that corner."""
    from concept_cam.methods.perturbation import rise_map, rise_masks

    pixels = torch.ones(3, 56, 56)
    found = rise_map(lambda pictures: pictures[:, 0, :16, :16].mean(dim=(1, 2))[:, None], pixels, rise_masks(500, (56, 56)))[0]
    assert float(found[:16, :16].mean()) > float(found[24:, 24:].mean()) + 0.05


def test_expected_passes() -> None:
    from concept_cam.core.settings import Settings
    from concept_cam.methods.perturbation import expected_passes
    from tests.backbones.models import backbone

    model = backbone("resnet")
    passes, seconds = expected_passes("score-cam+relu", model, Settings())
    assert passes == model.feature_map(torch.zeros(1, 3, *model.preprocess.size)).map.shape[1]
    assert seconds > 0
    assert expected_passes("rise:12", model, Settings())[0] == 12
    assert expected_passes("grad-cam", model, Settings()) is None
