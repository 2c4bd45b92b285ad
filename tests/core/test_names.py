"""Names of files that are no UTF-8: shown as text, and found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from concept_cam.core.errors import DataError
from concept_cam.core.names import counted, display, file_of, is_there, path_of
from concept_cam.evaluation.datasets.drawn import PictureFinder
from concept_cam.serve.gallery import open_gallery
from tests.serve.conftest import painted


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A folder with a picture whose name was written in Latin-1."""
    path = os.path.join(os.fsencode(tmp_path), b"sub", b"K\xe4fer #1.png")
    os.makedirs(os.path.dirname(path))
    try:
        with open(path, "wb") as stream:
            painted((64, 64), (0, 0, 32, 32)).save(stream, "PNG")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    return tmp_path


def test_a_name_that_is_no_utf8_is_found_by_what_is_shown_of_it(latin: Path) -> None:
    shown = "sub/K\\xe4fer #1.png"
    (entry,) = open_gallery(str(latin)).entries
    assert entry.source == shown
    found = path_of(latin / shown)
    assert found.is_file()
    assert display(str(found)) == str(latin / shown)
    for name in (shown, "K\\xe4fer #1.png"):
        assert PictureFinder(latin, latin / "labels.xml")(name) == found


def test_many_names_are_counted_and_the_first_are_told() -> None:
    assert counted({"b": None, "a": None}) == "2 (a, b)"
    assert counted((f"{number}.png" for number in range(7)), 3) == "7 (0.png, 1.png, 2.png and 4 more)"


def test_a_file_that_has_the_shown_name_is_meant(latin: Path) -> None:
    own = latin / "sub" / "K\\xe4fer #1.png"
    own.write_bytes(b"")
    assert path_of(own) == own
    assert path_of("nowhere/x.png") == Path("nowhere/x.png")


def test_a_name_longer_than_the_system_takes_leads_nowhere(tmp_path: Path) -> None:
    """A damaged run.json held one, and Python's own question whether it is there raises."""
    long = tmp_path / ("x" * 5000)
    assert not is_there(long)
    assert path_of(long) == long
    assert is_there(tmp_path)
    assert file_of(long) is None
    assert file_of(tmp_path) is None
    assert file_of(__file__) == Path(__file__)
    with pytest.raises(DataError, match="lies nowhere in"):
        PictureFinder(tmp_path, tmp_path / "labels.xml")(long.name)
