"""Narrowing a question down: the fewest answers that together are probable enough."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TOGETHER", "likely_states"]

TOGETHER = 0.9
"""Probability that the likely states of a character have together."""


def likely_states(probabilities: Mapping[str, float]) -> tuple[str, ...]:
    """Narrows a character down to the fewest states that together have a probability of :data:`TOGETHER`, the most probable first.

    Two tails that differ in the depth of a notch are hard to tell apart in a small picture; that a tail is notched is not. The
    set is as right as the probabilities are; :meth:`concept_cam.trust.conformal.Conformal.state_set` promises one from labelled pictures.

    Args:
        probabilities: State -> probability; they sum to 1.

    Returns:
        One state where it is probable enough by itself; none where nothing is ruled out, for all states are needed.
    """
    ordered = sorted(probabilities, key=probabilities.__getitem__, reverse=True)
    total = 0.0
    for number, name in enumerate(ordered, 1):
        total += probabilities[name]
        if total >= TOGETHER:
            return tuple(ordered[:number]) if number < len(ordered) else ()
    return ()
