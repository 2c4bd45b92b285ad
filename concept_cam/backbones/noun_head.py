"""Nouns on photographs: a classifier's classes as the common ground of picture cells and texts.

A frozen classifier of `K` classes knows what a cell of its last map looks like, and a regression from sentence embeddings to its weight
rows knows which classes a name is like. Both sides become a distribution over the same classes, and their agreement is the score:

    cell:  p = softmax((W f + b) / temperature)          classes compete for the cell, which makes a background lose
    text:  k = softmax(sharpness * (d(e) . r_c - crowd |d(e)| h_c))
                                                         d(e): direction of the text in the space of the rows, r_c: row of class c, h_c:
                                                         how crowded it is where r_c lies, crowd: how much of that is taken off
    score: (A (p - 1/K)) . (A (k - 1/K))                 A: a basis of `D` dimensions in which the names of things lie

So the score is linear in the text's vector, as the rest of the package wants it. The competition is what finds things: raw rows point right
on 46 % of COCO things, probabilities on 58 %. A text that names no thing has a direction near zero, so an even distribution and a vector
near zero.

Axis letters: `N` texts, `E` width of the sentence embedding, `F` channels of the last map, `K` classes, `Q` dimensions of the rows' space,
`D` of the joint one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, cast

import torch
from torch import Tensor, nn

from concept_cam.core.names import choose

NEAREST: Final = 10
"""Rows whose likeness says how crowded a place is."""

ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {"gelu": nn.functional.gelu, "exp": torch.exp}
"""What the hidden layer of the regression does. With ``exp`` it can be a kernel regression: a Gaussian kernel between unit vectors is
``exp((x . y - 1) / width ** 2)``, so each hidden unit is a text that was learnt from."""


def crowding(rows: Tensor, others: Tensor) -> Tensor:
    """How crowded it is where a row lies: mean cosine to the nearest of the others, [K].

    A regression from few examples predicts directions near the middle of things, and rows that lie there ("hubs") are nearest to too
    many of them. What a row owes to its place is subtracted (Conneau et al., Word Translation Without Parallel Data, ICLR 2018, eq. 2-3,
    with the known rows in the place of the other language's words, so that the answer to one question does not depend on others).

    Args:
        rows: Unit rows [K, Q] that are to be ranked.
        others: Unit rows [M, Q] that are known. A row itself is not counted where it is one of them.
    """
    cosines = rows @ others.T
    cosines = cosines.masked_fill(cosines > 1 - 1e-4, -1.0)
    return cosines.topk(min(NEAREST, len(others)), dim=1).values.mean(1)


@dataclass(frozen=True)
class NounConfig:
    """Sizes and constants of a :class:`NounHead`.

    Attributes:
        classes: `K`.
        features: `F`.
        sentence: `E`.
        hidden: Width of the regression's hidden layer: units of a network, or texts that a kernel regression was fitted to.
        rows: `Q`.
        width: `D`.
        temperature: Of the cells' softmax.
        sharpness: Of the texts' softmax.
        scale: Factor of the cells' vectors: the joint space's constant axis is 1.
        certain: Directions of at least this length count as unit ones: the regression shortens what it has not seen.
        floor: Texts whose vector is shorter are left short, longer ones get unit length. How long vectors are depends on the regression: it
            is fitted to that.
        activation: Of the regression's hidden layer, a key of :data:`ACTIVATIONS`.
        crowd: How much of what a row owes to the crowd about it is taken off.
    """

    classes: int = 1000
    features: int = 1280
    sentence: int = 384
    hidden: int = 1024
    rows: int = 256
    width: int = 256
    temperature: float = 3.0
    sharpness: float = 10.0
    scale: float = 3.0
    certain: float = 0.4
    floor: float = 0.05
    activation: str = "gelu"
    crowd: float = 1.0

    @property
    def constants(self) -> dict[str, float | str]:
        """What is not a width."""
        widths = ("classes", "features", "sentence", "hidden", "rows", "width")
        return {name: value for name, value in self.as_dict().items() if name not in widths}

    def as_dict(self) -> dict[str, float | str]:
        """Returns the numbers for a JSON file."""
        return asdict(self)


class NounHead(nn.Module):
    """Sentence embeddings and cells of the last map -> vectors of one space.

    Args:
        config: Sizes and constants.
    """

    def __init__(self, config: NounConfig) -> None:
        super().__init__()
        self.config = config
        self.activation = choose(config.activation, ACTIVATIONS, "activation")
        self.classifier = nn.Linear(config.features, config.classes)
        self.up = nn.Linear(config.sentence, config.hidden)
        self.down = nn.Linear(config.hidden, config.rows)
        self.register_buffer("rows", torch.zeros(config.classes, config.rows))
        self.register_buffer("basis", torch.zeros(config.width, config.classes))
        self.rows: Tensor
        self.basis: Tensor

    def direction(self, sentences: Tensor) -> Tensor:
        """Direction of texts in the space of the classifier's rows: [N, E] -> [N, Q]; length near 1 for things, near 0 for other texts."""
        found: Tensor = self.down(self.activation(self.up(sentences)))
        return found

    def likeness(self, sentences: Tensor) -> Tensor:
        """Which classes a text is like: [N, E] -> [N, K], each row sums to 1."""
        direction = self.direction(sentences)
        direction = direction / direction.norm(dim=-1, keepdim=True).clamp(min=self.config.certain)
        crowded = self.config.crowd * direction.norm(dim=-1, keepdim=True) * crowding(self.rows, self.rows)
        return cast("Tensor", (self.config.sharpness * (direction @ self.rows.T - crowded)).softmax(-1))

    def uneven(self, sentences: Tensor) -> Tensor:
        """Vectors of texts as long as their likeness is uneven: [N, E] -> [N, D]."""
        return (self.likeness(sentences) - 1 / self.config.classes) @ self.basis.T

    def text(self, sentences: Tensor) -> Tensor:
        """Vectors of texts: [N, E] -> [N, D]; unit length for things, shorter for texts that name none."""
        vectors = self.uneven(sentences)
        return cast("Tensor", vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=self.config.floor))

    def cells(self, features: Tensor) -> Tensor:
        """Vectors of cells: [..., F] -> [..., D]."""
        share = (self.classifier(features) / self.config.temperature).softmax(-1)
        return cast("Tensor", self.config.scale * (share - 1 / self.config.classes) @ self.basis.T)
