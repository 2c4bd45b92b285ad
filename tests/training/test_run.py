from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training import tokenizer
from training.config import TrainConfig, class_token_config
from training.model import encode_resnet
from training.run import Run, export, learning_rate_at, train

from concept_cam import Localizer
from concept_cam.backbones.torchvision_compat import import_open_clip
from tests.training.tiny import TINY


def test_learning_rate_rises_holds_and_falls() -> None:
    config = TrainConfig(steps=100, warmup=10, decay=0.3, learning_rate=1.0)
    rates = [learning_rate_at(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == rates[69] == 1.0
    assert rates[85] == pytest.approx(0.5)
    assert rates[100] == 0.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(TINY, tmp_path_factory.mktemp("run"), workers=0)
    train(run, log_every=2, save_every=2, report=lambda text: None)
    return run


def test_a_run_writes_curves_and_resumes_where_it_stopped(finished: Run) -> None:
    rows = (finished.folder / "losses.csv").read_text().splitlines()
    assert rows[0].split(",")[0] == "step"
    assert [row.split(",")[0] for row in rows[1:]] == ["2", "4"]
    again = Run(TINY, finished.folder, workers=0)
    assert again.step == 4
    for one, other in zip(finished.average.state_dict().values(), again.average.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_runs_are_reproducible_from_the_seed(tmp_path: Path) -> None:
    totals = []
    for name in ("a", "b"):
        run = Run(dataclasses.replace(TINY, steps=2), tmp_path / name, workers=0)
        totals.append([run.advance()["total"] for _ in range(2)])
        run.close()
    assert totals[0] == pytest.approx(totals[1], rel=1e-3)


def test_another_vocabulary_is_refused(finished: Run, tmp_path: Path) -> None:
    state = torch.load(finished.folder / "checkpoint.pt", weights_only=True)
    torch.save(state | {"vocabulary": ["cow"]}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="another vocabulary"):
        Run(TINY, tmp_path, workers=0)


@torch.no_grad()
def test_the_export_loads_in_stock_open_clip(finished: Run, tmp_path: Path) -> None:
    export(finished, tmp_path)
    open_clip = import_open_clip()
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}", require_pretrained=True)
    model.eval()
    read = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    texts = ["A photo of a fish's forked tail-fin!", "the operculum of a fish", "a purple cow"]
    tokens = read(texts)
    assert tokens.tolist() == tokenizer.encode(finished.tokenizer, texts)
    assert (tokens[2] == 1).sum() == 2
    x = torch.randn(2, 3, 128, 128)
    mine, _ = encode_resnet(finished.average.clip.visual.eval(), x)
    torch.testing.assert_close(model.encode_image(x), mine, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(model.encode_text(tokens), finished.average.clip.encode_text(tokens), atol=2e-2, rtol=2e-2)
    settings = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert settings["model_cfg"]["text_cfg"]["vocab_size"] == len(finished.vocabulary) + 4


def test_an_export_may_keep_a_share_of_the_weights_that_the_run_began_with(finished: Run, tmp_path: Path) -> None:
    export(finished, tmp_path / "start")
    run = Run(dataclasses.replace(TINY, seed=5), tmp_path / "run", workers=0, start_from=tmp_path / "start")
    run.average.clip.visual.attnpool.c_proj.bias.data += 1.0
    export(run, tmp_path / "end")
    export(run, tmp_path / "between", keep=0.25)
    start, end, between = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("start", "end", "between"))
    name = "visual.attnpool.c_proj.bias"
    torch.testing.assert_close(between[name].float(), 0.25 * start[name].float() + 0.75 * end[name].float(), atol=2e-3, rtol=0)
    assert (end[name] - start[name]).mean() == pytest.approx(1.0, abs=1e-2)
    for key, value in between.items():
        torch.testing.assert_close(
            value,
            torch.lerp(end[key].float(), start[key].float(), 0.25).to(value.dtype) if value.is_floating_point() else end[key],
            atol=1e-3,
            rtol=1e-2,
        )
    with pytest.raises(ValueError, match="keep a share of"):
        export(finished, tmp_path / "none", keep=0.5)


def test_a_vit_trains_too(tmp_path: Path) -> None:
    run = Run(class_token_config(TINY), tmp_path, workers=0)
    terms = run.advance()
    assert np.isfinite(terms["total"])
    assert "patch" not in terms
    export(run, tmp_path / "model")
    localizer = Localizer.from_pretrained(str(tmp_path / "model"))
    found = localizer.locate(np.zeros((96, 96, 3), np.uint8), "a forked tail fin", ["a rounded tail fin"])
    assert found.scores.shape == (12, 12)


@pytest.mark.slow
def test_the_script_learns_in_two_minutes(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "training" / "train.py"
    assert script.is_file()
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
    first, *_, last = csv.DictReader((tmp_path / "losses.csv").open(encoding="utf-8"))
    # Where a map is highest is not learnt so soon: the total would hide what is.
    for term in ("image", "patch"):
        assert float(last[term]) < 0.9 * float(first[term])
    assert (tmp_path / "model" / "open_clip_model.safetensors").is_file()
