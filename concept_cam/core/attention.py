"""Dense attention strategies: how the last attention of a frozen tower is read so that every patch keeps its own place.

CLIP's last attention gathers the picture into the class token, and leaves patches whose features say what is somewhere in the picture.
Each function here replaces the weights of that one attention, from the model's own queries, keys and values; the tower itself is never
changed. Shapes: ``B`` images, ``heads``, ``L`` tokens of which the first ``prefix`` are not patches (class token, registers), ``N`` patches
(``L = prefix + N``), ``d`` width of a head, ``W`` width of the tower.

Scaled dot products are written ``softmax(a b' s)`` with ``s`` the model's own scale (``1 / sqrt(d)``). All tokens are keys, as in the
official code of the papers, except for :func:`affinity`; padded tokens never are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.core.attention_names import PATHS, TAILS
from concept_cam.core.errors import AttentionError
from concept_cam.core.names import choose

__all__ = ["ATTENTION_STRATEGIES", "LastAttention", "Strategy", "strategy"]

GAUSSIAN_SIGMA = 5.0
"""Width of NACLIP's neighbourhood, patches (the paper's value)."""
AFFINITY_BETA, AFFINITY_GAMMA = 1.2, 3.0
"""Shift and sharpness of ProxyCLIP's affinity normalisation (the paper's values)."""
OUTLIER_THRESHOLD = 4.0
"""Robust standard deviations (1.4826 MAD) above the median token norm from which a patch counts as an outlier."""


@dataclass(frozen=True)
class LastAttention:
    """What the last attention of a tower holds for one batch.

    Attributes:
        query: [B, heads, L, d], or ``None`` where the strategy does not need it.
        key: Likewise.
        value: [B, heads, L, d].
        prefix: Tokens before the patches.
        scale: Factor of the model's dot products.
        positions: float [B, N, 2] or [1, N, 2], (row, column) of each patch in grid cells.
        keys: bool [B, L], False where a token is padding; ``None`` when all are valid.
        stream: [B, L, W] tokens that enter the last block.
        normed: [B, L, W] those tokens as the attention sees them, after the block's first norm.
        middle: [B, L, W] tokens that leave the middle block, or ``None`` where the strategy does not need them.
    """

    query: Tensor | None
    key: Tensor | None
    value: Tensor
    prefix: int
    scale: float
    positions: Tensor
    keys: Tensor | None = None
    stream: Tensor | None = None
    normed: Tensor | None = None
    middle: Tensor | None = None


@dataclass(frozen=True)
class Strategy:
    """One dense attention strategy.

    Attributes:
        read: LastAttention -> context [B, heads, N, d] of the patches, before the output projection.
        needs: Which of ``query``, ``key``, ``normed``, ``middle`` it reads (``value`` always).
        residual: Whether the block's residual connection is kept.
        ffn: Whether the block's feed-forward network is kept.
        depth: Number of last blocks that are read. From 2 on, what they read is added up beside the model's own stream, from the tokens
            that enter the first of them on (the papers' second path, without feed-forward networks).
    """

    read: Callable[[LastAttention], Tensor]
    needs: frozenset[str] = frozenset()
    residual: bool = False
    ffn: bool = False
    depth: int = 1


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("the strategy reads a tensor that its `needs` does not name.")
    return tensor


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float, keys: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """Computes ``softmax(query key' scale + bias) value`` over the valid keys.

    Args:
        query: [B, heads, M, d].
        key: [B, heads, L, d].
        value: [B, heads, L, d].
        scale: Factor of the dot products.
        keys: bool [B, L], True for valid keys; ``None``: all.
        bias: [B or 1, 1, M, L] added to the scaled dot products.

    Returns:
        [B, heads, M, d].
    """
    mask = None if keys is None else keys[:, None, None, :]
    if bias is not None:
        bias = bias.to(query.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _self_similarity(name: str) -> Callable[[LastAttention], Tensor]:
    def read(last: LastAttention) -> Tensor:
        a = _given(getattr(last, name))
        return attend(a[:, :, last.prefix :], a, last.value, last.scale, last.keys)

    return read


def qk(last: LastAttention) -> Tensor:
    """The attention as trained: ``softmax(q k' s) v``.

    With residual and feed-forward network kept this is ``vanilla``, the patch tokens that CLIP itself computes.
    """
    return attend(_given(last.query)[:, :, last.prefix :], _given(last.key), last.value, last.scale, last.keys)


def value(last: LastAttention) -> Tensor:
    """Each patch attends to itself only: ``v`` (attention matrix = identity).

    Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP" (MaskCLIP), ECCV 2022. Their code keeps residual and feed-forward network
    (``value+residual+ffn``); ClearCLIP shows that dropping both localises better.
    """
    return last.value[:, :, last.prefix :]


def qq(last: LastAttention) -> Tensor:
    """Query-query self-similarity: ``softmax(q q' s) v``.

    Lan et al., "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference", ECCV 2024: with residual connection
    and feed-forward network dropped.
    """
    return _self_similarity("query")(last)


def kk(last: LastAttention) -> Tensor:
    """Key-key self-similarity with a Gaussian neighbourhood: ``softmax(k k' s + exp(-|p_i - p_j|^2 / (2 sigma^2))) v``.

    ``p`` are grid positions, sigma = 5 patches; keys that are not patches get no Gaussian. Hajimiri, Ben Ayed and Dolz, "Pay Attention to
    Your Neighbours: Training-Free Open-Vocabulary Semantic Segmentation" (NACLIP), WACV 2025: with residual and feed-forward dropped.
    """
    key = _given(last.key)
    near = F.pad(gaussian(last.positions), (last.prefix, 0))[:, None]
    return attend(key[:, :, last.prefix :], key, last.value, last.scale, last.keys, near)


def qq_kk(last: LastAttention) -> Tensor:
    """Sum of query-query and key-key self-similarity: ``(softmax(q q' s) + softmax(k k' s)) v``.

    Wang, Mei and Yuille, "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference", ECCV 2024, which keeps residual and
    feed-forward network (``qq+kk+residual+ffn``). The rows sum to two, as in the paper.
    """
    return _self_similarity("query")(last) + _self_similarity("key")(last)


def vv(last: LastAttention) -> Tensor:
    """Value-value self-similarity: ``softmax(v v' s) v``.

    Li et al., "CLIP Surgery for Better Explainability with Enhancement in Open-Vocabulary Tasks", 2023.
    """
    return _self_similarity("value")(last)


def gem(last: LastAttention) -> Tensor:
    """Iterated self-self attention of queries, keys and values, averaged.

    For each ``x`` of q, k, v: ``x <- n(x)``, ``x <- softmax(x x' t) x``, ``x <- n(x)``; the result is the mean over the three of
    ``softmax(x x' t) v``. ``n`` is L2 normalisation per head and ``t = s * mean_i |y_i|`` with ``y`` the normed input tokens. Bousselham
    et al., "Grounding Everything: Emerging Localization Properties in Vision-Language Transformers" (GEM), CVPR 2024, here for the last
    block with the paper's one iteration.
    """
    norms = _given(last.normed).float().norm(dim=-1)
    if last.keys is None:
        mean = norms.mean(dim=1)
    else:
        mean = (norms * last.keys).sum(dim=1) / last.keys.sum(dim=1)
    root = (mean * last.scale).sqrt()[:, None, None, None].to(last.value.dtype)

    def ensemble_member(x: Tensor) -> Tensor:
        x = F.normalize(x, dim=-1)
        x = F.normalize(attend(x * root, x * root, x, 1.0, last.keys), dim=-1)
        x = x * root
        return attend(x[:, :, last.prefix :], x, last.value, 1.0, last.keys)

    members = [ensemble_member(x) for x in (last.value, _given(last.key), _given(last.query))]
    return (members[0] + members[1] + members[2]) / 3


def affinity(last: LastAttention) -> Tensor:
    """Affinity of the middle layer's patch tokens, over values with outlier patches replaced.

    ``S = n(m) n(m)'`` with ``m`` the middle block's patch tokens; ``S' = gamma (S - beta mean(S))``; ``softmax(S')`` over the patches whose
    ``S'`` is not negative, and always the patch itself; applied to :func:`suppress_outliers` of the values. Normalisation and mask: Lan
    et al., "ProxyCLIP", ECCV 2024 (beta = 1.2, gamma = 3), with the tower's own middle layer in place of a second model; middle layer and
    outlier tokens: Bai et al., "Self-Calibrated CLIP for Training-Free Open-Vocabulary Segmentation" (SC-CLIP), 2024.
    """
    middle = F.normalize(_given(last.middle)[:, last.prefix :].float(), dim=-1)
    valid = None if last.keys is None else last.keys[:, last.prefix :]
    similarity = middle @ middle.transpose(1, 2)
    if valid is None:
        mean = similarity.mean(dim=(1, 2), keepdim=True)
    else:
        pairs = valid[:, :, None] & valid[:, None, :]
        mean = (similarity * pairs).sum(dim=(1, 2), keepdim=True) / pairs.sum(dim=(1, 2), keepdim=True)
    logits = AFFINITY_GAMMA * (similarity - AFFINITY_BETA * mean)
    drop = logits < 0
    if valid is not None:
        drop = drop | ~valid[:, None, :]
    # Every row keeps its own patch, or a picture of one colour would have no key at all.
    drop = drop & ~torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    weights = logits.masked_fill(drop, float("-inf")).softmax(dim=-1)
    norms = _given(last.stream)[:, last.prefix :].float().norm(dim=-1)
    values = suppress_outliers(last.value[:, :, last.prefix :], norms, last.positions, valid)
    return weights[:, None].to(values.dtype) @ values


def gaussian(positions: Tensor, sigma: float = GAUSSIAN_SIGMA) -> Tensor:
    """Returns float32 [B, N, N], ``exp(-|p_i - p_j|^2 / (2 sigma^2))`` of positions [B, N, 2] in grid cells."""
    positions = positions.float()
    squared = (positions[:, :, None] - positions[:, None, :]).square().sum(dim=-1)
    return torch.exp(squared / (-2 * sigma**2))


def suppress_outliers(values: Tensor, norms: Tensor, positions: Tensor, valid: Tensor | None = None) -> Tensor:
    """Replaces the values of outlier patches by the mean of their ordinary neighbours.

    A patch is an outlier when its token norm exceeds the picture's median by more than :data:`OUTLIER_THRESHOLD` robust standard
    deviations: such tokens hold global information instead of their own place (Darcet et al., "Vision Transformers Need Registers",
    ICLR 2024). An outlier without an ordinary neighbour among the eight around it keeps its value.

    Args:
        values: [B, heads, N, d].
        norms: [B, N] L2 norms of the patch tokens that enter the block.
        positions: [B or 1, N, 2] (row, column) of each patch.
        valid: bool [B, N], False for padding; ``None``: all valid.

    Returns:
        [B, heads, N, d].
    """
    known = norms.float() if valid is None else norms.float().masked_fill(~valid, float("nan"))
    median = known.nanmedian(dim=1, keepdim=True).values
    spread = 1.4826 * (known - median).abs().nanmedian(dim=1, keepdim=True).values
    outlier = known > median + OUTLIER_THRESHOLD * spread.clamp(min=1e-6 * median)
    ordinary = ~outlier if valid is None else ~outlier & valid
    distance = (positions[:, :, None] - positions[:, None, :]).abs().amax(dim=-1)
    neighbours = ((distance == 1) & ordinary[:, None, :]).to(values.dtype)
    count = neighbours.sum(dim=-1)
    replaced = (neighbours[:, None] @ values) / count[:, None, :, None].clamp(min=1)
    return torch.where((outlier & (count > 0))[:, None, :, None], replaced, values)


READING_FUNCTIONS: dict[str, tuple[Callable[[LastAttention], Tensor], frozenset[str]]] = {
    "qk": (qk, frozenset({"query", "key"})),
    "value": (value, frozenset()),
    "qq": (qq, frozenset({"query"})),
    "kk": (kk, frozenset({"key"})),
    "qq+kk": (qq_kk, frozenset({"query", "key"})),
    "vv": (vv, frozenset()),
    "gem": (gem, frozenset({"query", "key", "normed"})),
    "affinity": (affinity, frozenset({"middle"})),
}
"""Reading -> its function and what it needs besides the values."""

ATTENTION_STRATEGIES: dict[str, Strategy] = {
    "vanilla": Strategy(*READING_FUNCTIONS["qk"], residual=True, ffn=True),
    **{
        reading + tail: Strategy(read, needs, residual, ffn)
        for reading, (read, needs) in READING_FUNCTIONS.items()
        for tail, (residual, ffn) in TAILS.items()
        if reading + tail != "qk+residual+ffn"  # That is "vanilla".
    },
    **{name: Strategy(*READING_FUNCTIONS[reading], residual=True, depth=depth) for name, (reading, depth) in PATHS.items()},
}
"""Every dense attention strategy by name: the readings, each with residual and feed-forward network of the last block dropped or kept."""


def strategy(name: str) -> Strategy:
    """Looks up a strategy.

    Raises:
        AttentionError: The name is unknown; the message names the nearest ones.
    """
    return choose(name, ATTENTION_STRATEGIES, "attention strategy", AttentionError)
