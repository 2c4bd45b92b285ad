"""What is known of this machine: measured once, kept in memory and in the cache folder, measured again where anything changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from concept_cam.core.cache import cache_folder
from concept_cam.core.errors import ConfigurationError, OutputError
from concept_cam.core.files import write_file

__all__ = ["device_of", "least_seconds", "machine", "remembered"]

FLAG_LINES = ("flags", "Features")
"""What the list of a processor's instructions is called in ``/proc/cpuinfo`` (x86, ARM)."""

LIMITS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE")
"""Environment variables that forbid a processor instructions that it has, or change what a product is computed in."""

_MEASURED: dict[str, Mapping[str, Any]] = {}
_LOCK = threading.Lock()


def machine(device: torch.device) -> dict[str, str]:
    """Describes what decides how fast a device computes: the processor, its instructions, torch and its threads."""
    limits = {name: os.environ[name] for name in LIMITS if name in os.environ}
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "torch": torch.__version__, **limits}
    name, flags = _processor()
    return {
        "device": device.type,
        "processor": name,
        "instructions": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        **limits,
    }


def _processor() -> tuple[str, str]:
    """The processor's name and its list of instructions; two of one name may differ in what a virtual machine lets through."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), ""
    lines = dict(reversed([(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in text.splitlines())]))
    flags = next((lines[name] for name in FLAG_LINES if name in lines), "")
    return lines.get("model name") or platform.machine(), flags


def remembered(what: Mapping[str, Any], device: torch.device, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns what was measured on this machine, or measures it.

    Args:
        what: What is measured, as plain data.
        device: Where.
        measure: Measures it: plain data for JSON.
    """
    facts = {"what": dict(what), "machine": machine(device)}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    with _LOCK:  # Two measurements at once would disturb each other.
        if key not in _MEASURED:
            folder = cache_folder()
            path = None if folder is None else folder / "machine" / f"{key}.json"
            found = None if path is None else _read(path, facts)
            if found is None:
                found = dict(measure())
                if path is not None:
                    _write(path, {**facts, "found": found})
            _MEASURED[key] = found
        return _MEASURED[key]


def _read(path: Path, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # Not there, or damaged: it is measured again.
    if not isinstance(kept, dict) or not isinstance(kept.get("found"), dict) or {name: kept.get(name) for name in facts} != facts:
        return None
    found: dict[str, Any] = kept["found"]
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError, OutputError):  # A cache that cannot be written costs time, not the answer.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(content, indent=1).encode(), overwrite=True)


def least_seconds(works: Sequence[Callable[[], object]], device: torch.device, rounds: int = 5) -> list[float]:
    """Times works in turn, after one pass each that does not count, and returns the least time of each.

    The least, for other work on the machine can only lengthen a pass; in turn, so that it lengthens all alike. On a CPU it is processor
    time, which other processes hardly disturb (on Windows, whose clock of it ticks too coarsely, time).
    """
    clock = time.process_time if device.type == "cpu" and os.name != "nt" else time.perf_counter
    found = [float("inf")] * len(works)
    for round_ in range(rounds + 1):
        for number, work in enumerate(works):
            _wait(device)
            start = clock()
            work()
            _wait(device)
            if round_:
                found[number] = min(found[number], clock() - start)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_of(name: str | torch.device) -> torch.device:
    """Returns the device of a name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"`` for the fastest that there is.

    Raises:
        ConfigurationError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        where = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"unknown device {name!r}: expected 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'.") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("no CUDA device is available to this torch; use device 'cpu', or install torch for CUDA.")
    if where.type == "cuda" and where.index is not None and where.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ConfigurationError(f"there is no CUDA device {name!r} here: the last one is 'cuda:{last}'.")
    if where.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError("no MPS device is available to this torch; use device 'cpu'.")
    return where
