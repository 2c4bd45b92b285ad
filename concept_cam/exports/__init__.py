"""Writes an annotation run in the formats of other tools.

``EXPORTS`` names the formats; each stands in a module of its own, which is loaded when it is used. Every export is written under a
temporary name and renamed when it is complete. Coordinates are those of the upright picture, after EXIF orientation, and every
format that has a place for it says so. Records that abstain are left out of the formats that other data sets are built from (COCO,
masks, Darwin Core, Audiovisual Core, Web Annotation); the long table and the formats that people look at and correct keep them.
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import concept_cam
from concept_cam.core.errors import MissingExtraError, OutputError
from concept_cam.core.names import choose
from concept_cam.core.registry import Entry

if TYPE_CHECKING:
    from concept_cam.collection.runs import Run

__all__ = ["EXPORTS", "FOLDER_FILE", "Export", "export"]

FOLDER_FILE = "export.json"
"""Stands in every folder that an export writes; only such a folder, or an empty one, is ever replaced."""


@dataclass(frozen=True)
class Export(Entry):
    """One format.

    Attributes:
        target: ``module:function``; the function takes an open run, the path to write and a :class:`~concept_cam.exports.survey.Form`.
        description: One line for people.
        suffix: Of the file that is written; empty when the format is a folder.
        extra: Extra of this package that the format needs besides pyarrow; empty when none.
        companion: Suffix of a second file that is written beside the first; empty when none.
    """

    suffix: str = ""
    extra: str = ""
    companion: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether the format is a folder of files."""
        return not self.suffix


_HERE = "concept_cam.exports"

EXPORTS: dict[str, Export] = {
    "coco": Export(f"{_HERE}.coco:write", "COCO instances, masks as run lengths", ".json"),
    "cvat": Export(
        f"{_HERE}.cvat:write",
        "CVAT for images 1.1: masks and tags to correct, and the labels for the task",
        ".xml",
        companion=".labels.json",
    ),
    "label-studio": Export(f"{_HERE}.labelstudio:write", "Label Studio: pre-annotated tasks and labelling config", ""),
    "audiovisual-core": Export(f"{_HERE}.audiovisual_core:write", "Audiovisual Core regions of interest (rectangles)", ".csv"),
    "darwin-core": Export(f"{_HERE}.darwin_core:write", "Darwin Core MeasurementOrFact", ".csv"),
    "darwin-core-extended": Export(f"{_HERE}.darwin_core:write_extended", "Extended MeasurementOrFact", ".csv"),
    "web-annotation": Export(f"{_HERE}.web_annotation:write", "W3C Web Annotation, fragment and SVG selectors", ".json"),
    "csv": Export(f"{_HERE}.long_table:write", "long table: one row per record, every column", ".csv"),
    "masks": Export(f"{_HERE}.masks:write", "one PNG mask per record, with an index", ""),
    "html": Export(f"{_HERE}.html:write", "contact sheet: pages and a folder of thumbnails", ""),
    "html-file": Export(f"{_HERE}.html:write_sheet", "contact sheet in one file, for an e-mail", ".html"),
}
"""Formats by name."""


def export(
    run: Run | str | Path, to: str, output: str | Path, overwrite: bool = False, *, corrections: bool | str | Path = True, **form: Any
) -> Path:
    """Writes a run in another format, with what people corrected.

    Args:
        run: An open run, or its folder.
        to: A name of :data:`EXPORTS`.
        output: File or folder to write; folders above it are made.
        overwrite: Replace what an earlier export wrote there.
        corrections: Apply the corrections beside the run (True), those of a file (its path), or none (False).
        **form: Fields of :class:`~concept_cam.exports.survey.Form`: ``base``, ``escape``, ``mark``.

    Returns:
        ``output``.

    Raises:
        ConfigurationError: Unknown format, or a name that is no field of the form.
        DataError: The run cannot be read.
        MissingExtraError: A library that the format needs is not installed.
        OutputError: The output exists and may not be replaced, or cannot be written.
    """
    chosen = choose(to, EXPORTS, "export format")
    path = Path(output)
    _check_output(path, to, chosen, overwrite)
    try:
        from concept_cam.collection.corrected import CorrectedRun, corrected
        from concept_cam.collection.runs import Run
        from concept_cam.exports.survey import Form

        names = [field.name for field in fields(Form)]
        for name in form:
            choose(name, dict.fromkeys(names), "field of an export's form")
        write = chosen.load()
    except MissingExtraError as error:
        raise MissingExtraError(error.library, error.extra, f"the export to {to!r}", error.package) from error
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name == "concept_cam":
            raise
        raise MissingExtraError(name, chosen.extra or "annotate", f"the export to {to!r}") from error
    opened = run if isinstance(run, Run) else Run.open(run)
    if corrections:
        opened = corrected(opened, None if corrections is True else corrections)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the last step is a rename within one file system.
        with TemporaryDirectory(prefix=f".{path.name[:40]}.", dir=path.parent) as scratch:
            fresh = Path(scratch) / "export"
            if chosen.is_folder:
                fresh.mkdir()
                notes = {"format": to, "package_version": concept_cam.__version__, "run": opened.name}
                (fresh / FOLDER_FILE).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
            write(opened, fresh, Form(**form))
            if chosen.is_folder and path.is_dir():
                shutil.rmtree(path)
            if chosen.companion:
                # First: a file whose companion is missing would look complete.
                fresh.with_name(fresh.name + chosen.companion).replace(companion_path(path, chosen))
            fresh.replace(path)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}. Choose another --output, or make room or rights there.") from error
    for said in opened.not_carried() if isinstance(opened, CorrectedRun) else ():
        warnings.warn(said, UserWarning, stacklevel=2)
    return path


def companion_path(path: Path, chosen: Export) -> Path:
    """Returns where the companion of an export stands: ``instances.xml`` has ``instances.labels.json``."""
    return path.with_name(path.name.removesuffix(chosen.suffix) + chosen.companion)


def _check_output(path: Path, to: str, chosen: Export, overwrite: bool) -> None:
    if not path.name:
        raise OutputError(f"the output {str(path)!r} has no name; expected a new file or folder.")
    if chosen.companion and companion_path(path, chosen).exists() and not overwrite:
        raise OutputError(f"{companion_path(path, chosen)} exists. Name another output, or allow it to be replaced with --overwrite.")
    if not path.exists():
        return
    if path.is_dir() != chosen.is_folder:
        kind, found = ("folder", "file") if chosen.is_folder else (f"file such as 'traits{chosen.suffix}'", "folder")
        raise OutputError(f"the export to {to!r} writes a {kind}, but {path} is a {found}.")
    if path.is_dir() and not any(path.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"{path} exists. Name another output, or allow it to be replaced with --overwrite.")
    if path.is_dir() and not (path / FOLDER_FILE).is_file():
        raise OutputError(f"{path} was not written by an export (it has no {FOLDER_FILE}) and is not replaced. Name another output.")
