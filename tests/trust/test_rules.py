"""Rules on planted evidence, and fits to planted truth."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from concept_cam import Concept
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.trust.evidence import Evidence
from concept_cam.trust.fitting import Judged, fit_rules, held_out
from concept_cam.trust.logistic import FEATURES, Logistic, MapFacts, features_of
from concept_cam.trust.rules import Rules, judge, key_of, kind_of
from concept_cam.trust.verdicts import ABSENT, CLEAR, DOUBTFUL, OFF_PROMPT

GOOD = Evidence(0.2, 0.4, 0.1, 1 / 41, 1 / 41, 2 / 41, 5.0, 0.8, 0.2, 0.0, 0.02, 0.9, 3.0, 0.95, 0.1)
PART = MapFacts(kind="part", host="fish", target="fin", likeness=1.0)


@pytest.mark.parametrize(
    ("change", "verdict", "word"),
    [
        ({}, CLEAR, "not calibrated"),
        ({"p_value": 0.9, "p_plain": 0.8}, OFF_PROMPT, "80% of unrelated words"),
        ({"p_value": 0.9}, CLEAR, ""),  # Its own word rises there.
        ({"mass": 0.05}, OFF_PROMPT, "nothing stands out"),
        ({"dependence_host": 0.99, "dependence_siblings": 0.99}, OFF_PROMPT, "whole subject"),
        ({"dependence_host": 0.99, "dependence_siblings": float("nan")}, OFF_PROMPT, "whole subject"),
        ({"dependence_host": 0.99}, CLEAR, ""),  # Its siblings' maps differ: it is about the prompt.
        ({"text": 0.8}, DOUBTFUL, "written words"),
        ({"text": float("nan")}, CLEAR, ""),
        ({"p_anywhere": 0.9}, DOUBTFUL, "somewhere in their own maps"),
    ],
)
def test_verdicts_without_a_fit(change: dict[str, float], verdict: str, word: str) -> None:
    found = judge(dataclasses.replace(GOOD, **change), MapFacts(), Rules())
    assert "was not calibrated for this model" in found.reason, "whatever the verdict, a reader must know that no figure stands behind it"
    assert math.isnan(found.confidence)
    assert found.verdict == verdict
    assert word in found.reason
    assert math.isnan(found.confidence)


@pytest.mark.parametrize(
    ("facts", "verdict", "word"),
    [
        ({"probability": 0.9}, CLEAR, "not calibrated"),
        ({"probability": 2e-5, "likelier": "forked"}, DOUBTFUL, "of what was named, 'forked' is likelier in the picture; how often"),
        ({"probability": 0.4}, DOUBTFUL, "together likelier"),
        ({"probability": 0.4, "kind": "part"}, CLEAR, ""),  # It is the likeliest at its peak, which asks where it is, not whether.
        ({"probability": 0.4, "kind": "part", "likelier": "head"}, DOUBTFUL, "'head' is likelier at the peak"),
        ({"nearer": 0.01, "nearest": "plant", "group": "fish"}, DOUBTFUL, "looks more like another group (plant)"),
        ({"nearer": 0.0, "nearest": "fish", "group": "fish"}, CLEAR, ""),
    ],
)
def test_without_a_fit_clear_is_what_nothing_speaks_against(facts: dict[str, object], verdict: str, word: str) -> None:
    found = judge(GOOD, dataclasses.replace(MapFacts(kind="state"), **facts), Rules())  # type: ignore[arg-type]
    assert (found.verdict, word in found.reason) == (verdict, True)
    # What was fitted says how much such a thing weighs.
    known = dataclasses.replace(PART, probability=0.99, target="easy", likelier="hard")
    assert judge(dataclasses.replace(GOOD, strength=5.0), known, fit_rules(planted())).verdict == CLEAR


def planted(count: int = 600, seed: int = 0) -> list[Judged]:
    """Maps of two targets, four a picture: strength says whether they are right, the probability whether the target is there; one target is
    found less often than its maps let hope.
    """
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        target = ("easy", "hard")[number % 2]
        strength, logit = rng.normal(size=2)
        right = strength + 0.3 * rng.normal() > (1.0 if target == "hard" else -0.5)
        present = bool(right or logit > 0)
        evidence = dataclasses.replace(GOOD, strength=strength if rng.random() < 0.95 else float("nan"), peak=float(rng.uniform(3, 6)))
        facts = MapFacts(probability=1 / (1 + math.exp(-3 * logit)), kind="part", host="fish", target=target, likeness=1.0)
        found.append(Judged(f"{number // 4}.png", evidence, facts, f"a {target} fin", bool(right), present))
    return found


def arrays(judged: list[Judged]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    features = np.stack([features_of(item.found, item.facts) for item in judged])
    right, present = np.array([item.right for item in judged]), np.array([item.present for item in judged])
    return features, right, present, [item.facts.target for item in judged]


def test_a_logistic_model_finds_what_was_planted() -> None:
    features, right, _, targets = arrays(planted())
    model = Logistic.fit(features, right, targets)
    assert max(model.weights, key=lambda name: abs(model.weights[name])) == "strength"
    assert model.targets["easy"] > 0.5 > -0.5 > model.targets["hard"]
    sklearn = pytest.importorskip("sklearn.linear_model")
    used = [list(FEATURES).index(name) for name in model.weights]
    own = features[:, used]
    mean = np.nanmean(own, axis=0)
    standard = (np.where(np.isnan(own), mean, own) - mean) / np.nanstd(own, axis=0)
    inputs = np.concatenate([standard, np.array([[name == "easy", name == "hard"] for name in targets])], axis=1)
    other = sklearn.LogisticRegression(C=1.0, max_iter=2000).fit(inputs, right)
    np.testing.assert_allclose([*model.weights.values(), *model.targets.values()], other.coef_[0], atol=2e-2)


def test_what_can_only_speak_for_a_map_is_never_held_against_it() -> None:
    features, right, _, targets = arrays(planted())
    names = list(FEATURES)
    against = features.copy()
    # In these maps, by chance, the picture is less like the target where the peak is right, and further from what is known.
    noise = np.random.default_rng(1).normal(size=(2, len(right)))
    against[:, names.index("image")] = np.where(right, -0.5, 0.5) + noise[0]
    against[:, names.index("domain")] = np.where(right, 0.5, -0.5) + noise[1]
    model = Logistic.fit(against, right, targets)
    assert model.weights["image"] == 0.0
    assert model.weights["domain"] == 0.0
    assert model.weights["strength"] > 1.0
    for_it = features.copy()
    for_it[:, names.index("image")] = np.where(right, 0.5, -0.5) + noise[0]
    assert Logistic.fit(for_it, right, targets).weights["image"] > 0.3


def test_one_map_and_many_are_judged_alike() -> None:
    judged = planted(80)
    features, right, _, targets = arrays(judged)
    model = Logistic.fit(features, right, targets)
    many = model.of(features, targets)
    for item, value in zip(judged, many):
        assert model(features_of(item.found, item.facts), item.facts) == pytest.approx(value)
    half = dataclasses.replace(judged[0].facts, likeness=0.5)
    odds = [math.log(p / (1 - p)) for p in (model(features[0], judged[0].facts), model(features[0], half))]
    assert odds[0] - odds[1] == pytest.approx(0.5 * model.targets["easy"], rel=1e-6)


def test_held_out_probabilities_are_of_models_that_did_not_see_the_picture() -> None:
    judged = planted(200)
    _, right, _, _ = arrays(judged)
    found = held_out(judged, right)
    swapped = [dataclasses.replace(item, right=not item.right) if item.picture == "3.png" else item for item in judged]
    _, other, _, _ = arrays(swapped)
    own = np.array([item.picture == "3.png" for item in judged])
    np.testing.assert_allclose(found[own], held_out(swapped, other)[own])
    assert not np.allclose(found[~own], held_out(swapped, other)[~own])


def test_confidence_is_of_a_target_that_is_there_and_is_found() -> None:
    judged = planted()
    rules = fit_rules(judged)
    fit = rules.fits["part"]
    features, right, present, targets = arrays(judged)
    there = [name for name, one in zip(targets, present) if one]
    assert fit.found == Logistic.fit(features[present], right[present], there)
    for item in judged[:20]:
        told = judge(item.found, item.facts, rules)
        row = features_of(item.found, item.facts)
        assert told.presence == pytest.approx(fit.presence(row, item.facts))
        assert told.confidence == pytest.approx(told.presence * fit.found(row, item.facts))
    # Where every target that is there is found, nothing is learnt of peaks beside it.
    sure = fit_rules([dataclasses.replace(item, right=item.present) for item in judged]).fits["part"]
    assert sure.found(features[0], judged[0].facts) == pytest.approx(1.0)
    slow = held_out(judged, right, present)
    assert np.mean(slow[present & right]) > np.mean(slow[present & ~right]) + 0.2


def test_fitted_rules_keep_their_promises() -> None:
    rules = fit_rules(planted(3000), precision=0.95, false_absent=0.03)
    fresh = planted(3000, seed=1)
    verdicts = [judge(item.found, item.facts, rules) for item in fresh]
    clear = np.array([found.verdict == CLEAR for found in verdicts])
    absent = np.array([found.verdict == ABSENT for found in verdicts])
    _, right, present, _ = arrays(fresh)
    assert clear.mean() > 0.2
    assert right[clear].mean() >= 0.93
    assert 0.01 <= absent[present].mean() <= 0.05
    assert absent[~present].mean() > absent[present].mean() + 0.1
    assert rules.known["hard"].right < rules.known["easy"].right


def of_group(judged: list[Judged], group: str, nearer: float = 0.0) -> list[Judged]:
    facts = [dataclasses.replace(item.facts, group=group, target=f"{group}:{item.facts.target}", nearer=nearer) for item in judged]
    return [dataclasses.replace(item, picture=f"{group}-{item.picture}", facts=own) for item, own in zip(judged, facts)]


def test_groups_are_fitted_apart() -> None:
    fish, beetles = of_group(planted(600), "fish", 0.05), of_group(planted(600, seed=1), "beetle")
    rules = fit_rules([*fish, *beetles, *of_group(planted(40), "plant")])
    assert set(rules.fits) == {"fish/part", "beetle/part"}  # Forty leaves are too few, and fishes say nothing of them.
    assert rules.fits["fish/part"].found == fit_rules(fish).fits["fish/part"].found
    assert (rules.fits["fish/part"].nearer, rules.fits["beetle/part"].nearer) == (pytest.approx(0.05), 0.0)
    strong = dataclasses.replace(GOOD, strength=5.0)
    sure = dataclasses.replace(PART, probability=0.99, target="fish:easy", group="fish")
    assert judge(strong, sure, rules).verdict == CLEAR
    far = judge(strong, dataclasses.replace(sure, nearer=0.2, nearest="beetle"), rules)
    assert (far.verdict, "another group (beetle)" in far.reason) == (DOUBTFUL, True)
    assert math.isnan(judge(strong, dataclasses.replace(sure, group="plant"), rules).presence)
    # Where no group has enough, they share what was fitted to all of them.
    small = fit_rules([*of_group(planted(44), "fish"), *of_group(planted(44, seed=1), "beetle")])
    assert set(small.fits) == {"part"}
    assert not math.isnan(judge(strong, sure, small).presence)


def test_limits_on_evidence_let_right_maps_pass() -> None:
    judged = [dataclasses.replace(item, found=dataclasses.replace(item.found, p_value=0.5, p_plain=0.1)) for item in planted()]
    assert fit_rules(judged).p_value == pytest.approx(0.1)
    assert fit_rules(planted()).p_value == pytest.approx(2 / 41)  # No lower than what chance among forty words can tell.
    assert fit_rules(planted()).text == 0.0
    assert fit_rules(judged, base=Rules(p_value=0.07)).p_value == 0.07


def test_limits_of_a_fit_spare_every_target() -> None:
    rng = np.random.default_rng(5)
    judged = []
    for item in planted():
        hard, few = item.facts.target == "hard", item.picture in ("0.png", "1.png")
        facts = dataclasses.replace(item.facts, target="few", likeness=1.0) if few else item.facts
        variation = 0.01 if few else rng.uniform(1.0, 2.0) if hard else rng.uniform(4.0, 5.0)
        judged.append(dataclasses.replace(item, found=dataclasses.replace(item.found, variation=variation), facts=facts))
    assert fit_rules(judged).fits["part"].variation == 0.0  # Without a group maps are of all kinds of pictures.
    judged = [dataclasses.replace(item, facts=dataclasses.replace(item.facts, group="fish")) for item in judged]
    fit = fit_rules(judged, false_absent=0.03).fits["fish/part"]
    assert "log variation" in fit.found.weights
    assert "log variation" not in fit.presence.weights
    own = {name: [item.found.variation for item in judged if item.right and item.facts.target == name] for name in ("easy", "hard", "few")}
    assert len(own["few"]) < 30  # Too few for a say of their own, but they count among all.
    together = np.quantile([value for values in own.values() for value in values], 0.01)
    assert fit.variation == pytest.approx(min(together, np.quantile(own["easy"], 0.01), np.quantile(own["hard"], 0.01)))
    there = held_out(judged, np.array([item.present for item in judged]), leave_out=("log variation",))
    names = np.array([item.facts.target if item.present else "" for item in judged])
    shares = {name: np.quantile(there[names == name], 0.03) for name in ("easy", "hard")}
    assert fit.absent == pytest.approx(min(*shares.values(), np.quantile(there[names != ""], 0.03)))
    unknown = [dataclasses.replace(item, found=dataclasses.replace(item.found, variation=math.nan)) for item in of_group(planted(), "fish")]
    assert fit_rules(unknown).fits["fish/part"].variation == 0.0


def test_how_much_writing_is_too_much_is_a_limit_of_each_fit() -> None:
    def lettered(judged: list[Judged], share: float) -> list[Judged]:
        rng = np.random.default_rng(0)
        return [dataclasses.replace(item, found=dataclasses.replace(item.found, text=share * (rng.random() < 0.1))) for item in judged]

    rules = fit_rules([*lettered(of_group(planted(), "fish"), 0.3), *lettered(of_group(planted(seed=1), "beetle"), 0.9)])
    assert rules.fits["fish/part"].text == pytest.approx(0.3)
    assert rules.fits["beetle/part"].text == 0.5  # No laxer than the defaults.
    found = dataclasses.replace(GOOD, strength=5.0, text=0.4)
    for group, verdict in (("fish", DOUBTFUL), ("beetle", CLEAR)):
        told = judge(found, dataclasses.replace(PART, probability=0.99, target=f"{group}:easy", group=group), rules)
        assert (told.verdict, "written words" in told.reason) == (verdict, group == "fish")


@pytest.mark.parametrize(
    ("variation", "domain", "there", "verdict", "word"),
    [
        (
            3.0,
            9.0,
            False,
            ABSENT,
            "with a probability under 0.01",
        ),  # The model tells one cell from another: it can say that the target is not there.
        (
            0.5,
            0.5,
            False,
            ABSENT,
            "with a probability under 0.01",
        ),  # Little to be told from anything, in a picture of a kind that it knows.
        (0.5, 9.0, False, OFF_PROMPT, "varies by 0.50 logits, where a target is found by 1.00 or more"),
        (0.5, math.nan, False, OFF_PROMPT, "nothing stands out"),
        (0.5, 0.5, True, OFF_PROMPT, "nothing stands out"),
        (3.0, 0.5, True, CLEAR, "are right"),
        (math.nan, 0.5, True, CLEAR, "are right"),
    ],
)
def test_a_blind_model_does_not_say_that_something_is_absent(variation: float, domain: float, there: bool, verdict: str, word: str) -> None:
    rules = fit_rules(planted())
    rules = dataclasses.replace(rules, fits={"part": dataclasses.replace(rules.fits["part"], domain=2.0, variation=1.0, absent=0.3)})
    found = dataclasses.replace(GOOD, strength=5.0 if there else -5.0, variation=variation)
    told = judge(found, dataclasses.replace(PART, probability=0.99 if there else 1e-6, target="easy", domain=domain), rules)
    assert (told.verdict, word in told.reason) == (verdict, True)


def test_limits_of_a_fit_decide() -> None:
    rules = fit_rules(planted(), weights_hash="abc", facts={"size": 384})
    strong, weak = dataclasses.replace(GOOD, strength=5.0), dataclasses.replace(GOOD, strength=-5.0)
    sure, unsure = (dataclasses.replace(PART, probability=value, target="easy") for value in (0.99, 0.0001))
    assert judge(strong, sure, rules).verdict == CLEAR
    assert "this target's over all" in judge(strong, sure, rules).reason
    assert judge(weak, unsure, rules).verdict in (ABSENT, DOUBTFUL)
    fit = rules.fits["part"]
    far = dataclasses.replace(rules, fits={"part": dataclasses.replace(fit, domain=2.0)})
    assert judge(strong, dataclasses.replace(sure, domain=3.0), far).verdict == DOUBTFUL
    assert judge(strong, dataclasses.replace(sure, domain=1.0), far).verdict == CLEAR
    # Another kind of question was not measured.
    assert "not calibrated" in judge(strong, dataclasses.replace(sure, kind="state"), rules).reason


def test_rules_hold_under_what_they_were_fitted_under() -> None:
    rules = fit_rules(planted(), facts={"model": "demo", "size": 384, "pictures": 9})
    assert rules.under({"size": 384, "model": "the same under another name"}) is rules
    other = rules.under({"size": 512})
    assert other.fits == {}
    assert other.p_value == rules.p_value
    with pytest.raises(ConfigurationError, match=r"fitted with size 384, the maps are made with 512.*concept-cam calibrate"):
        rules.check({"size": 512})


def test_rules_are_read_back(tmp_path: Path) -> None:
    rules = fit_rules(planted(), weights_hash="abc", hosts=("fish",))
    path = tmp_path / "trust.json"
    path.write_text(rules.to_json(), encoding="utf-8")
    again = Rules.read(path)
    assert again.to_json() == rules.to_json()
    assert (again.hosts, again.known, again.fits["part"].domain) == (("fish",), rules.known, math.inf)
    grouped = fit_rules(of_group(planted(), "fish", 0.05))
    path.write_text(grouped.to_json(), encoding="utf-8")
    assert Rules.read(path).fits["fish/part"].nearer == pytest.approx(0.05)
    content = rules.to_json()
    wrong = (
        "",
        "{}",
        "[]",
        '{"version": 99, "words": 1}',
        content.replace('"strength"', '"strange"'),
        content.replace('"clear"', '"cleer"'),
        content.replace('"variation": 0.0', '"variation": null'),
        content.replace('"text": 0.0', '"text": "none"'),
    )
    for text in wrong:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError):
            Rules.read(path)


def test_too_few_maps_are_refused() -> None:
    features, right, _, _ = arrays(planted(15))
    with pytest.raises(DataError, match="at least ten of each"):
        Logistic.fit(features, right)
    with pytest.raises(DataError, match=r"at least 30 of each, of one kind"):
        fit_rules(planted(40))


def test_features_stand_in_the_order_of_the_table() -> None:
    found = dict(zip(FEATURES, features_of(GOOD, MapFacts(0.5, 1.5, 0.75))))
    assert found["logit probability"] == pytest.approx(0.0)
    assert (found["domain"], found["agreement"], found["mass"]) == (1.5, 0.75, 0.9)
    assert found["log variation"] == pytest.approx(math.log(3.0))
    assert found["log p_value"] == pytest.approx(math.log(1 / 41))


def test_rules_of_one_host_do_not_judge_another() -> None:
    rules = fit_rules(planted(), hosts=("fish",))
    strong = dataclasses.replace(GOOD, strength=5.0)
    sure = dataclasses.replace(PART, probability=0.99, target="easy")
    assert judge(strong, sure, rules).verdict == CLEAR
    assert not math.isnan(judge(strong, sure, rules).confidence)
    bird = dataclasses.replace(sure, host="bird")
    other = judge(strong, bird, rules)
    assert other.verdict == DOUBTFUL
    assert "fitted for fish; what it knows of bird was not measured" in other.reason
    free = judge(strong, MapFacts(0.99, 0.9), rules)
    assert free.verdict == CLEAR
    assert math.isnan(free.confidence)
    assert judge(dataclasses.replace(GOOD, p_value=0.9, p_plain=0.9), bird, rules).verdict == OFF_PROMPT


def test_kinds_and_names_of_questions() -> None:
    part = Concept(("the head of a fish",), name="parts=head", metadata={"kind": "part", "pack": "fish"})
    state = Concept(("a forked tail",), name="tail=forked", metadata={"kind": "shape", "pack": "fish"})
    assert [kind_of(item) for item in (part, state, Concept(("a dog",)))] == ["part", "state", "thing"]
    assert [key_of(item) for item in (part, Concept(("a dog",)))] == ["fish:parts=head", "a dog"]
