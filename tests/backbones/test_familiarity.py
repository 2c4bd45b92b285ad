import math

import pytest
import torch
from torch import Tensor

from concept_cam.backbones.familiarity import Familiarity, familiarity, singular, words_of

AXES = {"fin": 0, "tail": 1, "forked": 2, "bifurcate": 3, "the": 4}


def embed(texts: list[str]) -> Tensor:
    """A bag of words, each with an axis of its own; `the` hardly counts."""
    rows = torch.zeros(len(texts), len(AXES))
    for row, text in zip(rows, texts, strict=True):
        for word in text.split():
            row[AXES[word]] += 0.1 if word == "the" else 1.0
    return torch.nn.functional.normalize(rows, dim=-1)


KNOWN = {"fin", "tail", "forked"}
TRAINED = embed(["forked tail", "fin"])


def test_known_words_weigh_nothing() -> None:
    found = familiarity(["forked tail"], KNOWN, TRAINED, embed)[0]
    assert (found.weight, found.word) == (0.0, "")
    assert math.isclose(found.cosine, 1.0, abs_tol=1e-6)
    assert found.familiar
    assert found.reason() == ""


def test_an_unseen_attribute_is_told_from_an_unseen_filler() -> None:
    attribute, filler = familiarity(["bifurcate tail", "the forked tail"], KNOWN, TRAINED, embed)
    assert attribute.word == "bifurcate"
    assert math.isclose(attribute.weight, 1 - 1 / math.sqrt(2), abs_tol=1e-6)
    assert not attribute.familiar
    assert "'bifurcate'" in attribute.reason()
    assert filler.word == "the"
    assert filler.familiar


def test_a_single_unseen_word_is_all_of_its_phrase() -> None:
    found = familiarity(["bifurcate"], KNOWN, TRAINED, embed)[0]
    assert found.weight == 1.0
    assert found.cosine == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a Forked tail-fin.", ["a", "forked", "tail", "fin"]),
        ("\U0001f41f", ["\U0001f41f"]),
        ("a \u2764\ufe0f fin \u2013 \u201cforked\u201d", ["a", "\u2764", "fin", "forked"]),
        ("cafe\u0301 \u6f22\u5b57\u3002", ["cafe", "\u6f22\u5b57"]),
        ("???", ["???"]),
        (" ", []),
    ],
)
def test_symbols_are_words_and_punctuation_is_not(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_text_without_words_is_not_familiar() -> None:
    for found in familiarity(["\U0001f41f", "???"], KNOWN, TRAINED, lambda texts: torch.full((len(texts), len(AXES)), 5**-0.5)):
        assert found.weight == 1.0
        assert not found.familiar


def test_far_phrases_are_reported_with_their_cosine() -> None:
    assert "0.31" in Familiarity(0.0, "", 0.31).reason()


def test_plurals_of_known_words_are_known() -> None:
    known = {"fin", "berry", "fish"}
    assert [singular(word, known) for word in ("fins", "berries", "fishes", "gas")] == ["fin", "berry", "fish", "gas"]


def test_no_texts_no_answers() -> None:
    assert familiarity([], KNOWN, TRAINED, embed) == []
