from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from concept_cam.backbones import precision
from concept_cam.backbones.precision import WORTH, bfloat16_gain, computes_in_bfloat16


def product(dtype: torch.dtype) -> float:
    """Processor time of one large product, the least of five."""
    left, right = torch.ones(512, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    found = []
    for _ in range(6):
        start = time.process_time()
        torch.nn.functional.linear(left, right)
        found.append(time.process_time() - start)
    return min(found[1:])


@pytest.mark.parametrize(("gain", "wanted"), [(WORTH - 0.01, False), (WORTH, True), (4.0, True), (0.02, False)])
def test_what_was_measured_decides(gain: float, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bfloat16_gain", lambda: gain)
    assert computes_in_bfloat16("cpu") is wanted


def test_other_devices_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bfloat16_gain", lambda: pytest.fail("measured"))
    assert not computes_in_bfloat16("mps")
    assert computes_in_bfloat16("cuda") is (torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def test_the_measurement_agrees_with_a_product_of_its_own() -> None:
    here = product(torch.float32) / product(torch.bfloat16)
    if here < 0.8:  # no unit for it: nobody may say that it is faster
        assert bfloat16_gain() < WORTH
    else:
        assert 0.3 < bfloat16_gain() / here < 3


@pytest.mark.skipif(sys.platform != "linux", reason="the variable is oneDNN's for x86")
def test_a_processor_whose_bfloat16_is_switched_off_computes_in_float32() -> None:
    code = "from concept_cam.backbones.precision import bfloat16_gain; print(bfloat16_gain())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert float(said) < WORTH
