"""What number formats do for the image tower on this processor: speed side by side, and how far maps move; prints a Markdown table.

    python examples/benchmarks/tower_formats.py                   # ViT-B/16, random weights
    python examples/benchmarks/tower_formats.py --threads 1 --pairs 9

float32 against bfloat16 and int8, as ``--dtype`` gives them. Each is timed in turn with float32, in processor time, which other work on the
machine disturbs less than the clock. Maps are those of 50 random directions. Random weights have no outlying activations, as trained towers
do: so int8 is also asked of the same tower with outlying channels planted before every linear layer (the norm before it multiplies some
channels, the layer divides them again, which changes nothing in float32).
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from annotate_throughput import load, processor

from concept_cam.backbones.int8 import in_int8
from concept_cam.commands.console import above_zero, at_least_one, run_script


def with_outliers(backbone: Any, channels: int, factor: float) -> Any:
    """Returns the same tower, to rounding, whose activations have outlying channels before the linear layers of every block."""
    found = copy.deepcopy(backbone)
    chosen = torch.randperm(found.model.visual.conv1.out_channels, generator=torch.Generator().manual_seed(0))[:channels]
    with torch.no_grad():
        for block in found.model.visual.transformer.resblocks:
            for norm, weight in ((block.ln_1, block.attn.in_proj_weight), (block.ln_2, block.mlp.c_fc.weight)):
                norm.weight[chosen] *= factor
                norm.bias[chosen] *= factor
                weight[:, chosen] /= factor
    return found


def maps(backbone: Any, pixels: torch.Tensor) -> np.ndarray:
    """Returns float [B * 50, h * w]: maps along random directions."""
    patches = torch.nn.functional.normalize(backbone.encode_patches(pixels.to(backbone.dtype)).patches.float(), dim=-1)
    directions = torch.nn.functional.normalize(torch.randn(50, patches.shape[-1], generator=torch.Generator().manual_seed(0)), dim=-1)
    return (patches.flatten(1, 2) @ directions.T).transpose(1, 2).reshape(-1, patches.shape[1] * patches.shape[2]).numpy()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--pairs", type=at_least_one, default=5)
    parser.add_argument("--pictures", type=at_least_one, default=4)
    parser.add_argument("--threads", type=at_least_one, default=1)
    parser.add_argument("--channels", type=int, default=6, help="outlying channels")
    parser.add_argument("--factors", type=above_zero, nargs="*", default=[5.0, 20.0], help="how far they lie out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        plain = load(arguments.architecture, "float32", Path(folder))
        others = {name: load(arguments.architecture, name, Path(folder)).backbone for name in ("bfloat16", "int8")}
    for factor in arguments.factors:
        others[f"int8, {arguments.channels} channels {factor:g} times as large"] = in_int8(
            with_outliers(plain.backbone, arguments.channels, factor)
        )
    height, width = plain.backbone.preprocess.default_size
    pixels = torch.randn(arguments.pictures, 3, height, width)
    print(
        f"{arguments.architecture}, random weights, {arguments.threads} thread(s), torch {torch.__version__}; {processor()}; load "
        f"{os.getloadavg()[0]:.1f}\n"
    )
    print("| format | float32, ms a picture | this, ms a picture | times as fast (median of pairs) | map correlation, median | lowest |")
    print("|" + "---|" * 6)
    with torch.inference_mode():
        reference = maps(plain.backbone, pixels)
        for name, backbone in others.items():
            close = [np.corrcoef(one, other)[0, 1] for one, other in zip(reference, maps(backbone, pixels))]
            seconds: tuple[list[float], list[float]] = ([], [])
            for _ in range(arguments.pairs):
                for own, tower in zip(seconds, (plain.backbone, backbone)):
                    start = time.process_time()
                    tower.encode_patches(pixels.to(tower.dtype))
                    own.append(time.process_time() - start)
            ratio = float(np.median(np.array(seconds[0]) / np.array(seconds[1])))
            each = [1000 * float(np.median(own)) / arguments.pictures for own in seconds]
            print(f"| {name} | {each[0]:.0f} | {each[1]:.0f} | {ratio:.2f} | {np.median(close):.5f} | {min(close):.5f} |", flush=True)


if __name__ == "__main__":
    run_script(main)
