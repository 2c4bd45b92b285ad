"""Learned single-pass explainers: L-CAM-Fm and L-CAM-Img.

Gkartzonika, Gkalelis and Mezaris, "Learning Visual Explanations for DCNN-Based Image Classifiers Using an Attention Mechanism", ECCV
Workshops 2022: a 1x1 convolution and a sigmoid over the frozen tower's last feature map, trained so that the class survives when the
feature map (Fm) or the picture (Img) is masked with the map, and the map stays small and smooth. Here the convolution's weights may also
be made from a text direction ``w`` by a learned linear map, so that one explainer serves any concept: ``a = sigmoid(A . (M w + m) + n . w +
b)`` with the feature map ``A`` standardised per channel and ``w`` at unit length.

A map is read behind the sigmoid (``lcam``: what training multiplies with) or before it (``lcam-logit``: what the authors' evaluation
reads). The sigmoid keeps the order of cells but, in float32, makes all of 17 and above the same 1, so that no highest one is left among
them.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.backbones.damage import damage_of
from concept_cam.backbones.protocol import Backbone
from concept_cam.core.concept import Concept
from concept_cam.core.documents import understood
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.files import METADATA, write_tensors
from concept_cam.core.names import some_of
from concept_cam.core.results import Localizations
from concept_cam.methods.engine import Batch, run
from concept_cam.methods.method import Method
from concept_cam.methods.origin import UNKNOWN, Origin

if TYPE_CHECKING:
    from concept_cam.core.settings import Settings
    from concept_cam.methods.asker import Asker
    from concept_cam.pictures.reading import Picture

__all__ = ["EXPLAINER_KINDS", "READINGS", "Explainer", "lcam"]

EXPLAINER_KINDS: dict[str, str] = {
    "fm": "trained by masking the feature map (L-CAM-Fm): fast",
    "img": "trained by masking the picture (L-CAM-Img): every step runs the whole tower",
}
"""What is masked in training, by name; at inference both are one forward pass."""

ASKS: dict[str, str] = {
    "texts": "text directions",
    "classes": "the classes of a classifier, one set of weights for each (the paper's form)",
    "rows": "the rows of a classifier, from which the weights are made, so that classes without a training picture are answered too",
}
"""What an explainer is asked with, by name."""

READINGS: dict[str, Callable[[Tensor], Tensor]] = {"lcam": torch.sigmoid, "lcam-logit": lambda logits: logits}
"""Name of the method -> what becomes of the attention's logits."""

TENSORS = ("matrix", "vector", "query", "bias", "mean", "scale")


@dataclass(frozen=True, eq=False)
class Explainer:
    """A trained attention mechanism; ``Q`` is the number of classes where each has its own weights, else ``D``.

    Attributes:
        kind: A name of :data:`EXPLAINER_KINDS`.
        matrix: float32 [K, Q], weights of the convolution for each query.
        vector: float32 [K], their common part.
        query: float32 [Q], bias for each query.
        bias: float32 [1].
        mean: float32 [K], mean of the feature map's channels over the training pictures.
        scale: float32 [K], their standard deviation.
        classes: Class names, or empty for directions.
        weights_hash: Hash of the tower's weights it was trained on.
        facts: How it was trained.
        asks: A name of :data:`ASKS`; by default that of ``classes``.
        reading: A name of :data:`READINGS`; not part of the file.
        origin: How the embedding it was trained on is made, and how its pictures were read, as far as that is known.
    """

    kind: str
    matrix: Tensor
    vector: Tensor
    query: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    classes: tuple[str, ...] = ()
    weights_hash: str = ""
    facts: Any = None
    asks: str = ""
    reading: str = "lcam"
    origin: Origin = UNKNOWN

    def __post_init__(self) -> None:
        object.__setattr__(self, "asks", self.asks or ("classes" if self.classes else "texts"))

    def attend(self, features: Tensor, queries: Tensor) -> Tensor:
        """Returns the maps float32 [B, C, h, w] of feature maps [B, K, h, w] for queries [B, C, Q]; in 0..1 behind the sigmoid.

        Raises:
            ConfigurationError: The feature maps have other channels than those that it was trained on.
        """
        if features.shape[1] != len(self.mean):
            raise ConfigurationError(
                f"this explainer reads feature maps of {len(self.mean)} channels, those of the model have {features.shape[1]}: train one "
                "with 'concept-cam fit-attention'."
            )
        matrix, vector, query, bias, mean, scale = (getattr(self, name).to(features.device) for name in TENSORS)
        weights = queries @ matrix.T + vector
        standard = (features.float() - mean[:, None, None]) / scale[:, None, None]
        logits = torch.einsum("bck,bkhw->bchw", weights, standard) + (queries @ query)[..., None, None] + bias
        return READINGS[self.reading](logits)

    @torch.no_grad()
    def maps(self, batch: Batch) -> Tensor:
        """Answers text directions; see :class:`~concept_cam.methods.engine.TowerMethod`."""
        return self.attend(batch.features.map, F.normalize(batch.directions.float(), dim=-1))

    @torch.no_grad()
    def head_maps(self, batch: Batch, targets: Sequence[Sequence[int]]) -> Tensor:
        """Answers a classifier: float32 [B, C, h, w]. With weights for each class the references do not enter, for the paper has none."""
        return self.maps(batch) if self.asks == "rows" else self.class_maps(batch, targets)

    @torch.no_grad()
    def class_maps(self, batch: Batch, targets: Sequence[Sequence[int]]) -> Tensor:
        """Answers the same number of classes per picture: float32 [B, C, h, w]. The references do not enter, for the paper has none."""
        chosen = F.one_hot(torch.tensor([list(classes) for classes in targets]), len(self.classes)).float()
        return self.attend(batch.features.map, chosen.to(batch.features.map.device))

    def require(self, backbone: Backbone, classes: Sequence[str] = (), *, head: bool = False, settings: Settings | None = None) -> None:
        """Checks that the explainer was trained for this tower and this kind of question.

        Args:
            backbone: The tower.
            classes: Names of a classifier's classes.
            head: Whether a classifier asks.
            settings: How pictures are read; ``None``: not looked at.

        Raises:
            ConfigurationError: It was not.

        Warns:
            UserWarning: It was trained on pictures that were read in another way.
        """
        if self.weights_hash != backbone.weights_hash:
            raise ConfigurationError(
                f"this explainer was trained on other weights (hash {self.weights_hash}) than those of {backbone.name} "
                f"({backbone.weights_hash}): train one with 'concept-cam fit-attention'."
            )
        self.origin.require("this explainer", backbone, settings, native=True)
        if self.asks != "classes" and self.matrix.shape[1] != backbone.embed_dim:
            raise ConfigurationError(
                f"this explainer is asked with directions of {self.matrix.shape[1]} numbers, those of {backbone.name} have "
                f"{backbone.embed_dim}: train one with 'concept-cam fit-attention'."
            )
        if head and self.asks == "rows":
            return
        if tuple(classes) != self.classes or (self.asks == "rows"):
            mine = f"the {len(self.classes)} classes of a classifier head" if self.classes else ASKS[self.asks]
            asked = f"the {len(classes)} classes of another head" if classes else "text directions"
            raise ConfigurationError(f"this explainer was trained for {mine}, it was asked about {asked}{self._differing(classes)}.")

    def _differing(self, classes: Sequence[str]) -> str:
        """Says which class names only one of the two has; nothing where one of them has no classes at all."""
        if not classes or not self.classes:
            return ""
        mine = [name for name in self.classes if name not in set(classes)]
        others = [name for name in classes if name not in set(self.classes)]
        if not mine and not others:
            return ": the same names in another order"
        told = [f"only {whose} has {some_of(names)}" for whose, names in (("the explainer", mine), ("the head", others)) if names]
        return f": {'; '.join(told)} (--classes names the classes of a head, in 'fit-attention' as in 'locate')"

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes ``.safetensors`` with a JSON description in its header.

        Raises:
            OutputError: The file exists, or cannot be written.
            ConfigurationError: Another ending.
        """
        facts = {
            "explainer": "lcam",
            "kind": self.kind,
            "classes": list(self.classes),
            "weights_hash": self.weights_hash,
            "asks": self.asks,
            "facts": self.facts,
            **self.origin.facts(),
        }
        tensors = {name: getattr(self, name).detach().float().cpu().contiguous() for name in TENSORS}
        return write_tensors(path, tensors, facts, overwrite=overwrite)

    @classmethod
    @understood("the explainer", ConfigurationError)
    def load(cls, path: str | os.PathLike[str]) -> Explainer:
        """Reads a file of :meth:`save`.

        Raises:
            ConfigurationError: The file is missing, something else, or damaged: its header or its tensors do not fit each other, or hold
                values that no training leaves.
        """
        from safetensors import SafetensorError, safe_open

        file = Path(path)
        if not file.is_file():
            raise ConfigurationError(f"the explainer {str(file)!r} does not exist; train one with 'concept-cam fit-attention'.")
        try:
            with safe_open(str(file), framework="pt") as opened:
                facts = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise ConfigurationError(f"cannot read the explainer {str(file)!r}: {damage_of(file) or error}.") from error
        known = isinstance(facts, dict) and facts.get("explainer") == "lcam" and set(tensors) == set(TENSORS)
        if not known or facts.get("kind") not in list(EXPLAINER_KINDS):
            raise ConfigurationError(f"{str(file)!r} is no explainer of 'concept-cam fit-attention'.")
        if fault := _fault(facts) or _misfit(tensors, len(facts["classes"])):
            raise ConfigurationError(f"{str(file)!r} is damaged: {fault}. Train it again with 'concept-cam fit-attention'.")
        return cls(
            kind=facts["kind"],
            classes=tuple(facts["classes"]),
            weights_hash=facts["weights_hash"],
            facts=facts.get("facts"),
            asks=facts.get("asks", ""),
            origin=Origin.from_facts(facts),
            **tensors,
        )

    @classmethod
    def of(cls, method: Method) -> Explainer:
        """Reads the file that a method names, in the method's reading.

        Raises:
            ConfigurationError: The file is missing, damaged, or something else.
        """
        return replace(cls.load(method.argument), reading=method.name.partition(":")[0])

    @property
    def digest(self) -> str:
        """First 8 hex digits of SHA-256 over the tensors: identity in the provenance of results."""
        state = hashlib.sha256()
        for name in TENSORS:
            state.update(getattr(self, name).detach().float().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()[:8]


def _fault(facts: dict[str, Any]) -> str:
    """Says what is wrong with the description in a file's header; empty where nothing is."""
    classes, asks = facts.get("classes"), facts.get("asks", "")
    if not isinstance(classes, list) or any(not isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        return f"expected different class names, or none, in a list; its header holds {reprlib.repr(classes)}"
    if asks not in ["", *ASKS]:  # A list, so that a value that cannot be looked up is only unknown.
        return f"it says that it is asked with {reprlib.repr(asks)}; known: {', '.join(ASKS)}"
    if asks and (asks == "classes") != bool(classes):
        return f"it says that it is asked with {asks!r} ({ASKS[asks]}), and names {len(classes)} classes"
    if not isinstance(facts.get("weights_hash"), str):
        return "its header holds no hash of the weights that it was trained on"
    if not isinstance(facts.get("facts"), dict | type(None)):
        return f"expected a description of its training, its header holds {reprlib.repr(facts['facts'])}"
    return ""


def _misfit(tensors: dict[str, Tensor], classes: int) -> str:
    """Says what is wrong with the tensors of a file that names so many classes; empty where nothing is."""
    matrix = tensors["matrix"]
    if matrix.ndim != 2 or not matrix.numel():
        return f"expected a tensor 'matrix' of two axes, it has the shape {list(matrix.shape)}"
    channels, width = matrix.shape
    if classes and width != classes:
        return f"its tensor 'matrix' holds weights of {width} classes, its header the names of {classes}"
    shapes = {"vector": [channels], "query": [width], "bias": [1], "mean": [channels], "scale": [channels]}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            return f"expected float32 in its tensor {name!r}, it holds {str(tensor.dtype).removeprefix('torch.')}"
        if list(tensor.shape) != (expected := shapes.get(name, [channels, width])):
            return f"its tensor {name!r} has the shape {list(tensor.shape)}, beside a 'matrix' {[channels, width]} it has to be {expected}"
        if not torch.isfinite(tensor).all():
            return f"its tensor {name!r} holds NaN or infinity"
    if not (tensors["scale"] > 0).all():
        return "its tensor 'scale' holds values that are not above 0, by which features cannot be divided"
    return ""


def lcam(localizer: Asker, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
    """Answers with an explainer file: one forward pass per picture.

    Raises:
        ConfigurationError: The file is missing, or the explainer belongs to another model or to a classifier head.
    """
    explainer = Explainer.of(method)
    explainer.require(localizer.backbone, settings=localizer.settings)
    named = replace(method, name=f"{explainer.reading}-{explainer.kind}:{explainer.digest}")
    return run(localizer, pictures, concepts, named, explainer.maps)
