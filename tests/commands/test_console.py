"""What commands say beside their results."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from concept_cam.cli import COMMANDS, OLD_SPELLINGS, main
from concept_cam.commands import console
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.progress import Progress
from concept_cam.pictures.pages import FirstPageWarning


@click.command()
@click.option("--loud", is_flag=True)
def talk(loud: bool) -> None:
    console.detail("a detail")
    console.note("a note")
    console.warn("a warning")
    click.echo("the result")
    for _ in console.track(range(3), 3, "steps"):
        pass


def run(*arguments: object) -> Result:
    return CliRunner().invoke(console.add_options(talk), [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "a note\nconcept-cam: a warning\n"),
        (("-v",), "a detail\na note\nconcept-cam: a warning\n"),
        (("--quiet",), "concept-cam: a warning\n"),
    ],
)
def test_how_much_is_said(options: tuple[str, ...], said: str) -> None:
    result = run(*options)
    assert result.exit_code == 0, result.output
    assert (result.stdout, result.stderr) == ("the result\n", said)


def test_the_log_holds_all_with_the_time(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    for _ in range(2):
        assert run("-q", "--log-file", log).exit_code == 0
    lines = log.read_text(encoding="utf-8").splitlines()
    said = [line.partition("  ")[2] for line in lines]
    assert said[1:4] == ["a detail", "a note", "concept-cam: a warning"]
    assert said[0].startswith("$ ")
    assert len(lines) == 8  # Appended to, not replaced.
    assert all(line[:4].isdigit() and line[10] == "T" for line in lines)


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["prompts", "list", "--log-file", str(tmp_path / "none" / "x.log")])
    assert result.exit_code == 2
    assert result.stderr.startswith("concept-cam: error: cannot write the log")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_knows_the_options(name: str) -> None:
    command = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    inner = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for each in inner:
        names = [option for parameter in each.params for option in parameter.opts]
        assert names.count("-v") == names.count("-q") == names.count("--log-file") == 1


def test_pictures_with_several_pages_are_told_once_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with console.notices():
        for name in ("a.tif", "b.tif", "a.tif", "c.tif", "d.tif"):
            warnings.warn(FirstPageWarning(repr(name)), stacklevel=1)
        assert capsys.readouterr().err == ""
        warnings.warn("another thing", UserWarning, stacklevel=1)
        assert capsys.readouterr().err == "concept-cam: note: another thing\n"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("concept-cam: note: 4 pictures, such as 'a.tif', 'b.tif', 'c.tif', have several pages or frames;")
    with console.notices():
        warnings.warn(FirstPageWarning("'a.gif'"), stacklevel=1)
    assert capsys.readouterr().err.startswith("concept-cam: note: 'a.gif' has several pages or frames; only the first one is read.")


def numbers(command: click.Command, name: str) -> Iterator[tuple[str, click.Option, click.ParamType]]:
    """Yields every option of a command, and of those within it, that is a number or several."""
    for option in command.params:
        kinds = option.type.types if isinstance(option.type, click.Tuple) else [option.type]
        if isinstance(option, click.Option) and isinstance(kinds[0], click.types.FloatParamType):
            yield name, option, kinds[0]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from numbers(inner, f"{name} {inner.name}")


FLOATS = [found for name in COMMANDS for found in numbers(COMMANDS[name].load(), name)]


def test_every_number_that_is_no_number_is_refused_by_its_option() -> None:
    assert {"--min-area", "--min-score", "--l2", "--gamma", "--colour-scale", "--least-distance", "--alpha"} <= {
        option.opts[0] for _, option, _ in FLOATS
    }
    for name, option, kind in FLOATS:
        context = click.Context(click.Command(name))
        for value in ("nan", "-nan") if name == "annotate" and option.name == "min_score" else ("nan", "inf", "-inf"):
            given = (value, value) if isinstance(option.type, click.Tuple) else (value,) if option.multiple else value
            with pytest.raises(click.BadParameter) as error:
                option.process_value(context, given)
            assert option.opts[0] in error.value.format_message(), (name, option.opts, value)
            with pytest.raises(click.BadParameter):
                kind.convert(value, option, context)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("fit-head", "none", "-o", "h.safetensors", "--l2", "-1"), "--l2"),
        (("locate", "none.png", "-t", "a", "--min-area", "-1"), "--min-area"),
        (("locate", "none.png", "-t", "a", "--colour-scale", "1", "0"), "--colour-scale"),
        (("query", "none", "-t", "a", "--gamma", "-0.5"), "--gamma"),
        (("evaluate", "--gamma", "0,nan"), "--gamma"),
        (("sweep", "--gamma", "0,-1"), "--gamma"),
        (("prompts", "show", "fish", "--least-distance", "-1"), "--least-distance"),
    ],
)
def test_a_number_out_of_range_is_refused_at_once(arguments: tuple[str, ...], option: str) -> None:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


def test_a_log_gets_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    display = console.ProgressDisplay(every=0.0)
    display(Progress(3, 12, 1, 1.5, 2.0))
    display.close()
    late = console.ProgressDisplay(every=1000.0)
    late(Progress(4, 12, 1, 1.5, 2.0))
    assert capsys.readouterr().err == "3/12 (25 %) pictures, 2.0/s, 00:04 left, 1 errors\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    display = console.ProgressDisplay()
    display(Progress(6, 12, 0, 3.0, 2.0))
    display.close()
    text = capsys.readouterr().err
    assert "━" in text
    assert "6/12 (50 %) pictures, 2.0/s, 00:03 left" in text


def test_a_single_item_is_not_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "ProgressDisplay", lambda: pytest.fail("one item needs no bar"))
    assert list(console.track(["only"], 1)) == ["only"]


def test_tables_keep_a_row_on_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table([("a", "word " * 60), ("long name", "[red]not markup[/red]")], ("name", "text"), indent=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  name       text"
    assert lines[1] == "  a          " + ("word " * 60).strip()
    assert lines[2] == "  long name  [red]not markup[/red]"


@pytest.mark.parametrize(("command", "old"), OLD_SPELLINGS)
def test_old_spellings_work_with_a_notice(command: str, old: str) -> None:
    from concept_cam.cli import _today

    new = OLD_SPELLINGS[command, old]
    assert _today([command, "x", old, "0.5"]) == [command, "x", new, "0.5"]
    joined = f"{old}=0.5" if old.startswith("--") else f"{old}0.5"
    assert _today([command, joined]) in ([command, f"{new}=0.5"], [command, new, "0.5"])
    assert _today([command, "--", old]) == [command, "--", old]
    assert _today(["demo", old]) == ["demo", old]


def test_old_spellings_are_named_on_stderr(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["annotate", str(tmp_path), "-t", "fish"])
    assert "-t of 'annotate' is called --traits now" in result.stderr
    assert "--output is missing" in result.stderr


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ConfigurationError("received 3: expected 1."), "tell.py: error: received 3: expected 1.\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.csv"),
            "tell.py: error: 'x.csv' cannot be used: No such file or directory. Check the path.\n",
        ),
        (subprocess.CalledProcessError(7, ["step"]), "tell.py: error: a step ended with status 7; what it said stands above.\n"),
    ],
)
def test_a_script_ends_in_one_sentence(
    problem: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise problem

    monkeypatch.setattr(sys, "argv", ["folder/tell.py"])
    with pytest.raises(SystemExit) as ended:
        console.run_script(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == said
