"""WebDataset shards: tar archives in which files that share a name up to the first dot are one sample.

Read as streams, file after file, as the format is meant to be; a sample's ``.json`` becomes its columns.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from concept_cam.collection.inputs.files import filesystem
from concept_cam.collection.inputs.items import (
    IMAGE_SUFFIXES,
    Blob,
    Broken,
    Collection,
    Columns,
    Item,
    Specimen,
    is_url,
    media_uri,
    to_number,
)
from concept_cam.collection.inputs.parquet import container_files
from concept_cam.collection.inputs.specimens import parse_boxes
from concept_cam.core.errors import ImageError
from concept_cam.core.names import display

__all__ = ["TAR_SUFFIXES", "open_webdataset"]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

_TEXTS = (".txt", ".cls", ".text", ".caption")


def open_webdataset(inputs: Sequence[str], columns: Columns, skip: Sequence[str] = (), **_: Any) -> Collection:
    """Tar shards, or all under a folder; sources are ``shard.tar/key.jpg``."""
    root, files = container_files(inputs, TAR_SUFFIXES, skip)

    def items() -> Iterator[Item]:
        for file in files:
            name = display(os.path.relpath(file, root).replace(os.sep, "/")) if root else file
            yield from _samples(file, name, columns)

    return Collection("webdataset", root, items, lambda: None)


def _samples(file: str, name: str, columns: Columns) -> Iterator[Item]:
    key: str | None = None
    members: dict[str, bytes] = {}
    try:
        for path, content in _members(file):
            folder, base = os.path.split(path)
            stem, _, ending = base.partition(".")
            found = f"{folder}/{stem}" if folder else stem
            if found != key and key is not None:
                yield from _sample(name, key, members, columns)
                members = {}
            key = found
            members["." + ending] = content
        if key is not None:
            yield from _sample(name, key, members, columns)
    except (tarfile.TarError, OSError, EOFError) as error:
        # The members before the damage are good; the one in hand may be cut.
        if key is not None and _pictures(members):
            yield from _sample(name, key, members, columns)
        yield Item(
            f"{name}#damaged",
            Broken(f"{file!r} is damaged or cut short: {error}. Copy or download it again."),
            path=file,
        )


def _members(file: str) -> Iterator[tuple[str, bytes]]:
    if is_url(file):
        fs, path = filesystem(file)
        stream = fs.open(path, "rb")
    else:
        stream = open(file, "rb")  # noqa: SIM115  closed below, whichever of the two it is
    with stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            if member.isfile() and not os.path.basename(member.name).startswith("."):
                content = archive.extractfile(member)
                data = content.read() if content is not None else b""
                if len(data) != member.size:
                    raise tarfile.ReadError(f"{member.name} ends after {len(data)} of {member.size} bytes")
                yield display(member.name), data


def _sample(name: str, key: str, members: dict[str, bytes], columns: Columns) -> Iterator[Item]:
    texts: dict[str, str] = {}
    for ending, content in members.items():
        if ending == ".json":
            texts.update(_json_columns(content))
        elif ending in _TEXTS:
            texts[ending[1:]] = content.decode("utf-8", "replace").strip()
    for ending in _pictures(members):
        source = f"{name}/{key}{ending}"
        own = {columns.box, columns.mask}
        carried = {column: text for column, text in texts.items() if column not in own}
        try:
            scale = to_number(texts.get(columns.px_per_mm, ""), f"column {columns.px_per_mm!r}") if columns.px_per_mm else None
            boxes = parse_boxes(texts[columns.box]) if columns.box and texts.get(columns.box) else []
            masked = texts.get(columns.mask, "") if columns.mask else ""
            specimens = tuple(Specimen(box) for box in boxes) or ((Specimen(mask=masked),) if masked else ())
        except ImageError as error:
            yield Item(source, Broken(str(error)), columns=carried)
            continue
        yield Item(source, Blob(members[ending]), None, media_uri(carried), carried, specimens, scale)


def _pictures(members: Iterable[str]) -> list[str]:
    """The members that are pictures: those with a plain ending (``.jpg``), else those such as ``.seg.png``, which often are masks."""
    plain = [ending for ending in members if ending.lower() in IMAGE_SUFFIXES]
    return plain or [ending for ending in members if "." + ending.lower().rpartition(".")[2] in IMAGE_SUFFIXES]


def _json_columns(content: bytes) -> dict[str, str]:
    try:
        values = json.loads(content)
    except ValueError:
        return {"json_error": "not valid JSON"}
    if not isinstance(values, dict):
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
