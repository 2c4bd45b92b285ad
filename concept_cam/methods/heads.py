"""Finer-CAM in its original form: linear classifier heads, whose weight rows take the place of text embeddings.

Zhang et al., "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation", CVPR 2025: a class is explained by its
logit minus those of the classes that are most easily taken for it. ``z_n = W_n . e + b_n`` with the image embedding ``e`` of a frozen
tower.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.damage import damage_of
from concept_cam.backbones.protocol import Backbone
from concept_cam.core.concept import Concept
from concept_cam.core.directions import nearest_classes
from concept_cam.core.documents import understood
from concept_cam.core.errors import ConfigurationError, DataError, ImageError, UnsupportedModelError
from concept_cam.core.files import METADATA, write_tensors
from concept_cam.core.grouping import batches_of_one_size
from concept_cam.core.names import choose, did_you_mean, plain_number, some_of, whole_number
from concept_cam.core.quiet import quiet
from concept_cam.core.results import Localization, Provenance
from concept_cam.core.scoring import FEATURE_NORM
from concept_cam.core.settings import Settings, given_settings, said_once
from concept_cam.methods import METHODS, find_method, require_followed
from concept_cam.methods.direct import patch_maps
from concept_cam.methods.engine import Batch, TowerMethod, encode, without_graph
from concept_cam.methods.head_probe import CERTIFIED, CERTIFIER, LINEAR, HeadProbe
from concept_cam.methods.origin import UNKNOWN, Origin
from concept_cam.pictures.endings import PICTURE_SUFFIXES, is_picture
from concept_cam.pictures.folders import Unreadable, walk
from concept_cam.pictures.given import pictures_in, several_pictures, spoken
from concept_cam.pictures.preprocessing import adapted, own_input
from concept_cam.pictures.reading import ImageSource, Picture, read_image
from concept_cam.pictures.resizing import Prepared, prepare

__all__ = ["AGGREGATIONS", "Aggregation", "ClassifierHead", "FinerCam", "class_folders", "fit_head"]

Class: TypeAlias = str | SupportsIndex
"""A class of a classifier: its name, or its number."""

# ------------------------------------------------------------------------------------------------------------------ head

_LAYER_ALONE = (
    "Save the last layer's state_dict() alone, for embeddings that it reads as they are; a whole network is read as a model: "
    "--model timm:NAME,FILE, in Python from_classifier(model)."
)


@dataclass(frozen=True, eq=False)
class ClassifierHead:
    """A linear classifier over a tower's image embedding.

    Attributes:
        weight: float32 [N, D], one row per class.
        bias: float32 [N].
        classes: Their names.
        feature_norm: Whether it reads the embedding as it is (``"none"``) or at unit length (``"l2"``).
        weights_hash: Hash of the tower's weights it was trained on; empty when that is not known.
        origin: How the embedding it was trained on is made, and how its pictures were read, as far as that is known.

    Raises:
        ConfigurationError: Shapes that do not fit, values that are not finite, fewer than two classes or double names.
    """

    weight: Tensor
    bias: Tensor
    classes: tuple[str, ...]
    feature_norm: str = "none"
    weights_hash: str = ""
    origin: Origin = UNKNOWN

    def __post_init__(self) -> None:
        weight, bias = self.weight.detach().float().cpu(), self.bias.detach().float().cpu()
        if weight.ndim != 2 or len(weight) < 2:
            raise ConfigurationError(
                f"a classifier head needs a weight matrix [classes, D] with at least two rows, received {list(weight.shape)}."
            )
        if tuple(bias.shape) != (len(weight),):
            raise ConfigurationError(f"expected a bias of {len(weight)} values, received {list(bias.shape)}.")
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise ConfigurationError("the classifier head holds NaN or infinity.")
        classes = _class_names(self.classes)
        if len(classes) != len(weight) or len(set(classes)) != len(classes):
            raise ConfigurationError(
                f"expected {len(weight)} different class names, received {len(classes)}, {len(set(classes))} of them different."
            )
        choose(self.feature_norm, FEATURE_NORM, "feature normalisation")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "classes", classes)

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def of(cls, backbone: Backbone) -> ClassifierHead:
        """Takes the classifier that a tower comes with, such as that of ``timm:NAME``.

        Raises:
            UnsupportedModelError: The tower has none.
        """
        own = backbone.own_head
        if own is None:
            raise UnsupportedModelError(
                f"{backbone.name} comes without a classifier: train one with 'concept-cam fit-head' (--head FILE), or ask in words."
            )
        return cls(own.weight, own.bias, own.classes, "none", backbone.weights_hash, Origin.of(backbone))

    @classmethod
    def from_matrix(
        cls,
        weight: Tensor | np.ndarray,
        bias: Tensor | np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        *,
        feature_norm: str = "none",
    ) -> ClassifierHead:
        """Makes a head of a matrix [N, D] and a bias [N] (zero by default)."""
        matrix = _numbers(weight, "weight matrix [classes, D]")
        offset = torch.zeros(len(matrix), dtype=torch.float32) if bias is None else _numbers(bias, "bias [classes]")
        names = tuple(f"class {i}" for i in range(len(matrix))) if classes is None else _class_names(classes)
        return cls(matrix, offset, names, feature_norm)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], classes: Sequence[str] | None = None, *, feature_norm: str = "none"
    ) -> ClassifierHead:
        """Makes a head of a linear layer's state: the one matrix in it, and the one vector of its layer as bias.

        Raises:
            ConfigurationError: It holds no matrix or several, a bias that does not fit, or further tensors: a norm before the layer, or the
                rest of a network, is part of what it says and cannot be left out.
        """
        if not isinstance(state, Mapping):
            raise ConfigurationError(f"expected the state of one linear layer, received {spoken(state)}: give layer.state_dict().")
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        matrices = {name: value for name, value in tensors.items() if value.ndim == 2}
        if len(matrices) != 1:
            found = (
                f"among its tensors: {some_of(sorted(tensors))}" if tensors else f"among: {some_of(sorted(map(str, state))) or 'nothing'}"
            )
            raise ConfigurationError(
                f"expected the state of one linear layer (one matrix [classes, D]), found {len(matrices)} matrices {found}. {_LAYER_ALONE}"
            )
        name, weight = next(iter(matrices.items()))
        bias = f"{name.removesuffix('weight')}bias" if name.endswith("weight") else ""
        if bias in tensors and tuple(tensors[bias].shape) != (len(weight),):
            raise ConfigurationError(
                f"expected a bias of {len(weight)} values, as many as the matrix {name!r} has classes, found one of the shape "
                f"{list(tensors[bias].shape)}: the head is damaged, or its parts are of two."
            )
        if bias not in tensors:  # one of another name, but of the same layer: as long is also a norm over as many numbers
            layer = name.rpartition(".")[0]
            fitting = [other for other, value in tensors.items() if tuple(value.shape) == (len(weight),)]
            bias = next((other for other in fitting if other.rpartition(".")[0] == layer and not other.endswith("weight")), bias)
        further = sorted(tensors.keys() - {name, bias})
        if further:
            raise ConfigurationError(
                f"expected the state of one linear layer, the matrix {name!r} and its bias, found further tensors: {some_of(further)}. "
                f"Without them its logits would be others. {_LAYER_ALONE}"
            )
        return cls.from_matrix(weight, tensors.get(bias), classes, feature_norm=feature_norm)

    @classmethod
    def from_sklearn(cls, model: Any, *, feature_norm: str = "none") -> ClassifierHead:
        """Makes a head of a fitted linear classifier of scikit-learn, or of a pipeline of a ``StandardScaler`` and one.

        A two-class model's single row ``d`` becomes the rows ``-d/2`` and ``d/2``: the same decision and the same probability.

        Raises:
            ConfigurationError: The model is not linear, not fitted, or compares classes two by two (``SVC``), so that it has no row for a
                class.
        """
        mean, scale, final = 0.0, 1.0, model
        if hasattr(model, "steps"):
            steps = [step for _, step in model.steps]
            final = steps[-1]
            if len(steps) > 2 or (len(steps) == 2 and not (hasattr(steps[0], "scale_") and hasattr(steps[0], "mean_"))):
                raise ConfigurationError(
                    "expected a pipeline of a fitted StandardScaler and a linear classifier, received "
                    f"{' and '.join(type(step).__name__ for step in steps)}."
                )
            if len(steps) == 2:
                # Without centring the mean is known all the same.
                mean = steps[0].mean_ if getattr(steps[0], "with_mean", True) and steps[0].mean_ is not None else 0.0
                scale = 1.0 if steps[0].scale_ is None else steps[0].scale_
        if not hasattr(final, "coef_") or not hasattr(final, "classes_"):
            raise ConfigurationError(
                f"expected a fitted linear classifier of scikit-learn (with coef_ and classes_), received {type(final).__name__}."
            )
        if hasattr(final, "dual_coef_") and len(final.classes_) > 2:
            raise ConfigurationError(
                f"{type(final).__name__} compares its {len(final.classes_)} classes two by two, so that its rows are those of pairs: "
                "expected a classifier with one row for each class, such as LinearSVC or LogisticRegression."
            )
        weight = np.atleast_2d(np.asarray(final.coef_, dtype=np.float64)) / scale
        bias = np.broadcast_to(np.asarray(final.intercept_, dtype=np.float64), (len(weight),)) - weight @ (np.zeros(weight.shape[1]) + mean)
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return cls.from_matrix(weight, bias, [str(name) for name in final.classes_], feature_norm=feature_norm)

    @classmethod
    @understood("the classifier head", ConfigurationError)
    def load(
        cls,
        path: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        *,
        feature_norm: str | None = None,
    ) -> ClassifierHead:
        """Reads a head: ``.safetensors`` (its names are in its header when this package wrote it), ``.pth``, ``.pt`` or ``.bin``.

        Only tensors are read: a file that holds other objects is refused, never unpickled.

        Args:
            path: The file.
            classes: Class names, when the file has none; else others for the same classes, in the same order.
            feature_norm: See :class:`ClassifierHead`; the file's own, or ``"none"``.

        Raises:
            ConfigurationError: The file is missing, damaged, holds more than tensors, or does not hold one linear layer; or the names are
                those that it holds, in another order.
        """
        file = Path(path)
        facts: dict[str, Any] = {}
        try:
            if file.suffix == ".safetensors":
                from safetensors import SafetensorError, safe_open

                try:
                    with safe_open(str(file), framework="pt") as opened:
                        facts = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
                        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                except SafetensorError as error:
                    raise _unread(file, f"it is no safetensors file: {error}") from error
            else:
                import pickle

                try:
                    state = torch.load(file, map_location="cpu", weights_only=True)
                except pickle.UnpicklingError as error:
                    raise _unread(file, "it holds more than tensors, which is not read: save the layer's state_dict() alone") from error
        except (OSError, EOFError, RuntimeError) as error:
            raise _unread(file, str(error)) from error
        if not isinstance(state, Mapping):
            state = {"weight": state}
        if isinstance(state.get("state_dict"), Mapping):
            state = state["state_dict"]
        if "explainer" in facts:
            raise ConfigurationError(
                f"{str(file)!r} is an explainer of 'concept-cam fit-attention', no head: give it as --method lcam:FILE."
            )
        own = facts.get("classes")
        norm = feature_norm or facts.get("feature_norm", "none")
        head = cls.from_state_dict(state, classes if own is None else own, feature_norm=norm)
        if own is not None and classes is not None:
            head = head.named(classes)
        return replace(head, weights_hash=str(facts.get("weights_hash", "")), origin=Origin.from_facts(facts))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the head as ``.safetensors``, class names in its header.

        Raises:
            OutputError: The file exists, or cannot be written.
            ConfigurationError: Another ending.
        """
        facts = {
            "kind": "classifier head",
            "classes": list(self.classes),
            "feature_norm": self.feature_norm,
            "weights_hash": self.weights_hash,
            **self.origin.facts(),
        }
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        return write_tensors(path, tensors, facts, overwrite=overwrite)

    def named(self, classes: Sequence[str]) -> ClassifierHead:
        """Returns the head with other names for its classes, in the order of its rows.

        Raises:
            ConfigurationError: They are its own names in another order, so that each would stand for what another one means; or double
                names, or another number of them.
        """
        names = _class_names(classes)
        if names != self.classes and sorted(names) == sorted(self.classes):
            place = next(i for i, name in enumerate(names) if name != self.classes[i])
            raise ConfigurationError(
                f"the class names that were given are the classifier's own in another order: {names[place]!r} would stand for what it "
                f"knows as {self.classes[place]!r}. Leave the names out, for it has them: {some_of(self.classes)}."
            )
        return replace(self, classes=names)

    def logits(self, image: Tensor) -> Tensor:
        """Returns float32 [B, N] of image embeddings [B, D], not normalised."""
        weight, bias = self.weight.to(image.device), self.bias.to(image.device)
        return FEATURE_NORM[self.feature_norm](image) @ weight.T + bias

    def index(self, name: str | SupportsIndex) -> int:
        """Returns the number of a class.

        Args:
            name: Its name, or its number: a whole number of any type, such as ``np.argmax`` returns.

        Raises:
            ConfigurationError: There is no such class, or neither a name nor a number was given.
        """
        number = whole_number(name)
        if isinstance(number, int) and not isinstance(number, bool):
            if not 0 <= number < len(self):
                raise ConfigurationError(f"expected a class number from 0 to {len(self) - 1}, received {number}.")
            return number
        if not isinstance(name, str):
            raise ConfigurationError(
                f"expected a class by name, such as {self.classes[0]!r}, or by number, 0 to {len(self) - 1}; received {spoken(name)}."
            )
        if name not in self.classes:
            hint = did_you_mean(name, self.classes)
            raise ConfigurationError(f"the classifier head has no class {name!r} among its {len(self)}: {some_of(self.classes)}.{hint}")
        return self.classes.index(name)


def _unread(file: Path, reason: str) -> ConfigurationError:
    """What is said of a file that is no head: what it is where that can be told, else the reason."""
    return ConfigurationError(f"cannot read the classifier head {str(file)!r}: {damage_of(file) or reason}.")


def _class_names(given: object) -> tuple[str, ...]:
    """Names of classes as plain texts in a tuple; a text alone would be taken for its letters, and numbers for the places of others."""
    names: list[Any] = _several(given, "class names", "texts", "['species a', 'species b']")
    odd = next((name for name in names if not isinstance(name, str) or not name.strip()), None)
    if odd is not None:
        raise ConfigurationError(f"class names must be texts that are not blank, received {spoken(odd)} among {len(names)}.")
    return tuple(map(str, names))


def _numbers(given: Any, what: str) -> Tensor:
    """A tensor of what was given as one."""
    try:
        found: Tensor = torch.atleast_1d(torch.as_tensor(given))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"a classifier head needs a {what} of numbers, received {spoken(given)}.") from error
    return found


# ----------------------------------------------------------------------------------------------------------- aggregation


@dataclass(frozen=True)
class Aggregation:
    """How the reference classes' logits are set against the target's.

    Attributes:
        description: One line for people.
        alpha: Comparison strength by default.
        weights: ``(logits [N], references, alpha, target) -> float32 [N]``: what each class's logit contributes to the objective.
    """

    description: str
    alpha: float
    weights: Callable[[Tensor, int, Sequence[int], float], Tensor]


def _combine(logits: Tensor, target: int, references: Sequence[int], shares: Tensor, alpha: float) -> Tensor:
    terms = torch.zeros_like(logits)
    terms[list(references)] = -alpha * shares
    terms[target] += 1
    return terms


def _uniform(logits: Tensor, target: int, references: Sequence[int], alpha: float) -> Tensor:
    return _combine(
        logits, target, references, torch.full((len(references),), 1 / len(references), dtype=logits.dtype, device=logits.device), alpha
    )


def _softmax(logits: Tensor, target: int, references: Sequence[int], alpha: float) -> Tensor:
    return _combine(logits, target, references, torch.softmax(logits[list(references)], dim=0), alpha)


def _hardest(logits: Tensor, target: int, references: Sequence[int], alpha: float) -> Tensor:
    chosen = max(references, key=lambda reference: float(logits[reference]))
    return _combine(logits, target, [chosen], torch.ones(1, dtype=logits.dtype, device=logits.device), alpha)


def _released(logits: Tensor, target: int, references: Sequence[int], alpha: float) -> Tensor:
    with quiet(graph=True):
        leaf = logits.detach().clone().requires_grad_(True)
        shares = torch.softmax(leaf, dim=0)[list(references)]
        objective = (shares * (leaf[target] - alpha * leaf[list(references)])).sum() / (shares.sum() + 1e-9)
        (terms,) = torch.autograd.grad(objective, leaf)
    return terms


AGGREGATIONS: dict[str, Aggregation] = {
    "uniform": Aggregation("mean over the references (the paper)", 0.6, _uniform),
    "softmax": Aggregation("references by their probability, weights constant", 1.0, _softmax),
    "hardest": Aggregation("the most probable reference alone (the paper's compare mode)", 1.0, _hardest),
    "released": Aggregation(
        "the released code: references by their probability, the gradient runs through the weights too",
        1.0,
        _released,
    ),
}
"""How references are combined, by name. ``released`` reproduces the gradient of the released code's objective; methods without a gradient
see its linear part."""


# -------------------------------------------------------------------------------------------------------------- Finer-CAM


PUBLISHED_LAYER = "norm1"
"""The layer that the authors of Finer-CAM hook in vision transformers (``blocks[-1].norm1``)."""


class FinerCam:
    """Explains a classifier's class against the classes that are most easily taken for it.

    Args:
        backbone: The frozen tower; text is not needed.
        head: The classifier; ``None`` for the one that the tower comes with.
        settings: How pictures are read; only ``resize``, ``size``, ``batch_size``, ``max_pixels`` and (base ``"direct"``) ``feature_norm``
            are used, and what only patch features follow is refused: ``attention``, ``views`` and ``look_again``. ``None``: as in the
            head's training, where it says that; else the defaults.
        layer: Where maps are read, one of the tower's ``layers``; by default the published layer: on vision transformers ``"norm1"``, the
            first norm of the last block, which the authors' code hooks; elsewhere the last map. ``"last"`` is what the pooling reads.

    Raises:
        ConfigurationError: Head and tower do not fit, head or settings are something else, an unknown layer, settings that a classifier's
            map does not follow, or the resize policy shows the tower parts of the picture only.
        UnsupportedModelError: No head is given and the tower has none.

    Warns:
        UserWarning: The head was fitted to pictures that were read in another way than the settings say.
    """

    def __init__(
        self, backbone: Backbone, head: ClassifierHead | None = None, settings: Settings | None = None, *, layer: str | None = None
    ) -> None:
        require_followed("a classifier's map", (), given_settings(settings))
        head = ClassifierHead.of(backbone) if head is None else head
        if not isinstance(head, ClassifierHead):
            raise ConfigurationError(
                f"head must be a ClassifierHead, received {spoken(head)}: give ClassifierHead.load(path), .from_matrix(weight, bias) or "
                ".from_state_dict(layer.state_dict())."
            )
        self.backbone, self.head = backbone, head
        if layer is not None:
            choose(layer, dict.fromkeys(backbone.layers), f"layer of {backbone.name}")
        self.layer = layer or (PUBLISHED_LAYER if PUBLISHED_LAYER in backbone.layers else backbone.layers[0])
        self._chosen = layer
        if head.weight.shape[1] != backbone.embed_dim:
            raise ConfigurationError(
                f"the classifier head reads {head.weight.shape[1]} numbers, the image embedding of {backbone.name} has "
                f"{backbone.embed_dim}: name the model that the head was trained on."
            )
        if head.weights_hash and head.weights_hash != backbone.weights_hash:
            raise ConfigurationError(
                f"the classifier head was trained on other weights (hash {head.weights_hash}) than those of {backbone.name} "
                f"({backbone.weights_hash}): name the model that it was trained on, or train it again."
            )
        self.settings = head.origin.settings_for(backbone) if settings is None else settings
        head.origin.require("the classifier head", backbone, self.settings)
        if self.settings.resize == "tile":
            raise ConfigurationError("a classifier reads the whole picture: use a resize policy such as 'pad' instead of 'tile'.")

    def logits(self, images: Iterable[ImageSource]) -> Tensor:
        """Returns the class logits of pictures, float32 [B, N] on the CPU.

        Args:
            images: Pictures, as a list, a tuple, a batch or anything else that goes through them.

        Raises:
            ConfigurationError: A single picture instead of several.
            ImageError: A picture cannot be read.
        """
        pictures = [self._read(image) for image in pictures_in(images, "logits")]
        found = torch.zeros(len(pictures), len(self.head), dtype=torch.float32)
        for positions, _, _, image in self.encoded(pictures):
            found[positions] = self.head.logits(image).cpu()
        return found

    def explain(
        self,
        images: ImageSource | Sequence[ImageSource],
        target: Class | Sequence[Class | None] | None = None,
        *,
        references: str | Sequence[Class] | None = None,
        ranks: Sequence[int] = (1, 2, 3),
        alpha: float | None = None,
        aggregation: str = "uniform",
        base: str = "grad-cam",
    ) -> Any:
        """Shows where the target class is told from its references.

        Args:
            images: A picture, a list or tuple of them, or a batch: an array or tensor of four axes.
            target: Name or number of the class, or one per picture; ``None`` for the predicted one. Numbers are whole numbers of any type.
            references: Names or numbers of the reference classes, in a list; the target is left out where it is among them.
            ranks: Without ``references``: which of the classes of nearest logit, 1 for the nearest; ranks beyond the last class are
                dropped.
            alpha: Comparison strength; the aggregation's own by default. 0 explains the class alone.
            aggregation: A name of :data:`AGGREGATIONS`.
            base: A method of :data:`concept_cam.methods.METHODS` that reads a feature map (``"grad-cam"``, ``"layer-cam"``,
                ``"score-cam"``, each signed or with ``+relu``), or ``"lcam:PATH"`` or
                ``"lcam-logit:PATH"`` trained for this head.

        Returns:
            A :class:`~concept_cam.core.results.Localization`, or a list of them. ``score`` is the objective, ``probabilities`` the softmax
            over target and references, ``weights`` what each reference contributes before ``alpha``.

        Raises:
            ConfigurationError: An unknown class, aggregation or base, no reference left, or a value of another type than expected.
        """
        with without_graph():
            return self._explain(images, target, references, ranks, alpha, aggregation, base)

    def _explain(
        self,
        images: ImageSource | Sequence[ImageSource],
        target: Class | Sequence[Class | None] | None,
        references: str | Sequence[Class] | None,
        ranks: Sequence[int],
        alpha: float | None,
        aggregation: str,
        base: str,
    ) -> Any:
        strength, ranks = self._strength(alpha, aggregation), _ranks(ranks)
        several = several_pictures(images)
        pictures = [self._read(image) for image in (cast("list[ImageSource]", [images]) if several is None else several)]
        targets = [[target] for target in self._targets(target, len(pictures))]
        found = [answers[0] for answers in self._answers(pictures, targets, references, ranks, strength, aggregation, base)]
        return found[0] if several is None else found

    def explain_all(
        self,
        images: ImageSource | Sequence[ImageSource],
        targets: Sequence[Class | None],
        *,
        references: str | Sequence[Class] | None = None,
        ranks: Sequence[int] = (1, 2, 3),
        alpha: float | None = None,
        aggregation: str = "uniform",
        base: str = "grad-cam",
    ) -> Any:
        """Explains several classes of each picture; all of one picture share its forward pass. Arguments as for :meth:`explain`.

        Returns:
            Per picture the answers in the order of ``targets``; for a single picture that list alone.
        """
        with without_graph():
            strength, ranks = self._strength(alpha, aggregation), _ranks(ranks)
            several = several_pictures(images)
            # Text goes through its letters: a class of one letter is named the same with and without a list.
            named = [targets] if isinstance(targets, str) and len(targets) == 1 else targets
            given = _several(named, "targets", "names or numbers of classes", "['species a'] or [0, 1]")
            asked = [None if target is None else self.head.index(target) for target in given]
            if not asked:
                raise ConfigurationError("no class was named: expected at least one, or None for the predicted class.")
            pictures = [self._read(image) for image in (cast("list[ImageSource]", [images]) if several is None else several)]
            found = self._answers(pictures, [asked] * len(pictures), references, ranks, strength, aggregation, base)
            return found[0] if several is None else found

    def _strength(self, alpha: float | None, aggregation: str) -> float:
        chosen = choose(aggregation, AGGREGATIONS, "aggregation")
        strength: Any = chosen.alpha if alpha is None else plain_number(alpha)
        if not isinstance(strength, Real) or isinstance(strength, bool) or not 0 <= float(strength) < math.inf:
            raise ConfigurationError(f"alpha must be a number >= 0, received {spoken(strength)}.")
        return float(strength)

    def _answers(
        self,
        pictures: Sequence[Picture],
        targets: Sequence[Sequence[int | None]],
        references: str | Sequence[Class] | None,
        ranks: Sequence[int],
        strength: float,
        aggregation: str,
        base: str,
    ) -> list[list[Localization]]:
        maps, relu, layer = _base(base, self)
        # By what makes the maps and not by name, for one method may have two.
        own = find_method(base).function
        certified = own in {METHODS[name].function for name in CERTIFIED}
        linear = not relu and own in {METHODS[name].function for name in LINEAR}
        answers: dict[int, list[Localization]] = {}
        for positions, items, batch, image in self.encoded(pictures, layer):
            logits = self.head.logits(image)
            rows = []
            for row, position in enumerate(positions):
                row_questions = [
                    self.question(logits[row], target, references=references, ranks=ranks, alpha=strength, aggregation=aggregation)
                    for target in targets[position]
                ]
                rows.append(row_questions)
            terms = torch.stack([torch.stack([weights for _, _, weights in questions]) for questions in rows])
            weight = self.head.weight.to(terms.device)
            asked = terms @ weight
            values = maps(replace(batch, directions=asked), [[index for index, _, _ in questions] for questions in rows])
            scores = values.detach().float().cpu().numpy()
            scores = np.maximum(scores, 0) if relu else scores
            for row, (position, item) in enumerate(zip(positions, items)):
                found = [
                    self._answer(
                        pictures[position], item, scores[row, place], logits[row], index, others, weights, strength, aggregation, base
                    )
                    for place, (index, others, weights) in enumerate(rows[row])
                ]
                if certified:
                    others_maps = partial(_maps_of, maps, batch.single(row), relu)
                    found = [
                        _certified(answer, weight, [index, *others], shares, asked[row, place], linear, others_maps)
                        for place, ((index, others, shares), answer) in enumerate(zip(rows[row], found))
                    ]
                answers[position] = found
        return [answers[position] for position in range(len(pictures))]

    # ---------------------------------------------------------------------------------------------------------- pieces

    def _read(self, image: ImageSource) -> Picture:
        return read_image(image, max_pixels=self.settings.max_pixels)

    def encoded(self, pictures: Sequence[Picture], layer: str | None = None) -> Iterator[tuple[list[int], list[Prepared], Batch, Tensor]]:
        """Runs the tower over pictures, those of one size together.

        Yields:
            Positions in ``pictures``, model inputs, a batch without directions, and image embeddings float32 [B, D].
        """
        settings = self.settings
        prepared = [prepare(picture, adapted(self.backbone.preprocess, settings), settings.resize, settings.size) for picture in pictures]
        for positions in batches_of_one_size([tuple(item.pixels.shape) for item in prepared], settings.batch_size):
            items = [prepared[position] for position in positions]
            pixels = torch.stack([item.pixels for item in items])
            pixels, features, image = encode(self.backbone, pixels, np.stack([item.valid for item in items]), layer)
            if not torch.isfinite(image).all():
                raise ImageError(f"the model {self.backbone.name} returned NaN or infinity: check the pictures, or use float32.")
            empty = torch.zeros(len(items), 0, self.backbone.embed_dim, dtype=torch.float32)
            batch = Batch(self.backbone, pixels, features, image, empty, self.head.feature_norm, patch_norm=settings.feature_norm)
            yield positions, items, batch, image

    def question(
        self,
        logits: Tensor,
        target: int | None,
        *,
        references: str | Sequence[Class] | None = None,
        ranks: Sequence[int] = (1, 2, 3),
        alpha: float = 0.6,
        aggregation: str = "uniform",
    ) -> tuple[int, list[int], Tensor]:
        """Chooses what is asked of one picture from its logits [N]: the target, its references, and float32 [N] what each logit
        contributes.
        """
        index = int(logits.argmax()) if target is None else target
        others = self._references(logits, index, references, ranks)
        return index, others, choose(aggregation, AGGREGATIONS, "aggregation").weights(logits, index, others, alpha)

    def _targets(self, target: Class | Sequence[Class | None] | None, count: int) -> list[int | None]:
        if target is None:
            return [None] * count
        if isinstance(target, str) or not _holds_several(target):
            return [self.head.index(cast("Class", target))] * count
        named = list(cast("Sequence[Class | None]", target))
        if len(named) != count:
            raise ConfigurationError(f"received {len(named)} targets for {count} pictures.")
        return [None if name is None else self.head.index(name) for name in named]

    def _references(self, logits: Tensor, target: int, references: str | Sequence[Class] | None, ranks: Sequence[int]) -> list[int]:
        if references is None:
            order = nearest_classes(logits, target, len(self.head))
            chosen = [order[rank - 1] for rank in dict.fromkeys(ranks) if rank <= len(order)]
            if not chosen:
                raise ConfigurationError(
                    f"ranks {list(ranks)} ask for classes that the head does not have: beside the target it has {len(order)}; "
                    f"expected at least one rank from 1 to {len(order)}."
                )
            return chosen
        named = (references,) if isinstance(references, str) else references
        # A number could as well say how many references are wanted, as it does in class-list mode.
        given = _several(named, "references", "names or numbers of classes", "[2], or ranks=(1, 2) for the two of nearest logit")
        chosen = [index for index in dict.fromkeys(self.head.index(name) for name in given) if index != target]
        if not chosen:
            raise ConfigurationError(f"no reference class is left beside the target {self.head.classes[target]!r}.")
        return chosen

    def _answer(
        self,
        picture: Picture,
        item: Prepared,
        scores: np.ndarray,
        logits: Tensor,
        target: int,
        references: Sequence[int],
        terms: Tensor,
        alpha: float,
        aggregation: str,
        base: str,
    ) -> Localization:
        classes = self.head.classes
        valid = item.geometry.valid()
        members = [target, *references]
        return Localization(
            concept=Concept((classes[target],), tuple((classes[index],) for index in references)),
            scores=np.where(valid, scores, np.float32(np.nan)).astype(np.float32),
            geometry=item.geometry,
            score=float(terms @ logits),
            probabilities=tuple(torch.softmax(logits[members], dim=0).tolist()),
            weights=tuple(float(-terms[index] / alpha) if alpha else 0.0 for index in references),
            provenance=Provenance(
                model=self.backbone.name,
                weights_hash=self.backbone.weights_hash,
                method=f"finer-cam/{base}",
                dtype=str(self.backbone.dtype).removeprefix("torch."),
                settings=said_once(
                    {
                        **self.settings.recorded(),
                        "attention": "none",
                        "resize": item.geometry.policy,
                        "views": "single",
                        "gamma": alpha,
                        "weighting": aggregation,
                        "feature_norm": self.head.feature_norm,
                        "refine": "none",
                    },
                    own := own_input(self.backbone.preprocess),
                ),
                own_input=own,
            ),
            source=picture.source,
            picture=picture.pixels,
        )


def _holds_several(value: object) -> bool:
    """Whether there are items to go through: arrays and tensors of a single number only look as if there were."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def _several(value: object, name: str, what: str, example: str) -> list[Any]:
    """Returns the items of what was given as a list, or says that a list is expected."""
    if isinstance(value, str | bytes | Mapping) or not _holds_several(value):
        raise ConfigurationError(f"{name} must be {what} in a list, received {spoken(value)}: give {example}.")
    return list(cast("Iterable[Any]", value))


def _ranks(given: object) -> list[int]:
    ranks = [whole_number(rank) for rank in _several(given, "ranks", "whole numbers from 1", "[1] for the class of nearest logit")]
    if not ranks or any(not isinstance(rank, int) or isinstance(rank, bool) or rank < 1 for rank in ranks):
        raise ConfigurationError(f"ranks are whole numbers that count from 1, the class of nearest logit; received {ranks}.")
    return ranks


def _maps_of(maps: Maps, batch: Batch, relu: bool, directions: Tensor) -> np.ndarray:
    """Maps float32 [M, h, w] of other directions [M, D] of one picture."""
    values = maps(replace(batch, directions=directions[None]), [[0] * len(directions)])[0].detach().float().cpu().numpy()
    return np.maximum(values, 0) if relu else values


def _certified(
    found: Localization,
    rows: Tensor,
    members: Sequence[int],
    terms: Tensor,
    direction: Tensor,
    linear: bool,
    maps: Callable[[Tensor], np.ndarray],
) -> Localization:
    """The answer with a certificate, and a ledger where maps are linear, that are made when they are asked for."""
    own = terms[members].float().cpu().numpy()

    def split() -> np.ndarray:
        return np.asarray(own[:, None, None] * maps(rows[members]))

    probe = HeadProbe(
        found.scores,
        found.geometry.valid(),
        rows,
        members[0],
        members[1:],
        direction,
        math.nan if found.probability is None else found.probability,
        linear,
        maps,
        dict(zip(found.concept.term_names, own.tolist(), strict=True)),
    )
    return replace(found, split=split if linear else None, certify=lambda: CERTIFIER.load()(probe))


Maps = Callable[[Batch, Sequence[Sequence[int]]], Tensor]
"""A batch and the classes asked of each of its pictures -> maps [B, C, h, w]."""


def _base(name: str, cam: FinerCam) -> tuple[Maps, bool, str | None]:
    """Returns the maps of a base method, whether negative values are dropped, and the layer that it reads."""
    method = find_method(name)
    if method.takes and not method.optional:
        from concept_cam.methods.lcam import Explainer

        if cam._chosen is not None:
            raise ConfigurationError("an explainer reads the layer that it was trained at: leave out the layer.")
        explainer = Explainer.of(method)
        explainer.require(cam.backbone, cam.head.classes, head=True, settings=cam.settings)
        return explainer.head_maps, method.relu, None
    function = patch_maps if name == "direct" else method.load()
    if not isinstance(function, TowerMethod):
        raise ConfigurationError(
            f"the method {name!r} cannot explain a classifier; use one that reads a feature map, such as 'grad-cam' or 'layer-cam'."
        )
    function.check(cam.backbone)
    maps = function.maps_for(method.argument)
    if cam._chosen is not None and not function.layered:
        raise ConfigurationError(f"the method {name!r} reads inside the tower: leave out the layer.")
    return (lambda batch, targets: maps(batch)), method.relu, cam.layer if function.layered else None


# --------------------------------------------------------------------------------------------------------------- training


def class_folders(folder: str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """Lists the pictures of a folder that has one folder per class: ``(path, class name)``, in the order of names.

    Within a class pictures are found as ``annotate`` finds them: in folders within folders and behind links too, and not where they are
    hidden.

    Raises:
        DataError: The folder is missing, has fewer than two class folders with pictures, or a folder in it cannot be looked into.

    Warns:
        UserWarning: A class folder holds no picture, or pictures lie beside the class folders.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is not a folder; expected one with a folder of pictures per class.")

    def refuse(problem: Unreadable) -> None:
        raise DataError(f"the folder {str(problem.filename or root)!r} cannot be looked into: {problem.strerror or problem}.") from problem

    directories = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    found = [
        (Path(path), directory.name) for directory in directories for path in walk(str(directory), PICTURE_SUFFIXES, unreadable=refuse)
    ]
    if len({name for _, name in found}) < 2:
        raise DataError(
            f"{str(root)!r} holds pictures of {len({name for _, name in found})} class folders; expected at least two: "
            "ROOT/CLASS/picture.jpg."
        )
    without = sorted({directory.name for directory in directories} - {name for _, name in found})
    beside = [path.name for path in sorted(root.iterdir()) if path.is_file() and is_picture(path) and not path.name.startswith(".")]
    left = [f"no class is made of the folders without a picture: {some_of(without)}"] if without else []
    left += [f"pictures that lie in no class folder are left out: {some_of(beside)}"] if beside else []
    if left:
        warnings.warn(f"{str(root)!r}: {'; '.join(left)}.", UserWarning, stacklevel=2)
    return found


def image_embeddings(backbone: Backbone, images: Iterable[ImageSource], settings: Settings | None = None) -> Tensor:
    """Returns the image embeddings float32 [M, D] of pictures, on the CPU, not normalised.

    Raises:
        ConfigurationError: A single picture instead of several.
        ImageError: A picture cannot be read.
    """
    settings = given_settings(settings)
    sources = pictures_in(images, "image_embeddings")
    rows = []
    for start in range(0, len(sources), settings.batch_size):
        chunk = [
            prepare(
                read_image(image, max_pixels=settings.max_pixels),
                adapted(backbone.preprocess, settings),
                settings.resize,
                settings.size,
            )
            for image in sources[start : start + settings.batch_size]
        ]
        if all(item.pixels.shape == chunk[0].pixels.shape for item in chunk):
            groups = [chunk]
        else:
            groups = [[item] for item in chunk]
        for group in groups:
            pixels = torch.stack([item.pixels for item in group])
            rows.append(encode(backbone, pixels, np.stack([item.valid for item in group]))[2].cpu())
    return torch.cat(rows)


def fit_head(
    embeddings: Tensor,
    labels: Sequence[str],
    *,
    feature_norm: str = "none",
    l2: float = 1e-3,
    weights_hash: str = "",
    origin: Origin | None = None,
) -> ClassifierHead:
    """Fits a multinomial logistic regression by L-BFGS on centred features of one common scale, both folded into the weights.

    Scaling each dimension by itself would put large weights on dimensions of little variance; they hardly change what is predicted, but a
    map, which multiplies them with single patches, would show little else.

    Args:
        embeddings: float [M, D] image embeddings, not normalised.
        labels: Class name of each.
        feature_norm: Whether the head reads embeddings as they are or at unit length.
        l2: Factor of the weights' squared length in the loss.
        weights_hash: Recorded with the head.
        origin: Likewise, ``Origin.of(backbone, settings)``: how the embeddings are made and the pictures were read.

    Raises:
        ConfigurationError: ``l2`` is negative, infinite or no number.
        DataError: Fewer than two classes, or lengths that differ.
    """
    if not 0 <= l2 < math.inf:
        raise ConfigurationError(f"l2 must be a finite number that is not negative, received {l2}.")
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2 or len(labels) != len(embeddings):
        raise DataError(
            f"received {len(embeddings)} embeddings, {len(labels)} labels of {len(classes)} classes; expected two classes at least."
        )
    features = choose(feature_norm, FEATURE_NORM, "feature normalisation")(embeddings).double()
    mean = features.mean(dim=0)
    scale = (features - mean).square().mean().sqrt().clamp(min=1e-12)
    inputs = (features - mean) / scale
    truth = torch.tensor([classes.index(label) for label in labels])
    with quiet(graph=True):
        inputs = inputs.clone()
        weight = torch.zeros(len(classes), inputs.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(inputs @ weight.T + bias, truth) + l2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    folded = weight.detach() / scale
    return ClassifierHead(folded, bias.detach() - folded @ mean, classes, feature_norm, weights_hash, origin or UNKNOWN)
