"""Rules and conformal limits fitted to planted blocks, by the tower that sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam import Concept, Localizer
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.evaluation.guarantees import Observed, fit_conformal, fit_guarantees, fit_trust, observe, without
from concept_cam.trust.conformal import MASK_LEVELS, relative
from concept_cam.trust.rules import Rules
from tests.planted import PlantedBackbone

PART = {"kind": "part", "pack": "colours", "host": "picture"}
RED = Concept(("red",), (("green",),), name="parts=red", metadata=PART)
BLUE = Concept(("blue",), (("green",),), name="parts=blue", metadata=PART)
TINT = Concept(("red",), (("blue",),), name="tint=red", metadata={**PART, "kind": "colour", "character": "tint", "state": "red"})


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
            red = SampleQuestion(RED, "part", "block", mask=lambda mask=mask: mask)
            blue = SampleQuestion(BLUE, "presence", "blue", present=False)
            tint = SampleQuestion(TINT, "state", "tint")
            yield Sample(f"{number}.png", picture, (red, blue, tint))

    return Dataset("planted", "1", stream, count, Concept(("red",)))


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(size=64)).with_settings(size=64)


@pytest.fixture(scope="module")
def observed(localizer: Localizer) -> list[Observed]:
    found, errors = observe(dataset(40), localizer)
    assert errors == []
    return found


def test_what_is_observed(observed: list[Observed]) -> None:
    parts, absent, states = observed[::3], observed[1::3], observed[2::3]
    assert all(item.judged is not None and item.judged.right and item.judged.present for item in parts)
    assert not any(item.judged is None or item.judged.right or item.judged.present for item in absent)
    assert all(item.distance is not None and item.distance < 0.1 for item in parts)
    assert {item.trait for item in parts} == {"colours:parts=red"}
    assert {item.trait for item in states} == {"colours:tint"}
    # A state that was set without a mask says which state, and not where.
    assert all(item.judged is None and item.shares is None and (item.probability or 0) > 0.5 for item in states)


def test_shares_of_the_picture_that_inner_masks_hold(observed: list[Observed], localizer: Localizer) -> None:
    sample = next(iter(dataset(1)))
    heights = relative(localizer.locate(sample.image, RED).heatmap)
    size = observed[0].size
    assert size is not None
    np.testing.assert_allclose(size, [(heights >= level).mean() for level in MASK_LEVELS], atol=1e-9)


def test_masks_of_truth_values_are_read_as_well(localizer: Localizer) -> None:
    def stream() -> Iterator[Sample]:
        for sample in dataset(3):
            question = sample.questions[0]
            assert question.mask is not None
            drawn = question.mask() == 255
            yield replace(sample, questions=(replace(question, mask=lambda drawn=drawn: drawn),))

    found, _ = observe(replace(dataset(3), stream=stream), localizer)
    assert all(item.judged is not None and item.judged.right and item.shares is not None for item in found)


def test_conformal_limits_per_trait(observed: list[Observed]) -> None:
    found = fit_conformal(observed, 0.2, {"size": 64})
    assert set(found.inner) == set(found.outer) == {"colours:parts=red"}
    assert set(found.states) == {"colours:tint"}
    assert found.labelled["colours:parts=red"] == 40
    assert 0 <= found.inner["colours:parts=red"] <= 1
    with pytest.raises(DataError, match=r"needs at least 99 labelled pictures .*; there are 40"):
        fit_conformal(observed, 0.01, {})
    assert [item.alpha for item in fit_guarantees(observed, (0.2, 0.01, 0.1), {})] == [0.1, 0.2]
    with pytest.raises(DataError, match="needs at least 99"):
        fit_guarantees(observed, (0.01,), {})


def test_what_is_promised_of_a_map(observed: list[Observed], localizer: Localizer) -> None:
    limits = fit_conformal(observed, 0.2, localizer.conditions())
    sample = next(iter(dataset(1)))
    mask = sample.questions[0].mask
    assert mask is not None
    part, state = localizer.locate_all([sample.image], [RED, TINT])[0]
    promised = limits.guarantee(part)
    assert promised.states is None
    assert promised.inner is not None
    assert promised.outer is not None
    assert (promised.outer | ~promised.inner).all()
    assert promised.outer[mask() == 255].all()
    assert limits.guarantee(state).states == ("red",)
    assert limits.guarantee(localizer.locate(sample.image, BLUE)).inner is None
    assert promised.to_dict()["inner"]["size"] == [64, 64]
    with pytest.raises(ConfigurationError, match="fitted with size 64, the maps were made with 32"):
        limits.guarantee(localizer.with_settings(size=32).locate(sample.image, RED))


def test_rules_tell_present_from_absent(observed: list[Observed], localizer: Localizer) -> None:
    rules = fit_trust(observed, localizer.conditions())
    assert rules.weights_hash == localizer.backbone.weights_hash
    assert rules.facts["pictures"] == 40
    sure = Localizer(localizer.backbone, localizer.settings, rules)
    sample = next(iter(dataset(1)))
    red, blue = sure.locate_all([sample.image], [RED, BLUE])[0]
    assert red.certificate.calibrated
    assert (red.certificate.confidence or 0) > (blue.certificate.confidence or 0)
    assert red.certificate.verdict == "clear"
    assert blue.certificate.verdict != "clear"
    other = sure.with_settings(gamma=0.5).locate(sample.image, RED).certificate
    assert not other.calibrated
    with pytest.raises(DataError):
        fit_trust([], {})


def test_agreement_is_observed_where_it_is_asked_for(localizer: Localizer) -> None:
    found, _ = observe(dataset(2), localizer, careful=True)
    assert all(item.judged is None or item.judged.facts.agreement > 0.5 for item in found[::3])
    assert all(np.isnan(item.judged.facts.agreement) for item in observe(dataset(1), localizer)[0] if item.judged is not None)


def test_pictures_of_other_things_teach_absence(tmp_path: Path, localizer: Localizer) -> None:
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 200)).save(tmp_path / f"{number}.png")
    data = without(dataset(3), sorted(tmp_path.glob("*.png")))
    assert len(data) == 5
    found, errors = observe(data, localizer)
    assert errors == []
    added = [item.judged for item in found[-2:] if item.judged is not None]
    assert [item.facts.target for item in added] == ["colours:parts=red"] * 2
    assert not any(item.present for item in added)


def test_parts_of_data_sets_are_asked_as_in_use() -> None:
    """A data set's part that has a pack's phrases is the pack's own question; others are marked as parts of the host."""
    from concept_cam import prompts
    from concept_cam.evaluation.datasets.samples import part_concepts
    from concept_cam.evaluation.guarantees import _InUse

    own = part_concepts(["Caudal fin", "gill raker"], "fish", "fish")
    data = Dataset("x", "1", lambda: iter(()), 0, Concept(("a fish",)), {"host": "fish", "pack": "fish"})
    tail = _InUse(data)(SampleQuestion(own["Caudal fin"], "part", "Caudal fin"))
    assert tail == next(concept for concept in prompts.load("fish:parts") if concept.metadata["state"] == "caudal_fin")
    raker = _InUse(data)(SampleQuestion(own["gill raker"], "part", "gill raker"))
    assert (raker.metadata["kind"], raker.metadata["host"], raker.target) == ("part", "fish", own["gill raker"].target)


def test_a_trust_file_holds_rules_and_guarantees(observed: list[Observed], localizer: Localizer, tmp_path: Path) -> None:
    from concept_cam.trust.kept import Trust

    facts = localizer.conditions()
    trust = Trust(fit_trust(observed, facts), fit_guarantees(observed, (0.1, 0.2), facts))
    path = trust.save(tmp_path / "trust.json")
    again = Trust.read(path)
    assert again.to_json() == trust.to_json()
    assert again.at(0.1).inner == trust.guarantees[0].inner
    with pytest.raises(ConfigurationError, match=r"no guarantee at alpha 0.05; fitted: 0.1, 0.2"):
        again.at(0.05)
    again.check(facts)
    with pytest.raises(ConfigurationError, match="fitted with views"):
        again.check({**facts, "views": "mirrored"})
    assert Trust.read(Trust(None, trust.guarantees).save(tmp_path / "limits.json")).rules is None
    for text in (
        "",
        "[]",
        "{}",
        '{"trust": 9}',
        '{"trust": 1, "rules": null, "guarantees": 3}',
        '{"trust": 1, "rules": 5, "guarantees": []}',
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError):
            Trust.read(path)
    assert isinstance(again.rules, Rules)
