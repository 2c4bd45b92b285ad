"""Coordinates, order and outlines of butterflies against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from concept_cam.demo.worlds.draws import OneDraw
from concept_cam.demo.worlds.lepidoptera.anatomy import body, wings
from concept_cam.demo.worlds.lepidoptera.coat import coat, polar, wing_colours
from concept_cam.demo.worlds.lepidoptera.painting import Camera, antenna_outline, front, painting_order
from concept_cam.demo.worlds.lepidoptera.traits import CHARACTERS

STATE = {name: states[-1] for name, states in CHARACTERS.items()} | {"resting_posture": "spread"}
ABOVE = Camera(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), 100.0, (200.0, 200.0))
"""From above, head up, the animal's left at the left of the picture."""


def turned_over(camera: Camera) -> Camera:
    return Camera(np.diag([-1.0, 1, -1]) @ camera.turn, camera.scale, camera.origin)


@pytest.mark.parametrize("index", range(8))
def test_wings_lie_as_they_should_from_above(index: int) -> None:
    found = wings(OneDraw(1, index), STATE)
    assert [(wing.name, wing.left) for wing in found] == [
        ("fore_wing", True),
        ("fore_wing", False),
        ("hind_wing", True),
        ("hind_wing", False),
    ]
    middles = [ABOVE.pixel(wing.place(wing.outline)).mean(axis=0) for wing in found]
    for wing, middle in zip(found, middles, strict=True):
        assert (middle[0] < 200) == wing.left
        assert float(wing.normal[2]) > 0
        assert np.linalg.norm(wing.axes, axis=1) == pytest.approx([1, 1])
        assert abs(float(wing.axes[0] @ wing.axes[1])) < 1e-9
    # Wings may be swept so far back that they change places; their roots, where the outlines begin, do not.
    roots = [ABOVE.pixel(wing.place(wing.outline))[0, 1] for wing in found]
    assert roots[0] < roots[2]
    assert roots[1] < roots[3]


@pytest.mark.parametrize("index", range(6))
def test_a_fore_wing_lies_over_the_hind_wing_from_above_and_under_it_from_below(index: int) -> None:
    found = wings(OneDraw(2, index), STATE)
    for camera, upper in ((ABOVE, "fore_wing"), (turned_over(ABOVE), "hind_wing")):
        order = painting_order(found, camera)
        for left in (True, False):
            assert [wing.name for wing in order if wing.left == left][-1] == upper


def test_closed_wings_are_before_the_body_on_the_near_side_only() -> None:
    closed = wings(OneDraw(3, 0), STATE | {"resting_posture": "closed"})
    beside = Camera(np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]) * [[-1], [1], [1]], 100.0, (200.0, 200.0))
    assert {wing.left for wing in closed if front(wing, beside, "closed")} == {True}
    assert [wing.left for wing in painting_order(closed, beside)] == [False, False, True, True]
    assert not any(front(wing, ABOVE, "spread") for wing in wings(OneDraw(3, 1), STATE))


def test_the_body_is_in_a_line() -> None:
    for index in range(8):
        one = body(OneDraw(4, index), STATE)
        x = [one.head[0][0], one.thorax[0][:, 0].mean(), one.abdomen[0][:, 0].mean()]
        assert x[0] > x[1] > x[2]
        assert one.eyes[0][0, 1] > 0 > one.eyes[0][1, 1]
        assert one.antennae[0, -1, 1] > one.antennae[1, -1, 1]
        assert (one.legs[:, 0, 2] < 0).all()


def test_polar_coordinates_reach_one_at_the_margin() -> None:
    for wing in wings(OneDraw(5, 0), STATE | {"wing_margin": "smooth"}):
        table, low, high = polar(wing.outline)
        angle = np.arctan2(wing.outline[:, 1], wing.outline[:, 0] + 0.04)
        reach = np.hypot(wing.outline[:, 0] + 0.04, wing.outline[:, 1])
        outer = reach > 0.85 * reach.max()
        place = np.clip((angle - low) / (high - low), 0, 1)
        rho = reach / table[np.rint(place * 255).astype(int)]
        assert np.abs(rho[outer] - 1).max() < 0.12


def test_colours_are_those_of_the_state() -> None:
    """In the middle of a plain wing without a border the hue is that of its name."""
    wing = wings(OneDraw(6, 0), STATE)[0]
    p, q = np.meshgrid(np.linspace(0.35, 0.6, 12, dtype=np.float32), np.linspace(-0.2, 0.0, 12, dtype=np.float32))
    plain = STATE | {"wing_pattern": "plain", "wing_border": "plain"}
    expected = {"red": 0, "blue": 2, "green": 1}
    for index in range(10):
        for name, channel in expected.items():
            state = plain | {"wing_colour": name}
            rgb, opaque = wing_colours(coat(OneDraw(7, index), state), state, p, q, wing.outline, 100.0, True, True)
            assert int(rgb.mean(axis=(0, 1)).argmax()) == channel, name
            assert (opaque == 1).all()
        light = {}
        for name in ("white", "grey", "black"):
            state = plain | {"wing_colour": name}
            light[name] = float(wing_colours(coat(OneDraw(7, index), state), state, p, q, wing.outline, 100.0, True, True)[0].mean())
        assert light["white"] > light["grey"] > light["black"]
        clear = STATE | {"wing_pattern": "transparent", "wing_border": "plain"}
        opaque = wing_colours(coat(OneDraw(7, index), clear), clear, p, q, wing.outline, 100.0, True, True)[1]
        assert opaque.min() < 0.35
        assert opaque.max() > 0.6


def test_forms_of_antennae() -> None:
    line = np.stack([np.linspace(0, 100, 24), np.full(24, 50.0)], axis=1)
    width = {shape: np.abs(antenna_outline(shape, line, 2.0, OneDraw(8, 0))[:, 1] - 50) for shape in CHARACTERS["antenna_shape"]}
    place = {shape: antenna_outline(shape, line, 2.0, OneDraw(8, 0))[:, 0] for shape in width}
    tip = {shape: width[shape][place[shape] > 88].max() for shape in width}
    middle = {shape: width[shape][(place[shape] > 40) & (place[shape] < 60)].max() for shape in width}
    assert tip["clubbed"] > 2.5 * middle["clubbed"]
    assert tip["threadlike"] < middle["threadlike"]
    assert middle["feathery"] > 3 * middle["threadlike"]
