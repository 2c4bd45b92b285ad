"""What ``concept-cam models`` says of one model."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from concept_cam.backbones import FAMILIES
from concept_cam.backbones.loading import names
from concept_cam.cli import main


def said(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["models", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_an_architecture_says_how_its_files_are_prepared() -> None:
    text = said("PE-Core-T-16-384")
    assert "mean 0.5/0.5/0.5, std 0.5/0.5/0.5, interpolation bilinear, resize mode squash" in text
    assert "published with PE-Core-T-16-384 (meta)" in text
    text = said("ViT-L-14")
    assert "published weights differ" in text
    assert "laion2b_s32b_b82k" in text
    assert "ViT-L-14-quickgelu:FILE" in text
    assert "differ" not in said("ViT-L-14/openai")


@pytest.mark.parametrize(
    ("name", "family", "input_", "attention"),
    [
        ("ViT-B-16-SigLIP", "timm-vit-attention-pool", "224 x 224 pixels, 16 per cell", "auto: vanilla"),
        ("ViT-B-32/openai", "open_clip-vit", "224 x 224 pixels, 32 per cell", "auto: kk"),
        ("RN50", "open_clip-resnet", "224 x 224 pixels, 32 per cell", "auto: value"),
        ("convnext_base", "timm-spatial", "224 x 224 pixels, 32 per cell", "auto: vanilla"),
        ("coca_ViT-B-32", "open_clip-vit-attention-pool", "224 x 224 pixels, 32 per cell", "auto: vanilla"),
        ("roberta-ViT-B-32", "open_clip-vit", "224 x 224 pixels, 32 per cell", "auto: kk"),
    ],
)
def test_an_architecture_says_how_it_is_read_without_weights(
    name: str, family: str, input_: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "load", lambda *_: pytest.fail("weights were looked for"))
    text = " ".join(said(name).split())
    known = FAMILIES[family]
    for part in (f"{family}: {known.description}", input_, attention, known.reason, known.pooling, known.verified, "not looked at; "):
        assert " ".join(part.split()) in text
    assert ("texts of at most" in text) == (name != "roberta-ViT-B-32")


def test_an_architecture_that_cannot_be_read_says_why() -> None:
    text = " ".join(said("vit_relpos_medium_patch16_cls_224").split())
    assert "none: vit_relpos_medium_patch16_cls_224: no spatial map can be read" in text
    assert "preprocessing" in text


def test_a_loaded_model_says_what_is_used_and_where_it_comes_from() -> None:
    text = said("demo")
    assert "stored in" in text
    assert "mean " in text
    assert "weights" in text
