"""Errors: every wrong input gets one message that says what was received, what was expected and what to do."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AttentionError",
    "ConceptCamError",
    "ConfigurationError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "ModelError",
    "OtherPictureError",
    "OutputError",
    "PromptError",
    "UnsupportedModelError",
    "one_line",
    "reason_of",
]

LONGEST_REASON = 600
"""Characters of a reason that is kept for one entry of many: a list of errors must stay readable whatever the entries hold."""


class ConceptCamError(Exception):
    """Base of every error that a wrong input can cause; its message says what was received, what was expected and what to do."""


class ConfigurationError(ConceptCamError, ValueError):
    """An option has a value that the package does not know or cannot use."""


class ImageError(ConceptCamError, ValueError):
    """A picture cannot be read or used."""


class OtherPictureError(ImageError):
    """Another picture stands where one was read before."""


class PromptError(ConceptCamError, ValueError):
    """A phrase, concept or trait pack cannot be used."""


class ModelError(ConceptCamError, RuntimeError):
    """A model cannot be found, loaded or run."""


class UnsupportedModelError(ModelError):
    """The model exists, but no spatial map can be read from its family."""


class AttentionError(ConfigurationError):
    """A dense attention strategy does not exist, or does not exist for this family."""


class DataError(ConceptCamError, ValueError):
    """A data set, table or annotation file is not as expected."""


class OutputError(ConceptCamError, OSError):
    """A result cannot be written."""


def install_command(extra: str, package: str = "") -> str:
    """Returns a command that installs the libraries of an extra into the environment that is running.

    It names the libraries, not this package, so that it works from a clone and from an installation alike; and where the environment has no
    pip of its own, it calls the pip of the Python that the environment was made from.

    Args:
        extra: Name of an extra of this package.
        package: The package to install in place of those of an extra, where no extra brings it.
    """
    import importlib.util
    import shlex
    import sys
    from importlib import metadata

    try:
        wanted = _libraries(extra, metadata.requires("concept-cam") or [])
    except metadata.PackageNotFoundError:
        wanted = []
    # Not installed, but run from its folder: the extra is named in the folder's own pyproject.toml.
    names = " ".join(shlex.quote(name) for name in wanted) or shlex.quote(package or f".[{extra}]")
    python = shlex.quote(sys.executable or "python3")
    if importlib.util.find_spec("pip") is None:
        base = shlex.quote(getattr(sys, "_base_executable", None) or "python3")
        return f"{base} -m pip --python {python} install {names}"
    return f"{python} -m pip install {names}"


def _libraries(extra: str, requirements: list[str]) -> list[str]:
    """The requirements of an extra, those of extras that it names included, in the form that pip takes."""
    found: dict[str, None] = {}
    for requirement in requirements:
        library, _, condition = requirement.partition(";")
        if f'extra == "{extra}"' not in condition.replace("'", '"'):
            continue
        name, bracket, inner = library.strip().partition("[")
        if bracket and name.replace("_", "-").lower() == "concept-cam":
            for other in inner.partition("]")[0].split(","):
                found.update(dict.fromkeys(_libraries(other.strip(), requirements)))
        else:
            found[library.strip()] = None
    return list(found)


class MissingExtraError(ConceptCamError, ImportError):
    """An optional library is not installed.

    Args:
        library: Import name of the missing library.
        extra: Name of the extra of this package that brings it; empty where none does.
        purpose: What it is needed for, as a noun phrase.
        package: The package that brings it, where no extra does.
    """

    def __init__(self, library: str, extra: str, purpose: str, package: str = "") -> None:
        command = install_command(extra, package)
        super().__init__(f"{purpose} needs the library {library!r}, which is not installed. Install it with:  {command}")
        self.library = library
        self.extra = extra
        self.purpose = purpose
        self.package = package

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.library, self.extra, self.purpose, self.package)


def reason_of(error: BaseException) -> str:
    """Returns why one entry of many cannot be used: one line, bounded, whatever was raised.

    Everything that goes through many entries (pictures, rows, members of archives) guards each of them with ``except Exception`` and keeps
    this text: one bad entry is one error, never the end of the others.
    """
    if isinstance(error, MemoryError):
        text = str(error) or "it does not fit in memory: scale it down, or use fewer workers"
    elif isinstance(error, RecursionError):
        text = "it is nested too deeply to be read"
    elif isinstance(error, ConceptCamError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return one_line(text)


def one_line(text: str) -> str:
    """Returns a reason on one line, cut where it is longer than :data:`LONGEST_REASON`."""
    text = " ".join(text[: 4 * LONGEST_REASON].split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 4] + " ..."
