"""Errors: every wrong input gets one message that says what was received, what was expected and what to do."""

from __future__ import annotations

__all__ = [
    "AttentionError",
    "ConceptCamError",
    "ConfigurationError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "PromptError",
    "UnsupportedModelError",
]


class ConceptCamError(Exception):
    """Base of every error that a wrong input can cause; its message says what was received, what was expected and what to do."""


class ConfigurationError(ConceptCamError, ValueError):
    """An option has a value that the package does not know or cannot use."""


class ImageError(ConceptCamError, ValueError):
    """A picture cannot be read or used."""


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


class MissingExtraError(ConceptCamError, ImportError):
    """An optional library is not installed.

    Args:
        library: Import name of the missing library.
        extra: Name of the extra of this package that brings it.
        purpose: What it is needed for, as a noun phrase.
    """

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs the library {library!r}, which is not installed. Install it with:  pip install "concept-cam[{extra}]"'
        )
        self.library = library
        self.extra = extra
