"""The networks as they are trained: with batch norms, which are folded into the convolutions when the model is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.lite import LiteModel
from concept_cam.backbones.lite_towers import SENTENCE, ImageTower, Neck, Residual, Sizes, Specialist, looked_at, seen_cells
from concept_cam.backbones.noun_head import NounConfig
from concept_cam.collection.questions import NOT_THE_HOST


def with_norms(neck: Neck) -> Neck:
    """Puts batch norms around the convolutions of a fresh neck, in place."""
    for name, module in neck.lateral.items():
        conv = cast(nn.Conv2d, module)
        neck.lateral[name] = nn.Sequential(nn.BatchNorm2d(conv.in_channels), conv, nn.BatchNorm2d(conv.out_channels))
    for block in neck.modules():
        if isinstance(block, Residual):
            for name in ("wide", "point"):
                conv = cast(nn.Conv2d, getattr(block, name))
                setattr(block, name, nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)))
    return neck


def folded(neck: Neck) -> dict[str, Tensor]:
    """The parameters of the same neck without norms."""
    result: dict[str, Tensor] = {}
    for name, module in neck.named_modules():
        if not isinstance(module, nn.Sequential) or not any(isinstance(part, nn.BatchNorm2d) for part in module):
            continue
        conv = next(part for part in module if isinstance(part, nn.Conv2d))
        weight, bias = conv.weight.double(), cast(Tensor, conv.bias).double()
        if isinstance(module[0], nn.BatchNorm2d):
            scale, shift = _affine(module[0])
            bias = bias + (weight * shift[None, :, None, None]).sum((1, 2, 3))
            weight = weight * scale[None, :, None, None]
        scale, shift = _affine(cast(nn.BatchNorm2d, module[-1]))
        result[f"{name}.weight"] = (weight * scale[:, None, None, None]).float()
        result[f"{name}.bias"] = (bias * scale + shift).float()
    return result


def _affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = 1.0 / (variance + norm.eps).sqrt()
    if norm.affine:
        scale = norm.weight.double() * scale
    return scale, (norm.bias.double() if norm.affine else 0.0) - mean * scale


BY_QUERY = ("weight", "beside.0.weight", "reading.out.weight")
"""Parameters of a `Value` whose columns grow with the queries."""


class PartWords(nn.Module):
    """Sentence embeddings [N, 384] to unit vectors of the block of parts [N, parts]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.first = nn.Linear(SENTENCE, sizes.text_hidden)
        self.second = nn.Linear(sizes.text_hidden, sizes.parts)

    def forward(self, sentences: Tensor) -> Tensor:
        # Unit vectors of 384 numbers: times 8 each number is of the order of one half.
        return F.normalize(self.second(F.gelu(self.first(sentences * 8.0))), dim=-1)


IMAGE_BIAS = -math.log(len(NOT_THE_HOST) - 1)
"""What a claim about a picture has to overcome: whoever asks for a host asks against so many other things, which answer with about nothing.

Learnt freely, it rose from -2.2 to -1.3 in 2,500 steps while the answers sank with it, until three in four rendered photographs of fishes
were said to show none, though nearly all of them answered more than pictures of other things did.
"""


class Trainee(nn.Module):
    """Everything that is trained; the backbone and the nouns stand still beside it.

    Args:
        sizes: Widths.
        scale: Where the scale of the logits starts.
        left_out: Share of what the queries see that their reading does without in a step.
    """

    def __init__(self, sizes: Sizes, scale: float, left_out: float = 0.0) -> None:
        super().__init__()
        tower = ImageTower(sizes, NounConfig(width=sizes.nouns))
        self.sizes = sizes
        self.neck, self.parts, self.query, self.value = with_norms(tower.neck), tower.parts, tower.query, tower.value
        # Channels are of very different sizes, and their spreads of others than their means.
        self.level = nn.BatchNorm1d(2 * sizes.queries * sizes.seen, affine=False, momentum=0.02) if sizes.reading else None
        self.left_out = left_out
        self.words = PartWords(sizes)
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())
        self.cell_bias = nn.Parameter(torch.tensor(-6.0))

    def forward(self, maps: dict[int, Tensor], draw: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of the backbone to cells [B, n, parts], the image's vector [B, parts] and the logits of the pooling [B, queries, n].

        Args:
            maps: The backbone's.
            draw: Says what the reading does without in this step; ``None``: nothing.
        """
        hidden = self.neck(maps)
        cells = self.parts(hidden).flatten(2).transpose(1, 2)
        logits = self.query(hidden).flatten(2).float()
        with torch.autocast(hidden.device.type, enabled=False):
            image = self.told(looked_at(logits, seen_cells(hidden, maps, self.sizes).flatten(2)), draw)
        return cells, image, logits

    def told(self, seen: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """What the queries see, [B, queries, 2 * seen], to the image's vector [B, parts]; see `forward`."""
        found = self.value.by_means(seen)
        if self.level is None or self.value.reading is None:
            return found
        levelled = self.level(seen.flatten(1)).view_as(seen)
        if draw is not None:
            kept = torch.rand(seen.shape, generator=draw, device=seen.device) >= self.left_out
            levelled = levelled * kept / (1.0 - self.left_out)
        return found + self.value.reading(levelled)

    def levelled(self) -> dict[str, Tensor]:
        """The parameters of `value` without the norm before its reading."""
        state = {name: parameter.clone() for name, parameter in self.value.state_dict().items()}
        if self.level is not None:
            own = state["reading.own"]
            scale, shift = (each.view(own.shape[:2]) for each in _affine(self.level))
            state["reading.own_bias"] += torch.einsum("qc,qcr->qr", shift, own.double()).float()
            state["reading.own"] = (own.double() * scale[..., None]).float()
        return state

    @torch.no_grad()
    def take_over(
        self, model: LiteModel, maps: dict[int, Tensor], queries: slice = slice(None), group: str = "", *, states: bool = False
    ) -> None:
        """Goes on from a model that was written, in which the norms are folded: computes what it does, with norms of its own.

        Args:
            model: The model, of the same widths.
            maps: The backbone's maps of some training pictures: what they hold is what the norms begin with.
            queries: Those of the model's queries that are taken.
            group: Whose own neck is taken where the model has one, and own queries where they read; empty for what all groups share.
            states: Take the last block of the neck by which the group's states are read, where that is another than its map's.

        Raises:
            ValueError: The model has other widths.
        """
        taken = len(range(*queries.indices(model.sizes.queries)))
        reader = model.image.readers.get(group)
        if reader is not None and reader.sighted and not states:
            reader = None  # What is read through another block than this neck's is nothing to it.
        reads = model.sizes.reading if reader is None else reader.numbers
        own = replace(model.sizes, queries=taken, reading=reads, nouns=self.sizes.nouns, gate_hidden=self.sizes.gate_hidden)
        if own != self.sizes:
            there, here = (
                ", ".join(f"{name} {value}" for name, value in asdict(one).items() if value != asdict(other)[name])
                for one, other in ((own, self.sizes), (self.sizes, own))
            )
            raise ValueError(f"the model has {there}, this run {here}: train with the widths that it was trained with.")
        image, state = model.image, {}
        room = image.specialists[group] if group in tuple(image.specialists) else image
        given = cast(Neck, room.neck).state_dict()
        if states and isinstance(room, Specialist) and room.sight is not None:
            given |= {f"fine.{self.sizes.depth - 1}.{name}": value for name, value in room.sight.state_dict().items()}
        for name, value in given.items():
            at, kind = name.rsplit(".", 1)
            module = self.neck.get_submodule(at)
            inside = "" if isinstance(module, nn.Conv2d) else next(k for k, part in module.named_children() if isinstance(part, nn.Conv2d))
            state[".".join(filter(None, (at, inside, kind)))] = value
        self.neck.load_state_dict({**self.neck.state_dict(), **state})
        self.parts.load_state_dict(cast(nn.Module, room.parts).state_dict())
        if reader is not None:
            self.query.load_state_dict(cast(nn.Module, room.query).state_dict())
            self.value.load_state_dict(cast(nn.Module, room.value).state_dict())
        else:
            self.query.load_state_dict({name: value[queries] for name, value in image.query.state_dict().items()})
            self.value.load_state_dict(of_queries(image.value.state_dict(), model.sizes.queries, queries))
        self.words.first.load_state_dict(model.joint.first.state_dict())
        self.words.second.load_state_dict(model.joint.second.state_dict())
        self.log_scale.copy_(model.logit_scale)
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        handles = [norm.register_forward_pre_hook(_settle) for norm in norms]
        try:
            self.eval()(maps)
        finally:
            for handle in handles:
                handle.remove()
        if self.level is not None and self.value.reading is not None:
            # The reading was folded as well: undone for the levels that were just measured.
            reading, seen = self.value.reading, self.value.reading.own.shape[:2]
            scale, shift = (each.view(seen) for each in _affine(self.level))
            reading.own.copy_((reading.own.double() / scale[..., None]).float())
            reading.own_bias -= torch.einsum("qc,qcr->qr", shift, reading.own.double()).float()


def of_queries(value: Mapping[str, Tensor], count: int, queries: slice) -> dict[str, Tensor]:
    """The parameters of a `Value` for some of its queries alone.

    Args:
        value: The parameters, by name.
        count: Queries that it has.
        queries: Those that are taken.
    """
    found = dict(value)
    for name in BY_QUERY:
        if name in value:
            found[name] = value[name].unflatten(1, (count, -1))[:, queries].flatten(1)
    for name in ("reading.own", "reading.own_bias"):
        if name in value:
            found[name] = value[name][queries]
    return found


def _settle(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Makes a norm one that leaves what is given as it is."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    channels = given[0].float().transpose(0, 1).flatten(1)
    mean, variance = channels.mean(1), channels.var(1, unbiased=False)
    cast(Tensor, norm.running_mean).copy_(mean)
    cast(Tensor, norm.running_var).copy_(variance)
    if norm.affine:
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
