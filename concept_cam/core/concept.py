"""A question to a picture, in words: a target and its contrasts."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from concept_cam.core.errors import PromptError
from concept_cam.core.names import choose, normalise_text, whole_number
from concept_cam.core.placing import PLACES, BodyPlan

__all__ = ["Concept", "Where"]


def _phrases(value: str | Sequence[str], role: str) -> tuple[str, ...]:
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise PromptError(f"the {role} must be text or several texts, received {value!r} ({type(value).__name__}).")
    phrases = (value,) if isinstance(value, str) else tuple(value)
    if not phrases:
        raise PromptError(f"the {role} has no phrase: expected at least one text such as 'a forked tail fin'.")
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise PromptError(f"the {role} must be text, received {reprlib.repr(phrase)} ({type(phrase).__name__}).")
        if not normalise_text(phrase):
            raise PromptError(f"the {role} is empty: expected a text such as 'a forked tail fin', received {phrase!r}.")
    return phrases


@dataclass(frozen=True)
class Where:
    """Which of several is meant: the *left* fore wing. Told by geometry from the maps of other parts, never by the words.

    Attributes:
        place: A key of :data:`concept_cam.core.placing.PLACES`.
        part: Name of the part whose place it is, as the plan names it; empty where the plan does not.
        plan: Which parts tell how the host lies; empty where nothing is known of it.
        parts: Concepts of the parts that the plan names, each with its name there as metadata ``part``.
        unread: Why the place was not read from the words, in one sentence; the words are then asked as they stand, and nothing is told of
            the place. Empty where it was read.

    Raises:
        PromptError: An unknown place, or a field of another type.
    """

    place: str
    part: str = ""
    plan: BodyPlan = field(default_factory=BodyPlan)
    parts: tuple[Concept, ...] = ()
    unread: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.place, str):
            raise PromptError(f"place must be one of {', '.join(PLACES)}, received {self.place!r} ({type(self.place).__name__}).")
        choose(self.place, PLACES, "place", PromptError)
        for name in ("part", "unread"):
            if not isinstance(value := getattr(self, name), str):
                raise PromptError(f"{name} must be text, received {value!r} ({type(value).__name__}).")
        if not isinstance(self.plan, BodyPlan):
            raise PromptError(f"plan must be a BodyPlan, received {reprlib.repr(self.plan)} ({type(self.plan).__name__}).")
        if isinstance(self.parts, Concept | str) or not isinstance(self.parts, Iterable):
            raise PromptError(f"parts must be a tuple of concepts, received {reprlib.repr(self.parts)} ({type(self.parts).__name__}).")
        parts: tuple[Any, ...] = (self.parts,)
        with suppress(TypeError):  # An array that holds one number only looks as if it held several.
            parts = tuple(self.parts)
        for part in parts:
            if not isinstance(part, Concept):
                raise PromptError(f"parts must be concepts, received {reprlib.repr(part)} ({type(part).__name__}).")
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True)
class Concept:
    """One question to an image: where is the target, as opposed to the contrasts?

    Attributes:
        target: Synonym phrases of the target (a single text is accepted and becomes a tuple of one).
        contrasts: One tuple of synonym phrases per contrast (texts are accepted likewise); may be empty.
        name: Short unique name used in tables and file names; the first target phrase by default.
        contrast_names: One name per contrast; their first phrases by default.
        templates: Every template holds ``{}`` exactly once; each phrase is put into each template.
        metadata: Further facts carried through to the outputs (pack, character, state, entity, ontology ids ...).
        where: Which of several is meant; ``None`` for wherever it is.
        surroundings: How many of the contrasts, the last ones, are what lies around the target (the host, the background) and no answer to
            the question: they are set against the map, have no share in probabilities, and are not put into templates. The contrasts before
            them are the rivals.

    Raises:
        PromptError: On empty text, a target that equals one of its contrasts (after normalisation), a contrast or a name of one that is
            given twice, a contrast with the name of the concept, more surroundings than contrasts, a template without exactly one ``{}``,
            or a field of another type.
    """

    target: tuple[str, ...]
    contrasts: tuple[tuple[str, ...], ...] = ()
    name: str = ""
    contrast_names: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("{}",)
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    where: Where | None = None
    surroundings: int = 0

    if TYPE_CHECKING:  # What may be given, of which the fields above are made.

        def __init__(
            self,
            target: str | Iterable[str],
            contrasts: str | Iterable[str | Iterable[str]] = (),
            name: str = "",
            contrast_names: Sequence[str] = (),
            templates: str | Sequence[str] = ("{}",),
            metadata: Mapping[str, Any] = ...,
            where: Where | None = None,
            surroundings: int = 0,
        ) -> None: ...

    def __post_init__(self) -> None:
        target = _phrases(self.target, "target")
        self._require_kinds()
        given = (self.contrasts,) if isinstance(self.contrasts, str) else self.contrasts
        contrasts = tuple(_phrases(contrast, "contrast") for contrast in given)
        templates = (self.templates,) if isinstance(self.templates, str) else tuple(self.templates)
        for template in templates:
            if not isinstance(template, str) or template.count("{}") != 1:
                raise PromptError(f"the template {template!r} must hold '{{}}' exactly once, where the phrase goes.")
        if not templates:
            raise PromptError("a concept needs at least one template; '{}' stands for the phrase alone.")
        targets = {normalise_text(phrase): phrase for phrase in target}
        seen: dict[str, str] = {}
        for contrast in contrasts:
            for phrase in contrast:
                key = normalise_text(phrase)
                if key in targets:
                    raise PromptError(
                        f"the contrast {phrase!r} equals the target {targets[key]!r}: their difference is zero. "
                        "Name what the target should be told apart from."
                    )
            first = normalise_text(contrast[0])
            if first in seen:
                also = "" if contrast[0] == seen[first] else f" (also as {seen[first]!r})"
                raise PromptError(f"the contrast {contrast[0]!r} is given twice{also}: name each once.")
            seen[first] = contrast[0]
        names = tuple(self.contrast_names) or tuple(contrast[0] for contrast in contrasts)
        if len(names) != len(contrasts):
            raise PromptError(f"received {len(names)} contrast names for {len(contrasts)} contrasts.")
        twice = next((name for position, name in enumerate(names) if name in names[:position]), None)
        if twice is not None:
            raise PromptError(f"two contrasts have the name {twice!r}: expected one name for each; rename one.")
        name = self.name or target[0]
        if name in names:
            raise PromptError(
                f"the concept and one of its contrasts have the name {name!r}: what is told of each is kept by name, so expected different "
                "ones; rename one with name= or contrast_names=."
            )
        surroundings = whole_number(self.surroundings)
        if not 0 <= surroundings <= len(contrasts):
            raise PromptError(f"received {surroundings} surroundings among {len(contrasts)} contrasts: expected 0 to {len(contrasts)}.")
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "contrasts", contrasts)
        object.__setattr__(self, "templates", templates)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "contrast_names", names)
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))
        object.__setattr__(self, "surroundings", surroundings)

    def _require_kinds(self) -> None:
        """Refuses what has the wrong type, before anything is made of it."""
        expected: tuple[tuple[str, Any, type | tuple[type, ...], str], ...] = (
            ("contrasts", self.contrasts, Iterable, "texts"),
            ("templates", self.templates, (str, tuple, list), "a tuple of texts such as 'a photo of {}'"),
            ("name", self.name, str, "text"),
            ("contrast_names", self.contrast_names, (tuple, list), "a tuple of texts"),
            ("metadata", self.metadata, Mapping, "a mapping"),
            ("where", self.where, (Where, type(None)), "a Where, such as Where('left'), or None"),
            # The integers of numpy and torch are whole numbers too; their arrays only say that they could be.
            ("surroundings", whole_number(self.surroundings), int, "a whole number"),
        )
        for field_, value, kind, text in expected:
            if not isinstance(value, kind) or isinstance(value, bool | bytes):
                raise PromptError(f"{field_} must be {text}, received {value!r} ({type(value).__name__}).")
        if self.name and not normalise_text(self.name):
            raise PromptError(
                f"the name of a concept is blank, received {self.name!r}: expected a text, or '' for the first target phrase."
            )
        for name in self.contrast_names:
            if not isinstance(name, str) or not normalise_text(name):
                raise PromptError(f"contrast_names must be texts that are not blank, received {name!r} ({type(name).__name__}).")

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be sent to another process; worker processes receive concepts.
        texts = (self.target, self.contrasts, self.name, self.contrast_names, self.templates)
        return (Concept, (*texts, dict(self.metadata), self.where, self.surroundings))

    def prompts(self, phrases: Sequence[str]) -> tuple[str, ...]:
        """Returns every template filled with every phrase, the exact texts that the text tower sees."""
        return tuple(template.replace("{}", phrase) for template in self.templates for phrase in phrases)

    @property
    def target_prompts(self) -> tuple[str, ...]:
        """The exact texts whose mean embedding is the target."""
        return self.prompts(self.target)

    @property
    def term_names(self) -> tuple[str, ...]:
        """What the texts of a map are called, target first, no two alike: the target by its first phrase, or by the concept's name where a
        contrast is called like that phrase, as a state of a pack may be.
        """
        first = self.target[0]
        return (self.name if first in self.contrast_names else first, *self.contrast_names)

    @property
    def rivals(self) -> tuple[tuple[str, ...], ...]:
        """The contrasts that are answers to the same question: all but the surroundings."""
        return self.contrasts[: len(self.contrasts) - self.surroundings]

    @property
    def rival_names(self) -> tuple[str, ...]:
        """One name per rival."""
        return self.contrast_names[: len(self.rivals)]

    @property
    def surrounding_names(self) -> tuple[str, ...]:
        """One name per surrounding."""
        return self.contrast_names[len(self.rivals) :]

    @property
    def contrast_prompts(self) -> tuple[tuple[str, ...], ...]:
        """The exact texts of each contrast, in order; surroundings are not put into the templates, which speak of the target."""
        return (*map(self.prompts, self.rivals), *self.contrasts[len(self.rivals) :])
