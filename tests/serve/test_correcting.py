"""Corrections: nothing is lost, nothing is written twice, and they reach calibration and every export."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

from concept_cam.collection.corrected import apply, corrected
from concept_cam.collection.corrections import Conflict, Correction, Corrections, labels_csv
from concept_cam.collection.runs import read_run
from concept_cam.core.errors import DataError, OutputError
from concept_cam.core.regions import decode_rle, encode_rle
from concept_cam.evaluation.calibration import ModelCall, calibrate, read_calls, read_truth
from concept_cam.exports import EXPORTS, export
from concept_cam.serve.app import build_app
from concept_cam.serve.calling import call_of_run
from concept_cam.serve.choosing import needed, progress, score_pictures
from concept_cam.serve.gallery import open_gallery
from concept_cam.serve.keeping import calls_and_labels, export_bytes, fit_limits
from tests.exports.planted import digest, make_record, save_picture, write_run
from tests.serve.conftest import painted
from tests.serve.test_asking import RED, ids


def said(number: int = 0, **values: Any) -> Correction:
    facts = {"id": f"id-{number}", "source": f"{number}.png", "character": "tail", "pack": "fish", "verdict": "accept", "called": "forked"}
    return Correction(**{**facts, "probability": 0.9, "score": 0.2, "kind": "shape", **values})


# ------------------------------------------------------------------------------------------------------------- the file


def test_what_stands_is_the_last_that_was_not_taken_back(tmp_path: Path) -> None:
    store = Corrections(tmp_path / "c.sqlite")
    assert store.standing() == []
    assert not store.path.exists()  # Looking makes no file.
    first = store.add(said(verdict="accept"))
    second = store.add(said(id="two", verdict="state", state="rounded"))
    assert (first.number, second.number) == (1, 2)
    assert [item.id for item in store.standing()] == ["two"]
    assert store.undo("two", "Ada").id == "id-0"
    assert store.undo("id-0") is None
    assert store.standing() == []
    assert [item.undoes for item in store.all()] == ["", "", "two", "id-0"]
    assert all(item.at for item in store.all())
    with pytest.raises(DataError, match="no correction"):
        store.undo("nothing")


def test_the_same_correction_twice_is_one(tmp_path: Path) -> None:
    store = Corrections(tmp_path / "c.sqlite")
    assert store.add(said()).number == store.add(said()).number == 1


def test_two_tabs_do_not_wipe_each_other_out(tmp_path: Path) -> None:
    store, other = Corrections(tmp_path / "c.sqlite"), Corrections(tmp_path / "c.sqlite")
    first = store.add(said(), seen=0)
    with pytest.raises(Conflict, match="in the meantime") as caught:
        other.add(said(id="late", verdict="reject"), seen=0)
    assert caught.value.current == first
    assert other.add(said(id="late", verdict="reject"), seen=first.number).number == 2
    assert other.add(said(1, id="elsewhere"), seen=0).number == 3  # Another picture is another matter.


def test_many_writers_at_once(tmp_path: Path) -> None:
    store = Corrections(tmp_path / "c.sqlite")
    threads = [threading.Thread(target=lambda k=k: [Corrections(store.path).add(said(100 * k + n)) for n in range(15)]) for k in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(store.all()) == 90
    assert [item.number for item in store.all()] == list(range(1, 91))


def test_writers_that_make_the_file_together_are_not_turned_away(tmp_path: Path) -> None:
    """The first correction makes the table: whoever looks meanwhile sees it whole or not yet."""

    def write(store: Corrections, start: threading.Barrier, number: int) -> None:
        start.wait()
        store.add(said(number))

    for number in range(25):
        store, start = Corrections(tmp_path / f"{number}.sqlite"), threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            for written in [pool.submit(write, store, start, each) for each in range(8)]:
                written.result()
        assert len(store.all()) == 8


WRITER = """
import sys
from concept_cam.collection.corrections import Correction, Corrections
store = Corrections(sys.argv[1])
for number in range(100000):
    store.add(Correction(id=f"id-{number}", source=f"{number}.png", character="tail", verdict="accept", called="forked"))
    print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_process_loses_nothing_that_it_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    confirmed = [process.stdout.readline() for _ in range(40)]
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    last = int(rest[-1]) if rest else int(confirmed[-1])
    found = {item.id for item in Corrections(path).standing()}
    assert {f"id-{number}" for number in range(last + 1)} <= found
    Corrections(path).add(said(999_999))  # And it can be written on.


def test_a_file_of_the_first_version_is_read_and_goes_on(tmp_path: Path) -> None:
    """It lacks why a call was not made: read as it is, also where it may not be written, and completed with the next correction."""
    store = Corrections(tmp_path / "old.sqlite")
    store.add(said(1))
    with sqlite3.connect(store.path) as connection:
        connection.execute("ALTER TABLE corrections DROP COLUMN abstained_because")
        connection.execute("PRAGMA user_version = 1")
    before = store.standing()
    assert [(item.id, item.abstained_because) for item in before] == [(said(1).id, "")]
    store.check()
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,), "looking does not lock out an older release"
    store.add(replace(said(2), abstained_because="absent"))
    assert [(item.id, item.abstained_because) for item in store.all()] == [(said(1).id, ""), (said(2).id, "absent")]
    assert store.all()[0] == before[0]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_why_a_call_was_not_made_goes_to_calibrate(client: Any, desk: Any, tmp_path: Path) -> None:
    id_ = ids(client)["a.png"]
    for number, reason in enumerate(("absent", None)):
        called = {"state": "red", "probability": 0.8, "score": 0.3, "abstained_because": reason}
        assert correct(client, id=f"n{number}", picture=id_, verdict="accept", called=called).status_code == 201
        assert desk.corrections.standing()[0].abstained_because == (reason or "")
        table = tmp_path / f"{number}.csv"
        table.write_text(labels_csv(desk.corrections.standing()), encoding="utf-8")
        assert [call.before_limits for call in read_calls(table)[0]] == [reason == "absent"]
        done = progress(desk.standing(), desk.read(RED))
        assert (done["reviewed"], done["labelled"], done["before_limits"]) == (1, 0 if reason else 1, 1 if reason else 0)
        if reason:
            with pytest.raises(DataError, match="all 1 corrected calls are of pictures without the host or of absent parts"):
                fit_limits(desk)
    assert fit_limits(desk)[1]["before_limits"] == 0


def test_labels_run_in_no_spreadsheet_and_are_read_as_they_were(tmp_path: Path) -> None:
    """The table is read with the apostrophes of exports taken off: it has to bear them, or a name that begins with one is another's."""
    names = ("=1+1.png", "'=2.png", "plain.png")
    store = Corrections(tmp_path / "corrections.sqlite")
    for number, name in enumerate(names):
        store.add(replace(said(number), source=name, person="@ada"))
    table = tmp_path / "labels.csv"
    table.write_text(labels_csv(store.standing()), encoding="utf-8")
    with open(table, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file_name"] for row in rows] == ["'=1+1.png", "''=2.png", "plain.png"]
    assert {row["person"] for row in rows} == {"'@ada"}
    assert [label.file_name for label in read_truth(table)] == list(names)


def test_what_is_read_is_a_file_of_corrections(tmp_path: Path) -> None:
    """Reading asks whose file it is, as writing does; a file without anything in it holds no corrections."""
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE things (a)")
    later = Corrections(tmp_path / "later.sqlite")
    later.add(said(1))
    with sqlite3.connect(later.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    for store, message in ((Corrections(tmp_path / "other.sqlite"), "another program's"), (later, "has version 99")):
        for read in (store.all, store.standing, store.last):
            with pytest.raises(DataError, match=message):
                read()
    (tmp_path / "empty.sqlite").touch()
    assert Corrections(tmp_path / "empty.sqlite").all() == []
    assert (tmp_path / "empty.sqlite").stat().st_size == 0


def test_taking_back_under_the_id_of_another_row_is_refused(tmp_path: Path) -> None:
    store = Corrections(tmp_path / "c.sqlite")
    store.add(said(1))
    store.add(said(2))
    with pytest.raises(DataError, match="the id 'id-2' is that of another row: nothing was written"):
        store.undo("id-1", undo_id="id-2")
    assert [item.id for item in store.standing()] == ["id-1", "id-2"]
    assert store.undo("id-1", undo_id="back") is None
    assert store.undo("id-1", undo_id="back") is None  # Sent twice it is one row.
    assert len(store.all()) == 3


@pytest.mark.parametrize(
    "other", [{"source": "2.png"}, {"verdict": "reject"}, {"verdict": "state", "state": "rounded"}, {"boxes": ((1, 2, 3, 4),)}]
)
def test_what_is_said_under_the_id_of_another_row_is_not_lost_without_a_word(other: dict[str, Any], tmp_path: Path) -> None:
    store = Corrections(tmp_path / "c.sqlite")
    first = store.add(said(1))
    assert store.add(said(1, at="later")) == first  # Sent twice it is one row.
    with pytest.raises(DataError, match="the id 'id-1' is that of another row: nothing was written"):
        store.add(said(1, **other))
    assert store.all() == [first]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"source": "fish-\udce9.png"}, r"source is 'fish-\\udce9.png', which is no text that could be kept"),
        ({"person": "\ud800"}, "person is .* no text"),
        ({"specimen": 2**63}, "expected a number from 0 to 9223372036854775807"),
        ({"specimen": -1}, "the specimen is -1"),
    ],
)
def test_what_the_file_cannot_hold_is_said(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        said(**facts)


def test_the_largest_specimen_is_kept(tmp_path: Path) -> None:
    store = Corrections(tmp_path / "c.sqlite")
    store.add(said(specimen=2**63 - 1))
    assert store.standing()[0].specimen == 2**63 - 1


def test_a_place_where_nothing_can_be_kept_is_found_before_anything_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="which is a folder"):
        Corrections(tmp_path).check()
    store = Corrections(tmp_path / "c.sqlite")
    store.add(said(1))
    store.check()
    # Asked as somebody who may not write: tests may run as one who may do everything.
    for kept, message in ((store.path, "may only be read"), (tmp_path, "is not writable")):
        with monkeypatch.context() as patch:
            patch.setattr("os.access", lambda path, mode, kept=kept: Path(path) != kept)
            with pytest.raises(OutputError, match=message):
                store.check()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is Linux's")
def test_a_place_where_nobody_can_make_a_file_is_found_too(tmp_path: Path) -> None:
    """Permissions say that root may write there."""
    (tmp_path / "link.sqlite").symlink_to("/proc/other.sqlite")
    for path, message in (
        ("/proc/x.sqlite", "cannot be kept in '/proc/x.sqlite': .*give --corrections FILE"),
        (tmp_path / "link.sqlite", "link.sqlite': .*give --corrections FILE"),
        ("/dev/null", "no plain file: give --corrections FILE"),
        (tmp_path / ("x" * 300), "(?i)too long.*give --corrections FILE"),
    ):
        with pytest.raises(OutputError, match=message):
            Corrections(path).check()
    Corrections(tmp_path / "c.sqlite").check()
    assert [file.name for file in tmp_path.iterdir()] == ["link.sqlite"]  # Trying leaves nothing behind.


def test_a_file_that_cannot_be_written_is_found_though_its_permissions_allow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a medium that is mounted for reading alone: SQLite opens the file, and refuses the first row."""
    store = Corrections(tmp_path / "c.sqlite")
    store.add(said(1))
    connect = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda path, **values: connect(f"file:{path}?mode=ro", uri=True, **values))
    assert len(store.all()) == 1
    with pytest.raises(OutputError, match="cannot be used: attempt to write a readonly database"):
        store.check()


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_file_that_another_process_writes_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str) -> None:
    store = Corrections(tmp_path / "c.sqlite")
    store.add(said(1))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute(begin)
        start = time.monotonic()
        store.check()
        assert time.monotonic() - start < 5
        # Who has to write waits longer, and is told what it waited for.
        connect = sqlite3.connect
        monkeypatch.setattr("sqlite3.connect", lambda path, **values: connect(path, **{**values, "timeout": 0.1}))
        with pytest.raises(OutputError, match=r"c\.sqlite' are locked: another program has held them for 20 seconds") as refused:
            store.add(said(2))
        assert "room" not in str(refused.value)
        other.execute("ROLLBACK")
    store.add(said(2))
    assert len(store.all()) == 2


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be looked at as one" * 50)
    with pytest.raises(DataError, match="is not a file of corrections"):
        Corrections(tmp_path / "text.sqlite").check()
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE things (a)")
    with pytest.raises(DataError, match="another program's"):
        Corrections(tmp_path / "other.sqlite").add(said())
    with pytest.raises(OutputError, match="--corrections"):
        Corrections(tmp_path / "missing" / "c.sqlite").check()


# ------------------------------------------------------------------------------------------------------------- the page


def correct(client: Any, **values: Any) -> Any:
    return client.post("/api/corrections", json={"question": RED, "called": {"state": "red", "probability": 0.8, "score": 0.3}, **values})


def test_a_correction_over_http(client: Any, desk: Any) -> None:
    id_ = ids(client)["a.png"]
    runs = [64 * 16 + 8, 8, *([56, 8] * 7), 64 * 64 - 64 * 16 - 8 - 64 * 7 - 8]
    made = correct(
        client, id="one", picture=id_, verdict="accept", person="Ada", seen=0, boxes=[[1, 2, 30, 40]], mask={"size": [64, 64], "runs": runs}
    )
    assert made.status_code == 201, made.text
    row = desk.corrections.standing()[0]
    assert (row.source, row.character, row.verdict, row.person, row.boxes) == ("a.png", "green | red", "accept", "Ada", ((1, 2, 30, 40),))
    mask = decode_rle(row.mask)
    assert mask.sum() == 64
    assert mask[16:24, 8:16].all()
    shown = client.get(f"/api/corrections?picture={id_}").json()["corrections"][0]
    assert shown["drawn"] == {"size": [64, 64], "runs": runs}
    assert client.get("/api/pictures").json()["pictures"][0]["corrections"] == 1
    conflict = correct(client, id="two", picture=id_, verdict="reject", seen=0)
    assert conflict.status_code == 409
    assert conflict.json()["current"]["id"] == "one"
    assert client.post("/api/corrections/undo", json={"id": "one"}).json()["current"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"verdict": "perhaps"},
        {"verdict": "state"},
        {"boxes": [[5, 5, 5, 9]]},
        {"boxes": [[1, 2, 3]]},
        {"mask": {"size": [4, 4], "runs": [3]}},
        {"mask": {"size": [4, 4], "runs": [-1, 17]}},
        {"mask": {"size": [99999, 99999], "runs": [99999 * 99999]}},
        {"mask": {"size": [], "runs": [0]}},
        {"person": "x" * 200},
        {"seen": "1"},
        {"question": None},
        {"called": {}},
        {"called": {}, "verdict": "reject"},
        {"called": {"state": "red", "probability": 7}},
        {"called": {"state": "red", "abstained_because": "rain"}},
    ],
)
def test_wrong_corrections(client: Any, desk: Any, wrong: dict[str, Any]) -> None:
    answer = correct(client, **{"picture": ids(client)["a.png"], "verdict": "accept", **wrong})
    assert answer.status_code == 400, answer.text
    assert desk.corrections.standing() == []


TAIL = {"character": "fish:caudal_fin_shape"}
HEAD = {"character": "fish:parts", "state": "head"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"question": TAIL, "verdict": "state", "state": "fork", "called": {"state": "rounded"}},
            "unknown state 'fork'. Did you mean 'forked'",
        ),
        ({"question": TAIL, "verdict": "accept", "called": {"state": "red"}}, "unknown called.state 'red'."),
        ({"question": HEAD, "verdict": "state", "state": "forked", "called": {"state": "head"}}, "unknown state 'forked'. Known: head."),
        ({"question": HEAD, "verdict": "accept", "called": {"state": "eye"}}, "unknown called.state 'eye'. Known: head."),
    ],
)
def test_a_state_that_the_character_does_not_have_is_refused(client: Any, desk: Any, wrong: dict[str, Any], message: str) -> None:
    """One such row would make every label unusable: calibrate refuses labels that no state of the character is."""
    answer = correct(client, picture=ids(client)["a.png"], **wrong)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert desk.corrections.standing() == []


def test_a_part_that_is_accepted_is_right_whatever_was_sent_as_its_call(client: Any, desk: Any) -> None:
    assert correct(client, picture=ids(client)["a.png"], question=HEAD, verdict="accept", called={}).status_code == 201
    calls, labels = calls_and_labels(desk.corrections.standing())
    assert [(call.state, label.state) for call, label in zip(calls, labels, strict=True)] == [("head", "head")]
    # As files of an earlier version may hold them: what holds no call counts neither way.
    bare = Correction(id="bare", source="b.png", character="caudal_fin_shape", pack="fish", verdict="accept")
    part = Correction(id="part", source="b.png", character="parts", pack="fish", part="eye", kind="part", verdict="accept")
    calls, labels = calls_and_labels([bare, part])
    assert [(call.state, label.state) for call, label in zip(calls, labels, strict=True)] == [("eye", "eye")]


def test_a_mask_is_enlarged_to_the_picture(client: Any, desk: Any) -> None:
    correct(client, picture=ids(client)["a.png"], mask={"size": [2, 2], "runs": [1, 1, 2]})
    mask = decode_rle(desk.corrections.standing()[0].mask)
    assert mask.shape == (64, 64)
    assert mask[:32, 32:].all()
    assert mask.sum() == 32 * 32


MASK = {"size": [2, 2], "runs": [1, 1, 2]}


def post(client: Any, **body: Any) -> Any:
    return client.post("/api/corrections", json={"picture": ids(client)["a.png"], "question": RED, **body})


def test_what_is_left_out_of_a_correction_stays(client: Any, desk: Any) -> None:
    """A box that is sent alone wiped out who accepted what, though both were answered with 201."""
    clicked = {**RED, "clicks": [[3, 4, 1]]}
    called = {"state": "red", "probability": 0.8, "score": 0.3, "abstained_because": "low_probability"}
    assert post(client, question=clicked, verdict="accept", called=called, person="Ada", mask=MASK).status_code == 201
    first = desk.corrections.standing()[0]
    answer = post(client, boxes=[[1, 2, 3, 4]])
    assert answer.status_code == 201
    (row,) = desk.corrections.standing()
    changed = {name for name, value in vars(row).items() if value != getattr(first, name)}
    assert changed == {"id", "number", "at", "boxes"}
    shown = answer.json()["correction"]
    assert (shown["verdict"], shown["called"], shown["boxes"]) == ("accept", "red", [[1, 2, 3, 4]])
    assert len(list(csv.DictReader(io.StringIO(client.get("/api/export/labels").text)))) == 1
    assert progress(desk.standing(), desk.read(RED))["right"] == 1
    # null takes away, and so does what is empty; the rest stays again.
    assert post(client, mask=None, question={**RED, "clicks": []}).status_code == 201
    (row,) = desk.corrections.standing()
    assert (row.mask, row.clicks, row.boxes, row.verdict, row.person) == (None, (), ((1, 2, 3, 4),), "accept", "Ada")
    assert post(client, boxes=None, person=None).status_code == 201
    (row,) = desk.corrections.standing()
    assert (row.boxes, row.verdict, row.called, row.person) == ((), "accept", "red", "")
    # What is said of the call is of one piece, and what was drawn stays beside it.
    assert post(client, mask=MASK).status_code == 201
    assert post(client, verdict="state", state="green").status_code == 201
    (row,) = desk.corrections.standing()
    assert (row.verdict, row.state, row.called, row.probability, row.mask is None) == ("state", "green", "", None, False)
    assert post(client, verdict=None).status_code == 201
    (row,) = desk.corrections.standing()
    assert (row.verdict, row.state, row.mask is None) == ("", "", False)
    assert client.post("/api/corrections/undo", json={"id": row.id}).json()["current"]["state"] == "green"


def test_a_correction_of_one_thing_leaves_another_as_it_is(client: Any, desk: Any) -> None:
    assert post(client, verdict="accept", called={"state": "red"}).status_code == 201
    assert post(client, question=TAIL, boxes=[[1, 2, 3, 4]]).status_code == 201
    assert post(client, picture=ids(client)["b.png"], boxes=[[1, 2, 3, 4]]).status_code == 201
    assert [(item.verdict, item.boxes) for item in desk.corrections.standing()] == [
        ("accept", ()), ("", ((1, 2, 3, 4),)), ("", ((1, 2, 3, 4),)),
    ]  # fmt: skip


def test_a_part_of_a_verdict_is_not_sent_alone(client: Any, desk: Any) -> None:
    """The verdict that stands is about another call: beside this one it would say something that nobody said."""
    for told in ({}, {"verdict": "accept", "called": {"state": "red"}}):
        if told:
            assert post(client, **told).status_code == 201
        answer = post(client, state="green")
        assert answer.status_code == 400
        assert "the state 'green' was sent without a verdict: give verdict 'state' with it" in answer.json()["error"]["message"]
    answer = post(client, called={"state": "green", "probability": 0.5}, boxes=[[1, 2, 3, 4]])
    assert answer.status_code == 400
    message = "called.state 'green' was sent without a verdict, and the verdict 'accept' that stands is about 'red': send the verdict"
    assert message in answer.json()["error"]["message"]
    assert post(client, called={"state": "red", "probability": 0.5}, boxes=[[1, 2, 3, 4]]).status_code == 201  # The same call again.
    assert "expected an object" in post(client, verdict="accept", called="red").json()["error"]["message"]
    assert [(item.verdict, item.called) for item in desk.corrections.standing()] == [("accept", "red")]
    # Of a part the call is known by the question.
    assert post(client, question=HEAD, verdict="accept", called={"probability": 0.7}).status_code == 201
    assert post(client, question=HEAD, called={"probability": 0.7}, mask=MASK).status_code == 201


def test_what_leaves_things_out_is_one_row_when_it_is_sent_twice(client: Any, desk: Any) -> None:
    assert post(client, id="one", verdict="accept", called={"state": "red"}).status_code == 201
    for body in ({"boxes": [[1, 2, 3, 4]]}, {"boxes": [[1, 2, 3, 4]], "person": "Ada"}):
        assert post(client, id="two", seen=1, **body).json()["correction"]["number"] == 2
        assert post(client, id=f"later {len(body)}", verdict="reject", called={"state": "red"}).status_code == 201
    refused = post(client, id="two", boxes=[[1, 2, 3, 5]])
    assert refused.status_code == 400
    assert "is that of another row" in refused.json()["error"]["message"]
    assert len(desk.corrections.all()) == 4


def test_what_leaves_things_out_goes_on_from_the_newest(client: Any, desk: Any, photos: Path) -> None:
    """Whoever writes at the same moment: what counts is read where it is written."""
    assert post(client, verdict="accept", called={"state": "red"}).status_code == 201
    bodies = [{"boxes": [[1, 2, 3, 4]]}, {"mask": MASK}, {"person": "Ada"}, {"question": {**RED, "clicks": [[1, 1, 1]]}}]
    with ThreadPoolExecutor(4) as pool:
        assert {answer.status_code for answer in pool.map(lambda body: post(client, **body), bodies)} == {201}
    (row,) = desk.corrections.standing()
    assert (row.verdict, len(row.boxes), row.mask is None, row.person, len(row.clicks)) == ("accept", 1, False, "Ada", 1)


def test_the_description_says_what_stays(client: Any) -> None:
    document = client.get("/openapi.json").json()
    described = document["components"]["schemas"]["Correction"]
    assert "stays as it is in the correction that counts now; null takes it away" in described["description"]
    schema = {"$ref": "#/components/schemas/Correction", "components": document["components"]}
    everything = dict.fromkeys(("verdict", "state", "called", "mask", "boxes", "person"))
    jsonschema.Draft202012Validator(schema).validate({"picture": "x", "question": RED, **everything})
    assert post(client, **everything).status_code == 201


# ------------------------------------------------------------------------------------------------------------- the next


def test_the_least_sure_comes_first_and_twins_do_not_follow_each_other() -> None:
    import torch

    units = {"a": [1.0, 0.0], "b": [0.99, 0.05], "c": [0.0, 1.0], "d": [0.1, 0.9]}
    embeddings = {name: torch.tensor(vector) for name, vector in units.items()}
    uncertainty = {"a": 0.9, "b": 0.85, "c": 0.5, "d": 0.2}
    assert score_pictures(uncertainty, embeddings, [], 1) == ["a"]
    assert score_pictures(uncertainty, embeddings, [], 4, diversity=0.0) == ["a", "b", "c", "d"]
    assert score_pictures(uncertainty, embeddings, ["a"], 1) == ["c"]  # b is a's twin.
    assert score_pictures(uncertainty, embeddings, ["a", "b", "c", "d"], 1) == []
    assert score_pictures(uncertainty, {}, ["a"], 2) == ["b", "c"]


def test_how_many_are_needed_is_what_the_bound_asks_for() -> None:
    from scipy import stats

    count = needed(0, 0, 0.9, 0.8)
    assert stats.beta.ppf(0.2, count, 1) >= 0.9 > stats.beta.ppf(0.2, count - 1, 1)
    assert needed(count, count) == 0
    assert needed(10, 12) == count - 10
    assert needed(0, 0, 0.5, 0.8) == 15  # No limit of its own below fifteen labels.


def test_next_over_http(client: Any, desk: Any) -> None:
    first = client.post("/api/next", json=RED).json()
    assert first["progress"]["needed"] == 16
    assert len(first["next"]) == 1
    for entry in desk.gallery.entries:
        desk.ask(entry, RED)
    unsure = desk.uncertainty(desk.read(RED))
    assert set(unsure) == set(ids(client).values())
    assert client.post("/api/next", json=RED).json()["next"][0]["id"] == max(unsure, key=unsure.get)
    assert client.post("/api/next", json={**RED, "wanted": 0}).json()["next"] == []
    for name, id_ in ids(client).items():
        assert correct(client, picture=id_, verdict="accept" if name != "c.png" else "cannot_tell").status_code == 201
    done = client.post("/api/next", json=RED).json()
    assert done["next"] == []
    assert done["progress"] == {**done["progress"], "reviewed": 4, "labelled": 3, "cannot_tell": 1, "right": 3, "needed": 13}


# ------------------------------------------------------------------------------------------------------------- keeping


def labelled(count: int, wrong: int) -> list[Correction]:
    return [
        said(number, probability=0.5 + number / (2 * count), **({"verdict": "state", "state": "rounded"} if number < wrong else {}))
        for number in range(count)
    ]


def test_labels_go_to_calibrate(tmp_path: Path) -> None:
    items = [*labelled(30, 5), said(90, verdict="cannot_tell"), said(91, verdict="reject", probability=0.51), said(92, verdict="")]
    store = Corrections(tmp_path / "corrections.sqlite")
    for item in items:
        store.add(item)
    table = tmp_path / "labels.csv"
    table.write_text(labels_csv(store.standing()))
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == 32
    assert {row["reviewed"] for row in rows} == {"yes"}
    assert [row["true_state"] for row in rows[-2:]] == ["", "not forked"]
    calls, facts = read_calls(table)
    direct = calibrate(*calls_and_labels(store.standing())).limits
    for truth in (read_truth(table), read_truth(store.path)):
        assert len(truth) == 32, "what cannot be told was looked at, and has no state"
        found = calibrate(calls, truth, facts=facts).limits
        assert found["tail"].to_dict() == direct["tail"].to_dict()
    limit = direct["tail"]
    assert limit.labelled == 31
    assert limit.value is not None
    assert limit.value >= 0.5 + 5 / 60


def test_parts_count_alike_on_the_page_and_on_the_command_line(tmp_path: Path) -> None:
    """One head was accepted and another rejected: of the eyes in the same pictures nobody said anything."""
    store = Corrections(tmp_path / "corrections.sqlite")
    for number, verdict in enumerate(("accept", "reject")):
        store.add(said(number, kind="part", character="parts", part="head", called="head", verdict=verdict, score=0.5))
    run = [ModelCall(f"{number}.png", "parts", part, 0.9, 0.5, "fish", part=True) for number in range(2) for part in ("head", "eye")]
    page = calibrate(*calls_and_labels(store.standing())).limits
    assert {name: (limit.labelled, limit.plain_accuracy) for name, limit in page.items()} == {"* parts": (2, 0.5), "parts=head": (2, 0.5)}
    table = tmp_path / "labels.csv"
    table.write_text(labels_csv(store.standing()))
    for truth in (read_truth(table), read_truth(store.path)):
        assert {name: limit.to_dict() for name, limit in calibrate(run, truth).limits.items()} == {
            name: limit.to_dict() for name, limit in page.items()
        }


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    from tests.exports.planted import plant

    return plant(tmp_path).path


@pytest.fixture
def run_client(run_folder: Path) -> Any:
    from concept_cam.localizer import Localizer
    from concept_cam.serve.desk import Desk
    from tests.planted import PlantedBackbone

    desk = Desk(Localizer(PlantedBackbone(64, 8)), open_gallery(str(run_folder)))
    with TestClient(build_app(desk), base_url="http://localhost") as client:
        client.desk = desk
        yield client


SHAPE = ("fish", "caudal_fin_shape", 0, "")


@pytest.mark.parametrize(
    ("verdict", "stands"), [("accept", False), ("state", False), ("reject", False), ("cannot_tell", False), ("", True)]
)
def test_what_a_person_said_is_not_narrowed_down(verdict: str, stands: bool) -> None:
    likely = {"likely_states": ["forked", "lunate"], "likely_probability": 0.93}
    shares = {"forked": 0.5, "lunate": 0.43, "rounded": 0.07}
    record = make_record("a.png", (8, 8), "caudal_fin_shape", "shape", "forked", probability=0.5, probabilities=shares, **likely)
    base = {"pack": "fish", "character": "caudal_fin_shape", "kind": "shape", "called": "forked"}
    state = "rounded" if verdict == "state" else ""
    row = apply(record, Correction(id="a", source="a.png", verdict=verdict, state=state, boxes=((1, 1, 3, 3),), **base))
    assert {name: row[name] for name in likely} == (likely if stands else dict.fromkeys(likely))


def test_a_run_is_corrected_in_every_export(run_folder: Path, tmp_path: Path) -> None:
    run = read_run(run_folder)
    assert corrected(run) is run
    sources = list(dict.fromkeys(record["source"] for record in run.records(["source"])))
    before = {(r["source"], r["character"], r["best_state"] if r["kind"] == "part" else ""): r for r in run.records()}
    size = [before[sources[0], "caudal_fin_shape", ""][f"image_{side}"] for side in ("height", "width")]
    drawn = np.zeros(size, bool)
    drawn[3:13, 4:24] = True
    store = Corrections(run_folder / "corrections.sqlite")
    base = {"pack": "fish", "character": "caudal_fin_shape", "kind": "shape", "person": "Ada Løv"}
    store.add(Correction(id="a", source=sources[0], verdict="state", state="lunate", mask=encode_rle(drawn), **base))
    store.add(Correction(id="b", source=sources[1], verdict="cannot_tell", called="rounded", **base))
    store.add(Correction(id="c", source=sources[2], verdict="accept", called="truncate", **base))
    store.add(Correction(id="d", source=sources[3], verdict="reject", called="forked", **base))
    store.add(
        Correction(
            id="e", source=sources[0], verdict="reject", called="head", **{**base, "character": "parts", "kind": "part", "part": "head"}
        )
    )
    after = {(r["source"], r["character"], r["part_key"]): r for r in with_part(corrected(run).records())}
    assert len(after) == len(before)
    first = after[sources[0], "caudal_fin_shape", ""]
    assert (first["state"], first["abstained"], first["reviewed"], first["reviewed_by"]) == ("lunate", False, "state", "Ada Løv")
    assert first["quality_id"] == "PATO:0001870"
    assert (first["box_x"], first["box_y"], first["box_width"], first["box_height"], first["area_px2"]) == (4, 3, 20, 10, 200.0)
    assert first["length_px"] == pytest.approx(20)
    assert first["length_uncertainty_px"] is None
    assert (after[sources[1], "caudal_fin_shape", ""]["state"], after[sources[1], "caudal_fin_shape", ""]["abstained_because"]) == (
        None,
        "cannot_be_told",
    )
    assert before[sources[2], "caudal_fin_shape", ""]["abstained"] is True
    assert after[sources[2], "caudal_fin_shape", ""]["state"] == "truncate"
    assert after[sources[3], "caudal_fin_shape", ""]["abstained_because"] == "rejected"
    assert after[sources[0], "parts", "head"]["abstained"] is True
    untouched = (sources[4], "caudal_fin_shape", "")
    assert same(after[untouched], before[untouched])
    assert list(corrected(run).records(["source", "state"])) == [
        {"source": r["source"], "state": r["state"]} for r in corrected(run).records()
    ]
    for name, entry in EXPORTS.items():
        output = tmp_path / f"out-{name}{entry.suffix}"
        export(run_folder, name, output)
        plain = tmp_path / f"plain-{name}{entry.suffix}"
        export(run_folder, name, plain, corrections=False)
        if name not in ("html", "html-file", "masks"):
            text = everything(output)
            assert "lunate" in text, name
            assert "lunate" not in everything(plain), name
    assert "Ada Løv (reviewed)" in everything(tmp_path / "out-darwin-core.csv")
    shutil.rmtree(tmp_path / "out-html")


def test_what_of_the_corrections_no_record_carries_is_told(run_folder: Path, tmp_path: Path) -> None:
    run = read_run(run_folder)
    record = next(record for record in run.records() if record["character"] == "caudal_fin_shape")
    drawn = np.ones((record["image_height"], record["image_width"]), bool)
    store = Corrections(run_folder / "corrections.sqlite")
    base = {"pack": "fish", "character": "caudal_fin_shape", "kind": "shape", "called": "forked"}

    def told() -> list[str]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            export(run_folder, "csv", tmp_path / "out.csv", overwrite=True)
        return [str(warning.message) for warning in said]

    store.add(Correction(id="a", source=record["source"], verdict="accept", mask=encode_rle(drawn), **base))
    store.add(Correction(id="clicked", source="no such.png", clicks=((3.0, 4.0, 1),), **base))
    assert told() == []
    store.add(Correction(id="b", source=record["source"], verdict="accept", mask=encode_rle(drawn), boxes=((1, 1, 5, 5),), **base))
    store.add(Correction(id="c", source="no such.png", verdict="accept", **base))
    store.add(Correction(id="d", source=record["source"], verdict="reject", called="red", character="red | blue"))
    first, second, third = told()
    assert first.startswith("corrections of which the run has no record")
    assert "1 (caudal_fin_shape of no such.png)" in first
    assert "questions in words" in second
    assert f"1 (red | blue of {record['source']})" in second
    assert "the brushed region alone is carried: 1 (" in third
    store.add(Correction(id="e", source=record["source"], mask=encode_rle(np.ones((2, 3), bool)), **base))
    assert "another size than the run's, which are left out: 1 (" in told()[2]


def with_part(records: Any) -> Any:
    for record in records:
        yield {**record, "part_key": record["best_state"] if record["kind"] == "part" else ""}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    names = set(second)
    return all(str(first[name]) == str(second[name]) for name in names)


def everything(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in (".json", ".xml", ".csv", ".html", ".js")]
    return "".join(
        json.dumps(json.loads(file.read_text()), ensure_ascii=False) if file.suffix == ".json" else file.read_text() for file in files
    )


def test_clicks_and_what_was_cleared_make_nobody_a_reviewer(run_folder: Path) -> None:
    """A click that teaches, or a region drawn and cleared again, stood in every export as "drawn anew by Ada", surest of all."""
    run = read_run(run_folder)
    sources = list(dict.fromkeys(record["source"] for record in run.records(["source"])))
    store = Corrections(run_folder / "corrections.sqlite")
    base = {"pack": "fish", "character": "caudal_fin_shape", "kind": "shape", "person": "Ada", "called": "forked"}
    store.add(Correction(id="clicked", source=sources[0], clicks=((3.0, 4.0, 1),), **base))
    store.add(Correction(id="cleared", source=sources[1], **base))
    store.add(Correction(id="elsewhere", source=sources[2], mask=encode_rle(np.ones((2, 3), bool)), **base))  # of a picture of another size
    before, after = list(run.records()), list(corrected(run).records())
    assert all(same(own, known) for own, known in zip(after, before, strict=True))
    store.add(Correction(id="drawn", source=sources[0], boxes=((1, 1, 5, 5),), **base))
    assert [row["reviewed"] for row in corrected(run).records() if row["reviewed"]] == ["region"]


def test_the_list_ticks_what_was_judged_or_drawn(client: Any) -> None:
    def ticks() -> int:
        return sum(row["corrections"] for row in client.get("/api/pictures").json()["pictures"])

    assert post(client, question={**RED, "clicks": [[3, 4, 1]]}).status_code == 201
    assert ticks() == 0
    assert post(client, boxes=[[1, 2, 3, 4]]).status_code == 201
    assert ticks() == 1
    assert post(client, boxes=None).status_code == 201
    assert ticks() == 0


def test_a_dropped_picture_keeps_the_name_under_which_it_was_corrected(client: Any, desk: Any) -> None:
    """Dropped again under another name, or sent with a question, it had another name and no corrections any more."""
    buffer = io.BytesIO()
    painted((64, 64), (0, 0, 32, 32)).save(buffer, "PNG")
    content = buffer.getvalue()

    def drop(name: str) -> dict[str, Any]:
        return dict(client.post(f"/api/pictures?name={name}", content=content, headers={"Content-Type": "image/png"}).json())

    first = drop("one.png")
    body = {"picture": first["id"], "question": RED, "verdict": "accept", "called": {"state": "red"}}
    assert client.post("/api/corrections", json=body).status_code == 201
    again = drop("two.png")
    assert (again["source"], first["corrections"], again["corrections"]) == (first["source"], 0, 1)
    asked = client.post("/api/ask", json={"image": base64.b64encode(content).decode(), **RED}).json()
    assert asked["picture"]["source"] == first["source"]
    (kept,) = client.get(f"/api/corrections?picture={first['id']}").json()["corrections"]
    assert kept["verdict"] == "accept"


def test_a_run_over_http(run_client: Any) -> None:
    state = run_client.get("/api/state").json()
    assert state["kind"] == "run"
    assert {item["character"] for item in state["run"]["characters"]} == {"caudal_fin_shape", "adipose_fin", "parts"}
    sources = ids(run_client)
    assert len(sources) == 4  # The fifth is on no disk of ours.
    question = {"character": "fish:caudal_fin_shape", "state": "forked"}
    records = {record["source"]: record for record in run_client.desk.gallery.run.records() if record["character"] == "caudal_fin_shape"}
    for source, id_ in sources.items():
        call = run_client.desk._call(run_client.desk.gallery.get(id_), run_client.desk.read(question), None, None, None)
        assert call["from"] == "run"
        assert call["state"] == records[source]["best_state"]
    unsure = run_client.desk.uncertainty(run_client.desk.read(question))
    assert unsure == pytest.approx({sources[s]: 1 - r["margin"] for s, r in records.items() if s in sources}, abs=1e-6)
    export_ = run_client.get("/api/export/coco")
    assert export_.status_code == 200
    assert export_.headers["content-disposition"].startswith("attachment")
    assert "annotations" in export_.json()
    archive = zipfile.ZipFile(io.BytesIO(run_client.get("/api/export/label-studio").content))
    assert any(name.endswith("tasks.json") for name in archive.namelist())
    # The labels of the task stand in a file of their own, beside the picture's: CVAT wants them first.
    both = run_client.get("/api/export/cvat")
    assert both.headers["content-disposition"].endswith('-cvat.zip"')
    names = zipfile.ZipFile(io.BytesIO(both.content)).namelist()
    assert sorted(Path(name).suffix for name in names) == [".json", ".xml"]
    unknown = run_client.get("/api/export/kml")
    assert unknown.status_code == 400
    assert "labels" in unknown.json()["error"]["message"]


def test_what_a_run_narrows_down_is_told(tmp_path: Path) -> None:
    """The page read a run's calls without these columns, and told of none of them what was likely."""
    shares = {"forked": 0.5, "lunate": 0.43, "rounded": 0.07}
    save_picture(photo := tmp_path / "photos" / "a.png", (40, 60), 0)
    record = make_record(
        "a.png", (40, 60), "caudal_fin_shape", "shape", "forked", path=str(photo), probability=0.5, probabilities=shares,
        sha256=digest(photo), likely_states=["forked", "lunate"], likely_probability=0.93,
    )  # fmt: skip
    write_run(tmp_path / "run", [record], parts=1)
    gallery = open_gallery(str(tmp_path / "run"))
    call = call_of_run(gallery.calls(gallery.entries[0])[SHAPE])
    assert (call["likely"], call["likely_probability"]) == (["forked", "lunate"], pytest.approx(0.93))


def test_new_limits_say_what_they_change(run_client: Any) -> None:
    assert run_client.get("/api/limits").status_code == 400
    desk = run_client.desk
    for number, record in enumerate(r for r in desk.gallery.run.records() if r["character"] == "caudal_fin_shape"):
        right = number != 0
        desk.corrections.add(
            Correction(
                id=str(number), source=record["source"], pack="fish", character="caudal_fin_shape", kind="shape",
                called=record["best_state"],
                probability=record["probability"], verdict="accept" if right else "reject",
            )
        )  # fmt: skip
    found = run_client.get("/api/limits?target=0.5&confidence=0.5").json()
    row = next(row for row in found["limits"] if row["name"] == "caudal_fin_shape")
    made = [
        r["probability"] is not None and r["probability"] >= row["value"]
        for r in desk.gallery.run.records()
        if r["character"] == "caudal_fin_shape"
    ]
    was = [not r["abstained"] for r in desk.gallery.run.records() if r["character"] == "caudal_fin_shape"]
    assert row["no_longer_called"] == sum(w and not m for w, m in zip(was, made))
    assert row["newly_called"] == sum(m and not w for w, m in zip(was, made))
    assert run_client.post("/api/limits", json={"target": 0.5}).json() == {"file": "limits.yaml"}
    assert (desk.gallery.run.path / "limits.yaml").is_file()


def test_limits_say_what_the_corrections_lack(client: Any, desk: Any) -> None:
    """A state that stood without its call was answered with "nothing was corrected yet"."""
    assert "nothing was corrected yet" in client.get("/api/limits").json()["error"]["message"]
    id_ = ids(client)
    assert post(client, picture=id_["a.png"], verdict="state", state="green").status_code == 201
    assert post(client, picture=id_["b.png"], verdict="cannot_tell").status_code == 201
    assert post(client, picture=id_["c.png"], boxes=[[1, 2, 3, 4]]).status_code == 201
    answer = client.get("/api/limits")
    assert answer.status_code == 400
    said_ = answer.json()["error"]["message"]
    assert "none of the 3 corrections says of a call whether it was right: 1 lack the call that they judge (called.state" in said_
    assert "1 say that it cannot be told, 1 have no verdict." in said_
    done = client.post("/api/next", json={**RED, "wanted": 0}).json()["progress"]
    assert (done["reviewed"], done["labelled"], done["without_call"], done["cannot_tell"]) == (2, 0, 1, 1)
    assert post(client, picture=id_["a.png"], verdict="state", state="green", called={"state": "red"}).status_code == 201
    assert (
        "none of the 1 calls that were corrected has a probability (called.probability)"
        in client.get("/api/limits").json()["error"]["message"]
    )


def test_limits_say_how_their_calls_were_made(client: Any, desk: Any, run_client: Any) -> None:
    """So that they are refused where pictures are read or scored otherwise; the calls of a run were made as the run says."""
    assert correct(client, picture=ids(client)["a.png"], verdict="accept").status_code == 201
    asked = desk.localizer.settings.recorded()
    facts = fit_limits(desk)[0].facts["settings"]
    assert {name: facts[name] for name in ("gamma", "weighting", "look_again")} == {
        name: asked[name] for name in ("gamma", "weighting", "look_again")
    }
    assert facts["views"] == desk.localizer.views
    record = next(iter(run_client.desk.gallery.run.records()))
    accepted = Correction(id="x", source=record["source"], pack="fish", character="caudal_fin_shape", called="forked", verdict="accept")
    run_client.desk.corrections.add(accepted)
    with pytest.raises(DataError, match="ask with contrasts"):
        fit_limits(run_client.desk)
    run_client.desk.corrections.add(replace(accepted, id="y", probability=0.9))
    run_client.desk.gallery.run.info["configuration"] = {"gamma": 0.5, "look_again": True, "device": "cpu"}
    assert fit_limits(run_client.desk)[0].facts["settings"] == {"gamma": 0.5, "look_again": True}


def test_pictures_of_a_run_that_are_gone_are_named(run_folder: Path) -> None:

    whole = open_gallery(str(run_folder))
    assert whole.absent == ("s3://bucket/gone away.png",)  # As it was planted.
    gone = whole.entries[1]
    Path(gone.path).unlink()
    found = open_gallery(str(run_folder))
    assert set(found.absent) == {gone.source, *whole.absent}
    assert len(found) == len(whole) - 1


def test_a_run_of_other_weights_says_so(run_client: Any, client: Any) -> None:
    state = run_client.get("/api/state").json()
    schema = {"$ref": "#/components/schemas/State", "components": run_client.get("/openapi.json").json()["components"]}
    jsonschema.Draft202012Validator(schema).validate(state)
    assert state["run"]["model"] == {"name": "tiny/planted", "weights_hash": "0123abcd"}
    assert "0123abcd" in state["run"]["other_weights"]
    assert state["model"]["weights_hash"] in state["run"]["other_weights"]
    own = run_client.desk
    own.gallery.run.info["weights_hash"] = own.localizer.backbone.weights_hash
    assert run_client.get("/api/state").json()["run"]["other_weights"] is None
    assert client.get("/api/state").json()["run"] is None
    jsonschema.Draft202012Validator(schema).validate(client.get("/api/state").json())


def test_a_run_that_does_not_say_its_weights_has_those_of_its_records(run_folder: Path) -> None:
    info = json.loads((run_folder / "run.json").read_text())
    assert (info.pop("model"), info.pop("weights_hash")) == ("tiny/planted", "0123abcd")
    (run_folder / "run.json").write_text(json.dumps(info))
    assert (read_run(run_folder).model, read_run(run_folder).weights_hash) == ("tiny/planted", "0123abcd")


def test_a_correction_names_the_weights_that_made_its_call(run_client: Any) -> None:
    """Those of the run where the call is the run's, those of the model where it is the model's."""
    id_, desk = next(iter(ids(run_client).values())), run_client.desk
    of_run = {"question": {"character": "fish:caudal_fin_shape", "state": "forked"}, "called": {"state": "forked", "probability": 0.8}}
    assert run_client.post("/api/corrections", json={**of_run, "picture": id_, "verdict": "accept"}).status_code == 201
    assert correct(run_client, picture=id_, verdict="accept").status_code == 201
    made = {item.character: (item.model, item.weights_hash) for item in desk.corrections.standing()}
    backbone = desk.localizer.backbone
    assert made == {"caudal_fin_shape": ("tiny/planted", "0123abcd"), "green | red": (backbone.name, backbone.weights_hash)}


def test_limits_are_fitted_to_calls_of_one_model(run_client: Any) -> None:
    """They bear the hash of the run, so that calls of the model that answers are left out, and counted."""
    desk = run_client.desk
    source = next(iter(desk.gallery.run.records()))["source"]
    given = {"source": source, "pack": "fish", "called": "forked", "verdict": "accept", "probability": 0.9}
    desk.corrections.add(Correction(id="m", character="words", weights_hash=desk.localizer.backbone.weights_hash, **given))
    with pytest.raises(DataError, match="all 1 corrected calls were made with other weights than 0123abcd of 'tiny/planted'"):
        fit_limits(desk)
    desk.corrections.add(Correction(id="r", character="caudal_fin_shape", weights_hash="0123abcd", **given))
    found, said = fit_limits(desk)
    assert (found.facts["model"], found.facts["weights_hash"]) == ("tiny/planted", "0123abcd")
    assert (said["model"], said["weights_hash"], said["other_weights"]) == ("tiny/planted", "0123abcd", 1)
    assert "words" not in found.limits
    assert found.limits["caudal_fin_shape"].labelled == 1


def test_limits_are_fitted_to_calls_that_a_limit_decides_about(run_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = run_client.desk
    sources = list(dict.fromkeys(record["source"] for record in desk.gallery.run.records()))[:2]
    calls = {
        source: {key: {**record, "abstained_because": "no_host" if source == sources[0] else None} for key, record in records.items()}
        for source, records in desk.gallery.all_calls().items()
    }
    monkeypatch.setattr(desk.gallery, "all_calls", lambda: calls)
    given = {"pack": "fish", "character": "caudal_fin_shape", "called": "forked", "verdict": "accept", "probability": 0.9}
    desk.corrections.add(Correction(id="0", source=sources[0], **given))
    with pytest.raises(DataError, match="all 1 corrected calls are of pictures without the host or of absent parts"):
        fit_limits(desk)
    desk.corrections.add(Correction(id="1", source=sources[1], **given))
    found, said = fit_limits(desk)
    assert (found.limits["caudal_fin_shape"].labelled, said["before_limits"]) == (1, 1)
    # The table of the same corrections says so as well, though they were kept without a reason.
    table = tmp_path / "labels.csv"
    table.write_bytes(export_bytes(desk, "labels")[0])
    assert [call.before_limits for call in read_calls(table)[0]] == [True, False]


def test_serve_warns_of_a_run_of_other_weights(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from concept_cam.cli import main
    from concept_cam.commands import serve
    from concept_cam.localizer import Localizer
    from concept_cam.serve import server
    from tests.planted import PlantedBackbone

    monkeypatch.setattr(serve, "build_localizer", lambda values: Localizer(PlantedBackbone(64, 8)))
    monkeypatch.setattr("concept_cam.serve.desk.Desk.warm_up", lambda _: None)  # The planted model knows colours alone.
    monkeypatch.setattr(server, "make_server", lambda *_: SimpleNamespace(run=lambda **_: None))
    said = CliRunner().invoke(main, ["serve", str(run_folder), "--port", "0", "--no-ahead"], catch_exceptions=False).stderr
    assert "holds calls of 'tiny/planted' (weights 0123abcd), this model is" in said
    info = json.loads((run_folder / "run.json").read_text())
    info["weights_hash"] = PlantedBackbone(64, 8).weights_hash
    (run_folder / "run.json").write_text(json.dumps(info))
    said = CliRunner().invoke(main, ["serve", str(run_folder), "--port", "0", "--no-ahead"], catch_exceptions=False).stderr
    assert "holds calls of" not in said
