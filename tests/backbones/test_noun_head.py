from dataclasses import replace

import numpy as np
import pytest
import torch

from concept_cam.backbones.noun_head import NEAREST, NounConfig, NounHead, crowding
from concept_cam.core.errors import ConfigurationError

CONFIG = NounConfig(classes=6, features=5, sentence=4, hidden=8, rows=3, width=6, temperature=2.0, sharpness=4.0, scale=1.0)


def head(config: NounConfig = CONFIG) -> NounHead:
    torch.manual_seed(0)
    made = NounHead(config)
    made.rows.copy_(torch.nn.functional.normalize(torch.randn(6, 3), dim=-1))
    made.basis.copy_(torch.linalg.qr(torch.randn(6, 6))[0])
    return made.eval()


@pytest.mark.parametrize("crowd", [1.0, 0.8])
def test_score_is_the_agreement_of_two_distributions(crowd: float) -> None:
    """With a basis of all dimensions, the product of the vectors is the centred product of the two softmaxes."""
    made = head(replace(CONFIG, crowd=crowd))
    features, sentences = torch.randn(2, 3, 5), torch.randn(4, 4)
    rows = made.rows.numpy()
    # Fewer rows than a crowd: the mean over all others.
    crowded = np.array([np.mean([rows[i] @ rows[j] if i != j else -1.0 for j in range(6)]) for i in range(6)])
    with torch.no_grad():
        score = made.cells(features) @ made.text(sentences).T
        for n, e in enumerate(sentences):
            d = made.direction(e[None])[0].numpy()
            d = d / max(np.linalg.norm(d), CONFIG.certain)
            k = np.exp(4.0 * (made.rows.numpy() @ d - crowd * np.linalg.norm(d) * crowded))
            k = k / k.sum() - 1 / 6
            k = k / max(np.linalg.norm(k), CONFIG.floor)
            for y in range(2):
                for x in range(3):
                    z = made.classifier(features[y, x]).numpy() / 2.0
                    p = np.exp(z - z.max())
                    p = p / p.sum() - 1 / 6
                    assert np.isclose(score[y, x, n].item(), p @ k, atol=1e-5)


def test_a_text_without_direction_has_no_vector() -> None:
    made = head()
    with torch.no_grad():
        made.down.weight.zero_()
        made.down.bias.zero_()
        assert made.text(torch.randn(2, 4)).abs().max() < 1e-5


def test_things_have_unit_length() -> None:
    made = head()
    with torch.no_grad():
        made.down.weight.mul_(20)
        assert torch.allclose(made.text(torch.randn(5, 4)).norm(dim=-1), torch.ones(5), atol=1e-5)


def test_a_row_in_a_crowd_owes_more_to_its_place() -> None:
    """Twelve rows about one axis and one row apart: the mean over the nearest ten, never over itself, by a slow restatement."""
    rows = torch.nn.functional.normalize(torch.cat([torch.eye(4)[:1] + 0.2 * torch.randn(12, 4), torch.eye(4)[3:]]), dim=-1)
    found = crowding(rows, rows)
    for i, row in enumerate(rows.numpy()):
        near = sorted((float(row @ other) for j, other in enumerate(rows.numpy()) if j != i), reverse=True)
        assert np.isclose(found[i].item(), np.mean(near[:NEAREST]), atol=1e-5)
    assert found[:12].min() > found[12]


def test_with_exp_the_hidden_layer_is_a_gaussian_kernel() -> None:
    made = head(replace(CONFIG, activation="exp"))
    known, asked = (torch.nn.functional.normalize(torch.randn(count, 4), dim=-1) for count in (8, 3))
    with torch.no_grad():
        made.up.weight.copy_(known / 0.5**2)
        made.up.bias.fill_(-1 / 0.5**2)
        for n, e in enumerate(asked):
            near = torch.stack([torch.exp(-(e - k).square().sum() / (2 * 0.5**2)) for k in known])
            assert torch.allclose(made.direction(asked)[n], made.down.weight @ near + made.down.bias, atol=1e-5)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ConfigurationError, match="unknown activation 'relu'"):
        NounHead(replace(CONFIG, activation="relu"))
