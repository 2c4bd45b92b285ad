"""Which pictures are served, under names that a client cannot bend: ids made of hashes, never paths.

A gallery is made from a folder of pictures, an annotation run or a feature index; pictures that people drop on the page join it in memory.
No file is sent as it is: pictures are decoded and encoded anew, so that what is no picture never leaves the machine and positions and
serial numbers in metadata stay at home.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.collection.inputs.entries import is_index
from concept_cam.collection.inputs.files import walk
from concept_cam.collection.run_folder import PARTS_FOLDER, RUN_FILE
from concept_cam.collection.schema import image_key
from concept_cam.core.errors import DataError, ImageError, OtherPictureError
from concept_cam.core.names import display, file_of, stable_key
from concept_cam.pictures.again import read_again
from concept_cam.pictures.endings import PICTURE_SUFFIXES
from concept_cam.pictures.reading import Picture, read_image

if TYPE_CHECKING:
    from concept_cam.collection.runs import Run
    from concept_cam.core.features import PatchFeatures
    from concept_cam.index import Index

__all__ = ["GalleryPicture", "Gallery", "Unknown", "encode_picture", "open_gallery"]

UPLOAD_BYTES = 25 * 2**20
"""Largest file that may be dropped on the page."""

UPLOAD_PIXELS = 40_000_000
"""Most pixels of such a file; checked before anything is decoded."""

UPLOADS_KEPT = 256 * 2**20
"""Bytes of dropped files that are kept in memory, the newest; older ones are forgotten."""

SIDES = (160, 512, 1024, 1600)
"""Longest sides at which pictures are sent."""


class Unknown(DataError):
    """There is no such picture."""


@dataclass(frozen=True)
class GalleryPicture:
    """One picture, or one specimen of it: what is asked, shown and corrected. Its frame is the specimen's box where it has one.

    Attributes:
        id: 24 hexadecimal digits.
        source: Name of the picture in the run, the folder or the index.
        path: The file; ``None`` for what is held in memory.
        position: Row of the feature index; -1 elsewhere.
        specimen: Number of the specimen.
        box: ``(x, y, width, height)`` of the specimen in pixels of the picture; ``None`` for a whole picture.
        whole: ``(H, W)`` of the whole picture, where there is a box.
        sha256: Of the file that the run or the index is about; ``None`` in a folder, or where nobody kept it.
    """

    id: str
    source: str
    path: str | None
    position: int = -1
    specimen: int = 0
    box: tuple[int, int, int, int] | None = None
    whole: tuple[int, int] = (0, 0)
    sha256: str | None = None

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.source if self.box is None else f"{self.source} #{self.specimen}"


class Gallery:
    """The pictures of one folder, run or index.

    Attributes:
        kind: ``"folder"``, ``"run"``, ``"index"`` or ``"empty"``.
        title: Name for people.
        home: Folder in which corrections are kept by default.
        run: The run, where there is one.
        index: The feature index, where there is one.
        absent: Pictures of the run that are not on this machine, by name; they are not shown.
    """

    def __init__(
        self,
        kind: str,
        title: str,
        home: Path,
        entries: list[GalleryPicture],
        roots: tuple[Path, ...],
        run: Run | None = None,
        index: Index | None = None,
        max_pixels: int = 200_000_000,
        absent: Sequence[str] = (),
    ) -> None:
        self.absent = tuple(absent)
        self.kind, self.title, self.home, self.run = kind, title, home, run
        self._entries = {entry.id: entry for entry in entries}
        self._places = {(entry.source, entry.specimen): entry for entry in entries}
        # A picture of several specimens can be asked as a whole too, by those who know no specimens; it is not in the list.
        wholes = {entry.source: _whole(entry) for entry in entries if entry.box is not None}
        self._wholes = {entry.id: entry for entry in wholes.values()}
        self.index = index
        self._roots, self._max_pixels = tuple(root.resolve() for root in roots), max_pixels
        self._uploads: OrderedDict[str, tuple[GalleryPicture, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._calls: dict[str, dict[tuple[str, str, int, str], dict[str, Any]]] | None = None

    # ----------------------------------------------------------------------------------------------------------- which

    @property
    def entries(self) -> list[GalleryPicture]:
        """Every picture in order, dropped ones first."""
        with self._lock:
            dropped = [entry for entry, _ in reversed(self._uploads.values())]
        return [*dropped, *self._entries.values()]

    def __len__(self) -> int:
        return len(self._entries) + len(self._uploads)

    def get(self, id_: str) -> GalleryPicture:
        """Returns a picture by its id.

        Raises:
            Unknown: There is none.
        """
        with self._lock:
            if id_ in self._uploads:
                return self._uploads[id_][0]
        try:
            return self._entries[id_] if id_ in self._entries else self._wholes[id_]
        except KeyError:
            raise Unknown(f"there is no picture {id_[:40]!r} here: ask GET /api/pictures for the ids.") from None

    def by_source(self, source: str) -> GalleryPicture | None:
        """Returns a whole picture by its name, where there is one."""
        id_ = image_key(source)
        return self._entries.get(id_, self._wholes.get(id_))

    def by_specimen(self, source: str, specimen: int) -> GalleryPicture | None:
        """Returns a specimen of a picture, or the picture where it is one, by name and number."""
        known = self._places.get((source, specimen))
        return known or next((entry for entry in self.entries[: len(self._uploads)] if entry.source == source), None)

    @property
    def wholes(self) -> list[GalleryPicture]:
        """Every picture as a whole, in order."""
        return [*(entry for entry in self.entries if entry.box is None), *self._wholes.values()]

    # ------------------------------------------------------------------------------------------------------------ read

    def read(self, entry: GalleryPicture) -> Picture:
        """Reads a picture.

        Raises:
            ImageError: It is missing, damaged, too large, a link that leads out of the folder, or another one than that which the run or
                the index is about.
        """
        if entry.path is None:
            with self._lock:
                kept = self._uploads.get(entry.id)
            if kept is None:
                if entry.id in self._entries:
                    raise ImageError(f"the picture {entry.source!r} is not on this machine: mount it where it was when it was encoded.")
                raise ImageError(f"the picture {entry.source!r} is no longer held: drop it on the page again.")
            return read_image(_named(kept[1], entry.source.partition("/")[2]), max_pixels=UPLOAD_PIXELS)
        path = Path(entry.path)
        if not any(path.resolve().is_relative_to(root) for root in self._roots):
            raise ImageError(f"{entry.source!r} leads out of the folder that is served.")
        try:
            picture = read_again(path, entry.sha256, max_pixels=self._max_pixels)
        except OtherPictureError:
            # What is known of the old one must not stand beside it, and no correction of the new one be kept for the old.
            raise ImageError(
                f"{entry.source!r} is no longer the file that this {self.kind} is about: it was replaced or changed since; new metadata "
                "count as a change. Put the old one back, or do again what was done with the pictures."
            ) from None
        if entry.box is None:
            return picture
        if picture.size != entry.whole:
            raise ImageError(
                f"{entry.source!r} has {picture.size[1]} x {picture.size[0]} pixels; when its specimens were found it had "
                f"{entry.whole[1]} x {entry.whole[0]}: another picture stands there."
            )
        left, top, width, height = entry.box
        return replace(picture, pixels=np.ascontiguousarray(picture.pixels[top : top + height, left : left + width]))

    def version(self, entry: GalleryPicture) -> tuple[int, int] | None:
        """Returns what changes whenever a picture's file is written; ``None`` where it is in memory or cannot be reached."""
        try:
            found = os.stat(entry.path) if entry.path is not None else None
        except (OSError, ValueError):
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size)

    def features(self, entry: GalleryPicture) -> PatchFeatures | None:
        """Returns the stored features of a picture of an index, or ``None``."""
        return self.index.features(entry.position) if self.index is not None and entry.position >= 0 else None

    def add(self, payload: bytes, name: str) -> GalleryPicture:
        """Takes a dropped picture into memory; one that is held already keeps the name under which it was corrected.

        Raises:
            ImageError: It is too large or no picture.
        """
        if len(payload) > UPLOAD_BYTES:
            raise ImageError(f"the picture has {len(payload):,} bytes, more than the limit of {UPLOAD_BYTES:,}.")
        clean = "".join(letter for letter in display(os.path.basename(name))[:120] if letter.isprintable()) or "picture"
        try:
            read_image(_named(payload, clean), max_pixels=UPLOAD_PIXELS)
        except ImageError as error:
            raise ImageError(str(error).replace(repr(clean), "the file")) from None  # Whoever sent it knows its name.
        digest = hashlib.sha256(payload).hexdigest()
        entry = GalleryPicture(image_key(f"dropped:{digest}"), f"dropped:{digest[:12]}/{clean}", None)
        with self._lock:
            entry = self._uploads.setdefault(entry.id, (entry, payload))[0]
            self._uploads.move_to_end(entry.id)
            while len(self._uploads) > 1 and sum(len(data) for _, data in self._uploads.values()) > UPLOADS_KEPT:
                self._uploads.popitem(last=False)
        return entry

    # ------------------------------------------------------------------------------------------------------------ run

    def calls(self, entry: GalleryPicture) -> Mapping[tuple[str, str, int, str], dict[str, Any]]:
        """Returns what the run says of a picture, by pack, character, specimen and part; nothing without a run."""
        return self.all_calls().get(entry.source, {})

    def all_calls(self) -> Mapping[str, Mapping[tuple[str, str, int, str], dict[str, Any]]]:
        """Returns what the run says of every picture, by source; read once."""
        if self.run is None:
            return {}
        with self._lock:
            if self._calls is None:
                found: dict[str, dict[tuple[str, str, int, str], dict[str, Any]]] = {}
                for record in self.run.records(list(_CALL_COLUMNS)):
                    part = record["best_state"] if record["kind"] == "part" else ""
                    found.setdefault(record["source"], {})[record["pack"], record["character"], record["specimen"], part] = record
                self._calls = found
            return self._calls


_PLACE_COLUMNS = (
    "source", "path", "sha256", "specimen", "specimen_x", "specimen_y", "specimen_width", "specimen_height", "image_height", "image_width",
)  # fmt: skip

_CALL_COLUMNS = (
    "source", "specimen", "pack", "character", "kind", "state", "best_state", "probability", "probabilities", "likely_states",
    "likely_probability", "score", "margin", "abstained", "abstained_because", "limit", "box_x", "box_y", "box_width", "box_height",
    "specimen_x", "specimen_y", "specimen_width", "specimen_height",
)  # fmt: skip


def _named(payload: bytes, name: str) -> io.BytesIO:
    """Returns a file in memory that bears a name, by which warnings call it."""
    file = io.BytesIO(payload)
    file.name = name
    return file


def _whole(entry: GalleryPicture) -> GalleryPicture:
    return GalleryPicture(image_key(entry.source), entry.source, entry.path, sha256=entry.sha256)


def _specimen(
    source: str, path: str | None, number: int, box: tuple[int, int, int, int], size: tuple[int, int], sha256: str | None
) -> GalleryPicture:
    id_ = stable_key("specimen", source, str(number), *map(str, box))
    return GalleryPicture(id_, source, path, specimen=number, box=box, whole=size, sha256=sha256)


def open_gallery(source: str | None, *, max_pixels: int = 200_000_000) -> Gallery:
    """Opens a folder of pictures, one picture, an annotation run or a feature index.

    Args:
        source: Its path; ``None`` for a page on which pictures are dropped.
        max_pixels: Largest picture that is decoded.

    Raises:
        DataError: It is none of these, or holds no picture.
    """
    if source is None:
        return Gallery("empty", "no folder", Path.cwd(), [], ())
    path = Path(source)
    if path.is_file() and path.name != RUN_FILE:
        root = path.parent
        entry = GalleryPicture(image_key(path.name), path.name, str(path))
        return Gallery("folder", display(path.name), root, [entry], (root,), max_pixels=max_pixels)
    for kind, (recognise, open_) in GALLERIES.items():
        if recognise(path):
            gallery = open_(path, max_pixels)
            if not len(gallery):
                raise DataError(f"{display(source)!r} holds no picture ({kind}); expected {', '.join(sorted(PICTURE_SUFFIXES))}.")
            return gallery
    raise DataError(f"{display(source)!r} is no folder of pictures, run or index: check the path.")


def _open_folder(path: Path, max_pixels: int) -> Gallery:
    root = os.path.abspath(path)
    entries = []
    for file in walk(root, PICTURE_SUFFIXES):
        source = display(os.path.relpath(file, root).replace(os.sep, "/"))
        entries.append(GalleryPicture(image_key(source), source, file))
    return Gallery("folder", display(Path(root).name), Path(root), entries, (Path(root),), max_pixels=max_pixels)


def _is_run(path: Path) -> bool:
    """Whether a path is a run's; shards that are not joined are one too, of which opening says what to do, unless pictures lie beside."""
    whole = path.name == RUN_FILE or ((path / RUN_FILE).is_file() and (path / PARTS_FOLDER).is_dir())
    return whole or (any(path.glob(f"shard-*/{RUN_FILE}")) and next(iter(walk(os.path.abspath(path), PICTURE_SUFFIXES)), None) is None)


def _open_run(path: Path, max_pixels: int) -> Gallery:
    from concept_cam.collection.runs import read_run

    run = read_run(path)
    found: dict[tuple[str, int], GalleryPicture] = {}
    places: dict[str, str | None] = {}
    for record in run.records(list(_PLACE_COLUMNS)):
        source, number = record["source"], record["specimen"]
        if source not in places:
            place = run.picture_path(record)
            places[source] = None if place is None else str(place)
        if (source, number) not in found:
            box = tuple(record[f"specimen_{side}"] for side in ("x", "y", "width", "height"))
            size = (record["image_height"], record["image_width"])
            found[source, number] = (
                GalleryPicture(image_key(source), source, places[source], sha256=record["sha256"])
                if None in box
                else _specimen(source, places[source], number, (box[0], box[1], box[2], box[3]), size, record["sha256"])
            )
    given = run.info.get("input")
    root = given.get("root") if isinstance(given, dict) else None
    # Where the input was no folder, each file's own folder is all that may be read of it.
    roots = (Path(root),) if root and Path(root).is_dir() else tuple({Path(entry.path).parent for entry in found.values() if entry.path})
    shown = [entry for entry in found.values() if entry.path is not None]
    if found and not shown:
        raise DataError(
            f"none of the {len(places)} pictures of the run {display(str(path))!r} is on this machine: mount them where they were."
        )
    absent = [source for source, place in places.items() if place is None]
    return Gallery("run", run.name, run.path, shown, (*roots, run.path), run=run, max_pixels=max_pixels, absent=absent)


def _open_index(path: Path, max_pixels: int) -> Gallery:
    from concept_cam.index import Index

    index = Index.open(path)
    found: dict[tuple[str, int], GalleryPicture] = {}
    roots: set[Path] = set()
    rows = index.pictures.select(["source", "path", "sha256", "specimen", "specimen_box", "image_size"]).to_pylist()
    for position, row in enumerate(rows):
        place = str(known) if row["path"] and (known := file_of(row["path"])) else None
        if place:
            roots.add(Path(place).parent)
        source, number = row["source"], row["specimen"]
        if row["specimen_box"] is None:
            own = GalleryPicture(image_key(source), source, place, position, sha256=row["sha256"])
        else:
            x, y, width, height = json.loads(row["specimen_box"])
            rows_, columns = json.loads(row["image_size"])
            own = replace(_specimen(source, place, number, (x, y, width, height), (rows_, columns), row["sha256"]), position=position)
        found.setdefault((source, number), own)
    return Gallery("index", path.resolve().name, path, list(found.values()), tuple(roots), index=index, max_pixels=max_pixels)


GALLERIES: dict[str, tuple[Callable[[Path], bool], Callable[[Path, int], Gallery]]] = {
    "index": (lambda path: is_index([str(path)]), _open_index),
    "run": (_is_run, _open_run),
    "folder": (lambda path: path.is_dir(), _open_folder),
}
"""Kinds of galleries: how each is recognised and opened; the first that fits."""


def encode_picture(picture: Picture, side: int) -> bytes:
    """Returns a picture as JPEG of at most ``side`` pixels on its longer side, without any of its metadata."""
    from PIL import Image

    image = picture.to_pil()
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88 if side > 200 else 80)
    return buffer.getvalue()
