"""The claims that the joint space has a direction for, group by group, and where in a picture each of them is true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam import prompts
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.family import World

if TYPE_CHECKING:
    from training.pictures import Pictures


class Claim(NamedTuple):
    """One claim about a picture of a group.

    Attributes:
        kind: `part`, `host` or `state`.
        key: Part or character; empty for the host.
        state: State of the character.
    """

    kind: str
    key: str = ""
    state: str = ""


@dataclass(frozen=True, eq=False)
class Claims:
    """The claims about pictures of a group: the axis `K` of the losses. Parts come first, then the host, then states.

    Attributes:
        world: The group.
        listed: The claims.
        blocks: Character -> its states' places in `listed`. An absence has a place among them, and no direction.
        shapes: Characters whose states differ in shape or number: what a twin changes is where they can be told.
    """

    world: World
    listed: tuple[Claim, ...]
    blocks: Mapping[str, slice]
    shapes: tuple[str, ...]

    @property
    def host(self) -> int:
        """The place of the host, which is the number of parts."""
        return len(self.world.parts)

    def __len__(self) -> int:
        return len(self.listed)

    def spoken(self, claim: Claim) -> bool:
        """Whether there are words for a claim: nobody says where a fin is not."""
        return not (claim.key in self.world.presences and claim.state == "absent")

    def name(self, claim: Claim) -> str:
        """A name that no claim of another group has."""
        return "|".join((self.world.name, *claim))


@cache
def claims_of(name: str) -> Claims:
    """The claims about a group."""
    world = WORLDS[name]
    listed = [Claim("part", part) for part in world.parts] + [Claim("host")]
    blocks = {}
    for character, states in world.characters.items():
        blocks[character] = slice(len(listed), len(listed) + len(states))
        listed += [Claim("state", character, state) for state in states]
    kinds = {character.name: character.kind for character in prompts.load_pack(name).characters}
    shapes = tuple(character for character in world.characters if kinds[character] in ("shape", "count"))
    return Claims(world, tuple(listed), blocks, shapes)


CHANGED = 0.1
"""Share of a cell from which on it counts as changed."""


class Truth(NamedTuple):
    """What is true of the cells of a batch.

    Attributes:
        cover: float32 [B, K, n], share of each cell that a claim is about.
        shown: bool [B, K], it can be seen.
        known: bool [B, K], where it is, or that it is nowhere, is known.
        open: bool [B, K, n], cells in which nothing is said against it: where a twin of another shape or number differs, its states may be
            seen, whatever part lies there.
    """

    cover: Tensor
    shown: Tensor
    known: Tensor
    open: Tensor


def truth_of(pictures: Pictures, false_colour: Tensor, size: tuple[int, int]) -> Truth:
    """What is true of the cells of pictures.

    Args:
        pictures: The pictures, on the device.
        false_colour: bool [B], nothing can be said of their colours.
        size: Rows and columns of cells.
    """
    claims = claims_of(pictures.world)
    world = claims.world
    areas = F.adaptive_avg_pool2d(pictures.cover.float() / 255.0, size).flatten(2)
    count, cells = len(areas), areas.shape[2]
    cover = areas.new_zeros(count, len(claims), cells)
    shown = torch.zeros(count, len(claims), dtype=torch.bool, device=areas.device)
    known = torch.ones_like(shown)
    visible, in_frame = pictures.visible, pictures.in_frame
    parts = len(world.parts)
    cover[:, :parts], shown[:, :parts] = areas[:, :parts], visible[:, :parts]
    known[:, :parts] = visible[:, :parts] | ~in_frame[:, :parts]
    cover[:, claims.host], shown[:, claims.host] = areas.amax(1), pictures.present & visible.any(1)
    for c, (name, values) in enumerate(world.characters.items()):
        part = world.masks.index(world.character_mask[name])
        told = pictures.judgeable[:, c] & pictures.present
        for k, state in enumerate(values, claims.blocks[name].start):
            if not claims.spoken(claims.listed[k]):
                known[:, k] = False
                continue
            same = pictures.states[:, c] == values.index(state)
            cover[:, k] = areas[:, part] * same[:, None]
            shown[:, k] = told & same & visible[:, part]
            known[:, k] = told | ~in_frame[:, part]
            if name in world.colours:
                shown[:, k] &= ~false_colour
                known[:, k] &= ~false_colour
    differs = changes_of(pictures, size) > CHANGED
    free = torch.zeros(count, len(claims), cells, dtype=torch.bool, device=areas.device)
    for name in claims.shapes:
        free[:, claims.blocks[name]] = (differs & paired_in(pictures, name)[:, None])[:, None]
    return Truth(cover, shown, known, free)


def changes_of(pictures: Pictures, size: tuple[int, int]) -> Tensor:
    """Share of each cell that differs from the picture's twin: float32 [B, n]."""
    return F.adaptive_avg_pool2d(pictures.changed[:, None].float() / 255.0, size).flatten(1)


def paired_in(pictures: Pictures, character: str) -> Tensor:
    """Which pictures have a twin of another state of a character: bool [B]."""
    twin, c = pictures.twin, list(claims_of(pictures.world).world.characters).index(character)
    own = pictures.states[:, c]
    paired = (twin != torch.arange(len(twin), device=twin.device)) & pictures.present & pictures.present[twin]
    return paired & (own != own[twin]) & pictures.judgeable[:, c]


def part_contrasts(world: World) -> Tensor:
    """Share of each part, and last of the host, in what the trait pack contrasts each part with: float32 [P, P + 1]."""
    concepts = {concept.name.split("=")[1]: concept for concept in prompts.load(f"{world.name}:parts")}
    names = [*world.parts, "host"]
    table = torch.zeros(len(world.parts), len(names))
    for row, part in zip(table, world.parts, strict=True):
        contrasts = concepts[part].contrast_names
        for name in contrasts:
            if name in names:
                row[names.index(name)] = 1.0 / len(contrasts)
    return table
