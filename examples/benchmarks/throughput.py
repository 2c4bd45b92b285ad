"""How much locating costs beside classifying, on a ViT-B/16 with random weights.

    python examples/benchmarks/throughput.py --pairs 20

``encode`` + ``score`` for 1 and for 1,000 contrasted concepts against the model's own ``encode_image`` on the same tensors; and bfloat16
against float32. Prints a Markdown table; a ratio above 1 says that locating is faster.
"""

from __future__ import annotations

import click
import numpy as np
import torch
from timing import interleave

from concept_cam import Concept, Localizer, Settings
from concept_cam.backbones.loading import from_open_clip
from concept_cam.backbones.torchvision_compat import import_open_clip
from concept_cam.commands.console import run_script
from concept_cam.core.geometry import Geometry
from concept_cam.pictures.resizing import Prepared

WORDS = [
    "forked",
    "rounded",
    "square",
    "pointed",
    "striped",
    "spotted",
    "barred",
    "plain",
    "long",
    "short",
    "deep",
    "slender",
    "red",
    "blue",
    "green",
    "silver",
]


def make_localizer(attention: str, dtype: torch.dtype = torch.float32) -> Localizer:
    """A ViT-B/16 with random weights: its speed does not depend on them."""
    open_clip = import_open_clip()
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16").eval().to(dtype)
    return Localizer(from_open_clip(model, open_clip.get_tokenizer("ViT-B-16"), name="ViT-B-16 (random)"), Settings(attention=attention))


def make_concepts(count: int) -> list[Concept]:
    """Contrasted concepts with texts of their own."""
    return [
        Concept((f"a {WORDS[i % 16]} thing number {i}",), tuple((f"a {WORDS[(i + k) % 16]} other number {i}",) for k in (1, 2)))
        for i in range(count)
    ]


def wrap(pixels: torch.Tensor) -> list[Prepared]:
    """Dresses tensors as prepared pictures."""
    geometry = Geometry("squash", (224, 224), (224, 224), (14, 14), (1.0, 1.0))
    return [Prepared(picture, geometry, geometry.valid()) for picture in pixels]


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=20, show_default=True, help="Interleaved pairs per row.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch.  [default: torch's own choice]")
def main(pairs: int, batch: int, threads: int | None) -> None:
    """Prints the table."""
    if threads:
        torch.set_num_threads(threads)
    pixels = torch.randn(batch, 3, 224, 224)
    prepared = wrap(pixels)
    click.echo(f"ViT-B/16, random weights, batch {batch}, {torch.get_num_threads()} threads, torch {torch.__version__}, {pairs} pairs\n")
    click.echo("| what | against | ratio (median) | 95 % interval |\n|---|---|---|---|")
    for attention in ("value", "auto"):
        localizer = make_localizer(attention)
        model = localizer.backbone.model
        for count in (1, 1000):
            concepts = make_concepts(count)
            localizer.directions(concepts)  # text embeddings are made once, whatever is measured

            def classify() -> torch.Tensor:
                with torch.inference_mode():
                    return model.encode_image(pixels)

            def locate() -> object:
                return localizer.score(localizer.encode_prepared(prepared), concepts)

            ratio, low, high = interleave(classify, locate, pairs).summary()
            name = attention if attention != "auto" else f"auto ({localizer.backbone.default_attention})"
            click.echo(f"| encode + score, {name}, {count:,} concepts | encode_image | {ratio:.2f} | {low:.2f} to {high:.2f} |")
    exact, fast = make_localizer("auto"), make_localizer("auto", torch.bfloat16)
    concepts = make_concepts(10)
    one, two = exact.score(exact.encode_prepared(prepared), concepts), fast.score(fast.encode_prepared(prepared), concepts)
    agreement = [np.corrcoef(a[i].scores.ravel(), b[i].scores.ravel())[0, 1] for a, b in zip(one, two) for i in range(len(concepts))]
    paired = interleave(lambda: exact.encode_prepared(prepared), lambda: fast.encode_prepared(prepared), pairs)
    ratio, low, high = paired.summary()
    click.echo(f"| encode, auto, bfloat16 | float32 | {ratio:.2f} | {low:.2f} to {high:.2f} |")
    click.echo(f"\nCorrelation of bfloat16 with float32 maps: median {np.median(agreement):.4f}, lowest {min(agreement):.4f}.")


if __name__ == "__main__":
    run_script(main)
