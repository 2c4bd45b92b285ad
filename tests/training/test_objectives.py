from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training.augmentation import mirror_boxes
from training.claims import FAMILIES, PLACES, STATES, claim_average
from training.model import MARGINS
from training.objectives import (
    cells_in,
    contrast_matrix,
    family_logits,
    neutral_loss,
    part_loss,
    peak_loss,
    place_loss,
    rank_loss,
    sibling_loss,
    soft_maximum,
    soft_maximum_within,
    truth_loss,
)
from training.pictures import facts_of

from concept_cam import prompts
from concept_cam.demo import captions as writing
from concept_cam.demo import world
from concept_cam.demo.captions import FALSE, TRUE, UNKNOWN
from concept_cam.demo.traits import CHARACTERS, PARTS, PRESENCE_CHARACTERS


def test_soft_maximum_lies_between_mean_and_maximum() -> None:
    logits = torch.randn(4, 9, 5) * 6
    found = soft_maximum(logits, 1)
    assert (found <= logits.amax(1) + 1e-6).all()
    assert (found >= logits.mean(1)).all()
    torch.testing.assert_close(soft_maximum(torch.full((1, 3), 2.0), 1), torch.tensor([2.0]))


def test_soft_maximum_within_windows_restated() -> None:
    torch.manual_seed(4)
    logits, inside = torch.randn(2, 6, 3) * 20, torch.rand(2, 4, 6) < 0.5
    inside[:, 0], inside[1, 3] = True, False
    found = soft_maximum_within(logits, inside)
    for b in range(2):
        for k in range(4):
            rows = logits[b, inside[b, k]]
            wanted = soft_maximum(rows, 0) if len(rows) else torch.zeros(3)
            assert torch.allclose(found[b, k], wanted, rtol=1e-4, atol=1e-4)


def test_truth_loss_restated() -> None:
    logits = torch.randn(5, 7)
    truth = torch.randint(0, 3, (5, 7)).to(torch.int8)
    positives, negatives = int((truth == TRUE).sum()), int((truth == FALSE).sum())
    weight = min(max(negatives / max(positives, 1), 1.0), 4.0)
    total = weights = 0.0
    for logit, value in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if value == UNKNOWN:
            continue
        w = weight if value == TRUE else 1.0
        probability = 1 / (1 + np.exp(-logit))
        total -= w * np.log(probability if value == TRUE else 1 - probability)
        weights += w
    assert float(truth_loss(logits, truth)) == pytest.approx(total / weights, rel=1e-5)


def test_losses_ignore_unknown_pairs_and_survive_none_known() -> None:
    truth = torch.full((2, 3), UNKNOWN, dtype=torch.int8)
    assert float(truth_loss(torch.randn(2, 3), truth)) == 0.0
    assert float(rank_loss(torch.randn(2, 3), truth)) == 0.0
    truth[0, 0] = TRUE
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    other = logits.clone()
    other[1, 2] = 50.0
    assert truth_loss(logits, truth) == truth_loss(other, truth)


def test_rank_loss_wants_true_captions_above_the_host() -> None:
    truth = torch.tensor([[TRUE, FALSE]], dtype=torch.int8)
    assert rank_loss(torch.tensor([[3.0, -3.0]]), truth) < rank_loss(torch.tensor([[-3.0, 3.0]]), truth)


def test_sibling_loss_restated() -> None:
    rng = np.random.default_rng(0)
    sizes = [len(states) for states in CHARACTERS.values()]
    logits, margins = (torch.from_numpy(rng.normal(size=(6, sum(sizes)))) for _ in range(2))
    states = np.stack([rng.integers(size, size=6) for size in sizes], axis=1)
    judgeable = rng.random((6, len(sizes))) < 0.5
    judgeable[:, 2] = False
    expected, first = [], 0
    for c, (name, values) in enumerate(CHARACTERS.items()):
        terms = []
        for row in range(6):
            if not judgeable[row, c]:
                continue
            if name in PRESENCE_CHARACTERS:
                margin = float(margins[row, first + values.index("present")])
                terms.append(np.log1p(np.exp(-margin if values[states[row, c]] == "present" else margin)))
            else:
                own = logits[row, first : first + len(values)].numpy()
                terms.append(np.log(np.exp(own).sum()) - own[states[row, c]])
        if terms:
            expected.append(np.mean(terms))
        first += len(values)
    found = sibling_loss(logits, margins, torch.from_numpy(states), torch.from_numpy(judgeable))
    assert float(found) == pytest.approx(np.mean(expected))
    nothing = sibling_loss(logits, margins, torch.from_numpy(states), torch.zeros(6, len(sizes), dtype=torch.bool))
    assert float(nothing) == 0.0


def test_part_and_place_losses_restated() -> None:
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(size=(2, 3, 4)), rng.integers(0, 3, size=(2, 3, 4))
    parts, places = [], []
    for b in range(2):
        for k in range(3):
            for p in range(4):
                if truth[b, k, p] != TRUE:
                    continue
                others = [logits[b, k, q] for q in range(4) if truth[b, k, q] == FALSE]
                parts += [np.log1p(np.exp(other - logits[b, k, p])) for other in others]
                elsewhere = [logits[b, j, p] for j in range(3) if truth[b, j, p] == FALSE]
                places += [np.log1p(np.exp(other - logits[b, k, p])) for other in elsewhere]
    scores, values = torch.from_numpy(logits), torch.from_numpy(truth)
    assert float(part_loss(scores.flatten(0, 1), values.flatten(0, 1))) == pytest.approx(np.mean(parts))
    assert float(place_loss(scores, values)) == pytest.approx(np.mean(places))
    assert float(place_loss(scores, torch.full((2, 3, 4), UNKNOWN))) == 0.0


def test_neutral_loss_restated() -> None:
    torch.manual_seed(5)
    families = [torch.randn(2, 4, 3), torch.randn(2, 4, 5)]
    hidden = torch.rand(2, 4, 2) < 0.5
    terms = []
    for g, z in enumerate(families):
        found = []
        for b in range(2):
            for j in range(4):
                if hidden[b, j, g]:
                    p = z[b, j].softmax(0)
                    uniform = torch.full_like(p, 1 / len(p))
                    found.append((uniform * (uniform.log() - p.log())).sum())
        terms.append(torch.stack(found).mean())
    assert torch.isclose(neutral_loss(families, hidden), torch.stack(terms).mean(), atol=1e-6)
    # Equal siblings are neutral whatever their level, and what can be seen is free.
    level = torch.randn(2, 4, 1).expand(-1, -1, 3)
    assert neutral_loss([level], torch.ones(2, 4, 1, dtype=torch.bool)).abs() < 1e-6
    assert neutral_loss([families[0]], torch.zeros(2, 4, 1, dtype=torch.bool)) == 0


def test_family_logits_average_the_captions_of_each_sibling() -> None:
    writer = writing.CaptionWriter()
    facts = facts_of(world.sample(6, 11, view="whole"), world.render(world.sample(6, 11, view="whole"), 64))
    chosen = writer.batch(np.random.default_rng(0), facts)
    scores = torch.randn(2, 5, len(chosen))
    lesson = dataclasses.make_dataclass("Part", ["average", "parts"])(claim_average(chosen, STATES), claim_average(chosen, PLACES))
    found = dict(zip(FAMILIES, family_logits(scores, lesson), strict=True))
    for name, values in {**CHARACTERS, "parts": PARTS}.items():
        if name in PRESENCE_CHARACTERS:
            assert name not in found
            continue
        assert found[name].shape == (2, 5, len(values))
        for s, value in enumerate(values):
            claim = writing.Statement("part", value) if name == "parts" else writing.Statement("state", name, value)
            rows = [n for n, caption in enumerate(chosen) if caption.statements == (claim,)]
            assert rows, f"no caption says {name} {value}"
            assert torch.allclose(found[name][..., s], scores[..., rows].mean(-1), atol=1e-5)


def test_cells_and_mirrored_windows() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.2], [0.0, 0.0, 1.0, 1.0]]])
    inside = cells_in(boxes, 3, 7, margin=0.5).view(1, 2, 3, 7)
    # Centres at 1/4, 2/4, 3/4 down and 1/8 ... 7/8 across.
    assert inside[0, 0].nonzero().tolist() == [[0, 0]]
    assert inside[0, 1].all()
    turned = mirror_boxes(boxes, torch.tensor([True]))
    assert cells_in(turned, 3, 7, margin=0.5).view(1, 2, 3, 7)[0, 0].nonzero().tolist() == [[0, 6]]
    assert torch.equal(mirror_boxes(boxes, torch.tensor([False])), boxes)
    # At stride 8 of 64 pixels there are 4 x 4 cells, centred at 20, 28, 36, 44.
    box = torch.tensor([[[19 / 64, 19 / 64, 29 / 64, 21 / 64]]])
    assert cells_in(box, 4, 4, MARGINS[8]).view(4, 4).nonzero().tolist() == [[0, 0], [1, 0]]


def test_peak_loss_restated() -> None:
    torch.manual_seed(7)
    scores, inside = torch.randn(3, 10, 4) * 3, torch.rand(3, 5, 10) < 0.4
    truth = torch.randint(0, 3, (3, 5, 4)).to(torch.int8)
    truth[2, :, 1] = UNKNOWN
    terms = []
    for b in range(3):
        for m in range(4):
            false = {j for k in range(5) for j in range(10) if inside[b, k, j] and truth[b, k, m] == FALSE}
            true = {j for k in range(5) for j in range(10) if inside[b, k, j] and truth[b, k, m] == TRUE}
            if not (true - false) or not false:
                continue
            low = torch.logsumexp(scores[b, sorted(false), m], 0)
            high = torch.logsumexp(scores[b, sorted(true - false), m], 0)
            terms.append(float(F.softplus(low - high)))
    assert 4 < len(terms) < 12
    assert float(peak_loss(scores, inside, truth)) == pytest.approx(np.mean(terms), rel=1e-5)
    scores.requires_grad_(True)
    nothing = peak_loss(scores, inside, torch.full_like(truth, UNKNOWN))
    nothing.backward()
    assert float(nothing.detach()) == 0.0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_contrasts_are_those_of_the_trait_pack() -> None:
    """The maps that `peak_contrast` judges are those that the package makes of the pack's concepts at gamma 1."""
    states = sum(len(values) for values in CHARACTERS.values())
    count = len(PARTS) + states + 1
    # One caption for each part, each state, and the host.
    parts, average = torch.eye(count)[: len(PARTS)], torch.eye(count)[len(PARTS) : len(PARTS) + states]
    matrix = contrast_matrix(average, parts, torch.tensor([count - 1]))
    names = [*PARTS, *(f"{name}={value}" for name, values in CHARACTERS.items() for value in values)]
    for concept in prompts.load("fish"):
        name = concept.name.removeprefix("parts=")
        row = torch.zeros(count)
        row[names.index(name)] = 1.0
        character = name.split("=")[0]
        for contrast in concept.contrast_names:
            place = (
                count - 1
                if contrast == "host" or (character in PRESENCE_CHARACTERS and contrast == "absent")
                else names.index(contrast if name in PARTS else f"{character}={contrast}")
            )
            row[place] -= 1.0 / len(concept.contrast_names)
        torch.testing.assert_close(matrix[names.index(name)], row)
