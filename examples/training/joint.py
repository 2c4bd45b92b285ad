"""The joint head on the text tower that ships: texts are cheap, so it is fitted after the pictures, in minutes.

The block of parts imitates what was trained with the teacher's sentence embeddings; the gate learns which texts speak of parts,
which name things, and which are about nothing in the picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam import prompts
from concept_cam.backbones.lite_towers import JointHead
from concept_cam.demo.worlds import WORLDS
from training.synonyms import KINDS, NOTHING

NOUN, PART, REST = 0, 1, 2
CARRIERS: Final = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a close-up of {}",
    "an image of {}",
    "the photo shows {}",
    "a blurry photo of {}",
    "{} in the foreground",
)
ORGANS: Final = (
    "head", "eye", "mouth", "tail", "leg", "ear", "nose", "wing", "beak", "back", "belly", "side", "body", "face", "lips", "whiskers",
    "neck", "foot",
    "spots", "stripes", "skin", "handle", "wheel", "edge", "top", "lid", "leaf", "stem", "antenna", "fur",
)  # fmt: skip


THINGS: Final = ("potted plant", "houseplant")
"""Names that end like a host and are things."""


def _drawn(name: str) -> frozenset[str]:
    """The concepts of a pack that its world draws, by their names."""
    world = WORLDS[name]
    states = {f"{character}={state}" for character, values in world.characters.items() for state in values}
    return frozenset(states | {f"parts={part}" for part in world.parts})


def noun_texts(names: Sequence[str], worlds: Sequence[str], rng: np.random.Generator, count: int) -> list[str]:
    """Texts that name things, or parts of things of no group; names that end with the host of a group are left out."""
    hosts = [host for name in worlds for host in (WORLDS[name].host, *KINDS.get(name, ()))]
    ours = re.compile(rf"({'|'.join(hosts)})(s|es)?$", re.IGNORECASE)
    chosen = [name for name in names if name in THINGS or not ours.search(name)]
    texts = []
    for _ in range(count):
        name = chosen[int(rng.integers(len(chosen)))]
        article = "" if rng.random() < 0.25 else ("an " if name[0].lower() in "aeiou" else "a ")
        phrase = article + name
        if rng.random() < 0.3:
            organ = ORGANS[int(rng.integers(len(ORGANS)))]
            phrase = f"the {organ} of {phrase}" if rng.random() < 0.7 else f"{phrase} with a {organ}"
        texts.append(CARRIERS[int(rng.integers(len(CARRIERS)))].replace("{}", phrase))
    # What is said of groups that are not drawn, and of characters and parts that are not.
    for pack in sorted({*prompts.available()} - {"generic"}):
        drawn = _drawn(pack) if pack in worlds else frozenset()
        texts += [text for concept in prompts.load(pack) if concept.name not in drawn for text in concept.target_prompts]
    return list(dict.fromkeys(texts))


def nothing_texts() -> list[str]:
    """Texts about what is left over."""
    return [carrier.replace("{}", text) for text in NOTHING for carrier in CARRIERS[:6]]


def fit(
    head: JointHead,
    embed: Callable[[Sequence[str]], Tensor],
    wordings: Sequence[str],
    targets: Tensor,
    names: Sequence[str],
    worlds: Sequence[str],
    steps: int = 1500,
    report: Callable[[str], None] = print,
) -> None:
    """Fits the block of parts and the gate.

    Args:
        head: The head; changed in place.
        embed: The text tower: texts to unit vectors [N, 384].
        wordings: Texts about specimens and their parts.
        targets: float32 [N, parts], where the teacher's embeddings of the wordings lie in the block of parts.
        names: Names of things.
        worlds: The groups that the wordings are about.
        steps: Steps of the optimiser.
        report: Where lines for people go.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    nouns, nothing = noun_texts(names, worlds, rng, len(wordings)), nothing_texts()
    sentences = embed([*wordings, *nouns, *nothing])
    kinds = torch.tensor([PART] * len(wordings) + [NOUN] * len(nouns) + [REST] * len(nothing))
    spoken, others = torch.arange(len(wordings)), torch.arange(len(wordings), len(kinds))
    last = torch.arange(len(kinds) - len(nothing), len(kinds))
    layers = (head.first, head.second, head.gate_first, head.gate_second)
    parameters = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(0)

    def draw(pool: Tensor, count: int) -> Tensor:
        return pool[torch.randint(len(pool), (count,), generator=generator)]

    head.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * min(1.0, (steps - step) / (0.6 * steps))
        rows = torch.cat([draw(spoken, 192), draw(others, 192), draw(last, 32)])
        noisy = F.normalize(sentences[rows] + 0.012 * torch.randn(len(rows), sentences.shape[1], generator=generator), dim=-1)
        louder = noisy * 8.0
        gate = head.gate_second(F.gelu(head.gate_first(louder)))
        parts = F.normalize(head.second(F.gelu(head.first(louder[:192]))), dim=-1)
        apart = (1.0 - (parts * targets[rows[:192]]).sum(-1)).mean()
        wrong = F.cross_entropy(gate, kinds[rows], label_smoothing=0.002)
        loss = 5.0 * apart + 0.3 * wrong
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % 300 == 0:
            report(f"joint head {step + 1}/{steps}: {apart.item():.4f} from the teacher's, gate {wrong.item():.4f}")
    head.eval()
