"""What people drew in an annotation tool, as questions: shared by the readers of CVAT and Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.documents import understood
from concept_cam.core.errors import DataError
from concept_cam.core.names import is_there, path_of
from concept_cam.evaluation.datasets.samples import Dataset, MaskLoader, Sample, SampleQuestion, is_subject, noun_of, part_concepts
from concept_cam.exports.survey import PACK_SEPARATOR, PART_SEPARATOR
from concept_cam.pictures.endings import is_picture

__all__ = ["Drawn", "PictureFinder", "dataset_of", "read_mask", "reviewed_only", "union"]

VERSION = "1"


@dataclass(frozen=True)
class Drawn:
    """What was drawn in one picture.

    Attributes:
        name: The picture, as the file names it.
        regions: Label -> masks of its regions.
        states: Character -> the state that a person set.
    """

    name: str
    regions: Mapping[str, tuple[MaskLoader, ...]]
    states: Mapping[str, str] = field(default_factory=dict)


def read_mask(where: str, read: MaskLoader) -> npt.NDArray[np.bool_]:
    """Reads a mask, bool [H, W]; whatever is wrong with it is one error that says ``where``.

    Raises:
        DataError: The mask cannot be read.
    """
    with understood(where):
        return np.asarray(read())


def union(masks: Sequence[MaskLoader]) -> npt.NDArray[np.bool_]:
    """Returns the union of masks of one picture, bool [H, W].

    Raises:
        DataError: They are of different sizes.
    """
    found = [np.asarray(mask(), dtype=bool) for mask in masks]
    if len({mask.shape for mask in found}) != 1:
        raise DataError(f"the masks of one picture have the sizes {sorted({mask.shape for mask in found})}.")
    return np.asarray(np.logical_or.reduce(found))


class PictureFinder:
    """Finds the pictures that an annotation file names: by their path from the folder, else by their name alone where it is unique.

    Args:
        folder: Where the pictures lie, with subfolders.
        source: The annotation file, for messages.

    Raises:
        DataError: There is no such folder.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{source} names pictures, and the folder {folder} does not exist: name theirs (--images DIR).")
        self._folder, self._source = folder, source
        self._by_name: dict[str, list[Path]] | None = None

    def __call__(self, name: str) -> Path:
        """Returns the picture.

        Raises:
            DataError: There is none, or several.
        """
        direct = path_of(self._folder / name)
        if is_there(direct) and direct.is_file() and self._folder.resolve() in direct.resolve().parents:
            return direct
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self._folder.rglob("*")):
                if is_picture(path):
                    self._by_name.setdefault(path.name, []).append(path)
        found = self._by_name.get(Path(name).name, []) or self._by_name.get(direct.name, [])
        if len(found) != 1:
            problem = "lies nowhere in" if not found else f"may be any of {len(found)} pictures of that name in"
            raise DataError(f"{self._source}: the picture {name!r} {problem} {self._folder}.")
        return found[0]


def dataset_of(
    kind: str, source: Path, drawn: Sequence[Drawn], find: PictureFinder, host: str | None, traits: str | None, facts: Mapping[str, Any]
) -> Dataset:
    """Makes a data set: every labelled region is asked for, and every state that was set.

    Labels of this package's exports (``parts: head``, ``fish/parts: head``, ``caudal_fin_shape``) are the questions of the trait pack;
    other labels are taken for names of parts.

    Args:
        kind: Name of the layout.
        source: The annotation file.
        drawn: What was drawn.
        find: Finds the pictures.
        host: Noun of the subject; that of the trait pack by default, else "organism".
        traits: Trait pack; where labels name packs before a stroke, those win.
        facts: Recorded.

    Raises:
        DataError: Nothing was drawn or set that can be asked for.
    """
    packs = {traits} if traits else set()
    for item in drawn:
        packs |= {name.partition(PACK_SEPARATOR)[0] for name in (*item.regions, *item.states) if PACK_SEPARATOR in name}
    known = {pack: {concept.name: concept for concept in prompts.load(pack)} for pack in sorted(filter(None, packs))}
    noun = noun_of(host, traits)
    names = sorted({_part(label) for item in drawn for label in item.regions})
    plain = part_concepts([name for name in names if not is_subject(name, noun)], noun, traits)
    whole = Concept((prompts.host_phrase(noun),), name="host")

    def concept_of(label: str) -> Concept | None:
        _, concepts = _pack_of(label, known, traits)
        part = _part(label)
        if is_subject(part, noun):
            return whole
        own = concepts.get(f"parts={part}") or next(
            (concept for concept in concepts.values() if concept.metadata.get("kind") == "part" and concept.target == plain[part].target),
            None,
        )
        return own or (plain[part] if PART_SEPARATOR in label or _bare(label) not in _characters(concepts) else None)

    def questions(item: Drawn) -> Iterator[SampleQuestion]:
        for label, masks in item.regions.items():
            concept = concept_of(label)
            if concept is not None:
                yield SampleQuestion(concept, "object" if concept is whole else "part", _part(label), partial(union, masks))
        for character, state in item.states.items():
            _, concepts = _pack_of(character, known, traits)
            concept = concepts.get(f"{_bare(character)}={state}")
            if concept is None:
                absent = concepts.get(f"{_bare(character)}=present") if state == "absent" else None
                if absent is not None:
                    yield SampleQuestion(absent, "presence", _bare(character), present=False)
                continue
            drawn_here = item.regions.get(character)
            mask = None if drawn_here is None else partial(union, drawn_here)
            yield SampleQuestion(concept, "presence" if state == "present" else "state", _bare(character), mask)

    asked = [item for item in drawn if any(True for _ in questions(item))]
    if not asked:
        raise DataError(
            f"{source}: no region and no state was found that can be asked for. Draw masks, brushes or polygons, and name the trait pack "
            "(--traits) whose states were set."
        )

    def stream() -> Iterator[Sample]:
        for item in asked:
            yield Sample(item.name, find(item.name), tuple(questions(item)))

    return Dataset(kind, VERSION, stream, len(asked), whole, {"path": str(source), "host": noun, "pack": traits, **facts})


def _pack_of(label: str, known: Mapping[str, dict[str, Concept]], traits: str | None) -> tuple[str, dict[str, Concept]]:
    pack, separator, _ = label.partition(PACK_SEPARATOR)
    name = pack if separator else (traits or "")
    return name, known.get(name, {})


def _bare(label: str) -> str:
    return label.partition(PACK_SEPARATOR)[2] if PACK_SEPARATOR in label else label


def _part(label: str) -> str:
    return _bare(label).partition(PART_SEPARATOR)[2] if PART_SEPARATOR in label else _bare(label)


def _characters(concepts: Mapping[str, Concept]) -> set[str]:
    return {str(concept.metadata.get("character", "")) for concept in concepts.values()}


def reviewed_only(marks: Iterable[bool | None], source: Path, mark: str) -> Callable[[bool | None], bool]:
    """Returns which regions count: where any is marked as reviewed, those that are; without marks, all.

    Raises:
        DataError: Regions can be marked, and none is: they may be the model's own.
    """
    seen = list(marks)
    if any(seen):
        return lambda value: bool(value)
    if any(value is not None for value in seen):
        raise DataError(
            f"{source}: no region is marked as {mark!r}, so that all may be the model's own: a guarantee needs what people drew. Tick "
            f"{mark!r} at what somebody went through."
        )
    return lambda value: True
