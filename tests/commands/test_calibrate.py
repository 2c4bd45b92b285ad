"""``calibrate`` on masks that people drew, and ``locate --trust`` with what it wrote: planted colours, no weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from concept_cam.cli import main
from concept_cam.commands import calibrate as command
from concept_cam.commands import locate as locating
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.trust.kept import Trust
from tests.planted import PlantedBackbone

PACK = """
pack: blocks
host: block
characters:
  parts:
    kind: part
    entity: {label: block}
    templates: ["{}"]
    states:
      red: {phrases: [the red of a block]}
      green: {phrases: [the green of a block]}
"""


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of every command in this file."""

    def build(values: dict[str, object], rules: object = None) -> Localizer:
        kept = {name: values[name] for name in ("gamma", "size") if values.get(name) is not None}
        return Localizer(PlantedBackbone(64, 8), Settings(size=64).with_values(**kept), rules)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "build_localizer", build)
    monkeypatch.setattr(locating, "build_localizer", build)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures with a red block and, in most, a faint green one; and ten without."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for folder in ("set/images", "set/masks", "others"):
        (root / folder).mkdir(parents=True)
    for number in range(40):
        pixels = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        y, x = rng.integers(0, 3, 2) * 8
        masks = {"red": np.zeros((64, 64), np.uint8), "green": np.zeros((64, 64), np.uint8)}
        pixels[y : y + 16, x : x + 16, 0] = 250
        masks["red"][y : y + 16, x : x + 16] = 255
        pixels[40:48, 40:48, 1] = 70 if number % 2 else 200
        masks["green"][40:48, 40:48] = 255
        Image.fromarray(pixels).save(root / "set" / "images" / f"p{number}.png")
        for name, mask in masks.items():
            Image.fromarray(mask).save(root / "set" / "masks" / f"p{number}__{name}.png")
    for number in range(20):
        Image.fromarray(rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)).save(root / "others" / f"o{number}.png")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_rules_and_guarantees_are_fitted_and_used(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "others").symlink_to(photos / "others")  # looked behind, as in collections
    found = run("calibrate", f"folder:{photos / 'set'}", "--host", "picture", "--without", tmp_path / "linked", "-o", path)
    assert found.exit_code == 0, found.output
    assert "kind,maps,right,clear_limit,clear,right_among_clear" in found.stdout
    lines = [line.split(",") for line in found.stdout.splitlines() if line.startswith("0.")]
    assert {line[0] for line in lines} == {"0.05", "0.1", "0.2"}
    assert {line[1] for line in lines} == {"parts=red", "parts=green"}
    assert all(line[2] == "40" for line in lines)
    trust = Trust.read(path)
    assert trust.rules is not None
    assert trust.rules.hosts == ("picture",)
    assert trust.rules.facts["weights_hash"] == PlantedBackbone.weights_hash
    assert [item.alpha for item in trust.guarantees] == [0.05, 0.1, 0.2]

    # Asked in free words as the labels were.
    picture = photos / "set" / "images" / "p0.png"
    target = "the red of a picture"
    out = tmp_path / "out"
    located = run("locate", picture, "-t", target, "--trust", path, "--alpha", "0.2", "--format", "json", "-o", out)
    assert located.exit_code == 0, located.output
    (row,) = json.loads(located.stdout)
    assert 0 <= row["confidence"] <= 1
    assert 0 <= row["presence"] <= 1
    content = json.loads((out / "p0.json").read_text(encoding="utf-8"))
    assert content["results"][0]["guarantee"]["alpha"] == 0.2

    refused = run("locate", picture, "-t", target, "--trust", path, "--gamma", "0.5")
    assert refused.exit_code == 2
    assert "fitted with gamma 1.0, the maps are made with 0.5" in refused.output
    missing = run("locate", picture, "-t", target, "--trust", path, "--alpha", "0.3")
    assert "no guarantee at alpha 0.3; fitted: 0.05, 0.1, 0.2" in missing.output
    assert "--alpha belongs to --trust" in run("locate", picture, "-t", target, "--alpha", "0.3").output


def test_a_packs_parts_are_measured_without_naming_the_host(photos: Path, tmp_path: Path) -> None:
    """The rules hold for the pack's own questions, and the table counts the maps that they were fitted to."""
    pack, path = tmp_path / "blocks.yaml", tmp_path / "trust.json"
    pack.write_text(PACK, encoding="utf-8")
    found = run("calibrate", f"folder:{photos / 'set'}", "--traits", pack, "--without", photos / "others", "-o", path)
    assert found.exit_code == 0, found.output
    kind, maps, right = found.stdout.splitlines()[1].split(",")[:3]
    assert kind.rpartition("/")[2] == "part"
    assert int(maps) == 2 * (40 + 20)
    assert 40 <= int(right) <= 80
    located = run("locate", photos / "set" / "images" / "p0.png", "--traits", f"{pack}:parts=red", "--trust", path, "--format", "json")
    assert located.exit_code == 0, located.output
    (row,) = json.loads(located.stdout)
    assert 0 <= row["confidence"] <= 1
    assert "not measured" not in row["verdict_because"]


def test_parts_that_the_pack_does_not_know_are_named(photos: Path, tmp_path: Path) -> None:
    """Their row looked like one of the pack's; and the kinds of questions that the rules are for are said."""
    pack = tmp_path / "blocks.yaml"
    pack.write_text(PACK.replace("green", "blue"), encoding="utf-8")
    found = run("calibrate", f"folder:{photos / 'set'}", "--traits", pack, "--without", photos / "others", "-o", tmp_path / "t.json")
    assert found.exit_code == 0, found.output
    assert "in words of their own: 'green' as 'the green of a block'. Check the names" in found.stderr
    assert "'red'" not in found.stderr
    rest = "states of its characters and things by name have no confidence and no presence"
    assert f"the rules are for parts of an organism; {rest}" in found.stderr


def test_too_few_labels_promise_nothing(photos: Path, tmp_path: Path) -> None:
    spec = f"folder:{photos / 'set'}"
    found = run("calibrate", spec, "--host", "picture", "--limit", "3", "-o", tmp_path / "t.json")
    assert found.exit_code == 2
    assert "a guarantee at alpha 0.2 needs at least 4 labelled pictures" in found.output
    assert not (tmp_path / "t.json").exists()
    some = run("calibrate", spec, "--host", "picture", "--limit", "10", "--alpha", "0.05", "--alpha", "0.1", "-o", tmp_path / "t.json")
    assert some.exit_code == 0, some.output
    assert "no rules of trust were fitted" in some.output
    trust = Trust.read(tmp_path / "t.json")
    assert trust.rules is None
    assert [item.alpha for item in trust.guarantees] == [0.1]
    again = run("calibrate", spec, "-o", tmp_path / "t.json")
    assert again.exit_code == 2
    assert "exists. Use --overwrite" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("folder:nowhere", "--labels"), "--labels belongs to CALLS"),
        (("calls.csv", "--alpha", "0.1"), "--alpha belongs to DATA"),
        (("calls.csv", "--gamma", "0.5"), "--gamma belongs to DATA"),
        (("nowhere.csv",), "'nowhere.csv' does not exist"),
        (("cvta:x.xml",), "cvat"),
    ],
)
def test_options_of_the_other_form_are_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text("file_name,character,state,probability\n", encoding="utf-8")
    given = [str(tmp_path / "calls.csv") if item == "calls.csv" else item for item in arguments]
    given += [str(tmp_path / "calls.csv")] if arguments[-1] == "--labels" else []
    found = run("calibrate", *given, "-o", tmp_path / "x")
    assert found.exit_code == 2
    assert message in found.output


def test_careful_maps_say_how_far_they_agree(photos: Path) -> None:
    picture = photos / "set" / "images" / "p0.png"
    plain = json.loads(run("locate", picture, "-t", "red", "--format", "json").stdout)
    assert plain[0]["agreement"] is None
    found = run("locate", picture, "-t", "red", "--format", "json", "--careful")
    assert json.loads(found.stdout)[0]["agreement"] > 0.5
    refused = run("locate", picture, "-t", "red", "--careful", "--method", "center")
    assert refused.exit_code == 2
    assert "has no certificate" in refused.output


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_labelled_pictures_without_a_call_are_named(tmp_path: Path, ending: str) -> None:
    calls, labels = tmp_path / f"calls.{ending}", tmp_path / f"labels.{ending}"
    comma = "," if ending == "csv" else "\t"
    rows = [(f"{i}.jpg", "tail", "forked", "0.9", "forked") for i in range(4)]
    header = ("file_name", "character", "state", "probability", "true_state")
    calls.write_text("".join(comma.join(row) + "\n" for row in [header, *rows]), encoding="utf-8")
    labels.write_text("".join(comma.join(row) + "\n" for row in [header, *rows, ("4.jpeg", *rows[0][1:])]), encoding="utf-8")
    asked = ["calibrate", str(calls), "--accuracy", "0.5", "-o", str(tmp_path / "limits.yaml"), "--overwrite"]
    done = CliRunner().invoke(main, [*asked, "--labels", str(labels)])
    assert done.exit_code == 0, done.output
    assert "1 of 5 labelled pictures have no call and count for nothing, the first '4.jpeg'" in done.output
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert "have no call" not in done.output
