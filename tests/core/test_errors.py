from __future__ import annotations

import importlib.util
import pickle
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from concept_cam.core.errors import MissingExtraError, install_command

REQUIREMENTS = [
    "torch>=2.4",
    'pyarrow>=16; extra == "annotate"',
    "pandas>=2.2; extra == 'annotate'",
    'ray[data]>=2.40; extra == "ray"',
    'concept-cam[annotate]; extra == "ray"',
]


def test_the_command_names_the_libraries_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIREMENTS)
    words = shlex.split(install_command("ray"))
    assert words[: words.index("install")] in (
        [sys.executable, "-m", "pip"],
        [sys._base_executable, "-m", "pip", "--python", sys.executable],
    )  # type: ignore[attr-defined]
    assert words[words.index("install") + 1 :] == ["ray[data]>=2.40", "pyarrow>=16", "pandas>=2.2"]


def test_an_environment_without_pip_is_served_by_the_python_it_was_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = shlex.split(install_command("annotate"))
    assert words[:6] == [sys._base_executable, "-m", "pip", "--python", sys.executable, "install"]  # type: ignore[attr-defined]


def test_a_clone_that_is_not_installed_names_its_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert install_command("annotate").endswith("install '.[annotate]'")


def test_a_library_that_no_extra_brings_is_named_by_its_package() -> None:
    """`pip install '.[cvat]'` was said, an extra that there is not, and of a folder that need not be this package's."""
    assert install_command("", package="cvat-sdk").endswith(" install cvat-sdk")


def test_the_error_comes_back_whole_from_a_worker() -> None:
    """A process pool that could not read the error broke, and every task was lost with it."""
    for error in (MissingExtraError("pyarrow", "annotate", "a run"), MissingExtraError("cvat_sdk", "", "a function", package="cvat-sdk")):
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.library, again.extra, again.package) == (str(error), error.library, error.extra, error.package)


def test_the_command_runs(tmp_path: Path) -> None:
    words = shlex.split(install_command("annotate"))
    position = words.index("install")
    # Already there, or asked of nobody: what is tested is that pip understands the line.
    done = subprocess.run([*words[: position + 1], "--dry-run", "--no-index", "--no-deps", "numpy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
