"""Trains the learned explainers of :mod:`concept_cam.methods.lcam` on a frozen tower.

Loss (the paper's): ``ce * cross-entropy + area * mean((a + 5e-4)^0.3) + smoothness * variation(a)``, where the cross-entropy is that of the
feature map or picture in which hidden cells are moved to their mean. For a classifier head it is over its classes; for text it is over the
concept's target and contrasts, at the model's own temperature. The tower's parameters get no gradient and are not changed.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.protocol import Backbone, FeatureMap
from concept_cam.core.concept import Concept
from concept_cam.core.directions import coefficients, directions
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.names import choose
from concept_cam.methods.engine import encode, graph, select
from concept_cam.methods.heads import ClassifierHead
from concept_cam.methods.lcam import EXPLAINER_KINDS, Explainer
from concept_cam.methods.origin import Origin
from concept_cam.pictures.resizing import Prepared

if TYPE_CHECKING:
    from concept_cam.core.settings import Settings
    from concept_cam.methods.asker import Asker
    from concept_cam.pictures.reading import ImageSource


@dataclass(frozen=True)
class Start:
    """Where training begins, and what goes with it.

    Attributes:
        description: One line for people.
        learning_rate: By default.
        area: Factor of the mean size by default. From good weights a small one is better: a large one wears down what finds the thing.
    """

    description: str
    learning_rate: float
    area: float


STARTS: dict[str, Start] = {
    "random": Start("small random weights (the paper's)", 3e-3, 2.0),
    "gradient": Start("Grad-CAM's weights, the mean gradient of what is asked: few steps and few pictures are enough", 3e-4, 0.5),
}
"""Starts by name."""

START_PICTURES = 8
"""Training pictures whose gradients a start is made of."""

PAPER_CELLS = 49
"""Cells of the paper's feature maps (7 x 7), to which the variation is scaled, so that its factor means the same on any grid."""


@dataclass(frozen=True)
class LcamTraining:
    """How an explainer is trained.

    Attributes:
        kind: ``"fm"`` or ``"img"``.
        steps: Optimisation steps.
        batch_size: Pictures per step.
        learning_rate: Of AdamW, falling to zero along a cosine; ``None``: the start's.
        cross_entropy: Factor of the cross-entropy.
        area: Factor of the mean size; ``None``: the start's.
        area_power: Power that the map is raised to in it.
        smoothness: Factor of the variation.
        plain: Share of text questions asked without their contrasts, so that the explainer knows such questions too.
        start: A name of :data:`STARTS`.
        seed: Of initial weights and batches.
    """

    kind: str = "fm"
    steps: int = 300
    batch_size: int = 16
    learning_rate: float | None = None
    cross_entropy: float = 1.5
    area: float | None = None
    area_power: float = 0.3
    smoothness: float = 0.01
    plain: float = 0.3
    start: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        choose(self.kind, EXPLAINER_KINDS, "kind of explainer")
        start = choose(self.start, STARTS, "start of training")
        object.__setattr__(self, "learning_rate", start.learning_rate if self.learning_rate is None else self.learning_rate)
        object.__setattr__(self, "area", start.area if self.area is None else self.area)
        if self.steps < 1 or self.batch_size < 1:
            raise ConfigurationError(f"steps and batch_size must be at least 1, received {self.steps} and {self.batch_size}.")
        if not 0 <= (self.learning_rate or 0) < math.inf or not 0 <= (self.area or 0) < math.inf:
            raise ConfigurationError(
                f"learning_rate and area must be finite and not negative, received {self.learning_rate} and {self.area}."
            )


@dataclass(frozen=True)
class TrainingExample:
    """A picture and a concept that is true of it: its target is there, its contrasts are not."""

    image: ImageSource
    concept: Concept


# ------------------------------------------------------------------------------------------------------------------ losses


def area(maps: Tensor, valid: Tensor, power: float) -> Tensor:
    """Mean over valid cells of ``(a + 5e-4)^power``: maps [B, h, w], valid bool [B, h, w] -> scalar."""
    return ((maps + 5e-4).pow(power) * valid).sum() / valid.sum()


def variation(maps: Tensor, border: float = 0.3) -> Tensor:
    """Squared differences of neighbours plus ``border`` times squared values at the edges, halved, per picture and 49 cells; [B, h, w]."""
    rows = (maps[:, 1:] - maps[:, :-1]).square().sum()
    columns = (maps[:, :, 1:] - maps[:, :, :-1]).square().sum()
    edges = sum(
        (edge.square().sum() for edge in (maps[:, 0], maps[:, -1], maps[:, :, 0], maps[:, :, -1])),
        torch.zeros(()),
    )
    return (rows + columns + border * edges) / (2 * len(maps)) * (PAPER_CELLS / (maps.shape[1] * maps.shape[2]))


# ------------------------------------------------------------------------------------------------------------------- store


@dataclass(frozen=True, eq=False)
class _Store:
    """All training pictures, encoded once."""

    backbone: Backbone
    pixels: Tensor
    features: FeatureMap
    image: Tensor
    seconds: float

    @classmethod
    def of(cls, backbone: Backbone, prepared: Sequence[Prepared], batch_size: int) -> _Store:
        started = time.perf_counter()
        shapes = {tuple(item.pixels.shape) for item in prepared}
        if len(shapes) != 1 or any(item.windows for item in prepared):
            raise ConfigurationError("training needs inputs of one size: use the resize policy 'pad' or 'squash'.")
        parts = []
        for start in range(0, len(prepared), batch_size):
            chunk = prepared[start : start + batch_size]
            valid = np.stack([item.valid for item in chunk])
            pixels, features, image = encode(backbone, torch.stack([item.pixels for item in chunk]), valid)
            mask = torch.from_numpy(valid).to(pixels.device)
            parts.append((pixels, replace(features, valid=mask), image))
        prefixes = [features.prefix for _, features, _ in parts]
        return cls(
            backbone,
            torch.cat([pixels for pixels, _, _ in parts]),
            FeatureMap(
                map=torch.cat([features.map for _, features, _ in parts]),
                prefix=None if prefixes[0] is None else torch.cat([prefix for prefix in prefixes if prefix is not None]),
                valid=torch.cat([features.valid for _, features, _ in parts if features.valid is not None]),
            ),
            torch.cat([image for _, _, image in parts]),
            time.perf_counter() - started,
        )

    def take(self, rows: Tensor) -> tuple[Tensor, FeatureMap]:
        features = self.features
        assert features.valid is not None
        part = FeatureMap(
            map=features.map[rows],
            prefix=None if features.prefix is None else features.prefix[rows],
            valid=features.valid[rows],
        )
        return self.pixels[rows], part

    @functools.cached_property
    def mean(self) -> Tensor:
        """Mean of the feature map over the valid cells of all pictures, float32 [K]."""
        return self._cells.mean(dim=0)

    @functools.cached_property
    def scale(self) -> Tensor:
        """Standard deviation likewise, float32 [K]."""
        return self._cells.std(dim=0).clamp(min=1e-4)

    @property
    def _cells(self) -> Tensor:
        assert self.features.valid is not None
        return self.features.map.float().permute(0, 2, 3, 1)[self.features.valid]


def _known(valid: Tensor) -> Tensor | None:
    return None if bool(valid.all()) else valid


def _mask_features(store: _Store, pixels: Tensor, features: FeatureMap, maps: Tensor) -> Tensor:
    """Moves hidden cells to the mean feature, as hidden pixels become the mean colour.

    The paper multiplies with the map. Image-text models normalise the embedding, so a map that is small everywhere would hide nothing at a
    linear pooling: the length that it takes away is put back. Towards the mean, what is hidden is lost.
    """
    assert features.valid is not None
    weight = maps[:, None].to(features.map.dtype)
    mean = store.mean[:, None, None].to(features.map.dtype)
    masked = (mean + weight * (features.map - mean)) * features.valid[:, None]
    return store.backbone.pool(replace(features, map=masked, valid=_known(features.valid)))


def _mask_pixels(store: _Store, pixels: Tensor, features: FeatureMap, maps: Tensor) -> Tensor:
    """Multiplies preprocessed pixels, so that what is hidden becomes the mean colour."""
    assert features.valid is not None
    large = F.interpolate(maps[:, None], pixels.shape[2:], mode="bilinear", align_corners=False)
    backbone = store.backbone
    return backbone.pool(backbone.feature_map(pixels * large.to(pixels.dtype), _known(features.valid)))


_MASKING: dict[str, Callable[[_Store, Tensor, FeatureMap, Tensor], Tensor]] = {
    "fm": _mask_features,
    "img": _mask_pixels,
}


# ---------------------------------------------------------------------------------------------------------------- training

Query = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]
"""Rows of the store int64 [B], queries float32 [B, Q], and the cross-entropy of masked image embeddings [B, D]."""


def _random_start(store: _Store, space: Tensor, first: Query, generator: torch.Generator) -> Tensor:
    """Queries have unit length or one entry of 1, standardised features length ``sqrt(K)``: initial logits of size about one."""
    channels = len(store.mean)
    return torch.randn(channels, len(space), generator=generator) / math.sqrt(channels)


def _gradient_start(store: _Store, space: Tensor, first: Query, generator: torch.Generator) -> Tensor:
    """Grad-CAM's channel weights of each direction in ``space``: gradients summed over a picture's cells, their mean over pictures.

    Brought to initial logits of deviation 1 on the first batch.
    """
    rows, queries, _ = first
    _, features = store.take(rows)
    assert features.valid is not None
    few = select(features, slice(0, START_PICTURES))
    assert few.valid is not None
    with graph():
        shift = torch.zeros(len(store.mean), device=features.map.device, requires_grad=True)
        moved = few.map + (shift[:, None, None] * few.valid[:, None]).to(few.map.dtype)
        asked = store.backbone.pool(replace(few, map=moved, valid=_known(few.valid))).float().mean(dim=0) @ space.T
        weights = torch.stack([torch.autograd.grad(one, shift, retain_graph=True)[0] for one in asked], dim=1)
    matrix = weights * store.scale[:, None]
    standard = (features.map.float() - store.mean[:, None, None]) / store.scale[:, None, None]
    logits = torch.einsum("bk,bkhw->bhw", queries @ matrix.T, standard)[features.valid]
    return matrix / logits.std().clamp(min=1e-12)


_BEGIN: dict[str, Callable[[_Store, Tensor, Query, torch.Generator], Tensor]] = {"random": _random_start, "gradient": _gradient_start}


def _train(
    store: _Store,
    space: Tensor,
    batches: Iterator[Query],
    training: LcamTraining,
    classes: tuple[str, ...],
    progress: Callable[[int, float], None] | None,
    asks: str = "",
    settings: Settings | None = None,
) -> Explainer:
    started = time.perf_counter()
    assert training.learning_rate is not None
    assert training.area is not None
    mean, scale = store.mean, store.scale
    first = next(batches)
    start = {
        "matrix": _BEGIN[training.start](store, space, first, torch.Generator().manual_seed(training.seed)),
        "vector": torch.zeros(len(mean)),
        "query": torch.zeros(len(space)),
        "bias": torch.zeros(1),
    }
    with graph():
        learned: dict[str, Any] = {name: value.to(store.image.device).requires_grad_(True) for name, value in start.items()}
        optimizer = torch.optim.AdamW(learned.values(), lr=training.learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
        explainer = Explainer(
            training.kind,
            **learned,
            mean=mean,
            scale=scale,
            classes=classes,
            weights_hash=store.backbone.weights_hash,
            asks=asks,
        )
        for step in range(training.steps):
            rows, queries, cross_entropy = first if step == 0 else next(batches)
            pixels, features = store.take(rows)
            assert features.valid is not None
            maps = explainer.attend(features.map, queries[:, None])[:, 0] * features.valid
            image = _MASKING[training.kind](store, pixels, features, maps).float()
            loss = (
                training.cross_entropy * cross_entropy(image)
                + training.area * area(maps, features.valid, training.area_power)
                + training.smoothness * variation(maps)
            )
            # Only the explainer's own tensors: the tower's `.grad` stays as it is.
            for tensor, gradient in zip(learned.values(), torch.autograd.grad(loss, list(learned.values()))):
                tensor.grad = gradient
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step, float(loss.detach()))
    final: dict[str, Any] = {name: value.detach().cpu() for name, value in learned.items()}
    return Explainer(
        training.kind,
        **final,
        mean=mean.cpu(),
        scale=scale.cpu(),
        classes=classes,
        weights_hash=store.backbone.weights_hash,
        asks=asks,
        origin=Origin.of(store.backbone, settings),
        facts={
            "model": store.backbone.name,
            "pictures": len(store.image),
            "seconds": round(store.seconds + time.perf_counter() - started, 1),
            **asdict(training),
        },
    )


def _rows(count: int, training: LcamTraining) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(training.seed + 1)
    while True:
        yield torch.randint(count, (training.batch_size,), generator=generator)


def random_windows(pixels: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Cuts square windows of 25 to 100 % of the largest one that fits, at random places, half of them mirrored.

    Args:
        pixels: uint8 [H, W, 3].
        count: How many.
        seed: Of the generator.
    """
    generator = np.random.default_rng(seed)
    shorter = min(pixels.shape[:2])
    found = []
    for _ in range(count):
        side = max(1, round(shorter * float(np.sqrt(generator.uniform(0.25, 1.0)))))
        top, left = (int(generator.integers(0, length - side + 1)) for length in pixels.shape[:2])
        window = pixels[top : top + side, left : left + side]
        found.append(np.ascontiguousarray(window[:, ::-1] if generator.random() < 0.5 else window))
    return found


def train_on_classes(
    backbone: Backbone,
    head: ClassifierHead,
    prepared: Sequence[Prepared],
    labels: Sequence[str],
    training: LcamTraining | None = None,
    progress: Callable[[int, float], None] | None = None,
    *,
    rows: bool = False,
    settings: Settings | None = None,
) -> Explainer:
    """Trains an explainer for a classifier head (the paper's form).

    Args:
        backbone: The frozen tower.
        head: The classifier.
        prepared: Model inputs of one size; several crops of each picture are worth having where pictures are few.
        labels: Class of each.
        training: How.
        rows: Makes the weights of each class by one learned map of its row of the head, at unit length, instead of learning them one by
            one: for classes of which there is no picture to train on.
        progress: Called with step and loss.
        settings: How the model inputs were made, recorded with the explainer; ``None``: not known.
    """
    training = training or LcamTraining()
    if len(prepared) != len(labels) or not prepared:
        raise DataError(f"received {len(prepared)} pictures and {len(labels)} labels.")
    store = _Store.of(backbone, prepared, training.batch_size)
    truth = torch.tensor([head.index(label) for label in labels]).to(store.image.device)
    table = F.normalize(head.weight.to(store.image.device), dim=1)

    def batches() -> Iterator[Query]:
        for picked in _rows(len(truth), training):
            chosen = truth[picked.to(truth.device)]
            queries = table[chosen] if rows else F.one_hot(chosen, len(head)).float()
            yield picked, queries, lambda image, chosen=chosen: F.cross_entropy(head.logits(image), chosen)  # type: ignore[misc]

    if rows:
        return _train(store, torch.eye(table.shape[1], device=table.device), batches(), training, (), progress, "rows", settings)
    return _train(store, table, batches(), training, head.classes, progress, settings=settings)


def train_on_concepts(
    localizer: Asker,
    examples: Sequence[TrainingExample],
    training: LcamTraining | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Explainer:
    """Trains one explainer for any concept in words: its weights are a learned function of the direction.

    Each example's direction is made with the localizer's ``gamma`` and ``weighting``.

    Args:
        localizer: The frozen model and its settings.
        examples: Pictures, each with a concept that is true of it and has contrasts; equal picture objects are encoded once.
        training: How.
        progress: Called with step and loss.

    Raises:
        DataError: No example, or one without contrasts.
    """
    training = training or LcamTraining()
    if not examples or any(not example.concept.rivals for example in examples):
        raise DataError("training on concepts needs examples whose concepts have contrasts: they are what the target is told from.")
    backbone, settings = localizer.backbone, localizer.settings
    pictures: dict[int, int] = {}
    images: list[ImageSource] = []
    for example in examples:
        if id(example.image) not in pictures:
            pictures[id(example.image)] = len(images)
            images.append(example.image)
    store = _Store.of(backbone, [localizer.prepare(image) for image in images], training.batch_size)
    place = torch.tensor([pictures[id(example.image)] for example in examples])
    concepts = list(dict.fromkeys(example.concept for example in examples))
    asked = torch.tensor([concepts.index(example.concept) for example in examples])
    texts = localizer.directions(localizer.phrased(concepts))
    choices = texts.texts[texts.columns] * texts.answers[..., None]
    generator = torch.Generator().manual_seed(training.seed + 2)

    def batches() -> Iterator[Query]:
        for rows in _rows(len(examples), training):
            where, which = place[rows], asked[rows].to(choices.device)
            image = store.image[where.to(store.image.device)]
            terms = coefficients(
                texts,
                image,
                weighting=settings.weighting,
                gamma=settings.gamma,
                logit_scale=backbone.logit_scale,
            )
            every = directions(texts, terms).expand(len(rows), -1, -1)
            queries = every[torch.arange(len(rows)), which]
            plain = (torch.rand(len(rows), generator=generator) < training.plain).to(queries.device)
            queries = torch.where(plain[:, None], choices[which, 0], queries)

            def cross_entropy(masked: Tensor, which: Tensor = which) -> Tensor:
                cosines = torch.einsum("bd,brd->br", F.normalize(masked, dim=-1), choices[which])
                logits = (backbone.logit_scale * cosines).masked_fill(~texts.answers[which], float("-inf"))
                return F.cross_entropy(logits, torch.zeros(len(which), dtype=torch.long, device=logits.device))

            yield where, F.normalize(queries, dim=-1), cross_entropy

    return _train(store, torch.eye(backbone.embed_dim, device=store.image.device), batches(), training, (), progress, settings=settings)
