"""``concept-cam prompts``: what each command prints, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from concept_cam import prompts
from concept_cam.cli import main
from concept_cam.commands import options
from concept_cam.commands import prompts as command
from concept_cam.core.errors import ConfigurationError
from concept_cam.prompts.schema import json_schema


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["prompts", *arguments])


def test_help_has_examples_for_every_command() -> None:
    assert "concept-cam prompts new my_shells --host shell" in run("--help").output
    for name in command.prompts.commands:
        result = run(name, "--help")
        assert result.exit_code == 0
        assert f"concept-cam prompts {name}" in result.output


def test_list_names_every_pack() -> None:
    lines = run("list").output.splitlines()
    assert [line.split()[0] for line in lines[1:]] == sorted(prompts.available())
    fish = prompts.load_pack("fish")
    assert lines[1 + sorted(prompts.available()).index("fish")].split()[1:4] == [
        "fish",
        str(len(fish.characters)),
        str(sum(len(character.states) for character in fish.characters)),
    ]


def test_list_of_a_pack_prints_selectors_that_load() -> None:
    lines = run("list", "fish", "generic").output.splitlines()
    specs = [line.split()[0] for line in lines[1:]]
    assert len(prompts.load(specs)) == len(prompts.load(["fish", "generic"]))
    assert any("UBERON:4000164" in line and "forked, rounded" in line for line in lines)


def test_show_tells_what_lies_around_from_what_lies_elsewhere() -> None:
    lines = run("show", "fish:mouth_position=terminal").output.splitlines()
    roles = list(dict.fromkeys(line.rsplit("  [", 1)[1] for line in lines if line.startswith("  - ")))
    assert roles[:4] == ["superior]", "inferior]", "host, around]", "background, around]"]
    assert roles[4:] == [f"{name}, elsewhere]" for name in ("trunk", "caudal_fin", "dorsal_fin", "anal_fin", "pelvic_fin")]


def test_show_prints_the_exact_prompts() -> None:
    result = run("show", "fish:caudal_fin_shape=forked")
    (concept,) = prompts.load("fish:caudal_fin_shape=forked")
    lines = result.output.splitlines()
    assert lines[0] == "caudal_fin_shape=forked  (shape; caudal fin UBERON:4000164; bifurcated PATO:0001784, close)"
    assert [line[4:] for line in lines if line.startswith("  + ")] == list(concept.target_prompts)
    shown = [line[4:].rsplit("  [", 1) for line in lines if line.startswith("  - ")]
    roles = [f"{name}]" if name in concept.rival_names else f"{name}, around]" for name in concept.contrast_names]
    assert roles[-2:] == ["pointed]", "host, around]"], "what lies around is set against the map, and is no answer"
    expected = [[prompt, role] for role, group in zip(roles, concept.contrast_prompts, strict=True) for prompt in group]
    assert shown == expected


def test_show_of_an_unknown_trait_suggests_the_nearest() -> None:
    result = run("show", "fish:caudal_fin_shap")
    assert result.exit_code == 2
    assert "Did you mean 'caudal_fin_shape'?" in result.output


def test_show_with_a_model_prints_cosines_and_warns(planted, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: dict[str, object] = {}

    def build(values):
        asked.update(values)
        return planted

    monkeypatch.setattr(options, "build_localizer", build)
    (folder / "fins.yaml").write_text(
        "pack: fins\nhost: fish\ncharacters:\n  fin:\n    kind: colour\n    entity: {label: fin}\n    states:\n"
        "      red: {phrases: a red fin}\n      green: {phrases: a green fin}\n      scarlet: {phrases: a bright red fin}\n",
        encoding="utf-8",
    )
    result = run("show", "fins.yaml:fin", "--model", "planted")
    assert result.exit_code == 0, result.output
    assert asked["model"] == "planted"
    matrix = result.output[result.output.index("fins:fin, cosine") :].splitlines()
    assert matrix[1].split() == ["red", "green", "scarlet", "host", "background", "direction"]
    cells = {line.split()[0]: line.split()[1:] for line in matrix[2:5]}
    # The planted text tower knows colour words alone: scarlet's phrase says red too.
    assert float(cells["red"][2]) > 0.98
    assert float(cells["red"][1]) < 0.7
    expected = prompts.separability(prompts.load("fins.yaml"), planted)
    assert cells["red"][:5] == [f"{value:.3f}" for value in expected.cosine[0]]
    assert cells["red"][5] == f"{expected.direction_norm['fin=red']:.3f}"
    assert "fin=red and its contrast scarlet are nearly the same to this model" in result.output
    assert "fin=red and its contrast green" not in result.output


def test_show_limit_needs_a_model() -> None:
    result = run("show", "fish:barbels", "--limit", "0.1")
    assert result.exit_code == 2
    assert "--model" in result.output


@pytest.mark.parametrize("name", ["show", "check"])
def test_what_is_said_of_a_model_needs_one(name: str, folder: Path) -> None:
    """The help said that the bundled model was asked by default, and --device or a configuration without --model did nothing."""
    (folder / "best.yaml").write_text("gamma: 0.5\n", encoding="utf-8")
    for option, value in (("--device", "cpu"), ("--dtype", "bfloat16"), ("--config", "best.yaml")):
        result = run(name, "fish", option, value)
        assert result.exit_code == 2, option
        assert f"{option} is for a model that is asked" in result.output
        assert "add --model NAME" in result.output
    words = " ".join(run(name, "--help").output.split())
    assert "none is asked; demo ships with the package" in words


def test_a_configuration_names_the_model_and_its_templates(planted, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    said: dict[str, object] = {}

    def build(values: dict[str, object]) -> object:
        said.update(values)
        return planted.with_settings(templates=("a sketch of {}",))

    monkeypatch.setattr(options, "build_localizer", build)
    (folder / "best.yaml").write_text("model: planted\ntemplates: ['a sketch of {}']\n", encoding="utf-8")
    result = run("show", "generic:colour", "--config", "best.yaml")
    assert result.exit_code == 0, result.output
    assert said["model"] == "planted"
    shown = [line for line in result.output.splitlines() if line.startswith("  + ")]
    assert shown
    assert all(line.startswith("  + a sketch of ") for line in shown)
    assert "cosine of the mean text embeddings" in result.output


def test_check_of_the_shipped_packs_is_clean() -> None:
    result = run("check", "--strict", *prompts.available())
    assert result.exit_code == 0, result.output
    assert f"{len(prompts.available())} files: 0 errors, 0 warnings" in result.output


def test_check_names_file_line_and_column(folder: Path) -> None:
    (folder / "bad.yaml").write_text("pack: bad\nhost: fish\ncharcters: {}\n", encoding="utf-8")
    result = run("check", "bad.yaml")
    assert result.exit_code == 1
    assert "bad.yaml:3:1: error: charcters: unknown key 'charcters' in a pack; did you mean 'characters'? [unknown-key]" in result.output
    assert "1 file: 2 errors, 0 warnings" in result.output


def test_check_of_a_warning_fails_only_when_strict(folder: Path) -> None:
    text = command.starter("fins", "fish").replace("a striped body,", "striped,")
    (folder / "fins.yaml").write_text(text, encoding="utf-8")
    result = run("check", "fins.yaml")
    assert result.exit_code == 0
    assert "[attribute-only]" in result.output
    assert "0 errors, 1 warning\n" in result.output
    assert run("check", "fins.yaml", "--strict").exit_code == 1


def test_check_of_a_missing_file(folder: Path) -> None:
    result = run("check", "nowhere.yaml")
    assert result.exit_code == 2
    assert "cannot read the trait pack 'nowhere.yaml': No such file" in result.output


def test_check_against_ontology_tables(folder: Path) -> None:
    (folder / "fins.yaml").write_text(command.starter("fins", "fish"), encoding="utf-8")
    tables = folder / "tables"
    tables.mkdir()
    rows = [
        "PATO:0001946\tbanded\tstriped [exact]",
        "PATO:0000333\tspotted\t",
        "UBERON:0000033\thead\t",
        "UBERON:0002415\ttail\t",
    ]
    (tables / "all.tsv").write_text("id\tlabel\tsynonyms\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert run("check", "fins.yaml", "--ontologies", "tables").exit_code == 0
    (tables / "all.tsv").write_text("id\tlabel\tsynonyms\n" + "\n".join(rows[:3]) + "\n", encoding="utf-8")
    result = run("check", "fins.yaml", "--ontologies", "tables")
    assert result.exit_code == 1
    assert "the id UBERON:0002415 is in none of the tables" in result.output


def test_check_counts_tokens_with_the_model(planted, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(options, "build_localizer", lambda values: planted)
    text = command.starter("fins", "fish")
    (folder / "fins.yaml").write_text(text, encoding="utf-8")
    assert run("check", "fins.yaml", "--model", "planted").exit_code == 0
    longest = planted.backbone.context_length
    (folder / "fins.yaml").write_text(text.replace("a striped body,", f"a {'very ' * longest}striped body,"), encoding="utf-8")
    result = run("check", "fins.yaml", "--model", "planted")
    assert result.exit_code == 1
    assert "[context-length]" in result.output
    assert f"the model reads {longest}" in result.output


@pytest.mark.parametrize(("name", "host"), [("shells", "shell"), ("insect_wings", "insect"), ("owls-2", "barn owl")])
def test_new_writes_a_pack_that_passes_the_check(folder: Path, name: str, host: str) -> None:
    result = run("new", name, "--host", host)
    assert result.exit_code == 0, result.output
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.count("#") > 8
    checked = run("check", f"{name}.yaml", "--strict")
    assert checked.exit_code == 0, checked.output
    pack = prompts.load_pack(f"{name}.yaml")
    assert (pack.name, pack.host) == (name, host)
    assert {character.kind for character in pack.characters} == {"pattern", "presence", "part"}


def test_new_does_not_overwrite_unless_told(folder: Path) -> None:
    (folder / "shells.yaml").write_text("mine", encoding="utf-8")
    result = run("new", "shells")
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert (folder / "shells.yaml").read_text(encoding="utf-8") == "mine"
    assert run("new", "shells", "--overwrite").exit_code == 0
    assert prompts.load_pack("shells.yaml").host == "shells"


def test_new_to_standard_output_and_elsewhere(folder: Path) -> None:
    assert run("new", "shells", "-o", "-").output == command.starter("shells", "shells")
    assert run("new", "shells", "-o", "nowhere/shells.yaml").exit_code == 2


@pytest.mark.parametrize(
    ("name", "host"),
    [("My Shells", "shell"), ("", "shell"), ("shells", "{host}"), ("shells", "a: b"), ("shells", "")],
)
def test_starter_refuses_what_would_not_be_a_pack(name: str, host: str) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        command.starter(name, host)


def test_schema_prints_the_json_schema() -> None:
    assert json.loads(run("schema").output) == json_schema()
