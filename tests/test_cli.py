from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from concept_cam import __version__, backbones
from concept_cam.cli import COMMANDS, main
from concept_cam.commands.console import PathName
from concept_cam.commands.locate import LOCATE_COLUMNS, slug, unique_stems
from tests.planted import PlantedBackbone
from tests.test_localizer import blocks


@pytest.fixture(autouse=True)
def planted_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "load", lambda name, **_: PlantedBackbone())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "blocks.png"
    Image.fromarray(blocks(64, 96)).save(path)
    return path


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def rows(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_a_picture_without_the_target_does_not_stop_the_rest(picture: Path, tmp_path: Path) -> None:
    green = tmp_path / "green.png"
    Image.new("RGB", (96, 64), (0, 255, 0)).save(green)
    out = tmp_path / "out"
    result = run("locate", green, picture, "-t", "red", "-c", "green", "-o", out)
    assert result.exit_code == 0, result.output
    nothing, found = rows(result)
    assert nothing["x"] == ""
    assert nothing["area_frac"] == ""
    assert int(found["width"]) > 0
    assert json.loads((out / "green.json").read_text())["results"][0]["regions"] == []
    assert not np.asarray(Image.open(out / "green__red.mask.png")).any()


def test_a_picture_that_is_named_twice_is_looked_at_once(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, folder = tmp_path / "out", tmp_path / "d" / "a"
    folder.mkdir(parents=True)
    Image.open(picture).save(folder / "x.png")
    monkeypatch.chdir(tmp_path)
    result = run("locate", "d/a", "d/a/x.png", "./d/a/x.png", "-", picture, "-t", "red", "-o", out, stdin=f"{picture}\n")
    assert result.exit_code == 0, result.output
    assert [Path(row["file_name"]).name for row in rows(result)] == ["x.png", "blocks.png"]
    assert "3 of 5 names are of pictures named before" in result.stderr
    assert sorted(path.name for path in out.glob("*.json")) == ["blocks.json", "x.json"]
    assert "named before" not in run("locate", picture, folder / "x.png", "-t", "red").stderr


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the file system takes names in Unicode only")
def test_a_file_name_that_is_not_utf8(picture: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    odd.write_bytes(picture.read_bytes())
    out = tmp_path / "out"
    assert run("locate", odd, picture, "-t", "red", "-o", out).exit_code == 0
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    assert {record["file_name"] for record in records} == {str(odd), str(picture)}
    assert slug(os.fsdecode(b"\xe9")) != slug(os.fsdecode(b"\xe8"))


def test_the_table_on_stdout_runs_in_no_spreadsheet(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers below zero stay numbers, and JSON stays as it is."""
    monkeypatch.chdir(picture.parent)
    picture.rename(picture.with_name("=1+2.png"))
    asked = ("locate", "=1+2.png", "-t", "@red", "-c", "-green", "--gamma", 2)
    (row,) = rows(run(*asked))
    assert (row["file_name"], row["target"], row["contrast"]) == ("'=1+2.png", "'@red", "'-green")
    (plain,) = json.loads(run(*asked, "--format", "json").stdout)
    assert (plain["file_name"], plain["target"], plain["contrast"]) == ("=1+2.png", "@red", "-green")
    assert float(row["score"]) == plain["score"] < 0


def test_one_row_per_picture_and_concept(picture: Path) -> None:
    result = run("locate", picture, "--target", "red", "--target", "green", "--contrast", "blue", "--contrast", "plain", "--threshold", 0.3)
    assert result.exit_code == 0, result.output
    table = rows(result)
    assert tuple(table[0]) == LOCATE_COLUMNS
    assert [row["target"] for row in table] == ["red", "green"]
    assert table[0]["contrast"] == "blue | plain"
    assert table[0]["model"] == "planted"
    assert all(row["verdict_because"].endswith(".") and not row["verdict_because"].startswith(row["verdict"]) for row in table)
    red, green = table
    assert float(red["peak_x"]) < 48
    assert float(red["peak_y"]) < 32
    assert float(green["peak_x"]) > 48
    assert 0 < float(red["probability"]) < 1
    assert (int(red["x"]), int(red["y"])) == (0, 0)
    assert abs(int(red["width"]) - 48) <= 12
    assert float(red["area_frac"]) == pytest.approx(0.25, abs=0.12)


def test_no_contrast_leaves_probability_empty_and_no_region_leaves_the_box_empty(picture: Path) -> None:
    row = rows(run("locate", picture, "-t", "red", "--threshold", 5))[0]
    assert row["probability"] == ""
    assert row["x"] == row["width"] == row["area_frac"] == ""


def test_files_under_output(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("locate", picture, "-t", "red", "-c", "green", "-o", out).exit_code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["blocks.json", "blocks__red.mask.png", "blocks__red.overlay.png", "blocks__red.scores.npz"]
    record = json.loads((out / "blocks.json").read_text(encoding="utf-8"))
    assert record["results"][0]["concept"]["contrast_names"] == ["green"]
    assert record["results"][0]["provenance"]["model"] == "planted"
    mask = np.asarray(Image.open(out / "blocks__red.mask.png"))
    assert mask.shape == (64, 96)
    assert mask[8, 8] == 255
    assert mask[-8, -8] == 0
    with np.load(out / "blocks__red.scores.npz", allow_pickle=False) as data:
        assert data["scores"].shape == (4, 4)
    again = run("locate", picture, "-t", "red", "-c", "green", "-o", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert run("locate", picture, "-t", "red", "-c", "green", "-o", out, "--overwrite").exit_code == 0


def test_equal_names_in_different_folders_never_collide(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("fish.png", "fish.jpg"):
            Image.fromarray(blocks()).save(tmp_path / folder / name)
            paths.append(tmp_path / folder / name)
    out = tmp_path / "out"
    assert run("locate", *paths, "-t", "red", "-o", out).exit_code == 0
    assert len(list(out.glob("*.json"))) == 4
    files = {json.loads(path.read_text())["file_name"] for path in out.glob("*.json")}
    assert files == {str(path) for path in paths}


def test_bad_pictures_are_reported_and_the_rest_done(picture: Path, tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.png", tmp_path / "text.jpg"
    empty.touch()
    text.write_text("no picture")
    truncated = tmp_path / "cut.jpg"
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(buffer, "JPEG")
    truncated.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    result = run("locate", empty, picture, text, truncated, tmp_path / "missing.png", "-t", "red")
    assert result.exit_code == 1
    assert [row["file_name"] for row in rows(result)] == [str(picture)]
    for name in ("empty.png", "text.jpg", "cut.jpg", "missing.png", "4 of 5"):
        assert name in result.stderr


def test_paths_from_standard_input(picture: Path) -> None:
    result = run("locate", "-", "-t", "red", stdin=f"{picture}\n\n")
    assert [row["file_name"] for row in rows(result)] == [str(picture)]
    assert run("locate", "-", "-t", "red", stdin="").exit_code == 2


def test_every_setting_is_an_option_that_arrives(picture: Path, tmp_path: Path) -> None:
    for given, expected in ((("--views", "mirrored"), "mirrored"), ((), "single")):
        out = tmp_path / expected
        result = run("locate", picture, "--target", "red", "--gamma", 0.5, "--resize", "squash", *given, "-o", out)
        assert result.exit_code == 0, result.output
        record = json.loads((out / "blocks.json").read_text())["results"][0]["provenance"]
        assert (record["views"], record["gamma"], record["resize"]) == (expected, 0.5, "squash")


def test_json_and_table(picture: Path) -> None:
    record = json.loads(run("locate", picture, "-t", "red", "--format", "json").stdout)
    assert record[0]["target"] == "red"
    table = run("locate", picture, "-t", "red", "--format", "table").stdout.splitlines()
    assert table[0].split()[:2] == ["file_name", "target"]


def test_class_list_mode(picture: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("# colours\nred\ngreen\n\nblue\n", encoding="utf-8")
    row = rows(run("locate", picture, "--classes", classes, "--target", "red", "--references", 1))[0]
    assert row["target"] == "red"
    assert row["contrast"] in ("green", "blue")
    assert "at most one" in run("locate", picture, "--classes", classes, "--contrast", "blue").stderr
    classes.write_text("red\n")
    assert "at least two" in run("locate", picture, "--classes", classes).stderr


def test_configuration_file(picture: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("gamma: 0\nthreshold: 0.3\n")
    contrasted = float(rows(run("locate", picture, "-t", "red", "-c", "green"))[0]["score"])
    plain = float(rows(run("locate", picture, "-t", "red"))[0]["score"])
    assert float(rows(run("locate", picture, "-t", "red", "-c", "green", "--config", config))[0]["score"]) == pytest.approx(plain)
    assert float(rows(run("locate", picture, "-t", "red", "-c", "green", "--config", config, "-g", 1))[0]["score"]) == pytest.approx(
        contrasted
    )
    config.write_text("gama: 0\n")
    assert "'gamma'" in run("locate", picture, "-t", "red", "--config", config).stderr
    config.write_text("gamma: [1\n")
    assert "YAML" in run("locate", picture, "-t", "red", "--config", config).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to find"),
        (("-c", "red"), "belongs to --target"),
        (("-t", " "), "empty"),
        (("-t", "red", "-c", "Red"), "equals the target"),
        (("-t", "red", "-t", "red"), "twice"),
        (("-t", "red", "--threshold", "ostu"), "'otsu'"),
        (("-t", "red", "--weighting", "unifrom"), "Did you mean 'uniform'?"),
        (("-t", "red", "--resize", "pda"), "Did you mean 'pad'?"),
        (("-t", "red", "-g", "-1"), "gamma"),
        (("-t", "red " * 30), "limit is 16"),
        (("-t", "red", "--references", "2"), "--classes"),
        (("-t", "red", "-o", "/proc/nowhere/out"), "cannot create the folder"),
        (("-t", "red", "--method", "gradcm"), "unknown"),
    ],
)
def test_wrong_options_give_one_clear_line(picture: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("locate", picture, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout in ("", ",".join(LOCATE_COLUMNS) + "\n")


def test_unknown_words_are_named(picture: Path) -> None:
    result = run("locate", picture, "-t", "red zzfin", "-c", "green")
    assert result.exit_code == 0
    assert "'zzfin'" in result.stderr


def test_unknown_command_names_the_nearest() -> None:
    result = run("lokate", "x.png")
    assert result.exit_code == 2
    assert "'locate'" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert f"concept-cam {name}" in result.output
    assert "Example" in result.output


def test_slugs_are_safe_and_keep_all_scripts() -> None:
    assert slug("a forked tail fin") == "a-forked-tail-fin"
    assert slug("хвост / рыбы") == "хвост-рыбы"
    assert slug("../..") != "../.."
    assert "/" not in slug("a/b\\c:d*e")
    long = slug("x" * 300)
    assert len(long) <= 60
    assert slug("x" * 301) != long


def test_unique_stems() -> None:
    stems = unique_stems(["/p/a/f.jpg", "/p/b/f.jpg", "/p/b/F.png", "/p/g.jpg"])
    assert stems["/p/g.jpg"] == "g"
    assert len({stem.casefold() for stem in stems.values()}) == 4


def test_help_and_import_load_neither_torch_nor_open_clip() -> None:
    code = (
        "import sys; import concept_cam; from concept_cam.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'open_clip', 'transformers', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert "locate" in result.stdout


@pytest.mark.slow
def test_help_starts_within_three_times_of_click() -> None:
    def median(*arguments: str) -> float:
        times = []
        for _ in range(11):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    assert median("-m", "concept_cam.cli", "--help") < 3 * median("-c", "import click")


def test_verdicts_at_the_command_line(picture: Path, tmp_path: Path) -> None:
    table = rows(run("locate", picture, "-t", "red", "-t", "zzz", "-c", "green"))
    verdicts = [row["verdict"] for row in table]
    assert set(verdicts) <= {"clear", "doubtful", "not about the prompt", "absent"}
    kept = run("locate", picture, "-t", "red", "-t", "zzz", "-c", "green", "--only", verdicts[0], "-o", tmp_path / "out", "--explain")
    assert [row["target"] for row in rows(kept)] == [row["target"] for row in table if row["verdict"] == verdicts[0]]
    content = json.loads((tmp_path / "out" / "blocks.json").read_text())
    assert content["results"][0]["certificate"]["verdict"] == verdicts[0]
    plain = Image.open(tmp_path / "out" / "blocks__red.overlay.png").height
    assert run("locate", picture, "-t", "red", "-c", "green", "-o", tmp_path / "plain").exit_code == 0
    assert plain > Image.open(tmp_path / "plain" / "blocks__red.overlay.png").height
    none = run("locate", picture, "-t", "red", "--method", "center", "--only", "clear")
    assert rows(none) == []
    assert "1 maps of another verdict than 'clear' were left out" in none.stderr


def test_the_package_runs_as_a_module() -> None:
    made = subprocess.run([sys.executable, "-m", "concept_cam", "--version"], capture_output=True, text=True, check=True)
    assert made.stdout == f"concept-cam, version {__version__}\n"


def test_notes_on_a_picture_are_plain_lines(tmp_path: Path) -> None:
    """Not Python's own, with file and source line; each is said once."""
    path = tmp_path / "dark.png"
    Image.fromarray((np.arange(64 * 64, dtype=np.uint16) % 4000).reshape(64, 64)).save(path)
    said = run("locate", path, path, "--target", "red", "--contrast", "green").stderr
    assert said.count(f"concept-cam: note: '{path}': its values end at 3999 of 65535") == 1
    assert "UserWarning" not in said


def test_a_name_that_the_system_refuses_is_one_sentence() -> None:
    name = "n" * 300
    for arguments in (
        ["calibrate", name, "-o", "limits.yaml"],
        ["fit-head", name, "-o", "head.safetensors"],
        ["prompts", "show", name],
        ["export", name, "--to", "html", "-o", "sheet"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr == f"concept-cam: error: {name!r} cannot be used: File name too long. Check the path.\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_one_sentence() -> None:
    for arguments in (["prompts", "list"], ["--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-m", "concept_cam", *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == (
            "concept-cam: error: what is printed cannot be written: No space left on device. Free some room."
        )
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_on_a_full_disk_does_not_end_the_work() -> None:
    result = CliRunner().invoke(main, ["prompts", "list", "--log-file", "/dev/full"])
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        "concept-cam: note: the log '/dev/full' cannot be written: No space left on device. "
        "The work goes on, and what is said from here on is not in the log.\n"
    )
    assert "fish" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["locate", "{picture}", "-t", "red", "--model", ""],
        ["locate", "{picture}", "-t", "red", "--device", " "],
        ["locate", "{picture}", "-t", "red", "--config", ""],
        ["locate", "{picture}", "-t", "red", "--config", "{folder}/blank.yaml"],
        ["annotate", "{picture}", "--traits", "fish:parts", "-o", "{folder}/run", "--model", ""],
        ["index", "{picture}", "-o", "{folder}/index", "--model", ""],
        ["evaluate", "-o", "{folder}/report", "--model", ""],
        ["evaluate", "-o", "{folder}/report", "--methods", ""],
        ["evaluate", "-o", "{folder}/report", "--gamma", " , "],
        ["fit-head", "{folder}", "-o", "{folder}/head.safetensors", "--model", ""],
        ["demo", "-o", "{folder}/demo", "--model", ""],
    ],
)
def test_a_variable_of_the_shell_that_is_not_set_is_no_default(arguments: list[str], picture: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "p.png").write_bytes(picture.read_bytes())
    (tmp_path / "blank.yaml").write_text("dtype: ''\n")
    result = CliRunner().invoke(main, [part.format(picture=picture, folder=tmp_path) for part in arguments])
    assert result.exit_code == 2, result.output
    assert "leave it out for the default" in result.stderr


def _parameters(command: click.Command) -> list[tuple[str, click.Parameter]]:
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    own = [(command.name or "", parameter) for parameter in command.params]
    return own + [(f"{command.name} {name}", parameter) for each in inner for name, parameter in _parameters(each)]


def test_a_blank_name_is_not_the_folder_one_is_in(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty --output wrote among the files of whoever called, and an empty folder of classes was the one they were in."""
    commands = [command for name in COMMANDS if (command := main.get_command(click.Context(main), name))]
    named = [each for command in commands for each in _parameters(command) if isinstance(each[1].type, click.Path)]
    assert [each for each in named if not isinstance(each[1].type, PathName)] == []
    outputs = {command for command, parameter in named if parameter.name == "output"}
    assert outputs >= {"locate", "annotate", "index", "query", "export", "demo", "evaluate", "sweep", "calibrate", "prompts new"}
    for _, parameter in named:
        for blank in ("", " "):
            with pytest.raises(click.BadParameter, match=f"received '{blank}': expected the name of a .*variable of the shell"):
                parameter.type.convert(blank, parameter, None)
    monkeypatch.chdir(picture.parent)
    for arguments in (("locate", picture, "-t", "red"), ("demo",), ("evaluate", "--limit", 1), ("prompts", "new", "shells")):
        result = run(*arguments, "--output", "")
        assert result.exit_code == 2
        assert "Invalid value for '--output' / '-o': received '': expected the name of a" in result.stderr
    for arguments in (("calibrate", "", "--output", "limits.yaml"), ("prompts", "check", "")):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "received '': expected the name of a file" in result.stderr
    assert list(picture.parent.iterdir()) == [picture]


def test_where_no_picture_can_be_used_no_others_are_done(tmp_path: Path) -> None:
    """The first mistyped name was answered with "1 of 1 pictures could not be used; the others are done"."""
    result = run("locate", tmp_path / "missing.png", "-t", "red")
    assert result.exit_code == 1
    assert "no such picture" in result.stderr
    assert "no picture could be used" in result.stderr
    assert "the others" not in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "concept_cam.cli.main(['calibrate', 'run', '--labels', 'labels.csv', '-o', 'limits.yaml'])",
        "concept_cam.cli.main(['calibrate', 'labels.csv', '-o', 'limits.yaml'])",
        "concept_cam.read_run('run')",
        "concept_cam.Run",
    ],
)
def test_without_the_extra_every_way_to_a_run_says_how_to_get_it(line: str, tmp_path: Path) -> None:
    """`calibrate` and `read_run` ended in a traceback, "No module named 'pyarrow'"."""
    (tmp_path / "run").mkdir()
    (tmp_path / "labels.csv").write_text("file_name,character,true_state\n", encoding="utf-8")
    code = (
        "import sys; sys.modules['pyarrow'] = None\nimport concept_cam.cli\n"
        f"try: {line}\nexcept concept_cam.ConceptCamError as error: print(error, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "needs the library 'pyarrow'" in done.stderr
    assert "pyarrow>=" in done.stderr.partition("Install it with:")[2]


def test_the_page_without_pyarrow_names_all_that_it_needs(tmp_path: Path) -> None:
    """Of a folder of pictures it was said that the table of an annotation run needs it, and what to install was not all."""
    pytest.importorskip("uvicorn", reason="the page's libraries are optional")
    code = "import sys; sys.modules['pyarrow'] = None\nimport concept_cam.cli\nconcept_cam.cli.main(['serve', '.'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "the page needs the library 'pyarrow'" in done.stderr
    assert "starlette>=" in done.stderr
