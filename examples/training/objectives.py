"""The terms of the loss: captions judged by the image embedding, by its patches, and by the patches of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.demo.captions import FALSE, TRUE
from concept_cam.demo.traits import CHARACTERS, PRESENCE_CHARACTERS
from training.claims import FAMILIES, STATE_BLOCKS, part_contrasts
from training.config import READ_STRIDE, TrainConfig
from training.model import MARGINS, Trainee


def soft_maximum(logits: Tensor, dim: int) -> Tensor:
    """Mean of the logits weighted by their own softmax: near the maximum, with a gradient for the runners-up."""
    return (logits.softmax(dim) * logits).sum(dim)


def soft_maximum_within(logits: Tensor, inside: Tensor) -> Tensor:
    """`soft_maximum` over the cells of each window, all windows in two matrix products.

    Args:
        logits: [B, n, N].
        inside: bool [B, K, n].

    Returns:
        float32 [B, K, N]; 0 for a window without cells.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, windows = logits.float(), inside.float()
        # Logits are cosines times a scale below 60: none is so far under the picture's best that it vanishes.
        weights = (logits - logits.amax(1, keepdim=True).detach()).exp()
        return (windows @ (weights * logits)) / (windows @ weights).clamp(min=1e-37)


def truth_loss(logits: Tensor, truth: Tensor, most: float = 4.0) -> Tensor:
    """Sigmoid loss over all picture x caption pairs whose truth is known.

    Args:
        logits: float32 [B, N].
        truth: int8 [B, N] of `FALSE`, `UNKNOWN`, `TRUE`.
        most: Positives, which are rarer, weigh up to this much.
    """
    positive, negative = truth == TRUE, truth == FALSE
    ratio = negative.sum() / positive.sum().clamp(min=1)
    weights = positive.float() * ratio.clamp(1.0, most) + negative.float()
    loss = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
    return (loss * weights).sum() / weights.sum().clamp(min=1)


def rank_loss(margins: Tensor, truth: Tensor) -> Tensor:
    """Logistic loss on how much better a caption fits than `a fish`: a true specific caption should win, a false one lose.

    Args:
        margins: float32 [B, N], logit of the caption less that of the host.
        truth: int8 [B, N].
    """
    positive, negative = truth == TRUE, truth == FALSE
    loss = F.softplus(torch.where(positive, -margins, margins))

    def mean(chosen: Tensor) -> Tensor:
        return (loss * chosen).sum() / chosen.sum().clamp(min=1)

    return 0.5 * (mean(positive) + mean(negative))


def sibling_loss(logits: Tensor, margins: Tensor, states: Tensor, judgeable: Tensor) -> Tensor:
    """Cross-entropy of a character's states where they can be told: which of the sibling captions describes the picture?

    A presence character has no caption for `absent`; its caption competes with `a fish` instead.

    Args:
        logits: float32 [B, S], mean logit of each state's captions; all states of `CHARACTERS` in order.
        margins: float32 [B, S], the same less the host's logit.
        states: int64 [B, C], the true states.
        judgeable: bool [B, C].

    Returns:
        Mean over the characters that can be told in some picture.
    """
    terms = []
    for c, (name, values) in enumerate(CHARACTERS.items()):
        rows, block = judgeable[:, c], STATE_BLOCKS[name]
        if rows.any():
            truth = states[rows, c]
            if name in PRESENCE_CHARACTERS:
                present = values.index("present")
                terms.append(F.binary_cross_entropy_with_logits(margins[rows, block.start + present], (truth == present).float()))
            else:
                terms.append(F.cross_entropy(logits[rows, block], truth))
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0


def part_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Logistic loss over pairs of parts of which one is in view and the other is not: the one in view should fit better.

    Args:
        logits: float32 [M, P], mean logit of each part's captions.
        truth: int8 [M, P].
    """
    pairs = (truth[:, :, None] == TRUE) & (truth[:, None, :] == FALSE)
    loss = F.softplus(logits[:, None, :] - logits[:, :, None])
    return (loss * pairs).sum() / pairs.sum().clamp(min=1)


def place_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Logistic loss over pairs of windows of one picture: a part's captions should fit a window that shows it better than one that does not.

    Args:
        logits: float32 [B, K, P].
        truth: int8 [B, K, P].
    """
    return part_loss(logits.transpose(1, 2).flatten(0, 1), truth.transpose(1, 2).flatten(0, 1))


def peak_loss(scores: Tensor, inside: Tensor, truth: Tensor) -> Tensor:
    """Logistic loss on where a map is highest: in a window of which the caption is true, not in one of which it is false.

    Cells that lie in both kinds of window count as false, cells in neither do not count.

    Args:
        scores: float32 [B, n, M].
        inside: bool [B, K, n], the cells of each window.
        truth: int8 [B, K, M].
    """
    cells = inside.float().transpose(1, 2)
    away = cells @ (truth == FALSE).float() > 0
    shown = (cells @ (truth == TRUE).float() > 0) & ~away
    known = shown.any(1) & away.any(1)
    # A large negative number instead of minus infinity, whose gradient is not a number where nothing is left.
    high, low = (torch.where(where, scores, -1e4).logsumexp(1) for where in (shown, away))
    return (F.softplus(low - high) * known).sum() / known.sum().clamp(min=1)


def neutral_loss(logits: Sequence[Tensor], hidden: Tensor) -> Tensor:
    """Where no caption of a family is true, none of them may be preferred: divergence of their softmax from the uniform.

    Without it the difference of two siblings, which is the direction that a contrast makes, is free to be anything off the part.

    Args:
        logits: Per family, float32 [B, n, S_g]: mean logit of each sibling's captions at each patch.
        hidden: bool [B, n, G].

    Returns:
        Mean over the hidden patches and families.
    """
    terms = []
    for g, z in enumerate(logits):
        away = hidden[..., g]
        divergence = z.logsumexp(-1) - z.mean(-1) - math.log(z.shape[-1])
        terms.append((divergence * away).sum() / away.sum().clamp(min=1))
    return torch.stack(terms).mean()


@dataclass(frozen=True)
class Lesson:
    """The captions of one step and what is true of its pictures.

    Attributes:
        tokens: int64 [N, L].
        truth: int8 [B, N].
        hosts: int64, numbers of the captions that say only `a fish`.
        ranked: int64 [R], numbers of the captions that are compared with them.
        average: float32 [S, N], averages the captions of each of `STATES`.
        parts: float32 [P, N], averages the captions of each of `PLACES`.
        part_truth: int8 [B, P].
        states: int64 [B, C], the true states.
        judgeable: bool [B, C], they can be told.
        boxes: float32 [B, K, 4], windows in shares of the picture's sides.
        region_truth: int8 [B, K, N].
        region_parts: int8 [B, K, P].
        region_states: int8 [B, K, S]; `UNKNOWN` for states of absence, which no caption names.
        hidden: bool [B, G], nothing of what a family of siblings is about is in the picture; see `FAMILIES`.
        region_hidden: bool [B, K, G], the same of the windows.
    """

    tokens: Tensor
    truth: Tensor
    hosts: Tensor
    ranked: Tensor
    average: Tensor
    parts: Tensor
    part_truth: Tensor
    states: Tensor
    judgeable: Tensor
    boxes: Tensor
    region_truth: Tensor
    region_parts: Tensor
    region_states: Tensor
    hidden: Tensor
    region_hidden: Tensor


def cells_in(boxes: Tensor, height: int, width: int, margin: float) -> Tensor:
    """Which cells of a map have their centre in each window: bool [B, K, h * w].

    Args:
        boxes: float32 [B, K, 4], windows in shares of the picture's sides.
        height: Rows of the map.
        width: Columns of the map.
        margin: Cells between the picture's edge and the map's; see `MARGINS`.
    """

    def within(count: int, low: Tensor, high: Tensor) -> Tensor:
        centres = (torch.arange(count, device=boxes.device) + margin + 0.5) / (count + 2 * margin)
        return (centres >= low[..., None]) & (centres < high[..., None])

    top, left, bottom, right = boxes.unbind(-1)
    rows, columns = within(height, top, bottom), within(width, left, right)
    return (rows[..., :, None] & columns[..., None, :]).flatten(2)


def contrast_matrix(average: Tensor, parts: Tensor, hosts: Tensor) -> Tensor:
    """What turns scores of captions into maps of each part and state against its contrasts, as the trait pack has them.

    A part is contrasted as `part_contrasts` says, a state with its siblings, a presence with the host.

    Args:
        average: float32 [S, N]; see `Lesson`.
        parts: float32 [P, N].
        hosts: int64, numbers of the captions that say only `a fish`.

    Returns:
        float32 [P + S, N].
    """
    host = torch.zeros_like(parts[:1])
    host[:, hosts] = 1.0 / max(1, len(hosts))
    rows = [parts - part_contrasts().to(parts) @ torch.cat([parts, host])]
    for name, block in STATE_BLOCKS.items():
        own = average[block]
        if name in PRESENCE_CHARACTERS:
            rows.append(own - host)
        else:
            rows.append(own - (own.sum(0, keepdim=True) - own) / (len(own) - 1))
    return torch.cat(rows)


def family_logits(scores: Tensor, lesson: Lesson) -> list[Tensor]:
    """Mean logit of each sibling's captions at each patch: [B, n, N] to, per family of `FAMILIES`, [B, n, S_g]."""
    states = scores @ lesson.average.T
    return [states[..., STATE_BLOCKS[name]] if name in STATE_BLOCKS else scores @ lesson.parts.T for name in FAMILIES]


def losses(trainee: Trainee, x: Tensor, lesson: Lesson, config: TrainConfig) -> dict[str, Tensor]:
    """All terms of the loss and their weighted sum `total`, for pictures [B, 3, H, W], preprocessed."""
    image, patches, text = trainee(x, lesson.tokens)
    scale = trainee.clip.logit_scale.exp().clamp(max=60.0)
    ranked, truth = lesson.ranked, lesson.truth
    host = F.normalize(text[lesson.hosts].mean(0), dim=0)
    known = truth[:, ranked].clone()
    known[(truth[:, lesson.hosts[0]] != TRUE)] = 1
    average, average_ranked = lesson.average, lesson.average[:, ranked]
    logits = scale * (image @ text.T)
    margins = logits[:, ranked] - scale * (image @ host)[:, None]
    terms = {
        "image": truth_loss(logits + trainee.clip.logit_bias, truth),
        "image_rank": rank_loss(margins, known),
        "image_siblings": sibling_loss(logits @ average.T, margins @ average_ranked.T, lesson.states, lesson.judgeable),
        "image_parts": part_loss(logits @ lesson.parts.T, lesson.part_truth),
    }
    if patches is not None:
        scores = scale * (patches @ text.T)
        best = soft_maximum(scores, 1)
        gaps = soft_maximum(scores[:, :, ranked] - scale * (patches @ host)[..., None], 1)
        terms["patch"] = truth_loss(best + trainee.patch_bias, truth)
        terms["patch_rank"] = rank_loss(gaps, known)
        terms["patch_siblings"] = sibling_loss(best @ average.T, gaps @ average_ranked.T, lesson.states, lesson.judgeable)
        terms["patch_parts"] = part_loss(best @ lesson.parts.T, lesson.part_truth)
        away = lesson.hidden[:, None].expand(-1, patches.shape[1], -1)
        if lesson.boxes.shape[1]:
            side = math.isqrt(patches.shape[1])
            inside = cells_in(lesson.boxes, side, side, MARGINS[READ_STRIDE])
            seen = torch.where(inside.any(2)[..., None], lesson.region_truth, 1).flatten(0, 1)
            pooled = soft_maximum_within(scores, inside).flatten(0, 1)
            terms["region"] = truth_loss(pooled + trainee.patch_bias, seen)
            gap = scores[:, :, ranked] - scale * (patches @ host)[..., None]
            contested = torch.where(seen[:, lesson.hosts[:1]] == TRUE, seen[:, ranked], 1)
            terms["region_rank"] = rank_loss(soft_maximum_within(gap, inside).flatten(0, 1), contested)
            shown = torch.where(inside.any(2)[..., None], lesson.region_parts, 1)
            fits = (pooled @ lesson.parts.T).view(shown.shape)
            terms["region_parts"] = part_loss(fits.flatten(0, 1), shown.flatten(0, 1))
            terms["region_places"] = place_loss(fits, shown)
            terms["peak"] = peak_loss(scores, inside, lesson.region_truth)
            contrasts = contrast_matrix(average, lesson.parts, lesson.hosts)
            terms["peak_contrast"] = peak_loss(scores @ contrasts.T, inside, torch.cat([lesson.region_parts, lesson.region_states], dim=2))
            away = away | (inside[..., None] & lesson.region_hidden[:, :, None]).any(1)
        terms["neutral"] = neutral_loss(family_logits(scores, lesson), away)
    total = torch.stack([config.weights[name] * value for name, value in terms.items()]).sum()
    return terms | {"total": total}
