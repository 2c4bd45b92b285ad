"""The fish world: sample specimens and render them with part masks.

A specimen is a small record: where its random numbers come from (seed, index), its trait states and its view. Every
other parameter is drawn from a hash of (seed, index, parameter name), so a twin with one state changed keeps all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from concept_cam.demo.worlds.draws import Draws, Float, StyledDraws
from concept_cam.demo.worlds.family import SCENES, Rendering, Specimens, View
from concept_cam.demo.worlds.fish.anatomy import Anatomy, build
from concept_cam.demo.worlds.fish.camera import Camera, camera_beside, camera_numbers, fish_coordinates, pixels, place
from concept_cam.demo.worlds.fish.painting import PATTERNS, Coat, Ingredients, coat, coat_numbers, paint, skin_reading, sunlight
from concept_cam.demo.worlds.fish.poses import VIEWPOINTS, Pose, pose
from concept_cam.demo.worlds.fish.styles import PROFILES, STYLES
from concept_cam.demo.worlds.fish.things import THINGS, draw_hands, hands
from concept_cam.demo.worlds.fish.traits import CHARACTER_PART, CHARACTERS, FISH, MASKS, PRESENCE_CHARACTERS
from concept_cam.demo.worlds.photograph import develop, exposure, tone
from concept_cam.demo.worlds.sampling import colours, columns
from concept_cam.demo.worlds.scenes import ground, ground_reading, lay_objects, light_field, scenery, shadow
from concept_cam.demo.worlds.textures import Atlas, atlas

Engine = Literal["eager", "compiled"]

_STATE_WEIGHTS: dict[str, tuple[float, ...]] = {
    "pelvic_fin": (0.7, 0.3),
    "eye_spot": (0.35, 0.65),
}
"""Shares of the states where they are not all equal."""

_SCENE_WEIGHTS: dict[str, float] = {"steel": 3.0, "white_tray": 1.6, "grey_tray": 1.6}
"""Scenes that collections have more of than of the rest."""

FOCUS_WEIGHTS: dict[str, float] = {
    "caudal_fin": 3.0,
    "dorsal_fin": 3.0,
    "head": 1.5,
    "mouth": 1.0,
    "barbels": 1.0,
    "eye": 0.6,
    "operculum": 0.6,
    "trunk": 1.5,
    "lateral_line": 0.3,
    "adipose_fin": 1.5,
    "pelvic_fin": 1.2,
    "anal_fin": 0.8,
    "pectoral_fin": 1.2,
    "eye_spot": 0.8,
}
"""What a close-up is aimed at. A part that this fish lacks is aimed at too: the camera must not betray its presence."""


@dataclass(frozen=True)
class FishRendering(Rendering):
    """Pictures of fishes and their truth: masks are those of all fishes; a state is judgeable only if all agree in it.

    Attributes:
        viewpoint: int64 [B], number in `VIEWPOINTS`: from where the fish is seen; `between` where several fishes lie differently.
        tail: float32 [B], how far the tail fin is spread before the camera: 1 flat, near 0 edge-on or folded.
        number: int64 [B], fishes in the frame.
        things: bool [B, T, H, W] in the order of `THINGS`, what is seen of things that are no fish; None when masks were not asked for.
    """

    viewpoint: torch.Tensor
    tail: torch.Tensor
    number: torch.Tensor
    things: torch.Tensor | None


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
    """Draw `count` specimens, numbers `start` to `start + count - 1` under `seed`.

    Args:
        count: how many.
        seed: any non-negative integer; equal arguments give equal specimens.
        view: `whole`, `closeup`, or `mixed` (one third whole).
        scenes: the scenes to choose from, names in `SCENES`; all by default.
        traits: character -> state for the characters that are not to vary.
        empty: share of pictures without a fish; by default 0.05 in `mixed`, else 0.
        start: number of the first specimen.
        profile: name in `styles.PROFILES`. `plain` is the world of the benchmark; `photographs` mixes in styles that look more like
            photographs, in which fishes lie in any way (seen from above or below, edge-on tails, folded fins), wet, badly lit, blurred
            and cut off by the frame.

    Raises:
        ValueError: an unknown view, scene, character, state or profile.
    """
    shares = {"whole": 1.0, "closeup": 0.0, "mixed": 1.0 / 3.0}
    if view not in shares:
        raise ValueError(f"unknown view {view!r}: expected one of {', '.join(shares)}")
    scenes = SCENES if scenes is None else scenes
    unknown = [name for name in scenes if name not in SCENES]
    if unknown or not scenes:
        raise ValueError(f"unknown scenes {unknown}: expected one or more of {', '.join(SCENES)}")
    fixed = {name: FISH.state_number(name, state) for name, state in (traits or {}).items()}
    index = np.arange(start, start + count, dtype=np.int64)
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: expected one of {', '.join(PROFILES)}")
    seeds = np.full(count, seed, dtype=np.int64)
    style = Draws(seeds, index).choice("style", [PROFILES[profile].get(name, 0.0) for name in STYLES])
    draws = _draws(seeds, index, style)
    states = _draw_states(draws)
    for name, state in fixed.items():
        states[:, list(CHARACTERS).index(name)] = state
    focus = draws.choice("focus", [FOCUS_WEIGHTS[name] for name in MASKS])
    focus = np.where(draws.chance("whole", shares[view]), -1, focus)
    present = ~draws.chance("empty", (0.05 if view == "mixed" else 0.0) if empty is None else empty)
    usual = [_SCENE_WEIGHTS.get(name, 1.0) for name in scenes]
    # A style has its own scenes, unless none of them was asked for.
    own = [[each.scenes.get(name, 0.0) for name in scenes] for each in STYLES.values()]
    scene_weights = np.array([row if any(row) else usual for row in own])[style]
    scene = np.array([SCENES.index(name) for name in scenes])[draws.choice("scene", scene_weights)]
    framing = states[:, list(CHARACTERS).index("body_shape")].copy()
    return Specimens(FISH, draws.seed, index, states, present, focus, framing, scene, style)


def _draws(seed: npt.NDArray[np.int64], index: npt.NDArray[np.int64], style: npt.NDArray[np.int64]) -> Draws:
    """Random numbers of specimens in their styles."""
    return StyledDraws(seed, index, style, tuple(STYLES.values())) if style.any() else Draws(seed, index)


def _draw_states(draws: Draws) -> npt.NDArray[np.int64]:
    """States of all characters, int64 [B, C]."""
    return np.stack(
        [draws.choice(f"state.{name}", _STATE_WEIGHTS.get(name, (1.0,) * len(options))) for name, options in CHARACTERS.items()],
        axis=1,
    )


def render(
    specimens: Specimens,
    size: int | tuple[int, int],
    *,
    masks: bool = False,
    device: str | torch.device = "cpu",
    noise: bool = True,
    engine: Engine = "eager",
) -> FishRendering:
    """Render specimens at `size` (pixels; an int is square, a pair is (H, W)).

    Args:
        noise: False leaves out sensor noise and compression (blur, light and colour stay).
        engine: `eager` runs anywhere; `compiled` fuses the arithmetic with `torch.compile`, which needs a C++ compiler and
            a minute or two at first use of a size, then is several times faster. Both give the same pictures within
            rounding.

    Raises:
        ValueError: an empty size or an unknown engine.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size {size!r}: expected at least one pixel each way")
    if engine not in ("eager", "compiled"):
        raise ValueError(f"unknown engine {engine!r}: expected eager or compiled")
    count, where = len(specimens), torch.device(device)
    chunk = _chunk(height * width, where)
    if engine == "compiled" and count % chunk:
        # A compiled program is for one batch size: fill the last chunk.
        specimens = specimens[np.minimum(np.arange(-(-count // chunk) * chunk), count - 1)]
    textures = atlas(str(where))
    draws = _draws(specimens.seed, specimens.index, specimens.style)
    lying, camera, framing = _geometry(specimens, (height, width))
    scenes, settings = scenery(draws, specimens.scene), exposure(draws)
    coats = coat(draws, specimens.states, camera.facing, camera.angle, scenes.colours["base"])
    fishes = _Fishes.of(specimens, lying, camera, coats)
    others = _companions(specimens, draws, fishes, scenes.colours["base"])
    held = hands(draws, framing, camera, specimens.present)
    picture_numbers = {**scenes.numbers, **settings.numbers}
    base, compose = _programs(engine)
    whole = engine == "compiled"
    pictures, planes, things, amounts = [], [], [], []
    for begin in range(0, len(specimens), chunk):
        rows = slice(begin, min(begin + chunk, len(specimens)))
        n = columns(picture_numbers, rows, where)
        tints = colours({**scenes.colours, "balance": settings.balance}, rows, where)
        rgb, relief, grain = base(n, tints, ground_reading(scenes, rows, width, textures, where), textures.texels, height, width)
        covers = None
        if masks and (scenes.objects[rows].any() or held.held[rows].any()):
            covers = {name: torch.zeros_like(grain) for name in (*THINGS[1:], "finger")}
        lay_objects(scenes, rows, rgb, relief, grain, covers)
        layers = [layer for fish in others if (layer := _lay_companions(fish, rows, rgb, n, textures, where)) is not None]
        before = draw_hands(held, rows, height, width, grain) if held.held[slice(None) if whole else rows].any() else None
        under = None
        if layers or (whole and others):
            under = torch.zeros_like(grain)
            for layer in layers:
                under[layer.at] = torch.maximum(under[layer.at], layer.cover)
        rgb, parts, amount, hidden = compose(
            fishes.ingredients(rows, textures, where, whole), n, tints, textures.texels, rgb, under, before
        )
        pictures.append(develop(rgb, settings, rows, textures, noise=noise))
        amounts.append(amount)
        if before is not None:
            held_at = np.flatnonzero(held.held[rows])
            fishes.hide(held_at + begin, before[1][held_at])
        for layer in reversed(layers):
            hidden = _add_companions(layer, parts, hidden)
        if masks:
            planes.append(parts > 0.5)
            things.append(_thing_masks(covers, hidden, None if before is None else before[1], planes[-1]))
    return _rendering(fishes, others, pictures, planes if masks else None, things, amounts, count, (height, width), where)


@dataclass
class _Fishes:
    """One fish for each of some pictures of a batch, ready to be painted.

    Attributes:
        rows: int64 [M], the pictures.
        seen: float32 [M, P], pixels of each part that are seen; filled in while painting, for companions only.
        blocked: bool [M, P], something lies before the place of the part; filled in while painting.
    """

    rows: npt.NDArray[np.int64]
    specimens: Specimens
    lying: Pose
    camera: Camera
    coats: Coat
    numbers: dict[str, Float]
    seen: Float
    blocked: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        specimens: Specimens,
        lying: Pose,
        camera: Camera,
        coats: Coat,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> _Fishes:
        """Fishes as they lie before their cameras."""
        fish_numbers = {**coat_numbers(lying.anatomy, coats, camera.scale), **camera_numbers(camera, lying.anatomy)}
        fish_numbers["fish"] = specimens.present.astype(np.float32)
        shape = (len(specimens), len(MASKS))
        rows = np.arange(len(specimens)) if rows is None else rows
        return cls(rows, specimens, lying, camera, coats, fish_numbers, np.zeros(shape, np.float32), np.zeros(shape, bool))

    def ingredients(self, rows: slice, textures: Atlas, where: torch.device, whole: bool) -> Ingredients:
        """What `paint` needs of the fishes in `rows`. `whole`: one program serves every chunk, so it has to hold what any of them needs."""
        anatomy, coats = self.lying.anatomy, self.coats
        return Ingredients(
            columns(self.numbers, rows, where),
            colours(coats.colours, rows, where),
            {name: torch.from_numpy(table[rows]).to(where) for name, table in anatomy.tables.items()},
            skin_reading(coats, self.camera.scale, rows, textures, where),
            tuple(name for name in PATTERNS if whole or (coats.pattern[rows] == name).any()),
            whole or bool(anatomy.present["barbels"][rows].any()),
            whole or bool(anatomy.values["has.far"][rows].any()),
            bool(_posed(self.specimens)[slice(None) if whole else rows].any()),
        )

    def hide(self, rows: npt.NDArray[np.int64], covers: torch.Tensor) -> None:
        """Note which parts of the fishes in `rows` [k] have their place behind `covers` [k, H, W]."""
        places = pixels(self.camera, self.lying.anatomy, self.lying.anatomy.sites)
        reach = np.maximum(0.5 * self.lying.anatomy.extents * self.camera.scale[:, None], 1.0)
        for row, cover in zip(rows.tolist(), covers, strict=True):
            for p, ((x, y), r) in enumerate(zip(places[row], reach[row], strict=True)):
                window = cover[max(int(y - r), 0) : max(int(y + r) + 1, 0), max(int(x - r), 0) : max(int(x + r) + 1, 0)]
                self.blocked[row, p] |= window.numel() > 0 and float(window.mean()) > 0.25

    def truth(self, seen: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which parts are visible and which characters can be told, given the pixels `seen` [M, P] of each part."""
        anatomy, there = self.lying.anatomy, self.specimens.present[:, None]
        share = seen / np.maximum(anatomy.areas * self.camera.scale[:, None] ** 2, 1e-3)
        visible = _visible(seen, share) & there
        return visible, _judgeable(visible, share, self.blocked, anatomy, self.camera) & self.lying.judged & there


_COMPANIONS = 3
"""Most fishes that lie beside another."""

_USUAL_DEPTH = np.array([0.25, 0.12, 0.5], dtype=np.float32)
"""Body depths of the states of `body_shape`."""

_FAR = 10**9
"""What the number of a specimen is raised by to number its companion."""


def _companion_count(draws: Draws, specimens: Specimens) -> npt.NDArray[np.int64]:
    number = draws.choice("several", (1.0,) + (0.0,) * _COMPANIONS)
    return np.where(specimens.present & (specimens.focus < 0), number, 0)


def _companions(specimens: Specimens, draws: Draws, fishes: _Fishes, base: Float) -> list[_Fishes]:
    """Fishes that lie beside those of the specimens, mostly of the same kind: the lowest layer first."""
    number, found = _companion_count(draws, specimens), []
    for k in range(int(number.max(initial=0))):
        rows = np.flatnonzero(number > k)
        main = specimens[rows]
        theirs = _draws(main.seed, main.index + _FAR * (k + 1), main.style)
        own, same = _draw_states(theirs), _draws(main.seed, main.index, main.style).chance("several.same", 0.7)
        states = np.where(same[:, None], main.states, own)
        framing = states[:, list(CHARACTERS).index("body_shape")]
        specimens_k = replace(main, index=theirs.index, states=states, framing=framing)
        lying = pose(theirs, build(theirs, states), _posed(main))
        side = np.where(draws.chance("several.side", 0.5)[rows], 1.0, -1.0) * (-1.0) ** k * (1.0 if k < 2 else 2.0)
        # By the shape that the camera is aimed by, so that the companions of twins lie alike.
        depth = _USUAL_DEPTH[main.framing]
        camera = camera_beside(theirs, fishes.camera[rows], depth, side.astype(np.float32))
        coats = coat(theirs, states, camera.facing, camera.angle, base[rows])
        # One sun shines on all.
        light = sunlight(_draws(main.seed, main.index, main.style), camera.facing, camera.angle)
        coats.numbers.update({name: value.astype(np.float32) for name, value in light.items()})
        found.append(_Fishes.of(specimens_k, lying, camera, coats, rows))
    return found[::-1]


@dataclass(frozen=True)
class _CompanionLayer:
    """Companions in a chunk: their place in the chunk and among all companions, coverage of parts and of the whole fish."""

    fishes: _Fishes
    at: torch.Tensor
    rows: slice
    parts: torch.Tensor
    cover: torch.Tensor


def _lay_companions(
    fishes: _Fishes, rows: slice, rgb: torch.Tensor, n: dict[str, torch.Tensor], textures: Atlas, where: torch.device
) -> _CompanionLayer | None:
    """Paint the companions in the pictures `rows` on their ground `rgb` [b, 3, H, W], in place."""
    first, last = np.searchsorted(fishes.rows, (rows.start, rows.stop))
    if first == last:
        return None
    mine = slice(int(first), int(last))
    at = torch.from_numpy(fishes.rows[mine] - rows.start).to(where)
    what = fishes.ingredients(mine, textures, where, False)
    u, v = fish_coordinates(what.numbers, *rgb.shape[-2:])
    painted = paint(what, textures.texels, u, v)
    lit = {name: value[at] for name, value in n.items()}
    ground_rgb = rgb[at] * (1.0 - shadow(lit, painted.solid))[:, None]
    rgb[at] = torch.lerp(ground_rgb, painted.rgb, painted.cover[:, None])
    return _CompanionLayer(fishes, at, mine, torch.stack([painted.parts[name] for name in MASKS], dim=1), painted.cover)


def _add_companions(layer: _CompanionLayer, parts: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Add what is seen of companions to the `parts` of the pictures, in place; returns what is `hidden` from those below."""
    left = layer.parts * (1.0 - hidden[layer.at])[:, None]
    layer.fishes.seen[layer.rows] = left.sum(dim=(2, 3)).cpu().numpy()
    parts[layer.at] = torch.maximum(parts[layer.at], left)
    hidden = hidden.clone()
    hidden[layer.at] = torch.maximum(hidden[layer.at], layer.cover)
    return hidden


def _thing_masks(
    covers: dict[str, torch.Tensor] | None, hidden: torch.Tensor, hand: torch.Tensor | None, fish: torch.Tensor
) -> torch.Tensor:
    """Masks of things, bool [b, T, H, W]: objects that no fish hides, and hands before the fish."""
    count, height, width = hidden.shape
    found = torch.zeros(count, len(THINGS), height, width, dtype=torch.bool, device=hidden.device)
    if covers is None:
        return found
    on_top = ~fish.any(dim=1)
    for t, name in enumerate(THINGS):
        cover = covers["finger" if name == "hand" else name]
        found[:, t] = (cover * (1.0 - hidden) > 0.5) & on_top
    if hand is not None:
        found &= (hand <= 0.5)[:, None]
        found[:, THINGS.index("hand")] |= hand > 0.5
    return found


def _rendering(
    fishes: _Fishes,
    others: list[_Fishes],
    pictures: list[torch.Tensor],
    planes: list[torch.Tensor] | None,
    things: list[torch.Tensor],
    amounts: list[torch.Tensor],
    count: int,
    size: tuple[int, int],
    where: torch.device,
) -> FishRendering:
    """Pictures with what is true of them; those beyond `count` are left out."""
    seen = torch.cat(amounts).cpu().numpy() if amounts else np.zeros((0, len(MASKS)), np.float32)
    visible, judgeable = fishes.truth(seen)
    viewpoint, number = fishes.lying.viewpoint.copy(), fishes.specimens.present.astype(np.int64)
    in_frame = seen > 0.5
    for other in others:
        there = other.seen.sum(axis=1) > _TRACE
        rows = other.rows[there]
        agree = other.specimens.states[there] == fishes.specimens.states[rows]
        judgeable[rows] &= agree
        visible[rows] |= other.truth(other.seen)[0][there]
        in_frame[rows] |= other.seen[there] > 0.5
        viewpoint[rows] = np.where(other.lying.viewpoint[there] == viewpoint[rows], viewpoint[rows], VIEWPOINTS.index("between"))
        number[rows] += 1

    def tensor(array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array[:count]).to(where)

    def stacked(found: list[torch.Tensor], axis: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        return torch.cat(found)[:count] if found else torch.zeros(0, *axis, *size, dtype=kind, device=where)

    return FishRendering(
        stacked(pictures, (3,), torch.uint8),
        None if planes is None else stacked(planes, (len(MASKS),), torch.bool),
        tensor(visible),
        tensor(judgeable),
        tensor(in_frame),
        None,
        tensor(viewpoint),
        tensor(fishes.lying.tail),
        tensor(number),
        None if planes is None else stacked(things, (len(THINGS),), torch.bool),
    )


_TRACE = 12.0
"""Pixels of a companion up to which it is not counted: none of its states can be seen."""


def geometry(specimens: Specimens, size: tuple[int, int]) -> tuple[Anatomy, Camera]:
    """Shapes of the fishes as they lie and the cameras that see them in pictures of `size` (H, W)."""
    lying, camera, _ = _geometry(specimens, size)
    return lying.anatomy, camera


def _geometry(specimens: Specimens, size: tuple[int, int]) -> tuple[Pose, Camera, Anatomy]:
    """Fishes as they lie, their cameras, and the anatomy that the cameras are aimed by."""
    draws = _draws(specimens.seed, specimens.index, specimens.style)
    posed = _posed(specimens)
    framing = pose(draws, build(draws, _canonical(specimens)), posed).anatomy
    camera = place(draws, framing, specimens.focus, size)
    # Where there are more, the photographer has stepped back.
    several = _companion_count(draws, specimens) > 0
    if several.any():
        camera = replace(camera, scale=np.where(several, camera.scale * draws("several.back", 0.5, 0.95), camera.scale))
    return pose(draws, build(draws, specimens.states), posed), camera, framing


def _posed(specimens: Specimens) -> npt.NDArray[np.bool_]:
    """Which fishes may lie in any way, bool [B]."""
    return np.array([style.posed for style in STYLES.values()])[specimens.style]


def _compose(
    what: Ingredients,
    n: dict[str, torch.Tensor],
    tints: dict[str, torch.Tensor],
    texels: torch.Tensor,
    ground_rgb: torch.Tensor,
    under: torch.Tensor | None,
    before: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the fish on its ground under the light of the scene.

    Args:
        under: float32 [b, H, W], coverage of what else lies on the ground and does not mirror the lamp as the ground does.
        before: colours, coverage and darkness of what is before the fish, from `draw_hands`.

    Returns:
        Colours float32 [b, 3, H, W], coverage of the parts [b, P, H, W], its sum over the pixels [b, P], and how much of what is under
        the fish is hidden [b, H, W].
    """
    height, width = ground_rgb.shape[-2:]
    factor, glare = light_field(n, height, width)
    if under is not None:
        glare = glare * (1.0 - under)
    u, v = fish_coordinates(what.numbers, height, width)
    painted = paint(what, texels, u, v)
    fish = what.numbers["fish"]
    rgb = (ground_rgb + glare[:, None]) * (1.0 - shadow(n, painted.solid * fish))[:, None]
    hidden = painted.cover * fish
    rgb = torch.lerp(rgb, painted.rgb, hidden[:, None])
    parts = torch.stack([painted.parts[name] * fish for name in MASKS], dim=1)
    if before is not None:
        colour, alpha, dark = before
        rgb = torch.lerp(rgb * (1.0 - dark * (1.0 - alpha))[:, None], colour, alpha[:, None])
        parts = parts * (1.0 - alpha)[:, None]
        hidden = torch.maximum(hidden, alpha)
    rgb = rgb * factor[:, None]
    return tone(rgb, n, tints["balance"]), parts, parts.sum(dim=(2, 3)), hidden


@lru_cache(maxsize=2)
def _programs(engine: Engine) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two big pixel programs of the renderer: the ground, and the fish on it."""
    if engine == "eager":
        return ground, _compose
    return torch.compile(ground, dynamic=False), torch.compile(_compose, dynamic=False)


def _chunk(area: int, device: torch.device) -> int:
    """Pictures rendered at once: few enough for the processor's cache, many for a graphics card."""
    return max(1, (1 << 25 if device.type == "cuda" else 1 << 16) // area)


def _canonical(specimens: Specimens) -> npt.NDArray[np.int64]:
    """States the camera is aimed by: those of no fish in particular, but for the body shape it was sampled with."""
    states = np.zeros_like(specimens.states)
    states[:, list(CHARACTERS).index("body_shape")] = specimens.framing
    return states


_MINIMUM_SHARE: dict[str, float] = {
    "head": 0.5,
    "trunk": 0.25,
    "operculum": 0.8,
    "lateral_line": 0.6,
    "caudal_fin": 0.72,
    "dorsal_fin": 0.6,
    "pectoral_fin": 0.4,
}
"""Least share of a part's estimated area that has to be in the frame (thin parts are drawn wider than they are)."""

_MINIMUM_PIXELS: dict[str, float] = {
    "head": 30,
    "trunk": 60,
    "caudal_fin": 30,
    "dorsal_fin": 14,
    "eye": 4,
    "mouth": 3,
    "eye_spot": 5,
}


def _visible(seen: npt.NDArray[np.float32], share: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    least_share = np.array([_MINIMUM_SHARE.get(name, 0.55) for name in MASKS])
    least = np.array([_MINIMUM_PIXELS.get(name, 7) for name in MASKS])
    return np.asarray((seen >= least) & (share >= least_share))


def _judgeable(
    visible: npt.NDArray[np.bool_],
    share: npt.NDArray[np.float32],
    blocked: npt.NDArray[np.bool_],
    anatomy: Anatomy,
    camera: Camera,
) -> npt.NDArray[np.bool_]:
    """Visible parts, and for an absent part: the whole place where it would be is in the frame, free and large enough."""
    at = pixels(camera, anatomy, anatomy.sites)
    reach = 0.5 * anatomy.extents * camera.scale[:, None]
    inside = (
        (at[..., 0] > reach)
        & (at[..., 0] < camera.width - reach)
        & (at[..., 1] > reach)
        & (at[..., 1] < camera.height - reach)
        & (2 * reach >= 3.0)
        & ~blocked
    )
    columns = []
    for name, part in CHARACTER_PART.items():
        column = visible[:, MASKS.index(part)]
        if name == "dorsal_fin_number":
            # One fin in the frame may be the first of two.
            column = column & (share[:, MASKS.index(part)] >= 0.85)
        if name in PRESENCE_CHARACTERS:
            column = np.where(anatomy.present[name], column, inside[:, MASKS.index(part)])
        columns.append(column)
    order = [list(CHARACTER_PART).index(name) for name in CHARACTERS]
    return np.stack(columns, axis=1)[:, order]
