"""The towers of the bundled model: a neck and heads on the maps of EfficientNet-Lite0, and a joint head on sentence embeddings.

The joint space has three blocks, ``[nouns | parts | rest]``:

* *nouns*: the classes of the backbone's own classifier compete at each place, and their vectors are mixed by their shares; stride 32,
  brought to stride 8;
* *parts*: a small neck over strides 4 to 32, trained on rendered pictures: parts of specimens and the states of those. Some groups of
  specimens have a neck of their own for the map, see :class:`Specialist`;
* *rest*: a constant. A feature with nothing to say has a short first and second block, and after normalisation points along this axis, on
  which only texts about the background lie. Scores are cosines, so they are bounded, and near zero where nothing is known: subtracting
  contrasts there subtracts nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.lite_net import CHANNELS, HEAD, STRIDE, LiteNet
from concept_cam.backbones.noun_head import NounConfig, NounHead

__all__ = ["CELL", "SENTENCE", "ImageTower", "JointHead", "Neck", "Read", "Sizes", "Specialist", "Value", "looked_at", "seen_cells"]

CELL = 8
"""Pixels between the cells of the map."""
SENTENCE = 384
"""Width of the sentence embeddings."""


@dataclass(frozen=True)
class Sizes:
    """Widths of the towers.

    Attributes:
        hidden: Channels of the neck.
        depth: Residual blocks of the neck at stride 8.
        queries: Queries of the pooling that makes the image embedding.
        nouns: Width of the block of nouns.
        parts: Width of the block of parts.
        text_hidden: Width of the hidden layer between sentence embeddings and the block of parts.
        gate_hidden: Width of the hidden layer of the gate between the blocks.
        rest: The constant of the last block.
        value_hidden: Width of the hidden layer beside the linear map from what the queries see to the block of parts; 0 for none.
        reading: Numbers that each query reads by itself from means and spreads of all that it sees; 0 for none.
    """

    hidden: int = 192
    depth: int = 2
    queries: int = 16
    nouns: int = 256
    parts: int = 127
    text_hidden: int = 256
    gate_hidden: int = 64
    rest: float = 1.0
    value_hidden: int = 0
    reading: int = 0

    @property
    def embed_dim(self) -> int:
        """Width of the joint space."""
        return self.nouns + self.parts + 1

    @property
    def seen(self) -> int:
        """Channels of the map that the queries see: the neck's, and for a reading of their own the backbone's at strides 8 and 16."""
        return self.hidden + (CHANNELS[CELL] + CHANNELS[2 * CELL] if self.reading else 0)


class Residual(nn.Module):
    """A 3x3 and a 1x1 convolution beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide: nn.Module = nn.Conv2d(channels, channels, 3, padding=1)
        self.point: nn.Module = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", x + self.point(F.relu(self.wide(x))))


class Neck(nn.Module):
    """Joins the backbone's maps at stride 8, coarse ones first (as in Lin et al., "Feature pyramid networks", CVPR 2017)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        # The map at stride 4 comes in with the four cells of each cell side by side: small parts live on it.
        entering = {stride: channels * 4 if stride < CELL else channels for stride, channels in CHANNELS.items()}
        self.lateral = nn.ModuleDict({str(stride): nn.Conv2d(count, sizes.hidden, 1) for stride, count in entering.items()})
        self.coarse = nn.ModuleDict({str(stride): Residual(sizes.hidden) for stride in (32, 16)})
        self.fine = nn.Sequential(*(Residual(sizes.hidden) for _ in range(sizes.depth)))

    def forward(self, maps: dict[int, Tensor]) -> Tensor:
        """Maps of a `LiteNet` to [B, hidden, H / 8, W / 8], not negative."""
        return F.relu(self.last(self.before_last(maps)))

    @property
    def last(self) -> nn.Module:
        """The last of its residual blocks."""
        return self.fine[-1]

    def before_last(self, maps: dict[int, Tensor]) -> Tensor:
        """What goes into the last block: maps of a `LiteNet` to [B, hidden, H / 8, W / 8]."""
        x = self.coarse["32"](F.relu(self.lateral["32"](maps[32])))
        x = self.coarse["16"](F.relu(self.lateral["16"](maps[16]) + _double(x)))
        x = F.relu(self.lateral["8"](maps[8]) + _double(x) + self.lateral["4"](F.pixel_unshuffle(maps[4], 2)))
        return cast("Tensor", self.fine[:-1](x))


class Value(nn.Linear):
    """What the queries see to the image's vector of the block of parts: [B, queries, 2 * seen] to [B, parts].

    A linear map of the means of the neck's channels, a small network beside it, and what each query reads by itself, not linearly, from
    means and spreads of all channels. States of a part depend on several of its features at once, which a linear map of their means cannot
    say, and textures on how much a channel varies.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes.hidden * sizes.queries, sizes.parts)
        self.hidden = sizes.hidden
        # Both begin as nothing: a model that was trained without them goes on from where it was.
        self.beside: nn.Sequential | None = None
        if sizes.value_hidden:
            second = nn.Linear(sizes.value_hidden, sizes.parts)
            self.beside = nn.Sequential(nn.Linear(self.in_features, sizes.value_hidden), nn.GELU(), _nothing(second))
        self.reading = Reading(sizes) if sizes.reading else None

    @property
    def reads(self) -> int:
        """Numbers that each query reads by itself."""
        return 0 if self.reading is None else self.reading.own.shape[2]

    def forward(self, input: Tensor) -> Tensor:
        found = self.by_means(input)
        return found if self.reading is None else found + self.reading(input)

    def by_means(self, input: Tensor) -> Tensor:
        """The vector without what each query reads by itself: of the means of the neck's channels alone."""
        means = input[..., : self.hidden].flatten(1)
        found = super().forward(means)
        return found if self.beside is None else found + self.beside(means)


class Reading(nn.Module):
    """Each query reads a few numbers of its own, and all of them together are mapped: [B, queries, 2 * seen] to [B, parts]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.empty(sizes.queries, 2 * sizes.seen, sizes.reading))
        self.own_bias = nn.Parameter(torch.zeros(sizes.queries, sizes.reading))
        nn.init.normal_(self.own, std=(2 * sizes.seen) ** -0.5)
        self.out = _nothing(nn.Linear(sizes.queries * sizes.reading, sizes.parts, bias=False))

    def forward(self, seen: Tensor) -> Tensor:
        read = torch.einsum("bqc,qcr->bqr", seen, self.own) + self.own_bias
        return cast("Tensor", self.out(F.gelu(read).flatten(1)))


def _nothing(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@dataclass(frozen=True)
class Reads:
    """What a specialist reads that says states.

    Attributes:
        numbers: How many each of its queries reads.
        held: Along how many directions all groups' queries alone are heard.
        sighted: Whether its queries see through a last block of the neck of their own, rather than through that of the map.
        heard: How much of what it says is heard, above 0 and up to 1; the rest is what all groups' queries say.
    """

    numbers: int
    held: int = 0
    sighted: bool = False
    heard: float = 0.5


class Specialist(nn.Module):
    """A neck of its own for one group of specimens, and the heads behind it: of the map and, where it reads, of the image embedding.

    What is one cell thick, and what tells a toothed margin from a notched one, take a neck that has seen much of its group; fish,
    butterflies and leaves have little in common there. The words and the nouns are those of all groups. Where a part is and what it is like
    may take a last block of the neck each: one that learns how deep tails are forked forgets thin lines, and the other way round.

    Args:
        sizes: Widths, with the queries and the reading of its own; no queries for a specialist of the map alone.
        held: How many directions of the block of parts there are along which what all groups' queries say stays as it is.
        sighted: Whether its queries see through a last block of their own.
        heard: How much of what they say is heard.
    """

    def __init__(self, sizes: Sizes, held: int = 0, sighted: bool = False, heard: float = Reads.heard) -> None:
        super().__init__()
        self.heard = heard
        self.neck = Neck(sizes)
        self.sight = Residual(sizes.hidden) if sighted else None
        self.held: Tensor | None
        self.register_buffer("held", torch.zeros(held, sizes.parts) if sizes.queries else None)
        self.parts = nn.Conv2d(sizes.hidden, sizes.parts, 1)
        self.query = nn.Conv2d(sizes.hidden, sizes.queries, 1) if sizes.queries else None
        self.value = Value(sizes) if sizes.queries else None

    def sees(self, x: Tensor) -> Tensor:
        """What its queries see of what goes into the last block of its neck: [B, hidden, h, w], not negative."""
        return F.relu((self.neck.last if self.sight is None else self.sight)(x))

    def mapped(self, x: Tensor) -> Tensor:
        """Its map, of the same: [B, hidden, h, w] to the block of parts [B, parts, h, w]."""
        return cast("Tensor", self.parts(F.relu(self.neck.last(x))))

    def told(self, hidden: Tensor, seen: Tensor, valid: Tensor | None = None) -> Tensor:
        """What its queries see to the image's vector of the block of parts: [B, parts].

        Args:
            hidden: [B, hidden, n], what `sees` makes.
            seen: [B, seen, n], what the queries of all groups see, of which the backbone's channels are taken.
            valid: bool [B, n], False for padding; ``None``: all valid.
        """
        assert self.query is not None
        assert self.value is not None
        cells = torch.cat([hidden, seen[:, hidden.shape[1] :]], 1)
        return _told(self.query, self.value, cells, valid)


def looked_at(logits: Tensor, cells: Tensor) -> Tensor:
    """What each query sees: mean and standard deviation of every channel where it looks.

    A texture is told by how much a channel varies over a part, which its mean does not say.

    Args:
        logits: float [B, Q, n], of the pooling; minus infinity where nothing is.
        cells: float [B, C, n].

    Returns:
        float32 [B, Q, 2 C].
    """
    # Channels last, as they come: copies of whole maps would take longer than the sums.
    shares, cells = logits.float().softmax(-1), cells.float().transpose(1, 2).contiguous()
    mean = shares @ cells
    spread = shares @ cells.square() - mean.square()
    # Rounding can leave a little less than nothing; a root has no slope at zero.
    return torch.cat([mean, (spread.clamp(min=0.0) + 1e-4).sqrt()], -1)


def seen_cells(hidden: Tensor, maps: dict[int, Tensor], sizes: Sizes) -> Tensor:
    """The map that the queries see: [B, hidden, H / 8, W / 8] and the backbone's maps to [B, seen, H / 8, W / 8]."""
    if not sizes.reading:
        return hidden
    return torch.cat([hidden, maps[CELL].to(hidden.dtype), _double(maps[2 * CELL]).to(hidden.dtype)], 1)


def _told(query: nn.Conv2d, value: Value, seen: Tensor, valid: Tensor | None) -> Tensor:
    """[B, seen, n] to the image's vector [B, parts]; the queries look where `valid`, bool [B, n], says."""
    logits = query(seen[:, : value.hidden, :, None])[..., 0].float()
    if valid is not None:
        logits = logits.masked_fill(~valid[:, None], float("-inf"))
    return cast("Tensor", value(looked_at(logits, seen).to(value.weight.dtype)))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _mean_enlarged(x: Tensor, size: Sequence[int], grid: tuple[int, int], valid: Tensor | None) -> Tensor:
    """The mean of a map over the valid cells, as if it had been enlarged first, which it need not be: [B, C, h, w] to [B, C].

    Args:
        x: The map.
        size: `(H, W)` that it would be enlarged to.
        grid: Rows and columns of that which count.
        valid: bool [B, *grid], those of them that count; ``None``: all.
    """
    rows, columns = (
        F.interpolate(torch.eye(count, dtype=x.dtype, device=x.device)[None], size=more, mode="linear", align_corners=False)[0, :, :kept]
        for count, more, kept in zip(x.shape[-2:], size, grid, strict=True)
    )
    flags = x.new_ones(len(x), *grid) if valid is None else valid.to(x.dtype)
    shares = torch.einsum("hH,bHW,wW->bhw", rows, flags, columns) / flags.sum((1, 2)).clamp(min=1)[:, None, None]
    return torch.einsum("bchw,bhw->bc", x, shares)


def _extended(pixels: Tensor) -> Tensor:
    """Sides that are no multiple of the backbone's stride are extended to one by their last row and column of pixels."""
    height, width = pixels.shape[-2:]
    whole = F.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
    # Channels last, as the weights are: up to 1.3 times as fast in float32 and 1.7 times in bfloat16.
    return whole.contiguous(memory_format=torch.channels_last)


class Read(NamedTuple):
    """What the convolutions make of pictures whose sides are multiples of the backbone's stride.

    Attributes:
        maps: Of the backbone: stride -> [B, channels, H / stride, W / stride].
        seen: [B, seen, H / 8, W / 8], what the queries see; the neck's channels come first.
        top: [B, 1280, H / 32, W / 32], the backbone's last map.
        asked: The specialist that looks at each picture; an empty name where none does.
        own: [B, hidden, H / 8, W / 8], what this one sees, zeros where none looks; ``None`` for towers without specialists.
        begun: [B, hidden, H / 8, W / 8], what goes into the last block of its neck, where its map takes another one than what it sees.
        shared: The blocks of nouns [B, nouns] and parts [B, parts] of the image embedding, as the queries of all groups say them.
        grid: `(h, w)`, cells of the pictures as they were given.
        valid: bool [B, h, w], False for padding; ``None``: all valid.
    """

    maps: dict[int, Tensor]
    seen: Tensor
    top: Tensor
    asked: tuple[str, ...] = ()
    own: Tensor | None = None
    begun: Tensor | None = None
    shared: tuple[Tensor, Tensor] | None = None
    grid: tuple[int, int] = (0, 0)
    valid: Tensor | None = None


class ImageTower(nn.Module):
    """Backbone, necks and heads.

    Args:
        sizes: Widths.
        nouns: Sizes of the head for the block of nouns.
        groups: Those whose specimens are told from each other, in the order of `hosts`.
        specialists: Those of them that have a neck of their own.
        readers: Those of the specialists that say states as well, with as many queries as a group has of all -> what they read.
    """

    def __init__(
        self,
        sizes: Sizes,
        nouns: NounConfig,
        groups: Sequence[str] = (),
        specialists: Sequence[str] = (),
        readers: Mapping[str, Reads] | None = None,
    ) -> None:
        super().__init__()
        readers = readers or {}
        self.sizes = sizes
        self.trunk = LiteNet()
        self.neck = Neck(sizes)
        self.nouns = NounHead(nouns)
        self.parts = nn.Conv2d(sizes.hidden, sizes.parts, 1)
        self.query = nn.Conv2d(sizes.hidden, sizes.queries, 1)
        self.value = Value(sizes)
        self.groups = tuple(groups)
        own = {group: replace(sizes, queries=sizes.queries // len(self.groups), reading=each.numbers) for group, each in readers.items()}
        self.specialists = nn.ModuleDict(
            {
                group: Specialist(own[group], readers[group].held, readers[group].sighted, readers[group].heard)
                if group in own
                else Specialist(replace(sizes, queries=0))
                for group in specialists
            }
        )
        self.hosts: Tensor
        self.register_buffer("hosts", torch.zeros(len(self.groups), sizes.embed_dim))

    @property
    def readers(self) -> dict[str, Reads]:
        """The specialists that say states as well -> what they read."""
        found = {group: self._specialist(group) for group in self.specialists}
        return {
            group: Reads(each.value.reads, len(each.held), each.sight is not None, each.heard)
            for group, each in found.items()
            if each.value is not None and each.held is not None
        }

    def read(self, pixels: Tensor, valid: Tensor | None = None, among: Collection[str] | None = None) -> Read:
        """Runs the convolutions.

        Sides that are no multiple of 32 are extended to one by their last row and column of pixels. Which specialist, if any, looks at a
        picture is told by what all groups' queries see: it is that of the group whose name is nearest.

        Args:
            pixels: [B, 3, H, W], preprocessed.
            valid: bool [B, H / 8, W / 8], False for padding; ``None``: all valid.
            among: The specialists that may look; ``None``: all. An embedding needs no neck of those that do not read.
        """
        maps = self.trunk(_extended(pixels))
        hidden = self.neck(maps)
        height, width = pixels.shape[-2] // CELL, pixels.shape[-1] // CELL
        plain = Read(maps, seen_cells(hidden, maps, self.sizes), self.trunk.top(maps[STRIDE]), grid=(height, width), valid=valid)
        seen = plain.seen[..., :height, :width].flatten(2)
        told = _told(self.query, self.value, seen, None if valid is None else valid.flatten(1))
        shared = (self.nouns.cells(_mean_enlarged(plain.top, plain.seen.shape[-2:], plain.grid, valid)), told)
        if not self.specialists:
            return plain._replace(shared=shared)
        nearest = self._nearest(self._joined(*shared))
        asked = nearest if among is None else tuple(name if name in among else "" for name in nearest)
        own, begun = torch.zeros_like(hidden), None
        for group, rows in _rows_by(asked).items():
            one = self._specialist(group)
            x = one.neck.before_last({stride: _rows_of(values, rows) for stride, values in maps.items()})
            own = _with_rows(own, rows, one.sees(x))
            if one.sight is not None:
                begun = _with_rows(torch.zeros_like(hidden) if begun is None else begun, rows, x)
        return plain._replace(asked=asked, own=own, begun=begun, shared=shared)

    def image(self, read: Read) -> Tensor:
        """The image embedding of what `read` gives, [B, D]: what `pool` makes of its cells, without pooling them once more."""
        assert read.shared is not None
        nouns, parts = read.shared
        if read.own is not None:
            height, width = read.grid
            seen, own = (each[..., :height, :width].flatten(2) for each in (read.seen, read.own))
            parts = self._with_own(parts, seen, own, _rows_by(read.asked), read.valid)
        return self._joined(nouns, parts)

    def early(self, pixels: Tensor) -> Tensor:
        """The backbone's map at stride 4: [B, 3, H, W], preprocessed, to [B, 24, H / 4, W / 4]."""
        height, width = pixels.shape[-2:]
        return cast("Tensor", self.trunk(_extended(pixels), 4)[4][..., : height // 4, : width // 4])

    def patches(self, read: Read) -> Tensor:
        """Each cell in the joint space: what `read` gives to [B, H', W', D]."""
        hidden = read.seen[:, : self.sizes.hidden]
        nouns = self.nouns.cells(read.top.movedim(1, -1)).movedim(-1, 1)
        nouns = F.interpolate(nouns, size=hidden.shape[-2:], mode="bilinear", align_corners=False)
        parts = self.parts(hidden)
        for group, rows in _rows_by(read.asked).items():
            one = self._specialist(group)
            seen = read.own if one.sight is None else read.begun
            assert seen is not None
            x = _rows_of(seen, rows)
            parts = _with_rows(parts, rows, one.parts(x) if one.sight is None else one.mapped(x))
        return self._joined(nouns.movedim(1, -1), parts.movedim(1, -1))

    def cells(self, read: Read) -> Tensor:
        """One map that the image embedding is made from: what `read` gives to [B, C, H', W'].

        C is `seen` + 1280, and `hidden` more for towers with specialists that read.
        """
        maps = [read.seen, F.interpolate(read.top, size=read.seen.shape[-2:], mode="bilinear", align_corners=False)]
        return torch.cat([*maps, read.own] if self.readers and read.own is not None else maps, 1)

    def askings(self, read: Read) -> Tensor | None:
        """Which reader looks at each picture: [B, 1, R] of ones and zeros, in the order of `readers`; ``None`` where none reads."""
        if not self.readers:
            return None
        return read.seen.new_tensor([[[float(name == reader) for reader in self.readers]] for name in read.asked])

    def pool(self, cells: Tensor, valid: Tensor | None = None, askings: Tensor | None = None) -> Tensor:
        """The image embedding: [B, C, h, w] -> [B, D].

        What names things is averaged, as the backbone's classifier does; for the parts, each query of an attention pooling looks at a
        place. Where a specialist reads, the block of parts is a mean of what it says and what all groups' queries say, for they err in
        different places, or what it says alone where it has learned more; what the specimen is stays as all groups' queries say it, and
        so does what the specialist holds.

        Args:
            cells: What `cells` gives, or a part of it.
            valid: bool [B, h, w], False for padding; ``None``: all valid.
            askings: What `askings` gives; ``None``: no specialist is asked.
        """
        if askings is None:
            return self._shared(cells, valid)
        seen, _, own = (part.flatten(2) for part in cells.split([self.sizes.seen, HEAD, self.sizes.hidden], 1))
        nouns, shared = self._said(cells, valid)
        asked = {group: (askings[:, 0, place] > 0.5).nonzero()[:, 0].tolist() for place, group in enumerate(self.readers)}
        return self._joined(nouns, self._with_own(shared, seen, own, asked, valid))

    def _with_own(self, shared: Tensor, seen: Tensor, own: Tensor, asked: Mapping[str, list[int]], valid: Tensor | None) -> Tensor:
        """The block of parts [B, parts] of the image embedding, with what specialists say of the rows that they are asked for."""
        flags, parts = None if valid is None else valid.flatten(1), shared
        for group in self.readers:
            if rows := asked.get(group):
                reader = self._specialist(group)
                assert reader.held is not None
                ours = _rows_of(shared, rows)
                told = reader.told(_rows_of(own, rows), _rows_of(seen, rows), None if flags is None else _rows_of(flags, rows))
                both = reader.heard * told + (1.0 - reader.heard) * ours
                parts = _with_rows(parts, rows, self._held(both, ours, reader.held))
        return parts

    def _shared(self, cells: Tensor, valid: Tensor | None) -> Tensor:
        """The image embedding as the queries of all groups say it."""
        return self._joined(*self._said(cells, valid))

    def _said(self, cells: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """The blocks of nouns and parts of the image embedding, before they are joined."""
        seen, top = (part.flatten(2) for part in cells[:, : self.sizes.seen + HEAD].split([self.sizes.seen, HEAD], 1))
        flags = None if valid is None else valid.flatten(1)
        mean = top.mean(2) if flags is None else (top * flags[:, None]).sum(2) / flags.sum(1, keepdim=True).clamp(min=1)
        return self.nouns.cells(mean), _told(self.query, self.value, seen, flags)

    def _held(self, told: Tensor, shared: Tensor, held: Tensor) -> Tensor:
        """Vectors of the block of parts [B, parts], as others are along what specimens are called and along some directions [K, parts].

        Where there are such directions, the vectors are as long as the others, too: what is held is then said as loudly. (The mean of two
        that differ is shorter than either, and all is said relative to the length.)
        """
        kept = torch.cat([self.hosts[:, self.sizes.nouns : self.sizes.nouns + self.sizes.parts], held]).float()
        along = torch.linalg.pinv(kept) @ kept
        asked = shared.float() @ along
        across = told.float() - told.float() @ along
        if len(held):
            across = across * (shared.float() - asked).norm(dim=-1, keepdim=True) / across.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        result: Tensor = (asked + across).to(told.dtype)
        return result

    def _specialist(self, group: str) -> Specialist:
        return cast("Specialist", self.specialists[group])

    def _nearest(self, image: Tensor) -> tuple[str, ...]:
        """The specialist that looks at each picture: that of the group whose name is nearest to its embedding [B, D], if it has one."""
        nearest = (F.normalize(image.float(), dim=-1) @ self.hosts.float().T).argmax(1).tolist()
        return tuple(self.groups[place] if self.groups[place] in self.specialists else "" for place in nearest)

    def _joined(self, nouns: Tensor, parts: Tensor) -> Tensor:
        rest = parts.new_full((*parts.shape[:-1], 1), self.sizes.rest)
        # Taken times the length of the others, nouns are after normalisation what they would be without the parts, whatever those see
        # there.
        length = (torch.linalg.vector_norm(parts, dim=-1, keepdim=True).square() + self.sizes.rest**2).sqrt()
        return torch.cat([nouns * length, parts, rest], -1)


def _rows_by(asked: Sequence[str]) -> dict[str, list[int]]:
    """The rows of a batch that each specialist looks at."""
    return {group: [row for row, name in enumerate(asked) if name == group] for group in dict.fromkeys(asked) if group}


def _rows_of(values: Tensor, rows: list[int]) -> Tensor:
    """Some rows of a batch in their order; where it is all of them, without a copy."""
    return values if len(rows) == len(values) else values[rows]


def _with_rows(values: Tensor, rows: list[int], own: Tensor) -> Tensor:
    """A batch with other values in some rows."""
    return own if len(rows) == len(values) else values.index_copy(0, torch.tensor(rows, device=values.device), own)


class JointHead(nn.Module):
    """Sentence embeddings to the joint space.

    A gate says how much of a text is a noun, something of a fish, or about nothing in the picture. Nouns have a head of their own; what is
    said of fish goes through a small network.

    Args:
        sizes: Widths.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.first = nn.Linear(SENTENCE, sizes.text_hidden)
        self.second = nn.Linear(sizes.text_hidden, sizes.parts)
        self.gate_first = nn.Linear(SENTENCE, sizes.gate_hidden)
        self.gate_second = nn.Linear(sizes.gate_hidden, 3)

    def forward(self, sentences: Tensor, nouns: Tensor) -> Tensor:
        """Unit sentence embeddings [N, 384], and their vectors of the block of nouns [N, nouns], to [N, D], unit length."""
        gate = self.gate(sentences).softmax(-1)
        return F.normalize(torch.cat([gate[:, :1] * nouns, gate[:, 1:2] * self.parts(sentences), gate[:, 2:]], -1), dim=-1)

    def gate(self, sentences: Tensor) -> Tensor:
        """Whether a text names a thing, speaks of parts or of nothing: [..., 384] to logits [..., 3]."""
        return cast("Tensor", self.gate_second(F.gelu(self.gate_first(_louder(sentences)))))

    def parts(self, sentences: Tensor) -> Tensor:
        """What is said of parts alone, without the gate: [..., 384] to unit vectors of the block of parts, [..., parts]."""
        return F.normalize(self.second(F.gelu(self.first(_louder(sentences)))), dim=-1)


def _louder(sentences: Tensor) -> Tensor:
    """Unit vectors of 384 numbers: times 8 each number is of the order of one half."""
    return sentences * 8.0
