"""Whole runs over generated pictures with planted truth: what is called, what is written, and what survives."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

import pyarrow.parquet as pq

from concept_cam import prompts
from concept_cam.collection.annotation import Interrupted, Request, annotate, estimate
from concept_cam.collection.calls import Limits
from concept_cam.collection.limits import Calibration
from concept_cam.collection.merging import merge_runs
from concept_cam.collection.runs import Run, read_run
from concept_cam.core.errors import ConfigurationError, DataError, OutputError, PromptError
from concept_cam.core.regions import decode_rle
from concept_cam.localizer import Localizer
from tests.colour_world import HEAD, PACK, TAIL, other, picture, write_pictures
from tests.planted import PlantedBackbone

ROWS = 10
"""Records per picture: two characters, three parts, five distances."""


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(64, 8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    folder = tmp_path_factory.mktemp("pictures")
    good, bad = write_pictures(folder, 20, broken=3)
    return folder, good, bad


@pytest.fixture(scope="module")
def whole(
    pictures: tuple[Path, list[str], list[str]],
    localizer: Localizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """One uninterrupted run in this process."""
    return run_here(pictures[0], tmp_path_factory.mktemp("runs") / "whole", localizer, px_per_mm=2.0, keep_scores=True)


def run_here(inputs: Any, output: Path, localizer: Localizer, traits: Any = PACK, **options: Any) -> Run:
    return annotate(inputs, output, traits, localizer=localizer, workers=0, **options)


def by_key(run: Run) -> dict[str, dict[str, Any]]:
    records = list(run.records())
    found = {record["record_key"]: record for record in records}
    assert len(found) == len(records), "a record is there twice"
    return found


def assert_agree(first: Run, second: Run) -> None:
    """Same keys and calls except where the margin is below 1e-4, floats within 1e-4, masks at IoU >= 0.99."""
    one, two = by_key(first), by_key(second)
    assert one.keys() == two.keys()
    for key, a in one.items():
        b = two[key]
        if a["margin"] is not None and abs(a["margin"]) < 1e-4:
            continue
        for name, value in a.items():
            other_value = b[name]
            if name == "rle_counts" and value is not None:
                size = a["rle_size"]
                masks = [decode_rle({"size": size, "counts": counts}) for counts in (value, other_value)]
                assert (masks[0] & masks[1]).sum() >= 0.99 * (masks[0] | masks[1]).sum()
            elif isinstance(value, float):
                assert other_value == pytest.approx(value, abs=1e-4, rel=1e-4), name
            elif name not in ("contour", "scores", "probabilities"):
                assert value == other_value, name
    assert sorted(first.errors(), key=str) == sorted(second.errors(), key=str)


# ---------------------------------------------------------------------------------------------------------------- truth


def test_every_good_picture_once_and_every_bad_one_in_the_errors(whole: Run, pictures: tuple[Path, list[str], list[str]]) -> None:
    _, good, bad = pictures
    groups = {group[0]["source"]: group for group in whole.pictures()}
    assert sorted(groups) == sorted(good)
    assert all(len(group) == ROWS for group in groups.values())
    errors = {error["source"]: error["reason"] for error in whole.errors()}
    assert sorted(errors) == sorted(bad)
    assert {"empty" in reason or "not a picture" in reason or "cut short" in reason for reason in errors.values()} == {True}
    assert whole.info["counts"] == {"pictures": 17, "records": 17 * ROWS, "errors": 3, "duplicates": 0}
    assert whole.info["finished"] is not None
    assert whole.info["input"]["pictures"] == 20


def test_run_json_says_everything(whole: Run) -> None:
    info = whole.info
    for name in (
        "package_version",
        "model",
        "weights_hash",
        "packs",
        "configuration",
        "input",
        "started",
        "finished",
        "sessions",
        "dtype",
    ):
        assert info[name], name
    assert info["sessions"][0]["command"] == sys.argv
    assert info["sessions"][0]["host"]
    assert len(info["packs"]["colours"]["sha256"]) == 64
    assert len(info["input"]["fingerprint"]) == 64


def test_calls_regions_and_measures_are_the_planted_ones(whole: Run) -> None:
    for group in whole.pictures():
        rows = {(row["character"], row["best_state"]): row for row in group}
        colour = rows["head_colour", "red"]
        assert colour["state"] == "red"
        assert colour["quality_id"] == "PATO:0000322"
        assert colour["probability"] > 0.9
        assert sum(colour["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert colour["margin"] == pytest.approx(2 * colour["probability"] - 1, abs=1e-5)
        assert (colour["box_x"], colour["box_width"]) == (
            rows["parts", "head"]["box_x"],
            rows["parts", "head"]["box_width"],
        )
        for name, box in (("head", HEAD), ("caudal_fin", TAIL)):
            row = rows["parts", name]
            cell = 16  # 8 model pixels at half scale
            found = (
                row["box_x"],
                row["box_y"],
                row["box_x"] + row["box_width"],
                row["box_y"] + row["box_height"],
            )
            truth = (box[0], box[1], box[0] + box[2], box[1] + box[3])
            assert np.abs(np.subtract(found, truth)).max() <= cell
            assert box[0] <= row["peak_x"] <= box[0] + box[2]
            assert row["length_uncertainty_px"] == pytest.approx(16)
            assert row["length_mm"] == pytest.approx(row["length_px"] / 2)
            assert row["area_mm2"] == pytest.approx(row["area_px2"] / 4)
            mask = decode_rle({"size": row["rle_size"], "counts": row["rle_counts"]})
            assert mask.shape == (96, 128)
            assert mask.sum() == row["area_px2"]
            ys, xs = np.nonzero(mask)
            assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == found
            assert row["centroid_x"] == pytest.approx(xs.mean() + 0.5, abs=1)
        # A head of two thirds of the length, as the model's patches show it, is no fish's: nothing is measured.
        length = rows["standard_length", None]
        assert length["kind"] == "distance"
        assert length["length_px"] is None
        assert length["abstained_because"] == "no_region"


def test_lengths_are_measured_along_the_body(localizer: Localizer, tmp_path: Path) -> None:
    pixels = np.zeros((96, 256, 3), dtype=np.uint8)
    pixels[16:80, 0:64, 0] = 220  # the head; in this world there is no trunk
    pixels[16:80, 192:256, 1] = 220
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "fish.png")
    run = run_here(tmp_path / "in", tmp_path / "run", localizer, px_per_mm=2.0)
    rows = {record["character"]: record for record in run.records() if record["kind"] == "distance"}
    cell = 32
    for name, truth in (("standard_length", 192), ("caudal_fin_length", 64), ("head_length", 64)):
        row = rows[name]
        assert row["length_px"] == pytest.approx(truth, abs=cell), name
        assert row["length_mm"] == pytest.approx(row["length_px"] / 2)
    x0, y0, x1, y1 = rows["standard_length"]["contour"][0]
    assert (x0, y0) == pytest.approx((0, 48), abs=cell)
    assert (x1, y1) == pytest.approx((192, 48), abs=cell)
    assert rows["standard_length"]["length_uncertainty_px"] == pytest.approx(cell * 2**0.5, rel=0.3)
    assert rows["eye_diameter"]["length_px"] is None


def test_the_probability_of_a_part_is_that_at_its_best_patch(
    whole: Run, localizer: Localizer, pictures: tuple[Path, list[str], list[str]]
) -> None:
    """Against softmax by hand over the cosines of the peak patch with the part and its contrasts."""
    record = next(record for record in whole.records() if record["best_state"] == "caudal_fin")
    (concept,) = prompts.concepts(prompts.load_pack(PACK), "parts", "caudal_fin")
    features = localizer.encode(pictures[0] / record["source"])
    texts = localizer.directions((concept,))
    scores = np.nan_to_num(localizer.score(features, concept).scores[0], nan=-9)
    patch = features.patches[np.unravel_index(scores.argmax(), scores.shape)].double().numpy()
    embeddings = texts.texts[texts.columns[0]].double().numpy()
    cosines = embeddings @ patch / np.linalg.norm(patch)
    odds = np.exp(localizer.backbone.logit_scale * (cosines - cosines.max()))
    assert record["probability"] == pytest.approx(odds[0] / odds.sum(), abs=1e-5)
    assert list(record["probabilities"]) == ["caudal_fin", *concept.contrast_names]


def test_an_absent_mark_has_no_region(whole: Run) -> None:
    marks = [record for record in whole.records() if record["character"] == "mark"]
    assert {record["state"] for record in marks} == {"absent"}
    assert all(record["rle_counts"] is None and record["region_count"] == 0 for record in marks)


def test_kept_scores_are_the_grid_scores(whole: Run, localizer: Localizer, pictures: tuple[Path, list[str], list[str]]) -> None:
    record = next(record for record in whole.records() if record["character"] == "head_colour")
    maps = np.frombuffer(record["scores"], "<f2").reshape(record["scores_shape"])
    assert record["scores_names"] == ["entity", "red", "blue"]
    red = next(concept for concept in prompts.load(PACK) if concept.name == "head_colour=red")
    found = localizer.locate(pictures[0] / record["source"], red)
    np.testing.assert_allclose(maps[1], found.scores, atol=2e-3)
    assert json.loads(record["geometry"])["grid_size"] == list(maps.shape[1:])


def test_a_picture_of_something_else_abstains(tmp_path: Path, localizer: Localizer) -> None:
    Image.fromarray(other()).save(tmp_path / "other.png")
    Image.fromarray(picture()).save(tmp_path / "fish.png")
    run = run_here(tmp_path, tmp_path / "run", localizer)
    groups = {group[0]["source"]: group for group in run.pictures()}
    assert all(row["abstained"] and row["abstained_because"] == "no_host" for row in groups["other.png"])
    assert all(row["rle_counts"] is None and row["state"] is None for row in groups["other.png"])
    assert not any(row["abstained_because"] == "no_host" for row in groups["fish.png"])
    unchecked = run_here(tmp_path, tmp_path / "unchecked", localizer, limits=Limits(host=0))
    assert not any(row["abstained_because"] == "no_host" for row in unchecked.records())


@pytest.mark.parametrize("workers", [0, 1])
def test_pages_that_are_not_read_are_told_once(tmp_path: Path, localizer: Localizer, workers: int) -> None:
    frames = [Image.fromarray(picture(number)) for number in range(2)]
    (tmp_path / "in").mkdir()
    for number in range(5):
        frames[0].save(tmp_path / "in" / f"{number}.tif", save_all=True, append_images=frames[1:] if number else [])
    with pytest.warns(UserWarning, match="several pages") as said:
        annotate(tmp_path / "in", tmp_path / "run", PACK, localizer=localizer, workers=workers, batch_size=2)
    told = [str(warning.message) for warning in said if "pages" in str(warning.message)]
    assert len(told) == 1
    assert told[0].startswith("4 pictures, such as '1.tif', '2.tif', '3.tif', have several pages or frames; only the first one of each")


def test_region_resolutions_agree(tmp_path: Path, localizer: Localizer) -> None:
    from concept_cam.collection.plan import Regions

    Image.fromarray(picture(0, (384, 512))).save(tmp_path / "large.png")
    fast = by_key(run_here(tmp_path, tmp_path / "fast", localizer, regions=Regions(threshold="otsu")))
    exact = by_key(run_here(tmp_path, tmp_path / "exact", localizer, regions=Regions(threshold="otsu", resolution="original")))
    compared = 0
    for key, row in fast.items():
        if row["rle_counts"] is None:
            continue
        one, two = (decode_rle({"size": r["rle_size"], "counts": r["rle_counts"]}) for r in (row, exact[key]))
        assert (one & two).sum() / (one | two).sum() > 0.9
        assert row["length_px"] == pytest.approx(exact[key]["length_px"], rel=0.1)
        compared += 1
    assert compared >= 3


@pytest.mark.parametrize("option", ["boxes", "ignore"])
def test_a_row_of_boxes_that_can_mean_two_pictures_is_refused_before_anything_is_written(
    localizer: Localizer, tmp_path: Path, option: str
) -> None:
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("RGB", (64, 32)).save(tmp_path / "in" / folder / "0.png")
    table = tmp_path / "boxes.csv"
    table.write_text("file,x,y,width,height\n0.png,0,0,10,10\n")
    with pytest.raises(DataError, match=r"'a/0\.png' or 'b/0\.png'"):
        run_here(tmp_path / "in", tmp_path / "run", localizer, **{option: table})
    assert not (tmp_path / "run" / "run.json").exists()
    table.write_text("file,x,y,width,height\na/0.png,0,0,10,10\n")
    run_here(tmp_path / "in", tmp_path / "run", localizer, **{option: table})


@pytest.mark.parametrize("option", ["boxes", "ignore"])
def test_rows_that_name_no_picture_of_an_archive_are_told_when_it_was_read(localizer: Localizer, tmp_path: Path, option: str) -> None:
    import tarfile

    good, _ = write_pictures(tmp_path / "in", 4)
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in good:
            archive.add(tmp_path / "in" / name, Path(name).name)
    table = tmp_path / "boxes.csv"

    def rows(*names: str) -> None:
        table.write_text("file,x,y,width,height\n" + "".join(f"{name},0,0,10,10\n" for name in names), encoding="utf-8")

    def run(output: str, **options: Any) -> Run:
        return run_here(tmp_path / "s.tar", tmp_path / output, localizer, **{option: table}, **options)

    rows(*(Path(name).name for name in good), "gone.png")
    with pytest.warns(UserWarning, match=rf"--{option}: 1 of 5 rows .*'gone\.png'.*'s\.tar/f\S+sh 0000\.png'"):
        run("whole")
    # What other shards and earlier calls dealt with counts; what a limit leaves out is not known.
    for number in (1, 2, 2):
        with pytest.warns(UserWarning, match=rf"--{option}: 1 of 5 rows"):
            run("shards", shard=f"{number}/2", resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run("few", limit=2)
    # Where none of them does, what was done is kept: it could never be finished otherwise.
    rows("gone.png")
    said = rf"--{option}: no row .*was used: the result is as without --{option}\. Its rows name 'gone\.png'.*'s\.tar/f\S+sh 0000\.png'"
    for _ in range(2):
        with pytest.warns(UserWarning, match=said):
            made = run("none", resume=True)
        assert made.info["finished"] is not None
        assert made.info["counts"]["pictures"] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=said):
            run("strict")
    assert read_run(tmp_path / "strict").info["finished"] is not None


def test_masks_that_are_of_no_picture_of_an_archive_are_told_when_it_was_read(localizer: Localizer, tmp_path: Path) -> None:
    import tarfile

    good, _ = write_pictures(tmp_path / "in", 4)
    names = [Path(name).name for name in good]
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in good:
            archive.add(tmp_path / "in" / name, Path(name).name)
    (tmp_path / "masks" / "s.tar").mkdir(parents=True)
    mask = Image.fromarray(np.zeros((96, 128), np.uint8))
    mask.save(tmp_path / "masks" / names[0])  # as in the archive, where sources begin with its name
    with pytest.warns(UserWarning, match=r"--ignore: no mask in .* nothing was ignored: the result is as without --ignore\..*'s\.tar/f"):
        made = run_here(tmp_path / "s.tar", tmp_path / "none", localizer, ignore=tmp_path / "masks")
    assert made.info["finished"] is not None
    mask.save(tmp_path / "masks" / "s.tar" / names[1])
    for number in (1, 2):
        with pytest.warns(UserWarning, match=r"--ignore: 1 of 2 masks in .* are not used, such as '\w[^/]*'\."):
            run_here(tmp_path / "s.tar", tmp_path / "shards", localizer, ignore=tmp_path / "masks", shard=f"{number}/2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_here(tmp_path / "s.tar", tmp_path / "few", localizer, ignore=tmp_path / "masks", limit=2)


@pytest.mark.parametrize("number", [1, 2])
def test_rows_of_other_shards_pictures_are_somebodys(localizer: Localizer, tmp_path: Path, number: int) -> None:
    good, _ = write_pictures(tmp_path / "in", 4)
    table = tmp_path / "boxes.csv"
    table.write_text("file,x,y,width,height\n" + "".join(f"in/{name},0,0,10,10\n" for name in good), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = run_here(tmp_path / "in", tmp_path / "run", localizer, boxes=table, shard=f"{number}/2")
    assert all(row["specimen_width"] == 10 for row in run.records())


def test_specimen_boxes_give_one_row_each_in_the_whole_pictures_frame(tmp_path: Path, localizer: Localizer) -> None:
    tray = np.concatenate([picture(1), picture(2)], axis=1)
    (tmp_path / "in").mkdir()
    Image.fromarray(tray).save(tmp_path / "in" / "tray.png")
    (tmp_path / "boxes.csv").write_text(
        "file,x,y,width,height,catalogNumber\ntray.png,0,0,128,96,A1\ntray.png,128,0,128,96,A2\ntray.png,900,0,10,10,A3\n",
        encoding="utf-8",
    )
    run = run_here(tmp_path / "in", tmp_path / "run", localizer, boxes=tmp_path / "boxes.csv")
    heads = [row for row in run.records() if row["best_state"] == "head"]
    assert [(row["specimen"], row["specimen_x"], row["input_catalogNumber"]) for row in heads] == [
        (0, 0, "A1"),
        (1, 128, "A2"),
    ]
    assert heads[1]["box_x"] - heads[0]["box_x"] == pytest.approx(128, abs=2)
    assert heads[1]["rle_size"] == [96, 256]
    mask = decode_rle({"size": heads[1]["rle_size"], "counts": heads[1]["rle_counts"]})
    assert mask[:, :128].sum() == 0
    assert mask.sum() == heads[1]["area_px2"]
    (error,) = run.errors()
    assert "outside" in error["reason"]
    assert error["reason"].startswith("specimen 2")
    again = run_here(tmp_path / "in", tmp_path / "run", localizer, boxes=tmp_path / "boxes.csv", resume=True)
    assert again.errors() == [error]


def test_ignored_areas_are_neither_seen_nor_found(tmp_path: Path, localizer: Localizer) -> None:
    (tmp_path / "in").mkdir()
    label = picture(0)
    label[0:16, 96:128] = (255, 0, 0)  # a red label that is redder than the head
    Image.fromarray(label).save(tmp_path / "in" / "a.png")
    (tmp_path / "labels.csv").write_text("file,x,y,width,height\na.png,96,0,32,16\n", encoding="utf-8")
    (tmp_path / "masks").mkdir()
    mask = np.zeros((96, 128), np.uint8)
    mask[0:16, 96:128] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    seen = next(row for row in run_here(tmp_path / "in", tmp_path / "seen", localizer).records() if row["best_state"] == "head")
    assert seen["peak_score"] > 0
    for name in ("labels.csv", "masks"):
        run = run_here(tmp_path / "in", tmp_path / f"run {name}", localizer, ignore=tmp_path / name)
        for row in run.records():
            if row["rle_counts"] is not None:
                assert not decode_rle({"size": row["rle_size"], "counts": row["rle_counts"]})[0:16, 96:128].any()
            if row["peak_x"] is not None:
                assert not (row["peak_x"] >= 96 and row["peak_y"] < 16)


# ------------------------------------------------------------------------------------------------------- interruptions


def test_workers_and_one_process_agree(
    whole: Run, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    run = annotate(
        pictures[0],
        tmp_path / "run",
        PACK,
        localizer=localizer,
        workers=2,
        batch_size=3,
        px_per_mm=2.0,
        keep_scores=True,
    )
    assert_agree(whole, run)


def drive(inputs: Path, output: Path, workers: int, delay: float) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "tests.collection.annotate_driver",
        str(inputs),
        str(output),
        str(workers),
        str(delay),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment)


def kill_and_resume(inputs: Path, output: Path, kills: int, workers: int, delay: float, seed: int) -> int:
    """Kills a run so often at random moments, then lets it end; returns how many kills came before it had ended by itself."""
    rng = random.Random(seed)
    in_time = 0
    for _ in range(kills):
        process = drive(inputs, output, workers, delay)
        assert process.stdout is not None
        for _ in range(rng.randint(1, 3)):  # into the work, not into the imports
            process.stdout.readline()
        time.sleep(rng.random() * 2 * delay)
        in_time += process.poll() is None
        process.kill()
        process.wait()
    process = drive(inputs, output, workers, 0.0)
    process.communicate(timeout=300)
    assert process.returncode == 0
    return in_time


def test_killed_twice_and_resumed_agrees_with_an_uninterrupted_run(
    whole: Run, pictures: tuple[Path, list[str], list[str]], tmp_path: Path
) -> None:
    assert kill_and_resume(pictures[0], tmp_path / "run", 2, workers=0, delay=0.1, seed=1) >= 1
    run = read_run(tmp_path / "run")
    assert len(run.info["sessions"]) >= 2
    plain = run_keys(whole)
    assert run_keys(run) == plain
    assert not list((tmp_path / "run" / "parts").glob(".*"))


def run_keys(run: Run) -> tuple[dict[str, tuple[Any, ...]], list[dict[str, str]]]:
    """What a run without scale and kept scores shares with one that has them."""
    keys = {key: (row["state"], row["box_x"], row["rle_counts"], row["abstained_because"]) for key, row in by_key(run).items()}
    return keys, sorted(run.errors(), key=str)


@pytest.mark.slow
def test_killed_ten_times_over_500_pictures(tmp_path: Path, localizer: Localizer) -> None:
    good, bad = write_pictures(tmp_path / "in", 500, broken=25)
    whole = annotate(tmp_path / "in", tmp_path / "whole", PACK, localizer=localizer, workers=2)
    assert whole.info["counts"]["pictures"] == len(good)
    assert whole.info["counts"]["errors"] == len(bad)
    assert kill_and_resume(tmp_path / "in", tmp_path / "run", 10, workers=2, delay=0.2, seed=2) >= 8
    assert_agree(whole, read_run(tmp_path / "run"))


def test_interrupt_ends_cleanly_and_resume_goes_on(
    whole: Run, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    expected = []

    def interrupt(progress: Any) -> None:
        if progress.done >= 6:
            expected.append(json.loads((tmp_path / "run" / "run.json").read_text())["expected"])
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="--resume"):
        run_here(
            pictures[0],
            tmp_path / "run",
            localizer,
            batch_size=3,
            progress=interrupt,
            px_per_mm=2.0,
            keep_scores=True,
        )
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.warns(UserWarning, match=r"is not finished: it holds \d+ of 20 pictures .*--resume"):
        half = read_run(tmp_path / "run")
    assert expected[0] == 20  # a run that is killed can say how much is lacking too
    assert 0 < half.info["counts"]["pictures"] < 17
    assert half.info["finished"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = run_here(pictures[0], tmp_path / "run", localizer, resume=True, px_per_mm=2.0, keep_scores=True)
    assert "expected" not in again.info
    assert_agree(whole, again)


class HalfBackbone(PlantedBackbone):
    """Says that it computes in half precision."""

    dtype = torch.bfloat16


def test_pictures_that_were_replaced_since_are_told_when_a_run_is_continued(localizer: Localizer, tmp_path: Path) -> None:
    good, _ = write_pictures(tmp_path / "photos", 4)
    run_here(tmp_path / "photos", tmp_path / "run", localizer, part_pictures=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_here(tmp_path / "photos", tmp_path / "run", localizer, resume=True)
    first, second = (tmp_path / "photos" / name for name in good[:2])
    times = first.stat()
    Image.fromarray(other()).save(first)
    os.utime(first, (times.st_atime, times.st_mtime - 1e6))  # as a copy that keeps its old date
    os.utime(second)  # touched, and the same
    with pytest.warns(UserWarning, match=r"passed over.*annotated before, and that are others: 1 \(") as said:
        run_here(tmp_path / "photos", tmp_path / "run", localizer, resume=True)
    assert f"({good[0]})" in str(said[0].message)
    assert second.name not in str(said[0].message)


def test_a_failed_picture_that_was_mended_is_told_when_a_run_is_continued(localizer: Localizer, tmp_path: Path) -> None:
    _, (bad, *_) = write_pictures(tmp_path / "photos", 4, broken=2)
    run_here(tmp_path / "photos", tmp_path / "run", localizer)
    Image.fromarray(picture(1)).save(tmp_path / "photos" / bad)
    os.utime(tmp_path / "photos" / bad, (time.time() + 5,) * 2)
    with pytest.warns(UserWarning, match=r"could not be used and were changed since: 1 .*errors\.csv lists them: delete it and resume"):
        run = run_here(tmp_path / "photos", tmp_path / "run", localizer, resume=True)
    assert run.info["counts"]["errors"] == 2
    (run.path / "errors.csv").unlink()
    assert run_here(tmp_path / "photos", run.path, localizer, resume=True).info["counts"]["errors"] == 1


def test_a_failed_picture_that_came_after_the_run_was_begun_is_not_said_to_be_changed(localizer: Localizer, tmp_path: Path) -> None:
    """A run grows, and a picture that is tried again fails again: neither was changed since it failed."""
    write_pictures(tmp_path / "photos", 2)
    run = run_here(tmp_path / "photos", tmp_path / "run", localizer)
    noted = run.path / "run.json"
    noted.write_text(json.dumps(json.loads(noted.read_text()) | {"started": "2000-01-01T00:00:00+00:00"}), encoding="utf-8")
    (tmp_path / "photos" / "bad.png").write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert run_here(tmp_path / "photos", run.path, localizer, resume=True).info["counts"]["errors"] == 1
    os.utime(tmp_path / "photos" / "bad.png", (time.time() + 5,) * 2)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"could not be used and were changed since: 1 \("):
            run_here(tmp_path / "photos", run.path, localizer, resume=True)


def test_resume_refuses_another_configuration_and_names_it(
    pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    run_here(pictures[0], tmp_path / "run", localizer, limit=2)
    with pytest.raises(DataError, match=r"gamma: 1\.0 -> 0\.5"):
        run_here(pictures[0], tmp_path / "run", localizer.with_settings(gamma=0.5), resume=True)
    with pytest.raises(DataError, match=r'views: "single" -> "mirrored"'):
        run_here(pictures[0], tmp_path / "run", localizer.with_settings(views="mirrored"), resume=True)
    half = Localizer(HalfBackbone(64, 8))
    with pytest.raises(DataError, match=r'dtype: "float32" -> "bfloat16"'):
        run_here(pictures[0], tmp_path / "run", half, resume=True)
    with pytest.raises(DataError, match=r"px_per_mm: null -> 3\.0"):
        run_here(pictures[0], tmp_path / "run", localizer, resume=True, px_per_mm=3.0)
    other_pack = json.loads(json.dumps(PACK))
    other_pack["characters"]["head_colour"]["states"]["red"]["phrases"] = ["a very red head"]
    with pytest.raises(DataError, match=r"packs\.colours\.sha256"):
        run_here(pictures[0], tmp_path / "run", localizer, other_pack, resume=True)
    # The same folder, written another way.
    again = run_here(f"{pictures[0]}/./", tmp_path / "run", localizer, resume=True, limit=4)
    assert again.info["counts"]["pictures"] == 4


def test_what_means_the_same_continues_a_run_and_joins_shards(
    pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model does of itself may be named or not, and a folder be named from wherever."""
    folder = pictures[0]
    preprocess = localizer.backbone.preprocess
    own = {"size": preprocess.default_size[0], "mean": preprocess.mean, "interpolation": preprocess.interpolation}
    said = localizer.with_settings(**own)
    monkeypatch.chdir(folder.parent)
    for number, (maker, goer) in enumerate(((localizer, said), (said, localizer))):
        run = run_here(folder, tmp_path / f"{number}", maker, limit=1)
        again = run_here(folder.name, run.path, goer, resume=True, limit=3)
        assert again.info["counts"]["pictures"] == 3
        assert again.info["configuration"] == run.info["configuration"]
        shards = tmp_path / f"shards {number}"
        run_here(folder, shards, maker, shard="1/2")
        run_here(folder.name, shards, goer, shard="2/2")
        assert merge_runs([shards]).info["counts"]["pictures"] == len(pictures[1])
    (folder.parent / "beside").mkdir()
    monkeypatch.chdir(folder.parent / "beside")
    run = run_here(f"../{folder.name}", tmp_path / "beside", localizer, limit=1)
    assert run_here(folder, run.path, localizer, resume=True, limit=3).info["counts"]["pictures"] == 3
    with pytest.raises(DataError, match=r"size: null -> 32"):
        run_here(folder, tmp_path / "0", localizer.with_settings(size=32), resume=True)
    with pytest.raises(DataError, match=r"input\.given"):
        run_here(str(folder / "box 0"), tmp_path / "0", localizer, resume=True)


def test_limits_hold_for_settings_that_mean_the_same(localizer: Localizer, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    noted = {**localizer.settings.recorded(), "views": localizer.views}
    side = localizer.backbone.preprocess.default_size[0]
    for number, (size, asker) in enumerate(((None, localizer.with_settings(size=side)), (side, localizer))):
        facts = {"model": localizer.backbone.name, "weights_hash": localizer.backbone.weights_hash, "settings": {**noted, "size": size}}
        limits = Calibration(0.9, 0.8, {}, facts).save(tmp_path / f"{number}.yaml")
        run_here(tmp_path / "photos", tmp_path / f"run {number}", asker, calibration=limits)
        with pytest.raises(ConfigurationError, match=r"fitted to calls with size .* uses 32"):
            run_here(tmp_path / "photos", tmp_path / f"no {number}", localizer.with_settings(size=32), calibration=limits)
        # What is another is named, and not what is said otherwise beside it.
        own = {"attention": localizer.backbone.default_attention, "size": 32}
        with pytest.raises(ConfigurationError, match=r"fitted to calls with size "):
            run_here(tmp_path / "photos", tmp_path / f"no {number}", localizer.with_settings(**own), calibration=limits)


@pytest.mark.parametrize("given", ["photos", "photos/*.png"])
def test_resume_refuses_another_folder_of_the_same_relative_name(
    given: str, localizer: Localizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another working folder both were mixed in one run, and pictures of other names were not even spoken of."""
    for seed, (place, names) in enumerate({"A": "ab", "B": "cd", "C": "ab"}.items()):
        (tmp_path / place / "photos").mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(picture(10 * seed + number)).save(tmp_path / place / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path / "A")
    run_here(given, tmp_path / "run", localizer)
    before = (tmp_path / "run" / "run.json").read_bytes()
    for place in "BC":
        monkeypatch.chdir(tmp_path / place)
        with pytest.raises(DataError, match=r"pictures in .*A.photos.*[BC].photos' holds none of them as they were: 2 \(a\.png") as said:
            run_here(given, tmp_path / "run", localizer, resume=True)
        assert "choose another --output" in str(said.value)
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    # A collection that was moved, and lost one and got one meanwhile, is the same.
    (tmp_path / "A" / "photos").rename(tmp_path / "moved")
    (tmp_path / "moved" / "b.png").unlink()
    Image.fromarray(picture(7)).save(tmp_path / "moved" / "e.png")
    (tmp_path / "D").mkdir()
    (tmp_path / "moved").rename(tmp_path / "D" / "photos")
    monkeypatch.chdir(tmp_path / "D")
    again = run_here(given, tmp_path / "run", localizer, resume=True)
    assert {record["source"] for record in again.records()} == {"a.png", "b.png", "e.png"}


def test_a_moved_folder_is_known_by_names_that_are_not_utf8(localizer: Localizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept as they are shown, and no file is called so: the folder was refused as another one."""
    for place in "AB":
        (tmp_path / place).mkdir()
    folder = tmp_path / "A" / "photos"
    folder.mkdir()
    Image.fromarray(picture(0)).save(folder / os.fsdecode(b"\xe9.png"))
    monkeypatch.chdir(tmp_path / "A")
    run_here("photos", tmp_path / "run", localizer)
    folder.rename(tmp_path / "B" / "photos")
    monkeypatch.chdir(tmp_path / "B")
    again = run_here("photos", tmp_path / "run", localizer, resume=True)
    assert {record["source"] for record in again.records()} == {"\\xe9.png"}


@pytest.fixture
def two_folders(tmp_path: Path) -> Path:
    """Folders ``A`` and ``B`` with pictures of the same names, and a list and a table that name them."""
    names = [f"{number}.png" for number in range(2)]
    for seed, name in enumerate("AB"):
        (tmp_path / name).mkdir()
        for number, file in enumerate(names):
            Image.fromarray(picture(10 * seed + number)).save(tmp_path / name / file)
    (tmp_path / "l.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (tmp_path / "l.csv").write_text("\n".join(["path", *names]) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["l.txt", "l.csv"])
def test_resume_refuses_a_list_or_table_under_another_root(
    name: str, two_folders: Path, localizer: Localizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, run = two_folders / "A", two_folders / "B", two_folders / "run"
    run_here(two_folders / name, run, localizer, root=str(first), limit=1)
    with pytest.raises(DataError, match=r"input\.root: .*A\" -> .*B\"\n.*--root"):
        run_here(two_folders / name, run, localizer, root=str(second), resume=True)
    with pytest.raises(DataError, match=r"input\.root"):
        run_here(two_folders / name, run, localizer, resume=True)
    # The same folder, written another way.
    monkeypatch.chdir(two_folders)
    again = run_here(two_folders / name, run, localizer, root="./A/", resume=True)
    assert {record["path"] for record in again.records()} == {str(first / f"{n}.png") for n in range(2)}


def test_resume_refuses_standard_input_from_another_folder(
    two_folders: Path, localizer: Localizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(folder: str, **options: Any) -> Run:
        monkeypatch.chdir(two_folders / folder)
        return run_here("-", two_folders / "run", localizer, lines=["0.png", "1.png"], **options)

    go("A", limit=1)
    with pytest.raises(DataError, match=r"input\.root"):
        go("B", resume=True)
    assert go("B", root=str(two_folders / "A"), resume=True).info["counts"]["pictures"] == 2


def test_a_run_of_an_earlier_version_that_did_not_note_the_root_is_continued(two_folders: Path, localizer: Localizer) -> None:
    options: dict[str, Any] = {"root": str(two_folders / "A")}
    run = run_here(two_folders / "l.txt", two_folders / "run", localizer, limit=1, **options)
    info = dict(run.info)
    del info["configuration"]["input"]["root"]
    (run.path / "run.json").write_text(json.dumps(info), encoding="utf-8")
    again = run_here(two_folders / "l.txt", run.path, localizer, resume=True, **options)
    assert again.info["counts"]["pictures"] == 2
    # It is noted from now on.
    with pytest.raises(DataError, match=r"input\.root"):
        run_here(two_folders / "l.txt", run.path, localizer, resume=True, root=str(two_folders / "B"))


def test_output_of_another_run_and_strange_folders_are_refused(
    pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    run_here(pictures[0], tmp_path / "run", localizer, limit=1)
    with pytest.raises(OutputError, match="--resume"):
        run_here(pictures[0], tmp_path / "run", localizer)
    with pytest.raises(OutputError, match="not empty"):
        run_here(pictures[0], pictures[0], localizer)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        run_here(pictures[0], tmp_path / "file", localizer)


def test_a_part_ends_when_much_is_waiting(
    pictures: tuple[Path, list[str], list[str]],
    localizer: Localizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from concept_cam.collection import run_writer

    monkeypatch.setattr(run_writer, "RUN_PART_BYTES", 1)
    run = run_here(pictures[0], tmp_path / "run", localizer, batch_size=5)
    assert len(run.parts) == 4
    assert run.info["counts"]["pictures"] == 17


def test_two_processes_do_not_write_one_run(pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    messages = []

    def second(_progress: Any) -> None:
        with pytest.raises(OutputError, match="another process") as caught:
            run_here(pictures[0], tmp_path / "run", localizer, resume=True)
        messages.append(str(caught.value))

    run_here(pictures[0], tmp_path / "run", localizer, limit=2, progress=second)
    assert messages


def test_full_disk_leaves_finished_parts_valid(pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    def fill(progress: Any) -> None:
        if progress.done >= 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError, match="--resume"):
            run_here(pictures[0], tmp_path / "run", localizer, batch_size=3, part_pictures=3, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    half = read_run(tmp_path / "run")
    assert half.count > 0
    assert half.count % ROWS == 0
    assert by_key(half)
    again = run_here(pictures[0], tmp_path / "run", localizer, resume=True)
    assert again.info["counts"]["pictures"] == 17
    by_key(again)


def test_a_damaged_part_and_a_cut_error_line_are_done_again(
    pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    run = run_here(pictures[0], tmp_path / "run", localizer, batch_size=3, part_pictures=3)
    assert len(run.parts) > 3
    run.parts[1].write_bytes(run.parts[1].read_bytes()[:100])
    errors = run.path / "errors.csv"
    errors.write_bytes(errors.read_bytes()[:-9])
    again = run_here(pictures[0], tmp_path / "run", localizer, resume=True)
    assert again.info["counts"]["pictures"] == 17
    assert len(again.errors()) == 3
    by_key(again)


def test_an_error_line_cut_within_a_character_is_done_again(tmp_path: Path, localizer: Localizer) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "fish.png")
    bad = ["日.png", "本.png"]
    for name in bad:
        (tmp_path / "in" / name).write_bytes(b"no picture")
    run = run_here(tmp_path / "in", tmp_path / "run", localizer)
    errors = run.path / "errors.csv"
    content = errors.read_bytes()
    errors.write_bytes(content[: content.rindex("本".encode()) + 2])
    assert [error["source"] for error in read_run(run.path).errors()] == bad[:1]
    again = run_here(tmp_path / "in", tmp_path / "run", localizer, resume=True)
    assert sorted(error["source"] for error in again.errors()) == bad
    assert errors.read_bytes() == content


def test_a_killed_worker_is_survived(whole: Run, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    import multiprocessing

    killed = []

    def kill_one(progress: Any) -> None:
        if not killed:
            victim = multiprocessing.active_children()[0]
            killed.append(victim.pid)
            victim.kill()

    run = annotate(
        pictures[0],
        tmp_path / "run",
        PACK,
        localizer=localizer,
        workers=2,
        batch_size=2,
        progress=kill_one,
        px_per_mm=2.0,
        keep_scores=True,
    )
    assert killed
    assert_agree(whole, run)


# ------------------------------------------------------------------------------------------------------------- the rest


def test_shards_split_and_merge(whole: Run, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    for index in (1, 2, 3):
        run_here(pictures[0], tmp_path / "run", localizer, shard=f"{index}/3", px_per_mm=2.0, keep_scores=True)
    with pytest.raises(DataError, match="2/3"):
        merge_runs(
            [tmp_path / "run" / "shard-00001-of-00003", tmp_path / "run" / "shard-00003-of-00003"],
            tmp_path / "joined",
        )
    merged = merge_runs([tmp_path / "run"])
    assert merged.path == tmp_path / "run"
    assert_agree(whole, merged)
    assert merged.info["counts"] == whole.info["counts"]
    half = tmp_path / "copy"
    assert not list(merged.path.glob(".merging*"))
    shutil.copytree(tmp_path / "run" / "shard-00002-of-00003", half)
    info = json.loads((half / "run.json").read_text())
    info["finished"] = None
    (half / "run.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="not finished"):
        merge_runs([half], tmp_path / "other")


def test_a_merge_that_finds_no_room_can_be_started_again(
    pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    for index in (1, 2):
        run_here(pictures[0], tmp_path / "run", localizer, shard=f"{index}/2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
        with pytest.raises(OutputError, match="merge again"):
            merge_runs([tmp_path / "run"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "run" / "run.json").exists()
    assert merge_runs([tmp_path / "run"]).info["counts"]["pictures"] == 17


def test_a_part_that_is_lost_is_told_and_done_again(
    whole: Run, pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"px_per_mm": 2.0, "keep_scores": True, "part_pictures": 5, "batch_size": 5}
    run = run_here(pictures[0], tmp_path / "run", localizer, **options)
    lost = run.parts[1]
    held = len(pq.read_table(lost, columns=["image_key"]).column(0).unique())
    lost.unlink()
    with pytest.warns(UserWarning, match=rf"is not whole: {held} of 17 pictures and {held * ROWS} of {17 * ROWS} records"):
        assert read_run(run.path).count == (17 - held) * ROWS
    assert_agree(whole, run_here(pictures[0], tmp_path / "run", localizer, resume=True, **options))


def test_many_keys_are_remembered_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.collection.run_writer import DoneKeys

    monkeypatch.setattr(DoneKeys, "LATEST", 100)
    done, known = DoneKeys(), set()
    rng = random.Random(0)
    for _ in range(5000):
        key = f"{rng.randrange(3000):016x}{'0' * 8}"
        assert done.add(key) == (key not in known)
        known.add(key)
    assert len(done) == len(known)
    assert len(done._new) < max(100, len(known) // 8)


def test_duplicates_in_a_list_are_done_once(pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    paths = [str(pictures[0] / name) for name in pictures[1][:2]]
    run = run_here("-", tmp_path / "run", localizer, lines=[paths[0], paths[1], paths[0]])
    assert run.info["counts"] == {"pictures": 2, "records": 2 * ROWS, "errors": 0, "duplicates": 1}


def test_a_picture_that_vanishes_and_one_that_is_huge(localizer: Localizer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "a.png")
    Image.new("RGB", (400, 300)).save(tmp_path / "in" / "huge.png")
    lines = [str(tmp_path / "in" / name) for name in ("a.png", "gone.png", "huge.png", "")] + [str(tmp_path / "in")]
    run = run_here("-", tmp_path / "run", localizer.with_settings(max_pixels=100_000), lines=lines)
    reasons = {Path(error["source"]).name: error["reason"] for error in run.errors()}
    assert "no such picture" in reasons["gone.png"]
    assert "120,000" in reasons["huge.png"]
    assert "folder" in reasons["in"]
    assert run.info["counts"]["pictures"] == 1


def test_estimate_writes_nothing(pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    found = estimate(pictures[0], tmp_path / "run", PACK, localizer=localizer, sample=8)
    assert found.pictures == 20
    assert found.sampled == 8
    assert found.records == ROWS
    assert found.seconds is not None
    assert found.seconds > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("scale", [Decimal("2.5"), Fraction(5, 2), np.float32(2.5), np.array(2.5), torch.tensor(2.5, dtype=torch.bfloat16)])
def test_any_kind_of_number_is_a_scale(scale: Any) -> None:
    assert Request(["in"], "out", ("fish",), px_per_mm=scale).px_per_mm == 2.5


def test_wrong_options_have_one_clear_message(localizer: Localizer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for options, message in (
        ({"px_per_mm": -1.0}, "px_per_mm"),
        ({"px_per_mm": 1e-300}, "px_per_mm must be pixels per millimetre, from 1e-06 to 1e\\+09, or the name of a column, received 1e-300"),
        ({"px_per_mm": float("nan")}, "px_per_mm"),
        ({"px_per_mm": 10**400}, "px_per_mm"),
        ({"px_per_mm": True}, "px_per_mm .*received True"),
        ({"px_per_mm": np.bool_(True)}, "px_per_mm .*received"),
        ({"px_per_mm": np.array([1.0])}, "px_per_mm .*received"),
        ({"px_per_mm": torch.tensor(True)}, "px_per_mm .*received"),
        ({"px_per_mm": 1j}, "px_per_mm .*received 1j"),
        ({"px_per_mm": np.complex64(2)}, "px_per_mm .*received"),
        ({"px_per_mm": torch.tensor(2 + 1j)}, "px_per_mm .*received"),
        ({"px_per_mm": torch.tensor(2.0, device="meta")}, "px_per_mm .*received"),
        ({"px_per_mm": np.array("2.5")}, "px_per_mm .*received"),
        ({"px_per_mm": np.array(True, dtype=object)}, "px_per_mm .*received"),
        ({"px_per_mm": Decimal("NaN")}, "px_per_mm .*received"),
        ({"px_per_mm": [1]}, r"px_per_mm .*received \[1\]"),
        ({"px_per_mm": b"1"}, "px_per_mm .*received b'1'"),
        ({"limit": 0}, "limit"),
        ({"shard": "4/3"}, "4/3"),
        ({"shard": "two"}, "i/n"),
        ({"engine": "clowd"}, "local"),
        ({"colum": "x"}, "Did you mean 'column'"),
        ({"ignore": str(tmp_path / "nothing")}, "--ignore"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            run_here(tmp_path / "in", tmp_path / "run", localizer, **options)
    with pytest.raises(DataError, match="no such input"):
        run_here(tmp_path / "nowhere", tmp_path / "run", localizer)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("scale", [2, 2.0, np.float32(2), np.int64(2)])
def test_a_scale_of_any_kind_of_number_is_one(scale: Any) -> None:
    assert repr(Request("in", "out", px_per_mm=scale).px_per_mm) == "2.0"


@pytest.mark.parametrize("traits", [5, None, b"fish", [None], ["fish", 3]])
def test_traits_that_are_no_packs(
    traits: object, localizer: Localizer, pictures: tuple[Path, list[str], list[str]], tmp_path: Path
) -> None:
    with pytest.raises(PromptError, match="expected a trait pack such as 'fish'"):
        annotate(pictures[0], tmp_path / "run", traits, localizer=localizer, workers=0)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused_and_leaves_nothing(localizer: Localizer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no picture was found in"):
        run_here(tmp_path / "in", tmp_path / "run", localizer)
    assert not (tmp_path / "run").exists()


def test_of_shards_without_pictures_none_is_left_out_of_the_list_without_a_word(localizer: Localizer, tmp_path: Path) -> None:
    shards = [tmp_path / f"shard-{number}.tar" for number in range(5)]
    (tmp_path / "note.txt").write_text("nothing to see", encoding="utf-8")
    for shard in shards:
        with tarfile.open(shard, "w") as archive:
            archive.add(tmp_path / "note.txt", "note.txt")
    with pytest.raises(DataError, match=r"shard-0\.tar', .*shard-2\.tar', and 2 more \(read as"):
        run_here([str(shard) for shard in shards], tmp_path / "run", localizer)


def test_notes_on_a_picture_name_it(localizer: Localizer, tmp_path: Path) -> None:
    """Also where it was read from bytes, in another process."""
    (tmp_path / "in").mkdir()
    Image.fromarray((np.arange(64 * 64, dtype=np.uint16) % 4000).reshape(64, 64)).save(tmp_path / "in" / "dark.png")
    for workers in (0, 1):
        with pytest.warns(UserWarning, match=r"^'dark\.png': its values end at 3999 of 65535") as said:
            annotate(tmp_path / "in", tmp_path / f"run{workers}", PACK, localizer=localizer, workers=workers)
        assert not [item for item in said if "the given bytes" in str(item.message)]


def test_what_was_fitted_to_masks_judges_a_run(pictures: tuple[Path, list[str], list[str]], localizer: Localizer, tmp_path: Path) -> None:
    from concept_cam.trust.conformal import Conformal
    from concept_cam.trust.fitting import fit_rules
    from concept_cam.trust.kept import Trust
    from tests.trust.test_rules import planted

    facts = localizer.conditions()
    plain = by_key(run_here(pictures[0], tmp_path / "plain", localizer, limit=2))
    called = next(row for row in plain.values() if row["kind"] not in ("part", "distance") and row["probabilities"])
    assert all(row["state_set"] is None for row in plain.values())
    for row in plain.values():
        if row["kind"] in ("part", "distance") or row["abstained_because"] in ("no_host", "absent"):
            assert (row["likely_states"], row["likely_probability"]) == (None, None)
        elif row["likely_states"]:
            shares = dict(row["probabilities"])
            assert row["likely_states"][0] == row["best_state"]
            assert len(row["likely_states"]) < len(shares)
            assert sum(shares[name] for name in row["likely_states"]) == pytest.approx(row["likely_probability"], abs=1e-6)
    assert called["likely_states"]
    name = f"{called['pack']}:{called['character']}"
    limits = (Conformal(0.05, states={name: 0.0}, facts=facts), Conformal(0.1, states={name: 2.0}, facts=facts))
    path = Trust(fit_rules(planted(200), facts=facts), limits).save(tmp_path / "trust.json")
    found = by_key(run_here(pictures[0], tmp_path / "trusted", localizer, limit=2, trust=path, alpha=0.05))
    row = found[called["record_key"]]
    assert row["state_set"] == sorted(dict(called["probabilities"]), key=dict(called["probabilities"]).__getitem__, reverse=True)
    assert by_key(run_here(pictures[0], tmp_path / "default", localizer, limit=2, trust=path))[called["record_key"]]["state_set"] == []
    parts = [row for row in found.values() if row["kind"] == "part"]
    assert all(plain[row["record_key"]]["confidence"] is None for row in parts)
    assert any(row["confidence"] is not None for row in parts)
    bare = Trust(fit_rules(planted(200), facts=facts), (Conformal(0.1, inner={"fish:parts=head": 0.5}, facts=facts),))
    silent = bare.save(tmp_path / "bare.json")
    with pytest.warns(UserWarning, match=r"bare\.json promises no state of what is asked here: the column state_set stays empty"):
        run_here(pictures[0], tmp_path / "silent", localizer, limit=1, trust=silent)
    description = json.loads((tmp_path / "trusted" / "run.json").read_text(encoding="utf-8"))
    assert "rules" in json.dumps(description)
    with pytest.raises(ConfigurationError, match="fitted with gamma"):
        run_here(pictures[0], tmp_path / "other", localizer.with_settings(gamma=0.5), limit=2, trust=path)
    with pytest.raises(ConfigurationError, match="--alpha belongs to --trust"):
        run_here(pictures[0], tmp_path / "none", localizer, limit=2, alpha=0.1)
