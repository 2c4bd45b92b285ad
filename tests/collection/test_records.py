"""Planted scores become rows: calls, places, measures, keys."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np
import pytest

from concept_cam.collection import records
from concept_cam.collection.calls import Limits, host_is_missing
from concept_cam.collection.inputs.items import Item, Specimen
from concept_cam.collection.plan import Identity, Plan, Regions
from concept_cam.collection.questions import AskedCharacter, AskedState, PackQuestions, Questions
from concept_cam.collection.records import Scored, records_of, records_of_all
from concept_cam.collection.schema import table_from_records
from concept_cam.core.concept import Concept
from concept_cam.core.geometry import Geometry
from concept_cam.core.regions import Frame
from concept_cam.core.settings import Settings
from concept_cam.trust.certified import Certificate
from concept_cam.trust.evidence import Evidence

HOST, REGION, CALL, FORKED, ROUND, ADIPOSE, EYE = range(7)
"""The concepts, in the order in which they are scored."""

FIN = ("tail fin", "UBERON:4000164")
QUESTIONS = Questions(
    concepts=(
        Concept("a fish", ("a plant",)),
        Concept("a tail fin", ("a head",)),
        Concept("a forked tail fin", ("a round tail fin",)),
        Concept("a forked tail fin"),
        Concept("a round tail fin"),
        Concept("an adipose fin", ("a fish",)),
        Concept("an eye", ("a mouth",)),
    ),
    packs=(
        PackQuestions(
            "fish",
            HOST,
            (
                AskedCharacter(
                    "tail",
                    "shape",
                    (AskedState("forked", FORKED, FIN, ("forked", "PATO:0001234", "exact")), AskedState("round", ROUND, FIN)),
                    call=CALL,
                    region=REGION,
                ),
                AskedCharacter(
                    "adipose",
                    "presence",
                    (AskedState("present", ADIPOSE, (None, None)), AskedState("absent", HOST, (None, None))),
                    call=ADIPOSE,
                    region=ADIPOSE,
                ),
                AskedCharacter("parts", "part", (AskedState("eye", EYE, ("eye", "UBERON:0000970")),)),
            ),
            ("standard_length",),
        ),
    ),
    facts={},
)


def planned(**changes: Any) -> Plan:
    plan = Plan(
        QUESTIONS, Settings(), cast(Any, None), Identity("planted", "abc", "0.1"), Limits(host=0.5), Regions(threshold=0.5), px_per_mm=2.0
    )
    return replace(plan, **changes)


def scored(shares: dict[int, tuple[float, float]] | None = None, **changes: Any) -> Scored:
    """A picture of 80 x 160 pixels, cells of 10: the tail is in columns 12 to 15, the eye is one cell."""
    scores = np.zeros((len(QUESTIONS.concepts), 8, 16), np.float32)
    scores[REGION, 2:6, 12:16] = 1.0
    scores[REGION, 4, 14] = 2.0
    scores[FORKED, 3, 15] = 1.0
    scores[EYE, 3, 2] = 1.0
    probabilities = np.full((len(scores), 2), 0.5, np.float32)
    given = {HOST: (0.9, 0.1), CALL: (0.8, 0.2), ADIPOSE: (0.1, 0.9), EYE: (0.7, 0.3)} | (shares or {})
    for concept, pair in given.items():
        probabilities[concept] = pair
    image_scores = np.arange(len(scores), dtype=np.float32) / 10
    item = Item("folder/a.png", cast(Any, None), columns={"site": "pond"})
    geometry = Geometry("squash", (80, 160), (80, 160), (8, 16), (1.0, 1.0))
    planted = Scored(item, "f" * 64, 0, None, Specimen(), Frame(0, 0, (80, 160)), geometry, None, scores, image_scores, probabilities)
    return replace(planted, **changes)


def rows_of(found: Scored, plan: Plan) -> dict[str, dict[str, Any]]:
    rows = records_of(found, plan)
    assert [row["character"] for row in rows] == ["tail", "adipose", "parts", "standard_length"]
    assert len(rows) == QUESTIONS.rows
    assert len({row["record_key"] for row in rows}) == len(rows)
    return {row["character"]: row for row in rows}


def test_a_called_state_has_its_terms_its_place_and_its_measures() -> None:
    tail = rows_of(scored(), planned())["tail"]
    assert (tail["state"], tail["best_state"], tail["abstained"]) == ("forked", "forked", False)
    assert tail["probabilities"] == pytest.approx({"forked": 0.8, "round": 0.2})
    assert (tail["entity"], tail["entity_id"], tail["quality_id"], tail["quality_match"]) == (*FIN, "PATO:0001234", "exact")
    assert tail["score"] == pytest.approx(0.3)
    # The region is that of the part, the evidence that of the state.
    assert (tail["peak_x"], tail["peak_y"]) == pytest.approx((145, 45), abs=1)
    assert (tail["evidence_x"], tail["evidence_y"]) == pytest.approx((155, 35), abs=1)
    assert (tail["threshold"], tail["region_count"], tail["peak_score"]) == (0.5, 1, 2.0)
    assert (tail["box_x"], tail["box_y"]) == pytest.approx((120, 20), abs=3)
    assert (tail["box_x"] + tail["box_width"], tail["box_y"] + tail["box_height"]) == pytest.approx((160, 60), abs=3)
    assert tail["rle_size"] == [80, 160]
    assert tail["area_mm2"] == pytest.approx(tail["area_px2"] / 4)
    assert tail["area_frac"] == pytest.approx(tail["area_px2"] / (80 * 160))


def test_what_is_absent_is_called_and_has_no_place() -> None:
    adipose = rows_of(scored(), planned())["adipose"]
    assert (adipose["state"], adipose["abstained"], adipose["region_count"]) == ("absent", False, 0)
    assert "box_x" not in adipose
    assert "peak_x" not in adipose


def certified(verdict: str, presence: float) -> Certificate:
    return Certificate(verdict, "planted", 0.5, presence, Evidence(**{item.name: 0.5 for item in fields(Evidence)}))


def test_without_what_it_needs_nothing_is_called() -> None:
    (pack,) = QUESTIONS.packs
    tail, adipose, parts = pack.characters
    packs = (replace(pack, characters=(replace(tail, needs=adipose), adipose, parts)),)
    plan = planned(questions=replace(QUESTIONS, packs=packs))
    row = rows_of(scored({ADIPOSE: (0.1, 0.9)}), plan)["tail"]
    assert (row["state"], row["best_state"], row["abstained_because"], row["region_count"]) == (None, "forked", "absent", 0)
    assert (row["probability"], "area_px2" in row) == (pytest.approx(0.8), False)
    # By its map it is not there; or neither is called; or it is there.
    gone = scored({ADIPOSE: (0.9, 0.1)}, certificates={ADIPOSE: certified("absent", 0.01)})
    assert rows_of(gone, plan)["tail"]["abstained_because"] == "absent"
    unsure = replace(plan, limits=Limits(host=0.5, characters={"adipose": 0.95}))
    assert rows_of(scored({ADIPOSE: (0.1, 0.9)}), unsure)["tail"]["state"] == "forked"
    assert rows_of(scored({ADIPOSE: (0.9, 0.1)}), plan)["tail"]["state"] == "forked"


def test_of_an_absent_part_nothing_is_called_or_placed() -> None:
    rows = rows_of(scored(certificates={REGION: certified("absent", 0.01), EYE: certified("absent", 0.01)}), planned())
    for name, best in (("tail", "forked"), ("parts", "eye")):
        row = rows[name]
        assert (row["state"], row["best_state"], row["abstained_because"], row["region_count"]) == (None, best, "absent", 0)
        assert "area_px2" not in row
    # That it is absent is what a presence tells.
    adipose = scored(certificates={ADIPOSE: certified("absent", 0.01)})
    assert rows_of(adipose, planned())["adipose"]["state"] == "absent"
    there = rows_of(scored({ADIPOSE: (0.9, 0.1)}, certificates={ADIPOSE: certified("absent", 0.01)}), planned())["adipose"]
    assert (there["state"], there["abstained_because"]) == (None, "absent")
    doubted = rows_of(scored(certificates={REGION: certified("doubtful", 0.2)}), planned())["tail"]
    assert doubted["state"] == "forked"


def test_a_part_without_a_region_abstains() -> None:
    found = rows_of(scored(), planned())["parts"]
    assert (found["state"], found["entity_id"], found["region_count"]) == ("eye", "UBERON:0000970", 1)
    none = rows_of(scored(), planned(regions=Regions(threshold=5.0)))["parts"]
    assert (none["state"], none["best_state"], none["abstained_because"], none["region_count"]) == (None, "eye", "no_region", 0)


def test_of_a_picture_of_something_else_nothing_is_called_or_measured() -> None:
    for row in rows_of(scored({HOST: (0.2, 0.8)}), planned()).values():
        assert (row["abstained"], row["abstained_because"], row.get("state"), row["region_count"]) == (True, "no_host", None, 0)
        assert "area_px2" not in row


def test_whether_the_host_is_missing_is_asked_once_for_each_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def answer(share: float, limits: Limits) -> bool:
        asked.append(share)
        return host_is_missing(share, limits)

    monkeypatch.setattr(records, "host_is_missing", answer)
    records_of(scored(), planned())
    assert asked == [pytest.approx(0.9)]


def test_every_row_says_of_which_picture_specimen_and_model_it_is() -> None:
    whole = rows_of(scored(), planned())["tail"]
    assert (whole["file_name"], whole["source"], whole["image_width"], whole["image_height"]) == ("a.png", "folder/a.png", 160, 80)
    assert (whole["model"], whole["weights_hash"], whole["px_per_mm"], whole["input_site"]) == ("planted", "abc", 2.0, "pond")
    assert "specimen_x" not in whole
    crop = rows_of(scored(number=3, box=(200, 100, 160, 80), frame=Frame(200, 100, (300, 600))), planned())["tail"]
    assert [crop[f"specimen_{name}"] for name in ("x", "y", "width", "height")] == [200, 100, 160, 80]
    assert (crop["specimen"], crop["image_width"], crop["image_height"]) == (3, 600, 300)
    assert crop["peak_x"] == pytest.approx(whole["peak_x"] + 200)
    assert crop["box_y"] == whole["box_y"] + 100
    assert crop["record_key"] != whole["record_key"]


def test_a_length_that_cannot_be_measured_is_a_row_that_says_so() -> None:
    row = rows_of(scored(), planned())["standard_length"]
    assert (row["kind"], row["abstained"], row["abstained_because"]) == ("distance", True, "no_region")
    assert "length_px" not in row


def test_kept_scores_are_those_of_the_region_and_of_the_states() -> None:
    found = scored()
    rows = rows_of(found, planned(keep_scores=True))
    tail = rows["tail"]
    assert tail["scores_names"] == ["entity", "forked", "round"]
    maps = np.frombuffer(tail["scores"], "<f2").reshape(tail["scores_shape"])
    np.testing.assert_array_equal(maps, found.scores[[REGION, FORKED, ROUND]])
    assert rows["parts"]["scores_names"] == ["eye"]
    assert json.loads(tail["geometry"])["crop_xy"] == [0, 0]
    assert "scores" not in rows_of(found, planned())["tail"]


def test_the_rows_are_rows_of_the_table() -> None:
    table = table_from_records(records_of(scored(), planned()), ("site",))
    assert table.num_rows == 4
    assert table.column("character").to_pylist() == ["tail", "adipose", "parts", "standard_length"]


def test_rows_do_not_depend_on_the_pictures_beside() -> None:
    other = replace(scored().geometry, original=(160, 320), scale=(0.5, 0.5))
    hidden = np.zeros((80, 160), bool)
    hidden[:, 130:] = True
    unseen = np.full_like(scored().scores, np.nan)
    given = [
        scored(),
        scored(geometry=other, frame=Frame(5, 7, (200, 400)), number=1),
        scored({HOST: (0.1, 0.9)}),
        scored(hidden=hidden),
        scored(scores=unseen),
        scored(scores=scored().scores[:, ::-1].copy()),
    ]
    plan = planned()
    together = records_of_all(given, plan)
    assert [len(rows) for rows in together] == [4] * len(given)
    for one, rows in zip(given, together):
        assert repr(rows) == repr(records_of(one, plan))
    assert records_of_all([], plan) == []


def leaf(**changes: Any) -> tuple[Scored, Plan]:
    """A picture of 160 x 240 pixels, cells of 10, with a leaf that is 160 pixels long."""
    questions = Questions(
        concepts=(Concept("a plant", ("a rock",)), Concept("a leaf", ("a stem",))),
        packs=(PackQuestions("plant", 0, (AskedCharacter("parts", "part", (AskedState("leaf", 1, (None, None)),)),), ("leaf_length",)),),
        facts={},
    )
    y, x = np.mgrid[:16, :24] + 0.5
    inside = ((y - 8) / 4) ** 2 + ((x - 12) / 8) ** 2
    scores = np.stack([np.zeros((16, 24)), np.where(inside < 1.0, 1.0, -1.0)]).astype(np.float32)
    geometry = Geometry("squash", (160, 240), (160, 240), (16, 24), (1.0, 1.0))
    shares = np.array([[0.9, 0.1], [0.7, 0.3]], np.float32)
    found = scored(
        geometry=geometry,
        frame=Frame(0, 0, (160, 240)),
        scores=scores,
        image_scores=np.zeros(2, np.float32),
        probabilities=shares,
        **changes,
    )
    return found, planned(questions=questions)


@pytest.mark.parametrize(
    ("verdict", "presence", "measured"),
    [
        ("clear", 0.99, True),
        ("doubtful", 0.6, True),
        ("doubtful", None, True),
        ("doubtful", 0.1, False),
        ("absent", 0.6, False),
        # Unrelated words rise on a trunk as high as its own; that it is there is another question.
        ("not about the prompt", 0.9, True),
        ("not about the prompt", None, False),
    ],
)
def test_nothing_is_measured_on_a_part_that_the_certificate_does_not_find(verdict: str, presence: float | None, measured: bool) -> None:
    evidence = Evidence(**{item.name: 0.5 for item in fields(Evidence)})
    rows = {row["character"]: row for row in records_of(*leaf(certificates={1: Certificate(verdict, "planted", 0.5, presence, evidence)}))}
    length = rows["leaf_length"]
    if measured:
        assert length["length_px"] == pytest.approx(160, rel=0.15)
        assert not length["abstained"]
    else:
        assert "length_px" not in length
        assert (length["abstained"], length["abstained_because"]) == (True, "no_region")
