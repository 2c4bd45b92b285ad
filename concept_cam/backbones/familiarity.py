"""Is a phrase near what a model was trained on? An open vocabulary can spell every word, which is not the same as knowing it.

Two questions, both asked of the text tower alone:

- How much do words that training never said weigh in the phrase? Each is left out in turn; `1 - cosine` of the two embeddings is its
  weight. A filler ("in this snapshot") weighs little, a new attribute ("bifurcate") or a new host ("of a beetle") much.
- Is any trained phrase near at all? The highest cosine to one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_WORD: Final = re.compile(r"\w+|[^\w\s\x00-\xbf\u0300-\u036f\u2000-\u206f\u3000-\u303f\ufe00-\ufe0f\uff00-\uff0f]")
"""A word, or a symbol such as an emoji; ASCII's and Unicode's punctuation, combining marks and variation selectors are neither."""
MOST_WEIGHT: Final = 0.08
"""Unseen words may weigh this much. At it, 10 % of new sentences around known words and 82 % of unknown synonyms are reported."""
LEAST_COSINE: Final = 0.6
"""A trained phrase must be this near. All of the new sentences have one; gibberish comes to 0.36."""


@dataclass(frozen=True)
class Familiarity:
    """How near a phrase is to what was trained.

    Attributes:
        weight: 0..2, how far the phrase moves when its most important unseen word is left out; 0 without unseen words.
        word: That word, empty without one.
        cosine: Highest cosine to a trained phrase.
    """

    weight: float
    word: str
    cosine: float

    @property
    def familiar(self) -> bool:
        """Near enough to be trusted."""
        return self.weight <= MOST_WEIGHT and self.cosine >= LEAST_COSINE

    def reason(self) -> str:
        """Says in a few words why the phrase is not familiar; empty if it is."""
        if self.weight > MOST_WEIGHT:
            return f"{self.word!r} is not a word that the model was trained on, and it matters here"
        if self.cosine < LEAST_COSINE:
            return f"nothing like it was trained (nearest cosine {self.cosine:.2f})"
        return ""


def words_of(text: str) -> list[str]:
    """Splits a text into lower-case words."""
    return split_words(text.lower())


def split_words(text: str) -> list[str]:
    """Splits a text into its words; a text of punctuation alone is one, for it says nothing that could be known."""
    return _WORD.findall(text) or text.split()


def singular(word: str, known: Collection[str]) -> str:
    """Returns the known word that a word is the plural of, else the word itself."""
    for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
        stem = word[: -len(ending)] + instead
        if word.endswith(ending) and stem in known:
            return stem
    return word


def familiarity(texts: Sequence[str], known: Collection[str], trained: Tensor, embed: Callable[[list[str]], Tensor]) -> list[Familiarity]:
    """Measures how familiar texts are.

    Args:
        texts: N texts.
        known: Lower-case words of the trained phrases; a set, for speed.
        trained: [P, E] unit embeddings of trained phrases.
        embed: The text tower, texts -> [N, E] unit length.
    """
    if not texts:
        return []
    shorter: list[tuple[int, str, str]] = []
    for number, text in enumerate(texts):
        spoken = words_of(text)
        for word in dict.fromkeys(spoken):
            if singular(word, known) not in known:
                rest = " ".join(other for other in spoken if other != word)
                shorter.append((number, word, rest))
    # A phrase of one unseen word has nothing left: the word is all of it.
    asked = [*texts, *dict.fromkeys(rest for _, _, rest in shorter if rest)]
    embedded = embed(asked).float()
    place = {text: row for row, text in enumerate(asked)}
    cosine = (embedded[: len(texts)] @ trained.float().T).amax(dim=1)
    found = [Familiarity(0.0, "", float(value)) for value in cosine]
    for number, word, rest in shorter:
        weight = 1.0 - float(torch.dot(embedded[number], embedded[place[rest]])) if rest else 1.0
        if weight > found[number].weight:
            found[number] = Familiarity(weight, word, found[number].cosine)
    return found
