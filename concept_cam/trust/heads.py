"""Certificates for classifier heads: no host noun and no neutral words, so sibling classes and random directions take their place.

The map of a class is compared with the maps of other classes of the same head and of random directions of the same length, drawn from a
fixed seed. They are made as the class's own map was, by the same method, which for gradient methods costs a backward pass each; so a
certificate is made only when it is asked for.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from concept_cam.core.quiet import quiet
from concept_cam.methods.head_probe import HeadProbe
from concept_cam.trust.certified import Certificate, certificate_of
from concept_cam.trust.evidence import RANKED_CELLS, Cells, Probed, Ranked, evidence, ranks
from concept_cam.trust.logistic import MapFacts
from concept_cam.trust.rules import Rules, judge

__all__ = ["DIRECTIONS", "certify"]

DIRECTIONS = 19
"""Directions that a class is compared with: other classes of the head, at most half of them, and random ones."""

_SEED = 0


@quiet(graph=False)
def certify(probe: HeadProbe) -> Certificate:
    """Issues the certificate of a class's map.

    ``dependence_host`` is the correlation with what all classes share, the map of their mean row; the references are the siblings.

    Args:
        probe: The map, and the means to make others of the same picture.
    """
    own = probe.rows[probe.target]
    others = _directions(probe)
    mean = probe.rows.mean(dim=0)
    members = [own, *(probe.rows[index] for index in probe.references)]
    replaced_by = [] if probe.linear else [probe.direction - own + other for other in others]
    asked = torch.stack([*members, mean, *others, *replaced_by])
    maps = probe.maps(asked)[:, probe.valid]
    scores, plain, contrasts = probe.scores[probe.valid], maps[0], maps[1 : len(members)]
    host, rest = maps[len(members)], maps[len(members) + 1 :]
    neutral, replaced = rest[: len(others)], None if probe.linear else rest[len(others) :]
    ranked = ranks(np.concatenate([plain[None], contrasts, host[None], neutral])[:, :: max(1, maps.shape[1] // RANKED_CELLS)])
    rows, columns = np.nonzero(probe.valid)
    found = evidence(
        scores,
        plain,
        Probed(neutral, np.zeros((0, maps.shape[1]), np.float32), replaced),
        Ranked(ranked[0], ranked[1 : len(members)], ranked[len(members)], ranked[len(members) + 1 :]),
        host,
        Cells(columns, rows, float(np.hypot(*probe.valid.shape))),
        scale=float("nan"),
        separability=min((float((own - other).norm()) for other in members[1:]), default=float("nan")),
    )
    facts = MapFacts(probability=probe.probability)
    at_peak = maps[: len(members), int(scores.argmax())]
    ledger = tuple((name, float(term * value)) for (name, term), value in zip(probe.terms.items(), at_peak)) if probe.linear else ()
    told = judge(found, facts, Rules(), others="other classes and random directions", host="all classes")
    return certificate_of(found, facts, told, False, ledger)


def _directions(probe: HeadProbe) -> list[Tensor]:
    """Sibling classes, then random directions of the target's length."""
    generator = torch.Generator().manual_seed(_SEED)
    members = {probe.target, *probe.references}
    siblings = [index for index in torch.randperm(len(probe.rows), generator=generator).tolist() if index not in members]
    chosen = [probe.rows[index] for index in siblings[: DIRECTIONS // 2]]
    length = probe.rows[probe.target].norm()
    while len(chosen) < DIRECTIONS:
        random = torch.randn(probe.rows.shape[1], generator=generator).to(probe.rows)
        chosen.append(random * (length / random.norm()))
    return chosen
