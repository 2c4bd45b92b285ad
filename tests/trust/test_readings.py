"""Other readings of a picture: where a point lies in them, and whether planted towers agree with themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from concept_cam import Concept, Localizer
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.features import PatchFeatures
from concept_cam.core.geometry import Geometry
from concept_cam.trust.readings import READINGS, Reading, agreement_of, readings_of
from tests.planted import PlantedBackbone

GEOMETRY = Geometry("pad", (48, 64), (48, 64), (6, 8), (1.0, 1.0))


def block(y: int, x: int, side: int = 8) -> np.ndarray:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[y : y + side, x : x + side, 0] = 255
    return picture


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_a_point_is_found_again(reading: Reading) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[20, 30] = 255
    x, y = reading.there(30.5, 20.5, GEOMETRY)
    rows, columns = np.nonzero(reading.pixels(picture, GEOMETRY)[..., 0])
    assert (float(columns[0]) + 0.5, float(rows[0]) + 0.5) == (x, y)
    assert reading.pixels(picture, GEOMETRY).shape == picture.shape


def test_edges_are_repeated_and_small_cells_still_shift() -> None:
    picture = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    moved = Reading(shift=0.5).pixels(picture, GEOMETRY)
    np.testing.assert_array_equal(moved[4:, 4:], picture[:-4, :-4])
    np.testing.assert_array_equal(moved[0, 4:], picture[0, :-4])
    tiny = Geometry("pad", (6, 8), (48, 64), (6, 8), (8.0, 8.0))
    assert Reading(shift=-0.1).there(3.0, 3.0, tiny) == (2.0, 2.0)


AS_IT_IS = Reading()


def maps(values: np.ndarray, reading: Reading = AS_IT_IS) -> tuple[Reading, PatchFeatures]:
    import torch

    features = PatchFeatures(torch.from_numpy(values[..., None]), torch.zeros(1), GEOMETRY, "m", "h", "vanilla")
    return reading, features


def first(features: PatchFeatures) -> np.ndarray:
    return np.asarray(features.patches[..., 0].numpy())


def test_agreement_is_the_mean_of_relative_heights() -> None:
    own = np.zeros((6, 8), np.float32)
    own[2, 3] = 1.0
    same, elsewhere, half = own.copy(), np.zeros_like(own), np.zeros_like(own)
    elsewhere[5, 7] = 1.0
    half[5, 7], half[2, 3] = 1.0, 0.5
    found = agreement_of(own, GEOMETRY, [maps(same), maps(elsewhere), maps(half)], first)
    assert found == pytest.approx((1.0 + 0.0 + 0.5) / 3)
    mirrored = maps(own[:, ::-1].copy(), Reading(mirrored=True))
    assert agreement_of(own, GEOMETRY, [mirrored], first) == pytest.approx(1.0)
    assert agreement_of(own, GEOMETRY, [maps(np.zeros_like(own))], first) == 0.0  # A flat map agrees with nothing.
    assert math.isnan(agreement_of(own, GEOMETRY, [], first))
    assert math.isnan(agreement_of(np.full_like(own, np.nan), GEOMETRY, [maps(same)], first))


class Corner(PlantedBackbone):
    """Sees red in the upper left corner, whatever is there: a tower that looks at places rather than at things."""

    def encode_patches(self, pixels, attention="auto", valid=None):  # type: ignore[no-untyped-def]
        found = super().encode_patches(pixels * 0.01, attention, valid)
        found.patches[:, 0, 0, 0] = 1.0
        return found


def test_a_tower_that_sees_agrees_with_itself() -> None:
    picture = np.pad(block(24, 40, 16), ((0, 16), (0, 0), (0, 0)))
    seen = Localizer(PlantedBackbone(size=64)).locate(picture, "red", ["green"], careful=True)
    assert (seen.certificate.agreement or 0) > 0.9
    stuck = Localizer(Corner(size=64)).locate(picture, "red", ["green"], careful=True)
    # The corner's mirror image is the other corner; shifted by half a cell it is still in the corner.
    assert (stuck.certificate.agreement or 0) < 0.5
    assert Localizer(PlantedBackbone(size=64)).locate(picture, "red", ["green"]).certificate.agreement is None


def test_readings_are_encoded_once_and_only_when_asked_for() -> None:
    class Counting(PlantedBackbone):
        passes = 0

        def encode_patches(self, pixels, attention="auto", valid=None):  # type: ignore[no-untyped-def]
            self.passes += len(pixels)
            return super().encode_patches(pixels, attention, valid)

    backbone = Counting(size=64)
    found = Localizer(backbone).locate_all([block(8, 8)], [Concept(("red",)), Concept(("blue",))], careful=True)[0]
    assert backbone.passes == 1
    assert [item.certificate.agreement is not None for item in found] == [True, True]
    assert backbone.passes == 1 + len(READINGS)


def test_methods_without_certificates_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no certificate"):
        Localizer(PlantedBackbone(size=64)).locate(block(8, 8), "red", method="center", careful=True)
    localizer = Localizer(PlantedBackbone(size=64))
    answers = localizer.score(localizer.encode(block(8, 8)), [Concept(("red",))])
    with pytest.raises(ConfigurationError, match="without their picture"):
        localizer.careful(answers)


def test_every_reading_is_of_the_same_size() -> None:
    seen = []

    def encode(pictures):  # type: ignore[no-untyped-def]
        seen.extend(picture.shape for picture in pictures)
        return [maps(np.zeros((6, 8), np.float32))[1] for _ in pictures]

    assert [way for way, _ in readings_of(block(8, 8), GEOMETRY, encode)] == list(READINGS.values())
    assert set(seen) == {(48, 64, 3)}
