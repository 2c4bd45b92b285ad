"""Fit the rules of trust that come with the bundled model, and measure them on pictures that had no say.

    python examples/training/fit_trust.py --folder concept_cam/trust/fitted
    python examples/training/fit_trust.py --folder out/ --pictures 60      # a quick look

Pictures with known answers: rendered fish of a seed that belongs to neither the training nor the benchmark, half of them plain and half in
the styles of photographs, with false colours on a third; scenes without a fish; and scikit-image's free photographs of other things, in
which every part is absent. Nothing is fitted to the benchmark or to anybody's photographs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam import Localizer, prompts
from concept_cam.core.concept import Concept
from concept_cam.core.progress import Tracker
from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.traits import CHARACTER_PART, CHARACTERS, MASKS, PARTS, PRESENCE_CHARACTERS
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion
from concept_cam.evaluation.guarantees import Observed, fit_trust, guarantee_facts, observe
from concept_cam.trust.rules import Rules

FIT_SEED = 81_000_001
"""Seed of the pictures that the rules are fitted to; those that they are measured on have the next."""

SIZE = (288, 384)
PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket", "camera", "coins", "page", "immunohistochemistry")


def pictures_of(count: int, seed: int) -> Dataset:
    """Makes the data set: rendered fish, empty scenes, and photographs of other things.

    Args:
        count: Rendered pictures.
        seed: Of the renderer.
    """
    concepts = {concept.name: concept for concept in prompts.load("fish")}
    return Dataset("fish and other things", "1", lambda: _stream(count, seed, concepts), count, Concept(("a fish",)))


def _stream(count: int, seed: int, concepts: dict[str, Concept]) -> Iterator[Sample]:
    generator = np.random.default_rng(seed)
    for start in range(0, count, 8):
        profile = "photographs" if (start // 8) % 2 else "plain"
        batch = world.sample(min(8, count - start), seed, view="whole", start=start, profile=profile, empty=0.15)
        rendering = world.render(batch, SIZE, masks=True)
        assert rendering.masks is not None
        images = np.ascontiguousarray(rendering.images.permute(0, 2, 3, 1).numpy())
        masks, visible, judgeable = rendering.masks.numpy(), rendering.visible.numpy(), rendering.judgeable.numpy()
        for i in range(len(batch)):
            picture = false_colours(images[i], generator) if generator.random() < 0.33 else images[i]
            questions = _absent(concepts) if not batch.present[i] else _asked(batch.trait(i), masks[i], visible[i], judgeable[i], concepts)
            yield Sample(f"{seed}-{start + i}", picture, tuple(questions))
    yield from _photographs(concepts)


def _asked(
    traits: dict[str, str],
    masks: npt.NDArray[np.bool_],
    visible: npt.NDArray[np.bool_],
    judgeable: npt.NDArray[np.bool_],
    concepts: dict[str, Concept],
) -> list[SampleQuestion]:
    def mask_of(part: str) -> Any:
        mask = masks[MASKS.index(part)].astype(np.uint8) * 255
        return lambda: mask

    found = [SampleQuestion(concepts[f"parts={part}"], "part", part, mask_of(part)) for part in PARTS if visible[MASKS.index(part)]]
    for place, name in enumerate(CHARACTERS):
        if name not in traits or not judgeable[place]:
            continue
        state, part = traits[name], CHARACTER_PART[name]
        if name in PRESENCE_CHARACTERS:
            there = state != "absent"
            found.append(SampleQuestion(concepts[f"{name}=present"], "presence", name, mask_of(part) if there else None, present=there))
            if not there and f"parts={part}" in concepts:
                found.append(SampleQuestion(concepts[f"parts={part}"], "presence", part, present=False))
    return found


def _absent(concepts: dict[str, Concept]) -> list[SampleQuestion]:
    return [SampleQuestion(concepts[f"parts={part}"], "presence", part, present=False) for part in PARTS]


def _photographs(concepts: dict[str, Concept]) -> Iterator[Sample]:
    from skimage import data

    for name in PHOTOGRAPHS:
        try:
            picture = np.asarray(getattr(data, name)())
        except Exception as error:  # Some of them are downloads: those at hand are enough.
            print(f"left out: skimage.data.{name} ({type(error).__name__})")
            continue
        picture = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture[..., :3]
        for flipped in (False, True):
            yield Sample(
                f"{name}{'-mirrored' if flipped else ''}",
                np.ascontiguousarray(picture[:, ::-1] if flipped else picture),
                tuple(_absent(concepts)),
            )


def false_colours(picture: npt.NDArray[np.uint8], generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Mixes the colours of a picture and bends its tones: a shift that neither the training nor a camera makes in this way."""
    mixing = np.eye(3) + generator.normal(0, 0.25, (3, 3))
    mixed = (picture.astype(np.float64) / 255 @ mixing).clip(0, 1) ** generator.uniform(0.6, 1.6)
    return np.rint(mixed * 255).astype(np.uint8)


def describe(name: str, observed: list[Observed], rules: Rules, localizer: Localizer) -> None:
    """Prints what the rules make of pictures: how often clear is right, how often present is called absent, areas under the curves."""
    from concept_cam.evaluation.metrics import auroc_from_scores

    assert rules.confidence is not None
    assert rules.presence is not None
    features = np.stack([item.features for item in observed])
    right, present = np.array([item.right for item in observed]), np.array([item.present for item in observed])
    sure, there = rules.confidence.of(features), rules.presence.of(features)
    clear = sure >= rules.clear
    absent = there < rules.absent
    print(
        f"{name}: {len(observed)} maps of {len({item.picture for item in observed})} pictures, right {right.mean():.3f}, present "
        f"{present.mean():.3f}"
    )
    print(f"  clear: {clear.mean():.3f} of all, {clear[present].mean():.3f} of the present; right among them {right[clear].mean():.3f}")
    print(
        f"  right against wrong: AUROC {auroc_from_scores(sure[right], sure[~right]):.3f}; among the present "
        f"{_among(sure, right, present):.3f}"
    )
    print(
        f"  present against absent: AUROC {auroc_from_scores(there[present], there[~present]):.3f}; absent said of present "
        f"{absent[present].mean():.3f}"
    )


def _among(sure: npt.NDArray[Any], right: npt.NDArray[Any], present: npt.NDArray[Any]) -> float:
    from concept_cam.evaluation.metrics import auroc_from_scores

    return auroc_from_scores(sure[right & present], sure[~right & present])


def main() -> None:
    """Reads the command line, fits and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pictures", type=int, default=120, help="rendered pictures to fit to; half as many are measured on")
    parser.add_argument("--folder", type=Path, required=True, help="where HASH.json goes, named after the model's weights")
    arguments = parser.parse_args()
    localizer = Localizer.from_pretrained(arguments.model)

    def look(count: int, seed: int) -> list[Observed]:
        data = pictures_of(count, seed)
        tracker = Tracker(lambda: None)

        def told(samples: Any) -> Iterator[Sample]:
            for sample in samples:
                yield sample
                progress = tracker.add(1, 0)
                if progress.done % 40 == 0:
                    print(f"  {progress}", flush=True)

        found, errors = observe(data, localizer, told)
        assert not errors, errors
        return found

    fitted = look(arguments.pictures, FIT_SEED)
    rules = fit_trust(fitted, guarantee_facts(localizer), hosts=("fish",))
    describe("fitted to", fitted, rules, localizer)
    describe("held out", look(arguments.pictures // 2, FIT_SEED + 1), rules, localizer)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / f"{localizer.backbone.weights_hash}.json"
    path.write_text(rules.to_json() + "\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
