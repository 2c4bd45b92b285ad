from __future__ import annotations

import subprocess
import sys

import pytest

from concept_cam.backbones.torchvision_compat import import_transformers
from concept_cam.core.errors import MissingExtraError

BROKEN = '''
import importlib.abc, importlib.machinery, sys, types
import torch

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for a torchvision whose compiled operators cannot be loaded."""
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "torchvision" else None
    def create_module(self, spec):
        return types.ModuleType("torchvision")
    def exec_module(self, module):
        if {fail!r}:
            raise RuntimeError({fail!r})
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                raise RuntimeError(f"operator torchvision::{{name}} does not exist")

sys.meta_path.insert(0, Finder())
from concept_cam.backbones.torchvision_compat import prepare_torchvision
'''


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)


def test_missing_operators_are_declared_and_the_import_goes_through() -> None:
    code = BROKEN.format(fail="") + "prepare_torchvision(); import torchvision; print(torch.ops.torchvision.qnms)"
    out = run(code)
    assert out.returncode == 0, out.stderr
    assert "torchvision.qnms" in out.stdout


def test_other_failures_are_reported() -> None:
    out = run(BROKEN.format(fail="undefined symbol") + "prepare_torchvision()")
    assert "torchvision cannot be imported: undefined symbol" in out.stderr


def test_a_torchvision_that_works_is_left_alone() -> None:
    code = (
        "import sys, types; sys.modules['torchvision'] = types.ModuleType('torchvision')\n"
        "from concept_cam.backbones import torchvision_compat as compat\n"
        "compat.prepare_torchvision(); print(len(compat._DECLARED))"
    )
    out = run(code)
    assert out.stdout.strip() == "0", out.stderr


def test_open_clip_can_be_imported_here() -> None:
    out = run("from concept_cam.backbones.torchvision_compat import import_open_clip; print(import_open_clip().__name__)")
    assert out.stdout.strip() == "open_clip", out.stderr


def test_missing_transformers_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"-m pip .*install transformers$"):
        import_transformers()
