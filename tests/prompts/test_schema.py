"""A wrong file of each kind gives its error with line and column; the JSON Schema says the same as the checker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from concept_cam import prompts
from concept_cam.core.errors import PromptError
from concept_cam.prompts import schema as prompt_schema
from concept_cam.prompts.schema import Problem

GOOD = """\
pack: shells
host: shell
characters:
  coil:
    kind: shape
    entity: {label: spire}
    states:
      tall:
        phrases: [a tall spire, a high spire]
      flat:
        phrases: [a flat spire]
  holes:
    kind: presence
    entity: {label: hole}
    states:
      present:
        phrases: [a shell with a hole]
      absent:
  parts:
    kind: part
    states:
      lip:
        phrases: [the lip of a shell]
"""

# (what is wrong, the text replaced, its replacement, line, column, code, part of the message)
WRONG = [
    ("key mistyped in a pack", "host: shell", "host: shell\ntittle: Shells", 3, 1, "unknown-key", "did you mean 'title'?"),
    ("key mistyped in a character", "    kind: shape", "    kind: shape\n    entities: x", 6, 5, "unknown-key", "'entities' in a "
                                                                                                                "character; did you "
                                                                                                                "mean 'entity'?"),
    ("key mistyped in a state", "        phrases: [a flat spire]", "        phrases: [a flat spire]\n        "
                                                                   "alias: {a: b}", 12, 9, "unknown-key", "did you mean 'aliases'?"),
    ("key mistyped in an entity", "{label: spire}", "{label: spire, noun: x}", 6, 28, "unknown-key", "did you mean 'nouns'?"),
    ("key from nowhere", "host: shell", "host: shell\nqqqq: 1", 3, 1, "unknown-key", "known keys: schema, pack"),
    ("no host", "host: shell\n", "", 1, 1, "missing-key", "a pack needs the key 'host'"),
    ("no kind", "    kind: shape\n", "", 4, 3, "missing-key", "a character needs the key 'kind'"),
    ("no entity", "    entity: {label: spire}\n", "", 4, 3, "missing-key", "'entity'"),
    ("no phrases", "        phrases: [a flat spire]\n", "        notes: none yet\n", 10, 7, "missing-key", "'phrases'"),
    ("a state is a list", "      flat:\n        phrases: [a "
                          "flat spire]", "      flat: [a flat spire]", 10, 13, "wrong-type", "expected a state with the keys phrases"),
    ("a number for a phrase", "[a flat spire]", "[a flat spire, 12]", 11, 33, "wrong-type", "received 12 (int). Put it in quotes."),
    ("a yes for a phrase", "[a flat spire]", "[yes]", 11, 19, "wrong-type", "received True (bool). Put it in quotes."),
    ("a date for a text", "host: shell", "host: 2024-01-01", 2, 7, "wrong-type", "Put it in quotes."),
    ("no phrase in the list", "[a flat spire]", "[]", 11, 18, "wrong-type", "expected a list of texts"),
    ("an empty phrase", "[a flat spire]", '[" "]', 11, 19, "wrong-type", "expected text"),
    ("characters are a list", GOOD[GOOD.index("characters:"):], "characters: [coil]\n", 3, 13, "wrong-type", "a mapping from name "
                                                                                                             "to character"),
    ("no character", GOOD[GOOD.index("characters:"):], "characters: {}\n", 3, 13, "wrong-type", "a mapping from name to character"),
    ("a key that is no text", "      flat:", "      1:", 10, 7, "wrong-type", "a key must be text, received '1'; put it in quotes"),
    ("a key that YAML reads as a truth value", "      flat:", "      no:", 10, 7, "wrong-type", "a key must be text, received 'no'"),
    ("a list as a key", "      flat:", "      [flat]:", 10, 7, "wrong-type", "a key must be text, received a list"),
    ("unknown kind", "kind: shape", "kind: shap", 5, 11, "bad-value", "unknown kind 'shap'; did you mean 'shape'?"),
    ("unknown match", "phrases: [a flat spire]", "phrases: [a flat spire]\n        quality: {label: flat, id: 'PATO:0000407', "
                                                 "match: exakt}", 12, 59, "bad-value", "did you mean 'exact'?"),
    ("id without match", "phrases: [a flat spire]", "phrases: [a flat spire]\n        quality: {label: flat, id: "
                                                    "'PATO:0000407'}", 12, 9, "missing-key", "'id' and 'match' together"),
    ("id that is none", "{label: spire}", "{label: spire, id: spire_1}", 6, 32, "bad-value", "must look like PATO:0002234"),
    ("name with a capital", "  coil:", "  Coil:", 4, 3, "bad-value", "'Coil' must look like caudal_fin_shape"),
    ("name with a space", "      flat:", "      very flat:", 10, 7, "bad-value", "'very flat' must look like"),
    ("pack name with a space", "pack: shells", "pack: my shells", 1, 7, "bad-value", "must look like my-pack"),
    ("format from the future", "host: shell", "host: shell\nschema: 7", 3, 9, "bad-value", "format 7 is unknown; this version reads 1"),
    ("format as text", "host: shell", "host: shell\nschema: one", 3, 9, "wrong-type", "expected a whole number"),
    ("template without place", "host: shell", 'host: shell\ntemplates: ["a photo of '
                                              '{}", "a photo"]', 3, 30, "template", "'a photo' must hold {} exactly once"),
    ("template with two places", "    kind: shape", '    kind: shape\n    templates: "{} and {}"', 6, 16, "template", "exactly once"),
    ("state given twice", "      flat:", "      tall:\n        phrases: "
                                         "[x]\n      flat:", 10, 7, "duplicate-key", "'tall' is there twice (first in line 8)"),
    ("states that differ in case", "      flat:", "      Tall:\n        phrases: "
                                                  "[x]\n      flat:", 10, 7, "duplicate-key", "'Tall' is there twice"),
    ("phrase of a sibling", "[a flat spire]", "[a flat spire, A Tall  Spire.]", 11, 33, "shared-phrase", "also a phrase of the sibling "
                                                                                                         "state 'tall'"),
    ("phrase of a sibling, as a single text", "[a flat spire]", "a tall spire", 11, 18, "shared-phrase", "sibling state 'tall'"),
    ("single state", "      flat:\n        phrases: [a flat spire]\n", "", 7, 5, "single-state", "two or more states"),
    ("presence of something else", "      absent:\n", "      rare: {phrases: [x]}\n", 15, 5, "presence", "received present, rare"),
    ("presence without present", "      present:\n        phrases: [a shell with a hole]\n", "", 15, 5, "presence", "received absent"),
    ("absent with a phrase of its own", "      absent:\n", "      absent: {phrases: [a shell "
                                                           "without a hole]}\n", 18, 25, "absent-phrase", "the host alone ('a shell')"),
    ("around mistyped", "    kind: shape", "    kind: shape\n    around: hosts", 6, 13, "bad-value", "did you mean 'host'?"),
    ("around a presence", "    kind: presence", "    kind: presence\n    around: host", 14, 5, "around", "against the host already"),
    ("elsewhere of no part", "    kind: shape", "    kind: shape\n    elsewhere: [lip, lid]", 6, 22, "elsewhere",
     "'lid' is no part of this pack"),
    ("elsewhere of a presence", "    kind: presence", "    kind: presence\n    elsewhere: lip", 14, 5, "elsewhere", "among its states"),
    ("needs of no presence", "    kind: shape", "    kind: shape\n    needs: hole", 6, 12, "needs",
     "'hole' is no other character of kind presence; did you mean 'holes'?"),
    ("needs of itself", "    kind: presence", "    kind: presence\n    needs: holes", 14, 12, "needs", "those of this pack: none"),
    ("a phrase without words", "[a flat spire]", "[a flat spire, '.']", 11, 33, "no-words", "'.' says nothing"),
    ("no character at all", "characters:\n", "characters: {}\nnotes: |\n", 3, 13, "wrong-type", "received an empty mapping"),
    ("reserved state", "      flat:", "      absent:", 10, 7, "reserved", "'absent' is reserved"),
    ("reserved host", "      flat:", "      host:", 10, 7, "reserved", "'host' is reserved"),
    ("entity on a state that is no part", "phrases: [a flat spire]", "phrases: [a flat spire]\n        "
                                                                     "entity: {label: x}", 12, 9, "entity", "only in a character "
                                                                                                            "of kind part"),
    ("contrast mistyped", "phrases: [a flat spire]", "phrases: [a flat spire]\n        "
                                                     "contrasts: [tal]", 12, 21, "contrast", "unknown state 'tal' of 'coil'; did you "
                                                                                             "mean 'tall'?"),
    ("contrast of a character mistyped", "phrases: [a flat spire]", "phrases: [a flat spire]\n        contrasts: "
                                                                    "hole=present", 12, 20, "contrast", "unknown character 'hole'; did "
                                                                                                        "you mean 'holes'?"),
    ("contrast with itself", "phrases: [a flat spire]", "phrases: [a flat spire]\n        contrasts: "
                                                        "[host, flat]", 12, 27, "contrast", "its own contrast"),
    ("contrast twice", "phrases: [a flat spire]", "phrases: [a flat spire]\n        contrasts: "
                                                  "[tall, tall]", 12, 27, "contrast", "given twice"),
    ("tab for indentation", "    kind: shape", "\tkind: shape", 5, 1, "yaml", "not valid YAML"),
    ("bracket left open", "[a flat spire]", "[a flat spire", 12, 8, "yaml", "not valid YAML"),
    ("unknown alias", "[a flat spire]", "*nothing", 11, 18, "yaml", "undefined alias"),
    ("alias in itself", "[a flat spire]", "&me [*me]", 11, 18, "yaml", "refers to the part of the file that holds it"),
    ("Python object", "[a flat spire]", "!!python/object/apply:os.getcwd []", 11, 18, "yaml", "is not allowed: write plain data"),
    ("Python name", "host: shell", "host: !!python/name:os.getcwd x", 2, 7, "yaml", "could not determine a constructor"),
    ("two documents", "characters:", "---\ncharacters:", 3, 1, "yaml", "but found another document"),
    ("control character", "a flat spire", "a flat\x07 spire", 11, 25, "encoding", "U+0007"),
]  # fmt: skip


def errors(text: str) -> list[Problem]:
    return prompt_schema.problems(prompt_schema.read(text, "shells.yaml"))


def test_the_good_file_is_good() -> None:
    assert errors(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "code", "message"),
    [case[1:] for case in WRONG],
    ids=[case[0] for case in WRONG],
)
def test_wrong_file(old: str, new: str, line: int, column: int, code: str, message: str) -> None:
    assert old in GOOD
    found = errors(GOOD.replace(old, new, 1))
    first = found[0]
    assert (first.line, first.column, first.code, first.severity) == (line, column, code, "error"), str(first)
    assert message in first.message
    assert str(first).startswith(f"shells.yaml:{line}:{column}: error: ")
    assert len({(problem.line, problem.column, problem.code) for problem in found}) <= 2, [str(problem) for problem in found]


def test_empty_file() -> None:
    for text in ("", "# only a comment\n"):
        (problem,) = errors(text)
        assert (problem.code, problem.line, problem.column) == ("empty", 1, 1)


def test_a_text_is_no_pack() -> None:
    (problem,) = errors("just words")
    assert "expected a pack with the keys" in problem.message


def test_all_errors_are_found_at_once_in_the_order_of_the_file() -> None:
    found = errors(GOOD.replace("host: shell", "hots: shell").replace("kind: shape", "kind: form").replace("kind: part", "kind: bit"))
    assert [(problem.line, problem.code) for problem in found] == [
        (1, "missing-key"),
        (2, "unknown-key"),
        (5, "bad-value"),
        (20, "bad-value"),
    ]


def test_loading_lists_every_error() -> None:
    with pytest.raises(PromptError, match=r"(?s)shells\.yaml:2:1: error: .*shells\.yaml:5:11: error: "):
        prompts.parse(GOOD.replace("host: shell", "hots: shell").replace("kind: shape", "kind: form"), "shells.yaml")


def test_a_million_laughs_are_refused_quickly() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join(['*' + old] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    found = errors("\n".join(lines))
    assert any("unfolds to more than" in problem.message for problem in found)


def test_deep_nesting_is_refused() -> None:
    (problem,) = errors("a: " + "[" * 1500 + "]" * 1500)
    assert problem.code == "yaml"
    assert "nested too deeply" in problem.message


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "shells.yaml"
    path.write_bytes(GOOD.replace("a flat spire", "dé flat spire").encode("latin-1"))
    (problem,) = prompt_schema.problems(prompt_schema.read_file(path))
    assert (problem.line, problem.column, problem.code) == (11, 20, "encoding")
    assert "0xe9 is not UTF-8" in problem.message
    with pytest.raises(PromptError, match="0xe9 is not UTF-8"):
        prompts.load(path)


def test_byte_order_mark_is_read_and_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "shells.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    document = prompt_schema.read_file(path)
    assert prompt_schema.problems(document) == []
    assert [(problem.severity, problem.code) for problem in document.found] == [("warning", "encoding")]
    assert prompts.load_pack(path) == prompts.parse(GOOD)


def test_windows_line_ends_keep_the_places(tmp_path: Path) -> None:
    path = tmp_path / "shells.yaml"
    path.write_bytes(GOOD.replace("kind: shape", "kind: shap").replace("\n", "\r\n").encode())
    (problem,) = prompt_schema.problems(prompt_schema.read_file(path))
    assert (problem.line, problem.column) == (5, 11)


# ---------------------------------------------------------------------------------------------------------- JSON Schema


def schema_accepts(text: str) -> bool:
    jsonschema = pytest.importorskip("jsonschema", reason="validates with the JSON Schema as an editor would")
    validator = jsonschema.Draft202012Validator(prompt_schema.json_schema())
    return not list(validator.iter_errors(yaml.safe_load(text)))


def test_the_schema_is_a_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="validates with the JSON Schema as an editor would")
    jsonschema.Draft202012Validator.check_schema(prompt_schema.json_schema())


@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_shipped_packs_satisfy_the_schema(name: str) -> None:
    assert schema_accepts(prompts.available()[name].read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", [case for case in WRONG if case[5] in ("unknown-key", "bad-value")], ids=lambda case: case[0])
def test_schema_refuses_what_the_checker_refuses(case: tuple) -> None:
    assert schema_accepts(GOOD)
    assert not schema_accepts(GOOD.replace(case[1], case[2], 1))


def test_every_field_is_described() -> None:
    for level, fields in prompt_schema.PACK_LEVELS.items():
        for key, spec in fields.items():
            assert spec.doc.endswith("."), (level, key)


def test_generated_schema_file_is_up_to_date() -> None:
    path = prompts.available()["fish"].parent / "trait-pack.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == prompt_schema.json_schema(), f"run:  concept-cam prompts schema > {path}"


def test_the_check_for_keys_given_twice_is_linear() -> None:
    import time

    def seconds(count: int) -> float:
        text = "a:\n" + "".join(f"  key{number}: {number}\n" for number in range(count))
        taken = []
        for _ in range(3):  # The best of three: a busy machine makes one look slow.
            start = time.process_time()
            prompt_schema.read(text)
            taken.append(time.process_time() - start)
        return min(taken)

    small, large = seconds(1_000), seconds(8_000)
    assert large < 8 * 4 * max(small, 0.02), "half of what a square would be"


def test_a_merge_key_is_said_not_to_be_read_once_and_in_its_line() -> None:
    text = GOOD.replace("      tall:", "      tall: &tall").replace("        phrases: [a flat spire]", "        <<: *tall")
    (found,) = prompt_schema.read(text, "a.yaml").found
    assert (found.code, found.line, found.column) == ("yaml", 11, 9)
    assert found.message == "merge keys (<<) are not read: write the keys of the other mapping out here."


def test_states_whose_names_are_all_refused_are_not_said_to_be_none() -> None:
    text = "pack: cups\nhost: cup\ncharacters:\n  handles:\n    kind: count\n    entity: {label: handle}\n    states:\n"
    text += "      1: {phrases: [one handle]}\n      2: {phrases: [two handles]}\n"
    found = prompt_schema.problems(prompt_schema.read(text, "cups.yaml"))
    assert [(problem.line, problem.code) for problem in found] == [(8, "wrong-type"), (9, "wrong-type")]
    assert all("a key must be text" in problem.message for problem in found)
    (empty,) = prompt_schema.problems(prompt_schema.read(text.partition("      1:")[0].replace("states:", "states: {}"), "cups.yaml"))
    assert "expected a mapping from name to state, received an empty mapping" in empty.message
