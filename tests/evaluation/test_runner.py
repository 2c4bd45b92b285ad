import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError, OutputError
from concept_cam.core.settings import Settings
from concept_cam.evaluation import metrics
from concept_cam.evaluation.datasets.samples import Dataset, Points, Sample, SampleQuestion
from concept_cam.evaluation.observations import METRICS
from concept_cam.evaluation.randomisation import randomised
from concept_cam.evaluation.report import Report
from concept_cam.evaluation.runner import Configuration, configurations, evaluate
from concept_cam.localizer import Localizer
from concept_cam.methods.lcam_training import LcamTraining, TrainingExample, train_on_concepts
from tests import worlds
from tests.backbones.models import backbone
from tests.methods.models import LinearBackbone, untouched
from tests.planted import PlantedBackbone

DIRECT = "direct · gamma 1"
PLAIN = "direct · gamma 0"


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(32, 8), Settings(feature_norm="none"))


@pytest.fixture(scope="module")
def report(localizer: Localizer) -> Report:
    return evaluate(worlds.dataset(), localizer, draws=200, examples=3)


def value(report: Report, row: str, metric: str, kind: str = "all") -> float:
    return report.row(row).tables[kind][metric].value


def test_rows_are_methods_times_settings_and_baselines(report: Report) -> None:
    assert [row.name for row in report.rows] == [DIRECT, PLAIN, "random", "center", "luminance", "subject"]
    assert configurations(("direct",), ("value", "auto"), (0.6,), ()) == tuple(
        Configuration("direct", attention, gamma) for attention in ("value", "auto") for gamma in (0.6, 0.0)
    )
    assert configurations(("grad-cam",), ("value", "qq"), (1.0,), ())[0].name == "grad-cam · gamma 1"
    with pytest.raises(ConfigurationError, match="baseline"):
        configurations(("direct",), ("auto",), (1.0,), ("centre",))
    with pytest.raises(ConfigurationError, match="nothing to evaluate"):
        configurations((), (), (), ())


def test_planted_parts_are_found(report: Report) -> None:
    assert value(report, DIRECT, "ap", "part") > 0.9
    assert value(report, DIRECT, "auroc_host", "part") > 0.95
    assert value(report, DIRECT, "pointing", "part") == 1.0
    assert value(report, DIRECT, "own_part") == 1.0
    assert value(report, DIRECT, "state_accuracy") == 1.0
    assert value(report, DIRECT, "coverage") == 1.0
    assert value(report, DIRECT, "ap_difference") > 0.9


def test_presence_and_twins_are_told(report: Report) -> None:
    assert value(report, DIRECT, "absence_auroc") == 1.0
    assert value(report, DIRECT, "absence_auroc_peak") == 1.0
    assert value(report, DIRECT, "twin_accuracy") == 1.0
    assert value(report, DIRECT, "twin_map_accuracy") == 1.0
    assert value(report, "random", "state_accuracy") == pytest.approx(0.5)


def test_the_subject_row_is_a_random_point_in_the_subject(report: Report) -> None:
    expected = []
    for sample in worlds.samples(6):
        for question in sample.questions:
            if question.mask is not None:
                expected.append(question.mask().sum() / question.host().sum())
    assert value(report, "subject", "pointing") == pytest.approx(np.mean(expected))
    assert value(report, "subject", "auroc_host") == pytest.approx(0.5)


def test_values_equal_the_metrics_called_by_hand(localizer: Localizer, report: Report) -> None:
    sample = next(iter(worlds.dataset()))
    for question, observed in zip(sample.questions, report.records[0].observations):
        answer = localizer.locate_all([sample.image], [question.concept])[0][0]
        if question.mask is not None:
            assert observed.values["ap"] == metrics.average_precision(answer.heatmap, question.mask())
            assert observed.values["ap_host"] == metrics.average_precision(answer.heatmap, question.mask(), question.host())
            assert observed.values["energy"] == metrics.energy_pointing_game(answer.heatmap, question.mask())


def test_the_fixed_threshold_comes_from_the_other_half(report: Report) -> None:
    record = report.records[0]
    rows = [item for item in record.observations if "iou_curve" in item.pooled]
    pictures = list(dict.fromkeys(item.picture for item in rows))
    for half in (0, 1):
        teachers = [item.pooled["iou_curve"] for item in rows if pictures.index(item.picture) % 2 != half]
        column = int(np.argmax(np.mean(teachers, axis=0)))
        for item in rows:
            if pictures.index(item.picture) % 2 == half:
                assert item.values["iou"] == item.pooled["iou_curve"][column]
    assert value(report, DIRECT, "iou") <= value(report, DIRECT, "iou_best")


def test_contrast_gain_is_a_paired_difference(report: Report) -> None:
    found = {(gain.metric, gain.kind): gain for gain in report.gains}
    gain = found["ap", "part"]
    assert (gain.row, gain.against) == (DIRECT, PLAIN)
    pairs = [
        (a.values["ap"], b.values["ap"]) for a, b in zip(report.records[0].observations, report.records[1].observations) if a.kind == "part"
    ]
    assert gain.difference.value == pytest.approx(np.mean([a - b for a, b in pairs]))
    assert gain.difference.low <= gain.difference.value <= gain.difference.high
    again = report.compare(DIRECT, PLAIN, "ap", "part")
    assert again.value == pytest.approx(gain.difference.value)
    with pytest.raises(ConfigurationError, match="unknown metric"):
        report.compare(DIRECT, PLAIN, "accuracy")
    with pytest.raises(ConfigurationError, match="has no row"):
        report.row("grad-cam")


def test_prompt_dependence_tells_a_subject_finder_from_a_part_finder(report: Report) -> None:
    assert value(report, DIRECT, "rank_sibling", "part") < 0.5
    assert "rank_host" not in report.row("center").tables["all"]


def test_traits_are_broken_down(report: Report) -> None:
    assert set(report.row(DIRECT).traits) == {"red", "green", "colour", "mark"}
    assert report.row(DIRECT).traits["green"]["ap"].count == 6


def test_metrics_beyond_the_default(localizer: Localizer) -> None:
    found = evaluate(
        worlds.dataset(4),
        localizer,
        groups=("localisation", "boxes", "faithfulness"),
        baselines=("random",),
        draws=50,
    )
    table = found.row(DIRECT).tables["part"]
    assert table["max_box_acc"].value == 1.0
    assert table["pxap"].value > 0.8
    assert table["drop_10"].value > 0
    assert {"deletion", "insertion", "average_drop", "average_increase"} <= set(table)
    assert "deletion" not in found.row("random").tables["part"]


def test_points_instead_of_masks(localizer: Localizer) -> None:
    pixels, _ = worlds.picture(0, True)
    points = Points(np.array([[4.0, 12.0], [24.0, 12.0], [12.0, 4.0]]), (1, 0, 0), tolerance=6.0)
    sample = Sample("p", pixels, (SampleQuestion(worlds.RED, "part", "red", points=points),))
    data = Dataset("planted", "1", lambda: iter([sample, replace(sample, name="q")]), 2, Concept(("a thing",)))
    found = evaluate(data, localizer, draws=20, baselines=("luminance",))
    table = found.row(DIRECT).tables["all"]
    assert table["point_hit"].value == 1.0
    assert table["point_auroc"].value == 1.0
    assert table["point_miou"].value == 1.0
    assert "ap" not in table


def test_large_pictures_are_thinned(localizer: Localizer, report: Report) -> None:
    coarse = evaluate(worlds.dataset(), localizer, draws=20, max_side=16, baselines=())
    assert value(coarse, DIRECT, "ap", "part") == pytest.approx(value(report, DIRECT, "ap", "part"), abs=0.1)


def test_baselines_need_no_model() -> None:
    found = evaluate(worlds.dataset(3), None, methods=(), baselines=("center",), draws=20)
    assert [row.name for row in found.rows] == ["center"]
    with pytest.raises(ConfigurationError, match="need a model"):
        evaluate(worlds.dataset(3), None)


def test_a_bad_picture_is_left_out_everywhere_and_listed(localizer: Localizer) -> None:
    good = list(worlds.samples(3))
    bad = replace(good[1], image="/none/such.png")
    data = Dataset("planted", "1", lambda: iter([good[0], bad, good[2]]), 3, Concept(("a thing",)))
    found = evaluate(data, localizer, draws=20)
    assert [item["picture"] for item in found.errors] == ["p1"]
    for record in found.records:
        assert {item.picture for item in record.observations} == {"p0", "p2"}
    with pytest.raises(DataError, match="no picture of 'planted' could be used"):
        evaluate(replace(data, stream=lambda: iter([bad])), localizer)


def test_a_picture_of_which_nothing_is_asked_is_not_counted_and_takes_nothing_from_the_others(localizer: Localizer) -> None:
    good = list(worlds.samples(3))
    mute = replace(good[0], name="mute", questions=())
    data = Dataset("planted", "1", lambda: iter([mute, *good]), 4, Concept(("a thing",)))
    found, plain = (evaluate(each, localizer, draws=20) for each in (data, replace(data, stream=lambda: iter(good))))
    assert found.facts["dataset"]["pictures"] == 3
    assert found.facts["dataset"]["pictures_without_questions"] == 1
    for one, other in zip(found.rows, plain.rows, strict=True):
        assert one.tables == other.tables
        assert "iou" in one.tables["part"]
    with pytest.raises(DataError, match="Nothing is asked of 2 pictures"):
        evaluate(replace(data, stream=lambda: iter([mute, mute])), localizer)


def test_a_mask_of_another_size_is_an_error(localizer: Localizer) -> None:
    pixels, _ = worlds.picture(0, True)
    question = SampleQuestion(worlds.RED, "part", "red", lambda: np.ones((5, 5), dtype=bool))
    data = Dataset("planted", "1", lambda: iter([Sample("p", pixels, (question,))]), 1, Concept(("a thing",)))
    with pytest.raises(DataError, match=r"mask of 'parts=red' is \(5, 5\)"):
        evaluate(data, localizer)
    with pytest.raises(ConfigurationError, match="group of metrics"):
        evaluate(data, localizer, groups=("speed",))


def test_the_same_call_gives_the_same_numbers(localizer: Localizer, report: Report) -> None:
    again = evaluate(worlds.dataset(), localizer, draws=200, examples=0)
    assert [row.tables for row in again.rows] == [row.tables for row in report.rows]


def test_the_report_is_written_whole(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert content["rows"][0]["tables"]["part"]["pointing"]["value"] == 1.0
    assert content["facts"]["dataset"]["pictures"] == 6
    assert content["facts"]["model"]["name"] == "planted"
    lines = (tmp_path / "out" / "questions.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(report.rows) * 24
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len(report.examples) * (len(report.rows) + 1)
    assert "http" not in page.replace("http-equiv", "")
    assert METRICS["ap_host"].title in page
    assert "What the contrast adds" in report.to_markdown()
    assert "## Per trait: AP in subject" in report.to_markdown()
    assert "| | red | green |" in report.to_markdown()
    with pytest.raises(OutputError, match="exists"):
        report.save(tmp_path / "out")
    report.save(tmp_path / "out", overwrite=True)


def test_names_are_escaped(report: Report) -> None:
    odd = replace(report, rows=(replace(report.rows[0], name="<b>&"),), examples=(), gains=())
    assert "<b>&" not in odd.to_html()
    assert "&lt;b&gt;&amp;" in odd.to_html()


def test_examples_share_one_scale_per_column(report: Report) -> None:
    assert len({example.trait for example in report.examples}) == len(report.examples) >= 2
    sheet = report.example_sheet()
    assert sheet.width > 32 * (len(report.rows) + 1)
    assert report.example_sheet([DIRECT, PLAIN]).width < sheet.width
    with pytest.raises(ConfigurationError, match="has no row"):
        report.example_sheet(["nobody"])
    bare = replace(report, examples=())
    with pytest.raises(ConfigurationError, match="no examples"):
        bare.example_sheet()


def test_disordered_weights_change_maps_of_the_model_and_nothing_else() -> None:
    """A method that reads the model changes with its weights; one that reads the picture alone does not."""
    trained = Localizer(LinearBackbone(32, 8), Settings(feature_norm="none"))
    with untouched(trained.backbone.model):
        found = evaluate(
            worlds.dataset(4), trained, methods=("direct", "luminance", "ablation-cam"), gammas=(1.0,),
            baselines=("center",), groups=("localisation", "randomisation"), draws=20,
        )  # fmt: skip
    assert value(found, "luminance · gamma 1", "randomised") == pytest.approx(1.0)
    assert value(found, DIRECT, "randomised") < 0.9
    assert value(found, "ablation-cam · gamma 1", "randomised") < 0.95
    assert "randomised" not in found.row("center").tables["all"]
    with pytest.raises(ConfigurationError, match="randomisation"):
        evaluate(worlds.dataset(1), Localizer(PlantedBackbone(32, 8)), groups=("randomisation",))


def test_a_randomised_copy_keeps_name_texts_and_size_of_its_weights() -> None:
    trained = Localizer(backbone("vit"))
    first, again, other = randomised(trained, 1), randomised(trained, 1), randomised(trained, 2)
    assert first.backbone.weights_hash == trained.backbone.weights_hash
    picture = worlds.picture(0, True)[0]
    maps = [item.locate(picture, "a fin").scores for item in (first, again, other, trained)]
    np.testing.assert_array_equal(maps[0], maps[1])
    for one, two in ((0, 2), (0, 3)):
        assert abs(np.corrcoef(maps[one].ravel(), maps[two].ravel())[0, 1]) < 0.9
    for a, b in zip(first.backbone.model.parameters(), trained.backbone.model.parameters()):
        assert sorted(a.flatten().tolist()) == sorted(b.flatten().tolist())


def test_learned_explainers_have_short_names_and_their_training_counts_as_set_up(tmp_path: Path) -> None:
    trained = Localizer(LinearBackbone(32, 8), Settings(feature_norm="none"))
    example = TrainingExample(worlds.picture(0, True)[0], worlds.RED)
    explainer = train_on_concepts(trained, [example], LcamTraining(steps=1, batch_size=1))
    assert explainer.facts["seconds"] >= 0
    slow = replace(explainer, facts={"seconds": 1000.0})
    paths = [slow.save(tmp_path / f"{name}.safetensors") for name in ("fm", "img")]
    methods = tuple(f"lcam:{path}" for path in paths)
    found = evaluate(worlds.dataset(2), trained, methods=methods, gammas=(1.0,), baselines=(), draws=20)
    assert [row.name for row in found.rows][::2] == ["lcam:fm · gamma 1", "lcam:img · gamma 1"]
    assert all(row.setup_seconds >= 1000 for row in found.rows)
    same = configurations(("lcam:a/x.safetensors", "lcam:b/x.safetensors"), (), (1.0,), ())
    assert len({row.name for row in same}) == len(same) == 4
