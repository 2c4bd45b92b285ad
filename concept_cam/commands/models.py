"""``concept-cam models``: what can be loaded and what is already at hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from concept_cam.commands.console import print_table


@dataclass(frozen=True)
class Cached:
    """A model repository in the Hugging Face cache of this machine.

    Attributes:
        name: Name to pass as ``--model``.
        size: Bytes on disk.
    """

    name: str
    size: int


@click.command(short_help="List the models that can be loaded and those at hand.")
@click.argument("name", required=False)
@click.option("--attention", "show_attention", is_flag=True, help="List the dense attention strategies instead.")
@click.option("--methods", "show_methods", is_flag=True, help="List the localisation methods instead.")
@click.option("--all", "show_all", is_flag=True, help="Also list every open_clip architecture and pretrained tag (loads open_clip).")
def models(name: str | None, show_attention: bool, show_methods: bool, show_all: bool) -> None:
    """Lists the models that can be loaded, and those that are on this machine already; with NAME, says how that model is read.

    NAME is any model that --model takes; it is loaded. An architecture of open_clip, alone or with a tag, needs no weights for this.

    \b
    Examples:
      concept-cam models
      concept-cam models ViT-B-16-SigLIP
      concept-cam models ViT-L-14:weights.safetensors
      concept-cam models --all | grep ViT-L
      concept-cam models --attention
      concept-cam models --methods
    """
    if name is not None:
        _one(name)
    if show_attention:
        _attention()
    if show_methods:
        _methods()
    if name is None and not show_attention and not show_methods:
        _models(show_all)


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
    _section("Families that can be localised (strategy that 'auto' picks)")
    _table([(name, f"{family.description}  [{family.auto}]") for name, family in FAMILIES.items()])
    if show_all:
        from concept_cam.backbones.loading import catalogue

        _section("open_clip architectures and pretrained tags, and how pictures are prepared for them")
        _table([(entry.name, entry.preprocess) for entry in catalogue() if entry.preprocess])


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
        elif "config.json" in files and _is_transformers_clip(Path(files["config.json"])):
            found.append(Cached(f"transformers:{repository.repo_id}", repository.size_on_disk))
    return sorted(found, key=lambda item: item.name)


def _is_transformers_clip(config: Path) -> bool:
    try:
        return json.loads(config.read_text(encoding="utf-8")).get("model_type") in ("clip", "siglip", "siglip2")
    except (OSError, ValueError, AttributeError):
        return False


def _section(title: str) -> None:
    click.echo(click.style(title, bold=True))


def _table(rows: list[tuple[str, str]]) -> None:
    print_table(rows, indent=2)
    click.echo()
