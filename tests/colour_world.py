"""Pictures and a trait pack whose answers the planted colour backbone knows: a red head, a green tail fin, a blue eye on black."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PACK: dict[str, Any] = {
    "schema": 1,
    "pack": "colours",
    "host": "red green",
    "templates": ["{}"],
    "host_templates": ["{}"],
    "characters": {
        "head_colour": {
            "kind": "colour",
            "entity": {"label": "head", "id": "UBERON:0000033", "nouns": ["red", "blue", "green"]},
            "states": {
                "red": {
                    "phrases": ["a red head"],
                    "quality": {"label": "red", "id": "PATO:0000322", "match": "exact"},
                },
                "blue": {
                    "phrases": ["a blue head"],
                    "quality": {"label": "blue", "id": "PATO:0000318", "match": "exact"},
                },
            },
        },
        "mark": {
            "kind": "presence",
            "entity": {"label": "mark", "nouns": ["blue"]},
            "states": {"present": {"phrases": ["red green blue blue mark"]}},
        },
        "parts": {
            "kind": "part",
            "states": {
                "head": {
                    "phrases": ["red"],
                    "entity": {"label": "head", "id": "UBERON:0000033"},
                    "contrasts": ["caudal_fin", "eye"],
                },
                "caudal_fin": {
                    "phrases": ["green"],
                    "entity": {"label": "caudal fin"},
                    "contrasts": ["head", "eye"],
                },
                "eye": {"phrases": ["blue"], "entity": {"label": "eye"}, "contrasts": ["head", "caudal_fin"]},
            },
        },
    },
}

HEAD, TAIL, EYE = (0, 8, 56, 80), (88, 8, 40, 80), (24, 32, 16, 16)
"""Boxes ``(x, y, width, height)`` in the standard picture of 128 x 96 pixels."""


def picture(seed: int = 0, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A subject on black, uint8 [H, W, 3]; the seed changes its brightness a little, so that no two pictures are alike."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((96, 128, 3), dtype=np.uint8)
    for channel, (x, y, width, height) in ((0, HEAD), (1, TAIL)):
        pixels[y : y + height, x : x + width, channel] = rng.integers(180, 256)
    x, y, width, height = EYE
    pixels[y : y + height, x : x + width] = (0, 0, 255)
    if size != (96, 128):
        return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.NEAREST))
    return pixels


def other(seed: int = 0) -> np.ndarray:
    """Something else: a grey scene."""
    return np.full((96, 128, 3), 8 + seed % 8, dtype=np.uint8)


def write_pictures(folder: Path, count: int, broken: int = 0) -> tuple[list[str], list[str]]:
    """Writes ``count`` pictures, of which ``broken`` cannot be read (in turn empty, text, cut short); returns good and bad relative
    names.
    """
    good, bad = [], []
    every = count // broken if broken else count + 1
    for number in range(count):
        name = f"box {number % 3}/fïsh {number:04d}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)
        if number % every == every - 1 and len(bad) < broken:
            content = path.read_bytes()
            path.write_bytes((b"", b"not a picture at all", content[: len(content) // 2])[len(bad) % 3])
            bad.append(name)
        else:
            good.append(name)
    return good, bad
