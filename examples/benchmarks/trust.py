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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from concept_cam import Concept, Localizer, prompts
from concept_cam.commands.console import at_least_one, existing, run_script
from concept_cam.core.features import PatchFeatures
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
    called_out: bool


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
                    told.verdict == OFF_PROMPT or "written words" in told.reason,
                )
            )
    return found


# --------------------------------------------------------------------------------------------------------------- pictures


def benchmark(count: int, group: str = "fish") -> Iterator[Sample]:
    """The parts of the built-in benchmark of a group."""
    for sample in synthetic.load(count, world=group):
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


OTHER = "parts of a fish"


def things(root: Path, absent: int, parts: Sequence[Concept]) -> Iterator[Sample]:
    """Photographs of things: the rows marked ``easy``, against the other things in the picture; things and parts that are not there."""
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
        questions += [SampleQuestion(concept, "presence", OTHER, present=False) for concept in parts]
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


LEAFY = (("plant", "lepidoptera"), ("plant", "beetle"))
BARE = ("plain", "bark")


def strangers(groups: Sequence[str], count: int, seed: int = SEED) -> Iterator[Sample]:
    """Empty scenes and specimens of other groups, asked for a group's parts."""
    for group in groups:
        parts = [concept for concept in prompts.load(group) if concept.metadata.get("kind") == "part"]
        for other, world in WORLDS.items():
            # Leaves lie and grow around other specimens: their parts are asked for only where nothing does.
            scenes = [name for name in world.scenes if name in BARE] if (group, other) in LEAFY else None
            batch = world.sample(count, seed, view="whole", scenes=scenes, empty=1.0 if other == group else 0.0)
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


Columns = dict[str, np.ndarray]
"""Maps as one array for each of their attributes."""


def columns(maps: Sequence[Map]) -> Columns:
    """Turns maps into columns."""
    return {name: np.array([getattr(item, name) for item in maps]) for name in Map.__dataclass_fields__}


def over_pictures(maps: Sequence[Map], statistic: Callable[[Columns], float], draws: int = 500) -> Interval:
    """A statistic with its bootstrap interval over pictures."""
    table = columns(maps)
    if not maps:
        return Interval(math.nan, math.nan, math.nan, 0)
    _, unit = np.unique(table["picture"], return_inverse=True)
    rows = [np.flatnonzero(unit == number) for number in range(unit.max() + 1)]

    def of(chosen: np.ndarray) -> float:
        drawn = np.concatenate([rows[number] for number in chosen])
        return statistic({name: values[drawn] for name, values in table.items()})

    return bootstrap(of, len(rows), draws)


def share(name: str, value: Any = True, among: str = "", of: Any = True) -> Callable[[Columns], float]:
    """The share of maps with a value, among all or among those with another."""

    def statistic(maps: Columns) -> float:
        chosen = (maps[name] == value)[maps[among] == of] if among else maps[name] == value
        return float(chosen.mean()) if len(chosen) else math.nan

    return statistic


def area(value: str, truth: str) -> Callable[[Columns], float]:
    """Area under the ROC curve of a number that is to tell a truth."""

    def statistic(maps: Columns) -> float:
        known = ~np.isnan(maps[value])
        values, yes = maps[value][known], maps[truth][known].astype(bool)
        return float(auroc_from_scores(values[yes], values[~yes])) if yes.any() and not yes.all() else math.nan

    return statistic


def risk_area(value: str) -> Callable[[Columns], float]:
    """Area under the risk-coverage curve (Geifman and El-Yaniv, NeurIPS 2017): the mean, over coverages, of the share of wrong peaks."""

    def statistic(maps: Columns) -> float:
        order = np.argsort(-np.nan_to_num(maps[value], nan=-np.inf), kind="stable")
        return float((np.cumsum(~maps["right"][order]) / np.arange(1, len(order) + 1)).mean())

    return statistic


class Looked:
    """Maps of sets of pictures; a set that several tables ask for is looked at once."""

    def __init__(self, localizer: Localizer, arguments: argparse.Namespace) -> None:
        self.localizer, self.arguments = localizer, arguments
        self.groups = [group for group in WORLDS if localizer.rules.hosts and _host(group) in localizer.rules.hosts]
        self._known: dict[str, list[Map]] = {}

    def __call__(self, name: str) -> list[Map]:
        """Returns the maps of a set: ``"benchmark GROUP"``, ``"twins"``, ``"strangers"``, ``"catfish"`` or ``"things"``."""
        if name not in self._known:
            began = time.process_time()
            self._known[name] = maps_of(self.localizer, self._samples(name), lambda question: question.trait, self.arguments.careful)
            print(f"({name}: {time.process_time() - began:.0f} s of processor time)", flush=True)
        return self._known[name]

    def _samples(self, name: str) -> Iterator[Sample]:
        given, (kind, _, group) = self.arguments, name.partition(" ")
        if kind == "benchmark":
            return benchmark(given.pictures if group == "fish" else given.pictures // 2, group)
        if kind == "twins":
            return (item for group in self.groups for item in twins(group, given.twins))
        if kind == "strangers":
            return strangers(self.groups, given.strangers)
        return catfish(given.real / "catfish") if kind == "catfish" else things(given.real / "coco", 4, prompts.load("fish:parts"))

    def known(self) -> list[tuple[str, list[Map]]]:
        """Pictures in which every target is present: the benchmark of each group, and photographs."""
        found = [(f"benchmark of {group}", self(f"benchmark {group}")) for group in self.groups]
        if self.arguments.real is not None:
            found.append(("catfish", self("catfish")))
            found.append(("things, easy rows", [item for item in self("things") if item.present]))
        return found


def knows(looked: Looked) -> None:
    """Table 1."""
    rows = looked.known()
    print("\n| pictures | maps | pointing | clear: coverage | clear: pointing | right against wrong, AUROC |")
    print("|---|---|---|---|---|---|")
    for name, maps in rows:
        told = (share("right"), share("verdict", CLEAR), share("right", True, "verdict", CLEAR), area("confidence", "right"))
        print(f"| {name} | {len(maps)} | {' | '.join(shown(over_pictures(maps, one)) for one in told)} |", flush=True)
    print("\n| area under risk-coverage, lower is better | by the certificate | by the score | by the probability | by chance |")
    print("|---|---|---|---|---|")
    for name, maps in rows:
        told = (*map(risk_area, ("confidence", "score", "probability")), share("right", False))
        print(f"| {name} | {' | '.join(shown(over_pictures(maps, one)) for one in told)} |")
    shares = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    print(f"\n| share of right peaks among the surest ... | {' | '.join(f'{one:.0%}' for one in shares)} |")
    print("|---" * (1 + len(shares)) + "|")
    for name, maps in rows:
        order = sorted(maps, key=lambda item: -np.nan_to_num(item.confidence, nan=-1.0))
        cells = [f"{np.mean([item.right for item in order[: max(1, round(one * len(order)))]]):.3f}" for one in shares]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| target | pictures | maps | right | clear | right among clear | absent |")
    print("|---|---|---|---|---|---|---|")
    for name, maps in rows:
        for target in dict.fromkeys(item.group for item in maps) if "things" not in name else ():
            own = [item for item in maps if item.group == target]
            clear = [item for item in own if item.verdict == CLEAR]
            among = f"{np.mean([item.right for item in clear]):.3f}" if clear else "-"
            absent = np.mean([item.verdict == ABSENT for item in own])
            print(
                f"| {target} | {name} | {len(own)} | {np.mean([item.right for item in own]):.3f} | {len(clear) / len(own):.3f} | {among} | "
                f"{absent:.3f} |"
            )


def absence(looked: Looked) -> None:
    """Table 2."""
    missing = looked("strangers")
    rows: list[tuple[str, list[Map]]] = [("twins without the part", looked("twins"))]
    there = [item for group in looked.groups for item in looked(f"benchmark {group}")]
    for title in dict.fromkeys(item.group for item in missing):
        rows.append((f"{title}, against the benchmark's parts", [*(item for item in missing if item.group == title), *there]))
    if looked.arguments.real is not None:
        other = [item for item in looked("things") if item.group == OTHER]
        rows.append(("photographs of other things, against catfish", [*other, *looked("catfish")]))
        rows.append(("things by name, there and not", [item for item in looked("things") if item.group != OTHER]))
    print("\n| absent | maps: there, absent | presence, AUROC | absent said of what is there | absent said of what is absent | clear |")
    print("|---|---|---|---|---|---|")
    for name, maps in rows:
        gone = [item for item in maps if not item.present]
        told = [
            shown(over_pictures(maps, area("presence", "present"))),
            shown(over_pictures([item for item in maps if item.present], share("verdict", ABSENT))),
            shown(over_pictures(gone, share("verdict", ABSENT))),
            f"{np.mean([item.verdict == CLEAR for item in gone]):.3f}",
        ]
        print(f"| {name} | {len(maps) - len(gone)}, {len(gone)} | {' | '.join(told)} |", flush=True)


def _host(group: str) -> str:
    return prompts.load_pack(group).host


def failures(looked: Looked) -> None:
    """Table 3, of the parts that can be seen: the peak of an absent one may well lie on a label."""
    localizer, arguments = looked.localizer, looked.arguments
    concepts = prompts.load("fish:parts")
    pictures = list(benchmark(arguments.failing))
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
        for number, (instance, concepts_of) in enumerate(instances):
            asked = [concept.name for concept in concepts_of]
            samples = (
                replace(
                    sample, name=f"{sample.name}-{number}", questions=tuple(item for item in sample.questions if item.concept.name in asked)
                )
                for sample in pictures
            )
            maps += maps_of(instance, samples, lambda question: name)
        called = over_pictures(maps, share("called_out"))
        reason = Counter(item.reason.lstrip("0123456789%. ") for item in maps).most_common(1)[0][0]
        off, clear = (np.mean([item.verdict == verdict for item in maps]) for verdict in (OFF_PROMPT, CLEAR))
        print(f"| {name} | {len(maps)} | {shown(called)} | {off:.3f} | {clear:.3f} | {reason} |", flush=True)


def conformal(looked: Looked) -> None:
    """Table 4."""
    localizer, arguments = looked.localizer, looked.arguments
    observed, errors = observe(_states_too(arguments.labelled), localizer)
    assert not errors, errors
    by_trait: dict[str, list[Observed]] = {}
    for item in observed:
        by_trait.setdefault(item.trait, []).append(item)
    generator = np.random.default_rng(0)
    given = " / ".join(f"{alpha:g}" for alpha in ALPHAS)
    print(f"\n{arguments.labelled} pictures; half of them are labelled, the others new, {SPLITS} times, at alpha {given}.\n")
    print("| part | pictures | inner mask: wrong share | of the picture | outer mask: part not covered | margin, of the diagonal |")
    print("|---|---|---|---|---|---|")
    for trait, own in by_trait.items():
        masks = [item for item in own if item.shares is not None]
        if len(masks) >= 40 and "parts=" in trait:
            cells = zip(*(_masks(masks, alpha, generator) for alpha in ALPHAS))
            print(f"| {trait} | {len(masks)} | {' | '.join(' / '.join(cell) for cell in cells)} |", flush=True)
    print("\n| character | pictures | right state left out | states in the set |")
    print("|---|---|---|---|")
    features = [localizer.encode(sample.image) for sample in benchmark(arguments.failing)]
    for trait, own in by_trait.items():
        states = [item for item in own if item.probability is not None and item.kind == "state"]
        if len(states) < 40:
            continue
        truth = np.array([item.probability for item in states], dtype=np.float64)
        missed, sizes = [], []
        for alpha in ALPHAS:
            limits = [(new, state_limit(truth[fit].tolist(), alpha)) for fit, new in _splits(len(states), generator)]
            missed.append(_mean([float(np.mean(truth[new] < limit)) for new, limit in limits]))
            sizes.append(state_limit(truth.tolist(), alpha))
        print(f"| {trait} | {len(states)} | {' / '.join(missed)} | {_set_sizes(localizer, trait, sizes, features)} |", flush=True)


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


def _masks(items: Sequence[Observed], alpha: float, generator: np.random.Generator) -> tuple[str, str, str, str]:
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
    return _mean(wrong), f"{np.mean(held):.4f}", _mean(missed), f"{np.mean(margins):.3f}"


def _mean(values: Sequence[float]) -> str:
    """The mean over splits, with two standard errors of it."""
    return f"{np.mean(values):.3f} ± {2 * np.std(values) / math.sqrt(len(values)):.3f}"


def _set_sizes(localizer: Localizer, trait: str, limits: Sequence[float], features: Sequence[PatchFeatures]) -> str:
    """How many states the sets hold on average."""
    pack, character = trait.split(":")
    states = prompts.load(f"{pack}:{character}")
    shares = np.array([[answer.probability or 0.0 for answer in localizer.score(item, states)] for item in features])
    return f"{' / '.join(f'{(shares >= limit).sum(axis=1).mean():.2f}' for limit in limits)} of {len(states)}"


def cost(looked: Looked) -> None:
    """Table 5."""
    localizer = looked.localizer
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


STEPS: dict[str, Callable[[Looked], None]] = {
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
    parser.add_argument("--real", type=existing, help="folder of photographs with masks")
    parser.add_argument("--pictures", type=at_least_one, default=100, help="of the benchmark of fishes; half as many of each other group")
    parser.add_argument("--twins", type=int, default=16, help="for each character of presence")
    parser.add_argument("--strangers", type=int, default=10, help="empty scenes, and specimens of each other group")
    parser.add_argument("--failing", type=int, default=12, help="pictures for each tower that fails, and for the sizes of sets")
    parser.add_argument("--labelled", type=at_least_one, default=120, help="pictures for the guarantees")
    parser.add_argument("--careful", action="store_true", help="with agreement of other readings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    localizer = Localizer.from_pretrained(arguments.model)
    print(f"model {localizer.backbone.name}, weights {localizer.backbone.weights_hash}")
    looked = Looked(localizer, arguments)
    for step in arguments.steps:
        start = time.process_time()
        STEPS[step](looked)
        print(f"\n{step}: {time.process_time() - start:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    run_script(main)
