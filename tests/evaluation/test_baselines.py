import numpy as np
import pytest

from concept_cam.evaluation import metrics
from concept_cam.evaluation.baselines import BASELINES, center_map, luminance_map, random_map


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (224, 224), (97, 31)])
def test_baselines_have_the_pictures_size(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 40, dtype=np.uint8)
    host = np.ones(size, dtype=bool)
    for make in BASELINES.values():
        values = make(pixels, host, "key")
        assert values.shape == size
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_random_maps_are_smooth_repeatable_and_know_nothing() -> None:
    one = random_map((224, 224), 3)
    assert (one == random_map((224, 224), 3)).all()
    assert (one != random_map((224, 224), 4)).any()
    assert np.abs(np.diff(one, axis=1)).max() < one.std()
    mask = np.zeros((224, 224), dtype=bool)
    mask[50:90, 100:160] = True
    found = [metrics.auroc(random_map((224, 224), seed), mask) for seed in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_center_is_highest_in_the_middle_and_luminance_follows_the_light() -> None:
    values = center_map((5, 9))
    assert np.unravel_index(values.argmax(), values.shape) == (2, 4)
    assert (values == values[::-1, ::-1]).all()
    pixels = np.array([[[255, 255, 255], [0, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    assert luminance_map(pixels)[0] == pytest.approx([1.0, 0.0, 0.7152, 0.0722])


def test_the_subject_is_a_random_point_in_it() -> None:
    host = np.zeros((10, 10), dtype=bool)
    host[2:7, 2:8] = True
    part = np.zeros((10, 10), dtype=bool)
    part[2:4, 2:5] = True
    values = BASELINES["subject"](np.zeros((10, 10, 3), dtype=np.uint8), host, "")
    assert metrics.pointing_game(values, part) == pytest.approx(6 / 30)
    assert metrics.auroc(values, part, host) == 0.5
    assert np.isnan(BASELINES["subject"](np.zeros((10, 10, 3), dtype=np.uint8), None, "")).all()
