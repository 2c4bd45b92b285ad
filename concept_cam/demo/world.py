"""The fish world: sample specimens, render them with part masks, make counterfactual twins.

A specimen is a small record: where its random numbers come from (seed, index), its trait states and its view. Every
other parameter is drawn from a hash of (seed, index, parameter name), so a twin with one state changed keeps all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from concept_cam.demo.anatomy import Anatomy, build
from concept_cam.demo.camera import Camera, fish_coordinates, pixels, place
from concept_cam.demo.camera import numbers as camera_numbers
from concept_cam.demo.draws import Draws, StyledDraws
from concept_cam.demo.fish import PATTERNS, Ingredients, coat, numbers, paint, skin_reading
from concept_cam.demo.photograph import develop, exposure, tone
from concept_cam.demo.poses import Pose, pose
from concept_cam.demo.sampling import colours, columns
from concept_cam.demo.scenes import ground, ground_reading, lay_objects, light_field, scenery, shadow
from concept_cam.demo.styles import PROFILES, STYLES
from concept_cam.demo.textures import atlas
from concept_cam.demo.traits import CHARACTER_PART, CHARACTERS, MASKS, PRESENCE_CHARACTERS, SCENES

View = Literal["whole", "closeup", "mixed"]
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
class Specimens:
    """Pictures to be rendered, one per element, as a struct of arrays.

    Attributes:
        seed: int64 [B], the seed the specimen was sampled with.
        index: int64 [B], its number under that seed.
        states: int64 [B, C], state number per character in the order of `CHARACTERS`.
        fish: bool [B], False for a picture of the scene alone.
        focus: int64 [B], -1 for a whole fish, else the number in `MASKS` of what the close-up is aimed at.
        framing: int64 [B], the body shape the camera is aimed by: that of the sampled fish, kept by its twins.
        scene: int64 [B], number in `SCENES`.
        style: int64 [B], number in `STYLES`.
    """

    seed: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    states: npt.NDArray[np.int64]
    fish: npt.NDArray[np.bool_]
    focus: npt.NDArray[np.int64]
    framing: npt.NDArray[np.int64]
    scene: npt.NDArray[np.int64]
    style: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.seed)

    def __getitem__(self, item: int | slice | Sequence[int] | npt.NDArray[np.generic]) -> Specimens:
        """The chosen specimens; a single number gives a batch of one."""
        rows = np.atleast_1d(np.arange(len(self))[item])
        return Specimens(*(getattr(self, field.name)[rows] for field in fields(self)))

    def trait(self, i: int) -> dict[str, str]:
        """Character -> state of specimen `i`; empty when there is no fish."""
        if not self.fish[i]:
            return {}
        return {name: states[self.states[i, c]] for c, (name, states) in enumerate(CHARACTERS.items())}

    def view(self, i: int) -> str:
        """`whole` or `closeup`."""
        return "whole" if self.focus[i] < 0 else "closeup"


def concatenate(batches: Sequence[Specimens]) -> Specimens:
    """One batch of all the specimens, in order."""
    return Specimens(
        *(np.concatenate([getattr(b, field.name) for b in batches]) for field in fields(Specimens))
    )


@dataclass(frozen=True)
class Rendering:
    """Pictures and their truth.

    Attributes:
        images: uint8 [B, 3, H, W], sRGB.
        masks: bool [B, P, H, W] in the order of `MASKS`, or None when they were not asked for.
        visible: bool [B, P], the part is in the frame: most of it, and large enough to be seen.
        judgeable: bool [B, C], the state of the character (order of `CHARACTERS`) can be told from this picture. For a
            presence character in state `absent`, this means that the place where it would be is in view.
        in_frame: bool [B, P], any of the part is in the frame, however little or small.
    """

    images: torch.Tensor
    masks: torch.Tensor | None
    visible: torch.Tensor
    judgeable: torch.Tensor
    in_frame: torch.Tensor


def sample(
    count: int,
    seed: int,
    *,
    view: View = "mixed",
    scenes: Sequence[str] = SCENES,
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
        scenes: the scenes to choose from, names in `SCENES`.
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
    unknown = [name for name in scenes if name not in SCENES]
    if unknown or not scenes:
        raise ValueError(f"unknown scenes {unknown}: expected one or more of {', '.join(SCENES)}")
    fixed = {name: _state_number(name, state) for name, state in (traits or {}).items()}
    index = np.arange(start, start + count, dtype=np.int64)
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: expected one of {', '.join(PROFILES)}")
    seeds = np.full(count, seed, dtype=np.int64)
    style = Draws(seeds, index).choice("style", [PROFILES[profile].get(name, 0.0) for name in STYLES])
    draws = _draws(seeds, index, style)
    states = np.stack(
        [
            np.full(count, fixed[name], dtype=np.int64)
            if name in fixed
            else draws.choice(f"state.{name}", _STATE_WEIGHTS.get(name, (1.0,) * len(options)))
            for name, options in CHARACTERS.items()
        ],
        axis=1,
    )
    focus = draws.choice("focus", [FOCUS_WEIGHTS[name] for name in MASKS])
    focus = np.where(draws.chance("whole", shares[view]), -1, focus)
    fish = ~draws.chance("empty", (0.05 if view == "mixed" else 0.0) if empty is None else empty)
    usual = [_SCENE_WEIGHTS.get(name, 1.0) for name in scenes]
    # A style has its own scenes, unless none of them was asked for.
    own = [[each.scenes.get(name, 0.0) for name in scenes] for each in STYLES.values()]
    scene_weights = np.array([row if any(row) else usual for row in own])[style]
    scene = np.array([SCENES.index(name) for name in scenes])[draws.choice("scene", scene_weights)]
    framing = states[:, list(CHARACTERS).index("body_shape")].copy()
    return Specimens(draws.seed, index, states, fish, focus, framing, scene, style)


def _draws(seed: npt.NDArray[np.int64], index: npt.NDArray[np.int64], style: npt.NDArray[np.int64]) -> Draws:
    """Random numbers of specimens in their styles."""
    return StyledDraws(seed, index, style, tuple(STYLES.values())) if style.any() else Draws(seed, index)


def _state_number(character: str, state: str) -> int:
    if character not in CHARACTERS:
        raise ValueError(f"unknown character {character!r}: expected one of {', '.join(CHARACTERS)}")
    if state not in CHARACTERS[character]:
        raise ValueError(
            f"unknown state {state!r} of {character}: expected one of {', '.join(CHARACTERS[character])}"
        )
    return CHARACTERS[character].index(state)


def render(
    specimens: Specimens,
    size: int | tuple[int, int],
    *,
    masks: bool = False,
    device: str | torch.device = "cpu",
    noise: bool = True,
    engine: Engine = "eager",
) -> Rendering:
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
    lying, camera = _geometry(specimens, (height, width))
    anatomy = lying.anatomy
    scenes, settings = scenery(draws, specimens.scene), exposure(draws)
    coats = coat(draws, specimens.states, camera.facing, camera.angle, scenes.colours["base"])
    fish_numbers = {**numbers(anatomy, coats, camera.scale), **camera_numbers(camera, anatomy)}
    fish_numbers["fish"] = specimens.fish.astype(np.float32)
    picture_numbers = {**scenes.numbers, **settings.numbers}
    base, compose = _programs(engine)
    pictures, planes, amounts = [], [], []
    for begin in range(0, len(specimens), chunk):
        rows = slice(begin, min(begin + chunk, len(specimens)))
        n = columns(picture_numbers, rows, where)
        tints = colours({**scenes.colours, "balance": settings.balance}, rows, where)
        rgb, relief, grain = base(
            n, tints, ground_reading(scenes, rows, width, textures, where), textures.texels, height, width
        )
        lay_objects(scenes, rows, rgb, relief, grain)
        compiled = engine == "compiled"
        what = Ingredients(
            columns(fish_numbers, rows, where),
            colours(coats.colours, rows, where),
            {name: torch.from_numpy(table[rows]).to(where) for name, table in anatomy.tables.items()},
            skin_reading(coats, camera.scale, rows, textures, where),
            # One program serves every chunk, so it has to hold every pattern; otherwise only those that occur.
            tuple(name for name in PATTERNS if compiled or (coats.pattern[rows] == name).any()),
            compiled or bool(anatomy.present["barbels"][rows].any()),
            compiled or bool(anatomy.values["has.far"][rows].any()),
            bool(_posed(specimens)[slice(None) if compiled else rows].any()),
        )
        rgb, parts, amount = compose(what, n, tints, textures.texels, rgb)
        pictures.append(develop(rgb, settings, rows, textures, noise=noise))
        amounts.append(amount)
        if masks:
            planes.append(parts > 0.5)
    if not pictures:
        empty = torch.zeros(0, 3, height, width, dtype=torch.uint8, device=where)
        none = torch.zeros(0, len(MASKS), dtype=torch.bool, device=where)
        planes_none = (
            torch.zeros(0, len(MASKS), height, width, dtype=torch.bool, device=where) if masks else None
        )
        return Rendering(
            empty, planes_none, none, torch.zeros(0, len(CHARACTERS), dtype=torch.bool, device=where), none
        )
    seen = torch.cat(amounts).cpu().numpy()
    share = seen / np.maximum(anatomy.areas * camera.scale[:, None] ** 2, 1e-3)
    visible = _visible(seen, share) & specimens.fish[:, None]
    judgeable = _judgeable(visible, share, anatomy, camera) & lying.judged & specimens.fish[:, None]
    return Rendering(
        torch.cat(pictures)[:count],
        torch.cat(planes)[:count] if masks else None,
        torch.from_numpy(visible[:count]).to(where),
        torch.from_numpy(judgeable[:count]).to(where),
        torch.from_numpy((seen > 0.5)[:count]).to(where),
    )


def geometry(specimens: Specimens, size: tuple[int, int]) -> tuple[Anatomy, Camera]:
    """Shapes of the fishes as they lie and the cameras that see them in pictures of `size` (H, W)."""
    lying, camera = _geometry(specimens, size)
    return lying.anatomy, camera


def _geometry(specimens: Specimens, size: tuple[int, int]) -> tuple[Pose, Camera]:
    draws = _draws(specimens.seed, specimens.index, specimens.style)
    posed = _posed(specimens)
    framing = pose(draws, build(draws, _canonical(specimens)), posed).anatomy
    return pose(draws, build(draws, specimens.states), posed), place(draws, framing, specimens.focus, size)


def _posed(specimens: Specimens) -> npt.NDArray[np.bool_]:
    """Which fishes may lie in any way, bool [B]."""
    return np.array([style.posed for style in STYLES.values()])[specimens.style]


def _compose(
    what: Ingredients,
    n: dict[str, torch.Tensor],
    tints: dict[str, torch.Tensor],
    texels: torch.Tensor,
    ground_rgb: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the fish on its ground under the light of the scene.

    Returns:
        Colours float32 [b, 3, H, W], coverage of the parts [b, P, H, W], and its sum over the pixels [b, P].
    """
    height, width = ground_rgb.shape[-2:]
    factor, glare = light_field(n, height, width)
    u, v = fish_coordinates(what.numbers, height, width)
    painted = paint(what, texels, u, v)
    fish = what.numbers["fish"]
    rgb = (ground_rgb + glare[:, None]) * (1.0 - shadow(n, painted.solid * fish))[:, None]
    rgb = torch.lerp(rgb, painted.rgb, (painted.cover * fish)[:, None]) * factor[:, None]
    parts = torch.stack([painted.parts[name] * fish for name in MASKS], dim=1)
    return tone(rgb, n, tints["balance"]), parts, parts.sum(dim=(2, 3))


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
    visible: npt.NDArray[np.bool_], share: npt.NDArray[np.float32], anatomy: Anatomy, camera: Camera
) -> npt.NDArray[np.bool_]:
    """Visible parts, and for an absent part: the whole place where it would be is in the frame and large enough."""
    at = pixels(camera, anatomy, anatomy.sites)
    reach = 0.5 * anatomy.extents * camera.scale[:, None]
    inside = (
        (at[..., 0] > reach)
        & (at[..., 0] < camera.width - reach)
        & (at[..., 1] > reach)
        & (at[..., 1] < camera.height - reach)
        & (2 * reach >= 3.0)
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


def twin(specimens: Specimens, character: str, state: str | Sequence[str]) -> Specimens:
    """The same fish, light, background and noise with one trait set to `state` (one for all, or one per specimen)."""
    chosen = [state] * len(specimens) if isinstance(state, str) else list(state)
    if len(chosen) != len(specimens):
        raise ValueError(
            f"{len(chosen)} states for {len(specimens)} specimens: give one state, or one per specimen"
        )
    wanted = [_state_number(character, name) for name in chosen]
    states = specimens.states.copy()
    states[:, list(CHARACTERS).index(character)] = wanted
    return replace(specimens, states=states)


def difference(
    a: Specimens,
    b: Specimens,
    size: int | tuple[int, int],
    *,
    device: str | torch.device = "cpu",
    threshold: int = 6,
) -> torch.Tensor:
    """Where the noise-free pictures of `a` and its twin `b` differ: bool [B, H, W]."""
    first = render(a, size, device=device, noise=False).images.to(torch.int16)
    second = render(b, size, device=device, noise=False).images.to(torch.int16)
    return (first - second).abs().amax(dim=1) >= threshold
