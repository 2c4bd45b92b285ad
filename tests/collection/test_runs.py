"""A run is read back as it was written; what is not a run says so."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

pa = pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")
import pyarrow.parquet as pq  # noqa: E402

from concept_cam.cli import main  # noqa: E402
from concept_cam.collection.runs import ERRORS_FILE, PARTS_FOLDER, RUN_FILE, Run, read_run  # noqa: E402
from concept_cam.collection.schema import table_from_records  # noqa: E402
from concept_cam.core.errors import DataError  # noqa: E402
from tests.exports.planted import ODD_NAMES, Planted, plant  # noqa: E402


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copy(planted: Planted, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(planted.path, tmp_path / "run"))


def test_table_and_frame_hold_every_record(planted: Planted) -> None:
    run = read_run(planted.path)
    table = run.table()
    assert run.count == table.num_rows == len(planted.records)
    assert table.column("record_key").to_pylist() == [record["record_key"] for record in planted.records]
    assert run.passthrough == ("occurrenceID", "rights", "creator", "species")
    assert run.info["model"] == "tiny/planted"
    pytest.importorskip("pandas", reason="frames need pandas")
    frame = run.frame(["source", "probabilities", "abstained"])
    assert list(frame.columns) == ["source", "probabilities", "abstained"]
    assert frame["source"].nunique() == len(ODD_NAMES)
    assert set(frame["probabilities"][0]) == {"forked", "rounded", "truncate"}


def test_pictures_stay_together(planted: Planted) -> None:
    groups = list(planted.run.pictures(["source", "character"]))
    assert [group[0]["source"] for group in groups] == list(ODD_NAMES)
    assert all(len({record["source"] for record in group}) == 1 for group in groups)
    assert sum(map(len, groups)) == len(planted.records)


def test_run_file_opens_the_run_too(planted: Planted) -> None:
    assert Run.open(planted.path / RUN_FILE).path == planted.path


def test_pictures_are_found_where_they_were_read_and_under_the_root(planted: Planted) -> None:
    run = planted.run
    record = planted.record(ODD_NAMES[0], "adipose_fin")
    assert run.picture_path(record) == Path(record["path"])
    assert run.picture_path({**record, "path": "/no/longer/there.jpg"}) == planted.path.parent / "photos" / ODD_NAMES[0]
    assert run.picture_path(planted.record(ODD_NAMES[4], "adipose_fin")) is None


def test_errors(planted: Planted, copy: Path) -> None:
    assert planted.run.errors() == []
    (copy / ERRORS_FILE).write_text('source,path,reason\n"a, b.jpg",/in/a,truncated\n', encoding="utf-8")
    assert Run.open(copy).errors() == [{"source": "a, b.jpg", "path": "/in/a", "reason": "truncated"}]


def test_shards_that_are_not_joined_say_so(copy: Path) -> None:
    """They lie in the folder that was given to annotate, which is what the message told people to name."""
    from concept_cam.serve.gallery import open_gallery

    (copy.parent / "run of shards").mkdir()
    copy.rename(copy.parent / "run of shards" / "shard-00001-of-00002")
    for open_ in (read_run, lambda path: open_gallery(str(path))):
        with pytest.raises(DataError, match=r"holds shards of a run \(1\) that are not joined.*annotate --merge"):
            open_(copy.parent / "run of shards")
    Image.new("RGB", (8, 8)).save(copy.parent / "run of shards" / "own.png")
    assert [picture.source for picture in open_gallery(str(copy.parent / "run of shards")).entries] == ["own.png"]


def test_unfinished_parts_are_not_read(copy: Path) -> None:
    count = Run.open(copy).count
    (copy / PARTS_FOLDER / ".part-00009.parquet.partial").write_bytes(b"half")
    assert Run.open(copy).count == count


def test_run_without_records(copy: Path) -> None:
    shutil.rmtree(copy / PARTS_FOLDER)
    run = Run.open(copy)
    assert run.count == 0
    assert run.table().num_rows == 0
    assert list(run.pictures()) == []


def note(run: Path, **info: Any) -> None:
    """Notes more in a run's ``run.json``."""
    path = run / RUN_FILE
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **info}), encoding="utf-8")


def said_of(run: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_run(run)
    return [str(warning.message) for warning in said]


def test_a_finished_run_that_lost_parts_says_how_much(copy: Path, planted: Planted) -> None:
    records = len(planted.records)
    note(copy, counts={"pictures": len(ODD_NAMES), "records": records})
    assert said_of(copy) == []
    first, second = sorted((copy / PARTS_FOLDER).iterdir())
    lost = pq.read_metadata(second).num_rows
    second.unlink()
    (said,) = said_of(copy)
    assert f"is not whole: 3 of 5 pictures and {lost} of {records} records" in said
    assert "--resume" in said
    first.unlink()
    (said,) = said_of(copy)
    assert f"5 of 5 pictures and {records} of {records} records" in said
    note(copy, counts={"records": records})  # a version that did not count pictures
    assert f"is not whole: {records} of {records} records" in said_of(copy)[0]


def test_a_part_too_many_is_told(copy: Path, planted: Planted) -> None:
    note(copy, counts={"pictures": len(ODD_NAMES), "records": len(planted.records)})
    part = sorted((copy / PARTS_FOLDER).iterdir())[0]
    shutil.copyfile(part, part.with_name("part-00009.parquet"))
    assert f"more than the {len(planted.records)} that run.json notes" in said_of(copy)[0]


@pytest.mark.parametrize(
    ("noted", "total"),
    [
        ({"expected": 40}, "5 of 40 pictures"),
        ({"expected": 40, "configuration": {"shard": "1/2"}}, "5 of about 40 pictures"),
        ({"expected": None}, "5 pictures"),
        ({}, "5 pictures"),
    ],
)
def test_an_unfinished_run_says_how_many_are_there(copy: Path, planted: Planted, noted: dict[str, Any], total: str) -> None:
    # What was counted when the session began: nothing, where the process was killed.
    note(copy, finished=None, counts={"pictures": 0, "records": 0}, **noted)
    (copy / ERRORS_FILE).write_text('source,path,reason\n"a, b.jpg",/in/a,truncated\n', encoding="utf-8")
    (said,) = said_of(copy)
    assert f"is not finished: it holds {total} ({len(planted.records)} records, 1 errors)" in said
    assert "--resume" in said


def test_exports_say_on_the_console_that_a_run_is_not_whole(copy: Path, planted: Planted, tmp_path: Path) -> None:
    note(copy, counts={"pictures": len(ODD_NAMES), "records": len(planted.records)})
    sorted((copy / PARTS_FOLDER).iterdir())[0].unlink()
    found = CliRunner().invoke(main, ["export", "-q", str(copy), "--to", "csv", "--output", str(tmp_path / "table.csv")])
    assert found.exit_code == 0, found.output
    assert "is not whole: 2 of 5 pictures and 10 of 25 records" in found.stderr


def test_parts_with_other_passthrough_and_older_columns(copy: Path, planted: Planted) -> None:
    record = {name: value for name, value in planted.records[0].items() if not name.startswith("input_")}
    record |= {"source": "z.jpg", "image_key": "z", "record_key": "z", "input_site": "pond"}
    table = table_from_records([record], ["site"]).drop_columns(["limit"])
    pq.write_table(table, copy / PARTS_FOLDER / "part-00002.parquet")
    run = Run.open(copy)
    assert run.passthrough == ("occurrenceID", "rights", "creator", "species", "site")
    last = list(run.records())[-1]
    assert (last["input_site"], last["input_occurrenceID"], last["limit"]) == ("pond", None, None)


def test_unknown_column_names_those_present(planted: Planted) -> None:
    with pytest.raises(DataError, match=r"no columns \['colour'\].*record_key.*input_occurrenceID"):
        planted.run.table(["colour"])


def test_what_is_not_a_run_says_so(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        Run.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no run\\.json"):
        Run.open(tmp_path / "empty")
    (copy / RUN_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        Run.open(copy)
    (copy / RUN_FILE).write_text(json.dumps({"name": "other"}), encoding="utf-8")
    with pytest.raises(DataError, match="no 'schema_version'"):
        Run.open(copy)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really PAR1"])
def test_damaged_part_names_the_file(copy: Path, content: bytes) -> None:
    (copy / PARTS_FOLDER / "part-00001.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"part-00001.parquet cannot be read.*--resume"):
        Run.open(copy)


def test_foreign_part_is_refused(copy: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), copy / PARTS_FOLDER / "part-00001.parquet")
    with pytest.raises(DataError, match="not part of an annotation run"):
        Run.open(copy)
