"""Ctrl-C is one line and status 130 while modules are imported too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[1])

SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("importing", flush=True)
            try:
                time.sleep(60)
            except KeyboardInterrupt as error:
                raise ImportError("interrupted in the middle") from error
sys.meta_path.insert(0, Slow())
sys.argv = ["concept-cam", "locate", "fish.png", "--target", "a tail fin"]
from concept_cam.cli import main
main()
"""


@pytest.mark.parametrize("module", ["click", "concept_cam.commands.locate", "torch"])
def test_an_interrupt_while_importing_is_one_line(module: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_IMPORT.format(module=module)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
        # A job in the background is started with Ctrl-C ignored; a person's shell is not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err == "concept-cam: interrupted.\n"
    assert process.returncode == 130
