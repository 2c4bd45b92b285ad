from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image, features

from concept_cam.commands import fit
from concept_cam.commands.options import chosen_settings
from concept_cam.core.errors import ConfigurationError, DataError, OutputError
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.methods.heads import ClassifierHead, class_folders
from concept_cam.methods.lcam import Explainer
from concept_cam.methods.origin import Origin
from tests.backbones.models import transformers_model
from tests.methods.models import LinearBackbone
from tests.methods.test_heads import colour_folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fit, "build_localizer", lambda values: Localizer(LinearBackbone()))
    monkeypatch.setattr(fit, "load_tower", lambda values: (LinearBackbone(), chosen_settings(values)))
    return colour_folder(tmp_path / "data", 5)


def run(command: Any, *arguments: str) -> Any:
    return CliRunner().invoke(command, list(arguments), catch_exceptions=True)


def test_fit_head_and_attention(data: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.safetensors"
    done = run(fit.fit_head, str(data), "-o", str(head))
    assert done.exit_code == 0, done.output
    assert "accuracy on 2 pictures kept aside: 1.000" in done.output
    assert ClassifierHead.load(head).classes == ("green", "red")
    assert isinstance(run(fit.fit_head, str(data), "-o", str(head)).exception, OutputError)
    for extra in ((), ("--head", str(head))):
        path = tmp_path / f"lcam{len(extra)}.safetensors"
        done = run(fit.fit_attention, str(data), "-o", str(path), "--steps", "5", *extra)
        assert done.exit_code == 0, done.output
        assert "5/5 (100 %) steps" in done.output
        assert Explainer.load(path).classes == (("green", "red") if extra else ())


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_pictures_of_every_ending_are_read(data: Path, tmp_path: Path) -> None:
    """Three formats per class; the accuracy counts every one of them."""
    for name in ("x", "y"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number, (ending, form) in enumerate({".jpg": "JPEG", ".jfif": "JPEG", ".avif": "AVIF"}.items()):
            picture = Image.new("RGB", (24, 24), (220, 20 * number, 0) if name == "x" else (0, 20 * number, 220))
            picture.save(tmp_path / "classes" / name / f"{number}{ending}", form)
    assert [label for _, label in class_folders(tmp_path / "classes")] == ["x"] * 3 + ["y"] * 3
    done = run(fit.fit_head, str(tmp_path / "classes"), "-o", str(tmp_path / "h.safetensors"))
    assert done.exit_code == 0, done.output


def test_wrong_arguments(data: Path, tmp_path: Path) -> None:
    assert isinstance(run(fit.fit_head, str(data), "-o", "head.pth").exception, ConfigurationError)
    assert isinstance(run(fit.fit_head, str(tmp_path), "-o", str(tmp_path / "x" / "h.safetensors")).exception, OutputError)
    assert isinstance(run(fit.fit_head, str(tmp_path / "none"), "-o", str(tmp_path / "h.safetensors")).exception, DataError)
    answer = run(fit.fit_attention, "synthetic", "-o", str(tmp_path / "h.safetensors"), "--head", "h.safetensors")
    assert isinstance(answer.exception, ConfigurationError)


def test_locate_with_a_head(data: Path, tmp_path: Path) -> None:
    import csv
    import io
    import json

    import torch

    from concept_cam.commands.locate import locate

    head, out = tmp_path / "head.safetensors", tmp_path / "out"
    assert run(fit.fit_head, str(data), "-o", str(head)).exit_code == 0
    pictures = [str(data / "red" / "0.png"), str(data / "green" / "0.png"), str(tmp_path / "none.png")]
    done = run(locate, *pictures, "--head", str(head), "--gamma", "1", "-o", str(out))
    assert done.exit_code == 1  # One picture is missing; the others are done.
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["target"], row["contrast"]) for row in rows] == [("red", "green"), ("green", "red")]
    for row in rows:
        assert float(row["peak_x"]) > 16
        assert float(row["peak_y"]) < 16
        assert float(row["probability"]) > 0.5
    names = {path.name for path in out.iterdir()}
    assert "red_0.png__red.overlay.png" in names
    record = json.loads((out / "red_0.png.json").read_text(encoding="utf-8"))["results"][0]
    assert record["provenance"]["method"] == "finer-cam/grad-cam"
    assert record["provenance"]["gamma"] == 1.0

    both = run(
        locate, pictures[0], "--head", str(head), "-t", "red", "-t", "green", "--ranks", "1", "--method", "layer-cam+relu",
        "--weighting", "hardest", "--format", "json",
    )  # fmt: skip
    assert both.exit_code == 0, both.output
    assert [row["target"] for row in json.loads(both.stdout)] == ["red", "green"]

    # A plain .pth has no class names; they come from a file.
    loaded = ClassifierHead.load(head)
    torch.save({"weight": loaded.weight, "bias": loaded.bias}, tmp_path / "head.pth")
    (tmp_path / "names.txt").write_text("green\nred\n", encoding="utf-8")
    plain = run(
        locate,
        pictures[0],
        "--head",
        str(tmp_path / "head.pth"),
        "--classes",
        str(tmp_path / "names.txt"),
        "-c",
        "green",
    )
    assert plain.exit_code == 0, plain.output
    assert next(csv.DictReader(io.StringIO(plain.stdout)))["target"] == "red"


def test_a_head_says_when_pictures_are_read_in_another_way(data: Path, tmp_path: Path) -> None:
    from concept_cam.commands.locate import locate

    head, picture = tmp_path / "head.safetensors", str(data / "red" / "0.png")
    given = ("--size", "64", "--mean", "0.1", "--resize", "squash")
    assert run(fit.fit_head, str(data), "-o", str(head), *given).exit_code == 0
    said = r"size 64 in training, 32 now; resize squash in training, pad now; mean 0.1 in training, 0 now.*\(--size, --resize, --mean\)"
    with pytest.warns(UserWarning, match=said):
        assert run(locate, picture, "--head", str(head), "--size", "32", "--resize", "pad", "--mean", "0").exit_code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        asked = run(locate, picture, "--head", str(head), *given)
        assert asked.exit_code == 0
        # What is not said is read as in training, and told.
        left = run(locate, picture, "--head", str(head))
        assert left.stdout == asked.stdout
        assert "as in the training of the classifier head: --resize squash --size 64 --mean 0.1\n" in left.stderr
        assert "the classifier head" not in asked.stderr
        # An explainer of it likewise.
        found = run(fit.fit_attention, str(data), "--head", str(head), "--steps", "1", "-o", str(tmp_path / "lcam.safetensors"))
        assert found.exit_code == 0, found.output
        assert Explainer.load(tmp_path / "lcam.safetensors").origin == ClassifierHead.load(head).origin
        # The model's own values, named or not, are the same.
        assert run(fit.fit_head, str(data), "-o", str(head), "--overwrite", "--size", "32").exit_code == 0
        assert run(locate, picture, "--head", str(head)).exit_code == 0
        # Files of earlier versions do not say how pictures were read.
        replace(ClassifierHead.load(head), origin=Origin()).save(head, overwrite=True)
        assert run(locate, picture, "--head", str(head), "--size", "64").exit_code == 0


@pytest.mark.parametrize("extra", [(), ("--head", "HEAD"), ("--head", "HEAD", "--rows")])
def test_an_explainer_says_when_pictures_are_read_in_another_way(data: Path, tmp_path: Path, extra: tuple[str, ...]) -> None:
    head, output = tmp_path / "head.safetensors", tmp_path / "lcam.safetensors"
    assert run(fit.fit_head, str(data), "-o", str(head)).exit_code == 0
    chosen = [str(head) if text == "HEAD" else text for text in extra]
    assert run(fit.fit_attention, str(data), "-o", str(output), "--steps", "2", *chosen).exit_code == 0
    explainer = Explainer.load(output)
    finer = LinearBackbone()  # Trained at the native size; that maps are read at a finer one is the model's choice.
    finer.preprocess = replace(finer.preprocess, read_size=(64, 64))
    classes = explainer.classes
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        explainer.require(finer, classes, head=bool(extra), settings=Settings())
        explainer.require(finer, classes, head=bool(extra), settings=Settings(resize_mode="longest"))  # Which "pad" does not use.
    with pytest.warns(UserWarning, match="this explainer was trained.*size 32 in training, 96 now; std 1 in training, 0.5 now"):
        explainer.require(finer, classes, head=bool(extra), settings=Settings(size=96, std=(0.5, 0.5, 0.5)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--head", "none.safetensors"), "cannot read the classifier head"),
        (("--ranks", "1", "-t", "red"), "--ranks belongs to a classifier"),
        (("--head", "h.safetensors", "--traits", "fish"), "give no --traits"),
        (("--head", "h.safetensors", "--ranks", "one"), "whole numbers"),
        (("--head", "h.safetensors", "--ranks", "1", "-c", "red"), "either by name"),
        (("--head", "HEAD", "-t", "blue"), "has no class 'blue'"),
        (("--head", "HEAD", "--method", "gem"), "cannot explain a classifier"),
    ],
)
def test_locate_with_a_head_names_what_is_wrong(data: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    from concept_cam.commands.locate import locate

    head = tmp_path / "head.safetensors"
    assert run(fit.fit_head, str(data), "-o", str(head), "--held-out", "0").exit_code == 0
    given = [str(head) if text == "HEAD" else text for text in arguments]
    done = run(locate, str(data / "red" / "0.png"), *given)
    assert isinstance(done.exception, ConfigurationError)
    assert message in str(done.exception)


def test_a_share_too_small_to_keep_a_picture_is_said(data: Path, tmp_path: Path) -> None:
    done = run(fit.fit_head, str(data), "-o", str(tmp_path / "head.safetensors"), "--held-out", "0.01")
    assert done.exit_code == 0
    assert "no accuracy: 0.01 of each class is less than one picture" in done.output
    assert "kept aside" not in done.output


def test_an_explainer_of_a_classifiers_rows(data: Path, tmp_path: Path) -> None:
    head, output = tmp_path / "head.safetensors", tmp_path / "lcam.safetensors"
    assert run(fit.fit_head, str(data), "-o", str(head)).exit_code == 0
    done = run(fit.fit_attention, str(data), "--head", str(head), "--rows", "--windows", "2", "--steps", "3", "-o", str(output))
    assert done.exit_code == 0, done.output
    explainer = Explainer.load(output)
    assert (explainer.asks, explainer.classes) == ("rows", ())
    from concept_cam.methods.heads import FinerCam

    cam = FinerCam(LinearBackbone(), ClassifierHead.load(head))
    found = cam.explain(next((data / "red").iterdir()), base=f"lcam:{output}")
    assert 0 <= float(found.scores.min()) <= float(found.scores.max()) <= 1
    with pytest.raises(ConfigurationError, match="rows of a classifier"):
        explainer.require(LinearBackbone())
    refused = run(fit.fit_attention, str(data), "--rows", "-o", str(tmp_path / "other.safetensors"))
    assert isinstance(refused.exception, ConfigurationError)
    (data / "blue").mkdir()
    (data / "red" / "0.png").rename(data / "blue" / "0.png")
    unknown = run(fit.fit_attention, str(data), "--head", str(head), "-o", str(tmp_path / "other.safetensors"))
    assert "no class 'blue'" in str(unknown.exception)


def test_an_explainer_knows_the_names_of_a_head_that_holds_none(data: Path, tmp_path: Path) -> None:
    import torch

    from concept_cam.commands.locate import locate

    head, plain, output, names = (tmp_path / name for name in ("h.safetensors", "h.pth", "l.safetensors", "names.txt"))
    assert run(fit.fit_head, str(data), "-o", str(head)).exit_code == 0
    loaded = ClassifierHead.load(head)
    torch.save({"weight": loaded.weight, "bias": loaded.bias}, plain)
    names.write_text("green\nred\n", encoding="utf-8")
    arguments = (str(data), "--head", str(plain), "--steps", "2", "-o", str(output))
    refused = run(fit.fit_attention, *arguments)
    assert "no class 'green' among its 2: 'class 0', 'class 1'." in str(refused.exception)
    done = run(fit.fit_attention, *arguments, "--classes", str(names))
    assert done.exit_code == 0, done.output
    assert Explainer.load(output).classes == ("green", "red")
    asked = (str(data / "red" / "0.png"), "--head", str(plain), "--method", f"lcam:{output}")
    assert run(locate, *asked, "--classes", str(names)).exit_code == 0
    other = run(locate, *asked)
    assert "only the explainer has 'green', 'red'; only the head has 'class 0', 'class 1'" in str(other.exception)
    names.write_text("red\ngreen\n", encoding="utf-8")
    assert "the same names in another order" in str(run(locate, *asked, "--classes", str(names)).exception)
    for_words = run(fit.fit_attention, str(data), "--classes", str(names), "-o", str(tmp_path / "w.safetensors"))
    assert "--classes belong to a classifier" in str(for_words.exception)


def test_an_explainer_knows_the_names_of_a_networks_own_classes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from concept_cam.backbones.own_head import OwnHead

    def load(values: dict[str, Any]) -> Any:
        tower = LinearBackbone()
        tower.own_head = OwnHead(torch.eye(2, 4), torch.zeros(2), ("class 0", "class 1"))  # type: ignore[assignment]
        return tower, chosen_settings(values)

    monkeypatch.setattr(fit, "load_tower", load)
    names, output = tmp_path / "names.txt", tmp_path / "l.safetensors"
    names.write_text("red\ngreen\n", encoding="utf-8")
    done = run(fit.fit_attention, str(data), "-m", "timm:any", "--classes", str(names), "--steps", "2", "-o", str(output))
    assert done.exit_code == 0, done.output
    assert Explainer.load(output).classes == ("red", "green")


def test_random_windows() -> None:
    import numpy as np

    from concept_cam.methods.lcam_training import random_windows

    pixels = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    found = random_windows(pixels, 20, 0)
    sides = [window.shape[0] for window in found]
    assert all(window.shape == (side, side, 3) for window, side in zip(found, sides))
    assert 20 <= min(sides) < max(sides) <= 40
    again = random_windows(pixels, 20, 0)
    assert all(np.array_equal(one, other) for one, other in zip(found, again))


@pytest.mark.parametrize("kind", ["dinov3_vit", "radio", "pe-spatial"])
def test_a_head_on_a_tower_without_words(kind: str, tmp_path: Path) -> None:
    """DINOv3 and C-RADIO from folders of the transformers library, PE-Spatial from a file of timm: trained on, kept, and explained."""
    from concept_cam.cli import main

    data = colour_folder(tmp_path / "data", 4)
    if kind == "pe-spatial":
        from safetensors.torch import save_file

        from concept_cam.backbones.torchvision_compat import prepare_torchvision

        prepare_torchvision()
        import timm

        if not timm.is_model("vit_pe_spatial_tiny_patch16_512"):
            pytest.skip("this release of timm has no PE-Spatial")
        model: Any = timm.create_model("vit_pe_spatial_tiny_patch16_512", pretrained=False)
        save_file(model.state_dict(), tmp_path / "pe.safetensors")
        name, size = f"timm:vit_pe_spatial_tiny_patch16_512,{tmp_path / 'pe.safetensors'}", ["--size", "64"]
    else:
        transformers_model(kind).save_pretrained(tmp_path / "tower")  # type: ignore[operator]
        name, size = f"{'radio' if kind == 'radio' else 'dinov3'}:{tmp_path / 'tower'}", []
    head = tmp_path / "head.safetensors"
    done = run(main, "fit-head", str(data), "-m", name, "--device", "cpu", *size, "-o", str(head))
    assert done.exit_code == 0, done.output
    assert ClassifierHead.load(head).classes == ("green", "red")
    picture = str(data / "red" / "0.png")
    done = run(main, "locate", picture, "--head", str(head), "-m", name, "--device", "cpu", *size, "-o", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert any((tmp_path / "out").iterdir())
