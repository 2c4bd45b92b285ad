"""WebDataset shards: tar archives whose files of one name are one sample; a sample's ``.json`` and texts become its columns.

* Every picture is an entry. Its texts are the members of its name up to the *last* dot (``NHMUK 1900.1.jpg`` and ``NHMUK 1900.1.json``),
  then those of its name up to the first one (``000.left.jpg`` and ``000.json``), wherever in the archive they stand.
* A picture that goes with another, a mask or a depth map (``000.seg.png`` beside ``000.jpg``; :data:`COMPANIONS`), is no entry.

The archive's structure is checked here, since Python's ``tarfile`` takes a damaged header, a zero block or a cut between two members for
the end: an archive ends with two zero blocks and nothing but zeros behind them, and a compressed one with its check sum. Everything else is
an error of that shard; the members before it are kept.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from concept_cam.collection.inputs.columns import media_uri
from concept_cam.collection.inputs.files import filesystem, unreadable_item
from concept_cam.collection.inputs.items import MAX_BYTES, Blob, Broken, Collection, Columns, Item, Payload, Specimen, is_url, scale_in
from concept_cam.collection.inputs.parquet import container_files
from concept_cam.collection.inputs.specimens import parse_boxes
from concept_cam.core.errors import reason_of
from concept_cam.core.names import display
from concept_cam.pictures.endings import PICTURE_SUFFIXES
from concept_cam.pictures.limits import too_long

__all__ = ["COMPANIONS", "TAR_SUFFIXES", "open_webdataset"]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

_TEXTS = (".txt", ".cls", ".text", ".caption")
_TEXT_SUFFIXES = frozenset((".json", *_TEXTS))

COMPANIONS = frozenset(
    [
        "seg",
        "segm",
        "segmentation",
        "mask",
        "masks",
        "matte",
        "alpha",
        "label",
        "labels",
        "depth",
        "disparity",
        "normal",
        "normals",
        "edge",
        "edges",
        "parse",
        "parsing",
        "panoptic",
        "instance",
        "semantic",
    ]
)
"""Words between a picture's name and its ending that make it the companion of the picture without them."""

_BLOCK = 512
_MOST_TEXT = 512 << 20
"""Bytes of texts and JSON of one shard that are kept in memory; more is an error of the shard."""


def open_webdataset(inputs: Sequence[str], columns: Columns, skip: Sequence[str] = (), **_: Any) -> Collection:
    """Tar shards, or all under a folder; sources are ``shard.tar/key.jpg``."""
    root, files, unreadable = container_files(inputs, TAR_SUFFIXES, skip)

    def items() -> Iterator[Item]:
        for file in files:
            name = display(os.path.relpath(file, root).replace(os.sep, "/")) if root else file
            yield from _shard(file, name, columns)
        yield from (unreadable_item(folder, root) for folder in unreadable)

    return Collection("webdataset", root, items, lambda: None)


def _shard(file: str, name: str, columns: Columns) -> Iterator[Item]:
    """Goes through a shard twice: for the texts, which may stand anywhere, and for the pictures."""
    texts, pictures = _Texts(), set()
    problem = ""
    try:
        for member in _members(file, _is_text):
            if _is_text(member.name):
                texts.add(member)
            elif _is_picture(member.name):
                pictures.add(member.name)
    except Exception as error:  # told below, after the pictures before it
        problem = reason_of(error)
    try:
        for member in _members(file, _is_picture):
            if _is_picture(member.name) and not _is_companion(member.name, pictures):
                yield _item(name, member, texts, columns)
    except Exception as error:
        problem = reason_of(error)
    if not problem:
        for stem in texts.unused():
            yield Item(f"{name}/{stem}.json", Broken("no picture of this name stands in the shard: what it says belongs to none."))
    for stem in texts.unreadable:
        yield Item(f"{name}/{stem}.json", Broken("it is not valid JSON; pictures of this name were read without what it says."))
    if problem:
        # The members before the damage are good.
        yield Item(f"{name}#damaged", Broken(f"{file!r} is damaged or cut short: {problem}. Copy or download it again."), path=file)


def _item(name: str, member: _Member, texts: _Texts, columns: Columns) -> Item:
    """Makes one entry of a picture; whatever is wrong with it or its texts is its own."""
    source = f"{name}/{member.name}"
    payload: Payload
    try:
        found = texts.of(member.name)
        own = {columns.box, columns.mask}
        carried = {column: text for column, text in found.items() if column not in own}
        scale = scale_in(found.get(columns.px_per_mm, ""), columns.px_per_mm) if columns.px_per_mm else None
        boxes = parse_boxes(found[columns.box]) if columns.box and found.get(columns.box) else []
        masked = found.get(columns.mask, "") if columns.mask else ""
        specimens = tuple(Specimen(box) for box in boxes) or ((Specimen(mask=masked),) if masked else ())
        payload = Broken(member.problem) if member.problem else Blob(member.content)
    except Exception as error:
        return Item(source, Broken(reason_of(error)))
    return Item(source, payload, None, media_uri(carried), carried, specimens, scale, f"{zlib.crc32(member.content):08x}")


# -------------------------------------------------------------------------------------------------------------- samples


def _split(path: str) -> tuple[str, str]:
    """Returns a member's name without its last ending, and that ending in small letters."""
    stem, ending = os.path.splitext(path)
    return stem, ending.lower()


def _is_text(path: str) -> bool:
    return _split(path)[1] in _TEXT_SUFFIXES


def _is_picture(path: str) -> bool:
    return _split(path)[1] in PICTURE_SUFFIXES


def _first_dot(path: str) -> str:
    folder, base = os.path.split(path)
    stem = base.partition(".")[0]
    return f"{folder}/{stem}" if folder else stem


def _is_companion(path: str, pictures: Iterable[str]) -> bool:
    stem, word = os.path.splitext(_split(path)[0])
    if word[1:].lower() not in COMPANIONS:
        return False
    return any(stem + ending in pictures for known in PICTURE_SUFFIXES for ending in (known, known.upper()))


class _Texts:
    """The texts of a shard, by the name of their sample."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, bytes]] = {}
        self._used: set[str] = set()
        self._bytes = 0
        self.unreadable: dict[str, None] = {}

    def add(self, member: _Member) -> None:
        self._bytes += len(member.content)
        if self._bytes > _MOST_TEXT:
            raise tarfile.ReadError(f"its texts and JSON are more than {_MOST_TEXT >> 20} MiB")
        stem, ending = _split(member.name)
        self._found.setdefault(stem, {})[ending] = member.content

    def of(self, picture: str) -> dict[str, str]:
        """Returns a picture's columns."""
        columns: dict[str, str] = {}
        for stem in dict.fromkeys((_first_dot(picture), _split(picture)[0])):
            self._used.add(stem)
            for ending, content in self._found.get(stem, {}).items():
                if ending == ".json":
                    columns.update(said := _json_columns(content))
                    if said is _NO_JSON:
                        self.unreadable[stem] = None
                else:
                    columns[ending[1:]] = content.decode("utf-8", "replace").strip()
        return columns

    def unused(self) -> list[str]:
        """Returns the names of samples with JSON and without a picture, in order."""
        return [stem for stem, texts in self._found.items() if ".json" in texts and stem not in self._used]


_NO_JSON = {"json_error": "not valid JSON"}


def _json_columns(content: bytes) -> dict[str, str]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return _NO_JSON
    if not isinstance(values, Mapping):
        return {"json": _valid(json.dumps(values, ensure_ascii=False))}
    return {_valid(key): _json_text(value) for key, value in values.items()}


def _json_text(value: Any) -> str:
    """Returns a value of a sample's JSON as a column's text."""
    if value is None:
        return ""
    return _valid(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _valid(text: str) -> str:
    """Returns a text as valid Unicode: JSON may hold half a character (a caption cut within an emoji), which no table can store."""
    return text.encode("utf-8", "replace").decode("utf-8")


# -------------------------------------------------------------------------------------------------------------- archives


@dataclass(frozen=True)
class _Member:
    """A file of an archive.

    Attributes:
        name: Its path, valid Unicode.
        content: Its bytes, where they were asked for.
        problem: Why it cannot be used.
    """

    name: str
    content: bytes = b""
    problem: str = ""


_COMPRESSED: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
"""First bytes of compressed archives, and what reads them."""


@contextmanager
def _open(file: str) -> Iterator[tuple[BinaryIO, bool]]:
    """Opens an archive, decompressed; says whether it can be skipped through."""
    if is_url(file):
        fs, path = filesystem(file)
        stream = _seekable(fs.open(path, "rb"))
    else:
        if not os.path.isfile(file):
            raise tarfile.ReadError("it is no file" if os.path.exists(file) else "it is not there")
        stream = open(file, "rb")  # noqa: SIM115  closed below, whichever of the two it is
    with stream:
        head = stream.read(6)
        stream.seek(0)
        opener = next((found for magic, found in _COMPRESSED if head.startswith(magic)), None)
        if opener is None:
            yield stream, True
            return
        with opener(stream) as plain:
            yield plain, False


def _seekable(stream: BinaryIO) -> BinaryIO:
    """Returns a stream that can be read twice: itself, or a temporary file, where a server gives no part of a file."""
    try:
        stream.seek(0, os.SEEK_END)
        stream.seek(0)
        return stream
    except (OSError, ValueError):
        spooled = tempfile.TemporaryFile()  # noqa: SIM115  its user closes it
        with stream:
            shutil.copyfileobj(stream, spooled, 1 << 20)
        spooled.seek(0)
        return cast(BinaryIO, spooled)


def _members(file: str, wanted: Callable[[str], bool]) -> Iterator[_Member]:
    """Yields an archive's files, with the content of those that are ``wanted``.

    Raises:
        tarfile.TarError: The archive's structure is not as it should be; also what a damaged compressed stream raises.
    """
    with _open(file) as (stream, seekable):
        extended: dict[str, str] = {}
        general: dict[str, str] = {}
        name_of_next: bytes | None = None
        while True:
            block = _exactly(stream, _BLOCK, "the end-of-archive mark is missing")
            if block == bytes(_BLOCK):
                _check_end(stream)
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise tarfile.ReadError(f"a header is damaged ({error})") from error
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                content = _content(stream, info.size, "a long name", 1 << 20)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    name_of_next = content.rstrip(b"\0")
                continue
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
                facts = _extended(_content(stream, info.size, "an extended header", 64 << 20))
                (general if info.type == tarfile.XGLTYPE else extended).update(facts)
                continue
            facts = {**general, **extended}
            size = int(facts.get("size", info.size))
            name = facts.get("path") or (name_of_next.decode("utf-8", "surrogateescape") if name_of_next is not None else info.name)
            extended, name_of_next = {}, None
            name = display(name).removeprefix("./")
            if info.type not in tarfile.REGULAR_TYPES or info.type == tarfile.GNUTYPE_SPARSE:
                has_data = info.type not in (
                    tarfile.DIRTYPE,
                    tarfile.LNKTYPE,
                    tarfile.SYMTYPE,
                    tarfile.FIFOTYPE,
                    tarfile.CHRTYPE,
                    tarfile.BLKTYPE,
                )
                if info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE) and wanted(name):
                    yield _Member(name, problem="it is a link or a sparse file in its archive: pack the file itself.")
                _skip(stream, size if has_data else 0, seekable, name)
                continue
            if os.path.basename(name).startswith(".") or not wanted(name):
                if not os.path.basename(name).startswith("."):
                    yield _Member(name)
                _skip(stream, size, seekable, name)
            elif size > MAX_BYTES:
                yield _Member(name, problem=too_long("the member", size, MAX_BYTES))
                _skip(stream, size, seekable, name)
            else:
                yield _Member(name, _content(stream, size, name, MAX_BYTES))


def _extended(content: bytes) -> dict[str, str]:
    """Reads the records ``LENGTH KEY=VALUE`` of an extended header."""
    found: dict[str, str] = {}
    place = 0
    while place < len(content) and content[place]:
        space = content.find(b" ", place)
        length = int(content[place:space]) if 0 < space - place < 12 and content[place:space].isdigit() else 0
        record = content[space + 1 : place + length]
        key, equals, value = record.rstrip(b"\n").partition(b"=")
        if length < 5 or not equals or place + length > len(content):
            raise tarfile.ReadError("an extended header is damaged")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        place += length
    if "size" in found and not found["size"].isdigit():
        raise tarfile.ReadError("an extended header is damaged")
    return found


def _exactly(stream: BinaryIO, size: int, otherwise: str) -> bytes:
    parts: list[bytes] = []
    missing = size
    while missing:
        part = stream.read(min(missing, 1 << 20))
        if not part:
            raise tarfile.ReadError(otherwise)
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _content(stream: BinaryIO, size: int, name: str, limit: int) -> bytes:
    if not 0 <= size <= limit:
        raise tarfile.ReadError(f"{name} has {size} bytes, which cannot be")
    whole = _exactly(stream, size + -size % _BLOCK, f"{name} ends before its {size} bytes")
    return whole[:size]


def _skip(stream: BinaryIO, size: int, seekable: bool, name: str) -> None:
    if size < 0:
        raise tarfile.ReadError(f"{name} has {size} bytes, which cannot be")
    padded = size + -size % _BLOCK
    if seekable:
        here = stream.tell()
        end = stream.seek(0, os.SEEK_END)
        if here + padded > end:
            raise tarfile.ReadError(f"{name} ends before its {size} bytes")
        stream.seek(here + padded)
        return
    if size > MAX_BYTES:
        # What takes a long time to skip and holds no picture is no shard.
        raise tarfile.ReadError(too_long(f"the member {name!r}", size, MAX_BYTES))
    while padded:
        part = stream.read(min(padded, 1 << 20))
        if not part:
            raise tarfile.ReadError(f"{name} ends before its {size} bytes")
        padded -= len(part)


def _check_end(stream: BinaryIO) -> None:
    """Checks what follows the first zero block: another one, then zeros up to the end, where a compressed stream checks its sum."""
    if _exactly(stream, _BLOCK, "the end-of-archive mark is cut") != bytes(_BLOCK):
        raise tarfile.ReadError("a block of zeros stands before the end")
    left = 0
    while part := stream.read(1 << 20):
        if part.strip(b"\0"):
            raise tarfile.ReadError("further bytes follow the end-of-archive mark, as when archives are joined with cat")
        left += len(part)
        if left > MAX_BYTES:
            raise tarfile.ReadError("nothing but zeros follows the end-of-archive mark, without an end")
