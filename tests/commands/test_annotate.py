"""``concept-cam annotate`` at the command line, with the planted backbone in place of a model."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

from concept_cam.cli import main
from concept_cam.collection.runs import read_run
from concept_cam.localizer import Localizer
from tests.colour_world import PACK, picture, write_pictures
from tests.planted import PlantedBackbone


@pytest.fixture(autouse=True)
def planted_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, settings: Any = None, **_: Any) -> Localizer:
        assert name == "planted"
        return Localizer(PlantedBackbone(64, 8), settings)

    monkeypatch.setattr(Localizer, "from_pretrained", load)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_pictures(tmp_path / "in", 8, broken=1)
    (tmp_path / "colours.yaml").write_text(yaml.safe_dump(PACK, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str, input: str | None = None) -> Result:
    options = ["--traits", "colours.yaml", "--model", "planted", "--workers", "0"] if "--merge" not in arguments else []
    return CliRunner().invoke(main, ["annotate", *arguments, *options], input=input)


def test_a_folder(folder: Path) -> None:
    result = call("in", "-o", "run", "--px-per-mm", "4", "--threshold", "half-max", "--gamma", "0.5", "--keep-scores")
    assert result.exit_code == 0, result.output
    assert "7 pictures, 70 records; 1 errors" in result.stdout
    run = read_run(folder / "run")
    assert run.count == 70
    configuration = run.info["configuration"]
    assert (configuration["threshold"], configuration["gamma"], configuration["px_per_mm"]) == (
        "half-max",
        0.5,
        4.0,
    )
    again = call("in", "-o", "run")
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    other = call("in", "-o", "run", "--resume")
    assert other.exit_code == 2
    assert "gamma: 0.5 -> 1.0" in other.stderr


def test_a_list_on_standard_input(folder: Path) -> None:
    names = [f"in/box 0/fïsh {number:04d}.png" for number in (0, 3)]
    result = call("-", "-o", "run", input="\n".join(names) + "\n")
    assert result.exit_code == 0, result.output
    assert [group[0]["source"] for group in read_run(folder / "run").pictures()] == names


def test_a_table_with_columns(folder: Path) -> None:
    rows = ["occurrenceID,where,scale", "urn:1,in/box 0/fïsh 0000.png,2", "urn:2,in/box 1/fïsh 0001.png,8"]
    (folder / "media.csv").write_text("\n".join(rows), encoding="utf-8")
    result = call("media.csv", "--column", "wher", "-o", "run")
    assert result.exit_code == 2
    assert "occurrenceID, where, scale" in result.stderr
    result = call("media.csv", "--column", "where", "--px-per-mm", "scale", "-o", "run")
    assert result.exit_code == 0, result.output
    heads = [row for row in read_run(folder / "run").records() if row["best_state"] == "head"]
    assert [row["input_occurrenceID"] for row in heads] == ["urn:1", "urn:2"]
    assert [row["px_per_mm"] for row in heads] == [2.0, 8.0]
    assert heads[0]["length_mm"] == pytest.approx(heads[0]["length_px"] / 2)


def test_every_layout_gives_the_same_calls(folder: Path) -> None:
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = []
    for number in range(3):
        buffer = io.BytesIO()
        Image.fromarray(picture(number)).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    (folder / "flat").mkdir()
    with tarfile.open("s.tar", "w") as archive:
        for number, content in enumerate(contents):
            (folder / "flat" / f"{number}.png").write_bytes(content)
            archive.add(folder / "flat" / f"{number}.png", f"{number}.png")
    pq.write_table(pa.table({"image": contents}), "bytes.parquet")
    raw = [picture(number)[:, :, ::-1].tobytes() for number in range(3)]
    pq.write_table(
        pa.table({"image": raw, "resized_size": [[96, 128]] * 3, "original_size": [[192, 256]] * 3}),
        "raw.parquet",
    )
    found = {}
    for name in ("flat", "flat/*.png", "s.tar", "bytes.parquet", "raw.parquet", (folder / "flat").as_uri()):
        output = f"run {len(found)}"
        result = call(name, "-o", output)
        assert result.exit_code == 0, result.output
        run = read_run(folder / output)
        found[name] = [
            (row["best_state"], row["state"], row["box_width"], row["image_width"]) for row in run.records() if row["kind"] != "distance"
        ]
        digests = {row["sha256"] for row in run.records()}
        assert len(digests) == 3
    first = found.pop("flat")
    doubled = found.pop("raw.parquet")
    assert all(rows == first for rows in found.values())
    assert [row[:2] for row in doubled] == [row[:2] for row in first]
    for (_, _, wide, image), (_, _, width, _) in zip(doubled, first):
        assert image == 256
        assert wide is None if width is None else wide == pytest.approx(2 * width, abs=2)


def test_a_ray_address_for_an_engine_without_clusters_is_refused(folder: Path) -> None:
    for arguments in ((), ("--dry-run",)):
        result = call("in", "-o", "run", "--ray-address", "auto", *arguments)
        assert result.exit_code != 0
        assert "the engine 'local', which asks no cluster" in (result.stderr + str(result.exception))
    assert not (folder / "run").exists()


def test_dry_run_says_what_it_would_take_and_writes_nothing(folder: Path) -> None:
    result = call("in", "-o", "run", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "8 pictures; 10 records each" in result.stdout
    assert "MB for all of them" in result.stdout
    assert "MB are free there" in result.stdout
    assert not (folder / "run").exists()


def test_shards_and_merge(folder: Path) -> None:
    for index in (1, 2):
        assert call("in", "-o", "run", "--shard", f"{index}/2").exit_code == 0
    result = call("--merge", "run")
    assert result.exit_code == 0, result.output
    assert "7 pictures, 70 records of 2 shards" in result.stdout
    assert read_run(folder / "run").count == 70


def test_calibrated_limits_decide(folder: Path) -> None:
    from concept_cam.collection.limits import Calibration, Limit

    none = Limit("probability", None, 20, 0, float("nan"), float("nan"), float("nan"), 0.0)
    Calibration(0.9, 0.8, {"head_colour": none}, {}).save(folder / "limits.yaml")
    assert call("in", "-o", "run", "--calibration", "limits.yaml").exit_code == 0
    rows = [row for row in read_run(folder / "run").records() if row["character"] == "head_colour"]
    assert {row["abstained_because"] for row in rows} == {"low_probability"}
    assert {row["best_state"] for row in rows} == {"red"}


def test_a_run_without_one_good_picture_fails(folder: Path) -> None:
    (folder / "bad").mkdir()
    (folder / "bad" / "a.jpg").write_bytes(b"")
    result = call("bad", "-o", "run")
    assert result.exit_code == 1
    assert "no picture could be annotated" in result.stderr
    assert "errors.csv" in result.stderr


def test_an_empty_folder_is_refused_before_anything_is_written(folder: Path) -> None:
    """So that the same command runs once there is a picture."""
    (folder / "empty").mkdir()
    (folder / "empty.csv").write_text("file\n")
    for arguments in (["empty"], ["empty.csv"], ["empty", "--shard", "1/2"], ["empty", "--dry-run"]):
        result = call(*arguments, "-o", "nothing")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"concept-cam: error: no picture was found in '{arguments[0]}' (read as ")
        assert not (folder / "nothing").exists()
    Image.fromarray(picture()).save(folder / "empty" / "a.png")
    assert call("empty", "-o", "nothing").exit_code == 0


def test_an_option_that_names_a_column_is_refused_where_there_are_none(folder: Path) -> None:
    for option, advice in (
        ("--px-per-mm", "give a number"),
        ("--masks", "leave --masks out"),
        ("--boxes", "give a CSV file of boxes"),
        ("--column", "leave --column out"),
    ):
        result = call("in", "-o", "run", option, "nocol")
        assert result.exit_code == 2
        assert f"{option} 'nocol' names a column, and the input 'in' is read as 'folder', which has no columns: {advice}," in result.stderr
        assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in"], "--output"),
        (["nowhere", "-o", "run"], "no such input"),
        (["in", "-o", "run", "--shard", "3"], "i/n"),
        (["in", "-o", "run", "--px-per-mm", " "], "--px-per-mm is ' ': expected a number, or the name of a column"),
        (["in", "-o", "run", "--threshold", "ostu"], "otsu"),
        (["in", "-o", "run", "--ignore", "nothing"], "--ignore"),
        (["in", "-o", "run", "--calibration", "none.yaml"], "none.yaml"),
        (["in", "-o", "run", "--size", "33"], "stride"),
    ],
)
def test_wrong_options(folder: Path, arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (folder / "run").exists()


def test_missing_arrow_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = call("in", "-o", "run")
    assert result.exit_code == 2
    assert "pyarrow>=" in result.stderr.partition(" install ")[2]


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from concept_cam.cli import main;"
        "result = CliRunner().invoke(main, ['annotate', '--help']); assert result.exit_code == 0 and 'Examples' in result.output;"
        "loaded = {'torch', 'open_clip', 'pyarrow', 'ray'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_plain_lines_in_a_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.commands import console

    monkeypatch.setattr(console.ProgressDisplay.__init__, "__defaults__", (0.0,))
    result = call("in", "-o", "run", "--batch-size", "2")
    assert "8/8 (100 %) pictures" in result.stderr
    assert json.loads((folder / "run" / "run.json").read_text())["batch_size"] == 2


def test_the_help_says_which_areas_make_up_a_region() -> None:
    """That of the peak comes before larger ones: `Localization.regions` and `find_shapes` are held to it elsewhere."""
    text = " ".join(CliRunner().invoke(main, ["annotate", "--help"], terminal_width=200).output.split())
    assert "Connected areas that make up a region: that of the peak, then the largest; 0: all." in text
    assert "of the region of the peak" in " ".join(CliRunner().invoke(main, ["locate", "--help"]).output.split())
