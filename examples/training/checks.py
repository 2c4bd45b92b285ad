"""What held-out pictures say of a trained neck: pointing at parts, accuracy of states. Whole fish of the plain world, read with the pack's
prompts.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.captions import CaptionWriter
from concept_cam.demo.worlds.fish.traits import CHARACTERS, PARTS, PRESENCE_CHARACTERS
from training.claims import BLOCKS, CLAIMS, HOST, part_contrasts, spoken
from training.config import CELL, CHECK_SEED
from training.objectives import contrasted, unit
from training.run import Run
from training.sentences import Sentences


def prompt_vectors(run: Run, sentences: Sentences) -> Tensor:
    """The pack's prompts of each claim in the block of parts, [K, parts]; zeros where nothing is said."""
    writer = CaptionWriter()
    rows = []
    for claim in CLAIMS:
        if spoken(claim):
            found = run.average.words(sentences.of(writer.prompts[claim]).to(run.device))
            rows.append(F.normalize(found.mean(0), dim=0))
        else:
            rows.append(torch.zeros(run.sizes.parts, device=run.device))
    return torch.stack(rows)


@torch.no_grad()
def check(run: Run, count: int = 48, size: tuple[int, int] = (256, 384)) -> dict[str, float]:
    """Pointing per part with the pack's contrasts, their mean with and without, and the accuracy per character.

    Args:
        run: The run; its averaged weights are looked at.
        count: Pictures.
        size: `(H, W)` of them, multiples of 32.
    """
    words, table = prompt_vectors(run, run.sentences), part_contrasts().to(run.device)
    hits: dict[str, list[float]] = {f"{part} {how}": [] for how in ("alone", "contrasted") for part in PARTS}
    right: dict[str, list[float]] = {name: [] for name in CHARACTERS}
    for start in range(0, count, 8):
        specimens = world.sample(min(8, count - start), CHECK_SEED, view="whole", start=start)
        rendering = world.render(specimens, size, masks=True)
        assert rendering.masks is not None
        maps, nouns = run.maps(rendering.images.to(run.device).float() / 255.0)
        cells, image, _ = run.average({stride: value.float() for stride, value in maps.items()})
        logits = torch.einsum("bnd,kd->bkn", unit(cells.float(), nouns[0], run.sizes.rest), words)
        told = unit(image.float(), nouns[1], run.sizes.rest) @ words.T
        for how, strength in (("alone", 0.0), ("contrasted", 1.0)):
            scores = contrasted(logits, table, strength).unflatten(2, (size[0] // CELL, size[1] // CELL))
            peaks = F.interpolate(scores, size=size, mode="bicubic", align_corners=False).flatten(2).argmax(2).cpu()
            on = rendering.masks[:, : len(PARTS)].flatten(2).gather(2, peaks[..., None])[..., 0]
            for p, part in enumerate(PARTS):
                hits[f"{part} {how}"] += on[rendering.visible[:, p], p].float().tolist()
        for c, (name, values) in enumerate(CHARACTERS.items()):
            block, rows = BLOCKS[name], rendering.judgeable[:, c].numpy()
            if name in PRESENCE_CHARACTERS:
                guess = (told[:, block.start] <= told[:, HOST]).long().cpu()
            else:
                guess = told[:, block].argmax(1).cpu()
            right[name] += (guess.numpy() == specimens.states[:, c])[rows].astype(float).tolist()
            assert len(values) == block.stop - block.start
    means = {name: float(np.mean(values)) for name, values in (hits | right).items() if values}
    parts = {how: [means[f"{part} {how}"] for part in PARTS if f"{part} {how}" in means] for how in ("alone", "contrasted")}
    return {
        "pointing": float(np.mean(parts["contrasted"])),
        "pointing alone": float(np.mean(parts["alone"])),
        "accuracy": float(np.mean([means[name] for name in CHARACTERS if name in means])),
        **means,
    }
