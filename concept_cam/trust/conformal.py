"""Guarantees from labels: inner masks, outer margins and sets of states that keep a stated risk on pictures like the labelled ones.

Split-conformal: the limits are fitted to labelled pictures that had no other part in the model, and hold on average over draws of the
labelled and the new picture together, whatever the model, as long as both come from the same source (exchangeable). They say nothing of
pictures of another kind.

* **Inner mask**: conformal risk control (Angelopoulos et al., "Conformal Risk Control", ICLR 2024) of the share of the mask's pixels that
  are not the part, made monotone: ``E[share] <= alpha``.
* **Outer margin**: the split-conformal quantile of the distance by which the mask must grow to cover the whole part: ``P(covered) >= 1 -
  alpha``.
* **Set of states**: the split-conformal quantile of ``1 - p(true state)`` (Sadinle et al., JASA 2019): ``P(true state in the set) >= 1 -
  alpha``.

Every limit belongs to one character (Mondrian, by strata), to one model, and to the settings under which the maps were made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.core.concept import Concept
from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.settings import OWN_INPUT
from concept_cam.trust.rules import compared

if TYPE_CHECKING:
    from concept_cam.core.results import Localization

__all__ = [
    "MARGIN_LEVEL",
    "MASK_LEVELS",
    "Conformal",
    "Guaranteed",
    "inner_limit",
    "inner_sizes",
    "least_labels",
    "outer_distance",
    "outer_limit",
    "relative",
    "state_limit",
    "stratum_of",
    "wrong_shares",
]

GUARANTEE_VERSION = 1

MASK_LEVELS = np.linspace(0.0, 1.0, 101)
"""Relative heights at which inner masks are tried: 0 the map's median, 1 its peak; above 1 the mask is empty and never wrong."""

MARGIN_LEVEL = 0.5
"""Relative height of the mask that the outer margin is put around."""


def least_labels(alpha: float) -> int:
    """Returns the fewest labelled pictures with which a quantile at ``1 - alpha`` exists: ``ceil(1 / alpha) - 1``.

    Raises:
        ConfigurationError: ``alpha`` is not within 0..1.
    """
    if not 0 < alpha < 1:
        raise ConfigurationError(f"alpha must lie between 0 and 1, received {alpha}.")
    return math.ceil(1 / alpha - 1e-9) - 1


def stratum_of(concept: Concept) -> str:
    """Returns what a limit belongs to: a part by its concept, all states of a character together, other things by their names."""
    pack, character = concept.metadata.get("pack"), concept.metadata.get("character")
    if concept.metadata.get("kind") == "part" or character is None:
        return f"{pack}:{concept.name}" if pack else concept.name
    return f"{pack}:{character}" if pack else str(character)


def relative(heatmap: np.ndarray) -> np.ndarray:
    """Returns a map's heights relative to its own: float32 [H, W], 0 at its median, 1 at its peak; NaN where the model did not look."""
    middle, highest = float(np.nanmedian(heatmap)), float(np.nanmax(heatmap))
    if not highest > middle:
        return np.where(np.isnan(heatmap), np.nan, 0.0).astype(np.float32)
    return ((heatmap - middle) / (highest - middle)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------------ inner


def wrong_shares(heights: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the share of each inner mask that is not the part, float64 [len(LEVELS)], made monotone from above.

    Args:
        heights: float [H, W] of :func:`relative`.
        truth: bool [H, W], the part.
    """
    known = np.isfinite(heights)
    values, right = heights[known], truth[known]
    order = np.argsort(-values, kind="stable")
    counts = np.searchsorted(-values[order], -MASK_LEVELS, side="right")
    hits = np.concatenate([[0], np.cumsum(right[order])])[counts]
    shares = np.where(counts > 0, 1 - hits / np.maximum(counts, 1), 0.0)
    return np.maximum.accumulate(shares[::-1])[::-1]


def inner_sizes(heights: np.ndarray) -> np.ndarray:
    """Returns the share of the picture that each inner mask holds, float64 [len(LEVELS)].

    Args:
        heights: float [H, W] of :func:`relative`.
    """
    values = np.sort(heights[np.isfinite(heights)])
    return np.asarray((len(values) - np.searchsorted(values, MASK_LEVELS, side="left")) / max(1, heights.size))


def inner_limit(shares: Sequence[np.ndarray], alpha: float) -> float:
    """Returns the lowest relative height whose mask keeps the risk: the expected share of wrong pixels is at most ``alpha``.

    Args:
        shares: Of :func:`wrong_shares`, one per labelled picture.
        alpha: The risk, 0..1.

    Returns:
        A level of :data:`MASK_LEVELS`, or infinity where none keeps the risk: then the inner mask is empty.

    Raises:
        DataError: Too few labels.
    """
    _enough(len(shares), alpha)
    count = len(shares)
    risk = (np.sum(shares, axis=0) + 1.0) / (count + 1)
    kept = np.flatnonzero(risk <= alpha)
    return float(MASK_LEVELS[kept[0]]) if len(kept) else math.inf


# ------------------------------------------------------------------------------------------------------------------ outer


def outer_distance(mask: np.ndarray, truth: np.ndarray) -> float:
    """Returns by how much a mask must grow to cover the part, as a share of the picture's diagonal; infinite where the mask is empty.

    Args:
        mask: bool [H, W].
        truth: bool [H, W], the part; not empty.
    """
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return math.inf
    return float(distance_transform_edt(~mask)[truth].max() / math.hypot(*mask.shape))


def outer_limit(distances: Sequence[float], alpha: float) -> float:
    """Returns the margin, as a share of the diagonal, within which the part is covered with a probability of at least ``1 - alpha``.

    Raises:
        DataError: Too few labels.
    """
    return _quantile(distances, alpha)


# ------------------------------------------------------------------------------------------------------------------ states


def state_limit(probabilities: Sequence[float], alpha: float) -> float:
    """Returns the least probability of a state in the set that holds the true one with a probability of at least ``1 - alpha``.

    Args:
        probabilities: Of the true state, one per labelled picture.
        alpha: The risk, 0..1.

    Raises:
        DataError: Too few labels.
    """
    return max(0.0, 1 - _quantile([1 - value for value in probabilities], alpha))


def _quantile(values: Sequence[float], alpha: float) -> float:
    _enough(len(values), alpha)
    place = math.ceil((len(values) + 1) * (1 - alpha) - 1e-9)
    return float(np.sort(np.asarray(values, dtype=np.float64))[place - 1])


def _enough(count: int, alpha: float) -> None:
    least = least_labels(alpha)
    if count < least:
        raise DataError(f"received {count} labelled pictures; a guarantee at alpha {alpha:g} needs at least {least}.")


# ------------------------------------------------------------------------------------------------------------------ limits


@dataclass(frozen=True, eq=False)
class Guaranteed:
    """What can be promised of one map, on average over pictures like the labelled ones.

    Attributes:
        alpha: The risk.
        inner: bool [H, W], original frame: an expected share of at most ``alpha`` of it is wrong.
        outer: bool [H, W], original frame: the part lies within it with a probability of at least ``1 - alpha``.
        states: The states among which the right one is with a probability of at least ``1 - alpha``, the most probable first; none where
            no state is as probable as right ones are.
    """

    alpha: float
    inner: np.ndarray | None = None
    outer: np.ndarray | None = None
    states: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON: masks as run lengths."""
        from concept_cam.core.regions import encode_rle

        masks = {name: None if mask is None else encode_rle(mask) for name, mask in (("inner", self.inner), ("outer", self.outer))}
        return {"alpha": self.alpha, **masks, "states": None if self.states is None else list(self.states)}


def _states(found: Localization) -> dict[str, float]:
    """The probabilities of a character's states by their names; a presence character has two."""
    own = str(found.concept.metadata.get("state") or found.concept.name)
    others = ("absent",) if found.concept.metadata.get("kind") == "presence" else found.concept.rival_names
    return dict(zip((own, *others), found.probabilities))


ONCE_FIXED = {"refine": "none", "look_again": False}
"""What held of every map when files did not say so."""


@dataclass(frozen=True)
class Conformal:
    """Limits of every character at one risk.

    Attributes:
        alpha: The risk.
        inner: Part or character (:func:`stratum_of`) -> relative height of the inner mask.
        outer: Part or character -> margin as a share of the picture's diagonal.
        threshold: Relative height of the mask that the margin is put around.
        states: Character -> least probability of a state in the set.
        labelled: Character or concept -> labelled pictures.
        facts: Under what the maps were made: model, weights, size, views, gamma, attention ...
    """

    alpha: float
    inner: Mapping[str, float] = field(default_factory=dict)
    outer: Mapping[str, float] = field(default_factory=dict)
    threshold: float = MARGIN_LEVEL
    states: Mapping[str, float] = field(default_factory=dict)
    labelled: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def check(self, facts: Mapping[str, Any]) -> None:
        """Refuses maps that were made under other facts.

        Raises:
            ConfigurationError: The model or a setting differs; the message names it.
        """
        fitted, made = compared({**ONCE_FIXED, **self.facts} if self.facts else {}, facts)
        for name, value in fitted.items():
            if name != "model" and name in made and made[name] != value:  # A model has several names; its weights have one hash.
                raise ConfigurationError(
                    f"the guarantee was fitted with {name} {value!r}, the maps were made with {made[name]!r}: fit it again with "
                    "concept-cam calibrate."
                )

    def inner_mask(self, name: str, heatmap: np.ndarray) -> np.ndarray:
        """Returns bool [H, W]: the pixels of which an expected share of at most ``alpha`` is wrong.

        Raises:
            DataError: There is no limit for this character.
        """
        return np.asarray(relative(heatmap) >= self._limit(name, self.inner, "inner mask"))

    def outer_mask(self, name: str, heatmap: np.ndarray) -> np.ndarray:
        """Returns bool [H, W]: the mask at half height grown by the margin; it covers the part with a probability of ``1 - alpha``.

        Raises:
            DataError: There is no limit for this character.
        """
        from scipy.ndimage import distance_transform_edt

        margin = self._limit(name, self.outer, "outer margin")
        mask = relative(heatmap) >= self.threshold
        if not math.isfinite(margin):
            return np.ones(heatmap.shape, dtype=bool)
        return np.asarray(distance_transform_edt(~mask) <= margin * math.hypot(*mask.shape)) if mask.any() else mask

    def state_set(self, name: str, probabilities: Mapping[str, float]) -> tuple[str, ...]:
        """Returns the states, the most probable first, among which the true one is with a probability of ``1 - alpha``.

        Raises:
            DataError: There is no limit for this character.
        """
        least = self._limit(name, self.states, "set of states")
        ordered = sorted(probabilities, key=probabilities.__getitem__, reverse=True)
        return tuple(state for state in ordered if probabilities[state] >= least)

    def guarantee(self, found: Localization) -> Guaranteed:
        """Returns what can be promised of a map; what there is no limit for is ``None``, and so is all where a place cannot be told.

        Raises:
            ConfigurationError: The map was made with another model or other settings than those that the limits were fitted to.
        """
        self.check({**found.provenance.to_dict(), OWN_INPUT: found.provenance.own_input})
        name = stratum_of(found.concept)
        if not found.placed:
            return Guaranteed(self.alpha, None, None, None)
        return Guaranteed(
            self.alpha,
            self.inner_mask(name, found.heatmap) if name in self.inner else None,
            self.outer_mask(name, found.heatmap) if name in self.outer else None,
            self.state_set(name, _states(found)) if name in self.states and found.probabilities else None,
        )

    @staticmethod
    def _limit(name: str, limits: Mapping[str, float], what: str) -> float:
        if name not in limits:
            raise DataError(
                f"there is no {what} for {name!r}: too few of its pictures were labelled. Known: {', '.join(limits) or 'none'}."
            )
        return limits[name]

    def to_json(self) -> str:
        """Returns the limits as JSON; :meth:`read` reads them back. An infinite limit is null."""
        content = asdict(self)
        for table in ("inner", "outer"):
            content[table] = {name: None if math.isinf(value) else value for name, value in content[table].items()}
        return json.dumps({"version": GUARANTEE_VERSION, **content}, indent=1, ensure_ascii=False)

    @classmethod
    def read(cls, path: Path) -> Conformal:
        """Reads limits.

        Raises:
            DataError: The file cannot be read, or is of another version.
        """
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, content: Any, origin: str) -> Conformal:
        """Makes limits of what :meth:`to_json` wrote, parsed; ``origin`` says where it was read.

        Raises:
            DataError: It is something else, or of another version.
        """
        with understood(f"{origin}: the conformal limits"):
            content = dict(content)
            if content.pop("version") != GUARANTEE_VERSION:
                raise DataError(f"{origin} holds guarantees of another version: fit them again with  concept-cam calibrate.")
            for table in ("inner", "outer"):
                content[table] = {name: math.inf if value is None else _number(value) for name, value in content[table].items()}
            content["states"] = {name: _number(value) for name, value in content["states"].items()}
            content["labelled"] = {name: int(value) for name, value in content["labelled"].items()}
            numbers = {name: _number(content[name]) for name in ("alpha", "threshold")}
            return cls(**{**content, "facts": dict(content["facts"]), **numbers})


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no limit")
    return number
