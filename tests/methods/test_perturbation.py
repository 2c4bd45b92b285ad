from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

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
