"""Writes the model that ships: trained neck, standing backbone, text tower, nouns and joint head in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones import lite
from concept_cam.backbones.familiarity import words_of
from concept_cam.backbones.lite_towers import Sizes
from concept_cam.backbones.noun_head import NounConfig
from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, unpacked
from concept_cam.demo.worlds import WORLDS
from training.backbone import load_trunk
from training.config import TRAIN_SEED
from training.joint import fit
from training.networks import Trainee, folded


def assemble(
    trained: Path,
    words: Path,
    nouns: Path,
    sentences: Path,
    names: Sequence[str],
    worlds: Sequence[str],
    backbone: Path | None = None,
) -> tuple[lite.LiteModel, str]:
    """Puts the model together.

    Args:
        trained: `trained.pt` of a run.
        words: Folder of the distilled text tower: `text.json`, `text.safetensors`, `tokenizer.json`.
        nouns: Folder of the head for nouns: `nouns.json`, `nouns.safetensors`.
        sentences: The wordings and the teacher's embeddings of them.
        names: Names of things, for the gate.
        worlds: The groups of the run.
        backbone: The published backbone; ``None`` for that of the installed package.

    Returns:
        The model and its tokenizer.
    """
    from safetensors.torch import load_file

    saved = torch.load(trained, weights_only=True, map_location="cpu")
    trainee = Trainee(Sizes(**{key: value for key, value in saved["sizes"].items() if key in Sizes.__dataclass_fields__}), 1.0)
    trainee.load_state_dict(saved["average"])
    trainee.eval()
    naming = NounConfig(**json.loads((nouns / "nouns.json").read_text(encoding="utf-8")))
    speaking = WordPieceConfig(**json.loads((words / "text.json").read_text(encoding="utf-8")))
    model = lite.LiteModel(replace(trainee.sizes, nouns=naming.width), naming, speaking).eval()
    image = model.image
    image.trunk.load_state_dict(load_trunk(backbone))
    image.neck.load_state_dict(folded(trainee.neck))
    for name in ("parts", "query", "value"):
        getattr(image, name).load_state_dict(getattr(trainee, name).state_dict())
    image.nouns.load_state_dict({name: value.float() for name, value in load_file(nouns / "nouns.safetensors").items()})
    model.text.load_state_dict(unpacked(load_file(words / "text.safetensors")))
    head, tokenizer = model.joint, (words / "tokenizer.json").read_text(encoding="utf-8")
    with torch.no_grad():
        model.logit_scale.copy_(trainee.log_scale.detach())
    head.first.load_state_dict(trainee.words.first.state_dict())
    head.second.load_state_dict(trainee.words.second.state_dict())
    table = torch.load(sentences, weights_only=True)
    with torch.no_grad():
        targets = F.normalize(trainee.words(table["emb"].float()), dim=-1)
    fit(head, embedder(model, tokenizer), table["texts"], targets, names, worlds)
    return model.eval(), tokenizer


def embedder(model: lite.LiteModel, tokenizer: str) -> Callable[[Sequence[str]], Tensor]:
    """The text tower of a model: texts to unit vectors [N, 384], short texts with short ones."""
    tokens = WordPieceTokens(tokenizer, model.text.config.context)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Tensor:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = torch.empty(len(texts), model.text.config.width)
        for start in range(0, len(order), 256):
            rows = order[start : start + 256]
            found[rows] = model.text(tokens.batch([texts[i] for i in rows])["ids"])
        return found

    return embed


def remember(
    model: lite.LiteModel,
    tokenizer: str,
    wordings: Sequence[str],
    names: Sequence[str],
    worlds: Sequence[str],
    pictures: int = 112,
    count: int = 48,
) -> dict[str, list[str]]:
    """Gives a model the phrases and pictures that tell what is unlike them; in place.

    Args:
        model: The model.
        tokenizer: Its `tokenizer.json`.
        wordings: Phrases about specimens and their parts.
        names: Names of things.
        worlds: The groups of the run.
        pictures: Rendered specimens of either kind that are looked at, for each group.
        count: Phrases are thinned to eight times, pictures of a group gathered into this number.

    Returns:
        `words`, `names` and `groups`, for `concept_cam.backbones.lite.save`.
    """
    embed = embedder(model, tokenizer)
    step = max(1, len(wordings) // (8 * count * len(worlds)))
    model.familiar = embed(list(wordings)[::step])
    examples, groups = [], []
    for name in worlds:
        world, seen = WORLDS[name], []
        for profile in ("plain", "photographs"):
            for start in range(0, pictures, 16):
                specimens = world.sample(min(16, pictures - start), TRAIN_SEED, view="whole", profile=profile, start=7_000_000 + start)
                with torch.no_grad():
                    _, top = model.image.read((world.render(specimens, (256, 384)).images.float() - 127.0) / 128.0)
                    seen.append(model.image.nouns.cells(top.mean((2, 3))))
        own = torch.cat([_named(model, embed, NAMED[name]), gathered(F.normalize(torch.cat(seen), dim=-1), count)])
        examples.append(own)
        groups += [name] * len(own)
    model.examples = torch.cat(examples)
    return {
        "words": sorted({word for text in wordings for word in words_of(text)}),
        "names": sorted({" ".join(words_of(name)) for name in names}),
        "groups": groups,
    }


NAMED = {
    "fish": ("fish", "a live fish", "a fish", "a catfish", "a trout", "a goldfish", "a shark"),
    "lepidoptera": ("butterfly", "a butterfly", "a moth", "a monarch butterfly", "a cabbage white butterfly", "a ringlet butterfly"),
    "beetle": ("beetle", "a beetle", "a ladybird", "a weevil", "a ground beetle", "a leaf beetle", "a longhorn beetle"),
    "plant": ("leaf", "a leaf", "a plant", "leaves", "a tree leaf"),
}
"""Group -> texts whose vectors are remembered beside the pictures: what the backbone calls such a thing."""


@torch.no_grad()
def _named(model: lite.LiteModel, embed: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> Tensor:
    return F.normalize(model.image.nouns.text(embed(texts)), dim=-1)


def gathered(vectors: Tensor, count: int, rounds: int = 30) -> Tensor:
    """Means of groups of unit vectors [N, D] that lie together (spherical k-means): [count, D]."""
    centres = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:count]]
    for _ in range(rounds):
        nearest = (vectors @ centres.T).argmax(1)
        centres = torch.stack(
            [F.normalize(vectors[nearest == k].mean(0), dim=0) if (nearest == k).any() else centre for k, centre in enumerate(centres)]
        )
    return centres
