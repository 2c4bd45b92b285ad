"""What ``concept-cam models`` says of one model."""

from __future__ import annotations

from click.testing import CliRunner

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


def test_a_loaded_model_says_what_is_used_and_where_it_comes_from() -> None:
    text = said("demo")
    assert "stored in" in text
    assert "mean " in text
    assert "weights" in text
