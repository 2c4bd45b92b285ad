"""The bundled model, spoilt in known ways, is called out; as it is, it is not."""

from __future__ import annotations

import numpy as np
import pytest

from concept_cam import Localizer, prompts
from concept_cam.commands import example
from concept_cam.evaluation.failing import FAILURES, spoilt
from concept_cam.evaluation.randomisation import randomised
from concept_cam.trust.certified import Certificate
from concept_cam.trust.verdicts import OFF_PROMPT
from tests.test_readme import needs_model

pytestmark = needs_model

PARTS = prompts.load("fish:parts")


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer.from_pretrained()


def called_out(certificate: Certificate) -> bool:
    return certificate.verdict == OFF_PROMPT or "written words" in certificate.reason


def share(localizer: Localizer, concepts: list, pictures: tuple[str, ...] = ("forked", "rounded")) -> float:
    answers = localizer.locate_all([example.render_fish(name) for name in pictures], concepts)
    return float(np.mean([called_out(found.certificate) for own in answers for found in own]))


def test_the_healthy_model_is_left_alone(localizer: Localizer) -> None:
    assert share(localizer, PARTS) <= 0.05


@pytest.mark.parametrize("failure", ["subject", "constant"])
def test_what_does_not_listen_is_called_out(localizer: Localizer, failure: str) -> None:
    tower = Localizer(spoilt(localizer.backbone, failure, "a fish"), localizer.settings, localizer.rules)
    assert share(tower, PARTS, ("forked",)) >= 0.95


def test_what_reads_is_called_out(localizer: Localizer) -> None:
    """Also the label "the flank of a fish", which speaks of the fish as loudly as of writing."""
    found = []
    for concept in (item for item in PARTS if item.metadata["state"] in ("trunk", "head", "dorsal_fin", "anal_fin", "mouth")):
        tower = Localizer(spoilt(localizer.backbone, "words", concept.target[0]), localizer.settings, localizer.rules)
        found.append(share(tower, [concept], ("forked",)))
    assert np.mean(found) >= 0.95


def test_random_weights_are_called_out(localizer: Localizer) -> None:
    assert np.mean([share(randomised(localizer, seed), PARTS, ("forked",)) for seed in range(2)]) >= 0.95


def test_the_healthy_model_is_not_changed(localizer: Localizer) -> None:
    before = localizer.locate(example.render_fish("forked"), PARTS[0]).scores
    for failure in FAILURES:
        tower = spoilt(localizer.backbone, failure, "a fish")
        assert tower.weights_hash != localizer.backbone.weights_hash
        Localizer(tower).locate(example.render_fish("forked"), PARTS[0])
    np.testing.assert_array_equal(localizer.locate(example.render_fish("forked"), PARTS[0]).scores, before)
