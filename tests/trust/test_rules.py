"""Rules on planted evidence, and fits to planted truth."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.trust.evidence import Evidence
from concept_cam.trust.rules import FEATURES, Logistic, MapFacts, Rules, features_of, fit_rules, judge
from concept_cam.trust.verdicts import ABSENT, CLEAR, DOUBTFUL, OFF_PROMPT

GOOD = Evidence(0.2, 0.4, 0.1, 1 / 41, 2 / 41, 5.0, 0.8, 0.2, 0.0, 0.02)


@pytest.mark.parametrize(
    ("change", "verdict", "word"),
    [
        ({}, CLEAR, "not calibrated"),
        ({"p_value": 0.9}, OFF_PROMPT, "90% of unrelated words"),
        ({"dependence_host": 0.99, "dependence_siblings": 0.99}, OFF_PROMPT, "whole subject"),
        ({"dependence_host": 0.99, "dependence_siblings": float("nan")}, OFF_PROMPT, "whole subject"),
        ({"dependence_host": 0.99}, CLEAR, ""),  # Its siblings' maps differ: it is about the prompt.
        ({"text": 0.8}, DOUBTFUL, "written words"),
        ({"p_anywhere": 0.9}, DOUBTFUL, "somewhere in their own maps"),
    ],
)
def test_verdicts_without_a_fit(change: dict[str, float], verdict: str, word: str) -> None:
    found = judge(dataclasses.replace(GOOD, **change), MapFacts(), Rules())
    assert found.verdict == verdict
    assert word in found.reason
    assert math.isnan(found.confidence)


def planted(count: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps whose strength says whether they are right, and whose probability says whether the target is there."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, len(FEATURES)))
    names = list(FEATURES)
    right = features[:, names.index("strength")] + 0.3 * rng.normal(size=count) > 0
    present = right | (features[:, names.index("logit probability")] > 0)
    features[rng.random(features.shape) < 0.1] = np.nan
    return features, right, present


def test_a_logistic_model_finds_what_was_planted() -> None:
    features, right, _ = planted()
    model = Logistic.fit(features, right)
    assert max(model.weights, key=lambda name: abs(model.weights[name])) == "strength"
    sklearn = pytest.importorskip("sklearn.linear_model")
    mean = np.nanmean(features, axis=0)
    filled = np.where(np.isnan(features), mean, features)
    standard = (filled - mean) / np.nanstd(features, axis=0)
    other = sklearn.LogisticRegression(C=1.0, max_iter=2000).fit(standard, right)
    np.testing.assert_allclose(list(model.weights.values()), other.coef_[0], atol=2e-2)


def test_fitted_rules_keep_their_promises() -> None:
    features, right, present = planted(4000)
    rules = fit_rules(features[:2000], right[:2000], present[:2000], precision=0.95, false_absent=0.03)
    verdicts = []
    for row in features[2000:]:
        found = dataclasses.replace(GOOD, strength=float(row[7]))
        facts = MapFacts(probability=1 / (1 + math.exp(-row[10])) if not math.isnan(row[10]) else float("nan"))
        verdicts.append((rules.confidence(found, facts), rules.presence(found, facts)))  # type: ignore[misc]
    sure = np.array([value for value, _ in verdicts]) >= rules.clear
    assert sure.mean() > 0.2
    assert right[2000:][sure].mean() >= 0.9
    assert rules.confidence is not None


def test_limits_of_a_fit_decide() -> None:
    features, right, present = planted()
    rules = fit_rules(features, right, present, weights_hash="abc", facts={"pictures": 600})
    strong, weak = dataclasses.replace(GOOD, strength=5.0), dataclasses.replace(GOOD, strength=-5.0)
    assert judge(strong, MapFacts(0.99), rules).verdict == CLEAR
    assert judge(weak, MapFacts(0.0001), rules).verdict in (ABSENT, DOUBTFUL)
    far = dataclasses.replace(rules, domain=2.0)
    assert judge(strong, MapFacts(0.99, 3.0), far).verdict == DOUBTFUL
    assert judge(strong, MapFacts(0.99, 1.0), far).verdict == CLEAR


def test_rules_are_read_back(tmp_path: Path) -> None:
    features, right, present = planted()
    rules = fit_rules(features, right, present, weights_hash="abc")
    path = tmp_path / "trust.json"
    path.write_text(rules.to_json(), encoding="utf-8")
    assert Rules.read(path) == rules
    for wrong in ("", "{}", "[]", '{"version": 99, "words": 1}'):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(DataError, match=r"holds (no )?rules of"):
            Rules.read(path)


def test_too_few_maps_are_refused() -> None:
    features, right, _ = planted(15)
    with pytest.raises(DataError, match="at least ten of each"):
        Logistic.fit(features, right)


def test_features_stand_in_the_order_of_the_table() -> None:
    found = features_of(GOOD, MapFacts(0.5, 1.5))
    assert dict(zip(FEATURES, found))["logit probability"] == pytest.approx(0.0)
    assert dict(zip(FEATURES, found))["domain"] == 1.5
    assert dict(zip(FEATURES, found))["log p_value"] == pytest.approx(math.log(1 / 41))


def test_rules_of_one_host_do_not_judge_another() -> None:
    features, right, present = planted()
    rules = fit_rules(features, right, present, hosts=("fish",))
    strong = dataclasses.replace(GOOD, strength=5.0)
    assert judge(strong, MapFacts(0.99), rules, "fish").verdict == CLEAR
    assert not math.isnan(judge(strong, MapFacts(0.99), rules, "fish").confidence)
    other = judge(strong, MapFacts(0.99), rules, "bird")
    assert other.verdict == DOUBTFUL
    assert "fitted for fish" in other.reason
    free = judge(strong, MapFacts(0.99, 0.9), rules, None)
    assert free.verdict == CLEAR
    assert math.isnan(free.confidence)
    assert judge(dataclasses.replace(GOOD, p_value=0.9), MapFacts(), rules, "bird").verdict == OFF_PROMPT
