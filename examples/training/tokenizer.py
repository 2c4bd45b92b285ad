"""A word-level tokenizer in the files that stock `open_clip` reads from a `local-dir:` model.

`open_clip.get_tokenizer("local-dir:FOLDER")` hands the folder to `transformers.AutoTokenizer` when `text_cfg.hf_tokenizer_name` is
set, whatever its value. So `tokenizer.json` and `tokenizer_config.json` beside the weights are all it takes: no network, no absolute path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD: Final = "<pad>"
UNKNOWN: Final = "<unk>"
START: Final = "<start>"
END: Final = "<end>"
CONTEXT_LENGTH: Final = 32
"""Tokens of a text, start and end included."""


def vocabulary(words: Iterable[str]) -> dict[str, int]:
    """Token -> number. The end token has the highest number: CLIP's text tower reads its output where the number is greatest."""
    tokens = [PAD, UNKNOWN, *sorted(set(words)), START, END]
    return {token: number for number, token in enumerate(tokens)}


def build(words: Iterable[str]) -> Tokenizer:
    """A tokenizer of whole words, lower-cased, that takes everything but letters and digits as space."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    numbers = vocabulary(words)
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]|_"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, numbers[START]), (END, numbers[END])]
    )
    return tokenizer


def save(words: Iterable[str], folder: Path) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json` and, for people, `vocabulary.txt` (one word per line)."""
    known = sorted(set(words))
    folder.mkdir(parents=True, exist_ok=True)
    build(known).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT_LENGTH,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "bos_token": START,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "vocabulary.txt").write_text("\n".join(known) + "\n", encoding="utf-8")


def encode(tokenizer: Tokenizer, texts: Sequence[str], length: int = CONTEXT_LENGTH) -> list[list[int]]:
    """Token numbers of each text, padded to `length`.

    Raises:
        ValueError: a text is longer than `length` tokens.
    """
    rows = []
    for text, encoding in zip(texts, tokenizer.encode_batch(list(texts)), strict=True):
        if len(encoding.ids) > length:
            raise ValueError(f"{text!r} has {len(encoding.ids)} tokens, more than the {length} the model reads.")
        rows.append(encoding.ids + [0] * (length - len(encoding.ids)))
    return rows
