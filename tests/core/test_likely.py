from __future__ import annotations

import itertools

import numpy as np
import pytest

from concept_cam.core.likely import TOGETHER, likely_states


@pytest.mark.parametrize("seed", range(20))
def test_likely_states_are_the_smallest_set_that_is_probable_enough(seed: int) -> None:
    """Restated: of all sets with the least size that reach the probability, the most probable; unless that is all there is."""
    shares = np.random.default_rng(seed).dirichlet([0.5] * 5)
    named = dict(zip("abcde", shares.tolist()))
    sets = (each for size in range(1, 6) for each in itertools.combinations(named, size))
    enough = [each for each in sets if sum(named[name] for name in each) >= TOGETHER]
    best = max((each for each in enough if len(each) == len(enough[0])), key=lambda each: sum(named[name] for name in each))
    assert set(likely_states(named)) == (set() if len(best) == len(named) else set(best))
    assert list(likely_states(named)) == sorted(likely_states(named), key=named.__getitem__, reverse=True)
