"""An index made of a collection: what is asked of it is what is asked of the pictures, through any interruption."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow")

from concept_cam.collection.annotation import annotate
from concept_cam.collection.indexing import build_index
from concept_cam.collection.runs import Run
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError, OutputError
from concept_cam.demo.worlds import WORLDS
from concept_cam.index.index import Index
from concept_cam.localizer import Localizer
from concept_cam.trust.rules import Rules
from tests.colour_world import PACK, other, write_pictures
from tests.planted import PlantedBackbone

CONCEPTS = [Concept(("red",), (("green",), ("blue",))), Concept(("blue",)), Concept(("green",), (("red",),))]


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(64, 8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    folder = tmp_path_factory.mktemp("pictures")
    good, bad = write_pictures(folder, 20, broken=3)
    return folder, good, bad


def make(inputs: Any, output: Path, localizer: Localizer, **options: Any) -> Index:
    return build_index(inputs, output, localizer=localizer, workers=0, part_pictures=7, **options)


@pytest.fixture(scope="module")
def index(pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return make(pictures[0], tmp_path_factory.mktemp("indexes") / "whole", localizer)


def sources(index: Index) -> list[str]:
    return list(index.pictures.column("source").to_pylist())


def test_every_good_picture_once_and_every_bad_one_in_the_errors(index: Index, pictures: tuple[Path, list[str], list[str]]) -> None:
    assert sorted(sources(index)) == sorted(pictures[1])
    assert len(index) == 17
    assert index.infos[0]["counts"] == {"pictures": 17, "records": 17, "errors": 3, "duplicates": 0}
    assert (index.path / "errors.csv").read_text().count("\n") == 4
    assert len(index.files) == 3
    assert index.model == "planted"


def test_maps_are_those_of_the_pictures(index: Index, localizer: Localizer) -> None:
    for entry in range(len(index)):
        own = localizer.locate_all([index.row(entry)["path"]], CONCEPTS)[0]
        for kept, fresh in zip(index.locate(entry, CONCEPTS, localizer), own):
            np.testing.assert_array_equal(np.isnan(kept.scores), np.isnan(fresh.scores))
            spread = np.nanmax(fresh.scores) - np.nanmin(fresh.scores)
            assert np.nanmax(np.abs(kept.scores - fresh.scores)) <= 1e-3 * max(spread, 1e-3)
            assert kept.score == pytest.approx(fresh.score, abs=1e-6)
            assert kept.probabilities == pytest.approx(fresh.probabilities, abs=1e-5)
            assert kept.geometry == fresh.geometry


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.5}, {"weighting": "softmax"}, {"feature_norm": "none"}], ids=str)
@pytest.mark.parametrize("by", ["patch", "image"])
def test_a_query_ranks_as_asking_every_picture_does(index: Index, localizer: Localizer, settings: dict[str, Any], by: str) -> None:
    asker = localizer.with_settings(**settings)
    paths = [index.row(entry)["path"] for entry in range(len(index))]
    answers = asker.locate_all(paths, CONCEPTS)
    found = index.query(CONCEPTS, top=5, by=by, localizer=localizer, **settings)
    for number, hits in enumerate(found):
        slow = np.array([answer[number].peak_score if by == "patch" else answer[number].score for answer in answers])
        np.testing.assert_allclose(hits.values, np.sort(slow)[::-1][:5], atol=2e-3)
        np.testing.assert_allclose(slow[hits.entries], hits.values, atol=2e-3)
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        assert hits[0].found.concept == CONCEPTS[number]


def test_annotating_an_index_gives_the_records_of_the_pictures(
    index: Index, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    options = {"localizer": localizer, "workers": 0, "px_per_mm": 2.0}
    fresh = annotate(pictures[0], tmp_path / "fresh", PACK, **options)
    kept = annotate(index.path, tmp_path / "kept", PACK, **options)
    one, two = ({record["record_key"]: record for record in run.records()} for run in (fresh, kept))
    assert one.keys() == two.keys()
    for key, record in one.items():
        for name in ("state", "abstained_because", "box_x", "box_y", "box_width", "box_height", "sha256", "px_per_mm", "specimen"):
            assert record[name] == two[key][name], name
        assert record["score"] == pytest.approx(two[key]["score"], abs=1e-3)


@pytest.mark.parametrize("made_in", ["bfloat16", "float32"])
def test_an_index_is_annotated_in_the_format_it_was_made_in(made_in: str, tmp_path: Path) -> None:
    """With the bundled model: texts of another precision than the pictures' would shift what is sure, and the run would not say so."""
    world = WORLDS["fish"]
    (tmp_path / "in").mkdir()
    for number, image in enumerate(world.render(world.sample(2, 12, view="whole"), (96, 128)).images):
        Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(tmp_path / "in" / f"{number}.png")
    made = build_index(tmp_path / "in", tmp_path / "index", dtype=made_in, workers=0)
    fresh = annotate(tmp_path / "in", tmp_path / "fresh", "fish:parts", dtype=made_in, workers=0)
    kept = annotate(made.path, tmp_path / "kept", "fish:parts", workers=0)
    assert kept.info["dtype"] == kept.info["configuration"]["dtype"] == made_in
    one, two = ({record["record_key"]: record for record in run.records()} for run in (fresh, kept))
    assert one.keys() == two.keys()
    for key, record in one.items():
        assert record["best_state"] == two[key]["best_state"]
        # The index is kept in half precision: what lies at the bound of a verdict may fall on either side.
        bound = pytest.approx(Rules().dependence, abs=1e-3)
        assert record["verdict"] == two[key]["verdict"] or record["dependence"] == bound
        for name in ("score", "probability", "confidence", "presence"):
            assert record[name] == pytest.approx(two[key][name], abs=0.02, nan_ok=True), name


def test_specimens_and_what_may_not_be_read_are_kept(localizer: Localizer, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good, _ = write_pictures(folder, 2)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,x,y,width,height\n" + "".join(f"{name},{x},2,40,30\n" for name in good for x in (3, 20)))
    ignore = tmp_path / "ignore.csv"
    ignore.write_text("file,x,y,width,height\n" + "".join(f"{name},0,0,15,20\n" for name in good))
    made = make(folder, tmp_path / "index", localizer, boxes=boxes, ignore=ignore)
    assert made.pictures.column("specimen").to_pylist() == [0, 1, 0, 1]
    options = {"localizer": localizer, "workers": 0}
    fresh = annotate(folder, tmp_path / "fresh", PACK, boxes=boxes, ignore=ignore, **options)
    kept = annotate(made.path, tmp_path / "kept", PACK, **options)
    one, two = ({record["record_key"]: record for record in run.records()} for run in (fresh, kept))
    assert one.keys() == two.keys()
    for key, record in one.items():
        for name in ("state", "box_x", "box_y", "box_width", "box_height", "specimen_x", "specimen_width", "rle_counts"):
            assert record[name] == two[key][name], name
    with pytest.raises(ConfigurationError, match="--boxes"):
        annotate(made.path, tmp_path / "again", PACK, boxes=boxes, **options)


def test_int8_and_fewer_dimensions(index: Index, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    whole = index.values(CONCEPTS, localizer=localizer)
    small = make(pictures[0], tmp_path / "int8", localizer, keep="int8")
    np.testing.assert_allclose(small.values(CONCEPTS, localizer=localizer), whole, atol=1e-2)
    assert small.features(0).patches.shape == index.features(0).patches.shape
    fewer = make(pictures[0], tmp_path / "pca", localizer, pca=4)
    kept = fewer.part(0).values
    assert kept.shape[1] == 4
    assert fewer.configuration["codec"]["pca_loss"] == pytest.approx(fewer.codec.loss)
    units = np.concatenate([item.patches.reshape(-1, item.patches.shape[-1]).numpy() for item in index])
    units = units[np.linalg.norm(units, axis=1) > 0]
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    left_out = 1 - (np.linalg.norm(units @ fewer.codec.basis.T, axis=1) ** 2).mean()
    assert fewer.codec.loss == pytest.approx(left_out, abs=1e-3)
    other = make(pictures[0], tmp_path / "axes", localizer, pca=fewer.path, limit=3)
    np.testing.assert_array_equal(other.codec.basis, fewer.codec.basis)
    with pytest.raises(ConfigurationError, match="share their axes"):
        make(pictures[0], tmp_path / "shard", localizer, pca=4, shard="1/2")


def test_shards_are_one_index(index: Index, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make(pictures[0], tmp_path / "sharded", localizer, shard=f"{number}/3")
    joined = Index.open(tmp_path / "sharded")
    assert sorted(sources(joined)) == sorted(sources(index))
    values = dict(zip(sources(index), index.values(CONCEPTS[:1], localizer=localizer)[0]))
    for source, value in zip(sources(joined), joined.values(CONCEPTS[:1], localizer=localizer)[0]):
        assert value == values[source]
    run = annotate(joined.path, tmp_path / "run", PACK, localizer=localizer, workers=0)
    assert run.info["counts"]["pictures"] == 17


def test_shards_whose_settings_mean_the_same_are_one_index(
    pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    said = localizer.with_settings(size=localizer.backbone.preprocess.default_size[0])
    for number, asker in enumerate((localizer, said), 1):
        make(pictures[0], tmp_path / "sharded", asker, shard=f"{number}/2")
    assert len(Index.open(tmp_path / "sharded")) == len(pictures[1])
    other = localizer.with_settings(size=32, attention=localizer.backbone.default_attention)
    with pytest.raises(DataError, match="size: ") as told:
        make(pictures[0], tmp_path / "sharded", other, shard="1/2", resume=True)
    assert "attention" not in str(told.value), "it is said otherwise and is the same"


def test_an_index_grows(localizer: Localizer, tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 4)):
        (tmp_path / name).mkdir()
        write_pictures(tmp_path / name, count)
        for file in list((tmp_path / name).rglob("*.*")):
            file.rename(file.with_name(f"{name}-{file.name}"))
    first = make(tmp_path / "a", tmp_path / "index", localizer)
    with pytest.raises(OutputError, match="--resume"):
        make(tmp_path / "b", tmp_path / "index", localizer)
    both = make(tmp_path / "b", tmp_path / "index", localizer, resume=True)
    again = make(tmp_path / "a", tmp_path / "index", localizer, resume=True)
    assert (len(first), len(both), len(again)) == (5, 9, 9)
    assert len(again.infos[0]["inputs"]) == 3
    grown = again.append([first.features(0), first.features(1)], ["x", "y"])
    assert len(grown) == 11
    assert grown.row(9)["source"] == "x"
    np.testing.assert_allclose(grown.features(10).patches, first.features(1).patches, atol=1e-3)
    with pytest.raises(DataError, match="codec"):
        make(tmp_path / "a", tmp_path / "index", localizer, resume=True, keep="int8")


def test_pictures_of_another_folder_under_the_same_name_are_told(localizer: Localizer, tmp_path: Path) -> None:
    """They count as those that the index holds, and are not encoded."""
    for name in ("a", "b", "c"):
        write_pictures(tmp_path / name, 2)
    (changed, *_) = sorted(file for file in (tmp_path / "b").rglob("*.*") if file.is_file())
    Image.fromarray(other()).save(changed)
    for file in (tmp_path / "b").rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    make(tmp_path / "a", tmp_path / "index", localizer)
    with pytest.warns(UserWarning, match=r"passed over.*indexed before, and that are others: 1 \(") as said:
        make(tmp_path / "b", tmp_path / "index", localizer, resume=True)
    assert f"({changed.relative_to(tmp_path / 'b')})" in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tmp_path / "c", tmp_path / "index", localizer, resume=True)  # the same pictures, elsewhere


def test_another_model_is_refused(index: Index) -> None:
    other = Localizer(PlantedBackbone(64, 8))
    other.backbone.weights_hash = "another"
    with pytest.raises(ConfigurationError, match="ask with the model of the index"):
        index.query(CONCEPTS, localizer=other)
    with pytest.raises(ConfigurationError, match="cannot become 'squash' without its pictures"):
        index.query(CONCEPTS, localizer=Localizer(PlantedBackbone(64, 8)), resize="squash")


def test_threads_and_copies_in_other_processes_answer_alike(index: Index, localizer: Localizer) -> None:
    expected = index.values(CONCEPTS, localizer=localizer)
    fresh = Index.open(index.path)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: fresh.values(CONCEPTS, localizer=localizer), range(16)):
            np.testing.assert_array_equal(found, expected)
    copy = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(copy.features(3).patches, index.features(3).patches)
    assert sum(1 for _ in copy) == 17


def test_no_index_and_a_damaged_one(index: Index, tmp_path: Path, localizer: Localizer) -> None:
    with pytest.raises(DataError, match="is no index"):
        Index.open(tmp_path)
    info = json.loads((index.path / "index.json").read_text())
    (tmp_path / "parts").mkdir()
    (tmp_path / "index.json").write_text(json.dumps(info))
    (tmp_path / "parts" / "part-000001.arrow").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        len(Index.open(tmp_path))
    with pytest.raises(ConfigurationError, match="index already"):
        make(index.path, tmp_path / "again", localizer)


def test_a_part_that_is_missing_is_told_and_made_again(
    pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    whole = make(pictures[0], tmp_path / "index", localizer)
    assert len(whole.files) > 2
    expected = whole.features(0).patches.clone()
    whole.files[0][1].unlink()
    lame = Index.open(tmp_path / "index")
    for ask in (lambda: len(lame), lambda: lame.features(0), lambda: lame.query(CONCEPTS, localizer=localizer)):
        with pytest.raises(DataError, match=r"entries of the 17 .* --resume"):
            ask()
    again = make(pictures[0], tmp_path / "index", localizer, resume=True)
    assert sorted(sources(again)) == sorted(pictures[1])
    assert (again.features(sources(again).index(sources(whole)[0])).patches == expected).all()


def test_an_index_that_was_open_when_it_grew_stays_what_it_was(localizer: Localizer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_pictures(tmp_path / name, 5 if name == "a" else 9)
    before = make(tmp_path / "a", tmp_path / "index", localizer)
    values = before.values(CONCEPTS, localizer=localizer)
    after = before.append(localizer.encode([str(file) for file in sorted((tmp_path / "b").rglob("*")) if file.is_file()]))
    assert (len(before), len(after)) == (5, 14)
    np.testing.assert_array_equal(before.values(CONCEPTS, localizer=localizer), values)
    np.testing.assert_array_equal(after.values(CONCEPTS, localizer=localizer)[:, :5], values)


# ----------------------------------------------------------------------------------------------------------------- kills


def kill_and_resume(inputs: Path, output: Path, kills: int, workers: int, delay: float, seed: int) -> int:
    """Kills the making of an index so often at random moments, then lets it end; returns how many kills came before it had ended by
    itself.
    """
    chance, early = random.Random(seed), 0
    command = [sys.executable, "-m", "tests.collection.index_driver", str(inputs), str(output), str(workers), str(delay)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        process.stdout.readline()  # the first batch is through
        time.sleep(chance.random() * 0.6)
        early += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return early


def assert_whole(output: Path, good: list[str], localizer: Localizer, like: Index | None = None) -> None:
    found = Index.open(output)
    assert sorted(sources(found)) == sorted(good), "a picture is lost or there twice"
    if like is not None:
        by_source = {source: entry for entry, source in enumerate(sources(like))}
        for entry, source in enumerate(sources(found)):
            assert (found.features(entry).patches == like.features(by_source[source]).patches).all()


def test_killed_twice_and_resumed_is_whole(
    index: Index, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    assert kill_and_resume(pictures[0], tmp_path / "index", 2, workers=0, delay=0.1, seed=1) >= 1
    assert_whole(tmp_path / "index", pictures[1], localizer, index)


@pytest.mark.slow
def test_killed_twenty_times_while_made_and_while_it_grows(localizer: Localizer, tmp_path: Path) -> None:
    good: list[str] = []
    early = 0
    for name, count, kills in (("a", 250, 10), ("b", 250, 10)):
        folder = tmp_path / name
        folder.mkdir()
        write_pictures(folder, count)
        for file in [file for file in folder.rglob("*") if file.is_file()]:
            file.rename(file.with_name(f"{name}-{file.name}"))
        good += [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
        early += kill_and_resume(folder, tmp_path / "index", kills, workers=0, delay=0.1, seed=count + kills)
    assert early >= 16
    assert_whole(tmp_path / "index", good, localizer)


def test_records_of_a_run_stay_readable(index: Index, localizer: Localizer, tmp_path: Path) -> None:
    run: Run = annotate(index.path, tmp_path / "run", PACK, localizer=localizer, workers=0)
    assert run.info["input"]["layout"] == "index"
    assert run.info["counts"]["pictures"] == 17
