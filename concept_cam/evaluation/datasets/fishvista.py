"""Fish-Vista's segmentation set (Mehrab et al., CVPR 2025) in the layout published on Hugging Face (``imageomics/fish-vista``).

Museum fish on white, nine traits drawn by people. The layout::

    segmentation_train.csv, segmentation_val.csv, segmentation_test.csv, segmentation_data.csv
    segmentation_masks/seg_id_trait_map.json     {"0": "Background", "1": "Head", ...}
    segmentation_masks/images/<stem>.png         every pixel holds a trait's number
    Images/<filename> or Images/chunk_*/<filename>, AllImages/<filename>
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import DataError
from concept_cam.core.tables import rows_of
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion, part_concepts, read_number_picture

__all__ = ["PRESENCE_COLUMNS", "load"]

VERSION = "1"

PRESENCE_COLUMNS: dict[str, str] = {
    "adipose_fin": "adipose_fin",
    "pelvic_fin": "pelvic_fin",
    "barbel": "barbels",
}
"""Presence column of the tables -> presence character of the fish pack: 1 present, 0 absent, -1 or empty unknown."""

WHITE = 245


def load(path: str | Path, split: str = "test", traits: str = "fish") -> Dataset:
    """Opens the segmentation set.

    Every trait that is drawn in a picture is a ``part`` question against the other traits and the fish. Where the table has presence
    columns, they are ``presence`` questions. The host is what is not white (holes filled), the background having been removed by the
    authors. Pictures that are missing (those under no-derivatives licences are fetched by a script of theirs) are left out and counted.

    Args:
        path: The cloned data set.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"data"`` (all).
        traits: Trait pack with the prompts.

    Raises:
        DataError: The layout is not as published, or no picture is there.
    """
    root = Path(path)
    table, masks = root / f"segmentation_{split}.csv", root / "segmentation_masks"
    names = _trait_names(masks / "seg_id_trait_map.json")
    rows = _rows(table)
    places = _pictures(root)
    here = [(row, places[row["filename"]]) for row in rows if row["filename"] in places]
    if not here:
        raise DataError(f"none of the {len(rows)} pictures of {table.name} is under {root / 'Images'}: unpack them there.")
    concepts = part_concepts(list(names.values()), "fish", traits, alias="fishvista")
    pack = prompts.load_pack(traits)
    presence = {
        column: prompts.concepts(pack, character, "present")[0]
        for column, character in PRESENCE_COLUMNS.items()
        if any(item.name == character for item in pack.characters)
    }
    whole = Concept(pack.host_phrases, name="host")

    def stream() -> Iterator[Sample]:
        for row, picture in here:
            mask = masks / "images" / f"{Path(row['filename']).stem}.png"
            numbers = read_number_picture(mask)
            host = partial(_host, picture, mask)
            drawn = set(np.unique(numbers).tolist())
            questions = [
                SampleQuestion(concepts[name], "part", name, partial(_trait_mask, mask, number), host)
                for number, name in names.items()
                if number in drawn
            ]
            for column, concept in presence.items():
                answer = row.get(column, "").strip()
                if answer in ("0", "0.0", "1", "1.0"):
                    questions.append(SampleQuestion(concept, "presence", column, host=host, present=answer.startswith("1")))
            yield Sample(row["filename"], picture, tuple(questions))

    facts = {
        "path": str(root),
        "split": split,
        "traits": list(names.values()),
        "missing_pictures": len(rows) - len(here),
        "host": "fish",
    }
    return Dataset("fishvista", VERSION, stream, len(here), whole, facts)


def _trait_names(path: Path) -> dict[int, str]:
    content = read_json(path)
    with understood(f"{path}, which should map a trait's number in the masks to its name,"):
        names = {int(number): str(name) for number, name in content.items()}
    return {number: name for number, name in names.items() if name.lower() != "background"}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"{path} is not there. Splits are train, val, test and data.")
    rows = [row for _, row in rows_of(str(path))]
    if not rows or "filename" not in rows[0]:
        raise DataError(f"{path} has no column 'filename': it is not a table of Fish-Vista.")
    owners: dict[str, str] = {}
    for row in rows:
        stem = Path(row["filename"]).stem
        if owners.setdefault(stem, row["filename"]) != row["filename"]:
            raise DataError(f"{path}: the mask of {stem!r} can be that of {owners[stem]!r} or of {row['filename']!r}.")
    return rows


def _pictures(root: Path) -> dict[str, Path]:
    """File name -> path, over the flat folder and the chunks."""
    found: dict[str, Path] = {}
    for top in ("AllImages", "Images"):
        for folder, _, files in os.walk(root / top):
            found.update({name: Path(folder) / name for name in files})
    return found


def _trait_mask(path: Path, number: int) -> npt.NDArray[np.bool_]:
    return np.asarray(read_number_picture(path) == number)


def _host(picture: Path, mask: Path) -> npt.NDArray[np.bool_]:
    from concept_cam.pictures.reading import read_image

    pixels = read_image(picture).pixels
    drawn = read_number_picture(mask) > 0
    if drawn.shape != pixels.shape[:2]:
        raise DataError(f"{mask} is {drawn.shape}, its picture {pixels.shape[:2]} (rows, columns).")
    return np.asarray(ndimage.binary_fill_holes((pixels < WHITE).any(axis=2) | drawn))
