"""Options that several commands share, and how they become a localizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from concept_cam.commands.console import detail, warn
from concept_cam.core.concept import Concept
from concept_cam.core.names import nearest_names
from concept_cam.core.settings import DTYPES, RESIZE_POLICIES, VIEW_NAMES, WEIGHTINGS, Settings, read_config

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer


class Names(click.Choice[str]):
    """A choice among names that says which one a mistyped name is nearest to."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Returns click's message with the nearest name."""
        near = nearest_names(str(value), self.choices, 1)
        return super().get_invalid_choice_message(value, ctx) + (f" Did you mean {near[0]!r}?" if near else "")


F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_MODEL = "demo"

_MODEL_OPTIONS = (
    click.option(
        "--model",
        "-m",
        help="Model name, see 'concept-cam models'.  [default: demo, the model that ships with the package]",
    ),
    click.option("--device", help="auto, cpu, cuda, cuda:1, mps.  [default: auto]"),
    click.option("--dtype", type=Names(DTYPES), help="Number format of the towers.  [default: float32]"),
    click.option(
        "--config",
        type=click.Path(dir_okay=False),
        help="YAML file with settings; options on the command line win.",
    ),
)

resize_option: Callable[[Any], Any] = click.option(
    "--resize", type=Names(RESIZE_POLICIES), help="How the picture meets the model's input.  [default: pad]"
)
size_option: Callable[[Any], Any] = click.option("--size", type=int, help="Side in pixels at which maps are read.  [default: the model's]")
views_option: Callable[[Any], Any] = click.option(
    "--views",
    type=Names(VIEW_NAMES),
    help="Views of a picture whose features are averaged (direct, gem, clip-surgery); mirrored: steadier maps in twice the time.  [default: auto, the model's]",
)

_SETTING_OPTIONS = (
    click.option(
        "--attention",
        "-a",
        help="Dense attention strategy, see 'concept-cam models --attention'.  [default: auto]",
    ),
    click.option(
        "--gamma",
        "-g",
        type=float,
        help="Comparison strength: 0 ignores contrasts, 1 sets them fully against.  [default: 1]",
    ),
    click.option("--weighting", type=Names(WEIGHTINGS), help="How contrasts share the weight.  [default: uniform]"),
    resize_option,
    size_option,
    views_option,
    click.option("--batch-size", type=int, help="Pictures per forward pass.  [default: 8; annotate on a GPU measures it]"),
    click.option("--max-pixels", type=int, help="Largest picture that is decoded.  [default: 200000000]"),
)


def _stack(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


model_options: Callable[[Any], Any] = _stack(_MODEL_OPTIONS)
"""``--model --device --dtype --config``."""

setting_options: Callable[[Any], Any] = _stack(_SETTING_OPTIONS)
"""The fields of :class:`concept_cam.core.settings.Settings`."""

SETTING_NAMES = ("attention", "gamma", "weighting", "resize", "size", "views", "batch_size", "max_pixels")


def resolve(options: dict[str, Any]) -> dict[str, Any]:
    """Merges the configuration file under the options given: returns every known setting that has a value."""
    values = read_config(options["config"]) if options.get("config") else {}
    values.update({name: value for name, value in options.items() if value is not None and name != "config"})
    return values


def build_localizer(values: dict[str, Any]) -> Localizer:
    """Loads the model that the merged options name."""
    from concept_cam.localizer import Localizer

    names = (*SETTING_NAMES, "feature_norm", "templates")
    settings = Settings().with_values(**{name: values[name] for name in names if name in values})
    start = time.perf_counter()
    localizer = Localizer.from_pretrained(
        values.get("model") or DEFAULT_MODEL,
        device=values.get("device") or "auto",
        dtype=values.get("dtype") or "float32",
        settings=settings,
    )
    detail(f"loaded {localizer.backbone.name!r} (weights {localizer.backbone.weights_hash}) in {time.perf_counter() - start:.1f} s")
    detail(f"settings: {localizer.settings}")
    return localizer


def warn_unknown_words(localizer: Localizer, concepts: list[Concept]) -> None:
    """Says on stderr which words the model has never seen; what it shows for them means nothing."""
    words = localizer.unknown_words(concepts)
    if words:
        warn(
            f"warning: the model {localizer.backbone.name!r} has never seen {', '.join(map(repr, words))}: maps for prompts "
            "with unknown words mean little. It knows only the fish world it was trained on; use a real checkpoint, "
            "for example --model hf-hub:imageomics/bioclip-2 or --model ViT-B-16/openai."
        )
