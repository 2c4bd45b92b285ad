from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from concept_cam.collection.calls import (
    ABSTENTION_REASONS,
    Limits,
    call_part,
    call_state,
    host_is_missing,
    host_share,
    is_absent,
)
from concept_cam.collection.limits import Calibration, Limit
from concept_cam.core.errors import ConfigurationError
from concept_cam.trust.certified import Certificate
from concept_cam.trust.evidence import Evidence
from concept_cam.trust.logistic import MapFacts


def test_the_best_state_is_called_with_probability_and_margin() -> None:
    call = call_state(["forked", "round", "square"], [0.2, 0.7, 0.1], [0.01, 0.3, -0.2], 0.5)
    assert (call.state, call.best_state, call.reason, call.limit) == ("round", "round", None, 0.5)
    assert call.probability == 0.7
    assert call.margin == pytest.approx(0.5)
    assert call.score == 0.3
    assert call.probabilities == {"forked": 0.2, "round": 0.7, "square": 0.1}


@pytest.mark.parametrize(("probability", "called"), [(0.5, True), (0.499999, False)])
def test_a_call_at_its_limit_is_made(probability: float, called: bool) -> None:
    call = call_state(["a", "b", "c"], [probability, 0.3, 0.1], [0, 0, 0], 0.5)
    assert (call.state == "a") is called
    assert call.best_state == "a"
    assert call.abstained is not called
    assert call.reason in (None, "low_probability")


def test_of_equal_states_the_first_wins() -> None:
    assert call_state(["a", "b"], [0.5, 0.5], [0, 0], 0.0).best_state == "a"


def test_a_character_is_narrowed_down_where_one_state_cannot_be_called() -> None:
    notched = call_state(["round", "lunate", "forked"], [0.04, 0.47, 0.49], [0, 0, 0], 0.5)
    assert (notched.state, notched.reason, notched.likely) == (None, "low_probability", ("forked", "lunate"))
    assert notched.likely_probability == pytest.approx(0.96)
    sure = call_state(["round", "lunate", "forked"], [0.03, 0.05, 0.92], [0, 0, 0], 0.95)
    assert (sure.state, sure.likely) == (None, ("forked",))
    for nothing in (
        call_state(["round", "forked"], [0.5, 0.5], [0, 0], 0.0),
        call_state(["round", "forked"], [0.01, 0.99], [0, 0], 0.0, missing_host=True),
        call_state(["round", "forked"], [0.01, 0.99], [0, 0], 0.0, absent=True),
        call_state(["round", "forked"], [math.nan, math.nan], [0, 0], 0.0),
        call_part("tail", ["tail", "head"], [0.99, 0.01], 0.3, 0.0),
    ):
        assert (nothing.likely, nothing.likely_probability) == ((), None)


def test_without_a_host_nothing_is_called() -> None:
    limits = Limits(host=0.6)
    assert host_is_missing(0.59, limits)
    assert not host_is_missing(0.6, limits)
    assert host_is_missing(math.nan, limits)
    assert not host_is_missing(0.0, Limits(host=0))
    call = call_state(["a", "b"], [0.99, 0.01], [1, 0], 0.5, missing_host=True, host_limit=0.6)
    assert (call.state, call.best_state, call.reason, call.limit) == (None, "a", "no_host", 0.6)
    part = call_part("eye", ["eye", "head"], [0.9, 0.1], 3.0, 0.0, missing_host=True)
    assert (part.state, part.reason) == (None, "no_host")


def test_a_part_is_found_by_its_best_patch_not_by_its_share() -> None:
    found = call_part("eye", ["eye", "head", "host"], [0.1, 0.6, 0.3], 0.2, 0.1)
    assert (found.state, found.score, found.limit) == ("eye", 0.2, 0.1)
    assert found.margin == pytest.approx(-0.5)
    rather = call_part("eye", ["eye", "head", "host"], [0.1, 0.6, 0.3], 0.2, 0.1, least_probability=0.5)
    assert (rather.state, rather.reason, rather.limit) == (None, "low_probability", 0.5)
    assert call_part("eye", ["eye"], [], 0.2, 0.1, least_probability=0.5).state == "eye"
    assert call_part("eye", ["eye", "head"], [0.9, 0.1], 0.05, 0.1).reason == "low_score"
    unseen = call_part("eye", ["eye"], [], math.nan, 0.1)
    assert (unseen.reason, unseen.score, unseen.probability) == ("low_score", None, None)


def test_every_reason_is_documented() -> None:
    assert {"no_host", "low_probability", "low_score", "no_region"} <= set(ABSTENTION_REASONS)


def test_limits_of_single_characters_and_of_a_calibration() -> None:
    limits = Limits(probability=0.4, score=0.05, characters={"fish/shape": 0.8, "colour": 0.6, "parts=eye": 0.2})
    assert limits.of("fish", "shape") == 0.8
    assert limits.of("bird", "shape") == 0.4
    assert limits.of("bird", "colour") == 0.6
    assert limits.of("fish", "parts", "eye") == 0.2
    assert limits.of("fish", "parts", "head") == 0.05

    def limit(measure: str, value: float | None) -> Limit:
        return Limit(measure, value, 20, 10, 0.9, 0.8, 0.9, 0.5)

    fitted = {
        "*": limit("probability", 0.7),
        "* parts": limit("score", None),
        "shape": limit("probability", None),
        "parts=eye": limit("score", 0.3),
    }
    found = Limits(host=0.2).with_calibration(Calibration(0.9, 0.8, fitted, {}))
    assert (found.host, found.probability) == (0.2, 0.7)
    assert found.of("fish", "shape") == math.inf
    assert call_state(["a", "b"], [1.0, 0.0], [0, 0], found.of("fish", "shape")).reason == "low_probability"
    assert found.of("fish", "parts", "eye") == 0.3
    assert found.of("fish", "parts", "head") == math.inf
    # Parts have a calibrated score: the states' pooled probability says nothing about them.
    assert found.of_part_probability("fish", "parts", "head") == 0.0
    only_states = Calibration(0.9, 0.8, {"*": limit("probability", None)}, {})
    assert Limits().with_calibration(only_states).of_part_probability("fish", "parts", "head") == 0.5
    assert Limits.from_dict(found.to_dict()) == found


def test_limits_outside_their_range_are_refused() -> None:
    for values in (
        {"host": 1.5},
        {"probability": -0.1},
        {"score": math.nan},
        {"characters": {"x": math.nan}},
    ):
        with pytest.raises(ConfigurationError):
            Limits(**values)


def test_a_part_with_a_limit_of_its_own_is_judged_by_its_score() -> None:
    limits = Limits(part_probability=0.4, characters={"fish/parts=eye": 0.1, "parts=tail": 0.2})
    assert limits.of_part_probability("fish", "parts", "eye") == 0.0
    assert limits.of_part_probability("fish", "parts", "tail") == 0.0
    assert limits.of_part_probability("bird", "parts", "eye") == 0.4


def certified(presence: float | None, **facts: Any) -> Certificate:
    known = MapFacts(**{"kind": "thing", "target": "beetle:host", "group": "beetle", "likeness": 1.0, **facts})
    evidence = Evidence(**{item.name: 0.5 for item in fields(Evidence)})
    return Certificate("doubtful", "planted", 0.5, presence, evidence, facts=known)


def test_a_host_is_there_where_both_answers_say_so() -> None:
    assert host_share(0.9, certified(0.95)) == 0.9
    # The best of all that fits badly: a ship among names of animals.
    assert host_share(0.9, certified(0.02)) == 0.02
    assert host_is_missing(host_share(0.9, certified(0.02)), Limits())
    assert not host_is_missing(host_share(0.9, certified(0.02)), Limits(host=0))


def test_of_what_is_not_there_nothing_is_called_but_that_it_is_absent() -> None:
    gone, there = replace(certified(0.02), verdict="absent"), certified(0.02)
    assert (is_absent(gone), is_absent(there), is_absent(None)) == (True, False, False)
    call = call_state(["red", "blue"], [0.99, 0.01], [1, 0], 0.5, absent=True)
    assert (call.state, call.best_state, call.probability, call.reason) == (None, "red", 0.99, "absent")
    assert call_state(["present", "absent"], [0.1, 0.9], [0, 1], 0.5, absent=True).state == "absent"
    assert call_state(["present", "absent"], [0.9, 0.1], [1, 0], 0.5, absent=True).reason == "absent"
    part = call_part("eye", ["eye", "head"], [0.9, 0.1], 3.0, 0.0, absent=True)
    assert (part.state, part.reason) == (None, "absent")
    # The gravest reason is the one that is given.
    assert call_part("eye", ["eye", "head"], [0.9, 0.1], 3.0, 0.0, absent=True, missing_host=True).reason == "no_host"
    assert call_part("eye", ["eye", "head"], [0.1, 0.9], -3.0, 0.0, absent=True).reason == "absent"


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        certified(None),
        certified(0.02, likeness=0.5),
        certified(0.02, target="beetle:parts=leg", kind="part"),
        certified(0.02, target="fish:host"),
        certified(0.02, target="", group="bird"),
    ],
)
def test_rules_that_know_nothing_of_the_host_have_no_say(certificate: Certificate | None) -> None:
    assert host_share(0.9, certificate) == 0.9


def test_a_limit_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigurationError, match="the limit of the score is nan"):
        Limits(score=math.nan)
    with pytest.raises(ConfigurationError, match="the limit of the fish/shape is nan"):
        Limits(characters={"fish/shape": math.nan})


@pytest.mark.parametrize("area", [math.nan, math.inf, -1.0])
def test_a_smallest_area_that_none_has_is_refused(area: float) -> None:
    from concept_cam.collection.plan import Regions

    with pytest.raises(ConfigurationError, match="min_area"):
        Regions(min_area=area)
