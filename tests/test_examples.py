"""The notebook's cells run, and the committed example pictures are what the renderer makes."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from concept_cam import Localizer
from concept_cam.commands import example
from concept_cam.demo.worlds import WORLDS
from concept_cam.evaluation.datasets import synthetic
from tests.planted import PlantedBackbone
from tests.test_readme import needs_model

EXAMPLES = Path(__file__).parent.parent / "examples"


@needs_model
def test_the_notebook_runs() -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), names)
    assert names["found"].heatmap.shape == example.EXAMPLE_SIZE


@pytest.mark.parametrize("name", example.FISH)
def test_stored_pictures_are_rendered_again(name: str) -> None:
    """Rendering is deterministic: at most 3/255 from the stored reference, on any machine."""
    stored = np.asarray(Image.open(EXAMPLES / "images" / f"{example.FISH[name].name}.png").convert("RGB")).astype(int)
    assert abs(stored - example.render_fish(name).astype(int)).max() <= 3


@pytest.mark.parametrize("group", ["lepidoptera", "plant"])
def test_a_sheet_shows_pictures_and_masks_of_a_world(group: str, tmp_path: Path) -> None:
    world_sheet = importlib.import_module("world_sheet")
    out = tmp_path / "sheet.png"
    done = CliRunner().invoke(world_sheet.main, [group, "-o", str(out), "--count", "2", "--size", "64", "--seed", "3"])
    assert done.exit_code == 0, done.output
    named = dict(line.split("  ")[::-1] for line in done.output.splitlines())
    assert set(named) == set(WORLDS[group].masks)
    drawn = np.asarray(Image.open(out).convert("RGB"))
    assert drawn.shape[1] > 4 * world_sheet.PANEL * 0.9
    refused = CliRunner().invoke(world_sheet.main, [group, "-o", str(out), "--trait", "wings=wax"])
    assert refused.exit_code == 1
    assert "unknown character 'wings'" in refused.output


def test_rendering_speed_of_a_world_is_printed() -> None:
    worlds = importlib.import_module("benchmarks.worlds")
    done = CliRunner().invoke(worlds.main, ["--world", "plant", "--pictures", "2", "--size", "32", "--repeats", "1"])
    assert done.exit_code == 0, done.output
    name, *rates = (cell.strip() for cell in done.output.splitlines()[-1].strip("|").split("|"))
    assert name == "plant"
    assert all(float(rate) > 0 for rate in rates)


@needs_model
@pytest.mark.slow
def test_weights_and_views_are_compared_on_pictures_that_are_not_the_benchmarks() -> None:
    script = [sys.executable, str(EXAMPLES / "benchmarks" / "compare_weights.py"), "demo", "--pictures", "2"]
    done = subprocess.run([*script, "--views", "single", "--views", "mirrored"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert f"seed {synthetic.SEED}" not in table[1]
    for row, view in zip(table[-2:], ("single", "mirrored"), strict=True):
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        assert name == f"demo, {view}"
        # Chance is below 0.1; two pictures are few, but not all can be missed.
        assert all(0.3 < float(number.strip("()")) <= 1.0 for number in cells[0].split())
    refused = subprocess.run([*script, "--mask", "head=head"], capture_output=True, text=True)
    assert refused.returncode == 2


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("benchmarks/contrast_pairs.py", ["--model", "nosuch"]),
        ("benchmarks/compare_weights.py", ["nosuch"]),
        ("benchmarks/places.py", ["--model", "nosuch"]),
        ("benchmarks/trust.py", ["knows", "--model", "nosuch"]),
        ("benchmarks/annotate_throughput.py", ["--architecture", "nosuch", "--one", "2", "--folder", "."]),
        ("benchmarks/classifier_cost.py", ["--networks", "nosuch"]),
        ("training/fit_trust.py", ["--model", "nosuch", "--folder", "made"]),
    ],
)
def test_a_wrong_model_ends_a_script_in_one_sentence(
    script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = EXAMPLES / script
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(re.escape(path.name) + ": error: unknown (model|architecture|network) 'nosuch'[.:] Known", said), said


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("benchmarks/worlds.py", ["--pictures", "0"], "Invalid value for '--pictures': 0 is not in the range x>=1."),
        ("benchmarks/rendering.py", ["--pairs", "0"], "Invalid value for '--pairs': 0 is not in the range x>=1."),
        ("benchmarks/places.py", ["--count", "0"], "argument --count: received '0': expected a whole number of at least 1."),
        ("campaigns/hostile.py", ["read", "--count", "many"], "argument --count: received 'many': expected a whole number of at least 1."),
        ("world_sheet.py", ["fish", "-o", "sheet.nosuch"], "expected a picture's name such as sheet.png."),
        ("benchmarks/rendering.py", ["--device", "nosuch"], "rendering.py: error: unknown device 'nosuch': expected 'cpu',"),
        ("training/train.py", ["--folder", "/nosuch", "--device", "nosuch"], "train.py: error: unknown device 'nosuch'"),
        ("training/train.py", ["--folder", "/nosuch", "--device", "cpu", "--render-device", "g"], "train.py: error: unknown device 'g'"),
        ("training/distil.py", ["--folder", "/nosuch", "--device", "nosuch"], "distil.py: error: unknown device 'nosuch'"),
        ("training/distil.py", ["--folder", "/nosuch", "--minutes", "-1"], "argument --minutes: received '-1': expected a number above 0."),
        ("benchmarks/trust.py", ["knows", "--real", "/nosuch"], "argument --real: there is no folder '/nosuch'. Check the path."),
        ("training/sharpness.py", ["--folder", "/nosuch"], "argument --folder: there is no folder '/nosuch'. Check the path."),
    ],
)
def test_a_wrong_argument_is_refused_before_the_work(
    script: str, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nought was once taken for the default, and everything was computed."""
    path = EXAMPLES / script
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("script", "options"), [("body_lengths.py", []), ("held_out.py", ["--output", "out", "--photographs"])])
def test_masks_that_no_picture_has_are_refused(
    script: str, options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped key gave an empty table."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, value in (("a", 100), ("a__head", 255)):
        Image.fromarray(np.full((64, 64), value, np.uint8)).save(folder / f"{name}.png")
    path = EXAMPLES / "benchmarks" / script
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *options, str(folder), "--mask", "head=nope"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 2
    assert "has masks 'nope', received 'head=nope'. Expected one of head." in " ".join(capsys.readouterr().err.split())


def test_modules_of_the_training_are_called_as_its_readme_calls_them() -> None:
    for path in [*(EXAMPLES / "training").glob("*.py"), EXAMPLES / "training" / "README.md"]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "python -m" not in line or "PYTHONPATH=examples python -m training." in line, (path.name, line)


def test_every_script_explains_wrong_inputs() -> None:
    scripts = [path for path in EXAMPLES.rglob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
    assert len(scripts) > 20
    for path in scripts:
        assert path.read_text(encoding="utf-8").endswith('if __name__ == "__main__":\n    run_script(main)\n'), path


def test_misses_are_measured_from_the_peak_to_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a bar four pixels thick, and peaks on it, beside it and far away."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    thin = importlib.import_module("thin_parts")
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:14, 5:50] = True
    for place, far in (((11, 20), 0.0), ((16, 20), 3.0), ((13, 53), 4.0), ((17, 52), 5.0)):
        heatmap = np.zeros(mask.shape, dtype=np.float32)
        heatmap[place] = 1.0
        assert thin.miss(heatmap, mask) == pytest.approx(far)
    assert thin.thickness(mask) in (3.0, 4.0)
    assert thin.hits({"bar": [0.0, 3.0], "dot": [0.0]}) == pytest.approx(2 / 3)


def test_the_model_without_specialists_differs_in_maps_and_in_what_specialists_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    plain, own = importlib.import_module("specialists").without_specialists(), Localizer.from_pretrained()
    readers = own.backbone.model.image.readers
    assert set() < set(readers) < set(WORLDS), "else both kinds are not told apart"
    for world in WORLDS:
        picture = np.asarray(next(iter(synthetic.load(1, world=world).stream())).image)
        one, other = plain.encode(picture), own.encode(picture)
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image)) == (world not in readers)
        assert not np.array_equal(np.asarray(one.patches), np.asarray(other.patches))


@pytest.mark.parametrize(
    ("text", "message"), [("refine", "expected NAME=VALUE"), ("=1", "expected NAME=VALUE"), ("refine=guidd", "Did you mean")]
)
def test_settings_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    """Without a value a column would be as the one beside it, without a word."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    thin = importlib.import_module("thin_parts")
    with pytest.raises(click.BadParameter, match=message):
        thin.changed_by(text, Localizer(PlantedBackbone(64, 8)))


def test_pairs_differ_in_the_character_that_is_asked_and_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    pairs = importlib.import_module("contrast_pairs")
    asked = ("dorsal_fin_number", "adipose_fin")
    found = list(pairs.draw(WORLDS["fish"], asked, 3, 4, (64, 96)))
    assert [sum(pair.character == name for pair in found) for name in asked] == [3, 3]
    assert len({(pair.number, pair.character) for pair in found}) == 6
    assert {pair.state for pair in found if pair.character == "adipose_fin"} == {"present"}
    for pair in found:
        differ = np.abs(pair.picture.astype(int) - pair.twin.astype(int)).max(2) >= 6
        # Noise, where it follows the light, differs by itself at some pixels of the rest.
        assert differ[pair.changed].mean() > 0.8 > 0.1 > differ[~pair.changed].mean()
        assert 0 < pair.changed.mean() < 0.5
    changed = np.zeros((16, 24), dtype=bool)
    changed[4:12, 8:16] = True
    assert pairs.ceiling(changed, 4) > 0.95 > pairs.ceiling(changed, 16)


@needs_model
def test_what_contrast_adds_to_pairs_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    pairs = importlib.import_module("contrast_pairs")
    done = CliRunner().invoke(pairs.main, ["--pairs", "2", "--character", "adipose_fin"])
    assert done.exit_code == 0, done.output
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.output.splitlines() if line.startswith("| adipose_fin")]
    assert [len(row) for row in rows] == [6, 5, 5]
    assert [row[1] for row in rows] == ["2"] * 3
    # An adipose fin is found: its map lies on what changes, contrasted or not.
    assert float(rows[0][2]) > 0.4
    refused = CliRunner().invoke(pairs.main, ["--character", "wings"])
    assert refused.exit_code == 2
    assert "'wings' is no character of fish" in refused.output


@needs_model
@pytest.mark.slow
def test_the_held_out_benchmark_prints_its_tables(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "benchmarks" / "held_out.py"), "--output", str(tmp_path / "out")]
    done = subprocess.run([*script, "--pictures", "2", "--validation", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in ("| **mean over the parts** |", "| **mean over the characters** |", "Best with contrast: gamma", "| **all characters** |"):
        assert line in done.stdout
    assert (tmp_path / "out" / "benchmark" / "report.json").is_file()
    for wrong, message in (
        (("--mask", "head"), "expected PART=KEY"),
        (("--mask", "tail=tail"), "expected PART=KEY with a part of head, "),
        (("--mask", "head=head"), "--photographs DIR"),
    ):
        refused = subprocess.run([*script, *wrong], capture_output=True, text=True)
        assert refused.returncode == 2
        assert message in " ".join(refused.stderr.split())


@pytest.mark.slow
def test_the_experiment_on_learned_explainers_prints_its_tables(tmp_path: Path) -> None:
    """Nothing is learned in one step: this proves that the command runs, and that no step is run again. Last run: 27 November 2026."""
    script = [sys.executable, str(EXAMPLES / "benchmarks" / "lcam_causes.py"), "-o", str(tmp_path / "out")]
    small = ["--pictures", "50", "--epochs", "1", "--fm-steps", "1", "--img-steps", "1", "--test", "10", "--pairs", "2", "--masks", "2"]
    done = subprocess.run([*script, *small, "--channel-groups", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in ("| L-CAM-Fm, the authors' training; before the sigmoid |", "| L-CAM-Fm rows, on the other five classes |", "| RISE |"):
        assert done.stdout.count(line) == 4, line  # Two tables for all classes, two for half of them.
    again = subprocess.run([*script, *small, "--channel-groups", "2"], capture_output=True, text=True)
    assert again.stdout == done.stdout
    assert "measuring" not in again.stderr


def test_planted_patterns_have_masks_that_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "benchmarks"))
    import planted_patterns as planted

    generator = np.random.default_rng(0)
    for labels in ((3,), (0, 9), (5, 2)):
        found = planted.picture(generator, labels)
        assert found.pixels.shape == (planted.SIDE, planted.SIDE, 3)
        assert tuple(found.masks) == labels
        assert np.sum(list(found.masks.values()), axis=0).max() == 1
        # A thing shows two colours, light and dark, in its pattern; its mean differs from its ends.
        for mask in found.masks.values():
            grey = found.pixels[mask].astype(float).mean(axis=1)
            assert np.quantile(grey, 0.9) - np.quantile(grey, 0.1) > 20
