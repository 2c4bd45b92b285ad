"""Refined maps and second looks from the command line, in runs, evaluations and the app."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from concept_cam.cli import main
from concept_cam.collection.annotation import annotate
from concept_cam.collection.limits import Calibration
from concept_cam.collection.run_writer import differences
from concept_cam.collection.runs import read_run
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import Settings
from concept_cam.core.shapes import decode_rle
from concept_cam.evaluation.calibration import read_calls
from concept_cam.evaluation.datasets import synthetic
from concept_cam.localizer import Localizer
from concept_cam.trust.conformal import Conformal
from concept_cam.trust.rules import Rules


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered fish."""
    folder = tmp_path_factory.mktemp("photos")
    for number, sample in enumerate(synthetic.load(2)):
        Image.fromarray(np.asarray(sample.image)).save(folder / f"fish{number}.png")
    return folder


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_locate_refines_and_says_so(photos: Path, tmp_path: Path) -> None:
    question = ["-t", "the tail fin of a fish", "-c", "the head of a fish", "--size", "192"]
    for name, options in {"plain": [], "refined": ["--refine", "guided"], "again": ["--look-again", "--refine", "guided"]}.items():
        run("locate", photos / "fish0.png", *question, *options, "-o", tmp_path / name)
    found = {name: json.loads((tmp_path / name / "fish0.json").read_text())["results"][0] for name in ("plain", "refined", "again")}
    assert found["plain"]["provenance"]["refine"] == "none"
    assert found["refined"]["provenance"]["refine"] == "guided"
    assert found["again"]["provenance"]["look_again"] is True
    assert math.dist(found["refined"]["peak"], found["plain"]["peak"]) <= 0.25 * 16 + 1
    assert found["refined"]["threshold"] == found["plain"]["threshold"]
    assert found["refined"]["regions"][0]["rle"] != found["plain"]["regions"][0]["rle"]
    with np.load(next((tmp_path / "again").glob("*.npz"))) as content:
        assert content["scores"].shape == (48, 48)
        assert content["refined"].shape == (384, 384)
    assert run("locate", photos / "fish0.png", *question, "--no-look-again")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--refine", "guidd"], "Did you mean 'guided'?"),
        (["--refine", "masks"], "expected the refiner as 'masks:FOLDER'"),
        (["--refine", "masks:nowhere"], "there is no folder 'nowhere'"),
        (["--refine", "guided:9"], "expected the refiner as 'guided'"),
        (["--look-again", "--method", "grad-cam"], "cannot look again"),
        (["--views", "mirrored", "--method", "grad-cam"], "'grad-cam' looks at the picture as it is"),
        (["--views", "mirrored", "--model", "timm:resnet18"], "a classifier's map looks at the picture as it is"),
        (["--attention", "value", "--head", "head.safetensors"], "a classifier's map takes no other attention"),
    ],
)
def test_what_cannot_be_refined_is_one_clear_line(photos: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["locate", str(photos / "fish0.png"), "-t", "a fin", "--size", "96", *options])
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())


def test_refine_may_be_repeated(photos: Path, tmp_path: Path) -> None:
    """One refines what the other made: as the names joined by a plus, and as a list in a file."""
    asked = ["locate", photos / "fish0.png", "-t", "a fin", "--size", "96"]
    (tmp_path / "settings.yaml").write_text("refine: [affinity:early, guided]\n")
    for name, options in {
        "repeated": ["--refine", "affinity:early", "--refine", "guided"],
        "joined": ["--refine", "affinity:early+guided"],
        "file": ["--config", tmp_path / "settings.yaml"],
    }.items():
        run(*asked, *options, "-o", tmp_path / name)
        used = json.loads((tmp_path / name / "fish0.json").read_text())["results"][0]["provenance"]
        assert used["refine"] == "affinity:early+guided"
    run(*asked, "--config", tmp_path / "settings.yaml", "--refine", "none", "-o", tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "fish0.json").read_text())["results"][0]["provenance"]["refine"] == "none"
    result = CliRunner().invoke(main, [*map(str, asked), "--refine", "guided", "--refine", "affinity:early"])
    assert result.exit_code != 0
    assert "affinity works on the cells and comes first" in " ".join(result.output.split())


def test_the_listing_names_them() -> None:
    shown = run("models", "--refine")
    assert shown.count("[cost: ") == 4
    for name in ("guided", "superpixel", "affinity[:MODEL]", "masks:FOLDER"):
        assert name in shown


def test_a_configuration_file_may_ask_for_it(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("refine: superpixel\nlook_again: true\nsize: 96\n")
    run("locate", photos / "fish0.png", "-t", "a fin", "--config", tmp_path / "settings.yaml", "-o", tmp_path / "out")
    used = json.loads((tmp_path / "out" / "fish0.json").read_text())["results"][0]["provenance"]
    assert (used["refine"], used["look_again"]) == ("superpixel", True)


# ----------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer.from_pretrained("demo", size=192)


def test_a_run_draws_refined_outlines_as_locate_does(photos: Path, tmp_path: Path, localizer: Localizer) -> None:
    records = {}
    for name, values in {"plain": {}, "refined": {"refine": "guided"}, "again": {"refine": "guided", "look_again": True}}.items():
        made = annotate(photos, tmp_path / name, "fish:parts", localizer=localizer.with_settings(**values), workers=0)
        records[name] = {(row["source"], row["best_state"]): row for row in made.records()}
    changed = 0
    for key, plain in records["plain"].items():
        refined = records["refined"][key]
        for column in ("probability", "score", "state", "peak_score", "threshold", "verdict"):
            assert refined[column] == plain[column], column
        for column in ("peak_x", "peak_y"):
            assert (refined[column] is None) == (plain[column] is None)
            assert refined[column] is None or abs(refined[column] - plain[column]) <= 0.25 * 16 + 1, column
        changed += refined["rle_counts"] != plain["rle_counts"]
        if refined["length_uncertainty_px"] is not None and plain["length_uncertainty_px"] is not None:
            assert refined["length_uncertainty_px"] == pytest.approx(plain["length_uncertainty_px"], rel=0.5)
    assert changed > len(records["plain"]) / 2
    # As locate: the pictures are no larger than what the model sees twice over, so that both see the same pixels.
    asker = localizer.with_settings(refine="guided", look_again=True)
    from concept_cam import prompts

    answers = asker.locate_all([photos / "fish0.png"], prompts.load("fish:parts"))[0]
    alike = []
    for answer in answers:
        record = records["again"]["fish0.png", answer.concept.metadata["state"]]
        if record["rle_counts"] is None:
            continue
        region = answer.region_of_peak(resolution="model")
        assert region is not None
        mask = decode_rle({"size": record["rle_size"], "counts": record["rle_counts"]})
        own = decode_rle(region.rle)
        alike.append(float((mask & own).sum() / (mask | own).sum()))
        assert record["peak_x"] == pytest.approx(answer.peak[0], abs=0.5)
    # Of the smallest parts, an edge of few cells is much.
    assert np.mean(alike) > 0.9


def test_hidden_pixels_stay_hidden(photos: Path, tmp_path: Path, localizer: Localizer) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    mask = np.zeros((256, 384), dtype=np.uint8)
    mask[:, :130] = 255
    Image.fromarray(mask).save(hidden / "fish0.png")
    made = annotate(
        photos,
        tmp_path / "run",
        "fish:parts",
        localizer=localizer.with_settings(refine="guided", look_again=True),
        workers=0,
        ignore=hidden,
    )
    rows = [row for row in made.records() if row["source"] == "fish0.png" and row["rle_counts"] is not None]
    assert rows
    for row in rows:
        assert not decode_rle({"size": row["rle_size"], "counts": row["rle_counts"]})[:, :128].any()


def test_specimens_in_boxes_are_refined_where_they_lie(photos: Path, tmp_path: Path, localizer: Localizer) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,x,y,width,height\nfish0.png,20,10,300,230\n")
    # At 192 pixels this fish is taken for something else.
    asker = localizer.with_settings(refine="guided", size=256)
    made = annotate(photos / "fish0.png", tmp_path / "run", "fish:parts", localizer=asker, workers=0, boxes=boxes)
    rows = [row for row in made.records() if row["rle_counts"] is not None]
    assert rows
    for row in rows:
        where = np.nonzero(decode_rle({"size": row["rle_size"], "counts": row["rle_counts"]}))
        assert where[1].min() >= 20
        assert where[1].max() < 320


def test_an_index_cannot_be_refined(photos: Path, tmp_path: Path, localizer: Localizer) -> None:
    from concept_cam.collection.indexing import build_index

    build_index(photos, tmp_path / "fish.index", localizer=localizer, workers=0)
    for values in ({"refine": "guided"}, {"look_again": True}):
        with pytest.raises(ConfigurationError, match="an index keeps features and no pictures"):
            annotate(tmp_path / "fish.index", tmp_path / "run", "fish:parts", localizer=localizer.with_settings(**values), workers=0)


def test_a_run_is_continued_with_its_own_refinement(photos: Path, tmp_path: Path, localizer: Localizer) -> None:
    annotate(photos, tmp_path / "run", "fish:parts", localizer=localizer, workers=0, limit=1)
    with pytest.raises(Exception, match='refine: "none" -> "guided"'):
        annotate(photos, tmp_path / "run", "fish:parts", localizer=localizer.with_settings(refine="guided"), workers=0, resume=True)
    # What a run of an earlier version did not write it did not do.
    assert differences({"gamma": 1}, {"gamma": 1, "refine": "none", "look_again": False}) == []
    assert differences({"gamma": 1}, {"gamma": 1, "refine": "guided", "look_again": False}) == ['refine: "none" -> "guided"']


def test_calibrations_hold_for_looks_alone(photos: Path, tmp_path: Path, localizer: Localizer) -> None:
    """Probabilities after a second look are calibrated apart; a refiner leaves them as they are."""
    made = annotate(photos, tmp_path / "run", "fish:parts", localizer=localizer.with_settings(look_again=True), workers=0)
    _, facts = read_calls(tmp_path / "run")
    assert facts["settings"]["look_again"] is True
    assert facts["settings"]["size"] == 192
    assert "refine" not in facts["settings"]
    fitted = Calibration(0.9, 0.9, {}, facts)
    used = {**Settings(size=192, look_again=True).recorded(), "views": "single"}
    fitted.check(made.info["model"], made.info["weights_hash"], used)
    fitted.check(made.info["model"], made.info["weights_hash"], {**used, "refine": "guided"})
    for name, value in {"look_again": False, "size": 384, "views": "mirrored"}.items():
        with pytest.raises(ConfigurationError, match=f"fitted to calls with {name}"):
            fitted.check(made.info["model"], made.info["weights_hash"], {**used, name: value})
    replace(fitted, facts={}).check("any", "other", used)  # limits of unknown origin
    old = {"model": made.info["model"], "weights_hash": made.info["weights_hash"]}
    with pytest.raises(ConfigurationError, match="fitted to calls with look_again False"):  # once there was no choice
        replace(fitted, facts=old).check(old["model"], old["weights_hash"], used)
    assert read_run(tmp_path / "run").info["configuration"]["look_again"] is True


def test_guarantees_hold_for_refined_maps_apart(localizer: Localizer) -> None:
    plain, refined = localizer.conditions(), localizer.with_settings(refine="guided").conditions()
    assert plain["refine"] == "none"
    assert refined["refine"] == "guided"
    assert plain["look_again"] is False
    for fitted in ({"refine": "none", "look_again": False}, {"size": plain["size"]}):  # a file of before says nothing of either
        Conformal(0.1, facts=fitted).check(plain)
        with pytest.raises(ConfigurationError, match="fitted with refine 'none', the maps were made with 'guided'"):
            Conformal(0.1, facts=fitted).check(refined)
        Rules(facts=fitted).check(refined)  # certificates are those of the cells
    with pytest.raises(ConfigurationError, match="look_again False"):
        Conformal(0.1, facts=plain).check({**plain, "look_again": True})
    with pytest.raises(ConfigurationError, match="fitted with size 192"):
        Rules(facts=plain).check({**refined, "size": 384})


# ------------------------------------------------------------------------------------------------------------ evaluation


def test_evaluate_and_sweep_take_both(tmp_path: Path) -> None:
    options = ["-d", "synthetic", "--limit", "2", "--size", "192", "--refine", "guided", "--look-again"]
    run("evaluate", *options, "--metrics", "localisation,calls,control", "--examples", "0", "-o", tmp_path / "report")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["facts"]["model"]["refine"] == "guided"
    assert report["facts"]["model"]["look_again"] is True
    run("sweep", *options, "--gamma", "0,1", "--weighting", "uniform", "--templates", "own", "-o", tmp_path / "best.yaml")
    assert "refine: guided" in (tmp_path / "best.yaml").read_text()
    assert "look_again: true" in (tmp_path / "best.yaml").read_text()


# ------------------------------------------------------------------------------------------------------------------ app


def test_the_app_answers_with_refined_outlines(photos: Path) -> None:
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery

    base = Localizer.from_pretrained("demo", size=192)
    question = {"target": "the tail fin of a fish", "contrasts": ["the head of a fish"], "map": True}
    outlines, grids = [], []
    for values in ({}, {"refine": "guided"}, {"refine": "guided", "look_again": True}):
        desk = Desk(base.with_settings(**values), open_gallery(str(photos)))
        try:
            answer = desk.ask(desk.gallery.entries[0], question)
            outlines.append(answer.regions[0].rle["counts"])
            grids.append(answer.to_dict()["map"]["grid"])
            asked = desk.ask(desk.gallery.entries[0], {"character": "fish:caudal_fin_shape"})
            assert asked.regions is not None
        finally:
            desk.close()
    assert len(set(outlines)) == 3
    assert grids == [[24, 24], [24, 24], [48, 48]]
