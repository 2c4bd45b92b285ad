"""The end of the front part read off maps of planted bodies, along any axis, and the uncertainty that follows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from concept_cam.core.borders import border_readings
from concept_cam.core.frame import BodyFrame, body_frame, measure_body

SIZE = (200, 260)
NECK, LENGTH, HALF = 48.0, 160.0, 20.0

Maps = dict[str, np.ndarray]


def axes(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Places along and across a straight body about the middle of the picture."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
    dx, dy = x - 0.5 * SIZE[1], y - 0.5 * SIZE[0]
    return dx * np.cos(angle) + dy * np.sin(angle) + 0.5 * LENGTH, dy * np.cos(angle) - dx * np.sin(angle)


def maps(angle: float, neck: float = NECK, *, blur: float = 6.0, cover_end: float | None = None) -> Maps:
    """Head and trunk are equally likely at `neck`; the cover falls to half of its peak at `cover_end`."""
    along, across = axes(angle)
    inside = 1 / (1 + np.exp((np.abs(across) - HALF) / 2))
    head = inside / (1 + np.exp((along - neck) / blur))
    trunk = inside / (1 + np.exp((neck - along) / blur))
    end = neck if cover_end is None else cover_end
    # A plate twenty pixels long that falls in a straight line, to a half at its end.
    cover = inside * np.clip(0.5 + (end - along) / 20, 0, 1) * (along > end - 30)
    return {"head": head, "trunk": trunk, "operculum": cover}


def regions(angle: float) -> Maps:
    along, across = axes(angle)
    body = (np.abs(across) <= HALF) & (along >= 0)
    tail = (np.abs(across) <= 12) & (along >= LENGTH) & (along < LENGTH + 25)
    return {"head": body & (along < NECK), "trunk": body & (along >= NECK) & (along < LENGTH), "caudal_fin": tail}


def framed(angle: float) -> BodyFrame:
    masks = regions(angle)
    frame = body_frame(masks["head"], masks["trunk"], masks["caudal_fin"])
    assert frame is not None
    return frame


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.4, math.pi, 4.2])
def test_every_reading_finds_the_planted_border(angle: float) -> None:
    frame = framed(angle)
    readings = border_readings(frame, maps(angle))
    assert len(readings) == 3
    assert np.subtract(readings, frame.front) == pytest.approx([NECK] * 3, abs=1.6)


def test_readings_are_finer_than_a_pixel() -> None:
    frame = framed(0.0)
    one, other = (border_readings(frame, maps(0.0, neck)) for neck in (NECK, NECK + 0.4))
    assert np.subtract(other, one) == pytest.approx([0.4] * 3, abs=0.05)


def test_each_reading_reads_what_it_says() -> None:
    frame = framed(0.0)
    base = np.array(border_readings(frame, maps(0.0)))
    # A cover that ends elsewhere moves the reading of the cover alone.
    moved = border_readings(frame, maps(0.0, cover_end=NECK + 9)) - base
    assert moved == pytest.approx([0, 0, 9], abs=0.3)
    # A trunk that is twice as sure of itself moves the reading of the scores as they are, and not that of the shares: with logistic flanks
    # the two scores meet where e^(d / blur) = 1 / 2.
    loud = maps(0.0, blur=6.0)
    moved = border_readings(frame, loud | {"trunk": 2 * loud["trunk"]}) - base
    assert moved == pytest.approx([0, -6 * math.log(2), 0], abs=0.3)
    # Other parts are not looked at.
    assert border_readings(frame, maps(0.0) | {"eye": np.ones(SIZE)}) == tuple(base)


def test_what_cannot_be_read_is_left_out() -> None:
    frame, given = framed(0.0), maps(0.0)
    assert border_readings(frame, {}) == ()
    assert len(border_readings(frame, {"head": given["head"], "trunk": given["trunk"]})) == 2
    assert len(border_readings(frame, {"head": given["head"], "operculum": given["operculum"]})) == 1
    silent = given | {"operculum": np.full(SIZE, -0.1), "trunk": np.full(SIZE, np.nan)}
    assert border_readings(frame, silent) == ()
    # A cover that never ends has no hind edge.
    assert len(border_readings(frame, given | {"operculum": np.ones(SIZE)})) == 2
    # A head without a trunk that is anywhere likelier ends where one stops to look.
    endless = border_readings(frame, {"head": np.ones(SIZE), "trunk": np.where(axes(0.0)[0] > LENGTH, 1.0, 1e-6)})
    assert len(endless) == 2
    assert min(endless) > frame.front + 0.6 * LENGTH
    holed = {name: np.where(axes(0.0)[1] > 5, np.nan, heat) for name, heat in given.items()}
    assert np.subtract(border_readings(frame, holed), frame.front) == pytest.approx([NECK] * 3, abs=2.5)


def test_a_head_is_as_uncertain_as_its_readings_lie_apart() -> None:
    masks = regions(0.0)
    cell = (8.0, 8.0)
    plain = measure_body(masks, cell)
    agreed = measure_body(masks, cell, heats=maps(0.0))
    apart = measure_body(masks, cell, heats=maps(0.0, cover_end=NECK + 20))
    for name, length in plain.items():
        assert agreed[name].value == apart[name].value == length.value
        if name != "head_length":
            assert agreed[name].error == apart[name].error == length.error
    patches = math.hypot(8, 8)
    assert plain["head_length"].error == pytest.approx(patches, abs=0.1)
    assert agreed["head_length"].error == pytest.approx(patches, abs=0.3)
    assert apart["head_length"].error == pytest.approx(math.hypot(patches, 20), abs=0.8)
