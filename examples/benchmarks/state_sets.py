"""How often are `likely_states` right, and how far do they narrow a character down? Three minutes of one core.

    python examples/benchmarks/state_sets.py --pictures 48

Held-out rendered pictures of each group, half of them plain and half in the styles of photographs; only states that can be told from the
picture count. `one`: a single state has a probability of 0.9 by itself; `narrowed`: several together, but not all; `open`: no state is
ruled out. Shares of right ones have 95 % bootstrap intervals over pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from concept_cam import Concept, Localizer, prompts
from concept_cam.collection.calls import likely_states
from concept_cam.commands.console import at_least_one, run_script
from concept_cam.demo.worlds import WORLDS
from concept_cam.evaluation.metrics.intervals import bootstrap

SEED = 98_000_003
"""Of the pictures; neither the training's, nor the fit's, nor the benchmark's."""
SIZE = (256, 384)
AT_ONCE = 8


@dataclass(frozen=True)
class Told:
    """One character of one picture.

    Attributes:
        picture: Number of the picture.
        states: How many the character has.
        likely: How many are likely together; 0 where none is ruled out.
        first: Whether the most probable state is right.
        right: Whether the right state is among the likely ones.
    """

    picture: int
    states: int
    likely: int
    first: bool
    right: bool


def characters_of(group: str) -> dict[str, Concept]:
    """One concept of each character whose truth the group's renderer knows: its siblings are its rivals."""
    found: dict[str, Concept] = {}
    for concept in prompts.load(group):
        name = concept.metadata.get("character")
        if concept.metadata.get("kind") != "part" and name in WORLDS[group].characters:
            found.setdefault(str(name), concept)
    return found


def answers(localizer: Localizer, group: str, profile: str, count: int) -> Iterator[Told]:
    """What is likely of each character that can be told from a picture."""
    world, asked = WORLDS[group], characters_of(group)
    for start in range(0, count, AT_ONCE):
        samples = world.sample(AT_ONCE, SEED, view="whole", start=start, profile=profile)
        drawn = world.render(samples, SIZE, masks=True)
        for row in range(min(AT_ONCE, count - start)):
            if not samples.present[row]:
                continue
            features = localizer.encode(drawn.images[row].permute(1, 2, 0).numpy())
            told = {name: bool(drawn.judgeable[row, at]) for at, name in enumerate(world.characters)}
            for (name, concept), found in zip(asked.items(), localizer.score(features, list(asked.values()))):
                if not told[name]:
                    continue
                rivals = ("absent",) if concept.metadata["kind"] == "presence" else concept.rival_names
                shares = dict(zip((str(concept.metadata["state"]), *rivals), found.probabilities, strict=True))
                likely, truth = likely_states(shares), samples.trait(row)[name]
                yield Told(start + row, len(shares), len(likely), truth == max(shares, key=shares.__getitem__), truth in likely)


def share(told: list[Told], right: str) -> str:
    """The share of answers that are right, with its interval over pictures."""
    if not told:
        return "-"
    by_picture: dict[int, list[bool]] = {}
    for one in told:
        by_picture.setdefault(one.picture, []).append(bool(getattr(one, right)))
    sums = np.array([(sum(values), len(values)) for values in by_picture.values()])
    found = bootstrap(lambda rows: float(sums[rows, 0].sum() / sums[rows, 1].sum()), len(sums))
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=at_least_one, default=48, help="of each kind and group")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    localizer = Localizer.from_pretrained()
    print("| pictures | states told | one | right | narrowed | to | right | its first alone | open |")
    print("|---|---|---|---|---|---|---|---|---|")
    for group in WORLDS:
        for profile in ("plain", "photographs"):
            told = list(answers(localizer, group, profile, arguments.pictures))
            if not told:
                print(f"| {group}, {profile} | 0 | - | - | - | - | - | - | - |")
                continue
            one = [each for each in told if each.likely == 1]
            several = [each for each in told if each.likely > 1]
            sizes = [np.mean([getattr(each, name) for each in several]) for name in ("likely", "states")] if several else []
            rest = len(told) - len(one) - len(several)
            cells = [
                f"{group}, {profile}",
                len(told),
                f"{len(one) / len(told):.2f}",
                share(one, "right"),
                f"{len(several) / len(told):.2f}",
            ]
            cells += [" of ".join(f"{size:.1f}" for size in sizes) or "-", share(several, "right"), share(several, "first")]
            print("|", *(f"{cell} |" for cell in cells), f"{rest / len(told):.2f} |", flush=True)


if __name__ == "__main__":
    run_script(main)
