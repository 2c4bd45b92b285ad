"""How the text towers of the transformers library are asked: how texts are padded, and how long they may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from concept_cam.backbones.text import ModelTower, TextEncoder, TransformersTokens
from concept_cam.core.errors import ModelError

__all__ = ["TEXTS", "Texts", "text_encoder"]

NO_LIMIT = 100_000
"""Tokenizers without a limit say a very large number."""


@dataclass(frozen=True)
class Texts:
    """How texts meet a text tower.

    Attributes:
        length: Most tokens, special ones included, by the text tower's configuration.
        padding: ``"longest"`` text of a batch, or ``"max_length"`` for towers that attend to the padding, as in training.
        own_limit: Whether a lower limit of the folder's tokenizer counts too.
    """

    length: Callable[[Any], int]
    padding: str = "longest"
    own_limit: bool = False


def _positions(config: Any) -> int:
    return int(config.max_position_embeddings)


def _after_padding(config: Any) -> int:
    """RoBERTa numbers its places from behind the padding's on."""
    return int(config.max_position_embeddings) - int(config.pad_token_id) - 1


TEXTS: dict[str, Texts] = {
    "clip": Texts(_positions),
    "fgclip": Texts(_positions),
    "metaclip_2": Texts(_positions),
    "siglip": Texts(_positions, "max_length"),
    "siglip2": Texts(_positions, "max_length"),
    "altclip": Texts(_after_padding, own_limit=True),
    "chinese_clip": Texts(_positions, own_limit=True),
    # Its processor makes texts of 64 tokens.
    "align": Texts(lambda config: min(64, _positions(config)), own_limit=True),
    "tipsv2": Texts(_positions),
}
"""Kind of a model -> how its texts are read."""


def text_encoder(model: nn.Module, tokenizer: Any, kind: str, name: str) -> TextEncoder:
    """Makes the text tower of a model of the transformers library.

    Args:
        model: The model, with ``get_text_features``.
        tokenizer: Its tokenizer.
        kind: Key of :data:`TEXTS`.
        name: Name of the model, for messages.

    Raises:
        ModelError: The tokenizer is missing.
    """
    if tokenizer is None:
        raise ModelError(f"{name} needs its tokenizer.")
    texts, config = TEXTS[kind], model.config.text_config  # type: ignore[union-attr]
    limit = texts.length(config)
    own = int(getattr(tokenizer, "model_max_length", 0) or 0)
    if texts.own_limit and 0 < own < NO_LIMIT:
        limit = min(limit, own)
    tower = ModelTower(model, _embed)
    return TextEncoder(TransformersTokens(tokenizer, limit, texts.padding), tower, tower.device)


def _embed(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    output = model.get_text_features(**inputs)
    # A tensor before transformers 5, an output object since.
    embedding: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    # TIPSv2 divides by a count, which makes half numbers whole ones.
    return embedding.to(next(model.parameters()).dtype)
