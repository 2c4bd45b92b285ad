"""Rules and conformal limits fitted to planted blocks, by the tower that sees them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from concept_cam import Concept, Localizer
from concept_cam.core.errors import DataError
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.evaluation.guarantees import Observed, fit_conformal, fit_trust, guarantee_facts, observe
from concept_cam.trust.rules import FEATURES
from tests.planted import PlantedBackbone


def dataset(count: int) -> Dataset:
    """Pictures with a red block at a random place; blue is asked for, too, where there is none."""

    def stream() -> Iterator[Sample]:
        rng = np.random.default_rng(0)
        for number in range(count):
            picture = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
            y, x = rng.integers(0, 6, 2) * 8
            picture[y : y + 16, x : x + 16, 0] = 250
            mask = np.zeros((64, 64), np.uint8)
            mask[y : y + 16, x : x + 16] = 255
            red = SampleQuestion(Concept(("red",), (("green",),)), "part", "block", mask=lambda mask=mask: mask)
            blue = SampleQuestion(Concept(("blue",), (("green",),)), "presence", "blue", present=False)
            yield Sample(f"{number}.png", picture, (red, blue))

    return Dataset("planted", "1", stream, count, Concept(("red",)))


@pytest.fixture(scope="module")
def observed() -> list[Observed]:
    found, errors = observe(dataset(24), Localizer(PlantedBackbone(size=64), None).with_settings(size=64))
    assert errors == []
    return found


def test_what_is_observed(observed: list[Observed]) -> None:
    parts, absent = observed[::2], observed[1::2]
    assert all(item.right and item.present and item.features.shape == (len(FEATURES),) for item in parts)
    assert not any(item.right or item.present for item in absent)
    assert all(item.distance is not None and item.distance < 0.1 for item in parts)


def test_conformal_limits_per_trait(observed: list[Observed]) -> None:
    found = fit_conformal(observed, 0.2, {"size": 64})
    assert set(found.inner) == set(found.outer) == {"block"}
    assert found.labelled["block"] == 24
    assert 0 <= found.inner["block"] <= 1
    with pytest.raises(DataError, match=r"needs at least 99 labelled pictures .*; there are 24"):
        fit_conformal(observed, 0.01, {})


def test_rules_tell_present_from_absent(observed: list[Observed]) -> None:
    localizer = Localizer(PlantedBackbone(size=64)).with_settings(size=64)
    rules = fit_trust(observed, guarantee_facts(localizer))
    assert rules.weights_hash == localizer.backbone.weights_hash
    assert rules.facts["pictures"] == 24
    sure = Localizer(localizer.backbone, localizer.settings, rules)
    sample = next(iter(dataset(1)))
    red, blue = sure.locate_all([sample.image], [question.concept for question in sample.questions])[0]
    assert red.certificate.calibrated
    assert (red.certificate.confidence or 0) > (blue.certificate.confidence or 0)
    assert red.certificate.verdict == "clear"
    assert blue.certificate.verdict != "clear"
    with pytest.raises(DataError):
        fit_trust([], {})
