"""The bundled family: EfficientNet-Lite0 with a neck at stride 8, and a small text tower of word pieces.

A folder holds

* ``config.json``: ``"family": "lite"``; ``specialists``, the groups that have a neck of their own, where there are any, and ``readers``,
  those of them that say states as well, with how much of what they say is heard; ``sharpness``, where it was fitted, as of
  :class:`concept_cam.backbones.protocol.Backbone`;
* ``model.safetensors``: names ``image.*``, ``text.*``, ``joint.*``, ``familiar``, ``examples`` and ``logit_scale``; in eight bits where
  ``EIGHT_BITS`` says so, of which some use fewer, see ``LEVELS``, else in half precision, of some fewer bits, see ``SHORTENED``;
* ``tokenizer.json``;
* ``known.json``: ``words`` of the trained phrases, ``names`` of things, ``groups`` that the remembered examples belong to.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.common import BaseBackbone
from concept_cam.backbones.damage import damage_among
from concept_cam.backbones.familiarity import familiarity, singular, words_of
from concept_cam.backbones.lite_towers import CELL, ImageTower, JointHead, Reads, Sizes
from concept_cam.backbones.made import Made
from concept_cam.backbones.noun_head import NounConfig
from concept_cam.backbones.protocol import FeatureMap, ImageFeatures
from concept_cam.backbones.text import ModelTower, TextEncoder
from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, WordPieceTower, packed, unpacked
from concept_cam.core.errors import ModelError
from concept_cam.core.quiet import quiet

__all__ = ["CONFIG", "MEAN", "STD", "TOKENIZER", "WEIGHTS", "LiteBackbone", "LiteModel", "make", "read", "save"]

CONFIG, WEIGHTS, TOKENIZER, KNOWN = "config.json", "model.safetensors", "tokenizer.json", "known.json"
CARRIERS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "this",
        "is",
        "one",
        "photo",
        "photograph",
        "picture",
        "image",
        "close",
        "up",
        "showing",
        "shows",
        "blurry",
        "in",
    ]
)
"""Words around a name that change nothing."""
MEAN, STD = (127.0 / 255.0,) * 3, (128.0 / 255.0,) * 3
"""What the backbone was trained with: pixels minus 127, over 128."""
LITE_READ_SIZE = 384
HOSTS = "image.hosts"
EIGHT_BITS = ("text.", "image.specialists.", "image.neck.", "image.value.")
"""Beginnings of the names of what is stored in eight bits."""
LEVELS = {re.compile(r"image\.(value\.beside|specialists\.\w+\.value)\."): 31, re.compile(r"text\.pieces\."): 63}
"""Beginnings of the names of that of which six bits or seven are used -> the largest whole number; 127 for the rest."""
SHORTENED = {"image.nouns.up.": 7, "familiar": 5}
"""Beginnings of the names of what is stored with fewer significant bits than the eleven of half precision, so that the wheel packs it."""


class LiteModel(nn.Module):
    """Both towers.

    Args:
        sizes: Widths of the image tower and the joint head.
        nouns: Sizes of the head for nouns.
        words: Sizes of the text tower.
        familiar: Phrases that are remembered, to tell what was never trained.
        examples: Pictures that are remembered, to tell what is unlike them.
        groups: Those whose specimens are told from each other.
        specialists: Those of them that have a neck of their own.
        readers: Those of the specialists that say states as well -> what they read.
    """

    def __init__(
        self,
        sizes: Sizes,
        nouns: NounConfig,
        words: WordPieceConfig,
        familiar: int = 0,
        examples: int = 0,
        *,
        groups: Sequence[str] = (),
        specialists: Sequence[str] = (),
        readers: Mapping[str, Reads] | None = None,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.image = ImageTower(sizes, nouns, groups, specialists, readers)
        self.text = WordPieceTower(words)
        self.joint = JointHead(sizes)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.sharpness: Mapping[str, float] = {}
        self.familiar: Tensor
        self.examples: Tensor
        self.register_buffer("familiar", torch.zeros(familiar, words.width))
        self.register_buffer("examples", torch.zeros(examples, sizes.nouns))

    @property
    def constants(self) -> dict[str, float | str]:
        """Numbers beside the weights that change what these say, as far as they are not the defaults: part of the model's identity.

        Widths are not among them: the weights' shapes tell them.
        """
        sharp = {f"sharpness of {name}": value for name, value in self.sharpness.items()}
        hosts = {"hosts": " ".join(self.image.groups)} if self.image.specialists else {}
        heard = {f"heard of {name}": each.heard for name, each in self.image.readers.items()}
        given = {"rest": self.sizes.rest, **self.image.nouns.config.constants, **sharp, **hosts, **heard}
        usual = {"rest": Sizes.rest, **NounConfig().constants, **dict.fromkeys(heard, Reads.heard)}
        return {name: value for name, value in given.items() if value != usual.get(name, 1.0)}

    def encode_text(self, ids: Tensor) -> Tensor:
        """Word pieces [N, L] to the joint space [N, D], unit length."""
        sentences = self.text(ids)
        result: Tensor = self.joint(sentences, self.image.nouns.text(sentences))
        return result


def _embed(model: LiteModel, inputs: dict[str, Tensor]) -> Tensor:
    return model.encode_text(inputs["ids"])


class LiteWords(TextEncoder):
    """The text tower of a :class:`LiteModel`, which also says what a text is before the joint space.

    Args:
        tokens: Its word pieces.
        model: The model.
    """

    def __init__(self, tokens: WordPieceTokens, model: LiteModel) -> None:
        tower = ModelTower(model, _embed)
        super().__init__(tokens, tower, tower.device)
        self._model = model

    @quiet(graph=False)
    def sentences(self, texts: list[str]) -> Tensor:
        """Texts to the sentence space, float32 [N, E], on the CPU."""
        return cast(Tensor, self._model.text(self._tokens.batch(texts)["ids"].to(self._device())).float().cpu())


class LiteBackbone(BaseBackbone):
    """Reads a :class:`LiteModel`; see :class:`concept_cam.backbones.protocol.Backbone`.

    Padding around a picture is cut off before the tower sees it: a picture has the features that it would have alone.
    """

    def __init__(self, made: Made) -> None:
        model = cast(LiteModel, made.model)
        self._image, self._examples, self._familiar = model.image, model.examples, model.familiar
        self._known = frozenset(made.options.get("words", ()))
        self._names = frozenset(made.options.get("names", ()))
        self._groups: tuple[str, ...] = tuple(made.options.get("groups", ()))
        self._words = cast(LiteWords, made.words)
        self.sharpness = model.sharpness
        super().__init__(
            model,
            name=made.name,
            family="lite",
            preprocess=made.preprocess(LITE_READ_SIZE, CELL),
            text=made.words,
            embed_dim=model.sizes.embed_dim,
            attentions=("vanilla",),
        )

    @property
    def _anchor(self) -> Tensor:
        return self._image.parts.weight  # the first layers are in float32 whatever the others are in

    @quiet(graph=False)
    def encode_image(self, pixels: Tensor) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_image`."""
        return self.pool(self.feature_map(pixels))

    @quiet(graph=False)
    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """See :meth:`concept_cam.backbones.protocol.Backbone.encode_patches`."""
        self._strategy(attention)
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        grid = self.grid_size((pixels.shape[2], pixels.shape[3]))
        if valid is None:
            read = self._image.read(pixels)
            patches = self._image.patches(read)[:, : grid[0], : grid[1]].to(pixels.dtype)
            return ImageFeatures(patches=patches.contiguous(), image=self._image.image(read).to(pixels.dtype))
        patches = pixels.new_zeros(len(pixels), *grid, self.embed_dim)
        image = pixels.new_zeros(len(pixels), self.embed_dim)
        for rows, (top, left, bottom, right) in _frames(valid, len(pixels), grid):
            height, width = bottom - top, right - left
            within = valid[rows, top:bottom, left:right]
            read = self._image.read(pixels[rows, :, top * CELL : bottom * CELL, left * CELL : right * CELL], within)
            own = self._image.image(read)
            found = self._image.patches(read)[:, :height, :width]
            patches[rows, top:bottom, left:right] = found * within[..., None]
            image[rows] = own
        return ImageFeatures(patches=patches, image=image)

    @quiet()
    def feature_map(self, pixels: Tensor, valid: Tensor | None = None, layer: str | None = None) -> FeatureMap:
        """See :meth:`concept_cam.backbones.protocol.Backbone.feature_map`."""
        self._layer(layer)
        pixels = self._prepare(pixels)
        valid = self._prepare_valid(valid, pixels)
        grid = self.grid_size((pixels.shape[2], pixels.shape[3]))
        found: Tensor | None = None
        askings: Tensor | None = None
        for rows, (top, left, bottom, right) in _frames(valid, len(pixels), grid):
            part = pixels[rows, :, top * CELL : bottom * CELL, left * CELL : right * CELL]
            read = self._image.read(part, None if valid is None else valid[rows, top:bottom, left:right], self._image.readers)
            cells, own = self._image.cells(read)[..., : bottom - top, : right - left], self._image.askings(read)
            if found is None:
                found = cells.new_zeros(len(pixels), cells.shape[1], *grid)
                askings = None if own is None else own.new_zeros(len(pixels), *own.shape[1:])
            found[rows, :, top:bottom, left:right] = cells
            if askings is not None and own is not None:
                askings[rows] = own
        assert found is not None
        # Who reads a picture is no matter of one place: it stands beside the map.
        return FeatureMap(found if valid is None else found * valid[:, None], prefix=askings, valid=valid)

    @quiet()
    def pool(self, features: FeatureMap) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.pool`."""
        return self._image.pool(features.map, features.valid, features.prefix)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups whose parts were trained, by the names of their trait packs."""
        return tuple(dict.fromkeys(self._groups))

    @quiet(graph=False)
    def early(self, pixels: Tensor) -> Tensor:
        """What the backbone sees early, four pixels a place, for finer maps than those of the cells.

        Args:
            pixels: [B, 3, H, W], preprocessed, sides multiples of eight.

        Returns:
            [B, 24, H / 4, W / 4], before any activation.
        """
        return self._image.early(self._prepare(pixels))

    @quiet(graph=False)
    def domain(self, image: Tensor, group: str = "") -> Tensor:
        """How far pictures are from what the parts were trained for: photographs that the backbone takes for such a thing, and renders.

        Args:
            image: [B, D] image embeddings.
            group: One of `groups`; empty for the nearest of all.

        Returns:
            float32 [B], 0..2: one minus the highest cosine of the block of nouns to a remembered one. What is named by a noun is no part
            and may be far away and right. NaN for a model that remembers none.

        Raises:
            ValueError: The model knows no such group.
        """
        if group and group not in self._groups:
            raise ValueError(f"unknown group {group!r}: expected one of {', '.join(self.groups) or 'none: this model knows no group'}.")
        if not len(self._examples):
            return image.new_full((len(image),), float("nan"), dtype=torch.float32)
        cosines = self._likeness(image)
        if group:
            cosines = cosines[:, [row for row, name in enumerate(self._groups) if name == group]]
        return 1.0 - cosines.amax(1)

    @quiet(graph=False)
    def nearest_group(self, image: Tensor) -> tuple[str, ...]:
        """The group that each of some pictures is nearest to, however far it is; empty names for a model that knows no groups.

        Args:
            image: [B, D] image embeddings.
        """
        if not self._groups:
            return ("",) * len(image)
        return tuple(self._groups[row] for row in self._likeness(image).argmax(1).tolist())

    def _likeness(self, image: Tensor) -> Tensor:
        """Cosines of the block of nouns to the remembered examples: [B, D] -> [B, E]."""
        nouns = F.normalize(image[:, : self._examples.shape[1]].float(), dim=-1)
        return nouns @ self._examples.float().T.to(nouns.device)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the word that makes a phrase unlike everything that was trained; empty for familiar ones, and for names of things.

        Every word can be spelt, which is not the same as knowing it; see :mod:`concept_cam.backbones.familiarity`.
        """
        spoken = words_of(prompt)
        if not self._known or all(singular(word, self._known) in self._known for word in spoken):
            return ()
        if " ".join(word for word in spoken if word not in CARRIERS) in self._names:
            return ()
        found = familiarity([prompt], self._known, self._familiar, self._words.sentences)[0]
        return () if found.familiar or not found.word else (found.word,)


def _frames(valid: Tensor | None, count: int, grid: tuple[int, int]) -> list[tuple[list[int], tuple[int, int, int, int]]]:
    """Pictures of a batch by the frame that holds their valid cells: (rows of the batch, (top, left, bottom, right) in cells)."""
    if valid is None:
        return [(list(range(count)), (0, 0, *grid))]
    frames: dict[tuple[int, int, int, int], list[int]] = {}
    down, across = valid.any(2).cpu(), valid.any(1).cpu()
    for row in range(count):
        rows, columns = down[row].nonzero()[:, 0], across[row].nonzero()[:, 0]
        frames.setdefault((int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1), []).append(row)
    return [(rows, frame) for frame, rows in frames.items()]


def make(folder: Path, name: str) -> Made:
    """Loads a folder; see the module's description for its files.

    Raises:
        ModelError: A file is missing, damaged or does not fit the others.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        stored = load_file(folder / WEIGHTS)
        known: dict[str, list[str]] = json.loads((folder / KNOWN).read_text(encoding="utf-8")) if (folder / KNOWN).is_file() else {}
        groups = tuple(dict.fromkeys(known.get("groups", ()))) if HOSTS in stored else ()
        specialists = tuple(config.get("specialists", ()))
        if strange := sorted(set(specialists) - set(groups)):
            raise ValueError(f"{CONFIG} has specialists for {', '.join(strange)}, of which {KNOWN} or {WEIGHTS} knows nothing")
        readers = _heard(config.get("readers", {}))
        if strange := sorted(set(readers) - set(specialists)):
            raise ValueError(f"{CONFIG} has readers for {', '.join(strange)}, which are none of its specialists")
        model = LiteModel(
            Sizes(**config["sizes"]),
            NounConfig(**config["nouns"]),
            WordPieceConfig(**config["text"]),
            len(stored.get("familiar", ())),
            len(stored.get("examples", ())),
            groups=groups,
            specialists=specialists,
            readers={group: _reads(stored, group, heard) for group, heard in readers.items()},
        )
        empty = {name: value for name, value in model.state_dict().items() if not value.numel() and name not in stored}
        model.load_state_dict({**empty, **unpacked(stored)})
        tokens = WordPieceTokens(folder / TOKENIZER, model.text.config.context)
        model.sharpness = _factors(config.get("sharpness", {}))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        # What does not fit stands in the second line of what PyTorch says.
        said = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        reason = damage_among(folder) or f"{type(error).__name__}: {said}"
        raise ModelError(f"cannot load {name} from {str(folder)!r}: {reason}.") from error
    model.eval()
    model.image.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    origin = f"stored in {CONFIG}"
    return Made(
        name=name,
        model=model,
        text=LiteWords(tokens, model),
        config=config.get("preprocess", {}),
        origin=origin,
        options=known,
        exact=model.image.trunk.delicate,
    )


def _heard(given: Mapping[str, Any] | Sequence[str]) -> dict[str, float]:
    """How much is heard of each reader. A list of readers, as was written before, says nothing of it: half, as of all of those."""
    if not isinstance(given, Mapping | list):
        raise ValueError(f"{CONFIG} has the readers {given!r}, expected groups and how much is heard of each")
    found = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, Reads.heard)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
            raise ValueError(f"{CONFIG} hears {value!r} of the reader for {name}, expected a share above 0, up to 1")
    return {str(name): float(value) for name, value in found.items()}


def _reads(stored: Mapping[str, Tensor], group: str, heard: float) -> Reads:
    """What a specialist reads, as stored: the queries that all groups share may read more numbers, or fewer."""
    own, held = (f"image.specialists.{group}.{name}" for name in ("value.reading.own", "held"))
    for name, expected in ((own, 3), (held, 2)):
        if name in stored and stored[name].ndim != expected:
            raise ValueError(f"{name} in {WEIGHTS} has {stored[name].ndim} dimensions, expected {expected}")
    sighted = any(name.startswith(f"image.specialists.{group}.sight.") for name in stored)
    return Reads(stored[own].shape[2] if own in stored else 0, len(stored.get(held, ())), sighted, heard)


def _factors(given: Mapping[str, Any]) -> dict[str, float]:
    found = {str(name): float(value) for name, value in given.items()}
    for name, value in found.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"the sharpness of {name} is {value}, expected a factor above 0")
    return found


def read(made: Made) -> LiteBackbone:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    return LiteBackbone(made)


def _shortened(name: str, value: Tensor) -> Tensor:
    bits = next((bits for beginning, bits in SHORTENED.items() if name.startswith(beginning)), None)
    if bits is None:
        return value
    mantissa, exponent = torch.frexp(value.float())
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)


def _stored(name: str, value: Tensor) -> dict[str, Tensor]:
    """A weight as it is written: one tensor, or whole numbers and their scales."""
    if name.startswith(EIGHT_BITS):
        return packed({name: value}, next((levels for beginning, levels in LEVELS.items() if beginning.match(name)), 127))
    return {name: _shortened(name, value).half().contiguous().cpu()}


def save(model: LiteModel, tokenizer: str, folder: Path, known: Mapping[str, Sequence[str]] | None = None) -> None:
    """Writes a folder that :func:`make` reads.

    Args:
        model: The model.
        tokenizer: `tokenizer.json` as text.
        folder: Where to.
        known: ``words``, ``names`` and ``groups``; see the module's description. A group is given for each example, in their order.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "family": "lite",
        "sizes": asdict(model.sizes),
        "nouns": model.image.nouns.config.as_dict(),
        "text": model.text.config.as_dict(),
        "preprocess": {
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "longest",
            "read_size": LITE_READ_SIZE,
        },
        **({"specialists": list(model.image.specialists)} if model.image.specialists else {}),
        **({"readers": {name: each.heard for name, each in model.image.readers.items()}} if model.image.readers else {}),
        **({"sharpness": dict(model.sharpness)} if model.sharpness else {}),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = {name: value for name, value in model.state_dict().items() if value.numel()}
    tensors = {stored: part for name, value in state.items() for stored, part in _stored(name, value).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    if known:
        content = {name: list(texts) if name == "groups" else sorted(set(texts)) for name, texts in known.items()}
        (folder / KNOWN).write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
