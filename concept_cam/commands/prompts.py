"""``concept-cam prompts``: list, show, check and start trait packs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from concept_cam.commands.console import PathName, note, print_table, warn
from concept_cam.commands.options import Within, localizer_if_asked, model_if_asked_options, warn_unknown_words
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, OutputError

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer
    from concept_cam.prompts import Separability

STARTER = """\
# {title}: one line on what these photographs show.
# Check this file with:  concept-cam prompts check {name}.yaml
# See its prompts with:  concept-cam prompts show {name}.yaml

schema: 1
pack: {name}
title: {title}
host: {host}                          # the whole thing in one common noun; it is part of every prompt
templates: ["a photo of {whole} with {{}}", "a close-up photo of {whole} with {{}}", "{{}}"]      # a phrase goes where {{}} is
host_templates: ["a photo of {{}}", "{{}}"]                # for presence and part, whose phrases name the {host} themselves

characters:

  # A character is one question; its states are the answers, and each other's contrasts. Their maps are set against the host and the
  # background too, or against one of them: around: host (a part that stands out), around: background (the whole {host}); and against
  # parts that lie elsewhere: elsewhere: [tail].
  # kind: {kinds}
  body_pattern:
    kind: pattern
    entity: {{label: body, nouns: [side]}}    # what is described; nouns are other words for it. Add id: "UBERON:..." if you know it.
    states:
      striped:
        # Three to six synonyms that a photographer's caption would use, each with its own article. Say what is seen, not what is not.
        phrases: [a striped body, stripes along its body, a body with dark stripes]
        quality: {{label: banded, id: "PATO:0001946", match: synonym}}     # optional; match is exact, synonym or close
      spotted:
        phrases: [a spotted body, spots on its body, a body covered in dots]
        quality: {{label: spotted, id: "PATO:0000333", match: exact}}

  # Is it there? The state `absent` is the {host} alone and needs no phrase: CLIP does not understand "no spot".
  eye_spot:
    kind: presence
    entity: {{label: eye spot, nouns: [eyespot]}}
    states:
      present:
        phrases: [{whole} with an eye spot, {whole} with a ringed eyespot, {whole} with a large eye spot on its side]
      absent:

  # Where is it? Parts are all there at once; each is found on its own, against the others and the whole {host}.
  parts:
    kind: part
    states:
      head:
        phrases: [the head of {whole}, the front end of {whole}, the face of {whole}]
        entity: {{label: head, id: "UBERON:0000033", nouns: [face, front end]}}
      tail:
        phrases: [the tail of {whole}, the rear end of {whole}, the tail end of {whole}]
        entity: {{label: tail, id: "UBERON:0002415", nouns: [rear end]}}
"""


@click.group(short_help="List, show, check and start trait packs.")
def prompts() -> None:
    """Lists, shows, checks and starts trait packs: YAML vocabularies of traits and their contrasts.

    \b
    Examples:
      concept-cam prompts list
      concept-cam prompts show fish:caudal_fin_shape --model demo
      concept-cam prompts new my_shells --host shell
      concept-cam prompts check my_shells.yaml
    """


@prompts.command("list")
@click.argument("packs", nargs=-1, metavar="[PACK]...")
def list_(packs: tuple[str, ...]) -> None:
    """Lists the trait packs, or the characters and states of a PACK (name or file).

    \b
    Examples:
      concept-cam prompts list
      concept-cam prompts list fish
    """
    from concept_cam.prompts import available, load_pack

    if not packs:
        rows: list[tuple[str, ...]] = []
        for name in available():
            pack = load_pack(name)
            total = sum(len(character.states) for character in pack.characters)
            rows.append((name, pack.host, str(len(pack.characters)), str(total), pack.title or ""))
        print_table(rows, ("pack", "host", "characters", "states", "title"))
        return
    rows = []
    for name in packs:
        pack = load_pack(name)
        for character in pack.characters:
            entity = character.entity
            states = ", ".join(state.name for state in character.states)
            label, identifier = (entity.label, entity.id or "") if entity else ("", "")
            rows.append((f"{name}:{character.name}", character.kind, label, identifier, states))
    print_table(rows, ("traits", "kind", "entity", "id", "states"))


@prompts.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option(
    "--least-distance", "limit", type=Within(min=0), help="Least distance of two embeddings below which --model warns.  [default: 0.2]"
)
@model_if_asked_options
def show(specs: tuple[str, ...], limit: float | None, **options: Any) -> None:
    """Shows the exact prompts that the text tower will see.

    SPEC is a pack name or file, optionally :character and =state. With --model, also the cosine of every pair of states and the length of
    each direction, so that you see which states the model can tell apart at all.

    \b
    Examples:
      concept-cam prompts show fish
      concept-cam prompts show fish:caudal_fin_shape=forked
      concept-cam prompts show my_pack.yaml:petals --model ViT-B-16/openai
    """
    from concept_cam.prompts.packs import SEPARABILITY_LIMIT, load, separability

    concepts = load(list(specs))
    localizer = localizer_if_asked(options)
    if localizer is None and limit is not None:
        raise ConfigurationError("--least-distance judges embeddings, so it needs --model NAME.")
    if localizer is not None:
        concepts = list(localizer.phrased(concepts))  # Templates of the configuration stand in place of the pack's.
    for concept in concepts:
        _show(concept)
    if localizer is None:
        return
    warn_unknown_words(localizer, concepts)
    groups: dict[tuple[str, str], list[Concept]] = {}
    for concept in concepts:
        groups.setdefault((concept.metadata["pack"], concept.metadata["character"]), []).append(concept)
    for (pack, character), members in groups.items():
        click.echo(f"{pack}:{character}, cosine of the mean text embeddings of {localizer.backbone.name}")
        _matrix(separability(members, localizer, SEPARABILITY_LIMIT if limit is None else limit), character)


def _show(concept: Concept) -> None:
    from concept_cam.prompts.schema import REFERENCES

    facts = concept.metadata
    terms = [_term(facts.get(key)) for key in ("entity", "quality")]
    click.echo(f"{concept.name}  ({facts['kind']}{''.join(f'; {term}' for term in terms if term)})")
    for prompt in concept.target_prompts:
        click.echo(f"  + {prompt}")
    for number, (name, prompts_) in enumerate(zip(concept.contrast_names, concept.contrast_prompts, strict=True)):
        lies = "around" if name in REFERENCES else "elsewhere"
        role = name if number < len(concept.rivals) else f"{name}, {lies}"
        for prompt in prompts_:
            click.echo(f"  - {prompt}  [{role}]")
    click.echo()


def _term(term: Any) -> str:
    if not term:
        return ""
    match = f", {term['match']}" if "match" in term else ""
    return f"{term['label']} {term['id']}{match}" if "id" in term else str(term["label"])


def _matrix(result: Separability, character: str) -> None:
    names = [name.rpartition(f"{character}=")[2] for name in result.names]
    width = max(len(name) for name in names)
    columns = [max(len(name), 6) for name in names]
    click.echo("  ".join([" " * width, *(name.rjust(size) for name, size in zip(names, columns, strict=True)), "direction"]))
    norms = {name: f"{norm:.3f}" for name, norm in result.direction_norm.items()}
    for name, full, row in zip(names, result.names, result.cosine, strict=True):
        cells = [f"{value:.3f}".rjust(size) for value, size in zip(row, columns, strict=True)]
        click.echo("  ".join([name.ljust(width), *cells, norms.get(full, "").rjust(9)]).rstrip())
    click.echo()
    for warning in result.warnings:
        warn(f"warning: {warning}")


@prompts.command()
@click.argument("files", nargs=-1, required=True, type=PathName(dir_okay=False), metavar="FILE...")
@click.option(
    "--ontologies",
    type=PathName(file_okay=False, exists=True),
    metavar="DIR",
    help="Label tables (.tsv: id, label, synonyms) to verify ids against. Synonyms marked [broad], [narrow] or [related] are not exact.",
)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@model_if_asked_options
@click.pass_context
def check(context: click.Context, /, files: tuple[str, ...], ontologies: str | None, strict: bool, **options: Any) -> None:
    """Checks trait packs: form, phrases, ids. Names file, line and column of each finding.

    FILE is a YAML file or the name of a pack. With --model, the tokens of every prompt are counted against that model's context. Exit
    status: 0 no errors, 1 errors (with --strict: or warnings), 2 a file cannot be read.

    \b
    Examples:
      concept-cam prompts check my_pack.yaml
      concept-cam prompts check prompts/*.yaml --ontologies tables/ --strict
      concept-cam prompts check my_pack.yaml --model ViT-B-16/openai
    """
    from concept_cam.prompts import available, ontology
    from concept_cam.prompts import lint as prompt_lint

    tables = None if ontologies is None else ontology.read_tables(Path(ontologies))
    localizer: Localizer | None = localizer_if_asked(options)
    packs = available()
    found = []
    for name in files:
        path = packs[name] if name in packs and not Path(name).exists() else Path(name)
        if localizer is None:
            found += prompt_lint.check_pack(path, tables)
        else:
            found += prompt_lint.check_pack(path, tables, localizer.backbone.count_tokens, localizer.backbone.context_length)
    for problem in found:
        click.echo(str(problem))
    errors = sum(problem.severity == "error" for problem in found)
    warnings = len(found) - errors
    note(f"{_count(len(files), 'file')}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")
    context.exit(1 if errors or (strict and warnings) else 0)


@prompts.command()
@click.argument("name")
@click.option("--host", help="Common noun of the whole organism or object.  [default: the name]")
@click.option(
    "--output",
    "-o",
    type=PathName(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Where to write it; '-' for standard output.  [default: NAME.yaml]",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def new(name: str, host: str | None, output: str | None, overwrite: bool) -> None:
    """Writes a commented starter pack to edit.

    \b
    Examples:
      concept-cam prompts new shells --host shell
      concept-cam prompts new mosses --host moss -o packs/mosses.yaml
    """
    text = starter(name, host or name)
    if output == "-":
        click.echo(text, nl=False)
        return
    path = Path(f"{name}.yaml" if output is None else output)
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise OutputError(f"{str(path)!r} exists: choose another file with --output, or replace it with --overwrite.") from error
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror}.") from error
    note(f"Wrote {path}. Edit it, then:  concept-cam prompts check {path}")


@prompts.command()
def schema() -> None:
    """Prints the JSON Schema of a trait pack, for completion and checks in editors.

    \b
    Example:
      concept-cam prompts schema > trait-pack.schema.json
    """
    from concept_cam.prompts.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def starter(name: str, host: str) -> str:
    """Returns the text of a commented starter pack that passes the check.

    Args:
        name: Name of the pack: small letters, digits, ``-`` and ``_``.
        host: Common noun of the whole.

    Raises:
        ConfigurationError: If the name cannot be a pack's name or the host is not a plain noun.
    """
    from concept_cam.prompts.schema import CHARACTER_KINDS, PACK_NAME, host_phrase

    if not re.match(PACK_NAME, name):
        raise ConfigurationError(f"{name!r} cannot name a pack: expected small letters, digits, - and _, such as my-pack.")
    if not re.match(r"^[^\W\d_][\w' -]*$", host):
        raise ConfigurationError(f"{host!r} cannot be the host: expected a common noun such as fish.")
    title = name.replace("-", " ").replace("_", " ").capitalize()
    return STARTER.format(name=name, title=title, host=host, whole=host_phrase(host), kinds=", ".join(CHARACTER_KINDS))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
