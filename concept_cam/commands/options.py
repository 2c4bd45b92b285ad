"""Options that several commands share, and how they become a localizer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from concept_cam.commands.console import PathName, detail, warn
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import DEFAULT_MODEL, did_you_mean
from concept_cam.core.settings import DTYPES, PREPROCESS_SETTINGS, SETTING_NAMES, Settings, read_config, refiner_steps

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer
    from concept_cam.trust.rules import Rules


class Names(click.Choice[str]):
    """A choice among names that says which one a mistyped name is nearest to."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Returns click's message with the nearest name."""
        return super().get_invalid_choice_message(value, ctx) + did_you_mean(str(value), [str(choice) for choice in self.choices])


class Steps(Names):
    """Such a choice of steps that may follow each other: names with an argument behind a colon, several joined by a plus."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Checks the names and passes everything on."""
        for step in refiner_steps(str(value)):
            super().convert(step.partition(":")[0], param, ctx)
        return str(value)


class Number(click.types.FloatParamType):
    """A number: NaN, which passes every comparison, and what is infinite are refused with the option's name.

    Args:
        infinite: Whether infinity is a value too, where it says "always" or "never".
    """

    def __init__(self, *, infinite: bool = False) -> None:
        self._infinite = infinite

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads and checks the number."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found) or (math.isinf(found) and not self._infinite):
            self.fail(f"received {value!r}: expected a {'number' if self._infinite else 'finite number'}.", param, ctx)
        return found


class Within(click.FloatRange):
    """A number within a range, and not NaN, which click lets through; see :class:`Number`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads and checks the number."""
        return float(super().convert(Number().convert(value, param, ctx), param, ctx))


SHARE = Within(0, 1)
"""A number from 0 to 1."""

RISK = Within(0, 1, min_open=True, max_open=True)
"""A number between 0 and 1, neither of them."""

F = TypeVar("F", bound=Callable[..., Any])

WITHOUT_TEXT = ("timm:", "dinov2:", "dinov2-cls:", "dinov3:", "dinov3-cls:", "radio:")
"""How the names of towers without a text tower begin: they answer for their own classes, or for those of a head."""


def _model_option(default: str) -> Callable[[Any], Any]:
    return click.option("--model", "-m", help=f"Model name, see 'concept-cam models'.  [default: {default}]")


_OF_A_MODEL = (
    click.option("--device", help="auto, cpu, cuda, cuda:1, mps.  [default: auto]"),
    click.option("--dtype", type=Names(DTYPES), help="Number format of the towers.  [default: float32]"),
    click.option(
        "--config",
        type=PathName(dir_okay=False),
        help="YAML file with settings; options on the command line win.",
    ),
)


def _setting_option(name: str) -> Callable[[Any], Any]:
    """Makes the option of a field of :class:`~concept_cam.core.settings.Settings`."""
    item = next(item for item in fields(Settings) if item.name == name)
    facts = item.metadata
    forms = [f"--{name.replace('_', '-')}", *([facts["short"]] if facts["short"] else [])]
    if facts["kind"] is bool:
        return click.option(f"{forms[0]}/--no-{forms[0][2:]}", name, default=None, help=f"{facts['text']}  [default: no]")
    if facts["chain"]:
        return click.option(
            *forms,
            name,
            type=Steps(facts["chain"]),
            multiple=True,
            callback=lambda context, option, steps: "+".join(steps) or None,
            help=f"{facts['text']}  [default: {item.default}]",
        )
    kind = Names(facts["choices"]) if facts["choices"] else Number() if facts["kind"] is float else facts["kind"] or str
    return click.option(*forms, name, type=kind, help=f"{facts['text']}  [default: {facts['shown'] or item.default}]")


resize_option: Callable[[Any], Any] = _setting_option("resize")
size_option: Callable[[Any], Any] = _setting_option("size")
views_option: Callable[[Any], Any] = _setting_option("views")
refine_option: Callable[[Any], Any] = _setting_option("refine")
look_again_option: Callable[[Any], Any] = _setting_option("look_again")


def _stack(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


model_options: Callable[[Any], Any] = _stack((_model_option("demo, the model that ships with the package"), *_OF_A_MODEL))
"""``--model --device --dtype --config``."""

model_if_asked_options: Callable[[Any], Any] = _stack((_model_option("none is asked; demo ships with the package"), *_OF_A_MODEL))
"""The same for commands that ask a model only where one is named; see :func:`localizer_if_asked`."""

setting_options: Callable[[Any], Any] = _stack(
    tuple(_setting_option(item.name) for item in fields(Settings) if item.metadata["command_line"])
)
"""The fields of :class:`concept_cam.core.settings.Settings`."""

input_options: Callable[[Any], Any] = _stack(tuple(map(_setting_option, PREPROCESS_SETTINGS)))
"""Those that stand in place of what a checkpoint says of its input."""


def number_or_column(option: str, text: str | None) -> float | str | None:
    """Reads an option that is a number for all pictures, or the column that holds one for each.

    Args:
        option: Its name, for messages.
        text: What was given.

    Raises:
        ConfigurationError: It is blank, as a variable of the shell that is not set leaves it.
    """
    if text is None:
        return None
    if not text.strip():
        raise ConfigurationError(f"{option} is {text!r}: expected a number, or the name of a column; leave it out where neither is known.")
    try:
        return float(text)
    except ValueError:
        return text


def read_classes(path: str) -> list[str]:
    """Reads class names, one per line; empty lines and those that begin with ``#`` are none.

    Raises:
        ConfigurationError: The file cannot be read, or holds fewer than two.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the class list {path!r}: {error}.") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if len(names) < 2:
        raise ConfigurationError(f"the class list {path!r} holds {len(names)} names; expected at least two, one per line.")
    return names


def resolve(options: dict[str, Any]) -> dict[str, Any]:
    """Merges the configuration file under the options given: returns every known setting that has a value.

    Raises:
        ConfigurationError: The file cannot be used, or the model, the device or the dtype is blank, as a variable of the shell that is not
            set leaves it: another model than the one meant would answer.
    """
    config = options.get("config")
    values = {} if config is None else read_config(config)
    values.update({name: value for name, value in options.items() if value is not None and name != "config"})
    for name, expected in _NAMED.items():
        _refuse_blank(name, values.get(name), expected)
    return values


_NAMED = {"model": "a name, see 'concept-cam models'", "device": "a name such as cpu or cuda", "dtype": " or ".join(DTYPES)}
"""What is named in options that have a default, and how."""


def _refuse_blank(name: str, value: Any, expected: str) -> None:
    if not str(value).strip():
        raise ConfigurationError(f"--{name} is {value!r}: expected {expected}; leave it out for the default.")


def chosen_settings(values: dict[str, Any]) -> Settings:
    """Returns the settings among the merged options."""
    return Settings().with_values(**{name: values[name] for name in SETTING_NAMES if name in values})


def build_localizer(values: dict[str, Any], rules: Rules | None = None) -> Localizer:
    """Loads the model that the merged options name."""
    from concept_cam.localizer import Localizer

    settings = chosen_settings(values)
    start = time.perf_counter()
    localizer = Localizer.from_pretrained(
        values.get("model") or DEFAULT_MODEL,
        device=values.get("device") or "auto",
        dtype=values.get("dtype") or "float32",
        settings=settings,
        rules=rules,
    )
    detail(f"loaded {localizer.backbone.name!r} (weights {localizer.backbone.weights_hash}) in {time.perf_counter() - start:.1f} s")
    detail(f"settings: {localizer.settings}")
    return localizer


def localizer_if_asked(options: dict[str, Any]) -> Localizer | None:
    """Loads the model that the options or the configuration name; ``None`` where nothing was said of any.

    Raises:
        ConfigurationError: An option says something of a model, and none is named: it would have no effect.
    """
    values = resolve(options)
    if values.get("model"):
        return build_localizer(values)
    idle = next((name for name in ("device", "dtype", "config") if options.get(name)), None)
    if idle:
        also = " and the configuration names none" if idle == "config" else ""
        raise ConfigurationError(f"--{idle} is for a model that is asked{also}: add --model NAME, such as --model {DEFAULT_MODEL}.")
    return None


def warn_unknown_words(localizer: Localizer, concepts: list[Concept]) -> None:
    """Says on stderr which words lie far from what the model was trained on; what it shows for them may mean nothing."""
    words = localizer.unknown_words(concepts)
    if words:
        warn(
            f"warning: what the model {localizer.backbone.name!r} was trained on says little about {', '.join(map(repr, words))}: maps for "
            "phrases with such words may mean nothing. Use words that it knows, or a larger model, for example "
            "--model hf-hub:imageomics/bioclip-2 or --model ViT-B-16/openai."
        )


def warn_unread_places(concepts: Sequence[Concept]) -> None:
    """Says on stderr which targets speak of a place that was not read: the model pays no heed to it, and the map is that of the rest."""
    for concept in concepts:
        if concept.where is not None and concept.where.unread:
            warn(f"warning: the place in {concept.name!r} was not read: {concept.where.unread}")
