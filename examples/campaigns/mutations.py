"""Damages files as the world does, from a seed: bytes flipped, cut, doubled and swapped, and values of JSON, XML and tables replaced by odd
ones.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

__all__ = ["mutated"]

ODD_TEXTS = [
    b'"', b"'", b"\0", b"\xff\xfe", b"\r", b"\n\n", b"null", b"NaN", b"Infinity", b"-1", b"0", b"1e400", b"9" * 5000, b"{}", b"[]",
    b"[" * 3000, b"{" * 2000,
    b"<", b"&amp;", b"]]>", b"../../etc/passwd", b"\xed\xa0\x80", b"\xf0\x9f\x90\x9f", b"true", b"- ", b": ", b"&a *a ",
    b"!!python/object:os.system ", b"\t", b",", b";",
]  # fmt: skip
"""What is put in somewhere."""

ODD_VALUES: list[Any] = [
    None, True, 0, -1, 10**30, 10**400, 1e308, float("nan"), float("inf"), "", "x", "\ud83d", "9" * 400, [], {}, [[]], [None], {"a": 1},
    [1, 2, 3], [[0, 0]] * 3, -0.5,
]  # fmt: skip
"""What a value of JSON is replaced by."""


def mutated(content: bytes, seed: int) -> bytes:
    """Returns a damaged copy; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        content = chance.choice(_MUTATIONS)(content, chance)
    return content


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 20))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _flip_early(content: bytes, chance: random.Random) -> bytes:
    return _flip(content[:200], chance) + content[200:]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _drop(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + content[start + chance.choice((1, 4, 30, 500)) :]


def _double(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    piece = content[start : start + chance.choice((1, 10, 100, 1000))]
    return content[:start] + piece * chance.choice((2, 3)) + content[start + len(piece) :]


def _insert(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    return content[:start] + chance.choice(ODD_TEXTS) + content[start:]


def _swap_word(content: bytes, chance: random.Random) -> bytes:
    words = list(re.finditer(rb"[A-Za-z0-9_.+-]+", content[:200_000]))
    if not words:
        return _insert(content, chance)
    word = chance.choice(words)
    return content[: word.start()] + chance.choice((*ODD_TEXTS, chance.choice(words)[0])) + content[word.end() :]


def _value(content: bytes, chance: random.Random) -> bytes:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):  # The second where it was damaged before, by brackets without end.
        return _swap_word(content, chance)
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            collect(node[key])

    collect(data)
    if not places:
        return _insert(content, chance)
    node, key = chance.choice(places)
    if chance.random() < 0.25:
        del node[key]
    else:
        node[key] = chance.choice(ODD_VALUES)
    return json.dumps(data).encode("utf-8", "surrogatepass")


_MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    _flip, _flip_early, _cut, _drop, _double, _insert, _insert, _swap_word, _swap_word, _value, _value, _value,
]  # fmt: skip
