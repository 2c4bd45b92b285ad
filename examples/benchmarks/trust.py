"""Can the certificate be believed? Five tables; each step takes some minutes of one core and prints what it finds with 95 % intervals.

    python examples/benchmarks/trust.py knows absence failures conformal cost
    python examples/benchmarks/trust.py knows absence --real FOLDER          # with photographs that have masks of parts and of things

FOLDER holds ``NAME/manifest.json`` with the columns that ``concept_cam.evaluation.datasets.folder`` reads. NAME is ``catfish`` (parts of
fishes) or ``coco`` (things; the rows marked ``easy`` are of one thing that is neither tiny nor all of the picture). Nothing was fitted to
these pictures, nor to the benchmark's. Steps:

* ``knows``: is the peak on the target where the verdict is clear? Risk and coverage, ordered by the certificate, by the score, by the
  probability, and by chance.
* ``absence``: twins without the part, empty scenes, other groups' parts, photographs of other things: is what is absent told from what is
  there?
* ``failures``: towers that fail in known ways are called out, the healthy one is not.
* ``conformal``: the realised risk of the guarantees over 200 random splits into labelled and new pictures.
* ``cost``: processor time of certificates beside that of encoding.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from concept_cam import Concept, Localizer, prompts
from concept_cam.demo.worlds import WORLDS
from concept_cam.evaluation.datasets import synthetic
from concept_cam.evaluation.datasets.samples import Dataset, Sample, SampleQuestion, read_target_mask
from concept_cam.evaluation.failing import FAILURES, spoilt
from concept_cam.evaluation.guarantees import Observed, observe
from concept_cam.evaluation.metrics import auroc_from_scores
from concept_cam.evaluation.metrics.intervals import Interval, bootstrap
from concept_cam.evaluation.randomisation import randomised
from concept_cam.trust.conformal import MASK_LEVELS, inner_limit, outer_limit, state_limit
from concept_cam.trust.verdicts import ABSENT, CLEAR, OFF_PROMPT

SEED = 97_000_001
"""Of pictures that are drawn here; neither the training's, nor the fit's, nor the benchmark's."""
SIZE = (256, 384)
CATFISH = {"head": "head", "tail": "caudal_fin", "body": "trunk"}
"""Keys of the photographs' masks, and the parts of the trait pack that they are."""
ALPHAS = (0.05, 0.10, 0.20)
SPLITS = 200


@dataclass(frozen=True)
class Map:
    """One map and its truth."""

    picture: str
    group: str
    right: bool
    present: bool
    verdict: str
    reason: str
    confidence: float
    presence: float
    score: float
    probability: float


def maps_of(localizer: Localizer, samples: Iterator[Sample], group: Callable[[SampleQuestion], str], careful: bool = False) -> list[Map]:
    """Asks the questions of pictures."""
    found = []
    for sample in samples:
        asked = [question for question in sample.questions if question.mask is not None or not question.present]
        if not asked:
            continue
        answers = localizer.locate_all([sample.image], [question.concept for question in asked], careful=careful)[0]
        for question, answer in zip(asked, answers):
            right = False
            if question.mask is not None:
                mask, (x, y) = np.asarray(question.mask()), answer.peak
                right = bool(mask[min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)] in (1, 255))
            told = answer.certificate
            nan = math.nan
            found.append(
                Map(
                    sample.name,
                    group(question),
                    right,
                    question.present,
                    told.verdict,
                    told.reason,
                    nan if told.confidence is None else told.confidence,
                    nan if told.presence is None else told.presence,
                    answer.peak_score,
                    nan if answer.probability is None else answer.probability,
                )
            )
    return found


# --------------------------------------------------------------------------------------------------------------- pictures


def benchmark(count: int) -> Iterator[Sample]:
    """The parts of the built-in benchmark."""
    for sample in synthetic.load(count):
        questions = tuple(question for question in sample.questions if question.kind == "part")
        yield Sample(sample.name, sample.image, questions)


def catfish(root: Path) -> Iterator[Sample]:
    """Photographs of catfish."""
    parts = {str(concept.metadata["state"]): concept for concept in prompts.load("fish:parts")}
    for image, rows in _by_picture(root).items():
        own = [row for row in rows if row["key"] in CATFISH]
        yield Sample(
            image,
            root / image,
            tuple(
                SampleQuestion(parts[CATFISH[row["key"]]], "part", row["key"], partial(read_target_mask, root / row["mask"])) for row in own
            ),
        )


def things(root: Path, absent: int = 0) -> Iterator[Sample]:
    """Photographs of things: the rows marked ``easy``, against the other things in the picture; and things that are not there."""
    for image, rows in _by_picture(root).items():
        questions = [
            SampleQuestion(
                Concept((_named(row["query"]),), tuple((_named(other),) for other in row["contrast"])),
                "object",
                row["key"],
                partial(read_target_mask, root / row["mask"]),
            )
            for row in rows
            if row.get("easy")
        ]
        others = tuple((_named(other),) for other in rows[0]["contrast"])
        questions += [
            SampleQuestion(Concept((_named(name),), others), "presence", name, present=False)
            for name in rows[0]["contrast_absent"][:absent]
        ]
        yield Sample(image, root / image, tuple(questions))


def _named(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _by_picture(root: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads((root / "manifest.json").read_text(encoding="utf-8")):
        found.setdefault(row["image"], []).append(row)
    return found


def twins(group: str, count: int, seed: int = SEED) -> Iterator[Sample]:
    """Specimens with a part, and their twins without it, for every character of presence."""
    world = WORLDS[group]
    concepts = {concept.name: concept for concept in prompts.load(group)}
    for number, character in enumerate(world.presences):
        part = world.character_mask[character]
        concept = concepts.get(f"parts={part}") or concepts.get(f"{character}=present")
        if concept is None:
            continue
        batch = world.sample(count, seed, view="whole", traits={character: "present"}, start=1000 * number)
        seen = world.render(batch, SIZE, masks=True)
        without = world.render(world.twin(batch, character, "absent"), SIZE)
        assert seen.masks is not None
        place = world.masks.index(part)
        for i in range(count):
            if not bool(seen.visible[i, place]):
                continue
            mask = seen.masks[i, place].numpy().astype(np.uint8) * 255
            name = f"{group}-{character}-{i}"
            yield Sample(name, _pixels(seen.images[i]), (SampleQuestion(concept, "part", "twins", lambda mask=mask: mask),))
            yield Sample(name, _pixels(without.images[i]), (SampleQuestion(concept, "presence", "twins", present=False),))


def strangers(groups: Sequence[str], count: int, seed: int = SEED) -> Iterator[Sample]:
    """Empty scenes and specimens of other groups, asked for a group's parts."""
    for group in groups:
        parts = [concept for concept in prompts.load(group) if concept.metadata.get("kind") == "part"]
        for other, world in WORLDS.items():
            batch = world.sample(count, seed, view="whole", empty=1.0 if other == group else 0.0)
            images = world.render(batch, SIZE).images
            title = "empty scenes" if other == group else "other groups"
            for i in range(count):
                questions = tuple(SampleQuestion(concept, "presence", title, present=False) for concept in parts)
                yield Sample(f"{group}-{other}-{i}", _pixels(images[i]), questions)


def _pixels(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


# --------------------------------------------------------------------------------------------------------------- tables


def shown(found: Interval, digits: int = 3) -> str:
    """An estimate with its interval."""
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def over_pictures(maps: Sequence[Map], statistic: Callable[[Sequence[Map]], float], draws: int = 500) -> Interval:
    """A statistic with its bootstrap interval over pictures."""
    groups: dict[str, list[Map]] = {}
    for item in maps:
        groups.setdefault(item.picture, []).append(item)
    pictures = list(groups.values())
    return bootstrap(lambda chosen: statistic([item for number in chosen for item in pictures[number]]), len(pictures), draws)


def _area(maps: Sequence[Map], value: str, truth: str) -> float:
    known = [item for item in maps if not math.isnan(getattr(item, value))]
    yes = np.array([getattr(item, value) for item in known if getattr(item, truth)])
    no = np.array([getattr(item, value) for item in known if not getattr(item, truth)])
    return float(auroc_from_scores(yes, no)) if len(yes) and len(no) else math.nan


def _risk_area(maps: Sequence[Map], value: str) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017): the mean, over coverages, of the share of wrong peaks."""
    values = np.array([getattr(item, value) for item in maps])
    wrong = np.array([not item.right for item in maps], dtype=np.float64)
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    return float((np.cumsum(wrong[order]) / np.arange(1, len(maps) + 1)).mean())


def knows(localizer: Localizer, arguments: argparse.Namespace) -> None:
    """Table 1."""
    sets: list[tuple[str, Iterator[Sample]]] = [(f"benchmark, {arguments.pictures} pictures", benchmark(arguments.pictures))]
    if arguments.real is not None:
        sets += [("catfish", catfish(arguments.real / "catfish")), ("things, easy rows", things(arguments.real / "coco"))]
    print("\n| pictures | maps | pointing | clear: coverage | clear: pointing | right against wrong, AUROC |")
    print("|---|---|---|---|---|---|")
    rows = []
    for name, samples in sets:
        maps = maps_of(localizer, samples, lambda question: question.trait, arguments.careful)
        rows.append((name, maps))
        right = over_pictures(maps, lambda own: float(np.mean([item.right for item in own])))
        covered = over_pictures(maps, lambda own: float(np.mean([item.verdict == CLEAR for item in own])))
        precise = over_pictures(maps, _clear_right)
        area = over_pictures(maps, lambda own: _area(own, "confidence", "right"))
        print(f"| {name} | {len(maps)} | {shown(right)} | {shown(covered)} | {shown(precise)} | {shown(area)} |", flush=True)
    print("\n| area under risk-coverage, lower is better | by the certificate | by the score | by the probability | by chance |")
    print("|---|---|---|---|---|")
    for name, maps in rows:
        cells = [shown(over_pictures(maps, partial(_risk_area, value=value))) for value in ("confidence", "score", "probability")]
        chance = over_pictures(maps, lambda own: float(np.mean([not item.right for item in own])))
        print(f"| {name} | {' | '.join(cells)} | {shown(chance)} |")
    shares = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    print(f"\n| share of right peaks among the surest ... | {' | '.join(f'{share:.0%}' for share in shares)} |")
    print("|---" * (1 + len(shares)) + "|")
    for name, maps in rows:
        order = sorted(maps, key=lambda item: -np.nan_to_num(item.confidence, nan=-1.0))
        cells = [f"{np.mean([item.right for item in order[: max(1, round(share * len(order)))]]):.3f}" for share in shares]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| target | pictures | maps | right | clear | right among clear | absent |")
    print("|---|---|---|---|---|---|---|")
    for name, maps in rows[:2]:
        for target in dict.fromkeys(item.group for item in maps):
            own = [item for item in maps if item.group == target]
            clear = [item for item in own if item.verdict == CLEAR]
            among = f"{np.mean([item.right for item in clear]):.3f}" if clear else "-"
            absent = np.mean([item.verdict == ABSENT for item in own])
            print(
                f"| {target} | {name} | {len(own)} | {np.mean([item.right for item in own]):.3f} | {len(clear) / len(own):.3f} | {among} | "
                f"{absent:.3f} |"
            )


def _clear_right(maps: Sequence[Map]) -> float:
    clear = [item.right for item in maps if item.verdict == CLEAR]
    return float(np.mean(clear)) if clear else math.nan


def absence(localizer: Localizer, arguments: argparse.Namespace) -> None:
    """Table 2."""
    groups = [group for group in WORLDS if localizer.rules.hosts and _host(group) in localizer.rules.hosts]
    rendered = [item for group in groups for item in maps_of(localizer, twins(group, arguments.twins), lambda question: "twins")]
    missing = maps_of(localizer, strangers(groups, arguments.strangers), lambda question: question.trait)
    there = maps_of(localizer, benchmark(arguments.pictures), lambda question: "benchmark")
    rows: list[tuple[str, list[Map]]] = [("twins without the part", rendered)]
    for title in ("empty scenes", "other groups"):
        own = [item for item in missing if item.group == title]
        if own:
            rows.append((f"{title}, against the benchmark's parts", [*own, *there]))
    if arguments.real is not None:
        parts = prompts.load("fish:parts")
        real = maps_of(localizer, catfish(arguments.real / "catfish"), lambda question: "catfish")
        others = [
            Sample(sample.name, sample.image, tuple(SampleQuestion(concept, "presence", "photographs", present=False) for concept in parts))
            for sample in things(arguments.real / "coco")
        ]
        rows.append(
            ("photographs of other things, against catfish", [*maps_of(localizer, iter(others), lambda question: "photographs"), *real])
        )
        named = maps_of(localizer, things(arguments.real / "coco", 4), lambda question: question.kind)
        rows.append(("things by name, there and not", named))
    print("\n| absent | maps: there, absent | presence, AUROC | absent said of what is there | absent said of what is absent | clear |")
    print("|---|---|---|---|---|---|")
    for name, maps in rows:
        said = over_pictures([item for item in maps if item.present], lambda own: float(np.mean([item.verdict == ABSENT for item in own])))
        gone = [item for item in maps if not item.present]
        rightly = over_pictures(gone, lambda own: float(np.mean([item.verdict == ABSENT for item in own])))
        clear = np.mean([item.verdict == CLEAR for item in gone])
        area = over_pictures(maps, lambda own: _area(own, "presence", "present"))
        print(
            f"| {name} | {len(maps) - len(gone)}, {len(gone)} | {shown(area)} | {shown(said)} | {shown(rightly)} | {clear:.3f} |",
            flush=True,
        )


def _host(group: str) -> str:
    return prompts.load_pack(group).host


def failures(localizer: Localizer, arguments: argparse.Namespace) -> None:
    """Table 3."""
    concepts = prompts.load("fish:parts")
    images = [sample.image for sample in benchmark(arguments.failing)]
    towers: dict[str, list[tuple[Localizer, list[Concept]]]] = {"healthy": [(localizer, concepts)]}
    for failure in FAILURES:
        if failure == "words":  # A label reads what is asked for: a tower of its own for every part.
            towers[failure] = [
                (Localizer(spoilt(localizer.backbone, failure, concept.target[0]), localizer.settings, localizer.rules), [concept])
                for concept in concepts
            ]
        else:
            towers[failure] = [(Localizer(spoilt(localizer.backbone, failure, "a fish"), localizer.settings, localizer.rules), concepts)]
    towers["random weights"] = [(randomised(localizer, seed), concepts) for seed in range(3)]
    print("\n| tower | maps | called out | not about the prompt | clear | most frequent reason |")
    print("|---|---|---|---|---|---|")
    for name, instances in towers.items():
        maps: list[Map] = []
        for number, (instance, asked) in enumerate(instances):
            samples = (
                Sample(f"{position}-{number}", image, tuple(SampleQuestion(concept, "presence", "x", present=False) for concept in asked))
                for position, image in enumerate(images)
            )
            maps += maps_of(instance, samples, lambda question: name)
        called = over_pictures(maps, lambda own: float(np.mean([_called_out(item) for item in own])))
        reason = Counter(item.reason.lstrip("0123456789%. ") for item in maps).most_common(1)[0][0]
        off, clear = (np.mean([item.verdict == verdict for item in maps]) for verdict in (OFF_PROMPT, CLEAR))
        print(f"| {name} | {len(maps)} | {shown(called)} | {off:.3f} | {clear:.3f} | {reason} |", flush=True)


def _called_out(item: Map) -> bool:
    return item.verdict == OFF_PROMPT or "written words" in item.reason


def conformal(localizer: Localizer, arguments: argparse.Namespace) -> None:
    """Table 4."""
    observed, errors = observe(_states_too(arguments.labelled), localizer)
    assert not errors, errors
    by_trait: dict[str, list[Observed]] = {}
    for item in observed:
        by_trait.setdefault(item.trait, []).append(item)
    generator = np.random.default_rng(0)
    print(f"\nMasks of {arguments.labelled} pictures; half of them are labelled, the others new, {SPLITS} times.\n")
    print("| part | alpha | pictures | inner masks: wrong share | share of the picture | margin: missed | of the diagonal |")
    print("|---|---|---|---|---|---|---|")
    for trait, own in by_trait.items():
        masks = [item for item in own if item.shares is not None]
        for alpha in ALPHAS if len(masks) >= 40 and "parts=" in trait else ():
            print(f"| {trait} | {alpha:g} | {len(masks)} | {_masks(masks, alpha, generator)} |", flush=True)
    print("\n| character | alpha | pictures | right state left out | states in the set |")
    print("|---|---|---|---|---|")
    for trait, own in by_trait.items():
        states = [item for item in own if item.probability is not None and item.kind == "state"]
        for alpha in ALPHAS if len(states) >= 40 else ():
            missed = []
            truth = np.array([item.probability for item in states], dtype=np.float64)
            for fit, new in _splits(len(states), generator):
                missed.append(float(np.mean(truth[new] < state_limit(truth[fit].tolist(), alpha))))
            least = state_limit(truth.tolist(), alpha)
            size = _set_size(localizer, trait, least, arguments.failing)
            print(f"| {trait} | {alpha:g} | {len(states)} | {_mean(missed)} | {size} |", flush=True)


def _states_too(count: int) -> Dataset:
    data = synthetic.load(count)

    def stream() -> Iterator[Sample]:
        for sample in data:
            yield Sample(sample.name, sample.image, tuple(item for item in sample.questions if item.kind in ("part", "state")))

    return Dataset("benchmark", "1", stream, count, data.host)


def _splits(count: int, generator: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _ in range(SPLITS):
        order = generator.permutation(count)
        yield order[: count // 2], order[count // 2 :]


def _masks(items: Sequence[Observed], alpha: float, generator: np.random.Generator) -> str:
    shares = np.stack([item.shares for item in items if item.shares is not None])
    sizes = np.stack([item.size for item in items if item.size is not None])
    distances = np.array([item.distance for item in items], dtype=np.float64)
    wrong, held, missed, margins = [], [], [], []
    for fit, new in _splits(len(items), generator):
        level = inner_limit(list(shares[fit]), alpha)
        place = None if math.isinf(level) else int(np.argmin(np.abs(MASK_LEVELS - level)))
        wrong.append(0.0 if place is None else float(shares[new, place].mean()))
        held.append(0.0 if place is None else float(sizes[new, place].mean()))
        margin = outer_limit(distances[fit].tolist(), alpha)
        missed.append(float(np.mean(distances[new] > margin)))
        margins.append(margin)
    return f"{_mean(wrong)} | {np.mean(held):.4f} | {_mean(missed)} | {np.mean(margins):.3f}"


def _mean(values: Sequence[float]) -> str:
    """The mean over splits, with two standard errors of it."""
    return f"{np.mean(values):.3f} ± {2 * np.std(values) / math.sqrt(len(values)):.3f}"


def _set_size(localizer: Localizer, trait: str, least: float, count: int) -> str:
    """How many states the set holds on average."""
    pack, character = trait.split(":")
    states = prompts.load(f"{pack}:{character}")
    sizes = []
    for sample in benchmark(count):
        answers = localizer.locate_all([sample.image], states)[0]
        sizes.append(sum((answer.probability or 0.0) >= least for answer in answers))
    return f"{np.mean(sizes):.2f} of {len(states)}"


def cost(localizer: Localizer, arguments: argparse.Namespace) -> None:
    """Table 5."""
    from concept_cam.backbones.loading import from_open_clip
    from concept_cam.backbones.torchvision_compat import import_open_clip

    concepts = prompts.load("fish")[:36]
    image = next(benchmark(1)).image
    features = localizer.encode(image)

    def certify() -> None:
        for answer in localizer.score(features, concepts):
            _ = answer.certificate

    def score() -> None:
        for answer in localizer.score(features, concepts):
            _ = answer.score

    def processor_time(function: Callable[[], object], runs: int = 15) -> float:
        function()
        seconds = []
        for _ in range(runs):
            start = time.process_time()
            function()
            seconds.append(time.process_time() - start)
        return float(np.median(seconds))

    scoring = processor_time(score)
    certificates = processor_time(certify) - scoring
    bundled = processor_time(lambda: localizer.encode(image))
    open_clip = import_open_clip()
    model, _, _ = open_clip.create_model_and_transforms("ViT-B-16", pretrained=None)
    tower = Localizer(from_open_clip(model.eval(), open_clip.get_tokenizer("ViT-B-16"), name="ViT-B-16"))
    large = processor_time(lambda: tower.encode(image), 7)
    vit = tower.encode(image)
    _ = [answer.certificate for answer in tower.score(vit, concepts)]
    on_vit = processor_time(lambda: [answer.certificate for answer in tower.score(vit, concepts)]) - processor_time(
        lambda: list(tower.score(vit, concepts))
    )
    print(f"\n| {len(concepts)} certificates | processor time, ms | encoding the picture, ms | share |")
    print("|---|---|---|---|")
    print(f"| bundled model | {1000 * certificates:.1f} | {1000 * bundled:.1f} | {certificates / bundled:.3f} |")
    print(f"| ViT-B/16 (random weights; the arithmetic is the same) | {1000 * on_vit:.1f} | {1000 * large:.1f} | {on_vit / large:.3f} |")


STEPS: dict[str, Callable[[Localizer, argparse.Namespace], None]] = {
    "knows": knows,
    "absence": absence,
    "failures": failures,
    "conformal": conformal,
    "cost": cost,
}


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=list(STEPS))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--real", type=Path, help="folder of photographs with masks")
    parser.add_argument("--pictures", type=int, default=100, help="of the benchmark")
    parser.add_argument("--twins", type=int, default=24, help="for each character of presence")
    parser.add_argument("--strangers", type=int, default=16, help="empty scenes, and specimens of each other group")
    parser.add_argument("--failing", type=int, default=24, help="pictures for each tower that fails, and for the sizes of sets")
    parser.add_argument("--labelled", type=int, default=160, help="pictures for the guarantees")
    parser.add_argument("--careful", action="store_true", help="with agreement of other readings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    localizer = Localizer.from_pretrained(arguments.model)
    print(f"model {localizer.backbone.name}, weights {localizer.backbone.weights_hash}")
    for step in arguments.steps:
        start = time.process_time()
        STEPS[step](localizer, arguments)
        print(f"\n{step}: {time.process_time() - start:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
