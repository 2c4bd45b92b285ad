"""Last stage of an annotation, in worker processes: scores become calls, regions, measures and the rows of the table. Loads no torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from concept_cam.collection.calls import Call, call_part, call_state, host_is_missing
from concept_cam.collection.inputs.items import Item, Specimen
from concept_cam.collection.measures import Area, Distance, Frame, find_area, measure_distances
from concept_cam.collection.plan import Plan
from concept_cam.collection.questions import ABSENT, DISTANCE_PARTS, Character, PackQuestions, State
from concept_cam.core.geometry import Geometry
from concept_cam.core.resampling import highest_point

__all__ = ["Scored", "records_of"]


@dataclass(frozen=True)
class Scored:
    """What the model said about one crop.

    Attributes:
        item: The picture.
        sha256: Of its encoded bytes.
        number: Number of the specimen.
        box: Its box, original pixels; ``None`` for a whole picture.
        specimen: What the input says of it.
        frame: Where the crop lies in the whole picture.
        geometry: Frames of the crop.
        hidden: bool, any size: pixels of the crop that may not be read; or ``None``.
        scores: float32 [C, h, w]; NaN in padding and where nothing may be read.
        image_scores: float32 [C].
        probabilities: float32 [C, 1 + R], over the picture; for parts at their best patch.
    """

    item: Item
    sha256: str
    number: int
    box: tuple[int, int, int, int] | None
    specimen: Specimen
    frame: Frame
    geometry: Geometry
    hidden: np.ndarray | None
    scores: np.ndarray
    image_scores: np.ndarray
    probabilities: np.ndarray


class _Maps:
    """The regions and peaks of one crop, each found once."""

    def __init__(self, scored: Scored, plan: Plan) -> None:
        self._scored, self._regions = scored, plan.regions
        self._areas: dict[int, tuple[Area | None, float]] = {}

    def area(self, concept: int) -> tuple[Area | None, float]:
        """Returns a concept's region and threshold."""
        if concept not in self._areas:
            found, regions = self._scored, self._regions
            self._areas[concept] = find_area(
                found.scores[concept],
                found.geometry,
                found.frame,
                threshold=regions.threshold,
                resolution=regions.resolution,
                areas=regions.areas,
                min_area=regions.min_area,
                hidden=found.hidden,
            )
        return self._areas[concept]

    def peak(self, concept: int) -> tuple[float, float, float] | None:
        """Returns ``(x, y)`` of a map's highest point, original pixels of the whole picture, and the best patch's score; ``None`` where nothing was seen."""
        x, y, score = self._peaks[:, concept].tolist()
        return None if math.isinf(score) else (x, y, score)

    @cached_property
    def _peaks(self) -> np.ndarray:
        """float64 [3, C]: x and y of every map's highest point, and the score of its best patch."""
        scores, geometry, frame = self._scored.scores, self._scored.geometry, self._scored.frame
        points = np.array([highest_point(map_, geometry) for map_ in scores])
        best = np.where(np.isfinite(scores), scores, -np.inf).reshape(len(scores), -1).max(axis=1)
        return np.stack([points[:, 0] + frame.left, points[:, 1] + frame.top, best])


def records_of(scored: Scored, plan: Plan) -> list[dict[str, Any]]:
    """Makes the rows of one crop, in the order of the packs; see :data:`concept_cam.collection.schema.COLUMNS`."""
    head = _head(scored, plan)
    maps = _Maps(scored, plan)
    rows: list[dict[str, Any]] = []
    for pack in plan.questions.packs:
        rows += _pack_rows(pack, scored, plan, maps, head)
    return rows


def _head(scored: Scored, plan: Plan) -> dict[str, Any]:
    from concept_cam.collection.schema import PASSTHROUGH_PREFIX, image_key

    item, box = scored.item, scored.box
    head: dict[str, Any] = {
        "image_key": image_key(item.source),
        "file_name": os.path.basename(item.source.rstrip("/")) or item.source,
        "source": item.source,
        "path": item.path,
        "media_uri": item.media_uri,
        "sha256": scored.sha256,
        "image_width": scored.frame.size[1],
        "image_height": scored.frame.size[0],
        "specimen": scored.number,
        "px_per_mm": plan.scale(item),
        "model": plan.identity.model,
        "weights_hash": plan.identity.weights_hash,
        "package_version": plan.identity.package_version,
    }
    if box is not None:
        head |= dict(zip(("specimen_x", "specimen_y", "specimen_width", "specimen_height"), box))
    head |= {PASSTHROUGH_PREFIX + name: text for name, text in plan.columns(item, scored.specimen).items()}
    return head


def _pack_rows(pack: PackQuestions, scored: Scored, plan: Plan, maps: _Maps, head: dict[str, Any]) -> list[dict[str, Any]]:
    missing = host_is_missing(float(scored.probabilities[pack.host][0]), plan.limits)
    rows: list[dict[str, Any]] = []
    boxes: dict[str, tuple[int, int, int, int]] = {}
    for character in pack.characters:
        if character.call < 0:
            for state in character.states:
                row, area = _part_row(pack, character, state, scored, plan, maps, head, missing)
                rows.append(row)
                if area is not None:
                    boxes[state.name] = area.box
        else:
            rows.append(_state_row(pack, character, scored, plan, maps, head, missing))
    found = measure_distances(pack.distances, DISTANCE_PARTS, boxes, scored.geometry.cell_original)
    rows += [_distance_row(pack, name, found.get(name), head, missing) for name in pack.distances]
    return rows


def _key(head: dict[str, Any], pack: str, character: str, part: str = "") -> str:
    from concept_cam.collection.schema import record_key

    return record_key(head["source"], head["specimen"], pack, character, part)


def _state_row(
    pack: PackQuestions,
    character: Character,
    scored: Scored,
    plan: Plan,
    maps: _Maps,
    head: dict[str, Any],
    missing: bool,
) -> dict[str, Any]:
    names = [state.name for state in character.states]
    call = call_state(
        names,
        [float(value) for value in scored.probabilities[character.call][: len(names)]],
        [float(scored.image_scores[state.concept]) for state in character.states],
        plan.limits.of(pack.name, character.name),
        missing_host=missing,
        host_limit=plan.limits.host,
    )
    best = character.states[names.index(call.best_state)]
    label, quality, match = best.quality if call.state is not None else (None, None, None)
    row = head | {
        "record_key": _key(head, pack.name, character.name),
        "pack": pack.name,
        "character": character.name,
        "kind": character.kind,
        "entity": best.entity[0],
        "entity_id": best.entity[1],
        "quality": label,
        "quality_id": quality,
        "quality_match": match,
        **_call_columns(call),
    }
    # What is absent has no place, and of a picture of something else nothing is measured.
    absent = character.kind == "presence" and call.state == ABSENT
    if not missing and not absent:
        _place(row, maps, character.region, best.concept, scored, plan)
    else:
        row["region_count"] = 0
    if plan.keep_scores:
        _keep(
            row,
            scored,
            [character.region, *(state.concept for state in character.states)],
            ["entity", *names],
        )
    return row


def _part_row(
    pack: PackQuestions,
    character: Character,
    state: State,
    scored: Scored,
    plan: Plan,
    maps: _Maps,
    head: dict[str, Any],
    missing: bool,
) -> tuple[dict[str, Any], Area | None]:
    concept = plan.questions.concepts[state.concept]
    peak = maps.peak(state.concept)
    names = (state.name, *concept.contrast_names)
    call = call_part(
        state.name,
        names,
        [float(value) for value in scored.probabilities[state.concept][: len(names)]] if concept.contrasts else [],
        float("nan") if peak is None else peak[2],
        plan.limits.of(pack.name, character.name, state.name),
        least_probability=plan.limits.of_part_probability(pack.name, character.name, state.name),
        missing_host=missing,
        host_limit=plan.limits.host,
    )
    area = maps.area(state.concept)[0] if not call.abstained else None
    columns = _call_columns(call)
    if area is None and not call.abstained:
        columns |= {"state": None, "abstained": True, "abstained_because": "no_region"}
    row = head | {
        "record_key": _key(head, pack.name, character.name, state.name),
        "pack": pack.name,
        "character": character.name,
        "kind": character.kind,
        "entity": state.entity[0],
        "entity_id": state.entity[1],
        **columns,
    }
    if not call.abstained:
        _place(row, maps, state.concept, state.concept, scored, plan)
    else:
        row["region_count"] = 0
    if plan.keep_scores:
        _keep(row, scored, [state.concept], [state.name])
    return row, area


def _call_columns(call: Call) -> dict[str, Any]:
    return {
        "state": call.state,
        "best_state": call.best_state,
        "probability": call.probability,
        "probabilities": dict(call.probabilities),
        "score": call.score,
        "margin": call.margin,
        "abstained": call.abstained,
        "abstained_because": call.reason,
        "limit": call.limit,
    }


def _place(row: dict[str, Any], maps: _Maps, entity: int, evidence: int, scored: Scored, plan: Plan) -> None:
    """Adds where it is: threshold, peaks, region and measures."""
    peak, proof = maps.peak(entity), maps.peak(evidence)
    if peak is not None:
        row.update(zip(("peak_x", "peak_y", "peak_score"), peak))
    if proof is not None:
        row.update(zip(("evidence_x", "evidence_y"), proof))
    area, threshold = maps.area(entity)
    row["threshold"] = threshold if np.isfinite(threshold) else None
    row["region_count"] = 0 if area is None else area.count
    if area is not None:
        row.update(_area_columns(area, scored, plan.scale(scored.item)))


def _area_columns(area: Area, scored: Scored, scale: float | None) -> dict[str, Any]:
    from concept_cam.collection.schema import MEASURES

    whole = scored.geometry.original[0] * scored.geometry.original[1]
    columns: dict[str, Any] = {
        **dict(zip(("box_x", "box_y", "box_width", "box_height"), area.box)),
        "rle_counts": area.rle["counts"],
        "rle_size": area.rle["size"],
        "contour": list(area.contours),
        "centroid_x": area.centroid[0],
        "centroid_y": area.centroid[1],
        "centroid_uncertainty_px": area.errors.get("centroid"),
        "area_frac": area.pixels / whole,
    }
    for measure in MEASURES:
        value, error = area.values[measure.name], area.errors.get(measure.name)
        columns[measure.value], columns[measure.uncertainty] = value, error
        if measure.metric and scale:
            divisor = scale**2 if measure.unit == "px2" else scale
            columns[measure.metric[0]] = value / divisor
            columns[measure.metric[1]] = None if error is None else error / divisor
    return columns


def _distance_row(pack: PackQuestions, name: str, found: Distance | None, head: dict[str, Any], missing: bool) -> dict[str, Any]:
    row = head | {
        "record_key": _key(head, pack.name, name),
        "pack": pack.name,
        "character": name,
        "kind": "distance",
        "abstained": found is None,
        "abstained_because": None if found is not None else "no_host" if missing else "no_region",
        "region_count": 0,
    }
    if found is not None:
        row |= {
            "length_px": found.length,
            "length_uncertainty_px": found.error,
            "contour": [list(found.line)],
        }
        if scale := head["px_per_mm"]:
            row["length_mm"] = found.length / scale
            row["length_uncertainty_mm"] = None if found.error is None else found.error / scale
    return row


def _keep(row: dict[str, Any], scored: Scored, concepts: Sequence[int], names: Iterable[str]) -> None:
    maps = scored.scores[list(concepts)].astype("<f2")
    row["scores"] = maps.tobytes()
    row["scores_shape"] = list(maps.shape)
    row["scores_names"] = list(names)
    row["geometry"] = json.dumps(scored.geometry.to_dict() | {"crop_xy": [scored.frame.left, scored.frame.top]})
