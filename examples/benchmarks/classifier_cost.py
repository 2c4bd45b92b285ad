"""What explaining a classifier costs here and in two libraries, on the same network, the same picture and the same layer.

    python examples/benchmarks/classifier_cost.py --pairs 5

Rows: the network alone (one forward pass), then Grad-CAM of Finer-CAM's contrasted logits for one class and for ten classes of one picture.
The libraries run as their documentation shows: torchcam one forward pass for all classes (its FinerCAM keeps the graph), pytorch-grad-cam
forward and back through the whole network for each. Weights are random; time does not depend on them. Prints a Markdown table of the
median ratio to the network's own forward pass, of interleaved pairs, with its 95 % bootstrap interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch
from timing import interleave

from concept_cam.backbones.loading import from_classifier
from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.commands.console import run_script
from concept_cam.core.names import choose
from concept_cam.core.settings import Settings
from concept_cam.methods.heads import FinerCam

NETWORKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "EfficientNet-Lite0": ("tf_efficientnet_lite0", lambda network: network.bn2),
    "ResNet-50": ("resnet50", lambda network: network.layer4),
    "ViT-B/16": ("vit_base_patch16_224", lambda network: network.blocks[-1].norm1),
}
"""Title -> timm's name, and the layer that the libraries hook: the one that is read here."""


def tokens_to_map(tokens: torch.Tensor) -> torch.Tensor:
    """[B, 1 + N, K] -> [B, K, h, w] of a square grid."""
    side = round((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=5, show_default=True, help="Interleaved pairs per row.")
@click.option("--networks", default=",".join(NETWORKS), show_default=True)
@click.option("--counts", default="1,10", show_default=True, help="Classes of one picture.")
def main(pairs: int, networks: str, counts: str) -> None:
    """Prints the table."""
    prepare_torchvision()
    import timm
    from pytorch_grad_cam import FinerCAM
    from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget
    from torchcam import methods as torchcam

    click.echo(f"one picture of 224 pixels, {torch.get_num_threads()} threads, torch {torch.__version__}, {pairs} pairs\n")
    click.echo("| network | forward pass, ms | classes | concept_cam | torchcam | pytorch-grad-cam |\n|---|---|---|---|---|---|")
    picture = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    for title in networks.split(","):
        name, find = choose(title, NETWORKS, "network")
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False).eval()
        tower = from_classifier(network, name=title)
        cam = FinerCam(tower, settings=Settings(resize="squash"))
        pixels = torch.randn(1, 3, 224, 224)
        layer = find(network)
        reshape = tokens_to_map if name.startswith("vit") else None

        def forward() -> object:
            with torch.inference_mode():
                return network(pixels)

        for count in map(int, counts.split(",")):
            classes = list(range(count))

            def own() -> object:
                return cam.explain_all(picture, classes)

            def of_torchcam() -> object:
                # Its layers are maps [B, K, h, w]: for the transformer it hooks the convolution of the patches, the nearest that it can
                # read.
                hooked = network.patch_embed.proj if reshape else layer
                with torchcam.FinerCAM(network, hooked) as extractor:
                    scores = network(pixels)
                    return [extractor(index, scores, retain_graph=True) for index in classes]

            def of_grad_cam() -> object:
                with FinerCAM(network, [layer], reshape_transform=reshape) as extractor:
                    return [extractor(pixels, [FinerWeightedTarget(index, [index + 1, index + 2, index + 3], 1.0)]) for index in classes]

            cells, own_seconds = [], 0.0
            for explain in (own, of_torchcam, of_grad_cam):
                timed = interleave(explain, forward, pairs, warmup=1)
                ratio, low, high = timed.summary()
                own_seconds = float(np.median(timed.second))
                cells.append(f"{ratio:.1f} [{low:.1f}, {high:.1f}]")
                for parameter in network.parameters():
                    parameter.grad = None
            click.echo(f"| {title} | {1000 * own_seconds:.0f} | {count} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_script(main)
