import numpy as np
import pytest

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.evaluation import metrics


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    g = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = metrics.mean_interval(g.standard_normal(40) + 3, draws=300, seed=seed)
        covered += found.low <= 3 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_mean_interval_equals_the_plain_bootstrap() -> None:
    values = np.random.default_rng(1).exponential(size=60)
    fast = metrics.mean_interval(values, draws=4000)
    slow = metrics.bootstrap(lambda rows: float(values[rows].mean()), 60, draws=4000)
    assert fast.value == pytest.approx(slow.value) == pytest.approx(values.mean())
    assert fast.low == pytest.approx(slow.low, abs=0.02)
    assert fast.high == pytest.approx(slow.high, abs=0.02)


def test_repeats_of_a_picture_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(2).standard_normal(30)
    once = metrics.mean_interval(values)
    repeated = metrics.mean_interval(np.repeat(values, 10), np.repeat(np.arange(30), 10))
    naive = metrics.mean_interval(np.repeat(values, 10))
    assert repeated.count == 30
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.1)
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_nan_values_are_left_out() -> None:
    found = metrics.mean_interval([1.0, np.nan, 3.0], ["a", "b", "c"])
    assert (found.value, found.count) == (2.0, 2)
    empty = metrics.mean_interval([np.nan])
    assert np.isnan(empty.value)
    assert empty.count == 0
    assert empty.to_dict() == {"value": None, "low": None, "high": None, "count": 0}
    one = metrics.mean_interval([2.0])
    assert (one.value, one.count) == (2.0, 1)
    assert np.isnan(one.low)


def test_paired_difference_is_narrower_than_the_two() -> None:
    g = np.random.default_rng(3)
    hard = g.standard_normal(50) * 3
    first, second = hard + 0.5 + 0.1 * g.standard_normal(50), hard
    found = metrics.paired_difference(first, second)
    assert found.low > 0.4
    assert found.high < 0.6
    with pytest.raises(DataError, match="as many"):
        metrics.paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="2 values and 1 units"):
        metrics.mean_interval([1.0, 2.0], ["a"])


def test_same_seed_same_interval_and_wrong_options() -> None:
    values = np.arange(20.0)
    assert metrics.mean_interval(values, seed=4) == metrics.mean_interval(values, seed=4)
    with pytest.raises(ConfigurationError, match="level"):
        metrics.mean_interval(values, level=95)
    with pytest.raises(ConfigurationError, match="draws"):
        metrics.bootstrap(lambda rows: 0.0, 5, draws=0)
    constant = metrics.bootstrap(lambda rows: float("nan"), 5, draws=3)
    assert np.isnan(constant.low)
