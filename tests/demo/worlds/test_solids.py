"""The painter of surfaces and ribbons against slow restatements of its geometry."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import points_in_poly

from concept_cam.demo.worlds.solids import (
    FINE,
    Facets,
    Lens,
    blend,
    bristles,
    cast,
    half_of,
    joined,
    moved_outline,
    paint,
    ribbon,
    samples,
    surface,
)

SIZE = (60, 80)
LENS = Lens(10.0, 40.0, 30.0)


def ball(radius: float, piece: int = 0, at: tuple[float, float, float] = (0.0, 0.0, 0.0), steps: int = 40) -> Facets:
    angle, turn = np.linspace(0, np.pi, steps), np.linspace(-np.pi, np.pi, 2 * steps)
    points = np.stack(
        [np.repeat(np.cos(angle)[:, None], len(turn), 1), np.sin(angle)[:, None] * np.sin(turn), np.sin(angle)[:, None] * np.cos(turn)],
        axis=2,
    )
    # As the camera sees it: y downwards.
    return surface(points * radius * np.array([1, -1, 1]) + at, piece, u=angle.astype(np.float32), v=turn.astype(np.float32))


def flat(piece: int, depth: float, corners: list[tuple[float, float]]) -> Facets:
    a, b, c, d = (np.array([x, y, depth]) for x, y in corners)
    grid = np.stack([np.stack([a, d]), np.stack([b, c])])
    return surface(grid, piece, u=np.array([0, 1], np.float32), v=np.array([0, 1], np.float32), closed=False)


def test_the_nearest_facet_is_seen_at_every_sample() -> None:
    rng = np.random.default_rng(3)
    lot = []
    for piece in range(30):
        centre, half = rng.uniform((-3.5, -2.5), (3.5, 2.5)), rng.uniform(0.3, 1.2, 2)
        turn = rng.uniform(0, 3)
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        outline = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half @ spin.T + centre
        lot.append(flat(piece, float(rng.uniform(-1, 1)), [tuple(p) for p in outline]))
    facets = joined(lot)
    painted = paint(facets, LENS, SIZE)
    tested = 0
    for y, x in rng.integers(0, (SIZE[0] * FINE, SIZE[1] * FINE), (600, 2)):
        point = np.array([(x + 0.5) / FINE, (y + 0.5) / FINE])
        inside, near_an_edge = [], False
        for k in range(len(facets)):
            outline = facets.corners[k, :, :2] * 10 + (40, 30)
            inside.append(bool(points_in_poly(point[None], outline)[0]))
            for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
                along = np.clip(np.dot(point - a, b - a) / np.dot(b - a, b - a), 0, 1)
                near_an_edge |= bool(np.linalg.norm(a + along * (b - a) - point) < 1.0)
        if near_an_edge:
            continue
        tested += 1
        depths = [facets.corners[k, 0, 2] if hit else -np.inf for k, hit in enumerate(inside)]
        expected = int(np.argmax(depths)) if any(inside) else -1
        assert painted.owner[y, x] == expected
    assert tested > 150


def test_a_closed_body_is_seen_from_outside_alone() -> None:
    facets = ball(2.0)
    painted = paint(facets, LENS, SIZE)
    solid = (painted.owner >= 0).sum() / FINE**2
    assert solid == pytest.approx(np.pi * 400, rel=0.03)
    assert painted.areas(1)[0] == pytest.approx(np.pi * 400, rel=0.02)
    # Half of it faces the camera, and what is seen does.
    assert painted.shown.mean() == pytest.approx(0.5, abs=0.03)
    assert (facets.corners[np.unique(painted.owner[painted.owner >= 0])].mean(axis=1)[:, 2] > -0.15).all()


def test_samples_know_their_place_and_normal_on_a_ball() -> None:
    seen = samples(paint(ball(2.0), LENS, SIZE))
    inner = np.hypot(seen.x - 40, seen.y - 30) < 15
    x, y = (seen.x[inner] - 40) / 20, (seen.y[inner] - 30) / 20
    expected = np.stack([x, y, np.sqrt(1 - x * x - y * y)], axis=1)
    assert np.abs(seen.normal[inner] - expected).max() < 0.08
    assert np.allclose(np.linalg.norm(seen.normal, axis=1), 1, atol=1e-4)
    assert np.abs(np.cos(seen.u[inner]) - x).max() < 0.08


def test_samples_are_bilinear_in_a_crooked_facet() -> None:
    corners = np.array([(-3.0, -2.0), (2.5, -1.5), (3.0, 2.0), (-2.0, 1.0)])
    seen = samples(paint(flat(0, 0.0, [tuple(p) for p in corners]), LENS, SIZE))
    s, t = seen.u[:, None], seen.v[:, None]
    there = (1 - s) * (1 - t) * corners[0] + s * (1 - t) * corners[1] + s * t * corners[2] + (1 - s) * t * corners[3]
    inner = (np.minimum(s, t) > 0.02) & (np.maximum(s, t) < 0.98)
    assert inner.sum() > 1000
    assert np.abs(there * 10 + (40, 30) - np.stack([seen.x, seen.y], axis=1))[inner[:, 0]].max() < 0.05


def test_weights_are_shares_of_pixels_and_blending_keeps_the_rest() -> None:
    painted = paint(joined([ball(1.5), flat(1, 3.0, [(0, -1), (2, -1), (2, 1), (0, 1)])]), LENS, SIZE)
    seen = samples(painted)
    total = np.bincount(seen.at, weights=seen.weight, minlength=SIZE[0] * SIZE[1]).reshape(SIZE)
    covered = (painted.owner >= 0).reshape(SIZE[0], FINE, SIZE[1], FINE).mean(axis=(1, 3))
    assert np.allclose(total, covered, atol=1e-6)
    ground = np.random.default_rng(1).uniform(0, 1, (*SIZE, 3)).astype(np.float32)
    picture = blend(seen, np.full((len(seen.at), 3), 0.5, dtype=np.float32), ground)
    assert np.allclose(picture, ground * (1 - covered)[..., None] + 0.5 * covered[..., None], atol=1e-5)


def test_half_of_counts_samples() -> None:
    bits = np.random.default_rng(2).integers(0, 2**32, (8, 12), dtype=np.uint64).astype(np.uint32)
    found = half_of(bits)
    for y in range(4):
        for x in range(6):
            for k in range(32):
                count = sum(int(bits[2 * y + i, 2 * x + j]) >> k & 1 for i in range(2) for j in range(2))
                assert (int(found[y, x]) >> k & 1) == (count >= 2)


def test_a_ribbon_is_as_wide_as_it_says_and_hairs_are_where_they_are_put() -> None:
    line = np.stack([np.linspace(-3, 3, 13), np.zeros(13), np.zeros(13)], axis=1)
    painted = paint(ribbon(line, np.full(13, 0.5), 0), LENS, SIZE)
    assert (painted.owner >= 0).sum() / FINE**2 == pytest.approx(60 * 10, rel=0.06)
    seen = samples(painted)
    assert np.abs((seen.x - 10) / 60 - seen.u).max() < 0.03
    assert np.abs(np.abs(seen.y - 30) / 5 - np.abs(seen.v)).max() < 0.12
    hair = paint(bristles(np.array([[1.0, 1.0, 0.0]]), np.array([[3.0, 1.0, 0.0]]), (0.1, 0.1), 0, nearer=0.0), LENS, SIZE)
    y, x = np.nonzero(hair.owner >= 0)
    assert x.min() / FINE == pytest.approx(50, abs=1.0)
    assert x.max() / FINE == pytest.approx(70, abs=1.0)
    assert abs(y.mean() / FINE - 40) < 1.0


def test_shadows_fall_away_from_the_light() -> None:
    high = ball(0.5, at=(0.0, 0.0, 2.0))
    light = np.array([0.5, 0.0, 0.8])
    # The camera stands above: a point at height h throws its shadow h * 0.5 / 0.8 to the other side.
    shade = cast(high, LENS, SIZE, lambda points: np.asarray(points, dtype=np.float32), light / np.linalg.norm(light), 0.0, 1.0)
    y, x = np.nonzero(shade > 0.5)
    assert x.mean() == pytest.approx(40 - 10 * 2 * 0.5 / 0.8, abs=2.5)
    assert y.mean() == pytest.approx(30, abs=2.5)
    solid = np.zeros((120, 160), dtype=bool)
    solid[40:80, 40:80] = True
    moved = moved_outline(solid, np.array([12.0, -8.0], dtype=np.float32), 1.0)
    y, x = np.nonzero(moved > 0.5)
    assert x.mean() == pytest.approx(30 + 12, abs=3)
    assert y.mean() == pytest.approx(30 - 8, abs=3)
    assert moved.shape == SIZE


def test_what_lies_outside_the_picture_or_far_away_does_no_harm() -> None:
    painted = paint(joined([ball(0.5, at=(100.0, 0.0, 0.0), steps=6), ball(3e4, 1, at=(0.0, 2e4, 0.0), steps=12)]), LENS, SIZE)
    assert painted.owner.shape == (SIZE[0] * FINE, SIZE[1] * FINE)
    # The small one is far outside; the large one covers the picture.
    assert set(np.unique(painted.facets.piece[painted.owner[painted.owner >= 0]])) <= {1}
    assert np.isfinite(samples(painted).normal).all()
