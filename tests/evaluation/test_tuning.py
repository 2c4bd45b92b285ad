from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.settings import Settings, read_config
from concept_cam.evaluation.datasets.samples import Dataset
from concept_cam.evaluation.tuning import Candidate, Sweep, candidates, sweep, sweep_unlabelled
from concept_cam.localizer import Localizer
from tests import worlds
from tests.planted import PlantedBackbone

GRID = {"attentions": ("value",), "gammas": (0.0, 1.0), "weightings": ("uniform", "hardest")}


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(32, 8), Settings(feature_norm="none"))


@pytest.fixture(scope="module")
def found(localizer: Localizer) -> Sweep:
    return sweep(worlds.dataset(6), localizer, objective="ap", draws=100, **GRID)


def test_candidates_are_all_combinations_once() -> None:
    tried = candidates(("a", "b"), (0, 0.5), ("uniform", "softmax"), ("own", "bare"))
    assert len(tried) == len(set(tried)) == 2 * (1 + 2) * 2
    with pytest.raises(ConfigurationError, match="nothing to search"):
        candidates((), (1,))


def test_the_best_is_the_best_by_hand(localizer: Localizer, found: Sweep) -> None:
    from concept_cam.evaluation import metrics

    for trial in found.trials:
        one = trial.candidate
        tuned = localizer.with_settings(gamma=one.gamma, weighting=one.weighting)
        means = []
        for sample in worlds.dataset(6):
            answers = tuned.locate_all([sample.image], [question.concept for question in sample.questions])[0]
            values = [metrics.average_precision(a.heatmap, q.mask()) for a, q in zip(answers, sample.questions) if q.mask is not None]
            means.append(np.mean(values))
        assert trial.value.value == pytest.approx(np.mean(means))
    assert [trial.value.value for trial in found.trials] == sorted((trial.value.value for trial in found.trials), reverse=True)
    assert found.best.gamma == 1.0


def test_each_half_chooses_for_the_other(found: Sweep) -> None:
    pictures = [f"p{i}" for i in range(6)]
    expected = []
    for half in (0, 1):
        teachers = pictures[1 - half :: 2]
        chosen = max(found.trials, key=lambda trial: np.mean([trial.values[name] for name in teachers]))
        expected += [chosen.values[name] for name in pictures[half::2]]
    assert found.held_out.value == pytest.approx(np.mean(expected))
    assert found.gain(Candidate("value", 0.0)).low > 0
    with pytest.raises(ConfigurationError, match="was not tried"):
        found.gain(Candidate("value", 0.123))


def test_the_configuration_is_read_back(found: Sweep, tmp_path: Path) -> None:
    path = found.save(tmp_path / "best.yaml")
    settings = read_config(path)
    assert settings == {
        "model": "planted",
        "attention": "value",
        "gamma": 1.0,
        "weighting": found.best.weighting,
        "feature_norm": "none",
    }
    assert path.read_text(encoding="utf-8").startswith("# ap ")


def test_all_settings_that_were_not_searched_are_written(localizer: Localizer, tmp_path: Path) -> None:
    given = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.25), "interpolation": "bilinear", "size": 64}
    tuned = sweep(worlds.dataset(2), localizer.with_settings(**given), objective="ap", draws=20, attentions=("value",), gammas=(0.0,))
    written = read_config(tuned.save(tmp_path / "best.yaml"))
    read = Settings().with_values(**{name: value for name, value in written.items() if name in given})
    assert {name: getattr(read, name) for name in given} == given


def test_pictures_that_cannot_be_read_are_named(localizer: Localizer) -> None:
    good = list(worlds.samples(2))
    bad = replace(good[0], name="bad", image="/none/such.png")
    data = Dataset("planted", "1", lambda: iter([*good, bad]), 3, Concept(("a thing",)))
    tuned = sweep(data, localizer, objective="ap", draws=20, **GRID)
    assert [item["picture"] for item in tuned.errors] == ["bad"]
    assert tuned.facts["pictures"] == 2
    with pytest.raises(DataError, match=r"1 cannot be read\. The first error: .*none/such\.png"):
        sweep(replace(data, stream=lambda: iter([bad])), localizer, objective="ap", **GRID)
    with pytest.raises(DataError, match=r"1 cannot be read\. The first error: .*none/such\.png"):
        sweep_unlabelled([("bad", "/none/such.png")], [worlds.RED, Concept(("a thing",))], localizer, **GRID)


def test_templates_are_searched_and_read_back(localizer: Localizer, tmp_path: Path) -> None:
    """The planted model knows the word alone: templates that hide it make it look elsewhere."""
    sets = {"hiding": ("a picture that shows no {} at all",), "known": ("{}",)}
    own = sweep(worlds.dataset(2), localizer, objective="ap", draws=20, **GRID)
    assert "templates" not in yaml.safe_load(own.to_yaml())
    tuned = sweep(worlds.dataset(2), localizer, objective="ap", draws=20, templates=sets, **GRID)
    assert len(tuned.trials) == 2 * len(own.trials)
    assert own.trials[0].value == next(t for t in tuned.trials if t.candidate.templates == "known").value
    settings = read_config(tuned.save(tmp_path / "best.yaml"))
    assert settings["templates"] == list(sets[tuned.best.templates])
    del settings["model"]
    asked = Localizer(localizer.backbone, Settings().with_values(**settings))
    concept = Concept(("red",), (("green",),), templates=("a photo of {}",))
    answer = asked.locate_all([worlds.picture(0, True)[0]], [concept])[0][0]
    assert answer.concept.templates == sets[tuned.best.templates]


def test_templates_of_the_settings_take_the_place_of_a_concepts_own(localizer: Localizer) -> None:
    picture = worlds.picture(0, True)[0]
    concept = Concept(("red",), (("green",),), templates=("a photo of {}", "{}"))
    bare = localizer.with_settings(templates=["{}"])
    plain = Concept(("red",), (("green",),))
    for method in ("direct", "luminance"):
        found = bare.locate_all([picture], [concept], method=method)[0]
        expected = localizer.locate_all([picture], [plain], method=method)[0]
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.image_scores, expected.image_scores)
        assert found[0].concept.templates == ("{}",)
    assert localizer.locate_all([picture], [concept])[0][0].concept.templates == concept.templates
    for wrong in (["a photo"], ["{} {}"], [3], 3):
        with pytest.raises(ConfigurationError, match="templates must be texts"):
            localizer.with_settings(templates=wrong)


def test_pictures_are_encoded_once_per_attention() -> None:
    class Counting(PlantedBackbone):
        calls = 0

        def encode_patches(self, *arguments: object, **options: object) -> object:
            type(self).calls += 1
            return super().encode_patches(*arguments, **options)  # type: ignore[arg-type]

    backbone = Counting(32, 8)
    sweep(worlds.dataset(3), Localizer(backbone), objective="ap", draws=10, **GRID)
    assert Counting.calls == 3
    texts = backbone.text_calls
    assert texts < 30


@pytest.mark.parametrize(
    "objective",
    ["ap", "ap_host", "auroc", "auroc_host", "pointing", "energy", "ap_difference", "state_accuracy"],
)
def test_every_objective_can_be_measured(localizer: Localizer, objective: str) -> None:
    tuned = sweep(
        worlds.dataset(2),
        localizer,
        objective=objective,
        draws=10,
        attentions=("value",),
        gammas=(1.0,),
        weightings=("uniform",),
    )
    assert 0.5 < tuned.trials[0].value.value <= 1.0


def test_wrong_names_and_nothing_to_measure(localizer: Localizer) -> None:
    with pytest.raises(ConfigurationError, match="objective"):
        sweep(worlds.dataset(1), localizer, objective="accuracy")
    with pytest.raises(ConfigurationError, match="template set"):
        sweep(worlds.dataset(1), localizer, templates=("poem",))
    with pytest.raises(ConfigurationError, match="at least two"):
        sweep_unlabelled([], [worlds.RED], localizer)
    with pytest.raises(DataError, match="no picture"):
        sweep(Dataset("planted", "1", lambda: iter(()), 0, Concept(("a thing",))), localizer)


def test_without_labels_maps_that_follow_the_prompt_win() -> None:
    localizer = Localizer(PlantedBackbone(32, 4), Settings(feature_norm="none"))
    pictures = [(f"p{number}", worlds.picture(number, True)[0]) for number in range(4)]
    tuned = sweep_unlabelled(pictures, [worlds.RED, worlds.GREEN], localizer, draws=20, **GRID)
    assert tuned.objective == "agreement"
    assert tuned.trials[0].value.value > 0.5
    # Concepts that the model cannot tell apart agree with each other as much as with themselves.
    same = [Concept(("red",), name="a"), Concept(("red",), name="b")]
    blind = sweep_unlabelled(pictures, same, localizer, draws=20, attentions=("value",), gammas=(0.0,), weightings=("uniform",))
    assert blind.trials[0].value.value == pytest.approx(0.0, abs=1e-6)
