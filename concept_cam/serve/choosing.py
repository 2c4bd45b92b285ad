"""Which picture next, and how many are still needed: what teaches most, and what a calibration asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from scipy import stats

from concept_cam.collection.corrections import Correction
from concept_cam.serve.questions import AskedQuestion

if TYPE_CHECKING:
    from concept_cam.serve.desk import Desk

__all__ = ["needed", "next_pictures", "progress", "score_pictures"]

LEAST = 15
"""Labelled calls from which a character gets a limit of its own; as in ``concept-cam calibrate``."""


def score_pictures(
    uncertainty: Mapping[str, float], embeddings: Mapping[str, torch.Tensor], done: Sequence[str], wanted: int = 1, diversity: float = 0.5
) -> list[str]:
    """Orders pictures by what they teach: least sure first, mixed with diversity.

    Greedy: each choice maximises ``u (1 - d) + d n``, where ``u`` is the uncertainty and ``n`` the distance (1 - cosine, over the largest
    one there is) to the nearest picture that was looked at or chosen already.

    Args:
        uncertainty: 0..1 by id; the candidates.
        embeddings: float32 [D] by id; a picture without one counts as half-way novel.
        done: Ids of the pictures that were looked at.
        wanted: How many to choose.
        diversity: ``d`` in 0..1.

    Returns:
        Ids, the best first.
    """
    looked_at = set(done)
    candidates = [id_ for id_ in uncertainty if id_ not in looked_at]
    known = [id_ for id_ in candidates if id_ in embeddings]
    seen = [id_ for id_ in done if id_ in embeddings]
    novelty = dict.fromkeys(candidates, 0.5)
    units = F.normalize(torch.stack([embeddings[id_].float() for id_ in known]), dim=-1) if known else torch.zeros(0, 1)
    nearest = torch.full((len(known),), float("inf"))
    if seen and known:
        others = F.normalize(torch.stack([embeddings[id_].float() for id_ in seen]), dim=-1)
        nearest = (1 - units @ others.T).amin(dim=1)
    chosen: list[str] = []
    while candidates and len(chosen) < wanted:
        if known and bool(torch.isfinite(nearest).any()):
            largest = float(nearest[torch.isfinite(nearest)].max().clamp(min=1e-6))
            novelty.update(zip(known, (nearest / largest).clamp(0, 1).tolist()))
        best = max(candidates, key=lambda id_: (1 - diversity) * uncertainty[id_] + diversity * novelty[id_])
        chosen.append(best)
        candidates.remove(best)
        if best in known:
            nearest = torch.minimum(nearest, 1 - units @ units[known.index(best)])
    return chosen


def next_pictures(desk: Desk, question: AskedQuestion, wanted: int = 1) -> list[dict[str, Any]]:
    """Chooses the next pictures for a question, with how unsure the model is of each; pictures that were never encoded come last."""
    pack, character, part = question.subject
    done = []
    for item in desk.corrections.standing():
        entry = desk.gallery.by_specimen(item.source, item.specimen)
        if entry is not None and (item.pack, item.character, item.part) == (pack, character, part) and item.verdict:
            done.append(entry.id)
    uncertainty = desk.uncertainty(question)
    chosen = score_pictures(uncertainty, desk.image_embeddings(), done, wanted)
    if len(chosen) < wanted:
        skip = {*chosen, *done}
        chosen += [entry.id for entry in desk.gallery.entries if entry.id not in skip and entry.id not in uncertainty][
            : wanted - len(chosen)
        ]
    entries = [desk.gallery.get(id_) for id_ in chosen]
    return [{"id": item.id, "source": item.source, "title": item.title, "uncertainty": uncertainty.get(item.id)} for item in entries]


def needed(right: int, labelled: int, target: float = 0.9, confidence: float = 0.8, most: int = 1000) -> int:
    """Returns how many more calls must be found right before any limit can promise ``target``, were all of them right.

    A limit may leave out the wrong calls where these are less sure; so the count of right calls alone decides the least: by the one-sided
    Clopper-Pearson bound, ``n`` right of ``n`` reach ``target`` where ``(1 - confidence)^(1/n) >= target``.

    Args:
        right: Calls found right so far.
        labelled: Calls looked at so far.
        target: Share that is to be right.
        confidence: Of the bound.
        most: Upper end of the search.
    """
    for more in range(most):
        count = right + more
        if count and stats.beta.ppf(1 - confidence, count, 1) >= target:
            return max(more, LEAST - labelled, 0)
    return most


def progress(standing: Sequence[Correction], question: AskedQuestion, target: float = 0.9, confidence: float = 0.8) -> dict[str, Any]:
    """Returns how far the labels of a question's character are: counts, and how many are still needed."""
    pack, character, part = question.subject
    own = [item for item in standing if (item.pack, item.character, item.part) == (pack, character, part) and item.verdict]
    # Of what was not called for lack of a host or of the part no limit decides, nor of a call that the row does not say.
    judged = [item for item in own if item.verdict != "cannot_tell"]
    told = [item for item in judged if item.call and not item.before_limits]
    right = sum(1 for item in told if item.true_state and item.true_state == item.call)
    return {
        "reviewed": len(own),
        "labelled": len(told),
        "right": right,
        "cannot_tell": sum(item.verdict == "cannot_tell" for item in own),
        "before_limits": sum(item.before_limits for item in judged),
        "without_call": sum(not item.call and not item.before_limits for item in judged),
        "needed": needed(right, len(told), target, confidence),
        "target": target,
        "confidence": confidence,
    }
