"""Evidence on planted maps, restated slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from concept_cam.trust.evidence import (
    Cells,
    Correlations,
    Evidence,
    Probed,
    Ranked,
    _average_ranks,
    correlated,
    evidence,
    evidence_of_all,
    mass_around,
    ranks,
)

SIDE = 12
ROWS, COLUMNS = (part.ravel() for part in np.mgrid[:SIDE, :SIDE])
CELLS = Cells(COLUMNS, ROWS, math.hypot(SIDE, SIDE))


def bump(x: float, y: float, width: float = 1.5) -> np.ndarray:
    return np.exp(-((COLUMNS - x) ** 2 + (ROWS - y) ** 2) / (2 * width**2)).astype(np.float64)


def read(
    plain: np.ndarray,
    weights: np.ndarray | None = None,
    host: np.ndarray | None = None,
    neutral: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    replaced: np.ndarray | None = None,
    scale: float = 20.0,
    alike: float = 0.0,
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
        plain[0],
        Probed(neutral, labels, replaced),
        Ranked(ranked[0], ranked[1:], ranks(host[None])[0], ranks(neutral)),
        host,
        CELLS,
        scale=scale,
        separability=0.5,
        image=0.25,
        alike=alike,
    )


def in_steps(row: np.ndarray) -> list[int]:
    """Each value in hundredths of the range from the median, as whole numbers."""
    step, middle = (row.max() - row.min()) / 100, np.median(row)
    return [round(float((value - middle) / step)) if step else 0 for value in row]


def test_ranks_give_spearmans_correlation() -> None:
    maps = np.random.default_rng(1).normal(size=(3, 50)).round(1)  # Ties too.
    found = ranks(maps) @ ranks(maps).T
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(stats.spearmanr(in_steps(maps[i]), in_steps(maps[j])).statistic, abs=1e-5)
    assert not ranks(np.ones((1, 50))).any()


def test_rounding_of_a_flat_ground_does_not_decide_what_maps_have_in_common() -> None:
    generator = np.random.default_rng(3)
    truth = np.zeros((2, 400))
    truth[0, :60], truth[1, 40:120] = generator.random(60) + 0.2, generator.random(80) + 0.2
    first, second = (ranks(truth + 1e-3 * generator.normal(size=truth.shape)) for _ in range(2))
    assert abs(first[0] @ first[1] - second[0] @ second[1]) < 0.02
    # Ranks of the same without steps are those of the rounding.
    raw = [stats.spearmanr(*(truth + 1e-3 * generator.normal(size=truth.shape))).statistic for _ in range(8)]
    assert max(raw) - min(raw) > 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("highest", [np.inf, np.finfo(np.float32).max])
def test_ranks_of_maps_whose_range_is_no_number_are_those_of_their_order(highest: float) -> None:
    maps = np.linspace(-1.0, 1.0, 40, dtype=np.float32)[None]
    maps[0, [0, -1]] = -highest, highest
    np.testing.assert_allclose(ranks(maps)[0], ranks(np.arange(40, dtype=np.float32)[None])[0], rtol=1e-6)


def test_equal_values_share_their_ranks_as_in_scipy() -> None:
    generator = np.random.default_rng(9)
    for kinds in range(1, 30):
        maps = generator.integers(0, kinds, (7, 31)).astype(np.float32)
        maps[0] += generator.random(31).astype(np.float32)  # hardly any
        maps[1, kinds % 31] = np.nan
        np.testing.assert_array_equal(_average_ranks(maps), stats.rankdata(maps, axis=-1).astype(np.float32))


def test_a_map_of_its_own_depends_on_its_prompt() -> None:
    found = read(bump(3, 4))
    assert found.p_value == pytest.approx(1 / 41)
    assert abs(found.dependence_host) < 0.3
    assert math.isnan(found.dependence_siblings)
    assert found.peak > 4
    assert found.strength > 0.5
    assert found.text == 0
    assert (found.separability, found.image) == (0.5, 0.25)
    slow = (bump(3, 4).max() - bump(3, 4).mean()) / bump(3, 4).std()
    assert found.peak == pytest.approx(slow)


def test_the_p_value_is_a_count() -> None:
    neutral = np.random.default_rng(2).normal(0, 0.1, (40, SIDE * SIDE))
    neutral[:7] = bump(3, 4) * 2 + 5  # Other heights and offsets, the same map.
    found = read(bump(3, 4), neutral=neutral)
    assert found.p_value == pytest.approx(8 / 41)
    assert found.p_anywhere >= 8 / 41
    assert found.p_plain == pytest.approx(8 / 41)


def test_words_that_answer_faintly_do_not_rise_as_the_target_does() -> None:
    # In its own deviations a faint small spot rises higher than a part that fills a third of the picture.
    wide = (np.arange(SIDE * SIDE) < SIDE * SIDE // 3).astype(float) + 0.01 * bump(3, 4)
    peak = int(wide.argmax())
    neutral = np.random.default_rng(2).normal(0, 0.001, (40, SIDE * SIDE))
    neutral[:9, peak] = 0.4
    assert read(wide, neutral=neutral).p_plain == pytest.approx(1 / 41)
    neutral[:9, peak] = 0.6
    assert read(wide, neutral=neutral).p_plain == pytest.approx(10 / 41)
    # Nor does a word rise that dips where the contrasts put the peak, however loud it is all over.
    dips = np.stack([1.0 - 0.2 * bump(6, 6), 1.0 - bump(6, 6)])
    assert read(dips, neutral=np.random.default_rng(3).normal(0.1, 0.01, (40, SIDE * SIDE))).p_plain > 0.9
    # Where the target itself is spoken against, every word counts that is less so.
    assert read(wide - 2.0, neutral=neutral).p_plain >= 10 / 41


def test_what_lies_between_the_contrasts_is_told_by_its_own_word() -> None:
    # The contrasts are high everywhere but at the target's place, so that any word against them rises there.
    hole = 1.0 - bump(6, 6)
    faint = np.random.default_rng(4).normal(0, 0.02, (40, SIDE * SIDE))
    own = read(np.stack([0.02 * bump(6, 6), hole]), neutral=faint)
    assert own.p_value > 0.2
    assert own.p_plain == pytest.approx(1 / 41)
    other = read(np.stack([np.random.default_rng(5).normal(0, 0.01, SIDE * SIDE), hole]), neutral=faint)
    assert min(other.p_value, other.p_plain) > 0.05


def test_maps_that_are_not_linear_come_with_their_replacements() -> None:
    linear = read(np.stack([bump(3, 4), bump(9, 9)]))
    neutral = np.random.default_rng(0).normal(0, 0.1, (40, SIDE * SIDE))
    given = read(np.stack([bump(3, 4), bump(9, 9)]), neutral=neutral, replaced=neutral - bump(9, 9))
    assert given.p_value == linear.p_value
    assert given.p_anywhere == linear.p_anywhere
    squared = read(np.stack([bump(3, 4), bump(9, 9)]), neutral=neutral, replaced=np.stack([bump(3, 4)] * 40))
    assert squared.p_value == 1.0


def test_the_mass_around_a_peak_is_a_sum_of_softmax() -> None:
    scores, scale = bump(3, 4), 7.0
    peak = int(scores.argmax())
    slow = total = 0.0
    for i in range(len(scores)):
        share = math.exp(scale * scores[i])
        total += share
        if math.hypot(COLUMNS[i] - 3, ROWS[i] - 4) <= max(1.5, math.hypot(SIDE, SIDE) / 12):
            slow += share
    assert mass_around(scores, CELLS, peak, scale) == pytest.approx(slow / total)
    assert mass_around(scores, CELLS, peak, 1000.0) == pytest.approx(1.0)
    assert read(bump(3, 4), scale=0.0).mass < 0.1  # To a model of no temperature nothing stands out.


def test_how_high_the_host_rises_at_the_peak() -> None:
    assert read(bump(3, 4), host=bump(3, 4)).on_host == pytest.approx(1 - 1 / SIDE**2)
    assert read(bump(3, 4), host=-bump(3, 4)).on_host == 0.0


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
    assert (found.p_value, found.p_plain, found.p_anywhere, found.peak, found.mass, found.variation) == (
        *(1.0, 1.0, 1.0),
        *(0.0, 0.0, 0.0),
    )
    assert math.isnan(found.dependence_host)


def test_a_contrast_that_equals_the_target_leaves_nothing() -> None:
    found = read(np.stack([bump(3, 4), bump(3, 4) + 1e-12]))
    assert found.p_value == 1.0


def test_words_at_the_peak() -> None:
    assert read(bump(3, 4), host=bump(9, 9), labels=bump(3, 4) * 2).text == 1.0
    assert read(bump(3, 4), host=bump(9, 9), labels=bump(9, 9) * 2).text == 0.0
    assert read(bump(3, 4), host=bump(3, 4) * 3, labels=bump(3, 4) * 2).text == 0.0  # The host is there rather than words.
    assert math.isnan(read(bump(3, 4), labels=np.zeros((0, SIDE * SIDE))).text)


def test_a_label_that_bears_the_targets_name_speaks_of_the_host_as_well() -> None:
    said, words, host = (bump(3, 4) * height for height in (1.0, 0.6, 0.8))
    assert read(said, host=host, labels=words).text == 0.0
    # Of the host's answer 0.7 * 1.0 is the target's, 0.1 is left: less than that of the words.
    assert read(said, host=host, labels=words, alike=0.7).text == 1.0
    assert read(said, host=host, labels=words, alike=0.1).text == 0.0
    assert read(said, host=bump(3, 4) * 1.6, labels=words, alike=0.7).text == 0.0  # The host is there beyond what is said of it.


def test_a_map_varies_in_logits() -> None:
    scores = bump(3, 4)
    middle = sum(scores) / len(scores)
    slow = 20.0 * math.sqrt(sum((value - middle) ** 2 for value in scores) / len(scores))
    assert read(scores).variation == pytest.approx(slow)
    assert read(scores, scale=10.0).variation == pytest.approx(slow / 2)
    assert math.isnan(read(scores, scale=math.nan).variation)


def test_the_surroundings_of_a_peak_are_near_and_high() -> None:
    scores, lettered = bump(3, 4), np.where(COLUMNS == 3, 2.0, -1.0)
    found = read(scores, host=np.full(SIDE * SIDE, 0.5), labels=lettered)
    half = (scores.mean() + scores.max()) / 2
    around = [i for i in range(len(scores)) if (COLUMNS[i] - 3) ** 2 + (ROWS[i] - 4) ** 2 <= 2.25 and scores[i] >= half]
    assert 1 < len(around) <= 9
    assert found.text == pytest.approx(sum(COLUMNS[i] == 3 for i in around) / len(around))


def test_many_maps_are_read_as_each_alone() -> None:
    noise = np.random.default_rng(3)
    plain = np.stack([bump(3, 4), bump(8, 8, 2.5), np.full(SIDE * SIDE, 0.2), noise.normal(size=SIDE * SIDE)])
    scores = plain - 0.5 * bump(6, 6)[None] * np.array([[1.0], [1.0], [0.0], [0.0]])
    neutral, hosts = noise.normal(0, 0.1, (40, SIDE * SIDE)), noise.normal(0, 0.3, (4, SIDE * SIDE))
    labels = noise.normal(0, 0.5, (3, SIDE * SIDE))
    ranked, ranked_hosts, ranked_neutral = ranks(plain), ranks(hosts), ranks(neutral)
    told = Correlations(
        np.array([correlated(ranked_hosts[i : i + 1], ranked[i])[0] for i in range(4)]),
        np.full(4, np.nan),
        np.array([np.median(correlated(ranked_neutral, ranked[i])) for i in range(4)]),
    )
    probed = Probed(neutral, labels)
    words = np.broadcast_to(labels.max(axis=0), plain.shape)
    numbers = np.arange(4.0), np.arange(4.0) / 2, np.arange(4.0) / 4
    many = evidence_of_all(scores, plain, probed, told, hosts, words, CELLS, *numbers, scale=20.0)
    for i, found in enumerate(many):
        own = Ranked(ranked[i], ranked[:0], ranked_hosts[i], ranked_neutral)
        alone = evidence(scores[i], plain[i], probed, own, hosts[i], CELLS, scale=20.0, separability=float(i), image=i / 2, alike=i / 4)
        slow, fast = alone.to_dict(), found.to_dict()
        assert {name for name in slow if slow[name] is None} == {name for name in fast if fast[name] is None}
        assert {k: v for k, v in fast.items() if v is not None} == pytest.approx({k: v for k, v in slow.items() if v is not None})
    assert many[2].p_value == 1.0
    # Exactly the same, to the last bit, whichever are wanted: what a record says does not depend on what else is asked.
    few = evidence_of_all(scores, plain, probed, told, hosts, words, CELLS, *numbers, scale=20.0, which=[3, 1])
    assert [repr(found) for found in few] == [repr(many[3]), repr(many[1])]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_ranks_of_equal_and_of_unknown_values(kind: type) -> None:
    noise = np.random.default_rng(5)
    maps = noise.normal(size=(6, 50)).astype(kind)
    maps[1], maps[2, 10:20], maps[3] = 0.5, maps[2, 0], np.round(maps[3])
    maps[4, 7] = np.nan
    for row, found in zip(maps, ranks(maps)):
        slow = stats.rankdata(row if np.isnan(row).any() else in_steps(row)).astype(np.float32)
        slow -= slow.mean()
        length = np.linalg.norm(slow)
        np.testing.assert_array_equal(found, slow / length if length > 0 else np.zeros_like(slow))


def test_heights_of_replaced_maps_are_those_of_the_sums() -> None:
    noise = np.random.default_rng(7)
    neutral, plain, contrast = noise.normal(0, 0.1, (40, SIDE * SIDE)), bump(3, 4), bump(9, 9)
    scores = plain - contrast
    peak, height = int(scores.argmax()), (scores.max() - scores.mean()) / scores.std()
    count = there = 0
    for word in neutral:
        map_ = word - contrast
        count += (map_[peak] - map_.mean()) / map_.std() >= height
        there += (map_.max() - map_.mean()) / map_.std() >= height
    found = read(np.stack([plain, contrast]), neutral=neutral)
    assert found.p_value == pytest.approx((1 + count) / 41)
    assert found.p_anywhere == pytest.approx((1 + there) / 41)


def test_to_dict_has_no_nan() -> None:
    assert read(bump(3, 4)).to_dict()["dependence_siblings"] is None
