from __future__ import annotations

import pytest

from concept_cam.backbones.precision import computes_in_bfloat16, flags_promise_bfloat16
from concept_cam.collection.batching import automatic_dtype


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("flags : fma avx2 avx512f avx512_bf16 avx512_fp16", False),
        ("flags : avx512_bf16 amx_bf16 amx_tile", True),
        ("Features : fp asimd i8mm bf16", True),
        ("", False),
    ],
)
def test_only_matrix_units_promise_a_faster_bfloat16(flags: str, wanted: bool) -> None:
    assert flags_promise_bfloat16(flags) is wanted


def test_the_automatic_format_follows_the_processor() -> None:
    assert automatic_dtype("cpu") == ("bfloat16" if computes_in_bfloat16("cpu") else "float32")
    assert automatic_dtype("mps") == "float32"
