"""One row speaks of one place: peak, box and probability; and what an overlay says it shows."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image

from concept_cam import prompts
from concept_cam.cli import main
from concept_cam.commands.locate import LOCATE_COLUMNS, result_row
from concept_cam.core.concept import Concept
from concept_cam.core.regions import find_shapes
from concept_cam.localizer import Localizer
from concept_cam.trust.conformal import Conformal, stratum_of
from tests.methods.models import photograph
from tests.planted import PlantedBackbone


def two_hills() -> tuple[np.ndarray, np.ndarray]:
    """A picture with a wide dark-red field at the left and a small bright-red spot at the right; and where the spot is (x0, x1)."""
    picture = np.zeros((32, 64, 3), dtype=np.uint8)
    picture[:, :32, 0] = 190
    picture[8:16, 48:56, 0] = 255
    return picture, np.array([48, 56])


def test_the_box_is_that_of_the_peak() -> None:
    picture, (left, right) = two_hills()
    found = Localizer(PlantedBackbone(size=64)).locate(picture, "red", "blue")
    row = result_row("a.png", found, "half-max", 0.0)
    assert left <= row["peak_x"] < right
    assert row["x"] <= row["peak_x"] < row["x"] + row["width"]
    assert row["y"] <= row["peak_y"] < row["y"] + row["height"]
    assert row["width"] < 32  # not the larger field
    assert row["peak_score"] == pytest.approx(float(np.nanmax(found.scores)), abs=1e-6)
    assert list(row) == list(LOCATE_COLUMNS)


def test_a_record_of_a_run_is_of_the_peak_too() -> None:
    picture, (left, right) = two_hills()
    found = Localizer(PlantedBackbone(size=64)).locate(picture, "red", "blue")
    (shape, count, _limit) = find_shapes(found.scores[None], found.geometry)[0]
    assert count == 1
    assert shape is not None
    assert shape.box[0] >= 32 - 8
    assert left < shape.box[2] <= right + 8
    both, number, _ = find_shapes(found.scores[None], found.geometry, areas=0)[0]
    assert number == 2
    assert both is not None
    assert both.box[0] < 8


def test_the_table_and_nothing_seen() -> None:
    found = Localizer(PlantedBackbone()).locate(photograph(), "red", "blue")
    empty = replace(found, scores=np.full_like(found.scores, np.nan))
    row = result_row("a.png", empty, "half-max", 0.0)
    assert row["peak_score"] is None
    assert row["peak_x"] is None
    assert row["x"] is None


@pytest.mark.parametrize(("least", "cell"), [(0.0, "red | blue"), (2.0, "(none)"), (None, None)])
def test_an_empty_set_of_states_is_told_from_none_promised(least: float | None, cell: str | None) -> None:
    picture, _ = two_hills()
    found = Localizer(PlantedBackbone(size=64)).locate(picture, "red", "blue")
    promised = Conformal(0.1, states={} if least is None else {stratum_of(found.concept): least})
    states = result_row("a.png", found, "half-max", 0.0, promised)["states"]
    assert states == cell or (cell and states == " | ".join(reversed(cell.split(" | "))))


def test_parts_of_a_pack_have_the_probability_at_their_best_cell() -> None:
    """As ``annotate`` says it: a softmax over the part and its contrasts at the patch that scores highest, written out."""
    localizer = Localizer.from_pretrained(device="cpu")
    concepts = prompts.load("fish:parts")
    picture = photograph(3)
    features = localizer.encode(picture)
    texts = localizer.directions(concepts)
    answers = localizer.score(features, concepts)
    local = 0
    for index, answer in enumerate(answers):
        scores = np.where(np.isfinite(answer.scores), answer.scores, -np.inf)
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        patch = F.normalize(features.patches[row, column], dim=-1)
        members = [int(texts.target[index]), *texts.contrasts[index][texts.present[index]].tolist()]
        expected = torch.softmax(localizer.backbone.logit_scale * (patch @ texts.texts[members].T), dim=-1)
        np.testing.assert_allclose(answer.probabilities, expected.numpy(), atol=1e-5)
        image = F.normalize(features.image, dim=-1)
        whole = torch.softmax(localizer.backbone.logit_scale * (image @ texts.texts[members].T), dim=-1)
        local += abs(float(whole[0]) - answer.probability) > 1e-3
    assert local > 0
    # A concept that is no part keeps the probability of the whole picture.
    plain = localizer.score(features, [Concept(concepts[0].target, concepts[0].contrasts)])[0]
    assert plain.probability != pytest.approx(answers[0].probability, abs=1e-6)


def test_a_map_without_contrast_does_not_say_that_it_has_one(tmp_path: Path) -> None:
    localizer = Localizer(PlantedBackbone())
    found = localizer.locate(photograph(), "red", "blue")
    assert found.question == "red vs. blue"
    assert found.display_scale().limits[0] == -found.display_scale().limits[1]
    for without in (localizer.locate(photograph(), "red", "blue", gamma=0), localizer.locate(photograph(), "red", "blue", gamma=0.0)):
        assert without.question == "red"
        assert without.display_scale().limits == without.limits  # not about zero: there is nothing to be against
    assert localizer.locate(photograph(), "red").question == "red"


def test_the_commands_table_has_the_columns(tmp_path: Path) -> None:
    Image.fromarray(photograph(2, (48, 64))).save(tmp_path / "a.png")
    result = CliRunner().invoke(
        main, ["locate", str(tmp_path / "a.png"), "--traits", "fish:parts", "--size", "128"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert rows
    for row in rows:
        assert list(row) == list(LOCATE_COLUMNS)
        assert "nan" not in json.dumps(row)
        assert float(row["peak_score"]) == pytest.approx(float(row["peak_score"]))
        if row["x"]:
            x, y = float(row["peak_x"]), float(row["peak_y"])
            assert float(row["x"]) - 1 <= x <= float(row["x"]) + float(row["width"]) + 1
            assert float(row["y"]) - 1 <= y <= float(row["y"]) + float(row["height"]) + 1
