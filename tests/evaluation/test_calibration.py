from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from concept_cam.collection.limits import read_limits
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.evaluation.calibration import ModelCall, calibrate, fit_limit, read_calls, read_truth
from concept_cam.exports.survey import Label


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calls whose chance to be right is their probability."""
    g = np.random.default_rng(seed)
    probability = g.uniform(0.3, 1.0, count)
    return probability, g.random(count) < probability


def test_the_limit_is_the_lowest_that_holds() -> None:
    values, right = drawn(60)
    limit = fit_limit(values, right, target=0.8, confidence=0.8)
    assert limit.value is not None

    def bound(cut: float) -> float:
        kept = values >= cut
        hits, count = right[kept].sum(), kept.sum()
        return float(stats.binomtest(int(hits), int(count)).proportion_ci(confidence_level=0.6, method="exact").low)

    assert bound(limit.value) >= 0.8
    assert limit.low == pytest.approx(bound(limit.value))
    assert all(bound(cut) < 0.8 for cut in values[values < limit.value])
    assert limit.kept == (values >= limit.value).sum()
    assert limit.accuracy == right[values >= limit.value].mean()


def test_calls_above_the_limit_keep_the_promise() -> None:
    kept_right, kept = 0, 0
    for seed in range(40):
        values, right = drawn(50, seed)
        limit = fit_limit(values, right, target=0.8, confidence=0.8)
        fresh, truth = drawn(400, 1000 + seed)
        if limit.value is not None:
            kept_right += truth[fresh >= limit.value].sum()
            kept += (fresh >= limit.value).sum()
    assert kept > 1000
    assert kept_right / kept >= 0.79


def test_held_out_accuracy_is_what_leaving_each_out_gives() -> None:
    values, right = drawn(30, 5)
    limit = fit_limit(values, right, target=0.7, confidence=0.6)
    made = []
    for i in range(30):
        rest = np.arange(30) != i
        other = fit_limit(values[rest], right[rest], target=0.7, confidence=0.6).value
        if other is not None and values[i] >= other:
            made.append(right[i])
    assert limit.expected_kept == pytest.approx(len(made) / 30)
    assert limit.expected_accuracy == pytest.approx(np.mean(made))


def test_ties_enter_together() -> None:
    limit = fit_limit([0.9] * 10 + [0.5] * 10, [True] * 10 + [False] * 5 + [True] * 5, target=0.8, confidence=0.5)
    assert limit.value == 0.9
    assert limit.kept == 10


def test_when_nothing_helps_no_call_is_made() -> None:
    limit = fit_limit([0.9, 0.8, 0.7], [False, False, True])
    assert limit.value is None
    assert limit.kept == 0
    assert np.isnan(limit.accuracy)
    assert limit.expected_kept == 0.0


def test_wrong_input() -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        fit_limit([0.5], [True], target=95)
    with pytest.raises(DataError, match="no labelled call"):
        fit_limit([float("nan")], [True])
    with pytest.raises(DataError, match="2 values and 1 judgements"):
        fit_limit([0.5, 0.6], [True])


def calls(count: int = 40) -> tuple[list[ModelCall], list[Label]]:
    said, truth = [], []
    for number in range(count):
        name = f"fish{number:02}.jpg"
        wrong = number % 4 == 0
        said.append(ModelCall(name, "caudal_fin_shape", "forked", 0.4 if wrong else 0.9, 0.1, "fish"))
        truth.append(Label(name, "caudal_fin_shape", "rounded" if wrong else "forked"))
        said.append(ModelCall(name, "parts", "barbels", 0.9, 0.05 if wrong else 0.3, "fish", part=True))
        truth.append(Label(name, "parts", "head"))
        if not wrong:
            truth.append(Label(name, "parts", "barbels"))
    said.append(ModelCall("fish01.jpg", "pattern", "plain", 0.95, 0.1, "fish"))
    truth.append(Label("fish01.jpg", "pattern", "plain"))
    return said, truth


def test_characters_and_parts_get_limits_of_their_own() -> None:
    found = calibrate(*calls(), target=0.9)
    assert set(found.limits) == {"*", "* parts", "caudal_fin_shape", "parts=barbels", "pattern"}
    tail = found.limits["caudal_fin_shape"]
    assert (tail.measure, tail.value, tail.labelled, tail.accuracy, tail.pooled) == (
        "probability",
        0.9,
        40,
        1.0,
        False,
    )
    barbels = found.limits["parts=barbels"]
    assert (barbels.measure, barbels.value) == ("score", 0.3)
    few = found.limits["pattern"]
    assert few.pooled
    assert few.value == found.limits["*"].value
    assert few.labelled == few.kept == 1


def test_limits_are_written_and_read_back(tmp_path: Path) -> None:
    found = calibrate(*calls(), facts={"model": "demo", "weights_hash": "abc"})
    path = found.save(tmp_path / "limits.yaml")
    again = read_limits(path)
    assert again.facts == {"model": "demo", "weights_hash": "abc"}
    assert again.limits.keys() == found.limits.keys()
    for name, limit in found.limits.items():
        assert str(again.limits[name]) == str(limit)
    path.write_text("schema: 7\n", encoding="utf-8")
    with pytest.raises(DataError, match="schema 1"):
        read_limits(path)
    path.write_text("schema: 1\ntarget: 0.9\nconfidence: 0.8\nlimits: {x: {colour: 1}}\n", encoding="utf-8")
    with pytest.raises(DataError, match="limit of 'x'"):
        read_limits(path)


def test_names_that_do_not_meet_are_told() -> None:
    said, truth = calls(20)
    with pytest.raises(DataError, match=r"no picture of the run\. Did you mean 'fish0"):
        calibrate(said, [Label("fish_00.jpg", "caudal_fin_shape", "forked")])
    with pytest.raises(DataError, match="the labels are of"):
        calibrate(said, [Label("fish00.jpg", "tail", "forked")])
    with pytest.raises(DataError, match="0 calls"):
        calibrate([], truth)


def test_tables(tmp_path: Path) -> None:
    table = tmp_path / "calls.csv"
    table.write_text(
        "file_name,character,state,probability,true_state\na.jpg,tail,forked,0.9,forked\nb.jpg,tail,forked,0.4,rounded\nc.jpg,tail,forked,0.8,\n",
        encoding="utf-8",
    )
    said, facts = read_calls(table)
    assert facts == {}
    assert [(call.file_name, call.probability) for call in said] == [
        ("a.jpg", 0.9),
        ("b.jpg", 0.4),
        ("c.jpg", 0.8),
    ]
    truth = read_truth(table)
    assert [(label.file_name, label.state) for label in truth] == [("a.jpg", "forked"), ("b.jpg", "rounded")]
    assert calibrate(said, truth, target=0.5, confidence=0.5).limits["*"].labelled == 2
    table.write_text("file_name,state\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'character'"):
        read_calls(table)
    table.write_text("file_name,character,state,probability\na.jpg,tail,forked,high\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2"):
        read_calls(table)
    with pytest.raises(DataError, match="kind of label file"):
        read_truth(tmp_path / "labels.txt")
