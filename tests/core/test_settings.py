"""A setting is declared once: its option, its place in files, provenance and run descriptions follow from the field."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
import pytest

from concept_cam.commands.options import setting_options
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import PREPROCESS_SETTINGS, Settings, read_config
from concept_cam.localizer import Localizer
from tests.planted import PlantedBackbone

OTHER = {
    "attention": "value", "gamma": 0.5, "weighting": "hardest", "resize": "squash", "size": 16, "views": "mirrored", "feature_norm": "none",
    "templates": ("a photo of {}",), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "interpolation": "nearest", "resize_mode": "squash",
    "refine": "affinity:early+guided", "look_again": True, "batch_size": 3, "max_pixels": 1000,
}  # fmt: skip


@setting_options
def _command(**_: object) -> None:
    """Bears the options."""


def test_every_setting_has_an_option_or_says_that_it_has_none() -> None:
    options = {option.name for option in click.command()(_command).params}
    assert options == {item.name for item in fields(Settings) if item.metadata["command_line"]}
    assert {item.name for item in fields(Settings)} - options == {"feature_norm", "templates"}


def test_every_setting_that_decides_results_is_recorded() -> None:
    assert set(OTHER) == {item.name for item in fields(Settings)}
    localizer = Localizer(PlantedBackbone(), Settings(**OTHER))
    said = localizer.provenance("direct", "value", "squash", "mirrored").to_dict()
    for item in fields(Settings):
        expected = list(OTHER[item.name]) if isinstance(OTHER[item.name], tuple) else OTHER[item.name]
        # A map says that it was refined once it was.
        expected = "none" if item.name == "refine" else expected
        # What a policy does not use decides nothing.
        expected = None if item.name == "resize_mode" else expected
        assert (said.get(item.name) == expected) == (item.name != "batch_size"), item.name
    assert localizer.provenance("direct", "value", "native", "mirrored").resize_mode == OTHER["resize_mode"]
    # What leaves the choice to the model is not written: runs of before can be continued.
    assert not set(Settings().recorded()) & set(PREPROCESS_SETTINGS)


def test_files_hold_every_setting_and_a_preprocess_block(tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "config.yaml"
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in OTHER.items()}
    file.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert Settings().with_values(**read_config(file)) == Settings(**OTHER)
    file.write_text("gamma: 0.5\npreprocess: {mean: [0.5, 0.5, 0.5], resize-mode: squash}\n", encoding="utf-8")
    found = Settings().with_values(**read_config(file))
    assert (found.gamma, found.mean, found.resize_mode) == (0.5, (0.5, 0.5, 0.5), "squash")
    file.write_text("preprocess: {men: 0.5}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="'preprocess' may hold mean, std, interpolation, resize_mode"):
        read_config(file)


@pytest.mark.parametrize("given", ["affinity:early+guided", ("affinity:early", "guided"), ["affinity:early+guided"]])
def test_refiners_that_follow_each_other_are_one_text(given: object) -> None:
    assert Settings(refine=given).refine == "affinity:early+guided"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"), [("guide", "Did you mean 'guided'"), (["guided", "slic"], "unknown refine 'slic'"), (7, "unknown refine '7'")]
)
def test_an_unknown_refiner_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings(refine=given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 100_000}, "size must be at most 4096, received 100000"),
        ({"batch_size": 100_000}, "batch_size must be at most 4096, received 100000"),
        ({"gamma": 1e30}, r"gamma must be a number from 0 .* to 1000, received 1e\+30"),
    ],
)
def test_numbers_that_no_machine_can_compute_with_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Settings(**values)
    Settings(size=4096, batch_size=4096, gamma=1000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gamma: 1\nsize: 64\ngamma: 2\n", "line 3: 'gamma' stands there twice. Keep one of the two"),
        ("preprocess: {mean: 0.5, mean: 0.4}\n", "line 1: 'mean' stands there twice"),
        ("resize_mode: squash\npreprocess: {resize-mode: longest}\n", "'resize_mode' stands there twice, under 'preprocess' too"),
        ("model: 3\n", "model must be a text, received 3"),
        ("device: [cpu]\n", "device must be a text"),
    ],
)
def test_odd_values_of_a_configuration_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["gamma", "size", "batch_size", "max_pixels", "mean", "std"])
def test_yes_is_no_number(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be .*received True"):
        Settings().with_values(**{name: True})
