"""Vision transformers whose blocks compute in int8."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch

from concept_cam.backbones.int8 import FastBlocks, _quantised, in_int8
from concept_cam.core.errors import ConfigurationError, MissingExtraError, ModelError, UnsupportedModelError
from concept_cam.localizer import Localizer
from tests.backbones.models import backbone, pictures
from tests.planted import PlantedBackbone

KINDS = ("vit", "transformers-clip")


@pytest.fixture
def extra() -> None:
    pytest.importorskip("onnx", reason="the extra [int8]")
    pytest.importorskip("onnxruntime", reason="the extra [int8]")


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Median correlation of the maps [..., D] of two towers, along random directions."""
    along = torch.randn(one.shape[-1], 30, generator=torch.Generator().manual_seed(0))
    pairs = zip(*((torch.nn.functional.normalize(patches, dim=-1) @ along).flatten(0, -2).T for patches in (one, other)))
    return float(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).median())


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("kind", KINDS)
def test_maps_stay_those_of_float32(kind: str) -> None:
    plain = backbone(kind)
    small = in_int8(plain)
    assert small.number_format == "int8"
    assert plain.number_format == "float32", "the tower that it was made of is left as it was"
    assert small.weights_hash == plain.weights_hash
    pixels = pictures(plain)
    for attention in plain.attentions:
        one, two = plain.encode_patches(pixels, attention), small.encode_patches(pixels, attention)
        assert one.patches.shape == two.patches.shape
        assert correlation(one.patches, two.patches) > 0.99, attention
        assert float(torch.cosine_similarity(one.image, two.image).min()) > 0.99
    wide = pictures(plain, size=(plain.preprocess.size[0], 2 * plain.preprocess.size[1]))
    assert correlation(plain.encode_patches(wide).patches, small.encode_patches(wide).patches) > 0.99
    texts = ["a forked tail fin"]
    assert torch.equal(small.encode_text(texts), plain.encode_text(texts))


@pytest.mark.usefixtures("extra")
def test_a_picture_gets_the_same_alone_and_beside_others() -> None:
    small = in_int8(backbone("vit"))
    pixels = pictures(small)
    grid = small.grid_size(tuple(pixels.shape[-2:]))
    valid = torch.ones(2, *grid, dtype=torch.bool)
    valid[0, 0], valid[1, :, :1] = False, False
    valid[1, 0, -1] = False  # another number of cells than the first has
    both = small.encode_patches(pixels, "auto", valid)
    for number in (0, 1):
        alone = small.encode_patches(pixels[number : number + 1], "auto", valid[number : number + 1])
        torch.testing.assert_close(both.patches[number], alone.patches[0], rtol=0, atol=1e-6)
        assert not both.patches[number][~valid[number]].any()


@pytest.mark.usefixtures("extra")
def test_products_with_weights_are_whole_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import onnx

    graph = onnx.load(str(_quantised(backbone("vit"), tmp_path))).graph
    assert not caplog.records, "what a library would advise its own users is not for ours"
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulInteger") >= 4 * (len(backbone("vit").blocks) - 1)
    assert {item.data_type for item in graph.initializer if item.name.endswith("_quantized")} == {onnx.TensorProto.INT8}


@pytest.mark.usefixtures("extra")
def test_what_has_no_int8() -> None:
    with pytest.raises(UnsupportedModelError, match="vision transformers"):
        in_int8(PlantedBackbone())
    with pytest.raises(UnsupportedModelError, match="family 'lite'"):
        Localizer.from_pretrained("demo", dtype="int8")
    half = Localizer(backbone("vit")).backbone
    small = in_int8(half)
    with pytest.raises(ModelError, match="load it there by its name"):
        pickle.dumps(small.fast_blocks)


def test_another_number_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = backbone("vit")
    monkeypatch.setattr(type(tower), "dtype", property(lambda self: torch.bfloat16))
    with pytest.raises(ConfigurationError, match="received bfloat16"):
        in_int8(tower)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime") as raised:
        FastBlocks(backbone("vit"))
    assert raised.value.extra == "int8"
