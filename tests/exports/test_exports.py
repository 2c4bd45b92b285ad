"""The registry, the writing of files and folders, and the command."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from concept_cam.cli import main
from concept_cam.collection.corrections import Correction, Corrections
from concept_cam.commands.export import export as command
from concept_cam.core.errors import ConceptCamError, ConfigurationError, DataError, OutputError
from concept_cam.core.tables import FORMULA_STARTS, escaped, unescaped
from concept_cam.exports import EXPORTS, FOLDER_FILE, export
from concept_cam.exports.survey import write_csv, write_json
from tests.exports.planted import ODD_NAMES, Planted, write_run


def contents(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_corrections_of_another_file_are_applied(planted: Planted, tmp_path: Path) -> None:
    """The page keeps them where it is told to: without a word the export had none of them."""
    store = Corrections(tmp_path / "mine.sqlite")
    base = {"pack": "fish", "character": "caudal_fin_shape", "kind": "shape", "person": "Ada Løv", "called": "forked"}
    store.add(Correction(id="a", source=ODD_NAMES[0], verdict="state", state="lunate", **base))
    command_line = [str(planted.path), "--to", "csv", "-o"]
    done = CliRunner().invoke(main, ["export", *command_line, str(tmp_path / "a.csv"), "--corrections", str(store.path)])
    assert done.exit_code == 0, done.output
    assert "Ada Løv" in (tmp_path / "a.csv").read_text(encoding="utf-8-sig")
    for wrong, said in ((["--corrections", "no.sqlite"], "no file of corrections 'no.sqlite'"), (["--uncorrected"], "one of the two")):
        given = [*wrong, *(["--corrections", str(store.path)] if wrong == ["--uncorrected"] else [])]
        done = CliRunner().invoke(main, ["export", *command_line, str(tmp_path / "b.csv"), *given])
        assert (done.exit_code, said in done.output) == (2, True), done.output


@pytest.mark.parametrize("name", EXPORTS)
def test_every_format_writes_whole_and_leaves_nothing_else(name: str, planted: Planted, tmp_path: Path) -> None:
    entry = EXPORTS[name]
    output = tmp_path / "deep" / f"ex port{entry.suffix}"
    assert export(planted.path, name, output) == output
    assert output.is_dir() == entry.is_folder
    beside = [output.name.removesuffix(entry.suffix) + entry.companion] if entry.companion else []
    assert sorted(os.listdir(output.parent)) == sorted([output.name, *beside])
    first = contents(output)
    assert all(first.values())
    with pytest.raises(OutputError, match=r"exists.*--overwrite"):
        export(planted.path, name, output)
    export(planted.run, name, output, overwrite=True)
    assert contents(output) == first  # Deterministic, too.


@pytest.mark.parametrize("name", EXPORTS)
def test_every_format_writes_a_run_without_records(name: str, planted: Planted, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text((planted.path / "run.json").read_text(), encoding="utf-8")
    output = export(run, name, tmp_path / f"out{EXPORTS[name].suffix}")
    assert output.exists()


def test_unknown_format_names_the_nearest(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'cocoo'.*Did you mean 'coco'"):
        export(planted.path, "cocoo", tmp_path / "x")


def test_what_is_no_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        export(tmp_path / "none", "coco", tmp_path / "out" / "x.json")
    assert os.listdir(tmp_path) == []


def test_foreign_folders_and_wrong_kinds_stay(planted: Planted, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert export(planted.path, "masks", home) == home  # Empty: nothing is lost.
    (home / FOLDER_FILE).unlink()
    with pytest.raises(OutputError, match="not written by an export"):
        export(planted.path, "masks", home, overwrite=True)
    with pytest.raises(OutputError, match="writes a file such as"):
        export(planted.path, "coco", home, overwrite=True)
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="writes a folder"):
        export(planted.path, "masks", file, overwrite=True)
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_failed_export_keeps_what_stood_there(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.json"
    output.write_text("before", encoding="utf-8")

    def full(run: object, path: Path, form: object) -> None:
        path.write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("concept_cam.exports.coco.write", full)
    with pytest.raises(OutputError, match=r"cannot write .*out.json: No space left on device"):
        export(planted.path, "coco", output, overwrite=True)
    assert output.read_text(encoding="utf-8") == "before"
    assert os.listdir(tmp_path) == ["out.json"]


def test_unwritable_place_is_one_clear_error(planted: Planted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write"):
        export(planted.path, "csv", tmp_path / "file" / "x.csv")
    if os.geteuid() != 0:  # Root may write anywhere.
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="Permission denied"):
            export(planted.path, "csv", tmp_path / "closed" / "x.csv")


def test_damaged_mask_is_a_data_error(planted: Planted, tmp_path: Path) -> None:
    record = dict(planted.records[0])
    record["rle_counts"] = record["rle_counts"][:-2]
    write_run(tmp_path / "run", [record], ("occurrenceID", "rights", "creator", "species"), parts=1)
    with pytest.raises(DataError, match="damaged mask"):
        export(tmp_path / "run", "masks", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_library_names_its_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from concept_cam.exports import export\n"
        "from concept_cam.core.errors import MissingExtraError\n"
        "try: export('run', 'coco', 'never.json')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert "pyarrow" in done.stdout
    assert "pyarrow>=" in done.stdout.partition(" install ")[2]


def test_command(planted: Planted, tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(command, ["--help"])
    assert all(name in listed.output for name in EXPORTS)
    output = tmp_path / "instances.json"
    done = runner.invoke(command, [str(planted.path), "--to", "coco", "--output", str(output)])
    assert (done.exit_code, done.output.strip()) == (0, str(output))
    assert json.loads(output.read_text(encoding="utf-8"))["annotations"]
    again = runner.invoke(command, [str(planted.path), "--to", "coco", "--output", str(output)])
    assert isinstance(again.exception, ConceptCamError)
    wrong = runner.invoke(command, [str(planted.path), "--to", "yolo", "--output", str(output)])
    assert wrong.exit_code == 2
    assert "yolo" in wrong.output


def test_a_form_s_fields_are_checked(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"field of an export's form 'escap'.*Did you mean 'escape'"):
        export(planted.path, "csv", tmp_path / "x.csv", escap=False)


def test_the_companion_is_not_overwritten(planted: Planted, tmp_path: Path) -> None:
    mine = tmp_path / "task.labels.json"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"task.labels.json exists"):
        export(planted.path, "cvat", tmp_path / "task.xml")
    assert mine.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "task.xml").exists()


FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")')


@pytest.mark.parametrize("name", [name for name, entry in EXPORTS.items() if entry.suffix == ".csv"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_a_table_is_a_formula(name: str, formula: str, planted: Planted, tmp_path: Path) -> None:
    columns = ("occurrenceID", "rights", "creator", "species")
    record = {**planted.record(ODD_NAMES[0], "caudal_fin_shape"), "input_species": formula, "input_occurrenceID": "-12.5"}
    write_run(tmp_path / "run", [record], columns, parts=1)
    safe = export(tmp_path / "run", name, tmp_path / "safe.csv")
    with safe.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell.startswith(FORMULA_STARTS) and not is_number(cell)] == []
    assert f"'{formula}" in cells
    assert "-12.5" in cells  # A number is no formula.
    assert {unescaped(cell) for cell in cells} >= {formula}
    raw = export(tmp_path / "run", name, tmp_path / "raw.csv", escape=False)
    with raw.open(encoding="utf-8-sig", newline="") as file:
        assert formula in [cell for row in csv.reader(file) for cell in row]


@pytest.mark.parametrize("text", [*FORMULAS, "'=1", "''=1", "'", "''", "'tail'", "-5", "'-5", "plain", ""])
def test_every_text_comes_back_from_a_table_as_it_was(text: str) -> None:
    assert unescaped(escaped(text)) == text


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("name", "own"), [("csv", True), ("darwin-core", False), ("audiovisual-core", False)])
def test_the_mark_of_utf_8_stands_where_it_is_asked_for(name: str, own: bool, planted: Planted, tmp_path: Path) -> None:
    mark = "\ufeff".encode()
    assert export(planted.path, name, tmp_path / "own.csv").read_bytes().startswith(mark) == own
    assert export(planted.path, name, tmp_path / "with.csv", mark=True).read_bytes().startswith(mark)
    assert not export(planted.path, name, tmp_path / "without.csv", mark=False).read_bytes().startswith(mark)


def test_half_a_character_is_written_as_its_escape(tmp_path: Path) -> None:
    """A damaged run may hold one; it ended exports in an encoder's words."""
    write_json(tmp_path / "a.json", {"note": "\ud83d fish"}, names=["\udcff.png"])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"note": "\ud83d fish", "names": ["\udcff.png"]}
    write_csv(tmp_path / "a.csv", ["note"], [{"note": "\ud83d fish"}])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines() == ["note", "\\ud83d fish"]
