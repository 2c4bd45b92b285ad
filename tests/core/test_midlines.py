"""Midlines and coordinates along and across them, against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest

from concept_cam.core.midlines import BodyPixels, _sections, along_and_across, midlines, on_line


def test_coordinates_are_those_of_the_nearer_segment_beside_the_nearest_node() -> None:
    noise = np.random.default_rng(2)
    turn = np.linspace(0.2, 2.4, 48)
    nodes = np.stack([100 * np.cos(turn), 60 * np.sin(turn)], axis=1)
    points = nodes[noise.integers(0, 48, 300)] + noise.normal(0, 4, (300, 2))
    along, across = along_and_across(nodes, points)
    ways = np.diff(nodes, axis=0)
    lengths = np.linalg.norm(ways, axis=1)
    for point, own_along, own_across in zip(points, along, across):
        found = []
        nearest = int(np.linalg.norm(nodes - point, axis=1).argmin())
        for number in {max(nearest - 1, 0), min(nearest, len(ways) - 1)}:
            start, length = nodes[number], lengths[number]
            unit = ways[number] / length
            t = float((point - start) @ unit)
            n = float((point - start)[1] * unit[0] - (point - start)[0] * unit[1])
            low, high = -np.inf if number == 0 else 0.0, np.inf if number == len(ways) - 1 else length
            found.append((max(low - t, t - high, 0.0) ** 2 + n**2, lengths[:number].sum() + t, n))
        # Off a bend both segments are equally far: the node between them is the nearest place of either.
        least = min(found)[0] + 1e-9
        assert any(
            distance <= least and own_along == pytest.approx(t, abs=1e-9) and own_across == pytest.approx(n, abs=1e-9)
            for distance, t, n in found
        )


def test_sections_are_those_of_each_bin_alone() -> None:
    noise = np.random.default_rng(4)
    bins = noise.integers(0, 32, 400)
    bins[bins == 9] = 10  # a section without pixels
    along, across, weight = noise.normal(size=(3, 400))
    weight = np.abs(weight)
    ((places, middles, weights),) = _sections(along, across, weight, bins, np.zeros(400, dtype=int))
    there = np.unique(bins)
    assert len(places) == len(there) == 31
    for section, place, middle, counts in zip(there, places, middles, weights):
        own = bins == section
        assert place == pytest.approx(along[own].mean())
        assert middle == pytest.approx(0.5 * (across[own].min() + across[own].max()))
        assert counts == pytest.approx(np.sqrt(weight[own].sum()) * (0.3 if section in (0, 31) else 1.0))


def test_sections_of_several_bodies_are_those_of_each() -> None:
    noise = np.random.default_rng(5)
    owner = np.repeat([0, 1, 2], [90, 1, 60])
    bins = noise.integers(0, 32, len(owner))
    along, across, weight = noise.normal(size=(3, len(owner)))
    together = _sections(along, across, np.abs(weight), bins, owner)
    assert len(together) == 3
    for body, found in enumerate(together):
        own = owner == body
        (alone,) = _sections(along[own], across[own], np.abs(weight)[own], bins[own], np.zeros(own.sum(), dtype=int))
        for one, other in zip(found, alone):
            np.testing.assert_array_equal(one, other)


def test_places_on_a_polyline_are_walked_to() -> None:
    nodes = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    found = on_line(nodes, np.array([-1.0, 0.0, 2.0, 3.0, 5.0, 7.0, 9.0]))
    np.testing.assert_allclose(found, [[-1, 0], [0, 0], [2, 0], [3, 0], [3, 2], [3, 4], [3, 6]])


def test_midlines_run_through_the_middle_and_do_not_depend_on_each_other() -> None:
    noise = np.random.default_rng(7)
    bodies, truths = [], []
    for size, bend in ((900, 0.0), (60, 0.004), (5000, -0.006)):
        along = noise.uniform(0, 100, size)
        middle = bend * (along - 50) ** 2
        body = np.stack([along, middle + noise.uniform(-6, 6, size)], axis=1)
        behind = noise.uniform(100, 120, 40)
        tail = np.stack([behind, bend * (behind - 50) ** 2 + noise.uniform(-8, 8, 40)], axis=1) if size != 60 else None
        bodies.append(BodyPixels(body, tail, np.array([1.0, 0.0])))
        truths.append(bend)
    together = midlines(bodies)
    for body, bend, nodes in zip(bodies, truths, together):
        np.testing.assert_array_equal(nodes, midlines([body])[0])
        inner = nodes[8:-12]
        assert np.abs(inner[:, 1] - bend * (inner[:, 0] - 50) ** 2).mean() < 2.0
        steps = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
        assert steps == pytest.approx(steps.mean(), rel=0.02)
    assert midlines([]) == []
