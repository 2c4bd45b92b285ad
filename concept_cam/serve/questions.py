"""What a client may ask, checked: plain data in, a :class:`AskedQuestion` out, or one message that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, PromptError
from concept_cam.core.names import choose
from concept_cam.core.regions import DEFAULT_THRESHOLD, parse_threshold
from concept_cam.core.settings import WEIGHTINGS

__all__ = ["AskedQuestion", "read_question"]

MAX_TEXT = 300
MAX_CONTRASTS = 32
MAX_CLICKS = 200

_KEYS = {
    "picture", "image", "target", "contrasts", "character", "state", "gamma", "weighting", "threshold", "min_area", "clicks", "taught",
    "mix",
    "map", "certificate",
}  # fmt: skip


@dataclass(frozen=True)
class AskedQuestion:
    """One question to a picture.

    Attributes:
        concept: Target and contrasts; of a character without a state those of its first state.
        character: ``PACK:CHARACTER`` where a pack is asked; empty for free words.
        choose: Whether the state with the most evidence is to be the target.
        gamma: Comparison strength.
        weighting: Contrast weighting.
        threshold: Strategy or score above which a pixel belongs to a region.
        min_area: Smallest region, pixels, or below 1 a share of the picture.
        clicks: ``(x, y, sign)`` in original pixels.
        taught: Name of a taught concept that is mixed in; empty for none.
        mix: Its share, 0..1.
        with_certificate: Whether the certificate is part of the answer.
        with_map: Whether the maps are part of the answer.
    """

    concept: Concept
    character: str = ""
    choose: bool = False
    gamma: float = 1.0
    weighting: str = "uniform"
    threshold: str | float = DEFAULT_THRESHOLD
    min_area: float = 0.0
    clicks: tuple[tuple[float, float, int], ...] = ()
    taught: str = ""
    mix: float = 0.5
    with_certificate: bool = True
    with_map: bool = False

    @property
    def subject(self) -> tuple[str, str, str]:
        """Pack, character and part that a correction of the answer is about."""
        if not self.character:
            names = [self.concept.name, *self.concept.contrast_names]
            return "", " | ".join(sorted(names)), ""
        metadata = self.concept.metadata
        return str(metadata["pack"]), str(metadata["character"]), str(metadata.get("part") or "")

    @property
    def kind(self) -> str:
        """Kind of the character; ``words`` for a question in free words."""
        return str(self.concept.metadata.get("kind", "words")) if self.character else "words"


def read_question(
    data: Mapping[str, Any],
    packs: Mapping[str, prompts.Pack],
    defaults: Mapping[str, Any] | None = None,
    concepts: Callable[[prompts.Pack, str, str | None], Sequence[Concept]] = prompts.concepts,
) -> AskedQuestion:
    """Reads a question from plain data.

    Args:
        data: ``target`` (text) with ``contrasts`` (texts), or ``character`` (``fish:caudal_fin_shape``) with an optional ``state``; and
            the settings of :class:`AskedQuestion`.
        packs: The packs that may be asked, by name: a client names packs, never files.
        defaults: ``gamma`` and ``weighting`` where the question names none.
        concepts: Makes the concepts of a pack's character, or of one state of it.

    Raises:
        ConfigurationError: A setting is unknown or has a value that cannot be used.
        PromptError: The words cannot be used.
    """
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"a question is a JSON object such as {{'target': 'a forked tail fin'}}, received {type(data).__name__}.")
    if unknown := sorted(set(data) - _KEYS):
        raise ConfigurationError(f"a question has no {unknown[0]!r}. Known: {', '.join(sorted(_KEYS))}.")
    values = {**(defaults or {}), **{key: value for key, value in data.items() if value is not None}}
    character = _text(values.get("character", ""), "character", empty=True)
    undecided = False
    if character:
        if values.get("target") or values.get("contrasts"):
            raise ConfigurationError("ask either in words (target, contrasts) or for a character of a pack, not both.")
        concept, undecided = _pack_concept(character, _text(values.get("state", ""), "state", empty=True), packs, concepts)
    else:
        target = _text(values.get("target", ""), "target")
        contrasts = values.get("contrasts", ())
        if isinstance(contrasts, str) or not isinstance(contrasts, Sequence):
            raise ConfigurationError("contrasts is a list of texts.")
        if len(contrasts) > MAX_CONTRASTS:
            raise ConfigurationError(f"at most {MAX_CONTRASTS} contrasts, received {len(contrasts)}.")
        concept = prompts.concept_of_words(target, [_text(text, "contrast") for text in contrasts], packs.values())
    weighting = values.get("weighting", "uniform")
    if weighting not in WEIGHTINGS:
        raise ConfigurationError(f"unknown weighting {weighting!r}. Known: {', '.join(WEIGHTINGS)}.")
    threshold = values.get("threshold", DEFAULT_THRESHOLD)
    if not isinstance(threshold, str):
        threshold = number(threshold, "the threshold (a strategy's name or a number)", -1e6, 1e6)
    clicks = values.get("clicks", ())
    if isinstance(clicks, str) or not isinstance(clicks, Sequence) or len(clicks) > MAX_CLICKS:
        raise ConfigurationError(f"clicks is a list of at most {MAX_CLICKS} entries [x, y, 1 or -1].")
    return AskedQuestion(
        concept=concept,
        character=character,
        choose=undecided,
        gamma=number(values.get("gamma", 1.0), "gamma", 0.0, 10.0),
        weighting=weighting,
        threshold=parse_threshold(threshold),
        min_area=number(values.get("min_area", 0.0), "min_area", 0.0, 1e9),
        clicks=tuple(_click(click) for click in clicks),
        taught=_text(values.get("taught", ""), "taught", empty=True),
        mix=number(values.get("mix", 0.5), "mix", 0.0, 1.0),
        with_certificate=bool(values.get("certificate", True)),
        with_map=bool(values.get("map", False)),
    )


def _pack_concept(
    character: str,
    state: str,
    packs: Mapping[str, prompts.Pack],
    concepts: Callable[[prompts.Pack, str, str | None], Sequence[Concept]],
) -> tuple[Concept, bool]:
    """Returns the concept of a character's state, and whether the state is still to be chosen."""
    name, _, rest = character.partition(":")
    pack = choose(name, packs, "trait pack", PromptError)
    if not rest:
        raise PromptError(f"name a character of the pack: {name}:CHARACTER.")
    if not state and pack.character(rest).kind == "part":
        raise PromptError(f"{character!r} holds parts, all of which are there at once: name one as state.")
    return concepts(pack, rest, state or None)[0], not state


def _text(value: Any, name: str, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is a text, received {type(value).__name__}.")
    text = " ".join(value.split())
    if len(text) > MAX_TEXT:
        raise ConfigurationError(f"{name} has {len(text)} characters, more than {MAX_TEXT}.")
    if not text and not empty:
        raise PromptError(f"the {name} is empty: expected a text such as 'a forked tail fin'.")
    return text


def number(value: Any, name: str, low: float, high: float) -> float:
    """Returns a number within bounds.

    Raises:
        ConfigurationError: It is none.
    """
    # The comparison alone turns NaN and infinity away, and whole numbers of any length, which have no place in a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigurationError(f"{name} is a number in {low:g}..{high:g}, received {str(value)[:60]!r}.")
    return float(value)


def _click(value: Any) -> tuple[float, float, int]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3 or value[2] not in (1, -1):
        raise ConfigurationError(f"a click is [x, y, 1] or [x, y, -1] in original pixels, received {str(value)[:60]}.")
    return number(value[0], "click x", -1e6, 1e6), number(value[1], "click y", -1e6, 1e6), int(value[2])
