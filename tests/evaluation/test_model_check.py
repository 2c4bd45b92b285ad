"""A model that is loaded right passes; one that is loaded wrong, in each of the ways that raise no error, is caught."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from concept_cam.backbones import STATISTICS, load
from concept_cam.backbones.loading import from_open_clip, from_transformers
from concept_cam.backbones.spatial import SpatialBackbone
from concept_cam.cli import main
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import Settings
from concept_cam.evaluation.bundled_pictures import Captioned, fishes, photographs
from concept_cam.evaluation.model_check import CHECKS, FAILED, PASSED, SKIPPED, UNSURE, Subject, check_model
from concept_cam.pictures.preprocessing import Preprocess
from tests.backbones.models import TEXT, VIT, backbone, open_clip_model, simple_tokenizer, transformers_model, word_tokenizer
from tests.methods.models import untouched

COLOURS = {
    "red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 200), "yellow": (220, 210, 40), "white": (240, 240, 240),
    "black": (15, 15, 15), "grey": (128, 128, 128), "orange": (230, 130, 30), "pink": (240, 150, 190), "brown": (110, 70, 40),
    "purple": (120, 40, 150), "cyan": (60, 200, 210),
}  # fmt: skip
PLANTED = {"plain colours": [Captioned(np.full((24, 24, 3), rgb, np.uint8), {"en": name}) for name, rgb in COLOURS.items()]}


class Words:
    """Texts of one colour word; each is a direction of its own."""

    context_length = 4

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        return torch.eye(len(COLOURS))[[list(COLOURS).index(text) for text in prompts]]


class ColourTower(SpatialBackbone):
    """Knows colours by sight, if its pictures are normalised as OpenAI's: each cell says how near it is to every colour."""

    def __init__(self) -> None:
        mean, std = STATISTICS["OpenAI"]
        model = nn.Sequential(nn.Conv2d(3, 3, 1))
        super().__init__(
            model.eval(),
            name="colours",
            family="transformers-clip",
            preprocess=Preprocess((16, 16), (8, 8), mean, std),
            text=Words(),  # type: ignore[arg-type]
            embed_dim=len(COLOURS),
            attentions=("vanilla",),
        )
        self.attentions, self.default_attention = ("vanilla",), "vanilla"
        self.seen = torch.tensor(list(COLOURS.values())) / 255

    def cells(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in STATISTICS["OpenAI"])
        return nn.functional.avg_pool2d(pixels * std + mean, 8)

    def head(self, pooled: Tensor) -> Tensor:
        return torch.exp(-20 * (pooled[:, None] - self.seen).square().sum(dim=-1))

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return self.head(self.cells(pixels).mean(dim=(2, 3)))


def planted(**changed: Any) -> Subject:
    tower = ColourTower()
    subject = Subject(tower, replace(tower.preprocess, **changed))
    subject.sources = PLANTED  # type: ignore[misc]
    return subject


def found(subject: Subject, check: str) -> tuple[str, str]:
    with torch.no_grad():
        return CHECKS[check](subject)


def test_a_planted_model_passes_and_its_shuffled_texts_do_not() -> None:
    assert found(planted(), "texts")[0] == PASSED
    assert "100% of 12 pictures" in found(planted(), "texts")[1]
    wrong = planted()
    names = list(COLOURS)
    shifted = [Captioned(item.pixels, {"en": names[(number + 5) % 12]}) for number, item in enumerate(PLANTED["plain colours"])]
    wrong.sources = {"plain colours": shifted}  # type: ignore[misc]
    outcome, text = found(wrong, "texts")
    assert outcome == FAILED
    assert "wrong places" in text


def test_answers_that_are_no_numbers_agree_with_no_text() -> None:
    """Nothing compares with NaN: no shuffled text was as good, and the right ones had beaten them all."""
    damaged = planted()
    damaged.backbone.seen = torch.full_like(damaged.backbone.seen, float("nan"))  # type: ignore[attr-defined]
    outcome, text = found(damaged, "texts")
    assert outcome == FAILED
    assert "NaN or infinity" in text


@pytest.mark.parametrize(
    ("mean", "std"),
    [*(STATISTICS[name] for name in ("0.5", "0 to 1")), ((0.6, 0.6, 0.6), (0.27, 0.27, 0.27))],
    ids=["0.5", "0 to 1", "own"],
)
def test_a_wrong_mean_is_caught_by_what_was_published_and_by_what_pictures_say(mean: Any, std: Any) -> None:
    """Right texts still beat shuffled ones, so that texts alone would not tell."""
    wrong = planted(mean=mean, std=std)
    assert found(wrong, "texts")[0] == PASSED
    outcome, text = found(wrong, "preprocessing")
    assert outcome == UNSURE
    assert "but with OpenAI" in text
    outcome, text = found(wrong, "other statistics")
    assert outcome == FAILED
    assert "prepared with OpenAI" in text
    assert "come" in text


def test_a_mean_as_published_is_not_questioned() -> None:
    assert found(planted(), "preprocessing")[0] == PASSED
    assert found(planted(), "other statistics")[0] == SKIPPED
    published = planted(mean=(0.5, 0.5, 0.5), origin="published with ViT-L-14/laion2b_s32b_b82k")
    assert found(published, "preprocessing")[0] == PASSED
    near = planted(mean=STATISTICS["ImageNet"][0], std=STATISTICS["ImageNet"][1])
    assert found(near, "preprocessing")[0] == UNSURE  # Not the family's, and too near it for pictures to tell.
    assert found(near, "other statistics")[0] == PASSED
    torn = planted(unsure=(("resize_mode", "shortest (a); squash (b)"),))
    assert found(torn, "preprocessing") == (
        UNSURE,
        "published weights of this architecture differ in resize mode: name the model ARCHITECTURE/TAG:FILE",
    )


def test_weights_that_were_never_trained() -> None:
    fresh = from_transformers(transformers_model("clip"), word_tokenizer())
    assert found(Subject(fresh, fresh.preprocess), "weights")[0] == PASSED
    for module in fresh.model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    outcome, text = found(Subject(fresh, fresh.preprocess), "weights")
    assert outcome == FAILED
    assert "never trained" in text
    damaged = copy.deepcopy(fresh)
    with torch.no_grad():
        damaged.model.visual_projection.weight[0, 0] = float("nan")
    assert "visual_projection.weight" in found(Subject(damaged, damaged.preprocess), "weights")[1]


READINGS = (
    "vit", "vit-mean", "coca", "resnet", "timm-map", "timm-convnext", "transformers-clip", "transformers-siglip2", "transformers-tipsv2",
    "transformers-align", "transformers-dinov3_vit", "transformers-radio",
)  # fmt: skip


@pytest.mark.parametrize("kind", READINGS)
def test_a_right_reading_passes_the_comparisons(kind: str) -> None:
    model = backbone(kind)
    subject = Subject(model, model.preprocess)
    subject.sources = {"rendered fishes": list(PLANTED["plain colours"])}  # type: ignore[misc]
    with untouched(model.model):
        for check in ("parity", "odd size", "batch"):
            outcome, text = found(subject, check)
            assert outcome == PASSED, text
    # timm's transformers behind open_clip and CLIP's ResNets read their native size only.
    assert ("the library's own forward" in found(subject, "odd size")[1]) == (kind not in ("timm-map", "resnet"))


def test_a_wrong_reading_fails_parity() -> None:
    class Squinting(type(backbone("vit"))):  # type: ignore[misc]
        def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
            return super().pool_tokens(settled * 1.001, keys)  # type: ignore[no-any-return]

    model = copy.copy(backbone("vit"))
    model.__class__ = Squinting
    subject = Subject(model, model.preprocess)
    subject.sources = {"rendered fishes": list(PLANTED["plain colours"])}  # type: ignore[misc]
    for check in ("parity", "odd size"):
        outcome, text = found(subject, check)
        assert outcome == FAILED
        assert "report the model" in text


@pytest.fixture(scope="module")
def demo() -> Any:
    return load("demo")


@pytest.mark.parametrize("wrong", ["shuffled", "random"])
def test_the_bundled_model_with_wrong_weights_is_caught(demo: Any, wrong: str) -> None:
    """Every weight of the image tower moved to another place of its tensor, or drawn anew with the same spread."""
    generator = torch.Generator().manual_seed(0)
    changed = copy.deepcopy(demo)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            if parameter.ndim > 1:
                mixed = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)].reshape(parameter.shape)
                drawn = torch.randn(parameter.shape, generator=generator) * parameter.std()
                parameter.copy_(mixed if wrong == "shuffled" else drawn)
    subject = Subject(changed, changed.preprocess)
    subject.sources = {"rendered fishes": fishes(each=1)}  # type: ignore[misc]
    outcome, text = found(subject, "texts")
    assert outcome == FAILED
    assert "standard deviations" in text


def test_the_command_says_that_the_bundled_model_is_loaded_right() -> None:
    result = CliRunner().invoke(main, ["models", "check", "demo", "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.strip().endswith("demo is loaded right.")
    for check in CHECKS:
        assert f"\n  {check} " in f"\n{result.output}"


def save_open_clip(folder: Path, mean: tuple[float, float, float]) -> Path:
    from safetensors.torch import save_file

    model = open_clip_model(VIT)
    config = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}
    stored = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": STATISTICS["OpenAI"][1]}}
    (folder / "open_clip_config.json").write_text(json.dumps(stored))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def test_the_command_ends_with_1_for_random_weights_and_names_a_strange_mean(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path, (0.2, 0.2, 0.2))
    result = CliRunner().invoke(main, ["models", "check", str(folder), "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "is not loaded right: texts failed" in result.output
    assert "preprocessing     unsure" in result.output
    result = CliRunner().invoke(main, ["models", "check", str(folder / "nothing"), "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 2


def test_verdicts_and_what_cannot_be_checked() -> None:
    with pytest.raises(ConfigurationError, match="received str"):
        check_model("demo")
    model = from_open_clip(open_clip_model(VIT), simple_tokenizer())
    seen: list[str] = []
    result = check_model(model, Settings(mean=(0.1, 0.1, 0.1)), lambda finding: seen.append(finding.check))
    assert seen == list(CHECKS) == [finding.check for finding in result.findings]
    assert result.outcome == FAILED
    only = replace(result, findings=tuple(finding for finding in result.findings if finding.outcome != FAILED))
    assert only.outcome == UNSURE
    assert "preprocessing" in only.verdict
    assert replace(result, findings=()).verdict.endswith("is loaded right.")


def test_the_pictures_are_there_and_what_they_show_is_said_in_both_languages() -> None:
    for item in [*photographs(), *fishes(each=1, size=(48, 72))]:
        assert item.pixels.dtype == np.uint8
        assert item.pixels.ndim == 3
        assert item.texts["en"].startswith("a photo of ")
        assert item.texts["zh"].endswith("照片")
