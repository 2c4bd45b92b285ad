"""The world of butterflies and moths: sample specimens and render them with masks, one picture after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from concept_cam.demo.worlds.blossoms import strewn
from concept_cam.demo.worlds.canvas import Array, Canvas, polygon
from concept_cam.demo.worlds.draws import Draws, OneDraw, StyledDraws
from concept_cam.demo.worlds.family import SCENES as GROUNDS
from concept_cam.demo.worlds.family import VIEWS, Rendering, Specimens, View
from concept_cam.demo.worlds.lepidoptera.anatomy import Body, Wing, body, wings
from concept_cam.demo.worlds.lepidoptera.coat import coat
from concept_cam.demo.worlds.lepidoptera.painting import Animal, Camera, paint
from concept_cam.demo.worlds.lepidoptera.styles import PROFILES, STYLES
from concept_cam.demo.worlds.lepidoptera.traits import CHARACTERS, LEPIDOPTERA, MASKS, SCENES
from concept_cam.demo.worlds.studio import Studio, generator
from concept_cam.demo.worlds.surroundings import lay_dust, lay_flower, lay_leaf, lay_twig, petal_colour, vegetation

_STATE_WEIGHTS: dict[str, tuple[float, ...]] = {
    "eyespots": (0.45, 0.55),
    "wing_pattern": (1.0, 1.2, 0.8, 1.2, 1.0, 0.8, 1.2, 0.5),
    "hindwing_tails": (0.3, 0.7),
    "wing_margin": (0.55, 0.25, 0.2),
    "antenna_shape": (0.45, 0.12, 0.2, 0.23),
    "resting_posture": (0.62, 0.22, 0.16),
    "wing_colour": (1.0, 1.0, 1.2, 0.8, 1.6, 1.0, 1.0, 0.7, 0.6, 0.8, 0.6),
}
"""Shares of the states where they are not all equal."""

_FOCUS: dict[str, float] = {
    "fore_wing": 2.0,
    "hind_wing": 2.0,
    "antennae": 2.0,
    "head": 2.0,
    "eye": 0.5,
    "proboscis": 0.4,
    "thorax": 1.0,
    "abdomen": 1.0,
    "legs": 0.4,
    "body": 1.0,
    "wing": 1.0,
    "eyespot": 1.0,
    "tail": 1.0,
}
"""What a close-up is aimed at. A mark that this animal lacks is aimed at too: the camera must not betray its presence."""

_EXTENT: dict[str, float] = {
    "fore_wing": 1.0,
    "hind_wing": 0.8,
    "antennae": 0.7,
    "head": 0.4,
    "eye": 0.25,
    "proboscis": 0.4,
    "thorax": 0.5,
    "abdomen": 0.65,
    "legs": 0.7,
    "body": 0.9,
    "wing": 1.1,
    "eyespot": 0.5,
    "tail": 0.5,
}
"""How much a close-up of each has to show, in fore-wing lengths."""

_GROUNDS: dict[str, tuple[str, ...]] = {
    "pinned": ("white_tray", "grey_tray", "white_tray", "blue_tray", "black_cloth", "concrete"),
    "plain": ("white_tray", "grey_tray", "black_cloth", "white_tray"),
    "ground": ("gravel", "sand", "grass", "concrete", "wood", "steel"),
    "bark": ("wood",),
}
"""Scene -> the common grounds that it is drawn with; the others have vegetation out of focus."""


def sample(
    count: int,
    seed: int,
    *,
    view: View = "mixed",
    scenes: Sequence[str] | None = None,
    traits: Mapping[str, str] | None = None,
    empty: float | None = None,
    start: int = 0,
    profile: str = "plain",
) -> Specimens:
    """As `family.Sample`."""
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}: expected one of {', '.join(VIEWS)}")
    scenes = SCENES if scenes is None else scenes
    unknown = [name for name in scenes if name not in SCENES]
    if unknown or not scenes:
        raise ValueError(f"unknown scenes {unknown}: expected one or more of {', '.join(SCENES)}")
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: expected one of {', '.join(PROFILES)}")
    fixed = {name: LEPIDOPTERA.state_number(name, state) for name, state in (traits or {}).items()}
    index = np.arange(start, start + count, dtype=np.int64)
    seeds = np.full(count, seed, dtype=np.int64)
    style = Draws(seeds, index).choice("style", [PROFILES[profile].get(name, 0.0) for name in STYLES])
    draws = _draws(seeds, index, style)
    states = np.stack(
        [draws.choice(f"state.{name}", _STATE_WEIGHTS.get(name, (1.0,) * len(options))) for name, options in CHARACTERS.items()], axis=1
    )
    for name, state in fixed.items():
        states[:, list(CHARACTERS).index(name)] = state
    share = {"whole": 1.0, "closeup": 0.0, "mixed": 0.6}[view]
    focus = np.where(draws.chance("whole", share), -1, draws.choice("focus", [_FOCUS[name] for name in MASKS]))
    present = ~draws.chance("empty", (0.05 if view == "mixed" else 0.0) if empty is None else empty)
    weights = np.array([[each.scenes.get(name, 0.0) if each.scenes else 1.0 for name in scenes] for each in STYLES.values()])
    weights[~weights.any(axis=1)] = 1.0
    scene = np.array([SCENES.index(name) for name in scenes])[draws.choice("scene", weights[style])]
    framing = states[:, list(CHARACTERS).index("resting_posture")].copy()
    return Specimens(LEPIDOPTERA, seeds, index, states, present, focus, framing, scene, style)


def _draws(seed: npt.NDArray[np.int64], index: npt.NDArray[np.int64], style: npt.NDArray[np.int64]) -> Draws:
    return StyledDraws(seed, index, style, tuple(STYLES.values())) if style.any() else Draws(seed, index)


def _one(specimen: Specimens) -> OneDraw:
    return OneDraw(int(specimen.seed[0]), int(specimen.index[0]), tuple(STYLES.values())[int(specimen.style[0])])


def render(
    specimens: Specimens,
    size: int | tuple[int, int],
    *,
    masks: bool = False,
    device: str | torch.device = "cpu",
    noise: bool = True,
) -> Rendering:
    """As `family.Render`."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size {size!r}: expected at least one pixel each way")
    count = len(specimens)
    draws = _draws(specimens.seed, specimens.index, specimens.style)
    studio = Studio.of(draws, _grounds(draws, specimens.scene), (height, width))
    images = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    planes = torch.zeros(count, len(MASKS), height, width, dtype=torch.bool) if masks else None
    side = torch.zeros(count, height, width, dtype=torch.uint8) if masks else None
    visible = np.zeros((count, len(MASKS)), dtype=bool)
    in_frame, judgeable = visible.copy(), np.zeros((count, len(CHARACTERS)), dtype=bool)
    for i in range(count):
        one = specimens[i]
        canvas, truth = _picture(one, studio, i, (height, width))
        images[i] = studio.photograph(i, canvas.rgb, noise=noise)
        visible[i], in_frame[i], judgeable[i] = truth
        if planes is not None and side is not None:
            planes[i] = torch.from_numpy(canvas.masks(MASKS))
            side[i] = torch.from_numpy(canvas.side())

    def there(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(torch.device(device))

    return Rendering(
        there(images),
        None if planes is None else there(planes),
        there(torch.from_numpy(visible)),
        there(torch.from_numpy(judgeable)),
        there(torch.from_numpy(in_frame)),
        None if side is None else there(side),
    )


def _grounds(draws: Draws, scene: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers of the common grounds, int64 [B]."""
    pick = draws("ground")
    names = [_GROUNDS.get(SCENES[s], ("grass",)) for s in scene]
    return np.array([GROUNDS.index(found[int(p * len(found))]) for found, p in zip(names, pick, strict=True)], dtype=np.int64)


_Truth = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


def _picture(one: Specimens, studio: Studio, i: int, size: tuple[int, int]) -> tuple[Canvas, _Truth]:
    """The picture of one specimen before the camera's part, and what can be seen and told in it."""
    draws = _draws(one.seed, one.index, one.style)
    draw = _one(one)
    state = {name: options[one.states[0, c]] for c, (name, options) in enumerate(CHARACTERS.items())}
    # The camera is aimed by an animal of no state in particular but for the posture that the specimen was sampled with.
    usual = {name: options[-1] for name, options in CHARACTERS.items()} | {"resting_posture": CHARACTERS["resting_posture"][one.framing[0]]}
    camera = _camera(draw, wings(draw, usual), body(draw, usual), int(one.focus[0]), usual["resting_posture"], size)
    scene = SCENES[int(one.scene[0])]
    animal = Animal(wings(draw, state), body(draw, state), state, coat(draw, state))
    background = _background(scene, draw, draws, studio, i, camera)
    canvas = Canvas(background)
    if not bool(one.present[0]):
        return canvas, (np.zeros(len(MASKS), bool), np.zeros(len(MASKS), bool), np.zeros(len(CHARACTERS), bool))
    if scene in ("pinned", "plain", "ground", "bark"):
        _shade(canvas, studio, i, camera, animal)
    paint(canvas, animal, camera, draw, generator(draws, 0, "hair"), pinned=scene == "pinned")
    rng = generator(draws, 0, "before")
    if scene == "flower" and draw.chance("petal.before", 0.06):
        at = camera.pixel(np.array([[0.25, 0.0, -0.1]]))[0] + rng.normal(0, 0.25, 2) * camera.scale
        lay_flower(canvas, rng, (float(at[0]), float(at[1])), float(camera.scale * rng.uniform(0.12, 0.3)))
    return canvas, _truth(canvas, animal, camera, state)


def _camera(draw: OneDraw, shapes: list[Wing], trunk: Body, focus: int, posture: str, size: tuple[int, int]) -> Camera:
    """Where the camera stands, by an animal that all twins share."""
    side = 1.0 if draw.chance("view.left", 0.5) else -1.0
    beside = False
    if posture == "spread":
        roll, pitch = draw("view.roll", -0.16, 0.16), draw("view.pitch", -0.16, 0.16)
        if draw.chance("view.oblique", 0.25):
            roll, pitch = draw("view.far_roll", -1.0, 1.0), draw("view.far_pitch", -0.75, 0.75)
        if draw.chance("view.ventral", 0.07):
            roll = roll + np.pi
    elif posture == "closed":
        roll, pitch = side * (np.pi / 2 + draw("view.lean", -0.4, 0.3)), draw("view.pitch_beside", -0.35, 0.35)
        beside = True
    else:
        beside = draw.chance("view.beside", 0.4)
        roll = side * draw("view.roll_beside", 0.6, 1.45) if beside else draw("view.roll_tent", -0.4, 0.4)
        pitch = draw("view.pitch_tent", -0.35, 0.35)
    spin = draw("camera.spin", -1, 1)
    spin = np.pi * spin if draw.chance("camera.any", 0.35) else 0.45 * spin + (side * np.pi / 2 if beside else 0.0)
    turn = _turned("z", spin) @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ _turned("y", pitch) @ _turned("x", roll)
    height, width = size
    rough = Camera(turn, 1.0, (0.0, 0.0))
    points = rough.pixel(np.concatenate([*(wing.place(wing.outline) for wing in shapes), trunk.abdomen[0], trunk.antennae.reshape(-1, 3)]))
    low, high = points.min(axis=0), points.max(axis=0)
    if focus < 0:
        share = 0.2 + 0.76 * draw("camera.share", 0.35, 1.0)
        if draw.chance("camera.tight", 0.08):
            share = draw("camera.overfull", 0.96, 1.3)
        scale = share * min(width / (high[0] - low[0]), height / (high[1] - low[1]))
        aim = 0.5 * (low + high)
        slack = 0.5 * np.abs(np.array([width, height]) - (high - low) * scale)
        if draw.chance("camera.cut", 0.1):
            slack = slack + 0.15 * min(size)
    else:
        name = MASKS[focus]
        scale = min(size) * draw("camera.fill", 0.5, 1.0) / _EXTENT[name]
        aim = rough.pixel(_site(name, shapes, trunk, side > 0)[None])[0]
        slack = np.full(2, 0.15 * min(size))
    at = np.array([0.5 * width, 0.5 * height]) + slack * [draw("camera.x", -1, 1), draw("camera.y", -1, 1)]
    origin = at - scale * aim
    return Camera(turn, float(scale), (float(origin[0]), float(origin[1])))


def _turned(axis: str, angle: float) -> Array:
    """A rotation about an axis, float64 [3, 3]; about x it lifts the left side towards z."""
    cos, sin = np.cos(angle), np.sin(angle)
    rows = {
        "x": [[1, 0, 0], [0, cos, -sin], [0, sin, cos]],
        "y": [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]],
        "z": [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]],
    }
    return np.array(rows[axis], dtype=np.float64)


def _site(name: str, shapes: list[Wing], trunk: Body, left: bool) -> Array:
    """A point of a part, or where the mark would be, float64 [3]."""
    if name in ("fore_wing", "wing", "hind_wing", "eyespot", "tail"):
        front = name in ("fore_wing", "wing")
        wing = next(each for each in shapes if each.left == left and (each.name == "fore_wing") == front)
        middle = wing.outline.mean(axis=0)
        return np.asarray(wing.place(middle[None] + ([[0.05, -0.3]] if name == "tail" else [[0.0, 0.0]]))[0])
    sites = {
        "antennae": trunk.antennae.reshape(-1, 3).mean(axis=0),
        "thorax": trunk.thorax[0].mean(axis=0),
        "abdomen": trunk.abdomen[0].mean(axis=0),
        "body": np.array([-0.1, 0.0, 0.0]),
        "legs": trunk.legs.reshape(-1, 3).mean(axis=0),
    }
    return np.asarray(sites.get(name, trunk.head[0]))


def _background(scene: str, draw: OneDraw, draws: Draws, studio: Studio, i: int, camera: Camera) -> Array:
    """What the animal is before, float32 [H, W, 3]."""
    rng = generator(draws, 0, "background")
    size = studio.size
    if scene in ("pinned", "plain", "ground", "bark"):
        rgb = studio.ground(i, objects=scene in ("pinned", "ground"))
    else:
        rgb = vegetation(rng, size)
    canvas = Canvas(np.ascontiguousarray(rgb, dtype=np.float32))
    at = camera.pixel(np.array([[0.0, 0.0, -0.1]]))[0]
    reach = camera.scale
    if scene == "leaf":
        spot = at + rng.normal(0, 0.4, 2) * reach
        lay_leaf(canvas, rng, (float(spot[0]), float(spot[1])), float(reach * rng.uniform(2.2, 6)), float(rng.uniform(0, 6.28)))
    elif scene == "flower":
        tint = petal_colour(rng)
        for _ in range(int(rng.integers(1, 4))):
            spot = at + rng.normal(0, 0.55, 2) * reach
            lay_flower(canvas, rng, (float(spot[0]), float(spot[1])), float(reach * rng.uniform(0.25, 1.3)), tint)
    elif scene == "stem":
        way = rng.uniform(0, np.pi)
        end = 3 * max(size) * np.array([np.cos(way), np.sin(way)])
        spot = at + rng.normal(0, 0.12, 2) * reach
        lay_twig(canvas, rng, tuple(spot - end), tuple(spot + end), float(reach * rng.uniform(0.05, 0.28)))
    if scene not in ("pinned", "plain") and draw.chance("blossoms", 0.0):
        canvas.rgb = strewn(canvas.rgb, generator(draws, 0, "blossoms"), (float(at[0]), float(at[1])), float(reach))
    if draw.chance("litter", 0.3):
        lay_dust(canvas, rng, int(rng.integers(2, 18)), 0.3 * reach)
        if scene not in ("pinned", "plain"):
            for _ in range(int(rng.integers(0, 4))):
                spot = (float(rng.uniform(0, size[1])), float(rng.uniform(0, size[0])))
                pick = rng.random()
                if pick < 0.35:
                    lay_leaf(canvas, rng, spot, float(reach * rng.uniform(0.3, 1.5)), float(rng.uniform(0, 6.28)))
                elif pick < 0.7:
                    lay_flower(canvas, rng, spot, float(reach * rng.uniform(0.15, 0.6)))
                else:
                    far = (spot[0] + float(rng.normal(0, reach)), spot[1] + float(rng.normal(0, reach)))
                    lay_twig(canvas, rng, spot, far, float(reach * rng.uniform(0.01, 0.05)))
    return canvas.rgb


def _shade(canvas: Canvas, studio: Studio, i: int, camera: Camera, animal: Animal) -> None:
    """The soft shadow of the animal on the ground it lies on."""
    solid = np.zeros(studio.size, dtype=np.float32)
    for wing in animal.wings:
        patch = polygon(camera.pixel(wing.place(wing.outline)), studio.size)
        solid[patch.window] = np.maximum(solid[patch.window], patch.alpha)
    canvas.rgb = studio.shaded(i, canvas.rgb, solid)


_LEAST_PIXELS: dict[str, float] = {
    "fore_wing": 40,
    "hind_wing": 40,
    "wing": 60,
    "antennae": 12,
    "eye": 4,
    "proboscis": 8,
    "legs": 12,
    "eyespot": 12,
    "tail": 12,
}
_LEAST_SHARE: dict[str, float] = {
    "hind_wing": 0.3,
    "fore_wing": 0.3,
    "legs": 0.15,
    "wing": 0.3,
    "head": 0.4,
    "thorax": 0.35,
    "abdomen": 0.35,
}


def _truth(canvas: Canvas, animal: Animal, camera: Camera, state: dict[str, str]) -> _Truth:
    """Which parts are visible and in the frame, and which characters can be told."""
    seen = canvas.seen(MASKS)
    whole, inside = canvas.areas(MASKS), canvas.inside(MASKS)
    # How much of each is in the frame, and how much of that nothing hides.
    kept, shown = inside / np.maximum(whole, 1e-3), seen / np.maximum(inside, 1.0)
    least = np.array([_LEAST_PIXELS.get(name, 10) for name in MASKS])
    share = np.array([_LEAST_SHARE.get(name, 0.3) for name in MASKS])
    in_frame = seen > 0
    visible = (seen >= least) & (kept >= 0.5) & (shown >= share)
    at = {name: k for k, name in enumerate(MASKS)}
    span = camera.scale
    flat = {
        name: max(abs(float(wing.normal @ camera.toward)) for wing in animal.wings if wing.name == name)
        for name in ("fore_wing", "hind_wing")
    }

    def good(name: str, of: float, open_: float = 0.0) -> bool:
        return bool(visible[at[name]] and kept[at[name]] >= of and shown[at[name]] >= open_)

    wing, posture = good("wing", 0.6), state["resting_posture"]
    has_spots = bool(whole[at["eyespot"]] > 0)
    hind_open = good("hind_wing", 0.85, 0.55) and flat["hind_wing"] > 0.35
    fore_open = good("fore_wing", 0.85, 0.55) and flat["fore_wing"] > 0.35
    contrast = float(np.abs(animal.coat.border - animal.coat.base).max())
    told = {
        "eyespots": good("eyespot", 0.5) if has_spots else hind_open and fore_open and span > 30,
        "eyespot_number": has_spots and good("eyespot", 0.85, 0.6) and span > 40,
        "wing_pattern": wing and span > 35 and max(flat.values()) > 0.3,
        "wing_border": wing
        and kept[at["wing"]] > 0.75
        and span > 35
        and max(flat.values()) > 0.3
        and (state["wing_border"] == "plain" or contrast > 0.15),
        "hindwing_tails": good("tail", 0.6, 0.5) if state["hindwing_tails"] == "present" else hind_open and posture != "tented",
        "wing_margin": good("wing", 0.85) and span > 45 and max(flat.values()) > 0.5,
        "forewing_shape": good("fore_wing", 0.9, 0.6) and flat["fore_wing"] > 0.6 and span > 30,
        "antenna_shape": good("antennae", 0.8, 0.5) and span > 80,
        "resting_posture": good("wing", 0.75) and span > 20,
        "body_hair": visible[at["thorax"]] and span > 55,
        # Where marks cover about as much as the ground does, or the wings are clear, neither colour is the wings' own.
        "wing_colour": wing and state["wing_pattern"] not in ("chequered", "transparent", "striped"),
    }
    return visible, in_frame, np.array([bool(told[name]) for name in CHARACTERS])
