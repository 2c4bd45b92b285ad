"""What held-out pictures say of a model during training: accuracy of states, pointing at parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam import prompts
from concept_cam.demo import captions as writing
from concept_cam.demo import world
from concept_cam.demo.captions import CaptionWriter, Facts
from concept_cam.demo.traits import PARTS
from training import tokenizer as words
from training.augmentation import normalise
from training.config import CHECK_SEED
from training.model import ENCODERS, Trainee
from training.pictures import facts_of


@dataclass(frozen=True)
class Checks:
    """Held-out pictures for the checks during training.

    Attributes:
        close: Pictures and facts for state accuracy, uint8 [B, 3, 128, 128].
        whole: Pictures of whole fish, uint8 [B, 3, size, size].
        masks: bool [B, P, size, size] of `whole`.
        facts: Facts of `whole`.
    """

    close: tuple[Tensor, Facts]
    whole: Tensor
    masks: Tensor
    facts: Facts


def make_checks(accuracy_count: int = 320, whole_count: int = 48, size: int = 384) -> Checks:
    """Renders the held-out pictures."""
    specimens = world.sample(accuracy_count, CHECK_SEED, view="mixed", empty=0.0)
    rendering = world.render(specimens, 128)
    fish = world.sample(whole_count, CHECK_SEED + 1, view="whole")
    big = world.render(fish, size, masks=True)
    assert big.masks is not None
    return Checks((rendering.images, facts_of(specimens, rendering)), big.images, big.masks, facts_of(fish, big))


def embed_prompts(clip: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Mean of the normalised embeddings of the texts, normalised: [D]."""
    tokens = torch.tensor(words.encode(tokenizer, texts), device=clip.logit_scale.device)
    return F.normalize(F.normalize(clip.encode_text(tokens).float(), dim=-1).mean(0), dim=0)


@torch.no_grad()
def state_accuracy(trainee: Trainee, tokenizer: Any, writer: CaptionWriter, pictures: Tensor, facts: Facts) -> dict[str, float]:
    """Zero-shot accuracy per character over the pictures in which it can be told."""
    device = trainee.clip.logit_scale.device
    image = torch.cat(
        [
            F.normalize(ENCODERS[trainee.arch](trainee.clip.visual, x.to(device))[0].float(), dim=-1).cpu()
            for x in (normalise(batch.float() / 255) for batch in pictures.split(64))
        ]
    )
    result = {}
    for c, (name, states) in enumerate(writing.prompts_by_state(writer).items()):
        text = torch.stack([embed_prompts(trainee.clip, tokenizer, list(texts)).cpu() for texts in states.values()])
        rows = torch.from_numpy(facts.judgeable[:, c] & facts.fish)
        truth = torch.from_numpy(facts.states[:, c])[rows]
        guess = (image[rows] @ text.T).argmax(1)
        # Mean over the states, so that a common state does not hide a rare one.
        hits = [(guess[truth == s] == s).float().mean() for s in range(len(states)) if (truth == s).any()]
        result[name] = float(torch.stack(hits).mean()) if hits else float("nan")
    return result


@torch.no_grad()
def localisation(
    trainee: Trainee, tokenizer: Any, writer: CaptionWriter, checks: Checks, size: int, stride: int
) -> tuple[dict[str, float], float]:
    """Pointing per part, and own-part rate, on whole fish, each part against the pack's contrasts.

    Args:
        size: Side at which the pictures are read.
        stride: Pixels between cells, 16 or 8.
    """
    concepts = {c.metadata["part"]: c for c in prompts.concepts(writer.pack, "parts")}
    directions = []
    for part in PARTS:
        concept = concepts[part]
        target = embed_prompts(trainee.clip, tokenizer, concept.target_prompts)
        others = torch.stack([embed_prompts(trainee.clip, tokenizer, p) for p in concept.contrast_prompts])
        directions.append(target - others.mean(0))
    direction = torch.stack(directions)
    x = F.interpolate(checks.whole.float() / 255, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    full = checks.masks.shape[-1]
    hits: dict[str, list[float]] = {part: [] for part in PARTS}
    own: list[float] = []
    for start in range(0, len(x), 16):
        batch = normalise(x[start : start + 16]).to(direction.device)
        _, patches = ENCODERS[trainee.arch](trainee.clip.visual, batch, stride)
        assert patches is not None
        scores = torch.einsum("bhwd,cd->bchw", F.normalize(patches.float(), dim=-1), direction)
        maps = _to_pixels(scores.cpu(), size, stride, full)
        for i in range(len(maps)):
            seen = [p for p in range(len(PARTS)) if checks.facts.visible[start + i, p]]
            masks = checks.masks[start + i, : len(PARTS)]
            for p in seen:
                peak = int(maps[i, p].argmax())
                hits[PARTS[p]].append(float(masks[p].flatten()[peak]))
                means = [float(maps[i, p][masks[q]].mean()) for q in seen]
                own.append(float(seen[int(np.argmax(means))] == p))
    return {part: float(np.mean(h)) if h else float("nan") for part, h in hits.items()}, float(np.mean(own))


def _to_pixels(scores: Tensor, size: int, stride: int, full: int) -> Tensor:
    """Grid scores [B, C, h, w] of `fine_features` to [B, C, full, full]."""
    # At stride 16 the first cell is centred one cell from the edge, at stride 8 two and a half.
    margin = 16 // stride
    padded = F.pad(scores, (margin,) * 4, mode="replicate")
    wide = F.interpolate(padded, scale_factor=full / size * stride, mode="bicubic", align_corners=False)
    edge = (wide.shape[-1] - full) // 2
    return wide[..., edge : edge + full, edge : edge + full]
