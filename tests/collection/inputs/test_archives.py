"""Tar shards: every picture with the columns of its JSON, wherever that stands, and every damage of the archive said."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from concept_cam.collection.inputs import Columns, Item
from concept_cam.collection.inputs import webdataset as archives
from concept_cam.core.errors import ConfigurationError, ImageError
from tests.collection.inputs.test_inputs import items, png


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(tmp_path: Path, content: bytes, name: str = "s.tar") -> tuple[list[Item], str]:
    """Returns the pictures of a shard, and what is said of its damage."""
    (tmp_path / name).write_bytes(content)
    found = items(tmp_path / name)
    if not found or found[-1].source != f"{name}#damaged":
        return found, ""
    with pytest.raises(ImageError) as caught:
        found[-1].payload.read()
    return found[:-1], str(caught.value)


def numbers(found: list[Item]) -> dict[str, str]:
    return {item.source.partition("/")[2]: item.columns.get("n", "") for item in found}


def sample(number: int) -> bytes:
    return json.dumps({"n": number}).encode()


def test_names_with_dots_are_names(tmp_path: Path) -> None:
    names = ["NHMUK 1900.1", "NHMUK 1900.1.2", "NHMUK 1900", "d.e/x.v2"]
    members = {f"{name}.{ending}": png(n) if ending == "jpg" else sample(n) for n, name in enumerate(names) for ending in ("jpg", "json")}
    found, damage = read(tmp_path, tar(members))
    assert numbers(found) == {f"{name}.jpg": str(n) for n, name in enumerate(names)}
    assert damage == ""


def test_companions_are_no_pictures_and_views_are(tmp_path: Path) -> None:
    members = {"0.jpg": png(0), "0.seg.png": png(1), "0.MASK.png": png(1), "0.json": sample(7)}
    members |= {"1.left.jpg": png(2), "1.right.jpg": png(3), "1.json": sample(8), "2.seg.png": png(4), "2.json": sample(9)}
    found, _ = read(tmp_path, tar(members))
    assert numbers(found) == {"0.jpg": "7", "1.left.jpg": "8", "1.right.jpg": "8", "2.seg.png": "9"}


@pytest.mark.parametrize("order", ["pictures first", "texts first", "mixed"])
@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_json_belongs_to_its_picture_wherever_it_stands(tmp_path: Path, order: str, name: str) -> None:
    pictures = {f"{n}.png": png(n) for n in range(4)}
    texts = {f"{n}.json": sample(n) for n in range(4)}
    mixed = dict(sorted({**pictures, **texts}.items(), key=lambda entry: (len(entry[1]) % 3, entry[0])))
    content = tar({"pictures first": pictures | texts, "texts first": texts | pictures, "mixed": mixed}[order])
    found, damage = read(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    assert numbers(found) == {f"{n}.png": str(n) for n in range(4)}
    assert damage == ""


WHOLE = tar({f"{n}.png": png(n) for n in range(4)})
STARTS = [place for place in range(0, len(WHOLE), 512) if WHOLE[place : place + 5] in (b"0.png", b"1.png", b"2.png", b"3.png")]
END = len(WHOLE.rstrip(b"\0")) + -len(WHOLE.rstrip(b"\0")) % 512
SECOND, THIRD = STARTS[1], STARTS[2]


def changed(place: int, by: bytes) -> bytes:
    return WHOLE[:place] + by + WHOLE[place + len(by) :]


DAMAGES = {
    "cut within a picture": (WHOLE[: THIRD + 700], 2),
    "cut within a header": (WHOLE[: THIRD + 100], 2),
    "cut at a header": (WHOLE[:THIRD], 2),
    "no mark of the end": (WHOLE[:END], 4),
    "half a mark of the end": (WHOLE[: END + 512], 4),
    "a zero block between": (WHOLE[:THIRD] + bytes(512) + WHOLE[THIRD:], 2),
    "two zero blocks between": (WHOLE[:THIRD] + bytes(1024) + WHOLE[THIRD:], 2),
    "a zero block in place of a header": (changed(THIRD, bytes(512)), 2),
    "a damaged name": (changed(THIRD, b"9"), 2),
    "a damaged check sum": (changed(THIRD + 148, b"777777"), 2),
    "a damaged size": (changed(THIRD + 124, b"zzzz"), 2),
    "a negative size": (changed(THIRD + 124, b"\xff" * 12), 2),
    "noise in place of a header": (changed(THIRD, bytes(range(256)) * 2), 2),
    "bytes behind the end": (WHOLE + b"x", 4),
    "another archive behind the end": (WHOLE + WHOLE, 4),
    "the first header damaged": (changed(5, b"!"), 0),
    "empty": (b"", 0),
    "text": (b"this is no archive at all\n" * 40, 0),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_said_and_what_stands_before_it_is_kept(tmp_path: Path, name: str, packed: bool) -> None:
    content, good = DAMAGES[name]
    found, damage = read(tmp_path, gzip.compress(content) if packed else content, "s.tar.gz" if packed else "s.tar")
    assert len(found) == good
    assert "damaged or cut short" in damage


def test_check_sums_and_ends_of_compressed_archives(tmp_path: Path) -> None:
    packed = gzip.compress(WHOLE)
    assert len(read(tmp_path, packed, "s.tar.gz")[0]) == 4
    for content in (
        packed[:-8] + bytes([packed[-8] ^ 255]) + packed[-7:],  # the check sum
        packed[:-1] + bytes([packed[-1] ^ 255]),  # the length
        packed[:-4],
        packed + b"what follows",
    ):
        found, damage = read(tmp_path, content, "s.tar.gz")
        assert len(found) == 4
        assert "damaged" in damage
    assert "damaged" in read(tmp_path, packed[: len(packed) // 2], "s.tar.gz")[1]


def test_long_and_odd_names_come_through(tmp_path: Path) -> None:
    long = "d/" * 80 + "x" * 120
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for name in (f"{long}.png", "é鱼.png", "./dot.png", "._dot.png"):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(png(0)), 1.5
                archive.addfile(info, io.BytesIO(png(0)))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "dot.png"
            archive.addfile(link)
        found, damage = read(tmp_path, buffer.getvalue())
        assert [item.source for item in found] == [f"s.tar/{long}.png", "s.tar/é鱼.png", "s.tar/dot.png", "s.tar/link.png"]
        assert damage == ""
        with pytest.raises(ImageError, match="link"):
            found[3].payload.read()


def test_a_member_beyond_the_limit_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 4000)
    members = {"0.png": png(0), "1.png": bytes(5000), "2.png": png(2)}
    assert max(len(png(0)), len(png(2))) < 4000
    found, damage = read(tmp_path, tar(members))
    assert [item.source for item in found] == ["s.tar/0.png", "s.tar/1.png", "s.tar/2.png"]
    assert damage == ""
    with pytest.raises(ImageError, match="5,000 bytes"):
        found[1].payload.read()
    # A compressed archive would have to be read through: it ends there, and says so.
    assert "5,000 bytes" in read(tmp_path, gzip.compress(tar({"0.png": png(0), "1.bin": bytes(5000)})), "s.tar.gz")[1]


def test_odd_json_is_the_pictures_own(tmp_path: Path) -> None:
    texts = {
        "0": b"[" * 200_000,
        "1": b'{"x": ' + b"9" * 6000 + b"}",
        "2": b"\xff\xfe",
        "3": b'{"box": "broken"}',
        "4": b'{"box": "1 2 3 4"}',
    }
    members = {f"{n}.png": png(0) for n in texts} | {f"{n}.json": text for n, text in texts.items()}
    (tmp_path / "s.tar").write_bytes(tar(members))
    found = items(tmp_path / "s.tar", columns=Columns(box="box"))
    assert [item.columns for item in found[:3]] == [{"json_error": "not valid JSON"}] * 3
    with pytest.raises(ImageError, match="broken"):
        found[3].payload.read()
    assert found[4].specimens[0].box == (1, 2, 3, 4)
    assert [item.source for item in found[5:]] == ["s.tar/0.json", "s.tar/1.json", "s.tar/2.json"]  # lost facts are entries of errors.csv
    for item in found[5:]:
        with pytest.raises(ImageError, match="not valid JSON"):
            item.payload.read()


def test_json_without_a_picture_is_said(tmp_path: Path) -> None:
    found, damage = read(tmp_path, tar({"a.png": png(0), "a.json": sample(1), "lost/b.json": sample(2), "c.txt": b"only a text"}))
    assert damage == ""
    assert [item.source for item in found] == ["s.tar/a.png", "s.tar/lost/b.json"]
    with pytest.raises(ImageError, match="no picture of this name"):
        found[1].payload.read()


def test_a_column_of_pictures_is_refused_where_the_archive_holds_them(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar({"0.png": png(0)}))
    with pytest.raises(ConfigurationError, match=r"--column 'image' .* read as 'webdataset', which has no column of pictures"):
        items(tmp_path / "s.tar", columns=Columns("image"))
