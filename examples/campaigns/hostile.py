"""Damaged files and killed runs by the thousand: everything must end in what is right or in one clear error.

::

    python examples/campaigns/hostile.py read     # 2,000 damaged pictures, masks, tables and archives through the readers
    python examples/campaigns/hostile.py locate   # 200 damaged pictures through the command `concept-cam locate`
    python examples/campaigns/hostile.py kill     # 40 times: an annotation run is killed and continued, and compared with one that was not

Counts: ``right`` (read, or equal), ``error`` (one error of the package), ``other`` (anything else; must be 0, and the exit status says so).
Everything follows from ``--seed``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from campaigns.mutations import mutated

from concept_cam.commands.console import at_least_one, run_script
from concept_cam.core.errors import ConceptCamError

FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "TGA", "JPEG2000", "ICO", "PCX", "SGI")
MASKS = ("I;16", "P", "1", "L")


def picture(form: str, seed: int, size: tuple[int, int] = (48, 64)) -> bytes:
    """Returns an encoded picture: a grey body on noise."""
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[size[0] // 3 : 2 * size[0] // 3, 5:-5] = 120
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def mask(mode: str, seed: int) -> bytes:
    """Returns a mask as PNG."""
    values = np.random.default_rng(seed).integers(0, 2, (48, 64))
    image = Image.fromarray(values.astype(np.uint16)) if mode == "I;16" else Image.fromarray(values.astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def read(count: int, seed: int) -> Counter[str]:
    """Damaged pictures and masks through the readers."""
    from concept_cam.pictures.masks import read_mask_labels
    from concept_cam.pictures.reading import read_image

    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            of_mask = number % 5 == 4
            good = mask(MASKS[number % len(MASKS)], number) if of_mask else picture(FORMATS[number % len(FORMATS)], number)
            path = Path(folder) / "x"
            path.write_bytes(mutated(good, seed * 1_000_003 + number))
            found[
                outcome(lambda path=path, of_mask=of_mask: read_mask_labels(path) if of_mask else read_image(path, max_pixels=20_000_000))
            ] += 1
    return found


def outcome(call: Callable[[], Any]) -> str:
    """Tells how a call ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except ConceptCamError:
            return "error"
        except Exception as error:
            print(f"other: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
            return "other"
    return "right"


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Starts ``concept-cam``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "concept_cam.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def locate(count: int, seed: int) -> Counter[str]:
    """Damaged pictures through one ``locate``: each is answered, or named in one error."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(count):
            path = Path(folder) / f"{number:04d}.{FORMATS[number % len(FORMATS)].lower()}"
            path.write_bytes(mutated(picture(FORMATS[number % len(FORMATS)], number), seed * 1_000_003 + number))
            paths.append(str(path))
        process = command("locate", *paths, "--target", "a forked tail fin", "--contrast", "a rounded tail fin", "--quiet")
        out, err = process.communicate()
    named = [path for path in paths if path in err or os.path.basename(path) in err]
    answered = [path for path in paths if path in out or os.path.basename(path) in out]
    neither = [path for path in paths if path not in named and path not in answered]
    for path in neither:
        print(f"other: {path} is neither answered nor named", file=sys.stderr)
    if "Traceback" in err:
        print(err[-2000:], file=sys.stderr)
    return Counter(right=len([path for path in answered if path not in named]), error=len(named), other=len(neither) + ("Traceback" in err))


def kill(count: int, seed: int, pictures: int = 60) -> Counter[str]:
    """Kills an annotation run again and again, continues it, and compares it with one that was not killed."""
    from concept_cam.collection.runs import read_run

    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        inputs.mkdir()
        for number in range(pictures):
            content = picture("PNG", number)
            (inputs / f"{number:04d}.png").write_bytes(content if number % 10 else mutated(content, number))
        table = inputs / "media.csv"  # two occurrences of some pictures
        rows = [(f"o{number}", f"{number:04d}.png") for number in range(pictures)] + [
            (f"p{number}", f"{number:04d}.png") for number in range(0, pictures, 7)
        ]
        table.write_text("occurrenceID,identifier\n" + "".join(f"{one},{two}\n" for one, two in rows))
        arguments = (
            "annotate",
            str(table),
            "--traits",
            "fish:parts",
            "--dtype",
            "float32",
            "--workers",
            "1",
            "--part-size",
            "2",
            "--batch-size",
            "2",
        )
        whole = Path(folder) / "whole"
        process = command(*arguments, "-o", str(whole))
        print(process.communicate()[0].strip(), file=sys.stderr)
        expected = contents(whole)
        killed, run = 0, 0
        while killed < count:
            run += 1
            output = Path(folder) / f"run{run}"
            while True:
                process = command(*arguments, "-o", str(output), "--resume", start_new_session=True)
                # At any moment: while modules are imported, the model is loaded, parts are written.
                ended = waited(process, chance.uniform(0.5, 25.0)) if killed < count else waited(process, None)
                if ended:
                    break
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                killed += 1
            equal = contents(output) == expected
            found["right" if equal else "other"] += 1
            print(f"run {run}: {killed} kills so far; {'equal' if equal else 'DIFFERENT'}", file=sys.stderr)
    found["kills"] = killed
    assert read_run is not None
    return found


def waited(process: subprocess.Popen[str], seconds: float | None) -> bool:
    """Waits for a process; tells whether it ended by itself."""
    start = time.monotonic()
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    if process.returncode:
        print(f"status {process.returncode} after {time.monotonic() - start:.0f} s: {err[-500:]}", file=sys.stderr)
    return True


def contents(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Returns a run's records by key, and its errors: what must be equal."""
    from concept_cam.collection.runs import read_run

    run = read_run(folder)
    records = list(run.records())
    found = {record["record_key"]: json.dumps(record, sort_keys=True, default=str) for record in records}
    if len(found) != len(records):
        raise AssertionError("a record is there twice")
    return found, sorted(error["source"] for error in run.errors())


def main() -> None:
    """Runs one campaign and prints its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=("read", "locate", "kill"))
    parser.add_argument("--count", type=at_least_one, help="Files, or kills.  [default: 2000, 200 or 40]")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    campaigns: dict[str, tuple[Callable[[int, int], Counter[str]], int]] = {
        "read": (read, 2000),
        "locate": (locate, 200),
        "kill": (kill, 40),
    }
    run, count = campaigns[given.campaign]
    found = run(given.count or count, given.seed)
    print(", ".join(f"{name} {found[name]}" for name in ("right", "error", "other", "kills") if name in found or name != "kills"))
    sys.exit(1 if found["other"] else 0)


if __name__ == "__main__":
    run_script(main)
