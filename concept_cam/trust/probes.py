"""The fixed words that every map is compared with: what an answer looks like that does not depend on the question."""

from __future__ import annotations

__all__ = ["LABELS", "NEUTRAL", "SUBJECTS", "PROBES_VERSION"]

PROBES_VERSION = 2
"""Raised when a word changes: evidence of two versions cannot be compared."""

NEUTRAL: tuple[str, ...] = (
    "a chair",
    "a bicycle",
    "a bridge",
    "a violin",
    "a kettle",
    "a lamp",
    "a ladder",
    "a newspaper",
    "a candle",
    "a sofa",
    "a guitar",
    "a bottle of wine",
    "a wooden door",
    "a mountain road",
    "a city at night",
    "a bowl of soup",
    "a slice of bread",
    "a birthday cake",
    "a pair of shoes",
    "a woollen hat",
    "a telephone",
    "a computer keyboard",
    "a railway station",
    "a football match",
    "a wedding",
    "an office",
    "a thunderstorm",
    "a sunset",
    "a map of the world",
    "an idea",
    "music",
    "Tuesday",
    "happiness",
    "the price of oil",
    "a legal contract",
    "a mathematical proof",
    "a swimming pool",
    "a traffic light",
    "an umbrella",
    "a screwdriver",
)
"""Things that no trait is about. How high their maps rise at a place tells how high any map rises there."""

SUBJECTS: tuple[str, ...] = ("the main subject", "an object", "a thing")
"""Stand in for the host noun where a concept names none."""

LABELS: tuple[str, ...] = (
    "written words",
    "a paper label with text",
    "a printed label",
    "handwriting",
    "a ruler",
    "a measuring tape",
    "a colour card",
    "a barcode",
)
"""What CLIP reads rather than sees, and what lies beside specimens. (No "scale bar": fishes have scales.)"""
