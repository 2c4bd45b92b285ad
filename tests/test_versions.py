"""The oldest and the newest open_clip, transformers and timm that are supported, beside the torch that is installed here.

Each test installs releases into a folder of its own, without torch, and runs the tests of towers and of loading with that folder first on
the path. It needs the package registry and some minutes.

Last run: 2026-11-27, beside torch 2.13. Oldest: open_clip 3.0.0, transformers 4.51.3, timm 1.0.17 (205 passed, 84 skipped: models that
these releases do not have). Newest: open_clip 3.3.0, transformers 5.24.0, timm 1.0.31 (283 passed, 4 skipped: strategies that a family does
not have).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.versions

ROOT = Path(__file__).parents[1]
LIBRARIES = ("open_clip_torch", "transformers", "timm")
TESTS = (
    "tests/backbones/test_families.py",
    "tests/backbones/test_transformers_loading.py",
    "tests/backbones/test_timm_features.py",
    "tests/backbones/test_dinotxt.py",
    "tests/backbones/test_open_clip_vit.py",
    "tests/backbones/test_loading.py",
)
CHOSEN = " or ".join(
    ["own", "library", "protocol", "positions", "timm", "fg_clip", "naflex", "folder", "tipsv2", "radio", "odd_sizes", "definition"]
)


def lower_bounds() -> dict[str, str]:
    """Returns the oldest releases that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    found = {}
    for item in wanted:
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)", item)
        if match and match[1] in LIBRARIES:
            found[match[1]] = match[2]
    assert set(found) == set(LIBRARIES)
    return found


def install(folder: Path, *what: str, dependencies: bool = False) -> None:
    extra = [] if dependencies else ["--no-deps"]
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), *extra, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_towers_with_other_releases(age: str, tmp_path: Path) -> None:
    bounds = lower_bounds()
    install(tmp_path, *(f"{name}=={bounds[name]}" if age == "oldest" else name for name in LIBRARIES))
    here = {item.metadata["Name"].lower().replace("-", "_"): item for item in metadata.distributions(path=[str(tmp_path)])}
    needed = [
        text for text in here["transformers"].requires or () if re.match(r"(tokenizers|huggingface[-_]hub)\b", text) and "extra" not in text
    ]
    # What these need beside themselves is small; torch and numpy are not among it.
    install(tmp_path, *(text.split(";")[0].strip() for text in needed), "requests", "regex", dependencies=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    versions = "import open_clip, timm, transformers; print(open_clip.__version__, transformers.__version__, timm.__version__)"
    code = f"from concept_cam.backbones.torchvision_compat import prepare_torchvision; prepare_torchvision(); {versions}"
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert told == [here[name].version for name in LIBRARIES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", CHOSEN]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 150  # type: ignore[index]
    print(told, done.stdout.strip().splitlines()[-1])
