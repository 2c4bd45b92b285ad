"""Rooms whose specimens are solid: sampling, cameras, and pictures with masks of surfaces and ribbons in space.

A room says what its specimens look like (`Troupe`); here they are drawn, lit, put on the common grounds and photographed. Everything
depends on (seed, index, name) through named draws, so that a twin with one state changed keeps all the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

from concept_cam.demo.worlds.canvas import Canvas
from concept_cam.demo.worlds.draws import Draws, OneDraw, Style, StyledDraws
from concept_cam.demo.worlds.family import SCENES, Rendering, Specimens, View, Vocabulary
from concept_cam.demo.worlds.solids import (
    FINE,
    Array,
    Facets,
    Lens,
    Painted,
    Samples,
    blend,
    cast,
    half_of,
    joined,
    moved_outline,
    paint,
    samples,
)
from concept_cam.demo.worlds.studio import Studio, generator
from concept_cam.demo.worlds.surroundings import vegetation

Draw = Callable[..., float]
"""`draw(name, low=0, high=1)`: one named random number of a specimen."""

VIEWS: Final = {"whole": 1.0, "closeup": 0.0, "mixed": 1.0 / 3.0}
"""View -> share of whole specimens."""


@dataclass(frozen=True)
class Frame:
    """What the camera of a specimen is aimed by. Lengths are in the specimen's own unit, z points away from the ground at z = 0.

    Attributes:
        core: points [N, 3] that a picture of the whole has to hold; the first two are the ends of its long axis, its front first.
        sites: mask -> where the part is or would be, [3].
        reaches: mask -> rough diameter of that place.
    """

    core: npt.NDArray[np.floating]
    sites: Mapping[str, npt.NDArray[np.floating]]
    reaches: Mapping[str, float]


@dataclass(frozen=True)
class Shape:
    """A specimen in space.

    Attributes:
        facets: all that is drawn of it, with the numbers of `Troupe.pieces`.
        frame: its own places; the camera is aimed by those that its twins share.
        details: name -> size of a detail by which a character is told; the room's own.
    """

    facets: Facets
    frame: Frame
    details: Mapping[str, float]


@dataclass(frozen=True)
class Light:
    """Light on a specimen, as the camera sees it.

    Attributes:
        towards: [3], direction of the sun.
        ambient: light from everywhere, 0 to 1.
        colour: [3], of the sun.
    """

    towards: npt.NDArray[np.floating]
    ambient: float
    colour: npt.NDArray[np.floating]


@dataclass(frozen=True)
class Sight:
    """What a room is told when it judges what can be told from a picture, one specimen.

    Attributes:
        state: character -> state.
        seen: mask -> pixels.
        share: mask -> share of what would be seen if nothing hid it and the picture had no edge.
        inside: mask -> share of it that lies in the frame, hidden or not.
        visible: masks that count as visible.
        free: mask -> the place where it is or would be lies in the frame, and nothing foreign is before it.
        scale: pixels per unit.
        blur: standard deviation of the blur in pixels.
        shape: the specimen.
        view: matrix [3, 3] from space to the camera.
    """

    state: Mapping[str, str]
    seen: Mapping[str, float]
    share: Mapping[str, float]
    inside: Mapping[str, float]
    visible: frozenset[str]
    free: Mapping[str, bool]
    scale: float
    blur: float
    shape: Shape
    view: npt.NDArray[np.floating]

    @property
    def overhead(self) -> float:
        """Cosine of the angle between the line of sight and the upright of the specimen: 1 seen from above, 0 from the side."""
        return float(self.view[2, 2])


@dataclass(frozen=True)
class Troupe:
    """What a room brings.

    Attributes:
        vocabulary: its words.
        pieces: what is drawn, in the order of the numbers in `Facets.piece`.
        masks: mask -> the pieces that it holds.
        sides: piece -> 1 for a left one, 2 for a right one.
        framing: characters whose sampled states the camera is aimed by.
        canonical: character -> state of the specimen that the camera is aimed by, for all other characters.
        frame: states -> what a camera is aimed by.
        build: states -> shape.
        view: turns a specimen before the camera: matrix [3, 3], rows are the picture's x, its y (down), and towards the camera.
        colour: states, the states that twins keep in mind, samples, shape, light -> colours [S, 3].
        judge: which characters can be told.
        least_share: mask -> least share at which it counts as visible; 0.5 for others.
        least_pixels: mask -> least pixels; 8 for others.
        focus: mask -> weight as what a close-up is aimed at.
        close: mask -> what a close-up of it has to show, in units.
        styles: style -> what it draws otherwise.
        profiles: profile -> shares of the styles.
        state_weights: character -> weights of its states, where they are not alike.
        kinds: kinds of specimens: weight, and character -> state -> weight; drawn where the style has `kinds` above zero.
        scene_weights: scene -> weight, 1 for others.
        grounds: scene -> weights of the common grounds that it may have; a scene that is left out is a garden out of focus.
        surround: paints what lies about on the ground of a scene, before the specimen is put on it.
        props: solid things under, beside and before a specimen.
        flat: specimens lie flat, and their shadows are their outlines, moved.
    """

    vocabulary: Vocabulary
    pieces: tuple[str, ...]
    masks: Mapping[str, tuple[str, ...]]
    sides: Mapping[str, int]
    framing: tuple[str, ...]
    canonical: Mapping[str, str]
    frame: Callable[[Draw, Mapping[str, str]], Frame]
    build: Callable[[Draw, Mapping[str, str]], Shape]
    view: Callable[[Draw], npt.NDArray[np.floating]]
    colour: Callable[[Draw, Mapping[str, str], Mapping[str, str], Samples, Shape, Light], Array]
    judge: Callable[[Sight], Mapping[str, bool]]
    least_share: Mapping[str, float]
    least_pixels: Mapping[str, float]
    focus: Mapping[str, float]
    close: Mapping[str, float]
    styles: Mapping[str, Style]
    profiles: Mapping[str, Mapping[str, float]]
    state_weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scene_weights: Mapping[str, float] = field(default_factory=dict)
    kinds: Sequence[tuple[float, Mapping[str, Mapping[str, float]]]] = ()
    grounds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    surround: Callable[[Canvas, np.random.Generator, str, Place], None] = lambda canvas, rng, scene, place: None
    props: Callable[[Draw, str, Shape | None], Sequence[Prop]] = lambda draw, scene, shape: ()
    flat: bool = False


@dataclass(frozen=True)
class Place:
    """Where a specimen will be in its picture.

    Attributes:
        at: pixel (x, y) of its middle.
        span: its length in pixels.
        way: direction of its long axis in the picture, radians.
    """

    at: tuple[float, float]
    span: float
    way: float


@dataclass(frozen=True)
class Prop:
    """A thing that is no specimen.

    Attributes:
        facets: its facets, of one piece; in space, in units of the specimen, the ground at z = 0. Or, if `flat`, as the camera sees them,
            in picture widths from the middle of the picture.
        colour: samples, light -> colours.
        flat: it is given in the picture.
    """

    facets: Facets
    colour: Callable[[Samples, Light], Array]
    flat: bool = False


def one(troupe: Troupe, specimens: Specimens, i: int) -> OneDraw:
    """Named numbers of specimen `i`."""
    style = tuple(troupe.styles.values())[int(specimens.style[i])]
    return OneDraw(int(specimens.seed[i]), int(specimens.index[i]), style)


def draws_of(troupe: Troupe, specimens: Specimens) -> Draws:
    """Random numbers of specimens in their styles."""
    styles = tuple(troupe.styles.values())
    return StyledDraws(specimens.seed, specimens.index, specimens.style, styles)


def sample(
    troupe: Troupe,
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
    words = troupe.vocabulary
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}: expected one of {', '.join(VIEWS)}")
    chosen = words.scenes if scenes is None else tuple(scenes)
    unknown = [name for name in chosen if name not in words.scenes]
    if unknown or not chosen:
        raise ValueError(f"unknown scenes {unknown}: expected one or more of {', '.join(words.scenes)}")
    fixed = {name: words.state_number(name, state) for name, state in (traits or {}).items()}
    if profile not in troupe.profiles:
        raise ValueError(f"unknown profile {profile!r}: expected one of {', '.join(troupe.profiles)}")
    index = np.arange(start, start + count, dtype=np.int64)
    seeds = np.full(count, seed, dtype=np.int64)
    style = Draws(seeds, index).choice("style", [troupe.profiles[profile].get(name, 0.0) for name in troupe.styles])
    draws = StyledDraws(seeds, index, style, tuple(troupe.styles.values()))
    states = draw_states(troupe, draws)
    for name, state in fixed.items():
        states[:, list(words.characters).index(name)] = state
    focus = draws.choice("focus", [troupe.focus.get(name, 0.0) for name in words.masks])
    focus = np.where(draws.chance("whole", VIEWS[view]), -1, focus)
    present = ~draws.chance("empty", (0.05 if view == "mixed" else 0.0) if empty is None else empty)
    usual = [troupe.scene_weights.get(name, 1.0) for name in chosen]
    own = [[each.scenes.get(name, 0.0) for name in chosen] for each in troupe.styles.values()]
    weights = np.array([row if any(row) else usual for row in own])[style]
    scene = np.array([words.scenes.index(name) for name in chosen])[draws.choice("scene", weights)]
    framing = np.zeros(count, dtype=np.int64)
    for name in troupe.framing:
        framing = framing * len(words.characters[name]) + states[:, list(words.characters).index(name)]
    return Specimens(words, seeds, index, states, present, focus, framing, scene, style)


def draw_states(troupe: Troupe, draws: Draws) -> npt.NDArray[np.int64]:
    """States of all characters, int64 [B, C]; of one kind of specimen where the draws say so."""
    words = troupe.vocabulary
    of_kind = draws.chance("kind.followed", 0.0) if troupe.kinds else None
    kind = draws.choice("kind", [weight for weight, _ in troupe.kinds]) if troupe.kinds else None
    found = []
    for name, options in words.characters.items():
        weights = np.array([troupe.state_weights.get(name, (1.0,) * len(options))], dtype=np.float64)
        if of_kind is not None and kind is not None:
            table = np.array(
                [
                    [tastes.get(name, {}).get(o, 0.0 if name in tastes else weights[0, k]) for k, o in enumerate(options)]
                    for _, tastes in troupe.kinds
                ]
            )
            weights = np.where(of_kind[:, None], table[kind], weights)
        found.append(draws.choice(f"state.{name}", weights))
    return np.stack(found, axis=1)


def canonical(troupe: Troupe, specimens: Specimens, i: int) -> dict[str, str]:
    """States that the camera of specimen `i` is aimed by."""
    words = troupe.vocabulary
    states = dict(troupe.canonical)
    number = int(specimens.framing[i])
    for name in reversed(troupe.framing):
        number, state = divmod(number, len(words.characters[name]))
        states[name] = words.characters[name][state]
    return states


@dataclass(frozen=True)
class Camera:
    """How one specimen is seen: `points @ matrix.T + shift`, then through `lens`."""

    matrix: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    lens: Lens

    def __call__(self, points: npt.NDArray[np.floating]) -> Array:
        """Points [..., 3] of the specimen as the camera sees them."""
        return np.asarray(points @ self.matrix.T + self.shift, dtype=np.float32)

    def pixels(self, points: npt.NDArray[np.floating]) -> Array:
        """Pixels (x, y) that show points [..., 3] of the specimen."""
        return self.lens(self(points))


def aim(troupe: Troupe, draw: Draw, framing: Frame, focus: int, size: tuple[int, int]) -> Camera:
    """The camera of a specimen, aimed by the shape that its twins share."""
    height, width = size
    matrix = np.asarray(troupe.view(draw), dtype=np.float32)
    near = draw("camera.near", 0.0, 0.22)
    seen = framing.core @ matrix.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    middle = 0.5 * (low + high)
    span = np.maximum(high - low, 1e-3)
    short = min(width, height)
    if focus < 0:
        share = draw("camera.share", 0.42, 0.98)
        if draw("camera.tight") < draw("camera.tight_share", 0.08, 0.08):
            share = draw("camera.overfull", 1.0, 1.3)
        scale = share * min(width / span[0], height / span[1])
        slack = np.maximum(0.5 * (np.array([width, height]) - span[:2] * scale), 0.0)
        spill = 0.12 * short if draw("camera.cut") < draw("camera.cut_share", 0.1, 0.1) else 0.0
        # Photographers put what they want to show near the middle.
        off = np.array([draw("camera.x", -1, 1), draw("camera.y", -1, 1)])
        jitter = off * np.abs(off) * (0.85 * slack + spill)
        target = middle
    else:
        name = troupe.vocabulary.masks[focus]
        # No closer than where the whole would be four times as wide as the picture.
        extent = max(troupe.close[name] * draw("camera.room", 1.0, 1.9), 0.25 * float(span[:2].max()))
        scale = short / extent
        target = np.asarray(framing.sites[name], dtype=np.float64) @ matrix.T
        jitter = np.array([draw("camera.x", -1, 1), draw("camera.y", -1, 1)]) * 0.16 * short
    lens = Lens(float(scale), 0.5 * width + float(jitter[0]), 0.5 * height + float(jitter[1]), near / max(float(span.max()), 1e-3) * 2)
    shift = -np.array([target[0], target[1], middle[2]], dtype=np.float32)
    return Camera(matrix, shift, lens)


def sun(draw: Draw, matrix: npt.NDArray[np.floating]) -> tuple[Light, npt.NDArray[np.floating]]:
    """The light as the camera sees it, and as the specimen does (its third number above zero)."""
    turn, rise = draw("sun.turn", -math.pi, math.pi), draw("sun.rise", 0.55, 1.35)
    down = np.array([math.cos(turn) * math.cos(rise), math.sin(turn) * math.cos(rise), math.sin(rise)])
    seen = matrix @ down
    # Somebody stands behind the camera with the light, more or less.
    seen = seen + np.array([0.0, 0.0, draw("sun.behind", 0.0, 0.8)])
    warm = draw("sun.warm", -0.06, 0.1)
    return (
        Light(
            (seen / np.linalg.norm(seen)).astype(np.float32),
            draw("sun.ambient", 0.35, 0.65),
            np.array([1 + warm, 1.0, 1 - warm], dtype=np.float32),
        ),
        down,
    )


_COMPANIONS: Final = 3
_FAR: Final = 10**9
"""What the number of a specimen is raised by to number its companion."""


@dataclass
class _Actor:
    """One specimen in one picture."""

    draw: Draw
    state: Mapping[str, str]
    kept: Mapping[str, str]
    framing: Frame
    shape: Shape
    camera: Camera
    first: int
    """Number of its first piece in the picture."""


def _cast_of(troupe: Troupe, specimens: Specimens, i: int, size: tuple[int, int]) -> list[_Actor]:
    """The specimen of picture `i` and those beside it."""
    if not specimens.present[i]:
        return []
    one_of = specimens[i]
    draw = one(troupe, specimens, i)
    kept = canonical(troupe, specimens, i)
    framing = troupe.frame(draw, kept)
    camera = aim(troupe, draw, framing, int(specimens.focus[i]), size)
    state = specimens.trait(i)
    number = int(draws_of(troupe, one_of).choice("several", (1.0,) + (0.0,) * _COMPANIONS)[0]) if specimens.focus[i] < 0 else 0
    if number:
        camera = replace(camera, lens=replace(camera.lens, scale=camera.lens.scale * draw("several.back", 0.45, 0.85)))
    found = [_Actor(draw, state, kept, framing, troupe.build(draw, state), camera, 0)]
    span = float(np.ptp(framing.core @ camera.matrix.T, axis=0)[:2].max())
    for k in range(number):
        theirs = replace(one_of, index=one_of.index + _FAR * (k + 1))
        own = draws_of(troupe, theirs)
        states = one_of.states if draw("several.same") < 0.7 else draw_states(troupe, own)
        theirs = replace(theirs, states=states)
        their_draw = one(troupe, theirs, 0)
        shape = troupe.build(their_draw, theirs.trait(0))
        turn = draw(f"several.turn{k}", -math.pi, math.pi)
        spin = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]], dtype=np.float32)
        way = draw(f"several.way{k}", -math.pi, math.pi) if k == 0 else draw("several.way0", -math.pi, math.pi) + (2.1, 4.2)[k - 1]
        far = span * draw(f"several.far{k}", 0.75, 1.15)
        scale = draw(f"several.size{k}", 0.8, 1.15)
        # On the same ground: turned about its upright, moved along the ground.
        place = np.array([math.cos(way) * far, math.sin(way) * far, 0.0])
        matrix = camera.matrix @ spin * scale
        shift = camera.matrix @ place + camera.shift
        found.append(
            _Actor(
                their_draw,
                theirs.trait(0),
                theirs.trait(0),
                framing,
                shape,
                Camera(matrix.astype(np.float32), shift.astype(np.float32), camera.lens),
                (k + 1) * len(troupe.pieces),
            )
        )
    return found


def geometry(troupe: Troupe, specimens: Specimens, i: int, size: tuple[int, int]) -> tuple[Shape, Camera]:
    """Shape and camera of specimen `i` in a picture of `size` (H, W)."""
    actor = _cast_of(troupe, specimens, i, size)[0]
    return actor.shape, actor.camera


def _grounds(troupe: Troupe, draws: Draws, specimens: Specimens) -> npt.NDArray[np.int64]:
    """Number of the common ground of every picture, int64 [B]."""
    table = np.array(
        [[troupe.grounds.get(scene, {"grass": 1.0}).get(name, 0.0) for name in SCENES] for scene in troupe.vocabulary.scenes],
    )
    return draws.choice("ground", table[specimens.scene]) if len(specimens) else np.zeros(0, dtype=np.int64)


@dataclass
class _Take:
    """One picture without its ground."""

    place: Place
    shadow: Array
    seen: Samples | None
    colours: Array
    bits: npt.NDArray[np.uint32]
    visible: npt.NDArray[np.bool_]
    judgeable: npt.NDArray[np.bool_]


def _shoot(troupe: Troupe, specimens: Specimens, i: int, size: tuple[int, int], blur: float) -> _Take:
    """Everything that stands on the ground of picture `i`."""
    height, width = size
    words = troupe.vocabulary
    actors = _cast_of(troupe, specimens, i, size)
    draw = actors[0].draw if actors else one(troupe, specimens, i)
    matrix = actors[0].camera.matrix if actors else np.asarray(troupe.view(draw), dtype=np.float32)
    light, down = sun(draw, matrix)
    props = troupe.props(draw, words.scenes[int(specimens.scene[i])], actors[0].shape if actors else None)
    pieces = len(troupe.pieces)
    cameras = [actor.camera for actor in actors]
    ground_camera = cameras[0] if cameras else Camera(matrix, np.zeros(3, np.float32), Lens(0.7 * min(size), 0.5 * width, 0.5 * height))
    lot: list[Facets] = []
    for actor in actors:
        turned = actor.shape.facets.moved(actor.camera.matrix, actor.camera.shift)
        lot.append(replace(turned, piece=turned.piece + actor.first))
    base = pieces * (_COMPANIONS + 1)
    for k, prop in enumerate(props):
        if prop.flat:
            scale = width / ground_camera.lens.scale
            middle = (
                np.array([0.5 * width, 0.5 * height]) - np.array([ground_camera.lens.x, ground_camera.lens.y])
            ) / ground_camera.lens.scale
            moved = prop.facets.moved(
                np.eye(3, dtype=np.float32) * np.float32(scale), np.array([middle[0], middle[1], 0.0], dtype=np.float32)
            )
        else:
            moved = prop.facets.moved(ground_camera.matrix, ground_camera.shift)
        lot.append(moved.renumbered(base + k))
    place = Place((0.5 * width, 0.5 * height), 0.6 * min(size), draw("empty.way", -math.pi, math.pi))
    if actors:
        ends = actors[0].camera.pixels(actors[0].framing.core[:2])
        core = actors[0].camera.pixels(actors[0].framing.core)
        middle = core.mean(axis=0)
        across = ends[0] - ends[1]
        place = Place(
            (float(middle[0]), float(middle[1])), float(np.ptp(core, axis=0).max()), math.atan2(float(across[1]), float(across[0]))
        )
    if not lot:
        none = np.zeros((height * FINE, width * FINE), dtype=np.uint32)
        told = np.zeros(len(words.masks), dtype=bool), np.zeros(len(words.characters), dtype=bool)
        return _Take(place, np.zeros(size, np.float32), None, np.zeros((0, 3), np.float32), none, *told)
    painted = paint(joined(lot), ground_camera.lens, size)
    seen = samples(painted)
    shade = np.zeros(size, np.float32)
    strength = draw("shadow.strength", 0.1, 0.7)
    softness = draw("shadow.soft", 0.012, 0.05) * min(size)
    floor = -draw("shadow.floor", 0.0, 0.05)
    for actor in actors:
        if troupe.flat:
            fall = actor.camera.pixels(-down * 0.06) - actor.camera.pixels(np.zeros(3))
            shade = np.maximum(shade, moved_outline(painted.owner >= 0, fall, softness))
            break
        shade = np.maximum(shade, cast(actor.shape.facets, actor.camera.lens, size, actor.camera, down, floor, softness))
    shade *= strength
    rgb = np.zeros((len(seen.at), 3), dtype=np.float32)
    for actor in actors:
        rows = np.flatnonzero((seen.piece >= actor.first) & (seen.piece < actor.first + pieces))
        mine = seen[rows]
        rgb[rows] = troupe.colour(actor.draw, actor.state, actor.kept, replace(mine, piece=mine.piece - actor.first), actor.shape, light)
    for k, prop in enumerate(props):
        rows = np.flatnonzero(seen.piece == base + k)
        if len(rows):
            rgb[rows] = prop.colour(seen[rows], light) * (1.0 - shade.reshape(-1)[seen.at[rows]])[:, None]
    piece_map = painted.pieces()
    bits = _bits(troupe, piece_map, base)
    visible, judgeable = _truth(troupe, actors, painted, piece_map, size, blur, base)
    return _Take(place, shade, seen, rgb, bits, visible, judgeable)


_LEFT, _RIGHT = 30, 31
"""Bits that say left and right, above those of the masks."""


def _bits(troupe: Troupe, piece_map: npt.NDArray[np.int32], base: int) -> npt.NDArray[np.uint32]:
    """Masks and sides of every sample as bits, uint32 [H * FINE, W * FINE]."""
    pieces = len(troupe.pieces)
    own = np.zeros(pieces, dtype=np.uint32)
    for number, name in enumerate(troupe.vocabulary.masks):
        own[[troupe.pieces.index(piece) for piece in troupe.masks[name]]] |= np.uint32(1 << number)
    for piece, side in troupe.sides.items():
        own[troupe.pieces.index(piece)] |= np.uint32(1 << (_LEFT if side == 1 else _RIGHT))
    # Every actor's pieces in turn, then props, then nothing (-1).
    table = np.zeros(int(max(piece_map.max(initial=0), base)) + 2, dtype=np.uint32)
    table[:base] = np.tile(own, base // pieces)
    return table[piece_map]


def _truth(
    troupe: Troupe,
    actors: Sequence[_Actor],
    painted: Painted,
    piece_map: npt.NDArray[np.int32],
    size: tuple[int, int],
    blur: float,
    base: int,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which parts are visible and which characters can be told, of the first actor; where others differ, they cannot be told."""
    words, pieces = troupe.vocabulary, len(troupe.pieces)
    total, within = painted.areas(base), painted.areas(base, size)
    fine = piece_map.size / (size[0] * size[1])
    there = np.bincount(piece_map[piece_map >= 0], minlength=base)[:base] / fine
    visible = np.zeros(len(words.masks), dtype=bool)
    judgeable = np.zeros(len(words.characters), dtype=bool)
    for number, actor in enumerate(actors):
        seen, share, inside = {}, {}, {}
        for name in words.masks:
            own = [actor.first + troupe.pieces.index(piece) for piece in troupe.masks[name]]
            seen[name] = float(there[own].sum())
            whole = max(float(total[own].sum()), 1e-6)
            share[name], inside[name] = seen[name] / whole, float(within[own].sum()) / whole
        good = frozenset(
            name
            for name in words.masks
            if seen[name] >= troupe.least_pixels.get(name, 8.0) and share[name] >= troupe.least_share.get(name, 0.5)
        )
        if number == 0:
            free = {name: _free(actor, name, piece_map, pieces, size) for name in words.masks}
            sight = Sight(actor.state, seen, share, inside, good, free, actor.camera.lens.scale, blur, actor.shape, actor.camera.matrix)
            verdict = troupe.judge(sight)
            judgeable = np.array([verdict[name] for name in words.characters], dtype=bool)
        elif sum(seen.values()) > 12.0:
            judgeable &= np.array([actor.state[name] == actors[0].state[name] for name in words.characters], dtype=bool)
        visible |= np.array([name in good for name in words.masks], dtype=bool)
    return visible, judgeable


def _free(actor: _Actor, name: str, piece_map: npt.NDArray[np.int32], pieces: int, size: tuple[int, int]) -> bool:
    """The place of a part lies in the frame, and little that is foreign lies in it."""
    x, y = actor.camera.pixels(np.asarray(actor.shape.frame.sites[name], dtype=np.float32))
    reach = max(0.5 * actor.shape.frame.reaches[name] * actor.camera.lens.scale, 1.0)
    height, width = size
    if not (reach <= x <= width - reach and reach <= y <= height - reach):
        return False
    fine = piece_map.shape[0] // height
    window = piece_map[int((y - reach) * fine) : int((y + reach) * fine) + 1, int((x - reach) * fine) : int((x + reach) * fine) + 1]
    foreign = (window >= 0) & ((window < actor.first) | (window >= actor.first + pieces))
    # What lies under the specimen (a leaf, a flower) is foreign too, but far larger than the place.
    return bool(foreign.mean() < 0.25) or bool(
        foreign.mean() > 0.6 and actor.first == 0 and (window[foreign] >= pieces * (_COMPANIONS + 1)).all()
    )


_SHARP: Final = 0.55
"""Up to which number of `ground.soft` the ground is in focus."""


def _out_of_focus(ground: Array, soft: float) -> Array:
    """The ground as a camera sees it that is focused on what stands above it, float32 [H, W, 3]."""
    if soft <= _SHARP:
        return np.ascontiguousarray(ground, dtype=np.float32)
    picture = Image.fromarray(np.rint(255 * np.clip(ground, 0, 1)).astype(np.uint8))
    blurred = picture.filter(ImageFilter.GaussianBlur((soft - _SHARP) * 0.03 * max(ground.shape[:2])))
    return np.asarray(blurred, dtype=np.float32) / np.float32(255)


def render(
    troupe: Troupe,
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
    words, count = troupe.vocabulary, len(specimens)
    draws = draws_of(troupe, specimens)
    studio = Studio.of(draws, _grounds(troupe, draws, specimens), (height, width))
    images = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    planes = torch.zeros(count, len(words.masks), height, width, dtype=torch.bool) if masks else None
    side = torch.zeros(count, height, width, dtype=torch.uint8) if masks and words.paired else None
    visible = np.zeros((count, len(words.masks)), dtype=bool)
    in_frame = visible.copy()
    judgeable = np.zeros((count, len(words.characters)), dtype=bool)
    growth = (width / 128) ** 0.45
    order = np.arange(len(words.masks), dtype=np.uint32)
    for i in range(count):
        scene = words.scenes[int(specimens.scene[i])]
        rng = generator(draws, i, "surroundings")
        ground = studio.ground(i) if scene in troupe.grounds else vegetation(rng, (height, width))
        take = _shoot(troupe, specimens, i, (height, width), float(studio.exposure.numbers["blur"][i]) * growth)
        canvas = Canvas(_out_of_focus(ground, one(troupe, specimens, i)("ground.soft", 0.0, 0.0)))
        troupe.surround(canvas, rng, scene, take.place)
        rgb = canvas.rgb * (1.0 - take.shadow)[..., None]
        if take.seen is not None:
            rgb = blend(take.seen, take.colours, rgb)
        images[i] = studio.photograph(i, rgb, noise=noise)
        visible[i], judgeable[i] = take.visible, take.judgeable
        in_frame[i] = (np.bitwise_or.reduce(take.bits, axis=None) >> order) & 1
        if planes is not None:
            most = half_of(take.bits)
            for number in np.flatnonzero(in_frame[i]).tolist():
                planes[i, number] = torch.from_numpy(((most >> np.uint32(number)) & 1).astype(bool))
            if side is not None:
                side[i] = torch.from_numpy(np.where((most >> _LEFT) & 1, 1, np.where((most >> _RIGHT) & 1, 2, 0)).astype(np.uint8))
    where = torch.device(device)

    def moved(value: Any) -> torch.Tensor:
        return (torch.from_numpy(value) if isinstance(value, np.ndarray) else value).to(where)

    return Rendering(
        images=moved(images),
        masks=None if planes is None else moved(planes),
        visible=moved(visible),
        judgeable=moved(judgeable),
        in_frame=moved(in_frame),
        side=None if side is None else moved(side),
    )
