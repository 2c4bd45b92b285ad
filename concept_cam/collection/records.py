"""Last stage of an annotation, in worker processes: scores become calls, regions, measures and the rows of the table. Loads no torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.collection.calls import Call, call_part, call_state, host_is_missing, host_share, is_absent, lacks
from concept_cam.collection.inputs.items import Item, Specimen
from concept_cam.collection.measures import Area, Body, Distance, Frame, find_areas, measure_all_distances
from concept_cam.collection.plan import Plan
from concept_cam.collection.questions import ABSENT, AskedCharacter, AskedState, PackQuestions
from concept_cam.core.geometry import Geometry
from concept_cam.core.regions import PictureMaps
from concept_cam.core.resampling import highest_places_of_all, points_of, settled_places
from concept_cam.core.results import on_finer_grid

if TYPE_CHECKING:
    from concept_cam.core.placing import Place
    from concept_cam.trust.certified import Certificate

__all__ = ["Scored", "records_of", "records_of_all"]

LEAST_PRESENCE = 0.5
"""Least probability that a part is in the picture at which lengths are told from it, where that was fitted."""


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
        certificates: Whether the maps that records are made of can be trusted, by concept.
        places: What became of the places that parts are asked for at, by concept.
        cell: ``(y, x)`` size in original pixels of what the model saw as one: of a cell of the first look, where parts were read again.
        refined: float32 [h', w'], refined maps on a finer grid over the same model frame, by concept; empty where none were asked for.
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
    certificates: Mapping[int, Certificate] = field(default_factory=dict)
    places: Mapping[int, Place] = field(default_factory=dict)
    cell: tuple[float, float] | None = None
    refined: Mapping[int, np.ndarray] = field(default_factory=dict)

    def surface(self, concepts: Sequence[int]) -> tuple[np.ndarray, Geometry]:
        """Returns the maps [N, h', w'] that regions are drawn from, with their frames: refined where that was asked for."""
        if not self.refined or not concepts:
            return self.scores[list(concepts)], self.geometry
        return on_finer_grid(np.stack([self.refined[concept] for concept in concepts]), self.geometry)


@dataclass(frozen=True)
class _Called:
    """What is said about one character, or one part of it, and what it needs to be placed.

    Attributes:
        character: The character.
        state: The part, or the best state.
        call: What is said.
        entity: Concept whose map gives the region.
        placed: Whether it is looked for at all.
    """

    character: AskedCharacter
    state: AskedState
    call: Call
    entity: int
    placed: bool


class _Maps:
    """The regions and peaks of one crop.

    Args:
        areas: Concept -> region and threshold.
        peaks: Concept -> ``(x, y)`` of its map's highest point, original pixels of the whole picture; NaN where nothing was seen.
    """

    def __init__(self, areas: Mapping[int, tuple[Area | None, float]], peaks: Mapping[int, tuple[float, float]]) -> None:
        self._areas, self._peaks = areas, peaks

    def area(self, concept: int) -> tuple[Area | None, float]:
        """Returns a concept's region and threshold."""
        return self._areas[concept]

    def peak(self, concept: int) -> tuple[float, float] | None:
        """Returns ``(x, y)`` of a map's highest point, original pixels of the whole picture; ``None`` where nothing was seen."""
        x, y = self._peaks[concept]
        return None if math.isnan(x) else (x, y)


@dataclass(frozen=True)
class _Answered:
    """One crop with the calls that were made.

    Attributes:
        scored: What the model said.
        best: float32 [C], the score of each map's best patch; minus infinity where nothing was seen.
        packs: Each pack, whether its host is missing, and its calls.
    """

    scored: Scored
    best: np.ndarray
    packs: tuple[tuple[PackQuestions, bool, list[_Called]], ...]

    @property
    def areas(self) -> list[int]:
        """Concepts whose region is needed."""
        return list(dict.fromkeys(called.entity for _, _, found in self.packs for called in found if called.placed))

    @property
    def peaks(self) -> list[int]:
        """Concepts whose highest point is needed: these, and those that a call rests on."""
        return list(
            dict.fromkeys([*self.areas, *(called.state.concept for _, _, found in self.packs for called in found if called.placed)])
        )


def records_of(scored: Scored, plan: Plan) -> list[dict[str, Any]]:
    """Makes the rows of one crop; see :func:`records_of_all`."""
    return records_of_all([scored], plan)[0]


def records_of_all(scored: Sequence[Scored], plan: Plan) -> list[list[dict[str, Any]]]:
    """Makes the rows of crops, each in the order of the packs; see :data:`concept_cam.collection.schema.RUN_COLUMNS`.

    Regions of all crops are found in one pass. What a crop gets does not depend on the others.
    """
    # Step by step for all crops: a processor does the same to one after the other faster than now this, now that.
    answered = [_answered(one, plan) for one in scored]
    maps = _maps_of(answered, plan)
    lengths = iter(measure_all_distances([body for one, own in zip(answered, maps) for body in _bodies(one, own)]))
    return [_rows_of(one, own, [next(lengths) for _ in one.packs], plan) for one, own in zip(answered, maps)]


def _answered(scored: Scored, plan: Plan) -> _Answered:
    best = np.where(np.isfinite(scored.scores), scored.scores, -np.inf).reshape(len(scored.scores), -1).max(axis=1)
    missing = [_misses_host(pack, scored, plan) for pack in plan.questions.packs]
    packs = ((pack, none, _called(pack, scored, plan, best, none)) for pack, none in zip(plan.questions.packs, missing))
    return _Answered(scored, best, tuple(packs))


def _maps_of(answered: Sequence[_Answered], plan: Plan) -> list[_Maps]:
    """Finds the regions and peaks of all crops in one pass."""
    regions = plan.regions
    wanted, seen = [one.areas for one in answered], [one.peaks for one in answered]
    places = highest_places_of_all([(one.scored.scores[own], one.scored.geometry) for one, own in zip(answered, seen)])
    drawn = [_surface(one.scored, own, at) for one, own, at in zip(answered, wanted, places)]
    found = find_areas(
        [maps for maps, _ in drawn],
        [one.scored.cell for one in answered],
        threshold=regions.threshold,
        resolution=regions.resolution,
        areas=regions.areas,
        min_area=regions.min_area,
    )
    maps = []
    for one, own, areas, all_seen, (_, at) in zip(answered, wanted, found, seen, drawn):
        points = points_of(at, one.scored.geometry) + (one.scored.frame.left, one.scored.frame.top)
        maps.append(_Maps(dict(zip(own, areas)), dict(zip(all_seen, points.tolist()))))
    return maps


def _surface(scored: Scored, wanted: Sequence[int], places: np.ndarray) -> tuple[PictureMaps, np.ndarray]:
    """Returns the maps that regions are drawn from, and the highest places of all maps.

    ``places``, float64 [N, 2], are the highest ones on the cells, those of the ``wanted`` concepts first. Where maps were refined, these
    settle beside them.
    """
    maps, geometry = scored.surface(wanted)
    density = geometry.grid[1] / scored.geometry.grid[1], geometry.grid[0] / scored.geometry.grid[0]
    own = places[: len(wanted)]
    if scored.refined and wanted:
        own = settled_places(maps, own, density[::-1])
    kernel = "bilinear" if scored.refined else "cubic"
    drawn = PictureMaps(maps, geometry, scored.frame, scored.hidden, own * density, scored.scores[list(wanted)], kernel)
    return drawn, np.concatenate([own, places[len(wanted) :]])


def _bodies(answered: _Answered, maps: _Maps) -> list[Body]:
    """What is measured for each pack, told from the parts that have a region and that their certificates find."""
    scored = answered.scored
    bodies = []
    for pack, _, found in answered.packs:
        parts = {
            called.state.name: scored.scores[called.state.concept]
            for called in found
            # One of several parts is no part beside them: it would take their pixels from them.
            if called.character.call < 0
            and called.placed
            and called.state.concept not in scored.places
            and maps.area(called.entity)[0]
            and _is_there(scored.certificates.get(called.state.concept))
        }
        bodies.append(Body(pack.distances, parts, scored.geometry, scored.frame, scored.hidden, scored.cell))
    return bodies


def _is_there(certificate: Certificate | None) -> bool:
    """Whether a part may be measured: a map always has a highest place, and a line between such places says nothing."""
    if certificate is None:
        return True
    if certificate.presence is None:
        return not certificate.unfound
    return not is_absent(certificate) and certificate.presence >= LEAST_PRESENCE


def _rows_of(answered: _Answered, maps: _Maps, lengths: Sequence[Mapping[str, Distance]], plan: Plan) -> list[dict[str, Any]]:
    scored, head = answered.scored, _head(answered.scored, plan)
    rows: list[dict[str, Any]] = []
    for (pack, missing, found), measured in zip(answered.packs, lengths):
        rows += _pack_rows(pack, found, scored, plan, maps, answered.best, head, missing)
        rows += [_distance_row(pack, name, measured.get(name), head, missing) for name in pack.distances]
    return rows


def _head(scored: Scored, plan: Plan) -> dict[str, Any]:
    from concept_cam.collection.schema import PASSTHROUGH_PREFIX, image_key

    item, box = scored.item, scored.box
    head: dict[str, Any] = {
        "image_key": image_key(item.identity),
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


def _misses_host(pack: PackQuestions, scored: Scored, plan: Plan) -> bool:
    return host_is_missing(host_share(float(scored.probabilities[pack.host][0]), scored.certificates.get(pack.host)), plan.limits)


def _called(pack: PackQuestions, scored: Scored, plan: Plan, best: np.ndarray, missing: bool) -> list[_Called]:
    """Makes the calls of a pack, in the order of its rows; ``best`` is the score of each map's best patch, minus infinity where nothing was
    seen.
    """
    found: list[_Called] = []
    for character in pack.characters:
        if character.call < 0:
            for state in character.states:
                call = _call_of_part(pack, character, state, scored, plan, best, missing)
                found.append(_Called(character, state, call, state.concept, not call.abstained))
        else:
            call = _call_of_states(pack, character, scored, plan, missing)
            state = next(state for state in character.states if state.name == call.best_state)
            # What is absent has no place, and of a picture of something else nothing is measured.
            absent = call.reason == "absent" or (character.kind == "presence" and call.state == ABSENT)
            found.append(_Called(character, state, call, character.region, not missing and not absent))
    return found


def _call_of_states(pack: PackQuestions, character: AskedCharacter, scored: Scored, plan: Plan, missing: bool) -> Call:
    names = [state.name for state in character.states]
    return call_state(
        names,
        scored.probabilities[character.call][: len(names)].tolist(),
        [float(scored.image_scores[state.concept]) for state in character.states],
        plan.limits.of(pack.name, character.name),
        missing_host=missing,
        host_limit=plan.limits.host,
        absent=_is_nowhere(pack, character, scored, plan),
    )


def _is_nowhere(pack: PackQuestions, character: AskedCharacter, scored: Scored, plan: Plan) -> bool:
    """Whether what a character's states are told of is not in the picture: by its certificate, or by the call of what it needs."""
    if character.needs is not None and lacks(_call_of_states(pack, character.needs, scored, plan, False)):
        return True
    # Whether the host is there has a limit of its own.
    return character.region != pack.host and is_absent(scored.certificates.get(character.region))


def _call_of_part(
    pack: PackQuestions, character: AskedCharacter, state: AskedState, scored: Scored, plan: Plan, best: np.ndarray, missing: bool
) -> Call:
    concept = plan.questions.concepts[state.concept]
    names = (state.name, *concept.contrast_names)
    peak = float(best[state.concept])
    place = scored.places.get(state.concept)
    return call_part(
        state.name,
        names,
        scored.probabilities[state.concept][: len(names)].tolist() if concept.contrasts else [],
        float("nan") if math.isinf(peak) else peak,
        plan.limits.of(pack.name, character.name, state.name),
        least_probability=plan.limits.of_part_probability(pack.name, character.name, state.name),
        missing_host=missing,
        host_limit=plan.limits.host,
        placed=place is None or place.resolved,
        absent=is_absent(scored.certificates.get(state.concept)),
    )


def _pack_rows(
    pack: PackQuestions,
    found: Sequence[_Called],
    scored: Scored,
    plan: Plan,
    maps: _Maps,
    best: np.ndarray,
    head: dict[str, Any],
    missing: bool,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for called in found:
        row = _part_row(pack, called, maps, head) if called.character.call < 0 else _state_row(pack, called, head)
        row |= _certificate_columns(scored.certificates.get(called.state.concept))
        row |= _place_columns(scored.places.get(called.state.concept), missing, called.call.reason == "absent")
        row["state_set"] = _state_set(pack.name, called, plan)
        if called.placed:
            _place(row, maps, called, scored, plan, best)
        else:
            row["region_count"] = 0
        if plan.keep_scores:
            states = (called.state,) if called.character.call < 0 else called.character.states
            kept = [] if called.character.call < 0 else [("entity", called.entity)]
            kept += [(state.name, state.concept) for state in states]
            _keep(row, scored, [concept for _, concept in kept], [name for name, _ in kept])
        rows.append(row)
    return rows


@lru_cache(maxsize=64)
def _image_key(source: str) -> str:
    """A picture has many records, and its key is asked for with each."""
    from concept_cam.collection.schema import image_key

    return image_key(source)


def _key(head: dict[str, Any], pack: str, character: str, part: str = "") -> str:
    from concept_cam.collection.schema import record_key

    # A further occurrence of one picture has a key of its own, and so have its records.
    own = head["image_key"] == _image_key(head["source"])
    return record_key(head["source"] if own else head["image_key"], head["specimen"], pack, character, part)


def _state_row(pack: PackQuestions, called: _Called, head: dict[str, Any]) -> dict[str, Any]:
    character, state, call = called.character, called.state, called.call
    label, quality, match = state.quality if call.state is not None else (None, None, None)
    return head | {
        "record_key": _key(head, pack.name, character.name),
        "pack": pack.name,
        "character": character.name,
        "kind": character.kind,
        "entity": state.entity[0],
        "entity_id": state.entity[1],
        "quality": label,
        "quality_id": quality,
        "quality_match": match,
        **_call_columns(call),
    }


def _part_row(pack: PackQuestions, called: _Called, maps: _Maps, head: dict[str, Any]) -> dict[str, Any]:
    character, state = called.character, called.state
    columns = _call_columns(called.call)
    if called.placed and maps.area(called.entity)[0] is None:
        columns |= {"state": None, "abstained": True, "abstained_because": "no_region"}
    return head | {
        "record_key": _key(head, pack.name, character.name, state.name),
        "pack": pack.name,
        "character": character.name,
        "kind": character.kind,
        "entity": state.entity[0],
        "entity_id": state.entity[1],
        **columns,
    }


def _state_set(pack: str, called: _Called, plan: Plan) -> list[str] | None:
    """The states among which the right one is, where a guarantee was fitted for their character."""
    guarantee, name = plan.guarantee, f"{pack}:{called.character.name}"
    if guarantee is None or name not in guarantee.states or called.character.call < 0:
        return None
    return list(guarantee.state_set(name, dict(called.call.probabilities)))


def _certificate_columns(certificate: Certificate | None) -> dict[str, Any]:
    if certificate is None:
        return {}
    return {
        "verdict": certificate.verdict,
        "verdict_because": certificate.reason,
        "confidence": certificate.confidence,
        "presence": certificate.presence,
        "p_value": certificate.evidence.p_value,
        "dependence": certificate.dependence,
        "agreement": certificate.agreement,
        "text_share": certificate.text,
        "domain": certificate.domain,
        "ledger": dict(certificate.ledger) or None,
    }


def _place_columns(place: Place | None, missing: bool, absent: bool) -> dict[str, Any]:
    if place is None:
        return {}
    if missing:  # how a body lies that is not there says nothing
        return {"place": place.where, "place_of": None, "place_because": "what the pack is about is not in the picture."}
    if absent:
        return {"place": place.where, "place_of": None, "place_because": "the part is not in the picture."}
    return {"place": place.where, "place_of": place.left_of or None, "place_because": place.reason}


def _call_columns(call: Call) -> dict[str, Any]:
    return {
        "state": call.state,
        "best_state": call.best_state,
        "probability": call.probability,
        "probabilities": dict(call.probabilities),
        "likely_states": list(call.likely) or None,
        "likely_probability": call.likely_probability,
        "score": call.score,
        "margin": call.margin,
        "abstained": call.abstained,
        "abstained_because": call.reason,
        "limit": call.limit,
    }


def _place(row: dict[str, Any], maps: _Maps, called: _Called, scored: Scored, plan: Plan, best: np.ndarray) -> None:
    """Adds where it is: threshold, peaks, region and measures."""
    peak, proof = maps.peak(called.entity), maps.peak(called.state.concept)
    if peak is not None:
        row["peak_x"], row["peak_y"] = peak
        row["peak_score"] = float(best[called.entity])
    if proof is not None:
        row["evidence_x"], row["evidence_y"] = proof
    area, threshold = maps.area(called.entity)
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
