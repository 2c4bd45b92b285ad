import csv
from pathlib import Path

import numpy as np
import pytest

from concept_cam import prompts
from examples.training import phrases
from examples.training.families import families

PARAPHRASES = Path(__file__).parent / "data" / "fish_paraphrases.csv"


def test_paraphrases_belong_to_the_pack_and_are_in_no_pack() -> None:
    pack = prompts.load_pack("fish")
    known = {(c.name, s.name, phrase) for c in pack.characters for s in c.states for phrase in s.phrases}
    trained = set(phrases._packs())
    with PARAPHRASES.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [sum(row["kind"] == kind for row in rows) for kind in ("sentence", "synonym")] == [50, 50]
    for row in rows:
        assert (row["character"], row["state"], row["known"]) in known
        assert row["text"] not in trained


def test_captions_never_say_a_paraphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrases, "CAPTIONS", 2000)
    with PARAPHRASES.open(encoding="utf-8") as file:
        texts = {row["text"] for row in csv.DictReader(file)}
    assert not texts & set(phrases._captions(np.random.default_rng(0)))


def test_the_same_seed_gives_the_same_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrases, "CAPTIONS", 50)
    once, again = (list(phrases._captions(np.random.default_rng(3))) for _ in range(2))
    assert once == again
    assert len(set(once)) > 30


def test_family_names_stand_once_each() -> None:
    """A name in two families would have two meanings."""
    names = [name for listed, _ in families() for name in listed]
    assert not {name for name in names if names.count(name) > 1}
