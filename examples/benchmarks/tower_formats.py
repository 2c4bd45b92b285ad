"""What number formats do for the image tower on this processor: speed side by side, and how far maps move; prints a Markdown table.

    python examples/benchmarks/tower_formats.py                   # ViT-B/16, random weights
    python examples/benchmarks/tower_formats.py --threads 1 --pairs 9

float32 against bfloat16, and against float32 whose multilayer perceptrons (two thirds of a ViT's work) are torch's own dynamic int8 layers.
Each is timed in turn with float32, in processor time, which other work on the machine disturbs less than the clock. Maps are those of 50
random directions; random weights have no outlying activations, so that trained towers may lose more in int8.
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


def quantised(backbone: Any, engine: str) -> Any:
    """Returns the tower with int8 perceptrons."""
    torch.backends.quantized.engine = engine
    found = copy.deepcopy(backbone)
    for block in found.model.visual.transformer.resblocks:
        block.mlp = torch.ao.quantization.quantize_dynamic(block.mlp, {torch.nn.Linear}, dtype=torch.qint8)
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
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        plain = load(arguments.architecture, "float32", Path(folder))
        others = {"bfloat16": load(arguments.architecture, "bfloat16", Path(folder)).backbone}
    engine = next(name for name in ("onednn", "x86", "qnnpack", "fbgemm") if name in torch.backends.quantized.supported_engines)
    others[f"int8 perceptrons ({engine})"] = quantised(plain.backbone, engine)
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
    main()
