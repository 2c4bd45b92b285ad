"""What is called about a picture: what the run says where there is one, else what annotate would say, by the same limits.

A character of a pack is called only where the picture shows what the pack is about: nobody wants to read the tail fin of a cat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.collection.calls import Call, Limits, call_part, call_state, host_is_missing, host_share
from concept_cam.serve.questions import AskedQuestion

if TYPE_CHECKING:
    from concept_cam.core.concept import Concept
    from concept_cam.core.features import PatchFeatures
    from concept_cam.core.results import Localization
    from concept_cam.localizer import Localizer

__all__ = ["call_now", "call_of_run", "host_probability"]


def host_probability(localizer: Localizer, features: PatchFeatures, host: Concept) -> float:
    """Returns the probability 0..1 that a picture shows a pack's host, as `annotate` tells it.

    Args:
        localizer: The model, without refined outlines or a second look: neither says whether the host is there.
        features: The picture's features.
        host: The host's concept, see :func:`concept_cam.collection.questions.host_concept`.
    """
    (found,) = localizer.score(features, [host])
    return host_share(found.probabilities[0], None if found.certify is None else found.certificate)


def call_of_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the call of a run's record as plain data."""
    probabilities = record["probabilities"] or {}
    return {
        "from": "run",
        "state": record["best_state"],
        "probability": record["probability"],
        "score": record["score"],
        "margin": record["margin"],
        "abstained": record["abstained"],
        "abstained_because": record["abstained_because"],
        "limit": record["limit"],
        "host_probability": None,
        "states": list(probabilities) or [record["best_state"]],
        "probabilities": probabilities,
        "likely": list(record["likely_states"] or ()),
        "likely_probability": record["likely_probability"],
    }


def call_now(
    question: AskedQuestion,
    found: Localization,
    cosines: np.ndarray,
    logit_scale: float,
    limits: Limits,
    host: float | None,
    absent: bool = False,
) -> dict[str, Any]:
    """Calls what was asked just now, as plain data.

    Words have no limits: a question in words always has an answer, unless the place that it names cannot be told.

    Args:
        question: What was asked, with the state that was chosen.
        found: The localisation.
        cosines: float32 [1 + R, h, w]: similarity of each patch with the target and each contrast.
        logit_scale: The model's temperature.
        limits: Below which evidence a pack's character is not called.
        host: Probability of the pack's host; ``None`` for words.
        absent: Whether the part, or the part that the states are told of, is not in the picture.
    """
    pack, character, part = question.subject
    missing = host is not None and host_is_missing(host, limits)
    if question.kind == "part":
        names = [part, *found.concept.contrast_names]
        shares = _at_best_cell(found, cosines, logit_scale)
        call = call_part(
            part,
            names,
            shares if len(shares) > 1 else [],
            float(np.nanmax(found.scores)) if np.isfinite(found.scores).any() else float("nan"),
            limits.of(pack, character, part),
            least_probability=limits.of_part_probability(pack, character, part),
            missing_host=missing,
            host_limit=limits.host,
            placed=found.placed,
            absent=absent,
        )
        return _plain(call, [part], host)
    own = found.concept.target[0] if found.concept.where is None else found.concept.name
    names = [str(found.concept.metadata.get("state") or own), *found.concept.rival_names]
    if not found.placed:
        nothing = Call(None, names[0], None, {}, _number(found.score), None, "no_place", None)
        return _plain(nothing, [], host)
    if not found.probabilities:
        if missing:
            return _plain(Call(None, names[0], None, {}, _number(found.score), None, "no_host", limits.host), names, host)
        return _plain(Call(names[0], names[0], None, {}, _number(found.score), None, None, None), names, host)
    limit = limits.of(pack, character) if question.character else 0.0
    scores = [found.score] * len(names)
    call = call_state(names, found.probabilities, scores, limit, missing_host=missing, host_limit=limits.host, absent=absent)
    return _plain(call, names, host)


def _plain(call: Call, states: list[str], host: float | None) -> dict[str, Any]:
    return {
        "from": "model",
        "state": call.best_state,
        "probability": call.probability,
        "score": call.score,
        "margin": call.margin,
        "abstained": call.abstained,
        "abstained_because": call.reason,
        "limit": call.limit,
        "host_probability": host,
        "states": states,
        "probabilities": dict(call.probabilities),
        "likely": list(call.likely),
        "likely_probability": call.likely_probability,
    }


def _at_best_cell(found: Localization, cosines: np.ndarray, logit_scale: float) -> list[float]:
    """Softmax over target and contrasts at the cell of the highest score."""
    if not np.isfinite(found.scores).any():
        return []
    cell = np.unravel_index(int(np.nanargmax(found.scores)), found.scores.shape)
    logits = logit_scale * cosines[:, cell[0], cell[1]].astype(np.float64)
    shares = np.exp(logits - logits.max())
    return [float(value) for value in shares / shares.sum()]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
