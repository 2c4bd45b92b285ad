"""A small text tower with an open vocabulary: word pieces, a few transformer layers, one unit vector per text.

The architecture is BERT's encoder with mean pooling, as in the sentence encoder that it is distilled from. Word pieces go down to single
letters, so no word is unknown; whether a text is *familiar* is another question (a map always has a peak).

Axis letters: `N` texts, `L` word pieces, `E` width of the sentence space, `V` pieces in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from concept_cam.core.errors import ModelError

PAD: Final = 0
"""Number of the padding piece."""
SCALE: Final = ".scale"
"""Ending of the names of stored scales."""
SMALLEST: Final = 1e-6
"""Least scale, so that a row of zeros divides."""


@dataclass(frozen=True)
class WordPieceConfig:
    """Sizes of a :class:`WordPieceTower`.

    Attributes:
        pieces: `V`, word pieces in the vocabulary.
        width: `E`, of the layers and of the embedding.
        layers: Transformer layers.
        heads: Attention heads per layer.
        hidden: Width of the feed-forward part.
        context: Most word pieces of a text, start and end marks included.
    """

    pieces: int
    width: int = 384
    layers: int = 3
    heads: int = 12
    hidden: int = 1536
    context: int = 64

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ModelError(f"expected a width that {self.heads} heads divide, received {self.width}.")

    def as_dict(self) -> dict[str, int]:
        """Returns the sizes for a JSON file."""
        return asdict(self)


class _TransformerLayer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, config: WordPieceConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.norm = nn.LayerNorm(config.width, eps=1e-12)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None, None, :])
        x = self.attention_norm(x + self.out(mixed.transpose(1, 2).reshape(n, length, width)))
        update: Tensor = self.norm(x + self.down(nn.functional.gelu(self.up(x))))
        return update


class WordPieceTower(nn.Module):
    """Word pieces -> one unit vector per text.

    Args:
        config: Sizes.
    """

    def __init__(self, config: WordPieceConfig) -> None:
        super().__init__()
        self.config = config
        self.pieces = nn.Embedding(config.pieces, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.layers = nn.ModuleList(_TransformerLayer(config) for _ in range(config.layers))

    def forward(self, ids: Tensor) -> Tensor:
        """Embeds texts.

        Args:
            ids: int64 [N, L], word pieces, start and end marks included; 0 is padding.

        Returns:
            [N, E], unit length: the mean of the last layer's pieces, normalised.
        """
        mask = ids != PAD
        x = self.norm(self.pieces(ids) + self.positions.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask)
        weight = mask.unsqueeze(-1).to(x.dtype)
        mean = (x * weight).sum(1) / weight.sum(1)
        return nn.functional.normalize(mean, dim=-1)


class WordPieceTokens:
    """Word pieces by the ``tokenizers`` library, the tokens of a :class:`WordPieceTower`.

    Args:
        source: ``tokenizer.json``: its path or its text.
        context_length: Most word pieces of a text, start and end marks included.
    """

    def __init__(self, source: Path | str, context_length: int) -> None:
        from tokenizers import Tokenizer

        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        self.context_length = context_length
        self._tokenizer: Any = Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def ids(self, text: str) -> list[int]:
        """Returns the word pieces of one text, start and end marks included, never truncated."""
        return list(self._tokenizer.encode(text).ids)

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns ``ids`` int64 [N, L] of texts, cut to the context and padded with 0."""
        rows = [e.ids[: self.context_length] for e in self._tokenizer.encode_batch(list(texts))]
        ids = torch.full((len(rows), max(map(len, rows), default=0)), PAD, dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return {"ids": ids}

    def unknown_id(self) -> int | None:
        """Returns ``None``: every word can be spelt."""
        return None


def packed(weights: Mapping[str, Tensor], levels: int = 127) -> dict[str, Tensor]:
    """Returns weights as they are stored in eight bits: matrices in whole numbers with one scale per row, the rest in half precision.

    Eight bits halve the file; what they cost in cosine is in the model card. The kernels of a convolution are the rows of a matrix; a stack
    of matrices has a scale for each row of each, for their rows may be of very different sizes.

    Args:
        weights: The weights by name.
        levels: The largest whole number; fewer than 127 take less room in an archive.
    """
    stored: dict[str, Tensor] = {}
    for name, value in weights.items():
        value = value.detach().float().cpu()
        if value.ndim < 2:
            stored[name] = value.half()
            continue
        across = (2,) if value.ndim == 3 else tuple(range(1, value.ndim))
        scale = (value.abs().amax(across, keepdim=True) / levels).clamp(min=SMALLEST).half()
        stored[name] = (value / scale.float()).round().clamp(-levels, levels).to(torch.int8).contiguous()
        stored[name + SCALE] = scale
    return stored


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state dict, in float32, of weights as :func:`packed` stores them.

    Raises:
        ValueError: A weight is missing whose scales are there, or not all of it is finite numbers.
    """
    if alone := [name for name in stored if name.endswith(SCALE) and name.removesuffix(SCALE) not in stored]:
        raise ValueError(f"{alone[0]} is there without {alone[0].removesuffix(SCALE)}")
    # Whole numbers are finite, and so are their products with such scales: a quarter of the time that all weights would take.
    if strange := [name for name, value in stored.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ValueError(f"{strange[0].removesuffix(SCALE)} holds numbers that are not finite")
    return {
        name: value.float() * stored[name + SCALE].float() if name + SCALE in stored else value.float()
        for name, value in stored.items()
        if not name.endswith(SCALE)
    }
