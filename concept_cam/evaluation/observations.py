"""What is measured, and what was observed of every question: plain data that a run collects and a summary reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam.evaluation import metrics

__all__ = ["GAIN_METRICS", "METRICS", "TABLE_TITLES", "TRAIT_METRICS", "ShownExample", "Metric", "Observation", "RowRecord", "Scene"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scene:
    """One map and the truth about it, at the masks' pixels: what a metric of one question is a function of.

    Attributes:
        heatmap: float32 [H', W'].
        mask: uint8 or bool [H', W'], the target.
        host: bool [H', W'], the whole subject; ``None`` where it is not known, or is itself asked for.
    """

    heatmap: Array
    mask: Array
    host: Array | None = None

    @cached_property
    def labelled(self) -> tuple[Array, Array]:
        """Scores on and off the target."""
        return metrics.labelled_scores(self.heatmap, self.mask)

    @cached_property
    def best(self) -> tuple[float, float]:
        """The best IoU that a threshold reaches, and the highest such threshold."""
        return metrics.best_iou(self.heatmap, self.mask)

    @cached_property
    def within(self) -> tuple[Array, Array]:
        """Scores on and off the target, within the subject."""
        return metrics.labelled_scores(self.heatmap, self.mask, self.host)


@dataclass(frozen=True)
class Metric:
    """What a number in the tables is. A metric of one question is this entry and its function, nothing else.

    Attributes:
        title: Short heading.
        meaning: One sentence.
        better: ``"high"``, ``"low"`` or empty where neither is better.
        measure: Computes it from a map and its mask (``localisation``); ``None`` for metrics that need more than that.
        needs_host: Whether it is only defined where the whole subject is known.
    """

    title: str
    meaning: str
    better: str = "high"
    measure: Callable[[Scene], float] | None = None
    needs_host: bool = False


METRICS: dict[str, Metric] = {
    "ap": Metric(
        "AP",
        "Pixel average precision in the picture; knowing nothing scores the target's share of the pixels.",
        measure=lambda scene: metrics.average_precision_from_scores(*scene.labelled),
    ),
    "ap_host": Metric(
        "AP in subject",
        "Pixel average precision within the subject: finding the subject earns nothing.",
        measure=lambda scene: metrics.average_precision_from_scores(*scene.within),
        needs_host=True,
    ),
    "auroc": Metric(
        "AUROC",
        "Chance that a target pixel scores above another pixel of the picture; 0.5 knows nothing.",
        measure=lambda scene: metrics.auroc_from_scores(*scene.labelled),
    ),
    "auroc_host": Metric(
        "AUROC in subject",
        "The same against the rest of the subject; 0.5 knows nothing.",
        measure=lambda scene: metrics.auroc_from_scores(*scene.within),
        needs_host=True,
    ),
    "energy": Metric(
        "energy",
        "Share of the positive scores that lies on the target; negative scores count as zero.",
        measure=lambda scene: metrics.energy_pointing_game(scene.heatmap, scene.mask),
    ),
    "pointing": Metric(
        "pointing",
        "The highest score lies on the target; the row 'subject' is a random point in the subject.",
        measure=lambda scene: metrics.pointing_game(scene.heatmap, scene.mask),
    ),
    "iou": Metric(
        "IoU fixed",
        "IoU at one threshold for all prompts and pictures, chosen on the other half of the pictures.",
    ),
    "iou_best": Metric(
        "IoU best",
        "IoU at the best threshold of each map: an upper bound.",
        measure=lambda scene: scene.best[0],
    ),
    "boundary": Metric(
        "outline",
        "F-score of the outline at that threshold: the share of either outline that lies within 0.75 % of the diagonal of the other.",
        measure=lambda scene: metrics.boundary_f(np.nan_to_num(scene.heatmap, nan=-np.inf) >= scene.best[1], scene.mask),
    ),
    "coverage": Metric(
        "seen", "Share of the target that the method looked at.", "", measure=lambda scene: metrics.coverage(scene.heatmap, scene.mask)
    ),
    "own_part": Metric("own part", "The part's map is on average higher on its own part than on any other part."),
    "ap_difference": Metric("AP twin", "Pixel average precision on what changes between the picture and its counterfactual twin."),
    "auroc_difference": Metric("AUROC twin", "AUROC on what changes between the picture and its twin."),
    "energy_difference": Metric("energy twin", "Share of the positive scores on what changes between the picture and its twin."),
    "state_accuracy": Metric(
        "state",
        "The true state is the most probable among its siblings, from the image embedding; 'random' is one in K.",
    ),
    "twin_accuracy": Metric("twin", "The picture that has the state scores above its twin that has not (image level)."),
    "twin_map_accuracy": Metric("twin map", "The map is higher where the trait is than at the same place of the twin."),
    "absence_auroc": Metric(
        "absence",
        "AUROC of present against absent by the image score, mean over traits; absent twins count too.",
    ),
    "absence_auroc_peak": Metric("absence peak", "The same by the highest score of the map."),
    "rank_host": Metric(
        "ρ host",
        "Rank correlation with the map of the host noun: 1 finds the subject whatever is asked.",
        "",
    ),
    "rank_subject": Metric("ρ subject", 'Rank correlation with the map of "the main subject".', ""),
    "rank_sibling": Metric("ρ sibling", "Rank correlation with the map of another trait in the same picture.", ""),
    "dependence": Metric("dependence", "1 minus the largest absolute of these correlations: 0 does not depend on the prompt."),
    "randomised": Metric(
        "ρ random weights",
        "Absolute rank correlation with the map of the same tower with its weights shuffled: what is high shows the picture, "
        "not the model.",
        "low",
    ),
    "point_hit": Metric("point hit", "The highest score lies within the tolerance of a point of the part."),
    "point_auroc": Metric("point AUROC", "Chance that a point of the part scores above a point of another part."),
    "point_miou": Metric("point mIoU", "TP / (TP + FP + FN) over labelled points at a fixed threshold, mean over concepts."),
    "max_box_acc": Metric("MaxBoxAcc", "Boxes with IoU of at least 0.5 at the best common threshold."),
    "max_box_acc_v2": Metric("MaxBoxAccV2", "Mean over IoU 0.3, 0.5 and 0.7, best component."),
    "pxap": Metric("PxAP", "Average precision of all pixels pooled, each map scaled to its own range."),
    "drop_5": Metric("RD 5 %", "Relative confidence drop when the top 5 % of pixels take the mean colour (Finer-CAM)."),
    "drop_10": Metric("RD 10 %", "The same for the top 10 %."),
    "deletion": Metric("deletion", "Area under the confidence while pixels turn grey from the highest score down.", "low"),
    "insertion": Metric("insertion", "Area under the confidence while a blurred picture gets its pixels back."),
    "average_drop": Metric("average drop", "Loss of confidence when only the map's part is shown.", "low"),
    "average_increase": Metric("average increase", "Share of pictures whose confidence rises then."),
}
"""Every metric of the tables, in their order."""

GAIN_METRICS = ("ap_difference", "auroc_difference", "ap_host", "ap", "pointing")
"""Metrics by which the gain of the contrast is stated."""

TRAIT_METRICS = ("ap_host", "ap", "point_auroc", "own_part", "ap_difference", "state_accuracy")
"""Metrics that are broken down per trait on the pages; the JSON file has all."""

TABLE_TITLES = {
    "all": "All questions",
    "object": "The whole subject",
    "part": "Parts",
    "state": "States of characters",
    "presence": "Presence",
}


@dataclass(frozen=True)
class Observation:
    """What one configuration scored on one question.

    Attributes:
        picture: Name of the picture.
        concept: Name of the concept.
        kind: Kind of question.
        trait: Part or character.
        contrasted: Whether the concept has contrasts.
        values: Metric -> value.
        pooled: Curves and counts that are only summed over the data set.
    """

    picture: str
    concept: str
    kind: str
    trait: str
    contrasted: bool
    values: dict[str, float]
    pooled: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RowRecord:
    """Everything that was observed of one configuration.

    Attributes:
        name: Name of the row.
        method: Method or baseline.
        attention: Attention strategy.
        gamma: Comparison strength; ``None`` for baselines.
        setup_seconds: Seconds before the second answer: loading the model, training where the method is learned, the first answer.
        seconds_per_image: Median seconds per picture with all its questions.
        seconds_per_concept: Median seconds per picture and concept.
        thresholds: Common thresholds of the IoU at a fixed one.
        observations: One per question.
    """

    name: str
    method: str
    attention: str
    gamma: float | None
    setup_seconds: float
    seconds_per_image: float
    seconds_per_concept: float
    thresholds: Array | None
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class ShownExample:
    """One question with the maps of every row.

    Attributes:
        picture_name: Name of the picture.
        concept: Name of the concept.
        target: Its first target phrase.
        kind: Kind of question.
        trait: Part or character.
        picture: uint8 [H', W', 3].
        mask: bool [H', W'] or ``None``.
        heatmaps: Row -> float32 [H', W'].
    """

    picture_name: str
    concept: str
    target: str
    kind: str
    trait: str
    picture: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    heatmaps: Mapping[str, npt.NDArray[np.float32]]
