"""Certificates of classifiers: a healthy head obeys its classes, heads that do not are called out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from concept_cam.core.errors import ConfigurationError
from concept_cam.methods.heads import ClassifierHead, FinerCam
from tests.methods.models import LinearBackbone

PICTURE = np.zeros((96, 96, 3), np.uint8)
PICTURE[:] = np.random.default_rng(0).integers(0, 40, (96, 96, 3))
PICTURE[8:24, 64:80, 0] = 255
PICTURE[64:80, 8:24, 1] = 255
CLASSES = ("red", "green", "blue")


def cam(weight: torch.Tensor) -> FinerCam:
    head = ClassifierHead(weight, torch.zeros(len(weight)), CLASSES[: len(weight)] + tuple(f"other {i}" for i in range(len(weight) - 3)))
    return FinerCam(LinearBackbone(96, 8), head)


ROWS = torch.eye(3, 4)


@pytest.mark.parametrize("base", ["direct", "grad-cam", "grad-cam+relu", "layer-cam"])
def test_a_healthy_head_obeys_its_classes(base: str) -> None:
    found = cam(ROWS).explain(PICTURE, "red", references=["green"], base=base)
    certificate = found.certificate
    assert certificate is found.certificate
    assert certificate.verdict in ("clear", "doubtful")
    assert certificate.evidence.p_value <= 0.5  # In four dimensions many a random direction is near.
    assert certificate.text is None
    assert certificate.confidence is None
    assert certificate.calibrated is False
    assert (certificate.probability or 0) == pytest.approx(found.probability)


def test_a_linear_map_and_its_replacements_agree() -> None:
    """Grad-CAM's signed maps are linear in the class: the maps with a direction replaced follow from others."""
    from dataclasses import replace

    from concept_cam.methods.head_probe import HeadProbe
    from concept_cam.trust import heads

    seen: list[HeadProbe] = []
    found = cam(ROWS).explain(PICTURE, "red", references=["green"], base="grad-cam")
    original = heads.certify
    try:
        heads.certify = lambda probe: seen.append(probe) or original(probe)  # type: ignore[func-returns-value]
        linear = found.certificate.evidence
    finally:
        heads.certify = original
    assert seen[0].linear
    full = original(replace(seen[0], linear=False)).evidence
    assert full.p_value == linear.p_value
    assert full.p_anywhere == linear.p_anywhere


def test_a_head_whose_classes_are_one_is_called_out() -> None:
    same = ROWS[0] + 0.001 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    found = cam(same).explain(PICTURE, "red", references=["green"])
    assert found.certificate.verdict == "not about the prompt"
    assert found.certificate.evidence.dependence_siblings > 0.98


def test_bases_that_run_the_tower_again_have_none() -> None:
    found = cam(ROWS).explain(PICTURE, "red", references=["green"], base="score-cam")
    with pytest.raises(ConfigurationError, match="has no certificate"):
        _ = found.certificate
