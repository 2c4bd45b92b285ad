"""How many pictures a second each world renders on one core.

    python examples/benchmarks/worlds.py
    python examples/benchmarks/worlds.py --world lepidoptera --pictures 48

Pictures with their masks, sensor noise and compression, one thread, in *processor time*: what one core does when nobody else wants it.
Prints a Markdown table.
"""

from __future__ import annotations

import time

import click
import torch

from concept_cam.commands.console import run_script
from concept_cam.demo.worlds import ROOMS, WORLDS

PROFILES = ("plain", "photographs")


def rate(name: str, profile: str, pictures: int, size: int, repeats: int) -> float:
    """Pictures per second of processor time, the best of some repeats: the others waited for the memory."""
    world = WORLDS[name]
    specimens = world.sample(pictures, 3, profile=profile)
    world.render(specimens[:2], size, masks=True)  # textures are made once
    best = 0.0
    for _ in range(repeats):
        start = time.process_time()
        world.render(specimens, size, masks=True)
        best = max(best, pictures / (time.process_time() - start))
    return best


@click.command()
@click.option("--world", "worlds", multiple=True, type=click.Choice(list(ROOMS)), help="Groups.  [default: all]")
@click.option("--pictures", type=click.IntRange(min=1), default=24, show_default=True, help="Pictures of each measurement.")
@click.option("--size", type=click.IntRange(min=16), default=384, show_default=True, help="Side of the pictures.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Measurements, of which the best counts.")
def main(worlds: tuple[str, ...], pictures: int, size: int, repeats: int) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    click.echo(f"{size} x {size} pixels with masks, {pictures} pictures, pictures per second of processor time of one core\n")
    click.echo(f"| world | {' | '.join(PROFILES)} |\n|---|---|---|")
    for name in worlds or tuple(ROOMS):
        click.echo(f"| {name} | {' | '.join(f'{rate(name, profile, pictures, size, repeats):.1f}' for profile in PROFILES)} |")


if __name__ == "__main__":
    run_script(main)
