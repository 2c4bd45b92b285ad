from __future__ import annotations

from pathlib import Path

import pytest

from concept_cam.core.errors import OutputError
from concept_cam.core.files import check_file, write_file


def test_a_file_that_can_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    assert check_file(tmp_path / "new.yaml") == tmp_path / "new.yaml"
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.yaml").write_text("kept")
    check_file(tmp_path / "old.yaml", overwrite=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("write", [check_file, lambda path: write_file(path, b"")])
def test_what_cannot_be_written_is_one_error(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "old.yaml").write_text("kept")
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "old.yaml": "exists. Use --overwrite",
        "folder": "exists. Use --overwrite",
        "missing/new.yaml": "No such file or directory",
        "old.yaml/new.yaml": "Not a directory",
        "n" * 300: "File name too long",
    }.items():
        with pytest.raises(OutputError, match=reason):
            write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "old.yaml"]


@pytest.mark.parametrize("write", [check_file, lambda path, overwrite: write_file(path, b"", overwrite=overwrite)])
def test_a_folder_in_the_place_of_a_file_is_refused(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """So is an empty name, as a variable of the shell that is not set leaves it: it ended in pathlib's ValueError."""
    for path in (tmp_path, "", "."):
        with pytest.raises(OutputError, match="Is a directory"):
            write(path, overwrite=True)
    assert not list(tmp_path.iterdir())
