"""Names that the command line offers, as plain tables: importing this module loads neither torch nor any model library."""

from __future__ import annotations

READINGS: dict[str, str] = {
    "qk": "the attention as trained",
    "value": "each patch reads its own value only (MaskCLIP)",
    "qq": "query-query self-similarity (ClearCLIP)",
    "kk": "key-key self-similarity with a Gaussian neighbourhood (NACLIP)",
    "qq+kk": "sum of query-query and key-key self-similarity (SCLIP)",
    "vv": "value-value self-similarity (CLIP Surgery)",
    "gem": "iterated query, key and value self-similarities, averaged (GEM)",
    "affinity": "affinity of the middle layer's tokens, outlier tokens replaced (ProxyCLIP, SC-CLIP)",
}
"""How the last attention is read: name -> what each patch attends with. :mod:`concept_cam.core.attention` holds the formulas."""

TAILS: dict[str, tuple[bool, bool]] = {
    "": (False, False),
    "+residual": (True, False),
    "+ffn": (False, True),
    "+residual+ffn": (True, True),
}
"""What of the last block is kept around the attention: suffix -> (residual connection, feed-forward network)."""

PATHS: dict[str, tuple[str, int]] = {"gem-6": ("gem", 6), "vv-6": ("vv", 6)}
"""Second paths over several blocks: name -> (reading, number of last blocks), as the official code of GEM and of CLIP Surgery has them."""

ATTENTION_NAMES: dict[str, str] = {
    "vanilla": "the last block as trained, residual and feed-forward network kept",
    **{
        reading + tail: summary + (f"; keeps {tail[1:].replace('+', ' and ')}" if tail else "")
        for reading, summary in READINGS.items()
        for tail in TAILS
        if reading + tail != "qk+residual+ffn"  # That is "vanilla".
    },
    **{
        name: f"{READINGS[reading]}: the last {depth} blocks, added up on a second path, as published"
        for name, (reading, depth) in PATHS.items()
    },
}
"""Dense attention strategies: name -> one line for people. ``"auto"`` stands for the choice of :data:`~concept_cam.backbones.FAMILIES`."""
