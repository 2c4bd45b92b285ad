"""Runs a method over pictures in batches: what all methods that read a tower's feature map share.

A method is a pure function from a :class:`Batch` to maps. The tower runs once per picture without a graph up to the feature map; only what
follows is differentiated, by ``torch.autograd.grad`` with respect to a private copy of the map. Nothing is hooked, and neither parameters
nor their ``.grad`` are touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from concept_cam.backbones.protocol import Backbone, FeatureMap
from concept_cam.core.concept import Concept
from concept_cam.core.directions import DirectionSet, coefficients, directions
from concept_cam.core.errors import ImageError
from concept_cam.core.quiet import quiet
from concept_cam.core.results import Localizations
from concept_cam.core.scoring import FEATURE_NORM, image_scores, probabilities, scales_of
from concept_cam.methods.method import Method
from concept_cam.pictures.resizing import Prepared, merge_windows

if TYPE_CHECKING:
    from concept_cam.methods.asker import Asker
    from concept_cam.pictures.reading import Picture

__all__ = ["Batch", "TowerMethod", "encode", "gradients", "graph", "without_graph", "slopes"]

_GRADIENT_SCALE = {torch.float16: 1024.0}
"""Factor on the objective while it is differentiated, so that small gradients do not vanish in the number format."""


@dataclass(frozen=True)
class Batch:
    """Pictures of one size and the directions that are asked of them; ``K`` channels of the feature map.

    Attributes:
        backbone: The model.
        pixels: float [B, 3, H, W], preprocessed.
        features: Feature map, without a graph.
        image: float32 [B, D] pooled feature maps, not normalised.
        directions: float32 [B, C, D], constants.
        feature_norm: How the image embedding enters the objective, a name of :data:`concept_cam.core.scoring.FEATURE_NORM`.
        temperature: Factor from the objective to the model's own logits, for methods with a softmax over scores.
        patch_norm: How patch features enter the direct method.
    """

    backbone: Backbone
    pixels: Tensor
    features: FeatureMap
    image: Tensor
    directions: Tensor
    feature_norm: str = "l2"
    temperature: float = 1.0
    patch_norm: str = "l2"

    @property
    def concepts(self) -> int:
        """``C``."""
        return self.directions.shape[1]

    @property
    def valid(self) -> Tensor:
        """Which cells show the picture, bool [B, h, w]; False for padding."""
        if self.features.valid is not None:
            return self.features.valid
        grid = self.features.map
        return torch.ones(grid.shape[0], *grid.shape[2:], dtype=torch.bool, device=grid.device)

    def normalise(self, image: Tensor) -> Tensor:
        """Brings image embeddings [N, D] to the form in which they enter the objective, float32."""
        return FEATURE_NORM[self.feature_norm](image)

    def objective(self, image: Tensor) -> Tensor:
        """Returns ``y = e^ . w`` float32 [B, C] of image embeddings [B, D]."""
        return torch.einsum("bd,bcd->bc", self.normalise(image), self.directions)

    def single(self, row: int) -> Batch:
        """Returns the batch of one picture."""
        part = slice(row, row + 1)
        return replace(
            self,
            pixels=self.pixels[part],
            features=select(self.features, part),
            image=self.image[part],
            directions=self.directions[part],
        )


def select(features: FeatureMap, part: slice) -> FeatureMap:
    """Returns some of the pictures of a feature map."""
    return FeatureMap(
        map=features.map[part],
        prefix=None if features.prefix is None else features.prefix[part],
        stream=None if features.stream is None else features.stream[part],
        valid=None if features.valid is None else features.valid[part],
    )


@contextmanager
def without_graph() -> Iterator[None]:
    """Builds no graphs within, but tensors that later graphs may use, also where the caller is in inference mode."""
    with quiet(graph=False):
        yield


@contextmanager
def graph() -> Iterator[None]:
    """Builds graphs within, whatever the caller switched off."""
    with quiet(graph=True):
        yield


def encode(backbone: Backbone, pixels: Tensor, valid: np.ndarray | None, layer: str | None = None) -> tuple[Tensor, FeatureMap, Tensor]:
    """Runs the tower without a graph: pixels on the model's device, feature map, image embedding float32 [B, D].

    Args:
        backbone: The model.
        pixels: float32 [B, 3, H, W], preprocessed.
        valid: bool [B, h, w], False for padding.
        layer: Where the map is read, one of the tower's ``layers``; ``None`` for its own choice.
    """
    mask = None if valid is None or valid.all() else torch.from_numpy(valid).to(backbone.device)
    with without_graph():
        pixels = pixels.to(backbone.device, backbone.dtype)
        features = backbone.feature_map(pixels, mask) if layer is None else backbone.feature_map(pixels, mask, layer)
        return pixels, features, backbone.pool(features).float()


def own_embedding(backbone: Backbone, pixels: Tensor, features: FeatureMap, pooled: Tensor) -> Tensor:
    """Returns the model's own image embedding float32 [B, D], which weighs the contrasts and gives the image-level numbers.

    The objective of gradient methods is the embedding of the feature map, which for some towers is read more finely than it was trained.
    """
    return backbone.stock_embedding(pixels, features, pooled).float()


def slopes(batch: Batch, at: Tensor, embed: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yields ``dy_c / dx`` float32, shaped as ``x``, for each concept in turn.

    Args:
        batch: Pictures and directions.
        at: The tensor ``x`` [B, ...]; a private copy of it is differentiated.
        embed: From it to image embeddings [B, D], not normalised.
    """
    scale = _GRADIENT_SCALE.get(at.dtype, 1.0)
    with graph():
        leaf = at.detach().clone().requires_grad_(True)
        scores = batch.objective(embed(leaf)).sum(dim=0) * scale
    for index in range(batch.concepts):
        with graph():
            (gradient,) = torch.autograd.grad(scores[index], leaf, retain_graph=index + 1 < batch.concepts)
        yield gradient.float() / scale


def gradients(batch: Batch) -> Iterator[Tensor]:
    """Yields ``dy_c / dA`` float32 [B, K, h, w] for each concept in turn; zero in padding."""
    features = batch.features
    for gradient in slopes(batch, features.map, lambda map_: batch.backbone.pool(replace(features, map=map_))):
        yield gradient if features.valid is None else gradient * features.valid[:, None]


@dataclass(frozen=True)
class TowerMethod:
    """A method that reads a tower's feature map; calling it runs it over pictures.

    Attributes:
        maps: :class:`Batch` -> float32 [B, C, h, w], any value in padding.
        check: Called with the backbone first; raises where the method does not exist for it.
        layered: Whether it reads a map wherever a layer has one; methods that read inside the tower do not choose.
        adapt: Makes ``maps`` of the text behind the method's name and a colon, where it takes one.
    """

    maps: Callable[[Batch], Tensor]
    check: Callable[[Backbone], None] = lambda backbone: None
    layered: bool = True
    adapt: Callable[[str], Callable[[Batch], Tensor]] | None = None

    def maps_for(self, argument: str) -> Callable[[Batch], Tensor]:
        """Returns ``maps`` for the text behind the method's name; empty for none."""
        return self.maps if self.adapt is None or not argument else self.adapt(argument)

    def __call__(self, localizer: Asker, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
        """See :func:`concept_cam.methods.explain`."""
        self.check(localizer.backbone)
        return run(localizer, pictures, concepts, method, self.maps_for(method.argument))


def run(
    localizer: Asker,
    pictures: Sequence[Picture],
    concepts: tuple[Concept, ...],
    method: Method,
    maps: Callable[[Batch], Tensor],
) -> list[Localizations]:
    """Prepares pictures, groups them by size, and turns maps into answers."""
    with without_graph():
        return _run(localizer, pictures, concepts, method, maps)


def _run(
    localizer: Asker,
    pictures: Sequence[Picture],
    concepts: tuple[Concept, ...],
    method: Method,
    maps: Callable[[Batch], Tensor],
) -> list[Localizations]:
    texts = localizer.directions(concepts)
    prepared = [localizer.prepare(picture) for picture in pictures]
    answers: list[Localizations | None] = [None] * len(pictures)
    sizes: dict[tuple[int, ...], list[int]] = {}
    for position, item in enumerate(prepared):
        key = (position,) if item.windows else tuple(item.pixels.shape)
        sizes.setdefault(key, []).append(position)
    step = localizer.settings.batch_size
    for positions in sizes.values():
        for start in range(0, len(positions), step):
            chosen = positions[start : start + step]
            items = [prepared[position] for position in chosen]
            sources = [pictures[position].source for position in chosen]
            found = (
                _tiles(localizer, items[0], texts, sources[0], maps) if items[0].windows else _batch(localizer, items, texts, sources, maps)
            )
            for position, item, (scores, image, terms) in zip(chosen, items, found):
                answers[position] = _answer(localizer, item, concepts, texts, method, pictures[position].source, scores, image, terms)
    return [answer for answer in answers if answer is not None]


Found = tuple[np.ndarray, Tensor, Tensor]
"""Maps float32 [C, h, w], image embedding float32 [D], coefficients float32 [C, 1 + R]."""


def _batch(
    localizer: Asker,
    items: Sequence[Prepared],
    texts: DirectionSet,
    sources: Sequence[str | None],
    maps: Callable[[Batch], Tensor],
) -> list[Found]:
    pixels = torch.stack([item.pixels for item in items])
    valid = np.stack([item.valid for item in items])
    pixels, features, pooled = encode(localizer.backbone, pixels, valid)
    _require_finite(pooled, sources)
    image = own_embedding(localizer.backbone, pixels, features, pooled)
    terms = _coefficients(localizer, texts, image)
    batch = _make_batch(localizer, pixels, features, pooled, directions(texts, terms))
    values = maps(batch).float().cpu().numpy()
    return [(values[row], image[row], terms[min(row, len(terms) - 1)]) for row in range(len(items))]


def _tiles(
    localizer: Asker,
    item: Prepared,
    texts: DirectionSet,
    source: str | None,
    maps: Callable[[Batch], Tensor],
) -> list[Found]:
    """Windows are explained alone, all with the whole picture's directions, and their maps averaged."""
    step = localizer.settings.batch_size
    encoded = [
        encode(localizer.backbone, item.batch[start : start + step], item.batch_valid[start : start + step])
        for start in range(0, len(item.batch), step)
    ]
    images = torch.cat([own_embedding(localizer.backbone, *part) for part in encoded])
    _require_finite(images, [source] * len(images))
    image = torch.nn.functional.normalize(images, dim=-1).mean(dim=0)
    terms = _coefficients(localizer, texts, image[None])
    weights = directions(texts, terms)
    values = [maps(_make_batch(localizer, *part, weights)).float().cpu() for part in encoded]
    merged = merge_windows(torch.cat(values).permute(0, 2, 3, 1), item.windows, item.geometry.grid)
    return [(merged.permute(2, 0, 1).contiguous().numpy(), image, terms[0])]


def _coefficients(localizer: Asker, texts: DirectionSet, image: Tensor) -> Tensor:
    settings = localizer.settings
    return coefficients(
        texts,
        image,
        weighting=settings.weighting,
        gamma=settings.gamma,
        logit_scale=localizer.backbone.logit_scale,
    )


def _make_batch(localizer: Asker, pixels: Tensor, features: FeatureMap, image: Tensor, weights: Tensor) -> Batch:
    return Batch(
        backbone=localizer.backbone,
        pixels=pixels,
        features=features,
        image=image,
        directions=weights.detach().expand(len(pixels), -1, -1),
        feature_norm=localizer.settings.feature_norm,
        temperature=localizer.backbone.logit_scale,
    )


def _require_finite(image: Tensor, sources: Sequence[str | None]) -> None:
    finite = torch.isfinite(image).all(dim=-1)
    if not bool(finite.all()):
        source = sources[int((~finite).nonzero()[0])]
        raise ImageError(
            f"the model returned NaN or infinity for {source or 'the picture'}: check the pixels, the weights "
            "(concept-cam models check), or use --dtype float32."
        )


def _answer(
    localizer: Asker,
    item: Prepared,
    concepts: tuple[Concept, ...],
    texts: DirectionSet,
    method: Method,
    source: str | None,
    scores: np.ndarray,
    image: Tensor,
    terms: Tensor,
) -> Localizations:
    levels = image_scores(image[None], texts, terms[None])[0].cpu().numpy()
    temperatures = scales_of(concepts, localizer.backbone.logit_scale, localizer.backbone.sharpness)
    shares = probabilities(image[None], texts, temperatures)[0].cpu().numpy()
    scores = scores.astype(np.float32, copy=False)
    valid = item.geometry.valid()
    if not valid.all():
        scores = np.where(valid, scores, np.float32(np.nan))
    return Localizations(
        concepts=concepts,
        scores=scores,
        image_scores=levels,
        probabilities=shares,
        terms=terms.cpu().numpy(),
        geometry=item.geometry,
        provenance=localizer.provenance(method.name, "none", item.geometry.policy),
        source=source,
    )
