"""Maps that know nothing of the question, on the model's grid: what every method must beat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from concept_cam.core.concept import Concept
from concept_cam.core.results import Localizations
from concept_cam.methods.method import Method
from concept_cam.pictures.resizing import Prepared, merge_windows

if TYPE_CHECKING:
    from concept_cam.methods.asker import Asker
    from concept_cam.pictures.reading import Picture

__all__ = ["LUMA", "bell", "center", "luminance", "random"]

LUMA = (0.2126, 0.7152, 0.0722)
"""Rec. 709 weights of red, green and blue, on sRGB values."""


def bell(offset: np.ndarray) -> np.ndarray:
    """Gaussian about the picture's centre, standard deviation a quarter of each side, of offsets [..., 2] in shares of the sides; 0..1."""
    return cast("np.ndarray", np.exp(-0.5 * ((offset / 0.25) ** 2).sum(axis=-1)))


Run = Callable[["Asker", Sequence["Picture"], tuple[Concept, ...], Method], list[Localizations]]


def _baseline(make: Callable[[Asker, Picture, Prepared, int], np.ndarray]) -> Run:
    """Makes a method of a function that returns maps float32 [C, h, w]; image-level numbers are the direct method's."""

    def run(localizer: Asker, pictures: Sequence[Picture], concepts: tuple[Concept, ...], method: Method) -> list[Localizations]:
        prepared = [localizer.prepare(picture) for picture in pictures]
        features = localizer.encode_prepared(prepared, [picture.source for picture in pictures])
        levels = localizer.with_settings(refine="none").score(features, list(concepts))
        answers = []
        for picture, item, answer in zip(pictures, prepared, levels):
            maps = make(localizer, picture, item, len(concepts)).astype(np.float32)
            answers.append(
                replace(
                    answer,
                    scores=np.where(item.geometry.valid(), maps, np.float32(np.nan)),
                    provenance=localizer.provenance(method.name, "none", item.geometry.policy),
                    split=None,
                    certify=None,
                )
            )
        return answers

    return run


def _random(localizer: Asker, picture: Picture, item: Prepared, count: int) -> np.ndarray:
    """Standard normal noise: equal pictures get equal maps, concepts different ones."""
    digest = hashlib.sha256(np.ascontiguousarray(picture.pixels).tobytes()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return generator.standard_normal((count, *item.geometry.grid))


def _center(localizer: Asker, picture: Picture, item: Prepared, count: int) -> np.ndarray:
    """A Gaussian around the picture's centre, standard deviation a quarter of each side; 0..1."""
    rows, columns = np.indices(item.geometry.grid) + 0.5
    points = item.geometry.grid_to_original(np.stack([columns, rows], axis=-1))
    height, width = item.geometry.original
    return np.broadcast_to(bell(points / np.array([width, height]) - 0.5), (count, *item.geometry.grid))


def _luminance(localizer: Asker, picture: Picture, item: Prepared, count: int) -> np.ndarray:
    """Mean luma of each cell as the model sees it (Rec. 709 weights on sRGB values); about 0..1."""
    expected = localizer.preprocess
    mean, std = (torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None] for values in (expected.mean, expected.std))
    weights = torch.tensor(LUMA, dtype=torch.float32, device="cpu")[:, None, None]
    luma = ((item.batch.float() * std + mean) * weights).sum(dim=1)[:, None]
    cells = torch.nn.functional.adaptive_avg_pool2d(luma, item.batch_valid.shape[1:])[:, 0]
    grid = merge_windows(cells[..., None], item.windows, item.geometry.grid)[..., 0] if item.windows else cells[0]
    return np.broadcast_to(grid.numpy(), (count, *item.geometry.grid))


random = _baseline(_random)
center = _baseline(_center)
luminance = _baseline(_luminance)
