from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_cam.core import settings
from concept_cam.core.concept import Concept
from concept_cam.core.directions import WEIGHTING, coefficients, directions
from concept_cam.core.scoring import FEATURE_NORM, character_key, image_scores, ledger, probabilities, scales_of, score_patches
from tests.core.test_directions import image, random_set


def patches(count: int = 2, dim: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, 5, dim, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("weighting", WEIGHTING)
@pytest.mark.parametrize("feature_norm", FEATURE_NORM)
def test_score_is_feature_times_direction(weighting: str, feature_norm: str) -> None:
    texts, features = random_set(), patches()
    terms = coefficients(texts, image(), weighting=weighting, gamma=0.7, logit_scale=3.0)
    scores = score_patches(features, texts, terms, feature_norm)
    weights = directions(texts, terms).expand(2, -1, -1)
    assert scores.shape == (2, 3, 3, 5)
    for b in range(2):
        for c in range(3):
            for y in range(3):
                for x in range(5):
                    f = features[b, y, x]
                    f = f / f.norm() if feature_norm == "l2" else f
                    assert float(scores[b, c, y, x]) == pytest.approx(float(f @ weights[b, c]), abs=1e-5)


@pytest.mark.parametrize("weighting", WEIGHTING)
def test_ledger_sums_to_the_score(weighting: str) -> None:
    texts, features = random_set(), patches()
    terms = coefficients(texts, image(), weighting=weighting, gamma=1.0, logit_scale=3.0)
    scores = score_patches(features, texts, terms)
    for b in range(2):
        row = terms[min(b, len(terms) - 1)]
        for c in range(3):
            split = ledger(features[b], texts.texts[texts.columns[c]], row[c])
            assert torch.allclose(split.sum(dim=0), scores[b, c], atol=1e-6)


def test_contrast_is_the_difference_of_two_maps() -> None:
    """What contrast can and cannot add: the score is linear, so one direction equals the difference of two plain maps."""
    texts, features = random_set(), patches()
    both = score_patches(features, texts, coefficients(texts, image(), weighting="uniform", gamma=1.0, logit_scale=1.0))
    plain = torch.nn.functional.normalize(features, dim=-1)
    for c in range(3):
        rows = [int(r) for r, there in zip(texts.contrasts[c], texts.present[c]) if there]
        difference = plain @ texts.texts[texts.target[c]] - sum(plain @ texts.texts[r] for r in rows) / len(rows)
        assert torch.allclose(both[:, c], difference, atol=1e-6)


def test_mean_of_patch_scores_is_the_unnormalised_logit() -> None:
    texts, features = random_set(), patches()
    terms = coefficients(texts, image(), weighting="uniform", gamma=1.0, logit_scale=1.0)
    pooled = features.mean(dim=(1, 2))
    assert torch.allclose(
        score_patches(features, texts, terms, "none").mean(dim=(2, 3)),
        pooled @ directions(texts, terms)[0].T,
        atol=1e-5,
    )


def test_batch_equals_singles() -> None:
    texts, features, pictures = random_set(), patches(), image()
    for weighting in WEIGHTING:
        both = score_patches(features, texts, coefficients(texts, pictures, weighting=weighting, gamma=1.0, logit_scale=2.0))
        for b in range(2):
            terms = coefficients(texts, pictures[b : b + 1], weighting=weighting, gamma=1.0, logit_scale=2.0)
            assert torch.allclose(score_patches(features[b : b + 1], texts, terms)[0], both[b], atol=1e-6)


def test_image_scores_are_cosines_and_probabilities_softmax() -> None:
    texts, pictures = random_set(), image()
    terms = coefficients(texts, pictures, weighting="uniform", gamma=1.0, logit_scale=4.0)
    levels, shares = image_scores(pictures, texts, terms), probabilities(pictures, texts, 4.0)
    for b in range(2):
        e = pictures[b] / pictures[b].norm()
        for c in range(3):
            w = directions(texts, terms)[0, c]
            assert float(levels[b, c]) == pytest.approx(float(e @ w / w.norm()), abs=1e-5)
            rows = [int(texts.target[c])] + [int(r) for r, there in zip(texts.contrasts[c], texts.present[c]) if there]
            expected = torch.softmax(torch.stack([4.0 * (e @ texts.texts[r]) for r in rows]), dim=0)
            assert torch.allclose(shares[b, c, : len(rows)], expected, atol=1e-5)
            assert shares[b, c, len(rows) :].sum() == 0
    assert torch.equal(probabilities(pictures, texts, 4.0, [2, 0]), torch.stack([shares[0, 2], shares[1, 0]]))


def test_surroundings_have_no_share() -> None:
    texts, pictures = random_set(), image()
    rivals = texts.present.clone()
    rivals[1:, -1] = False
    found = probabilities(pictures, replace(texts, rivals=rivals), 4.0)
    fewer = probabilities(pictures, replace(texts, present=rivals, rivals=rivals), 4.0)
    assert torch.equal(found, fewer)
    assert found[:, 1:, -1].sum() == 0
    assert torch.allclose(found.sum(-1), torch.ones(2, 3))


def test_half_precision_features_give_float32_scores() -> None:
    texts = random_set()
    terms = coefficients(texts, image(), weighting="uniform", gamma=1.0, logit_scale=1.0)
    exact, half = score_patches(patches(), texts, terms), score_patches(patches().bfloat16(), texts, terms)
    assert half.dtype == torch.float32
    assert torch.allclose(exact, half, atol=2e-2)


def test_settings_list_the_same_norms() -> None:
    assert set(settings.FEATURE_NORMS) == set(FEATURE_NORM)


def about(states: int, **metadata: str) -> Concept:
    return Concept(("a",), tuple((f"other {n}",) for n in range(states - 1)), metadata=metadata)


def test_a_character_is_known_by_its_pack_its_name_and_how_many_states_it_has() -> None:
    key = character_key(about(3, pack="fish", character="mouth_position", state="inferior"))
    assert key.startswith("fish:mouth_position/")
    assert len(key) == len("fish:mouth_position/") + 8
    # Whichever of the states is asked for against the others, it is the question of all of them.
    turned = Concept(("other 0",), (("other 1",), ("a",)), metadata={"pack": "fish", "character": "mouth_position"})
    assert character_key(turned) == key
    around = replace(turned, contrasts=(*turned.contrasts, ("a fish",)), contrast_names=(), surroundings=1)
    assert character_key(around) == key, "what lies around is no state"
    others = [about(4, pack="fish", character="mouth_position"), about(3, pack="fish", character="tail")]
    others.append(Concept(("a",), (("other 0",), ("a third",)), metadata={"pack": "fish", "character": "mouth_position"}))
    assert key not in [character_key(other) for other in others]
    assert character_key(about(3)) == character_key(about(3, pack="fish")) == ""


def test_each_concept_has_its_own_temperature() -> None:
    concepts = [about(3, pack="fish", character="tail"), about(3), about(4, pack="fish", character="tail")]
    scales = scales_of(concepts, 10.0, {character_key(concepts[0]): 2.0})
    assert scales.tolist() == [20.0, 10.0, 10.0]
    texts = random_set()
    found = probabilities(image(), texts, scales)
    cosines = texts.similarities(image())
    for b in range(2):
        for c, factor in enumerate((2.0, 1.0, 1.0)):
            used = texts.used[c]
            powers = [float(torch.exp(10.0 * factor * value)) if there else 0.0 for value, there in zip(cosines[b, c], used)]
            assert found[b, c].tolist() == pytest.approx([power / sum(powers) for power in powers], abs=1e-5)
    assert torch.equal(found.argmax(-1), probabilities(image(), texts, 10.0).argmax(-1))
