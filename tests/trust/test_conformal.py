"""Guarantees on planted pictures: the realised risk over many splits is at or below alpha."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.trust.conformal import (
    MASK_LEVELS,
    Conformal,
    inner_limit,
    least_labels,
    outer_distance,
    outer_limit,
    relative,
    state_limit,
    wrong_shares,
)

SIDE = 24
YS, XS = np.mgrid[:SIDE, :SIDE]


def planted(count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Blurred, misplaced maps of discs."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        y, x, radius = rng.uniform(6, 18), rng.uniform(6, 18), rng.uniform(2, 5)
        truth = (YS - y) ** 2 + (XS - x) ** 2 <= radius**2
        dy, dx = rng.normal(0, 1.2, 2)
        map_ = np.exp(-((YS - y - dy) ** 2 + (XS - x - dx) ** 2) / (2 * radius**2)) + rng.normal(0, 0.03, (SIDE, SIDE))
        found.append((map_.astype(np.float32), truth))
    return found


def test_wrong_shares_are_what_a_count_says() -> None:
    map_, truth = planted(1)[0]
    heights = relative(map_)
    shares = wrong_shares(heights, truth)
    slow = []
    for level in MASK_LEVELS:
        mask = heights >= level
        slow.append(1 - truth[mask].mean() if mask.any() else 0.0)
    slow = [max(slow[i:]) for i in range(len(slow))]
    np.testing.assert_allclose(shares, slow, atol=1e-6)
    assert (np.diff(shares) <= 1e-12).all()


@pytest.mark.parametrize("alpha", [0.05, 0.10, 0.20])
def test_realised_risk_over_splits(alpha: float) -> None:
    pictures = planted(240)
    heights = [relative(map_) for map_, _ in pictures]
    shares = np.stack([wrong_shares(height, truth) for height, (_, truth) in zip(heights, pictures)])
    distances = np.array([outer_distance(height >= 0.5, truth) for height, (_, truth) in zip(heights, pictures)])
    rng = np.random.default_rng(1)
    probabilities = rng.beta(4, 1, len(pictures))
    wrong, uncovered, missed = [], [], []
    for _ in range(200):
        order = rng.permutation(len(pictures))
        fit, test = order[:60], order[60:]
        level = inner_limit(list(shares[fit]), alpha)
        wrong.append(
            np.mean(
                [
                    0.0 if math.isinf(level) else 1 - t[h >= level].mean() if (h >= level).any() else 0.0
                    for h, t in ((heights[i], pictures[i][1]) for i in test)
                ]
            )
        )
        uncovered.append(np.mean(distances[test] > outer_limit(distances[fit], alpha)))
        missed.append(np.mean(probabilities[test] < state_limit(probabilities[fit], alpha)))
    error = 3 * np.std(wrong) / math.sqrt(200)
    assert np.mean(wrong) <= alpha + error
    for risk in (uncovered, missed):
        assert np.mean(risk) <= alpha + 3 * np.std(risk) / math.sqrt(200)
        assert np.mean(risk) >= alpha / 3  # The guarantee is not bought with emptiness.


def test_too_few_labels_are_refused() -> None:
    assert [least_labels(alpha) for alpha in (0.05, 0.1, 0.2)] == [19, 9, 4]
    with pytest.raises(DataError, match=r"received 8 labelled pictures; .* needs at least 9"):
        state_limit([0.5] * 8, 0.1)
    assert state_limit([0.5] * 9, 0.1) == pytest.approx(0.5)
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        least_labels(1.5)


def test_masks_and_sets() -> None:
    map_, truth = planted(1, seed=5)[0]
    limits = Conformal(
        0.1, {"fin": 0.6, "nothing": math.inf}, {"fin": 0.1, "nothing": math.inf}, 0.5, {"shape": 0.2}, {"fin": 20}, {"size": 384}
    )
    inner, outer = limits.inner_mask("fin", map_), limits.outer_mask("fin", map_)
    assert inner.any()
    assert (outer | ~inner).all()
    assert outer.sum() > (relative(map_) >= 0.5).sum()
    assert not limits.inner_mask("nothing", map_).any()
    assert limits.outer_mask("nothing", map_).all()
    assert limits.state_set("shape", {"forked": 0.5, "round": 0.1, "square": 0.3}) == ("forked", "square")
    with pytest.raises(DataError, match=r"no inner mask for 'tail'.*Known: fin, nothing"):
        limits.inner_mask("tail", map_)
    limits.check({"size": 384, "views": "single"})
    with pytest.raises(ConfigurationError, match="fitted with size 384, the maps were made with 512"):
        limits.check({"size": 512})
    assert truth.any()


def test_limits_are_read_back(tmp_path: Path) -> None:
    limits = Conformal(0.1, {"fin": 0.6, "head": math.inf}, {"fin": 0.1}, 0.5, {"shape": 0.2}, {"fin": 20}, {"size": 384})
    path = tmp_path / "limits.json"
    path.write_text(limits.to_json(), encoding="utf-8")
    assert Conformal.read(path) == limits
    for wrong in ("", "[]", "{}", '{"version": 9}'):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(DataError, match=r"conformal limits|another version|not a JSON file"):
            Conformal.read(path)


def test_a_flat_map_has_no_heights() -> None:
    assert (relative(np.full((3, 3), 0.2, np.float32)) == 0).all()
    heights = relative(np.array([[np.nan, 0.0], [1.0, 0.0]], np.float32))
    assert np.isnan(heights[0, 0])
    assert heights[1, 0] == 1
