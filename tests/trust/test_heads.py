"""Certificates of classifiers: a healthy head obeys its classes, heads that do not are called out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from concept_cam.backbones.protocol import FeatureMap, ImageFeatures
from concept_cam.core.errors import ConfigurationError
from concept_cam.methods.heads import ClassifierHead, FinerCam
from tests.methods.models import LinearBackbone
from tests.planted import PlantedBackbone

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
    assert "other classes and random directions" in found.certificate.reason or "that of all classes" in found.certificate.reason


def test_bases_that_run_the_tower_again_have_none() -> None:
    found = cam(ROWS).explain(PICTURE, "red", references=["green"], base="score-cam")
    with pytest.raises(ConfigurationError, match="has no certificate"):
        _ = found.certificate


@pytest.mark.parametrize("base", ["direct", "grad-cam", "hires-cam"])
def test_the_ledger_sums_to_the_map(base: str) -> None:
    found = cam(ROWS).explain(PICTURE, "red", references=["green", "blue"], alpha=0.6, base=base)
    assert list(found.ledger()) == ["red", "green", "blue"]
    np.testing.assert_allclose(sum(found.ledger().values()), found.scores, atol=1e-5)
    told = dict(found.certificate.ledger)
    assert told == pytest.approx(found.ledger_at_peak(), abs=1e-5)
    assert sum(told.values()) == pytest.approx(found.peak_score, abs=1e-5)


def test_maps_that_are_not_linear_have_no_ledger() -> None:
    found = cam(ROWS).explain(PICTURE, "red", references=["green"], base="layer-cam")
    assert found.certificate.ledger == ()
    with pytest.raises(ConfigurationError, match="no contrast ledger"):
        found.ledger()


WIDE, COUNT = 64, 30
NAMES = tuple(f"class {number}" for number in range(COUNT))


class Cells(PlantedBackbone):
    """Every class has a direction of its own; class 0 is planted at one place, class 1 beside it, in noise."""

    embed_dim = WIDE

    def __init__(self, seed: int, planted: float = 1.0, constant: bool = False) -> None:
        super().__init__(size=96, stride=8)
        generator = torch.Generator().manual_seed(seed)
        self.rows = F.normalize(torch.randn(COUNT, WIDE, generator=generator), dim=-1)
        self.cells = 0.35 * F.normalize(torch.randn(12, 12, WIDE, generator=generator), dim=-1)
        self.cells[3:6, 7:10] += planted * self.rows[0]
        self.cells[7:10, 2:5] += planted * self.rows[1]
        if constant:
            self.cells[:] = self.rows[0]

    def encode_patches(self, pixels: torch.Tensor, attention: str = "auto", valid: torch.Tensor | None = None) -> ImageFeatures:
        return ImageFeatures(self.cells[None].clone(), self.cells.mean(dim=(0, 1))[None])

    def feature_map(self, pixels: torch.Tensor, valid: torch.Tensor | None = None, layer: str | None = None) -> FeatureMap:
        return FeatureMap(self.cells.permute(2, 0, 1)[None].clone())

    def pool(self, features: FeatureMap) -> torch.Tensor:
        return features.map.mean(dim=(2, 3))


def verdicts_of(rows: Callable[[Cells], torch.Tensor], count: int = 40, **planted: Any) -> list[str]:
    found = []
    for seed in range(count):
        backbone = Cells(seed, **planted)
        head = ClassifierHead(rows(backbone), torch.zeros(COUNT), NAMES)
        found.append(FinerCam(backbone, head).explain(PICTURE, "class 0", references=["class 1"], base="direct").certificate.verdict)
    return found


def share_of(found: list[str], verdict: str) -> float:
    return found.count(verdict) / len(found)


def test_planted_heads_are_told_apart() -> None:
    """One healthy head, and three that fail: the same map for every class, one map everywhere, rows that were never trained."""
    assert share_of(verdicts_of(lambda tower: tower.rows), "not about the prompt") <= 0.05
    assert share_of(verdicts_of(lambda tower: tower.rows), "clear") >= 0.95
    assert share_of(verdicts_of(lambda tower: tower.rows[:1] + 0.02 * tower.rows), "not about the prompt") >= 0.95
    assert share_of(verdicts_of(lambda tower: tower.rows, constant=True), "not about the prompt") >= 0.95

    def untrained(tower: Cells) -> torch.Tensor:
        return F.normalize(torch.randn(COUNT, WIDE, generator=torch.Generator().manual_seed(999)), dim=-1)

    assert share_of(verdicts_of(untrained), "clear") <= 0.25
