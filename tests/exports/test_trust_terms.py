"""Whether a map can be trusted stands in every export that has a place for it."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concept_cam.collection.corrected import corrected
from concept_cam.collection.corrections import Correction, Corrections
from concept_cam.collection.runs import Run
from concept_cam.core.regions import encode_rle
from concept_cam.exports import EXPORTS, export
from tests.exports.planted import make_record, region_columns, ring, write_run

SIZE = (40, 60)
WORD = "the model's word."
REASON = "60% of the peak's surroundings look like written words or a ruler."
LEDGER = {"the head of a fish": 0.41, "a fish": -0.12, "the tail fin of a fish": float("nan")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust") / "run"
    head = region_columns(ring(SIZE, (20, 10), 6.0))
    told: dict[str, Any] = {
        "verdict": "doubtful",
        "verdict_because": REASON,
        "confidence": 0.53,
        "presence": 0.91,
        "agreement": 0.8,
        "text_share": 0.6,
        "ledger": LEDGER,
        "probability": 0.7,
        **head,
    }
    records = [
        make_record("a.png", SIZE, "parts", "part", "head", **told),
        make_record(
            "a.png", SIZE, "parts", "part", "tail", probability=0.9, verdict="clear", verdict_because="so.", confidence=0.97, **head
        ),
        make_record("b.png", SIZE, "parts", "part", "head", probability=0.8, **head),
    ]
    write_run(folder, records)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_long_table_holds_the_columns(run: Path, tmp_path: Path) -> None:
    first, _, last = rows(export(run, "csv", tmp_path / "run.csv"))
    assert (first["verdict"], first["verdict_because"]) == ("doubtful", REASON)
    assert [float(first[name]) for name in ("confidence", "presence", "agreement", "text_share")] == pytest.approx([0.53, 0.91, 0.8, 0.6])
    assert json.loads(first["ledger"])["a fish"] == pytest.approx(-0.12)
    assert json.loads(first["ledger"])["the tail fin of a fish"] is None
    assert last["verdict"] == last["ledger"] == ""


def test_darwin_core_has_it_as_accuracy_and_remark(run: Path, tmp_path: Path) -> None:
    first, *_ = (row for row in rows(export(run, "darwin-core", tmp_path / "dwc.csv")) if row["measurementValue"] == "present")
    assert first["measurementAccuracy"] == "peak on the target with a probability of 0.53"
    assert f"; map doubtful (confidence 0.53): {REASON.rstrip('.')}; picture" in first["measurementRemarks"]


def test_audiovisual_core_has_it_as_comment(run: Path, tmp_path: Path) -> None:
    first, _, last = rows(export(run, "audiovisual-core", tmp_path / "ac.csv"))
    assert f"map doubtful (confidence 0.53): {REASON}" in first["ac:comments"]
    assert "map" not in last["ac:comments"].partition(";")[2]


def test_cvat_has_it_as_attributes(run: Path, tmp_path: Path) -> None:
    path = export(run, "cvat", tmp_path / "cvat.xml")
    first = next(ET.parse(path).getroot().iter("mask"))
    values = {attribute.get("name"): attribute.text for attribute in first}
    assert (values["verdict"], values["confidence"], values["verdict_because"]) == ("doubtful", "0.5300", REASON)
    label = json.loads(next(tmp_path.glob("*.labels.json")).read_text(encoding="utf-8"))[0]
    assert {"verdict", "confidence", "verdict_because"} <= {attribute["name"] for attribute in label["attributes"]}


def test_label_studio_has_it_as_notes_and_columns(run: Path, tmp_path: Path) -> None:
    tasks = json.loads((export(run, "label-studio", tmp_path / "ls") / "tasks.json").read_text(encoding="utf-8"))
    first, last = tasks
    assert (first["data"]["maps_doubtful"], first["data"]["maps_clear"], first["data"]["maps_absent"]) == (1, 1, 0)
    assert first["data"]["least_confidence"] == pytest.approx(0.53)
    notes = [entry["meta"]["text"] for entry in first["predictions"][0]["result"] if "meta" in entry]
    assert notes[0] == [f"map doubtful (confidence 0.53): {REASON.rstrip('.')}"]
    assert "least_confidence" not in last["data"]
    assert not any("meta" in entry for entry in last["predictions"][0]["result"])


def test_coco_and_web_annotations_have_it(run: Path, tmp_path: Path) -> None:
    content = json.loads(export(run, "coco", tmp_path / "coco.json").read_text(encoding="utf-8"))
    assert content["annotations"][0]["attributes"]["verdict"] == "doubtful"
    assert content["annotations"][0]["attributes"]["confidence"] == pytest.approx(0.53)
    assert content["annotations"][2]["attributes"]["verdict"] is None
    text = export(run, "web-annotation", tmp_path / "web.json").read_text(encoding="utf-8")
    assert "map doubtful (confidence 0.53)" in text


def test_the_sheet_has_a_bar_for_each_text(run: Path, tmp_path: Path) -> None:
    page = export(run, "html-file", tmp_path / "sheet.html").read_text(encoding="utf-8")
    start = re.search(r"SHEET_START\((.*?)\);\n", page)
    assert start is not None
    _, traits, _ = json.loads(f"[{start[1]}]")
    assert traits[0]["ledgers"] == [list(LEDGER)]
    rows_of_head = json.loads(re.search(r"SHEET_TRAIT\(0, (.*?)\);\n", page)[1])  # type: ignore[index]
    np.testing.assert_allclose(rows_of_head[0]["g"][:3], [0, 0.41, -0.12], rtol=1e-4)
    assert rows_of_head[0]["g"][3] is None
    assert "g" not in rows_of_head[1]
    assert (rows_of_head[0]["v"], rows_of_head[0]["y"]) == (1, REASON)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which a person corrected one call, accepted one and drew one region; the fourth is the model's."""
    folder = tmp_path_factory.mktemp("reviewed") / "run"
    fin = region_columns(ring(SIZE, (20, 10), 6.0))
    told = {"verdict": "absent", "verdict_because": WORD, "confidence": 0.0123, "presence": 0.0456, "p_value": 0.5, **fin}
    odds = {"probability": 0.789, "probabilities": {"forked": 0.789, "lunate": 0.211}}
    names = [f"{name}.png" for name in "abcd"]
    write_run(folder, [make_record(name, SIZE, "caudal_fin_shape", "shape", "forked", **told, **odds) for name in names])
    store = Corrections(folder / "corrections.sqlite")
    base = {"pack": "fish", "character": "caudal_fin_shape", "kind": "shape", "person": "Ada", "called": "forked"}
    store.add(Correction(id="a", source="a.png", verdict="state", state="lunate", **base))
    store.add(Correction(id="b", source="b.png", verdict="accept", **base))
    store.add(Correction(id="c", source="c.png", mask=encode_rle(ring(SIZE, (20, 30), 5.0)), **base))
    return folder


def test_a_verdict_of_the_model_is_not_one_on_what_a_person_said(reviewed: Path) -> None:
    first, second, third, last = corrected(Run.open(reviewed)).records()
    for record in (first, second, third):
        assert [record[name] for name in ("verdict", "verdict_because", "confidence", "presence")] == [None] * 4
    assert (first["p_value"], second["p_value"]) == (None, 0.5)  # Of another state's map, and of this one's.
    assert (last["verdict"], last["confidence"]) == ("absent", pytest.approx(0.0123))


@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "masks"])
def test_no_export_states_the_models_verdict_on_what_a_person_said(name: str, reviewed: Path, tmp_path: Path) -> None:
    made = export(reviewed, name, tmp_path / f"out{EXPORTS[name].suffix}")
    files = [made] if made.is_file() else [path for path in made.rglob("*") if path.suffix in (".json", ".js")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    # The fourth's alone; Label Studio has it at the brush and at the box, COCO has the verdict without its reason.
    assert text.count("the model's word") == {"label-studio": 2, "coco": 0}.get(name, 1)


def test_a_persons_call_is_marked_and_bears_no_odds_of_the_model(reviewed: Path, tmp_path: Path) -> None:
    content = json.loads(export(reviewed, "coco", tmp_path / "coco.json").read_text(encoding="utf-8"))["annotations"]
    assert [item["score"] for item in content] == [None, None, pytest.approx(0.789), pytest.approx(0.789)]
    assert [item["attributes"].get("reviewed") for item in content] == ["state", "accept", "region", None]
    assert content[0]["attributes"]["reviewed_by"] == "Ada"
    measured = rows(export(reviewed, "darwin-core", tmp_path / "dwc.csv"))
    remarks = [row["measurementRemarks"] for row in measured if row["measurementValue"] in ("lunate", "forked")]
    assert remarks[0].endswith("machine-made, then reviewed by Ada (state); picture a.png")
    assert ["probability" in text for text in remarks] == [False, False, True, True]
    masks = ET.parse(export(reviewed, "cvat", tmp_path / "cvat.xml")).getroot().iter("mask")
    values = [{attribute.get("name"): attribute.text or "" for attribute in mask} for mask in masks]
    assert [item["verdict_because"] for item in values] == [*(f"reviewed by Ada ({said})" for said in ("state", "accept", "region")), WORD]
    assert {item["reviewed"] for item in values} == {"false"}  # An accepted state is no word on the mask.
    assert [item["probability"] for item in values] == ["", "", "0.7890", "0.7890"]
    tasks = json.loads((export(reviewed, "label-studio", tmp_path / "ls") / "tasks.json").read_text(encoding="utf-8"))
    regions = [task["predictions"][0]["result"][0] for task in tasks]
    assert regions[0]["meta"]["text"] == ["reviewed by Ada (state)"]
    assert ["score" in region for region in regions] == [False, False, True, True]
    assert ["score" in task["predictions"][0] for task in tasks] == [False, False, True, True]
    web = json.loads(export(reviewed, "web-annotation", tmp_path / "web.json").read_text(encoding="utf-8"))
    texts = [item["body"][1]["value"] for item in web["items"]]
    assert "then reviewed by Ada (state)" in texts[0]
    assert ["probability" in text for text in texts] == [False, False, True, True]
