"""What every world has in common: the vocabulary of a group, specimens, renderings, and the functions that a room offers.

Plain data; torch is needed by the rooms, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from concept_cam.demo.worlds.claims import Statement

if TYPE_CHECKING:
    import torch

View = Literal["whole", "closeup", "mixed"]

VIEWS: Final[tuple[View, ...]] = ("whole", "closeup", "mixed")


SCENES: Final[tuple[str, ...]] = (
    "steel",
    "white_tray",
    "grey_tray",
    "blue_tray",
    "black_cloth",
    "wood",
    "gravel",
    "sand",
    "grass",
    "water",
    "concrete",
)
"""Grounds that any specimen can lie on or be before."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    """The words of a group: those of its trait pack, as far as they are drawn.

    Attributes:
        name: name of the group and of its trait pack.
        host: what a specimen is called, as in the pack.
        parts: the parts, keys of the pack's `parts`.
        masks: the axis `P` of every mask tensor: the parts, then marks that are no part.
        characters: character -> its states.
        character_mask: character -> the mask that shows it.
        presences: characters whose states are `present` and `absent`.
        colours: characters whose states cannot be told in false colours: those that are colours, and what is told by them.
        scenes: what a specimen is before.
        paired: parts of which an animal has a left and a right one, told apart in `Rendering.side`.
    """

    name: str
    host: str
    parts: tuple[str, ...]
    masks: tuple[str, ...]
    characters: Mapping[str, tuple[str, ...]]
    character_mask: Mapping[str, str]
    presences: tuple[str, ...]
    colours: tuple[str, ...]
    scenes: tuple[str, ...]
    paired: tuple[str, ...] = ()

    def state_number(self, character: str, state: str) -> int:
        """The number of a state.

        Raises:
            ValueError: this group has no such character, or the character no such state.
        """
        if character not in self.characters:
            raise ValueError(f"unknown character {character!r}: expected one of {', '.join(self.characters)}")
        if state not in self.characters[character]:
            raise ValueError(f"unknown state {state!r} of {character}: expected one of {', '.join(self.characters[character])}")
        return self.characters[character].index(state)


@dataclass(frozen=True)
class Specimens:
    """Pictures to be rendered, one per element, as a struct of arrays.

    Attributes:
        group: the vocabulary that the numbers below belong to.
        seed: int64 [B], the seed the specimen was sampled with.
        index: int64 [B], its number under that seed.
        states: int64 [B, C], state number per character in the order of `group.characters`.
        present: bool [B], False for a picture of the scene alone.
        focus: int64 [B], -1 for a whole specimen, else the number in `group.masks` of what the close-up is aimed at.
        framing: int64 [B], what the camera is aimed by: kept by twins. What the number says is the room's own.
        scene: int64 [B], number in `group.scenes`.
        style: int64 [B], number of a style of the room.
    """

    group: Vocabulary
    seed: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    states: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    focus: npt.NDArray[np.int64]
    framing: npt.NDArray[np.int64]
    scene: npt.NDArray[np.int64]
    style: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.seed)

    def __getitem__(self, item: int | slice | Sequence[int] | npt.NDArray[np.generic]) -> Specimens:
        """The chosen specimens; a single number gives a batch of one."""
        rows = np.atleast_1d(np.arange(len(self))[item])
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, **arrays)

    def trait(self, i: int) -> dict[str, str]:
        """Character -> state of specimen `i`; empty when there is none in the picture."""
        if not self.present[i]:
            return {}
        return {name: states[self.states[i, c]] for c, (name, states) in enumerate(self.group.characters.items())}

    def view(self, i: int) -> str:
        """`whole` or `closeup`."""
        return "whole" if self.focus[i] < 0 else "closeup"


_ARRAYS = tuple(each.name for each in fields(Specimens) if each.name != "group")


def concatenate_specimens(batches: Sequence[Specimens]) -> Specimens:
    """One batch of all the specimens, in order.

    Raises:
        ValueError: there are none, or they are of several groups.
    """
    groups = {batch.group.name for batch in batches}
    if len(groups) != 1:
        raise ValueError(f"specimens of {sorted(groups) or 'no group'}: expected one group.")
    arrays: dict[str, Any] = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in _ARRAYS}
    return replace(batches[0], **arrays)


def twin(specimens: Specimens, character: str, state: str | Sequence[str]) -> Specimens:
    """The same specimens, light, background and noise with one trait set to `state` (one for all, or one per specimen).

    Raises:
        ValueError: an unknown character or state, or another number of states than of specimens.
    """
    chosen = [state] * len(specimens) if isinstance(state, str) else list(state)
    if len(chosen) != len(specimens):
        raise ValueError(f"{len(chosen)} states for {len(specimens)} specimens: give one state, or one per specimen")
    wanted = [specimens.group.state_number(character, name) for name in chosen]
    states = specimens.states.copy()
    states[:, list(specimens.group.characters).index(character)] = wanted
    return replace(specimens, states=states)


@dataclass(frozen=True)
class Rendering:
    """Pictures and their truth. A room may return more.

    Attributes:
        images: uint8 [B, 3, H, W], sRGB.
        masks: bool [B, P, H, W] in the order of `Vocabulary.masks`, or None when they were not asked for.
        visible: bool [B, P], the part is in the frame: most of it, and large enough to be seen.
        judgeable: bool [B, C], the state of the character can be told from this picture. For a presence character in state `absent`, this
            means that the place where it would be is in view.
        in_frame: bool [B, P], any of the part is in the frame, however little or small.
        side: uint8 [B, H, W], 1 where the left one of a paired part of the animal is seen, 2 the right one, 0 elsewhere; None in rooms
            without paired parts, and when masks were not asked for. Left is the animal's own left.
    """

    images: torch.Tensor
    masks: torch.Tensor | None
    visible: torch.Tensor
    judgeable: torch.Tensor
    in_frame: torch.Tensor
    side: torch.Tensor | None


class Sample(Protocol):
    """`World.sample`."""

    def __call__(
        self,
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
        """Draws `count` specimens, numbers `start` to `start + count - 1` under `seed`.

        Args:
            count: how many.
            seed: any non-negative integer; equal arguments give equal specimens.
            view: `whole`, `closeup`, or `mixed`.
            scenes: the scenes to choose from; all by default.
            traits: character -> state for the characters that are not to vary.
            empty: share of pictures without a specimen; by default 0.05 in `mixed`, else 0.
            start: number of the first specimen.
            profile: `plain`, the world of the benchmark, or `photographs`, which has more variety.

        Raises:
            ValueError: an unknown view, scene, character, state or profile.
        """
        ...


class Render(Protocol):
    """`World.render`."""

    def __call__(
        self,
        specimens: Specimens,
        size: int | tuple[int, int],
        *,
        masks: bool = False,
        device: str | torch.device = "cpu",
        noise: bool = True,
    ) -> Rendering:
        """Renders specimens at `size` (pixels; an int is square, a pair is (H, W)).

        Args:
            specimens: the specimens.
            size: of the pictures.
            masks: whether masks are wanted.
            device: where the result is.
            noise: False leaves out sensor noise and compression (blur, light and colour stay).

        Raises:
            ValueError: an empty size.
        """
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class World(Vocabulary):
    """A group that can be drawn: its vocabulary, what its concepts are called, and its renderer.

    Attributes:
        sample: draws specimens.
        render: draws pictures of them.
        part_phrases: part or mark -> more ways to say it than the pack has.
        state_phrases: character -> state -> more ways to say it than the pack has.
        host_phrases: ways to say that there is one.
        scene_phrases: scene -> ways to say that it is before it.
        more_phrases: claim that only this room tells -> ways to say it.
        more_truth: tells the truth of those claims, int8 [B] each.
    """

    sample: Sample
    render: Render
    part_phrases: Mapping[str, tuple[str, ...]]
    state_phrases: Mapping[str, Mapping[str, tuple[str, ...]]]
    host_phrases: tuple[str, ...]
    scene_phrases: Mapping[str, tuple[str, ...]]
    more_phrases: Mapping[Statement, tuple[str, ...]] = field(default_factory=dict)
    more_truth: Callable[[Specimens, Rendering], Mapping[Statement, npt.NDArray[np.int8]]] | None = None

    @classmethod
    def of(cls, vocabulary: Vocabulary, **room: Any) -> World:
        """The world of a group: its vocabulary, and the attributes of `World` by name."""
        words: dict[str, Any] = {each.name: getattr(vocabulary, each.name) for each in fields(Vocabulary)}
        return cls(**words, **room)

    def twin(self, specimens: Specimens, character: str, state: str | Sequence[str]) -> Specimens:
        """As `family.twin`."""
        return twin(specimens, character, state)

    def difference(self, a: Specimens, b: Specimens, size: int | tuple[int, int], *, threshold: int = 6) -> torch.Tensor:
        """Where the noise-free pictures of `a` and its twin `b` differ: bool [B, H, W]."""
        first, second = (self.render(each, size, noise=False).images.int() for each in (a, b))
        return (first - second).abs().amax(dim=1) >= threshold
