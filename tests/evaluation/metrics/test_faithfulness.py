import numpy as np
import pytest

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.evaluation import metrics

SHAPE = (8, 10)


def picture() -> np.ndarray:
    image = np.full((*SHAPE, 3), 100, dtype=np.uint8)
    image[2:4, 2:7, 0] = 250
    return image


def red(images: np.ndarray) -> np.ndarray:
    """Share of the ten red pixels that are still there."""
    return (images[..., 0] == 250).mean(axis=(1, 2)) * (SHAPE[0] * SHAPE[1] / 10)


def oracle() -> np.ndarray:
    heatmap = np.zeros(SHAPE)
    heatmap[2:4, 2:7] = 1.0
    return heatmap


def test_top_fraction_takes_exactly_as_many_in_reading_order() -> None:
    heatmap = np.array([[1.0, 5.0, 5.0], [np.nan, 5.0, 0.0]])
    assert metrics.top_fraction(heatmap, 2 / 6).tolist() == [[False, True, True], [False, False, False]]
    assert metrics.top_fraction(heatmap, 5 / 6).tolist() == [[True, True, True], [False, True, True]]
    assert metrics.top_fraction(heatmap, 0.0).sum() == 0
    assert metrics.top_fraction(heatmap, 1e-6).sum() == 1
    with pytest.raises(ConfigurationError, match=r"0\.\.1"):
        metrics.top_fraction(heatmap, 5)


@pytest.mark.parametrize("fill", sorted(metrics.FILLS))
def test_only_the_top_pixels_change(fill: str) -> None:
    image, chosen = picture(), metrics.top_fraction(oracle(), 10 / 80)
    masked = metrics.masked_top(image, oracle(), 10 / 80, fill)
    assert masked.dtype == np.uint8
    assert (masked[~chosen] == image[~chosen]).all()
    assert (masked[chosen] == metrics.fill_image(image, fill)[chosen]).all()
    assert (masked[chosen] != image[chosen]).any()


def test_wrong_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="uint8 picture"):
        metrics.fill_image(np.zeros((3, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="alike"):
        metrics.masked_top(picture(), np.zeros((3, 3)), 0.1)


def test_relative_confidence_drop_rewards_only_what_tells_the_classes_apart() -> None:
    image = picture()
    image[6, :, 1] = 250

    def probabilities(images: np.ndarray) -> np.ndarray:
        own = (images[..., 0] == 250).sum(axis=(1, 2)) / 10
        shared = (images[..., 1] == 250).sum(axis=(1, 2)) / 10
        return np.stack([(own + shared) / 2, shared / 2], axis=1)

    body = np.zeros(SHAPE)
    body[6] = 1.0
    assert metrics.relative_confidence_drop(image, oracle(), probabilities, 0, 1, 10 / 80) == pytest.approx(0.5)
    assert metrics.relative_confidence_drop(image, body, probabilities, 0, 1, 10 / 80) == pytest.approx(0.0)
    with pytest.raises(ConfigurationError, match="both column 0"):
        metrics.relative_confidence_drop(image, body, probabilities, 0, 0)


def test_deletion_and_insertion_of_the_oracle() -> None:
    image, heatmap = picture(), oracle()
    fractions, values = metrics.perturbation_curve(image, heatmap, red, "deletion", steps=8, fill="black", batch=3)
    assert fractions == pytest.approx(np.arange(9) / 8)
    assert values == pytest.approx([1] + [0] * 8)
    assert metrics.deletion_auc(image, heatmap, red, steps=8) == pytest.approx(1 / 16)
    assert metrics.insertion_auc(image, heatmap, red, steps=8, fill="black") == pytest.approx(1 - 1 / 16)
    assert metrics.deletion_auc(image, -heatmap, red, steps=8) == pytest.approx(1 - 1 / 16)
    with pytest.raises(ConfigurationError, match="at least one step"):
        metrics.perturbation_curve(image, heatmap, red, steps=0)
    with pytest.raises(ConfigurationError, match="perturbation"):
        metrics.perturbation_curve(image, heatmap, red, mode="shuffle")


def test_average_drop_and_increase() -> None:
    image = picture()
    shown = metrics.drop_and_increase(image, oracle(), red)
    hidden = metrics.drop_and_increase(image, 1 - oracle(), red)
    assert (shown.drop, shown.increase) == (0.0, 0.0)
    assert (hidden.drop, hidden.increase) == (1.0, 0.0)
    lifted = metrics.DropIncrease(full=0.5, shown=0.75)
    assert (lifted.drop, lifted.increase) == (0.0, 1.0)
    assert np.isnan(metrics.DropIncrease(0.0, 0.5).drop)
    assert metrics.average_drop([shown, hidden]) == pytest.approx(0.5)
    assert metrics.average_increase([shown, lifted]) == pytest.approx(0.5)
    assert np.isnan(metrics.average_drop([]))
    assert metrics.drop_and_increase(image, np.ones(SHAPE), red).shown == 0.0


def test_average_drop_equals_the_formula_of_torchcam() -> None:
    full, part = np.array([0.8, 0.5, 0.9]), np.array([0.6, 0.7, 0.0])
    pairs = [metrics.DropIncrease(f, p) for f, p in zip(full, part)]
    assert metrics.average_drop(pairs) == pytest.approx((np.maximum(full - part, 0) / full).mean())
    assert metrics.average_increase(pairs) == pytest.approx((full < part).mean())
