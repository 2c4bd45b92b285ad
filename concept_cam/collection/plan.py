"""What an annotation run does, as one frozen value that can be sent to other processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from concept_cam.collection.calls import Limits
from concept_cam.collection.inputs.items import Item, Specimen
from concept_cam.collection.inputs.specimens import BoxFile, Ignored
from concept_cam.collection.questions import Questions
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.core.settings import Settings

if TYPE_CHECKING:
    from concept_cam.index.codec import Codec
    from concept_cam.pictures.preprocessing import Preprocess
    from concept_cam.trust.conformal import Conformal
    from concept_cam.trust.rules import Rules

__all__ = ["DECODING", "Identity", "Plan", "Regions"]


DECODING: dict[str, str] = {
    "fast": "large JPEGs are decoded at 1/2, 1/4 or 1/8 of their sides, where twice as many pixels as the model sees are left",
    "exact": "every pixel is decoded",
}
"""How pictures are decoded."""


@dataclass(frozen=True)
class Regions:
    """How regions are found.

    Attributes:
        threshold: Strategy of :data:`concept_cam.core.regions.THRESHOLDS`, or a number in score units.
        resolution: A name of :data:`concept_cam.core.regions.RESOLUTIONS`.
        areas: Connected areas that make up a region: the one that holds the map's highest point, then the largest; 0 for all.
        min_area: Smallest area in original pixels, or below 1 as a share of the picture.

    Raises:
        ConfigurationError: A value that cannot be used.
    """

    threshold: str | float = DEFAULT_THRESHOLD
    resolution: str = "model"
    areas: int = 1
    min_area: float = 0.0

    def __post_init__(self) -> None:
        from concept_cam.core.names import choose
        from concept_cam.core.regions import RESOLUTIONS, check_area, parse_threshold

        object.__setattr__(self, "threshold", parse_threshold(self.threshold))
        choose(self.resolution, RESOLUTIONS, "region resolution")
        if self.areas < 0:
            raise ConfigurationError(f"areas must not be negative, received {self.areas}.")
        check_area(self.min_area)


@dataclass(frozen=True)
class Identity:
    """Who makes the calls, as every record says.

    Attributes:
        model: Canonical model name.
        weights_hash: Hash of its weights.
        package_version: Version of this package.
    """

    model: str
    weights_hash: str
    package_version: str


@dataclass(frozen=True)
class Plan:
    """Everything that the workers of a run need to know; holds no tensor and no open file.

    Attributes:
        questions: What is asked.
        settings: How pictures are read and scored.
        preprocess: What the model expects of its input.
        identity: Who answers.
        limits: Below which evidence no call is made.
        regions: How regions are found.
        px_per_mm: Scale of all pictures that the input gives no scale for.
        keep_scores: Whether grid scores are kept.
        boxes: Specimens by picture.
        ignored: What must not be read.
        codec: How features are kept, where they are kept instead of scored.
        index: Folder of the index that the features come from, where the pictures are not encoded.
        decoding: A name of :data:`DECODING`.
        rules: When a map counts as clear; ``None`` for the rules that the model has.
        guarantee: Limits that keep a stated risk: sets of states; ``None`` for none.
    """

    questions: Questions
    settings: Settings
    preprocess: Preprocess
    identity: Identity
    limits: Limits = field(default_factory=Limits)
    regions: Regions = field(default_factory=Regions)
    px_per_mm: float | None = None
    keep_scores: bool = False
    boxes: BoxFile | None = None
    ignored: Ignored | None = None
    codec: Codec | None = None
    index: str | None = None
    decoding: str = "fast"
    rules: Rules | None = None
    guarantee: Conformal | None = None

    @property
    def closer(self) -> bool:
        """Whether pixels are needed beside the model's input: maps are refined, or parts are read again."""
        return self.codec is None and (self.settings.refine != "none" or self.settings.look_again)

    def specimens(self, item: Item) -> tuple[Specimen, ...]:
        """Returns the specimens of a picture: of the box file, else of the input; none where the whole picture is one."""
        if self.boxes is not None and (found := self.boxes.of(item)):
            return found
        return item.specimens

    def scale(self, item: Item) -> float | None:
        """Returns the picture's scale in original pixels per millimetre, where it is known."""
        return item.px_per_mm if item.px_per_mm is not None else self.px_per_mm

    def columns(self, item: Item, specimen: Specimen) -> Mapping[str, str]:
        """Returns the input's columns that are carried through for a specimen."""
        return {**item.columns, **specimen.columns}


def describe(plan: Plan) -> dict[str, Any]:
    """Returns the part of a run's configuration that decides its results, as plain data for JSON."""
    regions = plan.regions
    return {
        "model": plan.identity.model,
        "weights_hash": plan.identity.weights_hash,
        "package_version": plan.identity.package_version,
        "packs": {name: {"sha256": facts["sha256"], "characters": facts["characters"]} for name, facts in plan.questions.facts.items()},
        **plan.settings.recorded(),
        "views": plan.settings.views_of(plan.preprocess.views),
        "limits": plan.limits.to_dict(),
        "threshold": regions.threshold,
        "region_resolution": regions.resolution,
        "areas": regions.areas,
        "min_area": regions.min_area,
        "px_per_mm": plan.px_per_mm,
        "keep_scores": plan.keep_scores,
        "decoding": plan.decoding,
        # Only where there are any, so that runs of earlier releases can be continued.
        **({"rules": _digest(plan.rules.to_json())} if plan.rules is not None else {}),
        **({"guarantee": _digest(plan.guarantee.to_json())} if plan.guarantee is not None else {}),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
