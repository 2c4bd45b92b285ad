"""What a query gives back: scores, heatmap, peak, regions, ledger and pictures of one concept in one image."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from concept_cam import __version__
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, MissingExtraError
from concept_cam.core.geometry import Geometry
from concept_cam.core.likely import likely_states
from concept_cam.core.names import whole_number
from concept_cam.core.plain import plain_json
from concept_cam.core.regions import DEFAULT_THRESHOLD, Region, above, regions_of_map, threshold_value
from concept_cam.core.resampling import heatmap, highest_places, points_of, settled_places

if TYPE_CHECKING:
    from PIL.Image import Image

    from concept_cam.core.drawing import Scale
    from concept_cam.core.placing import Place
    from concept_cam.trust.certified import Certificate

__all__ = ["Localization", "Localizations", "Provenance", "on_finer_grid", "png_bytes"]


@dataclass(frozen=True)
class Provenance:
    """Everything that is needed to compute a result again.

    Attributes:
        model: Canonical model name.
        weights_hash: Hash of its weights.
        method: Localisation method.
        dtype: Floating-point type of the towers.
        settings: The settings that decide results, as they were used (:meth:`concept_cam.core.settings.Settings.recorded`); each is an
            attribute of its own too: ``provenance.gamma``.
        version: Version of this package.
        own_input: What the model's input is like of itself, which ``settings`` leave out; not written, since the model says it.
    """

    model: str
    weights_hash: str
    method: str
    dtype: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__
    own_input: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self.settings:
            return self.settings[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        facts = dict(vars(self))
        settings, version, _ = facts.pop("settings"), facts.pop("version"), facts.pop("own_input")
        return {**facts, **settings, "version": version}


@dataclass(frozen=True)
class _Kept:
    """What is made when it is asked for, made already: what makes it holds the model, and cannot be sent to another process or to a file.

    Attributes:
        made: It, or what was made for each concept.
    """

    made: Any

    def __call__(self, index: int | None = None) -> Any:
        return self.made if index is None else self.made[index]


@dataclass(frozen=True, eq=False)
class Localization:
    """Where one concept is in one image.

    Attributes:
        concept: What was asked.
        scores: float32 [h, w], grid frame; signed, unscaled; NaN in padding.
        geometry: Frames of the picture.
        score: Image-level score, the cosine of the image embedding along the direction, in [-1, 1] (NaN where a method has none).
        probabilities: Softmax over the target and its rivals at the model's temperature, target first; empty without rivals. Of the whole
            picture; for a part of a pack, at its best cell, since all parts are in the picture at once.
        weights: ``pi`` of each contrast (before ``gamma``).
        provenance: How the result was computed.
        source: Where the picture came from, when it came from a file.
        picture: uint8 [H, W, 3] upright, when it is at hand.
        place: What became of the place that was asked for ("the *left* fore wing"); cells that do not belong to it are NaN in ``scores``
            where it could be told. ``None`` where no place was asked for. Words whose place was not read have one that is not resolved.
        refined: float32 [h', w'], the signed map after refinement, on a finer grid over the same model frame; NaN where the picture is not.
            ``None`` where none was asked for. Heatmap, mask, regions and peak are those of this map; ``scores`` stay.
        seen: How many cells of ``scores``, each way, lie in one cell of the tower: 2 after a second look, else 1.
    """

    concept: Concept
    scores: np.ndarray
    geometry: Geometry
    score: float
    probabilities: tuple[float, ...]
    weights: tuple[float, ...]
    provenance: Provenance
    source: str | None = None
    picture: np.ndarray | None = field(default=None, repr=False, compare=False)
    split: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)
    certify: Callable[[], Certificate] | None = field(default=None, repr=False, compare=False)
    place: Place | None = field(default=None, repr=False, compare=False)
    refined: np.ndarray | None = field(default=None, repr=False, compare=False)
    seen: int = field(default=1, repr=False, compare=False)

    def __repr__(self) -> str:
        """One line to read: a map of hundreds of numbers tells nobody anything."""
        height, width = self.geometry.original
        against = f" against {', '.join(map(repr, self.concept.contrast_names))}" if self.concept.contrasts else ""
        where = f" in {self.source!r}" if self.source else ""
        return f"<Localization of {self.concept.name!r}{against}{where}: {width} x {height} pixels, score {self.score:+.3f}>"

    def __copy__(self) -> Localization:
        """A copy within the process, which goes through no pickle: nothing is made for it that was not asked for."""
        return replace(self)

    def __getstate__(self) -> dict[str, Any]:
        """What goes into a pickle: all fields, ledger and certificate made."""
        kept = {"split": None if self.split is None else _Kept(self.split())}
        return {**_fields(self), **kept, "certify": None if self.certify is None else _Kept(self.certificate)}

    # ---------------------------------------------------------------------------------------------------- numbers

    @property
    def placed(self) -> bool:
        """Whether no place was named, or the one that was could be told."""
        return self.place is None or self.place.resolved

    @property
    def told(self) -> bool:
        """Whether the map is of what was asked for: no place was named, it could be told, or its words were asked as they stand.

        Else it is that of the thing wherever it is, and its regions are none of the one that is meant: files hold none.
        """
        where = self.concept.where
        return self.placed or (where is not None and bool(where.unread))

    @property
    def probability(self) -> float | None:
        """Probability of the target against its rivals in 0..1; ``None`` without rivals."""
        return self.probabilities[0] if self.probabilities else None

    @property
    def _answers(self) -> dict[str, float]:
        """Answer -> probability, target first: a state of a pack by its own name, as its siblings are; empty without rivals."""
        own = str(self.concept.metadata.get("state") or self.concept.name)
        names = (self.concept.name if own in self.concept.rival_names else own, *self.concept.rival_names)
        return dict(zip(names, self.probabilities, strict=True)) if self.probabilities else {}

    @property
    def likely_states(self) -> tuple[str, ...]:
        """The fewest answers, of target and rivals, that together have a probability of 0.9, the most probable first: one where the model
        is sure, several where it can only narrow the question down, also without the target; none where nothing is ruled out.

        It is what annotation runs keep as ``likely_states``. None of parts, for all of them are in the picture at once. Whether the thing
        that has the states is there at all the :attr:`certificate` says.
        """
        return () if self.concept.metadata.get("kind") == "part" else likely_states(self._answers)

    @property
    def likely_probability(self) -> float | None:
        """Probability that one of :attr:`likely_states` is right; ``None`` where there are none."""
        answers, likely = self._answers, self.likely_states
        return math.fsum(answers[name] for name in likely) if likely else None

    @property
    def surface(self) -> tuple[np.ndarray, Geometry]:
        """The map that heatmap and regions are read from, float32 [h', w'], with its frames: refined where that was asked for."""
        return (self.scores, self.geometry) if self.refined is None else on_finer_grid(self.refined, self.geometry)

    @property
    def _kernel(self) -> str:
        """How the surface is enlarged: a refined map has edges, beside which cubic interpolation would pass the map's range."""
        return "cubic" if self.refined is None else "bilinear"

    @cached_property
    def heatmap(self) -> np.ndarray:
        """float32 [H, W], original frame: the signed scores, refined where that was asked for, interpolated between cell centres (cubic,
        and bilinear for a refined map); NaN where the model did not look.
        """
        return heatmap(*self.surface, self._kernel)

    def upsample(self, upsampling: str | None = None, picture: np.ndarray | None = None) -> np.ndarray:
        """Returns the heatmap float32 [H, W] with another strategy, for example ``"edge-aware"`` (needs the picture)."""
        return heatmap(*self.surface, upsampling or self._kernel, self.picture if picture is None else picture)

    @cached_property
    def peak(self) -> tuple[float, float]:
        """``(x, y)`` of the heatmap's highest point about the best cell, in original pixels, to 1/16 of a cell; NaN twice where nothing was
        seen.

        It lies within a cell of the best one, so that score, ledger and certificate speak of the same place: between two other cells, or
        beside a steep edge, the interpolated map can be a little higher. It is that of :attr:`heatmap`, whatever upsampling an overlay is
        drawn with. Refining a map moves it, each way, by half a cell and half a place of the refined map's grid at most.
        """
        x, y = points_of(self._place[None], self.geometry)[0].tolist()
        return x, y

    @cached_property
    def _place(self) -> np.ndarray:
        """Where the peak lies, in cells of :attr:`scores`: float64 [2], ``(x, y)``; NaN twice where nothing was seen."""
        places = highest_places(self.scores[None], self.geometry)
        if self.refined is not None:
            times = self.refined.shape[0] / self.geometry.grid[0], self.refined.shape[1] / self.geometry.grid[1]
            places = settled_places(self.refined[None], places, times)
        return np.asarray(places[0])

    @property
    def peak_score(self) -> float:
        """The highest score of a cell."""
        return float(np.nanmax(self.scores)) if np.isfinite(self.scores).any() else float("nan")

    def ledger(self) -> dict[str, np.ndarray]:
        """Splits the score by text: the target's term and each contrast's, float32 [h, w] each; they sum to :attr:`scores`.

        Raises:
            ConfigurationError: The method's maps are not linear in the texts, or in a classifier's rows, so it has no ledger.
        """
        if self.split is None:
            raise ConfigurationError(
                f"the method {self.provenance.method!r} has no contrast ledger, for its maps are no sum over texts or classes: in words "
                "'direct' and 'gem' have one, of a classifier's classes 'direct', 'grad-cam' and 'hires-cam', without +relu."
            )
        terms = np.where(np.isfinite(self.scores), self.split(), np.nan)
        return dict(zip(self.concept.term_names, terms, strict=True))

    def ledger_at_peak(self) -> dict[str, float]:
        """Returns what the target and each contrast contribute to the best cell's score; they sum to :attr:`peak_score`.

        Empty where the method has no ledger, or nothing was seen.
        """
        if self.split is None or not np.isfinite(self.scores).any():
            return {}
        row, column = np.unravel_index(int(np.nanargmax(self.scores)), self.scores.shape)
        return {name: float(map_[row, column]) for name, map_ in self.ledger().items()}

    @cached_property
    def certificate(self) -> Certificate:
        """Whether this map can be trusted: does it obey its prompt, is the target there at all, what speaks for and against it.

        Computed from the features that are there, when it is first asked for.

        Raises:
            ConfigurationError: The method is not linear in the texts, so no other word's map can be compared with this one.
        """
        if self.certify is None:
            raise ConfigurationError(
                f"the method {self.provenance.method!r} has no certificate; the direct method and its kin have one, and "
                "gradient methods of classifiers."
            )
        return self.certify()

    # ---------------------------------------------------------------------------------------------------- regions

    def threshold(self, threshold: str | float = DEFAULT_THRESHOLD) -> float:
        """Returns the threshold in score units that a strategy gives on this map's grid scores (a number is itself); infinite where it
        finds nothing.
        """
        return threshold_value(self.scores, threshold)

    def mask(self, threshold: str | float = DEFAULT_THRESHOLD) -> np.ndarray:
        """Returns bool [H, W], original frame: where the heatmap exceeds the threshold; False where the model did not look."""
        return above(self.heatmap, self.threshold(threshold))

    def regions(
        self,
        threshold: str | float = DEFAULT_THRESHOLD,
        *,
        min_area: float = 0.0,
        largest: int | None = None,
        resolution: str = "original",
    ) -> tuple[Region, ...]:
        """Returns the connected regions above the threshold, in original pixels: that of the :attr:`peak` first, then the others, largest
        first.

        The first one need not be the largest. It is the region that `locate` and `annotate` state, so that peak and region speak of one
        place; the page and the backends for Label Studio and CVAT keep to it as well. Where no region holds the peak (its own is smaller
        than ``min_area``, or lies between the pixels of a picture that is smaller than what the model reads), all are in the order of
        their size.

        Args:
            threshold: A strategy of :data:`concept_cam.core.regions.THRESHOLDS`, or a number in score units.
            min_area: Smallest area in original pixels, or below 1 as a share of the picture.
            largest: Keep only so many, the first ones.
            resolution: ``"original"`` (exact) or ``"model"`` (measured at the model's resolution and mapped; fast on large pictures).
        """
        scores, geometry = self.surface
        return regions_of_map(
            scores,
            geometry,
            threshold=threshold,
            resolution=resolution,
            min_area=min_area,
            largest=largest,
            peak=self._place * (geometry.grid[1] / self.geometry.grid[1], geometry.grid[0] / self.geometry.grid[0]),
            levels=self.scores,
            kernel=self._kernel,
        )

    def region_of_peak(
        self, threshold: str | float = DEFAULT_THRESHOLD, *, min_area: float = 0.0, resolution: str = "original"
    ) -> Region | None:
        """Returns the region that holds the heatmap's highest point, which need not be the largest: the first one of :meth:`regions`, whose
        arguments it takes; ``None`` where there is no region.
        """
        return next(iter(self.regions(threshold, min_area=min_area, largest=1, resolution=resolution)), None)

    # --------------------------------------------------------------------------------------------------- pictures

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest score of this map."""
        if not np.isfinite(self.scores).any():
            return 0.0, 0.0
        return float(np.nanmin(self.scores)), float(np.nanmax(self.scores))

    @property
    def question(self) -> str:
        """The question in words: the target, and what it was told apart from; without a comparison strength the map shows the target
        alone.
        """
        concept = self.concept
        placed = concept.where is not None and not concept.where.unread
        target = f"{concept.target[0]} ({concept.where.place})" if concept.where is not None and placed else concept.target[0]
        return f"{target} vs. {' | '.join(concept.contrast_names)}" if self.contrasted else target

    @property
    def caption(self) -> str:
        """The question, and the verdict on its map, such as ``"a tail fin vs. a head [clear, 0.97]"``.

        The number is how likely the peak lies on the target; there is none where the verdict finds nothing of the target.
        """
        if self.certify is None:
            return self.question
        told = self.certificate
        sure = "" if told.confidence is None or told.unfound else f", {told.confidence:.2f}"
        return f"{self.question} [{told.verdict}{sure}]"

    @property
    def contrasted(self) -> bool:
        """Whether contrasts were set against the target in this map: there are some, and gamma is not 0."""
        return bool(self.concept.contrasts) and self.provenance.settings.get("gamma") != 0

    def display_scale(self, limits: tuple[float, float] | None = None) -> Scale:
        """Returns the colours of the map: diverging about zero where contrasts were set against the target, else from low to high.

        Args:
            limits: Fixed limits in score units; by default the map's own range, symmetric about zero with contrasts.
        """
        from concept_cam.core.drawing import Scale

        low, high = self.limits
        if self.contrasted:
            reach = max(abs(low), abs(high))
            low, high = -reach, reach
        return Scale((low, high) if limits is None else limits, "blue-red" if self.contrasted else "viridis")

    def overlay(
        self,
        *,
        picture: np.ndarray | None = None,
        limits: tuple[float, float] | None = None,
        threshold: str | float | None = None,
        upsampling: str | None = None,
        title: str | None = None,
        explain: bool = False,
    ) -> Image:
        """Draws the heatmap over the picture, with a colour bar in score units and the outline of the regions.

        Args:
            picture: uint8 [H, W, 3] upright; needed when the result was made from features alone.
            limits: Fixed colour scale in score units, to be shared across the pictures that are compared; by default this map's own
                range, symmetric about zero for contrasted concepts.
            threshold: Outline the regions above this threshold; ``None`` draws none.
            upsampling: Strategy of :data:`concept_cam.core.resampling.UPSAMPLING`; by default that of :attr:`heatmap`.
            title: Text above; by default the question asked, and whether the map can be trusted.
            explain: Add the certificate, and a bar per text: what the target and each contrast contribute at the peak.
        """
        from concept_cam.core import drawing

        pixels = self.picture if picture is None else picture
        if pixels is None:
            raise ConfigurationError("this result was made without its picture: pass it, overlay(picture=read_image(path).pixels).")
        image = drawing.draw_map(
            *self.surface,
            pixels,
            self.display_scale(limits),
            threshold=None if threshold is None else self.threshold(threshold),
            upsampling=upsampling or self._kernel,
            title=self.caption if title is None else title,
        )
        if not explain:
            return image
        letters = max(12, image.width // 60)
        verdict = None if self.certify is None else drawing.note_block(str(self.certificate), image.width, letters)
        shares = self.ledger_at_peak()
        return drawing.footed(image, verdict, drawing.bars(list(shares.items()), image.width, letters) if shares else None)

    def show(self, **options: Any) -> None:
        """Shows the overlay: in the notebook where there is one, else in a window of the system's picture viewer.

        Args:
            **options: As for :meth:`overlay`.
        """
        image = self.overlay(**options)
        notebook = sys.modules.get("IPython")
        shell = notebook.get_ipython() if notebook is not None else None
        if shell is not None and "IPKernelApp" in shell.config:
            from IPython.display import display

            display(image)
        else:
            image.show(title=self.question)

    def plot(self, axes: Any = None, *, limits: tuple[float, float] | None = None, alpha: float = 0.5) -> Any:
        """Draws picture and map into a matplotlib axes, with the colours of :meth:`display_scale`, for your own figures.

        Args:
            axes: Where to; the current axes by default.
            limits: Fixed colour scale in score units.
            alpha: Share of the colours in 0..1 where there is a picture.

        Returns:
            The image that a colour bar can be made for: ``plt.colorbar(found.plot(axes))``.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise MissingExtraError("matplotlib", "plot", "drawing into a figure") from error
        axes = plt.gca() if axes is None else axes
        scale = self.display_scale(limits)
        height, width = self.geometry.original
        extent = (0, width, height, 0)
        if self.picture is not None:
            axes.imshow(self.picture, extent=extent)
        colours = {"blue-red": "RdBu_r", "viridis": "viridis"}[scale.colormap]
        shown = axes.imshow(
            self.heatmap,
            cmap=colours,
            vmin=scale.limits[0],
            vmax=scale.limits[1],
            alpha=alpha if self.picture is not None else 1.0,
            extent=extent,
        )
        axes.set_title(self.question)
        axes.set_axis_off()
        return shown

    def _repr_png_(self) -> bytes | None:
        import io

        if self.picture is None:
            return None
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        return buffer.getvalue()

    # ----------------------------------------------------------------------------------------------------- output

    def to_dict(self, threshold: str | float = DEFAULT_THRESHOLD, *, min_area: float = 0.0) -> dict[str, Any]:
        """Returns everything as plain data for JSON: question, numbers, regions with RLE masks, geometry, provenance; what is not a
        number is ``None``.
        """
        concept = self.concept
        content = {
            "file": self.source,
            "concept": {
                "name": concept.name,
                "target": list(concept.target),
                "contrasts": [list(contrast) for contrast in concept.contrasts],
                "contrast_names": list(concept.contrast_names),
                "surroundings": list(concept.surrounding_names),
                "templates": list(concept.templates),
                "metadata": dict(concept.metadata),
            },
            "score": _number(self.score),
            "probability": self.probability,
            "probabilities": dict(zip((concept.name, *concept.rival_names), self.probabilities)),  # none without rivals
            "likely_states": list(self.likely_states),
            "likely_probability": self.likely_probability,
            "contrast_weights": dict(zip(concept.contrast_names, self.weights)),
            "peak": [_number(value) for value in self.peak],
            "peak_score": _number(self.peak_score),
            "threshold": {"strategy": threshold, "value": _number(self.threshold(threshold))},
            "regions": [region.to_dict() for region in (self.regions(threshold, min_area=min_area) if self.told else ())],
            "certificate": None if self.certify is None else self.certificate.to_dict(),
            "place": None if self.place is None else self.place.to_dict(),
            "frame": "original pixels after EXIF orientation; pixel i covers [i, i+1)",
            "geometry": self.geometry.to_dict(),
            "provenance": self.provenance.to_dict(),
        }
        return cast("dict[str, Any]", plain_json(content))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the result; the file's ending chooses what: ``.npz`` scores and geometry, ``.json`` all numbers, ``.png`` the overlay.

        Raises:
            OutputError: The file exists and ``overwrite`` is false, or cannot be written.
            ConfigurationError: Another ending.
        """
        from concept_cam.core.files import write_file

        path = Path(path)
        if path.suffix == ".npz":
            payload = self.to_npz()
        elif path.suffix == ".json":
            payload = json_bytes(self.to_dict())
        elif path.suffix == ".png":
            payload = png_bytes(self.overlay())
        else:
            raise ConfigurationError(f"cannot tell what to write to {path.name!r}: expected a name that ends in .npz, .json or .png.")
        return write_file(path, payload, overwrite=overwrite)

    def to_npz(self) -> bytes:
        """Returns a compressed ``.npz`` with ``scores`` (and ``refined``), their frames and the question; loads without pickle."""
        import io

        buffer = io.BytesIO()
        refined: dict[str, Any] = {} if self.refined is None else {"refined": self.refined}
        np.savez_compressed(
            buffer,
            scores=self.scores,
            **refined,
            original_size=np.array(self.geometry.original),
            model_size=np.array(self.geometry.model),
            scale_yx=np.array(self.geometry.scale),
            offset_yx=np.array(self.geometry.offset),
            target=np.array(self.concept.target),
            contrasts=np.array(self.concept.contrast_names, dtype=np.str_),
            surroundings=np.array(self.concept.surrounding_names, dtype=np.str_),
            provenance=np.array(json.dumps(self.provenance.to_dict())),
        )
        return buffer.getvalue()


def _fields(of: Localization | Localizations) -> dict[str, Any]:
    return {item.name: getattr(of, item.name) for item in fields(of)}


def on_finer_grid(refined: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """Returns a refined map float32 [..., h', w'] with its frames: its grid lies over the same model frame as that of the scores."""
    return refined, geometry.with_grid((refined.shape[-2], refined.shape[-1]))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def json_bytes(content: object) -> bytes:
    """Returns plain data as the content of a JSON file; file names that are not UTF-8 keep their odd bytes as escapes."""
    return json.dumps(plain_json(content), ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8", "backslashreplace")


def png_bytes(image: Image) -> bytes:
    """Returns an image as the content of a PNG file."""
    import io

    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Localizations(Sequence[Localization]):
    """The answers of one image to many concepts; single answers are built when they are looked at.

    Attributes:
        concepts: The questions, length C.
        scores: float32 [C, h, w]; NaN in padding.
        image_scores: float32 [C].
        probabilities: float32 [C, 1 + R].
        terms: float32 [C, 1 + R] coefficients (``+1``, ``-gamma pi_j``).
        geometry: Frames of the picture.
        provenance: How the results were computed.
        source: Where the picture came from, when it came from a file.
        picture: uint8 [H, W, 3] upright, when it is at hand.
        places: What became of the places that were asked for, by number of the concept.
        cells: bool [h, w], the cells of each place that could be told, by number of the concept.
        refined: float32 [C, h', w'], the maps after refinement; ``None`` where none was asked for.
        seen: How many cells of ``scores``, each way, lie in one cell of the tower: 2 after a second look, else 1.
    """

    concepts: tuple[Concept, ...]
    scores: np.ndarray = field(repr=False)
    image_scores: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    terms: np.ndarray = field(repr=False)
    geometry: Geometry
    provenance: Provenance
    source: str | None = None
    picture: np.ndarray | None = field(default=None, repr=False, compare=False)
    split: Callable[[int], np.ndarray] | None = field(default=None, repr=False, compare=False)
    certify: Callable[[int], Certificate] | None = field(default=None, repr=False, compare=False)
    places: Mapping[int, Place] = field(default_factory=dict, repr=False, compare=False)
    cells: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    refined: np.ndarray | None = field(default=None, repr=False, compare=False)
    seen: int = field(default=1, repr=False, compare=False)

    def __repr__(self) -> str:
        """The picture and the names of the first questions."""
        height, width = self.geometry.original
        names = ", ".join(repr(concept.name) for concept in self.concepts[:4]) + (", ..." if len(self.concepts) > 4 else "")
        where = f" in {self.source!r}" if self.source else ""
        return f"<{len(self)} Localizations{where}, {width} x {height} pixels: {names}>"

    def __copy__(self) -> Localizations:
        """A copy within the process, which goes through no pickle: nothing is made for it that was not asked for."""
        return replace(self)

    def __getstate__(self) -> dict[str, Any]:
        """What goes into a pickle: all fields, ledgers and certificates made."""
        split, certify, every = self.split, self.certify, range(len(self))
        kept = {"split": None if split is None else _Kept(tuple(split(index) for index in every))}
        return {**_fields(self), **kept, "certify": None if certify is None else _Kept(tuple(certify(index) for index in every))}

    def __len__(self) -> int:
        return len(self.concepts)

    @overload
    def __getitem__(self, index: int) -> Localization: ...
    @overload
    def __getitem__(self, index: slice) -> list[Localization]: ...
    def __getitem__(self, index: int | slice) -> Localization | list[Localization]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        number = whole_number(index)
        if not isinstance(number, int) or isinstance(number, bool):
            raise ConfigurationError(
                f"answers go by number, 0 to {len(self) - 1}, received {index!r} ({type(index).__name__}): by name they are in by_name(), "
                f"such as by_name()[{self.concepts[0].name!r}]."
            )
        if not -len(self) <= number < len(self):
            raise IndexError(f"answer {number} of {len(self)}")
        index = number % len(self)
        concept = self.concepts[index]
        count, rivals = len(concept.contrasts), len(concept.rivals)
        gamma = self.provenance.gamma
        split, certify = self.split, self.certify
        return Localization(
            concept=concept,
            scores=self.scores[index],
            geometry=self.geometry,
            score=float(self.image_scores[index]),
            probabilities=tuple(float(value) for value in self.probabilities[index, : 1 + rivals]) if rivals else (),
            weights=tuple(float(-term / gamma) if gamma else 0.0 for term in self.terms[index, 1 : 1 + count]),
            provenance=self.provenance,
            source=self.source,
            picture=self.picture,
            split=None if split is None else lambda: split(index),
            certify=None if certify is None else lambda: certify(index),
            place=self.places.get(index),
            refined=None if self.refined is None else self.refined[index],
            seen=self.seen,
        )

    def __iter__(self) -> Iterator[Localization]:
        return (self[position] for position in range(len(self)))

    def by_name(self) -> Mapping[str, Localization]:
        """Returns the answers by concept name."""
        return {concept.name: self[position] for position, concept in enumerate(self.concepts)}
