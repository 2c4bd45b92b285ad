"""Boxes and masks that stand beside a collection: specimens of trays and drawers, and what must not be read (labels, rulers).

Boxes are ``x, y, width, height`` in original pixels. Files of boxes are CSV tables with a column that names the picture as the collection's
``source`` does, by the path of its file, or by its file name alone where that can mean no other picture; see :meth:`BoxFile.of`. Rows and
masks that are of no picture are told, see :class:`Taken` and :class:`TakenMasks`.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import unquote

import numpy as np

from concept_cam.collection.inputs.columns import missing_column, picture_column
from concept_cam.collection.inputs.files import filesystem
from concept_cam.collection.inputs.items import Collection, Item, Specimen, is_url
from concept_cam.core.errors import ConfigurationError, DataError, ImageError, reason_of
from concept_cam.core.names import display, path_of
from concept_cam.core.tables import read_header, rows_of, unescaped
from concept_cam.pictures.endings import PICTURE_SUFFIXES, is_picture
from concept_cam.pictures.folders import walk

__all__ = ["BoxFile", "Ignored", "Taken", "TakenMasks", "mask_in", "open_boxes", "open_ignored", "parse_boxes", "read_specimen_mask"]

Box = tuple[float, float, float, float]

BOX_COLUMNS = ("x", "y", "width", "height")

_RENAME = "Expected a header of file, x, y, width, height: rename the columns."


def parse_boxes(text: str) -> list[Box]:
    """Reads one or several boxes from a cell: ``"10 20 300 200"``, ``"10,20,300,200"``, ``[10, 20, 300, 200]`` or a JSON list of such
    lists.

    Raises:
        ImageError: The text is something else; it concerns this row alone.
    """
    found = text.strip()
    try:
        values: Any = json.loads(found) if found.startswith("[") else [float(part) for part in re.split(r"[\s,;]+", found) if part]
        boxes = values if values and isinstance(values[0], list) else [values]
        return [_box(box) for box in boxes]
    except ImageError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ImageError(
            f"the box {text[:200]!r} cannot be read: expected x, y, width and height in pixels, such as '10 20 300 200'."
        ) from error


def mask_in(text: str, root: str | None) -> str | None:
    """Returns the mask of a table's cell: an encoding, or a path, which stands in ``root`` as the pictures' paths do; empty is ``None``.

    A path that is not there but is from the working directory, where masks used to be looked up, is kept as it is.
    """
    if not text:
        return None
    if root is None or _is_encoded(text) or is_url(text):
        return text
    path = os.path.join(root, text)
    return text if not os.path.exists(path) and os.path.exists(text) else path


def _is_encoded(mask: str) -> bool:
    return mask.lstrip().startswith("{")


def _box(values: Sequence[Any]) -> Box:
    x, y, width, height = (float(value) for value in values)
    if not all(np.isfinite([x, y, width, height])) or width <= 0 or height <= 0:
        raise ValueError("not a box")
    if width <= 1 and height <= 1 and max(abs(x), abs(y)) <= 1:
        raise ImageError(
            f"the box x={x:g} y={y:g} width={width:g} height={height:g} is one pixel at most: it looks like shares of the picture (0..1). "
            "Expected pixels of the upright picture: multiply by its width and height."
        )
    return x, y, width, height


@dataclass(frozen=True)
class BoxFile:
    """Boxes by picture.

    Attributes:
        boxes: Source (or path, or file name) -> specimens, in the order of the file.
        path: The file.
        places: Absolute path or address -> the names among ``boxes`` that mean it, seen from the file's folder or the working directory.
        option: The option that named the file, for messages.
        linked: Path without links -> the names among ``boxes`` that lead to it; empty where files are told by their plain paths.
    """

    boxes: Mapping[str, tuple[Specimen, ...]]
    path: str
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    option: str = "--boxes"
    linked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, item: Item) -> tuple[Specimen, ...]:
        """Returns the boxes of a picture: of the rows that name its source or its file, else of those that give its file name alone.

        A bare file name is the whole name of a picture that stands directly in the collection's folder: where there is such a file, the row
        is for it, and pictures of the same name in subfolders have none. The answer follows from the file names alone, so that neither the
        order of the pictures nor shards change it. Pictures of one name in several subfolders all get the row; :meth:`check` refuses these.
        """
        return tuple(box for name in self.names(item) for box in self.boxes[name])

    def check(self, collection: Collection) -> Self:
        """Refuses rows that can mean several pictures of the collection, and a file that means none; warns of single rows that mean none.

        Lists the collection; containers, which hold the pictures themselves, are not read for it: their rows are told when they were.

        Returns:
            The table as it is to be used with this collection: rows that no plain path matches are compared without links.

        Raises:
            DataError: A row can mean two pictures, and the message names both; or no row means any.
        """
        if not self.boxes:
            return self
        if collection.layout in CONTAINERS:  # a Parquet table may be one of paths; archives hold none
            return self._following(self.boxes) if collection.layout == "parquet" else self
        file, taken = self, self._taken(collection)
        # Following links costs every picture some looks at the disk: only where it finds a picture for a row.
        if taken.left and (linked := self._following(taken.left)).linked:
            again = linked._taken(collection)
            if len(again.left) < len(taken.left):
                file, taken = linked, again
        taken.tell()
        return file

    def _following(self, names: Iterable[str]) -> Self:
        """Returns the table with the places of some names as they are without links."""
        wanted = set(names)
        found: dict[str, tuple[str, ...]] = {}
        for place, meaning in self.places.items():
            if not (own := [name for name in meaning if name in wanted]) or is_url(place):
                continue
            if real := _without_links(place):
                found[real] = tuple(dict.fromkeys((*found.get(real, ()), *own)))
        return replace(self, linked=found)

    def _taken(self, collection: Collection) -> Taken:
        """Returns which rows the pictures of a collection take.

        Raises:
            DataError: A row can mean two of them.
        """
        taken = Taken(self)
        owners: dict[str, tuple[str, str]] = {}
        for item in collection.items():
            for name in taken.add(item):
                if name == item.source and "/" not in name:
                    continue
                # One file may be listed under several names: that is no doubt about whose row it is.
                source, file = owners.setdefault(name, (item.source, item.path or item.source))
                if file != (item.path or item.source):
                    raise DataError(
                        f"the row {name!r} of {self.path!r} can mean {source!r} or {item.source!r}: name the picture with its folder, "
                        "as here."
                    )
        return taken

    def names(self, item: Item) -> tuple[str, ...]:
        """Returns the names under which a picture's rows stand."""
        own = (item.source,) if item.source in self.boxes else ()
        path = _local(item.path)[0] if item.path else ""
        meant = self.places.get(path, ())
        if self.linked and path and not is_url(path) and (real := _without_links(path)):
            meant = (*meant, *self.linked.get(real, ()))
        if found := (*own, *(name for name in dict.fromkeys(meant) if name != item.source and not _is_of_another(name, item))):
            return found
        name = os.path.basename(item.source)
        return (name,) if name in self.boxes and not _is_of_another(name, item) else ()


class Taken:
    """Which rows of a table of boxes the pictures took, and which none did.

    It is to be shown every picture of the collection, those of other shards and those that are done too: what is left is nobody's.

    Args:
        file: The table.
    """

    def __init__(self, file: BoxFile) -> None:
        self._file = file
        self._left = dict.fromkeys(file.boxes)
        self._sources: list[str] = []

    def add(self, item: Item) -> tuple[str, ...]:
        """Takes a picture's rows off; returns the names under which they stand."""
        names = self._file.names(item)
        for name in names:
            self._left.pop(name, None)
        if len(self._sources) < SHOWN and item.source not in self._sources:
            self._sources.append(item.source)
        return names

    @property
    def left(self) -> Sequence[str]:
        """The names that no picture has."""
        return list(self._left)

    def tell(self, done: bool = False) -> None:
        """Warns of the rows that no picture took.

        Args:
            done: The work is done; a table that was of no use is no reason to lose it.

        Raises:
            DataError: None was taken at all, and nothing is done yet.
        """
        if not self._left or not self._sources:  # a collection without pictures is refused for that
            return
        boxes, file = self._file.boxes, self._file
        told = ", ".join(repr(display(name)) for name in list(self._left)[:SHOWN])
        wanted = (
            f"The pictures are called, for example, {', '.join(repr(display(source)) for source in self._sources)}. Expected such names "
            "(column 'source' of a run), paths of the files, or file names alone."
        )
        if len(self._left) == len(boxes):
            none = f"{file.option}: no row of {file.path!r} names a picture of this input, so nothing of it"
            if not done:
                raise DataError(f"{none} would be used. Its rows name {told}. {wanted}")
            warnings.warn(
                f"{none} was used: the result is as without {file.option}. Its rows name {told}. {wanted} Name the pictures so and do it "
                "again, into another folder.",
                UserWarning,
                stacklevel=2,
            )
            return
        rows = sum(len(boxes[name]) for name in self._left)
        warnings.warn(
            f"{file.option}: {rows} of {sum(map(len, boxes.values()))} rows of {file.path!r} name no picture of this input and are not "
            f"used, such as {told}. {wanted}",
            UserWarning,
            stacklevel=2,
        )


class TakenMasks:
    """Which masks of a folder are those of pictures, and which are of none; shown every picture as :class:`Taken` is.

    Args:
        ignored: What holds the folder.
    """

    def __init__(self, ignored: Ignored) -> None:
        self._ignored = ignored
        self._left = dict.fromkeys(str(Path(file)) for file in walk(ignored.folder or "", PICTURE_SUFFIXES))
        self._count = len(self._left)
        self._used = False
        self._sources: list[str] = []

    def add(self, item: Item) -> None:
        """Takes a picture's masks off, also those among which it cannot choose: its own entry says so."""
        named = self._ignored.named_after(item)
        self._used = self._used or any(os.path.isfile(path) for path in named)  # one may stand outside: ../a.png
        for path in named:
            self._left.pop(str(path), None)
        if len(self._sources) < SHOWN and item.source not in self._sources:
            self._sources.append(item.source)

    def tell(self, done: bool = False) -> None:
        """Warns of the masks that are of no picture.

        Args:
            done: The work is done; a folder that was of no use is no reason to lose it.

        Raises:
            DataError: None is of any picture, and nothing is done yet.
        """
        if not self._sources or (self._used and not self._left):  # a collection without pictures is refused for that
            return
        folder = str(self._ignored.folder)
        expected = "Expected the picture's relative path, whole (a.jpg.png) or with another ending (a.png)"
        wanted = f"{expected}; the pictures are called, for example, {', '.join(repr(display(source)) for source in self._sources)}."
        if not self._used:
            none = f"--ignore: no mask in {folder!r} is named after a picture of the collection, so nothing"
            if not done:
                raise DataError(f"{none} would be ignored. {wanted}")
            again = "Name the masks so and do it again, into another folder."
            warnings.warn(f"{none} was ignored: the result is as without --ignore. {wanted} {again}", UserWarning, stacklevel=2)
            return
        told = ", ".join(repr(display(os.path.relpath(path, folder))) for path in list(self._left)[:SHOWN])
        warnings.warn(
            f"--ignore: {len(self._left)} of {self._count} masks in {folder!r} are named after no picture of this input and are not "
            f"used, such as {told}. {wanted}",
            UserWarning,
            stacklevel=2,
        )


SHOWN = 3
"""Most names that a message shows."""

FILE_SCHEME = "file://"

CONTAINERS = ("parquet", "webdataset")
"""Layouts in which listing the pictures means reading them."""


def _is_of_another(name: str, item: Item) -> bool:
    """Tells whether a bare file name is that of a file directly in the folder that the item's source is relative to, and not the item's
    own.

    Raises:
        ImageError: The folder is remote and cannot be looked into.
    """
    if item.path is None:
        return False
    if not is_url(item.path):
        source = os.path.normpath(item.source)
        root = item.path.removesuffix(os.sep + source)
        return source != name and root != item.path and os.path.isfile(root + os.sep + name)
    root = item.path.removesuffix("/" + item.source)
    if root == item.path:  # a URL of a list: its source is no relative one
        return False
    address = f"{root}/{name}"
    try:
        fs, path = filesystem(address)
        return bool(fs.exists(path))
    except Exception as error:  # every file system has its own errors
        raise ImageError(f"cannot tell whether the boxes of {name!r} are those of {address!r}: {type(error).__name__}: {error}.") from error


def open_boxes(path: str, option: str = "--boxes") -> BoxFile:
    """Reads a table of boxes: a column that names the picture, ``x``, ``y``, ``width``, ``height``; other columns are carried through.

    Args:
        path: The table.
        option: The option that named it, for messages.

    Raises:
        DataError: A column is missing, or a row is no box.
    """
    header, _ = read_header(path)
    name = picture_column(header, ("source",))
    if name is None:
        raise missing_column("column that names the picture (such as 'file')", f"the table of boxes {path!r}", header, _RENAME)
    missing = [column for column in BOX_COLUMNS if column not in header]
    if missing:
        raise missing_column(f"columns {missing}", f"the table of boxes {path!r}", header, _RENAME)
    boxes: dict[str, list[Specimen]] = {}
    for line, row in rows_of(path):
        try:
            box = _box([row[column] for column in BOX_COLUMNS])
        except ImageError as error:
            raise DataError(f"{path!r}, line {line}: {error}") from None
        except (ValueError, TypeError, OverflowError):
            cells = [row[column][:80] for column in BOX_COLUMNS]
            raise DataError(f"{path!r}, line {line}: {cells} is no box (x, y, width, height in pixels).") from None
        carried = {key: value for key, value in row.items() if key not in (name, *BOX_COLUMNS)}
        boxes.setdefault(unescaped(row[name]).replace(os.sep, "/"), []).append(Specimen(box, columns=carried))
    return BoxFile({key: tuple(found) for key, found in boxes.items()}, path, _places(boxes, os.path.dirname(path)), option)


def _local(address: str) -> list[str]:
    """Returns the paths that an address ``file://...`` can mean, as it is read first; what else there is as it stands.

    Such addresses are read with percent signs as they stand, and written by others with percent signs for what is no letter.
    """
    if address[: len(FILE_SCHEME)].lower() != FILE_SCHEME:
        return [address]
    path = address[len(FILE_SCHEME) :].removeprefix("localhost")
    return [display(os.path.abspath(text)) for text in dict.fromkeys((path, unquote(path, errors="surrogateescape")))]


def _without_links(path: str) -> str | None:
    """Returns a path that was made for showing as it is without links, made for showing too; ``None`` for what can be no path."""
    try:
        return display(os.path.realpath(path_of(path)))
    except (OSError, ValueError):
        return None


def _places(names: Iterable[str], folder: str) -> Mapping[str, tuple[str, ...]]:
    """Returns the files that names with a folder, or addresses, mean; paths are seen from ``folder`` and from the working directory.

    They are made here and not where a picture asks, which may be on another machine with a working directory of its own.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        if is_url(name):
            places = _local(name)
        elif "/" in name:
            places = [display(os.path.abspath(place)) for place in (os.path.join(folder, name), name)]
        else:  # a bare name has a rule of its own
            continue
        for place in dict.fromkeys(places):
            found[place] = (*found.get(place, ()), name)
    return found


@dataclass(frozen=True)
class Ignored:
    """What of each picture must not be read.

    Attributes:
        boxes: Boxes by picture, from a table.
        folder: Folder of mask pictures of any format under the pictures' own relative names, whole (``a.jpg.png``) or with another ending
            (``a.tif``); anything but black and transparent is ignored.
    """

    boxes: BoxFile | None = None
    folder: str | None = None

    def check(self, collection: Collection) -> Self:
        """See :meth:`BoxFile.check`; and refuses a mask that would be that of two pictures of one name in several folders.

        Returns:
            What is to be used with this collection.

        Raises:
            DataError: A row, or a mask, can mean two pictures, and the message names both; or no row, or mask, means any.
        """
        if self.boxes is not None:
            return replace(self, boxes=self.boxes.check(collection))
        if self.folder is None:
            return self
        if collection.layout not in CONTAINERS:
            taken = TakenMasks(self)
            for item in collection.items():
                taken.add(item)
            taken.tell()
        if collection.layout not in ("list", "table", "glob"):
            return self
        owners: dict[str, str] = {}
        for item in collection.items():
            if not Path(item.source).is_absolute():
                continue
            owner = owners.setdefault(Path(item.source).name, item.source)
            if owner != item.source and self._mask_file(item) is not None:
                raise DataError(
                    f"--ignore: the mask {str(self._mask_file(item))!r} can mean {owner!r} or {item.source!r}: "
                    "give the folder they stand in (--root) and paths relative to it."
                )
        return self

    def mask(self, item: Item, size: tuple[int, int]) -> np.ndarray | None:
        """Returns bool [H, W], original frame, True where nothing may be read; ``None`` where all may.

        Raises:
            ImageError: A mask cannot be read or has another size.
        """
        masks = []
        if self.boxes is not None and (found := self.boxes.of(item)):
            painted = np.zeros(size, dtype=bool)
            for specimen in found:
                x, y, width, height = specimen.box or (0, 0, 0, 0)
                if x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0:
                    raise ImageError(
                        f"the box x={x:g} y={y:g} width={width:g} height={height:g} of --ignore lies outside the upright picture of "
                        f"{size[1]} x {size[0]} pixels, so nothing would be ignored."
                    )
                left, top = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
                painted[top : max(0, int(np.ceil(y + height))), left : max(0, int(np.ceil(x + width)))] = True
            masks.append(painted)
        if self.folder is not None and (path := self._mask_file(item)) is not None:
            masks.append(read_specimen_mask(str(path), size))
        if not masks:
            return None
        return cast("np.ndarray | None", np.logical_or.reduce(masks))

    def named_after(self, item: Item) -> list[Path]:
        """Returns every mask that bears a picture's name, whole or by its stem; one of them, at most, is used."""
        base = self._base(item)
        beside = _by_stem(base.parent)
        return [base.with_name(name) for name in dict.fromkeys((base.name, *beside.get(base.name, ()), *beside.get(base.stem, ())))]

    def _base(self, item: Item) -> Path:
        """Returns where a mask of a picture's own name would stand."""
        return Path(self.folder or "") / (item.source if not Path(item.source).is_absolute() else Path(item.source).name)

    def _mask_file(self, item: Item) -> Path | None:
        base = self._base(item)
        beside = _by_stem(base.parent)
        # A mask under the picture's whole name is this picture's; one under its stem is that of any picture with the stem.
        own = [base.name] if os.path.isfile(base) else beside.get(base.name, [])
        found = own or beside.get(base.stem, [])
        if not found:
            return None
        if len(found) > 1:
            raise ImageError(f"{found[0]!r} and {found[1]!r} in {str(base.parent)!r} can both be the mask of {item.source!r}: keep one.")
        path = base.with_name(found[0])
        if path.stem == base.stem and (other := self._namesake(item)) is not None:
            if path.name == base.name and (base.with_name(other).is_file() or other in beside):
                return path  # each has a mask under its whole name
            raise ImageError(
                f"the mask {str(path)!r} can be that of {item.source!r} or of {other!r}: name it after the whole file, "
                f"{base.name + '.png'!r}."
            )
        return path

    def _namesake(self, item: Item) -> str | None:
        """Returns the picture beside this one that differs in its ending only, where there is one."""
        if item.path is None or is_url(item.path):
            return None
        place = Path(item.path)
        endings = {ending for known in PICTURE_SUFFIXES for ending in (known, known.upper())} - {place.suffix}
        same = (place.with_suffix(ending) for ending in sorted(endings))
        return next((path.name for path in same if path.is_file() and not path.samefile(place)), None)


def _by_stem(folder: Path) -> Mapping[str, list[str]]:
    """Returns the pictures that stand in a folder, by their names without the ending."""
    try:
        return _listed(str(folder), folder.stat().st_mtime_ns)
    except (OSError, ValueError):  # no such folder, or no name of one: the collection has folders that need no masks
        return {}


@lru_cache(maxsize=64)
def _listed(folder: str, _changed: int) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        if is_picture(name) and not name.startswith("."):
            found.setdefault(os.path.splitext(name)[0], []).append(name)
    return found


def open_ignored(text: str) -> Ignored:
    """Opens what ``--ignore`` names: a folder of mask pictures, or a CSV table of boxes.

    Raises:
        ConfigurationError: It is neither.
    """
    if os.path.isdir(text):
        return Ignored(folder=text)
    if os.path.isfile(text):
        return Ignored(boxes=open_boxes(text, "--ignore"))
    raise ConfigurationError(
        f"--ignore {text!r} is neither a folder of mask pictures nor a CSV table of boxes (file, x, y, width, height)."
    )


def read_specimen_mask(value: str | Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Reads a mask: a COCO run-length encoding (mapping or JSON text), or the path of a picture that is black or transparent outside.

    Args:
        value: The mask.
        size: ``(H, W)`` that it must have.

    Returns:
        bool [H, W].

    Raises:
        ImageError: The mask cannot be read or has another size.
    """
    from concept_cam.core.regions import decode_rle
    from concept_cam.pictures.masks import read_mask_picture

    if isinstance(value, str) and not _is_encoded(value):
        mask = read_mask_picture(value)
    else:
        try:
            rle = json.loads(value) if isinstance(value, str) else value
            given = tuple(int(side) for side in rle["size"])
            # Before it is decoded: run lengths are a few bytes for any number of pixels.
            mask = decode_rle(rle) if given == tuple(size) else np.broadcast_to(np.False_, given)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, MemoryError) as error:
            raise ImageError(f"the mask is no COCO run-length encoding: {reason_of(error)}.") from error
    if mask.shape != tuple(size):
        raise ImageError(f"the mask is {mask.shape[0]} x {mask.shape[-1]}, the upright picture {size[0]} x {size[1]} (rows x columns).")
    return np.asarray(mask, dtype=bool)
