"""``concept-cam index`` and ``concept-cam query`` with the bundled model, as somebody types them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("pyarrow")

from concept_cam.cli import main
from tests.colour_world import write_pictures


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of pictures, some in no way square, and its index in int8 with fewer dimensions."""
    folder = tmp_path_factory.mktemp("collection")
    write_pictures(folder / "photos", 3, broken=1)
    from PIL import Image

    Image.new("RGB", (1, 1), (200, 30, 30)).save(folder / "photos" / "one pixel.png")
    found = run("index", folder / "photos", "-o", folder / "own.index", "--keep", "int8", "--pca", 16, "--workers", 0, "--dtype", "float32")
    assert found.exit_code == 0, found.output
    assert "of the features' energy left out" in found.output
    assert "1 errors" in found.output
    return folder / "photos", folder / "own.index"


def test_hits_are_printed_best_first(made: tuple[Path, Path]) -> None:
    found = run("query", made[1], "-t", "the tail fin of a fish", "-c", "the head of a fish", "--top", 2)
    assert found.exit_code == 0, found.output
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert len(rows) == 2
    assert float(rows[0]["peak_score"]) >= float(rows[1]["peak_score"])


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("source~PIXEL", 1),
        ("source!=one pixel.png", 2),
        ("px_per_mm>=1", 0),
        ("px_per_mm!=1", 3),
        ("source=one pixel.png", 1),
        ("views~", 3),
    ],
)
def test_conditions(made: tuple[Path, Path], condition: str, count: int) -> None:
    found = run("query", made[1], "-t", "a fish", "--where", condition, "--format", "json")
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)) == count
    assert ("no entry ranks" in found.stderr) == (count == 0)


@pytest.mark.parametrize(
    ("condition", "said"), [("sauce=1", "Did you mean 'source'"), ("source", "expected COLUMN"), ("=3", "expected COLUMN")]
)
def test_conditions_that_cannot_be(made: tuple[Path, Path], condition: str, said: str) -> None:
    found = run("query", made[1], "-t", "a fish", "--where", condition)
    assert found.exit_code == 2
    assert said in found.output


def test_an_index_of_another_kind_is_not_continued(made: tuple[Path, Path]) -> None:
    found = run("index", made[0], "-o", made[1], "--resume", "--workers", 0, "--dtype", "float32")
    assert found.exit_code == 2
    assert "holds an index with another configuration" in found.output
    assert 'codec.dtype: "int8" -> "float16"' in found.output


def test_pictures_that_moved_are_counted(made: tuple[Path, Path], tmp_path: Path) -> None:
    there = run("query", made[1], "-t", "a fish", "--top", 2, "-o", tmp_path / "there")
    assert there.exit_code == 0, there.output
    assert "drawn on grey" not in there.output
    away = made[0].with_name("elsewhere")
    made[0].rename(away)
    try:
        gone = run("query", made[1], "-t", "a fish", "--top", 2, "-o", tmp_path / "gone")
    finally:
        away.rename(made[0])
    assert gone.exit_code == 0, gone.output
    assert f"cannot be read where they were when they were indexed: 2 ({made[0]}" in gone.output
    assert "drawn on grey" in gone.output
    assert (tmp_path / "gone" / "a-fish.png").is_file()
    assert (tmp_path / "gone" / "hits.csv").read_text() == (tmp_path / "there" / "hits.csv").read_text()


def test_what_an_index_was_made_with_is_refused_otherwise_though_it_is_the_default(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    made = run("index", tmp_path / "photos", "-o", tmp_path / "own", "--workers", 0, "--dtype", "float32", "--resize", "aspect")
    assert made.exit_code == 0, made.output
    (tmp_path / "c.yaml").write_text("resize: pad\n", encoding="utf-8")
    (tmp_path / "same.yaml").write_text("resize: aspect\n", encoding="utf-8")
    asked = ("annotate", tmp_path / "own", "--traits", "fish:adipose_fin", "-o", tmp_path / "run", "--workers", 0)
    for command in ((*asked, "--resize", "pad"), (*asked, "--dry-run", "--resize", "pad")):
        found = run(*command)
        assert found.exit_code == 2
        assert "made with resize 'aspect', which cannot become 'pad'" in found.output
    for settings, code in (("c.yaml", 2), ("same.yaml", 0)):
        found = run("query", tmp_path / "own", "-t", "a fish", "--config", tmp_path / settings)
        assert (found.exit_code, "cannot become 'pad'" in found.output) == (code, code == 2), found.output
    assert run(*asked, "--resize", "aspect").exit_code == 0


def test_errors_of_a_shard_are_said_to_be_where_they_are(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    for name in ("a", "b", "c", "d"):
        (tmp_path / "photos" / f"{name}.png").write_bytes(b"no picture")
    made = run("index", tmp_path / "photos", "-o", tmp_path / "own", "--shard", "1/1", "--workers", 0, "--dtype", "float32")
    assert made.exit_code == 0, made.output
    (told,) = (line.partition("; 4 errors, see ")[2] for line in made.output.splitlines() if "errors, see" in line)
    assert Path(told).is_file()


def test_the_table_of_hits_runs_in_no_spreadsheet(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = run("query", made[1], "-t", "=a fish", "--top", 1, "-o", tmp_path / "out")
    assert found.exit_code == 0, found.output
    with open(tmp_path / "out" / "hits.csv", encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["target"] == next(csv.DictReader(io.StringIO(found.stdout)))["target"] == "'=a fish"
    assert float(row["value"]) != 0  # a number below zero stays one


def test_pictures_that_were_replaced_are_named(tmp_path: Path) -> None:
    from PIL import Image

    write_pictures(tmp_path / "photos", 2)
    done = run("index", tmp_path / "photos", "-o", tmp_path / "own.index", "--workers", 0, "--dtype", "float32")
    assert done.exit_code == 0, done.output
    first, second, *_ = sorted(file for file in (tmp_path / "photos").rglob("*.*") if file.is_file())
    with Image.open(first) as image:
        size = image.size
    Image.new("RGB", size, (10, 200, 10)).save(first)  # as large as the old one: its map would fit
    found = run("query", tmp_path / "own.index", "-t", "a fish", "-q", "-o", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert f"replaced or changed since they were indexed: 1 ({first}); maps are drawn on grey" in found.stderr
    assert second.name not in found.stderr
