"""Fit the rules of trust that come with the bundled model, and measure them on pictures that had no say.

    PYTHONPATH=examples python -m training.fit_trust --folder concept_cam/trust/fitted
    PYTHONPATH=examples python -m training.fit_trust --folder out/ --pictures 24      # a quick look

What is looked at is described in ``trust_pictures.py``. By default the parts and states of every group are asked for whose words the model
knows; the other groups serve as specimens that lack them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from concept_cam import Localizer, backbones, prompts
from concept_cam.commands.console import at_least, at_least_one, run_script
from concept_cam.core.progress import Tracker
from concept_cam.demo.worlds import WORLDS
from concept_cam.evaluation.datasets.samples import Sample
from concept_cam.evaluation.guarantees import Observed, fit_trust, observe
from concept_cam.evaluation.metrics import auroc_from_scores
from concept_cam.trust.rules import Rules, judge
from concept_cam.trust.verdicts import ABSENT, CLEAR
from training.trust_pictures import FIT_SEED, pictures_of


def known_groups(localizer: Localizer) -> list[str]:
    """Returns the groups that the model was trained on: those it names, or else those whose parts it has words for."""
    named = getattr(localizer.backbone, "groups", ())
    if named:
        return [group for group in WORLDS if group in named]
    known = []
    for group in WORLDS:
        parts = prompts.load(f"{group}:parts")
        strange = sum(bool(localizer.unknown_words([concept])) for concept in parts)
        if strange <= len(parts) / 2:
            known.append(group)
    return known


def describe(name: str, observed: list[Observed], rules: Rules) -> None:
    """Prints what the rules make of pictures: how often clear is right, how often present is called absent, areas under the curves."""
    judged = [item.judged for item in observed]
    verdicts = [judge(item.found, item.facts, rules) for item in judged]
    print(f"{name}: {len(judged)} maps of {len({item.picture for item in judged})} pictures")
    for kind, fit in rules.fits.items():
        rows = [number for number, item in enumerate(judged) if rules.fit_of(item.facts) is fit]
        if not rows:
            continue
        right, present = (np.array([getattr(judged[row], field) for row in rows]) for field in ("right", "present"))
        sure, there = (np.array([getattr(verdicts[row], field) for row in rows]) for field in ("confidence", "presence"))
        clear, absent = (np.array([verdicts[row].verdict == verdict for row in rows]) for verdict in (CLEAR, ABSENT))
        print(
            f"  {kind}: {len(rows)} maps, present {present.mean():.3f}, right among those {right[present].mean():.3f}; clear "
            f"{clear[present].mean():.3f} of the present, right among the clear {_share(right[clear])}"
        )
        print(
            f"    right against wrong: AUROC {_area(sure, right):.3f}, among the present {_area(sure[present], right[present]):.3f}; "
            f"present against absent {_area(there, present):.3f}; absent said of {absent[present].mean():.3f} of the present and "
            f"{absent[~present].mean():.3f} of the absent"
        )


def _share(values: Any) -> str:
    return f"{values.mean():.3f}" if len(values) else "-"


def _area(values: Any, truth: Any) -> float:
    return auroc_from_scores(values[truth], values[~truth]) if truth.any() and not truth.all() else float("nan")


def main() -> None:
    """Reads the command line, fits and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pictures", type=at_least_one, default=160, help="rendered pictures to fit to, of each group that is asked for")
    parser.add_argument("--held-out", type=at_least(0), default=32, help="rendered pictures of each group to measure on")
    parser.add_argument("--collages", type=at_least(0), default=60, help="collages of photographs to fit to; a third more to measure on")
    parser.add_argument(
        "--hosts", help="groups whose parts are asked for, such as fish,beetle; by default those that the model has words for"
    )
    parser.add_argument("--careful", action="store_true", help="fit agreement as well: every picture is encoded four times")
    parser.add_argument("--folder", type=Path, required=True, help="where HASH.json goes, named after the model's weights")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)  # Before the work: a folder that cannot be made is found at once.
    torch.set_num_threads(1)
    began = time.process_time()
    localizer = Localizer(backbones.load(arguments.model), rules=Rules())
    hosts = arguments.hosts.split(",") if arguments.hosts else known_groups(localizer)
    print(f"groups that are drawn: {', '.join(WORLDS)}; asked for: {', '.join(hosts)}")

    def look(count: int, collages: int, seed: int) -> list[Observed]:
        data = pictures_of(count, seed, hosts, collages)
        tracker = Tracker(lambda: None)

        def told(samples: Any) -> Iterator[Sample]:
            for sample in samples:
                yield sample
                progress = tracker.add(1, 0)
                if progress.done % 40 == 0:
                    print(f"  {progress}", flush=True)

        found, errors = observe(data, localizer, told, careful=arguments.careful, masks=False)
        assert not errors, errors
        return found

    fitted = look(arguments.pictures, arguments.collages, FIT_SEED)
    names = tuple(dict.fromkeys(str(concept.metadata["host"]) for group in hosts for concept in prompts.load(group)))
    rules = fit_trust(fitted, localizer.conditions(), hosts=names)
    path = arguments.folder / f"{localizer.backbone.weights_hash}.json"
    path.write_text(rules.to_json() + "\n", encoding="utf-8")
    print(f"wrote {path}")
    describe("fitted to", fitted, rules)
    if arguments.held_out:
        describe("held out", look(arguments.held_out, arguments.collages // 3, FIT_SEED + 1), rules)
    print(f"{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    run_script(main)
