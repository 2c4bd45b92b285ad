"""Factors of the temperature: what was planted is found, little is learnt of few pictures, and what is best stays so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from training.sharpness import BOUNDS, Seen, bare, fit_factor, look, main, sharpest_factor, write

from concept_cam import prompts
from concept_cam.backbones import BUNDLED, lite, load
from concept_cam.collection.questions import build_questions
from concept_cam.core.errors import DataError
from concept_cam.core.scoring import character_key
from concept_cam.demo.worlds import WORLDS


def planted(count: int, factor: float, states: int = 4) -> Seen:
    """Logits whose right states are drawn from the softmax under `factor`."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (count, states))
    shares = Seen(logits, np.zeros(count, np.int64)).shares(factor)
    truth = np.array([generator.choice(states, p=row) for row in shares])
    return Seen(logits - 3.0, truth)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_planted_factor_is_found(factor: float) -> None:
    seen = planted(4000, factor)
    assert fit_factor(seen) == pytest.approx(factor, rel=0.08)
    assert seen.surprise(factor) <= min(seen.surprise(0.7 * factor), seen.surprise(1.4 * factor))


def test_probabilities_under_the_right_factor_are_shares_of_what_is_right() -> None:
    seen = planted(6000, 2.0)
    shares = seen.shares(fit_factor(seen))
    right = shares.argmax(1) == seen.truth
    for low in (0.4, 0.6, 0.8):
        chosen = (shares.max(1) >= low) & (shares.max(1) < low + 0.2)
        assert right[chosen].mean() == pytest.approx(shares.max(1)[chosen].mean(), abs=0.04)
    plain, sharp = seen.called(1.0), seen.called(2.0)
    assert plain[0] < sharp[0]
    assert sharp[1] >= 0.9


def test_the_sharpest_factor_is_one_that_pictures_do_not_speak_against() -> None:
    few, many = planted(250, 1.5), planted(20_000, 1.5)
    for seen in (few, many):
        fitted, sharpest = fit_factor(seen), sharpest_factor(seen)
        assert fitted <= sharpest < BOUNDS[1]
        # Twice the fall of the logarithm of the likelihood is 6.63 at the end of a 99 % interval.
        falls = [2 * (seen.surprises(factor) - seen.surprises(fitted)).sum() for factor in (sharpest, sharpest * 1.05)]
        assert falls[0] <= 6.64 < falls[1]
        assert seen.called(sharpest)[0] >= seen.called(fitted)[0]
    assert sharpest_factor(many) / fit_factor(many) < 1.06 < 1.2 < sharpest_factor(few) / fit_factor(few)
    # What is always right may be said as surely as can be.
    assert BOUNDS[1] / 1.02 < sharpest_factor(Seen(np.array([[2.0, 0.0]] * 200), np.zeros(200, np.int64))) <= BOUNDS[1]


def test_one_picture_that_is_told_wrong_for_sure_is_enough() -> None:
    """Its own surprise must not hide behind the error that it makes, however sure it was."""
    for gap in (5.0, 60.0):
        truth = np.zeros(300, np.int64)
        truth[0] = 1
        seen = Seen(np.array([[gap, 0.0]] * 300), truth)
        assert sharpest_factor(seen) < 1.8 * fit_factor(seen)
        assert seen.surprise(sharpest_factor(seen)) < 1.4 * seen.surprise(fit_factor(seen))
    assert sharpest_factor(Seen(np.zeros((0, 3)), np.zeros(0, np.int64))) < BOUNDS[1]


def test_few_pictures_move_a_factor_little() -> None:
    sure = Seen(np.array([[2.0, 0.0]] * 3), np.zeros(3, np.int64))
    assert 1.0 < fit_factor(sure) < 1.6
    wrong = Seen(np.array([[2.0, 0.0]] * 400), np.ones(400, np.int64))
    assert BOUNDS[0] <= fit_factor(wrong) < 0.5


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    with pytest.raises(DataError, match=r"nothing was fitted and .* stays as it is: take more --pictures"):
        write(folder, {}, ["fish"])
    assert load(f"local-dir:{folder}").sharpness == load("demo").sharpness
    write(folder, {"fish:mouth_position/12345678": 1.2345}, ["fish"])
    model = load(f"local-dir:{folder}")
    others = {name: value for name, value in load("demo").sharpness.items() if not name.startswith("fish:")}
    assert others
    assert dict(model.sharpness) == {**others, "fish:mouth_position/12345678": 1.23}
    assert not bare(folder).backbone.sharpness
    assert (
        json.loads((folder / lite.CONFIG).read_text(encoding="utf-8"))["sizes"]
        == json.loads((BUNDLED / lite.CONFIG).read_text(encoding="utf-8"))["sizes"]
    )


def test_a_group_in_which_nothing_could_be_fitted_keeps_no_factors_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table says 1 of its characters; groups that were not named keep what they had."""
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED, folder)
    before = load("demo").sharpness
    assert {"fish", "beetle", "plant"} <= {name.partition(":")[0] for name in before}
    counts = {"fish": 400, "beetle": 3}
    monkeypatch.setattr("training.sharpness.look", lambda _, group, *given: {f"{group}:one/12345678": planted(counts[group], 2.0)})
    monkeypatch.setattr("sys.argv", ["sharpness", "--folder", str(folder), "--group", "beetle", "--group", "fish"])
    main()
    found = load(f"local-dir:{folder}").sharpness
    others = {name: value for name, value in before.items() if name.partition(":")[0] not in counts}
    assert set(found) == {*others, "fish:one/12345678"}
    assert others.items() <= found.items()


def test_a_character_that_is_kept_has_the_factor_of_before(tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLED, tmp_path / "model")
    before = json.loads((folder / lite.CONFIG).read_text(encoding="utf-8"))["sharpness"]
    barbels, tail = ((next(name for name in before if name.startswith(f"fish:{each}/"))) for each in ("barbels", "caudal_fin_shape"))
    write(folder, {tail: 7.0}, ["fish"], ["fish:barbels"])
    after = json.loads((folder / lite.CONFIG).read_text(encoding="utf-8"))["sharpness"]
    others = {name: value for name, value in before.items() if not name.startswith("fish:")}
    assert after == {**others, barbels: before[barbels], tail: 7.0}


def test_a_character_that_is_kept_is_not_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(BUNDLED, tmp_path / "model")
    before = json.loads((folder / lite.CONFIG).read_text(encoding="utf-8"))["sharpness"]
    barbels, tail = ((next(name for name in before if name.startswith(f"fish:{each}/"))) for each in ("barbels", "caudal_fin_shape"))
    monkeypatch.setattr("training.sharpness.look", lambda *given: dict.fromkeys((barbels, tail), planted(400, 4.0)))
    monkeypatch.setattr("sys.argv", ["sharpness", "--folder", str(folder), "--group", "fish", "--keep", "fish:barbels"])
    main()
    after = json.loads((folder / lite.CONFIG).read_text(encoding="utf-8"))["sharpness"]
    assert after[barbels] == before[barbels]
    assert after[tail] > 3.0 > before[tail]
    assert "fish:barbels" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (["fish:barbels"], "--keep received 'fish:barbels': expected one of beetle:"),
        ([f"beetle:{name}" for name in WORLDS["beetle"].characters], "--keep received every character of beetle: nothing is left to fit"),
    ],
)
def test_a_character_that_is_kept_is_one_of_the_groups_and_others_are_left(
    kept: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(BUNDLED, tmp_path / "model")
    before = (folder / lite.CONFIG).read_bytes()
    monkeypatch.setattr("training.sharpness.look", lambda *given: {})
    given = [word for name in kept for word in ("--keep", name)]
    monkeypatch.setattr("sys.argv", ["sharpness", "--folder", str(folder), "--group", "beetle", *given])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
    assert (folder / lite.CONFIG).read_bytes() == before


def test_a_look_asks_each_character_of_its_pack_and_keeps_what_can_be_told() -> None:
    found = {key.partition(":")[2].partition("/")[0]: seen for key, seen in look(bare(BUNDLED), "fish", 16, 5).items()}
    names = set(found)
    assert names <= set(WORLDS["fish"].characters)
    assert {"body_shape", "pattern", "caudal_fin_shape"} <= names
    for seen in found.values():
        assert len(seen.truth) <= 16
        assert seen.logits.shape == (len(seen.truth), seen.logits.shape[1])
        assert seen.shares(1.0).sum(1) == pytest.approx(1.0, abs=1e-5)
    # Of false colours no colour can be told.
    assert len(found["body_colour"].truth) < len(found["body_shape"].truth)


def test_the_bundled_model_has_a_factor_for_what_its_packs_ask() -> None:
    model = load("demo")
    asked = {
        character_key(questions.concepts[each.call])
        for group in WORLDS
        for questions in [build_questions([prompts.load_pack(group)])]
        for each in questions.packs[0].characters
        if each.call >= 0
    }
    assert set(model.sharpness) <= asked
    named = {key.partition("/")[0] for key in model.sharpness}
    assert {"fish:caudal_fin_shape", "fish:barbels", "beetle:elytra_pattern", "plant:leaf_margin"} <= named
    assert all(BOUNDS[0] <= factor <= BOUNDS[1] for factor in model.sharpness.values())
