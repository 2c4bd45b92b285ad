"""What gradient Finer-CAM costs beside the direct method, for 1, 10 and 100 contrasted concepts on one ViT-B/16 with random weights.

    python examples/benchmarks/gradient.py --pairs 5

The gradient methods need a backward pass per concept; the direct method scores all concepts in one matrix product. Prints a Markdown table.
"""

from __future__ import annotations

import click
import numpy as np
import torch
from throughput import make_concepts, make_localizer
from timing import interleave


@click.command()
@click.option("--pairs", default=5, show_default=True, help="Interleaved pairs per row.")
@click.option("--methods", default="grad-cam,layer-cam", show_default=True, help="Comma-separated names.")
@click.option("--counts", default="1,10,100", show_default=True, help="Numbers of concepts.")
def main(pairs: int, methods: str, counts: str) -> None:
    """Prints the table."""
    localizer = make_localizer("auto")
    picture = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    click.echo(f"ViT-B/16, random weights, one picture, {torch.get_num_threads()} threads, torch {torch.__version__}, {pairs} pairs\n")
    click.echo("| method | concepts | times slower than direct | 95 % interval |\n|---|---|---|---|")
    for method in methods.split(","):
        for count in map(int, counts.split(",")):
            concepts = make_concepts(count)
            localizer.directions(concepts)

            def gradient() -> object:
                return localizer.locate_all([picture], concepts, method=method)

            def direct() -> object:
                return localizer.locate_all([picture], concepts)

            ratio, low, high = interleave(gradient, direct, pairs, warmup=1).summary()
            click.echo(f"| {method} | {count} | {ratio:.1f} | {low:.1f} to {high:.1f} |")


if __name__ == "__main__":
    main()
