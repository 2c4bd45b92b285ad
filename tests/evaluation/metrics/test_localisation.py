import time

import numpy as np
import pytest
from scipy import ndimage

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.evaluation import metrics


def slow_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    total, before, area = labels.sum(), 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        hits = (chosen & labels).sum()
        area += (hits / total - before) * (hits / chosen.sum())
        before = hits / total
    return area


def slow_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    wins = [float(p > n) + 0.5 * float(p == n) for p in scores[labels] for n in scores[~labels]]
    return sum(wins) / len(wins)


def cases(ties: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for seed in range(12):
        g = np.random.default_rng(seed)
        shape = (int(g.integers(2, 12)), int(g.integers(2, 9)))
        heatmap = g.standard_normal(shape).astype(np.float32)
        if ties:
            heatmap = np.round(heatmap * 2) / 2
        mask = g.random(shape) < g.uniform(0.1, 0.9)
        mask.flat[0], mask.flat[1] = True, False
        found.append((heatmap, mask))
    return found


@pytest.mark.parametrize("ties", [False, True])
def test_rankings_equal_their_definitions(ties: bool) -> None:
    for heatmap, mask in cases(ties):
        assert metrics.average_precision(heatmap, mask) == pytest.approx(slow_average_precision(heatmap.ravel(), mask.ravel()), abs=1e-12)
        assert metrics.auroc(heatmap, mask) == pytest.approx(slow_auroc(heatmap.ravel(), mask.ravel()), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_rankings_equal_scikit_learn(ties: bool) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is only in the development environment")
    for heatmap, mask in cases(ties):
        truth, scores = mask.ravel(), heatmap.ravel()
        assert metrics.average_precision(heatmap, mask) == pytest.approx(sklearn.average_precision_score(truth, scores), abs=1e-12)
        assert metrics.auroc(heatmap, mask) == pytest.approx(sklearn.roc_auc_score(truth, scores), abs=1e-12)


def test_rankings_ignore_what_must_be_ignored() -> None:
    g = np.random.default_rng(3)
    heatmap, mask = g.standard_normal((6, 7)), g.random((6, 7)) < 0.4
    host = g.random((6, 7)) < 0.7
    three = np.where(mask, 255, 0).astype(np.uint8)
    three[2] = 128
    broken = heatmap.copy()
    broken[4] = np.nan
    keep = host.copy()
    keep[[2, 4]] = False
    expected = slow_average_precision(heatmap[keep], mask[keep])
    assert metrics.average_precision(broken, three, host) == pytest.approx(expected, abs=1e-12)
    assert metrics.auroc(broken, three, host) == pytest.approx(slow_auroc(heatmap[keep], mask[keep]), abs=1e-12)


def test_rankings_of_degenerate_maps() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    heatmap = np.arange(16.0).reshape(4, 4)
    assert np.isnan(metrics.average_precision(heatmap, mask))
    assert np.isnan(metrics.auroc(heatmap, mask))
    mask[0] = True
    assert metrics.average_precision(np.zeros((4, 4)), mask) == pytest.approx(metrics.prevalence(mask))
    assert metrics.auroc(np.zeros((4, 4)), mask) == 0.5
    assert metrics.auroc(-heatmap, mask) == 1.0
    assert np.isnan(metrics.auroc(heatmap, ~np.zeros((4, 4), dtype=bool)))
    assert np.isnan(metrics.average_precision(np.full((4, 4), np.nan), mask))


def test_rankings_do_not_depend_on_a_monotone_change() -> None:
    for heatmap, mask in cases(True):
        assert metrics.average_precision(heatmap, mask) == metrics.average_precision(np.exp(heatmap.astype(np.float64)), mask)


@pytest.mark.parametrize("invert", [False, True])
def test_average_precision_is_fast(invert: bool) -> None:
    heatmap = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    mask = np.zeros((512, 512), dtype=bool)
    mask[100:250, 200:400] = True
    mask = mask != invert
    times = []
    for _ in range(5):
        start = time.process_time()
        metrics.average_precision(heatmap, mask)
        times.append(time.process_time() - start)
    # 4 to 12 ms on an idle core; the bound leaves room for a busy one and none for a slower algorithm.
    assert min(times) < 0.1


# -------------------------------------------------------------------------------------------------------------- energy


def test_energy_by_hand_and_by_treatment_of_negatives() -> None:
    heatmap = np.array([[3.0, 1.0], [-1.0, -3.0]])
    mask = np.array([[True, False], [True, False]])
    assert metrics.energy_pointing_game(heatmap, mask) == pytest.approx(3 / 4)
    assert metrics.energy_pointing_game(heatmap, mask, negatives="shift") == pytest.approx((6 + 2) / 12)
    with pytest.raises(ConfigurationError, match="negative scores"):
        metrics.energy_pointing_game(heatmap, mask, negatives="abs")


def test_energy_without_target_or_energy_is_nan() -> None:
    assert np.isnan(metrics.energy_pointing_game(np.ones((2, 2)), np.zeros((2, 2), dtype=bool)))
    assert np.isnan(metrics.energy_pointing_game(-np.ones((2, 2)), np.ones((2, 2), dtype=bool)))
    assert np.isnan(metrics.energy_pointing_game(np.full((2, 2), np.nan), np.ones((2, 2), dtype=bool)))


# ------------------------------------------------------------------------------------------------------- pointing game


@pytest.mark.parametrize(("tolerance", "hit"), [(0, 0.0), (2.9, 0.0), (3.0, 1.0), (15, 1.0)])
def test_pointing_game_tolerance_is_a_distance(tolerance: float, hit: float) -> None:
    heatmap, mask = np.zeros((9, 12)), np.zeros((9, 12), dtype=bool)
    heatmap[4, 8] = 1.0
    mask[:, :6] = True
    assert metrics.pointing_game(heatmap, mask, tolerance) == hit


@pytest.mark.parametrize("tolerance", [0.0, 1.0])
def test_pointing_game_shares_ties(tolerance: float) -> None:
    heatmap, mask = np.zeros((4, 5)), np.zeros((4, 5), dtype=bool)
    mask[0, 0] = True
    reached = 1 if tolerance == 0 else 3
    assert metrics.pointing_game(heatmap, mask, tolerance) == pytest.approx(reached / 20)


@pytest.mark.parametrize("tolerance", [0.0, 2.0])
def test_pointing_game_ignores_and_never_hits_nothing(tolerance: float) -> None:
    heatmap = np.arange(12.0).reshape(3, 4)
    assert np.isnan(metrics.pointing_game(heatmap, np.zeros((3, 4), dtype=bool), tolerance))
    assert np.isnan(metrics.pointing_game(np.full((3, 4), np.nan), np.ones((3, 4), dtype=bool), tolerance))
    mask = np.zeros((3, 4), dtype=np.uint8)
    mask[0, 0], mask[1:] = 255, 128
    mask[0, 3] = 0
    assert metrics.pointing_game(heatmap, mask, tolerance) == 0.0
    mask[0, 3] = 128
    assert metrics.pointing_game(heatmap, mask, tolerance) == (0.0 if tolerance == 0 else 1.0)
    host = np.zeros((3, 4), dtype=bool)
    host[0, 0] = True
    assert metrics.pointing_game(heatmap, mask, tolerance, within=host) == 1.0


def test_pointing_game_where_the_target_is_unseen_is_a_miss() -> None:
    heatmap = np.array([[np.nan, 1.0]])
    assert metrics.pointing_game(heatmap, np.array([[True, False]])) == 0.0


# ---------------------------------------------------------------------------------------------------------------- IoU


def test_iou_equals_its_definition_and_best_is_best() -> None:
    for heatmap, mask in cases(True):
        cuts = np.unique(heatmap)
        slow = [(mask & (heatmap >= t)).sum() / (mask | (heatmap >= t)).sum() for t in cuts]
        assert metrics.iou_curve(heatmap, mask, cuts) == pytest.approx(slow)
        value, threshold = metrics.best_iou(heatmap, mask)
        assert value == pytest.approx(max(slow))
        assert metrics.iou(heatmap, mask, threshold) == pytest.approx(value)


def test_iou_of_nothing() -> None:
    empty = np.zeros((2, 2), dtype=bool)
    assert np.isnan(metrics.iou(np.ones((2, 2)), empty, 0.0))
    assert np.isnan(metrics.best_iou(np.ones((2, 2)), empty)).all()
    assert metrics.iou(np.zeros((2, 2)), ~empty, 1.0) == 0.0


# --------------------------------------------------------------------------------------------------------------- boxes


def test_box_curve_of_a_planted_box() -> None:
    heatmap = np.zeros((20, 30))
    heatmap[5:10, 10:20] = 1.0
    heatmap[0:2, 0:2] = 0.6
    curve = metrics.box_iou_curve(heatmap, [(10, 5, 20, 10)], [0.5, 0.9])
    assert curve == pytest.approx([1.0, 1.0])
    assert metrics.box_iou_curve(heatmap, [(0, 0, 2, 2)], [0.5, 0.9]) == pytest.approx([0.0, 0.0])
    assert metrics.box_iou_curve(heatmap, [(0, 0, 2, 2)], [0.5, 0.9], components="all") == pytest.approx([1.0, 0.0])
    assert metrics.box_iou_curve(heatmap, [(10, 5, 15, 10)], [0.5]) == pytest.approx([0.5])
    assert np.isnan(metrics.box_iou_curve(heatmap, [], [0.5])).all()
    assert metrics.box_iou_curve(np.zeros((4, 4)), [(0, 0, 4, 4)], [0.0, 0.5]).tolist() == [0.0, 0.0]


def test_box_components_touch_at_corners_and_forget_nan() -> None:
    heatmap = np.full((4, 4), np.nan)
    heatmap[0, 0] = heatmap[1, 1] = 1.0
    heatmap[3, 3] = 0.0
    assert metrics.box_iou_curve(heatmap, [(0, 0, 2, 2)], [0.5]).tolist() == [1.0]


def test_max_box_acc_takes_one_threshold_for_all() -> None:
    curves = np.array([[0.6, 0.2], [0.2, 0.6], [0.6, 0.2], [np.nan, np.nan]])
    assert metrics.max_box_acc(curves) == pytest.approx(2 / 3)
    assert metrics.max_box_acc(curves, 0.7) == 0.0
    assert metrics.max_box_acc_v2(curves) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert np.isnan(metrics.max_box_acc(np.full((2, 3), np.nan)))


# ------------------------------------------------------------------------------------------------------- pooled pixels


def test_pixel_counts_count() -> None:
    heatmap = np.array([[-5.0, 0.0, 0.5, 1.0, 9.0]])
    counts = metrics.pixel_counts(heatmap, np.array([[True, False, True, True, False]]), [0.0, 1.0])
    assert counts.tolist() == [[1, 1, 1], [0, 1, 1]]
    with pytest.raises(ConfigurationError, match="ascend"):
        metrics.pixel_counts(heatmap, np.zeros((1, 5), dtype=bool), [1.0, 0.0])


def test_pxap_equals_the_pooled_average_precision() -> None:
    pairs = cases(True)
    scores = np.concatenate([np.round(metrics.minmax(h), 3).ravel() for h, _ in pairs])
    labels = np.concatenate([m.ravel() for _, m in pairs])
    binned = np.minimum(np.floor(scores * 1000 + 1e-9), 999)
    assert metrics.pxap([(np.round(metrics.minmax(h), 3), m) for h, m in pairs]) == pytest.approx(
        slow_average_precision(binned, labels), abs=2e-3
    )
    assert np.isnan(metrics.pxap([(np.ones((2, 2)), np.zeros((2, 2), dtype=bool))]))


def test_average_precision_from_counts_equals_that_of_the_pixels() -> None:
    for heatmap, mask in cases(True):
        counts = metrics.pixel_counts(heatmap, mask, np.unique(heatmap))
        assert metrics.average_precision_from_counts(counts) == pytest.approx(metrics.average_precision(heatmap, mask))


# -------------------------------------------------------------------------------------------------------------- points


def test_points_by_hand() -> None:
    heatmap = np.zeros((3, 5))
    heatmap[1, 4] = heatmap[0, 0] = 2.0
    heatmap[2, 2] = np.nan
    points = [(4.9, 1.2), (0.0, 0.0), (3.0, 2.0), (2.5, 2.5), (1.0, 1.0)]
    assert metrics.point_counts(heatmap, points, [1, 0, 1, 1, -1], threshold=1.0) == (1, 1, 1)
    with pytest.raises(DataError, match="outside"):
        metrics.point_counts(heatmap, [(5.0, 0.0)], [1], 1.0)
    with pytest.raises(DataError, match="2 points and 1 labels"):
        metrics.point_counts(heatmap, [(0, 0), (1, 1)], [1], 1.0)


def test_point_miou_is_a_mean_over_concepts() -> None:
    assert metrics.point_miou([(1, 1, 0), (3, 0, 1), (0, 7, 0)]) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert np.isnan(metrics.point_miou([(0, 4, 0)]))


def test_a_sharper_map_of_a_planted_part_wins_everywhere() -> None:
    mask = np.zeros((64, 96), dtype=bool)
    mask[20:40, 60:80] = True
    host = np.zeros_like(mask)
    host[10:50, 10:90] = True
    good = ndimage.gaussian_filter(mask.astype(np.float64), 4)
    poor = ndimage.gaussian_filter(host.astype(np.float64), 4)
    for measure in (metrics.average_precision, metrics.auroc, metrics.energy_pointing_game):
        assert measure(good, mask) > measure(poor, mask)
    assert metrics.average_precision(good, mask, host) > 0.9
    assert metrics.best_iou(good, mask)[0] > 0.7
