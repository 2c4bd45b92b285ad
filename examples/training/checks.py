"""What held-out pictures say of a trained neck: pointing at parts, accuracy of states. Whole specimens of the plain
world, read with the pack's prompts.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam import prompts
from training.claims import Claim, Claims, claims_of, part_contrasts
from training.config import CELL, CHECK_SEED
from training.objectives import contrasted, unit
from training.run import LEARNERS, Run
from training.sentences import Sentences


def pack_prompts(claims: Claims, claim: Claim) -> list[str]:
    """The trait pack's own prompts of a claim."""
    pack = prompts.load_pack(claims.world.name)
    if claim.kind == "host":
        return [template.replace("{}", phrase) for template in pack.host_templates for phrase in pack.host_phrases]
    character = next(each for each in pack.characters if each.name == ("parts" if claim.kind == "part" else claim.key))
    phrases = character.state(claim.key if claim.kind == "part" else claim.state).phrases
    return [template.replace("{}", phrase) for template in pack.templates_of(character) for phrase in phrases]


def prompt_vectors(run: Run, sentences: Sentences, claims: Claims) -> Tensor:
    """The pack's prompts of each claim in the block of parts, [K, parts]; zeros where nothing is said."""
    rows = []
    for claim in claims.listed:
        if claims.spoken(claim):
            found = run.average.words(sentences.of(pack_prompts(claims, claim)).to(run.device))
            rows.append(F.normalize(found.mean(0), dim=0))
        else:
            rows.append(torch.zeros(run.sizes.parts, device=run.device))
    return torch.stack(rows)


@torch.no_grad()
def check(run: Run, world: str = "fish", count: int = 48, size: tuple[int, int] = (256, 384)) -> dict[str, float]:
    """Pointing per part with the pack's contrasts, their mean with and without, and the accuracy per character.

    Of a run that learns how states are told, these alone: its map is not written.

    Args:
        run: The run; its averaged weights are looked at.
        world: The group that is asked about.
        count: Pictures.
        size: `(H, W)` of them, multiples of 32.
    """
    claims = claims_of(world)
    parts, group = claims.world.parts, claims.world
    words, table = prompt_vectors(run, run.sentences, claims), part_contrasts(group).to(run.device)
    ways = {} if LEARNERS[run.learn].of_states else {"alone": 0.0, "contrasted": 1.0}
    hits: dict[str, list[float]] = {f"{part} {how}": [] for how in ways for part in parts}
    right: dict[str, list[float]] = {name: [] for name in group.characters}
    for start in range(0, count, 8):
        specimens = group.sample(min(8, count - start), CHECK_SEED, view="whole", start=start)
        rendering = group.render(specimens, size, masks=True)
        assert rendering.masks is not None
        maps, nouns = run.maps(rendering.images.to(run.device).float() / 255.0)
        cells, image, _ = run.average({stride: value.float() for stride, value in maps.items()})
        logits = torch.einsum("bnd,kd->bkn", unit(cells.float(), nouns[0], run.sizes.rest), words)
        told = unit(image.float(), nouns[1], run.sizes.rest) @ words.T
        for how, strength in ways.items():
            scores = contrasted(logits, table, strength).unflatten(2, (size[0] // CELL, size[1] // CELL))
            peaks = F.interpolate(scores, size=size, mode="bicubic", align_corners=False).flatten(2).argmax(2).cpu()
            on = rendering.masks[:, : len(parts)].flatten(2).gather(2, peaks[..., None])[..., 0]
            for p, part in enumerate(parts):
                hits[f"{part} {how}"] += on[rendering.visible[:, p], p].float().tolist()
        for c, (name, values) in enumerate(group.characters.items()):
            block, rows = claims.blocks[name], rendering.judgeable[:, c].numpy()
            if name in group.presences:
                present = values.index("present")
                there = (told[:, block.start + present] > told[:, claims.host]).long().cpu()
                guess = torch.where(there == 1, present, 1 - present)
            else:
                guess = told[:, block].argmax(1).cpu()
            right[name] += (guess.numpy() == specimens.states[:, c])[rows].astype(float).tolist()
            assert len(values) == block.stop - block.start
    means = {name: float(np.mean(values)) for name, values in (hits | right).items() if values}
    averaged = {how: [means[f"{part} {how}"] for part in parts if f"{part} {how}" in means] for how in ways}
    named = {"pointing": "contrasted", "pointing alone": "alone"}
    return {
        **{name: float(np.mean(averaged[how])) for name, how in named.items() if how in averaged},
        "accuracy": float(np.mean([means[name] for name in group.characters if name in means])),
        **means,
    }
