"""Data sets for evaluation: one file per layout, one table of loaders."""

from __future__ import annotations

from typing import Any

from concept_cam.core.documents import understood
from concept_cam.core.errors import DataError
from concept_cam.core.names import choose
from concept_cam.core.registry import Entry
from concept_cam.evaluation.datasets.samples import QUESTION_KINDS, Dataset, Points, Sample, SampleQuestion

__all__ = ["QUESTION_KINDS", "LOADERS", "Dataset", "Points", "SampleQuestion", "Sample", "load", "split_dataset_spec"]

_HERE = "concept_cam.evaluation.datasets"

LOADERS: dict[str, Entry] = {
    "synthetic": Entry(f"{_HERE}.synthetic:load", "rendered fish, butterflies, beetles or leaves with exact truth"),
    "folder": Entry(f"{_HERE}.folder:load", "pictures beside masks"),
    "coco": Entry(f"{_HERE}.coco:load", "COCO instances, of parts or of whole things"),
    "cvat": Entry(f"{_HERE}.cvat:load", "masks and polygons that people drew in CVAT"),
    "labelstudio": Entry(f"{_HERE}.labelstudio:load", "brush masks and polygons that people drew in Label Studio"),
    "fishvista": Entry(f"{_HERE}.fishvista:load", "Fish-Vista: traits of museum fish"),
    "cub": Entry(f"{_HERE}.cub:load", "CUB-200-2011: parts of birds as points"),
}
"""Layout -> its loader. Every loader but the synthetic one takes the path first, and all take ``limit``."""


def split_dataset_spec(spec: str) -> tuple[str, str | None]:
    """Splits ``NAME`` or ``NAME:PATH``.

    Raises:
        DataError: An unknown name.
    """
    name, colon, path = spec.partition(":")
    choose(name, LOADERS, "data set", DataError)
    return name, path if colon and path else None


def load(spec: str, *, limit: int | None = None, **options: Any) -> Dataset:
    """Opens a data set.

    Args:
        spec: ``"synthetic"``, ``"folder:PATH"``, ``"coco:parts.json"``, ``"fishvista:PATH"``, ``"cub:PATH"``.
        limit: Only so many pictures.
        **options: Of the layout: see its ``load``.

    Returns:
        The data set; pictures and masks are read while it is gone through.

    Raises:
        DataError: The name is unknown, a path is missing, an option does not belong to the layout, or the files are not as expected.
    """
    name, path = split_dataset_spec(spec)
    loader = LOADERS[name].load()
    if path is None and name != "synthetic":
        raise DataError(f"the data set {name!r} needs a path: {name}:PATH.")
    if path is not None and name == "synthetic":
        raise DataError(f"the synthetic data set is made, not read: it takes no path, received {path!r}.")
    arguments = () if path is None else (path,)
    try:
        with understood(path or name):
            dataset = loader(*arguments, **{key: value for key, value in options.items() if value is not None})
    except DataError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise DataError(f"the data set {name!r} does not have the option {str(error).split(chr(39))[1]!r}.") from None
    if not isinstance(dataset, Dataset):
        raise DataError(f"the loader of {name!r} returned {type(dataset).__name__}, expected a Dataset.")
    return dataset.limited(limit)
