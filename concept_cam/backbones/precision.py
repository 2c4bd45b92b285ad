"""In which number format a processor is fastest."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["computes_in_bfloat16", "flags_promise_bfloat16"]

MATRIX_FLAGS = ("amx_bf16", "bf16")
"""Processor features (x86, ARM) that make bfloat16 faster than float32.

`avx512_bf16` is not among them: without matrix units, bfloat16 takes 1.6 times as long as float32 in matrix products of a ViT-B/16 and
twice as long in convolutions (torch 2.13).
"""


def computes_in_bfloat16(device: str = "cpu") -> bool:
    """Tells whether bfloat16 is faster than float32 on a device, and not merely possible."""
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if device == "mps":
        return False
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return flags_promise_bfloat16(described)


def flags_promise_bfloat16(described: str) -> bool:
    """Tells from the text of `/proc/cpuinfo` whether the processor has matrix units for bfloat16."""
    return not set(MATRIX_FLAGS).isdisjoint(described.split())
