"""What every data set gives: pictures, and questions whose answers are known. Loads neither torch nor a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from concept_cam.core.concept import Concept
from concept_cam.core.documents import understood
from concept_cam.core.errors import DataError, ImageError
from concept_cam.core.names import normalise_text
from concept_cam.prompts.schema import host_phrase

if TYPE_CHECKING:
    from concept_cam.pictures.reading import ImageSource

__all__ = [
    "QUESTION_KINDS",
    "Dataset",
    "MaskLoader",
    "Points",
    "SampleQuestion",
    "Sample",
    "is_subject",
    "noun_of",
    "part_concepts",
    "read_target_mask",
]

MaskLoader = Callable[[], npt.NDArray[Any]]
"""Reads a mask when it is needed: bool [H, W], or uint8 [H, W] with 255 target, 0 not, 128 ignore; upright original pixels."""

QUESTION_KINDS: dict[str, str] = {
    "object": "where is the whole subject?",
    "part": "where is this part of the subject?",
    "state": "which state has the character, and where does it show?",
    "presence": "is it there at all, and where?",
}
"""Kinds of questions."""


@dataclass(frozen=True)
class Points:
    """Labelled points instead of a mask.

    Attributes:
        xy: float64 [N, 2] of ``(x, y)``, original pixels.
        labels: [N]: 1 on the target, 0 on something else.
        tolerance: Distance in original pixels within which the map's peak counts as a hit.
    """

    xy: npt.NDArray[np.float64]
    labels: tuple[int, ...]
    tolerance: float

    def __post_init__(self) -> None:
        if np.asarray(self.xy).shape != (len(self.labels), 2):
            raise DataError(f"received points of shape {np.shape(self.xy)} and {len(self.labels)} labels; expected [N, 2] and N.")


@dataclass(frozen=True)
class SampleQuestion:
    """One question to a picture, with what is known of its answer.

    Attributes:
        concept: What is asked.
        kind: Key of :data:`QUESTION_KINDS`.
        trait: Row of the breakdown per trait: a part's or a character's name.
        mask: Where the target is; ``None`` when that is not known or the target is absent.
        host: Where the whole subject is.
        present: Whether the target is there; only ``presence`` questions may say no.
        points: Labelled points, for data sets without masks.
        difference: Where the picture differs from its counterfactual twin, in which this one trait is changed.
        twin: The twin's picture, in which the answer to the concept is no.
    """

    concept: Concept
    kind: str
    trait: str
    mask: MaskLoader | None = None
    host: MaskLoader | None = None
    present: bool = True
    points: Points | None = None
    difference: MaskLoader | None = None
    twin: Callable[[], ImageSource] | None = None

    def __post_init__(self) -> None:
        if self.kind not in QUESTION_KINDS:
            raise DataError(f"unknown kind of question {self.kind!r}; known: {', '.join(QUESTION_KINDS)}.")
        if not self.present and (self.kind != "presence" or self.mask is not None):
            raise DataError("only a 'presence' question without a mask can have an absent target.")


@dataclass(frozen=True)
class Sample:
    """One picture and its questions.

    Attributes:
        name: Unique name of the picture.
        image: Anything that :func:`concept_cam.pictures.reading.read_image` takes.
        questions: What is asked of it.
    """

    name: str
    image: ImageSource
    questions: tuple[SampleQuestion, ...]


@dataclass(frozen=True)
class Dataset:
    """A stream of samples that can be read again from its start.

    Attributes:
        name: Name of the layout, as in :data:`concept_cam.evaluation.datasets.LOADERS`.
        version: Version of the benchmark or of the layout.
        stream: Makes a fresh stream of samples.
        count: Number of pictures.
        host: The whole subject as a concept ("a fish"): a control of prompt dependence.
        facts: Where it came from, what was left out; recorded in the report.
    """

    name: str
    version: str
    stream: Callable[[], Iterator[Sample]]
    count: int
    host: Concept
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def __iter__(self) -> Iterator[Sample]:
        # What the files of a data set hold shows as late as this.
        with understood(str(self.facts.get("path", self.name))):
            yield from self.stream()

    def __len__(self) -> int:
        return self.count

    def limited(self, limit: int | None) -> Dataset:
        """Returns the first ``limit`` pictures; all for ``None``."""
        if limit is None or limit >= self.count:
            return self
        return replace(self, stream=lambda: islice(self.stream(), limit), count=limit)


# --------------------------------------------------------------------------------------------------------------- helpers


def read_target_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Reads a mask picture: uint8 [H, W], upright, with 255 target, 0 not, 128 ignore.

    What counts as outside is the same for every reader of masks (:mod:`concept_cam.pictures.masks`). Two-valued pictures (0 and any one
    other value, such as 1) are read as not and target.

    Raises:
        DataError: The file cannot be read, or holds other values.
    """
    from concept_cam.pictures import masks

    values = _labels(masks.read_mask_labels, path)
    found = np.unique(values)
    if np.isin(found, (0, 128, 255)).all():
        return values.astype(np.uint8)
    if len(found) <= 2 and (len(found) == 1 or found[0] == 0):
        return np.where(values != 0, 255, 0).astype(np.uint8)
    raise DataError(f"{path} is no mask: it holds the values {found[:8].tolist()}; expected 255 (target), 0 (not) and 128 (ignore).")


def read_number_picture(path: Path) -> npt.NDArray[Any]:
    """Reads a picture of numbers as it is stored, palette indices included: integers [H, W], upright.

    Raises:
        DataError: The file cannot be read.
    """
    from concept_cam.pictures import masks

    return _labels(masks.read_raw_labels, path)


def _labels(read: Callable[[Path], npt.NDArray[Any]], path: Path) -> npt.NDArray[Any]:
    if not os.path.exists(path):
        raise DataError(f"the mask {path} does not exist.")
    try:
        return read(path)
    except ImageError as error:
        raise DataError(f"the mask {path} cannot be read: {error}") from error


def part_concepts(names: Sequence[str], host: str, pack: str | None = None, alias: str | None = None) -> dict[str, Concept]:
    """Makes a concept of every part name, with the other parts and the host as contrasts.

    Args:
        names: Part names of the data set ("Caudal fin", "dorsal_fin").
        host: Noun of the subject ("fish").
        pack: Trait pack whose ``parts`` are used where a name equals a part's name, alias or phrase.
        alias: Key of the data set in the pack's aliases.

    Returns:
        Name -> concept. Parts that the pack does not know read "the caudal fin of a fish".
    """
    phrases: dict[str, tuple[str, ...]] = {name: (f"the {name.replace('_', ' ').lower()} of {host_phrase(host)}",) for name in names}
    templates: tuple[str, ...] = ("{}",)
    host_phrases: tuple[str, ...] = (host_phrase(host),)
    if pack is not None:
        known, templates, host_phrases = _pack_parts(pack, alias)
        phrases = {name: known.get(_key(name), own) for name, own in phrases.items()}
    # A data set may call a part so, too.
    whole = "host" if "host" not in phrases else host_phrase(host)
    return {
        name: Concept(
            own,
            tuple(other for key, other in phrases.items() if key != name and other != own) + (host_phrases,),
            name=f"parts={name}",
            contrast_names=(*(key for key, other in phrases.items() if key != name and other != own), whole),
            templates=templates,
        )
        for name, own in phrases.items()
    }


def noun_of(host: str | None, pack: str | None, named: str | None = None) -> str:
    """Returns the noun of a data set's subject.

    Args:
        host: What the user says; it holds.
        pack: The trait pack whose parts are asked for.
        named: What the data set itself calls its subject; ``None`` where it does not say.
    """
    if host or named:
        return host or named or ""
    if pack is None:
        return "organism"
    from concept_cam import prompts

    return prompts.load_pack(pack).host


def is_subject(name: str, noun: str) -> bool:
    """Tells whether a data set's name is its subject's noun, written in whatever case: the whole ``Fish``, and no part of a fish."""
    return _key(name) == _key(noun)


def _key(name: str) -> str:
    return normalise_text(name.replace("_", " "))


def _pack_parts(pack: str, alias: str | None) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...], tuple[str, ...]]:
    from concept_cam import prompts

    loaded = prompts.load_pack(pack)
    character = loaded.character("parts")
    known: dict[str, tuple[str, ...]] = {}
    for state in character.states:
        names = [state.name, *state.phrases]
        given = state.aliases.get(alias, ()) if alias is not None else ()
        names += [given] if isinstance(given, str) else list(given)
        known.update({_key(name): loaded.phrases_of(state, character) for name in names})
    return known, loaded.templates_of(character), loaded.host_phrases
