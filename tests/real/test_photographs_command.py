"""The benchmark on photographs runs as one command: here on those of scikit-image, whose labels are written beside them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.real.test_real_network import pytestmark  # noqa: F401  # Real, and skipped without the weights package.

SCRIPT = Path(__file__).parent.parent.parent / "examples" / "benchmarks" / "photographs.py"
LABELS = {"chelsea": "tabby", "coffee": "espresso", "rocket": "missile", "cat": "Egyptian cat"}
STEPS = "accuracy,faithfulness,areas,lcam,errors,lcam_slow,faithfulness_score_cam"
SMALL = ("--fm-steps", "2", "--img-steps", "1", "--windows", "2", "--area-pictures", "1", "--channel-groups", "4", "--masks", "4",
         "--slow-pictures", "1", "--error-windows", "1")  # fmt: skip


def test_the_command_prints_its_tables(tmp_path: Path) -> None:
    pytest.importorskip("ttach", reason="the extra 'cams' is not installed")
    from skimage import data

    folder, output = tmp_path / "photographs", tmp_path / "out"
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ("image", "class"))
        table.writeheader()
        for name, label in LABELS.items():
            Image.fromarray(data.chelsea()[:, ::-1] if name == "cat" else getattr(data, name)()).save(folder / f"{name}.png")
            table.writerow({"image": f"{name}.png", "class": label})
    command = [sys.executable, str(SCRIPT), "--photographs", str(folder), "-o", str(output), *SMALL]
    done = subprocess.run([*command, "--only", STEPS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for heading in (
        "2 photographs for training, 2 for measuring", "Faithfulness, 2 photographs, top 5% of pixels become the mean",
        "Deletion (lower is better)", "L-CAM's table, 2 photographs", "L-CAM's table with Score-CAM and RISE, 1 photographs",
        "| L-CAM-Img from Grad-CAM, before the sigmoid |", "| score-cam:4 |", "wrong first guesses",
    ):  # fmt: skip
        assert heading in done.stdout, heading
    rows = json.loads((output / "faithfulness.json").read_text(encoding="utf-8"))
    assert len(rows) == 2 * 3 * 6 * 2  # Photographs, bases, forms, fills.
    assert all(-2 <= row["relative"] <= 2 for row in rows)
    assert len({row["relative"] for row in rows}) > 10
    wrong = subprocess.run([*command, "--only", "faith"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "no step faith" in wrong.stderr
