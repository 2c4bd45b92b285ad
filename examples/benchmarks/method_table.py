"""Measures every method on the built-in benchmark, on one model and the same pictures, and prints the table.

    python examples/benchmarks/method_table.py --output method_table/

Trains L-CAM-Fm and L-CAM-Img, then runs ``concept-cam evaluate``: all methods; the direct method with every attention; with several gammas;
and, on fewer and smaller pictures, the two methods that run the tower or its pooling once per channel. Each command is printed, each report
stays under the output folder, and a finished step is not run again. ``--quick`` proves all but ``score-cam`` on one picture.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from concept_cam.commands.console import run_script

METHODS = (
    "direct", "gem", "clip-surgery", "grad-cam", "finer-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "eigen-cam", "kpca-cam",
    "grad-eclip", "legrad",
)  # fmt: skip
SLOW = ("direct", "ablation-cam", "score-cam")
ATTENTIONS = ("vanilla", "value", "qq", "kk", "qq+kk", "vv")
SHOWN = ("direct · gamma 1", "direct · gamma 0", "grad-cam · gamma 1", "finer-cam · gamma 1", "legrad · gamma 1", "lcam:fm · gamma 1")
"""Rows of the picture."""

COLUMNS = (
    ("part", "ap_host", "parts: AP in the fish"),
    ("part", "auroc_host", "AUROC in the fish"),
    ("part", "pointing", "pointing"),
    ("part", "own_part", "own part"),
    ("state", "ap_difference", "states: AP twin"),
    ("all", "dependence", "dependence"),
)
GAINS = (("part", "ap_host", "parts: AP in the fish"), ("state", "ap_difference", "states: AP twin"))


def run(*arguments: str) -> None:
    """Runs ``concept-cam`` with these arguments and prints what it ran and how long it took."""
    click.echo(f"$ concept-cam {shlex.join(arguments)}", err=True)
    start = time.perf_counter()
    command = [sys.executable, "-c", "from concept_cam.cli import main; main()", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    click.echo(f"  {time.perf_counter() - start:.0f} s", err=True)


def fit(folder: Path, kind: str, pictures: int, steps: int, model: str, size: int | None) -> str:
    """Trains an explainer unless it is there; returns the method's name."""
    path = folder / f"{kind}.safetensors"
    if not path.exists():
        run(
            "fit-attention", "synthetic", "--kind", kind, "--pictures", str(pictures), "--steps", str(steps), "--model", model,
            *(() if size is None else ("--size", str(size))), "-o", str(path),
        )  # fmt: skip
    return f"lcam:{path}"


def evaluate(folder: Path, methods: Sequence[str], limit: int, model: str, *options: str) -> dict[str, Any]:
    """Measures unless the report is there; returns it."""
    if not (folder / "report.json").exists():
        run(
            "evaluate", "--dataset", "synthetic", "--limit", str(limit), "--methods", ",".join(methods), "--model", model, *options,
            "--output", str(folder),
        )  # fmt: skip
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def cell(found: dict[str, Any] | None, sign: bool = False) -> str:
    """Formats an estimate with its interval."""
    if not found or found["value"] is None:
        return ""
    form = "{:+.3f}" if sign else "{:.3f}"
    text = form.format(found["value"])
    return text if found["low"] is None else f"{text} [{form.format(found['low'])}, {form.format(found['high'])}]"


def table(reports: Sequence[dict[str, Any]], suffixes: Sequence[str]) -> str:
    """One table of the rows of all reports, the rows of each marked with its suffix; what comes again is left out."""
    lines = ["| | " + " | ".join(title for _, _, title in COLUMNS) + " | s / image | ms / concept | set-up s | pictures |"]
    lines.append("|---" * (len(COLUMNS) + 5) + "|")
    seen: set[str] = set()
    for report, suffix in zip(reports, suffixes):
        for row in report["rows"]:
            name = row["name"] if row["gamma"] is None else row["name"] + suffix
            if name in seen:
                continue
            seen.add(name)
            cells = [cell(row["tables"].get(kind, {}).get(metric)) for kind, metric, _ in COLUMNS]
            cells += [f"{row['seconds_per_image']:.3f}", f"{1000 * row['seconds_per_concept']:.1f}", f"{row['setup_seconds']:.1f}"]
            lines.append(f"| {name} | {' | '.join(cells)} | {report['facts']['dataset']['pictures']} |")
    return "\n".join(lines)


def gains(reports: Sequence[dict[str, Any]]) -> str:
    """What the contrast adds to each method, as paired differences from gamma 0."""
    lines = ["| | " + " | ".join(title for _, _, title in GAINS) + " |", "|---" * (len(GAINS) + 1) + "|"]
    done: set[str] = set()
    for report in reports:
        found = {(item["row"], item["kind"], item["metric"]): item["difference"] for item in report["contrast_gains"]}
        for name in dict.fromkeys(row for row, _, _ in found if row not in done):
            done.add(name)
            cells = [cell(found.get((name, kind, metric)), sign=True) for kind, metric, _ in GAINS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(path: Path, explainer: str, model: str) -> None:
    """Draws some rows on the first pictures, one colour scale per column."""
    from concept_cam import Localizer
    from concept_cam.evaluation import datasets, runner

    report = runner.evaluate(
        datasets.load("synthetic", limit=4), Localizer.from_pretrained(model),
        methods=("direct", "grad-cam", "finer-cam", "legrad", explainer),
        baselines=(), examples=4, draws=1,
    )  # fmt: skip
    sheet = report.example_sheet(SHOWN)
    sheet.thumbnail((1600, 1600))
    sheet.save(path, optimize=True)


@click.command()
@click.option("--output", "-o", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of explainers and reports.")
@click.option("--model", default="demo", show_default=True)
@click.option("--pictures", default=30, show_default=True, help="Pictures of the benchmark.")
@click.option("--slow-pictures", default=5, show_default=True, help="Pictures for the two slow methods.")
@click.option("--slow-size", default=128, show_default=True, help="Side at which the two slow methods read pictures.")
@click.option("--gammas", default="0.3,0.6", show_default=True, help="Of the direct method.")
@click.option("--lcam-pictures", default=300, show_default=True, help="Training pictures of the explainers.")
@click.option("--lcam-size", type=int, help="Side at which L-CAM-Fm is trained.  [default: the model's native one]")
@click.option("--quick", is_flag=True, help="Few pictures and steps: does it all run?")
def main(
    output: Path,
    model: str,
    pictures: int,
    slow_pictures: int,
    slow_size: int,
    gammas: str,
    lcam_pictures: int,
    lcam_size: int | None,
    quick: bool,
) -> None:
    """Prints the tables."""
    steps = {"fm": 300, "img": 200}
    slow: tuple[str, ...] = SLOW
    if quick:
        pictures, slow_pictures, lcam_pictures, steps, slow = 1, 1, 16, {"fm": 20, "img": 5}, SLOW[:2]
    output.mkdir(parents=True, exist_ok=True)
    learned = [
        fit(output, "fm", lcam_pictures, steps["fm"], model, lcam_size),
        fit(output, "img", lcam_pictures, steps["img"], model, None),  # Every step runs the whole tower: at the native size.
    ]
    common = ("--max-side", "192")  # Every second pixel: far finer than the grid, and measured in a quarter of the time.
    reports = [
        evaluate(output / "methods", (*METHODS, *learned), pictures, model, *common),
        evaluate(output / "gammas", ("direct",), pictures, model, "--gamma", gammas, *common),
        evaluate(output / "attentions", ("direct",), pictures, model, "--attention", ",".join(ATTENTIONS), *common),
        evaluate(output / "slow", slow, slow_pictures, model, "--size", str(slow_size), *common),
    ]
    picture(output / "methods.png", learned[0], model)
    facts = reports[0]["facts"]
    click.echo(f"{facts['model']['name']} ({facts['model']['weights_hash']}) on {facts['dataset']['name']} {facts['dataset']['version']}\n")
    click.echo(table(reports, ("", "", "", f" · {slow_size} px")))
    click.echo("\nWhat the contrast adds, paired on the same questions:\n")
    click.echo(gains(reports[:3]))
    click.echo(f"\nPicture: {output / 'methods.png'}", err=True)


if __name__ == "__main__":
    run_script(main)
