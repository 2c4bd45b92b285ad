"""What all backbones share: input checks, strategies by name, text, identity."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones import FAMILIES
from concept_cam.backbones.hashing import hash_model
from concept_cam.backbones.own_head import OwnHead
from concept_cam.backbones.protocol import FeatureMap, Gathering
from concept_cam.backbones.text import NoText, TextEncoder
from concept_cam.core import attention as dense
from concept_cam.core.errors import AttentionError, ConfigurationError, ImageError, ModelError, UnsupportedModelError
from concept_cam.core.names import nearest_names
from concept_cam.pictures.preprocessing import Preprocess

if TYPE_CHECKING:
    from concept_cam.backbones.tokens import TokenBackbone


class BaseBackbone:
    """The part of :class:`~concept_cam.backbones.protocol.Backbone` that is the same for every family.

    Args:
        model: The loaded model, in evaluation mode; never changed.
        name: Name of the model.
        family: Key of :data:`~concept_cam.backbones.FAMILIES`.
        preprocess: What the input must look like.
        text: The text tower, or :class:`~concept_cam.backbones.text.NoText`.
        embed_dim: Width of the joint embedding.
        attentions: Strategies of the family.

    Raises:
        ModelError: The model is in training mode, where dropout and batch statistics would change the maps and the model itself.
    """

    layers: tuple[str, ...] = ("last",)
    own_head: OwnHead | None = None
    sharpness: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        family: str,
        preprocess: Preprocess,
        text: TextEncoder | NoText,
        embed_dim: int,
        attentions: Sequence[str],
    ) -> None:
        self.model = model
        self.name = name
        self.family = family
        self.preprocess = preprocess
        self.embed_dim = embed_dim
        self.attentions = tuple(attentions)
        self.default_attention = FAMILIES[family].auto
        self.context_length = text.context_length
        self.logit_scale = _logit_scale(model)
        self.logit_bias: float | None = _scalar(model, "logit_bias") if getattr(model, "logit_bias", None) is not None else None
        self._text = text
        self._require_eval()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, family={self.family!r}, dtype={self.dtype}, device={str(self.device)!r})"

    @functools.cached_property
    def weights_hash(self) -> str:
        """See :func:`concept_cam.backbones.hashing.hash_model`; computed at the first use."""
        return hash_model(self.model)

    @property
    def has_words(self) -> bool:
        """Whether it can be asked in words."""
        return not isinstance(self._text, NoText)

    @property
    def _anchor(self) -> Tensor:
        return next(parameter for parameter in self.model.parameters() if parameter.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._anchor.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that the towers run in."""
        return self._anchor.dtype

    @property
    def number_format(self) -> str:
        """Name of what the image tower computes in: that of :attr:`dtype`, or ``"int8"``."""
        return str(self.dtype).removeprefix("torch.")

    def grid_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the ``(h, w)`` grid of an input of ``size`` = ``(H, W)`` model pixels.

        Raises:
            ConfigurationError: The tower cannot read this size.
        """
        stride, native = self.preprocess.stride, self.preprocess.size
        if tuple(size) != tuple(native):
            if not self.preprocess.flexible:
                raise ConfigurationError(
                    f"{self.name} reads pictures of {native[0]}x{native[1]} pixels (rows x columns) only, received {size[0]}x{size[1]}. "
                    "Use a resize policy that makes this size, such as 'pad'."
                )
            if min(size) < 1 or size[0] % stride[0] or size[1] % stride[1]:
                raise ConfigurationError(
                    f"{self.name} reads pictures whose rows and columns are multiples of {stride[0]} and {stride[1]} pixels, "
                    f"received {size[0]}x{size[1]}."
                )
        return size[0] // stride[0], size[1] // stride[1]

    @property
    def gathers(self) -> str:
        """Whose attention gathers the picture; see :class:`concept_cam.backbones.protocol.Backbone`."""
        return ""

    @property
    def transformer(self) -> TokenBackbone | None:
        """The tower's blocks, for methods that read inside a vision transformer."""
        return None

    def gathering(self, features: FeatureMap) -> Gathering:
        """See :meth:`concept_cam.backbones.protocol.Backbone.gathering`."""
        raise UnsupportedModelError(
            f"{self.name!r} (family {self.family}) has neither the attention of a class token nor an attention pooling that is read here."
        )

    def library_embedding(self, pixels: Tensor) -> Tensor | None:
        """Runs the image embedding through the library's public interface alone, for comparison: pixels [B, 3, H, W] -> [B, D].

        ``None`` where there is no library to compare with, or where it reads other sizes only.
        """
        return None

    def stock_embedding(self, pixels: Tensor, features: FeatureMap, pooled: Tensor) -> Tensor:
        """See :meth:`concept_cam.backbones.protocol.Backbone.stock_embedding`."""
        return pooled

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Runs the text tower; see :meth:`concept_cam.backbones.protocol.Backbone.encode_text`."""
        self._require_eval()
        return self._text(prompts)

    def count_tokens(self, prompt: str) -> int:
        """Returns the number of tokens of ``prompt``, special tokens included, before any truncation."""
        return self._text.count(prompt)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the words of ``prompt`` that lie far from what the model was trained on; empty for models that cannot tell."""
        return self._text.unknown_words(prompt)

    def _require_eval(self) -> None:
        if self.model.training:
            raise ModelError(f"the model {self.name} is in training mode: call model.eval() first; it is never switched for you.")

    def _strategy(self, attention: str) -> dense.Strategy:
        name = self.default_attention if attention == "auto" else attention
        chosen = dense.strategy(name)
        if name not in self.attentions:
            raise AttentionError(
                f"the attention strategy {name!r} does not exist for {self.name} (family {self.family}). "
                f"It has: {', '.join(self.attentions)}."
            )
        return chosen

    def _layer(self, layer: str | None) -> str:
        """Returns the name of a layer that a feature map can be read at; ``None`` stands for the tower's own choice."""
        if layer is None:
            return self.layers[0]
        if layer not in self.layers:
            near = nearest_names(layer, self.layers, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"{self.name} has no layer {layer!r} to read a map at.{hint} It has: {', '.join(self.layers)}.")
        return layer

    def _prepare(self, pixels: Tensor) -> Tensor:
        """Checks a batch and brings it to the model's device and type."""
        self._require_eval()
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[0] < 1:
            raise ImageError(f"expected preprocessed pixels of shape [B, 3, H, W], received {list(pixels.shape)}.")
        self.grid_size((pixels.shape[2], pixels.shape[3]))
        return pixels.to(device=self.device, dtype=self.dtype)

    def _prepare_valid(self, valid: Tensor | None, pixels: Tensor) -> Tensor | None:
        """Checks the padding mask; ``None`` when nothing is padding."""
        if valid is None:
            return None
        expected = (pixels.shape[0], *self.grid_size((pixels.shape[2], pixels.shape[3])))
        if tuple(valid.shape) != expected or valid.dtype != torch.bool:
            raise ConfigurationError(f"expected `valid` as bool {list(expected)}, received {valid.dtype} {list(valid.shape)}.")
        if bool(valid.all()):
            return None
        if not bool(valid.flatten(1).any(dim=1).all()):
            raise ConfigurationError("a picture of the batch is padding only: `valid` must be True somewhere in each.")
        return valid.to(self.device)

    def _is_native(self, pixels: Tensor) -> bool:
        return tuple(pixels.shape[2:]) == tuple(self.preprocess.size)


def _logit_scale(model: nn.Module) -> float:
    """Returns the factor of cosines: the exponential of a ``logit_scale``, or what a ``temperature`` divides by; 1 without either."""
    if hasattr(model, "logit_scale"):
        return _scalar(model, "logit_scale", math.exp)
    return 1.0 / _scalar(model, "temperature") if hasattr(model, "temperature") else 1.0


def _scalar(model: nn.Module, name: str, transform: Any = float) -> float:
    parameter = getattr(model, name)
    return float(transform(parameter.detach().float().reshape(-1)[0].item()))


def resize_positions(
    table: Tensor, native: tuple[int, int], grid: tuple[int, int], mode: str = "bicubic", antialias: bool = True
) -> Tensor:
    """Resizes a table of learned position embeddings to another grid.

    Args:
        table: [native h * native w, W], without the rows of tokens that are not patches.
        native: ``(h, w)`` that the table was learned for.
        grid: ``(h, w)`` wanted.
        mode: ``"bicubic"`` or ``"bilinear"``.
        antialias: Whether a smaller grid takes means, as open_clip and timm have it; the transformers library's CLIP and SigLIP do not.

    Returns:
        [h * w, W] in the table's dtype; the table itself when the grids are equal.
    """
    if tuple(native) == tuple(grid):
        return table
    square = table.reshape(1, *native, -1).permute(0, 3, 1, 2).float()
    resized = F.interpolate(square, size=grid, mode=mode, antialias=antialias, align_corners=False)
    return resized.flatten(2).squeeze(0).T.to(table.dtype)
