"""``concept-cam models``: what can be loaded, what is already at hand, and whether it is loaded right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from concept_cam.commands.console import print_table
from concept_cam.commands.options import Names, input_options
from concept_cam.core.settings import DTYPES, Settings

if TYPE_CHECKING:
    from concept_cam.backbones import Family


@dataclass(frozen=True)
class Cached:
    """A model repository in the Hugging Face cache of this machine.

    Attributes:
        name: Name to pass as ``--model``.
        size: Bytes on disk.
    """

    name: str
    size: int


class ModelsGroup(click.Group):
    """A group whose commands may be left out: what is no command is the name of a model to show."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Takes the name of a model for ``show NAME``."""
        if args and args[0] not in self.commands:
            return super().resolve_command(ctx, ["show", *args])
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Says both forms."""
        return ["[OPTIONS]", "[NAME | check NAME]"]


@click.group(
    cls=ModelsGroup,
    invoke_without_command=True,
    short_help="List the models that can be loaded; check that weights are loaded right.",
)
@click.option("--attention", "show_attention", is_flag=True, help="List the dense attention strategies instead.")
@click.option("--methods", "show_methods", is_flag=True, help="List the localisation methods instead.")
@click.option("--refine", "show_refiners", is_flag=True, help="List the ways to refine maps instead.")
@click.option("--all", "show_all", is_flag=True, help="Also list every open_clip architecture and pretrained tag (loads open_clip).")
@click.pass_context
def models(context: click.Context, show_attention: bool, show_methods: bool, show_refiners: bool, show_all: bool) -> None:
    """Lists the models that can be loaded, and those that are on this machine already; with NAME, says how that model is read.

    NAME is any model that --model takes; it is loaded. An architecture of open_clip, alone or with a tag, needs no weights for this: all is
    told but their hash, and the length of texts where another library has the text tower.

    \b
    Examples:
      concept-cam models
      concept-cam models ViT-B-16-SigLIP
      concept-cam models ViT-L-14:weights.safetensors
      concept-cam models check ViT-L-14:weights.safetensors
      concept-cam models --all | grep ViT-L
      concept-cam models --attention
      concept-cam models --methods
      concept-cam models --refine
    """
    if show_attention:
        _attention()
    if show_methods:
        _methods()
    if show_refiners:
        _refiners()
    if context.invoked_subcommand is None and not show_attention and not show_methods and not show_refiners:
        _models(show_all)


@models.command(hidden=True)
@click.argument("name")
def show(name: str) -> None:
    """Says how a model is read."""
    _one(name)


EXIT_CODES = {"passed": 0, "failed": 1, "unsure": 3}
"""What ``check`` ends with; 2 stands for a model that cannot be loaded at all."""


@models.command(short_help="Are my weights loaded right?")
@click.argument("name")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", type=Names(DTYPES), default="float32", show_default=True, help="Number format of the towers.")
@input_options
@click.pass_context
def check(context: click.Context, /, name: str, device: str, dtype: str, **values: Any) -> None:
    """Are my weights loaded right? Loads the model NAME, or the one in a folder, looks it over, and says so.

    Compared are the image embedding with the library's own, a batch with single pictures, an odd size with the native one, the mean and
    deviation of pixels with the usual ones, and right texts with shuffled ones, on rendered fishes and scikit-image's photographs.

    The exit status is 0 where all is right, 1 where it is not, 2 where the model cannot be loaded, 3 where something is unusual.

    \b
    Examples:
      concept-cam models check demo
      concept-cam models check my-clip/
      concept-cam models check ViT-B-16/openai:weights.safetensors
      concept-cam models check transformers:google/tipsv2-b14 --device cuda
      concept-cam models check my-clip/ --mean 0.5 --std 0.5
    """
    from concept_cam import backbones
    from concept_cam.evaluation.model_check import CHECKS, Finding, check_model

    width = max(map(len, CHECKS))
    backbone = backbones.load(name, device=device, dtype=dtype)
    settings = Settings().with_values(**{key: value for key, value in values.items() if value is not None})

    def report(finding: Finding) -> None:
        _table([(f"{finding.check:<{width}}", f"{finding.outcome:<8}", finding.text)], gap=False)

    result = check_model(backbone, settings if any(values.values()) else None, report)
    click.echo(result.verdict)
    context.exit(EXIT_CODES[result.outcome])


def _models(show_all: bool) -> None:
    from concept_cam.backbones import ALIASES, BUNDLED, FAMILIES, NAME_FORMS

    cached = cached_models()
    names = {item.name for item in cached}
    at_hand = "at hand" if any(BUNDLED.glob("*.safetensors")) else "missing from this installation"
    _section("Comes with the package")
    _table([("demo", f"fins and parts of fishes, and things by name, {at_hand}")])
    _section("Public names")
    _table([(name, f"{target}{', cached' if target in names else ''}") for name, target in ALIASES.items()])
    _section("On this machine (Hugging Face cache)")
    _table([(item.name, f"{item.size / 1e6:,.0f} MB") for item in cached] or [("none", "a model is downloaded when it is first used")])
    _section("Name forms")
    _table(list(NAME_FORMS.items()))
    _section("Families that can be localised (verified: in this package's tests; 'models check NAME' looks at weights of your own)")
    for name, family in FAMILIES.items():
        click.echo(f"  {click.style(name, bold=True)}: {family.description}")
        print_table(list(_facts(family)), indent=4)
    click.echo()
    if show_all:
        from concept_cam.backbones.loading import catalogue

        _section("open_clip architectures and pretrained tags, and how pictures are prepared for them")
        _table([(entry.name, entry.preprocess) for entry in catalogue() if entry.preprocess])


def _facts(family: Family) -> Iterator[tuple[str, str]]:
    """Yields what is known of a family, by name."""
    yield "auto", f"{family.auto}: {family.reason}"
    yield "pooling", family.pooling
    yield "preprocessing", family.preprocessing + (f"; published with {' or '.join(family.statistics)}" if family.statistics else "")
    yield "verified", family.verified
    if not family.words:
        yield "words", "none: for classifier heads, see 'concept-cam fit-head'"


def _one(name: str) -> None:
    from concept_cam.backbones.loading import about

    _section(name)
    _table(about(name))


def _attention() -> None:
    from concept_cam.backbones import FAMILIES
    from concept_cam.core.attention_names import ATTENTION_NAMES

    _section("Dense attention strategies (--attention)")
    _table(list(ATTENTION_NAMES.items()))
    _section("What 'auto' stands for, and why")
    _table([(name, f"{family.auto}: {family.reason}") for name, family in FAMILIES.items()])


def _methods() -> None:
    from concept_cam.methods import METHODS

    _section("Localisation methods (--method)")
    _table([(name, method.description + (f"  [extra: {method.extra}]" if method.extra else "")) for name, method in METHODS.items()])


def _refiners() -> None:
    from concept_cam.refine import REFINERS

    _section("Ways to refine maps (--refine)")
    rows = [
        (
            f"{name}{f':{entry.takes}' if entry.required else f'[:{entry.takes}]' if entry.takes else ''}",
            entry.description + (f"  [cost: {entry.cost}]" if entry.cost else ""),
        )
        for name, entry in REFINERS.items()
    ]
    _table(rows)


def cached_models() -> list[Cached]:
    """Returns the image-text models in the Hugging Face cache, by name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repository in repositories:
        if repository.repo_type != "model":
            continue
        files = {file.file_name: file.file_path for revision in repository.revisions for file in revision.files}
        if "open_clip_config.json" in files or any(name.startswith("open_clip_") for name in files):
            found.append(Cached(f"hf-hub:{repository.repo_id}", repository.size_on_disk))
        elif "config.json" in files and _is_read(Path(files["config.json"])):
            found.append(Cached(f"transformers:{repository.repo_id}", repository.size_on_disk))
    return sorted(found, key=lambda item: item.name)


def _is_read(config: Path) -> bool:
    """Tells whether a model type of the transformers library has a family."""
    from concept_cam.backbones import FAMILIES

    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return False
    return any(f"transformers:{kind}" in family.towers for family in FAMILIES.values())


def _section(title: str) -> None:
    click.echo(click.style(title, bold=True))


def _table(rows: Sequence[tuple[str, ...]], gap: bool = True) -> None:
    print_table(rows, indent=2)
    if gap:
        click.echo()
