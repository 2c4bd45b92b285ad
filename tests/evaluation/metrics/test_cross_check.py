"""Metrics against other people's implementations: Quantus, torchmetrics, torchcam and grad-cam, where they are installed.

Run with ``pip install quantus torchmetrics -e ".[test]"`` and
``pytest tests/evaluation/metrics/test_cross_check.py tests/methods tests.methods.test_heads.py``.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.evaluation import metrics

SHAPE = (9, 13)


def library(name: str) -> Any:
    """Imports an optional library, or skips; some of them import torchvision."""
    prepare_torchvision()
    return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is optional: pip install {name.partition('.')[0]}")


def maps(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Signed maps float64 [N, H, W] and masks bool [N, H, W] that they partly follow."""
    generator = np.random.default_rng(5)
    masks = generator.random((count, *SHAPE)) < np.linspace(0.1, 0.6, count)[:, None, None]
    return generator.standard_normal((count, *SHAPE)) + masks, masks


def quantus_scores(metric: Any, heatmaps: np.ndarray, masks: np.ndarray) -> list[float]:
    pixels = np.zeros((len(heatmaps), 1, *SHAPE))
    return metric(
        model=None,
        x_batch=pixels,
        y_batch=np.zeros(len(heatmaps), dtype=int),
        a_batch=heatmaps[:, None],
        s_batch=masks[:, None],
    )


def quiet(**options: Any) -> dict[str, Any]:
    return {
        "abs": False,
        "normalise": False,
        "disable_warnings": True,
        "display_progressbar": False,
        **options,
    }


@pytest.mark.filterwarnings("ignore")
def test_localisation_equals_quantus() -> None:
    quantus = library("quantus")
    heatmaps, masks = maps()
    found = quantus_scores(quantus.AUC(**quiet()), heatmaps, masks)
    assert [metrics.auroc(*pair) for pair in zip(heatmaps, masks)] == pytest.approx(found)
    found = quantus_scores(quantus.PointingGame(**quiet(weighted=False)), heatmaps, masks)
    expected = [metrics.pointing_game(*pair) for pair in zip(heatmaps, masks)]
    assert expected == pytest.approx([float(hit) for hit in found])
    assert set(expected) == {0.0, 1.0}
    found = quantus_scores(quantus.RelevanceMassAccuracy(**quiet()), np.maximum(heatmaps, 0), masks)
    assert [metrics.energy_pointing_game(*pair) for pair in zip(heatmaps, masks)] == pytest.approx(found)


class Bright(nn.Module):
    """Two classes of grey pictures, told apart by a weighted brightness that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
        self.weight = nn.Parameter(8 * (weight - weight.mean()))

    def forward(self, pixels: Tensor) -> Tensor:
        value = (pixels.float().mean(dim=1) * self.weight).mean(dim=(1, 2))
        return torch.stack([value.tanh(), -value], dim=1)


def grey(count: int = 3) -> np.ndarray:
    """Float32 [N, 1, H, W] in 0..1 that are whole numbers of 255ths; each has a black pixel, for Quantus calls the darkest one black."""
    pictures = np.random.default_rng(6).integers(0, 256, (count, 1, *SHAPE))
    pictures[..., 0, 0] = 0
    return (pictures / 255).astype(np.float32)


@pytest.mark.filterwarnings("ignore")
def test_deletion_equals_the_pixel_flipping_of_quantus() -> None:
    quantus = library("quantus")
    model, pictures, (heatmaps, _) = Bright().eval(), grey(), maps(3)
    found = quantus.PixelFlipping(**quiet(features_in_step=9, perturb_baseline="black"))(
        model=model,
        x_batch=pictures,
        y_batch=np.zeros(3, dtype=int),
        a_batch=heatmaps[:, None],
        softmax=False,
        device="cpu",
    )

    def score(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(images[..., :1].transpose(0, 3, 1, 2) / 255))[:, 0].numpy()

    for picture, heatmap, theirs in zip(pictures, heatmaps, found):
        image = np.repeat((picture[0] * 255).round().astype(np.uint8)[..., None], 3, axis=2)
        _, values = metrics.perturbation_curve(image, heatmap, score, "deletion", steps=13, fill="black")
        np.testing.assert_allclose(values[1:], theirs, atol=1e-6)
        assert np.ptp(values) > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_rank_correlation_equals_the_randomisation_check_of_quantus() -> None:
    """Its model-parameter randomisation test compares maps with this similarity."""
    quantus = library("quantus")
    heatmaps, _ = maps(4)
    first, second = heatmaps[:2], heatmaps[2:]
    for a, b in zip(first, second):
        theirs = quantus.similarity_func.correlation_spearman(a.ravel(), b.ravel())
        assert metrics.rank_correlation(a, b) == pytest.approx(float(theirs))
        assert metrics.randomisation_similarity(a, b) == pytest.approx(abs(float(theirs)))


def test_rankings_overlap_and_correlation_equal_torchmetrics() -> None:
    library("torchmetrics")
    from torchmetrics.functional import spearman_corrcoef
    from torchmetrics.functional.classification import (
        binary_auroc,
        binary_average_precision,
        binary_jaccard_index,
    )

    heatmaps, masks = maps()
    heatmaps[1] = np.round(heatmaps[1])  # Ties.
    for heatmap, mask in zip(heatmaps, masks):
        # It takes scores outside 0..1 for logits; ranks are all that counts.
        scores = torch.from_numpy((heatmap - heatmap.min()).ravel() / np.ptp(heatmap))
        truth = torch.from_numpy(mask.ravel().astype(np.int64))
        assert metrics.average_precision(heatmap, mask) == pytest.approx(float(binary_average_precision(scores, truth)), abs=1e-5)
        assert metrics.auroc(heatmap, mask) == pytest.approx(float(binary_auroc(scores, truth)), abs=1e-5)
        called = torch.from_numpy((heatmap >= 0.3).ravel().astype(np.int64))
        assert metrics.iou(heatmap, mask, 0.3) == pytest.approx(float(binary_jaccard_index(called, truth)), abs=1e-6)
        other = heatmaps[0]
        theirs = spearman_corrcoef(torch.from_numpy(heatmap.ravel()), torch.from_numpy(other.ravel()))
        assert metrics.rank_correlation(heatmap, other) == pytest.approx(float(theirs), abs=1e-5)


def shown_confidences(model: nn.Module, pictures: np.ndarray, heatmaps: np.ndarray) -> list[Any]:
    def score(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = model(torch.from_numpy(images[..., :1].transpose(0, 3, 1, 2) / 255))
        return torch.softmax(logits, dim=1)[:, 0].numpy()

    images = [np.repeat((p[0] * 255).round().astype(np.uint8)[..., None], 3, axis=2) for p in pictures]
    return [metrics.drop_and_increase(image, heatmap, score) for image, heatmap in zip(images, heatmaps)]


def test_average_drop_equals_torchcam() -> None:
    torchcam = library("torchcam.metrics")
    model, pictures, (heatmaps, _) = Bright().eval(), grey(6), maps(6)
    scaled = np.stack([metrics.minmax(heatmap) for heatmap in heatmaps]).astype(np.float32)

    class Extractor:
        """Hands out maps that are there already."""

        def __init__(self) -> None:
            self.model = model

        def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
            return [torch.from_numpy(scaled)]

        def fuse_cams(self, cams: list[Tensor]) -> Tensor:
            return cams[0]

        def _hooks_off(self) -> Any:
            return nullcontext()

    metric = torchcam.ClassificationMetric(Extractor(), lambda logits: torch.softmax(logits, dim=-1))
    metric.update(torch.from_numpy(pictures), 0)
    theirs = metric.summary()
    pairs = shown_confidences(model, pictures, heatmaps)
    # Shown pictures are rounded to whole pixel values here.
    assert metrics.average_drop(pairs) == pytest.approx(float(theirs["avg_drop"]), abs=2e-3)
    assert metrics.average_increase(pairs) == pytest.approx(float(theirs["conf_increase"]))
    assert 0 < metrics.average_increase(pairs) < 1


def test_drop_in_confidence_equals_grad_cam() -> None:
    pytest.importorskip("ttach", reason="grad-cam is optional: pip install grad-cam")
    library("pytorch_grad_cam")
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    model, pictures, (heatmaps, _) = Bright().eval(), grey(6), maps(6)
    scaled = np.stack([metrics.minmax(heatmap) for heatmap in heatmaps]).astype(np.float32)
    targets = [ClassifierOutputSoftmaxTarget(0)] * len(pictures)
    pixels = torch.from_numpy(pictures)
    dropped = DropInConfidence()(pixels, scaled, targets, model)
    raised = IncreaseInConfidence()(pixels, scaled, targets, model)
    pairs = shown_confidences(model, pictures, heatmaps)
    # Theirs is not divided by the confidence in the whole picture.
    np.testing.assert_allclose([pair.drop * pair.full for pair in pairs], np.ravel(dropped), atol=2e-3)
    np.testing.assert_array_equal([pair.increase for pair in pairs], np.ravel(raised))
