from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from concept_cam.commands import fit
from concept_cam.heads import ClassifierHead
from concept_cam.localizer import Localizer
from concept_cam.methods.lcam import Explainer
from concept_cam.types import ConfigurationError, DataError, OutputError
from tests.methods.models import LinearBackbone
from tests.test_heads import colour_folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fit, "build_localizer", lambda values: Localizer(LinearBackbone()))
    return colour_folder(tmp_path / "data", 5)


def run(command: Any, *arguments: str) -> Any:
    return CliRunner().invoke(command, list(arguments), catch_exceptions=True)


def test_fit_head_and_attention(data: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.safetensors"
    done = run(fit.fit_head, str(data), "-o", str(head))
    assert done.exit_code == 0, done.output
    assert "accuracy on 2 pictures kept aside: 1.000" in done.output
    assert ClassifierHead.load(head).classes == ("green", "red")
    assert isinstance(run(fit.fit_head, str(data), "-o", str(head)).exception, OutputError)
    for extra in ((), ("--head", str(head))):
        path = tmp_path / f"lcam{len(extra)}.safetensors"
        done = run(fit.fit_attention, str(data), "-o", str(path), "--steps", "5", *extra)
        assert done.exit_code == 0, done.output
        assert "step 5/5" in done.output
        assert Explainer.load(path).classes == (("green", "red") if extra else ())


def test_wrong_arguments(data: Path, tmp_path: Path) -> None:
    assert isinstance(run(fit.fit_head, str(data), "-o", "head.pth").exception, ConfigurationError)
    assert isinstance(
        run(fit.fit_head, str(tmp_path), "-o", str(tmp_path / "x" / "h.safetensors")).exception, OutputError
    )
    assert isinstance(
        run(fit.fit_head, str(tmp_path / "none"), "-o", str(tmp_path / "h.safetensors")).exception, DataError
    )
    answer = run(
        fit.fit_attention, "synthetic", "-o", str(tmp_path / "h.safetensors"), "--head", "h.safetensors"
    )
    assert isinstance(answer.exception, ConfigurationError)
