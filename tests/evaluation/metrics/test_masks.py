import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.evaluation import metrics


def test_three_valued_mask_splits() -> None:
    mask = np.array([[255, 128, 0]], dtype=np.uint8)
    target, counted = metrics.split_mask(mask)
    assert target.tolist() == [[True, False, False]]
    assert counted.tolist() == [[True, False, True]]


@pytest.mark.parametrize("mask", [np.array([[0, 1]], dtype=np.uint8), np.array([[0, 254, 255]], dtype=np.uint8)])
def test_other_values_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected bool, or 255"):
        metrics.split_mask(mask)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[H, W\]"):
        metrics.split_mask(np.zeros((2, 2, 3), dtype=bool))
    with pytest.raises(DataError, match="both must be"):
        metrics.labelled_scores(np.zeros((2, 3)), np.zeros((3, 2), dtype=bool))
    with pytest.raises(DataError, match="must agree"):
        metrics.labelled_scores(np.zeros((2, 3)), np.zeros((2, 3), dtype=bool), np.zeros((3, 3), dtype=bool))


def test_ignored_outside_and_nan_pixels_are_in_neither_group() -> None:
    heatmap = np.array([[1.0, 2.0, np.nan, 4.0, 5.0]])
    mask = np.array([[255, 128, 255, 0, 0]], dtype=np.uint8)
    host = np.array([[True, True, True, True, False]])
    positive, negative = metrics.labelled_scores(heatmap, mask, host)
    assert positive.tolist() == [1.0]
    assert negative.tolist() == [4.0]


def test_integer_maps_keep_their_distinct_values() -> None:
    heatmap = np.array([[2**24, 2**24 + 1]])
    positive, negative = metrics.labelled_scores(heatmap, np.array([[False, True]]))
    assert positive[0] > negative[0]


def test_half_precision_and_one_pixel() -> None:
    assert metrics.average_precision(np.ones((1, 1), dtype=np.float16), np.ones((1, 1), dtype=bool)) == 1.0
    assert np.isnan(metrics.average_precision(np.ones((1, 1)), np.zeros((1, 1), dtype=bool)))


def test_prevalence_and_coverage() -> None:
    mask = np.array([[255, 255, 128, 0]], dtype=np.uint8)
    assert metrics.prevalence(mask) == pytest.approx(2 / 3)
    assert metrics.prevalence(mask, np.array([[True, False, True, True]])) == 0.5
    assert np.isnan(metrics.prevalence(np.zeros((2, 2), dtype=bool)))
    assert metrics.coverage(np.array([[1.0, np.nan, 1.0, np.nan]]), mask) == 0.5
    assert np.isnan(metrics.coverage(np.ones((2, 2)), np.zeros((2, 2), dtype=bool)))
