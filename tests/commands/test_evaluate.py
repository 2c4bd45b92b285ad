import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from concept_cam.cli import main
from concept_cam.commands import evaluate as commands
from concept_cam.core.settings import Settings
from concept_cam.demo.worlds import ROOMS
from concept_cam.localizer import Localizer
from tests import worlds
from tests.planted import PlantedBackbone


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of every command in this file: no weights are loaded."""

    def build(values: dict[str, object]) -> Localizer:
        kept = {name: values[name] for name in ("gamma", "weighting", "resize", "size") if values.get(name) is not None}
        return Localizer(PlantedBackbone(32, 8), Settings(feature_norm="none").with_values(**kept))

    monkeypatch.setattr(commands, "build_localizer", build)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        pixels, masks = worlds.picture(number, True)
        Image.fromarray(pixels).save(root / "images" / f"p{number}.png")
        masks["thing"] = masks["red"] | masks["green"] | masks["white"]
        for name in ("red", "green", "thing"):
            Image.fromarray(np.where(masks[name], 255, 0).astype(np.uint8)).save(root / "masks" / f"p{number}__{name}.png")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_evaluate_writes_a_report(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    found = run(
        "evaluate",
        "-d",
        f"folder:{photos}",
        "--host",
        "thing",
        "-g",
        "0.5,1",
        "--draws",
        20,
        "--examples",
        2,
        "-o",
        out,
    )
    assert found.exit_code == 0, found.output
    assert {path.name for path in out.iterdir()} == {
        "report.html",
        "report.json",
        "report.md",
        "questions.csv",
    }
    rows = json.loads((out / "report.json").read_text(encoding="utf-8"))["rows"]
    names = [row["name"] for row in rows]
    assert names == [
        "direct · gamma 0.5",
        "direct · gamma 1",
        "direct · gamma 0",
        "random",
        "center",
        "luminance",
        "subject",
    ]
    assert rows[1]["tables"]["part"]["ap_host"]["value"] > rows[2]["tables"]["part"]["ap_host"]["value"]
    assert "| direct · gamma 1 |" in found.stdout
    again = run("evaluate", "-d", f"folder:{photos}", "--host", "thing", "-o", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-d", "fishes"), "unknown data set"),
        (("-d", "folder:/none/such"), "not a folder"),
        (("--methods", "grad-kam"), "unknown method"),
        (("-d", "synthetic", "--split", "val"), "option 'split'"),
        (("--gamma", "much"), "expected numbers"),
    ],
)
def test_evaluate_names_what_is_wrong(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    found = run("evaluate", *arguments, "-o", tmp_path / "out")
    assert found.exit_code == 2
    assert message in found.output


def test_the_help_lists_every_world() -> None:
    """Of their own table, which nothing but names is read of."""
    (world,) = (option for option in commands.evaluate.params if option.name == "world")
    assert f"what is rendered: {', '.join(ROOMS)}." in str(world.help)


def test_sweep_writes_a_configuration(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.yaml"
    found = run(
        "sweep", "-d", f"folder:{photos}", "--host", "thing", "-g", "0,1", "-w", "uniform", "--templates", "own", "--size", "40",
        "-o", out,
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert yaml.safe_load(out.read_text(encoding="utf-8")) == {
        "model": "planted",
        "attention": "value",
        "gamma": 1.0,
        "weighting": "uniform",
        "size": 40,
        "feature_norm": "none",
    }
    assert len(found.stdout.splitlines()) == 3
    assert run("sweep", "-d", f"folder:{photos}", "-o", out).exit_code == 2
    assert "either --dataset" in run("sweep", "-o", tmp_path / "x.yaml").output


def test_sweep_without_labels(photos: Path, tmp_path: Path) -> None:
    pack = tmp_path / "colours.yaml"
    pack.write_text(
        "schema: 1\npack: colours\ntitle: Colours\nhost: thing\ntemplates: ['{}']\ncharacters:\n  colour:\n    kind: colour\n"
        "    entity: {label: thing}\n    states:\n      red: {phrases: [a red thing]}\n      green: {phrases: [a green thing]}\n",
        encoding="utf-8",
    )
    out = tmp_path / "best.yaml"
    found = run(
        "sweep",
        "--unlabelled",
        photos / "images",
        "--concepts",
        pack,
        "-g",
        "0,1",
        "-w",
        "uniform",
        "-o",
        out,
    )
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("agreement,low,high")
    assert out.exists()
    # What is hidden, such as what macOS writes beside a picture on a foreign disk, is no picture.
    (photos / "images" / "._a.png").write_bytes(b"no picture")
    again = run("sweep", "--unlabelled", photos / "images", "--concepts", pack, "-g", "0,1", "-w", "uniform", "-o", out, "--overwrite")
    assert again.exit_code == 0, again.output
    # What cannot be read is told, as evaluate tells it; the rest is searched.
    (photos / "images" / "bad.png").write_bytes(b"no picture")
    partly = run("sweep", "--unlabelled", photos / "images", "--concepts", pack, "-g", "0,1", "-w", "uniform", "-o", out, "--overwrite")
    assert partly.exit_code == 1
    assert partly.stdout == found.stdout
    assert "1 pictures could not be used. The first error: " in partly.output
    (tmp_path / "empty").mkdir()
    empty = run("sweep", "--unlabelled", tmp_path / "empty", "-o", tmp_path / "none.yaml")
    assert empty.exit_code == 2
    assert "holds no pictures" in empty.output


def test_calibrate_from_a_table(tmp_path: Path) -> None:
    table, out = tmp_path / "calls.csv", tmp_path / "limits.yaml"
    lines = ["file_name,character,state,probability,true_state"]
    lines += [f"f{i}.jpg,tail,forked,{0.5 if i % 5 == 0 else 0.9},{'rounded' if i % 5 == 0 else 'forked'}" for i in range(40)]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = run("calibrate", table, "-o", out)
    assert found.exit_code == 0, found.output
    assert yaml.safe_load(out.read_text(encoding="utf-8"))["limits"]["tail"]["value"] == pytest.approx(0.9)
    assert found.stdout.splitlines()[2].startswith("tail,probability,0.9000,40,32,1.000")
    assert "a run needs labels" in run("calibrate", tmp_path, "-o", out).output
    never = run("calibrate", table, "--target", "0.99", "-o", tmp_path / "never.yaml")
    assert "no limit reaches 0.99" in never.output


@pytest.mark.parametrize("tool", ["cvat", "label-studio"])
def test_calibrate_from_corrected_labels(tool: str, tmp_path: Path) -> None:
    """A run goes out to a labelling tool, a person corrects a state, and the file that comes back fits the limits."""
    pytest.importorskip("pyarrow", reason="annotation runs need the extra 'annotate'")
    from concept_cam.exports import export
    from tests.exports.planted import plant
    from tests.exports.test_labelstudio import as_annotations

    planted = plant(tmp_path)
    if tool == "cvat":
        labels = export(planted.path, "cvat", tmp_path / "annotations.xml")
    else:
        labels = tmp_path / "export.json"
        as_annotations(export(planted.path, "label-studio", tmp_path / "tasks"), labels)
    found = run(
        "calibrate",
        planted.path,
        "--labels",
        labels,
        "--least",
        "2",
        "--target",
        "0.5",
        "-o",
        tmp_path / "a.yaml",
    )
    if tool == "cvat":  # It came back as it went out: nobody looked, and every call would be right.
        assert found.exit_code == 2
        assert "equal the model's calls, and none is marked as reviewed" in found.output
        ticked = Path(labels).read_text(encoding="utf-8").replace('name="reviewed">false', 'name="reviewed">true')
        Path(labels).write_text(ticked, encoding="utf-8")
        found = run("calibrate", planted.path, "--labels", labels, "--least", "2", "--accuracy", "0.5", "-o", tmp_path / "a.yaml")
    assert found.exit_code == 0, found.output
    shape = yaml.safe_load((tmp_path / "a.yaml").read_text(encoding="utf-8"))["limits"]["caudal_fin_shape"]
    assert shape["accuracy"] == 1.0
    assert "nan" not in found.stdout

    text = Path(labels).read_text(encoding="utf-8")
    state = next(r["state"] for r in planted.records if r["character"] == "caudal_fin_shape" and not r["abstained"])
    other = next(name for name in ("rounded", "truncate") if name != state)
    if tool == "cvat":
        assert f">{state}</attribute>" in text
        text = text.replace(f">{state}</attribute>", f">{other}</attribute>")
    else:
        tasks = json.loads(text)
        for task in tasks:
            task["annotations"] = json.loads(json.dumps(task["annotations"]).replace(f'"{state}"', f'"{other}"'))
        assert json.dumps(tasks) != json.dumps(json.loads(text))
        text = json.dumps(tasks)
    corrected = tmp_path / f"corrected{Path(labels).suffix}"
    corrected.write_text(text, encoding="utf-8")
    again = run(
        "calibrate",
        planted.path,
        "--labels",
        corrected,
        "--least",
        "2",
        "--target",
        "0.5",
        "-o",
        tmp_path / "b.yaml",
    )
    assert again.exit_code == 0, again.output
    worse = yaml.safe_load((tmp_path / "b.yaml").read_text(encoding="utf-8"))["limits"]["caudal_fin_shape"]
    assert worse["kept"] < shape["kept"] or worse["accuracy"] < 1.0


@pytest.mark.parametrize("command", ["evaluate", "sweep", "calibrate"])
def test_help_has_examples(command: str) -> None:
    found = run(command, "--help")
    assert found.exit_code == 0
    assert f"concept-cam {command}" in found.output


@pytest.mark.parametrize("command", ["evaluate", "sweep"])
def test_an_output_that_cannot_be_written_is_found_before_the_work(
    command: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("concept_cam.evaluation.runner.evaluate", work)
    monkeypatch.setattr("concept_cam.evaluation.tuning.sweep", work)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "questions.csv").write_text("kept")
    outputs = [tmp_path / "file" / "inside", tmp_path / ("n" * 300)]
    outputs.append(tmp_path / "report" if command == "evaluate" else tmp_path / "missing" / "best.yaml")
    for output in outputs:
        result = CliRunner().invoke(main, [command, "-d", f"folder:{photos}", "--host", "thing", "-o", str(output)])
        assert result.exit_code == 2, result.output
        assert "error: cannot" in result.stderr or "exists. Use --overwrite" in result.stderr
        assert result.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["questions.csv"]


@pytest.mark.parametrize("metrics", ["counterfactual", "points"])
def test_a_report_about_nothing_is_an_error(metrics: str, photos: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "-d", f"folder:{photos}", "--host", "thing", "--metrics", metrics, "-o", str(tmp_path / "report")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert f"nothing could be measured by --metrics {metrics}: no question about the 4 pictures" in result.stderr
    assert not list((tmp_path / "report").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--unlabelled", "{photos}/images", "--host", "fish"], "--host belongs to --dataset and says nothing about --unlabelled"),
        (["--unlabelled", "{photos}/images", "--world", "fish"], "--world belongs to --dataset"),
        (["-d", "folder:{photos}", "--concepts", "fish"], "--concepts belongs to --unlabelled and says nothing about --dataset"),
    ],
)
def test_sweep_refuses_options_that_would_say_nothing(arguments: list[str], said: str, photos: Path, tmp_path: Path) -> None:
    named = [part.format(photos=photos) for part in arguments]
    result = CliRunner().invoke(main, ["sweep", *named, "-o", str(tmp_path / "best.yaml")])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
