from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from concept_cam.backbones import machine
from concept_cam.backbones.machine import device_of, least_seconds, remembered
from concept_cam.core.errors import ConfigurationError

CPU = torch.device("cpu")


class Measure:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> dict[str, Any]:
        self.asked += 1
        return {"number": self.asked}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_MEASURED", {})


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CONCEPT_CAM_CACHE", str(tmp_path))
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process begins."""
    monkeypatch.setattr(machine, "_MEASURED", {})


def test_a_measurement_is_made_once_in_a_process() -> None:
    measure = Measure()
    assert remembered({"what": 1}, CPU, measure) == remembered({"what": 1}, CPU, measure) == {"number": 1}
    assert remembered({"what": 2}, CPU, measure) == {"number": 2}


def test_a_measurement_is_kept_for_the_next_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Measure()
    remembered({"what": 1}, CPU, measure)
    forget(monkeypatch)
    assert remembered({"what": 1}, CPU, measure) == {"number": 1}
    kept = json.loads(next((folder / "machine").glob("*.json")).read_text())
    assert kept["what"] == {"what": 1}
    assert kept["machine"]["torch"] == torch.__version__


def test_another_torch_or_other_threads_are_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Measure()
    remembered({"what": 1}, CPU, measure)
    forget(monkeypatch)
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert remembered({"what": 1}, CPU, measure) == {"number": 2}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert remembered({"what": 1}, CPU, measure) == {"number": 3}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert remembered({"what": 1}, CPU, measure) == {"number": 4}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"found": 3}', b'{"found": {"number": 9}, "what": "other"}', b"\xff\x00"])
def test_a_damaged_file_is_measured_again(content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Measure()
    remembered({"what": 1}, CPU, measure)
    next((folder / "machine").glob("*.json")).write_bytes(content)
    forget(monkeypatch)
    assert remembered({"what": 1}, CPU, measure) == {"number": 2}
    forget(monkeypatch)
    assert remembered({"what": 1}, CPU, measure) == {"number": 2}


def test_a_cache_that_cannot_be_written_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCEPT_CAM_CACHE", "/proc/nowhere")
    assert remembered({"what": 1}, CPU, Measure()) == {"number": 1}


def test_the_least_time_is_of_the_passes_that_count() -> None:
    order: list[str] = []
    found = least_seconds([lambda: order.append("a"), lambda: (order.append("b"), sum(range(200_000)))], CPU, rounds=3)
    assert order == ["a", "b"] * 4
    assert 0 <= found[0] < found[1]


def test_a_card_that_is_not_there_is_named_with_the_last_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigurationError, match="no CUDA device 'cuda:9' here: the last one is 'cuda:1'"):
        device_of("cuda:9")
