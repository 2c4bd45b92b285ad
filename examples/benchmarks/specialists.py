"""What do the necks of their own gain that some groups have, and what do they cost?

    python examples/benchmarks/specialists.py --world lepidoptera --world fish --pictures 60 --seed 777001

The bundled model against the same model without its specialists, on the same pictures in one run: the share of peaks on their part, and
how many times as long an encoded picture takes, pair by pair. What some of them read of states is among the time.
"""

from __future__ import annotations

import click
import torch
from held_out import print_table
from thin_parts import Array, hits, measured, rendered
from timing import interleave

from concept_cam import Localizer
from concept_cam.backbones import BUNDLED, lite
from concept_cam.commands.console import run_script
from concept_cam.demo.worlds import WORLDS

TIMED = 8
"""Pictures of each group that are encoded again and again."""


def without_specialists() -> Localizer:
    """The bundled model with one neck for all groups."""
    made = lite.make(BUNDLED, "demo without specialists")
    assert isinstance(made.model, lite.LiteModel)
    made.model.image.specialists = torch.nn.ModuleDict()
    return Localizer(lite.read(made))


def slower(plain: Localizer, own: Localizer, pictures: list[Array], pairs: int) -> str:
    """How many times as long pictures take to encode with specialists, and its interval over the pairs."""
    times = interleave(lambda: own.encode(pictures), lambda: plain.encode(pictures), pairs)
    ratio, low, high = times.summary()
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


@click.command(help=__doc__)
@click.option("--world", "worlds", type=click.Choice(list(WORLDS)), multiple=True, default=tuple(WORLDS), show_default=True)
@click.option("--pictures", type=click.IntRange(min=1), default=48, show_default=True)
@click.option("--pairs", type=click.IntRange(min=2), default=12, show_default=True, help="Pairs of timed encodings.")
@click.option("--seed", type=int, help="Of the pictures.  [default: the benchmark's]")
def main(worlds: tuple[str, ...], pictures: int, pairs: int, seed: int | None) -> None:
    torch.set_num_threads(1)
    plain, own = without_specialists(), Localizer.from_pretrained()
    for world in worlds:
        asked = rendered(world, pictures, seed)
        found = {name: measured(each, asked, world)[0] for name, each in (("one neck", plain), ("its own", own))}
        parts = {part: [part] for part in found["one neck"]}
        rows = []
        for title, chosen in {**parts, "**all questions**": list(parts)}.items():
            count = sum(len(found["one neck"][part]) for part in chosen)
            shares = [hits({part: distances[part] for part in chosen}) for distances in found.values()]
            rows.append([title, str(count), *(f"{share:.3f}" for share in shares)])
        print_table(f"{world}: peaks on their part, {len(asked)} pictures", ["part", "asked", *found], rows)
        print(f"{world}: {slower(plain, own, [picture for picture, _ in asked[:TIMED]], pairs)} times as long an encoded picture\n")


if __name__ == "__main__":
    run_script(main)
