"""The world of beetles against its own planted truth."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from skimage.measure import points_in_poly

from concept_cam.demo.worlds import stage
from concept_cam.demo.worlds.beetle.body import PIECES
from concept_cam.demo.worlds.beetle.room import TROUPE, WORLD
from concept_cam.demo.worlds.beetle.traits import CHARACTERS, PARTS
from concept_cam.demo.worlds.family import Rendering, Specimens

SIZE = 128


def plane(rendering: Rendering, name: str) -> torch.Tensor:
    assert rendering.masks is not None
    return rendering.masks[:, WORLD.masks.index(name)]


def told(rendering: Rendering, character: str) -> torch.Tensor:
    return rendering.judgeable[:, list(CHARACTERS).index(character)]


def middle(mask: torch.Tensor) -> np.ndarray:
    y, x = torch.nonzero(mask).float().mean(dim=0).tolist()
    return np.array([x, y])


@pytest.fixture(scope="module")
def beetles() -> Specimens:
    return WORLD.sample(20, 61, view="whole")


@pytest.fixture(scope="module")
def rendering(beetles: Specimens) -> Rendering:
    return WORLD.render(beetles, SIZE, masks=True)


def test_masks_are_the_nearest_facets_of_the_beetle(beetles: Specimens, rendering: Rendering) -> None:
    """Slowly: every facet that holds a point is found in the projected shape, and the nearest one names the part."""
    rng = np.random.default_rng(5)
    tested = wrong = 0
    for i in (0, 3, 7):
        shape, camera = stage.geometry(TROUPE, beetles, i, (SIZE, SIZE))
        facets = shape.facets.moved(camera.matrix, camera.shift)
        solid = ~facets.width.any(axis=1)
        outlines = camera.lens(facets.corners)
        x, y = outlines[..., 0], outlines[..., 1]
        area = 0.5 * (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)
        order = facets.corners[:, :, 2].mean(axis=1) + facets.nearer
        where = np.argwhere((plane(rendering, "elytra") | plane(rendering, "pronotum"))[i].numpy())
        for row, column in where[rng.integers(0, len(where), 60)]:
            point = np.array([[column + 0.5, row + 0.5]])
            near = np.flatnonzero(solid & (~facets.closed | (area > 0)) & (np.abs(outlines.mean(axis=1) - point).max(axis=1) < 40))
            holding = [k for k in near if points_in_poly(point, outlines[k])[0]]
            if not holding:
                continue
            tested += 1
            piece = PIECES[facets.piece[max(holding, key=lambda k: order[k])]]
            names = [name for name in PARTS if piece in TROUPE.masks[name]]
            # Limbs are ribbons, which the slow way leaves out: they may lie before.
            slim = ("legs", "antennae", "mandibles", "horns", "snout")
            hidden = any(bool(plane(rendering, name)[i, row, column]) for name in slim)
            wrong += not hidden and not all(bool(plane(rendering, name)[i, row, column]) for name in names)
    assert tested > 100
    # Points on the seam of two parts may go to either.
    assert wrong <= 0.05 * tested


def test_parts_lie_in_order_and_fit_together(beetles: Specimens, rendering: Rendering) -> None:
    assert rendering.masks is not None
    for inner, outer in (("eye", "head"), ("mandibles", "head"), ("snout", "head"), ("scutellum", "elytra")):
        assert not (plane(rendering, inner) & ~plane(rendering, outer)).any(), inner
    for one, other in (("elytra", "pronotum"), ("elytra", "legs"), ("pronotum", "head"), ("antennae", "legs"), ("elytra", "abdomen")):
        # A pixel on the seam may be half one and half the other.
        assert (plane(rendering, one) & plane(rendering, other)).float().mean() < 0.004, (one, other)
    tested = 0
    for i in range(len(beetles)):
        if not rendering.visible[i, [PARTS.index(name) for name in ("head", "pronotum", "elytra")]].all():
            continue
        head, pronotum, elytra = (middle(plane(rendering, name)[i]) for name in ("head", "pronotum", "elytra"))
        ahead = head - elytra
        if ahead @ ahead < 200:
            continue
        tested += 1
        assert 0 < (pronotum - elytra) @ ahead < ahead @ ahead
    assert tested >= 10


def test_left_is_the_beetles_own_left(beetles: Specimens, rendering: Rendering) -> None:
    assert rendering.side is not None
    tested = 0
    for i in range(len(beetles)):
        left, right = (plane(rendering, "elytra")[i] & (rendering.side[i] == k) for k in (1, 2))
        if min(int(left.sum()), int(right.sum())) < 60 or not rendering.visible[i, PARTS.index("pronotum")]:
            continue
        ahead = middle(plane(rendering, "pronotum")[i]) - middle(plane(rendering, "elytra")[i])
        across = middle(right) - middle(left)
        # Pictures have y downwards, and a beetle is never seen from below.
        assert ahead[0] * across[1] - ahead[1] * across[0] > 0, i
        tested += 1
    assert tested >= 10
    sided = plane(rendering, "legs") | plane(rendering, "antennae") | plane(rendering, "eye") | plane(rendering, "mandibles")
    assert (rendering.side > 0)[sided].float().mean() > 0.97


def test_absent_parts_have_no_mask_and_states_show(beetles: Specimens) -> None:
    plain = {"horns": "absent", "snout": "absent", "mandible_size": "small", "antenna_length": "short", "elytra_length": "covering"}
    some = WORLD.sample(10, 67, view="whole", traits=plain)
    before = WORLD.render(some, SIZE, masks=True)
    assert not plane(before, "horns").any()
    assert not plane(before, "snout").any()
    for character, state, mask, factor in (
        ("horns", "present", "horns", 1.0),
        ("snout", "present", "snout", 1.0),
        ("mandible_size", "enlarged", "mandibles", 3.0),
        ("antenna_length", "long", "antennae", 2.0),
        ("elytra_length", "shortened", "abdomen", 2.0),
    ):
        after = WORLD.render(WORLD.twin(some, character, state), SIZE, masks=True)
        both = told(before, character) & told(after, character)
        assert both.any(), character
        grown = plane(after, mask).sum(dim=(1, 2)).float() / plane(before, mask).sum(dim=(1, 2)).float().clamp(min=1)
        assert grown[both].median() > factor, character


def test_the_pictures_of_all_states_differ() -> None:
    some = WORLD.sample(12, 71, view="whole", scenes=["plain"], traits={"elytra_colour": "brown"})
    seen = WORLD.render(some, 256).judgeable
    for character in ("elytra_texture", "elytra_gloss", "elytra_pattern", "elytra_colour", "antenna_shape", "pronotum_shape", "body_shape"):
        base = some[np.flatnonzero(seen[:, list(CHARACTERS).index(character)].numpy())[:2]]
        assert len(base), character
        pictures = [WORLD.render(WORLD.twin(base, character, state), 256, noise=False).images.int() for state in CHARACTERS[character]]
        for k, one in enumerate(pictures):
            for other in pictures[k + 1 :]:
                assert ((one - other).abs().amax(dim=1) > 8).flatten(1).sum(dim=1).float().median() >= 4, character


def test_the_colour_of_metal_is_not_asked() -> None:
    for gloss in CHARACTERS["elytra_gloss"]:
        some = WORLD.sample(12, 77, view="whole", scenes=["plain"], traits={"elytra_gloss": gloss, "elytra_pattern": "plain"})
        assert bool(told(WORLD.render(some, SIZE), "elytra_colour").any()) == (gloss != "metallic"), gloss


def test_profiles_have_kinds_whose_states_go_together() -> None:
    """Clubbed, short antennae go with domed bodies in photographs far more often than in the plain world."""
    shares = {}
    for profile in ("plain", "photographs"):
        many = WORLD.sample(1500, 73, profile=profile)
        column = {name: np.array(states)[many.states[:, c]] for c, (name, states) in enumerate(CHARACTERS.items())}
        domed = column["body_shape"] == "domed"
        shares[profile] = float((column["antenna_length"][domed] == "short").mean())
    assert shares["plain"] == pytest.approx(0.5, abs=0.06)
    assert shares["photographs"] > 0.65


def test_several_beetles_count_as_one_where_they_agree() -> None:
    crowd = WORLD.sample(300, 79, view="whole", profile="photographs")
    number = stage.draws_of(TROUPE, crowd).choice("several", (1.0, 0.0, 0.0, 0.0))
    rows = np.flatnonzero(number > 0)[:6]
    assert len(rows) == 6
    made = WORLD.render(crowd[rows], SIZE, masks=True)
    again = WORLD.render(crowd[int(rows[2])], SIZE, masks=True)
    assert torch.equal(plane(again, "elytra")[0], plane(made, "elytra")[2])
    labels = [_blobs(plane(made, "elytra")[i]) for i in range(6)]
    assert max(labels) >= 2


def _blobs(mask: torch.Tensor) -> int:
    from scipy import ndimage

    found, count = ndimage.label(mask.numpy())
    return int((np.bincount(found.ravel())[1:] > 40).sum()) if count else 0


@pytest.mark.slow
def test_speed() -> None:
    """Last run 26 November 2026: 12 pictures a second of processor time. Far below that, so that only a real loss of speed fails."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        some = WORLD.sample(24, 7, profile="photographs")
        WORLD.render(some[:2], 384, masks=True)
        start = time.process_time()
        WORLD.render(some, 384, masks=True)
        assert 24 / (time.process_time() - start) > 5
    finally:
        torch.set_num_threads(threads)
