"""The terms of the loss: where each claim is true, and what the image embedding says of it.

The renderer knows the mask of every part, and the masks are used: this is supervision by cells, not by captions alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.core.resampling import axis_matrix
from training.claims import CHANGED, Truth, changes_of, claims_of, paired_in
from training.networks import IMAGE_BIAS, Trainee
from training.pictures import Pictures

FULL = 0.5
"""A cell of which this share (or, of thin parts, `THIN` of the largest share) is covered should be found."""
THIN = 0.7
WIDE = 0.7
"""Share of the places around one that a part covers which has an inside."""
PLACES = 4
"""Along a cell, at which is told where a map is highest."""
APART = 0.6
"""Cosine above which the wordings of rival states are pushed apart; those of fish came to rest between 0.6 and 0.8 by themselves."""


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values; zero when none is."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def cell_loss(logits: Tensor, truth: Truth, away: float = 3.0) -> Tensor:
    """Sigmoid loss over cells: each claim's cells and the cells where it is not true weigh the same, however many there are.

    Args:
        logits: float32 [B, K, n].
        truth: The truth.
        away: Weight of the cells where nothing of the claim is.
    """
    most = truth.cover.amax(-1, keepdim=True)
    there = (truth.cover >= (THIN * most).clamp(max=FULL)) & (truth.cover > 0.04) & truth.shown[..., None]
    nowhere = (truth.cover <= 0.0) & truth.known[..., None] & ~truth.open
    loss = F.binary_cross_entropy_with_logits(logits, there.float(), reduction="none")
    found = (loss * there).sum((0, 2)) / there.sum((0, 2)).clamp(min=1)
    spared = (loss * nowhere).sum((0, 2)) / nowhere.sum((0, 2)).clamp(min=1)
    return mean_where(found, there.any(0).any(-1)) + away * spared.mean()


def floor_loss(cosines: Tensor, lengths: Tensor, truth: Truth, host: int, rest: float) -> Tensor:
    """Where there is nothing of the specimen, features point along the rest; and nowhere is a claim less than not there.

    Subtracting contrasts can then raise the score of no cell.

    Args:
        cosines: float32 [B, K, n].
        lengths: float32 [B, n], length of the block of parts and the rest together, before vectors are made unit.
        truth: The truth.
        host: The place of the host among the claims.
        rest: The constant of the last block.
    """
    left = rest / lengths
    empty = (truth.cover[:, host] <= 0.0) & truth.known[:, host, None]
    full = truth.cover[:, host] > FULL
    below = F.relu(-cosines).square().mean((0, 2)).sum()
    return mean_where((1.0 - left).square(), empty) + mean_where(F.relu(left - 0.1).square(), full) + below


def place_loss(logits: Tensor, cover: Tensor, shown: Tensor) -> Tensor:
    """Where a map is highest: minus the log of the cover expected under the softmax over the cells, relative to the best cell.

    Args:
        logits: float32 [B, K, n].
        cover: float32 [B, K, n].
        shown: [B, K], which count.
    """
    hit = torch.logsumexp(logits.log_softmax(-1) + cover.clamp(min=1e-4).log(), -1) - cover.amax(-1).clamp(min=1e-4).log()
    return -mean_where(hit, shown)


def inward(cover: Tensor, size: tuple[int, int], side: int = 3) -> Tensor:
    """Covers, less towards the border of what covers: times the share of the largest mean over the places around, 3 x 3 or more.

    A peak far inside a part stays on it where the border is not told as well as on rendered pictures. A part that is nowhere as wide
    as these places has no inside: its cover stays as it is.

    Args:
        cover: float32 [B, K, n].
        size: Rows and columns of places.
        side: How many of them lie around, along a side; odd.

    Returns:
        float32 [B, K, n].
    """
    around = F.avg_pool2d(cover.unflatten(-1, size), side, 1, side // 2).flatten(2)
    most = around.amax(-1, keepdim=True)
    return torch.where(most > WIDE, cover * around / most.clamp(min=WIDE), cover)


def finer(maps: Tensor, size: tuple[int, int], places: int) -> Tensor:
    """Maps between the cells' centres, some places along a cell, as a heatmap is drawn: [B, P, n] to [B, P, places * places * n]."""
    down, across = (
        torch.from_numpy(axis_matrix("cubic", (np.arange(places * count) + 0.5) / places - 0.5, 0, count - 1, count)).to(maps.device)
        for count in size
    )
    return (down @ maps.unflatten(-1, size) @ across.T).flatten(2)


def contrasted(logits: Tensor, table: Tensor, strength: float) -> Tensor:
    """Maps of the parts against other claims: [B, K, n] and float32 [P, P + 1] to [B, P, n]."""
    parts = len(table)
    return logits[:, :parts] - strength * torch.einsum("pq,bqn->bpn", table, logits[:, : parts + 1])


def random_contrasts(parts: int, generator: torch.Generator) -> Tensor:
    """A contrast table with the host and some other parts, as a user might choose them: float32 [P, P + 1]."""
    table = (torch.rand(parts, parts + 1, generator=generator) < torch.rand(parts, 1, generator=generator) * 0.5).float()
    table[:, parts] = (torch.rand(parts, generator=generator) < 0.7).float()
    table[:, :parts].fill_diagonal_(0.0)
    return table / table.sum(1, keepdim=True).clamp(min=1.0)


def state_loss(logits: Tensor, pictures: Pictures, truth: Truth, false_colour: Tensor) -> Tensor:
    """Cross-entropy of a character's states at the cells of its part, and where a presence stands out against the host."""
    claims, terms = claims_of(pictures.world), []
    for c, (name, values) in enumerate(claims.world.characters.items()):
        block = claims.blocks[name]
        told = _told(pictures, c, name, false_colour)
        state = pictures.states[:, c]
        if name in claims.world.presences:
            present = block.start + values.index("present")
            gap = logits[:, present : present + 1] - logits[:, claims.host : claims.host + 1]
            cover = truth.cover[:, present : present + 1]
            terms.append(0.3 * place_loss(gap, cover, (told & (cover.amax((1, 2)) > 0))[:, None]))
            continue
        cover = truth.cover[:, block].sum(1)
        # Where a twin differs, the state can be told as well, though the part may not be there.
        cover = torch.maximum(cover, truth.open[:, block.start].float())
        share = cover / cover.sum(1, keepdim=True).clamp(min=1e-6)
        told = told & (cover.sum(1) > 0)
        likely = logits[:, block].log_softmax(1).gather(1, state[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
        terms.append(mean_where(-(likely * share).sum(1), told))
    return torch.stack(terms).mean()


def change_loss(logits: Tensor, pictures: Pictures, size: tuple[int, int]) -> Tensor:
    """The contrast of a state against its rivals is high in all cells in which a picture differs from its twin, which has a rival state.

    Cross-entropy of the softmax over the cells against the share of the change that each cell has, less what a perfect map leaves.

    Args:
        logits: float32 [B, K, n].
        pictures: The pictures, twins among them.
        size: Rows and columns of cells.

    Returns:
        The mean over the characters of shape or number of which there are pairs; zero where there is no pair.
    """
    changed = changes_of(pictures, size)
    share = changed / changed.sum(1, keepdim=True).clamp(min=1e-6)
    claims, total, characters = claims_of(pictures.world), logits.new_zeros(()), 0
    for name in claims.shapes:
        own = pictures.states[:, list(claims.world.characters).index(name)]
        rows = paired_in(pictures, name) & (changed.amax(1) > CHANGED)
        if not rows.any():
            continue
        states = logits[rows, claims.blocks[name]]
        mine = states.gather(1, own[rows, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        others = (states.sum(1) - mine) / (states.shape[1] - 1)
        expected = (mine - others).log_softmax(1)
        wanted = share[rows]
        total = total + (wanted * (wanted.clamp(min=1e-9).log() - expected)).sum(1).mean()
        characters += 1
    return total / max(1, characters)


def image_state_loss(logits: Tensor, pictures: Pictures, false_colour: Tensor) -> Tensor:
    """Cross-entropy of a character's states in the image embedding; a presence competes with the host.

    Args:
        logits: float32 [B, K].
        pictures: The pictures.
        false_colour: bool [B].
    """
    claims, terms = claims_of(pictures.world), []
    for c, (name, values) in enumerate(claims.world.characters.items()):
        block = claims.blocks[name]
        told, state = _told(pictures, c, name, false_colour), pictures.states[:, c]
        if name in claims.world.presences:
            gap = logits[:, block.start + values.index("present")] - logits[:, claims.host]
            there = (state == values.index("present")).float()
            loss = F.binary_cross_entropy_with_logits(gap, there, reduction="none")
            even = F.binary_cross_entropy_with_logits(gap, torch.full_like(gap, 0.5), reduction="none") - math.log(2.0)
        else:
            loss = F.cross_entropy(logits[:, block], state, reduction="none")
            even = -logits[:, block].log_softmax(1).mean(1) - math.log(len(values))
        # What cannot be told should not be told.
        terms.append(mean_where(loss, told) + 0.3 * mean_where(even, pictures.present & ~pictures.judgeable[:, c]))
    return torch.stack(terms).mean()


def _told(pictures: Pictures, c: int, name: str, false_colour: Tensor) -> Tensor:
    told = pictures.judgeable[:, c] & pictures.present
    return told & ~false_colour if name in claims_of(pictures.world).world.colours else told


def foreign_loss(cells: Tensor, image: Tensor) -> Tensor:
    """What is said of other groups is true nowhere: sigmoid loss over cells, and over pictures.

    Args:
        cells: float32 [B, F, n], logits of F claims about other groups.
        image: float32 [B, F], the same of the image embedding.

    Returns:
        The loss; zero where F is 0.
    """
    if not image.shape[1]:
        return image.new_zeros(())
    return 3.0 * F.softplus(cells).mean() + F.softplus(image).mean()


def apart_loss(words: Tensor, blocks: Sequence[slice], limit: float = APART) -> Tensor:
    """How much more alike than `limit` the wordings of rival states are.

    Sentence encoders put "a serrate margin" beside "a crenate margin": left to the losses of the pictures alone, such rivals stay within a
    cosine of 0.98 for thousands of steps, and no picture can tell them apart.

    Args:
        words: float32 [K, parts], unit vectors of the claims.
        blocks: Claims of each character that has rivals.
        limit: Cosine below which rivals may be as they like.
    """
    terms = [words.new_zeros(())]
    for block in blocks:
        own = words[block]
        alike = F.relu(own @ own.T - limit)
        terms.append((alike.sum() - alike.diagonal().sum()) / (len(own) * (len(own) - 1)))
    return torch.stack(terms).sum() / max(1, len(blocks))


def unit(blocks: Tensor, others: Tensor, rest: float) -> Tensor:
    """The block of parts of joint vectors of unit length.

    Args:
        blocks: [..., parts].
        others: [..., 1], squared length of the block of nouns.
        rest: The constant of the last block.
    """
    return blocks / (blocks.square().sum(-1, keepdim=True) + others + rest**2).sqrt()


def losses(
    trainee: Trainee,
    seen: tuple[Tensor, Tensor, Tensor],
    size: tuple[int, int],
    nouns: tuple[Tensor, Tensor],
    text: Tensor,
    foreign: Tensor,
    pictures: Pictures,
    truth: Truth,
    false_colour: Tensor,
    table: Tensor,
    strength: float,
    weights: dict[str, float],
) -> dict[str, Tensor]:
    """All terms of the loss for pictures of one group, and their weighted sum `total`. Terms that weigh nothing are zero.

    Args:
        trainee: What is trained.
        seen: Cells, image and attention (of the group's own queries), as the trainee gives them.
        size: Rows and columns of cells.
        nouns: Squared lengths of the block of nouns, of cells [B, n, 1] and images [B, 1].
        text: float32 [K, k, 384], sentence embeddings of `k` wordings of each claim.
        foreign: float32 [F, 384], sentence embeddings of wordings about other groups.
        pictures: The pictures.
        truth: What is true of their cells.
        false_colour: bool [B].
        table: Contrasts of the parts, float32 [P, P + 1].
        strength: How strong contrasts are.
        weights: Of the terms.
    """
    cells, image, attention = seen
    rest, scale = trainee.sizes.rest, trainee.log_scale.exp().clamp(max=80.0)
    words = F.normalize(trainee.words(text).mean(1), dim=-1)
    lengths = (cells.float().square().sum(-1) + rest**2).sqrt()
    cells, image = unit(cells.float(), nouns[0], rest), unit(image.float(), nouns[1], rest)
    cosines = torch.einsum("bnd,kd->bkn", cells, words.float())
    logits = scale * cosines
    told = scale * (image @ words.float().T)
    claims = claims_of(pictures.world)
    world, parts = claims.world, claims.host
    others = F.normalize(trainee.words(foreign), dim=-1).float()
    shown, known = truth.shown[:, : parts + 1], truth.known[:, : parts + 1]
    rivals = [claims.blocks[name] for name in world.characters if name not in world.presences]

    def of_images() -> Tensor:
        loss = F.binary_cross_entropy_with_logits(told[:, : parts + 1] + IMAGE_BIAS, shown.float(), reduction="none")
        return mean_where(loss, known)

    def attended() -> Tensor:
        # Marks have queries of their own, though they are no parts.
        areas = F.adaptive_avg_pool2d(pictures.cover.float() / 255.0, size).flatten(2)
        return place_loss(attention[:, : len(world.masks)].float(), areas, pictures.visible)

    @cache
    def against() -> Tensor:
        return contrasted(logits, table, strength)

    @cache
    def inner() -> Tensor:
        return inward(truth.cover, size)

    def fine() -> Tensor:
        # Where a heatmap is highest, told in quarters of a cell: thin parts are narrower than a cell.
        quarters = PLACES * size[0], PLACES * size[1]
        cover = F.interpolate(pictures.cover[:, :parts].float() / 255.0, quarters, mode="bilinear", antialias=True).flatten(2)
        sharp = torch.cat([logits[:, :parts], against()])
        return place_loss(
            finer(sharp, size, PLACES), inward(cover, quarters, 2 * PLACES - 1).repeat(2, 1, 1), shown[:, :parts].repeat(2, 1)
        )

    def foreigners() -> Tensor:
        cells_of = scale * torch.einsum("bnd,fd->bfn", cells, others) + trainee.cell_bias
        return foreign_loss(cells_of, scale * (image @ others.T) + IMAGE_BIAS)

    ways: dict[str, Callable[[], Tensor]] = {
        "fine": fine,
        "cells": lambda: cell_loss(logits + trainee.cell_bias, truth),
        "floor": lambda: floor_loss(cosines, lengths, truth, claims.host, rest),
        "place": lambda: place_loss(logits, inner(), truth.shown),
        "contrast": lambda: place_loss(against(), inner()[:, :parts], truth.shown[:, :parts]),
        "states": lambda: state_loss(logits, pictures, truth, false_colour),
        "changes": lambda: change_loss(logits, pictures, size),
        "image_states": lambda: image_state_loss(told, pictures, false_colour),
        "image_parts": of_images,
        "attention": attended,
        "apart": lambda: apart_loss(words.float(), rivals),
        "foreign": foreigners,
    }
    terms = {name: way() if weights[name] else logits.new_zeros(()) for name, way in ways.items()}
    return terms | {"total": torch.stack([weights[name] * value for name, value in terms.items()]).sum()}
