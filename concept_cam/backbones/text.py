"""Text towers and their tokenizers: exact token counts, no silent truncation."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from concept_cam.backbones.familiarity import split_words
from concept_cam.core.errors import ModelError, PromptError, UnsupportedModelError
from concept_cam.core.quiet import quiet

TEXT_BATCH = 256
"""Prompts that go through the text tower at once."""


class Tokens(Protocol):
    """A tokenizer as the text towers need it."""

    context_length: int

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of ``text``, special tokens included, never truncated."""
        ...

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Returns the tower's inputs for texts that fit the context, each [N, L] int64."""
        ...

    def unknown_id(self) -> int | None:
        """Returns the id that stands for unknown words, if the vocabulary is closed."""
        ...


class OpenClipTokens:
    """Wraps open_clip's tokenizers: its own byte-pair encoding and those of the transformers library.

    Args:
        tokenizer: ``open_clip.SimpleTokenizer``, ``HFTokenizer`` or ``SigLipTokenizer``; any callable ``(texts, context_length) -> ids``
            with an ``encode(text) -> ids`` method that leaves the special tokens out, and ``sot_token_id``/``eot_token_id``, will do.
        context_length: Most tokens the text tower takes.

    Raises:
        ModelError: The tokenizer has no way to count tokens before it truncates.
    """

    def __init__(self, tokenizer: Callable[..., Tensor], context_length: int) -> None:
        self.context_length = context_length
        self._tokenizer = tokenizer
        self._inner: Any = getattr(tokenizer, "tokenizer", None)
        self._clean: Callable[[str], str] = getattr(tokenizer, "clean_fn", None) or _siglip_clean(tokenizer)
        if self._inner is None and not hasattr(tokenizer, "encode"):
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} cannot be used: expected one of open_clip's tokenizers, or one with an "
                "`encode(text)` method, so that tokens can be counted before any truncation."
            )

    def ids(self, text: str) -> list[int]:
        tokenizer: Any = self._tokenizer
        if self._inner is None:
            return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        if getattr(tokenizer, "tokenizer_mode", "") == "clips":
            body = self._inner(self._clean(text), add_special_tokens=False, verbose=False)["input_ids"]
            return [self._inner.bos_token_id, *body, self._inner.eos_token_id, self._inner.cls_token_id]
        return list(self._inner(self._clean(text), verbose=False)["input_ids"])

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        tokenizer: Any = self._tokenizer
        mode: str = getattr(tokenizer, "tokenizer_mode", "")
        if self._inner is None or mode:
            return {"text": tokenizer(list(texts), context_length=self.context_length)}
        # What open_clip's wrapper does, said to the inner tokenizer: older wrappers call a method that transformers 5 has dropped.
        cleaned = [self._clean(text) for text in texts]
        limits: dict[str, Any] = {
            "max_length": self.context_length,
            "padding": "max_length",
            "truncation": True,
        }
        ids = self._inner(cleaned, return_tensors="pt", **limits)["input_ids"]
        if getattr(tokenizer, "strip_sep_token", False):
            ids = ids.masked_fill(ids == self._inner.sep_token_id, 0)
        return {"text": ids}

    def unknown_id(self) -> int | None:
        return getattr(self._inner, "unk_token_id", None)


def _siglip_clean(tokenizer: object) -> Callable[[str], str]:
    if type(tokenizer).__name__ != "SigLipTokenizer":
        return str
    from open_clip.tokenizer import basic_clean, canonicalize_text

    return lambda text: str(canonicalize_text(basic_clean(text)))


class TransformersTokens:
    """Wraps a tokenizer of the transformers library.

    Args:
        tokenizer: A ``PreTrainedTokenizer``.
        context_length: Most tokens the text tower takes.
        padding: ``"longest"``, or ``"max_length"`` for towers trained on padded texts (SigLIP).
    """

    def __init__(self, tokenizer: Any, context_length: int, padding: str) -> None:
        self.context_length = context_length
        self._tokenizer = tokenizer
        self._padding = padding

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, verbose=False)["input_ids"])

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        encoded = self._tokenizer(
            list(texts),
            padding=self._padding,
            max_length=self.context_length,
            truncation=True,
            return_tensors="pt",
        )
        if self._padding == "max_length":  # These towers attend to the padding, as in training.
            return {"input_ids": encoded["input_ids"]}
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def unknown_id(self) -> int | None:
        return getattr(self._tokenizer, "unk_token_id", None)


class ModelTower:
    """A text tower of a model that has one: a class of its own, not a function within another, so that it can be sent to another process.

    Args:
        model: The model.
        embed: Takes the model and the tokenizer's inputs to embeddings [N, D]; a function at the top of its module.
    """

    def __init__(self, model: nn.Module, embed: Callable[[Any, dict[str, Tensor]], Tensor]) -> None:
        self._model, self._embed = model, embed

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._embed(self._model, inputs)

    def device(self) -> torch.device:
        """Where the model is."""
        return next(self._model.parameters()).device


class TextEncoder:
    """A text tower with its tokenizer; it can be pickled where its tokenizer and tower can.

    Args:
        tokens: The tokenizer.
        tower: Maps the tokenizer's inputs to embeddings [N, D], not normalised.
        device: Where the tower is.
    """

    def __init__(self, tokens: Tokens, tower: Callable[[dict[str, Tensor]], Tensor], device: Callable[[], torch.device]) -> None:
        self._tokens = tokens
        self._tower = tower
        self._device = device
        # The fast tokenizers of the transformers library refuse to be used by two threads at once.
        self._lock = threading.Lock()
        self._empty = len(self._ids(""))

    def __getstate__(self) -> dict[str, Any]:
        # A lock is one process's own.
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    @property
    def context_length(self) -> int:
        """Most tokens that a prompt may have, special tokens included."""
        return self._tokens.context_length

    def _ids(self, text: str) -> list[int]:
        with self._lock:
            return self._tokens.ids(text)

    def count(self, prompt: str) -> int:
        """Returns the number of tokens of ``prompt``, special tokens included, before any truncation."""
        return len(self._ids(prompt))

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the words that the vocabulary does not know; empty for vocabularies that spell out every word."""
        unknown = self._tokens.unknown_id()
        if unknown is None:
            return ()
        words = dict.fromkeys(split_words(prompt))
        return tuple(word for word in words if unknown in self._ids(word))

    @quiet(graph=False)
    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Embeds texts: N prompts -> [N, D], not normalised.

        Raises:
            PromptError: No prompt, an empty one, or one that is longer than the context.
        """
        if isinstance(prompts, str):
            raise PromptError(f"expected a list of texts, received the single text {prompts!r}: put it into a list.")
        if not prompts:
            raise PromptError("expected at least one text to embed, received none.")
        for prompt in prompts:
            self._check(prompt)
        parts = []
        for start in range(0, len(prompts), TEXT_BATCH):
            with self._lock:
                inputs = self._tokens.batch(prompts[start : start + TEXT_BATCH])
            parts.append(self._tower({name: ids.to(self._device()) for name, ids in inputs.items()}))
        return torch.cat(parts)

    def _check(self, prompt: str) -> None:
        if not prompt.strip():
            raise PromptError("expected a text such as 'a forked tail fin', received an empty one.")
        count = self.count(prompt)
        if count > self.context_length:
            raise PromptError(
                f"the text {textwrap.shorten(prompt, 80, placeholder=' ...')!r} has {count} tokens, and this model reads at most "
                f"{self.context_length} (start and end marks "
                "included). Shorten it: nothing is cut off silently."
            )
        if count <= self._empty:
            raise PromptError(f"nothing is left of the text {prompt!r} once this model's tokenizer has cleaned it. Use words.")


class NoText:
    """Stands where a tower has no text tower: every question in words is refused.

    Args:
        name: Name of the model.
    """

    context_length = 0

    def __init__(self, name: str) -> None:
        self._name = name

    def refuse(self) -> NoReturn:
        """Says what can be done instead.

        Raises:
            UnsupportedModelError: Always.
        """
        raise UnsupportedModelError(
            f"{self._name} has no text tower, so it cannot be asked in words. Explain its own classes with 'concept-cam locate "
            "PICTURE --model "
            "...' (in Python concept_cam.methods.heads.FinerCam), train a classifier on it with 'fit-head', or choose an image-text "
            "model: see "
            "'concept-cam models'."
        )

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Refuses."""
        self.refuse()

    def count(self, prompt: str) -> int:
        """Refuses."""
        self.refuse()

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Refuses."""
        self.refuse()
