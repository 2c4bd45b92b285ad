"""A folder of pictures with a mask picture per part: ``<stem>__<part>.png``, with or without a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from concept_cam.core.concept import Concept
from concept_cam.core.documents import read_json
from concept_cam.core.errors import DataError
from concept_cam.core.names import did_you_mean
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion, is_subject, noun_of, part_concepts, read_target_mask
from concept_cam.pictures.endings import is_picture
from concept_cam.prompts.schema import host_phrase

__all__ = ["MANIFEST", "load"]

MANIFEST = "manifest.json"
VERSION = "1"


def load(path: str | Path, host: str | None = None, traits: str | None = None) -> Dataset:
    """Opens a folder of pictures and masks.

    The layout::

        PATH/images/fish01.jpg
        PATH/masks/fish01__caudal_fin.png      255 target, 0 not, 128 ignore; as large as the upright picture
        PATH/masks/fish01__fish.png            the host, where its name is given as ``host``
        PATH/manifest.json                     optional

    Pictures and masks may also lie in one folder. The manifest is a list of rows with ``image``, ``mask`` (paths from PATH), ``key``
    (part), and optionally ``query`` (text), ``contrast`` (texts), ``nested_in`` (keys; the first one with a mask is the host), ``level``
    (``"object"`` or ``"part"``), ``trait_query`` and ``trait_contrast`` (a second question to the same mask).

    Args:
        path: The folder.
        host: Noun of the subject, and name of its mask ("fish"); that of the trait pack by default, else "organism". In a manifest the
            first row of level ``"object"`` says it.
        traits: Trait pack whose part phrases are used where the names agree; in a manifest for rows without ``query``.

    Raises:
        DataError: No pictures or masks, or a manifest that cannot be used.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: expected pictures and masks named <stem>__<part>.png.")
    if (root / MANIFEST).is_file():
        return _from_manifest(root, noun_of(host, traits), traits)
    return _from_names(root, noun_of(host, traits), traits)


# ------------------------------------------------------------------------------------------------------------- by name


def _from_names(root: Path, host: str, traits: str | None) -> Dataset:
    pictures = _pictures(root)
    known = set(pictures)
    masks: dict[str, dict[str, Path]] = {}
    for folder in (root / "masks", root):
        for item in sorted(folder.glob("*__*")) if folder.is_dir() else ():
            if not is_picture(item) or item.name.startswith(".") or item in known:
                continue
            stem, _, part = item.stem.rpartition("__")
            other = masks.setdefault(stem, {}).setdefault(part, item)
            if other != item and other.parent == item.parent:
                raise DataError(f"{root}: {other.name!r} and {item.name!r} are both the mask of {part!r} of {stem!r}: keep one.")
    if not pictures or not masks:
        raise DataError(
            f"{root} holds {len(pictures)} pictures and masks of {len(masks)}: expected images/<stem>.jpg and masks/<stem>__<part>.png."
        )
    stems = [item.stem for item in pictures]
    owners: dict[str, Path] = {}
    for other in pictures:
        one = owners.setdefault(other.stem, other)
        if one != other and one.stem in masks:
            raise DataError(
                f"{root}: the masks of {one.stem!r} can be those of {one.name!r} or of {other.name!r}: rename one picture and its masks."
            )
    if strays := sorted(set(masks) - set(stems)):
        hint = did_you_mean(strays[0], stems)
        if not (root / "images").is_dir():
            hint += " If they are pictures whose names hold '__', move all pictures into a folder 'images'."
        raise DataError(f"{root}: there is no picture to the masks of {strays[0]!r}.{hint}")
    parts = sorted({part for found in masks.values() for part in found if not is_subject(part, host)})
    concepts = part_concepts(parts, host, traits)
    whole = Concept((host_phrase(host),), name="host")
    asked = [item for item in pictures if item.stem in masks]

    def stream() -> Iterator[Sample]:
        for item in asked:
            found = masks[item.stem]
            own = next((part for part in found if is_subject(part, host)), None)
            subject = None if own is None else partial(read_target_mask, found[own])
            questions = [SampleQuestion(whole, "object", host, subject)] if subject is not None else []
            questions += [
                SampleQuestion(concepts[part], "part", part, partial(read_target_mask, mask), subject)
                for part, mask in found.items()
                if not is_subject(part, host)
            ]
            yield Sample(item.name, item, tuple(questions))

    facts = {
        "path": str(root),
        "host": host,
        "pack": traits,
        "parts": parts,
        "pictures_without_masks": len(pictures) - len(asked),
    }
    return Dataset("folder", VERSION, stream, len(asked), whole, facts)


def _pictures(root: Path) -> list[Path]:
    """The pictures of a folder. Their names may hold ``__`` as masks' names do: ``INHS__001.jpg``."""
    apart = (root / "images").is_dir()
    found = sorted(item for item in (root / "images" if apart else root).iterdir() if is_picture(item) and not item.name.startswith("."))
    if apart:
        return found
    plain = {item.stem for item in found if "__" not in item.stem}
    owners = {item.stem.rpartition("__")[0] for item in found}
    # Beside masks it is a picture where it has masks of its own and is no mask of another picture.
    return [item for item in found if item.stem in plain or (item.stem in owners and item.stem.rpartition("__")[0] not in plain)]


# ------------------------------------------------------------------------------------------------------------- manifest


def _from_manifest(root: Path, host: str, traits: str | None) -> Dataset:
    rows = read_json(root / MANIFEST)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{root / MANIFEST} must be a list of rows with 'image', 'key' and 'mask'.")
    pictures: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        missing = [name for name in ("image", "key", "mask") if not isinstance(row, dict) or name not in row]
        if missing:
            raise DataError(f"{root / MANIFEST}: row {number} lacks {', '.join(missing)}.")
        if wrong := [name for name in ("image", "key", "mask", "query", "trait_query") if not isinstance(row.get(name, ""), str)]:
            raise DataError(f"{root / MANIFEST}: row {number}: {wrong[0]!r} is {str(row[wrong[0]])[:80]!r}, expected a text.")
        pictures.setdefault(row["image"], []).append(row)
    objects = [row for row in rows if row.get("level") == "object"]
    whole = Concept((objects[0].get("query", objects[0]["key"]) if objects else host_phrase(host),), name="host")

    # What rows do not say in words of their own.
    unsaid = {row["key"] for row in rows if "query" not in row and row.get("level") != "object" and not is_subject(row["key"], host)}
    concepts = part_concepts(sorted(unsaid), host, traits) if traits is not None else {}

    def stream() -> Iterator[Sample]:
        for image, own in pictures.items():
            yield Sample(image, root / image, tuple(question for row in own for question in _questions(root, row, own, concepts)))

    facts = {"path": str(root), "host": whole.target[0], "pack": traits, "parts": sorted({row["key"] for row in rows})}
    return Dataset("folder", VERSION, stream, len(pictures), whole, facts)


def _questions(root: Path, row: dict[str, Any], rows: list[dict[str, Any]], concepts: Mapping[str, Concept]) -> Iterator[SampleQuestion]:
    key = row["key"]
    subject = next((other for name in row.get("nested_in", ()) for other in rows if other["key"] == name), None)
    mask = partial(read_target_mask, root / row["mask"])
    host = partial(read_target_mask, root / subject["mask"]) if subject else None
    kind = "object" if row.get("level") == "object" else "part"
    concept = _concept(row.get("query", key.replace("_", " ")), row.get("contrast", ()), key)
    if kind == "part" and "query" not in row and key in concepts:
        concept = replace(concepts[key], name=key)
        if row.get("contrast"):
            concept = replace(_concept(key, row["contrast"], key), target=concept.target, templates=concept.templates)
    yield SampleQuestion(concept, kind, key, mask, host)
    if row.get("trait_query"):
        yield SampleQuestion(
            _concept(row["trait_query"], row.get("trait_contrast", ()), f"{key}: trait"),
            "state",
            f"{key}: trait",
            mask,
            host,
        )


def _concept(target: str, contrasts: Any, name: str) -> Concept:
    texts = (contrasts,) if isinstance(contrasts, str) else tuple(contrasts)
    return Concept((target,), tuple((text,) for text in texts), name=name)
