"""Each lint check on a file that is wrong in one way: severity, code, line, column and message; and silent on good ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from concept_cam import prompts
from concept_cam.core.errors import PromptError
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
    ("host called as a state", "a rounded tail]", "a fish]", "warning", 11, 39, "left-out",
    "is not set against 'host': 'a fish' is also what 'rounded' is called"),
    ("host in its template called as a state", "[a rounded tail fin, a rounded tail]", "a photo of a fish", "warning", 11, 18, "left-out",
    "'a photo of a fish' is also what 'rounded' is called"),
    ("background called as the host", "host: fish", "host: the background", "warning", 2, 7, "left-out", "is not set against 'background'"),
    ("quality as an entity", "label: tail fin", 'label: forked, id: "PATO:0001784"', "error", 6, 33, "swapped-term",
    "PATO:0001784 is a quality and no thing"),
    ("entity as a quality", "a rounded tail]", 'a rounded tail]\n        quality: {label: caudal fin, id: "UBERON:4000164", match: close}',
    "error", 12, 42, "swapped-term", "UBERON:4000164 is a thing and no quality"),
    ("one quality of two states", "[a forked tail fin, a forked tail]\n", '[a forked tail fin, a forked tail]\n'
    '        quality: {label: banded, id: "PATO:0001946", match: exact}\n'
    '      striped:\n        phrases: [a striped tail]\n        quality: {label: banded, id: "PATO:0001946", match: synonym}\n',
    "error", 13, 61, "shared-quality", "'forked' and 'striped' are both said to be just what PATO:0001946 'banded' is"),
    ("error of form", "kind: shape", "kind: shap", "error", 5, 11, "bad-value", "did you mean 'shape'?"),
]  # fmt: skip


PARTS = """\
pack: trouts
host: fish
characters:
  tail:
    kind: shape
    entity: {label: tail fin, nouns: [tail]}
    elsewhere: [eye, iris]
    states:
      forked:
        phrases: [a forked tail]
      rounded:
        phrases: [a rounded tail]
  eyes:
    kind: part
    states:
      eye: {phrases: [the eye of a fish], entity: {label: eye}}
      left_eye: {of: eye, where: left}
      head: {phrases: [the head of a fish], entity: {label: head}}
  irides:
    kind: part
    states:
      iris: {phrases: [the iris of a fish], entity: {label: iris}}
  spot:
    kind: presence
    entity: {label: spot}
    states:
      present: {phrases: [a fish with a spot]}
      absent:
"""

WRONG_PARTS = [
    ("part called as the host", "[the head of a fish]", "[the head of a fish, A fish]", "error", 18, 44, "contrast",
    "'A fish' is what the host is called, and 'head' is set against it"),
    ("part called as the host, its contrasts its own", "[the head of a fish]", "[a fish], contrasts: [eye]", "error", 18, 24, "contrast",
    "'a fish' is what the host is called, and 'eye' is set against it"),
    ("part called as the host it names", "[the iris of a fish]", "a fish, contrasts: ['eyes=eye', host]", "error", 22, 55, "contrast",
    "'host' shares the phrase 'a fish' with this state"),
    ("present called as absent", "[a fish with a spot]", "[a fish with a spot, a fish]", "error", 27, 47, "contrast",
    "is what the host is called"),
    ("present called as absent, its contrasts its own", "[a fish with a spot]", "[a fish], contrasts: 'eyes=head'", "error", 27, 27,
    "contrast", "is what the host is called"),
    ("contrast with a state of its own words", "[a forked tail]",
    "[the tail of a fish, the head of a fish]\n        contrasts: [rounded, 'eyes=head']", "error", 11, 30, "contrast",
    "'eyes=head' shares the phrase 'the head of a fish' with this state"),
    ("contrast with a part of its own, at a place", "{phrases: [the eye of a fish]",
    "{phrases: [the eye of a fish], contrasts: [head, left_eye]", "error", 16, 61, "contrast", "'left_eye' shares the phrase"),
    ("contrast with the host in its own words", "[a forked tail]", "[a fish]\n        contrasts: [rounded, 'spot=absent']", "error", 11, 30,
    "contrast", "'spot=absent' shares the phrase 'a fish'"),
    ("two contrasts of one phrase", "[the iris of a fish]", "[the iris of a fish], contrasts: [host, 'spot=absent']", "error", 22, 63,
    "contrast", "'spot=absent' shares the phrase 'a fish' with the contrast 'host'"),
    ("contrast with the background in its own words", "[a forked tail]", "[the background]\n        contrasts: [rounded, background]",
    "error", 11, 30, "contrast", "shares the phrase 'the background' with this state"),
    ("part elsewhere called as the host", "[the iris of a fish]", "[a fish], contrasts: 'eyes=eye'", "warning", 7, 22, "left-out",
    "tail=forked is not set against 'iris': 'a fish' is also what 'host' is called"),
    ("part elsewhere called as the background", "[the iris of a fish]", "[the background]", "warning", 7, 22, "left-out",
    "'the background' is also what 'background' is called"),
    ("part elsewhere called as another", "[the iris of a fish]", "[the eye of a fish]", "warning", 7, 22, "left-out",
    "'the eye of a fish' is also what 'eye' is called"),
    ("part elsewhere called as a state in a template", "[a rounded tail]", "[a rounded tail, a photo of the eye of a fish]", "warning",
    7, 17, "left-out", "'a photo of the eye of a fish' is also what 'rounded' is called"),
    ("elsewhere, and contrasts of its own", "[a rounded tail]", "[a rounded tail]\n        contrasts: [forked, host]", "warning", 13, 9,
    "elsewhere", "'rounded' names its own contrasts, so that 'elsewhere' of 'tail' (eye, iris) does not hold for it"),
]  # fmt: skip


def lint(text: str, **options) -> list[Problem]:
    return prompt_lint.check_text(text, "trouts.yaml", **options)


@pytest.mark.parametrize("text", [GOOD, PARTS])
def test_the_good_file_is_good(text: str) -> None:
    assert lint(text) == []


def test_a_surrounding_among_contrasts_is_told_where_it_is_named() -> None:
    text = GOOD.replace("a forked tail]", "a forked tail]\n        contrasts: [rounded]")
    text = text.replace("a rounded tail]", "a photo of a fish]\n        contrasts: [forked, background, host]")
    (problem,) = (problem for problem in lint(text) if problem.code == "left-out")
    assert (problem.line, problem.column) == (13, 41)
    assert "tail=rounded is not set against 'host': 'a photo of a fish' is also what 'rounded' is called." in problem.message


def test_what_is_left_out_is_told_once() -> None:
    found = lint(GOOD.replace("a rounded tail]", "a fish]"))
    assert [problem.code for problem in found] == ["left-out"], "not for each state that is not set against it"


@pytest.mark.parametrize(
    ("old", "new", "severity", "line", "column", "code", "message"),
    [case[1:] for case in WRONG],
    ids=[case[0] for case in WRONG],
)
def test_wrong_file(old: str, new: str, severity: str, line: int, column: int, code: str, message: str) -> None:
    one_problem(GOOD, old, new, severity, line, column, code, message)


@pytest.mark.parametrize("case", WRONG_PARTS, ids=[case[0] for case in WRONG_PARTS])
def test_words_that_cannot_be_told_apart(case: tuple) -> None:
    one_problem(PARTS, *case[1:])
    text = PARTS.replace(case[1], case[2], 1)
    if case[3] == "warning":
        prompts.concepts(prompts.parse(text))
    else:
        # What is refused when it is loaded is told as it is by the check.
        with pytest.raises(PromptError, match=rf"trouts\.yaml:{case[4]}:{case[5]}: error: "):
            prompts.parse(text, "trouts.yaml")


def one_problem(text: str, old: str, new: str, severity: str, line: int, column: int, code: str, message: str) -> None:
    assert old in text
    found = [problem for problem in lint(text.replace(old, new, 1)) if problem.code == code]
    assert found, "nothing was found"
    first = found[0]
    assert (first.severity, first.line, first.column) == (severity, line, column), str(first)
    assert message in first.message


def test_wrong_file_cases_cover_every_check() -> None:
    assert set(prompt_lint.CHECKS) <= {case[6] for case in (*WRONG, *WRONG_PARTS)}


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


def test_parts_of_one_quality_are_told_apart_by_what_they_are() -> None:
    white = 'quality: {label: white, id: "PATO:0000323", match: exact}'
    text = PARTS.replace("{label: eye}", f"{{label: eye}}, {white}").replace("{label: head}", f"{{label: head}}, {white}")
    assert "shared-quality" not in {problem.code for problem in lint(text)}
    same = text.replace("{label: head}", "{label: eye}")
    assert "shared-quality" in {problem.code for problem in lint(same)}


@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_phrases_of_shipped_packs_have_the_article_that_they_take(name: str) -> None:
    said = [phrase for concept in prompts.load(name) for phrase in concept.target]
    assert [phrase for phrase in said if re.search(r"\ba (?!one\b)[aeio]|\ban [^aeiouh]", phrase, re.IGNORECASE)] == []


@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_shipped_packs_have_no_finding(name: str) -> None:
    assert [str(problem) for problem in prompt_lint.check_pack(prompts.available()[name])] == []


def test_worst() -> None:
    error, warning = Problem("error", "a", ""), Problem("warning", "b", "")
    assert prompt_lint.worst([]) is None
    assert prompt_lint.worst([warning]) == "warning"
    assert prompt_lint.worst([warning, error]) == "error"
