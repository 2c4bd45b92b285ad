import json

import pytest
import torch

from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, WordPieceTower
from examples.training import distil
from examples.training.distil import DistilConfig
from examples.training.phrases import held_out
from examples.training.teacher import Teacher
from tests.backbones.test_word_pieces import PIECES, tokenizer_text

pytest.importorskip("tokenizers")

TEXTS = ["fin", "tail", "a fin", "a tail", "fin tail", "tail fin", "a fin tail", "rab", "bar", "star"]


def with_added_tokens(text: str, more: tuple[str, ...] = ()) -> str:
    """A tokenizer file as the teacher's package has it: the marks listed as added tokens, and pieces that no Latin text needs."""
    data = json.loads(text)
    for piece in more:
        data["model"]["vocab"][piece] = len(data["model"]["vocab"])
    data["added_tokens"] = [
        {"id": i, "content": PIECES[i], "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for i in range(4)
    ]
    return json.dumps(data)


@pytest.fixture
def teacher() -> Teacher:
    torch.manual_seed(0)
    more = ("\u4e2d", "[unused1]")
    sizes = WordPieceConfig(pieces=len(PIECES) + len(more), width=16, layers=4, heads=4, hidden=32, context=12)
    return Teacher(WordPieceTower(sizes).eval(), with_added_tokens(tokenizer_text(), more), "0" * 64)


def test_pruning_keeps_marks_letters_and_what_the_texts_use(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil, "FREQUENT", 0)
    text, kept = distil.pruned(teacher.tokenizer, ["tail"])
    vocabulary = json.loads(text)["model"]["vocab"]
    assert [vocabulary[mark] for mark in distil.SPECIAL] == [0, 1, 2, 3]
    assert "tail" in vocabulary
    assert "fin" not in vocabulary
    assert "\u4e2d" not in vocabulary
    assert "[unused1]" not in vocabulary
    assert all(letter in vocabulary and f"##{letter}" in vocabulary for letter in "abfinrst")
    assert len(kept) == len(vocabulary)
    pieces = json.loads(teacher.tokenizer)["model"]["vocab"]
    assert [pieces[piece] for piece in vocabulary] == kept
    tokens = WordPieceTokens(text, 8)
    assert tokens.ids("fin") == [2, vocabulary["f"], vocabulary["##i"], vocabulary["##n"], 3]


def test_the_student_starts_from_the_layers_that_are_named(teacher: Teacher) -> None:
    student, tokens, _ = distil.student_of(teacher, TEXTS, DistilConfig(layers=(0, 3), context=8))
    assert student.config.layers == 2
    assert torch.equal(student.layers[1].up.weight, teacher.tower.layers[3].up.weight)
    fin = tokens.ids("fin")[1]
    assert torch.equal(student.pieces.weight[fin], teacher.tower.pieces.weight[PIECES.index("fin")])


def test_training_brings_the_student_near_its_teacher(teacher: Teacher) -> None:
    config = DistilConfig(layers=(0, 3), context=8, batch=5, steps=120, rate=3e-3, warmup=5)
    student, tokens, _ = distil.student_of(teacher, TEXTS, config)
    targets = distil.sentence_embeddings(teacher.tower, teacher.tokens, TEXTS, "cpu")
    before = distil.agreement(student, tokens, TEXTS, targets).mean()
    distil.distil(student, tokens, TEXTS, targets, config)
    after = distil.agreement(student, tokens, TEXTS, targets).mean()
    assert after > before
    assert after > 0.98


def test_saved_weights_are_read_again(teacher: Teacher, tmp_path) -> None:
    from examples.training.noun_rows import read_text_tower

    student, tokens, tokenizer = distil.student_of(teacher, TEXTS, DistilConfig(layers=(0, 3), context=8))
    distil.save(tmp_path, student, tokenizer)
    again, same = read_text_tower(tmp_path)
    ids = tokens.batch(TEXTS)["ids"]
    assert torch.equal(ids, same.batch(TEXTS)["ids"])
    assert (student.eval()(ids) * again(ids)).sum(-1).min() > 0.998


def test_the_held_out_share_is_about_what_it_says() -> None:
    texts = [f"phrase {i}" for i in range(5000)]
    assert 0.01 < sum(map(held_out, texts)) / len(texts) < 0.03
    assert [held_out(text) for text in texts[:50]] == [held_out(text) for text in texts[:50]]
