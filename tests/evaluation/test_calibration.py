from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from concept_cam.collection.limits import read_limits
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.evaluation.calibration import ModelCall, calibrate, fit_limit, read_calls, read_truth, strangers, undecided
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


def test_calls_that_no_limit_decides_about_are_left_out_and_counted() -> None:
    said, truth = calls()
    held = [replace(call, file_name=f"rock{number}.jpg", probability=0.99, before_limits=True) for number, call in enumerate(said[:10:2])]
    wrong = [Label(call.file_name, call.character, "rounded") for call in held]
    found, plain = (calibrate(given, labels, target=0.9) for given, labels in ((said + held, truth + wrong), (said, truth)))
    assert {name: limit.to_dict() for name, limit in found.limits.items()} == {
        name: limit.to_dict() for name, limit in plain.limits.items()
    }
    assert (undecided(said + held, truth + wrong), undecided(said, truth), undecided(said + held, truth)) == (len(held), 0, 0)
    # A label that does not count is not counted.
    unread = [replace(label, reviewed=False) for label in wrong]
    assert undecided(said + held, [replace(label, reviewed=True) for label in truth] + unread) == 0
    with pytest.raises(DataError, match="no limit decides about any labelled call \\(5 in all\\)"):
        calibrate(held, wrong)


def test_a_table_says_why_nothing_was_called(tmp_path: Path) -> None:
    table = tmp_path / "calls.csv"
    rows = [f"a.jpg,tail,forked,0.9,{reason}" for reason in ("", "no_host", "absent", "low_probability", "no_place")]
    table.write_text("file_name,character,state,probability,abstained_because\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert [call.before_limits for call in read_calls(table)[0]] == [False, True, True, False, False]
    # Written by hand, and without the state that was not called.
    table.write_text("file_name,character,state,probability,abstained_because\na.jpg,tail,,0.9,No host\n", encoding="utf-8")
    (call,) = read_calls(table)[0]
    assert (call.state, call.before_limits) == ("", True)
    for row, message in (
        ("a.jpg,tail,forked,0.9,rain", "row 2: abstained_because is 'rain'; expected nothing or one of no_host, absent"),
        ("a.jpg,tail,,0.9,low_probability", "row 2: state is missing"),
    ):
        table.write_text(f"file_name,character,state,probability,abstained_because\n{row}\n", encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_calls(table)


PARTS = ("head", "eye", "caudal_fin")


def part_calls(pictures: int = 4) -> list[ModelCall]:
    """Three parts in each picture, and a lateral line that was not called."""
    return [
        ModelCall(f"{number}.jpg", "parts", part, 0.9, 0.5, "fish", part=True, called=part != "lateral_line")
        for number in range(pictures)
        for part in (*PARTS, "lateral_line")
    ]


def exported(call: ModelCall, reviewed: bool = False, alone: bool = False) -> Label:
    return Label(call.file_name, call.character, call.state, call.pack, call.specimen, reviewed, alone)


def test_an_export_that_nobody_looked_at_is_refused_though_a_part_was_not_called() -> None:
    said = part_calls()
    with pytest.raises(DataError, match="all 12 labels equal the model's calls, and none is marked"):
        calibrate(said, [exported(call) for call in said if call.called])
    # A region that somebody removed, without a tick anywhere, is a label all the same.
    kept = [exported(call) for call in said if call.called and (call.file_name, call.state) != ("0.jpg", "eye")]
    found = calibrate(said, kept)
    assert {name: limit.labelled for name, limit in found.limits.items()} == {"* parts": 12, **{f"parts={part}": 4 for part in PARTS}}
    assert found.limits["parts=eye"].plain_accuracy == 0.75


def test_of_parts_that_nobody_judged_nothing_is_said() -> None:
    said = part_calls()
    for alone in (False, True):
        ticked = [exported(call, call.state == "head", alone) for call in said if call.called]
        found = calibrate(said, ticked)
        assert {name: limit.labelled for name, limit in found.limits.items()} == {"* parts": 4, "parts=head": 4}
        assert found.limits["* parts"].plain_accuracy == 1.0


def test_where_every_part_of_a_picture_is_ticked_what_is_gone_is_not_there() -> None:
    said = part_calls()
    gone = [exported(call, True) for call in said if call.called and (call.file_name, call.state) != ("1.jpg", "eye")]
    found = calibrate(said, gone)
    assert {name: limit.labelled for name, limit in found.limits.items()} == {"* parts": 12, **{f"parts={part}": 4 for part in PARTS}}
    assert found.limits["parts=eye"].plain_accuracy == 0.75
    # Rows of a table are not removed: nothing follows from one that is not there.
    found = calibrate(said, [replace(label, alone=True) for label in gone])
    assert found.limits["parts=eye"].labelled == 3
    # Somebody's own labels, without marks, are of everything in the picture, whether it was called or not.
    found = calibrate(said, [replace(label, reviewed=None) for label in gone])
    assert found.limits["parts=lateral_line"].labelled == 4
    assert found.limits["parts=lateral_line"].plain_accuracy == 0.0


def test_that_another_state_is_wrong_says_nothing_of_this_one() -> None:
    said = [ModelCall(f"{number}.jpg", "tail", "forked" if number % 2 else "rounded", 0.9, 0.5) for number in range(4)]
    found = calibrate(said, [Label(call.file_name, "tail", "not forked") for call in said])
    assert (found.limits["tail"].labelled, found.limits["tail"].plain_accuracy) == (2, 0.0)
    with pytest.raises(DataError, match="no label says whether a call is right"):
        calibrate(said[:1], [Label("0.jpg", "tail", "not forked")])


def test_a_tick_without_a_state_says_that_the_others_were_not_looked_at() -> None:
    said = [ModelCall("a.jpg", "tail", "forked", 0.9, 0.5), ModelCall("b.jpg", "tail", "forked", 0.9, 0.5)]
    truth = [Label("a.jpg", "tail", "forked", reviewed=False), Label("b.jpg", "tail", "", reviewed=True)]
    with pytest.raises(DataError, match="no label says whether a call is right: those that count name no state"):
        calibrate(said, truth)


def test_marked_rows_of_a_table_speak_of_their_own_part(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [
        "a.jpg,parts,part,head,head,yes",
        "a.jpg,parts,part,eye,absent,yes",
        "a.jpg,parts,part,caudal_fin,caudal_fin,",
        "b.jpg,parts,part,head,,yes",
    ]
    table.write_text("file_name,character,kind,best_state,state,reviewed\n" + "\n".join(rows) + "\n", encoding="utf-8")
    labels = read_truth(table)
    assert [(label.state, label.reviewed, label.alone) for label in labels] == [
        ("head", True, True),
        ("not eye", True, True),
        ("caudal_fin", False, True),
        ("", True, True),
    ]
    said = [ModelCall("a.jpg", "parts", part, 0.9, 0.5, part=True) for part in PARTS]
    found = calibrate([*said, ModelCall("b.jpg", "parts", "head", 0.9, 0.5, part=True)], labels)
    judged = {name: (limit.labelled, limit.plain_accuracy) for name, limit in found.limits.items()}
    assert judged == {"* parts": (2, 0.5), "parts=head": (1, 1.0), "parts=eye": (1, 0.0)}


def test_labels_beside_calls_speak_of_their_own_row(tmp_path: Path) -> None:
    """One table holds calls and labels: where a cell is empty nobody looked, at parts too."""
    table = tmp_path / "calls.csv"
    rows = [f"{number}.jpg,parts,part,{part},0.9,0.5,{truth}" for number in range(20) for part, truth in (("head", "head"), ("tail", ""))]
    table.write_text("file_name,character,kind,state,probability,score,true_state\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = calibrate(read_calls(table)[0], read_truth(table)).limits
    assert {name: (limit.labelled, limit.plain_accuracy) for name, limit in found.items()} == {
        "* parts": (20, 1.0),
        "parts=head": (20, 1.0),
    }
    # A list of labels alone names all that is there.
    table = tmp_path / "labels.csv"
    table.write_text(
        "file_name,character,true_state\n" + "\n".join(f"{number}.jpg,parts,head" for number in range(20)) + "\n", encoding="utf-8"
    )
    found = calibrate(read_calls(tmp_path / "calls.csv")[0], read_truth(table)).limits
    assert (found["parts=tail"].labelled, found["parts=tail"].plain_accuracy) == (20, 0.0)


def test_a_run_says_which_parts_were_not_called(tmp_path: Path) -> None:
    table = tmp_path / "calls.csv"
    table.write_text(
        "file_name,character,kind,state,probability,score,abstained_because\na.jpg,parts,part,head,0.9,0.5,\na.jpg,parts,part,eye,0.9,0.1,low_score\n",
        encoding="utf-8",
    )
    assert [call.called for call in read_calls(table)[0]] == [True, False]


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


def test_pictures_of_one_name_in_two_folders_are_two_pictures(tmp_path: Path) -> None:
    """Exports name a picture twice: `file_name` is the last part of `source` alone."""
    table = tmp_path / "run.csv"
    table.write_text(
        "file_name,source,character,state,best_state,probability,reviewed\n"
        "a.jpg,a.jpg,tail,forked,forked,0.9,yes\n"
        "a.jpg,sub/a.jpg,tail,rounded,rounded,0.8,yes\n"
        "photo 1,iNaturalist,tail,forked,forked,0.7,yes\n",
        encoding="utf-8",
    )
    names = ["a.jpg", "sub/a.jpg", "photo 1"]
    assert [label.file_name for label in read_truth(table)] == names
    assert [call.file_name for call in read_calls(table)[0]] == names


def test_a_label_without_a_pack_judges_calls_of_one_pack_alone() -> None:
    calls = [
        ModelCall("a.jpg", "parts", state, 0.9, 0.4, pack, part=True)
        for pack, state in (("fish", "head"), ("fish", "eye"), ("bird", "head"), ("bird", "bill"))
    ]
    labels = [Label("a.jpg", "parts", "head")]
    with pytest.raises(DataError, match=r"of 'a\.jpg' for 'parts' names no pack, and 'fish', 'bird' have.*column 'pack' .*'fish/parts'"):
        calibrate(calls, labels)
    assert calibrate(calls, [replace(labels[0], pack="fish")]).limits["* parts"].labelled == 2
    # Where nothing of the other pack is in the picture, there is nothing to choose.
    gone = [replace(call, before_limits=call.pack == "bird") for call in calls]
    assert calibrate(gone, labels).limits["* parts"].labelled == 2


def test_labels_of_pictures_without_a_call_are_told() -> None:
    calls = [ModelCall(f"{i}.jpg", "tail", "forked", 0.9, 0.1) for i in range(3)]
    truth = [Label(name, "tail", "forked") for name in ("1.jpg", "one.jpg", "two.jpg", "one.jpg")]
    assert strangers(calls, truth) == ["one.jpg", "two.jpg"]


def test_corrections_that_hold_no_call_are_no_labels(tmp_path: Path) -> None:
    from concept_cam.collection.corrections import Correction, Corrections

    store = Corrections(tmp_path / "c.sqlite")
    for number, (verdict, called) in enumerate((("reject", ""), ("accept", ""), ("reject", "forked"))):
        store.add(Correction(id=str(number), source=f"{number}.jpg", character="tail", verdict=verdict, called=called))
    labels = read_truth(store.path)
    assert [(label.file_name, label.state) for label in labels] == [("0.jpg", ""), ("1.jpg", ""), ("2.jpg", "not forked")]
    found = calibrate([ModelCall(f"{number}.jpg", "tail", "forked", 0.9, 0.5) for number in range(3)], labels)
    assert found.limits["tail"].labelled == 1


# ------------------------------------------------------------------------------------------------- labels as people write them


def thirty() -> list[ModelCall]:
    return [ModelCall(f"{i}.jpg", "caudal_fin_shape", "forked", 0.9 + i / 1000, 0.1) for i in range(30)]


def labelled(state: str, reviewed: bool | None = None) -> list[Label]:
    return [Label(f"{i}.jpg", "caudal_fin_shape", state, reviewed=reviewed) for i in range(30)]


@pytest.mark.parametrize("state", ["forked", "Forked", "forked ", " FORKED", "ｆorked"])
def test_states_are_compared_as_words(state: str) -> None:
    limit = calibrate(thirty(), labelled(state)).limits["caudal_fin_shape"]
    assert (limit.kept, limit.accuracy) == (30, 1.0)


def test_underscores_are_spaces() -> None:
    said = [ModelCall(f"{i}.jpg", "caudal fin shape", "deeply_forked", 0.9, 0.1) for i in range(30)]
    truth = [Label(f"{i}.jpg", "caudal_fin_shape", "Deeply forked") for i in range(30)]
    assert calibrate(said, truth).limits["caudal fin shape"].accuracy == 1.0


def test_a_misspelt_state_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'0\.jpg' says 'forkd'.*Did you mean 'forked'\? Known: forked"):
        calibrate(thirty(), labelled("forkd"))
    # A table of calls does not list the states: another word may be one, and is a wrong call.
    assert calibrate(thirty(), labelled("rounded")).limits["caudal_fin_shape"].plain_accuracy == 0.0


def test_where_the_states_are_known_any_other_is_refused() -> None:
    said = [ModelCall(call.file_name, call.character, call.state, call.probability, 0.1, states=("forked", "rounded")) for call in thirty()]
    with pytest.raises(DataError, match=r"'furcate'.*no state of it.*Known: forked, rounded"):
        calibrate(said, labelled("furcate"))
    for state in ("rounded", "absent", "not forked"):
        assert calibrate(said, labelled(state)).limits["caudal_fin_shape"].plain_accuracy == 0.0


def test_labels_that_nobody_looked_at_are_refused() -> None:
    with pytest.raises(DataError, match="all 30 labels equal the model's calls, and none is marked as reviewed"):
        calibrate(thirty(), labelled("forked", reviewed=False))
    assert calibrate(thirty(), labelled("forked", reviewed=True)).limits["caudal_fin_shape"].accuracy == 1.0
    # One that was changed says that somebody went through them.
    changed = [Label("0.jpg", "caudal_fin_shape", "rounded", reviewed=False), *labelled("forked", reviewed=False)[1:]]
    assert calibrate(thirty(), changed).limits["caudal_fin_shape"].plain_accuracy == pytest.approx(29 / 30)


def test_where_some_are_marked_only_those_count() -> None:
    truth = [*labelled("rounded", reviewed=True)[:10], *labelled("forked", reviewed=False)[10:]]
    limit = calibrate(thirty(), truth, least=1).limits["caudal_fin_shape"]
    assert (limit.labelled, limit.plain_accuracy) == (10, 0.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("float.csv", "file_name,character,true_state,specimen\nf1.jpg,tail,forked,0.0\nf2.jpg,tail,forked,1.0\n"),
        ("semicolons.csv", "file_name;character;true_state;specimen\nf1.jpg;tail;forked;0\nf2.jpg;tail;forked;1\n"),
        ("commas.csv", "file_name;character;true_state;specimen\nf1.jpg;tail;forked;0,0\nf2.jpg;tail;forked;1,0\n"),
        ("tabs.tsv", "file_name\tcharacter\ttrue_state\tspecimen\nf1.jpg\ttail\tforked\t\nf2.jpg\ttail\tforked\t1\n"),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_truth(tmp_path / name) == [
        Label("f1.jpg", "tail", "forked", "", 0),
        Label("f2.jpg", "tail", "forked", "", 1),
    ]


def test_calls_and_labels_of_a_spreadsheet_with_decimal_commas_and_safe_cells(tmp_path: Path) -> None:
    """As our own export escapes names that look like formulas, and as a spreadsheet in half of Europe saves it again."""
    table = tmp_path / "calls.csv"
    table.write_text(
        "file_name;character;state;probability;true_state\n'=1.jpg;tail;forked;0,93;forked\n'-2.jpg;tail;forked;1;rounded\n",
        encoding="utf-8-sig",
    )
    calls, _ = read_calls(table)
    assert [(call.file_name, call.probability) for call in calls] == [("=1.jpg", 0.93), ("-2.jpg", 1.0)]
    assert [label.file_name for label in read_truth(table)] == ["=1.jpg", "-2.jpg"]


def test_marks_and_wrong_numbers_in_tables(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(
        "file_name,character,true_state,reviewed\na,tail,x,yes\nb,tail,x,\nc,tail,x,No\nd,tail,x,2026-11-26\n", encoding="utf-8"
    )
    assert [label.reviewed for label in read_truth(table)] == [True, False, False, True]
    # `true_state` is written by somebody; `state` is what an export says, unless it is marked.
    table.write_text("file_name,character,true_state\na,tail,x\n", encoding="utf-8")
    assert [label.reviewed for label in read_truth(table)] == [None]
    table.write_text("file_name,character,state\na,tail,x\n", encoding="utf-8")
    assert [label.reviewed for label in read_truth(table)] == [False]
    table.write_text("file_name,character,true_state,specimen\na,tail,x,1.5\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: the specimen .1\.5. is no whole number"):
        read_truth(table)


def test_a_calibration_is_of_its_model() -> None:
    found = calibrate(thirty(), labelled("forked"), facts={"model": "demo", "weights_hash": "abc"})
    found.check("demo", "abc")
    with pytest.raises(ConfigurationError, match=r"fitted to calls of 'demo' \(weights abc\), and this run uses 'other' \(weights def\)"):
        found.check("other", "def")
    calibrate(thirty(), labelled("forked")).check("any", "def")  # A table of calls does not say whose they are.
