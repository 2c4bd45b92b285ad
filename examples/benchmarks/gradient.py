"""What gradient Finer-CAM costs beside the direct method, for 1, 10 and 100 contrasted concepts on one ViT-B/16 with random weights.

    python examples/benchmarks/gradient.py --pairs 5

The gradient methods need a backward pass per concept; the direct method scores all concepts in one matrix product. `grad-cam` and
`layer-cam` are this package's, which go back no further than the feature map. The rows of the libraries are Grad-CAM with the contrasted
directions as a classifier, used as their documentation shows: pytorch-grad-cam runs the whole tower forward and back for each concept,
torchcam runs it forward once and goes back to the feature map. Prints a Markdown table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
import numpy as np
import torch
from throughput import make_concepts, make_localizer
from timing import interleave
from torch import Tensor, nn

from concept_cam import Concept, Localizer
from concept_cam.backbones.protocol import FeatureMap
from concept_cam.commands.console import run_script


class Classifier(nn.Module):
    """A tower whose classes are contrasted concepts; ``grid`` is its last feature map [B, K, h, w], for the libraries to hook."""

    def __init__(self, localizer: Localizer, concepts: Sequence[Concept]) -> None:
        super().__init__()
        self.backbone = localizer.backbone
        self.anchor = nn.Parameter(torch.zeros(()))  # The libraries ask a model's parameters for its device.
        texts = [localizer.embed_texts([concept.target_prompts, *concept.contrast_prompts]) for concept in concepts]
        self.register_buffer("weight", torch.stack([rows[0] - rows[1:].mean(0) for rows in texts]))
        self.grid = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [B, 3, H, W] -> logits [B, C]."""
        features = self.backbone.feature_map(pixels + self.anchor, None)
        image = self.backbone.pool(FeatureMap(self.grid(features.map), features.prefix, features.valid))
        return nn.functional.normalize(image, dim=-1) @ self.get_buffer("weight").T


def pytorch_grad_cam(localizer: Localizer, concepts: Sequence[Concept], pixels: Tensor) -> Callable[[], object]:
    """Grad-CAM of pytorch-grad-cam for every concept."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = Classifier(localizer, concepts)

    def run() -> object:
        with GradCAM(model, [model.grid]) as cam:
            return [cam(pixels, [ClassifierOutputTarget(index)]) for index in range(len(concepts))]

    return run


def torchcam(localizer: Localizer, concepts: Sequence[Concept], pixels: Tensor) -> Callable[[], object]:
    """Grad-CAM of torchcam for every concept."""
    from torchcam.methods import GradCAM

    model = Classifier(localizer, concepts)

    def run() -> object:
        with GradCAM(model, "grid") as cam:
            scores = model(pixels)
            return [cam(index, scores, retain_graph=True) for index in range(len(concepts))]

    return run


LIBRARIES = {"pytorch-grad-cam": pytorch_grad_cam, "torchcam": torchcam}
"""Other people's Grad-CAM by the name of the library."""


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=5, show_default=True, help="Interleaved pairs per row.")
@click.option(
    "--methods",
    default="grad-cam,layer-cam,pytorch-grad-cam,torchcam",
    show_default=True,
    help="Comma-separated names.",
)
@click.option("--counts", default="1,10,100", show_default=True, help="Numbers of concepts.")
def main(pairs: int, methods: str, counts: str) -> None:
    """Prints the table."""
    localizer = make_localizer("auto")
    pixels = torch.randn(1, 3, 224, 224)
    picture = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    click.echo(f"ViT-B/16, random weights, one picture, {torch.get_num_threads()} threads, torch {torch.__version__}, {pairs} pairs\n")
    click.echo("| method | concepts | times slower than direct | 95 % interval |\n|---|---|---|---|")
    for method in methods.split(","):
        for count in map(int, counts.split(",")):
            concepts = make_concepts(count)
            localizer.directions(concepts)

            def own() -> object:
                return localizer.locate_all([picture], concepts, method=method)

            gradient = LIBRARIES[method](localizer, concepts, pixels) if method in LIBRARIES else own

            def direct() -> object:
                return localizer.locate_all([picture], concepts)

            ratio, low, high = interleave(gradient, direct, pairs, warmup=1).summary()
            click.echo(f"| {method} | {count} | {ratio:.1f} | {low:.1f} to {high:.1f} |")


if __name__ == "__main__":
    run_script(main)
