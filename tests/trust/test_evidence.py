"""Evidence on planted maps, restated slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from concept_cam.trust.evidence import Evidence, Probed, Ranked, evidence, neighbourhood, ranks

SIDE = 12
ROWS, COLUMNS = (part.ravel() for part in np.mgrid[:SIDE, :SIDE])


def bump(x: float, y: float, width: float = 1.5) -> np.ndarray:
    return np.exp(-((COLUMNS - x) ** 2 + (ROWS - y) ** 2) / (2 * width**2)).astype(np.float64)


def read(
    plain: np.ndarray,
    weights: np.ndarray | None = None,
    host: np.ndarray | None = None,
    neutral: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Evidence:
    plain = np.atleast_2d(plain)
    weights = np.array([1.0] + [-1.0 / max(1, len(plain) - 1)] * (len(plain) - 1)) if weights is None else weights
    noise = np.random.default_rng(0)
    neutral = noise.normal(0, 0.1, (40, SIDE * SIDE)) if neutral is None else neutral
    labels = np.full((1, SIDE * SIDE), -1.0) if labels is None else np.atleast_2d(labels)
    host = noise.normal(0, 1, SIDE * SIDE) if host is None else host
    ranked = ranks(plain)
    return evidence(
        weights @ plain,
        plain,
        weights,
        Probed(neutral, labels),
        Ranked(ranked[0], ranked[1:], ranks(host[None])[0], ranks(neutral)),
        (COLUMNS, ROWS),
        0.5,
    )


def test_ranks_give_spearmans_correlation() -> None:
    maps = np.random.default_rng(1).normal(size=(3, 50)).round(1)  # Ties too.
    found = ranks(maps) @ ranks(maps).T
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(stats.spearmanr(maps[i], maps[j]).statistic, abs=1e-5)
    assert not ranks(np.ones((1, 50))).any()


def test_a_map_of_its_own_depends_on_its_prompt() -> None:
    found = read(bump(3, 4))
    assert found.p_value == pytest.approx(1 / 41)
    assert abs(found.dependence_host) < 0.3
    assert math.isnan(found.dependence_siblings)
    assert found.peak > 4
    assert found.strength > 0.5
    assert found.text == 0
    slow = (bump(3, 4).max() - bump(3, 4).mean()) / bump(3, 4).std()
    assert found.peak == pytest.approx(slow)


def test_the_p_value_is_a_count() -> None:
    neutral = np.random.default_rng(2).normal(0, 0.1, (40, SIDE * SIDE))
    neutral[:7] = bump(3, 4) * 2 + 5  # Other heights and offsets, the same map.
    found = read(bump(3, 4), neutral=neutral)
    assert found.p_value == pytest.approx(8 / 41)
    assert found.p_anywhere >= 8 / 41


def test_a_map_that_is_the_subjects() -> None:
    found = read(
        np.stack([bump(5, 5), bump(5, 5) * 0.5 + 1]), host=bump(5, 5) * 3, neutral=np.stack([bump(5, 5) * k for k in range(1, 41)])
    )
    assert found.dependence_host == pytest.approx(1.0, abs=1e-6)
    assert found.dependence_siblings == pytest.approx(1.0, abs=1e-6)
    assert found.dependence_neutral == pytest.approx(1.0, abs=1e-6)
    assert found.p_value == 1.0


def test_a_constant_map_points_nowhere() -> None:
    found = read(np.full(SIDE * SIDE, 0.3))
    assert (found.p_value, found.p_anywhere, found.peak) == (1.0, 1.0, 0.0)
    assert math.isnan(found.dependence_host)


def test_a_contrast_that_equals_the_target_leaves_nothing() -> None:
    found = read(np.stack([bump(3, 4), bump(3, 4) + 1e-12]))
    assert found.p_value == 1.0


def test_words_at_the_peak() -> None:
    assert read(bump(3, 4), labels=bump(3, 4) * 2).text == 1.0
    assert read(bump(3, 4), labels=bump(9, 9) * 2).text == 0.0


def test_neighbourhood_is_near_and_high() -> None:
    scores = bump(3, 4)
    around = neighbourhood(scores, COLUMNS, ROWS, int(scores.argmax()))
    assert around[4 * SIDE + 3]
    assert around.sum() == sum(
        (COLUMNS[i] - 3) ** 2 + (ROWS[i] - 4) ** 2 <= 2.25 and scores[i] >= scores.mean() + (scores.max() - scores.mean()) / 2
        for i in range(len(scores))
    )


def test_to_dict_has_no_nan() -> None:
    assert read(bump(3, 4)).to_dict()["dependence_siblings"] is None
