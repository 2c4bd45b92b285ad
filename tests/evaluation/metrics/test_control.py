import numpy as np
import pytest
from scipy import stats

from concept_cam.core.errors import DataError
from concept_cam.evaluation import metrics


@pytest.mark.parametrize("seed", range(5))
def test_correlations_equal_scipy_with_ties_and_nan(seed: int) -> None:
    g = np.random.default_rng(seed)
    a, b = np.round(g.standard_normal((7, 9)), 1), np.round(g.standard_normal((7, 9)), 1)
    a[0, :3] = np.nan
    b[5, 5] = np.nan
    both = ~np.isnan(a) & ~np.isnan(b)
    assert metrics.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a[both], b[both])[0])
    assert metrics.linear_correlation(a, b) == pytest.approx(stats.pearsonr(a[both], b[both])[0])


def test_correlations_of_degenerate_maps() -> None:
    a = np.arange(6.0).reshape(2, 3)
    assert np.isnan(metrics.rank_correlation(a, np.ones((2, 3))))
    assert np.isnan(metrics.linear_correlation(np.ones((1, 1)), np.ones((1, 1))))
    assert metrics.rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    with pytest.raises(DataError, match="cannot be compared"):
        metrics.linear_correlation(a, a.T)


def test_prompt_dependence_sees_the_subject_detector() -> None:
    g = np.random.default_rng(0)
    subject = g.standard_normal((20, 20))
    own = g.standard_normal((20, 20))
    blind = metrics.prompt_dependence(subject, {"host": 2 * subject + 1, "sibling": own})
    assert blind.dependence == pytest.approx(0.0, abs=1e-12)
    assert blind.linear["host"] == pytest.approx(1.0)
    aware = metrics.prompt_dependence(own, {"host": subject})
    assert aware.dependence > 0.8
    assert np.isnan(metrics.prompt_dependence(own, {"host": np.ones((20, 20))}).dependence)


def test_randomisation_similarity_is_absolute() -> None:
    g = np.random.default_rng(1)
    a = g.standard_normal((10, 10))
    assert metrics.randomisation_similarity(a, -a) == pytest.approx(1.0)
    assert metrics.randomisation_similarity(a, g.standard_normal((10, 10))) < 0.4
