"""Pictures that are read again are those that were read before, or somebody is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam.core.errors import ImageError, OtherPictureError
from concept_cam.pictures.again import NOT_SHOWN, Revisit, read_again
from concept_cam.pictures.reading import read_image


def save(path: Path, colour: tuple[int, int, int] = (200, 30, 30)) -> str:
    Image.new("RGB", (7, 5), colour).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_file_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    known = save(path)
    plain = read_image(path)
    for sha256 in (known, known.upper(), None, ""):
        again = read_again(path, sha256)
        assert np.array_equal(again.pixels, plain.pixels)
        assert again.source == plain.source == str(path)


def test_another_file_is_refused_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    known = save(path)
    save(path, (0, 0, 0))
    with pytest.raises(OtherPictureError, match=r"a\.png' is not the picture .* expected [0-9a-f]{12}"):
        read_again(path, known)
    path.write_bytes(b"no picture")
    with pytest.raises(OtherPictureError):
        read_again(path, known)
    path.unlink()
    with pytest.raises(ImageError, match="no such picture"):
        read_again(path, known)
    with pytest.raises(ImageError, match="is a folder"):
        read_again(tmp_path, known)


def test_what_is_gone_or_another_is_named_once_and_counted(tmp_path: Path) -> None:
    revisit = Revisit("annotated", "nothing is there", "annotate them anew")
    assert revisit.findings() == []
    known = save(tmp_path / "a.png")
    found = revisit.read("a.png", tmp_path / "a.png", known, (5, 7))
    assert found is not None
    assert found.size == (5, 7)
    assert revisit.findings() == []
    assert revisit.read("a.png", tmp_path / "a.png", None, (5, 8)) is None  # nobody kept its hash, and it had another size
    for number in range(7):
        assert revisit.read(f"{number}.png", None, known, (5, 7)) is None
        assert revisit.read(f"{number}.png", tmp_path / "none.png", known, (5, 7)) is None
    for name in ("a.tar/0.png", "a.tar/1.png", "a.tar/1.png"):
        revisit.leave(name)
    told = [revisit.why(name) for name in ("a.png", "0.png", "a.tar/0.png", "b.png")]
    assert told == [*NOT_SHOWN, None]
    others, gone, archived = revisit.findings()
    assert others == (
        "pictures that were replaced or changed since they were annotated: 1 (a.png); nothing is there. New metadata count as "
        "a change. Put the old files back, or annotate them anew."
    )
    assert "when they were annotated: 7 (0.png, 1.png, 2.png, 3.png, 4.png and 2 more); nothing is there." in gone
    assert archived == "pictures that lie in archives (tar, Parquet) are not shown: 2; nothing is there."
