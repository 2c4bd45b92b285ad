"""Each lint check on a file that is wrong in one way: severity, code, line, column and message; and silent on good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from concept_cam import prompts
from concept_cam.prompts import lint as prompt_lint
from concept_cam.prompts.ontology import Term
from concept_cam.prompts.schema import Problem

GOOD = """\
pack: trouts
host: fish
characters:
  tail:
    kind: shape
    entity: {label: tail fin, nouns: [tail]}
    states:
      forked:
        phrases: [a forked tail fin, a forked tail]
      rounded:
        phrases: [a rounded tail fin, a rounded tail]
"""

# (what is wrong, the text replaced, its replacement, severity, line, column, code, part of the message)
WRONG = [
    ("phrase twice", "[a forked tail fin, a forked tail]", "[a forked tail fin, A "
                                                           "forked  tail fin]", "warning", 9, 38, "duplicate-phrase", "given twice"),
    ("negation: no", "a rounded tail]", "no tail]", "error", 11, 39, "negation", "the negation 'no'"),
    ("negation: without", "a rounded tail]", "a fish without a tail]", "error", 11, 39, "negation", "'without'"),
    ("negation: isn't", "a rounded tail]", "a tail that isn't forked]", "error", 11, 39, "negation", "does not understand"),
    ("negation: lacking", "a rounded tail]", "a fish lacking a tail]", "error", 11, 39, "negation", "'lacking'"),
    ("negation by suffix", "a rounded tail]", "a tailless fish]", "warning", 11, 39, "negation", "'tailless'"),
    ("negation by prefix", "a rounded tail]", "a non-forked tail]", "error", 11, 39, "negation", "'non'"),
    ("attribute only", "a rounded tail]", "rounded]", "warning", 11, 39, "attribute-only", "expected one of fish, tail fin, tail"),
    ("attribute only, as a single text", "[a rounded tail fin, a rounded tail]", "very rounded", "warning", 11, 18, "attribute-only",
    "not of what"),
    ("Latin name alone", "a rounded tail]", "the tail of Salmo trutta]", "warning", 11, 39, "latin-name", "'Salmo trutta' looks like "
                                                                                                          "a Latin name"),
    ("mojibake", "a rounded tail]", "a rounded tail of a fÃ¤hn]", "error", 11, 39, "encoding", "wrong encoding"),
    ("mojibake quote", "a rounded tail]", "a fishâ€™s rounded tail]", "error", 11, 39, "encoding", "wrong encoding"),
    ("replacement character", "a rounded tail]", "a rounded tail \ufffd]", "error", 11, 39, "encoding", "wrong encoding"),
    ("zero-width space", "a rounded tail]", "a round\u200bed tail]", "warning", 11, 39, "encoding", "U+200B"),
    ("no-break space", "a rounded tail]", "a rounded\u00a0tail fin here]", "warning", 11, 39, "encoding", "U+00A0"),
    ("decomposed letter", "a rounded tail]", "a rounde\u0301d tail]", "warning", 11, 39, "encoding", "NFC"),
    ("invisible in a label", "label: tail fin", "label: \u00adtail fin", "warning", 6, 21, "encoding", "U+00AD"),
    ("unverified id", "label: tail fin", 'label: tail fin, id: "UBERON:9999999"', "warning", 6, 35, "unverified-id",
    "no shipped pack has it"),
    ("label that an id has not", "label: tail fin", 'label: tail fin, id: "UBERON:4000164"', "error", 6, 21, "ontology",
    "labelled 'caudal fin', received 'tail fin'"),
    ("host in no prompt", "host: fish", 'host: fish\ntemplates: "{}"', "warning", 9, 7, "no-host", "keep it in the prompts"),
    ("long prompt", "a rounded tail]", f"a rounded tail {'very ' * 20}round]", "warning", 11, 39, "long-prompt", "31 words (over 20)"),
    ("error of form", "kind: shape", "kind: shap", "error", 5, 11, "bad-value", "did you mean 'shape'?"),
]  # fmt: skip


def lint(text: str, **options) -> list[Problem]:
    return prompt_lint.check_text(text, "trouts.yaml", **options)


def test_the_good_file_is_good() -> None:
    assert lint(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "severity", "line", "column", "code", "message"),
    [case[1:] for case in WRONG],
    ids=[case[0] for case in WRONG],
)
def test_wrong_file(old: str, new: str, severity: str, line: int, column: int, code: str, message: str) -> None:
    assert old in GOOD
    found = [problem for problem in lint(GOOD.replace(old, new, 1)) if problem.code == code]
    assert found, "nothing was found"
    first = found[0]
    assert (first.severity, first.line, first.column) == (severity, line, column), str(first)
    assert message in first.message


def test_wrong_file_cases_cover_every_check() -> None:
    assert set(prompt_lint.CHECKS) <= {case[6] for case in WRONG}


@pytest.mark.parametrize(
    "phrase",
    [
        "a knotted tail",  # holds "not" and "no" inside words
        "a nonagonal tail",
        "a northern fish with a tail",
        "a fish with two tails",
        "a Tail",
        "a brown trout (Salmo trutta) with a tail",
        "the tail of Salmo trutta the brown trout",
        "a Spanish mackerel tail",
        "the tail of a Spanish tuna",
        "the tail of an Atlantic salmon",
        "a fish’s tail, façade-like",
    ],
)
def test_good_phrases_stay_silent(phrase: str) -> None:
    assert lint(GOOD.replace("a rounded tail]", f'"{phrase}"]')) == []


def test_plural_of_a_noun_counts_as_the_noun() -> None:
    leaves = GOOD.replace("nouns: [tail]", "nouns: [leaf, berry]").replace("a rounded tail]", "round leaves, red berries]")
    leaves = leaves.replace(", a forked tail]", "]")
    assert lint(leaves) == []


def test_byte_order_mark_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "trouts.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    (problem,) = prompt_lint.check_pack(path)
    assert (problem.severity, problem.code, problem.line, problem.column) == ("warning", "encoding", 1, 1)


def test_tokens_are_counted_exactly_with_a_tokenizer() -> None:
    def count(prompt: str) -> int:
        return len(prompt.split()) + 2

    # "a close-up photo of a fish with a rounded tail fin": 11 words, 13 tokens.
    assert lint(GOOD, count_tokens=count, context_length=13) == []
    found = lint(GOOD, count_tokens=count, context_length=12)
    assert {problem.code for problem in found} == {"context-length"}
    assert {(problem.line, problem.column) for problem in found} == {(9, 19), (11, 19)}
    assert "13 tokens; the model reads 12" in found[0].message
    long = GOOD.replace("a rounded tail]", f"a rounded tail {'very ' * 20}round]")
    assert lint(long, count_tokens=lambda prompt: 5) == [], "the tokenizer's word counts, not the guess"


TABLES = {
    "PATO:1": Term("PATO:1", "forked", ("furcate",)),
    "UBERON:1": Term("UBERON:1", "tail fin"),
}


@pytest.mark.parametrize(
    ("quality", "column", "message"),
    [
        ('{label: forked, id: "PATO:1", match: exact}', None, ""),
        ('{label: forked, id: "PATO:1", match: close}', None, ""),
        ('{label: furcate, id: "PATO:1", match: exact}', 26, "labelled 'forked', received 'furcate'"),
        ('{label: forked, id: "PATO:2", match: exact}', 38, "in none of the tables; 'forked' is PATO:1"),
        ('{label: forked, id: "PATO:1", match: synonym}', 55, "write match: close"),
    ],
)
def test_ids_are_compared_with_tables(quality: str, column: int | None, message: str) -> None:
    text = GOOD.replace(
        "[a forked tail fin, a forked tail]",
        f"[a forked tail fin, a forked tail]\n        quality: {quality}",
    )
    found = lint(text, tables=TABLES)
    if column is None:
        assert found == []
        return
    (problem,) = found
    assert (problem.severity, problem.code, problem.line, problem.column) == ("error", "ontology", 10, column)
    assert message in problem.message


@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_shipped_packs_have_no_finding(name: str) -> None:
    assert [str(problem) for problem in prompt_lint.check_pack(prompts.available()[name])] == []


def test_worst() -> None:
    error, warning = Problem("error", "a", ""), Problem("warning", "b", "")
    assert prompt_lint.worst([]) is None
    assert prompt_lint.worst([warning]) == "warning"
    assert prompt_lint.worst([warning, error]) == "error"
