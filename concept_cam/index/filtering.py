"""Which entries of an index meet conditions on their columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import nearest_names

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COMPARISONS", "matching"]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": lambda have, want: have >= want,
    "<=": lambda have, want: have <= want,
    "!=": lambda have, want: have != want,
    "=": lambda have, want: have == want,
    ">": lambda have, want: have > want,
    "<": lambda have, want: have < want,
    "~": lambda have, want: str(want).casefold() in str(have).casefold(),
}
"""Comparisons of a condition by their sign; ``~`` is true where the column's text holds the value."""

_CONDITION = re.compile(r"\s*([^<>=!~]+?)\s*(>=|<=|!=|=|>|<|~)\s*(.*?)\s*", re.DOTALL)


def matching(pictures: pa.Table, conditions: Sequence[str]) -> np.ndarray:
    """Returns bool [N]: the entries that meet all conditions; one whose column is empty meets only ``!=``.

    Args:
        pictures: What describes the entries, :attr:`concept_cam.index.Index.pictures`.
        conditions: Texts such as ``"sex=male"`` or ``"year>=1990"``; a column of the input may be named without its ``input_``. Numbers are
            compared as numbers where both sides are.

    Raises:
        ConfigurationError: A condition that cannot be read, or no such column.
    """
    met = np.ones(pictures.num_rows, dtype=bool)
    for condition in conditions:
        parsed = _CONDITION.fullmatch(condition)
        if parsed is None:
            raise ConfigurationError(
                f"cannot read the condition {condition!r}: expected COLUMN, one of {' '.join(COMPARISONS)}, and a value."
            )
        name, sign, wanted = parsed.groups()
        column = next((known for known in (f"input_{name}", name) if known in pictures.column_names), None)
        if column is None:
            known = [text.removeprefix("input_") for text in pictures.column_names]
            near = nearest_names(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"the index has no column {name!r}.{hint} It has: {', '.join(known)}.")
        met &= np.array([_meets(value, sign, wanted) for value in pictures.column(column).to_pylist()], dtype=bool)
    return met


def _meets(value: Any, sign: str, wanted: str) -> bool:
    if value is None or value == "":
        return sign == "!=" and wanted != ""
    if sign != "~":
        have, want = _number(value), _number(wanted)
        if have is not None and want is not None:
            return COMPARISONS[sign](have, want)
    return COMPARISONS[sign](str(value), wanted)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
