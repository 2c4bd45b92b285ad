"""Training of the bundled model: rendered truth on the grid, terms of the loss, a run that resumes, folding and writing."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from training.augmentation import augment, distort_colours, target_size
from training.backbone import from_bundled, load_trunk, shipped_model
from training.checks import check
from training.claims import claims_of, part_contrasts, truth_of
from training.config import TRAIN_SEED, TrainConfig, smoke_config
from training.export import NAMED, averaged, bundled_model, embedder, learned, mixed, named_texts, rebuilt, renamed, specialised
from training.export import main as export_main
from training.joint import NOUN, PART, REST, fit, fit_gate, nothing_texts, noun_texts, spoken_texts
from training.networks import IMAGE_BIAS, Trainee, folded, of_queries, with_norms
from training.objectives import (
    apart_loss,
    cell_loss,
    change_loss,
    contrasted,
    finer,
    floor_loss,
    foreign_loss,
    inward,
    place_loss,
    random_contrasts,
    state_loss,
    unit,
)
from training.pictures import COVER, Job, Pictures, gather, make_twins, render_job
from training.run import OF_IMAGES, Run, learning_rate_at, train
from training.sentences import Sentences, load_sentences, wordings
from training.supply import Mixer, plan
from training.synonyms import KINDS
from training.train import changed
from training.train import main as train_main

from concept_cam.backbones import BUNDLED, lite
from concept_cam.backbones.lite_net import CHANNELS, HEAD, LiteNet
from concept_cam.backbones.lite_towers import ImageTower, JointHead, Neck, Read, Sizes, Specialist, Value, looked_at, seen_cells
from concept_cam.backbones.noun_head import NounConfig, NounHead
from concept_cam.collection.questions import host_concept
from concept_cam.commands.console import existing
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.geometry import Geometry
from concept_cam.core.resampling import grid_to_pixels
from concept_cam.demo.worlds import WORLDS
from concept_cam.prompts import load_pack

FISH = WORLDS["fish"]
OURS = claims_of("fish")
TINY = Sizes(hidden=12, depth=1, queries=14, nouns=6, parts=10, text_hidden=8)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return render_job(Job("fish", (96, 128), 6, 40, 2, 4, photographs=0.5))


@pytest.fixture(scope="module")
def pairs() -> Pictures:
    return render_job(Job("fish", (96, 128), 12, 40, 6, 6))


def maps(count: int, height: int = 64, width: int = 96) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {s: torch.randn(count, c, height // s, width // s, generator=generator) for s, c in CHANNELS.items()}


# ---------------------------------------------------------------------------------------------------------------- pictures


def test_a_job_is_repeatable_and_pairs_its_twins(pictures: Pictures) -> None:
    again = render_job(Job("fish", (96, 128), 6, 40, 2, 4, photographs=0.5))
    assert torch.equal(again.images, pictures.images)
    assert pictures.twin.tolist() == [4, 5, 2, 3, 0, 1]
    for row, other in ((0, 4), (1, 5)):
        assert int((pictures.states[row] != pictures.states[other]).sum()) == 1
    assert pictures.cover.shape == (6, len(FISH.masks), 96 // COVER, 128 // COVER)


def test_twins_differ_in_one_state_of_shape_or_number_in_most() -> None:
    specimens = FISH.sample(200, 5, view="whole")
    twins = make_twins(specimens, np.random.default_rng(0))
    differ = specimens.states != twins.states
    assert (differ.sum(1) == 1).all()
    assert OURS.shapes == ("caudal_fin_shape", "dorsal_fin_number", "dorsal_fin_texture", "body_shape", "mouth_position")
    shapes = [list(FISH.characters).index(name) for name in OURS.shapes]
    assert 0.75 < differ[:, shapes].sum() / 200 < 0.97
    assert differ.any(0).all()


def test_what_differs_from_the_twin_is_what_the_world_says_without_noise() -> None:
    found = render_job(Job("fish", (96, 128), 6, 40, 2, 4))
    specimens = FISH.sample(4, TRAIN_SEED, view="whole", start=40)[:2]
    twins = replace(specimens, states=found.states[4:].numpy())
    slow = FISH.difference(specimens, twins, (96, 128)).float().unflatten(1, (-1, COVER)).unflatten(3, (-1, COVER)).mean((2, 4))
    for row in (0, 1):
        got = found.changed[row].float() / 255
        assert torch.equal(found.changed[row], found.changed[row + 4])
        both, either = torch.minimum(got, slow[row]).sum(), torch.maximum(got, slow[row]).sum()
        assert both / either > 0.8
    assert not found.changed[2:4].any()


def test_contrast_is_asked_where_a_twin_differs_and_in_all_of_it(pictures: Pictures) -> None:
    size, c = (12, 16), list(FISH.characters).index("dorsal_fin_number")
    states = pictures.states[:1].repeat(2, 1)
    states[:, c] = torch.tensor([0, 1])
    changed = torch.zeros(2, 24, 32, dtype=torch.uint8)
    changed[:, 4:8, 6:12] = 255
    rows = torch.tensor([0, 0])
    pair = replace(pictures[rows], states=states, judgeable=torch.ones(2, len(FISH.characters), dtype=torch.bool), changed=changed)
    pair = replace(pair, present=torch.tensor([True, True]), twin=torch.tensor([1, 0]))
    there = torch.zeros(size)
    there[2:4, 3:6] = 1.0
    block = OURS.blocks["dorsal_fin_number"]

    def loss(values: torch.Tensor) -> float:
        logits = torch.zeros(2, len(OURS), 12 * 16)
        for row in (0, 1):
            logits[row, block.start + row] = values.flatten()
        return float(change_loss(logits, pair, size))

    flat = loss(torch.zeros(size))
    assert flat == pytest.approx(float(np.log(12 * 16 / 6)), abs=1e-4)
    one = torch.zeros(size)
    one[2, 3] = 20.0
    assert loss(20.0 * there) < 0.01 < flat < loss(one)
    assert loss(-20.0 * there) > flat
    assert float(change_loss(torch.zeros(2, len(OURS), 12 * 16), replace(pair, twin=torch.tensor([0, 1])), size)) == 0.0


def test_chosen_pictures_forget_twins_that_are_left(pictures: Pictures) -> None:
    some = pictures[torch.tensor([1, 5, 0])]
    assert some.twin.tolist() == [1, 0, 2]
    assert gather([some, some]).twin.tolist() == [1, 0, 2, 4, 3, 5]


def test_the_plan_does_not_depend_on_the_past() -> None:
    config = smoke_config(TrainConfig())
    first, second = Mixer(config, workers=0), Mixer(config, workers=0, step=3)
    for _ in range(3):
        next(first)
    assert first.step == second.step == 3
    jobs = [job for job, _ in zip(plan(config), range(3))]
    assert [job[0].start for job in jobs] == [0, config.batch, 2 * config.batch]
    assert [(job.world, job.count) for job in jobs[0]] == list(config.worlds.items())
    assert [(each.world, len(each)) for each in next(first)] == list(config.worlds.items())


def test_every_step_has_as_many_pictures() -> None:
    config = replace(smoke_config(TrainConfig()), worlds={"beetle": 7, "plant": 5}, sides=((64, 64),), twins=0.4)
    mixer = Mixer(config, workers=0)
    steps = [next(mixer) for _ in range(9)]
    assert [[len(each) for each in step] for step in steps] == [[7, 5]] * 9
    for step in steps:
        for each in step:
            # Whoever has a twin is the twin of it.
            assert torch.equal(each.twin[each.twin], torch.arange(len(each)))
    # The mixture keeps pairs together, but for one that is cut.
    assert any((each.twin != torch.arange(len(each))).any() for step in steps[1:4] for each in step)


def test_augmentation_keeps_twins_comparable(pictures: Pictures) -> None:
    twin = pictures.twin
    same = replace(pictures, images=pictures.images[twin], cover=pictures.cover[twin], changed=pictures.changed[twin])
    found, x, _ = augment(pictures, (64, 96), torch.Generator().manual_seed(4), distorted=1.0)
    other, _, _ = augment(same, (64, 96), torch.Generator().manual_seed(4), distorted=1.0)
    assert torch.equal(found.cover[twin], other.cover)
    assert torch.equal(found.changed[twin], other.changed)
    trunk = FISH.masks.index("trunk")
    found, _, _ = augment(replace(pictures, changed=pictures.cover[:, trunk]), (64, 96), torch.Generator().manual_seed(5), distorted=1.0)
    assert not torch.equal(found.changed, pictures.cover[:, trunk])
    assert torch.equal(found.changed, found.cover[:, trunk])
    assert x.shape == (6, 3, 64, 96)
    assert 0.0 <= float(x.min()) <= float(x.max()) <= 1.0


def test_false_colours_change_some_pictures() -> None:
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found, chosen = distort_colours(x, 0.5, torch.Generator().manual_seed(1))
    changed = (found != x).flatten(1).any(1)
    assert torch.equal(changed, chosen)
    assert 0 < int(chosen.sum()) < 8
    # What a picture becomes does not depend on which others are changed with it.
    all_of_them, every = distort_colours(x, 1.0, torch.Generator().manual_seed(1))
    assert every.all()
    torch.testing.assert_close(found[chosen], all_of_them[chosen])
    none, nobody = distort_colours(x, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(none, x)
    assert not nobody.any()
    assert target_size((384, 256), 0.67) == (256, 160)


# ------------------------------------------------------------------------------------------------------------------ truth


def test_truth_restated(pictures: Pictures) -> None:
    false_colour = torch.zeros(6, dtype=torch.bool)
    truth = truth_of(pictures, false_colour, (12, 16))
    slow = pictures.cover.float().div(255).unflatten(2, (12, -1)).unflatten(4, (16, -1)).mean((3, 5)).flatten(2)
    for row in range(6):
        for k, claim in enumerate(OURS.listed):
            if not OURS.spoken(claim):
                assert not truth.known[row, k]
            elif claim.kind == "part":
                p = FISH.masks.index(claim.key)
                assert torch.allclose(truth.cover[row, k], slow[row, p], atol=1e-5)
                assert bool(truth.shown[row, k]) == bool(pictures.visible[row, p])
            elif claim.kind == "state":
                c = list(FISH.characters).index(claim.key)
                same = FISH.characters[claim.key][int(pictures.states[row, c])] == claim.state
                assert not truth.shown[row, k] or (same and bool(pictures.judgeable[row, c]))
                assert same or not truth.cover[row, k].any()
    hidden = truth_of(pictures, ~false_colour, (12, 16))
    assert not hidden.known[:, OURS.blocks["body_colour"]].any()


def test_contrasts_are_the_packs() -> None:
    table = part_contrasts(FISH)
    parts = len(FISH.parts)
    assert table.shape == (parts, parts + 1)
    assert table.diagonal().sum() == 0
    assert (table.sum(1) > 0).all()
    chosen = random_contrasts(parts, torch.Generator().manual_seed(0))
    assert chosen[:, :parts].diagonal().sum() == 0
    assert ((chosen.sum(1) - 1).abs() < 1e-5).logical_or(chosen.sum(1) == 0).all()


# ----------------------------------------------------------------------------------------------------------------- losses


def test_losses_prefer_what_is_true(pictures: Pictures) -> None:
    truth = truth_of(pictures, torch.zeros(6, dtype=torch.bool), (12, 16))
    right, wrong = 30 * truth.cover - 15, 15 - 30 * truth.cover
    assert cell_loss(right, truth) < cell_loss(wrong, truth)
    assert place_loss(right, truth.cover, truth.shown) < 0.3 < place_loss(wrong, truth.cover, truth.shown)
    logits = torch.randn(2, len(OURS), 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(contrasted(logits, part_contrasts(FISH), 0.0), logits[:, : len(FISH.parts)])


def test_a_peak_far_inside_a_part_costs_less_than_one_at_its_border() -> None:
    cover = torch.zeros(1, 2, 5, 7)
    cover[0, 0, :, 1:6] = 1.0
    cover[0, 1, 2, 2:5] = torch.tensor([0.2, 0.3, 0.2])
    inner = inward(cover.flatten(2), (5, 7)).view_as(cover)
    padded = F.pad(cover, (1, 1, 1, 1))
    for k in range(2):
        around = torch.tensor([[float(padded[0, k, y : y + 3, x : x + 3].sum()) for x in range(7)] for y in range(5)])
        # The second is thin: it has no inside.
        assert torch.allclose(inner[0, k], cover[0, k] * around / around.max() if k == 0 else cover[0, k], atol=1e-6)
    shown, logits = torch.ones(1, 1, dtype=torch.bool), torch.full((2, 1, 35), -9.0)
    logits[0, 0, 2 * 7 + 3] = logits[1, 0, 2 * 7 + 1] = 9.0
    central, border = (place_loss(each[None], inner[:, :1].flatten(2), shown) for each in logits)
    assert central < 0.01 < 0.3 < border
    # Nothing covers: nothing is divided by nothing.
    assert torch.equal(inward(torch.zeros(1, 1, 35), (5, 7)), torch.zeros(1, 1, 35))


def test_cells_are_open_where_a_twin_of_another_shape_differs(pairs: Pictures) -> None:
    truth = truth_of(pairs, torch.zeros(12, dtype=torch.bool), (12, 16))
    differs = pairs.changed.float().div(255).unflatten(1, (12, -1)).unflatten(3, (16, -1)).mean((2, 4)).flatten(1) > 0.1
    for row, twin in enumerate(pairs.twin.tolist()):
        for k, claim in enumerate(OURS.listed):
            expected = torch.zeros(12 * 16, dtype=torch.bool)
            if claim.key in OURS.shapes:
                c = list(FISH.characters).index(claim.key)
                if pairs.states[row, c] != pairs.states[twin, c] and pairs.judgeable[row, c]:
                    expected = differs[row]
            assert torch.equal(truth.open[row, k], expected)
    assert truth.open.any()


def test_open_cells_are_held_against_no_state_and_its_lead_is_wanted_there(pairs: Pictures) -> None:
    false_colour = torch.zeros(12, dtype=torch.bool)
    truth = truth_of(pairs, false_colour, (12, 16))
    row = int(truth.open.flatten(1).any(1).nonzero()[0])
    k = int(truth.open[row].any(1).nonzero()[0])
    c, (name, block) = next((i, item) for i, item in enumerate(OURS.blocks.items()) if item[1].start <= k < item[1].stop)
    assert name in OURS.shapes
    own = block.start + int(pairs.states[row, c])
    beyond = truth.open[row, own] & (truth.cover[row, own] == 0)
    assert beyond.any()
    plain = -5 * torch.ones_like(truth.cover)
    seen = plain.clone()
    seen[row, own, beyond] = 5.0
    shut = truth._replace(open=torch.zeros_like(truth.open))
    assert torch.equal(cell_loss(seen, truth), cell_loss(plain, truth))
    assert cell_loss(seen, shut) > cell_loss(plain, shut)
    assert state_loss(seen, pairs, truth, false_colour) < state_loss(plain, pairs, truth, false_colour)
    assert state_loss(seen, pairs, shut, false_colour) == state_loss(plain, pairs, shut, false_colour)


def test_the_floor_wants_nothing_where_nothing_is(pictures: Pictures) -> None:
    truth = truth_of(pictures, torch.zeros(6, dtype=torch.bool), (12, 16))
    inside = truth.cover[:, OURS.host] > 0
    zero = torch.zeros_like(truth.cover)
    good, bad = torch.where(inside, 20.0, 1.0), torch.where(inside, 1.0, 20.0)
    assert floor_loss(zero, good, truth, OURS.host, 1.0) < 1e-6 < floor_loss(zero, bad, truth, OURS.host, 1.0)
    assert floor_loss(zero - 0.2, good, truth, OURS.host, 1.0) > floor_loss(zero + 0.2, good, truth, OURS.host, 1.0)


def test_unit_vectors_count_the_other_blocks() -> None:
    parts, others = torch.tensor([[3.0, 0.0]]), torch.tensor([[15.0]])
    assert torch.allclose(unit(parts, others, 1.0), parts / 5.0)


def test_the_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(steps=100, warmup=10, decay=0.2, learning_rate=1.0)
    assert [round(learning_rate_at(config, step), 3) for step in (0, 9, 50, 80, 90, 100)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.0]
    assert learning_rate_at(replace(config, decay=0.0), 99) == 1.0


# --------------------------------------------------------------------------------------------------------------- networks


def test_norms_are_folded_exactly() -> None:
    torch.manual_seed(0)
    trained = with_norms(Neck(TINY))
    for _ in range(3):
        trained(maps(2))
    trained.eval()
    plain = Neck(TINY)
    plain.load_state_dict(folded(trained))
    with torch.no_grad():
        assert torch.allclose(plain(maps(2)), trained(maps(2)), atol=1e-4)


READING = replace(TINY, value_hidden=5, reading=3)


def test_the_level_before_a_reading_is_folded_exactly() -> None:
    torch.manual_seed(0)
    trainee, seen = Trainee(READING, 20.0, left_out=0.4), 3.0 + 2.0 * torch.randn(64, READING.queries, 2 * READING.seen)
    torch.nn.init.normal_(trainee.value.reading.out.weight)
    for _ in range(200):
        trainee.told(seen)
    trainee.eval()
    plain = Value(READING)
    plain.load_state_dict(trainee.levelled())
    with torch.no_grad():
        assert torch.allclose(plain(seen), trainee.told(seen), atol=1e-3, rtol=1e-4)
        assert torch.allclose(trainee.level(seen.flatten(1)).mean(0), torch.zeros(()), atol=0.1)
        # In a step some of it is left out, as the generator says.
        left = [trainee.told(seen, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(left[0], left[1])
    assert not torch.allclose(left[0], left[2], atol=1e-2)


def test_what_is_beside_the_linear_map_begins_as_nothing_and_is_what_it_says() -> None:
    torch.manual_seed(0)
    value, seen = Value(READING), torch.randn(3, READING.queries, 2 * READING.seen)
    means = seen[..., : READING.hidden].flatten(1)
    linear = F.linear(means, value.weight, value.bias)
    assert torch.equal(value(seen), linear)
    torch.nn.init.normal_(value.beside[2].weight)
    torch.nn.init.normal_(value.reading.out.weight)
    torch.nn.init.normal_(value.reading.own_bias)
    first, _, second = value.beside
    own = [F.gelu(seen[:, q] @ value.reading.own[q] + value.reading.own_bias[q]) for q in range(READING.queries)]
    wanted = linear + second(F.gelu(first(means))) + torch.cat(own, 1) @ value.reading.out.weight.T
    assert torch.allclose(value(seen), wanted, atol=1e-4)


def test_a_query_sees_means_and_spreads_of_where_it_looks() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, cells = torch.randn(2, 3, 7, generator=generator), torch.randn(2, 4, 7, generator=generator)
    logits[0, 1, 5:] = float("-inf")
    found = looked_at(logits, cells)
    for b in range(2):
        for q in range(3):
            shares = logits[b, q].softmax(0).numpy()
            for c in range(4):
                mean = np.average(cells[b, c].numpy(), weights=shares)
                spread = np.average((cells[b, c].numpy() - mean) ** 2, weights=shares)
                assert np.isclose(found[b, q, c], mean, atol=1e-5)
                assert np.isclose(found[b, q, 4 + c], (spread + 1e-4) ** 0.5, atol=1e-4)


@pytest.mark.parametrize("sizes", [TINY, READING], ids=["means", "reading"])
def test_the_tower_says_what_the_trainee_says(sizes: Sizes) -> None:
    torch.manual_seed(0)
    trainee, tower = Trainee(sizes, 20.0), ImageTower(sizes, NounConfig(width=sizes.nouns)).eval()
    if trainee.value.reading is not None:
        torch.nn.init.normal_(trainee.value.reading.out.weight)
    found = maps(2)
    for _ in range(50):
        trainee(found)
    trainee.eval()
    tower.neck.load_state_dict(folded(trainee.neck))
    tower.parts.load_state_dict(trainee.parts.state_dict())
    tower.query.load_state_dict(trainee.query.state_dict())
    tower.value.load_state_dict(trainee.levelled())
    with torch.no_grad():
        hidden = tower.neck(found)
        seen = seen_cells(hidden, found, sizes)
        assert seen.shape[1] == sizes.seen
        top = torch.randn(2, HEAD, hidden.shape[2] // 4, hidden.shape[3] // 4)
        cells, image, _ = trainee(found)
        parts = slice(sizes.nouns, -1)
        read = Read(found, seen, top)
        pooled = tower.pool(tower.cells(read))
        assert torch.allclose(tower.patches(read)[..., parts].flatten(1, 2), cells, atol=1e-4)
        assert torch.allclose(pooled[..., parts], image, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("sizes", [TINY, READING], ids=["means", "reading"])
def test_the_trainee_sees_cells_and_picture(sizes: Sizes) -> None:
    cells, image, attention = Trainee(sizes, 20.0)(maps(2))
    assert cells.shape == (2, 8 * 12, TINY.parts)
    assert image.shape == (2, TINY.parts)
    assert attention.shape == (2, TINY.queries, 8 * 12)


# ------------------------------------------------------------------------------------------------------------------- text


def test_every_claim_has_many_wordings() -> None:
    found = wordings(list(WORLDS), draws=20)
    assert set(found) == {claims_of(name).name(c) for name in WORLDS for c in claims_of(name).listed if claims_of(name).spoken(c)}
    assert min(map(len, found.values())) >= 12
    assert not any("|absent" in name and name.split("|")[2] in WORLDS[name.split("|")[0]].presences for name in found)


def test_a_group_that_no_list_of_names_knows_is_trained_as_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new group is a pack and a room: other names for it are lists that may be written, and need not."""
    before = wordings(["plant"], draws=5)
    monkeypatch.delitem(KINDS, "plant")
    monkeypatch.delitem(NAMED, "plant")
    assert min(map(len, wordings(["plant"], draws=5).values())) >= 12
    assert set(wordings(["plant"], draws=5)) == set(before)
    assert noun_texts(["teapot"], ["plant"], np.random.default_rng(0), 5)
    assert named_texts("plant") == WORLDS["plant"].host_phrases


def test_the_joint_head_learns_what_texts_are_about() -> None:
    torch.manual_seed(0)
    words = ("the tail of a fish", "a fish fin", "a forked tail fin", "the head of a fish")
    generator = torch.Generator().manual_seed(0)
    kept: dict[str, torch.Tensor] = {}

    def embed(texts):  # Texts about fish, things and nothing lie around three points.
        centres = torch.eye(384)[:3]
        for text in texts:
            kind = PART if text in words else REST if text in nothing_texts() else NOUN
            noise = torch.randn(384, generator=generator) * 0.02
            kept.setdefault(text, torch.nn.functional.normalize(centres[kind] + noise, dim=0))
        return torch.stack([kept[text] for text in texts])

    head = JointHead(TINY)
    targets = torch.nn.functional.normalize(torch.randn(4, TINY.parts, generator=generator), dim=-1)
    fit(head, embed, words, targets, ["cup", "dog", "umbrella"], ["fish"], steps=120, report=lambda text: None)
    nouns = noun_texts(["cup", "dog"], ["fish"], np.random.default_rng(1), 20)
    with torch.no_grad():
        blocks = head(embed([words[0], nouns[0], "the background"]), torch.ones(3, TINY.nouns) / TINY.nouns**0.5).square()
    shares = torch.stack([blocks[:, : TINY.nouns].sum(1), blocks[:, TINY.nouns : -1].sum(1), blocks[:, -1]], 1)
    assert shares.argmax(1).tolist() == [PART, NOUN, REST]
    assert not any(
        "fish" in text
        for text in noun_texts(["swordfish", "cup"], ["fish"], np.random.default_rng(1), 20)
        if "cup" not in text and "photo" in text
    )


def test_what_is_said_of_a_part_that_is_drawn_names_no_thing() -> None:
    """A pack says of left fore wings what it says of fore wings, and the pack of birds has black wings as well."""
    said = list(dict.fromkeys(text for each in wordings(["lepidoptera"], draws=2).values() for text in each))
    nouns = noun_texts(["teapot"], ["lepidoptera"], np.random.default_rng(0), 5)
    shared = {"the forewing of a butterfly", "a photo of the hindwing of a butterfly", "black wings"}
    assert shared <= set(said) & set(nouns)
    spoken = spoken_texts(said, ["teapot"], ["lepidoptera"], np.random.default_rng(0))
    kinds = dict(zip(spoken.texts, spoken.kinds.tolist(), strict=True))
    assert len(kinds) == len(spoken.texts), "every text is of one kind"
    assert {kinds[text] for text in said} == {PART}
    assert {kinds[text] for text in nothing_texts()} == {REST}
    assert kinds["a photo of a bird with black wings"] == NOUN
    drawn = spoken.draw(torch.Generator().manual_seed(0))
    assert [int(kind) for kind in spoken.kinds[drawn][[0, 191, 384, 415]]] == [PART, PART, REST, REST]
    assert PART not in spoken.kinds[drawn][192:384]


def test_a_gate_that_is_fitted_on_leaves_what_is_said_of_parts() -> None:
    torch.manual_seed(0)
    words = ("the tail of a fish", "a fish fin", "a forked tail fin", "the head of a fish")

    def embed(texts):
        rows = [PART if text in words else REST if text in nothing_texts() else NOUN for text in texts]
        return torch.eye(384)[rows]

    head = JointHead(TINY)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    fit_gate(head, embed, words, ["cup", "dog"], ["fish"], steps=100, report=lambda text: None)
    changed = {name.split(".")[0] for name, value in head.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"gate_first", "gate_second"}
    with torch.no_grad():
        blocks = head(embed([words[0], "a cup", "the background"]), torch.ones(3, TINY.nouns) / TINY.nouns**0.5).square()
    shares = torch.stack([blocks[:, : TINY.nouns].sum(1), blocks[:, TINY.nouns : -1].sum(1), blocks[:, -1]], 1)
    assert shares.argmax(1).tolist() == [PART, NOUN, REST]


# -------------------------------------------------------------------------------------------------------------------- run


def small_run(folder: Path, worlds: dict[str, int] | None = None, config: TrainConfig | None = None, learn: str = "all") -> Run:
    worlds = worlds or {"fish": 4}
    config = config or replace(
        smoke_config(TrainConfig()), steps=4, worlds=worlds, reuse=2, sides=((64, 64),), hidden=12, parts_dim=10, text_hidden=8
    )
    found = wordings(list(worlds), draws=2)
    texts = list(dict.fromkeys(text for each in found.values() for text in each))
    number = {text: i for i, text in enumerate(texts)}
    embeddings = torch.nn.functional.normalize(torch.randn(len(texts), 384, generator=torch.Generator().manual_seed(0)), dim=-1)
    sentences = Sentences({key: [number[text] for text in each] for key, each in found.items()}, texts, embeddings, list(worlds))
    weights, nouns, _ = from_bundled()
    trunk = LiteNet()
    trunk.load_state_dict(weights)
    return Run(config, folder, trunk, sentences, nouns, workers=0, learn=learn)


def begun_with_the_bundled(folder: Path, group: str, learn: str) -> Run:
    """A small run that has the weights that ship, and draws more pictures of one group than of the others."""
    worlds = {name: 2 if name == group else 1 for name in TrainConfig().worlds}
    run = small_run(folder, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 64),)), learn=learn)
    run.start_from_model(*shipped_model())
    return run


def test_a_run_resumes_where_it_stopped(tmp_path: Path) -> None:
    whole = small_run(tmp_path / "whole")
    train(whole, log_every=1, save_every=100, report=lambda text: None)
    parted = small_run(tmp_path / "parted")
    parted.advance()
    parted.advance()
    parted.save()
    parted.close()
    again = small_run(tmp_path / "parted")
    assert again.step == 2
    train(again, log_every=1, report=lambda text: None)
    for (name, wanted), found in zip(whole.average.state_dict().items(), again.average.state_dict().values(), strict=True):
        assert torch.allclose(wanted.float(), found.float(), atol=1e-5), name
    with (tmp_path / "whole" / "losses.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert all(np.isfinite(float(row["total"])) for row in rows)
    assert (tmp_path / "whole" / "trained.pt").is_file()


@pytest.mark.parametrize("what", ["superfluous", "missing", "another shape", "damaged"])
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_sentence(what: str, tmp_path: Path) -> None:
    run = small_run(tmp_path)
    run.save()
    file = tmp_path / "checkpoint.pt"
    saved = torch.load(file, weights_only=True)
    key = {"superfluous": "image_bias", "missing": "cell_bias", "another shape": "query.weight", "damaged": "PytorchStreamReader"}[what]
    if what == "missing":
        del saved["model"][key]
    else:
        saved["model"][key] = torch.zeros(3)
    torch.save(saved, file)
    if what == "damaged":
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError) as refused:
        small_run(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{file} cannot be resumed: ")
    assert "choose another --folder" in said
    assert key in said
    assert "\n" not in said


def test_a_run_of_two_groups_starts_from_one_of_fish(tmp_path: Path) -> None:
    first = small_run(tmp_path / "fish")
    first.advance()
    torch.nn.init.normal_(first.trainee.value.reading.out.weight)
    first.save()
    both = small_run(tmp_path / "both", {"fish": 4, "lepidoptera": 3})
    both.start_from(tmp_path / "fish")
    queries = first.sizes.queries
    assert both.sizes.queries == 2 * queries
    wide = torch.randn(2, 2 * queries, 2 * first.sizes.seen, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(both.trainee.eval().told(wide), first.trainee.eval().told(wide[:, :queries]), atol=1e-5)
        assert torch.equal(both.trainee.query.weight[:queries], first.trainee.query.weight)
    found = both.advance()
    assert {"foreign", "total of fish", "total of lepidoptera"} <= set(found)
    assert torch.isfinite(found["total"])
    assert float(found["total"]) == pytest.approx(
        (4 * float(found["total of fish"]) + 3 * float(found["total of lepidoptera"])) / 7, rel=1e-5
    )
    both.save()
    with pytest.raises(ValueError, match="another layout"):
        first.start_from(tmp_path / "both")


def test_what_a_picture_claims_has_to_overcome_what_the_question_for_a_host_asks() -> None:
    """A claim that the loss takes for even is one that has a probability of a half among the other things that a host is asked against."""
    others = host_concept(load_pack("fish"), lambda _: ()).contrasts
    logits = torch.tensor([-IMAGE_BIAS, *([0.0] * len(others))])
    assert float(logits.softmax(0)[0]) == pytest.approx(0.5, abs=1e-6)
    assert not any("bias" in name and "image" in name for name, _ in Trainee(TINY, 20.0).named_parameters())


def test_what_is_said_of_other_groups_is_pushed_down() -> None:
    low, high = torch.full((2, 3, 5), -9.0), torch.full((2, 3, 5), 9.0)
    assert float(foreign_loss(low, low[..., 0])) < 1e-3 < float(foreign_loss(high, low[..., 0])) < float(foreign_loss(high, high[..., 0]))
    assert float(foreign_loss(low[:, :0], low[:, :0, 0])) == 0.0


@pytest.mark.parametrize("places", [2, 4])
def test_a_finer_map_is_the_one_that_is_drawn(places: int) -> None:
    maps = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    size = 4 * places, 5 * places
    found = finer(maps, (4, 5), places).unflatten(-1, size)
    geometry = Geometry("native", size, size, (4, 5), (1.0, 1.0))
    for picture, row in np.ndindex(2, 3):
        drawn = grid_to_pixels(maps[picture, row].unflatten(-1, (4, 5)).numpy(), geometry)
        assert np.allclose(found[picture, row].numpy(), drawn, atol=1e-5)


def test_wordings_of_rival_states_are_pushed_apart() -> None:
    """Restated slowly; and following it down brings rivals to the limit and leaves other claims alone."""
    words = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(2)) + 2.0, dim=-1)
    blocks = [slice(0, 3), slice(4, 6)]
    pairs = [[float(max(0.0, words[i] @ words[j] - 0.6)) for i in own for j in own if i != j] for own in ((0, 1, 2), (4, 5))]
    assert float(apart_loss(words, blocks, 0.6)) == pytest.approx(np.mean([np.mean(each) for each in pairs]), abs=1e-6)
    assert float(apart_loss(words, [], 0.6)) == 0.0
    free = words.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([free], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        apart_loss(F.normalize(free, dim=-1), blocks, 0.6).backward()
        optimizer.step()
    moved = F.normalize(free.detach(), dim=-1)
    assert float(apart_loss(moved, blocks, 0.6)) < 0.01
    assert torch.allclose(moved[[3, 6]], words[[3, 6]])


def test_a_run_stops_when_its_time_is_over(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    train(run, seconds=0.0, report=lambda text: None)
    assert run.step == 0
    assert (tmp_path / "checkpoint.pt").is_file()


def test_the_bundled_model_takes_other_nouns_and_nothing_else(tmp_path: Path) -> None:
    _, _, model = from_bundled()
    own = model.image.nouns
    nouns = NounHead(replace(own.config, hidden=6, activation="exp"))
    nouns.load_state_dict(
        {name: value for name, value in own.state_dict().items() if name.partition(".")[0] not in ("up", "down")}, strict=False
    )
    with torch.no_grad():
        for value in (*nouns.up.parameters(), *nouns.down.parameters()):
            value.copy_(value.half().float())
    write_nouns(nouns, tmp_path / "nouns")
    renamed(tmp_path / "nouns", tmp_path / "out", pictures=2)
    found, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", BUNDLED))
    assert set(found) == set(before)
    for name, value in found.items():
        if name.startswith(("image.nouns.up", "image.nouns.down")):
            # Some are stored with fewer significant bits than half precision.
            assert torch.allclose(value.float(), nouns.state_dict()[name.removeprefix("image.nouns.")], rtol=0.01, atol=0.0)
        elif name not in ("examples", lite.HOSTS):
            assert torch.equal(value, before[name]), name
    # Fewer pictures were looked at than for the bundled model, and what the backbone calls the groups is told by other nouns.
    assert found["examples"].shape[1] == before["examples"].shape[1]
    groups = [json.loads((folder / "known.json").read_text(encoding="utf-8"))["groups"] for folder in (tmp_path / "out", BUNDLED)]
    assert len(groups[0]) == len(found["examples"])
    assert list(dict.fromkeys(groups[0])) == list(dict.fromkeys(groups[1]))
    with torch.no_grad():
        nouns.classifier.weight[0, 0] += 1.0
    write_nouns(nouns, tmp_path / "nouns")
    with pytest.raises(SystemExit, match="of another classifier or width"):
        renamed(tmp_path / "nouns", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def write_nouns(nouns: NounHead, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in nouns.state_dict().items()}, folder / "nouns.safetensors")
    (folder / "nouns.json").write_text(json.dumps(nouns.config.as_dict()), encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps=abc", "expected NAME=VALUE with a number"),
        ("steps", "expected NAME=VALUE with a number"),
        ("steps=0", "at least 1"),
        ("steps=2.5", "a whole number"),
        ("worlds.fish=2.5", "a whole number"),
        ("weights.banana=1", "Known: .*weights.cells"),
        ("sides=3", "Known: steps"),
    ],
)
def test_what_cannot_be_set_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(TrainConfig(), [text])


def test_what_is_set(tmp_path: Path) -> None:
    found = changed(TrainConfig(), ["steps=7", "learning_rate=0.5", "weights.cells=2", "worlds.fish=3", "worlds.plant=0"])
    assert (found.steps, found.learning_rate, found.weights["cells"], found.worlds["fish"]) == (7, 0.5, 2.0, 3)
    assert "plant" not in found.worlds
    assert existing(str(tmp_path)) == tmp_path
    with pytest.raises(argparse.ArgumentTypeError, match="there is no folder"):
        existing(str(tmp_path / "none"))


@torch.no_grad()
def test_a_run_that_starts_from_the_bundled_model_says_what_that_says(tmp_path: Path) -> None:
    model, _ = shipped_model()
    worlds = dict.fromkeys(TrainConfig().worlds, 2)
    run = small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 96),)))
    run.start_from_model(*shipped_model())
    x = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    maps = run.trunk((x * 255.0 - 127.0) / 128.0)
    cells, image, logits = run.average(maps)
    hidden = model.image.neck(maps)
    assert torch.allclose(cells, model.image.parts(hidden).flatten(2).transpose(1, 2), atol=1e-3)
    assert torch.allclose(logits, model.image.query(hidden).flatten(2), atol=1e-3)
    expected = model.image.value(looked_at(logits, seen_cells(hidden, maps, model.sizes).flatten(2)))
    assert torch.allclose(image, expected, atol=2e-3)
    sentence = F.normalize(torch.ones(1, 384), dim=-1)
    said = model.joint.second(F.gelu(model.joint.first(sentence * 8.0)))
    assert torch.allclose(run.average.words(sentence), F.normalize(said, dim=-1), atol=1e-5)
    assert float(run.average.log_scale) == pytest.approx(float(model.logit_scale))
    # And it writes what it took over: the norms fold back.
    own, before = learned(run.average), model.state_dict()
    rooms = ("image.neck.", "image.parts.", "image.query.", "image.value.", "joint.first.", "joint.second.", "logit_scale")
    assert set(own) == {name for name in before if name.startswith(rooms)}
    for name, value in own.items():
        assert torch.allclose(value, before[name], rtol=2e-3, atol=2e-3 * float(before[name].abs().max())), name
    with torch.enable_grad():
        assert torch.isfinite(run.advance()["total"])


def changed_by_a_step(run: Run) -> set[str]:
    """The rooms of the trainee whose parameters one step changes."""
    before = {name: value.clone() for name, value in run.trainee.named_parameters()}
    assert torch.isfinite(run.advance()["total"])
    return {name.split(".")[0] for name, value in run.trainee.named_parameters() if not torch.equal(value, before[name])}


def test_a_run_that_learns_the_map_is_written_as_a_specialist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words, queries and the image's vector stand still; what is written is the bundled model and the run's neck, for one group's maps."""
    worlds = {name: 2 if name == "plant" else 1 for name in TrainConfig().worlds}
    run = small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 96),)), learn="map")
    run.start_from_model(*shipped_model())
    assert changed_by_a_step(run) == {"neck", "parts", "cell_bias"}
    run.save()
    monkeypatch.setattr("sys.argv", ["export", "--run", str(tmp_path), "--specialist", "plant", "--output", str(tmp_path / "model")])
    export_main()
    model, shipped = lite.make(tmp_path / "model", "own").model, bundled_model()
    assert isinstance(model, lite.LiteModel)
    assert "plant" in model.image.specialists
    assert model.sharpness == shipped.sharpness
    for name, value in shipped.state_dict().items():
        if not name.startswith("image.specialists.plant.") and name != lite.HOSTS:
            assert torch.equal(value, model.state_dict()[name]), name
    own = learned(run.average)
    for name in ("neck.lateral.8.weight", "neck.fine.1.wide.weight", "parts.weight", "parts.bias"):
        value = own[f"image.{name}"].detach()
        stored = model.state_dict()[f"image.specialists.plant.{name}"]
        assert torch.allclose(stored, value, atol=0.01 * float(value.abs().max())), name


def test_a_run_that_learns_a_group_has_its_queries_and_goes_on_from_its_neck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words stand still; what is written is the neck and what its own queries read, or the neck alone."""
    worlds = {name: 2 if name == "plant" else 1 for name in TrainConfig().worlds}
    run = small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 96),)), learn="group")
    shipped, groups = shipped_model()
    run.start_from_model(shipped, groups)
    assert run.own == "plant"
    assert run.trainee.sizes.queries == TrainConfig().queries == shipped.sizes.queries // len(groups)
    assert "plant" in shipped.image.readers
    assert torch.equal(run.trainee.query.weight, shipped.image.specialists["plant"].query.weight)
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = run.trunk((x * 255.0 - 127.0) / 128.0)
        cells = run.average(maps)[0]
        leaf = shipped.image.specialists["plant"]
        assert torch.allclose(cells, leaf.parts(leaf.neck(maps)).flatten(2).transpose(1, 2), atol=2e-3)
    assert changed_by_a_step(run) == {"neck", "parts", "query", "value", "cell_bias"}
    run.save()
    monkeypatch.setattr("sys.argv", ["export", "--run", str(tmp_path), "--specialist", "plant", "--output", str(tmp_path / "model")])
    export_main()
    model = lite.make(tmp_path / "model", "own").model
    assert set(model.state_dict()) == set(shipped.state_dict())
    for name, value in shipped.state_dict().items():
        if not name.startswith("image.specialists.plant.") and name != lite.HOSTS:
            assert torch.equal(value, model.state_dict()[name]), name
    own = learned(run.average)
    for name in ("parts.weight", "query.weight", "value.weight", "value.reading.own"):
        value = own[f"image.{name}"].detach()
        assert torch.allclose(model.state_dict()[f"image.specialists.plant.{name}"], value, atol=0.01 * float(value.abs().max())), name
    assert "reading" not in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*sys.argv[:-1], str(tmp_path / "map"), "--takes", "map"])
    export_main()
    assert "plant: its states were told by a reading of its own, fitted to the neck that this one replaces." in capsys.readouterr().out
    alone = lite.make(tmp_path / "map", "map").model
    assert isinstance(alone, lite.LiteModel)
    assert alone.image.readers == {name: count for name, count in shipped.image.readers.items() if name != "plant"}
    assert torch.equal(
        alone.state_dict()["image.specialists.plant.parts.weight"], model.state_dict()["image.specialists.plant.parts.weight"]
    )


def test_a_run_that_learns_a_reading_leaves_the_neck_as_it_is(tmp_path: Path) -> None:
    """Norms of the neck included: what the queries read is what they will read in the model that is written."""
    run = begun_with_the_bundled(tmp_path, "fish", "reading")
    before = {name: value.clone() for name, value in run.trainee.neck.state_dict().items()}
    assert changed_by_a_step(run) == {"query", "value"}
    for name, value in run.trainee.neck.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert {name for name, weight in run.weights.items() if weight} == {*OF_IMAGES, "foreign"}
    run.save()
    specialised(tmp_path, "fish", tmp_path / "model", "reading")
    found, shipped = lite.make(tmp_path / "model", "model").model.state_dict(), bundled_model().state_dict()
    for name, value in found.items():
        if not name.startswith(("image.specialists.fish.query.", "image.specialists.fish.value.")):
            assert torch.equal(value, shipped[name]), name
    name = "image.specialists.fish.value.weight"
    own = learned(run.average)["image.value.weight"].detach()
    assert torch.allclose(found[name], own, atol=0.01 * float(own.abs().max()))
    with pytest.raises(ConfigurationError, match="learned how states are told alone, received --takes map: its map is the bundled model's"):
        specialised(tmp_path, "fish", tmp_path / "map", "map")


def test_a_run_that_learns_states_has_a_last_block_for_them_beside_that_of_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is said of places changes. A further run for states goes on from that block; one for the map loses what it read."""
    plain, own = bundled_model(), "image.specialists.plant."
    reads = {name: replace(each, sighted=False) for name, each in plain.image.readers.items()}
    plain = rebuilt(plain, {}, readers=reads)
    monkeypatch.setattr("training.export.bundled_model", lambda: plain)
    run = begun_with_the_bundled(tmp_path, "plant", "states")
    assert {name for name, weight in run.weights.items() if weight} == {*OF_IMAGES, "states", "foreign"}
    before = {name: value.clone() for name, value in run.trainee.neck.state_dict().items()}
    assert changed_by_a_step(run) == {"neck", "parts", "query", "value"}
    changed = {name for name, value in run.trainee.neck.state_dict().items() if not torch.equal(value, before[name])}
    assert {name[: len("fine.1")] for name in changed} == {"fine.1"}, "norms of the others stand still as well"
    assert float(run.advance()["total of fish"]) < 0.5, "what is foreign to leaves is all that other pictures say"
    # Far enough from what it began with.
    for parameter in (run.average.value.weight, run.average.query.weight, run.average.neck.last.wide[0].weight):  # type: ignore[index]
        with torch.no_grad():
            parameter += 0.3 * parameter.abs().max() * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    run.save()

    def written(folder: str, run: Path = tmp_path, **given: Any) -> lite.LiteModel:
        specialised(run, "plant", tmp_path / folder, **given)
        model = lite.make(tmp_path / folder, folder).model
        assert isinstance(model, lite.LiteModel)
        return model

    def near(one: torch.Tensor, other: torch.Tensor) -> bool:
        return torch.allclose(one, other, atol=0.02 * float(other.abs().max()))

    model, taken, shipped = written("model"), learned(run.average), plain.state_dict()
    assert model.image.readers == {**reads, "plant": replace(reads["plant"], sighted=True)}
    found = model.state_dict()
    for name, value in shipped.items():
        if not name.startswith((f"{own}query.", f"{own}value.")):
            assert torch.equal(found[name], value), name
    sight, last = f"{own}sight.wide.weight", "neck.fine.1.wide.weight"
    for there, here, was in ((sight, last, f"{own}{last}"), (f"{own}value.weight", "value.weight", f"{own}value.weight")):
        assert near(found[there], taken[f"image.{here}"].detach())
        assert not near(found[there], shipped[was])
    share = written("share", share=0.25).state_dict()[sight]
    assert near(share, 0.25 * taken[f"image.{last}"].detach() + 0.75 * shipped[f"{own}{last}"])
    assert written("heard", heard=0.75).image.readers["plant"] == replace(reads["plant"], sighted=True, heard=0.75)
    for takes, said in (("map", "its map is the bundled model's"), ("reading", "no other block makes what it reads. Leave out --takes")):
        with pytest.raises(ConfigurationError, match=said):
            written("none", takes=takes)
    moved = rebuilt(plain, {f"{own}neck.lateral.8.weight": shipped[f"{own}neck.lateral.8.weight"] * 1.5})
    monkeypatch.setattr("training.export.bundled_model", lambda: moved)
    with pytest.raises(ConfigurationError, match=r"another neck than the bundled model's for plant \(image\.neck\.lateral\.8"):
        written("none")

    monkeypatch.setattr("training.export.bundled_model", lambda: model)
    leaf = model.image.specialists["plant"]
    assert isinstance(leaf, Specialist)
    for learns in ("reading", "states", "map", "group"):
        more = small_run(tmp_path / learns, run.config.worlds, run.config, learn=learns)
        more.start_from_model(model, list(run.config.worlds))
        with torch.no_grad():
            maps = more.trunk(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0)
            x = leaf.neck.before_last(maps)
            wanted = {"map": model.image.neck(maps), "group": leaf.neck(maps)}.get(learns, leaf.sees(x))
            assert torch.allclose(more.average.neck(maps), wanted, atol=2e-3 * float(wanted.abs().max())), learns
        if learns == "group":
            first = list(run.config.worlds).index("plant") * TrainConfig().queries
            queries = slice(first, first + TrainConfig().queries)
            assert torch.equal(more.trainee.query.weight, model.image.query.weight[queries]), "its own are for another block"
        more.save()
        then = written(f"{learns} model", tmp_path / learns)
        assert {name: reader.sighted for name, reader in then.image.readers.items() if name == "plant"} == {
            "reading": {"plant": True},
            "states": {"plant": True},
            "map": {},
            "group": {"plant": False},
        }[learns]
        if learns == "reading":
            assert torch.equal(then.state_dict()[sight], found[sight])
    for given in ({"takes": "reading"}, {"share": 0.5}):
        with pytest.raises(ConfigurationError, match="plant is read through a last block of its own, and the run has another"):
            written("none", tmp_path / "group", **given)
    with pytest.raises(ConfigurationError, match=r"received --heard 0\.75, and plant has no reading of its own"):
        written("none", tmp_path / "map", heard=0.75)
    other = {name: value + 0.3 * value.abs().max() for name, value in found.items() if name == sight}
    monkeypatch.setattr("training.export.bundled_model", lambda: rebuilt(model, other))
    with pytest.raises(ConfigurationError, match=r"another neck than the bundled model's for plant \(image\.neck\.fine\.1\.wide"):
        written("none", tmp_path / "reading")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("learn", "pointed"), [("states", False), ("reading", False), ("group", True)])
def test_a_map_that_is_not_written_is_not_checked(learn: str, pointed: bool, tmp_path: Path) -> None:
    found = check(begun_with_the_bundled(tmp_path, "plant", learn), "plant", 2, (64, 64))
    assert ("pointing" in found) == ("pointing alone" in found) == pointed
    assert any(name.endswith(" contrasted") for name in found) == pointed
    assert found["accuracy"] == pytest.approx(np.mean([found[name] for name in WORLDS["plant"].characters if name in found]))


def test_a_run_for_a_group_without_a_reading_begins_with_the_queries_that_it_has_of_all(tmp_path: Path) -> None:
    worlds = {name: 2 if name == "lepidoptera" else 1 for name in TrainConfig().worlds}
    run = small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 96),)), learn="group")
    shipped, groups = shipped_model()
    assert "lepidoptera" not in shipped.image.readers
    run.start_from_model(shipped, groups)
    place = list(groups).index("lepidoptera") * TrainConfig().queries
    assert torch.equal(run.trainee.query.weight, shipped.image.query.weight[place : place + TrainConfig().queries])


def test_some_queries_of_a_value_say_what_all_say_when_the_others_see_nothing() -> None:
    torch.manual_seed(0)
    whole, few = Value(READING), Value(replace(READING, queries=1))
    for layer in (whole.beside, whole.reading):
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
    torch.nn.init.zeros_(whole.reading.own_bias)
    few.load_state_dict(of_queries(whole.state_dict(), READING.queries, slice(1, 2)))
    seen = torch.zeros(3, READING.queries, 2 * READING.seen)
    seen[:, 1] = torch.randn(3, 2 * READING.seen)
    assert torch.allclose(few(seen[:, 1:2]), whole(seen), atol=1e-3)


@pytest.mark.parametrize("world", ["plant", "fish"])
def test_what_is_said_of_whole_pictures_of_other_groups_is_no_matter_to_a_run_for_one(tmp_path: Path, world: str) -> None:
    """Its queries are those of its group alone."""
    worlds = {"fish": 1, "plant": 1} | {world: 2}
    run = small_run(tmp_path, worlds, replace(smoke_config(TrainConfig()), worlds=worlds, sides=((64, 96),)), learn="group")
    for name in run.weights:
        run.weights[name] = 1.0 if name in OF_IMAGES else 0.0
    found = run.advance()
    assert float(found[f"total of {world}"]) > 0.0
    assert float(found[f"total of {'fish' if world == 'plant' else 'plant'}"]) == 0.0


def test_a_run_goes_on_with_what_it_learned_so_far(tmp_path: Path) -> None:
    small_run(tmp_path, learn="map").save()
    assert small_run(tmp_path, learn="map").step == 0
    with pytest.raises(DataError, match=r"was begun with --learn map, received --learn all: .* Go on with --learn map, or choose another"):
        small_run(tmp_path)


def test_a_run_that_learned_words_is_no_specialist(tmp_path: Path) -> None:
    worlds = dict.fromkeys(TrainConfig().worlds, 1)
    run = small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 64),)))
    run.save()
    with pytest.raises(ConfigurationError, match=r"the run has other words than the bundled model .*--start-from bundled and --learn map"):
        specialised(tmp_path, "plant", tmp_path / "model")
    with pytest.raises(ConfigurationError, match="knows no group 'bird': expected one of fish, lepidoptera, beetle, plant"):
        specialised(tmp_path, "bird", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_neck_is_of_the_group_that_its_run_saw_most_of(tmp_path: Path) -> None:
    begun_with_the_bundled(tmp_path, "beetle", "map").save()
    with pytest.raises(
        ConfigurationError, match=r"drew 1 of fish, 1 of lepidoptera, 2 of beetle, 1 of plant, .*Name beetle, or a run of plant"
    ):
        specialised(tmp_path, "plant", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    specialised(tmp_path, "beetle", tmp_path / "model")


def test_the_queries_of_a_run_for_one_group_are_no_other_groups(tmp_path: Path) -> None:
    """Of groups that are drawn alike, the first one is learned."""
    worlds = dict.fromkeys(TrainConfig().worlds, 1)
    run = small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 64),)), learn="group")
    run.start_from_model(*shipped_model())
    assert run.own == "fish"
    run.save()
    with pytest.raises(ConfigurationError, match=r"received --specialist plant: .*Name fish, or a run of plant"):
        specialised(tmp_path, "plant", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("width", ["hidden", "parts_dim", "text_hidden"])
def test_a_run_of_other_widths_is_no_specialist(width: str, tmp_path: Path) -> None:
    worlds = dict.fromkeys(TrainConfig().worlds, 1)
    small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 64),), **{width: 10})).save()
    with pytest.raises(ConfigurationError, match=r"other widths than the bundled model .*--start-from bundled and --learn map"):
        specialised(tmp_path, "plant", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("beside", [[], ["--smoke"]])
def test_a_map_is_not_learned_for_words_that_are_not_there(
    beside: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They stand still, and those of a fresh run are random numbers."""
    monkeypatch.setattr("sys.argv", ["train", "--folder", str(tmp_path / "own"), "--learn", "map", *beside])
    with pytest.raises(SystemExit):
        train_main()
    assert "--learn map is for words that stand still, and a new run has none yet" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [(("--takes", "map"), "--takes says what a specialist takes of a run"), (("--heard", "0.75"), "--heard says how much is heard of a")],
)
def test_what_a_specialist_takes_is_said_of_specialists_alone(
    given: tuple[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["export", "--run", str(tmp_path), *given, "--output", str(tmp_path / "model")])
    with pytest.raises(SystemExit):
        export_main()
    err = capsys.readouterr().err
    assert said in err
    assert "give --specialist as well" in err


@pytest.mark.parametrize("beside", [[], ["--run", ".", "--run", "."], ["--run", ".", "--nouns", "."]])
def test_a_specialist_is_written_of_one_run_alone(
    beside: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["export", "--specialist", "plant", *beside, "--output", str(tmp_path / "model")])
    with pytest.raises(SystemExit):
        export_main()
    assert "give one --run, --specialist and --output alone" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("group", ["lepidoptera", "plant"])
def test_a_share_of_a_reading_is_mixed_with_what_read_the_group_before(group: str, tmp_path: Path) -> None:
    """Butterflies have no reader yet: theirs is mixed with the shared queries that they have."""
    run = begun_with_the_bundled(tmp_path, group, "group")
    for trainee in (run.trainee, run.average):
        torch.nn.init.normal_(trainee.value.weight)
        torch.nn.init.normal_(trainee.query.weight)
        assert trainee.value.reading is not None
        torch.nn.init.normal_(trainee.value.reading.own, std=0.1)
    run.save()
    specialised(tmp_path, group, tmp_path / "whole")
    specialised(tmp_path, group, tmp_path / "share", share=0.25)
    own, found = (lite.make(tmp_path / each, each).model.state_dict() for each in ("whole", "share"))
    shipped = bundled_model()
    before = shipped.state_dict()
    queries = shipped.sizes.queries // len(shipped.image.groups)
    first = shipped.image.groups.index(group) * queries
    for name, shared in (
        ("query.weight", before["image.query.weight"][first : first + queries]),
        ("value.weight", before["image.value.weight"].unflatten(1, (shipped.sizes.queries, -1))[:, first : first + queries].flatten(1)),
        ("value.reading.own", before["image.value.reading.own"][first : first + queries]),
    ):
        full = f"image.specialists.{group}.{name}"
        was = before.get(full, shared)
        assert not torch.allclose(own[full], was, atol=1e-3), name
        gap = (found[full] - (0.25 * own[full] + 0.75 * was)).abs().max()
        assert gap < 0.03 * max(float(own[full].abs().max()), float(was.abs().max())), name


@pytest.mark.parametrize("group", ["fish", "plant"])
def test_a_share_of_a_neck_is_mixed_with_the_one_that_read_the_group_before(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = bundled_model()
    if group == "fish":  # As if it had no neck of its own yet.
        others = tuple(name for name in shipped.image.specialists if name != group)
        shipped = rebuilt(shipped, {}, specialists=others)
        monkeypatch.setattr("training.export.bundled_model", lambda: shipped)
    begun_with_the_bundled(tmp_path, group, "map").save()
    specialised(tmp_path, group, tmp_path / "whole", "map")
    specialised(tmp_path, group, tmp_path / "share", "map", 0.25)
    name = f"image.specialists.{group}.parts.weight"
    own, found = (lite.make(tmp_path / each, each).model.state_dict()[name] for each in ("whole", "share"))
    before = shipped.state_dict()["image.parts.weight" if group == "fish" else name]
    assert not torch.allclose(own, before, atol=1e-3)
    assert torch.allclose(found, 0.25 * own + 0.75 * before, atol=0.02 * float(before.abs().max()))


@torch.no_grad()
def test_whether_a_fin_is_there_is_told_as_if_fishes_had_no_reading_of_their_own() -> None:
    """Whatever that reading says: it is made another one here. Texts and pictures as they are asked."""
    own, name = bundled_model(), "image.specialists.fish.value.weight"
    value = own.state_dict()[name]
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    own = rebuilt(own, {name: value + 10.0 * noise * value.std()})
    shared = rebuilt(own, {}, readers={name: count for name, count in own.image.readers.items() if name != "fish"})
    fish = WORLDS["fish"]
    pictures = (fish.render(fish.sample(6, 17, view="whole", empty=0.0), (96, 160)).images.float() - 127.0) / 128.0
    said = [F.normalize(each.image.image(each.image.read(pictures)), dim=-1) for each in (own, shared)]
    pack, embed = load_pack("fish"), embedder(own, (BUNDLED / lite.TOKENIZER).read_text(encoding="utf-8"))
    known = {character.name: character for character in pack.characters}

    def spoken(templates: tuple[str, ...], phrases: tuple[str, ...]) -> torch.Tensor:
        texts = embed([text.replace("{}", phrase) for text in templates for phrase in phrases])
        return own.joint(texts, own.image.nouns.text(texts)).mean(0)

    def apart(one: torch.Tensor, other: torch.Tensor) -> float:
        answers = [own.logit_scale.exp() * each @ (one - other) for each in said]
        return float((answers[0] - answers[1]).abs().max())

    alone = spoken(pack.host_templates, pack.host_phrases)
    for name in fish.presences:
        there = spoken(pack.templates_of(known[name]), known[name].state("present").phrases)
        assert apart(there, alone) < 0.1, name
    tails = [spoken(("{}",), known["caudal_fin_shape"].state(name).phrases) for name in ("forked", "rounded")]
    assert apart(*tails) > 0.5


def test_the_bundled_fishes_hold_each_part_that_may_be_absent_and_leaves_hold_none() -> None:
    readers = bundled_model().image.readers
    assert readers["fish"].held == len(WORLDS["fish"].presences) + 1
    assert WORLDS["plant"].presences == ()
    assert readers["plant"].held == 0


@pytest.mark.parametrize("group", ["lepidoptera", "beetle"])
def test_how_a_run_tells_states_is_taken_without_its_map(group: str, tmp_path: Path) -> None:
    run = begun_with_the_bundled(tmp_path, group, "group")
    for trainee in (run.trainee, run.average):
        for parameter in (*trainee.parts.parameters(), *trainee.query.parameters()):
            torch.nn.init.normal_(parameter)
    run.save()
    specialised(tmp_path, group, tmp_path / "whole")
    specialised(tmp_path, group, tmp_path / "reading", "reading")
    whole, found = (lite.make(tmp_path / each, each).model.state_dict() for each in ("whole", "reading"))
    before, own = bundled_model().state_dict(), f"image.specialists.{group}."
    assert not torch.equal(whole[f"{own}parts.weight"], before[f"{own}parts.weight"])
    assert whole.keys() == found.keys() >= before.keys()
    assert len(found[f"{own}held"]) == len(WORLDS[group].presences) + 1
    for name, value in found.items():
        reads = name.startswith((f"{own}query.", f"{own}value.", f"{own}held"))
        assert torch.equal(value, (whole if reads else before)[name]), name


def test_a_run_of_the_map_tells_no_states(tmp_path: Path) -> None:
    begun_with_the_bundled(tmp_path, "plant", "map").save()
    with pytest.raises(ConfigurationError, match=r"learned the map alone, received --takes reading: it tells no states"):
        specialised(tmp_path, "plant", tmp_path / "model", "reading")
    assert not (tmp_path / "model").exists()


def test_a_run_of_other_widths_or_groups_cannot_start_from_the_bundled_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="draws fish, the model was trained for fish, lepidoptera, beetle, plant, each"):
        small_run(tmp_path).start_from_model(*shipped_model())
    worlds = dict.fromkeys(TrainConfig().worlds, 1)
    narrow = small_run(tmp_path, worlds, replace(TrainConfig(), worlds=worlds, sides=((64, 64),), hidden=64))
    with pytest.raises(ValueError, match=r"has hidden 192, this run hidden 64: train with the widths that it was trained with"):
        narrow.start_from_model(*shipped_model())
    with pytest.raises(ConfigurationError, match=r"other widths than the bundled model .*Leave out --share"):
        mixed(learned(narrow.average), shipped_model()[0].state_dict(), 0.5)


def test_weights_are_mixed_by_share() -> None:
    own, other = {"a": torch.tensor([4.0, 8.0])}, {"a": torch.tensor([0.0, 4.0]), "b": torch.ones(3)}
    found = mixed(own, other, 0.25)
    assert list(found) == ["a"]
    assert found["a"].tolist() == [1.0, 5.0]
    assert mixed(own, other, 1.0)["a"].tolist() == [4.0, 8.0]


def test_several_runs_are_written_as_their_mean() -> None:
    runs = [{"a": torch.tensor([4.0, 8.0])}, {"a": torch.tensor([0.0, 1.0])}, {"a": torch.tensor([2.0, 0.0])}]
    assert averaged(runs)["a"].tolist() == [2.0, 3.0]
    assert averaged(runs[:1])["a"].tolist() == [4.0, 8.0]
    with pytest.raises(ConfigurationError, match="run 3 has other widths than the first: only runs that began with one model"):
        averaged([*runs[:2], {"a": torch.ones(3)}])
    with pytest.raises(ConfigurationError, match="run 2 has other widths"):
        averaged([runs[0], {"b": torch.ones(2)}])


def test_runs_of_different_groups_are_not_written_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []
    for name, worlds in (("one", {"fish": 1}), ("two", {"beetle": 1})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"worlds": worlds}), encoding="utf-8")
        given += ["--run", str(tmp_path / name)]
    monkeypatch.setattr("sys.argv", ["export", *given, "--output", str(tmp_path / "model")])
    with pytest.raises(SystemExit):
        export_main()
    assert "the runs drew pictures of different groups" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("beside", [["--run", "."], ["--nouns", "."], ["--text", "."], ["--share", "0.5"], ["--sentences", "."]])
def test_the_gate_is_fitted_on_of_the_bundled_model_alone(
    beside: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.export.regated", lambda output: None)
    monkeypatch.setattr("sys.argv", ["export", "--gate", *beside, "--output", str(tmp_path / "model")])
    with pytest.raises(SystemExit):
        export_main()
    assert "--gate is for the bundled model as it is" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_gate_fitted_on_is_all_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.export.fit_gate", partial(fit_gate, steps=60))
    monkeypatch.setattr("training.export.every_wording", lambda worlds: wordings(["lepidoptera"], draws=2))
    monkeypatch.setattr("training.export.things", lambda: ["cup", "dog"])
    monkeypatch.setattr("sys.argv", ["export", "--gate", "--output", str(tmp_path / "model")])
    export_main()
    before, after = bundled_model().state_dict(), lite.make(tmp_path / "model", "after").model.state_dict()
    assert {name for name, value in before.items() if not torch.equal(value, after[name])} - {lite.HOSTS} == {
        f"joint.gate_{layer}.{kind}" for layer in ("first", "second") for kind in ("weight", "bias")
    }
    assert (tmp_path / "model" / lite.KNOWN).read_bytes() == (BUNDLED / lite.KNOWN).read_bytes()
    assert json.loads((tmp_path / "model" / lite.CONFIG).read_text()) == json.loads((BUNDLED / lite.CONFIG).read_text())


@pytest.mark.parametrize("content", [b"hi", b"", b"PK\x03\x04", "without", "list"])
def test_a_start_from_what_is_no_checkpoint_is_refused(content: bytes | str, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save({"step": 3} if content == "without" else [1], file)
    run = small_run(tmp_path / "run")
    with pytest.raises(DataError, match="is no checkpoint of a run of this script, or is damaged") as refused:
        run.start_from(tmp_path)
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match="holds no wordings and embeddings") as wordless:
        load_sentences(file, ["fish"])
    assert not any("weights_only" in str(error.value) for error in (refused, wordless))  # Torch's advice is about its own options.
    if isinstance(content, bytes):
        with pytest.raises(DataError, match="holds no weights of a backbone, or is damaged"):
            load_trunk(file)


@pytest.mark.parametrize(
    "value",
    [
        "warmup=0", "reuse=0", "queries=0", "phrases=0", "seed=-1", "twins=5", "twins=0.6", "decay=2", "ema=1", "left_out=1", "steps=0",
        "learning_rate=nan", "learning_rate=0", "weights.fine=-1", "weights.fine=inf", "worlds.fish=-3", "logit_scale=inf",
    ],
)  # fmt: skip
def test_numbers_with_which_nothing_can_be_trained_are_refused(value: str) -> None:
    name = value.partition("=")[0]
    with pytest.raises(ValueError, match=rf"received {name}="):
        changed(TrainConfig(), [value])


def test_a_run_without_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="no pictures of any group"):
        changed(TrainConfig(), [f"worlds.{name}=0" for name in TrainConfig().worlds])


def test_a_group_may_have_one_picture_a_step() -> None:
    mixer = Mixer(replace(smoke_config(TrainConfig()), worlds={"beetle": 1, "plant": 2}, sides=((64, 64),)), workers=0)
    assert [[len(each) for each in next(mixer)] for _ in range(4)] == [[1, 2]] * 4
