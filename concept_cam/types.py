"""Plain data shared by every module: errors, concepts, geometry, features and regions.

Nothing here imports torch: the command line, the trait packs and the exporters use these types without loading a model.

Axis letters, used in every docstring of the package: ``B`` images, ``h w`` rows and columns of the patch grid, ``D`` joint embedding,
``C`` concepts, ``R`` contrasts of one concept, ``H W`` pixel rows and columns, ``L`` tokens, ``N`` points.

Frames: *grid* (patches, cell i covers [i, i+1)), *model* (pixels after preprocessing), *original* (pixels of the file after its EXIF
orientation is applied; pixel i covers [i, i+1)). Points are ``(x, y)``, sizes and array indices are ``(rows, columns)``.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

__all__ = [
    "AttentionError",
    "Concept",
    "ConceptCamError",
    "ConfigurationError",
    "DataError",
    "Geometry",
    "ImageError",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "PatchFeatures",
    "PromptError",
    "Region",
    "UnsupportedModelError",
    "choose",
    "nearest_names",
    "normalise_text",
]


# ---------------------------------------------------------------------------------------------------------------- errors


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
            f"{purpose} needs the library {library!r}, which is not installed. "
            f'Install it with:  pip install "concept-cam[{extra}]"'
        )
        self.library = library
        self.extra = extra


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Returns up to ``count`` known names that resemble ``name``, the most similar first."""
    folded = {key.casefold(): key for key in known}
    return [folded[key] for key in difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.5)]


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
        ConceptCamError: Of class ``error`` when the name is unknown; the message names the nearest and all known ones.
    """
    if name in table:
        return table[name]
    near = nearest_names(name, table)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise error(f"unknown {what} {name!r}.{hint} Known: {', '.join(sorted(table))}.")


def normalise_text(text: str) -> str:
    """Returns the form in which two phrases are compared: Unicode NFKC, case folded, white space collapsed, end stop dropped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".").rstrip()


# -------------------------------------------------------------------------------------------------------------- concepts


def _phrases(value: str | Sequence[str], role: str) -> tuple[str, ...]:
    if not isinstance(value, Iterable):
        raise PromptError(f"the {role} must be text or several texts, received {value!r} ({type(value).__name__}).")
    phrases = (value,) if isinstance(value, str) else tuple(value)
    if not phrases:
        raise PromptError(f"the {role} has no phrase: expected at least one text such as 'a forked tail fin'.")
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise PromptError(f"the {role} must be text, received {phrase!r} ({type(phrase).__name__}).")
        if not normalise_text(phrase):
            raise PromptError(f"the {role} is empty: expected a text such as 'a forked tail fin', received {phrase!r}.")
    return phrases


@dataclass(frozen=True)
class Concept:
    """One question to an image: where is the target, as opposed to the contrasts?

    Attributes:
        target: Synonym phrases of the target (a single text is accepted and becomes a tuple of one).
        contrasts: One tuple of synonym phrases per contrast (texts are accepted likewise); may be empty.
        name: Short unique name used in tables and file names; the first target phrase by default.
        contrast_names: One name per contrast; their first phrases by default.
        templates: Every template holds ``{}`` exactly once; each phrase is put into each template.
        metadata: Further facts carried through to the outputs (pack, character, state, entity, ontology ids ...).

    Raises:
        PromptError: On empty text, a target that equals one of its contrasts (after normalisation), a contrast that is named twice,
            or a template without exactly one ``{}``.
    """

    target: tuple[str, ...]
    contrasts: tuple[tuple[str, ...], ...] = ()
    name: str = ""
    contrast_names: tuple[str, ...] = ()
    templates: tuple[str, ...] = ("{}",)
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        target = _phrases(self.target, "target")
        given = (self.contrasts,) if isinstance(self.contrasts, str) else self.contrasts
        contrasts = tuple(_phrases(contrast, "contrast") for contrast in given)
        templates = (self.templates,) if isinstance(self.templates, str) else tuple(self.templates)
        for template in templates:
            if template.count("{}") != 1:
                raise PromptError(f"the template {template!r} must hold '{{}}' exactly once, where the phrase goes.")
        if not templates:
            raise PromptError("a concept needs at least one template; '{}' stands for the phrase alone.")
        targets = {normalise_text(phrase): phrase for phrase in target}
        seen: dict[str, str] = {}
        for contrast in contrasts:
            for phrase in contrast:
                key = normalise_text(phrase)
                if key in targets:
                    raise PromptError(
                        f"the contrast {phrase!r} equals the target {targets[key]!r}: their difference is zero. "
                        "Name what the target should be told apart from."
                    )
            first = normalise_text(contrast[0])
            if first in seen:
                raise PromptError(f"the contrast {contrast[0]!r} is given twice (also as {seen[first]!r}).")
            seen[first] = contrast[0]
        names = tuple(self.contrast_names) or tuple(contrast[0] for contrast in contrasts)
        if len(names) != len(contrasts):
            raise PromptError(f"received {len(names)} contrast names for {len(contrasts)} contrasts.")
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "contrasts", contrasts)
        object.__setattr__(self, "templates", templates)
        object.__setattr__(self, "name", self.name or target[0])
        object.__setattr__(self, "contrast_names", names)
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be sent to another process; worker processes receive concepts.
        arguments = (self.target, self.contrasts, self.name, self.contrast_names, self.templates, dict(self.metadata))
        return (Concept, arguments)

    def prompts(self, phrases: Sequence[str]) -> tuple[str, ...]:
        """Returns every template filled with every phrase, the exact texts that the text tower sees."""
        return tuple(template.replace("{}", phrase) for template in self.templates for phrase in phrases)

    @property
    def target_prompts(self) -> tuple[str, ...]:
        """The exact texts whose mean embedding is the target."""
        return self.prompts(self.target)

    @property
    def contrast_prompts(self) -> tuple[tuple[str, ...], ...]:
        """The exact texts of each contrast, in order."""
        return tuple(self.prompts(contrast) for contrast in self.contrasts)


# -------------------------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Geometry:
    """Exact mapping between the grid, model and original frames of one encoded picture.

    Every resize policy is an axis-aligned affine map, ``model = original * scale + offset``, and the grid divides the model frame evenly.

    Attributes:
        policy: Name of the resize policy.
        original: ``(H, W)`` of the upright picture.
        model: ``(H, W)`` of the model's input (for ``tile``: of the whole resized picture).
        grid: ``(h, w)`` of the patch grid over the model frame.
        scale: ``(y, x)`` model pixels per original pixel.
        offset: ``(y, x)`` model coordinate of the original's corner (0, 0); negative where a crop cuts it off.
    """

    policy: str
    original: tuple[int, int]
    model: tuple[int, int]
    grid: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("original", "model", "grid"):
            size = getattr(self, name)
            if len(size) != 2 or min(size) < 1:
                raise ConfigurationError(f"geometry: {name} size must be two positive numbers, received {size}.")
        if min(self.scale) <= 0 or not all(map(math.isfinite, (*self.scale, *self.offset))):
            raise ConfigurationError(f"geometry: scale {self.scale} and offset {self.offset} must be finite, scale positive.")

    @property
    def cell(self) -> tuple[float, float]:
        """``(y, x)`` size of one grid cell in model pixels."""
        return self.model[0] / self.grid[0], self.model[1] / self.grid[1]

    @property
    def cell_original(self) -> tuple[float, float]:
        """``(y, x)`` size of one grid cell in original pixels: the resolution, and so the uncertainty, of every measure."""
        return self.cell[0] / self.scale[0], self.cell[1] / self.scale[1]

    def _xy(self, pair: tuple[float, float]) -> np.ndarray:
        return np.array([pair[1], pair[0]], dtype=np.float64)

    def original_to_model(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the original to the model frame."""
        return np.asarray(points, dtype=np.float64) * self._xy(self.scale) + self._xy(self.offset)

    def model_to_original(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the model to the original frame."""
        return (np.asarray(points, dtype=np.float64) - self._xy(self.offset)) / self._xy(self.scale)

    def model_to_grid(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the model to the grid frame (cell i covers [i, i+1))."""
        return np.asarray(points, dtype=np.float64) / self._xy(self.cell)

    def grid_to_model(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the grid to the model frame."""
        return np.asarray(points, dtype=np.float64) * self._xy(self.cell)

    def original_to_grid(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the original to the grid frame."""
        return self.model_to_grid(self.original_to_model(points))

    def grid_to_original(self, points: np.ndarray) -> np.ndarray:
        """Maps ``(x, y)`` points float64 [..., 2] from the grid to the original frame."""
        return self.model_to_original(self.grid_to_model(points))

    @property
    def content(self) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)``: the part of the model frame that shows the picture, not padding; model pixels, half-open."""
        y0, x0 = self.offset
        y1, x1 = y0 + self.original[0] * self.scale[0], x0 + self.original[1] * self.scale[1]
        return max(0.0, x0), max(0.0, y0), min(float(self.model[1]), x1), min(float(self.model[0]), y1)

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)``: the part of the original that the model sees; original pixels, half-open.

        The whole picture for every policy but a ``native`` centre crop.
        """
        x0, y0, x1, y1 = self.content
        (left, top), (right, bottom) = self.model_to_original(np.array([[x0, y0], [x1, y1]]))
        height, width = self.original
        # Rounding of the affine map must not shave a pixel off a fully visible picture.
        edge = 1e-6 * max(height, width)
        return (
            0.0 if left < edge else float(left),
            0.0 if top < edge else float(top),
            float(width) if right > width - edge else float(right),
            float(height) if bottom > height - edge else float(bottom),
        )

    def coverage(self) -> np.ndarray:
        """Returns float64 [h, w] in 0..1: the share of each grid cell that shows the picture rather than padding."""
        x0, y0, x1, y1 = self.content

        def overlap(count: int, cell: float, low: float, high: float) -> np.ndarray:
            edges = np.arange(count + 1) * cell
            return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) / cell

        rows = overlap(self.grid[0], self.cell[0], y0, y1)
        columns = overlap(self.grid[1], self.cell[1], x0, x1)
        return np.outer(rows, columns)

    def valid(self) -> np.ndarray:
        """Returns bool [h, w]: cells that show any of the picture; the others are padding and never score."""
        return self.coverage() > 1e-6

    def with_grid(self, grid: tuple[int, int]) -> Geometry:
        """Returns the same mapping with another grid over the same model frame."""
        return replace(self, grid=grid)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "policy": self.policy,
            "original_size": list(self.original),
            "model_size": list(self.model),
            "grid_size": list(self.grid),
            "scale_yx": list(self.scale),
            "offset_yx": list(self.offset),
        }


# -------------------------------------------------------------------------------------------------------------- features


@dataclass(frozen=True)
class PatchFeatures:
    """What the image tower says about one picture; costly to compute, cheap to query.

    Attributes:
        patches: float32 [h, w, D] patch features in the joint space, not normalised.
        image: float32 [D] image embedding, not normalised (the tower's own ``encode_image`` output for the model's input).
        geometry: Frames of the picture.
        model: Name of the model that made them.
        weights_hash: Hash of that model's weights.
        attention: Name of the dense attention strategy that made them.
        source: Where the picture came from, when it came from a file.
        views: Which views of the picture were averaged.
    """

    patches: Tensor
    image: Tensor
    geometry: Geometry
    model: str
    weights_hash: str
    attention: str
    source: str | None = None
    views: str = "single"


# --------------------------------------------------------------------------------------------------------------- regions


@dataclass(frozen=True)
class Region:
    """One connected area of a mask; original frame throughout, pixels, half-open.

    Attributes:
        box: ``(x0, y0, x1, y1)``, integers.
        area: Pixels in the region.
        rle: COCO run-length encoding ``{"size": [H, W], "counts": text}`` of the region in the whole picture.
        contours: Closed outlines, outer ones first, each float64 [N, 2] of ``(x, y)``.
        peak: ``(x, y)`` of the highest score in the region.
        peak_score: That score.
        mean_score: Mean score over the region.
        measures: Shape measures in pixels and degrees (see :func:`concept_cam.regions.measure`).
    """

    box: tuple[int, int, int, int]
    area: int
    rle: Mapping[str, Any]
    contours: tuple[np.ndarray, ...]
    peak: tuple[float, float]
    peak_score: float
    mean_score: float
    measures: Mapping[str, float]

    @property
    def width(self) -> int:
        """Columns of the box."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        """Rows of the box."""
        return self.box[3] - self.box[1]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "box": list(self.box),
            "area": self.area,
            "peak": list(self.peak),
            "peak_score": self.peak_score,
            "mean_score": self.mean_score,
            "rle": dict(self.rle),
            "contours": [np.round(contour, 2).tolist() for contour in self.contours],
            "measures": dict(self.measures),
        }
