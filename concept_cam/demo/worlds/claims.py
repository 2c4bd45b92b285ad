"""Claims about pictures and their truth values. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FALSE: Final = 0
UNKNOWN: Final = 1
TRUE: Final = 2
"""Truth values, ordered so that the truth of a conjunction is the least of its parts' (Kleene's strong three-valued logic)."""

KINDS: Final[dict[str, str]] = {
    "state": "a character has a state",
    "lacks": "a presence character is visibly absent",
    "part": "a part is seen",
    "host": "there is one of the group",
    "empty": "there is none",
    "scene": "what it is before",
    "viewpoint": "from where it is seen",
    "tail": "how its tail fin lies",
    "number": "how many there are",
    "thing": "something else is seen",
}
"""Kinds of claims. The last four are told by some rooms only."""


@dataclass(frozen=True)
class Statement:
    """One claim about a picture.

    Attributes:
        kind: key of `KINDS`.
        key: character, part, scene, or what the kind is about; empty for `host` and `empty`.
        state: state of the character for kind `state`.
    """

    kind: str
    key: str = ""
    state: str = ""
