"""Names and phrases: looking them up, finding the nearest, comparing them."""

from __future__ import annotations

import difflib
import hashlib
import operator
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from concept_cam.core.errors import ConceptCamError, ConfigurationError, PromptError

T = TypeVar("T")

__all__ = [
    "DEFAULT_MODEL",
    "choose",
    "counted",
    "did_you_mean",
    "display",
    "file_of",
    "is_there",
    "nearest_names",
    "normalise_text",
    "path_of",
    "picture_key",
    "plain_number",
    "require_text",
    "some_of",
    "stable_key",
    "visible",
    "whole_number",
]

DEFAULT_MODEL = "demo"
"""The model that ships with the package."""


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to ``count`` known names that resemble ``name``, the most similar first."""
    folded = {key.casefold(): key for key in known}
    return [folded[key] for key in difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)]


def did_you_mean(name: str, known: Iterable[str], count: int = 1) -> str:
    """Returns the end of a message about an unknown name: `` Did you mean 'x'?``, or nothing where no known name resembles it."""
    near = nearest_names(name, known, count)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def some_of(names: Sequence[str], count: int = 5) -> str:
    """Returns the first of many names for a message: ``'red', 'green', and 998 more``."""
    more = len(names) - count
    return ", ".join(map(repr, names[:count])) + (f", and {more} more" if more > 0 else "")


def counted(names: Iterable[str], count: int = 5) -> str:
    """Returns how many names there are and, as :func:`display` shows them, the first of them: ``7 (a.png, b.png and 5 more)``."""
    all_ = sorted(names)
    more = f" and {len(all_) - count} more" if len(all_) > count else ""
    return f"{len(all_)} ({', '.join(map(display, all_[:count]))}{more})"


def whole_number(value: Any) -> Any:
    """Returns a whole number of any type, such as numpy's or torch's, as an int, and what is none, such as a truth value of any type, as it
    is.
    """
    try:
        truth = isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")
        return value if truth else operator.index(value)
    except TypeError:
        return value


def plain_number(value: Any) -> Any:
    """Returns the plain number in a numpy scalar, or in an array or tensor without axes, and anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def choose(name: str, table: Mapping[str, T], what: str, error: type[ConceptCamError] = ConfigurationError) -> T:
    """Looks a name up in a registry.

    Args:
        name: The name asked for.
        table: The registry.
        what: What the registry holds, for the message (``"weighting"``).
        error: Class of the error that is raised.

    Returns:
        The registry's entry.

    Raises:
        ConceptCamError: Of class ``error`` when the name is unknown, or no text; the message names the nearest and all known ones.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    hint = did_you_mean(name, table) if isinstance(name, str) else ""
    raise error(f"unknown {what} {name!r}.{hint} Known: {', '.join(sorted(table))}.")


def normalise_text(text: str) -> str:
    """Returns the form in which two phrases are compared.

    Unicode NFKC, case folded, white space collapsed; the end stop and what nobody sees, such as a space of no width, dropped.
    """
    return " ".join(unicodedata.normalize("NFKC", visible(text)).casefold().split()).rstrip(".").rstrip()


def visible(text: str) -> str:
    """Returns a text without what nobody sees: characters that only say how others are set, such as a space of no width."""
    return "".join(each for each in text if unicodedata.category(each) != "Cf")


def require_text(text: str) -> None:
    """Refuses what no text tower reads: bytes that are no UTF-8 come from a command line as characters that no text has.

    Raises:
        PromptError: It holds such a character.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the text {text!r} holds {text[error.start]!r}, which is no character: expected text in UTF-8. Check the encoding of the "
            "terminal, or of the file that it comes from."
        ) from error


def display(path: str) -> str:
    """Returns a path as valid Unicode: bytes of a file name that are no UTF-8 become ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_there(path: Path) -> bool:
    """Tells whether a path leads to something; no name that is longer than the system takes does, where Python's own raises."""
    try:
        return path.exists()
    except OSError:
        return False


def path_of(shown: str | os.PathLike[str]) -> Path:
    """Returns the path that :func:`display` showed: the shown text where there is such a file, else with its ``\\xNN`` as bytes."""
    path = Path(shown)
    if is_there(path):
        return path
    return Path(re.sub(r"\\x([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), str(path)))


def file_of(shown: str | os.PathLike[str]) -> Path | None:
    """Returns the file that :func:`display` showed, or None where there is no such file."""
    path = path_of(shown)
    return path if is_there(path) and path.is_file() else None


def stable_key(*parts: str) -> str:
    """Returns 24 hexadecimal digits of some texts, the same on every machine."""
    # Length prefixes: ("a", "bc") and ("ab", "c") must differ.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def picture_key(source: str) -> str:
    """Returns the stable id of a picture: 24 hexadecimal digits of its ``source``.

    Where a collection has several entries of one picture that differ (occurrences that share a photograph), the second and further ones
    have ``source#occurrence`` in its place (:attr:`concept_cam.collection.inputs.Item.identity`).
    """
    return stable_key("image", source)
