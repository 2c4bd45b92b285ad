"""The joint head on the text tower that ships: texts are cheap, so it is fitted after the pictures, in minutes.

The block of parts imitates what was trained with the teacher's sentence embeddings; the gate learns which texts speak of parts,
which name things, and which are about nothing in the picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

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


TOLD: Final = 0.95
"""Share of its kind from which on the gate counts as telling a text right."""
HELD: Final = 300.0
"""Weight of what is held, where a gate is fitted on."""
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


class Spoken(NamedTuple):
    """Texts of each kind, by which the gate is fitted: those about specimens and their parts come first, those about nothing last.

    Attributes:
        texts: The texts.
        wordings: How many of them are about specimens and their parts.
        nothing: How many are about nothing in the picture.
    """

    texts: list[str]
    wordings: int
    nothing: int

    @property
    def kinds(self) -> Tensor:
        """int64 [N], `NOUN`, `PART` or `REST`."""
        nouns = len(self.texts) - self.wordings - self.nothing
        return torch.tensor([PART] * self.wordings + [NOUN] * nouns + [REST] * self.nothing)

    def draw(self, generator: torch.Generator) -> Tensor:
        """The rows of a step: 192 about specimens, then as many others of either kind and some about nothing."""
        ranges = ((0, self.wordings, 192), (self.wordings, len(self.texts), 192), (len(self.texts) - self.nothing, len(self.texts), 32))
        return torch.cat([torch.randint(low, high, (count,), generator=generator) for low, high, count in ranges])


def spoken_texts(wordings: Sequence[str], names: Sequence[str], worlds: Sequence[str], rng: np.random.Generator) -> Spoken:
    """Wordings, as many texts that name things, and texts about nothing. What is a wording names no thing, whoever else says so: a pack may
    say of its own parts, or of those of another group, what another says of a part that is drawn.

    Args:
        wordings: Texts about specimens and their parts.
        names: Names of things.
        worlds: The groups that the wordings are about.
        rng: Draws.
    """
    known = set(wordings)
    nouns = [text for text in noun_texts(names, worlds, rng, len(wordings)) if text not in known]
    nothing = nothing_texts()
    return Spoken([*wordings, *nouns, *nothing], len(wordings), len(nothing))


def _noisy(sentences: Tensor, generator: torch.Generator) -> Tensor:
    return F.normalize(sentences + 0.012 * torch.randn(sentences.shape, generator=generator), dim=-1)


def _rated(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * min(1.0, (steps - step) / (0.6 * steps))


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
    torch.manual_seed(0)
    spoken = spoken_texts(wordings, names, worlds, np.random.default_rng(0))
    sentences, kinds = embed(spoken.texts), spoken.kinds
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(0)
    head.train()
    for step in range(steps):
        _rated(optimizer, step, steps)
        rows = spoken.draw(generator)
        noisy = _noisy(sentences[rows], generator)
        parts = head.parts(noisy[:192])
        apart = (1.0 - (parts * targets[rows[:192]]).sum(-1)).mean()
        wrong = F.cross_entropy(head.gate(noisy), kinds[rows], label_smoothing=0.002)
        loss = 5.0 * apart + 0.3 * wrong
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 300 == 0:
            report(f"joint head {step + 1}/{steps}: {apart.item():.4f} from the teacher's, gate {wrong.item():.4f}")
    head.eval()


def fit_gate(
    head: JointHead,
    embed: Callable[[Sequence[str]], Tensor],
    wordings: Sequence[str],
    names: Sequence[str],
    worlds: Sequence[str],
    steps: int = 1500,
    report: Callable[[str], None] = print,
) -> None:
    """Goes on fitting the gate alone, which tells what it told wrong; what it told right, and all that is said of parts, is held.

    Arguments as of :func:`fit`.
    """
    spoken = spoken_texts(wordings, names, worlds, np.random.default_rng(0))
    sentences, kinds = embed(spoken.texts), spoken.kinds
    with torch.no_grad():
        before = head.gate(sentences).softmax(-1)
    wrong = (before.gather(1, kinds[:, None])[:, 0] < TOLD).nonzero()[:, 0]
    report(f"the gate tells {len(wrong)} of {len(kinds)} texts wrong, or is not sure of them")
    if not len(wrong):
        return
    parameters = [*head.gate_first.parameters(), *head.gate_second.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    right = torch.ones(len(kinds), dtype=torch.bool)
    right[wrong] = False
    for step in range(steps):
        _rated(optimizer, step, steps)
        rows = spoken.draw(generator)
        rows = rows[right[rows]]
        mended = wrong[torch.randint(len(wrong), (64,), generator=generator)]
        told = F.cross_entropy(head.gate(_noisy(sentences[mended], generator)), kinds[mended])
        # The mean of the differences, not of their squares: small ones count as well, for of vectors that are all part a thousandth of
        # a thing is heard.
        moved = (head.gate(sentences[rows]).softmax(-1) - before[rows]).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        (told + HELD * moved).backward()
        optimizer.step()
        if (step + 1) % 300 == 0:
            report(f"gate {step + 1}/{steps}: {told.item():.4f} of what was wrong, the rest moved by {moved.item():.5f}")
