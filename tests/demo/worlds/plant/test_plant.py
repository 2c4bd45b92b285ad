"""The world of leaves against its own planted truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.measure import perimeter

from concept_cam.demo.worlds import stage
from concept_cam.demo.worlds.draws import OneDraw, Style
from concept_cam.demo.worlds.family import Rendering
from concept_cam.demo.worlds.plant.anatomy import PIECE, blade, build, fused
from concept_cam.demo.worlds.plant.coat import veins
from concept_cam.demo.worlds.plant.room import TROUPE, WORLD, judge
from concept_cam.demo.worlds.plant.traits import CHARACTERS
from concept_cam.demo.worlds.stage import Frame, Shape, Sight

SIZE = 128
PLAIN = {name: TROUPE.canonical.get(name, states[0]) for name, states in CHARACTERS.items()} | {"leaf_shape": "elliptic"}


def plane(rendering: Rendering, name: str) -> torch.Tensor:
    assert rendering.masks is not None
    return rendering.masks[:, WORLD.masks.index(name)]


def outline(state: dict[str, str], seed: int = 3) -> tuple[np.ndarray, float]:
    """Points of one blade's edge, and the half width that it says."""
    leaf, _, half = blade(OneDraw(seed, 1), PLAIN | state, "leaf.0", 120)
    return leaf.places.reshape(-1, 2), half


@pytest.mark.parametrize("shape", CHARACTERS["leaf_shape"])
def test_blades_have_the_shape_that_they_are_called(shape: str) -> None:
    """Length to width, and where they are broadest, by the words of a botanist."""
    for seed in range(4):
        points, half = outline({"leaf_shape": shape}, seed)
        assert np.isfinite(points).all()
        assert points[:, 0].max() == pytest.approx(1.0, abs=0.02)
        assert np.abs(points[:, 1]).max() == pytest.approx(half, rel=0.05)
        broadest = points[np.abs(points[:, 1]).argmax(), 0]
        slender = 1 / (2 * half)
        limits = {
            "needle": (20, 90, 0.0, 1.0),
            "linear": (8, 22, 0.0, 1.0),
            "lanceolate": (3, 6, 0.2, 0.45),
            "ovate": (1.4, 2.2, 0.2, 0.4),
            "elliptic": (1.6, 2.7, 0.42, 0.58),
            "round": (0.9, 1.2, 0.4, 0.6),
            "heart_shaped": (0.9, 1.5, -0.1, 0.35),
            "arrow_shaped": (0.9, 2.8, -0.5, 0.2),
        }[shape]
        assert limits[0] <= slender <= limits[1]
        assert limits[2] <= broadest <= limits[3]
        # Hearts and arrows reach back beyond the foot of the blade.
        assert (points[:, 0].min() < -0.05) == (shape in ("heart_shaped", "arrow_shaped"))


def test_edges_are_rougher_than_entire_ones() -> None:
    some = WORLD.sample(10, 83, view="whole", scenes=["plain"], traits=PLAIN)
    rough = {}
    for margin in ("entire", "serrate", "crenate", "lobed", "spiny"):
        made = WORLD.render(WORLD.twin(some, "leaf_margin", margin), 256, masks=True)
        mask = plane(made, "leaf_blade").numpy()
        alone = [
            i for i in range(len(some)) if mask[i].sum() > 2000 and stage.geometry(TROUPE, some, i, (256, 256))[0].details["leaves"] == 1
        ]
        rough[margin] = np.array([perimeter(mask[i]) ** 2 / mask[i].sum() for i in alone])
    assert len(rough["entire"]) >= 3
    for margin in ("serrate", "crenate", "lobed", "spiny"):
        assert (rough[margin] > 1.03 * rough["entire"]).mean() > 0.7, margin


def test_teeth_point_forwards_and_scallops_do_not() -> None:
    """Along a saw-toothed edge the way to the next tip is longer than the way back into the notch; scallops are alike both ways."""
    lean = {}
    for margin in ("serrate", "crenate"):
        leaf, _, _ = blade(OneDraw(5, 2), PLAIN | {"leaf_margin": margin}, "leaf.0", 600)
        # The outer corners of the last column of facets on one side.
        corners = leaf.places[: (600 - 1) * 2].reshape(599, 2, 4, 2)[:, 1, 3]
        x = corners[80:520]
        chord = np.gradient(x, axis=0)
        steepness = chord[:, 1] / np.maximum(np.hypot(chord[:, 0], chord[:, 1]), 1e-9)
        trend = np.convolve(steepness, np.ones(101) / 101, mode="same")
        rising = (steepness - trend)[60:-60] > 0
        lean[margin] = rising.mean()
    assert lean["serrate"] > lean["crenate"] + 0.05


@pytest.mark.parametrize(("division", "low", "high"), [("simple", 1, 1), ("trifoliate", 3, 3), ("palmate", 5, 7), ("pinnate", 6, 15)])
def test_leaves_have_their_number_of_leaflets(division: str, low: int, high: int) -> None:
    tested = 0
    whole = Style(ranges={"leaf.bitten_share": (0.0, 0.0)})
    for seed in range(8):
        shape = build(OneDraw(seed, 0, whole), PLAIN | {"leaf_division": division})
        if shape.details["leaves"] > 1:
            continue
        # A leaflet has as many facets as a blade of its fineness.
        facets = len(blade(OneDraw(seed, 0), PLAIN, "leaf.0", 60 if division == "simple" else 20)[0])
        number = int((shape.facets.piece <= PIECE["base"]).sum()) / facets
        assert number == int(number)
        assert low <= number <= high
        tested += 1
    assert tested >= 2


def test_how_far_leaflets_overlap_that_spread_from_one_point() -> None:
    """Circles through their common foot meet where a chord is as long as their diameter times the cosine of half the gap."""
    disc, _, half = blade(OneDraw(3, 1), PLAIN | {"leaf_shape": "round"}, "leaf.0", 400)
    flat = replace(disc, corners=disc.corners * np.array([1.0, 0.5 / half, 0.0], dtype=np.float32))
    for gap in (0.8, 1.2, 1.7):
        assert fused(flat, gap) == pytest.approx(np.cos(gap / 2), abs=0.09)
    lance = blade(OneDraw(3, 1), PLAIN | {"leaf_shape": "lanceolate"}, "leaf.0", 400)[0]
    assert fused(lance, 1.2) < 0.12
    assert fused(lance, 0.02) > 0.9


def test_leaflets_of_a_broad_kind_are_fused_and_narrow_ones_are_not() -> None:
    def shares(**state: str) -> list[float]:
        return [build(OneDraw(seed, 0), PLAIN | state).details["fused"] for seed in range(12)]

    assert max(shares(leaf_division="simple", leaf_shape="round") + shares(leaf_division="pinnate", leaf_shape="round")) == 0.0
    assert min(shares(leaf_division="trifoliate", leaf_shape="round")) > 0.5
    assert max(shares(leaf_division="trifoliate", leaf_shape="lanceolate")) < 0.5


def test_leaves_that_run_into_one_are_not_judged() -> None:
    """The same picture with more of a leaf hidden, with leaflets that overlap further, and with smaller leaves."""
    facets = blade(OneDraw(3, 1), PLAIN, "leaf.0", 20)[0]

    def told(share: float = 0.9, scale: float = 300.0, division: str = "simple", fused: float = 0.1) -> dict[str, bool]:
        state = PLAIN | {"leaf_margin": "serrate", "leaf_division": division}
        details = {"tooth": 0.03, "half": 0.25, "leaflet": 0.7, "fused": fused, "leaves": 1.0, "size": 1.0}
        shape = Shape(facets, Frame(np.zeros((1, 3)), {}, {}), details)
        sight = Sight(state, {"leaf": 5000.0}, {"leaf": share}, {"leaf": 1.0}, frozenset({"leaf"}), {}, scale, 0.6, shape, np.eye(3))
        return dict(judge(sight))

    assert told()["leaf_margin"]
    assert not told(share=0.5)["leaf_margin"]
    assert told(share=0.65)["leaf_division"]
    assert not told(share=0.65, division="palmate")["leaf_division"]
    assert told(share=0.75, division="palmate")["leaf_division"]
    assert not told(share=0.75, division="palmate", fused=0.6)["leaf_division"]
    assert told(share=0.75, fused=0.6)["leaf_division"]
    assert told(scale=100.0)["leaf_venation"]
    assert not told(scale=70.0)["leaf_venation"]


def test_masks_fit_together() -> None:
    made = WORLD.render(WORLD.sample(12, 89, view="whole"), SIZE, masks=True)
    assert made.side is None
    leaf, stem = plane(made, "leaf"), plane(made, "stem")
    for name in ("leaf_blade", "petiole", "leaf_tip", "leaf_base"):
        assert not (plane(made, name) & ~leaf).any(), name
    for name in ("leaf_tip", "leaf_base"):
        assert not (plane(made, name) & ~plane(made, "leaf_blade")).any(), name
    assert (plane(made, "leaf_tip") & plane(made, "leaf_base")).float().mean() < 0.003
    assert (leaf & stem).float().mean() < 0.004
    assert leaf.flatten(1).any(dim=1).all()


def test_tip_and_base_are_the_ends_of_a_single_leaf() -> None:
    some = WORLD.sample(24, 97, view="whole", traits=PLAIN)
    made = WORLD.render(some, SIZE, masks=True)
    tested = 0
    for i in range(len(some)):
        shape, camera = stage.geometry(TROUPE, some, i, (SIZE, SIZE))
        if shape.details["leaves"] > 1:
            continue
        for name in ("leaf_tip", "leaf_base"):
            if not made.visible[i, WORLD.masks.index(name)]:
                continue
            y, x = torch.nonzero(plane(made, name)[i]).float().mean(dim=0).tolist()
            expected = camera.pixels(np.asarray(shape.frame.sites[name]))
            assert np.hypot(x - expected[0], y - expected[1]) < 0.14 * camera.lens.scale, name
            tested += 1
    assert tested >= 8


def test_arrangements_place_their_leaves() -> None:
    """On a shoot, leaves are put on singly, in pairs, in rings, or all at one point."""
    for arrangement, most in (("alternate", (1,)), ("opposite", (2,)), ("whorled", (4, 5)), ("rosette", ())):
        for seed in range(12):
            shape = build(OneDraw(seed, 0), PLAIN | {"leaf_arrangement": arrangement})
            if shape.details["leaves"] == 1:
                continue
            foot = shape.facets.corners[shape.facets.piece == PIECE["petiole"]].reshape(-1, 6, 4, 3)[:, 0, 0]
            nodes, counts = np.unique(np.round(foot[:, :2], 2), axis=0, return_counts=True)
            if arrangement == "rosette":
                assert np.hypot(*foot[:, :2].T).max() < 0.05
                assert len(foot) >= 6
            else:
                assert counts.max() in most
                assert len(nodes) >= 3


def test_veins_run_as_they_are_called() -> None:
    """Parallel veins cross a line across the blade many times and a line along it seldom; side veins the other way round."""
    draw = OneDraw(9, 4)
    n = 400
    across_y, along_x = np.linspace(-0.2, 0.2, n, dtype=np.float32), np.linspace(0.2, 0.8, n, dtype=np.float32)

    def crossings(kind: str, x: np.ndarray, y: np.ndarray) -> int:
        seen = veins(draw, kind, x.astype(np.float32), y.astype(np.float32), 0.24, 0.014)[0] > 0.5
        return int((np.diff(seen.astype(int)) > 0).sum())

    across = {kind: crossings(kind, np.full(n, 0.5), across_y) for kind in ("parallel", "pinnate", "palmate")}
    along = {kind: crossings(kind, along_x, np.full(n, 0.1)) for kind in ("parallel", "pinnate", "palmate")}
    assert across["parallel"] >= 7
    assert along["parallel"] <= 3
    assert along["pinnate"] >= 4
    assert along["pinnate"] > along["palmate"]


def test_what_cannot_be_told_is_not_judged() -> None:
    small = WORLD.render(WORLD.sample(10, 101, view="whole"), 20)
    assert not small.judgeable[:, list(CHARACTERS).index("leaf_venation")].any()
    needles = WORLD.render(WORLD.sample(6, 103, view="whole", traits={"leaf_shape": "needle"}), SIZE)
    names = list(CHARACTERS)
    for name in ("leaf_margin", "leaf_division", "leaf_arrangement", "leaf_venation", "leaf_surface"):
        assert not needles.judgeable[:, names.index(name)].any(), name
    compound = WORLD.render(WORLD.sample(6, 103, view="whole", traits={"leaf_division": "pinnate"}), SIZE)
    assert not compound.judgeable[:, names.index("leaf_shape")].any()
