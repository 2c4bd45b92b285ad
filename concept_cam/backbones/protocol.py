"""The small protocol that every image-text model is reached through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from concept_cam.pictures.preprocessing import Preprocess

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from concept_cam.backbones.own_head import OwnHead
    from concept_cam.backbones.tokens import TokenBackbone

BY_CLASS_TOKEN = "class token"
BY_POOLING = "attention pooling"


@dataclass(frozen=True)
class ImageFeatures:
    """Output of the image tower for a batch.

    Attributes:
        patches: [B, h, w, D] patch features in the joint space, not normalised, in the model's dtype.
        image: [B, D] image embedding, not normalised; equals the model's own ``encode_image`` (without its normalisation).
    """

    patches: Tensor
    image: Tensor


@dataclass(frozen=True)
class FeatureMap:
    """The layer that gradient methods differentiate at, and what else pooling needs to turn it into an image embedding.

    Attributes:
        map: [B, K, h, w], ``K`` channels of the layer. For class-token towers the patch tokens that enter the last attention, after the
            last block's input norm (later ones no longer reach the class token, and before the norm gradient times activation sums to
            zero at every patch, for the norm ignores a token's length); for mean- and attention-pooled towers the tokens that the pooling
            reads; for convolutional towers the last map before pooling.
        prefix: [B, P, K] tokens beside the patches (class token, registers), or ``None``.
        valid: bool [B, h, w], False for padding; ``None``: all valid. ``map`` is zero where it is False.
        stream: At the layer ``"norm1"`` of towers that do not read the class token alone: the tokens [B, P + h w, K] that enter the last
            block, before its norm, to which the block adds; ``None`` elsewhere.
    """

    map: Tensor
    prefix: Tensor | None = None
    valid: Tensor | None = None
    stream: Tensor | None = None


@dataclass(frozen=True)
class Gathering:
    """The attention that gathers the picture: one query that attends to all tokens and becomes the image embedding; ``L = prefix + N``
    tokens.

    Attributes:
        query: [B, heads, 1, d].
        key: [B, heads, L, d].
        value: [B, heads, L, d].
        scale: Factor of the dot products.
        prefix: Tokens before the patches.
        keys: bool [B, L], False for padding; ``None``: all valid.
        finish: Context [B, heads, 1, d] -> image embedding [B, D], not normalised; differentiable.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    prefix: int
    keys: Tensor | None
    finish: Callable[[Tensor], Tensor]


@runtime_checkable
class Backbone(Protocol):
    """An image tower and a text tower with a joint space.

    Implementations are stateless after construction: calls change neither parameters, gradients, hooks nor the train/eval mode, and may
    run in several threads at once.

    Attributes:
        name: Canonical model name, as accepted by :func:`concept_cam.backbones.load`.
        family: Key of the family in :data:`concept_cam.backbones.FAMILIES`.
        weights_hash: SHA-256 (first 16 hex digits) over parameter names, shapes and values, and constants beside them.
        preprocess: What the input must look like.
        embed_dim: ``D``.
        logit_scale: The model's own temperature, already exponentiated.
        sharpness: By what that temperature is multiplied where the states of a character are told from each other, by
            :func:`concept_cam.core.scoring.character_key`; empty for models of which nothing was fitted.
        logit_bias: The model's own bias for sigmoid models, else ``None``.
        context_length: Most tokens the text tower takes, special tokens included.
        attentions: Names of the dense attention strategies that the family supports.
        default_attention: The one that ``"auto"`` stands for.
        gathers: Whose attention gathers the picture: :data:`BY_CLASS_TOKEN`, :data:`BY_POOLING`, or ``""`` where :meth:`gathering` has
            none.
        transformer: The tower's blocks, for methods that read inside a vision transformer; ``None`` for other towers.
        layers: Names of the layers that :meth:`feature_map` can be read at, the tower's own choice first: ``"last"`` (what the pooling
            reads) and ``"norm1"`` (the first norm of a transformer's last block; for class-token towers the only one).
        own_head: The classifier that the model comes with; ``None`` for image-text models.
        device: Where the parameters are.
        dtype: Floating-point type that the towers run in.
        number_format: Name of what the image tower computes in: that of ``dtype``, or ``"int8"``.
    """

    name: str
    family: str
    preprocess: Preprocess
    embed_dim: int
    logit_scale: float
    sharpness: Mapping[str, float]
    logit_bias: float | None
    context_length: int
    attentions: tuple[str, ...]
    default_attention: str
    own_head: OwnHead | None

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def gathers(self) -> str: ...

    @property
    def transformer(self) -> TokenBackbone | None: ...

    @property
    def weights_hash(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def number_format(self) -> str: ...

    def grid_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the ``(h, w)`` grid of an input of ``size`` = ``(H, W)`` model pixels."""
        ...

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Runs the model's own image embedding: pixels [B, 3, H, W], preprocessed -> [B, D], not normalised.

        At sizes that the model's own code refuses, the position table is resized and the same computation goes on from there.
        """
        ...

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        """Reads patch features and the image embedding in one pass.

        Args:
            pixels: [B, 3, H, W] preprocessed, sides multiples of the stride.
            attention: Name of a dense attention strategy; ``"auto"`` for the family's default.
            valid: bool [B, h, w]; cells that are False are padding: never keys of any attention, left out of any mean, and zero in the
                result (``None``: all valid).

        Raises:
            AttentionError: Unknown strategy, or one that this family does not have.
            ConfigurationError: A size the tower cannot read.
        """
        ...

    def feature_map(self, pixels: Tensor, valid: Tensor | None = None, layer: str | None = None) -> FeatureMap:
        """Runs the tower up to the layer that gradient methods differentiate at; arguments as for :meth:`encode_patches`.

        ``layer`` is one of :attr:`layers`; ``None`` stands for the first of them.

        No hooks are needed: detach ``map``, let it require a gradient, and give the changed :class:`FeatureMap` to :meth:`pool`. Take the
        gradient with ``torch.autograd.grad``, which leaves the parameters' ``.grad`` alone.
        """
        ...

    def pool(self, features: FeatureMap) -> Tensor:
        """Runs the rest of the tower, differentiably: [B, D], not normalised; ``pool(feature_map(x))`` is the image embedding."""
        ...

    def gathering(self, features: FeatureMap) -> Gathering:
        """Returns the attention that gathers the picture from a feature map: the class token's in the last block, or the pooling's.

        Raises:
            UnsupportedModelError: The tower has none, or one that is not read here.
        """
        ...

    def stock_embedding(self, pixels: Tensor, features: FeatureMap, pooled: Tensor) -> Tensor:
        """Returns the model's own image embedding [B, D] of pixels whose feature map was pooled already.

        That is ``pooled``, except for towers whose map is read more finely than it was trained: there ``pool`` embeds the finer map.
        """
        ...

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Runs the text tower: N texts -> [N, D], not normalised.

        Raises:
            PromptError: A text is empty or longer than the context (never truncated silently); the message names the limit.
        """
        ...

    def count_tokens(self, prompt: str) -> int:
        """Returns the number of tokens of ``prompt``, special tokens included, before any truncation."""
        ...

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the words of ``prompt`` that lie far from what the model was trained on; empty for models that cannot tell."""
        ...
