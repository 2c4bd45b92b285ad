"""Training of the small CLIP: its parts against slow restatements, and that a short run learns."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from concept_cam.backbones.torchvision_compat import import_open_clip
from concept_cam.demo import captions as writing
from concept_cam.demo import tokenizer, training, world
from concept_cam.demo.captions import FALSE, TRUE, UNKNOWN
from concept_cam.demo.traits import CHARACTERS, MASKS, PARTS, PRESENCE_CHARACTERS

TINY = training.TrainConfig(
    width=8,
    embed_dim=32,
    steps=4,
    phases=((1.0, ((64, 1.0),)),),
    region_sizes=(64,),
    regions=3,
    batch=2,
    warmup=1,
    reuse=2,
    ema=0.9,
)


@pytest.fixture(scope="module")
def clip() -> torch.nn.Module:
    model = training.build_model(TINY, 60).eval()
    # Fresh batch-norm scales of zero would hide the residual branch.
    for module in model.visual.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (1, 2, 2, 1)])
@torch.no_grad()
def test_fine_features_hold_the_stock_ones(layers: tuple[int, int, int, int]) -> None:
    visual = training.build_model(dataclasses.replace(TINY, layers=layers), 60).visual.eval()
    x = torch.randn(2, 3, 128, 128)
    stock = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))
    fine = training.fine_features(visual, x)
    assert fine.shape[-2:] == (7, 7)
    torch.testing.assert_close(fine[..., ::2, ::2], stock)


@torch.no_grad()
def test_fine_features_between_are_those_of_the_shifted_picture(clip: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 256, 256)
    fine = training.fine_features(clip.visual, x)
    shifted = training.fine_features(clip.visual, x[..., 16:, 16:])
    # Away from the borders, whose zero padding differs.
    torch.testing.assert_close(fine[..., 6:9, 6:9], shifted[..., 5:8, 5:8], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_embeddings_are_those_of_stock_open_clip(clip: torch.nn.Module) -> None:
    x = torch.randn(3, 3, 128, 128)
    pooled, patches = training.encode_resnet(clip.visual, x)
    torch.testing.assert_close(pooled, clip.encode_image(x), atol=1e-5, rtol=1e-4)
    assert patches.shape == (3, 7, 7, 32)
    tokens = torch.zeros(2, tokenizer.CONTEXT_LENGTH, dtype=torch.long)
    tokens[0, :4] = torch.tensor([58, 5, 6, 59])
    tokens[1, :3] = torch.tensor([58, 9, 59])
    torch.testing.assert_close(
        training.encode_text(clip, tokens), clip.encode_text(tokens), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_patches_are_the_value_path_of_each_patch_alone(clip: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 64, 64)
    _, patches = training.encode_resnet(clip.visual, x)
    alone = training.fine_features(clip.visual, x)[..., 1:2, 2:3]
    # Attention over one patch, whose mean is itself, gives its value.
    torch.testing.assert_close(
        patches[:, 1, 2], training.attention_pool(clip.visual.attnpool, alone), atol=1e-5, rtol=1e-4
    )


def test_soft_maximum_lies_between_mean_and_maximum() -> None:
    logits = torch.randn(4, 9, 5) * 6
    found = training.soft_maximum(logits, 1)
    assert (found <= logits.amax(1) + 1e-6).all()
    assert (found >= logits.mean(1)).all()
    torch.testing.assert_close(training.soft_maximum(torch.full((1, 3), 2.0), 1), torch.tensor([2.0]))


def test_soft_maximum_within_windows_restated() -> None:
    torch.manual_seed(4)
    logits, inside = torch.randn(2, 6, 3) * 20, torch.rand(2, 4, 6) < 0.5
    inside[:, 0], inside[1, 3] = True, False
    found = training.soft_maximum_within(logits, inside)
    for b in range(2):
        for k in range(4):
            rows = logits[b, inside[b, k]]
            wanted = training.soft_maximum(rows, 0) if len(rows) else torch.zeros(3)
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
    assert float(training.truth_loss(logits, truth)) == pytest.approx(total / weights, rel=1e-5)


def test_losses_ignore_unknown_pairs_and_survive_none_known() -> None:
    truth = torch.full((2, 3), UNKNOWN, dtype=torch.int8)
    assert float(training.truth_loss(torch.randn(2, 3), truth)) == 0.0
    assert float(training.rank_loss(torch.randn(2, 3), truth)) == 0.0
    truth[0, 0] = TRUE
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    other = logits.clone()
    other[1, 2] = 50.0
    assert training.truth_loss(logits, truth) == training.truth_loss(other, truth)


def test_rank_loss_wants_true_captions_above_the_host() -> None:
    truth = torch.tensor([[TRUE, FALSE]], dtype=torch.int8)
    assert training.rank_loss(torch.tensor([[3.0, -3.0]]), truth) < training.rank_loss(
        torch.tensor([[-3.0, 3.0]]), truth
    )


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
    found = training.sibling_loss(logits, margins, torch.from_numpy(states), torch.from_numpy(judgeable))
    assert float(found) == pytest.approx(np.mean(expected))
    nothing = training.sibling_loss(
        logits, margins, torch.from_numpy(states), torch.zeros(6, len(sizes), dtype=torch.bool)
    )
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
    assert float(training.part_loss(scores.flatten(0, 1), values.flatten(0, 1))) == pytest.approx(
        np.mean(parts)
    )
    assert float(training.place_loss(scores, values)) == pytest.approx(np.mean(places))
    assert float(training.place_loss(scores, torch.full((2, 3, 4), UNKNOWN))) == 0.0


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
    assert torch.isclose(training.neutral_loss(families, hidden), torch.stack(terms).mean(), atol=1e-6)
    # Equal siblings are neutral whatever their level, and what can be seen is free.
    level = torch.randn(2, 4, 1).expand(-1, -1, 3)
    assert training.neutral_loss([level], torch.ones(2, 4, 1, dtype=torch.bool)).abs() < 1e-6
    assert training.neutral_loss([families[0]], torch.zeros(2, 4, 1, dtype=torch.bool)) == 0


def test_families_are_hidden_where_none_of_their_parts_is_in_the_frame() -> None:
    in_frame = np.zeros((3, len(MASKS)), dtype=bool)
    in_frame[1, MASKS.index("caudal_fin")] = True
    in_frame[2, MASKS.index("trunk")] = True
    hidden = training.hidden_families(in_frame)
    names = list(training.FAMILIES)
    assert hidden.shape == (3, len(names))
    assert hidden[0].all()
    seen = {row: {name for name, gone in zip(names, hidden[row], strict=True) if not gone} for row in (1, 2)}
    assert seen[1] == {"caudal_fin_shape", "parts"}
    assert seen[2] == {"body_shape", "pattern", "body_colour", "parts"}


def test_family_logits_average_the_captions_of_each_sibling() -> None:
    writer = writing.CaptionWriter()
    facts = training.facts_of(
        world.sample(6, 11, view="whole"), world.render(world.sample(6, 11, view="whole"), 64)
    )
    chosen = writer.batch(np.random.default_rng(0), facts)
    scores = torch.randn(2, 5, len(chosen))
    lesson = dataclasses.make_dataclass("Part", ["average", "parts"])(
        training.claim_average(chosen, training.STATES), training.claim_average(chosen, training.PLACES)
    )
    found = dict(zip(training.FAMILIES, training.family_logits(scores, lesson), strict=True))
    for name, values in {**CHARACTERS, "parts": PARTS}.items():
        if name in PRESENCE_CHARACTERS:
            assert name not in found
            continue
        assert found[name].shape == (2, 5, len(values))
        for s, value in enumerate(values):
            claim = (
                writing.Statement("part", value)
                if name == "parts"
                else writing.Statement("state", name, value)
            )
            rows = [n for n, caption in enumerate(chosen) if caption.statements == (claim,)]
            assert rows, f"no caption says {name} {value}"
            assert torch.allclose(found[name][..., s], scores[..., rows].mean(-1), atol=1e-5)


def test_claim_average_takes_single_claims_only() -> None:
    forked = writing.Statement("state", "caudal_fin_shape", "forked")
    other = writing.Statement("state", "barbels", "present")
    texts = [
        writing.Caption("a", (forked,)),
        writing.Caption("b", (forked, other)),
        writing.Caption("c", (forked,)),
    ]
    matrix = training.claim_average(texts, training.STATES)
    assert matrix[training.STATES.index(forked)].tolist() == [0.5, 0.0, 0.5]
    assert float(matrix.sum()) == 1.0


def test_twins_differ_from_their_originals_in_one_state() -> None:
    specimens = world.sample(24, 5)
    twins = training.make_twins(specimens, np.random.default_rng(0))
    assert ((twins.states != specimens.states).sum(1) == 1).all()
    assert (twins.focus == specimens.focus).all()


def test_the_plan_is_deterministic_and_pictures_never_repeat() -> None:
    config = training.TrainConfig(steps=40, reuse=1)

    def jobs() -> list[training.Job]:
        plan = training.plan(config)
        return [next(plan) for _ in range(40)]

    first = jobs()
    assert first == jobs()
    assert {job.size for job in first[:10] if not job.regions} <= {64, 96}
    assert {job.size for job in first[30:] if not job.regions} <= {96, 128, 160}
    assert {job.size for job in first if job.regions} == set(training.TrainConfig().region_sizes)
    assert any(job.windows for job in first)
    ends = [job.start + job.count for job in first]
    assert [job.start for job in first[1:]] == ends[:-1]


@pytest.mark.parametrize(("windows", "regions", "pictures"), [(0, 0, 6), (2, 0, 18), (0, 4, 6)])
def test_jobs_are_reproducible_and_consistent(windows: int, regions: int, pictures: int) -> None:
    job = training.Job(64, 6, 100, 2, windows, regions)
    first, again = training.render_job(job), training.render_job(job)
    assert first.images.shape == (pictures, 3, 64, 64)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.boxes, again.boxes)
    assert first.boxes.shape == (pictures, regions, 4)
    assert len(first.regions) == pictures * regions
    for facts, same in ((first.facts, again.facts), (first.regions, again.regions)):
        assert all((getattr(facts, name) == getattr(same, name)).all() for name in writing.FACT_FIELDS)
        assert not (facts.visible & ~facts.in_frame).any()
    one = first[pictures - 1]
    assert torch.equal(one.images[0], first.images[-1])
    assert training.gather([first[i] for i in range(pictures)]).boxes.equal(first.boxes)


def test_windows_tell_what_they_hold() -> None:
    masks = torch.zeros(2, len(MASKS), 100, 100, dtype=torch.bool)
    eye, trunk, tail = (MASKS.index(part) for part in ("eye", "trunk", "caudal_fin"))
    masks[0, eye, 40:50, 40:50] = True
    masks[0, trunk, 30:70, 30:90] = True
    masks[0, tail, 30:70, 90:100] = True
    every = np.ones((2, len(MASKS)), bool)
    facts = writing.Facts(
        np.zeros((2, len(CHARACTERS)), np.int64), np.ones(2, bool), np.zeros(2, np.int64), np.ones(2, bool),
        masks.flatten(2).any(2).numpy(), masks.flatten(2).any(2).numpy(), np.ones((2, len(CHARACTERS)), bool) & every[:, :1],
    )  # fmt: skip
    found = training.facts_in_windows(facts, masks, np.array([[35, 35, 30, 30], [0, 0, 50, 50]]))
    assert found.visible[0, [eye, trunk, tail]].tolist() == [True, True, False]
    assert found.in_frame[0, [eye, trunk, tail]].tolist() == [True, True, False]
    assert found.fish.tolist() == [True, False]
    assert not found.whole.any()
    half = training.facts_in_windows(facts, masks, np.array([[40, 45, 40, 40], [0, 0, 9, 9]]))
    assert (half.visible[0, eye], half.in_frame[0, eye]) == (False, True)
    names = list(CHARACTERS)
    assert half.judgeable[0, names.index("body_colour")]
    assert not half.judgeable[0, names.index("caudal_fin_shape")]


def test_chosen_windows_lie_within_their_pictures() -> None:
    masks = torch.zeros(40, len(MASKS), 60, 80, dtype=torch.bool)
    masks[:20, 3, 50:60, 70:80] = True
    boxes = training.choose_windows(masks, np.random.default_rng(0), 0.15, 0.6)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= 60).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 80).all()
    hit = [
        bool(m[:, t : t + h, x : x + w].any())
        for m, (t, x, h, w) in zip(masks[:20], boxes[:20].tolist(), strict=True)
    ]
    assert sum(hit) >= 10


def test_cuts_show_their_windows() -> None:
    images = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    found = training.cut(images, np.array([[8, 16, 32, 32]]), 32)
    assert torch.equal(found[0], images[0, :, 8:40, 16:48])


def test_cells_and_mirrored_windows() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.2], [0.0, 0.0, 1.0, 1.0]]])
    inside = training.cells_in(boxes, 3, 7).view(1, 2, 3, 7)
    # Centres at 1/4, 2/4, 3/4 down and 1/8 ... 7/8 across.
    assert inside[0, 0].nonzero().tolist() == [[0, 0]]
    assert inside[0, 1].all()
    turned = training.mirror_boxes(boxes, torch.tensor([True]))
    assert training.cells_in(turned, 3, 7).view(1, 2, 3, 7)[0, 0].nonzero().tolist() == [[0, 6]]
    assert torch.equal(training.mirror_boxes(boxes, torch.tensor([False])), boxes)


def test_augmentation_mirrors_some_and_keeps_range() -> None:
    images = torch.zeros(16, 3, 64, 64, dtype=torch.uint8)
    images[..., :32] = 200
    found, mirrored = training.augment(images, 96, np.random.default_rng(0))
    assert found.shape == (16, 3, 96, 96)
    left_bright = found[..., :48].mean((1, 2, 3)) > found[..., 48:].mean((1, 2, 3))
    assert torch.equal(left_bright, ~mirrored)
    assert 0 < int(left_bright.sum()) < 16
    assert found.min() >= -2.0 - 1e-5
    assert found.max() <= 2.0 + 1e-5


def test_learning_rate_rises_holds_and_falls() -> None:
    config = training.TrainConfig(steps=100, warmup=10, decay=0.3, learning_rate=1.0)
    rates = [training.learning_rate_at(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == rates[69] == 1.0
    assert rates[85] == pytest.approx(0.5)
    assert rates[100] == 0.0


@pytest.mark.parametrize(("size", "stride"), [(128, 16), (128, 32), (256, 16)])
def test_grid_scores_land_on_their_pixels(size: int, stride: int) -> None:
    """A planted cell must light up where its pixels are, at every reading size."""
    full = 128
    cells = size // 16 - 1
    y, x = (2, 4)
    scores = torch.zeros(1, 1, cells, cells)
    scores[0, 0, y, x] = 1.0
    peak = int(training._to_pixels(scores, size, stride, full)[0, 0].argmax())
    centre = np.array([16 * (y + 1), 16 * (x + 1)]) * full / size
    assert np.abs(np.array([peak // full, peak % full]) + 0.5 - centre).max() <= 1.0


def test_localisation_finds_planted_parts() -> None:
    """Pointing and own-part rate are 1 when the patches hold the very parts that the masks show, and low when they are mixed up."""
    writer = writing.CaptionWriter()
    side = len(PARTS)
    masks = torch.zeros(1, len(MASKS), 16 * (side + 3), 16 * (side + 3), dtype=torch.bool)
    for p in range(side):
        masks[0, p, 16 * (p + 2) - 6 : 16 * (p + 2) + 6, 16 * (p + 2) - 6 : 16 * (p + 2) + 6] = True
    seen = np.ones((1, len(MASKS)), bool)
    specimens = world.sample(1, 0)
    facts = writing.Facts(
        specimens.states,
        np.array([True]),
        specimens.scene,
        np.array([True]),
        seen,
        seen,
        np.ones((1, specimens.states.shape[1]), bool),
    )
    checks = training.Checks(
        (torch.zeros(0), facts), torch.zeros(1, 3, *masks.shape[-2:], dtype=torch.uint8), masks, facts
    )
    order = {writer.prompts[writing.Statement("part", part)][0]: p for p, part in enumerate(PARTS)}

    class Planted(torch.nn.Module):
        arch = "planted"

    def embed(clip: object, tokens: object, texts: object) -> torch.Tensor:
        number = order.get(next(iter(texts)))  # type: ignore[call-overload]
        return torch.zeros(side + 1) if number is None else F.one_hot(torch.tensor(number), side + 1).float()

    def encode(shift: int):  # type: ignore[no-untyped-def]
        def patches(visual: object, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            grid = torch.zeros(1, side + 2, side + 2, side + 1)
            grid[..., side] = 1.0
            for p in range(side):
                grid[0, p + 1, p + 1] = F.one_hot(torch.tensor((p + shift) % side), side + 1).float()
            return torch.zeros(1, side + 1), grid

        return patches

    planted = Planted()
    planted.clip = torch.nn.Module()
    planted.clip.visual = torch.nn.Identity()
    results = []
    for shift in (0, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(training.ENCODERS, "planted", encode(shift))
            patch.setattr(training, "embed_prompts", embed)
            results.append(training.localisation(planted, None, writer, checks, masks.shape[-1], 16))
    (hits, own), (wrong, wrong_own) = results
    assert set(hits.values()) == {1.0}
    assert own == 1.0
    assert set(wrong.values()) == {0.0}
    assert wrong_own == 0.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    run = training.Run(TINY, tmp_path_factory.mktemp("run"), workers=0)
    training.train(run, log_every=2, save_every=2, report=lambda text: None)
    return run


def test_a_run_writes_curves_and_resumes_where_it_stopped(finished: training.Run) -> None:
    rows = (finished.folder / "losses.csv").read_text().splitlines()
    assert rows[0].split(",")[0] == "step"
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "4"]
    again = training.Run(TINY, finished.folder, workers=0)
    assert again.step == 4
    for one, other in zip(
        finished.average.state_dict().values(), again.average.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_runs_are_reproducible_from_the_seed(tmp_path: Path) -> None:
    totals = []
    for name in ("a", "b"):
        run = training.Run(dataclasses.replace(TINY, steps=2), tmp_path / name, workers=0)
        totals.append([run.advance()["total"] for _ in range(2)])
        run.close()
    assert totals[0] == pytest.approx(totals[1], rel=1e-3)


def test_another_vocabulary_is_refused(finished: training.Run, tmp_path: Path) -> None:
    state = torch.load(finished.folder / "checkpoint.pt", weights_only=True)
    torch.save(state | {"vocabulary": ["cow"]}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="another vocabulary"):
        training.Run(TINY, tmp_path, workers=0)


@torch.no_grad()
def test_the_export_loads_in_stock_open_clip(finished: training.Run, tmp_path: Path) -> None:
    training.export(finished, tmp_path)
    open_clip = import_open_clip()
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}", require_pretrained=True)
    model.eval()
    read = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    texts = ["A photo of a fish's forked tail-fin!", "the operculum of a fish", "a purple cow"]
    tokens = read(texts)
    assert tokens.tolist() == tokenizer.encode(finished.tokenizer, texts)
    assert (tokens[2] == 1).sum() == 2
    x = torch.randn(2, 3, 128, 128)
    mine, _ = training.encode_resnet(finished.average.clip.visual.eval(), x)
    torch.testing.assert_close(model.encode_image(x), mine, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(
        model.encode_text(tokens), finished.average.clip.encode_text(tokens), atol=2e-2, rtol=2e-2
    )
    settings = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert settings["model_cfg"]["text_cfg"]["vocab_size"] == len(finished.vocabulary) + 4


def test_a_vit_trains_too(tmp_path: Path) -> None:
    run = training.Run(
        dataclasses.replace(TINY, arch="vit", phases=((1.0, ((128, 1.0),)),)), tmp_path, workers=0
    )
    terms = run.advance()
    assert np.isfinite(terms["total"])
    assert "patch" not in terms


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown architecture"):
        training.model_config(dataclasses.replace(TINY, arch="mlp"), 10)


@pytest.mark.slow
def test_the_script_learns_in_two_minutes(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "train_demo_model.py"
    done = subprocess.run(
        [
            sys.executable,
            str(script),
            "--folder",
            str(tmp_path),
            "--smoke",
            "--threads",
            "1",
            "--device",
            "cpu",
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    rows = [row.split(",") for row in (tmp_path / "losses.csv").read_text().splitlines()]
    total = rows[0].index("total")
    assert float(rows[-1][total]) < 0.85 * float(rows[1][total])
    assert (tmp_path / "model" / "open_clip_model.safetensors").is_file()
