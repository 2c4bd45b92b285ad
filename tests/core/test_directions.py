from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_cam.core import settings
from concept_cam.core.directions import (
    IMAGE_DEPENDENT,
    WEIGHTING,
    DirectionSet,
    FixedDirections,
    coefficients,
    directions,
    ensemble,
    nearest_classes,
)
from concept_cam.core.errors import ConfigurationError, PromptError


def random_set(seed: int = 0, concepts: int = 3, contrasts: int = 3, dim: int = 8) -> DirectionSet:
    generator = torch.Generator().manual_seed(seed)
    texts = torch.nn.functional.normalize(torch.randn(concepts * (contrasts + 1), dim, generator=generator), dim=-1)
    rows = torch.arange(len(texts)).reshape(concepts, contrasts + 1)
    present = torch.ones(concepts, contrasts, dtype=torch.bool)
    present[0, 1:] = False  # one concept with a single contrast
    return DirectionSet(texts, rows[:, 0], rows[:, 1:] * present, present, present)


def surrounded(seed: int = 0) -> DirectionSet:
    """The same with the last contrast of every concept but the first, which has one, lying around."""
    texts = random_set(seed)
    rivals = texts.present.clone()
    rivals[1:, -1] = False
    return replace(texts, rivals=rivals)


def image(seed: int = 1, count: int = 2, dim: int = 8) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def slow_pi(texts: DirectionSet, picture: torch.Tensor, concept: int, weighting: str, logit_scale: float) -> list[float]:
    """The definitions, one number at a time."""
    unit = picture / picture.norm()
    rows = [int(row) for row, there in zip(texts.contrasts[concept], texts.present[concept]) if there]
    similarities = [float(unit @ texts.texts[row]) for row in rows]
    if weighting == "uniform":
        return [1 / len(rows)] * len(rows)
    if weighting == "softmax":
        powers = [math.exp(logit_scale * value) for value in similarities]
        return [power / sum(powers) for power in powers]
    if weighting == "hardest":
        return [1.0 if value == max(similarities) else 0.0 for value in similarities]
    span = torch.stack([texts.texts[row] for row in rows], dim=1)
    return torch.linalg.lstsq(span, texts.texts[texts.target[concept]].unsqueeze(-1)).solution.squeeze(-1).tolist()


@pytest.mark.parametrize("weighting", sorted(IMAGE_DEPENDENT))
def test_rivals_are_weighed_among_themselves(weighting: str) -> None:
    texts, pictures = surrounded(), image()
    terms = coefficients(texts, pictures, weighting=weighting, gamma=0.6, logit_scale=7.0)
    alone = replace(texts, present=texts.rivals)
    for b in range(2):
        assert terms[b, 0].tolist() == pytest.approx([1.0, -0.6, 0.0, 0.0], abs=1e-6)
        for c in (1, 2):
            first, second = slow_pi(alone, pictures[b], c, weighting, 7.0)
            # Two of three are rivals: they share two thirds, and what lies around has its third whatever the picture shows.
            expected = [1.0, -0.6 * first * 2 / 3, -0.6 * second * 2 / 3, -0.6 / 3]
            assert terms[b, c].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("weighting", sorted(set(WEIGHTING) - IMAGE_DEPENDENT))
def test_surroundings_are_contrasts_as_others_where_the_picture_has_no_say(weighting: str) -> None:
    settings = {"weighting": weighting, "gamma": 0.6, "logit_scale": 7.0}
    assert torch.equal(coefficients(surrounded(), image(), **settings), coefficients(random_set(), image(), **settings))


def test_nothing_but_surroundings() -> None:
    texts = replace(random_set(), rivals=torch.zeros(3, 3, dtype=torch.bool))
    for weighting in sorted(IMAGE_DEPENDENT):
        terms = coefficients(texts, image(), weighting=weighting, gamma=1.0, logit_scale=7.0)
        assert terms[:, 1].tolist() == pytest.approx(np.array([[1.0, -1 / 3, -1 / 3, -1 / 3]] * 2), abs=1e-6)


@pytest.mark.parametrize("weighting", WEIGHTING)
@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_coefficients_are_the_definition(weighting: str, gamma: float) -> None:
    texts, pictures = random_set(), image()
    terms = coefficients(texts, pictures, weighting=weighting, gamma=gamma, logit_scale=7.0).expand(2, -1, -1)
    for b in range(2):
        for c in range(3):
            pi = slow_pi(texts, pictures[b], c, weighting, 7.0)
            expected = [1.0] + [-gamma * value for value in pi] + [0.0] * (3 - len(pi))
            assert terms[b, c].tolist() == pytest.approx(expected, abs=1e-5)


def test_direction_is_the_weighted_sum() -> None:
    texts = random_set()
    terms = coefficients(texts, image(), weighting="softmax", gamma=0.8, logit_scale=3.0)
    weights = directions(texts, terms)
    for b in range(2):
        for c in range(3):
            expected = terms[b, c, 0] * texts.texts[texts.target[c]]
            for r in range(3):
                expected = expected + terms[b, c, r + 1] * texts.texts[texts.contrasts[c, r]]
            assert torch.allclose(weights[b, c], expected, atol=1e-6)


def test_orthogonal_removes_the_span() -> None:
    texts = random_set()
    weights = directions(texts, coefficients(texts, image(), weighting="orthogonal", gamma=1.0, logit_scale=1.0))[0]
    for c in range(3):
        for r in range(3):
            if texts.present[c, r]:
                assert abs(float(weights[c] @ texts.texts[texts.contrasts[c, r]])) < 1e-5


def test_softmax_weights_carry_no_gradient() -> None:
    texts = random_set()
    picture = image().requires_grad_()
    assert not coefficients(texts, picture, weighting="softmax", gamma=1.0, logit_scale=1.0).requires_grad


def test_no_contrasts_is_the_plain_concept() -> None:
    texts = random_set(contrasts=1)
    alone = DirectionSet(texts.texts, texts.target, texts.contrasts[:, :0], texts.present[:, :0], texts.rivals[:, :0])
    for weighting in WEIGHTING:
        terms = coefficients(alone, image(), weighting=weighting, gamma=1.0, logit_scale=1.0)
        assert torch.equal(directions(alone, terms)[0], alone.texts[alone.target])


@pytest.mark.parametrize("weighting", WEIGHTING)
def test_concept_without_contrasts_beside_one_with(weighting: str) -> None:
    texts = random_set()
    present = texts.present.clone()
    present[1] = False
    mixed = DirectionSet(texts.texts, texts.target, texts.contrasts, present, present)
    terms = coefficients(mixed, image(), weighting=weighting, gamma=1.0, logit_scale=5.0)
    assert torch.isfinite(terms).all()
    assert terms[:, 1].tolist() == [[1.0, 0.0, 0.0, 0.0]] * terms.shape[0] or torch.allclose(terms[:, 1, 1:], torch.zeros(()))


def test_vanishing_direction_is_an_error() -> None:
    same = torch.nn.functional.normalize(torch.ones(2, 4), dim=-1)
    texts = DirectionSet(same, torch.tensor([0]), torch.tensor([[1]]), torch.tensor([[True]]), torch.tensor([[True]]))
    with pytest.raises(PromptError, match="vanishes"):
        coefficients(texts, torch.ones(1, 4), weighting="uniform", gamma=1.0, logit_scale=1.0)


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_impossible_gamma(gamma: float) -> None:
    with pytest.raises(ConfigurationError, match="gamma"):
        coefficients(random_set(), image(), weighting="uniform", gamma=gamma, logit_scale=1.0)


def test_unknown_weighting_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="'hardest'"):
        coefficients(random_set(), image(), weighting="hardset", gamma=1.0, logit_scale=1.0)


def test_settings_list_the_same_weightings() -> None:
    assert set(settings.WEIGHTINGS) == set(WEIGHTING)


def test_ensemble_is_the_mean_of_units() -> None:
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, -2.0]])
    pooled = ensemble(embeddings, [2, 1])
    assert pooled[0].tolist() == pytest.approx([2**-0.5, 2**-0.5])
    assert pooled[1].tolist() == pytest.approx([0.0, -1.0])


def test_ensemble_of_uneven_groups() -> None:
    embeddings = torch.randn(11, 5, generator=torch.Generator().manual_seed(0))
    pooled = ensemble(embeddings, [1, 4, 1, 5])
    for row, group in zip(pooled, embeddings.split([1, 4, 1, 5]), strict=True):
        mean = sum(e / e.norm() for e in group) / len(group)
        torch.testing.assert_close(row, mean / mean.norm())


def test_directions_add_up_their_texts_slowly() -> None:
    texts = random_set(concepts=4, contrasts=3)
    for weighting in WEIGHTING:
        terms = coefficients(texts, image(), weighting=weighting, gamma=0.7, logit_scale=5.0)
        found = directions(texts, terms)
        for b, row in enumerate(terms):
            for c in range(4):
                slow = sum(row[c, r] * texts.texts[texts.columns[c, r]] for r in range(4))
                torch.testing.assert_close(found[b, c], slow)


def test_ensemble_that_cancels_is_an_error() -> None:
    with pytest.raises(PromptError, match="cancel"):
        ensemble(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [2])


def test_nearest_classes_by_logit_gap() -> None:
    logits = torch.tensor([5.0, 1.0, 4.5, 7.0, 5.2])
    assert nearest_classes(logits, 0, 3) == [4, 2, 3]
    assert nearest_classes(logits, 0, 99) == [4, 2, 3, 1]
    assert logits.tolist() == [5.0, 1.0, 4.5, 7.0, pytest.approx(5.2)]  # left as it was
    with pytest.raises(ConfigurationError):
        nearest_classes(torch.tensor([1.0]), 0, 1)


@pytest.mark.parametrize("weighting", WEIGHTING)
def test_directions_that_no_image_changes_are_made_once(weighting: str) -> None:
    texts, fixed = random_set(), FixedDirections()
    options = {"weighting": weighting, "gamma": 0.5, "logit_scale": 10.0}
    found = fixed(texts, **options)
    if weighting in IMAGE_DEPENDENT:
        assert found is None
        return
    assert found is not None
    terms = coefficients(texts, image(), **options)
    assert torch.equal(found[0], terms)
    assert torch.equal(found[1], directions(texts, terms))
    assert fixed(texts, **options)[0] is found[0]
    other = fixed(texts, **{**options, "gamma": 1.0})
    assert not torch.equal(other[0], found[0])
    assert torch.equal(fixed(random_set(3), **options)[0], coefficients(random_set(3), image(), **options))
    for seed in range(4, 9):
        fixed(random_set(seed), **options)
    assert torch.equal(fixed(texts, **options)[1], found[1])
    with pytest.raises(ConfigurationError):
        fixed(texts, **{**options, "gamma": -1.0})
