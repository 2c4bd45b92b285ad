"""How fast the fish world renders, and how much faster compiled.

    python examples/benchmarks/rendering.py --pairs 10

Training pictures (a third whole fish, the rest close-ups) from numbers to finished uint8 pixels, with sensor noise and compression, eager
and with the pixel programs fused by `torch.compile` (needs a C++ compiler, on a GPU Triton); the compiler's time is not counted. Prints a
Markdown table; a ratio above 1 says that compiled is faster.
"""

from __future__ import annotations

import time

import click
import numpy as np
import torch
from timing import interleave

from concept_cam.backbones.machine import device_of
from concept_cam.commands.console import run_script
from concept_cam.demo.worlds.family import Specimens
from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.styles import PROFILES


def render(specimens: Specimens, size: int, engine: world.Engine, masks: bool, device: str) -> None:
    """Renders once and waits for a GPU to finish."""
    world.render(specimens, size, masks=masks, engine=engine, device=device)
    if device == "cuda":
        torch.cuda.synchronize()


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=10, show_default=True, help="Interleaved pairs per row.")
@click.option("--pictures", type=click.IntRange(min=1), default=96, show_default=True, help="Pictures rendered at once.")
@click.option("--size", "sizes", multiple=True, type=int, default=(96, 128), show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of torch.")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--profile",
    default="plain",
    show_default=True,
    type=click.Choice(list(PROFILES)),
    help="What the pictures look like.",
)
def main(pairs: int, pictures: int, sizes: tuple[int, ...], threads: int, device: str, profile: str) -> None:
    """Prints the table."""
    device = str(device_of(device))
    torch.set_num_threads(threads)
    click.echo(f"{pictures} pictures at once, {threads} threads, {device}, torch {torch.__version__}, {pairs} pairs, profile {profile}\n")
    click.echo(
        "| pixels | masks | eager, pictures/s | compiled, pictures/s | ratio (median) | 95 % interval | compiling, s "
        "|\n|---|---|---|---|---|---|---|"
    )
    specimens = world.sample(pictures, 3, profile=profile)
    for size in sizes:
        start = time.perf_counter()
        render(specimens, size, "compiled", True, device)
        compiling = time.perf_counter() - start
        for masks in (False, True):
            paired = interleave(
                lambda masks=masks: render(specimens, size, "eager", masks, device),
                lambda masks=masks: render(specimens, size, "compiled", masks, device),
                pairs,
            )
            rates = [pictures / float(np.median(seconds)) for seconds in (paired.first, paired.second)]
            ratio, low, high = paired.summary()
            click.echo(
                f"| {size} | {'yes' if masks else 'no'} | {rates[0]:.0f} | {rates[1]:.0f} | {ratio:.2f} | {low:.2f} to {high:.2f} | "
                f"{compiling:.0f} |"
            )


if __name__ == "__main__":
    run_script(main)
