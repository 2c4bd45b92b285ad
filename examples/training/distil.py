"""Distils the text tower: a three-layer student imitates the sentence encoder on phrases made on the spot.

    PYTHONPATH=examples python -m training.distil --folder out/ --device cuda     # a minute and a half on one GPU
    PYTHONPATH=examples python -m training.distil --folder out/ --minutes 30      # as far as a CPU comes in half an hour

The student starts from some of the teacher's layers and from its table of word pieces, less the pieces that no Latin text needs. The loss
is 1 less the cosine of the two sentence embeddings. Single letters and digits stay in the vocabulary, so that every word can be spelt.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from concept_cam.backbones.machine import device_of
from concept_cam.backbones.word_pieces import (
    PAD,
    WordPieceConfig,
    WordPieceTokens,
    WordPieceTower,
    packed,
    unpacked,
)
from concept_cam.commands.console import above_zero, at_least_one, run_script
from examples.training.phrases import held_out, phrases
from examples.training.teacher import Teacher, load_teacher

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LATIN = re.compile(r"(##)?[a-z0-9]+|[!-~\u00a1-\u024f\u2010-\u2026]")
FREQUENT = 14_000
"""Whole words are kept up to this number: the table is in the order of their frequency. Pieces of words are all kept."""


@dataclass(frozen=True)
class DistilConfig:
    """How the student is trained.

    Attributes:
        layers: Numbers of the teacher's layers that the student starts from, one for each of its own.
        context: Most word pieces of a text.
        batch: Texts per step.
        steps: Steps of the optimiser.
        rate: Highest learning rate.
        warmup: Steps until it is reached; a cosine brings it down to nothing.
        seed: Of the corpus and of the order of its phrases.
        minutes: Stop the clock here, the rate having come down in time; `None`: no limit.
    """

    layers: tuple[int, ...] = (0, 3, 5)
    context: int = 64
    batch: int = 256
    steps: int = 4150
    rate: float = 6e-4
    warmup: int = 200
    seed: int = 0
    minutes: float | None = None


def pruned(tokenizer: str, texts: Sequence[str] = ()) -> tuple[str, list[int]]:
    """Drops rare whole words that no phrase uses, and all that is not Latin script; such words are spelt from their pieces.

    Args:
        tokenizer: `tokenizer.json` as text.
        texts: Phrases whose pieces are kept in any case.

    Returns:
        The smaller `tokenizer.json`, and the old numbers of the pieces that are kept, in their new order; padding stays 0.
    """
    data: dict[str, Any] = json.loads(tokenizer)
    vocabulary: dict[str, int] = data["model"]["vocab"]
    whole = WordPieceTokens(tokenizer, 0)
    names = {number: piece for piece, number in vocabulary.items()}
    needed = {names[number] for number in {n for text in texts for n in whole.ids(text)}}
    kept = [
        piece
        for piece, number in vocabulary.items()
        if piece in SPECIAL
        or piece in needed
        or (LATIN.fullmatch(piece) and (number < FREQUENT or len(piece) == 1 or piece.startswith("##")))
    ]
    kept.sort(key=lambda piece: (piece not in SPECIAL, vocabulary[piece]))
    number = {piece: i for i, piece in enumerate(kept)}
    data["model"]["vocab"] = number
    data["added_tokens"] = [{**token, "id": number[token["content"]]} for token in data["added_tokens"] if token["content"] in number]
    for token in data["post_processor"]["special_tokens"].values():
        token["ids"] = [number[piece] for piece in token["tokens"]]
    data["padding"] = data["truncation"] = None
    return json.dumps(data, ensure_ascii=False), [vocabulary[piece] for piece in kept]


def student_of(teacher: Teacher, texts: Sequence[str], config: DistilConfig) -> tuple[WordPieceTower, WordPieceTokens, str]:
    """Returns the untrained student, its tokens and its `tokenizer.json`; word pieces that the texts use are kept."""
    tokenizer, kept = pruned(teacher.tokenizer, texts)
    source = teacher.tower.state_dict()
    sizes = teacher.tower.config
    state = {name: value for name, value in source.items() if not name.startswith("layers.")}
    state["pieces.weight"] = state["pieces.weight"][kept]
    state["positions.weight"] = state["positions.weight"][: config.context]
    for new, old in enumerate(config.layers):
        prefix = f"layers.{old}."
        state |= {f"layers.{new}.{name[len(prefix) :]}": value for name, value in source.items() if name.startswith(prefix)}
    tower = WordPieceTower(
        WordPieceConfig(
            pieces=len(kept),
            width=sizes.width,
            layers=len(config.layers),
            heads=sizes.heads,
            hidden=sizes.hidden,
            context=config.context,
        )
    )
    tower.load_state_dict({name: value.clone() for name, value in state.items()})
    return tower, WordPieceTokens(tokenizer, config.context), tokenizer


@torch.no_grad()
def sentence_embeddings(tower: WordPieceTower, tokens: WordPieceTokens, texts: Sequence[str], device: str, batch: int = 512) -> Tensor:
    """Embeds texts on a device: float16 [N, E] on the CPU, unit length. Sorted by length, so that little is padded."""
    tower = tower.to(device).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = torch.zeros(len(texts), tower.config.width, dtype=torch.float16)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids = tokens.batch([texts[i] for i in rows])["ids"].to(device)
        found[rows] = tower(ids).half().cpu()
    return found


def distil(
    tower: WordPieceTower,
    tokens: WordPieceTokens,
    texts: Sequence[str],
    targets: Tensor,
    config: DistilConfig,
    device: str = "cpu",
) -> WordPieceTower:
    """Trains the student to give the targets.

    Args:
        tower: Student, changed in place.
        tokens: Its tokens.
        texts: N phrases.
        targets: [N, E], the teacher's embeddings of the phrases.
        config: How to train.
        device: `cpu` or `cuda`.

    Returns:
        The student, in evaluation mode.
    """
    tower = tower.to(device).train()
    decay = [p for p in tower.parameters() if p.ndim > 1]
    rest = [p for p in tower.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}],
        lr=config.rate,
        betas=(0.9, 0.98),
    )
    encoded = [tokens.ids(text)[: config.context] for text in texts]
    # Batches of like lengths: a fifth of the time goes into padding otherwise.
    generator = torch.Generator().manual_seed(config.seed)
    began, step = time.perf_counter(), 0
    while True:
        for rows in _batches([len(ids) for ids in encoded], config.batch, generator):
            used = (time.perf_counter() - began) / 60 / config.minutes if config.minutes else 0.0
            done = max(step / config.steps, used)
            if done >= 1:
                return tower.eval()
            rate = config.rate * min((step + 1) / config.warmup, 0.5 * (1 + math.cos(math.pi * done)))
            for group in optimiser.param_groups:
                group["lr"] = rate
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(encoded[i]) for i in rows], batch_first=True, padding_value=PAD).to(device)
            wanted = targets[rows].to(device).float()
            loss = (1 - (tower(ids) * wanted).sum(-1)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimiser.step()
            step += 1
            if step % 100 == 0:
                print(f"step {step} 1-cos {loss.item():.4f} {time.perf_counter() - began:.0f} s", flush=True)


def _batches(lengths: Sequence[int], size: int, generator: torch.Generator) -> list[list[int]]:
    """Rows in random batches of nearly equal length."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pools = [order[i : i + 50 * size] for i in range(0, len(order), 50 * size)]
    batches = []
    for pool in pools:
        pool.sort(key=lambda i: lengths[i])
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def agreement(tower: WordPieceTower, tokens: WordPieceTokens, texts: Sequence[str], targets: Tensor) -> Tensor:
    """Cosine of student and teacher for every text, [N]."""
    device = str(tower.positions.weight.device)
    return (sentence_embeddings(tower, tokens, texts, device).float() * targets.float()).sum(-1)


def save(folder: Path, tower: WordPieceTower, tokenizer: str) -> None:
    """Writes `text.safetensors`, `text.json` and `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(packed(tower.state_dict()), folder / "text.safetensors")
    (folder / "text.json").write_text(json.dumps(tower.config.as_dict(), indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the text tower goes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=at_least_one, default=DistilConfig.steps)
    parser.add_argument("--batch", type=at_least_one, default=DistilConfig.batch)
    parser.add_argument("--minutes", type=above_zero, help="stop training after so many minutes")
    parser.add_argument("--phrases", type=at_least_one, help="only the first so many phrases, for a trial")
    chosen = parser.parse_args()
    device = str(device_of(chosen.device))
    config = DistilConfig(steps=chosen.steps, batch=chosen.batch, minutes=chosen.minutes)
    teacher = load_teacher()
    texts = phrases(config.seed)[: chosen.phrases]
    print(f"{len(texts)} phrases", flush=True)
    targets = sentence_embeddings(teacher.tower, teacher.tokens, texts, device)
    apart = [i for i, text in enumerate(texts) if held_out(text)]
    used = [i for i, text in enumerate(texts) if not held_out(text)]
    tower, tokens, tokenizer = student_of(teacher, texts, config)
    distil(tower, tokens, [texts[i] for i in used], targets[used], config, device)
    tower = tower.cpu()
    tower.load_state_dict(unpacked(packed(tower.state_dict())))
    cosine = agreement(tower, tokens, [texts[i] for i in apart], targets[apart])
    print(f"held-out phrases {len(apart)}: cosine mean {cosine.mean():.4f}, 5 % {cosine.quantile(0.05):.4f}")
    save(chosen.folder, tower, tokenizer)


if __name__ == "__main__":
    run_script(main)
